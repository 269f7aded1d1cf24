//! From a cause to a queue, and the wake-up of a thread that will take it.

use super::{Action, Cause, DefaultAction, SigInfo, SigSet, Signal};
use crate::task::{FAMILY, JobEvent, Process, ProcessSignals, Task};
use abi::{Errno, Result};
use arch::thread::{FATAL_PENDING, SIGNAL_PENDING};
use kalloc::KArc;
use sync::atomic::Ordering;

/// Whether `from` may send `signal` to the process of `to` (`kill(2)`, PERMISSIONS).
pub fn may_signal(from: &Task, signal: Option<Signal>, to: &Task) -> Result<bool> {
    if KArc::ptr_eq(&from.process, &to.process) {
        return Ok(true);
    }
    let (a, b) = (from.cred()?, to.cred()?);
    let same_user = a.euid == b.suid || a.euid == b.uid || a.uid == b.suid || a.uid == b.uid;
    if same_user || a.capable(vfs::Cap::KILL) {
        return Ok(true);
    }
    // SIGCONT may go to any process of one's own session.
    Ok(signal == Some(Signal::CONT) && from.process.session_id() == to.process.session_id())
}

/// Sends a signal to one thread.
pub fn send_to_task(task: &Task, info: SigInfo) {
    let _ = send(&task.process, Some(task), info);
}

/// Sends a signal to a process: any of its threads that does not block it takes it.
/// EAGAIN when a real-time signal could not be queued.
pub fn send_to_process(process: &KArc<Process>, info: SigInfo) -> Result {
    if send(process, None, info) { Ok(()) } else { Err(Errno::EAGAIN) }
}

/// [`send_to_process`] for a caller that holds the family lock.
pub(crate) fn send_with_family(process: &KArc<Process>, info: SigInfo) -> bool {
    let (queued, continued) = enqueue(process, None, info);
    if continued {
        crate::exit::notify_parent_of_job_event(process, JobEvent::Continued);
    }
    queued
}

/// Makes a thread look at its queues again.
pub(crate) fn wake_for_signals(task: &Task) {
    notify(task, false);
}

/// Sends a signal to every process of a group for which `allow` says yes. Returns how many there
/// are in the group and how many were allowed. Thread context only.
pub fn send_to_group(ns: &crate::pid::PidNamespace, pgrp: u32, info: SigInfo, allow: impl FnMut(&Task) -> bool) -> (usize, usize) {
    let Some(group) = ns.pid(pgrp) else { return (0, 0) };
    let _family = FAMILY.lock();
    send_to_group_with_family(&group, info, allow)
}

/// [`send_to_group`] for a caller that holds the family lock. Nobody joins or leaves meanwhile: a
/// child that is being made either is a member already or is made again after the signal.
pub(crate) fn send_to_group_with_family(group: &crate::pid::Pid, info: SigInfo, mut allow: impl FnMut(&Task) -> bool) -> (usize, usize) {
    let (mut members, mut sent) = (0, 0);
    // Zombies count: their group is still there, though they take no signal.
    for process in group.members() {
        members += 1;
        let leader = process.leader.lock().clone();
        if leader.is_some_and(|l| allow(&l)) {
            sent += 1;
            process.heard.fetch_add(1, Ordering::Relaxed);
            send_with_family(&process, info);
        }
    }
    (members, sent)
}

/// Sends the signal of a timer, to the process or to a thread of it, unless it is queued already:
/// then it only counts. Any context.
pub(crate) fn send_timer_signal(process: &KArc<Process>, thread: Option<u32>, info: SigInfo) {
    let Cause::Timer { id, overrun, .. } = info.cause else { return };
    let action = process.action(info.signal);
    let mut s = process.signals.lock_irq();
    match thread {
        None => {
            if !s.members.is_empty() && !s.shared.count_expiry(id, overrun.saturating_add(1)) {
                s.queue(process, None, info, action);
            }
        }
        Some(tid) => {
            let Some(task) = s.members.iter().find(|t| t.id() == tid).cloned() else { return };
            let counted = task.signals.lock().queue.count_expiry(id, overrun.saturating_add(1));
            if !counted {
                s.queue(process, Some(&task), info, action);
            }
        }
    }
}

/// False when the queue had no memory for a real-time signal.
fn send(process: &KArc<Process>, task: Option<&Task>, info: SigInfo) -> bool {
    let (queued, continued) = enqueue(process, task, info);
    if continued {
        let _family = FAMILY.lock();
        crate::exit::notify_parent_of_job_event(process, JobEvent::Continued);
    }
    queued
}

