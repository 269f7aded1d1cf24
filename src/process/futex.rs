//! Futexes: sleeping on a word of user memory (`futex(2)`).
//!
//! A waiter checks the word with its bucket locked and stands in the bucket before the lock is
//! released; a waker changes the word first (in user space) and then takes the bucket's lock. So
//! either the waiter sees the new value, or the waker sees the waiter.
//!
//! The word is read with the lock held, so without page faults: a word that is not resident is
//! faulted in with the lock released, and the check starts anew.
//!
//! Lock order: bucket (two buckets by index for requeue), then nothing of user memory.

use crate::task::{Restart, Task};
use abi::{Errno, Nanos, Result, UserAddr, raw::general as g};
use arch::user::UserPtr;
use collections::{ArcList, Link};
use kalloc::KArc;
use sched::{Outcome, Sleep, WaitQueue};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicBool, Ordering},
};

static BUCKET: LockClass = LockClass::new("process.futex", 1050);

const BUCKETS: usize = 256;

/// What identifies a futex: programs that reach the same word through the same key meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    /// The address space, or the object that is mapped shared.
    object: u64,
    /// Address in the space, or offset in the object.
    offset: u64,
}

struct Waiter {
    link: Link,
    key: SpinLock<Key>,
    mask: u32,
    queue: WaitQueue,
    woken: AtomicBool,
}

static KEY: LockClass = LockClass::new("process.futex_key", 1051);

collections::link_field!(WaiterLink: Waiter => link);

struct Bucket(SpinLock<ArcList<WaiterLink>>);

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

fn key(task: &Task, addr: UserAddr, shared: bool) -> Result<Key> {
    if !addr.is_aligned(4) {
        return Err(Errno::EINVAL);
    }
    if !addr.range_ok(4) {
        return Err(Errno::EFAULT);
    }
    let mm = task.mm().ok_or(Errno::EFAULT)?;
    if shared {
        let area = mm.next_area(addr).filter(|a| a.start <= addr.0).ok_or(Errno::EFAULT)?;
        if area.shared()
            && let Some(file) = area.file()
        {
            // The page cache is what all mappings of an object have in common.
            let object = KArc::as_ptr(file.cache()).addr() as u64;
            return Ok(Key { object, offset: (area.index_of(addr.0) << abi::PAGE_SHIFT) + addr.page_offset() as u64 });
        }
    }
    Ok(Key { object: KArc::as_ptr(&mm).addr() as u64, offset: addr.0 })
}

/// Reads the word without page faults while a spin lock is held; `None` when it is not resident.
fn peek(addr: UserAddr) -> Option<u32> {
    arch::user::load_u32(addr)
}

