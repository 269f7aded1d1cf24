//! Sockets within the machine (`unix(7)`): streams, datagrams and sequences of packets.
//!
//! Each socket has a queue of messages that it has not read. A message carries bytes, who sent it
//! and files in flight; who sent it pays for it from its budget (SO_SNDBUF) until it is read.
//!
//! - `mod.rs`: the socket and its life. `connect.rs`: names, listening, connections. `queue.rs`:
//!   messages. `transfer.rs`: sending and receiving. `names.rs`: who has which name. `rights.rs`:
//!   files in flight, and sockets that only messages still hold. `garbage.rs`: which of those no
//!   socket in use leads to. `proc.rs`: /proc/net/unix.
//!
//! # Invariants
//! - A socket that is `dead` gets no more messages: both are decided under its queue's lock.
//! - Peers of a connection hold each other; each lets go of the other when it is released, so the
//!   circle is open after both are closed.
//! - One reader at a time takes from a queue (`reading`), so what it copies from the first message
//!   is still first afterwards.
//!
//! # Lock order
//! Sleeping: `unix_bind` (outside of the VFS's), `unix_reader`. Spin: `unix_names`, `unix_state`
//! (never two), `unix_relay`, `unix_queue` (a listener's before those of the connections that wait
//! in it, by subclass), `unix_rights`, `unix_in_flight`, `unix_dead`.

mod connect;
mod garbage;
pub(crate) mod names;
pub(crate) mod proc;
mod queue;
pub(crate) mod rights;
mod transfer;

use crate::{
    NetNamespace,
    options::Options,
    socket::{Common, Ids, Name, Outgoing, Received, SocketOps, Wait, caller},
};
use abi::{Errno, Result, raw::net as n};
use collections::ArcList;
use core::{any::Any, fmt};
use kalloc::{KArc, KWeak, karc_as};
use queue::Queue;
use sched::{Mutex, Registration, WaitQueue, WakeCallback};
use sync::{
    LockClass, SpinLock,
    atomic::{
        AtomicBool, AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
    },
};
use vfs::{IoSink, IoSource, Lookup, PollEvents, PollTable};

static BIND: LockClass = LockClass::new("unix_bind", 150);
static READER: LockClass = LockClass::new("unix_reader", 360);
static STATE: LockClass = LockClass::new("unix_state", 1210);
static RELAY: LockClass = LockClass::new("unix_relay", 1211);

/// Datagrams that wait for a reader at most, less one (net.unix.max_dgram_qlen).
const MAX_DATAGRAMS: u32 = 10;

/// Where a socket is in its life.
const CLOSED: u32 = 0;
const LISTENING: u32 = 1;
const CONNECTED: u32 = 2;

/// Directions that are shut down.
const SHUT_RECEIVE: u32 = 1;
const SHUT_SEND: u32 = 2;
const SHUT_BOTH: u32 = 3;

#[derive(Default)]
struct State {
    peer: Option<KArc<Unix>>,
    name: Option<KArc<Name>>,
    /// By which an abstract name is given back.
    key: Option<names::Key>,
    /// Who the peer was when the connection was made, and who listened.
    peer_ids: Option<Ids>,
    own_ids: Option<Ids>,
}

struct Relay {
    /// Number of the peer, to which connect has not said otherwise since.
    id: u64,
    _registration: Registration,
}

/// A socket.
pub(crate) struct Unix {
    me: KWeak<Unix>,
    common: Common,
    ns: KArc<NetNamespace>,
    /// Number of the socket in its namespace.
    id: u64,
    ino: AtomicU64,
    stage: AtomicU32,
    shut: AtomicU32,
    dead: AtomicBool,
    /// Messages, or connections that wait, beyond which senders have to wait.
    backlog: AtomicU32,
    state: SpinLock<State>,
    /// Tells who waits for this socket to be writable that its peer has room. There since a poll found
    /// none, until one finds some.
    relay: SpinLock<Option<Relay>>,
    queue: Queue,
    /// Who waits for messages, connections, or the end.
    readers: WaitQueue,
    /// Who waits for room in the queue.
    room: WaitQueue,
    reading: Mutex<()>,
    binding: Mutex<()>,
}

impl Unix {
    fn try_new(ns: &KArc<NetNamespace>, kind: u32, protocol: u32) -> Result<KArc<Self>> {
        let options = Options::try_new()?;
        let id = ns.unix.next_id();
        let s = KArc::try_new_cyclic(|me| Self {
            me: me.clone(),
            common: Common { family: n::AF_UNIX, kind, protocol, options },
            ns: ns.clone(),
            id,
            ino: AtomicU64::new(0),
            stage: AtomicU32::new(CLOSED),
            shut: AtomicU32::new(0),
            dead: AtomicBool::new(false),
            backlog: AtomicU32::new(MAX_DATAGRAMS),
            state: SpinLock::new(State::default(), &STATE),
            relay: SpinLock::new(None, &RELAY),
            queue: Queue::new(),
            readers: WaitQueue::new(),
            room: WaitQueue::new(),
            reading: Mutex::new((), &READER),
            binding: Mutex::new((), &BIND),
        })?;
        ns.unix.enter(id, &s)?;
        Ok(s)
    }

