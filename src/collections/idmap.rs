//! `IdMap`: small numbers handed out from the bottom (or round), each with an entry: pids, file
//! descriptors.
//!
//! A table of slots and a bitmap of the numbers in use. Readers index the table under RCU. The
//! table grows by doubling: a new one is filled and put in place, the old one goes after a grace
//! period. Writers take the map's spin lock.
//!
//! A number can be taken without an entry ([`IdMap::reserve`]) and get its entry later
//! ([`IdMap::install`]): lookups do not see it before.

use crate::{
    bitmap::Bitmap,
    entry::{Entry, acquire_slot},
};
use core::{marker::PhantomData, num::NonZeroUsize};
use kalloc::{AllocError, KArc, KVec, RcuArc};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicUsize, Ordering},
    rcu::{self, ReadGuard},
};

/// Why there was no number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdError {
    /// All numbers below the limit are in use.
    Full,
    /// There was no memory.
    NoMemory,
}

impl From<AllocError> for IdError {
    fn from(_: AllocError) -> Self {
        Self::NoMemory
    }
}

struct Slots(KVec<AtomicUsize>);

struct State {
    used: Bitmap,
    /// Where a round search goes on.
    next: u32,
    entries: usize,
    /// The table that readers see, for the writer: the same as in `IdMap::table`.
    table: Option<KArc<Slots>>,
}

/// See the module's text.
pub struct IdMap<E: Entry> {
    table: RcuArc<Slots>,
    state: SpinLock<State>,
    _owns: PhantomData<E>,
}

/// The smallest table.
const FIRST: usize = 64;

impl<E: Entry> IdMap<E> {
    /// Empty; needs no memory. `class` is that of the writers' lock.
    pub fn new(class: &'static LockClass) -> Self {
        let state = State { used: Bitmap::new(), next: 0, entries: 0, table: None };
        Self { table: RcuArc::new(None), state: SpinLock::new(state, class), _owns: PhantomData }
    }

    // ---- readers ----

