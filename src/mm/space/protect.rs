//! `mprotect(2)`.

use abi::{Errno, PAGE_MASK, Result, UserAddr, page_align_up};

use super::{AddressSpace, edit::Edit};
use crate::{Limits, MapFlags, Prot, area::Spec, tlb, types::require};

impl AddressSpace {
    /// `mprotect(2)`. EINVAL: unaligned address. ENOMEM: the range wraps, or part of it is not
    /// mapped, or limits and memory. EACCES: the file does not allow it. The first of the last two by address
    /// decides. Unlike on Linux, an error in the middle leaves the areas before it as they were.
    pub fn protect(&self, addr: UserAddr, len: u64, prot: Prot, limits: &Limits) -> Result {
        require(addr.0 & PAGE_MASK == 0, Errno::EINVAL)?;
        if len == 0 {
            return Ok(());
        }
        let start = addr.0;
        let end = page_align_up(len).and_then(|l| start.checked_add(l)).ok_or(Errno::ENOMEM)?;
        let writer = self.write();
        let mut edit = Edit::begin(self, &writer, start, end)?;
        let mut covered = start;
        let mut changes = false;
        let specs = edit.carve(start, end, |part| {
            require(part.start == covered, Errno::ENOMEM)?;
            covered = part.end;
            changes |= part.prot != prot;
            reprotected(part, prot).map(Some)
        })?;
        require(covered >= end, Errno::ENOMEM)?;
        if !changes {
            return Ok(());
        }
        edit.replace(specs, limits)?;
        let retired = edit.commit(|space| tlb::reprotect(space, start, end, prot))?;
        drop(writer);
        drop(retired);
        Ok(())
    }
}

fn reprotected(mut part: Spec, prot: Prot) -> Result<Spec> {
    let denied = prot.contains(Prot::W) && part.flags.contains(MapFlags::NO_WRITE)
        || prot.contains(Prot::X) && part.flags.contains(MapFlags::NO_EXEC);
    require(!denied, Errno::EACCES)?;
    if prot.contains(Prot::W) && !part.flags.intersects(MapFlags::SHARED | MapFlags::NORESERVE) {
        // Stays charged when the right to write goes again: the private pages do not.
        part.flags |= MapFlags::ACCOUNTED;
    }
    part.prot = prot;
    Ok(part)
}
