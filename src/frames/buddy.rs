//! The free blocks of a zone by the buddy scheme, apart by what they are for.
//!
//! Blocks have 2^order frames, order 0 to 10, and are aligned to their size. A free block's head
//! has the flag `BUDDY` and its order; the others of the block have neither flag nor count. Two
//! free buddies never exist: freeing joins them.
//!
//! Memory that can move is kept apart from memory that cannot, so that large blocks come together
//! again: each pageblock of 2 MiB has a [`MigrateType`], kept in the descriptor of its first frame,
//! and a freed frame goes to the lists of its pageblock's type. A type whose lists are empty takes
//! the largest block of another, and the whole pageblock with it if at least half of that is free
//! or of its own kind.

use crate::{Frame, FrameFlags, FrameList, MAX_ORDER, memmap};
use abi::Pfn;

/// A pageblock has 2^9 frames: what one entry of a level 2 table maps.
pub const BLOCK_ORDER: usize = 9;
/// Frames in a pageblock.
pub(crate) const BLOCK_PAGES: u64 = 1 << BLOCK_ORDER;

/// What can be done with memory once it is given out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum MigrateType {
    /// Its content can move to another frame: pages of programs and files.
    Movable = 0,
    /// It stays where it is: page tables, stacks, most objects of the kernel.
    Unmovable = 1,
    /// It stays, but can be given up: caches of the kernel.
    Reclaimable = 2,
}

/// How many types there are.
pub(crate) const TYPES: usize = 3;

impl MigrateType {
    /// All of them, in the order of /proc/pagetypeinfo.
    pub const ALL: [Self; TYPES] = [Self::Unmovable, Self::Movable, Self::Reclaimable];

    /// The name in /proc/pagetypeinfo.
    pub fn name(self) -> &'static str {
        match self {
            Self::Movable => "Movable",
            Self::Unmovable => "Unmovable",
            Self::Reclaimable => "Reclaimable",
        }
    }

    fn from_bits(n: u8) -> Self {
        match n {
            1 => Self::Unmovable,
            2 => Self::Reclaimable,
            _ => Self::Movable,
        }
    }

    /// Whom to take from when there is nothing of this type.
    fn fallbacks(self) -> [Self; 2] {
        match self {
            Self::Movable => [Self::Reclaimable, Self::Unmovable],
            Self::Unmovable => [Self::Reclaimable, Self::Movable],
            Self::Reclaimable => [Self::Unmovable, Self::Movable],
        }
    }
}

/// The type of the pageblock that a frame is in.
#[inline]
pub(crate) fn type_of(f: &Frame) -> MigrateType {
    MigrateType::from_bits(memmap::first_of_pageblock(f).block_type())
}

fn set_type(f: &Frame, kind: MigrateType) {
    memmap::first_of_pageblock(f).set_block_type(kind as u8);
}

/// The lists. Stand under their zone's lock.
pub(crate) struct Free {
    lists: [[FrameList; TYPES]; MAX_ORDER + 1],
    /// Frames in all of them.
    pub(crate) pages: u64,
}

impl Free {
    pub(crate) const fn new() -> Self {
        Self { lists: [const { [const { FrameList::new() }; TYPES] }; MAX_ORDER + 1], pages: 0 }
    }

    /// Free blocks of an order and a type.
    pub(crate) fn blocks(&self, order: usize, kind: MigrateType) -> u64 {
        self.lists.get(order).and_then(|l| l.get(kind as usize)).map_or(0, |l| l.len() as u64)
    }

    #[allow(clippy::indexing_slicing)] // orders are at most MAX_ORDER
    fn list(&mut self, order: usize, kind: MigrateType) -> &mut FrameList {
        &mut self.lists[order][kind as usize]
    }

