//! From the boot assembly to `linnet_main`, what was found on the way, and the linear map.

use crate::early_map::{FIXMAP_DTB, POOL_EMPTY_ROOT, POOL_IMAGE_PAGES, POOL_KERNEL_ROOT};
use crate::layout::{FIXMAP_BASE, IMAGE_BASE, LINEAR_BASE, VMALLOC_BASE};
use crate::mmu::{self, pte};
use crate::{early_console, early_dt, features, fixmap, percpu, thread};
use abi::{CpuId, PAGE_SIZE, PhysAddr, VirtAddr};
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

#[path = "../common/boot_types.rs"]
mod boot_types;
pub use boot_types::*;

core::arch::global_asm!(
    include_str!("head.S"),
    CPU_BLOCKS = sym percpu::CPU_BLOCKS,
    BOOT_HEAD = sym thread::BOOT_HEAD,
    CURRENT = const offset_of!(percpu::CpuBlock, current),
    BOOT_SLOT = sym crate::smp::BOOT_SLOT,
);

unsafe extern "C" {
    fn linnet_main() -> !;
    static _text: u8;
    static _end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __boot_tables: u8;
    static __boot_stack: u8;
    static __boot_stack_top: u8;
    static boot_image_phys: AtomicU64;
    static boot_image_virt: AtomicU64;
}

/// What head.S hands over.
#[repr(C)]
struct Handover {
    image_phys: u64,
    kaslr_offset: u64,
    args: [u64; 4],
    entered_at_el2: u64,
    unused: u64,
}

struct InfoCell(UnsafeCell<BootInfo>);

// SAFETY: written once by the boot CPU before anything else runs; only read afterwards.
unsafe impl Sync for InfoCell {}

static INFO: InfoCell = InfoCell(UnsafeCell::new(BootInfo {
    dtb: PhysAddr(0),
    dtb_size: 0,
    image_phys: PhysAddr(0),
    image_size: 0,
    entered_at_el2: false,
    boot_args: [0; 4],
    kaslr_offset: 0,
}));

/// What the boot code found out.
pub fn info() -> &'static BootInfo {
    // SAFETY: see `InfoCell`.
    unsafe { &*INFO.0.get() }
}

/// The device tree as the boot loader passed it: as long as its header says, otherwise unchecked.
/// Empty when there is none.
pub fn early_dtb() -> &'static [u8] {
    let info = info();
    if info.dtb_size == 0 {
        return &[];
    }
    // SAFETY: `early_map` mapped that many bytes read-only, and nothing unmaps them.
    unsafe {
        core::slice::from_raw_parts((FIXMAP_DTB + info.dtb.page_offset() as u64) as *const u8, info.dtb_size)
    }
}

/// Address of a page of the boot tables in the image's mapping.
pub(crate) fn pool_page(n: u64) -> u64 {
    (&raw const __boot_tables) as u64 + n * PAGE_SIZE as u64
}

/// The boot stack: base and top.
pub fn boot_stack() -> (VirtAddr, VirtAddr) {
    (VirtAddr((&raw const __boot_stack) as u64), VirtAddr((&raw const __boot_stack_top) as u64))
}

/// The image's text and constants, virtual: what may be executed or only read.
pub fn image_text_and_constants() -> (VirtAddr, VirtAddr) {
    (VirtAddr((&raw const _text) as u64), VirtAddr((&raw const __rodata_end) as u64))
}

