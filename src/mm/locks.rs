//! The lock classes of the memory manager, outermost first (docs/locking.md has all rooms).

use sync::LockClass;

/// One writer of an address space at a time (`mmap_lock` in Linux's words, writers only).
pub(crate) static MMAP: LockClass = LockClass::new("mm.mmap", 400);
/// An area: read by faults in it, written to freeze it. Several at once only under `MMAP`.
pub(crate) static AREA: LockClass = LockClass::new("mm.area", 410);
/// The areas that show a file, or that may hold the pages of an anonymous family.
pub(crate) static MEMBERS: LockClass = LockClass::new("mm.rmap", 440);
/// Number to owner: which cache or family a frame belongs to.
pub(crate) static OWNERS: LockClass = LockClass::new("mm.owners", 1310);
/// Small fields of an address space.
pub(crate) static LAYOUT: LockClass = LockClass::new("mm.layout", 1340);
/// The ASID allocator's slow path.
pub(crate) static ASID: LockClass = LockClass::new("mm.asid", 1390);
/// A page cache's tree, writers.
pub(crate) static CACHE_TREE: LockClass = LockClass::new("mm.cache_tree", 1330);
/// The map of areas, writers (who also hold `MMAP`).
pub(crate) static AREAS: LockClass = LockClass::new("mm.areas", 1320);
/// A CPU's lists of pages for reclaim.
pub(crate) static LRU: LockClass = LockClass::new("mm.lru", 1395);
