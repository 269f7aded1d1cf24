//! Moving bytes inside the kernel: splice, tee, vmsplice, sendfile, copy_file_range; and reads and writes
//! with flags.

use crate::check::*;
use libc::*;
use std::ptr::null_mut;

cases![splice:
    file_to_pipe_and_back, offsets_are_moved, errors_of_splice, only_some_files_can, pipe_to_pipe_moves,
    tee_copies, errors_of_tee, waits_and_does_not, sigpipe_and_end, holes_and_the_end, later_stores_show,
    vmsplice_gives_pages, vmsplice_takes, errors_of_vmsplice, sendfile_moves_positions, errors_of_sendfile,
    sendfile_to_socket_and_pipe, sendfile_does_not_leak, copy_file_range_copies, errors_of_copy_file_range, sockets_and_devices,
    memfd_page_in_a_pipe_is_busy, preadv2_and_pwritev2, readahead_and_sync_file_range, pipe_sizes,
    unprivileged_pipes_have_limits, file_limit_stops_splice, many_splicers_keep_the_order,
];

fn filled(name: &str, data: &[u8]) -> Result<i32, Stop> {
    make(name, data)?;
    Ok(ok!(open_file(name, O_RDWR, 0)))
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i / 7 + i) as u8).collect()
}

fn sp(from: i32, from_at: Option<&mut i64>, to: i32, to_at: Option<&mut i64>, len: usize, flags: u32) -> isize {
    let at = |p: Option<&mut i64>| p.map_or(null_mut(), |p| p as *mut i64);
    // SAFETY: the offsets live.
    unsafe { splice(from, at(from_at), to, at(to_at), len, flags) }
}

fn position(fd: i32) -> i64 {
    // SAFETY: no memory is involved.
    unsafe { lseek(fd, 0, SEEK_CUR) }
}

fn file_to_pipe_and_back() -> Outcome {
    let data = pattern(50_000);
    let from = filled("a", &data)?;
    let to = ok!(open_file("b", O_RDWR | O_CREAT, 0o600));
    let (r, w) = new_pipe(0)?;
    let mut done = 0;
    while done < data.len() {
        let n = ok!(sp(from, None, w, None, data.len(), 0)) as usize;
        check!(n > 0);
        let mut out = 0;
        while out < n {
            out += ok!(sp(r, None, to, None, n - out, SPLICE_F_MOVE)) as usize;
        }
        done += n;
    }
    eq!(sp(from, None, w, None, 10, 0), 0);
    eq!((position(from), position(to)), (50_000, 50_000));
    check!(content("b")? == data);
    Ok(())
}

fn offsets_are_moved() -> Outcome {
    let from = filled("a", b"0123456789")?;
    let to = filled("b", b"..........")?;
    let (r, w) = new_pipe(0)?;
    let mut at = 3;
    eq!(ok!(sp(from, Some(&mut at), w, None, 4, 0)), 4);
    eq!((at, position(from)), (7, 0));
    let mut out = 5;
    eq!(ok!(sp(r, None, to, Some(&mut out), 3, 0)), 3);
    eq!((out, position(to)), (8, 0));
    check!(content("b")? == b".....345..");
    eq!(ok!(sp(r, None, to, None, 100, SPLICE_F_NONBLOCK)), 1);
    eq!(position(to), 1);
    check!(content("b")? == b"6....345..");
    Ok(())
}

