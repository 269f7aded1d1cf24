//! Stands in for the kernel stacks of `frames::vmalloc` until those are there.

use abi::{Result, VirtAddr};

/// A kernel stack.
pub struct KernelStack(());

impl KernelStack {
    /// Lowest address.
    pub fn base(&self) -> VirtAddr {
        VirtAddr(0)
    }
    /// First address behind it.
    pub fn top(&self) -> VirtAddr {
        VirtAddr(0)
    }
}

/// A new stack.
pub fn alloc_stack() -> Result<KernelStack> {
    Ok(KernelStack(()))
}
