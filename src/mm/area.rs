//! An area: a run of pages of one address space with one protection and one backing.
//!
//! Invariants:
//! 1. What an [`Area`] says ([`Spec`]) never changes. A change of protection, size or advice puts
//!    new areas in its place, so that a fault that found an area under RCU can trust what it read.
//! 2. A fault works on an area only while it holds the area's lock for reading and has seen it
//!    live. Whoever changes the map first freezes every area that it touches (takes the lock for
//!    writing and marks it): after that no fault is at work there, and new ones wait for the
//!    writer's mutex. A change that fails thaws them: nothing has happened.
//! 3. The family (reverse map of anonymous pages) is set at most once, before the first anonymous
//!    page is mapped, and areas that come out of an area by split, merge, move or fork carry it on.

use abi::PAGE_SHIFT;
use kalloc::{KArc, KWeak};
use sched::{RwMutex, RwReadGuard};
use sync::{Once, atomic::AtomicUsize};

use crate::{AddressSpace, MapFlags, MappedFile, Prot, locks, rmap::Family};

/// The part of an area that anyone may read at any time.
#[derive(Clone, Copy)]
pub struct Shape {
    /// First byte, page-aligned.
    pub start: u64,
    /// First byte behind it, page-aligned.
    pub end: u64,
    /// Allowed accesses.
    pub prot: Prot,
    /// Kind.
    pub flags: MapFlags,
    /// Page index of `start`: in the file, or (anonymous) in the family's linear space.
    pub index: u64,
    /// Whether it shows a file (shared anonymous memory is one, too).
    pub has_file: bool,
}

impl Shape {
    /// The bytes in it.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }
    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }
    /// The pages in it.
    pub fn pages(&self) -> u64 {
        self.len() >> PAGE_SHIFT
    }
    /// Page index of the address.
    pub fn index_of(&self, addr: u64) -> u64 {
        self.index.wrapping_add((addr.wrapping_sub(self.start)) >> PAGE_SHIFT)
    }
    /// Whether stores reach the backing object.
    pub fn shared(&self) -> bool {
        self.flags.contains(MapFlags::SHARED)
    }
    /// Whether it counts as data (private and writable, not a stack): RLIMIT_DATA.
    pub fn is_data(&self) -> bool {
        self.prot.contains(Prot::W) && !self.flags.intersects(MapFlags::SHARED | MapFlags::GROWSDOWN)
    }
    /// Whether its pages are charged to the commit account.
    pub fn accounted(&self) -> bool {
        self.flags.contains(MapFlags::ACCOUNTED)
    }
}

/// What an area is to be.
#[derive(Clone)]
pub(crate) struct Spec {
    pub shape: Shape,
    /// The file; `None` for private anonymous memory.
    pub file: Option<KArc<dyn MappedFile>>,
    /// Reverse map of anonymous pages.
    pub family: Option<KArc<Family>>,
}

impl core::ops::Deref for Spec {
    type Target = Shape;
    fn deref(&self) -> &Shape {
        &self.shape
    }
}

impl core::ops::DerefMut for Spec {
    fn deref_mut(&mut self) -> &mut Shape {
        &mut self.shape
    }
}

impl Spec {
    /// The part in `[start, end)`.
    pub(crate) fn slice(&self, start: u64, end: u64) -> Self {
        let mut part = self.clone();
        part.start = start.max(self.start);
        part.end = end.min(self.end);
        part.index = self.index_of(part.start);
        part
    }

    /// Somewhere else, or of another length, from the same page on.
    pub(crate) fn at(&self, start: u64, end: u64) -> Self {
        let mut other = self.clone();
        other.start = start;
        other.end = end;
        other
    }

