//! fork, vfork, clone, exit and the wait family; orphans.

use crate::check::*;
use libc::*;

cases![process:
    exit_status_is_a_byte, wait_without_child_is_echild, wait_nohang_is_zero, wait_reports_signal, wait_for_any_and_one,
    wait_for_group, wait_untraced_and_continued, waitid_reports, waitid_nowait_leaves_it, waitid_errors, wait_status_may_be_null,
    fork_gives_new_pid, fork_copies_descriptors, fork_clears_pending_signals, vfork_shares_until_exit, orphan_goes_to_init,
    zombie_keeps_its_pid, exit_group_ends_threads, many_children_at_once, deep_chain, clone_bad_flags_is_einval,
    getppid_follows, rusage_of_children, nproc_limit_is_eagain, exit_closes_descriptors, wait_wakes_on_exit,
    sigchld_ignored_reaps_itself, pdeathsig_is_sent, child_of_thread_directory_is_copied,
];

fn exit_status_is_a_byte() -> Outcome {
    for (given, seen) in [(0, 0), (1, 1), (255, 255), (256, 0), (-1, 255), (0x1234, 0x34)] {
        eq!(child(|| given), Status::Exited(seen));
    }
    Ok(())
}

fn wait_without_child_is_echild() -> Outcome {
    let mut raw = 0;
    errno!(waitpid(-1, &mut raw, 0), ECHILD);
    errno!(waitpid(getpid(), &mut raw, 0), ECHILD);
    errno!(waitpid(1, &mut raw, WNOHANG), ECHILD);
    errno!(waitpid(-1, &mut raw, 0x40), EINVAL);
    Ok(())
}

/// A child that sleeps until it is killed.
fn sleeper() -> i32 {
    fork_child(|| loop {
        unsafe { pause() };
    })
}

fn wait_nohang_is_zero() -> Outcome {
    let pid = sleeper();
    let mut raw = 77;
    eq!(ok!(waitpid(pid, &mut raw, WNOHANG)), 0);
    ok!(kill(pid, SIGKILL));
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    Ok(())
}

fn wait_reports_signal() -> Outcome {
    for signal in [SIGTERM, SIGKILL, SIGUSR1, SIGALRM] {
        let pid = sleeper();
        ok!(kill(pid, signal));
        eq!(wait_for(pid), Status::Killed(signal));
    }
    Ok(())
}

fn wait_for_any_and_one() -> Outcome {
    let (one, two) = (fork_child(|| 1), fork_child(|| 2));
    eq!(wait_for(two), Status::Exited(2));
    let mut raw = 0;
    eq!(ok!(waitpid(-1, &mut raw, 0)), one);
    eq!(status(raw), Status::Exited(1));
    Ok(())
}

fn wait_for_group() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| {
        unsafe { setpgid(0, 0) };
        write_fd(writer, b"x");
        7
    });
    let other = fork_child(|| 8);
    eq!(read_fd(reader, &mut [0; 1]), 1);
    let mut raw = 0;
    eq!(ok!(waitpid(-pid, &mut raw, 0)), pid);
    eq!(status(raw), Status::Exited(7));
    errno!(waitpid(-pid, &mut raw, 0), ECHILD);
    // 0 is the caller's own group.
    eq!(ok!(waitpid(0, &mut raw, 0)), other);
    Ok(())
}

fn wait_untraced_and_continued() -> Outcome {
    let pid = sleeper();
    ok!(kill(pid, SIGSTOP));
    eq!(wait_flags(pid, WUNTRACED), Status::Stopped(SIGSTOP));
    // Reported once only.
    eq!(wait_flags(pid, WUNTRACED | WNOHANG), Status::None);
    ok!(kill(pid, SIGCONT));
    eq!(wait_flags(pid, WCONTINUED), Status::Continued);
    ok!(kill(pid, SIGKILL));
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    Ok(())
}

fn waitid_reports() -> Outcome {
    let pid = fork_child(|| 5);
    let mut info = zero::<siginfo_t>();
    ok!(waitid(P_PID, pid as u32, &mut info, WEXITED));
    unsafe {
        eq!((info.si_signo, info.si_code), (SIGCHLD, CLD_EXITED));
        eq!((info.si_pid(), info.si_uid(), info.si_status()), (pid, 0, 5));
    }
    let pid = sleeper();
    ok!(kill(pid, SIGKILL));
    ok!(waitid(P_ALL, 0, &mut info, WEXITED));
    unsafe {
        eq!((info.si_code, info.si_pid(), info.si_status()), (CLD_KILLED, pid, SIGKILL));
    }
    Ok(())
}

