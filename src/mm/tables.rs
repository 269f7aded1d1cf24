//! The page tables of a space, in the shapes in which this room walks them.

use core::ops::ControlFlow;

use abi::{PAGE_SIZE, PhysAddr, Result, UserAddr};
use frames::pagetable::{PageTable, Pte, PteSlot};

/// Bytes that one leaf table covers.
const LEAF: u64 = 512 * PAGE_SIZE as u64;

/// The page tables of a user space.
pub(crate) struct Tables(PageTable);

impl Tables {
    pub(crate) fn new() -> Result<Self> {
        PageTable::new_user().map(Self)
    }

    pub(crate) fn root(&self) -> PhysAddr {
        self.0.root()
    }

    /// How many pages the tables take.
    pub(crate) fn pages(&self) -> u64 {
        self.0.table_bytes() / PAGE_SIZE as u64
    }

    /// The entry of an address at this moment, without a lock.
    pub(crate) fn walk(&self, addr: UserAddr) -> Pte {
        self.0.walk(addr)
    }

    /// Calls `f` with the entry of an address, its table locked; missing tables are made. ENOMEM.
    pub(crate) fn with_entry<R>(&self, addr: UserAddr, f: impl FnOnce(&mut PteSlot<'_>) -> R) -> Result<R> {
        self.0.with_pte_locked(addr, true, f)
    }

    /// As `with_entry`, but `None` when there is no table.
    pub(crate) fn with_existing<R>(&self, addr: UserAddr, f: impl FnOnce(&mut PteSlot<'_>) -> R) -> Option<R> {
        self.0.with_pte_locked(addr, false, f).ok()
    }

    /// Calls `f` with every entry that maps something.
    pub(crate) fn visit(&self, start: u64, end: u64, mut f: impl FnMut(u64, &mut PteSlot<'_>)) {
        let _ = self.0.visit_used(UserAddr(start), UserAddr(end), |addr, slot| {
            f(addr.0, slot);
            ControlFlow::Continue(())
        });
    }

    /// The address of the first used entry in the range.
    pub(crate) fn first_used(&self, start: u64, end: u64) -> Option<u64> {
        let mut first = None;
        let _ = self.0.visit_used(UserAddr(start), UserAddr(end), |addr, slot| {
            if slot.get().is_none() {
                return ControlFlow::Continue(());
            }
            first = Some(addr.0);
            ControlFlow::Break(())
        });
        first
    }

    /// Calls `f` with every entry that has a table, empty ones too.
    pub(crate) fn visit_all(&self, start: u64, end: u64, mut f: impl FnMut(u64, &mut PteSlot<'_>)) {
        let _ = self.0.visit(UserAddr(start), UserAddr(end), |addr, slot| {
            f(addr.0, slot);
            ControlFlow::Continue(())
        });
    }

    /// Calls `f` with every used entry of the range and the one for the same address in `child`,
    /// whose tables are made as needed. ENOMEM.
    pub(crate) fn copy(
        &self,
        child: &Self,
        start: u64,
        end: u64,
        mut f: impl FnMut(&mut PteSlot<'_>, &mut PteSlot<'_>),
    ) -> Result {
        let _ = self.0.copy_range(&child.0, UserAddr(start), UserAddr(end), |_, mine, theirs| {
            f(mine, theirs);
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    /// Makes all tables that the range needs. ENOMEM.
    pub(crate) fn reserve(&self, start: u64, end: u64) -> Result {
        let mut at = start;
        while at < end {
            self.0.with_pte_locked(UserAddr(at), true, |_| ())?;
            at = (at & !(LEAF - 1)).saturating_add(LEAF);
        }
        Ok(())
    }

    /// Moves the entries of `len` bytes, references and all; whether there were any. The caller
    /// flushes the old range. ENOMEM only when tables were not reserved.
    pub(crate) fn shift(&self, from: u64, to: u64, len: u64) -> Result<bool> {
        let mut moved = false;
        let _ = self.0.visit_pair(UserAddr(from), &self.0, UserAddr(to), len, |_, old, new| {
            if let Some((entry, frame)) = old.take() {
                match frame {
                    Some(frame) => new.map(frame, entry.bits()),
                    None => new.map_special(entry.pfn(), entry.bits()),
                }
                moved = true;
            }
            ControlFlow::Continue(())
        })?;
        Ok(moved)
    }

    /// Frees tables that lie in the hole `floor..ceiling` and that the unmapping of `start..end` has
    /// left empty. `flush` drops what TLBs hold of the way there; it runs before any is freed,
    /// perhaps several times.
    pub(crate) fn free_in(&self, (floor, ceiling): (u64, u64), (start, end): (u64, u64), flush: impl FnMut()) {
        let (hole, unmapped) = ((UserAddr(floor), UserAddr(ceiling)), (UserAddr(start), UserAddr(end)));
        self.0.free_tables(hole, unmapped, flush);
    }
}
