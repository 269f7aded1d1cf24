//! The nodes of a [`RangeMap`](super::RangeMap): their layout, changes to one node, and searches.
//!
//! A node with `fresh` set belongs to one edit, which may change it. Without, it is published and
//! nothing in it changes but `rcu` and `next`, which readers do not look at.

#![allow(clippy::indexing_slicing)] // positions come from the node's own length and are below FANOUT

use core::{cell::UnsafeCell, mem::ManuallyDrop, ptr, ptr::NonNull};
use kalloc::{AllocError, KArc, KBox};
use sync::rcu;

/// Slots in a node: such that it fills a 512-byte slab object.
pub(super) const FANOUT: usize = 14;
/// Levels that can exist: nodes are at least a third full on average, so 4^16 ranges.
pub(super) const HEIGHT: usize = 16;

/// A value at level 0, else a node of the level below.
pub(super) union Slot<V: Send + Sync + 'static> {
    pub(super) child: *mut Node<V>,
    value: ManuallyDrop<KArc<V>>,
}

impl<V: Send + Sync + 'static> Slot<V> {
    pub(super) fn new_value(v: KArc<V>) -> Self {
        Self { value: ManuallyDrop::new(v) }
    }
    fn bits(&self) -> Self {
        // SAFETY: both fields are one pointer; the copy takes no count.
        Self { child: unsafe { self.child } }
    }
}

/// At the start the RCU head, so that a pointer to it is one to the node.
#[repr(C)]
pub(super) struct Node<V: Send + Sync + 'static> {
    rcu: rcu::Head,
    /// Next in the edit's list of fresh or spare nodes.
    pub(super) next: *mut Node<V>,
    /// Next in the edit's list of retired nodes: the one field of a published node that its writer
    /// sets.
    retired_next: UnsafeCell<*mut Node<V>>,
    pub(super) level: u8,
    pub(super) len: u8,
    pub(super) fresh: bool,
    /// Fresh, but no longer in the tree.
    pub(super) dead: bool,
    /// Bit i: value i was put in by this edit, which owns its count until the commit.
    new: u16,
    /// Smallest start in the slot.
    starts: [u64; FANOUT],
    /// Largest end in the slot.
    ends: [u64; FANOUT],
    /// Largest gap between ranges inside the slot.
    gaps: [u64; FANOUT],
    slots: [Slot<V>; FANOUT],
}