    /// Takes a block of 2^order frames, counts zero.
    pub(crate) fn take(&mut self, order: usize, kind: MigrateType, range: (Pfn, Pfn)) -> Option<&'static Frame> {
        if let Some(f) = self.take_of(order, kind) {
            return Some(f);
        }
        let (found, other) = self.fallback(order, kind)?;
        if self.steal(found, other, kind, range) {
            self.take_of(order, kind)
        } else {
            self.split(found, order, other)
        }
    }

    fn take_of(&mut self, order: usize, kind: MigrateType) -> Option<&'static Frame> {
        let found = (order..=MAX_ORDER).find(|o| self.blocks(*o, kind) > 0)?;
        self.split(found, order, kind)
    }

    /// Takes a block of order `found` and puts back what is more than 2^order.
    fn split(&mut self, found: usize, order: usize, kind: MigrateType) -> Option<&'static Frame> {
        let head = self.list(found, kind).pop_front()?;
        head.set_all_flags(FrameFlags::empty());
        for o in (order..found).rev() {
            if let Some(half) = memmap::frame_of(head.pfn().add(1 << o)) {
                self.put(half, o, kind);
            }
        }
        head.set_order(order);
        self.pages -= 1 << order;
        Some(head)
    }

    /// Where a type with empty lists takes from: the largest block, so that few pageblocks are
    /// mixed; the smallest that serves where a pageblock is not worth taking.
    fn fallback(&self, order: usize, kind: MigrateType) -> Option<(usize, MigrateType)> {
        let of = |o: usize| kind.fallbacks().into_iter().find(|k| self.blocks(o, *k) > 0).map(|k| (o, k));
        let (largest, other) = (order..=MAX_ORDER).rev().find_map(of)?;
        if kind == MigrateType::Movable && largest < BLOCK_ORDER && largest > order {
            // What can move may lie among what cannot: it will go again.
            return (order..=MAX_ORDER).find_map(of);
        }
        Some((largest, other))
    }

    /// Whether the block's free neighbourhood is `kind`'s now; else only the block may be taken.
    fn steal(&mut self, order: usize, other: MigrateType, kind: MigrateType, range: (Pfn, Pfn)) -> bool {
        let Some(head) = self.list(order, other).front() else { return false };
        if order >= BLOCK_ORDER {
            self.list(order, other).remove(head);
            for n in 0..1u64 << (order - BLOCK_ORDER) {
                if let Some(f) = memmap::frame_of(head.pfn().add(n * BLOCK_PAGES)) {
                    set_type(f, kind);
                }
            }
            self.list(order, kind).push_front(head);
            return true;
        }
        if order < BLOCK_ORDER / 2 && kind == MigrateType::Movable {
            return false;
        }
        let start = Pfn((head.pfn().0 & !(BLOCK_PAGES - 1)).max(range.0.0));
        let end = Pfn((head.pfn().0 | (BLOCK_PAGES - 1)).saturating_add(1).min(range.1.0));
        let (mut free, mut movable) = (0, 0);
        let mut at = start;
        while at < end {
            let step = match memmap::frame_of(at) {
                Some(f) if f.test(FrameFlags::BUDDY) => {
                    let o = f.order() as usize;
                    self.unlink(f, o);
                    self.list(o, kind).push_front(f);
                    free += 1u64 << o;
                    1 << o
                }
                Some(f) => {
                    movable += u64::from(f.test(FrameFlags::LRU));
                    1
                }
                None => 1,
            };
            at = at.add(step);
        }
        let alike = match (kind, other) {
            (MigrateType::Movable, _) => movable,
            (_, MigrateType::Movable) => BLOCK_PAGES.saturating_sub(free + movable),
            _ => 0,
        };
        if free + alike >= BLOCK_PAGES / 2 {
            set_type(head, kind);
        }
        true
    }

    /// Takes a free block out of the list that it is on.
    #[allow(clippy::indexing_slicing)] // orders are at most MAX_ORDER
    fn unlink(&mut self, head: &'static Frame, order: usize) {
        let off = self.lists[order].iter_mut().any(|l| l.remove(head));
        debug_assert!(off, "free block {head:?} on no list");
    }

    fn put(&mut self, head: &'static Frame, order: usize, kind: MigrateType) {
        head.set_order(order);
        head.set_all_flags(FrameFlags::BUDDY);
        let on = self.list(order, kind).push_front(head);
        debug_assert!(on, "free block on a list already");
    }

    /// Gives back a block, counts and flags zero. Its buddies lie in `range`.
    pub(crate) fn give(&mut self, frame: &'static Frame, order: usize, range: (Pfn, Pfn)) {
        debug_assert!(!frame.test(FrameFlags::BUDDY) && frame.refcount() == 0, "double free of {frame:?}");
        self.pages += 1 << order;
        let (mut head, mut order) = (frame, order);
        while order < MAX_ORDER {
            let pfn = head.pfn();
            let buddy = Pfn(pfn.0 ^ (1 << order));
            if !(range.0 <= buddy && buddy < range.1) {
                break;
            }
            let Some(b) = memmap::frame_of(buddy) else { break };
            if !b.test(FrameFlags::BUDDY) || b.order() as usize != order {
                break;
            }
            self.unlink(b, order);
            b.set_all_flags(FrameFlags::empty());
            if order >= BLOCK_ORDER {
                // Both are free: from now on of one type.
                set_type(b, type_of(head));
            }
            if buddy < pfn {
                head = b;
            }
            order += 1;
        }
        self.put(head, order, type_of(head));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AllocFlags, PageBlock, alloc_pages, drain_all, stats, testing, zone};
    use proptest::prelude::*;
    use std::{collections::BTreeMap, vec::Vec};

    fn pageblocks() -> [u64; TYPES] {
        let all = zone::zones().iter().map(zone::Zone::pageblocks);
        all.fold([0; TYPES], |sum, n| core::array::from_fn(|i| sum[i] + n[i]))
    }

    /// Every free frame is in exactly one block, and no two free buddies exist.
    fn check_lists() {
        let mut free = 0;
        for (start, end) in memmap::banks() {
            let mut at = start;
            while at < end {
                let f = memmap::frame_of(at).unwrap();
                if !f.test(FrameFlags::BUDDY) {
                    at = at.add(1);
                    continue;
                }
                let order = f.order() as usize;
                assert_eq!(at.0 % (1 << order), 0);
                let buddy = memmap::frame_of(Pfn(at.0 ^ (1 << order)));
                let joins = |b: &Frame| {
                    b.test(FrameFlags::BUDDY) && b.order() as usize == order && zone::zone_of(b.pfn()).0 == zone::zone_of(at).0
                };
                assert!(order == MAX_ORDER || !buddy.is_some_and(joins), "free buddies at {at:?}");
                free += 1 << order;
                at = at.add(1 << order);
            }
        }
        assert_eq!(free, zone::zones().iter().map(|z| z.info().free).sum::<u64>());
    }

    /// Against a model of who has which frames.
    #[test]
    fn blocks_never_overlap_and_all_come_back() {
        // Once: a thread of the simulator that waits for memory keeps its CPU from others.
        let _lock = testing::memory();
        let step = (0u8..11, 0u8..3, any::<u16>(), any::<bool>());
        proptest!(ProptestConfig::with_cases(64), |(steps in prop::collection::vec(step, 1..120))| {
            drain_all();
            let before = stats();
            let mut held: Vec<PageBlock> = Vec::new();
            let mut owned = BTreeMap::new();
            for (order, kind, pick, take) in steps {
                if take || held.is_empty() {
                    let flags = [AllocFlags::MOVABLE, AllocFlags::empty(), AllocFlags::RECLAIMABLE][kind as usize];
                    let Ok(block) = alloc_pages(order, flags) else { continue };
                    let start = block.pfn().0;
                    prop_assert_eq!(start % (1 << order), 0);
                    for n in start..start + (1 << order) {
                        prop_assert!(owned.insert(n, ()).is_none(), "frame {} twice", n);
                        prop_assert!(memmap::is_ram(Pfn(n)));
                    }
                    held.push(block);
                } else {
                    let block = held.swap_remove(pick as usize % held.len());
                    for n in 0..1 << block.order() {
                        owned.remove(&(block.pfn().0 + n));
                    }
                }
            }
            drain_all();
            check_lists();
            prop_assert_eq!(stats().free, before.free - owned.len() as u64);
            drop(held);
            drain_all();
            check_lists();
            prop_assert_eq!(stats().free_blocks, before.free_blocks);
        });
    }

    #[test]
    fn what_moves_and_what_does_not_lie_apart() {
        let _lock = testing::memory();
        drain_all();
        let take = |flags| (0..700).map(|_| alloc_pages(0, flags).unwrap()).collect::<Vec<_>>();
        let (movable, fixed) = (take(AllocFlags::MOVABLE), take(AllocFlags::empty()));
        let blocks = |v: &[PageBlock]| v.iter().map(|b| b.pfn().0 / BLOCK_PAGES).collect::<std::collections::BTreeSet<_>>();
        assert!(blocks(&movable).is_disjoint(&blocks(&fixed)));
        assert!(fixed.iter().all(|b| type_of(b) == MigrateType::Unmovable));
        assert!(movable.iter().all(|b| type_of(b) == MigrateType::Movable));
    }

    #[test]
    fn a_type_without_memory_takes_whole_pageblocks_of_another() {
        let _lock = testing::memory();
        drain_all();
        let before = pageblocks();
        // More than one pageblock of what lay free as movable.
        let fixed: Vec<_> = (0..3 * BLOCK_PAGES).map(|_| alloc_pages(0, AllocFlags::empty()).unwrap()).collect();
        let after = pageblocks();
        assert!(after[0] >= 3 && after[0] >= before[0], "{before:?} {after:?}");
        assert_eq!(before.iter().sum::<u64>(), after.iter().sum::<u64>());
        drop(fixed);
        drain_all();
        check_lists();
        // Until nothing is left, every type is served.
        let mut all = Vec::new();
        while let Ok(b) = alloc_pages(3, AllocFlags::RECLAIMABLE) {
            all.push(b);
        }
        assert!(zone::zones().iter().all(|z| z.info().free_blocks[3..].iter().sum::<u64>() * 8 <= z.min() + 8));
        drop(all);
        drain_all();
        check_lists();
    }

    #[test]
    fn a_single_frame_splits_a_block_of_every_order_and_joins_it_again() {
        let _lock = testing::memory();
        drain_all();
        let z = zone::zone_of(Pfn(testing::START / 4096)).1;
        let before = z.info();
        let kinds = MigrateType::ALL.into_iter().zip(before.by_type);
        let (kind, had) = kinds.max_by_key(|(_, blocks)| blocks.iter().sum::<u64>()).unwrap();
        let f = z.take(0, kind).unwrap();
        let has = MigrateType::ALL.into_iter().zip(z.info().by_type).find(|(k, _)| *k == kind).unwrap().1;
        let found = (0..=MAX_ORDER).find(|o| had[*o] > 0).unwrap();
        for order in 0..=MAX_ORDER {
            let change = has[order] as i64 - had[order] as i64;
            assert_eq!(change, i64::from(order < found) - i64::from(order == found), "order {order}");
        }
        z.give(f, 0);
        assert_eq!(z.info().free_blocks, before.free_blocks);
    }
}
