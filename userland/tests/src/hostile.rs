//! Programs that mean no good: each alone dies or gets its errno, and the system goes on.

use crate::check::*;
use libc::*;

cases![hostile:
    bad_pointers_to_every_call, kernel_pointers_to_every_call, random_calls, memory_exhaustion_kills_or_refuses,
    process_exhaustion_is_eagain, descriptor_exhaustion_is_emfile, endless_recursion_is_segv, jump_into_nothing,
    self_modifying_stack_frame, huge_counts, pipe_exhaustion, deep_path_exhaustion, killing_init_does_nothing,
    unmapping_everything, closing_everything, racing_unmap_against_write, thread_bomb,
];

/// Calls that take pointers: number, name, and the arguments, in which 1 stands for a pointer and 9
/// for an open file; all others are themselves.
const TABLE: &[(i64, &str, [u8; 6])] = &[
    (SYS_getcwd, "getcwd", [1, 100, 0, 0, 0, 0]),
    (SYS_mkdirat, "mkdirat", [0, 1, 0, 0, 0, 0]),
    (SYS_unlinkat, "unlinkat", [0, 1, 0, 0, 0, 0]),
    (SYS_symlinkat, "symlinkat", [1, 0, 1, 0, 0, 0]),
    (SYS_linkat, "linkat", [0, 1, 0, 1, 0, 0]),
    (SYS_renameat2, "renameat2", [0, 1, 0, 1, 0, 0]),
    (SYS_statfs, "statfs", [1, 1, 0, 0, 0, 0]),
    (SYS_truncate, "truncate", [1, 0, 0, 0, 0, 0]),
    (SYS_faccessat, "faccessat", [0, 1, 0, 0, 0, 0]),
    (SYS_chdir, "chdir", [1, 0, 0, 0, 0, 0]),
    (SYS_chroot, "chroot", [1, 0, 0, 0, 0, 0]),
    (SYS_fchmodat, "fchmodat", [0, 1, 0, 0, 0, 0]),
    (SYS_fchownat, "fchownat", [0, 1, 0, 0, 0, 0]),
    (SYS_openat, "openat", [0, 1, 0, 0, 0, 0]),
    (SYS_pipe2, "pipe2", [1, 0, 0, 0, 0, 0]),
    (SYS_readlinkat, "readlinkat", [0, 1, 1, 8, 0, 0]),
    (SYS_newfstatat, "newfstatat", [0, 1, 1, 0, 0, 0]),
    (SYS_utimensat, "utimensat", [0, 1, 1, 0, 0, 0]),
    (SYS_statx, "statx", [0, 1, 0, 0, 1, 0]),
    (SYS_nanosleep, "nanosleep", [1, 1, 0, 0, 0, 0]),
    (SYS_clock_gettime, "clock_gettime", [0, 1, 0, 0, 0, 0]),
    (SYS_clock_nanosleep, "clock_nanosleep", [0, 0, 1, 1, 0, 0]),
    (SYS_rt_sigaction, "rt_sigaction", [7, 1, 1, 8, 0, 0]),
    (SYS_rt_sigprocmask, "rt_sigprocmask", [0, 1, 1, 8, 0, 0]),
    (SYS_rt_sigsuspend, "rt_sigsuspend", [1, 8, 0, 0, 0, 0]),
    (SYS_sigaltstack, "sigaltstack", [1, 1, 0, 0, 0, 0]),
    (SYS_uname, "uname", [1, 0, 0, 0, 0, 0]),
    (SYS_sethostname, "sethostname", [1, 7, 0, 0, 0, 0]),
    (SYS_getrusage, "getrusage", [0, 1, 0, 0, 0, 0]),
    (SYS_gettimeofday, "gettimeofday", [1, 0, 0, 0, 0, 0]),
    (SYS_sysinfo, "sysinfo", [1, 0, 0, 0, 0, 0]),
    (SYS_times, "times", [1, 0, 0, 0, 0, 0]),
    (SYS_execve, "execve", [1, 1, 1, 0, 0, 0]),
    (SYS_mount, "mount", [1, 1, 1, 0, 1, 0]),
    (SYS_umount2, "umount2", [1, 0, 0, 0, 0, 0]),
    (SYS_pivot_root, "pivot_root", [1, 1, 0, 0, 0, 0]),
    (SYS_getrandom, "getrandom", [1, 8, 0, 0, 0, 0]),
    (SYS_prlimit64, "prlimit64", [0, 7, 1, 1, 0, 0]),
    (SYS_sched_getaffinity, "sched_getaffinity", [0, 128, 1, 0, 0, 0]),
    (SYS_ppoll, "ppoll", [1, 2, 0, 0, 0, 0]),
    (SYS_futex, "futex", [1, 0, 0, 0, 0, 0]),
    (SYS_getresuid, "getresuid", [1, 1, 1, 0, 0, 0]),
    (SYS_getresgid, "getresgid", [1, 1, 1, 0, 0, 0]),
    (SYS_setgroups, "setgroups", [3, 1, 0, 0, 0, 0]),
    (SYS_settimeofday, "settimeofday", [1, 0, 0, 0, 0, 0]),
];

