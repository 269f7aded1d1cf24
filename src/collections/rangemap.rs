//! `RangeMap`: disjoint ranges of `u64`, each with a value, read under RCU.
//!
//! Made for the areas of an address space: page faults look up while another thread maps and
//! unmaps. A B-tree whose published nodes never change: a writer copies the nodes on the way from
//! the root to what it changes, and publishes by one store of the root. A reader therefore sees
//! the map as it was at one moment, however many ranges an edit changed.
//!
//! Writers: [`RangeMap::edit`] takes the map's lock; inside the edit everything may fail and be
//! dropped without a trace; [`RangeEdit::commit`] cannot fail. Nodes that an edit replaced, and
//! the map's counts of values that it removed, go after a grace period.
//!
//! Inner nodes know the largest gap below each child, so the search for free room is logarithmic.

mod node;

use core::ptr;
use kalloc::{AllocError, KArc, KVec};
use node::{HEIGHT, Node, Path};
use sync::{
    LockClass, SpinGuard, SpinLock,
    atomic::{AtomicPtr, Ordering},
    rcu::ReadGuard,
};

/// Why a range was not put in; the value comes back.
#[derive(Debug)]
pub enum RangeError<V: Send + Sync + 'static> {
    /// It is empty, or overlaps one that is there.
    Overlap(KArc<V>),
    /// There was no memory.
    NoMemory(KArc<V>),
}

/// See the module's text.
pub struct RangeMap<V: Send + Sync + 'static> {
    root: AtomicPtr<Node<V>>,
    /// How many ranges there are.
    lock: SpinLock<usize>,
}

// SAFETY: values are Send + Sync; nodes are changed only before they are published.
unsafe impl<V: Send + Sync + 'static> Send for RangeMap<V> {}
// SAFETY: as above.
unsafe impl<V: Send + Sync + 'static> Sync for RangeMap<V> {}

impl<V: Send + Sync + 'static> RangeMap<V> {
    /// Empty; needs no memory. `class` is that of the writers' lock.
    pub const fn new(class: &'static LockClass) -> Self {
        Self { root: AtomicPtr::new(ptr::null_mut()), lock: SpinLock::new(0, class) }
    }

    /// How many ranges there are at this moment.
    pub fn len(&self) -> usize {
        *self.lock.lock()
    }

    /// Whether there is none at this moment.
    pub fn is_empty(&self) -> bool {
        self.root.load(Ordering::Relaxed).is_null()
    }

    fn root<'g>(&self, _guard: &'g ReadGuard) -> Option<&'g Node<V>> {
        // Acquire pairs with the release in `commit`: nodes are seen with their content.
        // SAFETY: invariant 1 of the crate: what is reachable in a read section lives until it
        // ends.
        unsafe { self.root.load(Ordering::Acquire).as_ref() }
    }

    /// The value of the range that contains `addr`, for as long as the read section lasts.
    #[inline]
    pub fn lookup<'g>(&self, guard: &'g ReadGuard, addr: u64) -> Option<&'g KArc<V>> {
        self.lookup_range(guard, addr).map(|(_, _, v)| v)
    }

    /// The range that contains `addr`: start, end (exclusive), value.
    #[inline]
    pub fn lookup_range<'g>(&self, guard: &'g ReadGuard, addr: u64) -> Option<(u64, u64, &'g KArc<V>)> {
        node::find(self.root(guard)?, addr)
    }

    /// The ranges that end after `addr`, ascending: the first contains `addr` or lies behind it.
    /// All as they were at one moment.
    pub fn iter_from<'g>(&self, guard: &'g ReadGuard, addr: u64) -> RangeIter<'g, V> {
        RangeIter::new(self.root(guard), addr)
    }

    /// All ranges, ascending.
    pub fn iter<'g>(&self, guard: &'g ReadGuard) -> RangeIter<'g, V> {
        self.iter_from(guard, 0)
    }

    /// The last range that ends at or before `addr`.
    pub fn prev<'g>(&self, guard: &'g ReadGuard, addr: u64) -> Option<(u64, u64, &'g KArc<V>)> {
        node::prev(self.root(guard)?, addr)
    }

    /// The lowest `at` such that `at..at + len` lies in `low..high` and touches no range.
    pub fn find_gap(&self, guard: &ReadGuard, len: u64, low: u64, high: u64) -> Option<u64> {
        node::gap_up(self.root(guard), len, low, high)
    }

    /// The highest `at` such that `at..at + len` lies in `low..high` and touches no range.
    pub fn find_gap_down(&self, guard: &ReadGuard, len: u64, low: u64, high: u64) -> Option<u64> {
        node::gap_down(self.root(guard), len, low, high)
    }

    /// Starts a change; other writers wait until it is committed or dropped. Preemption is off.
    pub fn edit(&self) -> RangeEdit<'_, V> {
        let guard = self.lock.lock();
        RangeEdit {
            map: self,
            len: *guard,
            guard,
            root: self.root.load(Ordering::Relaxed),
            fresh: ptr::null_mut(),
            retired: ptr::null_mut(),
            spare: ptr::null_mut(),
            removed: KVec::new(),
            committed: false,
        }
    }

    /// Takes all ranges out. Needs no memory, cannot fail.
    pub fn clear(&self) {
        let mut len = self.lock.lock();
        let root = self.root.swap(ptr::null_mut(), Ordering::AcqRel);
        *len = 0;
        // SAFETY: unreachable from here on, and the lock keeps writers out.
        unsafe { node::drop_tree(root) };
    }

    /// Puts one range in.
    pub fn insert(&self, start: u64, end: u64, value: KArc<V>) -> Result<(), RangeError<V>> {
        let mut edit = self.edit();
        edit.insert(start, end, value)?;
        edit.commit();
        Ok(())
    }

    /// Takes out the range that contains `addr`.
    pub fn remove(&self, addr: u64) -> Result<Option<KArc<V>>, AllocError> {
        let mut edit = self.edit();
        let gone = edit.remove(addr)?;
        edit.commit();
        Ok(gone.map(|(_, _, v)| v))
    }
}

