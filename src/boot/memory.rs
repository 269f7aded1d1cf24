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
        for r in tree.reserved_memory().filter(|r| r.no_map) {
            map.cut(PhysRange::new(r.start, r.end()));
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

    /// Takes a range out of the banks, in whole pages: it is never mapped, since a CPU that runs ahead
    /// may fetch from whatever is (firmware may answer that with an error that stops the machine).
    fn cut(&mut self, r: PhysRange) {
        let hole = PhysRange::new(r.start.page_down(), r.end.page_up().unwrap_or(r.end));
        let mut behind: ArrayVec<PhysRange, MAX_RANGES> = ArrayVec::new();
        for bank in &mut self.banks {
            if hole.is_empty() || bank.end <= hole.start || hole.end <= bank.start {
                continue;
            }
            let rest = PhysRange::new(hole.end, bank.end);
            bank.end = hole.start.max(bank.start);
            if !rest.is_empty() && behind.try_push(rest).is_err() {
                self.dropped += 1;
            }
        }
        self.banks.retain(|bank| !bank.is_empty());
        for rest in behind {
            // Without a place for it that memory is not used.
            if self.banks.try_push(rest).is_err() {
                self.dropped += 1;
            }
        }
        self.banks.sort_unstable_by_key(|bank| bank.start.0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use abi::PhysAddr;

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange::new(PhysAddr(start), PhysAddr(end))
    }

    #[test]
    fn memory_that_must_not_be_mapped_is_cut_out_of_its_bank() {
        let mut map = Map::default();
        map.banks.push(range(0x1000_0000, 0x2000_0000));
        map.banks.push(range(0x4000_0000, 0x5000_0000));
        map.cut(range(0x1800_0800, 0x1800_1001));
        assert_eq!(
            map.banks.as_slice(),
            [range(0x1000_0000, 0x1800_0000), range(0x1800_2000, 0x2000_0000), range(0x4000_0000, 0x5000_0000)]
        );
        map.cut(range(0x4000_0000, 0x5000_0000));
        map.cut(range(0x0, 0x1000));
        map.cut(range(0x1000_0000, 0x1000_1000));
        assert_eq!(map.banks.as_slice(), [range(0x1000_1000, 0x1800_0000), range(0x1800_2000, 0x2000_0000)]);
        assert_eq!((map.total(), map.dropped), (0x0fff_d000, 0));
    }
}
