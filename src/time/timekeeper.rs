//! What the clocks show: monotonic, boot, real, and their coarse forms.
//!
//! Everything comes from the one counter that all CPUs share, so the monotonic clock cannot differ
//! between CPUs. The parameters sit in a sequence lock: readers, in any context, write nothing.
//! A change of the real-time clock moves its offset only; the monotonic clock never jumps.

use crate::conversion::Conversion;
use abi::{Errno, Nanos, Result};
use sync::{
    LockClass, Once, SeqLock,
    atomic::{AtomicU64, Ordering},
};

static CLASS: LockClass = LockClass::new("timekeeper", 1760);

/// The step of the coarse clocks: a tick of Debian's kernel (CONFIG_HZ=250).
pub const COARSE_STEP: Nanos = Nanos(4_000_000);

/// The real-time clock cannot be set beyond this (2232-ish; Linux: TIME_SETTOD_SEC_MAX).
const REALTIME_MAX: Nanos = Nanos::from_secs((u64::MAX / 2) / Nanos::PER_SEC - 30 * 365 * 86_400);

/// What a reader needs to turn the counter into a time.
#[derive(Clone, Copy)]
pub struct Timekeeper {
    /// Counter at which the clocks stood at `base`.
    pub base_ticks: u64,
    /// Monotonic time at `base_ticks`.
    pub base: Nanos,
    /// Ticks to nanoseconds.
    pub conversion: Conversion,
    /// Real time minus monotonic time.
    pub real_offset: Nanos,
    /// Boot time minus monotonic time: time spent suspended.
    pub boot_offset: Nanos,
    /// TAI minus UTC, in seconds.
    pub tai_offset: i32,
}

static TIMEKEEPER: SeqLock<Timekeeper> = SeqLock::new(
    Timekeeper {
        base_ticks: 0,
        base: Nanos::ZERO,
        conversion: Conversion::new(Nanos::PER_SEC),
        real_offset: Nanos::ZERO,
        boot_offset: Nanos::ZERO,
        tai_offset: 0,
    },
    &CLASS,
);

/// How often the real-time clock was set.
static SET_COUNT: AtomicU64 = AtomicU64::new(0);

/// The clocks of clock_gettime(2) that show the machine's time (not a process's).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// CLOCK_REALTIME, and CLOCK_REALTIME_ALARM.
    Realtime,
    /// CLOCK_MONOTONIC.
    Monotonic,
    /// CLOCK_MONOTONIC_RAW: Linnet does not slew, so it equals CLOCK_MONOTONIC.
    MonotonicRaw,
    /// CLOCK_REALTIME_COARSE.
    RealtimeCoarse,
    /// CLOCK_MONOTONIC_COARSE.
    MonotonicCoarse,
    /// CLOCK_BOOTTIME, and CLOCK_BOOTTIME_ALARM.
    Boottime,
    /// CLOCK_TAI.
    Tai,
}

impl Clock {
    /// From a clockid_t; `None` for CPU-time clocks and numbers without a meaning.
    pub const fn from_id(id: i32) -> Option<Self> {
        use abi::raw::general as g;
        Some(match id as u32 {
            g::CLOCK_REALTIME | g::CLOCK_REALTIME_ALARM => Self::Realtime,
            g::CLOCK_MONOTONIC => Self::Monotonic,
            g::CLOCK_MONOTONIC_RAW => Self::MonotonicRaw,
            g::CLOCK_REALTIME_COARSE => Self::RealtimeCoarse,
            g::CLOCK_MONOTONIC_COARSE => Self::MonotonicCoarse,
            g::CLOCK_BOOTTIME | g::CLOCK_BOOTTIME_ALARM => Self::Boottime,
            g::CLOCK_TAI => Self::Tai,
            _ => return None,
        })
    }

    /// The clock's time.
    pub fn now(self) -> Nanos {
        match self {
            Self::Realtime => realtime(),
            Self::Monotonic | Self::MonotonicRaw => monotonic(),
            Self::RealtimeCoarse => realtime_coarse(),
            Self::MonotonicCoarse => monotonic_coarse(),
            Self::Boottime => boottime(),
            Self::Tai => {
                let tk = TIMEKEEPER.read();
                let utc = tk.monotonic().saturating_add(tk.real_offset);
                Nanos(utc.0.saturating_add_signed(i64::from(tk.tai_offset) * Nanos::PER_SEC as i64))
            }
        }
    }

