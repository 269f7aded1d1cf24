//! Zones: the free blocks of one range of physical addresses, by the buddy scheme.
//!
//! Blocks have 2^order frames, order 0 to 10, and are aligned to their size. A free block's head
//! has the flag `BUDDY` and its order; the others of the block have neither flag nor count. Two
//! free buddies never exist: freeing joins them. One lock per zone, interrupts off.

use crate::{Frame, FrameFlags, FrameList, MAX_ORDER, memmap};
use abi::Pfn;
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU64, Ordering},
};

static ZONE_LOCK: LockClass = LockClass::new("zone", 1850);

struct Free {
    lists: [FrameList; MAX_ORDER + 1],
    pages: u64,
}

/// One zone.
pub struct Zone {
    name: &'static str,
    start: u64,
    /// First frame beyond what the zone may have.
    end: u64,
    free: SpinLock<Free>,
    /// A copy of `Free::pages` to look at without the lock.
    free_hint: AtomicU64,
    managed: AtomicU64,
    present: AtomicU64,
    min: AtomicU64,
}

/// What a zone has at one moment, in pages.
#[derive(Clone, Copy, Debug)]
pub struct ZoneInfo {
    /// "DMA", "DMA32", "Normal".
    pub name: &'static str,
    /// RAM in the zone's range.
    pub present: u64,
    /// RAM handed to it.
    pub managed: u64,
    /// Free in its lists.
    pub free: u64,
    /// Free blocks of each order.
    pub free_blocks: [u64; MAX_ORDER + 1],
    /// Watermarks.
    pub min: u64,
    /// Background reclaim starts.
    pub low: u64,
    /// Background reclaim stops.
    pub high: u64,
}

/// Index of the zone that 30-bit devices reach (Raspberry Pi 4's peripherals).
pub(crate) const DMA: usize = 0;
/// Index of the zone that 32-bit devices reach.
pub(crate) const DMA32: usize = 1;
/// Index of the rest.
pub(crate) const NORMAL: usize = 2;
/// How many zones there are.
pub(crate) const ZONES: usize = 3;

const GIB: u64 = 1 << (30 - abi::PAGE_SHIFT);

static ALL: [Zone; ZONES] =
    [Zone::new("DMA", 0, GIB), Zone::new("DMA32", GIB, 4 * GIB), Zone::new("Normal", 4 * GIB, u64::MAX)];

/// All zones, empty ones included.
pub fn zones() -> &'static [Zone] {
    &ALL
}

/// The zones that an allocation may use, best first.
#[allow(clippy::indexing_slicing)] // constant indices
pub(crate) fn zones_up_to(highest: usize) -> impl Iterator<Item = (usize, &'static Zone)> {
    ALL[..=highest].iter().enumerate().rev().filter(|(_, z)| z.managed.load(Ordering::Relaxed) != 0)
}

/// Index and zone of a frame.
#[allow(clippy::indexing_slicing)] // constant indices
pub(crate) fn zone_of(pfn: Pfn) -> (usize, &'static Zone) {
    let i = if pfn.0 < GIB {
        DMA
    } else if pfn.0 < 4 * GIB {
        DMA32
    } else {
        NORMAL
    };
    (i, &ALL[i])
}

impl Zone {
    const fn new(name: &'static str, start: u64, end: u64) -> Self {
        let free = Free { lists: [const { FrameList::new() }; MAX_ORDER + 1], pages: 0 };
        Self {
            name,
            start,
            end,
            free: SpinLock::new(free, &ZONE_LOCK),
            free_hint: AtomicU64::new(0),
            managed: AtomicU64::new(0),
            present: AtomicU64::new(0),
            min: AtomicU64::new(0),
        }
    }

    fn contains(&self, pfn: Pfn) -> bool {
        self.start <= pfn.0 && pfn.0 < self.end
    }

    /// Free pages, as of a moment ago.
    #[inline]
    pub fn free_hint(&self) -> u64 {
        self.free_hint.load(Ordering::Relaxed)
    }

    /// The lowest watermark.
    #[inline]
    pub fn min(&self) -> u64 {
        self.min.load(Ordering::Relaxed)
    }

    /// Where background reclaim starts.
    pub fn low(&self) -> u64 {
        self.min() + self.min() / 4
    }

    /// Where background reclaim stops.
    pub fn high(&self) -> u64 {
        self.min() + self.min() / 2
    }

