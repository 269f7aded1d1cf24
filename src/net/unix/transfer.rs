//! Sending and receiving (`send(2)`, `recv(2)`, `unix(7)`).
//!
//! A stream cuts what is written into messages and joins what is read, but never across a change
//! of credentials that the reader asked for, nor past files. Packets keep their borders.

use super::{CONNECTED, SHUT_RECEIVE, SHUT_SEND, Unix, queue::{Message, OVERHEAD, Paid}};
use crate::{
    Rights,
    socket::{Ids, Outgoing, Received, Wait, caller},
};
use abi::{Errno, Result, raw::net as n};
use kalloc::{KArc, KVec};
use sched::{MutexGuard, Outcome, Sleep};
use sync::atomic::Ordering::{Acquire, Relaxed};
use vfs::{IoSink, IoSource, PollEvents};

/// Most bytes of a stream in one message: four pages, which are still found when memory is cut up.
const PIECE: usize = 16 << 10;
/// Bytes of a packet's budget that its administration takes (Linux: 32).
const PACKET_EXTRA: usize = 32;

/// Who sent it, for messages without credentials.
const NOBODY: Ids = Ids { pid: 0, uid: 65534, gid: 65534 };

impl Unix {
    /// Charges the budget for a message of `len` bytes, waiting for room. EPIPE, EAGAIN, EINTR.
    fn pay(&self, len: usize, wait: Wait) -> Result<Paid> {
        let budget = &self.common.options.budget;
        loop {
            self.common.options.take_error()?;
            if self.is_shut(SHUT_SEND) {
                return Err(Errno::EPIPE);
            }
            if budget.has_room() {
                return Ok(Paid::new(budget, len + OVERHEAD));
            }
            let deadline = wait.deadline()?;
            let ready = || (budget.is_writable() || self.is_shut(SHUT_SEND)).then_some(());
            match budget.writers.wait_until(Sleep::Interruptible, deadline, ready) {
                Outcome::Ready(()) => {}
                Outcome::TimedOut => return Err(Errno::EAGAIN),
                Outcome::Interrupted => return Err(wait.interrupted()),
            }
        }
    }

    fn passes_credentials(&self) -> bool {
        self.common.options.pass_credentials.load(Relaxed)
    }

    /// The credentials that go with a message to `other`: those given, or the caller's when one of
    /// the two asked for them.
    fn ids_for(&self, other: &Unix, given: Option<Ids>) -> Option<Ids> {
        match given {
            None if self.passes_credentials() || other.passes_credentials() => Some(caller()),
            given => given,
        }
    }

