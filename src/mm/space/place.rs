//! Where a mapping goes when the program leaves it to the kernel: top-down from `mmap_base`, or
//! upwards in the old layout (`personality(2)`, ADDR_COMPAT_LAYOUT).
//!
//! The highest (or lowest) hole that is large enough wins, as on Linux; the map of areas finds it
//! in logarithmic time. A stack keeps its guard gap free.

use abi::{PAGE_MASK, USER_END, UserAddr, page_align_up};
use sync::rcu;

use super::{AddressSpace, MIN_ADDR, STACK_GAP};
use crate::{Area, MapFlags};

/// Where placement begins when exec has not said: room for a stack of the usual limit above.
const DEFAULT_BASE: u64 = USER_END - (128 << 20) - STACK_GAP;

/// Bytes to keep free below an area.
fn gap_below(area: &Area) -> u64 {
    if area.flags.contains(MapFlags::GROWSDOWN) { STACK_GAP } else { 0 }
}

impl AddressSpace {
    fn mmap_base(&self) -> u64 {
        match self.layout().mmap_base.0 & !PAGE_MASK {
            0 => DEFAULT_BASE,
            base => base.min(USER_END),
        }
    }

    /// The start of a hole of `len` bytes: at `hint` if it is free there.
    pub(super) fn place(&self, hint: Option<u64>, len: u64) -> Option<u64> {
        if let Some(hint) = hint.map(|h| h & !PAGE_MASK)
            && hint >= lowest()
            && self.fits(hint, len)
        {
            return Some(hint);
        }
        let base = self.mmap_base();
        if self.layout().bottom_up {
            return self.search_up(len, base);
        }
        self.search(len, base).or_else(|| self.search(len, USER_END))
    }

    /// Where [`map`](Self::map) would put a mapping of `len` bytes now.
    pub fn find_hole(&self, len: u64) -> Option<UserAddr> {
        self.place(None, len).map(UserAddr)
    }

    /// Whether the range is free, and leaves a stack above it its guard gap.
    fn fits(&self, start: u64, len: u64) -> bool {
        let Some(end) = super::user_range(start, len) else { return false };
        match self.area_from(start) {
            Some(next) => end <= next.start.saturating_sub(gap_below(&next)),
            None => true,
        }
    }

    fn search_up(&self, len: u64, mut low: u64) -> Option<u64> {
        let guard = rcu::read_lock();
        loop {
            let start = self.areas.find_gap(&guard, len, low, USER_END)?;
            match self.areas.iter_from(&guard, start + len).next() {
                Some((next, end, area)) if start + len > next.saturating_sub(gap_below(area)) => low = end,
                _ => return Some(start),
            }
        }
    }

    fn search(&self, len: u64, mut high: u64) -> Option<u64> {
        let guard = rcu::read_lock();
        loop {
            let start = self.areas.find_gap_down(&guard, len, lowest(), high)?;
            // Each turn goes below one more stack; programs have few.
            let end = start + len;
            match self.areas.iter_from(&guard, end).next() {
                Some((next, _, area)) if end > next.saturating_sub(gap_below(area)) => {
                    high = next.saturating_sub(gap_below(area));
                }
                _ => return Some(start),
            }
        }
    }
}

/// Where the first page lies that a program may have.
fn lowest() -> u64 {
    page_align_up(MIN_ADDR.get_u64()).unwrap_or(0)
}
