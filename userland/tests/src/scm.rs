//! What goes with messages of AF_UNIX: credentials, and files in flight.

use crate::check::*;
use crate::unix::{get, pair, ready, set_option};
use libc::*;

cases![scm:
    passed_credentials, forged_credentials, files_travel, files_in_a_stream_stop_the_read, files_cut_off,
    peeked_files, bad_files, too_many_files, socket_over_itself, cycles_are_collected, deep_row_of_sockets,
    many_pairs_leak_nothing,
];

/// Sends `data` with control bytes.
fn send_control(fd: i32, data: &[u8], control: &[u8]) -> isize {
    let mut part = iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut m = zero::<msghdr>();
    m.msg_iov = &mut part;
    m.msg_iovlen = 1;
    m.msg_control = control.as_ptr().cast_mut().cast();
    m.msg_controllen = control.len() as _;
    // SAFETY: all live.
    unsafe { sendmsg(fd, &m, 0) }
}

fn control(kind: i32, data: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    all.extend((16 + data.len()).to_ne_bytes());
    all.extend(SOL_SOCKET.to_ne_bytes());
    all.extend(kind.to_ne_bytes());
    all.extend(data);
    all.resize(all.len().next_multiple_of(8), 0);
    all
}

fn files(fds: &[i32]) -> Vec<u8> {
    let bytes: Vec<u8> = fds.iter().flat_map(|f| f.to_ne_bytes()).collect();
    control(SCM_RIGHTS, &bytes)
}

struct Message {
    data: Vec<u8>,
    flags: i32,
    fds: Vec<i32>,
    ids: Option<(i32, u32, u32)>,
}

fn receive(fd: i32, room: usize, control_room: usize, flags: i32) -> Result<Message, Stop> {
    let mut data = vec![0u8; room];
    let mut space = vec![0u64; control_room.div_ceil(8)];
    let mut part = iovec { iov_base: data.as_mut_ptr().cast(), iov_len: room };
    let mut m = zero::<msghdr>();
    m.msg_iov = &mut part;
    m.msg_iovlen = 1;
    m.msg_control = space.as_mut_ptr().cast();
    m.msg_controllen = control_room as _;
    let n = ok!(recvmsg(fd, &mut m, flags));
    data.truncate(n as usize);
    let bytes: Vec<u8> = space.iter().flat_map(|w| w.to_ne_bytes()).collect();
    let mut rest = &bytes[..(m.msg_controllen as usize).min(bytes.len())];
    let (mut fds, mut ids) = (vec![], None);
    let word = |b: &[u8], i: usize| i32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
    while rest.len() >= 16 {
        let len = word(rest, 0) as usize;
        let body = &rest[16..len];
        match word(rest, 12) {
            SCM_RIGHTS => fds.extend(body.chunks_exact(4).map(|c| word(c, 0))),
            SCM_CREDENTIALS if body.len() == 12 => ids = Some((word(body, 0), word(body, 4) as u32, word(body, 8) as u32)),
            _ => {}
        }
        rest = &rest[len.next_multiple_of(8).min(rest.len())..];
    }
    Ok(Message { data, flags: m.msg_flags, fds, ids })
}

fn passed_credentials() -> Outcome {
    // SAFETY: the own process.
    let me = unsafe { getpid() };
    for kind in [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET] {
        let (a, b) = pair(kind)?;
        write_fd(a, b"x");
        eq!(receive(b, 9, 100, 0)?.ids, None);
        ok!(set_option(b, SO_PASSCRED, 1));
        write_fd(a, b"x");
        eq!(receive(b, 9, 100, 0)?.ids, Some((me, 0, 0)));
        // Too little room: cut off, and said so.
        write_fd(a, b"x");
        let m = receive(b, 9, 20, 0)?;
        eq!(m.flags & MSG_CTRUNC, MSG_CTRUNC);
        let pid = fork_child(|| write_fd(a, b"y") as i32 - 1);
        eq!(receive(b, 9, 100, 0)?.ids, Some((pid, 0, 0)));
        wait_for(pid);
    }
    // A stream does not join what two processes wrote.
    let (a, b) = pair(SOCK_STREAM)?;
    ok!(set_option(b, SO_PASSCRED, 1));
    write_fd(a, b"mine");
    let pid = fork_child(|| write_fd(a, b"theirs") as i32 - 6);
    eq!(wait_for(pid), Status::Exited(0));
    eq!(receive(b, 99, 100, 0)?.data, b"mine");
    eq!(receive(b, 99, 100, 0)?.data, b"theirs");
    Ok(())
}

