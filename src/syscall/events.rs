//! Descriptors that stand for events (`eventfd(2)`, `timerfd_create(2)`, `epoll(7)`).

use crate::{
    args::{DirFd, UserPath},
    fds::with_lookup,
    poll::deadline,
};
use abi::{Errno, Nanos, Result, UserAddr, raw::general as g};
use arch::user::UserPtr;
use event::{epoll, eventfd, inotify, timerfd};
use process::{
    SigSet, Task,
    signal::{calls, fd as signalfd},
};
use vfs::{Fd, LookupFlags};

fn install(task: &Task, file: kalloc::KArc<vfs::OpenFile>, cloexec: bool) -> Result<Fd> {
    task.files()?.install(file, cloexec, 0, task.process().limit(g::RLIMIT_NOFILE))
}

pub fn eventfd2(task: &Task, count: u32, flags: u32) -> Result<Fd> {
    install(task, eventfd::create(count, flags, &task.cred()?)?, flags & g::EFD_CLOEXEC != 0)
}

pub fn signalfd4(task: &Task, fd: i32, mask: UserPtr<u64>, size: usize, flags: u32) -> Result<Fd> {
    if size != size_of::<u64>() {
        return Err(Errno::EINVAL);
    }
    let mask = SigSet(mask.read()?);
    if fd == -1 {
        return install(task, signalfd::create(task, mask, flags)?, flags & g::O_CLOEXEC != 0);
    }
    if flags & !(g::O_CLOEXEC | g::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let fd = Fd::from_raw(fd)?;
    signalfd::set_mask(task, &*task.file(fd)?, mask)?;
    Ok(fd)
}

pub fn timerfd_create(task: &Task, clock: u32, flags: u32) -> Result<Fd> {
    install(task, timerfd::create(clock, flags, &task.cred()?)?, flags & g::TFD_CLOEXEC != 0)
}

type TimerSpec = UserPtr<[g::__kernel_timespec; 2]>;

pub fn timerfd_settime(task: &Task, fd: i32, flags: u32, new: TimerSpec, old: TimerSpec) -> Result {
    let new = time::Setting::from_words(new.read()?).ok_or(Errno::EINVAL)?;
    if flags & !(g::TFD_TIMER_ABSTIME | g::TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.files()?.get_file(Fd::from_raw(fd)?)?;
    let (before, done) = timerfd::set(&file, flags, new)?;
    done?;
    if old.is_null() { Ok(()) } else { old.write(before.to_words()) }
}

pub fn timerfd_gettime(task: &Task, fd: Fd, out: TimerSpec) -> Result {
    let file = task.files()?.get_file(fd)?;
    out.write(timerfd::get(&file)?.to_words())
}

pub fn inotify_init1(task: &Task, flags: u32) -> Result<Fd> {
    install(task, inotify::create(flags, &task.cred()?)?, flags & g::IN_CLOEXEC != 0)
}

pub fn inotify_add_watch(task: &Task, fd: i32, path: UserPath, mask: u32) -> Result<u32> {
    inotify::check_mask(mask)?;
    let file = task.files()?.get_file(Fd::from_raw(fd)?)?;
    inotify::check_instance(&file, mask)?;
    let path = path.read()?;
    let mut flags = LookupFlags::empty();
    flags.set(LookupFlags::FOLLOW, mask & g::IN_DONT_FOLLOW == 0);
    flags.set(LookupFlags::DIRECTORY, mask & g::IN_ONLYDIR != 0);
    let (inode, cred) = with_lookup(task, DirFd(g::AT_FDCWD), path.as_bytes(), |cx, at| {
        let place = vfs::lookup(cx, at, path.as_bytes(), flags)?;
        let inode = place.inode()?.clone();
        vfs::permission::check(&inode, vfs::MAY_READ, cx.cred)?;
        Ok((inode, cx.cred.clone()))
    })?;
    inotify::add_watch(&file, &inode, mask, &cred).map(|wd| wd as u32)
}

pub fn inotify_rm_watch(task: &Task, fd: i32, wd: i32) -> Result {
    let file = task.files()?.get_file(Fd::from_raw(fd)?)?;
    inotify::remove_watch(&file, wd)
}

pub fn epoll_create1(task: &Task, flags: u32) -> Result<Fd> {
    install(task, epoll::create(flags, &task.cred()?)?, flags & g::EPOLL_CLOEXEC != 0)
}

pub fn epoll_ctl(task: &Task, fd: i32, op: u32, target: i32, event: UserPtr<[u64; 2]>) -> Result {
    let event = if op == g::EPOLL_CTL_DEL { epoll::Event::default() } else { epoll::Event::from_words(event.read()?) };
    let files = task.files()?;
    let file = files.get_file(Fd::from_raw(fd)?)?;
    let target = Fd::from_raw(target)?;
    epoll::control(&file, op, target.0, &files.get_file(target)?, event)
}

/// The wait of both calls, with the temporary signal mask in place. A wait that a signal ended is
/// never restarted; the mask stays until the handler's frame is built.
fn wait(task: &Task, fd: i32, out: UserAddr, max: i32, until: Option<Nanos>, mask: UserPtr<u64>, size: usize) -> Result<usize> {
    calls::set_temporary_mask(task, mask, size)?;
    let result = epoll::check_wait(out, max).and_then(|()| {
        let file = task.files()?.get_file(Fd::from_raw(fd)?)?;
        epoll::wait(&file, out, max, until)
    });
    if !mask.is_null() && result != Err(Errno::EINTR) {
        calls::drop_temporary_mask(task);
    }
    result
}

pub fn epoll_pwait(task: &Task, fd: i32, out: UserAddr, max: i32, timeout: i32, mask: UserPtr<u64>, size: usize) -> Result<usize> {
    let until = match u64::try_from(timeout) {
        Err(_) => None,
        Ok(0) => Some(Nanos::ZERO),
        Ok(ms) => Some(time::monotonic().saturating_add(Nanos::from_millis(ms))),
    };
    wait(task, fd, out, max, until, mask, size)
}

pub fn epoll_pwait2(task: &Task, fd: i32, out: UserAddr, max: i32, timeout: UserPtr<g::__kernel_timespec>, mask: UserPtr<u64>, size: usize) -> Result<usize> {
    let until = deadline(timeout)?;
    wait(task, fd, out, max, until, mask, size)
}
