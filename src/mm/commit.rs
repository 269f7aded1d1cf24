//! The commit account: how much memory programs have been promised (`Committed_AS`).
//!
//! Mode 0 of `vm.overcommit_memory`, the heuristic one (proc(5)): only a single request that is
//! larger than all memory of the machine is refused.

use abi::{Errno, Result};
use sync::PerCpuCounter;

static COMMITTED: PerCpuCounter = PerCpuCounter::new();

/// Pages promised at the moment, for `/proc/meminfo`.
pub fn committed_pages() -> u64 {
    COMMITTED.sum_positive()
}

/// Pages that could be promised without overcommitting (`CommitLimit` at the default ratio of 50).
pub fn commit_limit_pages() -> u64 {
    frames::total_pages() / 2
}

/// Promises pages; ENOMEM when they are more than the machine has.
pub(crate) fn charge(pages: u64) -> Result {
    if pages > frames::total_pages() {
        return Err(Errno::ENOMEM);
    }
    COMMITTED.add(i64::try_from(pages).map_err(|_| Errno::ENOMEM)?);
    Ok(())
}

/// Takes a promise back.
pub(crate) fn uncharge(pages: u64) {
    if pages > 0 {
        COMMITTED.add(-(pages as i64));
    }
}
