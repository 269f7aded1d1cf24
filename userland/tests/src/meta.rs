//! What inodes carry: stat, statx, permissions, owners, times, statfs.

use crate::check::*;
use libc::*;

cases![meta:
    stat_of_file, stat_of_devices, fstatat_empty_path, statx_agrees_with_stat, statx_bad_flags_is_einval, access_as_root,
    access_as_user, permission_bits_bind_users, directory_search_needs_x, sticky_directory_protects, chmod_keeps_type,
    chmod_by_stranger_is_eperm, chown_clears_setuid, chown_by_user_is_eperm, utimensat_sets, utimensat_now_and_omit,
    utimensat_bad_nanoseconds_is_einval, write_updates_mtime, umask_returns_old, mknod_device_node, statfs_of_tmpfs,
    fchmodat_and_fchownat, faccessat_errors, statx_times_agree,
];

/// Runs checks as user and group 1000, without root's rights.
fn as_user(body: impl FnOnce() -> Outcome) -> Outcome {
    in_child(|| {
        ok!(setgroups(0, std::ptr::null()));
        ok!(setresgid(1000, 1000, 1000));
        ok!(setresuid(1000, 1000, 1000));
        body()
    })
}

fn stat_of_file() -> Outcome {
    make("f", &[0; 5000])?;
    let out = stat_of("f")?;
    eq!(out.st_size, 5000);
    eq!(out.st_nlink, 1);
    eq!(out.st_uid, 0);
    eq!(out.st_gid, 0);
    eq!(out.st_blksize, 4096);
    eq!(out.st_blocks, 16);
    eq!(out.st_dev, stat_of(".")?.st_dev);
    check!(out.st_ino != stat_of(".")?.st_ino);
    Ok(())
}

fn stat_of_devices() -> Outcome {
    for (path, major, minor) in [("/dev/null", 1, 3), ("/dev/zero", 1, 5), ("/dev/full", 1, 7), ("/dev/urandom", 1, 9), ("/dev/tty", 5, 0)] {
        let out = stat_of(path)?;
        eq!(out.st_mode & S_IFMT, S_IFCHR);
        eq!(out.st_rdev, makedev(major, minor));
    }
    Ok(())
}

fn fstatat_empty_path() -> Outcome {
    let fd = ok!(open_file("f", O_CREAT | O_RDWR, 0o600));
    let mut out = zero::<libc::stat>();
    ok!(fstatat(fd, c"".as_ptr(), &mut out, AT_EMPTY_PATH));
    eq!(out.st_ino, stat_of("f")?.st_ino);
    errno!(fstatat(fd, c"".as_ptr(), &mut out, 0), ENOENT);
    Ok(())
}

fn statx_agrees_with_stat() -> Outcome {
    make("f", b"123")?;
    let mut x = zero::<statx>();
    ok!(libc::statx(AT_FDCWD, c"f".as_ptr(), 0, STATX_BASIC_STATS, &mut x));
    let out = stat_of("f")?;
    check!(x.stx_mask & STATX_BASIC_STATS == STATX_BASIC_STATS);
    eq!(u32::from(x.stx_mode), out.st_mode);
    eq!(x.stx_size, 3);
    eq!(x.stx_ino, out.st_ino);
    eq!(makedev(x.stx_dev_major, x.stx_dev_minor), out.st_dev);
    eq!(x.stx_nlink, 1);
    Ok(())
}

fn statx_times_agree() -> Outcome {
    make("f", b"123")?;
    let mut x = zero::<statx>();
    ok!(libc::statx(AT_FDCWD, c"f".as_ptr(), 0, STATX_BASIC_STATS, &mut x));
    let out = stat_of("f")?;
    eq!((x.stx_mtime.tv_sec, i64::from(x.stx_mtime.tv_nsec)), (out.st_mtime, out.st_mtime_nsec));
    eq!((x.stx_ctime.tv_sec, i64::from(x.stx_ctime.tv_nsec)), (out.st_ctime, out.st_ctime_nsec));
    Ok(())
}

fn statx_bad_flags_is_einval() -> Outcome {
    let mut x = zero::<statx>();
    errno!(libc::statx(AT_FDCWD, c".".as_ptr(), 0x1, STATX_BASIC_STATS, &mut x), EINVAL);
    errno!(libc::statx(AT_FDCWD, c".".as_ptr(), 0, 0x8000_0000, &mut x), EINVAL);
    Ok(())
}

fn access_as_root() -> Outcome {
    make("f", b"")?;
    ok!(chmod(c"f".as_ptr(), 0));
    ok!(access(c"f".as_ptr(), R_OK | W_OK));
    errno!(access(c"f".as_ptr(), X_OK), EACCES);
    ok!(chmod(c"f".as_ptr(), 0o001));
    ok!(access(c"f".as_ptr(), X_OK));
    Ok(())
}

