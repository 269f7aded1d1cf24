//! Core dumps (`core(5)`): what is left of a process that a signal ended.
//!
//! The thread that took the signal sets the end of the process, so that no other thread runs user
//! code any more, and waits until each of them has either left or come to [`stand_still`] with its
//! registers. Then it writes the file ([`file`]) and lets the others go on to their end. SIGKILL ends
//! the writing; what is written then stays, as when the disk is full.
//!
//! Policy: RLIMIT_CORE, the process's [`Dumpable`], /proc/sys/kernel/core_pattern ([`pattern`]).
//! Cores are not piped to programs: such a pattern is refused.
//!
//! Locks: the list of snapshots (`process.core`) within the process's signal lock. The writing holds
//! none.

mod file;
mod notes;
mod pattern;

use crate::{
    signal::{SigInfo, SigSet},
    task::{Dumpable, Task},
};
use abi::{Errno, PAGE_SIZE, Result, raw::general as g};
use arch::{
    UserRegs,
    fp::FpRegs,
    thread::{FATAL_PENDING, SIGNAL_PENDING},
};
use kalloc::{KArc, KVec};
use sched::{Completion, Outcome, Sleep};
use sync::{LockClass, SpinLock, atomic::Ordering};
use vfs::{Lookup, OpenFile, OpenHow};

pub(crate) use pattern::init;

static CLASS: LockClass = LockClass::new("process.core", 1014);

/// Which mappings go into a core when nobody has said: anonymous ones, private and shared, and the
/// first page of ELF files (`core(5)`, coredump_filter).
pub(crate) const DEFAULT_FILTER: u32 = 0x33;

/// What a core says about one thread.
pub(crate) struct Snapshot {
    tid: u32,
    pending: SigSet,
    blocked: SigSet,
    regs: UserRegs,
    fp: FpRegs,
    tls: u64,
}

impl Snapshot {
    /// The current thread.
    fn take(task: &Task, regs: &UserRegs) -> Self {
        let _s = task.process.signals.lock_irq();
        let sig = task.signals.lock();
        let (pending, blocked) = (sig.queue.pending(), sig.blocked);
        drop(sig);
        drop(_s);
        let head = arch::thread::current();
        Self { tid: task.id(), pending, blocked, regs: *regs, fp: arch::fp::read(head), tls: head.tls() }
    }
}

/// A dump that is under way.
pub(crate) struct Core {
    /// The threads that stand still.
    others: SpinLock<KVec<Snapshot>>,
    done: Completion,
}

/// Called by a thread on its way out of a dying process: waits until a core that is being written
/// is complete.
pub(crate) fn stand_still(task: &Task, regs: &UserRegs) {
    let core = task.process.signals.lock_irq().core.clone();
    let Some(core) = core else { return };
    let snapshot = Snapshot::take(task, regs);
    let stored = core.others.lock().push_within_capacity(snapshot).is_ok();
    if !stored {
        // More threads than there were when the room was made: the core has no place for it.
        return;
    }
    task.process.members_gone.wake_all();
    let _ = core.done.wait_until(Sleep::Uninterruptible, None);
}

/// Ends the process of the current thread by `info`'s signal, and writes a core if it is to leave
/// one. The status for `wait(2)`.
pub(crate) fn end_process(task: &Task, regs: &UserRegs, info: &SigInfo) -> u32 {
    let process = &task.process;
    let status = info.signal.number();
    let core = match wanted(task) {
        // Room first: the list is filled with a spin lock held.
        true => KVec::try_with_capacity(process.thread_count())
            .and_then(|room| KArc::try_new(Core { others: SpinLock::new(room, &CLASS), done: Completion::new() }))
            .ok(),
        false => None,
    };
    {
        let mut s = process.signals.lock_irq();
        if let Some(earlier) = s.group_exit {
            drop(s);
            // Another thread crashed a moment before: this one is part of its core.
            stand_still(task, regs);
            return earlier;
        }
        s.begin_group_exit(status);
        s.core = core.clone();
        if core.is_some() {
            // From here on only SIGKILL is news to this thread.
            arch::thread::current().clear_flag(SIGNAL_PENDING | FATAL_PENDING);
        }
    }
    let Some(core) = core else { return status };
    let still = process.members_gone.wait_until(Sleep::Killable, None, || {
        let s = process.signals.lock_irq();
        (s.members.len() == core.others.lock().len() + 1).then_some(())
    });
    let others = core::mem::take(&mut *core.others.lock());
    let written = matches!(still, Outcome::Ready(())) && write(task, regs, info, &others).is_ok();
    {
        let mut s = process.signals.lock_irq();
        s.core = None;
        if written {
            s.group_exit = Some(status | crate::exit::CORE_DUMPED);
        }
    }
    core.done.complete_all();
    if written { status | crate::exit::CORE_DUMPED } else { status }
}

/// Whether the process leaves a core at all.
fn wanted(task: &Task) -> bool {
    let process = &task.process;
    task.mm().is_some()
        && process.dumpable() != Dumpable::No
        && process.limit(g::RLIMIT_CORE) >= PAGE_SIZE as u64
        && pattern::is_set()
}

fn write(task: &Task, regs: &UserRegs, info: &SigInfo, others: &[Snapshot]) -> Result {
    let mm = task.mm().ok_or(Errno::ESRCH)?;
    let first = Snapshot::take(task, regs);
    let notes = notes::all(task, &mm, info, &first, others)?;
    let out = open(task, info)?;
    let limit = task.process.limit(g::RLIMIT_CORE);
    let filter = task.process.coredump_filter.load(Ordering::Relaxed);
    let dying = || arch::thread::current().test_flag(FATAL_PENDING);
    // A core that the limit, the disk or SIGKILL cut short is one, too.
    let _ = file::write(&out, &*task.cred()?, &mm, &notes, filter, limit, &dying);
    Ok(())
}

/// Makes the file, anew, so that nobody else can have prepared it: what had its name goes, unless the
/// process runs with other rights. Then the core is root's, at an absolute path, and whatever is
/// there already stays.
fn open(task: &Task, info: &SigInfo) -> Result<KArc<OpenFile>> {
    let careful = task.process.dumpable() == Dumpable::Root;
    let name = pattern::name(task, info)?;
    if careful && name.first() != Some(&b'/') {
        log::warn!("process {}: a core of a set-id program needs an absolute core_pattern", task.process.id());
        return Err(Errno::EPERM);
    }
    let (fs, mut cred) = (task.fs()?, task.cred()?);
    let flags = g::O_CREAT | g::O_EXCL | g::O_RDWR | g::O_NOFOLLOW | g::O_LARGEFILE;
    if careful {
        let mut root = kalloc::TryClone::try_clone(&*cred)?;
        root.fsuid = 0;
        cred = KArc::try_new(root)?;
    } else {
        let _ = vfs::unlink(&Lookup { fs: &fs, cred: &cred }, None, &name);
    }
    let file = vfs::open(&Lookup { fs: &fs, cred: &cred }, None, &name, OpenHow { flags, mode: 0o600 })?;
    let inode = &file.inode;
    let ours = inode.uid() == cred.fsuid && inode.mode().0 & 0o677 == 0o600;
    if !inode.mode().is_file() || inode.nlink() != 1 || !ours {
        return Err(Errno::EPERM);
    }
    Ok(file)
}
