//! AF_UNIX sockets.

use crate::check::*;
use libc::*;
use std::mem::size_of;

cases![unix:
    pair_both_ways, stream_joins_and_splits, datagrams_keep_borders, seqpackets_keep_borders,
    other_families_are_eafnosupport, creation_errors, not_a_socket, path_names, stale_name_is_econnrefused,
    abstract_names, autobind_names, bind_errors, listen_and_accept, accept_errors, connect_errors, backlog_fills,
    names_of_both_sides, shutdown_directions, end_of_stream, epipe_and_sigpipe, unread_data_is_econnreset,
    dgram_send_errors, dgram_queue_is_bounded, dgram_connect_and_disconnect, full_stream_is_eagain,
    writer_waits_for_reader, peek_and_trunc, waitall_waits, timeouts, options, buffer_sizes_double, peer_credentials,
    poll_states, epoll_wakes, fionread, proc_net_unix, sendmmsg_recvmmsg, readv_and_write, fd_name_and_stat,
    cloexec_flags, bad_pointers, permission_of_a_name, large_transfer, signal_interrupts_receive,
    the_end_of_a_listener_resets_who_waits, room_at_a_later_peer_wakes,
];

pub(crate) fn pair(kind: i32) -> Result<(i32, i32), Stop> {
    let mut ends = [0; 2];
    ok!(socketpair(AF_UNIX, kind, 0, ends.as_mut_ptr()));
    Ok((ends[0], ends[1]))
}

pub(crate) fn new(kind: i32) -> Result<i32, Stop> {
    Ok(ok!(socket(AF_UNIX, kind, 0)))
}

/// An address of a path, or with a NUL in front an abstract one.
fn address(name: &[u8]) -> (sockaddr_un, socklen_t) {
    let mut a = zero::<sockaddr_un>();
    a.sun_family = AF_UNIX as u16;
    for (to, from) in a.sun_path.iter_mut().zip(name) {
        *to = *from as _;
    }
    let nul = usize::from(name.first().is_some_and(|&b| b != 0));
    (a, (2 + name.len() + nul) as socklen_t)
}

fn bind_name(fd: i32, name: &[u8]) -> i32 {
    let (a, len) = address(name);
    // SAFETY: a live address.
    unsafe { bind(fd, (&raw const a).cast(), len) }
}

fn connect_name(fd: i32, name: &[u8]) -> i32 {
    let (a, len) = address(name);
    // SAFETY: a live address.
    unsafe { connect(fd, (&raw const a).cast(), len) }
}

fn send_name(fd: i32, data: &[u8], name: &[u8]) -> isize {
    let (a, len) = address(name);
    // SAFETY: live data and address.
    unsafe { sendto(fd, data.as_ptr().cast(), data.len(), 0, (&raw const a).cast(), len) }
}

fn name_of(fd: i32, peer: bool) -> Result<Vec<u8>, Stop> {
    let mut a = zero::<sockaddr_un>();
    let mut len = size_of::<sockaddr_un>() as socklen_t;
    if peer {
        ok!(getpeername(fd, (&raw mut a).cast(), &mut len));
    } else {
        ok!(getsockname(fd, (&raw mut a).cast(), &mut len));
    }
    Ok(a.sun_path.iter().take(len as usize - 2).map(|b| *b as u8).collect())
}

pub(crate) fn get(fd: i32, room: usize) -> Result<Vec<u8>, Stop> {
    let mut data = vec![0; room];
    let n = ok!(recv(fd, data.as_mut_ptr().cast(), room, 0));
    data.truncate(n as usize);
    Ok(data)
}

fn get_flags(fd: i32, room: usize, flags: i32) -> (isize, Vec<u8>) {
    let mut data = vec![0; room];
    // SAFETY: a live buffer.
    let n = unsafe { recv(fd, data.as_mut_ptr().cast(), room, flags) };
    data.truncate(n.max(0) as usize);
    (n, data)
}

pub(crate) fn set_option<T>(fd: i32, option: i32, value: T) -> i32 {
    // SAFETY: a live value of its size.
    unsafe { setsockopt(fd, SOL_SOCKET, option, (&raw const value).cast(), size_of::<T>() as socklen_t) }
}

fn option(fd: i32, which: i32) -> Result<i32, Stop> {
    let (mut value, mut len) = (0, 4);
    ok!(getsockopt(fd, SOL_SOCKET, which, (&raw mut value).cast(), &mut len));
    Ok(value)
}

pub(crate) fn ready(fd: i32, events: i16) -> i16 {
    let mut p = pollfd { fd, events, revents: 0 };
    // SAFETY: one live entry.
    unsafe { poll(&mut p, 1, 0) };
    p.revents
}

fn listener(name: &[u8], backlog: i32) -> Result<i32, Stop> {
    let fd = new(SOCK_STREAM)?;
    ok!(bind_name(fd, name));
    ok!(listen(fd, backlog));
    Ok(fd)
}

fn accept_one(fd: i32) -> i32 {
    // SAFETY: no address is asked for.
    unsafe { accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), 0) }
}

fn pair_both_ways() -> Outcome {
    for kind in [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET] {
        let (a, b) = pair(kind)?;
        eq!(write_fd(a, b"ping"), 4);
        eq!(get(b, 9)?, b"ping");
        eq!(write_fd(b, b"pong!"), 5);
        eq!(get(a, 9)?, b"pong!");
        errno!(recv(a, [0u8; 1].as_mut_ptr().cast(), 1, MSG_DONTWAIT), EAGAIN);
    }
    Ok(())
}

fn stream_joins_and_splits() -> Outcome {
    let (a, b) = pair(SOCK_STREAM)?;
    write_fd(a, b"abc");
    write_fd(a, b"defg");
    eq!(get(b, 5)?, b"abcde");
    eq!(get(b, 5)?, b"fg");
    Ok(())
}

