//! Address translation: the linear map over the arena, and switches that are only recorded.

use crate::sim::{arena, with_cpu};
use abi::{PhysAddr, UserAddr, VirtAddr};
use std::sync::atomic::Ordering;

#[path = "../common/pte.rs"]
pub mod pte;

/// An address-space identifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asid(pub u16);

/// Where the linear map has the physical address: inside the arena of the test.
pub fn linear(phys: PhysAddr) -> VirtAddr {
    let (ptr, base, len) = arena();
    assert!(!ptr.is_null(), "sim::set_phys_arena was not called");
    assert!(phys.0 >= base && phys.0 - base < len as u64, "{phys:?} is outside the arena");
    VirtAddr((ptr as u64).wrapping_add(phys.0 - base))
}

/// The same as `linear`.
pub fn phys_to_virt(phys: PhysAddr) -> VirtAddr {
    linear(phys)
}

/// The physical address of a linear-map address.
pub fn virt_to_phys(virt: VirtAddr) -> PhysAddr {
    let (ptr, base, len) = arena();
    let offset = virt.0.wrapping_sub(ptr as u64);
    assert!(offset < len as u64, "{virt:?} is outside the arena");
    PhysAddr(base + offset)
}

/// Bits in an ASID.
pub fn asid_bits() -> u32 {
    16
}

/// Installs a user table.
pub fn set_user_table(root: PhysAddr, asid: u16) {
    let value = root.0 | u64::from(asid) << 48;
    with_cpu(|cpu| cpu.machine.user_root.store(value, Ordering::SeqCst));
}

/// Installs the table that maps nothing.
pub fn set_empty_user_table() {
    set_user_table(PhysAddr(0), 0);
}

fn flushed() {
    with_cpu(|cpu| cpu.machine.tlb_flushes.fetch_add(1, Ordering::SeqCst));
}

/// Forgets what the TLBs hold for an ASID.
pub fn tlb_flush_asid(_: u16) {
    flushed();
}

/// Forgets what the TLBs hold for a range of an ASID.
pub fn tlb_flush_range(_: u16, _: UserAddr, _: UserAddr, _last_level_only: bool) {
    flushed();
}

/// Forgets what the TLBs hold for a kernel range.
pub fn tlb_flush_kernel_range(_: VirtAddr, _: VirtAddr) {
    flushed();
}

/// Forgets all.
pub fn tlb_flush_all() {
    flushed();
}

/// The kernel's level-0 table: the first page of the arena, for tests of the kernel map.
pub fn kernel_root() -> PhysAddr {
    PhysAddr(arena().1)
}

/// Makes table writes visible to the walkers.
pub fn make_table_visible() {
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// Whether the hardware sets access flags.
pub fn has_hw_af() -> bool {
    false
}

/// Whether the hardware manages dirty state.
pub fn has_hw_dbm() -> bool {
    false
}