fn errors_of_splice() -> Outcome {
    let f = filled("a", b"data")?;
    let (r, w) = new_pipe(0)?;
    let mut at = 0i64;
    eq!(sp(-1, None, -1, None, 0, 99), 0);
    errno!(sp(-1, None, -1, None, 1, 99), EINVAL);
    errno!(sp(-1, None, w, None, 1, 0), EBADF);
    errno!(sp(f, None, 99, None, 1, 0), EBADF);
    errno!(sp(r, Some(&mut at), f, None, 1, 0), ESPIPE);
    errno!(sp(f, None, w, Some(&mut at), 1, 0), ESPIPE);
    // The offset's memory comes before what the files allow.
    errno!(splice(f, 8 as *mut i64, r, null_mut(), 1, 0), EFAULT);
    errno!(sp(f, None, r, None, 1, 0), EBADF);
    errno!(sp(w, None, f, None, 1, 0), EBADF);
    errno!(sp(f, None, f, None, 1, 0), EINVAL);
    errno!(sp(r, None, w, None, 1, 0), EINVAL);
    let mut bad = -1;
    errno!(sp(f, Some(&mut bad), w, None, 1, 0), EINVAL);
    eq!(write_fd(w, b"x"), 1);
    errno!(sp(r, None, f, Some(&mut bad), 1, 0), EINVAL);
    let mut far = i64::MAX;
    errno!(sp(r, None, f, Some(&mut far), 1, 0), EINVAL);
    errno!(sp(f, Some(&mut far), w, None, 1, 0), EINVAL);
    let mut far = i64::MAX - 1;
    eq!(ok!(sp(f, Some(&mut far), w, None, 1, 0)), 0);
    // The length counts on the way into a file only.
    errno!(sp(r, None, f, None, usize::MAX, 0), EINVAL);
    eq!(ok!(sp(f, None, w, None, usize::MAX, 0)), 4);
    let appending = ok!(open_file("a", O_WRONLY | O_APPEND, 0));
    errno!(sp(r, None, appending, None, 1, 0), EINVAL);
    let path = ok!(open_file("a", O_PATH, 0));
    errno!(sp(path, None, w, None, 1, 0), EBADF);
    eq!(read_fd(r, &mut [0; 16]), 5);
    Ok(())
}

fn only_some_files_can() -> Outcome {
    let (r, w) = new_pipe(O_NONBLOCK)?;
    let event = ok!(eventfd(1, EFD_NONBLOCK));
    errno!(sp(event, None, w, None, 8, 0), EINVAL);
    let dir = ok!(open_file(".", O_RDONLY, 0));
    errno!(sp(dir, None, w, None, 8, 0), EINVAL);
    eq!(write_fd(w, &[0; 8]), 8);
    errno!(sp(r, None, event, None, 8, 0), EINVAL);
    Ok(())
}

fn pipe_to_pipe_moves() -> Outcome {
    let (ar, aw) = new_pipe(0)?;
    let (br, bw) = new_pipe(0)?;
    eq!(write_fd(aw, b"hello world"), 11);
    eq!(ok!(sp(ar, None, bw, None, 5, 0)), 5);
    eq!(ok!(sp(ar, None, bw, None, 100, 0)), 6);
    let mut b = [0; 20];
    eq!(read_fd(br, &mut b), 11);
    eq!(&b[..11], b"hello world");
    // As many slots as there is room for.
    ok!(fcntl(bw, F_SETPIPE_SZ, 2 * PAGE as i32));
    for i in 0..3 {
        eq!(write_fd(aw, &[i; PAGE]), PAGE as isize);
    }
    eq!(ok!(sp(ar, None, bw, None, 3 * PAGE, 0)), 2 * PAGE as isize);
    errno!(sp(ar, None, bw, None, PAGE, SPLICE_F_NONBLOCK), EAGAIN);
    Ok(())
}

fn tee_copies() -> Outcome {
    let (ar, aw) = new_pipe(0)?;
    let (br, bw) = new_pipe(0)?;
    eq!(write_fd(aw, b"hello"), 5);
    eq!(ok!(tee(ar, bw, 100, 0)), 5);
    eq!(ok!(tee(ar, bw, 2, 0)), 2);
    // What is written later goes to one pipe only.
    eq!(write_fd(aw, b" a"), 2);
    eq!(write_fd(bw, b" b"), 2);
    let mut b = [0; 20];
    eq!(read_fd(br, &mut b), 9);
    eq!(&b[..9], b"hellohe b");
    eq!(read_fd(ar, &mut b), 7);
    eq!(&b[..7], b"hello a");
    Ok(())
}

fn errors_of_tee() -> Outcome {
    let f = filled("a", b"data")?;
    let (ar, aw) = new_pipe(0)?;
    let (_br, bw) = new_pipe(0)?;
    errno!(tee(-1, -1, 0, 99), EINVAL);
    eq!(ok!(tee(-1, -1, 0, 0)), 0);
    errno!(tee(-1, bw, 1, 0), EBADF);
    errno!(tee(ar, 99, 1, 0), EBADF);
    errno!(tee(aw, bw, 1, 0), EBADF);
    errno!(tee(f, bw, 1, 0), EINVAL);
    errno!(tee(ar, aw, 1, 0), EINVAL);
    errno!(tee(ar, bw, 1, SPLICE_F_NONBLOCK), EAGAIN);
    close_fd(aw);
    eq!(ok!(tee(ar, bw, 1, 0)), 0);
    Ok(())
}

