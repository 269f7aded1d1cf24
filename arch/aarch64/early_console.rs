//! The console before there is one, and when nothing else works any more: a PL011 by polling.

use crate::fixmap;
use crate::mmu::pte;
use abi::PhysAddr;
use core::sync::atomic::{AtomicU64, Ordering};

/// Address of the registers, 0 without a console.
static BASE: AtomicU64 = AtomicU64::new(0);

// PL011 technical reference manual, 3.2: registers.
const DR: u64 = 0x00;
const FR: u64 = 0x18;
const FR_TXFF: u32 = 1 << 5;
const CR: u64 = 0x30;
const CR_UARTEN_TXE: u32 = 1 << 0 | 1 << 8;

fn read(base: u64, offset: u64) -> u32 {
    // SAFETY: `base` is the fixmap's page of the registers, mapped as device memory.
    unsafe { ((base + offset) as *const u32).read_volatile() }
}

fn write(base: u64, offset: u64, value: u32) {
    // SAFETY: as in `read`.
    unsafe { ((base + offset) as *mut u32).write_volatile(value) };
}

/// Maps the registers and switches the transmitter on; speed and format stay the firmware's.
pub(crate) fn init(registers: PhysAddr) {
    let va = fixmap::map(fixmap::CONSOLE, registers, pte::KERNEL_DEVICE).0;
    write(va, CR, read(va, CR) | CR_UARTEN_TXE);
    BASE.store(va, Ordering::Release);
}

/// Whether there is one.
pub fn present() -> bool {
    BASE.load(Ordering::Relaxed) != 0
}

/// Writes bytes at once, without locks; a newline becomes carriage return and newline. Gives up on
/// a byte when the port does not take it for long.
pub fn write_bytes(bytes: &[u8]) {
    let base = BASE.load(Ordering::Acquire);
    if base == 0 {
        return;
    }
    for byte in bytes {
        if *byte == b'\n' {
            put(base, b'\r');
        }
        put(base, *byte);
    }
}

fn put(base: u64, byte: u8) {
    for _ in 0..1_000_000 {
        if read(base, FR) & FR_TXFF == 0 {
            break;
        }
    }
    write(base, DR, u32::from(byte));
}

/// A `fmt::Write` over `write_bytes`.
pub struct Writer;

impl core::fmt::Write for Writer {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        write_bytes(s.as_bytes());
        Ok(())
    }
}
