//! Bytes between pipes and files by the page (`splice(2)`, `tee(2)`, `vmsplice(2)`).
//!
//! A pipe holds references to pages, so what moves from a file with a page cache or from one pipe to
//! another is not copied. Between a pipe and a file the pipe's side is claimed, because the file's
//! read or write may wait and takes locks that come before the ring's. Two rings are locked in the
//! order of their addresses.
//!
//! The errors and their order are those of Linux; the flags that are hints there (SPLICE_F_MOVE,
//! SPLICE_F_MORE, SPLICE_F_GIFT) are none here.

use crate::{
    pipe::{Pipe, Side, pipe_of},
    ring::Ring,
};
use abi::{Errno, PAGE_SIZE, Result, UserAddr, raw::general as g};
use arch::user::UserSlice;
use kalloc::KArc;
use mm::{
    AddressSpace,
    io::{IoSink, IoSource, within_page},
};
use vfs::{
    OpenFile,
    splice::{PageRange, Pages, check_area, direct, interrupted},
};

/// Most bytes that one call moves.
const MAX_COUNT: usize = 0x7fff_f000;
/// Most ranges that are on their way at a time.
const MAX_RANGES: usize = 1024;

/// Whether the file is a pipe.
pub fn is_pipe(f: &OpenFile) -> bool {
    pipe_of(f).is_some()
}

/// `splice(2)`: `from` and `to` are the offsets in memory of the two files, if they were given; both
/// are changed as the call says. `limit` is RLIMIT_FSIZE.
pub fn splice(
    input: &OpenFile,
    from: Option<&mut i64>,
    output: &OpenFile,
    to: Option<&mut i64>,
    len: usize,
    flags: u32,
    limit: u64,
) -> Result<usize> {
    if !input.may_read() || !output.may_write() {
        return Err(Errno::EBADF);
    }
    let nonblocking = flags & g::SPLICE_F_NONBLOCK != 0;
    match (pipe_of(input), pipe_of(output)) {
        (Some(a), Some(b)) => {
            if KArc::ptr_eq(a, b) {
                return Err(Errno::EINVAL);
            }
            between(a, b, len, nonblocking || input.is_nonblocking() || output.is_nonblocking(), Ring::transfer)
        }
        (Some(pipe), None) => {
            if to.is_some() && !output.ops.can_seek() || output.flags() & g::O_APPEND != 0 {
                return Err(Errno::EINVAL);
            }
            let mut at = check_area(to.as_ref().map_or(output.position() as i64, |p| **p), len)?;
            let result = to_file(pipe, output, &mut at, len, nonblocking || input.is_nonblocking(), limit);
            moved(output, to, at);
            result
        }
        (None, Some(pipe)) => {
            if from.is_some() && !input.ops.can_seek() {
                return Err(Errno::EINVAL);
            }
            let mut at = from.as_ref().map_or(input.position() as i64, |p| **p);
            let result = to_pipe(input, &mut at, pipe, len, nonblocking || output.is_nonblocking());
            moved(input, from, at as u64);
            result
        }
        (None, None) => Err(Errno::EINVAL),
    }
}

/// Stores a position where it came from.
fn moved(f: &OpenFile, given: Option<&mut i64>, at: u64) {
    match given {
        Some(p) => *p = at as i64,
        None if f.ops.can_seek() => f.set_position(at),
        None => {}
    }
}

/// `tee(2)`.
pub fn tee(input: &OpenFile, output: &OpenFile, len: usize, flags: u32) -> Result<usize> {
    if !input.may_read() || !output.may_write() {
        return Err(Errno::EBADF);
    }
    let nonblocking = flags & g::SPLICE_F_NONBLOCK != 0 || input.is_nonblocking() || output.is_nonblocking();
    match (pipe_of(input), pipe_of(output)) {
        (Some(a), Some(b)) if !KArc::ptr_eq(a, b) => between(a, b, len, nonblocking, Ring::copy_to),
        _ => Err(Errno::EINVAL),
    }
}

