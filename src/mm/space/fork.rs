//! A copy of an address space: `fork(2)`.
//!
//! Pages are shared until someone writes. Page tables are copied only where the child could not
//! find the pages again by faulting: areas with anonymous pages. Shared mappings and private file
//! mappings that nobody wrote to start empty and refill from the page cache.

use abi::Result;
use arch::mmu::pte::AP_RO;
use collections::RangeError;
use kalloc::{KArc, KVec};

use super::{AddressSpace, Writing, edit};
use crate::{Area, MapFlags, commit, page, pte, tlb};

impl AddressSpace {
    /// A copy, pages shared copy-on-write. ENOMEM, after which this space's programs notice
    /// nothing. May sleep.
    pub fn fork(&self) -> Result<KArc<Self>> {
        let child = Self::new()?;
        let writer = self.write();
        {
            let mut theirs = child.writer.lock_nested(1);
            theirs.brk = writer.brk;
        }
        child.set_layout(self.layout());
        let pairs = self.fork_areas(&writer, &child)?;
        // From here on dropping the child undoes everything.
        let mut protected = false;
        let mut outcome = Ok(());
        for (mine, theirs) in &pairs.0 {
            if theirs.family().is_some() {
                outcome = self.copy_pages(&child, mine, &mut protected);
                if outcome.is_err() {
                    break;
                }
            }
        }
        drop(pairs);
        if protected {
            // One flush for all: until it is done, other threads' stores through stale entries
            // would reach pages that the child sees. They cannot have run in the child yet.
            self.flush_all();
        }
        drop(writer);
        outcome?;
        Ok(child)
    }

    /// Gives the child its areas; ours stay frozen. On failure the child has none.
    fn fork_areas(&self, _writer: &Writing<'_>, child: &KArc<Self>) -> Result<Pairs> {
        let mine = self.areas_in(0, abi::USER_END)?;
        let mut pairs = Pairs(KVec::try_with_capacity(mine.len())?);
        let mut sums = edit::Sums::default();
        for area in mine {
            if area.flags.contains(MapFlags::DONTFORK) {
                continue;
            }
            // A fault may make the family only now: it must not be missed, or the copy would be.
            area.freeze();
            let mut spec = area.snapshot();
            if spec.flags.contains(MapFlags::WIPEONFORK) {
                spec.family = None;
            }
            // Locks are not inherited (mlock(2)).
            spec.flags.remove(MapFlags::LOCKED);
            sums.add(&spec);
            let copy = KArc::try_new(Area::new_frozen(spec, child.weak().clone()));
            match copy {
                // There is room: as many as there are areas.
                Ok(copy) => drop(pairs.0.push_within_capacity((area, copy))),
                Err(e) => {
                    area.thaw();
                    return Err(e.into());
                }
            }
        }
        commit::charge(sums.accounted, self.counts.get().total)?;
        let (promised, outcome) = promise(&pairs.0);
        if let Err(e) = outcome.and_then(|()| child.publish_all(&pairs.0)) {
            for (_, area) in pairs.0.iter().take(promised) {
                edit::cancel(area);
            }
            commit::uncharge(sums.accounted);
            return Err(e);
        }
        for (_, area) in &pairs.0 {
            edit::enter(area);
            area.thaw();
        }
        child.counts.change(&edit::Sums::default(), &sums);
        Ok(pairs)
    }

    fn publish_all(&self, pairs: &[(KArc<Area>, KArc<Area>)]) -> Result {
        let mut map = self.areas.edit();
        for (_, area) in pairs {
            map.insert(area.start, area.end, area.clone()).map_err(|e| match e {
                RangeError::NoMemory(_) => abi::Errno::ENOMEM,
                RangeError::Overlap(_) => abi::Errno::EINVAL,
            })?;
        }
        map.commit();
        Ok(())
    }

    /// Shares the pages of a frozen area with the child.
    fn copy_pages(&self, child: &Self, area: &Area, protected: &mut bool) -> Result {
        let mut delta = tlb::Delta::default();
        let outcome = self.table.copy(&child.table, area.start, area.end, |mine, theirs| {
            // Device pages and the page of zeros come back by faults.
            let Some(frame) = mine.clone_frame() else { return };
            let mut bits = mine.get().bits();
            if pte::writable(bits) {
                bits |= AP_RO;
                pte::set(mine, bits);
                *protected = true;
            }
            if crate::rmap::is_anon(&frame) {
                page::mapped_anon(&frame);
                delta.anon += 1;
            } else {
                page::mapped_file(&frame);
                delta.mapped_file(&frame);
            }
            theirs.map(frame, bits);
        });
        delta.apply(child);
        outcome
    }
}

/// Areas of the parent, frozen, each with the child's copy.
struct Pairs(KVec<(KArc<Area>, KArc<Area>)>);

impl Drop for Pairs {
    fn drop(&mut self) {
        for (mine, _) in &self.0 {
            mine.thaw();
        }
    }
}

/// Promises of places in the reverse maps: how many areas have theirs, and the outcome.
fn promise(pairs: &[(KArc<Area>, KArc<Area>)]) -> (usize, Result) {
    for (i, (_, area)) in pairs.iter().enumerate() {
        if let Err(e) = edit::promise(area) {
            return (i, Err(e));
        }
    }
    (pairs.len(), Ok(()))
}
