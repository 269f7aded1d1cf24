//! Waiting for children (`wait4(2)`, `waitid(2)`).

use crate::{
    exit,
    ptrace::waiting::{self, Found, TracedBy},
    signal::{Cause, SIGINFO_SIZE, SigInfo, Signal},
    task::{FAMILY, JobEvent, Life, Process, Task},
};
use abi::{Errno, Nanos, Result, raw::general as g};
use kalloc::KArc;
use sched::{Outcome, Sleep};
use sync::atomic::Ordering;

/// Which children a call asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Any,
    Pid(u32),
    Group(u32),
}

/// What a call learned of a child.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub pid: u32,
    pub uid: u32,
    /// Status in `wait(2)`'s encoding.
    pub status: u32,
    /// `si_code` and `si_status` of the same.
    pub code: i32,
    pub value: i32,
    pub usage: Usage,
}

/// Resource usage of a waited-for child, for `struct rusage`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub utime: Nanos,
    pub stime: Nanos,
    pub max_rss_kib: u64,
    pub min_flt: u64,
    pub nvcsw: u64,
    pub nivcsw: u64,
}

impl Report {
    /// As `waitid(2)` gives it.
    pub fn siginfo(&self) -> [u8; SIGINFO_SIZE] {
        let cause = Cause::Child {
            code: self.code,
            pid: self.pid,
            uid: self.uid,
            status: self.value,
            utime: Nanos::ZERO,
            stime: Nanos::ZERO,
        };
        SigInfo { signal: Signal::CHLD, cause }.encode()
    }
}

/// Status of a stopped child (`WIFSTOPPED`).
const fn stopped(signal: u32) -> u32 {
    signal << 8 | 0x7f
}
/// Status of a continued child (`WIFCONTINUED`).
const CONTINUED: u32 = 0xffff;

/// Waits until a child of the kind asked for has news. `None` with WNOHANG and no news. ECHILD
/// when no child can ever match; ERESTARTSYS when a signal comes first.
pub fn wait(task: &Task, which: Which, options: u32) -> Result<Option<Report>> {
    let process = task.process.clone();
    let thread = (options & g::__WNOTHREAD != 0).then(|| task.id());
    let look = || match scan(&process, thread, which, options) {
        Ok(Some(report)) => Some(Ok(Some(report))),
        Ok(None) if options & g::WNOHANG != 0 => Some(Ok(None)),
        Ok(None) => None,
        Err(e) => Some(Err(e)),
    };
    match process.child_events.wait_until(Sleep::Interruptible, None, look) {
        Outcome::Ready(result) => result,
        Outcome::Interrupted | Outcome::TimedOut => Err(Errno::ERESTARTSYS),
    }
}

/// `thread`: of the tracees, only those of this thread count (__WNOTHREAD).
fn scan(process: &KArc<Process>, thread: Option<u32>, which: Which, options: u32) -> Result<Option<Report>> {
    // What is dropped outside the lock: the last reference to a reaped child frees much.
    let mut reaped = None;
    let mut ended = None;
    let result = {
        let _family = FAMILY.lock();
        let mut matching = false;
        let mut found = None;
        let children = process.children.lock();
        for (_, child) in children.iter() {
            if !matches(child, which, options) {
                continue;
            }
            matching = true;
            if let Some(report) = news(process, child, options) {
                found = Some((child.clone(), report));
                break;
            }
        }
        drop(children);
        match found {
            Some((child, report)) => {
                if options & g::WNOWAIT == 0 {
                    collect(process, &child);
                }
                reaped = Some(child);
                Ok(Some(report))
            }
            None => match waiting::scan(process, thread, options, |t| asks_for(t, which), &mut ended) {
                Found::News(report) => Ok(Some(report)),
                Found::Quiet => Ok(None),
                Found::None if matching => Ok(None),
                Found::None => Err(Errno::ECHILD),
            },
        }
    };
    drop(ended);
    if let Some(child) = &reaped
        && child.links.lock().life == Life::Reaped
    {
        let leader = child.leader.lock().take();
        drop(leader);
    }
    drop(reaped);
    result
}

fn matches(child: &Process, which: Which, options: u32) -> bool {
    let wanted = match which {
        Which::Any => true,
        Which::Pid(pid) => child.id() == pid,
        Which::Group(pgrp) => child.pgrp_id() == pgrp,
    };
    // A "clone child" is one that ends with another signal than SIGCHLD.
    let clone_child = child.exit_signal.load(Ordering::Relaxed) != g::SIGCHLD;
    wanted && (options & g::__WALL != 0 || clone_child == (options & g::__WCLONE != 0))
}

