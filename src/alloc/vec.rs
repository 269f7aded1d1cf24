//! `KVec`: a growable array whose growth can fail.

use crate::{AllocError, KBox, TryClone, raw};
use core::{
    alloc::Layout,
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
    mem::{self, ManuallyDrop},
    ops::{Bound, Deref, DerefMut, RangeBounds},
    ptr::{self, NonNull},
    slice,
};

/// A growable array.
pub struct KVec<T> {
    ptr: NonNull<T>,
    /// Elements there is room for; for a zero-sized T this is not used.
    cap: usize,
    len: usize,
    _owns: PhantomData<T>,
}

// SAFETY: a KVec owns its elements alone (invariant 1).
unsafe impl<T: Send> Send for KVec<T> {}
// SAFETY: `&KVec<T>` gives no more than `&[T]`.
unsafe impl<T: Sync> Sync for KVec<T> {}

const fn is_zst<T>() -> bool {
    size_of::<T>() == 0
}

impl<T> KVec<T> {
    /// Empty; needs no memory.
    pub const fn new() -> Self {
        Self { ptr: NonNull::dangling(), cap: 0, len: 0, _owns: PhantomData }
    }

    /// Empty, with room for `n` elements.
    pub fn try_with_capacity(n: usize) -> Result<Self, AllocError> {
        let mut v = Self::new();
        v.set_capacity(n)?;
        Ok(v)
    }

    /// `n` copies of `value`.
    pub fn try_from_elem(value: T, n: usize) -> Result<Self, AllocError>
    where
        T: Clone,
    {
        let mut v = Self::try_with_capacity(n)?;
        v.try_resize(n, value)?;
        Ok(v)
    }

    /// A copy of a slice.
    pub fn try_from_slice(s: &[T]) -> Result<Self, AllocError>
    where
        T: Clone,
    {
        let mut v = Self::new();
        v.try_extend_from_slice(s)?;
        Ok(v)
    }

    /// What an iterator yields. On failure the elements so far are dropped.
    pub fn try_from_iter(iter: impl IntoIterator<Item = T>) -> Result<Self, AllocError> {
        let mut v = Self::new();
        v.try_extend(iter)?;
        Ok(v)
    }

    /// Elements there is room for.
    pub fn capacity(&self) -> usize {
        if is_zst::<T>() { usize::MAX } else { self.cap }
    }

