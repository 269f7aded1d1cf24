//! Names and connections: bind, listen, connect, accept.
//!
//! A name in a file system is an inode of type socket; bind hangs the socket on it, weakly, so
//! that a name whose socket is gone is ECONNREFUSED. A name that begins with NUL is abstract.

use super::{
    CLOSED, CONNECTED, LISTENING, SHUT_RECEIVE, Unix,
    queue::{self, Message},
};
use crate::socket::{Name, Wait, caller};
use abi::{Errno, Result, raw::net as n};
use collections::ArcList;
use kalloc::{KArc, KWeak};
use sched::{Outcome, Sleep};
use sync::atomic::Ordering::{Relaxed, Release};
use vfs::{Lookup, LookupFlags, MAY_WRITE};

/// Bytes of the family in front of a name, and of the longest address (`struct sockaddr_un`).
const FAMILY: usize = 2;
const LONGEST: usize = FAMILY + 108;

/// What bind hangs on an inode.
struct Bound(KWeak<Unix>);

/// What an address says.
enum Address<'a> {
    /// Any free name, for bind.
    Unnamed,
    /// With the NUL in front, without the family.
    Abstract(&'a [u8]),
    /// Up to the first NUL.
    Path(&'a [u8]),
}

fn parse(address: &[u8]) -> Result<Address<'_>> {
    let (family, rest) = address.split_at_checked(FAMILY).ok_or(Errno::EINVAL)?;
    if address.len() > LONGEST || family != (n::AF_UNIX as u16).to_ne_bytes() {
        return Err(Errno::EINVAL);
    }
    Ok(match rest.first() {
        None => Address::Unnamed,
        Some(0) => Address::Abstract(rest),
        Some(_) => Address::Path(rest.split(|&b| b == 0).next().unwrap_or(rest)),
    })
}

fn with_family(rest: &[u8], nul: bool) -> Result<Name> {
    let mut bytes = [0; LONGEST + 1];
    let (family, tail) = bytes.split_at_mut(FAMILY);
    family.copy_from_slice(&(n::AF_UNIX as u16).to_ne_bytes());
    tail.get_mut(..rest.len()).ok_or(Errno::EINVAL)?.copy_from_slice(rest);
    Name::new(bytes.get(..FAMILY + rest.len() + usize::from(nul)).ok_or(Errno::EINVAL)?)
}

impl Unix {
    pub(super) fn bind_to(&self, cx: &Lookup<'_>, address: &[u8]) -> Result {
        let me = self.handle()?;
        match parse(address)? {
            Address::Unnamed => self.bind_to_any(),
            Address::Abstract(rest) => {
                let _one = self.binding.lock();
                self.check_unbound()?;
                self.take_abstract(&me, with_family(rest, false)?)
            }
            Address::Path(path) => {
                let _one = self.binding.lock();
                self.check_unbound()?;
                let name = KArc::try_new(with_family(path, true)?)?;
                let bound = KArc::try_new(Bound(self.me.clone()))?;
                let inode = vfs::mksocket(cx, path, 0o777).map_err(|e| if e == Errno::EEXIST { Errno::EADDRINUSE } else { e })?;
                inode.set_special(Some(bound.into_any()));
                self.state.lock().name = Some(name);
                Ok(())
            }
        }
    }

    fn check_unbound(&self) -> Result {
        if self.state.lock().name.is_some() { Err(Errno::EINVAL) } else { Ok(()) }
    }

    fn take_abstract(&self, me: &KArc<Unix>, name: Name) -> Result {
        let shared = KArc::try_new(name)?;
        let key = self.ns.unix.claim(me, &name)?;
        let mut s = self.state.lock();
        s.name = Some(shared);
        s.key = Some(key);
        Ok(())
    }

