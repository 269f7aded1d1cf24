//! epoll.

use crate::check::*;
use libc::*;
use std::sync::atomic::{AtomicI32, Ordering};

cases![epoll:
    level_is_reported_again, edge_is_reported_once, edge_again_after_a_write, oneshot_needs_mod, mod_changes_events_and_data,
    hup_and_err_come_unasked, timeout_passes, waits_for_a_write, ctl_errors, wait_errors, regular_files_are_eperm,
    close_ends_the_watch, dup_keeps_the_watch, dup_can_be_added_too, readded_number_is_another_file,
    maxevents_rotates, nested_is_readable, circles_are_eloop, exclusive_rules, exclusive_wakes_some,
    signal_ends_the_wait, pwait_mask, pwait2_timeout, closed_while_waited, ten_thousand_watches,
    two_threads_one_oneshot, fdinfo_lists_targets, create_flags, del_while_ready, fork_shares_the_set,
    wait_after_close_of_epoll_by_other_thread, deep_chain_wakes, quota_is_in_proc, events_of_a_pipe_writer,
    many_files_one_event_each, ways_up_are_bounded,
];

fn new() -> Result<i32, Stop> {
    Ok(ok!(epoll_create1(EPOLL_CLOEXEC)))
}

fn ctl(ep: i32, op: i32, fd: i32, events: i32, data: u64) -> i32 {
    let mut e = epoll_event { events: events as u32, u64: data };
    // SAFETY: a live event.
    unsafe { epoll_ctl(ep, op, fd, &mut e) }
}

fn add(ep: i32, fd: i32, events: i32) -> Outcome {
    ok!(ctl(ep, EPOLL_CTL_ADD, fd, events, fd as u64));
    Ok(())
}

/// What a wait of at most `ms` reports: data and events.
fn wait(ep: i32, max: usize, ms: i32) -> Result<Vec<(u64, i32)>, Stop> {
    let mut out = vec![epoll_event { events: 0, u64: 0 }; max];
    let n = ok!(epoll_wait(ep, out.as_mut_ptr(), max as i32, ms));
    Ok(out.iter().take(n as usize).map(|e| (e.u64, e.events as i32)).collect())
}

fn level_is_reported_again() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    add(ep, r, EPOLLIN)?;
    eq!(wait(ep, 4, 0)?, []);
    write_fd(w, b"ab");
    eq!(wait(ep, 4, 0)?, [(r as u64, EPOLLIN)]);
    read_fd(r, &mut [0]);
    eq!(wait(ep, 4, 0)?, [(r as u64, EPOLLIN)]);
    read_fd(r, &mut [0]);
    eq!(wait(ep, 4, 0)?, []);
    Ok(())
}

fn edge_is_reported_once() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    write_fd(w, b"ab");
    add(ep, r, EPOLLIN | EPOLLET)?;
    eq!(wait(ep, 4, 0)?.len(), 1);
    eq!(wait(ep, 4, 0)?.len(), 0);
    read_fd(r, &mut [0]);
    eq!(wait(ep, 4, 0)?.len(), 0);
    Ok(())
}

fn edge_again_after_a_write() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    add(ep, r, EPOLLIN | EPOLLET)?;
    write_fd(w, b"a");
    eq!(wait(ep, 4, 0)?.len(), 1);
    write_fd(w, b"b");
    eq!(wait(ep, 4, 0)?.len(), 1);
    eq!(wait(ep, 4, 0)?.len(), 0);
    Ok(())
}

fn oneshot_needs_mod() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    add(ep, r, EPOLLIN | EPOLLONESHOT)?;
    write_fd(w, b"a");
    eq!(wait(ep, 4, 0)?.len(), 1);
    write_fd(w, b"b");
    eq!(wait(ep, 4, 0)?.len(), 0);
    // Not even a hang-up is reported.
    close_fd(w);
    eq!(wait(ep, 4, 0)?.len(), 0);
    ok!(ctl(ep, EPOLL_CTL_MOD, r, EPOLLIN | EPOLLONESHOT, 5));
    eq!(wait(ep, 4, 0)?, [(5, EPOLLIN | EPOLLHUP)]);
    Ok(())
}