impl<V: Send + Sync + 'static> Drop for RangeMap<V> {
    fn drop(&mut self) {
        let root = *self.root.get_mut();
        // SAFETY: no writer is left; readers are covered by the grace period.
        unsafe { node::drop_tree(root) };
    }
}

/// A change under way: see [`RangeMap::edit`]. Dropping it changes nothing.
pub struct RangeEdit<'m, V: Send + Sync + 'static> {
    map: &'m RangeMap<V>,
    guard: SpinGuard<'m, usize>,
    len: usize,
    /// The tree as it will be.
    root: *mut Node<V>,
    /// Nodes made by this edit, in the tree or dropped again.
    fresh: *mut Node<V>,
    /// Published nodes that are no longer in the tree.
    retired: *mut Node<V>,
    /// Nodes made beforehand, so that a change that has begun cannot fail.
    spare: *mut Node<V>,
    /// The map's counts of published values that this edit took out.
    removed: KVec<KArc<V>>,
    committed: bool,
}

impl<V: Send + Sync + 'static> RangeEdit<'_, V> {
    fn root(&self) -> Option<&Node<V>> {
        // SAFETY: the working tree's nodes are published or fresh; both live while the edit does.
        unsafe { self.root.as_ref() }
    }

    /// How many ranges there will be.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there will be none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// As [`RangeMap::lookup_range`], with this edit's changes.
    pub fn lookup(&self, addr: u64) -> Option<(u64, u64, &KArc<V>)> {
        node::find(self.root()?, addr)
    }

