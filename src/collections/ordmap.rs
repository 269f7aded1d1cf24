//! `OrdMap`: an ordered map whose insertion can be prepared beforehand, so that it cannot fail
//! under a lock.
//!
//! An AVL tree of boxed nodes (Adelson-Velsky and Landis 1962): depth at most 1.44 log2 n, so the
//! recursion is shallow. All of it is safe code.

use core::{cmp::Ordering, mem};
use kalloc::{AllocError, KBox};

type Tree<K, V> = Option<KBox<Node<K, V>>>;

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    value: V,
    height: u8,
    left: Tree<K, V>,
    right: Tree<K, V>,
}

/// An entry outside a map: made before a lock is taken, or taken out to be put in elsewhere.
#[derive(Debug)]
pub struct OrdNode<K, V>(KBox<Node<K, V>>);

impl<K, V> OrdNode<K, V> {
    /// Memory for one entry, with its content.
    pub fn try_new(key: K, value: V) -> Result<Self, AllocError> {
        KBox::try_new(Node { key, value, height: 1, left: None, right: None }).map(Self)
    }
    /// The key.
    pub fn key(&self) -> &K {
        &self.0.key
    }
    /// The key, to change it while the entry is in no map.
    pub fn key_mut(&mut self) -> &mut K {
        &mut self.0.key
    }
    /// The value.
    pub fn value(&self) -> &V {
        &self.0.value
    }
    /// The value.
    pub fn value_mut(&mut self) -> &mut V {
        &mut self.0.value
    }
    /// Both, without the memory.
    pub fn into_parts(self) -> (K, V) {
        let n = self.0.into_inner();
        (n.key, n.value)
    }
}

/// Memory for one entry; see [`OrdMap::reserve_node`].
#[derive(Debug)]
pub struct Reserved<K, V>(KBox<mem::MaybeUninit<Node<K, V>>>);

/// An ordered map.
#[derive(Debug)]
pub struct OrdMap<K, V> {
    root: Tree<K, V>,
    len: usize,
}

impl<K, V> OrdMap<K, V> {
    /// Empty; needs no memory.
    pub const fn new() -> Self {
        Self { root: None, len: 0 }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops all entries.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Memory for one entry, to be used by [`insert_reserved`](Self::insert_reserved).
    pub fn reserve_node() -> Result<Reserved<K, V>, AllocError> {
        KBox::try_new(mem::MaybeUninit::uninit()).map(Reserved)
    }

    /// The smallest key and its value.
    pub fn first(&self) -> Option<(&K, &V)> {
        let mut n = self.root.as_ref()?;
        while let Some(l) = &n.left {
            n = l;
        }
        Some((&n.key, &n.value))
    }

    /// The largest key and its value.
    pub fn last(&self) -> Option<(&K, &V)> {
        let mut n = self.root.as_ref()?;
        while let Some(r) = &n.right {
            n = r;
        }
        Some((&n.key, &n.value))
    }

    /// In ascending order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        let mut it = Iter { stack: [None; MAX_DEPTH], depth: 0 };
        it.descend(self.root.as_deref());
        it
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, v)| v)
    }

    /// Takes the entry with the smallest key.
    pub fn pop_first_node(&mut self) -> Option<OrdNode<K, V>> {
        let root = self.root.take()?;
        let (rest, first) = take_first(root);
        self.root = rest;
        self.len -= 1;
        Some(OrdNode(first))
    }

    /// Takes the entry with the smallest key.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        self.pop_first_node().map(OrdNode::into_parts)
    }
}

