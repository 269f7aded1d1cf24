//! New threads and processes (`clone(2)`, `fork(2)`, `vfork(2)`).
//!
//! Everything is checked, then built, and nothing is visible to anyone until the commit under the
//! family lock; whatever was built before a failure goes back by being dropped.

use crate::{
    ptrace,
    pid::PidNamespace,
    task::{AltStack, FAMILY, Life, Memory, Process, ProcessSpec, Task, TaskSpec},
};
use abi::{
    Errno, Result, UserAddr,
    raw::{general as g, ptrace as p},
};
use arch::{UserRegs, user::UserPtr};
use kalloc::KArc;
use sched::{Completion, Sleep, ThreadSpec};
use sync::atomic::Ordering;

/// The arguments of `clone(2)`; those of `fork` and `vfork` are special cases.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneArgs {
    /// CLONE_* bits without the exit signal.
    pub flags: u64,
    /// Signal to the parent at the end; 0 for none.
    pub exit_signal: u32,
    /// Stack pointer of the child; 0 keeps the parent's.
    pub stack: u64,
    pub parent_tid: UserAddr,
    pub child_tid: UserAddr,
    pub tls: u64,
}

/// Flags whose mechanism exists.
const SUPPORTED: u64 = (g::CLONE_VM
    | g::CLONE_FS
    | g::CLONE_FILES
    | g::CLONE_SIGHAND
    | g::CLONE_VFORK
    | g::CLONE_PARENT
    | g::CLONE_THREAD
    | g::CLONE_SYSVSEM
    | g::CLONE_SETTLS
    | g::CLONE_PARENT_SETTID
    | g::CLONE_CHILD_CLEARTID
    | g::CLONE_DETACHED
    | g::CLONE_UNTRACED
    | g::CLONE_PTRACE
    | g::CLONE_CHILD_SETTID
    | g::CLONE_IO) as u64;

impl CloneArgs {
    fn has(&self, flag: u32) -> bool {
        self.flags & u64::from(flag) != 0
    }

    /// The event for which a tracer may ask (`ptrace(2)`, PTRACE_O_TRACEFORK and its like).
    fn trace_event(&self) -> Option<u32> {
        (!self.has(g::CLONE_UNTRACED)).then_some(if self.has(g::CLONE_VFORK) {
            p::PTRACE_EVENT_VFORK
        } else if self.exit_signal != g::SIGCHLD {
            p::PTRACE_EVENT_CLONE
        } else {
            p::PTRACE_EVENT_FORK
        })
    }

