//! `/proc/PID`: what the process layer shows of each process and thread (`proc(5)`).
//!
//! A directory holds a weak reference to its task: when the task is gone, names vanish (ENOENT) and
//! open files give ESRCH. Owner is the task's effective user, or root when the process is not
//! dumpable. What reveals memory or files of a process asks for the right to trace it.

mod files;
mod links;
mod stat;

use crate::{
    init,
    task::{Life, Task},
};
use abi::{Errno, Result, raw::general as g};
use kalloc::{KArc, KWeak, karc_dyn};
use procfs::{Processes, ino_of};
use vfs::{
    Credentials, Emit, Inode, OpenFile, SuperBlock,
    pseudo::{self, Attrs, DirContents, LinkTarget, Reader, SeqBuf, Show, Store},
};

/// Connects procfs with the processes; at boot.
pub fn register() -> Result {
    procfs::set_processes(karc_dyn!(All => dyn Processes)?);
    files::register()
}

struct All;

impl Processes for All {
    fn lookup(&self, sb: &KArc<SuperBlock>, id: u32) -> Result<Option<KArc<Inode>>> {
        let Some(ns) = init::root_pid_namespace() else { return Ok(None) };
        let Some(task) = ns.find(id) else { return Ok(None) };
        directory(sb, &task, true).map(Some)
    }
    fn next(&self, mut from: u32) -> Option<u32> {
        let ns = init::root_pid_namespace()?;
        loop {
            let (id, task) = ns.next_from(from)?;
            // Threads other than leaders are found by name, but not listed.
            if task.is_leader() {
                return Some(id);
            }
            from = id.checked_add(1)?;
        }
    }
    fn counts(&self) -> (usize, u32) {
        init::root_pid_namespace().map_or((0, 0), |ns| (ns.count(), ns.last()))
    }
    fn current(&self) -> Option<(u32, u32)> {
        crate::task::with_current(|t| (t.process.id(), t.id()))
    }
}

/// The task, unless it is gone: reaped, or a thread that ended. Its memory may live on for a while.
fn alive(task: &KWeak<Task>) -> Option<KArc<Task>> {
    let task = task.upgrade()?;
    let gone = task.process.links.lock().life == Life::Reaped || task.has_exited() && !task.is_leader();
    (!gone).then_some(task)
}

/// Whom a file of the directory belongs to.
fn owner(task: &Task) -> (u32, u32) {
    if task.process.is_dumpable() {
        task.with_cred(|c| (c.euid, c.egid)).unwrap_or((0, 0))
    } else {
        (0, 0)
    }
}

fn attrs(task: &Task, number: u64, mode: u32) -> Attrs {
    let (uid, gid) = owner(task);
    Attrs { ino: ino_of(task.id()) | number << 40, mode, uid, gid, volatile: true }
}

fn directory(sb: &KArc<SuperBlock>, task: &KArc<Task>, process: bool) -> Result<KArc<Inode>> {
    let dir = TaskDir { task: KArc::downgrade(task), process };
    pseudo::new_dir(sb, attrs(task, 0, 0o555), karc_dyn!(dir => dyn DirContents)?)
}

/// Whether `cred` may look into the task (`ptrace(2)`, PTRACE_MODE_READ, without LSMs).
pub(crate) fn may_inspect(task: &Task, cred: &Credentials) -> Result {
    let same = task.with_cred(|t| {
        [t.uid, t.euid, t.suid].iter().all(|id| *id == cred.fsuid) && [t.gid, t.egid, t.sgid].iter().all(|id| *id == cred.fsgid)
    })?;
    let dumpable = task.process.is_dumpable();
    if same && dumpable || cred.capable(vfs::Cap::SYS_PTRACE) { Ok(()) } else { Err(Errno::EACCES) }
}

/// Writes a file's text.
type ShowTask = fn(&Task, &mut SeqBuf) -> Result;

