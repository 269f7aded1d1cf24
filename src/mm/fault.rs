//! Page faults: from an address that a program touched to a page-table entry that lets it.
//!
//! The way of the common fault, a first store to anonymous memory: one area lookup under RCU, the
//! area's lock for reading, one look at the entry, a zeroed frame from the CPU's own list, one
//! entry written under the lock of its page-table page, one per-CPU counter. No lock is shared
//! with faults in other areas.
//!
//! Whatever is found is looked at again under the entry's lock: two threads may fault on one page,
//! fork may write-protect it, truncation may take the file's page away. Who loses a race drops
//! what it brought; the entry that stands is right.
//!
//! Context: may sleep; irqs on. Never called with a spin lock held.

use abi::{Errno, PAGE_MASK, Result, UserAddr};
use arch::{Access, FaultKind, PageFault, mmu::pte::AF};
use frames::{AllocFlags, Counter, FrameRef, alloc_frame, pagetable::Pte};
use kalloc::KArc;

use crate::{
    AddressSpace, Area, FaultOutcome, Limits, MapFlags, MappedFile, Prot,
    cache::{Get, lock},
    oom, page, pte,
    rmap::{Family, Link, PAGE},
    space::{STACK_GAP, edit::Edit, remote::Force},
    tlb, zero,
};

/// File pages mapped around the one that a read fault is about (Linux's fault_around_bytes).
const AROUND: u64 = 16;

/// Why a fault could not be served, or how it went on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failure {
    /// Beyond the end of the file, or the file could not be read.
    Bus,
    NoMemory,
}

impl From<Errno> for Failure {
    fn from(e: Errno) -> Self {
        if e == Errno::ENOMEM { Self::NoMemory } else { Self::Bus }
    }
}

impl From<kalloc::AllocError> for Failure {
    fn from(_: kalloc::AllocError) -> Self {
        Self::NoMemory
    }
}

type Served = core::result::Result<(), Failure>;
type File<'a> = Option<&'a KArc<dyn MappedFile>>;

fn allowed(prot: Prot, access: Access) -> bool {
    match access {
        // Write and execute imply read on this architecture.
        Access::Read => !prot.is_empty(),
        Access::Write => prot.contains(Prot::W),
        Access::Execute => prot.contains(Prot::X),
    }
}

/// Whether a debugger may do what the program may not: read anything, and write to a private copy.
fn forced(area: &Area, access: Access, force: Force) -> bool {
    force == Force::Yes && (access == Access::Read || access == Access::Write && !area.shared())
}

impl AddressSpace {
    /// Serves a fault of the program (or of a user copy on its behalf). May sleep.
    pub fn fault(&self, fault: PageFault, limits: &Limits) -> FaultOutcome {
        match fault.kind {
            FaultKind::Translation | FaultKind::Permission | FaultKind::AccessFlag => {}
            _ => return FaultOutcome::BusAdrErr,
        }
        frames::count(Counter::PageFault, 1);
        // The hardware has just looked: no entry, so ours need not look again.
        let known_empty = fault.kind == FaultKind::Translation;
        let outcome = self.serve(fault.addr.0, fault.access, Force::No, known_empty, limits);
        if outcome == FaultOutcome::OutOfMemory && oom::out_of_memory() {
            return FaultOutcome::Retry;
        }
        outcome
    }

    /// Makes the page at `addr` accessible for the kernel's own purposes. EFAULT, ENOMEM.
    pub(crate) fn fault_in(&self, addr: u64, write: bool, force: Force) -> Result {
        let access = if write { Access::Write } else { Access::Read };
        match self.serve(addr, access, force, false, &Limits::UNLIMITED) {
            FaultOutcome::Resolved | FaultOutcome::Retry => Ok(()),
            FaultOutcome::OutOfMemory => Err(Errno::ENOMEM),
            _ => Err(Errno::EFAULT),
        }
    }

    fn serve(&self, addr: u64, access: Access, force: Force, known_empty: bool, limits: &Limits) -> FaultOutcome {
        let page = addr & !PAGE_MASK;
        loop {
            let Some(area) = self.area_at(page) else {
                match self.grow_stack(page, limits) {
                    Ok(true) => continue,
                    Ok(false) => return FaultOutcome::MAPERR,
                    Err(Errno::ENOMEM) => return FaultOutcome::OutOfMemory,
                    Err(_) => return FaultOutcome::MAPERR,
                }
            };
            let Some(live) = area.live() else {
                // The map is changing here: wait for the writer, then look again.
                drop(self.write());
                continue;
            };
            if !allowed(area.prot, access) && !forced(&area, access, force) {
                return FaultOutcome::ACCERR;
            }
            let served = self.serve_in(&area, live.file(), page, access, known_empty);
            drop(live);
            return match served {
                Ok(()) => FaultOutcome::Resolved,
                Err(Failure::Bus) => FaultOutcome::BusAdrErr,
                Err(Failure::NoMemory) => FaultOutcome::OutOfMemory,
            };
        }
    }

