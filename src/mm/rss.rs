//! What an address space counts: resident pages (per CPU, touched by every fault) and the sizes
//! of its areas (touched by writers of the map only).

use abi::MAX_CPUS;
use kalloc::{AllocError, KVec};
use sync::{CachePadded, atomic::{AtomicI64, AtomicU64, Ordering}};

use crate::space::edit::Sums;

/// Kinds of resident pages, as `/proc/PID/status` tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Anonymous (RssAnon).
    Anon = 0,
    /// Of a file (RssFile).
    File = 1,
    /// Of shared memory (RssShmem).
    Shmem = 2,
}

/// Resident pages by kind: one line per CPU, so that faults on different CPUs share none.
pub(crate) struct RssCounters {
    cpus: KVec<CachePadded<[AtomicI64; 3]>>,
    /// The largest sum that anyone has seen.
    peak: AtomicU64,
}

impl RssCounters {
    pub(crate) fn new() -> Result<Self, AllocError> {
        let n = arch::cpu::count().clamp(1, MAX_CPUS);
        let cpus = KVec::try_from_iter((0..n).map(|_| CachePadded([const { AtomicI64::new(0) }; 3])))?;
        Ok(Self { cpus, peak: AtomicU64::new(0) })
    }

    /// `n` more pages of a kind (fewer, if negative). Any context: atomic, and the line is this
    /// CPU's; a CPU that came up later shares one.
    pub(crate) fn add(&self, kind: Kind, n: i64) {
        if n == 0 {
            return;
        }
        let cpu = arch::cpu::id().index();
        let line = self.cpus.get(cpu).or_else(|| self.cpus.get(cpu % self.cpus.len().max(1)));
        if let Some(counter) = line.and_then(|l| l.0.get(kind as usize)) {
            counter.fetch_add(n, Ordering::Relaxed);
        }
        if n < 0 {
            // Before pages go the sum may be the largest ever.
            self.note_peak(n.unsigned_abs());
        }
    }

    /// Pages of a kind.
    pub(crate) fn get(&self, kind: Kind) -> u64 {
        let sum: i64 = self.cpus.iter().filter_map(|l| l.0.get(kind as usize)).map(|c| c.load(Ordering::Relaxed)).sum();
        sum.max(0) as u64
    }

    pub(crate) fn total(&self) -> u64 {
        self.get(Kind::Anon) + self.get(Kind::File) + self.get(Kind::Shmem)
    }

    fn note_peak(&self, just_gone: u64) {
        let now = self.total() + just_gone;
        if now > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// The largest total so far.
    pub(crate) fn peak(&self) -> u64 {
        self.note_peak(0);
        self.peak.load(Ordering::Relaxed)
    }
}

/// Sizes of the areas, in pages. Written under the mmap lock, read by anyone.
#[derive(Default)]
pub(crate) struct Counts {
    areas: AtomicU64,
    total: AtomicU64,
    data: AtomicU64,
    stack: AtomicU64,
    exec: AtomicU64,
    shared: AtomicU64,
    locked: AtomicU64,
    accounted: AtomicU64,
    peak: AtomicU64,
}

impl Counts {
    pub(crate) fn get(&self) -> Sums {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Sums {
            areas: get(&self.areas),
            total: get(&self.total),
            data: get(&self.data),
            stack: get(&self.stack),
            exec: get(&self.exec),
            shared: get(&self.shared),
            locked: get(&self.locked),
            accounted: get(&self.accounted),
        }
    }

    /// The largest total so far.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    pub(crate) fn change(&self, old: &Sums, new: &Sums) {
        let set = |c: &AtomicU64, old: u64, new: u64| {
            c.store(c.load(Ordering::Relaxed).wrapping_add(new).wrapping_sub(old), Ordering::Relaxed);
        };
        set(&self.areas, old.areas, new.areas);
        set(&self.total, old.total, new.total);
        set(&self.data, old.data, new.data);
        set(&self.stack, old.stack, new.stack);
        set(&self.exec, old.exec, new.exec);
        set(&self.shared, old.shared, new.shared);
        set(&self.locked, old.locked, new.locked);
        set(&self.accounted, old.accounted, new.accounted);
        self.peak.fetch_max(self.total.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}
