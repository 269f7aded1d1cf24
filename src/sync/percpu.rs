//! Data of which every CPU has its own, and counters that CPUs add to without meeting.

use crate::{
    atomic::{AtomicI64, Ordering},
    guard::{IrqGuard, PreemptGuard},
};
use abi::{CpuId, MAX_CPUS};
use core::ops::{Deref, DerefMut};

/// A value in cache lines of its own.
#[repr(align(64))]
#[derive(Default, Debug)]
pub struct CachePadded<T>(pub T);

impl<T> CachePadded<T> {
    /// The value, padded.
    pub const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for CachePadded<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for CachePadded<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Makes a [`PerCpu`] from a constant expression, for statics:
/// `static X: PerCpu<AtomicU32> = per_cpu!(AtomicU32::new(0));`
#[macro_export]
macro_rules! per_cpu {
    ($init:expr) => {
        $crate::PerCpu::from_array([const { $crate::CachePadded::new($init) }; $crate::MAX_CPUS])
    };
}

/// Something that can prove that the current thread stays on its CPU.
pub trait Pinned {
    /// The CPU.
    fn cpu(&self) -> CpuId;
}

impl Pinned for PreemptGuard {
    #[inline]
    fn cpu(&self) -> CpuId {
        PreemptGuard::cpu(self)
    }
}

impl Pinned for IrqGuard {
    #[inline]
    fn cpu(&self) -> CpuId {
        IrqGuard::cpu(self)
    }
}

impl Pinned for crate::rcu::ReadGuard {
    #[inline]
    fn cpu(&self) -> CpuId {
        arch::cpu::id()
    }
}

/// One `T` for each CPU, each in cache lines of its own.
pub struct PerCpu<T> {
    slots: [CachePadded<T>; MAX_CPUS],
}

impl<T> PerCpu<T> {
    /// One value for each CPU, made by `init`.
    pub fn new(mut init: impl FnMut(CpuId) -> T) -> Self {
        Self { slots: core::array::from_fn(|n| CachePadded(init(CpuId(n as u32)))) }
    }

    /// From one value for each CPU; see [`per_cpu!`](crate::per_cpu).
    pub const fn from_array(slots: [CachePadded<T>; MAX_CPUS]) -> Self {
        Self { slots }
    }

    /// The value of a CPU. A number beyond `MAX_CPUS`, which `arch` never hands out, wraps.
    #[inline]
    pub fn get(&self, cpu: CpuId) -> &T {
        const { assert!(MAX_CPUS.is_power_of_two()) };
        #[allow(clippy::indexing_slicing)] // masked to the length, so there is no check to fail
        &self.slots[cpu.index() & (MAX_CPUS - 1)]
    }

    /// The value of a CPU, when nobody else has access.
    pub fn get_mut(&mut self, cpu: CpuId) -> &mut T {
        #[allow(clippy::indexing_slicing)] // masked to the length
        &mut self.slots[cpu.index() & (MAX_CPUS - 1)]
    }

    /// This CPU's value; the guard keeps the thread here.
    #[inline]
    pub fn this<'a>(&'a self, pinned: &'a impl Pinned) -> &'a T {
        self.get(pinned.cpu())
    }

    /// The value of the CPU that runs this right now; the thread may move at any time.
    #[inline]
    pub fn this_unpinned(&self) -> &T {
        self.get(arch::cpu::id())
    }

    /// All CPUs' values, those that never came up included.
    pub fn iter(&self) -> impl Iterator<Item = (CpuId, &T)> {
        self.slots.iter().enumerate().map(|(n, v)| (CpuId(n as u32), &v.0))
    }
}

/// A counter that is added to often and read rarely.
pub struct PerCpuCounter {
    parts: PerCpu<AtomicI64>,
}

impl PerCpuCounter {
    /// Zero.
    pub const fn new() -> Self {
        Self { parts: per_cpu!(AtomicI64::new(0)) }
    }

    /// Adds `n`, from any context.
    #[inline]
    pub fn add(&self, n: i64) {
        // Atomic, so a move to another CPU between the two steps costs time, not correctness.
        self.parts.this_unpinned().fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Subtracts one.
    #[inline]
    pub fn dec(&self) {
        self.add(-1);
    }

    /// The sum; adds that happen meanwhile may be in it or not.
    pub fn sum(&self) -> i64 {
        self.parts.iter().map(|(_, part)| part.load(Ordering::Relaxed)).fold(0, i64::wrapping_add)
    }

    /// The sum as a count: a momentary negative sum reads as zero.
    pub fn sum_positive(&self) -> u64 {
        self.sum().max(0) as u64
    }
}

impl Default for PerCpuCounter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_finds_its_own_slot() {
        let slots = PerCpu::new(|cpu| cpu);
        arch::sim::run_on_cpus(4, |cpu| {
            let pin = PreemptGuard::new();
            assert_eq!(*slots.this(&pin), cpu);
            assert_eq!(*slots.get(cpu), cpu);
        });
    }

    #[test]
    fn a_counter_sums_what_all_cpus_added_and_took() {
        let counter = PerCpuCounter::new();
        arch::sim::run_on_cpus(4, |cpu| (0..1000).for_each(|_| counter.add(i64::from(cpu.0) - 1)));
        assert_eq!(counter.sum(), 2000);
        counter.add(-3000);
        assert_eq!((counter.sum(), counter.sum_positive()), (-1000, 0));
    }
}
