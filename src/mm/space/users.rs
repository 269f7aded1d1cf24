//! Who uses a space, and what names it: users, numbers, keys of shared memory.

use abi::{Errno, PAGE_MASK, Result, UserAddr};
use sync::atomic::{AtomicU64, Ordering};

use super::AddressSpace;
use crate::rmap::PAGE;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// The number and the user count of a space.
pub(crate) struct Users {
    id: u64,
    /// Processes that run in it. References (`KArc`) keep the structure, users its contents.
    count: AtomicU64,
}

impl Users {
    /// One user.
    pub(crate) fn new() -> Self {
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), count: AtomicU64::new(1) }
    }
}

impl AddressSpace {
    /// Its number: unique among all spaces ever made.
    pub fn id(&self) -> u64 {
        self.users.id
    }

    /// One more user (`clone(2)`, CLONE_VM), by one who is a user.
    pub fn join(&self) {
        self.users.count.fetch_add(1, Ordering::Relaxed);
    }

    /// One user less; the last one to leave unmaps everything. May sleep.
    pub fn leave(&self) {
        // Release and acquire: what the others did in the space happens before it is torn down.
        if self.users.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.release();
        }
    }

    /// Users at this moment.
    pub fn user_count(&self) -> u64 {
        self.users.count.load(Ordering::Relaxed)
    }

    /// The largest resident size so far, in KiB (`ru_maxrss` of `getrusage(2)`).
    pub fn peak_rss_kib(&self) -> u64 {
        self.rss.peak().saturating_mul(PAGE / 1024)
    }

    /// What shared memory an address is in: the number of the object and the byte offset in it, by
    /// which a futex is known in all spaces that map it (`futex(2)`). `None` for private memory.
    /// EFAULT when nothing is mapped.
    pub fn shared_object(&self, addr: UserAddr) -> Result<Option<(u64, u64)>> {
        let area = self.area_at(addr.0).ok_or(Errno::EFAULT)?;
        if !area.shared() {
            return Ok(None);
        }
        let file = area.file().ok_or(Errno::EFAULT)?;
        let offset = area.index_of(addr.0).saturating_mul(PAGE) + (addr.0 & PAGE_MASK);
        Ok(Some((file.cache().number(), offset)))
    }
}
