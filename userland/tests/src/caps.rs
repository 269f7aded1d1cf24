//! Capabilities: the five sets, securebits, what ids and exec do to them, and who may do what.

use crate::check::*;
use libc::*;

cases![caps:
    root_has_all, capget_versions, capset_rules, bounding_set_only_falls, ambient_rules, securebits_lock, keepcaps_survives_setuid,
    setuid_drops_and_regains, fsuid_moves_file_capabilities, no_setuid_fixup_keeps_all, status_shows_the_sets,
    exec_by_root_regains, exec_keeps_ambient, exec_with_noroot_is_nobody, no_new_privs_is_a_threads_own, one_capability_suffices,
    dumpable_goes_with_rights, prlimit_permissions, nproc_exceeded_fails_at_exec, limits_file_shows_limits,
];

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

const V1: u32 = 0x1998_0330;
const V2: u32 = 0x2007_1026;
const V3: u32 = 0x2008_0522;

const CHOWN: u64 = 0;
const DAC_OVERRIDE: u64 = 1;
const KILL: u64 = 5;
const SETGID: u64 = 6;
const SETUID: u64 = 7;
const SETPCAP: u64 = 8;
const NET_RAW: u64 = 13;
const LAST: u64 = 40;
const ALL: u64 = (1 << (LAST + 1)) - 1;

/// Effective, permitted, inheritable.
type Sets = [u64; 3];

fn get() -> Result<Sets, Stop> {
    let mut words = [0u32; 6];
    ok!(syscall(SYS_capget, &Header { version: V3, pid: 0 }, words.as_mut_ptr()));
    Ok([0, 1, 2].map(|i| u64::from(words[i]) | u64::from(words[i + 3]) << 32))
}

fn set(sets: Sets) -> i64 {
    let mut words = [0u32; 6];
    for (i, s) in sets.iter().enumerate() {
        words[i] = *s as u32;
        words[i + 3] = (*s >> 32) as u32;
    }
    unsafe { syscall(SYS_capset, &Header { version: V3, pid: 0 }, words.as_ptr()) }
}

const fn bit(cap: u64) -> u64 {
    1 << cap
}

/// prctl with all five arguments.
fn ctl(option: i32, a: u64, b: u64, c: u64, d: u64) -> i32 {
    unsafe { prctl(option, a, b, c, d) }
}

fn ambient(what: i32, cap: u64) -> i32 {
    ctl(PR_CAP_AMBIENT, what as u64, cap, 0, 0)
}

/// What /proc says of this thread's set.
fn shown(name: &str) -> Result<u64, Stop> {
    let text = String::from_utf8_lossy(&content("/proc/thread-self/status")?).into_owned();
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(":\t").map(str::to_owned));
    line.and_then(|l| u64::from_str_radix(&l, 16).ok()).ok_or(Stop::Fail(format!("no {name} in status")))
}

fn root_has_all() -> Outcome {
    eq!(get()?, [ALL, ALL, 0]);
    eq!(ctl(PR_CAPBSET_READ, LAST, 0, 0, 0), 1);
    errno!(ctl(PR_CAPBSET_READ, LAST + 1, 0, 0, 0), EINVAL);
    eq!(ctl(PR_GET_SECUREBITS, 0, 0, 0, 0), 0);
    Ok(())
}

