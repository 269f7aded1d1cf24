#![cfg_attr(not(test), no_std)]
//! Unpacks the initial file tree: one or several cpio archives (newc, crc), plain or gzip, one
//! behind the other with zero padding between them, as boot loaders put them together
//! (Linux's Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Nothing of the input is trusted: sizes, names, checksums, links are checked, and what is wrong
//! gives an error with its offset and the tree as far as it was unpacked, never a panic. The input
//! is read once, front to back, and given back piece by piece ([`Input::consume`]), so that a
//! machine whose memory the packed and the unpacked tree would not fit into together can free it
//! on the way.
//!
//! Layers: [`unpack`] tells the formats apart; `gzip` inflates; `cpio` parses; `tree` makes files.
//!
//! Context: may sleep. The inflater's state (11 KiB) and window (32 KiB) are on the heap.

mod cpio;
mod gzip;
mod tree;
#[cfg(test)]
mod tests;

use abi::Errno;
use core::fmt;
use kalloc::KBytes;
use vfs::Path;

/// Where the archives come from.
pub trait Input {
    /// What lies ahead: not empty before the end.
    fn ahead(&mut self) -> &[u8];
    /// The first `n` bytes of it are done with; their memory may be freed.
    fn consume(&mut self, n: usize);
}

/// Input from one slice; `freed` is told how many bytes are done with in total.
pub struct SliceInput<'a, F> {
    rest: &'a [u8],
    done: usize,
    freed: F,
}

impl<'a, F: FnMut(usize)> SliceInput<'a, F> {
    /// All of `data`.
    pub fn new(data: &'a [u8], freed: F) -> Self {
        Self { rest: data, done: 0, freed }
    }
}

impl<F: FnMut(usize)> Input for SliceInput<'_, F> {
    fn ahead(&mut self) -> &[u8] {
        self.rest
    }
    fn consume(&mut self, n: usize) {
        let n = n.min(self.rest.len());
        self.rest = self.rest.get(n..).unwrap_or(&[]);
        self.done += n;
        (self.freed)(self.done);
    }
}

/// What is wrong with an archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Neither cpio nor gzip.
    UnknownFormat,
    /// A compression that Linnet does not have.
    Compression(&'static str),
    /// The old binary or portable cpio format.
    OldCpio,
    /// No header where one must be.
    BadMagic,
    /// A header field is no hexadecimal number.
    BadNumber,
    /// A name is empty, too long, not terminated, or leads out of the tree.
    BadName,
    /// A symbolic link's text is empty or too long.
    BadLink,
    /// The file type is none that exists.
    BadMode,
    /// The sum of a file's bytes is not the header's.
    BadChecksum,
    /// The archive ends in the middle.
    Truncated,
    /// The compressed data is damaged.
    BadCompression,
    /// Length or CRC behind the compressed data does not fit.
    BadTrailer,
    /// There is nothing.
    Empty,
    /// A file could not be made.
    File(Errno),
}

/// Why unpacking stopped.
#[derive(Debug)]
pub struct UnpackError {
    /// What is wrong.
    pub fault: Fault,
    /// Where in the input, in bytes.
    pub offset: u64,
    /// Which file was being unpacked.
    pub name: KBytes,
}

impl fmt::Display for UnpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Fault::UnknownFormat => f.write_str("neither a cpio archive (newc) nor gzip"),
            Fault::Compression(c) => write!(f, "compressed with {c}, which is not supported (use gzip)"),
            Fault::OldCpio => f.write_str("an old cpio format (make it with cpio -H newc)"),
            Fault::BadMagic => f.write_str("no cpio header where one must be"),
            Fault::BadNumber => f.write_str("a number in a cpio header is damaged"),
            Fault::BadName => f.write_str("a file name is empty, too long or leads out of the tree"),
            Fault::BadLink => f.write_str("the text of a symbolic link is empty or too long"),
            Fault::BadMode => f.write_str("a file has an unknown type"),
            Fault::BadChecksum => f.write_str("the checksum of a file is wrong"),
            Fault::Truncated => f.write_str("the archive is truncated"),
            Fault::BadCompression => f.write_str("the compressed data is corrupt"),
            Fault::BadTrailer => f.write_str("the compressed data is corrupt: wrong length or checksum"),
            Fault::Empty => f.write_str("it is empty"),
            Fault::File(e) => write!(f, "cannot unpack: {e}"),
        }?;
        write!(f, " (at byte {}", self.offset)?;
        if !self.name.is_empty() {
            f.write_str(", file ")?;
            for part in self.name.utf8_chunks() {
                f.write_str(part.valid())?;
            }
        }
        f.write_str(")")
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Archives.
    pub archives: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of file data.
    pub bytes: u64,
    /// Entries whose directory is not in the archive, left out (as Linux does).
    pub skipped: u64,
}

/// A compression by its first bytes.
fn compression(head: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &'static str); 6] = [
        (b"\xfd7zXZ", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh", "bzip2"),
        (b"\x5d\x00\x00", "lzma"),
        (b"\x89LZO", "lzo"),
        (b"\x02\x21\x4c\x18", "lz4"),
    ];
    known.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name)
}

/// Unpacks all archives of `input` into the directory `root`. Stops at the first fault; what was
/// unpacked until then stays.
pub fn unpack(input: &mut dyn Input, root: &Path) -> Result<Summary, UnpackError> {
    let mut at = Counted { input, offset: 0 };
    let mut parser = match tree::Tree::new(root) {
        Ok(t) => cpio::Parser::new(t),
        Err(e) => return Err(UnpackError { fault: Fault::File(e), offset: 0, name: KBytes::new() }),
    };
    match unpack_all(&mut at, &mut parser) {
        Ok(()) => Ok(parser.summary()),
        Err(fault) => Err(UnpackError { fault, offset: at.offset, name: parser.take_name() }),
    }
}

/// Input that knows how far it is.
struct Counted<'a> {
    input: &'a mut dyn Input,
    offset: u64,
}

impl Counted<'_> {
    fn consume(&mut self, n: usize) {
        self.input.consume(n);
        self.offset = self.offset.saturating_add(n as u64);
    }
}

fn unpack_all(at: &mut Counted<'_>, parser: &mut cpio::Parser) -> Result<(), Fault> {
    let mut found = false;
    loop {
        let head = at.input.ahead();
        let Some(&first) = head.first() else {
            return if found { Ok(()) } else { Err(Fault::Empty) };
        };
        match first {
            0 => {
                let n = head.iter().take_while(|&&b| b == 0).count();
                at.consume(n);
                continue;
            }
            b'0' => plain(at, parser)?,
            0x1f => gzip::unpack(at, parser)?,
            _ => {
                return Err(match compression(head) {
                    Some(name) => Fault::Compression(name),
                    None if head.starts_with(b"\xc7\x71") || head.starts_with(b"\x71\xc7") => Fault::OldCpio,
                    // Behind a good archive junk is not an archive that is missing.
                    None => Fault::UnknownFormat,
                });
            }
        }
        found = true;
    }
}

/// A plain archive, to the end of its trailer.
fn plain(at: &mut Counted<'_>, parser: &mut cpio::Parser) -> Result<(), Fault> {
    parser.start();
    loop {
        let chunk = at.input.ahead();
        if chunk.is_empty() {
            return parser.finish();
        }
        let (n, ended) = parser.feed(chunk)?;
        at.consume(n);
        if ended {
            return Ok(());
        }
    }
}
