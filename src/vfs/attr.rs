//! Attributes of files: stat, chmod, chown, utimens, truncate, access, extended attributes, and
//! who may change which (`inode(7)`, `chmod(2)`, `chown(2)`, `utimensat(2)`).

use crate::{
    Cap, Credentials, Inode, Mount, OpenFile, Path, Statfs, Time,
    inode::{I_APPEND, I_IMMUTABLE},
    notify,
    permission::{self, MAY_WRITE, owner_or_capable},
};
use abi::{DevNum, Errno, Gid, Mode, Result, Uid, raw::general as g};
use kalloc::{KArc, KBytes};

/// What `stat(2)` and `statx(2)` tell.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the names are stat(2)'s
pub struct Kstat {
    pub dev: DevNum,
    pub ino: u64,
    pub mode: Mode,
    pub nlink: u32,
    pub uid: Uid,
    pub gid: Gid,
    pub rdev: DevNum,
    pub size: u64,
    pub block_size: u32,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
    pub mount_id: u32,
    /// STATX_ATTR_* flags.
    pub attributes: u64,
}

/// Attributes of the file at `path`.
pub fn stat(path: &Path) -> Result<Kstat> {
    let mut s = stat_inode(path.inode()?);
    s.mount_id = path.mount.id;
    if path.is_mount_root() {
        s.attributes |= u64::from(g::STATX_ATTR_MOUNT_ROOT);
    }
    Ok(s)
}

/// Attributes of a file without its mount.
pub fn stat_inode(inode: &Inode) -> Kstat {
    inode.ops.refresh(inode);
    let t = inode.times();
    let mut attributes = 0;
    if inode.has_flag(I_IMMUTABLE) {
        attributes |= u64::from(g::STATX_ATTR_IMMUTABLE);
    }
    if inode.has_flag(I_APPEND) {
        attributes |= u64::from(g::STATX_ATTR_APPEND);
    }
    Kstat {
        dev: inode.sb.dev,
        ino: inode.ino,
        mode: inode.mode(),
        nlink: inode.nlink(),
        uid: inode.uid(),
        gid: inode.gid(),
        rdev: inode.rdev,
        size: inode.size(),
        block_size: inode.ops.block_size(),
        blocks: inode.ops.blocks(inode),
        atime: t.atime,
        mtime: t.mtime,
        ctime: t.ctime,
        btime: t.btime,
        mount_id: 0,
        attributes,
    }
}

/// A change of attributes: what is None stays.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // the names are inode(7)'s
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    pub uid: Option<Uid>,
    pub gid: Option<Gid>,
    pub size: Option<u64>,
    pub atime: Option<Time>,
    pub mtime: Option<Time>,
    pub ctime: Option<Time>,
}

/// Stores a change in the inode; what a file system without a store of its own does.
pub fn apply(inode: &KArc<Inode>, set: &SetAttr) -> Result {
    if let Some(size) = set.size {
        inode.ops.truncate(inode, size)?;
    }
    if set.uid.is_some() || set.gid.is_some() {
        inode.set_owner(set.uid.unwrap_or_else(|| inode.uid()), set.gid.unwrap_or_else(|| inode.gid()));
    }
    if let Some(m) = set.mode {
        inode.set_permissions(m);
    }
    inode.with_times(|t| {
        t.atime = set.atime.unwrap_or(t.atime);
        t.mtime = set.mtime.unwrap_or(t.mtime);
        t.ctime = set.ctime.unwrap_or(t.ctime);
    });
    Ok(())
}

/// Mode bits after a change that must not leave privileges behind: set-user-id goes, and
/// set-group-id where it means a privilege (with group execution).
fn without_set_id(mode: u32) -> u32 {
    let m = mode & !g::S_ISUID;
    if m & g::S_IXGRP != 0 { m & !g::S_ISGID } else { m }
}

