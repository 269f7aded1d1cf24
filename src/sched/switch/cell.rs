//! Data behind a word that is tried, never waited for: the ground on which `sched` builds its
//! sleeping locks. Waiting, fairness and the lock order are the business of `sched`; that two
//! guards never overlap is proved here.

use crate::words::{ExclusiveWord, SharedWord};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
};
use sync::atomic::AtomicU32;

/// Data for one owner at a time.
pub struct ExclusiveCell<T: ?Sized> {
    word: ExclusiveWord,
    data: UnsafeCell<T>,
}

// SAFETY: at most one guard exists, whose maker took the word, so the data moves between threads
// but is never shared.
unsafe impl<T: ?Sized + Send> Sync for ExclusiveCell<T> {}
// SAFETY: owns its data.
unsafe impl<T: ?Sized + Send> Send for ExclusiveCell<T> {}

impl<T> ExclusiveCell<T> {
    /// A free cell.
    pub const fn new(value: T) -> Self {
        Self { word: ExclusiveWord(AtomicU32::new(0)), data: UnsafeCell::new(value) }
    }

    /// The data.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized> ExclusiveCell<T> {
    /// The data, if it is free.
    #[inline]
    pub fn try_take(&self) -> Option<ExclusiveGuard<'_, T>> {
        self.word.try_take().then(|| ExclusiveGuard { cell: self, _not_send: PhantomData })
    }

    /// The data if it is free; otherwise the owner learns, when it gives it back, that somebody
    /// waits.
    #[inline]
    pub fn take_or_contend(&self) -> Option<ExclusiveGuard<'_, T>> {
        self.word.take_or_contend().then(|| ExclusiveGuard { cell: self, _not_send: PhantomData })
    }

    /// Whether somebody has it at this moment.
    pub fn is_held(&self) -> bool {
        self.word.is_held()
    }

    /// The data, when nobody else has access.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }
}

/// The right to the data of an [`ExclusiveCell`]. Dropping it gives it back without telling
/// whether somebody waits; [`give_back`](Self::give_back) tells.
pub struct ExclusiveGuard<'a, T: ?Sized> {
    cell: &'a ExclusiveCell<T>,
    /// A lock is released by the thread that took it.
    _not_send: PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives `&T`.
unsafe impl<T: ?Sized + Sync> Sync for ExclusiveGuard<'_, T> {}

impl<T: ?Sized> ExclusiveGuard<'_, T> {
    /// Gives the data back; `true` if somebody waits for it.
    #[inline]
    #[must_use]
    pub fn give_back(self) -> bool {
        ManuallyDrop::new(self).cell.word.give_back()
    }
}

impl<T: ?Sized> Drop for ExclusiveGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cell.word.give_back();
    }
}

impl<T: ?Sized> Deref for ExclusiveGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: only one guard exists, this one; the borrow ends before it goes.
        unsafe { &*self.cell.data.get() }
    }
}

impl<T: ?Sized> DerefMut for ExclusiveGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `&mut self` is exclusive.
        unsafe { &mut *self.cell.data.get() }
    }
}

/// Data for many readers or one writer.
pub struct SharedCell<T: ?Sized> {
    word: SharedWord,
    data: UnsafeCell<T>,
}

// SAFETY: readers share the data (Sync), a writer has it alone and may move it (Send): the word
// lets them in so.
unsafe impl<T: ?Sized + Send + Sync> Sync for SharedCell<T> {}
// SAFETY: owns its data.
unsafe impl<T: ?Sized + Send> Send for SharedCell<T> {}

impl<T> SharedCell<T> {
    /// A free cell.
    pub const fn new(value: T) -> Self {
        Self { word: SharedWord(AtomicU32::new(0)), data: UnsafeCell::new(value) }
    }

