//! One change of the map: areas out, areas in, all or nothing.
//!
//! Steps: [`begin`](Edit::begin) freezes the areas that overlap a range; [`replace`](Edit::replace)
//! takes what shall stand in their place, joins it with neighbours, and allocates what the change
//! needs; [`commit`](Edit::commit) publishes it, which is the last thing that can fail. Dropping
//! an edit before that thaws the areas: nothing has happened.
//!
//! Commit's order: the new map is published with its new areas frozen; they become members of
//! their reverse maps; then the caller's work on the page tables; then the old areas leave their
//! reverse maps and the new ones are thawed. A fault in the range waits for the writer's mutex
//! from the first freeze to the last thaw, and then finds the new map.

use abi::{Errno, Result};
use collections::RangeError;
use kalloc::{KArc, KVec};

use super::{AddressSpace, MAX_AREAS, Writing};
use crate::{Area, Limits, MapFlags, Prot, area::{Shape, Spec}, commit, rmap::Link};

/// A change of the map in the making.
pub(crate) struct Edit<'a> {
    space: &'a AddressSpace,
    /// Proof that we are the writer.
    _writer: &'a Writing<'a>,
    /// Frozen areas that go.
    old: KVec<KArc<Area>>,
    /// Areas that come.
    new: KVec<KArc<Area>>,
    /// How many of `new` have places promised in their file's and family's lists.
    promised: usize,
    /// Pages charged for the new areas.
    charged: u64,
}

/// Areas that have left the map, with their files. Dropping it may close files, which takes locks
/// that come before those of the memory manager: so the writer's mutex goes first.
#[must_use = "drop it after the writer's mutex"]
#[derive(Default)]
pub(crate) struct Retired(KVec<KArc<Area>>);

impl Drop for Retired {
    fn drop(&mut self) {
        for area in &self.0 {
            area.drop_file();
        }
    }
}

/// What the areas of a list add up to, in pages.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Sums {
    pub areas: u64,
    pub total: u64,
    pub data: u64,
    pub stack: u64,
    pub exec: u64,
    pub shared: u64,
    pub locked: u64,
    pub accounted: u64,
}

impl Sums {
    pub(crate) fn add(&mut self, spec: &Shape) {
        let n = spec.pages();
        let when = |cond: bool| if cond { n } else { 0 };
        self.areas += 1;
        self.total += n;
        self.data += when(spec.is_data());
        self.stack += when(spec.flags.contains(MapFlags::GROWSDOWN));
        self.exec += when(spec.prot.contains(Prot::X) && !spec.prot.contains(Prot::W) && !spec.flags.contains(MapFlags::GROWSDOWN));
        self.shared += when(spec.shared());
        self.locked += when(spec.flags.contains(MapFlags::LOCKED));
        self.accounted += when(spec.accounted());
    }

    fn of<'s>(areas: impl Iterator<Item = &'s KArc<Area>>) -> Self {
        let mut sums = Self::default();
        for area in areas {
            sums.add(area);
        }
        sums
    }
}

impl<'a> Edit<'a> {
    /// Freezes what overlaps `[start, end)`. ENOMEM.
    pub(crate) fn begin(space: &'a AddressSpace, writer: &'a Writing<'a>, start: u64, end: u64) -> Result<Self> {
        let mut edit = Self {
            space,
            _writer: writer,
            old: KVec::new(),
            new: KVec::new(),
            promised: 0,
            charged: 0,
        };
        let mut at = start;
        while at < end {
            let Some(area) = space.area_from(at) else { break };
            if area.start >= end {
                break;
            }
            at = area.end;
            edit.take(area, false)?;
        }
        Ok(edit)
    }

    /// Freezes one area and makes it part of the change.
    fn take(&mut self, area: KArc<Area>, first: bool) -> Result {
        self.old.try_reserve(1)?;
        area.freeze();
        if first {
            self.old.insert(0, area)?;
        } else {
            self.old.try_push(area)?;
        }
        Ok(())
    }

