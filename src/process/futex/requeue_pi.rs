//! Condition variables for locks with priority inheritance: FUTEX_WAIT_REQUEUE_PI waits on one word
//! and returns with the lock of another, to which FUTEX_CMP_REQUEUE_PI moves it (`futex(2)`).

use super::{
    Access, Fate, Kind, LockPart, Pair, Waiter, bucket_of, fault_in_writable,
    graph::Graph,
    pi::{Claim, Owner, claim, end_of_wait},
    place, watch,
    requeue::{first_at, lock_expecting},
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
    let target = place(task, lock, shared, Access::Write)?;
    let source = place(task, addr, shared, Access::Read)?;
    let same = source.key == target.key;
    let node = task.lock_node()?;
    let part = LockPart { node: Some(node.clone()), state: None, target: Some(target.key) };
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
    let (source, target) = (place(task, from, shared, Access::Read)?, place(task, to, shared, Access::Write)?);
    let (a, b) = (source.key, target.key);
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
            loop {
                // One more than `limit`: the first may get the lock itself.
                if done > limit {
                    return Ok(done);
                }
                let Some(waiter) = first_at(pair.source(), a) else { return Ok(done) };
                let (node, right) = {
                    let part = waiter.lock.lock();
                    (part.node.clone(), waiter.is(Kind::RequeuePi) && part.target == Some(b))
                };
                let node = node.filter(|_| right).ok_or(Errno::EINVAL)?;
                match claim(pair.target(), &graph, to, b, &node, owner.as_ref(), limit > 0)? {
                    Claim::Taken => {
                        take(&mut pair, &waiter);
                        // The next one looks its new owner up like any other.
                        done += 1;
                    }
                    Claim::Owned(state) => {
                        if let Err(e) = graph.block(&state, &node, &waiter) {
                            graph.settle(&state);
                            return Err(e);
                        }
                        waiter.lock.lock().state = Some(state);
                        waiter.kind.store(Kind::Pi as u32, Ordering::Relaxed);
                        pair.transfer(&waiter, b);
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
