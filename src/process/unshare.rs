//! Giving up what is shared (`unshare(2)`), and telling whether two tasks share something
//! (`kcmp(2)`).

use crate::{
    ns,
    ptrace::access::{self, Access, Ids},
    task::Task,
};
use abi::{Errno, Result, raw::general as g};
use kalloc::KArc;
use vfs::Fd;

/// `unshare(2)`. A namespace that does not exist here is EINVAL, as from a Linux built without it,
/// after the check of the right to make one.
pub fn unshare(task: &Task, mut flags: u32) -> Result {
    if flags & g::CLONE_NEWUSER != 0 {
        flags |= g::CLONE_THREAD | g::CLONE_FS;
    }
    if flags & g::CLONE_VM != 0 {
        flags |= g::CLONE_SIGHAND;
    }
    if flags & g::CLONE_SIGHAND != 0 {
        flags |= g::CLONE_THREAD;
    }
    if flags & g::CLONE_NEWNS != 0 {
        flags |= g::CLONE_FS;
    }
    const KNOWN: u32 = ns::NEW as u32
        | g::CLONE_NEWUSER
        | g::CLONE_THREAD
        | g::CLONE_FS
        | g::CLONE_SIGHAND
        | g::CLONE_VM
        | g::CLONE_FILES
        | g::CLONE_SYSVSEM;
    if flags & !KNOWN != 0 || flags & g::CLONE_THREAD != 0 && task.process.thread_count() > 1 {
        return Err(Errno::EINVAL);
    }
    // The handle here and the task's own are two.
    let shares_handlers = task.process.actions().is_some_and(|a| KArc::strong_count(&a) > 2);
    let shares_memory = task.memory().is_some_and(|m| KArc::strong_count(&m) > 2);
    if flags & g::CLONE_SIGHAND != 0 && shares_handlers || flags & g::CLONE_VM != 0 && shares_memory {
        return Err(Errno::EINVAL);
    }
    let fs = if flags & g::CLONE_FS != 0 { Some(task.fs()?.copy()?) } else { None };
    let files = if flags & g::CLONE_FILES != 0 { Some(task.files()?.copy()?) } else { None };
    if flags & g::CLONE_NEWUSER != 0 {
        return Err(Errno::EINVAL);
    }
    ns::check_new(task, flags.into())?;
    // From here on nothing fails.
    if fs.is_some() {
        drop(task.set_fs(fs));
    }
    if files.is_some() {
        drop(task.set_files(files));
    }
    Ok(())
}

/// `kcmp(2)`: 0 for the same, 1 and 2 for an order that means nothing but is one.
pub fn kcmp(task: &Task, pids: [i32; 2], kind: u32, indices: [u32; 2]) -> Result<u64> {
    const FILE: u32 = 0;
    const VM: u32 = 1;
    const FILES: u32 = 2;
    const FS: u32 = 3;
    const SIGHAND: u32 = 4;
    const IO: u32 = 5;
    const SYSVSEM: u32 = 6;
    let ns = task.ns()?;
    let find = |pid: i32| u32::try_from(pid).ok().and_then(|n| ns.pid.find(n)).ok_or(Errno::ESRCH);
    let (a, b) = (find(pids[0])?, find(pids[1])?);
    for other in [&a, &b] {
        access::check(task, other, Access::Read, Ids::Real)?;
    }
    let of = |t: &Task, index: u32| -> Result<usize> {
        Ok(match kind {
            FILE => address(&t.files()?.get(Fd(index))?),
            VM => t.memory().map_or(0, |m| address(&m)),
            FILES => t.files().map_or(0, |f| address(&f)),
            FS => t.fs().map_or(0, |f| address(&f)),
            SIGHAND => t.process.actions().map_or(0, |a| address(&a)),
            // Nobody has any of these.
            IO | SYSVSEM => 0,
            _ => return Err(Errno::EINVAL),
        })
    };
    let (x, y) = (of(&a, indices[0])?, of(&b, indices[1])?);
    Ok(match x.cmp(&y) {
        core::cmp::Ordering::Equal => 0,
        core::cmp::Ordering::Less => 1,
        core::cmp::Ordering::Greater => 2,
    })
}

/// Where an object is, scrambled so that nobody learns an address of the kernel by sorting.
fn address<T>(object: &KArc<T>) -> usize {
    (KArc::as_ptr(object) as usize).rotate_left(17).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
