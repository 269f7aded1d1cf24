//! How code keeps its CPU to itself: no preemption, or no interrupts, for the life of a guard.

use abi::CpuId;
use core::marker::PhantomData;

/// Preemption is off on this CPU while the guard lives; the current thread stays on its CPU.
///
/// The last guard to go reschedules if that became due. Guards nest and may be dropped in any
/// order, but never on another CPU: the type is not `Send`.
pub struct PreemptGuard {
    not_send: PhantomData<*mut ()>,
}

impl PreemptGuard {
    /// Turns preemption off.
    #[inline]
    #[must_use]
    pub fn new() -> Self {
        arch::preempt::disable();
        Self { not_send: PhantomData }
    }

    /// This CPU: it cannot change while the guard lives.
    #[inline]
    pub fn cpu(&self) -> CpuId {
        arch::cpu::id()
    }
}

impl Default for PreemptGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for PreemptGuard {
    #[inline]
    fn drop(&mut self) {
        arch::preempt::enable();
    }
}

/// Interrupts (and with them preemption) are off on this CPU while the guard lives.
///
/// Guards nest; each restores what it found, so they must be dropped in reverse order.
pub struct IrqGuard {
    flags: arch::irq::IrqFlags,
    not_send: PhantomData<*mut ()>,
}

impl IrqGuard {
    /// Turns interrupts off.
    #[inline]
    #[must_use]
    pub fn new() -> Self {
        let flags = arch::irq::save_and_disable();
        arch::preempt::disable();
        Self { flags, not_send: PhantomData }
    }

    /// This CPU: it cannot change while the guard lives.
    #[inline]
    pub fn cpu(&self) -> CpuId {
        arch::cpu::id()
    }
}

impl Default for IrqGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for IrqGuard {
    #[inline]
    fn drop(&mut self) {
        // Interrupts first: `enable` below is then the point where a reschedule that became due
        // inside happens.
        arch::irq::restore(self.flags);
        arch::preempt::enable();
    }
}
