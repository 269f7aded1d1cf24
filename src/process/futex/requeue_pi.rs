//! Condition variables for locks with priority inheritance: FUTEX_WAIT_REQUEUE_PI waits on one word
//! and returns with the lock of another, to which FUTEX_CMP_REQUEUE_PI moves it (`futex(2)`).

use super::{
    Access, Fate, Kind, LockPart, Pair, Waiter, bucket_of, fault_in_writable,
    graph::Graph,
    pi::{Claim, Owner, claim, end_of_wait},
    key_of, watch,
    requeue::lock_expecting,
    wait::enqueue,
};
use crate::{deadline::Deadline, task::Task};
use abi::{Errno, Result, UserAddr};
use kalloc::KArc;
use sched::Outcome;
use sync::atomic::Ordering;

/// FUTEX_WAIT_REQUEUE_PI. EAGAIN when the word is not `value` or the wait ended without the lock.
pub fn wait_requeue_pi(task: &Task, addr: UserAddr, value: u32, lock: UserAddr, shared: bool, deadline: Option<Deadline>) -> Result {
    if addr == lock {
        return Err(Errno::EINVAL);
    }
    let target = key_of(task, lock, shared, Access::Write)?;
    let source = key_of(task, addr, shared, Access::Read)?;
    let same = source == target;
    let node = task.lock_node()?;
    let part = LockPart { node: Some(node.clone()), state: None, target: Some(target) };
    let waiter = Waiter::build(source, u32::MAX, Kind::RequeuePi, None, part)?;
    let watch = watch(&waiter, deadline)?;
    if same {
        return Err(Errno::EINVAL);
    }
    if !enqueue(&waiter, addr, value)? {
        return Err(Errno::EAGAIN);
    }
    let outcome = waiter.sleep(&watch, deadline);
    {
        let mut list = bucket_of(&waiter)?;
        if waiter.is(Kind::RequeuePi) && waiter.has(Fate::Waits) {
            let removed = list.remove(&waiter);
            drop((list, removed));
            return Err(match outcome {
                Outcome::TimedOut => Errno::ETIMEDOUT,
                _ => Errno::ERESTARTNOINTR,
            });
        }
    }
    // Moved to the lock: a restart would find another value in the first word.
    end_of_wait(&waiter, lock, &node, outcome, Errno::EAGAIN)
}

/// FUTEX_CMP_REQUEUE_PI: gives the lock to the first waiter if it is free, and moves up to `limit`
/// others to it. How many got the lock or were moved.
pub fn requeue_pi(task: &Task, from: UserAddr, n: u32, to: UserAddr, limit: u32, expected: u32, shared: bool) -> Result<u32> {
    if (n | limit) >> 31 != 0 || from == to || n != 1 {
        return Err(Errno::EINVAL);
    }
    let (a, b) = (key_of(task, from, shared, Access::Read)?, key_of(task, to, shared, Access::Write)?);
    if a == b {
        return Err(Errno::EINVAL);
    }
    let mut owner = None;
    let mut done = 0;
    loop {
        let claimed = {
            // Once begun, it goes on: the word only decides whether to begin.
            let mut pair = lock_expecting(a, b, from, (done == 0).then_some(expected))?;
            let graph = Graph::lock();
            // The lock's, once it is known: the word need not be looked at for each waiter.
            let mut state = None;
            let mut at = pair.source().front_arc();
            loop {
                // One more than `limit`: the first may get the lock itself.
                if done > limit {
                    return Ok(done);
                }
                let Some(waiter) = at else { return Ok(done) };
                // Before it leaves the list.
                at = pair.source().next_arc(&waiter);
                if !waiter.is_at(a) {
                    continue;
                }
                let (node, right) = {
                    let part = waiter.lock.lock();
                    (part.node.clone(), waiter.is(Kind::RequeuePi) && part.target == Some(b))
                };
                let node = node.filter(|_| right).ok_or(Errno::EINVAL)?;
                let claimed = match &state {
                    Some(state) => Claim::Owned(KArc::clone(state)),
                    None => claim(pair.target(), &graph, to, b, &node, owner.as_ref(), limit > 0)?,
                };
                match claimed {
                    Claim::Taken => {
                        take(&mut pair, &waiter);
                        // The next one looks its new owner up like any other.
                        done += 1;
                    }
                    Claim::Owned(lock) => {
                        if let Err(e) = graph.block(&lock, &node, &waiter) {
                            graph.settle(&lock);
                            return Err(e);
                        }
                        waiter.lock.lock().state = Some(lock.clone());
                        waiter.kind.store(Kind::Pi as u32, Ordering::Relaxed);
                        if let Some(waiter) = pair.source().remove(&waiter) {
                            pair.arrive(waiter, b);
                        }
                        state = Some(lock);
                        done += 1;
                    }
                    other => break other,
                }
            }
        };
        match claimed {
            Claim::Fault => fault_in_writable(to)?,
            Claim::Unknown(tid) => owner = Some(Owner::find(task, tid)?),
            Claim::Again | Claim::Taken | Claim::Owned(_) => {}
        }
    }
}

/// The lock is the waiter's: its word says so already.
fn take(pair: &mut Pair, waiter: &KArc<Waiter>) {
    let removed = pair.source().remove(waiter);
    waiter.kind.store(Kind::Pi as u32, Ordering::Relaxed);
    waiter.finish(Fate::Woken);
    drop(removed);
}
