//! The cpio parser: takes bytes as they come, in pieces of any size.
//!
//! Layout of an entry (cpio(5), "New ASCII Format"): a header of 110 bytes, the name with its NUL,
//! padding to 4, the data, padding to 4. The entry "TRAILER!!!" ends an archive; another may
//! follow, after zeros.

use crate::{Fault, Summary, tree::Tree};
use kalloc::KBytes;
use vfs::PATH_MAX;

const HEADER: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";

/// The numbers of a header, in its order.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) ino: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) mtime: u32,
    pub(crate) size: u32,
    pub(crate) dev_major: u32,
    pub(crate) dev_minor: u32,
    pub(crate) rdev_major: u32,
    pub(crate) rdev_minor: u32,
    name_size: u32,
    check: u32,
    has_check: bool,
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |n, &d| Some(n << 4 | char::from(d).to_digit(16)?))
}

impl Header {
    fn parse(b: &[u8; HEADER]) -> Result<Self, Fault> {
        let has_check = match b.get(..6) {
            Some(b"070701") => false,
            Some(b"070702") => true,
            Some(b"070707") => return Err(Fault::OldCpio),
            _ => return Err(Fault::BadMagic),
        };
        let field = |i: usize| b.get(6 + 8 * i..14 + 8 * i).and_then(hex).ok_or(Fault::BadNumber);
        Ok(Self {
            ino: field(0)?,
            mode: field(1)?,
            uid: field(2)?,
            gid: field(3)?,
            nlink: field(4)?,
            mtime: field(5)?,
            size: field(6)?,
            dev_major: field(7)?,
            dev_minor: field(8)?,
            rdev_major: field(9)?,
            rdev_minor: field(10)?,
            name_size: field(11)?,
            check: field(12)?,
            has_check,
        })
    }
}

/// Bytes up to the next multiple of four.
fn padding(n: u64) -> u64 {
    n.wrapping_neg() & 3
}

enum State {
    /// Between archives: zeros, or the next header's first byte.
    Between,
    /// Collecting a header.
    Header { have: usize },
    /// Collecting a name.
    Name { left: usize },
    /// Skipping `left` bytes, then the data.
    Pad { left: u64, then_data: bool },
    /// File data.
    Data { left: u64, sum: u32 },
}

/// A parser that makes files as it goes.
pub(crate) struct Parser {
    tree: Tree,
    state: State,
    raw: [u8; HEADER],
    header: Header,
    name: KBytes,
    summary: Summary,
}

