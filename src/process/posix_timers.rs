//! Timers that a program makes (`timer_create(2)`): on system clocks, with a signal to the process, to
//! one of its threads, or none.
//!
//! A timer has at most one signal queued, and a periodic one rests while it is: it is armed again when
//! the signal is taken, and the periods that went by meanwhile are that signal's overrun. So whoever
//! does not take it costs one interrupt. The signal carries the number of the arming that it belongs
//! to: one from before a `timer_settime(2)` does not arm the timer.
//!
//! Context: timers expire in interrupts. The handler reaches the process by a weak handle; the end of
//! the process deletes its timers while it still exists, so the handler never holds the last handle.
//!
//! Lock order: the process's timers before a timer's state; a process's signals before both.

use crate::{
    signal::{Cause, Queued, SigInfo, Signal, send_timer_signal},
    task::{Process, Task},
};
use abi::{Errno, Nanos, Result, raw::general as g};
use collections::OrdMap;
use kalloc::{KArc, KWeak, karc_as};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use time::{Clock, Setting, Timer, TimerHandler};

static TIMERS: LockClass = LockClass::new("process.posix_timers", 1035);
static STATE: LockClass = LockClass::new("process.posix_timer", 1036);

/// How soon a timer whose signal is ignored looks again (Linux: a tick of 250 Hz).
const IGNORED_PERIOD: Nanos = Nanos::from_millis(4);
/// The greatest overrun that is told (DELAYTIMER_MAX).
const MAX_OVERRUN: u64 = i32::MAX as u64;

/// The timers of a process, by their ids. Interrupts off: whoever takes a signal looks here.
pub(crate) struct PosixTimers(SpinLock<Table>);

struct Table {
    map: OrdMap<u32, KArc<PosixTimer>>,
    next: u32,
}

struct PosixTimer {
    clock: Clock,
    expiry: KArc<Expiry>,
    timer: Timer,
}

struct Expiry {
    id: u32,
    process: KWeak<Process>,
    event: Event,
    state: SpinLock<State>,
}

static NEXT_ARMING: AtomicU64 = AtomicU64::new(1);

#[derive(Default)]
struct State {
    /// The monotonic time of the next expiry, or of the last.
    at: Nanos,
    interval: Nanos,
    /// Number of the setting: no other one of any timer has it.
    arming: u64,
    /// Its signal is on its way, or waits to be taken; the timer is not armed.
    queued: bool,
    /// The queue had no room for the signal.
    retry: bool,
    /// Periods that went by since a signal was last taken.
    passed: u64,
    /// Overrun of the signal that was taken last.
    overrun: u64,
}

/// What happens when a timer expires (`sigevent(3type)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// `None` for SIGEV_NONE.
    pub signal: Option<Signal>,
    /// The thread that gets it (SIGEV_THREAD_ID).
    pub thread: Option<u32>,
    /// `None` for the timer's id.
    pub value: Option<u64>,
}

impl PosixTimers {
    pub(crate) fn new() -> Self {
        Self(SpinLock::new(Table { map: OrdMap::new(), next: 0 }, &TIMERS))
    }

    fn get(&self, id: u32) -> Result<KArc<PosixTimer>> {
        self.0.lock_irq().map.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// Deletes all: exec and the end of the process.
    pub(crate) fn clear(&self) {
        loop {
            let last = self.0.lock_irq().map.pop_first_node();
            let Some(node) = last else { return };
            node.value().timer.cancel();
        }
    }

    /// A signal was taken: if it is that of a periodic timer, the timer goes on, and the signal
    /// learns how many periods it missed. The table stays locked, so that a timer that is being
    /// deleted is not armed.
    pub(crate) fn taken(&self, info: &mut SigInfo) {
        let Cause::Timer { id, overrun, arming, .. } = &mut info.cause else { return };
        let table = self.0.lock_irq();
        let Some(timer) = table.map.get(id) else { return };
        let mut state = timer.expiry.state.lock();
        if state.arming != *arming || !state.queued {
            return;
        }
        state.queued = false;
        if state.interval == Nanos::ZERO {
            return;
        }
        state.forward(time::monotonic());
        state.overrun = core::mem::take(&mut state.passed).saturating_sub(1);
        *overrun = overrun.saturating_add(state.overrun);
        timer.timer.arm(state.at);
    }
}

impl State {
    /// Moves the time of the next expiry past `now`, and counts.
    fn forward(&mut self, now: Nanos) {
        let periods = time::forward(&mut self.at, self.interval, now);
        self.passed = self.passed.saturating_add(periods);
    }
}

impl TimerHandler for Expiry {
    fn expired(&self) {
        let (Some(signal), Some(process)) = (self.event.signal, self.process.upgrade()) else { return };
        let value = self.event.value.unwrap_or(self.id.into());
        let arming = {
            let mut state = self.state.lock_irq();
            // Before it is sent: it may be taken at once.
            state.queued = true;
            state.arming
        };
        let info = SigInfo { signal, cause: Cause::Timer { id: self.id, overrun: 0, value, arming } };
        let sent = send_timer_signal(&process, self.event.thread, info);
        if sent != Queued::Yes {
            // So nobody takes it.
            let mut state = self.state.lock_irq();
            state.queued = false;
            state.retry = sent == Queued::NoRoom;
        }
    }

