//! Waiting on one word (FUTEX_WAIT, FUTEX_WAIT_BITSET) and on several (`futex_waitv(2)`).

use super::{Access, Fate, Group, Kind, Waiter, bucket, bucket_of, insert, key_of, peek, watch};
use crate::{
    deadline::Deadline,
    task::{Restart, Task},
};
use abi::{Errno, Result, UserAddr};
use arch::user::UserPtr;
use kalloc::{KArc, KVec, karc_as};
use sched::{Outcome, Sleep, WaitQueue, WakeCallback};
use sync::atomic::Ordering;

/// FUTEX_WAIT and FUTEX_WAIT_BITSET. EAGAIN when the word is not `value`; ETIMEDOUT; ERESTARTSYS or
/// a restart block on a signal.
pub fn wait(task: &Task, addr: UserAddr, value: u32, mask: u32, shared: bool, deadline: Option<Deadline>) -> Result {
    if mask == 0 {
        return Err(Errno::EINVAL);
    }
    let waiter = Waiter::try_new(key_of(task, addr, shared, Access::Read)?, mask, Kind::Plain)?;
    let watch = watch(&waiter, deadline)?;
    if !enqueue(&waiter, addr, value)? {
        return Err(Errno::EAGAIN);
    }
    let outcome = waiter.sleep(&watch, deadline);
    if !unqueue(&waiter)? {
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

/// Puts the waiter into its bucket if the word has this value. EFAULT.
pub(super) fn enqueue(waiter: &KArc<Waiter>, addr: UserAddr, value: u32) -> Result<bool> {
    loop {
        let mut list = bucket(waiter.bucket.load(Ordering::Relaxed) as usize)?.0.lock();
        match peek(addr) {
            Some(found) if found != value => return Ok(false),
            Some(_) => {
                insert(&mut list, waiter.clone());
                return Ok(true);
            }
            None => {
                drop(list);
                UserPtr::<u32>::new(addr).read()?;
            }
        }
    }
}

/// Takes the waiter out of whatever bucket it stands in; false when a waker had done so already.
pub(super) fn unqueue(waiter: &Waiter) -> Result<bool> {
    let mut list = bucket_of(waiter)?;
    Ok(waiter.has(Fate::Waits) && list.remove(waiter).is_some())
}

/// One of the words of [`wait_many`].
#[derive(Clone, Copy, Debug)]
pub struct Want {
    pub addr: UserAddr,
    /// What the word must be.
    pub value: u32,
    pub shared: bool,
}

/// `futex_waitv(2)`: waits on all words at once; gives the place of one that was woken. EAGAIN when
/// a word has another value; ETIMEDOUT; ERESTARTSYS.
pub fn wait_many(task: &Task, wants: &[Want], deadline: Option<Deadline>) -> Result<usize> {
    let group = KArc::try_new(Group { queue: WaitQueue::new() })?;
    let mut waiters = KVec::new();
    waiters.try_reserve(wants.len())?;
    for want in wants {
        let key = key_of(task, want.addr, want.shared, Access::Read)?;
        waiters.try_push(Waiter::build(key, u32::MAX, Kind::Plain, Some(group.clone()), Default::default())?)?;
    }
    let watch = Deadline::watch(deadline, || karc_as!(group.clone() => dyn WakeCallback))?;
    for (waiter, want) in waiters.iter().zip(wants) {
        let queued = enqueue(waiter, want.addr, want.value);
        if queued != Ok(true) {
            // Somebody may have been woken on an earlier word meanwhile: that counts.
            return match leave(&waiters)? {
                Some(woken) => Ok(woken),
                None => Err(queued.err().unwrap_or(Errno::EAGAIN)),
            };
        }
    }
    let outcome = watch.wait(&group.queue, Sleep::Interruptible, deadline, || {
        waiters.iter().any(|w| !w.has(Fate::Waits)).then_some(())
    });
    match (leave(&waiters)?, outcome) {
        (Some(woken), _) => Ok(woken),
        (None, Outcome::TimedOut) => Err(Errno::ETIMEDOUT),
        (None, _) => Err(Errno::ERESTARTSYS),
    }
}

/// Takes all out of their buckets; the last that was woken.
fn leave(waiters: &KVec<KArc<Waiter>>) -> Result<Option<usize>> {
    let mut woken = None;
    for (i, waiter) in waiters.iter().enumerate() {
        let mut list = bucket_of(waiter)?;
        if waiter.has(Fate::Waits) {
            let _ = list.remove(waiter);
        } else {
            woken = Some(i);
        }
    }
    Ok(woken)
}
