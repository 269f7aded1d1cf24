//! Locks with priority inheritance: FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_TRYLOCK_PI and
//! FUTEX_UNLOCK_PI (`futex(2)`, "Priority-inheritance futexes").
//!
//! The word holds the id of the owner, FUTEX_WAITERS while user space must not unlock by itself, and
//! FUTEX_OWNER_DIED. A lock is handed over directly: who unlocks writes the id of the waiter with the
//! highest priority. When the owner died, the heir writes the word itself.

use super::{
    Access, Fate, Kind, List, LockPart, Waiter, bucket, bucket_of, fault_in_writable,
    graph::{Graph, Node, State},
    insert, key_of, peek, watch,
    requeue::first_at,
};
use super::Key;
use crate::{deadline::Deadline, task::Task};
use abi::{Errno, Result, UserAddr, raw::general as g};
use arch::user::UserPtr;
use kalloc::{KArc, KWeak};
use sched::Outcome;
use sync::atomic::{Ordering, fence};

impl Task {
    /// The task in the graph of owners; made when it first needs a place there. ENOMEM.
    pub(super) fn lock_node(&self) -> Result<KArc<Node>> {
        let make = || {
            let thread = self.thread.get().cloned().unwrap_or_else(KWeak::new);
            let priority = thread.upgrade().map_or(0, |t| t.own_rt_priority());
            Node::try_new(self.id(), thread, priority)
        };
        self.lock_node.try_call_once(make).cloned()
    }
}

/// Who owns a lock, as its word says.
pub(super) struct Owner {
    tid: u32,
    task: Option<(KArc<Task>, KArc<Node>)>,
}

impl Owner {
    /// Looks the owner up, with no bucket locked. EPERM for a kernel thread.
    pub(super) fn find(task: &Task, tid: u32) -> Result<Self> {
        let Some(owner) = task.ns()?.pid.find(tid) else { return Ok(Self { tid, task: None }) };
        if owner.thread().is_some_and(|t| t.is_kernel()) {
            return Err(Errno::EPERM);
        }
        let node = owner.lock_node()?;
        // Pairs with the fence in `exit_locks`: either that sees the node, or we see the end.
        fence(Ordering::SeqCst);
        Ok(Self { tid, task: Some((owner, node)) })
    }
}

/// What a look at the word of a lock gives.
pub(super) enum Claim {
    /// The lock was free and now is the claimant's.
    Taken,
    /// It is somebody's: this is what to wait for.
    Owned(KArc<State>),
    /// The word is not resident, or cannot be written.
    Fault,
    /// The word has changed meanwhile.
    Again,
    /// It names an owner who has to be looked up first.
    Unknown(u32),
}

/// Looks at the word of a lock for `who`, with the lock's bucket and the graph locked. EDEADLK when
/// it is `who`'s already, ESRCH when it names nobody, EINVAL when it cannot be.
pub(super) fn claim(list: &List, graph: &Graph, addr: UserAddr, key: Key, who: &Node, owner: Option<&Owner>, waiters: bool) -> Result<Claim> {
    let Some(word) = peek(addr) else { return Ok(Claim::Fault) };
    let tid = word & g::FUTEX_TID_MASK;
    if tid == who.tid {
        return Err(Errno::EDEADLK);
    }
    if let Some(first) = first_at(list, key) {
        let state = first.lock.lock().state.clone().ok_or(Errno::EINVAL)?;
        graph.check_word(&state, word)?;
        return Ok(Claim::Owned(state));
    }
    let new = match (tid, waiters) {
        (0, false) => word & g::FUTEX_OWNER_DIED | who.tid,
        (0, true) => word & g::FUTEX_OWNER_DIED | who.tid | g::FUTEX_WAITERS,
        _ => word | g::FUTEX_WAITERS,
    };
    match arch::user::compare_exchange_u32(addr, word, new) {
        None => return Ok(Claim::Fault),
        Some(found) if found != word => return Ok(Claim::Again),
        Some(_) if tid == 0 => return Ok(Claim::Taken),
        Some(_) => {}
    }
    match owner {
        Some(owner) if owner.tid == tid => match &owner.task {
            Some((task, node)) if !task.locks_gone.load(Ordering::SeqCst) => {
                let state = State::try_new()?;
                graph.set_owner(&state, node);
                Ok(Claim::Owned(state))
            }
            // It ends, or never was. If it ended properly, the word says so by now.
            _ if peek(addr).is_some_and(|now| now != new) => Ok(Claim::Again),
            _ => Err(Errno::ESRCH),
        },
        _ => Ok(Claim::Unknown(tid)),
    }
}

