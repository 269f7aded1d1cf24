//! Capabilities of the current thread (`capabilities(7)`, `capset(2)`, `prctl(2)`), and how ids and
//! exec change them.
//!
//! Rules of `capabilities(7)` that every function here keeps: effective is within permitted,
//! ambient within permitted and inheritable, and nothing enters permitted but by exec.

use crate::{cred, task::Task};
use abi::{Errno, Result, raw::general as g};
use vfs::{Cap, Caps, Credentials};

/// SECBIT_*: four bits, each with one behind it that locks it.
const NOROOT: u32 = 1 << 0;
const NO_SETUID_FIXUP: u32 = 1 << 2;
const KEEP_CAPS: u32 = 1 << 4;
const KEEP_CAPS_LOCKED: u32 = 1 << 5;
const NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
const ALL_BITS: u32 = NOROOT | NO_SETUID_FIXUP | KEEP_CAPS | NO_CAP_AMBIENT_RAISE;
const ALL_LOCKS: u32 = ALL_BITS << 1;

/// Capabilities that go and come with the file-system user id ("Effect of user ID changes").
const OF_FILES: u64 = 1 << g::CAP_CHOWN
    | 1 << g::CAP_MKNOD
    | 1 << g::CAP_DAC_OVERRIDE
    | 1 << g::CAP_DAC_READ_SEARCH
    | 1 << g::CAP_FOWNER
    | 1 << g::CAP_FSETID
    | 1 << g::CAP_LINUX_IMMUTABLE
    | 1 << g::CAP_MAC_OVERRIDE;

const fn is_within(part: u64, whole: u64) -> bool {
    part & !whole == 0
}

/// The three sets that `capget(2)` tells and `capset(2)` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// `capget(2)`: of any thread. ESRCH.
pub fn get(task: &Task, pid: u32) -> Result<Sets> {
    let of = |c: &Credentials| Sets { effective: c.caps.effective, permitted: c.caps.permitted, inheritable: c.caps.inheritable };
    if pid == 0 || pid == task.id() {
        return task.with_cred(of);
    }
    task.ns()?.pid.find(pid).ok_or(Errno::ESRCH)?.with_cred(of)
}

/// `capset(2)`: EPERM for what would be more than there is.
pub fn set(task: &Task, new: Sets) -> Result {
    cred::change_caps(task, |c, _| {
        let old = c.caps;
        let new = Sets { effective: new.effective & Caps::ALL, permitted: new.permitted & Caps::ALL, inheritable: new.inheritable & Caps::ALL };
        let may_inherit = c.capable(Cap::SETPCAP) || is_within(new.inheritable, old.inheritable | old.permitted);
        if !may_inherit
            || !is_within(new.inheritable, old.inheritable | old.bounding)
            || !is_within(new.permitted, old.permitted)
            || !is_within(new.effective, new.permitted)
        {
            return Err(Errno::EPERM);
        }
        c.caps = Caps {
            effective: new.effective,
            permitted: new.permitted,
            inheritable: new.inheritable,
            ambient: old.ambient & new.permitted & new.inheritable,
            ..old
        };
        Ok(())
    })
}

/// The bit of a capability that a program names. EINVAL.
fn bit(cap: u64) -> Result<u64> {
    if cap <= u64::from(g::CAP_LAST_CAP) { Ok(1 << cap) } else { Err(Errno::EINVAL) }
}

/// PR_CAPBSET_READ.
pub fn bounding(task: &Task, cap: u64) -> Result<u64> {
    let bit = bit(cap)?;
    task.with_cred(|c| (c.caps.bounding & bit != 0).into())
}

/// PR_CAPBSET_DROP.
pub fn drop_bounding(task: &Task, cap: u64) -> Result {
    cred::change_caps(task, |c, _| {
        if !c.capable(Cap::SETPCAP) {
            return Err(Errno::EPERM);
        }
        c.caps.bounding &= !bit(cap)?;
        Ok(())
    })
}

/// PR_SET_SECUREBITS: EPERM for a locked bit that would change, a lock that would open, an unknown
/// bit, or a thread without CAP_SETPCAP.
pub fn set_securebits(task: &Task, bits: u64) -> Result {
    cred::change_caps(task, |c, _| {
        let old = c.securebits;
        let new = u32::try_from(bits).map_err(|_| Errno::EPERM)?;
        let locked = (old & ALL_LOCKS) >> 1;
        if locked & (old ^ new) != 0
            || old & ALL_LOCKS & !new != 0
            || new & !(ALL_LOCKS | ALL_BITS) != 0
            || !c.capable(Cap::SETPCAP)
        {
            return Err(Errno::EPERM);
        }
        c.securebits = new;
        Ok(())
    })
}

