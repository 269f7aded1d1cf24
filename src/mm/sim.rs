//! A program for tests: loads and stores through the real page tables, faults when hardware would.
//!
//! The tables stand in the simulated machine's memory. A TLB stands between: an entry stays usable
//! until some flush happens, so a missing flush shows as a stale access.

use std::{cell::RefCell, collections::BTreeMap, sync::OnceLock};

use abi::{PAGE_MASK, PAGE_SIZE, PhysAddr, Result, UserAddr};
use arch::{Access, FaultKind, PageFault};
use core::fmt;
use kalloc::{KArc, karc_dyn};

use crate::{rmap::PAGE, *};

/// A machine with memory, once per test process.
pub(crate) fn machine() {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        const BASE: u64 = 0x4000_0000;
        const SIZE: usize = 64 << 20;
        arch::sim::ensure_phys_arena(PhysAddr(BASE), SIZE);
        let banks = [frames::PhysRange::new(PhysAddr(BASE), PhysAddr(BASE + SIZE as u64))];
        // The first page stands for the kernel's root table.
        let reserved = [frames::PhysRange::new(PhysAddr(BASE), PhysAddr(BASE + PAGE))];
        frames::init(&banks, &reserved).unwrap();
    });
}

/// One program's view of its space.
pub(crate) struct Program {
    pub space: KArc<AddressSpace>,
    pub limits: Limits,
    tlb: RefCell<(u64, BTreeMap<u64, (u64, bool, bool)>)>,
    pub faults: RefCell<u64>,
}

impl Program {
    pub fn new() -> Self {
        machine();
        Self::of(AddressSpace::new().unwrap())
    }

    pub fn of(space: KArc<AddressSpace>) -> Self {
        // As if it ran: it gets an ASID, and flushes happen.
        let flags = arch::irq::save_and_disable();
        space.activate_on(arch::cpu::id());
        arch::irq::restore(flags);
        Self { space, limits: Limits { stack: 8 << 20, ..Limits::UNLIMITED }, tlb: RefCell::default(), faults: RefCell::new(0) }
    }

    pub fn fork(&self) -> Self {
        Self::of(self.space.fork().unwrap())
    }

    /// The frame behind an address, as the MMU finds it.
    fn translate(&self, addr: u64, access: Access) -> std::result::Result<&'static frames::Frame, FaultOutcome> {
        let page = addr & !PAGE_MASK;
        let ok = |w: bool, x: bool| match access {
            Access::Read => true,
            Access::Write => w,
            Access::Execute => x,
        };
        for _ in 0..8 {
            let mut tlb = self.tlb.borrow_mut();
            let now = arch::sim::tlb_flushes();
            if tlb.0 != now {
                *tlb = (now, BTreeMap::new());
            }
            if let Some((pfn, w, x)) = tlb.1.get(&page)
                && ok(*w, *x)
            {
                return Ok(frames::frame_of(abi::Pfn(*pfn)).unwrap());
            }
            let entry = self.space.table.walk(UserAddr(page));
            let user = entry.is_present() && entry.bits() & arch::mmu::pte::AP_USER != 0;
            if user {
                let (w, x) = (pte::writable(entry.bits()), pte::executable(entry.bits()));
                tlb.1.insert(page, (entry.phys().pfn().0, w, x));
                if ok(w, x) {
                    return Ok(frames::frame_of(entry.phys().pfn()).unwrap());
                }
            }
            drop(tlb);
            *self.faults.borrow_mut() += 1;
            let kind = if entry.is_present() { FaultKind::Permission } else { FaultKind::Translation };
            let fault = PageFault { addr: UserAddr(addr), access, kind, esr: 0, from_user: true };
            match self.space.fault(fault, &self.limits) {
                FaultOutcome::Resolved | FaultOutcome::Retry => {}
                other => return Err(other),
            }
        }
        panic!("the fault at {addr:#x} does not end");
    }

    pub fn load(&self, addr: u64) -> std::result::Result<u8, FaultOutcome> {
        let frame = self.translate(addr, Access::Read)?;
        let mut byte = [0];
        frames::FrameRef::try_get(frame).unwrap().copy_out((addr & PAGE_MASK) as usize, &mut byte);
        Ok(byte[0])
    }

    pub fn store(&self, addr: u64, value: u8) -> std::result::Result<(), FaultOutcome> {
        let frame = self.translate(addr, Access::Write)?;
        frames::FrameRef::try_get(frame).unwrap().copy_in((addr & PAGE_MASK) as usize, &[value]);
        Ok(())
    }

    pub fn fetch(&self, addr: u64) -> std::result::Result<u8, FaultOutcome> {
        let frame = self.translate(addr, Access::Execute)?;
        let mut byte = [0];
        frames::FrameRef::try_get(frame).unwrap().copy_out((addr & PAGE_MASK) as usize, &mut byte);
        Ok(byte[0])
    }

    /// Private anonymous memory.
    pub fn anon(&self, pages: u64, prot: Prot) -> u64 {
        self.space.map(MapRequest { len: pages * PAGE, prot, ..Default::default() }).unwrap().0
    }

    pub fn anon_at(&self, addr: u64, pages: u64, prot: Prot) -> Result<u64> {
        let request =
            MapRequest { addr: Some(UserAddr(addr)), fixed: Fixed::Replace, len: pages * PAGE, prot, ..Default::default() };
        self.space.map(request).map(|a| a.0)
    }

    pub fn file_at(&self, addr: u64, pages: u64, prot: Prot, shared: bool, file: &KArc<dyn MappedFile>, first: u64) -> Result<u64> {
        let request = MapRequest {
            addr: (addr != 0).then_some(UserAddr(addr)),
            fixed: if addr == 0 { Fixed::No } else { Fixed::Replace },
            len: pages * PAGE,
            prot,
            flags: if shared { MapFlags::SHARED } else { MapFlags::empty() },
            backing: Backing::File { file: file.clone(), offset: first * PAGE },
            ..Default::default()
        };
        self.space.map(request).map(|a| a.0)
    }
}

