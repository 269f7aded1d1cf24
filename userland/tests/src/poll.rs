//! poll, ppoll and pselect6.

use crate::check::*;
use libc::*;

cases![poll:
    pipe_readiness, hangup_and_error, bad_descriptor_is_nval, negative_descriptor_is_ignored, timeout_expires,
    zero_timeout_returns_at_once, write_wakes_a_poller, close_wakes_a_poller, regular_files_are_always_ready,
    select_reports, select_timeout, select_bad_descriptor_is_ebadf, ppoll_mask_lets_a_signal_in, signal_interrupts_poll,
    too_many_is_einval, select_negative_timeout_is_einval,
];

fn entry(fd: i32, events: i16) -> pollfd {
    pollfd { fd, events, revents: 0 }
}

fn poll_one(fd: i32, events: i16, timeout: i32) -> Result<i16, Stop> {
    let mut list = [entry(fd, events)];
    let count = ok!(poll(list.as_mut_ptr(), 1, timeout));
    eq!(count, (list[0].revents != 0) as i32);
    Ok(list[0].revents)
}

fn pipe_readiness() -> Outcome {
    let (reader, writer) = new_pipe(O_NONBLOCK)?;
    eq!(poll_one(reader, POLLIN, 0)?, 0);
    eq!(poll_one(writer, POLLOUT, 0)?, POLLOUT);
    write_fd(writer, b"x");
    eq!(poll_one(reader, POLLIN | POLLOUT, 0)?, POLLIN);
    while write_fd(writer, &[0; 4096]) > 0 {}
    eq!(poll_one(writer, POLLOUT, 0)?, 0);
    Ok(())
}

fn hangup_and_error() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    close_fd(writer);
    eq!(poll_one(reader, POLLIN, 0)?, POLLHUP);
    eq!(poll_one(reader, 0, 0)?, POLLHUP);
    let (reader, writer) = new_pipe(0)?;
    close_fd(reader);
    eq!(poll_one(writer, POLLOUT, 0)?, POLLOUT | POLLERR);
    Ok(())
}

fn bad_descriptor_is_nval() -> Outcome {
    eq!(poll_one(999, POLLIN, 0)?, POLLNVAL);
    Ok(())
}

fn negative_descriptor_is_ignored() -> Outcome {
    let mut list = [entry(-1, POLLIN), entry(-5, POLLOUT)];
    list[0].revents = 77;
    eq!(ok!(poll(list.as_mut_ptr(), 2, 0)), 0);
    eq!(list[0].revents, 0);
    Ok(())
}

fn timeout_expires() -> Outcome {
    let (reader, _writer) = new_pipe(0)?;
    let before = now();
    eq!(poll_one(reader, POLLIN, 50)?, 0);
    check!(now() - before >= 50_000_000);
    let before = now();
    eq!(ok!(poll(std::ptr::null_mut(), 0, 20)), 0);
    check!(now() - before >= 20_000_000);
    Ok(())
}

fn zero_timeout_returns_at_once() -> Outcome {
    let (reader, _writer) = new_pipe(0)?;
    eq!(poll_one(reader, POLLIN, 0)?, 0);
    Ok(())
}

fn write_wakes_a_poller() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| {
        unsafe { usleep(20_000) };
        (write_fd(writer, b"x") != 1) as i32
    });
    eq!(poll_one(reader, POLLIN, -1)?, POLLIN);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn close_wakes_a_poller() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| {
        close_fd(reader);
        unsafe { usleep(20_000) };
        0
    });
    close_fd(writer);
    eq!(poll_one(reader, POLLIN, -1)?, POLLHUP);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn regular_files_are_always_ready() -> Outcome {
    let fd = ok!(open_file("f", O_RDWR | O_CREAT, 0o600));
    eq!(poll_one(fd, POLLIN | POLLOUT, 0)?, POLLIN | POLLOUT);
    Ok(())
}

fn set_of(fds: &[i32]) -> fd_set {
    let mut set = zero::<fd_set>();
    // SAFETY: all descriptors are below FD_SETSIZE.
    fds.iter().for_each(|fd| unsafe { FD_SET(*fd, &mut set) });
    set
}

