#![cfg_attr(not(test), no_std)]
//! Communication between processes. Present: pipes and FIFOs (`pipe(7)`, `fifo(7)`).
//!
//! `ring.rs` holds the bytes; `pipe.rs` who waits for them; `fifo.rs` how the two sides of a named
//! pipe meet; `splice.rs` how bytes go between pipes and files by the page; `limits.rs` how large
//! pipes may be.
//!
//! A write to a pipe without readers returns EPIPE; the process layer sends SIGPIPE.

mod fifo;
mod limits;
mod pipe;
mod ring;
mod splice;

pub use pipe::{Pipe, pipe_pair, set_pipe_size};
pub use splice::{is_pipe, sendfile, splice, tee, vmsplice_in, vmsplice_out};

/// Registers who opens FIFOs, and the files of /proc/sys/fs.
pub fn init() -> abi::Result {
    fifo::init();
    limits::init()
}

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
