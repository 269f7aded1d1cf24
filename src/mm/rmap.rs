//! From a frame to the page-table entries that map it.
//!
//! Every frame that belongs to a page cache or to anonymous memory names its owner in
//! `Frame::mapping` (an owner number and a kind bit) and its place in the owner in `Frame::index`.
//! An owner keeps the list of areas that may map its pages: a [`PageCache`](crate::PageCache) the
//! areas of the file, a [`Family`] the areas that descend by fork, split and move from the area in
//! which the first anonymous page was made. A walk asks each member whether the index lies in it and
//! looks at the one page-table entry where the page would be.
//!
//! The number is resolved through a table of weak references, so that a frame whose owner is gone
//! cannot lead anywhere. Locks: `mm.rmap` (sleeping) per owner, under the area lock; the table's
//! shards are leaves.
//!
//! Frames belong to the page cache that has them in its tree from insertion to removal
//! (`mapping` is zero outside), and to their family from first map on.

use abi::{PAGE_SHIFT, PAGE_SIZE};
use frames::Frame;
use kalloc::{AllocError, KArc, KVec, KWeak};
use sched::Mutex;
use sync::{SpinLock, atomic::{AtomicUsize, Ordering}};

use crate::{AddressSpace, Area, PageCache, locks};

/// Kind bit of `Frame::mapping`: the owner is a family, not a page cache.
const ANON: u64 = 1;
const SHARDS: usize = 16;

/// Who owns a frame.
#[derive(Clone)]
pub enum Owner {
    /// A page of a file or of shared memory.
    Cache(KArc<PageCache>),
    /// An anonymous page.
    Family(KArc<Family>),
}

enum WeakOwner {
    Cache(KWeak<PageCache>),
    Family(KWeak<Family>),
}

/// One shard of the owner table: slots and the list of free ones.
struct Shard {
    slots: KVec<Option<WeakOwner>>,
    free: KVec<u32>,
}

static OWNERS: [SpinLock<Shard>; SHARDS] =
    [const { SpinLock::new(Shard { slots: KVec::new(), free: KVec::new() }, &locks::OWNERS) }; SHARDS];

/// An owner's number; given back on drop.
pub(crate) struct OwnerId(u64);

impl OwnerId {
    fn new(owner: WeakOwner) -> Result<Self, AllocError> {
        let shard_index = arch::cpu::id().index() % SHARDS;
        let Some(shard) = OWNERS.get(shard_index) else { return Err(AllocError) };
        let mut shard = shard.lock();
        let slot = match shard.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(shard.slots.len()).map_err(|_| AllocError)?;
                // Room to give the slot back, so that dropping needs no memory.
                let want = shard.slots.len() + 1;
                let have = shard.free.len();
                shard.free.try_reserve(want - have.min(want))?;
                shard.slots.try_push(None)?;
                slot
            }
        };
        if let Some(entry) = shard.slots.get_mut(slot as usize) {
            *entry = Some(owner);
        }
        // Never zero, and the kind bit stays free.
        Ok(Self((u64::from(slot) * SHARDS as u64 + shard_index as u64 + 1) << 1))
    }

    pub(crate) fn cache(cache: &KWeak<PageCache>) -> Result<Self, AllocError> {
        Self::new(WeakOwner::Cache(cache.clone()))
    }

    /// What frames of this owner have in `mapping`.
    pub(crate) fn tag(&self) -> u64 {
        self.0
    }
}

fn locate(id: u64) -> Option<(&'static SpinLock<Shard>, usize)> {
    let n = (id >> 1).checked_sub(1)?;
    let shard = OWNERS.get((n % SHARDS as u64) as usize)?;
    Some((shard, (n / SHARDS as u64) as usize))
}

impl Drop for OwnerId {
    fn drop(&mut self) {
        let Some((shard, slot)) = locate(self.0) else { return };
        let mut shard = shard.lock();
        let gone = shard.slots.get_mut(slot).and_then(Option::take);
        if shard.free.push_within_capacity(slot as u32).is_err() {
            log::error!("mm: owner number {slot} is lost");
        }
        drop(shard);
        drop(gone);
    }
}

/// The owner of a frame; `None` when it has none (any more).
pub fn owner_of(frame: &Frame) -> Option<Owner> {
    let (shard, slot) = locate(frame.mapping())?;
    let shard = shard.lock();
    match shard.slots.get(slot)?.as_ref()? {
        WeakOwner::Cache(c) => c.upgrade().map(Owner::Cache),
        WeakOwner::Family(f) => f.upgrade().map(Owner::Family),
    }
}

/// Whether the frame is anonymous memory (as opposed to a page of a cache).
pub(crate) fn is_anon(frame: &Frame) -> bool {
    frame.mapping() & ANON != 0
}

