//! `ArcList`: a doubly linked list through a field of its elements, which it holds by `KArc`.
//!
//! Putting in and taking out need no memory and touch only neighbours. The list itself is plain
//! data (`&mut self`): it stands inside the lock that orders its users. An element is on at most
//! one list per link field; the link knows which, so taking an element out of a list that it is
//! not on does nothing.

use core::{cell::UnsafeCell, marker::PhantomData, ptr, ptr::NonNull};
use kalloc::KArc;
use sync::atomic::{AtomicU64, Ordering};

/// The field by which an element hangs on a list.
pub struct Link {
    /// Identity of the list that it is on; 0: none. It changes from 0 by the list that wins, and
    /// back to 0 by that list only, whose `&mut` orders everything else here.
    list: AtomicU64,
    next: UnsafeCell<*const Link>,
    prev: UnsafeCell<*const Link>,
}

// SAFETY: `next` and `prev` are accessed only through `&mut` of the list whose identity is in
// `list`.
unsafe impl Sync for Link {}
// SAFETY: a link on a list does not move (its element is in a KArc that the list holds).
unsafe impl Send for Link {}

impl Link {
    /// On no list.
    pub const fn new() -> Self {
        Self { list: AtomicU64::new(0), next: UnsafeCell::new(ptr::null()), prev: UnsafeCell::new(ptr::null()) }
    }

    /// Whether it is on some list at this moment.
    pub fn is_linked(&self) -> bool {
        self.list.load(Ordering::Acquire) != 0
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Link {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if self.is_linked() { "Link(on a list)" } else { "Link(free)" })
    }
}

/// Which field of which type is the link. Made by [`link_field!`](crate::link_field).
///
/// # Safety
/// `OFFSET` is that of a field of type `Link`, directly in `Value`.
pub unsafe trait LinkField {
    /// The elements' type.
    type Value: Send + Sync + 'static;
    /// Offset of the field.
    const OFFSET: usize;
}

