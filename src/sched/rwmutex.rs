//! The sleeping reader-writer lock (Linux's rw_semaphore): many readers or one writer, who may
//! sleep.
//!
//! A writer that waits keeps new readers out. A release with waiters wakes all of them, and a
//! reader that was woken enters before writers that still wait: so both sides advance. Registered
//! with the lock-order checker, readers as well as writers: a reader may wait for a writer.

use crate::thread_queue::{Manner, Outcome, Sleep, ThreadQueue};
use abi::{Errno, Result};
use core::{
    ops::{Deref, DerefMut},
    panic::Location,
};
use sched_switch::{SharedCell, cell};
use sync::{LockClass, lockdep};

/// Data that many threads may read, or one may change, sleeping meanwhile.
pub struct RwMutex<T: ?Sized> {
    class: lockdep::Class,
    queue: ThreadQueue,
    cell: SharedCell<T>,
}

impl<T> RwMutex<T> {
    /// A free lock of this class.
    pub const fn new(value: T, class: &'static LockClass) -> Self {
        Self { class: lockdep::Class::new(class), queue: ThreadQueue::new(), cell: SharedCell::new(value) }
    }

    /// The data.
    pub fn into_inner(self) -> T {
        self.cell.into_inner()
    }
}

impl<T: ?Sized> RwMutex<T> {
    /// Takes a share. May sleep.
    #[inline]
    #[track_caller]
    pub fn read(&self) -> RwReadGuard<'_, T> {
        let held = lockdep::acquire(self.class, 0, Location::caller());
        loop {
            if let Outcome::Ready(guard) = self.take_read(Sleep::Uninterruptible) {
                return RwReadGuard { lock: self, guard: Some(guard), held };
            }
        }
    }

    /// Takes the whole. May sleep.
    #[inline]
    #[track_caller]
    pub fn write(&self) -> RwWriteGuard<'_, T> {
        self.write_nested(0)
    }

    /// Takes the whole while another one of its class is held, with a lower subclass.
    #[track_caller]
    pub fn write_nested(&self, subclass: u8) -> RwWriteGuard<'_, T> {
        let held = lockdep::acquire(self.class, subclass, Location::caller());
        loop {
            if let Outcome::Ready(guard) = self.take_write(Sleep::Uninterruptible) {
                return RwWriteGuard { lock: self, guard: Some(guard), held };
            }
        }
    }

    /// Takes a share unless a fatal signal comes first: EINTR.
    #[track_caller]
    pub fn read_killable(&self) -> Result<RwReadGuard<'_, T>> {
        let held = lockdep::acquire(self.class, 0, Location::caller());
        match self.take_read(Sleep::Killable).ready() {
            Some(guard) => Ok(RwReadGuard { lock: self, guard: Some(guard), held }),
            None => {
                lockdep::release(&held);
                Err(Errno::EINTR)
            }
        }
    }

    /// Takes the whole unless a fatal signal comes first: EINTR.
    #[track_caller]
    pub fn write_killable(&self) -> Result<RwWriteGuard<'_, T>> {
        let held = lockdep::acquire(self.class, 0, Location::caller());
        match self.take_write(Sleep::Killable).ready() {
            Some(guard) => Ok(RwWriteGuard { lock: self, guard: Some(guard), held }),
            None => {
                lockdep::release(&held);
                Err(Errno::EINTR)
            }
        }
    }

    /// Takes a share if no writer has the lock or waits for it.
    #[inline]
    #[track_caller]
    pub fn try_read(&self) -> Option<RwReadGuard<'_, T>> {
        let guard = self.cell.try_read()?;
        let held = lockdep::acquire_try(self.class, Location::caller());
        Some(RwReadGuard { lock: self, guard: Some(guard), held })
    }

    /// Takes the whole if the lock is free.
    #[inline]
    #[track_caller]
    pub fn try_write(&self) -> Option<RwWriteGuard<'_, T>> {
        let guard = self.cell.try_write()?;
        let held = lockdep::acquire_try(self.class, Location::caller());
        Some(RwWriteGuard { lock: self, guard: Some(guard), held })
    }

    #[inline]
    fn take_read(&self, how: Sleep) -> Outcome<cell::ReadGuard<'_, T>> {
        if let Some(guard) = self.cell.try_read() {
            return Outcome::Ready(guard);
        }
        let mut first = true;
        self.queue.wait(Manner { how, deadline: None, exclusive: false }, || {
            let was_woken = !core::mem::take(&mut first);
            self.cell.read_or_contend(was_woken)
        })
    }

    #[inline]
    fn take_write(&self, how: Sleep) -> Outcome<cell::WriteGuard<'_, T>> {
        if let Some(guard) = self.cell.try_write() {
            return Outcome::Ready(guard);
        }
        let outcome = self
            .queue
            .wait(Manner { how, deadline: None, exclusive: false }, || self.cell.write_or_contend());
        if !matches!(outcome, Outcome::Ready(_)) {
            // We kept readers out and will not come: they try again.
            self.wake_waiters();
        }
        outcome
    }

    /// After a release that heard of waiters.
    #[cold]
    fn wake_waiters(&self) {
        // Who waits notes it again if it must wait on.
        self.cell.forget_waiters();
        self.queue.wake(usize::MAX);
    }

    /// Whether a writer has it at this moment.
    pub fn is_written(&self) -> bool {
        self.cell.is_written()
    }

    /// Whether anybody has it at this moment.
    pub fn is_locked(&self) -> bool {
        self.cell.is_held()
    }

    /// The data, when nobody else can have the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.cell.get_mut()
    }
}

/// A share of an [`RwMutex`].
pub struct RwReadGuard<'a, T: ?Sized> {
    lock: &'a RwMutex<T>,
    /// Taken by `drop` alone.
    guard: Option<cell::ReadGuard<'a, T>>,
    held: lockdep::Held,
}

impl<T: ?Sized> Deref for RwReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        match &self.guard {
            Some(guard) => guard,
            None => unreachable!(),
        }
    }
}

impl<T: ?Sized> Drop for RwReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        lockdep::release(&self.held);
        if let Some(guard) = self.guard.take()
            && guard.give_back()
        {
            self.lock.wake_waiters();
        }
    }
}

/// The whole of an [`RwMutex`].
pub struct RwWriteGuard<'a, T: ?Sized> {
    lock: &'a RwMutex<T>,
    /// Taken by `drop` and `downgrade` alone.
    guard: Option<cell::WriteGuard<'a, T>>,
    held: lockdep::Held,
}

impl<'a, T: ?Sized> RwWriteGuard<'a, T> {
    /// Keeps a share: no other writer comes in between.
    #[track_caller]
    pub fn downgrade(mut self) -> RwReadGuard<'a, T> {
        let Some(guard) = self.guard.take() else { unreachable!() };
        let lock = self.lock;
        // This guard's drop releases the writer's place with the checker; the share has its own.
        drop(self);
        let held = lockdep::acquire_try(lock.class, Location::caller());
        let (guard, waiters) = guard.downgrade();
        if waiters {
            lock.wake_waiters();
        }
        RwReadGuard { lock, guard: Some(guard), held }
    }
}

impl<T: ?Sized> Deref for RwWriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        match &self.guard {
            Some(guard) => guard,
            None => unreachable!(),
        }
    }
}

impl<T: ?Sized> DerefMut for RwWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.guard {
            Some(guard) => guard,
            None => unreachable!(),
        }
    }
}

impl<T: ?Sized> Drop for RwWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        lockdep::release(&self.held);
        if let Some(guard) = self.guard.take()
            && guard.give_back()
        {
            self.lock.wake_waiters();
        }
    }
}
