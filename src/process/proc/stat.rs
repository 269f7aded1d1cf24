//! `/proc/PID/stat`, `statm` and `status`: the same facts in three formats.

use super::View;
use crate::{
    signal::clock_ticks,
    task::{Life, Task},
    wait::{Usage, children_usage, own_usage, thread_usage},
};
use abi::{PAGE_SIZE, Result};
use core::fmt::Write;
use sync::atomic::Ordering;
use vfs::pseudo::{SeqBuf, no_memory};

const KIB_PER_PAGE: u64 = PAGE_SIZE as u64 / 1024;

/// The letter of the state, and the word that `status` puts behind it.
fn state(task: &Task) -> (char, &'static str) {
    let life = task.process.links.lock().life;
    if task.has_exited() || life != Life::Alive {
        return if life == Life::Reaped { ('X', "dead") } else { ('Z', "zombie") };
    }
    // A stop counts from the moment at which others may hear of it, before the thread is off its CPU.
    let letter = if crate::ptrace::is_stopped(task) {
        't'
    } else if is_stopped_with_process(task) {
        'T'
    } else {
        task.thread().map_or('Z', |t| t.state().letter())
    };
    let word = match letter {
        'R' => "running",
        'S' => "sleeping",
        'D' => "disk sleep",
        'T' => "stopped",
        't' => "tracing stop",
        'I' => "idle",
        'Z' => "zombie",
        _ => "dead",
    };
    (letter, word)
}

/// Whether the thread has taken part in the stop of its process, which goes on. One that is traced
/// stops for its tracer.
fn is_stopped_with_process(task: &Task) -> bool {
    let s = task.process.signals.lock_irq();
    let stopped_for = task.signals.lock().stopped_for;
    s.stop.is_some_and(|stop| stop.id == stopped_for) && !crate::ptrace::is_traced(task)
}

/// The name without its padding.
pub(super) fn name(task: &Task) -> ([u8; 16], usize) {
    let name = task.thread().map_or_else(|| *task.last_name.lock(), |t| t.name());
    let len = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    (name, len)
}

/// Flags of field 9 (Linux's PF_*).
const PF_EXITING: u32 = 4;
const PF_FORKNOEXEC: u32 = 0x40;
const PF_KTHREAD: u32 = 0x0020_0000;

fn flags(task: &Task) -> u32 {
    if task.thread().is_some_and(|t| t.is_kernel() && task.process.thread_count() == 0) {
        return PF_KTHREAD;
    }
    let forked = !task.process.has_execed.load(Ordering::Relaxed);
    (if task.has_exited() { PF_EXITING } else { 0 }) | if forked { PF_FORKNOEXEC } else { 0 }
}

/// Of a process all that its threads did, of a thread what it did itself.
fn usage(v: &View) -> Usage {
    if v.whole { own_usage(&v.process) } else { thread_usage(v) }
}

