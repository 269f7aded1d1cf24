//! The system as a whole: names, limits, mounts, prctl, sysinfo.

use crate::check::*;
use libc::*;

cases![system:
    uname_says_linux_aarch64, hostname_set_and_read, hostname_too_long_is_einval, limits_have_their_defaults,
    prlimit_sets_and_reads, limit_errors, file_size_limit_is_sigxfsz, sysinfo_counts, mount_and_umount_tmpfs, mount_errors,
    umount_busy_is_ebusy, bind_mount_shows_the_same, mount_hides_and_umount_shows, read_only_mount_is_erofs, prctl_values,
    unknown_call_is_enosys, reboot_needs_its_magic, tmpfs_size_limit_is_enospc, dev_nodes, pivot_root_errors, lazy_umount,
    console_is_a_terminal, getcpu_is_in_range, personality_or_enosys,
];

fn uname_says_linux_aarch64() -> Outcome {
    let mut name = zero::<utsname>();
    ok!(uname(&mut name));
    let field = |text: &[c_char]| text.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8 as char).collect::<String>();
    eq!(field(&name.sysname), "Linux");
    eq!(field(&name.machine), "aarch64");
    check!(field(&name.release).starts_with("6.1."));
    Ok(())
}

fn hostname_set_and_read() -> Outcome {
    let mut old = [0 as c_char; 65];
    ok!(gethostname(old.as_mut_ptr(), 65));
    ok!(sethostname(c"other-name".as_ptr(), 10));
    let mut name = [0 as c_char; 65];
    ok!(gethostname(name.as_mut_ptr(), 65));
    ok!(sethostname(old.as_ptr(), strlen(old.as_ptr())));
    eq!(unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) }, c"other-name");
    Ok(())
}

fn hostname_too_long_is_einval() -> Outcome {
    errno!(sethostname([b'x'; 65].as_ptr().cast(), 65), EINVAL);
    errno!(syscall(SYS_sethostname, c"x".as_ptr(), -1), EINVAL);
    errno!(sethostname(8 as *const c_char, 5), EFAULT);
    Ok(())
}

fn limit(what: u32) -> (u64, u64) {
    let mut out = zero::<rlimit>();
    unsafe { getrlimit(what, &mut out) };
    (out.rlim_cur, out.rlim_max)
}

fn limits_have_their_defaults() -> Outcome {
    eq!(limit(RLIMIT_STACK), (8 << 20, RLIM_INFINITY));
    eq!(limit(RLIMIT_NOFILE).0, 1024);
    eq!(limit(RLIMIT_CPU), (RLIM_INFINITY, RLIM_INFINITY));
    eq!(limit(RLIMIT_CORE).0, 0);
    Ok(())
}

fn prlimit_sets_and_reads() -> Outcome {
    in_child(|| {
        let new = rlimit { rlim_cur: 100, rlim_max: 200 };
        let mut old = zero::<rlimit>();
        ok!(prlimit(0, RLIMIT_NOFILE, &new, &mut old));
        eq!(old.rlim_cur, 1024);
        eq!(limit(RLIMIT_NOFILE), (100, 200));
        eq!(child(|| (limit(RLIMIT_NOFILE) != (100, 200)) as i32), Status::Exited(0));
        Ok(())
    })
}

fn limit_errors() -> Outcome {
    let mut out = zero::<rlimit>();
    errno!(syscall(SYS_prlimit64, 0, 99, 0, &mut out), EINVAL);
    errno!(syscall(SYS_prlimit64, 99999, RLIMIT_CPU, 0, &mut out), ESRCH);
    let bad = rlimit { rlim_cur: 5, rlim_max: 4 };
    errno!(setrlimit(RLIMIT_CORE, &bad), EINVAL);
    in_child(|| {
        ok!(setrlimit(RLIMIT_NOFILE, &rlimit { rlim_cur: 50, rlim_max: 50 }));
        ok!(setresuid(5, 5, 5));
        errno!(setrlimit(RLIMIT_NOFILE, &rlimit { rlim_cur: 50, rlim_max: 51 }), EPERM);
        Ok(())
    })
}

fn file_size_limit_is_sigxfsz() -> Outcome {
    let fd = ok!(open_file("f", O_CREAT | O_RDWR, 0o600));
    ok!(setrlimit(RLIMIT_FSIZE, &rlimit { rlim_cur: 5000, rlim_max: RLIM_INFINITY }));
    eq!(write_fd(fd, &[1; 6000]), 5000);
    eq!(child(|| { write_fd(fd, b"x"); 0 }), Status::Killed(SIGXFSZ));
    set_disposition(SIGXFSZ, SIG_IGN);
    errno!(write(fd, [1u8; 1].as_ptr().cast(), 1), EFBIG);
    errno!(ftruncate(fd, 6000), EFBIG);
    Ok(())
}