fn waits_and_does_not() -> Outcome {
    let f = filled("a", &[1; 4096])?;
    let (r, w) = new_pipe(0)?;
    errno!(sp(r, None, f, None, 1, SPLICE_F_NONBLOCK), EAGAIN);
    ok!(fcntl(r, F_SETFL, O_NONBLOCK));
    errno!(sp(r, None, f, None, 1, 0), EAGAIN);
    ok!(fcntl(r, F_SETFL, 0));
    // Waits for the first bytes, not for all.
    let pid = fork_child(|| {
        std::thread::sleep(std::time::Duration::from_millis(30));
        (write_fd(w, b"late") != 4) as i32
    });
    let mut at = 0;
    eq!(ok!(sp(r, None, f, Some(&mut at), 100, 0)), 4);
    eq!(wait_for(pid), Status::Exited(0));
    ok!(fcntl(w, F_SETPIPE_SZ, PAGE as i32));
    eq!(write_fd(w, &[1; PAGE]), PAGE as isize);
    let mut at = 0;
    errno!(sp(f, Some(&mut at), w, None, 1, SPLICE_F_NONBLOCK), EAGAIN);
    ok!(fcntl(w, F_SETFL, O_NONBLOCK));
    errno!(sp(f, Some(&mut at), w, None, 1, 0), EAGAIN);
    ok!(fcntl(w, F_SETFL, 0));
    let pid = fork_child(|| {
        std::thread::sleep(std::time::Duration::from_millis(30));
        (read_fd(r, &mut [0; PAGE]) != PAGE as isize) as i32
    });
    eq!(ok!(sp(f, Some(&mut at), w, None, 10, 0)), 10);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn sigpipe_and_end() -> Outcome {
    let f = filled("a", b"data")?;
    eq!(
        child(|| {
            set_disposition(SIGPIPE, SIG_DFL);
            let Ok((r, w)) = new_pipe(0) else { return 1 };
            close_fd(r);
            sp(f, None, w, None, 1, 0);
            2
        }),
        Status::Killed(SIGPIPE)
    );
    set_disposition(SIGPIPE, SIG_IGN);
    let (r, w) = new_pipe(0)?;
    let (r2, w2) = new_pipe(0)?;
    eq!(write_fd(w2, b"x"), 1);
    close_fd(r);
    errno!(sp(f, None, w, None, 1, 0), EPIPE);
    errno!(sp(r2, None, w, None, 1, 0), EPIPE);
    errno!(tee(r2, w, 1, 0), EPIPE);
    let piece = iovec { iov_base: c"x".as_ptr().cast_mut().cast(), iov_len: 1 };
    errno!(vmsplice(w, &piece, 1, 0), EPIPE);
    close_fd(w2);
    eq!(ok!(sp(r2, None, f, None, 100, 0)), 1);
    eq!(ok!(sp(r2, None, f, None, 100, 0)), 0);
    Ok(())
}

fn holes_and_the_end() -> Outcome {
    let f = ok!(open_file("a", O_RDWR | O_CREAT, 0o600));
    ok!(ftruncate(f, 3 * PAGE as i64));
    eq!(ok!(pwrite(f, c"x".as_ptr().cast(), 1, PAGE as i64 + 1)), 1);
    let (r, w) = new_pipe(0)?;
    let mut at = 0;
    eq!(ok!(sp(f, Some(&mut at), w, None, 1 << 20, 0)), 3 * PAGE as isize);
    let mut b = vec![9; 4 * PAGE];
    eq!(read_fd(r, &mut b), 3 * PAGE as isize);
    check!(b[..3 * PAGE].iter().enumerate().all(|(i, v)| *v == if i == PAGE + 1 { b'x' } else { 0 }));
    eq!(ok!(sp(f, Some(&mut at), w, None, 1, 0)), 0);
    let mut beyond = 100 * PAGE as i64;
    eq!(ok!(sp(f, Some(&mut beyond), w, None, 1, 0)), 0);
    Ok(())
}

fn later_stores_show() -> Outcome {
    // The pipe has the file's page, not a copy.
    let f = filled("a", b"before")?;
    let (r, w) = new_pipe(0)?;
    let mut at = 0;
    eq!(ok!(sp(f, Some(&mut at), w, None, 6, 0)), 6);
    eq!(ok!(pwrite(f, c"AFTER!".as_ptr().cast(), 6, 0)), 6);
    let mut b = [0; 8];
    // And is not written to by the pipe's writers.
    eq!(write_fd(w, b"+"), 1);
    eq!(read_fd(r, &mut b), 7);
    eq!(&b[..7], b"AFTER!+");
    check!(content("a")? == b"AFTER!");
    Ok(())
}

fn vmsplice_gives_pages() -> Outcome {
    let (r, w) = new_pipe(0)?;
    let memory = map(3 * PAGE, RW);
    let bytes = unsafe { std::slice::from_raw_parts_mut(memory, 3 * PAGE) };
    bytes.fill(1);
    let pieces = [
        iovec { iov_base: memory.wrapping_add(100).cast(), iov_len: PAGE },
        iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
        iovec { iov_base: memory.wrapping_add(2 * PAGE).cast(), iov_len: 5 },
    ];
    eq!(ok!(vmsplice(w, pieces.as_ptr(), 3, 0)), PAGE as isize + 5);
    // By reference: what is stored now is what a reader gets.
    bytes[2 * PAGE] = 7;
    let mut b = vec![0; 2 * PAGE];
    eq!(read_fd(r, &mut b), PAGE as isize + 5);
    check!(b[..PAGE].iter().all(|v| *v == 1));
    eq!(&b[PAGE..PAGE + 5], &[7, 1, 1, 1, 1]);
    // Untouched memory is zeros; memory that goes away stays for the pipe.
    let fresh = map(PAGE, RW);
    let piece = iovec { iov_base: fresh.cast(), iov_len: 16 };
    eq!(ok!(vmsplice(w, &piece, 1, SPLICE_F_GIFT)), 16);
    bytes[0] = 5;
    let piece = iovec { iov_base: memory.cast(), iov_len: 1 };
    eq!(ok!(vmsplice(w, &piece, 1, 0)), 1);
    unmap(memory, 3 * PAGE);
    unmap(fresh, PAGE);
    eq!(read_fd(r, &mut b), 17);
    check!(b[..16].iter().all(|v| *v == 0) && b[16] == 5);
    // What fits, and no more.
    let big = map(20 * PAGE, RW);
    let piece = iovec { iov_base: big.cast(), iov_len: 20 * PAGE };
    eq!(ok!(vmsplice(w, &piece, 1, 0)), 16 * PAGE as isize);
    errno!(vmsplice(w, &piece, 1, SPLICE_F_NONBLOCK), EAGAIN);
    Ok(())
}

fn vmsplice_takes() -> Outcome {
    let (r, w) = new_pipe(0)?;
    eq!(write_fd(w, b"hello"), 5);
    let mut a = [0u8; 2];
    let mut b = [0u8; 8];
    let pieces = [
        iovec { iov_base: a.as_mut_ptr().cast(), iov_len: 2 },
        iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 8 },
    ];
    eq!(ok!(vmsplice(r, pieces.as_ptr(), 2, 0)), 5);
    eq!((&a, &b[..3]), (b"he", b"llo".as_slice()));
    errno!(vmsplice(r, pieces.as_ptr(), 2, SPLICE_F_NONBLOCK), EAGAIN);
    close_fd(w);
    eq!(ok!(vmsplice(r, pieces.as_ptr(), 2, 0)), 0);
    Ok(())
}

