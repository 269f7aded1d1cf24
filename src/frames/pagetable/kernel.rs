//! The kernel's own tables (TTBR1): mappings above the linear map, of whole pages and 2 MiB blocks.
//!
//! Tables are made and never freed: the kernel's mappings come and go in the same places. One lock
//! orders all changes; reading (`translate`) takes none.
//!
//! `unmap` flushes the TLBs before it returns, so what was mapped may be used for anything else.

use super::table::{ENTRIES, TABLE_DESC, index, span};
use crate::{AllocFlags, Counter, FrameFlags, alloc_frame, boot, count};
use abi::{Errno, PAGE_SIZE, PhysAddr, Result, VirtAddr};
use arch::mmu::pte;
use core::ptr;
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU64, Ordering},
};

static KERNEL_MAP: LockClass = LockClass::new("kernel_map", 1345);
static LOCK: SpinLock<()> = SpinLock::new((), &KERNEL_MAP);

const BLOCK: u64 = 2 << 20;

fn entry(table: PhysAddr, i: usize) -> &'static AtomicU64 {
    let base = ptr::with_exposed_provenance::<AtomicU64>(arch::mmu::linear(table).as_usize());
    // SAFETY: kernel tables live for ever, in RAM that the linear map reaches; entries are only
    // accessed as atomics.
    unsafe { &*base.add(i % ENTRIES) }
}

