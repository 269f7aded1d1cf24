//! Which physical memory is there, and which parts of it are taken before the allocator starts.

use arch::boot::PhysRange;
use arrayvec::ArrayVec;
use device::dt::Tree;

/// Banks and reservations that are kept.
pub const MAX_RANGES: usize = 64;

/// The machine's memory.
#[derive(Debug, Default)]
pub struct Map {
    pub banks: ArrayVec<PhysRange, MAX_RANGES>,
    pub reserved: ArrayVec<PhysRange, MAX_RANGES>,
    /// The initial RAM disk, if it lies in memory.
    pub initrd: Option<PhysRange>,
    /// Ranges that did not fit into the tables.
    pub dropped: usize,
}

impl Map {
    /// From the device tree, plus what the boot itself occupies.
    pub fn of(tree: &Tree<'_>, own: &[PhysRange]) -> Self {
        let mut map = Self::default();
        for b in tree.memory() {
            let bank = PhysRange::new(b.start, b.end());
            if map.banks.try_push(bank).is_err() {
                map.dropped += 1;
            }
        }
        for r in own {
            map.reserve(*r);
        }
        for r in tree.memory_reservations().chain(tree.reserved_memory()) {
            map.reserve(PhysRange::new(r.start, r.end()));
        }
        if let Some((start, end)) = tree.chosen().initrd() {
            let range = PhysRange::new(start, end);
            // An initrd outside of memory cannot be read: it is left out, and missed later.
            if map.holds(&range) {
                map.reserve(PhysRange::new(start.page_down(), end.page_up().unwrap_or(end)));
                map.initrd = Some(range);
            } else {
                log::error!("initrd {start:#x}..{end:#x} is not in memory");
            }
        }
        map
    }

    fn reserve(&mut self, r: PhysRange) {
        if !r.is_empty() && self.reserved.try_push(r).is_err() {
            // Memory that cannot be named as taken must not be given out: give up the banks behind.
            self.dropped += 1;
            self.banks.retain(|b| b.end <= r.start || b.start >= r.end);
        }
    }

    fn holds(&self, r: &PhysRange) -> bool {
        self.banks.iter().any(|b| b.start <= r.start && r.end <= b.end)
    }

    /// Bytes in all banks.
    pub fn total(&self) -> u64 {
        self.banks.iter().map(PhysRange::len).sum()
    }
}
