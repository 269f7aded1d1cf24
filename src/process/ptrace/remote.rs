//! Memory of other processes in bulk (`process_vm_readv(2)`, `process_vm_writev(2)`).

use super::access::{self, Access, Ids};
use crate::task::Task;
use abi::{Errno, PAGE_SIZE, Result, UserAddr};
use arch::user::UserSlice;
use kalloc::KBytes;

/// A place in another process: address and length.
pub type Piece = (UserAddr, u64);

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Read,
    Write,
}

/// Moves bytes between the caller's `local` and another process's `remote` pieces; how many, when
/// a bad address ends it early. EFAULT when none, ESRCH, EPERM.
pub fn transfer(me: &Task, pid: i32, local: &[UserSlice], remote: &[Piece], direction: Direction) -> Result<usize> {
    let id = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let task = me.ns()?.pid.find(id).ok_or(Errno::ESRCH)?;
    // First the memory, then the check: an exec between the two changes both.
    let mm = task.mm();
    access::check(me, &task, Access::Attach, Ids::Real)?;
    let mm = mm.ok_or(Errno::ESRCH)?;
    let mut buffer = KBytes::try_from_elem(0, PAGE_SIZE)?;
    let mut local = Local { pieces: local, offset: 0 };
    let mut done = 0;
    for &(start, len) in remote {
        let mut at = 0;
        while at < len {
            let addr = start.0.wrapping_add(at);
            // Not beyond a page of the other process, so that what fails there fails whole.
            let in_page = PAGE_SIZE as u64 - addr % PAGE_SIZE as u64;
            let Some(mine) = local.next(in_page.min(len - at) as usize) else { return Ok(done) };
            let part = buffer.get_mut(..mine.len()).unwrap_or_default();
            let moved = match direction {
                Direction::Read => mm.read_remote(UserAddr(addr), part).map(|n| mine.write_partial(part.get(..n).unwrap_or(&[]))),
                Direction::Write => {
                    let n = mine.read_partial(part);
                    if n == 0 { Err(Errno::EFAULT) } else { mm.write_remote(UserAddr(addr), part.get(..n).unwrap_or(&[])) }
                }
            };
            let n = moved.unwrap_or(0);
            done += n;
            at += n as u64;
            if n < mine.len() {
                return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
            }
        }
    }
    Ok(done)
}

/// The caller's pieces, one after the other.
struct Local<'a> {
    pieces: &'a [UserSlice],
    offset: usize,
}

impl Local<'_> {
    /// The next bytes, at most `most`.
    fn next(&mut self, most: usize) -> Option<UserSlice> {
        loop {
            let (first, rest) = self.pieces.split_first()?;
            let part = first.sub(self.offset, most);
            if !part.is_empty() {
                self.offset += part.len();
                return Some(part);
            }
            self.pieces = rest;
            self.offset = 0;
        }
    }
}
