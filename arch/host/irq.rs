//! The interrupt mask of this CPU.

use crate::sim::with_cpu;

/// The mask as it was.
#[derive(Clone, Copy, Debug)]
pub struct IrqFlags(bool);

/// Masks interrupts and tells how the mask was.
pub fn save_and_disable() -> IrqFlags {
    with_cpu(|cpu| IrqFlags(std::mem::replace(&mut cpu.irqs_on, false)))
}

/// Puts the mask back.
pub fn restore(flags: IrqFlags) {
    with_cpu(|cpu| cpu.irqs_on = flags.0);
}

/// Unmasks interrupts.
pub fn enable() {
    with_cpu(|cpu| cpu.irqs_on = true);
}

/// Masks interrupts.
pub fn disable() {
    with_cpu(|cpu| cpu.irqs_on = false);
}

/// Whether the interrupt that is being handled came from EL0: never, on the host.
pub fn interrupted_user() -> bool {
    false
}

/// Whether interrupts are unmasked.
pub fn enabled() -> bool {
    with_cpu(|cpu| cpu.irqs_on)
}