/// A file for tests: shared memory, or a source whose page `i` is full of `i + 1`.
pub(crate) struct TestFile {
    pub cache: KArc<PageCache>,
    pub writable: bool,
}

impl MappedFile for TestFile {
    fn cache(&self) -> &KArc<PageCache> {
        &self.cache
    }
    fn may_map(&self, prot: Prot, shared: bool) -> Result {
        if shared && prot.contains(Prot::W) && !self.writable { Err(abi::Errno::EACCES) } else { Ok(()) }
    }
    fn forced_flags(&self, shared: bool) -> MapFlags {
        if shared && !self.writable { MapFlags::NO_WRITE } else { MapFlags::empty() }
    }
    fn describe(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str("/test")
    }
    fn identity(&self) -> (abi::DevNum, u64) {
        (abi::DevNum::new(8, 1), 42)
    }
}

/// A source whose page `i` is full of the byte `i + 1`, and which remembers what is written back.
#[derive(Default)]
pub(crate) struct Pattern {
    pub written: std::sync::Mutex<BTreeMap<u64, u8>>,
    pub fail: std::sync::atomic::AtomicBool,
}

impl PageSource for Pattern {
    fn kind(&self) -> CacheKind {
        CacheKind::File
    }
    fn read_page(&self, index: u64, frame: &frames::FrameRef) -> Result {
        if self.fail.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(abi::Errno::EIO);
        }
        frame.copy_in(0, &[index as u8 + 1; PAGE_SIZE]);
        Ok(())
    }
    fn write_page(&self, index: u64, frame: &frames::FrameRef) -> Result {
        let mut byte = [0];
        frame.copy_out(0, &mut byte);
        self.written.lock().unwrap().insert(index, byte[0]);
        Ok(())
    }
}

pub(crate) fn pattern_file(pages: u64) -> (KArc<Pattern>, KArc<PageCache>, KArc<dyn MappedFile>) {
    machine();
    let source = KArc::try_new(Pattern::default()).unwrap();
    let cache = PageCache::new(Some(kalloc::karc_as!(source.clone() => dyn PageSource))).unwrap();
    cache.set_size(pages * PAGE);
    let file = karc_dyn!(TestFile { cache: cache.clone(), writable: true } => dyn MappedFile).unwrap();
    (source, cache, file)
}

pub(crate) fn memory_file(pages: u64) -> (KArc<PageCache>, KArc<dyn MappedFile>) {
    machine();
    let cache = PageCache::new(None).unwrap();
    cache.set_size(pages * PAGE);
    let file = karc_dyn!(TestFile { cache: cache.clone(), writable: true } => dyn MappedFile).unwrap();
    (cache, file)
}

/// Lets everything that waits for a grace period go.
pub(crate) fn settle() {
    sync::rcu::barrier();
}
