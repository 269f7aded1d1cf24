#![cfg_attr(not(test), no_std)]
//! What the kernel is told at boot: the command line, and which memory is there and taken.
//!
//! Runs on the boot CPU before there is an allocator: plain iterators and fixed arrays only.

pub mod cmdline;
pub mod memory;
