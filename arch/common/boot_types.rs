//! What the boot code tells the rooms above.

use abi::PhysAddr;

/// What the boot code found out before Rust ran.
#[derive(Clone, Copy, Debug)]
pub struct BootInfo {
    /// Device tree, as the boot loader passed it in x0.
    pub dtb: PhysAddr,
    /// Its size by its own header; zero when there is no plausible tree.
    pub dtb_size: usize,
    /// Where the image lies now (it may have moved itself).
    pub image_phys: PhysAddr,
    /// Its size in memory, BSS and boot tables included.
    pub image_size: usize,
    /// The boot CPU was entered at EL2.
    pub entered_at_el2: bool,
    /// x0 to x3 at entry.
    pub boot_args: [u64; 4],
    /// Random offset of the image in the kernel's address space.
    pub kaslr_offset: u64,
}

/// A range of physical addresses, `end` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PhysRange {
    /// First address.
    pub start: PhysAddr,
    /// First address beyond.
    pub end: PhysAddr,
}

impl PhysRange {
    /// A range from its ends.
    pub const fn new(start: PhysAddr, end: PhysAddr) -> Self {
        Self { start, end }
    }
    /// Bytes in the range; zero when the ends are the wrong way round.
    pub const fn len(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }
    /// Whether the range holds nothing.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether the address is in the range.
    pub const fn contains(&self, addr: PhysAddr) -> bool {
        self.start.0 <= addr.0 && addr.0 < self.end.0
    }
}

/// Why memory could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The source of table pages has no more.
    NoPage,
    /// The range ends beyond what 48 bits reach.
    OutOfRange,
}
