//! read, write, lseek, their vectored and positioned forms, truncate, sendfile.

use crate::check::*;
use libc::*;

cases![io:
    read_at_end_is_zero, short_read_gives_what_is_there, lseek_whence, lseek_hole_and_data, lseek_on_pipe_is_espipe,
    lseek_negative_is_einval, write_beyond_end_leaves_a_hole, readv_fills_in_order, writev_gathers, iov_count_limits,
    iov_length_overflow_is_einval, pread_keeps_the_position, pwrite_keeps_the_position, pread_on_pipe_is_espipe,
    preadv_and_pwritev, truncate_grows_with_zeroes, truncate_shrinks, truncate_errors, bad_descriptor_is_ebadf,
    zero_length_io, sendfile_copies, sendfile_with_offset, sendfile_to_pipe, dev_null_and_zero, dev_full_is_enospc,
    urandom_differs, large_file_round_trip, offset_is_shared_after_dup_and_fork, sparse_offset_beyond_4g,
    fsync_and_sync_succeed, fallocate_extends, copy_partial_fault_stops_short,
];

fn file(data: &[u8]) -> Result<i32, Stop> {
    make("f", data)?;
    Ok(ok!(open_file("f", O_RDWR, 0)))
}

fn read_at_end_is_zero() -> Outcome {
    let fd = file(b"ab")?;
    ok!(lseek(fd, 0, SEEK_END));
    eq!(read_fd(fd, &mut [0; 4]), 0);
    ok!(lseek(fd, 100, SEEK_END));
    eq!(read_fd(fd, &mut [0; 4]), 0);
    Ok(())
}

fn short_read_gives_what_is_there() -> Outcome {
    let fd = file(b"abc")?;
    let mut data = [0; 10];
    eq!(read_fd(fd, &mut data), 3);
    eq!(&data[..4], b"abc\0");
    Ok(())
}

fn lseek_whence() -> Outcome {
    let fd = file(b"abcdef")?;
    eq!(ok!(lseek(fd, 2, SEEK_SET)), 2);
    eq!(ok!(lseek(fd, 2, SEEK_CUR)), 4);
    eq!(ok!(lseek(fd, -1, SEEK_END)), 5);
    eq!(ok!(lseek(fd, 10, SEEK_END)), 16);
    errno!(lseek(fd, 0, 99), EINVAL);
    Ok(())
}

fn lseek_hole_and_data() -> Outcome {
    let fd = file(b"abcdef")?;
    eq!(ok!(lseek(fd, 1, SEEK_DATA)), 1);
    eq!(ok!(lseek(fd, 1, SEEK_HOLE)), 6);
    errno!(lseek(fd, 6, SEEK_DATA), ENXIO);
    Ok(())
}

fn lseek_on_pipe_is_espipe() -> Outcome {
    let (reader, _) = new_pipe(0)?;
    errno!(lseek(reader, 0, SEEK_CUR), ESPIPE);
    Ok(())
}

fn lseek_negative_is_einval() -> Outcome {
    let fd = file(b"abc")?;
    errno!(lseek(fd, -1, SEEK_SET), EINVAL);
    errno!(lseek(fd, -4, SEEK_END), EINVAL);
    eq!(ok!(lseek(fd, 0, SEEK_CUR)), 0);
    Ok(())
}

fn write_beyond_end_leaves_a_hole() -> Outcome {
    let fd = file(b"a")?;
    ok!(lseek(fd, 10000, SEEK_SET));
    eq!(write_fd(fd, b"z"), 1);
    let data = content("f")?;
    eq!(data.len(), 10001);
    eq!(data[0], b'a');
    check!(data[1..10000].iter().all(|byte| *byte == 0));
    eq!(data[10000], b'z');
    Ok(())
}

fn readv_fills_in_order() -> Outcome {
    let fd = file(b"abcdef")?;
    let (mut one, mut two) = ([0u8; 2], [0u8; 10]);
    let parts = [
        iovec { iov_base: one.as_mut_ptr().cast(), iov_len: 2 },
        iovec { iov_base: std::ptr::null_mut(), iov_len: 0 },
        iovec { iov_base: two.as_mut_ptr().cast(), iov_len: 10 },
    ];
    eq!(ok!(readv(fd, parts.as_ptr(), 3)), 6);
    eq!(&one, b"ab");
    eq!(&two[..5], b"cdef\0");
    Ok(())
}

fn writev_gathers() -> Outcome {
    let fd = file(b"")?;
    let parts = [
        iovec { iov_base: c"ab".as_ptr() as *mut c_void, iov_len: 2 },
        iovec { iov_base: c"cde".as_ptr() as *mut c_void, iov_len: 3 },
    ];
    eq!(ok!(writev(fd, parts.as_ptr(), 2)), 5);
    eq!(content("f")?, b"abcde");
    Ok(())
}

