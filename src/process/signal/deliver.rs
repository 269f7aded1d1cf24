//! What happens to pending signals when a thread is about to return to user space.

use super::{Action, DefaultAction, SIG_DFL, SIG_IGN, SigInfo, SigSet, Signal, frame};
use crate::{
    exit, ptrace,
    task::{FAMILY, JobEvent, ProcessSignals, Stop, Task},
};
use abi::{Errno, raw::general as g};
use arch::{
    UserRegs,
    thread::{FATAL_PENDING, SIGNAL_PENDING},
};
use sched::Parked;

/// What the head of the queues asks for.
enum Next {
    Nothing,
    Handler(SigInfo, Action),
    /// Leave the process; the status is in `group_exit`.
    Exit(u32),
    /// End the process, and leave a core if it is to.
    Core(SigInfo),
    Park,
    /// A stop that the tracer or the process's stop asks of a traced thread.
    Trap,
    /// The tracer sees the signal first.
    Tell(SigInfo),
    /// The parent is to hear that the process goes on.
    TellContinued,
}

/// Handles whatever waits for the current thread: runs at return to user space, interrupts on,
/// no lock held. Ends the thread when the process is to end.
pub(crate) fn deliver(task: &Task, regs: &mut UserRegs) {
    let restart = RestartPoint::prepare(regs);
    // A signal that the tracer has seen and lets through.
    let mut seen = None;
    loop {
        match next(task, seen.take()) {
            Next::Handler(info, action) => {
                restart.before_handler(regs, &action);
                handle(task, regs, info, action);
                return;
            }
            Next::Nothing => break,
            Next::Exit(status) => {
                ptrace::stop::exit_event(task, regs, status);
                crate::coredump::stand_still(task, regs);
                exit::exit_thread(task, status)
            }
            Next::Core(info) => {
                let status = crate::coredump::end_process(task, regs, &info);
                ptrace::stop::exit_event(task, regs, status);
                exit::exit_group(task, status);
            }
            Next::Park => park(task),
            Next::Trap => ptrace::stop::trap(task, regs),
            Next::TellContinued => {
                let _family = FAMILY.lock();
                exit::notify_parent_of_job_event(&task.process, JobEvent::Continued);
            }
            Next::Tell(info) => seen = ptrace::stop::signal_stop(task, regs, info),
        }
    }
    restart.without_handler(regs);
    restore_mask(task);
}

/// Puts back the mask that `ppoll`, `sigsuspend` and their like replaced for their duration.
fn restore_mask(task: &Task) {
    let _s = task.process.signals.lock_irq();
    let mut sig = task.signals.lock();
    if let Some(mask) = sig.saved.take() {
        sig.blocked = mask;
    }
    drop(sig);
    drop(_s);
    recalculate(task);
}

/// Sets or clears SIGNAL_PENDING of the current thread by what waits for it.
pub(crate) fn recalculate(task: &Task) {
    let s = task.process.signals.lock_irq();
    recalculate_locked(&s, task);
}

pub(super) fn recalculate_locked(s: &ProcessSignals, task: &Task) {
    let Some(thread) = task.thread() else { return };
    let sig = task.signals.lock();
    let waiting = sig.queue.pending().union(s.shared.pending()).minus(sig.blocked);
    if !waiting.is_empty() || s.group_exit.is_some() || s.exec_by.is_some_and(|id| id != task.id()) || s.stop.is_some_and(|stop| stop.id != sig.stopped_for)
        || ptrace::stop::wants_trap(s, task, sig.stopped_for)
    {
        thread.head().set_flag(SIGNAL_PENDING);
    } else {
        thread.head().clear_flag(SIGNAL_PENDING | FATAL_PENDING);
    }
}

