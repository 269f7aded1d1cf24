//! The other text files of a process's directory.

use super::stat::name;
use crate::task::Task;
use abi::{Errno, PAGE_SIZE, Result, UserAddr, raw::general as g};
use core::fmt::Write;
use kalloc::{KBytes, KVec};
use mm::{AddressSpace, MapFlags, Prot};
use sync::atomic::Ordering;
use vfs::{
    d_path, proc_registry,
    pseudo::{LinkTarget, SeqBuf, no_memory},
};

/// Files of the root directory that are about the reader's own process.
pub(super) fn register() -> Result {
    proc_registry::add_link("mounts", kalloc::karc_dyn!(MountsLink => dyn LinkTarget)?)?;
    proc_registry::add_fn("sys/kernel/hostname", 0o444, |out| {
        let host = crate::task::current_arc().ok_or(Errno::ESRCH)?.ns()?.uts.names().host;
        out.push(host.as_bytes())?;
        out.push(b"\n")
    })?;
    proc_registry::add_fn("sys/kernel/threads-max", 0o444, |out| {
        writeln!(out, "{}", frames::stats().total / 16).map_err(no_memory)
    })
}

/// /proc/mounts: the reader's own.
struct MountsLink;

impl LinkTarget for MountsLink {
    fn text(&self, _: &vfs::Inode) -> Result<KBytes> {
        Ok(KVec::try_from_slice(b"self/mounts")?)
    }
}

/// A range of the process's own memory.
fn memory(task: &Task, start: UserAddr, end: UserAddr) -> Result<KBytes> {
    let Some(mm) = task.mm() else { return Ok(KBytes::new()) };
    // Longer lists are cut: exec allows 6 MiB at most.
    let len = end.0.saturating_sub(start.0).min(6 << 20) as usize;
    let mut bytes = KBytes::try_from_elem(0, len)?;
    let n = mm.read_remote(start, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}

pub(super) fn cmdline(task: &Task, out: &mut SeqBuf) -> Result {
    let Some(mm) = task.mm() else { return Ok(()) };
    let l = mm.layout();
    out.push(&memory(task, l.arg_start, l.arg_end)?)
}

pub(super) fn environ(task: &Task, out: &mut SeqBuf) -> Result {
    let Some(mm) = task.mm() else { return Ok(()) };
    let l = mm.layout();
    out.push(&memory(task, l.env_start, l.env_end)?)
}

/// The vector lies behind the environment's pointers; it is read from the program's stack.
pub(super) fn auxv(task: &Task, out: &mut SeqBuf) -> Result {
    let Some(mm) = task.mm() else { return Ok(()) };
    let l = mm.layout();
    let stack = memory(task, l.start_stack, l.arg_start)?;
    let mut words = stack.chunks_exact(8);
    let word = |c: &[u8]| c.try_into().map_or(0, u64::from_le_bytes);
    let argc = words.next().map_or(0, word) as usize;
    let mut words = words.skip(argc.saturating_add(1));
    while words.next().is_some_and(|c| word(c) != 0) {}
    let mut pair = true;
    let mut last = false;
    for c in words {
        if pair {
            last = word(c) == 0;
        }
        out.push(c)?;
        if last && !pair {
            break;
        }
        pair = !pair;
    }
    Ok(())
}

pub(super) fn personality(task: &Task, out: &mut SeqBuf) -> Result {
    writeln!(out, "{:08x}", task.personality().bits()).map_err(no_memory)
}

pub(super) fn comm(task: &Task, out: &mut SeqBuf) -> Result {
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

/// One line of `maps`; also the head of each part of `smaps`.
fn area_line(mm: &AddressSpace, a: &mm::AreaInfo, out: &mut SeqBuf) -> Result {
    let bit = |on: bool, c: char| if on { c } else { '-' };
    let before = out.len();
    let file = a.file();
    let (dev, ino) = file.as_ref().map_or((abi::DevNum::default(), 0), |f| f.identity());
    let offset = if file.is_some() { a.index << abi::PAGE_SHIFT } else { 0 };
    write!(
        out,
        "{:08x}-{:08x} {}{}{}{} {offset:08x} {:02x}:{:02x} {ino} ",
        a.start,
        a.end,
        bit(a.prot.contains(Prot::R), 'r'),
        bit(a.prot.contains(Prot::W), 'w'),
        bit(a.prot.contains(Prot::X), 'x'),
        if a.shared() { 's' } else { 'p' },
        dev.major,
        dev.minor,
    )
    .map_err(no_memory)?;
    let l = mm.layout();
    let special = match () {
        () if a.flags.contains(MapFlags::STACK) => Some("[stack]"),
        () if file.is_none() && a.start <= mm.current_brk().0 && a.end > l.start_brk.0 => Some("[heap]"),
        () => None,
    };
    if file.is_some() || special.is_some() {
        // Names begin in column 74.
        while out.len() - before < 73 {
            out.push(b" ")?;
        }
        match (&file, special) {
            (Some(f), _) => f.describe(&mut Escaped(out)).map_err(no_memory)?,
            (None, name) => out.push(name.unwrap_or("").as_bytes())?,
        }
    }
    out.push(b"\n")
}

/// Shows a newline in a path as `\012`.
struct Escaped<'a>(&'a mut SeqBuf);

impl Write for Escaped<'_> {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        for (i, part) in s.split('\n').enumerate() {
            if i > 0 {
                self.0.write_str("\\012")?;
            }
            self.0.write_str(part)?;
        }
        Ok(())
    }
}

pub(super) fn maps(task: &Task, out: &mut SeqBuf) -> Result {
    let Some(mm) = task.mm() else { return Ok(()) };
    mm.for_each_area(|a| area_line(&mm, a, out))
}

