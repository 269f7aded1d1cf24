//! `XArray`: a radix tree from a `u64` index to an entry, with three tag bits each.
//!
//! Made for the page cache: lookups under RCU without a lock, gang lookups, and searches by tag
//! (dirty, writeback, towrite) that skip whole subtrees.
//!
//! Six index bits a level, so a tree of height h holds indices below 64^h. Each node counts its
//! children and has one 64-bit map per tag: a bit is set when the child has the tag, or for an
//! inner node when anything below has it.
//!
//! Writers take the tree's spin lock with interrupts off (write-back completes in interrupts).
//! Readers see a tree in which every published node is complete: nodes are filled before a release
//! store makes them reachable, never reused, and freed after a grace period. The root word is
//! tagged with its height in one word of its own, read together: root nodes know their shift.

use crate::entry::{Entry, acquire_slot};
use core::{marker::PhantomData, num::NonZeroUsize, ptr};
use kalloc::{AllocError, KBox};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    rcu::{self, ReadGuard},
};

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;

/// One of the three marks that an entry can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tag {
    /// The page cache's "dirty".
    Zero,
    /// The page cache's "under write-back".
    One,
    /// The page cache's "to be written in this pass".
    Two,
}

/// Why an entry was not put in; the entry comes back.
#[derive(Debug)]
pub enum InsertError<E> {
    /// The index is taken.
    Exists(E),
    /// There was no memory.
    NoMemory(E),
}

/// At the start, so that a pointer to the head is one to the node.
#[repr(C)]
struct Node {
    rcu: rcu::Head,
    /// Index bits below this node's digit.
    shift: u32,
    /// Children that are not null. Written under the tree's lock.
    count: AtomicU32,
    tags: [AtomicU64; 3],
    /// Entries if `shift` is 0, else nodes; 0 is none.
    slots: [AtomicUsize; SLOTS],
}

impl Node {
    fn try_new(shift: u32) -> Result<*mut Self, AllocError> {
        KBox::try_new(Self {
            rcu: rcu::Head::new(),
            shift,
            count: AtomicU32::new(0),
            tags: [const { AtomicU64::new(0) }; 3],
            slots: [const { AtomicUsize::new(0) }; SLOTS],
        })
        .map(KBox::into_raw)
    }

    fn digit(&self, index: u64) -> usize {
        (index >> self.shift) as usize % SLOTS
    }

    fn slot(&self, digit: usize) -> &AtomicUsize {
        #[allow(clippy::indexing_slicing)] // masked to the length
        &self.slots[digit % SLOTS]
    }

    fn tag(&self, tag: Tag) -> &AtomicU64 {
        match tag {
            Tag::Zero => &self.tags[0],
            Tag::One => &self.tags[1],
            Tag::Two => &self.tags[2],
        }
    }

    fn has(&self, tag: Tag, digit: usize) -> bool {
        self.tag(tag).load(Ordering::Relaxed) >> digit & 1 != 0
    }

    /// Whether an index that fits the tree belongs below this node when it is the root.
    fn covers(&self, index: u64) -> bool {
        // A root at shift 60 has four index bits left: all indices.
        index.checked_shr(self.shift + BITS).unwrap_or(0) == 0
    }
}

const ALL_TAGS: [Tag; 3] = [Tag::Zero, Tag::One, Tag::Two];

/// # Safety
/// `node` came from `Node::try_new`, is not reachable by new readers, and is freed once.
unsafe fn free_later(node: *mut Node) {
    unsafe fn free(head: ptr::NonNull<rcu::Head>) {
        // SAFETY: the head is the first field of a boxed Node that no reader sees any more.
        drop(unsafe { KBox::from_raw(head.as_ptr().cast::<Node>()) });
    }
    // SAFETY: the caller's condition; the head belongs to the callback from here.
    unsafe { rcu::call(ptr::NonNull::new_unchecked(node.cast::<rcu::Head>()), free) }
}

/// See the module's text.
pub struct XArray<E: Entry> {
    root: AtomicPtr<Node>,
    lock: SpinLock<usize>,
    _owns: PhantomData<E>,
}

// SAFETY: entries are Send + Sync; nodes are reached under the lock or under RCU.
unsafe impl<E: Entry> Send for XArray<E> {}
// SAFETY: as above.
unsafe impl<E: Entry> Sync for XArray<E> {}

