//! Signals: the arguments of the calls; what they do is in `process::signal::calls`.

use abi::{Result, UserAddr, raw::general as g};
use arch::{UserRegs, user::UserPtr};
use process::{SIGINFO_SIZE, Task, signal::calls};

pub fn kill(task: &Task, pid: i32, signal: u32) -> Result {
    calls::kill(task, pid, signal)
}
pub fn tkill(task: &Task, tid: i32, signal: u32) -> Result {
    calls::tgkill(task, None, tid, signal)
}
pub fn tgkill(task: &Task, tgid: i32, tid: i32, signal: u32) -> Result {
    calls::tgkill(task, Some(tgid), tid, signal)
}
pub fn rt_sigaction(task: &Task, signal: u32, new: UserPtr<[u64; 4]>, old: UserPtr<[u64; 4]>, size: usize) -> Result {
    calls::rt_sigaction(task, signal, new, old, size)
}
pub fn rt_sigprocmask(task: &Task, how: u32, set: UserPtr<u64>, old: UserPtr<u64>, size: usize) -> Result {
    calls::rt_sigprocmask(task, how, set, old, size)
}
pub fn rt_sigpending(task: &Task, set: UserPtr<u64>, size: usize) -> Result {
    calls::rt_sigpending(task, set, size)
}
pub fn rt_sigsuspend(task: &Task, set: UserPtr<u64>, size: usize) -> Result {
    calls::rt_sigsuspend(task, set, size)
}
pub fn rt_sigtimedwait(task: &Task, set: UserPtr<u64>, info: UserPtr<[u8; SIGINFO_SIZE]>, timeout: UserPtr<g::__kernel_timespec>, size: usize) -> Result<u32> {
    calls::rt_sigtimedwait(task, set, info, timeout, size)
}
pub fn rt_sigqueueinfo(task: &Task, tgid: i32, signal: u32, info: UserAddr) -> Result {
    calls::rt_sigqueueinfo(task, tgid, None, signal, info)
}
pub fn rt_tgsigqueueinfo(task: &Task, tgid: i32, tid: i32, signal: u32, info: UserAddr) -> Result {
    calls::rt_sigqueueinfo(task, tgid, Some(tid), signal, info)
}
pub fn rt_sigreturn(task: &Task, regs: &mut UserRegs) -> Result<u64> {
    Ok(calls::sigreturn(task, regs))
}
pub fn sigaltstack(task: &Task, regs: &mut UserRegs, new: UserPtr<[u64; 3]>, old: UserPtr<[u64; 3]>) -> Result {
    calls::sigaltstack(task, regs, new, old)
}
pub fn restart_syscall(task: &Task) -> Result<u64> {
    crate::times::restart(task)
}