/// Names a link field: `link_field!(pub RunLink: Thread => run_link);` makes the type `RunLink` for
/// `ArcList<RunLink>`.
#[macro_export]
macro_rules! link_field {
    ($(#[$meta:meta])* $vis:vis $name:ident: $ty:ty => $field:ident) => {
        $(#[$meta])*
        $vis struct $name;
        // SAFETY: the offset is the compiler's; the function beside it type-checks the field.
        unsafe impl $crate::LinkField for $name {
            type Value = $ty;
            const OFFSET: usize = {
                let _check: fn(&$ty) -> &$crate::Link = |v| &v.$field;
                ::core::mem::offset_of!($ty, $field)
            };
        }
    };
}

/// What [`ArcList::extract`] does with an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// It leaves the list.
    Take,
    /// It stays.
    Leave,
    /// It stays, and so do all behind it.
    Stop,
}

static NEXT_LIST: AtomicU64 = AtomicU64::new(1);

/// See the module's text.
pub struct ArcList<A: LinkField> {
    id: u64,
    first: *const Link,
    last: *const Link,
    len: usize,
    _owns: PhantomData<KArc<A::Value>>,
}

// SAFETY: the list is handles of Send + Sync values, plus links that it alone accesses.
unsafe impl<A: LinkField> Send for ArcList<A> {}
// SAFETY: `&ArcList` only reads.
unsafe impl<A: LinkField> Sync for ArcList<A> {}

impl<A: LinkField> ArcList<A> {
    /// Empty.
    pub const fn new() -> Self {
        Self { id: 0, first: ptr::null(), last: ptr::null(), len: 0, _owns: PhantomData }
    }

    fn link_of(v: *const A::Value) -> *const Link {
        v.wrapping_byte_add(A::OFFSET).cast()
    }

    fn value_of(l: *const Link) -> *const A::Value {
        l.wrapping_byte_sub(A::OFFSET).cast()
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether this element is on this list.
    pub fn contains(&self, v: &A::Value) -> bool {
        // SAFETY: the field is part of `v`.
        let link = unsafe { &*Self::link_of(v) };
        self.id != 0 && link.list.load(Ordering::Relaxed) == self.id
    }

    /// Takes the element's link for this list; the element comes back if it is on a list.
    fn claim(&mut self, v: KArc<A::Value>) -> Result<*const Link, KArc<A::Value>> {
        if self.id == 0 {
            self.id = NEXT_LIST.fetch_add(1, Ordering::Relaxed);
        }
        let link = Self::link_of(KArc::as_ptr(&v));
        // SAFETY: the field is part of the value, which `v` keeps.
        let list = unsafe { &(*link).list };
        // Acquire pairs with the release in `unlink`: the former list is done with the pointers.
        if list.compare_exchange(0, self.id, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(v);
        }
        Ok(Self::link_of(KArc::into_raw(v)))
    }

    /// Links `link` between two neighbours (null: the list's end).
    fn link_between(&mut self, prev: *const Link, link: *const Link, next: *const Link) {
        // SAFETY: all three are on this list (or null), so `&mut self` gives us their pointers.
        unsafe {
            *(*link).prev.get() = prev;
            *(*link).next.get() = next;
            match prev.as_ref() {
                Some(p) => *p.next.get() = link,
                None => self.first = link,
            }
            match next.as_ref() {
                Some(n) => *n.prev.get() = link,
                None => self.last = link,
            }
        }
        self.len += 1;
    }

    /// Takes a link that is on this list off it.
    fn unlink(&mut self, link: *const Link) -> KArc<A::Value> {
        // SAFETY: on this list, so `&mut self` gives us its and its neighbours' pointers; the
        // handle that the list held goes to the caller.
        unsafe {
            let (prev, next) = (*(*link).prev.get(), *(*link).next.get());
            match prev.as_ref() {
                Some(p) => *p.next.get() = next,
                None => self.first = next,
            }
            match next.as_ref() {
                Some(n) => *n.prev.get() = prev,
                None => self.last = prev,
            }
            self.len -= 1;
            // Release: pairs with the acquire in `claim`.
            (*link).list.store(0, Ordering::Release);
            KArc::from_raw(Self::value_of(link))
        }
    }

    /// Appends; the element comes back if it is on a list already.
    pub fn push_back(&mut self, v: KArc<A::Value>) -> Result<(), KArc<A::Value>> {
        let link = self.claim(v)?;
        self.link_between(self.last, link, ptr::null());
        Ok(())
    }

    /// Puts in front; the element comes back if it is on a list already.
    pub fn push_front(&mut self, v: KArc<A::Value>) -> Result<(), KArc<A::Value>> {
        let link = self.claim(v)?;
        self.link_between(ptr::null(), link, self.first);
        Ok(())
    }

    /// Puts in before the first element of which `after` is true, or at the end.
    pub fn insert_before(
        &mut self,
        v: KArc<A::Value>,
        mut after: impl FnMut(&A::Value) -> bool,
    ) -> Result<(), KArc<A::Value>> {
        let link = self.claim(v)?;
        let mut next = self.first;
        // SAFETY: links on this list are alive, and their pointers ours to read.
        unsafe {
            while !next.is_null() && !after(&*Self::value_of(next)) {
                next = *(*next).next.get();
            }
            let prev = if next.is_null() { self.last } else { *(*next).prev.get() };
            self.link_between(prev, link, next);
        }
        Ok(())
    }

    /// Takes the first.
    pub fn pop_front(&mut self) -> Option<KArc<A::Value>> {
        (!self.first.is_null()).then(|| self.unlink(self.first))
    }

    /// Takes the last.
    pub fn pop_back(&mut self) -> Option<KArc<A::Value>> {
        (!self.last.is_null()).then(|| self.unlink(self.last))
    }

    /// Takes this element out, if it is on this list.
    pub fn remove(&mut self, v: &A::Value) -> Option<KArc<A::Value>> {
        self.contains(v).then(|| self.unlink(Self::link_of(v)))
    }

    /// Takes the first element out of which `wanted` is true.
    pub fn remove_first(&mut self, mut wanted: impl FnMut(&A::Value) -> bool) -> Option<KArc<A::Value>> {
        let found = self.iter().find(|v| wanted(v)).map(ptr::from_ref)?;
        Some(self.unlink(Self::link_of(found)))
    }

    /// Takes elements out in one pass from the first on, as `choose` says of each; `taken` gets
    /// them. Neither sees the list.
    pub fn extract(&mut self, mut choose: impl FnMut(&A::Value) -> Choice, mut taken: impl FnMut(KArc<A::Value>)) {
        let mut at = self.first;
        while !at.is_null() {
            // SAFETY: a link on this list is alive, and its pointers ours to read.
            let (value, next) = unsafe { (&*Self::value_of(at), *(*at).next.get()) };
            match choose(value) {
                Choice::Take => taken(self.unlink(at)),
                Choice::Leave => {}
                Choice::Stop => return,
            }
            at = next;
        }
    }

    /// The first.
    pub fn front(&self) -> Option<&A::Value> {
        self.iter().next()
    }

    /// The last.
    pub fn back(&self) -> Option<&A::Value> {
        // SAFETY: alive while on the list, which is borrowed.
        (!self.last.is_null()).then(|| unsafe { &*Self::value_of(self.last) })
    }

    /// A handle of its own to the first.
    pub fn front_arc(&self) -> Option<KArc<A::Value>> {
        // SAFETY: the list holds a handle.
        self.front().map(|v| unsafe { KArc::clone_from_ptr(v) })
    }

    /// The element behind `v`, if `v` is on this list.
    pub fn next_of(&self, v: &A::Value) -> Option<&A::Value> {
        if !self.contains(v) {
            return None;
        }
        // SAFETY: on this list, which is borrowed: its pointers are ours to read.
        unsafe {
            let next = *(*Self::link_of(v)).next.get();
            NonNull::new(next.cast_mut()).map(|n| &*Self::value_of(n.as_ptr()))
        }
    }

    /// A handle of its own to the element behind `v`, if `v` is on this list.
    pub fn next_arc(&self, v: &A::Value) -> Option<KArc<A::Value>> {
        // SAFETY: the list holds a handle.
        self.next_of(v).map(|v| unsafe { KArc::clone_from_ptr(v) })
    }

    /// From the first to the last.
    pub fn iter(&self) -> Iter<'_, A> {
        Iter { at: self.first, _list: PhantomData }
    }

    /// Handles of their own, from the first to the last.
    pub fn iter_arc(&self) -> impl Iterator<Item = KArc<A::Value>> {
        // SAFETY: the list holds a handle of each.
        self.iter().map(|v| unsafe { KArc::clone_from_ptr(v) })
    }

    /// Moves all elements of `other` to the end of this list. Takes a step per element: each link
    /// changes its list.
    pub fn append(&mut self, other: &mut Self) {
        while let Some(v) = other.pop_front() {
            let _ = self.push_back(v);
        }
    }

    /// Drops all handles.
    pub fn clear(&mut self) {
        while self.pop_front().is_some() {}
    }
}

impl<A: LinkField> Default for ArcList<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: LinkField> Drop for ArcList<A> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Elements of an [`ArcList`].
pub struct Iter<'a, A: LinkField> {
    at: *const Link,
    _list: PhantomData<&'a ArcList<A>>,
}

