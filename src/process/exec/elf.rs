//! ELF files: from the bytes of the headers to a checked plan of what to map where.
//!
//! Pure parsing: no file, no memory is touched. Everything in a header is a claim of whoever made
//! the file; [`parse`] either gives a plan in which all numbers are in range or ENOEXEC, as
//! Linux's binfmt_elf does. Source: elf(5), the ELF-64 object file format, AAELF64.

use abi::{Errno, PAGE_MASK, Result, USER_END, page_align_up, raw::elf_uapi as e};
use arrayvec::ArrayVec;

/// Bytes of the ELF header.
pub const EHDR_SIZE: usize = 64;
/// Bytes of one program header.
pub const PHDR_SIZE: usize = 56;
/// More loadable segments than any linker makes.
pub const MAX_SEGMENTS: usize = 16;
/// Linux's own limit: the program headers must fit into 64 KiB.
pub const MAX_PHDRS: usize = 65536 / PHDR_SIZE;
/// Longest path of an interpreter (PATH_MAX).
const MAX_INTERP: u64 = 4096;

/// The fields of the ELF header that loading needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Position-independent (ET_DYN) or fixed (ET_EXEC).
    pub pie: bool,
    pub entry: u64,
    pub phoff: u64,
    pub phnum: u16,
}

/// One PT_LOAD segment, in page-aligned terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Start address, page-aligned (before any load bias).
    pub start: u64,
    /// Start address as the file says it.
    pub vaddr: u64,
    /// Offset in the file of `start`, page-aligned.
    pub offset: u64,
    /// End of what comes from the file (not aligned); equals `start` when nothing does.
    pub file_end: u64,
    /// End in memory (not aligned).
    pub mem_end: u64,
    pub read: bool,
    pub write: bool,
    pub execute: bool,
}

/// What to map, and what to tell the program.
#[derive(Clone, Debug)]
pub struct Plan {
    pub header: Header,
    pub segments: ArrayVec<Segment, MAX_SEGMENTS>,
    /// Address of the program headers in memory (AT_PHDR), before the bias.
    pub phdr: u64,
    /// File range of PT_INTERP's path, with its NUL.
    pub interp: Option<(u64, u64)>,
    /// PT_GNU_STACK asks for an executable stack.
    pub exec_stack: bool,
    /// File range of PT_GNU_PROPERTY's note.
    pub property: Option<(u64, u64)>,
    /// Page-aligned extent of all segments.
    pub low: u64,
    pub high: u64,
    /// Largest alignment that a segment asks for.
    pub align: u64,
}

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(b.get(at..at + 2)?.try_into().ok()?))
}
fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}
fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?))
}

/// Whether the file claims to be ELF at all.
fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}

/// Reads the ELF header. ENOEXEC unless it is a 64-bit little-endian AArch64 program.
pub fn header(head: &[u8]) -> Result<Header> {
    read_header(head).ok_or(Errno::ENOEXEC)
}

fn read_header(b: &[u8]) -> Option<Header> {
    let class64_lsb = b.get(4) == Some(&2) && b.get(5) == Some(&1);
    let kind = u16_at(b, 16)?;
    let machine = u16_at(b, 18)?;
    if !is_elf(b) || !class64_lsb || u32::from(machine) != EM_AARCH64 || usize::from(u16_at(b, 54)?) != PHDR_SIZE {
        return None;
    }
    let pie = match u32::from(kind) {
        k if k == e::ET_EXEC => false,
        k if k == e::ET_DYN => true,
        _ => return None,
    };
    let phnum = u16_at(b, 56)?;
    if phnum == 0 || usize::from(phnum) > MAX_PHDRS {
        return None;
    }
    Some(Header { pie, entry: u64_at(b, 24)?, phoff: u64_at(b, 32)?, phnum })
}

/// `e_machine` of AArch64 (AAELF64 5.1).
const EM_AARCH64: u32 = 183;

/// Reads the program headers (`table` holds `phnum` of them) into a plan.
pub fn parse(header: Header, table: &[u8]) -> Result<Plan> {
    let mut plan = Plan {
        header,
        segments: ArrayVec::new(),
        phdr: 0,
        interp: None,
        exec_stack: false,
        property: None,
        low: u64::MAX,
        high: 0,
        align: PAGE_MASK + 1,
    };
    for ph in table.chunks_exact(PHDR_SIZE).take(usize::from(header.phnum)) {
        entry(&mut plan, ph).ok_or(Errno::ENOEXEC)?;
    }
    if plan.segments.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    if plan.phdr == 0 {
        // Without PT_PHDR: where the segment that holds the file's headers puts them.
        plan.phdr = plan
            .segments
            .iter()
            .find(|s| s.offset <= header.phoff && header.phoff - s.offset < s.file_end - s.start)
            .map_or(0, |s| s.start + (header.phoff - s.offset));
    }
    Ok(plan)
}

