//! `/proc/PID/stat`, `statm` and `status`: the same facts in three formats.

use crate::{
    signal::clock_ticks,
    task::{Life, Task},
};
use abi::{PAGE_SIZE, Result};
use core::fmt::Write;
use vfs::pseudo::{SeqBuf, no_memory};

const KIB_PER_PAGE: u64 = PAGE_SIZE as u64 / 1024;

/// The letter of the state, and the word that `status` puts behind it.
fn state(task: &Task) -> (char, &'static str) {
    let life = task.process.links.lock().life;
    if task.has_exited() || life != Life::Alive {
        return if life == Life::Reaped { ('X', "dead") } else { ('Z', "zombie") };
    }
    let letter = task.thread().map_or('Z', |t| t.state().letter());
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

/// The name without its padding.
pub(super) fn name(task: &Task) -> ([u8; 16], usize) {
    let name = task.thread().map_or_else(|| *task.last_name.lock(), |t| t.name());
    let len = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    (name, len)
}

pub(super) fn stat(task: &Task, out: &mut SeqBuf) -> Result {
    let p = &task.process;
    let (name, len) = name(task);
    write!(out, "{} (", task.id()).map_err(no_memory)?;
    out.push(name.get(..len).unwrap_or(&[]))?;
    let tty = p.session().and_then(|s| s.tty());
    let tty_nr = tty.as_ref().map_or(0, |t| t.dev().encode());
    let tpgid = tty.as_ref().and_then(|t| t.foreground_group()).map_or(-1, i64::from);
    let own = crate::wait::own_usage(p);
    let gone = crate::wait::children_usage(p);
    let thread = task.thread();
    let nice = thread.as_ref().map_or(0, |t| i64::from(t.nice()));
    let mm = task.mm();
    let (vsize, rss, l) = mm.as_ref().map_or((0, 0, mm::Layout::default()), |m| {
        let s = m.stats();
        (s.total * PAGE_SIZE as u64, m.resident_pages(), m.layout())
    });
    let (ignored, caught) = p.actions().map_or((Default::default(), Default::default()), |a| a.summary());
    let (pending, blocked) = {
        let s = task.signals.lock_irq();
        (s.queue.pending(), s.blocked)
    };
    // Kernel threads: PF_KTHREAD.
    let flags = if mm.is_none() && p.thread_count() == 0 && !p.is_zombie() { 0x0020_0000 } else { 0 };
    let exit_signal = p.exit_signal.load(sync::atomic::Ordering::Relaxed);
    let cpu = thread.as_ref().map_or(0, |t| t.head().cpu.load(sync::atomic::Ordering::Relaxed));
    // 3: state ... 17: cstime
    write!(
        out,
        ") {} {} {} {} {tty_nr} {tpgid} {flags} {} {} 0 0 {} {} {} {} ",
        state(task).0,
        p.parent_id(),
        p.pgrp_id(),
        p.session_id(),
        own.min_flt,
        gone.min_flt,
        clock_ticks(own.utime),
        clock_ticks(own.stime),
        clock_ticks(gone.utime),
        clock_ticks(gone.stime),
    )
    .map_err(no_memory)?;
    // 18: priority ... 36: nswap
    write!(
        out,
        "{} {nice} {} 0 {} {vsize} {rss} {} {} {} {} 0 0 {} {} {} {} 0 0 0 ",
        20 + nice,
        p.thread_count().max(1),
        clock_ticks(p.start_time),
        p.limit(abi::raw::general::RLIMIT_RSS),
        l.start_code.0,
        l.end_code.0,
        l.start_stack.0,
        pending.0 & 0x7fff_ffff,
        blocked.0 & 0x7fff_ffff,
        ignored.0 & 0x7fff_ffff,
        caught.0 & 0x7fff_ffff,
    )
    .map_err(no_memory)?;
    // 38: exit_signal ... 52: exit_code
    writeln!(
        out,
        "{exit_signal} {cpu} 0 0 0 0 0 {} {} {} {} {} {} {} 0",
        l.start_data.0, l.end_data.0, l.start_brk.0, l.arg_start.0, l.arg_end.0, l.env_start.0, l.env_end.0
    )
    .map_err(no_memory)
}

pub(super) fn statm(task: &Task, out: &mut SeqBuf) -> Result {
    let Some(mm) = task.mm() else { return out.push(b"0 0 0 0 0 0 0\n") };
    let s = mm.stats();
    let l = mm.layout();
    let text = (l.end_code.0.saturating_sub(l.start_code.0)).div_ceil(PAGE_SIZE as u64);
    let shared = s.rss.file + s.rss.shmem;
    writeln!(out, "{} {} {shared} {text} 0 {} 0", s.total, s.rss.total(), s.data + s.stack).map_err(no_memory)
}

pub(super) fn schedstat(task: &Task, out: &mut SeqBuf) -> Result {
    let run = task.thread().map_or(0, |t| t.sum_exec().0);
    writeln!(out, "{run} 0 0").map_err(no_memory)
}

pub(super) fn status(task: &Task, out: &mut SeqBuf) -> Result {
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
        "\nUmask:\t{umask:04o}\nState:\t{letter} ({word})\nTgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\nTracerPid:\t0\n",
        p.id(),
        task.id(),
        p.parent_id()
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
        "CapInh:\t{:016x}\nCapPrm:\t{:016x}\nCapEff:\t{:016x}\nCapBnd:\t{:016x}\nCapAmb:\t{:016x}\nNoNewPrivs:\t{}\nSeccomp:\t0\n",
        caps.inheritable,
        caps.permitted,
        caps.effective,
        caps.bounding,
        caps.ambient,
        u8::from(p.has_no_new_privs())
    )
    .map_err(no_memory)?;
    let (affinity, nvcsw, nivcsw) =
        task.thread().map_or((Default::default(), 0, 0), |t| (t.affinity(), t.nvcsw(), t.nivcsw()));
    let cpus = affinity.and(arch::cpu::online());
    write!(out, "Cpus_allowed:\t{:x}\nCpus_allowed_list:\t", cpus.0).map_err(no_memory)?;
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
        ("VmExe", s.exec),
        ("VmLib", 0),
        ("VmPTE", s.page_tables),
        ("VmSwap", 0),
    ];
    for (name, pages) in rows {
        writeln!(out, "{name}:\t{:>8} kB", pages * KIB_PER_PAGE).map_err(no_memory)?;
    }
    Ok(())
}
