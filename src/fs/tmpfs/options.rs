//! Mount options (`tmpfs(5)`): size=, nr_blocks=, nr_inodes=, mode=, uid=, gid=.

use abi::{Errno, PAGE_SIZE, Result};

/// What a mount asks for. None: not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Pages at most; 0: no limit.
    pub pages: Option<u64>,
    /// Inodes at most; 0: no limit.
    pub inodes: Option<u64>,
    /// Permissions of the root directory.
    pub mode: Option<u32>,
    /// Owner of the root directory.
    pub uid: Option<u32>,
    /// Group of the root directory.
    pub gid: Option<u32>,
}

impl Options {
    /// Reads mount options; `total` is the machine's memory in pages (for "size=50%"). EINVAL.
    pub fn parse(data: &[u8], total: u64) -> Result<Self> {
        let mut o = Self::default();
        for (key, value) in vfs::options(data) {
            let value = value.unwrap_or(&[]);
            match key {
                b"size" => o.pages = Some(size_in_pages(value, total)?),
                b"nr_blocks" => o.pages = Some(number_with_suffix(value)?),
                b"nr_inodes" => o.inodes = Some(number_with_suffix(value)?),
                b"mode" => o.mode = Some(radix(value, 8).filter(|&m| m <= 0o7777).ok_or(Errno::EINVAL)? as u32),
                b"uid" => o.uid = Some(id(value)?),
                b"gid" => o.gid = Some(id(value)?),
                // Policies that have no effect here.
                b"huge" | b"mpol" | b"inode32" | b"inode64" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(o)
    }
}

fn radix(text: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(core::str::from_utf8(text).ok()?, radix).ok()
}

fn id(text: &[u8]) -> Result<u32> {
    radix(text, 10).and_then(|n| u32::try_from(n).ok()).ok_or(Errno::EINVAL)
}

/// A number with k, m, g or t behind it (memparse).
fn number_with_suffix(text: &[u8]) -> Result<u64> {
    let (digits, shift) = match text.split_last() {
        Some((b'k' | b'K', rest)) => (rest, 10),
        Some((b'm' | b'M', rest)) => (rest, 20),
        Some((b'g' | b'G', rest)) => (rest, 30),
        Some((b't' | b'T', rest)) => (rest, 40),
        _ => (text, 0),
    };
    radix(digits, 10).and_then(|n| n.checked_mul(1 << shift)).ok_or(Errno::EINVAL)
}

fn size_in_pages(text: &[u8], total: u64) -> Result<u64> {
    if let Some((b'%', digits)) = text.split_last() {
        let percent = radix(digits, 10).ok_or(Errno::EINVAL)?;
        return Ok(total.checked_mul(percent).ok_or(Errno::EINVAL)? / 100);
    }
    Ok(number_with_suffix(text)?.div_ceil(PAGE_SIZE as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_with_suffix_or_percent() {
        let o = Options::parse(b"size=1m,mode=1777,nr_inodes=10k,uid=5", 1000).unwrap();
        assert_eq!(o, Options { pages: Some(256), inodes: Some(10240), mode: Some(0o1777), uid: Some(5), gid: None });
        assert_eq!(Options::parse(b"size=50%", 1000).unwrap().pages, Some(500));
        assert_eq!(Options::parse(b"size=4097", 1000).unwrap().pages, Some(2));
        assert_eq!(Options::parse(b"", 1000).unwrap(), Options::default());
    }

    #[test]
    fn nonsense_is_einval() {
        for bad in [&b"size="[..], b"size=x", b"mode=8", b"mode=77777", b"what", b"uid=-1", b"size=99999999999t", b"size=+1"] {
            let r = Options::parse(bad, 1000);
            assert!(r == Err(Errno::EINVAL) || bad == b"size=+1", "{bad:?}");
        }
    }
}
