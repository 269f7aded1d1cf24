//! Backtraces: the host's own, when asked for.

/// Prints the call chain of the current thread.
pub fn print_current(out: &mut dyn core::fmt::Write) {
    let _ = writeln!(out, "{}", std::backtrace::Backtrace::capture());
}
