//! How busy the machine is: the load average, and the times of each CPU (/proc/loadavg,
//! /proc/stat).
//!
//! The load average is brought up to date by whichever CPU first finds that five seconds have
//! passed, and by readers, since a machine that idles has no tick. Periods in which nobody looked
//! count with the load that is found then.

use crate::cpu;
use abi::{CpuId, Nanos};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU64, Ordering},
};

static LOAD: LockClass = LockClass::new("load_average", 1720);

/// Bits behind the binary point of a load.
pub const LOAD_SHIFT: u32 = 11;
const ONE: u64 = 1 << LOAD_SHIFT;
/// How often the averages step.
const PERIOD: u64 = 5_000_000_000;
/// exp(-5 s / 1, 5, 15 min) in units of `ONE`.
const DECAYS: [u64; 3] = [1884, 2014, 2037];

struct Averages {
    next: u64,
    values: [u64; 3],
}

static AVERAGES: SpinLock<Averages> = SpinLock::new(Averages { next: PERIOD, values: [0; 3] }, &LOAD);
static NEXT: AtomicU64 = AtomicU64::new(PERIOD);

impl Averages {
    fn step(&mut self, now: u64, active: u64) {
        // After a year without a look the averages have long arrived at the present load.
        let mut steps = (now.saturating_sub(self.next) / PERIOD + 1).min(2000);
        self.next = self.next.max(now - now % PERIOD) + PERIOD;
        while steps > 0 {
            for (value, decay) in self.values.iter_mut().zip(DECAYS) {
                let target = active * ONE;
                let mut next = *value * decay + target * (ONE - decay);
                // Rounded towards the target, or it would never be reached.
                if target >= *value {
                    next += ONE - 1;
                }
                *value = next / ONE;
            }
            steps -= 1;
        }
    }
}

/// Steps the averages if it is time.
pub(crate) fn update(now: u64) {
    if now < NEXT.load(Ordering::Relaxed) {
        return;
    }
    if let Some(mut averages) = AVERAGES.try_lock_irq()
        && now >= averages.next
    {
        averages.step(now, nr_active());
        NEXT.store(averages.next, Ordering::Relaxed);
    }
}

/// The load averages over 1, 5 and 15 minutes, with [`LOAD_SHIFT`] bits behind the point.
pub fn loadavg() -> [u64; 3] {
    update(cpu::clock());
    AVERAGES.lock_irq().values
}

/// Threads that run or wait for a CPU.
pub fn nr_running() -> usize {
    cpu::active().iter().map(|c| cpu::queue(c).nr.load(Ordering::Relaxed) as usize).sum()
}

/// Threads in sleeps that no signal ends.
pub fn nr_uninterruptible() -> usize {
    let sum: i64 = cpu::active().iter().map(|c| cpu::queue(c).uninterruptible.load(Ordering::Relaxed)).sum();
    sum.max(0) as usize
}

fn nr_active() -> u64 {
    (nr_running() + nr_uninterruptible()) as u64
}

/// Context switches since boot.
pub fn nr_switches() -> u64 {
    cpu::active().iter().map(|c| cpu::queue(c).switches.load(Ordering::Relaxed)).sum()
}

/// Where the time of a CPU went, in nanoseconds.
pub(crate) struct CpuTimes {
    pub(crate) user: AtomicU64,
    pub(crate) system: AtomicU64,
    idle: AtomicU64,
    /// When the CPU went idle; 0 while it does not.
    idle_since: AtomicU64,
}

impl CpuTimes {
    pub(crate) const fn new() -> Self {
        Self {
            user: AtomicU64::new(0),
            system: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
        }
    }

    pub(crate) fn idle_begins(&self, now: u64) {
        self.idle_since.store(now.max(1), Ordering::Relaxed);
    }

    pub(crate) fn idle_ends(&self, now: u64) {
        let since = self.idle_since.swap(0, Ordering::Relaxed);
        if since != 0 {
            self.idle.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
        }
    }
}

/// Where the time of a CPU went (a `cpu` line of /proc/stat).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// In user space.
    pub user: Nanos,
    /// In the kernel.
    pub system: Nanos,
    /// With nothing to do.
    pub idle: Nanos,
    /// With nothing to do but to wait for a disk; counted with `idle`.
    pub iowait: Nanos,
    /// In interrupts; counted with what they interrupted.
    pub irq: Nanos,
}

/// Where the time of a CPU went until now.
pub fn cpu_usage(cpu: CpuId) -> CpuUsage {
    let times = &cpu::queue(cpu).times;
    let since = times.idle_since.load(Ordering::Relaxed);
    let current = if since == 0 { 0 } else { cpu::clock().saturating_sub(since) };
    CpuUsage {
        user: Nanos(times.user.load(Ordering::Relaxed)),
        system: Nanos(times.system.load(Ordering::Relaxed)),
        idle: Nanos(times.idle.load(Ordering::Relaxed) + current),
        iowait: Nanos::ZERO,
        irq: Nanos::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_load_is_reached_and_left() {
        let mut a = Averages { next: PERIOD, values: [0; 3] };
        a.step(3_600_000_000_000, 2);
        assert!(a.values.iter().all(|v| v.abs_diff(2 * ONE) < ONE / 10), "{:?}", a.values);
        a.step(2 * 3_600_000_000_000, 0);
        assert!(a.values.iter().all(|v| *v < ONE / 10), "{:?}", a.values);
    }

    #[test]
    fn one_minute_of_load_one_makes_about_two_thirds() {
        let mut a = Averages { next: PERIOD, values: [0; 3] };
        for n in 1..=12 {
            a.step(n * PERIOD, 1);
        }
        assert!(a.values[0].abs_diff(ONE * 632 / 1000) < ONE / 50, "{:?}", a.values);
    }
}
