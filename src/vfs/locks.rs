//! Locks that programs put on files: `flock(2)`, and record locks of `fcntl(2)` (those of a
//! process, and those of an open file).
//!
//! Not there: mandatory locks (as in Linux since 5.15), leases, and the search for deadlocks
//! (EDEADLK): two processes that wait for each other wait until a signal comes.

use crate::{Inode, OpenFile, class};
use abi::{Errno, Result};
use kalloc::{KBox, KVec};
use sched::{Outcome, Sleep, WaitQueue};
use sync::{
    Once, SpinLock,
    atomic::Ordering::Relaxed,
};

/// Marks in [`OpenFile::lock_marks`]: there may be something to remove.
const BY_FILE: u32 = 1;
const BY_PROCESS: u32 = 2;

/// Who holds a record lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockOwner {
    /// A process (its descriptor table's identity), with the pid that F_GETLK shows.
    Process {
        /// Identity.
        id: u64,
        /// Process number.
        pid: i32,
    },
    /// An open file (F_OFD_SETLK).
    File(u64),
}

impl LockOwner {
    /// The owner for F_OFD_* commands.
    pub fn of_file(f: &OpenFile) -> Self {
        Self::File(f.serial)
    }
    fn same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Process { id: a, .. }, Self::Process { id: b, .. }) => a == b,
            (Self::File(a), Self::File(b)) => a == b,
            _ => false,
        }
    }
}

/// A record lock: bytes `start` to `end`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordLock {
    /// Who holds it.
    pub owner: LockOwner,
    /// First byte.
    pub start: u64,
    /// Last byte; `u64::MAX`: to the end, however far it moves.
    pub end: u64,
    /// Exclusive.
    pub write: bool,
}

impl RecordLock {
    fn meets(&self, start: u64, end: u64) -> bool {
        self.start <= end && start <= self.end
    }
    fn conflicts(&self, other: &Self) -> bool {
        self.meets(other.start, other.end) && (self.write || other.write) && !self.owner.same(other.owner)
    }
}

#[derive(Default)]
struct Held {
    records: KVec<RecordLock>,
    /// flock: serial of the open file, exclusive.
    flocks: KVec<(u64, bool)>,
}

struct State {
    held: SpinLock<Held>,
    queue: WaitQueue,
}

/// The locks of an inode; made on first use.
pub(crate) struct LockSlot(Once<KBox<State>>);

impl LockSlot {
    pub(crate) const fn new() -> Self {
        Self(Once::new())
    }
}

fn state(inode: &Inode) -> Result<&State> {
    inode
        .locks
        .0
        .try_call_once(|| {
            let held = SpinLock::new(Held::default(), &class::FILE_LOCKS);
            KBox::try_new(State { held, queue: WaitQueue::new() })
        })
        .map(|b| &**b)
        .map_err(Errno::from)
}

/// What `flock(2)` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flock {
    /// LOCK_SH
    Shared,
    /// LOCK_EX
    Exclusive,
    /// LOCK_UN
    Unlock,
}

/// `flock(2)`. EWOULDBLOCK, ERESTARTSYS, ENOLCK (no memory).
pub fn flock(f: &OpenFile, how: Flock, wait: bool) -> Result {
    let s = state(&f.inode)?;
    if how == Flock::Unlock {
        s.held.lock().flocks.retain(|(o, _)| *o != f.serial);
        s.queue.wake_all();
        return Ok(());
    }
    f.lock_marks.fetch_or(BY_FILE, Relaxed);
    let exclusive = how == Flock::Exclusive;
    // A conversion gives the old lock up first (flock(2)).
    {
        let mut h = s.held.lock();
        if h.flocks.iter().any(|&(o, e)| o == f.serial && e == exclusive) {
            return Ok(());
        }
        h.flocks.retain(|(o, _)| *o != f.serial);
    }
    s.queue.wake_all();
    let mut attempt = || {
        let mut h = s.held.lock();
        if h.flocks.iter().any(|&(o, e)| o != f.serial && (e || exclusive)) {
            return None;
        }
        Some(h.flocks.try_push((f.serial, exclusive)).map_err(|_| Errno::ENOLCK))
    };
    wait_for(s, wait, Errno::EWOULDBLOCK, &mut attempt)
}

