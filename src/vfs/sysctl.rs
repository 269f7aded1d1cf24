//! Numbers under /proc/sys: files that show an integer and take another (`proc(5)`).
//!
//! The text is a decimal number and a newline. What is written may have blanks around it; EINVAL
//! for what is no number in the range, and nothing changes then.

use crate::{
    proc_registry,
    pseudo::{Reader, SeqBuf, Show, Store, no_memory},
};
use abi::{Errno, Result};
use core::{fmt::Write, ops::RangeInclusive};
use kalloc::karc_dyn;
use sync::atomic::{AtomicI32, Ordering};

struct Int {
    value: &'static AtomicI32,
    range: RangeInclusive<i32>,
}

impl Show for Int {
    fn show(&self, out: &mut SeqBuf, _: &Reader<'_>) -> Result {
        writeln!(out, "{}", self.value.load(Ordering::Relaxed)).map_err(no_memory)
    }
}

impl Store for Int {
    fn store(&self, data: &[u8], pos: u64, _: &Reader<'_>) -> Result<usize> {
        if pos == 0
            && let Some(n) = parse(data)?
        {
            if !self.range.contains(&n) {
                return Err(Errno::EINVAL);
            }
            self.value.store(n, Ordering::Relaxed);
        }
        Ok(data.len())
    }
}

/// The first number of a text; `None` when it holds nothing but blanks.
pub fn parse(data: &[u8]) -> Result<Option<i32>> {
    let text = data.split(|b| *b == 0).next().unwrap_or(&[]).trim_ascii();
    if text.is_empty() {
        return Ok(None);
    }
    let word = text.split(u8::is_ascii_whitespace).next().unwrap_or(&[]);
    core::str::from_utf8(word).ok().and_then(|w| w.parse().ok()).map(Some).ok_or(Errno::EINVAL)
}

/// Adds /proc/`path` for an integer within `range`. EEXIST.
pub fn add_int(path: &'static str, mode: u32, value: &'static AtomicI32, range: RangeInclusive<i32>) -> Result {
    let show = karc_dyn!(Int { value, range: range.clone() } => dyn Show)?;
    proc_registry::add_writable(path, mode, Some(show), karc_dyn!(Int { value, range } => dyn Store)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_may_have_blanks_around_it() {
        assert_eq!(parse(b" 12\n"), Ok(Some(12)));
        assert_eq!(parse(b"-1 7"), Ok(Some(-1)));
        assert_eq!(parse(b" \n"), Ok(None));
        assert_eq!(parse(b"x"), Err(Errno::EINVAL));
        assert_eq!(parse(b"99999999999"), Err(Errno::EINVAL));
    }
}