fn forged_credentials() -> Outcome {
    let (a, b) = pair(SOCK_DGRAM)?;
    ok!(set_option(b, SO_PASSCRED, 1));
    let ids = |pid: i32, uid: u32| {
        let bytes: Vec<u8> = [pid as u32, uid, uid].iter().flat_map(|v| v.to_ne_bytes()).collect();
        control(SCM_CREDENTIALS, &bytes)
    };
    // SAFETY: the own process.
    let me = unsafe { getpid() };
    eq!(send_control(a, b"x", &ids(me, 77)), 1);
    eq!(receive(b, 9, 100, 0)?.ids, Some((me, 77, 77)));
    in_child(|| {
        // SAFETY: the child's own ids.
        let me = unsafe { getpid() };
        ok!(setgid(1000));
        ok!(setuid(1000));
        errno!(send_control(a, b"x", &ids(me, 0)), EPERM);
        errno!(send_control(a, b"x", &ids(1, 1000)), EPERM);
        eq!(send_control(a, b"x", &ids(me, 1000)), 1);
        Ok(())
    })?;
    errno!(send_control(a, b"x", &control(SCM_CREDENTIALS, &[0; 8])), EINVAL);
    errno!(send_control(a, b"x", &control(99, &[0; 8])), EINVAL);
    let mut bad = control(SCM_RIGHTS, &[0; 4]);
    bad[0] = 15;
    errno!(send_control(a, b"x", &bad), EINVAL);
    bad[0] = 99;
    errno!(send_control(a, b"x", &bad), EINVAL);
    Ok(())
}

fn files_travel() -> Outcome {
    for kind in [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET] {
        let (a, b) = pair(kind)?;
        let (r, w) = new_pipe(0)?;
        eq!(send_control(a, b"f", &files(&[w, r])), 1);
        close_fd(w);
        close_fd(r);
        let m = receive(b, 9, 100, MSG_CMSG_CLOEXEC)?;
        eq!(m.fds.len(), 2);
        eq!(m.flags & MSG_CTRUNC, 0);
        eq!(ok!(fcntl(m.fds[0], F_GETFD)), FD_CLOEXEC);
        write_fd(m.fds[0], b"through");
        close_fd(m.fds[0]);
        eq!(read_to_end(m.fds[1]), b"through");
    }
    // Also to another process.
    let (a, b) = pair(SOCK_STREAM)?;
    let (r, w) = new_pipe(0)?;
    let pid = fork_child(|| {
        close_fd(w);
        match receive(b, 9, 100, 0) {
            Ok(m) if m.fds.len() == 1 => write_fd(m.fds[0], b"child") as i32 - 5,
            _ => 1,
        }
    });
    eq!(send_control(a, b"f", &files(&[w])), 1);
    eq!(wait_for(pid), Status::Exited(0));
    close_fd(w);
    close_fd(b);
    eq!(read_to_end(r), b"child");
    Ok(())
}

fn files_in_a_stream_stop_the_read() -> Outcome {
    let (a, b) = pair(SOCK_STREAM)?;
    let fd = ok!(eventfd(0, 0));
    write_fd(a, b"one");
    send_control(a, b"two", &files(&[fd]));
    write_fd(a, b"three");
    let m = receive(b, 99, 100, 0)?;
    eq!((m.data.as_slice(), m.fds.len()), (&b"onetwo"[..], 1));
    eq!(receive(b, 99, 100, 0)?.data, b"three");
    Ok(())
}

fn files_cut_off() -> Outcome {
    let (a, b) = pair(SOCK_DGRAM)?;
    let fd = ok!(eventfd(0, 0));
    send_control(a, b"x", &files(&[fd, fd, fd]));
    let m = receive(b, 9, 16 + 8, 0)?;
    eq!((m.fds.len(), m.flags & MSG_CTRUNC), (2, MSG_CTRUNC));
    send_control(a, b"x", &files(&[fd]));
    let m = receive(b, 9, 0, 0)?;
    eq!((m.fds.len(), m.flags & MSG_CTRUNC), (0, MSG_CTRUNC));
    // A plain read drops them.
    send_control(a, b"x", &files(&[fd]));
    eq!(get(b, 9)?, b"x");
    // No number is free: what could not be given is cut off.
    let mut limit = zero::<rlimit>();
    ok!(getrlimit(RLIMIT_NOFILE, &mut limit));
    let free = ok!(dup(fd));
    close_fd(free);
    send_control(a, b"x", &files(&[fd, fd]));
    let low = rlimit { rlim_cur: free as u64 + 1, ..limit };
    ok!(setrlimit(RLIMIT_NOFILE, &low));
    let m = receive(b, 9, 100, 0)?;
    ok!(setrlimit(RLIMIT_NOFILE, &limit));
    eq!((m.fds, m.flags & MSG_CTRUNC), (vec![free], MSG_CTRUNC));
    Ok(())
}

