//! From a mapping's protection to the bits of a page-table entry.
//!
//! An entry that allows writing means: the page is this mapping's to write, and already counted
//! dirty. Everything else that may be written is mapped read-only, and the first store faults
//! (copy on write, dirty marking). So no hardware dirty state is needed, and none is used; access
//! flags are set when an entry is made, and again by hardware (FEAT_HAFDBS) or by a fault after
//! ageing cleared them.

use arch::mmu::pte::{AP_RO, AP_USER, GP, SW_SPECIAL, USER_BASE, UXN};
use frames::pagetable::{Pte, PteSlot};

use crate::Prot;

/// The bits for a page of an area; `writable` when it may be stored to at once.
pub(crate) fn bits(prot: Prot, writable: bool) -> u64 {
    // On this architecture write and execute imply read (without FEAT_EPAN, Linux's rule).
    let mut bits = USER_BASE;
    if prot.is_empty() {
        bits &= !AP_USER;
    }
    if !prot.contains(Prot::X) {
        bits |= UXN;
    }
    if prot.contains(Prot::BTI) {
        bits |= GP;
    }
    if !(writable && prot.contains(Prot::W)) {
        bits |= AP_RO;
    }
    bits
}

/// Whether an entry with these bits lets programs store.
pub(crate) fn writable(bits: u64) -> bool {
    bits & AP_RO == 0 && bits & AP_USER != 0
}

/// Whether it lets programs execute.
pub(crate) fn executable(bits: u64) -> bool {
    bits & UXN == 0 && bits & AP_USER != 0
}

/// Gives a present entry these bits; it goes on mapping what it maps. Whether that is a change,
/// which the caller flushes.
pub(crate) fn set(slot: &mut PteSlot<'_>, bits: u64) -> bool {
    slot.update(|old| Pte(old.phys().0 | old.0 & SW_SPECIAL | bits & !SW_SPECIAL))
}

/// What an entry showed when it was looked at: to see later whether it is still the same page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen(u64);

impl Seen {
    pub(crate) fn of(slot: &PteSlot<'_>) -> Self {
        Self(slot.get().phys().0)
    }
}
