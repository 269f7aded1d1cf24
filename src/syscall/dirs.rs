//! Names: directories, links, the working directory.

use crate::{
    args::{DirFd, UserPath},
    fds::{start, with_lookup},
};
use abi::{DevNum, Errno, Result, UserAddr, raw::general as g};
use arch::user::UserSlice;
use arrayvec::ArrayVec;
use process::Task;
use vfs::{Fd, Lookup, LookupFlags, Path};

/// Bytes of `struct linux_dirent64` in front of the name.
const DIRENT_HEAD: usize = 19;

pub fn getdents64(task: &Task, fd: Fd, buf: UserAddr, len: u32) -> Result<usize> {
    let file = task.file(fd)?;
    let out = UserSlice::new(buf, len as usize);
    let mut done = 0;
    let mut failed = None;
    file.readdir(&mut |name, ino, kind, next| {
        let size = (DIRENT_HEAD + name.len() + 1).next_multiple_of(8);
        if size > out.len() - done {
            failed = Some(Errno::EINVAL);
            return false;
        }
        match put_entry(&out.sub(done, size), &Entry { name, ino, kind, next }, size) {
            Ok(()) => {
                done += size;
                true
            }
            Err(e) => {
                failed = Some(e);
                false
            }
        }
    })?;
    match failed {
        // What fitted is returned; the entry that did not comes with the next call.
        Some(e) if done == 0 => Err(e),
        _ => Ok(done),
    }
}

struct Entry<'a> {
    name: &'a [u8],
    ino: u64,
    kind: u8,
    next: u64,
}

/// Writes `struct linux_dirent64`: inode, next position, size, kind, name, zeroes up to the size.
fn put_entry(to: &UserSlice, entry: &Entry<'_>, size: usize) -> Result {
    let mut raw = ArrayVec::<u8, { (DIRENT_HEAD + 256).next_multiple_of(8) }>::new();
    let end = [0; 8];
    let padding = end.get(..size.saturating_sub(DIRENT_HEAD + entry.name.len())).ok_or(Errno::EINVAL)?;
    let size = (size as u16).to_le_bytes();
    let parts: [&[u8]; 6] =
        [&entry.ino.to_le_bytes(), &entry.next.to_le_bytes(), &size, &[entry.kind], entry.name, padding];
    for part in parts {
        raw.try_extend_from_slice(part).map_err(|_| Errno::EINVAL)?;
    }
    to.write_from(&raw)
}

fn walk(task: &Task, dir: DirFd, path: UserPath, flags: LookupFlags) -> Result<Path> {
    let path = path.read()?;
    with_lookup(task, dir, path.as_bytes(), |cx, at| vfs::lookup(cx, at, path.as_bytes(), flags))
}

pub fn mkdirat(task: &Task, dir: DirFd, path: UserPath, mode: u32) -> Result {
    let path = path.read()?;
    with_lookup(task, dir, path.as_bytes(), |cx, at| vfs::mkdir(cx, at, path.as_bytes(), mode))
}

pub fn mknodat(task: &Task, dir: DirFd, path: UserPath, mode: u32, dev: u32) -> Result {
    let path = path.read()?;
    with_lookup(task, dir, path.as_bytes(), |cx, at| vfs::mknod(cx, at, path.as_bytes(), mode, DevNum::decode(dev)))
}

pub fn unlinkat(task: &Task, dir: DirFd, path: UserPath, flags: u32) -> Result {
    if flags & !g::AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    let path = path.read()?;
    with_lookup(task, dir, path.as_bytes(), |cx, at| {
        if flags & g::AT_REMOVEDIR != 0 { vfs::rmdir(cx, at, path.as_bytes()) } else { vfs::unlink(cx, at, path.as_bytes()) }
    })
}

pub fn renameat(task: &Task, old_dir: DirFd, old: UserPath, new_dir: DirFd, new: UserPath) -> Result {
    renameat2(task, old_dir, old, new_dir, new, 0)
}