    /// Gives the socket a free abstract name of five digits, unless it has a name.
    pub(super) fn bind_to_any(&self) -> Result {
        let me = self.handle()?;
        let _one = self.binding.lock();
        if self.state.lock().name.is_some() {
            return Ok(());
        }
        // As many as there are names.
        for _ in 0..1 << 20 {
            let mut rest = *b"\x0000000";
            let number = self.ns.unix.next_auto();
            for (i, digit) in rest.iter_mut().skip(1).enumerate() {
                let d = (number >> (16 - 4 * i) & 15) as u8;
                *digit = if d < 10 { b'0' + d } else { b'a' + d - 10 };
            }
            match self.take_abstract(&me, with_family(&rest, false)?) {
                Err(Errno::EADDRINUSE) => {}
                done => return done,
            }
        }
        Err(Errno::ENOSPC)
    }

    /// The socket with a name. EINVAL, ECONNREFUSED, EPROTOTYPE, and what a walk can give.
    pub(super) fn find(&self, cx: &Lookup<'_>, address: &[u8]) -> Result<KArc<Unix>> {
        let found = match parse(address)? {
            Address::Unnamed => return Err(Errno::EINVAL),
            Address::Abstract(_) => self.ns.unix.find(self.common.kind, address)?,
            Address::Path(path) => {
                let place = vfs::lookup(cx, None, path, LookupFlags::FOLLOW)?;
                let inode = place.inode()?;
                vfs::permission::check(inode, MAY_WRITE, cx.cred)?;
                if !inode.mode().is_socket() {
                    return Err(Errno::ECONNREFUSED);
                }
                let bound = inode.special().and_then(|s| s.downcast::<Bound>().ok());
                let found = bound.and_then(|b| b.0.upgrade()).filter(|s| !s.is_dead()).ok_or(Errno::ECONNREFUSED)?;
                inode.touch_accessed(false);
                found
            }
        };
        if found.common.kind != self.common.kind { Err(Errno::EPROTOTYPE) } else { Ok(found) }
    }

    pub(super) fn start_listening(&self, backlog: u32) -> Result {
        if !self.is_connected_kind() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut s = self.state.lock();
        if s.name.is_none() || !matches!(self.stage(), CLOSED | LISTENING) {
            return Err(Errno::EINVAL);
        }
        self.backlog.store(backlog, Relaxed);
        self.stage.store(LISTENING, Release);
        // Who connects sees who listened.
        s.own_ids = Some(caller());
        drop(s);
        self.room.wake_all();
        Ok(())
    }

    fn wants_name_for_credentials(&self) -> bool {
        self.common.options.pass_credentials.load(Relaxed)
    }

    /// Binds a socket that will send its credentials, so that it can be answered.
    pub(super) fn autobind(&self) -> Result {
        if self.wants_name_for_credentials() { self.bind_to_any() } else { Ok(()) }
    }

    pub(super) fn connect_stream(&self, cx: &Lookup<'_>, address: &[u8], wait: Wait) -> Result {
        if matches!(parse(address)?, Address::Unnamed) {
            return Err(Errno::EINVAL);
        }
        self.autobind()?;
        let me = self.handle()?;
        // What can fail for want of memory comes first.
        let connection = Unix::try_new(&self.ns, self.common.kind, self.common.protocol)?;
        let message = Message::of_connection(connection.clone())?;
        let give_up = |e| {
            connection.state.lock().peer = None;
            Err(e)
        };
        loop {
            let listener = self.find(cx, address)?;
            if listener.stage() != LISTENING || listener.is_shut(SHUT_RECEIVE) {
                return Err(Errno::ECONNREFUSED);
            }
            if listener.is_full() {
                self.wait_for_room(&listener, wait)?;
                continue;
            }
            let (name, ids) = {
                let s = listener.state.lock();
                (s.name.clone(), s.own_ids)
            };
            {
                let mut s = connection.state.lock();
                s.peer = Some(me.clone());
                s.name = name;
                s.peer_ids = Some(caller());
            }
            connection.stage.store(CONNECTED, Release);
            let mut mine = self.state.lock();
            match self.stage() {
                CLOSED => {}
                CONNECTED => {
                    drop(mine);
                    return give_up(Errno::EISCONN);
                }
                _ => {
                    drop(mine);
                    return give_up(Errno::EINVAL);
                }
            }
            let admit = || if listener.is_full() { Err(Errno::EAGAIN) } else { Ok(()) };
            match listener.queue.push(message.clone(), &listener.dead, admit) {
                Err(Errno::EAGAIN) => {
                    drop(mine);
                    connection.state.lock().peer = None;
                    continue;
                }
                Err(e) => {
                    drop(mine);
                    return give_up(e);
                }
                Ok(()) => {}
            }
            mine.peer = Some(connection.clone());
            mine.peer_ids = ids;
            self.stage.store(CONNECTED, Release);
            drop(mine);
            listener.wake_readers();
            self.wake_all();
            return Ok(());
        }
    }

