#![no_std]
//! The vocabulary of Linnet: Linux's numbers and structures (from `linux-raw-sys`), error numbers,
//! and the address, time and CPU types that every crate border uses instead of bare integers.
//!
//! Nothing here depends on the machine or allocates.

mod addr;
mod cpu;
mod dev;
mod errno;
mod time;

pub use addr::{PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, USER_END, UserAddr, VirtAddr, page_align_up};
pub use cpu::{CpuId, CpuMask, MAX_CPUS};
pub use dev::{DevNum, Mode};
pub use errno::{Errno, Result};
pub use time::Nanos;

/// Linux's own numbers and structures, as generated from its headers.
pub use linux_raw_sys as raw;

/// A user id in the initial user namespace.
pub type Uid = u32;
/// A group id in the initial user namespace.
pub type Gid = u32;

/// Linux's number of signals; signal numbers run from 1 to this, inclusive (`signal(7)`).
pub const NSIG: usize = 64;

/// The release that `uname` reports: Debian 12's version is the reference for behaviour.
pub const RELEASE: &str = concat!("6.1.0-linnet-", env!("CARGO_PKG_VERSION"));
/// What `uname -v` says.
pub const VERSION: &str = "#1 SMP PREEMPT Linnet";
