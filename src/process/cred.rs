//! Changing ids (`credentials(7)`, `setresuid(2)` and its family).
//!
//! Each call copies the credentials, changes the copy and puts it in place whole, so nobody ever
//! sees half a change. Capabilities follow the ids as `capabilities(7)` says ("Effect of user ID
//! changes on capabilities").

use crate::task::Task;
use abi::{Errno, Gid, Result, Uid};
use kalloc::{KArc, KVec};
use vfs::{Cap, Credentials};

/// "Leave this id as it is."
pub const KEEP: u32 = u32::MAX;

/// NGROUPS_MAX.
pub const MAX_GROUPS: usize = 65536;

fn change(task: &Task, f: impl FnOnce(&mut Credentials, &Credentials) -> Result) -> Result {
    let old = task.cred()?;
    let mut new = kalloc::TryClone::try_clone(&*old)?;
    f(&mut new, &old)?;
    follow_ids(&mut new, &old);
    if new.euid != old.euid || new.egid != old.egid || new.fsuid != old.fsuid || new.fsgid != old.fsgid {
        task.process.set_dumpable(crate::exec::suid_dumpable());
    }
    task.set_cred(KArc::try_new(new)?);
    Ok(())
}

/// SECBIT_NO_SETUID_FIXUP and SECBIT_KEEP_CAPS.
const NO_SETUID_FIXUP: u32 = 1 << 2;
const KEEP_CAPS: u32 = 1 << 4;

fn follow_ids(new: &mut Credentials, old: &Credentials) {
    if old.securebits & NO_SETUID_FIXUP != 0 {
        return;
    }
    let had_root = old.uid == 0 || old.euid == 0 || old.suid == 0;
    let has_root = new.uid == 0 || new.euid == 0 || new.suid == 0;
    if had_root && !has_root {
        if old.securebits & KEEP_CAPS == 0 {
            new.caps.permitted = 0;
            new.caps.ambient = 0;
        }
        new.caps.effective = 0;
    }
    if old.euid == 0 && new.euid != 0 {
        new.caps.effective = 0;
    }
    if old.euid != 0 && new.euid == 0 {
        new.caps.effective = new.caps.permitted;
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
    if old.capable(Cap::SETUID) || [old.uid, old.euid, old.suid, old.fsuid].contains(&id) {
        change(task, |new, _| {
            new.fsuid = id;
            Ok(())
        })?;
    }
    Ok(old.fsuid)
}

/// `setfsgid(2)`.
pub fn setfsgid(task: &Task, id: Gid) -> Result<Gid> {
    let old = task.cred()?;
    if old.capable(Cap::SETGID) || [old.gid, old.egid, old.sgid, old.fsgid].contains(&id) {
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
    groups.sort_unstable();
    change(task, |new, _| {
        new.groups = groups;
        Ok(())
    })
}