    /// The combinations that `clone(2)` forbids: EINVAL for each.
    fn check(&self, parent: &Process) -> Result {
        let bad = self.flags & !SUPPORTED != 0
            || self.has(g::CLONE_THREAD) && !self.has(g::CLONE_SIGHAND)
            || self.has(g::CLONE_SIGHAND) && !self.has(g::CLONE_VM)
            || self.has(g::CLONE_PARENT) && parent.is_init()
            || self.exit_signal > abi::NSIG as u32;
        if bad { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

/// Makes a child or a thread of the current task; returns its id as the parent sees it.
/// ERESTARTNOINTR when a signal is to be handled first: a child never starts between a signal and
/// its handler.
pub fn clone(task: &Task, regs: &mut UserRegs, args: CloneArgs) -> Result<u32> {
    args.check(&task.process)?;
    let thread_of_group = args.has(g::CLONE_THREAD);
    let me = sched::current();
    let ns = task.ns()?;

    let memory = task.memory().ok_or(Errno::EINVAL)?;
    let memory = if args.has(g::CLONE_VM) { memory } else { KArc::try_new(Memory::fork_of(&memory)?)? };
    let files = task.files()?;
    let files = if args.has(g::CLONE_FILES) { files } else { files.copy()? };
    let fs = task.fs()?;
    let fs = if args.has(g::CLONE_FS) { fs } else { fs.copy()? };
    let actions = task.process.actions().ok_or(Errno::ESRCH)?;
    check_process_limit(task, &ns.pid)?;
    let pid = PidNamespace::alloc(&ns.pid)?;
    let nr = pid.number();

    let process = if thread_of_group {
        task.process.clone()
    } else {
        let p = Process::try_new(ProcessSpec {
            pid: pid.clone(),
            actions: if args.has(g::CLONE_SIGHAND) { actions } else { actions.try_copy()? },
            limits: task.process.limits(),
            exit_signal: if args.has(g::CLONE_PARENT) { task.process.exit_signal.load(Ordering::Relaxed) } else { args.exit_signal },
            pgrp: task.process.pgrp().ok_or(Errno::ESRCH)?,
            session: task.process.session().ok_or(Errno::ESRCH)?,
        })?;
        p.inherit(&task.process);
        p
    };

    let blocked = task.signals.lock_irq().blocked;
    let child = Task::try_new(TaskSpec {
        pid: pid.clone(),
        process: process.clone(),
        mm: Some(memory.clone()),
        files,
        fs,
        ns,
        cred: task.cred()?,
        blocked,
    })?;
    child.inherit(task);
    let event = args.trace_event();
    let told = event.is_some_and(|e| ptrace::wants(task, e));
    let traced = ptrace::link::Birth::prepare(task, &child, told || args.has(g::CLONE_PTRACE))?;
    if !args.has(g::CLONE_VM) || args.has(g::CLONE_VFORK) {
        let alt: AltStack = *task.alt_stack.lock();
        *child.alt_stack.lock() = alt;
    }
    if args.has(g::CLONE_CHILD_CLEARTID) {
        child.clear_child_tid.store(args.child_tid.0, Ordering::Relaxed);
    }
    let vfork = if args.has(g::CLONE_VFORK) { Some(KArc::try_new(Completion::new())?) } else { None };
    *child.vfork_done.lock() = vfork.clone();
    child.set_personality(task.personality());

    let mut child_regs = *regs;
    child_regs.x[0] = 0;
    if args.stack != 0 {
        child_regs.sp = args.stack;
    }
    let spec = ThreadSpec {
        name: me.name(),
        nice: me.nice(),
        affinity: me.affinity(),
        payload: Some(kalloc::karc_as!(child.clone() => dyn sched::Payload)),
        user_space: Some(kalloc::karc_as!(memory.space.clone() => dyn sched::UserSpace)),
        stack: frames::vmalloc::alloc_stack()?,
    };
    let mut new = NewThread { thread: sched::create_user(spec, &child_regs, Some(&me))?, started: false };
    let thread = new.thread.clone();
    let tls = if args.has(g::CLONE_SETTLS) { args.tls } else { me.head().tls() };
    thread.head().set_tls(tls);
    let _ = child.thread.call_once(|| KArc::downgrade(&thread));

    if !args.has(g::CLONE_VM) {
        crate::rseq::inherit(&child, task, &thread);
    }
    // What the child reads of its own memory must be there before it runs.
    if args.has(g::CLONE_CHILD_SETTID) {
        let bytes = nr.to_le_bytes();
        // A bad address is the program's own business, as on Linux.
        let _ = memory.space.write_remote(args.child_tid, &bytes);
    }
    if args.has(g::CLONE_PARENT_SETTID) {
        UserPtr::<u32>::new(args.parent_tid).write(nr)?;
    }

    // Room first, so that nothing can fail once the child can be seen.
    let node = if thread_of_group {
        None
    } else {
        Some(collections::OrdNode::try_new(nr, process.clone())?)
    };
    {
        let family = FAMILY.lock();
        let mut s = task.process.signals.lock_irq();
        if s.group_exit.is_some() || me.head().test_flag(arch::thread::SIGNAL_PENDING) {
            return Err(Errno::ERESTARTNOINTR);
        }
        if thread_of_group {
            s.members.try_push(child.clone())?;
            drop(s);
        } else {
            drop(s);
            process.signals.lock_irq().members.try_push(child.clone())?;
            *process.leader.lock() = Some(child.clone());
            let parent = if args.has(g::CLONE_PARENT) { task.process.parent() } else { Some(task.process.clone()) };
            let parent = parent.filter(|p| p.links.lock().life == Life::Alive).ok_or(Errno::EINVAL)?;
            process.links.lock().parent = Some(KArc::downgrade(&parent));
            if let Some(node) = node {
                parent.children.lock().insert_node(node);
            }
        }
        pid.set_task(Some(KArc::downgrade(&child)));
        drop(family);
    }
    new.started = true;
    if let Some(traced) = traced {
        traced.commit(task, &child);
    }
    sched::start(&thread);
    if let Some(event) = event.filter(|_| told) {
        ptrace::stop::event(task, regs, event, nr.into());
    }
    if let Some(done) = vfork {
        // Only death ends this wait early: the child uses this very stack.
        if done.wait_until(Sleep::Killable, None).ready().is_some() {
            ptrace::stop::event(task, regs, p::PTRACE_EVENT_VFORK_DONE, nr.into());
        }
    }
    Ok(nr)
}

/// RLIMIT_NPROC: EAGAIN when the user has as many threads as the limit says. Root and who may
/// exceed limits are exempt (`getrlimit(2)`). Two clones at once may exceed it by one.
fn check_process_limit(task: &Task, ns: &PidNamespace) -> Result {
    let limit = task.process.limit(g::RLIMIT_NPROC);
    let cred = task.cred()?;
    let exempt = cred.uid == 0 || cred.capable(vfs::Cap::SYS_RESOURCE) || cred.capable(vfs::Cap::SYS_ADMIN);
    // All users together have fewer: no need to count.
    if exempt || (ns.count() as u64) < limit {
        return Ok(());
    }
    let (mut have, mut next) = (0, 1);
    while let Some((n, other)) = ns.next_from(next) {
        next = n.saturating_add(1);
        have += u64::from(other.with_cred(|c| c.uid == cred.uid)?);
    }
    if have < limit { Ok(()) } else { Err(Errno::EAGAIN) }
}

/// A thread that is discarded unless it is started.
struct NewThread {
    thread: KArc<sched::Thread>,
    started: bool,
}

impl Drop for NewThread {
    fn drop(&mut self) {
        if !self.started {
            sched::discard(&self.thread);
        }
    }
}
