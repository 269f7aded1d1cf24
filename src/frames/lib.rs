#![cfg_attr(not(test), no_std)]
//! Physical memory: page frames and who has them, the slab, page tables, kernel mappings.
//!
//! From the ground up: [`boot`] (a buddy heap that lives until the zones stand), `buddy` (free
//! blocks by order and by whether they can move), [`zone`] (one lock each), [`alloc_frame`] and [`alloc_pages`] (per-CPU lists in front of
//! the zones), [`slab`] (objects), [`pagetable`] and [`vmalloc`] (virtual memory).
//!
//! Context: frames and objects can be allocated and freed anywhere, interrupts included; an
//! allocation waits (reclaim) only if the caller could sleep and did not say `ATOMIC`.
//!
//! Lock order: page-table pages (1340), kernel map (1345), vmalloc areas (1500), slab partial
//! lists (1830), per-CPU page lists (1840), zones (1850).
//!
//! Invariants that the unsafe code relies on:
//! 1. [`Frame`]s stand in the descriptor area for the kernel's whole life once `init` is over;
//!    `frame_of` gives only those of existing RAM. They are all atomics.
//! 2. A frame with a reference count above zero belongs to its holders; its content is reached
//!    through the linear map. A count of zero outside this crate's lists is an allocation or a
//!    release under way on one CPU.
//! 3. The content of a frame is shared memory: user programs and devices may change it at any
//!    time, so it is only copied in and out (`FrameRef`), never kept as a reference across a call.
//!    The exceptions (`with_bytes`) say so.
//! 4. A page-table page has the flag `PAGE_TABLE`; its entries change under the lock in its frame;
//!    it is freed after an RCU grace period, so that walks without a lock are safe.

mod alloc;
pub mod boot;
mod buddy;
mod frame;
mod memmap;
pub mod pagetable;
mod refs;
pub mod slab;
mod stats;
pub mod vmalloc;
pub mod zone;

#[cfg(test)]
mod testing;

pub use alloc::{AllocFlags, ReclaimHook, alloc_frame, alloc_pages, drain_all, drain_local, per_cpu_lists, set_reclaim_hook};
pub use arch::boot::PhysRange;
pub use boot::{free_reserved, init};
pub use buddy::{BLOCK_ORDER as PAGEBLOCK_ORDER, MigrateType};
pub use frame::{Frame, FrameFlags, FrameList};
pub use memmap::{banks, frame_of, is_ram};
pub use refs::{FrameRef, PageBlock};
pub use stats::{Counter, MemStats, count, counter, stats, total_pages};

/// Highest order of a block: 2^10 pages, 4 MiB.
pub const MAX_ORDER: usize = 10;
