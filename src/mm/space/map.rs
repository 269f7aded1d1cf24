//! Making mappings: `mmap(2)`.

use abi::{Errno, PAGE_MASK, Result, USER_END, UserAddr, page_align_up};
use kalloc::KArc;

use super::{AddressSpace, edit::Edit, user_range};
use crate::{Backing, Fixed, MapFlags, MapRequest, MappedFile, Prot, area::{Shape, Spec}, commit, shmem, tlb, types::require};

/// Flags that describe the area; the rest of what a request may say is about the call.
const KEPT: MapFlags = MapFlags::all().difference(MapFlags::POPULATE.union(MapFlags::ACCOUNTED));

impl AddressSpace {
    /// `mmap(2)`. Errors in Linux's order: EINVAL (length 0, unaligned), ENOMEM (too long),
    /// EOVERFLOW (offset), ENOMEM (no hole), EPERM (too low), EEXIST (NoReplace), EPERM and EAGAIN (locked memory),
    /// the file's EACCES, EPERM or ENODEV, ENOMEM (limits, memory). May sleep.
    pub fn map(&self, request: MapRequest) -> Result<UserAddr> {
        require(request.len != 0, Errno::EINVAL)?;
        let len = page_align_up(request.len).filter(|l| *l <= USER_END).ok_or(Errno::ENOMEM)?;
        if let Backing::File { offset, .. } = &request.backing {
            require(offset & PAGE_MASK == 0, Errno::EINVAL)?;
            require(offset.checked_add(len).is_some(), Errno::EOVERFLOW)?;
        }
        let (addr, locked, _retired) = {
            let writer = self.write();
            let hint = request.addr.map(|a| a.0);
            let start = match request.fixed {
                Fixed::No => self.place(hint.filter(|h| *h != 0), len).ok_or(Errno::ENOMEM)?,
                Fixed::Replace | Fixed::NoReplace => {
                    let start = hint.ok_or(Errno::EINVAL)?;
                    user_range(start, len).ok_or(Errno::ENOMEM)?;
                    require(start & PAGE_MASK == 0, Errno::EINVAL)?;
                    require(start >= request.limits.lowest, Errno::EPERM)?;
                    start
                }
            };
            let end = start + len;
            if request.fixed == Fixed::NoReplace && self.occupied(start, end) {
                return Err(Errno::EEXIST);
            }
            require(!request.flags.contains(MapFlags::LOCKED) || request.limits.memlock > 0, Errno::EPERM)?;
            let locking = request.flags | writer.future;
            self.lock_limit(locking, len, &request.limits)?;
            let mut spec = self.new_spec(&request, start, end)?;
            spec.flags |= writer.future;
            let mut edit = Edit::begin(self, &writer, start, end)?;
            let replaces = !edit.old().is_empty();
            let mut specs = edit.carve(start, end, |_| Ok(None))?;
            Edit::insert_spec(&mut specs, spec)?;
            edit.replace(specs, &request.limits)?;
            let retired = edit.commit(|space| {
                if replaces {
                    tlb::zap(space, start, end);
                }
            })?;
            let locked = locking.contains(MapFlags::LOCKED) && !locking.contains(MapFlags::LOCKONFAULT);
            (start, locked, retired)
        };
        if (locked || request.flags.contains(MapFlags::POPULATE)) && !request.prot.is_empty() {
            // mmap(2): the call does not fail when population does.
            let _ = self.populate(UserAddr(addr), len, request.prot.contains(Prot::W) && !request.flags.contains(MapFlags::SHARED));
        }
        Ok(UserAddr(addr))
    }

    fn new_spec(&self, request: &MapRequest, start: u64, end: u64) -> Result<Spec> {
        let shared = request.flags.contains(MapFlags::SHARED);
        let mut flags = request.flags & KEPT;
        flags.set(MapFlags::NORESERVE, flags.contains(MapFlags::NORESERVE) && commit::off_account_allowed());
        let mut index = start / crate::rmap::PAGE;
        let mut file: Option<KArc<dyn MappedFile>> = None;
        match &request.backing {
            Backing::File { file: f, offset } => {
                f.may_map(request.prot, shared)?;
                flags |= f.forced_flags(shared);
                index = offset / crate::rmap::PAGE;
                file = Some(f.clone());
            }
            Backing::Anonymous if shared => {
                file = Some(shmem::anonymous(end - start, flags.contains(MapFlags::NORESERVE), self.counts.get().total)?);
                index = 0;
            }
            Backing::Anonymous => {}
        }
        if !shared && request.prot.contains(Prot::W) && !flags.contains(MapFlags::NORESERVE) {
            flags |= MapFlags::ACCOUNTED;
        }
        let shape = Shape { start, end, prot: request.prot, flags, index, has_file: file.is_some() };
        Ok(Spec { shape, file, family: None })
    }

    /// Faults every page of the range in (`MAP_POPULATE`, `MADV_POPULATE_*`, `mlock`). ENOMEM when
    /// part of it is not mapped, EFAULT when a page cannot be had (`madvise(2)`), EINTR for a
    /// thread that is being killed.
    pub fn populate(&self, addr: UserAddr, len: u64, write: bool) -> Result {
        let start = addr.0 & !PAGE_MASK;
        let end = page_align_up(addr.0.checked_add(len).ok_or(Errno::EINVAL)?).ok_or(Errno::EINVAL)?;
        let mut at = start;
        while at < end {
            let area = self.area_at(at).ok_or(Errno::ENOMEM)?;
            if write && !area.prot.contains(Prot::W) {
                return Err(Errno::EFAULT);
            }
            if area.prot.is_empty() {
                return Err(Errno::EFAULT);
            }
            let to = area.end.min(end);
            while at < to {
                // A long way: who is killed meanwhile does not go to its end.
                if arch::thread::current().test_flag(arch::thread::FATAL_PENDING) {
                    return Err(Errno::EINTR);
                }
                self.fault_in(at, write, super::remote::Force::No)?;
                at += crate::rmap::PAGE;
            }
        }
        Ok(())
    }
}