fn access_as_user() -> Outcome {
    make("f", b"")?;
    ok!(chmod(c"f".as_ptr(), 0o604));
    as_user(|| {
        ok!(access(c"f".as_ptr(), F_OK));
        ok!(access(c"f".as_ptr(), R_OK));
        errno!(access(c"f".as_ptr(), W_OK), EACCES);
        Ok(())
    })
}

fn faccessat_errors() -> Outcome {
    errno!(access(c"missing".as_ptr(), F_OK), ENOENT);
    errno!(syscall(SYS_faccessat, AT_FDCWD, c".".as_ptr(), 8), EINVAL);
    errno!(syscall(SYS_faccessat, 999, c"x".as_ptr(), 0), EBADF);
    Ok(())
}

fn permission_bits_bind_users() -> Outcome {
    make("f", b"x")?;
    for (mode, owner, group, reads) in [
        (0o600, 1000, 0, true),
        (0o060, 1000, 1000, false),
        (0o060, 0, 1000, true),
        (0o006, 0, 1000, false),
        (0o006, 0, 0, true),
        (0o000, 0, 0, false),
    ] {
        ok!(chown(c"f".as_ptr(), owner, group));
        ok!(chmod(c"f".as_ptr(), mode));
        as_user(|| {
            if reads {
                ok!(open(c"f".as_ptr(), O_RDWR));
            } else {
                errno!(open(c"f".as_ptr(), O_RDONLY), EACCES);
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn directory_search_needs_x() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o755));
    make("d/f", b"x")?;
    ok!(chmod(c"d/f".as_ptr(), 0o666));
    ok!(chmod(c"d".as_ptr(), 0o744));
    as_user(|| {
        errno!(open(c"d/f".as_ptr(), O_RDONLY), EACCES);
        ok!(open(c"d".as_ptr(), O_RDONLY));
        errno!(chdir(c"d".as_ptr()), EACCES);
        errno!(open(c"d/new".as_ptr(), O_CREAT | O_RDWR, 0o600), EACCES);
        Ok(())
    })
}

fn sticky_directory_protects() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o755));
    ok!(chmod(c"d".as_ptr(), 0o1777));
    make("d/theirs", b"x")?;
    ok!(chmod(c"d/theirs".as_ptr(), 0o666));
    as_user(|| {
        errno!(unlink(c"d/theirs".as_ptr()), EPERM);
        errno!(rename(c"d/theirs".as_ptr(), c"d/x".as_ptr()), EPERM);
        make("d/ours", b"")?;
        ok!(unlink(c"d/ours".as_ptr()));
        Ok(())
    })
}

fn chmod_keeps_type() -> Outcome {
    make("f", b"")?;
    ok!(chmod(c"f".as_ptr(), 0o107777));
    eq!(stat_of("f")?.st_mode, S_IFREG | 0o7777);
    let fd = ok!(open_file("f", O_RDONLY, 0));
    ok!(fchmod(fd, 0o640));
    eq!(stat_of("f")?.st_mode, S_IFREG | 0o640);
    Ok(())
}

fn chmod_by_stranger_is_eperm() -> Outcome {
    make("f", b"")?;
    as_user(|| {
        errno!(chmod(c"f".as_ptr(), 0o777), EPERM);
        Ok(())
    })
}

fn chown_clears_setuid() -> Outcome {
    make("f", b"")?;
    ok!(chmod(c"f".as_ptr(), 0o6755));
    ok!(chown(c"f".as_ptr(), 1000, 1000));
    let out = stat_of("f")?;
    eq!((out.st_uid, out.st_gid), (1000, 1000));
    eq!(out.st_mode & 0o7777, 0o755);
    // -1 leaves what it stands for.
    ok!(chown(c"f".as_ptr(), u32::MAX, 7));
    eq!((stat_of("f")?.st_uid, stat_of("f")?.st_gid), (1000, 7));
    Ok(())
}

fn chown_by_user_is_eperm() -> Outcome {
    make("f", b"")?;
    ok!(chown(c"f".as_ptr(), 1000, 1000));
    as_user(|| {
        errno!(chown(c"f".as_ptr(), 0, u32::MAX), EPERM);
        errno!(chown(c"f".as_ptr(), u32::MAX, 0), EPERM);
        ok!(chown(c"f".as_ptr(), 1000, 1000));
        Ok(())
    })
}

