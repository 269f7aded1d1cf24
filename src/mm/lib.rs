#![cfg_attr(not(test), no_std)]
//! Address spaces, page faults and the page cache.
//!
//! What this room answers for: which pages a program sees where ([`AddressSpace`]), how they come
//! there on demand ([`AddressSpace::fault`]), and the one cache through which files, shared memory
//! and mappings share their pages ([`PageCache`]). Reclaim and swap come later; what they need is
//! written from the start: reference and map counts, owner and index of every frame, reverse maps.
//!
//! What it asks of the rooms above, as traits that it defines: [`MappedFile`] (what a mapping of a
//! file shows), [`PageSource`] (what is behind a page cache), [`OomKiller`].
//!
//! Lock order, outermost first: `mm.mmap` (writers of a map), `mm.area` (faults read, changes
//! write), page lock (a bit in the frame), `mm.rmap`, then spin locks: page-table pages, trees.
//! RCU protects the lookup of areas and of cached pages.
//!
//! Sources: mmap(2), mprotect(2), mremap(2), madvise(2), brk(2), fork(2), proc(5); Arm ARM D8
//! (translation, break before make D8.14.1, TLB maintenance D8.14).

mod area;
mod asid;
mod cache;
pub mod commit;
mod fault;
pub mod io;
mod locks;
mod lru;
mod oom;
mod page;
mod pte;
pub mod rmap;
mod rss;
mod shmem;
mod space;
mod tables;
mod tlb;
mod types;
mod zero;
pub use zero::zero_page;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub use area::{Area, Shape};
pub use cache::{CacheKind, Get, PageCache, PageSource};
pub use io::{IoSink, IoSource};
pub use oom::{OomKiller, set_oom_killer};
pub use space::{AddressSpace, AreaInfo, AreaUsage, LockMode, MAX_AREAS, MIN_ADDR, PageInfo, Rss, SpaceStats};
pub use types::{
    Advice, Backing, FaultOutcome, Fixed, Layout, Limits, MapFlags, MapRequest, MappedFile, Prot, RemapFlags,
    RemapRequest, SEGV_ACCERR, SEGV_MAPERR,
};

pub(crate) use space::Writing;
