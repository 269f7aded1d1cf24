//! The links of a process's directory: cwd, root, exe, and the descriptors.

use super::{may_inspect, refresh};
use crate::task::Task;
use abi::{Errno, Result, raw::general as g};
use core::fmt::Write;
use kalloc::{KArc, KBytes, KWeak, karc_dyn};
use vfs::{
    Credentials, Emit, Fd, Inode, Link, OpenFile, Path, d_path,
    pseudo::{self, Attrs, DirContents, LinkTarget, Reader, SeqBuf, Show, no_memory},
};

pub(super) fn cwd(task: &Task) -> Result<Path> {
    Ok(task.fs().map_err(|_| Errno::ENOENT)?.cwd())
}

pub(super) fn root(task: &Task) -> Result<Path> {
    Ok(task.fs().map_err(|_| Errno::ENOENT)?.root())
}

pub(super) fn exe(task: &Task) -> Result<Path> {
    crate::exec::executable(&task.process).ok_or(Errno::ENOENT)
}

pub(super) struct TaskLink {
    task: KWeak<Task>,
    target: fn(&Task) -> Result<Path>,
}

impl TaskLink {
    pub(super) fn new(task: KWeak<Task>, target: fn(&Task) -> Result<Path>) -> Self {
        Self { task, target }
    }
    fn path(&self) -> Result<Path> {
        (self.target)(&*self.task.upgrade().ok_or(Errno::ENOENT)?)
    }
}

/// A path as the reader's root shows it.
fn text_of(path: &Path) -> Result<KBytes> {
    let root = crate::task::with_current(|t| t.fs().map(|fs| fs.root())).ok_or(Errno::ENOENT)??;
    d_path(path, &root)?.decorated()
}

impl LinkTarget for TaskLink {
    fn text(&self, _: &Inode) -> Result<KBytes> {
        let task = self.task.upgrade().ok_or(Errno::ENOENT)?;
        let cred = crate::task::with_current(Task::cred).ok_or(Errno::EACCES)??;
        may_inspect(&task, &cred)?;
        text_of(&self.path()?)
    }
    fn follow(&self, _: &Inode, cred: &Credentials) -> Result<Link> {
        may_inspect(&*self.task.upgrade().ok_or(Errno::ENOENT)?, cred)?;
        Ok(Link::Jump(self.path()?))
    }
    fn refresh(&self, inode: &Inode) {
        refresh(&self.task, inode);
    }
}

/// `/proc/PID/fd` and, with `info`, `/proc/PID/fdinfo`.
pub(super) struct FdDir {
    task: KWeak<Task>,
    info: bool,
}

impl FdDir {
    pub(super) fn new(task: KWeak<Task>, info: bool) -> Self {
        Self { task, info }
    }
}

impl DirContents for FdDir {
    fn lookup(&self, dir: &KArc<Inode>, name: &[u8]) -> Result<Option<KArc<Inode>>> {
        let task = super::alive(&self.task).ok_or(Errno::ENOENT)?;
        let number = if name == b"0" { Some(0) } else { procfs::parse_id(name) };
        let fd = number.map(Fd).ok_or(Errno::ENOENT)?;
        let file = task.file(fd).map_err(|_| Errno::ENOENT)?;
        let (uid, gid) = super::owner(&task);
        // The link's own mode says how the file is open.
        let mode = if self.info {
            0o444
        } else {
            0o100 | if file.may_read() { 0o400 } else { 0 } | if file.may_write() { 0o200 } else { 0 }
        };
        let ino = procfs::ino_of(task.id()) | (0x100 + u64::from(fd.0)) << 40;
        let a = Attrs { ino, mode, uid, gid, volatile: true };
        let entry = FdEntry { task: self.task.clone(), fd };
        Ok(Some(if self.info {
            pseudo::new_file(&dir.sb, a, Some(karc_dyn!(entry => dyn Show)?), None)?
        } else {
            pseudo::new_link(&dir.sb, a, karc_dyn!(entry => dyn LinkTarget)?)?
        }))
    }

    fn readdir(&self, _f: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> Result {
        let task = super::alive(&self.task).ok_or(Errno::ENOENT)?;
        let Ok(files) = task.files() else { return Ok(()) };
        while let Some((fd, _file)) = files.next(Fd(pos.saturating_sub(2) as u32)) {
            let mut text = [0u8; 10];
            let next = u64::from(fd.0) + 3;
            let kind = if self.info { g::DT_REG } else { g::DT_LNK };
            let ino = procfs::ino_of(task.id()) | (0x100 + u64::from(fd.0)) << 40;
            if !emit(procfs::decimal(fd.0, &mut text), ino, kind as u8, next) {
                return Ok(());
            }
            *pos = next;
        }
        Ok(())
    }

    fn caches_absence(&self) -> bool {
        false
    }

    fn permission(&self, _: &Inode, _mask: u32, cred: &Credentials) -> Option<Result> {
        Some(self.task.upgrade().ok_or(Errno::ENOENT).and_then(|t| may_inspect(&t, cred)))
    }

    fn has_permission_rules(&self) -> bool {
        !self.info
    }

    fn refresh(&self, inode: &Inode) {
        refresh(&self.task, inode);
    }
}

struct FdEntry {
    task: KWeak<Task>,
    fd: Fd,
}

impl FdEntry {
    fn file(&self) -> Result<KArc<OpenFile>> {
        self.task.upgrade().ok_or(Errno::ENOENT)?.file(self.fd).map_err(|_| Errno::ENOENT)
    }
}

impl LinkTarget for FdEntry {
    fn text(&self, _: &Inode) -> Result<KBytes> {
        text_of(&self.file()?.path)
    }
    fn follow(&self, _: &Inode, cred: &Credentials) -> Result<Link> {
        may_inspect(&*self.task.upgrade().ok_or(Errno::ENOENT)?, cred)?;
        Ok(Link::Jump(self.file()?.path.clone()))
    }
    fn refresh(&self, inode: &Inode) {
        refresh(&self.task, inode);
    }
}

impl Show for FdEntry {
    fn show(&self, out: &mut SeqBuf, _: &Reader<'_>) -> Result {
        let file = self.file()?;
        let task = self.task.upgrade().ok_or(Errno::ENOENT)?;
        let cloexec = task.files()?.is_cloexec(self.fd).unwrap_or(false);
        let flags = file.flags() | if cloexec { g::O_CLOEXEC } else { 0 };
        writeln!(out, "pos:\t{}\nflags:\t0{flags:o}\nmnt_id:\t{}\nino:\t{}", file.position(), file.path.mount.mount().id, file.inode.ino)
            .map_err(no_memory)?;
        file.ops.fdinfo(&file, out).map_err(no_memory)
    }
}