fn errors_of_vmsplice() -> Outcome {
    let (r, w) = new_pipe(0)?;
    let f = filled("a", b"data")?;
    let mut byte = [0u8];
    let piece = iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    errno!(vmsplice(-1, &piece, 1, 99), EINVAL);
    errno!(vmsplice(-1, &piece, 1, 0), EBADF);
    errno!(vmsplice(f, &piece, 1, 0), EBADF);
    errno!(vmsplice(w, std::ptr::null(), 1, 0), EFAULT);
    errno!(vmsplice(w, &piece, 2000, 0), EINVAL);
    let none = iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 0 };
    eq!(ok!(vmsplice(f, &none, 1, 0)), 0);
    let bad = iovec { iov_base: 16 as *mut c_void, iov_len: 1 };
    errno!(vmsplice(w, &bad, 1, 0), EFAULT);
    eq!(write_fd(w, b"x"), 1);
    errno!(vmsplice(r, &bad, 1, 0), EFAULT);
    Ok(())
}

fn sendfile_moves_positions() -> Outcome {
    let data = pattern(30_000);
    let from = filled("a", &data)?;
    let to = ok!(open_file("b", O_RDWR | O_CREAT, 0o600));
    eq!(ok!(sendfile(to, from, null_mut(), 10_000)), 10_000);
    eq!((position(from), position(to)), (10_000, 10_000));
    let mut at = 10_000;
    eq!(ok!(sendfile(to, from, &mut at, 100_000)), 20_000);
    eq!((at, position(from), position(to)), (30_000, 10_000, 30_000));
    check!(content("b")? == data);
    eq!(ok!(sendfile(to, from, &mut at, 100)), 0);
    eq!(ok!(sendfile(to, from, &mut at, 0)), 0);
    Ok(())
}

