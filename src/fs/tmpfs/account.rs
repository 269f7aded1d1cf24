//! How much a tmpfs may hold: pages and inodes, their limits and counts.

use abi::{Errno, Result};
use frames::FrameRef;
use mm::{CacheKind, PageSource};
use sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Limits and counts of one instance. A limit of 0 is no limit.
pub(crate) struct Account {
    pub(crate) max_pages: AtomicU64,
    pub(crate) pages: AtomicI64,
    pub(crate) max_inodes: AtomicU64,
    pub(crate) inodes: AtomicI64,
}

fn take(count: &AtomicI64, limit: &AtomicU64, n: i64) -> Result {
    let limit = i64::try_from(limit.load(Relaxed)).unwrap_or(i64::MAX);
    count
        .fetch_update(Relaxed, Relaxed, |have| {
            let sum = have.saturating_add(n);
            (n <= 0 || limit == 0 || sum <= limit).then_some(sum)
        })
        .map(|_| ())
        .map_err(|_| Errno::ENOSPC)
}

impl Account {
    pub(crate) fn new(max_pages: u64, max_inodes: u64) -> Self {
        Self {
            max_pages: AtomicU64::new(max_pages),
            pages: AtomicI64::new(0),
            max_inodes: AtomicU64::new(max_inodes),
            inodes: AtomicI64::new(0),
        }
    }

    /// Counts inodes. ENOSPC.
    pub(crate) fn take_inodes(&self, n: i64) -> Result {
        take(&self.inodes, &self.max_inodes, n)
    }
}

/// Pages of all files are charged to the instance.
impl PageSource for Account {
    fn kind(&self) -> CacheKind {
        CacheKind::Shmem
    }
    fn read_page(&self, _index: u64, frame: &FrameRef) -> Result {
        // Never asked: a hole of shared memory is made as zeros.
        frame.with_bytes_mut(|b| b.fill(0));
        Ok(())
    }
    fn charge(&self, pages: i64) -> Result {
        take(&self.pages, &self.max_pages, pages)
    }
}
