#![cfg_attr(not(test), no_std)]
//! Fallible allocation: what `Box`, `Arc`, `Vec` and `String` are elsewhere.
//!
//! Nothing here aborts for want of memory: whatever allocates returns `Result<_, AllocError>`,
//! which converts into `Errno::ENOMEM`. No `GlobalAlloc` exists, so the infallible types of
//! `alloc` cannot even be linked. On the target memory comes from the slab (`frames::slab`), on the
//! host from std's allocator.
//!
//! Context: allocation and freeing work in any context, interrupts included.
//!
//! Invariants that the unsafe code relies on:
//! 1. [`KBox`], [`KVec`]: the pointer owns its allocation alone, of exactly
//!    `Layout::for_value` (`capacity` elements); a zero-sized layout owns nothing.
//! 2. [`KArc`]: the inner block lives while `weak > 0`; all strong handles together hold one weak
//!    count; the value is alive while `strong > 0`.
//! 3. [`RcuArc`]: the pointer in the slot owns one strong count, which is given up a grace period
//!    after the pointer left the slot. [`ArcSlot`]: the block of every value that was in a slot is
//!    freed a grace period after its last handle went.

mod arc;
mod boxed;
mod fail;
mod raw;
mod rcu_arc;
mod string;
mod vec;

pub use arc::{KArc, KWeak};
pub use boxed::KBox;
pub use fail::{allocations_left, disarm, fail_nth};
pub use rcu_arc::{ArcSlot, RcuArc};
pub use string::KString;
pub use unsize::{CoerceUnsize, Coercion};
pub use vec::{Drain, IntoIter, KVec};

/// Bytes that grow.
pub type KBytes = KVec<u8>;

/// There was no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AllocError;

impl From<AllocError> for abi::Errno {
    fn from(_: AllocError) -> Self {
        Self::ENOMEM
    }
}

impl core::fmt::Display for AllocError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("out of memory")
    }
}

impl core::error::Error for AllocError {}

/// A copy that may fail for want of memory.
pub trait TryClone: Sized {
    /// The copy.
    fn try_clone(&self) -> Result<Self, AllocError>;
}

/// A [`KBox`] of a value as a trait object: `kbox_dyn!(value => dyn Trait)`,
/// a `Result<KBox<dyn Trait>, AllocError>`.
#[macro_export]
macro_rules! kbox_dyn {
    ($value:expr => $($ty:tt)+) => {
        $crate::KBox::try_new($value)
            .map(|b| $crate::CoerceUnsize::unsize(b, $crate::Coercion!(to $($ty)+)))
    };
}

/// A [`KArc`] of a value as a trait object: `karc_dyn!(value => dyn Trait)`,
/// a `Result<KArc<dyn Trait>, AllocError>`.
#[macro_export]
macro_rules! karc_dyn {
    ($value:expr => $($ty:tt)+) => {
        $crate::KArc::try_new($value)
            .map(|b| $crate::CoerceUnsize::unsize(b, $crate::Coercion!(to $($ty)+)))
    };
}

/// A [`KArc`] that exists already, as a trait object: `karc_as!(arc => dyn Trait)`.
#[macro_export]
macro_rules! karc_as {
    ($arc:expr => $($ty:tt)+) => {
        $crate::CoerceUnsize::unsize($arc, $crate::Coercion!(to $($ty)+))
    };
}

/// As `format!`, but `Result<KString, AllocError>`.
#[macro_export]
macro_rules! kformat {
    ($($arg:tt)*) => {
        $crate::KString::try_from_fmt(::core::format_args!($($arg)*))
    };
}
