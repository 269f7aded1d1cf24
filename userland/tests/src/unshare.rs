//! Giving up what is shared, comparing what is shared, and the settings of prctl and ioprio.

use crate::check::*;
use libc::*;

cases![unshare:
    files_and_directory_part, flags_are_checked, sharing_threads_cannot_part, namespaces_need_a_right, kcmp_tells_the_same,
    kcmp_errors, prctl_settings, prctl_errors, timer_slack_is_inherited, tid_address_is_told, ioprio_is_kept, ioprio_errors,
];

/// A child by clone that shares `flags` with this process, on a stack of its own.
fn sharing(flags: i32, body: extern "C" fn(*mut c_void) -> c_int) -> Result<i32, Stop> {
    let stack = ok!(map(64 * 1024, RW));
    Ok(ok!(clone(body, stack.add(64 * 1024).cast(), flags | SIGCHLD, std::ptr::null_mut())))
}

extern "C" fn part(_: *mut c_void) -> c_int {
    // SAFETY: calls of the child on what it shares.
    unsafe {
        if chdir(c"/proc".as_ptr()) != 0 || dup2(0, 77) != 77 || libc::unshare(CLONE_FS | CLONE_FILES) != 0 {
            return 1;
        }
        chdir(c"/".as_ptr());
        close(77);
        dup2(0, 78);
    }
    0
}

fn files_and_directory_part() -> Outcome {
    let pid = sharing(CLONE_FS | CLONE_FILES, part)?;
    eq!(wait_for(pid), Status::Exited(0));
    // What it did before is seen here, what it did after is not.
    let here = std::env::current_dir().map_err(|e| Stop::Fail(e.to_string()))?;
    eq!(here.to_string_lossy(), "/proc");
    ok!(fcntl(77, F_GETFD));
    errno!(fcntl(78, F_GETFD), EBADF);
    Ok(())
}

fn flags_are_checked() -> Outcome {
    ok!(libc::unshare(0));
    ok!(libc::unshare(CLONE_SYSVSEM));
    ok!(libc::unshare(CLONE_FILES | CLONE_FS | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM));
    for flags in [CLONE_PTRACE, CLONE_SETTLS, CLONE_PARENT, 1] {
        errno!(libc::unshare(flags), EINVAL);
    }
    Ok(())
}

fn sharing_threads_cannot_part() -> Outcome {
    let thread = std::thread::spawn(|| {
        let mut seen = Vec::new();
        for flags in [CLONE_THREAD, CLONE_SIGHAND, CLONE_VM, CLONE_FILES] {
            let done = unsafe { libc::unshare(flags) };
            seen.push((done, std::io::Error::last_os_error().raw_os_error()));
        }
        seen
    });
    let Ok(seen) = thread.join() else { fail!("no thread") };
    check!(seen[..3].iter().all(|s| *s == (-1, Some(EINVAL))));
    eq!(seen[3].0, 0);
    Ok(())
}

fn namespaces_need_a_right() -> Outcome {
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        for flag in [CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP] {
            errno!(libc::unshare(flag), EPERM);
        }
        Ok(())
    })?;
    errno!(syscall(SYS_setns, -1, 0), EBADF);
    errno!(syscall(SYS_setns, 0, 0), EINVAL);
    Ok(())
}

fn kcmp(other: i32, kind: i32, a: i32, b: i32) -> i64 {
    unsafe { syscall(SYS_kcmp, getpid(), other, kind, a, b) }
}

extern "C" fn sleep_on(_: *mut c_void) -> c_int {
    loop {
        unsafe { pause() };
    }
}

fn kcmp_tells_the_same() -> Outcome {
    let (files, fs, both) = (sharing(CLONE_FILES, sleep_on)?, sharing(CLONE_FS, sleep_on)?, sharing(CLONE_VM | CLONE_SIGHAND, sleep_on)?);
    let me = unsafe { getpid() };
    let fd = ok!(dup(0));
    let other = ok!(open_file("/", O_RDONLY, 0));
    eq!(kcmp(me, 0, 0, fd), 0);
    check!([1, 2].contains(&kcmp(me, 0, 0, other)));
    check!(kcmp(me, 0, 0, other) + kcmp(me, 0, other, 0) == 3);
    for (kind, sharer) in [(1, both), (2, files), (3, fs), (4, both)] {
        for pid in [files, fs, both] {
            eq!(kcmp(pid, kind, 0, 0) == 0, pid == sharer);
        }
    }
    eq!((kcmp(fs, 5, 0, 0), kcmp(fs, 6, 0, 0)), (0, 0));
    for pid in [files, fs, both] {
        ok!(kill(pid, SIGKILL));
        eq!(wait_for(pid), Status::Killed(SIGKILL));
    }
    Ok(())
}

fn kcmp_errors() -> Outcome {
    let me = unsafe { getpid() };
    errno!(kcmp(me, 99, 0, 0), EINVAL);
    errno!(kcmp(me, 0, 0, 999), EBADF);
    errno!(kcmp(4_000_000, 0, 0, 0), ESRCH);
    errno!(kcmp(-1, 0, 0, 0), ESRCH);
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        errno!(kcmp(1, 1, 0, 0), EPERM);
        errno!(kcmp(1, 99, 0, 0), EPERM);
        Ok(())
    })
}

