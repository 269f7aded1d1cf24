#![cfg_attr(not(test), no_std)]
//! The system-call interface: which number does what, and how the words in registers become typed
//! arguments.
//!
//! [`table`] has one line a call: name, handler, argument types. A handler is an ordinary function
//! of the family files below; it gets the current task and typed arguments and returns a
//! [`Result`](abi::Result), which [`dispatch`] turns into x0. Numbers without a line return ENOSYS.
//!
//! Invariants: no handler keeps a reference beyond its return, because some never return (exit);
//! user memory is reached through `UserPtr` and `UserSlice` only; a handler that fails has changed
//! nothing but what its manual page says.
//!
//! Order of errors: arguments are converted from left to right (a bad descriptor is EBADF before a
//! bad pointer is EFAULT); where Linux checks in another order, the handler takes the raw word.

mod args;
mod attrs;
mod clone;
mod dirs;
mod events;
mod fds;
mod futexes;
mod ids;
mod io;
pub mod leave;
mod memory;
mod mounts;
mod poll;
mod prctl;
mod processes;
mod scheduling;
mod signals;
mod sockets;
mod splice;
mod system;
mod table;
mod tracing;
mod times;

pub use args::{FromWord, IntoReturn};
pub use system::VERSION;

use abi::Errno;
use arch::{
    UserRegs,
    thread::{SECCOMP, SYSCALL_WORK},
};
use process::seccomp;

/// A handler as the table stores it: the task, and the registers with the arguments in x0 to x5.
type Handler = fn(&process::Task, &mut UserRegs) -> abi::Result<u64>;

/// Runs the system call that the registers ask for and puts its result into x0: for
/// `process::set_syscalls`. Interrupts are on, `task` is the calling thread's; may sleep.
pub fn dispatch(task: &process::Task, regs: &mut UserRegs) {
    let head = arch::thread::current();
    let flags = head.flags();
    if flags & SYSCALL_WORK == 0 {
        run(task, regs, regs.x[8] as u32);
    } else if enter(task, regs, flags) {
        run(task, regs, regs.syscallno as u32);
    }
    // Asked again: a tracer may have come, or gone, meanwhile.
    if head.flags() & SYSCALL_WORK != 0 {
        process::ptrace::stop::syscall_exit(task, regs);
    }
}

#[inline]
fn run(task: &process::Task, regs: &mut UserRegs, number: u32) {
    let result = match table::find(number) {
        Some(handler) => handler(task, regs),
        None => Err(Errno::ENOSYS),
    };
    finish(regs, result);
}

/// What a call gives its program, and a look at what its handler left behind.
#[inline]
fn finish(regs: &mut UserRegs, result: abi::Result<u64>) {
    regs.x[0] = match result {
        Ok(value) => value,
        Err(e) => e.to_ret(),
    };
    if cfg!(debug_assertions) {
        leave::check(leave::After::Call(regs.syscallno));
    }
}

/// Number of no call.
const NO_SYSCALL: i64 = -1;

/// The long way into a call: those who watch it come first, and may change or skip it.
#[cold]
fn enter(task: &process::Task, regs: &mut UserRegs, flags: u32) -> bool {
    if regs.syscallno == NO_SYSCALL {
        // A call that the program itself names so; one that is skipped keeps what the tracer set.
        regs.x[0] = Errno::ENOSYS.to_ret();
    }
    if !process::ptrace::stop::syscall_enter(task, regs, flags) {
        return false;
    }
    // Of what the tracer left, also when that is no call: so does Linux.
    if arch::thread::current().test_flag(SECCOMP) && seccomp::check(task, regs) == seccomp::Verdict::Skip {
        return false;
    }
    regs.syscallno != NO_SYSCALL
}

/// Names of the calls that exist, by number, for documentation and tests.
pub fn names() -> impl Iterator<Item = (u32, &'static str)> {
    table::NAMES.iter().copied()
}