impl<K: Ord, V> OrdMap<K, V> {
    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        let mut at = self.root.as_ref();
        while let Some(n) = at {
            at = match key.cmp(&n.key) {
                Ordering::Less => n.left.as_ref(),
                Ordering::Greater => n.right.as_ref(),
                Ordering::Equal => return Some(&n.value),
            };
        }
        None
    }

    /// The value of `key`.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let mut at = self.root.as_mut();
        while let Some(n) = at {
            at = match key.cmp(&n.key) {
                Ordering::Less => n.left.as_mut(),
                Ordering::Greater => n.right.as_mut(),
                Ordering::Equal => return Some(&mut n.value),
            };
        }
        None
    }

    /// Whether there is an entry of `key`.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The entry with the smallest key that is not below `key`.
    pub fn lower_bound(&self, key: &K) -> Option<(&K, &V)> {
        self.iter_from(key).next()
    }

    /// The entry with the largest key that is not above `key`.
    pub fn floor(&self, key: &K) -> Option<(&K, &V)> {
        let mut best = None;
        let mut at = self.root.as_ref();
        while let Some(n) = at {
            if n.key <= *key {
                best = Some((&n.key, &n.value));
                at = n.right.as_ref();
            } else {
                at = n.left.as_ref();
            }
        }
        best
    }

    /// In ascending order from the smallest key that is not below `key`.
    pub fn iter_from(&self, key: &K) -> Iter<'_, K, V> {
        let mut it = Iter { stack: [None; MAX_DEPTH], depth: 0 };
        let mut at = self.root.as_deref();
        while let Some(n) = at {
            if n.key < *key {
                at = n.right.as_deref();
            } else {
                it.push(n);
                at = n.left.as_deref();
            }
        }
        it
    }

    /// Puts `value` under `key`; the value that was there comes back.
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>, AllocError> {
        if let Some(v) = self.get_mut(&key) {
            return Ok(Some(mem::replace(v, value)));
        }
        self.insert_node(OrdNode::try_new(key, value)?);
        Ok(None)
    }

    /// As [`insert`](Self::insert) with memory from before: cannot fail.
    pub fn insert_reserved(&mut self, memory: Reserved<K, V>, key: K, value: V) -> Option<V> {
        let node = Node { key, value, height: 1, left: None, right: None };
        let raw = KBox::into_raw(memory.0).cast::<Node<K, V>>();
        // SAFETY: the box has Node's layout and is uninitialised memory of ours; after the write it
        // is a box of a live Node.
        let node = unsafe {
            raw.write(node);
            KBox::from_raw(raw)
        };
        self.insert_node(OrdNode(node)).map(|old| old.into_parts().1)
    }

    /// Puts an entry in; the entry that had its key comes back.
    pub fn insert_node(&mut self, node: OrdNode<K, V>) -> Option<OrdNode<K, V>> {
        let mut node = node.0;
        node.height = 1;
        let (root, old) = insert(self.root.take(), node);
        self.root = Some(root);
        if old.is_none() {
            self.len += 1;
        }
        old.map(OrdNode)
    }

    /// Takes the entry of `key` out, memory and all.
    pub fn remove_node(&mut self, key: &K) -> Option<OrdNode<K, V>> {
        let (root, gone) = remove(self.root.take(), key);
        self.root = root;
        if gone.is_some() {
            self.len -= 1;
        }
        gone.map(OrdNode)
    }

    /// Takes the value of `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.remove_node(key).map(|n| n.into_parts().1)
    }
}

impl<K, V> Default for OrdMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Drop for OrdMap<K, V> {
    fn drop(&mut self) {
        // Node by node: the destructor of the root would recurse with every level's frame.
        while self.pop_first_node().is_some() {}
    }
}

fn height<K, V>(t: &Tree<K, V>) -> u8 {
    t.as_ref().map_or(0, |n| n.height)
}

fn update<K, V>(n: &mut KBox<Node<K, V>>) {
    n.height = 1 + height(&n.left).max(height(&n.right));
}

fn rotate_right<K, V>(mut n: KBox<Node<K, V>>) -> KBox<Node<K, V>> {
    let Some(mut l) = n.left.take() else { return n };
    n.left = l.right.take();
    update(&mut n);
    l.right = Some(n);
    update(&mut l);
    l
}

fn rotate_left<K, V>(mut n: KBox<Node<K, V>>) -> KBox<Node<K, V>> {
    let Some(mut r) = n.right.take() else { return n };
    n.right = r.left.take();
    update(&mut n);
    r.left = Some(n);
    update(&mut r);
    r
}

/// Restores the AVL condition at `n`, whose subtrees have it and differ by at most 2 in height.
fn balance<K, V>(mut n: KBox<Node<K, V>>) -> KBox<Node<K, V>> {
    let (l, r) = (height(&n.left), height(&n.right));
    if l > r + 1 {
        if let Some(left) = n.left.take() {
            let inner_is_higher = height(&left.right) > height(&left.left);
            n.left = Some(if inner_is_higher { rotate_left(left) } else { left });
        }
        rotate_right(n)
    } else if r > l + 1 {
        if let Some(right) = n.right.take() {
            let inner_is_higher = height(&right.left) > height(&right.right);
            n.right = Some(if inner_is_higher { rotate_right(right) } else { right });
        }
        rotate_left(n)
    } else {
        update(&mut n);
        n
    }
}

type Boxed<K, V> = KBox<Node<K, V>>;

