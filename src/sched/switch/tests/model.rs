//! The protocols of sleeping and waking, and of the sleeping locks, in every interleaving.
//!
//! The kernel's own files are compiled here over loom's atomics: this crate takes the places of
//! `sync`, `kalloc`, `collections`, `time` and `sched-switch` for them, and of `sched` itself.
#![allow(dead_code)]

extern crate self as collections;
extern crate self as kalloc;
extern crate self as sched_switch;
extern crate self as sync;
extern crate self as time;

pub mod atomic {
    pub use loom::sync::atomic::{AtomicBool, AtomicPtr, Ordering, fence};

    /// Loom's, made on first use: those of the kernel have a const constructor. One that threads
    /// share is touched before they start.
    pub struct AtomicU32 {
        start: u32,
        made: std::sync::OnceLock<loom::sync::atomic::AtomicU32>,
    }

    impl AtomicU32 {
        pub const fn new(start: u32) -> Self {
            Self { start, made: std::sync::OnceLock::new() }
        }
    }

    impl core::ops::Deref for AtomicU32 {
        type Target = loom::sync::atomic::AtomicU32;
        fn deref(&self) -> &Self::Target {
            self.made.get_or_init(|| loom::sync::atomic::AtomicU32::new(self.start))
        }
    }
}

/// What `thread_queue.rs` uses of `sync`: the list's lock is loom's own.
pub struct LockClass;

impl LockClass {
    pub const fn new(_: &'static str, _: u16) -> Self {
        Self
    }
}

pub fn might_sleep() {}

pub struct SpinLock<T> {
    start: std::sync::Mutex<Option<T>>,
    made: std::sync::OnceLock<loom::sync::Mutex<T>>,
}

impl<T> SpinLock<T> {
    pub const fn new(value: T, _: &'static LockClass) -> Self {
        Self { start: std::sync::Mutex::new(Some(value)), made: std::sync::OnceLock::new() }
    }

    pub fn lock_irq(&self) -> loom::sync::MutexGuard<'_, T> {
        let lock = self.made.get_or_init(|| loom::sync::Mutex::new(self.start.lock().unwrap().take().unwrap()));
        lock.lock().unwrap()
    }
}

/// What it uses of `collections`: the list of sleepers, in order.
pub struct ArcList<L>(Vec<KArc<thread::Sleeper>>, core::marker::PhantomData<L>);

impl<L> ArcList<L> {
    pub const fn new() -> Self {
        Self(Vec::new(), core::marker::PhantomData)
    }
    pub fn len(&self) -> usize {
        self.0.len()
    }
    pub fn front(&self) -> Option<&thread::Sleeper> {
        self.0.first().map(|s| &**s)
    }
    pub fn push_back(&mut self, sleeper: KArc<thread::Sleeper>) -> Result<(), KArc<thread::Sleeper>> {
        self.insert(self.0.len(), sleeper)
    }
    pub fn push_front(&mut self, sleeper: KArc<thread::Sleeper>) -> Result<(), KArc<thread::Sleeper>> {
        self.insert(0, sleeper)
    }
    fn insert(&mut self, at: usize, sleeper: KArc<thread::Sleeper>) -> Result<(), KArc<thread::Sleeper>> {
        if sleeper.link.is_linked() {
            return Err(sleeper);
        }
        sleeper.link.0.store(true, Ordering::Release);
        self.0.insert(at, sleeper);
        Ok(())
    }
    fn take(&mut self, at: Option<usize>) -> Option<KArc<thread::Sleeper>> {
        let sleeper = self.0.remove(at?);
        sleeper.link.0.store(false, Ordering::Release);
        Some(sleeper)
    }
    pub fn pop_front(&mut self) -> Option<KArc<thread::Sleeper>> {
        self.take((!self.0.is_empty()).then_some(0))
    }
    pub fn remove(&mut self, sleeper: &KArc<thread::Sleeper>) -> Option<KArc<thread::Sleeper>> {
        self.take(self.0.iter().position(|s| KArc::ptr_eq(s, sleeper)))
    }
    pub fn remove_first(&mut self, wanted: impl Fn(&thread::Sleeper) -> bool) -> Option<KArc<thread::Sleeper>> {
        self.take(self.0.iter().position(|s| wanted(s)))
    }
}

pub use std::sync::Arc as KArc;

/// The clock stands still: sleeps of the models have no deadline.
pub fn monotonic() -> abi::Nanos {
    abi::Nanos(0)
}

/// The parts of a thread that `thread_queue.rs` sees.
mod thread {
    use crate::{
        KArc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        sleeper::{SleepState, Woken},
    };

    pub struct Link(pub AtomicBool);

    impl Link {
        pub fn is_linked(&self) -> bool {
            self.0.load(Ordering::Acquire)
        }
    }

    pub struct SleeperLink;

    /// A thread that may sleep, as its CPU and its wakers see it.
    pub struct Sleeper {
        pub(crate) state: SleepState<u64>,
        pub link: Link,
        pub exclusive: AtomicBool,
        /// How often it was put on a run queue.
        pub queued: AtomicU32,
        /// Where its CPU waits until it is on one.
        runs: loom::sync::Notify,
    }

