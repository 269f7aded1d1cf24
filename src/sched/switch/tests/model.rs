//! The protocols of sleeping and waking, and of the sleeping locks, in every interleaving.
//!
//! The kernel's own files are compiled here over loom's atomics: this crate takes the places of
//! `sync`, `kalloc` and `sched-switch` for them.
#![allow(dead_code)]

extern crate self as kalloc;
extern crate self as sched_switch;
extern crate self as sync;

pub mod atomic {
    pub use loom::sync::atomic::*;
}

/// `KBox`, as far as these files use it.
pub struct KBox<T>(Box<T>);

impl<T> KBox<T> {
    pub fn try_new(value: T) -> Result<Self, ()> {
        Ok(Self(Box::new(value)))
    }
    pub fn into_raw(this: Self) -> *mut T {
        Box::into_raw(this.0)
    }
    /// # Safety
    /// As `Box::from_raw`.
    pub unsafe fn from_raw(raw: *mut T) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { Box::from_raw(raw) })
    }
}

impl<T> core::ops::Deref for KBox<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

#[path = "../../sleeper.rs"]
mod sleeper;
#[path = "../slot.rs"]
mod slot;
#[path = "../words.rs"]
mod words;

pub use slot::BoxSlot;

use atomic::{AtomicBool, AtomicU32, Ordering};
use loom::{
    sync::{Arc, Mutex},
    thread,
};
use sleeper::{INTERRUPTIBLE, SLEEPING, SleepState, Woken};
use words::{ExclusiveWord, SharedWord};

/// A thread that may sleep, as its CPU and its wakers see it. Where its CPU would switch away, the
/// model waits until somebody has put the thread on a queue.
struct Sleeper {
    state: SleepState<u64>,
    /// How often it was put on a queue.
    queued: AtomicU32,
}

impl Sleeper {
    fn new() -> Arc<Self> {
        let state = SleepState::new();
        state.cancel();
        Arc::new(Self { state, queued: AtomicU32::new(0) })
    }

    fn wake(&self) -> bool {
        match self.state.wake(SLEEPING) {
            Woken::No => false,
            Woken::Done => true,
            Woken::Enqueue(_) => {
                self.queued.fetch_add(1, Ordering::Release);
                true
            }
        }
    }

    /// Sleeps if a sleep was announced; returns when the thread runs again.
    fn schedule(&self) {
        let before = self.queued.load(Ordering::Relaxed);
        if self.state.commit().is_none() {
            return;
        }
        if self.state.settle(KBox::try_new(1).unwrap()).is_some() {
            self.queued.fetch_add(1, Ordering::Relaxed);
        }
        while self.queued.load(Ordering::Acquire) == before {
            thread::yield_now();
        }
        assert_eq!(self.queued.load(Ordering::Relaxed), before + 1, "queued twice");
    }
}

/// A wait queue: the same steps in the same order as `wait.rs`, the list being loom's.
struct Queue {
    waiting: AtomicU32,
    list: Mutex<Vec<Arc<Sleeper>>>,
}

impl Queue {
    fn new() -> Self {
        Self { waiting: AtomicU32::new(0), list: Mutex::new(Vec::new()) }
    }

    fn wait(&self, me: &Arc<Sleeper>, mut condition: impl FnMut() -> bool) {
        loop {
            {
                let mut list = self.list.lock().unwrap();
                if !list.iter().any(|s| Arc::ptr_eq(s, me)) {
                    list.push(me.clone());
                }
                self.waiting.store(list.len() as u32, Ordering::Relaxed);
            }
            me.state.begin(INTERRUPTIBLE);
            if condition() {
                break;
            }
            me.schedule();
        }
        me.state.cancel();
        let mut list = self.list.lock().unwrap();
        list.retain(|s| !Arc::ptr_eq(s, me));
        self.waiting.store(list.len() as u32, Ordering::Relaxed);
    }

    fn wake(&self, mut n: usize) {
        atomic::fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut list = self.list.lock().unwrap();
        while n > 0 && !list.is_empty() {
            if list.remove(0).wake() {
                n -= 1;
            }
        }
        self.waiting.store(list.len() as u32, Ordering::Relaxed);
    }
}

fn model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

#[test]
fn exactly_one_side_ends_up_with_the_value_of_a_slot() {
    model(4, || {
        let slot = Arc::new(BoxSlot::new());
        let theirs = slot.clone();
        let waker = thread::spawn(move || theirs.take_or_mark().is_some());
        let kept = slot.put(KBox::try_new(1u64).unwrap()).is_err();
        let taken = waker.join().unwrap();
        assert!(kept != taken);
    });
}

