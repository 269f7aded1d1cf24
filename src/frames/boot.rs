//! Memory before the zones stand: a buddy heap over what nobody reserved, later handed over.
//!
//! `init` runs once, on the boot CPU, when the linear map has all banks. The heap writes its list
//! nodes into the free memory itself, through the linear map.

use crate::{FrameFlags, MAX_ORDER, memmap, zone};
use abi::{PAGE_SIZE, PhysAddr, Pfn, VirtAddr};
use arch::boot::PhysRange;
use buddy_system_allocator::Heap;
use core::{alloc::Layout, ptr};
use sync::{LockClass, SpinLock};

static BOOT_LOCK: LockClass = LockClass::new("boot_heap", 1860);

/// Blocks up to 2^40 bytes.
const ORDERS: usize = 41;

static HEAP: SpinLock<Heap<ORDERS>> = SpinLock::new(Heap::empty(), &BOOT_LOCK);

/// Why memory could not be set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InitError {
    /// The device tree names no usable RAM.
    NoMemory,
    /// There is too little for the descriptors.
    TooSmall,
    /// `init` ran before.
    Again,
}

/// Most ranges that are kept apart.
const MAX_RANGES: usize = 64;

/// Ranges in ascending order that do not touch.
struct Ranges {
    list: [PhysRange; MAX_RANGES],
    len: usize,
}

impl Ranges {
    const fn new() -> Self {
        Self { list: [PhysRange::new(PhysAddr(0), PhysAddr(0)); MAX_RANGES], len: 0 }
    }

    fn as_slice(&self) -> &[PhysRange] {
        self.list.get(..self.len).unwrap_or(&[])
    }

    /// Adds a range, joining those that it touches. Beyond the capacity it is left out.
    fn add(&mut self, r: PhysRange) {
        if r.is_empty() {
            return;
        }
        let mut new = r;
        let mut kept = 0;
        for i in 0..self.len {
            let Some(old) = self.list.get(i).copied() else { break };
            if old.end < new.start || new.end < old.start {
                if let Some(slot) = self.list.get_mut(kept) {
                    *slot = old;
                    kept += 1;
                }
            } else {
                new = PhysRange::new(old.start.min(new.start), old.end.max(new.end));
            }
        }
        self.len = kept;
        let at = self.as_slice().iter().position(|o| o.start > new.start).unwrap_or(kept);
        if kept < MAX_RANGES {
            self.list.copy_within(at..kept, at + 1);
            if let Some(slot) = self.list.get_mut(at) {
                *slot = new;
            }
            self.len = kept + 1;
        }
    }
}

/// The whole pages of the banks that the linear map reaches, ascending.
fn usable(banks: &[PhysRange]) -> Ranges {
    let mut out = Ranges::new();
    for b in banks {
        let (s, e) = memmap::frames_in(b);
        let limit = (arch::layout::LINEAR_END - arch::layout::LINEAR_BASE) >> abi::PAGE_SHIFT;
        out.add(PhysRange::new(s.addr(), Pfn(e.0.min(limit)).addr()));
    }
    out.len = out.len.min(memmap::MAX_BANKS);
    out
}

/// Calls `f` with the whole pages of `banks` that no range of `reserved` touches.
fn each_free(banks: &Ranges, reserved: &[PhysRange], mut f: impl FnMut(PhysRange)) {
    for bank in banks.as_slice() {
        let mut at = bank.start;
        while at < bank.end {
            // The reservation that covers `at`, or else the next one behind it.
            let cover = reserved.iter().filter(|r| !r.is_empty() && r.start.page_down() <= at && at < r.end);
            if let Some(end) = cover.map(|r| r.end).max() {
                match end.page_up() {
                    Some(next) => at = next,
                    None => break,
                }
                continue;
            }
            let next = reserved.iter().filter(|r| !r.is_empty() && r.start > at).map(|r| r.start.page_down()).min();
            let end = next.unwrap_or(bank.end).min(bank.end);
            f(PhysRange::new(at, end));
            at = end;
        }
    }
}

