//! Giving out frames: per-CPU lists in front of the zones, watermarks, reclaim.
//!
//! A single frame comes from this CPU's list, which takes and gives 31 frames at a time from its
//! zone. The list has a lock of its own, which nobody else takes but `drain_all`, so it is never
//! contended. Blocks go to the zones directly.

use crate::{
    Counter, Frame, FrameFlags, FrameList, FrameRef, MAX_ORDER, MigrateType, PageBlock, buddy::{TYPES, type_of}, count,
    zone::{self, ZONES, Zone},
};
use abi::{CpuId, Errno, PAGE_SIZE, Result};
use core::ptr;
use sync::{LockClass, Once, PerCpu, SpinLock, per_cpu};

bitflags::bitflags! {
    /// How to allocate.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct AllocFlags: u32 {
        /// The content is zero.
        const ZERO = 1;
        /// Never wait.
        const ATOMIC = 2;
        /// Reclaim must not enter a file system.
        const NO_FS = 4;
        /// Below 4 GiB.
        const DMA32 = 8;
        /// May use the last reserve: frees memory soon, or cannot fail.
        const HIGH_PRIO = 16;
        /// Below 1 GiB.
        const DMA = 32;
        /// The content can move to another frame: it is on an LRU list and found by reverse map.
        const MOVABLE = 64;
        /// A shrinker can give it up.
        const RECLAIMABLE = 128;
    }
}

/// What the memory manager does when memory is short; set once.
pub trait ReclaimHook: Sync {
    /// Tries to free `pages`; how many it freed. The caller may sleep.
    fn reclaim(&self, pages: usize, flags: AllocFlags) -> usize;
    /// Memory is below the low watermark: start reclaim in the background. Any context.
    fn wake_background(&self);
}

static HOOK: Once<&'static dyn ReclaimHook> = Once::new();

/// Sets the hook; only the first call counts.
pub fn set_reclaim_hook(hook: &'static dyn ReclaimHook) {
    HOOK.call_once(|| hook);
}

/// Frames moved between a per-CPU list and its zone at a time.
const BATCH: usize = 31;
/// A per-CPU list longer than this gives a batch back.
const HIGH: usize = 6 * BATCH;

static LIST_LOCK: LockClass = LockClass::new("per_cpu_pages", 1840);

/// The single frames of one zone that a CPU has, by type.
struct ZoneLists([FrameList; TYPES]);

struct Lists([ZoneLists; ZONES]);

impl ZoneLists {
    fn len(&self) -> usize {
        self.0.iter().map(FrameList::len).sum()
    }
    /// The list that is best given back from.
    fn longest(&mut self) -> Option<&mut FrameList> {
        self.0.iter_mut().max_by_key(|l| l.len())
    }
    #[allow(clippy::indexing_slicing)] // one list for each type
    fn of(&mut self, kind: MigrateType) -> &mut FrameList {
        &mut self.0[kind as usize]
    }
}

static LISTS: PerCpu<SpinLock<Lists>> = per_cpu!(SpinLock::new(
    Lists([const { ZoneLists([const { FrameList::new() }; TYPES]) }; ZONES]),
    &LIST_LOCK
));

/// A CPU's lists of a zone, for /proc/zoneinfo: how many frames they have, how many they may have,
/// and how many come and go at a time.
pub fn per_cpu_lists(cpu: CpuId, zone: usize) -> (usize, usize, usize) {
    let count = LISTS.get(cpu).lock_irq().0.get(zone).map_or(0, ZoneLists::len);
    (count, HIGH, BATCH)
}

/// Frames in all per-CPU lists.
pub(crate) fn per_cpu_pages() -> u64 {
    LISTS.iter().map(|(_, l)| l.lock_irq().0.iter().map(ZoneLists::len).sum::<usize>() as u64).sum()
}

/// One frame.
///
/// # Errors
/// `ENOMEM`.
pub fn alloc_frame(flags: AllocFlags) -> Result<FrameRef> {
    let frame = get(0, flags)?;
    frame.set_refcount(1);
    prepare(frame, 0, flags);
    // SAFETY: fresh from the lists with the one reference that we hand out.
    Ok(unsafe { FrameRef::from_raw(frame) })
}

