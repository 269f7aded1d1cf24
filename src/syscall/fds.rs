//! Descriptors: open, close, duplicate, control.

use crate::args::{DirFd, UserPath};
use abi::{Errno, Result, UserAddr, raw::general as g};
use arch::user::{Flock as UserFlock, UserPtr, UserSlice, copy_str_from_user};
use process::Task;
use vfs::{
    Fd, Lookup, OpenFile, OpenHow, Path,
    locks::{Flock, LockOwner, RecordLock},
};

/// Runs `f` with the place where a relative path starts (EBADF unless the descriptor is open;
/// ENOTDIR is the walk's business) and the task's file-system context.
pub(crate) fn with_lookup<R>(task: &Task, dir: DirFd, path: &[u8], f: impl FnOnce(&Lookup<'_>, Option<&Path>) -> Result<R>) -> Result<R> {
    let (fs, cred) = (task.fs()?, task.cred()?);
    let at = start(task, dir, path)?;
    f(&Lookup { fs: &fs, cred: &cred }, at.as_ref())
}

/// The directory of a relative path; an absolute one does not look at the descriptor.
pub(crate) fn start(task: &Task, dir: DirFd, path: &[u8]) -> Result<Option<Path>> {
    if dir.0 == g::AT_FDCWD || path.first() == Some(&b'/') {
        return Ok(None);
    }
    Ok(Some(task.file(Fd::from_raw(dir.0)?)?.path.clone()))
}

fn nofile(task: &Task) -> u64 {
    task.process().limit(g::RLIMIT_NOFILE)
}

pub fn openat(task: &Task, dir: DirFd, path: UserPath, flags: u32, mode: u32) -> Result<Fd> {
    let path = path.read()?;
    // A 64-bit kernel has no files that are too large.
    open(task, dir, path.as_bytes(), flags | g::O_LARGEFILE, mode)
}

fn open(task: &Task, dir: DirFd, path: &[u8], flags: u32, mode: u32) -> Result<Fd> {
    let files = task.files()?;
    let slot = files.reserve(flags & g::O_CLOEXEC != 0, 0, nofile(task))?;
    let how = OpenHow { flags, mode };
    let file = with_lookup(task, dir, path, |cx, at| vfs::open(cx, at, path, how))?;
    Ok(slot.install(file))
}

pub fn openat2(task: &Task, dir: DirFd, path: UserPath, how: UserAddr, size: usize) -> Result<Fd> {
    // struct open_how: flags, mode, resolve. Bytes behind it must be zero (openat2(2), E2BIG).
    const KNOWN: usize = 24;
    if size < KNOWN {
        return Err(Errno::EINVAL);
    }
    if size > abi::PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    let mut at = KNOWN;
    while at < size {
        let mut byte = [0u8; 1];
        UserSlice::new(how.add(at as u64), 1).read_into(&mut byte)?;
        if byte != [0] {
            return Err(Errno::E2BIG);
        }
        at += 1;
    }
    let [flags, mode, resolve] = UserPtr::<[u64; 3]>::new(how).read()?;
    let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
    let creates = flags & (g::O_CREAT | g::__O_TMPFILE) != 0;
    if mode & !0o7777 != 0 || mode != 0 && !creates || flags & !vfs::OPEN_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    if resolve != 0 {
        // The walk has no restricted modes yet: as a Linux that does not know the flag.
        return Err(Errno::EINVAL);
    }
    let path = path.read()?;
    open(task, dir, path.as_bytes(), flags, mode as u32)
}

pub fn close(task: &Task, fd: i32) -> Result {
    task.files()?.close(Fd::from_raw(fd)?).map_err(no_restart)
}

/// close(2) is never restarted: the descriptor is gone.
fn no_restart(e: Errno) -> Errno {
    if e == Errno::ERESTARTSYS || e == Errno::ERESTARTNOINTR { Errno::EINTR } else { e }
}

/// `linux/close_range.h`, which linux-raw-sys leaves out.
const CLOSE_RANGE_UNSHARE: u32 = 1 << 1;
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

pub fn close_range(task: &Task, first: u32, last: u32, flags: u32) -> Result {
    if flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        task.unshare_files()?;
    }
    task.files()?.close_range(first, last, flags & CLOSE_RANGE_CLOEXEC != 0);
    Ok(())
}

pub fn dup(task: &Task, fd: Fd) -> Result<Fd> {
    task.files()?.dup(fd, false, 0, nofile(task))
}

pub fn dup3(task: &Task, from: i32, to: i32, flags: u32) -> Result<Fd> {
    if flags & !g::O_CLOEXEC != 0 || from == to {
        return Err(Errno::EINVAL);
    }
    let (from, to) = (Fd::from_raw(from)?, Fd::from_raw(to)?);
    task.files()?.dup_to(from, to, flags & g::O_CLOEXEC != 0, nofile(task))?;
    Ok(to)
}

