//! Data behind a flag that is tried, never waited for: the ground on which `sched` builds its
//! sleeping locks. Waiting, fairness and the lock order are the business of `sched`; that two
//! guards never overlap is proved here.

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};
use sync::atomic::{AtomicU32, Ordering};

/// Nobody has it.
const FREE: u32 = 0;
/// Somebody has it, and nobody waits.
const HELD: u32 = 1;
/// Somebody has it, and somebody may wait for it.
const CONTENDED: u32 = 2;

/// Data for one owner at a time.
pub struct ExclusiveCell<T: ?Sized> {
    state: AtomicU32,
    data: UnsafeCell<T>,
}

// SAFETY: at most one guard exists (it came with the change of `state` from FREE), so the data
// moves between threads but is never shared.
unsafe impl<T: ?Sized + Send> Sync for ExclusiveCell<T> {}
// SAFETY: owns its data.
unsafe impl<T: ?Sized + Send> Send for ExclusiveCell<T> {}

impl<T> ExclusiveCell<T> {
    /// A free cell.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self { state: AtomicU32::new(FREE), data: UnsafeCell::new(value) }
    }
    /// A free cell.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Self { state: AtomicU32::new(FREE), data: UnsafeCell::new(value) }
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
        // Acquire pairs with the release in `give_back`.
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(ExclusiveGuard { cell: self, _not_send: PhantomData })
    }

    /// The data if it is free; otherwise the owner learns, when it gives it back, that somebody
    /// waits.
    #[inline]
    pub fn take_or_contend(&self) -> Option<ExclusiveGuard<'_, T>> {
        // The state stays CONTENDED for the new owner too: others may still wait.
        (self.state.swap(CONTENDED, Ordering::Acquire) == FREE).then(|| ExclusiveGuard { cell: self, _not_send: PhantomData })
    }

    /// Whether somebody has it at this moment.
    pub fn is_held(&self) -> bool {
        self.state.load(Ordering::Relaxed) != FREE
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

impl<'a, T: ?Sized> ExclusiveGuard<'a, T> {
    /// Gives the data back; `true` if somebody waits for it.
    #[inline]
    #[must_use]
    pub fn give_back(self) -> bool {
        let this = core::mem::ManuallyDrop::new(self);
        this.release()
    }

    #[inline]
    fn release(&self) -> bool {
        self.cell.state.swap(FREE, Ordering::Release) == CONTENDED
    }
}

impl<T: ?Sized> Drop for ExclusiveGuard<'_, T> {
    fn drop(&mut self) {
        self.release();
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

/// A writer has it.
const WRITER: u32 = 1;
/// A writer waits: new readers stay out.
const WRITER_WAITS: u32 = 2;
/// Somebody waits, reader or writer.
const WAITERS: u32 = 4;
/// One reader.
const READER: u32 = 8;
/// Readers beyond this are refused, far from overflow.
const MOST_READERS: u32 = u32::MAX / 2;

/// Data for many readers or one writer.
pub struct SharedCell<T: ?Sized> {
    state: AtomicU32,
    data: UnsafeCell<T>,
}

// SAFETY: readers share the data (Sync), a writer has it alone and may move it (Send): WRITER and
// READER counts exclude each other in every exchange below.
unsafe impl<T: ?Sized + Send + Sync> Sync for SharedCell<T> {}
// SAFETY: owns its data.
unsafe impl<T: ?Sized + Send> Send for SharedCell<T> {}

impl<T> SharedCell<T> {
    /// A free cell.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Self { state: AtomicU32::new(0), data: UnsafeCell::new(value) }
    }
    /// A free cell.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Self { state: AtomicU32::new(0), data: UnsafeCell::new(value) }
    }

    /// The data.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized> SharedCell<T> {
    /// Changes the state by `step` until it holds or declines.
    fn update(&self, mut step: impl FnMut(u32) -> Option<u32>) -> bool {
        let mut now = self.state.load(Ordering::Relaxed);
        while let Some(new) = step(now) {
            // Acquire pairs with the releases of guards.
            match self.state.compare_exchange_weak(now, new, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => now = found,
            }
        }
        false
    }

    /// A share, if no writer has it or waits for it.
    #[inline]
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        let ok = self.update(|s| (s & (WRITER | WRITER_WAITS) == 0 && s < MOST_READERS).then(|| s + READER));
        ok.then(|| ReadGuard { cell: self, _not_send: PhantomData })
    }

    /// The whole, if nobody has any of it.
    #[inline]
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        let ok = self.update(|s| (s & WRITER == 0 && s < READER).then_some(s | WRITER));
        ok.then(|| WriteGuard { cell: self, _not_send: PhantomData })
    }

    /// As `try_read` for one who waits: a failure is noted, so that the next release tells. A
    /// reader that was `woken` enters although writers wait, so that neither side starves.
    pub fn read_or_contend(&self, woken: bool) -> Option<ReadGuard<'_, T>> {
        let stop = if woken { WRITER } else { WRITER | WRITER_WAITS };
        let mut got = false;
        self.update(|s| {
            got = s & stop == 0 && s < MOST_READERS;
            if got { Some(s + READER) } else { (s & WAITERS == 0).then_some(s | WAITERS) }
        });
        got.then(|| ReadGuard { cell: self, _not_send: PhantomData })
    }

    /// As `try_write` for one who waits: a failure is noted, and keeps new readers out.
    pub fn write_or_contend(&self) -> Option<WriteGuard<'_, T>> {
        let mut got = false;
        self.update(|s| {
            got = s & WRITER == 0 && s < READER;
            let noted = s | WAITERS | WRITER_WAITS;
            if got { Some(s | WRITER) } else { (noted != s).then_some(noted) }
        });
        got.then(|| WriteGuard { cell: self, _not_send: PhantomData })
    }

    /// Forgets the notes of waiters: by whoever is about to wake all of them, before it does.
    pub fn forget_waiters(&self) {
        self.state.fetch_and(!(WAITERS | WRITER_WAITS), Ordering::AcqRel);
    }

    /// Whether a writer has it at this moment.
    pub fn is_written(&self) -> bool {
        self.state.load(Ordering::Relaxed) & WRITER != 0
    }

    /// Whether anybody has it at this moment.
    pub fn is_held(&self) -> bool {
        let s = self.state.load(Ordering::Relaxed);
        s & WRITER != 0 || s >= READER
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
        core::mem::ManuallyDrop::new(self).release()
    }

    #[inline]
    fn release(&self) -> bool {
        let left = self.cell.state.fetch_sub(READER, Ordering::Release) - READER;
        left < READER && left & WAITERS != 0
    }
}

impl<T: ?Sized> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        self.release();
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
        core::mem::ManuallyDrop::new(self).release()
    }

    /// Becomes a share; `true` if somebody waits.
    #[must_use]
    pub fn downgrade(self) -> (ReadGuard<'a, T>, bool) {
        let this = core::mem::ManuallyDrop::new(self);
        // WRITER goes and one READER comes, in one step; Release publishes what we wrote.
        let old = this.cell.state.fetch_add(READER - WRITER, Ordering::Release);
        (ReadGuard { cell: this.cell, _not_send: PhantomData }, old & WAITERS != 0)
    }

    #[inline]
    fn release(&self) -> bool {
        self.cell.state.fetch_and(!WRITER, Ordering::Release) & WAITERS != 0
    }
}

impl<T: ?Sized> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        self.release();
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

#[cfg(all(test, not(loom)))]
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
