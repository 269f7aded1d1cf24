//! `KArc`: shared ownership by an atomic count, with weak handles.
//!
//! The block is `{ strong, weak, deferred drops, value }`. The count of deferred drops and the RCU
//! node let [`KArc::drop_after_grace_period`] work without an allocation, and so without a way to
//! fail: every structure with RCU readers depends on that.
//!
//! Memory order: as in every reference count, an increment is relaxed (the caller holds a count
//! already); a decrement is a release, and whoever reaches zero does an acquire fence that pairs
//! with all the releases before it drops or frees.

use crate::{AllocError, TryClone, raw};
use core::{
    alloc::Layout,
    any::Any,
    cell::UnsafeCell,
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Deref,
    ptr::NonNull,
};
use sync::{
    atomic::{AtomicU32, Ordering, fence},
    rcu,
};

/// A count above this is a leak in a loop; the block is then kept for ever instead of wrapping to
/// a use after free.
const MAX_COUNT: u32 = i32::MAX as u32;

/// In `deferred`: the block itself must outlive its last handle by a grace period, because an
/// [`ArcSlot`](crate::ArcSlot) may lead readers to it.
const FREE_LATER: u32 = 1 << 31;

#[repr(C)]
pub(crate) struct Inner<T: ?Sized> {
    strong: AtomicU32,
    /// Weak handles, plus one held by all strong handles together.
    weak: AtomicU32,
    /// Strong counts that wait for a grace period, and `FREE_LATER`.
    deferred: AtomicU32,
    /// How many of `deferred` the grace period now under way covers. Written by whoever raised
    /// `deferred` from zero, then only by the callback: never by two at once.
    covered: UnsafeCell<u32>,
    node: rcu::Head,
    pub(crate) value: T,
}

/// A shared value on the heap.
#[repr(transparent)]
pub struct KArc<T: ?Sized> {
    ptr: NonNull<Inner<T>>,
    _owns: PhantomData<Inner<T>>,
}

/// A handle that does not keep the value alive.
pub struct KWeak<T: ?Sized> {
    /// The block, or `usize::MAX` for [`KWeak::new`].
    ptr: NonNull<Inner<T>>,
}

// SAFETY: a KArc may hand `&T` to other threads (Sync) and drop T on any of them (Send).
unsafe impl<T: ?Sized + Send + Sync> Send for KArc<T> {}
// SAFETY: as above; `&KArc<T>` can be cloned.
unsafe impl<T: ?Sized + Send + Sync> Sync for KArc<T> {}
// SAFETY: a weak handle can become a strong one.
unsafe impl<T: ?Sized + Send + Sync> Send for KWeak<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for KWeak<T> {}

fn new_inner<T>(value: T, strong: u32) -> Inner<T> {
    Inner {
        strong: AtomicU32::new(strong),
        weak: AtomicU32::new(1),
        deferred: AtomicU32::new(0),
        covered: UnsafeCell::new(0),
        node: rcu::Head::new(),
        value,
    }
}

/// Distance from the start of the block to a value of alignment `align`.
const fn value_offset(align: usize) -> usize {
    let head = size_of::<Inner<()>>();
    (head + align - 1) & !(align - 1)
}

impl<T> KArc<T> {
    /// Moves `value` to the heap, shared.
    pub fn try_new(value: T) -> Result<Self, AllocError> {
        // The block's size fits the 32 bits that `free_block` has for it.
        const { assert!(size_of::<T>() < 1 << 31) };
        let ptr = raw::allocate(Layout::new::<Inner<T>>())?.cast::<Inner<T>>();
        // SAFETY: fresh memory of this layout.
        unsafe { ptr.write(new_inner(value, 1)) };
        Ok(Self { ptr, _owns: PhantomData })
    }

    /// A value that holds a weak handle to itself. The handle does not upgrade until `make` has
    /// returned.
    pub fn try_new_cyclic(make: impl FnOnce(&KWeak<T>) -> T) -> Result<Self, AllocError> {
        Self::try_new_cyclic_fallible(|weak| Ok(make(weak)))
    }

