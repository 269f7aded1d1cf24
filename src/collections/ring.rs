//! `RingBuf`: a queue in one block of memory, of fixed capacity unless asked to grow.

use kalloc::{AllocError, KVec};

/// A first-in first-out queue.
#[derive(Debug)]
pub struct RingBuf<T> {
    /// `cap` slots; those in use are `Some`.
    slots: KVec<Option<T>>,
    head: usize,
    len: usize,
}

impl<T> RingBuf<T> {
    /// Capacity zero; needs no memory.
    pub const fn new() -> Self {
        Self { slots: KVec::new(), head: 0, len: 0 }
    }

    /// Room for `n` elements.
    pub fn try_with_capacity(n: usize) -> Result<Self, AllocError> {
        let mut slots = KVec::try_with_capacity(n)?;
        for _ in 0..n {
            slots.try_push(None)?;
        }
        Ok(Self { slots, head: 0, len: 0 })
    }

    /// Elements there is room for.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Elements in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there is no room left.
    pub fn is_full(&self) -> bool {
        self.len == self.slots.len()
    }

    /// Slot of the `i`-th element, `i` below the capacity.
    fn slot(&self, i: usize) -> usize {
        let n = self.head + i;
        if n >= self.slots.len() { n - self.slots.len() } else { n }
    }

    /// Appends; the value comes back when there is no room.
    pub fn push_back(&mut self, value: T) -> Result<(), T> {
        if self.is_full() {
            return Err(value);
        }
        let at = self.slot(self.len);
        if let Some(s) = self.slots.get_mut(at) {
            *s = Some(value);
            self.len += 1;
        }
        Ok(())
    }

    /// Appends, growing when there is no room.
    pub fn try_push_back(&mut self, value: T) -> Result<(), AllocError> {
        if self.is_full() {
            let mut bigger = Self::try_with_capacity((self.capacity() * 2).max(4))?;
            while let Some(v) = self.pop_front() {
                let _ = bigger.push_back(v);
            }
            *self = bigger;
        }
        self.push_back(value).map_err(|_| AllocError)
    }

    /// Puts in front; the value comes back when there is no room.
    pub fn push_front(&mut self, value: T) -> Result<(), T> {
        if self.is_full() {
            return Err(value);
        }
        self.head = if self.head == 0 { self.slots.len() - 1 } else { self.head - 1 };
        self.len += 1;
        if let Some(s) = self.slots.get_mut(self.head) {
            *s = Some(value);
        }
        Ok(())
    }

    /// Takes the oldest.
    pub fn pop_front(&mut self) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        let value = self.slots.get_mut(self.head)?.take();
        self.head = self.slot(1);
        self.len -= 1;
        value
    }

    /// Takes the newest.
    pub fn pop_back(&mut self) -> Option<T> {
        let last = self.len.checked_sub(1)?;
        let at = self.slot(last);
        self.len = last;
        self.slots.get_mut(at)?.take()
    }

    /// The oldest.
    pub fn front(&self) -> Option<&T> {
        self.get(0)
    }

    /// The `i`-th, counted from the oldest.
    pub fn get(&self, i: usize) -> Option<&T> {
        if i >= self.len {
            return None;
        }
        self.slots.get(self.slot(i))?.as_ref()
    }

    /// The `i`-th, counted from the oldest.
    pub fn get_mut(&mut self, i: usize) -> Option<&mut T> {
        if i >= self.len {
            return None;
        }
        let at = self.slot(i);
        self.slots.get_mut(at)?.as_mut()
    }

    /// From the oldest to the newest.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.len).filter_map(|i| self.get(i))
    }

    /// Drops all elements.
    pub fn clear(&mut self) {
        while self.pop_front().is_some() {}
    }
}

impl<T> Default for RingBuf<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A queue of bytes of fixed capacity, moved by slices.
#[derive(Debug)]
pub struct ByteRing {
    bytes: KVec<u8>,
    head: usize,
    len: usize,
}

