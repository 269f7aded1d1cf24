//! The files of a process's directory that show its memory: `maps`, `smaps`, `environ`, `auxv`,
//! `mem`, `pagemap`. Who opens one must be allowed to look into the process (for `mem`: to control
//! it); it goes on showing that program's memory, also when the process runs another one by then.

use super::{Access, alive, allowed, may_inspect, refresh};
use crate::task::{Memory, Task};
use abi::{Errno, PAGE_SIZE, Result, UserAddr, raw::general as g};
use core::{any::Any, fmt::Write};
use kalloc::{KArc, KBox, KBytes, KWeak, karc_dyn, kbox_dyn};
use mm::{
    AddressSpace, AreaUsage, MapFlags, Prot,
    io::{IoSink, IoSource},
};
use vfs::{
    Cap, Credentials, FileOps, Inode, OpenFile,
    pseudo::{self, OpenWith, Reader, SeqBuf, Show, no_memory},
};

/// Writes the text that a memory yields.
pub(super) type ShowMemory = fn(&AddressSpace, &mut SeqBuf) -> Result;

/// What is opened.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text(ShowMemory),
    /// Text that ends with the process itself, not only with the memory.
    Areas(ShowMemory),
    /// The memory itself.
    Bytes,
    /// A word for each page.
    Pages,
}

/// A file of this sort of one task.
pub(super) struct MemoryFile {
    pub task: KWeak<Task>,
    pub kind: Kind,
}

impl OpenWith for MemoryFile {
    fn open(&self, _: &KArc<Inode>, _flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        let task = alive(&self.task).ok_or(Errno::ESRCH)?;
        // First the memory, then the check: an exec between the two changes both.
        let memory = task.memory().map(|m| KArc::downgrade(&m));
        match self.kind {
            Kind::Bytes => allowed(&task, Access::Attach).map_err(|_| Errno::EACCES)?,
            _ => may_inspect(&task)?,
        }
        Ok(match self.kind {
            Kind::Text(show) => pseudo::text_file(karc_dyn!(Text { memory, show, of: None } => dyn Show)?)?,
            Kind::Areas(show) => {
                let of = Some(self.task.clone());
                pseudo::text_file(karc_dyn!(Text { memory, show, of } => dyn Show)?)?
            }
            Kind::Bytes => kbox_dyn!(Bytes { memory } => dyn FileOps)?,
            Kind::Pages => kbox_dyn!(Pages { memory, frames: cred.capable(Cap::SYS_ADMIN) } => dyn FileOps)?,
        })
    }
    fn refresh(&self, inode: &Inode) {
        refresh(&self.task, inode);
    }
}

type Held = Option<KWeak<Memory>>;

/// The memory, while a process uses it.
fn in_use(memory: &Held) -> Option<KArc<Memory>> {
    memory.as_ref()?.upgrade()
}

struct Text {
    memory: Held,
    show: ShowMemory,
    of: Option<KWeak<Task>>,
}

impl Show for Text {
    fn show(&self, out: &mut SeqBuf, _: &Reader<'_>) -> Result {
        if let Some(task) = &self.of {
            alive(task).ok_or(Errno::ESRCH)?;
        }
        match in_use(&self.memory) {
            Some(m) => (self.show)(&m.space, out),
            None => Ok(()),
        }
    }
}

/// lseek(2) for files whose positions are addresses: there is no end.
fn seek(f: &OpenFile, pos: u64, offset: i64, whence: u32) -> Result<u64> {
    if whence > g::SEEK_CUR {
        return Err(Errno::EINVAL);
    }
    vfs::file::generic_seek(f, pos, offset, whence, 0)
}

/// `mem`: reads and writes as a debugger does.
struct Bytes {
    memory: Held,
}