/// `sendfile(2)` from `from` on, which is advanced; `to` is the position of an output with one. A pipe
/// gets what it has room for at once.
pub fn sendfile(input: &OpenFile, from: &mut u64, output: &OpenFile, to: &mut u64, len: usize, limit: u64) -> Result<usize> {
    if let Some(pipe) = pipe_of(output) {
        let mut at = *from as i64;
        let n = to_pipe(input, &mut at, pipe, len, output.is_nonblocking())?;
        *from = at as u64;
        if n > 0 {
            vfs::notify::on_file(input, g::IN_ACCESS);
        }
        return Ok(n);
    }
    if output.flags() & g::O_APPEND != 0 || !(input.inode.mode().is_file() || input.inode.mode().is_block_device()) {
        return Err(Errno::EINVAL);
    }
    let n = direct(input, from, output, to, len, limit)?;
    if n > 0 {
        vfs::notify::on_file(input, g::IN_ACCESS);
    }
    Ok(n)
}

/// From a file into a pipe: as much as the pipe has room for now, waiting only for the first of it.
fn to_pipe(input: &OpenFile, at: &mut i64, pipe: &Pipe, len: usize, nonblocking: bool) -> Result<usize> {
    let _claim = pipe.claim(Side::Write)?;
    let room = loop {
        pipe.wait_writable(nonblocking)?;
        let ring = pipe.lock(0);
        if !ring.is_full() {
            break ring.capacity() - ring.used();
        }
    };
    let len = len.min(room.saturating_mul(PAGE_SIZE));
    let mut pos = check_area(*at, len)?;
    let mut pages = Pages::new(room.min(MAX_RANGES).min(len / PAGE_SIZE + 2))?;
    let n = input.ops.splice_read(input, &mut pos, len.min(MAX_COUNT), &mut pages)?;
    *at = pos as i64;
    if n == 0 {
        return Ok(0);
    }
    {
        let mut ring = pipe.lock(0);
        for range in pages.drain() {
            // Nobody else fills slots while the side is claimed.
            ring.push_range(range);
        }
        pipe.publish(&ring);
    }
    pipe.wake_readers();
    Ok(n)
}

