//! A timer as a file (`timerfd_create(2)`): a read gives how often it expired since the last one.
//!
//! A periodic timer that expired is not armed again before somebody looks: the periods that went
//! by are counted then. So a short period that nobody reads costs one interrupt.
//!
//! Absolute times on the real-time clock are kept as such. Who sets that clock calls
//! [`clock_was_set`], which arms those timers anew and ends the waits of those that asked for it
//! (TFD_TIMER_CANCEL_ON_SET).
//!
//! Locks: a timer's state has an interrupt-safe spin lock, inside of the list of timers on the
//! real-time clock.

use abi::{Errno, Nanos, Result, raw::general as g};
use collections::{ArcList, Link};
use core::{any::Any, fmt};
use kalloc::{KArc, karc_as, kbox_dyn};
use sched::{Mutex, Outcome, Sleep, WaitQueue};
use sync::{LockClass, SpinLock};
use time::{Clock, Setting, Timer, TimerHandler};
use vfs::{Cap, Credentials, FileOps, IoSink, OpenFile, PollEvents, PollTable, anon};

static STATE: LockClass = LockClass::new("timerfd", 1241);
static LIST: LockClass = LockClass::new("timerfd_clock_list", 1240);
static CHANGE: LockClass = LockClass::new("timerfd_change", 390);

/// Timers whose deadline moves when the real-time clock is set, or that report it.
static ON_REAL_TIME: SpinLock<ArcList<OnRealTime>> = SpinLock::new(ArcList::new(), &LIST);

#[derive(Default)]
struct State {
    /// When it expires next, or did, on `real` time or the monotonic clock; zero: not set.
    expires: Nanos,
    real: bool,
    interval: Nanos,
    /// Expirations that were not read.
    ticks: u64,
    /// It expired and was not armed again.
    expired: bool,
    flags: u32,
    cancel_on_set: bool,
    /// How often the real-time clock had been set when this was last looked at; None: it was set
    /// since, and nobody has been told.
    clock_sets: Option<u64>,
}

struct Shared {
    link: Link,
    timer: Timer,
    state: SpinLock<State>,
    queue: WaitQueue,
}

collections::link_field!(OnRealTime: Shared => link);

/// What the timer's interrupt calls. The file keeps the timer, and a timer that is dropped waits
/// for its interrupt, so the interrupt never drops the last handle.
struct Expiry(kalloc::KWeak<Shared>);

impl TimerHandler for Expiry {
    fn expired(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.fire();
        }
    }
}

impl State {
    fn now(&self) -> Nanos {
        if self.real { time::realtime() } else { time::monotonic() }
    }

    /// Counts the periods that went by since it expired; the next expiration lies ahead then.
    fn catch_up(&mut self) -> bool {
        if !self.expired || self.interval == Nanos::ZERO {
            return false;
        }
        self.expired = false;
        let late = self.now().saturating_sub(self.expires).0;
        // The first of them was counted when the timer expired.
        let missed = late.checked_div(self.interval.0).unwrap_or(0);
        self.ticks = self.ticks.saturating_add(missed);
        let step = self.interval.0.saturating_mul(missed.saturating_add(1));
        self.expires = self.expires.saturating_add(Nanos(step));
        true
    }

    /// Whether the real-time clock was set since somebody was last told, for who wants to know.
    fn take_cancelled(&mut self) -> bool {
        let sets = time::clock_set_count();
        if !self.cancel_on_set || self.clock_sets == Some(sets) {
            return false;
        }
        self.clock_sets = Some(sets);
        true
    }

    fn setting(&self) -> Setting {
        let value = if self.expires == Nanos::ZERO || self.expired {
            Nanos::ZERO
        } else {
            // A timer that is set never reads as unset.
            self.expires.saturating_sub(self.now()).max(Nanos(1))
        };
        Setting { value, interval: self.interval }
    }
}

impl Shared {
    /// The time has come. Hard interrupt context.
    fn fire(&self) {
        {
            let mut s = self.state.lock_irq();
            // An interrupt that was under way when the timer was set anew means the old time.
            if s.expires == Nanos::ZERO || s.expired || s.now() < s.expires {
                if !s.expired && s.expires != Nanos::ZERO {
                    self.arm(&s);
                }
                return;
            }
            s.expired = true;
            s.ticks = s.ticks.saturating_add(1);
        }
        self.queue.wake_all_key(PollEvents::IN.bits());
    }

    /// Arms the timer for what the state says. Its lock is held.
    fn arm(&self, s: &State) {
        let at = if s.real { Clock::Realtime.to_monotonic(s.expires) } else { s.expires };
        self.timer.arm(at);
    }

    fn take_ticks(&self) -> Option<Result<u64>> {
        let mut s = self.state.lock_irq();
        if s.take_cancelled() {
            s.ticks = 0;
            s.expired = false;
            return Some(Err(Errno::ECANCELED));
        }
        if s.ticks == 0 {
            return None;
        }
        if s.catch_up() {
            self.arm(&s);
        }
        Some(Ok(core::mem::take(&mut s.ticks)))
    }
}

struct TimerFd {
    clock: u32,
    shared: KArc<Shared>,
    /// One change at a time.
    change: Mutex<()>,
}

