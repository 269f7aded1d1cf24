//! What happens when a process has used so much CPU time: ITIMER_VIRTUAL and ITIMER_PROF
//! (`setitimer(2)`), and RLIMIT_CPU (`getrlimit(2)`).
//!
//! CPU time grows while a thread runs, and the scheduler's tick is what sees it grow: for a process
//! that has something armed, the tick asks the thread for a look at the return to user space
//! (NOTIFY_RESUME), where the times can be added up.

use crate::{
    limits::{INFINITY, Limit},
    signal::{self, SigInfo, Signal},
    task::{Process, Task},
};
use abi::{Nanos, raw::general as g};
use kalloc::KArc;
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicBool, Ordering},
};
use time::Setting;

static CPU_TIMERS: LockClass = LockClass::new("process.cpu_timers", 1033);

pub(crate) struct CpuTimers {
    armed: AtomicBool,
    slots: SpinLock<Slots>,
}

#[derive(Default)]
struct Slots {
    user: Slot,
    all: Slot,
}

/// A timer: the CPU time at which it expires (zero: it is not set), and its period.
#[derive(Clone, Copy, Default)]
struct Slot {
    at: Nanos,
    interval: Nanos,
}

/// Which time a timer counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counts {
    /// ITIMER_VIRTUAL: in user space.
    User,
    /// ITIMER_PROF: in user space and in the kernel.
    All,
}

impl Slot {
    fn setting(self, now: Nanos) -> Setting {
        if self.at == Nanos::ZERO {
            return Setting::default();
        }
        // A timer that is set never reads as unset.
        Setting { value: self.at.saturating_sub(now).max(Nanos::from_micros(1)), interval: self.interval }
    }

    /// Whether it expires now; then it is set for its next period.
    fn expire(&mut self, now: Nanos) -> bool {
        let expired = self.at != Nanos::ZERO && now >= self.at;
        if expired {
            self.at = if self.interval == Nanos::ZERO { Nanos::ZERO } else { self.at.saturating_add(self.interval) };
        }
        expired
    }
}

impl Slots {
    fn of(&mut self, counts: Counts) -> &mut Slot {
        if counts == Counts::User { &mut self.user } else { &mut self.all }
    }
}

impl CpuTimers {
    /// None is set; `limit` is the process's RLIMIT_CPU.
    pub(crate) fn new(limit: u64) -> Self {
        Self { armed: AtomicBool::new(limit != INFINITY), slots: SpinLock::new(Slots::default(), &CPU_TIMERS) }
    }
    /// Whether ticks matter to the process.
    #[inline]
    pub(crate) fn are_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }
}

fn time_of(process: &Process, counts: Counts) -> Nanos {
    let (user, system) = process.cpu_times();
    if counts == Counts::User { user } else { user.saturating_add(system) }
}

/// `getitimer(2)`.
pub fn get(task: &Task, counts: Counts) -> Setting {
    let now = time_of(&task.process, counts);
    task.process.cpu_timers.slots.lock().of(counts).setting(now)
}

/// `setitimer(2)`; the setting before.
pub fn set(task: &Task, counts: Counts, new: Setting) -> Setting {
    let timers = &task.process.cpu_timers;
    let now = time_of(&task.process, counts);
    let at = if new.value == Nanos::ZERO { Nanos::ZERO } else { now.saturating_add(new.value) };
    let before = core::mem::replace(timers.slots.lock().of(counts), Slot { at, interval: new.interval });
    if at != Nanos::ZERO {
        timers.armed.store(true, Ordering::Relaxed);
    }
    before.setting(now)
}

/// The process has a limit on its CPU time.
pub fn limit_was_set(process: &Process) {
    process.cpu_timers.armed.store(true, Ordering::Relaxed);
}

/// Looks at the clock for the process of the current thread. Interrupts on, no lock held.
pub(crate) fn check(task: &Task) {
    let process = &task.process;
    if !process.cpu_timers.are_armed() {
        return;
    }
    // Before the look: what is set after it arms again, and is not lost. The locks of the timers and
    // of the limits order the stores.
    process.cpu_timers.armed.store(false, Ordering::Relaxed);
    let (user, system) = process.cpu_times();
    let all = user.saturating_add(system);
    let (virtual_expired, prof_expired, idle) = {
        let mut slots = process.cpu_timers.slots.lock();
        let expired = (slots.user.expire(user), slots.all.expire(all));
        (expired.0, expired.1, slots.user.at == Nanos::ZERO && slots.all.at == Nanos::ZERO)
    };
    if virtual_expired {
        send(process, g::SIGVTALRM);
    }
    if prof_expired {
        send(process, g::SIGPROF);
    }
    let reached = process.with_limits(|limits| {
        let limit = limits.get(g::RLIMIT_CPU).ok()?;
        let reached = Reached::of(limit, all.secs());
        if reached == Reached::Soft {
            // Once a second from here on.
            let next = Limit { soft: all.secs().saturating_add(1).min(limit.hard), ..limit };
            limits.set(g::RLIMIT_CPU, next, true).ok()?;
        }
        Some((reached, limit.soft != INFINITY || limit.hard != INFINITY))
    });
    let (reached, limited) = reached.unwrap_or((Reached::None, false));
    if limited || !idle {
        process.cpu_timers.armed.store(true, Ordering::Relaxed);
    }
    match reached {
        Reached::None => {}
        Reached::Soft => send(process, g::SIGXCPU),
        Reached::Hard => {
            let _ = signal::send_to_process(process, SigInfo::kernel(Signal::KILL));
        }
    }
}

/// Which part of RLIMIT_CPU a process has reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reached {
    None,
    Soft,
    Hard,
}

impl Reached {
    /// A limit of zero counts as one second, as on Linux.
    fn of(limit: Limit, seconds: u64) -> Self {
        if seconds >= limit.hard.max(1) {
            Self::Hard
        } else if seconds >= limit.soft.max(1) {
            Self::Soft
        } else {
            Self::None
        }
    }
}

fn send(process: &KArc<Process>, number: u32) {
    if let Some(signal) = Signal::new(number) {
        // Only real-time signals can find no room.
        let _ = signal::send_to_process(process, SigInfo::kernel(signal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_periodic_timer_is_set_anew_from_its_own_time() {
        let mut s = Slot { at: Nanos(100), interval: Nanos(30) };
        assert!(!s.expire(Nanos(99)));
        assert!(s.expire(Nanos(105)));
        assert_eq!(s.at, Nanos(130));
        let mut once = Slot { at: Nanos(100), interval: Nanos::ZERO };
        assert!(once.expire(Nanos(100)));
        assert_eq!(once.setting(Nanos(101)), Setting::default());
    }
}