enum Entry {
    /// Text for everyone.
    Text(ShowTask),
    /// Text for those who may inspect the task.
    Private(ShowTask),
    /// Text that can be written too.
    Writable(ShowTask, fn(&Task, &[u8]) -> Result),
    Link(fn(&Task) -> Result<vfs::Path>),
    FdDir,
    FdInfoDir,
    TaskDir,
}

struct Named {
    name: &'static str,
    mode: u32,
    entry: Entry,
    /// Only in the directory of a process, not in those of its threads.
    process_only: bool,
}

const fn file(name: &'static str, mode: u32, entry: Entry) -> Named {
    Named { name, mode, entry, process_only: false }
}

static ENTRIES: &[Named] = &[
    Named { name: "task", mode: 0o555, entry: Entry::TaskDir, process_only: true },
    file("fd", 0o500, Entry::FdDir),
    file("fdinfo", 0o555, Entry::FdInfoDir),
    file("environ", 0o400, Entry::Private(files::environ)),
    file("auxv", 0o400, Entry::Private(files::auxv)),
    file("personality", 0o400, Entry::Private(files::personality)),
    file("status", 0o444, Entry::Text(stat::status)),
    file("limits", 0o444, Entry::Text(files::limits)),
    file("comm", 0o644, Entry::Writable(files::comm, files::set_comm)),
    file("cmdline", 0o444, Entry::Text(files::cmdline)),
    file("stat", 0o444, Entry::Text(stat::stat)),
    file("statm", 0o444, Entry::Text(stat::statm)),
    file("maps", 0o444, Entry::Private(files::maps)),
    file("smaps", 0o444, Entry::Private(files::smaps)),
    file("cwd", 0o777, Entry::Link(links::cwd)),
    file("root", 0o777, Entry::Link(links::root)),
    file("exe", 0o777, Entry::Link(links::exe)),
    file("mounts", 0o444, Entry::Text(files::mounts)),
    file("mountinfo", 0o444, Entry::Text(files::mountinfo)),
    file("wchan", 0o444, Entry::Text(files::wchan)),
    file("oom_score", 0o444, Entry::Text(files::oom_score)),
    file("oom_score_adj", 0o644, Entry::Writable(files::oom_score_adj, files::set_oom_score_adj)),
    file("schedstat", 0o444, Entry::Text(stat::schedstat)),
];

struct TaskDir {
    task: KWeak<Task>,
    process: bool,
}

impl DirContents for TaskDir {
    fn lookup(&self, dir: &KArc<Inode>, name: &[u8]) -> Result<Option<KArc<Inode>>> {
        let task = alive(&self.task).ok_or(Errno::ENOENT)?;
        let found = ENTRIES.iter().enumerate().find(|(_, e)| e.name.as_bytes() == name && (self.process || !e.process_only));
        let (number, named) = found.ok_or(Errno::ENOENT)?;
        let a = attrs(&task, number as u64 + 1, named.mode);
        let weak = self.task.clone();
        let sb = &dir.sb;
        let text = |show, private| karc_dyn!(TaskFile { task: weak.clone(), show, private } => dyn Show);
        Ok(Some(match named.entry {
            Entry::Text(show) => pseudo::new_file(sb, a, Some(text(show, false)?), None)?,
            Entry::Private(show) => pseudo::new_file(sb, a, Some(text(show, true)?), None)?,
            Entry::Writable(show, store) => {
                let store = karc_dyn!(TaskStore { task: weak.clone(), store } => dyn Store)?;
                pseudo::new_file(sb, a, Some(text(show, false)?), Some(store))?
            }
            Entry::Link(target) => pseudo::new_link(sb, a, karc_dyn!(links::TaskLink::new(weak, target) => dyn LinkTarget)?)?,
            Entry::FdDir => pseudo::new_dir(sb, a, karc_dyn!(links::FdDir::new(weak, false) => dyn DirContents)?)?,
            Entry::FdInfoDir => pseudo::new_dir(sb, a, karc_dyn!(links::FdDir::new(weak, true) => dyn DirContents)?)?,
            Entry::TaskDir => pseudo::new_dir(sb, a, karc_dyn!(Threads { task: weak } => dyn DirContents)?)?,
        }))
    }

