//! Who may look into a task, and who may control it (`ptrace(2)`, "Ptrace access mode checking").

use crate::task::Task;
use abi::{Errno, Result};
use kalloc::KArc;
use sync::atomic::Ordering;
use vfs::{Cap, Credentials, sysctl::Number};

/// What the caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read about it (PTRACE_MODE_READ).
    Read,
    /// To change it (PTRACE_MODE_ATTACH).
    Attach,
}

/// Which of the caller's ids count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Those for files (PTRACE_MODE_FSCREDS): /proc.
    Fs,
    /// The real ones (PTRACE_MODE_REALCREDS): system calls.
    Real,
}

/// `kernel.yama.ptrace_scope`: 0 the classic rules, 1 descendants and whom the task names, 2 only
/// with CAP_SYS_PTRACE, 3 nobody (and no way back).
pub(crate) static SCOPE: Number = Number::new(0, 0, SCOPE_NOBODY);
pub(crate) const SCOPE_RELATIONAL: i64 = 1;
pub(crate) const SCOPE_CAPABILITY: i64 = 2;
pub(crate) const SCOPE_NOBODY: i64 = 3;

/// Whether `me` may do so to `target`. EPERM.
pub fn check(me: &Task, target: &Task, access: Access, ids: Ids) -> Result {
    if KArc::ptr_eq(&me.process, &target.process) {
        return Ok(());
    }
    let (mine, theirs) = (me.cred()?, target.cred()?);
    let (uid, gid) = match ids {
        Ids::Fs => (mine.fsuid, mine.fsgid),
        Ids::Real => (mine.uid, mine.gid),
    };
    let capable = mine.capable(Cap::SYS_PTRACE);
    if !(is_same_user(&theirs, uid, gid) || capable) {
        return Err(Errno::EPERM);
    }
    if !target.process.is_dumpable() && !capable {
        return Err(Errno::EPERM);
    }
    // What the target may do the caller must be able to do too (commoncap).
    let own = match ids {
        Ids::Fs => mine.caps.effective,
        Ids::Real => mine.caps.permitted,
    };
    if theirs.caps.permitted & !own != 0 && !capable {
        return Err(Errno::EPERM);
    }
    if access == Access::Attach { scope_allows(me, target, capable) } else { Ok(()) }
}

fn is_same_user(t: &Credentials, uid: u32, gid: u32) -> bool {
    [t.euid, t.suid, t.uid].iter().all(|id| *id == uid) && [t.egid, t.sgid, t.gid].iter().all(|id| *id == gid)
}

fn scope_allows(me: &Task, target: &Task, capable: bool) -> Result {
    let allowed = match SCOPE.get() {
        SCOPE_RELATIONAL => capable || is_descendant(me, target) || names(target, me),
        SCOPE_CAPABILITY => capable,
        SCOPE_NOBODY => false,
        _ => true,
    };
    if allowed { Ok(()) } else { Err(Errno::EPERM) }
}

/// Whether `target` is below `me` in the family.
fn is_descendant(me: &Task, target: &Task) -> bool {
    let mut at = Some(target.process.clone());
    while let Some(p) = at {
        if KArc::ptr_eq(&p, &me.process) {
            return true;
        }
        at = p.parent();
    }
    false
}

/// Whether `target` has allowed `me` or an ancestor of it to trace (PR_SET_PTRACER).
fn names(target: &Task, me: &Task) -> bool {
    let named = target.process.tracer_allowed.load(Ordering::Relaxed);
    if named == 0 {
        return false;
    }
    if named == ANYONE {
        return true;
    }
    let mut at = Some(me.process.clone());
    while let Some(p) = at {
        if u64::from(p.id()) == named {
            return true;
        }
        at = p.parent();
    }
    false
}

/// PR_SET_PTRACER_ANY.
pub(crate) const ANYONE: u64 = u64::MAX;

/// `prctl(PR_SET_PTRACER)`: EINVAL when there is no such process.
pub fn set_ptracer(task: &Task, pid: u64) -> Result {
    if pid != 0 && pid != ANYONE {
        let id = u32::try_from(pid).map_err(|_| Errno::EINVAL)?;
        task.ns()?.pid.find(id).ok_or(Errno::EINVAL)?;
    }
    task.process.tracer_allowed.store(pid, Ordering::Relaxed);
    Ok(())
}
