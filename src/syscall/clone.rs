//! Making processes and threads, and descriptors that stand for processes: the arguments.

use abi::{Errno, PAGE_SIZE, Result, USER_END, UserAddr, raw::general as g};
use arch::{
    UserRegs,
    user::{UserPtr, UserSlice},
};
use process::{CLEAR_SIGHAND, CloneArgs, INTO_CGROUP, SIGINFO_SIZE, Task, pidfd};
use vfs::Fd;

/// The bits of `clone`'s flags that are the exit signal (CSIGNAL).
const SIGNAL_BITS: u64 = 0xff;

/// `clone(2)`. A pidfd's number goes to where the parent's thread id would go.
pub fn clone(task: &Task, regs: &mut UserRegs, flags: u64, stack: u64, parent_tid: UserAddr, tls: u64, child_tid: UserAddr) -> Result<u32> {
    let args = CloneArgs {
        flags: u64::from(flags as u32) & !SIGNAL_BITS,
        exit_signal: flags as u32 & SIGNAL_BITS as u32,
        pidfd: parent_tid,
        stack,
        parent_tid,
        child_tid,
        tls,
        ..CloneArgs::default()
    };
    process::clone(task, regs, args)
}

/// `struct clone_args` as words: flags, pidfd, child_tid, parent_tid, exit_signal, stack,
/// stack_size, tls, set_tid, set_tid_size, cgroup.
type RawArgs = [u64; 11];
const RAW_SIZE: usize = size_of::<RawArgs>();
/// Size of the structure's first version, and of the one that knew of cgroups.
const SIZE_VER0: usize = 64;
const SIZE_VER2: usize = 88;
/// MAX_PID_NS_LEVEL: how many ids may be asked for.
const MAX_LEVELS: u64 = 32;
/// Flags that `clone3` refuses, because they may come to mean something else: CLONE_DETACHED, and
/// the bits of the signal but CLONE_NEWTIME.
const REFUSED: u64 = g::CLONE_DETACHED as u64 | SIGNAL_BITS & !(g::CLONE_NEWTIME as u64);
const KNOWN: u64 = u32::MAX as u64 | CLEAR_SIGHAND | INTO_CGROUP;

/// Copies a structure of which the caller knows another version: what it does not give is zero,
/// what this kernel does not know must be zero (E2BIG).
fn read_versioned(from: UserAddr, size: usize) -> Result<RawArgs> {
    let mut bytes = [0u8; RAW_SIZE];
    let known = size.min(RAW_SIZE);
    let mut at = known;
    while at < size {
        let mut rest = [0u8; 64];
        let n = rest.len().min(size - at);
        let part = rest.get_mut(..n).unwrap_or(&mut []);
        UserSlice::new(UserAddr(from.0.wrapping_add(at as u64)), n).read_into(part)?;
        if part.iter().any(|b| *b != 0) {
            return Err(Errno::E2BIG);
        }
        at += n;
    }
    UserSlice::new(from, known).read_into(bytes.get_mut(..known).unwrap_or(&mut []))?;
    let mut words = [0; RAW_SIZE / 8];
    for (w, b) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *w = u64::from_le_bytes(*b);
    }
    Ok(words)
}

/// `clone3(2)`.
pub fn clone3(task: &Task, regs: &mut UserRegs, args: UserAddr, size: usize) -> Result<u32> {
    if size > PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    if size < SIZE_VER0 {
        return Err(Errno::EINVAL);
    }
    let [flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup] =
        read_versioned(args, size)?;
    let is_signal = exit_signal <= abi::NSIG as u64;
    let cgroup_is_bad = flags & INTO_CGROUP != 0 && (cgroup > i32::MAX as u64 || size < SIZE_VER2);
    if set_tid_size > MAX_LEVELS || (set_tid == 0) != (set_tid_size == 0) || !is_signal || cgroup_is_bad {
        return Err(Errno::EINVAL);
    }
    let set_tid = if set_tid_size == 0 {
        None
    } else {
        let mut ids = [0u8; 4 * MAX_LEVELS as usize];
        let wanted = ids.get_mut(..4 * set_tid_size as usize).unwrap_or(&mut []);
        UserSlice::new(UserAddr(set_tid), wanted.len()).read_into(wanted)?;
        Some((set_tid_size, wanted.first_chunk().map_or(0, |b| u32::from_le_bytes(*b))))
    };
    let has = |flag: u32| flags & u64::from(flag) != 0;
    let bad = flags & !KNOWN != 0
        || flags & REFUSED != 0
        || has(g::CLONE_SIGHAND) && flags & CLEAR_SIGHAND != 0
        || (has(g::CLONE_THREAD) || has(g::CLONE_PARENT)) && exit_signal != 0
        || (stack == 0) != (stack_size == 0)
        || stack.checked_add(stack_size).is_none_or(|end| end > USER_END);
    if bad {
        return Err(Errno::EINVAL);
    }
    let args = CloneArgs {
        flags,
        pidfd: UserAddr(pidfd),
        exit_signal: exit_signal as u32,
        stack: stack + stack_size,
        parent_tid: UserAddr(parent_tid),
        child_tid: UserAddr(child_tid),
        tls,
        set_tid,
        cgroup,
    };
    process::clone(task, regs, args)
}

pub fn pidfd_open(task: &Task, pid: i32, flags: u32) -> Result<Fd> {
    pidfd::open(task, pid, flags)
}

pub fn pidfd_send_signal(task: &Task, fd: i32, signal: u32, info: UserPtr<[u8; SIGINFO_SIZE]>, flags: u32) -> Result {
    pidfd::send_signal(task, fd, signal, info, flags)
}

pub fn pidfd_getfd(task: &Task, pidfd: i32, fd: u32, flags: u32) -> Result<Fd> {
    pidfd::get_fd(task, pidfd, fd, flags)
}
