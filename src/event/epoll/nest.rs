//! Epolls that watch epolls: at most [`MAX_NESTING`] in a row, never in a circle, and only so many
//! ways from a file up to the epolls that nobody watches.
//!
//! A wake-up runs through all ways with interrupts off, and a poll with all locks of a row. So the
//! length of a row is bounded, and for each file the number of ways of each length ([`MOST_WAYS`]):
//! the product of what each layer has is what a wake-up costs. Additions that make a row longer or
//! a way more come one at a time ([`Nesting`]).

use super::{Epoll, Item};
use abi::{Errno, Result};
use collections::OrdMap;
use kalloc::{KArc, KWeak};
use sched::{Mutex, MutexGuard};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};
use vfs::OpenFile;

/// How many epolls may stand between a file and the outermost epoll (EP_MAX_NESTS).
pub const MAX_NESTING: u32 = 4;
/// How many ways with so many epolls beyond the first may lead up from a file, as on Linux. Any
/// number of epolls may watch it themselves.
const MOST_WAYS: [u32; LENGTHS] = [u32::MAX, 500, 100, 50, 10];
const LENGTHS: usize = MAX_NESTING as usize + 1;

static NESTING: LockClass = LockClass::new("epoll_nesting", 59);
static PARENTS: LockClass = LockClass::new("epoll_parents", 1061);
static ONE: Mutex<()> = Mutex::new((), &NESTING);
static ROUND: AtomicU64 = AtomicU64::new(0);

type ParentKey = (usize, u32);

/// An epoll's place among those that watch each other.
pub(super) struct Node {
    /// The epolls that watch this one.
    parents: SpinLock<OrdMap<ParentKey, KWeak<Epoll>>>,
    /// In which check it was seen last, and what was found: how deep it is, or how many ways of each
    /// length lead up from it. Only with `ONE` held.
    seen: AtomicU64,
    depth: AtomicU64,
    counted: AtomicU64,
    ways: [AtomicU32; LENGTHS],
}

/// The right to let epolls watch each other.
pub(super) struct Nesting(#[expect(dead_code, reason = "held, not looked at")] MutexGuard<'static, ()>);

pub(super) fn lock() -> Nesting {
    Nesting(ONE.lock())
}

impl Node {
    pub(super) fn new() -> Self {
        Self {
            parents: SpinLock::new(OrdMap::new(), &PARENTS),
            seen: AtomicU64::new(0),
            depth: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            ways: [const { AtomicU32::new(0) }; LENGTHS],
        }
    }

    /// Whether an epoll watches it.
    pub(super) fn is_watched(&self) -> bool {
        !self.parents.lock().is_empty()
    }

    /// ENOMEM.
    pub(super) fn add_parent(&self, key: &ParentKey, parent: &KArc<Epoll>) -> Result {
        let node = OrdMap::reserve_node()?;
        self.parents.lock().insert_reserved(node, *key, KArc::downgrade(parent));
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

fn next_round() -> u64 {
    ROUND.fetch_add(1, Relaxed) + 1
}

/// Whether `outer` may watch `inner`; what the answer rests on does not change before `Nesting` is
/// dropped. ELOOP.
pub(super) fn check_rows(_: &Nesting, outer: &KArc<Epoll>, inner: &KArc<Epoll>) -> Result {
    let down = below(inner, outer, next_round(), 0)?;
    let up = above(outer, next_round(), 0)?;
    if down + up + 1 > MAX_NESTING { Err(Errno::ELOOP) } else { Ok(()) }
}

/// Whether a file that was just added has few enough ways up; of an epoll, the files below it.
/// EINVAL; ENOMEM.
pub(super) fn check_ways(_: &Nesting, target: &KArc<OpenFile>, inner: Option<&KArc<Epoll>>) -> Result {
    let count = next_round();
    match inner {
        Some(inner) => check_files(inner, next_round(), count, 0),
        None => check_file(target, count),
    }
}

/// [`check_file`] for all files below an epoll.
fn check_files(ep: &KArc<Epoll>, round: u64, count: u64, level: u32) -> Result {
    if level > MAX_NESTING || ep.nest.seen.swap(round, Relaxed) == round {
        return Ok(());
    }
    let mut after = None;
    while let Some(item) = ep.next_item(after) {
        after = Some(item.key());
        if let Some(inner) = item.inner() {
            check_files(&inner, round, count, level + 1)?;
        } else if let Some(file) = item.file() {
            check_file(&file, count)?;
        }
    }
    Ok(())
}

fn check_file(file: &KArc<OpenFile>, count: u64) -> Result {
    let mut all = [0; LENGTHS];
    for watcher in file.watchers()?.iter() {
        if let Some(item) = watcher.as_any().downcast_ref::<Item>() {
            let ways = ways_up(item.epoll(), count, 0);
            all.iter_mut().zip(ways).for_each(|(sum, n)| *sum = u32::saturating_add(*sum, n));
        }
    }
    if all.iter().zip(MOST_WAYS).any(|(n, most)| *n > most) { Err(Errno::EINVAL) } else { Ok(()) }
}

/// How many ways with so many more epolls lead up from `ep`; one of length 0 if nobody watches it.
fn ways_up(ep: &KArc<Epoll>, count: u64, level: u32) -> [u32; LENGTHS] {
    let node = &ep.nest;
    if node.counted.load(Relaxed) == count {
        return node.ways.each_ref().map(|n| n.load(Relaxed));
    }
    let mut ways = [0; LENGTHS];
    let (mut after, mut watched) = (None, false);
    while let Some((key, outer)) = node.next_parent(after) {
        after = Some(key);
        // Rows are not longer; only who is at the end of one for the moment could be.
        if level < MAX_NESTING
            && let Some(outer) = outer.upgrade()
        {
            watched = true;
            let further = ways_up(&outer, count, level + 1);
            ways.iter_mut().skip(1).zip(further).for_each(|(sum, n)| *sum = u32::saturating_add(*sum, n));
        }
    }
    if !watched && let Some(itself) = ways.first_mut() {
        *itself = 1;
    }
    node.ways.iter().zip(ways).for_each(|(to, n)| to.store(n, Relaxed));
    node.counted.store(count, Relaxed);
    ways
}
