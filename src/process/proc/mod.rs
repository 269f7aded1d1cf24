//! `/proc/PID`: what the process layer shows of each process and thread (`proc(5)`).
//!
//! A directory holds a weak reference to its task: when the task is gone, names vanish (ENOENT) and
//! open files give ESRCH. Owner is the task's effective user, or root when the process is not
//! dumpable. What reveals memory or files of a process asks for the right to trace it: most at
//! open, for the memory that the process then has; a few at each read.

mod attributes;
mod files;
mod links;
mod memory;
mod mounts;
mod stat;
mod sysctl;

pub(crate) use memory::auxv;

use crate::{
    init,
    ptrace::{
        self,
        access::{Access, Ids},
    },
    task::{Life, Task},
};
use abi::{Errno, Result, raw::general as g};
use core::ops::Deref;
use kalloc::{KArc, KWeak, karc_dyn};
use memory::{Kind, MemoryFile};
use procfs::{Processes, ino_of};
use vfs::{
    Emit, Inode, OpenFile, SuperBlock,
    pseudo::{self, Attrs, DirContents, LinkTarget, OpenWith, Reader, SeqBuf, Show, Store},
};

/// Connects procfs with the processes; at boot.
pub fn register() -> Result {
    procfs::set_processes(karc_dyn!(All => dyn Processes)?);
    mounts::register()?;
    sysctl::register()
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

/// Whom a file of the directory belongs to. Directories that everyone may search belong to the
/// user also when the process is not dumpable, so that `ps` tells whose it is.
fn owner(task: &Task, mode: u32) -> (u32, u32) {
    if mode & 0o777 == 0o555 || task.process.is_dumpable() {
        task.with_cred(|c| (c.euid, c.egid)).unwrap_or((0, 0))
    } else {
        (0, 0)
    }
}

fn attrs(task: &Task, number: u64, mode: u32) -> Attrs {
    let (uid, gid) = owner(task, mode);
    Attrs { ino: ino_of(task.id()) | number << 40, mode, uid, gid, volatile: true }
}

fn directory(sb: &KArc<SuperBlock>, task: &KArc<Task>, process: bool) -> Result<KArc<Inode>> {
    let dir = TaskDir { task: KArc::downgrade(task), process };
    pseudo::new_dir(sb, attrs(task, 0, 0o555), karc_dyn!(dir => dyn DirContents)?)
}

/// Whether the current task may look into the task: EACCES otherwise.
fn may_inspect(task: &Task) -> Result {
    allowed(task, Access::Read).map_err(|_| Errno::EACCES)
}

/// Whether the current task may do so to the task: EPERM otherwise.
fn allowed(task: &Task, access: Access) -> Result {
    crate::task::with_current(|me| ptrace::access::check(me, task, access, Ids::Fs)).unwrap_or(Err(Errno::EPERM))
}

/// What is shown: a task, or with it the whole process that it leads.
struct View {
    task: KArc<Task>,
    whole: bool,
}

impl Deref for View {
    type Target = Task;
    fn deref(&self) -> &Task {
        &self.task
    }
}

/// Writes a file's text.
type ShowTask = fn(&View, &mut SeqBuf) -> Result;

enum Entry {
    /// Text for everyone.
    Text(ShowTask),
    /// Text that can be written too.
    Writable(ShowTask, fn(&Task, &[u8]) -> Result),
    /// The memory, in one form or another.
    Memory(Kind),
    Link(fn(&Task) -> Result<vfs::Path>),
    FdDir,
    FdInfoDir,
    TaskDir,
    NamespaceDir,
}

/// In which directories a file is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Both,
    Process,
    Thread,
}

struct Named {
    name: &'static str,
    mode: u32,
    entry: Entry,
    of: Of,
}

const fn file(name: &'static str, mode: u32, entry: Entry) -> Named {
    Named { name, mode, entry, of: Of::Both }
}

const fn only(of: Of, name: &'static str, mode: u32, entry: Entry) -> Named {
    Named { name, mode, entry, of }
}

const fn memory_text(show: memory::ShowMemory) -> Entry {
    Entry::Memory(Kind::Text(show))
}

