//! A point of a clock at which a wait ends, also of a clock that may be set meanwhile.
//!
//! A wait until a time of CLOCK_REALTIME ends when that clock shows it (`clock_settime(2)`): whoever
//! sets the clock wakes those waits, and they look at it again.

use abi::{Nanos, Result};
use kalloc::KArc;
use sched::{Outcome, Registration, Sleep, WaitQueue, Wake, WakeCallback};
use sync::PerCpu;
use time::Clock;

/// Waits until a time of CLOCK_REALTIME, those of each CPU apart from the others': they begin and end
/// far more often than the clock is set.
static CLOCK_SET: PerCpu<WaitQueue> = sync::per_cpu!(WaitQueue::new());

/// CLOCK_REALTIME was set: waits until one of its times look at it again.
pub fn clock_was_set() {
    for (_, queue) in CLOCK_SET.iter() {
        queue.wake_all();
    }
}

/// A point of a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    pub clock: Clock,
    pub at: Nanos,
}

/// What keeps a wait informed about its clock; see [`Deadline::watch`].
#[derive(Default)]
pub struct Watch(Option<Registration>);

impl Deadline {
    /// A point of the monotonic clock.
    pub fn monotonic(at: Nanos) -> Self {
        Self { clock: Clock::Monotonic, at }
    }

    fn can_be_set(self) -> bool {
        matches!(self.clock, Clock::Realtime | Clock::RealtimeCoarse | Clock::Tai)
    }

    /// The monotonic time at which this is, as things stand.
    pub fn on_monotonic(self) -> Nanos {
        self.clock.to_monotonic(self.at)
    }

    /// What a wait until `deadline` needs beforehand; `wake` gives what wakes its queue. ENOMEM.
    pub fn watch(deadline: Option<Self>, wake: impl FnOnce() -> KArc<dyn WakeCallback>) -> Result<Watch> {
        match deadline {
            Some(d) if d.can_be_set() => Ok(Watch(Some(CLOCK_SET.get(arch::cpu::id()).add_callback(wake(), !0, false)?))),
            _ => Ok(Watch(None)),
        }
    }
}

impl Watch {
    /// [`WaitQueue::wait_until`] with a deadline on any clock.
    #[track_caller]
    pub fn wait<T>(&self, queue: &WaitQueue, how: Sleep, deadline: Option<Deadline>, mut condition: impl FnMut() -> Option<T>) -> Outcome<T> {
        if self.0.is_none() {
            return queue.wait_until(how, deadline.map(Deadline::on_monotonic), condition);
        }
        loop {
            let seen = time::clock_set_count();
            let until = deadline.map(Deadline::on_monotonic);
            let outcome = queue.wait_until(how, until, || match condition() {
                Some(value) => Some(Some(value)),
                None => (time::clock_set_count() != seen).then_some(None),
            });
            match outcome {
                Outcome::Ready(Some(value)) => return Outcome::Ready(value),
                Outcome::Ready(None) => {}
                Outcome::Interrupted => return Outcome::Interrupted,
                Outcome::TimedOut => return Outcome::TimedOut,
            }
        }
    }
}

/// A wait queue on its own, for a sleep that nothing but a clock or a signal ends.
pub struct Alone(WaitQueue);

impl WakeCallback for Alone {
    fn woken(&self, _: Wake) -> bool {
        self.0.wake_all();
        true
    }
}

/// Sleeps until a point of any clock. ENOMEM.
pub fn sleep_until(how: Sleep, deadline: Deadline) -> Result<Outcome<()>> {
    if !deadline.can_be_set() {
        return Ok(sched::sleep_until(how, deadline.on_monotonic()));
    }
    let alone = KArc::try_new(Alone(WaitQueue::new()))?;
    let watch = Deadline::watch(Some(deadline), || kalloc::karc_as!(alone.clone() => dyn WakeCallback))?;
    Ok(match watch.wait(&alone.0, how, Some(deadline), || None::<()>) {
        Outcome::TimedOut => Outcome::Ready(()),
        other => other,
    })
}
