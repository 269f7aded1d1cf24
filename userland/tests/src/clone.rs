//! clone and clone3 flag by flag, pidfds, process ids and how many there may be.

use crate::check::*;
use libc::*;

cases![clone:
    clone3_sizes, clone3_forbidden, clone_forbidden, exit_signal_is_checked_by_clone3_only, exit_signal_is_sent,
    set_tid_gives_the_number, set_tid_errors, clear_sighand_resets_handlers, into_cgroup_needs_a_cgroup, namespaces_need_rights,
    sibling_by_clone_parent, settid_to_bad_address_does_no_harm, pidfd_of_a_child, pidfd_failure_leaves_no_descriptor,
    pidfd_open_errors, pidfd_ends_with_the_last_thread, pidfd_sends_signals, pidfd_signal_errors, pidfd_by_proc_directory,
    pidfd_getfd_shares_the_file, pidfd_getfd_errors, pidfd_wait, pidfd_info_of_a_dead, pid_wraps_to_300, pid_max_has_limits,
    threads_max_limits, forks_under_a_signal_storm, group_signal_catches_forks, threads_join_a_stop,
    every_allocation_may_fail,
];

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Args {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const SIZE: usize = size_of::<Args>();
const CHLD: u64 = SIGCHLD as u64;
const CLEAR_SIGHAND: u64 = 1 << 32;
const INTO_CGROUP: u64 = 1 << 33;

fn raw(args: &Args, size: usize) -> i32 {
    // SAFETY: without CLONE_VM the child is a copy, as with fork.
    unsafe { syscall(SYS_clone3, args, size) as i32 }
}

/// A child made by clone3 that ends with what `body` returns.
fn spawn(args: &Args, body: impl FnOnce() -> i32) -> i32 {
    match raw(args, SIZE) {
        0 => unsafe { _exit(body()) },
        pid => pid,
    }
}

fn pause_for_ever() -> i32 {
    loop {
        unsafe { pause() };
    }
}

fn clone3_sizes() -> Outcome {
    let args = Args { exit_signal: CHLD, ..Args::default() };
    for size in [0, 8, 63] {
        errno!(raw(&args, size), EINVAL);
    }
    errno!(raw(&args, 4097), E2BIG);
    errno!(syscall(SYS_clone3, 8, SIZE), EFAULT);
    errno!(syscall(SYS_clone3, 8, 32), EINVAL);
    let mut long = [0u64; 512];
    long[4] = CHLD;
    for size in [64, 72, 80, SIZE, SIZE + 8, SIZE + 3, 4096] {
        let pid = unsafe { syscall(SYS_clone3, long.as_ptr(), size) as i32 };
        if pid == 0 {
            unsafe { _exit(5) };
        }
        check!(pid > 0);
        eq!(wait_for(pid), Status::Exited(5));
    }
    long[SIZE / 8] = 1;
    errno!(syscall(SYS_clone3, long.as_ptr(), SIZE + 8), E2BIG);
    long[SIZE / 8] = 0;
    long[511] = 1 << 63;
    errno!(syscall(SYS_clone3, long.as_ptr(), 4096), E2BIG);
    Ok(())
}

fn clone3_forbidden() -> Outcome {
    let f = |flags: i32| flags as u32 as u64;
    let forbidden = [
        Args { flags: 1 << 40, ..Args::default() },
        Args { flags: 1 << 34, ..Args::default() },
        Args { flags: CHLD, ..Args::default() },
        Args { flags: f(CLONE_DETACHED), ..Args::default() },
        Args { flags: f(CLONE_VM | CLONE_SIGHAND) | CLEAR_SIGHAND, ..Args::default() },
        Args { flags: f(CLONE_VM | CLONE_SIGHAND | CLONE_THREAD), exit_signal: CHLD, ..Args::default() },
        Args { flags: f(CLONE_PARENT), exit_signal: CHLD, ..Args::default() },
        Args { stack: 0x10000, ..Args::default() },
        Args { stack_size: 0x1000, ..Args::default() },
        Args { stack: u64::MAX - 4095, stack_size: 4096, ..Args::default() },
        Args { stack: 1 << 62, stack_size: 4096, ..Args::default() },
        Args { exit_signal: 65, ..Args::default() },
        Args { exit_signal: 0x111, ..Args::default() },
        Args { exit_signal: 1 << 32 | CHLD, ..Args::default() },
        Args { flags: f(CLONE_THREAD), ..Args::default() },
        Args { flags: f(CLONE_SIGHAND), ..Args::default() },
        Args { flags: f(CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_PIDFD), ..Args::default() },
        Args { flags: f(CLONE_PIDFD | CLONE_PARENT_SETTID), ..Args::default() },
        Args { flags: f(CLONE_NEWNS | CLONE_FS), ..Args::default() },
        Args { flags: f(CLONE_NEWUSER | CLONE_FS), ..Args::default() },
        Args { flags: f(CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_NEWPID), ..Args::default() },
        Args { flags: f(CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_NEWUSER), ..Args::default() },
        Args { flags: INTO_CGROUP, cgroup: 1 << 31, ..Args::default() },
    ];
    for (i, args) in forbidden.iter().enumerate() {
        let value = raw(args, SIZE);
        let error = std::io::Error::last_os_error().raw_os_error();
        if value == 0 {
            unsafe { _exit(0) };
        }
        if value != -1 || error != Some(EINVAL) {
            fail!("combination {i} gives {value}, {error:?}");
        }
    }
    // What cgroup means is known from the third version on.
    errno!(raw(&Args { flags: INTO_CGROUP, ..Args::default() }, 80), EINVAL);
    Ok(())
}

fn clone_forbidden() -> Outcome {
    let mut number = 0;
    for flags in [
        CLONE_THREAD,
        CLONE_SIGHAND,
        CLONE_THREAD | CLONE_SIGHAND,
        CLONE_NEWNS | CLONE_FS,
        CLONE_NEWUSER | CLONE_FS,
        CLONE_PIDFD | CLONE_DETACHED,
        CLONE_PIDFD | CLONE_PARENT_SETTID,
        CLONE_PIDFD | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM,
    ] {
        errno!(syscall(SYS_clone, flags | SIGCHLD, 0, &raw mut number, 0, 0), EINVAL);
    }
    // Flags without a meaning any more, and bits above 31, are no error.
    let pid = unsafe { syscall(SYS_clone, CLONE_DETACHED as i64 | CLONE_IO as u32 as i64 | 1 << 40 | i64::from(SIGCHLD), 0, 0, 0, 0) } as i32;
    if pid == 0 {
        unsafe { _exit(4) };
    }
    eq!(wait_for(pid), Status::Exited(4));
    Ok(())
}

fn exit_signal_is_checked_by_clone3_only() -> Outcome {
    // Signal 64 would end this process.
    set_disposition(64, SIG_IGN);
    for signal in [0, 64, 65, 255] {
        let pid = unsafe { syscall(SYS_clone, signal, 0, 0, 0, 0) } as i32;
        if pid == 0 {
            unsafe { _exit(3) };
        }
        check!(pid > 0);
        // Not a child to who waits for children that end with SIGCHLD.
        let mut status = 0;
        errno!(waitpid(pid, &mut status, 0), ECHILD);
        eq!(wait_flags(pid, if signal == 0 { __WCLONE } else { __WALL }), Status::Exited(3));
    }
    Ok(())
}

static GOT: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);
static CODE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