fn fchmodat_and_fchownat() -> Outcome {
    make("f", b"")?;
    ok!(symlink(c"f".as_ptr(), c"l".as_ptr()));
    ok!(fchownat(AT_FDCWD, c"l".as_ptr(), 5, 6, AT_SYMLINK_NOFOLLOW));
    eq!((stat_of("l")?.st_uid, stat_of("f")?.st_uid), (5, 0));
    ok!(fchownat(AT_FDCWD, c"l".as_ptr(), 7, 8, 0));
    eq!((stat_of("l")?.st_uid, stat_of("f")?.st_uid), (5, 7));
    ok!(syscall(SYS_fchmodat, AT_FDCWD, c"l".as_ptr(), 0o611));
    eq!(stat_of("f")?.st_mode & 0o777, 0o611);
    Ok(())
}

fn utimensat_sets() -> Outcome {
    make("f", b"")?;
    let times = [timespec { tv_sec: 1000, tv_nsec: 5 }, timespec { tv_sec: 2000, tv_nsec: 999_999_999 }];
    ok!(utimensat(AT_FDCWD, c"f".as_ptr(), times.as_ptr(), 0));
    let out = stat_of("f")?;
    eq!((out.st_atime, out.st_atime_nsec), (1000, 5));
    eq!((out.st_mtime, out.st_mtime_nsec), (2000, 999_999_999));
    Ok(())
}

fn utimensat_now_and_omit() -> Outcome {
    make("f", b"")?;
    let old = [timespec { tv_sec: 1000, tv_nsec: 5 }; 2];
    ok!(utimensat(AT_FDCWD, c"f".as_ptr(), old.as_ptr(), 0));
    let times = [timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, timespec { tv_sec: 0, tv_nsec: UTIME_NOW }];
    ok!(utimensat(AT_FDCWD, c"f".as_ptr(), times.as_ptr(), 0));
    let out = stat_of("f")?;
    eq!(out.st_atime, 1000);
    check!(out.st_mtime != 1000);
    ok!(utimensat(AT_FDCWD, c"f".as_ptr(), std::ptr::null(), 0));
    check!(stat_of("f")?.st_atime != 1000);
    Ok(())
}

fn utimensat_bad_nanoseconds_is_einval() -> Outcome {
    make("f", b"")?;
    let times = [timespec { tv_sec: 0, tv_nsec: 1_000_000_000 }; 2];
    errno!(utimensat(AT_FDCWD, c"f".as_ptr(), times.as_ptr(), 0), EINVAL);
    Ok(())
}

fn write_updates_mtime() -> Outcome {
    make("f", b"")?;
    let old = [timespec { tv_sec: 1000, tv_nsec: 0 }; 2];
    ok!(utimensat(AT_FDCWD, c"f".as_ptr(), old.as_ptr(), 0));
    let fd = ok!(open_file("f", O_WRONLY, 0));
    eq!(write_fd(fd, b"x"), 1);
    check!(stat_of("f")?.st_mtime != 1000);
    // Adding a name changes the directory.
    ok!(utimensat(AT_FDCWD, c".".as_ptr(), old.as_ptr(), 0));
    make("g", b"")?;
    check!(stat_of(".")?.st_mtime != 1000);
    Ok(())
}

fn umask_returns_old() -> Outcome {
    ok!(umask(0o123));
    eq!(ok!(umask(0o7777)), 0o123);
    eq!(ok!(umask(0)), 0o777);
    Ok(())
}

fn mknod_device_node() -> Outcome {
    ok!(mknod(c"n".as_ptr(), S_IFCHR | 0o666, makedev(1, 5)));
    let fd = ok!(open_file("n", O_RDONLY, 0));
    let mut data = [1; 4];
    eq!(read_fd(fd, &mut data), 4);
    eq!(data, [0; 4]);
    ok!(mknod(c"no-driver".as_ptr(), S_IFCHR | 0o666, makedev(999, 9)));
    errno!(open(c"no-driver".as_ptr(), O_RDONLY), ENXIO);
    errno!(mknod(c"d".as_ptr(), S_IFDIR | 0o666, 0), EPERM);
    as_user(|| {
        errno!(mknod(c"/tmp/n".as_ptr(), S_IFCHR | 0o666, makedev(1, 5)), EPERM);
        Ok(())
    })
}

fn statfs_of_tmpfs() -> Outcome {
    let mut out = zero::<statfs>();
    ok!(libc::statfs(c".".as_ptr(), &mut out));
    eq!(out.f_type, TMPFS_MAGIC);
    eq!(out.f_bsize, 4096);
    eq!(out.f_namelen, 255);
    check!(out.f_bavail <= out.f_blocks);
    ok!(libc::statfs(c"/proc".as_ptr(), &mut out));
    eq!(out.f_type, PROC_SUPER_MAGIC);
    Ok(())
}
