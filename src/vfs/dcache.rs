//! The dentry cache: from (directory, name) to dentry, without a lock when it is there.
//!
//! A hash table of chains that RCU readers follow; each bucket has a spin lock for changes. A
//! reader that finds nothing asks again under the bucket lock before it believes it: a chain may
//! end early for a reader that stands on an entry that is being removed.
//!
//! Dentries that nobody uses stay until [`shrink`] takes them, least recently used first (second
//! chance: a clock hand goes over the buckets and spares once what was used since it last came
//! by). An entry is in use when anything but its chain counts it: a path, or a child.
//!
//! Dropping an entry against a fast reader that is about to count it: the shrinker marks it
//! `D_DYING`, waits for a grace period, and drops it only if it is still marked and unused. A
//! reader that saw no mark has its count by then; one that sees the mark goes to the bucket lock,
//! where it takes the mark off.

use crate::{
    class,
    dentry::{D_DELETED, D_DYING, D_REFERENCED, D_UNHASHED, Dentry, Name, Place},
};
use abi::Result;
use kalloc::{KArc, KBox, KVec, RcuArc};
use sync::{
    Once, SpinLock,
    atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    rcu,
};

struct Bucket {
    head: RcuArc<Dentry>,
    lock: SpinLock<()>,
}

struct Table {
    buckets: KBox<[Bucket]>,
    mask: u64,
}

/// Buckets when [`init`] was not called: enough for a small system.
const DEFAULT_ORDER: u32 = 11;

static TABLE: Once<Table> = Once::new();
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Above this many entries insertions shrink.
static LIMIT: AtomicUsize = AtomicUsize::new(1 << 16);
static HAND: AtomicUsize = AtomicUsize::new(0);
/// Odd while a rename changes places; a reader of more than one place checks it.
static RENAMES: AtomicU64 = AtomicU64::new(0);
static RENAME_LOCK: SpinLock<()> = SpinLock::new((), &class::RENAME_SEQ);

fn build(order: u32) -> Result<Table> {
    let n = 1usize << order;
    let mut v = KVec::try_with_capacity(n)?;
    for _ in 0..n {
        v.try_push(Bucket { head: RcuArc::new(None), lock: SpinLock::new((), &class::DENTRY) })?;
    }
    Ok(Table { buckets: v.try_into_boxed_slice()?, mask: n as u64 - 1 })
}

/// Makes the table with 2^`order` buckets, sized by the machine's memory; keeps at most `limit`
/// unused and used entries. Without a call the first lookup makes a small one.
pub fn init(order: u32, limit: usize) -> Result {
    LIMIT.store(limit, Relaxed);
    TABLE.try_call_once(|| build(order.clamp(4, 24))).map(|_| ())
}

#[inline]
fn table() -> Option<&'static Table> {
    match TABLE.get() {
        Some(t) => Some(t),
        None => TABLE.try_call_once(|| build(DEFAULT_ORDER)).ok(),
    }
}

#[inline]
fn bucket(tag: u64) -> Option<&'static Bucket> {
    let t = table()?;
    // The multiplication of `hash` leaves its best bits on top.
    t.buckets.get(((tag >> 32 ^ tag) & t.mask) as usize)
}

/// Hash of a name in a directory: eight bytes a step.
#[inline]
pub(crate) fn hash(parent: u64, name: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 / golden ratio (Knuth, vol. 3, 6.4)
    let mut h = parent.wrapping_mul(K) ^ name.len() as u64;
    let (words, rest) = name.as_chunks::<8>();
    for w in words {
        h = (h ^ u64::from_le_bytes(*w)).wrapping_mul(K);
        h ^= h >> 29;
    }
    let mut last = 0u64;
    for &b in rest {
        last = last << 8 | u64::from(b);
    }
    h = (h ^ last).wrapping_mul(K);
    h ^ h >> 32
}

#[inline]
fn is(d: &Dentry, g: &rcu::ReadGuard, tag: u64, parent: u64, name: &[u8]) -> bool {
    d.tag.load(Relaxed) == tag
        && d.place.load(g).is_some_and(|p| {
            p.name.as_bytes() == name && p.parent.as_deref().is_some_and(|x| x.id == parent)
        })
}

/// The dentry of `name` in `parent` if the cache has it, without counting it. Renames are not
/// excluded: the caller checks [`rename_seq`] afterwards.
#[inline]
pub(crate) fn lookup_rcu<'g>(g: &'g rcu::ReadGuard, parent: &Dentry, name: &[u8]) -> Option<&'g Dentry> {
    let tag = hash(parent.id, name);
    let mut at = bucket(tag)?.head.load(g);
    while let Some(d) = at {
        if is(d, g, tag, parent.id, name) {
            return if d.has(D_DYING | D_UNHASHED) { None } else { Some(d) };
        }
        at = d.next.load(g);
    }
    None
}

