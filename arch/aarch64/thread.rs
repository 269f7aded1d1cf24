//! The thread that runs on this CPU.

#[path = "../common/thread_head.rs"]
mod thread_head;

pub use thread_head::*;

use core::sync::atomic::Ordering;

/// Flag of this crate: the thread's floating-point state is not in the registers.
pub(crate) const FOREIGN_FP: u32 = 1 << 31;

/// What a thread that does not run keeps of its registers. The switch knows the layout.
#[repr(C)]
pub struct Context {
    x19_to_x28: [u64; 10],
    pub(crate) x29: u64,
    pub(crate) lr: u64,
    pub(crate) sp: u64,
}

impl Context {
    pub(crate) const fn new() -> Self {
        Self { x19_to_x28: [0; 10], x29: 0, lr: 0, sp: 0 }
    }

    pub(crate) fn start(&mut self, sp: u64, lr: u64, x19: u64, x20: u64) {
        *self = Self::new();
        self.x19_to_x28[0] = x19;
        self.x19_to_x28[1] = x20;
        self.sp = sp;
        self.lr = lr;
    }
}

/// The boot CPU's first thread, until the scheduler adopts one of its own.
pub(crate) static BOOT_HEAD: ThreadHead = ThreadHead::new();

/// The thread that runs here.
#[inline]
pub fn current() -> &'static ThreadHead {
    let p: *const ThreadHead;
    // SAFETY: in the kernel SP_EL0 always points to the current thread's head, which stays
    // allocated while the thread runs; for one thread it never changes, so `pure` holds.
    unsafe {
        core::arch::asm!("mrs {}, sp_el0", out(reg) p,
                         options(pure, nomem, nostack, preserves_flags));
        &*p
    }
}

/// Thread pointer of the current thread's program.
pub fn tls() -> u64 {
    crate::regs::read_sysreg!("tpidr_el0")
}

/// Sets the thread pointer of the current thread's program.
pub fn set_tls(value: u64) {
    current().tpidr_el0.store(value, Ordering::Relaxed);
    // SAFETY: a register that only programs use.
    unsafe { crate::regs::write_sysreg!("tpidr_el0", value) };
}