impl<'a, A: LinkField> Iterator for Iter<'a, A> {
    type Item = &'a A::Value;
    fn next(&mut self) -> Option<&'a A::Value> {
        // SAFETY: the list is borrowed: its elements and their pointers stay.
        unsafe {
            let link = self.at.as_ref()?;
            self.at = *link.next.get();
            Some(&*ArcList::<A>::value_of(link))
        }
    }
}

impl<'a, A: LinkField> IntoIterator for &'a ArcList<A> {
    type Item = &'a A::Value;
    type IntoIter = Iter<'a, A>;
    fn into_iter(self) -> Iter<'a, A> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    struct Item {
        n: u32,
        link: Link,
    }
    link_field!(ItemLink: Item => link);

    fn item(n: u32) -> KArc<Item> {
        KArc::try_new(Item { n, link: Link::new() }).unwrap()
    }

    #[test]
    fn an_element_is_on_one_list_at_a_time_and_leaves_only_that() {
        let (mut a, mut b) = (ArcList::<ItemLink>::new(), ArcList::<ItemLink>::new());
        let x = item(1);
        assert!(a.push_back(x.clone()).is_ok());
        assert!(b.push_back(x.clone()).is_err());
        assert!(a.push_back(x.clone()).is_err());
        assert!(b.remove(&x).is_none());
        assert_eq!(KArc::strong_count(&x), 2);
        assert!(a.remove(&x).is_some());
        assert_eq!(KArc::strong_count(&x), 1);
        assert!(b.push_back(x.clone()).is_ok());
        drop(b);
        assert_eq!(KArc::strong_count(&x), 1);
        assert!(!x.link.is_linked());
    }

    #[test]
    fn extract_goes_over_each_element_once_and_stops_when_told() {
        let mut l = ArcList::<ItemLink>::new();
        let mut other = ArcList::<ItemLink>::new();
        for n in 0..10 {
            assert!(l.push_back(item(n)).is_ok());
        }
        let mut looks = 0;
        l.extract(
            |v| {
                looks += 1;
                match v.n {
                    8 => Choice::Stop,
                    n if n % 3 == 0 => Choice::Take,
                    _ => Choice::Leave,
                }
            },
            |v| assert!(other.push_back(v).is_ok()),
        );
        assert_eq!(looks, 9);
        assert!(l.iter().map(|v| v.n).eq([1, 2, 4, 5, 7, 8, 9]));
        assert!(other.iter().map(|v| v.n).eq([0, 3, 6]));
        assert_eq!((l.len(), other.len()), (7, 3));
    }

    proptest! {
        #[test]
        fn agrees_with_vecdeque(ops in prop::collection::vec((0u8..7, 0usize..12), 0..200)) {
            let items: Vec<_> = (0..12).map(item).collect();
            let mut l = ArcList::<ItemLink>::new();
            let mut m: VecDeque<u32> = VecDeque::new();
            for (op, i) in ops {
                let n = i as u32;
                match op {
                    0 => if l.push_back(items[i].clone()).is_ok() { m.push_back(n) },
                    1 => if l.push_front(items[i].clone()).is_ok() { m.push_front(n) },
                    2 => prop_assert_eq!(l.pop_front().map(|v| v.n), m.pop_front()),
                    3 => prop_assert_eq!(l.pop_back().map(|v| v.n), m.pop_back()),
                    4 => {
                        let had = m.contains(&n);
                        m.retain(|v| *v != n);
                        prop_assert_eq!(l.remove(&items[i]).is_some(), had);
                    }
                    5 => {
                        let was = m.contains(&n);
                        if l.insert_before(items[i].clone(), |v| v.n > n).is_ok() {
                            prop_assert!(!was);
                            let at = m.iter().position(|v| *v > n).unwrap_or(m.len());
                            m.insert(at, n);
                        }
                    }
                    _ => {
                        let at = m.iter().position(|v| *v == n);
                        prop_assert_eq!(l.next_of(&items[i]).map(|v| v.n), at.and_then(|a| m.get(a + 1).copied()));
                    }
                }
                prop_assert!(l.iter().map(|v| v.n).eq(m.iter().copied()));
                prop_assert_eq!(l.back().map(|v| v.n), m.back().copied());
                prop_assert_eq!(l.len(), m.len());
            }
        }
    }
}
