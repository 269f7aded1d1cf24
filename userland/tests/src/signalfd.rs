//! Signals as a file (signalfd).

use crate::check::*;
use libc::*;

cases![signalfd:
    read_takes_the_signal, several_at_once, nothing_is_eagain, reader_waits, poll_tells, epoll_tells_edges, mask_can_change,
    errors_of_signalfd, value_of_sigqueue, child_reads_its_own, name_and_fdinfo, kill_and_stop_are_left_out,
];

fn set_of(signals: &[i32]) -> sigset_t {
    let mut set = zero::<sigset_t>();
    for signal in signals {
        // SAFETY: a live set.
        unsafe { sigaddset(&mut set, *signal) };
    }
    set
}

/// A signalfd for the signals, which are blocked.
fn watch(signals: &[i32], flags: i32) -> Result<i32, Stop> {
    let set = set_of(signals);
    ok!(sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut()));
    Ok(ok!(signalfd(-1, &set, flags)))
}

fn next(fd: i32) -> Result<signalfd_siginfo, Stop> {
    let mut info = zero::<signalfd_siginfo>();
    eq!(ok!(read(fd, (&raw mut info).cast(), 128)), 128);
    Ok(info)
}

fn raise_all(signals: &[i32]) -> Outcome {
    for signal in signals {
        ok!(kill(getpid(), *signal));
    }
    Ok(())
}

fn ready(fd: i32) -> i16 {
    let mut p = pollfd { fd, events: POLLIN | POLLOUT, revents: 0 };
    // SAFETY: one live entry.
    unsafe { poll(&mut p, 1, 0) };
    p.revents
}

fn read_takes_the_signal() -> Outcome {
    let fd = watch(&[SIGUSR1], 0)?;
    raise_all(&[SIGUSR1])?;
    let info = next(fd)?;
    eq!((info.ssi_signo, info.ssi_code), (SIGUSR1 as u32, SI_USER));
    eq!((info.ssi_pid, info.ssi_uid), unsafe { (getpid() as u32, getuid()) });
    let mut pending = zero::<sigset_t>();
    ok!(sigpending(&mut pending));
    eq!(unsafe { sigismember(&pending, SIGUSR1) }, 0);
    Ok(())
}

fn several_at_once() -> Outcome {
    let fd = watch(&[SIGUSR1, SIGUSR2, SIGHUP], SFD_NONBLOCK)?;
    raise_all(&[SIGUSR2, SIGHUP, SIGUSR1, SIGUSR1])?;
    let mut all = [zero::<signalfd_siginfo>(); 4];
    // The lowest first; a part of an entry is not filled.
    eq!(ok!(read(fd, all.as_mut_ptr().cast(), 4 * 128 - 1)), 3 * 128);
    eq!([all[0].ssi_signo, all[1].ssi_signo, all[2].ssi_signo], [SIGHUP as u32, SIGUSR1 as u32, SIGUSR2 as u32]);
    Ok(())
}

fn nothing_is_eagain() -> Outcome {
    let fd = watch(&[SIGUSR1], SFD_NONBLOCK | SFD_CLOEXEC)?;
    let mut byte = [0u8; 128];
    errno!(read(fd, byte.as_mut_ptr().cast(), 128), EAGAIN);
    errno!(read(fd, byte.as_mut_ptr().cast(), 127), EINVAL);
    errno!(write(fd, byte.as_ptr().cast(), 128), EINVAL);
    eq!(ok!(fcntl(fd, F_GETFD)), FD_CLOEXEC);
    // What is not in the mask stays.
    let set = set_of(&[SIGUSR2]);
    ok!(sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut()));
    raise_all(&[SIGUSR2])?;
    errno!(read(fd, byte.as_mut_ptr().cast(), 128), EAGAIN);
    Ok(())
}

