//! Where the bytes come from: the slab on the target, std's allocator on the host.
//!
//! Every container of this crate asks here, so one place decides the source, counts injected
//! failures and turns "no memory" into [`AllocError`].

use crate::AllocError;
use core::{alloc::Layout, ptr::NonNull};

/// Memory for `layout`. A layout of size zero gets an aligned dangling pointer.
///
/// Any context (the slab decides by the preempt count whether it may wait).
pub(crate) fn allocate(layout: Layout) -> Result<NonNull<u8>, AllocError> {
    if layout.size() == 0 {
        return Ok(layout.dangling_ptr());
    }
    if crate::fail::should_fail() {
        return Err(AllocError);
    }
    source::allocate(layout).ok_or(AllocError)
}

/// Gives back what [`allocate`] returned.
///
/// # Safety
/// `ptr` came from `allocate` with the same `layout` and is not used again.
pub(crate) unsafe fn deallocate(ptr: NonNull<u8>, layout: Layout) {
    if layout.size() != 0 {
        // SAFETY: the caller's condition, and a non-zero size came from the source.
        unsafe { source::deallocate(ptr, layout) }
    }
}

#[cfg(target_os = "none")]
mod source {
    use super::*;

    pub(super) fn allocate(layout: Layout) -> Option<NonNull<u8>> {
        frames::slab::kmalloc(layout)
    }

    /// # Safety
    /// As [`super::deallocate`].
    pub(super) unsafe fn deallocate(ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's condition.
        unsafe { frames::slab::kfree(ptr, layout) }
    }
}

#[cfg(not(target_os = "none"))]
mod source {
    use super::*;
    extern crate std;

    pub(super) fn allocate(layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the size is not zero (checked by the caller in this file).
        NonNull::new(unsafe { std::alloc::alloc(layout) })
    }

    /// # Safety
    /// As [`super::deallocate`].
    pub(super) unsafe fn deallocate(ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's condition.
        unsafe { std::alloc::dealloc(ptr.as_ptr(), layout) }
    }
}