/// The areas that may map pages of one owner.
pub(crate) struct Members {
    list: Mutex<MemberList>,
    /// For readers that need no lock: whether the list is worth taking.
    count: AtomicUsize,
}

struct MemberList {
    areas: KVec<KArc<Area>>,
    /// Places that someone has been promised.
    reserved: usize,
}

/// Which of an area's two lists this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    File,
    Family,
}

impl Link {
    fn slot(self, area: &Area) -> &AtomicUsize {
        match self {
            Self::File => &area.file_slot,
            Self::Family => &area.family_slot,
        }
    }
}

impl Members {
    pub(crate) fn new() -> Self {
        Self {
            list: Mutex::new(MemberList { areas: KVec::new(), reserved: 0 }, &locks::MEMBERS),
            count: AtomicUsize::new(0),
        }
    }

    /// Promises a place for one more member.
    pub(crate) fn reserve(&self) -> Result<(), AllocError> {
        let mut list = self.list.lock();
        let wanted = list.reserved + 1;
        list.areas.try_reserve(wanted)?;
        list.reserved = wanted;
        Ok(())
    }

    /// Gives a promised place back.
    pub(crate) fn cancel(&self) {
        let mut list = self.list.lock();
        list.reserved = list.reserved.saturating_sub(1);
    }

    /// Uses a promised place.
    pub(crate) fn add(&self, area: &KArc<Area>, link: Link) {
        let mut list = self.list.lock();
        list.reserved = list.reserved.saturating_sub(1);
        let at = list.areas.len();
        if list.areas.push_within_capacity(area.clone()).is_ok() {
            link.slot(area).store(at, Ordering::Relaxed);
            self.count.store(at + 1, Ordering::Release);
        } else {
            log::error!("mm: a member of a reverse map had no place");
        }
    }

    /// Takes a member out; nothing when it is not in.
    pub(crate) fn remove(&self, area: &KArc<Area>, link: Link) {
        let mut list = self.list.lock();
        let at = link.slot(area).load(Ordering::Relaxed);
        if !list.areas.get(at).is_some_and(|a| KArc::ptr_eq(a, area)) {
            return;
        }
        let gone = list.areas.swap_remove(at);
        if let Some(moved) = list.areas.get(at) {
            link.slot(moved).store(at, Ordering::Relaxed);
        }
        link.slot(area).store(usize::MAX, Ordering::Relaxed);
        self.count.store(list.areas.len(), Ordering::Release);
        drop(list);
        drop(gone);
    }

    /// Whether there is no member at the moment.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Calls `f` for the part of every member that shows pages `first..end`: space, area and
    /// address range. Members neither come nor go meanwhile.
    pub(crate) fn for_each(&self, first: u64, end: u64, mut f: impl FnMut(&KArc<AddressSpace>, &Area, u64, u64)) {
        if self.is_empty() {
            return;
        }
        let list = self.list.lock();
        for area in list.areas.iter() {
            let area_end = area.index.saturating_add(area.pages());
            let from = first.max(area.index);
            let to = end.min(area_end);
            if from >= to {
                continue;
            }
            let Some(space) = area.space.upgrade() else { continue };
            let start = area.start + ((from - area.index) << PAGE_SHIFT);
            f(&space, area, start, start + ((to - from) << PAGE_SHIFT));
        }
    }
}

/// A family of areas: see the head of this file. (Linux: `anon_vma`.)
pub struct Family {
    id: OwnerId,
    pub(crate) members: Members,
}

impl Family {
    /// A family without members.
    pub(crate) fn new() -> Result<KArc<Self>, AllocError> {
        KArc::try_new_cyclic_fallible(|me: &KWeak<Self>| {
            Ok(Self {
                id: OwnerId::new(WeakOwner::Family(me.clone()))?,
                members: Members::new(),
            })
        })
    }

    /// Makes the frame, which nobody else knows yet, a page of this family.
    pub(crate) fn adopt(&self, frame: &Frame, index: u64) {
        frame.set_index(index);
        frame.set_mapping(self.id.tag() | ANON);
    }
}

/// Calls `f` for every place where the frame may be mapped.
pub fn for_each_mapping(frame: &Frame, mut f: impl FnMut(&KArc<AddressSpace>, u64)) {
    let index = frame.index();
    match owner_of(frame) {
        Some(Owner::Cache(c)) => c.members().for_each(index, index.saturating_add(1), |s, _, a, _| f(s, a)),
        Some(Owner::Family(g)) => g.members.for_each(index, index.saturating_add(1), |s, _, a, _| f(s, a)),
        None => {}
    }
}

/// The page size in the type that addresses have.
pub(crate) const PAGE: u64 = PAGE_SIZE as u64;
