//! Kernel threads as user space sees them: processes with a pid and a name, without memory,
//! children of kthreadd (PID 2), deaf to signals.

use crate::{
    limits::Limits,
    pid::PidNamespace,
    session::Session,
    signal::{Actions, SigSet},
    task::{Process, ProcessSpec, Task, TaskSpec},
    user::{Counted, User},
};
use abi::{Errno, Result};
use kalloc::{KArc, KWeak};
use sched::Thread;
use vfs::{Credentials, FdTable};

/// Gives a kernel thread a pid of its own in the initial namespace. The first one is kthreadd.
///
/// Neither the process nor its task is held by the family tree: the thread is their only owner,
/// so they go with it.
pub fn register(thread: &KArc<Thread>) -> Result {
    let ns = crate::init::root_namespaces().ok_or(Errno::ESRCH)?;
    let init = crate::init::init_process().and_then(|p| p.any_task()).ok_or(Errno::ESRCH)?;
    let pid = PidNamespace::alloc(&ns.pid)?;
    let process = Process::try_new(ProcessSpec {
        pid: pid.clone(),
        actions: Actions::try_new()?,
        limits: Limits::initial(u64::MAX),
        exit_signal: 0,
        pgrp: pid.clone(),
        session: Session::try_new(pid.clone())?,
    })?;
    let parent: Option<KWeak<Process>> = ns.pid.find(KTHREADD).map(|t| KArc::downgrade(&t.process));
    process.links.lock().parent = parent;
    let task = Task::try_new(TaskSpec {
        pid: pid.clone(),
        process,
        mm: None,
        files: FdTable::new()?,
        fs: init.fs()?,
        ns,
        cred: KArc::try_new(Credentials::root())?,
        blocked: SigSet::ALL,
        counted: Counted::new(User::find(0)?),
    })?;
    let _ = task.thread.call_once(|| KArc::downgrade(thread));
    pid.set_task(Some(KArc::downgrade(&task)));
    thread.set_payload(kalloc::karc_as!(task => dyn sched::Payload));
    Ok(())
}

/// The pid of kthreadd.
const KTHREADD: u32 = 2;