fn errors_of_sendfile() -> Outcome {
    let f = filled("a", b"data")?;
    let to = ok!(open_file("b", O_RDWR | O_CREAT, 0o600));
    let (r, w) = new_pipe(0)?;
    let mut at = 0i64;
    errno!(sendfile(-1, -1, 8 as *mut i64, 1), EFAULT);
    errno!(sendfile(to, -1, null_mut(), 1), EBADF);
    errno!(sendfile(-1, f, null_mut(), 1), EBADF);
    errno!(sendfile(r, f, null_mut(), 1), EBADF);
    errno!(sendfile(to, w, null_mut(), 1), EBADF);
    errno!(sendfile(-1, r, &mut at, 1), ESPIPE);
    errno!(sendfile(to, r, null_mut(), 1), EINVAL);
    at = -1;
    errno!(sendfile(-1, f, &mut at, 1), EINVAL);
    errno!(sendfile(-1, f, null_mut(), usize::MAX), EINVAL);
    let appending = ok!(open_file("b", O_WRONLY | O_APPEND, 0));
    errno!(sendfile(appending, f, null_mut(), 1), EINVAL);
    let event = ok!(eventfd(0, 0));
    errno!(sendfile(event, f, null_mut(), 4), EINVAL);
    Ok(())
}

fn sendfile_to_socket_and_pipe() -> Outcome {
    let data = pattern(9000);
    let f = filled("a", &data)?;
    let mut pair = [0; 2];
    ok!(socketpair(AF_UNIX, SOCK_STREAM, 0, pair.as_mut_ptr()));
    let mut at = 0;
    eq!(ok!(sendfile(pair[0], f, &mut at, 9000)), 9000);
    let mut b = vec![0; 9000];
    let mut got = 0;
    while got < 9000 {
        let n = read_fd(pair[1], &mut b[got..]);
        check!(n > 0);
        got += n as usize;
    }
    check!(b == data);
    let (r, w) = new_pipe(O_NONBLOCK)?;
    eq!(ok!(sendfile(w, f, null_mut(), 1 << 20)), 9000);
    eq!(position(f), 9000);
    eq!(read_fd(r, &mut b), 9000);
    check!(b == data);
    ok!(fcntl(w, F_SETPIPE_SZ, PAGE as i32));
    at = 0;
    eq!(ok!(sendfile(w, f, &mut at, 9000)), PAGE as isize);
    errno!(sendfile(w, f, &mut at, 9000), EAGAIN);
    Ok(())
}

fn sendfile_does_not_leak() -> Outcome {
    let f = filled("a", &[3; 100])?;
    let (r, w) = new_pipe(0)?;
    let to = ok!(open_file("/dev/null", O_WRONLY, 0));
    for _ in 0..2000 {
        let mut at = 0;
        eq!(ok!(sendfile(to, f, &mut at, 100)), 100);
        at = 0;
        eq!(ok!(sendfile(w, f, &mut at, 100)), 100);
        eq!(read_fd(r, &mut [0; 100]), 100);
    }
    Ok(())
}

fn cfr(from: i32, from_at: Option<&mut i64>, to: i32, to_at: Option<&mut i64>, len: usize, flags: u32) -> i64 {
    let at = |p: Option<&mut i64>| p.map_or(null_mut(), |p| p as *mut i64);
    // SAFETY: the offsets live.
    unsafe { syscall(SYS_copy_file_range, from, at(from_at), to, at(to_at), len, flags) }
}

