//! eventfd and timerfd.

use crate::check::*;
use libc::*;

cases![events:
    eventfd_counts, eventfd_semaphore, eventfd_overflow, eventfd_sizes, eventfd_reader_waits, eventfd_writer_waits,
    eventfd_poll, eventfd_flags, eventfd_name_and_fdinfo, eventfd_bad_pointer, eventfd_kinds_of_calls,
    timerfd_once, timerfd_periods_are_counted, timerfd_absolute, timerfd_gettime_counts_down, timerfd_errors,
    timerfd_poll_and_nonblock, timerfd_disarm, timerfd_cancel_on_set, timerfd_fdinfo, timerfd_wakes_a_reader,
    timerfd_realtime_follows_the_clock,
];

fn event(count: u32, flags: i32) -> Result<i32, Stop> {
    Ok(ok!(eventfd(count, flags)))
}

fn get(fd: i32) -> i64 {
    let mut n = [0; 8];
    match read_fd(fd, &mut n) {
        8 => i64::from_ne_bytes(n),
        _ => -1,
    }
}

fn put(fd: i32, n: u64) -> isize {
    write_fd(fd, &n.to_ne_bytes())
}

fn what_is_ready(fd: i32, events: i16) -> i16 {
    let mut p = pollfd { fd, events, revents: 0 };
    // SAFETY: one live entry.
    unsafe { poll(&mut p, 1, 0) };
    p.revents
}

fn eventfd_counts() -> Outcome {
    let fd = event(5, 0)?;
    eq!(put(fd, 7), 8);
    eq!(get(fd), 12);
    ok!(fcntl(fd, F_SETFL, O_NONBLOCK));
    errno!(read(fd, [0u8; 8].as_mut_ptr().cast(), 8), EAGAIN);
    Ok(())
}

fn eventfd_semaphore() -> Outcome {
    let fd = event(2, EFD_SEMAPHORE | EFD_NONBLOCK)?;
    eq!(get(fd), 1);
    eq!(get(fd), 1);
    errno!(read(fd, [0u8; 8].as_mut_ptr().cast(), 8), EAGAIN);
    Ok(())
}

fn eventfd_overflow() -> Outcome {
    let fd = event(0, EFD_NONBLOCK)?;
    eq!(put(fd, u64::MAX - 1), 8);
    errno!(write(fd, 1u64.to_ne_bytes().as_ptr().cast(), 8), EAGAIN);
    eq!(put(fd, 0), 8);
    errno!(write(fd, u64::MAX.to_ne_bytes().as_ptr().cast(), 8), EINVAL);
    eq!(what_is_ready(fd, POLLIN | POLLOUT), POLLIN);
    eq!(get(fd), -2);
    Ok(())
}

fn eventfd_sizes() -> Outcome {
    let fd = event(1, EFD_NONBLOCK)?;
    errno!(read(fd, [0u8; 8].as_mut_ptr().cast(), 7), EINVAL);
    errno!(write(fd, [0u8; 8].as_ptr().cast(), 7), EINVAL);
    let mut more = [0xffu8; 16];
    eq!(read_fd(fd, &mut more), 8);
    eq!(&more[8..], &[0xff; 8]);
    let mut long = [0u8; 16];
    long[0] = 3;
    eq!(write_fd(fd, &long), 8);
    eq!(get(fd), 3);
    Ok(())
}

