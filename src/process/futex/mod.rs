//! Futexes: sleeping on a word of user memory (`futex(2)`, `futex(7)`).
//!
//! A waiter checks the word with its bucket locked and stands in the bucket before the lock is
//! released; a waker changes the word first (in user space) and then takes the bucket's lock. So
//! either the waiter sees the new value, or the waker sees the waiter.
//!
//! The word is read with the lock held, so without page faults: a word that is not resident is
//! faulted in with the lock released, and the check starts anew.
//!
//! - this file: keys, buckets, who waits in them, waking;
//! - [`wait`]: waiting on one word or on several; [`requeue`]: moving waiters to another word;
//!   [`wake_op`]: changing a word and waking on two;
//! - [`pi`]: locks whose owner runs with the priority of those that wait ([`graph`]: who waits for
//!   whom), [`requeue_pi`]: condition variables for them;
//! - [`robust`]: what the end of a thread does for the locks that it holds.
//!
//! Lock order: bucket (two buckets by index), the graph of owners, cells of its nodes; no user
//! memory that is not resident.

mod graph;
mod pi;
mod requeue;
mod requeue_pi;
mod robust;
mod wait;
mod wake_op;

pub(crate) use graph::Node;
pub(crate) use pi::{exit_locks, exec_begins};
pub use pi::{lock, priority_changed, unlock};
pub use requeue::requeue;
pub use requeue_pi::{requeue_pi, wait_requeue_pi};
pub(crate) use robust::exit_robust_list;
pub use wait::{Want, wait, wait_many};
pub use wake_op::wake_op;

use crate::{
    deadline::{Deadline, Watch},
    task::Task,
};
use abi::{Errno, Result, UserAddr};
use arch::user::UserPtr;
use collections::{ArcList, Choice, Link};
use kalloc::{KArc, karc_as};
use mm::Prot;
use sched::{Outcome, Sleep, WaitQueue, Wake, WakeCallback};
use sync::{
    LockClass, SpinLock, SpinGuard,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

static BUCKET: LockClass = LockClass::new("process.futex", 1050);

const BUCKETS: usize = 256;

/// What identifies a futex: programs that reach the same word through the same key meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    /// Serial number of the address space, or of the object that is mapped shared: no other one
    /// ever has it, so a waiter need not keep what it waits in.
    object: u64,
    /// Address in the space, or offset in the object. Bit 0 is set for a word of private memory
    /// that was named without FUTEX_PRIVATE_FLAG: it is another futex than with it.
    offset: u64,
}

/// What a waiter stands in a bucket for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
enum Kind {
    /// A wake-up.
    Plain,
    /// To be moved to a lock by FUTEX_CMP_REQUEUE_PI.
    RequeuePi,
    /// A lock.
    Pi,
}

/// What came of a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
enum Fate {
    /// Nothing yet.
    Waits,
    /// Woken, or owner of the lock, whose word says so. No longer in a bucket.
    Woken,
    /// Owner of a lock whose last owner is gone. Still in the bucket: it has to write the word.
    Inherits,
}

struct Waiter {
    link: Link,
    /// The bucket in which it stands, or stood last. Changed with the old and the new one locked,
    /// so it is stable for who has locked the bucket that it names.
    bucket: AtomicU32,
    /// The two halves of its key, changed with `bucket`. They can be read apart from each other:
    /// only who has locked the waiter's bucket looks at them.
    object: AtomicU64,
    offset: AtomicU64,
    mask: u32,
    /// Its real-time priority when it came; a bucket is sorted by it.
    priority: u8,
    kind: AtomicU32,
    fate: AtomicU32,
    queue: WaitQueue,
    /// Where the thread waits instead, when it waits on several words.
    group: Option<KArc<Group>>,
    /// For waiters that are not plain.
    lock: SpinLock<LockPart>,
}

/// The part of a waiter that wants a lock.
#[derive(Default)]
struct LockPart {
    /// The thread, as the graph of owners knows it.
    node: Option<KArc<Node>>,
    /// The lock that it waits for ([`Kind::Pi`]).
    state: Option<KArc<graph::State>>,
    /// The lock that it may be moved to ([`Kind::RequeuePi`]).
    target: Option<Key>,
}

static LOCK_PART: LockClass = LockClass::new("process.futex_waiter", 1055);

