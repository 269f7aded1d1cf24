//! Parents and children: the wait family option by option, what becomes of orphans, stopped groups
//! whose last tie is cut, and who is told of whose end.

use crate::check::*;
use libc::*;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

cases![family:
    waitid_writes_six_words, waitid_zeroes_on_error, waitid_nowait_repeats_every_event, wait_by_clone_kind, wait_by_thread,
    children_of_a_thread_go_to_another, death_of_the_thread_is_noticed, death_signal_is_not_inherited, nocldwait_signals_but_reaps,
    ignored_zombie_is_no_child, subreaper_gets_orphans, subreaper_that_ignores_reaps, zombie_comes_to_the_subreaper,
    stopped_group_is_hung_up, own_exit_orphans_the_group, group_with_another_tie_stays_stopped, init_ignores_deadly_signals,
    rusage_counts_switches_of_children, wait_options_are_checked, parent_sees_memory_and_files_gone, stop_and_continue_are_told_once,
];

fn pause_for_ever() -> i32 {
    loop {
        unsafe { pause() };
    }
}

fn waitid_writes_six_words() -> Outcome {
    let pid = fork_child(|| 5);
    let mut words = [0x5a5a_5a5au32; 32];
    ok!(waitid(P_PID, pid as u32, words.as_mut_ptr().cast(), WEXITED));
    eq!(words[..3].to_vec(), [SIGCHLD as u32, 0, CLD_EXITED as u32]);
    eq!(words[4..7].to_vec(), [pid as u32, 0, 5]);
    check!(words[7..].iter().all(|w| *w == 0x5a5a_5a5a) && words[3] == 0x5a5a_5a5a);
    Ok(())
}

fn waitid_zeroes_on_error() -> Outcome {
    let mut words = [7u32; 32];
    errno!(waitid(P_ALL, 0, words.as_mut_ptr().cast(), WEXITED), ECHILD);
    eq!(words[..8].to_vec(), [0, 0, 0, 7, 0, 0, 0, 7]);
    errno!(waitid(P_ALL, 0, 8 as *mut siginfo_t, WEXITED), EFAULT);
    Ok(())
}

fn waitid_nowait_repeats_every_event() -> Outcome {
    let pid = fork_child(pause_for_ever);
    let look = |options| {
        let mut info = zero::<siginfo_t>();
        ok!(waitid(P_PID, pid as u32, &mut info, options));
        Ok((info.si_code, unsafe { info.si_status() }))
    };
    ok!(kill(pid, SIGSTOP));
    for _ in 0..2 {
        eq!(look(WSTOPPED | WNOWAIT)?, (CLD_STOPPED, SIGSTOP));
    }
    eq!(look(WSTOPPED)?, (CLD_STOPPED, SIGSTOP));
    eq!(look(WSTOPPED | WNOHANG)?, (0, 0));
    ok!(kill(pid, SIGCONT));
    for _ in 0..2 {
        eq!(look(WCONTINUED | WNOWAIT)?, (CLD_CONTINUED, SIGCONT));
    }
    eq!(look(WCONTINUED)?, (CLD_CONTINUED, SIGCONT));
    eq!(look(WCONTINUED | WNOHANG)?, (0, 0));
    ok!(kill(pid, SIGTERM));
    for _ in 0..2 {
        eq!(look(WEXITED | WNOWAIT)?, (CLD_KILLED, SIGTERM));
    }
    eq!(look(WEXITED)?, (CLD_KILLED, SIGTERM));
    Ok(())
}

fn clone_child(signal: i32, code: i32) -> i32 {
    match unsafe { syscall(SYS_clone, signal, 0, 0, 0, 0) as i32 } {
        0 => unsafe { _exit(code) },
        pid => pid,
    }
}

