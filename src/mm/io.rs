//! Where file data goes to and comes from: one kernel buffer or several pieces of user memory.
//!
//! `read(2)` and its relatives give an [`IoSink`], `write(2)` an [`IoSource`]; files, pipes and
//! terminals copy through them and never see a user address.
//!
//! The partial-copy rule is Linux's: a bad address stops the transfer there. What went over
//! before counts and is returned; EFAULT only when nothing went over at all. A callee therefore
//! moves as much as it can per call, stops at the first short count, and returns what it moved
//! (or the error when that is nothing).
//!
//! Context: may sleep when the memory is the user's (a page fault), never otherwise.

use abi::{Errno, PAGE_SIZE, Result, UserAddr};
use arch::user::{self, Uncopied, UserSlice};

/// The walk over the pieces that both directions share.
struct Cursor<'a> {
    /// The pieces after the current one.
    rest: &'a [UserSlice],
    /// All pieces, for going back.
    all: &'a [UserSlice],
    /// What is left of the current piece.
    addr: UserAddr,
    left: usize,
    /// The first piece when there is no slice of them.
    single: Option<UserSlice>,
    remaining: usize,
    done: usize,
}

impl<'a> Cursor<'a> {
    fn one(piece: UserSlice) -> Self {
        Self { rest: &[], all: &[], addr: piece.addr(), left: piece.len(), single: Some(piece), remaining: piece.len(), done: 0 }
    }

    fn many(pieces: &'a [UserSlice]) -> Self {
        let remaining = pieces.iter().fold(0usize, |sum, p| sum.saturating_add(p.len()));
        Self { rest: pieces, all: pieces, addr: UserAddr(0), left: 0, single: None, remaining, done: 0 }
    }

    /// The next non-empty run of user memory of at most `limit` bytes.
    fn next(&mut self, limit: usize) -> Option<(UserAddr, usize)> {
        if limit == 0 || self.remaining == 0 {
            return None;
        }
        while self.left == 0 {
            let (piece, rest) = self.rest.split_first()?;
            self.rest = rest;
            self.addr = piece.addr();
            self.left = piece.len();
        }
        Some((self.addr, self.left.min(limit).min(self.remaining)))
    }

    fn advance(&mut self, n: usize) {
        self.addr = self.addr.add(n as u64);
        self.left = self.left.saturating_sub(n);
        self.remaining = self.remaining.saturating_sub(n);
        self.done = self.done.saturating_add(n);
    }

    /// Back to the position `n` bytes before this one.
    fn revert(&mut self, n: usize) {
        let target = self.done.saturating_sub(n);
        let limit = self.remaining.saturating_add(self.done);
        *self = match self.single {
            Some(piece) => Self::one(piece),
            None => Self::many(self.all),
        };
        self.remaining = self.remaining.min(limit);
        while self.done < target {
            let Some((_, run)) = self.next(target - self.done) else { break };
            self.advance(run);
        }
    }

    /// Runs `copy` over pieces until `len` bytes went over or one came up short.
    fn transfer(&mut self, len: usize, mut copy: impl FnMut(UserAddr, usize, usize) -> core::result::Result<(), Uncopied>) -> Result<usize> {
        let mut moved = 0;
        while let Some((addr, run)) = self.next(len.saturating_sub(moved)) {
            match copy(addr, moved, run) {
                Ok(()) => {
                    self.advance(run);
                    moved += run;
                }
                Err(Uncopied(undone)) => {
                    let done = run.saturating_sub(undone);
                    self.advance(done);
                    moved += done;
                    return if moved == 0 { Err(Errno::EFAULT) } else { Ok(moved) };
                }
            }
        }
        Ok(moved)
    }
}

enum SinkKind<'a> {
    Kernel { buf: &'a mut [u8], done: usize, limit: usize },
    User(Cursor<'a>),
}

/// Where data that is read goes.
pub struct IoSink<'a>(SinkKind<'a>);