fn entry(plan: &mut Plan, ph: &[u8]) -> Option<()> {
    let kind = u32_at(ph, 0)?;
    let flags = u32_at(ph, 4)?;
    let (offset, vaddr) = (u64_at(ph, 8)?, u64_at(ph, 16)?);
    let (filesz, memsz, align) = (u64_at(ph, 32)?, u64_at(ph, 40)?, u64_at(ph, 48)?);
    match kind {
        k if k == e::PT_LOAD => load(plan, flags, offset, vaddr, filesz, memsz, align),
        k if k == e::PT_INTERP && plan.interp.is_none() => {
            // The path and its NUL: at least two bytes (binfmt_elf's own check).
            if !(2..=MAX_INTERP).contains(&filesz) || offset.checked_add(filesz)? > i64::MAX as u64 {
                return None;
            }
            plan.interp = Some((offset, filesz));
            Some(())
        }
        k if k == e::PT_PHDR => {
            if vaddr >= USER_END {
                return None;
            }
            plan.phdr = vaddr;
            Some(())
        }
        k if k == e::PT_GNU_STACK => {
            plan.exec_stack = flags & e::PF_X != 0;
            Some(())
        }
        k if k == e::PT_GNU_PROPERTY => {
            plan.property = Some((offset, filesz));
            Some(())
        }
        _ => Some(()),
    }
}

fn load(plan: &mut Plan, flags: u32, offset: u64, vaddr: u64, filesz: u64, memsz: u64, align: u64) -> Option<()> {
    if memsz == 0 {
        return Some(());
    }
    // Address and file offset must agree within a page, or no mapping can satisfy both.
    if filesz > memsz || (vaddr ^ offset) & PAGE_MASK != 0 || offset.checked_add(filesz)? > i64::MAX as u64 {
        return None;
    }
    let mem_end = vaddr.checked_add(memsz)?;
    if mem_end > USER_END {
        return None;
    }
    let start = vaddr & !PAGE_MASK;
    // Segments ascend and do not share pages: what linkers make, and what lets each be mapped alone.
    if plan.segments.last().is_some_and(|last: &Segment| page_align_up(last.mem_end).is_none_or(|end| start < end)) {
        return None;
    }
    if align.is_power_of_two() && align <= 1 << 30 {
        plan.align = plan.align.max(align);
    }
    plan.segments
        .try_push(Segment {
            start,
            vaddr,
            offset: offset & !PAGE_MASK,
            file_end: if filesz == 0 { start } else { vaddr + filesz },
            mem_end,
            read: flags & e::PF_R != 0,
            write: flags & e::PF_W != 0,
            execute: flags & e::PF_X != 0,
        })
        .ok()?;
    plan.low = plan.low.min(start);
    plan.high = plan.high.max(page_align_up(mem_end)?);
    Some(())
}

/// Longest property note that is looked at.
pub const MAX_NOTE: u64 = 1024;
/// `n_type` of a note of properties, and the property of AArch64 with its bit for branch targets
/// (AAELF64, "program property").
const NT_GNU_PROPERTY_TYPE_0: u32 = 5;
const FEATURE_1_AND: u32 = 0xc000_0000;
const FEATURE_1_BTI: u32 = 1;

/// Whether a property note says that the code is marked for branch target identification. ENOEXEC
/// for a note that is none, or whose properties do not ascend.
pub fn marks_branch_targets(note: &[u8]) -> Result<bool> {
    read_properties(note).ok_or(Errno::ENOEXEC)
}

