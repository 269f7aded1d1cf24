//! Mounting (`mount(2)`, `umount(2)`, `pivot_root(2)`).

use crate::{
    args::{DirFd, UserPath},
    dirs::place,
};
use abi::{Errno, PAGE_SIZE, Result, UserAddr, raw::general as g};
use arch::user::UserSlice;
use kalloc::KBytes;
use process::Task;
use vfs::{LookupFlags, MountArgs};

const HERE: DirFd = DirFd(g::AT_FDCWD);

/// A string argument of mount: NULL is absent; longer than a page is EINVAL.
fn string(addr: UserAddr) -> Result<Option<KBytes>> {
    if addr.is_null() {
        return Ok(None);
    }
    let mut out = KBytes::try_from_elem(0, PAGE_SIZE)?;
    let n = arch::user::copy_str_from_user(&mut out, addr).map_err(|_| Errno::EFAULT)?;
    if n >= out.len() {
        return Err(Errno::EINVAL);
    }
    out.truncate(n);
    Ok(Some(out))
}

/// The options: up to a page of them, as much as can be read (`mount(2)`).
fn options(addr: UserAddr) -> Result<KBytes> {
    if addr.is_null() {
        return Ok(KBytes::new());
    }
    let mut out = KBytes::try_from_elem(0, PAGE_SIZE)?;
    let n = UserSlice::new(addr, PAGE_SIZE - 1).read_partial(&mut out);
    if n == 0 {
        return Err(Errno::EFAULT);
    }
    let end = out.iter().take(n).position(|b| *b == 0).unwrap_or(n);
    out.truncate(end);
    Ok(out)
}

pub fn mount(task: &Task, source: UserAddr, target: UserPath, fstype: UserAddr, flags: u64, data: UserAddr) -> Result {
    let fstype = string(fstype)?;
    let source = string(source)?;
    let data = options(data)?;
    let flags = flags as u32;
    let target = place(task, HERE, target, LookupFlags::FOLLOW)?;
    let from = match &source {
        Some(path) if flags & (g::MS_BIND | g::MS_MOVE) != 0 && flags & g::MS_REMOUNT == 0 => {
            let (fs, cred) = (task.fs()?, task.cred()?);
            Some(vfs::lookup(&vfs::Lookup { fs: &fs, cred: &cred }, None, path, LookupFlags::FOLLOW)?)
        }
        _ => None,
    };
    let args = MountArgs { source: source.as_deref().unwrap_or(b"none"), fstype: fstype.as_deref(), flags, data: &data };
    task.with_cred_arc(|c| vfs::mount(c, &args, from, target))
}

pub fn umount2(task: &Task, target: UserPath, flags: u32) -> Result {
    let follow = if flags & g::UMOUNT_NOFOLLOW != 0 { LookupFlags::empty() } else { LookupFlags::FOLLOW };
    let target = place(task, HERE, target, follow)?;
    task.with_cred_arc(|c| vfs::umount(c, target, flags))
}

pub fn pivot_root(task: &Task, new_root: UserPath, put_old: UserPath) -> Result {
    let new_root = place(task, HERE, new_root, LookupFlags::FOLLOW | LookupFlags::DIRECTORY)?;
    let put_old = place(task, HERE, put_old, LookupFlags::FOLLOW | LookupFlags::DIRECTORY)?;
    let fs = task.fs()?;
    task.with_cred_arc(|c| vfs::pivot_root(c, &fs, new_root, put_old, process::replace_roots))
}