/// A block of 2^order frames, aligned to its size.
///
/// # Errors
/// `ENOMEM`; `EINVAL` for an order above [`MAX_ORDER`].
pub fn alloc_pages(order: u8, flags: AllocFlags) -> Result<PageBlock> {
    if order as usize > MAX_ORDER {
        return Err(Errno::EINVAL);
    }
    let frame = get(order as usize, flags)?;
    frame.set_refcount(1);
    prepare(frame, order as usize, flags);
    if order > 0 {
        frame.set(FrameFlags::COMPOUND_HEAD);
        for n in 1..1u64 << order {
            if let Some(tail) = crate::frame_of(frame.pfn().add(n)) {
                tail.set_private(frame.pfn().0);
                tail.set_all_flags(FrameFlags::COMPOUND_TAIL);
            }
        }
    }
    Ok(PageBlock::new(frame))
}

fn highest_zone(flags: AllocFlags) -> usize {
    if flags.contains(AllocFlags::DMA) {
        zone::DMA
    } else if flags.contains(AllocFlags::DMA32) {
        zone::DMA32
    } else {
        zone::NORMAL
    }
}

fn migrate_type(flags: AllocFlags) -> MigrateType {
    if flags.contains(AllocFlags::MOVABLE) {
        MigrateType::Movable
    } else if flags.contains(AllocFlags::RECLAIMABLE) {
        MigrateType::Reclaimable
    } else {
        MigrateType::Unmovable
    }
}

fn get(order: usize, flags: AllocFlags) -> Result<&'static Frame> {
    if let Some(f) = try_get(order, flags) {
        count(Counter::PageAlloc, 1 << order);
        return Ok(f);
    }
    slow(order, flags)
}

pub(crate) fn may_wait(flags: AllocFlags) -> bool {
    !flags.contains(AllocFlags::ATOMIC) && arch::preempt::count() == 0 && arch::irq::enabled()
}

/// How deep an allocation may dig: to the minimum if it can wait for reclaim instead, to half of
/// it if it cannot, to the ground if it frees memory itself.
fn floor(z: &Zone, flags: AllocFlags, may_wait: bool) -> u64 {
    if flags.contains(AllocFlags::HIGH_PRIO) {
        0
    } else if may_wait {
        z.min()
    } else {
        z.min() / 2
    }
}

fn try_get(order: usize, flags: AllocFlags) -> Option<&'static Frame> {
    let may_wait = may_wait(flags);
    let kind = migrate_type(flags);
    for (i, z) in zone::zones_up_to(highest_zone(flags)) {
        let have = z.free_hint();
        if have <= floor(z, flags, may_wait).saturating_add(1 << order) {
            continue;
        }
        if have < z.low()
            && let Some(h) = HOOK.get()
        {
            h.wake_background();
        }
        let f = if order == 0 { from_list(i, z, kind) } else { z.take(order, kind) };
        if f.is_some() {
            return f;
        }
    }
    // Single frames may still be in this CPU's list though the zone is at its floor.
    if order == 0 {
        let mut lists = LISTS.this_unpinned().lock_irq();
        let zones = lists.0.iter_mut().take(highest_zone(flags) + 1).rev();
        return zones.flat_map(|z| &mut z.0).find_map(FrameList::pop_front);
    }
    None
}

#[allow(clippy::indexing_slicing)] // one list for each zone
fn from_list(i: usize, z: &Zone, kind: MigrateType) -> Option<&'static Frame> {
    // The thread may move before the lock is taken: then it uses its former CPU's list, which
    // costs a cache line and nothing else.
    let mut lists = LISTS.this_unpinned().lock_irq();
    let list = lists.0[i].of(kind);
    if list.is_empty() {
        z.take_batch(BATCH, kind, list);
    }
    list.pop_front()
}

#[cold]
fn slow(order: usize, flags: AllocFlags) -> Result<&'static Frame> {
    count(Counter::AllocStall, 1);
    let hook = HOOK.get();
    if let Some(h) = hook {
        h.wake_background();
    }
    // Other CPUs' lists may hold what the zones lack, and keep blocks from joining.
    drain_all();
    for round in 0..8 {
        if let Some(f) = try_get(order, flags) {
            count(Counter::PageAlloc, 1 << order);
            return Ok(f);
        }
        let Some(h) = hook.filter(|_| may_wait(flags)) else { break };
        if h.reclaim((1 << order).max(32), flags) == 0 && round > 0 {
            break;
        }
        drain_all();
    }
    Err(Errno::ENOMEM)
}