/// The path from the root to a leaf: at most 11 levels of 6 bits.
struct Path {
    nodes: [*mut Node; 11],
    len: usize,
}

impl Path {
    fn push(&mut self, n: *mut Node) {
        if let Some(s) = self.nodes.get_mut(self.len) {
            *s = n;
            self.len += 1;
        }
    }
    fn iter_up(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().take(self.len).rev().map(|n| {
            // SAFETY: nodes on a path were found under the lock, which is still held.
            unsafe { &**n }
        })
    }
    fn leaf(&self) -> Option<&Node> {
        self.iter_up().next()
    }
}

impl<E: Entry> XArray<E> {
    /// Empty; needs no memory. `class` is that of the writers' lock.
    pub const fn new(class: &'static LockClass) -> Self {
        Self { root: AtomicPtr::new(ptr::null_mut()), lock: SpinLock::new(0, class), _owns: PhantomData }
    }

    /// Entries at this moment.
    pub fn len(&self) -> usize {
        *self.lock.lock_irq()
    }

    /// Whether there is no entry at this moment.
    pub fn is_empty(&self) -> bool {
        self.root.load(Ordering::Relaxed).is_null()
    }

    // ---- readers ----

    fn find_slot<'g>(&self, _guard: &'g ReadGuard, index: u64) -> Option<&'g AtomicUsize> {
        // Acquire here and below pairs with the release stores of the writers: a node is seen
        // with its content.
        // SAFETY: nodes found in a read section live until it ends.
        let mut node = unsafe { self.root.load(Ordering::Acquire).as_ref() }?;
        if !node.covers(index) {
            return None;
        }
        loop {
            let slot = node.slot(node.digit(index));
            if node.shift == 0 {
                return Some(slot);
            }
            let child = slot.load(Ordering::Acquire);
            // SAFETY: as above.
            node = unsafe { ptr::with_exposed_provenance::<Node>(child).as_ref() }?;
        }
    }

    /// What is at `index`, for as long as the read section lasts. For page frames the caller must
    /// take a speculative count and look again; [`get`](Self::get) does both.
    pub fn load<'g>(&self, guard: &'g ReadGuard, index: u64) -> Option<E::Ref<'g>> {
        let raw = NonZeroUsize::new(self.find_slot(guard, index)?.load(Ordering::Acquire))?;
        // SAFETY: loaded in this read section.
        Some(unsafe { E::peek(raw, guard) })
    }

    /// A handle of its own to what is at `index`.
    pub fn get(&self, index: u64) -> Option<E> {
        let guard = rcu::read_lock();
        let slot = self.find_slot(&guard, index)?;
        acquire_slot(slot, &guard)
    }

    /// The first entry with an index in `from..=to`: a handle of its own.
    pub fn next(&self, from: u64, to: u64) -> Option<(u64, E)> {
        self.search(from, to, None)
    }

    /// The first entry with an index in `from..=to` that has `tag`.
    pub fn next_tagged(&self, from: u64, to: u64, tag: Tag) -> Option<(u64, E)> {
        self.search(from, to, Some(tag))
    }

    /// Gang lookup: calls `visit` with each entry of `from..=to` (those with `tag`, if given) in
    /// ascending order until it returns false. No lock and no read section is held in `visit`.
    pub fn for_each(&self, from: u64, to: u64, tag: Option<Tag>, mut visit: impl FnMut(u64, E) -> bool) {
        let mut at = from;
        while let Some((index, entry)) = self.search(at, to, tag) {
            if !visit(index, entry) || index == to {
                return;
            }
            at = index + 1;
        }
    }

    fn search(&self, from: u64, to: u64, tag: Option<Tag>) -> Option<(u64, E)> {
        let guard = rcu::read_lock();
        let mut at = from;
        'restart: while at <= to {
            // SAFETY: nodes found in a read section live until it ends.
            let mut node = unsafe { self.root.load(Ordering::Acquire).as_ref() }?;
            if !node.covers(at) {
                return None;
            }
            loop {
                // The first candidate child at or after `at` in this node.
                let first = node.digit(at);
                let found = (first..SLOTS).find(|d| {
                    tag.is_none_or(|t| node.has(t, *d)) && node.slot(*d).load(Ordering::Relaxed) != 0
                });
                let span = 1u64 << node.shift;
                let Some(digit) = found else {
                    // Nothing here: go on behind this node.
                    let next = (at | (span.wrapping_mul(SLOTS as u64).wrapping_sub(1))).checked_add(1);
                    match next {
                        // A node whose span is the whole range wraps to 0 above.
                        Some(n) if node.shift + BITS < 64 => at = n,
                        _ => return None,
                    }
                    continue 'restart;
                };
                if digit != first {
                    // Round down to the start of that child.
                    at = (at & !(span - 1)).wrapping_add(((digit - first) as u64) << node.shift);
                    if at > to {
                        return None;
                    }
                }
                let slot = node.slot(digit);
                if node.shift == 0 {
                    match acquire_slot(slot, &guard) {
                        Some(entry) => return Some((at, entry)),
                        None => {
                            at = at.checked_add(1)?;
                            continue 'restart;
                        }
                    }
                }
                let child = slot.load(Ordering::Acquire);
                // SAFETY: as above.
                match unsafe { ptr::with_exposed_provenance::<Node>(child).as_ref() } {
                    Some(n) => node = n,
                    None => continue 'restart,
                }
            }
        }
        None
    }

    /// Whether the entry at `index` has `tag`.
    pub fn get_tag(&self, index: u64, tag: Tag) -> bool {
        let guard = rcu::read_lock();
        // SAFETY: nodes found in a read section live until it ends.
        let Some(mut node) = (unsafe { self.root.load(Ordering::Acquire).as_ref() }) else { return false };
        let _ = &guard;
        if !node.covers(index) {
            return false;
        }
        loop {
            let digit = node.digit(index);
            if !node.has(tag, digit) {
                return false;
            }
            if node.shift == 0 {
                return true;
            }
            let child = node.slot(digit).load(Ordering::Acquire);
            // SAFETY: as above.
            match unsafe { ptr::with_exposed_provenance::<Node>(child).as_ref() } {
                Some(n) => node = n,
                None => return false,
            }
        }
    }

    /// Whether any entry has `tag`.
    pub fn any_tagged(&self, tag: Tag) -> bool {
        let _guard = rcu::read_lock();
        // SAFETY: nodes found in a read section live until it ends.
        let root = unsafe { self.root.load(Ordering::Acquire).as_ref() };
        root.is_some_and(|n| n.tag(tag).load(Ordering::Relaxed) != 0)
    }

    // ---- writers ----

    /// Puts `entry` at `index` if nothing is there. Any context.
    pub fn insert(&self, index: u64, entry: E) -> Result<(), InsertError<E>> {
        let mut len = self.lock.lock_irq();
        let Ok(path) = self.make_path(index) else { return Err(InsertError::NoMemory(entry)) };
        let Some(leaf) = path.leaf() else { return Err(InsertError::NoMemory(entry)) };
        let slot = leaf.slot(leaf.digit(index));
        if slot.load(Ordering::Relaxed) != 0 {
            return Err(InsertError::Exists(entry));
        }
        // Release pairs with the readers' acquire: the object is seen with its content.
        slot.store(entry.into_raw().get(), Ordering::Release);
        leaf.count.fetch_add(1, Ordering::Relaxed);
        *len += 1;
        Ok(())
    }

    /// Puts `entry` at `index`, whatever is there; that comes back. Tags of the index stay.
    pub fn store(&self, index: u64, entry: E) -> Result<Option<E>, (AllocError, E)> {
        let mut len = self.lock.lock_irq();
        let path = match self.make_path(index) {
            Ok(p) => p,
            Err(e) => return Err((e, entry)),
        };
        let Some(leaf) = path.leaf() else { return Err((AllocError, entry)) };
        let slot = leaf.slot(leaf.digit(index));
        let old = slot.swap(entry.into_raw().get(), Ordering::AcqRel);
        if old == 0 {
            leaf.count.fetch_add(1, Ordering::Relaxed);
            *len += 1;
        }
        drop(len);
        // SAFETY: the word has just left the tree.
        Ok(NonZeroUsize::new(old).map(|raw| unsafe { E::take(raw) }))
    }

    /// Takes out what is at `index`.
    pub fn remove(&self, index: u64) -> Option<E> {
        self.remove_if(index, |_| true)
    }

    /// Takes out what is at `index` if `wanted` says so of its word (compare with
    /// [`Entry::into_raw`] of what is expected). Runs under the lock.
    pub fn remove_if(&self, index: u64, wanted: impl FnOnce(NonZeroUsize) -> bool) -> Option<E> {
        let mut len = self.lock.lock_irq();
        let path = self.find_path(index)?;
        let leaf = path.leaf()?;
        let digit = leaf.digit(index);
        let raw = NonZeroUsize::new(leaf.slot(digit).load(Ordering::Relaxed))?;
        if !wanted(raw) {
            return None;
        }
        for tag in ALL_TAGS {
            clear_tag_up(&path, index, tag);
        }
        leaf.slot(digit).store(0, Ordering::Release);
        *len -= 1;
        self.drop_empty(&path, index);
        drop(len);
        // SAFETY: the word has just left the tree.
        Some(unsafe { E::take(raw) })
    }

    /// Gives the entry at `index` a tag; false if there is no entry.
    pub fn set_tag(&self, index: u64, tag: Tag) -> bool {
        let _len = self.lock.lock_irq();
        let Some(path) = self.find_path(index) else { return false };
        if path.leaf().is_none_or(|l| l.slot(l.digit(index)).load(Ordering::Relaxed) == 0) {
            return false;
        }
        for node in path.iter_up() {
            let bit = 1 << node.digit(index);
            if node.tag(tag).fetch_or(bit, Ordering::Relaxed) & bit != 0 {
                break;
            }
        }
        true
    }

    /// Takes a tag from the entry at `index`; whether it had it.
    pub fn clear_tag(&self, index: u64, tag: Tag) -> bool {
        let _len = self.lock.lock_irq();
        match self.find_path(index) {
            Some(path) => clear_tag_up(&path, index, tag),
            None => false,
        }
    }

    /// Gives all entries in `from..=to` that have tag `has` the tag `gets` too, at most `max` of
    /// them; the index behind the last one looked at, or `None` when the range was done.
    pub fn copy_tag(&self, from: u64, to: u64, has: Tag, gets: Tag, max: usize) -> Option<u64> {
        let mut at = from;
        for _ in 0..max {
            let (index, _entry) = self.next_tagged(at, to, has)?;
            self.set_tag(index, gets);
            if index == to {
                return None;
            }
            at = index + 1;
        }
        Some(at)
    }

    /// The nodes from the root to the leaf of `index`, if they exist. Under the lock.
    fn find_path(&self, index: u64) -> Option<Path> {
        let mut path = Path { nodes: [ptr::null_mut(); 11], len: 0 };
        let mut at = self.root.load(Ordering::Relaxed);
        loop {
            // SAFETY: under the lock every reachable node is alive.
            let node = unsafe { at.as_ref() }?;
            if path.len == 0 && !node.covers(index) {
                return None;
            }
            path.push(at);
            if node.shift == 0 {
                return Some(path);
            }
            at = ptr::with_exposed_provenance_mut(node.slot(node.digit(index)).load(Ordering::Relaxed));
        }
    }

    /// The nodes from the root to the leaf of `index`, made where missing. Under the lock. After a
    /// failure the nodes that were made stay, and go with the next removal below them or the tree.
    fn make_path(&self, index: u64) -> Result<Path, AllocError> {
        let mut root = self.root.load(Ordering::Relaxed);
        if root.is_null() {
            let mut shift = 0;
            while index.checked_shr(shift + BITS).unwrap_or(0) != 0 {
                shift += BITS;
            }
            root = Node::try_new(shift)?;
            self.root.store(root, Ordering::Release);
        }
        // Grow upwards: the old root becomes child 0 of a new one, with its tags.
        // SAFETY: under the lock every reachable node is alive; new ones are ours.
        while let old = unsafe { &*root }
            && !old.covers(index)
        {
            let up = Node::try_new(old.shift + BITS)?;
            // SAFETY: just made.
            let node = unsafe { &*up };
            for tag in ALL_TAGS {
                let any = old.tag(tag).load(Ordering::Relaxed) != 0;
                node.tag(tag).store(u64::from(any), Ordering::Relaxed);
            }
            node.slot(0).store(root.expose_provenance(), Ordering::Relaxed);
            node.count.store(1, Ordering::Relaxed);
            self.root.store(up, Ordering::Release);
            root = up;
        }
        let mut path = Path { nodes: [ptr::null_mut(); 11], len: 0 };
        let mut at = root;
        loop {
            path.push(at);
            // SAFETY: as above.
            let node = unsafe { &*at };
            if node.shift == 0 {
                return Ok(path);
            }
            let slot = node.slot(node.digit(index));
            let mut child = ptr::with_exposed_provenance_mut::<Node>(slot.load(Ordering::Relaxed));
            if child.is_null() {
                child = Node::try_new(node.shift - BITS)?;
                slot.store(child.expose_provenance(), Ordering::Release);
                node.count.fetch_add(1, Ordering::Relaxed);
            }
            at = child;
        }
    }

    /// One child of the leaf is gone: unlinks the nodes that became empty. Under the lock.
    fn drop_empty(&self, path: &Path, index: u64) {
        for (depth, at) in path.nodes.iter().take(path.len).enumerate().rev() {
            // SAFETY: under the lock every node of the path is alive.
            let node = unsafe { &**at };
            if node.count.fetch_sub(1, Ordering::Relaxed) != 1 {
                return;
            }
            match depth.checked_sub(1).and_then(|d| path.nodes.get(d)) {
                Some(parent) => {
                    // SAFETY: as above.
                    let parent = unsafe { &**parent };
                    parent.slot(parent.digit(index)).store(0, Ordering::Release);
                }
                None => self.root.store(ptr::null_mut(), Ordering::Release),
            }
            // SAFETY: unlinked just now, once.
            unsafe { free_later(*at) };
        }
    }
}