pub(super) fn smaps(task: &Task, out: &mut SeqBuf) -> Result {
    let Some(mm) = task.mm() else { return Ok(()) };
    mm.for_each_area(|a| {
        area_line(&mm, a, out)?;
        let u = mm.usage(a);
        let page = PAGE_SIZE as u64 / 1024;
        for (name, value) in [
            ("Size", a.len() / 1024),
            ("KernelPageSize", page),
            ("MMUPageSize", page),
            ("Rss", u.rss / 1024),
            ("Pss", u.pss / 1024),
            ("Shared_Clean", u.shared_clean / 1024),
            ("Shared_Dirty", u.shared_dirty / 1024),
            ("Private_Clean", u.private_clean / 1024),
            ("Private_Dirty", u.private_dirty / 1024),
            ("Referenced", u.referenced / 1024),
            ("Anonymous", u.anonymous / 1024),
        ] {
            let pad = 23usize.saturating_sub(name.len());
            writeln!(out, "{name}:{value:>pad$} kB").map_err(no_memory)?;
        }
        Ok(())
    })
}

pub(super) fn limits(task: &Task, out: &mut SeqBuf) -> Result {
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

/// Options that belong to a mount.
fn mount_options(flags: u32, out: &mut SeqBuf) -> Result {
    out.push(if flags & g::MS_RDONLY != 0 { b"ro" } else { b"rw" })?;
    for (flag, name) in [
        (g::MS_NOSUID, ",nosuid"),
        (g::MS_NODEV, ",nodev"),
        (g::MS_NOEXEC, ",noexec"),
        (g::MS_NOATIME, ",noatime"),
        (g::MS_NODIRATIME, ",nodiratime"),
        (g::MS_RELATIME, ",relatime"),
    ] {
        if flags & flag != 0 {
            out.push(name.as_bytes())?;
        }
    }
    Ok(())
}

/// Where a mount is, as the task's root shows it; `None` when it cannot be seen from there.
fn mount_point(m: &vfs::Mount, root: &vfs::Path) -> Result<Option<KBytes>> {
    match m.point() {
        None => Ok(Some(KVec::try_from_slice(b"/")?)),
        Some(p) => {
            let text = d_path(&p, root)?;
            Ok(text.reachable.then_some(text.text))
        }
    }
}

pub(super) fn mounts(task: &Task, out: &mut SeqBuf) -> Result {
    let (ns, fs) = (task.ns()?, task.fs()?);
    let root = fs.root();
    for m in ns.mount.mounts()?.iter() {
        let Some(at) = mount_point(m, &root)? else { continue };
        out.push_escaped(m.source.as_slice(), b"#")?;
        out.push(b" ")?;
        out.push_escaped(&at, b"")?;
        write!(out, " {} ", m.sb.fstype).map_err(no_memory)?;
        mount_options(m.flags() | m.sb.flags(), out)?;
        m.sb.ops.show_options(out).map_err(no_memory)?;
        out.push(b" 0 0\n")?;
    }
    Ok(())
}

pub(super) fn mountinfo(task: &Task, out: &mut SeqBuf) -> Result {
    let (ns, fs) = (task.ns()?, task.fs()?);
    let root = fs.root();
    for m in ns.mount.mounts()?.iter() {
        let Some(at) = mount_point(m, &root)? else { continue };
        write!(out, "{} {} {}:{} / ", m.id, m.parent_id(), m.sb.dev.major, m.sb.dev.minor).map_err(no_memory)?;
        out.push_escaped(&at, b"")?;
        out.push(b" ")?;
        mount_options(m.flags(), out)?;
        write!(out, " - {} ", m.sb.fstype).map_err(no_memory)?;
        out.push_escaped(m.source.as_slice(), b"#")?;
        out.push(if m.sb.is_read_only() { b" ro" } else { b" rw" })?;
        m.sb.ops.show_options(out).map_err(no_memory)?;
        out.push(b"\n")?;
    }
    Ok(())
}

pub(super) fn wchan(_: &Task, out: &mut SeqBuf) -> Result {
    // Names of kernel functions are not told, as with kptr_restrict.
    out.push(b"0")
}

pub(super) fn oom_score_adj(task: &Task, out: &mut SeqBuf) -> Result {
    writeln!(out, "{}", task.process.oom_score_adj.load(Ordering::Relaxed)).map_err(no_memory)
}

pub(super) fn set_oom_score_adj(task: &Task, data: &[u8]) -> Result {
    let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let n: i32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
    if !(-1000..=1000).contains(&n) {
        return Err(Errno::EINVAL);
    }
    let privileged = crate::task::with_current(|me| me.with_cred(|c| c.capable(vfs::Cap::SYS_RESOURCE))).unwrap_or(Ok(false))?;
    if n < task.process.oom_score_adj.load(Ordering::Relaxed) && !privileged {
        return Err(Errno::EACCES);
    }
    task.process.oom_score_adj.store(n, Ordering::Relaxed);
    Ok(())
}

pub(super) fn oom_score(task: &Task, out: &mut SeqBuf) -> Result {
    let total = frames::stats().total.max(1);
    let used = task.mm().map_or(0, |mm| mm.resident_pages());
    let adj = i64::from(task.process.oom_score_adj.load(Ordering::Relaxed));
    // As Linux 5.9 and later: the badness in thousandths of all memory, moved into 0 to 2000.
    let points = (used * 1000 / total) as i64;
    writeln!(out, "{}", ((points + adj + 1000) * 2 / 3).max(0)).map_err(no_memory)
}