static ENTRIES: &[Named] = &[
    only(Of::Process, "task", 0o555, Entry::TaskDir),
    file("fd", 0o500, Entry::FdDir),
    file("fdinfo", 0o555, Entry::FdInfoDir),
    file("ns", 0o511, Entry::NamespaceDir),
    file("environ", 0o400, memory_text(memory::environ)),
    file("auxv", 0o400, memory_text(memory::auxv)),
    file("personality", 0o400, Entry::Text(files::personality)),
    file("coredump_filter", 0o644, Entry::Writable(files::coredump_filter, files::set_coredump_filter)),
    file("status", 0o444, Entry::Text(stat::status)),
    file("limits", 0o444, Entry::Text(files::limits)),
    file("sched", 0o444, Entry::Text(stat::sched)),
    file("comm", 0o644, Entry::Writable(files::comm, files::set_comm)),
    file("cmdline", 0o444, Entry::Text(files::cmdline)),
    file("stat", 0o444, Entry::Text(stat::stat)),
    file("statm", 0o444, Entry::Text(stat::statm)),
    file("maps", 0o444, Entry::Memory(Kind::Areas(memory::maps))),
    only(Of::Thread, "children", 0o444, Entry::Text(files::children)),
    file("mem", 0o600, Entry::Memory(Kind::Bytes)),
    file("cwd", 0o777, Entry::Link(links::cwd)),
    file("root", 0o777, Entry::Link(links::root)),
    file("exe", 0o777, Entry::Link(links::exe)),
    file("mounts", 0o444, Entry::Text(mounts::mounts)),
    file("mountinfo", 0o444, Entry::Text(mounts::mountinfo)),
    only(Of::Process, "mountstats", 0o400, Entry::Text(mounts::mountstats)),
    file("smaps", 0o444, Entry::Memory(Kind::Areas(memory::smaps))),
    file("smaps_rollup", 0o444, Entry::Memory(Kind::Areas(memory::smaps_rollup))),
    file("pagemap", 0o400, Entry::Memory(Kind::Pages)),
    file("wchan", 0o444, Entry::Text(files::wchan)),
    file("schedstat", 0o444, Entry::Text(stat::schedstat)),
    file("cgroup", 0o444, Entry::Text(files::cgroup)),
    file("oom_score", 0o444, Entry::Text(attributes::oom_score)),
    file("oom_adj", 0o644, Entry::Writable(attributes::oom_adj, attributes::set_oom_adj)),
    file("oom_score_adj", 0o644, Entry::Writable(attributes::oom_score_adj, attributes::set_oom_score_adj)),
    file("loginuid", 0o644, Entry::Writable(attributes::loginuid, attributes::set_loginuid)),
    file("sessionid", 0o444, Entry::Text(attributes::sessionid)),
    file("io", 0o400, Entry::Text(stat::io)),
    only(Of::Process, "timerslack_ns", 0o666, Entry::Writable(attributes::timer_slack, attributes::set_timer_slack)),
    #[cfg(debug_assertions)]
    file("fail-nth", 0o644, Entry::Writable(files::fail_nth, files::set_fail_nth)),
];

struct TaskDir {
    task: KWeak<Task>,
    process: bool,
}

impl TaskDir {
    fn has(&self, named: &Named) -> bool {
        named.of != if self.process { Of::Thread } else { Of::Process }
    }
}

/// The leader of the process whose /proc directory a file is: None for other files, ESRCH when the
/// process is gone. Such a descriptor is as good as a pidfd (`pidfd_send_signal(2)`).
pub(crate) fn process_of_directory(f: &OpenFile) -> Option<Result<KArc<Task>>> {
    let dir: &TaskDir = pseudo::contents_of(f)?;
    dir.process.then(|| alive(&dir.task).ok_or(Errno::ESRCH))
}

impl DirContents for TaskDir {
    fn as_any(&self) -> Option<&dyn core::any::Any> {
        Some(self)
    }

    fn lookup(&self, dir: &KArc<Inode>, name: &[u8]) -> Result<Option<KArc<Inode>>> {
        let task = alive(&self.task).ok_or(Errno::ENOENT)?;
        let found = ENTRIES.iter().enumerate().find(|(_, e)| e.name.as_bytes() == name && self.has(e));
        let (number, named) = found.ok_or(Errno::ENOENT)?;
        let a = attrs(&task, number as u64 + 1, named.mode);
        let weak = self.task.clone();
        let sb = &dir.sb;
        let text = |show| karc_dyn!(TaskFile { task: weak.clone(), show, whole: self.process } => dyn Show);
        Ok(Some(match named.entry {
            Entry::Text(show) => pseudo::new_file(sb, a, Some(text(show)?), None)?,
            Entry::Memory(kind) => pseudo::new_custom(sb, a, karc_dyn!(MemoryFile { task: weak, kind } => dyn OpenWith)?)?,
            Entry::Writable(show, store) => {
                let store = karc_dyn!(TaskStore { task: weak.clone(), store } => dyn Store)?;
                pseudo::new_file(sb, a, Some(text(show)?), Some(store))?
            }
            Entry::Link(target) => pseudo::new_link(sb, a, karc_dyn!(links::TaskLink::new(weak, target) => dyn LinkTarget)?)?,
            Entry::FdDir => pseudo::new_dir(sb, a, karc_dyn!(links::FdDir::new(weak, false) => dyn DirContents)?)?,
            Entry::FdInfoDir => pseudo::new_dir(sb, a, karc_dyn!(links::FdDir::new(weak, true) => dyn DirContents)?)?,
            Entry::TaskDir => pseudo::new_dir(sb, a, karc_dyn!(Threads { task: weak } => dyn DirContents)?)?,
            Entry::NamespaceDir => pseudo::new_dir(sb, a, karc_dyn!(links::NamespaceDir::new(weak) => dyn DirContents)?)?,
        }))
    }

    fn readdir(&self, _f: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> Result {
        let task = alive(&self.task).ok_or(Errno::ENOENT)?;
        for (i, named) in ENTRIES.iter().enumerate().skip(pos.saturating_sub(2) as usize) {
            let next = i as u64 + 3;
            if !self.has(named) {
                *pos = next;
                continue;
            }
            let kind = match named.entry {
                Entry::Text(_) | Entry::Memory(_) | Entry::Writable(..) => g::DT_REG,
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
        let (uid, gid) = owner(&task, inode.mode().0);
        inode.set_owner(uid, gid);
    }
}

struct TaskFile {
    task: KWeak<Task>,
    show: ShowTask,
    whole: bool,
}

impl Show for TaskFile {
    fn show(&self, out: &mut SeqBuf, _: &Reader<'_>) -> Result {
        let task = alive(&self.task).ok_or(Errno::ESRCH)?;
        (self.show)(&View { task, whole: self.whole }, out)
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