/// A thread that waits on several words.
struct Group {
    queue: WaitQueue,
}

impl WakeCallback for Group {
    fn woken(&self, _: Wake) -> bool {
        self.queue.wake_all();
        true
    }
}

impl WakeCallback for Waiter {
    fn woken(&self, _: Wake) -> bool {
        self.queue.wake_all();
        true
    }
}

collections::link_field!(WaiterLink: Waiter => link);

type List = ArcList<WaiterLink>;

struct Bucket(SpinLock<List>);

static TABLE: [Bucket; BUCKETS] = [const { Bucket(SpinLock::new(ArcList::new(), &BUCKET)) }; BUCKETS];

impl Key {
    fn bucket(&self) -> usize {
        // Fibonacci hashing: the top bits of a product with 2^64 / phi.
        let h = (self.object ^ self.offset.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (h >> 56) as usize
    }
}

fn bucket(i: usize) -> Result<&'static Bucket> {
    TABLE.get(i).ok_or(Errno::EINVAL)
}

/// What a call does with the word, which its mapping must allow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// The key of a word. EINVAL when it is not aligned, EFAULT when it is not mapped.
fn key_of(task: &Task, addr: UserAddr, shared: bool, access: Access) -> Result<Key> {
    if !addr.is_aligned(4) {
        return Err(Errno::EINVAL);
    }
    if !addr.range_ok(4) {
        return Err(Errno::EFAULT);
    }
    let mm = task.mm().ok_or(Errno::EFAULT)?;
    let space = mm.serial();
    if !shared {
        return Ok(Key { object: space, offset: addr.0 });
    }
    let area = mm.next_area(addr).filter(|a| a.start <= addr.0).ok_or(Errno::EFAULT)?;
    let needs = if access == Access::Write { Prot::W } else { Prot::R };
    if !area.prot.intersects(needs | Prot::W) {
        return Err(Errno::EFAULT);
    }
    if area.shared()
        && let Some(file) = area.file()
    {
        // The page cache is what all mappings of an object have in common.
        let object = file.cache().serial();
        let offset = (area.index_of(addr.0) << abi::PAGE_SHIFT) + addr.page_offset() as u64;
        return Ok(Key { object, offset });
    }
    Ok(Key { object: space, offset: addr.0 | 1 })
}

/// Reads the word without page faults while a spin lock is held; `None` when it is not resident.
fn peek(addr: UserAddr) -> Option<u32> {
    arch::user::load_u32(addr)
}

/// Makes the word resident and writable, with no lock held. EFAULT.
fn fault_in_writable(addr: UserAddr) -> Result {
    let word = UserPtr::<u32>::new(addr).read()?;
    // Replacing a value by itself is a store to the page tables.
    arch::user::compare_exchange_u32(addr, word, word).map(|_| ()).ok_or(Errno::EFAULT)
}

impl Waiter {
    fn try_new(key: Key, mask: u32, kind: Kind) -> Result<KArc<Self>> {
        Self::build(key, mask, kind, None, LockPart::default())
    }

    fn build(key: Key, mask: u32, kind: Kind, group: Option<KArc<Group>>, lock: LockPart) -> Result<KArc<Self>> {
        Ok(KArc::try_new(Self {
            link: Link::new(),
            bucket: AtomicU32::new(key.bucket() as u32),
            object: AtomicU64::new(key.object),
            offset: AtomicU64::new(key.offset),
            mask,
            priority: sched::current().rt_priority(),
            kind: AtomicU32::new(kind as u32),
            fate: AtomicU32::new(Fate::Waits as u32),
            queue: WaitQueue::new(),
            group,
            lock: SpinLock::new(lock, &LOCK_PART),
        })?)
    }

    /// Whether it waits at the key. The bucket in which it stands is locked.
    fn is_at(&self, key: Key) -> bool {
        self.object.load(Ordering::Relaxed) == key.object && self.offset.load(Ordering::Relaxed) == key.offset
    }
    fn is(&self, kind: Kind) -> bool {
        self.kind.load(Ordering::Relaxed) == kind as u32
    }
    fn has(&self, fate: Fate) -> bool {
        self.fate.load(Ordering::Acquire) == fate as u32
    }

