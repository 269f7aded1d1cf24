//! Advice and questions about ranges: `madvise(2)`, `mincore(2)`, `msync(2)`.

use abi::{Errno, PAGE_MASK, Result, UserAddr, page_align_up};
use frames::FrameFlags;

use super::{AddressSpace, edit::Edit};
use crate::{Advice, Area, Limits, MapFlags, area::{Live, Shape}, cache::Get, rmap::PAGE, tlb, types::require};

impl AddressSpace {
    /// `madvise(2)`. EINVAL: unaligned address, length that wraps, advice that the area cannot
    /// take (locked, shared or file). ENOMEM: part of the range is not mapped; the rest got the
    /// advice.
    pub fn advise(&self, addr: UserAddr, len: u64, advice: Advice) -> Result {
        require(addr.0 & PAGE_MASK == 0, Errno::EINVAL)?;
        let len = page_align_up(len).ok_or(Errno::EINVAL)?;
        let end = addr.0.checked_add(len).ok_or(Errno::EINVAL)?;
        if len == 0 {
            return Ok(());
        }
        match advice {
            Advice::PopulateRead => return self.populate(addr, len, false),
            Advice::PopulateWrite => return self.populate(addr, len, true),
            Advice::DontNeed | Advice::Free => return self.each_area(addr.0, end, |a, _, s, e| self.discard(a, s, e, advice)),
            Advice::WillNeed => return self.each_area(addr.0, end, |a, live, s, e| self.read_ahead(a, live, s, e)),
            // Reclaim decides by use; nothing to do at once.
            Advice::Cold | Advice::PageOut => return self.each_area(addr.0, end, |a, _, _, _| {
                require(!a.flags.contains(MapFlags::LOCKED), Errno::EINVAL)
            }),
            _ => {}
        }
        let writer = self.write();
        let mut edit = Edit::begin(self, &writer, addr.0, end)?;
        let mut covered = addr.0;
        let mut hole = false;
        let mut changes = false;
        let specs = edit.carve(addr.0, end, |mut part| {
            hole |= part.start != covered;
            covered = part.end;
            let before = part.flags;
            part.flags = advised(&part, advice)?;
            changes |= part.flags != before;
            Ok(Some(part))
        })?;
        hole |= covered < end;
        let retired = if changes {
            edit.replace(specs, &Limits::UNLIMITED)?;
            edit.commit(|_| ())?
        } else {
            drop(edit);
            Default::default()
        };
        drop(writer);
        drop(retired);
        require(!hole, Errno::ENOMEM)
    }

