//! Floating-point state of programs: on the host just the stored registers.

use crate::thread::ThreadHead;
use std::sync::Mutex;

/// The registers: v0 to v31, FPSR, FPCR.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FpRegs {
    /// v0 to v31.
    pub v: [u128; 32],
    /// Status.
    pub fpsr: u32,
    /// Control.
    pub fpcr: u32,
}

/// The state of a thread.
pub struct FpState(Mutex<FpRegs>);

impl FpState {
    /// All zero.
    pub const fn new() -> Self {
        Self(Mutex::new(FpRegs { v: [0; 32], fpsr: 0, fpcr: 0 }))
    }
}

impl Default for FpState {
    fn default() -> Self {
        Self::new()
    }
}

/// Saves the live registers of the current thread, as the switch does.
pub fn save_current(_: &ThreadHead) {}

/// The registers of a thread that is current or does not run.
pub fn read(head: &ThreadHead) -> FpRegs {
    *head.fp.0.lock().unwrap_or_else(|e| e.into_inner())
}

/// Replaces them.
pub fn write(head: &ThreadHead, regs: &FpRegs) {
    *head.fp.0.lock().unwrap_or_else(|e| e.into_inner()) = *regs;
}

/// Zeroes them (exec).
pub fn flush(head: &ThreadHead) {
    write(head, &FpRegs::default());
}

/// Gives `to` a copy of what `from` has.
pub fn copy_on_fork(from: &ThreadHead, to: &ThreadHead) {
    write(to, &read(from));
}