/// The dentry of `name` in `parent` if the cache has it.
pub(crate) fn lookup(parent: &Dentry, name: &[u8]) -> Option<KArc<Dentry>> {
    {
        let g = rcu::read_lock();
        if let Some(d) = lookup_rcu(&g, parent, name).and_then(Dentry::handle) {
            d.mark_used();
            return Some(d);
        }
    }
    let tag = hash(parent.id, name);
    let b = bucket(tag)?;
    let _lock = b.lock.lock();
    find_locked(b, tag, parent.id, name)
}

fn find_locked(b: &Bucket, tag: u64, parent: u64, name: &[u8]) -> Option<KArc<Dentry>> {
    let g = rcu::read_lock();
    let mut at = b.head.load(&g);
    while let Some(d) = at {
        if is(d, &g, tag, parent, name) {
            d.clear(D_DYING);
            d.mark_used();
            return d.handle();
        }
        at = d.next.load(&g);
    }
    None
}

/// Puts `d` into the cache, unless another thread was first: then returns that one.
pub(crate) fn add(d: KArc<Dentry>, parent: &Dentry, name: &[u8]) -> KArc<Dentry> {
    let tag = d.tag.load(Relaxed);
    let Some(b) = bucket(tag) else { return d };
    {
        let _lock = b.lock.lock();
        if let Some(first) = find_locked(b, tag, parent.id, name) {
            return first;
        }
        insert_locked(b, &d);
    }
    let n = COUNT.fetch_add(1, Relaxed);
    if n > LIMIT.load(Relaxed) && n.is_multiple_of(64) {
        shrink(128);
    }
    d
}

fn insert_locked(b: &Bucket, d: &KArc<Dentry>) {
    d.clear(D_UNHASHED | D_DYING);
    d.set(D_REFERENCED);
    d.next.store(b.head.get());
    b.head.store(Some(d.clone()));
}

/// Takes `d` out of bucket `b`, whose lock is held.
fn remove_locked(b: &Bucket, d: &Dentry) -> bool {
    let g = rcu::read_lock();
    let mut slot = &b.head;
    while let Some(at) = slot.load(&g) {
        if at.id == d.id {
            slot.store(d.next.get());
            // A reader that stands here sees the chain end and asks under the lock. Keeping the
            // pointer would keep the successor in use for as long as somebody uses `d`.
            d.next.store(None);
            d.set(D_UNHASHED);
            return true;
        }
        slot = &at.next;
    }
    false
}

/// Takes a dentry out of the cache; later lookups ask the file system.
pub(crate) fn unhash(d: &Dentry) {
    if d.has(D_UNHASHED) {
        return;
    }
    let Some(b) = bucket(d.tag.load(Relaxed)) else { return };
    let _lock = b.lock.lock();
    if remove_locked(b, d) {
        COUNT.fetch_sub(1, Relaxed);
    }
}

/// The file of `d` was removed. The directory's lock is held for writing.
pub(crate) fn deleted(d: &Dentry) {
    d.set(D_DELETED);
    unhash(d);
}

/// Reads that span several places: the number to compare afterwards, or None while a rename is
/// on its way.
#[inline]
pub(crate) fn rename_seq() -> Option<u64> {
    // Acquire pairs with the release in `relocate`.
    let s = RENAMES.load(Acquire);
    (s & 1 == 0).then_some(s)
}

/// Whether no rename happened since [`rename_seq`] gave `seq`.
#[inline]
pub(crate) fn rename_unchanged(seq: u64) -> bool {
    sync::atomic::fence(Acquire);
    RENAMES.load(Relaxed) == seq
}

/// Moves `d` to `name` under `parent`; `target`, if any, is what was there and is removed, or
/// with `exchange` moves to where `d` was. The directories' locks are held. What can fail is
/// allocated before anything moves.
pub(crate) fn relocate(
    d: &KArc<Dentry>,
    parent: &KArc<Dentry>,
    name: &[u8],
    target: Option<&KArc<Dentry>>,
    prepared: Relocation,
    exchange: bool,
) {
    let to_tag = hash(parent.id, name);
    let from_tag = d.tag.load(Relaxed);
    let was_hashed = !d.has(D_UNHASHED);
    let target_hashed = target.is_some_and(|t| !t.has(D_UNHASHED));
    let _one = RENAME_LOCK.lock();
    RENAMES.fetch_add(1, Relaxed);
    sync::atomic::fence(Release);
    take_out(d);
    if let Some(t) = target {
        take_out(t);
        match (exchange, prepared.theirs) {
            (true, Some(place)) => {
                t.place.store(Some(place));
                t.tag.store(from_tag, Relaxed);
                if target_hashed {
                    put_in(t);
                }
            }
            _ => t.set(if t.inode().is_some() { D_DELETED } else { 0 }),
        }
    }
    d.place.store(Some(prepared.ours));
    d.tag.store(to_tag, Relaxed);
    if was_hashed {
        put_in(d);
    }
    RENAMES.fetch_add(1, Release);
}