    /// What number `id` has, for as long as the read section lasts.
    #[inline]
    pub fn load<'g>(&self, guard: &'g ReadGuard, id: u32) -> Option<E::Ref<'g>> {
        let slot = self.table.load(guard)?.0.get(id as usize)?;
        let raw = NonZeroUsize::new(slot.load(Ordering::Acquire))?;
        // SAFETY: loaded in this read section.
        Some(unsafe { E::peek(raw, guard) })
    }

    /// A handle of its own to what number `id` has.
    #[inline]
    pub fn get(&self, id: u32) -> Option<E> {
        let guard = rcu::read_lock();
        let slot = self.table.load(&guard)?.0.get(id as usize)?;
        acquire_slot(slot, &guard)
    }

    /// The first number at or after `from` that has an entry.
    pub fn next(&self, from: u32) -> Option<(u32, E)> {
        let guard = rcu::read_lock();
        let slots = &self.table.load(&guard)?.0;
        let mut later = slots.iter().enumerate().skip(from as usize);
        later.find_map(|(id, slot)| acquire_slot(slot, &guard).map(|e| (id as u32, e)))
    }

    /// All entries in ascending order; those that come or go meanwhile may be in it or not.
    pub fn iter(&self) -> impl Iterator<Item = (u32, E)> + '_ {
        let mut from = Some(0);
        core::iter::from_fn(move || {
            let (id, e) = self.next(from?)?;
            from = id.checked_add(1);
            Some((id, e))
        })
    }

    /// Entries at this moment.
    pub fn len(&self) -> usize {
        self.state.lock().entries
    }

    /// Whether there is no entry at this moment.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers in use at this moment, those without an entry included.
    pub fn used(&self) -> usize {
        self.state.lock().used.count()
    }

    /// Whether number `id` is in use, with or without an entry.
    pub fn is_used(&self, id: u32) -> bool {
        self.state.lock().used.test(id as usize)
    }

    /// The highest number in use.
    pub fn highest(&self) -> Option<u32> {
        self.state.lock().used.iter().last().map(|n| n as u32)
    }

    // ---- writers ----

    /// Takes the lowest free number in `from..limit`, without an entry.
    pub fn reserve(&self, from: u32, limit: u32) -> Result<u32, IdError> {
        let mut state = self.state.lock();
        self.take_id(&mut state, from, limit)
    }

    /// Takes this very number, without an entry. `Full` if it is in use.
    pub fn reserve_at(&self, id: u32) -> Result<(), IdError> {
        let mut state = self.state.lock();
        if state.used.test(id as usize) {
            return Err(IdError::Full);
        }
        self.take_id(&mut state, id, id.saturating_add(1)).map(|_| ())
    }

    /// Takes the next free number after the one taken last, going round in `from..limit`.
    pub fn reserve_cyclic(&self, from: u32, limit: u32) -> Result<u32, IdError> {
        let mut state = self.state.lock();
        let start = state.next.clamp(from, limit);
        let id = match self.take_id(&mut state, start, limit) {
            Err(IdError::Full) => self.take_id(&mut state, from, start)?,
            other => other?,
        };
        state.next = id + 1;
        Ok(id)
    }

    /// Takes the lowest free number in `from..limit` for `entry`, which comes back on failure.
    pub fn alloc(&self, from: u32, limit: u32, entry: E) -> Result<u32, (IdError, E)> {
        match self.reserve(from, limit) {
            Ok(id) => {
                self.install(id, entry);
                Ok(id)
            }
            Err(e) => Err((e, entry)),
        }
    }

    /// Takes the next number, going round in `from..limit`, for `entry`.
    pub fn alloc_cyclic(&self, from: u32, limit: u32, entry: E) -> Result<u32, (IdError, E)> {
        match self.reserve_cyclic(from, limit) {
            Ok(id) => {
                self.install(id, entry);
                Ok(id)
            }
            Err(e) => Err((e, entry)),
        }
    }

    /// Gives a number that is in use its entry. The entry that it had comes back, or `entry`
    /// itself if the number is not in use.
    pub fn install(&self, id: u32, entry: E) -> Option<E> {
        let mut state = self.state.lock();
        let slots = match &state.table {
            Some(t) if state.used.test(id as usize) => t.clone(),
            _ => return Some(entry),
        };
        let Some(slot) = slots.0.get(id as usize) else { return Some(entry) };
        let old = slot.swap(entry.into_raw().get(), Ordering::AcqRel);
        if old == 0 {
            state.entries += 1;
        }
        drop(state);
        // SAFETY: the word has just left the map.
        NonZeroUsize::new(old).map(|raw| unsafe { E::take(raw) })
    }

    /// Takes the entry of `id` out and frees the number.
    pub fn remove(&self, id: u32) -> Option<E> {
        let mut state = self.state.lock();
        let old = {
            let slot = state.table.as_ref()?.0.get(id as usize)?;
            NonZeroUsize::new(slot.swap(0, Ordering::AcqRel))?
        };
        state.used.clear(id as usize);
        state.entries -= 1;
        drop(state);
        // SAFETY: the word has just left the map.
        Some(unsafe { E::take(old) })
    }

    /// Takes the entry of `id` out but keeps the number in use.
    pub fn take_entry(&self, id: u32) -> Option<E> {
        let mut state = self.state.lock();
        let old = {
            let slot = state.table.as_ref()?.0.get(id as usize)?;
            NonZeroUsize::new(slot.swap(0, Ordering::AcqRel))?
        };
        state.entries -= 1;
        drop(state);
        // SAFETY: the word has just left the map.
        Some(unsafe { E::take(old) })
    }

    /// Frees a number that has no entry; false if it has one or is not in use.
    pub fn release(&self, id: u32) -> bool {
        let mut state = self.state.lock();
        let has_entry = state
            .table
            .as_ref()
            .and_then(|t| t.0.get(id as usize))
            .is_some_and(|s| s.load(Ordering::Relaxed) != 0);
        !has_entry && state.used.clear(id as usize)
    }

    fn take_id(&self, state: &mut State, from: u32, limit: u32) -> Result<u32, IdError> {
        let id = state.used.next_clear(from as usize).unwrap_or((from as usize).max(state.used.len()));
        if id >= limit as usize {
            return Err(IdError::Full);
        }
        if id >= state.used.len() {
            self.grow(state, id)?;
        }
        state.used.set(id);
        Ok(id as u32)
    }

    /// Makes room for number `id`.
    fn grow(&self, state: &mut State, id: usize) -> Result<(), AllocError> {
        let want = (id + 1).next_power_of_two().max(FIRST);
        let mut slots = KVec::try_with_capacity(want)?;
        if let Some(old) = &state.table {
            for slot in &old.0 {
                // Writers are locked out, so nothing changes between this copy and the store.
                slots.try_push(AtomicUsize::new(slot.load(Ordering::Relaxed)))?;
            }
        }
        while slots.len() < want {
            slots.try_push(AtomicUsize::new(0))?;
        }
        let table = KArc::try_new(Slots(slots))?;
        state.used.try_grow(want)?;
        self.table.store(Some(table.clone()));
        if let Some(old) = state.table.replace(table) {
            // Readers of the old table may be under way; `RcuArc` holds it for them.
            drop(old);
        }
        Ok(())
    }
}

