//! Zones: the free memory of one range of physical addresses, and its watermarks. One lock per
//! zone, interrupts off.

use crate::{Frame, FrameFlags, FrameList, MAX_ORDER, buddy::{BLOCK_PAGES, Free, MigrateType, TYPES, type_of}, memmap};
use abi::Pfn;
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU64, Ordering},
};

static ZONE_LOCK: LockClass = LockClass::new("zone", 1850);

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
    /// The same by type, in the order of [`MigrateType::ALL`].
    pub by_type: [[u64; MAX_ORDER + 1]; TYPES],
    /// Number of the first frame.
    pub start: u64,
    /// From the first frame to the last, holes included.
    pub spanned: u64,
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
        Self {
            name,
            start,
            end,
            free: SpinLock::new(Free::new(), &ZONE_LOCK),
            free_hint: AtomicU64::new(0),
            managed: AtomicU64::new(0),
            present: AtomicU64::new(0),
            min: AtomicU64::new(0),
        }
    }

    /// Its frames are in this range.
    fn range(&self) -> (Pfn, Pfn) {
        (Pfn(self.start), Pfn(self.end))
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

    /// Its part of the banks of RAM.
    fn banks(&self) -> impl Iterator<Item = (u64, u64)> {
        let clip = |(start, end): (Pfn, Pfn)| (start.0.max(self.start), end.0.min(self.end));
        memmap::banks().map(clip).filter(|(start, end)| start < end)
    }

    /// Pageblocks of each type, in the order of [`MigrateType::ALL`].
    pub fn pageblocks(&self) -> [u64; TYPES] {
        let mut counts = [0; TYPES];
        for (start, end) in self.banks() {
            let mut at = start;
            while at < end {
                let kind = memmap::frame_of(Pfn(at)).map_or(MigrateType::Movable, type_of);
                for (n, k) in counts.iter_mut().zip(MigrateType::ALL) {
                    *n += u64::from(k == kind);
                }
                at = (at | (BLOCK_PAGES - 1)) + 1;
            }
        }
        counts
    }

    /// The zone's state.
    pub fn info(&self) -> ZoneInfo {
        let start = self.banks().map(|(start, _)| start).min().unwrap_or(0);
        let end = self.banks().map(|(_, end)| end).max().unwrap_or(start);
        let free = self.free.lock_irq();
        let of = |order, kind| free.blocks(order, kind);
        let by_type = MigrateType::ALL.map(|kind| core::array::from_fn(|order| of(order, kind)));
        let free_blocks = core::array::from_fn(|order| MigrateType::ALL.iter().map(|kind| of(order, *kind)).sum());
        ZoneInfo {
            name: self.name,
            present: self.present.load(Ordering::Relaxed),
            managed: self.managed.load(Ordering::Relaxed),
            free: free.pages,
            free_blocks,
            by_type,
            start,
            spanned: end - start,
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
    pub(crate) fn take(&self, order: usize, kind: MigrateType) -> Option<&'static Frame> {
        let mut free = self.free.lock_irq();
        let frame = free.take(order, kind, self.range());
        self.free_hint.store(free.pages, Ordering::Relaxed);
        frame
    }

    /// Takes up to `n` single frames into `to`; how many.
    pub(crate) fn take_batch(&self, n: usize, kind: MigrateType, to: &mut FrameList) -> usize {
        let mut free = self.free.lock_irq();
        let mut got = 0;
        while got < n {
            let Some(f) = free.take(0, kind, self.range()) else { break };
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
        free.give(frame, order, self.range());
        self.free_hint.store(free.pages, Ordering::Relaxed);
    }

    /// Gives back up to `n` single frames from the cold end of `from`.
    pub(crate) fn give_batch(&self, n: usize, from: &mut FrameList) -> usize {
        let mut free = self.free.lock_irq();
        let mut done = 0;
        while done < n {
            let Some(f) = from.pop_back() else { break };
            f.set_all_flags(FrameFlags::empty());
            free.give(f, 0, self.range());
            done += 1;
        }
        self.free_hint.store(free.pages, Ordering::Relaxed);
        done
    }
}