fn iov_count_limits() -> Outcome {
    let fd = file(b"abc")?;
    let part = [iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; 1025];
    eq!(ok!(readv(fd, part.as_ptr(), 0)), 0);
    eq!(ok!(readv(fd, part.as_ptr(), 1024)), 0);
    errno!(readv(fd, part.as_ptr(), 1025), EINVAL);
    errno!(writev(fd, part.as_ptr(), -1), EINVAL);
    Ok(())
}

fn iov_length_overflow_is_einval() -> Outcome {
    let fd = file(b"abc")?;
    let part = iovec { iov_base: std::ptr::null_mut(), iov_len: usize::MAX };
    errno!(readv(fd, &part, 1), EINVAL);
    errno!(writev(fd, &part, 1), EINVAL);
    Ok(())
}

fn pread_keeps_the_position() -> Outcome {
    let fd = file(b"abcdef")?;
    let mut data = [0u8; 2];
    eq!(ok!(pread(fd, data.as_mut_ptr().cast(), 2, 3)), 2);
    eq!(&data, b"de");
    eq!(ok!(lseek(fd, 0, SEEK_CUR)), 0);
    errno!(pread(fd, data.as_mut_ptr().cast(), 2, -1), EINVAL);
    Ok(())
}

fn pwrite_keeps_the_position() -> Outcome {
    let fd = file(b"abcdef")?;
    eq!(ok!(pwrite(fd, c"XY".as_ptr().cast(), 2, 2)), 2);
    eq!(ok!(lseek(fd, 0, SEEK_CUR)), 0);
    eq!(content("f")?, b"abXYef");
    Ok(())
}

fn pread_on_pipe_is_espipe() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let mut byte = [0u8];
    errno!(pread(reader, byte.as_mut_ptr().cast(), 1, 0), ESPIPE);
    errno!(pwrite(writer, byte.as_ptr().cast(), 1, 0), ESPIPE);
    Ok(())
}

fn preadv_and_pwritev() -> Outcome {
    let fd = file(b"abcdef")?;
    let part = iovec { iov_base: c"12".as_ptr() as *mut c_void, iov_len: 2 };
    eq!(ok!(pwritev(fd, &part, 1, 4)), 2);
    let mut data = [0u8; 4];
    let part = iovec { iov_base: data.as_mut_ptr().cast(), iov_len: 4 };
    eq!(ok!(preadv(fd, &part, 1, 2)), 4);
    eq!(&data, b"cd12");
    Ok(())
}

fn truncate_grows_with_zeroes() -> Outcome {
    let fd = file(b"ab")?;
    ok!(ftruncate(fd, 5000));
    let data = content("f")?;
    eq!(data.len(), 5000);
    check!(&data[..2] == b"ab" && data[2..].iter().all(|byte| *byte == 0));
    Ok(())
}

fn truncate_shrinks() -> Outcome {
    let fd = file(&[7; 9000])?;
    ok!(truncate(c"f".as_ptr(), 100));
    // What was cut off reads as zeroes when the file grows again.
    ok!(ftruncate(fd, 9000));
    let data = content("f")?;
    check!(data[..100].iter().all(|byte| *byte == 7));
    check!(data[100..].iter().all(|byte| *byte == 0));
    Ok(())
}

fn truncate_errors() -> Outcome {
    let fd = file(b"ab")?;
    errno!(ftruncate(fd, -1), EINVAL);
    errno!(truncate(c"missing".as_ptr(), 0), ENOENT);
    errno!(truncate(c".".as_ptr(), 0), EISDIR);
    let (reader, _) = new_pipe(0)?;
    errno!(ftruncate(reader, 0), EINVAL);
    Ok(())
}

fn bad_descriptor_is_ebadf() -> Outcome {
    let mut byte = [0u8];
    errno!(read(999, byte.as_mut_ptr().cast(), 1), EBADF);
    errno!(write(-1, byte.as_ptr().cast(), 1), EBADF);
    errno!(lseek(999, 0, SEEK_SET), EBADF);
    errno!(libc::close(999), EBADF);
    errno!(dup(999), EBADF);
    errno!(fsync(999), EBADF);
    let mut out = zero::<libc::stat>();
    errno!(fstat(999, &mut out), EBADF);
    Ok(())
}

fn zero_length_io() -> Outcome {
    let fd = file(b"ab")?;
    eq!(ok!(read(fd, std::ptr::null_mut(), 0)), 0);
    eq!(ok!(write(fd, std::ptr::null(), 0)), 0);
    eq!(stat_of("f")?.st_size, 2);
    Ok(())
}

fn sendfile_copies() -> Outcome {
    let from = file(&[5; 70000])?;
    let to = ok!(open_file("g", O_CREAT | O_RDWR, 0o600));
    let mut total = 0;
    loop {
        let sent = ok!(sendfile(to, from, std::ptr::null_mut(), 100000));
        if sent == 0 {
            break;
        }
        total += sent;
    }
    eq!(total, 70000);
    check!(content("g")? == vec![5; 70000]);
    Ok(())
}