/// The boot CPU's first Rust at the final address.
#[unsafe(no_mangle)]
extern "C" fn linnet_boot_cpu(handover: &Handover) -> ! {
    let image_virt = IMAGE_BASE + handover.kaslr_offset;
    let image_phys = handover.image_phys;
    let pool = pool_page(0) - image_virt + image_phys;
    mmu::init(
        image_virt,
        image_phys,
        pool + POOL_KERNEL_ROOT * PAGE_SIZE as u64,
        pool + POOL_EMPTY_ROOT * PAGE_SIZE as u64,
    );
    drop_identity_map();
    seal_constants(image_virt);

    percpu::init();
    let (base, top) = boot_stack();
    thread::BOOT_HEAD.set_stack(base.0, top.0);
    crate::thread_switch::mark_stack(&thread::BOOT_HEAD);
    // Nothing may switch away before there is a scheduler.
    thread::BOOT_HEAD.preempt_count.store(1, Ordering::Relaxed);

    // SAFETY: other CPUs are not started yet.
    unsafe {
        boot_image_phys.store(image_phys, Ordering::Relaxed);
        *INFO.0.get() = BootInfo {
            dtb: PhysAddr(handover.args[0]),
            dtb_size: 0,
            image_phys: PhysAddr(image_phys),
            image_size: ((&raw const _end) as u64 - image_virt) as usize,
            entered_at_el2: handover.entered_at_el2 != 0,
            boot_args: handover.args,
            kaslr_offset: handover.kaslr_offset,
        };
        (*INFO.0.get()).dtb_size = mapped_dtb_size(PhysAddr(handover.args[0]));
    }
    // Secondaries read these two words with their MMU off.
    crate::cache::clean_to_poc(VirtAddr((&raw const boot_image_virt) as u64), 128);

    wipe_kaslr_seed();
    features::init_boot_cpu();
    if let Some(console) = early_dt::console(early_dtb()) {
        early_console::init(console);
    }
    // SAFETY: unmasks SError: an error of the memory system is reported where it happens.
    unsafe { core::arch::asm!("msr daifclr, #4", options(nostack, preserves_flags)) };
    // SAFETY: the composition's entry.
    unsafe { linnet_main() }
}

/// Takes the seed of the kernel's address out of the tree, which programs may come to read. Before
/// anything keeps a reference into the tree.
fn wipe_kaslr_seed() {
    let Some(range) = early_dt::kaslr_seed(early_dtb()) else { return };
    let dtb = info().dtb;
    for at in range {
        fixmap::with_window(dtb.add(at as u64), |byte| {
            // SAFETY: a byte of the tree, mapped for writing; nobody else looks at the tree now.
            unsafe { (byte.0 as *mut u8).write_volatile(0) };
        });
    }
}

/// Size of the tree at `phys` if `early_map` took it for one, else 0.
fn mapped_dtb_size(phys: PhysAddr) -> usize {
    if phys.0 == 0 || !phys.is_aligned(8) {
        return 0;
    }
    // `early_map` left the first entry of the device tree's table empty if there is no tree.
    let entry = pool_page(11) as *const AtomicU64;
    // SAFETY: a word of the boot tables.
    if unsafe { (*entry).load(Ordering::Relaxed) } == 0 {
        return 0;
    }
    let header = (FIXMAP_DTB + phys.page_offset() as u64) as *const [u8; 4];
    // SAFETY: mapped, and the tree has at least its header of 40 bytes.
    u32::from_be_bytes(unsafe { *header.add(1) }) as usize
}

/// Makes the image's constants read-only, after relocation wrote to them. Only permissions change,
/// so the entries need no break before make (Arm ARM D8.14.1).
fn seal_constants(image_virt: u64) {
    let first = ((&raw const __rodata_start) as u64 - image_virt) / PAGE_SIZE as u64;
    let end = ((&raw const __rodata_end) as u64 - image_virt) / PAGE_SIZE as u64;
    for page in first..end {
        // The image starts at a 2 MiB boundary: its level 3 tables are one array.
        let entry = (pool_page(POOL_IMAGE_PAGES) + page * 8) as *const AtomicU64;
        // SAFETY: an entry of the image's level 3 tables, all accesses to which are atomic here.
        unsafe { (*entry).fetch_or(pte::AP_RO, Ordering::Relaxed) };
    }
    mmu::tlb_flush_all();
}

/// Leaves the identity map on this CPU: the user half maps nothing.
pub fn drop_identity_map() {
    mmu::set_empty_user_table();
    mmu::tlb_flush_all();
}

const BLOCK: u64 = 2 << 20;

