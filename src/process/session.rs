//! Sessions, process groups and their terminal (`setsid(2)`, `setpgid(2)`, `credentials(7)`), and
//! the process side of job control that the terminal asks for.

use crate::{
    pid::Pid,
    signal::{SigInfo, Signal, send_to_group, send_to_group_with_family},
    task::{FAMILY, Process, Task},
};
use abi::{Errno, Result};
use kalloc::KArc;
use sync::{LockClass, SpinLock, atomic::{AtomicU32, Ordering}};

static SESSION_TTY: LockClass = LockClass::new("process.session_tty", 1036);

/// A session: a set of process groups that share a controlling terminal.
pub struct Session {
    pid: KArc<Pid>,
    tty: SpinLock<Option<KArc<tty::Tty>>>,
    /// The foreground group when the terminal hung up; 0: there is none.
    hung_up_group: AtomicU32,
}

impl Session {
    pub(crate) fn try_new(pid: KArc<Pid>) -> Result<KArc<Self>> {
        let session = KArc::try_new(Self { pid, tty: SpinLock::new(None, &SESSION_TTY), hung_up_group: AtomicU32::new(0) })?;
        session.pid.begin_session();
        Ok(session)
    }
    /// The session's id: the pid of the process that made it.
    pub fn id(&self) -> u32 {
        self.pid.number()
    }
    /// The controlling terminal.
    pub fn tty(&self) -> Option<KArc<tty::Tty>> {
        self.tty.lock().clone()
    }
    pub fn set_tty(&self, tty: Option<KArc<tty::Tty>>) {
        let old = core::mem::replace(&mut *self.tty.lock(), tty);
        drop(old);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.pid.end_session();
    }
}

/// `setsid(2)`: EPERM for a process whose id names a group, its own or what is left of one.
pub fn setsid(task: &Task) -> Result<u32> {
    let process = &task.process;
    let session = Session::try_new(process.pid.clone())?;
    let old = {
        let _family = FAMILY.lock();
        if process.pid.member_from(0).is_some() {
            return Err(Errno::EPERM);
        }
        move_to_group(process, &process.pid);
        let mut links = process.links.lock();
        links.session.replace(session)
    };
    drop(old);
    Ok(process.id())
}

/// Moves a process from its group to another. Family lock held.
fn move_to_group(process: &Process, group: &KArc<Pid>) {
    let old = process.links.lock().pgrp.replace(group.clone());
    if let Some(membership) = old.and_then(|old| old.leave(process.id())) {
        group.join(membership);
    }
}

/// `setpgid(2)`.
pub fn setpgid(task: &Task, pid: i32, pgid: i32) -> Result {
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let me = &task.process;
    let ns = task.ns()?.pid.clone();
    let pid = if pid == 0 { me.id() } else { pid as u32 };
    let pgid = if pgid == 0 { pid } else { pgid as u32 };
    let target = ns.find(pid).ok_or(Errno::ESRCH)?;
    if !target.is_leader() {
        return Err(Errno::EINVAL);
    }
    let target = target.process.clone();
    let _family = FAMILY.lock();
    let is_me = KArc::ptr_eq(&target, me);
    if !is_me {
        if !target.parent().is_some_and(|p| KArc::ptr_eq(&p, me)) {
            return Err(Errno::ESRCH);
        }
        if target.session_id() != me.session_id() {
            return Err(Errno::EPERM);
        }
        if target.has_execed.load(Ordering::Acquire) {
            return Err(Errno::EACCES);
        }
    }
    if target.session_id() == target.id() {
        return Err(Errno::EPERM);
    }
    let group = if pgid == target.id() {
        target.pid.clone()
    } else {
        // An existing group of the same session.
        let group = ns.pid(pgid).ok_or(Errno::EPERM)?;
        match group.member_from(0) {
            Some((_, member)) if member.session_id() == me.session_id() => group,
            _ => return Err(Errno::EPERM),
        }
    };
    if !target.pgrp().is_some_and(|old| KArc::ptr_eq(&old, &group)) {
        move_to_group(&target, &group);
    }
    Ok(())
}

fn process_of(task: &Task, pid: i32) -> Result<KArc<Process>> {
    match pid {
        0 => Ok(task.process.clone()),
        p if p < 0 => Err(Errno::ESRCH),
        p => Ok(task.ns()?.pid.find(p as u32).ok_or(Errno::ESRCH)?.process.clone()),
    }
}

/// `getpgid(2)`.
pub fn getpgid(task: &Task, pid: i32) -> Result<u32> {
    Ok(process_of(task, pid)?.pgrp_id())
}

/// `getsid(2)`.
pub fn getsid(task: &Task, pid: i32) -> Result<u32> {
    Ok(process_of(task, pid)?.session_id())
}

/// Whether no member's parent is in the same session but in another group: nobody could continue
/// the group if it stopped (POSIX, "orphaned process group").
pub(crate) fn is_orphaned_group(process: &Process) -> bool {
    let Some(group) = process.pgrp() else { return true };
    let _family = FAMILY.lock();
    group_is_orphaned(&group, None)
}

