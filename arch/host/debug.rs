//! Hardware breakpoints: the host has none to offer.

#[path = "../common/debug_types.rs"]
mod debug_types;

pub use debug_types::*;

/// What the simulated CPU has.
pub fn info() -> DebugInfo {
    DebugInfo { version: 6, breakpoints: 6, watchpoints: 4 }
}

/// Nothing to load into.
pub fn load(_: &DebugRegs) {
    crate::thread::current().clear_flag(crate::thread::DEBUG_LOAD);
}