/// Pages for the tables of the linear map, before anything may be written to: taken in ascending
/// order from `from` on. What was taken goes into the reservations of [`init`].
pub struct EarlyPages<'a> {
    banks: Ranges,
    reserved: &'a [PhysRange],
    start: PhysAddr,
    at: PhysAddr,
}

impl<'a> EarlyPages<'a> {
    /// A source of pages at or after `from`.
    pub fn new(banks: &[PhysRange], reserved: &'a [PhysRange], from: PhysAddr) -> Self {
        let from = from.page_up().unwrap_or(from);
        Self { banks: usable(banks), reserved, start: from, at: from }
    }

    /// The next page.
    pub fn take(&mut self) -> Option<PhysAddr> {
        let mut found = None;
        let at = self.at;
        each_free(&self.banks, self.reserved, |r| {
            if found.is_none() && r.end > at && r.start.max(at) < r.end {
                found = Some(r.start.max(at));
            }
        });
        self.at = found?.add(PAGE_SIZE as u64);
        found
    }

    /// From the first to the last page taken: to be reserved.
    pub fn used(&self) -> PhysRange {
        PhysRange::new(self.start, self.at)
    }
}

/// Memory from the boot heap, not zeroed; `None` when there is none, or when the zones stand.
pub fn alloc(size: usize, align: usize) -> Option<PhysAddr> {
    let layout = Layout::from_size_align(size.max(PAGE_SIZE), align.max(PAGE_SIZE)).ok()?;
    let p = HEAP.lock_irq().alloc(layout).ok()?;
    Some(arch::mmu::virt_to_phys(VirtAddr(p.as_ptr().expose_provenance() as u64)))
}

/// Makes memory from [`alloc`] zero.
pub(crate) fn zero(phys: PhysAddr, len: usize) {
    let p = ptr::with_exposed_provenance_mut::<u8>(arch::mmu::linear(phys).as_usize());
    // SAFETY: RAM in the linear map that the boot heap gave out and nobody uses yet.
    unsafe { p.write_bytes(0, len) };
}

/// Sets up physical memory: boot heap, descriptors, zones; and hands the heap over.
///
/// `banks` and `reserved` may overlap, touch and come in any order. The linear map must reach all
/// banks. Runs once, on the boot CPU, before others are up.
///
/// # Errors
/// See [`InitError`]; nothing was set up then.
pub fn init(banks: &[PhysRange], reserved: &[PhysRange]) -> Result<(), InitError> {
    if memmap::banks().next().is_some() {
        return Err(InitError::Again);
    }
    let ram = usable(banks);
    if ram.len == 0 {
        return Err(InitError::NoMemory);
    }
    {
        let mut heap = HEAP.lock_irq();
        each_free(&ram, reserved, |r| {
            let start = arch::mmu::linear(r.start).as_usize();
            // SAFETY: RAM in the linear map that nobody reserved; no range is added twice.
            unsafe { heap.add_to_heap(start, start + r.len() as usize) };
        });
    }
    if !memmap::create(ram.as_slice()) {
        return Err(InitError::TooSmall);
    }
    memmap::publish(ram.as_slice());
    for (s, e) in memmap::banks() {
        split_by_zone(s, e, |z, n, _| z.add_present(n));
    }
    hand_over();
    mark_reserved();
    Ok(())
}

