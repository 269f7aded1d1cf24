//! Reading, writing, and the size of files.

use crate::fds::with_lookup;
use crate::args::{DirFd, UserPath};
use abi::{Errno, Result, UserAddr, raw::general as g};
use arch::user::{UserPtr, UserSlice};
use kalloc::KVec;
use mm::io::{IoSink, IoSource};
use process::{SigInfo, Signal, Task};
use vfs::{Fd, LookupFlags};

/// Most bytes that one call moves (`read(2)`, NOTES: MAX_RW_COUNT).
pub(crate) const MAX_COUNT: usize = 0x7fff_f000;

pub(crate) fn file_limit(task: &Task) -> u64 {
    task.process().limit(g::RLIMIT_FSIZE)
}

/// Turns what a write can end with into the signal that goes with it.
pub(crate) fn with_signal<T>(task: &Task, result: Result<T>) -> Result<T> {
    match result {
        Err(Errno::EPIPE) => task.raise(SigInfo::kernel(Signal::PIPE)),
        Err(Errno::EFBIG) if file_limit(task) != u64::MAX => task.raise(SigInfo::kernel(Signal::XFSZ)),
        _ => {}
    }
    result
}

/// Counts a call that read (`/proc/PID/io`).
#[inline]
pub(crate) fn counted_read(task: &Task, result: Result<usize>) -> Result<usize> {
    task.figures.did_read(result.unwrap_or(0));
    result
}

/// Counts a call that wrote, and sends the signal that goes with its failure.
#[inline]
fn counted_write(task: &Task, result: Result<usize>) -> Result<usize> {
    task.figures.did_write(result.unwrap_or(0));
    with_signal(task, result)
}

pub(crate) fn slice(addr: UserAddr, len: usize) -> Result<UserSlice> {
    // A count beyond SSIZE_MAX is beyond user space too, which Linux looks at first.
    if !addr.range_ok(len as u64) {
        return Err(Errno::EFAULT);
    }
    Ok(UserSlice::new(addr, len.min(MAX_COUNT)))
}

pub fn read(task: &Task, fd: Fd, buf: UserAddr, len: usize) -> Result<usize> {
    let file = task.file(fd)?;
    if !file.may_read() {
        return Err(Errno::EBADF);
    }
    counted_read(task, file.read(&mut IoSink::user(slice(buf, len)?)))
}

pub fn write(task: &Task, fd: Fd, buf: UserAddr, len: usize) -> Result<usize> {
    let file = task.file(fd)?;
    if !file.may_write() {
        return Err(Errno::EBADF);
    }
    counted_write(task, file.write(&mut IoSource::user(slice(buf, len)?), file_limit(task)))
}

/// UIO_MAXIOV.
const MAX_IOV: u64 = 1024;

/// Reads an I/O vector: EINVAL for too many pieces or a negative total, EFAULT.
pub(crate) fn vector(iov: UserAddr, count: u64) -> Result<KVec<UserSlice>> {
    if count > MAX_IOV {
        return Err(Errno::EINVAL);
    }
    let mut out = KVec::try_with_capacity(count as usize)?;
    let mut total = 0usize;
    for i in 0..count {
        let [base, len] = UserPtr::<[u64; 2]>::new(iov.checked_add(i * 16).ok_or(Errno::EFAULT)?).read()?;
        if len > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        if !UserAddr(base).range_ok(len) {
            return Err(Errno::EFAULT);
        }
        // What goes beyond the most that one call moves is cut off.
        let len = (len as usize).min(MAX_COUNT - total);
        total += len;
        out.try_push(UserSlice::new(UserAddr(base), len))?;
    }
    Ok(out)
}

pub fn readv(task: &Task, fd: Fd, iov: UserAddr, count: u64) -> Result<usize> {
    let file = task.file(fd)?;
    if !file.may_read() {
        return Err(Errno::EBADF);
    }
    let pieces = vector(iov, count)?;
    counted_read(task, file.read(&mut IoSink::user_vec(&pieces)))
}

