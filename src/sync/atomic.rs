//! Where atomics come from: `core` in the kernel and in ordinary tests, `loom` under `--cfg loom`.
//!
//! Every crate takes its atomics, fences and spin hints from here, so that one switch puts all
//! lock-free code under the model checker.

#[cfg(not(loom))]
pub use arch::cpu::relax as spin_loop;
#[cfg(not(loom))]
pub use core::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicIsize, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    Ordering, compiler_fence, fence,
};
