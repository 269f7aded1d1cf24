//! Which CPU this is, and how many there are.

use crate::sim::with_cpu;
use abi::{CpuId, CpuMask};
use std::sync::atomic::Ordering;

/// The bits of MPIDR_EL1 that name a CPU: Aff3, Aff2, Aff1, Aff0.
pub const AFFINITY: u64 = 0xff_00ff_ffff;

/// The CPU that this host thread simulates.
pub fn id() -> CpuId {
    with_cpu(|cpu| cpu.id)
}

/// CPUs of this machine that are online.
pub fn count() -> usize {
    online().count() as usize
}

/// The CPUs of this machine that are online.
pub fn online() -> CpuMask {
    CpuMask(with_cpu(|cpu| cpu.machine.online.load(Ordering::SeqCst)))
}

/// A hint in a spin loop; on the host it also lets the other CPUs' threads run.
pub fn relax() {
    std::thread::yield_now();
}

/// `index` where it is below `size`, else 0.
pub fn index_nospec(index: usize, size: usize) -> usize {
    if index < size { index } else { 0 }
}

/// Would wait for an interrupt.
pub fn wait_for_interrupt() {
    std::thread::yield_now();
}

/// The affinity register: here just the number.
pub fn mpidr(cpu: CpuId) -> u64 {
    u64::from(cpu.0) | 1 << 31
}

/// The main id register: a Cortex-A72 r0p3.
pub fn midr(_: CpuId) -> u64 {
    0x410f_d083
}