impl FileOps for TimerFd {
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        if dst.remaining() < size_of::<u64>() {
            return Err(Errno::EINVAL);
        }
        let shared = &self.shared;
        let ticks = match shared.take_ticks() {
            Some(ticks) => ticks,
            None if f.is_nonblocking() => return Err(Errno::EAGAIN),
            None => match shared.queue.wait_until(Sleep::Interruptible, None, || shared.take_ticks()) {
                Outcome::Ready(ticks) => ticks,
                _ => return Err(Errno::ERESTARTSYS),
            },
        };
        dst.write_all(&ticks?.to_ne_bytes())?;
        Ok(size_of::<u64>())
    }
    fn can_seek(&self) -> bool {
        false
    }
    fn ignores_seek(&self) -> bool {
        true
    }
    fn can_poll(&self) -> bool {
        true
    }
    fn poll(&self, _f: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.register(&self.shared.queue);
        if self.shared.state.lock_irq().ticks > 0 { PollEvents::IN } else { PollEvents::empty() }
    }
    fn fdinfo(&self, _f: &OpenFile, out: &mut dyn fmt::Write) -> fmt::Result {
        let (s, ticks, flags) = {
            let state = self.shared.state.lock_irq();
            (state.setting(), state.ticks, state.flags)
        };
        let pair = |t: Nanos| (t.secs(), t.subsec());
        let (value, interval) = (pair(s.value), pair(s.interval));
        writeln!(out, "clockid: {}\nticks: {ticks}\nsettime flags: 0{flags:o}", self.clock)?;
        writeln!(out, "it_value: ({}, {})\nit_interval: ({}, {})", value.0, value.1, interval.0, interval.1)
    }
    fn release(&self, _f: &OpenFile) {
        // The list may be in use by who sets the clock.
        let removed = ON_REAL_TIME.lock_irq().remove(&self.shared);
        drop(removed);
        self.shared.state.lock_irq().expires = Nanos::ZERO;
        self.shared.timer.cancel();
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `timerfd_create(2)`. EINVAL for clocks and flags that it does not have; EPERM for the alarm
/// clocks without CAP_WAKE_ALARM.
pub fn create(clock: u32, flags: u32, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
    if flags & !(g::TFD_CLOEXEC | g::TFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    match clock {
        g::CLOCK_REALTIME | g::CLOCK_MONOTONIC | g::CLOCK_BOOTTIME => {}
        g::CLOCK_REALTIME_ALARM | g::CLOCK_BOOTTIME_ALARM => {
            if !cred.capable(Cap::WAKE_ALARM) {
                return Err(Errno::EPERM);
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    let shared = KArc::try_new_cyclic_fallible(|weak| -> Result<Shared> {
        let expiry = KArc::try_new(Expiry(weak.clone()))?;
        let state = State { clock_sets: Some(time::clock_set_count()), ..State::default() };
        Ok(Shared {
            link: Link::new(),
            timer: Timer::new(karc_as!(expiry => dyn TimerHandler))?,
            state: SpinLock::new(state, &STATE),
            queue: WaitQueue::new(),
        })
    })?;
    let file = TimerFd { clock, shared, change: Mutex::new((), &CHANGE) };
    anon::file("anon_inode:[timerfd]", kbox_dyn!(file => dyn FileOps)?, g::O_RDWR | flags & g::TFD_NONBLOCK, cred)
}

fn timer(f: &OpenFile) -> Result<&TimerFd> {
    f.ops_as::<TimerFd>().ok_or(Errno::EINVAL)
}

/// `timerfd_settime(2)`; gives the setting before. EINVAL for other files; ECANCELED when the
/// clock had been set and the file had asked to be told.
pub fn set(f: &OpenFile, flags: u32, new: Setting) -> Result<(Setting, Result)> {
    let file = timer(f)?;
    let shared = &file.shared;
    let absolute = flags & g::TFD_TIMER_ABSTIME != 0;
    let on_real_time = absolute && matches!(file.clock, g::CLOCK_REALTIME | g::CLOCK_REALTIME_ALARM);
    let _one = file.change.lock();
    {
        let mut list = ON_REAL_TIME.lock_irq();
        let is_listed = list.contains(shared);
        if on_real_time && !is_listed {
            // It is in no other list.
            let _ = list.push_back(shared.clone());
        } else if !on_real_time && is_listed {
            list.remove(shared);
        }
    }
    shared.timer.cancel();
    let mut s = shared.state.lock_irq();
    s.catch_up();
    let old = s.setting();
    let clock_sets = s.clock_sets;
    *s = State {
        expires: match new.value {
            Nanos::ZERO => Nanos::ZERO,
            at if absolute => at,
            wait => time::monotonic().saturating_add(wait),
        },
        real: on_real_time,
        interval: new.interval,
        flags,
        cancel_on_set: on_real_time && flags & g::TFD_TIMER_CANCEL_ON_SET != 0,
        clock_sets,
        ..State::default()
    };
    if s.expires != Nanos::ZERO {
        shared.arm(&s);
    }
    let cancelled = s.expires != Nanos::ZERO && s.take_cancelled();
    Ok((old, if cancelled { Err(Errno::ECANCELED) } else { Ok(()) }))
}

/// `timerfd_gettime(2)`. EINVAL for other files.
pub fn get(f: &OpenFile) -> Result<Setting> {
    let shared = &timer(f)?.shared;
    let mut s = shared.state.lock_irq();
    if s.catch_up() {
        shared.arm(&s);
    }
    Ok(s.setting())
}

/// The real-time clock was set: what waits for a time on it is armed anew, and who asked for it
/// is told. May be called in any thread, without locks.
pub fn clock_was_set() {
    let list = ON_REAL_TIME.lock_irq();
    for shared in &*list {
        let told = {
            let mut s = shared.state.lock_irq();
            if s.expires != Nanos::ZERO && !s.expired {
                shared.arm(&s);
            }
            if s.cancel_on_set {
                s.clock_sets = None;
                s.ticks = s.ticks.saturating_add(1);
            }
            s.cancel_on_set
        };
        if told {
            shared.queue.wake_all_key(PollEvents::IN.bits());
        }
    }
}
