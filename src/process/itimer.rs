//! The interval timer that sends SIGALRM (`setitimer(2)`, ITIMER_REAL; `alarm(2)` is made of it).
//!
//! A periodic timer is armed again when its signal is taken, not when it expires: a process that does
//! not take it costs one interrupt. So it rests while SIGALRM is ignored, as on Linux.
//!
//! One a process, made when it is first asked for. A child starts without one; exec keeps it; the
//! end of the process cancels it while the process still exists, so that the handler, which runs in
//! interrupt context, never holds the last reference to it.
//!
//! ITIMER_VIRTUAL and ITIMER_PROF are in `cpu_timers.rs`.

use crate::{
    signal::{self, SigInfo, Signal},
    task::{Process, Task},
};
use abi::{Nanos, Result};
use kalloc::{KArc, KWeak};
use sync::{LockClass, SpinLock};
use time::{Setting, Timer, TimerHandler};

static ALARM: LockClass = LockClass::new("process.alarm", 1034);

pub(crate) struct RealTimer {
    timer: Timer,
    /// Interrupts off: whoever takes a signal looks here. The timer is armed with it held.
    state: SpinLock<State>,
}

#[derive(Default)]
struct State {
    /// The monotonic time of the next expiry, or of the last.
    at: Nanos,
    interval: Nanos,
}

struct Alarm(KWeak<Process>);

impl TimerHandler for Alarm {
    fn expired(&self) {
        if let Some(process) = self.0.upgrade() {
            // Only real-time signals can find no room.
            let _ = signal::send_to_process(&process, SigInfo::kernel(Signal::ALRM));
        }
    }
}

impl RealTimer {
    fn try_new(process: &KArc<Process>) -> Result<Self> {
        let alarm = KArc::try_new(Alarm(KArc::downgrade(process)))?;
        let timer = Timer::new(kalloc::karc_as!(alarm => dyn TimerHandler))?;
        Ok(Self { timer, state: SpinLock::new(State::default(), &ALARM) })
    }

    fn setting(&self) -> Setting {
        let state = self.state.lock_irq();
        // A timer that is set never reads as unset; one whose signal was not taken yet does.
        let left = |at: Nanos| at.saturating_sub(time::monotonic()).max(Nanos::from_micros(1));
        Setting { value: self.timer.deadline().map_or(Nanos::ZERO, left), interval: state.interval }
    }

    pub(crate) fn cancel(&self) {
        // First, so that nobody who takes the signal arms it again.
        *self.state.lock_irq() = State::default();
        self.timer.cancel();
    }

    fn set(&self, new: Setting) {
        self.cancel();
        let mut state = self.state.lock_irq();
        *state = State::default();
        if new.value != Nanos::ZERO {
            *state = State { at: time::monotonic().saturating_add(new.value), interval: new.interval };
            self.timer.arm(state.at);
        }
    }

    /// SIGALRM was taken: the next period begins, unless it has.
    pub(crate) fn taken(&self) {
        let mut state = self.state.lock_irq();
        if state.interval != Nanos::ZERO && !self.timer.is_armed() {
            let interval = state.interval;
            time::forward(&mut state.at, interval, time::monotonic());
            self.timer.arm(state.at);
        }
    }
}

/// `getitimer(2)` for ITIMER_REAL.
pub fn get(task: &Task) -> Setting {
    task.process.real_timer.get().map_or(Setting::default(), RealTimer::setting)
}

/// `setitimer(2)` for ITIMER_REAL; gives the setting before. ENOMEM.
pub fn set(task: &Task, new: Setting) -> Result<Setting> {
    let process = &task.process;
    let timer = process.real_timer.try_call_once(|| RealTimer::try_new(process))?;
    let old = timer.setting();
    timer.set(new);
    Ok(old)
}
