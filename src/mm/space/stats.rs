//! What `/proc/PID/{maps,smaps,statm,status}` tell about a space.

use abi::{PAGE_SHIFT, Result, UserAddr};
use frames::FrameFlags;
use sync::rcu;

use super::AddressSpace;
use crate::{Area, rss::Kind};

/// Resident pages by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rss {
    /// Anonymous.
    pub anon: u64,
    /// Of files.
    pub file: u64,
    /// Of shared memory.
    pub shmem: u64,
}

impl Rss {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.anon + self.file + self.shmem
    }
}

/// Sizes of a space, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SpaceStats {
    /// Mapped (VmSize).
    pub total: u64,
    /// Largest `total` so far (VmPeak).
    pub peak: u64,
    /// Resident (VmRSS).
    pub rss: Rss,
    /// Largest resident total seen (VmHWM).
    pub rss_peak: u64,
    /// Private and writable, without stacks (VmData).
    pub data: u64,
    /// Stacks (VmStk).
    pub stack: u64,
    /// Executable (VmExe and VmLib together).
    pub exec: u64,
    /// Shared mappings.
    pub shared: u64,
    /// Locked (VmLck).
    pub locked: u64,
    /// Pages of page tables (VmPTE).
    pub page_tables: u64,
    /// How many areas.
    pub areas: u64,
}

/// An area as `/proc/PID/maps` shows it.
pub type AreaInfo = Area;

/// What of an area is in memory, in bytes (`/proc/PID/smaps`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // the names are proc(5)'s
pub struct AreaUsage {
    pub rss: u64,
    pub pss: u64,
    pub shared_clean: u64,
    pub shared_dirty: u64,
    pub private_clean: u64,
    pub private_dirty: u64,
    pub referenced: u64,
    pub anonymous: u64,
    pub pss_dirty: u64,
    pub pss_anon: u64,
    pub pss_file: u64,
    pub pss_shmem: u64,
}

impl AreaUsage {
    /// Adds what another area has in memory (`smaps_rollup`).
    pub fn add(&mut self, o: &Self) {
        self.rss += o.rss;
        self.pss += o.pss;
        self.shared_clean += o.shared_clean;
        self.shared_dirty += o.shared_dirty;
        self.private_clean += o.private_clean;
        self.private_dirty += o.private_dirty;
        self.referenced += o.referenced;
        self.anonymous += o.anonymous;
        self.pss_dirty += o.pss_dirty;
        self.pss_anon += o.pss_anon;
        self.pss_file += o.pss_file;
        self.pss_shmem += o.pss_shmem;
    }
}

/// A page as `/proc/PID/pagemap` tells about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageInfo {
    /// The frame.
    pub pfn: u64,
    /// Of a file or shared memory.
    pub file: bool,
    /// Mapped here only.
    pub exclusive: bool,
}

impl AddressSpace {
    /// The sizes at this moment. Sums per-CPU counters: not for hot paths.
    pub fn stats(&self) -> SpaceStats {
        let sums = self.counts.get();
        let rss = Rss {
            anon: self.rss.get(Kind::Anon),
            file: self.rss.get(Kind::File),
            shmem: self.rss.get(Kind::Shmem),
        };
        SpaceStats {
            total: sums.total,
            peak: self.counts.peak(),
            rss,
            rss_peak: self.rss.peak().max(rss.total()),
            data: sums.data,
            stack: sums.stack,
            exec: sums.exec,
            shared: sums.shared,
            locked: sums.locked,
            page_tables: self.table.pages(),
            areas: sums.areas,
        }
    }

    /// Resident pages at this moment.
    pub fn resident_pages(&self) -> u64 {
        self.rss.total()
    }

    /// Calls `f` for each area in order until it fails. The map may change between two calls: each
    /// area is as it was at its turn. `f` may sleep.
    pub fn for_each_area(&self, mut f: impl FnMut(&AreaInfo) -> Result) -> Result {
        let mut at = 0;
        while let Some(area) = self.area_from(at) {
            f(&area)?;
            at = area.end;
        }
        Ok(())
    }

    /// The first area that ends above `addr`, for readers that come back for more.
    pub fn next_area(&self, addr: UserAddr) -> Option<kalloc::KArc<Area>> {
        self.area_from(addr.0)
    }

    /// The first page in the range that is worth writing down: one that is mapped, or that a file
    /// can give.
    pub fn next_present(&self, from: UserAddr, end: UserAddr) -> Option<UserAddr> {
        let area = self.area_at(from.0)?;
        if area.has_file || from >= end {
            return (from < end).then_some(from);
        }
        self.table.first_used(from.0, end.0.min(area.end)).map(UserAddr)
    }

    /// The protection at an address; `None` when nothing is mapped there.
    pub fn protection_at(&self, addr: UserAddr) -> Option<crate::Prot> {
        let guard = rcu::read_lock();
        self.areas.lookup(&guard, addr.0).map(|a| a.prot)
    }

    /// The resident pages of `[start, end)`, in order.
    pub fn for_each_page(&self, start: u64, end: u64, mut f: impl FnMut(u64, PageInfo)) {
        self.table.visit(start, end, |at, slot| {
            let Some(frame) = slot.frame() else { return };
            f(
                at,
                PageInfo {
                    pfn: frame.pfn().0,
                    file: !frame.test(FrameFlags::ANON),
                    exclusive: frame.mapcount() == 1,
                },
            );
        });
    }

    /// What of the area is in memory.
    pub fn usage(&self, area: &Area) -> AreaUsage {
        let mut usage = AreaUsage::default();
        let page = 1u64 << PAGE_SHIFT;
        self.table.visit(area.start, area.end, |_, slot| {
            let Some(frame) = slot.frame() else { return };
            let mappings = u64::from(frame.mapcount().max(1).unsigned_abs());
            let flags = frame.flags();
            usage.rss += page;
            let share = page / mappings;
            usage.pss += share;
            *(match (flags.contains(FrameFlags::ANON), flags.contains(FrameFlags::SWAPBACKED)) {
                (true, _) => &mut usage.pss_anon,
                (false, true) => &mut usage.pss_shmem,
                (false, false) => &mut usage.pss_file,
            }) += share;
            if flags.contains(FrameFlags::DIRTY) {
                usage.pss_dirty += share;
            }
            usage.referenced += page;
            if flags.contains(FrameFlags::ANON) {
                usage.anonymous += page;
            }
            let part = match (mappings > 1, flags.contains(FrameFlags::DIRTY)) {
                (true, true) => &mut usage.shared_dirty,
                (true, false) => &mut usage.shared_clean,
                (false, true) => &mut usage.private_dirty,
                (false, false) => &mut usage.private_clean,
            };
            *part += page;
        });
        usage
    }
}