fn clear_tag_up(path: &Path, index: u64, tag: Tag) -> bool {
    let mut had = false;
    for (level, node) in path.iter_up().enumerate() {
        let bit = 1u64 << node.digit(index);
        let old = node.tag(tag).fetch_and(!bit, Ordering::Relaxed);
        if level == 0 {
            had = old & bit != 0;
        }
        if old & !bit != 0 || old & bit == 0 {
            break;
        }
    }
    had
}

impl<E: Entry> Drop for XArray<E> {
    fn drop(&mut self) {
        // Depth first; at most 11 levels.
        fn free<E: Entry>(at: *mut Node) {
            // SAFETY: the tree is going: no writer, and readers that still look are covered by the
            // grace period that nodes and entries wait for.
            let node = unsafe { &*at };
            for slot in &node.slots {
                let Some(raw) = NonZeroUsize::new(slot.load(Ordering::Relaxed)) else { continue };
                if node.shift == 0 {
                    // SAFETY: leaves with the tree, once.
                    unsafe { E::drop_later(raw) };
                } else {
                    free::<E>(ptr::with_exposed_provenance_mut(raw.get()));
                }
            }
            // SAFETY: unreachable for new readers, once.
            unsafe { free_later(at) };
        }
        let root = *self.root.get_mut();
        if !root.is_null() {
            free::<E>(root);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalloc::KArc;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    static CLASS: LockClass = LockClass::new("test_xarray", 1320);

    fn arc(n: u32) -> KArc<u32> {
        KArc::try_new(n).unwrap()
    }

    /// Indices near each other, and at every height of the tree.
    fn index() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..200, (0u32..11, 0u64..3).prop_map(|(s, d)| (d << (6 * s)) + 1), Just(u64::MAX), Just(u64::MAX - 1)]
    }