fn wait_by_clone_kind() -> Outcome {
    let (plain, quiet) = (clone_child(SIGCHLD, 1), clone_child(0, 2));
    let mut raw = 0;
    errno!(waitpid(quiet, &mut raw, 0), ECHILD);
    errno!(waitpid(plain, &mut raw, __WCLONE), ECHILD);
    eq!(ok!(waitpid(-1, &mut raw, __WCLONE)), quiet);
    errno!(waitpid(-1, &mut raw, __WCLONE), ECHILD);
    eq!(ok!(waitpid(-1, &mut raw, 0)), plain);
    let (plain, quiet) = (clone_child(SIGCHLD, 1), clone_child(0, 2));
    eq!(wait_flags(plain, __WALL), Status::Exited(1));
    eq!(wait_flags(quiet, __WALL), Status::Exited(2));
    // An end without a signal is told to nobody, and kept until somebody asks.
    let quiet = clone_child(0, 3);
    let mut info = zero::<siginfo_t>();
    ok!(waitid(P_PID, quiet as u32, &mut info, WEXITED | __WALL | WNOWAIT));
    eq!(wait_flags(quiet, __WALL), Status::Exited(3));
    Ok(())
}

fn wait_by_thread() -> Outcome {
    let mine = fork_child(|| 1);
    let theirs = std::thread::spawn(move || {
        let theirs = fork_child(|| 2);
        let mut raw = 0;
        let foreign = unsafe { waitpid(mine, &mut raw, __WNOTHREAD) };
        let error = std::io::Error::last_os_error().raw_os_error();
        let own = wait_flags(theirs, __WNOTHREAD);
        (foreign, error, own)
    })
    .join();
    match theirs {
        Ok(answer) => eq!(answer, (-1, Some(ECHILD), Status::Exited(2))),
        Err(_) => fail!("no thread"),
    }
    // Without the option any thread may ask.
    eq!(std::thread::spawn(move || wait_for(mine)).join().ok(), Some(Status::Exited(1)));
    Ok(())
}

fn children_of_a_thread_go_to_another() -> Outcome {
    let Ok(pid) = std::thread::spawn(|| fork_child(|| 4)).join() else { fail!("no thread") };
    // The thread may be on its last instructions still.
    for _ in 0..1000 {
        match wait_flags(pid, __WNOTHREAD) {
            Status::None => unsafe { usleep(1000) },
            status => {
                eq!(status, Status::Exited(4));
                return Ok(());
            }
        };
    }
    fail!("the child of a thread that ended is nobody's")
}

fn death_of_the_thread_is_noticed() -> Outcome {
    let (ready, is_ready) = new_pipe(0)?;
    let Ok(pid) = std::thread::spawn(move || {
        let pid = fork_child(|| {
            unsafe { prctl(PR_SET_PDEATHSIG, SIGUSR2) };
            write_fd(is_ready, b"x");
            pause_for_ever()
        });
        read_fd(ready, &mut [0; 1]);
        pid
    })
    .join() else {
        fail!("no thread")
    };
    eq!(wait_for(pid), Status::Killed(SIGUSR2));
    Ok(())
}

fn death_signal_is_not_inherited() -> Outcome {
    in_child(|| {
        let mut signal = 0;
        ok!(prctl(PR_SET_PDEATHSIG, SIGUSR1));
        ok!(prctl(PR_GET_PDEATHSIG, &raw mut signal));
        eq!(signal, SIGUSR1);
        eq!(child(|| unsafe { prctl(PR_GET_PDEATHSIG, &raw mut signal) } + signal), Status::Exited(0));
        errno!(prctl(PR_SET_PDEATHSIG, 65), EINVAL);
        // It is the thread's own.
        let other = std::thread::spawn(|| {
            let mut signal = -1;
            unsafe { prctl(PR_GET_PDEATHSIG, &raw mut signal) };
            signal
        });
        eq!(other.join().ok(), Some(0));
        Ok(())
    })
}

static SIGNALS: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    SIGNALS.fetch_add(1, SeqCst);
}

/// Waits until a process that nobody waits for is no more.
fn gone(pid: i32) -> Outcome {
    for _ in 0..5000 {
        if unsafe { kill(pid, 0) } == -1 {
            return Ok(());
        }
        unsafe { usleep(1000) };
    }
    fail!("{pid} is there still")
}

fn nocldwait_signals_but_reaps() -> Outcome {
    ok!(handle(SIGCHLD, count, SA_NOCLDWAIT | SA_RESTART));
    let pid = fork_child(|| 3);
    let mut raw = 0;
    errno!(waitpid(pid, &mut raw, 0), ECHILD);
    eq!(SIGNALS.load(SeqCst), 1);
    gone(pid)
}

