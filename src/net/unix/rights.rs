//! Files in flight (SCM_RIGHTS), and sockets that only messages still hold.
//!
//! A file in flight is held by its message. A socket in flight can so come to be held by its own
//! queue, or two sockets by each other's, and no close would end them. Every socket in flight is
//! therefore known here with how many messages hold it. A socket whose file has no other holders
//! is a candidate; `garbage.rs` finds the candidates that no other socket leads to, and their
//! queues are emptied.
//!
//! # When
//! After a close, and when very many are in flight. A row of closes that follow from each other is
//! one close. A look at n sockets is made once in n/[`LOOKS`] closes, so that closing them one by
//! one does not take time that grows with their square.
//!
//! # Nobody is stopped meanwhile
//! Who sends has the file in hand before it counts it here, and who receives gives the count up
//! before the file is his: the file's own count is never too small. Who sends, receives or looks
//! ahead at a socket marks it `touched` under the table's lock. A candidate that nobody touched
//! from when it was noted to the end was in nobody's hand all that time, so nothing was read from
//! its queue; if one of those found was touched, the look is made once more.
//!
//! A user may have as many files in flight as RLIMIT_NOFILE allows descriptors (`unix(7)`).

use super::{
    Unix,
    garbage::{self, Node},
    queue,
};
use crate::socket;
use abi::{Errno, Result, Uid};
use collections::{ArcList, OrdMap};
use kalloc::{KArc, KVec, KWeak};
use sched::Mutex;
use sync::{
    LockClass, SpinLock,
    atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
};
use vfs::OpenFile;

static IN_FLIGHT: LockClass = LockClass::new("unix_in_flight", 1217);
static COLLECTOR: LockClass = LockClass::new("unix_collector", 155);

/// Most files in one message.
pub const SCM_MAX_FD: usize = 253;

/// Sockets in flight that one close pays for looking at.
const LOOKS: usize = 256;
/// Sockets in flight above which who sends looks too.
const MANY: usize = 16_000;
/// Looks that one close makes at most.
const ROUNDS: usize = 2;
/// Sockets noted under one hold of the table's lock.
const BATCH: usize = 128;

struct Flight {
    file: KWeak<OpenFile>,
    socket: KWeak<Unix>,
    messages: usize,
    /// Somebody had it in hand since the collector noted it.
    touched: bool,
}

struct Table {
    sockets: OrdMap<u64, Flight>,
    users: OrdMap<Uid, u64>,
}

static TABLE: SpinLock<Table> = SpinLock::new(Table { sockets: OrdMap::new(), users: OrdMap::new() }, &IN_FLIGHT);
/// Sockets in flight, without the lock.
static SOCKETS: AtomicUsize = AtomicUsize::new(0);
static COLLECTING: Mutex<()> = Mutex::new((), &COLLECTOR);
static AGAIN: AtomicBool = AtomicBool::new(false);
/// Closes since the collector last looked.
static CLOSES: AtomicUsize = AtomicUsize::new(0);

/// Files of a message.
pub struct Rights {
    files: KVec<KArc<OpenFile>>,
    uid: Uid,
}

fn unix_of(f: &OpenFile) -> Option<&Unix> {
    socket::of(f).ok()?.as_any().downcast_ref()
}

impl Rights {
    /// Files that go into flight for user `uid`, who may have `limit` of them (None: any number).
    /// ETOOMANYREFS; ENOMEM.
    pub fn new(files: KVec<KArc<OpenFile>>, uid: Uid, limit: Option<u64>) -> Result<Self> {
        if SOCKETS.load(Relaxed) > MANY {
            collect();
        }
        let mut nodes: KVec<_> = KVec::try_with_capacity(files.len())?;
        for _ in files.iter().filter(|f| unix_of(f).is_some()) {
            nodes.try_push(OrdMap::reserve_node()?)?;
        }
        let user = OrdMap::reserve_node()?;
        let n = files.len() as u64;
        let mut table = TABLE.lock();
        let have = table.users.get(&uid).copied().unwrap_or(0);
        if limit.is_some_and(|limit| have > limit) {
            return Err(Errno::ETOOMANYREFS);
        }
        match table.users.get_mut(&uid) {
            Some(have) => *have += n,
            None => {
                table.users.insert_reserved(user, uid, n);
            }
        }
        for f in files.iter() {
            let Some(s) = unix_of(f) else { continue };
            match table.sockets.get_mut(&f.serial()) {
                Some(flight) => {
                    flight.messages += 1;
                    flight.touched = true;
                }
                None => {
                    let flight = Flight { file: KArc::downgrade(f), socket: s.me.clone(), messages: 1, touched: true };
                    if let Some(node) = nodes.pop() {
                        table.sockets.insert_reserved(node, f.serial(), flight);
                    }
                }
            }
        }
        SOCKETS.store(table.sockets.len(), Relaxed);
        drop(table);
        Ok(Self { files, uid })
    }

