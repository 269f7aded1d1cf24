//! The virtual counter, which only tests move, and the timer of this CPU.

use crate::sim::with_cpu;
use std::sync::atomic::Ordering;

/// The counter now.
pub fn counter() -> u64 {
    with_cpu(|cpu| cpu.machine.counter.load(Ordering::SeqCst))
}

/// Ticks in a second: one per nanosecond.
pub fn frequency() -> u64 {
    1_000_000_000
}

/// Sets this CPU's one-shot timer.
pub fn set_deadline(counter: u64) {
    with_cpu(|cpu| cpu.deadline = Some(counter));
}

/// Stops this CPU's timer.
pub fn clear_deadline() {
    with_cpu(|cpu| cpu.deadline = None);
}
