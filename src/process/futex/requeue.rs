//! FUTEX_REQUEUE and FUTEX_CMP_REQUEUE: waking some waiters and moving others to another word.

use super::{Access, Key, Kind, List, Pair, Waiter, key_of, peek, wake_in};
use crate::task::Task;
use abi::{Errno, Result, UserAddr};
use arch::user::UserPtr;
use collections::Choice;
use kalloc::KArc;

/// FUTEX_REQUEUE and FUTEX_CMP_REQUEUE (`expected`): wakes `n`, moves up to `limit` others to a
/// second futex. Returns the number woken plus the number moved: of
/// FUTEX_REQUEUE `futex(2)` says otherwise, but Linux counts both.
pub fn requeue(task: &Task, from: UserAddr, n: u32, to: UserAddr, limit: u32, expected: Option<u32>, shared: bool) -> Result<u32> {
    if (n | limit) >> 31 != 0 {
        return Err(Errno::EINVAL);
    }
    let (a, b) = (key_of(task, from, shared, Access::Read)?, key_of(task, to, shared, Access::Read)?);
    let mut pair = lock_expecting(a, b, from, expected)?;
    let woken = wake_in(pair.source(), a, n, u32::MAX)?;
    if a == b {
        // To where they are: they only count.
        let waiting = pair.source().iter().filter(|w| w.is_at(a)).count();
        return Ok(woken + limit.min(waiting as u32));
    }
    let (mut moved, mut misused) = (0, false);
    let mut on_their_way = List::new();
    let choose = |w: &Waiter| {
        if moved == limit {
            return Choice::Stop;
        }
        if !w.is_at(a) {
            return Choice::Leave;
        }
        misused = !w.is(Kind::Plain);
        if misused {
            return Choice::Stop;
        }
        moved += 1;
        Choice::Take
    };
    // They are on no other list.
    pair.source().extract(choose, |w| drop(on_their_way.push_back(w)));
    while let Some(w) = on_their_way.pop_front() {
        pair.arrive(w, b);
    }
    if misused { Err(Errno::EINVAL) } else { Ok(woken + moved) }
}

/// Both buckets locked, and the first word found to be `expected`: EAGAIN when it is not, EFAULT.
pub(super) fn lock_expecting(a: Key, b: Key, from: UserAddr, expected: Option<u32>) -> Result<Pair> {
    loop {
        let pair = Pair::lock(a, b)?;
        let Some(expected) = expected else { return Ok(pair) };
        match peek(from) {
            Some(v) if v != expected => return Err(Errno::EAGAIN),
            Some(_) => return Ok(pair),
            None => {
                drop(pair);
                UserPtr::<u32>::new(from).read()?;
            }
        }
    }
}

/// The first who waits at a key.
pub(super) fn first_at(list: &List, key: Key) -> Option<KArc<Waiter>> {
    list.iter_arc().find(|w| w.is_at(key))
}