    /// Whether the peer of a datagram socket has room; else who waits for this socket to be writable
    /// hears of it, also if the peer was not there yet when the wait began.
    fn has_room_at(&self, peer: &Unix) -> bool {
        if !peer.is_full() {
            self.stop_relay();
            return true;
        }
        if self.relay.lock().as_ref().is_none_or(|r| r.id != peer.id) {
            let writers = karc_as!(self.common.options.budget.clone() => dyn WakeCallback);
            // Without memory a sender may try, and wait there.
            let Ok(registration) = peer.room.add_callback(writers, !0, false) else { return true };
            let before = self.relay.lock().replace(Relay { id: peer.id, _registration: registration });
            drop(before);
        }
        // It may have got room before the relay was there.
        !peer.is_full()
    }

    fn stop_relay(&self) {
        let before = self.relay.lock().take();
        drop(before);
    }

    fn handle(&self) -> Result<KArc<Self>> {
        self.me.upgrade().ok_or(Errno::ENOTCONN)
    }
    fn peer(&self) -> Option<KArc<Unix>> {
        self.state.lock().peer.clone()
    }
    fn stage(&self) -> u32 {
        self.stage.load(Acquire)
    }
    fn is_shut(&self, how: u32) -> bool {
        self.shut.load(Acquire) & how != 0
    }
    fn is_dead(&self) -> bool {
        self.dead.load(Acquire)
    }
    /// Whether it has connections: a stream or a sequence of packets.
    fn is_connected_kind(&self) -> bool {
        self.common.kind != n::SOCK_DGRAM
    }
    /// Whether a sender or connection has to wait.
    fn is_full(&self) -> bool {
        self.queue.len() > self.backlog.load(Relaxed)
    }
    fn wake_readers(&self) {
        self.readers.wake_all_key((PollEvents::READABLE | PollEvents::RDBAND).bits());
    }
    /// Everybody looks again: the state changed.
    fn wake_all(&self) {
        self.readers.wake_all();
        self.common.options.budget.writers.wake_all();
    }

    /// The end of a socket: its name is free, its peer learns of it, what it has not read is gone.
    /// `abandoned`: it is a connection that nobody accepted.
    fn end(&self, abandoned: bool) {
        let (peer, key) = {
            let mut s = self.state.lock();
            (s.peer.take(), s.key.take())
        };
        if let Some(key) = key {
            self.ns.unix.forget(&key);
        }
        self.stop_relay();
        self.shut.fetch_or(SHUT_BOTH, SeqCst);
        let mut unread = ArcList::new();
        let had_unread = self.queue.close(&self.dead, &mut unread);
        self.room.wake_all();
        if let Some(peer) = &peer
            && self.is_connected_kind()
        {
            if had_unread || abandoned {
                peer.common.options.set_error(Errno::ECONNRESET);
            }
            peer.shut.fetch_or(SHUT_BOTH, SeqCst);
            peer.wake_all();
        }
        self.wake_all();
        rights::closed();
        let all_gone = queue::bury(&mut unread);
        drop(peer);
        if all_gone {
            rights::collect();
        }
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        // A connection that nobody accepted ends with the message that holds it.
        if !*self.dead.get_mut() {
            self.end(true);
        }
        self.ns.unix.leave(self.id);
    }
}