/// A zeroed page for a table: from the zones, or from the boot heap before they stand.
fn new_table() -> Result<PhysAddr> {
    if crate::memmap::banks().next().is_none() {
        let page = boot::alloc(PAGE_SIZE, PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        boot::zero(page, PAGE_SIZE);
        return Ok(page);
    }
    let frame = alloc_frame(AllocFlags::ZERO | AllocFlags::ATOMIC)?.into_raw();
    frame.set(FrameFlags::PAGE_TABLE);
    count(Counter::PageTables, 1);
    Ok(frame.phys())
}

/// The table of `virt` at `level`, made if `make` says so.
fn table(virt: u64, level: u8, make: bool) -> Result<PhysAddr> {
    let mut at = arch::mmu::kernel_root();
    for l in 0..level {
        let e = entry(at, index(virt, l));
        let desc = e.load(Ordering::Acquire);
        at = if desc & pte::TYPE_MASK == TABLE_DESC {
            PhysAddr(desc & pte::ADDR_MASK)
        } else if desc & pte::VALID != 0 {
            // A block is in the way.
            return Err(Errno::EEXIST);
        } else if make {
            let new = new_table()?;
            // The zeroes are visible to the walker before the link is.
            arch::mmu::make_table_visible();
            e.store(new.0 | TABLE_DESC, Ordering::Release);
            new
        } else {
            return Err(Errno::ENOENT);
        };
    }
    Ok(at)
}

/// Maps `len` bytes at `virt` to `phys` with `bits` (one of `pte::KERNEL_*`), in 2 MiB blocks where
/// both addresses allow. Addresses and length are whole pages; nothing may be mapped there.
///
/// # Errors
/// `EINVAL` for what is not whole pages, `EEXIST`, `ENOMEM`. Nothing is mapped then.
pub fn map(virt: VirtAddr, phys: PhysAddr, len: usize, bits: u64) -> Result<()> {
    let page = PAGE_SIZE as u64;
    if !virt.is_aligned(page) || !phys.is_aligned(page) || !(len as u64).is_multiple_of(page) || len == 0 {
        return Err(Errno::EINVAL);
    }
    let len = len as u64;
    let last = virt.checked_add(len - 1).ok_or(Errno::EINVAL)?;
    let _ = last;
    let held = LOCK.lock();
    let mut done = 0;
    let outcome = loop {
        if done == len {
            break Ok(());
        }
        let (v, p) = (virt.0 + done, phys.0 + done);
        let block = v % BLOCK == 0 && p % BLOCK == 0 && len - done >= BLOCK;
        let level = if block { 2 } else { 3 };
        let e = match table(v, level, true) {
            Ok(t) => entry(t, index(v, level)),
            Err(e) => break Err(e),
        };
        if e.load(Ordering::Relaxed) & pte::VALID != 0 {
            if block && e.load(Ordering::Relaxed) & pte::TYPE_MASK == TABLE_DESC {
                // A table from earlier page mappings stands here: pages go into it.
                match map_pages(v, p, BLOCK, bits) {
                    Ok(()) => {
                        done += BLOCK;
                        continue;
                    }
                    Err(e) => break Err(e),
                }
            }
            break Err(Errno::EEXIST);
        }
        let kind = if block { bits & !pte::PAGE } else { bits };
        e.store(p & pte::ADDR_MASK | kind, Ordering::Release);
        done += span(level);
    };
    arch::mmu::make_table_visible();
    drop(held);
    if outcome.is_err() && done > 0 {
        unmap(virt, done as usize, |_, _| ());
    }
    outcome
}

/// Maps single pages in tables that exist or are made; undoes itself. Under the lock.
fn map_pages(virt: u64, phys: u64, len: u64, bits: u64) -> Result<()> {
    let page = PAGE_SIZE as u64;
    let t = table(virt, 3, true)?;
    let taken = (0..len / page).any(|n| entry(t, index(virt + n * page, 3)).load(Ordering::Relaxed) != 0);
    if taken {
        return Err(Errno::EEXIST);
    }
    for n in 0..len / page {
        entry(t, index(virt + n * page, 3)).store((phys + n * page) | bits, Ordering::Release);
    }
    Ok(())
}

/// Unmaps what is mapped in `len` bytes from `virt`, flushes the TLBs, and then calls `f` with each
/// piece: its physical address and length. A block is unmapped as a whole or, when the range
/// covers it in part, stays.
pub fn unmap(virt: VirtAddr, len: usize, mut f: impl FnMut(PhysAddr, usize)) {
    /// Pieces between two flushes.
    const BATCH: usize = 64;
    let end = virt.0.saturating_add(len as u64);
    let mut at = virt.0;
    while at < end {
        let mut gone = [(PhysAddr(0), 0usize); BATCH];
        let mut n = 0;
        let from = at;
        {
            let _held = LOCK.lock();
            while at < end && n < BATCH {
                let (step, desc) = take(at, end - at);
                if let (Some(d), Some(slot)) = (desc, gone.get_mut(n)) {
                    *slot = (PhysAddr(d & pte::ADDR_MASK), step as usize);
                    n += 1;
                }
                at = at.saturating_add(step);
            }
        }
        if n > 0 {
            arch::mmu::tlb_flush_kernel_range(VirtAddr(from), VirtAddr(at.min(end)));
            for (phys, len) in gone.iter().take(n) {
                f(*phys, *len);
            }
        }
    }
}

/// Takes out the entry of `virt`: how far it reaches, and what it was. Under the lock.
fn take(virt: u64, left: u64) -> (u64, Option<u64>) {
    let mut at = arch::mmu::kernel_root();
    for level in 0..=3u8 {
        let to_border = span(level) - virt % span(level);
        let e = entry(at, index(virt, level));
        let desc = e.load(Ordering::Acquire);
        if desc & pte::VALID == 0 {
            return (to_border, None);
        }
        if level < 3 && desc & pte::TYPE_MASK == TABLE_DESC {
            at = PhysAddr(desc & pte::ADDR_MASK);
            continue;
        }
        if level < 3 && (to_border != span(level) || left < span(level)) {
            debug_assert!(false, "part of a block unmapped at {virt:#x}");
            return (to_border, None);
        }
        e.store(0, Ordering::Release);
        return (to_border, Some(desc));
    }
    (PAGE_SIZE as u64, None)
}

/// Where `virt` leads, and the descriptor's bits; without a lock.
pub fn translate(virt: VirtAddr) -> Option<(PhysAddr, u64)> {
    let mut at = arch::mmu::kernel_root();
    for level in 0..=3u8 {
        let desc = entry(at, index(virt.0, level)).load(Ordering::Acquire);
        if desc & pte::VALID == 0 {
            return None;
        }
        if level == 3 || desc & pte::TYPE_MASK != TABLE_DESC {
            let base = desc & pte::ADDR_MASK & !(span(level) - 1);
            return Some((PhysAddr(base + virt.0 % span(level)), desc & !pte::ADDR_MASK));
        }
        at = PhysAddr(desc & pte::ADDR_MASK);
    }
    None
}

/// Changes the bits of pages that are mapped one by one, and flushes. For the kernel's own
/// sections at the end of boot.
///
/// # Errors
/// `ENOENT` where nothing, or a block, is mapped: what lies before it is changed.
pub fn protect(virt: VirtAddr, len: usize, bits: u64) -> Result<()> {
    let held = LOCK.lock();
    let mut outcome = Ok(());
    for n in 0..len.div_ceil(PAGE_SIZE) as u64 {
        let v = virt.0 + n * PAGE_SIZE as u64;
        let e = match table(v, 3, false) {
            Ok(t) => entry(t, index(v, 3)),
            Err(_) => {
                outcome = Err(Errno::ENOENT);
                break;
            }
        };
        let old = e.load(Ordering::Relaxed);
        if old & pte::VALID == 0 {
            outcome = Err(Errno::ENOENT);
            break;
        }
        // Permissions only: the same output address and memory type need no break.
        debug_assert!((old ^ bits) & pte::ATTR_MASK == 0);
        e.store(old & pte::ADDR_MASK | bits, Ordering::Release);
    }
    drop(held);
    arch::mmu::tlb_flush_kernel_range(virt, virt.add(len as u64));
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use std::vec::Vec;

    const BASE: u64 = arch::layout::VMALLOC_BASE + (1 << 39);

    #[test]
    fn large_aligned_ranges_become_blocks_and_the_rest_pages() {
        let _lock = testing::memory();
        let virt = VirtAddr(BASE + BLOCK - 0x2000);
        let phys = PhysAddr(16 * BLOCK - 0x2000);
        let len = 0x2000 + 2 * BLOCK as usize + 0x1000;
        map(virt, phys, len, pte::KERNEL_DEVICE).unwrap();
        for off in [0, 0x1fff, 0x2000, 0x2000 + BLOCK + 0x1234, len as u64 - 1] {
            assert_eq!(translate(virt.add(off)).unwrap().0, phys.add(off));
        }
        assert!(translate(virt.add(len as u64)).is_none());
        assert_eq!(translate(virt.add(0x2000)).unwrap().1 & pte::PAGE, 0, "a block");
        assert_eq!(map(virt.add(0x3000), phys, 4096, pte::KERNEL_RW), Err(Errno::EEXIST));
        let mut gone = Vec::new();
        let flushes = arch::sim::tlb_flushes();
        unmap(virt, len, |p, n| gone.push((p.0 - phys.0, n as u64)));
        assert!(arch::sim::tlb_flushes() > flushes);
        let b = BLOCK;
        assert_eq!(gone, [(0, 0x1000), (0x1000, 0x1000), (0x2000, b), (0x2000 + b, b), (0x2000 + 2 * b, 0x1000)]);
        assert!(translate(virt.add(0x2000)).is_none());
    }

    #[test]
    fn a_mapping_that_meets_another_leaves_nothing_behind() {
        let _lock = testing::memory();
        let virt = VirtAddr(BASE + (1 << 30));
        map(virt.add(0x5000), PhysAddr(0x5000), 4096, pte::KERNEL_RW).unwrap();
        assert_eq!(map(virt, PhysAddr(0x10_0000), 0x8000, pte::KERNEL_RW), Err(Errno::EEXIST));
        assert!(translate(virt).is_none());
        assert_eq!(translate(virt.add(0x5000)).unwrap().0, PhysAddr(0x5000));
        unmap(virt, 0x8000, |_, _| ());
        // The table stays, so a block does not fit here any more: pages do.
        map(virt, PhysAddr(8 * BLOCK), BLOCK as usize, pte::KERNEL_RW).unwrap();
        assert_eq!(translate(virt.add(0x5678)).unwrap().0, PhysAddr(8 * BLOCK + 0x5678));
        assert_eq!(map(virt.add(1), PhysAddr(0), 4096, pte::KERNEL_RW), Err(Errno::EINVAL));
        unmap(virt, BLOCK as usize, |_, _| ());
        assert!(translate(virt).is_none());
    }
}
