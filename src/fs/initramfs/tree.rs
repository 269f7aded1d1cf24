//! From archive entries to files, by the VFS's own calls.
//!
//! What is in the way of an entry and of another type is removed first, so that a later archive
//! overrides an earlier one. Entries whose directory does not exist are left out with a warning,
//! as Linux leaves them out.

use crate::{Fault, cpio::Header};
use abi::{DevNum, Errno, Result, raw::general as g};
use kalloc::{KArc, KBytes, KVec};
use vfs::{
    Credentials, FsContext, IoSource, Lookup, LookupFlags, OpenFile, OpenHow, Path, SetTime, Time,
};

/// What becomes of the bytes that follow.
enum Target {
    Nothing,
    File(KArc<OpenFile>),
    Link(KBytes),
}

/// A file that more names may follow for.
struct Linked {
    key: (u32, u32, u32, u32),
    name: KBytes,
}

/// Makes files under a root.
pub(crate) struct Tree {
    fs: KArc<FsContext>,
    cred: KArc<Credentials>,
    target: Target,
    linked: KVec<Linked>,
    /// Directories and their times of change, which entries that follow would spoil.
    dirs: KVec<(KBytes, u32)>,
}

impl From<Errno> for Fault {
    fn from(e: Errno) -> Self {
        Self::File(e)
    }
}
impl From<kalloc::AllocError> for Fault {
    fn from(e: kalloc::AllocError) -> Self {
        Self::File(e.into())
    }
}

/// A name without slashes and dots in front; BadName when it leads out of the tree.
fn clean(name: &[u8]) -> core::result::Result<&[u8], Fault> {
    if name.split(|&b| b == b'/').any(|part| part == b"..") {
        return Err(Fault::BadName);
    }
    let mut rest = name;
    while let Some(r) = rest.strip_prefix(b"/").or_else(|| rest.strip_prefix(b"./")) {
        rest = r;
    }
    Ok(rest)
}

impl Tree {
    pub(crate) fn new(root: &Path) -> Result<Self> {
        Ok(Self {
            fs: FsContext::new(root.clone(), 0)?,
            cred: KArc::try_new(Credentials::root())?,
            target: Target::Nothing,
            linked: KVec::new(),
            dirs: KVec::new(),
        })
    }