    /// What clock_getres(2) says: Linux claims a nanosecond with high-resolution timers.
    pub const fn resolution(self) -> Nanos {
        match self {
            Self::RealtimeCoarse | Self::MonotonicCoarse => COARSE_STEP,
            _ => Nanos(1),
        }
    }

    /// The monotonic time at which this clock will show `at`, if nobody sets it meanwhile
    /// (see [`clock_set_count`]); zero when that is past.
    pub fn to_monotonic(self, at: Nanos) -> Nanos {
        let tk = TIMEKEEPER.read();
        match self {
            Self::Realtime | Self::RealtimeCoarse => at.saturating_sub(tk.real_offset),
            Self::Monotonic | Self::MonotonicRaw | Self::MonotonicCoarse => at,
            Self::Boottime => at.saturating_sub(tk.boot_offset),
            Self::Tai => {
                let utc = at.0.saturating_add_signed(-i64::from(tk.tai_offset) * Nanos::PER_SEC as i64);
                Nanos(utc).saturating_sub(tk.real_offset)
            }
        }
    }
}

impl Timekeeper {
    #[inline]
    fn monotonic(&self) -> Nanos {
        // A counter that is read a moment before the base (by a reader that then retries, or by a
        // CPU whose counter is a tick behind) is no time at all.
        let ticks = arch::clock::counter().saturating_sub(self.base_ticks);
        self.base.saturating_add(self.conversion.to_nanos(ticks))
    }

    /// The counter value at which the monotonic clock reaches `at`.
    fn ticks_at(&self, at: Nanos) -> u64 {
        self.base_ticks.saturating_add(self.conversion.to_ticks(at.saturating_sub(self.base)))
    }
}

/// Who tells programs about the clocks without a call: the vDSO.
static PUBLISHER: Once<fn(&Timekeeper)> = Once::new();

/// Sets who is told of every change, and tells it how things are. `publish` runs with the
/// timekeeper's lock held: it must not read a clock, wait or log.
pub fn set_publisher(publish: fn(&Timekeeper)) {
    PUBLISHER.call_once(|| publish);
    update(|_| ());
}

/// Changes the parameters.
fn update<R>(change: impl FnOnce(&mut Timekeeper) -> R) -> R {
    TIMEKEEPER.update(|tk| {
        let out = change(tk);
        if let Some(publish) = PUBLISHER.get() {
            publish(tk);
        }
        out
    })
}

pub(crate) fn init(counter: u64, frequency: u64) {
    update(|tk| {
        tk.base_ticks = counter;
        tk.base = Nanos::ZERO;
        tk.conversion = Conversion::new(frequency);
    });
}

/// The log's time stamps: must not wait, since a panic may interrupt a change of the clock.
pub(crate) fn log_clock() -> u64 {
    TIMEKEEPER.try_read().map_or(0, |tk| tk.monotonic().0)
}

/// The parameters of the clocks, for the vDSO's data page.
pub fn parameters() -> Timekeeper {
    TIMEKEEPER.read()
}

/// CLOCK_MONOTONIC: nanoseconds since boot.
#[inline]
pub fn monotonic() -> Nanos {
    TIMEKEEPER.read().monotonic()
}

/// CLOCK_MONOTONIC_COARSE: the last whole step of the monotonic clock.
pub fn monotonic_coarse() -> Nanos {
    coarse(monotonic())
}

/// CLOCK_BOOTTIME: like monotonic, and time spent suspended counts.
pub fn boottime() -> Nanos {
    let tk = TIMEKEEPER.read();
    tk.monotonic().saturating_add(tk.boot_offset)
}

/// CLOCK_REALTIME: nanoseconds since 1970, UTC.
pub fn realtime() -> Nanos {
    let tk = TIMEKEEPER.read();
    tk.monotonic().saturating_add(tk.real_offset)
}

/// CLOCK_REALTIME_COARSE: the real time at the last whole step of the monotonic clock.
pub fn realtime_coarse() -> Nanos {
    let tk = TIMEKEEPER.read();
    coarse(tk.monotonic()).saturating_add(tk.real_offset)
}

fn coarse(t: Nanos) -> Nanos {
    Nanos(t.0 - t.0 % COARSE_STEP.0)
}

