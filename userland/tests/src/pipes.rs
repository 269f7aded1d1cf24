//! Pipes and FIFOs.

use crate::check::*;
use libc::*;

cases![pipes:
    bytes_arrive_in_order, read_without_writer_is_end, write_without_reader_is_sigpipe, write_without_reader_is_epipe,
    empty_nonblock_read_is_eagain, full_nonblock_write_is_eagain, capacity_is_64k, small_writes_are_atomic,
    large_write_blocks_until_drained, partial_nonblock_write, reader_wakes_on_write, writer_wakes_on_read,
    reader_wakes_on_last_close, direction_is_enforced, fifo_joins_two_processes, fifo_open_blocks_for_partner,
    fionread_counts, pipe2_bad_flags_is_einval, many_writers_one_reader, three_stages, stat_of_pipe, opens_again_by_descriptor,
];

fn opens_again_by_descriptor() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    eq!(write_fd(writer, b"data"), 4);
    let again = ok!(open_file(&format!("/proc/self/fd/{reader}"), O_RDONLY, 0));
    close_fd(reader);
    let mut part = [0; 8];
    eq!(read_fd(again, &mut part), 4);
    eq!(&part[..4], b"data");
    // Without a writer it neither waits nor fails: it is at its end.
    close_fd(writer);
    let last = ok!(open_file(&format!("/proc/self/fd/{again}"), O_RDONLY, 0));
    eq!(read_fd(last, &mut part), 0);
    Ok(())
}

fn bytes_arrive_in_order() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    eq!(write_fd(writer, b"abc"), 3);
    eq!(write_fd(writer, b"def"), 3);
    let mut data = [0; 4];
    eq!(read_fd(reader, &mut data), 4);
    eq!(&data, b"abcd");
    eq!(read_fd(reader, &mut data), 2);
    eq!(&data[..2], b"ef");
    Ok(())
}

fn read_without_writer_is_end() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    write_fd(writer, b"x");
    close_fd(writer);
    eq!(read_to_end(reader), b"x");
    Ok(())
}

fn write_without_reader_is_sigpipe() -> Outcome {
    let ended = child(|| {
        set_disposition(SIGPIPE, SIG_DFL);
        let Ok((reader, writer)) = new_pipe(0) else { return 1 };
        close_fd(reader);
        write_fd(writer, b"x");
        2
    });
    eq!(ended, Status::Killed(SIGPIPE));
    Ok(())
}

fn write_without_reader_is_epipe() -> Outcome {
    set_disposition(SIGPIPE, SIG_IGN);
    let (reader, writer) = new_pipe(0)?;
    close_fd(reader);
    errno!(write(writer, c"x".as_ptr().cast(), 1), EPIPE);
    Ok(())
}

fn empty_nonblock_read_is_eagain() -> Outcome {
    let (reader, _writer) = new_pipe(O_NONBLOCK)?;
    let mut byte = [0u8];
    errno!(read(reader, byte.as_mut_ptr().cast(), 1), EAGAIN);
    Ok(())
}

fn fill(writer: i32, piece: usize) -> usize {
    let data = vec![7; piece];
    let mut total = 0;
    loop {
        let put = write_fd(writer, &data);
        if put < 0 {
            return total;
        }
        total += put as usize;
    }
}

fn full_nonblock_write_is_eagain() -> Outcome {
    let (reader, writer) = new_pipe(O_NONBLOCK)?;
    fill(writer, 4096);
    errno!(write(writer, c"x".as_ptr().cast(), 1), EAGAIN);
    // Room appears when a whole page has been read.
    eq!(read_fd(reader, &mut [0; 4096]), 4096);
    eq!(write_fd(writer, b"x"), 1);
    Ok(())
}

fn capacity_is_64k() -> Outcome {
    let (_reader, writer) = new_pipe(O_NONBLOCK)?;
    eq!(fill(writer, 4096), 65536);
    let (_reader, writer) = new_pipe(O_NONBLOCK)?;
    eq!(fill(writer, 100_000), 65536);
    let (_reader, writer) = new_pipe(O_NONBLOCK)?;
    eq!(fill(writer, 1), 65536);
    Ok(())
}

fn small_writes_are_atomic() -> Outcome {
    // Two writers of PIPE_BUF bytes each: pieces never mix.
    let (reader, writer) = new_pipe(0)?;
    let mut children = Vec::new();
    for letter in *b"ab" {
        children.push(fork_child(|| {
            close_fd(reader);
            let data = vec![letter; PIPE_BUF];
            (0..50).any(|_| write_fd(writer, &data) != PIPE_BUF as isize) as i32
        }));
    }
    close_fd(writer);
    let data = read_to_end(reader);
    eq!(data.len(), 2 * 50 * PIPE_BUF);
    for piece in data.chunks(PIPE_BUF) {
        check!(piece.iter().all(|byte| *byte == piece[0]));
    }
    for pid in children {
        eq!(wait_for(pid), Status::Exited(0));
    }
    Ok(())
}

fn large_write_blocks_until_drained() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| {
        close_fd(reader);
        (write_fd(writer, &vec![3; 300_000]) != 300_000) as i32
    });
    close_fd(writer);
    eq!(read_to_end(reader).len(), 300_000);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn partial_nonblock_write() -> Outcome {
    let (reader, writer) = new_pipe(O_NONBLOCK)?;
    fill(writer, 4096);
    eq!(read_fd(reader, &mut [0; 8192]), 8192);
    // More than PIPE_BUF may be written in part; less may not.
    eq!(write_fd(writer, &[1; 20000]), 8192);
    errno!(write(writer, [1u8; 100].as_ptr().cast(), 100), EAGAIN);
    Ok(())
}