fn capget_versions() -> Outcome {
    let mut words = [9u32; 6];
    let mut header = Header { version: 0, pid: 0 };
    // Without data this asks for the version that the kernel prefers.
    ok!(syscall(SYS_capget, &mut header, 0));
    eq!(header.version, V3);
    header.version = 1;
    errno!(syscall(SYS_capget, &mut header, words.as_mut_ptr()), EINVAL);
    eq!((header.version, words), (V3, [9; 6]));
    header.version = V1;
    ok!(syscall(SYS_capget, &mut header, words.as_mut_ptr()));
    eq!(words, [u32::MAX, u32::MAX, 0, 9, 9, 9]);
    header.version = V2;
    ok!(syscall(SYS_capget, &mut header, words.as_mut_ptr()));
    eq!(words[3..].to_vec(), [0x1ff, 0x1ff, 0]);
    header.pid = -1;
    errno!(syscall(SYS_capget, &mut header, words.as_mut_ptr()), EINVAL);
    header.pid = 4_000_000;
    errno!(syscall(SYS_capget, &mut header, words.as_mut_ptr()), ESRCH);
    header.pid = 1;
    ok!(syscall(SYS_capget, &mut header, words.as_mut_ptr()));
    errno!(syscall(SYS_capset, &mut header, words.as_mut_ptr()), EPERM);
    header.pid = 0;
    errno!(syscall(SYS_capget, &mut header, 8), EFAULT);
    errno!(syscall(SYS_capset, &mut header, 8), EFAULT);
    errno!(syscall(SYS_capset, &mut header, 0), EFAULT);
    errno!(syscall(SYS_capget, 8, words.as_mut_ptr()), EFAULT);
    Ok(())
}

fn capset_rules() -> Outcome {
    in_child(|| {
        // Root with SETPCAP inherits within the bounding set.
        ok!(set([ALL, ALL, bit(KILL)]));
        ok!(set([bit(SETUID), bit(SETUID) | bit(KILL), bit(KILL)]));
        eq!(get()?, [bit(SETUID), bit(SETUID) | bit(KILL), bit(KILL)]);
        errno!(set([0, ALL, 0]), EPERM);
        errno!(set([bit(CHOWN), bit(KILL), 0]), EPERM);
        // Without it only what is permitted.
        errno!(set([0, bit(KILL), bit(NET_RAW)]), EPERM);
        ok!(set([bit(KILL), bit(KILL), bit(KILL)]));
        ok!(set([0, 0, bit(KILL)]));
        errno!(set([0, bit(KILL), bit(KILL)]), EPERM);
        ok!(set([0, 0, 0]));
        errno!(set([0, 0, bit(KILL)]), EPERM);
        Ok(())
    })
}

fn bounding_set_only_falls() -> Outcome {
    in_child(|| {
        ok!(ctl(PR_CAPBSET_DROP, NET_RAW, 0, 0, 0));
        eq!(ctl(PR_CAPBSET_READ, NET_RAW, 0, 0, 0), 0);
        errno!(ctl(PR_CAPBSET_DROP, LAST + 1, 0, 0, 0), EINVAL);
        // What is permitted stays; it can be inherited no more.
        eq!(get()?, [ALL, ALL, 0]);
        errno!(set([ALL, ALL, bit(NET_RAW)]), EPERM);
        ok!(set([ALL & !bit(SETPCAP), ALL, 0]));
        errno!(ctl(PR_CAPBSET_DROP, KILL, 0, 0, 0), EPERM);
        errno!(ctl(PR_CAPBSET_DROP, LAST + 1, 0, 0, 0), EPERM);
        Ok(())
    })
}

