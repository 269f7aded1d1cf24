//! An open file: what a descriptor stands for (`open(2)`, "open file description").
//!
//! The position has a sleeping lock that is held over a read or write of a file that can seek, so
//! that two threads that share the file never get the same bytes; files that cannot seek (pipes,
//! terminals) have no position and take no lock. Who only shows the position takes none either: the
//! file may be the one through which it is shown (/proc/self/fdinfo).
//!
//! Errors and signals: a write that returns EPIPE or EFBIG is what the process layer turns into
//! SIGPIPE or SIGXFSZ; nothing here sends signals.

use crate::{
    splice::Pages,
    Credentials, Dentry, Inode, Mount, MountRef, Path, PollEvents, PollTable, class, notify,
    inode::I_PRIVATE,
};
use abi::{Errno, Result, raw::general as g};
use core::any::Any;
use kalloc::{KArc, KBox};
use mm::{
    MappedFile,
    io::{IoSink, IoSource},
};
use sched::Mutex;
use sync::{
    Once, SpinLock,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// The flags that `fcntl(F_SETFL)` may change.
pub const SETFL_FLAGS: u32 = g::O_APPEND | g::O_NONBLOCK | g::FASYNC | g::O_DIRECT | g::O_NOATIME;
/// Flags of `open(2)` that act once and are not remembered.
const ONCE_FLAGS: u32 = g::O_CREAT | g::O_EXCL | g::O_NOCTTY | g::O_TRUNC | g::O_CLOEXEC;

/// What a directory entry tells: name, inode number, DT_* type, and the position behind it.
/// Returns false when there is no room for it: it will be asked for again.
pub type Emit<'a> = dyn FnMut(&[u8], u64, u8, u64) -> bool + 'a;

/// What an open file does. Every default is what Linux does where the operation is missing.
///
/// Context: may sleep. `pos` is where to read or write; the callee advances it.
#[allow(unused_variables)]
pub trait FileOps: Send + Sync {
    /// Reads. 0 at the end.
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, pos: &mut u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Writes. `f.limit()` is RLIMIT_FSIZE.
    fn write(&self, f: &OpenFile, src: &mut IoSource<'_>, pos: &mut u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Writes at the end, wherever `pos` is (`pwritev2(2)`, RWF_APPEND).
    fn append(&self, f: &OpenFile, src: &mut IoSource<'_>, pos: &mut u64) -> Result<usize> {
        self.write(f, src, pos)
    }
    /// Hands out up to `len` bytes at `pos` by the page (`splice(2)`): see [`crate::splice`].
    fn splice_read(&self, f: &OpenFile, pos: &mut u64, len: usize, pages: &mut Pages) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Whether `splice(2)` may write to the file.
    fn can_splice_write(&self) -> bool {
        false
    }
    /// Whether the file has a position. False: lseek, pread and pwrite give ESPIPE.
    fn can_seek(&self) -> bool {
        true
    }
    /// Whether `lseek(2)` leaves such a file where it is instead of giving ESPIPE.
    fn ignores_seek(&self) -> bool {
        false
    }
    /// Where `lseek(2)` leads. `pos` is the current position.
    fn seek(&self, f: &OpenFile, pos: u64, offset: i64, whence: u32) -> Result<u64> {
        generic_seek(f, pos, offset, whence, f.inode.size())
    }
    /// Lists a directory from `pos` on. `.` and `..` are the callee's to emit ([`emit_dots`]).
    fn readdir(&self, f: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> Result {
        Err(Errno::ENOTDIR)
    }
    /// Device control. FIONBIO and the like are done before.
    fn ioctl(&self, f: &OpenFile, cmd: u32, arg: u64) -> Result<u64> {
        Err(Errno::ENOTTY)
    }
    /// What can be done now without blocking; registers where a change will be announced.
    /// Must not wait for anything: many files are asked one after the other.
    fn poll(&self, f: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM
    }
    /// Whether `poll` means anything (epoll refuses files for which it does not: EPERM).
    fn can_poll(&self) -> bool {
        false
    }
    /// The file as something to map.
    fn mmap(&self, f: &KArc<OpenFile>) -> Result<KArc<dyn MappedFile>> {
        Err(Errno::ENODEV)
    }
    /// Writes out.
    fn fsync(&self, f: &OpenFile, data_only: bool) -> Result {
        Err(Errno::EINVAL)
    }
    /// Reserves or frees space.
    fn fallocate(&self, f: &OpenFile, mode: u32, offset: u64, len: u64) -> Result {
        Err(Errno::EOPNOTSUPP)
    }
    /// A descriptor is being closed; its error is close(2)'s.
    fn flush(&self, f: &OpenFile) -> Result {
        Ok(())
    }
    /// F_SETPIPE_SZ and other fcntl commands that only some files have.
    fn fcntl(&self, f: &OpenFile, cmd: u32, arg: u64) -> Result<u64> {
        Err(Errno::EINVAL)
    }
    /// The status flags are about to change (O_DIRECT, O_APPEND ...).
    fn check_flags(&self, f: &OpenFile, flags: u32) -> Result {
        Ok(())
    }
    /// Room for a line of /proc/PID/fdinfo.
    fn fdinfo(&self, f: &OpenFile, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        Ok(())
    }
    /// The last descriptor is gone. Drop of the object follows.
    fn release(&self, f: &OpenFile) {}
    /// The type behind the trait.
    fn as_any(&self) -> &dyn Any;
}

/// Who gets SIGIO (`fcntl(2)`, F_SETOWN).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Owner {
    /// F_OWNER_TID, F_OWNER_PID or F_OWNER_PGRP.
    pub kind: u32,
    /// Its id; 0 for nobody.
    pub id: u32,
    /// F_SETSIG.
    pub signal: u32,
}

/// An open file.
pub struct OpenFile {
    /// By which name it was opened.
    pub path: Path,
    /// The file.
    pub inode: KArc<Inode>,
    /// What it does.
    pub ops: KBox<dyn FileOps>,
    /// Who opened it.
    pub cred: KArc<Credentials>,
    flags: AtomicU32,
    /// Changed by who has the turn.
    pos: AtomicU64,
    turn: Mutex<()>,
    owner: SpinLock<Owner>,
    /// Counted in the inode as open, as writer.
    counted: bool,
    writer: bool,
    /// Bit 0: flock or OFD locks were taken; bit 1: record locks were.
    pub(crate) lock_marks: AtomicU32,
    /// Unique number: identity of the owner of flock and OFD locks.
    pub(crate) serial: u64,
    /// Who is told when the last descriptor is gone.
    pub(crate) watchers: crate::watch::Watchers,
}

static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Operations of a file that was opened with O_PATH: none.
struct PathOnly;
impl FileOps for PathOnly {
    fn can_seek(&self) -> bool {
        false
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl OpenFile {
    /// An open file of `path`. `flags` are open(2)'s; the inode's open count and, for a writer of
    /// a regular file, its writer count are taken here.
    pub(crate) fn new(path: Path, ops: KBox<dyn FileOps>, flags: u32, cred: &KArc<Credentials>, counts: Counts) -> Result<KArc<Self>> {
        let inode = path.inode()?.clone();
        Ok(KArc::try_new(Self {
            path,
            inode,
            ops,
            cred: cred.clone(),
            flags: AtomicU32::new(flags & !ONCE_FLAGS),
            pos: AtomicU64::new(0),
            turn: Mutex::new((), &class::POSITION),
            owner: SpinLock::new(Owner::default(), &class::FILE),
            counted: counts.take_open(),
            writer: counts.take_writer(),
            lock_marks: AtomicU32::new(0),
            serial: SERIAL.fetch_add(1, Relaxed),
            watchers: crate::watch::Watchers::new(),
        })?)
    }

    pub(crate) fn path_only(path: Path, flags: u32, cred: &KArc<Credentials>) -> Result<KArc<Self>> {
        let ops = kalloc::kbox_dyn!(PathOnly => dyn FileOps)?;
        Self::new(path, ops, flags, cred, Counts::none())
    }

    /// A file outside every tree (pipe, socket, eventfd) on an inode of its own. `name` is what
    /// /proc/PID/fd shows: "anon_inode:[eventfd]", "pipe:[17]".
    pub fn anonymous(name: &[u8], inode: KArc<Inode>, ops: KBox<dyn FileOps>, flags: u32, cred: &KArc<Credentials>) -> Result<KArc<Self>> {
        inode.set_flag(I_PRIVATE);
        let path = anonymous_path(name, inode)?;
        Self::new(path, ops, flags, cred, Counts::none())
    }

    /// A regular file that never had a name (`memfd_create(2)`): counted as open, so that its
    /// contents go with the last open file, but not as a writer, so that it can be executed. `name`
    /// is what /proc/PID/fd shows, with " (deleted)" behind it.
    pub fn unnamed(mount: MountRef, name: &[u8], inode: &KArc<Inode>, flags: u32, cred: &KArc<Credentials>) -> Result<KArc<Self>> {
        let dentry = Dentry::new_detached(name, inode.clone())?;
        dentry.set(crate::dentry::D_DELETED);
        let counts = Counts::take(inode, false)?;
        let ops = inode.ops.open(inode, flags, cred)?;
        Self::new(Path { mount, dentry }, ops, flags, cred, counts)
    }

    /// The number that no other open file has or will have.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Another open file on the same anonymous path: the second end of a pipe.
    pub fn another(&self, ops: KBox<dyn FileOps>, flags: u32) -> Result<KArc<Self>> {
        Self::new(self.path.clone(), ops, flags, &self.cred, Counts::none())
    }

    /// Status flags and access mode, as F_GETFL gives them.
    #[inline]
    pub fn flags(&self) -> u32 {
        self.flags.load(Relaxed)
    }
    /// Changes the status flags in SETFL_FLAGS (`fcntl(F_SETFL)`). EPERM, EINVAL.
    pub fn set_flags(&self, flags: u32, cred: &Credentials) -> Result {
        let old = self.flags();
        if self.inode.has_flag(crate::inode::I_APPEND) && flags & g::O_APPEND == 0 && old & g::O_APPEND != 0 {
            return Err(Errno::EPERM);
        }
        if flags & !old & g::O_NOATIME != 0 && !crate::permission::owner_or_capable(&self.inode, cred) {
            return Err(Errno::EPERM);
        }
        let new = old & !SETFL_FLAGS | flags & SETFL_FLAGS;
        self.ops.check_flags(self, new)?;
        self.flags.store(new, Relaxed);
        Ok(())
    }
    /// Sets or clears O_NONBLOCK (FIONBIO).
    pub fn set_nonblocking(&self, on: bool) {
        if on {
            self.flags.fetch_or(g::O_NONBLOCK, Relaxed);
        } else {
            self.flags.fetch_and(!g::O_NONBLOCK, Relaxed);
        }
    }
    /// Whether operations must not wait.
    #[inline]
    pub fn is_nonblocking(&self) -> bool {
        self.flags() & g::O_NONBLOCK != 0
    }
    /// Whether it was opened for reading.
    #[inline]
    pub fn may_read(&self) -> bool {
        let f = self.flags();
        f & g::O_PATH == 0 && matches!(f & g::O_ACCMODE, g::O_RDONLY | g::O_RDWR)
    }
    /// Whether it was opened for writing.
    #[inline]
    pub fn may_write(&self) -> bool {
        let f = self.flags();
        f & g::O_PATH == 0 && matches!(f & g::O_ACCMODE, g::O_WRONLY | g::O_RDWR)
    }
    /// Whether it only stands for a place (O_PATH): most calls give EBADF.
    #[inline]
    pub fn is_path_only(&self) -> bool {
        self.flags() & g::O_PATH != 0
    }

    /// `read(2)`.
    pub fn read(&self, dst: &mut IoSink<'_>) -> Result<usize> {
        if !self.may_read() {
            return Err(Errno::EBADF);
        }
        if !self.ops.can_seek() {
            return self.told(self.ops.read(self, dst, &mut 0), g::IN_ACCESS);
        }
        let _turn = self.turn.lock();
        let mut at = self.pos.load(Relaxed);
        let n = self.ops.read(self, dst, &mut at)?;
        self.pos.store(at, Relaxed);
        self.told(Ok(n), g::IN_ACCESS)
    }

    /// `write(2)`; `limit` is RLIMIT_FSIZE.
    pub fn write(&self, src: &mut IoSource<'_>, limit: u64) -> Result<usize> {
        if !self.may_write() {
            return Err(Errno::EBADF);
        }
        if !self.ops.can_seek() {
            return self.told(self.ops.write(self, src, &mut 0), g::IN_MODIFY);
        }
        let _turn = self.turn.lock();
        let mut at = self.pos.load(Relaxed);
        let n = self.write_limited(src, &mut at, limit)?;
        self.pos.store(at, Relaxed);
        Ok(n)
    }

    fn write_limited(&self, src: &mut IoSource<'_>, at: &mut u64, limit: u64) -> Result<usize> {
        if limit != u64::MAX && self.inode.mode().is_file() {
            let start = if self.flags() & g::O_APPEND != 0 { self.inode.size() } else { *at };
            if src.remaining() > 0 {
                let room = limit.checked_sub(start).filter(|&r| r > 0).ok_or(Errno::EFBIG)?;
                src.truncate(usize::try_from(room).unwrap_or(usize::MAX));
            }
        }
        self.told(self.ops.write(self, src, at), g::IN_MODIFY)
    }

    /// Tells who watches the file of a transfer.
    #[inline]
    fn told(&self, moved: Result<usize>, mask: u32) -> Result<usize> {
        if moved.is_ok_and(|n| n > 0) {
            notify::on_file(self, mask);
        }
        moved
    }

    /// `pread(2)`. ESPIPE where there is no position.
    pub fn read_at(&self, dst: &mut IoSink<'_>, pos: u64) -> Result<usize> {
        if !self.may_read() {
            return Err(Errno::EBADF);
        }
        if !self.ops.can_seek() {
            return Err(Errno::ESPIPE);
        }
        self.told(self.ops.read(self, dst, &mut { pos }), g::IN_ACCESS)
    }

    /// `pwrite(2)`.
    pub fn write_at(&self, src: &mut IoSource<'_>, pos: u64, limit: u64) -> Result<usize> {
        if !self.may_write() {
            return Err(Errno::EBADF);
        }
        if !self.ops.can_seek() {
            return Err(Errno::ESPIPE);
        }
        self.write_limited(src, &mut { pos }, limit)
    }

    /// Writes at `pos` and advances it, for a caller that has checked [`may_write`](Self::may_write).
    pub fn write_from(&self, src: &mut IoSource<'_>, pos: &mut u64, limit: u64) -> Result<usize> {
        self.write_limited(src, pos, limit)
    }

    /// `pwritev2(2)` with RWF_APPEND: at the end, whatever the position is; -1 (None) for the file's
    /// own position, which moves behind what was written.
    pub fn append(&self, src: &mut IoSource<'_>, pos: Option<u64>, limit: u64) -> Result<usize> {
        if !self.may_write() {
            return Err(Errno::EBADF);
        }
        if pos.is_some() && !self.ops.can_seek() {
            return Err(Errno::ESPIPE);
        }
        let _turn = (pos.is_none() && self.ops.can_seek()).then(|| self.turn.lock());
        if limit != u64::MAX && self.inode.mode().is_file() && src.remaining() > 0 {
            let room = limit.checked_sub(self.inode.size()).filter(|&r| r > 0).ok_or(Errno::EFBIG)?;
            src.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        }
        let mut at = pos.unwrap_or_else(|| self.pos.load(Relaxed));
        let n = self.ops.append(self, src, &mut at)?;
        if pos.is_none() && self.ops.can_seek() {
            self.pos.store(at, Relaxed);
        }
        self.told(Ok(n), g::IN_MODIFY)
    }

    /// `lseek(2)`.
    pub fn seek(&self, offset: i64, whence: u32) -> Result<u64> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        if whence > g::SEEK_MAX {
            return Err(Errno::EINVAL);
        }
        if !self.ops.can_seek() {
            return if self.ops.ignores_seek() { Ok(0) } else { Err(Errno::ESPIPE) };
        }
        let _turn = self.turn.lock();
        let new = self.ops.seek(self, self.pos.load(Relaxed), offset, whence)?;
        self.pos.store(new, Relaxed);
        Ok(new)
    }

    /// Moves the position without the lock, as calls do that move two files at once.
    pub fn set_position(&self, pos: u64) {
        self.pos.store(pos, Relaxed);
    }

    /// The position now; without the lock, since /proc/PID/fdinfo of a file may be read by a read.
    pub fn position(&self) -> u64 {
        self.pos.load(Relaxed)
    }

    /// Lists a directory from the file's position on (`getdents64(2)`).
    pub fn readdir(&self, emit: &mut Emit<'_>) -> Result {
        if !self.may_read() {
            return Err(Errno::EBADF);
        }
        if !self.inode.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let _turn = self.turn.lock();
        let mut pos = self.pos.load(Relaxed);
        {
            let _lock = self.inode.lock.read();
            if self.inode.has_flag(crate::inode::I_DEAD) {
                return Err(Errno::ENOENT);
            }
            let done = self.ops.readdir(self, &mut pos, emit);
            self.pos.store(pos, Relaxed);
            done?;
        }
        notify::on_file(self, g::IN_ACCESS);
        self.accessed();
        Ok(())
    }

    /// `poll(2)` on this file.
    pub fn poll(&self, table: &mut PollTable<'_>) -> PollEvents {
        if self.is_path_only() { PollEvents::NVAL } else { self.ops.poll(self, table) }
    }

    /// `ioctl(2)`, what the VFS knows for every file, then the file itself.
    pub fn ioctl(&self, cmd: u32, arg: u64) -> Result<u64> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        self.ops.ioctl(self, cmd, arg)
    }

    /// `fsync(2)`.
    pub fn fsync(&self, data_only: bool) -> Result {
        if self.is_path_only() { Err(Errno::EBADF) } else { self.ops.fsync(self, data_only) }
    }

    /// `fallocate(2)`.
    pub fn fallocate(&self, mode: u32, offset: u64, len: u64, limit: u64) -> Result {
        if offset > i64::MAX as u64 || len == 0 || len > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        const KNOWN: u32 = g::FALLOC_FL_KEEP_SIZE
            | g::FALLOC_FL_PUNCH_HOLE
            | g::FALLOC_FL_COLLAPSE_RANGE
            | g::FALLOC_FL_ZERO_RANGE
            | g::FALLOC_FL_INSERT_RANGE
            | g::FALLOC_FL_UNSHARE_RANGE;
        let has = |flag: u32| mode & flag != 0;
        let (keep, punch, zero) = (has(g::FALLOC_FL_KEEP_SIZE), has(g::FALLOC_FL_PUNCH_HOLE), has(g::FALLOC_FL_ZERO_RANGE));
        if mode & !KNOWN != 0 || punch && (zero || !keep) {
            return Err(Errno::EOPNOTSUPP);
        }
        // These go with nothing else.
        let alone = |flag: u32, beside: u32| has(flag) && mode & !(flag | beside) != 0;
        if alone(g::FALLOC_FL_COLLAPSE_RANGE, 0)
            || alone(g::FALLOC_FL_INSERT_RANGE, 0)
            || alone(g::FALLOC_FL_UNSHARE_RANGE, g::FALLOC_FL_KEEP_SIZE)
        {
            return Err(Errno::EINVAL);
        }
        if !self.may_write() {
            return Err(Errno::EBADF);
        }
        let m = self.inode.mode();
        if m.is_fifo() {
            return Err(Errno::ESPIPE);
        }
        if m.is_dir() {
            return Err(Errno::EISDIR);
        }
        if !m.is_file() {
            return Err(Errno::ENODEV);
        }
        let end = offset.checked_add(len).filter(|&e| e <= self.inode.sb.max_bytes).ok_or(Errno::EFBIG)?;
        if mode & (g::FALLOC_FL_KEEP_SIZE | g::FALLOC_FL_PUNCH_HOLE) == 0 && end > limit && end > self.inode.size() {
            return Err(Errno::EFBIG);
        }
        self.ops.fallocate(self, mode, offset, len)?;
        notify::on_file(self, g::IN_MODIFY);
        Ok(())
    }

    /// Notes a read in the access time, as mount and O_NOATIME allow.
    pub fn accessed(&self) {
        let flags = self.path.mount.flags();
        if self.flags() & g::O_NOATIME != 0
            || flags & g::MS_NOATIME != 0
            || flags & g::MS_NODIRATIME != 0 && self.inode.is_dir()
            || self.inode.has_flag(crate::inode::I_NOATIME)
            || self.path.mount.is_read_only()
        {
            return;
        }
        self.inode.touch_accessed(flags & g::MS_RELATIME == 0);
    }

    /// Who gets SIGIO.
    pub fn owner(&self) -> Owner {
        *self.owner.lock()
    }
    /// Changes who gets SIGIO.
    pub fn set_owner(&self, o: Owner) {
        *self.owner.lock() = o;
    }

    /// A descriptor of this file is closed by a process: `locker` is the table's identity for
    /// record locks, which go with any descriptor of the file (fcntl(2)).
    pub fn closing(&self, locker: u64) -> Result {
        if self.is_path_only() {
            return Ok(());
        }
        let result = self.ops.flush(self);
        crate::locks::closed(self, locker);
        result
    }

    /// The object behind `ops`, if it is a `T`.
    pub fn ops_as<T: Any>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.watchers.closed();
        if !self.is_path_only() {
            notify::on_file(self, if self.may_write() { g::IN_CLOSE_WRITE } else { g::IN_CLOSE_NOWRITE });
            self.ops.release(self);
        }
        crate::locks::released(self);
        if self.writer {
            self.inode.put_write_access();
        }
        if self.counted {
            self.inode.put_open();
        }
    }
}

/// The counts of an inode that an open in progress has taken: given back when it fails.
pub(crate) struct Counts {
    inode: Option<KArc<Inode>>,
    open: core::cell::Cell<bool>,
    writer: core::cell::Cell<bool>,
}

impl Counts {
    fn none() -> Self {
        Self { inode: None, open: false.into(), writer: false.into() }
    }
    /// Counts an open file, and a writer (ETXTBSY).
    pub(crate) fn take(inode: &KArc<Inode>, writer: bool) -> Result<Self> {
        inode.get_open()?;
        let c = Self { inode: Some(inode.clone()), open: true.into(), writer: false.into() };
        if writer {
            inode.get_write_access()?;
            c.writer.set(true);
        }
        Ok(c)
    }
    fn take_open(&self) -> bool {
        self.open.replace(false)
    }
    fn take_writer(&self) -> bool {
        self.writer.replace(false)
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        if let Some(i) = &self.inode {
            if self.take_writer() {
                i.put_write_access();
            }
            if self.take_open() {
                i.put_open();
            }
        }
    }
}

/// A path in no tree.
fn anonymous_path(name: &[u8], inode: KArc<Inode>) -> Result<Path> {
    static MOUNT: Once<MountRef> = Once::new();
    let mount = MOUNT.try_call_once(|| Mount::internal(&crate::anon::super_block()?))?.clone();
    Ok(Path { mount, dentry: Dentry::new_detached(name, inode)? })
}

/// `lseek(2)` for a file of `size` bytes without holes.
pub fn generic_seek(f: &OpenFile, pos: u64, offset: i64, whence: u32, size: u64) -> Result<u64> {
    let max = f.inode.sb.max_bytes;
    let base = match whence {
        g::SEEK_SET => 0,
        g::SEEK_CUR => pos,
        g::SEEK_END => size,
        g::SEEK_DATA | g::SEEK_HOLE => {
            let at = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            if at >= size {
                return Err(Errno::ENXIO);
            }
            return Ok(if whence == g::SEEK_DATA { at } else { size });
        }
        _ => return Err(Errno::EINVAL),
    };
    let new = i64::try_from(base).ok().and_then(|b| b.checked_add(offset)).ok_or(Errno::EOVERFLOW)?;
    u64::try_from(new).ok().filter(|&n| n <= max).ok_or(Errno::EINVAL)
}

/// Emits `.` and `..`, which take the positions 0 and 1. False: no more room.
pub fn emit_dots(f: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> bool {
    const DT_DIR: u8 = g::DT_DIR as u8;
    if *pos == 0 {
        if !emit(b".", f.inode.ino, DT_DIR, 1) {
            return false;
        }
        *pos = 1;
    }
    if *pos == 1 {
        let parent = f.path.dentry.parent().and_then(|p| p.inode().map(|i| i.ino)).unwrap_or(f.inode.ino);
        if !emit(b"..", parent, DT_DIR, 2) {
            return false;
        }
        *pos = 2;
    }
    true
}
