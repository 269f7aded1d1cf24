//! `mremap(2)`: growing, shrinking and moving a mapping, with its pages.

use abi::{Errno, PAGE_MASK, Result, USER_END, UserAddr, page_align_up};

use super::{AddressSpace, Writing, edit::{Edit, Retired}, user_range};
use crate::{Area, Limits, MapFlags, RemapFlags, RemapRequest, tlb, types::require};
use kalloc::KVec;

impl AddressSpace {
    /// `mremap(2)`; the new address. EINVAL for flags and lengths that make no sense, EFAULT when
    /// the old range is not inside one area, EAGAIN when locked memory would exceed its limit,
    /// ENOMEM when it cannot grow or move, or by limits.
    pub fn remap(&self, request: RemapRequest) -> Result<UserAddr> {
        let (old_len, new_len) = (request.old_len, request.new_len);
        let addr = self.remap_area(request)?;
        if new_len > old_len {
            // What has grown of a locked area; as with mmap(2), this does not fail the call.
            let _ = self.populate_locked(addr.0 + (old_len & !PAGE_MASK), addr.0.saturating_add(new_len));
        }
        Ok(addr)
    }

    fn remap_area(&self, request: RemapRequest) -> Result<UserAddr> {
        let RemapRequest { old, flags, new, limits, .. } = request;
        let fixed = flags.contains(RemapFlags::FIXED);
        let keep = flags.contains(RemapFlags::DONTUNMAP);
        require(!fixed && !keep || flags.contains(RemapFlags::MAYMOVE), Errno::EINVAL)?;
        require(!keep || request.old_len == request.new_len, Errno::EINVAL)?;
        require(old.0 & PAGE_MASK == 0, Errno::EINVAL)?;
        let old_len = page_align_up(request.old_len).ok_or(Errno::EINVAL)?;
        let new_len = page_align_up(request.new_len).filter(|l| *l != 0).ok_or(Errno::EINVAL)?;
        // Areas that go; declared before the mutex is taken, so that it outlives it.
        let mut retired = [const { None }; 3];
        let [cut, replaced, moved] = &mut retired;
        let writer = self.write();
        let area = self.area_at(old.0).ok_or(Errno::EFAULT)?;
        if fixed || keep {
            let target = self.check_target(&area, &request, old_len, new_len)?;
            if fixed {
                // What is there goes, as with MAP_FIXED; and what is cut off at the old place.
                *replaced = Some(self.unmap_locked(&writer, target, target + new_len)?);
            }
            if new_len < old_len {
                *cut = Some(self.unmap_locked(&writer, old.0 + new_len, old.0 + old_len)?);
            }
            let target = if fixed {
                target
            } else {
                self.place(Some(new.0).filter(|n| *n != 0), new_len).ok_or(Errno::ENOMEM)?
            };
            return self.move_area(&writer, old.0, old_len.min(new_len), target, new_len, keep, &limits, moved);
        }
        if new_len <= old_len {
            require(area.end - old.0 >= new_len, Errno::EFAULT)?;
            if new_len < old_len {
                *cut = Some(self.unmap_locked(&writer, old.0 + new_len, old.0 + old_len)?);
            }
            return Ok(old);
        }
        self.check_growth(&area, old.0, old_len, new_len, &limits)?;
        // In place, when the mapping ends here and there is room behind it.
        if area.end == old.0 + old_len
            && let Some(end) = user_range(old.0, new_len)
            && !self.occupied(area.end, end)
        {
            let mut edit = Edit::begin(self, &writer, area.start, area.end)?;
            let mut specs = KVec::try_with_capacity(3)?;
            if let Some(now) = edit.old().first() {
                specs.try_push(now.snapshot().at(now.start, end))?;
            }
            edit.replace(specs, &limits)?;
            *moved = Some(edit.commit(|_| ())?);
            return Ok(old);
        }
        require(flags.contains(RemapFlags::MAYMOVE), Errno::ENOMEM)?;
        let target = self.place(None, new_len).ok_or(Errno::ENOMEM)?;
        self.move_area(&writer, old.0, old_len, target, new_len, false, &limits, moved)
    }

    /// Checks an explicit target; its address.
    fn check_target(&self, area: &Area, request: &RemapRequest, old_len: u64, new_len: u64) -> Result<u64> {
        let (old, new) = (request.old.0, request.new.0);
        if request.flags.contains(RemapFlags::FIXED) {
            require(new & PAGE_MASK == 0, Errno::EINVAL)?;
            require(new_len <= USER_END && new <= USER_END - new_len, Errno::EINVAL)?;
            // Old and new must not overlap (mremap(2)).
            require(old + old_len <= new || new + new_len <= old, Errno::EINVAL)?;
        }
        if new_len > old_len {
            self.check_growth(area, old, old_len, new_len, &request.limits)?;
        } else {
            require(area.end - old >= new_len.min(old_len), Errno::EFAULT)?;
        }
        Ok(new)
    }

    /// Moves `[from, from + len)` to `to`, where `new_len` bytes will be mapped. With `keep` the
    /// old range stays mapped, empty.
    #[allow(clippy::too_many_arguments)]
    fn move_area(
        &self,
        writer: &Writing<'_>,
        from: u64,
        len: u64,
        to: u64,
        new_len: u64,
        keep: bool,
        limits: &Limits,
        retired: &mut Option<Retired>,
    ) -> Result<UserAddr> {
        let end = from + len;
        let mut edit = Edit::begin(self, writer, from, end)?;
        let mut moved = None;
        let mut specs = edit.carve(from, end, |part| {
            moved = Some(part.at(to, to + new_len));
            // The part that stays has no page yet: its own index space, no family.
            Ok(keep.then(|| {
                let mut stays = part;
                stays.family = None;
                stays.flags.remove(MapFlags::LOCKED);
                if !stays.has_file {
                    stays.index = stays.start / crate::rmap::PAGE;
                }
                stays
            }))
        })?;
        let mut moved = moved.ok_or(Errno::EFAULT)?;
        if moved.file.is_none() && moved.family.is_none() {
            // No page exists: the index may follow the address, so that it can join neighbours.
            moved.index = moved.start / crate::rmap::PAGE;
        }
        Edit::insert_spec(&mut specs, moved)?;
        edit.replace(specs, limits)?;
        self.table.reserve(to, to + len)?;
        *retired = Some(edit.commit(|space| tlb::move_pages(space, from, to, len))?);
        Ok(UserAddr(to))
    }

    /// Whether the mapping may grow from `old_len` to `new_len`.
    fn check_growth(&self, area: &Area, old: u64, old_len: u64, new_len: u64, limits: &Limits) -> Result {
        // old_len 0 asks for a second mapping of the same pages, for shared ones only (mremap(2)).
        require(old_len != 0, Errno::EINVAL)?;
        require(area.end - old >= old_len, Errno::EFAULT)?;
        if area.has_file {
            let index = area.index_of(old);
            require(index.checked_add(new_len / crate::rmap::PAGE).is_some(), Errno::EINVAL)?;
        }
        self.lock_limit(area.flags, new_len - old_len, limits)
    }
}
