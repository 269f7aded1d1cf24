#![cfg_attr(not(test), no_std)]
//! The thread switch, and the few other things of the scheduler that need `unsafe`.
//!
//! The right to run a thread is a value: a [`Runnable`], of which each thread has at most one and
//! a running thread has none. [`switch_to`] consumes the one of the next thread; the one of the
//! thread that was left comes out on the other side, in the hands of the thread that runs then.
//! So no thread can be run by two CPUs, none can be run while its registers are still being
//! saved, and a stack is freed only by somebody else: `sched` cannot get it wrong.
//!
//! # Invariants
//! 1. Every `ThreadOf` of the kernel has the same `T` (`create` refuses a second one), and from
//!    [`adopt`] on the current thread head of every CPU that runs the scheduler is the first field
//!    of one: that is what [`current`] relies on.
//! 2. A thread that runs is kept alive by one strong count that its CPU owns: `switch_to` takes it
//!    out of the `Runnable` and `receive` puts it back.
//! 3. A parcel lies on the stack of the thread that was left. That thread cannot run, and its
//!    stack cannot be freed, before the parcel is read, because the right to do either is in it.
//! 4. Interrupts are off from the storing of the parcel's address until it is read, so that the
//!    per-CPU place for it has one user at a time.
//! 5. A kernel stack is freed without unwinding it. No room lends references into a kernel stack
//!    to another thread beyond a call that returns, so nothing points there.
//!
//! The modules: [`slot`] hands an owned value to whoever comes first; [`cell`] guards data by a
//! word that is only tried; [`words`] has
//! the words' protocols.

pub mod cell;
pub mod slot;
#[cfg(test)]
mod slot_tests;
mod thread;
pub mod words;

pub use cell::{ExclusiveCell, ExclusiveGuard, SharedCell};
pub use slot::BoxSlot;
pub use thread::{
    Current, Finished, Kind, Last, Runnable, RunnableSlot, ThreadOf, adopt, create_kernel, create_user, current, enter_user, switch_away,
    switch_to,
};