fn datagrams_keep_borders() -> Outcome {
    let (a, b) = pair(SOCK_DGRAM)?;
    write_fd(a, b"abc");
    write_fd(a, b"");
    write_fd(a, b"defg");
    eq!(get(b, 2)?, b"ab");
    eq!(get(b, 9)?, b"");
    eq!(get(b, 9)?, b"defg");
    Ok(())
}

fn seqpackets_keep_borders() -> Outcome {
    let (a, b) = pair(SOCK_SEQPACKET)?;
    write_fd(a, b"abc");
    write_fd(a, b"defg");
    eq!(get(b, 9)?, b"abc");
    eq!(get(b, 9)?, b"defg");
    close_fd(a);
    eq!(get(b, 9)?, b"");
    Ok(())
}

fn other_families_are_eafnosupport() -> Outcome {
    errno!(socket(46, SOCK_STREAM, 0), EAFNOSUPPORT);
    errno!(socket(-1, SOCK_STREAM, 0), EAFNOSUPPORT);
    errno!(socket(0, SOCK_STREAM, 0), EAFNOSUPPORT);
    errno!(socket(AF_APPLETALK + 1000, SOCK_STREAM, 0), EAFNOSUPPORT);
    Ok(())
}

fn creation_errors() -> Outcome {
    errno!(socket(AF_UNIX, 11, 0), EINVAL);
    errno!(socket(AF_UNIX, SOCK_STREAM | 0x100, 0), EINVAL);
    errno!(socket(AF_UNIX, SOCK_STREAM, 2), EPROTONOSUPPORT);
    errno!(socket(AF_UNIX, SOCK_RDM, 0), ESOCKTNOSUPPORT);
    let fd = ok!(socket(AF_UNIX, SOCK_STREAM, AF_UNIX));
    eq!(option(fd, SO_PROTOCOL)?, 0);
    let raw = ok!(socket(AF_UNIX, SOCK_RAW, 0));
    eq!(option(raw, SO_TYPE)?, SOCK_DGRAM);
    errno!(socketpair(AF_UNIX, SOCK_STREAM, 0, 8 as *mut i32), EFAULT);
    Ok(())
}

fn not_a_socket() -> Outcome {
    let (r, _w) = new_pipe(0)?;
    errno!(listen(r, 1), ENOTSOCK);
    errno!(shutdown(r, 0), ENOTSOCK);
    errno!(recv(r, [0u8; 1].as_mut_ptr().cast(), 1, 0), ENOTSOCK);
    errno!(listen(-1, 1), EBADF);
    errno!(getpeername(999, std::ptr::null_mut(), std::ptr::null_mut()), EBADF);
    Ok(())
}

fn path_names() -> Outcome {
    let l = listener(b"sock", 4)?;
    let st = stat_of("sock")?;
    eq!(st.st_mode & S_IFMT, S_IFSOCK);
    let c = new(SOCK_STREAM)?;
    ok!(connect_name(c, b"sock"));
    let s = ok!(accept_one(l));
    write_fd(c, b"x");
    eq!(get(s, 4)?, b"x");
    errno!(open(c"sock".as_ptr(), O_RDWR), ENXIO);
    // The name outlives nobody's close but goes with unlink.
    ok!(unlink(c"sock".as_ptr()));
    let other = new(SOCK_STREAM)?;
    errno!(connect_name(other, b"sock"), ENOENT);
    write_fd(s, b"y");
    eq!(get(c, 4)?, b"y");
    Ok(())
}

fn stale_name_is_econnrefused() -> Outcome {
    let l = listener(b"sock", 4)?;
    close_fd(l);
    let c = new(SOCK_STREAM)?;
    errno!(connect_name(c, b"sock"), ECONNREFUSED);
    let again = new(SOCK_STREAM)?;
    errno!(bind_name(again, b"sock"), EADDRINUSE);
    make("plain", b"")?;
    errno!(connect_name(c, b"plain"), ECONNREFUSED);
    // A socket that does not listen refuses too.
    let idle = new(SOCK_STREAM)?;
    ok!(bind_name(idle, b"idle"));
    errno!(connect_name(c, b"idle"), ECONNREFUSED);
    Ok(())
}

fn abstract_names() -> Outcome {
    let l = listener(b"\0linnet-test", 4)?;
    let c = new(SOCK_STREAM)?;
    errno!(connect_name(c, b"\0linnet-tes"), ECONNREFUSED);
    errno!(connect_name(c, b"\0linnet-test\0"), ECONNREFUSED);
    ok!(connect_name(c, b"\0linnet-test"));
    ok!(accept_one(l));
    let again = new(SOCK_STREAM)?;
    errno!(bind_name(again, b"\0linnet-test"), EADDRINUSE);
    eq!(name_of(c, true)?, b"\0linnet-test");
    close_fd(l);
    ok!(bind_name(again, b"\0linnet-test"));
    Ok(())
}

fn autobind_names() -> Outcome {
    let (a, b) = (new(SOCK_DGRAM)?, new(SOCK_DGRAM)?);
    ok!(bind_name(a, b""));
    ok!(bind_name(b, b""));
    let (one, other) = (name_of(a, false)?, name_of(b, false)?);
    eq!(one.len(), 6);
    eq!(one[0], 0);
    check!(one[1..].iter().all(u8::is_ascii_hexdigit));
    check!(one != other);
    // Who passes credentials gets a name with its first message.
    let c = new(SOCK_DGRAM)?;
    eq!(name_of(c, false)?, b"");
    ok!(set_option(c, SO_PASSCRED, 1));
    eq!(send_name(c, b"x", &one), 1);
    eq!(name_of(c, false)?.len(), 6);
    Ok(())
}

