#![no_std]
//! The CPU as the rest of the kernel sees it: `arch-aarch64` on the target,
//! `arch-host` (the same interface, simulated) on the developer's machine.

#[cfg(not(target_os = "none"))]
pub use arch_host::*;
#[cfg(target_os = "none")]
pub use arch_aarch64::*;
