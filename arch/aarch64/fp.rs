//! Floating-point state of programs; the kernel itself uses none.
//!
//! EL0 may always use the registers. A switch away from a program saves them if they are live, and
//! leaves them where they are: the CPU remembers whose they are (`fp_owner`), the thread remembers
//! on which CPU they were loaded (`cpu`). When both still agree at the thread's next turn nothing is
//! loaded; otherwise `FOREIGN_FP` makes the return to EL0 load them. No trap, no IPI.
//!
//! Invariant: of a current thread with `FOREIGN_FP` clear, the registers are the truth; of any other,
//! the memory is.

use crate::percpu::{self, CpuBlock};
use crate::preempt;
use crate::thread::{FOREIGN_FP, ThreadHead};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

core::arch::global_asm!(include_str!("fp.S"));

unsafe extern "C" {
    fn linnet_fp_save(to: *mut FpRegs);
    fn linnet_fp_load(from: *const FpRegs);
}

/// The registers: v0 to v31, FPSR, FPCR. The assembly knows the layout.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FpRegs {
    /// v0 to v31.
    pub v: [u128; 32],
    /// Status.
    pub fpsr: u32,
    /// Control.
    pub fpcr: u32,
}

const NOWHERE: u32 = u32::MAX;

/// The state of a thread.
#[repr(C)]
pub struct FpState {
    regs: UnsafeCell<FpRegs>,
    /// CPU on which the registers were loaded last.
    cpu: AtomicU32,
}

impl FpState {
    /// All zero, in no CPU's registers.
    pub const fn new() -> Self {
        Self {
            regs: UnsafeCell::new(FpRegs { v: [0; 32], fpsr: 0, fpcr: 0 }),
            cpu: AtomicU32::new(NOWHERE),
        }
    }
}

impl Default for FpState {
    fn default() -> Self {
        Self::new()
    }
}

fn is_live(head: &ThreadHead) -> bool {
    core::ptr::eq(head, crate::thread::current())
        && head.user.load(Ordering::Relaxed)
        && head.flags.load(Ordering::Relaxed) & FOREIGN_FP == 0
}

/// At the switch away from `prev`, which runs a program; interrupts off.
#[inline]
pub(crate) fn switch_out(prev: &ThreadHead) {
    if prev.flags.load(Ordering::Relaxed) & FOREIGN_FP == 0 {
        // SAFETY: `prev` is current and its registers are live; nobody else touches its state.
        unsafe { linnet_fp_save(prev.fp.regs.get()) };
    }
}

/// At the switch to `next`, which runs a program; interrupts off.
#[inline]
pub(crate) fn switch_in(next: &ThreadHead, cpu: &CpuBlock) {
    let here = core::ptr::eq(cpu.fp_owner.load(Ordering::Relaxed), next)
        && next.fp.cpu.load(Ordering::Relaxed) == cpu.id.load(Ordering::Relaxed);
    let foreign = next.flags.load(Ordering::Relaxed) & FOREIGN_FP != 0;
    if here && foreign {
        next.clear_flag(FOREIGN_FP);
    } else if !here && !foreign {
        next.set_flag(FOREIGN_FP);
    }
}

/// Before the return to EL0 with `FOREIGN_FP` set; interrupts off.
pub(crate) fn load_current(head: &ThreadHead) {
    let cpu = percpu::this();
    // SAFETY: `head` is current: nobody else touches its state; the kernel has no use of the
    // registers.
    unsafe { linnet_fp_load(head.fp.regs.get()) };
    head.fp.cpu.store(cpu.id.load(Ordering::Relaxed), Ordering::Relaxed);
    cpu.fp_owner.store(core::ptr::from_ref(head).cast_mut(), Ordering::Relaxed);
    head.clear_flag(FOREIGN_FP);
}

/// Brings the memory up to date with the registers if they are live.
pub fn save_current(head: &ThreadHead) {
    preempt::disable();
    if is_live(head) {
        // SAFETY: live registers of the current thread; preemption is off.
        unsafe { linnet_fp_save(head.fp.regs.get()) };
    }
    preempt::enable();
}

/// The registers of a thread that is current or does not run.
pub fn read(head: &ThreadHead) -> FpRegs {
    save_current(head);
    // SAFETY: the thread is current (here) or does not run: nobody writes.
    unsafe { *head.fp.regs.get() }
}

/// Replaces the registers of a thread that is current or does not run.
pub fn write(head: &ThreadHead, regs: &FpRegs) {
    preempt::disable();
    // SAFETY: as in `read`; preemption is off, so no switch saves over it.
    unsafe { *head.fp.regs.get() = *regs };
    head.fp.cpu.store(NOWHERE, Ordering::Relaxed);
    head.set_flag(FOREIGN_FP);
    preempt::enable();
}

/// Zeroes the registers of a thread that is current or does not run (exec).
pub fn flush(head: &ThreadHead) {
    write(head, &FpRegs::default());
}

/// Gives `to`, which does not run, a copy of what the current thread `from` has. `from.tpidr_el0` is
/// up to date afterwards too.
pub fn copy_on_fork(from: &ThreadHead, to: &ThreadHead) {
    save_current(from);
    from.tls(); // brings the memory up to date with the register, for who copies that next
    // SAFETY: `from` is current, `to` does not run.
    unsafe { *to.fp.regs.get() = *from.fp.regs.get() };
    to.fp.cpu.store(NOWHERE, Ordering::Relaxed);
    to.set_flag(FOREIGN_FP);
}
