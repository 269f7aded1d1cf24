//! `read` and `write` on a page cache.
//!
//! Cost: per page one tree lookup, one reference taken and dropped, and the copy; no page lock on
//! pages that are up to date. User memory may fault at any byte of a copy, so no lock is held
//! across one; the reference keeps the page, the inode's lock keeps truncation out of a write.

use abi::{Errno, PAGE_SIZE, Result};
use frames::{AllocFlags, FrameFlags, FrameRef, alloc_frame};
use sync::atomic::Ordering;

use super::{Get, PageCache, index_of};
use crate::io::{IoSink, IoSource, within_page};

/// What a transfer that stopped with `e` returns when `moved` bytes went over before.
fn partial(moved: usize, e: Errno) -> Result<usize> {
    if moved == 0 { Err(e) } else { Ok(moved) }
}

impl PageCache {
    /// Reads from `pos` until the sink is full or the object ends. A fault or an error in the
    /// middle returns what went over before. May sleep.
    pub fn read_at(&self, pos: u64, sink: &mut IoSink<'_>) -> Result<usize> {
        let how = if self.is_memory() { Get::Lookup } else { Get::Read };
        let mut moved = 0usize;
        loop {
            let at = pos.saturating_add(moved as u64);
            let left = self.size().saturating_sub(at);
            let want = sink.remaining().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (offset, len) = within_page(at, want);
            if len == 0 {
                return Ok(moved);
            }
            let went = match self.page(index_of(at), how) {
                Ok(Some(frame)) => {
                    let went = frame.with_bytes(|b| sink.write(b.get(offset..offset + len).unwrap_or_default()));
                    if !frame.test(FrameFlags::REFERENCED) {
                        frame.set(FrameFlags::REFERENCED);
                    }
                    went
                }
                Ok(None) => sink.write_zeros(len),
                Err(e) => Err(e),
            };
            match went {
                Ok(n) => {
                    moved += n;
                    if n < len {
                        return Ok(moved);
                    }
                }
                Err(e) => return partial(moved, e),
            }
        }
    }

    /// Writes the source's bytes at `pos`, growing the object as needed, never beyond `limit`
    /// bytes (EFBIG when nothing fits below it). The caller holds the inode's lock and has checked
    /// RLIMIT_FSIZE. A fault or an error in the middle returns what went over before. May sleep.
    pub fn write_at(&self, pos: u64, src: &mut IoSource<'_>, limit: u64) -> Result<usize> {
        if src.remaining() == 0 {
            return Ok(0);
        }
        if pos >= limit {
            return Err(Errno::EFBIG);
        }
        let old_size = self.size();
        if pos > old_size {
            self.zero_tail(old_size);
        }
        let mut moved = 0usize;
        loop {
            let at = pos.saturating_add(moved as u64);
            let room = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
            let (offset, len) = within_page(at, src.remaining().min(room));
            if len == 0 {
                return Ok(moved);
            }
            match self.write_page_part(at, offset, len, src) {
                Ok(n) => {
                    moved += n;
                    let end = at.saturating_add(n as u64);
                    if end > self.size() {
                        self.size.store(end, Ordering::Release);
                    }
                    if n < len {
                        return Ok(moved);
                    }
                }
                Err(e) => return partial(moved, e),
            }
        }
    }

    /// Copies up to `len` bytes to `offset` of the page at file position `at`.
    fn write_page_part(&self, at: u64, offset: usize, len: usize, src: &mut IoSource<'_>) -> Result<usize> {
        let index = index_of(at);
        loop {
            let present = match self.page(index, Get::Lookup)? {
                // Part of a page that only the source knows: read it first.
                None if self.must_read(at, offset, len) => self.page(index, Get::Read)?,
                other => other,
            };
            if let Some(frame) = present {
                let n = frame.with_bytes_mut(|b| src.read(b.get_mut(offset..offset + len).unwrap_or_default()))?;
                self.stored(&frame);
                return Ok(n);
            }
            // A page that did not exist: filled in private, known to others only when complete.
            let whole = len == PAGE_SIZE;
            let frame = alloc_frame(if whole { AllocFlags::MOVABLE } else { AllocFlags::MOVABLE | AllocFlags::ZERO })?;
            let n = frame.with_bytes_mut(|b| {
                let n = src.read(b.get_mut(offset..offset + len).unwrap_or_default())?;
                if whole {
                    b.get_mut(offset + n..).unwrap_or_default().fill(0);
                }
                Ok::<_, Errno>(n)
            })?;
            frame.set(FrameFlags::UPTODATE | FrameFlags::REFERENCED);
            match self.insert(index, frame.clone()) {
                Ok(true) => {
                    self.stored(&frame);
                    return Ok(n);
                }
                // A fault made the page meanwhile: once more, into that one (or into one that
                // could not be read before and that this write replaces).
                Ok(false) => {
                    src.revert(n);
                    self.page(index, Get::Create)?;
                }
                Err(e) => {
                    src.revert(n);
                    return Err(e);
                }
            }
        }
    }

    /// Whether a write of part of this page needs the rest of it from the source.
    fn must_read(&self, at: u64, offset: usize, len: usize) -> bool {
        let page_start = at - offset as u64;
        !self.is_memory() && len < PAGE_SIZE && page_start < self.size()
    }

    /// A call stored to the page.
    fn stored(&self, frame: &FrameRef) {
        // New bytes may be instructions: whoever maps it executable next syncs the caches.
        if frame.test(FrameFlags::ICACHE_CLEAN) {
            frame.clear(FrameFlags::ICACHE_CLEAN);
        }
        self.mark_dirty(frame);
    }
}
