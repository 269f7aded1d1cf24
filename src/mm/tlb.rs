//! Unmapping in batches: clear entries, flush the TLBs once, then let the frames go.
//!
//! A frame must not be used for anything else while a TLB may still hold a translation to it, so
//! a [`Gather`] keeps the references that the entries had until the flush (a broadcast by ASID and
//! range, Arm ARM D8.14.5) is done.

use arch::mmu::pte::AP_RO;
use frames::{Frame, FrameRef, pagetable::PteSlot};

use crate::{AddressSpace, Prot, page, pte, rmap::PAGE, rss::Kind};

/// Frames held back per flush.
const BATCH: usize = 64;

/// A change of the resident counts, summed up before it is applied.
#[derive(Default)]
pub(crate) struct Delta {
    pub anon: i64,
    pub file: i64,
    pub shmem: i64,
}

impl Delta {
    fn add(&mut self, kind: Kind, n: i64) {
        match kind {
            Kind::Anon => self.anon += n,
            Kind::File => self.file += n,
            Kind::Shmem => self.shmem += n,
        }
    }
    /// An entry to the frame is gone.
    pub(crate) fn unmapped(&mut self, frame: &FrameRef) {
        self.add(page::unmapped(frame), -1);
    }
    /// An entry to the page of a cache was made.
    pub(crate) fn mapped_file(&mut self, frame: &Frame) {
        self.add(page::file_kind(frame), 1);
    }
    pub(crate) fn apply(self, space: &AddressSpace) {
        space.rss.add(Kind::Anon, self.anon);
        space.rss.add(Kind::File, self.file);
        space.rss.add(Kind::Shmem, self.shmem);
    }
}

/// Entries cleared and not yet flushed.
pub(crate) struct Gather<'a> {
    space: &'a AddressSpace,
    frames: [Option<FrameRef>; BATCH],
    len: usize,
    start: u64,
    end: u64,
    delta: Delta,
    /// Nobody runs in the space: translations that linger are never used, and the number is not
    /// given out again before a full flush.
    whole: bool,
}

impl<'a> Gather<'a> {
    pub(crate) fn new(space: &'a AddressSpace, whole: bool) -> Self {
        Self {
            space,
            frames: [const { None }; BATCH],
            len: 0,
            start: u64::MAX,
            end: 0,
            delta: Delta::default(),
            whole,
        }
    }

    /// Clears the entries of `[start, end)`.
    pub(crate) fn take_range(&mut self, start: u64, end: u64) {
        self.space.table.visit(start, end, |addr, slot| self.take(addr, slot));
    }

    /// Clears an entry.
    pub(crate) fn take(&mut self, addr: u64, slot: &mut PteSlot<'_>) {
        let Some((_, frame)) = slot.take() else { return };
        self.start = self.start.min(addr);
        self.end = self.end.max(addr + PAGE);
        let Some(frame) = frame else { return };
        self.delta.unmapped(&frame);
        if let Some(place) = self.frames.get_mut(self.len) {
            *place = Some(frame);
            self.len += 1;
        }
        if self.len == BATCH {
            self.flush();
        }
    }

    /// Flushes, then drops the frames.
    fn flush(&mut self) {
        if !self.whole {
            self.space.flush(self.start, self.end, false);
        }
        self.start = u64::MAX;
        self.end = 0;
        for place in self.frames.iter_mut().take(self.len) {
            *place = None;
        }
        self.len = 0;
    }

    /// The range whose entries were cleared since the last flush.
    pub(crate) fn finish(mut self) {
        self.flush();
        core::mem::take(&mut self.delta).apply(self.space);
    }
}

/// Unmaps all pages of `[start, end)` and frees page-table pages that nothing needs any more.
/// No fault is at work there.
pub(crate) fn zap(space: &AddressSpace, start: u64, end: u64) {
    let mut gather = Gather::new(space, false);
    gather.take_range(start, end);
    gather.finish();
    space.free_tables(start, end);
}


/// Gives the pages of `[start, end)` the protection of their area. No fault is at work there.
pub(crate) fn reprotect(space: &AddressSpace, start: u64, end: u64, prot: Prot) {
    let mut changed = false;
    space.table.visit(start, end, |_, slot| {
        let old = slot.get().bits();
        // Never more than before where writing is concerned: a fault decides about copies.
        let bits = pte::bits(prot, pte::writable(old));
        if pte::executable(bits)
            && let Some(frame) = slot.frame()
        {
            page::sync_icache(frame);
        }
        if pte::set(slot, bits) {
            changed = true;
        }
    });
    if changed {
        space.flush(start, end, false);
    }
}

impl AddressSpace {
    /// Frees the page-table pages that only `[start, end)`, which is unmapped, needed.
    fn free_tables(&self, start: u64, end: u64) {
        if self.occupied(start, end) {
            // A new mapping in the same place needs them.
            return;
        }
        let floor = self.area_before(start).map_or(0, |a| a.end);
        let ceiling = self.area_from(end).map_or(abi::USER_END, |a| a.start);
        self.table.free_in((floor, ceiling), (start, end), || self.flush_all());
    }

    /// Unmaps the pages of a file that an area shows in `[start, end)`: truncation. `private` also
    /// takes the private copies.
    pub(crate) fn zap_file(&self, area: &crate::Area, start: u64, end: u64, private: bool) {
        let mut gather = Gather::new(self, false);
        let cache_pages_only = !private || area.shared();
        self.table.visit(start, end, |addr, slot| {
            if cache_pages_only && slot.frame().is_some_and(crate::rmap::is_anon) {
                return;
            }
            gather.take(addr, slot);
        });
        gather.finish();
    }

    /// Makes present entries read-only, so that the next store faults.
    pub(crate) fn write_protect_range(&self, start: u64, end: u64) {
        let mut changed = false;
        self.table.visit(start, end, |_, slot| {
            let bits = slot.get().bits();
            if pte::writable(bits) {
                changed |= pte::set(slot, bits | AP_RO);
            }
        });
        if changed {
            self.flush(start, end, false);
        }
    }
}

/// Moves the pages of `[from, from + len)` to `to`: both ranges' areas are frozen, the page tables
/// of the target exist.
pub(crate) fn move_pages(space: &AddressSpace, from: u64, to: u64, len: u64) {
    match space.table.shift(from, to, len) {
        Ok(true) => space.flush(from, from + len, false),
        Ok(false) => {}
        Err(_) => log::error!("mm: page tables of a move were not there"),
    }
    space.free_tables(from, from + len);
}

/// Drops the pages of `[start, end)`; the area stays, live, and fills again by faults.
pub(crate) fn drop_pages(space: &AddressSpace, start: u64, end: u64) {
    let mut gather = Gather::new(space, false);
    gather.take_range(start, end);
    gather.finish();
}
