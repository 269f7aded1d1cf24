//! Whether locks are taken in a safe order: the checker of debug builds.
//!
//! On every acquisition it checks
//! - the order: the new lock's rank is above that of every lock held in the same context, or it
//!   is of the same class with a higher subclass;
//! - interrupts: a class that is taken in hard interrupt context is never held with interrupts on;
//! - sleeping: a sleeping lock is taken, and [`might_sleep`] called, only with no spin lock held,
//!   preemption and interrupts on.
//!
//! Since classes have fixed ranks, no graph of seen orders is needed: a wrong order is found the
//! first time it happens, on one CPU. A violation is logged once for each pair of classes, with a
//! backtrace, and counted.
//!
//! Held locks are kept per CPU. At a context switch the sleeping locks move into the thread's
//! [`LockdepState`] and back; a spin lock that is held then (the run queue's) stays with the CPU,
//! as the next thread releases it.
//!
//! Sleeping locks (in `sched`) register through [`acquire`] and [`release`]; the spin locks of
//! this crate do so by themselves. In release builds, and under loom, all of this is empty.

use crate::LockClass;
use core::panic::Location;

#[cfg(all(debug_assertions, not(loom)))]
#[path = "lockdep_checker.rs"]
mod checker;
#[cfg(not(all(debug_assertions, not(loom))))]
#[path = "lockdep_off.rs"]
mod checker;

#[cfg(all(debug_assertions, not(loom)))]
pub(crate) use checker::Usage;
pub use checker::{LockdepState, violations};

/// What a lock keeps of its class: nothing in release builds.
#[derive(Clone, Copy)]
pub struct Class {
    #[cfg(all(debug_assertions, not(loom)))]
    class: &'static LockClass,
}

impl Class {
    /// The class as locks keep it.
    #[inline]
    #[cfg_attr(not(all(debug_assertions, not(loom))), allow(unused_variables))]
    pub const fn new(class: &'static LockClass) -> Self {
        Self {
            #[cfg(all(debug_assertions, not(loom)))]
            class,
        }
    }
}

/// The caller's place.
pub type Place = &'static Location<'static>;

/// How a lock is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A sleeping lock.
    Sleeping,
    /// A spin lock, or a spinning reader-writer lock held alone.
    Spin,
    /// A spinning reader-writer lock that is shared.
    SpinShared,
}

/// The token of a lock that is held; the lock's guard keeps it for the release.
pub struct Held {
    #[cfg_attr(not(all(debug_assertions, not(loom))), allow(dead_code))]
    class: Class,
}

impl Held {
    /// A token for a lock whose guard was leaked.
    #[inline]
    pub const fn of(class: Class) -> Self {
        Self { class }
    }
}

/// Notes that a sleeping lock is about to be taken, and checks the order and that the caller may
/// sleep. Readers of a sleeping reader-writer lock register in the same way: they too may wait.
#[inline]
pub fn acquire(class: Class, subclass: u8, at: Place) -> Held {
    checker::check_sleep(at);
    checker::acquire(class, subclass, Kind::Sleeping, false, at);
    Held { class }
}

/// Notes that a sleeping lock was taken by a try that cannot wait, so in no wrong order.
#[inline]
pub fn acquire_try(class: Class, at: Place) -> Held {
    checker::acquire(class, 0, Kind::Sleeping, true, at);
    Held { class }
}

/// Notes that a sleeping lock is released.
#[inline]
pub fn release(held: &Held) {
    checker::release(held.class);
}

#[inline]
pub(crate) fn acquire_spin(class: Class, subclass: u8, at: Place) -> Held {
    checker::acquire(class, subclass, Kind::Spin, false, at);
    Held { class }
}

#[inline]
pub(crate) fn acquire_shared(class: Class, at: Place) -> Held {
    checker::acquire(class, 0, Kind::SpinShared, false, at);
    Held { class }
}

#[inline]
pub(crate) fn acquire_spin_try(class: Class, at: Place) -> Held {
    checker::acquire(class, 0, Kind::Spin, true, at);
    Held { class }
}

#[inline]
pub(crate) fn release_spin(held: &Held) {
    checker::release(held.class);
}

/// At a context switch on this CPU, interrupts off: saves the sleeping locks that the previous
/// thread holds and brings in those of the next. At most one spin lock may be held.
#[inline]
pub fn switch(prev: &LockdepState, next: &LockdepState) {
    checker::switch(prev, next);
}

/// Reports locks that the current thread still holds where it may hold none: at the return to
/// user space, at a thread's exit. `place` names it in the report.
#[inline]
pub fn assert_none_held(place: &'static str) {
    checker::assert_none_held(place);
}

/// Begins the checks for sleeping while atomic. Before (on the target) the boot CPU runs with
/// interrupts off and nobody can sleep; the scheduler calls this when it starts.
#[inline]
pub fn start_sleep_checks() {
    checker::start_sleep_checks();
}

/// Says that the caller may sleep here: reports spin locks held, preemption off, interrupts off.
#[inline]
#[track_caller]
pub fn might_sleep() {
    checker::check_sleep(Location::caller());
}
