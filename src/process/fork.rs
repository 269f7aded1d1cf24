//! New threads and processes (`clone(2)`, `clone3(2)`, `fork(2)`, `vfork(2)`).
//!
//! Everything is checked, then built, and nothing is visible to anyone until the commit under the
//! family lock; whatever was built before a failure goes back by being dropped. What user memory is
//! told of a child (its id, its pidfd's number) is written where Linux writes it, which for the
//! pidfd is before the last failure.

use crate::{
    pid::{Membership, Pid, PidNamespace},
    pidfd::NewPidFd,
    ns, ptrace,
    task::{AltStack, FAMILY, Memory, Process, ProcessSpec, Task, TaskSpec},
    user::{self, Counted},
};
use abi::{
    Errno, Result, UserAddr,
    raw::{general as g, ptrace as p},
};
use arch::{
    UserRegs,
    thread::{SECCOMP, SIGNAL_PENDING},
    user::UserPtr,
};
use kalloc::KArc;
use sched::{Completion, Sleep, ThreadSpec};
use sync::atomic::Ordering;
use vfs::Cap;

/// The arguments of `clone3(2)`; those of `clone`, `fork` and `vfork` are special cases.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneArgs {
    /// CLONE_* bits without the exit signal.
    pub flags: u64,
    /// Where CLONE_PIDFD puts the descriptor.
    pub pidfd: UserAddr,
    /// Signal to the parent at the end; 0 for none. `clone` takes any byte: what is no signal is
    /// never sent.
    pub exit_signal: u32,
    /// Stack pointer of the child; 0 keeps the parent's.
    pub stack: u64,
    pub parent_tid: UserAddr,
    pub child_tid: UserAddr,
    pub tls: u64,
    /// The ids that the child is to have, innermost namespace first: how many there are, and the
    /// first.
    pub set_tid: Option<(u64, u32)>,
    /// The cgroup for CLONE_INTO_CGROUP.
    pub cgroup: u64,
}

