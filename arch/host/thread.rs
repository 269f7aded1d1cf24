//! The thread that runs on this CPU.

#[path = "../common/thread_head.rs"]
mod thread_head;

pub use thread_head::*;

pub(crate) use crate::thread_switch::Context;

/// The thread that runs here. A host thread that is none yet becomes one.
pub fn current() -> &'static ThreadHead {
    crate::sim::current()
}
