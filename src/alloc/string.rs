//! `KString`: text that grows, and formatting that can fail.

use crate::{AllocError, KVec, TryClone};
use core::{fmt, ops::Deref};

/// Owned UTF-8 text.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KString {
    /// Always valid UTF-8: only whole `str`s and `char`s are appended.
    bytes: KVec<u8>,
}

impl KString {
    /// Empty; needs no memory.
    pub const fn new() -> Self {
        Self { bytes: KVec::new() }
    }

    /// Empty, with room for `n` bytes.
    pub fn try_with_capacity(n: usize) -> Result<Self, AllocError> {
        Ok(Self { bytes: KVec::try_with_capacity(n)? })
    }

    /// A copy of `s`.
    pub fn try_from_str(s: &str) -> Result<Self, AllocError> {
        let mut out = Self::new();
        out.try_push_str(s)?;
        Ok(out)
    }

    /// What `format!` would give; see [`kformat!`](crate::kformat).
    pub fn try_from_fmt(args: fmt::Arguments<'_>) -> Result<Self, AllocError> {
        let mut out = Self::new();
        // A formatter of the kernel fails for one reason only: there was no memory.
        fmt::Write::write_fmt(&mut out, args).map_err(|_| AllocError)?;
        Ok(out)
    }

    /// Text of bytes, which come back if they are not UTF-8.
    pub fn from_utf8(bytes: KVec<u8>) -> Result<Self, KVec<u8>> {
        if core::str::from_utf8(&bytes).is_ok() { Ok(Self { bytes }) } else { Err(bytes) }
    }

    /// Appends.
    pub fn try_push_str(&mut self, s: &str) -> Result<(), AllocError> {
        self.bytes.try_extend_from_slice(s.as_bytes())
    }

    /// Appends one character.
    pub fn try_push(&mut self, c: char) -> Result<(), AllocError> {
        self.try_push_str(c.encode_utf8(&mut [0; 4]))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // SAFETY: the field's invariant.
        unsafe { core::str::from_utf8_unchecked(&self.bytes) }
    }

    /// The text as its bytes, owned.
    pub fn into_bytes(self) -> KVec<u8> {
        self.bytes
    }

    /// Keeps the first `len` bytes; nothing happens when that is not a character boundary or
    /// beyond the end.
    pub fn truncate(&mut self, len: usize) {
        if self.as_str().is_char_boundary(len) {
            self.bytes.truncate(len);
        }
    }

    /// Makes it empty, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

impl fmt::Write for KString {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.try_push_str(s).map_err(|_| fmt::Error)
    }
}

impl fmt::Write for KVec<u8> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.try_extend_from_slice(s.as_bytes()).map_err(|_| fmt::Error)
    }
}

impl Deref for KString {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for KString {
    fn as_ref(&self) -> &str {
        self
    }
}

impl AsRef<[u8]> for KString {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl core::borrow::Borrow<str> for KString {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq<str> for KString {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for KString {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl TryClone for KString {
    fn try_clone(&self) -> Result<Self, AllocError> {
        Self::try_from_str(self)
    }
}

impl fmt::Debug for KString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for KString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kformat_formats_and_reports_want_of_memory() {
        let s = crate::kformat!("{}-{:#x}", "a", 255).unwrap();
        assert_eq!(s, "a-0xff");
        crate::fail_nth(1);
        assert_eq!(crate::kformat!("{}", 1).err(), Some(AllocError));
        assert!(!crate::disarm());
    }

    #[test]
    fn truncate_never_splits_a_character() {
        let mut s = KString::try_from_str("aäb").unwrap();
        s.truncate(2);
        assert_eq!(s, "aäb");
        s.truncate(3);
        assert_eq!(s, "aä");
    }

    #[test]
    fn from_utf8_gives_bad_bytes_back() {
        let mut v = KVec::new();
        v.try_extend_from_slice(&[b'a', 0xff]).unwrap();
        assert_eq!(KString::from_utf8(v).unwrap_err().as_slice(), &[b'a', 0xff]);
    }
}