/// CLONE_CLEAR_SIGHAND and CLONE_INTO_CGROUP, which only `clone3` can say.
pub const CLEAR_SIGHAND: u64 = 1 << 32;
pub const INTO_CGROUP: u64 = 1 << 33;

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

    fn has_both(&self, a: u32, b: u32) -> bool {
        self.has(a) && self.has(b)
    }

    /// The combinations that `clone(2)` forbids: EINVAL for each.
    fn check(&self, parent: &Process) -> Result {
        let bad = self.has_both(g::CLONE_PIDFD, g::CLONE_PARENT_SETTID) && self.pidfd == self.parent_tid
            || self.has_both(g::CLONE_NEWNS, g::CLONE_FS)
            || self.has_both(g::CLONE_NEWUSER, g::CLONE_FS)
            || self.has(g::CLONE_THREAD) && !self.has(g::CLONE_SIGHAND)
            || self.has(g::CLONE_SIGHAND) && !self.has(g::CLONE_VM)
            || self.has(g::CLONE_PARENT) && parent.is_init()
            || self.has(g::CLONE_THREAD) && (self.has(g::CLONE_NEWUSER) || self.has(g::CLONE_NEWPID))
            || self.has(g::CLONE_PIDFD) && (self.has(g::CLONE_DETACHED) || self.has(g::CLONE_THREAD));
        if bad { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

/// Makes a child or a thread of the current task; returns its id as the parent sees it.
/// ERESTARTNOINTR when a signal is to be handled first: a child never starts between a signal and
/// its handler, and never misses one that was sent to its parent's group or to everyone.
pub fn clone(task: &Task, regs: &mut UserRegs, args: CloneArgs) -> Result<u32> {
    args.check(&task.process)?;
    let thread_of_group = args.has(g::CLONE_THREAD);
    let me = sched::current();
    let group = task.process.pgrp().ok_or(Errno::ESRCH)?;
    // Before the look at what is pending: what comes later changes the number.
    let heard = task.process.heard.load(Ordering::Relaxed);
    if me.head().test_flag(SIGNAL_PENDING) {
        return Err(restart());
    }
    let ns = task.ns()?;
    let counted = count(task)?;
    if args.has(g::CLONE_NEWUSER) {
        return Err(Errno::EINVAL);
    }
    if user::threads() > user::threads_max() {
        return Err(Errno::EAGAIN);
    }

    let files = task.files()?;
    let files = if args.has(g::CLONE_FILES) { files } else { files.copy()? };
    let fs = task.fs()?;
    let fs = if args.has(g::CLONE_FS) { fs } else { fs.copy()? };
    let actions = task.process.actions().ok_or(Errno::ESRCH)?;
    let actions = if args.has(g::CLONE_SIGHAND) { actions } else { actions.try_copy()? };
    if args.flags & CLEAR_SIGHAND != 0 {
        actions.reset_handlers();
    }
    let memory = task.memory().ok_or(Errno::EINVAL)?;
    let memory = if args.has(g::CLONE_VM) { memory } else { KArc::try_new(Memory::fork_of(&memory)?)? };
    ns::check_new(task, args.flags)?;
    let stack = frames::vmalloc::alloc_stack()?;
    let pid = new_pid(task, &ns.pid, args.set_tid)?;
    let nr = pid.number();
    let own_files = task.files()?;
    let pidfd = if args.has(g::CLONE_PIDFD) { Some(NewPidFd::prepare(task, &own_files, &pid, args.pidfd)?) } else { None };
    if args.flags & INTO_CGROUP != 0 {
        // There is no cgroup that a descriptor could stand for.
        return Err(Errno::EBADF);
    }

    let process = if thread_of_group {
        task.process.clone()
    } else {
        let p = Process::try_new(ProcessSpec {
            pid: pid.clone(),
            actions,
            limits: task.process.limits(),
            exit_signal: if args.has(g::CLONE_PARENT) { task.process.exit_signal.load(Ordering::Relaxed) } else { args.exit_signal },
            pgrp: group.clone(),
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
        counted,
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
        stack,
    };
    let mut new = NewThread { thread: sched::create_user(spec, &child_regs, Some(&me))?, started: false };
    let thread = new.thread.clone();
    let tls = if args.has(g::CLONE_SETTLS) { args.tls } else { me.head().tls() };
    thread.head().set_tls(tls);
    let _ = child.thread.call_once(|| KArc::downgrade(&thread));

    if !args.has(g::CLONE_VM) {
        crate::rseq::inherit(&child, task, &thread);
    }
    let birth = Birth { task, child: &child, pid: &pid, group: &group, heard };
    if thread_of_group {
        birth.join_process(&thread)?;
    } else {
        birth.begin_process(args.has(g::CLONE_PARENT), &thread)?;
    }
    new.started = true;
    if let Some(traced) = traced {
        traced.commit(task, &child);
    }
    if let Some(pidfd) = pidfd {
        pidfd.install();
    }
    // Bad addresses are the program's own business, as on Linux: the child is there already.
    if args.has(g::CLONE_PARENT_SETTID) {
        let _ = UserPtr::<u32>::new(args.parent_tid).write(nr);
    }
    if args.has(g::CLONE_CHILD_SETTID) {
        let _ = memory.space.write_remote(args.child_tid, &nr.to_le_bytes());
    }
    drop(memory);
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

/// The way to a signal, and from there back into the call: the signal may have been for others
/// only, so the exit path is told to look.
fn restart() -> Errno {
    sched::current().head().set_flag(SIGNAL_PENDING);
    Errno::ERESTARTNOINTR
}

/// A child that is complete but that nobody sees yet.
struct Birth<'a> {
    task: &'a Task,
    child: &'a KArc<Task>,
    pid: &'a KArc<Pid>,
    group: &'a KArc<Pid>,
    /// [`Process::heard`] when the making began.
    heard: u64,
}

impl Birth<'_> {
    /// Makes the child a thread of its maker's process.
    fn join_process(&self, thread: &sched::Thread) -> Result {
        let mut s = self.task.process.signals.lock_irq();
        if s.group_exit.is_some() || s.exec_by.is_some() {
            return Err(restart());
        }
        s.members.try_push(self.child.clone())?;
        self.restrict(thread);
        if s.stop.is_some() {
            // It stops with the others before its first instruction.
            thread.head().set_flag(SIGNAL_PENDING);
        }
        self.pid.set_task(Some(KArc::downgrade(self.child)));
        Ok(())
    }

    /// What its maker may not do, the child may not either. The signal lock of the maker's process
    /// is held: another thread may be giving filters to all.
    fn restrict(&self, thread: &sched::Thread) {
        self.child.seccomp.copy(&self.task.seccomp);
        if self.child.seccomp.mode() != 0 {
            thread.head().set_flag(SECCOMP);
        }
    }

    /// Makes the child the leader of a process with a parent and a group.
    fn begin_process(&self, sibling: bool, thread: &sched::Thread) -> Result {
        let (task, process) = (self.task, &self.child.process);
        // Room first, so that nothing can fail once the child can be seen, and nothing has to be
        // taken apart that holds itself.
        process.signals.lock_irq().members.try_reserve(1)?;
        let node = collections::OrdNode::try_new(process.id(), process.clone())?;
        let membership = Membership::try_new(process.id(), KArc::downgrade(process))?;

        let _family = FAMILY.lock();
        let is_ending = {
            let s = task.process.signals.lock_irq();
            self.restrict(thread);
            s.group_exit.is_some() || s.exec_by.is_some()
        };
        // Somebody may have moved this process to another group meanwhile.
        let in_group = task.process.pgrp().is_some_and(|g| KArc::ptr_eq(&g, self.group));
        if is_ending || !in_group || task.process.heard.load(Ordering::Relaxed) != self.heard {
            return Err(restart());
        }
        let parent = if sibling { task.process.parent().ok_or(Errno::EINVAL)? } else { task.process.clone() };
        let made_by = if sibling { task.process.parent_thread.load(Ordering::Relaxed) } else { task.id() };
        process.parent_thread.store(made_by, Ordering::Relaxed);
        process.parent_exec_id.store(if sibling { &task.process.parent_exec_id } else { &task.process.exec_id }.load(Ordering::Relaxed), Ordering::Relaxed);
        if let Err(_full) = process.signals.lock_irq().members.push_within_capacity(self.child.clone()) {
            return Err(Errno::ENOMEM);
        }
        *process.leader.lock() = Some(self.child.clone());
        process.links.lock().parent = Some(KArc::downgrade(&parent));
        process.links.lock().session = task.process.session();
        self.group.join(membership);
        self.pid.set_task(Some(KArc::downgrade(self.child)));
        parent.children.lock().insert_node(node);
        Ok(())
    }
}

/// Takes a number for the child: the one asked for, or any (`clone3(2)`, set_tid).
fn new_pid(task: &Task, ns: &KArc<PidNamespace>, wanted: Option<(u64, u32)>) -> Result<KArc<Pid>> {
    let Some((levels, number)) = wanted else { return PidNamespace::alloc(ns) };
    // There is one namespace.
    if levels > 1 || !PidNamespace::is_possible(number) {
        return Err(Errno::EINVAL);
    }
    if !task.with_cred(|c| c.capable(Cap::CHECKPOINT_RESTORE) || c.capable(Cap::SYS_ADMIN))? {
        return Err(Errno::EPERM);
    }
    PidNamespace::alloc_number(ns, number)
}

/// Counts the new thread for its user. RLIMIT_NPROC: EAGAIN when the user has as many threads as
/// the limit says. Root and who may exceed limits are exempt (`getrlimit(2)`).
fn count(task: &Task) -> Result<Counted> {
    let counted = Counted::new(task.user()?);
    if counted.user().threads() > task.process.limit(g::RLIMIT_NPROC)
        && !task.with_cred(|c| c.uid == 0 || c.capable(Cap::SYS_RESOURCE) || c.capable(Cap::SYS_ADMIN))?
    {
        return Err(Errno::EAGAIN);
    }
    task.too_many_threads.store(false, Ordering::Relaxed);
    Ok(counted)
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
