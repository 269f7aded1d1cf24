//! `HashTable`: a hash table of a fixed number of buckets, read under RCU, with a lock per bucket.
//!
//! Made for caches whose size is chosen at boot (dentries, inodes, futexes). The caller brings the
//! hash and the comparison; the table compares the full 64-bit hash before it asks. Elements are
//! held by `KArc` through a field of their own ([`HashLink`]), so that putting in needs no memory.
//!
//! A reader walks a bucket's chain without a lock. An element that is taken out keeps its `next`,
//! so a reader that stands on it goes on. If it is put in again at once (a rename), that reader
//! goes on in the other chain and may miss elements of its own: lookups that compete with renames
//! look again under the renames' sequence count.

use core::{marker::PhantomData, ptr, ptr::NonNull};
use kalloc::{AllocError, KArc, KVec};
use sync::{
    LockClass, RawSpinLock,
    atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering},
    rcu::ReadGuard,
};

/// The field by which an element hangs in a table.
pub struct HashLink {
    next: AtomicPtr<HashLink>,
    hash: AtomicU64,
    /// Address of the bucket that it is in, or `FREE`.
    bucket: AtomicUsize,
}

/// In no table.
const FREE: usize = 0;

impl HashLink {
    /// In no table.
    pub const fn new() -> Self {
        Self { next: AtomicPtr::new(ptr::null_mut()), hash: AtomicU64::new(0), bucket: AtomicUsize::new(FREE) }
    }

    /// Whether it is in a table at this moment.
    pub fn is_hashed(&self) -> bool {
        self.bucket.load(Ordering::Acquire) != FREE
    }
}

impl Default for HashLink {
    fn default() -> Self {
        Self::new()
    }
}

/// Which field of which type is the link. Made by [`hash_field!`](crate::hash_field).
///
/// # Safety
/// `OFFSET` is that of a field of type `HashLink`, directly in `Value`.
pub unsafe trait HashField {
    /// The elements' type.
    type Value: Send + Sync + 'static;
    /// Offset of the field.
    const OFFSET: usize;
}

