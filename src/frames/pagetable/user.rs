//! A user address space's tables.
//!
//! Who may do what:
//! - [`PageTable::walk`]: anybody, without a lock, under RCU.
//! - Entries of level-3 tables change under the lock of their table only ([`PteSlot`]).
//! - Tables are added by whoever needs them: the parent's entry goes from zero to the table under
//!   the parent's lock. They are taken out by `free_tables` only, with parent's and own lock held,
//!   when they are empty.
//!
//! A present entry owns one reference of its frame, unless it has `SW_SPECIAL`.
//!
//! Lock order: a table above before the table below; two level-3 tables by address.

use super::{Pte, table::*};
use crate::{AllocFlags, Frame, FrameRef, frame_of};
use abi::{Errno, PAGE_SIZE, Pfn, PhysAddr, Result, USER_END, UserAddr};
use arch::mmu::pte;
use core::ops::ControlFlow;
use sync::{
    atomic::{AtomicU64, Ordering},
    rcu,
};

/// The tables of one user address space.
pub struct PageTable {
    root: Table,
    /// Tables, the root included.
    tables: AtomicU64,
}

/// One entry of a level-3 table whose lock is held.
pub struct PteSlot<'a> {
    table: Table,
    entry: &'a AtomicU64,
    addr: UserAddr,
}

/// Tables that are taken out between two flushes.
const BATCH: usize = 64;

/// How far one level-3 table reaches.
const LEAF_SPAN: u64 = span(2);

