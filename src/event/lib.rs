#![cfg_attr(not(test), no_std)]
//! Event files: descriptors that stand for something to wait for. Present: `eventfd(2)`,
//! `timerfd_create(2)`, `epoll(7)`, `inotify(7)`.
//!
//! # What it answers for
//! `eventfd.rs`: a counter. `timerfd.rs`: a timer on a clock. `epoll/`: a set of watched files and
//! the list of those that became ready. `inotify/`: what happens to watched files.
//!
//! # Invariants
//! - A wait for n files costs nothing per file: a file's wait queue calls back, the callback puts
//!   the file on the ready list, and only that list is looked at.
//! - Who watches a file does not keep it open; the last close ends the watch.
//! - Files that watch each other are at most [`epoll::MAX_NESTING`] deep and never in a circle, so
//!   that wake-ups and polls through them end.
//!
//! # Lock order
//! `epoll` (sleeping; an outer epoll before the ones it watches, by subclass), then spin:
//! `epoll_items`, `vfs.quota`, then inside of the callbacks of a wait queue `epoll_ready`.
//! `timerfd` and `epoll_ready` are taken in interrupts.

pub mod epoll;
pub mod eventfd;
pub mod inotify;
pub mod timerfd;

use abi::Result;

/// Registers the files of /proc/sys/fs.
pub fn init() -> Result {
    epoll::init()?;
    inotify::init()
}