impl Parser {
    pub(crate) fn new(tree: Tree) -> Self {
        Self {
            tree,
            state: State::Between,
            raw: [0; HEADER],
            header: Header::default(),
            name: KBytes::new(),
            summary: Summary::default(),
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        self.summary
    }

    /// The name of the entry that is being unpacked.
    pub(crate) fn take_name(&mut self) -> KBytes {
        core::mem::take(&mut self.name)
    }

    /// An archive begins.
    pub(crate) fn start(&mut self) {
        self.state = State::Header { have: 0 };
    }

    /// The input is at its end. An archive without a trailer is complete only if it ends between
    /// entries (Linux accepts that too).
    pub(crate) fn finish(&mut self) -> Result<(), Fault> {
        match self.state {
            State::Between => Ok(()),
            State::Header { have: 0 } if self.summary.entries > 0 => {
                self.end_of_archive();
                Ok(())
            }
            _ => Err(Fault::Truncated),
        }
    }

    /// Inside a compressed stream: whether `finish` would find an archive's end, and starts
    /// another archive when the stream goes on.
    pub(crate) fn feed_all(&mut self, mut data: &[u8]) -> Result<(), Fault> {
        while !data.is_empty() {
            if matches!(self.state, State::Between) {
                let zeros = data.iter().take_while(|&&b| b == 0).count();
                data = data.get(zeros..).unwrap_or(&[]);
                if data.is_empty() {
                    break;
                }
                self.start();
            }
            let (n, _) = self.feed(data)?;
            data = data.get(n..).unwrap_or(&[]);
        }
        Ok(())
    }

    fn end_of_archive(&mut self) {
        self.tree.end_of_archive();
        self.summary.archives += 1;
        self.name.clear();
        self.state = State::Between;
    }

    /// Takes bytes; returns how many, and whether the archive ended with them.
    pub(crate) fn feed(&mut self, data: &[u8]) -> Result<(usize, bool), Fault> {
        let mut used = 0;
        loop {
            let rest = data.get(used..).unwrap_or(&[]);
            if rest.is_empty() && !self.is_due() {
                return Ok((used, matches!(self.state, State::Between)));
            }
            match &mut self.state {
                State::Between => return Ok((used, true)),
                State::Header { have } => {
                    let n = rest.len().min(HEADER - *have);
                    if let (Some(to), Some(from)) = (self.raw.get_mut(*have..*have + n), rest.get(..n)) {
                        to.copy_from_slice(from);
                    }
                    *have += n;
                    used += n;
                    if *have == HEADER {
                        self.begin_entry()?;
                    } else if *have >= 6 {
                        check_magic(&self.raw)?;
                    }
                }
                State::Name { left } => {
                    let n = rest.len().min(*left);
                    *left -= n;
                    let done = *left == 0;
                    used += n;
                    let part = rest.get(..n).unwrap_or(&[]);
                    self.name.try_extend_from_slice(part).map_err(|e| Fault::File(e.into()))?;
                    if done {
                        self.name_complete()?;
                    }
                }
                State::Pad { left, then_data } => {
                    let n = (rest.len() as u64).min(*left);
                    *left -= n;
                    used += n as usize;
                    if *left == 0 {
                        if *then_data {
                            self.begin_data()?;
                        } else {
                            self.state = State::Header { have: 0 };
                        }
                    }
                }
                State::Data { left, sum } => {
                    let n = (rest.len() as u64).min(*left);
                    *left -= n;
                    let part = rest.get(..n as usize).unwrap_or(&[]);
                    if self.header.has_check {
                        *sum = part.iter().fold(*sum, |s, &b| s.wrapping_add(u32::from(b)));
                    }
                    let (left, sum) = (*left, *sum);
                    used += part.len();
                    self.summary.bytes = self.summary.bytes.saturating_add(n);
                    self.tree.data(part)?;
                    if left == 0 {
                        self.end_data(sum)?;
                    }
                }
            }
        }
    }

    /// Whether the state can go on without another byte.
    fn is_due(&self) -> bool {
        matches!(self.state, State::Pad { left: 0, .. } | State::Data { left: 0, .. })
    }

    fn begin_entry(&mut self) -> Result<(), Fault> {
        self.header = Header::parse(&self.raw)?;
        let size = self.header.name_size as usize;
        self.name.clear();
        if size == 0 || size > PATH_MAX {
            return Err(Fault::BadName);
        }
        self.state = State::Name { left: size };
        Ok(())
    }

    fn name_complete(&mut self) -> Result<(), Fault> {
        // Exactly one NUL, at the end.
        if self.name.pop() != Some(0) || self.name.contains(&0) || self.name.is_empty() {
            return Err(Fault::BadName);
        }
        let pad = padding(HEADER as u64 + u64::from(self.header.name_size));
        self.state = State::Pad { left: pad, then_data: true };
        Ok(())
    }

    fn begin_data(&mut self) -> Result<(), Fault> {
        if self.name.as_slice() == TRAILER {
            self.end_of_archive();
            return Ok(());
        }
        self.summary.entries += 1;
        if !self.tree.begin(&self.header, &self.name)? {
            self.summary.skipped += 1;
        }
        self.state = State::Data { left: u64::from(self.header.size), sum: 0 };
        Ok(())
    }

    fn end_data(&mut self, sum: u32) -> Result<(), Fault> {
        if self.header.has_check && self.header.size > 0 && sum != self.header.check {
            return Err(Fault::BadChecksum);
        }
        self.tree.end(&self.header, &self.name)?;
        self.state = State::Pad { left: padding(u64::from(self.header.size)), then_data: false };
        Ok(())
    }
}

/// A wrong magic number is told before the whole header is there.
fn check_magic(raw: &[u8; HEADER]) -> Result<(), Fault> {
    match raw.get(..6) {
        Some(b"070701" | b"070702") => Ok(()),
        Some(b"070707") => Err(Fault::OldCpio),
        _ => Err(Fault::BadMagic),
    }
}