fn insert<K: Ord, V>(at: Tree<K, V>, mut node: Boxed<K, V>) -> (Boxed<K, V>, Tree<K, V>) {
    let Some(mut n) = at else { return (node, None) };
    match node.key.cmp(&n.key) {
        Ordering::Equal => {
            node.left = n.left.take();
            node.right = n.right.take();
            node.height = n.height;
            (node, Some(n))
        }
        Ordering::Less => {
            let (l, old) = insert(n.left.take(), node);
            n.left = Some(l);
            (balance(n), old)
        }
        Ordering::Greater => {
            let (r, old) = insert(n.right.take(), node);
            n.right = Some(r);
            (balance(n), old)
        }
    }
}

/// The tree without its smallest entry, and that entry, alone.
fn take_first<K, V>(mut n: Boxed<K, V>) -> (Tree<K, V>, Boxed<K, V>) {
    match n.left.take() {
        None => (n.right.take(), n),
        Some(l) => {
            let (rest, first) = take_first(l);
            n.left = rest;
            (Some(balance(n)), first)
        }
    }
}

fn remove<K: Ord, V>(at: Tree<K, V>, key: &K) -> (Tree<K, V>, Tree<K, V>) {
    let Some(mut n) = at else { return (None, None) };
    match key.cmp(&n.key) {
        Ordering::Less => {
            let (l, gone) = remove(n.left.take(), key);
            n.left = l;
            (Some(balance(n)), gone)
        }
        Ordering::Greater => {
            let (r, gone) = remove(n.right.take(), key);
            n.right = r;
            (Some(balance(n)), gone)
        }
        Ordering::Equal => {
            let rest = match (n.left.take(), n.right.take()) {
                (None, t) | (t, None) => t,
                (l, Some(r)) => {
                    let (r, mut up) = take_first(r);
                    up.left = l;
                    up.right = r;
                    Some(balance(up))
                }
            };
            (rest, Some(n))
        }
    }
}

/// 1.44 log2(2^44) rounded up: more entries than memory can hold.
const MAX_DEPTH: usize = 64;

/// Entries of an [`OrdMap`] in ascending order.
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    /// The nodes whose left side is done, and which come next from the top down.
    stack: [Option<&'a Node<K, V>>; MAX_DEPTH],
    depth: usize,
}

impl<'a, K, V> Iter<'a, K, V> {
    fn push(&mut self, n: &'a Node<K, V>) {
        if let Some(s) = self.stack.get_mut(self.depth) {
            *s = Some(n);
            self.depth += 1;
        }
    }
    fn descend(&mut self, mut at: Option<&'a Node<K, V>>) {
        while let Some(n) = at {
            self.push(n);
            at = n.left.as_deref();
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);
    fn next(&mut self) -> Option<Self::Item> {
        self.depth = self.depth.checked_sub(1)?;
        let n = self.stack.get(self.depth).copied().flatten()?;
        self.descend(n.right.as_deref());
        Some((&n.key, &n.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn check<K: Ord, V>(t: &Tree<K, V>) -> u8 {
        let Some(n) = t else { return 0 };
        let (l, r) = (check(&n.left), check(&n.right));
        assert!(l.abs_diff(r) <= 1, "AVL condition");
        assert_eq!(n.height, 1 + l.max(r));
        n.height
    }

    proptest! {
        #[test]
        fn agrees_with_btreemap_and_stays_balanced(ops in prop::collection::vec((0u8..5, 0u16..60, any::<u8>()), 0..300), from in 0u16..60) {
            let mut t = OrdMap::new();
            let mut m = BTreeMap::new();
            for (op, k, v) in ops {
                match op {
                    0 | 1 => prop_assert_eq!(t.insert(k, v).unwrap(), m.insert(k, v)),
                    2 => prop_assert_eq!(t.remove(&k), m.remove(&k)),
                    3 => prop_assert_eq!(t.pop_first(), m.pop_first()),
                    _ => {
                        let r = OrdMap::reserve_node().unwrap();
                        prop_assert_eq!(t.insert_reserved(r, k, v), m.insert(k, v));
                    }
                }
                check(&t.root);
                prop_assert_eq!(t.len(), m.len());
                prop_assert_eq!(t.first(), m.first_key_value());
                prop_assert_eq!(t.last(), m.last_key_value());
            }
            prop_assert!(t.iter().eq(m.iter()));
            prop_assert!(t.iter_from(&from).eq(m.range(from..)));
            prop_assert_eq!(t.floor(&from), m.range(..=from).next_back());
            for k in 0..60 {
                prop_assert_eq!(t.get(&k), m.get(&k));
            }
        }
    }
}
