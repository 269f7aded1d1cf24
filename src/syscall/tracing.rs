//! Tracing and the memory of other processes: the arguments of the calls.

use abi::{Errno, Result, UserAddr};
use arch::user::{UserPtr, UserSlice};
use kalloc::KVec;
use process::{
    Task,
    ptrace::{
        remote::{self, Direction, Piece},
        request,
    },
};

/// Looks into and controls another task.
pub fn ptrace(task: &Task, request: u64, pid: i64, addr: u64, data: u64) -> Result<u64> {
    request::ptrace(task, request, pid, addr, data)
}

/// UIO_MAXIOV.
const MAX_IOV: u64 = 1024;

/// Pieces of the other process: nothing but their number and size is checked.
fn pieces(iov: UserAddr, count: u64) -> Result<KVec<Piece>> {
    if count > MAX_IOV {
        return Err(Errno::EINVAL);
    }
    let mut out = KVec::try_with_capacity(count as usize)?;
    for i in 0..count {
        let [base, len] = UserPtr::<[u64; 2]>::new(iov.checked_add(i * 16).ok_or(Errno::EFAULT)?).read()?;
        if len > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        out.try_push((UserAddr(base), len))?;
    }
    Ok(out)
}

struct Vectors {
    local: (UserAddr, u64),
    remote: (UserAddr, u64),
}

fn transfer(task: &Task, pid: i32, v: Vectors, flags: u64, direction: Direction) -> Result<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let local = crate::io::vector(v.local.0, v.local.1)?;
    if local.iter().all(UserSlice::is_empty) {
        return Ok(0);
    }
    let remote = pieces(v.remote.0, v.remote.1)?;
    if remote.iter().all(|(_, len)| *len == 0) {
        return Ok(0);
    }
    remote::transfer(task, pid, &local, &remote, direction)
}

/// Copies memory of another process.
pub fn process_vm_readv(task: &Task, pid: i32, local: UserAddr, n: u64, remote: UserAddr, m: u64, flags: u64) -> Result<usize> {
    transfer(task, pid, Vectors { local: (local, n), remote: (remote, m) }, flags, Direction::Read)
}

/// Writes memory of another process.
pub fn process_vm_writev(task: &Task, pid: i32, local: UserAddr, n: u64, remote: UserAddr, m: u64, flags: u64) -> Result<usize> {
    transfer(task, pid, Vectors { local: (local, n), remote: (remote, m) }, flags, Direction::Write)
}
