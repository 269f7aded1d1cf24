//! Physical memory for the tests of this crate: one arena, one test at a time.

extern crate std;

use crate::PhysRange;
use abi::PhysAddr;
use std::sync::{Mutex, MutexGuard, Once};

/// The arena lies across the border of two zones.
pub(crate) const START: u64 = (1 << 30) - (8 << 20);
pub(crate) const SIZE: usize = 32 << 20;

/// Memory that is set up, for this test alone.
pub(crate) fn memory() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    static INIT: Once = Once::new();
    let guard = LOCK.lock().unwrap_or_else(|e| e.into_inner());
    INIT.call_once(|| {
        arch::sim::ensure_phys_arena(PhysAddr(START), SIZE);
        let end = PhysAddr(START + SIZE as u64);
        let hole = PhysAddr(START + (5 << 20));
        // Two banks with a hole, the kernel's root table and something odd reserved.
        let banks = [PhysRange::new(hole.add(1 << 20), end), PhysRange::new(PhysAddr(START), hole)];
        let reserved = [
            PhysRange::new(PhysAddr(START), PhysAddr(START + 4096)),
            PhysRange::new(PhysAddr(START + 0x123_456), PhysAddr(START + 0x130_001)),
        ];
        crate::init(&banks, &reserved).expect("memory");
    });
    guard
}
