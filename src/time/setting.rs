//! What a timer is set to, and how periods go by.

use abi::{Nanos, raw::general::__kernel_timespec};

/// A time to the next expiry (zero: none comes) and the period from then on (zero: once).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// it_value.
    pub value: Nanos,
    /// it_interval.
    pub interval: Nanos,
}

impl Setting {
    /// From `struct itimerspec`, which is its period and its time; `None` when one is no time.
    pub fn from_words([interval, value]: [__kernel_timespec; 2]) -> Option<Self> {
        Some(Self { value: Nanos::from_timespec(&value)?, interval: Nanos::from_timespec(&interval)? })
    }
    /// As `struct itimerspec`.
    pub fn to_words(self) -> [__kernel_timespec; 2] {
        [self.interval.to_timespec(), self.value.to_timespec()]
    }
}

/// Moves the time of a periodic expiry past `now`, by whole periods; how many. Zero when it lies
/// ahead already, or there is no period.
pub fn forward(at: &mut Nanos, interval: Nanos, now: Nanos) -> u64 {
    if *at > now || interval == Nanos::ZERO {
        return 0;
    }
    let periods = (now.saturating_sub(*at).0 / interval.0).saturating_add(1);
    *at = at.saturating_add(Nanos(interval.0.saturating_mul(periods)));
    periods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_goes_just_past_now() {
        let mut at = Nanos(100);
        assert_eq!(forward(&mut at, Nanos(30), Nanos(99)), 0);
        assert_eq!(forward(&mut at, Nanos(30), Nanos(100)), 1);
        assert_eq!(at, Nanos(130));
        assert_eq!(forward(&mut at, Nanos(30), Nanos(195)), 3);
        assert_eq!(at, Nanos(220));
        assert_eq!(forward(&mut at, Nanos::ZERO, Nanos(500)), 0);
        let mut far = Nanos(1);
        assert_eq!(forward(&mut far, Nanos(1), Nanos(u64::MAX - 1)), u64::MAX - 1);
    }
}
