//! A CPU's stock of free objects: one page with a magazine for each cache.
//!
//! Touched only by its own CPU with interrupts off, so plain memory.

use crate::{AllocFlags, FrameFlags, alloc_frame};
use core::{ptr, ptr::NonNull};
use sync::{
    IrqGuard, PerCpu,
    atomic::{AtomicPtr, Ordering},
    per_cpu,
};

/// Objects in a magazine: with its length it fills 128 bytes.
pub(super) const ROUNDS: usize = 15;
/// Caches that have magazines: as many as fit in a page.
pub(super) const CACHES: usize = 32;

#[repr(C)]
pub(super) struct Magazine {
    len: usize,
    objects: [*mut u8; ROUNDS],
}

#[repr(C)]
struct Area([Magazine; CACHES]);

const _: () = assert!(size_of::<Area>() == abi::PAGE_SIZE);

static AREAS: PerCpu<AtomicPtr<Area>> = per_cpu!(AtomicPtr::new(ptr::null_mut()));

impl Magazine {
    #[inline]
    pub(super) fn pop(&mut self) -> Option<NonNull<u8>> {
        self.len = self.len.checked_sub(1)?;
        self.objects.get(self.len).copied().and_then(NonNull::new)
    }

    /// False when it is full.
    #[inline]
    pub(super) fn push(&mut self, p: NonNull<u8>) -> bool {
        match self.objects.get_mut(self.len) {
            Some(slot) => {
                *slot = p.as_ptr();
                self.len += 1;
                true
            }
            None => false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[cfg(debug_assertions)]
    pub(super) fn has(&self, p: NonNull<u8>) -> bool {
        self.objects.iter().take(self.len).any(|o| *o == p.as_ptr())
    }
}

/// Calls `f` with this CPU's magazine of cache `id`; `None` if it has none (no memory for the page,
/// or too many caches).
#[inline]
pub(super) fn with<R>(id: usize, guard: &IrqGuard, f: impl FnOnce(&mut Magazine) -> R) -> Option<R> {
    let slot = AREAS.this(guard);
    let mut area = slot.load(Ordering::Relaxed);
    if area.is_null() {
        area = make(slot)?;
    }
    // SAFETY: this CPU's area, live for ever; interrupts are off and `f` does not come here again
    // (the cache's code calls nothing that allocates inside), so nobody else has it.
    unsafe { (*area).0.get_mut(id) }.map(f)
}

#[cold]
fn make(slot: &AtomicPtr<Area>) -> Option<*mut Area> {
    let frame = alloc_frame(AllocFlags::ZERO | AllocFlags::ATOMIC).ok()?;
    frame.set(FrameFlags::OWNER);
    // All zero is a page of empty magazines.
    let area = ptr::with_exposed_provenance_mut(frame.into_raw().virt().as_usize());
    slot.store(area, Ordering::Relaxed);
    Some(area)
}

/// Objects of cache `id` in all magazines, about: other CPUs change theirs meanwhile.
pub(super) fn stock(id: usize) -> usize {
    let areas = AREAS.iter().map(|(_, a)| a.load(Ordering::Relaxed)).filter(|a| !a.is_null());
    areas
        .map(|a| {
            // SAFETY: areas live for ever; the length is a word that its CPU may be writing, and
            // any value that is read is only shown.
            unsafe {
                let m = (&raw const (*a).0).cast::<Magazine>().wrapping_add(id.min(CACHES - 1));
                (&raw const (*m).len).read_volatile()
            }
        })
        .sum()
}
