//! Kernel threads with an owner, who starts, parks and stops them (kthread_create, kthread_park and
//! kthread_stop of Linux). What such a thread runs looks at its [`Control`] where it may pause.

use crate::{
    kthread,
    thread::{self, Thread},
    wait::{Sleep, WaitQueue},
};
use abi::{Errno, Result};
use kalloc::KArc;
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU32, Ordering},
};

static OUTCOME: LockClass = LockClass::new("worker_outcome", 1704);

/// The owner wants its end.
const STOP: u32 = 1;
/// The owner wants it to pause.
const PARK: u32 = 2;
/// It pauses.
const PARKED: u32 = 4;
/// It has ended.
const ENDED: u32 = 8;

/// What the thread sees of its owner's wishes.
pub struct Control {
    state: AtomicU32,
    /// Woken at every change of `state`, in both directions.
    changed: WaitQueue,
    outcome: SpinLock<Result>,
}

impl Control {
    fn has(&self, bits: u32) -> bool {
        self.state.load(Ordering::Acquire) & bits != 0
    }

    fn set(&self, bits: u32) {
        self.state.fetch_or(bits, Ordering::AcqRel);
        self.changed.wake_all();
    }

    fn clear(&self, bits: u32) {
        self.state.fetch_and(!bits, Ordering::AcqRel);
        self.changed.wake_all();
    }

    /// Whether the thread is to return from what it runs.
    pub fn should_stop(&self) -> bool {
        self.has(STOP)
    }

    /// Whether the thread is to call [`park_if_asked`](Self::park_if_asked).
    pub fn should_park(&self) -> bool {
        self.has(PARK)
    }

    /// Pauses while the owner wants that. May sleep.
    pub fn park_if_asked(&self) {
        while self.should_park() {
            self.set(PARKED);
            let _ = self.changed.wait_until(Sleep::Idle, None, || (!self.should_park()).then_some(()));
            self.clear(PARKED);
        }
    }

    /// Sleeps until there is work, or until the owner wants something. The owner calls
    /// [`Worker::wake`] after it has made work.
    pub fn idle_until(&self, mut work: impl FnMut() -> bool) {
        let _ = self.changed.wait_until(Sleep::Idle, None, || (work() || self.has(STOP | PARK)).then_some(()));
    }
}

/// A kernel thread with an owner. One that is dropped without [`stop`](Self::stop) runs on by itself,
/// or, if it was never started, never.
pub struct Worker {
    thread: KArc<Thread>,
    control: KArc<Control>,
}

impl Worker {
    /// Makes a thread that will run `f` once it is started. May sleep. Fails as
    /// [`kthread::spawn`] does.
    pub fn create(name: &str, f: impl FnOnce(&Control) -> Result + Send + 'static) -> Result<Self> {
        let control = KArc::try_new(Control {
            state: AtomicU32::new(0),
            changed: WaitQueue::new(),
            outcome: SpinLock::new(Err(Errno::EINTR), &OUTCOME),
        })?;
        let its = control.clone();
        let thread = kthread::create(name, move || {
            its.park_if_asked();
            if !its.should_stop() {
                *its.outcome.lock() = f(&its);
            }
            its.set(ENDED);
        })?;
        Ok(Self { thread, control })
    }

    /// The thread.
    pub fn thread(&self) -> &KArc<Thread> {
        &self.thread
    }

    /// Lets it run, the first time; later calls do nothing.
    pub fn start(&self) {
        thread::start(&self.thread);
    }

    /// There may be work for it. Any context.
    pub fn wake(&self) {
        self.control.changed.wake_all();
    }

    /// Pauses it, and returns when it does. ENOSYS, as on Linux, if it has ended. May sleep.
    pub fn park(&self) -> Result {
        self.control.set(PARK);
        self.start();
        let _ = self.control.changed.wait_until(Sleep::Uninterruptible, None, || self.control.has(PARKED | ENDED).then_some(()));
        if self.control.has(ENDED) { Err(Errno::ENOSYS) } else { Ok(()) }
    }

    /// Lets it go on.
    pub fn unpark(&self) {
        self.control.clear(PARK);
    }

    /// Ends it: it sees [`Control::should_stop`], and this returns what it returned, or EINTR if it
    /// was not started until now, and then does not run. May sleep.
    pub fn stop(self) -> Result {
        self.control.set(STOP);
        self.control.clear(PARK);
        self.start();
        let _ = self.control.changed.wait_until(Sleep::Uninterruptible, None, || self.control.has(ENDED).then_some(()));
        *self.control.outcome.lock()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Nobody can start it any more.
        thread::discard(&self.thread);
    }
}
