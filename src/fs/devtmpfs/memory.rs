//! null, zero, full, random, urandom and kmsg.

use abi::{DevNum, Errno, PAGE_SIZE, Result, UserAddr, raw::general as g};
use arch::user::UserPtr;
use core::{
    any::Any,
    fmt::{self, Write},
};
use kalloc::{KArc, KBox, KBytes, karc_dyn, kbox_dyn};
use klog::{Facility, Level, ReadError, Reader, Record};
use mm::{MappedFile, PageCache, Prot};
use sched::{Mutex, Outcome, Sleep};
use sync::LockClass;
use vfs::{
    Credentials, FileOps, Inode, IoSink, IoSource, OpenFile, PollEvents, PollTable,
    chardev::{self, CharDevice},
    devnodes,
    pseudo::{SeqBuf, no_memory},
    random,
    splice::{self, Pages},
};

/// Major number of the memory devices.
const MAJOR: u32 = 1;
const NULL: u32 = 3;
const ZERO: u32 = 5;
const FULL: u32 = 7;
const RANDOM: u32 = 8;
const URANDOM: u32 = 9;
const KMSG: u32 = 11;

static KMSG_READER: LockClass = LockClass::new("kmsg.reader", 295);

struct MemoryDevices;

pub(crate) fn init() -> Result {
    chardev::register(MAJOR, 0..256, "mem", karc_dyn!(MemoryDevices => dyn CharDevice)?)?;
    for (name, minor, mode) in [
        ("null", NULL, 0o666),
        ("zero", ZERO, 0o666),
        ("full", FULL, 0o666),
        ("random", RANDOM, 0o666),
        ("urandom", URANDOM, 0o666),
        ("kmsg", KMSG, 0o644),
    ] {
        devnodes::add(name.as_bytes(), mode, DevNum::new(MAJOR, minor), false)?;
    }
    Ok(())
}

impl CharDevice for MemoryDevices {
    fn open(&self, inode: &KArc<Inode>, flags: u32, _cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        Ok(match inode.rdev.minor {
            NULL => kbox_dyn!(Null => dyn FileOps)?,
            ZERO => kbox_dyn!(Zero { full: false } => dyn FileOps)?,
            FULL => kbox_dyn!(Zero { full: true } => dyn FileOps)?,
            RANDOM => kbox_dyn!(Random { blocking: true } => dyn FileOps)?,
            URANDOM => kbox_dyn!(Random { blocking: false } => dyn FileOps)?,
            KMSG => kbox_dyn!(Kmsg::new(flags) => dyn FileOps)?,
            _ => return Err(Errno::ENXIO),
        })
    }
}

/// Takes everything.
fn swallow(src: &mut IoSource<'_>) -> usize {
    let n = src.remaining();
    src.skip(n);
    n
}

struct Null;