impl<'a> IoSink<'a> {
    /// Into a kernel buffer.
    pub fn kernel(buf: &'a mut [u8]) -> Self {
        let limit = buf.len();
        Self(SinkKind::Kernel { buf, done: 0, limit })
    }
    /// Into one piece of user memory.
    pub fn user(piece: UserSlice) -> Self {
        Self(SinkKind::User(Cursor::one(piece)))
    }
    /// Into several pieces of user memory, in order (`readv(2)`).
    pub fn user_vec(pieces: &'a [UserSlice]) -> Self {
        Self(SinkKind::User(Cursor::many(pieces)))
    }

    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        match &self.0 {
            SinkKind::Kernel { done, limit, .. } => limit.saturating_sub(*done),
            SinkKind::User(c) => c.remaining,
        }
    }
    /// Bytes written so far.
    pub fn written(&self) -> usize {
        match &self.0 {
            SinkKind::Kernel { done, .. } => *done,
            SinkKind::User(c) => c.done,
        }
    }
    /// Lets at most `n` more bytes in.
    pub fn truncate(&mut self, n: usize) {
        match &mut self.0 {
            SinkKind::Kernel { done, limit, .. } => *limit = (*limit).min(done.saturating_add(n)),
            SinkKind::User(c) => c.remaining = c.remaining.min(n),
        }
    }
    /// Takes the last `n` bytes back: the position moves, the memory keeps what was written.
    pub fn revert(&mut self, n: usize) {
        match &mut self.0 {
            SinkKind::Kernel { done, .. } => *done = done.saturating_sub(n),
            SinkKind::User(c) => c.revert(n),
        }
    }
    /// Whether a write can fault on user memory (so that no spin lock may be held).
    pub fn is_user(&self) -> bool {
        matches!(self.0, SinkKind::User(_))
    }

    /// Writes as much of `data` as fits and can be written. EFAULT when nothing could be.
    pub fn write(&mut self, data: &[u8]) -> Result<usize> {
        match &mut self.0 {
            SinkKind::Kernel { buf, done, limit } => {
                let n = data.len().min(limit.saturating_sub(*done));
                let target = buf.get_mut(*done..*done + n).ok_or(Errno::EFAULT)?;
                target.copy_from_slice(data.get(..n).ok_or(Errno::EFAULT)?);
                *done += n;
                Ok(n)
            }
            SinkKind::User(c) => c.transfer(data.len(), |addr, at, run| match data.get(at..at + run) {
                Some(part) => user::copy_to_user(addr, part),
                None => Err(Uncopied(run)),
            }),
        }
    }

    /// Writes all of `data`, EFAULT otherwise (for records that must not be torn).
    pub fn write_all(&mut self, data: &[u8]) -> Result {
        if self.write(data)? == data.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Writes `len` zero bytes, as [`write`](Self::write) does.
    pub fn write_zeros(&mut self, len: usize) -> Result<usize> {
        match &mut self.0 {
            SinkKind::Kernel { buf, done, limit } => {
                let n = len.min(limit.saturating_sub(*done));
                buf.get_mut(*done..*done + n).ok_or(Errno::EFAULT)?.fill(0);
                *done += n;
                Ok(n)
            }
            SinkKind::User(c) => c.transfer(len, |addr, _, run| user::clear_user(addr, run)),
        }
    }
}

enum SourceKind<'a> {
    Kernel { buf: &'a [u8], done: usize, limit: usize },
    User(Cursor<'a>),
}

/// Where data that is written comes from.
pub struct IoSource<'a>(SourceKind<'a>);

impl<'a> IoSource<'a> {
    /// From a kernel buffer.
    pub fn kernel(buf: &'a [u8]) -> Self {
        Self(SourceKind::Kernel { buf, done: 0, limit: buf.len() })
    }
    /// From one piece of user memory.
    pub fn user(piece: UserSlice) -> Self {
        Self(SourceKind::User(Cursor::one(piece)))
    }
    /// From several pieces of user memory, in order (`writev(2)`).
    pub fn user_vec(pieces: &'a [UserSlice]) -> Self {
        Self(SourceKind::User(Cursor::many(pieces)))
    }

    /// Bytes that are left.
    pub fn remaining(&self) -> usize {
        match &self.0 {
            SourceKind::Kernel { done, limit, .. } => limit.saturating_sub(*done),
            SourceKind::User(c) => c.remaining,
        }
    }
    /// Bytes read so far.
    pub fn consumed(&self) -> usize {
        match &self.0 {
            SourceKind::Kernel { done, .. } => *done,
            SourceKind::User(c) => c.done,
        }
    }
    /// Gives at most `n` more bytes.
    pub fn truncate(&mut self, n: usize) {
        match &mut self.0 {
            SourceKind::Kernel { done, limit, .. } => *limit = (*limit).min(done.saturating_add(n)),
            SourceKind::User(c) => c.remaining = c.remaining.min(n),
        }
    }
    /// Puts the last `n` bytes back.
    pub fn revert(&mut self, n: usize) {
        match &mut self.0 {
            SourceKind::Kernel { done, .. } => *done = done.saturating_sub(n),
            SourceKind::User(c) => c.revert(n),
        }
    }
    /// Skips `n` bytes without reading them.
    pub fn skip(&mut self, n: usize) {
        match &mut self.0 {
            SourceKind::Kernel { done, limit, .. } => *done = done.saturating_add(n).min(*limit),
            SourceKind::User(c) => {
                let end = c.done.saturating_add(n.min(c.remaining));
                while c.done < end {
                    let Some((_, run)) = c.next(end - c.done) else { break };
                    c.advance(run);
                }
            }
        }
    }
    /// Whether a read can fault on user memory (so that no spin lock may be held).
    pub fn is_user(&self) -> bool {
        matches!(self.0, SourceKind::User(_))
    }

    /// Fills as much of `dst` as there is data. EFAULT when nothing could be read.
    pub fn read(&mut self, dst: &mut [u8]) -> Result<usize> {
        match &mut self.0 {
            SourceKind::Kernel { buf, done, limit } => {
                let n = dst.len().min(limit.saturating_sub(*done));
                let part = buf.get(*done..*done + n).ok_or(Errno::EFAULT)?;
                dst.get_mut(..n).ok_or(Errno::EFAULT)?.copy_from_slice(part);
                *done += n;
                Ok(n)
            }
            SourceKind::User(c) => {
                let len = dst.len();
                c.transfer(len, |addr, at, run| match dst.get_mut(at..at + run) {
                    Some(part) => user::copy_from_user(part, addr),
                    None => Err(Uncopied(run)),
                })
            }
        }
    }

    /// Fills all of `dst`, EFAULT otherwise.
    pub fn read_exact(&mut self, dst: &mut [u8]) -> Result {
        if self.read(dst)? == dst.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }
}

/// How many bytes of the page that holds file position `pos` a transfer of `len` bytes touches,
/// and at which offset in it.
pub fn within_page(pos: u64, len: usize) -> (usize, usize) {
    let offset = (pos & abi::PAGE_MASK) as usize;
    (offset, len.min(PAGE_SIZE - offset))
}
