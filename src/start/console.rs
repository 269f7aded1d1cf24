//! The log's way to the outside: the early console until a driver takes over, and the levels.

use boot::cmdline::Options;

fn early_sink(_level: u8, text: &str) {
    arch::early_console::write_bytes(text.as_bytes());
}

fn emergency(text: &str) {
    arch::early_console::write_bytes(text.as_bytes());
}

/// The log goes to the early console from the first line on.
pub(crate) fn early() {
    klog::init();
    klog::set_emergency_sink(emergency);
    klog::set_early_console(early_sink);
}

/// What the command line says about how much is shown.
pub(crate) fn levels(options: &Options<'_>) {
    klog::set_console_level(options.console_level());
}
