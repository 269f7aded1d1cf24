//! The heap: `brk(2)`.

use abi::{PAGE_MASK, UserAddr, page_align_up};

use super::{AddressSpace, STACK_GAP, edit::Edit};
use crate::{Limits, MapFlags, Prot, Writing, area::{Shape, Spec}, rmap::PAGE};
use kalloc::KVec;

impl AddressSpace {
    /// Exec's word on where the heap begins and ends.
    pub fn set_brk(&self, start: UserAddr) {
        let mut writer = self.write();
        writer.brk = start.0;
        drop(writer);
        let mut layout = self.layout.lock();
        layout.start_brk = start;
    }

    /// The end of the heap.
    pub fn current_brk(&self) -> UserAddr {
        UserAddr(self.write().brk)
    }

    /// `brk(2)` as the kernel has it: the new end, or the old one when it could not be moved.
    pub fn brk(&self, new: UserAddr, limits: &Limits) -> UserAddr {
        let mut writer = self.write();
        let old = writer.brk;
        if self.move_brk(&writer, new.0, limits).is_some() {
            writer.brk = new.0;
        }
        let brk = writer.brk;
        let locked = writer.future.contains(MapFlags::LOCKED);
        drop(writer);
        if locked && brk > old {
            // As with mmap(2): the call does not fail when this does.
            let _ = self.populate_locked(old, brk);
        }
        UserAddr(brk)
    }

    fn move_brk(&self, writer: &Writing<'_>, new: u64, limits: &Limits) -> Option<()> {
        let layout = self.layout();
        if new < layout.start_brk.0 {
            return None;
        }
        // RLIMIT_DATA counts the program's data and its heap (getrlimit(2)).
        let data = layout.end_data.0.saturating_sub(layout.start_data.0);
        if new.saturating_sub(layout.start_brk.0).saturating_add(data) > limits.data {
            return None;
        }
        let from = page_align_up(writer.brk)?;
        let to = page_align_up(new)?;
        if to == from {
            return Some(());
        }
        if to < from {
            // Heap memory has no file whose closing would have to wait.
            return self.unmap_locked(writer, to, from).map(drop).ok();
        }
        super::user_range(from, to - from)?;
        // A page stays free below what comes next, and the gap below a stack.
        if let Some(next) = self.area_from(from) {
            let gap = if next.flags.contains(MapFlags::GROWSDOWN) { STACK_GAP } else { PAGE };
            if to.saturating_add(gap) > next.start {
                return None;
            }
        }
        self.lock_limit(writer.future, to - from, limits).ok()?;
        let mut edit = Edit::begin(self, writer, from, to).ok()?;
        let mut specs = KVec::try_with_capacity(3).ok()?;
        let shape = Shape {
            start: from,
            end: to,
            prot: Prot::RW,
            flags: MapFlags::ACCOUNTED | writer.future,
            index: (from & !PAGE_MASK) / PAGE,
            has_file: false,
        };
        specs.try_push(Spec { shape, file: None, family: None }).ok()?;
        edit.replace(specs, limits).ok()?;
        edit.commit(|_| ()).map(drop).ok()
    }
}