fn sysinfo_counts() -> Outcome {
    let mut out = zero::<sysinfo>();
    ok!(libc::sysinfo(&mut out));
    check!(out.procs >= 3);
    check!(out.freeram < out.totalram && out.totalram > 0);
    check!((out.uptime - (clock(CLOCK_BOOTTIME) / 1_000_000_000) as i64).abs() <= 2);
    Ok(())
}

fn mount_tmpfs(place: &std::ffi::CStr, flags: u64, options: &std::ffi::CStr) -> i32 {
    unsafe { mount(c"none".as_ptr(), place.as_ptr(), c"tmpfs".as_ptr(), flags, options.as_ptr().cast()) }
}

fn mount_and_umount_tmpfs() -> Outcome {
    ok!(mkdir(c"m".as_ptr(), 0o755));
    ok!(mount_tmpfs(c"m", 0, c"mode=700"));
    eq!(stat_of("m")?.st_mode & 0o777, 0o700);
    check!(stat_of("m")?.st_dev != stat_of(".")?.st_dev);
    make("m/f", b"x")?;
    ok!(umount(c"m".as_ptr()));
    errno!(access(c"m/f".as_ptr(), F_OK), ENOENT);
    errno!(umount(c"m".as_ptr()), EINVAL);
    Ok(())
}

fn mount_errors() -> Outcome {
    ok!(mkdir(c"m".as_ptr(), 0o755));
    make("f", b"")?;
    errno!(mount(c"none".as_ptr(), c"m".as_ptr(), c"nosuchfs".as_ptr(), 0, std::ptr::null()), ENODEV);
    errno!(mount_tmpfs(c"missing", 0, c""), ENOENT);
    errno!(mount_tmpfs(c"f", 0, c""), ENOTDIR);
    errno!(mount_tmpfs(c"m", 0, c"mode=nonsense"), EINVAL);
    errno!(umount2(c"m".as_ptr(), 0x100), EINVAL);
    errno!(umount2(c"missing".as_ptr(), 0), ENOENT);
    Ok(())
}

fn umount_busy_is_ebusy() -> Outcome {
    ok!(mkdir(c"m".as_ptr(), 0o755));
    ok!(mount_tmpfs(c"m", 0, c""));
    let fd = ok!(open_file("m/f", O_CREAT | O_RDWR, 0o600));
    errno!(umount(c"m".as_ptr()), EBUSY);
    close_fd(fd);
    ok!(chdir(c"m".as_ptr()));
    errno!(umount(c"../m".as_ptr()), EBUSY);
    ok!(chdir(c"..".as_ptr()));
    ok!(umount(c"m".as_ptr()));
    Ok(())
}

fn lazy_umount() -> Outcome {
    ok!(mkdir(c"m".as_ptr(), 0o755));
    ok!(mount_tmpfs(c"m", 0, c""));
    let fd = ok!(open_file("m/f", O_CREAT | O_RDWR, 0o600));
    ok!(umount2(c"m".as_ptr(), MNT_DETACH));
    errno!(access(c"m/f".as_ptr(), F_OK), ENOENT);
    eq!(write_fd(fd, b"still"), 5);
    Ok(())
}

fn bind_mount_shows_the_same() -> Outcome {
    ok!(mkdir(c"a".as_ptr(), 0o755));
    ok!(mkdir(c"b".as_ptr(), 0o755));
    make("a/f", b"same")?;
    if unsafe { mount(c"a".as_ptr(), c"b".as_ptr(), std::ptr::null(), MS_BIND, std::ptr::null()) } != 0 {
        return Err(Stop::Skip("no bind mounts".into()));
    }
    eq!(content("b/f")?, b"same");
    eq!(stat_of("a/f")?.st_ino, stat_of("b/f")?.st_ino);
    ok!(umount(c"b".as_ptr()));
    errno!(access(c"b/f".as_ptr(), F_OK), ENOENT);
    Ok(())
}

fn mount_hides_and_umount_shows() -> Outcome {
    ok!(mkdir(c"m".as_ptr(), 0o755));
    make("m/below", b"x")?;
    ok!(mount_tmpfs(c"m", 0, c""));
    errno!(access(c"m/below".as_ptr(), F_OK), ENOENT);
    eq!(stat_of("m/..")?.st_ino, stat_of(".")?.st_ino);
    ok!(umount(c"m".as_ptr()));
    stat_of("m/below")?;
    Ok(())
}