extern "C" fn note(_: i32, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel's siginfo.
    unsafe {
        CODE.store((*info).si_code, std::sync::atomic::Ordering::SeqCst);
        GOT.store((*info).si_pid(), std::sync::atomic::Ordering::SeqCst);
    }
}

fn exit_signal_is_sent() -> Outcome {
    ok!(handle(SIGUSR1, note, 0));
    let pid = spawn(&Args { exit_signal: SIGUSR1 as u64, ..Args::default() }, || 0);
    check!(pid > 0);
    eq!(wait_flags(pid, __WCLONE), Status::Exited(0));
    eq!(GOT.load(std::sync::atomic::Ordering::SeqCst), pid);
    eq!(CODE.load(std::sync::atomic::Ordering::SeqCst), CLD_EXITED);
    Ok(())
}

/// A number that no process has.
fn free_number() -> Result<i32, Stop> {
    for number in (20_000..32_000).rev() {
        if unsafe { kill(number, 0) } == -1 && std::io::Error::last_os_error().raw_os_error() == Some(ESRCH) {
            return Ok(number);
        }
    }
    fail!("no free number")
}

fn set_tid_gives_the_number() -> Outcome {
    let want = free_number()?;
    let args = Args { exit_signal: CHLD, set_tid: &raw const want as u64, set_tid_size: 1, ..Args::default() };
    let pid = spawn(&args, || (unsafe { getpid() } != want) as i32);
    eq!(pid, want);
    // Taken as long as the zombie is there.
    errno!(raw(&args, SIZE), EEXIST);
    eq!(wait_for(pid), Status::Exited(0));
    eq!(spawn(&args, || 1), want);
    eq!(wait_for(want), Status::Exited(1));
    Ok(())
}

