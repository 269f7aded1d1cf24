//! Whole pages at once.

use abi::PAGE_SIZE;

/// Zeroes a page.
pub fn clear_page(page: &mut [u8; PAGE_SIZE]) {
    page.fill(0);
}

/// Copies a page.
pub fn copy_page(to: &mut [u8; PAGE_SIZE], from: &[u8; PAGE_SIZE]) {
    *to = *from;
}