pub(super) fn stat(v: &View, out: &mut SeqBuf) -> Result {
    let task = &v.task;
    let p = &task.process;
    // Addresses of the program are for those who may look into it.
    let may = super::may_inspect(task).is_ok();
    let (name, len) = name(task);
    write!(out, "{} (", task.id()).map_err(no_memory)?;
    out.push(name.get(..len).unwrap_or(&[]))?;
    let tty = p.session().and_then(|s| s.tty());
    let tty_nr = tty.as_ref().map_or(0, |t| t.dev().encode());
    let tpgid = tty.as_ref().and_then(|t| t.foreground_group()).map_or(-1, i64::from);
    let own = usage(v);
    let gone = children_usage(p);
    let thread = task.thread();
    let nice = thread.as_ref().map_or(0, |t| i64::from(t.nice()));
    let mm = task.mm();
    let (vsize, rss, known) = mm.as_ref().map_or((0, 0, mm::Layout::default()), |m| {
        (m.stats().total * PAGE_SIZE as u64, m.resident_pages(), m.layout())
    });
    let l = if may { known } else { mm::Layout::default() };
    // Linux says 1 for "not told".
    let hidden = u64::from(!may && mm.is_some());
    let (ignored, caught) = p.actions().map_or((Default::default(), Default::default()), |a| a.summary());
    let (pending, blocked) = {
        let s = task.signals.lock_irq();
        (s.queue.pending(), s.blocked)
    };
    let exit_signal = if task.is_leader() { i64::from(p.exit_signal.load(Ordering::Relaxed)) } else { -1 };
    let cpu = thread.as_ref().map_or(0, |t| t.head().cpu.load(Ordering::Relaxed));
    let waits = may && thread.as_ref().is_some_and(|t| t.state() != sched::State::Running);
    let started = if v.whole { p.start_time } else { thread.as_ref().map_or(p.start_time, |t| t.start_time()) };
    let exit_code = match p.links.lock().life {
        Life::Zombie(status) if may => status,
        _ => 0,
    };
    // 3: state ... 17: cstime
    write!(
        out,
        ") {} {} {} {} {tty_nr} {tpgid} {} {} {} 0 0 {} {} {} {} ",
        state(task).0,
        p.parent_id(),
        p.pgrp_id(),
        p.session_id(),
        flags(task),
        own.min_flt,
        gone.min_flt,
        clock_ticks(own.utime),
        clock_ticks(own.stime),
        clock_ticks(gone.utime),
        clock_ticks(gone.stime),
    )
    .map_err(no_memory)?;
    // 18: priority ... 37: cnswap
    write!(
        out,
        "{} {nice} {} 0 {} {vsize} {rss} {} {} {} {} 0 0 {} {} {} {} {} 0 0 ",
        // Of the real-time class: -2 to -100 (proc(5)).
        thread.as_ref().map(|t| t.rt_priority()).filter(|p| *p != 0).map_or(20 + nice, |p| -1 - i64::from(p)),
        p.thread_count().max(1),
        clock_ticks(started),
        p.limit(abi::raw::general::RLIMIT_RSS),
        l.start_code.0 + hidden,
        l.end_code.0 + hidden,
        l.start_stack.0,
        pending.0 & 0x7fff_ffff,
        blocked.0 & 0x7fff_ffff,
        ignored.0 & 0x7fff_ffff,
        caught.0 & 0x7fff_ffff,
        u8::from(waits),
    )
    .map_err(no_memory)?;
    // 38: exit_signal ... 40: rt_priority, 41: policy ... 52: exit_code
    let policy = thread.as_ref().map_or(sched::Attributes { policy: sched::Policy::Normal, nice: 0, priority: 0, reset_on_fork: false }, |t| t.attributes());
    writeln!(
        out,
        "{exit_signal} {cpu} {} {} 0 0 0 {} {} {} {} {} {} {} {exit_code}",
        policy.priority, policy.policy as u32, l.start_data.0, l.end_data.0, l.start_brk.0, l.arg_start.0, l.arg_end.0, l.env_start.0, l.env_end.0
    )
    .map_err(no_memory)
}

/// What was read and written; for those who may look into the process.
pub(super) fn io(v: &View, out: &mut SeqBuf) -> Result {
    super::may_inspect(v)?;
    let mut sum = v.figures.io();
    if v.whole {
        sum = v.process.times.lock().io;
        for t in v.process.threads()?.iter() {
            for (n, more) in sum.iter_mut().zip(t.figures.io()) {
                *n += more;
            }
        }
    }
    let [rchar, wchar, syscr, syscw] = sum;
    // No file system of a disk is there yet that could count what goes to it.
    write!(
        out,
        "rchar: {rchar}\nwchar: {wchar}\nsyscr: {syscr}\nsyscw: {syscw}\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n"
    )
    .map_err(no_memory)
}

