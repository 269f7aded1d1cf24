//! Formats that the administrator registers: by magic bytes or by extension, with the interpreter
//! that runs them (`Documentation/admin-guide/binfmt-misc.rst`).
//!
//! A line `:name:type:offset:magic:mask:interpreter:flags` becomes an [`Entry`]; the entries are
//! asked from the newest to the oldest. The files through which lines come and entries are shown are
//! in [`super::misc_fs`]. Lock: the list, a leaf; matching works on a copy of the entry's handle.

use super::{
    HEAD_SIZE,
    formats::{Binary, Format, Loaded},
};
use crate::task::Task;
use abi::{Errno, Result};
use kalloc::{KArc, KBytes, KVec};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicBool, Ordering},
};
use vfs::Executable;

static CLASS: LockClass = LockClass::new("process.binfmt_misc", 1044);
/// Newest last.
static ENTRIES: SpinLock<KVec<KArc<Entry>>> = SpinLock::new(KVec::new(), &CLASS);
/// All of it on or off (`status`).
static ENABLED: AtomicBool = AtomicBool::new(true);

/// Shortest and longest line.
const LINE: core::ops::RangeInclusive<usize> = 11..=1920;

bitflags::bitflags! {
    /// What an entry asks for beside its interpreter.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) struct Flags: u8 {
        /// P: argv[0] is kept, behind the interpreter's and the file's name.
        const PRESERVE_ARGV0 = 1;
        /// O: the interpreter gets the file open.
        const OPEN_BINARY = 2;
        /// C: the new ids are those of the file, not of the interpreter (includes O).
        const CREDENTIALS = 4;
        /// F: the interpreter is opened once, when the entry is made.
        const FIX_BINARY = 8;
    }
}

/// How an entry knows its files.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Match {
    /// These bytes stand at `offset`; bits outside of the mask do not count.
    Magic { offset: usize, magic: KBytes, mask: Option<KBytes> },
    /// The name ends in a dot and this.
    Extension(KBytes),
}

/// One line, taken apart.
pub(super) struct Rule {
    pub name: KBytes,
    pub by: Match,
    pub interpreter: KBytes,
    pub flags: Flags,
}

/// A registered format.
pub(super) struct Entry {
    pub rule: Rule,
    pub enabled: AtomicBool,
    /// With F: the interpreter, open.
    fixed: Option<KArc<Executable>>,
}

/// The words of one line, which its first byte divides.
struct Words<'a> {
    rest: &'a [u8],
    delimiter: u8,
}

impl<'a> Words<'a> {
    /// The bytes up to the next delimiter, which must be there.
    fn next(&mut self) -> Result<&'a [u8]> {
        let end = self.rest.iter().position(|b| *b == self.delimiter).ok_or(Errno::EINVAL)?;
        self.take(end)
    }
    /// The same, in which `\x` and two digits are one byte that may be the delimiter.
    fn next_escaped(&mut self) -> Result<&'a [u8]> {
        let mut at = 0;
        loop {
            match self.rest.get(at).copied().ok_or(Errno::EINVAL)? {
                b if b == self.delimiter => return self.take(at),
                b'\\' if self.rest.get(at + 1) == Some(&b'x') => {
                    let digits = self.rest.get(at + 2..at + 4).ok_or(Errno::EINVAL)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return Err(Errno::EINVAL);
                    }
                    at += 4;
                }
                _ => at += 1,
            }
        }
    }
    fn take(&mut self, end: usize) -> Result<&'a [u8]> {
        let word = self.rest.get(..end).ok_or(Errno::EINVAL)?;
        self.rest = self.rest.get(end + 1..).ok_or(Errno::EINVAL)?;
        Ok(word)
    }
}