fn ignored_zombie_is_no_child() -> Outcome {
    // A child that ended before the signal was ignored is still to be waited for.
    let pid = fork_child(|| 3);
    let mut info = zero::<siginfo_t>();
    ok!(waitid(P_PID, pid as u32, &mut info, WEXITED | WNOWAIT));
    set_disposition(SIGCHLD, SIG_IGN);
    eq!(wait_for(pid), Status::Exited(3));
    // And the blocked signal of an ignored child is not kept.
    let mut set = zero::<sigset_t>();
    unsafe {
        sigemptyset(&mut set);
        sigaddset(&mut set, SIGCHLD);
        sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut());
    }
    let pid = fork_child(|| 3);
    let mut raw = 0;
    errno!(waitpid(pid, &mut raw, 0), ECHILD);
    let mut pending = zero::<sigset_t>();
    ok!(sigpending(&mut pending));
    eq!(unsafe { sigismember(&pending, SIGCHLD) }, 0);
    Ok(())
}

/// A grandchild whose parent ends at once; it ends when `gate` closes. Returns its pid.
fn orphan(gate: (i32, i32), code: i32) -> Result<i32, Stop> {
    let (reader, writer) = new_pipe(0)?;
    let middle = fork_child(|| {
        let pid = fork_child(|| {
            close_fd(gate.1);
            read_fd(gate.0, &mut [0; 1]);
            code
        });
        write_fd(writer, &pid.to_le_bytes());
        0
    });
    eq!(wait_for(middle), Status::Exited(0));
    let mut data = [0; 4];
    eq!(read_fd(reader, &mut data), 4);
    close_fd(reader);
    close_fd(writer);
    Ok(i32::from_le_bytes(data))
}

fn subreaper_gets_orphans() -> Outcome {
    let mut on = 7;
    ok!(prctl(PR_GET_CHILD_SUBREAPER, &raw mut on));
    eq!(on, 0);
    ok!(prctl(PR_SET_CHILD_SUBREAPER, 1));
    ok!(prctl(PR_GET_CHILD_SUBREAPER, &raw mut on));
    eq!(on, 1);
    // The attribute is not inherited.
    eq!(child(|| unsafe { prctl(PR_GET_CHILD_SUBREAPER, &raw mut on) } + on), Status::Exited(0));
    ok!(handle(SIGCHLD, count, SA_RESTART));
    let gate = new_pipe(0)?;
    let pid = orphan(gate, 6)?;
    let stat = String::from_utf8_lossy(&content(&format!("/proc/{pid}/stat"))?).into_owned();
    let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).and_then(|n| n.parse().ok());
    eq!(parent, Some(unsafe { getpid() }));
    let before = SIGNALS.load(SeqCst);
    close_fd(gate.1);
    eq!(wait_for(pid), Status::Exited(6));
    eq!(SIGNALS.load(SeqCst), before + 1);
    Ok(())
}

fn subreaper_that_ignores_reaps() -> Outcome {
    ok!(prctl(PR_SET_CHILD_SUBREAPER, 1));
    set_disposition(SIGCHLD, SIG_DFL);
    let (reader, writer) = new_pipe(0)?;
    let (gate, open_gate) = new_pipe(0)?;
    // The middle process leaves a zombie of its own behind.
    let middle = fork_child(|| {
        close_fd(open_gate);
        let pid = fork_child(|| 0);
        let mut info = zero::<siginfo_t>();
        unsafe { waitid(P_PID, pid as u32, &mut info, WEXITED | WNOWAIT) };
        write_fd(writer, &pid.to_le_bytes());
        read_fd(gate, &mut [0; 1]);
        0
    });
    let mut data = [0; 4];
    eq!(read_fd(reader, &mut data), 4);
    set_disposition(SIGCHLD, SIG_IGN);
    close_fd(open_gate);
    let mut raw = 0;
    errno!(waitpid(middle, &mut raw, 0), ECHILD);
    gone(i32::from_le_bytes(data))
}