fn set_tid_errors() -> Outcome {
    let with = |number: i32, size: u64, user: bool| {
        in_child(|| {
            if user {
                ok!(setresuid(5, 5, 5));
            }
            let ids = [number; 40];
            let args = Args { exit_signal: CHLD, set_tid: ids.as_ptr() as u64, set_tid_size: size, ..Args::default() };
            let pid = raw(&args, SIZE);
            if pid == 0 {
                unsafe { _exit(0) };
            }
            eq!(pid, -1);
            fail!("{}", std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
        })
    };
    let free = free_number()?;
    for (number, size, user, want) in [
        (unsafe { getpid() }, 1, false, EEXIST),
        (1, 1, false, EEXIST),
        (0, 1, false, EINVAL),
        (-1, 1, false, EINVAL),
        (i32::MAX, 1, false, EINVAL),
        (free, 2, false, EINVAL),
        (free, 33, false, EINVAL),
        (free, 1, true, EPERM),
        (0, 1, true, EINVAL),
    ] {
        match with(number, size, user) {
            Err(Stop::Fail(text)) if text.ends_with(&format!(": {want}")) => {}
            Err(Stop::Fail(text)) => fail!("{number} of {size}: {text}, not {want}"),
            _ => fail!("{number} of {size} worked"),
        }
    }
    errno!(raw(&Args { set_tid: 0, set_tid_size: 1, ..Args::default() }, SIZE), EINVAL);
    errno!(raw(&Args { set_tid: 0x1000, set_tid_size: 0, ..Args::default() }, SIZE), EINVAL);
    errno!(raw(&Args { set_tid: 8, set_tid_size: 1, ..Args::default() }, SIZE), EFAULT);
    Ok(())
}

fn clear_sighand_resets_handlers() -> Outcome {
    ok!(handle(SIGUSR1, note, 0));
    set_disposition(SIGUSR2, SIG_IGN);
    let action = |signal| {
        let mut now = zero::<sigaction>();
        unsafe { sigaction(signal, std::ptr::null(), &mut now) };
        now.sa_sigaction
    };
    let pid = spawn(&Args { flags: CLEAR_SIGHAND, exit_signal: CHLD, ..Args::default() }, || {
        i32::from(action(SIGUSR1) != SIG_DFL) + 2 * i32::from(action(SIGUSR2) != SIG_IGN)
    });
    eq!(wait_for(pid), Status::Exited(0));
    check!(action(SIGUSR1) != SIG_DFL);
    Ok(())
}

fn into_cgroup_needs_a_cgroup() -> Outcome {
    let fd = ok!(open_file("/", O_RDONLY | O_DIRECTORY, 0));
    for fd in [fd as u64, 999] {
        errno!(raw(&Args { flags: INTO_CGROUP, exit_signal: CHLD, cgroup: fd, ..Args::default() }, SIZE), EBADF);
    }
    Ok(())
}

fn namespaces_need_rights() -> Outcome {
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        for flag in [CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP] {
            errno!(syscall(SYS_clone, flag | SIGCHLD, 0, 0, 0, 0), EPERM);
        }
        Ok(())
    })
}

fn sibling_by_clone_parent() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let me = unsafe { getpid() };
    let maker = fork_child(|| {
        let pid = unsafe { syscall(SYS_clone, CLONE_PARENT, 0, 0, 0, 0) } as i32;
        if pid == 0 {
            unsafe { _exit(if getppid() == me { 6 } else { 7 }) };
        }
        write_fd(writer, &pid.to_le_bytes());
        let mut status = 0;
        (unsafe { waitpid(pid, &mut status, 0) } != -1) as i32
    });
    let mut data = [0; 4];
    eq!(read_fd(reader, &mut data), 4);
    eq!(wait_for(maker), Status::Exited(0));
    // It ends with its maker's signal, SIGCHLD, whatever the flags say.
    eq!(wait_for(i32::from_le_bytes(data)), Status::Exited(6));
    Ok(())
}

