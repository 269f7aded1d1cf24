//! Locked memory: `mlock(2)`, `mlock2(2)`, `mlockall(2)` and their opposites.
//!
//! Locked areas carry [`MapFlags::LOCKED`]; their pages are never reclaimed. Those that are not
//! locked on fault only ([`MapFlags::LOCKONFAULT`]) get all their pages at once. What mappings made
//! later get is in the writer's state (`MCL_FUTURE`).

use abi::{Errno, PAGE_MASK, PAGE_SHIFT, Result, USER_END, UserAddr, page_align_up};

use super::{AddressSpace, Writing, edit::Edit};
use crate::{Limits, MapFlags, Prot, types::require};

/// What the mark of a locked area is made of.
const MARK: MapFlags = MapFlags::LOCKED.union(MapFlags::LOCKONFAULT);

/// How memory is locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockMode {
    /// Not at all.
    Off,
    /// All pages are there when the call returns.
    Now,
    /// Pages stay once they are there (MLOCK_ONFAULT, MCL_ONFAULT).
    OnFault,
}

impl LockMode {
    fn mark(self) -> MapFlags {
        match self {
            Self::Off => MapFlags::empty(),
            Self::Now => MapFlags::LOCKED,
            Self::OnFault => MARK,
        }
    }
}

impl AddressSpace {
    /// `mlock2(2)` and `munlock(2)`. Errors in Linux's order: EPERM (locking, with a limit of zero),
    /// EINVAL (the range wraps), ENOMEM (RLIMIT_MEMLOCK; holes; pages that cannot be had), EAGAIN
    /// (no memory for the pages). May sleep.
    pub fn lock_range(&self, addr: UserAddr, len: u64, mode: LockMode, limits: &Limits) -> Result {
        let locks = mode != LockMode::Off;
        require(!locks || limits.memlock > 0, Errno::EPERM)?;
        let start = addr.0 & !PAGE_MASK;
        let len = len.checked_add(addr.0 & PAGE_MASK).and_then(page_align_up).ok_or(Errno::EINVAL)?;
        let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
        if len == 0 {
            return Ok(());
        }
        let writer = self.write();
        self.mark(&writer, start, end, mode, |new, have| {
            require(!locks || new == 0 || within(limits, have, new), Errno::ENOMEM)
        })?;
        drop(writer);
        if mode == LockMode::Now {
            // What populating says means something else here (mlock(2)).
            self.populate_locked(start, end).map_err(|e| if e == Errno::ENOMEM { Errno::EAGAIN } else { Errno::ENOMEM })?;
        }
        Ok(())
    }

    /// `mlockall(2)` (`current` says how what is mapped now is locked, `future` what comes later) and
    /// `munlockall(2)` (both `Off`). EPERM, ENOMEM as above.
    pub fn lock_all(&self, current: Option<LockMode>, future: LockMode, limits: &Limits) -> Result {
        let locks = current.is_some_and(|mode| mode != LockMode::Off) || future != LockMode::Off;
        require(!locks || limits.memlock > 0, Errno::EPERM)?;
        let mut writer = self.write();
        if locks && current.is_some() {
            require(within(limits, 0, self.counts.get().total), Errno::ENOMEM)?;
        }
        if let Some(mode) = current {
            let mut at = 0;
            // Area by area: locking has no holes to complain about here.
            while let Some(area) = self.area_from(at) {
                at = area.end;
                self.mark(&writer, area.start, area.end, mode, |_, _| Ok(()))?;
            }
        }
        writer.future = future.mark();
        drop(writer);
        if current == Some(LockMode::Now) {
            // As far as pages can be had.
            let _ = self.populate_locked(0, USER_END);
        }
        Ok(())
    }

    /// Whether `more` bytes may be locked beside what is, when a new mapping has these flags.
    pub(super) fn lock_limit(&self, flags: MapFlags, more: u64, limits: &Limits) -> Result {
        let fits = || within(limits, self.counts.get().locked, more >> PAGE_SHIFT);
        require(!flags.contains(MapFlags::LOCKED) || fits(), Errno::EAGAIN)
    }

    /// Gives the areas of the range the mark of a mode. `check` gets the pages that become locked,
    /// and those that are locked already.
    fn mark(
        &self,
        writer: &Writing<'_>,
        start: u64,
        end: u64,
        mode: LockMode,
        check: impl FnOnce(u64, u64) -> Result,
    ) -> Result {
        let mut edit = Edit::begin(self, writer, start, end)?;
        let (mut covered, mut new, mut changes) = (start, 0, false);
        let specs = edit.carve(start, end, |mut part| {
            require(part.start == covered, Errno::ENOMEM)?;
            covered = part.end;
            if !part.flags.contains(MapFlags::LOCKED) {
                new += part.pages();
            }
            let flags = part.flags.difference(MARK) | mode.mark();
            changes |= flags != part.flags;
            part.flags = flags;
            Ok(Some(part))
        })?;
        check(new, self.counts.get().locked)?;
        require(covered >= end, Errno::ENOMEM)?;
        if changes {
            edit.replace(specs, &Limits::UNLIMITED)?;
            // The areas that go live on in those that come: no file is closed.
            drop(edit.commit(|_| ())?);
        }
        Ok(())
    }

    /// Faults in all pages of the locked areas of the range; EFAULT for a page that cannot be had.
    pub(super) fn populate_locked(&self, start: u64, end: u64) -> Result {
        let mut at = start;
        let mut outcome = Ok(());
        while let Some(area) = self.area_from(at).filter(|a| a.start < end) {
            let from = area.start.max(at);
            at = area.end;
            if !area.flags.contains(MapFlags::LOCKED) || area.flags.contains(MapFlags::LOCKONFAULT) {
                continue;
            }
            // A store, so that private memory is had in its final place.
            let write = area.prot.contains(Prot::W) && !area.shared();
            let done = self.populate(UserAddr(from), area.end.min(end) - from, write);
            outcome = outcome.and(done);
        }
        outcome
    }
}

/// RLIMIT_MEMLOCK, in pages.
fn within(limits: &Limits, have: u64, more: u64) -> bool {
    have.saturating_add(more) <= limits.memlock >> PAGE_SHIFT
}
