//! What RCU-readable containers hold: one word that owns something.
//!
//! The container's word owns one count of the object. A reader in an RCU read section may look at
//! the object behind a word that it loaded; how a word that left the container gives its count up
//! without hurting such a reader is the entry type's business.

use core::num::NonZeroUsize;
use kalloc::KArc;
use sync::{
    atomic::{AtomicUsize, Ordering},
    rcu::ReadGuard,
};

/// Something that an [`XArray`](crate::XArray) or [`IdMap`](crate::IdMap) holds.
///
/// # Safety
/// 1. `into_raw` gives a word whose lowest two bits are zero, and which no other live object of
///    the type has.
/// 2. After `take` or `drop_later`, what `peek` gave to a reader stays valid until the read
///    section in which it was loaded ends.
/// 3. `acquire` on a loaded word is allowed even when the word has meanwhile left the container,
///    in the read section in which it was loaded.
pub unsafe trait Entry: Send + Sync + Sized + 'static {
    /// What a reader sees without taking a count.
    type Ref<'g>: Copy;

    /// Gives up the handle as a word.
    fn into_raw(self) -> NonZeroUsize;
    /// # Safety
    /// `raw` came from `into_raw`, and no reader can have seen it.
    unsafe fn from_raw(raw: NonZeroUsize) -> Self;
    /// # Safety
    /// `raw` was loaded from a container within `guard`'s read section.
    unsafe fn peek(raw: NonZeroUsize, guard: &ReadGuard) -> Self::Ref<'_>;
    /// A handle of its own; `None` if the object is on its way out. When this is not `None` the
    /// caller must check that the container still has the word, and else drop the handle.
    ///
    /// # Safety
    /// As `peek`.
    unsafe fn acquire(raw: NonZeroUsize, guard: &ReadGuard) -> Option<Self>;
    /// The handle of a word that has left the container, where readers may still see it.
    ///
    /// # Safety
    /// `raw` came from `into_raw` and has just left the container, once.
    unsafe fn take(raw: NonZeroUsize) -> Self;
    /// Gives up the count of a word that has left the container, where readers may still see it.
    ///
    /// # Safety
    /// As `take`.
    unsafe fn drop_later(raw: NonZeroUsize) {
        // SAFETY: the caller's condition.
        drop(unsafe { Self::take(raw) });
    }
}

/// A handle of what `slot` has: taken speculatively, kept if the slot still has it.
pub(crate) fn acquire_slot<E: Entry>(slot: &AtomicUsize, guard: &ReadGuard) -> Option<E> {
    loop {
        let raw = NonZeroUsize::new(slot.load(Ordering::Acquire))?;
        // SAFETY: loaded in this read section.
        if let Some(entry) = unsafe { E::acquire(raw, guard) } {
            if slot.load(Ordering::Acquire) == raw.get() {
                return Some(entry);
            }
        } else if slot.load(Ordering::Acquire) == raw.get() {
            // Its last count is going while it is still here: whoever holds it frozen (migration,
            // reclaim) is about to take it out.
            sync::atomic::spin_loop();
        }
    }
}

fn as_ptr<T>(raw: NonZeroUsize) -> *const T {
    core::ptr::with_exposed_provenance(raw.get())
}

// SAFETY: 1. the address of a value in a block that is at least 4-aligned (its counts are) and at
// an offset that is a multiple of 4; a zero-sized value shares no address, since the block has
// counts. 2. and 3. the container's count is given up by `drop_after_grace_period`.
unsafe impl<T: Send + Sync + 'static> Entry for KArc<T> {
    type Ref<'g> = &'g T;

    fn into_raw(self) -> NonZeroUsize {
        let ptr = KArc::into_raw(self);
        // SAFETY: a heap address is not zero.
        unsafe { NonZeroUsize::new_unchecked(ptr.expose_provenance()) }
    }
    unsafe fn from_raw(raw: NonZeroUsize) -> Self {
        // SAFETY: the caller's condition.
        unsafe { KArc::from_raw(as_ptr(raw)) }
    }
    unsafe fn peek(raw: NonZeroUsize, _guard: &ReadGuard) -> &T {
        // SAFETY: the count behind the word lives as long as the read section.
        unsafe { &*as_ptr::<T>(raw) }
    }
    unsafe fn acquire(raw: NonZeroUsize, _guard: &ReadGuard) -> Option<Self> {
        // SAFETY: as `peek`: some strong count exists meanwhile.
        Some(unsafe { KArc::clone_from_ptr(as_ptr(raw)) })
    }
    unsafe fn take(raw: NonZeroUsize) -> Self {
        // SAFETY: the word's own count is still there and ours; the caller gets a new one.
        unsafe {
            let handle = KArc::clone_from_ptr(as_ptr(raw));
            Self::drop_later(raw);
            handle
        }
    }
    unsafe fn drop_later(raw: NonZeroUsize) {
        // SAFETY: the word's own count, given up once.
        KArc::drop_after_grace_period(unsafe { KArc::from_raw(as_ptr::<T>(raw)) });
    }
}

// SAFETY: 1. descriptors are 64-aligned, one for each frame. 2. descriptors live for ever; what
// `peek` gives is the descriptor, not the content. 3. `try_get` fails on a frame without holders;
// a frame that has others meanwhile is noticed by the caller's second look at the slot.
unsafe impl Entry for frames::FrameRef {
    type Ref<'g> = &'static frames::Frame;

    fn into_raw(self) -> NonZeroUsize {
        let ptr = core::ptr::from_ref(frames::FrameRef::into_raw(self));
        // SAFETY: the address of a reference is not zero.
        unsafe { NonZeroUsize::new_unchecked(ptr.expose_provenance()) }
    }
    unsafe fn from_raw(raw: NonZeroUsize) -> Self {
        // SAFETY: the caller's condition: the word owns a reference.
        unsafe { frames::FrameRef::from_raw(&*as_ptr::<frames::Frame>(raw)) }
    }
    unsafe fn peek(raw: NonZeroUsize, _guard: &ReadGuard) -> &'static frames::Frame {
        // SAFETY: the address of a descriptor, which lives for ever.
        unsafe { &*as_ptr::<frames::Frame>(raw) }
    }
    unsafe fn acquire(raw: NonZeroUsize, guard: &ReadGuard) -> Option<Self> {
        // SAFETY: as `peek`.
        frames::FrameRef::try_get(unsafe { Self::peek(raw, guard) })
    }
    unsafe fn take(raw: NonZeroUsize) -> Self {
        // SAFETY: the word's own reference, given up once. Readers took theirs or look again.
        unsafe { <Self as Entry>::from_raw(raw) }
    }
}