    /// Waits until `other` takes messages again, or is no longer there.
    pub(super) fn wait_for_room(&self, other: &KArc<Unix>, wait: Wait) -> Result {
        let deadline = wait.deadline()?;
        let ready = || (!other.is_full() || other.is_dead() || other.is_shut(SHUT_RECEIVE)).then_some(());
        match other.room.wait_exclusive(Sleep::Interruptible, deadline, ready) {
            Outcome::Ready(()) => Ok(()),
            Outcome::TimedOut => Err(Errno::EAGAIN),
            Outcome::Interrupted => Err(wait.interrupted()),
        }
    }

    pub(super) fn connect_datagram(&self, cx: &Lookup<'_>, address: &[u8]) -> Result {
        let family = address.get(..FAMILY).ok_or(Errno::EINVAL)?;
        if family == (n::AF_UNSPEC as u16).to_ne_bytes() {
            let old = self.state.lock().peer.take();
            self.stage.store(CLOSED, Release);
            self.stop_relay();
            if let Some(old) = old {
                self.left(&old);
            }
            return Ok(());
        }
        self.autobind()?;
        let other = self.find(cx, address)?;
        if !self.may_send_to(&other) {
            return Err(Errno::EPERM);
        }
        let old = self.state.lock().peer.replace(other.clone());
        self.stage.store(CONNECTED, Release);
        self.stop_relay();
        if let Some(old) = old.filter(|old| !KArc::ptr_eq(old, &other)) {
            self.left(&old);
        }
        self.wake_all();
        Ok(())
    }

    /// A datagram socket has another peer than `old`, or none: what it had not read is gone, and
    /// `old` learns of that if this was its peer.
    fn left(&self, old: &Unix) {
        let mut unread = ArcList::new();
        self.queue.clear(&mut unread);
        if unread.is_empty() {
            return;
        }
        queue::bury(&mut unread);
        self.room.wake_all();
        if !old.is_dead() && old.peer().is_some_and(|p| core::ptr::eq(&*p, self)) {
            old.common.options.set_error(Errno::ECONNRESET);
            old.wake_all();
        }
    }

    pub(super) fn accept_one(&self, wait: Wait) -> Result<KArc<Unix>> {
        if !self.is_connected_kind() {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.stage() != LISTENING {
            return Err(Errno::EINVAL);
        }
        let message = match self.queue.pop() {
            Some(m) => m,
            None => {
                // Who must not wait does not learn that nothing will come.
                let deadline = wait.deadline()?;
                let next = || match self.queue.pop() {
                    Some(m) => Some(Some(m)),
                    None => self.is_shut(SHUT_RECEIVE).then_some(None),
                };
                match self.readers.wait_exclusive(Sleep::Interruptible, deadline, next) {
                    Outcome::Ready(Some(m)) => m,
                    Outcome::Ready(None) => return Err(Errno::EINVAL),
                    Outcome::TimedOut => return Err(Errno::EAGAIN),
                    Outcome::Interrupted => return Err(wait.interrupted()),
                }
            }
        };
        self.room.wake_one();
        message.connection.clone().ok_or(Errno::EINVAL)
    }

    /// Whether a datagram socket takes messages from this one.
    pub(super) fn may_send_to(&self, other: &Unix) -> bool {
        other.peer().is_none_or(|p| core::ptr::eq(&*p, self))
    }
}