#[test]
fn a_wake_up_that_races_with_the_sleep_is_not_lost() {
    model(4, || {
        let (me, happened) = (Sleeper::new(), Arc::new(AtomicBool::new(false)));
        let (it, theirs) = (me.clone(), happened.clone());
        let waker = thread::spawn(move || {
            theirs.store(true, Ordering::Relaxed);
            it.wake();
        });
        loop {
            me.state.begin(INTERRUPTIBLE);
            if happened.load(Ordering::Relaxed) {
                break;
            }
            me.schedule();
        }
        me.state.cancel();
        waker.join().unwrap();
    });
}

#[test]
fn two_wakers_put_a_thread_on_one_queue() {
    model(3, || {
        let me = Sleeper::new();
        let (a, b) = (me.clone(), me.clone());
        let a = thread::spawn(move || a.wake());
        let b = thread::spawn(move || b.wake());
        me.state.begin(INTERRUPTIBLE);
        let slept = me.state.commit().is_some();
        if slept && me.state.settle(KBox::try_new(1).unwrap()).is_some() {
            me.queued.fetch_add(1, Ordering::Relaxed);
        }
        let woken = u32::from(a.join().unwrap()) + u32::from(b.join().unwrap());
        assert!(woken <= 1);
        assert_eq!(me.queued.load(Ordering::Relaxed), u32::from(slept) * woken);
    });
}

#[test]
fn a_waiter_in_a_queue_hears_of_the_change() {
    model(3, || {
        let (queue, happened) = (Arc::new(Queue::new()), Arc::new(AtomicBool::new(false)));
        let (q, h) = (queue.clone(), happened.clone());
        let waker = thread::spawn(move || {
            h.store(true, Ordering::Relaxed);
            q.wake(1);
        });
        queue.wait(&Sleeper::new(), || happened.load(Ordering::Relaxed));
        waker.join().unwrap();
    });
}

/// What a lock guards: noticed by loom if two have it at once without an order.
type Guarded = loom::cell::UnsafeCell<u32>;

#[test]
fn a_mutex_admits_one_at_a_time_and_forgets_nobody() {
    struct Lock(ExclusiveWord, Queue, Guarded);
    // SAFETY: this is what the test shows.
    unsafe impl Sync for Lock {}
    // SAFETY: as above.
    unsafe impl Send for Lock {}
    model(2, || {
        let lock = Arc::new(Lock(ExclusiveWord(AtomicU32::new(0)), Queue::new(), Guarded::new(0)));
        let add = |lock: &Lock| {
            if !lock.0.try_take() {
                lock.1.wait(&Sleeper::new(), || lock.0.take_or_contend());
            }
            // SAFETY: checked by loom.
            lock.2.with_mut(|n| unsafe { *n += 1 });
            if lock.0.give_back() {
                lock.1.wake(1);
            }
        };
        let theirs = lock.clone();
        let other = thread::spawn(move || add(&theirs));
        add(&lock);
        other.join().unwrap();
        // SAFETY: the other thread has ended.
        lock.2.with(|n| assert_eq!(unsafe { *n }, 2));
    });
}

#[test]
fn an_rw_lock_keeps_writers_alone_and_forgets_nobody() {
    struct Lock(SharedWord, Queue, Guarded);
    // SAFETY: this is what the test shows.
    unsafe impl Sync for Lock {}
    // SAFETY: as above.
    unsafe impl Send for Lock {}
    model(2, || {
        let lock = Arc::new(Lock(SharedWord(AtomicU32::new(0)), Queue::new(), Guarded::new(0)));
        let wake = |lock: &Lock| {
            lock.0.forget_waiters();
            lock.1.wake(usize::MAX);
        };
        let theirs = lock.clone();
        let writer = thread::spawn(move || {
            if !theirs.0.try_write() {
                theirs.1.wait(&Sleeper::new(), || theirs.0.write_or_contend());
            }
            // SAFETY: checked by loom.
            theirs.2.with_mut(|n| unsafe { *n += 1 });
            if theirs.0.end_write() {
                wake(&theirs);
            }
        });
        if !lock.0.try_read() {
            let mut first = true;
            lock.1.wait(&Sleeper::new(), || {
                let woken = !core::mem::take(&mut first);
                lock.0.read_or_contend(woken)
            });
        }
        // SAFETY: checked by loom.
        lock.2.with(|n| assert!(unsafe { *n } <= 1));
        if lock.0.end_read() {
            wake(&lock);
        }
        writer.join().unwrap();
    });
}
