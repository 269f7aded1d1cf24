//! Symbolised backtraces by frame pointers.
//!
//! Every function keeps a frame record (x29, x30), AAPCS64 6.4.6; exception frames have one too. The
//! names come from `.ksyms`, which the second link fills: a count, that many pairs of offsets (function
//! from the image's base, name in the string area), sorted; the names, mangled, ending in NUL.

use core::fmt::Write;
use core::sync::atomic::Ordering;

unsafe extern "C" {
    static _text: u8;
    static __text_end: u8;
    static __ksyms_start: u8;
    static __ksyms_end: u8;
}

/// At most this many frames are shown.
const MAX_FRAMES: usize = 48;

fn symbols() -> &'static [u8] {
    let start = &raw const __ksyms_start;
    let len = (&raw const __ksyms_end) as usize - start as usize;
    // SAFETY: the section's bounds, in constants.
    unsafe { core::slice::from_raw_parts(start, len) }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The function that contains the address: its mangled name and the offset into it.
pub fn symbol_of(addr: u64) -> Option<(&'static str, u64)> {
    let base = (&raw const _text) as u64;
    if addr < base || addr >= (&raw const __text_end) as u64 {
        return None;
    }
    let offset = (addr - base) as u32;
    let table = symbols();
    let count = word(table, 0)? as usize;
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if word(table, 4 + middle * 8)? <= offset { low = middle + 1 } else { high = middle }
    }
    let entry = 4 + low.checked_sub(1)? * 8;
    let names = table.get(4 + count * 8..)?;
    let name = names.get(word(table, entry + 4)? as usize..)?.split(|c| *c == 0).next()?;
    Some((core::str::from_utf8(name).ok()?, u64::from(offset - word(table, entry)?)))
}

/// Writes an address with its function.
pub fn print_address(out: &mut dyn Write, addr: u64) {
    let _ = match symbol_of(addr) {
        Some((name, offset)) => writeln!(out, "  [{addr:#018x}] {:#}+{offset:#x}", rustc_demangle::demangle(name)),
        None => writeln!(out, "  [{addr:#018x}]"),
    };
}

/// Writes the call chain that starts at a frame record. Believes nothing: records must ascend within
/// one stack of the current thread, its CPU's interrupt stack, the boot stack or the emergency stack.
pub fn print(out: &mut dyn Write, mut fp: u64) {
    let mut stack = None;
    for _ in 0..MAX_FRAMES {
        if fp == 0 {
            return;
        }
        let (base, top) = match stack.filter(|(base, top)| fp >= *base && fp < *top) {
            Some(bounds) => bounds,
            None => match stack_of(fp) {
                Some(bounds) => bounds,
                None => {
                    let _ = writeln!(out, "  (frame record at {fp:#x} is in no known stack)");
                    return;
                }
            },
        };
        if fp & 7 != 0 || fp < base || fp > top - 16 {
            let _ = writeln!(out, "  (bad frame record at {fp:#x})");
            return;
        }
        stack = Some((base, top));
        // SAFETY: two aligned words inside a mapped stack.
        let (next, lr) = unsafe { ((fp as *const u64).read_volatile(), ((fp + 8) as *const u64).read_volatile()) };
        if lr == 0 {
            return;
        }
        // The call is before the return address; in an exception frame the address is exact, and
        // one instruction back is in the same function but for its first.
        print_address(out, lr.wrapping_sub(4));
        if next != 0 && next <= fp && stack_of(next) == stack {
            let _ = writeln!(out, "  (frame records do not ascend)");
            return;
        }
        fp = next;
    }
}

fn stack_of(fp: u64) -> Option<(u64, u64)> {
    let head = crate::thread::current();
    let own = (head.stack_base.load(Ordering::Relaxed), head.stack_top.load(Ordering::Relaxed));
    let (boot_base, boot_top) = crate::boot::boot_stack();
    let overflow_top = crate::percpu::this().overflow_top.load(Ordering::Relaxed);
    let irq_top = crate::percpu::this().irq_top.load(Ordering::Relaxed);
    let irq = (irq_top.saturating_sub(crate::percpu::IRQ_STACK_SIZE), irq_top);
    [own, irq, (boot_base.0, boot_top.0), (overflow_top.wrapping_sub(8192), overflow_top)]
        .into_iter()
        .find(|(base, top)| fp >= *base && fp < *top)
}

/// Writes the call chain of the caller.
#[inline(never)]
pub fn print_current(out: &mut dyn Write) {
    let fp: u64;
    // The caller's record: this function's own is gone when the call below is a tail call.
    // SAFETY: x29 points to this function's frame record.
    unsafe { core::arch::asm!("ldr {}, [x29]", out(reg) fp, options(readonly, nostack, preserves_flags)) };
    print(out, fp);
}