/// Calls on a descriptor, with a buffer.
const ON_FILE: &[(i64, &str, [u8; 6])] = &[
    (SYS_read, "read", [9, 1, 8, 0, 0, 0]),
    (SYS_write, "write", [9, 1, 8, 0, 0, 0]),
    (SYS_readv, "readv", [9, 1, 2, 0, 0, 0]),
    (SYS_writev, "writev", [9, 1, 2, 0, 0, 0]),
    (SYS_pread64, "pread64", [9, 1, 8, 0, 0, 0]),
    (SYS_pwrite64, "pwrite64", [9, 1, 8, 0, 0, 0]),
    (SYS_fstat, "fstat", [9, 1, 0, 0, 0, 0]),
    (SYS_fstatfs, "fstatfs", [9, 1, 0, 0, 0, 0]),
    (SYS_sendfile, "sendfile", [9, 9, 1, 8, 0, 0]),
];

/// Makes each call with `bad` for its pointers; it must fail with EFAULT (another errno is named
/// where Linux sees something else first), and no call may do anything else to this process.
fn attack(bad: u64) -> Outcome {
    make("f", b"0123456789")?;
    let fd = ok!(open_file("f", O_RDWR, 0)) as u64;
    for (number, name, arguments) in TABLE.iter().chain(ON_FILE) {
        let words = arguments.map(|kind| match kind {
            1 => bad,
            9 => fd,
            other => u64::from(other),
        });
        // A directory argument of 0 is standard input, which no path that faults gets to see.
        let value = unsafe { syscall(*number, words[0], words[1], words[2], words[3], words[4], words[5]) };
        let error = std::io::Error::last_os_error().raw_os_error();
        if value != -1 || error != Some(EFAULT) {
            fail!("{name} with {bad:#x} gives {value}, {error:?}");
        }
    }
    eq!(content("f")?, b"0123456789");
    Ok(())
}

fn bad_pointers_to_every_call() -> Outcome {
    let hole = ok!(map(3 * PAGE, PROT_NONE)) as u64;
    attack(hole + 4096)?;
    attack(8)?;
    attack((1 << 48) - 8)?;
    attack(1 << 52)
}

fn kernel_pointers_to_every_call() -> Outcome {
    for bad in [0xffff_8000_0000_0000, 0xffff_0000_0000_0000, 0xffff_ffff_ffff_fff8, 0x8000_0000_0000_0000] {
        attack(bad)?;
    }
    Ok(())
}