/// FUTEX_LOCK_PI, FUTEX_LOCK_PI2 and, with `try_only`, FUTEX_TRYLOCK_PI.
pub fn lock(task: &Task, addr: UserAddr, shared: bool, deadline: Option<Deadline>, try_only: bool) -> Result {
    let key = key_of(task, addr, shared, Access::Write)?;
    let node = task.lock_node()?;
    let part = LockPart { node: Some(node.clone()), ..LockPart::default() };
    let waiter = Waiter::build(key, u32::MAX, Kind::Pi, None, part)?;
    let watch = watch(&waiter, deadline)?;
    let mut owner = None;
    loop {
        let claimed = {
            let mut list = bucket(key.bucket())?.0.lock();
            let graph = Graph::lock();
            match claim(&list, &graph, addr, key, &node, owner.as_ref(), false)? {
                Claim::Owned(state) => {
                    let blocked = if try_only { Err(Errno::EAGAIN) } else { graph.block(&state, &node, &waiter) };
                    if let Err(e) = blocked {
                        graph.settle(&state);
                        return Err(e);
                    }
                    waiter.lock.lock().state = Some(state);
                    insert(&mut list, waiter.clone());
                    break;
                }
                other => other,
            }
        };
        match claimed {
            Claim::Taken => return Ok(()),
            Claim::Fault => fault_in_writable(addr)?,
            Claim::Unknown(tid) => owner = Some(Owner::find(task, tid)?),
            Claim::Again | Claim::Owned(_) => {}
        }
    }
    let outcome = waiter.sleep(&watch, deadline);
    // Neither a handler nor a stop shows: the call starts anew, with the same absolute time.
    end_of_wait(&waiter, addr, &node, outcome, Errno::ERESTARTNOINTR)
}

/// After the sleep of a waiter of a lock: it has the lock, or gives up.
pub(super) fn end_of_wait(waiter: &KArc<Waiter>, addr: UserAddr, node: &KArc<Node>, outcome: Outcome<()>, interrupted: Errno) -> Result {
    loop {
        let mut list = bucket_of(waiter)?;
        let graph = Graph::lock();
        if waiter.has(Fate::Woken) {
            return Ok(());
        }
        if waiter.has(Fate::Waits) {
            let removed = list.remove(waiter);
            let mine = graph.unblock(node);
            drop((graph, list, removed, mine));
            return Err(if matches!(outcome, Outcome::TimedOut) { Errno::ETIMEDOUT } else { interrupted });
        }
        // Inherited. Nobody else takes the lock meanwhile: this waiter is still in its bucket.
        let new = g::FUTEX_OWNER_DIED | g::FUTEX_WAITERS | node.tid;
        let written = match peek(addr) {
            Some(word) => arch::user::compare_exchange_u32(addr, word, new).map(|found| found == word),
            None => None,
        };
        if written == Some(true) {
            leave_as_owner(&mut list, &graph, waiter);
            return Ok(());
        }
        drop((graph, list));
        if written.is_none()
            && let Err(e) = fault_in_writable(addr)
        {
            // The word is gone: whoever waits too inherits what is left.
            let mut list = bucket_of(waiter)?;
            let graph = Graph::lock();
            leave_as_owner(&mut list, &graph, waiter);
            while graph.bequeath(node) {}
            return Err(e);
        }
    }
}

fn leave_as_owner(list: &mut List, graph: &Graph, waiter: &KArc<Waiter>) {
    let state = waiter.lock.lock().state.take();
    let _ = list.remove(waiter);
    if let Some(state) = state {
        graph.settle(&state);
    }
}

/// FUTEX_UNLOCK_PI. EPERM when the word does not name the caller, EINVAL when it contradicts what
/// the kernel knows.
pub fn unlock(task: &Task, addr: UserAddr, shared: bool) -> Result {
    loop {
        let word = UserPtr::<u32>::new(addr).read()?;
        if word & g::FUTEX_TID_MASK != task.id() {
            return Err(Errno::EPERM);
        }
        let key = key_of(task, addr, shared, Access::Write)?;
        let node = task.lock_node()?;
        let mut list = bucket(key.bucket())?.0.lock();
        let Some(first) = first_at(&list, key) else {
            // Nobody waits in the kernel: neither bit is needed any more.
            let found = arch::user::compare_exchange_u32(addr, word, 0);
            drop(list);
            match found {
                None => fault_in_writable(addr)?,
                Some(found) if found == word => return Ok(()),
                Some(_) => {}
            }
            continue;
        };
        let graph = Graph::lock();
        let state = first.lock.lock().state.clone().ok_or(Errno::EINVAL)?;
        if !graph.is_owner(&state, &node) {
            return Err(Errno::EINVAL);
        }
        let heir = graph.heir(&state).ok_or(Errno::EINVAL)?;
        match arch::user::compare_exchange_u32(addr, word, g::FUTEX_WAITERS | heir) {
            None => {
                drop((graph, list));
                fault_in_writable(addr)?;
            }
            Some(found) if found == word => {
                if let Some(waiter) = graph.hand_over(&state) {
                    let removed = list.remove(&waiter);
                    waiter.finish(Fate::Woken);
                    drop(removed);
                }
                graph.settle(&state);
                return Ok(());
            }
            // Only the bit of those who wait may appear meanwhile.
            Some(found) if found & g::FUTEX_TID_MASK == word => {}
            Some(_) => return Err(Errno::EINVAL),
        }
    }
}

/// The task gives up its memory, or ends: whoever waits for its locks inherits them.
pub(crate) fn exit_locks(task: &Task) {
    task.locks_gone.store(true, Ordering::SeqCst);
    // Pairs with the fence in `Owner::find`.
    fence(Ordering::SeqCst);
    if let Some(node) = task.lock_node.get() {
        while Graph::lock().bequeath(node) {}
    }
}

/// The task goes on with other memory: it may own locks again.
pub(crate) fn exec_begins(task: &Task) {
    task.locks_gone.store(false, Ordering::SeqCst);
}

/// The thread's own real-time priority has changed.
pub fn priority_changed(task: &Task, priority: u8) {
    if let Some(node) = task.lock_node.get() {
        Graph::lock().set_own_priority(node, priority);
    }
}