fn zombie_comes_to_the_subreaper() -> Outcome {
    ok!(prctl(PR_SET_CHILD_SUBREAPER, 1));
    let (reader, writer) = new_pipe(0)?;
    let middle = fork_child(|| {
        // Whatever its signal was, an orphan ends with SIGCHLD.
        let pid = clone_child(0, 9);
        let mut info = zero::<siginfo_t>();
        unsafe { waitid(P_PID, pid as u32, &mut info, WEXITED | WNOWAIT | __WALL) };
        write_fd(writer, &pid.to_le_bytes());
        0
    });
    eq!(wait_for(middle), Status::Exited(0));
    let mut data = [0; 4];
    eq!(read_fd(reader, &mut data), 4);
    eq!(wait_for(i32::from_le_bytes(data)), Status::Exited(9));
    Ok(())
}

/// A stopped process in a group of its own below `middle`, in a session of their own; `cut` says
/// how the tie to the group's outside goes. Returns how the stopped process ended.
fn stopped_below(leaves: bool) -> Result<Status, Stop> {
    ok!(prctl(PR_SET_CHILD_SUBREAPER, 1));
    let (reader, writer) = new_pipe(0)?;
    let (gate, open_gate) = new_pipe(0)?;
    let middle = fork_child(|| {
        close_fd(open_gate);
        unsafe { prctl(PR_SET_PDEATHSIG, SIGKILL) };
        unsafe { setsid() };
        let pid = fork_child(pause_for_ever);
        unsafe { setpgid(pid, pid) };
        unsafe { kill(pid, SIGSTOP) };
        wait_flags(pid, WUNTRACED);
        write_fd(writer, &pid.to_le_bytes());
        read_fd(gate, &mut [0; 1]);
        if leaves { 0 } else { pause_for_ever() }
    });
    let mut data = [0; 4];
    eq!(read_fd(reader, &mut data), 4);
    let pid = i32::from_le_bytes(data);
    close_fd(open_gate);
    if !leaves {
        // Nothing happens while somebody of the session could continue the group.
        unsafe { usleep(30_000) };
        let stat = String::from_utf8_lossy(&content(&format!("/proc/{pid}/stat"))?).into_owned();
        check!(stat.contains(") T "));
        ok!(kill(middle, SIGKILL));
        eq!(wait_for(middle), Status::Killed(SIGKILL));
    } else {
        eq!(wait_for(middle), Status::Exited(0));
    }
    Ok(wait_for(pid))
}

fn stopped_group_is_hung_up() -> Outcome {
    eq!(stopped_below(true)?, Status::Killed(SIGHUP));
    Ok(())
}

fn group_with_another_tie_stays_stopped() -> Outcome {
    eq!(stopped_below(false)?, Status::Killed(SIGHUP));
    Ok(())
}

fn own_exit_orphans_the_group() -> Outcome {
    ok!(prctl(PR_SET_CHILD_SUBREAPER, 1));
    let (reader, writer) = new_pipe(0)?;
    let (gate, open_gate) = new_pipe(0)?;
    // `leader` is the only member of its group with a parent outside; `member` is its stopped child.
    let (told, tell) = new_pipe(0)?;
    let outside = fork_child(|| {
        unsafe { prctl(PR_SET_PDEATHSIG, SIGKILL) };
        unsafe { setsid() };
        let leader = fork_child(|| {
            close_fd(open_gate);
            unsafe { setpgid(0, 0) };
            let member = fork_child(pause_for_ever);
            unsafe { kill(member, SIGSTOP) };
            wait_flags(member, WUNTRACED);
            write_fd(writer, &member.to_le_bytes());
            read_fd(gate, &mut [0; 1]);
            0
        });
        close_fd(open_gate);
        wait_for(leader);
        write_fd(tell, b"x");
        pause_for_ever()
    });
    let mut data = [0; 4];
    eq!(read_fd(reader, &mut data), 4);
    close_fd(open_gate);
    // From now on the member is this process's child.
    eq!(read_fd(told, &mut [0; 1]), 1);
    eq!(wait_for(i32::from_le_bytes(data)), Status::Killed(SIGHUP));
    ok!(kill(outside, SIGKILL));
    eq!(wait_for(outside), Status::Killed(SIGKILL));
    Ok(())
}

fn init_ignores_deadly_signals() -> Outcome {
    for signal in [SIGKILL, SIGSTOP, SIGUSR1, SIGQUIT] {
        ok!(kill(1, signal));
    }
    unsafe { usleep(20_000) };
    let stat = String::from_utf8_lossy(&content("/proc/1/stat")?).into_owned();
    check!(!stat.contains(") T ") && !stat.contains(") Z "));
    Ok(())
}

