//! How a core file is called: /proc/sys/kernel/core_pattern and core_uses_pid (`core(5)`).

use crate::{signal::SigInfo, task::Task};
use abi::{Errno, Result, raw::general as g};
use core::fmt::Write;
use kalloc::{KBytes, KVec, karc_dyn};
use sync::{LockClass, SpinLock};
use vfs::{
    proc_registry,
    pseudo::{Reader, SeqBuf, Show, Store, no_memory},
    sysctl::{self, Number},
};

/// Longest pattern and longest name.
const LEN: usize = 128;

static CLASS: LockClass = LockClass::new("process.core_pattern", 1046);

/// The pattern, up to its first NUL.
static PATTERN: SpinLock<[u8; LEN]> = SpinLock::new(default_pattern(), &CLASS);
static USES_PID: Number = Number::new(0, i32::MIN as i64, i32::MAX as i64);

const fn default_pattern() -> [u8; LEN] {
    let mut out = [0; LEN];
    let (head, _) = out.split_at_mut(4);
    head.copy_from_slice(b"core");
    out
}

fn text(pattern: &[u8; LEN]) -> &[u8] {
    pattern.split(|b| *b == 0).next().unwrap_or(&[])
}

/// Whether cores go anywhere.
pub(super) fn is_set() -> bool {
    !text(&PATTERN.lock()).is_empty()
}

struct Pattern;

impl Show for Pattern {
    fn show(&self, out: &mut SeqBuf, _: &Reader<'_>) -> Result {
        let pattern = *PATTERN.lock();
        out.push(text(&pattern))?;
        out.push(b"\n")
    }
}

impl Store for Pattern {
    fn store(&self, data: &[u8], _: u64, _: &Reader<'_>) -> Result<usize> {
        let line = data.split(|b| matches!(b, b'\n' | 0)).next().unwrap_or(&[]);
        if line.first() == Some(&b'|') {
            // There is nobody who would run the program.
            return Err(Errno::EINVAL);
        }
        let mut new = [0; LEN];
        for (to, from) in new.iter_mut().take(LEN - 1).zip(line) {
            *to = *from;
        }
        *PATTERN.lock() = new;
        Ok(data.len())
    }
}

/// Registers the two files.
pub(crate) fn init() -> Result {
    let (show, store) = (karc_dyn!(Pattern => dyn Show)?, karc_dyn!(Pattern => dyn Store)?);
    proc_registry::add_writable("sys/kernel/core_pattern", 0o644, Some(show), store)?;
    sysctl::add_number("sys/kernel/core_uses_pid", &USES_PID)
}

/// What the letters of a pattern stand for.
struct Facts {
    pid: u32,
    tid: u32,
    uid: u32,
    gid: u32,
    dumpable: u32,
    signal: u32,
    time: u64,
    limit: u64,
    host: KBytes,
    comm: KBytes,
    path: KBytes,
}

/// The name of the core that the current task leaves.
pub(super) fn name(task: &Task, info: &SigInfo) -> Result<KBytes> {
    let (uid, gid) = task.with_cred(|c| (c.uid, c.gid))?;
    let comm = sched::current().name();
    let comm = comm.split(|b| *b == 0).next().unwrap_or(&[]);
    let path = match crate::exec::executable(&task.process) {
        Some(path) => vfs::d_path(&path, &task.fs()?.root())?.text,
        None => KVec::try_from_slice(comm)?,
    };
    let facts = Facts {
        pid: task.process.id(),
        tid: task.id(),
        uid,
        gid,
        dumpable: task.process.dumpable() as u32,
        signal: info.signal.number(),
        time: time::realtime().secs(),
        limit: task.process.limit(g::RLIMIT_CORE),
        host: KVec::try_from_slice(task.ns()?.uts.names().host.as_bytes())?,
        comm: KVec::try_from_slice(comm)?,
        path,
    };
    let pattern = *PATTERN.lock();
    format(text(&pattern), USES_PID.get() != 0, &facts)
}

fn format(pattern: &[u8], uses_pid: bool, f: &Facts) -> Result<KBytes> {
    let mut out = SeqBuf::new();
    let mut has_pid = false;
    let mut letters = pattern.iter().copied();
    while let Some(b) = letters.next() {
        if b != b'%' {
            out.push(&[b])?;
            continue;
        }
        let letter = letters.next();
        has_pid |= letter == Some(b'p');
        match letter {
            // A percent sign at the end is dropped.
            None => break,
            Some(b'%') => out.push(b"%")?,
            Some(b'p' | b'P') => number(&mut out, f.pid.into())?,
            Some(b'i' | b'I') => number(&mut out, f.tid.into())?,
            Some(b'u') => number(&mut out, f.uid.into())?,
            Some(b'g') => number(&mut out, f.gid.into())?,
            Some(b'd') => number(&mut out, f.dumpable.into())?,
            Some(b's') => number(&mut out, f.signal.into())?,
            Some(b't') => number(&mut out, f.time)?,
            Some(b'c') => number(&mut out, f.limit)?,
            Some(b'h') => component(&mut out, &f.host)?,
            Some(b'e') => component(&mut out, &f.comm)?,
            Some(b'f') => component(&mut out, f.path.rsplit(|b| *b == b'/').next().unwrap_or(&[]))?,
            Some(b'E') => component(&mut out, &f.path)?,
            // Unknown letters are dropped.
            Some(_) => {}
        }
    }
    if uses_pid && !has_pid {
        write!(out, ".{}", f.pid).map_err(no_memory)?;
    }
    Ok(KVec::try_from_slice(out.as_bytes())?)
}

fn number(out: &mut SeqBuf, n: u64) -> Result {
    write!(out, "{n}").map_err(no_memory)
}

/// A name that must not lead elsewhere: slashes become exclamation marks, and so do dots of a name
/// that is nothing else.
fn component(out: &mut SeqBuf, name: &[u8]) -> Result {
    if matches!(name, b"." | b"..") {
        return out.push(b"!");
    }
    for b in name {
        out.push(&[if *b == b'/' { b'!' } else { *b }])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let bytes = |s: &str| KVec::try_from_slice(s.as_bytes()).unwrap();
        Facts {
            pid: 12,
            tid: 13,
            uid: 1000,
            gid: 100,
            dumpable: 1,
            signal: 11,
            time: 99,
            limit: 5,
            host: bytes("box"),
            comm: bytes("a/b"),
            path: bytes("/bin/x y"),
        }
    }

    fn name(pattern: &str, uses_pid: bool) -> String {
        String::from_utf8(format(pattern.as_bytes(), uses_pid, &facts()).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn letters_stand_for_facts_and_names_lead_nowhere() {
        assert_eq!(name("core", false), "core");
        assert_eq!(name("/c/%e.%p.%i.%u.%g.%d.%s.%t.%c", false), "/c/a!b.12.13.1000.100.1.11.99.5");
        assert_eq!(name("%h-%f-%E-100%%-%q%", false), "box-x y-!bin!x y-100%-");
    }

    #[test]
    fn the_pid_is_added_once() {
        assert_eq!(name("core", true), "core.12");
        assert_eq!(name("core-%p", true), "core-12");
        assert_eq!(name("core-%%p", true), "core-%p.12");
    }
}
