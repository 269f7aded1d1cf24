//! Descriptors: dup and fcntl.

use crate::check::*;
use libc::*;

cases![fcntl:
    dup3_flags_and_errors, dup2_same_descriptor, dup2_closes_the_old, fcntl_dupfd_is_at_least, getfl_shows_flags,
    setfl_sets_only_some, status_flags_are_shared, cloexec_is_per_descriptor, unknown_command_is_einval,
    close_range_closes, record_locks_conflict, record_lock_goes_with_the_process, pipe_size,
];

fn dup3_flags_and_errors() -> Outcome {
    let fd = ok!(open_file(".", O_RDONLY, 0));
    eq!(ok!(dup3(fd, 20, O_CLOEXEC)), 20);
    eq!(ok!(fcntl(20, F_GETFD)), FD_CLOEXEC);
    errno!(dup3(fd, fd, 0), EINVAL);
    errno!(dup3(fd, 21, O_APPEND), EINVAL);
    errno!(dup3(999, 21, 0), EBADF);
    errno!(dup3(fd, -1, 0), EBADF);
    Ok(())
}

fn dup2_same_descriptor() -> Outcome {
    let fd = ok!(open_file(".", O_RDONLY, 0));
    eq!(ok!(dup2(fd, fd)), fd);
    errno!(dup2(999, 999), EBADF);
    Ok(())
}

fn dup2_closes_the_old() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let fd = ok!(open_file(".", O_RDONLY, 0));
    ok!(dup2(fd, writer));
    eq!(read_fd(reader, &mut [0; 1]), 0);
    Ok(())
}

fn fcntl_dupfd_is_at_least() -> Outcome {
    eq!(ok!(fcntl(0, F_DUPFD, 50)), 50);
    eq!(ok!(fcntl(0, F_DUPFD_CLOEXEC, 50)), 51);
    eq!(ok!(fcntl(51, F_GETFD)), FD_CLOEXEC);
    errno!(fcntl(0, F_DUPFD, -1), EINVAL);
    Ok(())
}

fn getfl_shows_flags() -> Outcome {
    let fd = ok!(open_file("f", O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, 0o600));
    let flags = ok!(fcntl(fd, F_GETFL));
    eq!(flags & O_ACCMODE, O_RDWR);
    check!(flags & O_APPEND != 0 && flags & O_NONBLOCK != 0);
    eq!(flags & (O_CREAT | O_CLOEXEC), 0);
    Ok(())
}

fn setfl_sets_only_some() -> Outcome {
    let fd = ok!(open_file("f", O_RDONLY | O_CREAT, 0o600));
    ok!(fcntl(fd, F_SETFL, O_RDWR | O_APPEND | O_NONBLOCK));
    let flags = ok!(fcntl(fd, F_GETFL));
    eq!(flags & O_ACCMODE, O_RDONLY);
    check!(flags & O_APPEND != 0 && flags & O_NONBLOCK != 0);
    Ok(())
}

fn status_flags_are_shared() -> Outcome {
    let fd = ok!(open_file("f", O_RDWR | O_CREAT, 0o600));
    let other = ok!(dup(fd));
    ok!(fcntl(fd, F_SETFL, O_APPEND));
    check!(ok!(fcntl(other, F_GETFL)) & O_APPEND != 0);
    Ok(())
}

fn cloexec_is_per_descriptor() -> Outcome {
    let fd = ok!(open_file(".", O_RDONLY | O_CLOEXEC, 0));
    let other = ok!(dup(fd));
    eq!(ok!(fcntl(other, F_GETFD)), 0);
    ok!(fcntl(fd, F_SETFD, 0));
    eq!(ok!(fcntl(fd, F_GETFD)), 0);
    Ok(())
}

fn unknown_command_is_einval() -> Outcome {
    errno!(fcntl(0, 9999), EINVAL);
    errno!(fcntl(999, F_GETFD), EBADF);
    Ok(())
}

fn close_range_closes() -> Outcome {
    for target in 30..40 {
        ok!(dup2(0, target));
    }
    if unsafe { syscall(SYS_close_range, 32, 35, 0) } != 0 {
        return Err(Stop::Skip("no close_range".into()));
    }
    ok!(fcntl(31, F_GETFD));
    errno!(fcntl(32, F_GETFD), EBADF);
    errno!(fcntl(35, F_GETFD), EBADF);
    ok!(fcntl(36, F_GETFD));
    errno!(syscall(SYS_close_range, 5, 4, 0), EINVAL);
    Ok(())
}

fn lock(kind: c_int, start: i64, length: i64) -> flock {
    let mut lock = zero::<flock>();
    lock.l_type = kind as i16;
    lock.l_whence = SEEK_SET as i16;
    lock.l_start = start;
    lock.l_len = length;
    lock
}

fn record_locks_conflict() -> Outcome {
    let fd = ok!(open_file("f", O_RDWR | O_CREAT, 0o600));
    if unsafe { fcntl(fd, F_SETLK, &lock(F_WRLCK, 0, 10)) } != 0 {
        return Err(Stop::Skip("no record locks".into()));
    }
    in_child(|| {
        errno!(fcntl(fd, F_SETLK, &lock(F_RDLCK, 5, 1)), EAGAIN);
        ok!(fcntl(fd, F_SETLK, &lock(F_WRLCK, 10, 5)));
        Ok(())
    })
}

fn record_lock_goes_with_the_process() -> Outcome {
    let fd = ok!(open_file("f", O_RDWR | O_CREAT, 0o600));
    let ended = child(|| unsafe { fcntl(fd, F_SETLK, &lock(F_WRLCK, 0, 10)) });
    if ended != Status::Exited(0) {
        return Err(Stop::Skip("no record locks".into()));
    }
    ok!(fcntl(fd, F_SETLK, &lock(F_WRLCK, 0, 10)));
    Ok(())
}

fn pipe_size() -> Outcome {
    let (reader, _) = new_pipe(0)?;
    let size = unsafe { fcntl(reader, F_GETPIPE_SZ) };
    if size < 0 {
        return Err(Stop::Skip("no F_GETPIPE_SZ".into()));
    }
    eq!(size, 65536);
    Ok(())
}
