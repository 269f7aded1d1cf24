//! Tracing: debuggers look into other tasks and control them (`ptrace(2)`).
//!
//! - [`access`]: who may.
//! - [`link`]: how a tracer gets and loses a tracee.
//! - [`stop`]: where a tracee stops, and what it goes on with.
//! - [`request`], [`regset`], [`debug`]: what a tracer asks and sets meanwhile.
//! - [`waiting`]: how it learns of stops and ends.
//! - [`remote`]: memory of other processes in bulk.
//!
//! A tracee that stops leaves its registers in a [`Tracee`] record and takes them from there when
//! it goes on: the tracer works on the record, never on a stack that might be in use.
//!
//! # Locks
//! Who traces whom changes with the family lock held. A task's record is behind its `trace` lock,
//! inside `Process::signals` where a stop begins or ends, so that a stop and what ends it are
//! ordered. Tasks that are not traced pay a flag test where signals are sent and delivered, and a
//! test of the thread's work flags at system calls.

pub mod access;
pub mod debug;
pub(crate) mod link;
pub mod regset;
pub mod remote;
pub mod request;
pub mod stop;
pub(crate) mod waiting;

use crate::{
    signal::SigInfo,
    task::{Process, Task},
};
use abi::raw::ptrace as p;
use arch::{UserRegs, fp::FpRegs};
use kalloc::{KArc, KBox, KWeak};
use sync::{LockClass, SpinLock, atomic::Ordering};

static TRACE: LockClass = LockClass::new("process.trace", 1014);

/// The record of a task that is, or was, traced.
pub(crate) type Slot = SpinLock<Option<KBox<Tracee>>>;

pub(crate) const fn empty_slot() -> Slot {
    SpinLock::new(None, &TRACE)
}

/// What a tracer has to do with a task.
pub(crate) struct Tracee {
    /// Present while the task is traced.
    pub link: Option<Link>,
    /// Present while the task is in a trace stop.
    pub stop: Option<Stop>,
    /// The task's registers during a stop.
    pub regs: UserRegs,
    pub fp: FpRegs,
    pub tls: u64,
    /// Changed by the tracer, so to be put back.
    pub fp_changed: bool,
    pub tls_changed: bool,
}

impl Tracee {
    pub fn new() -> Self {
        Self {
            link: None,
            stop: None,
            regs: UserRegs::default(),
            fp: FpRegs::default(),
            tls: 0,
            fp_changed: false,
            tls_changed: false,
        }
    }
    /// The stop, while the tracer may work on the task.
    pub fn stopped(&mut self) -> Option<&mut Stop> {
        self.stop.as_mut().filter(|s| !s.over)
    }
}

/// The relation itself.
#[derive(Clone)]
pub(crate) struct Link {
    /// The thread that may ask.
    pub tracer: KWeak<Task>,
    /// Its process, whose threads may wait.
    pub process: KWeak<Process>,
    pub seized: bool,
    /// The tracer could trace everything when it began: exec may give the task more rights.
    pub capable: bool,
    /// PTRACE_O_*.
    pub options: u32,
    /// Of the last event (PTRACE_GETEVENTMSG).
    pub message: u64,
    /// PTRACE_INTERRUPT, or the first stop of a child that is traced from birth.
    pub trap: bool,
    /// The group stop began or ended while the task was seized.
    pub group_changed: bool,
}

/// A trace stop.
pub(crate) struct Stop {
    /// What wait tells: a signal, and from bit 8 on an event.
    pub code: u32,
    /// Wait has told it.
    pub told: bool,
    /// PTRACE_GETSIGINFO's; a group stop of a task that is not seized has none.
    pub info: Option<SigInfo>,
    /// The signal with which the tracer lets the task go on.
    pub inject: u32,
    /// Let go on: the task runs, or will in a moment.
    pub over: bool,
    /// PTRACE_LISTEN: stopped, but not for the tracer.
    pub listening: bool,
}

/// Whether somebody traces the task; a hint that only its own lock makes certain.
pub(crate) fn is_traced(task: &Task) -> bool {
    task.traced.load(Ordering::Acquire)
}

/// Whether the task is in a trace stop: from the moment at which its tracer may hear of it, before
/// the thread has left its CPU.
pub(crate) fn is_stopped(task: &Task) -> bool {
    is_traced(task) && task.trace.lock_irq().as_deref_mut().is_some_and(|t| t.stopped().is_some())
}

/// Something of the link, if the task is traced.
pub(crate) fn with_link<R>(task: &Task, f: impl FnOnce(&mut Link) -> R) -> Option<R> {
    if !is_traced(task) {
        return None;
    }
    task.trace.lock_irq().as_deref_mut()?.link.as_mut().map(f)
}

/// The process of the tracer.
pub(crate) fn tracer_process(task: &Task) -> Option<KArc<Process>> {
    with_link(task, |l| l.process.upgrade())?
}

/// `TracerPid` of /proc/PID/status; 0 for none.
pub(crate) fn tracer_id(task: &Task) -> u32 {
    with_link(task, |l| l.tracer.upgrade()).flatten().map_or(0, |t| t.id())
}

/// Whether the task may gain rights by exec: not under a tracer that could not have them itself
/// (`ptrace(2)`, `execve(2)`).
pub(crate) fn lets_gain(task: &Task) -> bool {
    with_link(task, |l| l.capable).unwrap_or(true)
}

/// Whether the tracer wants a stop at this event.
pub(crate) fn wants(task: &Task, event: u32) -> bool {
    with_link(task, |l| l.options & 1 << event != 0).unwrap_or(false)
}

/// Wait code of an event.
const fn event_code(event: u32, signal: u32) -> u32 {
    signal | event << 8
}

/// Bits of PTRACE_O_* that exist.
const OPTIONS: u32 = p::PTRACE_O_MASK;
