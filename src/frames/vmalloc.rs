//! Kernel memory in the vmalloc area: stacks with guard pages, device registers, large buffers of
//! single pages.
//!
//! The area is cut in two. Stacks have slots of 32 KiB of which the lower half is mapped, so that
//! every stack has an unmapped half below it, and bit 14 of SP tells an overflow. Everything else
//! has its place from a list of areas, first fit, each with an unmapped page behind it.
//!
//! Two stacks per CPU are kept mapped for the next thread, so that fork and exit need no TLB flush.
//!
//! On the host nothing can be mapped there: stacks and buffers come from std.

#[cfg(target_os = "none")]
#[path = "vmalloc_target.rs"]
mod imp;
#[cfg(not(target_os = "none"))]
#[path = "vmalloc_host.rs"]
mod imp;

use abi::{PhysAddr, Result, VirtAddr};
use arch::layout::KERNEL_STACK_SIZE;

/// A kernel stack: 16 KiB, aligned to 32 KiB, its content undefined.
#[derive(Debug)]
pub struct KernelStack {
    base: VirtAddr,
}

impl KernelStack {
    /// Its lowest address.
    pub fn base(&self) -> VirtAddr {
        self.base
    }
    /// The first address beyond: where SP starts.
    pub fn top(&self) -> VirtAddr {
        self.base.add(KERNEL_STACK_SIZE as u64)
    }
}

/// A kernel stack. May be called in any context that may allocate.
///
/// # Errors
/// `ENOMEM`.
pub fn alloc_stack() -> Result<KernelStack> {
    let base = imp::take_stack()?;
    crate::count(crate::Counter::KernelStack, (KERNEL_STACK_SIZE / 1024) as i64);
    Ok(KernelStack { base })
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        crate::count(crate::Counter::KernelStack, -((KERNEL_STACK_SIZE / 1024) as i64));
        imp::give_stack(self.base);
    }
}

/// Device registers, mapped.
#[derive(Debug)]
pub struct IoMapping {
    virt: VirtAddr,
    phys: PhysAddr,
    len: usize,
}

impl IoMapping {
    /// Where they are mapped.
    pub fn virt(&self) -> VirtAddr {
        self.virt
    }
    /// What is mapped.
    pub fn phys(&self) -> PhysAddr {
        self.phys
    }
    /// How many bytes.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Never empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Maps `len` bytes of device registers from `phys` (Device-nGnRE). Thread context.
///
/// # Errors
/// `EINVAL` for an empty or wrapping range, `ENOMEM`.
pub fn ioremap(phys: PhysAddr, len: usize) -> Result<IoMapping> {
    let virt = imp::map_io(phys, len)?;
    Ok(IoMapping { virt, phys, len })
}

impl Drop for IoMapping {
    fn drop(&mut self) {
        imp::unmap_io(self.virt, self.len);
    }
}

/// Memory that is contiguous for the kernel only; zeroed when made.
#[derive(Debug)]
pub struct VmallocBox {
    virt: VirtAddr,
    len: usize,
}

impl VmallocBox {
    /// Its first address.
    pub fn virt(&self) -> VirtAddr {
        self.virt
    }
    /// Its bytes, as asked for.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped from `virt`, initialised, and owned by this box.
        unsafe { core::slice::from_raw_parts(imp::pointer(self.virt), self.len) }
    }
    /// Its bytes, as asked for.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(imp::pointer(self.virt), self.len) }
    }
}

/// `len` zero bytes. Thread context.
///
/// # Errors
/// `EINVAL` for zero, `ENOMEM`.
pub fn vmalloc(len: usize) -> Result<VmallocBox> {
    Ok(VmallocBox { virt: imp::map_pages(len)?, len })
}

/// Memory for the allocator of objects where no block is large enough, or none is left. It may have
/// to wait: `None` where the caller must not, and on the host.
pub(crate) fn for_object(len: usize) -> Option<core::ptr::NonNull<u8>> {
    if !crate::alloc::may_wait(crate::AllocFlags::empty()) {
        return None;
    }
    let virt = imp::map_pages(len).ok()?;
    if !imp::has(virt) {
        imp::unmap_pages(virt, len);
        return None;
    }
    core::ptr::NonNull::new(imp::pointer(virt))
}

/// Takes it back; false if the address is not one of this area's. Any context.
pub(crate) fn free_object(ptr: core::ptr::NonNull<u8>, len: usize) -> bool {
    let virt = VirtAddr(ptr.as_ptr().expose_provenance() as u64);
    let mine = imp::has(virt);
    if mine {
        imp::unmap_pages(virt, len);
    }
    mine
}

impl Drop for VmallocBox {
    fn drop(&mut self) {
        imp::unmap_pages(self.virt, self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_aligned_to_twice_their_size() {
        let a = alloc_stack().unwrap();
        let b = alloc_stack().unwrap();
        for s in [&a, &b] {
            assert!(s.base().is_aligned(2 * KERNEL_STACK_SIZE as u64));
            // Bit 14 of an address inside is clear, of one just below it is set.
            assert_eq!(s.base().0 >> 14 & 1, 0);
            assert_eq!((s.top().0 - 1) >> 14 & 1, 0);
            assert_eq!((s.base().0 - 1) >> 14 & 1, 1);
        }
        assert_ne!(a.base(), b.base());
    }

    #[test]
    fn vmalloc_gives_zeroes() {
        let mut v = vmalloc(10_000).unwrap();
        assert!(v.as_slice().len() == 10_000 && v.as_slice().iter().all(|b| *b == 0));
        v.as_mut_slice()[9_999] = 1;
        assert!(vmalloc(0).is_err());
    }
}