fn next(task: &Task, mut seen: Option<SigInfo>) -> Next {
    loop {
        let mut s = task.process.signals.lock_irq();
        if let Some(status) = s.group_exit {
            return Next::Exit(status);
        }
        if s.exec_by.is_some_and(|id| id != task.id()) {
            // Another thread is in exec: this one ends quietly.
            return Next::Exit(0);
        }
        if core::mem::take(&mut s.untold_continue) {
            return Next::TellContinued;
        }
        let sig = task.signals.lock();
        let traced = ptrace::is_traced(task);
        if traced && seen.is_none() && ptrace::stop::wants_trap(&s, task, sig.stopped_for) {
            return Next::Trap;
        }
        // A tracer may let a thread run while its process is stopped.
        if s.stop.is_some() && !traced {
            return Next::Park;
        }
        let blocked = sig.blocked;
        drop(sig);
        let told = seen.is_some();
        let Some(info) = seen.take().or_else(|| s.take(task, blocked)) else {
            recalculate_locked(&s, task);
            return Next::Nothing;
        };
        if !told && ptrace::link::sees(task, info.signal) {
            return Next::Tell(info);
        }
        let action = task.process.action(info.signal);
        match action.handler {
            SIG_IGN => continue,
            SIG_DFL => {}
            _ => {
                if action.has(g::SA_RESETHAND)
                    && let Some(actions) = task.process.actions()
                {
                    actions.set(info.signal, Action { handler: SIG_DFL, ..action });
                }
                return Next::Handler(info, action);
            }
        }
        match info.signal.default_action() {
            DefaultAction::Ignore => continue,
            // PID 1 does not die of what it has no handler for, except its own faults.
            _ if task.process.is_init() && !matches!(info.cause, super::Cause::Fault { .. }) => continue,
            DefaultAction::Stop => {
                // Stops from the terminal do nothing to an orphaned group (POSIX).
                if info.signal != Signal::STOP {
                    drop(s);
                    if crate::session::is_orphaned_group(&task.process) {
                        continue;
                    }
                    s = task.process.signals.lock_irq();
                    // SIGCONT or SIGKILL may have come while the lock was open.
                    if s.group_exit.is_some() || s.shared.pending().contains(Signal::CONT) {
                        continue;
                    }
                }
                begin_stop(&mut s, info.signal);
                return if ptrace::is_traced(task) { Next::Trap } else { Next::Park };
            }
            DefaultAction::Terminate => {
                s.begin_group_exit(info.signal.number());
                return Next::Exit(info.signal.number());
            }
            DefaultAction::Core => return Next::Core(info),
        }
    }
}

impl ProcessSignals {
    /// Takes the signal to deliver next to the task out of those that are not in `blocked`. A timer
    /// whose signal it was goes on.
    pub(super) fn take(&mut self, task: &Task, blocked: SigSet) -> Option<SigInfo> {
        let own = task.signals.lock().queue.pop(blocked);
        let mut info = match own {
            Some(info) => info,
            None => {
                let info = self.shared.pop(blocked)?;
                if info.signal == Signal::ALRM
                    && let Some(timer) = task.process.real_timer.get()
                {
                    timer.taken();
                }
                info
            }
        };
        task.process.posix_timers.taken(&mut info);
        Some(info)
    }
}

fn begin_stop(s: &mut ProcessSignals, signal: Signal) {
    // Also in a stop, for threads that a tracer has let go on.
    s.stops += 1;
    let complete = s.stop.is_some_and(|stop| stop.complete);
    let signal = s.stop.map_or(signal, |stop| stop.signal);
    let id = s.stops;
    for t in s.members.iter() {
        let mut sig = t.signals.lock();
        if s.stop.is_some_and(|stop| stop.id == sig.stopped_for) && !ptrace::is_traced(t) {
            // It has not moved since.
            sig.stopped_for = id;
            continue;
        }
        drop(sig);
        let stays = ptrace::link::group_stop_changed(t);
        super::send::notify(t, false);
        if !stays && ptrace::is_traced(t) && let Some(thread) = t.thread() {
            sched::unpark(&thread);
        }
    }
    s.stop = Some(Stop { signal, id, complete });
}

/// The news that the whole process has stopped, when its last thread has parked or gone.
pub(crate) fn complete_stop(s: &mut ProcessSignals) -> Option<JobEvent> {
    let stop = s.stop.as_mut().filter(|stop| !stop.complete)?;
    let id = stop.id;
    stop.complete = s.members.iter().all(|t| t.has_exited() || t.signals.lock().stopped_for == id);
    let event = stop.complete.then_some(JobEvent::Stopped(stop.signal))?;
    s.event = Some(event);
    Some(event)
}

/// Waits in the stopped state until SIGCONT or the end of the process. The last thread of the
/// process that arrives tells the parent.
fn park(task: &Task) {
    let process = &task.process;
    let complete = {
        let mut s = process.signals.lock_irq();
        let Some(stop) = s.stop.filter(|_| !ptrace::is_traced(task)) else { return };
        // With the lock held: a SIGCONT from here on finds the thread and lets it go on.
        sched::prepare_to_park();
        task.signals.lock().stopped_for = stop.id;
        complete_stop(&mut s)
    };
    if let Some(event) = complete {
        let _family = FAMILY.lock();
        exit::notify_parent_of_job_event(process, event);
    }
    sched::park_current(Parked::Stopped);
}