fn eventfd_reader_waits() -> Outcome {
    let fd = event(0, 0)?;
    let pid = fork_child(|| {
        // SAFETY: only sleeps.
        unsafe { usleep(20_000) };
        put(fd, 9) as i32 - 8
    });
    eq!(get(fd), 9);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn eventfd_writer_waits() -> Outcome {
    let fd = event(0, 0)?;
    eq!(put(fd, u64::MAX - 1), 8);
    let pid = fork_child(|| {
        // SAFETY: only sleeps.
        unsafe { usleep(20_000) };
        i32::from(get(fd) != -2)
    });
    eq!(put(fd, 4), 8);
    eq!(wait_for(pid), Status::Exited(0));
    eq!(get(fd), 4);
    Ok(())
}

fn eventfd_poll() -> Outcome {
    let fd = event(0, 0)?;
    eq!(what_is_ready(fd, POLLIN | POLLOUT), POLLOUT);
    put(fd, 1);
    eq!(what_is_ready(fd, POLLIN | POLLOUT), POLLIN | POLLOUT);
    let pid = fork_child(|| {
        // SAFETY: only sleeps.
        unsafe { usleep(20_000) };
        put(fd, 1) as i32 - 8
    });
    get(fd);
    let mut p = pollfd { fd, events: POLLIN, revents: 0 };
    eq!(ok!(poll(&mut p, 1, 10_000)), 1);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn eventfd_flags() -> Outcome {
    errno!(eventfd(0, 0x40), EINVAL);
    let fd = event(0, EFD_CLOEXEC | EFD_NONBLOCK)?;
    eq!(ok!(fcntl(fd, F_GETFD)), FD_CLOEXEC);
    eq!(ok!(fcntl(fd, F_GETFL)), O_RDWR | O_NONBLOCK);
    Ok(())
}

fn eventfd_name_and_fdinfo() -> Outcome {
    let fd = event(0x1f, 0)?;
    let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).map(|p| p.to_string_lossy().into_owned());
    eq!(name.unwrap_or_default(), "anon_inode:[eventfd]");
    let info = String::from_utf8_lossy(&content(&format!("/proc/self/fdinfo/{fd}"))?).into_owned();
    check!(info.contains("\neventfd-count:               1f\n"));
    check!(info.contains("\neventfd-id: "));
    let mut st = zero::<stat>();
    ok!(fstat(fd, &mut st));
    eq!(st.st_mode, 0o600);
    eq!(st.st_size, 0);
    Ok(())
}

fn eventfd_bad_pointer() -> Outcome {
    let fd = event(0, EFD_NONBLOCK)?;
    errno!(write(fd, 8 as *const c_void, 8), EFAULT);
    eq!(what_is_ready(fd, POLLIN), 0);
    Ok(())
}

fn eventfd_kinds_of_calls() -> Outcome {
    let fd = event(1, 0)?;
    eq!(ok!(lseek(fd, 5, SEEK_SET)), 0);
    errno!(pread(fd, [0u8; 8].as_mut_ptr().cast(), 8, 0), ESPIPE);
    errno!(ftruncate(fd, 0), EINVAL);
    errno!(fsync(fd), EINVAL);
    let mut halves = [[0u8; 4]; 2];
    let parts = [0, 1].map(|i| iovec { iov_base: halves[i].as_mut_ptr().cast(), iov_len: 4 });
    eq!(ok!(readv(fd, parts.as_ptr(), 2)), 8);
    eq!(halves[0], 1u32.to_ne_bytes());
    Ok(())
}

fn timer(clock: i32, flags: i32) -> Result<i32, Stop> {
    Ok(ok!(timerfd_create(clock, flags)))
}

fn spec(value: u64, interval: u64) -> itimerspec {
    itimerspec { it_interval: timespec(interval), it_value: timespec(value) }
}

fn set(fd: i32, flags: i32, value: u64, interval: u64) -> Outcome {
    ok!(timerfd_settime(fd, flags, &spec(value, interval), std::ptr::null_mut()));
    Ok(())
}

fn left(fd: i32) -> Result<(u64, u64), Stop> {
    let mut now = spec(0, 0);
    ok!(timerfd_gettime(fd, &mut now));
    let ns = |t: libc::timespec| t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64;
    Ok((ns(now.it_value), ns(now.it_interval)))
}

const MS: u64 = 1_000_000;

fn timerfd_once() -> Outcome {
    for clock in [CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME] {
        let fd = timer(clock, 0)?;
        let start = now();
        set(fd, 0, 20 * MS, 0)?;
        eq!(get(fd), 1);
        check!(now() - start >= 20 * MS);
        eq!(left(fd)?, (0, 0));
    }
    Ok(())
}

fn timerfd_periods_are_counted() -> Outcome {
    let fd = timer(CLOCK_MONOTONIC, 0)?;
    set(fd, 0, MS, 2 * MS)?;
    // SAFETY: only sleeps.
    unsafe { usleep(50_000) };
    let first = get(fd);
    check!(first >= 20);
    check!(get(fd) >= 1);
    eq!(left(fd)?.1, 2 * MS);
    Ok(())
}

fn timerfd_absolute() -> Outcome {
    let fd = timer(CLOCK_MONOTONIC, 0)?;
    let at = now() + 20 * MS;
    set(fd, TFD_TIMER_ABSTIME, at, 0)?;
    eq!(get(fd), 1);
    check!(now() >= at);
    // A time that is past expires at once.
    set(fd, TFD_TIMER_ABSTIME, 1, 0)?;
    eq!(get(fd), 1);
    let fd = timer(CLOCK_REALTIME, 0)?;
    let at = clock(CLOCK_REALTIME) + 20 * MS;
    set(fd, TFD_TIMER_ABSTIME, at, 0)?;
    eq!(get(fd), 1);
    check!(clock(CLOCK_REALTIME) >= at);
    Ok(())
}

fn timerfd_gettime_counts_down() -> Outcome {
    let fd = timer(CLOCK_MONOTONIC, 0)?;
    eq!(left(fd)?, (0, 0));
    set(fd, 0, 100_000 * MS, 7 * MS)?;
    let (value, interval) = left(fd)?;
    check!(value <= 100_000 * MS && value > 90_000 * MS);
    eq!(interval, 7 * MS);
    let mut old = spec(0, 0);
    ok!(timerfd_settime(fd, 0, &spec(0, 0), &mut old));
    eq!(old.it_interval.tv_nsec, 7 * MS as i64);
    check!(old.it_value.tv_sec > 90);
    eq!(left(fd)?, (0, 0));
    Ok(())
}

fn timerfd_errors() -> Outcome {
    errno!(timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0), EINVAL);
    errno!(timerfd_create(CLOCK_MONOTONIC, 1), EINVAL);
    let fd = timer(CLOCK_MONOTONIC, TFD_CLOEXEC)?;
    eq!(ok!(fcntl(fd, F_GETFD)), FD_CLOEXEC);
    let null = std::ptr::null_mut();
    errno!(timerfd_settime(fd, 4, &spec(1, 0), null), EINVAL);
    errno!(timerfd_settime(fd, 0, 8 as *const itimerspec, null), EFAULT);
    errno!(timerfd_settime(-1, 0, &spec(1, 0), null), EBADF);
    let mut bad = spec(1, 0);
    bad.it_value.tv_nsec = 1_000_000_000;
    errno!(timerfd_settime(fd, 0, &bad, null), EINVAL);
    let other = event(0, 0)?;
    errno!(timerfd_settime(other, 0, &spec(1, 0), null), EINVAL);
    errno!(timerfd_gettime(other, &mut bad), EINVAL);
    errno!(read(fd, [0u8; 8].as_mut_ptr().cast(), 4), EINVAL);
    errno!(write(fd, [0u8; 8].as_ptr().cast(), 8), EINVAL);
    Ok(())
}

