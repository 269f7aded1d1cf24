//! Signals that a thread waits for (sigtimedwait, sigwaitinfo).

use crate::check::*;
use libc::*;

cases![sigwait:
    takes_what_is_pending, wakes_for_what_would_kill, wakes_for_what_would_be_ignored, one_that_is_not_blocked_kills,
    another_thread_sends, takes_one_of_several, mask_is_back_afterwards, handler_of_another_is_eintr, timeouts, errors_of_sigtimedwait,
];

fn set_of(signals: &[i32]) -> sigset_t {
    let mut set = zero::<sigset_t>();
    for signal in signals {
        // SAFETY: a live set.
        unsafe { sigaddset(&mut set, *signal) };
    }
    set
}

fn block(signals: &[i32]) -> Outcome {
    ok!(sigprocmask(SIG_BLOCK, &set_of(signals), std::ptr::null_mut()));
    Ok(())
}

/// The number of the signal that came, or -1.
fn wait(signals: &[i32], info: &mut siginfo_t) -> i32 {
    // SAFETY: live set and siginfo.
    unsafe { sigwaitinfo(&set_of(signals), info) }
}

/// What a child that waits for the signals gets, and how it ends, when `send` runs once it sleeps.
fn waiter(signals: &[i32], send: impl FnOnce(i32) -> i32) -> Result<Status, Stop> {
    let pid = fork_child(|| {
        let mut info = zero::<siginfo_t>();
        let got = wait(signals, &mut info);
        if got == info.si_signo { got } else { 100 }
    });
    crate::ptrace::until_state(pid, 'S')?;
    eq!(send(pid), 0);
    Ok(wait_for(pid))
}

fn takes_what_is_pending() -> Outcome {
    block(&[SIGUSR1])?;
    let mut info = zero::<siginfo_t>();
    ok!(kill(getpid(), SIGUSR1));
    eq!(wait(&[SIGUSR1, SIGUSR2], &mut info), SIGUSR1);
    // SAFETY: the kernel has written it; getpid has no preconditions.
    eq!(unsafe { (info.si_signo, info.si_code, info.si_pid()) }, (SIGUSR1, SI_USER, unsafe { getpid() }));
    // It is not there any more.
    let mut pending = zero::<sigset_t>();
    ok!(sigpending(&mut pending));
    eq!(ok!(sigismember(&pending, SIGUSR1)), 0);
    Ok(())
}

/// A signal without a handler ends a process that blocks it neither.
fn wakes_for_what_would_kill() -> Outcome {
    block(&[SIGUSR1, SIGRTMIN(), SIGQUIT])?;
    for signal in [SIGUSR1, SIGRTMIN(), SIGQUIT] {
        // SAFETY: a signal to a child.
        eq!(waiter(&[signal], |pid| unsafe { kill(pid, signal) })?, Status::Exited(signal));
        // SAFETY: a signal to the child's only thread.
        eq!(waiter(&[signal], |pid| unsafe { syscall(SYS_tgkill, pid, pid, signal) as i32 })?, Status::Exited(signal));
    }
    Ok(())
}

