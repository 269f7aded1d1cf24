//! One table: 512 entries in a frame, its lock, and its birth and death.
//!
//! In the descriptor of a table's frame: flag `PAGE_TABLE`, `private` = entries that are not zero
//! (under the lock), `small` = level, `index` = first address covered (for those who look at a
//! dump). A table that is dying loses the flag under its lock, so that whoever got to it without a
//! lock sees that it is too late.

use crate::{AllocFlags, Counter, Frame, FrameFlags, FrameRef, alloc_frame, count, frame_of};
use abi::{Pfn, Result};
use arch::mmu::pte;
use core::ptr;
use sync::{
    LockClass, RawSpinLock,
    atomic::{AtomicU64, Ordering},
    rcu,
};

/// Entries in a table.
pub(super) const ENTRIES: usize = 512;

/// Level-3 tables: outer to nothing else here, two of them by address (subclasses 0 and 1).
static LEAF: LockClass = LockClass::new("page_table_leaf", 1340);
/// Tables above: taken before a leaf's.
static UPPER: [LockClass; 3] = [
    LockClass::new("page_table_root", 1335),
    LockClass::new("page_table_1", 1336),
    LockClass::new("page_table_2", 1337),
];

/// Bits of a table descriptor besides its address.
pub(super) const TABLE_DESC: u64 = pte::VALID | pte::TABLE;

/// A table.
#[derive(Clone, Copy)]
pub(super) struct Table(&'static Frame);

/// How much one entry at a level covers.
pub(super) const fn span(level: u8) -> u64 {
    1 << (12 + 9 * (3 - level as u32))
}

/// Index of an address in its table at a level.
pub(super) const fn index(addr: u64, level: u8) -> usize {
    (addr >> (12 + 9 * (3 - level as u32))) as usize % ENTRIES
}

impl Table {
    /// A new table, all zero, with one reference that [`die`](Self::die) gives up.
    pub(super) fn create(level: u8, start: u64, flags: AllocFlags) -> Result<Self> {
        let frame = alloc_frame(flags | AllocFlags::ZERO)?.into_raw();
        frame.small.store(level.into(), Ordering::Relaxed);
        frame.set_index(start);
        frame.set_private(0);
        frame.set(FrameFlags::PAGE_TABLE);
        count(Counter::PageTables, 1);
        Ok(Self(frame))
    }

    /// The table that a descriptor leads to; `None` for an empty or block descriptor.
    pub(super) fn of(desc: u64) -> Option<Self> {
        if desc & pte::TYPE_MASK != TABLE_DESC {
            return None;
        }
        frame_of(Pfn((desc & pte::ADDR_MASK) >> abi::PAGE_SHIFT)).map(Self)
    }

    pub(super) fn frame(self) -> &'static Frame {
        self.0
    }

    pub(super) fn descriptor(self) -> u64 {
        self.0.phys().0 | TABLE_DESC
    }

    pub(super) fn same(self, other: Self) -> bool {
        ptr::eq(self.0, other.0)
    }

    fn level(self) -> u8 {
        self.0.small.load(Ordering::Relaxed) as u8
    }

    /// Whether it still is part of an address space. Stable under its lock.
    pub(super) fn is_alive(self) -> bool {
        self.0.test(FrameFlags::PAGE_TABLE)
    }

    #[inline]
    pub(super) fn entry(self, i: usize) -> &'static AtomicU64 {
        let base = ptr::with_exposed_provenance::<AtomicU64>(self.0.virt().as_usize());
        // SAFETY: inside the frame. Whoever has a Table holds it by a lock, by RCU, or by the
        // address space's existence, so that it is a table still; entries are only accessed as
        // atomics.
        unsafe { &*base.add(i % ENTRIES) }
    }

    /// The first entry of `from..to` that is not zero, or `to`. Without the lock it is a hint.
    #[inline]
    pub(super) fn next_used(self, mut from: usize, to: usize) -> usize {
        let at = |i: usize| self.entry(i).load(Ordering::Relaxed);
        // Most of a table is empty: four at a time over that.
        while from + 4 <= to && at(from) | at(from + 1) | at(from + 2) | at(from + 3) == 0 {
            from += 4;
        }
        while from < to && at(from) == 0 {
            from += 1;
        }
        from
    }

    #[track_caller]
    pub(super) fn lock(self) -> sync::spin::RawSpinGuard<'static> {
        self.lock_nested(0)
    }

    #[track_caller]
    pub(super) fn lock_nested(self, subclass: u8) -> sync::spin::RawSpinGuard<'static> {
        let lock: &'static RawSpinLock = &self.0.lock;
        lock.lock_nested(UPPER.get(self.level() as usize).unwrap_or(&LEAF), subclass)
    }

    /// Entries that are not zero.
    pub(super) fn used(self) -> u64 {
        self.0.private()
    }

    /// Under the lock: an entry went from zero (+1), or to zero (-1).
    pub(super) fn add_used(self, n: i64) {
        self.0.set_private(self.0.private().wrapping_add_signed(n));
    }

    /// Under the lock: nobody may use it from here on.
    pub(super) fn kill(self) {
        self.0.clear(FrameFlags::PAGE_TABLE);
    }

    /// Frees a table that is no longer linked, after a grace period.
    pub(super) fn die(self) {
        self.kill();
        count(Counter::PageTables, -1);
        /// # Safety
        /// `head` is that of a table's frame that no reader sees any more.
        unsafe fn free(head: ptr::NonNull<rcu::Head>) {
            // SAFETY: from `die`, which gave up the table's one reference to us.
            unsafe {
                let frame = Frame::of_rcu_head(head);
                drop(FrameRef::from_raw(frame));
            }
        }
        // SAFETY: a table's frame is on no list; the node is the callback's from here.
        unsafe { rcu::call(self.0.rcu_head(), free) }
    }
}
