//! The slab: objects of fixed sizes, and `kmalloc` over size classes.
//!
//! Fast path: a magazine of up to 15 free objects per CPU and cache, touched with interrupts off
//! and without a lock. Below it the cache's partial list of slabs under a spin lock; below that
//! the page allocator. All contexts may allocate and free.
//!
//! In debug builds the room between the asked size and the class size carries a red zone, free
//! objects carry a pattern, and freeing twice is noticed.

mod cache;
mod magazine;

pub use cache::{Cache, CacheInfo};

use crate::{AllocFlags, Counter, FrameFlags, PageBlock, alloc_pages, count, memmap, vmalloc};
use abi::{PAGE_SIZE, VirtAddr};
use core::{alloc::Layout, ptr, ptr::NonNull};

/// The size classes of `kmalloc`. Multiples of the alignments that their sizes suggest.
const SIZES: [usize; 17] = [8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192];

static CLASSES: [Cache; SIZES.len()] = [
    Cache::class("kmalloc-8", 8, 0),
    Cache::class("kmalloc-16", 16, 1),
    Cache::class("kmalloc-32", 32, 2),
    Cache::class("kmalloc-48", 48, 3),
    Cache::class("kmalloc-64", 64, 4),
    Cache::class("kmalloc-96", 96, 5),
    Cache::class("kmalloc-128", 128, 6),
    Cache::class("kmalloc-192", 192, 7),
    Cache::class("kmalloc-256", 256, 8),
    Cache::class("kmalloc-384", 384, 9),
    Cache::class("kmalloc-512", 512, 10),
    Cache::class("kmalloc-768", 768, 11),
    Cache::class("kmalloc-1k", 1024, 12),
    Cache::class("kmalloc-1536", 1536, 13),
    Cache::class("kmalloc-2k", 2048, 14),
    Cache::class("kmalloc-4k", 4096, 15),
    Cache::class("kmalloc-8k", 8192, 16),
];

/// The smallest class that has room and alignment; `None` for what goes to the page allocator.
#[inline]
fn class_of(layout: Layout) -> Option<&'static Cache> {
    // Index of the first class for each multiple of 8 up to 192, so that the usual sizes need no
    // search.
    #[allow(clippy::indexing_slicing)] // evaluated by the compiler
    const SMALL: [u8; 25] = {
        let mut t = [0; 25];
        let mut n = 0;
        while n < 25 {
            let mut c = 0;
            while SIZES[c] < n * 8 {
                c += 1;
            }
            t[n] = c as u8;
            n += 1;
        }
        t
    };
    let first = match SMALL.get(layout.size().div_ceil(8)) {
        Some(c) => *c as usize,
        None => 8,
    };
    CLASSES.iter().skip(first).find(|c| c.size() >= layout.size() && c.size() % layout.align() == 0)
}

/// Memory for `layout`; any context. It waits only if the caller could sleep.
#[inline]
pub fn kmalloc(layout: Layout) -> Option<NonNull<u8>> {
    match class_of(layout) {
        Some(cache) => {
            let p = cache.alloc()?;
            red_zone::write(p, layout.size(), cache.size());
            Some(p)
        }
        None => large(layout),
    }
}

/// # Safety
/// `ptr` came from [`kmalloc`] with the same `layout`, and is not used again.
#[inline]
pub unsafe fn kfree(ptr: NonNull<u8>, layout: Layout) {
    match class_of(layout) {
        Some(cache) => {
            red_zone::check(ptr, layout.size(), cache.size());
            // SAFETY: the same layout leads to the same class.
            unsafe { cache.free(ptr) }
        }
        None => free_large(ptr, layout),
    }
}

fn order_of(layout: Layout) -> u8 {
    let pages = layout.size().max(layout.align()).div_ceil(PAGE_SIZE);
    pages.next_power_of_two().trailing_zeros() as u8
}

#[cold]
fn large(layout: Layout) -> Option<NonNull<u8>> {
    let Ok(block) = alloc_pages(order_of(layout), AllocFlags::empty()) else {
        return vmalloc::for_object(layout.size());
    };
    count(Counter::KmallocLarge, 1 << block.order());
    let virt = block.into_raw().virt();
    NonNull::new(ptr::with_exposed_provenance_mut(virt.as_usize()))
}