    /// As [`RangeMap::iter_from`], with this edit's changes.
    pub fn iter_from(&self, addr: u64) -> RangeIter<'_, V> {
        RangeIter::new(self.root(), addr)
    }

    /// As [`RangeMap::prev`], with this edit's changes.
    pub fn prev(&self, addr: u64) -> Option<(u64, u64, &KArc<V>)> {
        node::prev(self.root()?, addr)
    }

    /// As [`RangeMap::find_gap`], with this edit's changes.
    pub fn find_gap(&self, len: u64, low: u64, high: u64) -> Option<u64> {
        node::gap_up(self.root(), len, low, high)
    }

    /// As [`RangeMap::find_gap_down`], with this edit's changes.
    pub fn find_gap_down(&self, len: u64, low: u64, high: u64) -> Option<u64> {
        node::gap_down(self.root(), len, low, high)
    }

    fn overlaps(&self, start: u64, end: u64) -> bool {
        start >= end || self.iter_from(start).next().is_some_and(|(s, _, _)| s < end)
    }

    /// Puts a range in.
    pub fn insert(&mut self, start: u64, end: u64, value: KArc<V>) -> Result<(), RangeError<V>> {
        if self.overlaps(start, end) {
            return Err(RangeError::Overlap(value));
        }
        if self.reserve(start).is_err() {
            return Err(RangeError::NoMemory(value));
        }
        if self.root.is_null() {
            self.root = self.take_spare(0);
        }
        let path = self.own_path(start);
        let mut slot = node::Slot::new_value(value);
        let (mut start, mut end, mut gap) = (start, end, 0);
        let mut is_new = true;
        // Up from the leaf: put the slot in; if that splits the node, the right half goes into
        // the parent behind it.
        for level in 0..path.len {
            let (at, child) = path.up(level);
            let n = self.own(at);
            let position = if level == 0 {
                n.position(start)
            } else {
                n.refresh(child);
                child + 1
            };
            if n.is_full() {
                let right = self.take_spare(n.level);
                let (n, r) = (self.own(at), self.own(right));
                n.split_insert(r, position, start, end, gap, slot, is_new);
                (start, end, gap) = r.summary();
                slot = node::Slot { child: right };
                is_new = false;
            } else {
                n.insert_at(position, start, end, gap, slot, is_new);
                // No split: the levels above only take new summaries.
                for above in level + 1..path.len {
                    let (at, child) = path.up(above);
                    self.own(at).refresh(child);
                }
                self.len += 1;
                return Ok(());
            }
        }
        // The root was split.
        let left = self.root;
        let root = self.take_spare(path.len as u8);
        let (ls, le, lg) = self.own(left).summary();
        let r = self.own(root);
        r.insert_at(0, ls, le, lg, node::Slot { child: left }, false);
        r.insert_at(1, start, end, gap, slot, false);
        self.root = root;
        self.len += 1;
        Ok(())
    }

    /// Takes out the range that contains `addr`.
    #[allow(clippy::type_complexity)]
    pub fn remove(&mut self, addr: u64) -> Result<Option<(u64, u64, KArc<V>)>, AllocError> {
        if self.lookup(addr).is_none() {
            return Ok(None);
        }
        self.reserve(addr)?;
        self.removed.try_reserve(1)?;
        let path = self.own_path(addr);
        let (leaf, _) = path.up(0);
        let n = self.own(leaf);
        // `lookup` found it, so the position is that of the last start at or below `addr`.
        let at = n.position(addr.saturating_add(1)).saturating_sub(1);
        let (start, end, value, is_new) = n.take_value(at);
        let back = if is_new {
            value
        } else {
            let handle = value.clone();
            // The room was reserved.
            let _ = self.removed.push_within_capacity(value);
            handle
        };
        self.len -= 1;
        for level in 1..path.len {
            let (at, child) = path.up(level);
            let (below, _) = path.up(level - 1);
            self.mend(at, child, below);
        }
        // Shrink from the top.
        while let Some(root) = self.root() {
            if root.len == 0 {
                let old = self.root;
                self.root = ptr::null_mut();
                self.discard(old);
            } else if root.level > 0 && root.len == 1 {
                let old = self.root;
                self.root = root.child(0);
                self.discard(old);
            } else {
                break;
            }
        }
        Ok(Some((start, end, back)))
    }

    /// Moves the ends of the range that contains `addr`; false if there is none, or if the new
    /// range is empty or meets another.
    pub fn resize(&mut self, addr: u64, start: u64, end: u64) -> Result<bool, AllocError> {
        let Some((old_start, old_end, _)) = self.lookup(addr) else { return Ok(false) };
        if start >= end {
            return Ok(false);
        }
        let before = self.prev(old_start).is_some_and(|(_, e, _)| e > start);
        let behind = self.iter_from(old_end).next().is_some_and(|(s, _, _)| s < end);
        if before || behind {
            return Ok(false);
        }
        self.reserve(addr)?;
        let path = self.own_path(addr);
        let (leaf, _) = path.up(0);
        let n = self.own(leaf);
        let at = n.position(addr.saturating_add(1)).saturating_sub(1);
        n.set_range(at, start, end);
        for level in 1..path.len {
            let (at, child) = path.up(level);
            self.own(at).refresh(child);
        }
        Ok(true)
    }

    /// Gives the range that contains `addr` another value; the old one comes back.
    pub fn replace(&mut self, addr: u64, value: KArc<V>) -> Result<KArc<V>, RangeError<V>> {
        let Some((start, end, _)) = self.lookup(addr) else { return Err(RangeError::Overlap(value)) };
        // Room for both steps first: then neither can fail.
        if self.reserve(addr).is_err() || self.removed.try_reserve(1).is_err() {
            return Err(RangeError::NoMemory(value));
        }
        let path = self.own_path(addr);
        let (leaf, _) = path.up(0);
        let n = self.own(leaf);
        let at = n.position(addr.saturating_add(1)).saturating_sub(1);
        let (_, _, old, is_new) = n.take_value(at);
        n.insert_at(at, start, end, 0, node::Slot::new_value(value), true);
        if is_new {
            return Ok(old);
        }
        let handle = old.clone();
        let _ = self.removed.push_within_capacity(old);
        Ok(handle)
    }

    /// Publishes the change. Readers from now on see all of it.
    pub fn commit(mut self) {
        let mut at = self.fresh;
        // SAFETY: fresh nodes are ours alone until the store below.
        while let Some(n) = unsafe { at.as_mut() } {
            at = n.next;
            if n.dead {
                // SAFETY: not in the tree, never published.
                unsafe { node::free_now(n) };
            } else {
                n.publish();
            }
        }
        self.fresh = ptr::null_mut();
        // Release pairs with the readers' acquire in `RangeMap::root`.
        self.map.root.store(self.root, Ordering::Release);
        *self.guard = self.len;
        self.committed = true;
        // The rest is in `drop`.
    }

    // ---- nodes ----

    /// A node of this edit's own.
    #[allow(clippy::mut_from_ref)]
    fn own<'a>(&self, at: *mut Node<V>) -> &'a mut Node<V> {
        // SAFETY: called with nodes of `own_path` or `take_spare` only: fresh, not published, and
        // reached through this edit alone. Callers keep references to different nodes only.
        let n = unsafe { &mut *at };
        debug_assert!(n.fresh);
        n
    }

    /// Makes as many spare nodes as a change on the way to `addr` can need: a copy of each
    /// published node, another half of each full one, and a new root.
    fn reserve(&mut self, addr: u64) -> Result<(), AllocError> {
        let mut need = 2;
        let mut at = self.root;
        // SAFETY: nodes of the working tree live while the edit does.
        while let Some(n) = unsafe { at.as_ref() } {
            need += usize::from(!n.fresh) + usize::from(n.is_full());
            at = if n.level == 0 { ptr::null_mut() } else { n.child(n.child_of(addr)) };
        }
        let mut have = 0;
        let mut at = self.spare;
        // SAFETY: spare nodes are ours alone.
        while let Some(n) = unsafe { at.as_ref() } {
            have += 1;
            at = n.next;
        }
        while have < need {
            let n = Node::try_new()?;
            // SAFETY: just made.
            unsafe { (*n).next = self.spare };
            self.spare = n;
            have += 1;
        }
        Ok(())
    }

    fn take_spare(&mut self, level: u8) -> *mut Node<V> {
        let at = self.spare;
        // SAFETY: `reserve` made enough for any change; a null here is a bug in it, and is caught
        // by this reference's own check in debug builds.
        let n = unsafe { &mut *at };
        self.spare = n.next;
        n.level = level;
        n.next = self.fresh;
        self.fresh = at;
        at
    }

    /// The way from the root to the leaf for `addr`, with every node on it made this edit's own.
    fn own_path(&mut self, addr: u64) -> Path<V> {
        let mut path = Path::new();
        let mut at = self.own_or_copy(self.root);
        self.root = at;
        loop {
            let n = self.own(at);
            if n.level == 0 {
                path.push(at, 0);
                return path;
            }
            let child = n.child_of(addr);
            path.push(at, child);
            let below = self.own_or_copy(n.child(child));
            n.set_child(child, below);
            at = below;
        }
    }

    fn own_or_copy(&mut self, at: *mut Node<V>) -> *mut Node<V> {
        // SAFETY: nodes of the working tree live while the edit does.
        let old = unsafe { &*at };
        if old.fresh {
            return at;
        }
        let copy = self.take_spare(old.level);
        self.own(copy).copy_from(old);
        self.discard(at);
        copy
    }

    /// A node has left the working tree.
    fn discard(&mut self, at: *mut Node<V>) {
        // SAFETY: as in `own_or_copy`.
        if unsafe { (*at).fresh } {
            self.own(at).dead = true;
        } else {
            // SAFETY: `retired_next` is the writer's own field of a published node: readers never
            // look at it, and this edit holds the writers' lock.
            unsafe { (*at).retire(self.retired) };
            self.retired = at;
        }
    }

    /// Child `child` of `parent`, the node `below`, has lost a slot: takes it out if it is empty,
    /// joins it with a neighbour if both fit in one node, or renews its summary.
    fn mend(&mut self, parent: *mut Node<V>, child: usize, below: *mut Node<V>) {
        let (p, b) = (self.own(parent), self.own(below));
        if b.len == 0 {
            p.remove_at(child);
            self.discard(below);
            return;
        }
        if b.is_sparse() {
            for neighbour in [child.wrapping_sub(1), child + 1] {
                if neighbour >= p.len as usize {
                    continue;
                }
                let other = p.child(neighbour);
                // SAFETY: nodes of the working tree live while the edit does.
                let o = unsafe { &*other };
                if (o.len + b.len) as usize > node::FANOUT {
                    continue;
                }
                b.join(o, neighbour < child);
                p.remove_at(neighbour);
                p.refresh(if neighbour < child { neighbour } else { child });
                self.discard(other);
                return;
            }
        }
        p.refresh(child);
    }
}