    /// The area is live and allows the access. `known_empty`: nobody had mapped the page a moment
    /// ago. Should someone have done so since, the page stays theirs, and the access is repeated.
    fn serve_in(&self, area: &KArc<Area>, file: File<'_>, addr: u64, access: Access, known_empty: bool) -> Served {
        let write = access == Access::Write;
        let present = if known_empty { Pte::NONE } else { self.table.walk(UserAddr(addr)) };
        if present.is_present() {
            return if write && !pte::writable(present.bits()) {
                self.write_to_present(area, file, addr)
            } else {
                self.touch(addr)
            };
        }
        match file {
            None if write => self.map_anonymous(area, addr),
            None => self.map_zeros(area, addr),
            Some(file) => {
                if let Some(pfn) = file.device_page(area.index_of(addr)) {
                    return self.map_device(area, addr, pfn);
                }
                match (write, area.shared()) {
                    (false, _) => self.map_file_page(area, file, addr),
                    (true, true) => self.map_shared_write(area, file, addr),
                    (true, false) => self.map_private_copy(area, file, addr),
                }
            }
        }
    }

    // ---- nothing there yet ----

    /// First store to anonymous memory: a page of zeros of its own.
    fn map_anonymous(&self, area: &KArc<Area>, addr: u64) -> Served {
        let frame = alloc_frame(AllocFlags::MOVABLE | AllocFlags::ZERO)?;
        self.install_anon(area, addr, frame, None)
    }

    /// First read of anonymous memory: the page of zeros that everyone shares.
    fn map_zeros(&self, area: &KArc<Area>, addr: u64) -> Served {
        let Some(pfn) = zero::pfn() else { return self.map_anonymous(area, addr) };
        let bits = pte::bits(area.prot, false);
        self.table.with_entry(UserAddr(addr), |slot| {
            if slot.get().is_none() {
                slot.map_special(pfn, bits);
            }
        })?;
        Ok(())
    }

    fn map_device(&self, area: &Area, addr: u64, pfn: abi::Pfn) -> Served {
        let bits = pte::bits(area.prot, true);
        self.table.with_entry(UserAddr(addr), |slot| {
            if slot.get().is_none() {
                slot.map_special(pfn, bits);
            }
        })?;
        Ok(())
    }

    /// Puts a private frame at `addr`, where `over` was seen (`None`: nothing). The entry is
    /// looked at again under its lock; if it is another one, the frame is dropped.
    fn install_anon(&self, area: &KArc<Area>, addr: u64, frame: FrameRef, over: Option<pte::Seen>) -> Served {
        let family = self.family_of(area)?;
        page::make_anon(&frame, family, area.index_of(addr));
        let bits = pte::bits(area.prot, true);
        if pte::executable(bits) {
            page::sync_icache(&frame);
        }
        let mut old = None;
        let mut frame = Some(frame);
        let done = self.table.with_entry(UserAddr(addr), |slot| {
            match over {
                None if slot.get().is_none() => {}
                Some(seen) if slot.get().is_present() && seen == pte::Seen::of(slot) => {
                    // A valid entry never changes its output address at once (break before make,
                    // Arm ARM D8.14.1): invalid, flush, then the new one.
                    old = slot.take().map(|(_, frame)| frame);
                    self.flush(addr, addr + PAGE, false);
                }
                _ => return false,
            }
            if let Some(frame) = frame.take() {
                page::mapped_anon(&frame);
                slot.map(frame, bits);
            }
            true
        })?;
        if done {
            let mut gone = tlb::Delta::default();
            if let Some(Some(was)) = &old {
                gone.unmapped(was);
            }
            gone.anon += 1;
            gone.apply(self);
        }
        Ok(())
    }