fn waitid_nowait_leaves_it() -> Outcome {
    let pid = fork_child(|| 5);
    let mut info = zero::<siginfo_t>();
    ok!(waitid(P_PID, pid as u32, &mut info, WEXITED | WNOWAIT));
    eq!(unsafe { info.si_pid() }, pid);
    eq!(wait_for(pid), Status::Exited(5));
    let pid = sleeper();
    info.si_signo = 99;
    ok!(waitid(P_PID, pid as u32, &mut info, WEXITED | WNOHANG));
    eq!((info.si_signo, unsafe { info.si_pid() }), (0, 0));
    ok!(kill(pid, SIGKILL));
    wait_for(pid);
    Ok(())
}

fn waitid_errors() -> Outcome {
    let mut info = zero::<siginfo_t>();
    errno!(waitid(P_ALL, 0, &mut info, 0), EINVAL);
    errno!(waitid(P_ALL, 0, &mut info, WEXITED), ECHILD);
    errno!(waitid(P_PID, 0, &mut info, WEXITED), EINVAL);
    errno!(waitid(99, 0, &mut info, WEXITED), EINVAL);
    Ok(())
}

fn wait_status_may_be_null() -> Outcome {
    let pid = fork_child(|| 5);
    eq!(ok!(waitpid(pid, std::ptr::null_mut(), 0)), pid);
    Ok(())
}

fn fork_gives_new_pid() -> Outcome {
    let parent = unsafe { getpid() };
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| unsafe {
        write_fd(writer, &getpid().to_le_bytes());
        (getppid() != parent || getpid() == parent || gettid() != getpid()) as i32
    });
    let mut data = [0; 4];
    eq!(read_fd(reader, &mut data), 4);
    eq!(i32::from_le_bytes(data), pid);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn fork_copies_descriptors() -> Outcome {
    let fd = ok!(open_file("f", O_CREAT | O_RDWR, 0o600));
    eq!(child(|| { close_fd(fd); 0 }), Status::Exited(0));
    eq!(write_fd(fd, b"still open"), 10);
    Ok(())
}

fn fork_clears_pending_signals() -> Outcome {
    let mut set = zero::<sigset_t>();
    ok!(sigemptyset(&mut set));
    ok!(sigaddset(&mut set, SIGUSR1));
    ok!(sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut()));
    ok!(raise(SIGUSR1));
    let pending = || {
        let mut have = zero::<sigset_t>();
        unsafe {
            sigpending(&mut have);
            sigismember(&have, SIGUSR1)
        }
    };
    eq!(pending(), 1);
    eq!(child(pending), Status::Exited(0));
    Ok(())
}

fn vfork_shares_until_exit() -> Outcome {
    static mut SHARED: i32 = 0;
    // SAFETY: the child only stores and exits; the parent sleeps meanwhile.
    unsafe {
        let pid = syscall(SYS_clone, CLONE_VFORK | CLONE_VM | SIGCHLD, stack_for_child()?, 0, 0, 0);
        if pid == 0 {
            // Long enough for a parent that does not wait.
            static PAUSE: timespec = timespec { tv_sec: 0, tv_nsec: 40_000_000 };
            syscall(SYS_nanosleep, &PAUSE, 0);
            (&raw mut SHARED).write_volatile(42);
            syscall(SYS_exit, 3);
        }
        check!(pid > 0);
        eq!((&raw const SHARED).read_volatile(), 42);
        eq!(wait_for(pid as i32), Status::Exited(3));
    }
    Ok(())
}

/// 0: a vfork child runs on its parent's stack.
fn stack_for_child() -> Result<usize, Stop> {
    Ok(0)
}

fn orphan_goes_to_init() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let (gate, open_gate) = new_pipe(0)?;
    let middle = fork_child(|| {
        fork_child(|| {
            close_fd(open_gate);
            // Ends when the case, seeing the middle one gone, closes the gate.
            read_fd(gate, &mut [0; 1]);
            write_fd(writer, &unsafe { getppid() }.to_le_bytes());
            0
        });
        0
    });
    eq!(wait_for(middle), Status::Exited(0));
    close_fd(open_gate);
    close_fd(writer);
    let mut data = [0; 4];
    eq!(read_fd(reader, &mut data), 4);
    eq!(i32::from_le_bytes(data), 1);
    Ok(())
}

fn zombie_keeps_its_pid() -> Outcome {
    let pid = fork_child(|| 0);
    let mut info = zero::<siginfo_t>();
    ok!(waitid(P_PID, pid as u32, &mut info, WEXITED | WNOWAIT));
    ok!(kill(pid, 0));
    let line = String::from_utf8_lossy(&content(&format!("/proc/{pid}/stat"))?).into_owned();
    check!(line.contains(") Z "));
    wait_for(pid);
    errno!(kill(pid, 0), ESRCH);
    Ok(())
}

