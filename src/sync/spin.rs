//! The spin lock: data behind a queued lock, with preemption or interrupts off while it is held.
//!
//! A class whose locks are ever taken in an interrupt handler must be taken with interrupts off
//! everywhere (`lock_irq`); the lock-order checker watches that.

use crate::{LockClass, guard::{IrqGuard, PreemptGuard}, lockdep, qlock::QueueLock};
use core::{
    cell::UnsafeCell,
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    panic::Location,
};

/// A queued lock without data: four bytes, for structures that have no room for more.
///
/// The class is given at each call, so it must be the same one each time.
pub struct RawSpinLock {
    queue: QueueLock,
}

impl RawSpinLock {
    /// An unlocked lock.
    pub const fn new() -> Self {
        Self { queue: QueueLock::new() }
    }

    /// Takes the lock; preemption is off while the guard lives.
    #[inline]
    #[track_caller]
    pub fn lock(&self, class: &'static LockClass) -> RawSpinGuard<'_> {
        self.lock_nested(class, 0)
    }

    /// Takes the lock while another of its class with a lower subclass is held.
    #[inline]
    #[track_caller]
    pub fn lock_nested(&self, class: &'static LockClass, subclass: u8) -> RawSpinGuard<'_> {
        let context = PreemptGuard::new();
        let held = lockdep::acquire_spin(lockdep::Class::new(class), subclass, Location::caller());
        self.queue.lock_here();
        RawSpinGuard { lock: self, held, _context: context }
    }

    /// Takes the lock if it is free.
    #[inline]
    #[track_caller]
    pub fn try_lock(&self, class: &'static LockClass) -> Option<RawSpinGuard<'_>> {
        let context = PreemptGuard::new();
        if !self.queue.try_lock() {
            return None;
        }
        let held = lockdep::acquire_spin_try(lockdep::Class::new(class), Location::caller());
        Some(RawSpinGuard { lock: self, held, _context: context })
    }

    /// Whether somebody holds the lock: a hint, for assertions.
    pub fn is_locked(&self) -> bool {
        self.queue.is_locked()
    }
}

impl Default for RawSpinLock {
    fn default() -> Self {
        Self::new()
    }
}

/// A held [`RawSpinLock`].
pub struct RawSpinGuard<'a> {
    lock: &'a RawSpinLock,
    held: lockdep::Held,
    _context: PreemptGuard,
}

impl Drop for RawSpinGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        lockdep::release_spin(&self.held);
        self.lock.queue.unlock();
    }
}

/// Data that one CPU at a time may touch.
pub struct SpinLock<T: ?Sized> {
    class: lockdep::Class,
    queue: QueueLock,
    data: UnsafeCell<T>,
}

// SAFETY: the lock hands out access to the data to one CPU at a time, so sharing the lock moves
// the data between CPUs but never shares it.
unsafe impl<T: ?Sized + Send> Sync for SpinLock<T> {}
// SAFETY: an owned lock is its data plus plain integers.
unsafe impl<T: ?Sized + Send> Send for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// An unlocked lock of this class.
    pub const fn new(value: T, class: &'static LockClass) -> Self {
        Self {
            class: lockdep::Class::new(class),
            queue: QueueLock::new(),
            data: UnsafeCell::new(value),
        }
    }

    /// The data, out of its lock.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized> SpinLock<T> {
    /// Takes the lock; preemption is off while the guard lives.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        self.lock_nested(0)
    }

    /// Takes the lock while another of its class with a lower subclass is held.
    #[inline]
    #[track_caller]
    pub fn lock_nested(&self, subclass: u8) -> SpinGuard<'_, T> {
        let context = PreemptGuard::new();
        let held = lockdep::acquire_spin(self.class, subclass, Location::caller());
        self.queue.lock_here();
        SpinGuard { lock: self, held, _context: context, not_send: PhantomData }
    }

    /// Takes the lock if it is free.
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        let context = PreemptGuard::new();
        if !self.queue.try_lock() {
            return None;
        }
        let held = lockdep::acquire_spin_try(self.class, Location::caller());
        Some(SpinGuard { lock: self, held, _context: context, not_send: PhantomData })
    }

    /// Takes the lock with interrupts off while the guard lives.
    #[inline]
    #[track_caller]
    pub fn lock_irq(&self) -> SpinIrqGuard<'_, T> {
        self.lock_irq_nested(0)
    }

    /// [`lock_irq`](Self::lock_irq) while another of its class with a lower subclass is held.
    #[inline]
    #[track_caller]
    pub fn lock_irq_nested(&self, subclass: u8) -> SpinIrqGuard<'_, T> {
        let context = IrqGuard::new();
        let held = lockdep::acquire_spin(self.class, subclass, Location::caller());
        self.queue.lock_here();
        SpinIrqGuard { lock: self, held, _context: context, not_send: PhantomData }
    }

    /// Takes the lock with interrupts off if it is free.
    #[inline]
    #[track_caller]
    pub fn try_lock_irq(&self) -> Option<SpinIrqGuard<'_, T>> {
        let context = IrqGuard::new();
        if !self.queue.try_lock() {
            return None;
        }
        let held = lockdep::acquire_spin_try(self.class, Location::caller());
        Some(SpinIrqGuard { lock: self, held, _context: context, not_send: PhantomData })
    }

    /// The data, when nobody else can hold the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    /// Whether somebody holds the lock: a hint, for assertions.
    pub fn is_locked(&self) -> bool {
        self.queue.is_locked()
    }

    /// Gives up the lock of a guard that was leaked for a hand-over: a context switch takes the
    /// run queue's lock in one thread and releases it in the next.
    ///
    /// Interrupts stay off and the preempt count stays as the leaked guard left it: the caller
    /// restores both.
    ///
    /// # Safety
    /// This CPU holds the lock through a guard that was passed to `SpinIrqGuard::leak`, and no
    /// reference into the data lives on.
    pub unsafe fn unlock_leaked(&self) {
        lockdep::release_spin(&lockdep::Held::of(self.class));
        self.queue.unlock();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(data) => f.debug_tuple("SpinLock").field(&&*data).finish(),
            None => f.write_str("SpinLock(<locked>)"),
        }
    }
}

