//! Taking pages out of a cache: truncation, holes, invalidation.
//!
//! Order of a truncation (mmap(2): an access beyond the last page is SIGBUS): first the size, so
//! that no new fault maps a page beyond it; then the mappings; then, page by page under the page
//! lock, the pages: a fault that saw the old size either mapped its page before the lock (and it
//! is unmapped here) or finds it gone.

use abi::{Errno, PAGE_MASK, PAGE_SIZE, Result};
use frames::{AllocFlags, FrameFlags, alloc_frame};
use sync::atomic::Ordering;

use super::{Get, PageCache, index_of, lock};
use crate::rmap::PAGE;

impl PageCache {
    /// Sets the size, as `ftruncate(2)`: what lies beyond is gone, also from private copies in
    /// mappings; what is added reads as zeros. The caller holds the inode's lock. May sleep.
    ///
    /// Fails (with the source's error, before anything changed) only when the new last page has
    /// to be read to be cut.
    pub fn truncate(&self, new_size: u64) -> Result {
        let old_size = self.size();
        if new_size >= old_size {
            self.zero_tail(old_size);
            self.size.store(new_size, Ordering::Release);
            return Ok(());
        }
        if new_size & PAGE_MASK != 0 && !self.is_memory() {
            self.page(index_of(new_size), Get::Read)?;
        }
        self.size.store(new_size, Ordering::Release);
        let first = new_size.div_ceil(PAGE);
        self.unmap(first, u64::MAX, true);
        self.remove_pages(first, u64::MAX);
        self.zero_tail(new_size);
        Ok(())
    }

    /// Makes a hole of zeros (`fallocate(2)`, FALLOC_FL_PUNCH_HOLE); the size stays. The caller
    /// holds the inode's lock. May sleep.
    pub fn discard(&self, start: u64, end: u64) -> Result {
        let end = end.min(self.size().next_multiple_of(PAGE));
        if start >= end {
            return Ok(());
        }
        let first = start.div_ceil(PAGE);
        let last = end / PAGE;
        if first > last {
            return self.zero_part(start, end);
        }
        self.zero_part(start, first.saturating_mul(PAGE).min(end))?;
        self.zero_part(last.saturating_mul(PAGE).max(start), end)?;
        if first < last {
            self.unmap(first, last, false);
            self.remove_pages(first, last);
        }
        Ok(())
    }

    /// Gives pages `first..end` their place and memory before they are used (`fallocate(2)`): they
    /// read as the holes they were. What fails leaves nothing behind: ENOMEM, the source's error,
    /// EINTR. The caller holds the inode's lock. May sleep.
    pub fn reserve(&self, first: u64, end: u64) -> Result {
        for index in first..end {
            let waiting = arch::thread::current().test_flag(arch::thread::SIGNAL_PENDING);
            let done = match self.lookup(index) {
                Some(_) if self.lookup_ready(index).is_some() => continue,
                _ if waiting => Err(Errno::EINTR),
                // One of an earlier call: filled now, so that taking back leaves it.
                Some(_) => self.page(index, Get::Create).map(|_| ()),
                None => self.place_empty(index),
            };
            if let Err(e) = done {
                self.unreserve(first, index);
                return Err(e);
            }
        }
        Ok(())
    }

    fn place_empty(&self, index: u64) -> Result {
        // Without UPTODATE: who uses it first fills it with zeros.
        let frame = alloc_frame(AllocFlags::empty())?;
        self.insert(index, frame).map(|_| ())
    }

    fn unreserve(&self, first: u64, end: u64) {
        let mut next = first;
        while let Some((index, frame)) = self.pages.next(next, u64::MAX) {
            if index >= end {
                break;
            }
            let held = lock::lock(&frame);
            if self.owns(&frame) && !frame.test(FrameFlags::UPTODATE) {
                self.forget(&frame, index);
            }
            drop(held);
            next = index + 1;
        }
    }