impl ByteRing {
    /// Room for `n` bytes.
    pub fn try_with_capacity(n: usize) -> Result<Self, AllocError> {
        Ok(Self { bytes: KVec::try_from_elem(0, n)?, head: 0, len: 0 })
    }

    /// Bytes there is room for.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.bytes.len() - self.len
    }

    /// Appends as much of `src` as fits; how much that was.
    pub fn write_from(&mut self, src: &[u8]) -> usize {
        let n = src.len().min(self.room());
        let mut done = 0;
        while done < n {
            let cap = self.bytes.len();
            let at = (self.head + self.len) % cap;
            let part = (n - done).min(cap - at);
            let (Some(to), Some(from)) = (self.bytes.get_mut(at..at + part), src.get(done..done + part)) else { break };
            to.copy_from_slice(from);
            self.len += part;
            done += part;
        }
        done
    }

    /// Takes as many bytes as there are and fit; how many that was.
    pub fn read_into(&mut self, dst: &mut [u8]) -> usize {
        let mut done = 0;
        while done < dst.len() && self.len > 0 {
            let front = self.front();
            let part = front.len().min(dst.len() - done);
            let (Some(to), Some(from)) = (dst.get_mut(done..done + part), front.get(..part)) else { break };
            to.copy_from_slice(from);
            self.consume(part);
            done += part;
        }
        done
    }

    /// The oldest bytes that lie in one piece.
    pub fn front(&self) -> &[u8] {
        let end = (self.head + self.len).min(self.bytes.len());
        self.bytes.get(self.head..end).unwrap_or(&[])
    }

    /// Drops the `n` oldest bytes.
    pub fn consume(&mut self, n: usize) {
        let n = n.min(self.len);
        self.len -= n;
        self.head = if self.len == 0 { 0 } else { (self.head + n) % self.bytes.len() };
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.head = 0;
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn ring_agrees_with_vecdeque(cap in 0usize..8, ops in prop::collection::vec((0u8..6, any::<u16>()), 0..200)) {
            let mut r = RingBuf::try_with_capacity(cap).unwrap();
            let mut m = VecDeque::new();
            for (op, v) in ops {
                match op {
                    0 | 1 => {
                        let fits = m.len() < r.capacity();
                        prop_assert_eq!(r.push_back(v).is_ok(), fits);
                        if fits { m.push_back(v); }
                    }
                    2 => {
                        let fits = m.len() < r.capacity();
                        prop_assert_eq!(r.push_front(v).is_ok(), fits);
                        if fits { m.push_front(v); }
                    }
                    3 => prop_assert_eq!(r.pop_front(), m.pop_front()),
                    4 => prop_assert_eq!(r.pop_back(), m.pop_back()),
                    _ => {
                        if m.len() < 20 {
                            r.try_push_back(v).unwrap();
                            m.push_back(v);
                        }
                    }
                }
                prop_assert!(r.iter().eq(m.iter()));
            }
        }

        #[test]
        fn byte_ring_keeps_order(cap in 1usize..40, ops in prop::collection::vec((any::<bool>(), 0usize..60), 0..100)) {
            let mut r = ByteRing::try_with_capacity(cap).unwrap();
            let mut m = VecDeque::new();
            let mut next = 0u8;
            for (write, n) in ops {
                if write {
                    let src: Vec<u8> = (0..n).map(|i| next.wrapping_add(i as u8)).collect();
                    let done = r.write_from(&src);
                    prop_assert_eq!(done, n.min(cap - m.len()));
                    m.extend(&src[..done]);
                    next = next.wrapping_add(done as u8);
                } else {
                    let mut dst = vec![0; n];
                    let done = r.read_into(&mut dst);
                    let want: Vec<u8> = (0..n.min(m.len())).map(|_| m.pop_front().unwrap()).collect();
                    prop_assert_eq!(&dst[..done], &want[..]);
                }
                prop_assert_eq!(r.len(), m.len());
            }
        }
    }
}