    fn again(&self, now: Nanos) -> Option<Nanos> {
        let mut state = self.state.lock_irq();
        let state = &mut *state;
        if core::mem::take(&mut state.retry) {
            return Some(now.saturating_add(IGNORED_PERIOD));
        }
        if state.queued || state.interval == Nanos::ZERO {
            return None;
        }
        // Nobody will take the signal, since it is ignored. A short period need not be kept then.
        let now = if state.interval < IGNORED_PERIOD { now.saturating_add(IGNORED_PERIOD) } else { now };
        state.forward(now);
        Some(state.at)
    }
}

/// `timer_create(2)`: the id. EAGAIN when the process has as many as it may have signals queued.
pub fn create(task: &Task, clock: Clock, event: Event) -> Result<u32> {
    let process = &task.process;
    if let Some(tid) = event.thread {
        let here = process.signals.lock_irq().members.iter().any(|t| t.id() == tid);
        if !here {
            return Err(Errno::EINVAL);
        }
    }
    let limit = process.limit(g::RLIMIT_SIGPENDING);
    let id = {
        let mut table = process.posix_timers.0.lock_irq();
        if table.map.len() as u64 >= limit {
            return Err(Errno::EAGAIN);
        }
        let mut id = table.next;
        while table.map.get(&id).is_some() {
            id = (id + 1) & 0x7fff_ffff;
        }
        table.next = (id + 1) & 0x7fff_ffff;
        id
    };
    let expiry = KArc::try_new(Expiry {
        id,
        process: KArc::downgrade(process),
        event,
        state: SpinLock::new(State::default(), &STATE),
    })?;
    let timer = Timer::new(karc_as!(expiry.clone() => dyn TimerHandler))?;
    let node = collections::OrdNode::try_new(id, KArc::try_new(PosixTimer { clock, expiry, timer })?)?;
    let replaced = process.posix_timers.0.lock_irq().map.insert_node(node);
    drop(replaced);
    Ok(id)
}

impl PosixTimer {
    fn sends(&self) -> bool {
        self.expiry.event.signal.is_some()
    }

    fn setting(&self) -> Setting {
        let mut state = self.expiry.state.lock_irq();
        let (interval, now) = (state.interval, time::monotonic());
        if interval == Nanos::ZERO && self.sends() && !self.timer.is_armed() {
            return Setting::default();
        }
        // While it rests, its time goes on.
        if state.queued || !self.sends() {
            state.forward(now);
        }
        // A timer that will send never reads as unset.
        let least = if self.sends() { Nanos(1) } else { Nanos::ZERO };
        Setting { value: state.at.saturating_sub(now).max(least), interval }
    }
}

/// `timer_settime(2)`; the setting before. `absolute`: the value is a time of the timer's clock.
pub fn set(task: &Task, id: u32, new: Setting, absolute: bool) -> Result<Setting> {
    let timer = task.process.posix_timers.get(id)?;
    let before = timer.setting();
    let arming = NEXT_ARMING.fetch_add(1, Relaxed);
    // First, so that nobody who takes the signal arms it again.
    *timer.expiry.state.lock_irq() = State { arming, ..State::default() };
    timer.timer.cancel();
    let at = match absolute {
        _ if new.value == Nanos::ZERO => None,
        true => Some(timer.clock.to_monotonic(new.value)),
        false => Some(time::monotonic().saturating_add(new.value)),
    };
    let mut state = timer.expiry.state.lock_irq();
    *state = State { arming, ..State::default() };
    if let Some(at) = at {
        state.at = at;
        state.interval = new.interval;
        // Without a signal the time is all there is to it.
        if timer.sends() {
            timer.timer.arm(at);
        }
    }
    Ok(before)
}

/// `timer_gettime(2)`.
pub fn get(task: &Task, id: u32) -> Result<Setting> {
    Ok(task.process.posix_timers.get(id)?.setting())
}

/// `timer_getoverrun(2)`.
pub fn overrun(task: &Task, id: u32) -> Result<u32> {
    let timer = task.process.posix_timers.get(id)?;
    let overrun = timer.expiry.state.lock_irq().overrun;
    Ok(overrun.min(MAX_OVERRUN) as u32)
}

/// `timer_delete(2)`.
pub fn delete(task: &Task, id: u32) -> Result {
    let removed = task.process.posix_timers.0.lock_irq().map.remove(&id);
    let timer = removed.ok_or(Errno::EINVAL)?;
    timer.timer.cancel();
    Ok(())
}
