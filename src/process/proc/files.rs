//! Plain text files of a process's directory.

use super::{View, stat::name};
use crate::task::Task;
use abi::{Errno, Result, raw::general as g};
use core::fmt::Write;
use sync::atomic::Ordering;
use vfs::pseudo::{SeqBuf, no_memory};

pub(super) fn cmdline(task: &View, out: &mut SeqBuf) -> Result {
    let Some(mm) = task.mm() else { return Ok(()) };
    let l = mm.layout();
    out.push(&super::memory::range(&mm, l.arg_start, l.arg_end)?)
}

/// For those who may control the process.
pub(super) fn personality(task: &View, out: &mut SeqBuf) -> Result {
    super::allowed(task, super::Access::Attach)?;
    writeln!(out, "{:08x}", task.personality().bits()).map_err(no_memory)
}

pub(super) fn coredump_filter(task: &View, out: &mut SeqBuf) -> Result {
    writeln!(out, "{:08x}", task.process.coredump_filter.load(Ordering::Relaxed)).map_err(no_memory)
}

pub(super) fn set_coredump_filter(task: &Task, data: &[u8]) -> Result {
    let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?.trim();
    let number = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(text, 8),
        None => text.parse(),
    };
    // Kinds that nobody knows are dropped (MMF_DUMP_FILTER_MASK).
    let kinds = number.map_err(|_| Errno::EINVAL)? & 0x1ff;
    task.process.coredump_filter.store(kinds, Ordering::Relaxed);
    Ok(())
}

pub(super) fn comm(task: &View, out: &mut SeqBuf) -> Result {
    let (name, len) = name(task);
    out.push(name.get(..len).unwrap_or(&[]))?;
    out.push(b"\n")
}

pub(super) fn set_comm(task: &Task, data: &[u8]) -> Result {
    let mine = crate::task::with_current(|me| core::ptr::eq(&*me.process, &*task.process));
    if mine != Some(true) {
        return Err(Errno::EINVAL);
    }
    let mut name = [0u8; 16];
    for (to, from) in name.iter_mut().take(15).zip(data.iter().take_while(|b| **b != 0)) {
        *to = *from;
    }
    task.thread().ok_or(Errno::ESRCH)?.set_name(name);
    Ok(())
}

pub(super) fn limits(task: &View, out: &mut SeqBuf) -> Result {
    const ROWS: [(&str, u32, &str); 16] = [
        ("Max cpu time", g::RLIMIT_CPU, "seconds"),
        ("Max file size", g::RLIMIT_FSIZE, "bytes"),
        ("Max data size", g::RLIMIT_DATA, "bytes"),
        ("Max stack size", g::RLIMIT_STACK, "bytes"),
        ("Max core file size", g::RLIMIT_CORE, "bytes"),
        ("Max resident set", g::RLIMIT_RSS, "bytes"),
        ("Max processes", g::RLIMIT_NPROC, "processes"),
        ("Max open files", g::RLIMIT_NOFILE, "files"),
        ("Max locked memory", g::RLIMIT_MEMLOCK, "bytes"),
        ("Max address space", g::RLIMIT_AS, "bytes"),
        ("Max file locks", g::RLIMIT_LOCKS, "locks"),
        ("Max pending signals", g::RLIMIT_SIGPENDING, "signals"),
        ("Max msgqueue size", g::RLIMIT_MSGQUEUE, "bytes"),
        ("Max nice priority", g::RLIMIT_NICE, ""),
        ("Max realtime priority", g::RLIMIT_RTPRIO, ""),
        ("Max realtime timeout", g::RLIMIT_RTTIME, "us"),
    ];
    let all = task.process.limits();
    writeln!(out, "{:<25} {:<20} {:<20} {:<10}", "Limit", "Soft Limit", "Hard Limit", "Units").map_err(no_memory)?;
    for (name, which, unit) in ROWS {
        let l = all.get(which)?;
        write!(out, "{name:<25} ").map_err(no_memory)?;
        for v in [l.soft, l.hard] {
            if v == u64::MAX { write!(out, "{:<20} ", "unlimited") } else { write!(out, "{v:<20} ") }.map_err(no_memory)?;
        }
        writeln!(out, "{unit:<10}").map_err(no_memory)?;
    }
    Ok(())
}

pub(super) fn wchan(_: &View, out: &mut SeqBuf) -> Result {
    // Names of kernel functions are not told, as with kptr_restrict.
    out.push(b"0")
}

/// The children of the process, under its first thread: a child belongs to the whole process.
pub(super) fn children(task: &View, out: &mut SeqBuf) -> Result {
    if !task.is_leader() {
        return Ok(());
    }
    let mut next = 0;
    // One at a time, so that nothing is written under the lock.
    loop {
        let child = task.process.children.lock().lower_bound(&next).map(|(id, _)| *id);
        let Some(id) = child else { return Ok(()) };
        write!(out, "{id} ").map_err(no_memory)?;
        next = id.saturating_add(1);
    }
}

/// Every process is in the root of the one hierarchy.
pub(super) fn cgroup(_: &View, out: &mut SeqBuf) -> Result {
    out.push(b"0::/\n")
}

/// Linux's fault injection by count: how many allocations of the reader are left until one fails;
/// 0 when it has failed.
#[cfg(debug_assertions)]
pub(super) fn fail_nth(_: &View, out: &mut SeqBuf) -> Result {
    writeln!(out, "{}", kalloc::allocations_left()).map_err(no_memory)
}

/// Makes the n-th allocation of the writer from now on fail. EPERM for another task's file.
#[cfg(debug_assertions)]
pub(super) fn set_fail_nth(task: &Task, data: &[u8]) -> Result {
    let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let n = text.trim().parse().map_err(|_| Errno::EINVAL)?;
    let is_me = crate::task::with_current(|me| core::ptr::eq(me, task)).unwrap_or(false);
    if !is_me {
        return Err(Errno::EPERM);
    }
    kalloc::fail_nth(n);
    Ok(())
}
