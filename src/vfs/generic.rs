//! Regular files whose data is in the page cache: read, write, map, seek.
//!
//! A write holds the inode's lock from the look at the size (O_APPEND) to the last byte, so
//! appends never overlap; a read holds nothing and sees each page whole or not.

use crate::{
    FileOps, OpenFile, PollEvents, PollTable, SetAttr, Time,
    attr::bits_after_write,
    file::{Emit, generic_seek},
    path::d_path,
    splice::{self, Pages},
};
use abi::{DevNum, Errno, Result, raw::general as g};
use core::{any::Any, fmt};
use kalloc::{KArc, karc_dyn};
use sync::atomic::{AtomicBool, Ordering::Relaxed};
use mm::{
    MapFlags, MappedFile, PageCache, Prot,
    io::{IoSink, IoSource},
};

/// The operations of a regular file with a page cache. File systems without more to do return
/// this from their `open`.
pub struct CachedFile;

fn cache(f: &OpenFile) -> Result<&KArc<PageCache>> {
    f.inode.cache.as_ref().ok_or(Errno::EINVAL)
}

/// Reads from the page cache at `pos`.
pub fn read(f: &OpenFile, dst: &mut IoSink<'_>, pos: &mut u64) -> Result<usize> {
    let n = cache(f)?.read_at(*pos, dst)?;
    *pos = pos.saturating_add(n as u64);
    f.accessed();
    Ok(n)
}

/// Writes to the page cache at `pos`, or at the end with O_APPEND. EFBIG beyond the file system's
/// largest size; short where it is reached on the way.
pub fn write(f: &OpenFile, src: &mut IoSource<'_>, pos: &mut u64) -> Result<usize> {
    write_to(f, src, pos, f.flags() & g::O_APPEND != 0)
}

/// Writes to the page cache at the end.
pub fn append(f: &OpenFile, src: &mut IoSource<'_>, pos: &mut u64) -> Result<usize> {
    write_to(f, src, pos, true)
}

fn write_to(f: &OpenFile, src: &mut IoSource<'_>, pos: &mut u64, append: bool) -> Result<usize> {
    let cache = cache(f)?;
    if src.remaining() == 0 {
        return Ok(0);
    }
    let inode = &f.inode;
    let _lock = inode.lock.write();
    let at = if append { cache.size() } else { *pos };
    let room = inode.seals.writable(at, src.remaining(), cache.size())?;
    src.truncate(room);
    if let Some(bits) = bits_after_write(inode, &f.cred) {
        inode.ops.setattr(inode, &SetAttr { mode: Some(bits), ctime: Some(Time::now()), ..SetAttr::default() })?;
    }
    let n = cache.write_at(at, src, inode.sb.max_bytes)?;
    inode.touch_modified();
    *pos = at.saturating_add(n as u64);
    Ok(n)
}

impl FileOps for CachedFile {
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, pos: &mut u64) -> Result<usize> {
        read(f, dst, pos)
    }
    fn write(&self, f: &OpenFile, src: &mut IoSource<'_>, pos: &mut u64) -> Result<usize> {
        write(f, src, pos)
    }
    fn append(&self, f: &OpenFile, src: &mut IoSource<'_>, pos: &mut u64) -> Result<usize> {
        append(f, src, pos)
    }
    fn splice_read(&self, f: &OpenFile, pos: &mut u64, len: usize, pages: &mut Pages) -> Result<usize> {
        splice::read_cached(f, pos, len, pages)
    }
    fn can_splice_write(&self) -> bool {
        true
    }
    fn seek(&self, f: &OpenFile, pos: u64, offset: i64, whence: u32) -> Result<u64> {
        generic_seek(f, pos, offset, whence, f.inode.size())
    }
    fn readdir(&self, _f: &OpenFile, _pos: &mut u64, _emit: &mut Emit<'_>) -> Result {
        Err(Errno::ENOTDIR)
    }
    fn poll(&self, _f: &OpenFile, _table: &mut PollTable<'_>) -> PollEvents {
        PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM
    }
    fn mmap(&self, f: &KArc<OpenFile>) -> Result<KArc<dyn MappedFile>> {
        mapping(f)
    }
    fn fsync(&self, f: &OpenFile, _data_only: bool) -> Result {
        cache(f)?.write_back()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An open file as something to map. EACCES unless it is open for reading.
pub fn mapping(f: &KArc<OpenFile>) -> Result<KArc<dyn MappedFile>> {
    let cache = cache(f)?.clone();
    f.accessed();
    Ok(karc_dyn!(FileMapping { file: f.clone(), cache, counted: AtomicBool::new(false) } => dyn MappedFile)?)
}

/// A mapping of a regular file; keeps the file open.
struct FileMapping {
    file: KArc<OpenFile>,
    cache: KArc<PageCache>,
    /// Counted as one through which the file can be written, since `may_map` said yes to that.
    counted: AtomicBool,
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        if *self.counted.get_mut() {
            self.file.inode.seals.uncount_mapping();
        }
    }
}

impl FileMapping {
    fn no_exec(&self) -> bool {
        self.file.path.mount.flags() & g::MS_NOEXEC != 0
    }
}

impl MappedFile for FileMapping {
    fn cache(&self) -> &KArc<PageCache> {
        &self.cache
    }
    fn may_map(&self, prot: Prot, shared: bool) -> Result {
        // The order of mmap(2)'s checks: EACCES for the access mode, then EPERM for noexec.
        if shared && prot.contains(Prot::W) && !self.file.may_write() || !self.file.may_read() {
            return Err(Errno::EACCES);
        }
        if prot.contains(Prot::X) && self.no_exec() {
            return Err(Errno::EPERM);
        }
        let seals = &self.file.inode.seals;
        if shared && self.file.may_write() && !self.counted.load(Relaxed) {
            match seals.count_mapping() {
                Ok(()) => self.counted.store(true, Relaxed),
                Err(e) if prot.contains(Prot::W) => return Err(e),
                // Only to be read, now and later.
                Err(_) => {}
            }
        }
        Ok(())
    }
    fn forced_flags(&self, shared: bool) -> MapFlags {
        let mut flags = MapFlags::empty();
        flags.set(MapFlags::NO_WRITE, shared && !self.counted.load(Relaxed));
        flags.set(MapFlags::NO_EXEC, self.no_exec());
        flags
    }
    fn describe(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        describe(&self.file, out)
    }
    fn open_file(&self) -> usize {
        KArc::as_ptr(&self.file).addr()
    }
    fn identity(&self) -> (DevNum, u64) {
        (self.file.inode.sb.dev, self.file.inode.ino)
    }
    fn accessed(&self) {
        self.file.accessed();
    }
    fn page_written(&self, _index: u64) -> Result {
        self.file.inode.touch_modified();
        Ok(())
    }
}

/// Writes the path of an open file, as /proc/PID/maps shows it.
pub fn describe(f: &OpenFile, out: &mut dyn fmt::Write) -> fmt::Result {
    let root = f.path.mount.namespace().and_then(|ns| ns.root_path()).unwrap_or_else(|| f.path.clone());
    let text = d_path(&f.path, &root).and_then(|p| p.decorated()).map_err(|_| fmt::Error)?;
    for chunk in text.utf8_chunks() {
        out.write_str(chunk.valid())?;
        if !chunk.invalid().is_empty() {
            out.write_char('\u{fffd}')?;
        }
    }
    Ok(())
}
