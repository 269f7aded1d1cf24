//! What runs at a point of the monotonic clock: high-resolution timers, a queue for each CPU.
//!
//! A timer is armed on the CPU that arms it and expires there, in hard interrupt context. Its
//! place in the queue is allocated with the timer, so arming and cancelling need no memory.
//! The CPU's one-shot timer is set to the earliest deadline, and stopped when there is none.
//!
//! Lock order: a timer, then the queue of one CPU. Both with interrupts off. Handlers run with
//! neither, so they may arm and cancel timers, their own included.

use crate::timekeeper;
use abi::{CpuId, Nanos};
use collections::{OrdMap, OrdNode};
use kalloc::{AllocError, KArc};
use sync::{
    IrqGuard, LockClass, PerCpu, SpinLock,
    atomic::{AtomicU64, Ordering, spin_loop},
};

static TIMER: LockClass = LockClass::new("timer", 1750);
static QUEUE: LockClass = LockClass::new("timer_queue", 1751);

/// What happens when a timer expires.
pub trait TimerHandler: Send + Sync {
    /// The time has come. Hard interrupt context: interrupts are off, nothing here may sleep.
    fn expired(&self);

    /// When to expire again (monotonic), asked right after [`expired`](Self::expired). A time that
    /// is past counts as the next nanosecond.
    fn again(&self, _now: Nanos) -> Option<Nanos> {
        None
    }
}

/// Deadline and number of the timer: unique, so it orders the queue.
type Key = (Nanos, u64);
/// A timer's place in a queue; the timer is in it while it is armed.
type Place = OrdNode<Key, Option<KArc<Inner>>>;

/// A timer; dropping it cancels it.
pub struct Timer {
    inner: KArc<Inner>,
}

struct Inner {
    id: u64,
    handler: KArc<dyn TimerHandler>,
    state: SpinLock<State>,
}

struct State {
    /// Where it is armed, and for when.
    armed: Option<(CpuId, Nanos)>,
    /// The place for the next arming, while it is not armed.
    place: Option<Place>,
    /// The CPU on which it last expired: its handler may still run there.
    expired_on: CpuId,
}

struct Queue {
    timers: SpinLock<OrdMap<Key, Option<KArc<Inner>>>>,
    /// Number of the timer whose handler runs; 0 for none.
    running: AtomicU64,
    /// Interrupts that were taken.
    interrupts: AtomicU64,
}

