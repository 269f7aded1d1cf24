//! Instructions that are replaced at boot, once, by what the CPUs can do.
//!
//! The table `.alternatives` has one entry a site (macro `alternative` of alternative.inc). Patching happens while the
//! boot CPU alone runs kernel code: secondaries wait in `smp` until it is done, and start with an ISB
//! (Arm ARM B2.2.5: no other concurrent modification of these instructions is allowed).

use crate::features::{self, Feature};
use abi::VirtAddr;
use core::sync::atomic::{AtomicU32, Ordering};

/// One patch site. Both places are relative to the field.
#[repr(C)]
struct Alternative {
    site: i32,
    instruction: u32,
    feature: u32,
}

unsafe extern "C" {
    static __alternatives_start: Alternative;
    static __alternatives_end: Alternative;
}

/// Patches the sites whose feature all CPUs have; how many.
pub(crate) fn apply() -> usize {
    let start = &raw const __alternatives_start;
    let bytes = (&raw const __alternatives_end) as usize - start as usize;
    // SAFETY: the section's bounds, in constants.
    let table = unsafe { core::slice::from_raw_parts(start, bytes / size_of::<Alternative>()) };
    let mut patched = 0;
    for entry in table {
        let wanted = Feature::ALL.get(entry.feature as usize);
        if !wanted.is_some_and(|f| features::has(*f)) {
            continue;
        }
        let site = VirtAddr((&raw const entry.site as u64).wrapping_add_signed(i64::from(entry.site)));
        // Text is read-only everywhere but in this window.
        crate::fixmap::with_window(crate::mmu::virt_to_phys(site), |window| {
            // SAFETY: an aligned word of text, mapped for writing.
            unsafe { (*(window.0 as *const AtomicU32)).store(entry.instruction, Ordering::Relaxed) };
            crate::cache::clean_to_poc(window, 4);
        });
        crate::cache::sync_icache(site, 4);
        patched += 1;
    }
    patched
}