fn settid_to_bad_address_does_no_harm() -> Outcome {
    let flags = CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
    let pid = unsafe { syscall(SYS_clone, flags | SIGCHLD, 0, 8, 0, 16) } as i32;
    if pid == 0 {
        unsafe { _exit(2) };
    }
    check!(pid > 0);
    eq!(wait_for(pid), Status::Exited(2));
    let mut number = 0i32;
    let pid = unsafe { syscall(SYS_clone, CLONE_PARENT_SETTID | SIGCHLD, 0, &raw mut number, 0, 0) } as i32;
    if pid == 0 {
        unsafe { _exit(2) };
    }
    eq!(number, pid);
    eq!(wait_for(pid), Status::Exited(2));
    Ok(())
}

fn open_pidfd(pid: i32, flags: u32) -> i32 {
    unsafe { syscall(SYS_pidfd_open, pid, flags) as i32 }
}

fn readable(fd: i32, milliseconds: i32) -> i32 {
    let mut set = pollfd { fd, events: POLLIN | POLLOUT, revents: 0 };
    match unsafe { poll(&mut set, 1, milliseconds) } {
        1 => set.revents.into(),
        other => other,
    }
}

fn pidfd_of_a_child() -> Outcome {
    let mut fd = -1i32;
    let (gate, open_gate) = new_pipe(0)?;
    let args = Args { flags: CLONE_PIDFD as u64, pidfd: &raw mut fd as u64, exit_signal: CHLD, ..Args::default() };
    let pid = spawn(&args, || {
        close_fd(open_gate);
        read_fd(gate, &mut [0; 1]);
        // The child has no such descriptor.
        (unsafe { fcntl(fd, F_GETFD) } != -1) as i32
    });
    check!(pid > 0 && fd > 2);
    eq!(ok!(fcntl(fd, F_GETFD)), FD_CLOEXEC);
    eq!(ok!(fcntl(fd, F_GETFL)) & (O_ACCMODE | O_NONBLOCK), O_RDWR);
    let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).map_err(|e| Stop::Fail(e.to_string()))?;
    eq!(name.to_string_lossy(), "anon_inode:[pidfd]");
    let info = String::from_utf8_lossy(&content(&format!("/proc/self/fdinfo/{fd}"))?).into_owned();
    check!(info.contains(&format!("\nPid:\t{pid}\nNSpid:\t{pid}\n")));
    errno!(read(fd, (&raw mut fd).cast(), 4), EINVAL);
    errno!(lseek(fd, 0, SEEK_SET), ESPIPE);
    eq!(readable(fd, 0), 0);
    close_fd(open_gate);
    eq!(readable(fd, 10_000), POLLIN.into());
    eq!(wait_for(pid), Status::Exited(0));
    eq!(readable(fd, 0), POLLIN.into());
    Ok(())
}

fn pidfd_failure_leaves_no_descriptor() -> Outcome {
    let next = ok!(dup(0));
    close_fd(next);
    errno!(syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, 0, 8, 0, 0), EFAULT);
    errno!(raw(&Args { flags: CLONE_PIDFD as u64, pidfd: 8, exit_signal: CHLD, ..Args::default() }, SIZE), EFAULT);
    let mut fd = -1i32;
    // What fails after the descriptor's number was told.
    let args = Args { flags: CLONE_PIDFD as u64 | INTO_CGROUP, pidfd: &raw mut fd as u64, cgroup: 999, ..Args::default() };
    errno!(raw(&args, SIZE), EBADF);
    eq!(ok!(dup(0)), next);
    let full = rlimit { rlim_cur: 3, rlim_max: 4096 };
    ok!(setrlimit(RLIMIT_NOFILE, &full));
    errno!(syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, 0, &raw mut fd, 0, 0), EMFILE);
    let mut status = 0;
    errno!(waitpid(-1, &mut status, __WALL), ECHILD);
    Ok(())
}