    /// The frozen areas, in order.
    pub(crate) fn old(&self) -> &[KArc<Area>] {
        &self.old
    }

    /// The parts of the frozen areas before `start` and from `end` on, and in between what
    /// `middle` makes of each part (nothing, to unmap it), in order.
    pub(crate) fn carve(&self, start: u64, end: u64, mut middle: impl FnMut(Spec) -> Result<Option<Spec>>) -> Result<KVec<Spec>> {
        let mut specs = KVec::try_with_capacity(self.old.len() + 3)?;
        for area in &self.old {
            let spec = area.snapshot();
            if spec.start < start {
                specs.try_push(spec.slice(spec.start, start))?;
            }
            if let Some(part) = middle(spec.slice(start, end))? {
                specs.try_push(part)?;
            }
            if spec.end > end {
                specs.try_push(spec.slice(end, spec.end))?;
            }
        }
        Ok(specs)
    }

    /// Puts a spec at its place in an ordered list.
    pub(crate) fn insert_spec(specs: &mut KVec<Spec>, spec: Spec) -> Result {
        let at = specs.iter().position(|s| s.start >= spec.end).unwrap_or(specs.len());
        specs.insert(at, spec)?;
        Ok(())
    }

    /// Prepares `specs` (in order, without overlap) to stand in place of the frozen areas.
    /// Neighbours that continue the first or last of them are joined with it.
    /// ENOMEM: no memory, too many areas, or more than `limits` and the commit account allow.
    pub(crate) fn replace(&mut self, mut specs: KVec<Spec>, limits: &Limits) -> Result {
        self.join_neighbours(&mut specs)?;
        join(&mut specs);
        self.new = KVec::try_with_capacity(specs.len())?;
        for spec in specs {
            let area = KArc::try_new(Area::new_frozen(spec, self.space.weak().clone()))?;
            self.new.try_push(area)?;
        }
        for i in 0..self.new.len() {
            let Some(area) = self.new.get(i) else { break };
            promise(area)?;
            self.promised = i + 1;
        }
        let (old, new) = (self.old_sums(), self.new_sums());
        let now = self.space.counts.get();
        if new.areas > old.areas && now.areas + new.areas - old.areas > MAX_AREAS.get_u64() {
            return Err(Errno::ENOMEM);
        }
        within(limits, &now, &old, &new)?;
        let more = new.accounted.saturating_sub(old.accounted);
        if more > 0 {
            commit::charge(more, now.total)?;
            self.charged = more;
        }
        Ok(())
    }

    fn join_neighbours(&mut self, specs: &mut KVec<Spec>) -> Result {
        if let Some(first) = specs.first()
            && first.start > 0
            && let Some(before) = self.space.area_at(first.start - 1)
            && !self.old.iter().any(|a| KArc::ptr_eq(a, &before))
            && before.snapshot().joins(first)
        {
            self.take(before.clone(), true)?;
            // Frozen now, so that its family is final: look again.
            specs.insert(0, before.snapshot())?;
        }
        if let Some(last) = specs.last()
            && let Some(after) = self.space.area_at(last.end)
            && !self.old.iter().any(|a| KArc::ptr_eq(a, &after))
            && last.joins(&after.snapshot())
        {
            self.take(after.clone(), false)?;
            specs.try_push(after.snapshot())?;
        }
        Ok(())
    }

    fn old_sums(&self) -> Sums {
        Sums::of(self.old.iter())
    }

    fn new_sums(&self) -> Sums {
        Sums::of(self.new.iter())
    }

    /// Puts the new areas, still frozen, in place of the old ones. ENOMEM: nothing changed.
    fn publish(&self) -> Result {
        let mut map = self.space.areas.edit();
        for area in &self.old {
            map.remove(area.start)?;
        }
        for area in &self.new {
            match map.insert(area.start, area.end, area.clone()) {
                Ok(()) => {}
                Err(RangeError::NoMemory(_)) => return Err(Errno::ENOMEM),
                Err(RangeError::Overlap(_)) => {
                    log::error!("mm: area {:#x}-{:#x} overlaps another", area.start, area.end);
                    return Err(Errno::EINVAL);
                }
            }
        }
        map.commit();
        Ok(())
    }