/// Checks and content of a block that goes out.
fn prepare(frame: &'static Frame, order: usize, flags: AllocFlags) {
    debug_assert!(frame.mapcount() == 0 && frame.mapping() == 0, "{frame:?} was written to while free");
    frame.set_all_flags(FrameFlags::empty());
    frame.set_order(order);
    for n in 0..1u64 << order {
        let Some(f) = crate::frame_of(frame.pfn().add(n)) else { continue };
        // SAFETY: the frame is ours, nobody else reaches its content.
        let page = unsafe { page_mut(f) };
        #[cfg(debug_assertions)]
        poison::check(f, page);
        if flags.contains(AllocFlags::ZERO) {
            arch::mem::clear_page(page);
        }
        if !cfg!(debug_assertions) && !flags.contains(AllocFlags::ZERO) {
            break;
        }
    }
}

/// # Safety
/// Nobody else reaches the frame's content meanwhile.
#[allow(clippy::mut_from_ref)]
pub(crate) unsafe fn page_mut<'a>(f: &Frame) -> &'a mut [u8; PAGE_SIZE] {
    // SAFETY: the linear map has the frame; the caller excludes others.
    unsafe { &mut *ptr::with_exposed_provenance_mut(f.virt().as_usize()) }
}

/// A block whose last reference is gone goes back.
pub(crate) fn free(frame: &'static Frame) {
    let order = frame.order() as usize;
    let flags = frame.flags();
    assert!(
        !flags.intersects(FrameFlags::BUDDY | FrameFlags::PER_CPU | FrameFlags::RESERVED | FrameFlags::COMPOUND_TAIL),
        "free of {frame:?}, which is not allocated"
    );
    debug_assert!(frame.refcount() == 0 && frame.mapcount() == 0, "free of {frame:?}, which is in use");
    debug_assert!(!flags.intersects(FrameFlags::LRU | FrameFlags::LOCKED | FrameFlags::SLAB), "free of {frame:?}");
    frame.set_mapping(0);
    frame.set_index(0);
    frame.set_private(0);
    for n in 0..1u64 << order {
        let Some(f) = crate::frame_of(frame.pfn().add(n)) else { continue };
        if n > 0 {
            f.set_private(0);
            f.set_all_flags(FrameFlags::empty());
        }
        #[cfg(debug_assertions)]
        // SAFETY: the last reference is gone.
        poison::fill(unsafe { page_mut(f) });
    }
    frame.set_all_flags(FrameFlags::empty());
    count(Counter::PageFree, 1 << order);
    let (i, z) = zone::zone_of(frame.pfn());
    if order > 0 {
        z.give(frame, order);
        return;
    }
    let mut lists = LISTS.this_unpinned().lock_irq();
    #[allow(clippy::indexing_slicing)] // one list for each zone
    let lists = &mut lists.0[i];
    frame.set_all_flags(FrameFlags::PER_CPU);
    // In front: the next allocation finds it in the cache.
    lists.of(type_of(frame)).push_front(frame);
    if lists.len() > HIGH
        && let Some(list) = lists.longest()
    {
        z.give_batch(BATCH, list);
    }
}

/// Gives this CPU's lists back to the zones.
pub fn drain_local() {
    drain(LISTS.this_unpinned());
}

/// Gives all CPUs' lists back to the zones.
pub fn drain_all() {
    LISTS.iter().for_each(|(_, l)| drain(l));
}

fn drain(l: &SpinLock<Lists>) {
    let mut lists = l.lock_irq();
    for (of_zone, z) in lists.0.iter_mut().zip(zone::zones()) {
        for list in of_zone.0.iter_mut().filter(|l| !l.is_empty()) {
            z.give_batch(list.len(), list);
        }
    }
}

/// Free frames are filled with a pattern, so that a write after the free shows.
#[cfg(debug_assertions)]
mod poison {
    use super::*;
    use abi::PAGE_SIZE;

    const BYTE: u8 = 0xaa;

    pub(super) fn fill(page: &mut [u8; PAGE_SIZE]) {
        page.fill(BYTE);
    }