fn pidfd_open_errors() -> Outcome {
    errno!(open_pidfd(0, 0), EINVAL);
    errno!(open_pidfd(-5, 0), EINVAL);
    errno!(open_pidfd(1, 1), EINVAL);
    errno!(open_pidfd(free_number()?, 0), ESRCH);
    errno!(open_pidfd(free_number()?, 1), EINVAL);
    let tid = std::thread::spawn(|| {
        let tid = unsafe { gettid() };
        let fd = open_pidfd(tid, 0);
        (fd, std::io::Error::last_os_error().raw_os_error())
    })
    .join();
    match tid {
        Ok(answer) => eq!(answer, (-1, Some(EINVAL))),
        Err(_) => fail!("no thread"),
    }
    let fd = ok!(open_pidfd(getpid(), O_NONBLOCK as u32));
    check!(ok!(fcntl(fd, F_GETFL)) & O_NONBLOCK != 0);
    eq!(readable(fd, 0), 0);
    let zombie = fork_child(|| 0);
    let mut info = zero::<siginfo_t>();
    ok!(waitid(P_PID, zombie as u32, &mut info, WEXITED | WNOWAIT));
    eq!(readable(ok!(open_pidfd(zombie, 0)), 0), POLLIN.into());
    wait_for(zombie);
    Ok(())
}

fn pidfd_ends_with_the_last_thread() -> Outcome {
    let (gate, open_gate) = new_pipe(0)?;
    let (ready, is_ready) = new_pipe(0)?;
    let pid = fork_child(|| {
        close_fd(open_gate);
        std::thread::spawn(move || {
            write_fd(is_ready, b"x");
            read_fd(gate, &mut [0; 1]);
            unsafe { syscall(SYS_exit, 9) };
        });
        unsafe { syscall(SYS_exit, 8) };
        0
    });
    let fd = ok!(open_pidfd(pid, 0));
    eq!(read_fd(ready, &mut [0; 1]), 1);
    // The leader is a zombie by now or soon, the process is not.
    let mut info = zero::<siginfo_t>();
    for _ in 0..1000 {
        let stat = String::from_utf8_lossy(&content(&format!("/proc/{pid}/stat"))?).into_owned();
        if stat.contains(") Z ") {
            break;
        }
        unsafe { usleep(1000) };
    }
    eq!(readable(fd, 0), 0);
    ok!(waitid(P_PID, pid as u32, &mut info, WEXITED | WNOHANG));
    eq!(unsafe { info.si_pid() }, 0);
    close_fd(open_gate);
    eq!(readable(fd, 10_000), POLLIN.into());
    // The last thread's status is the process's.
    eq!(wait_for(pid), Status::Exited(9));
    Ok(())
}

fn send(fd: i32, signal: i32, info: *const siginfo_t, flags: u32) -> i64 {
    unsafe { syscall(SYS_pidfd_send_signal, fd, signal, info, flags) }
}

const NO_INFO: *const siginfo_t = std::ptr::null();

fn pidfd_sends_signals() -> Outcome {
    let pid = fork_child(pause_for_ever);
    let fd = ok!(open_pidfd(pid, 0));
    ok!(send(fd, 0, NO_INFO, 0));
    ok!(send(fd, SIGTERM, NO_INFO, 0));
    eq!(wait_for(pid), Status::Killed(SIGTERM));
    errno!(send(fd, SIGTERM, NO_INFO, 0), ESRCH);
    errno!(send(fd, 0, NO_INFO, 0), ESRCH);
    // With a cause of one's own making.
    ok!(handle(SIGUSR1, note, 0));
    let fd = ok!(open_pidfd(getpid(), 0));
    let mut info = zero::<siginfo_t>();
    info.si_signo = SIGUSR1;
    info.si_code = 77;
    ok!(send(fd, SIGUSR1, &info, 0));
    eq!(CODE.load(std::sync::atomic::Ordering::SeqCst), 77);
    Ok(())
}

