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

/// Physical memory for the tests.
#[cfg(test)]
fn memory_for_tests() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let (start, size) = (abi::PhysAddr(1 << 30), 16 << 20);
        arch::sim::ensure_phys_arena(start, size);
        let bank = frames::PhysRange::new(start, start.add(size as u64));
        frames::init(&[bank], &[]).unwrap();
    });
}