impl Bytes {
    /// Moves page after page; EIO when nothing is mapped at the first.
    fn each_page(pos: &mut u64, mut left: usize, mut step: impl FnMut(UserAddr, &mut [u8]) -> Result<usize>) -> Result<usize> {
        let mut page = KBytes::try_from_elem(0, PAGE_SIZE.min(left))?;
        let mut done = 0;
        while left > 0 {
            let n = left.min(PAGE_SIZE);
            match step(UserAddr(*pos), page.get_mut(..n).unwrap_or_default()) {
                Ok(moved) => {
                    done += moved;
                    left -= moved;
                    *pos = pos.saturating_add(moved as u64);
                    if moved < n {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}

impl FileOps for Bytes {
    fn read(&self, _: &OpenFile, dst: &mut IoSink<'_>, pos: &mut u64) -> Result<usize> {
        let Some(m) = in_use(&self.memory) else { return Ok(0) };
        Self::each_page(pos, dst.remaining(), |at, page| {
            let n = m.space.peek(at, page).map_err(|_| Errno::EIO)?;
            dst.write(page.get(..n).unwrap_or_default())
        })
    }
    fn write(&self, _: &OpenFile, src: &mut IoSource<'_>, pos: &mut u64) -> Result<usize> {
        let Some(m) = in_use(&self.memory) else { return Ok(0) };
        Self::each_page(pos, src.remaining(), |at, page| {
            src.read_exact(page)?;
            m.space.poke(at, page).map_err(|_| Errno::EIO)
        })
    }
    fn seek(&self, f: &OpenFile, pos: u64, offset: i64, whence: u32) -> Result<u64> {
        seek(f, pos, offset, whence)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `pagemap`: for each page a word (Linux's Documentation/admin-guide/mm/pagemap.rst).
struct Pages {
    memory: Held,
    /// Whether the reader may know frame numbers.
    frames: bool,
}

const PAGE_PRESENT: u64 = 1 << 63;
const PAGE_FILE: u64 = 1 << 61;
const PAGE_EXCLUSIVE: u64 = 1 << 56;
/// Words that are made at once.
const CHUNK: u64 = 512;

impl FileOps for Pages {
    fn read(&self, _: &OpenFile, dst: &mut IoSink<'_>, pos: &mut u64) -> Result<usize> {
        if !pos.is_multiple_of(8) || !dst.remaining().is_multiple_of(8) {
            return Err(Errno::EINVAL);
        }
        let Some(m) = in_use(&self.memory) else { return Ok(0) };
        let mut done = 0;
        let mut words = KBytes::try_from_elem(0, CHUNK as usize * 8)?;
        while dst.remaining() > 0 {
            let first = *pos / 8;
            let pages = (dst.remaining() as u64 / 8).min(CHUNK).min((abi::USER_END / PAGE_SIZE as u64).saturating_sub(first));
            if pages == 0 {
                break;
            }
            words.fill(0);
            let at = first * PAGE_SIZE as u64;
            m.space.for_each_page(at, at + pages * PAGE_SIZE as u64, |addr, page| {
                let word = PAGE_PRESENT
                    | if page.file { PAGE_FILE } else { 0 }
                    | if page.exclusive { PAGE_EXCLUSIVE } else { 0 }
                    | if self.frames { page.pfn } else { 0 };
                let i = ((addr - at) / PAGE_SIZE as u64) as usize * 8;
                if let Some(to) = words.get_mut(i..i + 8) {
                    to.copy_from_slice(&word.to_le_bytes());
                }
            });
            let n = match dst.write(words.get(..pages as usize * 8).unwrap_or_default()) {
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
                Ok(n) => n,
            };
            done += n;
            *pos = pos.saturating_add(n as u64);
        }
        Ok(done)
    }
    fn seek(&self, f: &OpenFile, pos: u64, offset: i64, whence: u32) -> Result<u64> {
        seek(f, pos, offset, whence)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A range of the process's own memory.
pub(super) fn range(mm: &AddressSpace, start: UserAddr, end: UserAddr) -> Result<KBytes> {
    // Longer lists are cut: exec allows 6 MiB at most.
    let len = end.0.saturating_sub(start.0).min(6 << 20) as usize;
    let mut bytes = KBytes::try_from_elem(0, len)?;
    let n = mm.read_remote(start, &mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}

pub(super) fn environ(mm: &AddressSpace, out: &mut SeqBuf) -> Result {
    let l = mm.layout();
    out.push(&range(mm, l.env_start, l.env_end)?)
}

/// The vector lies behind the environment's pointers; it is read from the program's stack.
pub(crate) fn auxv(mm: &AddressSpace, out: &mut SeqBuf) -> Result {
    let l = mm.layout();
    let stack = range(mm, l.start_stack, l.arg_start)?;
    let mut words = stack.chunks_exact(8);
    let word = |c: &[u8]| c.try_into().map_or(0, u64::from_le_bytes);
    let argc = words.next().map_or(0, word) as usize;
    let mut words = words.skip(argc.saturating_add(1));
    while words.next().is_some_and(|c| word(c) != 0) {}
    let mut pair = true;
    let mut last = false;
    for c in words {
        if pair {
            last = word(c) == 0;
        }
        out.push(c)?;
        if last && !pair {
            break;
        }
        pair = !pair;
    }
    Ok(())
}

/// One line of `maps`; also the head of each part of `smaps`.
fn area_line(mm: &AddressSpace, a: &mm::AreaInfo, out: &mut SeqBuf) -> Result {
    let bit = |on: bool, c: char| if on { c } else { '-' };
    let before = out.len();
    let file = a.file();
    let (dev, ino) = file.as_ref().map_or((abi::DevNum::default(), 0), |f| f.identity());
    let offset = if file.is_some() { a.index << abi::PAGE_SHIFT } else { 0 };
    write!(
        out,
        "{:08x}-{:08x} {}{}{}{} {offset:08x} {:02x}:{:02x} {ino} ",
        a.start,
        a.end,
        bit(a.prot.contains(Prot::R), 'r'),
        bit(a.prot.contains(Prot::W), 'w'),
        bit(a.prot.contains(Prot::X), 'x'),
        if a.shared() { 's' } else { 'p' },
        dev.major,
        dev.minor,
    )
    .map_err(no_memory)?;
    let l = mm.layout();
    let special = match () {
        () if a.flags.contains(MapFlags::STACK) => Some("[stack]"),
        () if file.is_none() && a.start <= mm.current_brk().0 && a.end > l.start_brk.0 => Some("[heap]"),
        () => None,
    };
    if file.is_some() || special.is_some() {
        // Names begin in column 74.
        while out.len() - before < 73 {
            out.push(b" ")?;
        }
        match (&file, special) {
            (Some(f), _) => f.describe(&mut Escaped(out)).map_err(no_memory)?,
            (None, name) => out.push(name.unwrap_or("").as_bytes())?,
        }
    }
    out.push(b"\n")
}

/// Shows a newline in a path as `\012`.
struct Escaped<'a>(&'a mut SeqBuf);

impl Write for Escaped<'_> {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        for (i, part) in s.split('\n').enumerate() {
            if i > 0 {
                self.0.write_str("\\012")?;
            }
            self.0.write_str(part)?;
        }
        Ok(())
    }
}

pub(super) fn maps(mm: &AddressSpace, out: &mut SeqBuf) -> Result {
    mm.for_each_area(|a| area_line(mm, a, out))
}

const KIB: u64 = 1024;

fn row(out: &mut SeqBuf, name: &str, bytes: u64) -> Result {
    let pad = 23usize.saturating_sub(name.len());
    writeln!(out, "{name}:{:>pad$} kB", bytes / KIB).map_err(no_memory)
}

/// What `smaps` and `smaps_rollup` have in common. Memory that is nowhere else but in RAM and in
/// pages of one size has no swap, no huge pages.
fn usage(u: &AreaUsage, locked: u64, rollup: bool, out: &mut SeqBuf) -> Result {
    row(out, "Rss", u.rss)?;
    row(out, "Pss", u.pss)?;
    row(out, "Pss_Dirty", u.pss_dirty)?;
    if rollup {
        row(out, "Pss_Anon", u.pss_anon)?;
        row(out, "Pss_File", u.pss_file)?;
        row(out, "Pss_Shmem", u.pss_shmem)?;
    }
    for (name, value) in [
        ("Shared_Clean", u.shared_clean),
        ("Shared_Dirty", u.shared_dirty),
        ("Private_Clean", u.private_clean),
        ("Private_Dirty", u.private_dirty),
        ("Referenced", u.referenced),
        ("Anonymous", u.anonymous),
        ("LazyFree", 0),
        ("AnonHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", locked),
    ] {
        row(out, name, value)?;
    }
    Ok(())
}

/// Bytes of an area that count as locked.
fn locked(a: &mm::AreaInfo, u: &AreaUsage) -> u64 {
    if a.flags.contains(MapFlags::LOCKED) { u.pss } else { 0 }
}

pub(super) fn smaps(mm: &AddressSpace, out: &mut SeqBuf) -> Result {
    mm.for_each_area(|a| {
        area_line(mm, a, out)?;
        let u = mm.usage(a);
        row(out, "Size", a.len())?;
        row(out, "KernelPageSize", PAGE_SIZE as u64)?;
        row(out, "MMUPageSize", PAGE_SIZE as u64)?;
        usage(&u, locked(a, &u), false, out)?;
        out.push(b"THPeligible:    0\nVmFlags: ")?;
        let f = |flag| a.flags.contains(flag);
        for (on, name) in [
            (a.prot.contains(Prot::R), b"rd "),
            (a.prot.contains(Prot::W), b"wr "),
            (a.prot.contains(Prot::X), b"ex "),
            (a.shared(), b"sh "),
            (true, b"mr "),
            (!f(MapFlags::NO_WRITE), b"mw "),
            (!f(MapFlags::NO_EXEC), b"me "),
            (a.shared(), b"ms "),
            (f(MapFlags::GROWSDOWN), b"gd "),
            (f(MapFlags::LOCKED), b"lo "),
            (f(MapFlags::SEQUENTIAL), b"sr "),
            (f(MapFlags::RANDOM), b"rr "),
            (f(MapFlags::DONTFORK), b"dc "),
            (f(MapFlags::ACCOUNTED), b"ac "),
            (f(MapFlags::NORESERVE), b"nr "),
            (f(MapFlags::WIPEONFORK), b"wf "),
            (f(MapFlags::DONTDUMP), b"dd "),
        ] {
            if on {
                out.push(name)?;
            }
        }
        out.push(b"\n")
    })
}

pub(super) fn smaps_rollup(mm: &AddressSpace, out: &mut SeqBuf) -> Result {
    let (mut sum, mut pinned, mut first, mut end) = (AreaUsage::default(), 0, None, 0);
    mm.for_each_area(|a| {
        let u = mm.usage(a);
        pinned += locked(a, &u);
        sum.add(&u);
        first.get_or_insert(a.start);
        end = a.end;
        Ok(())
    })?;
    let before = out.len();
    write!(out, "{:08x}-{end:08x} ---p 00000000 00:00 0 ", first.unwrap_or(0)).map_err(no_memory)?;
    while out.len() - before < 73 {
        out.push(b" ")?;
    }
    out.push(b"[rollup]\n")?;
    usage(&sum, pinned, true, out)
}