fn pidfd_signal_errors() -> Outcome {
    let pid = fork_child(pause_for_ever);
    let fd = ok!(open_pidfd(pid, 0));
    let file = ok!(open_file("/dev/null", O_RDWR, 0));
    errno!(send(fd, SIGTERM, NO_INFO, 1), EINVAL);
    errno!(send(999, SIGTERM, NO_INFO, 0), EBADF);
    errno!(send(-1, SIGTERM, NO_INFO, 0), EBADF);
    errno!(send(file, SIGTERM, NO_INFO, 0), EBADF);
    errno!(send(fd, 65, NO_INFO, 0), EINVAL);
    errno!(send(fd, SIGTERM, 8 as *const siginfo_t, 0), EFAULT);
    let mut info = zero::<siginfo_t>();
    info.si_signo = SIGUSR1;
    info.si_code = SI_QUEUE;
    errno!(send(fd, SIGTERM, &info, 0), EINVAL);
    for code in [0, 5, SI_TKILL] {
        info.si_code = code;
        errno!(send(fd, SIGUSR1, &info, 0), EPERM);
    }
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        errno!(send(fd, SIGTERM, NO_INFO, 0), EPERM);
        errno!(send(fd, 0, NO_INFO, 0), EPERM);
        Ok(())
    })?;
    ok!(kill(pid, SIGKILL));
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    Ok(())
}

fn pidfd_by_proc_directory() -> Outcome {
    let pid = fork_child(pause_for_ever);
    let dir = ok!(open_file(&format!("/proc/{pid}"), O_RDONLY | O_DIRECTORY, 0));
    let path_only = ok!(open_file(&format!("/proc/{pid}"), O_PATH, 0));
    let thread = ok!(open_file(&format!("/proc/{pid}/task/{pid}"), O_RDONLY | O_DIRECTORY, 0));
    let root = ok!(open_file("/proc", O_RDONLY | O_DIRECTORY, 0));
    for fd in [path_only, thread, root] {
        errno!(send(fd, 0, NO_INFO, 0), EBADF);
    }
    ok!(send(dir, SIGKILL, NO_INFO, 0));
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    errno!(send(dir, SIGKILL, NO_INFO, 0), ESRCH);
    // It is no pidfd to any other call.
    let mut info = zero::<siginfo_t>();
    errno!(waitid(P_PIDFD, dir as u32, &mut info, WEXITED), EBADF);
    Ok(())
}

fn getfd(pidfd: i32, fd: i32, flags: u32) -> i32 {
    unsafe { syscall(SYS_pidfd_getfd, pidfd, fd, flags) as i32 }
}

fn pidfd_getfd_shares_the_file() -> Outcome {
    make("f", b"0123456789")?;
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| {
        let fd = open_file("f", O_RDONLY, 0);
        read_fd(fd, &mut [0; 4]);
        write_fd(writer, &fd.to_le_bytes());
        pause_for_ever()
    });
    let mut data = [0; 4];
    eq!(read_fd(reader, &mut data), 4);
    let pidfd = ok!(open_pidfd(pid, 0));
    let fd = ok!(getfd(pidfd, i32::from_le_bytes(data), 0));
    eq!(ok!(fcntl(fd, F_GETFD)), FD_CLOEXEC);
    eq!(ok!(lseek(fd, 0, SEEK_CUR)), 4);
    errno!(getfd(pidfd, 999, 0), EBADF);
    errno!(getfd(pidfd, -1, 0), EBADF);
    ok!(kill(pid, SIGKILL));
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    errno!(getfd(pidfd, 0, 0), ESRCH);
    Ok(())
}

fn pidfd_getfd_errors() -> Outcome {
    let pidfd = ok!(open_pidfd(getppid(), 0));
    errno!(getfd(pidfd, 0, 1), EINVAL);
    errno!(getfd(0, 0, 0), EBADF);
    errno!(getfd(-1, 0, 0), EBADF);
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        errno!(getfd(pidfd, 0, 0), EPERM);
        errno!(getfd(pidfd, 999, 0), EPERM);
        Ok(())
    })
}

fn pidfd_wait() -> Outcome {
    let mut info = zero::<siginfo_t>();
    let pid = fork_child(pause_for_ever);
    let fd = ok!(open_pidfd(pid, O_NONBLOCK as u32));
    errno!(waitid(P_PIDFD, fd as u32, &mut info, WEXITED), EAGAIN);
    ok!(waitid(P_PIDFD, fd as u32, &mut info, WEXITED | WNOHANG));
    eq!(unsafe { info.si_pid() }, 0);
    errno!(waitid(P_PIDFD, 0, &mut info, WEXITED), EBADF);
    errno!(waitid(P_PIDFD, 999, &mut info, WEXITED), EBADF);
    errno!(waitid(P_PIDFD, u32::MAX, &mut info, WEXITED), EINVAL);
    errno!(waitid(P_PIDFD, fd as u32, &mut info, 0), EINVAL);
    let own = ok!(open_pidfd(getpid(), 0));
    errno!(waitid(P_PIDFD, own as u32, &mut info, WEXITED), ECHILD);
    ok!(kill(pid, SIGKILL));
    let blocking = ok!(open_pidfd(pid, 0));
    ok!(waitid(P_PIDFD, blocking as u32, &mut info, WEXITED));
    eq!((unsafe { info.si_pid() }, info.si_code), (pid, CLD_KILLED));
    errno!(waitid(P_PIDFD, blocking as u32, &mut info, WEXITED), ECHILD);
    Ok(())
}