fn may_change(mount: &Mount, inode: &Inode) -> Result {
    permission::want_write(mount)?;
    if inode.sb.is_read_only() {
        return Err(Errno::EROFS);
    }
    if inode.has_flag(I_IMMUTABLE | I_APPEND) { Err(Errno::EPERM) } else { Ok(()) }
}

/// `chmod(2)`. EPERM unless owner; EOPNOTSUPP for a symbolic link.
pub fn chmod(path: &Path, cred: &Credentials, mode: u32) -> Result {
    let inode = path.inode()?;
    may_change(&path.mount, inode)?;
    if inode.mode().is_symlink() {
        return Err(Errno::EOPNOTSUPP);
    }
    let _lock = inode.lock.write();
    if !owner_or_capable(inode, cred) {
        return Err(Errno::EPERM);
    }
    let mut bits = mode & Mode::PERMISSIONS;
    if !cred.in_group(inode.gid()) && !cred.capable(Cap::FSETID) {
        bits &= !g::S_ISGID;
    }
    inode.ops.setattr(inode, &SetAttr { mode: Some(bits), ctime: Some(Time::now()), ..SetAttr::default() })?;
    notify::on_path(path, g::IN_ATTRIB);
    Ok(())
}

/// `chown(2)`; None leaves an id alone. EPERM.
pub fn chown(path: &Path, cred: &Credentials, uid: Option<Uid>, gid: Option<Gid>) -> Result {
    let inode = path.inode()?;
    may_change(&path.mount, inode)?;
    let _lock = inode.lock.write();
    let owner = cred.fsuid == inode.uid();
    let capable = cred.capable(Cap::CHOWN);
    if uid.is_some_and(|u| !(capable || owner && u == inode.uid()))
        || gid.is_some_and(|n| !(capable || owner && (cred.in_group(n) || n == inode.gid())))
    {
        return Err(Errno::EPERM);
    }
    let old = inode.mode();
    let mut set = SetAttr { uid, gid, ctime: Some(Time::now()), ..SetAttr::default() };
    if !old.is_dir() {
        let bits = without_set_id(old.0) & Mode::PERMISSIONS;
        set.mode = (bits != old.permissions()).then_some(bits);
    }
    inode.ops.setattr(inode, &set)?;
    if uid.is_some() || gid.is_some() || set.mode.is_some() {
        notify::on_path(path, g::IN_ATTRIB);
    }
    Ok(())
}

/// One of the two times that `utimensat(2)` sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// UTIME_OMIT
    Omit,
    /// UTIME_NOW
    Now,
    /// This time.
    To(Time),
}

impl SetTime {
    /// From a `timespec`. EINVAL for nanoseconds out of range.
    pub fn from_timespec(t: &g::__kernel_timespec) -> Result<Self> {
        if t.tv_nsec == i64::from(g::UTIME_NOW) {
            return Ok(Self::Now);
        }
        if t.tv_nsec == i64::from(g::UTIME_OMIT) {
            return Ok(Self::Omit);
        }
        if !(0..1_000_000_000).contains(&t.tv_nsec) {
            return Err(Errno::EINVAL);
        }
        Ok(Self::To(Time { secs: t.tv_sec, nanos: t.tv_nsec as u32 }))
    }
}

/// `utimensat(2)`: sets access and modification time. To "now", both: whoever may write (EACCES);
/// anything else: the owner (EPERM).
pub fn utimens(path: &Path, cred: &Credentials, atime: SetTime, mtime: SetTime) -> Result {
    let inode = path.inode()?;
    if atime == SetTime::Omit && mtime == SetTime::Omit {
        return Ok(());
    }
    permission::want_write(&path.mount)?;
    if inode.sb.is_read_only() {
        return Err(Errno::EROFS);
    }
    let both_now = atime == SetTime::Now && mtime == SetTime::Now;
    if inode.has_flag(I_IMMUTABLE) || !both_now && inode.has_flag(I_APPEND) {
        return Err(Errno::EPERM);
    }
    let _lock = inode.lock.write();
    if !owner_or_capable(inode, cred) {
        if !both_now {
            return Err(Errno::EPERM);
        }
        permission::check(inode, MAY_WRITE, cred)?;
    }
    let now = Time::now();
    let pick = |s| match s {
        SetTime::Omit => None,
        SetTime::Now => Some(now),
        SetTime::To(t) => Some(t),
    };
    let set = SetAttr { atime: pick(atime), mtime: pick(mtime), ctime: Some(now), ..SetAttr::default() };
    inode.ops.setattr(inode, &set)?;
    notify::on_path(path, match (set.atime, set.mtime) {
        (Some(_), None) => g::IN_ACCESS,
        (None, Some(_)) => g::IN_MODIFY,
        _ => g::IN_ATTRIB,
    });
    Ok(())
}