/// FUTEX_WAIT and FUTEX_WAIT_BITSET. `deadline` is on the monotonic clock.
/// EAGAIN when the word is not `value`; ETIMEDOUT; ERESTARTSYS or a restart block on a signal.
pub fn wait(task: &Task, addr: UserAddr, value: u32, mask: u32, shared: bool, deadline: Option<Nanos>) -> Result {
    if mask == 0 {
        return Err(Errno::EINVAL);
    }
    let key = key(task, addr, shared)?;
    let waiter = KArc::try_new(Waiter {
        link: Link::new(),
        key: SpinLock::new(key, &KEY),
        mask,
        queue: WaitQueue::new(),
        woken: AtomicBool::new(false),
    })?;
    loop {
        let mut list = bucket(key.bucket())?.0.lock();
        match peek(addr) {
            Some(found) if found != value => return Err(Errno::EAGAIN),
            Some(_) => {
                let _ = list.push_back(waiter.clone());
                break;
            }
            None => {
                drop(list);
                UserPtr::<u32>::new(addr).read()?;
            }
        }
    }
    let outcome = waiter.queue.wait_until(Sleep::Interruptible, deadline, || {
        waiter.woken.load(Ordering::Acquire).then_some(())
    });
    if unqueue(&waiter)? {
        // Woken, whatever else happened meanwhile.
        return Ok(());
    }
    match (outcome, deadline) {
        (Outcome::Ready(()), _) => Ok(()),
        (Outcome::TimedOut, _) => Err(Errno::ETIMEDOUT),
        (Outcome::Interrupted, None) => Err(Errno::ERESTARTSYS),
        (Outcome::Interrupted, Some(until)) => {
            *task.restart.lock() = Restart::Futex { addr, value, mask, shared, until };
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
    }
}

/// Takes the waiter out of whatever bucket it stands in. True when a waker had done so already.
fn unqueue(waiter: &KArc<Waiter>) -> Result<bool> {
    loop {
        let at = waiter.key.lock().bucket();
        let mut list = bucket(at)?.0.lock();
        // A requeue may have moved it between the two locks.
        if waiter.key.lock().bucket() != at {
            continue;
        }
        return Ok(waiter.woken.load(Ordering::Acquire) || list.remove(waiter).is_none());
    }
}

fn wake_in(list: &mut ArcList<WaiterLink>, key: Key, n: u32, mask: u32) -> u32 {
    let mut woken = 0;
    while woken < n {
        let Some(w) = list.remove_first(|w| w.mask & mask != 0 && *w.key.lock() == key) else { break };
        w.woken.store(true, Ordering::Release);
        w.queue.wake_all();
        woken += 1;
    }
    woken
}

/// FUTEX_WAKE and FUTEX_WAKE_BITSET: wakes at most `n` waiters; returns how many.
pub fn wake(task: &Task, addr: UserAddr, n: u32, mask: u32, shared: bool) -> Result<u32> {
    if mask == 0 {
        return Err(Errno::EINVAL);
    }
    let key = key(task, addr, shared)?;
    let mut list = bucket(key.bucket())?.0.lock();
    Ok(wake_in(&mut list, key, n, mask))
}

/// FUTEX_REQUEUE and FUTEX_CMP_REQUEUE (`expected`): wakes `n`, moves up to `limit` others to a
/// second futex. Returns the number woken plus the number moved: of
/// FUTEX_REQUEUE `futex(2)` says otherwise, but Linux counts both.
pub fn requeue(task: &Task, from: UserAddr, n: u32, to: UserAddr, limit: u32, expected: Option<u32>, shared: bool) -> Result<u32> {
    if (n | limit) >> 31 != 0 {
        return Err(Errno::EINVAL);
    }
    let (a, b) = (key(task, from, shared)?, key(task, to, shared)?);
    loop {
        let (i, j) = (a.bucket(), b.bucket());
        // Two buckets are taken in the order of their index.
        let mut low = bucket(i.min(j))?.0.lock();
        let mut high = if i == j { None } else { Some(bucket(i.max(j))?.0.lock_nested(1)) };
        if let Some(expected) = expected {
            match peek(from) {
                Some(v) if v != expected => return Err(Errno::EAGAIN),
                Some(_) => {}
                None => {
                    drop(high);
                    drop(low);
                    UserPtr::<u32>::new(from).read()?;
                    continue;
                }
            }
        }
        let woken;
        let mut moved = 0;
        {
            let source = if i <= j { &mut *low } else { high.as_deref_mut().ok_or(Errno::EINVAL)? };
            woken = wake_in(source, a, n, u32::MAX);
        }
        if a == b {
            // To where they are: they only count.
            let waiting = low.iter().filter(|w| *w.key.lock() == a).count();
            return Ok(woken + limit.min(waiting as u32));
        }
        while moved < limit {
            let source = if i <= j { &mut *low } else { high.as_deref_mut().ok_or(Errno::EINVAL)? };
            let Some(w) = source.remove_first(|w| *w.key.lock() == a) else { break };
            *w.key.lock() = b;
            let target = match &mut high {
                Some(h) if i < j => &mut **h,
                _ => &mut *low,
            };
            let _ = target.push_back(w);
            moved += 1;
        }
        return Ok(woken + moved);
    }
}

/// FUTEX_WAKE_OP: changes the second word, wakes on the first, and on the second when its old
/// value compares true.
pub fn wake_op(task: &Task, first: UserAddr, n: u32, second: UserAddr, m: u32, op: u32, shared: bool) -> Result<u32> {
    let (a, b) = (key(task, first, shared)?, key(task, second, shared)?);
    let op = WakeOp::decode(op)?;
    let old = loop {
        let word = UserPtr::<u32>::new(second).read()?;
        match arch::user::compare_exchange_u32(second, word, op.apply(word)) {
            Some(found) if found == word => break word,
            Some(_) => {}
            None => return Err(Errno::EFAULT),
        }
    };
    let mut woken = {
        let mut list = bucket(a.bucket())?.0.lock();
        wake_in(&mut list, a, n, u32::MAX)
    };
    if op.compare(old) {
        let mut list = bucket(b.bucket())?.0.lock();
        woken += wake_in(&mut list, b, m, u32::MAX);
    }
    Ok(woken)
}

/// The operation word of FUTEX_WAKE_OP: op (4 bits), cmp (4), oparg (12, signed), cmparg (12, signed).
struct WakeOp {
    op: u32,
    cmp: u32,
    arg: u32,
    cmp_arg: i32,
}

impl WakeOp {
    fn decode(word: u32) -> Result<Self> {
        let signed = |v: u32| ((v << 20) as i32) >> 20;
        let mut arg = signed(word >> 12 & 0xfff) as u32;
        let op = word >> 28;
        if op & g::FUTEX_OP_OPARG_SHIFT != 0 {
            arg = 1u32 << (arg & 31);
        }
        let op = op & 7;
        let cmp = word >> 24 & 0xf;
        if op > g::FUTEX_OP_XOR || cmp > g::FUTEX_OP_CMP_GE {
            return Err(Errno::ENOSYS);
        }
        Ok(Self { op, cmp, arg, cmp_arg: signed(word & 0xfff) })
    }
    fn apply(&self, v: u32) -> u32 {
        match self.op {
            g::FUTEX_OP_SET => self.arg,
            g::FUTEX_OP_ADD => v.wrapping_add(self.arg),
            g::FUTEX_OP_OR => v | self.arg,
            g::FUTEX_OP_ANDN => v & !self.arg,
            _ => v ^ self.arg,
        }
    }
    fn compare(&self, old: u32) -> bool {
        let old = old as i32;
        match self.cmp {
            g::FUTEX_OP_CMP_EQ => old == self.cmp_arg,
            g::FUTEX_OP_CMP_NE => old != self.cmp_arg,
            g::FUTEX_OP_CMP_LT => old < self.cmp_arg,
            g::FUTEX_OP_CMP_LE => old <= self.cmp_arg,
            g::FUTEX_OP_CMP_GT => old > self.cmp_arg,
            _ => old >= self.cmp_arg,
        }
    }
}

/// Longest robust list that exit walks (Linux's ROBUST_LIST_LIMIT): a list may be a cycle.
const ROBUST_LIMIT: usize = 2048;

/// Marks the owner's death in every robust mutex that the ending thread held, and wakes a waiter
/// (`get_robust_list(2)`). Whatever the list holds, nothing but the program itself can suffer.
pub(crate) fn exit_robust_list(task: &Task) {
    let head = task.robust_list.swap(0, Ordering::Relaxed);
    if head != 0 {
        let _ = walk_robust_list(task, UserAddr(head));
    }
}

fn walk_robust_list(task: &Task, head: UserAddr) -> Result {
    // struct robust_list_head: first entry, offset of the futex word, the entry under way.
    let [mut entry, offset, pending] = UserPtr::<[u64; 3]>::new(head).read()?;
    for _ in 0..ROBUST_LIMIT {
        // Bit 0 of a link marks a PI futex.
        let at = entry & !1;
        if at == head.0 {
            break;
        }
        let next = UserPtr::<u64>::new(UserAddr(at)).read();
        if at != pending & !1 {
            owner_died(task, UserAddr(at.wrapping_add(offset)))?;
        }
        entry = next?;
    }
    if pending != 0 {
        owner_died(task, UserAddr((pending & !1).wrapping_add(offset)))?;
    }
    Ok(())
}

fn owner_died(task: &Task, word: UserAddr) -> Result {
    if !word.is_aligned(4) {
        return Err(Errno::EINVAL);
    }
    loop {
        let v = UserPtr::<u32>::new(word).read()?;
        if v & g::FUTEX_TID_MASK != task.id() {
            return Ok(());
        }
        let dead = v & g::FUTEX_WAITERS | g::FUTEX_OWNER_DIED;
        match arch::user::compare_exchange_u32(word, v, dead) {
            Some(found) if found == v => {
                if v & g::FUTEX_WAITERS != 0 {
                    wake(task, word, 1, u32::MAX, true)?;
                }
                return Ok(());
            }
            Some(_) => {}
            None => return Err(Errno::EFAULT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_op_words_decode_and_compute_as_the_manual_says() {
        // FUTEX_OP(ADD, 1, CMP_GT, 2)
        let op = WakeOp::decode(g::FUTEX_OP_ADD << 28 | g::FUTEX_OP_CMP_GT << 24 | 1 << 12 | 2).unwrap();
        assert_eq!(op.apply(7), 8);
        assert!(op.compare(3));
        assert!(!op.compare(2));
        // oparg as a shift, negative cmparg
        let op = WakeOp::decode((8 | g::FUTEX_OP_OR) << 28 | g::FUTEX_OP_CMP_EQ << 24 | 5 << 12 | 0xfff).unwrap();
        assert_eq!(op.apply(0), 32);
        assert!(op.compare(u32::MAX));
        assert_eq!(WakeOp::decode(5 << 28).map(|_| ()), Err(Errno::ENOSYS));
    }
}
