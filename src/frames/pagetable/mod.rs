//! Translation tables: the four levels of VMSAv8-64 with 4 KiB pages (Arm ARM D8.2, D8.3).
//!
//! [`PageTable`] is a user address space's (TTBR0); [`kernel`] the kernel's own (TTBR1).
//!
//! Break before make (Arm ARM D8.16.1): a valid entry is never replaced by another that maps
//! another frame. It is taken out ([`PteSlot::take`]), the TLBs forget it (the caller's business,
//! who knows the ASID), and only then may the slot be filled again. A change of permissions or
//! software bits of the same output address needs a flush, but no break. Debug builds assert it.
//!
//! Barriers: entries are written by single-copy-atomic stores; before a new mapping is used,
//! `arch::mmu::make_table_visible` (DSB ISHST; ISB) runs: at the end of every function here that
//! filled entries.

pub mod kernel;
mod table;
mod user;

pub use user::{PageTable, PteSlot};

use abi::{PhysAddr, Pfn};
use arch::mmu::pte;

/// One entry, as it was when it was read.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Pte(pub u64);

impl Pte {
    /// Maps nothing, says nothing.
    pub const NONE: Self = Self(0);

    /// Whether there is nothing.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
    /// Whether it maps something.
    pub const fn is_present(self) -> bool {
        self.0 & pte::VALID != 0
    }
    /// Whether it owns no reference of what it maps (zero page, device).
    pub const fn is_special(self) -> bool {
        self.0 & pte::SW_SPECIAL != 0
    }
    /// The frame that it maps.
    pub const fn pfn(self) -> Pfn {
        Pfn((self.0 & pte::ADDR_MASK) >> abi::PAGE_SHIFT)
    }
    /// The address that it maps.
    pub const fn phys(self) -> PhysAddr {
        PhysAddr(self.0 & pte::ADDR_MASK)
    }
    /// Everything but the address.
    pub const fn bits(self) -> u64 {
        self.0 & !pte::ADDR_MASK
    }
    /// Whether all of `bits` are set.
    pub const fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }
    /// Whether a program may write through it now.
    pub const fn is_writable(self) -> bool {
        self.is_present() && self.0 & pte::AP_RO == 0
    }
    /// Whether a program wrote through it: software's mark, or hardware's (DBM set, AP_RO clear).
    pub const fn is_dirty(self) -> bool {
        self.has(pte::SW_DIRTY) || (self.has(pte::DBM) && self.0 & pte::AP_RO == 0)
    }
    /// Whether it was used since the flag was cleared.
    pub const fn is_young(self) -> bool {
        self.has(pte::AF)
    }
    /// With these bits set.
    pub const fn with(self, bits: u64) -> Self {
        Self(self.0 | bits)
    }
    /// With these bits clear.
    pub const fn without(self, bits: u64) -> Self {
        Self(self.0 & !bits)
    }
}

impl core::fmt::Debug for Pte {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Pte({:#x})", self.0)
    }
}
