#![cfg_attr(not(test), no_std)]
//! What time it is, and what happens when: clocks over the CPU's counter, and timers.
//!
//! [`conversion`] turns ticks into nanoseconds, [`timekeeper`] keeps the clocks of
//! clock_gettime(2), [`timer`] runs handlers at a point of the monotonic clock. There is no tick:
//! a CPU on which nothing is armed gets no timer interrupt.
//!
//! Sources: clock_gettime(2), clock_getres(2), settimeofday(2); Arm ARM D11 (generic timer).

pub mod conversion;
mod setting;
pub mod timekeeper;
pub mod timer;

pub use setting::{Setting, forward};
pub use timekeeper::{
    Clock, boottime, clock_set_count, monotonic, monotonic_coarse, realtime, realtime_coarse, set_realtime, set_tai_offset,
    tai_offset,
};
pub use timer::{Timer, TimerHandler, interrupt, next_event};

/// Starts the clocks at zero, and gives the log its time stamps. Called once, by the boot CPU, when
/// the counter's frequency is known.
pub fn init() {
    timekeeper::init(arch::clock::counter(), arch::clock::frequency());
    klog::set_clock(timekeeper::log_clock);
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard};

    /// The clocks are the process's: tests that set them take turns.
    pub(crate) fn turn() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        TURN.lock().unwrap_or_else(|e| e.into_inner())
    }
}
