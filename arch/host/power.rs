//! Ending the machine: on the host, the test.

/// How the firmware is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// No PSCI.
    None,
    /// HVC.
    Hvc,
    /// SMC.
    Smc,
}

/// Says how the firmware is called.
pub fn set_method(_: Method) {}

/// How the firmware is called.
pub fn method() -> Method {
    Method::None
}

/// Switches the machine off.
#[allow(clippy::panic)] // ends the test
pub fn off() -> ! {
    panic!("power off")
}

/// Restarts the machine.
#[allow(clippy::panic)] // ends the test
pub fn restart() -> ! {
    panic!("restart")
}

/// Stops for good.
#[allow(clippy::panic)] // ends the test
pub fn halt() -> ! {
    panic!("halt")
}
