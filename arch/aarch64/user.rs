//! Copies between the kernel and user memory, by unprivileged loads and stores with fix-up.
//!
//! All of them may sleep: a fault is served by the memory manager.

use abi::UserAddr;

#[path = "../common/user_typed.rs"]
mod user_typed;
pub use user_typed::*;

core::arch::global_asm!(
    include_str!("alternative.inc"),
    include_str!("usercopy.S"),
    ".purgem alternative",
    PAN = const crate::features::Feature::Pan as u32,
);

unsafe extern "C" {
    fn linnet_copy_from_user(to: *mut u8, from: u64, n: usize) -> usize;
    fn linnet_copy_to_user(to: u64, from: *const u8, n: usize) -> usize;
    fn linnet_clear_user(to: u64, n: usize) -> usize;
    fn linnet_copy_str(to: *mut u8, from: u64, room: usize) -> Pair;
    fn linnet_load_user_u32(addr: u64) -> Pair;
    fn linnet_cmpxchg_user_u32(addr: u64, old: u32, new: u32) -> Pair;
}

/// Two registers of result.
#[repr(C)]
struct Pair {
    x0: u64,
    x1: u64,
}

/// Bytes that a copy left undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncopied(pub usize);

fn outcome(left: usize) -> Result<(), Uncopied> {
    if left == 0 { Ok(()) } else { Err(Uncopied(left)) }
}

/// # Safety
/// `dst` is valid for writes of `len` bytes.
#[inline]
unsafe fn raw_copy_from_user(dst: *mut u8, src: UserAddr, len: usize) -> usize {
    if !src.range_ok(len as u64) {
        return len;
    }
    // SAFETY: the range is in the user half, where LDTR checks as EL0 and faults are fixed up.
    unsafe { linnet_copy_from_user(dst, src.0, len) }
}

/// # Safety
/// `src` is valid for reads of `len` initialised bytes.
#[inline]
unsafe fn raw_copy_to_user(dst: UserAddr, src: *const u8, len: usize) -> usize {
    if !dst.range_ok(len as u64) {
        return len;
    }
    // SAFETY: the range is in the user half, where STTR checks as EL0 and faults are fixed up.
    unsafe { linnet_copy_to_user(dst.0, src, len) }
}

/// Copies from the program; what was copied before a fault stays.
#[inline]
pub fn copy_from_user(dst: &mut [u8], src: UserAddr) -> Result<(), Uncopied> {
    // SAFETY: `dst` is a writable slice of that length.
    outcome(unsafe { raw_copy_from_user(dst.as_mut_ptr(), src, dst.len()) })
}

/// Copies to the program; what was copied before a fault stays.
#[inline]
pub fn copy_to_user(dst: UserAddr, src: &[u8]) -> Result<(), Uncopied> {
    // SAFETY: `src` is a readable slice of that length.
    outcome(unsafe { raw_copy_to_user(dst, src.as_ptr(), src.len()) })
}

/// Zeroes memory of the program.
pub fn clear_user(dst: UserAddr, len: usize) -> Result<(), Uncopied> {
    if !dst.range_ok(len as u64) {
        return Err(Uncopied(len));
    }
    // SAFETY: the range is in the user half, where STTR checks as EL0 and faults are fixed up.
    outcome(unsafe { linnet_clear_user(dst.0, len) })
}

/// Copies a NUL-terminated string: its length without the NUL, or `dst.len()` when none was found.
/// A fault before the NUL is an error.
pub fn copy_str_from_user(dst: &mut [u8], src: UserAddr) -> Result<usize, Uncopied> {
    if !src.range_ok(0) {
        return Err(Uncopied(dst.len()));
    }
    // A string may end before the user half does: look no further than that.
    let room = dst.len().min(usize::try_from(abi::USER_END - src.0).unwrap_or(usize::MAX));
    // SAFETY: `room` bytes are in the slice and in the user half.
    let r = unsafe { linnet_copy_str(dst.as_mut_ptr(), src.0, room) };
    if r.x0 != 0 {
        return Err(Uncopied(r.x0 as usize + (dst.len() - room)));
    }
    let len = r.x1 as usize;
    if len == room && room < dst.len() {
        return Err(Uncopied(dst.len() - room));
    }
    Ok(len)
}

fn word_ok(addr: UserAddr) -> bool {
    addr.range_ok(4) && addr.is_aligned(4)
}

/// Reads an aligned word.
pub fn load_u32(addr: UserAddr) -> Option<u32> {
    if !word_ok(addr) {
        return None;
    }
    // SAFETY: in the user half; LDTR checks as EL0 and faults are fixed up.
    let r = unsafe { linnet_load_user_u32(addr.0) };
    (r.x1 == 0).then_some(r.x0 as u32)
}

/// Atomically replaces an aligned word that is `old`; the value found. A full barrier when it
/// replaces.
pub fn compare_exchange_u32(addr: UserAddr, old: u32, new: u32) -> Option<u32> {
    if !word_ok(addr) {
        return None;
    }
    // SAFETY: in the user half and aligned, as the routine demands; faults are fixed up.
    let r = unsafe { linnet_cmpxchg_user_u32(addr.0, old, new) };
    (r.x1 == 0).then_some(r.x0 as u32)
}

/// Atomically replaces an aligned word by `f` of it; the value found.
pub fn fetch_update_u32(addr: UserAddr, mut f: impl FnMut(u32) -> u32) -> Option<u32> {
    let mut old = load_u32(addr)?;
    loop {
        let found = compare_exchange_u32(addr, old, f(old))?;
        if found == old {
            return Some(old);
        }
        old = found;
    }
}