fn ambient_rules() -> Outcome {
    in_child(|| {
        errno!(ambient(PR_CAP_AMBIENT_RAISE, KILL), EPERM);
        ok!(set([ALL, ALL, bit(KILL) | bit(SETUID)]));
        ok!(ambient(PR_CAP_AMBIENT_RAISE, KILL));
        ok!(ambient(PR_CAP_AMBIENT_RAISE, SETUID));
        eq!(ambient(PR_CAP_AMBIENT_IS_SET, KILL), 1);
        eq!(ambient(PR_CAP_AMBIENT_IS_SET, CHOWN), 0);
        ok!(ambient(PR_CAP_AMBIENT_LOWER, SETUID));
        eq!(ambient(PR_CAP_AMBIENT_IS_SET, SETUID), 0);
        // It goes with what it depends on.
        ok!(set([ALL, ALL, 0]));
        eq!(ambient(PR_CAP_AMBIENT_IS_SET, KILL), 0);
        ok!(set([ALL, ALL, bit(KILL)]));
        ok!(ambient(PR_CAP_AMBIENT_RAISE, KILL));
        ok!(ambient(PR_CAP_AMBIENT_CLEAR_ALL, 0));
        eq!(ambient(PR_CAP_AMBIENT_IS_SET, KILL), 0);
        errno!(ambient(PR_CAP_AMBIENT_CLEAR_ALL, 1), EINVAL);
        errno!(ambient(PR_CAP_AMBIENT_IS_SET, LAST + 1), EINVAL);
        errno!(ambient(9, KILL), EINVAL);
        errno!(ctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET as u64, KILL, 1, 0), EINVAL);
        errno!(ctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET as u64, KILL, 0, 1), EINVAL);
        ok!(ctl(PR_SET_SECUREBITS, 1 << 6, 0, 0, 0));
        errno!(ambient(PR_CAP_AMBIENT_RAISE, KILL), EPERM);
        Ok(())
    })
}

fn securebits_lock() -> Outcome {
    in_child(|| {
        ok!(ctl(PR_SET_SECUREBITS, 0b101, 0, 0, 0));
        eq!(ctl(PR_GET_SECUREBITS, 0, 0, 0, 0), 0b101);
        ok!(ctl(PR_SET_SECUREBITS, 0b1100, 0, 0, 0));
        // Locked on, and the lock stays.
        errno!(ctl(PR_SET_SECUREBITS, 0b1000, 0, 0, 0), EPERM);
        errno!(ctl(PR_SET_SECUREBITS, 0b100, 0, 0, 0), EPERM);
        errno!(ctl(PR_SET_SECUREBITS, 1 << 8 | 0b1100, 0, 0, 0), EPERM);
        ok!(ctl(PR_SET_SECUREBITS, 0b1101, 0, 0, 0));
        errno!(ctl(PR_SET_KEEPCAPS, 2, 0, 0, 0), EINVAL);
        ok!(ctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
        eq!(ctl(PR_GET_KEEPCAPS, 0, 0, 0, 0), 1);
        eq!(ctl(PR_GET_SECUREBITS, 0, 0, 0, 0), 0b11101);
        ok!(ctl(PR_SET_SECUREBITS, 0b101101, 0, 0, 0));
        errno!(ctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), EPERM);
        ok!(set([ALL & !bit(SETPCAP), ALL, 0]));
        errno!(ctl(PR_SET_SECUREBITS, 0b101101, 0, 0, 0), EPERM);
        Ok(())
    })
}

fn keepcaps_survives_setuid() -> Outcome {
    in_child(|| {
        ok!(ctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
        ok!(setresuid(5, 5, 5));
        eq!(get()?, [0, ALL, 0]);
        ok!(set([bit(KILL), bit(KILL), 0]));
        ok!(kill(1, 0));
        Ok(())
    })?;
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        eq!(get()?, [0, 0, 0]);
        errno!(kill(1, 0), EPERM);
        Ok(())
    })
}

fn setuid_drops_and_regains() -> Outcome {
    in_child(|| {
        ok!(set([ALL, ALL & !bit(NET_RAW), 0].map(|s| s & !bit(NET_RAW))));
        ok!(seteuid(5));
        eq!(get()?, [0, ALL & !bit(NET_RAW), 0]);
        ok!(seteuid(0));
        eq!(get()?, [ALL & !bit(NET_RAW), ALL & !bit(NET_RAW), 0]);
        ok!(setresuid(5, 5, 0));
        eq!(get()?, [0, ALL & !bit(NET_RAW), 0]);
        ok!(setresuid(5, 0, 5));
        ok!(setresuid(5, 5, 5));
        eq!(get()?, [0, 0, 0]);
        Ok(())
    })
}

