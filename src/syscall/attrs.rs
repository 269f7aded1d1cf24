//! Attributes of files: stat, permissions, owners, times, extended attributes.

use crate::{
    args::{DirFd, UserPath},
    dirs::with_place,
};
use abi::{Errno, Result, UserAddr, raw::general as g};
use arch::user::{Stat, UserPtr, UserSlice};
use kalloc::{KArc, KBytes};
use process::Task;
use vfs::{Credentials, Fd, Kstat, LookupFlags, Path, SetTime};

const HERE: DirFd = DirFd(g::AT_FDCWD);

fn to_stat(k: &Kstat) -> Stat {
    Stat {
        st_dev: u64::from(k.dev.encode()),
        st_ino: k.ino,
        st_mode: k.mode.0,
        st_nlink: k.nlink,
        st_uid: k.uid,
        st_gid: k.gid,
        st_rdev: u64::from(k.rdev.encode()),
        st_size: k.size as i64,
        st_blksize: k.block_size as i32,
        st_blocks: k.blocks as i64,
        st_atime: k.atime.secs,
        st_atime_nsec: k.atime.nanos.into(),
        st_mtime: k.mtime.secs,
        st_mtime_nsec: k.mtime.nanos.into(),
        st_ctime: k.ctime.secs,
        st_ctime_nsec: k.ctime.nanos.into(),
        ..Stat::default()
    }
}

const STAT_FLAGS: u32 = g::AT_SYMLINK_NOFOLLOW | g::AT_NO_AUTOMOUNT | g::AT_EMPTY_PATH;

pub fn newfstatat(task: &Task, dir: DirFd, path: UserPath, out: UserPtr<Stat>, flags: u32) -> Result {
    if flags & !STAT_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let stat = with_place(task, dir, path, LookupFlags::from_at(flags), |_, p| vfs::stat(&p))?;
    out.write(to_stat(&stat))
}

pub fn fstat(task: &Task, fd: Fd, out: UserPtr<Stat>) -> Result {
    let file = task.file(fd)?;
    out.write(to_stat(&vfs::stat(&file.path)?))
}

fn timestamp(t: vfs::Time) -> g::statx_timestamp {
    g::statx_timestamp { tv_sec: t.secs, tv_nsec: t.nanos, __reserved: 0 }
}

pub fn statx(task: &Task, dir: DirFd, path: UserPath, flags: u32, mask: u32, out: UserPtr<g::statx>) -> Result {
    if mask & g::STATX__RESERVED != 0 || flags & !(STAT_FLAGS | g::AT_STATX_SYNC_TYPE) != 0 || flags & g::AT_STATX_SYNC_TYPE == g::AT_STATX_SYNC_TYPE {
        return Err(Errno::EINVAL);
    }
    let (k, root) = with_place(task, dir, path, LookupFlags::from_at(flags), |_, p| Ok((vfs::stat(&p)?, p.is_mount_root())))?;
    let mut x: g::statx = arch::user::zeroed();
    x.stx_mask = g::STATX_BASIC_STATS | g::STATX_BTIME | g::STATX_MNT_ID;
    x.stx_blksize = k.block_size;
    x.stx_attributes = k.attributes | if root { u64::from(g::STATX_ATTR_MOUNT_ROOT) } else { 0 };
    x.stx_attributes_mask = u64::from(g::STATX_ATTR_MOUNT_ROOT | g::STATX_ATTR_IMMUTABLE | g::STATX_ATTR_APPEND);
    x.stx_nlink = k.nlink;
    x.stx_uid = k.uid;
    x.stx_gid = k.gid;
    x.stx_mode = k.mode.0 as u16;
    x.stx_ino = k.ino;
    x.stx_size = k.size;
    x.stx_blocks = k.blocks;
    x.stx_atime = timestamp(k.atime);
    x.stx_btime = timestamp(k.btime);
    x.stx_ctime = timestamp(k.ctime);
    x.stx_mtime = timestamp(k.mtime);
    x.stx_rdev_major = k.rdev.major;
    x.stx_rdev_minor = k.rdev.minor;
    x.stx_dev_major = k.dev.major;
    x.stx_dev_minor = k.dev.minor;
    x.stx_mnt_id = k.mount_id.into();
    out.write(x)
}

pub fn faccessat(task: &Task, dir: DirFd, path: UserPath, mode: u32) -> Result {
    faccessat2(task, dir, path, mode, 0)
}