    impl Sleeper {
        pub fn new() -> KArc<Self> {
            let state = SleepState::new();
            state.cancel();
            let (link, exclusive) = (Link(AtomicBool::new(false)), AtomicBool::new(false));
            let new = Self { state, link, exclusive, queued: AtomicU32::new(0), runs: loom::sync::Notify::new() };
            new.queued.store(0, Ordering::Relaxed);
            KArc::new(new)
        }

        pub fn wake(&self, kinds: u32) -> bool {
            match self.state.wake(kinds) {
                Woken::No => false,
                Woken::Done => true,
                Woken::Enqueue(_) => {
                    self.enqueue();
                    true
                }
            }
        }

        pub fn enqueue(&self) {
            self.queued.fetch_add(1, Ordering::Release);
            self.runs.notify();
        }

        /// Sleeps if a sleep was announced; returns when the thread runs again. One that nobody
        /// wakes is a deadlock, which loom reports.
        pub fn schedule(&self) {
            let before = self.queued.load(Ordering::Relaxed);
            if self.state.commit().is_none() {
                return;
            }
            if self.state.settle(crate::KBox::try_new(1).unwrap()).is_some() {
                self.enqueue();
            }
            while self.queued.load(Ordering::Acquire) == before {
                self.runs.wait();
            }
            assert_eq!(self.queued.load(Ordering::Relaxed), before + 1, "queued twice");
        }
    }

    /// The current thread.
    pub struct Me {
        pub sleeper: KArc<Sleeper>,
        pub timer: Timer,
        head: arch::thread::ThreadHead,
    }

    impl Me {
        pub fn head(&self) -> &arch::thread::ThreadHead {
            &self.head
        }
    }

    pub struct Timer;

    impl Timer {
        pub fn arm(&self, _: abi::Nanos) {}
        pub fn cancel_async(&self) {}
    }

    loom::thread_local! {
        static ME: KArc<Me> =
            KArc::new(Me { sleeper: Sleeper::new(), timer: Timer, head: arch::thread::ThreadHead::new() });
    }

    pub fn current() -> KArc<Me> {
        ME.with(|me| me.clone())
    }

    /// A signal for the current thread, which stays pending.
    pub fn signal_me() {
        current().head().set_flag(arch::thread::SIGNAL_PENDING);
    }
}

use thread::current;

mod cpu {
    pub(crate) fn schedule() {
        crate::current().sleeper.schedule();
    }
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

#[path = "model/handoff.rs"]
mod handoff;
#[path = "../../sleeper.rs"]
mod sleeper;
#[path = "../slot.rs"]
mod slot;
#[path = "../../thread_queue.rs"]
mod thread_queue;
#[path = "../words.rs"]
mod words;

pub use slot::BoxSlot;

use atomic::{AtomicBool, AtomicU32, Ordering};
use loom::{sync::Arc, thread as threads};
use sleeper::{INTERRUPTIBLE, SLEEPING};
use thread::Sleeper;
use thread_queue::{Manner, Outcome, Sleep, ThreadQueue};
use words::{ExclusiveWord, SharedWord};

/// A wait queue, known to loom before threads share it.
fn new_queue() -> ThreadQueue {
    let queue = ThreadQueue::new();
    assert!(!queue.has_waiters());
    queue
}

/// A lock's word, likewise.
fn new_word() -> AtomicU32 {
    let word = AtomicU32::new(0);
    word.load(Ordering::Relaxed);
    word
}

const ALL: Manner = Manner { how: Sleep::Uninterruptible, deadline: None, exclusive: false };
const ONE: Manner = Manner { how: Sleep::Uninterruptible, deadline: None, exclusive: true };

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
        let waker = threads::spawn(move || theirs.take_or_mark().is_some());
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
        let waker = threads::spawn(move || {
            theirs.store(true, Ordering::Relaxed);
            it.wake(SLEEPING);
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
        let a = threads::spawn(move || a.wake(SLEEPING));
        let b = threads::spawn(move || b.wake(SLEEPING));
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
        let (queue, happened) = (Arc::new(new_queue()), Arc::new(AtomicBool::new(false)));
        let (q, h) = (queue.clone(), happened.clone());
        let waker = threads::spawn(move || {
            h.store(true, Ordering::Relaxed);
            q.wake(1);
        });
        assert_eq!(queue.wait(ALL, || happened.load(Ordering::Relaxed).then_some(())), Outcome::Ready(()));
        waker.join().unwrap();
    });
}

/// What a lock guards: noticed by loom if two have it at once without an order.
type Guarded = loom::cell::UnsafeCell<u32>;

/// A mutex, as `sched::Mutex` is one.
struct Lock(ExclusiveWord, ThreadQueue, Guarded);
// SAFETY: this is what the tests show.
unsafe impl Sync for Lock {}
// SAFETY: as above.
unsafe impl Send for Lock {}