/// The one way in. Whether the signal is queued (or needs no queue), and whether it ended a stop.
fn enqueue(process: &KArc<Process>, task: Option<&Task>, info: SigInfo) -> (bool, bool) {
    let signal = info.signal;
    let action = process.action(signal);
    let mut continued = false;
    let queued;
    {
        let mut s = process.signals.lock_irq();
        if s.members.is_empty() || task.is_some_and(Task::has_exited) {
            return (true, false);
        }
        if s.core.is_some() && signal != Signal::KILL {
            // The process has ended already; only SIGKILL cuts its core short.
            return (true, false);
        }
        if signal == Signal::CONT {
            s.flush(SigSet::STOPS);
            if s.stop.take().is_some() {
                s.event = Some(JobEvent::Continued);
                continued = true;
                s.unpark_stopped();
            }
        } else if SigSet::STOPS.contains(signal) {
            s.flush(SigSet::of(Signal::CONT));
        }
        queued = s.queue(process, task, info, action);
    }
    (queued, continued)
}

impl ProcessSignals {
    fn queue(&mut self, process: &Process, task: Option<&Task>, info: SigInfo, action: Action) -> bool {
        let signal = info.signal;
        let fatal = self.is_fatal(process, signal, action);
        let wanted = |t: &Task| {
            let sig = t.signals.lock();
            !sig.blocked.contains(signal)
        };
        // A blocked signal is kept even when it would be ignored: its action may change meanwhile.
        let blocked = match task {
            Some(t) => !wanted(t),
            None => !self.members.iter().any(|t| wanted(t)),
        };
        // A tracer sees what would be ignored, too, and before anything happens.
        let sees = task.or(self.members.first().map(|t| &**t)).is_some_and(|t| crate::ptrace::link::sees(t, signal));
        let ignored = !sees && action.ignores(signal) || process.is_init() && action.handler == super::SIG_DFL && !is_fault(&info);
        if ignored && !blocked && signal != Signal::STOP && signal != Signal::KILL
            || process.is_init() && SigSet::UNBLOCKABLE.contains(signal)
        {
            return true;
        }
        let ok = match task {
            Some(t) => t.signals.lock().queue.push(info),
            None => self.shared.push(info),
        };
        if process.signal_arrived.has_waiters() {
            process.signal_arrived.wake_all_key(vfs::PollEvents::IN.bits());
        }
        // A stopped process takes it when it goes on; only SIGKILL does not wait for that.
        if fatal && !sees && (signal == Signal::KILL || !blocked && self.stop.is_none()) {
            // Nothing can stop the end of the process any more: every thread leaves at once.
            self.begin_group_exit(signal.number());
            return true;
        }
        let target = match task {
            Some(t) => Some(t),
            None => self.members.iter().find(|t| wanted(t) && !t.has_exited()).map(|t| &**t),
        };
        if let Some(t) = target
            && (!blocked || signal == Signal::KILL)
        {
            notify(t, false);
        }
        ok || !signal.is_realtime()
    }

    /// Whether the signal, once taken, ends the process without a core: then it need not be taken.
    fn is_fatal(&self, process: &Process, signal: Signal, action: Action) -> bool {
        !process.is_init()
            && action.handler == super::SIG_DFL
            && signal.default_action() == DefaultAction::Terminate
    }

    /// Makes every thread of the process exit with this status (`wait(2)`'s encoding), unless an
    /// earlier cause has set one.
    pub(crate) fn begin_group_exit(&mut self, status: u32) {
        self.group_exit.get_or_insert(status);
        self.stop = None;
        for t in self.members.iter() {
            notify(t, true);
        }
        self.unpark();
    }

    /// Lets every stopped thread go on, those in trace stops too: they are to die.
    fn unpark(&self) {
        for t in self.members.iter() {
            if let Some(thread) = t.thread() {
                sched::unpark(&thread);
            }
        }
    }

    /// Ends the stop of the process; trace stops go on.
    fn unpark_stopped(&self) {
        for t in self.members.iter() {
            let stays = crate::ptrace::link::group_stop_changed(t);
            if let Some(thread) = t.thread() {
                if crate::ptrace::is_traced(t) {
                    thread.head().set_flag(SIGNAL_PENDING);
                }
                if !stays {
                    sched::unpark(&thread);
                }
            }
        }
    }

    /// Drops pending instances of the signals in `set`, of the process and all its threads.
    pub(crate) fn flush(&mut self, set: SigSet) {
        self.shared.flush(set);
        for t in self.members.iter() {
            t.signals.lock().queue.flush(set);
        }
    }
}

fn is_fault(info: &SigInfo) -> bool {
    matches!(info.cause, super::Cause::Fault { .. })
}

/// Sets the work flag and ends an interruptible (or, for `fatal`, killable) sleep of the thread.
pub(super) fn notify(task: &Task, fatal: bool) {
    if let Some(thread) = task.thread() {
        thread.head().set_flag(if fatal { SIGNAL_PENDING | FATAL_PENDING } else { SIGNAL_PENDING });
        sched::signal_wake(&thread, fatal);
    }
}
