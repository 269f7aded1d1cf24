//! `RcuArc`: a slot with an optional [`KArc`] that readers follow without a lock or a count.
//!
//! Whoever takes a pointer out of the slot gives its strong count up only after a grace period, so
//! a reader inside an RCU read section may use the value without counting itself in.
//!
//! [`ArcSlot`] is for values that must be dropped at a known moment (an open file at its last
//! close): a reader must count itself in to use the value; what goes out of the slot is the slot's
//! own handle, and only the block's memory waits for the grace period.

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
        self.get_in(&rcu::read_lock())
    }

    /// As [`get`](Self::get), in a read section that is there already.
    pub fn get_in(&self, guard: &rcu::ReadGuard) -> Option<KArc<T>> {
        // SAFETY: the slot's strong count exists while the guard does (see `load`).
        self.load(guard).map(|v| unsafe { KArc::clone_from_ptr(v) })
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


/// An optional [`KArc`] of which readers take handles without a lock; see the module's text.
pub struct ArcSlot<T: Send + Sync + 'static> {
    /// From `KArc::into_raw`, or null. Every block put in is freed by RCU.
    slot: AtomicPtr<T>,
    _owns: PhantomData<KArc<T>>,
}

impl<T: Send + Sync + 'static> ArcSlot<T> {
    /// A slot without a value.
    pub const fn empty() -> Self {
        Self { slot: AtomicPtr::new(ptr::null_mut()), _owns: PhantomData }
    }

    /// A slot with `value` in it.
    pub fn new(value: Option<KArc<T>>) -> Self {
        let slot = Self::empty();
        slot.slot.store(freed_by_rcu(value), Ordering::Relaxed);
        slot
    }

    /// A handle to the value.
    #[inline]
    pub fn get(&self) -> Option<KArc<T>> {
        self.get_in(&rcu::read_lock())
    }

    /// As [`get`](Self::get), in a read section that is there already.
    #[inline]
    pub fn get_in(&self, _guard: &rcu::ReadGuard) -> Option<KArc<T>> {
        loop {
            // Acquire pairs with the release in `swap`.
            let p = self.slot.load(Ordering::Acquire);
            if p.is_null() {
                return None;
            }
            // SAFETY: loaded in this read section from a slot that holds a handle of it.
            if let Some(handle) = unsafe { KArc::try_clone_from_ptr(p) } {
                return Some(handle);
            }
            // The last handle is gone, so the slot has another value by now: look again.
        }
    }

    /// Puts `value` in; the slot's own handle of what was there comes out.
    pub fn swap(&self, value: Option<KArc<T>>) -> Option<KArc<T>> {
        let old = self.slot.swap(freed_by_rcu(value), Ordering::AcqRel);
        // SAFETY: the slot's handle, taken out once.
        (!old.is_null()).then(|| unsafe { KArc::from_raw(old) })
    }

    /// Takes the slot's handle out.
    pub fn take(&self) -> Option<KArc<T>> {
        self.swap(None)
    }

    /// Puts `value` in if the slot is empty; else it comes back.
    pub fn set_if_empty(&self, value: KArc<T>) -> Result<(), KArc<T>> {
        let new = freed_by_rcu(Some(value));
        match self.slot.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            // SAFETY: the handle that did not go in.
            Err(_) => Err(unsafe { KArc::from_raw(new) }),
        }
    }

    /// Whether there is no value at this moment.
    pub fn is_none(&self) -> bool {
        self.slot.load(Ordering::Relaxed).is_null()
    }

    /// The address of the value, for comparison only.
    pub fn as_ptr(&self) -> *const T {
        self.slot.load(Ordering::Relaxed)
    }
}

fn freed_by_rcu<T>(value: Option<KArc<T>>) -> *mut T {
    if let Some(v) = &value {
        KArc::free_by_rcu(v);
    }
    into_ptr(value)
}

impl<T: Send + Sync + 'static> Drop for ArcSlot<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<T: Send + Sync + 'static> Default for ArcSlot<T> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<T: Send + Sync + 'static> core::fmt::Debug for ArcSlot<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if self.is_none() { "ArcSlot(None)" } else { "ArcSlot(Some)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

    struct Alive(AtomicU32);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.store(0, SeqCst);
        }
    }
    fn alive() -> KArc<Alive> {
        KArc::try_new(Alive(AtomicU32::new(1))).unwrap()
    }

    #[test]
    fn the_value_is_dropped_with_its_last_handle_and_not_later() {
        static DROPS: AtomicU32 = AtomicU32::new(0);
        struct Count;
        impl Drop for Count {
            fn drop(&mut self) {
                DROPS.fetch_add(1, SeqCst);
            }
        }
        let slot = ArcSlot::new(Some(KArc::try_new(Count).unwrap()));
        let handle = slot.get().unwrap();
        drop(slot.take());
        assert!(slot.get().is_none());
        assert_eq!(DROPS.load(SeqCst), 0);
        drop(handle);
        assert_eq!(DROPS.load(SeqCst), 1);
        rcu::barrier();
    }

    #[test]
    fn a_full_slot_refuses_another_value() {
        let slot = ArcSlot::new(Some(alive()));
        assert!(slot.set_if_empty(alive()).is_err());
        slot.take();
        assert!(slot.set_if_empty(alive()).is_ok());
    }

    #[test]
    fn handles_taken_during_swaps_are_of_live_values() {
        let slot = ArcSlot::new(Some(alive()));
        let stop = AtomicBool::new(false);
        arch::sim::run_on_cpus(3, |cpu| {
            if cpu.0 == 0 {
                for _ in 0..2000 {
                    drop(slot.swap(Some(alive())));
                    rcu::quiescent(cpu);
                    rcu::run_callbacks(cpu);
                }
                stop.store(true, SeqCst);
            } else {
                while !stop.load(SeqCst) {
                    assert_eq!(slot.get().unwrap().0.load(SeqCst), 1);
                    rcu::quiescent(cpu);
                }
            }
        });
    }
}
