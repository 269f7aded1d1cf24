//! Points in time as files carry them: seconds since 1970, which may be negative.

use abi::{Nanos, raw::general::__kernel_timespec};

/// A file's time stamp.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time {
    /// Seconds since 1970.
    pub secs: i64,
    /// Nanoseconds beyond them, below 10^9.
    pub nanos: u32,
}

impl Time {
    /// The present, by the coarse clock.
    pub fn now() -> Self {
        Self::from_nanos(time::realtime())
    }
    /// From a count of nanoseconds since 1970.
    pub fn from_nanos(n: Nanos) -> Self {
        Self { secs: n.secs() as i64, nanos: n.subsec() as u32 }
    }
    /// As a `timespec`.
    pub fn to_timespec(self) -> __kernel_timespec {
        __kernel_timespec { tv_sec: self.secs, tv_nsec: i64::from(self.nanos) }
    }
}