fn random_calls() -> Outcome {
    // Any number but those that end or stop the process for good, with numbers of all sizes.
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..40 {
        let mut words = Vec::new();
        for _ in 0..50 {
            let number = (next() % 460) as i64;
            let arguments: [u64; 6] = std::array::from_fn(|_| match next() % 6 {
                0 => 0,
                1 => next() % 64,
                2 => u64::MAX,
                3 => next() & 0xffff_ffff,
                4 => next() & 0xffff_ffff_f000,
                _ => next(),
            });
            words.push((number, arguments));
        }
        let pid = fork_child(|| unsafe {
            setsid();
            close_except_nothing();
            setrlimit(RLIMIT_AS, &rlimit { rlim_cur: 64 << 20, rlim_max: 64 << 20 });
            setrlimit(RLIMIT_NPROC, &rlimit { rlim_cur: 50, rlim_max: 50 });
            setresuid(4321, 4321, 4321);
            alarm(1);
            for (number, arguments) in &words {
                // What would kill others of this user, or wait for ever without a signal.
                if [SYS_kill, SYS_tkill, SYS_tgkill, SYS_rt_sigprocmask, SYS_setpriority, SYS_clone, SYS_clone3].contains(number) {
                    continue;
                }
                syscall(*number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
            }
            0
        });
        // However it ends, it ends: at the latest by the alarm, or by us.
        let until = now() + 3_000_000_000;
        while wait_flags(pid, WNOHANG) == Status::None && now() < until {
            unsafe { usleep(2000) };
        }
        unsafe { kill(pid, SIGKILL) };
        wait_for(pid);
    }
    Ok(())
}

fn close_except_nothing() {
    (0..64).for_each(close_fd);
}

fn memory_exhaustion_kills_or_refuses() -> Outcome {
    // More than the machine has, page by page, in a child that asks to be taken first.
    let mut info = zero::<sysinfo>();
    ok!(libc::sysinfo(&mut info));
    let total = (info.totalram * u64::from(info.mem_unit)) as usize;
    if total > 1 << 30 {
        return Err(Stop::Skip("takes too long with much memory".into()));
    }
    let pid = fork_child(|| {
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        loop {
            let at = map(1 << 20, RW);
            if at as isize == -1 {
                return 0;
            }
            (0..256).for_each(|i| unsafe { at.add(i * PAGE).write_volatile(1) });
        }
    });
    let ended = wait_for(pid);
    check!(matches!(ended, Status::Exited(0) | Status::Killed(SIGKILL)));
    Ok(())
}

fn process_exhaustion_is_eagain() -> Outcome {
    in_child(|| {
        ok!(setrlimit(RLIMIT_NPROC, &rlimit { rlim_cur: 60, rlim_max: 60 }));
        ok!(setresuid(4322, 4322, 4322));
        let mut pids = Vec::new();
        loop {
            let pid = fork_child(|| loop {
                unsafe { pause() };
            });
            if pid < 0 {
                break;
            }
            pids.push(pid);
            check!(pids.len() < 100);
        }
        check!(std::io::Error::last_os_error().raw_os_error() == Some(EAGAIN));
        for pid in &pids {
            ok!(kill(*pid, SIGKILL));
        }
        for pid in pids {
            eq!(wait_for(pid), Status::Killed(SIGKILL));
        }
        Ok(())
    })
}

fn descriptor_exhaustion_is_emfile() -> Outcome {
    in_child(|| {
        let mut count = 0;
        while open_file("/dev/null", O_RDONLY, 0) >= 0 {
            count += 1;
        }
        check!(std::io::Error::last_os_error().raw_os_error() == Some(EMFILE));
        check!(count > 1000 && count < 1024);
        Ok(())
    })
}

#[allow(unconditional_recursion)]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 64]);
    recurse(depth + 1) + room[(depth % 64) as usize]
}

fn endless_recursion_is_segv() -> Outcome {
    let ended = child(|| {
        set_disposition(SIGSEGV, SIG_DFL);
        recurse(0) as i32
    });
    eq!(ended, Status::Killed(SIGSEGV));
    Ok(())
}

fn jump_into_nothing() -> Outcome {
    for target in [0usize, 4, 0xffff_8000_0000_0000, 1 << 47, 0x1234_5678] {
        let ended = child(|| {
            set_disposition(SIGSEGV, SIG_DFL);
            // SAFETY: the child dies of it.
            unsafe { core::arch::asm!("br {}", in(reg) target, options(noreturn)) }
        });
        eq!(ended, Status::Killed(SIGSEGV));
    }
    Ok(())
}

extern "C" fn wreck_frame(_: i32, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gave a ucontext; every word of it becomes nonsense.
    unsafe {
        let context = context.cast::<ucontext_t>();
        (*context).uc_mcontext.pstate = u64::MAX;
        (*context).uc_mcontext.pc = 0xffff_8000_0000_0000;
        (*context).uc_mcontext.sp = 0xffff_8000_0000_0001;
    }
}

