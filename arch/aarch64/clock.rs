//! The virtual counter and this CPU's one-shot timer on it (Arm ARM D12).

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0};
use tock_registers::interfaces::{Readable, Writeable};

/// The counter now. The ISB keeps the read in program order (Arm ARM D12.2.2).
#[inline]
pub fn counter() -> u64 {
    barrier::isb(barrier::SY);
    CNTVCT_EL0.get()
}

/// The counter at about this time, without a barrier: for mixing, not for measuring.
#[inline]
pub(crate) fn raw_counter() -> u64 {
    CNTVCT_EL0.get()
}

/// Ticks in a second, as the firmware says.
#[inline]
pub fn frequency() -> u64 {
    CNTFRQ_EL0.get()
}

/// Makes this CPU's timer interrupt when the counter reaches `counter`.
#[inline]
pub fn set_deadline(counter: u64) {
    CNTV_CVAL_EL0.set(counter);
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET + CNTV_CTL_EL0::IMASK::CLEAR);
    barrier::isb(barrier::SY);
}

/// Stops this CPU's timer. The ISB: the interrupt is withdrawn before it is unmasked.
#[inline]
pub fn clear_deadline() {
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::CLEAR);
    barrier::isb(barrier::SY);
}