    /// As [`try_new_cyclic`](Self::try_new_cyclic), with a `make` that can fail.
    pub fn try_new_cyclic_fallible<E: From<AllocError>>(
        make: impl FnOnce(&KWeak<T>) -> Result<T, E>,
    ) -> Result<Self, E> {
        let ptr = raw::allocate(Layout::new::<Inner<T>>())?.cast::<Inner<core::mem::MaybeUninit<T>>>();
        // SAFETY: fresh memory; MaybeUninit<T> has the layout of T.
        unsafe { ptr.write(new_inner(core::mem::MaybeUninit::uninit(), 0)) };
        let ptr = ptr.cast::<Inner<T>>();
        // The strong handles' common weak count, which goes back if `make` fails or unwinds.
        let weak = KWeak { ptr };
        let value = make(&weak)?;
        // SAFETY: strong is 0, so nobody looks at the value before the store below.
        unsafe { (&raw mut (*ptr.as_ptr()).value).write(value) };
        // SAFETY: the block lives, `weak` holds it.
        // Release: pairs with the acquire in KWeak::upgrade, so that who upgrades sees the value.
        unsafe { ptr.as_ref() }.strong.store(1, Ordering::Release);
        let _now_owned_by_strong = ManuallyDrop::new(weak);
        Ok(Self { ptr, _owns: PhantomData })
    }

    /// The value, if this is its only strong handle.
    pub fn try_unwrap(this: Self) -> Result<T, Self> {
        let inner = this.inner();
        if inner.strong.compare_exchange(1, 0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Err(this);
        }
        fence(Ordering::Acquire);
        let this = ManuallyDrop::new(this);
        // SAFETY: strong was 1 and is 0: nobody else reads the value; it moves out once. The weak
        // handle that the strong ones held frees the block.
        unsafe {
            let value = (&raw const (*this.ptr.as_ptr()).value).read();
            drop(KWeak { ptr: this.ptr });
            Ok(value)
        }
    }

    /// Gives up this handle once every RCU reader of now has left. Does not wait, cannot fail;
    /// any context. The value is then dropped by the RCU callback thread.
    pub fn drop_after_grace_period(this: Self) {
        let this = ManuallyDrop::new(this);
        let inner = this.inner();
        // AcqRel: the callback of the previous round, which lowered the count to zero, is done
        // with `covered` and `node` before we write them.
        if inner.deferred.fetch_add(1, Ordering::AcqRel) & !FREE_LATER == 0 {
            // SAFETY: we raised the count from zero, so `covered` and the node are ours until the
            // callback takes them.
            unsafe {
                *inner.covered.get() = 1;
                rcu::call(NonNull::from(&inner.node), grace_period_over::<T>);
            }
        }
    }
}

impl<T> KArc<T> {
    /// From now on the block's memory outlives its last handle by a grace period.
    pub(crate) fn free_by_rcu(this: &Self) {
        let deferred = &this.inner().deferred;
        if deferred.load(Ordering::Relaxed) & FREE_LATER == 0 {
            deferred.fetch_or(FREE_LATER, Ordering::Relaxed);
        }
    }

    /// One more handle of a value whose last one may be going at this moment; then `None`.
    ///
    /// # Safety
    /// `ptr` came from [`into_raw`](Self::into_raw) after [`free_by_rcu`](Self::free_by_rcu), and
    /// was loaded in an RCU read section, which has not ended, from where it was before the last
    /// handle went.
    pub(crate) unsafe fn try_clone_from_ptr(ptr: *const T) -> Option<Self> {
        // SAFETY: the block lives while the read section does. Only its count is looked at.
        unsafe {
            let inner = ptr.byte_sub(core::mem::offset_of!(Inner<T>, value)).cast::<Inner<T>>().cast_mut();
            let weak = ManuallyDrop::new(KWeak { ptr: NonNull::new_unchecked(inner) });
            weak.upgrade()
        }
    }
}