/// Whether the call asks about a task that the caller traces.
fn asks_for(task: &Task, which: Which) -> bool {
    match which {
        Which::Any => true,
        Which::Pid(pid) => task.id() == pid,
        Which::Group(pgrp) => task.process.pgrp_id() == pgrp,
    }
}

fn news(parent: &Process, child: &KArc<Process>, options: u32) -> Option<Report> {
    let life = child.links.lock().life;
    let traced = waiting::traced_by(child, parent);
    let report = |status: u32, code: i32, value: i32| Report {
        pid: child.id(),
        uid: child.uid(),
        status,
        code,
        value,
        usage: usage(child),
    };
    if let Life::Zombie(status) = life {
        // Whoever traces it comes first.
        return (options & g::WEXITED != 0 && traced != TracedBy::Other).then(|| report(status, exit::exit_code(status), exit::exit_value(status)));
    }
    let event = child.signals.lock_irq().event;
    match event {
        // To its tracer each thread stops by itself.
        Some(JobEvent::Stopped(s)) if options & g::WSTOPPED != 0 && traced != TracedBy::Us => {
            Some(report(stopped(s.number()), g::CLD_STOPPED as i32, s.number() as i32))
        }
        Some(JobEvent::Continued) if options & g::WCONTINUED != 0 => {
            Some(report(CONTINUED, g::CLD_CONTINUED as i32, g::SIGCONT as i32))
        }
        _ => None,
    }
}

/// Takes the news so that it is not told twice; a zombie leaves the family. Family lock held.
fn collect(parent: &KArc<Process>, child: &KArc<Process>) {
    let mut links = child.links.lock();
    if let Life::Zombie(_) = links.life {
        links.life = Life::Reaped;
        drop(links);
        waiting::forget(child);
        // Nobody finds it any more, also while its last thread still leaves its stack.
        child.pid.set_task(None);
        exit::remove_child(parent, child);
        let c = *child.times.lock();
        let mut p = parent.times.lock();
        p.children_utime = p.children_utime.saturating_add(c.utime).saturating_add(c.children_utime);
        p.children_stime = p.children_stime.saturating_add(c.stime).saturating_add(c.children_stime);
        p.children_min_flt += c.min_flt + c.children_min_flt;
        p.children_max_rss_kib = p.children_max_rss_kib.max(c.max_rss_kib).max(c.children_max_rss_kib);
    } else {
        drop(links);
        child.signals.lock_irq().event = None;
    }
}

/// Of a child, with what its own children used.
pub(crate) fn usage(child: &Process) -> Usage {
    let own = own_usage(child);
    let gone = children_usage(child);
    Usage {
        utime: own.utime.saturating_add(gone.utime),
        stime: own.stime.saturating_add(gone.stime),
        max_rss_kib: own.max_rss_kib.max(gone.max_rss_kib),
        min_flt: own.min_flt + gone.min_flt,
        ..own
    }
}

/// RUSAGE_SELF.
pub fn own_usage(process: &Process) -> Usage {
    let (utime, stime) = process.cpu_times();
    let signals = process.signals.lock_irq();
    let t = *process.times.lock();
    let mut u = Usage { utime, stime, max_rss_kib: t.max_rss_kib, min_flt: t.min_flt, nvcsw: t.nvcsw, nivcsw: t.nivcsw };
    for member in signals.members.iter() {
        u.min_flt += member.min_flt.load(Ordering::Relaxed);
        if let Some(thread) = member.thread() {
            u.nvcsw += thread.nvcsw();
            u.nivcsw += thread.nivcsw();
        }
    }
    let mm = signals.members.first().and_then(|m| m.mm());
    drop(signals);
    if let Some(mm) = mm {
        u.max_rss_kib = u.max_rss_kib.max(crate::exec::peak_rss_kib(&mm));
    }
    u
}

/// RUSAGE_CHILDREN.
pub fn children_usage(process: &Process) -> Usage {
    let t = *process.times.lock();
    Usage {
        utime: t.children_utime,
        stime: t.children_stime,
        max_rss_kib: t.children_max_rss_kib,
        min_flt: t.children_min_flt,
        nvcsw: 0,
        nivcsw: 0,
    }
}

/// RUSAGE_THREAD.
pub fn thread_usage(task: &Task) -> Usage {
    let Some(thread) = task.thread() else { return Usage::default() };
    Usage {
        utime: thread.utime(),
        stime: thread.stime(),
        nvcsw: thread.nvcsw(),
        nivcsw: thread.nivcsw(),
        max_rss_kib: task.mm().map_or(0, |mm| crate::exec::peak_rss_kib(&mm)),
        min_flt: task.min_flt.load(Ordering::Relaxed),
    }
}