    /// Whether `next` continues this one, so that one area can stand for both.
    pub(crate) fn joins(&self, next: &Self) -> bool {
        let same_file = match (&self.file, &next.file) {
            (None, None) => true,
            (Some(a), Some(b)) => KArc::ptr_eq(a, b) || a.open_file() != 0 && a.open_file() == b.open_file(),
            _ => false,
        };
        let same_family = match (&self.family, &next.family) {
            (Some(a), Some(b)) => KArc::ptr_eq(a, b),
            // A family can be taken over by a neighbour that has none; a private file mapping's
            // indexes are the file's, so that nothing else is to be compared.
            _ => true,
        };
        // The linear index of an anonymous area that has no page yet does not matter, but keeping
        // the rule simple keeps it right: `map` gives every new area the index of its address.
        self.end == next.start
            && self.prot == next.prot
            && self.flags == next.flags
            && same_file
            && same_family
            && self.index_of(self.end) == next.index
    }
}

/// An area of an address space.
pub struct Area {
    shape: Shape,
    family: Once<KArc<Family>>,
    state: RwMutex<State>,
    /// The space it is part of.
    pub(crate) space: KWeak<AddressSpace>,
    /// Position in the file's and in the family's list of members, kept by the list.
    pub(crate) file_slot: AtomicUsize,
    pub(crate) family_slot: AtomicUsize,
}

struct State {
    /// Invariant 2.
    frozen: bool,
    /// `None` for anonymous memory, and after the area has left the map: files are closed in the
    /// context of the call that unmapped them, not when the last RCU reader has gone.
    file: Option<KArc<dyn MappedFile>>,
}

impl core::ops::Deref for Area {
    type Target = Shape;
    fn deref(&self) -> &Shape {
        &self.shape
    }
}

/// Proof that the area is live and stays so.
pub(crate) struct Live<'a>(RwReadGuard<'a, State>);

impl Live<'_> {
    /// What the area shows.
    pub(crate) fn file(&self) -> Option<&KArc<dyn MappedFile>> {
        self.0.file.as_ref()
    }
}

impl Area {
    /// An area that is not yet part of a map: frozen until it is.
    pub(crate) fn new_frozen(spec: Spec, space: KWeak<AddressSpace>) -> Self {
        let family = Once::new();
        if let Some(known) = spec.family {
            family.call_once(|| known);
        }
        Self {
            shape: spec.shape,
            family,
            state: RwMutex::new(State { frozen: true, file: spec.file }, &locks::AREA),
            space,
            file_slot: AtomicUsize::new(usize::MAX),
            family_slot: AtomicUsize::new(usize::MAX),
        }
    }

    /// What it is now, file and family included.
    pub(crate) fn snapshot(&self) -> Spec {
        Spec { shape: self.shape, file: self.file(), family: self.family().cloned() }
    }

    /// The file that it shows; `None` also when it has been unmapped meanwhile.
    pub fn file(&self) -> Option<KArc<dyn MappedFile>> {
        if self.has_file { self.state.read().file.clone() } else { None }
    }

    /// Whether pages of its own were ever mapped in it (Linux: `anon_vma`).
    pub fn has_private_pages(&self) -> bool {
        self.family.get().is_some()
    }

    /// The family, once there is one.
    pub(crate) fn family(&self) -> Option<&KArc<Family>> {
        self.family.get()
    }

    /// Sets the family unless someone else was first; the one that counts.
    pub(crate) fn set_family(&self, family: KArc<Family>) -> &KArc<Family> {
        self.family.call_once(|| family)
    }

    /// Locks against changes; `None` when it is frozen (the map is changing here).
    pub(crate) fn live(&self) -> Option<Live<'_>> {
        let state = self.state.read();
        if state.frozen { None } else { Some(Live(state)) }
    }

    /// Waits for faults at work in it and keeps new ones out. Called under the mmap lock.
    pub(crate) fn freeze(&self) {
        self.state.write().frozen = true;
    }

    /// Lets faults in: the change did not happen, or is complete.
    pub(crate) fn thaw(&self) {
        self.state.write().frozen = false;
    }

    /// Lets the file go, of an area that has left the map. No mm lock is held: this may close it.
    pub(crate) fn drop_file(&self) {
        if self.has_file {
            let file = self.state.write().file.take();
            drop(file);
        }
    }
}