fn copy_file_range_copies() -> Outcome {
    let data = pattern(20_000);
    let from = filled("a", &data)?;
    let to = ok!(open_file("b", O_RDWR | O_CREAT, 0o600));
    eq!(ok!(cfr(from, None, to, None, 5000, 0)), 5000);
    eq!((position(from), position(to)), (5000, 5000));
    let (mut i, mut o) = (5000, 5000);
    eq!(ok!(cfr(from, Some(&mut i), to, Some(&mut o), 1 << 30, 0)), 15_000);
    eq!((i, o, position(from), position(to)), (20_000, 20_000, 5000, 5000));
    check!(content("b")? == data);
    eq!(ok!(cfr(from, Some(&mut i), to, None, 10, 0)), 0);
    // Within a file, as long as the ranges do not overlap.
    let (mut i, mut o) = (0, 30_000);
    eq!(ok!(cfr(from, Some(&mut i), from, Some(&mut o), 10_000, 0)), 10_000);
    check!(content("a")?[30_000..] == data[..10_000]);
    Ok(())
}

fn errors_of_copy_file_range() -> Outcome {
    let f = filled("a", &[1; 100])?;
    let to = ok!(open_file("b", O_RDWR | O_CREAT, 0o600));
    let (r, w) = new_pipe(0)?;
    errno!(cfr(-1, None, to, None, 1, 9), EBADF);
    errno!(cfr(f, None, -1, None, 1, 9), EBADF);
    errno!(syscall(SYS_copy_file_range, f, 8, to, 0, 1, 9), EFAULT);
    errno!(cfr(f, None, to, None, 1, 9), EINVAL);
    let dir = ok!(open_file(".", O_RDONLY, 0));
    errno!(cfr(dir, None, to, None, 1, 0), EISDIR);
    errno!(cfr(r, None, to, None, 1, 0), EINVAL);
    errno!(cfr(f, None, w, None, 1, 0), EINVAL);
    let reader = ok!(open_file("b", O_RDONLY, 0));
    errno!(cfr(f, None, reader, None, 1, 0), EBADF);
    let appending = ok!(open_file("b", O_WRONLY | O_APPEND, 0));
    errno!(cfr(f, None, appending, None, 1, 0), EBADF);
    let (mut i, mut o) = (0, 50);
    errno!(cfr(f, Some(&mut i), f, Some(&mut o), 51, 0), EINVAL);
    let mut far = i64::MAX;
    errno!(cfr(f, None, to, Some(&mut far), 10, 0), EFBIG);
    far = -1;
    errno!(cfr(f, None, to, Some(&mut far), 10, 0), EOVERFLOW);
    far = -20;
    errno!(cfr(f, None, to, Some(&mut far), 10, 0), EINVAL);
    let other = ok!(open_file("/dev/shm/cfr", O_RDWR | O_CREAT, 0o600));
    ok!(unlink(c"/dev/shm/cfr".as_ptr()));
    errno!(cfr(f, None, other, None, 1, 0), EXDEV);
    Ok(())
}

fn sockets_and_devices() -> Outcome {
    let (r, w) = new_pipe(0)?;
    let mut pair = [0; 2];
    ok!(socketpair(AF_UNIX, SOCK_STREAM, 0, pair.as_mut_ptr()));
    eq!(write_fd(pair[0], b"to pipe"), 7);
    eq!(ok!(sp(pair[1], None, w, None, 100, 0)), 7);
    eq!(ok!(sp(r, None, pair[1], None, 100, 0)), 7);
    let mut b = [0; 16];
    eq!(read_fd(pair[0], &mut b), 7);
    eq!(&b[..7], b"to pipe");
    let mut at = 0i64;
    errno!(sp(pair[1], Some(&mut at), w, None, 1, 0), EINVAL);
    eq!(write_fd(w, b"gone"), 4);
    let null = ok!(open_file("/dev/null", O_RDWR, 0));
    eq!(ok!(sp(r, None, null, None, 100, 0)), 4);
    // A generated file can be read so.
    let proc = ok!(open_file("/proc/mounts", O_RDONLY, 0));
    check!(ok!(sp(proc, None, w, None, 4096, 0)) > 0);
    Ok(())
}