fn peeked_files() -> Outcome {
    for kind in [SOCK_STREAM, SOCK_DGRAM] {
        let (a, b) = pair(kind)?;
        let fd = ok!(eventfd(3, 0));
        send_control(a, b"x", &files(&[fd]));
        let first = receive(b, 9, 100, MSG_PEEK)?;
        let second = receive(b, 9, 100, 0)?;
        eq!((first.fds.len(), second.fds.len()), (1, 1));
        eq!(read_fd(first.fds[0], &mut [0; 8]), 8);
        eq!(ready(second.fds[0], POLLIN), 0);
    }
    Ok(())
}

fn bad_files() -> Outcome {
    let (a, b) = pair(SOCK_DGRAM)?;
    errno!(send_control(a, b"x", &files(&[-1])), EBADF);
    errno!(send_control(a, b"x", &files(&[a, 999])), EBADF);
    errno!(recv(b, [0u8; 1].as_mut_ptr().cast(), 1, MSG_DONTWAIT), EAGAIN);
    let many = vec![a; 254];
    errno!(send_control(a, b"x", &files(&many)), EINVAL);
    eq!(send_control(a, b"x", &files(&many[..253])), 1);
    let m = receive(b, 9, 4096, 0)?;
    eq!(m.fds.len(), 253);
    for fd in m.fds {
        close_fd(fd);
    }
    Ok(())
}

fn too_many_files() -> Outcome {
    in_child(|| {
        let fd = ok!(eventfd(0, 0));
        ok!(setgid(1234));
        ok!(setuid(1234));
        ok!(setrlimit(RLIMIT_NOFILE, &rlimit { rlim_cur: 100, rlim_max: 100 }));
        let (a, _b) = pair(SOCK_STREAM)?;
        let some = files(&[fd; 60]);
        eq!(send_control(a, b"x", &some), 1);
        eq!(send_control(a, b"x", &some), 1);
        errno!(send_control(a, b"x", &some), ETOOMANYREFS);
        Ok(())
    })
}

fn socket_over_itself() -> Outcome {
    let (a, b) = pair(SOCK_STREAM)?;
    // Its own other end, and itself.
    eq!(send_control(a, b"x", &files(&[a, b])), 1);
    let m = receive(b, 9, 100, 0)?;
    eq!(m.fds.len(), 2);
    write_fd(m.fds[0], b"hello");
    eq!(get(m.fds[1], 9)?, b"hello");
    Ok(())
}

fn sockets_in_use() -> usize {
    std::fs::read_to_string("/proc/net/unix").map_or(0, |t| t.lines().count())
}

fn cycles_are_collected() -> Outcome {
    let before = sockets_in_use();
    for _ in 0..50 {
        let (a, b) = pair(SOCK_DGRAM)?;
        let (c, d) = pair(SOCK_STREAM)?;
        // a's queue holds a; b's and d's queues hold each other's ends.
        eq!(send_control(b, b"x", &files(&[a])), 1);
        eq!(send_control(a, b"x", &files(&[c, d])), 1);
        eq!(send_control(c, b"x", &files(&[a, b])), 1);
        for fd in [a, b, c, d] {
            close_fd(fd);
        }
    }
    // One more close lets the collector look.
    let mut after = sockets_in_use();
    for _ in 0..200 {
        if after <= before {
            break;
        }
        let (a, b) = pair(SOCK_DGRAM)?;
        close_fd(a);
        close_fd(b);
        // SAFETY: only sleeps.
        unsafe { usleep(5_000) };
        after = sockets_in_use();
    }
    check!(after <= before);
    Ok(())
}

/// Each socket's queue holds the next one: the last close ends all of them.
fn deep_row_of_sockets() -> Outcome {
    let before = sockets_in_use();
    let (mut a, mut b) = pair(SOCK_DGRAM)?;
    for _ in 0..3000 {
        let (c, d) = pair(SOCK_DGRAM)?;
        eq!(send_control(c, b"x", &files(&[a, b])), 1);
        close_fd(a);
        close_fd(b);
        (a, b) = (c, d);
    }
    close_fd(a);
    close_fd(b);
    for _ in 0..400 {
        if sockets_in_use() <= before {
            return Ok(());
        }
        // SAFETY: only sleeps.
        unsafe { usleep(10_000) };
    }
    fail!("{} sockets are left", sockets_in_use() - before)
}

fn many_pairs_leak_nothing() -> Outcome {
    let before = sockets_in_use();
    for _ in 0..2000 {
        let (a, b) = pair(SOCK_STREAM)?;
        write_fd(a, &[1; 1000]);
        send_control(b, b"x", &files(&[a, b]));
        close_fd(a);
        close_fd(b);
    }
    for _ in 0..400 {
        if sockets_in_use() <= before + 2 {
            return Ok(());
        }
        let (a, b) = pair(SOCK_STREAM)?;
        close_fd(a);
        close_fd(b);
        // SAFETY: only sleeps.
        unsafe { usleep(5_000) };
    }
    fail!("{} sockets are left", sockets_in_use() - before)
}

