//! The interval timer that sends SIGALRM (`setitimer(2)`, ITIMER_REAL; `alarm(2)` is made of it).
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
use time::{Timer, TimerHandler};

static ALARM: LockClass = LockClass::new("process.alarm", 1034);

/// Shortest time between two signals. Linux arms the next period when the signal is taken; this
/// keeps a short period from filling a CPU with interrupts.
const MIN_PERIOD: Nanos = Nanos::from_micros(100);

/// A timer's two values: time to the next signal (zero: none comes), and from then on the period
/// (zero: once).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    pub value: Nanos,
    pub interval: Nanos,
}

pub(crate) struct RealTimer {
    timer: Timer,
    alarm: KArc<Alarm>,
}

struct Alarm {
    process: KWeak<Process>,
    /// Interrupts off: the timer's interrupt reads it.
    interval: SpinLock<Nanos>,
}

impl TimerHandler for Alarm {
    fn expired(&self) {
        if let Some(process) = self.process.upgrade() {
            // Only real-time signals can find no room.
            let _ = signal::send_to_process(&process, SigInfo::kernel(Signal::ALRM));
        }
    }

    fn again(&self, now: Nanos) -> Option<Nanos> {
        let interval = *self.interval.lock_irq();
        (interval != Nanos::ZERO).then(|| now.saturating_add(interval.max(MIN_PERIOD)))
    }
}

impl RealTimer {
    fn try_new(process: &KArc<Process>) -> Result<Self> {
        let alarm = KArc::try_new(Alarm { process: KArc::downgrade(process), interval: SpinLock::new(Nanos::ZERO, &ALARM) })?;
        let timer = Timer::new(kalloc::karc_as!(alarm.clone() => dyn TimerHandler))?;
        Ok(Self { timer, alarm })
    }

    fn setting(&self) -> Setting {
        let Some(at) = self.timer.deadline() else { return Setting::default() };
        // A timer that is set never reads as unset.
        let value = at.saturating_sub(time::monotonic()).max(Nanos::from_micros(1));
        Setting { value, interval: *self.alarm.interval.lock_irq() }
    }

    pub(crate) fn cancel(&self) {
        *self.alarm.interval.lock_irq() = Nanos::ZERO;
        self.timer.cancel();
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
    timer.cancel();
    if new.value != Nanos::ZERO {
        *timer.alarm.interval.lock_irq() = new.interval;
        timer.timer.arm(time::monotonic().saturating_add(new.value));
    }
    Ok(old)
}
