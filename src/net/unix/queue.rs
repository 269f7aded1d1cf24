//! The messages that a socket has not read, and how they end.
//!
//! A message may hold the last handle of a socket whose queue holds messages, and so on: those
//! that carry files or connections are dropped one after the other from a common list, never
//! inside of each other, however long the row is. A close drops so many of them; what is left, or
//! comes from others meanwhile, is the work of a kernel thread.

use super::{Unix, rights};
use crate::{
    Rights,
    options::Budget,
    socket::{Ids, Name},
};
use abi::{Errno, Result};
use collections::{ArcList, Link};
use kalloc::{KArc, KVec};
use sched::{Sleep, WaitQueue};
use sync::{
    LockClass, SpinLock,
    atomic::{
        AtomicBool, AtomicU32, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
    },
};
use vfs::OpenFile;

static QUEUE: LockClass = LockClass::new("unix_queue", 1215);
static RIGHTS: LockClass = LockClass::new("unix_rights", 1216);
static DEAD: LockClass = LockClass::new("unix_dead", 1218);

/// What a message costs beside its bytes.
pub(super) const OVERHEAD: usize = 256;

/// A message.
pub(super) struct Message {
    link: Link,
    pub(super) data: KVec<u8>,
    /// Bytes that were read. One reader at a time writes it.
    pub(super) taken: AtomicUsize,
    pub(super) ids: Option<Ids>,
    pub(super) from: Option<KArc<Name>>,
    /// MSG_EOR.
    pub(super) ends_record: bool,
    pub(super) rights: SpinLock<Option<Rights>>,
    /// A connection that waits to be accepted.
    pub(super) connection: Option<KArc<Unix>>,
    budget: Option<(KArc<Budget>, usize)>,
}

collections::link_field!(pub(super) MessageLink: Message => link);

impl Message {
    /// A message of `data`; the budget was charged for it by who reserved room.
    pub(super) fn try_new(data: KVec<u8>, paid: Paid, ids: Option<Ids>, from: Option<KArc<Name>>, rights: Option<Rights>, ends_record: bool) -> Result<KArc<Self>> {
        Ok(KArc::try_new(Self {
            link: Link::new(),
            data,
            taken: AtomicUsize::new(0),
            ids,
            from,
            ends_record,
            rights: SpinLock::new(rights, &RIGHTS),
            connection: None,
            budget: paid.keep(),
        })?)
    }

    /// What a listener gets of a connection.
    pub(super) fn of_connection(connection: KArc<Unix>) -> Result<KArc<Self>> {
        Ok(KArc::try_new(Self {
            link: Link::new(),
            data: KVec::new(),
            taken: AtomicUsize::new(0),
            ids: None,
            from: None,
            ends_record: false,
            rights: SpinLock::new(None, &RIGHTS),
            connection: Some(connection),
            budget: None,
        })?)
    }

    /// Bytes that were not read.
    pub(super) fn left(&self) -> usize {
        self.data.len().saturating_sub(self.taken.load(Relaxed))
    }
    fn is_heavy(&self) -> bool {
        self.connection.is_some() || self.rights.lock().is_some()
    }
    /// The files in flight, for good.
    pub(super) fn take_files(&self) -> KVec<KArc<OpenFile>> {
        let rights = self.rights.lock().take();
        rights.map_or(KVec::new(), Rights::into_files)
    }
    /// The files in flight once more (MSG_PEEK). ENOMEM.
    pub(super) fn copy_files(&self) -> Result<KVec<KArc<OpenFile>>> {
        let mut copy = KVec::try_with_capacity(crate::SCM_MAX_FD)?;
        if let Some(rights) = &*self.rights.lock() {
            // A message has at most that many.
            rights.copy(&mut copy);
        }
        Ok(copy)
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if let Some((budget, n)) = self.budget.take() {
            budget.uncharge(n);
        }
    }
}

/// Room that a sender has charged to its budget; given back unless a message keeps it.
pub(super) struct Paid(Option<(KArc<Budget>, usize)>);

impl Paid {
    pub(super) fn new(budget: &KArc<Budget>, n: usize) -> Self {
        budget.charge(n);
        Self(Some((budget.clone(), n)))
    }
    fn keep(mut self) -> Option<(KArc<Budget>, usize)> {
        self.0.take()
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        if let Some((budget, n)) = self.0.take() {
            budget.uncharge(n);
        }
    }
}

