//! What the end of a thread does for the robust locks that it holds (`get_robust_list(2)`).
//!
//! The list lies in user memory and may hold anything: nothing but the program itself can suffer.

use super::wake;
use crate::task::Task;
use abi::{Errno, Result, UserAddr, raw::general as g};
use arch::user::UserPtr;
use sync::atomic::Ordering;

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

/// An entry of the list: where it lies, and whether its lock hands priority on (bit 0 of the link).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    at: u64,
    pi: bool,
}

impl From<u64> for Entry {
    fn from(link: u64) -> Self {
        Self { at: link & !1, pi: link & 1 != 0 }
    }
}

fn walk_robust_list(task: &Task, head: UserAddr) -> Result {
    // struct robust_list_head: first entry, offset of the futex word, the entry under way.
    let [first, offset, pending] = UserPtr::<[u64; 3]>::new(head).read()?;
    let (mut entry, pending) = (Entry::from(first), Entry::from(pending));
    for _ in 0..ROBUST_LIMIT {
        if entry.at == head.0 {
            break;
        }
        // Before the lock is given away: its next owner may change the list.
        let next = UserPtr::<u64>::new(UserAddr(entry.at)).read();
        if entry.at != pending.at {
            owner_died(task, UserAddr(entry.at.wrapping_add(offset)), entry.pi, false)?;
        }
        entry = next?.into();
        if sched::need_resched() {
            sched::schedule();
        }
    }
    if pending.at != 0 {
        owner_died(task, UserAddr(pending.at.wrapping_add(offset)), pending.pi, true)?;
    }
    Ok(())
}

/// Marks the word of one lock. `pending`: the thread was about to take it or to give it up.
fn owner_died(task: &Task, word: UserAddr, pi: bool, pending: bool) -> Result {
    if !word.is_aligned(4) {
        return Err(Errno::EINVAL);
    }
    loop {
        let v = UserPtr::<u32>::new(word).read()?;
        let owner = v & g::FUTEX_TID_MASK;
        if pending && !pi && owner == 0 {
            // It gave the lock up and died before it woke anybody, or was woken and died before it
            // took the lock: another one has to be woken.
            return wake(task, word, 1, u32::MAX, true).map(|_| ());
        }
        if owner != task.id() {
            return Ok(());
        }
        let dead = v & g::FUTEX_WAITERS | g::FUTEX_OWNER_DIED;
        match arch::user::compare_exchange_u32(word, v, dead) {
            Some(found) if found == v => {
                // Who waits for a lock with priorities inherits it from `exit_locks`.
                if v & g::FUTEX_WAITERS != 0 && !pi {
                    wake(task, word, 1, u32::MAX, true)?;
                }
                return Ok(());
            }
            Some(_) => {}
            None => return Err(Errno::EFAULT),
        }
    }
}
