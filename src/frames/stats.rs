//! Counts of pages by use, for /proc/meminfo and /proc/vmstat.

use crate::{MAX_ORDER, alloc, zone};
use sync::PerCpuCounter;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// What is counted, in pages unless it says otherwise.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        impl Counter {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// The name in /proc/vmstat.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
        static COUNTERS: [PerCpuCounter; Counter::ALL.len()] =
            [const { PerCpuCounter::new() }; Counter::ALL.len()];
    };
}

counters! {
    /// Anonymous pages that are mapped.
    AnonPages = "nr_anon_pages",
    /// Pages of files in the page cache.
    FilePages = "nr_file_pages",
    /// File pages that are mapped.
    Mapped = "nr_mapped",
    /// Pages of shared memory and tmpfs.
    Shmem = "nr_shmem",
    /// Page-cache pages newer than their file.
    Dirty = "nr_dirty",
    /// Pages being written.
    Writeback = "nr_writeback",
    /// On the inactive anonymous list.
    InactiveAnon = "nr_inactive_anon",
    /// On the active anonymous list.
    ActiveAnon = "nr_active_anon",
    /// On the inactive file list.
    InactiveFile = "nr_inactive_file",
    /// On the active file list.
    ActiveFile = "nr_active_file",
    /// Not to be reclaimed.
    Unevictable = "nr_unevictable",
    /// Slab pages that reclaim can get back.
    SlabReclaimable = "nr_slab_reclaimable",
    /// Slab pages that it cannot.
    SlabUnreclaimable = "nr_slab_unreclaimable",
    /// Pages of translation tables.
    PageTables = "nr_page_table_pages",
    /// KiB of kernel stacks.
    KernelStack = "nr_kernel_stack",
    /// Pages mapped by vmalloc.
    Vmalloc = "nr_vmalloc",
    /// Large allocations of the kernel, by pages.
    KmallocLarge = "nr_kmalloc_large",
    /// Pages given out, ever.
    PageAlloc = "pgalloc_total",
    /// Pages given back, ever.
    PageFree = "pgfree",
    /// Page faults.
    PageFault = "pgfault",
    /// Page faults that had to read.
    MajorFault = "pgmajfault",
    /// Pages read from block devices, in KiB.
    PageIn = "pgpgin",
    /// Pages written to block devices, in KiB.
    PageOut = "pgpgout",
    /// Allocations that had to reclaim first.
    AllocStall = "allocstall",
}

/// Adds to a counter, from any context.
#[inline]
#[allow(clippy::indexing_slicing)] // one counter for each variant
pub fn count(c: Counter, n: i64) {
    COUNTERS[c as usize].add(n);
}

/// The sum of a counter at this moment.
#[allow(clippy::indexing_slicing)] // one counter for each variant
pub fn counter(c: Counter) -> u64 {
    COUNTERS[c as usize].sum_positive()
}

/// The state of physical memory at one moment, in pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemStats {
    /// RAM that the device tree names.
    pub present: u64,
    /// RAM that was handed to the zones: /proc/meminfo's MemTotal.
    pub total: u64,
    /// Free, per-CPU lists included.
    pub free: u64,
    /// Of those, in per-CPU lists.
    pub per_cpu: u64,
    /// Free blocks of each order, all zones together.
    pub free_blocks: [u64; MAX_ORDER + 1],
    /// Below this, only allocations that must not wait succeed.
    pub min_watermark: u64,
    /// Below this, background reclaim starts.
    pub low_watermark: u64,
    /// Here, background reclaim stops.
    pub high_watermark: u64,
}

/// Pages that the allocator was given: [`MemStats::total`] without the cost of the rest.
pub fn total_pages() -> u64 {
    zone::zones().iter().map(zone::Zone::managed).sum()
}

/// The state of physical memory now. The parts are read one after the other.
pub fn stats() -> MemStats {
    let mut s = MemStats::default();
    for z in zone::zones() {
        let i = z.info();
        s.present += i.present;
        s.total += i.managed;
        s.free += i.free;
        for (sum, n) in s.free_blocks.iter_mut().zip(i.free_blocks) {
            *sum += n;
        }
        s.min_watermark += i.min;
        s.low_watermark += i.low;
        s.high_watermark += i.high;
    }
    s.per_cpu = alloc::per_cpu_pages();
    s.free += s.per_cpu;
    s
}
