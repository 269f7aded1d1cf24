//! Changes of the tree: make, remove, link and rename files (`mkdir(2)`, `mknod(2)`, `unlink(2)`,
//! `rmdir(2)`, `link(2)`, `symlink(2)`, `rename(2)`).
//!
//! Each finds the directory, takes its lock for writing, looks the name up again under it, checks,
//! calls the file system, and then changes the dentry cache. Error priority is Linux's: a name
//! that exists is EEXIST before a read-only mount is EROFS.
//!
//! Locks: a rename between two directories holds [`RENAME`], then the directory that is nearer
//! to the root first; a directory that is removed or replaced is locked inside its parent.

use crate::{
    Cap, Dentry, Inode, LookupFlags, MountRef, Path, Rename, class,
    dcache::{self, Relocation},
    inode::{I_APPEND, I_DEAD, I_IMMUTABLE, I_LINKABLE},
    mount::is_mount_point,
    namei::{self, Last, Lookup, PATH_MAX, Walk, child_locked},
    notify,
    open::may_link_by_descriptor,
    permission::{self, may_create, may_delete, want_write},
};
use abi::{DevNum, Errno, Mode, Result, raw::general as g};
use kalloc::{KArc, KBytes};
use sched::{Mutex, RwWriteGuard};

/// One rename between directories at a time: it keeps the tree's shape still for the ancestor
/// checks.
static RENAME: Mutex<()> = Mutex::new((), &class::RENAME);

fn check_name(name: &[u8]) -> Result {
    match name.len() {
        0 => Err(Errno::ENOENT),
        n if n >= PATH_MAX => Err(Errno::ENAMETOOLONG),
        _ => Ok(()),
    }
}

/// Finds where a new name goes and calls `make` with the directory locked. `dir_allowed`: the
/// path may end in slashes, since a directory is made.
fn create(
    cx: &Lookup<'_>,
    at: Option<&Path>,
    name: &[u8],
    dir_allowed: bool,
    make: impl FnOnce(&Path, &KArc<Inode>, &[u8]) -> Result<KArc<Inode>>,
) -> Result {
    check_name(name)?;
    let mut walk = Walk::new(cx, at, name);
    if walk.parent()? != Last::Name {
        return Err(Errno::EEXIST);
    }
    let dir = walk.at.inode()?.clone();
    let name = walk.last_name();
    let _lock = dir.lock.write();
    let dentry = child_locked(&walk.at.dentry, &dir, name)?;
    if dentry.inode().is_some() {
        return Err(Errno::EEXIST);
    }
    if walk.trailing && !dir_allowed {
        return Err(Errno::ENOENT);
    }
    want_write(&walk.at.mount)?;
    may_create(&dir, cx.cred)?;
    let inode = make(&walk.at, &dir, name)?;
    let is_dir = inode.is_dir();
    dentry.instantiate(inode);
    notify::on_entry(&dir, g::IN_CREATE, name, is_dir);
    Ok(())
}

/// `mkdir(2)`.
pub fn mkdir(cx: &Lookup<'_>, at: Option<&Path>, name: &[u8], mode: u32) -> Result {
    create(cx, at, name, true, |_, dir, name| {
        let mode = Mode(g::S_IFDIR | mode & (0o777 | g::S_ISVTX) & !cx.fs.umask());
        dir.ops.mkdir(dir, name, mode, cx.cred)
    })
}

