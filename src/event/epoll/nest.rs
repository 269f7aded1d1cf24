//! Epolls that watch epolls: at most [`MAX_NESTING`] in a row, never in a circle.
//!
//! A wake-up runs through all of a row with interrupts off, and a poll with all their locks, so the
//! length is bounded. Additions of an epoll to an epoll come one at a time; nothing else can make
//! a row longer.

use super::Epoll;
use abi::{Errno, Result};
use collections::OrdMap;
use kalloc::{KArc, KWeak};
use sched::{Mutex, MutexGuard};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// How many epolls may stand between a file and the outermost epoll (EP_MAX_NESTS).
pub const MAX_NESTING: u32 = 4;
/// How many epolls may watch one epoll: a wake-up goes to all of them.
const MAX_PARENTS: usize = 500;

static NESTING: LockClass = LockClass::new("epoll_nesting", 59);
static PARENTS: LockClass = LockClass::new("epoll_parents", 1061);
static ONE: Mutex<()> = Mutex::new((), &NESTING);
static ROUND: AtomicU64 = AtomicU64::new(0);

type ParentKey = (usize, u32);

/// An epoll's place among those that watch each other.
pub(super) struct Node {
    /// The epolls that watch this one.
    parents: SpinLock<OrdMap<ParentKey, KWeak<Epoll>>>,
    /// In which check it was seen last, and how deep it was found to be. Only with `ONE` held.
    seen: AtomicU64,
    depth: AtomicU64,
}

impl Node {
    pub(super) fn new() -> Self {
        Self { parents: SpinLock::new(OrdMap::new(), &PARENTS), seen: AtomicU64::new(0), depth: AtomicU64::new(0) }
    }

    /// EINVAL when too many watch it; ENOMEM.
    pub(super) fn add_parent(&self, key: &ParentKey, parent: &KArc<Epoll>) -> Result {
        let node = OrdMap::reserve_node()?;
        let mut parents = self.parents.lock();
        if parents.len() >= MAX_PARENTS {
            return Err(Errno::EINVAL);
        }
        parents.insert_reserved(node, *key, KArc::downgrade(parent));
        Ok(())
    }

    pub(super) fn remove_parent(&self, key: &ParentKey) {
        let node = self.parents.lock().remove_node(key);
        drop(node);
    }

    fn next_parent(&self, after: Option<ParentKey>) -> Option<(ParentKey, KWeak<Epoll>)> {
        let parents = self.parents.lock();
        let found = match after {
            None => parents.first(),
            Some((at, fd)) => {
                let next = fd.checked_add(1).map_or((at.checked_add(1)?, 0), |fd| (at, fd));
                parents.lower_bound(&next)
            }
        };
        found.map(|(k, v)| (*k, v.clone()))
    }
}

impl Epoll {
    fn next_nested(&self, after: Option<super::Key>) -> Option<(super::Key, KWeak<Epoll>)> {
        let items = self.items.lock();
        let found = match after {
            None => items.nested.first(),
            Some(key) => items.nested.lower_bound(&key.next()?),
        };
        found.map(|(k, v)| (*k, v.clone()))
    }
}

/// Epolls below `ep` in the longest row. ELOOP when `outer` is one of them or the row is too long.
fn below(ep: &KArc<Epoll>, outer: &KArc<Epoll>, round: u64, level: u32) -> Result<u32> {
    if KArc::ptr_eq(ep, outer) || level > MAX_NESTING {
        return Err(Errno::ELOOP);
    }
    if ep.nest.seen.load(Relaxed) == round {
        return Ok(ep.nest.depth.load(Relaxed) as u32);
    }
    let (mut after, mut deepest) = (None, 0);
    while let Some((key, inner)) = ep.next_nested(after) {
        after = Some(key);
        if let Some(inner) = inner.upgrade() {
            deepest = deepest.max(below(&inner, outer, round, level + 1)? + 1);
        }
    }
    ep.nest.depth.store(deepest.into(), Relaxed);
    ep.nest.seen.store(round, Relaxed);
    Ok(deepest)
}

/// Epolls above `ep` in the longest row. ELOOP when it is too long.
fn above(ep: &KArc<Epoll>, round: u64, level: u32) -> Result<u32> {
    if level > MAX_NESTING {
        return Err(Errno::ELOOP);
    }
    if ep.nest.seen.load(Relaxed) == round {
        return Ok(ep.nest.depth.load(Relaxed) as u32);
    }
    let (mut after, mut highest) = (None, 0);
    while let Some((key, outer)) = ep.nest.next_parent(after) {
        after = Some(key);
        if let Some(outer) = outer.upgrade() {
            highest = highest.max(above(&outer, round, level + 1)? + 1);
        }
    }
    ep.nest.depth.store(highest.into(), Relaxed);
    ep.nest.seen.store(round, Relaxed);
    Ok(highest)
}

/// Whether `outer` may watch `inner`; what the answer rests on does not change before the result
/// is dropped. ELOOP.
pub(super) fn check(outer: &KArc<Epoll>, inner: &KArc<Epoll>) -> Result<MutexGuard<'static, ()>> {
    let one = ONE.lock();
    let down = below(inner, outer, ROUND.fetch_add(1, Relaxed) + 1, 0)?;
    let up = above(outer, ROUND.fetch_add(1, Relaxed) + 1, 0)?;
    if down + up + 1 > MAX_NESTING { Err(Errno::ELOOP) } else { Ok(one) }
}
