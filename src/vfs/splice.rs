//! Moving bytes between files by the page (`splice(2)`, `sendfile(2)`, `copy_file_range(2)`).
//!
//! A file that can be read so hands out [`PageRange`]s: references to frames with a range of bytes.
//! A file with a page cache hands out the cache's own frames, so what is on its way shows later
//! stores to the file (splice(2), NOTES); others are read into frames of their own. A file that can
//! be written so takes the bytes by its ordinary write: one copy, as everywhere.
//!
//! Pipes hold such ranges; what moves between pipes and files is in the room that has pipes.

use crate::{OpenFile, notify};
use abi::{Errno, PAGE_SIZE, Result};
use frames::{AllocFlags, FrameRef, alloc_frame};
use kalloc::KVec;
use mm::{
    Get,
    io::{IoSink, IoSource, within_page},
};

/// Bytes of one frame.
#[derive(Clone)]
pub struct PageRange {
    /// The frame.
    pub page: FrameRef,
    /// The first of its bytes.
    pub start: usize,
    /// How many.
    pub len: usize,
    /// Nobody else has the frame: it may be written to and used again.
    pub own: bool,
}

impl PageRange {
    /// Calls `f` with the bytes.
    pub fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        let range = self.start..self.start.saturating_add(self.len);
        self.page.with_bytes(|b| f(b.get(range).unwrap_or(&[])))
    }
}

/// What a file handed out: at most so many ranges.
pub struct Pages {
    list: KVec<PageRange>,
    most: usize,
}

impl Pages {
    /// Room for `most` ranges. ENOMEM.
    pub fn new(most: usize) -> Result<Self> {
        Ok(Self { list: KVec::try_with_capacity(most)?, most })
    }
    /// Whether no more fit.
    pub fn is_full(&self) -> bool {
        self.list.len() >= self.most
    }
    /// Adds a range. ENOMEM.
    pub fn push(&mut self, range: PageRange) -> Result {
        Ok(self.list.try_push(range)?)
    }
    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = &PageRange> {
        self.list.iter()
    }
    /// Lets all of them go.
    pub fn clear(&mut self) {
        self.list.clear();
    }
    /// Takes all of them out.
    pub fn drain(&mut self) -> impl Iterator<Item = PageRange> + '_ {
        self.list.drain(..)
    }
}

/// Hands out the page cache's frames, holes as the page of zeros.
pub fn read_cached(f: &OpenFile, pos: &mut u64, len: usize, pages: &mut Pages) -> Result<usize> {
    let cache = f.inode.cache.as_ref().ok_or(Errno::EINVAL)?;
    let how = if cache.kind() == mm::CacheKind::Shmem { Get::Lookup } else { Get::Read };
    let mut done = 0;
    while done < len && !pages.is_full() {
        let left = cache.size().saturating_sub(*pos);
        let want = (len - done).min(usize::try_from(left).unwrap_or(usize::MAX));
        let (start, n) = within_page(*pos, want);
        if n == 0 {
            break;
        }
        let page = match cache.page(*pos / PAGE_SIZE as u64, how) {
            Ok(Some(page)) => page,
            Ok(None) => mm::zero_page()?,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        };
        pages.push(PageRange { page, start, len: n, own: false })?;
        *pos = pos.saturating_add(n as u64);
        done += n;
    }
    f.accessed();
    Ok(done)
}