    /// Elements in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        self
    }

    /// The elements.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self
    }

    /// Makes room for `more` elements beyond the length, growing by at least half of the capacity.
    pub fn try_reserve(&mut self, more: usize) -> Result<(), AllocError> {
        let need = self.len.checked_add(more).ok_or(AllocError)?;
        if need <= self.capacity() {
            return Ok(());
        }
        let grown = self.cap.saturating_add(self.cap / 2).max(4).max(need);
        self.set_capacity(grown).or_else(|e| {
            // A block of several pages may not be there where a smaller one is.
            let large = grown.saturating_mul(size_of::<T>()) > abi::PAGE_SIZE;
            if large && grown > need { self.set_capacity(need) } else { Err(e) }
        })
    }

    /// Makes room for exactly `more` elements beyond the length.
    pub fn try_reserve_exact(&mut self, more: usize) -> Result<(), AllocError> {
        let need = self.len.checked_add(more).ok_or(AllocError)?;
        if need <= self.capacity() { Ok(()) } else { self.set_capacity(need) }
    }

    /// Gives back the room beyond the length, if a smaller block can be had.
    pub fn shrink_to_fit(&mut self) {
        if self.cap > self.len {
            let _ = self.set_capacity(self.len);
        }
    }

    /// Moves the elements to a block of `cap >= len` elements.
    fn set_capacity(&mut self, cap: usize) -> Result<(), AllocError> {
        if is_zst::<T>() || cap == self.cap {
            return Ok(());
        }
        let layout = Layout::array::<T>(cap).map_err(|_| AllocError)?;
        let new = raw::allocate(layout)?.cast::<T>();
        // SAFETY: both blocks have room for `len` elements and differ; the old one goes back with
        // the layout it came with, its elements having moved.
        unsafe {
            ptr::copy_nonoverlapping(self.ptr.as_ptr(), new.as_ptr(), self.len);
            self.free_block();
        }
        self.ptr = new;
        self.cap = cap;
        Ok(())
    }

    /// # Safety
    /// The block's elements have been moved or dropped, and `ptr` is not used again.
    unsafe fn free_block(&mut self) {
        if self.cap != 0 {
            // SAFETY: invariant 1; the size was computed without overflow when it was allocated.
            unsafe {
                let layout = Layout::from_size_align_unchecked(size_of::<T>() * self.cap, align_of::<T>());
                raw::deallocate(self.ptr.cast(), layout);
            }
        }
    }

    /// Appends. On failure the value is dropped.
    #[inline]
    pub fn try_push(&mut self, value: T) -> Result<(), AllocError> {
        if self.len == self.capacity() {
            self.try_reserve(1)?;
        }
        // SAFETY: there is room at `len`.
        unsafe { self.ptr.add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    /// Appends if there is room already; else the value comes back.
    pub fn push_within_capacity(&mut self, value: T) -> Result<(), T> {
        if self.len == self.capacity() {
            return Err(value);
        }
        // SAFETY: there is room at `len`.
        unsafe { self.ptr.add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    /// Takes the last element off.
    pub fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: the element is alive and, by the new length, no longer ours.
        Some(unsafe { self.ptr.add(self.len).read() })
    }

    /// Appends copies.
    pub fn try_extend_from_slice(&mut self, s: &[T]) -> Result<(), AllocError>
    where
        T: Clone,
    {
        self.try_reserve(s.len())?;
        for v in s {
            // SAFETY: room was reserved; the length follows each element.
            unsafe { self.ptr.add(self.len).write(v.clone()) };
            self.len += 1;
        }
        Ok(())
    }

    /// Appends what an iterator yields; on failure what came before stays.
    pub fn try_extend(&mut self, iter: impl IntoIterator<Item = T>) -> Result<(), AllocError> {
        let iter = iter.into_iter();
        self.try_reserve(iter.size_hint().0)?;
        for v in iter {
            self.try_push(v)?;
        }
        Ok(())
    }

    /// Makes the length `n`, filling up with copies of `value`.
    pub fn try_resize(&mut self, n: usize, value: T) -> Result<(), AllocError>
    where
        T: Clone,
    {
        if n <= self.len {
            self.truncate(n);
            return Ok(());
        }
        self.try_reserve(n - self.len)?;
        while self.len < n {
            // SAFETY: room was reserved.
            unsafe { self.ptr.add(self.len).write(value.clone()) };
            self.len += 1;
        }
        Ok(())
    }

    /// Inserts before position `at`. An `at` beyond the end appends.
    pub fn insert(&mut self, at: usize, value: T) -> Result<(), AllocError> {
        self.try_reserve(1)?;
        let at = at.min(self.len);
        // SAFETY: room for one more; the tail moves up by one, and the hole is filled at once.
        unsafe {
            let p = self.ptr.add(at);
            ptr::copy(p.as_ptr(), p.add(1).as_ptr(), self.len - at);
            p.write(value);
        }
        self.len += 1;
        Ok(())
    }

    /// Takes out the element at `at`, keeping the order.
    pub fn remove(&mut self, at: usize) -> Option<T> {
        if at >= self.len {
            return None;
        }
        self.len -= 1;
        // SAFETY: `at` was in range; the hole is closed by the tail.
        unsafe {
            let p = self.ptr.add(at);
            let value = p.read();
            ptr::copy(p.add(1).as_ptr(), p.as_ptr(), self.len - at);
            Some(value)
        }
    }

    /// Takes out the element at `at`, putting the last one in its place.
    pub fn swap_remove(&mut self, at: usize) -> Option<T> {
        let last = self.len.checked_sub(1)?;
        if at > last {
            return None;
        }
        self.swap(at, last);
        self.pop()
    }

    /// Drops the elements from `n` on.
    pub fn truncate(&mut self, n: usize) {
        if n < self.len {
            let count = self.len - n;
            self.len = n;
            // SAFETY: these are alive and, by the new length, no longer reachable.
            unsafe { ptr::slice_from_raw_parts_mut(self.ptr.as_ptr().add(n), count).drop_in_place() }
        }
    }

    /// Drops all elements, keeping the memory.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Drops the elements that `keep` refuses, keeping the order.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        let len = self.len;
        // Should `keep` unwind (tests), elements leak instead of being dropped twice.
        self.len = 0;
        let mut kept = 0;
        for i in 0..len {
            // SAFETY: i < len: alive, visited once. A kept element moves down into a slot whose
            // element has moved or was dropped.
            unsafe {
                let p = self.ptr.add(i);
                if keep(&mut *p.as_ptr()) {
                    if kept != i {
                        ptr::copy_nonoverlapping(p.as_ptr(), self.ptr.add(kept).as_ptr(), 1);
                    }
                    kept += 1;
                } else {
                    p.as_ptr().drop_in_place();
                }
            }
        }
        self.len = kept;
    }

    /// Takes the elements of `range` out, in order; the rest closes up when the iterator is
    /// dropped. A range beyond the end is cut.
    pub fn drain(&mut self, range: impl RangeBounds<usize>) -> Drain<'_, T> {
        let start = match range.start_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&n) => n.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&n) => n.saturating_add(1),
            Bound::Excluded(&n) => n,
            Bound::Unbounded => self.len,
        };
        let end = end.min(self.len);
        let start = start.min(end);
        let len = mem::replace(&mut self.len, start);
        Drain { vec: self, next: start, end, len }
    }

    /// Moves all elements of `other` to the end of this one.
    pub fn try_append(&mut self, other: &mut Self) -> Result<(), AllocError> {
        self.try_reserve(other.len)?;
        // SAFETY: room was reserved, the blocks differ; the elements belong to one vector only.
        unsafe { ptr::copy_nonoverlapping(other.ptr.as_ptr(), self.ptr.as_ptr().add(self.len), other.len) };
        self.len += mem::take(&mut other.len);
        Ok(())
    }

    /// The elements as a boxed slice of exactly their number.
    pub fn try_into_boxed_slice(mut self) -> Result<KBox<[T]>, AllocError> {
        self.set_capacity(self.len)?;
        let this = ManuallyDrop::new(self);
        // SAFETY: capacity equals length, so the block's layout is the slice's.
        Ok(unsafe { KBox::from_raw(ptr::slice_from_raw_parts_mut(this.ptr.as_ptr(), this.len)) })
    }
}