fn timerfd_poll_and_nonblock() -> Outcome {
    let fd = timer(CLOCK_MONOTONIC, TFD_NONBLOCK)?;
    errno!(read(fd, [0u8; 8].as_mut_ptr().cast(), 8), EAGAIN);
    eq!(what_is_ready(fd, POLLIN | POLLOUT), 0);
    set(fd, 0, 10 * MS, 0)?;
    let mut p = pollfd { fd, events: POLLIN, revents: 0 };
    eq!(ok!(poll(&mut p, 1, 10_000)), 1);
    eq!(p.revents, POLLIN);
    eq!(get(fd), 1);
    eq!(what_is_ready(fd, POLLIN), 0);
    Ok(())
}

fn timerfd_disarm() -> Outcome {
    let fd = timer(CLOCK_MONOTONIC, TFD_NONBLOCK)?;
    set(fd, 0, MS, MS)?;
    // SAFETY: only sleeps.
    unsafe { usleep(5_000) };
    eq!(what_is_ready(fd, POLLIN), POLLIN);
    // What was counted goes with the setting.
    set(fd, 0, 0, 0)?;
    eq!(what_is_ready(fd, POLLIN), 0);
    set(fd, 0, 100_000 * MS, 0)?;
    eq!(what_is_ready(fd, POLLIN), 0);
    Ok(())
}

