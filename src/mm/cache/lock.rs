//! The page lock: one bit in the frame, waiters in hashed queues.
//!
//! It is held while a page is filled, written back, or taken out of its cache, and while a fault
//! maps a page of a cache: so a page that a fault maps is still in the file when it is mapped.
//! Lock order: area lock, page lock, reverse map (`mm.rmap`), page tables. May sleep.

use frames::{Frame, FrameFlags};
use sched::{Outcome, Sleep, WaitQueue};

const QUEUES: usize = 64;
static WAITERS: [WaitQueue; QUEUES] = [const { WaitQueue::new() }; QUEUES];

/// The page lock of one frame, held.
pub(crate) struct PageLock<'a>(&'a Frame);

fn queue(frame: &Frame) -> Option<&'static WaitQueue> {
    // Fibonacci hashing spreads neighbouring frames (Knuth, TAOCP 6.4).
    let hash = frame.pfn().0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
    WAITERS.get(hash as usize % QUEUES)
}

/// Takes the lock if it is free.
pub(crate) fn try_lock(frame: &Frame) -> Option<PageLock<'_>> {
    if frame.test_and_set(FrameFlags::LOCKED) { None } else { Some(PageLock(frame)) }
}

/// Waits for the lock.
pub(crate) fn lock(frame: &Frame) -> PageLock<'_> {
    loop {
        if let Some(held) = try_lock(frame) {
            return held;
        }
        let Some(queue) = queue(frame) else { continue };
        match queue.wait_until(Sleep::Uninterruptible, None, || {
            // Announced before the bit is tried: pairs with the release in `drop`.
            frame.set(FrameFlags::WAITERS);
            (!frame.test_and_set(FrameFlags::LOCKED)).then_some(())
        }) {
            Outcome::Ready(()) => return PageLock(frame),
            _ => continue,
        }
    }
}

impl Drop for PageLock<'_> {
    fn drop(&mut self) {
        self.0.clear(FrameFlags::LOCKED);
        // One word: a waiter that lost against the lock had announced itself before, so it shows.
        if self.0.test(FrameFlags::WAITERS)
            && self.0.test_and_clear(FrameFlags::WAITERS)
            && let Some(queue) = queue(self.0)
        {
            queue.wake_all();
        }
    }
}