/// What the scheduler knows of the thread.
pub(super) fn sched(v: &View, out: &mut SeqBuf) -> Result {
    let (name, len) = name(v);
    out.push(name.get(..len).unwrap_or(&[]))?;
    writeln!(out, " ({}, #threads: {})\n{:-<67}", v.id(), v.process.thread_count().max(1), "").map_err(no_memory)?;
    let Some(t) = v.thread() else { return Ok(()) };
    let run = t.sum_exec().0;
    let ms = kalloc::kformat!("{}.{:06}", run / 1_000_000, run % 1_000_000)?;
    let row = |out: &mut SeqBuf, name: &str, value: &dyn core::fmt::Display| {
        writeln!(out, "{name:<45}:{value:>21}").map_err(no_memory)
    };
    row(out, "se.sum_exec_runtime", &ms.as_str())?;
    row(out, "nr_switches", &(t.nvcsw() + t.nivcsw()))?;
    row(out, "nr_voluntary_switches", &t.nvcsw())?;
    row(out, "nr_involuntary_switches", &t.nivcsw())?;
    row(out, "policy", &0)?;
    row(out, "prio", &(120 + i32::from(t.nice())))
}

pub(super) fn statm(task: &View, out: &mut SeqBuf) -> Result {
    let Some(mm) = task.mm() else { return out.push(b"0 0 0 0 0 0 0\n") };
    let s = mm.stats();
    let l = mm.layout();
    let text = (l.end_code.0.saturating_sub(l.start_code.0)).div_ceil(PAGE_SIZE as u64);
    let shared = s.rss.file + s.rss.shmem;
    writeln!(out, "{} {} {shared} {text} 0 {} 0", s.total, s.rss.total(), s.data + s.stack).map_err(no_memory)
}

pub(super) fn schedstat(task: &View, out: &mut SeqBuf) -> Result {
    // Run time, time that it waited for a CPU (not measured), turns on a CPU.
    let (run, turns) = task.thread().map_or((0, 0), |t| (t.sum_exec().0, t.nvcsw() + t.nivcsw()));
    writeln!(out, "{run} 0 {turns}").map_err(no_memory)
}

pub(super) fn status(task: &View, out: &mut SeqBuf) -> Result {
    let p = &task.process;
    let (name, len) = name(task);
    out.push(b"Name:\t")?;
    for b in name.get(..len).unwrap_or(&[]) {
        match *b {
            b'\n' => out.push(b"\\n")?,
            b'\\' => out.push(b"\\\\")?,
            other => out.push(&[other])?,
        }
    }
    let (letter, word) = state(task);
    let umask = task.fs().map_or(0o022, |fs| fs.umask());
    let c = task.cred()?;
    write!(
        out,
        "\nUmask:\t{umask:04o}\nState:\t{letter} ({word})\nTgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\nTracerPid:\t{}\n",
        p.id(),
        task.id(),
        p.parent_id(),
        crate::ptrace::tracer_id(task)
    )
    .map_err(no_memory)?;
    write!(
        out,
        "Uid:\t{}\t{}\t{}\t{}\nGid:\t{}\t{}\t{}\t{}\nFDSize:\t{}\nGroups:\t",
        c.uid, c.euid, c.suid, c.fsuid, c.gid, c.egid, c.sgid, c.fsgid,
        task.files().map_or(0, |f| f.size())
    )
    .map_err(no_memory)?;
    for group in c.groups.iter() {
        write!(out, "{group} ").map_err(no_memory)?;
    }
    out.push(if c.groups.is_empty() { b" " } else { b"" })?;
    write!(
        out,
        "\nNStgid:\t{}\nNSpid:\t{}\nNSpgid:\t{}\nNSsid:\t{}\n",
        p.id(),
        task.id(),
        p.pgrp_id(),
        p.session_id()
    )
    .map_err(no_memory)?;
    memory(task, out)?;
    if task.mm().is_some() {
        out.push(b"CoreDumping:\t0\nTHP_enabled:\t0\n")?;
    }
    let (ignored, caught) = p.actions().map_or((Default::default(), Default::default()), |a| a.summary());
    let (shared, queued) = {
        let s = p.signals.lock_irq();
        (s.shared.pending(), s.shared.len())
    };
    let (pending, blocked, own) = {
        let s = task.signals.lock_irq();
        (s.queue.pending(), s.blocked, s.queue.len())
    };
    write!(
        out,
        "Threads:\t{}\nSigQ:\t{}/{}\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\n",
        p.thread_count().max(1),
        queued + own,
        p.limit(abi::raw::general::RLIMIT_SIGPENDING),
        pending.0,
        shared.0,
        blocked.0,
        ignored.0,
        caught.0
    )
    .map_err(no_memory)?;
    let caps = c.caps;
    write!(
        out,
        "CapInh:\t{:016x}\nCapPrm:\t{:016x}\nCapEff:\t{:016x}\nCapBnd:\t{:016x}\nCapAmb:\t{:016x}\nNoNewPrivs:\t{}\nSeccomp:\t{}\nSeccomp_filters:\t{}\n",
        caps.inheritable,
        caps.permitted,
        caps.effective,
        caps.bounding,
        caps.ambient,
        u8::from(task.has_no_new_privs()),
        task.seccomp.mode(),
        task.seccomp.filters(),
    )
    .map_err(no_memory)?;
    let (affinity, nvcsw, nivcsw) =
        task.thread().map_or((Default::default(), 0, 0), |t| (t.affinity(), t.nvcsw(), t.nivcsw()));
    let cpus = affinity.and(arch::cpu::online());
    let digits = arch::cpu::count().div_ceil(4);
    write!(out, "Cpus_allowed:\t{:0digits$x}\nCpus_allowed_list:\t", cpus.0).map_err(no_memory)?;
    cpu_list(out, cpus)?;
    write!(out, "\nMems_allowed:\t1\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t{nvcsw}\nnonvoluntary_ctxt_switches:\t{nivcsw}\n")
        .map_err(no_memory)
}

