//! `Bitmap`: a fixed number of bits on the heap, with searches by word.

use kalloc::{AllocError, KVec};

/// A set of small integers.
#[derive(Debug, Default)]
pub struct Bitmap {
    words: KVec<u64>,
    bits: usize,
}

impl Bitmap {
    /// No bits; needs no memory.
    pub const fn new() -> Self {
        Self { words: KVec::new(), bits: 0 }
    }

    /// `bits` bits, all clear.
    pub fn try_new(bits: usize) -> Result<Self, AllocError> {
        let mut b = Self::new();
        b.try_grow(bits)?;
        Ok(b)
    }

    /// Makes it at least `bits` long; the new bits are clear.
    pub fn try_grow(&mut self, bits: usize) -> Result<(), AllocError> {
        if bits > self.bits {
            self.words.try_resize(bits.div_ceil(64), 0)?;
            self.bits = bits;
        }
        Ok(())
    }

    /// How many bits there are.
    pub fn len(&self) -> usize {
        self.bits
    }

    /// Whether there are no bits at all.
    pub fn is_empty(&self) -> bool {
        self.bits == 0
    }

    /// Whether bit `n` is set; false beyond the end.
    pub fn test(&self, n: usize) -> bool {
        n < self.bits && self.words.get(n / 64).is_some_and(|w| w >> (n % 64) & 1 != 0)
    }

    /// Sets bit `n`; true if it was clear. Nothing beyond the end.
    pub fn set(&mut self, n: usize) -> bool {
        if n >= self.bits {
            return false;
        }
        let Some(w) = self.words.get_mut(n / 64) else { return false };
        let was = *w >> (n % 64) & 1;
        *w |= 1 << (n % 64);
        was == 0
    }

    /// Clears bit `n`; true if it was set.
    pub fn clear(&mut self, n: usize) -> bool {
        if n >= self.bits {
            return false;
        }
        let Some(w) = self.words.get_mut(n / 64) else { return false };
        let was = *w >> (n % 64) & 1;
        *w &= !(1 << (n % 64));
        was != 0
    }

    /// The first set bit at or after `from`.
    pub fn next_set(&self, from: usize) -> Option<usize> {
        self.search(from, |w| w)
    }

    /// The first clear bit at or after `from`.
    pub fn next_clear(&self, from: usize) -> Option<usize> {
        self.search(from, |w| !w)
    }

    /// First of `n` clear bits in a row at or after `from`.
    pub fn next_clear_run(&self, from: usize, n: usize) -> Option<usize> {
        let mut start = self.next_clear(from)?;
        loop {
            let end = start.checked_add(n).filter(|e| *e <= self.bits)?;
            match self.next_set(start) {
                Some(s) if s < end => start = self.next_clear(s)?,
                _ => return Some(start),
            }
        }
    }

    fn search(&self, from: usize, view: impl Fn(u64) -> u64) -> Option<usize> {
        let mut mask = u64::MAX.checked_shl((from % 64) as u32)?;
        for (i, w) in self.words.iter().enumerate().skip(from / 64) {
            let found = view(*w) & mask;
            if found != 0 {
                let n = i * 64 + found.trailing_zeros() as usize;
                return (n < self.bits).then_some(n);
            }
            mask = u64::MAX;
        }
        None
    }

    /// How many bits are set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// The set bits in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            let n = self.next_set(from)?;
            from = n + 1;
            Some(n)
        })
    }
}

impl kalloc::TryClone for Bitmap {
    fn try_clone(&self) -> Result<Self, AllocError> {
        Ok(Self { words: self.words.try_clone()?, bits: self.bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn agrees_with_a_set(bits in 1usize..300, ops in prop::collection::vec((any::<bool>(), 0usize..320), 0..200), from in 0usize..320, run in 1usize..20) {
            let mut b = Bitmap::try_new(bits).unwrap();
            let mut model = BTreeSet::new();
            for (set, n) in ops {
                if set {
                    prop_assert_eq!(b.set(n), n < bits && model.insert(n));
                } else {
                    prop_assert_eq!(b.clear(n), model.remove(&n));
                }
                model.retain(|n| *n < bits);
            }
            prop_assert!(b.iter().eq(model.iter().copied()));
            prop_assert_eq!(b.count(), model.len());
            prop_assert_eq!(b.next_set(from), model.range(from..).next().copied());
            prop_assert_eq!(b.next_clear(from), (from..bits).find(|n| !model.contains(n)));
            prop_assert_eq!(
                b.next_clear_run(from, run),
                (from..bits).find(|s| s + run <= bits && (*s..*s + run).all(|n| !model.contains(&n)))
            );
        }
    }
}
