//! Who may do what to a file: mode bits, groups, capabilities, sticky directories
//! (`path_resolution(7)`, `capabilities(7)`).

use crate::{Cap, Credentials, Inode, Mount, inode::{I_DEAD, I_IMMUTABLE, I_APPEND}};
use abi::{Errno, Gid, Mode, Result, Uid, raw::general as g};

/// Execute a file, search a directory.
pub const MAY_EXEC: u32 = 1;
/// Write a file, change a directory's entries.
pub const MAY_WRITE: u32 = 2;
/// Read.
pub const MAY_READ: u32 = 4;

/// Checks `mask` (MAY_*) against the file. EACCES; EROFS for writing to a file, directory or
/// symlink of a read-only file system; EPERM for an immutable file.
pub fn check(inode: &Inode, mask: u32, cred: &Credentials) -> Result {
    if mask & MAY_WRITE != 0 {
        let mode = inode.mode();
        if inode.sb.is_read_only() && (mode.is_file() || mode.is_dir() || mode.is_symlink()) {
            return Err(Errno::EROFS);
        }
        if inode.has_flag(I_IMMUTABLE) {
            return Err(Errno::EPERM);
        }
    }
    match inode.ops.permission(inode, mask, cred) {
        Some(answer) => answer,
        None => generic(inode, mask, cred),
    }
}

/// The rule of mode bits and capabilities alone.
pub fn generic(inode: &Inode, mask: u32, cred: &Credentials) -> Result {
    let mode = inode.mode().0;
    if mode_allows(inode, mode, mask, cred) {
        return Ok(());
    }
    if mode & g::S_IFMT == g::S_IFDIR {
        if mask & MAY_WRITE == 0 && cred.capable(Cap::DAC_READ_SEARCH) {
            return Ok(());
        }
        return if cred.capable(Cap::DAC_OVERRIDE) { Ok(()) } else { Err(Errno::EACCES) };
    }
    if mask == MAY_READ && cred.capable(Cap::DAC_READ_SEARCH) {
        return Ok(());
    }
    // Even root executes only what somebody may execute.
    if (mask & MAY_EXEC == 0 || mode & 0o111 != 0) && cred.capable(Cap::DAC_OVERRIDE) {
        return Ok(());
    }
    Err(Errno::EACCES)
}

#[inline]
pub(crate) fn mode_allows(inode: &Inode, mode: u32, mask: u32, cred: &Credentials) -> bool {
    let bits = if cred.fsuid == inode.uid() {
        mode >> 6
    } else if (mode >> 3 ^ mode) & mask == 0 {
        // Group and others have the same say: no need to search the groups.
        mode
    } else if cred.in_group(inode.gid()) {
        mode >> 3
    } else {
        mode
    };
    mask & 7 & !bits == 0
}

/// Whether the caller counts as the file's owner.
pub fn owner_or_capable(inode: &Inode, cred: &Credentials) -> bool {
    cred.fsuid == inode.uid() || cred.capable(Cap::FOWNER)
}

/// Whether anything may be changed through the mount. EROFS.
pub(crate) fn want_write(mount: &Mount) -> Result {
    if mount.is_read_only() { Err(Errno::EROFS) } else { Ok(()) }
}

/// Whether a name may be made in `dir`.
pub(crate) fn may_create(dir: &Inode, cred: &Credentials) -> Result {
    if dir.has_flag(I_DEAD) {
        return Err(Errno::ENOENT);
    }
    check(dir, MAY_WRITE | MAY_EXEC, cred)
}

/// Whether the name of `victim` may be taken out of `dir`; `want_dir`: by rmdir or as a directory
/// that is moved.
pub(crate) fn may_delete(dir: &Inode, victim: &Inode, want_dir: bool, cred: &Credentials) -> Result {
    check(dir, MAY_WRITE | MAY_EXEC, cred)?;
    if dir.has_flag(I_APPEND) || victim.has_flag(I_APPEND | I_IMMUTABLE) || is_sticky(dir, victim, cred) {
        return Err(Errno::EPERM);
    }
    match (want_dir, victim.is_dir()) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        _ if dir.has_flag(I_DEAD) => Err(Errno::ENOENT),
        _ => Ok(()),
    }
}

/// A sticky directory lets only the owners of file or directory take a name out.
fn is_sticky(dir: &Inode, victim: &Inode, cred: &Credentials) -> bool {
    dir.mode().0 & g::S_ISVTX != 0
        && cred.fsuid != victim.uid()
        && cred.fsuid != dir.uid()
        && !cred.capable(Cap::FOWNER)
}

/// Mode, owner and group of a new file in `dir`: a set-group-id directory hands its group on.
pub fn init_owner(dir: &Inode, mode: Mode, cred: &Credentials) -> (Mode, Uid, Gid) {
    if dir.mode().0 & g::S_ISGID == 0 {
        return (mode, cred.fsuid, cred.fsgid);
    }
    let gid = dir.gid();
    let mode = if mode.is_dir() {
        Mode(mode.0 | g::S_ISGID)
    } else if mode.0 & (g::S_ISGID | g::S_IXGRP) == g::S_ISGID | g::S_IXGRP
        && !cred.in_group(gid)
        && !cred.capable(Cap::FSETID)
    {
        Mode(mode.0 & !g::S_ISGID)
    } else {
        mode
    };
    (mode, cred.fsuid, gid)
}