pub fn faccessat2(task: &Task, dir: DirFd, path: UserPath, mode: u32, flags: u32) -> Result {
    if mode & !7 != 0 || flags & !(g::AT_EACCESS | g::AT_SYMLINK_NOFOLLOW | g::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let cred = if flags & g::AT_EACCESS != 0 { task.cred()? } else { real_credentials(task)? };
    let fs = task.fs()?;
    let name = path.read()?;
    let at = crate::fds::start(task, dir, name.as_bytes())?;
    let cx = vfs::Lookup { fs: &fs, cred: &cred };
    let place = vfs::lookup(&cx, at.as_ref(), name.as_bytes(), LookupFlags::from_at(flags))?;
    vfs::access(&place, &cred, mode)
}

/// Credentials that act as the real ids (`access(2)`): capabilities count only for real root.
fn real_credentials(task: &Task) -> Result<KArc<Credentials>> {
    let old = task.cred()?;
    if old.fsuid == old.uid && old.fsgid == old.gid {
        return Ok(old);
    }
    let mut new = kalloc::TryClone::try_clone(&*old)?;
    new.fsuid = new.uid;
    new.fsgid = new.gid;
    new.caps.effective = if new.uid == 0 { new.caps.permitted } else { 0 };
    Ok(KArc::try_new(new)?)
}

pub fn fchmod(task: &Task, fd: Fd, mode: u32) -> Result {
    let file = task.file(fd)?;
    if file.is_path_only() {
        return Err(Errno::EBADF);
    }
    task.with_cred_arc(|c| vfs::chmod(&file.path, c, mode))
}

pub fn fchmodat(task: &Task, dir: DirFd, path: UserPath, mode: u32) -> Result {
    with_place(task, dir, path, LookupFlags::FOLLOW, |cx, p| vfs::chmod(&p, cx.cred, mode))
}

fn id(v: u32) -> Option<u32> {
    (v != u32::MAX).then_some(v)
}

pub fn fchown(task: &Task, fd: Fd, uid: u32, gid: u32) -> Result {
    let file = task.file(fd)?;
    if file.is_path_only() {
        return Err(Errno::EBADF);
    }
    task.with_cred_arc(|c| vfs::chown(&file.path, c, id(uid), id(gid)))
}

pub fn fchownat(task: &Task, dir: DirFd, path: UserPath, uid: u32, gid: u32, flags: u32) -> Result {
    if flags & !(g::AT_SYMLINK_NOFOLLOW | g::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    with_place(task, dir, path, LookupFlags::from_at(flags), |cx, p| vfs::chown(&p, cx.cred, id(uid), id(gid)))
}

pub fn utimensat(task: &Task, dir: DirFd, path: UserPath, times: UserPtr<[g::__kernel_timespec; 2]>, flags: u32) -> Result {
    let (atime, mtime) = if times.is_null() {
        (SetTime::Now, SetTime::Now)
    } else {
        let [a, m] = times.read()?;
        (SetTime::from_timespec(&a)?, SetTime::from_timespec(&m)?)
    };
    if flags & !(g::AT_SYMLINK_NOFOLLOW | g::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    if path.0.is_null() {
        // futimens(3): the file itself.
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        let file = task.file(Fd::from_raw(dir.0)?)?;
        if file.is_path_only() {
            return Err(Errno::EBADF);
        }
        return task.with_cred_arc(|c| vfs::utimens(&file.path, c, atime, mtime));
    }
    with_place(task, dir, path, LookupFlags::from_at(flags), |cx, p| vfs::utimens(&p, cx.cred, atime, mtime))
}

fn put_statfs(s: &vfs::Statfs, out: UserPtr<g::statfs>) -> Result {
    let mut raw: g::statfs = arch::user::zeroed();
    raw.f_type = s.kind as _;
    raw.f_bsize = s.block_size as _;
    raw.f_blocks = s.blocks as _;
    raw.f_bfree = s.free as _;
    raw.f_bavail = s.available as _;
    raw.f_files = s.files as _;
    raw.f_ffree = s.free_files as _;
    raw.f_fsid.val = [s.fsid as u32 as i32, (s.fsid >> 32) as i32];
    raw.f_namelen = s.name_max as _;
    raw.f_frsize = s.block_size as _;
    raw.f_flags = s.flags as _;
    out.write(raw)
}

pub fn statfs(task: &Task, path: UserPath, out: UserPtr<g::statfs>) -> Result {
    let s = with_place(task, HERE, path, LookupFlags::FOLLOW, |_, p| vfs::statfs(&p))?;
    put_statfs(&s, out)
}

pub fn fstatfs(task: &Task, fd: Fd, out: UserPtr<g::statfs>) -> Result {
    let file = task.file(fd)?;
    put_statfs(&vfs::statfs(&file.path)?, out)
}

/// Largest value of an attribute (XATTR_SIZE_MAX).
const XATTR_MAX: usize = 65536;

fn get(cred: &Credentials, p: &Path, name: UserPath, buf: UserAddr, size: usize) -> Result<usize> {
    let name = xattr_name(name)?;
    give(&vfs::get_xattr(p, cred, &name)?, buf, size)
}

fn list(p: &Path, buf: UserAddr, size: usize) -> Result<usize> {
    give(&vfs::list_xattr(p)?, buf, size)
}

/// A size of zero asks how much there is (`getxattr(2)`).
fn give(value: &[u8], buf: UserAddr, size: usize) -> Result<usize> {
    if size != 0 {
        if value.len() > size {
            return Err(Errno::ERANGE);
        }
        UserSlice::new(buf, value.len()).write_from(value)?;
    }
    Ok(value.len())
}

fn xattr_name(name: UserPath) -> Result<KBytes> {
    let mut out = KBytes::try_from_elem(0, 256)?;
    let n = arch::user::copy_str_from_user(&mut out, name.0).map_err(|_| Errno::EFAULT)?;
    if n == 0 || n >= out.len() {
        return Err(Errno::ERANGE);
    }
    out.truncate(n);
    Ok(out)
}

fn set(cred: &Credentials, p: &Path, name: UserPath, value: UserAddr, size: usize, flags: u32) -> Result {
    if flags & !(g::XATTR_CREATE | g::XATTR_REPLACE) != 0 {
        return Err(Errno::EINVAL);
    }
    let name = xattr_name(name)?;
    if size > XATTR_MAX {
        return Err(Errno::E2BIG);
    }
    let mut bytes = KBytes::try_from_elem(0, size)?;
    UserSlice::new(value, size).read_into(&mut bytes)?;
    vfs::set_xattr(p, cred, &name, &bytes, flags)
}

fn remove(cred: &Credentials, p: &Path, name: UserPath) -> Result {
    vfs::remove_xattr(p, cred, &xattr_name(name)?)
}

pub fn setxattr(task: &Task, path: UserPath, name: UserPath, value: UserAddr, size: usize, flags: u32) -> Result {
    with_place(task, HERE, path, LookupFlags::FOLLOW, |cx, p| set(cx.cred, &p, name, value, size, flags))
}
pub fn lsetxattr(task: &Task, path: UserPath, name: UserPath, value: UserAddr, size: usize, flags: u32) -> Result {
    with_place(task, HERE, path, LookupFlags::empty(), |cx, p| set(cx.cred, &p, name, value, size, flags))
}
pub fn fsetxattr(task: &Task, fd: Fd, name: UserPath, value: UserAddr, size: usize, flags: u32) -> Result {
    let file = task.file(fd)?;
    task.with_cred_arc(|c| set(c, &file.path, name, value, size, flags))
}
pub fn getxattr(task: &Task, path: UserPath, name: UserPath, buf: UserAddr, size: usize) -> Result<usize> {
    with_place(task, HERE, path, LookupFlags::FOLLOW, |cx, p| get(cx.cred, &p, name, buf, size))
}
pub fn lgetxattr(task: &Task, path: UserPath, name: UserPath, buf: UserAddr, size: usize) -> Result<usize> {
    with_place(task, HERE, path, LookupFlags::empty(), |cx, p| get(cx.cred, &p, name, buf, size))
}
pub fn fgetxattr(task: &Task, fd: Fd, name: UserPath, buf: UserAddr, size: usize) -> Result<usize> {
    let file = task.file(fd)?;
    task.with_cred_arc(|c| get(c, &file.path, name, buf, size))
}
pub fn listxattr(task: &Task, path: UserPath, buf: UserAddr, size: usize) -> Result<usize> {
    with_place(task, HERE, path, LookupFlags::FOLLOW, |_, p| list(&p, buf, size))
}
pub fn llistxattr(task: &Task, path: UserPath, buf: UserAddr, size: usize) -> Result<usize> {
    with_place(task, HERE, path, LookupFlags::empty(), |_, p| list(&p, buf, size))
}
pub fn flistxattr(task: &Task, fd: Fd, buf: UserAddr, size: usize) -> Result<usize> {
    let file = task.file(fd)?;
    list(&file.path, buf, size)
}
pub fn removexattr(task: &Task, path: UserPath, name: UserPath) -> Result {
    with_place(task, HERE, path, LookupFlags::FOLLOW, |cx, p| remove(cx.cred, &p, name))
}
pub fn lremovexattr(task: &Task, path: UserPath, name: UserPath) -> Result {
    with_place(task, HERE, path, LookupFlags::empty(), |cx, p| remove(cx.cred, &p, name))
}
pub fn fremovexattr(task: &Task, fd: Fd, name: UserPath) -> Result {
    let file = task.file(fd)?;
    task.with_cred_arc(|c| remove(c, &file.path, name))
}