    /// The area's family, made before its first anonymous page.
    fn family_of<'a>(&self, area: &'a KArc<Area>) -> core::result::Result<&'a KArc<Family>, Failure> {
        if let Some(family) = area.family() {
            return Ok(family);
        }
        let family = Family::new()?;
        family.members.reserve()?;
        let chosen = area.set_family(family.clone());
        if KArc::ptr_eq(chosen, &family) {
            family.members.add(area, Link::Family);
        }
        Ok(chosen)
    }

    // ---- files ----

    /// The file's page, read if need be. `Bus` beyond the end.
    fn file_page(area: &Area, file: &KArc<dyn MappedFile>, addr: u64) -> core::result::Result<FrameRef, Failure> {
        let cache = file.cache();
        let index = area.index_of(addr);
        if index >= cache.page_count() {
            return Err(Failure::Bus);
        }
        cache.page(index, Get::Read)?.ok_or(Failure::Bus)
    }

    /// Read of a file page: it is mapped read-only, and its resident neighbours with it.
    fn map_file_page(&self, area: &KArc<Area>, file: &KArc<dyn MappedFile>, addr: u64) -> Served {
        let cache = file.cache();
        let bits = pte::bits(area.prot, false);
        loop {
            let frame = Self::file_page(area, file, addr)?;
            let held = lock::lock(&frame);
            if !cache.owns(&frame) {
                drop(held);
                continue;
            }
            if area.index_of(addr) >= cache.page_count() {
                return Err(Failure::Bus);
            }
            if pte::executable(bits) {
                page::sync_icache(&frame);
            }
            let mapped = self.table.with_entry(UserAddr(addr), |slot| {
                let free = slot.get().is_none();
                if free {
                    page::mapped_file(&frame);
                    slot.map(frame.clone(), bits);
                }
                free
            })?;
            if mapped {
                self.rss.add(page::file_kind(&frame), 1);
            }
            drop(held);
            break;
        }
        if !area.flags.contains(MapFlags::RANDOM) {
            self.map_around(area, file, addr, bits);
        }
        Ok(())
    }

    /// Maps what is in the cache anyway around `addr`: within the area, the file and the
    /// page-table page. Fails silently.
    fn map_around(&self, area: &Area, file: &KArc<dyn MappedFile>, addr: u64, bits: u64) {
        let cache = file.cache();
        // An aligned window never crosses a page-table page.
        let start = (addr & !(AROUND * PAGE - 1)).max(area.start);
        let end_of_file = cache.page_count().saturating_sub(area.index).saturating_mul(PAGE);
        let end = ((addr & !(AROUND * PAGE - 1)) + AROUND * PAGE).min(area.end).min(area.start.saturating_add(end_of_file));
        if start >= end {
            return;
        }
        let mut mapped = tlb::Delta::default();
        self.table.visit_all(start, end, |at, slot| {
            if !slot.get().is_none() {
                return;
            }
            let index = area.index_of(at);
            let Some(frame) = cache.lookup_ready(index) else { return };
            let Some(_held) = lock::try_lock(&frame) else { return };
            if !cache.owns(&frame) || index >= cache.page_count() {
                return;
            }
            if pte::executable(bits) {
                page::sync_icache(&frame);
            }
            page::mapped_file(&frame);
            mapped.mapped_file(&frame);
            slot.map(frame.clone(), bits);
        });
        mapped.apply(self);
    }

    /// First store to a page of a shared mapping: the file's page, dirty from now on.
    fn map_shared_write(&self, area: &KArc<Area>, file: &KArc<dyn MappedFile>, addr: u64) -> Served {
        let cache = file.cache();
        let bits = pte::bits(area.prot, true);
        loop {
            let frame = Self::file_page(area, file, addr)?;
            let index = area.index_of(addr);
            file.page_written(index)?;
            let held = lock::lock(&frame);
            if !cache.owns(&frame) {
                drop(held);
                continue;
            }
            if index >= cache.page_count() {
                return Err(Failure::Bus);
            }
            if pte::executable(bits) {
                page::sync_icache(&frame);
            }
            cache.mark_dirty(&frame);
            let mapped = self.table.with_entry(UserAddr(addr), |slot| {
                if slot.get().is_none() {
                    page::mapped_file(&frame);
                    slot.map(frame.clone(), bits);
                    return true;
                }
                if slot.frame().is_some_and(|f| f.pfn() == frame.pfn()) && !pte::writable(slot.get().bits()) {
                    pte::set(slot, bits);
                    self.flush(addr, addr + PAGE, false);
                }
                false
            })?;
            if mapped {
                self.rss.add(page::file_kind(&frame), 1);
            }
            drop(held);
            return Ok(());
        }
    }

    /// First store to a page of a private file mapping: a copy.
    fn map_private_copy(&self, area: &KArc<Area>, file: &KArc<dyn MappedFile>, addr: u64) -> Served {
        let from = Self::file_page(area, file, addr)?;
        let copy = alloc_frame(AllocFlags::MOVABLE)?;
        copy.copy_from(&from);
        self.install_anon(area, addr, copy, None)
    }

    // ---- something there ----

    /// A store to a page that is mapped read-only in an area that allows writing.
    fn write_to_present(&self, area: &KArc<Area>, file: File<'_>, addr: u64) -> Served {
        if area.shared() {
            return match file {
                Some(file) if file.device_page(area.index_of(addr)).is_none() => self.map_shared_write(area, file, addr),
                _ => self.touch(addr),
            };
        }
        let bits = pte::bits(area.prot, true);
        // What is there, and whether it is ours alone already.
        enum Found {
            Done,
            Gone,
            Zeros(pte::Seen),
            Copy(FrameRef, pte::Seen),
        }
        let found = self.table.with_existing(UserAddr(addr), |slot| {
            let entry = slot.get();
            if !entry.is_present() {
                return Found::Gone;
            }
            if pte::writable(entry.bits()) {
                return Found::Done;
            }
            let seen = pte::Seen::of(slot);
            let Some(frame) = slot.frame() else { return Found::Zeros(seen) };
            if page::sole_owner(frame) {
                // The last of the sharers: no copy. Nobody else can find the frame meanwhile:
                // this entry's lock keeps fork out, and nothing else refers to it.
                pte::set(slot, bits);
                self.flush(addr, addr + PAGE, false);
                return Found::Done;
            }
            match slot.clone_frame() {
                Some(frame) => Found::Copy(frame, seen),
                None => Found::Gone,
            }
        });
        match found {
            Some(Found::Zeros(seen)) => {
                let frame = alloc_frame(AllocFlags::MOVABLE | AllocFlags::ZERO)?;
                self.install_anon(area, addr, frame, Some(seen))
            }
            Some(Found::Copy(from, seen)) => {
                let copy = alloc_frame(AllocFlags::MOVABLE)?;
                copy.copy_from(&from);
                self.install_anon(area, addr, copy, Some(seen))
            }
            // Gone meanwhile: the access faults again and finds what is there then.
            Some(Found::Done | Found::Gone) | None => Ok(()),
        }
    }

    /// The entry allows the access already: a race with another fault, or the access flag.
    fn touch(&self, addr: u64) -> Served {
        // No page table: the entry went meanwhile; the access is repeated.
        let _ = self.table.with_existing(UserAddr(addr), |slot| slot.set_bits(AF, 0));
        Ok(())
    }

    // ---- stack ----

    /// Grows the stack above `addr` down to it. False: there is none, or it may not grow.
    fn grow_stack(&self, addr: u64, limits: &Limits) -> Result<bool> {
        let may_grow = |area: &Area| area.flags.contains(MapFlags::GROWSDOWN) && area.start > addr;
        // Most wild accesses end here, without a lock.
        if !self.area_from(addr).is_some_and(|a| may_grow(&a)) {
            return Ok(false);
        }
        let writer = self.write();
        let Some(area) = self.area_from(addr) else { return Ok(false) };
        if area.start <= addr {
            // Someone else grew it.
            return Ok(true);
        }
        if !may_grow(&area) || area.end - addr > limits.stack {
            return Ok(false);
        }
        // The guard gap, unless the neighbour is a stack too or cannot be accessed anyway.
        if let Some(below) = self.area_before(addr)
            && !below.flags.contains(MapFlags::GROWSDOWN)
            && !below.prot.is_empty()
            && addr - below.end < STACK_GAP
        {
            return Ok(false);
        }
        if addr < crate::space::MIN_ADDR.get_u64() {
            return Ok(false);
        }
        let mut edit = Edit::begin(self, &writer, area.start, area.end)?;
        let mut specs = kalloc::KVec::try_with_capacity(3)?;
        if let Some(old) = edit.old().first() {
            let mut spec = old.snapshot();
            spec.index = spec.index.wrapping_sub((spec.start - addr) / PAGE);
            spec.start = addr;
            specs.try_push(spec)?;
        }
        edit.replace(specs, limits)?;
        let retired = edit.commit(|_| ())?;
        drop(writer);
        drop(retired);
        Ok(true)
    }
}
