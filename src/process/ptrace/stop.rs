//! Where a tracee stops: at signals, system calls, events, and with its process.
//!
//! Each stop is one call of [`stop_here`] in the tracee's own context: it leaves its registers,
//! tells the tracer, sleeps, takes the registers back. A fatal signal ends every stop, and none
//! begins after one, except the one at exit.

use super::{Stop, event_code, is_traced, with_link};
use crate::{
    exit,
    signal::{Cause, SigInfo, Signal, complete_stop},
    task::{FAMILY, JobEvent, ProcessSignals, Task},
};
use abi::raw::{general as g, ptrace as p};
use arch::{
    UserRegs,
    thread::{FATAL_PENDING, SINGLE_STEP, SYSCALL_EMU, SYSCALL_TRACE},
};
use kalloc::KArc;
use sched::Parked;

/// How a stop is announced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// CLD_TRAPPED
    Trapped,
    /// CLD_STOPPED: the process stops, or the tracer interrupted.
    Stopped,
}

/// `siginfo` of a stop that no signal caused: from the task itself, with the code of the stop.
fn own_info(task: &Task, signal: Signal, code: u32) -> SigInfo {
    let uid = task.with_cred(|c| c.uid).unwrap_or(0);
    SigInfo { signal, cause: Cause::User { code: code as i32, pid: task.id(), uid } }
}

/// Stops until the tracer, or death, lets the task go on. The signal that the tracer wants, 0 for
/// none, and the information that goes with the stop, as the tracer left it.
fn stop_here(task: &Task, regs: &mut UserRegs, code: u32, why: Why, message: u64, info: Option<SigInfo>) -> (u32, Option<SigInfo>) {
    let head = sched::current();
    let head = head.head();
    let fp = arch::fp::read(head);
    let process = &task.process;
    let group_stop = {
        let mut s = process.signals.lock_irq();
        if head.test_flag(FATAL_PENDING) {
            return (0, info);
        }
        {
            let mut slot = task.trace.lock();
            let Some(t) = slot.as_deref_mut().filter(|t| t.link.is_some()) else { return (code & 0x7f, info) };
            t.regs = *regs;
            t.fp = fp;
            t.tls = head.tls();
            t.fp_changed = false;
            t.tls_changed = false;
            if let Some(link) = &mut t.link {
                link.message = message;
                link.trap = false;
                if code >> 8 == p::PTRACE_EVENT_STOP {
                    link.group_changed = false;
                }
            }
            t.stop = Some(Stop { code, told: false, info, inject: 0, over: false, listening: false });
        }
        // With the lock held: whoever ends the stop from here on finds the thread.
        sched::prepare_to_park();
        if why == Why::Stopped { take_part(&mut s, task) } else { None }
    };
    announce(task, code, why, group_stop);
    sched::park_current(Parked::Traced);

    let _s = process.signals.lock_irq();
    let mut slot = task.trace.lock();
    let Some(t) = slot.as_deref_mut() else { return (0, info) };
    let Some(stop) = t.stop.take() else { return (0, info) };
    *regs = t.regs;
    let (fp, tls) = (t.fp_changed.then_some(t.fp), t.tls_changed.then_some(t.tls));
    if t.link.is_none() {
        // Detached meanwhile: the record has served its turn.
        let gone = slot.take();
        drop(slot);
        drop(_s);
        drop(gone);
    } else {
        drop(slot);
        drop(_s);
    }
    if let Some(fp) = fp {
        arch::fp::write(head, &fp);
    }
    if let Some(tls) = tls {
        head.set_tls(tls);
    }
    // Death ended it, not the tracer.
    let signal = if stop.over { stop.inject } else { 0 };
    (signal, stop.info)
}

/// The task counts as stopped with its process; the news when it was the last.
fn take_part(s: &mut ProcessSignals, task: &Task) -> Option<JobEvent> {
    let stop = s.stop?;
    task.signals.lock().stopped_for = stop.id;
    complete_stop(s)
}

/// Tells the tracer of the stop, and the parent that the whole process has stopped.
fn announce(task: &Task, code: u32, why: Why, group_stop: Option<JobEvent>) {
    let _family = FAMILY.lock();
    let Some(tracer) = super::tracer_process(task) else { return };
    let (cld, status) = match why {
        Why::Trapped => (g::CLD_TRAPPED, code & 0x7f),
        Why::Stopped => (g::CLD_STOPPED, code & 0x7f),
    };
    super::waiting::notify(&tracer, task, cld, status);
    if let Some(event) = group_stop
        && !task.process.parent().is_some_and(|parent| KArc::ptr_eq(&parent, &tracer))
    {
        exit::notify_parent_of_job_event(&task.process, event);
    }
}

/// A signal is about to be delivered: the tracer sees it first. What is to be delivered instead.
pub(crate) fn signal_stop(task: &Task, regs: &mut UserRegs, info: SigInfo) -> Option<SigInfo> {
    let (number, seen) = stop_here(task, regs, info.signal.number(), Why::Trapped, 0, Some(info));
    let signal = Signal::new(number)?;
    let mut info = seen.unwrap_or(info);
    if signal != info.signal {
        // Another one than came: it is from the tracer.
        let tracer = with_link(task, |l| l.tracer.upgrade()).flatten();
        let pid = tracer.as_ref().map_or(0, |t| t.process.id());
        let uid = tracer.and_then(|t| t.with_cred(|c| c.uid).ok()).unwrap_or(0);
        info = SigInfo { signal, cause: Cause::User { code: g::SI_USER as i32, pid, uid } };
    }
    let blocked = {
        let _s = task.process.signals.lock_irq();
        task.signals.lock().blocked.contains(signal)
    };
    if blocked {
        // The tracer chose one that has to wait.
        crate::signal::send_to_task(task, info);
        return None;
    }
    Some(info)
}