fn mod_changes_events_and_data() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    add(ep, r, 0)?;
    write_fd(w, b"a");
    eq!(wait(ep, 4, 0)?, []);
    ok!(ctl(ep, EPOLL_CTL_MOD, r, EPOLLIN, u64::MAX));
    eq!(wait(ep, 4, 0)?, [(u64::MAX, EPOLLIN)]);
    ok!(ctl(ep, EPOLL_CTL_MOD, r, EPOLLPRI, 1));
    eq!(wait(ep, 4, 0)?, []);
    Ok(())
}

fn hup_and_err_come_unasked() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    add(ep, r, 0)?;
    close_fd(w);
    eq!(wait(ep, 4, 0)?, [(r as u64, EPOLLHUP)]);
    let (r, w) = new_pipe(0)?;
    let ep = new()?;
    add(ep, w, 0)?;
    close_fd(r);
    eq!(wait(ep, 4, 0)?, [(w as u64, EPOLLERR)]);
    Ok(())
}

fn timeout_passes() -> Outcome {
    let ep = new()?;
    let start = now();
    eq!(wait(ep, 1, 30)?, []);
    check!(now() - start >= 30_000_000);
    Ok(())
}

fn later(body: impl FnOnce()) -> i32 {
    fork_child(|| {
        // SAFETY: only sleeps.
        unsafe { usleep(20_000) };
        body();
        0
    })
}

fn waits_for_a_write() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    add(ep, r, EPOLLIN)?;
    let pid = later(|| {
        write_fd(w, b"x");
    });
    eq!(wait(ep, 4, -1)?, [(r as u64, EPOLLIN)]);
    wait_for(pid);
    Ok(())
}

fn ctl_errors() -> Outcome {
    let (ep, (r, _w)) = (new()?, new_pipe(0)?);
    errno!(ctl(ep, EPOLL_CTL_MOD, r, EPOLLIN, 0), ENOENT);
    errno!(ctl(ep, EPOLL_CTL_DEL, r, EPOLLIN, 0), ENOENT);
    add(ep, r, EPOLLIN)?;
    errno!(ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN, 0), EEXIST);
    errno!(ctl(ep, 9, r, EPOLLIN, 0), EINVAL);
    errno!(ctl(ep, EPOLL_CTL_ADD, ep, EPOLLIN, 0), EINVAL);
    errno!(ctl(r, EPOLL_CTL_ADD, ep, EPOLLIN, 0), EINVAL);
    errno!(ctl(-1, EPOLL_CTL_ADD, r, EPOLLIN, 0), EBADF);
    errno!(ctl(ep, EPOLL_CTL_ADD, 999, EPOLLIN, 0), EBADF);
    errno!(epoll_ctl(ep, EPOLL_CTL_ADD, r, 8 as *mut epoll_event), EFAULT);
    errno!(epoll_ctl(ep, EPOLL_CTL_ADD, -1, 8 as *mut epoll_event), EFAULT);
    // A deletion looks at no event.
    ok!(epoll_ctl(ep, EPOLL_CTL_DEL, r, 8 as *mut epoll_event));
    Ok(())
}

fn wait_errors() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    let mut e = epoll_event { events: 0, u64: 0 };
    errno!(epoll_wait(ep, &mut e, 0, 0), EINVAL);
    errno!(epoll_wait(ep, &mut e, -1, 0), EINVAL);
    errno!(epoll_wait(r, &mut e, 1, 0), EINVAL);
    errno!(epoll_wait(-1, &mut e, 1, 0), EBADF);
    errno!(epoll_wait(-1, &mut e, i32::MAX, 0), EINVAL);
    add(ep, r, EPOLLIN | EPOLLET)?;
    write_fd(w, b"x");
    errno!(epoll_wait(ep, 8 as *mut epoll_event, 1, 0), EFAULT);
    // The event is not lost.
    eq!(wait(ep, 1, 0)?.len(), 1);
    errno!(read(ep, [0u8; 8].as_mut_ptr().cast(), 8), EINVAL);
    Ok(())
}

