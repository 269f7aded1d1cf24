//! Tracing: debuggers look into other tasks and control them (`ptrace(2)`).
//!
//! - [`access`]: who may.

pub mod access;
