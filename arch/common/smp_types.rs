//! How a CPU is started, and why it was not.

use abi::PhysAddr;

/// The boot method that the device tree states for a CPU (`enable-method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableMethod {
    /// PSCI `CPU_ON`, by HVC or SMC.
    Psci { hvc: bool },
    /// The CPU spins on the word at `release` until it is not zero.
    SpinTable { release: PhysAddr },
}

/// Why a CPU did not come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// Nothing to start CPUs with.
    NotSupported,
    /// The firmware refused, with this PSCI code.
    Refused(i32),
    /// It did not report within the time allowed; it is parked if it ever arrives.
    TimedOut,
    /// It arrived, but lacks something that the kernel relies on.
    Unfit,
    /// The number or the release address is out of range.
    Invalid,
}