#[cold]
fn free_large(ptr: NonNull<u8>, layout: Layout) {
    if vmalloc::free_object(ptr, layout.size()) {
        return;
    }
    let phys = arch::mmu::virt_to_phys(VirtAddr(ptr.as_ptr().expose_provenance() as u64));
    let Some(head) = memmap::frame_at(phys) else { return };
    assert!(
        !head.flags().intersects(FrameFlags::SLAB | FrameFlags::BUDDY | FrameFlags::COMPOUND_TAIL),
        "kfree of {phys:?}, which kmalloc did not give out"
    );
    count(Counter::KmallocLarge, -(1 << head.order()));
    // SAFETY: a block from `large`, given back once (the caller's condition).
    drop(unsafe { PageBlock::from_raw(head) });
}

/// What all caches that were used have, for /proc/slabinfo.
pub fn for_each_cache(mut f: impl FnMut(CacheInfo)) {
    for c in CLASSES.iter().filter(|c| c.in_use()) {
        f(c.info());
    }
    cache::for_each_named(|c| f(c.info()));
}

/// Gives empty slabs back to the page allocator, this CPU's magazines first; how many pages.
pub fn shrink() -> usize {
    let mut pages = 0;
    for c in CLASSES.iter().filter(|c| c.in_use()) {
        pages += c.shrink();
    }
    cache::for_each_named(|c| pages += c.shrink());
    pages
}

#[cfg(debug_assertions)]
mod red_zone {
    use super::*;

    const BYTE: u8 = 0xbb;

    /// # Panics
    /// Never.
    pub(super) fn write(p: NonNull<u8>, size: usize, class: usize) {
        // SAFETY: the object has `class` bytes and is nobody's yet.
        unsafe { p.add(size).write_bytes(BYTE, class - size) };
    }

    pub(super) fn check(p: NonNull<u8>, size: usize, class: usize) {
        // SAFETY: the object has `class` bytes; the bytes beyond `size` are the slab's own.
        let zone = unsafe { core::slice::from_raw_parts(p.as_ptr().add(size), class - size) };
        let wrong = zone.iter().position(|b| *b != BYTE);
        assert!(
            wrong.is_none(),
            "object {p:?} of {size} bytes was written to beyond its end, at byte {}",
            size + wrong.unwrap_or(0)
        );
    }
}

