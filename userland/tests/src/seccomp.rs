//! Restricted system calls: strict mode, filters, their actions, and who inherits them; and what
//! else prctl, unshare, kcmp and ioprio can do.

use crate::check::*;
use libc::*;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::SeqCst};

cases![seccomp:
    strict_allows_four_calls, filter_needs_a_right, filter_errors, bad_programs_are_einval, errno_action, the_strictest_counts,
    trap_tells_the_handler, trap_cannot_be_blocked, kill_process_ends_all, kill_thread_ends_one, trace_without_tracer_is_enosys,
    filters_are_inherited, filters_survive_exec, filter_sees_arguments, tsync_reaches_all_threads, tsync_refuses_strangers,
    actions_available, status_shows_the_mode, mode_is_final, log_and_allow_let_through, total_length_is_limited,
];

const LD_ABS: u16 = 0x20;
const JEQ: u16 = 0x15;
const RET: u16 = 0x06;

const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

const fn step(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Installs a filter; the call's result.
fn install_with(flags: u32, code: &mut [sock_filter]) -> i64 {
    let program = sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: the program and its code live over the call.
    unsafe { syscall(SYS_seccomp, 1, flags, &program) }
}

/// A filter that answers one call with `action` and allows the others.
fn deny_with(flags: u32, number: c_long, action: u32) -> i64 {
    install_with(flags, &mut [step(LD_ABS, 0), sock_filter { code: JEQ, jt: 0, jf: 1, k: number as u32 }, step(RET, action), step(RET, ALLOW)])
}

fn deny(number: c_long, action: u32) -> i64 {
    deny_with(0, number, action)
}

fn no_new_privs() -> Outcome {
    ok!(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    Ok(())
}

fn strict_allows_four_calls() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| unsafe {
        if prctl(PR_SET_SECCOMP, 1) != 0 {
            _exit(1);
        }
        write_fd(writer, b"in");
        syscall(SYS_getpid);
        write_fd(writer, b"not reached");
        0
    });
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    close_fd(writer);
    eq!(read_to_end(reader), b"in");
    eq!(
        child(|| unsafe {
            prctl(PR_SET_SECCOMP, 1);
            syscall(SYS_exit, 6);
            0
        }),
        Status::Exited(6)
    );
    errno!(syscall(SYS_seccomp, 0, 1, 0), EINVAL);
    errno!(syscall(SYS_seccomp, 0, 0, 8), EINVAL);
    Ok(())
}

fn filter_needs_a_right() -> Outcome {
    in_child(|| {
        ok!(deny(SYS_getppid, ERRNO | 5));
        Ok(())
    })?;
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        errno!(deny(SYS_getppid, ERRNO | 5), EACCES);
        no_new_privs()?;
        ok!(deny(SYS_getppid, ERRNO | 5));
        Ok(())
    })
}

fn filter_errors() -> Outcome {
    let mut code = [step(RET, ALLOW)];
    for flags in [1 << 6, 1 << 31, 32, 1 | 8] {
        errno!(install_with(flags, &mut code), EINVAL);
    }
    errno!(syscall(SYS_seccomp, 1, 0, 8), EFAULT);
    errno!(syscall(SYS_seccomp, 1, 0, &sock_fprog { len: 1, filter: 8 as *mut sock_filter }), EFAULT);
    errno!(syscall(SYS_seccomp, 1, 0, &sock_fprog { len: 0, filter: code.as_mut_ptr() }), EINVAL);
    errno!(syscall(SYS_seccomp, 1, 0, &sock_fprog { len: 4097, filter: code.as_mut_ptr() }), EINVAL);
    errno!(syscall(SYS_seccomp, 1, 0, &sock_fprog { len: 1, filter: std::ptr::null_mut() }), EINVAL);
    errno!(syscall(SYS_seccomp, 9, 0, 0), EINVAL);
    errno!(prctl(PR_SET_SECCOMP, 3, 0, 0, 0), EINVAL);
    eq!(ok!(prctl(PR_GET_SECCOMP)), 0);
    Ok(())
}