    /// Ends its wait.
    fn finish(&self, fate: Fate) {
        self.fate.store(fate as u32, Ordering::Release);
        self.group.as_ref().map_or(&self.queue, |g| &g.queue).wake_all();
    }

    /// Sleeps until the waiter has a fate.
    fn sleep(&self, watch: &Watch, deadline: Option<Deadline>) -> Outcome<()> {
        watch.wait(&self.queue, Sleep::Interruptible, deadline, || (!self.has(Fate::Waits)).then_some(()))
    }
}

/// What the wait needs to hear of its clock; before the waiter stands in a bucket. ENOMEM.
fn watch(waiter: &KArc<Waiter>, deadline: Option<Deadline>) -> Result<Watch> {
    Deadline::watch(deadline, || karc_as!(waiter.clone() => dyn WakeCallback))
}

/// Puts a waiter behind those of its priority and above.
fn insert(list: &mut List, waiter: KArc<Waiter>) {
    let priority = waiter.priority;
    // A new waiter is on no list, and one that moves was taken off.
    let _ = if priority == 0 { list.push_back(waiter) } else { list.insert_before(waiter, |w| w.priority < priority) };
}

/// The locked bucket in which the waiter stands, or stood last.
fn bucket_of(waiter: &Waiter) -> Result<SpinGuard<'static, List>> {
    loop {
        let at = waiter.bucket.load(Ordering::Relaxed);
        let list = bucket(at as usize)?.0.lock();
        // A requeue may have moved it between the two steps. From here on none can.
        if waiter.bucket.load(Ordering::Relaxed) == at {
            return Ok(list);
        }
    }
}

/// Two locked buckets, which may be one.
struct Pair {
    low: SpinGuard<'static, List>,
    high: Option<SpinGuard<'static, List>>,
    /// The source is the one with the higher index.
    swapped: bool,
}

impl Pair {
    /// Locks the buckets of both keys, in the order of their index.
    fn lock(source: Key, target: Key) -> Result<Self> {
        let (i, j) = (source.bucket(), target.bucket());
        let low = bucket(i.min(j))?.0.lock();
        let high = if i == j { None } else { Some(bucket(i.max(j))?.0.lock_nested(1)) };
        Ok(Self { low, high, swapped: i > j })
    }
    fn source(&mut self) -> &mut List {
        match &mut self.high {
            Some(high) if self.swapped => high,
            _ => &mut self.low,
        }
    }
    fn target(&mut self) -> &mut List {
        match &mut self.high {
            Some(high) if !self.swapped => high,
            _ => &mut self.low,
        }
    }
    /// Puts a waiter that was taken out of the source into the target.
    fn arrive(&mut self, waiter: KArc<Waiter>, to: Key) {
        waiter.object.store(to.object, Ordering::Relaxed);
        waiter.offset.store(to.offset, Ordering::Relaxed);
        waiter.bucket.store(to.bucket() as u32, Ordering::Relaxed);
        insert(self.target(), waiter);
    }
}

/// Wakes up to `n` of those who wait at `key` for something in `mask`; how many. EINVAL when
/// somebody there waits for a lock.
fn wake_in(list: &mut List, key: Key, n: u32, mask: u32) -> Result<u32> {
    let mut woken = 0;
    let mut misused = false;
    let choose = |w: &Waiter| {
        if woken == n {
            return Choice::Stop;
        }
        if !w.is_at(key) {
            return Choice::Leave;
        }
        misused = !w.is(Kind::Plain);
        if misused {
            return Choice::Stop;
        }
        if w.mask & mask == 0 {
            return Choice::Leave;
        }
        woken += 1;
        Choice::Take
    };
    list.extract(choose, |w| w.finish(Fate::Woken));
    if misused { Err(Errno::EINVAL) } else { Ok(woken) }
}

/// FUTEX_WAKE and FUTEX_WAKE_BITSET: wakes at most `n` waiters; returns how many.
pub fn wake(task: &Task, addr: UserAddr, n: u32, mask: u32, shared: bool) -> Result<u32> {
    if mask == 0 {
        return Err(Errno::EINVAL);
    }
    let key = key_of(task, addr, shared, Access::Read)?;
    let mut list = bucket(key.bucket())?.0.lock();
    wake_in(&mut list, key, n, mask)
}
