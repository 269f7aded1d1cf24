//! Shared anonymous memory: a page cache that no name leads to.

use abi::{DevNum, Result};
use core::fmt;
use kalloc::{KArc, karc_dyn};

use crate::{CacheKind, MappedFile, PageCache, Prot, commit, rmap::PAGE};

/// What `mmap(MAP_SHARED | MAP_ANONYMOUS)` maps; gone with its last mapping.
struct SharedAnon {
    cache: KArc<PageCache>,
    charged: u64,
}

/// A new object of `len` bytes for a process that has `mapped` pages. ENOMEM.
pub(crate) fn anonymous(len: u64, no_reserve: bool, mapped: u64) -> Result<KArc<dyn MappedFile>> {
    let charged = if no_reserve { 0 } else { len.div_ceil(PAGE) };
    let cache = PageCache::new(None)?;
    debug_assert_eq!(cache.kind(), CacheKind::Shmem);
    cache.set_size(len);
    commit::charge(charged, mapped)?;
    // From here on dropping the object takes the charge back.
    let object = SharedAnon { cache, charged };
    Ok(karc_dyn!(object => dyn MappedFile)?)
}

impl Drop for SharedAnon {
    fn drop(&mut self) {
        commit::uncharge(self.charged);
    }
}

impl MappedFile for SharedAnon {
    fn cache(&self) -> &KArc<PageCache> {
        &self.cache
    }
    fn may_map(&self, _: Prot, _: bool) -> Result {
        Ok(())
    }
    fn describe(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        // The name that Linux shows.
        out.write_str("/dev/zero (deleted)")
    }
    fn identity(&self) -> (DevNum, u64) {
        (DevNum::new(0, 1), 0)
    }
}