fn pidfd_info_of_a_dead() -> Outcome {
    let pid = fork_child(|| 0);
    let fd = ok!(open_pidfd(pid, 0));
    wait_for(pid);
    let info = String::from_utf8_lossy(&content(&format!("/proc/self/fdinfo/{fd}"))?).into_owned();
    check!(info.contains("\nPid:\t-1\nNSpid:\t-1\n"));
    Ok(())
}

const LAST: &str = "/proc/sys/kernel/ns_last_pid";
const MAX: &str = "/proc/sys/kernel/pid_max";

fn number_in(path: &str) -> Result<i64, Stop> {
    String::from_utf8_lossy(&content(path)?).trim().parse().map_err(|_| Stop::Fail(format!("{path} is no number")))
}

fn pid_wraps_to_300() -> Outcome {
    let (last, max) = (number_in(LAST)?, number_in(MAX)?);
    make(LAST, (max - 2).to_string().as_bytes())?;
    let first = fork_child(|| 0);
    let second = fork_child(|| 0);
    let told = number_in(LAST)?;
    make(LAST, last.to_string().as_bytes())?;
    eq!((wait_for(first), wait_for(second)), (Status::Exited(0), Status::Exited(0)));
    // A kernel thread may have taken one in between.
    check!(first == (max - 1) as i32 || first >= 300);
    check!(second >= 300 && (second as i64) < max - 1);
    check!(told >= second as i64);
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        let fd = ok!(open_file(LAST, O_WRONLY, 0));
        errno!(write_fd(fd, b"500"), EPERM);
        Ok(())
    })
}

fn pid_max_has_limits() -> Outcome {
    let max = number_in(MAX)?;
    let fd = ok!(open_file(MAX, O_RDWR, 0));
    for bad in ["300", "0", "4194305", "x"] {
        errno!(write_fd(fd, bad.as_bytes()), EINVAL);
        ok!(lseek(fd, 0, SEEK_SET));
    }
    eq!(number_in(MAX)?, max);
    eq!(write_fd(fd, b"4194304\n"), 8);
    eq!(number_in(MAX)?, 4_194_304);
    make(MAX, max.to_string().as_bytes())
}

fn threads_max_limits() -> Outcome {
    const THREADS: &str = "/proc/sys/kernel/threads-max";
    let max = number_in(THREADS)?;
    check!(max > 20);
    let fd = ok!(open_file(THREADS, O_RDWR, 0));
    errno!(write_fd(fd, b"0"), EINVAL);
    ok!(lseek(fd, 0, SEEK_SET));
    // Also for root.
    eq!(write_fd(fd, b"1"), 1);
    let pid = fork_child(|| 0);
    let error = std::io::Error::last_os_error().raw_os_error();
    make(THREADS, max.to_string().as_bytes())?;
    eq!((pid, error), (-1, Some(EAGAIN)));
    eq!(child(|| 7), Status::Exited(7));
    Ok(())
}

static ALARMS: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

extern "C" fn count_alarm(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    ALARMS.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
}

fn forks_under_a_signal_storm() -> Outcome {
    ok!(handle(SIGALRM, count_alarm, 0));
    let every = timeval { tv_sec: 0, tv_usec: 2000 };
    let timer = itimerval { it_interval: every, it_value: every };
    let mut left = zero::<itimerval>();
    ok!(setitimer(ITIMER_REAL, &timer, &mut left));
    for i in 0..60 {
        // No fork is ever seen to be interrupted.
        let pid = fork_child(|| i);
        check!(pid > 0);
        eq!(wait_for(pid), Status::Exited(i));
    }
    ok!(setitimer(ITIMER_REAL, &left, std::ptr::null_mut()));
    check!(ALARMS.load(std::sync::atomic::Ordering::SeqCst) > 0);
    Ok(())
}