    pub(super) fn send_stream(&self, m: Outgoing<'_>, src: &mut IoSource<'_>) -> Result<usize> {
        if m.flags & n::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if m.to.is_some() {
            return Err(if self.stage() == CONNECTED { Errno::EISCONN } else { Errno::EOPNOTSUPP });
        }
        let peer = self.peer().ok_or(Errno::ENOTCONN)?;
        if self.is_shut(SHUT_SEND) {
            return Err(Errno::EPIPE);
        }
        let ids = self.ids_for(&peer, m.control.ids);
        let mut rights = m.control.rights;
        let total = src.remaining();
        let most = (self.common.options.budget.limit() / 2).saturating_sub(64).min(PIECE);
        let mut sent = 0;
        while sent < total {
            match self.send_piece(&peer, (total - sent).min(most), m.wait, ids, &mut rights, src) {
                Ok(n) => sent += n,
                Err(_) if sent > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(sent)
    }

    fn send_piece(&self, peer: &Unix, len: usize, wait: Wait, ids: Option<Ids>, rights: &mut Option<Rights>, src: &mut IoSource<'_>) -> Result<usize> {
        let paid = self.pay(len, wait)?;
        let mut data = KVec::try_from_elem(0, len)?;
        src.read_exact(&mut data)?;
        let message = Message::try_new(data, paid, ids, None, rights.take(), false)?;
        let open = || if peer.is_shut(SHUT_RECEIVE) { Err(Errno::EPIPE) } else { Ok(()) };
        peer.queue.push(message, &peer.dead, open).map_err(|_| Errno::EPIPE)?;
        peer.wake_readers();
        Ok(len)
    }

    pub(super) fn send_packet(&self, m: Outgoing<'_>, src: &mut IoSource<'_>) -> Result<usize> {
        if m.flags & n::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let connected = match m.to {
            Some(_) => None,
            None => Some(self.peer().ok_or(Errno::ENOTCONN)?),
        };
        self.autobind()?;
        let len = src.remaining();
        if len > self.common.options.budget.limit().saturating_sub(PACKET_EXTRA) {
            return Err(Errno::EMSGSIZE);
        }
        let paid = self.pay(len, m.wait)?;
        let mut data = KVec::try_from_elem(0, len)?;
        src.read_exact(&mut data)?;
        let from = self.state.lock().name.clone();
        let find = || match (&connected, m.to, m.cx) {
            (Some(peer), _, _) => Ok(peer.clone()),
            (None, Some(to), Some(cx)) => self.find(cx, to),
            _ => Err(Errno::ENOTCONN),
        };
        let mut other = find()?;
        let ids = self.ids_for(&other, m.control.ids);
        let message = Message::try_new(data, paid, ids, from, m.control.rights, m.flags & n::MSG_EOR != 0)?;
        loop {
            if !self.may_send_to(&other) {
                return Err(Errno::EPERM);
            }
            if other.is_dead() {
                return Err(self.lost(&other));
            }
            if other.is_shut(SHUT_RECEIVE) {
                return Err(Errno::EPIPE);
            }
            // A peer that answers only to us bounds itself by our budget.
            let bounded = !core::ptr::eq(&*other, self) && other.peer().is_none_or(|p| !core::ptr::eq(&*p, self));
            let admit = || if bounded && other.is_full() { Err(Errno::EAGAIN) } else { Ok(()) };
            match other.queue.push(message.clone(), &other.dead, admit) {
                Ok(()) => {
                    other.wake_readers();
                    return Ok(len);
                }
                Err(Errno::EAGAIN) => {
                    self.wait_for_room(&other, m.wait)?;
                    other = find()?;
                }
                Err(_) => return Err(self.lost(&other)),
            }
        }
    }

    /// The one we send to is gone: a peer is forgotten. What the call gives.
    fn lost(&self, other: &KArc<Unix>) -> Errno {
        if self.is_connected_kind() {
            return Errno::EPIPE;
        }
        let old = {
            let mut s = self.state.lock();
            if s.peer.as_ref().is_some_and(|p| KArc::ptr_eq(p, other)) { s.peer.take() } else { None }
        };
        drop(old);
        Errno::ECONNREFUSED
    }

    /// Waits for a message, an error or the end; the queue's lock for readers is given up meanwhile.
    fn wait_for_message<'a>(&'a self, lock: MutexGuard<'a, ()>, wait: Wait, deadline: &mut Option<Option<abi::Nanos>>) -> Result<MutexGuard<'a, ()>> {
        let until = match *deadline {
            Some(until) => until,
            None => *deadline.insert(wait.deadline()?),
        };
        drop(lock);
        let ready = || {
            let ended = self.is_shut(SHUT_RECEIVE) || self.common.options.error.load(Relaxed) != 0;
            (self.queue.len() != 0 || ended).then_some(())
        };
        let outcome = if self.is_connected_kind() {
            self.readers.wait_until(Sleep::Interruptible, until, ready)
        } else {
            self.readers.wait_exclusive(Sleep::Interruptible, until, ready)
        };
        match outcome {
            Outcome::Ready(()) => Ok(self.reading.lock()),
            Outcome::TimedOut => Err(Errno::EAGAIN),
            Outcome::Interrupted => Err(wait.interrupted()),
        }
    }

    /// Where a look ahead starts (SO_PEEK_OFF).
    fn peek_offset(&self, flags: u32) -> usize {
        if flags & n::MSG_PEEK == 0 { 0 } else { self.common.options.peek_offset.load(Acquire).max(0) as usize }
    }
    /// Bytes were seen, or read: the look ahead moves on, or back.
    fn move_peek(&self, peek: bool, by: usize) {
        let offset = &self.common.options.peek_offset;
        let now = offset.load(Relaxed);
        if now >= 0 {
            let by = i32::try_from(by).unwrap_or(i32::MAX);
            offset.store(if peek { now.saturating_add(by) } else { now.saturating_sub(by).max(0) }, Relaxed);
        }
    }

    pub(super) fn receive_stream(&self, dst: &mut IoSink<'_>, flags: u32, wait: Wait) -> Result<Received> {
        if self.stage() != CONNECTED {
            return Err(Errno::EINVAL);
        }
        if flags & n::MSG_OOB != 0 {
            return Err(Errno::EINVAL);
        }
        let peek = flags & n::MSG_PEEK != 0;
        let want = dst.remaining();
        let target = if flags & n::MSG_WAITALL != 0 { want } else { self.common.options.receive_low().min(want).max(1) };
        let mut got = Received::default();
        let (mut deadline, mut seen) = (None, self.peek_offset(flags));
        let mut lock = self.reading.lock();
        loop {
            let next = if peek { self.queue.at(seen) } else { self.queue.first().map(|m| (m, 0)) };
            let Some((m, skip)) = next else {
                if got.len >= target {
                    break;
                }
                let ended = || -> Result<bool> {
                    self.common.options.take_error()?;
                    Ok(self.is_shut(SHUT_RECEIVE))
                };
                match ended() {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(_) if got.len > 0 => break,
                    Err(e) => return Err(e),
                }
                match self.wait_for_message(lock, wait, &mut deadline) {
                    Ok(again) => lock = again,
                    Err(_) if got.len > 0 => return Ok(got),
                    Err(e) => return Err(e),
                }
                continue;
            };
            if self.passes_credentials() {
                let ids = m.ids.unwrap_or(NOBODY);
                if got.ids.is_some_and(|before| before != ids) {
                    break;
                }
                got.ids = Some(ids);
            }
            let start = m.taken.load(Relaxed) + skip;
            let part = m.data.get(start..).unwrap_or(&[]);
            let n = match dst.write(part) {
                Ok(n) => n,
                Err(_) if got.len > 0 => break,
                Err(e) => return Err(e),
            };
            got.len += n;
            let has_files = m.rights.lock().is_some();
            if peek {
                seen += n;
                if has_files {
                    got.files = m.copy_files()?;
                    break;
                }
                if n < part.len() || dst.remaining() == 0 {
                    break;
                }
                continue;
            }
            m.taken.store(start + n, Relaxed);
            if has_files {
                got.files = m.take_files();
            }
            if m.left() == 0 {
                let done = self.queue.pop();
                drop(done);
            }
            if has_files || n < part.len() || dst.remaining() == 0 {
                break;
            }
        }
        self.move_peek(peek, got.len);
        drop(lock);
        if got.len > 0 {
            got.name = self.peer().and_then(|p| p.state.lock().name.clone());
        }
        Ok(got)
    }

    pub(super) fn receive_packet(&self, dst: &mut IoSink<'_>, flags: u32, wait: Wait) -> Result<Received> {
        if flags & n::MSG_OOB != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let peek = flags & n::MSG_PEEK != 0;
        let mut deadline = None;
        let mut lock = self.reading.lock();
        let (m, skip) = loop {
            let next = if peek { self.queue.at(self.peek_offset(flags)) } else { self.queue.first().map(|m| (m, 0)) };
            if let Some(next) = next {
                break next;
            }
            self.common.options.take_error()?;
            if self.is_shut(SHUT_RECEIVE) {
                // Nothing more comes. A datagram socket that must not wait says EAGAIN.
                let end = !wait.nonblocking || self.is_connected_kind();
                return if end { Ok(Received::default()) } else { Err(Errno::EAGAIN) };
            }
            lock = self.wait_for_message(lock, wait, &mut deadline)?;
        };
        let all = m.data.get(skip..).unwrap_or(&[]);
        let fits = all.len().min(dst.remaining());
        let copied = dst.write_all(all.get(..fits).unwrap_or(&[]));
        // A packet whose bytes could not be stored is lost, as on Linux.
        let files = match (&copied, peek) {
            (Ok(()), true) => m.copy_files()?,
            (Ok(()), false) => m.take_files(),
            (Err(_), _) => KVec::new(),
        };
        if !peek {
            self.queue.remove(&m);
        }
        self.move_peek(peek, fits);
        drop(lock);
        if !peek {
            self.room.wake_key(PollEvents::WRITABLE.bits());
        }
        copied?;
        let mut got = Received { len: fits, flags: 0, name: m.from.clone(), ids: None, files };
        if fits < all.len() {
            got.flags |= n::MSG_TRUNC;
            if flags & n::MSG_TRUNC != 0 {
                got.len = all.len();
            }
        }
        if m.ends_record {
            got.flags |= n::MSG_EOR;
        }
        if self.passes_credentials() {
            got.ids = Some(m.ids.unwrap_or(NOBODY));
        }
        Ok(got)
    }
}