pub fn writev(task: &Task, fd: Fd, iov: UserAddr, count: u64) -> Result<usize> {
    let file = task.file(fd)?;
    if !file.may_write() {
        return Err(Errno::EBADF);
    }
    let pieces = vector(iov, count)?;
    counted_write(task, file.write(&mut IoSource::user_vec(&pieces), file_limit(task)))
}

fn position(pos: i64) -> Result<u64> {
    u64::try_from(pos).map_err(|_| Errno::EINVAL)
}

pub fn pread64(task: &Task, fd: Fd, buf: UserAddr, len: usize, pos: i64) -> Result<usize> {
    let pos = position(pos)?;
    let file = task.file(fd)?;
    counted_read(task, file.read_at(&mut IoSink::user(slice(buf, len)?), pos))
}

pub fn pwrite64(task: &Task, fd: Fd, buf: UserAddr, len: usize, pos: i64) -> Result<usize> {
    let pos = position(pos)?;
    let file = task.file(fd)?;
    counted_write(task, file.write_at(&mut IoSource::user(slice(buf, len)?), pos, file_limit(task)))
}

pub fn preadv(task: &Task, fd: Fd, iov: UserAddr, count: u64, pos: i64) -> Result<usize> {
    let pos = position(pos)?;
    let file = task.file(fd)?;
    let pieces = vector(iov, count)?;
    counted_read(task, file.read_at(&mut IoSink::user_vec(&pieces), pos))
}

pub fn pwritev(task: &Task, fd: Fd, iov: UserAddr, count: u64, pos: i64) -> Result<usize> {
    let pos = position(pos)?;
    let file = task.file(fd)?;
    let pieces = vector(iov, count)?;
    counted_write(task, file.write_at(&mut IoSource::user_vec(&pieces), pos, file_limit(task)))
}