fn group_signal_catches_forks() -> Outcome {
    for _ in 0..5 {
        let (reader, writer) = new_pipe(0)?;
        let leader = fork_child(|| {
            unsafe { setpgid(0, 0) };
            write_fd(writer, b"x");
            set_disposition(SIGCHLD, SIG_IGN);
            // Two lines of processes, each of which makes its successor and ends.
            for _ in 0..2 {
                if unsafe { fork() } == 0 {
                    loop {
                        if unsafe { fork() } > 0 {
                            unsafe { _exit(0) };
                        }
                    }
                }
            }
            pause_for_ever()
        });
        close_fd(writer);
        eq!(read_fd(reader, &mut [0; 1]), 1);
        unsafe { usleep(20_000) };
        ok!(kill(-leader, SIGKILL));
        eq!(wait_for(leader), Status::Killed(SIGKILL));
        // Every process of the group holds the pipe.
        eq!(read_fd(reader, &mut [0; 1]), 0);
        close_fd(reader);
    }
    Ok(())
}

fn threads_join_a_stop() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| {
        write_fd(writer, b"x");
        loop {
            let _ = std::thread::spawn(|| ()).join();
        }
    });
    eq!(read_fd(reader, &mut [0; 1]), 1);
    for _ in 0..20 {
        ok!(kill(pid, SIGSTOP));
        eq!(wait_flags(pid, WUNTRACED), Status::Stopped(SIGSTOP));
        ok!(kill(pid, SIGCONT));
        eq!(wait_flags(pid, WCONTINUED), Status::Continued);
    }
    ok!(kill(pid, SIGKILL));
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    Ok(())
}

/// How many threads there are, zombies too.
fn thread_count() -> Result<i64, Stop> {
    let text = String::from_utf8_lossy(&content("/proc/loadavg")?).into_owned();
    let count = text.split_whitespace().nth(3).and_then(|part| part.split('/').nth(1));
    count.and_then(|n| n.parse().ok()).ok_or(Stop::Fail("no count in /proc/loadavg".into()))
}

fn every_allocation_may_fail() -> Outcome {
    let path = format!("/proc/self/task/{}/fail-nth", unsafe { gettid() });
    let fd = open_file(&path, O_RDWR, 0);
    if fd < 0 {
        return Err(Stop::Skip("no fault injection in this kernel".into()));
    }
    let before = thread_count()?;
    let next = ok!(dup(0));
    close_fd(next);
    let mut pidfd = -1i32;
    let fork = Args { exit_signal: CHLD, ..Args::default() };
    let with_pidfd = Args { flags: CLONE_PIDFD as u64, pidfd: &raw mut pidfd as u64, exit_signal: CHLD, ..Args::default() };
    let vfork = Args { flags: CLONE_VFORK as u64, exit_signal: CHLD, ..Args::default() };
    for (kind, args) in [fork, with_pidfd, vfork].iter().enumerate() {
        let (mut failures, mut successes) = (0, 0);
        for n in 1..500 {
            let text = n.to_string();
            write_fd(fd, text.as_bytes());
            let pid = raw(args, SIZE);
            if pid == 0 {
                unsafe { _exit(3) };
            }
            let error = std::io::Error::last_os_error().raw_os_error();
            ok!(lseek(fd, 0, SEEK_SET));
            write_fd(fd, b"0");
            if pid == -1 {
                eq!((kind, n, error), (kind, n, Some(ENOMEM)));
                failures += 1;
                successes = 0;
                let mut status = 0;
                errno!(waitpid(-1, &mut status, __WALL | WNOHANG), ECHILD);
                continue;
            }
            eq!(wait_for(pid), Status::Exited(3));
            if args.flags & CLONE_PIDFD as u64 != 0 {
                close_fd(pidfd);
            }
            // Some allocations may fail without harm, but not so many in a row.
            successes += 1;
            if successes > 5 {
                break;
            }
        }
        check!(failures > 10);
        eq!(ok!(dup(0)), next);
        close_fd(next);
    }
    let after = thread_count()?;
    check!(after <= before + 2);
    Ok(())
}
