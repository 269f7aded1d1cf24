//! What a thread may and how it is treated: prctl, capabilities, seccomp, unsharing, I/O priority.

use abi::{Errno, Result, UserAddr, raw::prctl as p};
use arch::user::{UserPtr, UserSlice};
use process::{
    Dumpable, Task,
    capability::{self, Sets},
    seccomp as filters, unshare as sharing,
};
use vfs::{Cap, Fd};

/// Options that this architecture has nothing for, or that nothing here would obey, are EINVAL.
pub fn prctl(task: &Task, option: u32, a: u64, b: u64, c: u64, d: u64) -> Result<u64> {
    let process = task.process();
    let must_be_zero = |words: &[u64]| if words.iter().all(|w| *w == 0) { Ok(()) } else { Err(Errno::EINVAL) };
    let tell = |value: u32| UserPtr::<u32>::new(UserAddr(a)).write(value).map(|()| 0);
    match option {
        p::PR_SET_NAME => {
            let mut name = [0u8; 16];
            let n = arch::user::copy_str_from_user(&mut name, UserAddr(a)).map_err(|_| Errno::EFAULT)?;
            for b in name.iter_mut().skip(n.min(15)) {
                *b = 0;
            }
            sched::current().set_name(name);
            Ok(0)
        }
        p::PR_GET_NAME => UserPtr::<[u8; 16]>::new(UserAddr(a)).write(sched::current().name()).map(|()| 0),
        p::PR_SET_PDEATHSIG => {
            if a > abi::NSIG as u64 {
                return Err(Errno::EINVAL);
            }
            task.set_parent_death_signal(a as u32);
            Ok(0)
        }
        p::PR_GET_PDEATHSIG => tell(task.parent_death_signal()),
        p::PR_SET_DUMPABLE => {
            // The third value, root's, is not for programs to choose.
            process.set_dumpable(match a {
                0 => Dumpable::No,
                1 => Dumpable::User,
                _ => return Err(Errno::EINVAL),
            });
            Ok(0)
        }
        p::PR_GET_DUMPABLE => Ok(process.dumpable() as u64),
        p::PR_SET_CHILD_SUBREAPER => {
            process.set_child_subreaper(a != 0);
            Ok(0)
        }
        p::PR_GET_CHILD_SUBREAPER => tell(process.is_child_subreaper().into()),
        p::PR_SET_NO_NEW_PRIVS => {
            if a != 1 {
                return Err(Errno::EINVAL);
            }
            must_be_zero(&[b, c, d])?;
            task.set_no_new_privs();
            Ok(0)
        }
        p::PR_GET_NO_NEW_PRIVS => {
            must_be_zero(&[a, b, c, d])?;
            Ok(task.has_no_new_privs().into())
        }
        p::PR_SET_SECCOMP => filters::set_mode(task, a, UserAddr(b)),
        p::PR_GET_SECCOMP => Ok(filters::mode(task).into()),
        p::PR_CAPBSET_READ => capability::bounding(task, a),
        p::PR_CAPBSET_DROP => capability::drop_bounding(task, a).map(|()| 0),
        p::PR_GET_SECUREBITS => Ok(task.with_cred(|c| c.securebits)?.into()),
        p::PR_SET_SECUREBITS => capability::set_securebits(task, a).map(|()| 0),
        p::PR_GET_KEEPCAPS => Ok(capability::keeps(task)?.into()),
        p::PR_SET_KEEPCAPS => capability::set_keep(task, a).map(|()| 0),
        p::PR_CAP_AMBIENT => capability::ambient(task, a, b, [c, d]),
        // PR_TIMING_STATISTICAL is all there is.
        p::PR_GET_TIMING => Ok(0),
        p::PR_SET_TIMING => must_be_zero(&[a]).map(|()| 0),
        p::PR_SET_TIMERSLACK => {
            task.set_timer_slack((a as i64 > 0).then_some(a));
            Ok(0)
        }
        p::PR_GET_TIMERSLACK => Ok(task.timer_slack()),
        p::PR_GET_TID_ADDRESS => UserPtr::<u64>::new(UserAddr(a)).write(task.clear_child_tid()).map(|()| 0),
        p::PR_SET_THP_DISABLE => {
            must_be_zero(&[b, c, d])?;
            process.set_thp_disabled(a != 0);
            Ok(0)
        }
        p::PR_GET_THP_DISABLE => {
            must_be_zero(&[a, b, c, d])?;
            Ok(process.has_thp_disabled().into())
        }
        p::PR_GET_SPECULATION_CTRL => {
            must_be_zero(&[b, c, d])?;
            match a as u32 {
                // Nothing keeps loads from passing stores here, and nothing can be asked to.
                p::PR_SPEC_STORE_BYPASS => Ok(p::PR_SPEC_ENABLE.into()),
                _ => Err(Errno::ENODEV),
            }
        }
        p::PR_SET_PTRACER => process::ptrace::access::set_ptracer(task, a).map(|()| 0),
        p::PR_SET_MM => {
            must_be_zero(&[d])?;
            let allowed = task.with_cred(|c| c.capable(Cap::SYS_RESOURCE))?;
            Err(if allowed { Errno::EINVAL } else { Errno::EPERM })
        }
        _ => Err(Errno::EINVAL),
    }
}