/// PR_SET_KEEPCAPS.
pub fn set_keep(task: &Task, on: u64) -> Result {
    if on > 1 {
        return Err(Errno::EINVAL);
    }
    cred::change_caps(task, |c, _| {
        if c.securebits & KEEP_CAPS_LOCKED != 0 {
            return Err(Errno::EPERM);
        }
        c.securebits = c.securebits & !KEEP_CAPS | if on == 1 { KEEP_CAPS } else { 0 };
        Ok(())
    })
}

/// PR_GET_KEEPCAPS.
pub fn keeps(task: &Task) -> Result<bool> {
    task.with_cred(|c| c.securebits & KEEP_CAPS != 0)
}

/// PR_CAP_AMBIENT.
pub fn ambient(task: &Task, what: u64, cap: u64, rest: [u64; 2]) -> Result<u64> {
    const IS_SET: u64 = 1;
    const RAISE: u64 = 2;
    const LOWER: u64 = 3;
    const CLEAR_ALL: u64 = 4;
    if rest != [0, 0] {
        return Err(Errno::EINVAL);
    }
    if what == CLEAR_ALL {
        if cap != 0 {
            return Err(Errno::EINVAL);
        }
        return cred::change_caps(task, |c, _| {
            c.caps.ambient = 0;
            Ok(())
        })
        .map(|()| 0);
    }
    let bit = bit(cap)?;
    match what {
        IS_SET => task.with_cred(|c| (c.caps.ambient & bit != 0).into()),
        RAISE => cred::change_caps(task, |c, _| {
            if c.caps.permitted & c.caps.inheritable & bit == 0 || c.securebits & NO_CAP_AMBIENT_RAISE != 0 {
                return Err(Errno::EPERM);
            }
            c.caps.ambient |= bit;
            Ok(())
        })
        .map(|()| 0),
        LOWER => cred::change_caps(task, |c, _| {
            c.caps.ambient &= !bit;
            Ok(())
        })
        .map(|()| 0),
        _ => Err(Errno::EINVAL),
    }
}

/// What a change of user ids does ("Effect of user ID changes on capabilities").
pub(crate) fn follow_user_ids(new: &mut Credentials, old: &Credentials) {
    if old.securebits & NO_SETUID_FIXUP != 0 {
        return;
    }
    let is_root = |c: &Credentials| c.uid == 0 || c.euid == 0 || c.suid == 0;
    if is_root(old) && !is_root(new) {
        if old.securebits & KEEP_CAPS == 0 {
            new.caps.permitted = 0;
            new.caps.effective = 0;
        }
        // Programs that know nothing of ambient capabilities expect exec to drop everything.
        new.caps.ambient = 0;
    }
    match (old.euid == 0, new.euid == 0) {
        (true, false) => new.caps.effective = 0,
        (false, true) => new.caps.effective = new.caps.permitted,
        _ => {}
    }
}

/// What `setfsuid(2)` does.
pub(crate) fn follow_fs_id(new: &mut Credentials, old: &Credentials) {
    if old.securebits & NO_SETUID_FIXUP != 0 {
        return;
    }
    match (old.fsuid == 0, new.fsuid == 0) {
        (true, false) => new.caps.effective &= !OF_FILES,
        (false, true) => new.caps.effective |= new.caps.permitted & OF_FILES,
        _ => {}
    }
}

/// The file of an exec, as far as rights depend on it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SetIds {
    /// The owner of a set-user-id file, unless it has no effect here.
    pub uid: Option<u32>,
    /// The group of a set-group-id file.
    pub gid: Option<u32>,
    /// The thread may not gain anything (`no_new_privs`).
    pub no_new_privs: bool,
}

