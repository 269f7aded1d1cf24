//! The spinning reader-writer lock: many readers or one writer.
//!
//! Prefer a spin lock, or RCU where readers are frequent: readers here still write to the lock.
//! Waiters of both kinds stand in one queue, so writers do not starve. A reader in an interrupt
//! handler that finds only readers enters at once, since the interrupted code may be one of them.

use crate::{
    LockClass,
    atomic::{AtomicU32, Ordering, spin_loop},
    guard::{IrqGuard, PreemptGuard},
    lockdep,
    qlock::QueueLock,
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    panic::Location,
};

/// A writer holds the lock.
const WRITER: u32 = 1;
/// A writer is at the front of the queue: no new readers.
const WAITING: u32 = 2;
/// One reader.
const READER: u32 = 4;

/// Data that many CPUs may read, or one may change.
pub struct RwSpinLock<T: ?Sized> {
    class: lockdep::Class,
    state: AtomicU32,
    queue: QueueLock,
    data: UnsafeCell<T>,
}

// SAFETY: readers share the data between CPUs (Sync), a writer moves it (Send).
unsafe impl<T: ?Sized + Send + Sync> Sync for RwSpinLock<T> {}
// SAFETY: an owned lock is its data plus plain integers.
unsafe impl<T: ?Sized + Send> Send for RwSpinLock<T> {}

impl<T> RwSpinLock<T> {
    /// An unlocked lock of this class.
    pub const fn new(value: T, class: &'static LockClass) -> Self {
        Self {
            class: lockdep::Class::new(class),
            state: AtomicU32::new(0),
            queue: QueueLock::new(),
            data: UnsafeCell::new(value),
        }
    }

    /// The data, out of its lock.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized> RwSpinLock<T> {
    /// Shares the lock; preemption is off while the guard lives.
    #[inline]
    #[track_caller]
    pub fn read(&self) -> ReadGuard<'_, T> {
        let context = PreemptGuard::new();
        let held = lockdep::acquire_shared(self.class, Location::caller());
        self.lock_shared();
        ReadGuard { lock: self, held, _context: context, not_send: PhantomData }
    }

    /// Shares the lock with interrupts off while the guard lives.
    #[inline]
    #[track_caller]
    pub fn read_irq(&self) -> ReadIrqGuard<'_, T> {
        let context = IrqGuard::new();
        let held = lockdep::acquire_shared(self.class, Location::caller());
        self.lock_shared();
        ReadIrqGuard { lock: self, held, _context: context, not_send: PhantomData }
    }

    /// Takes the lock alone; preemption is off while the guard lives.
    #[inline]
    #[track_caller]
    pub fn write(&self) -> WriteGuard<'_, T> {
        let context = PreemptGuard::new();
        let held = lockdep::acquire_spin(self.class, 0, Location::caller());
        self.lock_alone();
        WriteGuard { lock: self, held, _context: context, not_send: PhantomData }
    }

    /// Takes the lock alone with interrupts off while the guard lives.
    #[inline]
    #[track_caller]
    pub fn write_irq(&self) -> WriteIrqGuard<'_, T> {
        let context = IrqGuard::new();
        let held = lockdep::acquire_spin(self.class, 0, Location::caller());
        self.lock_alone();
        WriteIrqGuard { lock: self, held, _context: context, not_send: PhantomData }
    }

    /// The data, when nobody else can hold the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    /// Makes the lock's atomics in a model, before its threads share them.
    #[cfg(loom)]
    pub fn touch(&self) {
        self.state.load(Ordering::Relaxed);
        let _ = self.queue.try_lock();
        self.queue.unlock();
    }

    #[inline]
    fn lock_shared(&self) {
        // Acquire pairs with the Release of the writer that left.
        if self.state.fetch_add(READER, Ordering::Acquire) & (WRITER | WAITING) != 0 {
            self.lock_shared_slow();
        }
    }

    #[cold]
    fn lock_shared_slow(&self) {
        if arch::preempt::in_interrupt() {
            // Behind a waiting writer that waits for the code below us, we would wait for ever.
            while self.state.load(Ordering::Acquire) & WRITER != 0 {
                spin_loop();
            }
            return;
        }
        self.state.fetch_sub(READER, Ordering::Relaxed);
        self.queue.lock_here();
        self.state.fetch_add(READER, Ordering::Relaxed);
        while self.state.load(Ordering::Acquire) & WRITER != 0 {
            spin_loop();
        }
        self.queue.unlock();
    }

    #[inline]
    fn lock_alone(&self) {
        if self.state.compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_alone_slow();
        }
    }

    #[cold]
    fn lock_alone_slow(&self) {
        self.queue.lock_here();
        self.state.fetch_or(WAITING, Ordering::Relaxed);
        // Only the front of the queue sets WAITING, so it is ours to trade for WRITER.
        while self.state.compare_exchange(WAITING, WRITER, Ordering::Acquire, Ordering::Relaxed).is_err() {
            spin_loop();
        }
        self.queue.unlock();
    }

    #[inline]
    fn unlock_shared(&self) {
        self.state.fetch_sub(READER, Ordering::Release);
    }

    #[inline]
    fn unlock_alone(&self) {
        // Readers may have added themselves meanwhile; only the bit is ours.
        self.state.fetch_and(!WRITER, Ordering::Release);
    }
}