pub fn seccomp(task: &Task, operation: u32, flags: u32, args: UserAddr) -> Result<u64> {
    filters::seccomp(task, operation, flags.into(), args)
}

// Versions of `struct __user_cap_header_struct` (linux/capability.h).
const CAP_V1: u32 = 0x1998_0330;
const CAP_V2: u32 = 0x2007_1026;
const CAP_V3: u32 = 0x2008_0522;

/// How many words each set has in the caller's version. An unknown version is answered by the one
/// that is preferred, in its place, and EINVAL.
fn words_of(header: UserAddr) -> Result<usize> {
    let version = UserPtr::<u32>::new(header);
    match version.read()? {
        CAP_V1 => Ok(1),
        CAP_V2 | CAP_V3 => Ok(2),
        _ => {
            version.write(CAP_V3)?;
            Err(Errno::EINVAL)
        }
    }
}

fn pid_in(header: UserAddr) -> Result<i32> {
    Ok(UserPtr::<u32>::new(UserAddr(header.0.wrapping_add(4))).read()? as i32)
}

pub fn capget(task: &Task, header: UserAddr, data: UserAddr) -> Result {
    let words = match words_of(header) {
        // The usual way to ask for the version.
        Err(Errno::EINVAL) if data.is_null() => return Ok(()),
        other => other?,
    };
    if data.is_null() {
        return Ok(());
    }
    let pid = u32::try_from(pid_in(header)?).map_err(|_| Errno::EINVAL)?;
    let s = capability::get(task, pid)?;
    for i in 0..words {
        let part = [s.effective, s.permitted, s.inheritable].map(|set| (set >> (32 * i)) as u32);
        UserPtr::<[u32; 3]>::new(UserAddr(data.0.wrapping_add(12 * i as u64))).write(part)?;
    }
    Ok(())
}

pub fn capset(task: &Task, header: UserAddr, data: UserAddr) -> Result {
    let words = words_of(header)?;
    let pid = pid_in(header)?;
    if pid != 0 && pid as u32 != task.id() {
        return Err(Errno::EPERM);
    }
    let mut bytes = [0u8; 24];
    let given = bytes.get_mut(..12 * words).unwrap_or(&mut []);
    UserSlice::new(data, given.len()).read_into(given)?;
    let word = |at: usize| bytes.get(4 * at..4 * at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let set = |at: usize| u64::from(word(at)) | u64::from(word(at + 3)) << 32;
    capability::set(task, Sets { effective: set(0), permitted: set(1), inheritable: set(2) })
}

pub fn unshare(task: &Task, flags: u32) -> Result {
    sharing::unshare(task, flags)
}

/// There is one namespace of each kind, and no descriptor stands for it.
pub fn setns(task: &Task, fd: Fd, _flags: u32) -> Result {
    task.files()?.get_file(fd)?;
    Err(Errno::EINVAL)
}

pub fn kcmp(task: &Task, a: i32, b: i32, kind: u32, i: u32, j: u32) -> Result<u64> {
    sharing::kcmp(task, [a, b], kind, [i, j])
}

// linux/ioprio.h.
const CLASS_SHIFT: u32 = 13;
const CLASS_NONE: u32 = 0;
const CLASS_RT: u32 = 1;
const CLASS_BE: u32 = 2;
const CLASS_IDLE: u32 = 3;
/// IOPRIO_WHO_PROCESS is PRIO_PROCESS plus one, and so on.
const WHO_FIRST: u32 = 1;

/// `ioprio_set(2)`.
pub fn ioprio_set(task: &Task, which: u32, who: i32, priority: u32) -> Result {
    // Bits beside the three of the class and the three of the level are kept, and mean nothing.
    let (class, level) = (priority >> CLASS_SHIFT & 7, priority & 7);
    let me = task.cred()?;
    match class {
        CLASS_RT if !me.capable(Cap::SYS_ADMIN) && !me.capable(Cap::SYS_NICE) => return Err(Errno::EPERM),
        CLASS_RT | CLASS_BE | CLASS_IDLE => {}
        CLASS_NONE if level == 0 => {}
        _ => return Err(Errno::EINVAL),
    }
    let mut refused = false;
    crate::processes::each_of(task, which.checked_sub(WHO_FIRST).ok_or(Errno::EINVAL)?, who, |t| {
        let owner = t.with_cred(|c| c.uid == me.euid || c.uid == me.uid).unwrap_or(false);
        if owner || me.capable(Cap::SYS_NICE) {
            t.set_io_priority(priority);
        } else {
            refused = true;
        }
    })?;
    if refused { Err(Errno::EPERM) } else { Ok(()) }
}

/// `ioprio_get(2)`: of several the best.
pub fn ioprio_get(task: &Task, which: u32, who: i32) -> Result<u32> {
    let mut best: Option<u32> = None;
    crate::processes::each_of(task, which.checked_sub(WHO_FIRST).ok_or(Errno::EINVAL)?, who, |t| {
        let own = t.io_priority();
        best = Some(match best {
            // Any class is better than none.
            Some(b) if own >> CLASS_SHIFT == CLASS_NONE => b,
            Some(b) if b >> CLASS_SHIFT != CLASS_NONE => b.min(own),
            _ => own,
        });
    })?;
    best.ok_or(Errno::ESRCH)
}
