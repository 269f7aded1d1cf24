//! The sleeping mutex: one owner at a time, who may sleep; the others sleep until it is theirs.
//!
//! Taking and releasing a free one is one atomic exchange each. A release with waiters wakes the
//! one that has waited longest; a newcomer may be faster, and whoever was woken for nothing waits
//! in front from then on. Registered with the lock-order checker.

use crate::thread_queue::{Manner, Outcome, Sleep, ThreadQueue};
use abi::{Errno, Result};
use core::{
    ops::{Deref, DerefMut},
    panic::Location,
};
use sched_switch::{ExclusiveCell, ExclusiveGuard};
use sync::{LockClass, lockdep};

/// Data for one thread at a time, which may sleep while it has it. Not for interrupt handlers.
pub struct Mutex<T: ?Sized> {
    class: lockdep::Class,
    queue: ThreadQueue,
    cell: ExclusiveCell<T>,
}

impl<T> Mutex<T> {
    /// A free mutex of this class.
    pub const fn new(value: T, class: &'static LockClass) -> Self {
        Self { class: lockdep::Class::new(class), queue: ThreadQueue::new(), cell: ExclusiveCell::new(value) }
    }

    /// The data.
    pub fn into_inner(self) -> T {
        self.cell.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Takes the mutex. May sleep.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = lockdep::acquire(self.class, 0, Location::caller());
        loop {
            // An uninterruptible wait has one outcome.
            if let Outcome::Ready(guard) = self.take(Sleep::Uninterruptible) {
                return MutexGuard { mutex: self, guard: Some(guard), held };
            }
        }
    }

    /// Takes the mutex while another one of its class is held, with a lower subclass.
    #[track_caller]
    pub fn lock_nested(&self, subclass: u8) -> MutexGuard<'_, T> {
        let held = lockdep::acquire(self.class, subclass, Location::caller());
        loop {
            if let Outcome::Ready(guard) = self.take(Sleep::Uninterruptible) {
                return MutexGuard { mutex: self, guard: Some(guard), held };
            }
        }
    }

    /// Takes the mutex if it is free.
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let guard = self.cell.try_take()?;
        let held = lockdep::acquire_try(self.class, Location::caller());
        Some(MutexGuard { mutex: self, guard: Some(guard), held })
    }

    /// Takes the mutex unless a signal comes first: EINTR.
    #[track_caller]
    pub fn lock_interruptible(&self) -> Result<MutexGuard<'_, T>> {
        self.lock_or(Sleep::Interruptible, Location::caller())
    }

    /// Takes the mutex unless a fatal signal comes first: EINTR.
    #[track_caller]
    pub fn lock_killable(&self) -> Result<MutexGuard<'_, T>> {
        self.lock_or(Sleep::Killable, Location::caller())
    }

    fn lock_or(&self, how: Sleep, at: lockdep::Place) -> Result<MutexGuard<'_, T>> {
        let held = lockdep::acquire(self.class, 0, at);
        match self.take(how) {
            Outcome::Ready(guard) => Ok(MutexGuard { mutex: self, guard: Some(guard), held }),
            Outcome::Interrupted | Outcome::TimedOut => {
                lockdep::release(&held);
                Err(Errno::EINTR)
            }
        }
    }

    #[inline]
    fn take(&self, how: Sleep) -> Outcome<ExclusiveGuard<'_, T>> {
        match self.cell.try_take() {
            Some(guard) => Outcome::Ready(guard),
            None => self.take_slowly(how),
        }
    }

    #[cold]
    fn take_slowly(&self, how: Sleep) -> Outcome<ExclusiveGuard<'_, T>> {
        self.queue.wait(Manner { how, deadline: None, exclusive: true }, || self.cell.take_or_contend())
    }

    /// Whether somebody has it at this moment.
    pub fn is_locked(&self) -> bool {
        self.cell.is_held()
    }

    /// The data, when nobody else can have the mutex.
    pub fn get_mut(&mut self) -> &mut T {
        self.cell.get_mut()
    }
}

/// A held [`Mutex`].
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    /// Taken by `drop` alone.
    guard: Option<ExclusiveGuard<'a, T>>,
    held: lockdep::Held,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// The mutex that is held.
    pub fn mutex(&self) -> &'a Mutex<T> {
        self.mutex
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        match &self.guard {
            Some(guard) => guard,
            None => unreachable!(),
        }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.guard {
            Some(guard) => guard,
            None => unreachable!(),
        }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        lockdep::release(&self.held);
        if let Some(guard) = self.guard.take()
            && guard.give_back()
        {
            self.mutex.queue.wake(1);
        }
    }
}
