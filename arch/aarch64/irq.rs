//! The interrupt mask of this CPU (PSTATE.I, and F with it).

use core::arch::asm;

const I: u64 = 1 << 7;

/// The mask as it was.
#[derive(Clone, Copy, Debug)]
pub struct IrqFlags(u64);

/// Masks interrupts and tells how the mask was.
#[inline]
pub fn save_and_disable() -> IrqFlags {
    let flags: u64;
    // SAFETY: masking interrupts is always allowed. Memory is a clobber on purpose: accesses stay
    // inside the masked region.
    unsafe { asm!("mrs {}, daif", "msr daifset, #3", out(reg) flags, options(nostack, preserves_flags)) };
    IrqFlags(flags)
}

/// Puts the mask back.
#[inline]
pub fn restore(flags: IrqFlags) {
    // SAFETY: a value that `save_and_disable` read.
    unsafe { asm!("msr daif, {}", in(reg) flags.0, options(nostack, preserves_flags)) };
}

/// Unmasks interrupts.
#[inline]
pub fn enable() {
    // SAFETY: the vectors are installed before Rust runs.
    unsafe { asm!("msr daifclr, #3", options(nostack, preserves_flags)) };
}

/// Masks interrupts.
#[inline]
pub fn disable() {
    // SAFETY: masking interrupts is always allowed.
    unsafe { asm!("msr daifset, #3", options(nostack, preserves_flags)) };
}

/// Whether the interrupt that is being handled came from EL0. Inside `Kernel::interrupt` only.
#[inline]
pub fn interrupted_user() -> bool {
    crate::percpu::this().from_user.load(core::sync::atomic::Ordering::Relaxed)
}

/// Whether interrupts are unmasked.
#[inline]
pub fn enabled() -> bool {
    crate::regs::read_sysreg!("daif") & I == 0
}