/// Reads into frames of their own: all that is asked for where the file has a position; otherwise
/// what one read gives, which alone may wait.
pub fn read_copied(f: &OpenFile, pos: &mut u64, len: usize, pages: &mut Pages) -> Result<usize> {
    let mut done = 0;
    while done < len && !pages.is_full() {
        let want = (len - done).min(PAGE_SIZE);
        let page = alloc_frame(AllocFlags::empty())?;
        let got = page.with_bytes_mut(|b| f.ops.read(f, &mut IoSink::kernel(b.get_mut(..want).unwrap_or_default()), pos));
        match got {
            Ok(0) => break,
            Ok(n) => {
                pages.push(PageRange { page, start: 0, len: n, own: true })?;
                done += n;
                if n < want || !f.ops.can_seek() {
                    break;
                }
            }
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Whether a transfer of `len` bytes at `pos` stays below the largest position. EINVAL.
pub fn check_area(pos: i64, len: usize) -> Result<u64> {
    let n = i64::try_from(len).map_err(|_| Errno::EINVAL)?;
    if pos < 0 || pos.checked_add(n).is_none() { Err(Errno::EINVAL) } else { Ok(pos as u64) }
}

/// Whether the current thread has a signal to look at.
pub fn interrupted() -> bool {
    sched::current().head().test_flag(arch::thread::SIGNAL_PENDING)
}

/// Ranges that are on their way at a time.
const BATCH: usize = 16;

/// Moves up to `len` bytes from `from` to `to` without a pipe; both positions are advanced by what
/// went. `limit` is RLIMIT_FSIZE. EINVAL: one of the files cannot do it. An error or a signal behind
/// the first byte ends the transfer there.
pub fn direct(input: &OpenFile, from: &mut u64, output: &OpenFile, to: &mut u64, len: usize, limit: u64) -> Result<usize> {
    if !output.ops.can_splice_write() {
        return Err(Errno::EINVAL);
    }
    let mut pages = Pages::new(BATCH)?;
    let mut done = 0;
    while done < len {
        if interrupted() {
            return if done > 0 { Ok(done) } else { Err(Errno::ERESTARTSYS) };
        }
        let mut at = *from;
        let want = (len - done).min(BATCH * PAGE_SIZE);
        let got = match input.ops.splice_read(input, &mut at, want, &mut pages) {
            Ok(0) => break,
            Ok(n) => n,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        };
        let mut went = 0;
        let mut failed = None;
        for range in pages.iter() {
            match range.with_bytes(|b| output.write_from(&mut IoSource::kernel(b), to, limit)) {
                Ok(n) => {
                    went += n;
                    if n < range.len {
                        break;
                    }
                }
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        pages.clear();
        done += went;
        *from = from.saturating_add(went as u64);
        match failed {
            Some(e) if done == 0 => return Err(e),
            _ if went < got => break,
            _ => {}
        }
    }
    Ok(done)
}

/// `copy_file_range(2)` on regular files. EISDIR, EINVAL, EBADF, EXDEV, EPERM, EOVERFLOW, EFBIG, in this
/// order; `limit` is RLIMIT_FSIZE. The positions are advanced.
pub fn copy_range(input: &OpenFile, from: &mut i64, output: &OpenFile, to: &mut i64, len: usize, limit: u64) -> Result<usize> {
    use abi::raw::general as g;
    let (a, b) = (&input.inode, &output.inode);
    if a.is_dir() || b.is_dir() {
        return Err(Errno::EISDIR);
    }
    if !a.mode().is_file() || !b.mode().is_file() {
        return Err(Errno::EINVAL);
    }
    if !input.may_read() || !output.may_write() || output.flags() & g::O_APPEND != 0 {
        return Err(Errno::EBADF);
    }
    if !kalloc::KArc::ptr_eq(&a.sb, &b.sb) {
        return Err(Errno::EXDEV);
    }
    if b.has_flag(crate::I_IMMUTABLE) {
        return Err(Errno::EPERM);
    }
    let wraps = |pos: i64| (pos as u64).checked_add(len as u64).is_none();
    if wraps(*from) || wraps(*to) {
        return Err(Errno::EOVERFLOW);
    }
    let left = i64::try_from(a.size()).unwrap_or(i64::MAX).saturating_sub(*from).max(0);
    let mut len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
    if limit != u64::MAX {
        let room = limit.checked_sub((*to).max(0) as u64).filter(|&r| r > 0).ok_or(Errno::EFBIG)?;
        len = len.min(usize::try_from(room).unwrap_or(usize::MAX));
    }
    if *to >= 0 && *to as u64 >= b.sb.max_bytes {
        return Err(Errno::EFBIG);
    }
    let end = |pos: i64| pos.saturating_add(len as i64);
    if kalloc::KArc::ptr_eq(a, b) && end(*to) > *from && *to < end(*from) {
        return Err(Errno::EINVAL);
    }
    let (mut at, mut dest) = (check_area(*from, len)?, check_area(*to, len)?);
    if len == 0 {
        return Ok(0);
    }
    let n = direct(input, &mut at, output, &mut dest, len, limit)?;
    notify::on_file(input, g::IN_ACCESS);
    (*from, *to) = (at as i64, dest as i64);
    Ok(n)
}