    fn cx(&self) -> Lookup<'_> {
        Lookup { fs: &self.fs, cred: &self.cred }
    }

    fn find(&self, name: &[u8]) -> Result<Path> {
        vfs::lookup(&self.cx(), None, name, LookupFlags::empty())
    }

    /// Removes what is at `name` unless it is of type `kind`.
    fn clear_way(&self, name: &[u8], kind: u32) -> Result {
        let Ok(p) = self.find(name) else { return Ok(()) };
        let mode = p.inode()?.mode();
        drop(p);
        if mode.file_type() == kind {
            Ok(())
        } else if mode.is_dir() {
            vfs::rmdir(&self.cx(), None, name)
        } else {
            vfs::unlink(&self.cx(), None, name)
        }
    }

    /// An entry begins. False: it is left out.
    pub(crate) fn begin(&mut self, h: &Header, name: &[u8]) -> core::result::Result<bool, Fault> {
        let name = clean(name)?;
        self.target = Target::Nothing;
        let kind = h.mode & g::S_IFMT;
        if name.is_empty() || name == b"." {
            // The root itself: only its attributes count.
            return if kind == g::S_IFDIR { self.attributes(h, b".").map(|()| true).map_err(Fault::File) } else { Err(Fault::BadName) };
        }
        match self.make(h, name, kind) {
            Ok(target) => {
                self.target = target;
                Ok(true)
            }
            Err(Fault::File(Errno::ENOENT | Errno::ENOTDIR)) => {
                log_skipped(name);
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    fn make(&mut self, h: &Header, name: &[u8], kind: u32) -> core::result::Result<Target, Fault> {
        match kind {
            g::S_IFREG => {
                self.clear_way(name, kind)?;
                let another = self.another_name(h, name)?;
                let flags = g::O_WRONLY | g::O_CREAT | g::O_LARGEFILE | if another { 0 } else { g::O_TRUNC };
                let how = OpenHow { flags, mode: h.mode & 0o7777 };
                let file = vfs::open(&self.cx(), None, name, how)?;
                self.attributes(h, name)?;
                Ok(Target::File(file))
            }
            g::S_IFDIR => {
                self.clear_way(name, kind)?;
                match vfs::mkdir(&self.cx(), None, name, h.mode & 0o7777) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                self.attributes(h, name)?;
                self.dirs.try_push((KBytes::try_from_slice(name)?, h.mtime))?;
                Ok(Target::Nothing)
            }
            g::S_IFLNK => {
                if h.size == 0 || h.size as usize >= vfs::PATH_MAX {
                    return Err(Fault::BadLink);
                }
                Ok(Target::Link(KBytes::try_with_capacity(h.size as usize)?))
            }
            g::S_IFCHR | g::S_IFBLK | g::S_IFIFO | g::S_IFSOCK => {
                self.clear_way(name, kind)?;
                if !self.another_name(h, name)? {
                    let dev = DevNum::new(h.rdev_major & 0xfff, h.rdev_minor & 0xf_ffff);
                    match vfs::mknod(&self.cx(), None, name, kind | h.mode & 0o7777, dev) {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(e) => return Err(e.into()),
                    }
                    self.attributes(h, name)?;
                    self.set_time(h.mtime, name)?;
                }
                Ok(Target::Nothing)
            }
            _ => Err(Fault::BadMode),
        }
    }

    /// Makes `name` another name of a file that came before, if it is one.
    fn another_name(&mut self, h: &Header, name: &[u8]) -> core::result::Result<bool, Fault> {
        if h.nlink < 2 {
            return Ok(false);
        }
        let key = (h.dev_major, h.dev_minor, h.ino, h.mode & g::S_IFMT);
        if let Some(first) = self.linked.iter().find(|l| l.key == key) {
            if first.name.as_slice() == name {
                return Ok(false);
            }
            if self.find(name).is_ok() {
                vfs::unlink(&self.cx(), None, name)?;
            }
            vfs::link(&self.cx(), None, &first.name, None, name, 0)?;
            return Ok(true);
        }
        self.linked.try_push(Linked { key, name: KBytes::try_from_slice(name)? })?;
        Ok(false)
    }

    fn attributes(&self, h: &Header, name: &[u8]) -> Result {
        let p = self.find(name)?;
        vfs::chown(&p, &self.cred, Some(h.uid), Some(h.gid))?;
        vfs::chmod(&p, &self.cred, h.mode & 0o7777)
    }

    fn set_time(&self, mtime: u32, name: &[u8]) -> Result {
        let t = SetTime::To(Time { secs: i64::from(mtime), nanos: 0 });
        vfs::utimens(&self.find(name)?, &self.cred, t, t)
    }

    /// Bytes of the present entry.
    pub(crate) fn data(&mut self, mut part: &[u8]) -> core::result::Result<(), Fault> {
        match &mut self.target {
            Target::Nothing => {}
            Target::Link(text) => text.try_extend_from_slice(part)?,
            Target::File(f) => {
                while !part.is_empty() {
                    let n = f.write(&mut IoSource::kernel(part), u64::MAX)?;
                    if n == 0 {
                        return Err(Fault::File(Errno::EIO));
                    }
                    part = part.get(n..).unwrap_or(&[]);
                }
            }
        }
        Ok(())
    }

    /// The present entry is complete.
    pub(crate) fn end(&mut self, h: &Header, name: &[u8]) -> core::result::Result<(), Fault> {
        let name = clean(name)?;
        match core::mem::replace(&mut self.target, Target::Nothing) {
            Target::Nothing => {}
            Target::File(_) => self.set_time(h.mtime, name)?,
            Target::Link(text) => {
                if text.contains(&0) {
                    return Err(Fault::BadLink);
                }
                let made = self.clear_way(name, u32::MAX).and_then(|()| {
                    vfs::symlink(&self.cx(), &text, None, name)?;
                    vfs::chown(&self.find(name)?, &self.cred, Some(h.uid), Some(h.gid))?;
                    self.set_time(h.mtime, name)
                });
                match made {
                    Err(Errno::ENOENT | Errno::ENOTDIR) => log_skipped(name),
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Links do not reach into the next archive.
    pub(crate) fn end_of_archive(&mut self) {
        self.linked.clear();
        for (name, mtime) in core::mem::take(&mut self.dirs).iter() {
            // One that a later entry has replaced is gone.
            let _ = self.set_time(*mtime, name);
        }
    }
}

fn log_skipped(name: &[u8]) {
    log::warn!("initramfs: {}: its directory is not in the archive, left out", name.escape_ascii());
}
