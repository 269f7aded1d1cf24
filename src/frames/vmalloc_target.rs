//! The vmalloc area: places in it, and the pages behind them.

use crate::{AllocFlags, Counter, FrameRef, alloc_frame, count, frame_of, pagetable::kernel, slab};
use abi::{Errno, PAGE_SIZE, PhysAddr, Result, VirtAddr, page_align_up};
use arch::{
    layout::{KERNEL_STACK_ALIGN, KERNEL_STACK_SIZE, VMALLOC_BASE, VMALLOC_END},
    mmu::pte,
};
use core::{alloc::Layout, ptr::NonNull};
use sync::{LockClass, PerCpu, SpinLock, per_cpu};

static STACK_LOCK: LockClass = LockClass::new("stack_slots", 1501);
static CACHE_LOCK: LockClass = LockClass::new("stack_cache", 1500);
static AREA_LOCK: LockClass = LockClass::new("vmalloc_areas", 1502);

/// Stack slots: 2^17, more than there can be threads (4 GiB of addresses).
const STACKS: usize = 1 << 17;
const STACK_END: u64 = VMALLOC_BASE + ((STACKS + 1) * KERNEL_STACK_ALIGN) as u64;

pub(super) fn pointer(virt: VirtAddr) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(virt.as_usize())
}

// ---- stacks ----

struct Slots {
    used: [u64; STACKS / 64],
    /// Word where the next search starts.
    hint: usize,
}

static SLOTS: SpinLock<Slots> = SpinLock::new(Slots { used: [0; STACKS / 64], hint: 0 }, &STACK_LOCK);

static CACHED: PerCpu<SpinLock<[Option<VirtAddr>; 2]>> = per_cpu!(SpinLock::new([None; 2], &CACHE_LOCK));

/// The first slot's room stays empty, so that the first stack has its guard below it too.
fn slot_addr(slot: usize) -> VirtAddr {
    VirtAddr(VMALLOC_BASE + ((slot + 1) * KERNEL_STACK_ALIGN) as u64)
}

impl Slots {
    fn take(&mut self) -> Option<usize> {
        let words = self.used.len();
        let at = (0..words).map(|n| (self.hint + n) % words).find(|w| self.used.get(*w).is_some_and(|u| *u != u64::MAX))?;
        let word = self.used.get_mut(at)?;
        let bit = (!*word).trailing_zeros() as usize;
        *word |= 1 << bit;
        self.hint = at;
        Some(at * 64 + bit)
    }
    fn give(&mut self, slot: usize) {
        if let Some(w) = self.used.get_mut(slot / 64) {
            *w &= !(1 << (slot % 64));
        }
    }
}

pub(super) fn take_stack() -> Result<VirtAddr> {
    if let Some(base) = CACHED.this_unpinned().lock_irq().iter_mut().find_map(Option::take) {
        return Ok(base);
    }
    let slot = SLOTS.lock_irq().take().ok_or(Errno::ENOMEM)?;
    let base = slot_addr(slot);
    if let Err(e) = fill(base, KERNEL_STACK_SIZE, AllocFlags::empty()) {
        SLOTS.lock_irq().give(slot);
        return Err(e);
    }
    Ok(base)
}

pub(super) fn give_stack(base: VirtAddr) {
    if let Some(place) = CACHED.this_unpinned().lock_irq().iter_mut().find(|s| s.is_none()) {
        *place = Some(base);
        return;
    }
    empty(base, KERNEL_STACK_SIZE);
    SLOTS.lock_irq().give((base.0 - VMALLOC_BASE) as usize / KERNEL_STACK_ALIGN - 1);
}

/// Maps fresh pages over `len` bytes.
fn fill(virt: VirtAddr, len: usize, flags: AllocFlags) -> Result<()> {
    let mut done = 0;
    while done < len {
        let outcome = alloc_frame(flags).and_then(|frame| {
            kernel::map(virt.add(done as u64), frame.phys(), PAGE_SIZE, pte::KERNEL_RW)?;
            let _owned_by_the_mapping = frame.into_raw();
            Ok(())
        });
        if let Err(e) = outcome {
            empty(virt, done);
            return Err(e);
        }
        done += PAGE_SIZE;
    }
    Ok(())
}

/// Unmaps and frees what `fill` mapped.
fn empty(virt: VirtAddr, len: usize) {
    kernel::unmap(virt, len, |phys, _| {
        if let Some(frame) = frame_of(phys.pfn()) {
            // SAFETY: the reference that the mapping owned; it is gone from tables and TLBs.
            drop(unsafe { FrameRef::from_raw(frame) });
        }
    });
}