fn bind_errors() -> Outcome {
    let fd = new(SOCK_STREAM)?;
    let (a, _) = address(b"x");
    let at = (&raw const a).cast();
    errno!(bind(fd, at, 1), EINVAL);
    errno!(bind(fd, at, 111), EINVAL);
    errno!(bind(fd, at, 129), EINVAL);
    errno!(bind(fd, 8 as *const sockaddr, 10), EFAULT);
    let mut inet = a;
    inet.sun_family = AF_INET as u16;
    errno!(bind(fd, (&raw const inet).cast(), 10), EINVAL);
    errno!(bind_name(fd, b"none/x"), ENOENT);
    ok!(bind_name(fd, b"first"));
    errno!(bind_name(fd, b"second"), EINVAL);
    errno!(stat(c"second".as_ptr(), &mut zero::<libc::stat>()), ENOENT);
    Ok(())
}

fn listen_and_accept() -> Outcome {
    let l = listener(b"s", 4)?;
    let pid = fork_child(|| {
        let Ok(c) = new(SOCK_STREAM) else { return 1 };
        if connect_name(c, b"s") != 0 {
            return 2;
        }
        if write_fd(c, b"hello") != 5 {
            return 3;
        }
        i32::from(read_to_end(c) != b"bye") * 4
    });
    let s = ok!(accept_one(l));
    eq!(get(s, 100)?, b"hello");
    write_fd(s, b"bye");
    close_fd(s);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn accept_errors() -> Outcome {
    let fd = new(SOCK_STREAM)?;
    errno!(accept_one(fd), EINVAL);
    errno!(accept_one(new(SOCK_DGRAM)?), EOPNOTSUPP);
    errno!(listen(fd, 1), EINVAL);
    errno!(listen(new(SOCK_DGRAM)?, 1), EOPNOTSUPP);
    let l = listener(b"s", 1)?;
    ok!(fcntl(l, F_SETFL, O_NONBLOCK));
    errno!(accept_one(l), EAGAIN);
    errno!(accept4(l, std::ptr::null_mut(), std::ptr::null_mut(), 1), EINVAL);
    errno!(read(l, [0u8; 1].as_mut_ptr().cast(), 1), EINVAL);
    ok!(shutdown(l, SHUT_RD));
    errno!(accept_one(l), EAGAIN);
    ok!(fcntl(l, F_SETFL, 0));
    errno!(accept_one(l), EINVAL);
    Ok(())
}

fn connect_errors() -> Outcome {
    let l = listener(b"s", 4)?;
    let c = new(SOCK_STREAM)?;
    errno!(connect_name(c, b"nothing"), ENOENT);
    errno!(connect_name(c, b""), EINVAL);
    let d = new(SOCK_DGRAM)?;
    errno!(connect_name(d, b"s"), EPROTOTYPE);
    ok!(connect_name(c, b"s"));
    errno!(connect_name(c, b"s"), EISCONN);
    errno!(connect_name(l, b"s"), EINVAL);
    Ok(())
}

fn backlog_fills() -> Outcome {
    let l = listener(b"s", 1)?;
    let mut held = vec![];
    for _ in 0..2 {
        let c = ok!(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
        ok!(connect_name(c, b"s"));
        held.push(c);
    }
    let c = ok!(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    errno!(connect_name(c, b"s"), EAGAIN);
    // One that waits gets in when there is room.
    let pid = fork_child(|| {
        let Ok(c) = new(SOCK_STREAM) else { return 1 };
        connect_name(c, b"s")
    });
    // SAFETY: only sleeps.
    unsafe { usleep(20_000) };
    ok!(accept_one(l));
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn names_of_both_sides() -> Outcome {
    let l = listener(b"server", 4)?;
    let c = new(SOCK_STREAM)?;
    errno!(getpeername(c, std::ptr::from_mut(&mut zero::<sockaddr_un>()).cast(), &mut 110), ENOTCONN);
    ok!(bind_name(c, b"client"));
    ok!(connect_name(c, b"server"));
    let mut a = zero::<sockaddr_un>();
    let mut len = size_of::<sockaddr_un>() as socklen_t;
    let s = ok!(accept(l, (&raw mut a).cast(), &mut len));
    eq!(len, 2 + 7);
    eq!(name_of(s, false)?, b"server\0");
    eq!(name_of(s, true)?, b"client\0");
    eq!(name_of(c, true)?, b"server\0");
    let (x, _y) = pair(SOCK_STREAM)?;
    eq!(name_of(x, false)?, b"");
    eq!(name_of(x, true)?, b"");
    // The length that is returned is the whole one.
    let mut short = 3;
    ok!(getsockname(l, (&raw mut a).cast(), &mut short));
    eq!(short, 2 + 7);
    Ok(())
}

fn shutdown_directions() -> Outcome {
    set_disposition(SIGPIPE, SIG_IGN);
    let (a, b) = pair(SOCK_STREAM)?;
    errno!(shutdown(a, 3), EINVAL);
    write_fd(a, b"last");
    ok!(shutdown(a, SHUT_WR));
    errno!(write(a, c"x".as_ptr().cast(), 1), EPIPE);
    eq!(get(b, 9)?, b"last");
    eq!(get(b, 9)?, b"");
    write_fd(b, b"back");
    eq!(get(a, 9)?, b"back");
    eq!(ready(b, POLLIN | POLLRDHUP | POLLOUT), POLLIN | POLLRDHUP | POLLOUT);
    ok!(shutdown(a, SHUT_RD));
    errno!(write(b, c"x".as_ptr().cast(), 1), EPIPE);
    eq!(ready(b, POLLIN), POLLIN | POLLHUP);
    Ok(())
}

fn end_of_stream() -> Outcome {
    let (a, b) = pair(SOCK_STREAM)?;
    write_fd(a, b"tail");
    close_fd(a);
    eq!(get(b, 2)?, b"ta");
    eq!(get(b, 9)?, b"il");
    eq!(get(b, 9)?, b"");
    eq!(ready(b, POLLIN | POLLRDHUP), POLLIN | POLLRDHUP | POLLHUP);
    Ok(())
}

fn epipe_and_sigpipe() -> Outcome {
    let ended = child(|| {
        set_disposition(SIGPIPE, SIG_DFL);
        let Ok((a, b)) = pair(SOCK_STREAM) else { return 1 };
        close_fd(b);
        // SAFETY: live data.
        let n = unsafe { send(a, b"x".as_ptr().cast(), 1, MSG_NOSIGNAL) };
        if n != -1 {
            return 2;
        }
        write_fd(a, b"x");
        3
    });
    eq!(ended, Status::Killed(SIGPIPE));
    Ok(())
}

fn unread_data_is_econnreset() -> Outcome {
    let (a, b) = pair(SOCK_STREAM)?;
    write_fd(a, b"lost");
    write_fd(b, b"kept");
    close_fd(b);
    eq!(get(a, 9)?, b"kept");
    errno!(recv(a, [0u8; 1].as_mut_ptr().cast(), 1, 0), ECONNRESET);
    eq!(get(a, 9)?, b"");
    Ok(())
}

fn dgram_send_errors() -> Outcome {
    let fd = new(SOCK_DGRAM)?;
    errno!(send(fd, b"x".as_ptr().cast(), 1, 0), ENOTCONN);
    errno!(send_name(fd, b"x", b"none"), ENOENT);
    errno!(send_name(fd, b"x", b"\0none-here"), ECONNREFUSED);
    let big = vec![0u8; 300_000];
    let (a, b) = pair(SOCK_DGRAM)?;
    errno!(send(a, big.as_ptr().cast(), big.len(), 0), EMSGSIZE);
    close_fd(b);
    errno!(send(a, b"x".as_ptr().cast(), 1, 0), ECONNREFUSED);
    errno!(send(a, b"x".as_ptr().cast(), 1, 0), ENOTCONN);
    let (s, _t) = pair(SOCK_STREAM)?;
    errno!(send_name(s, b"x", b"none"), EISCONN);
    errno!(send_name(new(SOCK_STREAM)?, b"x", b"none"), EOPNOTSUPP);
    errno!(send(new(SOCK_STREAM)?, b"x".as_ptr().cast(), 1, 0), ENOTCONN);
    errno!(send(new(SOCK_SEQPACKET)?, b"x".as_ptr().cast(), 1, 0), ENOTCONN);
    errno!(recv(new(SOCK_SEQPACKET)?, [0u8; 1].as_mut_ptr().cast(), 1, 0), ENOTCONN);
    errno!(recv(new(SOCK_STREAM)?, [0u8; 1].as_mut_ptr().cast(), 1, 0), EINVAL);
    Ok(())
}

fn dgram_queue_is_bounded() -> Outcome {
    let (server, client) = (new(SOCK_DGRAM)?, new(SOCK_DGRAM)?);
    ok!(bind_name(server, b"s"));
    ok!(connect_name(client, b"s"));
    ok!(fcntl(client, F_SETFL, O_NONBLOCK));
    let mut n = 0;
    while write_fd(client, b"m") == 1 {
        n += 1;
    }
    eq!(n, 11);
    eq!(ready(client, POLLOUT), 0);
    eq!(get(server, 9)?, b"m");
    eq!(ready(client, POLLOUT), POLLOUT);
    eq!(write_fd(client, b"m"), 1);
    Ok(())
}

fn dgram_connect_and_disconnect() -> Outcome {
    let (s, c, other) = (new(SOCK_DGRAM)?, new(SOCK_DGRAM)?, new(SOCK_DGRAM)?);
    ok!(bind_name(s, b"s"));
    ok!(bind_name(c, b"c"));
    ok!(connect_name(s, b"c"));
    // Who is connected takes messages from its peer only.
    errno!(send_name(other, b"x", b"s"), EPERM);
    errno!(connect_name(other, b"s"), EPERM);
    eq!(send_name(c, b"x", b"s"), 1);
    let mut a = zero::<sockaddr>();
    a.sa_family = AF_UNSPEC as u16;
    ok!(connect(s, &a, size_of::<sockaddr>() as socklen_t));
    // What came from the old peer is gone.
    eq!(send_name(other, b"y", b"s"), 1);
    let mut from = zero::<sockaddr_un>();
    let mut len = size_of::<sockaddr_un>() as socklen_t;
    let mut byte = [0u8; 4];
    eq!(ok!(recvfrom(s, byte.as_mut_ptr().cast(), 4, 0, (&raw mut from).cast(), &mut len)), 1);
    eq!((byte[0], len), (b'y', 0));
    eq!(send_name(c, b"z", b"s"), 1);
    len = size_of::<sockaddr_un>() as socklen_t;
    eq!(ok!(recvfrom(s, byte.as_mut_ptr().cast(), 4, 0, (&raw mut from).cast(), &mut len)), 1);
    eq!(len, 4);
    eq!(from.sun_path[0] as u8, b'c');
    Ok(())
}

fn full_stream_is_eagain() -> Outcome {
    let (a, b) = pair(SOCK_STREAM | SOCK_NONBLOCK)?;
    let block = vec![1u8; 4096];
    let mut total = 0;
    loop {
        let n = write_fd(a, &block);
        if n < 0 {
            break;
        }
        total += n as usize;
    }
    check!(total > 50_000 && total < 1_000_000);
    eq!(ready(a, POLLOUT), 0);
    let mut all = 0;
    loop {
        let (n, _) = get_flags(b, 10_000, 0);
        if n <= 0 {
            break;
        }
        all += n as usize;
    }
    eq!(all, total);
    eq!(ready(a, POLLOUT), POLLOUT);
    Ok(())
}

fn writer_waits_for_reader() -> Outcome {
    let (a, b) = pair(SOCK_STREAM)?;
    let pid = fork_child(|| {
        let data: Vec<u8> = (0..2_000_000u32).map(|i| (i / 7) as u8).collect();
        let mut at = 0;
        while at < data.len() {
            let n = write_fd(a, &data[at..]);
            if n <= 0 {
                return 1;
            }
            at += n as usize;
        }
        0
    });
    close_fd(a);
    let mut at = 0u32;
    loop {
        let part = get(b, 30_001)?;
        if part.is_empty() {
            break;
        }
        for byte in part {
            if byte != (at / 7) as u8 {
                fail!("byte {at} is {byte}");
            }
            at += 1;
        }
    }
    eq!(at, 2_000_000);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn peek_and_trunc() -> Outcome {
    let (a, b) = pair(SOCK_STREAM)?;
    write_fd(a, b"abc");
    write_fd(a, b"def");
    eq!(get_flags(b, 9, MSG_PEEK), (6, b"abcdef".to_vec()));
    eq!(get_flags(b, 2, MSG_PEEK), (2, b"ab".to_vec()));
    ok!(set_option(b, SO_PEEK_OFF, 1));
    eq!(get_flags(b, 2, MSG_PEEK), (2, b"bc".to_vec()));
    eq!(get_flags(b, 2, MSG_PEEK), (2, b"de".to_vec()));
    eq!(get(b, 9)?, b"abcdef");
    let (a, b) = pair(SOCK_DGRAM)?;
    write_fd(a, b"abcdef");
    eq!(get_flags(b, 3, MSG_PEEK | MSG_TRUNC), (6, b"abc\0\0\0".to_vec().into_iter().take(3).collect()));
    eq!(get_flags(b, 3, MSG_TRUNC).0, 6);
    eq!(get_flags(b, 3, MSG_DONTWAIT).0, -1);
    Ok(())
}

fn waitall_waits() -> Outcome {
    let (a, b) = pair(SOCK_STREAM)?;
    let pid = fork_child(|| {
        for part in [b"ab", b"cd", b"ef"] {
            // SAFETY: only sleeps.
            unsafe { usleep(5_000) };
            write_fd(a, part);
        }
        0
    });
    eq!(get_flags(b, 6, MSG_WAITALL), (6, b"abcdef".to_vec()));
    wait_for(pid);
    Ok(())
}

fn timeouts() -> Outcome {
    let (a, b) = pair(SOCK_STREAM)?;
    let t = timeval { tv_sec: 0, tv_usec: 20_000 };
    ok!(set_option(b, SO_RCVTIMEO, t));
    let start = now();
    errno!(recv(b, [0u8; 1].as_mut_ptr().cast(), 1, 0), EAGAIN);
    check!(now() - start >= 20_000_000);
    errno!(set_option(b, SO_RCVTIMEO, timeval { tv_sec: 0, tv_usec: 1_000_000 }), EDOM);
    errno!(set_option(b, SO_RCVTIMEO, 5), EINVAL);
    let (mut got, mut len) = (zero::<timeval>(), size_of::<timeval>() as socklen_t);
    ok!(getsockopt(b, SOL_SOCKET, SO_RCVTIMEO, (&raw mut got).cast(), &mut len));
    eq!((got.tv_sec, got.tv_usec, len), (0, 20_000, 16));
    ok!(set_option(a, SO_SNDTIMEO, t));
    let block = vec![0u8; 4096];
    while write_fd(a, &block) == 4096 {}
    eq!(std::io::Error::last_os_error().raw_os_error(), Some(EAGAIN));
    Ok(())
}

fn options() -> Outcome {
    let l = listener(b"s", 3)?;
    eq!(option(l, SO_TYPE)?, SOCK_STREAM);
    eq!(option(l, SO_DOMAIN)?, AF_UNIX);
    eq!(option(l, SO_PROTOCOL)?, 0);
    eq!(option(l, SO_ACCEPTCONN)?, 1);
    eq!(option(l, SO_ERROR)?, 0);
    let fd = new(SOCK_DGRAM)?;
    eq!(option(fd, SO_ACCEPTCONN)?, 0);
    for which in [SO_PASSCRED, SO_REUSEADDR, SO_KEEPALIVE, SO_BROADCAST, SO_OOBINLINE] {
        eq!(option(fd, which)?, 0);
        ok!(set_option(fd, which, 5));
        eq!(option(fd, which)?, 1);
    }
    eq!(option(fd, SO_RCVLOWAT)?, 1);
    eq!(option(fd, SO_PEEK_OFF)?, -1);
    errno!(set_option(fd, 12345, 1), ENOPROTOOPT);
    errno!(set_option(fd, SO_TYPE, 1), ENOPROTOOPT);
    errno!(set_option(fd, SO_PASSCRED, 1u8), EINVAL);
    errno!(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, 8 as *const c_void, 4), EFAULT);
    errno!(setsockopt(fd, IPPROTO_TCP, 1, (&raw const fd).cast(), 4), EOPNOTSUPP);
    let (mut value, mut len) = (0, -1i32 as socklen_t);
    errno!(getsockopt(fd, SOL_SOCKET, SO_TYPE, (&raw mut value).cast(), &mut len), EINVAL);
    len = 2;
    ok!(getsockopt(fd, SOL_SOCKET, SO_TYPE, (&raw mut value).cast(), &mut len));
    eq!(len, 2);
    Ok(())
}

fn buffer_sizes_double() -> Outcome {
    let fd = new(SOCK_STREAM)?;
    eq!(option(fd, SO_SNDBUF)?, 212_992);
    eq!(option(fd, SO_RCVBUF)?, 212_992);
    ok!(set_option(fd, SO_SNDBUF, 10_000));
    eq!(option(fd, SO_SNDBUF)?, 20_000);
    ok!(set_option(fd, SO_SNDBUF, 1));
    eq!(option(fd, SO_SNDBUF)?, 4608);
    ok!(set_option(fd, SO_SNDBUF, 1 << 30));
    eq!(option(fd, SO_SNDBUF)?, 425_984);
    ok!(set_option(fd, SO_RCVBUF, 1));
    eq!(option(fd, SO_RCVBUF)?, 2304);
    Ok(())
}

fn ids_of(fd: i32) -> Result<ucred, Stop> {
    let (mut ids, mut len) = (zero::<ucred>(), size_of::<ucred>() as socklen_t);
    ok!(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, (&raw mut ids).cast(), &mut len));
    eq!(len, 12);
    Ok(ids)
}

fn peer_credentials() -> Outcome {
    // SAFETY: the own process.
    let me = unsafe { getpid() };
    let (a, _b) = pair(SOCK_STREAM)?;
    eq!(ids_of(a)?.pid, me);
    let none = ids_of(new(SOCK_STREAM)?)?;
    eq!((none.pid, none.uid, none.gid), (0, u32::MAX, u32::MAX));
    let l = listener(b"s", 3)?;
    let pid = fork_child(|| {
        let Ok(c) = new(SOCK_STREAM) else { return 1 };
        if connect_name(c, b"s") != 0 {
            return 2;
        }
        i32::from(ids_of(c).map_or(0, |i| i.pid) != me) * 3
    });
    let s = ok!(accept_one(l));
    eq!(ids_of(s)?.pid, pid);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn poll_states() -> Outcome {
    let all = POLLIN | POLLOUT | POLLRDHUP;
    eq!(ready(new(SOCK_STREAM)?, all), POLLOUT | POLLHUP);
    eq!(ready(new(SOCK_DGRAM)?, all), POLLOUT);
    let l = listener(b"s", 3)?;
    eq!(ready(l, all), 0);
    let c = new(SOCK_STREAM)?;
    ok!(connect_name(c, b"s"));
    eq!(ready(l, all), POLLIN);
    let (a, b) = pair(SOCK_STREAM)?;
    eq!(ready(a, all), POLLOUT);
    write_fd(b, b"x");
    eq!(ready(a, all), POLLIN | POLLOUT);
    close_fd(b);
    eq!(ready(a, all), all | POLLHUP);
    Ok(())
}

fn epoll_wakes() -> Outcome {
    let (a, b) = pair(SOCK_STREAM)?;
    let ep = ok!(epoll_create1(0));
    let mut e = epoll_event { events: (EPOLLIN | EPOLLET | EPOLLRDHUP) as u32, u64: 7 };
    ok!(epoll_ctl(ep, EPOLL_CTL_ADD, b, &mut e));
    let pid = fork_child(|| {
        for _ in 0..3 {
            // SAFETY: only sleeps.
            unsafe { usleep(10_000) };
            write_fd(a, b"x");
        }
        0
    });
    for _ in 0..3 {
        eq!(ok!(epoll_wait(ep, &mut e, 1, 10_000)), 1);
        check!(e.events as i32 == EPOLLIN);
        eq!(get(b, 9)?, b"x");
    }
    wait_for(pid);
    close_fd(a);
    eq!(ok!(epoll_wait(ep, &mut e, 1, 10_000)), 1);
    check!(e.events as i32 & (EPOLLIN | EPOLLRDHUP | EPOLLHUP) == EPOLLIN | EPOLLRDHUP | EPOLLHUP);
    Ok(())
}

fn fionread() -> Outcome {
    let mut n = 0;
    let (a, b) = pair(SOCK_STREAM)?;
    write_fd(a, b"abc");
    write_fd(a, b"defg");
    ok!(ioctl(b, FIONREAD, &mut n));
    eq!(n, 7);
    ok!(ioctl(a, TIOCOUTQ, &mut n));
    check!(n > 0);
    get(b, 99)?;
    ok!(ioctl(a, TIOCOUTQ, &mut n));
    eq!(n, 0);
    let (a, b) = pair(SOCK_DGRAM)?;
    write_fd(a, b"abc");
    write_fd(a, b"defg");
    ok!(ioctl(b, FIONREAD, &mut n));
    eq!(n, 3);
    errno!(ioctl(listener(b"l", 1)?, FIONREAD, &mut n), EINVAL);
    errno!(ioctl(a, TIOCGWINSZ, &mut n), ENOTTY);
    Ok(())
}

fn proc_net_unix() -> Outcome {
    let _l = listener(b"\0shown-here", 3)?;
    let d = new(SOCK_DGRAM)?;
    ok!(bind_name(d, b"path-here"));
    let text = String::from_utf8_lossy(&content("/proc/net/unix")?).into_owned();
    eq!(text.lines().next().unwrap_or(""), "Num       RefCount Protocol Flags    Type St Inode Path");
    let line = |name: &str| text.lines().find(|l| l.ends_with(name)).unwrap_or("").to_owned();
    let words: Vec<String> = line(" @shown-here").split_whitespace().map(str::to_owned).collect();
    eq!(words.len(), 8);
    eq!((words[3].as_str(), words[4].as_str(), words[5].as_str()), ("00010000", "0001", "01"));
    let words: Vec<String> = line(" path-here").split_whitespace().map(str::to_owned).collect();
    eq!((words[3].as_str(), words[4].as_str()), ("00000000", "0002"));
    let mut st = zero::<libc::stat>();
    ok!(fstat(d, &mut st));
    eq!(words[6].parse::<u64>().unwrap_or(0), st.st_ino);
    Ok(())
}

fn sendmmsg_recvmmsg() -> Outcome {
    let (a, b) = pair(SOCK_DGRAM)?;
    let texts: [&[u8]; 3] = [b"one", b"two!", b"three"];
    let mut parts = texts.map(|t| iovec { iov_base: t.as_ptr().cast_mut().cast(), iov_len: t.len() });
    let mut all = [zero::<mmsghdr>(), zero(), zero()];
    for (m, p) in all.iter_mut().zip(parts.iter_mut()) {
        m.msg_hdr.msg_iov = p;
        m.msg_hdr.msg_iovlen = 1;
    }
    eq!(ok!(sendmmsg(a, all.as_mut_ptr(), 3, 0)), 3);
    eq!(all.map(|m| m.msg_len), [3, 4, 5]);
    let mut room = [[0u8; 8]; 4];
    let mut into = [0, 1, 2, 3].map(|i| iovec { iov_base: room[i].as_mut_ptr().cast(), iov_len: 8 });
    let mut all = [zero::<mmsghdr>(), zero(), zero(), zero()];
    for (m, p) in all.iter_mut().zip(into.iter_mut()) {
        m.msg_hdr.msg_iov = p;
        m.msg_hdr.msg_iovlen = 1;
    }
    eq!(ok!(recvmmsg(b, all.as_mut_ptr(), 4, MSG_WAITFORONE, std::ptr::null_mut())), 3);
    eq!(&all.map(|m| m.msg_len)[..3], &[3, 4, 5]);
    eq!(&room[1][..4], b"two!");
    errno!(recvmmsg(b, all.as_mut_ptr(), 4, MSG_DONTWAIT, std::ptr::null_mut()), EAGAIN);
    Ok(())
}

fn readv_and_write() -> Outcome {
    let (a, b) = pair(SOCK_STREAM)?;
    let parts = [b"ab", b"cd"].map(|t| iovec { iov_base: t.as_ptr().cast_mut().cast(), iov_len: 2 });
    eq!(ok!(writev(a, parts.as_ptr(), 2)), 4);
    let mut room = [[0u8; 3]; 2];
    let into = [0, 1].map(|i| iovec { iov_base: room[i].as_mut_ptr().cast(), iov_len: 3 });
    eq!(ok!(readv(b, into.as_ptr(), 2)), 4);
    eq!(&room, &[*b"abc", *b"d\0\0"]);
    make("f", b"from a file")?;
    let f = open_file("f", O_RDONLY, 0);
    eq!(ok!(sendfile(a, f, std::ptr::null_mut(), 100)), 11);
    eq!(get(b, 99)?, b"from a file");
    errno!(lseek(a, 0, SEEK_SET), ESPIPE);
    errno!(pread(a, [0u8; 1].as_mut_ptr().cast(), 1, 0), ESPIPE);
    Ok(())
}

fn fd_name_and_stat() -> Outcome {
    let fd = new(SOCK_STREAM)?;
    let mut st = zero::<libc::stat>();
    ok!(fstat(fd, &mut st));
    eq!(st.st_mode, S_IFSOCK | 0o777);
    let name = std::fs::read_link(format!("/proc/self/fd/{fd}")).map(|p| p.to_string_lossy().into_owned());
    eq!(name.unwrap_or_default(), format!("socket:[{}]", st.st_ino));
    eq!(ok!(fcntl(fd, F_GETFL)), O_RDWR);
    Ok(())
}

fn cloexec_flags() -> Outcome {
    let fd = ok!(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    eq!(ok!(fcntl(fd, F_GETFD)), FD_CLOEXEC);
    eq!(ok!(fcntl(fd, F_GETFL)), O_RDWR | O_NONBLOCK);
    let l = listener(b"s", 3)?;
    ok!(connect_name(fd, b"s"));
    let s = ok!(accept4(l, std::ptr::null_mut(), std::ptr::null_mut(), SOCK_CLOEXEC));
    eq!(ok!(fcntl(s, F_GETFD)), FD_CLOEXEC);
    eq!(ok!(fcntl(s, F_GETFL)), O_RDWR);
    Ok(())
}

fn bad_pointers() -> Outcome {
    let (a, b) = pair(SOCK_STREAM)?;
    errno!(send(a, 8 as *const c_void, 4, 0), EFAULT);
    errno!(sendmsg(a, 8 as *const msghdr, 0), EFAULT);
    errno!(recvmsg(a, 8 as *mut msghdr, 0), EFAULT);
    write_fd(a, b"safe");
    errno!(recv(b, 8 as *mut c_void, 4, 0), EFAULT);
    // Nothing of a stream was lost.
    eq!(get(b, 9)?, b"safe");
    errno!(getsockname(a, std::ptr::from_mut(&mut zero::<sockaddr_un>()).cast(), 8 as *mut socklen_t), EFAULT);
    let mut m = zero::<msghdr>();
    m.msg_iovlen = 1025;
    m.msg_iov = 16 as *mut iovec;
    errno!(sendmsg(a, &m, 0), EMSGSIZE);
    m.msg_iovlen = 1;
    errno!(sendmsg(a, &m, 0), EFAULT);
    m.msg_iovlen = 0;
    m.msg_control = 8 as *mut c_void;
    m.msg_controllen = 24;
    errno!(sendmsg(a, &m, 0), EFAULT);
    Ok(())
}

fn permission_of_a_name() -> Outcome {
    let l = listener(b"s", 3)?;
    ok!(chmod(c"s".as_ptr(), 0o600));
    let dir = c".";
    ok!(chmod(dir.as_ptr(), 0o755));
    in_child(|| {
        ok!(setgid(1000));
        ok!(setuid(1000));
        errno!(connect_name(new(SOCK_STREAM)?, b"s"), EACCES);
        errno!(bind_name(new(SOCK_STREAM)?, b"t"), EACCES);
        Ok(())
    })?;
    ok!(chmod(c"s".as_ptr(), 0o666));
    in_child(|| {
        ok!(setuid(1000));
        ok!(connect_name(new(SOCK_STREAM)?, b"s"));
        Ok(())
    })?;
    close_fd(l);
    Ok(())
}

fn large_transfer() -> Outcome {
    let (a, b) = pair(SOCK_SEQPACKET)?;
    let data: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    eq!(write_fd(a, &data), 100_000);
    eq!(get(b, 200_000)?, data);
    Ok(())
}

extern "C" fn nothing(_: i32, _: *mut siginfo_t, _: *mut c_void) {}

fn signal_interrupts_receive() -> Outcome {
    let (a, b) = pair(SOCK_STREAM)?;
    // SAFETY: the own process.
    let me = unsafe { getpid() };
    handle(SIGUSR1, nothing, 0);
    let pid = fork_child(|| {
        // SAFETY: sleeps, and the parent has a handler.
        unsafe {
            usleep(20_000);
            kill(me, SIGUSR1)
        }
    });
    errno!(recv(b, [0u8; 1].as_mut_ptr().cast(), 1, 0), EINTR);
    wait_for(pid);
    // Restarted, unless there is a timeout.
    handle(SIGUSR1, nothing, SA_RESTART);
    let pid = fork_child(|| {
        // SAFETY: as above.
        unsafe {
            usleep(20_000);
            kill(me, SIGUSR1);
            usleep(20_000);
        }
        write_fd(a, b"x") as i32 - 1
    });
    eq!(get(b, 4)?, b"x");
    wait_for(pid);
    Ok(())
}

fn the_end_of_a_listener_resets_who_waits() -> Outcome {
    for kind in [SOCK_STREAM, SOCK_SEQPACKET] {
        let l = new(kind)?;
        eq!(bind_name(l, b"\0linnet-reset"), 0);
        ok!(listen(l, 8));
        let clients = [new(kind)?, new(kind)?, new(kind)?, new(kind)?];
        for fd in clients {
            eq!(connect_name(fd, b"\0linnet-reset"), 0);
        }
        let [a, b, c, d] = clients;
        let ep = ok!(epoll_create1(0));
        let mut event = epoll_event { events: (EPOLLIN | EPOLLET) as u32, u64: 7 };
        ok!(epoll_ctl(ep, EPOLL_CTL_ADD, c, &mut event));
        eq!(ok!(epoll_wait(ep, &mut event, 1, 0)), 0);
        let reader = std::thread::spawn(move || {
            // SAFETY: a live byte.
            let n = unsafe { recv(d, [0u8].as_mut_ptr().cast(), 1, 0) };
            (n, std::io::Error::last_os_error().raw_os_error())
        });
        unsafe { usleep(10_000) };
        close_fd(l);
        eq!(reader.join().ok(), Some((-1, Some(ECONNRESET))));
        errno!(recv(a, [0u8].as_mut_ptr().cast(), 1, MSG_DONTWAIT), ECONNRESET);
        eq!(ok!(recv(a, [0u8].as_mut_ptr().cast(), 1, MSG_DONTWAIT)), 0);
        errno!(send(a, b"x".as_ptr().cast(), 1, MSG_NOSIGNAL), EPIPE);
        // A packet's sender hears of the error first.
        let sent = unsafe { send(b, b"x".as_ptr().cast(), 1, MSG_NOSIGNAL) };
        let why = std::io::Error::last_os_error().raw_os_error();
        eq!((sent, why), (-1, Some(if kind == SOCK_STREAM { EPIPE } else { ECONNRESET })));
        eq!(ok!(epoll_wait(ep, &mut event, 1, 1000)), 1);
        let want = (EPOLLIN | EPOLLHUP | EPOLLERR) as u32;
        eq!(event.events & want, want);
        for fd in clients {
            close_fd(fd);
        }
        close_fd(ep);
    }
    Ok(())
}

fn room_at_a_later_peer_wakes() -> Outcome {
    let (s, r) = (new(SOCK_DGRAM | SOCK_NONBLOCK)?, new(SOCK_DGRAM)?);
    eq!(bind_name(r, b"\0linnet-room"), 0);
    let ep = ok!(epoll_create1(0));
    let mut event = epoll_event { events: EPOLLOUT as u32, u64: 7 };
    ok!(epoll_ctl(ep, EPOLL_CTL_ADD, s, &mut event));
    eq!(ok!(epoll_wait(ep, &mut event, 1, 0)), 1);
    eq!(connect_name(s, b"\0linnet-room"), 0);
    for _ in 0..2 {
        while unsafe { send(s, b"x".as_ptr().cast(), 1, 0) } == 1 {}
        eq!(std::io::Error::last_os_error().raw_os_error(), Some(EAGAIN));
        eq!(ok!(epoll_wait(ep, &mut event, 1, 0)), 0);
        let reader = std::thread::spawn(move || {
            unsafe { usleep(10_000) };
            // SAFETY: a live byte.
            unsafe { recv(r, [0u8].as_mut_ptr().cast(), 1, 0) }
        });
        eq!(ok!(epoll_wait(ep, &mut event, 1, 5000)), 1);
        eq!(event.events, EPOLLOUT as u32);
        eq!(reader.join().unwrap_or(-1), 1);
    }
    // A peer that is gone leaves nothing to wait for.
    while unsafe { send(s, b"x".as_ptr().cast(), 1, 0) } == 1 {}
    eq!(ok!(epoll_wait(ep, &mut event, 1, 0)), 0);
    close_fd(r);
    eq!(ok!(epoll_wait(ep, &mut event, 1, 1000)), 1);
    errno!(send(s, b"x".as_ptr().cast(), 1, 0), ECONNREFUSED);
    Ok(())
}