pub fn renameat2(task: &Task, old_dir: DirFd, old: UserPath, new_dir: DirFd, new: UserPath, flags: u32) -> Result {
    let (old, new) = (old.read()?, new.read()?);
    let new_at = start(task, new_dir, new.as_bytes())?;
    with_lookup(task, old_dir, old.as_bytes(), |cx, at| {
        vfs::rename(cx, at, old.as_bytes(), new_at.as_ref(), new.as_bytes(), flags)
    })
}

pub fn linkat(task: &Task, old_dir: DirFd, old: UserPath, new_dir: DirFd, new: UserPath, flags: u32) -> Result {
    if flags & !(g::AT_SYMLINK_FOLLOW | g::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let (old, new) = (old.read()?, new.read()?);
    let new_at = start(task, new_dir, new.as_bytes())?;
    with_lookup(task, old_dir, old.as_bytes(), |cx, at| {
        vfs::link(cx, at, old.as_bytes(), new_at.as_ref(), new.as_bytes(), flags)
    })
}

pub fn symlinkat(task: &Task, target: UserPath, dir: DirFd, path: UserPath) -> Result {
    let (target, path) = (target.read()?, path.read()?);
    with_lookup(task, dir, path.as_bytes(), |cx, at| vfs::symlink(cx, target.as_bytes(), at, path.as_bytes()))
}

pub fn readlinkat(task: &Task, dir: DirFd, path: UserPath, buf: UserAddr, len: i32) -> Result<usize> {
    let len = usize::try_from(len).ok().filter(|n| *n > 0).ok_or(Errno::EINVAL)?;
    let name = path.read()?;
    let place = with_lookup(task, dir, name.as_bytes(), |cx, at| {
        vfs::lookup(cx, at, name.as_bytes(), LookupFlags::EMPTY)
    })?;
    if !place.inode()?.mode().is_symlink() {
        return Err(if name.as_bytes().is_empty() { Errno::ENOENT } else { Errno::EINVAL });
    }
    let target = vfs::readlink(&place)?;
    let n = target.len().min(len);
    UserSlice::new(buf, n).write_from(target.get(..n).unwrap_or(&[]))?;
    Ok(n)
}

pub fn chdir(task: &Task, path: UserPath) -> Result {
    let to = walk(task, DirFd(g::AT_FDCWD), path, LookupFlags::FOLLOW | LookupFlags::DIRECTORY)?;
    let (fs, cred) = (task.fs()?, task.cred()?);
    vfs::chdir(&fs, &cred, to)
}

pub fn fchdir(task: &Task, fd: Fd) -> Result {
    let to = task.file(fd)?.path.clone();
    let (fs, cred) = (task.fs()?, task.cred()?);
    vfs::chdir(&fs, &cred, to)
}

pub fn chroot(task: &Task, path: UserPath) -> Result {
    let to = walk(task, DirFd(g::AT_FDCWD), path, LookupFlags::FOLLOW | LookupFlags::DIRECTORY)?;
    let (fs, cred) = (task.fs()?, task.cred()?);
    vfs::chroot(&fs, &cred, to)
}

pub fn getcwd(task: &Task, buf: UserAddr, size: usize) -> Result<usize> {
    let fs = task.fs()?;
    let text = vfs::getcwd(&fs)?;
    if text.len() > size {
        return Err(Errno::ERANGE);
    }
    UserSlice::new(buf, text.len()).write_from(&text)?;
    Ok(text.len())
}

pub fn umask(task: &Task, mask: u32) -> Result<u32> {
    Ok(task.fs()?.set_umask(mask & 0o777))
}

/// For calls of other families that take one path.
pub(crate) fn place(task: &Task, dir: DirFd, path: UserPath, flags: LookupFlags) -> Result<Path> {
    walk(task, dir, path, flags)
}

/// As [`place`], with the context for a check of one's own.
pub(crate) fn with_place<R>(task: &Task, dir: DirFd, path: UserPath, flags: LookupFlags, f: impl FnOnce(&Lookup<'_>, Path) -> Result<R>) -> Result<R> {
    let path = path.read()?;
    with_lookup(task, dir, path.as_bytes(), |cx, at| {
        let place = vfs::lookup(cx, at, path.as_bytes(), flags)?;
        f(cx, place)
    })
}