fn prctl_settings() -> Outcome {
    in_child(|| {
        eq!(ok!(prctl(PR_GET_TIMING)), 0);
        ok!(prctl(PR_SET_TIMING, 0, 0, 0, 0));
        eq!(ok!(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0)), 0);
        ok!(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
        eq!(ok!(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0)), 1);
        eq!(child(|| unsafe { prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) }), Status::Exited(1));
        ok!(prctl(PR_SET_NAME, c"a name that is too long".as_ptr()));
        let mut name = [0u8; 16];
        ok!(prctl(PR_GET_NAME, name.as_mut_ptr()));
        eq!(&name, b"a name that is \0");
        eq!(content("/proc/self/comm")?, b"a name that is \n");
        Ok(())
    })
}

fn prctl_errors() -> Outcome {
    errno!(prctl(0, 0, 0, 0, 0), EINVAL);
    errno!(prctl(9999, 0, 0, 0, 0), EINVAL);
    errno!(prctl(PR_SET_TIMING, 1, 0, 0, 0), EINVAL);
    errno!(prctl(PR_GET_UNALIGN, 0, 0, 0, 0), EINVAL);
    errno!(prctl(PR_GET_ENDIAN, 0, 0, 0, 0), EINVAL);
    errno!(prctl(PR_SET_THP_DISABLE, 1, 1, 0, 0), EINVAL);
    errno!(prctl(PR_GET_THP_DISABLE, 1, 0, 0, 0), EINVAL);
    errno!(prctl(PR_SET_NAME, 8, 0, 0, 0), EFAULT);
    errno!(prctl(PR_GET_NAME, 8, 0, 0, 0), EFAULT);
    errno!(prctl(PR_GET_PDEATHSIG, 8, 0, 0, 0), EFAULT);
    errno!(prctl(PR_SET_MM, 1, 0, 0, 1), EINVAL);
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        errno!(prctl(PR_SET_MM, 1, 0x10000, 0, 0), EPERM);
        Ok(())
    })
}

fn timer_slack_is_inherited() -> Outcome {
    in_child(|| {
        eq!(ok!(prctl(PR_GET_TIMERSLACK)), 50_000);
        ok!(prctl(PR_SET_TIMERSLACK, 100, 0, 0, 0));
        eq!(ok!(prctl(PR_GET_TIMERSLACK)), 100);
        // The child's default is what its parent had.
        eq!(
            child(|| unsafe {
                let first = prctl(PR_GET_TIMERSLACK);
                prctl(PR_SET_TIMERSLACK, 7, 0, 0, 0);
                prctl(PR_SET_TIMERSLACK, 0, 0, 0, 0);
                (first == 100 && prctl(PR_GET_TIMERSLACK) == 100) as i32
            }),
            Status::Exited(1)
        );
        ok!(prctl(PR_SET_TIMERSLACK, 0, 0, 0, 0));
        eq!(ok!(prctl(PR_GET_TIMERSLACK)), 50_000);
        Ok(())
    })
}

fn tid_address_is_told() -> Outcome {
    in_child(|| {
        let word = 0u32;
        ok!(syscall(SYS_set_tid_address, &raw const word));
        let mut at = 0u64;
        ok!(prctl(PR_GET_TID_ADDRESS, &raw mut at));
        eq!(at, &raw const word as u64);
        Ok(())
    })
}

fn ioprio_set(which: i32, who: i32, value: i32) -> i64 {
    unsafe { syscall(SYS_ioprio_set, which, who, value) }
}

fn ioprio_get(which: i32, who: i32) -> i64 {
    unsafe { syscall(SYS_ioprio_get, which, who) }
}

fn ioprio_is_kept() -> Outcome {
    in_child(|| {
        for value in [2 << 13 | 3, 1 << 13 | 7, 3 << 13] {
            ok!(ioprio_set(1, 0, value));
            eq!(ioprio_get(1, 0), i64::from(value));
            eq!(ioprio_get(1, unsafe { getpid() }), i64::from(value));
        }
        ok!(ioprio_set(1, 0, 2 << 13 | 3));
        eq!(child(|| (ioprio_get(1, 0) == 2 << 13 | 3) as i32), Status::Exited(1));
        Ok(())
    })
}

fn ioprio_errors() -> Outcome {
    let refused = [2 << 13 | 8, 1 << 13 | 8, 4 << 13, 5, 3 << 13 | 8, 8 << 13].map(|value| ioprio_set(1, 0, value) == -1);
    // Levels count in three bits, classes in three: what is above means nothing.
    eq!(refused, [false, false, true, true, false, false]);
    errno!(ioprio_set(0, 0, 2 << 13), EINVAL);
    errno!(ioprio_set(9, 0, 2 << 13), EINVAL);
    errno!(ioprio_get(9, 0), EINVAL);
    errno!(ioprio_set(1, 4_000_000, 2 << 13), ESRCH);
    errno!(ioprio_get(1, 4_000_000), ESRCH);
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        errno!(ioprio_set(1, 0, 1 << 13), EPERM);
        errno!(ioprio_set(1, 1, 2 << 13), EPERM);
        ok!(ioprio_set(1, 0, 2 << 13 | 7));
        Ok(())
    })
}