impl<V: Send + Sync + 'static> Node<V> {
    pub(super) fn try_new() -> Result<*mut Self, AllocError> {
        KBox::try_new(Self {
            rcu: rcu::Head::new(),
            next: ptr::null_mut(),
            retired_next: UnsafeCell::new(ptr::null_mut()),
            level: 0,
            len: 0,
            fresh: true,
            dead: false,
            new: 0,
            starts: [0; FANOUT],
            ends: [0; FANOUT],
            gaps: [0; FANOUT],
            slots: [const { Slot { child: ptr::null_mut() } }; FANOUT],
        })
        .map(KBox::into_raw)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len as usize == FANOUT
    }

    pub(super) fn is_sparse(&self) -> bool {
        (self.len as usize) < FANOUT / 3
    }

    /// The first slot whose start is not below `start`.
    pub(super) fn position(&self, start: u64) -> usize {
        self.starts[..self.len as usize].iter().position(|s| *s >= start).unwrap_or(self.len as usize)
    }

    /// The child in which `addr` is, or belongs.
    pub(super) fn child_of(&self, addr: u64) -> usize {
        self.starts[..self.len as usize].iter().rposition(|s| *s <= addr).unwrap_or(0)
    }

    pub(super) fn first_ending_after(&self, addr: u64) -> usize {
        self.ends[..self.len as usize].iter().position(|e| *e > addr).unwrap_or(self.len as usize)
    }

    pub(super) fn child(&self, i: usize) -> *mut Node<V> {
        debug_assert!(self.level > 0 && i < self.len as usize);
        // SAFETY: an inner node's slots are children.
        unsafe { self.slots[i].child }
    }

    pub(super) fn set_child(&mut self, i: usize, child: *mut Node<V>) {
        self.slots[i].child = child;
    }

    pub(super) fn entry(&self, i: usize) -> (u64, u64, &KArc<V>) {
        debug_assert!(self.level == 0 && i < self.len as usize);
        // SAFETY: a leaf's slots are values.
        (self.starts[i], self.ends[i], unsafe { &self.slots[i].value })
    }

    /// Smallest start, largest end, largest gap between.
    pub(super) fn summary(&self) -> (u64, u64, u64) {
        let n = self.len as usize;
        let between = (1..n).map(|i| self.starts[i] - self.ends[i - 1]).max().unwrap_or(0);
        let inside = self.gaps[..n].iter().copied().max().unwrap_or(0);
        (self.starts[0], self.ends[n.saturating_sub(1)], between.max(inside))
    }

    /// Takes child `i`'s summary anew.
    pub(super) fn refresh(&mut self, i: usize) {
        // SAFETY: children of a live inner node live.
        let (start, end, gap) = unsafe { &*self.child(i) }.summary();
        (self.starts[i], self.ends[i], self.gaps[i]) = (start, end, gap);
    }

    pub(super) fn set_range(&mut self, i: usize, start: u64, end: u64) {
        (self.starts[i], self.ends[i]) = (start, end);
    }

    pub(super) fn insert_at(&mut self, i: usize, start: u64, end: u64, gap: u64, slot: Slot<V>, new: bool) {
        let n = self.len as usize;
        self.starts.copy_within(i..n, i + 1);
        self.ends.copy_within(i..n, i + 1);
        self.gaps.copy_within(i..n, i + 1);
        for k in (i..n).rev() {
            self.slots[k + 1] = self.slots[k].bits();
        }
        (self.starts[i], self.ends[i], self.gaps[i]) = (start, end, gap);
        self.slots[i] = slot;
        let low = self.new & ((1 << i) - 1);
        self.new = (self.new & !low) << 1 | low | u16::from(new) << i;
        self.len += 1;
    }

    pub(super) fn remove_at(&mut self, i: usize) {
        let n = self.len as usize;
        self.starts.copy_within(i + 1..n, i);
        self.ends.copy_within(i + 1..n, i);
        self.gaps.copy_within(i + 1..n, i);
        for k in i + 1..n {
            self.slots[k - 1] = self.slots[k].bits();
        }
        let low = self.new & ((1 << i) - 1);
        self.new = (self.new >> 1) & !((1 << i) - 1) | low;
        self.len -= 1;
    }

    /// Takes value `i` out of a leaf: its range, its count, and whether this edit put it in.
    pub(super) fn take_value(&mut self, i: usize) -> (u64, u64, KArc<V>, bool) {
        debug_assert_eq!(self.level, 0);
        let (start, end) = (self.starts[i], self.ends[i]);
        let new = self.new >> i & 1 != 0;
        // SAFETY: a leaf's slots are values; this one leaves the slot array just below. If it is
        // not new, the count is the published map's, and the edit keeps it aside.
        let value = unsafe { ManuallyDrop::take(&mut self.slots[i].value) };
        self.remove_at(i);
        (start, end, value, new)
    }

    /// Inserts into a full node by moving its upper half to the empty `right`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn split_insert(
        &mut self,
        right: &mut Self,
        i: usize,
        start: u64,
        end: u64,
        gap: u64,
        slot: Slot<V>,
        new: bool,
    ) {
        // Ranges are mostly put in at the end of what is there: then the left half stays full.
        let keep = if i == FANOUT { FANOUT - 1 } else { FANOUT / 2 };
        for (to, from) in (keep..FANOUT).enumerate() {
            let is_new = self.new >> from & 1 != 0;
            right.insert_at(to, self.starts[from], self.ends[from], self.gaps[from], self.slots[from].bits(), is_new);
        }
        self.len = keep as u8;
        self.new &= (1 << keep) - 1;
        if i > keep {
            right.insert_at(i - keep, start, end, gap, slot, new);
        } else {
            self.insert_at(i, start, end, gap, slot, new);
        }
    }

    /// Takes in all slots of a neighbour (in front, or behind).
    pub(super) fn join(&mut self, other: &Self, in_front: bool) {
        for k in 0..other.len as usize {
            let at = if in_front { k } else { self.len as usize };
            let is_new = other.new >> k & 1 != 0;
            self.insert_at(at, other.starts[k], other.ends[k], other.gaps[k], other.slots[k].bits(), is_new);
        }
    }

    pub(super) fn copy_from(&mut self, old: &Self) {
        self.level = old.level;
        self.len = old.len;
        self.starts = old.starts;
        self.ends = old.ends;
        self.gaps = old.gaps;
        for (to, from) in self.slots.iter_mut().zip(&old.slots) {
            *to = from.bits();
        }
    }

    /// The edit gives the node up to the readers.
    pub(super) fn publish(&mut self) {
        self.fresh = false;
        self.new = 0;
        self.next = ptr::null_mut();
    }

    /// # Safety
    /// The caller holds the writers' lock, and the node has left the tree.
    pub(super) unsafe fn retire(&self, next: *mut Node<V>) {
        // SAFETY: only writers touch this field.
        unsafe { *self.retired_next.get() = next };
    }
}

