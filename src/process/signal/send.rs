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
            note_as_one_of_many(&process, info.signal);
            send_with_family(&process, info);
        }
    }
    (members, sent)
}

/// A fork that is under way starts again after a signal that its child would have got, too. One that
/// is ignored anyway is nobody's loss, and no reason to start again for ever.
pub(super) fn note_as_one_of_many(process: &Process, signal: Signal) {
    if !process.action(signal).ignores(signal) {
        process.heard.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends the signal of a timer, to the process or to a thread of it. Any context: if it ends a stop,
/// the process itself tells its parent.
pub(crate) fn send_timer_signal(process: &KArc<Process>, thread: Option<u32>, info: SigInfo) -> Queued {
    let action = process.action(info.signal);
    let mut s = process.signals.lock_irq();
    let task = match thread {
        None => None,
        Some(tid) => match s.members.iter().find(|t| t.id() == tid).cloned() {
            Some(task) => Some(task),
            None => return Queued::No,
        },
    };
    let (queued, continued) = s.send(process, task.as_deref(), info, action);
    s.untold_continue |= continued;
    queued
}

/// What became of a signal that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Queued {
    /// It waits to be taken, or ends the process.
    Yes,
    /// It is ignored, or nobody is there to take it.
    No,
    /// There was no memory for it, and it is of those that count.
    NoRoom,
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
    let action = process.action(info.signal);
    let (queued, continued) = process.signals.lock_irq().send(process, task, info, action);
    (queued != Queued::NoRoom, continued)
}

impl ProcessSignals {
    /// Sends a signal to the process, or to a thread of it. What became of it, and whether it ended a
    /// stop, of which the parent is to be told.
    fn send(&mut self, process: &Process, task: Option<&Task>, info: SigInfo, action: Action) -> (Queued, bool) {
        let signal = info.signal;
        if self.members.is_empty() || task.is_some_and(Task::has_exited) {
            return (Queued::No, false);
        }
        if self.core.is_some() && signal != Signal::KILL {
            // The process has ended already; only SIGKILL cuts its core short.
            return (Queued::No, false);
        }
        let mut continued = false;
        if signal == Signal::CONT {
            self.flush(SigSet::STOPS);
            if self.stop.take().is_some() {
                self.event = Some(JobEvent::Continued);
                continued = true;
                self.unpark_stopped();
            }
        } else if SigSet::STOPS.contains(signal) {
            self.flush(SigSet::of(Signal::CONT));
        }
        (self.queue(process, task, info, action), continued)
    }

    fn queue(&mut self, process: &Process, task: Option<&Task>, info: SigInfo, action: Action) -> Queued {
        let signal = info.signal;
        let fatal = self.is_fatal(process, signal, action);
        let wanted = |t: &Task| !t.signals.lock().blocked.contains(signal);
        // Who takes it: nobody, where it is blocked.
        let target = match task {
            Some(t) => wanted(t).then_some(t),
            None => self.members.iter().find(|t| wanted(t) && !t.has_exited()).map(|t| &**t),
        };
        let awaited = target.is_some_and(|t| t.signals.lock().awaited.contains(signal));
        // A blocked signal is kept even when it would be ignored: its action may change meanwhile, or
        // someone waits for it.
        let blocked = target.is_none() || awaited;
        // A tracer sees what would be ignored, too, and before anything happens.
        let sees = task.or(self.members.first().map(|t| &**t)).is_some_and(|t| crate::ptrace::link::sees(t, signal));
        let ignored = !sees && action.ignores(signal) || process.is_init() && action.handler == super::SIG_DFL && !is_fault(&info);
        if ignored && !blocked && signal != Signal::STOP && signal != Signal::KILL
            || process.is_init() && SigSet::UNBLOCKABLE.contains(signal)
        {
            return Queued::No;
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
            return Queued::Yes;
        }
        if let Some(t) = target {
            notify(t, false);
        }
        let counts = signal.is_realtime() || matches!(info.cause, Cause::Timer { .. });
        if ok || !counts { Queued::Yes } else { Queued::NoRoom }
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