impl SocketOps for Unix {
    fn common(&self) -> &Common {
        &self.common
    }
    fn bind(&self, cx: &Lookup<'_>, address: &[u8]) -> Result {
        self.bind_to(cx, address)
    }
    fn listen(&self, backlog: u32) -> Result {
        self.start_listening(backlog)
    }
    fn connect(&self, cx: &Lookup<'_>, address: &[u8], wait: Wait) -> Result {
        if self.is_connected_kind() { self.connect_stream(cx, address, wait) } else { self.connect_datagram(cx, address) }
    }
    fn accept(&self, wait: Wait) -> Result<KArc<dyn SocketOps>> {
        Ok(karc_as!(self.accept_one(wait)? => dyn SocketOps))
    }
    fn name(&self, peer: bool) -> Result<Name> {
        let name = if peer {
            self.peer().ok_or(Errno::ENOTCONN)?.state.lock().name.clone()
        } else {
            self.state.lock().name.clone()
        };
        match name {
            Some(name) => Ok(*name),
            None => Name::new(&(n::AF_UNIX as u16).to_ne_bytes()),
        }
    }
    fn send(&self, message: Outgoing<'_>, src: &mut IoSource<'_>) -> Result<usize> {
        match self.common.kind {
            n::SOCK_STREAM => self.send_stream(message, src),
            n::SOCK_SEQPACKET if self.stage() != CONNECTED => Err(Errno::ENOTCONN),
            // A connection knows where packets go.
            n::SOCK_SEQPACKET => self.send_packet(Outgoing { to: None, ..message }, src),
            _ => self.send_packet(message, src),
        }
    }
    fn receive(&self, dst: &mut IoSink<'_>, flags: u32, wait: Wait) -> Result<Received> {
        match self.common.kind {
            n::SOCK_STREAM => self.receive_stream(dst, flags, wait),
            n::SOCK_SEQPACKET if self.stage() != CONNECTED => Err(Errno::ENOTCONN),
            _ => self.receive_packet(dst, flags, wait),
        }
    }
    fn shutdown(&self, how: u32) -> Result {
        if how > 2 {
            return Err(Errno::EINVAL);
        }
        let mine = how + 1;
        self.shut.fetch_or(mine, SeqCst);
        if let Some(peer) = self.peer()
            && self.is_connected_kind()
        {
            // What one does not read the other cannot send, and the other way round.
            let swapped = (mine & SHUT_RECEIVE) << 1 | (mine & SHUT_SEND) >> 1;
            peer.shut.fetch_or(swapped, SeqCst);
            peer.wake_all();
        }
        self.wake_all();
        Ok(())
    }
    fn poll(&self, table: &mut PollTable<'_>) -> PollEvents {
        let budget = &self.common.options.budget;
        table.register(&self.readers);
        table.register(&budget.writers);
        let mut events = PollEvents::empty();
        let shut = self.shut.load(Acquire);
        events.set(PollEvents::ERR, self.common.options.error.load(Relaxed) != 0);
        events.set(PollEvents::HUP, shut == SHUT_BOTH);
        events.set(PollEvents::RDHUP | PollEvents::READABLE, shut & SHUT_RECEIVE != 0);
        if self.queue.len() != 0 {
            events |= PollEvents::READABLE;
        }
        let stage = self.stage();
        if self.is_connected_kind() && stage == CLOSED {
            events |= PollEvents::HUP;
        }
        let mut writable = stage != LISTENING && budget.is_writable();
        if writable
            && !self.is_connected_kind()
            && let Some(peer) = self.peer()
            && !core::ptr::eq(&*peer, self)
        {
            writable = peer.peer().is_some_and(|p| core::ptr::eq(&*p, self)) || self.has_room_at(&peer);
        }
        events.set(PollEvents::WRITABLE | PollEvents::WRBAND, writable);
        events
    }
    fn unread(&self) -> Result<usize> {
        if self.stage() == LISTENING {
            return Err(Errno::EINVAL);
        }
        Ok(self.queue.unread(self.is_connected_kind()))
    }
    fn is_listening(&self) -> bool {
        self.stage() == LISTENING
    }
    fn peer_ids(&self) -> Option<Ids> {
        self.state.lock().peer_ids
    }
    fn fdinfo(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "scm_fds: {}", self.queue.files())
    }
    fn attached(&self, ino: u64) {
        self.ino.store(ino, Relaxed);
    }
    fn release(&self) {
        self.end(false);
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Starts what works behind the sockets. May sleep.
pub(crate) fn start() -> Result {
    queue::start_helper()
}

/// A new socket. EPROTONOSUPPORT, ESOCKTNOSUPPORT.
pub(crate) fn create(ns: &KArc<NetNamespace>, kind: u32, protocol: u32) -> Result<KArc<dyn SocketOps>> {
    if protocol != 0 && protocol != n::AF_UNIX {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let kind = match kind {
        n::SOCK_STREAM | n::SOCK_DGRAM | n::SOCK_SEQPACKET => kind,
        // Old programs know datagrams by this name.
        n::SOCK_RAW => n::SOCK_DGRAM,
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    // There is one protocol, which has no number.
    Ok(karc_as!(Unix::try_new(ns, kind, 0)? => dyn SocketOps))
}

/// Makes two new sockets each other's peer.
pub(crate) fn pair(a: &dyn SocketOps, b: &dyn SocketOps) -> Result {
    let of = |s: &dyn SocketOps| s.as_any().downcast_ref::<Unix>().ok_or(Errno::EOPNOTSUPP).and_then(Unix::handle);
    let (a, b) = (of(a)?, of(b)?);
    let me = Some(caller());
    for (one, other) in [(&a, &b), (&b, &a)] {
        *one.state.lock() = State { peer: Some(other.clone()), peer_ids: me, own_ids: me, ..State::default() };
        if one.is_connected_kind() {
            one.stage.store(CONNECTED, Release);
        }
    }
    Ok(())
}