/// Names a hash link field: `hash_field!(pub ByName: Dentry => hash);`
#[macro_export]
macro_rules! hash_field {
    ($(#[$meta:meta])* $vis:vis $name:ident: $ty:ty => $field:ident) => {
        $(#[$meta])*
        $vis struct $name;
        // SAFETY: the offset is the compiler's; the function beside it type-checks the field.
        unsafe impl $crate::HashField for $name {
            type Value = $ty;
            const OFFSET: usize = {
                let _check: fn(&$ty) -> &$crate::HashLink = |v| &v.$field;
                ::core::mem::offset_of!($ty, $field)
            };
        }
    };
}

struct Bucket {
    first: AtomicPtr<HashLink>,
    lock: RawSpinLock,
}

/// See the module's text.
pub struct HashTable<A: HashField> {
    buckets: KVec<Bucket>,
    class: &'static LockClass,
    _owns: PhantomData<KArc<A::Value>>,
}

// SAFETY: elements are Send + Sync; chains are changed under the bucket's lock.
unsafe impl<A: HashField> Send for HashTable<A> {}
// SAFETY: as above.
unsafe impl<A: HashField> Sync for HashTable<A> {}

impl<A: HashField> HashTable<A> {
    /// A table of `2^order` buckets; `class` is that of the buckets' locks.
    pub fn try_new(order: u32, class: &'static LockClass) -> Result<Self, AllocError> {
        let n = 1usize.checked_shl(order).ok_or(AllocError)?;
        let mut buckets = KVec::try_with_capacity(n)?;
        for _ in 0..n {
            buckets.try_push(Bucket { first: AtomicPtr::new(ptr::null_mut()), lock: RawSpinLock::new() })?;
        }
        Ok(Self { buckets, class, _owns: PhantomData })
    }

    /// How many buckets there are.
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    fn bucket(&self, hash: u64) -> &Bucket {
        // Fibonacci hashing: the high bits of the product depend on all bits of the hash, so that
        // a hash with poor low bits still spreads.
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let n = self.buckets.len();
        let at = if n <= 1 { 0 } else { (mixed >> (64 - n.trailing_zeros())) as usize };
        #[allow(clippy::indexing_slicing)] // a shift by 64 - log2(n) leaves a number below n
        &self.buckets[at]
    }

    fn link_of(v: *const A::Value) -> *mut HashLink {
        v.wrapping_byte_add(A::OFFSET).cast::<HashLink>().cast_mut()
    }

    fn value_of(l: *const HashLink) -> *const A::Value {
        l.wrapping_byte_sub(A::OFFSET).cast()
    }

    /// The element of this hash of which `is` is true, for as long as the read section lasts.
    /// `is` runs in the read section and sees elements that may just have been taken out.
    #[inline]
    pub fn lookup<'g>(&self, _guard: &'g ReadGuard, hash: u64, mut is: impl FnMut(&A::Value) -> bool) -> Option<&'g A::Value> {
        // Acquire pairs with the release in `insert`: an element is seen with its content.
        let mut at = self.bucket(hash).first.load(Ordering::Acquire);
        // SAFETY: elements found in a read section live until it ends: the table's count goes
        // after a grace period.
        while let Some(link) = unsafe { at.as_ref() } {
            if link.hash.load(Ordering::Relaxed) == hash {
                // SAFETY: as above.
                let v = unsafe { &*Self::value_of(link) };
                if is(v) {
                    return Some(v);
                }
            }
            at = link.next.load(Ordering::Acquire);
        }
        None
    }

    /// A handle of its own to the element of this hash of which `is` is true.
    pub fn get(&self, hash: u64, is: impl FnMut(&A::Value) -> bool) -> Option<KArc<A::Value>> {
        let guard = sync::rcu::read_lock();
        // SAFETY: the table's count exists while the guard does.
        self.lookup(&guard, hash, is).map(|v| unsafe { KArc::clone_from_ptr(v) })
    }

    /// Puts an element in. It comes back if it is in a table.
    pub fn insert(&self, hash: u64, v: KArc<A::Value>) -> Result<(), KArc<A::Value>> {
        self.insert_unless(hash, v, |_| false).map(|_| ()).map_err(|(v, _)| v)
    }

    /// Puts an element in unless one of this hash is there of which `is` is true: then that one
    /// and the new one come back.
    #[allow(clippy::type_complexity)]
    pub fn insert_unless(
        &self,
        hash: u64,
        v: KArc<A::Value>,
        mut is: impl FnMut(&A::Value) -> bool,
    ) -> Result<(), (KArc<A::Value>, Option<KArc<A::Value>>)> {
        let bucket = self.bucket(hash);
        let _held = bucket.lock.lock(self.class);
        let mut at = bucket.first.load(Ordering::Relaxed);
        // SAFETY: under the bucket's lock the chain's elements are held by the table.
        while let Some(link) = unsafe { at.as_ref() } {
            if link.hash.load(Ordering::Relaxed) == hash {
                // SAFETY: as above.
                let there = unsafe { &*Self::value_of(link) };
                if is(there) {
                    // SAFETY: as above.
                    return Err((v, Some(unsafe { KArc::clone_from_ptr(there) })));
                }
            }
            at = link.next.load(Ordering::Relaxed);
        }
        let link = Self::link_of(KArc::as_ptr(&v));
        // SAFETY: part of the value, which `v` keeps.
        let l = unsafe { &*link };
        let me = ptr::from_ref(bucket).addr();
        // Acquire pairs with the release in `unlink_where`, if it was in another bucket before.
        if l.bucket.compare_exchange(FREE, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err((v, None));
        }
        let link = Self::link_of(KArc::into_raw(v));
        l.hash.store(hash, Ordering::Relaxed);
        l.next.store(bucket.first.load(Ordering::Relaxed), Ordering::Relaxed);
        // Release pairs with the readers' acquire.
        bucket.first.store(link, Ordering::Release);
        Ok(())
    }

    /// Takes this element out, if it is in this table. A handle of its own comes back; the table's
    /// is dropped after a grace period.
    pub fn remove(&self, v: &A::Value) -> Option<KArc<A::Value>> {
        let link = Self::link_of(v);
        // SAFETY: part of `v`.
        let hash = unsafe { &*link }.hash.load(Ordering::Relaxed);
        self.unlink_where(hash, |l| ptr::eq(l, link), |_| true)
    }

    /// Takes out the element of this hash of which `is` is true.
    pub fn remove_where(&self, hash: u64, mut is: impl FnMut(&A::Value) -> bool) -> Option<KArc<A::Value>> {
        self.unlink_where(hash, |l| l.hash.load(Ordering::Relaxed) == hash, &mut is)
    }

    fn unlink_where(
        &self,
        hash: u64,
        candidate: impl Fn(&HashLink) -> bool,
        mut is: impl FnMut(&A::Value) -> bool,
    ) -> Option<KArc<A::Value>> {
        let bucket = self.bucket(hash);
        let _held = bucket.lock.lock(self.class);
        let mut place = &bucket.first;
        loop {
            let at = place.load(Ordering::Relaxed);
            // SAFETY: under the bucket's lock the chain's elements are held by the table.
            let link = unsafe { at.as_ref() }?;
            // SAFETY: as above.
            if candidate(link) && is(unsafe { &*Self::value_of(link) }) {
                // The element keeps its own `next` for readers that stand on it.
                place.store(link.next.load(Ordering::Relaxed), Ordering::Release);
                link.bucket.store(FREE, Ordering::Release);
                // SAFETY: the table's count, taken out once.
                unsafe {
                    let handle = KArc::clone_from_ptr(Self::value_of(at));
                    KArc::drop_after_grace_period(KArc::from_raw(Self::value_of(at)));
                    return Some(handle);
                }
            }
            place = &link.next;
        }
    }

    /// Calls `visit` with each element in a read section of each bucket; false ends it.
    pub fn for_each(&self, mut visit: impl FnMut(&A::Value) -> bool) {
        for bucket in &self.buckets {
            let _guard = sync::rcu::read_lock();
            let mut at = bucket.first.load(Ordering::Acquire);
            // SAFETY: as in `lookup`.
            while let Some(link) = unsafe { at.as_ref() } {
                // SAFETY: as in `lookup`.
                if !visit(unsafe { &*Self::value_of(link) }) {
                    return;
                }
                at = link.next.load(Ordering::Acquire);
            }
        }
    }
}

