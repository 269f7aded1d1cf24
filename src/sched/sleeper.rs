//! How a thread falls asleep and is woken, so that no wake-up is lost: the state word and the
//! slot in which a sleeping thread's entity waits.
//!
//! ```text
//!   sleeper                                    waker
//!   begin: state = kind, full barrier          what is waited for becomes true, full barrier
//!   is it true yet? then cancel                wake: state says a sleep of the wanted kinds?
//!   commit: kind -> kind + COMMITTED             kind             -> RUNNING: it will not sleep
//!   (switch away)                                kind + COMMITTED -> RUNNING: take the entity,
//!   the next thread: settle(entity)                                or leave a mark for `settle`
//! ```
//!
//! - Of `begin`'s barrier and `wake`'s, one is first: either the sleeper sees what it waits for or
//!   the waker sees the state.
//! - Each `commit` is answered by one change to RUNNING, whose author alone goes to the slot, and
//!   by one `settle`. Whichever of the two comes second has the entity and puts it on a queue: no
//!   CPU waits for another, and no thread is queued while it is still being switched away from.

use kalloc::KBox;
use sched_switch::BoxSlot;
use sync::atomic::{AtomicU32, Ordering, fence};

/// Runs, or waits for a CPU.
pub(crate) const RUNNING: u32 = 0;
/// Sleeps; a signal ends it (S).
pub(crate) const INTERRUPTIBLE: u32 = 1;
/// Sleeps; only what it waits for ends it (D).
pub(crate) const UNINTERRUPTIBLE: u32 = 2;
/// Sleeps; a fatal signal ends it (D).
pub(crate) const KILLABLE: u32 = 4;
/// Stopped by job control (T).
pub(crate) const STOPPED: u32 = 8;
/// Stopped by a tracer (t).
pub(crate) const TRACED: u32 = 16;
/// Sleeps without counting as load: a kernel thread with nothing to do (I).
pub(crate) const IDLE: u32 = 32;
/// Not started yet.
pub(crate) const NEW: u32 = 64;
/// Has ended.
pub(crate) const DEAD: u32 = 128;
/// The sleep is decided: the thread leaves its CPU, or has left it.
const COMMITTED: u32 = 1 << 16;

/// All the sleeps that end when what is waited for may have happened.
pub(crate) const SLEEPING: u32 = INTERRUPTIBLE | UNINTERRUPTIBLE | KILLABLE | IDLE;
/// Sleeps that count in the load average.
pub(crate) const LOAD: u32 = UNINTERRUPTIBLE | KILLABLE;

/// What came of a wake-up.
pub(crate) enum Woken<E> {
    /// The thread was in none of the wanted states.
    No,
    /// It was about to sleep and will not, or another CPU puts it on a queue.
    Done,
    /// It slept: the caller puts the entity on a queue.
    Enqueue(KBox<E>),
}

/// State and resting place of a thread; see the module's text.
pub(crate) struct SleepState<E> {
    state: AtomicU32,
    slot: BoxSlot<E>,
}

impl<E> SleepState<E> {
    /// Of a thread that was not started.
    pub(crate) fn new() -> Self {
        Self { state: AtomicU32::new(NEW | COMMITTED), slot: BoxSlot::new() }
    }

    /// The state, without the step in which it is.
    pub(crate) fn get(&self) -> u32 {
        self.state.load(Ordering::Relaxed) & !COMMITTED
    }

    /// Announces a sleep. From here on a wake-up keeps the thread awake.
    #[inline]
    pub(crate) fn begin(&self, kind: u32) {
        self.state.store(kind, Ordering::Relaxed);
        // Pairs with the fence in `wake`.
        fence(Ordering::SeqCst);
    }

    /// The thread does not sleep after all, or did and is back.
    #[inline]
    pub(crate) fn cancel(&self) {
        self.state.store(RUNNING, Ordering::Relaxed);
    }

    /// Decides the sleep that was announced; `None` if there is none, or a waker was faster.
    #[inline]
    pub(crate) fn commit(&self) -> Option<u32> {
        let kind = self.state.load(Ordering::Relaxed);
        if kind == RUNNING {
            return None;
        }
        self.state.compare_exchange(kind, kind | COMMITTED, Ordering::AcqRel, Ordering::Relaxed).is_ok().then_some(kind)
    }

    /// The thread is off its CPU. Its entity comes back if it was woken meanwhile.
    #[inline]
    pub(crate) fn settle(&self, entity: KBox<E>) -> Option<KBox<E>> {
        self.slot.put(entity).err()
    }

    /// Wakes the thread if it sleeps in one of `kinds`. Full barrier.
    #[inline]
    pub(crate) fn wake(&self, kinds: u32) -> Woken<E> {
        // Pairs with the fence in `begin`.
        fence(Ordering::SeqCst);
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            if state & kinds == 0 {
                return Woken::No;
            }
            // Release: what we did before is visible to the thread when it runs on.
            match self.state.compare_exchange(state, RUNNING, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if state & COMMITTED == 0 => return Woken::Done,
                Ok(_) => return self.slot.take_or_mark().map_or(Woken::Done, Woken::Enqueue),
                Err(now) => state = now,
            }
        }
    }

    /// The thread has ended.
    pub(crate) fn end(&self) {
        self.state.store(DEAD, Ordering::Release);
    }
}
