//! Starting further CPUs: on the host they are `sim::run_on_cpus`.

use crate::thread::ThreadHead;
use abi::{CpuId, VirtAddr};

#[path = "../common/smp_types.rs"]
mod smp_types;
pub use smp_types::*;

/// How the firmware would start CPUs.
pub fn psci_method() -> Option<EnableMethod> {
    None
}

/// There is nothing to start.
pub fn start(
    _: CpuId,
    _mpidr: u64,
    _: EnableMethod,
    _idle_stack_top: VirtAddr,
    _: &'static ThreadHead,
    _: extern "C" fn(CpuId) -> !,
) -> Result<(), StartError> {
    Err(StartError::NotSupported)
}