/// Frees a block after its grace period; its layout was left in `deferred` and `covered`.
///
/// # Safety
/// `node` is that of a block without handles.
unsafe fn free_block(node: NonNull<rcu::Head>) {
    // SAFETY: the block is ours alone now. `node` is at the same offset for every T: the value
    // comes after it.
    unsafe {
        let ptr = node.byte_sub(core::mem::offset_of!(Inner<()>, node)).cast::<Inner<()>>();
        let size = ptr.as_ref().deferred.load(Ordering::Relaxed) as usize;
        let align = *ptr.as_ref().covered.get() as usize;
        raw::deallocate(ptr.cast(), Layout::from_size_align_unchecked(size, align));
    }
}

/// The RCU callback of [`KArc::drop_after_grace_period`].
///
/// # Safety
/// `node` is the node of a block with at least `covered` deferred strong counts.
unsafe fn grace_period_over<T>(node: NonNull<rcu::Head>) {
    // SAFETY: the node is a field of the block, which the deferred counts keep alive.
    unsafe {
        let ptr = node.byte_sub(core::mem::offset_of!(Inner<T>, node)).cast::<Inner<T>>();
        let inner = ptr.as_ref();
        let covered = *inner.covered.get();
        let left = inner.deferred.fetch_sub(covered, Ordering::AcqRel).wrapping_sub(covered) & !FREE_LATER;
        if left != 0 {
            // Those came while we waited: a round of their own, counted from now.
            *inner.covered.get() = left;
            rcu::call(node, grace_period_over::<T>);
        }
        for _ in 0..covered {
            drop(KArc { ptr, _owns: PhantomData });
        }
    }
}

impl<T: ?Sized> KArc<T> {
    #[inline]
    fn inner(&self) -> &Inner<T> {
        // SAFETY: invariant 2: a strong handle keeps block and value alive.
        unsafe { self.ptr.as_ref() }
    }

    /// Whether both are handles of the same value.
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        core::ptr::addr_eq(this.ptr.as_ptr(), other.ptr.as_ptr())
    }

    /// The address of the value.
    pub fn as_ptr(this: &Self) -> *const T {
        // SAFETY: the block is alive; only the address of the field is formed.
        unsafe { &raw const (*this.ptr.as_ptr()).value }
    }

    /// A weak handle.
    pub fn downgrade(this: &Self) -> KWeak<T> {
        let old = this.inner().weak.fetch_add(1, Ordering::Relaxed);
        saturate(&this.inner().weak, old);
        KWeak { ptr: this.ptr }
    }

    /// Strong handles at this moment.
    pub fn strong_count(this: &Self) -> usize {
        this.inner().strong.load(Ordering::Relaxed) as usize
    }

    /// Weak handles at this moment.
    pub fn weak_count(this: &Self) -> usize {
        this.inner().weak.load(Ordering::Relaxed).saturating_sub(1) as usize
    }

    /// The value, exclusively, if this is its only handle of either kind.
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        let inner = this.inner();
        // A weak count of 1 is the strong handles' own. It is locked while we look at `strong`, so
        // that a concurrent downgrade-and-drop of another strong handle cannot slip between.
        if inner.weak.compare_exchange(1, u32::MAX, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return None;
        }
        let alone = inner.strong.load(Ordering::Acquire) == 1;
        inner.weak.store(1, Ordering::Release);
        if !alone {
            return None;
        }
        // SAFETY: the only handle, and it is borrowed exclusively.
        Some(unsafe { &mut (*this.ptr.as_ptr()).value })
    }

    /// Gives up the handle as a pointer to the value; [`from_raw`](Self::from_raw) takes it back.
    pub fn into_raw(this: Self) -> *const T {
        Self::as_ptr(&ManuallyDrop::new(this))
    }

    /// # Safety
    /// `ptr` came from [`into_raw`](Self::into_raw), and this is the only use of that ownership.
    pub unsafe fn from_raw(ptr: *const T) -> Self {
        // SAFETY: the value is alive, so its alignment can be asked; the block starts that much
        // before it and ends in the same unsized tail, so the metadata carries over.
        unsafe {
            let offset = value_offset(align_of_val(&*ptr));
            let inner = ptr.byte_sub(offset) as *mut Inner<T>;
            Self { ptr: NonNull::new_unchecked(inner), _owns: PhantomData }
        }
    }

    /// One more handle of a value that came out of a `KArc`.
    ///
    /// # Safety
    /// `ptr` came from [`into_raw`](Self::into_raw) or [`as_ptr`](Self::as_ptr), and some strong
    /// handle exists for the duration of the call.
    pub unsafe fn clone_from_ptr(ptr: *const T) -> Self {
        // SAFETY: the caller's condition; the borrowed handle is not dropped.
        unsafe { (*ManuallyDrop::new(Self::from_raw(ptr))).clone() }
    }
}