impl Lock {
    fn new() -> Arc<Self> {
        Arc::new(Self(ExclusiveWord(new_word()), new_queue(), Guarded::new(0)))
    }

    fn lock(&self) {
        if !self.0.try_take() {
            ready(self.1.wait(ONE, || self.0.take_or_contend().then_some(())));
        }
    }

    /// Counts once, as the owner, and gives it back.
    fn count(&self) {
        // SAFETY: checked by loom.
        self.2.with_mut(|n| unsafe { *n += 1 });
        if self.0.give_back() {
            self.1.wake(1);
        }
    }

    fn counted(&self) -> u32 {
        // SAFETY: the other threads have ended.
        self.2.with(|n| unsafe { *n })
    }
}

fn ready(outcome: Outcome<()>) {
    assert_eq!(outcome, Outcome::Ready(()));
}

#[test]
fn a_mutex_admits_one_at_a_time_and_forgets_nobody() {
    model(3, || {
        let lock = Lock::new();
        let theirs = lock.clone();
        let other = threads::spawn(move || {
            theirs.lock();
            theirs.count();
        });
        lock.lock();
        lock.count();
        other.join().unwrap();
        assert_eq!(lock.counted(), 2);
    });
}

/// The owner releases while a waiter is on its way into the queue, and a third is faster than the
/// waiter: what once lost a wake-up (the waiter was taken out before it had announced its sleep).
#[test]
fn a_waiter_that_a_third_overtakes_is_not_forgotten() {
    model(2, || {
        let lock = Lock::new();
        // An owner that had waited itself: its release wakes, whoever has come meanwhile.
        assert!(lock.0.take_or_contend());
        let (waiter, waker, third) = (lock.clone(), lock.clone(), lock.clone());
        let waiter = threads::spawn(move || {
            waiter.lock();
            waiter.count();
        });
        let waker = threads::spawn(move || waker.count());
        let third = threads::spawn(move || {
            third.lock();
            third.count();
        });
        waiter.join().unwrap();
        waker.join().unwrap();
        third.join().unwrap();
        assert_eq!(lock.counted(), 3);
    });
}

/// A wake-up that is meant for one reaches a waiter that leaves because of a signal: it goes on to
/// the other one.
#[test]
fn a_waiter_that_a_signal_ends_passes_the_wake_up_on() {
    model(2, || {
        let lock = Lock::new();
        lock.lock();
        let (leaves, waits) = (lock.clone(), lock.clone());
        let leaver = threads::spawn(move || {
            thread::signal_me();
            let manner = Manner { how: Sleep::Interruptible, ..ONE };
            match leaves.1.wait(manner, || leaves.0.take_or_contend().then_some(())) {
                Outcome::Ready(()) => leaves.count(),
                Outcome::Interrupted => {}
                Outcome::TimedOut => unreachable!(),
            }
        });
        let waiter = threads::spawn(move || {
            waits.lock();
            waits.count();
        });
        lock.count();
        leaver.join().unwrap();
        waiter.join().unwrap();
        assert!(lock.counted() >= 2);
    });
}

/// Two items, two exclusive waiters, one wake-up for each: both get one. A waiter that finds the
/// first item by itself may be taken out of the queue for the second, which it then passes on.
#[test]
fn each_of_two_exclusive_waiters_gets_its_own_wake_up() {
    model(2, || {
        let shared = Arc::new((new_queue(), new_word()));
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                threads::spawn(move || {
                    ready(shared.0.wait(ONE, || {
                        shared.1.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).ok().map(drop)
                    }));
                })
            })
            .collect();
        for _ in 0..2 {
            shared.1.fetch_add(1, Ordering::Relaxed);
            shared.0.wake(1);
        }
        takers.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn an_rw_lock_keeps_writers_alone_and_forgets_nobody() {
    struct Lock(SharedWord, ThreadQueue, Guarded);
    // SAFETY: this is what the test shows.
    unsafe impl Sync for Lock {}
    // SAFETY: as above.
    unsafe impl Send for Lock {}
    model(2, || {
        let lock = Arc::new(Lock(SharedWord(new_word()), new_queue(), Guarded::new(0)));
        let wake = |lock: &Lock| {
            lock.0.forget_waiters();
            lock.1.wake(usize::MAX);
        };
        let theirs = lock.clone();
        let writer = threads::spawn(move || {
            if !theirs.0.try_write() {
                ready(theirs.1.wait(ONE, || theirs.0.write_or_contend().then_some(())));
            }
            // SAFETY: checked by loom.
            theirs.2.with_mut(|n| unsafe { *n += 1 });
            if theirs.0.end_write() {
                wake(&theirs);
            }
        });
        if !lock.0.try_read() {
            let mut first = true;
            ready(lock.1.wait(ALL, || {
                let woken = !core::mem::take(&mut first);
                lock.0.read_or_contend(woken).then_some(())
            }));
        }
        // SAFETY: checked by loom.
        lock.2.with(|n| assert!(unsafe { *n } <= 1));
        if lock.0.end_read() {
            wake(&lock);
        }
        writer.join().unwrap();
    });
}