/// The nodes from the root to a leaf, with the child taken in each.
pub(super) struct Path<V: Send + Sync + 'static> {
    nodes: [(*mut Node<V>, usize); HEIGHT],
    pub(super) len: usize,
}

impl<V: Send + Sync + 'static> Path<V> {
    pub(super) fn new() -> Self {
        Self { nodes: [(ptr::null_mut(), 0); HEIGHT], len: 0 }
    }
    pub(super) fn push(&mut self, n: *mut Node<V>, child: usize) {
        self.nodes[self.len] = (n, child);
        self.len += 1;
    }
    /// The node `level` steps above the leaf.
    pub(super) fn up(&self, level: usize) -> (*mut Node<V>, usize) {
        self.nodes[self.len - 1 - level]
    }
}

// ---- searches; the tree under `n` is alive for 'a ----

fn below<V: Send + Sync + 'static>(n: &Node<V>, i: usize) -> &Node<V> {
    // SAFETY: children of a live inner node live as long.
    unsafe { &*n.child(i) }
}

#[inline]
pub(super) fn find<V: Send + Sync + 'static>(mut n: &Node<V>, addr: u64) -> Option<(u64, u64, &KArc<V>)> {
    loop {
        let i = n.starts[..n.len as usize].iter().rposition(|s| *s <= addr)?;
        if addr >= n.ends[i] {
            return None;
        }
        if n.level == 0 {
            return Some(n.entry(i));
        }
        n = below(n, i);
    }
}

/// The last entry that ends at or before `addr`.
pub(super) fn prev<'a, V: Send + Sync + 'static>(mut n: &'a Node<V>, addr: u64) -> Option<(u64, u64, &'a KArc<V>)> {
    let mut best: Option<(&'a Node<V>, usize)> = None;
    loop {
        // Slots before the first that ends after `addr` end before it as a whole.
        let i = n.first_ending_after(addr);
        if n.level == 0 {
            return match (i.checked_sub(1), best) {
                (Some(k), _) => Some(n.entry(k)),
                (None, Some((m, k))) => {
                    let mut m = below(m, k);
                    while m.level > 0 {
                        m = below(m, m.len as usize - 1);
                    }
                    Some(m.entry(m.len as usize - 1))
                }
                (None, None) => None,
            };
        }
        if i > 0 {
            best = Some((n, i - 1));
        }
        n = if i < n.len as usize { below(n, i) } else { below(n, i - 1) };
    }
}

/// Lowest fitting gap in `low..high`.
pub(super) fn gap_up<V: Send + Sync + 'static>(root: Option<&Node<V>>, len: u64, low: u64, high: u64) -> Option<u64> {
    /// `free`: from where on nothing is known to be taken.
    fn search<V: Send + Sync + 'static>(n: &Node<V>, len: u64, high: u64, free: &mut u64) -> Option<u64> {
        for i in n.first_ending_after(*free)..n.len as usize {
            let (start, end) = (n.starts[i], n.ends[i]);
            if start.min(high).saturating_sub(*free) >= len {
                return Some(*free);
            }
            if start >= high {
                return None;
            }
            if n.level > 0 && n.gaps[i] >= len {
                let found = search(below(n, i), len, high, free);
                if found.is_some() {
                    return found;
                }
            }
            *free = (*free).max(end);
        }
        None
    }
    let mut free = low;
    if let Some(root) = root
        && let Some(at) = search(root, len, high, &mut free)
    {
        return Some(at);
    }
    (free <= high && high - free >= len).then_some(free)
}