    const TAGS: [Tag; 3] = [Tag::Zero, Tag::One, Tag::Two];

    proptest! {
        #[test]
        fn agrees_with_a_map(ops in prop::collection::vec((0u8..7, index(), 0usize..3), 0..200), probes in prop::collection::vec((index(), index()), 8)) {
            let x = XArray::<KArc<u32>>::new(&CLASS);
            let mut m: BTreeMap<u64, (u32, [bool; 3])> = BTreeMap::new();
            for (n, (op, i, t)) in ops.into_iter().enumerate() {
                let n = n as u32;
                match op {
                    0 | 1 => match x.insert(i, arc(n)) {
                        Ok(()) => prop_assert!(m.insert(i, (n, [false; 3])).is_none()),
                        Err(e) => prop_assert!(matches!(e, InsertError::Exists(_)) && m.contains_key(&i)),
                    },
                    2 => {
                        let old = x.store(i, arc(n)).ok().unwrap().map(|v| *v);
                        prop_assert_eq!(old, m.get(&i).map(|v| v.0));
                        m.entry(i).or_insert((n, [false; 3])).0 = n;
                    }
                    3 => prop_assert_eq!(x.remove(i).map(|v| *v), m.remove(&i).map(|v| v.0)),
                    4 | 5 => {
                        prop_assert_eq!(x.set_tag(i, TAGS[t]), m.contains_key(&i));
                        if let Some(v) = m.get_mut(&i) { v.1[t] = true; }
                    }
                    _ => {
                        let had = m.get_mut(&i).is_some_and(|v| core::mem::replace(&mut v.1[t], false));
                        prop_assert_eq!(x.clear_tag(i, TAGS[t]), had);
                    }
                }
                prop_assert_eq!(x.len(), m.len());
                prop_assert_eq!(x.get(i).map(|v| *v), m.get(&i).map(|v| v.0));
                for (t, tag) in TAGS.iter().enumerate() {
                    prop_assert_eq!(x.get_tag(i, *tag), m.get(&i).is_some_and(|v| v.1[t]));
                    prop_assert_eq!(x.any_tagged(*tag), m.values().any(|v| v.1[t]));
                }
            }
            for (a, b) in probes {
                let (a, b) = (a.min(b), a.max(b));
                let mut all = vec![];
                x.for_each(a, b, None, |i, v| { all.push((i, *v)); true });
                let want: Vec<_> = m.range(a..=b).map(|(i, v)| (*i, v.0)).collect();
                prop_assert_eq!(all, want);
                for (t, tag) in TAGS.iter().enumerate() {
                    let mut some = vec![];
                    x.for_each(a, b, Some(*tag), |i, _| { some.push(i); true });
                    let want: Vec<_> = m.range(a..=b).filter(|(_, v)| v.1[t]).map(|(i, _)| *i).collect();
                    prop_assert_eq!(some, want);
                }
            }
        }
    }