fn rusage_counts_switches_of_children() -> Outcome {
    let mut before = zero::<rusage>();
    ok!(getrusage(RUSAGE_CHILDREN, &mut before));
    let pid = fork_child(|| {
        for _ in 0..5 {
            unsafe { usleep(1000) };
        }
        0
    });
    let (mut raw, mut of_child, mut after) = (0, zero::<rusage>(), zero::<rusage>());
    eq!(ok!(wait4(pid, &mut raw, 0, &mut of_child)), pid);
    check!(of_child.ru_nvcsw >= 5);
    ok!(getrusage(RUSAGE_CHILDREN, &mut after));
    eq!(after.ru_nvcsw - before.ru_nvcsw, of_child.ru_nvcsw);
    Ok(())
}

fn wait_options_are_checked() -> Outcome {
    let mut raw = 0;
    let mut info = zero::<siginfo_t>();
    for options in [0x10, 0x1000_0000, WEXITED, WNOWAIT] {
        errno!(syscall(SYS_wait4, -1, &raw mut raw, options, 0), EINVAL);
    }
    for options in [0, WNOHANG, WNOWAIT, WEXITED | 0x10, WEXITED | 0x1000_0000] {
        errno!(waitid(P_ALL, 0, &mut info, options), EINVAL);
    }
    errno!(syscall(SYS_waitid, 9, 1, &raw mut info, WEXITED, 0), EINVAL);
    errno!(waitid(P_PID, 0, &mut info, WEXITED), EINVAL);
    errno!(waitid(P_PID, -4i32 as u32, &mut info, WEXITED), EINVAL);
    errno!(waitid(P_PGID, -4i32 as u32, &mut info, WEXITED), EINVAL);
    errno!(waitid(P_PGID, 0, &mut info, WEXITED), ECHILD);
    errno!(syscall(SYS_wait4, i32::MIN, &raw mut raw, 0, 0), ESRCH);
    let pid = fork_child(|| 1);
    errno!(syscall(SYS_wait4, pid, 8, 0, 0), EFAULT);
    // The child is gone all the same.
    errno!(waitpid(pid, &mut raw, 0), ECHILD);
    Ok(())
}

fn parent_sees_memory_and_files_gone() -> Outcome {
    let (reader, writer) = new_pipe(O_NONBLOCK)?;
    let pid = fork_child(|| 0);
    close_fd(writer);
    let mut info = zero::<siginfo_t>();
    ok!(waitid(P_PID, pid as u32, &mut info, WEXITED | WNOWAIT));
    // No writer is left, and no memory, though the zombie is there.
    eq!(read_fd(reader, &mut [0; 1]), 0);
    let status = String::from_utf8_lossy(&content(&format!("/proc/{pid}/status"))?).into_owned();
    check!(status.contains("State:\tZ") && !status.contains("VmSize"));
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn stop_and_continue_are_told_once() -> Outcome {
    ok!(handle(SIGCHLD, count, SA_RESTART));
    let pid = fork_child(pause_for_ever);
    ok!(kill(pid, SIGSTOP));
    eq!(wait_flags(pid, WUNTRACED), Status::Stopped(SIGSTOP));
    eq!(SIGNALS.load(SeqCst), 1);
    // The second stop of a stopped process is no news.
    ok!(kill(pid, SIGTSTP));
    eq!(wait_flags(pid, WUNTRACED | WNOHANG), Status::None);
    ok!(kill(pid, SIGCONT));
    eq!(wait_flags(pid, WCONTINUED), Status::Continued);
    eq!(SIGNALS.load(SeqCst), 2);
    ok!(kill(pid, SIGCONT));
    eq!(wait_flags(pid, WCONTINUED | WNOHANG), Status::None);
    ok!(handle(SIGCHLD, count, SA_RESTART | SA_NOCLDSTOP));
    ok!(kill(pid, SIGSTOP));
    eq!(wait_flags(pid, WUNTRACED), Status::Stopped(SIGSTOP));
    eq!(SIGNALS.load(SeqCst), 2);
    ok!(kill(pid, SIGKILL));
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    Ok(())
}
