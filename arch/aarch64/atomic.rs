//! Exchanges of contended words, by the Large System Extensions where all CPUs have them.
//!
//! What is seldom contended uses the compiler's atomics, which are loops of exclusive loads and
//! stores: as cheap, and inline.

use core::sync::atomic::{AtomicU8, AtomicU16};

core::arch::global_asm!(
    include_str!("alternative.inc"),
    include_str!("atomic.S"),
    ".purgem alternative",
    LSE = const crate::features::Feature::Lse as u32,
);

unsafe extern "C" {
    fn linnet_swap_u8(place: *mut u8, new: u8) -> u8;
    fn linnet_swap_u16(place: *mut u16, new: u16) -> u16;
}

/// Stores `new`; what was there. Acquire and release.
#[inline]
pub fn swap_u8(place: &AtomicU8, new: u8) -> u8 {
    // SAFETY: a live byte, which is only accessed by atomic instructions.
    unsafe { linnet_swap_u8(place.as_ptr(), new) }
}

/// Stores `new`; what was there. Acquire and release.
#[inline]
pub fn swap_u16(place: &AtomicU16, new: u16) -> u16 {
    // SAFETY: an aligned live word, which is only accessed by atomic instructions.
    unsafe { linnet_swap_u16(place.as_ptr(), new) }
}