    /// Calls `f` for the part of each area in the range; ENOMEM at the end if there were holes.
    fn each_area(&self, start: u64, end: u64, mut f: impl FnMut(&Area, &Live<'_>, u64, u64) -> Result) -> Result {
        let mut at = start;
        let mut hole = false;
        while at < end {
            let Some(area) = self.area_from(at).filter(|a| a.start < end) else {
                hole = true;
                break;
            };
            hole |= area.start > at;
            // Live: a change of the map in the middle is waited for.
            let Some(live) = area.live() else {
                drop(self.write());
                continue;
            };
            f(&area, &live, area.start.max(at), area.end.min(end))?;
            drop(live);
            at = area.end;
        }
        require(!hole, Errno::ENOMEM)
    }

    fn discard(&self, area: &Area, start: u64, end: u64, advice: Advice) -> Result {
        require(!area.flags.contains(MapFlags::LOCKED), Errno::EINVAL)?;
        // MADV_FREE is for private anonymous memory; dropping the pages at once is one of the
        // outcomes that it allows.
        require(advice != Advice::Free || !area.has_file, Errno::EINVAL)?;
        tlb::drop_pages(self, start, end);
        Ok(())
    }

    fn read_ahead(&self, area: &Area, live: &Live<'_>, start: u64, end: u64) -> Result {
        let Some(file) = live.file() else { return Ok(()) };
        let cache = file.cache();
        if cache.is_memory() {
            return Ok(());
        }
        let last = area.index_of(end).min(cache.page_count());
        for index in area.index_of(start)..last {
            if cache.page(index, Get::Read).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// `mincore(2)`: one byte per page, 1 when the page is in memory. ENOMEM for holes, and when
    /// there is no memory for the answer.
    pub fn mincore(&self, addr: UserAddr, len: u64, mut emit: impl FnMut(&[u8]) -> Result) -> Result {
        require(addr.0 & PAGE_MASK == 0, Errno::EINVAL)?;
        let end = page_align_up(len).and_then(|l| addr.0.checked_add(l)).ok_or(Errno::ENOMEM)?;
        let mut at = addr.0;
        while at < end {
            let area = self.area_at(at).ok_or(Errno::ENOMEM)?;
            let to = area.end.min(end);
            while at < to {
                // A piece at a time: `emit` may fault on user memory.
                let mut piece = [0u8; 64];
                let mut n = 0;
                for byte in &mut piece {
                    if at >= to {
                        break;
                    }
                    *byte = u8::from(self.resident(&area, at));
                    at += PAGE;
                    n += 1;
                }
                emit(piece.get(..n).unwrap_or_default())?;
            }
        }
        Ok(())
    }

    fn resident(&self, area: &Area, addr: u64) -> bool {
        if self.table.walk(UserAddr(addr)).is_present() {
            return true;
        }
        match area.file() {
            Some(file) => file
                .cache()
                .lookup(area.index_of(addr))
                .is_some_and(|f| f.test(FrameFlags::UPTODATE)),
            None => false,
        }
    }

    /// `msync(2)`: with `sync`, shared files in the range are written back. ENOMEM for holes (the
    /// rest is done), EBUSY to invalidate locked pages.
    pub fn msync(&self, addr: UserAddr, len: u64, sync: bool, invalidate: bool) -> Result {
        require(addr.0 & PAGE_MASK == 0, Errno::EINVAL)?;
        let end = page_align_up(len).and_then(|l| addr.0.checked_add(l)).ok_or(Errno::ENOMEM)?;
        let mut at = addr.0;
        let mut hole = false;
        while at < end {
            let Some(area) = self.area_from(at).filter(|a| a.start < end) else {
                hole = true;
                break;
            };
            hole |= area.start > at;
            require(!invalidate || !area.flags.contains(MapFlags::LOCKED), Errno::EBUSY)?;
            if sync && area.shared()
                && let Some(file) = area.file()
            {
                file.cache().write_back()?;
            }
            at = area.end;
        }
        require(!hole, Errno::ENOMEM)
    }
}

/// The flags of an area after the advice.
fn advised(part: &Shape, advice: Advice) -> Result<MapFlags> {
    let mut flags = part.flags;
    match advice {
        Advice::Normal => flags.remove(MapFlags::RANDOM | MapFlags::SEQUENTIAL),
        Advice::Random => {
            flags.remove(MapFlags::SEQUENTIAL);
            flags.insert(MapFlags::RANDOM);
        }
        Advice::Sequential => {
            flags.remove(MapFlags::RANDOM);
            flags.insert(MapFlags::SEQUENTIAL);
        }
        Advice::DontFork => flags.insert(MapFlags::DONTFORK),
        Advice::DoFork => flags.remove(MapFlags::DONTFORK),
        Advice::WipeOnFork => {
            // Private anonymous memory only (madvise(2)).
            require(!part.has_file && !part.shared(), Errno::EINVAL)?;
            flags.insert(MapFlags::WIPEONFORK);
        }
        Advice::KeepOnFork => flags.remove(MapFlags::WIPEONFORK),
        Advice::DontDump => flags.insert(MapFlags::DONTDUMP),
        Advice::DoDump => flags.remove(MapFlags::DONTDUMP),
        _ => {}
    }
    Ok(flags)
}
