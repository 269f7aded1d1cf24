//! Sequence counts and locks: readers that never write, and retry when a writer was active.

use crate::{
    LockClass,
    atomic::{AtomicU32, Ordering, fence, spin_loop},
    spin::SpinLock,
};
use core::{cell::UnsafeCell, mem::MaybeUninit};

/// A count that is odd while a writer is active. The writers exclude each other by other means,
/// and run with preemption off.
pub struct SeqCount {
    count: AtomicU32,
}

impl SeqCount {
    /// A count with no writer.
    pub const fn new() -> Self {
        Self { count: AtomicU32::new(0) }
    }

    /// Begins a read section: waits while a writer is active.
    #[inline]
    pub fn read_begin(&self) -> u32 {
        loop {
            if let Some(seen) = self.try_read_begin() {
                return seen;
            }
            spin_loop();
        }
    }

    /// Begins a read section unless a writer is active.
    #[inline]
    pub fn try_read_begin(&self) -> Option<u32> {
        // Pairs with the Release store of `write_end`.
        let seen = self.count.load(Ordering::Acquire);
        (seen & 1 == 0).then_some(seen)
    }

    /// Whether a writer was active since `read_begin`: what was read must be thrown away.
    #[inline]
    #[must_use]
    pub fn read_retry(&self, seen: u32) -> bool {
        // Pairs with the fence of `write_begin`: a reader that saw a new value sees the odd count.
        fence(Ordering::Acquire);
        self.count.load(Ordering::Relaxed) != seen
    }

    /// Begins a change.
    #[inline]
    pub fn write_begin(&self) {
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
    }

    /// Ends a change.
    #[inline]
    pub fn write_end(&self) {
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count.wrapping_add(1), Ordering::Release);
    }
}

impl Default for SeqCount {
    fn default() -> Self {
        Self::new()
    }
}

/// A small value that is read often, from any context, and changed rarely, as a whole.
pub struct SeqLock<T: Copy> {
    count: SeqCount,
    writer: SpinLock<()>,
    data: UnsafeCell<T>,
}

// SAFETY: readers copy the value out and use the copy only if no writer was active; writers
// exclude each other.
unsafe impl<T: Copy + Send> Sync for SeqLock<T> {}

impl<T: Copy> SeqLock<T> {
    /// A value whose writers take a lock of this class.
    pub const fn new(value: T, class: &'static LockClass) -> Self {
        Self { count: SeqCount::new(), writer: SpinLock::new((), class), data: UnsafeCell::new(value) }
    }

    /// The value. Never blocks on another reader; not for code that may interrupt a writer and
    /// cannot be masked.
    #[inline]
    pub fn read(&self) -> T {
        loop {
            let seen = self.count.read_begin();
            // SAFETY: the pointer is valid; a torn value is never turned into a `T`, see below.
            // The copy is volatile so that it happens between the two looks at the count.
            let copy = unsafe { self.data.get().cast::<MaybeUninit<T>>().read_volatile() };
            if !self.count.read_retry(seen) {
                // SAFETY: no writer was active, so the copy is a whole `T`.
                return unsafe { copy.assume_init() };
            }
        }
    }

    /// The value, if no writer is active and none came between: for code that must not wait.
    #[inline]
    pub fn try_read(&self) -> Option<T> {
        let seen = self.count.try_read_begin()?;
        // SAFETY: as in `read`.
        let copy = unsafe { self.data.get().cast::<MaybeUninit<T>>().read_volatile() };
        if self.count.read_retry(seen) {
            return None;
        }
        // SAFETY: no writer was active, so the copy is a whole `T`.
        Some(unsafe { copy.assume_init() })
    }

    /// Changes the value; interrupts are off meanwhile, so that no handler waits for its own CPU.
    #[track_caller]
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let _writer = self.writer.lock_irq();
        // SAFETY: this is the only writer, and readers do not write.
        let mut value = unsafe { *self.data.get() };
        let result = change(&mut value);
        self.count.write_begin();
        // SAFETY: as above; readers that meet this store retry.
        unsafe { self.data.get().write_volatile(value) };
        self.count.write_end();
        result
    }

    /// Replaces the value.
    #[track_caller]
    pub fn write(&self, value: T) {
        self.update(|v| *v = value);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn readers_on_other_cpus_see_whole_values_only() {
        static CLASS: LockClass = LockClass::new("seq test", 30);
        let lock = SeqLock::new([0_u64; 8], &CLASS);
        arch::sim::run_on_cpus(3, |cpu| {
            for n in 0..2000 {
                if cpu.0 == 0 {
                    lock.write([n; 8]);
                } else {
                    let seen = lock.read();
                    assert!(seen.iter().all(|v| *v == seen[0]), "{seen:?}");
                }
            }
        });
        assert_eq!(lock.try_read(), Some([1999; 8]));
    }
}
