//! Where something owned waits for whoever comes first: its next owner or a request for it.
//!
//! A thread that goes to sleep leaves its scheduling entity in its slot once it is off the CPU. A
//! waker that comes earlier leaves a mark instead and goes on; the CPU that wanted to put the
//! entity away then finds the mark and keeps it. Neither side ever waits for the other, and
//! exactly one of them ends up with the entity.

use core::{marker::PhantomData, ptr};
use kalloc::KBox;
use sync::atomic::{AtomicPtr, Ordering};

/// The address that stands for "somebody asked": no `KBox` of an aligned type has it.
const MARK: usize = 1;

/// Holds one `KBox<T>`, or a request for it, or nothing.
pub struct BoxSlot<T> {
    /// Null, `MARK`, or the result of `KBox::into_raw` that this slot owns.
    ptr: AtomicPtr<T>,
    _owns: PhantomData<KBox<T>>,
}

// SAFETY: the slot moves a T between threads and never shares one.
unsafe impl<T: Send> Sync for BoxSlot<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for BoxSlot<T> {}

impl<T> BoxSlot<T> {
    const ALIGNED: () = assert!(align_of::<T>() > MARK && size_of::<T>() > 0);

    /// An empty slot.
    pub fn new() -> Self {
        let () = Self::ALIGNED;
        Self { ptr: AtomicPtr::new(ptr::null_mut()), _owns: PhantomData }
    }

    fn mark() -> *mut T {
        ptr::without_provenance_mut(MARK)
    }

    /// Leaves `value` for who asks later. It comes back if somebody asked already (the mark is
    /// then gone) or if the slot is taken.
    #[inline]
    pub fn put(&self, value: KBox<T>) -> Result<(), KBox<T>> {
        let raw = KBox::into_raw(value);
        // Release: who takes the value sees all that was written to it.
        match self.ptr.compare_exchange(ptr::null_mut(), raw, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(found) => {
                if found == Self::mark() {
                    // Only this clears a mark; when two race here, both keep their values.
                    let _ = self.ptr.compare_exchange(found, ptr::null_mut(), Ordering::AcqRel, Ordering::Acquire);
                }
                // SAFETY: ours, from `into_raw` above: the exchange failed, so no one else has it.
                Err(unsafe { KBox::from_raw(raw) })
            }
        }
    }

    /// Takes the value out, or leaves a mark for who puts it there.
    #[inline]
    pub fn take_or_mark(&self) -> Option<KBox<T>> {
        let mut found = self.ptr.load(Ordering::Acquire);
        loop {
            let (new, is_value) = if found.is_null() || found == Self::mark() {
                (Self::mark(), false)
            } else {
                (ptr::null_mut(), true)
            };
            match self.ptr.compare_exchange(found, new, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: the slot owned it, and the exchange gave that up to us alone.
                Ok(raw) => return is_value.then(|| unsafe { KBox::from_raw(raw) }),
                Err(now) => found = now,
            }
        }
    }

    /// Takes the value out if there is one; leaves a mark where it is.
    #[inline]
    pub fn take(&self) -> Option<KBox<T>> {
        let found = self.ptr.load(Ordering::Acquire);
        if found.is_null() || found == Self::mark() {
            return None;
        }
        match self.ptr.compare_exchange(found, ptr::null_mut(), Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: as in `take_or_mark`.
            Ok(raw) => Some(unsafe { KBox::from_raw(raw) }),
            // Somebody else was faster.
            Err(_) => None,
        }
    }
}

impl<T> Default for BoxSlot<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for BoxSlot<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}
