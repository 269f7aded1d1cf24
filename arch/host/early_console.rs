//! The console before there is one: standard error.

use std::io::Write;

/// Writes bytes at once.
pub fn write_bytes(bytes: &[u8]) {
    let _ = std::io::stderr().write_all(bytes);
}

/// Whether there is one.
pub fn present() -> bool {
    true
}

/// A `fmt::Write` over `write_bytes`.
pub struct Writer;

impl core::fmt::Write for Writer {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        write_bytes(s.as_bytes());
        Ok(())
    }
}