fn regular_files_are_eperm() -> Outcome {
    make("f", b"x")?;
    let fd = open_file("f", O_RDONLY, 0);
    let ep = new()?;
    errno!(ctl(ep, EPOLL_CTL_ADD, fd, EPOLLIN, 0), EPERM);
    let dir = open_file(".", O_RDONLY, 0);
    errno!(ctl(ep, EPOLL_CTL_ADD, dir, EPOLLIN, 0), EPERM);
    let path = open_file("f", O_PATH, 0);
    errno!(ctl(ep, EPOLL_CTL_ADD, path, EPOLLIN, 0), EBADF);
    Ok(())
}

fn close_ends_the_watch() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    add(ep, r, EPOLLIN)?;
    write_fd(w, b"x");
    close_fd(r);
    eq!(wait(ep, 4, 0)?, []);
    Ok(())
}

fn dup_keeps_the_watch() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    add(ep, r, EPOLLIN)?;
    let other = ok!(dup(r));
    write_fd(w, b"x");
    close_fd(r);
    eq!(wait(ep, 4, 0)?, [(r as u64, EPOLLIN)]);
    // The number is no longer known: it cannot be removed by it.
    errno!(ctl(ep, EPOLL_CTL_DEL, r, 0, 0), EBADF);
    errno!(ctl(ep, EPOLL_CTL_DEL, other, 0, 0), ENOENT);
    close_fd(other);
    eq!(wait(ep, 4, 0)?, []);
    Ok(())
}

fn dup_can_be_added_too() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    let other = ok!(dup(r));
    add(ep, r, EPOLLIN)?;
    add(ep, other, EPOLLIN)?;
    write_fd(w, b"x");
    eq!(wait(ep, 4, 0)?.len(), 2);
    Ok(())
}

fn readded_number_is_another_file() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    let (r2, w2) = new_pipe(0)?;
    let keep = ok!(dup(r));
    add(ep, r, EPOLLIN)?;
    ok!(dup2(r2, r));
    // The old file is still there by `keep`; the new one can be added under the same number.
    ok!(ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN, 77));
    write_fd(w, b"x");
    write_fd(w2, b"x");
    let mut got = wait(ep, 4, 0)?;
    got.sort();
    let mut want = [(r as u64, EPOLLIN), (77, EPOLLIN)];
    want.sort();
    eq!(got, want);
    close_fd(keep);
    eq!(wait(ep, 4, 0)?, [(77, EPOLLIN)]);
    Ok(())
}

fn maxevents_rotates() -> Outcome {
    let ep = new()?;
    let mut fds = vec![];
    for _ in 0..4 {
        let fd = ok!(eventfd(1, 0));
        add(ep, fd, EPOLLIN)?;
        fds.push(fd as u64);
    }
    let first: Vec<u64> = wait(ep, 3, 0)?.iter().map(|e| e.0).collect();
    let second: Vec<u64> = wait(ep, 3, 0)?.iter().map(|e| e.0).collect();
    eq!(&first[..], &fds[..3]);
    eq!(second, [fds[3], fds[0], fds[1]]);
    Ok(())
}

fn nested_is_readable() -> Outcome {
    let (outer, inner, (r, w)) = (new()?, new()?, new_pipe(0)?);
    add(outer, inner, EPOLLIN)?;
    add(inner, r, EPOLLIN)?;
    eq!(wait(outer, 4, 0)?, []);
    let mut p = pollfd { fd: inner, events: POLLIN, revents: 0 };
    eq!(ok!(poll(&mut p, 1, 0)), 0);
    let pid = later(|| {
        write_fd(w, b"x");
    });
    eq!(wait(outer, 4, -1)?, [(inner as u64, EPOLLIN)]);
    wait_for(pid);
    eq!(ok!(poll(&mut p, 1, 0)), 1);
    eq!(p.revents, POLLIN);
    read_fd(r, &mut [0]);
    eq!(ok!(poll(&mut p, 1, 0)), 0);
    eq!(wait(outer, 4, 0)?, []);
    Ok(())
}

