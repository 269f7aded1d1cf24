//! The virtual counter and this CPU's one-shot timer on it (Arm ARM D12).

use core::arch::asm;

/// The counter now. The ISB keeps the read in program order (Arm ARM D12.2.2).
#[inline]
pub fn counter() -> u64 {
    let value: u64;
    // SAFETY: a read.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Ticks in a second, as the firmware says.
#[inline]
pub fn frequency() -> u64 {
    crate::regs::read_sysreg!("cntfrq_el0")
}

/// Makes this CPU's timer interrupt when the counter reaches `counter`.
#[inline]
pub fn set_deadline(counter: u64) {
    // SAFETY: this CPU's own timer. ENABLE = 1, IMASK = 0.
    unsafe {
        asm!("msr cntv_cval_el0, {}", "msr cntv_ctl_el0, {}", "isb", in(reg) counter, in(reg) 1u64,
             options(nostack, preserves_flags))
    };
}

/// Stops this CPU's timer.
#[inline]
pub fn clear_deadline() {
    // SAFETY: this CPU's own timer.
    unsafe { asm!("msr cntv_ctl_el0, xzr", "isb", options(nostack, preserves_flags)) };
}
