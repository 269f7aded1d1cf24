//! Text in a buffer of fixed size, and the forms in which records are shown.

use crate::ring::Record;
use core::fmt::{self, Write};

/// The longest text that a record holds; what is beyond is cut off (Linux: LOG_LINE_MAX).
pub const LINE_MAX: usize = 1024;

/// A buffer that text is formatted into; what does not fit is dropped.
pub struct LineBuf<const N: usize = LINE_MAX> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> LineBuf<N> {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// What was written, as far as it is text.
    pub fn as_str(&self) -> &str {
        text(self.as_bytes())
    }

    /// Appends bytes; those that do not fit are dropped.
    pub fn push(&mut self, more: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..) {
            let n = room.len().min(more.len());
            if let (Some(to), Some(from)) = (room.get_mut(..n), more.get(..n)) {
                to.copy_from_slice(from);
                self.len += n;
            }
        }
    }
}

impl<const N: usize> Default for LineBuf<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Write for LineBuf<N> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.push(s.as_bytes());
        Ok(())
    }
}

/// The longest prefix that is valid text: a record may have been cut within a character.
pub(crate) fn text(bytes: &[u8]) -> &str {
    match core::str::from_utf8(bytes) {
        Ok(s) => s,
        Err(e) => bytes.get(..e.valid_up_to()).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or(""),
    }
}

/// `[    1.234567] `, seconds and microseconds since boot.
pub(crate) fn stamp<const N: usize>(out: &mut LineBuf<N>, ns: u64) {
    let _ = write!(out, "[{:5}.{:06}] ", ns / 1_000_000_000, ns / 1000 % 1_000_000);
}

/// A record as /dev/kmsg shows it: `prio,seq,usec,-;text\n`, control bytes and backslashes as
/// `\xNN`. A text of several lines stays one record.
pub fn kmsg_line<const N: usize>(out: &mut LineBuf<N>, record: &Record, text: &[u8]) {
    let prio = u32::from(record.facility.number()) << 3 | record.level as u32;
    let _ = write!(out, "{},{},{},-;", prio, record.seq, record.time / 1000);
    for &b in text {
        if !(b' '..127).contains(&b) || b == b'\\' {
            let _ = write!(out, "\\x{b:02x}");
        } else {
            out.push(&[b]);
        }
    }
    out.push(b"\n");
}

/// A record as syslog(2) shows it: `<prio>[    1.234567] text\n`, the prefix before each line.
pub fn syslog_lines<const N: usize>(out: &mut LineBuf<N>, record: &Record, text: &[u8]) {
    let prio = u32::from(record.facility.number()) << 3 | record.level as u32;
    for line in text.split(|&b| b == b'\n') {
        let _ = write!(out, "<{prio}>");
        stamp(out, record.time);
        out.push(line);
        out.push(b"\n");
    }
}