fn fsuid_moves_file_capabilities() -> Outcome {
    const FILES: u64 = 0b11111 | 1 << 9 | 1 << 27 | 1 << 32;
    make("secret", b"x")?;
    ok!(chmod(c"secret".as_ptr(), 0));
    in_child(|| {
        eq!(unsafe { setfsuid(5) }, 0);
        eq!(get()?, [ALL & !FILES, ALL, 0]);
        errno!(open_file("secret", O_RDONLY, 0), EACCES);
        eq!(unsafe { setfsuid(0) }, 5);
        eq!(get()?, [ALL, ALL, 0]);
        close_fd(ok!(open_file("secret", O_RDONLY, 0)));
        Ok(())
    })
}

fn no_setuid_fixup_keeps_all() -> Outcome {
    in_child(|| {
        ok!(ctl(PR_SET_SECUREBITS, 0b100, 0, 0, 0));
        ok!(setresuid(5, 5, 5));
        eq!(get()?, [ALL, ALL, 0]);
        ok!(setresuid(0, 5, 7));
        Ok(())
    })
}

fn status_shows_the_sets() -> Outcome {
    in_child(|| {
        ok!(set([ALL, ALL, bit(KILL)]));
        ok!(ambient(PR_CAP_AMBIENT_RAISE, KILL));
        ok!(ctl(PR_CAPBSET_DROP, NET_RAW, 0, 0, 0));
        ok!(set([ALL & !bit(CHOWN), ALL, bit(KILL)]));
        eq!(shown("CapInh")?, bit(KILL));
        eq!(shown("CapPrm")?, ALL);
        eq!(shown("CapEff")?, ALL & !bit(CHOWN));
        eq!(shown("CapBnd")?, ALL & !bit(NET_RAW));
        eq!(shown("CapAmb")?, bit(KILL));
        Ok(())
    })
}

/// The sets (effective, permitted, ambient) that a program has when this process runs it.
fn after_exec() -> Result<[u64; 3], Stop> {
    let out = match std::process::Command::new("/proc/self/exe").arg("--helper=status").output() {
        Ok(out) => String::from_utf8_lossy(&out.stdout).into_owned(),
        Err(error) => fail!("exec: {error}"),
    };
    let of = |name: &str| {
        let line = out.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(":\t").map(str::to_owned));
        line.and_then(|l| u64::from_str_radix(&l, 16).ok()).ok_or(Stop::Fail(format!("no {name} in {out:?}")))
    };
    Ok([of("CapEff")?, of("CapPrm")?, of("CapAmb")?])
}