/// `truncate(2)`: `limit` is RLIMIT_FSIZE (the caller raises SIGXFSZ on EFBIG).
pub fn truncate(path: &Path, cred: &Credentials, size: u64, limit: u64) -> Result {
    let inode = path.inode()?;
    let mode = inode.mode();
    if mode.is_dir() {
        return Err(Errno::EISDIR);
    }
    if !mode.is_file() {
        return Err(Errno::EINVAL);
    }
    permission::want_write(&path.mount)?;
    permission::check(inode, MAY_WRITE, cred)?;
    if inode.has_flag(I_APPEND) {
        return Err(Errno::EPERM);
    }
    inode.get_write_access()?;
    let done = truncate_inode(inode, cred, size, limit);
    inode.put_write_access();
    if done.is_ok() {
        notify::on_path(path, g::IN_MODIFY);
    }
    done
}

/// `ftruncate(2)`. EINVAL unless a regular file open for writing.
pub fn ftruncate(f: &OpenFile, cred: &Credentials, size: u64, limit: u64) -> Result {
    if !f.inode.mode().is_file() || !f.may_write() {
        return Err(Errno::EINVAL);
    }
    if f.inode.has_flag(I_APPEND) {
        return Err(Errno::EPERM);
    }
    truncate_inode(&f.inode, cred, size, limit)?;
    notify::on_file(f, g::IN_MODIFY);
    Ok(())
}

pub(crate) fn truncate_inode(inode: &KArc<Inode>, cred: &Credentials, size: u64, limit: u64) -> Result {
    if size > inode.sb.max_bytes {
        return Err(Errno::EFBIG);
    }
    let _lock = inode.lock.write();
    if size > inode.size() && size > limit {
        return Err(Errno::EFBIG);
    }
    inode.seals.check_size(inode.size(), size)?;
    let now = Time::now();
    let set = SetAttr {
        size: Some(size),
        mode: bits_after_write(inode, cred),
        mtime: Some(now),
        ctime: Some(now),
        ..SetAttr::default()
    };
    inode.ops.setattr(inode, &set)
}

/// What a write does to the permission bits: set-id bits go unless CAP_FSETID.
pub(crate) fn bits_after_write(inode: &Inode, cred: &Credentials) -> Option<u32> {
    let mode = inode.mode();
    if mode.0 & (g::S_ISUID | g::S_ISGID) == 0 || !mode.is_file() || cred.capable(Cap::FSETID) {
        return None;
    }
    let bits = without_set_id(mode.0) & Mode::PERMISSIONS;
    (bits != mode.permissions()).then_some(bits)
}

/// `faccessat2(2)`: `mode` is R_OK and so on; `cred` holds the ids that count.
pub fn access(path: &Path, cred: &Credentials, mode: u32) -> Result {
    let inode = path.inode()?;
    if mode & g::X_OK != 0 && inode.mode().is_file() && path.mount.flags() & g::MS_NOEXEC != 0 {
        return Err(Errno::EACCES);
    }
    permission::check(inode, mode & 7, cred)?;
    let m = inode.mode();
    let special = m.is_char_device() || m.is_block_device() || m.is_fifo() || m.is_socket();
    if mode & g::W_OK != 0 && !special {
        permission::want_write(&path.mount)?;
    }
    Ok(())
}