pub fn pipe2(task: &Task, out: UserPtr<[i32; 2]>, flags: u32) -> Result {
    if flags & !(g::O_CLOEXEC | g::O_NONBLOCK | g::O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    let cloexec = flags & g::O_CLOEXEC != 0;
    let files = task.files()?;
    let cred = task.cred()?;
    let (reader, writer) = ipc::pipe_pair(flags & !g::O_CLOEXEC, &cred)?;
    let a = files.reserve(cloexec, 0, nofile(task))?;
    let b = files.reserve(cloexec, 0, nofile(task))?;
    out.write([a.fd().0 as i32, b.fd().0 as i32])?;
    a.install(reader);
    b.install(writer);
    Ok(())
}

pub fn memfd_create(task: &Task, name: UserAddr, flags: u32) -> Result<Fd> {
    /// With "memfd:" in front of it, the name is at most as long as a file's.
    const NAME_MAX: usize = vfs::NAME_MAX - "memfd:".len();
    let mut known = g::MFD_CLOEXEC | g::MFD_ALLOW_SEALING | g::MFD_HUGETLB;
    if flags & g::MFD_HUGETLB != 0 {
        known |= g::MFD_HUGE_MASK << g::MFD_HUGE_SHIFT;
    }
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let mut buf = [0; NAME_MAX + 1];
    let len = copy_str_from_user(&mut buf, name).map_err(|_| Errno::EFAULT)?;
    let name = buf.get(..len).filter(|n| n.len() <= NAME_MAX).ok_or(Errno::EINVAL)?;
    let files = task.files()?;
    let slot = files.reserve(flags & g::MFD_CLOEXEC != 0, 0, nofile(task))?;
    if flags & g::MFD_HUGETLB != 0 {
        // As a Linux without huge pages for user space.
        return Err(Errno::ENOSYS);
    }
    Ok(slot.install(vfs::memory_file(name, flags & g::MFD_ALLOW_SEALING != 0, &task.cred()?)?))
}

pub fn fcntl(task: &Task, fd: Fd, cmd: u32, arg: u64) -> Result<u64> {
    let file = task.file(fd)?;
    let allowed_on_path = matches!(cmd, g::F_DUPFD | g::F_DUPFD_CLOEXEC | g::F_GETFD | g::F_SETFD | g::F_GETFL);
    if file.is_path_only() && !allowed_on_path {
        return Err(Errno::EBADF);
    }
    let files = task.files()?;
    Ok(match cmd {
        g::F_DUPFD | g::F_DUPFD_CLOEXEC => {
            if arg >= nofile(task) {
                return Err(Errno::EINVAL);
            }
            u64::from(files.dup(fd, cmd == g::F_DUPFD_CLOEXEC, arg as u32, nofile(task))?.0)
        }
        g::F_GETFD => u64::from(files.is_cloexec(fd)?),
        g::F_SETFD => {
            files.set_cloexec(fd, arg & u64::from(g::FD_CLOEXEC) != 0)?;
            0
        }
        g::F_GETFL => u64::from(file.flags()),
        g::F_SETFL => {
            let cred = task.cred()?;
            file.set_flags(arg as u32, &cred)?;
            0
        }
        g::F_GETLK | g::F_SETLK | g::F_SETLKW | g::F_OFD_GETLK | g::F_OFD_SETLK | g::F_OFD_SETLKW => {
            record_lock(task, &file, cmd, UserPtr::new(UserAddr(arg)))?;
            0
        }
        g::F_GETOWN => {
            let owner = file.owner();
            if owner.kind == g::F_OWNER_PGRP { u64::from(owner.id).wrapping_neg() } else { u64::from(owner.id) }
        }
        g::F_SETOWN => {
            let id = arg as i32;
            let kind = if id < 0 { g::F_OWNER_PGRP } else { g::F_OWNER_PID };
            file.set_owner(vfs::Owner { kind, id: id.unsigned_abs(), ..file.owner() });
            0
        }
        g::F_GETSIG => u64::from(file.owner().signal),
        g::F_SETSIG => {
            if arg > abi::NSIG as u64 {
                return Err(Errno::EINVAL);
            }
            file.set_owner(vfs::Owner { signal: arg as u32, ..file.owner() });
            0
        }
        g::F_GETPIPE_SZ if !ipc::is_pipe(&file) => return Err(Errno::EBADF),
        // What a user may have is decided by who asks, not by who opened it.
        g::F_SETPIPE_SZ => ipc::set_pipe_size(&file, arg, &*task.cred()?)?,
        _ => file.ops.fcntl(&file, cmd, arg)?,
    })
}

pub fn flock(task: &Task, fd: Fd, op: u32) -> Result {
    let file = task.file(fd)?;
    if file.is_path_only() {
        return Err(Errno::EBADF);
    }
    let how = match op & !g::LOCK_NB {
        g::LOCK_SH => Flock::Shared,
        g::LOCK_EX => Flock::Exclusive,
        g::LOCK_UN => Flock::Unlock,
        _ => return Err(Errno::EINVAL),
    };
    vfs::locks::flock(&file, how, op & g::LOCK_NB == 0)
}

/// Record locks (`fcntl(2)`, "Advisory record locking" and "Open file description locks").
fn record_lock(task: &Task, file: &OpenFile, cmd: u32, arg: UserPtr<UserFlock>) -> Result {
    let mut f = arg.read()?;
    let by_file = matches!(cmd, g::F_OFD_GETLK | g::F_OFD_SETLK | g::F_OFD_SETLKW);
    let pid = task.process().id() as i32;
    let owner = if by_file {
        if f.l_pid != 0 {
            return Err(Errno::EINVAL);
        }
        LockOwner::of_file(file)
    } else {
        LockOwner::Process { id: task.files()?.locker(), pid }
    };
    let base = match u32::from(f.l_whence as u16) {
        g::SEEK_SET => 0,
        g::SEEK_CUR => file.position() as i64,
        g::SEEK_END => file.inode.size() as i64,
        _ => return Err(Errno::EINVAL),
    };
    let (start, end) = range(base, f.l_start, f.l_len)?;
    let kind = u32::from(f.l_type as u16);
    let unlock = kind == g::F_UNLCK;
    if !unlock && kind != g::F_RDLCK && kind != g::F_WRLCK {
        return Err(Errno::EINVAL);
    }
    let want = RecordLock { owner, start, end, write: kind == g::F_WRLCK };
    if !matches!(cmd, g::F_GETLK | g::F_OFD_GETLK) {
        let wait = matches!(cmd, g::F_SETLKW | g::F_OFD_SETLKW);
        return vfs::locks::set_record(file, &want, unlock, wait);
    }
    if unlock {
        return Err(Errno::EINVAL);
    }
    match vfs::locks::get_record(file, &want)? {
        None => f.l_type = g::F_UNLCK as i16,
        Some(held) => {
            f.l_type = if held.write { g::F_WRLCK } else { g::F_RDLCK } as i16;
            f.l_whence = g::SEEK_SET as i16;
            f.l_start = held.start as i64;
            f.l_len = if held.end == u64::MAX { 0 } else { (held.end - held.start + 1) as i64 };
            f.l_pid = match held.owner {
                LockOwner::Process { pid, .. } => pid,
                LockOwner::File(_) => -1,
            };
        }
    }
    arg.write(f)
}

/// First and last byte of a lock: a negative length reaches backwards, zero to the end.
fn range(base: i64, start: i64, len: i64) -> Result<(u64, u64)> {
    let start = base.checked_add(start).ok_or(Errno::EOVERFLOW)?;
    let (first, last) = match len {
        0 => (start, -1),
        n if n > 0 => (start, start.checked_add(n - 1).ok_or(Errno::EOVERFLOW)?),
        n => (start.checked_add(n).ok_or(Errno::EINVAL)?, start - 1),
    };
    if first < 0 || len < 0 && last < 0 {
        return Err(Errno::EINVAL);
    }
    Ok((first as u64, if len == 0 { u64::MAX } else { last as u64 }))
}

pub fn ioctl(task: &Task, fd: Fd, cmd: u32, arg: u64) -> Result<u64> {
    use abi::raw::ioctl as i;
    let file = task.file(fd)?;
    if file.is_path_only() {
        return Err(Errno::EBADF);
    }
    match cmd {
        i::FIOCLEX => task.files()?.set_cloexec(fd, true).map(|()| 0),
        i::FIONCLEX => task.files()?.set_cloexec(fd, false).map(|()| 0),
        i::FIONBIO => {
            let on = UserPtr::<i32>::new(UserAddr(arg)).read()?;
            file.set_nonblocking(on != 0);
            Ok(0)
        }
        i::TIOCGPTPEER => match file.ops_as::<tty::pty::Master>() {
            Some(master) => {
                let flags = arg as u32;
                let files = task.files()?;
                let slot = files.reserve(flags & g::O_CLOEXEC != 0, 0, nofile(task))?;
                let slave = master.open_slave(flags, &task.cred()?)?;
                Ok(u64::from(slot.install(slave).0))
            }
            None => file.ioctl(cmd, arg),
        },
        _ => file.ioctl(cmd, arg),
    }
}