/// From a pipe into a file, until `len` bytes went or the pipe is empty.
fn to_file(pipe: &Pipe, output: &OpenFile, at: &mut u64, len: usize, nonblocking: bool, limit: u64) -> Result<usize> {
    if !output.ops.can_splice_write() {
        return Err(Errno::EINVAL);
    }
    let _claim = pipe.claim(Side::Read)?;
    let mut done = 0;
    while done < len {
        if interrupted() {
            return if done > 0 { Ok(done) } else { Err(Errno::ERESTARTSYS) };
        }
        let next = pipe.lock(0).front(len - done);
        let Some(range) = next else {
            if done > 0 || !pipe.has_writers() && pipe.lock(0).used() == 0 {
                break;
            }
            pipe.wait_readable(nonblocking)?;
            continue;
        };
        let went = range.with_bytes(|b| output.write_from(&mut IoSource::kernel(b), at, limit));
        match went {
            Ok(0) => break,
            Ok(n) => {
                done += n;
                let mut ring = pipe.lock(0);
                let was_full = ring.is_full();
                ring.consume(n);
                pipe.publish(&ring);
                let freed = was_full && !ring.is_full();
                drop(ring);
                if freed {
                    pipe.wake_writers();
                }
            }
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// From one pipe to another by `step`, which moves or copies.
fn between(
    input: &Pipe,
    output: &Pipe,
    len: usize,
    nonblocking: bool,
    step: impl Fn(&mut Ring, &mut Ring, usize) -> usize,
) -> Result<usize> {
    loop {
        drop(input.lock_side(Side::Read)?);
        input.wait_readable(nonblocking)?;
        drop(output.lock_side(Side::Write)?);
        output.wait_writable(nonblocking)?;
        let in_first = core::ptr::from_ref(input).addr() < core::ptr::from_ref(output).addr();
        let (mut a, mut b);
        if in_first {
            a = input.lock(0);
            b = output.lock(1);
        } else {
            b = output.lock(0);
            a = input.lock(1);
        }
        if input.is_claimed(Side::Read) || output.is_claimed(Side::Write) {
            continue;
        }
        if !output.has_readers() {
            return Err(Errno::EPIPE);
        }
        let before = a.used();
        let was_full = a.is_full();
        let n = step(&mut a, &mut b, len);
        if n == 0 && (before > 0 || input.has_writers()) {
            // Another was faster: only an end is the end.
            if nonblocking {
                return Err(Errno::EAGAIN);
            }
            continue;
        }
        input.publish(&a);
        output.publish(&b);
        let freed = was_full && !a.is_full();
        drop((a, b));
        if n > 0 {
            output.wake_readers();
        }
        if freed {
            input.wake_writers();
        }
        return Ok(n);
    }
}

/// `vmsplice(2)` into a pipe: its pages by reference. EBADF: no pipe; EFAULT only for the first byte.
pub fn vmsplice_in(f: &OpenFile, space: &AddressSpace, pieces: &[UserSlice], flags: u32) -> Result<usize> {
    let pipe = pipe_of(f).ok_or(Errno::EBADF)?;
    let nonblocking = flags & g::SPLICE_F_NONBLOCK != 0;
    let mut ring = loop {
        drop(pipe.lock_side(Side::Write)?);
        pipe.wait_writable(nonblocking)?;
        let ring = pipe.lock_side(Side::Write)?;
        if !ring.is_full() {
            break ring;
        }
    };
    let mut done = 0;
    let mut failed = None;
    'pieces: for piece in pieces {
        let mut taken = 0;
        while taken < piece.len() {
            if ring.is_full() {
                break 'pieces;
            }
            let addr = piece.addr().0.saturating_add(taken as u64);
            let (start, len) = within_page(addr, piece.len() - taken);
            match space.pin(UserAddr(addr)) {
                Ok(page) => {
                    ring.push_range(PageRange { page, start, len, own: false });
                    taken += len;
                    done += len;
                }
                Err(e) => {
                    failed = Some(e);
                    break 'pieces;
                }
            }
        }
    }
    pipe.publish(&ring);
    drop(ring);
    if done > 0 {
        pipe.wake_readers();
        return Ok(done);
    }
    failed.map_or(Ok(0), Err)
}

/// `vmsplice(2)` out of a pipe: a read that SPLICE_F_NONBLOCK alone keeps from waiting.
pub fn vmsplice_out(f: &OpenFile, dst: &mut IoSink<'_>, flags: u32) -> Result<usize> {
    let pipe = pipe_of(f).ok_or(Errno::EBADF)?;
    pipe.read(f, dst, flags & g::SPLICE_F_NONBLOCK != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe_pair;
    use vfs::Credentials;

    type Pair = (KArc<OpenFile>, KArc<OpenFile>);

    fn pair() -> Pair {
        crate::memory_for_tests();
        pipe_pair(g::O_NONBLOCK, &KArc::try_new(Credentials::root()).unwrap()).unwrap()
    }
    fn put(f: &OpenFile, data: &[u8]) -> usize {
        f.write(&mut IoSource::kernel(data), u64::MAX).unwrap()
    }
    fn get(f: &OpenFile, n: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0; n];
        let got = f.read(&mut IoSink::kernel(&mut buf))?;
        buf.truncate(got);
        Ok(buf)
    }
    fn go(a: &OpenFile, b: &OpenFile, len: usize) -> Result<usize> {
        splice(a, None, b, None, len, 0, u64::MAX)
    }

    #[test]
    fn bytes_move_from_pipe_to_pipe_and_tee_leaves_them() {
        let (a, b) = (pair(), pair());
        put(&a.1, b"hello");
        assert_eq!(tee(&a.0, &b.1, 2, 0), Ok(2));
        assert_eq!(go(&a.0, &b.1, 4), Ok(4));
        assert_eq!(get(&b.0, 10), Ok(b"hehell".to_vec()));
        assert_eq!(get(&a.0, 10), Ok(b"o".to_vec()));
        assert_eq!(go(&a.0, &b.1, 4), Err(Errno::EAGAIN));
        assert_eq!(go(&a.0, &a.1, 4), Err(Errno::EINVAL));
        assert_eq!(tee(&a.0, &a.1, 4, 0), Err(Errno::EINVAL));
        assert_eq!(go(&a.1, &b.1, 4), Err(Errno::EBADF));
        drop(a.1);
        assert_eq!(go(&a.0, &b.1, 4), Ok(0), "the end");
        drop(b.0);
        assert_eq!(go(&a.0, &b.1, 4), Err(Errno::EPIPE));
    }

    #[test]
    fn a_claimed_side_makes_others_wait_and_is_given_back() {
        let (r, w) = pair();
        put(&w, b"x");
        let pipe = pipe_of(&r).unwrap();
        let claim = pipe.claim(Side::Read).unwrap();
        assert!(pipe.is_claimed(Side::Read) && !pipe.is_claimed(Side::Write));
        assert_eq!(put(&w, b"y"), 1);
        drop(claim);
        assert_eq!(get(&r, 10), Ok(b"xy".to_vec()));
    }
}