    pub(super) fn files(&self) -> &[KArc<OpenFile>] {
        &self.files
    }

    /// The files once more, as many as there is room for.
    pub(super) fn copy(&self, into: &mut KVec<KArc<OpenFile>>) {
        for f in self.files.iter() {
            let mut table = TABLE.lock();
            if let Some(flight) = table.sockets.get_mut(&f.serial()) {
                flight.touched = true;
            }
            let _ = into.push_within_capacity(f.clone());
        }
    }

    /// The files, no longer in flight.
    pub(super) fn into_files(mut self) -> KVec<KArc<OpenFile>> {
        self.land();
        core::mem::take(&mut self.files)
    }

    fn land(&self) {
        for f in self.files.iter().filter(|f| unix_of(f).is_some()) {
            let mut table = TABLE.lock();
            let last = table.sockets.get_mut(&f.serial()).is_some_and(|flight| {
                flight.messages -= 1;
                flight.touched = true;
                flight.messages == 0
            });
            let gone = if last { table.sockets.remove_node(&f.serial()) } else { None };
            SOCKETS.store(table.sockets.len(), Relaxed);
            drop(table);
            drop(gone);
        }
        let mut table = TABLE.lock();
        let n = self.files.len() as u64;
        let none = table.users.get_mut(&self.uid).is_some_and(|have| {
            *have = have.saturating_sub(n);
            *have == 0
        });
        let gone = if none { table.users.remove_node(&self.uid) } else { None };
        drop(table);
        drop(gone);
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        if !self.files.is_empty() {
            self.land();
        }
    }
}

/// A socket was closed, and with it all that only its messages held.
pub(super) fn closed() {
    CLOSES.fetch_add(1, Relaxed);
}

/// Ends the sockets that nothing but their own messages hold. Called after sockets were closed,
/// not for each that a message's end closed.
pub(super) fn collect() {
    let sockets = SOCKETS.load(Relaxed);
    let due = AGAIN.load(SeqCst) || CLOSES.load(Relaxed).saturating_mul(LOOKS) >= sockets;
    if sockets == 0 || !due {
        return;
    }
    AGAIN.store(true, SeqCst);
    // However many others close meanwhile: what is still to be looked at then is the next close's.
    for _ in 0..ROUNDS {
        if !AGAIN.load(SeqCst) {
            return;
        }
        // Who is at it looks once more.
        let Some(_one) = COLLECTING.try_lock() else { return };
        AGAIN.store(false, SeqCst);
        CLOSES.store(0, Relaxed);
        // Without memory they stay until a later close.
        let _ = round();
    }
}

/// A socket whose file only messages hold.
struct Candidate {
    serial: u64,
    socket: KArc<Unix>,
}

/// Notes the candidates with the messages that hold them, by their serial numbers.
fn note(sockets: &mut KVec<Candidate>, nodes: &mut KVec<Node>) {
    let mut next = Some(0);
    while let Some(from) = next.take() {
        let mut table = TABLE.lock();
        let mut at = table.sockets.lower_bound(&from).map(|(serial, _)| *serial);
        for _ in 0..BATCH {
            let Some(serial) = at else { return };
            at = serial.checked_add(1).and_then(|n| table.sockets.lower_bound(&n)).map(|(serial, _)| *serial);
            let Some(flight) = table.sockets.get_mut(&serial) else { continue };
            let Some(socket) = flight.socket.upgrade() else { continue };
            if flight.file.strong_count() != flight.messages {
                continue;
            }
            flight.touched = false;
            let noted = nodes.push_within_capacity(Node::new(flight.messages)).is_ok()
                && sockets.push_within_capacity(Candidate { serial, socket }).is_ok();
            if !noted {
                // There are more than a moment ago. What was not noted holds what it leads to.
                AGAIN.store(true, SeqCst);
                return;
            }
        }
        next = at;
    }
}

fn round() -> Result {
    let most = SOCKETS.load(Relaxed) + BATCH;
    let mut sockets: KVec<Candidate> = KVec::try_with_capacity(most)?;
    let mut nodes = KVec::try_with_capacity(most)?;
    note(&mut sockets, &mut nodes);
    garbage::mark(&mut nodes, |i, visit| {
        let Some(c) = sockets.get(i) else { return };
        c.socket.queue.each_file(0, &mut |f| {
            if let Ok(j) = sockets.binary_search_by_key(&f.serial(), |c| c.serial) {
                visit(j);
            }
        });
    })?;
    let found = || sockets.iter().zip(nodes.iter()).filter(|(_, node)| !node.lives()).map(|(c, _)| c);
    {
        let table = TABLE.lock();
        if !found().all(|c| table.sockets.get(&c.serial).is_some_and(|flight| !flight.touched)) {
            AGAIN.store(true, SeqCst);
            return Ok(());
        }
    }
    let mut unread = ArcList::new();
    for c in found() {
        c.socket.queue.clear(&mut unread);
    }
    queue::bury(&mut unread);
    Ok(())
}