fn read_properties(note: &[u8]) -> Option<bool> {
    let size = u32_at(note, 4)? as usize;
    if u32_at(note, 0)? != 4 || u32_at(note, 8)? != NT_GNU_PROPERTY_TYPE_0 || note.get(12..16)? != b"GNU\0" {
        return None;
    }
    let mut rest = note.get(16..)?.get(..size)?;
    let (mut before, mut marked) = (None, false);
    while !rest.is_empty() {
        let (kind, len) = (u32_at(rest, 0)?, u32_at(rest, 4)? as usize);
        let data = rest.get(8..)?.get(..len)?;
        if before.is_some_and(|b| kind <= b) {
            return None;
        }
        before = Some(kind);
        if kind == FEATURE_1_AND {
            marked = u32::from_le_bytes(data.try_into().ok()?) & FEATURE_1_BTI != 0;
        }
        rest = rest.get(8 + len.checked_next_multiple_of(8)?..)?;
    }
    Some(marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A note with these properties.
    fn note(properties: &[(u32, &[u8])]) -> Vec<u8> {
        let mut data = Vec::new();
        for (kind, bytes) in properties {
            data.extend(kind.to_le_bytes());
            data.extend((bytes.len() as u32).to_le_bytes());
            data.extend(*bytes);
            data.resize(data.len().next_multiple_of(8), 0);
        }
        let mut out = Vec::new();
        for word in [4, data.len() as u32, 5] {
            out.extend(word.to_le_bytes());
        }
        out.extend(b"GNU\0");
        out.extend(data);
        out
    }

    #[test]
    fn the_property_note_says_whether_branch_targets_are_marked() {
        assert_eq!(marks_branch_targets(&note(&[(0xc000_0000, &[1, 0, 0, 0])])), Ok(true));
        assert_eq!(marks_branch_targets(&note(&[(0xc000_0000, &[2, 0, 0, 0])])), Ok(false));
        assert_eq!(marks_branch_targets(&note(&[(1, &[0; 8]), (0xc000_0000, &[3, 0, 0, 0])])), Ok(true));
        assert_eq!(marks_branch_targets(&note(&[])), Ok(false));
        let good = note(&[(0xc000_0000, &[1, 0, 0, 0])]);
        for bad in [
            &good[..20],                                               // cut
            &note(&[(0xc000_0000, &[1, 0, 0, 0]), (1, &[0; 8])]),      // not in order
            &note(&[(0xc000_0000, &[1, 0])]),                          // of the wrong size
            &[&4u32.to_le_bytes()[..], &good[4..12], b"gnu\0"].concat(), // of someone else
            &[],
        ] {
            assert_eq!(marks_branch_targets(bad), Err(Errno::ENOEXEC));
        }
    }

    fn ph(kind: u32, flags: u32, offset: u64, vaddr: u64, filesz: u64, memsz: u64) -> Vec<u8> {
        let mut b = Vec::new();
        b.extend(kind.to_le_bytes());
        b.extend(flags.to_le_bytes());
        for v in [offset, vaddr, vaddr, filesz, memsz, 0x10000u64] {
            b.extend(v.to_le_bytes());
        }
        b
    }

    fn ehdr(kind: u16, machine: u16, phnum: u16) -> Vec<u8> {
        let mut b = vec![0u8; EHDR_SIZE];
        b[..6].copy_from_slice(b"\x7fELF\x02\x01");
        b[16..18].copy_from_slice(&kind.to_le_bytes());
        b[18..20].copy_from_slice(&machine.to_le_bytes());
        b[24..32].copy_from_slice(&0x400100u64.to_le_bytes());
        b[32..40].copy_from_slice(&64u64.to_le_bytes());
        b[54..56].copy_from_slice(&56u16.to_le_bytes());
        b[56..58].copy_from_slice(&phnum.to_le_bytes());
        b
    }

    #[test]
    fn a_static_program_gives_its_segments_and_header_address() {
        let h = header(&ehdr(2, 183, 2)).unwrap();
        let mut t = ph(1, 5, 0, 0x400000, 0x1234, 0x1234);
        t.extend(ph(1, 6, 0x1240, 0x411240, 0x100, 0x900));
        let plan = parse(h, &t).unwrap();
        assert_eq!(plan.phdr, 0x400040);
        assert_eq!(plan.segments[1].start, 0x411000);
        assert_eq!(plan.segments[1].file_end, 0x411340);
        assert_eq!((plan.low, plan.high), (0x400000, 0x412000));
    }

    #[test]
    fn other_machines_and_kinds_are_enoexec() {
        assert_eq!(header(&ehdr(2, 62, 1)), Err(Errno::ENOEXEC));
        assert_eq!(header(&ehdr(1, 183, 1)), Err(Errno::ENOEXEC));
        assert_eq!(header(&ehdr(2, 183, 0)), Err(Errno::ENOEXEC));
        assert_eq!(header(&ehdr(2, 183, 1)[..40]), Err(Errno::ENOEXEC));
        assert_eq!(header(b"#!/bin/sh"), Err(Errno::ENOEXEC));
    }

    #[test]
    fn claims_out_of_range_are_enoexec() {
        let h = header(&ehdr(2, 183, 1)).unwrap();
        for bad in [
            ph(1, 5, 0, 0x400000, 0x2000, 0x1000),              // file larger than memory
            ph(1, 5, 0x10, 0x400000, 0x10, 0x10),               // offset and address disagree
            ph(1, 5, 0, u64::MAX - 0xfff, 0x10, 0x2000),        // wraps
            ph(1, 5, 0, USER_END - 0x1000, 0x10, 0x2000),       // beyond user space
            ph(1, 5, u64::MAX - 0xfff, 0x400000, 0x1000, 0x1000), // file offset wraps
            ph(3, 4, 0, 0, 1, 1),                               // interpreter without a path
            ph(4, 4, 0, 0x400000, 1, 1),                        // nothing to load
        ] {
            assert_eq!(parse(h, &bad).map(|_| ()), Err(Errno::ENOEXEC));
        }
    }

    #[test]
    fn overlapping_segments_are_enoexec() {
        let h = header(&ehdr(3, 183, 2)).unwrap();
        let mut t = ph(1, 5, 0, 0, 0x1800, 0x1800);
        t.extend(ph(1, 6, 0x1000, 0x1000, 0x10, 0x10));
        assert!(parse(h, &t).is_err());
    }
}