#[cfg(not(debug_assertions))]
mod red_zone {
    use super::*;
    #[inline(always)]
    pub(super) fn write(_: NonNull<u8>, _: usize, _: usize) {}
    #[inline(always)]
    pub(super) fn check(_: NonNull<u8>, _: usize, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{drain_all, stats, testing};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn free(held: &mut Vec<(NonNull<u8>, Layout, u8)>, at: usize) {
        let (p, layout, tag) = held.swap_remove(at);
        // SAFETY: allocated below with this layout; the bytes are ours.
        unsafe {
            let bytes = core::slice::from_raw_parts(p.as_ptr(), layout.size());
            assert!(bytes.iter().all(|b| *b == tag), "somebody else wrote to the object");
            kfree(p, layout);
        }
    }

    #[test]
    fn objects_are_apart_aligned_and_all_come_back() {
        // The lock is held over all cases: whoever waits for it must not be a simulated CPU.
        let _lock = testing::memory();
        let ops = prop::collection::vec((1usize..20_000, 0u32..8, any::<u8>(), any::<bool>()), 1..300);
        proptest!(ProptestConfig::with_cases(30), |(ops in ops)| {
            drop_caches();
            let before = stats().free;
            let mut held = Vec::new();
            for (size, align, tag, release) in ops {
                if release && !held.is_empty() {
                    let at = size % held.len();
                    free(&mut held, at);
                } else {
                    let layout = Layout::from_size_align(size, 1 << align).unwrap();
                    let p = kmalloc(layout).unwrap();
                    prop_assert_eq!(p.as_ptr() as usize % (1 << align), 0);
                    // SAFETY: fresh memory of this size.
                    unsafe { p.write_bytes(tag, size) };
                    held.push((p, layout, tag));
                }
            }
            while let Some(at) = held.len().checked_sub(1) {
                free(&mut held, at);
            }
            drop_caches();
            prop_assert_eq!(stats().free, before);
        });
    }

    /// All that tests on this host thread's CPU cached.
    fn drop_caches() {
        shrink();
        shrink();
        drain_all();
    }

    #[test]
    fn cpus_that_allocate_and_free_each_others_objects_lose_none() {
        let _lock = testing::memory();
        let shared = std::sync::Mutex::new(Vec::<(usize, Layout)>::new());
        arch::sim::run_on_cpus(4, |cpu| {
            for n in 0..5000usize {
                let layout = Layout::from_size_align(16 << (n % 5), 8).unwrap();
                let p = kmalloc(layout).unwrap();
                // SAFETY: fresh memory of this size.
                unsafe { p.write_bytes(cpu.0 as u8, layout.size()) };
                let other = {
                    let mut s = shared.lock().unwrap();
                    s.push((p.as_ptr() as usize, layout));
                    let at = (n * 31 + cpu.0 as usize) % s.len();
                    (s.len() > 50).then(|| s.swap_remove(at))
                };
                if let Some((p, layout)) = other {
                    let p = NonNull::new(p as *mut u8).unwrap();
                    // SAFETY: taken out of the list, so nobody else frees it.
                    unsafe {
                        let b = core::slice::from_raw_parts(p.as_ptr(), layout.size());
                        assert!(b.iter().all(|x| *x == b[0]));
                        kfree(p, layout);
                    }
                }
            }
            shrink();
        });
        for (p, layout) in shared.into_inner().unwrap() {
            // SAFETY: as above.
            unsafe { kfree(NonNull::new(p as *mut u8).unwrap(), layout) };
        }
    }

    #[test]
    fn an_interrupt_may_allocate_while_the_interrupted_code_does() {
        let _lock = testing::memory();
        let layout = Layout::new::<[u64; 4]>();
        let a = kmalloc(layout).unwrap();
        let b = arch::sim::interrupt(|| kmalloc(layout)).unwrap();
        assert_ne!(a, b);
        // SAFETY: both are ours.
        unsafe {
            arch::sim::interrupt(|| kfree(a, layout));
            kfree(b, layout);
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic = "beyond its end"]
    fn a_write_beyond_the_end_is_noticed_at_the_free() {
        let _lock = testing::memory();
        let layout = Layout::from_size_align(20, 4).unwrap();
        let p = kmalloc(layout).unwrap();
        // SAFETY: inside the class's 32 bytes; the test breaks the rule on purpose.
        unsafe {
            p.add(20).write(1);
            kfree(p, layout);
        }
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic = "freed twice"]
    fn a_second_free_is_noticed() {
        let _lock = testing::memory();
        let layout = Layout::from_size_align(64, 8).unwrap();
        let p = kmalloc(layout).unwrap();
        // SAFETY: the test breaks the rule on purpose.
        unsafe {
            kfree(p, layout);
            kfree(p, layout);
        }
    }

    #[test]
    fn named_caches_are_listed_with_their_counts() {
        static CACHE: Cache = Cache::new("test_objects", 40, 8);
        let _lock = testing::memory();
        let a = CACHE.alloc().unwrap();
        let mut seen = None;
        for_each_cache(|c| {
            if c.name == "test_objects" {
                seen = Some(c);
            }
        });
        let c = seen.unwrap();
        assert!(c.object_size == 40 && c.objects >= c.active && c.active >= 1, "{c:?}");
        // SAFETY: ours.
        unsafe { CACHE.free(a) };
    }

    #[test]
    fn classes_are_large_enough_and_aligned() {
        for size in 1..8200 {
            for align in [1, 8, 16, 64, 128] {
                let layout = Layout::from_size_align(size, align).unwrap();
                if let Some(c) = class_of(layout) {
                    assert!(c.size() >= size && c.size() % align == 0);
                    assert!(c.size() <= size.max(align).max(8).next_power_of_two());
                }
            }
        }
    }
}
