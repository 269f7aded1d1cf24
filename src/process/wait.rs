//! Waiting for children (`wait4(2)`, `waitid(2)`).

use crate::{
    exit,
    pid::Pid,
    ptrace::waiting::{self, Found, TracedBy},
    task::{FAMILY, JobEvent, Life, Process, Task},
};
use abi::{Errno, Nanos, Result, raw::general as g};
use kalloc::KArc;
use sched::{Outcome, Sleep};
use sync::atomic::Ordering;

/// Which children a call asks about.
#[derive(Clone)]
pub enum Which {
    Any,
    Pid(u32),
    Group(u32),
    /// What a pidfd stands for: never another process that got the same number later.
    Object(KArc<Pid>),
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
    /// Filled in last.
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
    let look = || match scan(&process, thread, &which, options) {
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

/// `thread`: only children and tracees of this thread count (__WNOTHREAD).
fn scan(process: &KArc<Process>, thread: Option<u32>, which: &Which, options: u32) -> Result<Option<Report>> {
    // Dropped outside the lock: the last reference to a reaped child frees much.
    let mut traced = None;
    let (mut result, freed) = {
        let _family = FAMILY.lock();
        let (found, matching) = look_at_children(process, thread, which, options);
        match found {
            Some((child, report)) => {
                let leader = if options & g::WNOWAIT == 0 { collect(process, &child) } else { None };
                (Ok(Some(report)), Some((child, leader)))
            }
            None => {
                let result = match waiting::scan(process, thread, options, |t| asks_for(t, which), &mut traced) {
                    Found::News(report) => Ok(Some(report)),
                    Found::Quiet => Ok(None),
                    Found::None if matching => Ok(None),
                    Found::None => Err(Errno::ECHILD),
                };
                (result, None)
            }
        }
    };
    // Not with the locks held: a look at an address space may end it.
    if let Ok(Some(report)) = &mut result {
        if let Some((child, _)) = &freed {
            report.usage = usage(child);
        } else if let Some(task) = &traced {
            report.usage = if task.is_leader() { usage(&task.process) } else { thread_usage(task) };
        }
    }
    result
}

/// The first child with news, and whether any child could ever match.
fn look_at_children(process: &Process, thread: Option<u32>, which: &Which, options: u32) -> (Option<(KArc<Process>, Report)>, bool) {
    let children = process.children.lock();
    let matches = |child: &&KArc<Process>| {
        matches(child, which, options) && thread.is_none_or(|t| child.parent_thread.load(Ordering::Relaxed) == t)
    };
    let told = |child: &KArc<Process>| news(process, child, options).map(|report| (child.clone(), report));
    // One child in particular is found without a look at its siblings.
    let one = match which {
        Which::Pid(pid) => Some(*pid),
        Which::Object(pid) => Some(pid.number()),
        _ => None,
    };
    if let Some(pid) = one {
        let child = children.get(&pid).filter(matches);
        return (child.and_then(told), child.is_some());
    }
    let mut matching = false;
    for child in children.values().filter(matches) {
        matching = true;
        if let Some(found) = told(child) {
            return (Some(found), true);
        }
    }
    (None, matching)
}

fn matches(child: &Process, which: &Which, options: u32) -> bool {
    let wanted = match which {
        Which::Any => true,
        Which::Pid(pid) => child.id() == *pid,
        Which::Group(pgrp) => child.pgrp_id() == *pgrp,
        Which::Object(pid) => KArc::ptr_eq(&child.pid, pid),
    };
    // A "clone child" is one that ends with another signal than SIGCHLD.
    let clone_child = child.exit_signal.load(Ordering::Relaxed) != g::SIGCHLD;
    wanted && (options & g::__WALL != 0 || clone_child == (options & g::__WCLONE != 0))
}

/// Whether the call asks about a task that the caller traces.
fn asks_for(task: &Task, which: &Which) -> bool {
    match which {
        Which::Any => true,
        Which::Pid(pid) => task.id() == *pid,
        Which::Group(pgrp) => task.process.pgrp_id() == *pgrp,
        Which::Object(pid) => task.pid_object().is_some_and(|own| KArc::ptr_eq(&own, pid)),
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
        usage: Usage::default(),
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

/// Takes the news so that it is not told twice; a zombie leaves the family, and its leader is the
/// caller's to drop. Family lock held.
fn collect(parent: &KArc<Process>, child: &KArc<Process>) -> Option<KArc<Task>> {
    let life = child.links.lock().life;
    if !matches!(life, Life::Zombie(_)) {
        child.signals.lock_irq().event = None;
        return None;
    }
    waiting::forget(child);
    let leader = exit::reap(parent, child);
    let c = *child.times.lock();
    let mut p = parent.times.lock();
    p.children_utime = p.children_utime.saturating_add(c.utime).saturating_add(c.children_utime);
    p.children_stime = p.children_stime.saturating_add(c.stime).saturating_add(c.children_stime);
    p.children_nvcsw += c.nvcsw + c.children_nvcsw;
    p.children_nivcsw += c.nivcsw + c.children_nivcsw;
    p.children_min_flt += c.min_flt + c.children_min_flt;
    p.children_max_rss_kib = p.children_max_rss_kib.max(c.max_rss_kib).max(c.children_max_rss_kib);
    leader
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
        nvcsw: own.nvcsw + gone.nvcsw,
        nivcsw: own.nivcsw + gone.nivcsw,
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
    let first = signals.members.first().cloned();
    drop(signals);
    if let Some(mm) = first.and_then(|task| task.mm()) {
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
        nvcsw: t.children_nvcsw,
        nivcsw: t.children_nivcsw,
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