impl<T: Any + Send + Sync> KArc<T> {
    /// The handle with its type forgotten.
    pub fn into_any(self) -> KArc<dyn Any + Send + Sync> {
        KArc { ptr: ManuallyDrop::new(self).ptr, _owns: PhantomData }
    }
}

impl KArc<dyn Any + Send + Sync> {
    /// The handle as one of `U`, or itself back.
    pub fn downcast<U: Any + Send + Sync>(self) -> Result<KArc<U>, Self> {
        if (*self).is::<U>() {
            Ok(KArc { ptr: ManuallyDrop::new(self).ptr.cast(), _owns: PhantomData })
        } else {
            Err(self)
        }
    }
}

/// Stops a count that left its range from ever reaching zero again.
#[inline]
fn saturate(count: &AtomicU32, old: u32) {
    if old >= MAX_COUNT {
        stay_saturated(count);
    }
}

#[cold]
fn stay_saturated(count: &AtomicU32) {
    static WARNED: AtomicU32 = AtomicU32::new(0);
    // Half the range is between here and zero: no number of CPUs crosses it before this store.
    count.store(MAX_COUNT + MAX_COUNT / 2, Ordering::Relaxed);
    if WARNED.swap(1, Ordering::Relaxed) == 0 {
        klog::print(klog::Level::Err, format_args!("BUG: a reference count saturated; its object is leaked"));
    }
}

impl<T: ?Sized> Clone for KArc<T> {
    #[inline]
    fn clone(&self) -> Self {
        let old = self.inner().strong.fetch_add(1, Ordering::Relaxed);
        saturate(&self.inner().strong, old);
        Self { ptr: self.ptr, _owns: PhantomData }
    }
}

impl<T: ?Sized> TryClone for KArc<T> {
    fn try_clone(&self) -> Result<Self, AllocError> {
        Ok(self.clone())
    }
}

impl<T: ?Sized> Drop for KArc<T> {
    #[inline]
    fn drop(&mut self) {
        let old = self.inner().strong.fetch_sub(1, Ordering::Release);
        if old != 1 {
            if old > MAX_COUNT {
                saturate(&self.inner().strong, old);
            }
            return;
        }
        // Pairs with the release decrements of all the other handles.
        fence(Ordering::Acquire);
        // SAFETY: the last strong handle: the value is dropped once; the weak handle that the
        // strong ones held frees the block when no other weak handle is left.
        unsafe {
            (&raw mut (*self.ptr.as_ptr()).value).drop_in_place();
            drop(KWeak { ptr: self.ptr });
        }
    }
}

impl<T: ?Sized> Deref for KArc<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T> KWeak<T> {
    /// A handle of nothing: never upgrades. Needs no memory.
    pub const fn new() -> Self {
        Self { ptr: NonNull::without_provenance(core::num::NonZeroUsize::MAX) }
    }
}

