//! Mount options of devpts: uid=, gid=, mode=, ptmxmode=, max=, newinstance
//! (Linux's Documentation/filesystems/devpts.rst).

use abi::{Errno, Result};

/// Most that max= may say (NR_UNIX98_PTY_MAX).
pub(crate) const MAX: u32 = 1 << 20;

/// What a mount asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Owner of new slaves; None: whoever opens the master.
    pub(crate) uid: Option<u32>,
    /// Their group.
    pub(crate) gid: Option<u32>,
    /// Their permissions.
    pub(crate) mode: u32,
    /// Permissions of the instance's own ptmx.
    pub(crate) ptmx_mode: u32,
    /// Numbers that there are.
    pub(crate) max: u32,
}

impl Options {
    /// What holds where nothing is said.
    pub(crate) const DEFAULT: Self = Self { uid: None, gid: None, mode: 0o600, ptmx_mode: 0, max: MAX };

    /// Reads mount options. EINVAL.
    pub(crate) fn parse(data: &[u8]) -> Result<Self> {
        let mut o = Self::DEFAULT;
        for (key, value) in vfs::options(data) {
            match (key, value) {
                (b"uid", Some(v)) => o.uid = Some(number(v, 10)?),
                (b"gid", Some(v)) => o.gid = Some(number(v, 10)?),
                (b"mode", Some(v)) => o.mode = number(v, 8)? & 0o7777,
                (b"ptmxmode", Some(v)) => o.ptmx_mode = number(v, 8)? & 0o7777,
                (b"max", Some(v)) => o.max = number(v, 10).ok().filter(|&n| n <= MAX).ok_or(Errno::EINVAL)?,
                // Every mount is an instance of its own.
                (b"newinstance", None) => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(o)
    }

    /// As /proc/mounts shows them.
    pub(crate) fn show(&self, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        if let Some(uid) = self.uid {
            write!(out, ",uid={uid}")?;
        }
        if let Some(gid) = self.gid {
            write!(out, ",gid={gid}")?;
        }
        write!(out, ",mode={:03o},ptmxmode={:03o}", self.mode, self.ptmx_mode)?;
        if self.max < MAX {
            write!(out, ",max={}", self.max)?;
        }
        Ok(())
    }
}

fn number(text: &[u8], radix: u32) -> Result<u32> {
    let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    u32::from_str_radix(text, radix).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_shown() {
        let o = Options::parse(b"gid=5,mode=620,ptmxmode=666,newinstance").unwrap();
        assert_eq!(o, Options { gid: Some(5), mode: 0o620, ptmx_mode: 0o666, ..Options::DEFAULT });
        let mut text = String::new();
        o.show(&mut text).unwrap();
        assert_eq!(text, ",gid=5,mode=620,ptmxmode=666");
        assert_eq!(Options::parse(b""), Ok(Options::DEFAULT));
        for bad in [&b"max=1048577"[..], b"max=-1", b"mode=9", b"uid", b"other"] {
            assert_eq!(Options::parse(bad), Err(Errno::EINVAL), "{bad:?}");
        }
    }
}