macro_rules! guard {
    ($(#[$doc:meta])* $name:ident, $context:ty) => {
        $(#[$doc])*
        pub struct $name<'a, T: ?Sized> {
            lock: &'a SpinLock<T>,
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
                // SAFETY: the guard proves that this CPU holds the lock.
                unsafe { &*self.lock.data.get() }
            }
        }

        impl<T: ?Sized> DerefMut for $name<'_, T> {
            #[inline]
            fn deref_mut(&mut self) -> &mut T {
                // SAFETY: the guard proves that this CPU holds the lock, and it is borrowed mutably.
                unsafe { &mut *self.lock.data.get() }
            }
        }

        impl<T: ?Sized> Drop for $name<'_, T> {
            #[inline]
            fn drop(&mut self) {
                lockdep::release_spin(&self.held);
                self.lock.queue.unlock();
            }
        }

        impl<'a, T: ?Sized> $name<'a, T> {
            /// The lock that is held.
            pub fn lock_of(&self) -> &'a SpinLock<T> {
                self.lock
            }
        }
    };
}

guard! {
    /// A held [`SpinLock`]; preemption is off.
    SpinGuard, PreemptGuard
}
guard! {
    /// A held [`SpinLock`]; interrupts and preemption are off.
    SpinIrqGuard, IrqGuard
}

impl<'a, T: ?Sized> SpinIrqGuard<'a, T> {
    /// Keeps the lock held, interrupts and preemption off, beyond the guard's life; see
    /// [`SpinLock::unlock_leaked`].
    pub fn leak(self) -> &'a SpinLock<T> {
        let lock = self.lock;
        #[allow(clippy::mem_forget)] // the point: `unlock_leaked` does what the drop would
        core::mem::forget(self);
        lock
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use arch::sim;

    static CLASS: LockClass = LockClass::new("spin test", 30);
    static OUTER: LockClass = LockClass::new("spin test outer", 20);

    #[test]
    fn all_cpus_count_without_losing_one() {
        let lock = SpinLock::new(0_u64, &CLASS);
        sim::run_on_cpus(4, |_| (0..2000).for_each(|_| *lock.lock() += 1));
        assert_eq!(lock.into_inner(), 8000);
    }

    #[test]
    fn waiting_in_an_interrupt_while_waiting_in_the_thread_uses_another_node() {
        let (outer, inner) = (SpinLock::new(0_u64, &OUTER), SpinLock::new(0_u64, &CLASS));
        sim::run_on_cpus(4, |_| {
            for _ in 0..500 {
                let mut a = outer.lock_irq();
                sim::interrupt(|| *inner.lock_irq() += 1);
                *a += 1;
            }
        });
        assert_eq!((outer.into_inner(), inner.into_inner()), (2000, 2000));
    }

    #[test]
    fn guards_turn_preemption_and_interrupts_off_and_back_on() {
        let lock = SpinLock::new((), &CLASS);
        sim::run_on_cpus(1, |_| {
            let guard = lock.lock();
            assert!(arch::preempt::count() == 1 && arch::irq::enabled());
            assert!(lock.try_lock().is_none());
            drop(guard);
            let guard = lock.lock_irq();
            assert!(arch::preempt::count() == 1 && !arch::irq::enabled());
            drop(guard);
            assert!(arch::preempt::count() == 0 && arch::irq::enabled());
        });
    }

    #[test]
    fn a_leaked_guard_is_released_by_hand() {
        let lock = SpinLock::new((), &CLASS);
        sim::run_on_cpus(1, |_| {
            let leaked = lock.lock_irq().leak();
            assert!(leaked.is_locked());
            // SAFETY: leaked above, on this CPU.
            unsafe { leaked.unlock_leaked() };
            assert!(!lock.is_locked());
            arch::preempt::enable();
            arch::irq::enable();
        });
    }

    #[test]
    fn the_raw_lock_has_four_bytes() {
        assert_eq!(size_of::<RawSpinLock>(), 4);
    }
}
