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
        may_inspect(&task)?;
        text_of(&self.path()?)
    }
    fn follow(&self, _: &Inode, _: &Credentials) -> Result<Link> {
        may_inspect(&*self.task.upgrade().ok_or(Errno::ENOENT)?)?;
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
        // The link's own mode says how the file is open.
        let mode = if self.info {
            0o444
        } else {
            0o100 | if file.may_read() { 0o400 } else { 0 } | if file.may_write() { 0o200 } else { 0 }
        };
        let (uid, gid) = super::owner(&task, mode);
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

    /// The mode bits, and a process may always look at its own.
    fn permission(&self, inode: &Inode, mask: u32, cred: &Credentials) -> Option<Result> {
        if self.info {
            return (mask & vfs::MAY_READ != 0).then(|| may_inspect(&*self.task.upgrade().ok_or(Errno::ENOENT)?));
        }
        let own = || {
            let task = self.task.upgrade();
            crate::task::with_current(|me| task.is_some_and(|t| KArc::ptr_eq(&t.process, &me.process))).unwrap_or(false)
        };
        Some(vfs::permission::generic(inode, mask, cred).or_else(|e| if own() { Ok(()) } else { Err(e) }))
    }

    fn has_permission_rules(&self) -> bool {
        true
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
        may_inspect(&*self.task.upgrade().ok_or(Errno::ENOENT)?)?;
        text_of(&self.file()?.path)
    }
    fn follow(&self, _: &Inode, _: &Credentials) -> Result<Link> {
        may_inspect(&*self.task.upgrade().ok_or(Errno::ENOENT)?)?;
        Ok(Link::Jump(self.file()?.path.clone()))
    }
    fn refresh(&self, inode: &Inode) {
        refresh(&self.task, inode);
    }
}

impl Show for FdEntry {
    fn may_open(&self, _: &Inode, _: u32, _: &Credentials) -> Result {
        may_inspect(&*self.task.upgrade().ok_or(Errno::ENOENT)?)
    }
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

/// Names in `/proc/PID/ns`, for the kinds that this kernel has: the kind, and the inode number of
/// its first namespace, which is fixed (as Linux numbers them).
const NAMESPACES: [(&str, &str, u32); 4] = [
    ("mnt", "mnt", 0xf000_0001),
    ("pid", "pid", 0xefff_fffc),
    ("pid_for_children", "pid", 0xefff_fffc),
    ("uts", "uts", 0xefff_fffe),
];

/// `/proc/PID/ns`
pub(super) struct NamespaceDir {
    task: KWeak<Task>,
}

impl NamespaceDir {
    pub(super) fn new(task: KWeak<Task>) -> Self {
        Self { task }
    }
    fn ino(task: &Task, i: usize) -> u64 {
        procfs::ino_of(task.id()) | (0x80 + i as u64) << 40
    }
}

impl DirContents for NamespaceDir {
    fn lookup(&self, dir: &KArc<Inode>, name: &[u8]) -> Result<Option<KArc<Inode>>> {
        let task = super::alive(&self.task).ok_or(Errno::ENOENT)?;
        let (i, (_, kind, ns)) =
            NAMESPACES.iter().enumerate().find(|(_, n)| n.0.as_bytes() == name).ok_or(Errno::ENOENT)?;
        let (uid, gid) = super::owner(&task, 0o777);
        let a = Attrs { ino: Self::ino(&task, i), mode: 0o777, uid, gid, volatile: true };
        let link = NamespaceLink { task: self.task.clone(), kind, ns: *ns };
        Ok(Some(pseudo::new_link(&dir.sb, a, karc_dyn!(link => dyn LinkTarget)?)?))
    }
    fn readdir(&self, _f: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> Result {
        let task = super::alive(&self.task).ok_or(Errno::ENOENT)?;
        for (i, n) in NAMESPACES.iter().enumerate().skip(pos.saturating_sub(2) as usize) {
            let next = i as u64 + 3;
            if !emit(n.0.as_bytes(), Self::ino(&task, i), g::DT_LNK as u8, next) {
                return Ok(());
            }
            *pos = next;
        }
        Ok(())
    }
    fn caches_absence(&self) -> bool {
        false
    }
    fn refresh(&self, inode: &Inode) {
        refresh(&self.task, inode);
    }
}

struct NamespaceLink {
    task: KWeak<Task>,
    kind: &'static str,
    ns: u32,
}

impl LinkTarget for NamespaceLink {
    fn text(&self, _: &Inode) -> Result<KBytes> {
        may_inspect(&*self.task.upgrade().ok_or(Errno::ENOENT)?)?;
        Ok(kalloc::kformat!("{}:[{}]", self.kind, self.ns)?.into_bytes())
    }
    fn refresh(&self, inode: &Inode) {
        refresh(&self.task, inode);
    }
}
