//! The ELF file of a core: header, one PT_NOTE, one PT_LOAD for each mapping, and the pages that
//! are there. Pages that are not there stay holes, so that a core is no larger than what was used.

use abi::{Errno, PAGE_SIZE, Result, UserAddr, raw::elf_uapi as e};
use kalloc::{KBox, KBytes, KVec};
use mm::{AddressSpace, AreaInfo, MapFlags, Prot, io::IoSource};
use vfs::{Credentials, OpenFile};

const EHDR: u64 = 64;
const PHDR: u64 = 56;
const PAGE: u64 = PAGE_SIZE as u64;
/// `e_phnum` when the number does not fit; it stands in the first section header then.
const PN_XNUM: u16 = 0xffff;
const SHDR: u64 = 64;

bitflags::bitflags! {
    /// Kinds of mappings (`core(5)`, coredump_filter).
    struct Filter: u32 {
        const ANON_PRIVATE = 1;
        const ANON_SHARED = 2;
        const FILE_PRIVATE = 4;
        const FILE_SHARED = 8;
        const ELF_HEADERS = 16;
    }
}

/// One mapping and how much of it goes into the file.
struct Part {
    start: u64,
    end: u64,
    prot: Prot,
    dumped: u64,
}

/// Where the writing is, and how far it may go.
struct Out<'a> {
    file: &'a OpenFile,
    at: u64,
    written: u64,
    limit: u64,
}

impl Out<'_> {
    /// Writes at the present place. EFBIG beyond the limit: what is there stays.
    fn put(&mut self, bytes: &[u8]) -> Result {
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written > self.limit {
            return Err(Errno::EFBIG);
        }
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|r| !r.is_empty()) {
            match self.file.write_at(&mut IoSource::kernel(rest), self.at, u64::MAX)? {
                0 => return Err(Errno::EIO),
                n => {
                    done += n;
                    self.at += n as u64;
                }
            }
        }
        Ok(())
    }
}

/// Writes the core. An error leaves what was written. EINTR: `dying` said so.
pub(super) fn write(file: &OpenFile, cred: &Credentials, mm: &AddressSpace, notes: &[u8], filter: u32, limit: u64, dying: &dyn Fn() -> bool) -> Result {
    let parts = parts(mm, Filter::from_bits_truncate(filter))?;
    let headers = headers(&parts, notes.len() as u64)?;
    let mut out = Out { file, at: 0, written: 0, limit };
    out.put(&headers)?;
    out.put(notes)?;
    out.at = data_start(parts.len(), notes.len() as u64);
    let mut page = KBox::try_new([0u8; PAGE_SIZE])?;
    for part in &parts {
        let base = out.at;
        let end = part.start + part.dumped;
        let mut at = part.start;
        while let Some(present) = mm.next_present(UserAddr(at), UserAddr(end)) {
            if dying() {
                return Err(Errno::EINTR);
            }
            // A page that went away meanwhile stays a hole.
            if mm.read_remote(present, &mut page[..]).is_ok() {
                out.at = base + (present.0 - part.start);
                out.put(&page[..])?;
            }
            at = present.0 + PAGE;
        }
        out.at = base + part.dumped;
    }
    // Holes at the end count: the file is as long as its headers say.
    vfs::ftruncate(file, cred, out.at, u64::MAX)
}

fn parts(mm: &AddressSpace, filter: Filter) -> Result<KVec<Part>> {
    let mut list = KVec::new();
    mm.for_each_area(|a| {
        let dumped = dumped(mm, a, &filter);
        Ok(list.try_push(Part { start: a.start, end: a.end, prot: a.prot, dumped })?)
    })?;
    Ok(list)
}

/// How many bytes of a mapping go into the core.
fn dumped(mm: &AddressSpace, a: &AreaInfo, filter: &Filter) -> u64 {
    let whole = |on: bool| if on { a.len() } else { 0 };
    let file = a.file();
    let special = file.as_ref().is_some_and(|f| f.identity().1 == 0);
    match &file {
        _ if a.flags.contains(MapFlags::DONTDUMP) => 0,
        // The code that signal handlers return to belongs to the process.
        Some(_) if special && !a.shared() => whole(a.prot.contains(Prot::X)),
        Some(_) if special => whole(filter.contains(Filter::ANON_SHARED)),
        Some(_) if a.shared() => whole(filter.contains(Filter::FILE_SHARED)),
        // Pages of its own make a mapping count as memory, whatever it shows.
        _ if filter.contains(Filter::ANON_PRIVATE) && (file.is_none() || a.has_private_pages()) => a.len(),
        None => 0,
        Some(_) if filter.contains(Filter::FILE_PRIVATE) => a.len(),
        Some(_) if filter.contains(Filter::ELF_HEADERS) && a.index == 0 && starts_elf(mm, a) => PAGE.min(a.len()),
        Some(_) => 0,
    }
}

