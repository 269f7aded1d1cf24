//! Switching the machine off, restarting it, stopping: PSCI, if the device tree has it.

use core::sync::atomic::{AtomicU8, Ordering};
use smccc::{Hvc, Smc, psci};

/// How the firmware is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    /// No PSCI.
    None = 0,
    /// HVC.
    Hvc = 1,
    /// SMC.
    Smc = 2,
}

static METHOD: AtomicU8 = AtomicU8::new(0);

/// Says how the firmware is called.
pub fn set_method(method: Method) {
    METHOD.store(method as u8, Ordering::Release);
}

/// How the firmware is called.
pub fn method() -> Method {
    match METHOD.load(Ordering::Acquire) {
        1 => Method::Hvc,
        2 => Method::Smc,
        _ => Method::None,
    }
}

/// Switches the machine off; stops this CPU when the firmware does not.
pub fn off() -> ! {
    crate::irq::disable();
    let _ = match method() {
        Method::Hvc => psci::system_off::<Hvc>(),
        Method::Smc => psci::system_off::<Smc>(),
        Method::None => Ok(()),
    };
    halt()
}

/// Restarts the machine; stops this CPU when the firmware does not.
pub fn restart() -> ! {
    crate::irq::disable();
    let _ = match method() {
        Method::Hvc => psci::system_reset::<Hvc>(),
        Method::Smc => psci::system_reset::<Smc>(),
        Method::None => Ok(()),
    };
    halt()
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    crate::irq::disable();
    loop {
        crate::cpu::wait_for_interrupt();
    }
}
