//! Files in flight (SCM_RIGHTS), and sockets that only messages still hold.
//!
//! A file in flight is held by its message. A socket in flight can so come to be held by its own
//! queue, or two sockets by each other's, and no close would end them. Every socket in flight is
//! therefore known here with how many messages hold it. A socket whose file has no other holders
//! is a candidate; what the queues of candidates hold among themselves does not count; a candidate
//! that something else holds lives, and so does all that its queue holds. The queues of the rest
//! are emptied.
//!
//! The counts are looked at without stopping anybody: who sends has the file in hand before it
//! counts it here, and who receives gives the count up before the file is his, so that the file's
//! own count is never too small. A socket that nobody has in hand cannot start to be received from.
//!
//! A user may have as many files in flight as RLIMIT_NOFILE allows descriptors (`unix(7)`).

use super::{Unix, queue};
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

struct Flight {
    file: KWeak<OpenFile>,
    socket: KWeak<Unix>,
    messages: usize,
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
                Some(flight) => flight.messages += 1,
                None => {
                    let flight = Flight { file: KArc::downgrade(f), socket: s.me.clone(), messages: 1 };
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

/// A socket whose file only messages hold.
struct Candidate {
    serial: u64,
    socket: KArc<Unix>,
    /// Messages outside of the candidates' queues that hold it.
    held: usize,
    lives: bool,
}

/// Ends the sockets that nothing but their own messages hold. Called after a socket was closed:
/// only then can there be new ones.
pub(super) fn collect() {
    if SOCKETS.load(Relaxed) == 0 {
        return;
    }
    AGAIN.store(true, SeqCst);
    while AGAIN.load(SeqCst) {
        // Who is at it looks once more.
        let Some(_one) = COLLECTING.try_lock() else { return };
        AGAIN.store(false, SeqCst);
        // Without memory they stay until the next close.
        let _ = round();
    }
}

fn round() -> Result {
    let mut all: KVec<Candidate> = KVec::try_with_capacity(SOCKETS.load(Relaxed) + 16)?;
    {
        let table = TABLE.lock();
        for (serial, flight) in table.sockets.iter() {
            let Some(socket) = flight.socket.upgrade() else { continue };
            if flight.file.strong_count() != flight.messages {
                continue;
            }
            let candidate = Candidate { serial: *serial, socket, held: flight.messages, lives: false };
            if all.push_within_capacity(candidate).is_err() {
                AGAIN.store(true, SeqCst);
                break;
            }
        }
    }
    let mut order: KVec<usize> = KVec::try_with_capacity(all.len())?;
    let find = |all: &[Candidate], f: &OpenFile| all.binary_search_by_key(&f.serial(), |c| c.serial).ok();
    for i in 0..all.len() {
        let Some(socket) = all.get(i).map(|c| c.socket.clone()) else { break };
        socket.queue.each_file(0, &mut |f| {
            if let Some(c) = find(&all, f).and_then(|j| all.get_mut(j)) {
                c.held = c.held.saturating_sub(1);
            }
        });
    }
    for (i, c) in all.iter_mut().enumerate().filter(|(_, c)| c.held > 0) {
        c.lives = true;
        let _ = order.push_within_capacity(i);
    }
    while let Some(i) = order.pop() {
        let Some(socket) = all.get(i).map(|c| c.socket.clone()) else { break };
        socket.queue.each_file(0, &mut |f| {
            if let Some(j) = find(&all, f)
                && let Some(c) = all.get_mut(j).filter(|c| !c.lives)
            {
                c.lives = true;
                // Each comes here once.
                let _ = order.push_within_capacity(j);
            }
        });
    }
    let mut garbage = ArcList::new();
    for c in all.iter().filter(|c| !c.lives) {
        c.socket.queue.clear(&mut garbage);
    }
    queue::bury(&mut garbage);
    Ok(())
}