fn circles_are_eloop() -> Outcome {
    let eps = [new()?, new()?, new()?, new()?, new()?, new()?];
    for pair in eps.windows(2).take(4) {
        add(pair[1], pair[0], EPOLLIN)?;
    }
    errno!(ctl(eps[0], EPOLL_CTL_ADD, eps[4], EPOLLIN, 0), ELOOP);
    errno!(ctl(eps[0], EPOLL_CTL_ADD, eps[1], EPOLLIN, 0), ELOOP);
    Ok(())
}

fn exclusive_rules() -> Outcome {
    let (ep, other, (r, _w)) = (new()?, new()?, new_pipe(0)?);
    errno!(ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 0), EINVAL);
    errno!(ctl(ep, EPOLL_CTL_ADD, r, EPOLLRDHUP | EPOLLEXCLUSIVE, 0), EINVAL);
    errno!(ctl(ep, EPOLL_CTL_ADD, other, EPOLLIN | EPOLLEXCLUSIVE, 0), EINVAL);
    add(ep, r, EPOLLIN | EPOLLET | EPOLLEXCLUSIVE)?;
    errno!(ctl(ep, EPOLL_CTL_MOD, r, EPOLLIN, 0), EINVAL);
    errno!(ctl(ep, EPOLL_CTL_MOD, r, EPOLLIN | EPOLLEXCLUSIVE, 0), EINVAL);
    ok!(ctl(ep, EPOLL_CTL_DEL, r, 0, 0));
    Ok(())
}

/// Waiters with their own epolls on one file: one write wakes at least one.
fn exclusive_wakes_some() -> Outcome {
    let fd = ok!(eventfd(0, EFD_NONBLOCK));
    let mut pids = vec![];
    for _ in 0..4 {
        pids.push(fork_child(|| {
            let Ok(ep) = new() else { return 1 };
            if add(ep, fd, EPOLLIN | EPOLLEXCLUSIVE).is_err() {
                return 2;
            }
            loop {
                if wait(ep, 1, 10_000).map_or(0, |e| e.len()) != 1 {
                    return 3;
                }
                let mut n = [0; 8];
                if read_fd(fd, &mut n) == 8 {
                    return 0;
                }
            }
        }));
    }
    for pid in pids {
        // SAFETY: only sleeps.
        unsafe { usleep(10_000) };
        write_fd(fd, &1u64.to_ne_bytes());
        let _ = pid;
    }
    for _ in 0..4 {
        let mut status_word = 0;
        // A write may join another in the counter: those who found nothing need one more.
        loop {
            let done = ok!(waitpid(-1, &mut status_word, WNOHANG));
            if done > 0 {
                break;
            }
            write_fd(fd, &1u64.to_ne_bytes());
            // SAFETY: only sleeps.
            unsafe { usleep(5_000) };
        }
        eq!(status(status_word), Status::Exited(0));
    }
    Ok(())
}

extern "C" fn nothing(_: i32, _: *mut siginfo_t, _: *mut c_void) {}

fn signal_ends_the_wait() -> Outcome {
    let ep = new()?;
    handle(SIGUSR1, nothing, SA_RESTART);
    // SAFETY: the own process.
    let me = unsafe { getpid() };
    let pid = later(|| {
        // SAFETY: the parent has a handler.
        unsafe { kill(me, SIGUSR1) };
    });
    let mut e = epoll_event { events: 0, u64: 0 };
    errno!(epoll_wait(ep, &mut e, 1, 10_000), EINTR);
    wait_for(pid);
    Ok(())
}

static SEEN: AtomicI32 = AtomicI32::new(0);
extern "C" fn count(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    SEEN.fetch_add(1, Ordering::SeqCst);
}

