//! Mappings at addresses known at compile time: the early console, and a window on any page for
//! when the linear map does not reach it or does not allow it.

use crate::early_map::POOL_FIXMAP_PAGES;
use crate::layout::FIXMAP_BASE;
use crate::mmu::{self, pte};
use abi::{PAGE_SIZE, PhysAddr, VirtAddr};
use core::sync::atomic::{AtomicU64, Ordering};

/// Slot of the early console's registers.
pub(crate) const CONSOLE: u64 = 1;
/// Slot of the window; one user at a time.
const WINDOW: u64 = 2;

const fn address(slot: u64) -> VirtAddr {
    VirtAddr(FIXMAP_BASE + slot * PAGE_SIZE as u64)
}

/// The level 3 entry of a slot, through the image's own mapping of the boot tables.
fn entry(slot: u64) -> &'static AtomicU64 {
    let table = crate::boot::pool_page(POOL_FIXMAP_PAGES) as *const AtomicU64;
    // SAFETY: a table of 512 aligned words that is never freed; slots are below 512; all accesses
    // in Rust are atomic.
    unsafe { &*table.add(slot as usize & 511) }
}

/// Maps the page of `phys` at the slot; a mapping that was there is broken first.
pub(crate) fn map(slot: u64, phys: PhysAddr, bits: u64) -> VirtAddr {
    let va = address(slot);
    unmap(slot);
    entry(slot).store(phys.page_down().0 | bits, Ordering::Relaxed);
    mmu::make_table_visible();
    va.add(phys.page_offset() as u64)
}

pub(crate) fn unmap(slot: u64) {
    if entry(slot).swap(0, Ordering::Relaxed) != 0 {
        let va = address(slot);
        mmu::tlb_flush_kernel_range(va, va.add(PAGE_SIZE as u64));
    }
}

static WINDOW_BUSY: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false);

/// Runs `f` with the page of `phys` mapped for reading and writing as normal memory; `f` gets the
/// address that stands for `phys`.
pub(crate) fn with_window<R>(phys: PhysAddr, f: impl FnOnce(VirtAddr) -> R) -> R {
    let flags = crate::irq::save_and_disable();
    while WINDOW_BUSY.swap(true, Ordering::Acquire) {
        crate::cpu::relax();
    }
    let r = f(map(WINDOW, phys, pte::KERNEL_RW));
    unmap(WINDOW);
    WINDOW_BUSY.store(false, Ordering::Release);
    crate::irq::restore(flags);
    r
}
