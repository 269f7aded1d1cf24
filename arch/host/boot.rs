//! What the boot code found out: nothing, on the host.

use abi::PhysAddr;

#[path = "../common/boot_types.rs"]
mod boot_types;
pub use boot_types::*;

static INFO: BootInfo = BootInfo {
    dtb: PhysAddr(0),
    dtb_size: 0,
    image_phys: PhysAddr(0),
    image_size: 0,
    entered_at_el2: false,
    boot_args: [0; 4],
    kaslr_offset: 0,
};

/// What the boot code found out.
pub fn info() -> &'static BootInfo {
    &INFO
}

/// The device tree: empty.
pub fn early_dtb() -> &'static [u8] {
    &[]
}

/// Maps memory banks: the arena is mapped already.
pub fn map_linear(
    _banks: &[PhysRange],
    _source: &mut dyn FnMut() -> Option<PhysAddr>,
) -> Result<(), MapError> {
    Ok(())
}

/// Forgets the identity map.
pub fn drop_identity_map() {}