fn pwait_mask() -> Outcome {
    let ep = new()?;
    handle(SIGUSR1, count, 0);
    let (mut blocked, mut none) = (zero::<sigset_t>(), zero::<sigset_t>());
    ok!(sigemptyset(&mut none));
    ok!(sigemptyset(&mut blocked));
    ok!(sigaddset(&mut blocked, SIGUSR1));
    ok!(sigprocmask(SIG_BLOCK, &blocked, std::ptr::null_mut()));
    ok!(raise(SIGUSR1));
    let mut e = epoll_event { events: 0, u64: 0 };
    eq!(ok!(epoll_wait(ep, &mut e, 1, 10)), 0);
    eq!(SEEN.load(Ordering::SeqCst), 0);
    errno!(epoll_pwait(ep, &mut e, 1, 10_000, &none), EINTR);
    eq!(SEEN.load(Ordering::SeqCst), 1);
    // The mask is back.
    ok!(raise(SIGUSR1));
    eq!(SEEN.load(Ordering::SeqCst), 1);
    // An event is reported though a signal is pending.
    let fd = ok!(eventfd(1, 0));
    add(ep, fd, EPOLLIN)?;
    eq!(ok!(epoll_pwait(ep, &mut e, 1, 10_000, &blocked)), 1);
    // SAFETY: raw call with a bad size of the mask.
    errno!(syscall(SYS_epoll_pwait, ep, &raw mut e, 1, 0, &raw const none, 4), EINVAL);
    Ok(())
}

fn pwait2_timeout() -> Outcome {
    let ep = new()?;
    let mut e = epoll_event { events: 0, u64: 0 };
    let start = now();
    let t = timespec(3_000_000);
    eq!(ok!(syscall(SYS_epoll_pwait2, ep, &raw mut e, 1, &raw const t, 0, 8)), 0);
    check!(now() - start >= 3_000_000);
    let bad = libc::timespec { tv_sec: 0, tv_nsec: -1 };
    errno!(syscall(SYS_epoll_pwait2, ep, &raw mut e, 1, &raw const bad, 0, 8), EINVAL);
    errno!(syscall(SYS_epoll_pwait2, ep, &raw mut e, 1, 8, 0, 8), EFAULT);
    Ok(())
}

/// A watched file is closed by another thread while we wait: nothing is reported, nothing breaks.
fn closed_while_waited() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    add(ep, r, EPOLLIN)?;
    let closer = std::thread::spawn(move || {
        // SAFETY: only sleeps.
        unsafe { usleep(10_000) };
        close_fd(r);
        write_fd(w, b"x")
    });
    set_disposition(SIGPIPE, SIG_IGN);
    eq!(wait(ep, 1, 60)?, []);
    check!(closer.join().is_ok());
    Ok(())
}

fn wait_after_close_of_epoll_by_other_thread() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    add(ep, r, EPOLLIN)?;
    let closer = std::thread::spawn(move || {
        // SAFETY: only sleeps.
        unsafe { usleep(10_000) };
        close_fd(ep);
        write_fd(w, b"x")
    });
    // The wait goes on with the set that it had begun with.
    eq!(wait(ep, 1, 10_000)?, [(r as u64, EPOLLIN)]);
    check!(closer.join().is_ok());
    Ok(())
}

fn raise_nofile(n: u64) -> Outcome {
    let mut limit = zero::<rlimit>();
    ok!(getrlimit(RLIMIT_NOFILE, &mut limit));
    limit.rlim_cur = n;
    limit.rlim_max = limit.rlim_max.max(n);
    ok!(setrlimit(RLIMIT_NOFILE, &limit));
    Ok(())
}

fn ten_thousand_watches() -> Outcome {
    raise_nofile(11_000)?;
    let ep = new()?;
    let mut fds = vec![];
    for _ in 0..10_000 {
        let fd = ok!(eventfd(0, EFD_NONBLOCK));
        add(ep, fd, EPOLLIN | EPOLLET)?;
        fds.push(fd);
    }
    for i in [3, 5000, 9999] {
        write_fd(fds[i], &1u64.to_ne_bytes());
    }
    let want: Vec<(u64, i32)> = [3, 5000, 9999].map(|i| (fds[i] as u64, EPOLLIN)).to_vec();
    eq!(wait(ep, 100, 0)?, want);
    for fd in &fds {
        write_fd(*fd, &1u64.to_ne_bytes());
    }
    let mut total = 0;
    loop {
        let n = wait(ep, 700, 0)?.len();
        if n == 0 {
            break;
        }
        total += n;
    }
    eq!(total, 10_000);
    for fd in &fds {
        close_fd(*fd);
    }
    eq!(wait(ep, 100, 0)?, []);
    Ok(())
}