impl<T> Drop for KVec<T> {
    fn drop(&mut self) {
        self.clear();
        // SAFETY: no element is left.
        unsafe { self.free_block() };
    }
}

impl<T> Deref for KVec<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the first `len` elements are alive.
        unsafe { slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for KVec<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: the first `len` elements are alive, and `&mut self` is exclusive.
        unsafe { slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

/// See [`KVec::drain`].
pub struct Drain<'a, T> {
    vec: &'a mut KVec<T>,
    next: usize,
    end: usize,
    /// Length of the vector before.
    len: usize,
}

impl<T> Iterator for Drain<'_, T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        if self.next == self.end {
            return None;
        }
        // SAFETY: in the drained range, alive, beyond the vector's length, read once.
        let value = unsafe { self.vec.ptr.add(self.next).read() };
        self.next += 1;
        Some(value)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.end - self.next;
        (n, Some(n))
    }
}

impl<T> ExactSizeIterator for Drain<'_, T> {}

impl<T> Drop for Drain<'_, T> {
    fn drop(&mut self) {
        self.by_ref().for_each(drop);
        let tail = self.len - self.end;
        // SAFETY: the tail's elements are alive and owned by nobody now; they close up behind the
        // vector's own.
        unsafe {
            let base = self.vec.ptr.as_ptr();
            ptr::copy(base.add(self.end), base.add(self.vec.len), tail);
        }
        self.vec.len += tail;
    }
}

/// The elements of a [`KVec`], by value.
pub struct IntoIter<T> {
    /// Owns the block; its length is 0, the elements are `next..end`.
    block: KVec<T>,
    next: usize,
    end: usize,
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        if self.next == self.end {
            return None;
        }
        // SAFETY: alive, read once.
        let value = unsafe { self.block.ptr.add(self.next).read() };
        self.next += 1;
        Some(value)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.end - self.next;
        (n, Some(n))
    }
}

impl<T> DoubleEndedIterator for IntoIter<T> {
    fn next_back(&mut self) -> Option<T> {
        if self.next == self.end {
            return None;
        }
        self.end -= 1;
        // SAFETY: alive, read once.
        Some(unsafe { self.block.ptr.add(self.end).read() })
    }
}

impl<T> ExactSizeIterator for IntoIter<T> {}

impl<T> Drop for IntoIter<T> {
    fn drop(&mut self) {
        self.by_ref().for_each(drop);
    }
}

impl<T> IntoIterator for KVec<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;
    fn into_iter(mut self) -> IntoIter<T> {
        let end = mem::take(&mut self.len);
        IntoIter { block: self, next: 0, end }
    }
}

