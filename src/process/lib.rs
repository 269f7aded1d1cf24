#![cfg_attr(not(test), no_std)]
//! Processes: from `clone` over `exec`, signals and futexes to `exit` and `wait`.
//!
//! What it answers for: who exists and whose child it is ([`task`], [`pid`], [`pidfd`]), how it comes to be
//! ([`fork`], [`exec`], [`init`], [`kthread`]) and goes ([`exit`], [`wait`]), what interrupts it
//! ([`signal`], [`fault`]), what it sleeps on in user memory ([`futex`]), what it may
//! ([`cred`], [`capability`], [`seccomp`], [`limits`], [`user`]) and where it belongs ([`session`], [`ns`]). It does not schedule, map
//! memory or open files: it holds the objects of the rooms below and tells them when.
//!
//! Lock order: see [`task`].

mod coredump;
pub mod cpu_timers;
pub mod capability;
pub mod cred;
pub mod deadline;
pub mod exec;
pub mod exit;
pub mod fault;
pub mod fork;
pub mod futex;
pub mod init;
pub mod itimer;
pub mod kthread;
pub mod limits;
pub mod membarrier;
pub mod ns;
pub mod personality;
pub mod pid;
pub mod posix_timers;
pub mod pidfd;
pub mod proc;
pub mod ptrace;
pub mod rseq;
pub mod seccomp;
pub mod session;
pub mod signal;
pub mod task;
pub mod unshare;
pub mod user;
pub mod wait;

pub use deadline::Deadline;
pub use exec::{Arguments, Program, exec};
pub use fork::{CLEAR_SIGHAND, CloneArgs, INTO_CGROUP, clone};
pub use limits::{Limit, Limits, for_memory as memory_limits};
pub use ns::{Namespaces, UTS_LEN, UtsName, UtsNamespace};
pub use personality::{Personality, personality};
pub use pid::{Pid, PidNamespace};
pub use session::{JobControl, Session};
pub use signal::{SIGINFO_SIZE, SigInfo, SigSet, Signal, USER_HZ, clock_ticks};
pub use task::{Dumpable, Process, Restart, Task, current_arc, of, with_current};
pub use wait::{Which, wait};

use abi::Result;
use vfs::Path;

/// Moves every process whose root or working directory is `old` to `new` (`pivot_root(2)`).
pub fn replace_roots(old: &Path, new: &Path) {
    let Some(ns) = init::root_pid_namespace() else { return };
    let mut next = 1;
    while let Some((n, task)) = ns.next_from(next) {
        next = n.saturating_add(1);
        if let Ok(fs) = task.fs() {
            fs.replace(old, new);
        }
    }
}

/// Work before the return to user space: what the flags ask for, in Linux's order.
pub fn exit_work(regs: &mut arch::UserRegs, flags: u32) {
    if flags & arch::thread::NEED_RESCHED != 0 {
        sched::schedule();
    }
    if flags & arch::thread::DEBUG_LOAD != 0 {
        task::with_current(ptrace::debug::load);
    }
    if flags & arch::thread::NOTIFY_RESUME != 0 {
        with_current(|task| {
            rseq::resume(task, regs);
            cpu_timers::check(task);
        });
    }
    if flags & (arch::thread::SIGNAL_PENDING | arch::thread::FATAL_PENDING) != 0 {
        let thread = sched::current();
        if let Some(task) = of(&thread) {
            signal::deliver::deliver(task, regs);
        }
    }
}

/// Prepares what the first process needs, and the files of /proc that have to do with exec.
pub fn prepare() -> Result {
    net::set_caller(|| {
        let ids = |t: &Task| t.with_cred(|c| net::Ids { pid: t.process().id(), uid: c.euid, gid: c.egid });
        with_current(ids).and_then(Result::ok).unwrap_or_default()
    });
    exec::init()?;
    coredump::init()
}