fn self_modifying_stack_frame() -> Outcome {
    let ended = child(|| {
        set_disposition(SIGSEGV, SIG_DFL);
        handle(SIGUSR1, wreck_frame, 0);
        unsafe { raise(SIGUSR1) };
        0
    });
    check!(matches!(ended, Status::Killed(SIGSEGV | SIGILL | SIGBUS)));
    Ok(())
}

fn huge_counts() -> Outcome {
    let fd = ok!(open_file("/dev/zero", O_RDONLY, 0));
    let at = ok!(map(PAGE, RW));
    // Counts beyond the address space are refused; nothing is written outside the buffer's map.
    errno!(read(fd, at.cast(), usize::MAX), EFAULT);
    errno!(getrandom(at.cast(), usize::MAX, 0), EFAULT);
    errno!(syscall(SYS_getdents64, fd, at, usize::MAX), ENOTDIR);
    errno!(poll(at.cast(), u64::MAX, 0), EINVAL);
    errno!(setgroups(usize::MAX, at.cast()), EINVAL);
    Ok(())
}

fn pipe_exhaustion() -> Outcome {
    in_child(|| {
        let mut pipes = Vec::new();
        while let Ok((reader, writer)) = new_pipe(O_NONBLOCK) {
            while write_fd(writer, &[0; 4096]) > 0 {}
            pipes.push((reader, writer));
        }
        check!(pipes.len() > 400);
        Ok(())
    })
}

fn deep_path_exhaustion() -> Outcome {
    // Ten thousand levels: built step by step, then removed from below.
    let name = c"d";
    for _ in 0..2000 {
        ok!(mkdir(name.as_ptr(), 0o700));
        ok!(chdir(name.as_ptr()));
    }
    let mut data = [0u8; 4096];
    let value = unsafe { syscall(SYS_getcwd, data.as_mut_ptr(), data.len()) };
    check!(value > 4000 || value == -1);
    for _ in 0..2000 {
        ok!(chdir(c"..".as_ptr()));
        ok!(rmdir(name.as_ptr()));
    }
    Ok(())
}

fn killing_init_does_nothing() -> Outcome {
    for signal in [SIGKILL, SIGSTOP, SIGSEGV] {
        ok!(kill(1, signal));
    }
    let line = String::from_utf8_lossy(&content("/proc/1/stat")?).into_owned();
    check!(!line.contains(") T ") && !line.contains(") Z "));
    Ok(())
}

fn unmapping_everything() -> Outcome {
    let ended = child(|| {
        set_disposition(SIGSEGV, SIG_DFL);
        unsafe { munmap(std::ptr::null_mut(), (1 << 48) - PAGE) };
        0
    });
    eq!(ended, Status::Killed(SIGSEGV));
    Ok(())
}

fn closing_everything() -> Outcome {
    eq!(child(|| { (0..2000).for_each(close_fd); 5 }), Status::Exited(5));
    Ok(())
}

fn racing_unmap_against_write() -> Outcome {
    // One thread maps and unmaps what the other gives to the kernel.
    let at = ok!(map(16 * PAGE, RW)) as usize;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (reader, writer) = new_pipe(O_NONBLOCK)?;
    let other = stop.clone();
    let thread = std::thread::spawn(move || {
        while !other.load(std::sync::atomic::Ordering::SeqCst) {
            let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
            unsafe {
                munmap(at as *mut c_void, 16 * PAGE);
                mmap(at as *mut c_void, 16 * PAGE, RW, flags, -1, 0);
            }
        }
    });
    let mut data = vec![0; 65536];
    for _ in 0..500 {
        let put = unsafe { write(writer, at as *const c_void, 16 * PAGE) };
        check!(put > 0 || matches!(std::io::Error::last_os_error().raw_os_error(), Some(EFAULT | EAGAIN)));
        while read_fd(reader, &mut data) > 0 {}
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    check!(thread.join().is_ok());
    Ok(())
}

fn thread_bomb() -> Outcome {
    let ended = child(|| {
        let mut threads = Vec::new();
        for _ in 0..200 {
            match std::thread::Builder::new().stack_size(65536).spawn(|| loop {
                unsafe { pause() };
            }) {
                Ok(thread) => threads.push(thread),
                Err(_) => break,
            }
        }
        (threads.len() < 50) as i32
    });
    eq!(ended, Status::Exited(0));
    Ok(())
}