static QUEUES: PerCpu<Queue> = sync::per_cpu!(Queue {
    timers: SpinLock::new(OrdMap::new(), &QUEUE),
    running: AtomicU64::new(0),
    interrupts: AtomicU64::new(0),
});

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Timer {
    /// A timer that is not armed.
    pub fn new(handler: KArc<dyn TimerHandler>) -> Result<Self, AllocError> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let place = OrdNode::try_new((Nanos::ZERO, id), None)?;
        let state = State { armed: None, place: Some(place), expired_on: CpuId::BOOT };
        Ok(Self { inner: KArc::try_new(Inner { id, handler, state: SpinLock::new(state, &TIMER) })? })
    }

    /// Arms the timer on this CPU for `at` on the monotonic clock; a time that is past expires at
    /// once. A timer that was armed is moved. Any context.
    pub fn arm(&self, at: Nanos) {
        let mut state = self.inner.state.lock_irq();
        Inner::disarm(&self.inner, &mut state);
        Inner::arm(&self.inner, &mut state, at);
    }

    /// Cancels the timer; returns whether it was armed. When this returns the handler does not
    /// run on any other CPU, and will not: so the caller must hold no lock that the handler takes.
    pub fn cancel(&self) -> bool {
        let mut was_armed = false;
        loop {
            let (armed, busy) = self.cancel_once();
            was_armed |= armed;
            if !busy {
                return was_armed;
            }
            // The handler may arm its timer again: look once more when it is done.
            spin_loop();
        }
    }

    /// Cancels the timer without waiting for a handler that runs: returns whether it was armed.
    pub fn cancel_async(&self) -> bool {
        self.cancel_once().0
    }

    /// Whether it was armed, and whether its handler runs on another CPU.
    fn cancel_once(&self) -> (bool, bool) {
        let mut state = self.inner.state.lock_irq();
        let was_armed = Inner::disarm(&self.inner, &mut state);
        let there = state.expired_on;
        // Acquire pairs with the Release in `run`: what the handler did is visible.
        let runs = QUEUES.get(there).running.load(Ordering::Acquire) == self.inner.id;
        (was_armed, runs && there != arch::cpu::id())
    }

    /// When it will expire.
    pub fn deadline(&self) -> Option<Nanos> {
        self.inner.state.lock_irq().armed.map(|(_, at)| at)
    }

    /// Whether it is armed.
    pub fn is_armed(&self) -> bool {
        self.deadline().is_some()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Inner {
    /// Puts a timer that is not armed into this CPU's queue.
    fn arm(this: &KArc<Self>, state: &mut State, at: Nanos) {
        // Interrupts are off with the timer's lock, so this stays the same CPU.
        let cpu = arch::cpu::id();
        let Some(mut place) = state.place.take() else { return };
        *place.key_mut() = (at, this.id);
        *place.value_mut() = Some(this.clone());
        let mut timers = QUEUES.get(cpu).timers.lock_irq();
        timers.insert_node(place);
        state.armed = Some((cpu, at));
        if timers.first().is_some_and(|(key, _)| *key == (at, this.id)) {
            program(&timers);
        }
    }

    /// Takes the timer out of its queue; returns whether it was in one.
    fn disarm(this: &KArc<Self>, state: &mut State) -> bool {
        let Some((cpu, at)) = state.armed.take() else { return false };
        let mut timers = QUEUES.get(cpu).timers.lock_irq();
        let key = (at, this.id);
        let was_first = timers.first().is_some_and(|(first, _)| *first == key);
        if let Some(mut place) = timers.remove_node(&key) {
            // Never the last reference: the caller has one.
            *place.value_mut() = None;
            state.place = Some(place);
        }
        // Another CPU's timer is left as it is: it expires once for nothing.
        if was_first && cpu == arch::cpu::id() {
            program(&timers);
        }
        true
    }
}

/// Sets this CPU's one-shot timer to the first deadline.
fn program(timers: &OrdMap<Key, Option<KArc<Inner>>>) {
    match timers.first() {
        Some((&(at, _), _)) => arch::clock::set_deadline(timekeeper::ticks_at(at)),
        None => arch::clock::clear_deadline(),
    }
}

/// How often one interrupt looks for timers that expired while it ran handlers.
const ROUNDS: usize = 3;

/// The timer interrupt of this CPU: runs what expired, and sets the timer anew.
pub fn interrupt() {
    let irq = IrqGuard::new();
    let cpu = irq.cpu();
    let queue = QUEUES.get(cpu);
    queue.interrupts.fetch_add(1, Ordering::Relaxed);
    for _ in 0..ROUNDS {
        let now = timekeeper::monotonic();
        let mut ran = false;
        while run_one(cpu, queue, now) {
            ran = true;
        }
        if !ran {
            break;
        }
    }
    // If more expired meanwhile, the deadline is past and the interrupt comes again at once: other
    // interrupts get their turn.
    program(&queue.timers.lock_irq());
}

/// Runs the first timer if it is due at `now`.
fn run_one(cpu: CpuId, queue: &Queue, now: Nanos) -> bool {
    let first = {
        let timers = queue.timers.lock_irq();
        timers.first().filter(|((at, _), _)| *at <= now).and_then(|(key, timer)| Some((*key, timer.clone()?)))
    };
    let Some((key, timer)) = first else { return false };
    {
        // The timer's lock comes first in the order; whoever was quicker has disarmed or moved it.
        let mut state = timer.state.lock_irq();
        if state.armed != Some((cpu, key.0)) {
            return true;
        }
        // Before the timer shows as not armed: a `cancel` that finds it so must find this.
        queue.running.store(key.1, Ordering::Relaxed);
        state.expired_on = cpu;
        let mut timers = queue.timers.lock_irq();
        state.armed = None;
        if let Some(mut place) = timers.remove_node(&key) {
            *place.value_mut() = None;
            state.place = Some(place);
        }
    }
    timer.handler.expired();
    if let Some(at) = timer.handler.again(now) {
        let mut state = timer.state.lock_irq();
        // Not if somebody armed it meanwhile.
        if state.armed.is_none() {
            // After `now`, so that the round ends.
            Inner::arm(&timer, &mut state, at.max(now.saturating_add(Nanos(1))));
        }
    }
    // Before `running` is cleared: so this is never the last reference, and a handler is never
    // destroyed in interrupt context.
    drop(timer);
    // Pairs with the Acquire in `cancel_once`.
    queue.running.store(0, Ordering::Release);
    true
}

/// The earliest deadline on a CPU.
pub fn next_event(cpu: CpuId) -> Option<Nanos> {
    QUEUES.get(cpu).timers.lock_irq().first().map(|(&(at, _), _)| at)
}

/// How many timer interrupts a CPU has taken.
pub fn interrupt_count(cpu: CpuId) -> u64 {
    QUEUES.get(cpu).interrupts.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arch::sim;
    use kalloc::{CoerceUnsize, Coercion};
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32},
    };

    /// Runs `f` on `n` CPUs with the clocks at zero and one tick a nanosecond.
    fn on_cpus(n: usize, f: impl Fn(CpuId) + Sync) {
        let _turn = crate::tests::turn();
        sim::set_counter(0);
        timekeeper::init(0, 1_000_000_000);
        sim::run_on_cpus(n, f);
    }

    /// Notes when it expired.
    #[derive(Default)]
    struct Log {
        at: Mutex<std::vec::Vec<u64>>,
        period: Option<u64>,
    }

    impl TimerHandler for Log {
        fn expired(&self) {
            assert!(arch::preempt::in_interrupt());
            self.at.lock().unwrap().push(timekeeper::monotonic().0);
        }
        fn again(&self, now: Nanos) -> Option<Nanos> {
            self.period.map(|p| Nanos(now.0 + p))
        }
    }

    fn timer(log: Log) -> (KArc<Log>, Timer) {
        let log = KArc::try_new(log).unwrap();
        let handler: KArc<dyn TimerHandler> = log.clone().unsize(Coercion!(to dyn TimerHandler));
        (log, Timer::new(handler).unwrap())
    }

    /// Moves the clock to `to` and takes the timer's interrupts on the way.
    fn run_until(to: u64) {
        while let Some(at) = sim::deadline().filter(|&at| at <= to) {
            sim::set_counter(at.max(arch::clock::counter()));
            sim::interrupt(interrupt);
        }
        sim::set_counter(to);
    }

    #[test]
    fn timers_expire_in_the_order_of_their_deadlines() {
        on_cpus(1, |_| {
            let timers = [300, 100, 200].map(|at| {
                let (log, timer) = timer(Log::default());
                timer.arm(Nanos(at));
                (log, timer)
            });
            assert_eq!(sim::deadline(), Some(100));
            run_until(1000);
            for ((log, timer), at) in timers.iter().zip([300, 100, 200]) {
                assert_eq!(*log.at.lock().unwrap(), [at]);
                assert!(!timer.is_armed());
            }
        });
    }

    #[test]
    fn nothing_armed_means_no_deadline() {
        on_cpus(1, |cpu| {
            let (_, t) = timer(Log::default());
            assert_eq!(sim::deadline(), None);
            t.arm(Nanos(50));
            assert_eq!(next_event(cpu), Some(Nanos(50)));
            assert!(t.cancel());
            assert_eq!(sim::deadline(), None);
            assert!(!t.cancel());
            t.arm(Nanos(60));
            run_until(100);
            assert_eq!(sim::deadline(), None);
        });
    }

    #[test]
    fn arming_again_moves_the_deadline() {
        on_cpus(1, |_| {
            let (log, t) = timer(Log::default());
            t.arm(Nanos(50));
            t.arm(Nanos(500));
            assert_eq!(sim::deadline(), Some(500));
            run_until(1000);
            assert_eq!(*log.at.lock().unwrap(), [500]);
        });
    }

    #[test]
    fn a_periodic_handler_expires_until_it_is_cancelled() {
        on_cpus(1, |_| {
            let (log, t) = timer(Log { period: Some(10), ..Log::default() });
            t.arm(Nanos(10));
            run_until(35);
            assert_eq!(*log.at.lock().unwrap(), [10, 20, 30]);
            drop(t);
            assert_eq!(sim::deadline(), None);
        });
    }

    #[test]
    fn a_deadline_in_the_past_expires_at_once() {
        on_cpus(1, |_| {
            sim::set_counter(1000);
            let (log, t) = timer(Log::default());
            t.arm(Nanos(1));
            run_until(1000);
            assert_eq!(*log.at.lock().unwrap(), [1000]);
            drop(t);
        });
    }

    #[test]
    fn a_handler_that_is_always_due_does_not_keep_the_interrupt() {
        on_cpus(1, |_| {
            let (log, t) = timer(Log { period: Some(0), ..Log::default() });
            t.arm(Nanos(0));
            sim::interrupt(interrupt);
            assert!(log.at.lock().unwrap().len() < 1000);
            assert!(sim::deadline().is_some());
            t.cancel();
        });
    }

    /// Holds up its CPU until the test lets it go.
    #[derive(Default)]
    struct Slow {
        entered: AtomicBool,
        leave: AtomicBool,
        left: AtomicBool,
    }

    impl TimerHandler for Slow {
        fn expired(&self) {
            self.entered.store(true, Ordering::SeqCst);
            while !self.leave.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            self.left.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn cancel_waits_for_a_handler_on_another_cpu_and_cancel_async_does_not() {
        let slow = KArc::try_new(Slow::default()).unwrap();
        let t = Timer::new(slow.clone().unsize(Coercion!(to dyn TimerHandler))).unwrap();
        let armed = AtomicBool::new(false);
        on_cpus(2, |cpu| {
            if cpu == CpuId(0) {
                t.arm(Nanos(0));
                armed.store(true, Ordering::SeqCst);
                sim::interrupt(interrupt);
            } else {
                while !slow.entered.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                assert!(!t.cancel_async());
                assert!(!slow.left.load(Ordering::SeqCst));
                slow.leave.store(true, Ordering::SeqCst);
                assert!(!t.cancel());
                assert!(slow.left.load(Ordering::SeqCst));
            }
        });
        assert!(armed.load(Ordering::SeqCst));
    }

    #[test]
    fn timers_that_are_armed_and_cancelled_by_all_cpus_end_up_in_no_queue() {
        struct Count(AtomicU32);
        impl TimerHandler for Count {
            fn expired(&self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let timers: std::vec::Vec<_> = (0..4)
            .map(|_| {
                let count = KArc::try_new(Count(AtomicU32::new(0))).unwrap();
                Timer::new(count.unsize(Coercion!(to dyn TimerHandler))).unwrap()
            })
            .collect();
        on_cpus(4, |cpu| {
            for n in 0..2000_u64 {
                let t = &timers[(n as usize + cpu.index()) % timers.len()];
                match n % 3 {
                    0 => t.arm(Nanos(n / 2)),
                    1 => {
                        sim::interrupt(interrupt);
                    }
                    _ => {
                        t.cancel();
                    }
                }
                sim::advance_counter(1);
            }
        });
        timers.iter().for_each(|t| {
            t.cancel();
        });
        for cpu in 0..4 {
            assert_eq!(next_event(CpuId(cpu)), None);
        }
        assert_eq!(sync::lockdep::violations(), 0);
    }
}
