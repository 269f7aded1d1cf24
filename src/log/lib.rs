#![cfg_attr(not(test), no_std)]
//! The kernel log: a ring of records that any context can add to, and the consoles that show it.
//!
//! The macros of the `log` crate end here ([`init`] makes klog its backend); [`print`] takes
//! Linux's eight levels. A record is first put into the ring ([`ring`]), which never waits; then
//! whoever gets the console turn without waiting prints what the consoles have not shown yet
//! ([`console`]). [`emergency_print`] bypasses both.
//!
//! Sources: syslog(2), dmesg(1), proc(5) on /proc/sys/kernel/printk, and Linux's documented
//! interface of /dev/kmsg (Documentation/ABI/testing/dev-kmsg).

#[path = "../sync/atomic.rs"]
#[allow(dead_code, unused_imports)] // one file for all crates; this one needs few of its names
mod atomic;
pub mod console;
pub mod format;
mod level;
pub mod ring;
pub mod syslog;

pub use console::{
    console_level, emergency_print, flush, register_console, set_console_level, set_console_sink, set_early_console,
    set_emergency_sink, unregister_early_console,
};
pub use format::{LINE_MAX, LineBuf};
pub use level::{Facility, Level};
pub use ring::{Reader, Record, ReadError};

#[cfg(loom)]
pub use atomic::model;

use core::fmt;
use ring::Ring;
use spin::Once;

/// Slots of the kernel's ring: 2048 × 128 bytes = 256 KiB.
const SLOTS: usize = 2048;

static RING: Ring<SLOTS> = Ring::new();
static CLOCK: Once<fn() -> u64> = Once::new();

/// Makes klog the backend of the `log` crate's macros. Later calls change nothing.
pub fn init() {
    if log::set_logger(&BACKEND).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}

/// Sets where time stamps come from: nanoseconds since boot. Before, records carry zero.
pub fn set_clock(clock: fn() -> u64) {
    CLOCK.call_once(|| clock);
}

/// The log's own ring.
pub fn log_ring() -> &'static Ring<SLOTS> {
    &RING
}

/// Logs a message of the kernel. Any context, panics included; never waits.
pub fn print(level: Level, message: fmt::Arguments<'_>) {
    let mut line = LineBuf::<{ format::LINE_MAX }>::new();
    // Formatting into a buffer fails only when a Display implementation does: keep what came.
    let _ = fmt::write(&mut line, message);
    store(level, Facility::Kernel, line.as_bytes());
}

/// Logs a message that came from a program through /dev/kmsg: text without its `<N>` prefix.
pub fn write_user(level: Level, facility: Facility, text: &[u8]) {
    store(level, facility, text);
}

fn store(level: Level, facility: Facility, text: &[u8]) {
    let now = CLOCK.get().map_or(0, |clock| clock());
    // A writer that is switched out in the middle would hold its slots for too long.
    arch::preempt::disable();
    RING.push(level, facility, now, text);
    arch::preempt::enable();
    console::flush();
}

struct Backend;

static BACKEND: Backend = Backend;

impl log::Log for Backend {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        print(Level::from(record.level()), *record.args());
    }

    fn flush(&self) {
        console::flush();
    }
}