fn set_clock(ns: u64) -> Outcome {
    ok!(clock_settime(CLOCK_REALTIME, &timespec(ns)));
    Ok(())
}

fn timerfd_cancel_on_set() -> Outcome {
    let fd = timer(CLOCK_REALTIME, TFD_NONBLOCK)?;
    set(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, clock(CLOCK_REALTIME) + 100_000 * MS, 0)?;
    errno!(read(fd, [0u8; 8].as_mut_ptr().cast(), 8), EAGAIN);
    set_clock(clock(CLOCK_REALTIME) + 1000 * MS)?;
    eq!(what_is_ready(fd, POLLIN), POLLIN);
    errno!(read(fd, [0u8; 8].as_mut_ptr().cast(), 8), ECANCELED);
    errno!(read(fd, [0u8; 8].as_mut_ptr().cast(), 8), EAGAIN);
    set_clock(clock(CLOCK_REALTIME) - 1000 * MS)?;
    errno!(read(fd, [0u8; 8].as_mut_ptr().cast(), 8), ECANCELED);
    Ok(())
}

fn timerfd_realtime_follows_the_clock() -> Outcome {
    let fd = timer(CLOCK_REALTIME, TFD_NONBLOCK)?;
    let relative = timer(CLOCK_REALTIME, TFD_NONBLOCK)?;
    set(fd, TFD_TIMER_ABSTIME, clock(CLOCK_REALTIME) + 100_000 * MS, 0)?;
    set(relative, 0, 100_000 * MS, 0)?;
    set_clock(clock(CLOCK_REALTIME) + 200_000 * MS)?;
    let mut p = pollfd { fd, events: POLLIN, revents: 0 };
    eq!(ok!(poll(&mut p, 1, 10_000)), 1);
    eq!(get(fd), 1);
    eq!(what_is_ready(relative, POLLIN), 0);
    set_clock(clock(CLOCK_REALTIME) - 200_000 * MS)?;
    Ok(())
}

fn timerfd_fdinfo() -> Outcome {
    let fd = timer(CLOCK_MONOTONIC, 0)?;
    set(fd, 0, 100_000 * MS, 3 * MS)?;
    let info = String::from_utf8_lossy(&content(&format!("/proc/self/fdinfo/{fd}"))?).into_owned();
    check!(info.contains("\nclockid: 1\nticks: 0\nsettime flags: 00\nit_value: (99, "));
    check!(info.contains("\nit_interval: (0, 3000000)\n"));
    let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).map(|p| p.to_string_lossy().into_owned());
    eq!(name.unwrap_or_default(), "anon_inode:[timerfd]");
    Ok(())
}

fn timerfd_wakes_a_reader() -> Outcome {
    let fd = timer(CLOCK_MONOTONIC, 0)?;
    let pid = fork_child(|| i32::from(get(fd) != 1));
    // SAFETY: only sleeps.
    unsafe { usleep(10_000) };
    set(fd, 0, 10 * MS, 0)?;
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}
