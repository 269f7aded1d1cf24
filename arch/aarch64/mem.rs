//! The memcpy family and whole pages, in assembly.

use abi::PAGE_SIZE;

core::arch::global_asm!(include_str!("memory.S"));

unsafe extern "C" {
    fn linnet_clear_page(to: *mut u8);
    fn linnet_copy_page(to: *mut u8, from: *const u8);
}

/// Zeroes a page: by DC ZVA, so the address must be a multiple of the page size.
#[inline]
pub fn clear_page(page: &mut [u8; PAGE_SIZE]) {
    let p = page.as_mut_ptr();
    if (p as usize).is_multiple_of(PAGE_SIZE) {
        // SAFETY: a whole aligned page, borrowed for writing.
        unsafe { linnet_clear_page(p) }
    } else {
        page.fill(0);
    }
}

/// Copies a page.
#[inline]
pub fn copy_page(to: &mut [u8; PAGE_SIZE], from: &[u8; PAGE_SIZE]) {
    // SAFETY: whole pages that do not overlap, because one is borrowed for writing.
    unsafe { linnet_copy_page(to.as_mut_ptr(), from.as_ptr()) }
}
