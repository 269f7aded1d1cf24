//! `/proc/sys`: the kernel's settings as files (`sysctl(8)`, `proc(5)`).
//!
//! A setting is a static [`Number`] with its limits, which the room that obeys it owns and reads
//! without a lock, or a pair of functions that show and take a text. What a write means is
//! Linux's: blanks around the number do not count, a write behind the first byte of the file is
//! taken and ignored (`kernel.sysctl_writes_strict` = 1), a number beyond the limits is EINVAL.

use crate::{
    proc_registry,
    pseudo::{Reader, SeqBuf, Show, ShowFn, Store, no_memory},
};
use abi::{Errno, Result};
use core::fmt::Write;
use kalloc::karc_dyn;

pub use sync::Number;

impl Show for &'static Number {
    fn show(&self, out: &mut SeqBuf, _: &Reader<'_>) -> Result {
        writeln!(out, "{}", self.get()).map_err(no_memory)
    }
}

impl Store for &'static Number {
    fn store(&self, data: &[u8], pos: u64, _: &Reader<'_>) -> Result<usize> {
        if pos > 0 {
            return Ok(data.len());
        }
        let (value, used) = parse(data)?;
        self.set(value)?;
        Ok(used)
    }
}

/// Adds a number at /proc/`path` ("sys/kernel/..."), readable by all, writable by root.
pub fn add_number(path: &'static str, number: &'static Number) -> Result {
    proc_registry::add_writable(path, 0o644, Some(karc_dyn!(number => dyn Show)?), karc_dyn!(number => dyn Store)?)
}

/// Takes a line that was written to a setting.
pub type TakeLine = fn(&[u8]) -> Result;

struct Line {
    take: TakeLine,
    max: usize,
}

impl Store for Line {
    fn store(&self, data: &[u8], pos: u64, _: &Reader<'_>) -> Result<usize> {
        if pos == 0 {
            let end = data.iter().position(|b| matches!(*b, b'\n' | 0)).unwrap_or(data.len());
            // What is too long is cut off, as on Linux.
            (self.take)(data.get(..end.min(self.max)).unwrap_or(data))?;
        }
        Ok(data.len())
    }
}

/// Adds a text of at most `max` bytes; `take` gets it without the line end.
pub fn add_line(path: &'static str, max: usize, show: fn(&mut SeqBuf) -> Result, take: TakeLine) -> Result {
    let store = karc_dyn!(Line { take, max } => dyn Store)?;
    proc_registry::add_writable(path, 0o644, Some(karc_dyn!(ShowFn(show) => dyn Show)?), store)
}

/// The number at the start of a text, in C's notation, and how many bytes count as read: the
/// number and the blanks around it. EINVAL when there is none.
pub fn parse(data: &[u8]) -> Result<(i64, usize)> {
    let blank = |b: &u8| matches!(*b, b' ' | b'\t'..=b'\r');
    let blanks = |d: &[u8]| d.iter().take_while(|b| blank(b)).count();
    let start = blanks(data);
    let rest = data.get(start..).unwrap_or(&[]);
    let negative = rest.first() == Some(&b'-');
    let digits = rest.get(usize::from(negative)..).unwrap_or(&[]);
    let (radix, prefix) = match digits {
        [b'0', b'x' | b'X', d, ..] if d.is_ascii_hexdigit() => (16, 2),
        [b'0', d, ..] if d.is_ascii_digit() => (8, 1),
        _ => (10, 0),
    };
    let digits = digits.get(prefix..).unwrap_or(&[]);
    let len = digits.iter().take_while(|b| char::from(**b).is_digit(radix)).count();
    let text = core::str::from_utf8(digits.get(..len).unwrap_or(&[])).map_err(|_| Errno::EINVAL)?;
    let value = i64::from_str_radix(text, radix).map_err(|_| Errno::EINVAL)?;
    let used = start + usize::from(negative) + prefix + len;
    let tail = data.get(used..).unwrap_or(&[]);
    if tail.first().is_some_and(|b| !matches!(*b, b' ' | b'\t' | b'\n' | 0)) {
        return Err(Errno::EINVAL);
    }
    Ok((if negative { -value } else { value }, used + blanks(tail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_writes_them() {
        assert_eq!(parse(b"42\n"), Ok((42, 3)));
        assert_eq!(parse(b"  -7 "), Ok((-7, 5)));
        assert_eq!(parse(b"0x1f"), Ok((31, 4)));
        assert_eq!(parse(b"010"), Ok((8, 3)));
        assert_eq!(parse(b"0"), Ok((0, 1)));
        assert_eq!(parse(b"5 6"), Ok((5, 2)));
        for bad in [&b""[..], b" \n", b"x", b"1x", b"-", b"99999999999999999999"] {
            assert_eq!(parse(bad), Err(Errno::EINVAL), "{bad:?}");
        }
    }
}