fn starts_elf(mm: &AddressSpace, a: &AreaInfo) -> bool {
    let mut magic = [0u8; 4];
    a.prot.contains(Prot::R) && mm.read_remote(UserAddr(a.start), &mut magic) == Ok(4) && magic == *b"\x7fELF"
}

/// Where the pages begin in the file.
fn data_start(parts: usize, notes: u64) -> u64 {
    let headers = EHDR + PHDR * (parts as u64 + 1) + extra(parts);
    (headers + notes).next_multiple_of(PAGE)
}

/// Bytes of the section header that more program headers than a word can count need.
fn extra(parts: usize) -> u64 {
    if parts + 1 >= usize::from(PN_XNUM) { SHDR } else { 0 }
}

fn headers(parts: &[Part], notes: u64) -> Result<KBytes> {
    let count = parts.len() + 1;
    let many = extra(parts.len()) != 0;
    let mut out = KBytes::new();
    let mut put = |bytes: &[u8]| out.try_extend_from_slice(bytes);
    put(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0")?;
    put(&4u16.to_le_bytes())?; // ET_CORE
    put(&183u16.to_le_bytes())?; // EM_AARCH64
    put(&1u32.to_le_bytes())?;
    put(&0u64.to_le_bytes())?;
    put(&EHDR.to_le_bytes())?;
    put(&(if many { EHDR + PHDR * count as u64 } else { 0 }).to_le_bytes())?;
    put(&0u32.to_le_bytes())?;
    let phnum = if many { PN_XNUM } else { count as u16 };
    for half in [EHDR as u16, PHDR as u16, phnum, if many { SHDR as u16 } else { 0 }, u16::from(many), 0] {
        put(&half.to_le_bytes())?;
    }
    let notes_at = EHDR + PHDR * count as u64 + extra(parts.len());
    let mut header = |kind: u32, flags: u32, words: [u64; 6]| {
        put(&kind.to_le_bytes())?;
        put(&flags.to_le_bytes())?;
        words.iter().try_for_each(|w| put(&w.to_le_bytes()))
    };
    header(e::PT_NOTE, 0, [notes_at, 0, 0, notes, 0, 4])?;
    let mut at = data_start(parts.len(), notes);
    for p in parts {
        let mut flags = 0;
        for (bit, flag) in [(Prot::R, e::PF_R), (Prot::W, e::PF_W), (Prot::X, e::PF_X)] {
            if p.prot.contains(bit) {
                flags |= flag;
            }
        }
        header(e::PT_LOAD, flags, [at, p.start, 0, p.dumped, p.end - p.start, PAGE])?;
        at += p.dumped;
    }
    if many {
        // Section 0: its info is the number of program headers.
        put(&[0; 44])?;
        put(&(count as u32).to_le_bytes())?;
        put(&[0; 16])?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(start: u64, pages: u64, dumped: u64) -> Part {
        Part { start, end: start + pages * PAGE, prot: Prot::RX, dumped: dumped * PAGE }
    }

    #[test]
    fn headers_say_where_the_pages_are() {
        let h = headers(&[part(0x1000, 4, 4), part(0x8000, 9, 1)], 100).unwrap();
        assert_eq!(h.len() as u64, EHDR + 3 * PHDR);
        let word = |at: usize| u64::from_le_bytes(h[at..at + 8].try_into().unwrap());
        assert_eq!(h[56], 3);
        let load = |i: usize| (word(64 + i * 56 + 8), word(64 + i * 56 + 16), word(64 + i * 56 + 32), word(64 + i * 56 + 40));
        assert_eq!(load(0), (EHDR + 3 * PHDR, 0, 100, 0));
        assert_eq!(load(1), (0x1000, 0x1000, 0x4000, 0x4000));
        assert_eq!(load(2), (0x5000, 0x8000, 0x1000, 0x9000));
        assert_eq!(h[64 + 56 + 4], (e::PF_R | e::PF_X) as u8);
    }

    #[test]
    fn more_mappings_than_a_word_counts_stand_in_a_section_header() {
        let parts: Vec<Part> = (0..0xffff).map(|i| part(i * PAGE, 1, 0)).collect();
        let h = headers(&parts, 0).unwrap();
        assert_eq!(u16::from_le_bytes([h[56], h[57]]), PN_XNUM);
        let at = (EHDR + PHDR * 0x1_0000) as usize;
        assert_eq!(u32::from_le_bytes(h[at + 44..at + 48].try_into().unwrap()), 0x1_0000);
        assert_eq!(h.len() as u64, at as u64 + SHDR);
    }
}