fn read_only_mount_is_erofs() -> Outcome {
    ok!(mkdir(c"m".as_ptr(), 0o755));
    ok!(mount_tmpfs(c"m", 0, c""));
    make("m/f", b"x")?;
    ok!(mount_tmpfs(c"m", MS_REMOUNT | MS_RDONLY, c""));
    errno!(open(c"m/f".as_ptr(), O_RDWR), EROFS);
    errno!(open(c"m/g".as_ptr(), O_CREAT | O_RDWR, 0o600), EROFS);
    errno!(unlink(c"m/f".as_ptr()), EROFS);
    errno!(mkdir(c"m/d".as_ptr(), 0o700), EROFS);
    errno!(chmod(c"m/f".as_ptr(), 0o600), EROFS);
    eq!(content("m/f")?, b"x");
    ok!(umount(c"m".as_ptr()));
    Ok(())
}

fn tmpfs_size_limit_is_enospc() -> Outcome {
    ok!(mkdir(c"m".as_ptr(), 0o755));
    ok!(mount_tmpfs(c"m", 0, c"size=100k"));
    let fd = ok!(open_file("m/f", O_CREAT | O_RDWR, 0o600));
    let mut total = 0;
    loop {
        let put = write_fd(fd, &[1; 4096]);
        if put < 0 {
            break;
        }
        total += put;
    }
    check!(std::io::Error::last_os_error().raw_os_error() == Some(ENOSPC));
    eq!(total, 102_400);
    ok!(ftruncate(fd, 0));
    eq!(write_fd(fd, &[1; 4096]), 0x1000);
    close_fd(fd);
    ok!(umount(c"m".as_ptr()));
    Ok(())
}

fn prctl_values() -> Outcome {
    in_child(|| {
        eq!(ok!(prctl(PR_GET_DUMPABLE)), 1);
        ok!(prctl(PR_SET_PDEATHSIG, SIGTERM));
        let mut signal = 0;
        ok!(prctl(PR_GET_PDEATHSIG, &mut signal));
        eq!(signal, SIGTERM);
        errno!(prctl(PR_SET_PDEATHSIG, 99), EINVAL);
        errno!(prctl(99999, 0, 0, 0, 0), EINVAL);
        errno!(prctl(PR_SET_NAME, 8), EFAULT);
        Ok(())
    })
}

fn unknown_call_is_enosys() -> Outcome {
    for number in [9999i64, 1 << 31, -1, 600] {
        errno!(syscall(number, 1, 2, 3), ENOSYS);
    }
    Ok(())
}

fn reboot_needs_its_magic() -> Outcome {
    errno!(syscall(SYS_reboot, 1, 2, 3, 0), EINVAL);
    errno!(syscall(SYS_reboot, 0xfee1deadu32, 672274793, 99, 0), EINVAL);
    ok!(syscall(SYS_reboot, 0xfee1deadu32, 672274793, 0, 0));
    Ok(())
}

fn dev_nodes() -> Outcome {
    for name in ["null", "zero", "full", "random", "urandom", "tty", "console", "kmsg", "ttyAMA0"] {
        let path = format!("/dev/{name}");
        eq!(stat_of(&path)?.st_mode & S_IFMT, S_IFCHR);
    }
    Ok(())
}

fn pivot_root_errors() -> Outcome {
    ok!(mkdir(c"m".as_ptr(), 0o755));
    errno!(syscall(SYS_pivot_root, c"missing".as_ptr(), c"m".as_ptr()), ENOENT);
    errno!(syscall(SYS_pivot_root, c"m".as_ptr(), c"m".as_ptr()), EINVAL);
    Ok(())
}

fn console_is_a_terminal() -> Outcome {
    let fd = ok!(open_file("/dev/console", O_RDWR | O_NOCTTY, 0));
    let mut settings = zero::<termios>();
    ok!(tcgetattr(fd, &mut settings));
    let mut size = zero::<winsize>();
    ok!(ioctl(fd, TIOCGWINSZ, &mut size));
    errno!(ioctl(fd, 0x9999, 0), ENOTTY);
    errno!(ioctl(fd, TIOCGWINSZ, 8), EFAULT);
    let null = ok!(open_file("/dev/null", O_RDWR, 0));
    errno!(ioctl(null, TIOCGWINSZ, &mut size), ENOTTY);
    Ok(())
}

fn getcpu_is_in_range() -> Outcome {
    let (mut cpu, mut node) = (9999u32, 9999u32);
    ok!(syscall(SYS_getcpu, &mut cpu, &mut node, 0));
    check!(cpu < 1024);
    eq!(node, 0);
    Ok(())
}

fn personality_or_enosys() -> Outcome {
    if unsafe { personality(0xffff_ffff) } < 0 {
        return Err(Stop::Skip("no personality".into()));
    }
    Ok(())
}