fn many_files_one_event_each() -> Outcome {
    let ep = new()?;
    let fds: Vec<i32> = (0..200).map(|_| {
        // SAFETY: makes a descriptor.
        unsafe { eventfd(0, 0) }
    }).collect();
    for fd in &fds {
        add(ep, *fd, EPOLLIN)?;
    }
    let pid = fork_child(|| {
        for fd in &fds {
            write_fd(*fd, &1u64.to_ne_bytes());
        }
        0
    });
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 200 {
        for (fd, _) in wait(ep, 16, 10_000)? {
            check!(read_fd(fd as i32, &mut [0; 8]) == 8);
            check!(seen.insert(fd));
        }
    }
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

/// Several threads wait for one-shot events of one file: each is given to one of them.
fn two_threads_one_oneshot() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(O_NONBLOCK)?);
    add(ep, r, EPOLLIN | EPOLLONESHOT)?;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let (mut got, mut byte) = (0, [0]);
                loop {
                    match wait(ep, 1, 2_000) {
                        Ok(e) if e.len() == 1 => {}
                        _ => return -1000,
                    }
                    // Only one thread is here at a time.
                    if read_fd(r, &mut byte) != 1 {
                        return -2000;
                    }
                    let last = byte[0] == 0;
                    if last {
                        write_fd(w, &[0]);
                    } else {
                        got += 1;
                    }
                    if ctl(ep, EPOLL_CTL_MOD, r, EPOLLIN | EPOLLONESHOT, 0) != 0 {
                        return -3000;
                    }
                    if last {
                        return got;
                    }
                }
            })
        })
        .collect();
    for _ in 0..200 {
        write_fd(w, &[1]);
    }
    write_fd(w, &[0]);
    let total: i32 = threads.into_iter().map(|t| t.join().unwrap_or(-9999)).sum();
    eq!(total, 200);
    Ok(())
}

fn fdinfo_lists_targets() -> Outcome {
    let (ep, (r, _w)) = (new()?, new_pipe(0)?);
    ok!(ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN | EPOLLET, 0xabc));
    let info = String::from_utf8_lossy(&content(&format!("/proc/self/fdinfo/{ep}"))?).into_owned();
    let line = info.lines().find(|l| l.starts_with("tfd:")).unwrap_or("none").to_owned();
    let mut st = zero::<stat>();
    ok!(fstat(r, &mut st));
    let want = format!("tfd: {r:8} events: 80000019 data: {:16x}  pos:0 ino:{:x} sdev:", 0xabc, st.st_ino);
    check!(line.starts_with(&want));
    let name = std::fs::read_link(format!("/proc/self/fd/{ep}")).map(|p| p.to_string_lossy().into_owned());
    eq!(name.unwrap_or_default(), "anon_inode:[eventpoll]");
    Ok(())
}

fn create_flags() -> Outcome {
    errno!(epoll_create1(1), EINVAL);
    eq!(ok!(fcntl(new()?, F_GETFD)), FD_CLOEXEC);
    let plain = ok!(epoll_create1(0));
    eq!(ok!(fcntl(plain, F_GETFD)), 0);
    eq!(ok!(fcntl(plain, F_GETFL)), O_RDWR);
    Ok(())
}

fn del_while_ready() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    write_fd(w, b"x");
    add(ep, r, EPOLLIN)?;
    ok!(ctl(ep, EPOLL_CTL_DEL, r, 0, 0));
    eq!(wait(ep, 4, 0)?, []);
    add(ep, r, EPOLLIN)?;
    eq!(wait(ep, 4, 0)?.len(), 1);
    Ok(())
}