    fn readdir(&self, _f: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> Result {
        let task = alive(&self.task).ok_or(Errno::ENOENT)?;
        for (i, named) in ENTRIES.iter().enumerate().skip(pos.saturating_sub(2) as usize) {
            let next = i as u64 + 3;
            if !self.process && named.process_only {
                *pos = next;
                continue;
            }
            let kind = match named.entry {
                Entry::Text(_) | Entry::Private(_) | Entry::Writable(..) => g::DT_REG,
                Entry::Link(_) => g::DT_LNK,
                _ => g::DT_DIR,
            };
            if !emit(named.name.as_bytes(), ino_of(task.id()) | (i as u64 + 1) << 40, kind as u8, next) {
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

/// Brings the owner up to date.
fn refresh(task: &KWeak<Task>, inode: &Inode) {
    if let Some(task) = task.upgrade() {
        let (uid, gid) = owner(&task);
        inode.set_owner(uid, gid);
    }
}

struct TaskFile {
    task: KWeak<Task>,
    show: ShowTask,
    private: bool,
}

impl Show for TaskFile {
    fn show(&self, out: &mut SeqBuf, _: &Reader<'_>) -> Result {
        let task = alive(&self.task).ok_or(Errno::ESRCH)?;
        (self.show)(&task, out)
    }
    fn may_open(&self, _: &Inode, _flags: u32, cred: &Credentials) -> Result {
        if !self.private {
            return Ok(());
        }
        may_inspect(&*self.task.upgrade().ok_or(Errno::ESRCH)?, cred)
    }
    fn refresh(&self, inode: &Inode) {
        refresh(&self.task, inode);
    }
}

struct TaskStore {
    task: KWeak<Task>,
    store: fn(&Task, &[u8]) -> Result,
}

impl Store for TaskStore {
    fn store(&self, data: &[u8], _pos: u64, _: &Reader<'_>) -> Result<usize> {
        let task = alive(&self.task).ok_or(Errno::ESRCH)?;
        (self.store)(&task, data)?;
        Ok(data.len())
    }
}

/// `/proc/PID/task`
struct Threads {
    task: KWeak<Task>,
}

impl DirContents for Threads {
    fn lookup(&self, dir: &KArc<Inode>, name: &[u8]) -> Result<Option<KArc<Inode>>> {
        let leader = alive(&self.task).ok_or(Errno::ENOENT)?;
        let id = procfs::parse_id(name).ok_or(Errno::ENOENT)?;
        let task = leader.ns()?.pid.find(id).ok_or(Errno::ENOENT)?;
        if !KArc::ptr_eq(&task.process, &leader.process) {
            return Err(Errno::ENOENT);
        }
        directory(&dir.sb, &task, false).map(Some)
    }

    fn readdir(&self, _f: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> Result {
        let leader = alive(&self.task).ok_or(Errno::ENOENT)?;
        let mut threads = leader.process.threads()?;
        if threads.is_empty() {
            // A kernel thread, or a zombie.
            threads.try_push(leader.clone())?;
        }
        threads.sort_unstable_by_key(|t| t.id());
        for t in threads.iter() {
            if u64::from(t.id()) + 2 < *pos {
                continue;
            }
            let mut text = [0u8; 10];
            let next = u64::from(t.id()) + 3;
            if !emit(procfs::decimal(t.id(), &mut text), ino_of(t.id()), g::DT_DIR as u8, next) {
                return Ok(());
            }
            *pos = next;
        }
        Ok(())
    }

    fn caches_absence(&self) -> bool {
        false
    }
}