fn reader_waits() -> Outcome {
    let fd = watch(&[SIGUSR1], 0)?;
    let me = unsafe { getpid() };
    let pid = fork_child(|| {
        (0..20).for_each(|_| std::thread::yield_now());
        // SAFETY: the parent has the signal blocked.
        unsafe { kill(me, SIGUSR1) }
    });
    eq!(next(fd)?.ssi_pid, pid as u32);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn poll_tells() -> Outcome {
    let fd = watch(&[SIGUSR1], 0)?;
    eq!(ready(fd), 0);
    raise_all(&[SIGUSR1])?;
    eq!(ready(fd), POLLIN);
    next(fd)?;
    eq!(ready(fd), 0);
    let me = unsafe { getpid() };
    let pid = fork_child(|| unsafe { kill(me, SIGUSR1) });
    let mut p = pollfd { fd, events: POLLIN, revents: 0 };
    eq!(ok!(poll(&mut p, 1, -1)), 1);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn epoll_tells_edges() -> Outcome {
    let fd = watch(&[SIGUSR1, SIGUSR2], 0)?;
    let ep = ok!(epoll_create1(0));
    let mut event = epoll_event { events: (EPOLLIN | EPOLLET) as u32, u64: 7 };
    ok!(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &mut event));
    let mut out = epoll_event { events: 0, u64: 0 };
    eq!(ok!(epoll_wait(ep, &mut out, 1, 0)), 0);
    raise_all(&[SIGUSR1])?;
    eq!(ok!(epoll_wait(ep, &mut out, 1, 0)), 1);
    eq!(ok!(epoll_wait(ep, &mut out, 1, 0)), 0);
    raise_all(&[SIGUSR2])?;
    eq!(ok!(epoll_wait(ep, &mut out, 1, 0)), 1);
    Ok(())
}

fn mask_can_change() -> Outcome {
    let fd = watch(&[SIGUSR1], SFD_NONBLOCK)?;
    let set = set_of(&[SIGUSR2]);
    ok!(sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut()));
    raise_all(&[SIGUSR1, SIGUSR2])?;
    eq!(ok!(signalfd(fd, &set, 0)), fd);
    eq!(next(fd)?.ssi_signo, SIGUSR2 as u32);
    eq!(ready(fd), 0);
    let set = set_of(&[SIGUSR1]);
    ok!(signalfd(fd, &set, 0));
    eq!(ready(fd), POLLIN);
    Ok(())
}

fn errors_of_signalfd() -> Outcome {
    let set = set_of(&[SIGUSR1]);
    errno!(syscall(SYS_signalfd4, -1, &set, 4, 0), EINVAL);
    errno!(syscall(SYS_signalfd4, -1, 8, 8, 0), EFAULT);
    errno!(syscall(SYS_signalfd4, -1, &set, 8, 1), EINVAL);
    errno!(syscall(SYS_signalfd4, 999, &set, 8, 0), EBADF);
    errno!(syscall(SYS_signalfd4, new_pipe(0)?.0, &set, 8, 0), EINVAL);
    Ok(())
}

fn value_of_sigqueue() -> Outcome {
    let fd = watch(&[SIGRTMIN()], 0)?;
    for n in [5usize, 6] {
        ok!(sigqueue(getpid(), SIGRTMIN(), sigval { sival_ptr: n as *mut c_void }));
    }
    let (first, second) = (next(fd)?, next(fd)?);
    eq!((first.ssi_code, first.ssi_int, first.ssi_ptr), (SI_QUEUE, 5, 5));
    eq!((second.ssi_int, second.ssi_pid), (6, unsafe { getpid() } as u32));
    Ok(())
}

fn child_reads_its_own() -> Outcome {
    let fd = watch(&[SIGUSR1, SIGCHLD], SFD_NONBLOCK)?;
    raise_all(&[SIGUSR1])?;
    // The file is shared, the signals are not.
    eq!(child(|| i32::from(ready(fd) != 0)), Status::Exited(0));
    eq!(next(fd)?.ssi_signo, SIGUSR1 as u32);
    let info = next(fd)?;
    eq!((info.ssi_signo, info.ssi_code, info.ssi_status), (SIGCHLD as u32, CLD_EXITED, 0));
    Ok(())
}

fn name_and_fdinfo() -> Outcome {
    let fd = watch(&[SIGHUP, SIGUSR1], 0)?;
    let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    eq!(name.to_string_lossy(), "anon_inode:[signalfd]");
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    check!(text.contains("sigmask:\t0000000000000201\n"));
    Ok(())
}

fn kill_and_stop_are_left_out() -> Outcome {
    let fd = watch(&[SIGKILL, SIGSTOP, SIGUSR1], 0)?;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    check!(text.contains("sigmask:\t0000000000000200\n"));
    Ok(())
}