fn sendfile_with_offset() -> Outcome {
    let from = file(b"0123456789")?;
    let to = ok!(open_file("g", O_CREAT | O_RDWR, 0o600));
    let mut offset = 3;
    eq!(ok!(sendfile(to, from, &mut offset, 4)), 4);
    eq!(offset, 7);
    eq!(ok!(lseek(from, 0, SEEK_CUR)), 0);
    eq!(content("g")?, b"3456");
    Ok(())
}

fn sendfile_to_pipe() -> Outcome {
    let from = file(b"hello")?;
    let (reader, writer) = new_pipe(0)?;
    eq!(ok!(sendfile(writer, from, std::ptr::null_mut(), 5)), 5);
    close_fd(writer);
    eq!(read_to_end(reader), b"hello");
    Ok(())
}

fn dev_null_and_zero() -> Outcome {
    let null = ok!(open_file("/dev/null", O_RDWR, 0));
    eq!(write_fd(null, b"abc"), 3);
    eq!(read_fd(null, &mut [1; 3]), 0);
    let zero = ok!(open_file("/dev/zero", O_RDWR, 0));
    let mut data = [1; 100];
    eq!(read_fd(zero, &mut data), 100);
    eq!(data, [0; 100]);
    eq!(write_fd(zero, b"abc"), 3);
    Ok(())
}

fn dev_full_is_enospc() -> Outcome {
    let full = ok!(open_file("/dev/full", O_RDWR, 0));
    errno!(write(full, c"x".as_ptr().cast(), 1), ENOSPC);
    let mut data = [1; 10];
    eq!(read_fd(full, &mut data), 10);
    eq!(data, [0; 10]);
    Ok(())
}

fn urandom_differs() -> Outcome {
    let fd = ok!(open_file("/dev/urandom", O_RDONLY, 0));
    let (mut one, mut two) = ([0; 32], [0; 32]);
    eq!(read_fd(fd, &mut one), 32);
    eq!(read_fd(fd, &mut two), 32);
    check!(one != two);
    let (mut three, mut four) = ([0u8; 32], [0u8; 32]);
    eq!(ok!(getrandom(three.as_mut_ptr().cast(), 32, 0)), 32);
    eq!(ok!(getrandom(four.as_mut_ptr().cast(), 32, GRND_NONBLOCK)), 32);
    check!(three != four);
    errno!(getrandom(four.as_mut_ptr().cast(), 32, 0x80), EINVAL);
    Ok(())
}

fn large_file_round_trip() -> Outcome {
    let data: Vec<u8> = (0..3_000_001u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    make("big", &data)?;
    check!(content("big")? == data);
    eq!(stat_of("big")?.st_size, data.len() as i64);
    Ok(())
}

fn offset_is_shared_after_dup_and_fork() -> Outcome {
    let fd = file(b"abcdef")?;
    let other = ok!(dup(fd));
    eq!(read_fd(fd, &mut [0; 2]), 2);
    eq!(ok!(lseek(other, 0, SEEK_CUR)), 2);
    eq!(child(|| (read_fd(other, &mut [0; 3]) != 3) as i32), Status::Exited(0));
    eq!(ok!(lseek(fd, 0, SEEK_CUR)), 5);
    Ok(())
}

fn sparse_offset_beyond_4g() -> Outcome {
    let fd = file(b"")?;
    let far = 5 << 30;
    eq!(ok!(pwrite(fd, c"x".as_ptr().cast(), 1, far)), 1);
    eq!(stat_of("f")?.st_size, far + 1);
    check!(stat_of("f")?.st_blocks < 1000);
    let mut byte = [0u8];
    eq!(ok!(pread(fd, byte.as_mut_ptr().cast(), 1, far)), 1);
    eq!(byte, *b"x");
    Ok(())
}

fn fsync_and_sync_succeed() -> Outcome {
    let fd = file(b"a")?;
    ok!(fsync(fd));
    ok!(fdatasync(fd));
    // SAFETY: sync has no preconditions.
    unsafe { sync() };
    let (reader, _) = new_pipe(0)?;
    errno!(fsync(reader), EINVAL);
    Ok(())
}

fn fallocate_extends() -> Outcome {
    let fd = file(b"a")?;
    if unsafe { fallocate(fd, 0, 0, 10000) } != 0 {
        return Err(Stop::Skip("no fallocate".into()));
    }
    eq!(stat_of("f")?.st_size, 10000);
    Ok(())
}

fn copy_partial_fault_stops_short() -> Outcome {
    // Two pages of which the second is unmapped: what fits in the first is transferred.
    let at = map(2 * PAGE, RW);
    ok!(unmap(at.wrapping_add(PAGE), PAGE));
    let fd = file(&[9; 100])?;
    let target = at.wrapping_add(PAGE - 10);
    let got = ok!(read(fd, target.cast(), 100));
    check!(got <= 10 && got >= 0);
    errno!(read(fd, at.wrapping_add(PAGE).cast(), 50), EFAULT);
    Ok(())
}
