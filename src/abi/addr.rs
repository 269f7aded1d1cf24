//! Addresses of the three kinds that must never be mixed up: physical, kernel-virtual, user.

use core::fmt;

/// log2 of the page size: Linnet uses the 4 KiB granule (Arm ARM D8.2).
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// Mask of the offset bits in a page.
pub const PAGE_MASK: u64 = PAGE_SIZE as u64 - 1;
/// First address that no user mapping reaches: 48-bit lower half (TTBR0).
pub const USER_END: u64 = 1 << 48;

/// Rounds a byte count up to whole pages; `None` when that overflows.
pub const fn page_align_up(n: u64) -> Option<u64> {
    match n.checked_add(PAGE_MASK) {
        Some(v) => Some(v & !PAGE_MASK),
        None => None,
    }
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address as a number.
            pub const fn as_u64(self) -> u64 { self.0 }
            /// The address as a number (64-bit machines only).
            pub const fn as_usize(self) -> usize { self.0 as usize }
            /// Offset within the page.
            pub const fn page_offset(self) -> usize { (self.0 & PAGE_MASK) as usize }
            /// Start of the page that contains the address.
            pub const fn page_down(self) -> Self { Self(self.0 & !PAGE_MASK) }
            /// Start of the first page at or after the address; `None` at the end of the range.
            pub const fn page_up(self) -> Option<Self> {
                match page_align_up(self.0) { Some(v) => Some(Self(v)), None => None }
            }
            /// Whether the address is a multiple of `align` (a power of two).
            pub const fn is_aligned(self, align: u64) -> bool { self.0 & (align - 1) == 0 }
            /// `self + n`, or `None` on overflow.
            pub const fn checked_add(self, n: u64) -> Option<Self> {
                match self.0.checked_add(n) { Some(v) => Some(Self(v)), None => None }
            }
            /// `self + n`, wrapping: for numbers that are already known to be in range.
            pub const fn add(self, n: u64) -> Self { Self(self.0.wrapping_add(n)) }
            /// Whether this is address zero.
            pub const fn is_null(self) -> bool { self.0 == 0 }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:#x}", self.0) }
        }
        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::LowerHex::fmt(&self.0, f) }
        }
    };
}

address! {
    /// A physical address.
    PhysAddr
}
address! {
    /// A kernel-virtual address (upper half, TTBR1).
    VirtAddr
}
address! {
    /// An address as a user program states it: a claim, not yet checked.
    UserAddr
}

impl UserAddr {
    /// Whether `len` bytes from here stay inside the user half (`access_ok` in Linux's words).
    pub const fn range_ok(self, len: u64) -> bool {
        match self.0.checked_add(len) {
            Some(end) => end <= USER_END,
            None => false,
        }
    }
}

/// A page frame number: a physical address divided by the page size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Pfn(pub u64);

impl Pfn {
    /// Physical address of the frame's first byte.
    pub const fn addr(self) -> PhysAddr {
        PhysAddr(self.0 << PAGE_SHIFT)
    }
    /// The frame `n` further on.
    pub const fn add(self, n: u64) -> Self {
        Self(self.0.wrapping_add(n))
    }
}

impl PhysAddr {
    /// The frame that contains this address.
    pub const fn pfn(self) -> Pfn {
        Pfn(self.0 >> PAGE_SHIFT)
    }
}