/// Turns a copy of the caller's credentials into those after exec ("Transformation of capabilities
/// during execve()"; files have no capabilities). Returns whether the program runs with more rights
/// than its caller has (AT_SECURE).
pub(crate) fn transform_at_exec(new: &mut Credentials, old: &Credentials, file: SetIds) -> bool {
    new.euid = file.uid.unwrap_or(old.euid);
    new.egid = file.gid.unwrap_or(old.egid);
    new.caps.permitted = 0;
    let mut effective = false;
    if old.securebits & NOROOT == 0 {
        if new.euid == 0 || new.uid == 0 {
            new.caps.permitted = old.caps.bounding | old.caps.inheritable;
        }
        effective = new.euid == 0;
    }
    let changes_ids = new.euid != old.uid || new.egid != old.gid;
    if file.no_new_privs && (changes_ids || !is_within(new.caps.permitted, old.caps.permitted)) {
        new.euid = new.uid;
        new.egid = new.gid;
        new.caps.permitted &= old.caps.permitted;
    }
    (new.suid, new.fsuid) = (new.euid, new.euid);
    (new.sgid, new.fsgid) = (new.egid, new.egid);
    if changes_ids {
        new.caps.ambient = 0;
    }
    new.caps.permitted |= new.caps.ambient;
    new.caps.effective = if effective { new.caps.permitted } else { new.caps.ambient };
    new.securebits &= !KEEP_CAPS;
    changes_ids || new.uid != 0 && (effective || !is_within(new.caps.permitted, new.caps.ambient))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32) -> Credentials {
        Credentials::user(uid, uid, Caps { bounding: Caps::ALL, ..Caps::default() })
    }

    fn after(old: &Credentials, file: SetIds) -> (Credentials, bool) {
        let mut new = kalloc::TryClone::try_clone(old).unwrap();
        let secure = transform_at_exec(&mut new, old, file);
        (new, secure)
    }

    #[test]
    fn root_has_all_within_the_bounding_set_after_exec() {
        let mut old = Credentials::root();
        old.caps.permitted = 0;
        old.caps.effective = 0;
        old.caps.bounding = 0xff;
        let (new, secure) = after(&old, SetIds::default());
        assert_eq!((new.caps.permitted, new.caps.effective, secure), (0xff, 0xff, false));
        old.securebits = NOROOT;
        let (new, _) = after(&old, SetIds::default());
        assert_eq!((new.caps.permitted, new.caps.effective), (0, 0));
        // With no_new_privs root gets nothing back that it gave up.
        old.securebits = 0;
        let (new, _) = after(&old, SetIds { no_new_privs: true, ..SetIds::default() });
        assert_eq!(new.caps.permitted, 0);
    }

    #[test]
    fn set_user_id_root_gives_all_and_is_secure() {
        let (new, secure) = after(&user(1000), SetIds { uid: Some(0), ..SetIds::default() });
        assert_eq!((new.uid, new.euid, new.suid, new.fsuid), (1000, 0, 0, 0));
        assert_eq!((new.caps.effective, secure), (Caps::ALL, true));
        let (new, secure) = after(&user(1000), SetIds { uid: Some(7), ..SetIds::default() });
        assert_eq!((new.euid, new.caps.effective, secure), (7, 0, true));
    }

    #[test]
    fn ambient_stays_unless_ids_change() {
        let mut old = user(1000);
        old.caps = Caps { permitted: 6, inheritable: 6, ambient: 2, effective: 6, bounding: Caps::ALL };
        let (new, secure) = after(&old, SetIds::default());
        assert_eq!((new.caps.permitted, new.caps.effective, new.caps.ambient, secure), (2, 2, 2, false));
        let (new, secure) = after(&old, SetIds { gid: Some(5), ..SetIds::default() });
        assert_eq!((new.caps.permitted, new.caps.ambient, secure), (0, 0, true));
    }

    #[test]
    fn leaving_root_drops_all_unless_kept() {
        let old = Credentials::root();
        let mut new = user(5);
        new.caps = Caps { ambient: 1, ..Caps::full() };
        follow_user_ids(&mut new, &old);
        assert_eq!((new.caps.permitted, new.caps.effective, new.caps.ambient), (0, 0, 0));
        let mut old = Credentials::root();
        old.securebits = KEEP_CAPS;
        let mut new = user(5);
        new.caps = Caps { ambient: 1, ..Caps::full() };
        follow_user_ids(&mut new, &old);
        assert_eq!((new.caps.permitted, new.caps.effective, new.caps.ambient), (Caps::ALL, 0, 0));
        old.securebits = NO_SETUID_FIXUP;
        let mut new = user(5);
        new.caps = Caps::full();
        follow_user_ids(&mut new, &old);
        assert_eq!(new.caps.effective, Caps::ALL);
    }

    #[test]
    fn the_fs_id_moves_only_the_capabilities_of_files() {
        let old = Credentials::root();
        let mut new = Credentials::root();
        new.fsuid = 5;
        follow_fs_id(&mut new, &old);
        assert_eq!(new.caps.effective, Caps::ALL & !OF_FILES);
        let mut back = kalloc::TryClone::try_clone(&new).unwrap();
        back.fsuid = 0;
        follow_fs_id(&mut back, &new);
        assert_eq!(back.caps.effective, Caps::ALL);
    }
}
