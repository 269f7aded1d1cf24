//! The thread that runs on this CPU.

#[path = "../common/thread_head.rs"]
mod thread_head;

pub use thread_head::*;

pub(crate) use crate::thread_switch::Context;

/// Makes `head` the thread that runs on this CPU.
pub fn set_current(head: &'static ThreadHead) {
    crate::sim::set_current(head);
}

/// The simulated register is the memory.
pub(crate) fn read_tls_register() -> u64 {
    current().tpidr_el0.load(core::sync::atomic::Ordering::Relaxed)
}

pub(crate) fn write_tls_register(value: u64) {
    current().tpidr_el0.store(value, core::sync::atomic::Ordering::Relaxed);
}

/// The thread that runs here. A host thread that is none yet becomes one.
pub fn current() -> &'static ThreadHead {
    crate::sim::current()
}