    /// The data.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized> SharedCell<T> {
    fn reader(&self) -> ReadGuard<'_, T> {
        ReadGuard { cell: self, _not_send: PhantomData }
    }

    fn writer(&self) -> WriteGuard<'_, T> {
        WriteGuard { cell: self, _not_send: PhantomData }
    }

    /// A share, if no writer has it or waits for it.
    #[inline]
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        self.word.try_read().then(|| self.reader())
    }

    /// The whole, if nobody has any of it.
    #[inline]
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        self.word.try_write().then(|| self.writer())
    }

    /// As `try_read` for one who waits: see [`SharedWord::read_or_contend`].
    pub fn read_or_contend(&self, woken: bool) -> Option<ReadGuard<'_, T>> {
        self.word.read_or_contend(woken).then(|| self.reader())
    }

    /// As `try_write` for one who waits: see [`SharedWord::write_or_contend`].
    pub fn write_or_contend(&self) -> Option<WriteGuard<'_, T>> {
        self.word.write_or_contend().then(|| self.writer())
    }

    /// Forgets the notes of waiters: by whoever is about to wake all of them, before it does.
    pub fn forget_waiters(&self) {
        self.word.forget_waiters();
    }

    /// Whether a writer has it at this moment.
    pub fn is_written(&self) -> bool {
        self.word.is_written()
    }

    /// Whether anybody has it at this moment.
    pub fn is_held(&self) -> bool {
        self.word.is_held()
    }

    /// The data, when nobody else has access.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }
}

/// A share of a [`SharedCell`].
pub struct ReadGuard<'a, T: ?Sized> {
    cell: &'a SharedCell<T>,
    _not_send: PhantomData<*mut ()>,
}

// SAFETY: gives `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for ReadGuard<'_, T> {}

impl<T: ?Sized> ReadGuard<'_, T> {
    /// Gives the share back; `true` if it was the last and somebody waits.
    #[inline]
    #[must_use]
    pub fn give_back(self) -> bool {
        ManuallyDrop::new(self).cell.word.end_read()
    }
}

impl<T: ?Sized> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cell.word.end_read();
    }
}

impl<T: ?Sized> Deref for ReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: while a share is out there is no writer.
        unsafe { &*self.cell.data.get() }
    }
}

/// The whole of a [`SharedCell`].
pub struct WriteGuard<'a, T: ?Sized> {
    cell: &'a SharedCell<T>,
    _not_send: PhantomData<*mut ()>,
}

// SAFETY: a shared guard gives `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for WriteGuard<'_, T> {}

impl<'a, T: ?Sized> WriteGuard<'a, T> {
    /// Gives it back; `true` if somebody waits.
    #[inline]
    #[must_use]
    pub fn give_back(self) -> bool {
        ManuallyDrop::new(self).cell.word.end_write()
    }

    /// Becomes a share; `true` if somebody waits.
    #[must_use]
    pub fn downgrade(self) -> (ReadGuard<'a, T>, bool) {
        let this = ManuallyDrop::new(self);
        let waiters = this.cell.word.downgrade();
        (this.cell.reader(), waiters)
    }
}

impl<T: ?Sized> Drop for WriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cell.word.end_write();
    }
}

impl<T: ?Sized> Deref for WriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the writer is alone.
        unsafe { &*self.cell.data.get() }
    }
}

impl<T: ?Sized> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the writer is alone, and `&mut self` is exclusive.
        unsafe { &mut *self.cell.data.get() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_cell_is_refused_and_the_holder_hears_of_it() {
        let cell = ExclusiveCell::new(1);
        let guard = cell.try_take().unwrap();
        assert!(cell.try_take().is_none());
        assert!(!guard.give_back());
        let guard = cell.try_take().unwrap();
        assert!(cell.take_or_contend().is_none());
        assert!(guard.give_back());
        assert!(!cell.is_held());
    }

    #[test]
    fn one_who_waited_tells_the_next_waiter() {
        let cell = ExclusiveCell::new(1);
        let guard = cell.take_or_contend().unwrap();
        assert!(guard.give_back(), "there may be others behind one who waited");
    }

    #[test]
    fn readers_share_and_exclude_the_writer() {
        let cell = SharedCell::new(5);
        let a = cell.try_read().unwrap();
        let b = cell.try_read().unwrap();
        assert!(cell.try_write().is_none());
        assert_eq!(*a + *b, 10);
        assert!(!a.give_back());
        drop(b);
        let w = cell.try_write().unwrap();
        assert!(cell.try_read().is_none() && cell.try_write().is_none());
        let (r, _) = w.downgrade();
        assert!(cell.try_read().is_some() && cell.try_write().is_none());
        drop(r);
    }

    #[test]
    fn a_waiting_writer_keeps_new_readers_out_but_not_woken_ones() {
        let cell = SharedCell::new(());
        let r = cell.try_read().unwrap();
        assert!(cell.write_or_contend().is_none());
        assert!(cell.try_read().is_none());
        assert!(cell.read_or_contend(false).is_none());
        assert!(cell.read_or_contend(true).is_some());
        assert!(r.give_back(), "the last reader wakes the writer");
    }
}
