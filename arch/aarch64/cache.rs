//! Cache maintenance by address (Arm ARM D7.5): the one place that issues it.

use abi::VirtAddr;
use core::arch::asm;

/// CTR_EL0 as it holds for all CPUs. Zero early in boot: the smallest lines, nothing skipped.
fn ctr() -> u64 {
    crate::features::ctr()
}

/// CTR_EL0.L1Ip: instruction caches find lines by the physical address alone.
const PIPT: u64 = 3;

/// Bytes in the smallest data cache line.
fn dline() -> u64 {
    4 << (ctr() >> 16 & 0xf)
}

macro_rules! each_line {
    ($start:expr, $len:expr, $line:expr, $insn:literal) => {{
        let line: u64 = $line;
        let end = $start.0.saturating_add($len as u64);
        let mut p = $start.0 & !(line - 1);
        while p < end {
            // SAFETY: maintenance of mapped kernel addresses changes no content that the
            // architecture shows to a coherent observer (for IVAC the caller owns the lines).
            unsafe { asm!($insn, in(reg) p, options(nostack, preserves_flags)) };
            p += line;
        }
    }};
}

fn dsb_ish() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
}

fn dsb_sy() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Makes instructions that were written visible to instruction fetch of all CPUs: clean to PoU,
/// invalidate the instruction caches (Arm ARM B2.7.4.2). Before a page becomes executable.
///
/// The clean is DC CIVAC: on Cortex-A53 r0p0 to r0p2 a clean must invalidate too (errata 819472,
/// 824069, 827319), and to the point of coherency is at least to that of unification.
///
/// An instruction cache that is not PIPT (Cortex-A53, Cortex-A55) may have the memory under other
/// addresses, where an invalidation by this one does not find it: all of it goes (Arm ARM D7.5).
pub fn sync_icache(start: VirtAddr, len: usize) {
    let ctr = ctr();
    dsb_ish();
    if ctr & 1 << 28 == 0 {
        each_line!(start, len, dline(), "dc civac, {}");
        dsb_ish();
    }
    if ctr & 1 << 29 == 0 {
        if ctr >> 14 & 3 == PIPT {
            each_line!(start, len, 4 << (ctr & 0xf), "ic ivau, {}");
        } else {
            // SAFETY: maintenance of instruction caches has no effect but slower fetches.
            unsafe { asm!("ic ialluis", options(nostack, preserves_flags)) };
        }
        dsb_ish();
    }
    // SAFETY: a barrier: this CPU fetches anew; others do at their next exception return.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
}

/// Writes dirty lines back to memory, for observers without caches (a CPU with its MMU off, a
/// device that is not coherent).
pub fn clean_to_poc(start: VirtAddr, len: usize) {
    dsb_sy();
    each_line!(start, len, dline(), "dc civac, {}");
    dsb_sy();
}

/// Drops lines after a device that is not coherent wrote. Lines that the range shares with other
/// data lose that data's changes: the range covers whole lines.
pub fn invalidate_to_poc(start: VirtAddr, len: usize) {
    each_line!(start, len, dline(), "dc ivac, {}");
    dsb_sy();
}

/// Writes dirty lines back and drops them.
pub fn clean_invalidate_to_poc(start: VirtAddr, len: usize) {
    clean_to_poc(start, len);
}
