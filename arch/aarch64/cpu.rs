//! Which CPU this is, and which are online.

use crate::percpu;
use abi::{CpuId, CpuMask};
use aarch64_cpu::asm::{barrier, wfi};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// The bits of MPIDR_EL1 that name a CPU: Aff3, Aff2, Aff1, Aff0.
pub const AFFINITY: u64 = 0xff_00ff_ffff;

/// The boot CPU is online from the start.
static ONLINE: AtomicU64 = AtomicU64::new(1);

/// The CPU that runs this.
#[inline]
pub fn id() -> CpuId {
    CpuId(percpu::this().id.load(Ordering::Relaxed))
}

/// CPUs online so far.
pub fn count() -> usize {
    online().count() as usize
}

/// The CPUs online so far.
#[inline]
pub fn online() -> CpuMask {
    CpuMask(ONLINE.load(Ordering::Acquire))
}

pub(crate) fn set_online(cpu: CpuId) {
    ONLINE.fetch_or(CpuMask::of(cpu).0, Ordering::Release);
}

/// A hint in a spin loop.
#[inline]
pub fn relax() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) };
}

/// `index` where it is below `size`, else 0, also for what the CPU runs ahead before it has compared
/// the two (Arm ARM C6.2, CSDB). For an index that a program chose; the caller has checked it.
#[inline]
pub fn index_nospec(index: usize, size: usize) -> usize {
    let masked;
    // SAFETY: arithmetic. The select depends on the flags, and CSDB keeps a predicted value of it
    // from what follows.
    unsafe {
        asm!("cmp {index}, {size}", "csel {masked}, {index}, xzr, lo", "csdb",
            index = in(reg) index, size = in(reg) size, masked = lateout(reg) masked, options(pure, nomem, nostack));
    }
    masked
}

/// Sleeps until an interrupt is pending, masked or not.
#[inline]
pub fn wait_for_interrupt() {
    barrier::dsb(barrier::SY); // what was written before is out (Arm ARM D1.6.3)
    wfi();
}

/// The affinity register of a CPU that is or was online.
pub fn mpidr(cpu: CpuId) -> u64 {
    percpu::block_of(cpu).map_or(0, |b| b.mpidr.load(Ordering::Relaxed))
}

/// The main id register of a CPU that is or was online.
pub fn midr(cpu: CpuId) -> u64 {
    crate::features::cpuinfo(cpu).midr
}
