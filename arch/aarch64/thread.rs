//! The thread that runs on this CPU.

#[path = "../common/thread_head.rs"]
mod thread_head;

pub use thread_head::*;

use crate::percpu;
use crate::regs::{read_sysreg, write_sysreg};
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
    // allocated while the thread runs. `readonly` keeps a copy from living across `install`.
    unsafe {
        core::arch::asm!("mrs {}, sp_el0", out(reg) p,
                         options(pure, readonly, nostack, preserves_flags));
        &*p
    }
}

/// Makes `head` the thread that runs on this CPU, on the stack in use: once per CPU, for the thread
/// that boots it. The preempt count moves with it.
pub fn set_current(head: &'static ThreadHead) {
    let flags = crate::irq::save_and_disable();
    let cpu = percpu::this();
    let old = current();
    if !core::ptr::eq(old, head) {
        head.preempt_count.store(old.preempt_count.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    head.cpu.store(cpu.id.load(Ordering::Relaxed), Ordering::Relaxed);
    cpu.current.store(core::ptr::from_ref(head).cast_mut(), Ordering::Relaxed);
    install(head);
    crate::irq::restore(flags);
}

fn install(head: &'static ThreadHead) {
    // SAFETY: SP_EL0 is where the current thread's head is found; a `'static` head stays.
    unsafe { write_sysreg!("sp_el0", core::ptr::from_ref(head) as u64) };
}

pub(crate) fn read_tls_register() -> u64 {
    read_sysreg!("tpidr_el0")
}

pub(crate) fn write_tls_register(value: u64) {
    // SAFETY: a register that only programs use.
    unsafe { write_sysreg!("tpidr_el0", value) };
}
