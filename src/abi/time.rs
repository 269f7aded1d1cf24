//! Time as a count of nanoseconds.

use linux_raw_sys::general::{__kernel_timespec, timeval};

/// Nanoseconds: a span, or a point on a clock whose origin the context states.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// No time.
    pub const ZERO: Self = Self(0);
    /// Longer than any machine runs: 584 years.
    pub const MAX: Self = Self(u64::MAX);
    /// Nanoseconds in a second.
    pub const PER_SEC: u64 = 1_000_000_000;

    /// A span of whole seconds; saturates.
    pub const fn from_secs(s: u64) -> Self {
        Self(s.saturating_mul(Self::PER_SEC))
    }
    /// A span of milliseconds; saturates.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }
    /// A span of microseconds; saturates.
    pub const fn from_micros(us: u64) -> Self {
        Self(us.saturating_mul(1_000))
    }
    /// Whole seconds.
    pub const fn secs(self) -> u64 {
        self.0 / Self::PER_SEC
    }
    /// Nanoseconds beyond the whole seconds.
    pub const fn subsec(self) -> u64 {
        self.0 % Self::PER_SEC
    }
    /// `self + other`, saturating at `MAX`.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
    /// `self - other`, saturating at zero.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
    /// From a `timespec`: `None` when it is negative or its nanoseconds are not below 10^9.
    pub const fn from_timespec(t: &__kernel_timespec) -> Option<Self> {
        if t.tv_sec < 0 || t.tv_nsec < 0 || t.tv_nsec as u64 >= Self::PER_SEC {
            return None;
        }
        Some(Self((t.tv_sec as u64).saturating_mul(Self::PER_SEC).saturating_add(t.tv_nsec as u64)))
    }
    /// As a `timespec`.
    pub const fn to_timespec(self) -> __kernel_timespec {
        __kernel_timespec { tv_sec: self.secs() as i64, tv_nsec: self.subsec() as i64 }
    }
    /// As a `timeval`, microseconds rounded down.
    pub const fn to_timeval(self) -> timeval {
        timeval { tv_sec: self.secs() as i64, tv_usec: (self.subsec() / 1000) as i64 }
    }
}