macro_rules! guard {
    ($(#[$doc:meta])* $name:ident, $context:ty, $unlock:ident) => {
        $(#[$doc])*
        pub struct $name<'a, T: ?Sized> {
            lock: &'a RwSpinLock<T>,
            held: lockdep::Held,
            // Dropped after the body of `drop`: first the lock is free, then the context returns.
            _context: $context,
            not_send: PhantomData<*mut ()>,
        }

        // SAFETY: a shared guard gives shared access to the data only.
        unsafe impl<T: ?Sized + Sync> Sync for $name<'_, T> {}

        impl<T: ?Sized> Deref for $name<'_, T> {
            type Target = T;
            #[inline]
            fn deref(&self) -> &T {
                // SAFETY: the guard proves that no writer but this guard has the lock.
                unsafe { &*self.lock.data.get() }
            }
        }

        impl<T: ?Sized> Drop for $name<'_, T> {
            #[inline]
            fn drop(&mut self) {
                lockdep::release_spin(&self.held);
                self.lock.$unlock();
            }
        }
    };
}

guard! {
    /// A shared [`RwSpinLock`]; preemption is off.
    ReadGuard, PreemptGuard, unlock_shared
}
guard! {
    /// A shared [`RwSpinLock`]; interrupts and preemption are off.
    ReadIrqGuard, IrqGuard, unlock_shared
}
guard! {
    /// A [`RwSpinLock`] held alone; preemption is off.
    WriteGuard, PreemptGuard, unlock_alone
}
guard! {
    /// A [`RwSpinLock`] held alone; interrupts and preemption are off.
    WriteIrqGuard, IrqGuard, unlock_alone
}

impl<T: ?Sized> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock alone, and it is borrowed mutably.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T: ?Sized> DerefMut for WriteIrqGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock alone, and it is borrowed mutably.
        unsafe { &mut *self.lock.data.get() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    static CLASS: LockClass = LockClass::new("rw test", 30);

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let lock = RwSpinLock::new((0_u64, 0_u64), &CLASS);
        arch::sim::run_on_cpus(4, |cpu| {
            for _ in 0..1000 {
                if cpu.0 < 2 {
                    let mut both = lock.write();
                    both.0 += 1;
                    both.1 += 1;
                } else {
                    let both = lock.read();
                    assert_eq!(both.0, both.1);
                }
            }
        });
        assert_eq!(lock.into_inner(), (2000, 2000));
    }

    #[test]
    fn a_reader_in_an_interrupt_does_not_wait_behind_a_writer_that_waits() {
        let lock = RwSpinLock::new((), &CLASS);
        let writer_waits = || lock.state.load(Ordering::Relaxed) & WAITING != 0;
        arch::sim::run_on_cpus(2, |cpu| {
            if cpu.0 == 0 {
                let outer = lock.read();
                while !writer_waits() {
                    spin_loop();
                }
                arch::sim::interrupt(|| drop(lock.read()));
                drop(outer);
            } else {
                while lock.state.load(Ordering::Relaxed) & !(WRITER | WAITING) == 0 {
                    spin_loop();
                }
                drop(lock.write_irq());
            }
        });
    }
}
