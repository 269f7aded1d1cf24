//! Timers that a program makes (`timer_create(2)`): on system clocks, with a signal to the process, to
//! one of its threads, or none.
//!
//! A timer has at most one signal queued. What expires meanwhile only counts as overrun, in the queued
//! signal itself; the count of the last signal that was taken is what `timer_getoverrun(2)` tells.
//!
//! Context: timers expire in interrupts. The handler reaches the process by a weak handle; the end of
//! the process deletes its timers while it still exists, so the handler never holds the last handle.
//!
//! Lock order: the process's timers before a timer's state; a process's signals before both.

use crate::{
    itimer::Setting,
    signal::{Cause, SigInfo, Signal, send_timer_signal},
    task::{Process, Task},
};
use abi::{Errno, Nanos, Result, raw::general as g};
use collections::OrdMap;
use kalloc::{KArc, KWeak, karc_as};
use sync::{LockClass, SpinLock};
use time::{Clock, Timer, TimerHandler};

static TIMERS: LockClass = LockClass::new("process.posix_timers", 1035);
static STATE: LockClass = LockClass::new("process.posix_timer", 1036);

/// Shortest period with which the machine is interrupted; what a shorter one misses is overrun.
const MIN_PERIOD: Nanos = Nanos::from_micros(100);
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

#[derive(Default)]
struct State {
    /// The monotonic time of the next expiry.
    at: Nanos,
    interval: Nanos,
    /// Of the signal that was taken last.
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

    /// A timer's signal was taken.
    pub(crate) fn taken(&self, id: u32, overrun: u64) {
        if let Some(timer) = self.0.lock_irq().map.get(&id) {
            timer.expiry.state.lock().overrun = overrun;
        }
    }
}

impl Expiry {
    fn send(&self, overrun: u64) {
        let (Some(signal), Some(process)) = (self.event.signal, self.process.upgrade()) else { return };
        let value = self.event.value.unwrap_or(self.id.into());
        let info = SigInfo { signal, cause: Cause::Timer { id: self.id, overrun, value } };
        send_timer_signal(&process, self.event.thread, info);
    }
}

impl TimerHandler for Expiry {
    fn expired(&self) {
        let missed = {
            let state = self.state.lock_irq();
            periods(time::monotonic().saturating_sub(state.at), state.interval)
        };
        self.send(missed);
    }

    fn again(&self, now: Nanos) -> Option<Nanos> {
        let mut state = self.state.lock_irq();
        if state.interval == Nanos::ZERO {
            return None;
        }
        // The next multiple of the period that is not too near.
        let ahead = periods(now.saturating_add(MIN_PERIOD).saturating_sub(state.at), state.interval) + 1;
        let step = state.interval.0.saturating_mul(ahead);
        state.at = state.at.saturating_add(Nanos(step));
        Some(state.at)
    }
}

/// How many whole periods fit into a time.
fn periods(time: Nanos, interval: Nanos) -> u64 {
    time.0.checked_div(interval.0).unwrap_or(0)
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
    fn setting(&self) -> Setting {
        let interval = self.expiry.state.lock_irq().interval;
        let Some(at) = self.timer.deadline() else { return Setting { value: Nanos::ZERO, interval } };
        // A timer that is set never reads as unset.
        Setting { value: at.saturating_sub(time::monotonic()).max(Nanos(1)), interval }
    }
}

/// `timer_settime(2)`; the setting before. `absolute`: the value is a time of the timer's clock.
pub fn set(task: &Task, id: u32, new: Setting, absolute: bool) -> Result<Setting> {
    let timer = task.process.posix_timers.get(id)?;
    let before = timer.setting();
    timer.timer.cancel();
    let at = match absolute {
        _ if new.value == Nanos::ZERO => None,
        true => Some(timer.clock.to_monotonic(new.value)),
        false => Some(time::monotonic().saturating_add(new.value)),
    };
    {
        let mut state = timer.expiry.state.lock_irq();
        state.interval = if at.is_some() { new.interval } else { Nanos::ZERO };
        state.at = at.unwrap_or(Nanos::ZERO);
        state.overrun = 0;
    }
    if let Some(at) = at {
        timer.timer.arm(at);
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
