//! Who waits for which lock, and who owns it: the graph along which priorities are inherited.
//!
//! A [`Node`] is a thread that owns or wants a lock of the PI kind, a [`State`] is such a lock while
//! somebody waits for it in the kernel. An owner runs with the highest real-time priority among
//! those that wait for any of its locks, and passes it on if it waits for a lock itself.
//!
//! All of it changes under one lock, [`Graph`]: a search for a deadlock or for whom to boost follows
//! edges through any number of locks, and locks without waiters never come here. The cells of nodes
//! and states have locks of their own only because they must; they are never contended.
//!
//! Invariants: a state is in the list of its owner exactly while it has waiters or an heir that did
//! not yet write the word; a node waits for at most one state.

use super::{Fate, Waiter};
use abi::{Errno, Result, raw::general as g};
use collections::{ArcList, Link};
use kalloc::{KArc, KWeak};
use sync::{
    LockClass, SpinLock, SpinGuard,
    atomic::{AtomicU32, Ordering},
};

static GRAPH: SpinLock<()> = SpinLock::new((), &GRAPH_CLASS);
static GRAPH_CLASS: LockClass = LockClass::new("process.futex_graph", 1052);
static NODE_CELL: LockClass = LockClass::new("process.futex_node", 1053);
static STATE_CELL: LockClass = LockClass::new("process.futex_state", 1054);

/// Longest chain of owners that wait for owners (Linux's max_lock_depth).
const DEPTH: usize = 1024;

/// A thread, as the graph knows it.
pub(crate) struct Node {
    pub(super) tid: u32,
    /// Its place among those who wait for a lock.
    link: Link,
    thread: KWeak<sched::Thread>,
    /// Its own real-time priority.
    own: AtomicU32,
    /// What it inherits.
    boost: AtomicU32,
    cell: SpinLock<NodeCell>,
}

struct NodeCell {
    owned: ArcList<OwnedLink>,
    waits_for: Option<KArc<State>>,
    waiter: Option<KArc<Waiter>>,
}

/// A lock for which somebody waits.
pub(crate) struct State {
    /// Its place among those that its owner has.
    link: Link,
    cell: SpinLock<StateCell>,
}

struct StateCell {
    owner: Option<KArc<Node>>,
    waiters: ArcList<NodeLink>,
}

collections::link_field!(OwnedLink: State => link);
collections::link_field!(NodeLink: Node => link);

impl Node {
    pub(crate) fn try_new(tid: u32, thread: KWeak<sched::Thread>, priority: u8) -> Result<KArc<Self>> {
        let cell = NodeCell { owned: ArcList::new(), waits_for: None, waiter: None };
        Ok(KArc::try_new(Self {
            tid,
            link: Link::new(),
            thread,
            own: AtomicU32::new(priority.into()),
            boost: AtomicU32::new(0),
            cell: SpinLock::new(cell, &NODE_CELL),
        })?)
    }
    fn priority(&self) -> u32 {
        self.own.load(Ordering::Relaxed).max(self.boost.load(Ordering::Relaxed))
    }
    fn waits_for(&self) -> Option<KArc<State>> {
        self.cell.lock().waits_for.clone()
    }
}

impl State {
    pub(super) fn try_new() -> Result<KArc<Self>> {
        let cell = StateCell { owner: None, waiters: ArcList::new() };
        Ok(KArc::try_new(Self { link: Link::new(), cell: SpinLock::new(cell, &STATE_CELL) })?)
    }
    fn owner(&self) -> Option<KArc<Node>> {
        self.cell.lock().owner.clone()
    }
    /// The thread that gets the lock next: of the highest priority the one that came first.
    fn top(&self) -> Option<KArc<Node>> {
        let cell = self.cell.lock();
        let best = cell.waiters.iter().map(Node::priority).max()?;
        cell.waiters.iter_arc().find(|n| n.priority() == best)
    }
    fn top_priority(&self) -> u32 {
        self.cell.lock().waiters.iter().map(Node::priority).max().unwrap_or(0)
    }
}