    /// Makes the change; `tables` does what it means for the page tables. ENOMEM: nothing changed.
    /// What comes back holds the files of the old areas: it is dropped when the writer's mutex is.
    pub(crate) fn commit(mut self, tables: impl FnOnce(&AddressSpace)) -> Result<Retired> {
        let (old_sums, new_sums) = (self.old_sums(), self.new_sums());
        self.publish()?;
        for area in &self.new {
            enter(area);
        }
        self.promised = 0;
        tables(self.space);
        for area in &self.old {
            leave(area);
        }
        self.space.counts.change(&old_sums, &new_sums);
        self.charged = 0;
        commit::uncharge(old_sums.accounted.saturating_sub(new_sums.accounted));
        for area in &self.new {
            area.thaw();
        }
        // The old areas are nobody's now: they stay frozen for who still holds them.
        Ok(Retired(core::mem::take(&mut self.old)))
    }
}

/// ENOMEM when a change from `old` to `new` would exceed RLIMIT_AS or RLIMIT_DATA.
fn within(limits: &Limits, now: &Sums, old: &Sums, new: &Sums) -> Result {
    let over = |now: u64, old: u64, new: u64, limit: u64| {
        new > old && now.saturating_add(new - old) > limit >> abi::PAGE_SHIFT
    };
    if over(now.total, old.total, new.total, limits.as_) || over(now.data, old.data, new.data, limits.data) {
        return Err(Errno::ENOMEM);
    }
    Ok(())
}

/// Promises the area places in its reverse maps. ENOMEM.
pub(super) fn promise(area: &Area) -> Result {
    if let Some(file) = area.file() {
        file.cache().members().reserve()?;
    }
    if let Some(family) = area.family()
        && let Err(e) = family.members.reserve()
    {
        if let Some(file) = area.file() {
            file.cache().members().cancel();
        }
        return Err(e.into());
    }
    Ok(())
}

/// Takes the promise back.
pub(super) fn cancel(area: &Area) {
    if let Some(file) = area.file() {
        file.cache().members().cancel();
    }
    if let Some(family) = area.family() {
        family.members.cancel();
    }
}

/// Makes the area a member of its reverse maps; the places were promised.
pub(super) fn enter(area: &KArc<Area>) {
    if let Some(file) = area.file() {
        file.cache().members().add(area, Link::File);
        file.mapping_count(1, area.shared() && !area.flags.contains(MapFlags::NO_WRITE));
    }
    if let Some(family) = area.family() {
        family.members.add(area, Link::Family);
    }
}

/// The area leaves its reverse maps.
pub(super) fn leave(area: &KArc<Area>) {
    if let Some(file) = area.file() {
        file.cache().members().remove(area, Link::File);
        file.mapping_count(-1, area.shared() && !area.flags.contains(MapFlags::NO_WRITE));
    }
    if let Some(family) = area.family() {
        family.members.remove(area, Link::Family);
    }
}

/// Joins neighbours of an ordered list that can be one area.
fn join(specs: &mut KVec<Spec>) {
    let mut i = 0;
    while let (Some(a), Some(b)) = (specs.get(i), specs.get(i + 1)) {
        if a.joins(b) {
            let (end, family) = (b.end, b.family.clone());
            let _ = specs.remove(i + 1);
            if let Some(a) = specs.get_mut(i) {
                a.end = end;
                if a.family.is_none() {
                    a.family = family;
                }
            }
        } else {
            i += 1;
        }
    }
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        // Nothing is left to undo after a commit.
        for area in self.new.iter().take(self.promised) {
            cancel(area);
        }
        commit::uncharge(self.charged);
        for area in &self.old {
            area.thaw();
        }
    }
}
