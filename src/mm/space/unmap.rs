//! Taking mappings away: `munmap(2)`, and everything at once when the last user goes.

use abi::{Errno, PAGE_MASK, Result, USER_END, UserAddr, page_align_up};

use super::{AddressSpace, edit, edit::{Edit, Retired}};
use crate::{Limits, Writing, commit, tlb, types::require};

impl AddressSpace {
    /// `munmap(2)`: EINVAL for an unaligned address, no length, or a range outside user space;
    /// ENOMEM when splitting needs more areas than allowed. Nothing mapped there is no error.
    pub fn unmap(&self, addr: UserAddr, len: u64) -> Result {
        require(addr.0 & PAGE_MASK == 0, Errno::EINVAL)?;
        require(addr.0 <= USER_END && len <= USER_END - addr.0, Errno::EINVAL)?;
        let len = page_align_up(len).filter(|l| *l != 0).ok_or(Errno::EINVAL)?;
        let writer = self.write();
        let retired = self.unmap_locked(&writer, addr.0, addr.0 + len)?;
        drop(writer);
        drop(retired);
        Ok(())
    }

    pub(super) fn unmap_locked(&self, writer: &Writing<'_>, start: u64, end: u64) -> Result<Retired> {
        let mut edit = Edit::begin(self, writer, start, end)?;
        if edit.old().is_empty() {
            return Ok(Retired::default());
        }
        let specs = edit.carve(start, end, |_| Ok(None))?;
        edit.replace(specs, &Limits::UNLIMITED)?;
        edit.commit(|space| tlb::zap(space, start, end))
    }

    /// Unmaps everything: the last program in the space has gone (exit) or leaves (exec). The
    /// calling CPU may still have the space installed; nobody runs in it any more.
    /// Needs no memory.
    pub fn release(&self) {
        let writer = self.write();
        if self.counts.get().areas == 0 {
            return;
        }
        // The tables go with the space, and whatever TLBs hold of it is never used.
        let mut gather = tlb::Gather::new(self, true);
        let mut sums = edit::Sums::default();
        self.each(|area| {
            area.freeze();
            gather.take_range(area.start, area.end);
            sums.add(area);
        });
        gather.finish();
        self.each(|area| {
            edit::leave(area);
            commit::uncharge(if area.accounted() { area.pages() } else { 0 });
        });
        self.counts.change(&sums, &edit::Sums::default());
        drop(writer);
        // Closing files takes locks that come before ours. The frozen areas are still in the map,
        // so that no list of them is needed.
        self.each(|area| area.drop_file());
        self.areas.clear();
    }

    fn each(&self, mut f: impl FnMut(&kalloc::KArc<crate::Area>)) {
        let mut at = 0;
        while let Some(area) = self.area_from(at) {
            f(&area);
            at = area.end;
        }
    }
}
