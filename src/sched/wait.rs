//! Waiting until something is true: the only way to sleep.
//!
//! "Enqueue, check, sleep": the sleeper stands in the queue and has announced its sleep before it
//! looks at the condition, so a waker that makes it true afterwards finds it (`thread_queue.rs` has
//! the argument). Who changes what others wait for calls a `wake_*` afterwards; with nobody waiting
//! that is a barrier and a load.
//!
//! The condition is a closure. It may take spin locks; it must not sleep. Each thread has one
//! place to stand in a queue, made with the thread, so sleeping needs no memory. `poll` and
//! `epoll` hang any number of callbacks on queues instead; each is allocated beforehand.
//!
//! Any context may wake. Lock order: a queue's callbacks, its threads, then run queues.

use crate::thread_queue::{Manner, ThreadQueue};
pub use crate::thread_queue::{Outcome, Sleep};
use abi::{Nanos, Result};
use collections::{ArcList, Link};
use kalloc::KArc;
use sync::{
    LockClass, Once, SpinLock,
    atomic::{AtomicU32, Ordering, fence},
};

static CALLBACKS: LockClass = LockClass::new("wait_queue_callbacks", 1590);

/// What a wake-up tells the callbacks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wake {
    /// What became possible: bits of `poll(2)`; 0: not known.
    pub key: u32,
    /// How many callbacks are under way that led to this wake-up (an epoll in an epoll).
    pub depth: u8,
}

/// What is called when a queue is woken: how `poll` and `epoll` wait in many queues at once.
pub trait WakeCallback: Send + Sync {
    /// The queue was woken. Called under a lock and perhaps in an interrupt: may wake threads, may
    /// not sleep, and may not add or remove callbacks. A callback that wakes another queue with
    /// callbacks does so by [`WaitQueue::wake_nested`]. Returns whether somebody takes what there
    /// is: then an exclusive callback uses the wake-up up.
    fn woken(&self, wake: Wake) -> bool;
}

/// A callback on a queue.
struct Entry {
    link: Link,
    /// Which keys it is called for.
    mask: u32,
    exclusive: bool,
    callback: KArc<dyn WakeCallback>,
}

collections::link_field!(EntryLink: Entry => link);

/// The callbacks of a queue; on its own, so that a registration can outlive the queue.
struct Callbacks {
    count: AtomicU32,
    list: SpinLock<ArcList<EntryLink>>,
}

/// A callback that is on a queue until this is dropped.
pub struct Registration {
    on: KArc<Callbacks>,
    entry: KArc<Entry>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut list = self.on.list.lock_irq();
        let removed = list.remove(&self.entry);
        self.on.count.store(list.len() as u32, Ordering::Relaxed);
        drop(list);
        drop(removed);
    }
}

/// Where threads wait until something is true.
pub struct WaitQueue {
    threads: ThreadQueue,
    /// Made with the first callback.
    callbacks: Once<KArc<Callbacks>>,
}

impl WaitQueue {
    /// A queue in which nobody waits.
    pub const fn new() -> Self {
        Self { threads: ThreadQueue::new(), callbacks: Once::new() }
    }

