//! Moving bytes between files inside the kernel (`splice(2)`, `tee(2)`, `vmsplice(2)`, `sendfile(2)`,
//! `copy_file_range(2)`).

use crate::io::{MAX_COUNT, counted_read, file_limit, vector, with_signal};
use abi::{Errno, Result, UserAddr, raw::general as g};
use arch::user::UserPtr;
use mm::io::IoSink;
use process::Task;
use vfs::{Fd, OpenFile, splice::check_area};

const FLAGS: u32 = g::SPLICE_F_MOVE | g::SPLICE_F_NONBLOCK | g::SPLICE_F_MORE | g::SPLICE_F_GIFT;

/// The offset in user memory, if one is given.
fn offset(at: UserPtr<i64>) -> Result<Option<i64>> {
    if at.is_null() { Ok(None) } else { at.read().map(Some) }
}

fn store(at: UserPtr<i64>, pos: Option<i64>) -> Result {
    pos.map_or(Ok(()), |pos| at.write(pos))
}

fn open_files(task: &Task, a: i32, b: i32) -> Result<(kalloc::KArc<OpenFile>, kalloc::KArc<OpenFile>)> {
    let files = task.files()?;
    Ok((files.get_file(Fd::from_raw(a)?)?, files.get_file(Fd::from_raw(b)?)?))
}

pub fn splice(task: &Task, from: i32, from_at: UserPtr<i64>, to: i32, to_at: UserPtr<i64>, len: usize, flags: u32) -> Result<usize> {
    if len == 0 {
        return Ok(0);
    }
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let (input, output) = open_files(task, from, to)?;
    if ipc::is_pipe(&input) && !from_at.is_null() || ipc::is_pipe(&output) && !to_at.is_null() {
        return Err(Errno::ESPIPE);
    }
    let mut out_pos = offset(to_at)?;
    let mut in_pos = offset(from_at)?;
    let limit = file_limit(task);
    let done = with_signal(task, ipc::splice(&input, in_pos.as_mut(), &output, out_pos.as_mut(), len, flags, limit))?;
    store(to_at, out_pos)?;
    store(from_at, in_pos)?;
    Ok(done)
}

pub fn tee(task: &Task, from: i32, to: i32, len: usize, flags: u32) -> Result<usize> {
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let (input, output) = open_files(task, from, to)?;
    with_signal(task, ipc::tee(&input, &output, len, flags))
}

pub fn vmsplice(task: &Task, fd: i32, iov: UserAddr, count: u64, flags: u32) -> Result<usize> {
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(Fd::from_raw(fd)?)?;
    if !file.may_write() && !file.may_read() {
        return Err(Errno::EBADF);
    }
    let pieces = vector(iov, count)?;
    if pieces.iter().all(|p| p.is_empty()) {
        return Ok(0);
    }
    if file.may_write() {
        let space = task.mm().ok_or(Errno::EFAULT)?;
        with_signal(task, ipc::vmsplice_in(&file, &space, &pieces, flags))
    } else {
        ipc::vmsplice_out(&file, &mut IoSink::user_vec(&pieces), flags)
    }
}

pub fn sendfile(task: &Task, out: i32, from: i32, at: UserPtr<i64>, count: usize) -> Result<usize> {
    let given = offset(at)?;
    let files = task.files()?;
    let input = files.get_file(Fd::from_raw(from)?)?;
    if !input.may_read() {
        return Err(Errno::EBADF);
    }
    if given.is_some() && !input.ops.can_seek() {
        return Err(Errno::ESPIPE);
    }
    let start = check_area(given.unwrap_or(input.position() as i64), count)?;
    let count = count.min(MAX_COUNT);
    let output = files.get_file(Fd::from_raw(out)?)?;
    if !output.may_write() {
        return Err(Errno::EBADF);
    }
    let most = input.inode.sb.max_bytes.min(output.inode.sb.max_bytes);
    let count = match most.checked_sub(start) {
        Some(room) if room > 0 => count.min(usize::try_from(room).unwrap_or(usize::MAX)),
        _ if count == 0 => 0,
        _ => return Err(Errno::EOVERFLOW),
    };
    let (mut pos, mut to) = (start, output.position());
    let result = ipc::sendfile(&input, &mut pos, &output, &mut to, count, file_limit(task));
    let done = counted_read(task, with_signal(task, result))?;
    task.figures.did_write(done);
    if done > 0 && output.ops.can_seek() {
        output.set_position(to);
    }
    if given.is_some() {
        at.write(pos as i64)?;
    } else if done > 0 && input.ops.can_seek() {
        input.set_position(pos);
    }
    Ok(done)
}

pub fn copy_file_range(task: &Task, from: i32, from_at: UserPtr<i64>, to: i32, to_at: UserPtr<i64>, len: usize, flags: u32) -> Result<usize> {
    let (input, output) = open_files(task, from, to)?;
    let (given_in, given_out) = (offset(from_at)?, offset(to_at)?);
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let mut in_pos = given_in.unwrap_or(input.position() as i64);
    let mut out_pos = given_out.unwrap_or(output.position() as i64);
    let result = vfs::splice::copy_range(&input, &mut in_pos, &output, &mut out_pos, len, file_limit(task));
    let done = counted_read(task, with_signal(task, result))?;
    task.figures.did_write(done);
    if done > 0 {
        match given_in {
            Some(_) => from_at.write(in_pos)?,
            None => input.set_position(in_pos as u64),
        }
        match given_out {
            Some(_) => to_at.write(out_pos)?,
            None => output.set_position(out_pos as u64),
        }
    }
    Ok(done)
}