/// `statfs(2)`.
pub fn statfs(path: &Path) -> Result<Statfs> {
    let sb = &path.mount.sb;
    let mut s = sb.ops.statfs(sb)?;
    const ST_VALID: u64 = 0x20; // f_flags is filled in (statfs(2))
    let f = path.mount.flags();
    let mut flags = ST_VALID;
    // MS_* → ST_* (statfs(2)); the first four bits are the same.
    flags |= u64::from(f & (g::MS_RDONLY | g::MS_NOSUID | g::MS_NODEV | g::MS_NOEXEC));
    for (ms, st) in [(g::MS_NOATIME, 0x400), (g::MS_NODIRATIME, 0x800), (g::MS_RELATIME, 0x1000), (g::MS_NOSYMFOLLOW, 0x2000)] {
        if f & ms != 0 {
            flags |= st;
        }
    }
    if path.mount.is_read_only() {
        flags |= u64::from(g::MS_RDONLY);
    }
    s.flags = flags;
    s.fsid = u64::from(sb.dev.encode());
    Ok(s)
}

/// Which of the four name spaces of attributes a name is in, and whether `cred` may use it
/// (`xattr(7)`).
fn xattr_permission(inode: &Inode, name: &[u8], write: bool, cred: &Credentials) -> Result {
    if name.is_empty() || name.len() > 255 {
        return Err(Errno::ERANGE);
    }
    if name.starts_with(b"trusted.") {
        let denied = if write { Errno::EPERM } else { Errno::ENODATA };
        return if cred.capable(Cap::SYS_ADMIN) { Ok(()) } else { Err(denied) };
    }
    if name.starts_with(b"user.") {
        let m = inode.mode();
        if !m.is_file() && !m.is_dir() {
            return Err(if write { Errno::EPERM } else { Errno::ENODATA });
        }
        return permission::check(inode, if write { MAY_WRITE } else { permission::MAY_READ }, cred);
    }
    if name.starts_with(b"security.") || name.starts_with(b"system.") {
        return if write && !owner_or_capable(inode, cred) { Err(Errno::EPERM) } else { Ok(()) };
    }
    Err(Errno::EOPNOTSUPP)
}

/// `getxattr(2)`.
pub fn get_xattr(path: &Path, cred: &Credentials, name: &[u8]) -> Result<KBytes> {
    let inode = path.inode()?;
    xattr_permission(inode, name, false, cred)?;
    inode.ops.get_xattr(inode, name)
}

/// `setxattr(2)`.
pub fn set_xattr(path: &Path, cred: &Credentials, name: &[u8], value: &[u8], flags: u32) -> Result {
    if flags & !(g::XATTR_CREATE | g::XATTR_REPLACE) != 0 {
        return Err(Errno::EINVAL);
    }
    if value.len() > g::XATTR_SIZE_MAX as usize {
        return Err(Errno::E2BIG);
    }
    let inode = path.inode()?;
    may_change(&path.mount, inode)?;
    xattr_permission(inode, name, true, cred)?;
    let _lock = inode.lock.write();
    inode.ops.set_xattr(inode, name, value, flags)?;
    notify::on_path(path, g::IN_ATTRIB);
    Ok(())
}

/// `removexattr(2)`.
pub fn remove_xattr(path: &Path, cred: &Credentials, name: &[u8]) -> Result {
    let inode = path.inode()?;
    may_change(&path.mount, inode)?;
    xattr_permission(inode, name, true, cred)?;
    let _lock = inode.lock.write();
    inode.ops.remove_xattr(inode, name)?;
    notify::on_path(path, g::IN_ATTRIB);
    Ok(())
}

/// `listxattr(2)`.
pub fn list_xattr(path: &Path) -> Result<KBytes> {
    let inode = path.inode()?;
    inode.ops.list_xattr(inode)
}
