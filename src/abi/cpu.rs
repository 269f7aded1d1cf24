//! CPU numbers and sets of CPUs.

/// The largest number of CPUs that Linnet drives.
pub const MAX_CPUS: usize = 64;

/// Logical number of a CPU: 0 is the boot CPU, the others follow in device-tree order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct CpuId(pub u32);

impl CpuId {
    /// The boot CPU.
    pub const BOOT: Self = Self(0);
    /// As an index into per-CPU tables; always below `MAX_CPUS` for ids that `arch` hands out.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(transparent)]
pub struct CpuMask(pub u64);

impl CpuMask {
    /// No CPU.
    pub const EMPTY: Self = Self(0);
    /// Every CPU that could exist.
    pub const ALL: Self = Self(u64::MAX);

    /// The set of one CPU.
    pub const fn of(cpu: CpuId) -> Self {
        Self(1 << (cpu.0 & 63))
    }
    /// The CPUs 0 to `n - 1`.
    pub const fn first(n: usize) -> Self {
        if n >= 64 { Self::ALL } else { Self((1 << n) - 1) }
    }
    /// Whether `cpu` is in the set.
    pub const fn contains(self, cpu: CpuId) -> bool {
        self.0 >> (cpu.0 & 63) & 1 != 0
    }
    /// The set with `cpu` in it.
    pub const fn with(self, cpu: CpuId) -> Self {
        Self(self.0 | Self::of(cpu).0)
    }
    /// The set without `cpu`.
    pub const fn without(self, cpu: CpuId) -> Self {
        Self(self.0 & !Self::of(cpu).0)
    }
    /// CPUs in both sets.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    /// Whether the set has no member.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// How many members the set has.
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }
    /// The members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = CpuId> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let cpu = left.trailing_zeros();
            left &= left - 1;
            Some(CpuId(cpu))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iter_lists_members_in_ascending_order() {
        let mask = CpuMask::EMPTY.with(CpuId(5)).with(CpuId(0)).with(CpuId(63));
        assert!(mask.iter().eq([CpuId(0), CpuId(5), CpuId(63)]));
    }

    #[test]
    fn first_of_64_is_every_cpu() {
        assert_eq!(CpuMask::first(64), CpuMask::ALL);
        assert_eq!(CpuMask::first(3).0, 0b111);
    }
}
