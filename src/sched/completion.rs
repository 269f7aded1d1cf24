//! Something that happens once, or a number of times, and those who wait for it.

use crate::wait::{Outcome, Sleep, WaitQueue};
use abi::Nanos;
use sync::atomic::{AtomicU32, Ordering};

/// Everybody may pass from now on.
const DONE_FOR_ALL: u32 = u32::MAX;

/// Each `complete` lets one waiter pass, `complete_all` all, now and later.
pub struct Completion {
    done: AtomicU32,
    queue: WaitQueue,
}

impl Completion {
    /// Nothing has happened yet.
    pub const fn new() -> Self {
        Self { done: AtomicU32::new(0), queue: WaitQueue::new() }
    }
}

impl Completion {
    /// Lets one waiter pass, or the next that comes. Any context.
    pub fn complete(&self) {
        let _ = self.done.fetch_update(Ordering::Release, Ordering::Relaxed, |n| Some(n.saturating_add(1)));
        self.queue.wake_one();
    }

    /// Lets everybody pass, now and later. Any context.
    pub fn complete_all(&self) {
        self.done.store(DONE_FOR_ALL, Ordering::Release);
        self.queue.wake_all();
    }

    /// Waits to pass.
    #[track_caller]
    pub fn wait(&self) {
        while self.wait_until(Sleep::Uninterruptible, None) != Outcome::Ready(()) {}
    }

    /// Waits to pass, or for what else ends the sleep.
    #[track_caller]
    pub fn wait_until(&self, how: Sleep, deadline: Option<Nanos>) -> Outcome<()> {
        self.queue.wait_exclusive(how, deadline, || self.try_wait().then_some(()))
    }

    /// Passes if that needs no wait.
    pub fn try_wait(&self) -> bool {
        self.done
            .fetch_update(Ordering::Acquire, Ordering::Acquire, |n| match n {
                0 => None,
                DONE_FOR_ALL => Some(n),
                n => Some(n - 1),
            })
            .is_ok()
    }

    /// Whether a waiter would pass at this moment.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire) != 0
    }

    /// Takes back what has happened and nobody passed for.
    pub fn reset(&self) {
        self.done.store(0, Ordering::Relaxed);
    }
}

impl Default for Completion {
    fn default() -> Self {
        Self::new()
    }
}