fn select_reports() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let null = std::ptr::null_mut();
    let (mut reads, mut writes) = (set_of(&[reader]), set_of(&[writer]));
    eq!(ok!(select(writer + 1, &mut reads, &mut writes, null, std::ptr::null_mut())), 1);
    check!(unsafe { !FD_ISSET(reader, &reads) && FD_ISSET(writer, &writes) });
    write_fd(writer, b"x");
    let (mut reads, mut writes) = (set_of(&[reader]), set_of(&[writer]));
    eq!(ok!(select(writer + 1, &mut reads, &mut writes, null, std::ptr::null_mut())), 2);
    check!(unsafe { FD_ISSET(reader, &reads) && FD_ISSET(writer, &writes) });
    Ok(())
}

fn select_timeout() -> Outcome {
    let (reader, _writer) = new_pipe(0)?;
    let mut reads = set_of(&[reader]);
    let before = now();
    let limit = timespec(30_000_000);
    let null = std::ptr::null_mut();
    eq!(ok!(pselect(reader + 1, &mut reads, null, null, &limit, std::ptr::null())), 0);
    check!(now() - before >= 30_000_000);
    check!(unsafe { !FD_ISSET(reader, &reads) });
    Ok(())
}

fn select_bad_descriptor_is_ebadf() -> Outcome {
    // Below 64: Linux ignores descriptors beyond the size of the process's table.
    let mut reads = set_of(&[50]);
    let null = std::ptr::null_mut();
    errno!(select(51, &mut reads, null, null, std::ptr::null_mut()), EBADF);
    errno!(select(-1, null, null, null, std::ptr::null_mut()), EINVAL);
    Ok(())
}

fn select_negative_timeout_is_einval() -> Outcome {
    let limit = libc::timespec { tv_sec: -1, tv_nsec: 0 };
    let null: *mut fd_set = std::ptr::null_mut();
    errno!(pselect(0, null, null, null, &limit, std::ptr::null()), EINVAL);
    errno!(ppoll(std::ptr::null_mut(), 0, &limit, std::ptr::null()), EINVAL);
    Ok(())
}

extern "C" fn nothing(_: i32, _: *mut siginfo_t, _: *mut c_void) {}

fn ppoll_mask_lets_a_signal_in() -> Outcome {
    let mut blocked = zero::<sigset_t>();
    ok!(sigemptyset(&mut blocked));
    let open_mask = blocked;
    ok!(sigaddset(&mut blocked, SIGUSR1));
    ok!(handle(SIGUSR1, nothing, 0));
    ok!(sigprocmask(SIG_BLOCK, &blocked, std::ptr::null_mut()));
    ok!(raise(SIGUSR1));
    errno!(ppoll(std::ptr::null_mut(), 0, std::ptr::null(), &open_mask), EINTR);
    let mut after = zero::<sigset_t>();
    ok!(sigprocmask(SIG_BLOCK, std::ptr::null(), &mut after));
    eq!(ok!(sigismember(&after, SIGUSR1)), 1);
    Ok(())
}

fn signal_interrupts_poll() -> Outcome {
    // Even SA_RESTART does not restart poll: signal(7).
    ok!(handle(SIGALRM, nothing, SA_RESTART));
    let soon = itimerval { it_interval: zero(), it_value: timeval { tv_sec: 0, tv_usec: 30_000 } };
    if unsafe { syscall(SYS_setitimer, ITIMER_REAL, &soon, 0) } != 0 {
        return Err(Stop::Skip("no setitimer".into()));
    }
    errno!(poll(std::ptr::null_mut(), 0, -1), EINTR);
    Ok(())
}

fn too_many_is_einval() -> Outcome {
    let limit = rlimit { rlim_cur: 20, rlim_max: 20 };
    ok!(setrlimit(RLIMIT_NOFILE, &limit));
    let mut list = [entry(-1, 0); 21];
    errno!(poll(list.as_mut_ptr(), 21, 0), EINVAL);
    Ok(())
}