impl<V: Send + Sync + 'static> Drop for RangeEdit<'_, V> {
    fn drop(&mut self) {
        // SAFETY: spare nodes are in no tree; fresh ones (not committed) are ours alone.
        unsafe {
            node::free_list(self.spare);
            node::free_fresh(self.fresh);
        }
        let removed = core::mem::take(&mut self.removed);
        if self.committed {
            // SAFETY: published nodes that the new tree does not reach.
            unsafe { node::retire_list(self.retired) };
            for v in removed {
                KArc::drop_after_grace_period(v);
            }
        } else {
            for v in removed {
                // The map's own count, which stays in the published tree.
                let _still_the_maps = core::mem::ManuallyDrop::new(v);
            }
        }
    }
}

/// Ranges of a [`RangeMap`] in ascending order, as they were at one moment.
pub struct RangeIter<'g, V: Send + Sync + 'static> {
    /// From the root down: the node, and which child or entry comes next.
    stack: [Option<(&'g Node<V>, usize)>; HEIGHT],
    depth: usize,
}

impl<'g, V: Send + Sync + 'static> RangeIter<'g, V> {
    fn new(root: Option<&'g Node<V>>, addr: u64) -> Self {
        let mut it = Self { stack: [None; HEIGHT], depth: 0 };
        let mut at = root;
        while let Some(n) = at {
            // The first child that has something that ends after `addr`.
            let i = n.first_ending_after(addr);
            let inner = n.level > 0 && i < n.len as usize;
            it.push(n, if inner { i + 1 } else { i });
            // SAFETY: children of a live inner node live as long.
            at = if inner { unsafe { n.child(i).as_ref() } } else { None };
        }
        it
    }

    fn push(&mut self, n: &'g Node<V>, next: usize) {
        if let Some(s) = self.stack.get_mut(self.depth) {
            *s = Some((n, next));
            self.depth += 1;
        }
    }
}

impl<'g, V: Send + Sync + 'static> Iterator for RangeIter<'g, V> {
    type Item = (u64, u64, &'g KArc<V>);
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let top = self.depth.checked_sub(1)?;
            let (n, next) = self.stack.get_mut(top)?.as_mut()?;
            let (node, i) = (*n, *next);
            if i >= node.len as usize {
                self.depth = top;
                continue;
            }
            *next += 1;
            if node.level == 0 {
                return Some(node.entry(i));
            }
            // SAFETY: children of a live inner node live as long.
            self.push(unsafe { &*node.child(i) }, 0);
        }
    }
}

#[cfg(test)]
mod tests;