fn exit_group_ends_threads() -> Outcome {
    let ended = child(|| {
        for _ in 0..4 {
            std::thread::spawn(|| loop {
                std::hint::spin_loop();
            });
        }
        unsafe { _exit(9) }
    });
    eq!(ended, Status::Exited(9));
    Ok(())
}

fn many_children_at_once() -> Outcome {
    let children: Vec<i32> = (0..100).map(|i| fork_child(|| i)).collect();
    for (i, pid) in children.into_iter().enumerate() {
        eq!(wait_for(pid), Status::Exited(i as i32));
    }
    Ok(())
}

fn deep_chain() -> Outcome {
    fn nest(depth: i32) -> i32 {
        if depth == 0 {
            return 0;
        }
        match child(|| nest(depth - 1)) {
            Status::Exited(below) => below + 1,
            _ => 255,
        }
    }
    eq!(nest(50), 50);
    Ok(())
}

fn clone_bad_flags_is_einval() -> Outcome {
    errno!(syscall(SYS_clone, CLONE_THREAD | SIGCHLD, 0, 0, 0, 0), EINVAL);
    errno!(syscall(SYS_clone, CLONE_SIGHAND | SIGCHLD, 0, 0, 0, 0), EINVAL);
    errno!(syscall(SYS_clone, CLONE_FS | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0), EINVAL);
    Ok(())
}

fn getppid_follows() -> Outcome {
    let me = unsafe { getpid() };
    eq!(child(|| (unsafe { getppid() } != me) as i32), Status::Exited(0));
    Ok(())
}

fn rusage_of_children() -> Outcome {
    eq!(
        child(|| {
            let start = clock(CLOCK_PROCESS_CPUTIME_ID);
            while clock(CLOCK_PROCESS_CPUTIME_ID) - start < 50_000_000 {}
            0
        }),
        Status::Exited(0)
    );
    let mut usage = zero::<rusage>();
    ok!(getrusage(RUSAGE_CHILDREN, &mut usage));
    let micros = |at: timeval| at.tv_sec * 1_000_000 + at.tv_usec;
    check!(micros(usage.ru_utime) + micros(usage.ru_stime) >= 40_000);
    let mut ticks = zero::<tms>();
    ok!(times(&mut ticks));
    check!(ticks.tms_cutime + ticks.tms_cstime >= 4);
    errno!(getrusage(99, &mut usage), EINVAL);
    Ok(())
}

fn nproc_limit_is_eagain() -> Outcome {
    in_child(|| {
        ok!(setresuid(4242, 4242, 4242));
        let limit = rlimit { rlim_cur: 3, rlim_max: 3 };
        ok!(setrlimit(RLIMIT_NPROC, &limit));
        let (one, two) = (sleeper(), sleeper());
        check!(one > 0 && two > 0);
        errno!(fork(), EAGAIN);
        ok!(kill(one, SIGKILL));
        ok!(kill(two, SIGKILL));
        Ok(())
    })
}

fn exit_closes_descriptors() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| 0);
    close_fd(writer);
    eq!(read_fd(reader, &mut [0; 1]), 0);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn wait_wakes_on_exit() -> Outcome {
    let pid = fork_child(|| {
        unsafe { usleep(30_000) };
        4
    });
    eq!(wait_for(pid), Status::Exited(4));
    Ok(())
}

fn sigchld_ignored_reaps_itself() -> Outcome {
    in_child(|| {
        set_disposition(SIGCHLD, SIG_IGN);
        let pid = fork_child(|| 3);
        let mut raw = 0;
        errno!(waitpid(pid, &mut raw, 0), ECHILD);
        errno!(kill(pid, 0), ESRCH);
        Ok(())
    })
}

fn pdeathsig_is_sent() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let (ready, is_ready) = new_pipe(0)?;
    let middle = fork_child(|| {
        fork_child(|| {
            if unsafe { prctl(PR_SET_PDEATHSIG, SIGKILL) } == 0 {
                write_fd(is_ready, b"x");
            }
            loop {
                unsafe { pause() };
            }
        });
        close_fd(writer);
        read_fd(ready, &mut [0; 1]);
        0
    });
    close_fd(writer);
    close_fd(is_ready);
    eq!(wait_for(middle), Status::Exited(0));
    // End of file when the grandchild, the last writer, has been killed.
    eq!(read_fd(reader, &mut [0; 1]), 0);
    Ok(())
}

fn child_of_thread_directory_is_copied() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    eq!(child(|| unsafe { chdir(c"d".as_ptr()) + umask(0o777) as i32 * 0 }), Status::Exited(0));
    let here = std::env::current_dir().map_err(|e| Stop::Fail(e.to_string()))?;
    eq!(here.to_string_lossy(), "/tmp/linnet-tests");
    check!(ok!(umask(0)) != 0o777);
    Ok(())
}
