//! The bits of translation-table descriptors (Arm ARM D8.3, VMSAv8-64, 4 KiB granule).

/// The descriptor is valid.
pub const VALID: u64 = 1 << 0;
/// With `VALID` at levels 0 to 2: points to the next table.
pub const TABLE: u64 = 1 << 1;
/// With `VALID` at level 3: maps a page.
pub const PAGE: u64 = 1 << 1;
/// Both low bits: what decides the kind of a descriptor.
pub const TYPE_MASK: u64 = 3;

/// Memory type: index into MAIR_EL1.
pub const fn attr(index: u64) -> u64 {
    (index & 7) << 2
}
/// Normal memory, write-back cacheable.
pub const ATTR_NORMAL: u64 = attr(0);
/// Device registers (nGnRE).
pub const ATTR_DEVICE: u64 = attr(1);
/// Normal memory, not cacheable.
pub const ATTR_NC: u64 = attr(2);
/// The memory type's bits.
pub const ATTR_MASK: u64 = attr(7);

/// EL0 may access (AP[1]).
pub const AP_USER: u64 = 1 << 6;
/// Nobody may write (AP[2]).
pub const AP_RO: u64 = 1 << 7;
/// Inner shareable.
pub const SH_INNER: u64 = 3 << 8;
/// Access flag.
pub const AF: u64 = 1 << 10;
/// Not global: belongs to an ASID.
pub const NG: u64 = 1 << 11;
/// Guarded page (BTI).
pub const GP: u64 = 1 << 50;
/// Dirty bit modifier: hardware may clear `AP_RO` on a write.
pub const DBM: u64 = 1 << 51;
/// One of a run of contiguous entries.
pub const CONT: u64 = 1 << 52;
/// EL1 may not execute.
pub const PXN: u64 = 1 << 53;
/// EL0 may not execute.
pub const UXN: u64 = 1 << 54;
/// Software: the page was written to through this entry.
pub const SW_DIRTY: u64 = 1 << 55;
/// Software: the frame has no reference from this entry (device memory, zero page).
pub const SW_SPECIAL: u64 = 1 << 56;
/// Software: the area allows writing, whatever `AP_RO` says at the moment.
pub const SW_WRITE: u64 = 1 << 57;
/// Software: free for the page-table crate.
pub const SW_3: u64 = 1 << 58;

/// The output address (48 bits).
pub const ADDR_MASK: u64 = 0x0000_ffff_ffff_f000;

/// In a table descriptor: what lies below may not be executed by EL1.
pub const TABLE_PXN: u64 = 1 << 59;
/// In a table descriptor: what lies below may not be executed by EL0.
pub const TABLE_UXN: u64 = 1 << 60;

const KERNEL_PAGE: u64 = VALID | PAGE | ATTR_NORMAL | SH_INNER | AF | UXN;
/// A kernel data page.
pub const KERNEL_RW: u64 = KERNEL_PAGE | PXN;
/// A kernel page of constants.
pub const KERNEL_RO: u64 = KERNEL_PAGE | PXN | AP_RO;
/// A kernel text page.
pub const KERNEL_RX: u64 = KERNEL_PAGE | AP_RO;
/// A page of device registers.
pub const KERNEL_DEVICE: u64 = VALID | PAGE | ATTR_DEVICE | AF | UXN | PXN;
/// A kernel page that is not cached.
pub const KERNEL_NC: u64 = VALID | PAGE | ATTR_NC | SH_INNER | AF | UXN | PXN;

/// A user page: to be combined with `AP_RO` and `UXN`. Never executable by the kernel.
pub const USER_BASE: u64 = VALID | PAGE | ATTR_NORMAL | SH_INNER | AF | NG | PXN | AP_USER;
/// A user page to read.
pub const USER_RO: u64 = USER_BASE | AP_RO | UXN;
/// A user page to read and write.
pub const USER_RW: u64 = USER_BASE | UXN;
/// A user page to read and execute.
pub const USER_RX: u64 = USER_BASE | AP_RO;
/// A user page to read, write and execute.
pub const USER_RWX: u64 = USER_BASE;