fn bad_programs_are_einval() -> Outcome {
    let ret = step(RET, ALLOW);
    let bad: &[&[sock_filter]] = &[
        &[step(LD_ABS, 0)],
        &[step(LD_ABS, 64), ret],
        &[step(LD_ABS, 2), ret],
        &[step(0x28, 0), ret],
        &[step(0x30, 0), ret],
        &[step(0x40, 0), ret],
        &[step(0xb1, 0), ret],
        &[step(0x94, 3), ret],
        &[step(0x9c, 0), ret],
        &[step(0x34, 0), ret],
        &[step(0x64, 32), ret],
        &[step(0x60, 0), ret],
        &[step(0x02, 16), ret],
        &[step(0x05, 1), ret],
        &[sock_filter { code: JEQ, jt: 1, jf: 0, k: 0 }, ret],
        &[step(0x0e, 0)],
        &[step(0xffff, 0), ret],
        &[step(LD_ABS, 0xffff_f000), ret],
    ];
    for (i, code) in bad.iter().enumerate() {
        let value = install_with(0, &mut code.to_vec());
        let error = std::io::Error::last_os_error().raw_os_error();
        if (value, error) != (-1, Some(EINVAL)) {
            fail!("program {i} gives {value}, {error:?}");
        }
    }
    Ok(())
}

fn errno_action() -> Outcome {
    in_child(|| {
        ok!(deny(SYS_getppid, ERRNO | EXDEV as u32));
        errno!(syscall(SYS_getppid), EXDEV);
        ok!(deny(SYS_getsid, ERRNO | 0xffff));
        // The number is cut to what an errno can be.
        eq!(unsafe { syscall(SYS_getsid, 0) }, -1);
        eq!(std::io::Error::last_os_error().raw_os_error(), Some(4095));
        // Errno 0 is success without the call.
        ok!(deny(SYS_setuid, ERRNO));
        ok!(syscall(SYS_setuid, 5));
        eq!(unsafe { getuid() }, 0);
        Ok(())
    })
}

fn the_strictest_counts() -> Outcome {
    in_child(|| {
        ok!(deny(SYS_getppid, ERRNO | 3));
        ok!(deny(SYS_getppid, LOG));
        errno!(syscall(SYS_getppid), ESRCH);
        // Of two equal actions the newer filter's counts.
        ok!(deny(SYS_getppid, ERRNO | 4));
        errno!(syscall(SYS_getppid), EINTR);
        ok!(deny(SYS_getppid, KILL_PROCESS));
        ok!(deny(SYS_getppid, TRAP));
        eq!(child(|| unsafe { syscall(SYS_getppid) } as i32), Status::Killed(SIGSYS));
        Ok(())
    })
}

static TRAPS: AtomicI32 = AtomicI32::new(0);
static SAW: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

extern "C" fn on_sigsys(_: i32, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's siginfo and context.
    unsafe {
        let words = info.cast::<u32>();
        SAW[0].store((*info).si_errno as u64, SeqCst);
        SAW[1].store((*info).si_code as u64, SeqCst);
        SAW[2].store(info.cast::<u64>().add(2).read(), SeqCst);
        SAW[3].store(u64::from(words.add(6).read()), SeqCst);
        SAW[4].store(u64::from(words.add(7).read()), SeqCst);
        let context = context.cast::<ucontext_t>();
        let pc = (*context).uc_mcontext.pc;
        // The call was not made: its argument is still where its result would be.
        if (*context).uc_mcontext.regs[0] == 77 && SAW[2].load(SeqCst) == pc {
            TRAPS.fetch_add(1, SeqCst);
        }
        (*context).uc_mcontext.regs[0] = 1234;
    }
}

fn trap_tells_the_handler() -> Outcome {
    in_child(|| {
        ok!(handle(SIGSYS, on_sigsys, 0));
        ok!(deny(SYS_getpgid, TRAP | 99));
        eq!(unsafe { syscall(SYS_getpgid, 77) }, 1234);
        eq!(TRAPS.load(SeqCst), 1);
        eq!([0, 1, 3, 4].map(|i: usize| SAW[i].load(SeqCst)), [99, 1, SYS_getpgid as u64, 0xc000_00b7]);
        Ok(())
    })
}

fn trap_cannot_be_blocked() -> Outcome {
    let ended = child(|| unsafe {
        let mut set = zero::<sigset_t>();
        sigfillset(&mut set);
        sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut());
        handle(SIGSYS, on_sigsys, 0);
        deny(SYS_getpgid, TRAP);
        syscall(SYS_getpgid, 77);
        0
    });
    eq!(ended, Status::Killed(SIGSYS));
    eq!(
        child(|| unsafe {
            set_disposition(SIGSYS, SIG_IGN);
            deny(SYS_getpgid, TRAP);
            syscall(SYS_getpgid, 77);
            0
        }),
        Status::Killed(SIGSYS)
    );
    Ok(())
}