/// Sets the real-time clock. EINVAL for a time before boot (the clock would have been negative
/// then) or beyond what the clock can count.
pub fn set_realtime(now: Nanos) -> Result {
    if now > REALTIME_MAX {
        return Err(Errno::EINVAL);
    }
    update(|tk| {
        let monotonic = tk.monotonic();
        if now < monotonic {
            return Err(Errno::EINVAL);
        }
        tk.real_offset = now.saturating_sub(monotonic);
        Ok(())
    })?;
    SET_COUNT.fetch_add(1, Ordering::Release);
    Ok(())
}

/// How often the real-time clock was set: a sleeper on an absolute real time computes its deadline
/// anew when this changed.
pub fn clock_set_count() -> u64 {
    SET_COUNT.load(Ordering::Acquire)
}

/// TAI minus UTC in seconds (adjtimex(2), ADJ_TAI).
pub fn tai_offset() -> i32 {
    TIMEKEEPER.read().tai_offset
}

/// Sets TAI minus UTC.
pub fn set_tai_offset(seconds: i32) {
    update(|tk| tk.tai_offset = seconds);
}

/// The counter value at which the monotonic clock reaches `at`.
pub(crate) fn ticks_at(at: Nanos) -> u64 {
    TIMEKEEPER.read().ticks_at(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arch::sim;

    /// Runs `f` alone: the clocks are the process's.
    fn alone(f: impl Fn() + Sync) {
        let _turn = crate::tests::turn();
        sim::run_on_cpus(1, |_| {
            sim::set_counter(5_000);
            init(5_000, 1_000_000_000);
            TIMEKEEPER.update(|tk| tk.real_offset = Nanos::ZERO);
            f();
        });
    }

    #[test]
    fn monotonic_time_starts_at_zero_and_follows_the_counter() {
        alone(|| {
            assert_eq!(monotonic(), Nanos(0));
            sim::advance_counter(1234);
            assert_eq!(monotonic(), Nanos(1234));
            assert_eq!(boottime(), Nanos(1234));
        });
    }

    #[test]
    fn setting_the_real_time_leaves_the_monotonic_clock_alone() {
        alone(|| {
            sim::advance_counter(1_000);
            let count = clock_set_count();
            assert_eq!(set_realtime(Nanos::from_secs(1_700_000_000)), Ok(()));
            assert_eq!(monotonic(), Nanos(1_000));
            assert_eq!(realtime(), Nanos::from_secs(1_700_000_000));
            assert_eq!(clock_set_count(), count + 1);
            sim::advance_counter(7);
            assert_eq!(realtime(), Nanos(1_700_000_000 * Nanos::PER_SEC + 7));
            assert_eq!(Clock::Realtime.to_monotonic(realtime()), monotonic());
        });
    }

    #[test]
    fn real_time_before_boot_or_beyond_the_clock_is_refused_and_changes_nothing() {
        alone(|| {
            sim::advance_counter(10_000);
            assert_eq!(set_realtime(Nanos(9_999)), Err(Errno::EINVAL));
            assert_eq!(set_realtime(Nanos::MAX), Err(Errno::EINVAL));
            assert_eq!(realtime(), Nanos(10_000));
            assert_eq!(set_realtime(Nanos(10_000)), Ok(()));
        });
    }

    #[test]
    fn coarse_clocks_step_by_a_tick_and_are_never_ahead() {
        alone(|| {
            sim::advance_counter(COARSE_STEP.0 * 3 + 17);
            assert_eq!(monotonic_coarse(), Nanos(COARSE_STEP.0 * 3));
            assert_eq!(Clock::MonotonicCoarse.resolution(), COARSE_STEP);
            assert!(realtime_coarse() <= realtime());
        });
    }

    #[test]
    fn tai_is_ahead_of_real_time_by_its_offset() {
        alone(|| {
            assert_eq!(set_realtime(Nanos::from_secs(1_000)), Ok(()));
            set_tai_offset(37);
            assert_eq!(Clock::Tai.now(), Nanos::from_secs(1_037));
            assert_eq!(Clock::Tai.to_monotonic(Nanos::from_secs(1_037)), Nanos::ZERO);
            set_tai_offset(0);
        });
    }

    #[test]
    fn clock_ids_are_those_of_clock_gettime() {
        assert_eq!(Clock::from_id(0), Some(Clock::Realtime));
        assert_eq!(Clock::from_id(1), Some(Clock::Monotonic));
        assert_eq!(Clock::from_id(7), Some(Clock::Boottime));
        assert_eq!(Clock::from_id(2), None);
        assert_eq!(Clock::from_id(-6), None);
    }
}