/// Highest fitting gap in `low..high`.
pub(super) fn gap_down<V: Send + Sync + 'static>(root: Option<&Node<V>>, len: u64, low: u64, high: u64) -> Option<u64> {
    /// `free`: up to where nothing is known to be taken.
    fn search<V: Send + Sync + 'static>(n: &Node<V>, len: u64, low: u64, free: &mut u64) -> Option<u64> {
        for i in (0..n.len as usize).rev() {
            let (start, end) = (n.starts[i], n.ends[i]);
            if start >= *free {
                continue;
            }
            if free.saturating_sub(end.max(low)) >= len {
                return Some(*free - len);
            }
            if end <= low {
                return None;
            }
            if n.level > 0 && n.gaps[i] >= len {
                let found = search(below(n, i), len, low, free);
                if found.is_some() {
                    return found;
                }
            }
            *free = (*free).min(start);
        }
        None
    }
    let mut free = high;
    if let Some(root) = root
        && let Some(at) = search(root, len, low, &mut free)
    {
        return Some(at);
    }
    (free >= low && free - low >= len).then(|| free - len)
}

// ---- the end of nodes ----

/// # Safety
/// `n` was never published and is in no tree.
pub(super) unsafe fn free_now<V: Send + Sync + 'static>(n: *mut Node<V>) {
    // SAFETY: made by `try_new`; slots own nothing by themselves.
    drop(unsafe { KBox::from_raw(n) });
}

/// # Safety
/// The nodes linked by `next` were never published and hold no values.
pub(super) unsafe fn free_list<V: Send + Sync + 'static>(mut at: *mut Node<V>) {
    while !at.is_null() {
        // SAFETY: the caller's condition.
        unsafe {
            let next = (*at).next;
            free_now(at);
            at = next;
        }
    }
}

/// Frees the fresh nodes of an edit that is dropped, and gives up the counts of what it put in.
///
/// # Safety
/// The nodes linked by `next` were never published.
pub(super) unsafe fn free_fresh<V: Send + Sync + 'static>(mut at: *mut Node<V>) {
    while !at.is_null() {
        // SAFETY: the caller's condition; a value marked new is in exactly one live fresh leaf.
        unsafe {
            let n = &mut *at;
            let next = n.next;
            if n.level == 0 && !n.dead {
                for i in 0..n.len as usize {
                    if n.new >> i & 1 != 0 {
                        ManuallyDrop::drop(&mut n.slots[i].value);
                    }
                }
            }
            free_now(at);
            at = next;
        }
    }
}

/// # Safety
/// `n` was published, and new readers cannot reach it; called once.
unsafe fn free_later<V: Send + Sync + 'static>(n: *mut Node<V>) {
    /// # Safety
    /// `head` is that of a node that no reader sees any more.
    unsafe fn free<V: Send + Sync + 'static>(head: NonNull<rcu::Head>) {
        // SAFETY: the head is the node's first field; slots own nothing by themselves.
        drop(unsafe { KBox::from_raw(head.as_ptr().cast::<Node<V>>()) });
    }
    // SAFETY: the caller's condition; the head is the callback's from here.
    unsafe { rcu::call(NonNull::new_unchecked(n.cast::<rcu::Head>()), free::<V>) }
}

/// # Safety
/// The nodes linked by `retired_next` were published, and new readers cannot reach them.
pub(super) unsafe fn retire_list<V: Send + Sync + 'static>(mut at: *mut Node<V>) {
    while !at.is_null() {
        // SAFETY: the caller's condition; the link is read before the node goes.
        unsafe {
            let next = *(*at).retired_next.get();
            free_later(at);
            at = next;
        }
    }
}

/// Gives up a whole published tree and the counts of its values, after a grace period.
///
/// # Safety
/// New readers cannot reach it, and there is no writer.
pub(super) unsafe fn drop_tree<V: Send + Sync + 'static>(at: *mut Node<V>) {
    // SAFETY: the caller's condition; depth is at most HEIGHT.
    unsafe {
        let Some(n) = at.as_ref() else { return };
        for i in 0..n.len as usize {
            if n.level == 0 {
                KArc::drop_after_grace_period(ptr::read(&*n.slots[i].value));
            } else {
                drop_tree(n.child(i));
            }
        }
        free_later(at);
    }
}