/// The messages of a socket.
pub(super) struct Queue {
    list: SpinLock<ArcList<MessageLink>>,
    len: AtomicU32,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { list: SpinLock::new(ArcList::new(), &QUEUE), len: AtomicU32::new(0) }
    }

    /// How many there are; without the lock.
    pub(super) fn len(&self) -> u32 {
        self.len.load(Acquire)
    }

    /// Appends a message unless the socket is `dead`, or `admit` refuses it under the lock.
    pub(super) fn push(&self, message: KArc<Message>, dead: &AtomicBool, admit: impl FnOnce() -> Result) -> Result {
        let mut list = self.list.lock();
        if dead.load(Relaxed) {
            return Err(Errno::ECONNREFUSED);
        }
        admit()?;
        // A new message is in no list.
        let _ = list.push_back(message);
        self.len.store(list.len() as u32, Release);
        Ok(())
    }

    /// The first message.
    pub(super) fn first(&self) -> Option<KArc<Message>> {
        self.list.lock().front_arc()
    }

    /// The first message behind `bytes` unread bytes, and where in it that is.
    pub(super) fn at(&self, mut bytes: usize) -> Option<(KArc<Message>, usize)> {
        let list = self.list.lock();
        for m in list.iter_arc() {
            if bytes < m.left() || bytes == 0 {
                return Some((m, bytes));
            }
            bytes -= m.left();
        }
        None
    }

    /// Takes the first message out.
    pub(super) fn pop(&self) -> Option<KArc<Message>> {
        let mut list = self.list.lock();
        let m = list.pop_front();
        self.len.store(list.len() as u32, Release);
        m
    }

    /// Takes a message out that may not be the first.
    pub(super) fn remove(&self, m: &Message) {
        let mut list = self.list.lock();
        let removed = list.remove(m);
        self.len.store(list.len() as u32, Release);
        drop(list);
        drop(removed);
    }

    /// Marks the socket dead and gives its messages up; whether a peer has to know that they were
    /// not read.
    pub(super) fn close(&self, dead: &AtomicBool, into: &mut ArcList<MessageLink>) -> bool {
        let mut list = self.list.lock();
        dead.store(true, Release);
        let any = !list.is_empty();
        into.append(&mut list);
        self.len.store(0, Release);
        any
    }

    /// Gives up all messages.
    pub(super) fn clear(&self, into: &mut ArcList<MessageLink>) {
        let mut list = self.list.lock();
        into.append(&mut list);
        self.len.store(0, Release);
    }

    /// Bytes to be read: of all messages, or of the first.
    pub(super) fn unread(&self, all: bool) -> usize {
        let list = self.list.lock();
        list.iter().take(if all { usize::MAX } else { 1 }).map(Message::left).sum()
    }

    /// Files in flight in all messages.
    pub(super) fn files(&self) -> usize {
        let mut n = 0;
        self.each_file(0, &mut |_| n += 1);
        n
    }

    /// Visits the files in flight, also those to connections that were not accepted.
    pub(super) fn each_file(&self, depth: u8, visit: &mut dyn FnMut(&OpenFile)) {
        let list = self.list.lock_nested(depth);
        for m in &*list {
            if let Some(rights) = &*m.rights.lock() {
                rights.files().iter().for_each(|f| visit(f));
            }
            if let (Some(c), 0) = (&m.connection, depth) {
                c.queue.each_file(1, visit);
            }
        }
    }
}

/// Messages that one close drops.
const SHARE: usize = 1000;

static GRAVE: SpinLock<ArcList<MessageLink>> = SpinLock::new(ArcList::new(), &DEAD);
/// Somebody is dropping them. Written under the lock.
static BURYING: AtomicBool = AtomicBool::new(false);
/// There is a thread that goes on where a close stops.
static HAS_HELPER: AtomicBool = AtomicBool::new(false);
/// It has been asked to, and waits here otherwise.
static HANDED_OVER: AtomicBool = AtomicBool::new(false);
static HELPER: WaitQueue = WaitQueue::new();

/// Starts the thread that drops what closes leave.
pub(super) fn start_helper() -> Result {
    sched::kthread::spawn("unix_close", || {
        loop {
            // Interruptible, so that it does not count as load; it gets no signals.
            let _ = HELPER.wait_until(Sleep::Interruptible, None, || HANDED_OVER.swap(false, SeqCst).then_some(()));
            // Never more at once, so that others run in between.
            while !dig(SHARE) {
                sched::yield_now();
            }
            rights::collect();
        }
    })?;
    HAS_HELPER.store(true, SeqCst);
    Ok(())
}

/// Drops up to `most` messages; whether all are gone, and nobody is at it any more. The caller is
/// the one who is at it.
fn dig(most: usize) -> bool {
    let mut grave = GRAVE.lock();
    for _ in 0..most {
        let Some(m) = grave.pop_front() else {
            BURYING.store(false, SeqCst);
            return true;
        };
        drop(grave);
        if let Some(connection) = &m.connection {
            // The one who connects holds it too, and is to hear that nobody accepts it.
            connection.end(true);
        }
        drop(m);
        grave = GRAVE.lock();
    }
    let done = grave.is_empty();
    if done {
        BURYING.store(false, SeqCst);
    }
    done
}

/// Drops messages, those that may drop others in turn one after the other. Whether all are gone:
/// else somebody is at it, perhaps this task further up, and is told so at his end.
pub(super) fn bury(messages: &mut ArcList<MessageLink>) -> bool {
    let mut heavy = ArcList::new();
    while let Some(m) = messages.pop_front() {
        if m.is_heavy() {
            // It was just taken from a list.
            let _ = heavy.push_back(m);
        }
    }
    if heavy.is_empty() {
        return !BURYING.load(SeqCst);
    }
    let mut grave = GRAVE.lock();
    grave.append(&mut heavy);
    if BURYING.load(SeqCst) {
        return false;
    }
    BURYING.store(true, SeqCst);
    drop(grave);
    loop {
        if dig(SHARE) {
            return true;
        }
        if HAS_HELPER.load(SeqCst) {
            // It collects at its end, too.
            HANDED_OVER.store(true, SeqCst);
            HELPER.wake_one();
            return false;
        }
    }
}