fn wait_for(s: &State, wait: bool, busy: Errno, attempt: &mut dyn FnMut() -> Option<Result>) -> Result {
    if !wait {
        return attempt().unwrap_or(Err(busy));
    }
    match s.queue.wait_until(Sleep::Interruptible, None, attempt) {
        Outcome::Ready(r) => r,
        _ => Err(Errno::ERESTARTSYS),
    }
}

/// F_GETLK: the lock that would be in the way, if any.
pub fn get_record(f: &OpenFile, want: &RecordLock) -> Result<Option<RecordLock>> {
    let h = state(&f.inode)?.held.lock();
    Ok(h.records.iter().filter(|r| r.conflicts(want)).min_by_key(|r| r.start).copied())
}

/// F_SETLK and F_SETLKW: locks, or with `unlock` frees, a range. EAGAIN, ERESTARTSYS, ENOLCK (no
/// memory), EBADF when the file is not open for the kind of access.
pub fn set_record(f: &OpenFile, want: &RecordLock, unlock: bool, wait: bool) -> Result {
    if !unlock && !(if want.write { f.may_write() } else { f.may_read() }) {
        return Err(Errno::EBADF);
    }
    let s = state(&f.inode)?;
    let mark = if matches!(want.owner, LockOwner::File(_)) { BY_FILE } else { BY_PROCESS };
    f.lock_marks.fetch_or(mark, Relaxed);
    let mut attempt = || {
        let mut h = s.held.lock();
        if !unlock && h.records.iter().any(|r| r.conflicts(want)) {
            return None;
        }
        Some(replace(&mut h.records, want, unlock).map_err(|_| Errno::ENOLCK))
    };
    let done = wait_for(s, wait, Errno::EAGAIN, &mut attempt);
    // A range that was freed or made shared may let others in.
    s.queue.wake_all();
    done
}

/// Cuts the owner's locks out of the range and puts the new one in, joined with neighbours of the
/// same kind. Nothing changes when memory is missing.
fn replace(records: &mut KVec<RecordLock>, want: &RecordLock, unlock: bool) -> core::result::Result<(), kalloc::AllocError> {
    let mut next: KVec<RecordLock> = KVec::try_with_capacity(records.len() + 2)?;
    let mut new = *want;
    for r in records.iter() {
        if !r.owner.same(want.owner) {
            next.try_push(*r)?;
            continue;
        }
        let touches = r.start <= want.end.saturating_add(1) && want.start <= r.end.saturating_add(1);
        if !unlock && r.write == want.write && touches {
            new.start = new.start.min(r.start);
            new.end = new.end.max(r.end);
            continue;
        }
        if !r.meets(want.start, want.end) {
            next.try_push(*r)?;
            continue;
        }
        if r.start < want.start {
            next.try_push(RecordLock { end: want.start - 1, ..*r })?;
        }
        if r.end > want.end {
            next.try_push(RecordLock { start: want.end + 1, ..*r })?;
        }
    }
    if !unlock {
        next.try_push(new)?;
    }
    *records = next;
    Ok(())
}

/// A process closes a descriptor of `f`: all its record locks on the file go (fcntl(2)).
pub(crate) fn closed(f: &OpenFile, locker: u64) {
    let Some(s) = f.inode.locks.0.get() else { return };
    let mine = |r: &RecordLock| matches!(r.owner, LockOwner::Process { id, .. } if id == locker);
    let mut h = s.held.lock();
    let before = h.records.len();
    h.records.retain(|r| !mine(r));
    let changed = h.records.len() != before;
    drop(h);
    if changed {
        s.queue.wake_all();
    }
}

/// The open file goes: its flock and OFD locks too.
pub(crate) fn released(f: &OpenFile) {
    if f.lock_marks.load(Relaxed) & BY_FILE == 0 {
        return;
    }
    if let Some(s) = f.inode.locks.0.get() {
        let mut h = s.held.lock();
        h.flocks.retain(|(o, _)| *o != f.serial);
        h.records.retain(|r| r.owner != LockOwner::File(f.serial));
        drop(h);
        s.queue.wake_all();
    }
}