fn split_by_zone(start: Pfn, end: Pfn, mut f: impl FnMut(&'static zone::Zone, u64, Pfn)) {
    let mut at = start;
    while at < end {
        let (i, z) = zone::zone_of(at);
        let mut next = end;
        // The first frame of a later zone.
        for border in [1u64 << 18, 1 << 20] {
            if at.0 < border && border < next.0 {
                next = Pfn(border);
            }
        }
        let _ = i;
        f(z, next.0 - at.0, at);
        at = next;
    }
}

/// Empties the boot heap into the zones.
fn hand_over() {
    for order in (abi::PAGE_SHIFT as usize..ORDERS).rev() {
        let Ok(layout) = Layout::from_size_align(1 << order, 1 << order) else { continue };
        loop {
            let block = HEAP.lock_irq().alloc(layout);
            let Ok(p) = block else { break };
            let phys = arch::mmu::virt_to_phys(VirtAddr(p.as_ptr().expose_provenance() as u64));
            give(phys.pfn(), Pfn(phys.pfn().0 + (1 << (order - abi::PAGE_SHIFT as usize))));
        }
    }
}

/// Gives frames that have neither flags nor counts to their zones, in the largest blocks.
fn give(start: Pfn, end: Pfn) {
    split_by_zone(start, end, |z, pages, first| {
        z.add_managed(pages);
        let (mut at, end) = (first.0, first.0 + pages);
        while at < end {
            let by_align = if at == 0 { MAX_ORDER as u32 } else { at.trailing_zeros() };
            let order = by_align.min((end - at).ilog2()).min(MAX_ORDER as u32);
            if let Some(f) = memmap::frame_of(Pfn(at)) {
                z.give(f, order as usize);
            }
            at += 1 << order;
        }
    });
}

/// What is neither free nor given out stays with whoever has it now.
fn mark_reserved() {
    for (start, end) in memmap::banks() {
        let mut at = start;
        while at < end {
            let Some(f) = memmap::frame_of(at) else { break };
            if f.test(FrameFlags::BUDDY) {
                at = at.add(1 << f.order());
            } else {
                f.set_all_flags(FrameFlags::RESERVED);
                f.set_refcount(1);
                at = at.add(1);
            }
        }
    }
}

/// Frees whole pages that were reserved at boot and are not used any more (initrd, init code); how
/// many. What is not reserved in the range is left alone.
pub fn free_reserved(range: PhysRange) -> u64 {
    let (start, end) = memmap::frames_in(&range);
    let mut n = 0;
    for pfn in start.0..end.0 {
        let Some(f) = memmap::frame_of(Pfn(pfn)) else { continue };
        if f.test(FrameFlags::RESERVED) && f.freeze(1) {
            f.set_all_flags(FrameFlags::empty());
            give(Pfn(pfn), Pfn(pfn + 1));
            n += 1;
        }
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn r(s: u64, e: u64) -> PhysRange {
        PhysRange::new(PhysAddr(s << 12), PhysAddr(e << 12))
    }

    proptest! {
        #[test]
        fn free_ranges_are_banks_without_reservations(
            banks in prop::collection::vec((0u64..100, 0u64..40), 0..6),
            reserved in prop::collection::vec((0u64..120, 0u64..30, 0u64..4096), 0..8),
        ) {
            let banks: Vec<_> = banks.into_iter().map(|(s, l)| r(s, s + l)).collect();
            // Reservations need not be whole pages.
            let reserved: Vec<_> = reserved
                .into_iter()
                .map(|(s, l, o)| PhysRange::new(PhysAddr((s << 12) + o), PhysAddr((s + l) << 12)))
                .collect();
            let mut got = std::collections::BTreeSet::new();
            each_free(&usable(&banks), &reserved, |f| {
                for p in f.start.0 >> 12..f.end.0 >> 12 {
                    assert!(got.insert(p), "given twice");
                }
            });
            let hit = |p: u64, x: &PhysRange| !x.is_empty() && x.start.0 < (p + 1) << 12 && p << 12 < x.end.0;
            let want: std::collections::BTreeSet<_> = (0..200)
                .filter(|p| banks.iter().any(|b| b.contains(PhysAddr(p << 12))) && !reserved.iter().any(|x| hit(*p, x)))
                .collect();
            prop_assert_eq!(&got, &want);
            // And the early source hands out the same pages in order.
            let mut early = EarlyPages::new(&banks, &reserved, PhysAddr(20 << 12));
            let pages: Vec<_> = core::iter::from_fn(|| early.take()).map(|p| p.0 >> 12).collect();
            prop_assert_eq!(pages, want.range(20..).copied().collect::<Vec<_>>());
        }
    }
}