    /// Sleeps until `condition` gives something, or a signal or the deadline (monotonic) ends the
    /// sleep. The condition is looked at first: if it is true, nothing else matters.
    #[track_caller]
    pub fn wait_until<T>(
        &self,
        how: Sleep,
        deadline: Option<Nanos>,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Outcome<T> {
        if let Some(value) = condition() {
            sync::might_sleep();
            return Outcome::Ready(value);
        }
        self.threads.wait(Manner { how, deadline, exclusive: false }, condition)
    }

    /// As [`wait_until`](Self::wait_until), for what only one waiter can have: a wake-up wakes
    /// only one of those who wait so, the one that waits longest.
    #[track_caller]
    pub fn wait_exclusive<T>(
        &self,
        how: Sleep,
        deadline: Option<Nanos>,
        mut condition: impl FnMut() -> Option<T>,
    ) -> Outcome<T> {
        if let Some(value) = condition() {
            sync::might_sleep();
            return Outcome::Ready(value);
        }
        self.threads.wait(Manner { how, deadline, exclusive: true }, condition)
    }

    /// As [`wait_until`](Self::wait_until), with a condition on data behind a spin lock, which is
    /// held while the condition is looked at and not while sleeping.
    #[track_caller]
    pub fn wait_until_locked<L, T>(
        &self,
        lock: &SpinLock<L>,
        how: Sleep,
        deadline: Option<Nanos>,
        mut condition: impl FnMut(&mut L) -> Option<T>,
    ) -> Outcome<T> {
        self.wait_until(how, deadline, || condition(&mut lock.lock()))
    }

    /// Wakes all who do not wait exclusively and one who does. Full barrier.
    #[inline]
    pub fn wake_one(&self) {
        self.wake_with(1, 0);
    }

    /// Wakes all who do not wait exclusively and `n` who do. Full barrier.
    pub fn wake_n(&self, n: usize) {
        self.wake_with(n, 0);
    }

    /// Wakes everybody. Full barrier.
    #[inline]
    pub fn wake_all(&self) {
        self.wake_with(usize::MAX, 0);
    }

    /// As [`wake_one`](Self::wake_one); the callbacks learn what became possible.
    #[inline]
    pub fn wake_key(&self, key: u32) {
        self.wake_with(1, key);
    }

    /// As [`wake_all`](Self::wake_all); the callbacks learn what became possible.
    pub fn wake_all_key(&self, key: u32) {
        self.wake_with(usize::MAX, key);
    }

    /// As [`wake_key`](Self::wake_key), from a callback that was called with `wake`; `key` is what
    /// became possible here.
    pub fn wake_nested(&self, wake: Wake, key: u32) {
        let woken = self.threads.wake(1);
        self.call(Wake { key, depth: wake.depth.saturating_add(1) }, 1usize.saturating_sub(woken));
    }

    #[inline]
    fn wake_with(&self, exclusive: usize, key: u32) {
        // The barrier in `wake` orders the look at the callbacks too.
        let woken = self.threads.wake(exclusive);
        self.call(Wake { key, depth: 0 }, exclusive.saturating_sub(woken));
    }

    #[inline]
    fn call(&self, wake: Wake, exclusive: usize) {
        if let Some(callbacks) = self.callbacks.get()
            && callbacks.count.load(Ordering::Relaxed) != 0
        {
            callbacks.call(wake, exclusive);
        }
    }

    /// Whether a thread waits here, or a callback is set: a hint.
    pub fn has_waiters(&self) -> bool {
        self.threads.has_waiters() || self.callbacks.get().is_some_and(|c| c.count.load(Ordering::Relaxed) != 0)
    }

    /// Hangs a callback on the queue until the registration is dropped; it is called for wake-ups
    /// whose key is not known or has a bit of `mask`. Of `exclusive` ones a wake-up calls only as
    /// many as it wakes threads that wait exclusively. The caller looks at its condition after
    /// this. Fails without memory.
    pub fn add_callback(&self, callback: KArc<dyn WakeCallback>, mask: u32, exclusive: bool) -> Result<Registration> {
        let entry = KArc::try_new(Entry { link: Link::new(), mask, exclusive, callback })?;
        let callbacks = match self.callbacks.get() {
            Some(callbacks) => callbacks,
            None => {
                let list = SpinLock::new(ArcList::new(), &CALLBACKS);
                let new = KArc::try_new(Callbacks { count: AtomicU32::new(0), list })?;
                self.callbacks.call_once(|| new)
            }
        };
        {
            let mut list = callbacks.list.lock_irq();
            // A new entry is on no list. Those that are called in any case come first.
            let _ = if exclusive { list.push_back(entry.clone()) } else { list.push_front(entry.clone()) };
            callbacks.count.store(list.len() as u32, Ordering::Relaxed);
        }
        // Pairs with the fence in `ThreadQueue::wake`.
        fence(Ordering::SeqCst);
        Ok(Registration { on: callbacks.clone(), entry })
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl Callbacks {
    #[inline(never)]
    fn call(&self, wake: Wake, mut exclusive: usize) {
        // A callback of an epoll that is watched by another wakes that one's queue.
        let list = self.list.lock_irq_nested(wake.depth);
        for entry in &*list {
            if entry.exclusive && exclusive == 0 {
                break;
            }
            if (wake.key == 0 || wake.key & entry.mask != 0) && entry.callback.woken(wake) && entry.exclusive {
                exclusive -= 1;
            }
        }
    }
}

/// Sleeps until a point of the monotonic clock.
pub fn sleep_until(how: Sleep, deadline: Nanos) -> Outcome<()> {
    let nobody = WaitQueue::new();
    match nobody.wait_until(how, Some(deadline), || None::<()>) {
        Outcome::TimedOut => Outcome::Ready(()),
        other => other,
    }
}
