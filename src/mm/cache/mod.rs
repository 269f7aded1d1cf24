//! The page cache: the pages of one file, block device or shared-memory object.
//!
//! All ways to the data meet here: `read`, `write`, shared and private mappings, and (later) the
//! disk. The pages sit in an XArray by page index; the tree owns one reference to each. The size
//! of the object lives here too, because faults, reads and truncation must agree on it.
//!
//! Invariants:
//! 1. A frame in the tree has this cache's number in `mapping` and its place in `index`; both
//!    change only under the page lock or before the frame is known to anyone.
//! 2. A frame without UPTODATE is never read by anyone but its filler, who holds the page lock.
//! 3. Beyond the end, the last page is zero as far as this file's calls write it: truncation and
//!    extension clear it (stores through a mapping beyond the end may dirty it meanwhile, mmap(2)).
//! 4. The caller of `write_at`, `truncate` and `discard` is alone among them (the inode's lock).
//!
//! Shared memory (`kind` Shmem) is a cache without anything behind it: a hole reads as zeros and
//! pages stay until they are truncated away.

mod io;
pub(crate) mod lock;
mod truncate;

use abi::{Errno, PAGE_SHIFT, Result};
use collections::{InsertError, Tag, XArray};
use frames::{AllocFlags, Counter, Frame, FrameFlags, FrameRef, alloc_frame};
use kalloc::{AllocError, KArc, KWeak};
use sync::atomic::{AtomicU64, Ordering};

use crate::{locks, lru, rmap::{Members, OwnerId}};

/// What is behind a cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheKind {
    /// Memory only.
    Shmem,
    /// A file of a file system.
    File,
    /// A block device.
    Block,
}

/// Where the pages of a cache come from and go to: implemented by file systems.
pub trait PageSource: Send + Sync {
    /// What this is.
    fn kind(&self) -> CacheKind;
    /// Fills the frame with page `index` (all of it; zeros beyond the end). May sleep.
    fn read_page(&self, index: u64, frame: &FrameRef) -> Result;
    /// Writes page `index` back. May sleep.
    fn write_page(&self, index: u64, frame: &FrameRef) -> Result {
        let _ = (index, frame);
        Err(Errno::EIO)
    }
    /// `pages` more (or, negative, fewer) pages are in memory: ENOSPC when the file system's limit
    /// is reached. Fewer never fails.
    fn charge(&self, pages: i64) -> Result {
        let _ = pages;
        Ok(())
    }
}

/// How [`PageCache::page`] treats a page that is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Get {
    /// `None`.
    Lookup,
    /// A page is made without reading: zeros.
    Create,
    /// It is read from the source; shared memory gets a page of zeros.
    Read,
}

/// Tag of pages that must be written back.
pub(crate) const TAG_DIRTY: Tag = Tag::Zero;
/// Tag of pages that are being written back.
pub(crate) const TAG_WRITEBACK: Tag = Tag::One;

/// The pages of one object. See the head of this file.
pub struct PageCache {
    id: OwnerId,
    serial: u64,
    pages: XArray<FrameRef>,
    size: AtomicU64,
    kind: CacheKind,
    source: Option<KArc<dyn PageSource>>,
    members: Members,
    resident: AtomicU64,
}

impl PageCache {
    /// An empty cache over `source`; `None` is shared memory without a limit.
    pub fn new(source: Option<KArc<dyn PageSource>>) -> Result<KArc<Self>> {
        let kind = source.as_ref().map_or(CacheKind::Shmem, |s| s.kind());
        let cache = KArc::try_new_cyclic_fallible(|me: &KWeak<Self>| {
            Ok::<_, AllocError>(Self {
                id: OwnerId::cache(me)?,
                serial: crate::types::next_serial(),
                pages: XArray::new(&locks::CACHE_TREE),
                size: AtomicU64::new(0),
                kind,
                source,
                members: Members::new(),
                resident: AtomicU64::new(0),
            })
        })?;
        Ok(cache)
    }