fn unescape(word: &[u8]) -> Result<KBytes> {
    let mut out = KBytes::try_with_capacity(word.len())?;
    let mut rest = word;
    while let Some((b, more)) = rest.split_first() {
        let escaped = match more {
            [b'x', a, b, ..] if rest.first() == Some(&b'\\') => hex(*a).zip(hex(*b)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                out.try_push(high << 4 | low)?;
                rest = more.get(3..).unwrap_or(&[]);
            }
            None => {
                out.try_push(*b)?;
                rest = more;
            }
        }
    }
    Ok(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

impl Rule {
    /// Takes a line apart. EINVAL.
    pub fn parse(line: &[u8]) -> Result<Self> {
        if !LINE.contains(&line.len()) {
            return Err(Errno::EINVAL);
        }
        let (delimiter, rest) = line.split_first().ok_or(Errno::EINVAL)?;
        // A delimiter that is missing at the very end is forgiven.
        let mut padded = KBytes::try_with_capacity(rest.len() + 8)?;
        padded.try_extend_from_slice(rest)?;
        padded.try_extend_from_slice(&[*delimiter; 8])?;
        let mut words = Words { rest: &padded, delimiter: *delimiter };
        let name = words.next()?;
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            return Err(Errno::EINVAL);
        }
        let by = match words.next()? {
            b"M" => magic(&mut words)?,
            b"E" => extension(&mut words)?,
            _ => return Err(Errno::EINVAL),
        };
        let interpreter = words.next()?;
        if interpreter.is_empty() {
            return Err(Errno::EINVAL);
        }
        // What is left begins with the flags; the padding is not part of the line.
        let tail = words.rest.get(..words.rest.len().saturating_sub(8)).unwrap_or(&[]);
        Ok(Self {
            by,
            flags: flags(tail)?,
            name: KVec::try_from_slice(name)?,
            interpreter: KVec::try_from_slice(interpreter)?,
        })
    }
}

fn magic(words: &mut Words<'_>) -> Result<Match> {
    let offset = match words.next()? {
        b"" => 0,
        digits => core::str::from_utf8(digits).ok().and_then(|d| d.parse::<i32>().ok()).ok_or(Errno::EINVAL)?,
    };
    let offset = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
    let magic = unescape(words.next_escaped()?)?;
    let mask = unescape(words.next_escaped()?)?;
    let fits = offset.checked_add(magic.len()).is_some_and(|end| end <= HEAD_SIZE);
    if magic.is_empty() || !fits || !mask.is_empty() && mask.len() != magic.len() {
        return Err(Errno::EINVAL);
    }
    Ok(Match::Magic { offset, magic, mask: (!mask.is_empty()).then_some(mask) })
}

fn extension(words: &mut Words<'_>) -> Result<Match> {
    words.next()?;
    let text = words.next()?;
    if text.is_empty() || text.contains(&b'/') {
        return Err(Errno::EINVAL);
    }
    words.next()?;
    Ok(Match::Extension(KVec::try_from_slice(text)?))
}

fn flags(tail: &[u8]) -> Result<Flags> {
    let mut out = Flags::empty();
    for b in tail.strip_suffix(b"\n").unwrap_or(tail) {
        out |= match b {
            b'P' => Flags::PRESERVE_ARGV0,
            b'O' => Flags::OPEN_BINARY,
            b'C' => Flags::CREDENTIALS | Flags::OPEN_BINARY,
            b'F' => Flags::FIX_BINARY,
            _ => return Err(Errno::EINVAL),
        };
    }
    Ok(out)
}

impl Match {
    fn fits(&self, head: &[u8], name: &[u8]) -> bool {
        match self {
            Self::Magic { offset, magic, mask } => {
                // Behind a short file's end stand zeros.
                let at = |i: usize| head.get(offset + i).copied().unwrap_or(0);
                magic.iter().enumerate().all(|(i, want)| {
                    let mask = mask.as_ref().and_then(|m| m.get(i).copied()).unwrap_or(0xff);
                    (at(i) ^ want) & mask == 0
                })
            }
            Self::Extension(text) => {
                let dot = name.iter().rposition(|b| *b == b'.');
                dot.and_then(|at| name.get(at + 1..)) == Some(text.as_slice())
            }
        }
    }
}

/// Registers a line. EINVAL; EEXIST: the name is taken; with F the interpreter's errors.
pub(super) fn register(task: &Task, line: &[u8]) -> Result {
    let rule = Rule::parse(line)?;
    if matches!(&*rule.name, b"register" | b"status") {
        return Err(Errno::EEXIST);
    }
    let fixed = match rule.flags.contains(Flags::FIX_BINARY) {
        true => Some(KArc::try_new(super::open_exec(task, &rule.interpreter)?)?),
        false => None,
    };
    let entry = KArc::try_new(Entry { rule, enabled: AtomicBool::new(true), fixed })?;
    let mut list = ENTRIES.lock();
    if list.iter().any(|e| e.rule.name == entry.rule.name) {
        return Err(Errno::EEXIST);
    }
    Ok(list.try_push(entry)?)
}

/// The entry of this name.
pub(super) fn find(name: &[u8]) -> Option<KArc<Entry>> {
    ENTRIES.lock().iter().find(|e| &*e.rule.name == name).cloned()
}

/// The entry in this place of the list.
pub(super) fn nth(n: usize) -> Option<KArc<Entry>> {
    ENTRIES.lock().get(n).cloned()
}

/// Takes an entry out.
pub(super) fn remove(entry: &KArc<Entry>) {
    let gone = {
        let mut list = ENTRIES.lock();
        list.iter().position(|e| KArc::ptr_eq(e, entry)).and_then(|at| list.remove(at))
    };
    drop(gone);
}

/// Takes all entries out.
pub(super) fn clear() {
    let gone = core::mem::take(&mut *ENTRIES.lock());
    drop(gone);
}

pub(super) fn is_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

pub(super) fn set_enabled(on: bool) {
    ENABLED.store(on, Ordering::Relaxed);
}

/// Registered formats.
pub(super) struct Misc;

impl Misc {
    fn matching(binary: &Binary) -> Option<KArc<Entry>> {
        let list = ENTRIES.lock();
        list.iter()
            .rev()
            .find(|e| e.enabled.load(Ordering::Relaxed) && e.rule.by.fits(binary.head(), &binary.interp))
            .cloned()
    }
}

impl Format for Misc {
    fn load(&self, task: &Task, binary: &mut Binary) -> Result<Loaded> {
        if !is_enabled() {
            return Err(Errno::ENOEXEC);
        }
        let entry = Self::matching(binary).ok_or(Errno::ENOEXEC)?;
        if binary.inaccessible {
            return Err(Errno::ENOENT);
        }
        let Rule { interpreter, flags, .. } = &entry.rule;
        // The interpreter, the file's name, and the arguments: with P all of them.
        binary.kept_argv0 = flags.contains(Flags::PRESERVE_ARGV0);
        let front = [Some(interpreter.as_slice()), Some(binary.interp.as_slice())];
        binary.arguments.args.prepend(&front, !binary.kept_argv0)?;
        let file = match &entry.fixed {
            Some(open) => open.clone(),
            None => KArc::try_new(super::open_exec(task, interpreter)?)?,
        };
        if flags.contains(Flags::OPEN_BINARY) {
            binary.passed = Some(binary.file.clone());
        }
        binary.passed_gives_rights |= flags.contains(Flags::CREDENTIALS);
        binary.interpret_with(file, interpreter)?;
        Ok(Loaded::Interpreter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_by_magic_has_offset_bytes_mask_interpreter_and_flags() {
        let r = Rule::parse(b":qemu:M:4:\\x7fELF\\x3a:\\xff\\xff\\xff\\x00\\xff:/usr/bin/qemu:OCF\n").unwrap();
        assert_eq!(&*r.name, b"qemu");
        let Match::Magic { offset, magic, mask } = &r.by else { panic!("by extension") };
        assert_eq!((*offset, magic.as_slice()), (4, &b"\x7fELF:"[..]));
        assert_eq!(mask.as_deref(), Some(&b"\xff\xff\xff\0\xff"[..]));
        assert_eq!(&*r.interpreter, b"/usr/bin/qemu");
        assert_eq!(r.flags, Flags::OPEN_BINARY | Flags::CREDENTIALS | Flags::FIX_BINARY);
        assert!(r.by.fits(b"____\x7fELx:", b""));
        assert!(!r.by.fits(b"____\x7fELx", b""));
    }

    #[test]
    fn a_line_by_extension_looks_at_the_last_dot() {
        let r = Rule::parse(b",py,E,,py,,/bin/python,").unwrap();
        assert_eq!(r.by, Match::Extension(KVec::try_from_slice(b"py").unwrap()));
        assert!(r.by.fits(b"", b"a/b.c.py"));
        assert!(!r.by.fits(b"", b"a/b.py.c"));
        assert!(!r.by.fits(b"", b"py"));
        // The last delimiter may be missing.
        assert!(Rule::parse(b":py:E::py::/bin/python").is_ok());
    }

    #[test]
    fn other_lines_are_einval() {
        for line in [
            &b":a:M:::::"[..],
            b":too-short",
            b"::E::py::/bin/python:",
            b":..:E::py::/bin/python:",
            b":a/b:E::py::/bin/python:",
            b":a:X::py::/bin/python:",
            b":a:E::::/bin/python:",
            b":a:E::p/y::/bin/python:",
            b":a:E::py:::xxxxxxx",
            b":a:M:-1:abc::/bin/python:",
            b":a:M:x:abc::/bin/python:",
            b":a:M:254:abc::/bin/python:",
            b":a:M::abc:\\xff:/bin/python:",
            b":a:M::a\\xgg::/bin/python:",
            b":a:M::abc::/bin/python:Q",
            b":a:M::abc::/bin/python:P\n\n",
            &[b':'; 1921],
        ] {
            assert_eq!(Rule::parse(line).map(|_| ()), Err(Errno::EINVAL), "{}", String::from_utf8_lossy(line));
        }
    }
}
