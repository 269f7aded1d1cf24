//! An address space: its areas, its page table, its counts.
//!
//! Who may do what, and under which lock:
//! - Looking an area up: RCU, no lock. Working on its pages (a fault): the area's lock for reading.
//! - Changing the map: the writer's mutex (`mm.mmap`), through an [`Edit`](edit::Edit): freeze the
//!   areas concerned, prepare everything that can fail, then commit without failing.
//! - A page-table entry: the lock of its page-table page (in `frames::pagetable`).
//!
//! So faults of two threads in different areas share no lock, and a failed call changes nothing.
//! Order: mmap, area, page lock, rmap, page-table page. All of `AddressSpace` may sleep, except
//! the context switch's `activate`.

mod advise;
mod brk;
pub(crate) mod edit;
mod fork;
mod lock;
mod map;
mod place;
mod protect;
mod remap;
pub(crate) mod remote;
mod stats;
mod unmap;

use abi::{CpuId, CpuMask, PAGE_SHIFT, Result, USER_END, UserAddr};
use arch::mmu;
use crate::MapFlags;
use collections::RangeMap;
use kalloc::{AllocError, KArc, KVec, KWeak};
use sched::{Mutex, MutexGuard};
use sync::{Number, SpinLock, atomic::{AtomicU64, Ordering}, rcu};

pub use lock::LockMode;
pub use stats::{AreaInfo, AreaUsage, PageInfo, Rss, SpaceStats};

use crate::{Area, Layout, asid::Context, locks, rmap::PAGE, rss::{Counts, RssCounters}, tables::Tables};

/// No mapping lies below but by who has CAP_SYS_RAWIO (`vm.mmap_min_addr`).
pub static MIN_ADDR: Number = Number::new(0x1_0000, 0, 1 << 30);
/// Areas that a space may have (`vm.max_map_count`).
pub static MAX_AREAS: Number = Number::new(65530, 0, i32::MAX as i64);
/// Pages kept free below an area that grows downwards (Linux's `stack_guard_gap`).
pub(crate) const STACK_GAP: u64 = 256 << PAGE_SHIFT;

/// What only writers of the map use.
pub(crate) struct Writer {
    /// End of the heap.
    brk: u64,
    /// How new mappings are locked (`mlockall(2)`, MCL_FUTURE). Not inherited by fork.
    future: MapFlags,
}

/// An address space. See the head of this file.
pub struct AddressSpace {
    me: KWeak<Self>,
    serial: u64,
    areas: RangeMap<Area>,
    writer: Mutex<Writer>,
    pub(crate) table: Tables,
    context: Context,
    /// CPUs that have run it.
    cpus: AtomicU64,
    pub(crate) rss: RssCounters,
    counts: Counts,
    layout: SpinLock<Layout>,
}

/// The writer's mutex, held.
pub(crate) type Writing<'a> = MutexGuard<'a, Writer>;

impl AddressSpace {
    /// An empty space. ENOMEM.
    pub fn new() -> Result<KArc<Self>> {
        crate::zero::init()?;
        let table = Tables::new()?;
        let rss = RssCounters::new()?;
        let space = KArc::try_new_cyclic_fallible(|me: &KWeak<Self>| {
            Ok::<_, AllocError>(Self {
                me: me.clone(),
                serial: crate::types::next_serial(),
                areas: RangeMap::new(&locks::AREAS),
                writer: Mutex::new(
                    Writer { brk: 0, future: MapFlags::empty() },
                    &locks::MMAP,
                ),
                table,
                context: Context::new(),
                cpus: AtomicU64::new(0),
                rss,
                counts: Counts::default(),
                layout: SpinLock::new(Layout::default(), &locks::LAYOUT),
            })
        })?;
        Ok(space)
    }