/// As [`is_orphaned_group`], as if `without` were not there. Family lock held.
fn group_is_orphaned(group: &Pid, without: Option<&Process>) -> bool {
    !group.members().any(|p| {
        !p.is_zombie()
            && !without.is_some_and(|w| core::ptr::eq(w, &*p))
            && p.parent().is_some_and(|parent| !parent.is_init() && holds(&parent, &p))
    })
}

/// Whether a process that stands above `child` keeps its group from being an orphan.
fn holds(parent: &Process, child: &Process) -> bool {
    parent.session_id() == child.session_id() && parent.pgrp_id() != child.pgrp_id()
}

/// The tie between `process` and `parent` goes, because the one or the other ends. When it was
/// the last that held the group of `process`, and a member is stopped, the group gets SIGHUP and
/// SIGCONT (POSIX, `_exit`). Family lock held.
pub(crate) fn hang_up_if_orphaned(process: &Process, parent: &Process, without: Option<&Process>) {
    if !holds(parent, process) {
        return;
    }
    let Some(group) = process.pgrp() else { return };
    let has_stopped = || group.members().any(|p| p.signals.lock_irq().stop.is_some());
    if group_is_orphaned(&group, without) && has_stopped() {
        for signal in [Signal::HUP, Signal::CONT] {
            send_to_group_with_family(&group, SigInfo::kernel(signal), |_| true);
        }
    }
}

fn hang_up_group(ns: &crate::pid::PidNamespace, pgrp: u32) {
    let _ = send_to_group(ns, pgrp, SigInfo::kernel(Signal::HUP), |_| true);
    let _ = send_to_group(ns, pgrp, SigInfo::kernel(Signal::CONT), |_| true);
}

/// A session leader that ends hangs up its terminal: SIGHUP to the foreground group, and the terminal
/// is free for another session. A group that was in the foreground when the terminal itself hung up
/// gets SIGHUP and SIGCONT now.
pub(crate) fn leave_on_exit(process: &KArc<Process>) {
    let Some(session) = process.session() else { return };
    if session.id() != process.id() {
        return;
    }
    let ns = process.leader.lock().as_ref().and_then(|l| l.ns().ok());
    let left = session.hung_up_group.swap(0, Ordering::AcqRel);
    let Some(tty) = session.tty() else {
        if let Some(ns) = ns.filter(|_| left != 0) {
            hang_up_group(&ns.pid, left);
        }
        return;
    };
    if let (Some(ns), Some(pgrp)) = (ns, tty.foreground_group()) {
        let _ = send_to_group(&ns.pid, pgrp, SigInfo::kernel(Signal::HUP), |_| true);
    }
    tty.release_session(session.id());
    session.set_tty(None);
}

/// What the terminal needs to know of processes.
pub struct JobControl;

impl tty::JobControl for JobControl {
    fn signal_group(&self, pgrp: u32, signal: u32) {
        if let (Some(s), Some(ns)) = (Signal::new(signal), crate::init::root_pid_namespace()) {
            let _ = send_to_group(&ns, pgrp, SigInfo::kernel(s), |_| true);
        }
    }
    fn current_ids(&self) -> Option<tty::Ids> {
        let task = crate::task::current_arc()?;
        let p = &task.process;
        Some(tty::Ids { pid: p.id(), pgrp: p.pgrp_id(), session: p.session_id() })
    }
    fn current_is_orphaned(&self) -> bool {
        crate::task::current_arc().is_none_or(|t| is_orphaned_group(&t.process))
    }
    fn current_ignores_or_blocks(&self, signal: u32) -> bool {
        let (Some(t), Some(s)) = (crate::task::current_arc(), Signal::new(signal)) else { return true };
        t.signals.lock_irq().blocked.contains(s) || t.process.action(s).handler == crate::signal::SIG_IGN
    }
    fn controlling_tty(&self) -> Option<KArc<tty::Tty>> {
        crate::task::current_arc()?.process.session()?.tty()
    }
    fn set_controlling_tty(&self, tty: Option<KArc<tty::Tty>>) {
        if let Some(s) = crate::task::current_arc().and_then(|t| t.process.session()) {
            s.set_tty(tty);
        }
    }
    fn session_hung_up(&self, session: u32, foreground: Option<u32>) {
        let leader = crate::init::root_pid_namespace().and_then(|ns| ns.find(session));
        let Some(leader) = leader.map(|t| t.process.clone()) else { return };
        let Some(s) = leader.session().filter(|s| s.id() == session) else { return };
        s.set_tty(None);
        s.hung_up_group.store(foreground.unwrap_or(0), Ordering::Release);
        let _ = crate::signal::send_to_process(&leader, SigInfo::kernel(Signal::HUP));
        let _ = crate::signal::send_to_process(&leader, SigInfo::kernel(Signal::CONT));
    }
    fn group_session(&self, pgrp: u32) -> Option<u32> {
        let group = crate::init::root_pid_namespace()?.pid(pgrp)?;
        Some(group.member_from(0)?.1.session_id())
    }
}