fn memfd_page_in_a_pipe_is_busy() -> Outcome {
    let fd = ok!(memfd_create(c"x".as_ptr(), MFD_ALLOW_SEALING));
    eq!(write_fd(fd, b"data"), 4);
    let (reader, writer) = new_pipe(0)?;
    let mut at = 0;
    eq!(ok!(splice(fd, &mut at, writer, std::ptr::null_mut(), 4, 0)), 4);
    errno!(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
    eq!(read_fd(reader, &mut [0; 8]), 4);
    ok!(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    Ok(())
}

fn preadv2_and_pwritev2() -> Outcome {
    let f = filled("a", b"0123456789")?;
    let mut b = [0u8; 4];
    let piece = iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 4 };
    eq!(ok!(preadv2(f, &piece, 1, 3, 0)), 4);
    eq!((&b, position(f)), (b"3456", 0));
    // -1 is the file's own position.
    eq!(ok!(preadv2(f, &piece, 1, -1, RWF_HIPRI)), 4);
    eq!((&b, position(f)), (b"0123", 4));
    eq!(ok!(pwritev2(f, &piece, 1, 8, RWF_DSYNC)), 4);
    eq!(ok!(pwritev2(f, &piece, 1, 0, RWF_APPEND | RWF_SYNC)), 4);
    eq!(position(f), 4);
    check!(content("a")? == b"0123456701230123");
    eq!(ok!(pwritev2(f, &piece, 1, -1, RWF_APPEND)), 4);
    eq!(position(f), 20);
    errno!(preadv2(f, &piece, 1, 0, 0x100), EOPNOTSUPP);
    errno!(preadv2(f, &piece, 1, 0, RWF_NOWAIT), EOPNOTSUPP);
    errno!(preadv2(f, &piece, 1, -2, 0), EINVAL);
    errno!(preadv2(-1, &piece, 1, 0, 0x100), EBADF);
    errno!(preadv2(f, std::ptr::null(), 1, 0, 0x100), EFAULT);
    let none = iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 0 };
    eq!(ok!(preadv2(f, &none, 1, 0, 0x100)), 0);
    let (r, w) = new_pipe(0)?;
    errno!(preadv2(r, &piece, 1, 0, 0), ESPIPE);
    eq!(ok!(pwritev2(w, &piece, 1, -1, 0)), 4);
    eq!(ok!(preadv2(r, &piece, 1, -1, 0)), 4);
    Ok(())
}

fn readahead_and_sync_file_range() -> Outcome {
    let f = filled("a", b"data")?;
    let (r, w) = new_pipe(0)?;
    ok!(readahead(f, 0, 4096));
    errno!(readahead(-1, 0, 1), EBADF);
    errno!(readahead(r, 0, 1), EINVAL);
    errno!(readahead(w, 0, 1), EBADF);
    let dir = ok!(open_file(".", O_RDONLY, 0));
    errno!(readahead(dir, 0, 1), EINVAL);
    ok!(sync_file_range(f, 0, 0, SYNC_FILE_RANGE_WRITE));
    errno!(sync_file_range(-1, 0, 0, 99), EBADF);
    errno!(sync_file_range(r, 0, 0, 99), EINVAL);
    errno!(sync_file_range(r, -1, 0, 0), EINVAL);
    errno!(sync_file_range(f, i64::MAX, 1, 0), EINVAL);
    errno!(sync_file_range(r, 0, 0, 0), ESPIPE);
    ok!(sync_file_range(dir, 0, 0, 0));
    eq!(unsafe { posix_fadvise(f, 0, 0, POSIX_FADV_WILLNEED) }, 0);
    eq!(unsafe { posix_fadvise(r, 0, 0, POSIX_FADV_WILLNEED) }, ESPIPE);
    eq!(unsafe { posix_fadvise(f, 0, -1, POSIX_FADV_WILLNEED) }, EINVAL);
    eq!(unsafe { posix_fadvise(f, 0, 0, 77) }, EINVAL);
    eq!(unsafe { posix_fadvise(-1, 0, 0, 77) }, EBADF);
    Ok(())
}