fn kill_process_ends_all() -> Outcome {
    let ended = child(|| {
        handle(SIGSYS, on_sigsys, 0);
        deny(SYS_getpgid, KILL_PROCESS);
        let _ = std::thread::spawn(|| unsafe { syscall(SYS_getpgid, 0) }).join();
        loop {
            unsafe { pause() };
        }
    });
    eq!(ended, Status::Killed(SIGSYS));
    // An action that nobody knows is as good.
    eq!(child(|| unsafe { (deny(SYS_getpgid, 0x0001_0000) + syscall(SYS_getpgid, 0)) as i32 }), Status::Killed(SIGSYS));
    Ok(())
}

fn kill_thread_ends_one() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let ended = child(|| {
        deny(SYS_getpgid, KILL_THREAD);
        std::thread::spawn(move || {
            write_fd(writer, b"a");
            unsafe { syscall(SYS_getpgid, 0) };
            write_fd(writer, b"b");
        });
        // The thread is gone when it is no more in the list.
        loop {
            let threads = std::fs::read_dir("/proc/self/task").map(|d| d.count()).unwrap_or(0);
            if threads == 1 && readable(reader) {
                break 9;
            }
            unsafe { usleep(1000) };
        }
    });
    eq!(ended, Status::Exited(9));
    close_fd(writer);
    eq!(read_to_end(reader), b"a");
    // The last thread takes the process with it.
    eq!(child(|| unsafe { (deny(SYS_getpgid, KILL_THREAD) + syscall(SYS_getpgid, 0)) as i32 }), Status::Killed(SIGSYS));
    Ok(())
}

fn readable(fd: i32) -> bool {
    let mut set = pollfd { fd, events: POLLIN, revents: 0 };
    unsafe { poll(&mut set, 1, 0) == 1 }
}

fn trace_without_tracer_is_enosys() -> Outcome {
    in_child(|| {
        ok!(deny(SYS_getppid, TRACE | 3));
        errno!(syscall(SYS_getppid), ENOSYS);
        ok!(deny(SYS_getsid, 0x7fc0_0000));
        errno!(syscall(SYS_getsid, 0), ENOSYS);
        Ok(())
    })
}

fn filters_are_inherited() -> Outcome {
    in_child(|| {
        ok!(deny(SYS_getppid, ERRNO | 3));
        eq!(child(|| (unsafe { syscall(SYS_getppid) } == -1) as i32), Status::Exited(1));
        eq!(std::thread::spawn(|| unsafe { syscall(SYS_getppid) }).join().ok(), Some(-1));
        // What the child adds is its own.
        eq!(child(|| unsafe { (deny(SYS_getsid, ERRNO | 3) + syscall(SYS_getsid, 0) + 2) as i32 }), Status::Exited(1));
        check!(ok!(syscall(SYS_getsid, 0)) >= 0);
        Ok(())
    })
}

fn filters_survive_exec() -> Outcome {
    in_child(|| {
        no_new_privs()?;
        ok!(deny(SYS_getppid, ERRNO | 3));
        let out = match std::process::Command::new("/proc/self/exe").arg("--helper=status").output() {
            Ok(out) => String::from_utf8_lossy(&out.stdout).into_owned(),
            Err(error) => fail!("exec: {error}"),
        };
        check!(out.contains("\nSeccomp:\t2\n") && out.contains("\nNoNewPrivs:\t1\n"));
        Ok(())
    })
}

fn filter_sees_arguments() -> Outcome {
    in_child(|| {
        let jump = |k, jt, jf| sock_filter { code: JEQ, jt, jf, k };
        // dup3 of 3 arguments: low and high half of the second, the architecture.
        ok!(install_with(
            0,
            &mut [
                step(LD_ABS, 0),
                jump(SYS_getpriority as u32, 0, 8),
                step(LD_ABS, 4),
                jump(0xc000_00b7, 0, 6),
                step(LD_ABS, 24),
                jump(0x1234_5678, 0, 4),
                step(LD_ABS, 28),
                jump(0x9abc_def0, 0, 2),
                step(LD_ABS, 56),
                step(0x16, 0),
                step(RET, ALLOW),
            ]
        ));
        // The answer of the filter is the sixth argument.
        let call = |second: u64| unsafe { syscall(SYS_getpriority, 99, second, 0, 0, 0, u64::from(ERRNO | 33)) };
        errno!(call(0x9abc_def0_1234_5678), EDOM);
        errno!(call(0x9abc_def0_1234_5679), EINVAL);
        errno!(call(0x1234_5678), EINVAL);
        Ok(())
    })
}

