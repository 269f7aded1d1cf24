//! Exchanges of contended words: the host's own.

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

/// Stores `new`; what was there. Acquire and release.
pub fn swap_u8(place: &AtomicU8, new: u8) -> u8 {
    place.swap(new, Ordering::AcqRel)
}

/// Stores `new`; what was there. Acquire and release.
pub fn swap_u16(place: &AtomicU16, new: u16) -> u16 {
    place.swap(new, Ordering::AcqRel)
}