impl<A: HashField> Drop for HashTable<A> {
    fn drop(&mut self) {
        for bucket in &self.buckets {
            let mut at = bucket.first.swap(ptr::null_mut(), Ordering::Relaxed);
            while let Some(link) = NonNull::new(at) {
                // SAFETY: no writer is left; readers that still look are covered by the grace
                // period. The element's `next` is read before its count goes.
                unsafe {
                    at = link.as_ref().next.load(Ordering::Relaxed);
                    link.as_ref().bucket.store(FREE, Ordering::Relaxed);
                    KArc::drop_after_grace_period(KArc::from_raw(Self::value_of(link.as_ptr())));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use sync::rcu;

    static CLASS: LockClass = LockClass::new("test_hash", 1520);

    struct Item {
        key: u64,
        link: HashLink,
    }
    hash_field!(ByKey: Item => link);

    fn item(key: u64) -> KArc<Item> {
        KArc::try_new(Item { key, link: HashLink::new() }).unwrap()
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(order in 0u32..4, ops in prop::collection::vec((0u8..4, 0u64..40), 0..200)) {
            let t = HashTable::<ByKey>::try_new(order, &CLASS).unwrap();
            let mut m: BTreeMap<u64, KArc<Item>> = BTreeMap::new();
            for (op, k) in ops {
                // Few hashes, so that different keys meet in one chain.
                let hash = k % 5;
                match op {
                    0 => {
                        let new = item(k);
                        let r = t.insert_unless(hash, new.clone(), |v| v.key == k);
                        prop_assert_eq!(r.is_ok(), !m.contains_key(&k));
                        m.entry(k).or_insert(new);
                    }
                    1 => {
                        let gone = t.remove_where(hash, |v| v.key == k);
                        prop_assert_eq!(gone.is_some(), m.remove(&k).is_some());
                    }
                    2 => if let Some(v) = m.get(&k) {
                        // A rename: out and in again at once.
                        let v = t.remove(v).unwrap();
                        prop_assert!(!v.link.is_hashed());
                        prop_assert!(t.insert(hash, v).is_ok());
                    },
                    _ => prop_assert_eq!(t.get(hash, |v| v.key == k).map(|v| v.key), m.get(&k).map(|v| v.key)),
                }
                let mut n = 0;
                t.for_each(|v| { n += usize::from(m.contains_key(&v.key)); true });
                prop_assert_eq!(n, m.len());
            }
            drop(t);
            rcu::barrier();
            rcu::barrier();
            for v in m.values() {
                prop_assert_eq!(KArc::strong_count(v), 1);
            }
        }
    }

    #[test]
    fn readers_find_what_stays_while_others_come_and_go() {
        let t = HashTable::<ByKey>::try_new(1, &CLASS).unwrap();
        for k in 0..8 {
            assert!(t.insert(k, item(k)).is_ok());
        }
        let stop = std::sync::atomic::AtomicBool::new(false);
        arch::sim::run_on_cpus(3, |cpu| {
            if cpu.0 == 0 {
                for n in 0..3000u64 {
                    let k = 100 + n % 4;
                    assert!(t.insert(k, item(k)).is_ok());
                    assert!(t.remove_where(k, |v| v.key == k).is_some());
                    rcu::quiescent(cpu);
                    rcu::run_callbacks(cpu);
                }
                stop.store(true, Ordering::Release);
            } else {
                while !stop.load(Ordering::Acquire) {
                    for k in 0..8 {
                        assert_eq!(t.get(k, |v| v.key == k).unwrap().key, k);
                    }
                    rcu::quiescent(cpu);
                }
            }
        });
    }
}
