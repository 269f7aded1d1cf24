//! In place of the vDSO: this machine runs no programs of the simulated one.

/// No code.
pub fn image() -> &'static [u8] {
    b"\x7fELF"
}

/// Nowhere.
pub fn sigreturn_offset() -> u64 {
    0
}
