//! Preemption of kernel code: a count in the current thread.
//!
//! The count is changed by the running thread and by interrupts on the same CPU, which restore
//! it before they return: plain loads and stores are enough.

use crate::thread::{self, NEED_RESCHED};
use core::sync::atomic::{Ordering, compiler_fence};

/// What an interrupt adds to the count.
pub const HARDIRQ_UNIT: u32 = 1 << 16;

/// Turns preemption off until the matching `enable`.
#[inline]
pub fn disable() {
    let count = &thread::current().preempt_count;
    count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    compiler_fence(Ordering::Acquire);
}

/// Ends one `disable`; the last one reschedules if that was asked for meanwhile and interrupts
/// are on.
#[inline]
pub fn enable() {
    compiler_fence(Ordering::Release);
    let head = thread::current();
    let count = head.preempt_count.load(Ordering::Relaxed).wrapping_sub(1);
    head.preempt_count.store(count, Ordering::Relaxed);
    if count == 0 && head.flags.load(Ordering::Relaxed) & NEED_RESCHED != 0 {
        reschedule();
    }
}

#[cold]
#[inline(never)]
fn reschedule() {
    if crate::irq::enabled() {
        crate::kernel().preempt_schedule();
    }
}

/// Ends one `disable` without rescheduling.
#[inline]
pub fn enable_no_resched() {
    compiler_fence(Ordering::Release);
    let count = &thread::current().preempt_count;
    count.store(count.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
}

/// The count of the current thread: zero when it may be preempted.
#[inline]
pub fn count() -> u32 {
    thread::current().preempt_count.load(Ordering::Relaxed)
}

/// Whether an interrupt is being handled on this CPU.
#[inline]
pub fn in_interrupt() -> bool {
    count() >= HARDIRQ_UNIT
}

pub(crate) fn enter_interrupt() {
    let count = &thread::current().preempt_count;
    count.store(count.load(Ordering::Relaxed).wrapping_add(HARDIRQ_UNIT), Ordering::Relaxed);
    compiler_fence(Ordering::Acquire);
}

pub(crate) fn leave_interrupt() {
    compiler_fence(Ordering::Release);
    let count = &thread::current().preempt_count;
    count.store(count.load(Ordering::Relaxed).wrapping_sub(HARDIRQ_UNIT), Ordering::Relaxed);
}
