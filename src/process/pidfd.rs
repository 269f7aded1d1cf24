//! Descriptors that stand for a process (`pidfd_open(2)`, `pidfd_send_signal(2)`,
//! `pidfd_getfd(2)`, CLONE_PIDFD).
//!
//! A pidfd holds the [`Pid`] object, so its number is not given to another process meanwhile, and
//! it is readable from the moment on at which a parent could collect the status.

use crate::{
    pid::Pid,
    proc,
    ptrace::access::{self, Access, Ids},
    signal::{Cause, SIGINFO_SIZE, SigInfo, Signal, may_signal, send_to_process},
    task::Task,
};
use abi::{Errno, Mode, Result, UserAddr, raw::general as g};
use arch::user::UserPtr;
use core::{any::Any, fmt};
use kalloc::{KArc, kbox_dyn};
use vfs::{Fd, FdTable, FileOps, OpenFile, PollEvents, PollTable, Reservation, anon};

/// PIDFD_NONBLOCK.
const NONBLOCK: u32 = g::O_NONBLOCK;

struct PidFile {
    pid: KArc<Pid>,
}

impl PidFile {
    /// The whole process has ended, or is gone.
    fn has_ended(&self) -> bool {
        self.pid.task().is_none_or(|t| t.process.is_zombie())
    }
}

impl FileOps for PidFile {
    fn can_seek(&self) -> bool {
        false
    }
    fn can_poll(&self) -> bool {
        true
    }
    fn poll(&self, _f: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.register(&self.pid.ended);
        if self.has_ended() { PollEvents::READABLE } else { PollEvents::empty() }
    }
    fn fdinfo(&self, _f: &OpenFile, out: &mut dyn fmt::Write) -> fmt::Result {
        // -1 for a process that was waited for.
        let number = if self.pid.task().is_some() { i64::from(self.pid.number()) } else { -1 };
        writeln!(out, "Pid:\t{number}\nNSpid:\t{number}")
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn new_file(task: &Task, pid: &KArc<Pid>, flags: u32) -> Result<KArc<OpenFile>> {
    let cred = task.cred()?;
    let ops = kbox_dyn!(PidFile { pid: pid.clone() } => dyn FileOps)?;
    OpenFile::anonymous(b"anon_inode:[pidfd]", anon::inode(Mode(0o600), 0, 0)?, ops, g::O_RDWR | flags, &cred)
}

/// The pidfd of a child that is being made: number and file are there, nobody sees them yet.
pub(crate) struct NewPidFd<'a> {
    place: Reservation<'a>,
    file: KArc<OpenFile>,
}

impl<'a> NewPidFd<'a> {
    /// Makes the file and tells `to` its number. EMFILE, EFAULT.
    pub fn prepare(task: &Task, files: &'a FdTable, pid: &KArc<Pid>, to: UserAddr) -> Result<Self> {
        let place = files.reserve(true, 0, task.process.limit(g::RLIMIT_NOFILE))?;
        let file = new_file(task, pid, 0)?;
        UserPtr::<u32>::new(to).write(place.fd().0)?;
        Ok(Self { place, file })
    }
    pub fn install(self) {
        self.place.install(self.file);
    }
}

/// `pidfd_open(2)`.
pub fn open(task: &Task, pid: i32, flags: u32) -> Result<Fd> {
    let number = u32::try_from(pid).ok().filter(|n| *n > 0 && flags & !NONBLOCK == 0).ok_or(Errno::EINVAL)?;
    let pid = task.ns()?.pid.pid(number).ok_or(Errno::ESRCH)?;
    // What is left of a number, or a thread that is not the leader.
    if !pid.task().is_some_and(|t| t.is_leader()) {
        return Err(Errno::EINVAL);
    }
    let files = task.files()?;
    let place = files.reserve(true, 0, task.process.limit(g::RLIMIT_NOFILE))?;
    Ok(place.install(new_file(task, &pid, flags)?))
}

/// What a pidfd stands for, and whether waiting through it must not block. EBADF for any other
/// file.
pub fn target(task: &Task, fd: i32) -> Result<(KArc<Pid>, bool)> {
    let file = task.files()?.get_file(Fd::from_raw(fd)?)?;
    let pid = file.ops_as::<PidFile>().map(|p| p.pid.clone()).ok_or(Errno::EBADF)?;
    Ok((pid, file.is_nonblocking()))
}

/// `pidfd_send_signal(2)`.
pub fn send_signal(task: &Task, fd: i32, signal: u32, info: UserPtr<[u8; SIGINFO_SIZE]>, flags: u32) -> Result {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.files()?.get_file(Fd::from_raw(fd)?)?;
    let to = match (file.ops_as::<PidFile>(), proc::process_of_directory(&file)) {
        (Some(p), _) => p.pid.task().ok_or(Errno::ESRCH),
        (None, Some(found)) => found,
        (None, None) => return Err(Errno::EBADF),
    };
    let given = if info.is_null() { None } else { Some(info.read()?) };
    let cause = match given {
        None => Cause::User { code: g::SI_USER as i32, pid: task.process.id(), uid: task.with_cred(|c| c.uid)? },
        Some(raw) => {
            let word = |at: usize| raw.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_le_bytes);
            if word(0) as u32 != signal {
                return Err(Errno::EINVAL);
            }
            let code = word(8);
            // Only oneself may be told that the kernel or kill() was the sender.
            let to_self = task.is_leader() && to.as_ref().is_ok_and(|t| core::ptr::eq(&**t, task));
            if !to_self && (code >= 0 || code == g::SI_TKILL) {
                return Err(Errno::EPERM);
            }
            let mut fields = [0; SIGINFO_SIZE - 16];
            fields.copy_from_slice(raw.get(16..).ok_or(Errno::EFAULT)?);
            Cause::Queued { code, fields }
        }
    };
    let to = to?;
    let signal = if signal == 0 { None } else { Some(Signal::new(signal).ok_or(Errno::EINVAL)?) };
    if !may_signal(task, signal, &to)? {
        return Err(Errno::EPERM);
    }
    match signal {
        Some(signal) => send_to_process(&to.process, SigInfo { signal, cause }),
        None => Ok(()),
    }
}

/// `pidfd_getfd(2)`: a descriptor of another process's file.
pub fn get_fd(task: &Task, pidfd: i32, fd: u32, flags: u32) -> Result<Fd> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let (pid, _) = target(task, pidfd)?;
    let other = pid.task().ok_or(Errno::ESRCH)?;
    // First the file, then the check: what a program of other rights opens later is not meant.
    let file = other.file(Fd(fd));
    access::check(task, &other, Access::Attach, Ids::Real)?;
    let file = file.map_err(|_| Errno::EBADF)?;
    task.files()?.install(file, true, 0, task.process.limit(g::RLIMIT_NOFILE))
}
