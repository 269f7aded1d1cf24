#![cfg_attr(not(test), no_std)]
//! How CPUs and threads share data: atomics, spin and sequence locks, RCU, per-CPU data, and the
//! checker that watches the order of locks.
//!
//! Sleeping locks are in `sched`; docs/locking.md has the order of all locks and the rules of
//! contexts. This is one of the crates that may use `unsafe`. What its safe interface relies on:
//! - a lock's data is reached only through a guard, or through `&mut` of the lock;
//! - guards are not `Send`: the preempt count and the interrupt state that they restore belong to
//!   the CPU or thread that made them;
//! - an RCU callback's node belongs to the callback from `rcu::call` until it runs.

pub mod atomic;
mod class;
mod guard;
pub mod lockdep;
mod percpu;
mod qlock;
pub mod rcu;
pub mod rwlock;
pub mod seq;
mod setting;
pub mod spin;

/// What the models in tests/loom.rs need of the insides.
#[cfg(loom)]
pub mod internals {
    pub use crate::{
        qlock::{NodePool, QueueLock},
        rcu::Rcu,
    };
}

pub use crate::{
    class::LockClass,
    guard::{IrqGuard, PreemptGuard},
    lockdep::{LockdepState, might_sleep},
    percpu::{CachePadded, PerCpu, PerCpuCounter, Pinned},
    rwlock::RwSpinLock,
    seq::{SeqCount, SeqLock},
    setting::Number,
    spin::{RawSpinLock, SpinGuard, SpinIrqGuard, SpinLock},
};
pub use ::spin::{LazyLock as Lazy, Once};
pub use abi::MAX_CPUS;
