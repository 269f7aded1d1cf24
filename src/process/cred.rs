//! Changing ids (`credentials(7)`, `setresuid(2)` and its family).
//!
//! Each call copies the credentials, changes the copy and puts it in place whole, so nobody ever
//! sees half a change. Capabilities follow the ids ([`capability`](crate::capability)).

use crate::{capability, task::Task, user::User};
use abi::{Errno, Gid, Result, Uid, raw::general::RLIMIT_NPROC};
use kalloc::{KArc, KVec};
use sync::atomic::Ordering;
use vfs::{Cap, Credentials};

/// "Leave this id as it is."
pub const KEEP: u32 = u32::MAX;

/// NGROUPS_MAX.
pub const MAX_GROUPS: usize = 65536;

fn change(task: &Task, f: impl FnOnce(&mut Credentials, &Credentials) -> Result) -> Result {
    change_caps(task, |new, old| {
        f(new, old)?;
        capability::follow_user_ids(new, old);
        Ok(())
    })
}

/// Replaces the credentials of the current thread by a changed copy. Without the right to trace
/// who has them, nobody looks into a process with new ones; and a parent's death is none of its
/// business any more (`prctl(2)`, PR_SET_DUMPABLE and PR_SET_PDEATHSIG).
pub(crate) fn change_caps(task: &Task, f: impl FnOnce(&mut Credentials, &Credentials) -> Result) -> Result {
    let old = task.cred()?;
    let mut new = kalloc::TryClone::try_clone(&*old)?;
    f(&mut new, &old)?;
    let user = if new.uid == old.uid { None } else { Some(User::find(new.uid)?) };
    let new = KArc::try_new(new)?;
    // From here on nothing fails.
    note_change(task, &new, &old);
    if let Some(user) = user {
        let too_many = new.uid != 0 && user.threads() > task.process.limit(RLIMIT_NPROC);
        task.too_many_threads.store(too_many, Ordering::Relaxed);
        task.count_for(Some(user));
    }
    task.set_cred(new);
    Ok(())
}

/// What a change of rights takes away beside them.
pub(crate) fn note_change(task: &Task, new: &Credentials, old: &Credentials) {
    let gained = new.caps.permitted & !old.caps.permitted != 0;
    if new.euid != old.euid || new.egid != old.egid || new.fsuid != old.fsuid || new.fsgid != old.fsgid || gained {
        task.process.set_dumpable(crate::exec::suid_dumpable());
        task.set_parent_death_signal(0);
    }
}

/// `setuid(2)`.
pub fn setuid(task: &Task, uid: Uid) -> Result {
    change(task, |new, old| {
        if uid == KEEP {
            return Err(Errno::EINVAL);
        }
        if old.capable(Cap::SETUID) {
            new.uid = uid;
            new.suid = uid;
        } else if uid != old.uid && uid != old.suid {
            return Err(Errno::EPERM);
        }
        new.euid = uid;
        new.fsuid = uid;
        Ok(())
    })
}

/// `setgid(2)`.
pub fn setgid(task: &Task, gid: Gid) -> Result {
    change(task, |new, old| {
        if gid == KEEP {
            return Err(Errno::EINVAL);
        }
        if old.capable(Cap::SETGID) {
            new.gid = gid;
            new.sgid = gid;
        } else if gid != old.gid && gid != old.sgid {
            return Err(Errno::EPERM);
        }
        new.egid = gid;
        new.fsgid = gid;
        Ok(())
    })
}

/// `setreuid(2)`.
pub fn setreuid(task: &Task, real: Uid, effective: Uid) -> Result {
    change(task, |new, old| {
        let any = old.capable(Cap::SETUID);
        if real != KEEP {
            if !any && real != old.uid && real != old.euid {
                return Err(Errno::EPERM);
            }
            new.uid = real;
        }
        if effective != KEEP {
            if !any && ![old.uid, old.euid, old.suid].contains(&effective) {
                return Err(Errno::EPERM);
            }
            new.euid = effective;
        }
        if real != KEEP || effective != KEEP && effective != old.uid {
            new.suid = new.euid;
        }
        new.fsuid = new.euid;
        Ok(())
    })
}

/// `setregid(2)`.
pub fn setregid(task: &Task, real: Gid, effective: Gid) -> Result {
    change(task, |new, old| {
        let any = old.capable(Cap::SETGID);
        if real != KEEP {
            if !any && real != old.gid && real != old.egid {
                return Err(Errno::EPERM);
            }
            new.gid = real;
        }
        if effective != KEEP {
            if !any && ![old.gid, old.egid, old.sgid].contains(&effective) {
                return Err(Errno::EPERM);
            }
            new.egid = effective;
        }
        if real != KEEP || effective != KEEP && effective != old.gid {
            new.sgid = new.egid;
        }
        new.fsgid = new.egid;
        Ok(())
    })
}

/// `setresuid(2)`.
pub fn setresuid(task: &Task, real: Uid, effective: Uid, saved: Uid) -> Result {
    change(task, |new, old| {
        let own = [old.uid, old.euid, old.suid];
        let allowed = |id: Uid| id == KEEP || old.capable(Cap::SETUID) || own.contains(&id);
        if !(allowed(real) && allowed(effective) && allowed(saved)) {
            return Err(Errno::EPERM);
        }
        for (slot, id) in [(&mut new.uid, real), (&mut new.euid, effective), (&mut new.suid, saved)] {
            if id != KEEP {
                *slot = id;
            }
        }
        new.fsuid = new.euid;
        Ok(())
    })
}

/// `setresgid(2)`.
pub fn setresgid(task: &Task, real: Gid, effective: Gid, saved: Gid) -> Result {
    change(task, |new, old| {
        let own = [old.gid, old.egid, old.sgid];
        let allowed = |id: Gid| id == KEEP || old.capable(Cap::SETGID) || own.contains(&id);
        if !(allowed(real) && allowed(effective) && allowed(saved)) {
            return Err(Errno::EPERM);
        }
        for (slot, id) in [(&mut new.gid, real), (&mut new.egid, effective), (&mut new.sgid, saved)] {
            if id != KEEP {
                *slot = id;
            }
        }
        new.fsgid = new.egid;
        Ok(())
    })
}

/// `setfsuid(2)`: returns the id before, whether it changed or not.
pub fn setfsuid(task: &Task, id: Uid) -> Result<Uid> {
    let old = task.cred()?;
    // setfsuid(-1) asks, and changes nothing.
    if id != KEEP && (old.capable(Cap::SETUID) || [old.uid, old.euid, old.suid, old.fsuid].contains(&id)) {
        change_caps(task, |new, old| {
            new.fsuid = id;
            capability::follow_fs_id(new, old);
            Ok(())
        })?;
    }
    Ok(old.fsuid)
}

/// `setfsgid(2)`.
pub fn setfsgid(task: &Task, id: Gid) -> Result<Gid> {
    let old = task.cred()?;
    if id != KEEP && (old.capable(Cap::SETGID) || [old.gid, old.egid, old.sgid, old.fsgid].contains(&id)) {
        change(task, |new, _| {
            new.fsgid = id;
            Ok(())
        })?;
    }
    Ok(old.fsgid)
}

/// `setgroups(2)`.
pub fn setgroups(task: &Task, mut groups: KVec<Gid>) -> Result {
    if !task.with_cred(|c| c.capable(Cap::SETGID))? {
        return Err(Errno::EPERM);
    }
    if groups.contains(&KEEP) {
        return Err(Errno::EINVAL);
    }
    groups.sort_unstable();
    change(task, |new, _| {
        new.groups = groups;
        Ok(())
    })
}