impl<T> Default for KWeak<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: ?Sized> KWeak<T> {
    fn is_dangling(&self) -> bool {
        self.ptr.cast::<()>().addr() == core::num::NonZeroUsize::MAX
    }

    /// The two counts, if there is a block.
    fn counts(&self) -> Option<(&AtomicU32, &AtomicU32)> {
        if self.is_dangling() {
            return None;
        }
        // SAFETY: invariant 2: the block lives while a weak handle does. Only the counts are
        // borrowed: the value may be gone or not there yet.
        unsafe {
            let p = self.ptr.as_ptr();
            Some((&(*p).strong, &(*p).weak))
        }
    }

    /// A strong handle, if the value is still there.
    pub fn upgrade(&self) -> Option<KArc<T>> {
        let (strong, _) = self.counts()?;
        let mut n = strong.load(Ordering::Relaxed);
        loop {
            if n == 0 {
                return None;
            }
            // Acquire: pairs with the release in try_new_cyclic.
            match strong.compare_exchange_weak(n, n + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    saturate(strong, n);
                    return Some(KArc { ptr: self.ptr, _owns: PhantomData });
                }
                Err(now) => n = now,
            }
        }
    }

    /// Strong handles at this moment; 0 when the value is gone.
    pub fn strong_count(&self) -> usize {
        self.counts().map_or(0, |(strong, _)| strong.load(Ordering::Relaxed) as usize)
    }

    /// Whether both are handles of the same block.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        core::ptr::addr_eq(self.ptr.as_ptr(), other.ptr.as_ptr())
    }

    /// The block's address: a number that tells values apart, never to be followed.
    pub fn addr(&self) -> usize {
        self.ptr.cast::<()>().addr().get()
    }
}

impl<T: ?Sized> Clone for KWeak<T> {
    fn clone(&self) -> Self {
        if let Some((_, weak)) = self.counts() {
            let mut n = weak.load(Ordering::Relaxed);
            loop {
                // Locked for an instant by get_mut: cannot be, that needs weak == 1 with this
                // handle among none; but a spurious wait is harmless.
                if n == u32::MAX {
                    core::hint::spin_loop();
                    n = weak.load(Ordering::Relaxed);
                    continue;
                }
                match weak.compare_exchange_weak(n, n + 1, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(now) => n = now,
                }
            }
            saturate(weak, n);
        }
        Self { ptr: self.ptr }
    }
}

impl<T: ?Sized> Drop for KWeak<T> {
    fn drop(&mut self) {
        let Some((_, weak)) = self.counts() else { return };
        if weak.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // Pairs with the release decrements of the other handles.
        fence(Ordering::Acquire);
        // SAFETY: the last weak handle, so no strong one either: the block is ours. The layout of
        // a dropped value is that of the live one: size and alignment come from the metadata.
        unsafe {
            let inner = self.ptr.as_ref();
            let layout = Layout::for_value(inner);
            if inner.deferred.load(Ordering::Relaxed) & FREE_LATER == 0 {
                raw::deallocate(self.ptr.cast(), layout);
                return;
            }
            // No deferred strong count is left (each would be a handle), so node, `deferred` and
            // `covered` are free for the last journey. `strong` stays 0 for late readers.
            inner.deferred.store(layout.size() as u32, Ordering::Relaxed);
            *inner.covered.get() = layout.align() as u32;
            rcu::call(NonNull::from(&inner.node), free_block);
        }
    }
}

// SAFETY: the sized pointer is the block's own, typed as T only to gain the metadata of U, and is
// never followed; Inner<U> has U as its tail, so U's metadata is Inner<U>'s.
unsafe impl<T, U: ?Sized> unsize::CoerciblePtr<U> for KArc<T> {
    type Pointee = T;
    type Output = KArc<U>;
    fn as_sized_ptr(&mut self) -> *mut T {
        self.ptr.as_ptr().cast()
    }
    unsafe fn replace_ptr(self, new: *mut U) -> KArc<U> {
        let _given_up = ManuallyDrop::new(self);
        // SAFETY: not null: our own pointer with metadata.
        KArc { ptr: unsafe { NonNull::new_unchecked(new as *mut Inner<U>) }, _owns: PhantomData }
    }
}