fn exec_by_root_regains() -> Outcome {
    in_child(|| {
        ok!(ctl(PR_CAPBSET_DROP, NET_RAW, 0, 0, 0));
        ok!(set([bit(DAC_OVERRIDE), bit(DAC_OVERRIDE), 0]));
        eq!(after_exec()?, [ALL & !bit(NET_RAW), ALL & !bit(NET_RAW), 0]);
        // Not with no_new_privs.
        ok!(ctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        eq!(after_exec()?, [bit(DAC_OVERRIDE), bit(DAC_OVERRIDE), 0]);
        Ok(())
    })
}

fn exec_keeps_ambient() -> Outcome {
    in_child(|| {
        ok!(ctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
        ok!(setresuid(5, 5, 5));
        ok!(set([ALL, ALL, bit(KILL) | bit(SETGID)]));
        ok!(ambient(PR_CAP_AMBIENT_RAISE, KILL));
        eq!(after_exec()?, [bit(KILL), bit(KILL), bit(KILL)]);
        ok!(ambient(PR_CAP_AMBIENT_CLEAR_ALL, 0));
        eq!(after_exec()?, [0, 0, 0]);
        Ok(())
    })
}

fn exec_with_noroot_is_nobody() -> Outcome {
    in_child(|| {
        ok!(ctl(PR_SET_SECUREBITS, 1, 0, 0, 0));
        eq!(after_exec()?, [0, 0, 0]);
        Ok(())
    })
}

fn no_new_privs_is_a_threads_own() -> Outcome {
    in_child(|| {
        errno!(ctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
        errno!(ctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0), EINVAL);
        errno!(ctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0), EINVAL);
        let other = std::thread::spawn(|| ctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) + 10 * ctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
        eq!(other.join().ok(), Some(10));
        eq!(ctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
        eq!(shown("NoNewPrivs")?, 0);
        ok!(ctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        eq!(shown("NoNewPrivs")?, 1);
        eq!(child(|| ctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)), Status::Exited(1));
        eq!(std::thread::spawn(|| ctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)).join().ok(), Some(1));
        Ok(())
    })
}

/// Runs `body` as user 5 with one capability.
fn with_only(cap: u64, body: impl FnOnce() -> Outcome) -> Outcome {
    in_child(|| {
        ok!(ctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
        ok!(setresuid(5, 5, 5));
        ok!(set([bit(cap), bit(cap), 0]));
        body()
    })
}

fn one_capability_suffices() -> Outcome {
    make("f", b"x")?;
    ok!(chmod(c"f".as_ptr(), 0o600));
    ok!(chmod(c".".as_ptr(), 0o755));
    with_only(CHOWN, || {
        ok!(chown(c"f".as_ptr(), 0, 7));
        errno!(open_file("f", O_RDONLY, 0), EACCES);
        Ok(())
    })?;
    with_only(DAC_OVERRIDE, || {
        close_fd(ok!(open_file("f", O_RDWR, 0)));
        errno!(chown(c"f".as_ptr(), 0, 8), EPERM);
        Ok(())
    })?;
    with_only(2, || {
        close_fd(ok!(open_file("f", O_RDONLY, 0)));
        errno!(open_file("f", O_WRONLY, 0), EACCES);
        Ok(())
    })?;
    with_only(3, || {
        ok!(chmod(c"f".as_ptr(), 0o640));
        Ok(())
    })?;
    with_only(KILL, || {
        ok!(kill(1, 0));
        errno!(setuid(0), EPERM);
        Ok(())
    })?;
    with_only(SETUID, || {
        ok!(setresuid(6, 7, 8));
        errno!(setgid(3), EPERM);
        Ok(())
    })?;
    with_only(SETGID, || {
        ok!(setgroups(2, [1, 2].as_ptr()));
        ok!(setresgid(6, 7, 8));
        errno!(setuid(3), EPERM);
        Ok(())
    })?;
    with_only(18, || {
        ok!(chroot(c".".as_ptr()));
        Ok(())
    })?;
    with_only(23, || {
        ok!(setpriority(PRIO_PROCESS, 0, -5));
        ok!(setpriority(PRIO_PROCESS, getppid() as u32, 0));
        Ok(())
    })?;
    with_only(24, || {
        let more = rlimit { rlim_cur: 5000, rlim_max: 6000 };
        ok!(setrlimit(RLIMIT_NOFILE, &more));
        Ok(())
    })?;
    with_only(27, || {
        ok!(mkfifo(c"/tmp/linnet-tests-node".as_ptr(), 0o600));
        ok!(unlink(c"/tmp/linnet-tests-node".as_ptr()));
        ok!(mknod(c"/tmp/linnet-tests-node".as_ptr(), S_IFCHR | 0o600, makedev(1, 3)));
        ok!(unlink(c"/tmp/linnet-tests-node".as_ptr()));
        Ok(())
    })
}

fn dumpable_goes_with_rights() -> Outcome {
    in_child(|| {
        eq!(ctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 1);
        ok!(seteuid(5));
        eq!(ctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
        errno!(ctl(PR_SET_DUMPABLE, 2, 0, 0, 0), EINVAL);
        ok!(ctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
        eq!(ctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 1);
        // Losing capabilities changes nothing.
        ok!(seteuid(0));
        ok!(ctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
        ok!(set([0, 0, 0]));
        eq!(ctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 1);
        Ok(())
    })
}

fn prlimit_permissions() -> Outcome {
    let pid = fork_child(|| loop {
        unsafe { pause() };
    });
    let mut old = zero::<rlimit64>();
    let none = std::ptr::null();
    ok!(prlimit64(pid, RLIMIT_NOFILE, none, &mut old));
    let new = rlimit64 { rlim_cur: 77, rlim_max: old.rlim_max };
    ok!(prlimit64(pid, RLIMIT_NOFILE, &new, std::ptr::null_mut()));
    ok!(prlimit64(pid, RLIMIT_NOFILE, none, &mut old));
    eq!(old.rlim_cur, 77);
    errno!(prlimit64(pid, 99, none, &mut old), EINVAL);
    errno!(prlimit64(4_000_000, RLIMIT_NOFILE, none, &mut old), ESRCH);
    errno!(prlimit64(-1, RLIMIT_NOFILE, none, &mut old), ESRCH);
    let crossed = rlimit64 { rlim_cur: 5, rlim_max: 4 };
    errno!(prlimit64(pid, RLIMIT_CORE, &crossed, std::ptr::null_mut()), EINVAL);
    in_child(|| {
        ok!(setresuid(5, 5, 5));
        errno!(prlimit64(pid, RLIMIT_NOFILE, none, &mut old), EPERM);
        // Permission comes before the resource.
        errno!(prlimit64(pid, 99, none, &mut old), EPERM);
        ok!(prlimit64(0, RLIMIT_NOFILE, none, &mut old));
        Ok(())
    })?;
    with_only(24, || {
        ok!(prlimit64(pid, RLIMIT_NOFILE, none, &mut zero::<rlimit64>()));
        Ok(())
    })?;
    ok!(kill(pid, SIGKILL));
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    Ok(())
}

fn nproc_exceeded_fails_at_exec() -> Outcome {
    in_child(|| {
        // Two processes of the user are more than one.
        let others = [0, 1].map(|_| {
            fork_child(|| unsafe {
                setresuid(4343, 4343, 4343);
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                pause()
            })
        });
        for pid in others {
            for _ in 0..1000 {
                if stat_of(&format!("/proc/{pid}/task"))?.st_uid == 4343 || content(&format!("/proc/{pid}/status"))?.windows(9).any(|w| w == b"Uid:\t4343") {
                    break;
                }
                unsafe { usleep(1000) };
            }
        }
        let one = rlimit { rlim_cur: 1, rlim_max: 1 };
        ok!(setrlimit(RLIMIT_NPROC, &one));
        // The change of ids succeeds, what it was for does not.
        ok!(setresuid(4343, 4343, 4343));
        let name = c("/proc/self/exe");
        let word = c("--helper=none");
        let arguments = [name.as_ptr(), word.as_ptr(), std::ptr::null()];
        let done = unsafe { execve(name.as_ptr(), arguments.as_ptr(), arguments[2..].as_ptr()) };
        let error = std::io::Error::last_os_error().raw_os_error();
        for pid in others {
            ok!(kill(pid, SIGKILL));
            eq!(wait_for(pid), Status::Killed(SIGKILL));
        }
        eq!((done, error), (-1, Some(EAGAIN)));
        Ok(())
    })
}

fn limits_file_shows_limits() -> Outcome {
    in_child(|| {
        let some = rlimit { rlim_cur: 33, rlim_max: 44 };
        ok!(setrlimit(RLIMIT_NOFILE, &some));
        let text = String::from_utf8_lossy(&content("/proc/self/limits")?).into_owned();
        check!(text.contains("Max open files            33                   44                   files     \n"));
        check!(text.starts_with("Limit                     Soft Limit           Hard Limit           Units     \n"));
        check!(text.contains("Max cpu time              unlimited            unlimited            seconds   \n"));
        eq!(text.lines().count(), 17);
        Ok(())
    })
}