impl<'a, T> IntoIterator for &'a KVec<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;
    fn into_iter(self) -> slice::Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T> IntoIterator for &'a mut KVec<T> {
    type Item = &'a mut T;
    type IntoIter = slice::IterMut<'a, T>;
    fn into_iter(self) -> slice::IterMut<'a, T> {
        self.iter_mut()
    }
}

impl<T> Default for KVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: TryClone> TryClone for KVec<T> {
    fn try_clone(&self) -> Result<Self, AllocError> {
        let mut out = Self::try_with_capacity(self.len)?;
        for v in self {
            out.try_push(v.try_clone()?)?;
        }
        Ok(out)
    }
}

macro_rules! try_clone_by_copy {
    ($($t:ty)*) => { $(impl TryClone for $t {
        fn try_clone(&self) -> Result<Self, AllocError> { Ok(*self) }
    })* };
}
try_clone_by_copy! { u8 u16 u32 u64 usize i8 i16 i32 i64 isize bool char }

impl<T> AsRef<[T]> for KVec<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: fmt::Debug> fmt::Debug for KVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: PartialEq> PartialEq for KVec<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl<T: Eq> Eq for KVec<T> {}

impl<T: PartialOrd> PartialOrd for KVec<T> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        (**self).partial_cmp(&**other)
    }
}
impl<T: Ord> Ord for KVec<T> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl<T: Hash> Hash for KVec<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    proptest! {
        #[test]
        fn agrees_with_vec(ops in prop::collection::vec((0u8..11, 0usize..12), 0..150)) {
            let mut k: KVec<Arc<usize>> = KVec::new();
            let mut v: Vec<Arc<usize>> = Vec::new();
            for (n, (op, at)) in ops.into_iter().enumerate() {
                let x = Arc::new(n);
                match op {
                    0 | 1 => { k.try_push(x.clone()).unwrap(); v.push(x); }
                    2 => prop_assert_eq!(k.pop(), v.pop()),
                    3 => { k.insert(at, x.clone()).unwrap(); v.insert(at.min(v.len()), x); }
                    4 => prop_assert_eq!(k.remove(at), (at < v.len()).then(|| v.remove(at))),
                    5 => prop_assert_eq!(k.swap_remove(at), (at < v.len()).then(|| v.swap_remove(at))),
                    6 => { k.retain(|y| **y % 3 != at % 3); v.retain(|y| **y % 3 != at % 3); }
                    7 => {
                        let end = (at + 3).min(v.len());
                        let start = at.min(end);
                        let got: Vec<_> = k.drain(at..at + 3).take(2).collect();
                        let want: Vec<_> = v.drain(start..end).take(2).collect();
                        prop_assert_eq!(got, want);
                    }
                    8 => { k.truncate(at); v.truncate(at); }
                    9 => { k.try_extend_from_slice(&v[..v.len().min(3)]).unwrap(); let w = v[..v.len().min(3)].to_vec(); v.extend(w); }
                    _ => k.shrink_to_fit(),
                }
                prop_assert_eq!(k.as_slice(), &v[..]);
            }
            let mut it = k.into_iter();
            prop_assert_eq!(it.next(), v.first().cloned());
            drop(it);
            let ones: Vec<_> = v.drain(..).collect();
            for x in ones { prop_assert!(Arc::strong_count(&x) >= 1); }
        }
    }

    #[test]
    fn every_element_is_dropped_once() {
        let x = Arc::new(());
        let mut k = KVec::try_from_elem(x.clone(), 10).unwrap();
        drop(k.drain(2..5));
        k.retain({ let mut n = 0; move |_| { n += 1; n % 2 == 0 } });
        let mut it = k.into_iter();
        it.next();
        it.next_back();
        drop(it);
        assert_eq!(Arc::strong_count(&x), 1);
    }

    #[test]
    fn growth_that_fails_changes_nothing() {
        let mut k = KVec::try_from_slice(&[1, 2, 3, 4]).unwrap();
        crate::fail_nth(1);
        assert_eq!(k.try_push(5), Err(AllocError));
        crate::disarm();
        assert_eq!(k.as_slice(), &[1, 2, 3, 4]);
        assert!(k.try_reserve(usize::MAX).is_err());
        assert!(KVec::<u64>::try_with_capacity(usize::MAX / 2).is_err());
    }

    #[test]
    fn zero_sized_elements_are_counted() {
        let mut k = KVec::new();
        for _ in 0..1000 {
            k.try_push(()).unwrap();
        }
        assert_eq!((k.len(), k.remove(3), k.len()), (1000, Some(()), 999));
    }
}