impl PageTable {
    /// An address space that maps nothing.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new_user() -> Result<Self> {
        let root = Table::create(0, 0, AllocFlags::empty())?;
        // The walker must find zeroes: pairs with the set_user_table of whoever installs it.
        arch::mmu::make_table_visible();
        Ok(Self { root, tables: AtomicU64::new(1) })
    }

    /// What TTBR0 takes.
    pub fn root(&self) -> PhysAddr {
        self.root.frame().phys()
    }

    /// Bytes of tables, for `VmPTE`.
    pub fn table_bytes(&self) -> u64 {
        self.tables.load(Ordering::Relaxed) * PAGE_SIZE as u64
    }

    /// The entry of an address at this moment; without a lock.
    pub fn walk(&self, addr: UserAddr) -> Pte {
        let guard = rcu::read_lock();
        match self.leaf(&guard, addr.0) {
            Some(t) => Pte(t.entry(index(addr.0, 3)).load(Ordering::Acquire)),
            None => Pte::NONE,
        }
    }

    /// The level-3 table of an address, if it exists. It stays a table while the guard does.
    fn leaf(&self, _guard: &rcu::ReadGuard, addr: u64) -> Option<Table> {
        if addr >= USER_END {
            return None;
        }
        let mut t = self.root;
        for level in 0..3 {
            // Acquire pairs with the release in `add_table`: the table is seen zeroed.
            t = Table::of(t.entry(index(addr, level)).load(Ordering::Acquire))?;
        }
        Some(t)
    }

    /// Makes the tables down to level 3. May sleep.
    fn make_leaf(&self, addr: u64) -> Result<()> {
        if addr >= USER_END {
            return Err(Errno::EFAULT);
        }
        'again: loop {
            // Where the first table is missing.
            let missing = {
                let _guard = rcu::read_lock();
                let mut t = self.root;
                let mut level = 0;
                loop {
                    match Table::of(t.entry(index(addr, level)).load(Ordering::Acquire)) {
                        Some(below) if level < 2 => {
                            t = below;
                            level += 1;
                        }
                        Some(_) => return Ok(()),
                        None => break,
                    }
                }
                level
            };
            let new = Table::create(missing + 1, addr & !(span(missing) - 1), AllocFlags::empty())?;
            // The way again, as far as the parent: tables may have come and gone meanwhile.
            let guard = rcu::read_lock();
            let mut parent = self.root;
            for level in 0..missing {
                match Table::of(parent.entry(index(addr, level)).load(Ordering::Acquire)) {
                    Some(t) => parent = t,
                    None => {
                        drop(guard);
                        new.die();
                        continue 'again;
                    }
                }
            }
            let linked = {
                let _held = parent.lock();
                parent.is_alive() && self.add_table(parent, index(addr, missing), new)
            };
            drop(guard);
            if !linked {
                new.die();
            }
        }
    }

    /// Links a new table, under its parent's lock; false if another was faster.
    fn add_table(&self, parent: Table, i: usize, new: Table) -> bool {
        let entry = parent.entry(i);
        if entry.load(Ordering::Relaxed) != 0 {
            return false;
        }
        // Release pairs with the acquire of lock-free walks. For the hardware's walker: zeroes
        // first (make_table_visible), then the link.
        arch::mmu::make_table_visible();
        entry.store(new.descriptor(), Ordering::Release);
        parent.add_used(1);
        self.tables.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Calls `f` with the entry of `addr`, its table locked. With `alloc` missing tables are made
    /// (may sleep); without, `EFAULT` says that there is none.
    ///
    /// # Errors
    /// `ENOMEM`, `EFAULT`.
    pub fn with_pte_locked<R>(
        &self,
        addr: UserAddr,
        alloc: bool,
        f: impl FnOnce(&mut PteSlot<'_>) -> R,
    ) -> Result<R> {
        loop {
            {
                let guard = rcu::read_lock();
                if let Some(table) = self.leaf(&guard, addr.0) {
                    let _held = table.lock();
                    if table.is_alive() {
                        let i = index(addr.0, 3);
                        let mut slot = PteSlot { table, entry: table.entry(i), addr: addr.page_down() };
                        return Ok(f(&mut slot));
                    }
                    // It was taken out before we had its lock.
                    continue;
                }
            }
            if !alloc {
                return Err(Errno::EFAULT);
            }
            self.make_leaf(addr.0)?;
        }
    }

    /// Maps a frame at an empty slot; the reference comes back if the slot is taken.
    ///
    /// # Errors
    /// `ENOMEM`; `EEXIST` when something is mapped.
    pub fn map(&self, addr: UserAddr, frame: FrameRef, bits: u64) -> Result<()> {
        self.with_pte_locked(addr, true, |slot| {
            if slot.get().is_none() {
                slot.map(frame, bits);
                Ok(())
            } else {
                Err(Errno::EEXIST)
            }
        })?
    }

    /// Calls `f` with every entry of `start..end` that has a table, one table locked at a time,
    /// empty entries included; `Break` ends it.
    pub fn visit(
        &self,
        start: UserAddr,
        end: UserAddr,
        f: impl FnMut(UserAddr, &mut PteSlot<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.visit_some::<false>(start, end, f)
    }

    fn visit_some<const USED: bool>(
        &self,
        start: UserAddr,
        end: UserAddr,
        mut f: impl FnMut(UserAddr, &mut PteSlot<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut at = start.page_down().0;
        let end = end.0.min(USER_END);
        while at < end {
            let guard = rcu::read_lock();
            // Down as far as there are tables; over what has none in one step.
            let mut t = self.root;
            let mut level = 0;
            while level < 3 {
                match Table::of(t.entry(index(at, level)).load(Ordering::Acquire)) {
                    Some(below) => t = below,
                    None => break,
                }
                level += 1;
            }
            if level < 3 {
                at = next_border(at, span(level));
                continue;
            }
            let stop = next_border(at, LEAF_SPAN).min(end);
            let held = t.lock();
            if !t.is_alive() {
                continue;
            }
            let base = at & !(LEAF_SPAN - 1);
            let (mut i, last) = (index(at, 3), (stop - base).div_ceil(PAGE_SIZE as u64) as usize);
            if USED && t.used() == 0 {
                i = last;
            }
            while i < last {
                if USED {
                    i = t.next_used(i, last);
                    if i == last {
                        break;
                    }
                }
                let addr = UserAddr(base + i as u64 * PAGE_SIZE as u64);
                f(addr, &mut PteSlot { table: t, entry: t.entry(i), addr })?;
                i += 1;
            }
            at = stop;
            drop(held);
            drop(guard);
        }
        ControlFlow::Continue(())
    }

    /// As [`visit`](Self::visit), but skips empty entries.
    pub fn visit_used(
        &self,
        start: UserAddr,
        end: UserAddr,
        f: impl FnMut(UserAddr, &mut PteSlot<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.visit_some::<true>(start, end, f)
    }

    /// As [`visit`](Self::visit), making the tables that are missing (may sleep).
    ///
    /// # Errors
    /// `ENOMEM`: what was visited before stays as `f` left it.
    pub fn visit_alloc(
        &self,
        start: UserAddr,
        end: UserAddr,
        mut f: impl FnMut(UserAddr, &mut PteSlot<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let mut at = start.page_down().0;
        let end = end.0.min(USER_END);
        while at < end {
            let stop = next_border(at, LEAF_SPAN).min(end);
            self.make_leaf(at)?;
            if self.visit(UserAddr(at), UserAddr(stop), &mut f).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            at = stop;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Takes everything out of `start..end`: `f` gets each entry that was not empty, and the
    /// reference that it owned, to be dropped after the TLB flush.
    pub fn unmap_range(
        &self,
        start: UserAddr,
        end: UserAddr,
        mut f: impl FnMut(UserAddr, Pte, Option<FrameRef>),
    ) {
        let _ = self.visit_used(start, end, |a, s| {
            if let Some((pte, frame)) = s.take() {
                f(a, pte, frame);
            }
            ControlFlow::Continue(())
        });
    }

    /// Changes the bits of all present entries of `start..end` to what `f` says; how many changed.
    /// The caller flushes the TLBs.
    pub fn protect_range(&self, start: UserAddr, end: UserAddr, mut f: impl FnMut(UserAddr, Pte) -> Pte) -> u64 {
        let mut changed = 0;
        let _ = self.visit_used(start, end, |a, s| {
            if s.update(|old| f(a, old)) {
                changed += 1;
            }
            ControlFlow::Continue(())
        });
        changed
    }

    /// Calls `f` with pairs of entries: those of `from..from + len` here that are not empty, and
    /// those at the same distance from `to` in `other` (which may be this very table), both tables
    /// locked. Missing tables of `other` are made (may sleep).
    ///
    /// # Errors
    /// `ENOMEM`: what was visited before stays as `f` left it.
    pub fn visit_pair(
        &self,
        from: UserAddr,
        other: &PageTable,
        to: UserAddr,
        len: u64,
        mut f: impl FnMut(UserAddr, &mut PteSlot<'_>, &mut PteSlot<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let mut done = 0;
        while done < len {
            let (a, b) = (from.0 + done, to.0 + done);
            if a >= USER_END || b >= USER_END {
                return Err(Errno::EFAULT);
            }
            // Up to where either table ends.
            let run = (next_border(a, LEAF_SPAN) - a).min(next_border(b, LEAF_SPAN) - b).min(len - done);
            let source = {
                let guard = rcu::read_lock();
                self.leaf(&guard, a).is_some_and(|t| t.used() > 0)
            };
            if !source {
                done += run;
                continue;
            }
            other.make_leaf(b)?;
            let guard = rcu::read_lock();
            let (Some(src), Some(dst)) = (self.leaf(&guard, a), other.leaf(&guard, b)) else {
                // The source's table is gone (skip it next time), or the target's (make it again).
                continue;
            };
            // By address; a table with itself once.
            let (first, second) = if src.frame().pfn() <= dst.frame().pfn() { (src, dst) } else { (dst, src) };
            let _outer = first.lock();
            let _inner = (!src.same(dst)).then(|| second.lock_nested(1));
            if !src.is_alive() || !dst.is_alive() {
                continue;
            }
            let (i, j) = (index(a, 3), index(b, 3));
            let pages = run.div_ceil(PAGE_SIZE as u64) as usize;
            let mut n = 0;
            loop {
                n = src.next_used(i + n, i + pages) - i;
                if n == pages {
                    break;
                }
                let bytes = n as u64 * PAGE_SIZE as u64;
                let mut s = PteSlot { table: src, entry: src.entry(i + n), addr: UserAddr(a + bytes) };
                let mut d = PteSlot { table: dst, entry: dst.entry(j + n), addr: UserAddr(b + bytes) };
                if f(UserAddr(a + bytes), &mut s, &mut d).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                n += 1;
            }
            done += run;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// For fork: [`visit_pair`](Self::visit_pair) of the same addresses in a child's tables.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn copy_range(
        &self,
        child: &PageTable,
        start: UserAddr,
        end: UserAddr,
        f: impl FnMut(UserAddr, &mut PteSlot<'_>, &mut PteSlot<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let start = start.page_down();
        self.visit_pair(start, child, start, end.0.saturating_sub(start.0), f)
    }

    /// Takes out the tables that lie in the hole `floor..ceiling` as a whole, have a part of
    /// `start..end` (what was just unmapped: no other table can have become empty), and are empty;
    /// how many. If there were any, `flush` is called (again for each batch) before they can be used for
    /// anything else: it must make the TLBs forget the range, walk caches included (not last level
    /// only).
    pub fn free_tables(&self, hole: (UserAddr, UserAddr), unmapped: (UserAddr, UserAddr), mut flush: impl FnMut()) -> u64 {
        let mut all = 0;
        loop {
            let freed = self.free_table_batch(hole, unmapped, &mut flush);
            all += freed;
            if freed < BATCH as u64 {
                return all;
            }
        }
    }

    fn free_table_batch(
        &self,
        (floor, ceiling): (UserAddr, UserAddr),
        (start, stop): (UserAddr, UserAddr),
        flush: &mut impl FnMut(),
    ) -> u64 {
        /// Tables that were taken out, until they are flushed.
        struct Gone([Option<Table>; BATCH], usize);
        let mut gone = Gone([None; BATCH], 0);
        let mut freed = 0;
        // Level 3 first, then those above, which may have become empty.
        for level in [2u8, 1, 0] {
            let step = span(level);
            let Some(low) = floor.0.checked_next_multiple_of(step) else { continue };
            let mut at = low.max(start.0 & !(step - 1));
            let high = stop.0.checked_next_multiple_of(step).unwrap_or(u64::MAX);
            let end = (ceiling.0.min(USER_END) & !(step - 1)).min(high);
            while at < end && gone.1 < gone.0.len() {
                match self.unlink_table(at, level) {
                    Ok(t) => {
                        if let Some(slot) = gone.0.get_mut(gone.1) {
                            *slot = Some(t);
                            gone.1 += 1;
                        }
                        at += step;
                    }
                    // Nothing there for this long.
                    Err(skip) => at = next_border(at, skip.max(step)),
                }
            }
        }
        if gone.1 > 0 {
            flush();
            for t in gone.0.iter().take(gone.1).flatten() {
                t.die();
                freed += 1;
            }
            self.tables.fetch_sub(freed, Ordering::Relaxed);
        }
        freed
    }

    /// Takes the table below the entry of `addr` at `level` out, if it is empty. Else how far the
    /// search may go on.
    fn unlink_table(&self, addr: u64, level: u8) -> core::result::Result<Table, u64> {
        let _guard = rcu::read_lock();
        let mut parent = self.root;
        for l in 0..level {
            parent = Table::of(parent.entry(index(addr, l)).load(Ordering::Acquire)).ok_or(span(l))?;
        }
        let entry = parent.entry(index(addr, level));
        let table = Table::of(entry.load(Ordering::Acquire)).ok_or(span(level))?;
        if table.used() != 0 {
            return Err(span(level));
        }
        let _outer = parent.lock();
        let _inner = table.lock();
        if !parent.is_alive() || !table.is_alive() || table.used() != 0 {
            return Err(span(level));
        }
        entry.store(0, Ordering::Release);
        parent.add_used(-1);
        table.kill();
        Ok(table)
    }
}

/// The first multiple of `step` behind `at`.
fn next_border(at: u64, step: u64) -> u64 {
    (at & !(step - 1)).saturating_add(step)
}

impl Drop for PageTable {
    /// The caller has flushed the TLBs, and no CPU has the root installed. Entries that are still
    /// present give up their references.
    fn drop(&mut self) {
        fn free(t: Table, level: u8) {
            let (mut i, mut left) = (0, t.used());
            while left > 0 {
                i = t.next_used(i, ENTRIES);
                if i == ENTRIES {
                    break;
                }
                let e = t.entry(i).swap(0, Ordering::AcqRel);
                left -= 1;
                if level < 3 {
                    if let Some(below) = Table::of(e) {
                        free(below, level + 1);
                    }
                } else {
                    drop(owned(Pte(e)));
                }
            }
            t.die();
        }
        free(self.root, 0);
    }
}

/// The reference that an entry which has just been taken out owned.
fn owned(pte: Pte) -> Option<FrameRef> {
    if !pte.is_present() || pte.is_special() {
        return None;
    }
    // SAFETY: the invariant of present entries; it was taken out once.
    frame_of(pte.pfn()).map(|f| unsafe { FrameRef::from_raw(f) })
}

impl PteSlot<'_> {
    /// The address.
    pub fn addr(&self) -> UserAddr {
        self.addr
    }

    /// The entry.
    pub fn get(&self) -> Pte {
        Pte(self.entry.load(Ordering::Acquire))
    }

    /// The frame that it maps and has a reference of.
    pub fn frame(&self) -> Option<&Frame> {
        let pte = self.get();
        if !pte.is_present() || pte.is_special() {
            return None;
        }
        frame_of(pte.pfn())
    }

    /// A reference to the frame that it maps.
    pub fn clone_frame(&self) -> Option<FrameRef> {
        let pte = self.get();
        if !pte.is_present() || pte.is_special() {
            return None;
        }
        let frame = frame_of(pte.pfn())?;
        // SAFETY: the entry owns a reference, and cannot change while the lock is held: it is
        // borrowed for the clone and not dropped.
        let borrowed = core::mem::ManuallyDrop::new(unsafe { FrameRef::from_raw(frame) });
        Some((*borrowed).clone())
    }

    /// Fills an empty slot.
    fn fill(&mut self, new: u64) -> bool {
        let old = self.entry.load(Ordering::Relaxed);
        debug_assert!(old & pte::VALID == 0, "break before make: {:?} has {old:#x}, gets {new:#x}", self.addr);
        if old & pte::VALID != 0 {
            return false;
        }
        self.entry.store(new, Ordering::Release);
        if old == 0 {
            self.table.add_used(1);
        }
        // DSB: the walker sees the entry before the faulting instruction runs again.
        arch::mmu::make_table_visible();
        true
    }

    /// Maps a frame; the entry owns the reference from here. The slot must have no present entry
    /// (a software entry is replaced).
    pub fn map(&mut self, frame: FrameRef, bits: u64) {
        let new = frame.phys().0 | bits & !pte::ADDR_MASK;
        debug_assert!(new & pte::TYPE_MASK == pte::VALID | pte::PAGE && new & pte::SW_SPECIAL == 0);
        if self.fill(new) {
            let _owned_by_the_entry = frame.into_raw();
        }
    }

    /// Maps a frame without taking a reference: the zero page, device registers.
    pub fn map_special(&mut self, pfn: Pfn, bits: u64) {
        self.fill(pfn.addr().0 & pte::ADDR_MASK | bits & !pte::ADDR_MASK | pte::SW_SPECIAL);
    }

    /// Puts a software entry (swap, migration) into a slot without a present one. Bit 0 is clear.
    pub fn set_software(&mut self, value: u64) {
        debug_assert!(value & pte::VALID == 0);
        let old = self.entry.load(Ordering::Relaxed);
        if old & pte::VALID != 0 || value & pte::VALID != 0 {
            debug_assert!(false, "software entry over a present one");
            return;
        }
        self.entry.store(value, Ordering::Release);
        self.table.add_used(i64::from(value != 0) - i64::from(old != 0));
    }

    /// Empties the slot; what was there, and the reference that it owned. If it was present the
    /// caller flushes the TLBs, and only then drops the reference or fills the slot again.
    pub fn take(&mut self) -> Option<(Pte, Option<FrameRef>)> {
        // A swap: the hardware may set access and dirty state until the last moment.
        let old = Pte(self.entry.swap(0, Ordering::AcqRel));
        if old.is_none() {
            return None;
        }
        self.table.add_used(-1);
        Some((old, owned(old)))
    }

    /// Changes a present entry's bits: `f` gets the entry and returns it changed, with the same
    /// address, still present and special or not as before. Whether it differs. The caller flushes.
    pub fn update(&mut self, mut f: impl FnMut(Pte) -> Pte) -> bool {
        let mut old = self.entry.load(Ordering::Acquire);
        loop {
            if old & pte::VALID == 0 {
                return false;
            }
            let new = f(Pte(old)).0;
            let fixed = pte::ADDR_MASK | pte::TYPE_MASK | pte::SW_SPECIAL;
            debug_assert!((old ^ new) & fixed == 0, "break before make: {old:#x} becomes {new:#x}");
            let new = new & !fixed | old & fixed;
            if new == old {
                return false;
            }
            // Against the hardware's updates of access and dirty state.
            match self.entry.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => old = now,
            }
        }
    }

    /// Sets and clears bits of a present entry. Whether it changed; the caller flushes.
    pub fn set_bits(&mut self, set: u64, clear: u64) -> bool {
        self.update(|p| p.without(clear).with(set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Counter, alloc_frame, counter, drain_all, stats, testing};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn frame(tag: u8) -> FrameRef {
        let f = alloc_frame(AllocFlags::empty()).unwrap();
        f.copy_in(0, &[tag]);
        f
    }

    fn settle() {
        rcu::barrier();
        drain_all();
    }

    #[test]
    fn all_frames_and_tables_come_back_with_the_address_space() {
        let _lock = testing::memory();
        settle();
        let (before, tables) = (stats().free, counter(Counter::PageTables));
        let pt = PageTable::new_user().unwrap();
        for n in 0..600u64 {
            pt.map(UserAddr(n * 0x12_3000), frame(1), pte::USER_RW).unwrap();
        }
        assert!(counter(Counter::PageTables) - tables > 300);
        assert_eq!(pt.table_bytes() / 4096, counter(Counter::PageTables) - tables);
        drop(pt);
        settle();
        assert_eq!((stats().free, counter(Counter::PageTables)), (before, tables));
    }

    #[test]
    fn a_present_entry_owns_one_reference() {
        let _lock = testing::memory();
        let pt = PageTable::new_user().unwrap();
        let f = frame(1);
        pt.map(UserAddr(0x1000), f.clone(), pte::USER_RO).unwrap();
        assert_eq!(f.refcount(), 2);
        assert_eq!(pt.map(UserAddr(0x1000), f.clone(), pte::USER_RO), Err(Errno::EEXIST));
        assert_eq!(f.refcount(), 2);
        pt.with_pte_locked(UserAddr(0x1000), false, |s| {
            assert_eq!(s.clone_frame().unwrap(), f);
            let (old, owned) = s.take().unwrap();
            assert!(old.is_present() && owned.unwrap() == f);
            s.map_special(f.pfn(), pte::USER_RO);
            assert!(s.clone_frame().is_none() && s.take().unwrap().1.is_none());
        })
        .unwrap();
        assert_eq!(f.refcount(), 1);
        assert_eq!(pt.with_pte_locked(UserAddr(1 << 40), false, |_| ()), Err(Errno::EFAULT));
        assert_eq!(pt.with_pte_locked(UserAddr(USER_END), true, |_| ()), Err(Errno::EFAULT));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic = "break before make"]
    fn a_present_entry_cannot_be_replaced_without_a_break() {
        let _lock = testing::memory();
        let pt = PageTable::new_user().unwrap();
        pt.map(UserAddr(0), frame(1), pte::USER_RW).unwrap();
        pt.with_pte_locked(UserAddr(0), false, |s| s.map(frame(2), pte::USER_RW)).unwrap();
    }

    #[test]
    fn empty_tables_go_only_when_the_hole_covers_them() {
        let _lock = testing::memory();
        settle();
        let pt = PageTable::new_user().unwrap();
        for a in [0u64, LEAF_SPAN, 2 * LEAF_SPAN, 1 << 40] {
            pt.map(UserAddr(a), frame(1), pte::USER_RW).unwrap();
        }
        pt.unmap_range(UserAddr(LEAF_SPAN), UserAddr(1 << 41), |_, _, _| ());
        let mut flushed = 0;
        // A hole that covers the second table in part only.
        assert_eq!(pt.free_tables((UserAddr(LEAF_SPAN + 4096), UserAddr(2 * LEAF_SPAN)), (UserAddr(LEAF_SPAN + 4096), UserAddr(2 * LEAF_SPAN)), || flushed += 1), 0);
        assert_eq!(flushed, 0);
        // Two leaves, and at 1 << 40 a leaf with both tables above it.
        assert_eq!(pt.free_tables((UserAddr(4096), UserAddr(USER_END)), (UserAddr(4096), UserAddr(USER_END)), || flushed += 1), 5);
        assert_eq!(flushed, 1);
        assert!(pt.walk(UserAddr(0)).is_present());
        assert_eq!(pt.table_bytes(), 4 * 4096);
        pt.map(UserAddr(1 << 40), frame(1), pte::USER_RW).unwrap();
    }

    #[test]
    fn agrees_with_a_map() {
        // The lock is held over all cases: whoever waits for it must not be a simulated CPU.
        let _lock = testing::memory();
        let ops = prop::collection::vec((0u8..6, 0u64..2000, 1u64..600, any::<u8>()), 1..80);
        proptest!(ProptestConfig::with_cases(40), |(ops in ops)| {
            settle();
            let before = stats().free;
            {
                let pt = PageTable::new_user().unwrap();
                let other = PageTable::new_user().unwrap();
                let (mut m, mut o) = (BTreeMap::new(), BTreeMap::new());
                for (op, page, len, tag) in ops {
                    let a = UserAddr(page << 12);
                    let end = UserAddr((page + len) << 12);
                    match op {
                        0 | 1 => {
                            let done = pt.map(a, frame(tag), pte::USER_RW).is_ok();
                            prop_assert_eq!(done, !m.contains_key(&page));
                            m.entry(page).or_insert((tag, true));
                        }
                        2 => {
                            let mut got = vec![];
                            pt.unmap_range(a, end, |a, _, f| {
                                let mut b = [0];
                                f.unwrap().copy_out(0, &mut b);
                                got.push((a.0 >> 12, b[0]));
                            });
                            let want: Vec<_> = m.range(page..page + len).map(|(p, (t, _))| (*p, *t)).collect();
                            m.retain(|p, _| *p < page || *p >= page + len);
                            prop_assert_eq!(got, want);
                            pt.free_tables((a, end), (a, end), || ());
                        }
                        3 => {
                            pt.protect_range(a, end, |_, p| p.with(pte::AP_RO));
                            m.range_mut(page..page + len).for_each(|(_, v)| v.1 = false);
                        }
                        4 => {
                            // As fork: share what the other does not have.
                            let r = pt.copy_range(&other, a, end, |_, s, d| {
                                if d.get().is_none() {
                                    d.map(s.clone_frame().unwrap(), pte::USER_RO);
                                }
                                ControlFlow::Continue(())
                            });
                            prop_assert!(r.is_ok());
                            for (p, v) in m.range(page..page + len) { o.entry(*p).or_insert(v.0); }
                        }
                        _ => {
                            // As mremap: move within one address space, where there is room.
                            let to = UserAddr(a.0 + (3000 << 12));
                            let r = pt.visit_pair(a, &pt, to, len << 12, |_, s, d| {
                                if d.get().is_none() {
                                    let (p, f) = s.take().unwrap();
                                    d.map(f.unwrap(), p.bits());
                                }
                                ControlFlow::Continue(())
                            });
                            prop_assert!(r.is_ok());
                            for p in page..page + len {
                                if let Some(v) = m.get(&p).copied() && !m.contains_key(&(p + 3000)) {
                                    m.remove(&p);
                                    m.insert(p + 3000, v);
                                }
                            }
                        }
                    }
                }
                let mut got = BTreeMap::new();
                let _ = pt.visit_used(UserAddr(0), UserAddr(USER_END), |a, s| {
                    let mut b = [0];
                    s.clone_frame().unwrap().copy_out(0, &mut b);
                    got.insert(a.0 >> 12, (b[0], s.get().is_writable()));
                    ControlFlow::Continue(())
                });
                prop_assert_eq!(&got, &m);
                for (p, t) in o {
                    let mut b = [0];
                    other.with_pte_locked(UserAddr(p << 12), false, |s| s.clone_frame().unwrap().copy_out(0, &mut b)).unwrap();
                    prop_assert_eq!(b[0], t);
                }
            }
            settle();
            prop_assert_eq!(stats().free, before);
        });
    }

    #[test]
    fn faults_and_unmaps_of_several_cpus_lose_nothing() {
        let _lock = testing::memory();
        settle();
        let before = stats().free;
        let pt = PageTable::new_user().unwrap();
        arch::sim::run_on_cpus(4, |cpu| {
            // Each CPU its own pages of the same tables; all take empty tables out.
            for n in 0..800u64 {
                let a = UserAddr((n % 7) * LEAF_SPAN + (u64::from(cpu.0) << 12));
                pt.with_pte_locked(a, true, |s| {
                    assert!(s.get().is_none());
                    s.map(alloc_frame(AllocFlags::ATOMIC).unwrap(), pte::USER_RW);
                })
                .unwrap();
                assert!(pt.walk(a).is_present());
                pt.unmap_range(a, a.add(4096), |_, _, f| drop(f));
                assert!(pt.walk(a).is_none());
                pt.free_tables((UserAddr(0), UserAddr(1 << 30)), (UserAddr(0), UserAddr(1 << 30)), || ());
                rcu::quiescent(cpu);
                rcu::run_callbacks(cpu);
            }
        });
        drop(pt);
        settle();
        assert_eq!(stats().free, before);
    }
}