fn wakes_for_what_would_be_ignored() -> Outcome {
    block(&[SIGURG, SIGCHLD, SIGUSR1])?;
    // SAFETY: a signal to a child.
    eq!(waiter(&[SIGURG], |pid| unsafe { kill(pid, SIGURG) })?, Status::Exited(SIGURG));
    // SAFETY: SIG_IGN runs no code.
    unsafe { signal(SIGUSR1, SIG_IGN) };
    // SAFETY: as above.
    eq!(waiter(&[SIGUSR1], |pid| unsafe { kill(pid, SIGUSR1) })?, Status::Exited(SIGUSR1));
    // The end of a child, which nobody has a handler for.
    let pid = fork_child(|| {
        let inner = fork_child(|| {
            // SAFETY: getppid has no preconditions.
            let waiting = crate::ptrace::until_state(unsafe { getppid() }, 'S');
            i32::from(waiting.is_err())
        });
        let mut info = zero::<siginfo_t>();
        let got = wait(&[SIGCHLD], &mut info);
        // SAFETY: the kernel has written it.
        i32::from(got != SIGCHLD || unsafe { (info.si_pid(), info.si_status()) } != (inner, 0) || wait_for(inner) != Status::Exited(0))
    });
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn one_that_is_not_blocked_kills() -> Outcome {
    // SAFETY: a signal to a child.
    eq!(waiter(&[SIGUSR1], |pid| unsafe { kill(pid, SIGUSR1) })?, Status::Killed(SIGUSR1));
    Ok(())
}

fn another_thread_sends() -> Outcome {
    block(&[SIGUSR1])?;
    in_child(|| {
        // SAFETY: getpid has no preconditions.
        let pid = unsafe { getpid() };
        let sender = std::thread::spawn(move || {
            let waiting = crate::ptrace::until_state(pid, 'S');
            // SAFETY: a signal to this process.
            unsafe { kill(pid, SIGUSR1) };
            waiting
        });
        eq!(wait(&[SIGUSR1], &mut zero::<siginfo_t>()), SIGUSR1);
        check!(sender.join().is_ok_and(|waiting| waiting.is_ok()));
        Ok(())
    })
}

/// Each call takes one, the lowest number first, a real-time signal as often as it was sent.
fn takes_one_of_several() -> Outcome {
    let (a, b) = (SIGRTMIN(), SIGRTMIN() + 1);
    block(&[a, b, SIGUSR1])?;
    let pid = fork_child(|| {
        let mut info = zero::<siginfo_t>();
        let mut all = Vec::new();
        while all.len() < 4 {
            all.push(wait(&[a, b, SIGUSR1], &mut info));
            if all.len() == 1 {
                // The others come before the next call.
                // SAFETY: stops this process.
                unsafe { raise(SIGSTOP) };
            }
        }
        i32::from(all != [b, SIGUSR1, a, b])
    });
    crate::ptrace::until_state(pid, 'S')?;
    ok!(kill(pid, b));
    eq!(wait_flags(pid, WUNTRACED), Status::Stopped(SIGSTOP));
    for signal in [b, a, SIGUSR1, SIGUSR1, SIGCONT] {
        ok!(kill(pid, signal));
    }
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn mask_is_back_afterwards() -> Outcome {
    block(&[SIGUSR1, SIGUSR2])?;
    let wanted = timespec { tv_sec: 0, tv_nsec: 1000 };
    errno!(sigtimedwait(&set_of(&[SIGUSR1]), std::ptr::null_mut(), &wanted), EAGAIN);
    let mut mask = zero::<sigset_t>();
    ok!(sigprocmask(SIG_BLOCK, std::ptr::null(), &mut mask));
    eq!((ok!(sigismember(&mask, SIGUSR1)), ok!(sigismember(&mask, SIGUSR2))), (1, 1));
    // And a signal that comes now waits.
    ok!(kill(getpid(), SIGUSR1));
    ok!(kill(getpid(), SIGUSR2));
    let mut pending = zero::<sigset_t>();
    ok!(sigpending(&mut pending));
    eq!((ok!(sigismember(&pending, SIGUSR1)), ok!(sigismember(&pending, SIGUSR2))), (1, 1));
    Ok(())
}

extern "C" fn nothing(_: i32) {}

fn handler_of_another_is_eintr() -> Outcome {
    block(&[SIGUSR1])?;
    let handler: extern "C" fn(i32) = nothing;
    // SAFETY: the handler does nothing.
    unsafe { signal(SIGUSR2, handler as usize) };
    let pid = fork_child(|| {
        let got = wait(&[SIGUSR1], &mut zero::<siginfo_t>());
        i32::from(got != -1 || std::io::Error::last_os_error().raw_os_error() != Some(EINTR))
    });
    crate::ptrace::until_state(pid, 'S')?;
    ok!(kill(pid, SIGUSR2));
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn timeouts() -> Outcome {
    block(&[SIGUSR1])?;
    let now = timespec { tv_sec: 0, tv_nsec: 0 };
    errno!(sigtimedwait(&set_of(&[SIGUSR1]), std::ptr::null_mut(), &now), EAGAIN);
    ok!(kill(getpid(), SIGUSR1));
    eq!(ok!(sigtimedwait(&set_of(&[SIGUSR1]), std::ptr::null_mut(), &now)), SIGUSR1);
    errno!(sigtimedwait(&set_of(&[SIGUSR1]), std::ptr::null_mut(), &timespec { tv_sec: 0, tv_nsec: 2_000_000 }), EAGAIN);
    Ok(())
}

fn errors_of_sigtimedwait() -> Outcome {
    let set = 1u64 << (SIGUSR1 - 1);
    let none = std::ptr::null::<u8>();
    let bad = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    block(&[SIGUSR1])?;
    errno!(syscall(SYS_rt_sigtimedwait, &raw const set, none, none, 4usize), EINVAL);
    errno!(syscall(SYS_rt_sigtimedwait, 8usize, none, none, 8usize), EFAULT);
    errno!(syscall(SYS_rt_sigtimedwait, &raw const set, none, &raw const bad, 8usize), EINVAL);
    ok!(kill(getpid(), SIGUSR1));
    // The time is looked at first; the signal is taken before its description is written.
    errno!(syscall(SYS_rt_sigtimedwait, &raw const set, none, &raw const bad, 8usize), EINVAL);
    errno!(syscall(SYS_rt_sigtimedwait, &raw const set, 8usize, none, 8usize), EFAULT);
    let mut pending = zero::<sigset_t>();
    ok!(sigpending(&mut pending));
    eq!(ok!(sigismember(&pending, SIGUSR1)), 0);
    Ok(())
}