    /// The first byte from `pos` on that is not in a hole (`lseek(2)`, SEEK_DATA); None: no more.
    pub fn next_data(&self, pos: u64) -> Option<u64> {
        let mut next = index_of(pos);
        loop {
            let (index, frame) = self.pages.next(next, u64::MAX)?;
            if frame.test(FrameFlags::UPTODATE) {
                return Some(index.saturating_mul(PAGE).max(pos));
            }
            next = index.checked_add(1)?;
        }
    }

    /// The first byte from `pos` on that is in a hole (SEEK_HOLE).
    pub fn next_hole(&self, pos: u64) -> u64 {
        let mut index = index_of(pos);
        while self.lookup_ready(index).is_some() {
            index += 1;
        }
        index.saturating_mul(PAGE).max(pos)
    }

    /// Whether somebody beside this cache and mappings holds a page. A hint: who only passes by
    /// counts too.
    pub fn is_pinned(&self) -> bool {
        let mut next = 0;
        while let Some((index, frame)) = self.pages.next(next, u64::MAX) {
            // One reference each: the tree's, every mapping's, and this one.
            if i64::from(frame.refcount()) > 2 + i64::from(frame.mapcount()) {
                return true;
            }
            let Some(n) = index.checked_add(1) else { break };
            next = n;
        }
        false
    }

    /// Drops clean pages that nothing uses (drop_caches, `posix_fadvise(2)` DONTNEED).
    /// Memory objects keep theirs: there is no other copy.
    pub fn invalidate(&self) {
        if self.is_memory() {
            return;
        }
        let mut next = 0;
        while let Some((index, frame)) = self.pages.next(next, u64::MAX) {
            if let Some(_held) = lock::try_lock(&frame)
                && self.owns(&frame)
                && !frame.flags().intersects(FrameFlags::DIRTY | FrameFlags::WRITEBACK)
                && frame.mapcount() == 0
            {
                self.forget(&frame, index);
            }
            match index.checked_add(1) {
                Some(n) => next = n,
                None => break,
            }
        }
    }

    /// Clears the part of the last page that lies beyond `size`.
    pub(super) fn zero_tail(&self, size: u64) {
        let offset = (size & PAGE_MASK) as usize;
        if offset == 0 {
            return;
        }
        if let Some(frame) = self.lookup(index_of(size))
            && frame.test(FrameFlags::UPTODATE)
        {
            frame.with_bytes_mut(|b| b.get_mut(offset..).unwrap_or_default().fill(0));
            if !self.is_memory() {
                self.mark_dirty(&frame);
            }
        }
    }

    /// Clears bytes within one page.
    fn zero_part(&self, start: u64, end: u64) -> Result {
        if start >= end {
            return Ok(());
        }
        let how = if self.is_memory() { Get::Lookup } else { Get::Read };
        if let Some(frame) = self.page(index_of(start), how)? {
            let from = (start & PAGE_MASK) as usize;
            let to = from.saturating_add((end - start) as usize).min(PAGE_SIZE);
            frame.with_bytes_mut(|b| b.get_mut(from..to).unwrap_or_default().fill(0));
            self.mark_dirty(&frame);
        }
        Ok(())
    }

    /// Removes pages `first..end` from every mapping; `private` also takes the private copies.
    fn unmap(&self, first: u64, end: u64, private: bool) {
        self.members.for_each(first, end, |space, area, from, to| space.zap_file(area, from, to, private));
    }

    /// Makes every mapping of the page read-only, so that the next store is noticed.
    pub(super) fn write_protect(&self, index: u64) {
        self.members.for_each(index, index.saturating_add(1), |space, area, from, to| {
            if area.shared() {
                space.write_protect_range(from, to);
            }
        });
    }

    fn remove_pages(&self, first: u64, end: u64) {
        let mut next = first;
        while let Some((index, frame)) = self.pages.next(next, u64::MAX) {
            if index >= end {
                break;
            }
            let held = lock::lock(&frame);
            if self.owns(&frame) {
                if frame.mapcount() > 0 {
                    // A fault that had looked before the size changed.
                    self.unmap(index, index.saturating_add(1), false);
                }
                self.forget(&frame, index);
            }
            drop(held);
            match index.checked_add(1) {
                Some(n) => next = n,
                None => break,
            }
        }
    }
}
