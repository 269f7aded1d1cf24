//! The vmalloc area on the host: std's allocations.

extern crate std;

use abi::{Errno, PhysAddr, Result, VirtAddr};
use arch::layout::{KERNEL_STACK_ALIGN, KERNEL_STACK_SIZE};
use core::alloc::Layout;

fn layout(len: usize, align: usize) -> Result<Layout> {
    Layout::from_size_align(len, align).map_err(|_| Errno::EINVAL)
}

fn allocate(len: usize, align: usize) -> Result<VirtAddr> {
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    // SAFETY: the size is not zero.
    let p = unsafe { std::alloc::alloc_zeroed(layout(len, align)?) };
    if p.is_null() { Err(Errno::ENOMEM) } else { Ok(VirtAddr(p.expose_provenance() as u64)) }
}

fn free(virt: VirtAddr, len: usize, align: usize) {
    if let Ok(l) = layout(len, align) {
        // SAFETY: from `allocate` with the same layout, by the types of the parent module.
        unsafe { std::alloc::dealloc(pointer(virt), l) }
    }
}

pub(super) fn pointer(virt: VirtAddr) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(virt.as_usize())
}

pub(super) fn take_stack() -> Result<VirtAddr> {
    allocate(KERNEL_STACK_SIZE, KERNEL_STACK_ALIGN)
}

pub(super) fn give_stack(base: VirtAddr) {
    free(base, KERNEL_STACK_SIZE, KERNEL_STACK_ALIGN);
}

/// Plain memory stands for the registers.
pub(super) fn map_io(phys: PhysAddr, len: usize) -> Result<VirtAddr> {
    phys.checked_add(len as u64).ok_or(Errno::EINVAL)?;
    allocate(len, abi::PAGE_SIZE)
}

pub(super) fn unmap_io(virt: VirtAddr, len: usize) {
    free(virt, len, abi::PAGE_SIZE);
}

/// Plain memory, that nobody tells from other memory.
pub(super) fn has(_: VirtAddr) -> bool {
    false
}

pub(super) fn map_pages(len: usize) -> Result<VirtAddr> {
    allocate(len, abi::PAGE_SIZE)
}

pub(super) fn unmap_pages(virt: VirtAddr, len: usize) {
    free(virt, len, abi::PAGE_SIZE);
}