/// Builds the handler's frame and moves the registers into it; a stack that cannot take the frame
/// ends the process with SIGSEGV.
fn handle(task: &Task, regs: &mut UserRegs, info: SigInfo, action: Action) {
    let mask = {
        let _s = task.process.signals.lock_irq();
        let mut sig = task.signals.lock();
        sig.saved.take().unwrap_or(sig.blocked)
    };
    let pushed = crate::rseq::before_handler(task, regs).and_then(|()| frame::push(task, regs, &info, &action, mask));
    if pushed.is_err() {
        force(task, SigInfo::kernel(Signal::SEGV), info.signal == Signal::SEGV);
        return;
    }
    let mut during = mask.union(action.mask);
    if !action.has(g::SA_NODEFER) {
        during = during.with(info.signal);
    }
    set_blocked(task, during);
    ptrace::stop::handler_entered(task, regs);
}

/// Replaces the mask of the current thread; SIGKILL and SIGSTOP stay deliverable.
pub(crate) fn set_blocked(task: &Task, mask: SigSet) -> SigSet {
    let s = task.process.signals.lock_irq();
    let old = {
        let mut sig = task.signals.lock();
        core::mem::replace(&mut sig.blocked, mask.minus(SigSet::UNBLOCKABLE))
    };
    recalculate_locked(&s, task);
    // A signal of the whole process that this thread now blocks may be for another thread.
    let left = s.shared.pending().and(mask.minus(old));
    if !left.is_empty() {
        for t in s.members.iter() {
            if !t.has_exited() && !left.minus(t.signals.lock().blocked).is_empty() {
                super::send::notify(t, false);
                break;
            }
        }
    }
    old
}

/// Sends a signal that the thread cannot escape: when it blocks or ignores it, or when `default`
/// says so, the action becomes the default (Linux's force_sig).
pub(crate) fn force(task: &Task, info: SigInfo, default: bool) {
    let signal = info.signal;
    if let Some(actions) = task.process.actions() {
        let s = task.process.signals.lock_irq();
        let mut sig = task.signals.lock();
        let blocked = sig.blocked.contains(signal);
        if default || blocked || actions.get(signal).handler == SIG_IGN {
            sig.blocked = sig.blocked.without(signal);
            actions.set(signal, Action::default());
        }
        drop(sig);
        drop(s);
    }
    super::send_to_task(task, info);
}

/// [`force`] that leaves a handler in place.
pub(crate) fn force_signal(task: &Task, info: SigInfo) {
    force(task, info, false);
}

/// [`force`] that takes the default action.
pub(crate) fn force_to_end(task: &Task, info: SigInfo) {
    force(task, info, true);
}

/// Where an interrupted system call would start again.
struct RestartPoint {
    /// The code in x0, if the thread comes from a call that asked for a restart.
    code: Option<Errno>,
    continue_pc: u64,
}

const RESTARTS: [Errno; 4] =
    [Errno::ERESTARTSYS, Errno::ERESTARTNOINTR, Errno::ERESTARTNOHAND, Errno::ERESTART_RESTARTBLOCK];

impl RestartPoint {
    /// Winds the registers back to the SVC if the call wants it; [`before_handler`](Self::before_handler)
    /// undoes that when a handler runs that did not ask for restarts.
    fn prepare(regs: &mut UserRegs) -> Self {
        let continue_pc = regs.pc;
        let mut code = None;
        if regs.syscallno >= 0 {
            code = RESTARTS.into_iter().find(|e| e.to_ret() == regs.x[0]);
            regs.syscallno = -1;
            if code.is_some() {
                regs.x[0] = regs.orig_x0;
                regs.pc = regs.pc.wrapping_sub(4);
            }
        }
        Self { code, continue_pc }
    }

    /// Whether the registers still are where [`prepare`](Self::prepare) put them: a tracer may
    /// have moved them.
    fn stands(&self, regs: &UserRegs) -> bool {
        regs.pc == self.continue_pc.wrapping_sub(4)
    }

    fn before_handler(&self, regs: &mut UserRegs, action: &Action) {
        let interrupts = match self.code {
            Some(_) if !self.stands(regs) => false,
            None => false,
            Some(Errno::ERESTARTNOINTR) => false,
            Some(Errno::ERESTARTSYS) => !action.has(g::SA_RESTART),
            Some(_) => true,
        };
        if interrupts {
            regs.x[0] = Errno::EINTR.to_ret();
            regs.pc = self.continue_pc;
        }
    }

    fn without_handler(&self, regs: &mut UserRegs) {
        if self.code == Some(Errno::ERESTART_RESTARTBLOCK) && self.stands(regs) {
            regs.x[8] = u64::from(g::__NR_restart_syscall);
        }
    }
}

