//! The shared page of zeros: what a read of untouched anonymous memory maps.

use abi::{Pfn, Result};
use frames::{AllocFlags, FrameRef, alloc_frame};
use sync::Once;

static ZERO: Once<FrameRef> = Once::new();

/// Makes the page, once. ENOMEM.
pub(crate) fn init() -> Result {
    if ZERO.get().is_none() {
        let frame = alloc_frame(AllocFlags::ZERO)?;
        ZERO.call_once(|| frame);
    }
    Ok(())
}

/// Its number; `None` before the first address space was made.
pub(crate) fn pfn() -> Option<Pfn> {
    ZERO.get().map(|frame| frame.pfn())
}

/// The page itself. ENOMEM.
pub fn zero_page() -> Result<FrameRef> {
    init()?;
    ZERO.get().cloned().ok_or(abi::Errno::ENOMEM)
}
