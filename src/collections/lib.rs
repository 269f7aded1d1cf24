#![cfg_attr(not(test), no_std)]
//! The kernel's data structures: ordered maps, radix trees, id tables, hash tables, lists.
//!
//! Those with RCU readers ([`RangeMap`], [`XArray`], [`IdMap`], [`HashTable`]) share one rule: a
//! reader that holds `sync::rcu::ReadGuard` may follow whatever it loads until the guard goes;
//! whoever takes something out gives up the structure's count only after a grace period. None of
//! them can fail when something is taken out, and all of them give back what they could not put
//! in.
//!
//! Locks: each structure with internal writers' locks takes its lock class from its owner, who
//! knows the place in the order. Nothing here sleeps. Allocation happens under those locks, from
//! the slab, which works in any context.
//!
//! Invariants that the unsafe code relies on:
//! 1. Nodes reachable by RCU readers are complete when published (release), never changed in a way
//!    that a reader could see half of, and freed by `rcu::call` after they were unlinked.
//! 2. A word in a slot owns one count of its entry (`entry.rs`).
//! 3. Links are fields of values that the structure holds by `KArc`: they do not move.

mod bitmap;
mod entry;
mod hash;
mod idmap;
mod list;
mod ordmap;
mod rangemap;
mod ring;
mod xarray;

pub use bitmap::Bitmap;
pub use entry::Entry;
pub use hash::{HashField, HashLink, HashTable};
pub use idmap::{IdError, IdMap};
pub use list::{ArcList, Choice, Iter as ListIter, Link, LinkField};
pub use ordmap::{Iter as OrdIter, OrdMap, OrdNode, Reserved};
pub use rangemap::{RangeEdit, RangeError, RangeIter, RangeMap};
pub use ring::{ByteRing, RingBuf};
pub use xarray::{InsertError, Tag, XArray};