/// The right to look at the graph and to change it.
pub(super) struct Graph(#[expect(dead_code, reason = "held, not looked at")] SpinGuard<'static, ()>);

impl Graph {
    pub(super) fn lock() -> Self {
        Self(GRAPH.lock())
    }

    pub(super) fn is_owner(&self, state: &State, node: &KArc<Node>) -> bool {
        state.cell.lock().owner.as_ref().is_some_and(|o| KArc::ptr_eq(o, node))
    }

    /// Whether the word of a lock that has a state can be: it names the owner, or says that it died.
    pub(super) fn check_word(&self, state: &State, word: u32) -> Result {
        let tid = word & g::FUTEX_TID_MASK;
        let owner = state.owner().ok_or(Errno::EINVAL)?;
        let died = word & g::FUTEX_OWNER_DIED != 0 && tid == 0;
        if died || tid == owner.tid { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Makes a node the owner of a state that has none.
    pub(super) fn set_owner(&self, state: &KArc<State>, node: &KArc<Node>) {
        state.cell.lock().owner = Some(node.clone());
        // A state without owner is on no list.
        let _ = node.cell.lock().owned.push_back(state.clone());
        self.refresh(node.clone());
    }

    fn clear_owner(&self, state: &KArc<State>) {
        let owner = state.cell.lock().owner.take();
        if let Some(owner) = owner {
            let removed = owner.cell.lock().owned.remove(state);
            drop(removed);
            self.refresh(owner);
        }
    }

    /// Whether `node` would wait for itself if it waited for a lock of `owner`.
    pub(super) fn is_cycle(&self, owner: &KArc<Node>, node: &KArc<Node>) -> bool {
        let mut at = owner.clone();
        for _ in 0..DEPTH {
            if KArc::ptr_eq(&at, node) {
                return true;
            }
            match at.waits_for().and_then(|s| s.owner()) {
                Some(next) => at = next,
                None => return false,
            }
        }
        // Longer than anybody needs; Linux takes it for a deadlock too.
        true
    }

    /// The node waits for the state from here on. EDEADLK.
    pub(super) fn block(&self, state: &KArc<State>, node: &KArc<Node>, waiter: &KArc<Waiter>) -> Result {
        let owner = state.owner().ok_or(Errno::EINVAL)?;
        if self.is_cycle(&owner, node) {
            return Err(Errno::EDEADLK);
        }
        {
            let mut cell = node.cell.lock();
            cell.waits_for = Some(state.clone());
            cell.waiter = Some(waiter.clone());
        }
        let _ = state.cell.lock().waiters.push_back(node.clone());
        self.raise(owner, node.priority());
        Ok(())
    }

    /// One more waits for the node, with this priority: it and whom it waits for inherit that. So
    /// that many who come one after the other are not looked through each time.
    fn raise(&self, node: KArc<Node>, priority: u32) {
        let (mut at, mut priority) = (node, priority);
        for _ in 0..DEPTH {
            if at.boost.fetch_max(priority, Ordering::Relaxed) >= priority {
                return;
            }
            self.apply(&at);
            priority = at.priority();
            match at.waits_for().and_then(|s| s.owner()) {
                Some(owner) => at = owner,
                None => return,
            }
        }
    }

    /// Tells the scheduler what the node inherits.
    fn apply(&self, node: &Node) {
        if let Some(thread) = node.thread.upgrade() {
            sched::set_boost(&thread, node.boost.load(Ordering::Relaxed) as u8);
            // Perhaps the last handle: what hangs on a thread must not go under a lock.
            KArc::drop_after_grace_period(thread);
        }
    }

    /// The node waits no longer. Its waiter, for which it did.
    pub(super) fn unblock(&self, node: &Node) -> Option<KArc<Waiter>> {
        let (state, waiter) = {
            let mut cell = node.cell.lock();
            (cell.waits_for.take()?, cell.waiter.take())
        };
        let (removed, empty) = {
            let mut cell = state.cell.lock();
            let removed = cell.waiters.remove(node);
            (removed, cell.waiters.is_empty())
        };
        drop(removed);
        if empty {
            self.clear_owner(&state);
        } else if let Some(owner) = state.owner() {
            self.refresh(owner);
        }
        waiter
    }

    /// The thread that [`hand_over`](Self::hand_over) will make the owner.
    pub(super) fn heir(&self, state: &State) -> Option<u32> {
        state.top().map(|n| n.tid)
    }

    /// Makes the waiter of the highest priority the owner. Its waiter, which has no fate yet.
    pub(super) fn hand_over(&self, state: &KArc<State>) -> Option<KArc<Waiter>> {
        let heir = state.top();
        self.clear_owner(state);
        let heir = heir?;
        let waiter = {
            let mut cell = heir.cell.lock();
            cell.waits_for = None;
            cell.waiter.take()
        };
        let removed = state.cell.lock().waiters.remove(&*heir);
        drop(removed);
        self.set_owner(state, &heir);
        waiter
    }

    /// Forgets a state for which nobody waits any more.
    pub(super) fn settle(&self, state: &KArc<State>) {
        let empty = state.cell.lock().waiters.is_empty();
        if empty {
            self.clear_owner(state);
        }
    }

    /// Passes every lock of a thread that ends to those who wait for it: they find that its owner
    /// died, and write the word themselves, since it need not be in this address space.
    pub(super) fn bequeath(&self, node: &Node) -> bool {
        let first = node.cell.lock().owned.front_arc();
        let Some(state) = first else { return false };
        match self.hand_over(&state) {
            Some(waiter) => waiter.finish(Fate::Inherits),
            None => self.clear_owner(&state),
        }
        true
    }

    /// Its own priority has changed.
    pub(super) fn set_own_priority(&self, node: &KArc<Node>, priority: u8) {
        node.own.store(priority.into(), Ordering::Relaxed);
        if let Some(owner) = node.waits_for().and_then(|s| s.owner()) {
            self.refresh(owner);
        }
    }

    /// Brings up to date what a node inherits, and those who inherit from it.
    fn refresh(&self, node: KArc<Node>) {
        let mut at = node;
        for _ in 0..DEPTH {
            let boost = at.cell.lock().owned.iter().map(State::top_priority).max().unwrap_or(0);
            if at.boost.swap(boost, Ordering::Relaxed) == boost {
                return;
            }
            self.apply(&at);
            match at.waits_for().and_then(|s| s.owner()) {
                Some(owner) => at = owner,
                None => return,
            }
        }
    }
}
