//! The threads of a wait queue: how one stands in it, sleeps, and leaves it, and whom a wake-up
//! reaches. `wait.rs` builds the public queue on it, the sleeping locks build theirs.
//!
//! A sleeper announces its sleep, then stands in the queue, then looks at the condition; a waker
//! changes the condition, then looks at the queue, then at the announcement (`sleeper.rs`). So of
//! two that race one sees the other, and whoever is taken out of the queue hears of it.
//!
//! The model checker compiles this very file (`switch/tests/model.rs`).

use crate::{
    cpu,
    sleeper::{self, INTERRUPTIBLE, KILLABLE, RUNNING, UNINTERRUPTIBLE},
    thread::{Sleeper, SleeperLink},
};
use abi::Nanos;
use arch::thread::{FATAL_PENDING, SIGNAL_PENDING, ThreadHead};
use collections::ArcList;
use kalloc::KArc;
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU32, Ordering, fence},
};

static THREADS: LockClass = LockClass::new("wait_queue", 1600);

/// What ends a sleep beside what is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// Nothing (D).
    Uninterruptible,
    /// A fatal signal (D).
    Killable,
    /// Any signal (S).
    Interruptible,
    /// Nothing, and it is no load: a kernel thread waits for work (I).
    Idle,
}

impl Sleep {
    fn state(self) -> u32 {
        match self {
            Self::Uninterruptible => UNINTERRUPTIBLE,
            Self::Killable => KILLABLE,
            Self::Interruptible => INTERRUPTIBLE,
            Self::Idle => sleeper::IDLE,
        }
    }

    /// Whether a signal that is pending ends this sleep.
    fn ended_by_signal(self, head: &ThreadHead) -> bool {
        let flags = match self {
            Self::Uninterruptible | Self::Idle => return false,
            Self::Killable => FATAL_PENDING,
            Self::Interruptible => SIGNAL_PENDING | FATAL_PENDING,
        };
        head.flags() & flags != 0
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome<T> {
    /// What was waited for.
    Ready(T),
    /// A signal came first.
    Interrupted,
    /// The deadline came first.
    TimedOut,
}

impl<T> Outcome<T> {
    /// What was waited for, if it came.
    pub fn ready(self) -> Option<T> {
        match self {
            Self::Ready(value) => Some(value),
            Self::Interrupted | Self::TimedOut => None,
        }
    }
}

/// How to wait.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) how: Sleep,
    pub(crate) deadline: Option<Nanos>,
    /// What is waited for goes to one waiter only: a wake-up wakes one such.
    pub(crate) exclusive: bool,
}

/// The threads of a wait queue.
pub(crate) struct ThreadQueue {
    /// Length of the list, to be read without the lock.
    waiting: AtomicU32,
    list: SpinLock<ArcList<SleeperLink>>,
}

impl ThreadQueue {
    pub(crate) const fn new() -> Self {
        Self { waiting: AtomicU32::new(0), list: SpinLock::new(ArcList::new(), &THREADS) }
    }

    /// Sleeps until `condition` gives something.
    #[track_caller]
    pub(crate) fn wait<T>(&self, manner: Manner, mut condition: impl FnMut() -> Option<T>) -> Outcome<T> {
        sync::might_sleep();
        let me = crate::current();
        let sleeper = &me.sleeper;
        debug_assert!(sleeper.state.get() == RUNNING && !sleeper.link.is_linked(), "a condition must not sleep");
        let mut timer_is_set = false;
        let mut again = false;
        let outcome = loop {
            // Announced before it stands in the queue, or is seen to: a waker that takes it out from
            // here on finds the announcement. In the other order it could be taken out unheard, and
            // sleep where no waker looks.
            sleeper.state.begin(manner.how.state());
            if !sleeper.link.is_linked() {
                self.enqueue(sleeper, manner.exclusive, again);
                // Pairs with the fence in `wake`, which looks whether somebody stands here.
                fence(Ordering::SeqCst);
            }
            if let Some(value) = condition() {
                break Outcome::Ready(value);
            }
            if manner.how.ended_by_signal(me.head()) {
                break Outcome::Interrupted;
            }
            if let Some(deadline) = manner.deadline {
                if time::monotonic() >= deadline {
                    break Outcome::TimedOut;
                }
                if !timer_is_set {
                    me.timer.arm(deadline);
                    timer_is_set = true;
                }
            }
            cpu::schedule();
            again = true;
        };
        sleeper.state.cancel();
        let was_taken_out = !(sleeper.link.is_linked() && self.dequeue(sleeper));
        if was_taken_out && manner.exclusive {
            // A wake-up that was meant for one came to us who were awake. Even if we have what we
            // waited for, that may have been there before: then this one is about something else.
            self.wake(1);
        }
        if timer_is_set {
            me.timer.cancel_async();
        }
        outcome
    }

    fn enqueue(&self, sleeper: &KArc<Sleeper>, exclusive: bool, again: bool) {
        sleeper.exclusive.store(exclusive, Ordering::Relaxed);
        let mut list = self.list.lock_irq();
        // In front stand those that every wake-up wakes, then who was woken for nothing, so that
        // it does not wait a whole round more.
        let refused = if exclusive && !again {
            list.push_back(sleeper.clone())
        } else {
            list.push_front(sleeper.clone())
        };
        debug_assert!(refused.is_ok(), "a thread waits in one queue");
        self.waiting.store(list.len() as u32, Ordering::Relaxed);
    }

    /// Leaves the queue; `false` if a waker was faster.
    fn dequeue(&self, sleeper: &KArc<Sleeper>) -> bool {
        let mut list = self.list.lock_irq();
        let removed = list.remove(sleeper).is_some();
        self.waiting.store(list.len() as u32, Ordering::Relaxed);
        removed
    }

    /// Whether somebody waits; a hint without a barrier.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) != 0
    }

    /// Wakes those who do not wait exclusively, and `exclusive` of those who do; returns how many
    /// threads were woken.
    #[inline]
    pub(crate) fn wake(&self, exclusive: usize) -> usize {
        // Pairs with the fence in `SleepState::begin`: either we see the waiter, or it sees what
        // our caller changed.
        fence(Ordering::SeqCst);
        if !self.has_waiters() {
            return 0;
        }
        self.wake_listed(exclusive)
    }

    fn wake_listed(&self, mut exclusive: usize) -> usize {
        let mut woken = 0;
        let mut list = self.list.lock_irq();
        // Who wakes while we look stands behind those whom we saw: at most one round.
        for _ in 0..list.len() {
            let is_exclusive = match list.front() {
                Some(first) => first.exclusive.load(Ordering::Relaxed),
                None => break,
            };
            if is_exclusive && exclusive == 0 {
                // Those who wait exclusively again may stand before others.
                let Some(next) = list.remove_first(|s| !s.exclusive.load(Ordering::Relaxed)) else { break };
                woken += usize::from(next.wake(sleeper::SLEEPING));
                continue;
            }
            let Some(next) = list.pop_front() else { break };
            if next.wake(sleeper::SLEEPING) {
                woken += 1;
                if is_exclusive {
                    exclusive -= 1;
                }
            }
        }
        self.waiting.store(list.len() as u32, Ordering::Relaxed);
        woken
    }
}
