//! Process groups, sessions and the controlling terminal.

use crate::check::*;
use libc::*;

cases![jobs:
    setpgid_makes_a_group, setpgid_errors, getpgid_errors, setsid_starts_a_session, setsid_by_leader_is_eperm,
    kill_reaches_the_group, kill_errors, getsid_of_others, group_survives_its_leader, child_inherits_group_and_session,
    setpgid_after_exec_is_eacces, stop_and_continue_group, no_terminal_is_enxio,
];

fn setpgid_makes_a_group() -> Outcome {
    in_child(|| {
        ok!(setpgid(0, 0));
        eq!(unsafe { getpgrp() }, unsafe { getpid() });
        eq!(ok!(getpgid(0)), unsafe { getpid() });
        Ok(())
    })
}

fn setpgid_errors() -> Outcome {
    errno!(setpgid(0, -1), EINVAL);
    errno!(setpgid(99999, 0), ESRCH);
    in_child(|| {
        // No such group in this session.
        errno!(setpgid(0, 99999), EPERM);
        ok!(setsid());
        errno!(setpgid(0, 0), EPERM);
        Ok(())
    })
}

fn getpgid_errors() -> Outcome {
    errno!(getpgid(99999), ESRCH);
    errno!(getsid(99999), ESRCH);
    Ok(())
}

fn setsid_starts_a_session() -> Outcome {
    in_child(|| {
        let me = unsafe { getpid() };
        eq!(ok!(setsid()), me);
        eq!(ok!(getsid(0)), me);
        eq!(unsafe { getpgrp() }, me);
        Ok(())
    })
}

fn setsid_by_leader_is_eperm() -> Outcome {
    in_child(|| {
        ok!(setpgid(0, 0));
        errno!(setsid(), EPERM);
        Ok(())
    })
}

fn sleeper_in(group: i32) -> i32 {
    let pid = fork_child(|| loop {
        unsafe { pause() };
    });
    unsafe { setpgid(pid, group) };
    pid
}

fn kill_reaches_the_group() -> Outcome {
    let leader = sleeper_in(0);
    let (one, two) = (sleeper_in(leader), sleeper_in(leader));
    let other = sleeper_in(0);
    ok!(kill(-leader, SIGTERM));
    for pid in [leader, one, two] {
        eq!(wait_for(pid), Status::Killed(SIGTERM));
    }
    eq!(wait_flags(other, WNOHANG), Status::None);
    ok!(kill(other, SIGKILL));
    eq!(wait_for(other), Status::Killed(SIGKILL));
    Ok(())
}

fn kill_errors() -> Outcome {
    errno!(kill(99999, 0), ESRCH);
    errno!(kill(-99999, SIGTERM), ESRCH);
    errno!(kill(unsafe { getpid() }, 65), EINVAL);
    errno!(kill(unsafe { getpid() }, -1), EINVAL);
    ok!(kill(1, 0));
    in_child(|| {
        ok!(setresuid(1000, 1000, 1000));
        errno!(kill(1, SIGTERM), EPERM);
        ok!(kill(unsafe { getpid() }, 0));
        Ok(())
    })
}

fn getsid_of_others() -> Outcome {
    eq!(ok!(getsid(1)), ok!(getpgid(1)));
    eq!(ok!(getsid(0)), ok!(getsid(unsafe { getppid() })));
    Ok(())
}

fn group_survives_its_leader() -> Outcome {
    let leader = sleeper_in(0);
    let member = sleeper_in(leader);
    ok!(kill(leader, SIGKILL));
    eq!(wait_for(leader), Status::Killed(SIGKILL));
    ok!(kill(-leader, 0));
    ok!(kill(-leader, SIGKILL));
    eq!(wait_for(member), Status::Killed(SIGKILL));
    errno!(kill(-leader, 0), ESRCH);
    Ok(())
}

fn child_inherits_group_and_session() -> Outcome {
    let (group, session) = unsafe { (getpgrp(), getsid(0)) };
    eq!(child(|| unsafe { (getpgrp() != group || getsid(0) != session) as i32 }), Status::Exited(0));
    Ok(())
}

fn setpgid_after_exec_is_eacces() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let (gate, held) = new_pipe(O_CLOEXEC)?;
    let pid = fork_child(|| unsafe {
        dup2(reader, 0);
        close(writer);
        close(gate);
        let words = [c"cat".as_ptr(), std::ptr::null()];
        execve(c"/bin/cat".as_ptr(), words.as_ptr(), [std::ptr::null::<c_char>()].as_ptr());
        99
    });
    close_fd(held);
    // Ends when exec has closed the child's copy.
    eq!(read_fd(gate, &mut [0; 1]), 0);
    errno!(setpgid(pid, pid), EACCES);
    close_fd(writer);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn stop_and_continue_group() -> Outcome {
    let leader = sleeper_in(0);
    let member = sleeper_in(leader);
    ok!(kill(-leader, SIGSTOP));
    for pid in [leader, member] {
        eq!(wait_flags(pid, WUNTRACED), Status::Stopped(SIGSTOP));
    }
    // A stopped process dies of SIGKILL at once, of SIGTERM when it continues.
    ok!(kill(leader, SIGKILL));
    eq!(wait_for(leader), Status::Killed(SIGKILL));
    ok!(kill(member, SIGTERM));
    for _ in 0..500 {
        eq!(wait_flags(member, WNOHANG), Status::None);
        // SAFETY: plain call.
        unsafe { sched_yield() };
    }
    ok!(kill(member, SIGCONT));
    eq!(wait_for(member), Status::Killed(SIGTERM));
    Ok(())
}

fn no_terminal_is_enxio() -> Outcome {
    in_child(|| {
        ok!(setsid());
        errno!(open(c"/dev/tty".as_ptr(), O_RDWR), ENXIO);
        Ok(())
    })
}