/// Flags of one transfer (`preadv2(2)`). EOPNOTSUPP for what does not exist; no file here can say
/// that it would have to wait (RWF_NOWAIT).
fn transfer_flags(flags: u32) -> Result {
    let known = g::RWF_HIPRI | g::RWF_DSYNC | g::RWF_SYNC | g::RWF_APPEND;
    if flags & !known != 0 { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}

pub fn preadv2(task: &Task, fd: Fd, iov: UserAddr, count: u64, pos: i64, _high: u64, flags: u32) -> Result<usize> {
    // -1: the file's own position.
    let at = if pos == -1 { None } else { Some(position(pos)?) };
    let file = task.file(fd)?;
    if at.is_some() && !file.is_path_only() && !file.ops.can_seek() {
        return Err(Errno::ESPIPE);
    }
    let pieces = vector(iov, count)?;
    if !file.may_read() {
        return Err(Errno::EBADF);
    }
    if pieces.iter().all(|p| p.is_empty()) {
        return Ok(0);
    }
    transfer_flags(flags)?;
    let mut sink = IoSink::user_vec(&pieces);
    let done = match at {
        Some(at) => file.read_at(&mut sink, at),
        None => file.read(&mut sink),
    };
    counted_read(task, done)
}

pub fn pwritev2(task: &Task, fd: Fd, iov: UserAddr, count: u64, pos: i64, _high: u64, flags: u32) -> Result<usize> {
    let at = if pos == -1 { None } else { Some(position(pos)?) };
    let file = task.file(fd)?;
    if at.is_some() && !file.is_path_only() && !file.ops.can_seek() {
        return Err(Errno::ESPIPE);
    }
    let pieces = vector(iov, count)?;
    if !file.may_write() {
        return Err(Errno::EBADF);
    }
    if pieces.iter().all(|p| p.is_empty()) {
        return Ok(0);
    }
    transfer_flags(flags)?;
    let mut source = IoSource::user_vec(&pieces);
    let limit = file_limit(task);
    let done = match at {
        _ if flags & g::RWF_APPEND != 0 => file.append(&mut source, at, limit),
        Some(at) => file.write_at(&mut source, at, limit),
        None => file.write(&mut source, limit),
    };
    let done = counted_write(task, done)?;
    if flags & (g::RWF_DSYNC | g::RWF_SYNC) != 0 && file.inode.mode().is_file() {
        file.fsync(flags & g::RWF_SYNC == 0)?;
    }
    Ok(done)
}

pub fn readahead(task: &Task, fd: Fd, _offset: i64, _count: usize) -> Result {
    let file = task.file(fd)?;
    if !file.may_read() {
        return Err(Errno::EBADF);
    }
    // What is in memory needs no reading ahead.
    if file.inode.mode().is_file() { Ok(()) } else { Err(Errno::EINVAL) }
}

pub fn sync_file_range(task: &Task, fd: Fd, offset: i64, count: i64, flags: u32) -> Result {
    let file = task.file(fd)?;
    if file.is_path_only() {
        return Err(Errno::EBADF);
    }
    let known = g::SYNC_FILE_RANGE_WAIT_BEFORE | g::SYNC_FILE_RANGE_WRITE | g::SYNC_FILE_RANGE_WAIT_AFTER;
    let end = offset.wrapping_add(count);
    if flags & !known != 0 || offset < 0 || end < offset {
        return Err(Errno::EINVAL);
    }
    let mode = file.inode.mode();
    if !(mode.is_file() || mode.is_block_device() || mode.is_dir() || mode.is_symlink()) {
        return Err(Errno::ESPIPE);
    }
    match &file.inode.cache {
        Some(cache) if flags & g::SYNC_FILE_RANGE_WRITE != 0 => cache.write_back(),
        _ => Ok(()),
    }
}

pub fn lseek(task: &Task, fd: Fd, offset: i64, whence: u32) -> Result<u64> {
    let file = task.file(fd)?;
    if file.is_path_only() {
        return Err(Errno::EBADF);
    }
    file.seek(offset, whence)
}

pub fn fsync(task: &Task, fd: Fd) -> Result {
    task.file(fd)?.fsync(false)
}

pub fn fdatasync(task: &Task, fd: Fd) -> Result {
    task.file(fd)?.fsync(true)
}

pub fn sync(_: &Task) -> Result {
    // Everything lives in memory: there is no file system to write out yet.
    Ok(())
}

pub fn syncfs(task: &Task, fd: Fd) -> Result {
    let file = task.file(fd)?;
    if file.is_path_only() {
        return Err(Errno::EBADF);
    }
    let sb = &file.path.mount.sb;
    sb.ops.sync(sb)
}

pub fn fallocate(task: &Task, fd: Fd, mode: u32, offset: i64, len: i64) -> Result {
    let file = task.file(fd)?;
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    with_signal(task, file.fallocate(mode, offset as u64, len as u64, file_limit(task)))
}

pub fn ftruncate(task: &Task, fd: Fd, size: i64) -> Result {
    let size = position(size)?;
    let file = task.file(fd)?;
    let cred = task.cred()?;
    with_signal(task, vfs::ftruncate(&file, &cred, size, file_limit(task)))
}

pub fn truncate(task: &Task, path: UserPath, size: i64) -> Result {
    let size = position(size)?;
    let path = path.read()?;
    let limit = file_limit(task);
    let result = with_lookup(task, DirFd(g::AT_FDCWD), path.as_bytes(), |cx, at| {
        let place = vfs::lookup(cx, at, path.as_bytes(), LookupFlags::FOLLOW)?;
        vfs::truncate(&place, cx.cred, size, limit)
    });
    with_signal(task, result)
}

pub fn fadvise64(task: &Task, fd: Fd, _offset: i64, len: i64, advice: u32) -> Result {
    let file = task.file(fd)?;
    if file.is_path_only() {
        return Err(Errno::EBADF);
    }
    if file.inode.mode().is_fifo() {
        return Err(Errno::ESPIPE);
    }
    if len < 0 || advice > g::POSIX_FADV_NOREUSE {
        return Err(Errno::EINVAL);
    }
    // Files in memory have nothing to read ahead or to drop.
    Ok(())
}
