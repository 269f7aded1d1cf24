//! Settings of a process that its directory shows and takes: `oom_score_adj`, `loginuid`,
//! `timerslack_ns` and their like.

use super::View;
use crate::task::{NO_LOGIN, Task, with_current};
use abi::{Errno, Result};
use core::fmt::Write;
use sync::atomic::{AtomicU32, Ordering};
use vfs::{
    Cap,
    pseudo::{SeqBuf, no_memory},
};

/// A number that was written; blanks around it do not count.
fn number<T: core::str::FromStr>(data: &[u8]) -> Result<T> {
    let text = core::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0').parse().map_err(|_| Errno::EINVAL)
}

fn capable(cap: Cap) -> bool {
    with_current(|me| me.with_cred(|c| c.capable(cap)).unwrap_or(false)).unwrap_or(false)
}

pub(super) fn oom_score_adj(task: &View, out: &mut SeqBuf) -> Result {
    writeln!(out, "{}", task.process.oom_score_adj.load(Ordering::Relaxed)).map_err(no_memory)
}

pub(super) fn set_oom_score_adj(task: &Task, data: &[u8]) -> Result {
    set_adjustment(task, number(data)?)
}

fn set_adjustment(task: &Task, n: i32) -> Result {
    if !(-1000..=1000).contains(&n) {
        return Err(Errno::EINVAL);
    }
    if n < task.process.oom_score_adj.load(Ordering::Relaxed) && !capable(Cap::SYS_RESOURCE) {
        return Err(Errno::EACCES);
    }
    task.process.oom_score_adj.store(n, Ordering::Relaxed);
    Ok(())
}

pub(super) fn oom_score(task: &View, out: &mut SeqBuf) -> Result {
    let total = frames::stats().total.max(1);
    let used = task.mm().map_or(0, |mm| mm.resident_pages());
    let adj = i64::from(task.process.oom_score_adj.load(Ordering::Relaxed));
    // As Linux 5.9 and later: the badness in thousandths of all memory, moved into 0 to 2000.
    let points = (used * 1000 / total) as i64;
    writeln!(out, "{}", ((points + adj + 1000) * 2 / 3).max(0)).map_err(no_memory)
}

/// The older scale: -17 (never) to 15.
const OLD_NEVER: i32 = -17;
const OLD_MOST: i32 = 15;

pub(super) fn oom_adj(task: &View, out: &mut SeqBuf) -> Result {
    let old = match task.process.oom_score_adj.load(Ordering::Relaxed) {
        1000 => OLD_MOST,
        n => n * -OLD_NEVER / 1000,
    };
    writeln!(out, "{}", old.clamp(OLD_NEVER, OLD_MOST)).map_err(no_memory)
}

pub(super) fn set_oom_adj(task: &Task, data: &[u8]) -> Result {
    let n: i32 = number(data)?;
    if !(OLD_NEVER..=OLD_MOST).contains(&n) {
        return Err(Errno::EINVAL);
    }
    set_adjustment(task, if n == OLD_MOST { 1000 } else { n * 1000 / -OLD_NEVER })
}

pub(super) fn loginuid(task: &View, out: &mut SeqBuf) -> Result {
    write!(out, "{}", task.login.uid.load(Ordering::Relaxed)).map_err(no_memory)
}

/// Only one's own; changing one that is set takes CAP_AUDIT_CONTROL. A login starts a session.
pub(super) fn set_loginuid(task: &Task, data: &[u8]) -> Result {
    static SESSIONS: AtomicU32 = AtomicU32::new(0);
    if !with_current(|me| core::ptr::eq(me, task)).unwrap_or(false) {
        return Err(Errno::EPERM);
    }
    let uid: u32 = number(data)?;
    if task.login.uid.load(Ordering::Relaxed) != NO_LOGIN && !capable(Cap::AUDIT_CONTROL) {
        return Err(Errno::EPERM);
    }
    let session = match uid {
        NO_LOGIN => NO_LOGIN,
        _ => SESSIONS.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
    };
    task.login.uid.store(uid, Ordering::Relaxed);
    task.login.session.store(session, Ordering::Relaxed);
    Ok(())
}

pub(super) fn sessionid(task: &View, out: &mut SeqBuf) -> Result {
    write!(out, "{}", task.login.session.load(Ordering::Relaxed)).map_err(no_memory)
}

/// Another's slack takes CAP_SYS_NICE, to see it as to set it.
fn may_slack(task: &Task) -> Result {
    let own = with_current(|me| core::ptr::eq(me, task)).unwrap_or(false);
    if own || capable(Cap::SYS_NICE) { Ok(()) } else { Err(Errno::EPERM) }
}

pub(super) fn timer_slack(task: &View, out: &mut SeqBuf) -> Result {
    may_slack(task)?;
    writeln!(out, "{}", task.timer_slack()).map_err(no_memory)
}

pub(super) fn set_timer_slack(task: &Task, data: &[u8]) -> Result {
    let ns: u64 = number(data)?;
    may_slack(task)?;
    task.set_timer_slack((ns != 0).then_some(ns));
    Ok(())
}