/// The stop that an interruption or a stop of the process asks for.
pub(crate) fn trap(task: &Task, regs: &mut UserRegs) {
    let group = task.process.signals.lock_irq().stop.map(|s| s.signal);
    let seized = with_link(task, |l| l.seized).unwrap_or(false);
    if seized {
        let signal = group.unwrap_or(Signal::TRAP);
        let code = event_code(p::PTRACE_EVENT_STOP, signal.number());
        stop_here(task, regs, code, Why::Stopped, 0, Some(own_info(task, signal, code)));
    } else if let Some(signal) = group {
        stop_here(task, regs, signal.number(), Why::Stopped, 0, None);
    }
}

/// Whether [`trap`] has something to do. The lock on the process's signals is held.
pub(crate) fn wants_trap(s: &ProcessSignals, task: &Task, stopped_for: u64) -> bool {
    if !is_traced(task) {
        return false;
    }
    let slot = task.trace.lock();
    let Some(link) = slot.as_deref().and_then(|t| t.link.as_ref()) else { return false };
    link.trap || link.group_changed || s.stop.is_some_and(|stop| stop.id != stopped_for)
}

/// A stop with a SIGTRAP of its own. The tracer's signal is sent anew, so it may be blocked.
fn notify(task: &Task, regs: &mut UserRegs, code: u32, message: u64) {
    let (number, _) = stop_here(task, regs, code, Why::Trapped, message, Some(own_info(task, Signal::TRAP, code)));
    if let Some(signal) = Signal::new(number) {
        crate::signal::send_to_task(task, SigInfo::kernel(signal));
    }
}

/// An event that the tracer asked for by an option: stops there. False when it did not.
pub fn event(task: &Task, regs: &mut UserRegs, event: u32, message: u64) -> bool {
    let wanted = super::wants(task, event);
    if wanted {
        notify(task, regs, event_code(event, Signal::TRAP.number()), message);
    }
    wanted
}

/// A program was started: its event, or the SIGTRAP that tracers got before there were events.
pub(crate) fn exec_event(task: &Task, regs: &mut UserRegs, former_id: u32) {
    if is_traced(task)
        && !event(task, regs, p::PTRACE_EVENT_EXEC, former_id.into())
        && with_link(task, |l| !l.seized).unwrap_or(false)
    {
        crate::signal::send_to_task(task, own_info(task, Signal::TRAP, g::SI_USER));
    }
}

/// The thread is about to end. Also one that a fatal signal ends stops here; another SIGKILL ends
/// the stop.
pub fn exit_event(task: &Task, regs: &mut UserRegs, status: u32) {
    if is_traced(task) && super::wants(task, p::PTRACE_EVENT_EXIT) {
        sched::current().head().clear_flag(FATAL_PENDING);
        event(task, regs, p::PTRACE_EVENT_EXIT, status.into());
    }
}

/// A handler is about to run under single steps: the tracer sees its first instruction.
pub(crate) fn handler_entered(task: &Task, regs: &mut UserRegs) {
    if sched::current().head().test_flag(SINGLE_STEP) && is_traced(task) {
        notify(task, regs, Signal::TRAP.number(), 0);
    }
}

/// Code of a stop at a system call.
fn syscall_code(task: &Task) -> u32 {
    let good = with_link(task, |l| l.options & p::PTRACE_O_TRACESYSGOOD != 0).unwrap_or(false);
    Signal::TRAP.number() | if good { 0x80 } else { 0 }
}

/// x7 tells tracers which of the two stops it is; the task gets its own value back.
const MARKER: usize = 7;

fn syscall_stop(task: &Task, regs: &mut UserRegs, message: u32) {
    let own = regs.x[MARKER];
    regs.x[MARKER] = (message == p::PTRACE_EVENTMSG_SYSCALL_EXIT).into();
    notify(task, regs, syscall_code(task), message.into());
    regs.x[MARKER] = own;
}

/// Before a system call of a thread with `SYSCALL_WORK`: whether it is to be carried out. The
/// number is `regs.syscallno`, which the tracer may have changed; -1 skips the call too.
pub fn syscall_enter(task: &Task, regs: &mut UserRegs, flags: u32) -> bool {
    if flags & (SYSCALL_TRACE | SYSCALL_EMU) == 0 {
        return true;
    }
    if is_traced(task) {
        syscall_stop(task, regs, p::PTRACE_EVENTMSG_SYSCALL_ENTRY);
    }
    flags & SYSCALL_EMU == 0 && !sched::current().head().test_flag(FATAL_PENDING)
}

/// After a system call, carried out or not.
pub fn syscall_exit(task: &Task, regs: &mut UserRegs) {
    let flags = sched::current().head().flags();
    if !is_traced(task) {
        return;
    }
    if flags & SYSCALL_TRACE != 0 && flags & SINGLE_STEP == 0 {
        syscall_stop(task, regs, p::PTRACE_EVENTMSG_SYSCALL_EXIT);
    } else if flags & SINGLE_STEP != 0 {
        // The instruction that was stepped is the SVC.
        let cause = Cause::User { code: g::SI_USER as i32, pid: 0, uid: 0 };
        crate::signal::force_signal(task, SigInfo { signal: Signal::TRAP, cause });
    }
}
