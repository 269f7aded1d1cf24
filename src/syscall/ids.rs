//! User and group ids.

use abi::{Errno, Gid, Result, UserAddr};
use arch::user::UserPtr;
use kalloc::KVec;
use process::{Task, cred};

pub fn getuid(task: &Task) -> Result<u32> {
    task.with_cred(|c| c.uid)
}
pub fn geteuid(task: &Task) -> Result<u32> {
    task.with_cred(|c| c.euid)
}
pub fn getgid(task: &Task) -> Result<u32> {
    task.with_cred(|c| c.gid)
}
pub fn getegid(task: &Task) -> Result<u32> {
    task.with_cred(|c| c.egid)
}

fn three(values: [u32; 3], to: [UserPtr<u32>; 3]) -> Result {
    for (v, p) in values.into_iter().zip(to) {
        p.write(v)?;
    }
    Ok(())
}

pub fn getresuid(task: &Task, r: UserPtr<u32>, e: UserPtr<u32>, s: UserPtr<u32>) -> Result {
    three(task.with_cred(|c| [c.uid, c.euid, c.suid])?, [r, e, s])
}
pub fn getresgid(task: &Task, r: UserPtr<u32>, e: UserPtr<u32>, s: UserPtr<u32>) -> Result {
    three(task.with_cred(|c| [c.gid, c.egid, c.sgid])?, [r, e, s])
}
pub fn setuid(task: &Task, id: u32) -> Result {
    cred::setuid(task, id)
}
pub fn setgid(task: &Task, id: u32) -> Result {
    cred::setgid(task, id)
}
pub fn setreuid(task: &Task, r: u32, e: u32) -> Result {
    cred::setreuid(task, r, e)
}
pub fn setregid(task: &Task, r: u32, e: u32) -> Result {
    cred::setregid(task, r, e)
}
pub fn setresuid(task: &Task, r: u32, e: u32, s: u32) -> Result {
    cred::setresuid(task, r, e, s)
}
pub fn setresgid(task: &Task, r: u32, e: u32, s: u32) -> Result {
    cred::setresgid(task, r, e, s)
}
pub fn setfsuid(task: &Task, id: u32) -> Result<u32> {
    cred::setfsuid(task, id)
}
pub fn setfsgid(task: &Task, id: u32) -> Result<u32> {
    cred::setfsgid(task, id)
}

pub fn getgroups(task: &Task, size: i32, list: UserAddr) -> Result<usize> {
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    let c = task.cred()?;
    let n = c.groups.len();
    if size != 0 {
        if n > size {
            return Err(Errno::EINVAL);
        }
        UserPtr::<Gid>::new(list).write_slice(&c.groups)?;
    }
    Ok(n)
}

pub fn setgroups(task: &Task, size: i32, list: UserAddr) -> Result {
    if !task.with_cred(|c| c.capable(vfs::Cap::SETGID))? {
        return Err(Errno::EPERM);
    }
    let size = usize::try_from(size).ok().filter(|n| *n <= cred::MAX_GROUPS).ok_or(Errno::EINVAL)?;
    let mut groups: KVec<Gid> = KVec::try_from_elem(0, size)?;
    UserPtr::<Gid>::new(list).read_slice(&mut groups)?;
    cred::setgroups(task, groups)
}