fn pipe_sizes() -> Outcome {
    let (r, w) = new_pipe(0)?;
    eq!(ok!(fcntl(r, F_GETPIPE_SZ)), 65536);
    eq!(ok!(fcntl(w, F_SETPIPE_SZ, 1)), 4096);
    eq!(ok!(fcntl(w, F_SETPIPE_SZ, 4097)), 8192);
    eq!(ok!(fcntl(r, F_SETPIPE_SZ, 1 << 20)), 1 << 20);
    errno!(syscall(SYS_fcntl, r, F_SETPIPE_SZ, (1u64 << 31) + 1), EINVAL);
    let f = filled("a", b"")?;
    errno!(fcntl(f, F_GETPIPE_SZ), EBADF);
    errno!(fcntl(f, F_SETPIPE_SZ, 4096), EBADF);
    eq!(write_fd(w, &[0; 3 * PAGE]), 3 * PAGE as isize);
    errno!(fcntl(w, F_SETPIPE_SZ, 8192), EBUSY);
    eq!(ok!(fcntl(w, F_SETPIPE_SZ, 16384)), 16384);
    for (name, value) in [("max-size", "1048576"), ("user-pages-soft", "16384"), ("user-pages-hard", "0")] {
        eq!(String::from_utf8_lossy(&content(&format!("/proc/sys/fs/pipe-{name}"))?).trim().to_owned(), value);
    }
    // The setting is rounded up as sizes are.
    make("/proc/sys/fs/pipe-max-size", b"5000\n")?;
    let now = content("/proc/sys/fs/pipe-max-size")?;
    make("/proc/sys/fs/pipe-max-size", b"1048576\n")?;
    eq!(&now, b"8192\n");
    Ok(())
}

fn unprivileged_pipes_have_limits() -> Outcome {
    in_child(|| {
        let (r, _w) = new_pipe(0)?;
        ok!(fcntl(r, F_SETPIPE_SZ, 1 << 21));
        ok!(setresuid(4242, 4242, 4242));
        errno!(fcntl(r, F_SETPIPE_SZ, 1 << 22), EPERM);
        let (r, _w) = new_pipe(0)?;
        errno!(fcntl(r, F_SETPIPE_SZ, (1 << 20) + 1), EPERM);
        // 16384 pages in all: 64 pipes of a megabyte.
        let mut grown = 0;
        let mut last = 0;
        for _ in 0..70 {
            let (r, _w) = new_pipe(0)?;
            last = ok!(fcntl(r, F_GETPIPE_SZ));
            // SAFETY: no memory is involved.
            grown += (unsafe { fcntl(r, F_SETPIPE_SZ, 1 << 20) } == 1 << 20) as i32;
        }
        check!((60..=63).contains(&grown));
        check!(last == 65536 || last == 8192);
        Ok(())
    })
}

fn file_limit_stops_splice() -> Outcome {
    in_child(|| {
        set_disposition(SIGXFSZ, SIG_IGN);
        let f = ok!(open_file("a", O_RDWR | O_CREAT, 0o600));
        let (r, w) = new_pipe(0)?;
        eq!(write_fd(w, &[1; 100]), 100);
        let limit = rlimit { rlim_cur: 60, rlim_max: RLIM_INFINITY };
        ok!(setrlimit(RLIMIT_FSIZE, &limit));
        eq!(ok!(sp(r, None, f, None, 100, 0)), 60);
        errno!(sp(r, None, f, None, 100, 0), EFBIG);
        let data = filled_unlimited()?;
        errno!(sendfile(f, data, null_mut(), 10), EFBIG);
        errno!(cfr(data, None, f, None, 10, 0), EFBIG);
        Ok(())
    })
}

fn filled_unlimited() -> Result<i32, Stop> {
    filled("short", &[7; 20])
}

fn many_splicers_keep_the_order() -> Outcome {
    // A chain of pipes, each emptied into the next by a process of its own, with a reader that gets
    // every byte in its place.
    let data = pattern(300_000);
    let source = filled("a", &data)?;
    let (r1, w1) = new_pipe(0)?;
    let (r2, w2) = new_pipe(0)?;
    let feeder = fork_child(|| {
        let mut at = 0;
        loop {
            match sp(source, Some(&mut at), w1, None, 10_000, 0) {
                0 => return 0,
                n if n < 0 => return 1,
                _ => {}
            }
        }
    });
    let mover = fork_child(|| {
        close_fd(w1);
        loop {
            match sp(r1, None, w2, None, 3333, 0) {
                0 => return 0,
                n if n < 0 => return 1,
                _ => {}
            }
        }
    });
    close_fd(w1);
    close_fd(w2);
    let got = read_to_end(r2);
    eq!((wait_for(feeder), wait_for(mover)), (Status::Exited(0), Status::Exited(0)));
    check!(got == data);
    Ok(())
}