/// Maps memory banks in the linear map: blocks of 2 MiB where possible, never executable, the image's
/// text and constants read-only. `source` gives pages for tables (any memory, contents do not matter).
/// For the boot CPU, before others run. A bank may be added later; what is mapped stays.
pub fn map_linear(
    banks: &[PhysRange],
    source: &mut dyn FnMut() -> Option<PhysAddr>,
) -> Result<(), MapError> {
    let mut mapper = Mapper { source };
    for bank in banks {
        let start = bank.start.page_up().ok_or(MapError::OutOfRange)?.0;
        let end = bank.end.page_down().0;
        if end > VMALLOC_BASE - LINEAR_BASE {
            return Err(MapError::OutOfRange);
        }
        mapper.map(start, end)?;
    }
    mmu::make_table_visible();
    Ok(())
}

struct Mapper<'a> {
    source: &'a mut dyn FnMut() -> Option<PhysAddr>,
}

impl Mapper<'_> {
    fn map(&mut self, start: u64, end: u64) -> Result<(), MapError> {
        let (ro_start, ro_end) = image_text_and_constants();
        let (ro_start, ro_end) = (mmu::virt_to_phys(ro_start).0, mmu::virt_to_phys(ro_end).0);
        let mut at = start;
        while at < end {
            let l1 = self.table_below(mmu::kernel_root(), at, 0)?;
            let l2 = self.table_below(l1, at, 1)?;
            let stop = end.min((at & !((1 << 30) - 1)) + (1 << 30));
            while at < stop {
                let block_end = (at & !(BLOCK - 1)) + BLOCK;
                let touches_image = at < ro_end && block_end > ro_start;
                if at & (BLOCK - 1) == 0 && block_end <= end && !touches_image {
                    self.set(l2, at, 2, at | (pte::KERNEL_RW & !pte::PAGE));
                    at = block_end;
                    continue;
                }
                let l3 = self.table_below(l2, at, 2)?;
                let part_end = block_end.min(end);
                fixmap::with_window(l3, |window| {
                    while at < part_end {
                        let ro = at >= ro_start && at < ro_end;
                        let bits = if ro { pte::KERNEL_RO } else { pte::KERNEL_RW };
                        slot(window, at, 3).store(at | bits, Ordering::Relaxed);
                        at += PAGE_SIZE as u64;
                    }
                });
            }
        }
        Ok(())
    }

    /// Sets a block entry unless something is there.
    fn set(&self, table: PhysAddr, at: u64, level: u32, value: u64) {
        fixmap::with_window(table, |window| {
            let entry = slot(window, at, level);
            if entry.load(Ordering::Relaxed) & pte::VALID == 0 {
                entry.store(value, Ordering::Relaxed);
            }
        });
    }

    /// The table that the entry for `at` in `table` (of `level`) points to; a new one if none.
    fn table_below(&mut self, table: PhysAddr, at: u64, level: u32) -> Result<PhysAddr, MapError> {
        let found = fixmap::with_window(table, |w| slot(w, at, level).load(Ordering::Relaxed));
        if found & pte::TYPE_MASK == pte::VALID | pte::TABLE {
            return Ok(PhysAddr(found & pte::ADDR_MASK));
        }
        let page = (self.source)().ok_or(MapError::NoPage)?;
        // A block that is there already becomes a table of pages with the same attributes.
        let block = found & pte::VALID != 0;
        fixmap::with_window(page, |w| {
            for i in 0..512u64 {
                let value = if block { (found | pte::PAGE) + i * PAGE_SIZE as u64 } else { 0 };
                slot(w, i << 12, 3).store(value, Ordering::Relaxed);
            }
        });
        fixmap::with_window(table, |w| {
            let entry = slot(w, at, level);
            if block {
                entry.store(0, Ordering::Relaxed);
                mmu::tlb_flush_all();
            }
            entry.store(page.0 | pte::VALID | pte::TABLE, Ordering::Release);
        });
        mmu::make_table_visible();
        Ok(page)
    }
}

/// The entry for the linear address of `at` in the table mapped at `window`.
fn slot(window: VirtAddr, at: u64, level: u32) -> &'static AtomicU64 {
    let index = at >> (39 - 9 * level) & 511;
    // SAFETY: `window` is a whole mapped page; the index is below 512. The reference is used only
    // while the window is open.
    unsafe { &*((window.0 + index * 8) as *const AtomicU64) }
}

const _: () = assert!(FIXMAP_BASE > IMAGE_BASE && LINEAR_BASE >> 39 & 511 == 0);
const _: () = assert!(CpuId::BOOT.0 == 0);