    /// Frames that were never allocated have what the boot left in them: their first word tells.
    pub(super) fn check(f: &Frame, page: &mut [u8; PAGE_SIZE]) {
        let (head, body) = page.split_at_mut(16);
        if head.iter().all(|b| *b == BYTE) {
            let wrong = body.iter().position(|b| *b != BYTE);
            assert!(wrong.is_none(), "{f:?} was written to while free, at byte {}", wrong.unwrap_or(0) + 16);
            // Not again, should the frame come back without having been written to.
            head.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{stats, testing};
    use std::vec::Vec;

    #[test]
    fn what_is_taken_and_given_back_adds_up() {
        let _lock = testing::memory();
        drain_all();
        let before = stats();
        let mut held = Vec::new();
        for n in 0..500u32 {
            held.push(alloc_pages((n % 5) as u8, AllocFlags::empty()).unwrap());
        }
        let frames: Vec<_> = (0..300).map(|_| alloc_frame(AllocFlags::ZERO).unwrap()).collect();
        let taken: u64 = (0..500u32).map(|n| 1u64 << (n % 5)).sum::<u64>() + 300;
        assert_eq!(stats().free + taken, before.free);
        drop(held);
        drop(frames);
        drain_all();
        let after = stats();
        assert_eq!((after.free, after.free_blocks), (before.free, before.free_blocks));
    }

    #[test]
    fn blocks_are_aligned_and_their_tails_know_the_head() {
        let _lock = testing::memory();
        for order in 0..=MAX_ORDER as u8 {
            let b = alloc_pages(order, AllocFlags::ZERO).unwrap();
            assert_eq!(b.pfn().0 % (1 << order), 0);
            let last = crate::frame_of(b.pfn().add((1 << order) - 1)).unwrap();
            assert!(ptr::eq(last.head(), &*b));
        }
        assert_eq!(alloc_pages(11, AllocFlags::empty()).err(), Some(Errno::EINVAL));
    }

    #[test]
    fn zero_means_zero() {
        let _lock = testing::memory();
        let f = alloc_frame(AllocFlags::empty()).unwrap();
        f.copy_in(100, &[1; 200]);
        drop(f);
        let f = alloc_frame(AllocFlags::ZERO).unwrap();
        f.with_bytes(|b| assert!(b.iter().all(|b| *b == 0)));
    }

    #[test]
    fn memory_that_is_gone_is_an_error_and_comes_back() {
        let _lock = testing::memory();
        drain_all();
        let before = stats().free;
        let mut held = Vec::new();
        let e = loop {
            match alloc_frame(AllocFlags::empty()) {
                Ok(f) => held.push(f),
                Err(e) => break e,
            }
        };
        assert_eq!(e, Errno::ENOMEM);
        // The reserve is for those who cannot wait.
        let urgent = alloc_frame(AllocFlags::ATOMIC | AllocFlags::HIGH_PRIO);
        assert!(urgent.is_ok());
        drop(urgent);
        drop(held);
        drain_all();
        assert_eq!(stats().free, before);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic = "written to while free"]
    fn a_write_to_a_free_frame_is_noticed() {
        let _lock = testing::memory();
        let f = alloc_frame(AllocFlags::ZERO).unwrap();
        let frame: &'static Frame = FrameRef::frame(&f);
        drop(f);
        // SAFETY: host memory of the arena; the test breaks the rule on purpose.
        let page = unsafe { page_mut(frame) };
        page[2000] = 1;
        let _all: Vec<_> = core::iter::from_fn(|| alloc_frame(AllocFlags::HIGH_PRIO).ok()).collect();
    }

    #[test]
    fn cpus_that_allocate_at_once_never_share_a_frame() {
        let _lock = testing::memory();
        drain_all();
        let before = stats().free;
        arch::sim::run_on_cpus(4, |cpu| {
            let tag = cpu.0 as u8 + 1;
            let mut held: Vec<FrameRef> = Vec::new();
            for n in 0..4000usize {
                if n % 3 == 2 {
                    let f = held.swap_remove(n * 7 % held.len());
                    f.with_bytes(|b| assert!(b[..64].iter().all(|b| *b == tag)));
                } else if let Ok(f) = alloc_frame(AllocFlags::empty()) {
                    f.copy_in(0, &[tag; 64]);
                    held.push(f);
                }
            }
        });
        drain_all();
        assert_eq!(stats().free, before);
    }
}