/// `mknod(2)`: `mode` with the type (0: a regular file). EPERM for devices without CAP_MKNOD and
/// for directories.
pub fn mknod(cx: &Lookup<'_>, at: Option<&Path>, name: &[u8], mode: u32, rdev: DevNum) -> Result {
    let kind = match mode & g::S_IFMT {
        0 => g::S_IFREG,
        k @ (g::S_IFREG | g::S_IFCHR | g::S_IFBLK | g::S_IFIFO | g::S_IFSOCK) => k,
        g::S_IFDIR => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    create(cx, at, name, false, |_, dir, name| {
        let mode = Mode(kind | mode & Mode::PERMISSIONS & !cx.fs.umask());
        if kind == g::S_IFREG {
            return dir.ops.create(dir, name, mode, cx.cred);
        }
        let device = kind == g::S_IFCHR || kind == g::S_IFBLK;
        if device && !cx.cred.capable(Cap::MKNOD) {
            return Err(Errno::EPERM);
        }
        dir.ops.mknod(dir, name, mode, if device { rdev } else { DevNum::default() }, cx.cred)
    })
}

/// Makes a socket's name (`bind(2)`) and gives the place and its inode. EEXIST when it is there.
pub fn mksocket(cx: &Lookup<'_>, name: &[u8], mode: u32) -> Result<KArc<Inode>> {
    let mut made = None;
    create(cx, None, name, false, |_, dir, name| {
        let mode = Mode(g::S_IFSOCK | mode & Mode::PERMISSIONS & !cx.fs.umask());
        let inode = dir.ops.mknod(dir, name, mode, DevNum::default(), cx.cred)?;
        made = Some(inode.clone());
        Ok(inode)
    })?;
    made.ok_or(Errno::ENOENT)
}

/// `symlink(2)`.
pub fn symlink(cx: &Lookup<'_>, target: &[u8], at: Option<&Path>, name: &[u8]) -> Result {
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    if target.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    create(cx, at, name, false, |_, dir, name| dir.ops.symlink(dir, name, target, cx.cred))
}

/// `linkat(2)`: `flags` are AT_SYMLINK_FOLLOW and AT_EMPTY_PATH.
pub fn link(
    cx: &Lookup<'_>,
    old_at: Option<&Path>,
    old: &[u8],
    new_at: Option<&Path>,
    new: &[u8],
    flags: u32,
) -> Result {
    if flags & !(g::AT_SYMLINK_FOLLOW | g::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut lf = LookupFlags::empty();
    lf.set(LookupFlags::FOLLOW, flags & g::AT_SYMLINK_FOLLOW != 0);
    if flags & g::AT_EMPTY_PATH != 0 && old.is_empty() {
        if !may_link_by_descriptor(cx.cred) {
            return Err(Errno::ENOENT);
        }
        lf |= LookupFlags::EMPTY;
    }
    let source = namei::lookup(cx, old_at, old, lf)?;
    let inode = source.inode()?.clone();
    create(cx, new_at, new, false, |at, dir, name| {
        if !MountRef::ptr_eq(&at.mount, &source.mount) || !KArc::ptr_eq(&dir.sb, &inode.sb) {
            return Err(Errno::EXDEV);
        }
        if inode.has_flag(I_APPEND | I_IMMUTABLE) || inode.is_dir() {
            return Err(Errno::EPERM);
        }
        let _file = inode.lock.write_nested(2);
        if inode.nlink() == 0 && !inode.has_flag(I_LINKABLE) {
            return Err(Errno::ENOENT);
        }
        dir.ops.link(dir, name, &inode)?;
        notify::on_inode(&inode, g::IN_ATTRIB);
        Ok(inode.clone())
    })
}

/// `readlink(2)`. EINVAL for what is no symbolic link.
pub fn readlink(path: &Path) -> Result<KBytes> {
    let inode = path.inode()?;
    if !inode.mode().is_symlink() {
        return Err(Errno::EINVAL);
    }
    if !path.mount.is_read_only() && path.mount.flags() & g::MS_NOATIME == 0 {
        inode.touch_accessed(path.mount.flags() & g::MS_RELATIME == 0);
    }
    inode.ops.readlink(inode)
}

/// `unlink(2)`.
pub fn unlink(cx: &Lookup<'_>, at: Option<&Path>, name: &[u8]) -> Result {
    check_name(name)?;
    let mut walk = Walk::new(cx, at, name);
    if walk.parent()? != Last::Name {
        return Err(Errno::EISDIR);
    }
    let dir = walk.at.inode()?.clone();
    let (victim, last) = {
        let _lock = dir.lock.write();
        let dentry = child_locked(&walk.at.dentry, &dir, walk.last_name())?;
        let victim = dentry.positive()?.clone();
        if walk.trailing {
            return Err(if victim.is_dir() { Errno::EISDIR } else { Errno::ENOTDIR });
        }
        want_write(&walk.at.mount)?;
        may_delete(&dir, &victim, false, cx.cred)?;
        if is_mount_point(&dentry) {
            return Err(Errno::EBUSY);
        }
        let _file = victim.lock.write_nested(2);
        dir.ops.unlink(&dir, walk.last_name(), &victim)?;
        dcache::deleted(&dentry);
        notify::on_inode(&victim, g::IN_ATTRIB);
        let last = victim.retire();
        notify::on_entry(&dir, g::IN_DELETE, walk.last_name(), false);
        (victim.clone(), last)
    };
    // Freeing a large file takes its time: not under the directory's lock.
    if last {
        victim.ops.evict(&victim);
    }
    Ok(())
}

/// `rmdir(2)`.
pub fn rmdir(cx: &Lookup<'_>, at: Option<&Path>, name: &[u8]) -> Result {
    check_name(name)?;
    let mut walk = Walk::new(cx, at, name);
    match walk.parent()? {
        Last::Name => {}
        Last::Dot => return Err(Errno::EINVAL),
        Last::DotDot => return Err(Errno::ENOTEMPTY),
        Last::Root => return Err(Errno::EBUSY),
    }
    let dir = walk.at.inode()?.clone();
    let (victim, last) = {
        let _lock = dir.lock.write();
        let dentry = child_locked(&walk.at.dentry, &dir, walk.last_name())?;
        let victim = dentry.positive()?.clone();
        want_write(&walk.at.mount)?;
        may_delete(&dir, &victim, true, cx.cred)?;
        if is_mount_point(&dentry) {
            return Err(Errno::EBUSY);
        }
        let _inner = victim.lock.write_nested(2);
        dir.ops.rmdir(&dir, walk.last_name(), &victim)?;
        victim.set_flag(I_DEAD);
        dcache::deleted(&dentry);
        let last = victim.retire();
        notify::on_entry(&dir, g::IN_DELETE, walk.last_name(), true);
        (victim.clone(), last)
    };
    if last {
        victim.ops.evict(&victim);
    }
    Ok(())
}

/// `renameat2(2)`. RENAME_WHITEOUT is EINVAL: no file system here has whiteouts.
pub fn rename(
    cx: &Lookup<'_>,
    old_at: Option<&Path>,
    old: &[u8],
    new_at: Option<&Path>,
    new: &[u8],
    flags: u32,
) -> Result {
    if flags & !(g::RENAME_NOREPLACE | g::RENAME_EXCHANGE) != 0
        || flags & g::RENAME_NOREPLACE != 0 && flags & g::RENAME_EXCHANGE != 0
    {
        return Err(Errno::EINVAL);
    }
    let exchange = flags & g::RENAME_EXCHANGE != 0;
    check_name(old)?;
    check_name(new)?;
    let mut from = Walk::new(cx, old_at, old);
    let from_kind = from.parent()?;
    let mut to = Walk::new(cx, new_at, new);
    let to_kind = to.parent()?;
    if !MountRef::ptr_eq(&from.at.mount, &to.at.mount) {
        return Err(Errno::EXDEV);
    }
    if from_kind != Last::Name {
        return Err(Errno::EBUSY);
    }
    if to_kind != Last::Name {
        return Err(if flags & g::RENAME_NOREPLACE != 0 { Errno::EEXIST } else { Errno::EBUSY });
    }
    want_write(&from.at.mount)?;
    let old_dir = from.at.inode()?.clone();
    let new_dir = to.at.inode()?.clone();
    let gone = {
        let locks = Directories::lock(&from.at.dentry, &old_dir, &to.at.dentry, &new_dir);
        let dentry = child_locked(&from.at.dentry, &old_dir, from.last_name())?;
        let inode = dentry.positive()?.clone();
        let target = child_locked(&to.at.dentry, &new_dir, to.last_name())?;
        if flags & g::RENAME_NOREPLACE != 0 && target.inode().is_some() {
            return Err(Errno::EEXIST);
        }
        if exchange {
            let t = target.positive()?;
            if !t.is_dir() && to.trailing {
                return Err(Errno::ENOTDIR);
            }
        }
        if !inode.is_dir() && (from.trailing || !exchange && to.trailing) {
            return Err(Errno::ENOTDIR);
        }
        // A directory cannot go below itself, nor replace one of its own ancestors.
        if locks.two && dentry.is_ancestor_of(&to.at.dentry) {
            return Err(Errno::EINVAL);
        }
        if locks.two && target.is_ancestor_of(&from.at.dentry) {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        move_locked(cx, (&from, &old_dir, &dentry, &inode), (&to, &new_dir, &target), exchange)?
    };
    if let Some(victim) = gone {
        victim.evict_if_unused();
    }
    Ok(())
}

/// The rename itself, directories locked and names looked up. Returns what was replaced.
fn move_locked(
    cx: &Lookup<'_>,
    (from, old_dir, dentry, inode): (&Walk<'_>, &KArc<Inode>, &KArc<Dentry>, &KArc<Inode>),
    (to, new_dir, target): (&Walk<'_>, &KArc<Inode>, &KArc<Dentry>),
    exchange: bool,
) -> Result<Option<KArc<Inode>>> {
    let there = target.inode().cloned();
    // Two names of one file: nothing to do (rename(2)).
    if there.as_ref().is_some_and(|t| KArc::ptr_eq(t, inode)) {
        return Ok(None);
    }
    let is_dir = inode.is_dir();
    may_delete(old_dir, inode, is_dir, cx.cred)?;
    match &there {
        None => may_create(new_dir, cx.cred)?,
        Some(t) => may_delete(new_dir, t, if exchange { t.is_dir() } else { is_dir }, cx.cred)?,
    }
    // A directory that changes its parent is written to: its `..` changes.
    if !KArc::ptr_eq(old_dir, new_dir) {
        if is_dir {
            permission::check(inode, permission::MAY_WRITE, cx.cred)?;
        }
        if let Some(t) = there.as_ref().filter(|t| exchange && t.is_dir()) {
            permission::check(t, permission::MAY_WRITE, cx.cred)?;
        }
    }
    if is_mount_point(dentry) || is_mount_point(target) {
        return Err(Errno::EBUSY);
    }
    let back = exchange.then(|| (&from.at.dentry, from.last_name()));
    let prepared = Relocation::prepare(&to.at.dentry, to.last_name(), back)?;
    let inner = there.as_ref().map(|t| t.lock.write_nested(3));
    old_dir.ops.rename(&Rename {
        old_dir,
        old_name: from.last_name(),
        inode,
        new_dir,
        new_name: to.last_name(),
        target: there.as_ref(),
        exchange,
    })?;
    if let Some(t) = there.as_ref().filter(|t| !exchange && t.is_dir()) {
        t.set_flag(I_DEAD);
    }
    dcache::relocate(dentry, &to.at.dentry, to.last_name(), Some(target), prepared, exchange);
    drop(inner);
    let (here, there_now) = ((&**old_dir, from.last_name()), (&**new_dir, to.last_name()));
    notify::on_move(inode, here, there_now, there.as_deref().filter(|_| !exchange));
    if let Some(t) = there.as_ref().filter(|_| exchange) {
        notify::on_move(t, there_now, here, None);
    }
    Ok(there.filter(|_| !exchange))
}

/// The locks of one or two directories.
struct Directories<'a> {
    two: bool,
    _second: Option<RwWriteGuard<'a, ()>>,
    _first: RwWriteGuard<'a, ()>,
    _rename: Option<sched::MutexGuard<'static, ()>>,
}

impl<'a> Directories<'a> {
    fn lock(old: &KArc<Dentry>, old_dir: &'a Inode, new: &KArc<Dentry>, new_dir: &'a Inode) -> Self {
        if core::ptr::eq(old_dir, new_dir) {
            return Self { two: false, _second: None, _first: old_dir.lock.write(), _rename: None };
        }
        let rename = RENAME.lock();
        // The ancestor first; without one, any order will do while RENAME is held, since nobody
        // else holds two directories that are not parent and child.
        let (first, second) = if new.is_ancestor_of(old) { (new_dir, old_dir) } else { (old_dir, new_dir) };
        let first = first.lock.write();
        let second = second.lock.write_nested(1);
        Self { two: true, _second: Some(second), _first: first, _rename: Some(rename) }
    }
}
