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

/// What a fatal report adds, and how it reaches the other CPUs.
static HOOKS: arch::panic::Hooks = arch::panic::Hooks {
    write: |text| arch::early_console::write_bytes(text.as_bytes()),
    who: |out| {
        let name = sched::current().name();
        let text = name.split(|b| *b == 0).next().and_then(|n| core::str::from_utf8(n).ok());
        let _ = writeln!(out, "CPU: {} Comm: {}", arch::cpu::id().0, text.unwrap_or("?"));
    },
    interrupt_others: || {
        let others = arch::cpu::online().without(arch::cpu::id());
        device::irq::send(others, device::irq::Ipi::Stop);
    },
    more: || {},
    finish: || {},
};

/// From here on a panic stops the other CPUs by an interrupt.
pub(crate) fn panic_hooks() {
    arch::panic::set_hooks(&HOOKS);
}
