//! The end: on the host, of the test.

use core::fmt;

/// What the rooms above add to a report.
pub struct Hooks {
    /// Where the text goes.
    pub write: fn(&str),
    /// Says which thread ran: a line of its own.
    pub who: fn(&mut dyn fmt::Write),
    /// Interrupts the other CPUs, so that they notice and stop.
    pub interrupt_others: fn(),
    /// More to show, after the backtrace: the last log lines.
    pub more: fn(),
    /// What happens at the end.
    pub finish: fn(),
}

/// Nothing is reported on the host.
pub fn set_hooks(_: &'static Hooks) {}

/// Whether a report is being made.
pub fn is_stopping() -> bool {
    false
}

/// Ends the test.
#[allow(clippy::panic)] // that is its purpose
pub fn stop(why: fmt::Arguments<'_>) -> ! {
    panic!("{why}")
}