// SAFETY: as for KArc.
unsafe impl<T, U: ?Sized> unsize::CoerciblePtr<U> for KWeak<T> {
    type Pointee = T;
    type Output = KWeak<U>;
    fn as_sized_ptr(&mut self) -> *mut T {
        self.ptr.as_ptr().cast()
    }
    unsafe fn replace_ptr(self, new: *mut U) -> KWeak<U> {
        let _given_up = ManuallyDrop::new(self);
        // SAFETY: not null: our own pointer with metadata.
        KWeak { ptr: unsafe { NonNull::new_unchecked(new as *mut Inner<U>) } }
    }
}

impl<T: ?Sized> AsRef<T> for KArc<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for KArc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for KArc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized> fmt::Debug for KWeak<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(KWeak)")
    }
}

impl<T: ?Sized + PartialEq> PartialEq for KArc<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl<T: ?Sized + Eq> Eq for KArc<T> {}

impl<T: ?Sized + Hash> Hash for KArc<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CoerceUnsize, Coercion, RcuArc};
    use std::sync::atomic::{AtomicU32 as Counter, Ordering::SeqCst};

    struct CountDrop(&'static Counter);
    impl Drop for CountDrop {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn a_count_that_saturates_never_frees_its_object() {
        struct Kept;
        impl Drop for Kept {
            fn drop(&mut self) {
                panic!("an object with a saturated count was freed");
            }
        }
        let arc = KArc::try_new(Kept).unwrap();
        // As if almost all the handles that a count can hold had been made.
        arc.inner().strong.store(MAX_COUNT, Ordering::Relaxed);
        let clone = arc.clone();
        let saturated = arc.inner().strong.load(Ordering::Relaxed);
        assert!(saturated > MAX_COUNT, "the next one saturates it");
        let count = core::mem::ManuallyDrop::new(arc.clone());
        for handle in [arc, clone] {
            drop(handle);
            assert_eq!(count.inner().strong.load(Ordering::Relaxed), saturated, "and no drop brings it down");
        }
        let mut warned = false;
        klog::syslog::read_all(1 << 16, |line| {
            warned |= String::from_utf8_lossy(line).contains("a reference count saturated");
            true
        });
        assert!(warned);
    }

    #[test]
    fn the_last_strong_handle_drops_the_value_and_weak_ones_stop_upgrading() {
        static DROPS: Counter = Counter::new(0);
        let a = KArc::try_new(CountDrop(&DROPS)).unwrap();
        let w = KArc::downgrade(&a);
        let b = w.upgrade().unwrap();
        assert!(KArc::ptr_eq(&a, &b));
        assert_eq!(KArc::strong_count(&a), 2);
        drop(a);
        assert_eq!(DROPS.load(SeqCst), 0);
        drop(b);
        assert_eq!(DROPS.load(SeqCst), 1);
        assert!(w.upgrade().is_none());
    }

    #[test]
    fn raw_round_trip_finds_the_block_for_every_alignment() {
        #[repr(align(64))]
        struct Wide(u8);
        trait Get {
            fn get(&self) -> u8;
        }
        impl Get for Wide {
            fn get(&self) -> u8 {
                self.0
            }
        }
        impl Get for u8 {
            fn get(&self) -> u8 {
                *self
            }
        }
        let wide: KArc<dyn Get> = crate::karc_dyn!(Wide(7) => dyn Get).unwrap();
        let narrow: KArc<dyn Get> = KArc::try_new(8u8).unwrap().unsize(Coercion!(to dyn Get));
        for (arc, n) in [(wide, 7), (narrow, 8)] {
            let p = KArc::into_raw(arc);
            // SAFETY: from into_raw just now.
            let arc = unsafe { KArc::from_raw(p) };
            assert_eq!(arc.get(), n);
            assert_eq!(KArc::strong_count(&arc), 1);
        }
    }

    #[test]
    fn a_weak_trait_handle_upgrades_to_the_same_value() {
        trait Name {
            fn name(&self) -> u32;
        }
        impl Name for u32 {
            fn name(&self) -> u32 {
                *self
            }
        }
        let a = KArc::try_new(5u32).unwrap();
        let w: KWeak<dyn Name> = KArc::downgrade(&a).unsize(Coercion!(to dyn Name));
        assert_eq!(w.upgrade().unwrap().name(), 5);
        drop(a);
        assert!(w.upgrade().is_none());
    }

    #[test]
    fn a_cyclic_value_upgrades_only_when_complete() {
        struct Node {
            me: KWeak<Node>,
        }
        let n = KArc::try_new_cyclic(|w| {
            assert!(w.upgrade().is_none());
            Node { me: w.clone() }
        })
        .unwrap();
        assert!(KArc::ptr_eq(&n, &n.me.upgrade().unwrap()));
        let failed: Result<KArc<Node>, AllocError> = KArc::try_new_cyclic_fallible(|_| Err(AllocError));
        assert!(failed.is_err());
    }

    #[test]
    fn get_mut_needs_to_be_alone() {
        let mut a = KArc::try_new(1).unwrap();
        *KArc::get_mut(&mut a).unwrap() = 2;
        let w = KArc::downgrade(&a);
        assert!(KArc::get_mut(&mut a).is_none());
        drop(w);
        let b = a.clone();
        assert!(KArc::get_mut(&mut a).is_none());
        drop(b);
        assert_eq!(KArc::try_unwrap(a).ok(), Some(2));
    }

    #[test]
    fn downcast_goes_back_to_the_concrete_type() {
        let a = KArc::try_new(7u64).unwrap().into_any();
        let a = a.downcast::<u32>().err().unwrap();
        assert_eq!(*a.downcast::<u64>().ok().unwrap(), 7);
    }

    #[test]
    fn deferred_drops_wait_for_readers_and_all_arrive() {
        static DROPS: Counter = Counter::new(0);
        let slot = RcuArc::new(Some(KArc::try_new(CountDrop(&DROPS)).unwrap()));
        let a = slot.get().unwrap();
        // The same value leaves two slots in one grace period, and a third one later.
        let second = RcuArc::new(Some(a.clone()));
        slot.store(None);
        second.store(Some(a));
        drop(second);
        assert_eq!(DROPS.load(SeqCst), 0);
        rcu::barrier();
        rcu::barrier();
        assert_eq!(DROPS.load(SeqCst), 1);
    }

    #[test]
    fn readers_never_see_a_dropped_value() {
        struct Alive(Counter);
        impl Drop for Alive {
            fn drop(&mut self) {
                self.0.store(0, SeqCst);
            }
        }
        let new = || KArc::try_new(Alive(Counter::new(1))).unwrap();
        let slot = RcuArc::new(Some(new()));
        let stop = std::sync::atomic::AtomicBool::new(false);
        arch::sim::run_on_cpus(3, |cpu| {
            if cpu.0 == 0 {
                for _ in 0..500 {
                    slot.store(Some(new()));
                    rcu::quiescent(cpu);
                    rcu::run_callbacks(cpu);
                }
                stop.store(true, SeqCst);
            } else {
                while !stop.load(SeqCst) {
                    let guard = rcu::read_lock();
                    assert_eq!(slot.load(&guard).unwrap().0.load(SeqCst), 1);
                    drop(guard);
                    assert_eq!(slot.get().unwrap().0.load(SeqCst), 1);
                    rcu::quiescent(cpu);
                }
            }
        });
    }
}
