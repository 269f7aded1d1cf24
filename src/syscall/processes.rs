//! Processes and threads: making, replacing, ending, waiting, and what is known about them.

use crate::args::{DirFd, UserPath};
use crate::fds::start;
use abi::{CpuMask, Errno, Nanos, Result, UserAddr, raw::general as g};
use arch::{
    UserRegs,
    user::{UserPtr, UserSlice},
};
use kalloc::{KArc, KVec};
use process::{
    Arguments, Limit, Process, Program, Task, Which, exit as ending, pidfd, session, wait as waiting,
};
use vfs::{Cap, Fd, LookupFlags};

pub fn execve(task: &Task, regs: &mut UserRegs, path: UserPath, argv: UserAddr, envp: UserAddr) -> Result<u64> {
    execveat(task, regs, DirFd(g::AT_FDCWD), path, argv, envp, 0)
}

pub fn execveat(task: &Task, regs: &mut UserRegs, dir: DirFd, path: UserPath, argv: UserAddr, envp: UserAddr, flags: u32) -> Result<u64> {
    if flags & !(g::AT_EMPTY_PATH | g::AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let name = path.read()?;
    let program = {
        let (fs, cred) = (task.fs()?, task.cred()?);
        let at = start(task, dir, name.as_bytes())?;
        let cx = vfs::Lookup { fs: &fs, cred: &cred };
        // A name through a descriptor that exec closes is none for an interpreter.
        let inaccessible = at.is_some() && task.files()?.is_cloexec(Fd::from_raw(dir.0)?)?;
        let file = vfs::open_exec(&cx, at.as_ref(), name.as_bytes(), LookupFlags::from_at(flags))?;
        let shown = if dir.0 == g::AT_FDCWD || name.as_bytes().starts_with(b"/") {
            KVec::try_from_slice(name.as_bytes())?
        } else if name.as_bytes().is_empty() {
            kalloc::kformat!("/dev/fd/{}", dir.0)?.into_bytes()
        } else {
            let mut s = kalloc::kformat!("/dev/fd/{}/", dir.0)?.into_bytes();
            s.try_extend_from_slice(name.as_bytes())?;
            s
        };
        Program { file, name: shown, inaccessible }
    };
    let arguments = Arguments::from_user(argv, envp, task.process().limit(g::RLIMIT_STACK))?;
    process::exec(task, regs, program, arguments)?;
    Ok(regs.x[0])
}

pub fn exit(task: &Task, regs: &mut UserRegs, code: u32) -> Result {
    process::ptrace::stop::exit_event(task, regs, ending::exited(code));
    ending::exit_thread(task, ending::exited(code))
}

pub fn exit_group(task: &Task, regs: &mut UserRegs, code: u32) -> Result {
    ending::begin_exit_group(task, ending::exited(code));
    process::ptrace::stop::exit_event(task, regs, ending::exited(code));
    ending::exit_group(task, ending::exited(code))
}

fn raw_usage(u: &waiting::Usage) -> g::rusage {
    let mut r: g::rusage = arch::user::zeroed();
    let time = |t: Nanos| g::__kernel_old_timeval { tv_sec: t.secs() as _, tv_usec: (t.subsec() / 1000) as _ };
    r.ru_utime = time(u.utime);
    r.ru_stime = time(u.stime);
    r.ru_maxrss = u.max_rss_kib as _;
    r.ru_minflt = u.min_flt as _;
    r.ru_nvcsw = u.nvcsw as _;
    r.ru_nivcsw = u.nivcsw as _;
    r
}

pub fn wait4(task: &Task, pid: i32, status: UserPtr<u32>, options: u32, usage: UserPtr<g::rusage>) -> Result<u32> {
    const KNOWN: u32 = g::WNOHANG | g::WUNTRACED | g::WCONTINUED | g::__WNOTHREAD | g::__WCLONE | g::__WALL;
    if options & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let which = match pid {
        i32::MIN => return Err(Errno::ESRCH),
        -1 => Which::Any,
        0 => Which::Group(task.process().pgrp_id()),
        n if n < 0 => Which::Group(n.unsigned_abs()),
        n => Which::Pid(n as u32),
    };
    let Some(report) = waiting::wait(task, which, options | g::WEXITED)? else { return Ok(0) };
    if !status.is_null() {
        status.write(report.status)?;
    }
    if !usage.is_null() {
        usage.write(raw_usage(&report.usage))?;
    }
    Ok(report.pid)
}

/// `waitid(2)`. As on Linux, `info` is written even when there is nothing to tell: the six words
/// that say what happened to whom, and no more.
pub fn waitid(task: &Task, kind: u32, id: i32, info: UserAddr, options: u32, usage: UserPtr<g::rusage>) -> Result {
    let result = wait_by_id(task, kind, id, options);
    let report = result.as_ref().ok().and_then(|r| *r);
    if let Some(report) = &report
        && !usage.is_null()
    {
        usage.write(raw_usage(&report.usage))?;
    }
    if !info.is_null() {
        let [signal, code, pid, uid, status] =
            report.map_or([0; 5], |r| [g::SIGCHLD, r.code as u32, r.pid, r.uid, r.value as u32]);
        UserPtr::<[u32; 3]>::new(info).write([signal, 0, code])?;
        UserPtr::<[u32; 3]>::new(UserAddr(info.0.wrapping_add(16))).write([pid, uid, status])?;
    }
    result.map(|_| ())
}

fn wait_by_id(task: &Task, kind: u32, id: i32, options: u32) -> Result<Option<waiting::Report>> {
    const EVENTS: u32 = g::WEXITED | g::WSTOPPED | g::WCONTINUED;
    const KNOWN: u32 = EVENTS | g::WNOHANG | g::WNOWAIT | g::__WNOTHREAD | g::__WCLONE | g::__WALL;
    if options & !KNOWN != 0 || options & EVENTS == 0 {
        return Err(Errno::EINVAL);
    }
    let which = match (kind, id) {
        (g::P_ALL, _) => Which::Any,
        (g::P_PID, n) if n > 0 => Which::Pid(n as u32),
        (g::P_PGID, n) if n > 0 => Which::Group(n as u32),
        (g::P_PGID, 0) => Which::Group(task.process().pgrp_id()),
        (g::P_PIDFD, n) if n >= 0 => {
            let (pid, nonblocking) = pidfd::target(task, n)?;
            if nonblocking && options & g::WNOHANG == 0 {
                return waiting::wait(task, Which::Object(pid), options | g::WNOHANG)?.map(Some).ok_or(Errno::EAGAIN);
            }
            Which::Object(pid)
        }
        _ => return Err(Errno::EINVAL),
    };
    waiting::wait(task, which, options)
}

pub fn personality(task: &Task, new: u32) -> Result<u32> {
    process::personality(task, new)
}

pub fn getpid(task: &Task) -> Result<u32> {
    Ok(task.process().id())
}

pub fn getppid(task: &Task) -> Result<u32> {
    Ok(task.process().parent_id())
}

pub fn gettid(task: &Task) -> Result<u32> {
    Ok(task.id())
}

pub fn setsid(task: &Task) -> Result<u32> {
    session::setsid(task)
}

pub fn getsid(task: &Task, pid: i32) -> Result<u32> {
    session::getsid(task, pid)
}

pub fn setpgid(task: &Task, pid: i32, pgid: i32) -> Result {
    session::setpgid(task, pid, pgid)
}

pub fn getpgid(task: &Task, pid: i32) -> Result<u32> {
    session::getpgid(task, pid)
}

pub fn set_tid_address(task: &Task, addr: UserAddr) -> Result<u32> {
    task.set_clear_child_tid(addr);
    Ok(task.id())
}

/// Size of `struct robust_list_head`.
const ROBUST_HEAD: usize = 24;

pub fn set_robust_list(task: &Task, head: UserAddr, size: usize) -> Result {
    if size != ROBUST_HEAD {
        return Err(Errno::EINVAL);
    }
    task.set_robust_list(head);
    Ok(())
}

pub fn get_robust_list(task: &Task, pid: i32, head: UserPtr<u64>, size: UserPtr<u64>) -> Result {
    let list = if pid == 0 {
        task.robust_list()
    } else {
        let other = find(task, pid)?;
        process::ptrace::access::check(task, &other, process::ptrace::access::Access::Read, process::ptrace::access::Ids::Real)?;
        other.robust_list()
    };
    size.write(ROBUST_HEAD as u64)?;
    head.write(list.0)
}

/// The task with this id.
fn find(task: &Task, pid: i32) -> Result<KArc<Task>> {
    let id = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    task.ns()?.pid.find(id).ok_or(Errno::ESRCH)
}

fn process_of(task: &Task, pid: i32) -> Result<KArc<Process>> {
    if pid == 0 { Ok(task.process().clone()) } else { Ok(find(task, pid)?.process().clone()) }
}

pub fn getrlimit(task: &Task, resource: u32, out: UserPtr<[u64; 2]>) -> Result {
    let l = task.process().limits().get(resource)?;
    out.write([l.soft, l.hard])
}

pub fn setrlimit(task: &Task, resource: u32, new: UserPtr<[u64; 2]>) -> Result {
    let [soft, hard] = new.read()?;
    set_limit(task, task.process(), resource, Limit { soft, hard }).map(|_| ())
}

fn set_limit(task: &Task, of: &Process, resource: u32, new: Limit) -> Result<Limit> {
    let privileged = task.with_cred(|c| c.capable(Cap::SYS_RESOURCE))?;
    let before = of.with_limits(|l| l.set(resource, new, privileged))?;
    if resource == g::RLIMIT_CPU {
        process::cpu_timers::limit_was_set(of);
    }
    Ok(before)
}

pub fn prlimit64(task: &Task, pid: i32, resource: u32, new: UserPtr<[u64; 2]>, old: UserPtr<[u64; 2]>) -> Result {
    let new = if new.is_null() { None } else { Some(new.read()?) };
    let of = process_of(task, pid)?;
    if !KArc::ptr_eq(&of, task.process()) {
        let target = of.any_task().ok_or(Errno::ESRCH)?;
        let (me, other) = (task.cred()?, target.cred()?);
        let same = [other.uid, other.euid, other.suid].iter().all(|u| *u == me.uid)
            && [other.gid, other.egid, other.sgid].iter().all(|g| *g == me.gid);
        if !same && !me.capable(Cap::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
    }
    let before = match new {
        None => of.limits().get(resource)?,
        Some([soft, hard]) => set_limit(task, &of, resource, Limit { soft, hard })?,
    };
    if !old.is_null() {
        old.write([before.soft, before.hard])?;
    }
    Ok(())
}

pub fn getrusage(task: &Task, who: i32, out: UserPtr<g::rusage>) -> Result {
    const SELF: i32 = g::RUSAGE_SELF as i32;
    const THREAD: i32 = g::RUSAGE_THREAD as i32;
    let usage = match who {
        SELF => waiting::own_usage(task.process()),
        g::RUSAGE_CHILDREN => waiting::children_usage(task.process()),
        THREAD => waiting::thread_usage(task),
        _ => return Err(Errno::EINVAL),
    };
    out.write(raw_usage(&usage))
}

/// PRIO_PROCESS, PRIO_PGRP, PRIO_USER (`getpriority(2)`).
const PRIO_PROCESS: u32 = 0;
const PRIO_PGRP: u32 = 1;
const PRIO_USER: u32 = 2;

pub(crate) fn each_of(task: &Task, which: u32, who: i32, mut f: impl FnMut(&Task)) -> Result {
    let ns = task.ns()?;
    let uid = task.with_cred(|c| c.uid)?;
    let mut found = false;
    let mut next = 1;
    if which == PRIO_PROCESS {
        let t = if who == 0 { task.arc().ok_or(Errno::ESRCH)? } else { find(task, who)? };
        f(&t);
        return Ok(());
    }
    if which > PRIO_USER {
        return Err(Errno::EINVAL);
    }
    while let Some((n, t)) = ns.pid.next_from(next) {
        next = n.saturating_add(1);
        let matches = match which {
            PRIO_PGRP => t.process().pgrp_id() == if who == 0 { task.process().pgrp_id() } else { who as u32 },
            _ => t.with_cred(|c| c.uid)? == if who == 0 { uid } else { who as u32 },
        };
        if matches {
            found = true;
            f(&t);
        }
    }
    if found { Ok(()) } else { Err(Errno::ESRCH) }
}

pub fn getpriority(task: &Task, which: u32, who: i32) -> Result<u32> {
    let mut best = 0;
    each_of(task, which, who, |t| {
        if let Some(thread) = t.thread() {
            // 1 to 40, so that the value is never negative (getpriority(2), NOTES).
            best = best.max((20 - i32::from(thread.nice())) as u32);
        }
    })?;
    Ok(best)
}

pub fn setpriority(task: &Task, which: u32, who: i32, nice: i32) -> Result {
    let nice = nice.clamp(-20, 19) as i8;
    let me = task.cred()?;
    let mut error = None;
    each_of(task, which, who, |t| {
        let Some(thread) = t.thread() else { return };
        let owner = t.with_cred(|c| c.uid == me.euid || c.euid == me.euid).unwrap_or(false);
        // RLIMIT_NICE lets the value fall to 20 minus the limit.
        let floor = 20 - t.process().limit(g::RLIMIT_NICE).min(40) as i32;
        if !owner && !me.capable(Cap::SYS_NICE) {
            error = Some(Errno::EPERM);
        } else if nice < thread.nice() && i32::from(nice) < floor && !me.capable(Cap::SYS_NICE) {
            error = Some(Errno::EACCES);
        } else {
            thread.set_nice(nice);
        }
    })?;
    error.map_or(Ok(()), Err)
}

pub fn sched_yield(_: &Task) -> Result {
    sched::yield_now();
    Ok(())
}

pub fn sched_getaffinity(task: &Task, pid: i32, size: u32, out: UserAddr) -> Result<usize> {
    if !size.is_multiple_of(8) || (size as usize) * 8 < arch::cpu::count() {
        return Err(Errno::EINVAL);
    }
    let mask = if pid == 0 {
        sched::current().affinity()
    } else {
        find(task, pid)?.thread().ok_or(Errno::ESRCH)?.affinity()
    };
    let bytes = mask.and(arch::cpu::online()).0.to_le_bytes();
    UserSlice::new(out, bytes.len()).write_from(&bytes)?;
    Ok(bytes.len())
}

pub fn sched_setaffinity(task: &Task, pid: i32, size: u32, mask: UserAddr) -> Result {
    let mut bytes = [0u8; 8];
    let n = (size as usize).min(bytes.len());
    UserSlice::new(mask, n).read_into(bytes.get_mut(..n).unwrap_or(&mut []))?;
    let mask = CpuMask(u64::from_le_bytes(bytes));
    let thread = if pid == 0 {
        sched::current_arc()
    } else {
        let t = find(task, pid)?;
        let me = task.cred()?;
        if t.with_cred(|c| c.uid != me.euid && c.euid != me.euid)? && !me.capable(Cap::SYS_NICE) {
            return Err(Errno::EPERM);
        }
        t.thread().ok_or(Errno::ESRCH)?
    };
    if mask.and(arch::cpu::online()).is_empty() {
        return Err(Errno::EINVAL);
    }
    sched::set_affinity(&thread, mask);
    Ok(())
}