impl<E: Entry> Drop for IdMap<E> {
    fn drop(&mut self) {
        let Some(table) = self.state.get_mut().table.take() else { return };
        for slot in &table.0 {
            if let Some(raw) = NonZeroUsize::new(slot.swap(0, Ordering::Relaxed)) {
                // SAFETY: leaves with the map, once.
                unsafe { E::drop_later(raw) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    static CLASS: LockClass = LockClass::new("test_idmap", 1040);

    #[test]
    fn a_reserved_number_is_invisible_until_installed() {
        let m = IdMap::<KArc<u32>>::new(&CLASS);
        let id = m.reserve(3, 1000).unwrap();
        assert_eq!(id, 3);
        assert!(m.get(3).is_none());
        assert!(m.install(3, KArc::try_new(9).unwrap()).is_none());
        assert_eq!(*m.get(3).unwrap(), 9);
        assert!(!m.release(3));
        assert_eq!(m.install(4, KArc::try_new(1).unwrap()).map(|v| *v), Some(1));
    }

    #[test]
    fn a_growth_that_finds_no_memory_changes_nothing() {
        let m = IdMap::<KArc<u32>>::new(&CLASS);
        for i in 0..64 {
            assert_eq!(m.alloc(0, 1000, KArc::try_new(i).unwrap()).ok(), Some(i));
        }
        for n in 1.. {
            let e = KArc::try_new(64).unwrap();
            kalloc::fail_nth(n);
            let r = m.alloc(0, 1000, e);
            if kalloc::disarm() {
                assert_eq!(r.ok(), Some(64));
                break;
            }
            assert_eq!(r.err().map(|(e, v)| (e, *v)), Some((IdError::NoMemory, 64)));
            assert_eq!((m.len(), m.used()), (64, 64));
        }
        assert_eq!(*m.get(64).unwrap(), 64);
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(ops in prop::collection::vec((0u8..6, 0u32..150), 0..300)) {
            let m = IdMap::<KArc<u32>>::new(&CLASS);
            let mut model: BTreeMap<u32, Option<u32>> = BTreeMap::new();
            let mut next = 0;
            for (n, (op, id)) in ops.into_iter().enumerate() {
                let n = n as u32;
                match op {
                    0 => {
                        let want = (id..150).find(|i| !model.contains_key(i));
                        prop_assert_eq!(m.alloc(id, 150, KArc::try_new(n).unwrap()).ok(), want);
                        if let Some(w) = want { model.insert(w, Some(n)); }
                    }
                    1 => {
                        let had = model.get(&id).copied().flatten();
                        prop_assert_eq!(m.remove(id).map(|v| *v), had);
                        if had.is_some() { model.remove(&id); }
                    }
                    2 => {
                        let want = (id..150).find(|i| !model.contains_key(i));
                        prop_assert_eq!(m.reserve(id, 150).ok(), want);
                        if let Some(w) = want { model.insert(w, None); }
                    }
                    3 => {
                        let had = model.get(&id).copied();
                        let back = m.install(id, KArc::try_new(n).unwrap()).map(|v| *v);
                        match had {
                            None => prop_assert_eq!(back, Some(n)),
                            Some(old) => { prop_assert_eq!(back, old); model.insert(id, Some(n)); }
                        }
                    }
                    4 => {
                        let free = model.get(&id) == Some(&None);
                        prop_assert_eq!(m.release(id), free);
                        if free { model.remove(&id); }
                    }
                    _ => {
                        let want = (next..100).chain(0..next.min(100)).find(|i| !model.contains_key(i));
                        prop_assert_eq!(m.reserve_cyclic(0, 100).ok(), want);
                        if let Some(w) = want { model.insert(w, None); next = w + 1; }
                    }
                }
                let got: Vec<_> = m.iter().map(|(i, v)| (i, *v)).collect();
                let want: Vec<_> = model.iter().filter_map(|(i, v)| v.map(|v| (*i, v))).collect();
                prop_assert_eq!(got, want);
                prop_assert_eq!(m.used(), model.len());
            }
        }
    }
}