fn reader_wakes_on_write() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let (back, answer) = new_pipe(0)?;
    let pid = fork_child(|| {
        let mut byte = [0];
        (0..100).any(|_| read_fd(reader, &mut byte) != 1 || write_fd(answer, &byte) != 1) as i32
    });
    for i in 0..100 {
        eq!(write_fd(writer, &[i]), 1);
        let mut byte = [0];
        eq!(read_fd(back, &mut byte), 1);
        eq!(byte[0], i);
    }
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn writer_wakes_on_read() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    ok!(fcntl(writer, F_SETFL, O_NONBLOCK));
    fill(writer, 4096);
    ok!(fcntl(writer, F_SETFL, 0));
    let pid = fork_child(|| (write_fd(writer, b"tail") != 4) as i32);
    close_fd(writer);
    let data = read_to_end(reader);
    eq!(data.len(), 65540);
    eq!(&data[65536..], b"tail");
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn reader_wakes_on_last_close() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| {
        close_fd(writer);
        read_fd(reader, &mut [0; 1]) as i32
    });
    close_fd(reader);
    close_fd(writer);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn direction_is_enforced() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let mut byte = [0u8];
    errno!(write(reader, byte.as_ptr().cast(), 1), EBADF);
    errno!(read(writer, byte.as_mut_ptr().cast(), 1), EBADF);
    Ok(())
}

fn fifo_joins_two_processes() -> Outcome {
    ok!(mkfifo(c"f".as_ptr(), 0o600));
    let pid = fork_child(|| {
        let fd = open_file("f", O_WRONLY, 0);
        (write_fd(fd, b"through") != 7) as i32
    });
    let fd = ok!(open_file("f", O_RDONLY, 0));
    eq!(read_to_end(fd), b"through");
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn fifo_open_blocks_for_partner() -> Outcome {
    ok!(mkfifo(c"f".as_ptr(), 0o600));
    for (first, second) in [(O_RDONLY, O_WRONLY), (O_WRONLY, O_RDONLY)] {
        let pid = fork_child(|| (open_file("f", first, 0) < 0) as i32);
        eq!(wait_flags(pid, WNOHANG), Status::None);
        let fd = ok!(open_file("f", second, 0));
        eq!(wait_for(pid), Status::Exited(0));
        close_fd(fd);
    }
    // Both directions at once need no partner.
    ok!(open_file("f", O_RDWR, 0));
    Ok(())
}

fn fionread_counts() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    write_fd(writer, b"12345");
    let mut count = 0;
    ok!(ioctl(reader, FIONREAD, &mut count));
    eq!(count, 5);
    errno!(ioctl(reader, TCGETS, &mut [0u8; 64]), ENOTTY);
    Ok(())
}

fn pipe2_bad_flags_is_einval() -> Outcome {
    let mut ends = [0; 2];
    errno!(pipe2(ends.as_mut_ptr(), O_APPEND), EINVAL);
    errno!(pipe2(std::ptr::null_mut(), 0), EFAULT);
    // A failed pipe2 has opened nothing.
    let free = [ok!(dup(0)), ok!(dup(0))];
    free.into_iter().for_each(close_fd);
    ok!(pipe2(ends.as_mut_ptr(), 0));
    eq!(ends, free);
    Ok(())
}

fn many_writers_one_reader() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let children: Vec<i32> = (0..20u8)
        .map(|i| fork_child(|| (0..100).any(|_| write_fd(writer, &[i; 10]) != 10) as i32))
        .collect();
    close_fd(writer);
    let data = read_to_end(reader);
    for i in 0..20 {
        eq!(data.iter().filter(|byte| **byte == i).count(), 1000);
    }
    for pid in children {
        eq!(wait_for(pid), Status::Exited(0));
    }
    Ok(())
}

fn three_stages() -> Outcome {
    let (first_out, first_in) = new_pipe(0)?;
    let (second_out, second_in) = new_pipe(0)?;
    let source = fork_child(|| {
        let ended = (0..1000u32).any(|i| write_fd(first_in, &i.to_le_bytes()) != 4);
        ended as i32
    });
    close_fd(first_in);
    let middle = fork_child(|| {
        let data: Vec<u8> = read_to_end(first_out).iter().map(|byte| byte ^ 0xff).collect();
        (write_fd(second_in, &data) != data.len() as isize) as i32
    });
    close_fd(first_out);
    close_fd(second_in);
    let data = read_to_end(second_out);
    let want: Vec<u8> = (0..1000u32).flat_map(|i| i.to_le_bytes()).map(|byte| byte ^ 0xff).collect();
    check!(data == want);
    eq!(wait_for(source), Status::Exited(0));
    eq!(wait_for(middle), Status::Exited(0));
    Ok(())
}

fn stat_of_pipe() -> Outcome {
    let (reader, _writer) = new_pipe(0)?;
    let mut out = zero::<libc::stat>();
    ok!(fstat(reader, &mut out));
    eq!(out.st_mode, S_IFIFO | 0o600);
    Ok(())
}