/// CPUs as ranges: `0-3,5`.
fn cpu_list(out: &mut SeqBuf, cpus: abi::CpuMask) -> Result {
    let mut first = true;
    let mut run: Option<(u32, u32)> = None;
    let mut flush = |out: &mut SeqBuf, (a, b): (u32, u32)| {
        let comma = if core::mem::take(&mut first) { "" } else { "," };
        if a == b { write!(out, "{comma}{a}") } else { write!(out, "{comma}{a}-{b}") }.map_err(no_memory)
    };
    for cpu in cpus.iter() {
        run = match run {
            Some((a, b)) if b + 1 == cpu.0 => Some((a, cpu.0)),
            Some(done) => {
                flush(out, done)?;
                Some((cpu.0, cpu.0))
            }
            None => Some((cpu.0, cpu.0)),
        };
    }
    run.map_or(Ok(()), |r| flush(out, r))
}

fn memory(task: &Task, out: &mut SeqBuf) -> Result {
    let Some(mm) = task.mm() else { return Ok(()) };
    let s = mm.stats();
    let l = mm.layout();
    let text = l.end_code.0.div_ceil(PAGE_SIZE as u64).saturating_sub(l.start_code.0 / PAGE_SIZE as u64).min(s.exec);
    let rows = [
        ("VmPeak", s.peak),
        ("VmSize", s.total),
        ("VmLck", s.locked),
        ("VmPin", 0),
        ("VmHWM", s.rss_peak),
        ("VmRSS", s.rss.total()),
        ("RssAnon", s.rss.anon),
        ("RssFile", s.rss.file),
        ("RssShmem", s.rss.shmem),
        ("VmData", s.data),
        ("VmStk", s.stack),
        ("VmExe", text),
        ("VmLib", s.exec - text),
        ("VmPTE", s.page_tables),
        ("VmSwap", 0),
    ];
    for (name, pages) in rows {
        writeln!(out, "{name}:\t{:>8} kB", pages * KIB_PER_PAGE).map_err(no_memory)?;
    }
    Ok(())
}