impl FileOps for Null {
    fn read(&self, _f: &OpenFile, _dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        Ok(0)
    }
    fn write(&self, _f: &OpenFile, src: &mut IoSource<'_>, _pos: &mut u64) -> Result<usize> {
        Ok(swallow(src))
    }
    fn can_splice_write(&self) -> bool {
        true
    }
    fn seek(&self, _f: &OpenFile, _pos: u64, _offset: i64, _whence: u32) -> Result<u64> {
        Ok(0)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Zero {
    full: bool,
}

impl FileOps for Zero {
    fn read(&self, _f: &OpenFile, dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        let mut done = 0;
        while dst.remaining() > 0 {
            // In pieces, so that a read of gigabytes does not keep the CPU.
            let piece = dst.remaining().min(16 * PAGE_SIZE);
            match dst.write_zeros(piece) {
                Ok(n) => {
                    done += n;
                    if n < piece {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }
    fn write(&self, _f: &OpenFile, src: &mut IoSource<'_>, _pos: &mut u64) -> Result<usize> {
        if self.full { Err(Errno::ENOSPC) } else { Ok(swallow(src)) }
    }
    fn seek(&self, f: &OpenFile, pos: u64, offset: i64, whence: u32) -> Result<u64> {
        if self.full { vfs::generic_seek(f, pos, offset, whence, 0) } else { Ok(0) }
    }
    fn mmap(&self, _f: &KArc<OpenFile>) -> Result<KArc<dyn MappedFile>> {
        if self.full {
            return Err(Errno::ENODEV);
        }
        let cache = PageCache::new(None)?;
        cache.set_size(i64::MAX as u64);
        Ok(karc_dyn!(ZeroMapping(cache) => dyn MappedFile)?)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Anonymous memory by another name: shared among those who inherit the mapping.
struct ZeroMapping(KArc<PageCache>);

impl MappedFile for ZeroMapping {
    fn cache(&self) -> &KArc<PageCache> {
        &self.0
    }
    fn may_map(&self, _prot: Prot, _shared: bool) -> Result {
        Ok(())
    }
    fn describe(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str("/dev/zero")
    }
    fn identity(&self) -> (DevNum, u64) {
        (DevNum::new(0, 0), 0)
    }
}

struct Random {
    /// /dev/random waits until the generator is seeded.
    blocking: bool,
}

impl FileOps for Random {
    fn splice_read(&self, f: &OpenFile, pos: &mut u64, len: usize, pages: &mut Pages) -> Result<usize> {
        splice::read_copied(f, pos, len, pages)
    }
    fn can_splice_write(&self) -> bool {
        true
    }
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        if self.blocking && !random::is_seeded() {
            if f.is_nonblocking() {
                return Err(Errno::EAGAIN);
            }
            let seeded = || random::is_seeded().then_some(());
            match random::waiters().wait_until(Sleep::Interruptible, None, seeded) {
                Outcome::Ready(()) => {}
                _ => return Err(Errno::ERESTARTSYS),
            }
        }
        let mut done = 0;
        let mut buf = [0; 256];
        while dst.remaining() > 0 {
            let n = dst.remaining().min(buf.len());
            let part = buf.get_mut(..n).unwrap_or(&mut []);
            random::fill(part);
            let went = dst.write(part);
            part.fill(0);
            match went {
                Ok(m) => {
                    done += m;
                    if m < n {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }
    fn write(&self, _f: &OpenFile, src: &mut IoSource<'_>, _pos: &mut u64) -> Result<usize> {
        let mut done = 0;
        let mut buf = [0; 64];
        while src.remaining() > 0 {
            match src.read(&mut buf) {
                // Mixed in, credited nothing: anybody may write.
                Ok(n) => {
                    random::feed(buf.get(..n).unwrap_or(&[]), 0);
                    done += n;
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }
    fn seek(&self, _f: &OpenFile, _pos: u64, _offset: i64, _whence: u32) -> Result<u64> {
        Ok(0)
    }
    fn ioctl(&self, _f: &OpenFile, cmd: u32, arg: u64) -> Result<u64> {
        /// _IOR('R', 0, int) (random(4)).
        const RNDGETENTCNT: u32 = 0x8004_5200;
        if cmd != RNDGETENTCNT {
            return Err(Errno::EINVAL);
        }
        let bits = if random::is_seeded() { 256 } else { 0 };
        UserPtr::<i32>::new(UserAddr(arg)).write(bits)?;
        Ok(0)
    }
    fn poll(&self, _f: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.register(random::waiters());
        if random::is_seeded() { PollEvents::READABLE | PollEvents::WRITABLE } else { PollEvents::WRITABLE }
    }
    fn can_poll(&self) -> bool {
        true
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The log: a read gives one record, a write makes one (Linux's Documentation/ABI/testing/dev-kmsg).
struct Kmsg {
    /// None: open for writing only.
    reader: Option<Mutex<Reader>>,
}

/// Longest text that a write may bring (LOG_LINE_MAX).
const WRITE_MAX: usize = 1024 - 32;

impl Kmsg {
    fn new(flags: u32) -> Self {
        let reader = (flags & g::O_ACCMODE != g::O_WRONLY).then(|| Mutex::new(Reader::oldest(), &KMSG_READER));
        Self { reader }
    }
}

impl FileOps for Kmsg {
    fn can_seek(&self) -> bool {
        // It seeks by records, not by bytes; reads and writes have no position.
        true
    }
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        let mut reader = self.reader.as_ref().ok_or(Errno::EBADF)?.lock_interruptible()?;
        let mut text = [0; klog::LINE_MAX];
        let record = loop {
            match reader.read_record(&mut text) {
                Ok(r) => break r,
                Err(ReadError::Overrun) => return Err(Errno::EPIPE),
                Err(_) if f.is_nonblocking() => return Err(Errno::EAGAIN),
                Err(_) => {
                    // Writers of the log cannot wake anybody, since they may be anywhere: looked
                    // at again a few times a second.
                    let later = time::monotonic().saturating_add(abi::Nanos::from_millis(200));
                    if !matches!(sched::sleep_until(Sleep::Interruptible, later), Outcome::Ready(())) {
                        return Err(Errno::ERESTARTSYS);
                    }
                }
            }
        };
        let mut line = SeqBuf::new();
        format_record(&mut line, &record, text.get(..record.len.min(text.len())).unwrap_or(&[])).map_err(no_memory)?;
        let bytes = line.as_bytes();
        if bytes.len() > dst.remaining() {
            return Err(Errno::EINVAL);
        }
        dst.write_all(bytes)?;
        Ok(bytes.len())
    }
    fn write(&self, _f: &OpenFile, src: &mut IoSource<'_>, _pos: &mut u64) -> Result<usize> {
        let n = src.remaining();
        if n > WRITE_MAX {
            return Err(Errno::EINVAL);
        }
        let mut data = KBytes::new();
        data.try_resize(n, 0)?;
        src.read_exact(&mut data)?;
        let (prio, text) = priority(&data);
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        klog::write_user(Level::from_bits((prio & 7) as u8), Facility::from_number((prio >> 3) as u8), text);
        Ok(n)
    }
    fn seek(&self, _f: &OpenFile, _pos: u64, offset: i64, whence: u32) -> Result<u64> {
        let mut reader = self.reader.as_ref().ok_or(Errno::EBADF)?.lock_interruptible()?;
        if offset != 0 {
            return Err(Errno::ESPIPE);
        }
        match whence {
            g::SEEK_SET | g::SEEK_DATA => *reader = Reader::oldest(),
            g::SEEK_END => *reader = Reader::newest(),
            _ => return Err(Errno::EINVAL),
        }
        Ok(0)
    }
    fn poll(&self, _f: &OpenFile, _table: &mut PollTable<'_>) -> PollEvents {
        let ready = self.reader.as_ref().is_some_and(|r| r.try_lock().is_some_and(|r| r.ready()));
        if ready { PollEvents::READABLE | PollEvents::WRITABLE } else { PollEvents::WRITABLE }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `prio,seq,usec,-;text`, control bytes and backslashes as `\\xNN`.
fn format_record(out: &mut SeqBuf, r: &Record, text: &[u8]) -> fmt::Result {
    let prio = u32::from(r.facility.number()) << 3 | r.level as u32;
    write!(out, "{},{},{},-;", prio, r.seq, r.time / 1000)?;
    for &b in text {
        if !(b' '..127).contains(&b) || b == b'\\' {
            write!(out, "\\x{b:02x}")?;
        } else {
            out.write_char(char::from(b))?;
        }
    }
    out.write_char('\n')
}

/// `<prio>` in front of a record; without it user facility, default level.
fn priority(data: &[u8]) -> (u32, &[u8]) {
    /// LOG_USER << 3 | MESSAGE_LOGLEVEL_DEFAULT
    const DEFAULT: u32 = 1 << 3 | 4;
    let Some(rest) = data.strip_prefix(b"<") else { return (DEFAULT, data) };
    let Some(end) = rest.iter().take(8).position(|&b| b == b'>') else { return (DEFAULT, data) };
    let number = rest.get(..end).and_then(|d| core::str::from_utf8(d).ok()).and_then(|d| d.parse::<u32>().ok());
    match (number, rest.get(end + 1..)) {
        // The kernel's own facility is not for users.
        (Some(n), Some(text)) => (if n >> 3 == 0 { 1 << 3 | n & 7 } else { n }, text),
        _ => (DEFAULT, data),
    }
}

/// A kmsg without a tree, for tests.
#[cfg(test)]
pub(crate) fn kmsg_for_tests() -> KArc<OpenFile> {
    let inode = vfs::anon::inode(abi::Mode(g::S_IFCHR | 0o600), 0, 0).unwrap();
    let ops = kbox_dyn!(Kmsg::new(g::O_RDWR) => dyn FileOps).unwrap();
    let cred = KArc::try_new(Credentials::root()).unwrap();
    OpenFile::anonymous(b"kmsg", inode, ops, g::O_RDWR | g::O_NONBLOCK, &cred).unwrap()
}