    /// The zone's state.
    pub fn info(&self) -> ZoneInfo {
        let free = self.free.lock_irq();
        let mut free_blocks = [0; MAX_ORDER + 1];
        for (n, l) in free_blocks.iter_mut().zip(&free.lists) {
            *n = l.len() as u64;
        }
        ZoneInfo {
            name: self.name,
            present: self.present.load(Ordering::Relaxed),
            managed: self.managed.load(Ordering::Relaxed),
            free: free.pages,
            free_blocks,
            min: self.min(),
            low: self.low(),
            high: self.high(),
        }
    }

    /// Pages that were handed over.
    pub(crate) fn managed(&self) -> u64 {
        self.managed.load(Ordering::Relaxed)
    }

    pub(crate) fn add_present(&self, pages: u64) {
        self.present.fetch_add(pages, Ordering::Relaxed);
    }

    /// `pages` more were handed over; the watermarks follow (4 sqrt(16 * KiB) as Linux's
    /// min_free_kbytes has it, but no more than 1/64 of a small machine).
    pub(crate) fn add_managed(&self, pages: u64) {
        let managed = self.managed.fetch_add(pages, Ordering::Relaxed) + pages;
        let min = (managed * 64).isqrt().min(managed / 64);
        self.min.store(min, Ordering::Relaxed);
    }

    /// Takes one block of 2^order frames, counts zero.
    pub(crate) fn take(&self, order: usize) -> Option<&'static Frame> {
        let mut free = self.free.lock_irq();
        let frame = free.take(order);
        self.free_hint.store(free.pages, Ordering::Relaxed);
        frame
    }

    /// Takes up to `n` single frames into `to`; how many.
    pub(crate) fn take_batch(&self, n: usize, to: &mut FrameList) -> usize {
        let mut free = self.free.lock_irq();
        let mut got = 0;
        while got < n {
            let Some(f) = free.take(0) else { break };
            f.set_all_flags(FrameFlags::PER_CPU);
            to.push_back(f);
            got += 1;
        }
        self.free_hint.store(free.pages, Ordering::Relaxed);
        got
    }

    /// Gives back a block of 2^order frames, counts and flags zero.
    pub(crate) fn give(&self, frame: &'static Frame, order: usize) {
        let mut free = self.free.lock_irq();
        free.give(self, frame, order);
        self.free_hint.store(free.pages, Ordering::Relaxed);
    }

    /// Gives back up to `n` single frames from the cold end of `from`.
    pub(crate) fn give_batch(&self, n: usize, from: &mut FrameList) -> usize {
        let mut free = self.free.lock_irq();
        let mut done = 0;
        while done < n {
            let Some(f) = from.pop_back() else { break };
            f.set_all_flags(FrameFlags::empty());
            free.give(self, f, 0);
            done += 1;
        }
        self.free_hint.store(free.pages, Ordering::Relaxed);
        done
    }
}

impl Free {
    #[allow(clippy::indexing_slicing)] // orders are at most MAX_ORDER
    fn take(&mut self, order: usize) -> Option<&'static Frame> {
        let found = (order..=MAX_ORDER).find(|o| !self.lists[*o].is_empty())?;
        let head = self.lists[found].pop_front()?;
        head.set_all_flags(FrameFlags::empty());
        // Give back the upper halves.
        for o in (order..found).rev() {
            if let Some(half) = memmap::frame_of(head.pfn().add(1 << o)) {
                self.put(half, o);
            }
        }
        head.order.store(order as u8, Ordering::Relaxed);
        self.pages -= 1 << order;
        Some(head)
    }

    #[allow(clippy::indexing_slicing)] // orders are at most MAX_ORDER
    fn put(&mut self, head: &'static Frame, order: usize) {
        head.order.store(order as u8, Ordering::Relaxed);
        head.set_all_flags(FrameFlags::BUDDY);
        let on = self.lists[order].push_front(head);
        debug_assert!(on, "free block on a list already");
    }

    #[allow(clippy::indexing_slicing)] // orders are at most MAX_ORDER
    fn give(&mut self, zone: &Zone, frame: &'static Frame, order: usize) {
        debug_assert!(!frame.test(FrameFlags::BUDDY) && frame.refcount() == 0, "double free of {frame:?}");
        self.pages += 1 << order;
        let (mut head, mut order) = (frame, order);
        while order < MAX_ORDER {
            let pfn = head.pfn();
            let buddy = Pfn(pfn.0 ^ (1 << order));
            if !zone.contains(buddy) {
                break;
            }
            let Some(b) = memmap::frame_of(buddy) else { break };
            if !b.test(FrameFlags::BUDDY) || b.order() as usize != order {
                break;
            }
            self.lists[order].remove(b);
            b.set_all_flags(FrameFlags::empty());
            if buddy < pfn {
                head = b;
            }
            order += 1;
        }
        self.put(head, order);
    }
}