fn fork_shares_the_set() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(0)?);
    let ended = child(|| i32::from(add(ep, r, EPOLLIN).is_err()));
    eq!(ended, Status::Exited(0));
    write_fd(w, b"x");
    eq!(wait(ep, 4, 0)?, [(r as u64, EPOLLIN)]);
    Ok(())
}

fn deep_chain_wakes() -> Outcome {
    let (r, w) = new_pipe(0)?;
    let eps = [new()?, new()?, new()?, new()?];
    add(eps[0], r, EPOLLIN)?;
    for pair in eps.windows(2) {
        add(pair[1], pair[0], EPOLLIN | EPOLLET)?;
    }
    let pid = later(|| {
        write_fd(w, b"x");
    });
    eq!(wait(eps[3], 1, 10_000)?.len(), 1);
    wait_for(pid);
    Ok(())
}

fn quota_is_in_proc() -> Outcome {
    let text = String::from_utf8_lossy(&content("/proc/sys/fs/epoll/max_user_watches")?).into_owned();
    check!(text.trim().parse::<u64>().is_ok_and(|n| n > 10_000));
    let set = |text: &str| std::fs::write("/proc/sys/fs/epoll/max_user_watches", text).is_ok();
    check!(set("0"));
    let (ep, (r, _)) = (new()?, new_pipe(0)?);
    let added = ctl(ep, EPOLL_CTL_ADD, r, EPOLLIN, 0);
    let why = std::io::Error::last_os_error().raw_os_error();
    check!(set(text.trim()));
    eq!((added, why), (-1, Some(ENOSPC)));
    add(ep, r, EPOLLIN)
}

fn events_of_a_pipe_writer() -> Outcome {
    let (ep, (r, w)) = (new()?, new_pipe(O_NONBLOCK)?);
    add(ep, w, EPOLLOUT | EPOLLET)?;
    eq!(wait(ep, 1, 0)?, [(w as u64, EPOLLOUT)]);
    while write_fd(w, &[0; 4096]) > 0 {}
    eq!(wait(ep, 1, 0)?, []);
    let mut page = [0; 4096];
    read_fd(r, &mut page);
    eq!(wait(ep, 1, 0)?, [(w as u64, EPOLLOUT)]);
    Ok(())
}

/// New epolls that watch `inner`, until one more is refused.
fn watched_by(inner: i32, most: usize) -> Result<Vec<i32>, Stop> {
    let mut all = Vec::new();
    while all.len() < most {
        let outer = new()?;
        if ctl(outer, EPOLL_CTL_ADD, inner, EPOLLIN, 0) != 0 {
            eq!(std::io::Error::last_os_error().raw_os_error(), Some(EINVAL));
            close_fd(outer);
            break;
        }
        all.push(outer);
    }
    Ok(all)
}

fn ways_up_are_bounded() -> Outcome {
    let (inner, (r, w)) = (new()?, new_pipe(0)?);
    add(inner, r, EPOLLIN)?;
    // From the pipe: 500 ways with one more epoll, 100 with two.
    let middle = watched_by(inner, 600)?;
    eq!(middle.len(), 500);
    let mut top = watched_by(middle[0], 40)?;
    top.extend(watched_by(middle[1], 600)?);
    eq!(top.len(), 100);
    write_fd(w, b"x");
    eq!(wait(top[99], 4, 1000)?.len(), 1);
    eq!(wait(middle[2], 4, 1000)?.len(), 1);
    for fd in top.into_iter().chain(middle) {
        close_fd(fd);
    }
    // Without a file below there is no limit; then no file may come.
    let empty = new()?;
    let outer = watched_by(empty, 501)?;
    eq!(outer.len(), 501);
    errno!(ctl(empty, EPOLL_CTL_ADD, r, EPOLLIN, 0), EINVAL);
    close_fd(outer[0]);
    add(empty, r, EPOLLIN)?;
    eq!(wait(outer[500], 4, 1000)?.len(), 1);
    Ok(())
}