    /// A number that no other address space or page cache ever has.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn weak(&self) -> &KWeak<Self> {
        &self.me
    }

    /// Locks out other writers of the map.
    pub(crate) fn write(&self) -> Writing<'_> {
        self.writer.lock()
    }

    /// Where exec put things.
    pub fn layout(&self) -> Layout {
        *self.layout.lock()
    }

    /// Exec's and `prctl(PR_SET_MM)`'s word on where things are.
    pub fn set_layout(&self, layout: Layout) {
        *self.layout.lock() = layout;
    }

    /// The area that contains the address.
    pub(crate) fn area_at(&self, addr: u64) -> Option<KArc<Area>> {
        let guard = rcu::read_lock();
        self.areas.lookup(&guard, addr).cloned()
    }

    /// The first area that ends above the address.
    pub(crate) fn area_from(&self, addr: u64) -> Option<KArc<Area>> {
        let guard = rcu::read_lock();
        self.areas.iter_from(&guard, addr).next().map(|(_, _, area)| area.clone())
    }

    /// The last area that ends at or below the address.
    pub(crate) fn area_before(&self, addr: u64) -> Option<KArc<Area>> {
        let guard = rcu::read_lock();
        self.areas.prev(&guard, addr).map(|(_, _, area)| area.clone())
    }

    /// The areas that overlap `[start, end)`, in order.
    pub(crate) fn areas_in(&self, start: u64, end: u64) -> Result<KVec<KArc<Area>>> {
        let mut list = KVec::new();
        let mut at = start;
        while at < end {
            let Some(area) = self.area_from(at) else { break };
            if area.start >= end {
                break;
            }
            at = area.end;
            list.try_push(area)?;
        }
        Ok(list)
    }

    /// Whether any area overlaps `[start, end)`.
    pub(crate) fn occupied(&self, start: u64, end: u64) -> bool {
        self.area_from(start).is_some_and(|a| a.start < end)
    }

    // ---- translation caches ----

    /// Drops what TLBs hold for `[start, end)`: leaf entries only, or (`tables`) walks as well.
    pub(crate) fn flush(&self, start: u64, end: u64, tables: bool) {
        /// From here on one operation on the whole number costs less (a page is one broadcast).
        const WHOLE: u64 = 512 * PAGE;
        let Some(asid) = self.context.asid() else { return };
        if start >= end {
            return;
        }
        if end - start > WHOLE {
            mmu::tlb_flush_asid(asid);
        } else {
            mmu::tlb_flush_range(asid, UserAddr(start), UserAddr(end), !tables);
        }
    }

    /// Drops everything that TLBs hold for the space.
    pub(crate) fn flush_all(&self) {
        if let Some(asid) = self.context.asid() {
            mmu::tlb_flush_asid(asid);
        }
    }

    /// CPUs that have run the space since it was made.
    pub fn cpus(&self) -> CpuMask {
        CpuMask(self.cpus.load(Ordering::Relaxed))
    }

    /// Makes it the one that this CPU runs. Interrupts are off.
    pub(crate) fn activate_on(&self, cpu: CpuId) {
        let bit = CpuMask::of(cpu).0;
        // Tested first: a line that nobody writes stays shared between the CPUs.
        if self.cpus.load(Ordering::Relaxed) & bit == 0 {
            self.cpus.fetch_or(bit, Ordering::Relaxed);
        }
        let asid = self.context.activate(cpu);
        mmu::set_user_table(self.table.root(), asid);
    }
}

impl sched::UserSpace for AddressSpace {
    fn activate(&self, cpu: CpuId) {
        self.activate_on(cpu);
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        // Nobody runs it any more, and the last reference is ours: the usual way out, for a space
        // that never came to be used (a failed fork or exec).
        self.release();
        // The tables go next: nothing may walk them through this number's cached upper levels.
        self.flush_all();
    }
}

/// Whether `[start, start + len)` is a sensible range of user pages.
pub(crate) fn user_range(start: u64, len: u64) -> Option<u64> {
    let end = start.checked_add(len)?;
    (end <= USER_END).then_some(end)
}
