//! Address translation: the linear map's arithmetic, switching the user table, TLB maintenance.
//!
//! Sources: Arm ARM D8.2 to D8.17 (VMSAv8-64), D8.14 (TLB maintenance). Barriers: a table write is made
//! visible by DSB ISHST before it is relied on; a TLBI is complete after DSB ISH; ISB makes this CPU
//! forget what it fetched and translated ahead.

use crate::layout::{IMAGE_BASE, LINEAR_BASE, VMALLOC_BASE};
use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::TTBR0_EL1;
use abi::{PAGE_SIZE, PhysAddr, UserAddr, VirtAddr};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tock_registers::interfaces::Writeable;

#[path = "../common/pte.rs"]
pub mod pte;

/// An address-space identifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asid(pub u16);

/// An online CPU has an erratum that lets it keep a translation once more: each invalidation is
/// issued, completed, and issued again (Cortex-A76 erratum 1286807).
pub(crate) static REPEAT_TLBI: AtomicBool = AtomicBool::new(false);

/// Issues TLB invalidations; `before_tlbi` comes before and `after_tlbi` behind.
#[inline]
fn invalidate(tlbi: impl Fn()) {
    tlbi();
    if REPEAT_TLBI.load(Ordering::Relaxed) {
        after_tlbi();
        tlbi();
    }
}

/// Image's virtual minus physical address.
static IMAGE_OFFSET: AtomicU64 = AtomicU64::new(0);
static KERNEL_ROOT: AtomicU64 = AtomicU64::new(0);
static EMPTY_ROOT: AtomicU64 = AtomicU64::new(0);

pub(crate) fn init(image_virt: u64, image_phys: u64, kernel_root: u64, empty_root: u64) {
    IMAGE_OFFSET.store(image_virt.wrapping_sub(image_phys), Ordering::Relaxed);
    KERNEL_ROOT.store(kernel_root, Ordering::Relaxed);
    EMPTY_ROOT.store(empty_root, Ordering::Relaxed);
}

/// Where the linear map has the physical address.
#[inline]
pub const fn linear(phys: PhysAddr) -> VirtAddr {
    VirtAddr(LINEAR_BASE + phys.0)
}

/// The same as `linear`.
#[inline]
pub const fn phys_to_virt(phys: PhysAddr) -> VirtAddr {
    linear(phys)
}

/// The physical address of a linear-map or image address.
#[inline]
pub fn virt_to_phys(virt: VirtAddr) -> PhysAddr {
    if virt.0 >= IMAGE_BASE {
        return PhysAddr(virt.0.wrapping_sub(IMAGE_OFFSET.load(Ordering::Relaxed)));
    }
    debug_assert!(virt.0 >= LINEAR_BASE && virt.0 < VMALLOC_BASE);
    PhysAddr(virt.0 - LINEAR_BASE)
}

/// Bits in an ASID that all CPUs have: 8 or 16.
pub fn asid_bits() -> u32 {
    if crate::features::has(crate::features::Feature::Asid16) { 16 } else { 8 }
}

/// Installs a user table. With interrupts or preemption off.
#[inline]
pub fn set_user_table(root: PhysAddr, asid: u16) {
    // TTBR0 maps the user half only; the caller answers for the table (frames). The ISB keeps user
    // accesses after it from using the old one.
    TTBR0_EL1.set(root.0 | u64::from(asid) << 48);
    isb();
}

/// Installs the table that maps nothing, with ASID 0, which no address space has.
#[inline]
pub fn set_empty_user_table() {
    set_user_table(PhysAddr(EMPTY_ROOT.load(Ordering::Relaxed)), 0);
}

/// The table writes are visible to every walker.
#[inline]
fn before_tlbi() {
    barrier::dsb(barrier::ISHST);
}

/// The invalidation is complete on all CPUs of the inner-shareable domain.
#[inline]
fn after_tlbi() {
    barrier::dsb(barrier::ISH);
}

#[inline]
fn isb() {
    barrier::isb(barrier::SY);
}

/// Forgets, on all CPUs, what the TLBs hold for an ASID.
#[inline]
pub fn tlb_flush_asid(asid: u16) {
    before_tlbi();
    // SAFETY: TLB maintenance has no effect but slower translation.
    invalidate(|| unsafe { asm!("tlbi aside1is, {}", in(reg) u64::from(asid) << 48, options(nostack, preserves_flags)) });
    after_tlbi();
}

/// Beyond this many pages a range costs more than everything.
const MAX_RANGE_PAGES: u64 = 512;

/// Forgets, on all CPUs, what the TLBs hold for a range of an ASID. `last_level_only` keeps cached
/// table entries: right when no table was freed.
#[inline]
pub fn tlb_flush_range(asid: u16, start: UserAddr, end: UserAddr, last_level_only: bool) {
    let pages = end.0.saturating_sub(start.0).div_ceil(PAGE_SIZE as u64);
    if pages > MAX_RANGE_PAGES {
        return tlb_flush_asid(asid);
    }
    before_tlbi();
    let first = u64::from(asid) << 48 | (start.0 >> 12 & 0xfff_ffff_ffff);
    invalidate(|| {
        for op in first..first + pages {
            // SAFETY: TLB maintenance has no effect but slower translation.
            unsafe {
                if last_level_only {
                    asm!("tlbi vale1is, {}", in(reg) op, options(nostack, preserves_flags));
                } else {
                    asm!("tlbi vae1is, {}", in(reg) op, options(nostack, preserves_flags));
                }
            }
        }
    });
    after_tlbi();
}

/// Forgets, on all CPUs, what the TLBs hold for a kernel range, table entries included.
pub fn tlb_flush_kernel_range(start: VirtAddr, end: VirtAddr) {
    let pages = end.0.saturating_sub(start.0).div_ceil(PAGE_SIZE as u64);
    if pages > MAX_RANGE_PAGES {
        return tlb_flush_all();
    }
    before_tlbi();
    invalidate(|| {
        for n in 0..pages {
            let op = ((start.0 >> 12) + n) & 0xfff_ffff_ffff;
            // SAFETY: TLB maintenance has no effect but slower translation.
            unsafe { asm!("tlbi vaae1is, {}", in(reg) op, options(nostack, preserves_flags)) };
        }
    });
    after_tlbi();
    isb();
}

/// Forgets everything, on all CPUs.
pub fn tlb_flush_all() {
    before_tlbi();
    // SAFETY: TLB maintenance has no effect but slower translation.
    invalidate(|| unsafe { asm!("tlbi vmalle1is", options(nostack, preserves_flags)) });
    after_tlbi();
    isb();
}

/// The kernel's level-0 table.
pub fn kernel_root() -> PhysAddr {
    PhysAddr(KERNEL_ROOT.load(Ordering::Relaxed))
}

/// Makes table writes visible to the walkers and to this CPU's next access.
#[inline]
pub fn make_table_visible() {
    before_tlbi();
    isb();
}

/// Whether the hardware of all CPUs sets access flags.
pub fn has_hw_af() -> bool {
    crate::features::has(crate::features::Feature::HwAccessFlag)
}

/// Whether the hardware of all CPUs manages dirty state.
pub fn has_hw_dbm() -> bool {
    crate::features::has(crate::features::Feature::HwDirty)
}