    #[test]
    fn counts_return_when_the_tree_is_gone_and_failures_change_nothing() {
        let values: Vec<_> = (0..100).map(arc).collect();
        let x = XArray::new(&CLASS);
        for (i, v) in values.iter().enumerate() {
            let at = (i as u64) * 1000;
            for n in 1.. {
                kalloc::fail_nth(n);
                let r = x.insert(at, v.clone());
                if kalloc::disarm() {
                    assert!(r.is_ok());
                    break;
                }
                assert!(matches!(r, Err(InsertError::NoMemory(_))));
                assert_eq!((x.len(), x.get(at).is_none()), (i, true));
            }
        }
        for i in 0..50 {
            drop(x.remove(i * 1000));
        }
        drop(x);
        rcu::barrier();
        rcu::barrier();
        assert!(values.iter().all(|v| KArc::strong_count(v) == 1));
    }

    #[test]
    fn readers_find_what_stays_while_the_tree_grows_and_shrinks() {
        let x = XArray::new(&CLASS);
        for i in 0..4 {
            x.insert(i, arc(i as u32)).ok().unwrap();
        }
        let stop = core::sync::atomic::AtomicBool::new(false);
        arch::sim::run_on_cpus(3, |cpu| {
            if cpu.0 == 0 {
                for n in 0..2000u64 {
                    let i = 1 << (6 * (n % 10) + 3);
                    x.insert(i, arc(1)).ok().unwrap();
                    x.set_tag(i, Tag::Zero);
                    x.remove(i).unwrap();
                    rcu::quiescent(cpu);
                    rcu::run_callbacks(cpu);
                }
                stop.store(true, Ordering::Release);
            } else {
                while !stop.load(Ordering::Acquire) {
                    for i in 0..4 {
                        assert_eq!(*x.get(i).unwrap(), i as u32);
                    }
                    assert_eq!(x.next(0, 3).unwrap().0, 0);
                    rcu::quiescent(cpu);
                }
            }
        });
    }
}
