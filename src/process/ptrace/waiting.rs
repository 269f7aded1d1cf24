//! How a tracer learns of its tracees: SIGCHLD, and what wait tells it of stops and ends.

use super::is_traced;
use crate::{
    exit,
    signal::{Cause, SigInfo, Signal},
    task::{FAMILY, Life, Process, Task},
    wait::{Report, Usage},
};
use abi::raw::general as g;
use kalloc::KArc;
use sync::atomic::Ordering;

/// SIGCHLD and a wake-up for the tracer's process. Family lock held.
pub(crate) fn notify(tracer: &KArc<Process>, task: &Task, code: u32, status: u32) {
    if !tracer.action(Signal::CHLD).has(g::SA_NOCLDSTOP) || code != g::CLD_TRAPPED && code != g::CLD_STOPPED {
        tell(tracer, task, code, status);
    }
    tracer.child_events.wake_all();
}

fn tell(tracer: &KArc<Process>, task: &Task, code: u32, status: u32) {
    let (utime, stime) = task.thread().map_or_else(Default::default, |t| t.cpu_times());
    let uid = task.with_cred(|c| c.uid).unwrap_or(0);
    let cause = Cause::Child { code: code as i32, pid: task.id(), uid, status: status as i32, utime, stime };
    let _ = crate::signal::send_with_family(tracer, SigInfo { signal: Signal::CHLD, cause });
}

/// A traced task has ended: its tracer is told. Family lock held.
pub(crate) fn ended(tracer: &KArc<Process>, task: &Task, status: u32) {
    tell(tracer, task, exit::exit_code(status) as u32, exit::exit_value(status) as u32);
    tracer.child_events.wake_all();
}

/// A thread that is not the leader has left its process: its tracer may wait for it now.
pub(crate) fn thread_ended(task: &Task, status: u32) {
    if !is_traced(task) || task.is_leader() {
        return;
    }
    let _family = FAMILY.lock();
    if let Some(tracer) = super::tracer_process(task) {
        ended(&tracer, task, status);
    }
}

/// Whether this process traces the leader of `child`, another does, or nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TracedBy {
    Nobody,
    Us,
    Other,
}

/// Family lock held.
pub(crate) fn traced_by(child: &Process, us: &Process) -> TracedBy {
    let leader = child.leader.lock().clone();
    match leader.as_deref().and_then(super::tracer_process) {
        None => TracedBy::Nobody,
        Some(t) if core::ptr::eq(&*t, us) => TracedBy::Us,
        Some(_) => TracedBy::Other,
    }
}

/// The parent, which is the tracer too, has waited for a process. Family lock held.
pub(crate) fn forget(child: &Process) {
    let leader = child.leader.lock().clone();
    if let Some(leader) = leader.filter(|l| is_traced(l)) {
        super::link::forget(&leader);
    }
}

/// What a wait found at the tracees.
pub(crate) enum Found {
    /// No tracee that the call asks about.
    None,
    /// Some, without news.
    Quiet,
    News(Report),
}

/// Looks at the tracees of the process that `matches` accepts, and takes the news unless the call
/// only wants to look. Family lock held. Whom the news are about is left in `about`, to be dropped
/// after it.
pub(crate) fn scan(us: &KArc<Process>, thread: Option<u32>, options: u32, matches: impl Fn(&Task) -> bool, about: &mut Option<KArc<Task>>) -> Found {
    let mut result = Found::None;
    let mut next = 0;
    loop {
        let found = us.tracees.lock().lower_bound(&next).map(|(id, t)| (*id, t.clone()));
        let Some((id, task)) = found else { return result };
        next = id.saturating_add(1);
        let mine = thread.is_none_or(|t| super::tracer_id(&task) == t);
        if !mine || !matches(&task) {
            continue;
        }
        result = Found::Quiet;
        if let Some(report) = stop_news(&task, options) {
            *about = Some(task);
            return Found::News(report);
        }
        if options & g::WEXITED != 0
            && let Some(report) = end_news(us, &task, options & g::WNOWAIT != 0)
        {
            *about = Some(task);
            return Found::News(report);
        }
    }
}

fn report(task: &Task, status: u32, code: u32, value: u32) -> Report {
    Report { pid: task.id(), uid: task.with_cred(|c| c.uid).unwrap_or(0), status, code: code as i32, value: value as i32, usage: Usage::default() }
}

/// A stop that was not told yet.
fn stop_news(task: &Task, options: u32) -> Option<Report> {
    let code = {
        let _s = task.process.signals.lock_irq();
        let mut slot = task.trace.lock();
        let stop = slot.as_deref_mut()?.stopped()?;
        if stop.told || stop.listening || task.has_exited() {
            return None;
        }
        stop.told = options & g::WNOWAIT == 0;
        stop.code
    };
    Some(report(task, code << 8 | 0x7f, g::CLD_TRAPPED, code))
}

/// The end of a thread that is not the leader, or of a process whose parent is somebody else. Once
/// told, the thread is gone, and the process is its parent's business.
fn end_news(us: &KArc<Process>, task: &KArc<Task>, only_look: bool) -> Option<Report> {
    let process = &task.process;
    let status = if task.is_leader() {
        let parent = process.parent();
        let life = process.links.lock().life;
        match life {
            Life::Zombie(status) if !parent.is_some_and(|p| KArc::ptr_eq(&p, us)) => status,
            _ => return None,
        }
    } else {
        if !task.has_exited() {
            return None;
        }
        process.signals.lock_irq().group_exit.unwrap_or_else(|| task.exit_status.load(Ordering::Relaxed))
    };
    let value = exit::exit_value(status) as u32;
    let told = report(task, status, exit::exit_code(status) as u32, value);
    if !only_look {
        super::link::forget(task);
        if task.is_leader() {
            exit::tell_real_parent(process, status);
        } else {
            exit::forget_thread(task);
        }
    }
    Some(told)
}
