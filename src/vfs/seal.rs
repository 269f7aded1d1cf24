//! Seals: what can no longer be done to a file in memory (`fcntl(2)`, "File Sealing").
//!
//! A seal is never taken off. Adding one holds the inode's lock for writing, and so does whatever
//! a seal forbids but one: a shared mapping through which the file can be written. Those are counted
//! here, and F_SEAL_WRITE closes the count, so that the two exclude each other without a lock.

use abi::{Errno, PAGE_MASK, Result, raw::general as g};
use core::cell::Cell;
use sync::atomic::{
    AtomicI32, AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

/// No seal can be added.
pub const SEAL_SEAL: u32 = g::F_SEAL_SEAL;
/// The file cannot become smaller.
const SEAL_SHRINK: u32 = g::F_SEAL_SHRINK;
/// The file cannot become larger.
const SEAL_GROW: u32 = g::F_SEAL_GROW;
/// The contents cannot change.
const SEAL_WRITE: u32 = g::F_SEAL_WRITE;
/// The contents cannot change but through mappings that are there already.
const SEAL_FUTURE_WRITE: u32 = g::F_SEAL_FUTURE_WRITE;
const ALL: u32 = SEAL_SEAL | SEAL_SHRINK | SEAL_GROW | SEAL_WRITE | SEAL_FUTURE_WRITE;

/// The file's kind has no seals.
const NONE: u32 = 1 << 31;
/// `shared` when no shared writable mapping may come.
const CLOSED: i32 = -1;

/// The seals of an inode.
pub struct Seals {
    bits: AtomicU32,
    /// Shared mappings through which the file can be written.
    shared: AtomicI32,
}

impl Seals {
    /// Of a file that cannot be sealed.
    pub(crate) const fn none() -> Self {
        Self { bits: AtomicU32::new(NONE), shared: AtomicI32::new(0) }
    }

    /// Makes the file one that has seals, these for the beginning; before anyone else knows it.
    pub fn begin(&self, bits: u32) {
        self.bits.store(bits, Relaxed);
    }

    /// The seals. EINVAL where there are none.
    pub fn get(&self) -> Result<u32> {
        Some(self.bits.load(Relaxed)).filter(|b| b & NONE == 0).ok_or(Errno::EINVAL)
    }

    #[inline]
    fn has(&self, bits: u32) -> bool {
        self.bits.load(Relaxed) & bits != 0
    }

    /// Adds seals; the inode's lock is held for writing. `unpinned` says whether nobody but the page
    /// cache and mappings has pages of the file. EINVAL; EPERM: no seal may be added; EBUSY: somebody
    /// could go on writing.
    pub fn add(&self, bits: u32, unpinned: impl FnOnce() -> bool) -> Result {
        if bits & !ALL != 0 {
            return Err(Errno::EINVAL);
        }
        let have = self.get()?;
        if have & SEAL_SEAL != 0 {
            return Err(Errno::EPERM);
        }
        if bits & !have & SEAL_WRITE != 0 {
            self.shared.compare_exchange(0, CLOSED, SeqCst, Relaxed).map_err(|_| Errno::EBUSY)?;
            if !unpinned() {
                self.shared.store(0, SeqCst);
                return Err(Errno::EBUSY);
            }
        }
        self.bits.fetch_or(bits, SeqCst);
        Ok(())
    }

    /// How many of `len` bytes may be written at `at` to a file of `size` bytes. EPERM: none. What
    /// would grow a file that cannot grow is refused page by page, as it would be copied.
    #[inline]
    pub fn writable(&self, at: u64, len: usize, size: u64) -> Result<usize> {
        if !self.has(SEAL_WRITE | SEAL_FUTURE_WRITE | SEAL_GROW) {
            return Ok(len);
        }
        if self.has(SEAL_WRITE | SEAL_FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        if at.saturating_add(len as u64) <= size {
            return Ok(len);
        }
        match (size & !PAGE_MASK).checked_sub(at) {
            Some(n) if n > 0 => usize::try_from(n).map_err(|_| Errno::EPERM),
            _ => Err(Errno::EPERM),
        }
    }

    /// Whether contents may be thrown away (holes). EPERM.
    pub fn check_discard(&self) -> Result {
        if self.has(SEAL_WRITE | SEAL_FUTURE_WRITE) { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Whether the size may change so. EPERM.
    pub fn check_size(&self, old: u64, new: u64) -> Result {
        let denied = new < old && self.has(SEAL_SHRINK) || new > old && self.has(SEAL_GROW);
        if denied { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Counts a shared mapping through which the file can be written. EPERM: there can be none.
    pub(crate) fn count_mapping(&self) -> Result {
        if self.has(SEAL_WRITE | SEAL_FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        self.shared.fetch_update(SeqCst, Relaxed, |n| (n != CLOSED).then_some(n.saturating_add(1))).map(|_| ()).map_err(|_| Errno::EPERM)
    }

    /// Takes a [`count_mapping`](Self::count_mapping) back.
    pub(crate) fn uncount_mapping(&self) {
        self.shared.fetch_sub(1, SeqCst);
    }
}

/// Calls `look` until it says yes, for a moment: references of those who only pass by go away
/// (Linux looks five times, 150 ms in all). May sleep.
pub fn soon(look: impl Fn() -> bool) -> bool {
    let tries = Cell::new(0u64);
    loop {
        if look() {
            return true;
        }
        let n = tries.replace(tries.get() + 1);
        if n > 3 {
            return false;
        }
        let until = time::monotonic().saturating_add(abi::Nanos::from_millis(10 << n));
        let _ = sched::sleep_until(sched::Sleep::Killable, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seals() -> Seals {
        let s = Seals::none();
        s.begin(0);
        s
    }

    #[test]
    fn a_file_without_seals_has_no_seals_to_show_or_add() {
        let s = Seals::none();
        assert_eq!(s.get(), Err(Errno::EINVAL));
        assert_eq!(s.add(SEAL_GROW, || true), Err(Errno::EINVAL));
        assert_eq!(s.writable(0, 10, 0), Ok(10));
    }

    #[test]
    fn writable_mappings_and_the_write_seal_exclude_each_other() {
        let s = seals();
        s.count_mapping().unwrap();
        assert_eq!(s.add(SEAL_WRITE, || true), Err(Errno::EBUSY));
        s.uncount_mapping();
        assert_eq!(s.add(SEAL_WRITE, || false), Err(Errno::EBUSY));
        assert!(s.count_mapping().is_ok(), "a seal that failed leaves mappings allowed");
        assert_eq!(s.add(SEAL_FUTURE_WRITE, || true), Ok(()));
        assert_eq!(s.count_mapping(), Err(Errno::EPERM));
        s.uncount_mapping();
        assert_eq!(s.add(SEAL_WRITE, || true), Ok(()));
        assert_eq!(s.count_mapping(), Err(Errno::EPERM));
        assert_eq!(s.add(SEAL_WRITE | SEAL_SEAL, || false), Ok(()), "what is there already asks nobody");
        assert_eq!(s.add(SEAL_GROW, || true), Err(Errno::EPERM));
        assert_eq!(s.get(), Ok(SEAL_WRITE | SEAL_FUTURE_WRITE | SEAL_SEAL));
    }

    #[test]
    fn a_write_that_would_grow_a_sealed_file_stops_at_the_last_whole_page() {
        let s = seals();
        s.add(SEAL_GROW, || true).unwrap();
        assert_eq!(s.writable(0, 5000, 5000), Ok(5000));
        assert_eq!(s.writable(0, 5001, 5000), Ok(4096));
        assert_eq!(s.writable(4096, 905, 5000), Err(Errno::EPERM));
        assert_eq!(s.writable(4996, 4, 5000), Ok(4));
        assert_eq!(s.writable(u64::MAX - 1, usize::MAX, 5000), Err(Errno::EPERM));
        s.add(SEAL_SHRINK, || true).unwrap();
        assert_eq!((s.check_size(5, 4), s.check_size(4, 5), s.check_size(4, 4)), (Err(Errno::EPERM), Err(Errno::EPERM), Ok(())));
    }
}