    /// A number that no other cache or address space ever has.
    pub fn serial(&self) -> u64 {
        self.serial
    }
    /// What is behind it.
    pub fn kind(&self) -> CacheKind {
        self.kind
    }
    /// Bytes in the object.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
    /// Sets the size without touching pages: for a file system that has just read it.
    /// To shrink or grow an object in use, see [`truncate`](Self::truncate).
    pub fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }
    /// Pages in memory.
    pub fn resident_pages(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }
    /// Whether anything maps it.
    pub fn is_mapped(&self) -> bool {
        !self.members.is_empty()
    }
    /// Pages that the object has, the last one perhaps partly.
    pub(crate) fn page_count(&self) -> u64 {
        self.size().div_ceil(crate::rmap::PAGE)
    }
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }
    /// Whether a hole is simply zeros (nothing behind it to be read).
    pub(crate) fn is_memory(&self) -> bool {
        self.kind == CacheKind::Shmem
    }

    /// The page at `index`, which need not lie below the end (callers know). With `Lookup`, only
    /// a page that is up to date. Fails with ENOMEM, ENOSPC or the source's error. May sleep.
    pub fn page(&self, index: u64, how: Get) -> Result<Option<FrameRef>> {
        loop {
            if let Some(frame) = self.lookup(index) {
                if frame.test(FrameFlags::UPTODATE) {
                    return Ok(Some(frame));
                }
                if how == Get::Lookup {
                    return Ok(None);
                }
                let held = lock::lock(&frame);
                if !self.owns(&frame) {
                    // Truncated away while we slept.
                    drop(held);
                    continue;
                }
                if !frame.test(FrameFlags::UPTODATE) {
                    self.fill(&frame, index, how)?;
                }
                drop(held);
                return Ok(Some(frame));
            }
            if how == Get::Lookup {
                return Ok(None);
            }
            if let Some(frame) = self.make(index, how)? {
                return Ok(Some(frame));
            }
        }
    }

    /// The frame at `index` in whatever state it is.
    pub(crate) fn lookup(&self, index: u64) -> Option<FrameRef> {
        self.pages.get(index)
    }

    /// The frame at `index` if it is up to date.
    pub(crate) fn lookup_ready(&self, index: u64) -> Option<FrameRef> {
        self.lookup(index).filter(|f| f.test(FrameFlags::UPTODATE))
    }

    /// Whether the frame is (still) a page of this cache. Stable under the page lock.
    pub(crate) fn owns(&self, frame: &Frame) -> bool {
        frame.mapping() == self.id.tag()
    }

    /// Makes the page; `None` when someone else was faster.
    fn make(&self, index: u64, how: Get) -> Result<Option<FrameRef>> {
        let zeros = self.is_memory() || how == Get::Create;
        let frame = alloc_frame(if zeros { AllocFlags::MOVABLE | AllocFlags::ZERO } else { AllocFlags::MOVABLE })?;
        if zeros {
            frame.set(FrameFlags::UPTODATE);
            return if self.insert(index, frame.clone())? { Ok(Some(frame)) } else { Ok(None) };
        }
        let held = lock::lock(&frame);
        if !self.insert(index, frame.clone())? {
            return Ok(None);
        }
        let filled = self.fill(&frame, index, how);
        drop(held);
        filled?;
        Ok(Some(frame))
    }

    /// Reads the page from its source. The page lock is held.
    fn fill(&self, frame: &FrameRef, index: u64, how: Get) -> Result {
        match &self.source {
            Some(source) if how == Get::Read && !self.is_memory() => source.read_page(index, frame)?,
            _ => frame.zero(),
        }
        frame.set(FrameFlags::UPTODATE);
        Ok(())
    }

    /// Puts a frame that nobody knows into the tree. False (and no change) when the place is taken.
    pub(crate) fn insert(&self, index: u64, frame: FrameRef) -> Result<bool> {
        if let Some(source) = &self.source {
            source.charge(1)?;
        }
        let uncharge = || {
            if let Some(source) = &self.source {
                let _ = source.charge(-1);
            }
        };
        frame.set_index(index);
        frame.set_mapping(self.id.tag());
        if self.is_memory() {
            frame.set(FrameFlags::SWAPBACKED);
        }
        let page = FrameRef::frame(&frame);
        match self.pages.insert(index, frame) {
            Ok(()) => {
                self.count(1);
                lru::add(page, if self.is_memory() { lru::Which::Anon } else { lru::Which::File });
                Ok(true)
            }
            Err(InsertError::Exists(frame)) => {
                frame.set_mapping(0);
                uncharge();
                Ok(false)
            }
            Err(InsertError::NoMemory(_)) => {
                uncharge();
                Err(Errno::ENOMEM)
            }
        }
    }

    /// Takes a page out of the tree. The page lock is held and nothing maps it.
    fn forget(&self, frame: &FrameRef, index: u64) {
        let removed = self.pages.remove(index);
        frame.set_mapping(0);
        frame.clear(FrameFlags::DIRTY);
        lru::remove(FrameRef::frame(frame));
        if removed.is_some() {
            self.count(-1);
            if let Some(source) = &self.source {
                let _ = source.charge(-1);
            }
        }
    }

    fn count(&self, pages: i64) {
        self.resident.fetch_add(pages as u64, Ordering::Relaxed);
        frames::count(if self.is_memory() { Counter::Shmem } else { Counter::FilePages }, pages);
    }

    /// The page was stored to: through a mapping, or by `write_at`.
    pub(crate) fn mark_dirty(&self, frame: &Frame) {
        if frame.test(FrameFlags::DIRTY) {
            return;
        }
        frame.set(FrameFlags::DIRTY);
        if !self.is_memory() {
            self.pages.set_tag(frame.index(), TAG_DIRTY);
        }
    }

    /// Writes all dirty pages back (`fsync(2)`). The first error is returned, the rest is still
    /// tried. May sleep.
    pub fn write_back(&self) -> Result {
        if self.is_memory() {
            return Ok(());
        }
        let Some(source) = &self.source else { return Ok(()) };
        let mut outcome = Ok(());
        let mut next = 0;
        while let Some((index, frame)) = self.pages.next_tagged(next, u64::MAX, TAG_DIRTY) {
            next = index.saturating_add(1);
            let held = lock::lock(&frame);
            if self.owns(&frame) && frame.test(FrameFlags::DIRTY) {
                self.pages.clear_tag(index, TAG_DIRTY);
                self.pages.set_tag(index, TAG_WRITEBACK);
                frame.clear(FrameFlags::DIRTY);
                // Stores from here on must fault again, or they would be lost to the disk.
                self.write_protect(index);
                let written = source.write_page(index, &frame);
                self.pages.clear_tag(index, TAG_WRITEBACK);
                if written.is_err() {
                    self.mark_dirty(&frame);
                    outcome = outcome.and(written);
                }
            }
            drop(held);
            if next == 0 {
                break;
            }
        }
        outcome
    }
}

impl Drop for PageCache {
    fn drop(&mut self) {
        let mut next = 0;
        while let Some((index, frame)) = self.pages.next(next, u64::MAX) {
            self.forget(&frame, index);
            match index.checked_add(1) {
                Some(n) => next = n,
                None => break,
            }
        }
    }
}

/// The page index of a byte position.
pub(crate) fn index_of(pos: u64) -> u64 {
    pos >> PAGE_SHIFT
}
