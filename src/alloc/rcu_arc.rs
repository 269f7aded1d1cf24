//! `RcuArc`: a slot with an optional [`KArc`] that readers follow without a lock or a count.
//!
//! Whoever takes a pointer out of the slot gives its strong count up only after a grace period, so
//! a reader inside an RCU read section may use the value without counting itself in.

use crate::KArc;
use core::{marker::PhantomData, ptr};
use sync::{
    atomic::{AtomicPtr, Ordering},
    rcu,
};

/// An RCU-protected `Option<KArc<T>>`.
pub struct RcuArc<T: Send + Sync + 'static> {
    /// From `KArc::into_raw`, or null.
    slot: AtomicPtr<T>,
    _owns: PhantomData<KArc<T>>,
}

impl<T: Send + Sync + 'static> RcuArc<T> {
    /// A slot with `value` in it.
    pub fn new(value: Option<KArc<T>>) -> Self {
        Self { slot: AtomicPtr::new(into_ptr(value)), _owns: PhantomData }
    }

    /// The value, for as long as the read section lasts.
    #[inline]
    pub fn load<'g>(&self, _guard: &'g rcu::ReadGuard) -> Option<&'g T> {
        // Acquire pairs with the release in `swap`: what the writer wrote into the value is seen.
        // SAFETY: null, or a value whose strong count is given up a grace period after it left the
        // slot; the guard keeps that from ending.
        unsafe { self.slot.load(Ordering::Acquire).as_ref() }
    }

    /// A handle of its own to the value.
    pub fn get(&self) -> Option<KArc<T>> {
        let guard = rcu::read_lock();
        // SAFETY: the slot's strong count exists while the guard does (see `load`).
        self.load(&guard).map(|v| unsafe { KArc::clone_from_ptr(v) })
    }

    /// Puts `value` in; what was there is dropped after a grace period. Any context.
    pub fn store(&self, value: Option<KArc<T>>) {
        drop_later(self.slot.swap(into_ptr(value), Ordering::AcqRel));
    }

    /// Puts `value` in and hands out what was there. The slot's own count of it is given up after
    /// a grace period, so the caller may drop the handle at any time.
    pub fn swap(&self, value: Option<KArc<T>>) -> Option<KArc<T>> {
        let old = self.slot.swap(into_ptr(value), Ordering::AcqRel);
        if old.is_null() {
            return None;
        }
        // SAFETY: the count that the slot owned is still there, and is now ours to defer.
        let handle = unsafe { KArc::clone_from_ptr(old) };
        drop_later(old);
        Some(handle)
    }

    /// The value, exclusively held slot: no reader can exist.
    pub fn get_mut_arc(&mut self) -> Option<KArc<T>> {
        let p = *self.slot.get_mut();
        // SAFETY: the slot owns a count of a non-null pointer.
        (!p.is_null()).then(|| unsafe { KArc::clone_from_ptr(p) })
    }

    /// Whether there is no value at this moment.
    pub fn is_none(&self) -> bool {
        self.slot.load(Ordering::Relaxed).is_null()
    }
}

fn into_ptr<T>(value: Option<KArc<T>>) -> *mut T {
    value.map_or(ptr::null_mut(), |v| KArc::into_raw(v).cast_mut())
}

fn drop_later<T>(p: *mut T) {
    if !p.is_null() {
        // SAFETY: `p` came from into_raw and its count is the slot's, which has let go of it.
        KArc::drop_after_grace_period(unsafe { KArc::from_raw(p) });
    }
}

impl<T: Send + Sync + 'static> Drop for RcuArc<T> {
    fn drop(&mut self) {
        // Readers that reached the value through this slot may still be there although the slot
        // itself goes (it sat in an object that is freed by RCU, or they borrowed the guard).
        drop_later(*self.slot.get_mut());
    }
}

impl<T: Send + Sync + 'static> Default for RcuArc<T> {
    fn default() -> Self {
        Self::new(None)
    }
}

impl<T: Send + Sync + 'static> From<KArc<T>> for RcuArc<T> {
    fn from(v: KArc<T>) -> Self {
        Self::new(Some(v))
    }
}

impl<T: Send + Sync + 'static> core::fmt::Debug for RcuArc<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if self.is_none() { "RcuArc(None)" } else { "RcuArc(Some)" })
    }
}

