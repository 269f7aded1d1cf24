#![cfg_attr(not(test), no_std)]
//! Communication between processes. Present: pipes and FIFOs (`pipe(7)`, `fifo(7)`).
//!
//! `ring.rs` holds the bytes; `pipe.rs` who waits for them; `fifo.rs` how the two sides of a named
//! pipe meet.
//!
//! A write to a pipe without readers returns EPIPE; the process layer sends SIGPIPE.

mod fifo;
mod pipe;
mod ring;

pub use fifo::init;
pub use pipe::{PIPE_MAX_DEFAULT, Pipe, pipe_pair};