fn tsync_reaches_all_threads() -> Outcome {
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        let (gate, open_gate) = new_pipe(0)?;
        let (ready, is_ready) = new_pipe(0)?;
        let thread = std::thread::spawn(move || {
            write_fd(is_ready, b"x");
            read_fd(gate, &mut [0; 1]);
            unsafe { (syscall(SYS_getppid), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), prctl(PR_GET_SECCOMP)) }
        });
        eq!(read_fd(ready, &mut [0; 1]), 1);
        no_new_privs()?;
        eq!(deny_with(1, SYS_getppid, ERRNO | 3), 0);
        close_fd(open_gate);
        eq!(thread.join().ok(), Some((-1, 1, 2)));
        Ok(())
    })
}

fn tsync_refuses_strangers() -> Outcome {
    in_child(|| {
        let (gate, open_gate) = new_pipe(0)?;
        let (ready, is_ready) = new_pipe(0)?;
        let thread = std::thread::spawn(move || {
            // A filter that the main thread has not.
            let done = deny(SYS_getsid, ERRNO | 3);
            write_fd(is_ready, &unsafe { gettid() }.to_le_bytes());
            read_fd(gate, &mut [0; 1]);
            done
        });
        let mut tid = [0; 4];
        eq!(read_fd(ready, &mut tid), 4);
        eq!(deny_with(1, SYS_getppid, ERRNO | 3), i64::from(i32::from_le_bytes(tid)));
        errno!(deny_with(1 | 16, SYS_getppid, ERRNO | 3), ESRCH);
        // Nothing was installed.
        eq!(ok!(prctl(PR_GET_SECCOMP)), 0);
        close_fd(open_gate);
        eq!(thread.join().ok(), Some(0));
        Ok(())
    })
}

fn actions_available() -> Outcome {
    let ask = |action: u32| unsafe { syscall(SYS_seccomp, 2, 0, &action) };
    for action in [KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, TRACE, LOG, ALLOW] {
        ok!(ask(action));
    }
    errno!(ask(0x0001_0000), EOPNOTSUPP);
    errno!(ask(ERRNO | 1), EOPNOTSUPP);
    errno!(syscall(SYS_seccomp, 2, 1, &ALLOW), EINVAL);
    errno!(syscall(SYS_seccomp, 2, 0, 8), EFAULT);
    let mut sizes = [0u16; 3];
    ok!(syscall(SYS_seccomp, 3, 0, sizes.as_mut_ptr()));
    eq!(sizes, [80, 24, 64]);
    errno!(syscall(SYS_seccomp, 3, 1, sizes.as_mut_ptr()), EINVAL);
    Ok(())
}

fn status_shows_the_mode() -> Outcome {
    in_child(|| {
        let shown = || Ok::<_, Stop>(String::from_utf8_lossy(&content("/proc/self/status")?).into_owned());
        check!(shown()?.contains("\nNoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n"));
        ok!(deny(SYS_getppid, ERRNO | 3));
        ok!(deny(SYS_getsid, ERRNO | 3));
        check!(shown()?.contains("\nSeccomp:\t2\nSeccomp_filters:\t2\n"));
        eq!(ok!(prctl(PR_GET_SECCOMP)), 2);
        Ok(())
    })
}

fn mode_is_final() -> Outcome {
    in_child(|| {
        ok!(deny(SYS_getppid, ERRNO | 3));
        errno!(prctl(PR_SET_SECCOMP, 1), EINVAL);
        errno!(syscall(SYS_seccomp, 0, 0, 0), EINVAL);
        // Not even seccomp itself may be called when a filter says so.
        ok!(deny(SYS_seccomp, ERRNO | 1));
        errno!(deny(SYS_getsid, ERRNO | 3), EPERM);
        Ok(())
    })
}

fn log_and_allow_let_through() -> Outcome {
    in_child(|| {
        ok!(deny_with(2, SYS_getppid, LOG));
        ok!(deny_with(4, SYS_getppid, ALLOW | 7));
        check!(ok!(syscall(SYS_getppid)) > 0);
        Ok(())
    })
}

fn total_length_is_limited() -> Outcome {
    in_child(|| {
        let mut long = vec![step(LD_ABS, 0); 4095];
        long.push(step(RET, ALLOW));
        // 32768 are the limit for all together.
        for _ in 0..7 {
            ok!(install_with(0, &mut long));
        }
        errno!(install_with(0, &mut long), ENOMEM);
        ok!(install_with(0, &mut long[3000..]));
        check!(ok!(syscall(SYS_getppid)) > 0);
        Ok(())
    })
}