fn take_out(d: &Dentry) {
    if let Some(b) = bucket(d.tag.load(Relaxed)) {
        let _lock = b.lock.lock();
        if remove_locked(b, d) {
            COUNT.fetch_sub(1, Relaxed);
        }
    }
}

fn put_in(d: &KArc<Dentry>) {
    if let Some(b) = bucket(d.tag.load(Relaxed)) {
        let _lock = b.lock.lock();
        insert_locked(b, d);
        COUNT.fetch_add(1, Relaxed);
    }
}

/// The places of a rename, allocated before it begins.
pub(crate) struct Relocation {
    ours: KArc<Place>,
    theirs: Option<KArc<Place>>,
}

impl Relocation {
    /// For a move of something to `new_name` in `new_dir`, and with `back` of what is there to
    /// that name and directory.
    pub(crate) fn prepare(
        new_dir: &KArc<Dentry>,
        new_name: &[u8],
        back: Option<(&KArc<Dentry>, &[u8])>,
    ) -> Result<Self> {
        let place = |dir: &KArc<Dentry>, name: &[u8]| -> Result<KArc<Place>> {
            Ok(KArc::try_new(Place { parent: Some(dir.clone()), name: Name::new(name)? })?)
        };
        Ok(Self {
            ours: place(new_dir, new_name)?,
            theirs: match back {
                Some((dir, name)) => Some(place(dir, name)?),
                None => None,
            },
        })
    }
}

/// Drops up to `want` unused entries; returns how many went. May sleep (waits for a grace
/// period); not to be called with a spin lock held.
pub fn shrink(want: usize) -> usize {
    const BATCH: usize = 64;
    let Some(t) = table() else { return 0 };
    let mut freed = 0;
    // Two rounds at most: the first may only take "used" marks off.
    let mut steps = t.buckets.len().saturating_mul(2);
    while freed < want && steps > 0 {
        let Ok(mut picked) = KVec::<KArc<Dentry>>::try_with_capacity(BATCH) else { break };
        while picked.len() < BATCH.min(want - freed) && steps > 0 {
            steps -= 1;
            let i = HAND.fetch_add(1, Relaxed) & t.mask as usize;
            let Some(b) = t.buckets.get(i) else { break };
            let _lock = b.lock.lock();
            let g = rcu::read_lock();
            let mut at = b.head.load(&g);
            while let Some(d) = at {
                if let Some(h) = d.handle() {
                    // The chain's count and `h`.
                    if KArc::strong_count(&h) == 2 {
                        if d.has(D_REFERENCED) {
                            d.clear(D_REFERENCED);
                        } else if picked.len() < picked.capacity() {
                            d.set(D_DYING);
                            let _ = picked.push_within_capacity(h);
                        }
                    }
                }
                at = d.next.load(&g);
            }
        }
        if picked.is_empty() {
            continue;
        }
        rcu::synchronize();
        for d in &picked {
            let Some(b) = bucket(d.tag.load(Relaxed)) else { continue };
            let _lock = b.lock.lock();
            if d.has(D_DYING) && KArc::strong_count(d) == 2 && remove_locked(b, d) {
                COUNT.fetch_sub(1, Relaxed);
                freed += 1;
            } else {
                d.clear(D_DYING);
            }
        }
    }
    freed
}

/// Takes every entry of a file system out: its last mount is gone.
pub(crate) fn forget_super(sb: u64) {
    let Some(t) = table() else { return };
    for b in t.buckets.iter() {
        let _lock = b.lock.lock();
        loop {
            let victim = {
                let g = rcu::read_lock();
                let mut at = b.head.load(&g);
                while at.is_some_and(|d| d.sb != sb) {
                    at = at.and_then(|d| d.next.load(&g));
                }
                at.and_then(Dentry::handle)
            };
            let Some(d) = victim else { break };
            if !remove_locked(b, &d) {
                break;
            }
            COUNT.fetch_sub(1, Relaxed);
        }
    }
}

/// Entries in the cache (/proc/sys/fs/dentry-state).
pub fn count() -> usize {
    COUNT.load(Relaxed)
}