// ---- areas ----

/// A used part of the area, in a list in ascending order.
struct Area {
    start: u64,
    /// Behind its guard page.
    end: u64,
    next: Option<NonNull<Area>>,
}

struct Areas(Option<NonNull<Area>>);

// SAFETY: the list's nodes are reached through the lock around it only.
unsafe impl Send for Areas {}

static AREAS: SpinLock<Areas> = SpinLock::new(Areas(None), &AREA_LOCK);

/// A place for `len` bytes (whole pages) and a guard page.
fn reserve(len: u64, align: u64) -> Result<VirtAddr> {
    let memory = slab::kmalloc(Layout::new::<Area>()).ok_or(Errno::ENOMEM)?.cast::<Area>();
    let mut list = AREAS.lock_irq();
    let mut at = STACK_END.next_multiple_of(align);
    let mut link: *mut Option<NonNull<Area>> = &mut list.0;
    // SAFETY: under the lock the list's nodes and links are ours; `memory` is fresh.
    unsafe {
        while let Some(a) = *link {
            let a = a.as_ptr();
            if at + len + PAGE_SIZE as u64 <= (*a).start {
                break;
            }
            at = at.max((*a).end.next_multiple_of(align));
            link = &raw mut (*a).next;
        }
        if len > VMALLOC_END - STACK_END || at + len + PAGE_SIZE as u64 > VMALLOC_END {
            drop(list);
            slab::kfree(memory.cast(), Layout::new::<Area>());
            return Err(Errno::ENOMEM);
        }
        memory.write(Area { start: at, end: at + len + PAGE_SIZE as u64, next: *link });
        *link = Some(memory);
    }
    Ok(VirtAddr(at))
}

/// Gives the place that starts at `virt` back.
fn release(virt: VirtAddr) {
    let mut list = AREAS.lock_irq();
    let mut link: *mut Option<NonNull<Area>> = &mut list.0;
    // SAFETY: under the lock the list's nodes and links are ours; the node is freed once, unlinked.
    unsafe {
        while let Some(a) = *link {
            if (*a.as_ptr()).start == virt.0 {
                *link = (*a.as_ptr()).next;
                drop(list);
                slab::kfree(a.cast(), Layout::new::<Area>());
                return;
            }
            link = &raw mut (*a.as_ptr()).next;
        }
    }
}

/// The page around a byte range: offset in the first page, and whole pages.
fn pages(start: u64, len: usize) -> Result<(u64, u64)> {
    let offset = start % PAGE_SIZE as u64;
    let all = offset.checked_add(len as u64).and_then(page_align_up).filter(|_| len != 0).ok_or(Errno::EINVAL)?;
    Ok((offset, all))
}

pub(super) fn map_io(phys: PhysAddr, len: usize) -> Result<VirtAddr> {
    phys.checked_add(len as u64).filter(|e| e.0 <= 1 << 48).ok_or(Errno::EINVAL)?;
    let (offset, all) = pages(phys.0, len)?;
    const BLOCK: u64 = 2 << 20;
    let align = if all >= BLOCK { BLOCK } else { PAGE_SIZE as u64 };
    let virt = reserve(all, align)?;
    if let Err(e) = kernel::map(virt, phys.page_down(), all as usize, pte::KERNEL_DEVICE) {
        release(virt);
        return Err(e);
    }
    Ok(virt.add(offset))
}

pub(super) fn unmap_io(virt: VirtAddr, len: usize) {
    let Ok((_, all)) = pages(virt.0, len) else { return };
    kernel::unmap(virt.page_down(), all as usize, |_, _| ());
    release(virt.page_down());
}

/// Whether an address is one of this area's.
pub(super) fn has(virt: VirtAddr) -> bool {
    (VMALLOC_BASE..VMALLOC_END).contains(&virt.0)
}

pub(super) fn map_pages(len: usize) -> Result<VirtAddr> {
    let (_, all) = pages(0, len)?;
    let virt = reserve(all, PAGE_SIZE as u64)?;
    if let Err(e) = fill(virt, all as usize, AllocFlags::ZERO) {
        release(virt);
        return Err(e);
    }
    count(Counter::Vmalloc, (all / PAGE_SIZE as u64) as i64);
    Ok(virt)
}

pub(super) fn unmap_pages(virt: VirtAddr, len: usize) {
    let Ok((_, all)) = pages(0, len) else { return };
    empty(virt, all as usize);
    release(virt);
    count(Counter::Vmalloc, -((all / PAGE_SIZE as u64) as i64));
}
