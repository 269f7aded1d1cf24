//! The notes of a core: registers of each thread, and what debuggers want to know of the process
//! (elf(5), "Notes"; the layouts are those of Linux's `elfcore.h` for arm64).

use super::Snapshot;
use crate::{signal::SigInfo, task::Task};
use abi::{Nanos, PAGE_SIZE, Result, raw::elf_uapi as e};
use kalloc::KBytes;
use mm::{AddressSpace, AreaInfo};
use vfs::pseudo::SeqBuf;

/// `struct elf_prstatus` and `struct elf_prpsinfo`.
const PRSTATUS_SIZE: usize = 392;
const PRPSINFO_SIZE: usize = 136;
/// `n_type` of the notes that linux-raw-sys leaves out for other machines.
const NT_SIGINFO: u32 = 0x5349_4749;
const NT_FILE: u32 = 0x4649_4c45;
const NT_ARM_TLS: u32 = 0x401;
const NT_ARM_SYSTEM_CALL: u32 = 0x404;

/// All notes: the thread that took the signal first, then the process, then the other threads.
pub(super) fn all(task: &Task, mm: &AddressSpace, info: &SigInfo, first: &Snapshot, others: &[Snapshot]) -> Result<KBytes> {
    let mut out = KBytes::new();
    let ids = Ids::of(task);
    prstatus(&mut out, task, &ids, first, Some(info))?;
    note(&mut out, b"CORE", e::NT_PRPSINFO, &prpsinfo(task, mm, &ids)?)?;
    note(&mut out, b"CORE", NT_SIGINFO, &info.encode())?;
    let mut auxv = SeqBuf::new();
    crate::proc::auxv(mm, &mut auxv)?;
    note(&mut out, b"CORE", e::NT_AUXV, auxv.as_bytes())?;
    note(&mut out, b"CORE", NT_FILE, &files(mm)?)?;
    registers(&mut out, first)?;
    for thread in others {
        prstatus(&mut out, task, &ids, thread, None)?;
        registers(&mut out, thread)?;
    }
    Ok(out)
}

/// Adds a note, padded to words.
fn note(out: &mut KBytes, owner: &[u8], kind: u32, data: &[u8]) -> Result {
    for word in [owner.len() as u32 + 1, data.len() as u32, kind] {
        out.try_extend_from_slice(&word.to_le_bytes())?;
    }
    out.try_extend_from_slice(owner)?;
    out.try_push(0)?;
    out.try_resize(out.len().next_multiple_of(4), 0)?;
    out.try_extend_from_slice(data)?;
    Ok(out.try_resize(out.len().next_multiple_of(4), 0)?)
}

/// A structure that is filled field by field.
struct Fields<const N: usize>([u8; N]);

impl<const N: usize> Fields<N> {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(to) = self.0.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }
    fn u32(&mut self, at: usize, v: u32) {
        self.put(at, &v.to_le_bytes());
    }
    fn u64(&mut self, at: usize, v: u64) {
        self.put(at, &v.to_le_bytes());
    }
    fn time(&mut self, at: usize, t: Nanos) {
        self.u64(at, t.secs());
        self.u64(at + 8, t.subsec() / 1000);
    }
}

struct Ids {
    pid: u32,
    parent: u32,
    group: u32,
    session: u32,
}

impl Ids {
    fn of(task: &Task) -> Self {
        let p = &task.process;
        Self { pid: p.id(), parent: p.parent_id(), group: p.pgrp_id(), session: p.session_id() }
    }
    fn put<const N: usize>(&self, out: &mut Fields<N>, at: usize, id: u32) {
        for (i, n) in [id, self.parent, self.group, self.session].into_iter().enumerate() {
            out.u32(at + i * 4, n);
        }
    }
}

fn prstatus(out: &mut KBytes, task: &Task, ids: &Ids, t: &Snapshot, info: Option<&SigInfo>) -> Result {
    let mut f = Fields([0; PRSTATUS_SIZE]);
    if let Some(info) = info {
        f.u32(0, info.signal.number());
        f.u32(4, info.code() as u32);
        f.put(12, &(info.signal.number() as u16).to_le_bytes());
    }
    f.u64(16, t.pending.0);
    f.u64(24, t.blocked.0);
    ids.put(&mut f, 32, t.tid);
    let (user, system) = task.process.cpu_times();
    f.time(48, user);
    f.time(64, system);
    for (i, x) in t.regs.x.iter().chain(&[t.regs.sp, t.regs.pc, t.regs.pstate]).enumerate() {
        f.u64(112 + i * 8, *x);
    }
    f.u32(384, 1);
    note(out, b"CORE", e::NT_PRSTATUS, &f.0)
}

fn prpsinfo(task: &Task, mm: &AddressSpace, ids: &Ids) -> Result<[u8; PRPSINFO_SIZE]> {
    let mut f = Fields([0; PRPSINFO_SIZE]);
    // Running: state 0, shown as R.
    f.put(1, b"R");
    let thread = sched::current();
    f.put(3, &[thread.nice() as u8]);
    let (uid, gid) = task.with_cred(|c| (c.uid, c.gid))?;
    f.u32(16, uid);
    f.u32(20, gid);
    ids.put(&mut f, 24, ids.pid);
    f.put(40, &thread.name());
    let l = mm.layout();
    let mut words = [0u8; 79];
    let len = (l.arg_end.0.saturating_sub(l.arg_start.0) as usize).min(words.len());
    if let Some(part) = words.get_mut(..len) {
        let _ = mm.read_remote(l.arg_start, part);
        // The words of the command line with blanks between them.
        for b in part.iter_mut().filter(|b| **b == 0) {
            *b = b' ';
        }
        f.put(56, part);
    }
    Ok(f.0)
}

/// The registers that are not in the status: floating point, thread pointer, system call.
fn registers(out: &mut KBytes, t: &Snapshot) -> Result {
    let mut f = Fields([0; 528]);
    for (i, v) in t.fp.v.iter().enumerate() {
        f.put(i * 16, &v.to_le_bytes());
    }
    f.u32(512, t.fp.fpsr);
    f.u32(516, t.fp.fpcr);
    note(out, b"CORE", e::NT_PRFPREG, &f.0)?;
    note(out, b"LINUX", NT_ARM_TLS, &t.tls.to_le_bytes())?;
    note(out, b"LINUX", NT_ARM_SYSTEM_CALL, &(t.regs.syscallno as u32).to_le_bytes())
}

/// Which file is mapped where: count, page size, ranges with their offset in pages, names.
fn files(mm: &AddressSpace) -> Result<KBytes> {
    let (mut count, mut ranges, mut names) = (0u64, KBytes::new(), SeqBuf::new());
    mm.for_each_area(|a: &AreaInfo| {
        let Some(file) = a.file().filter(|f| f.identity().1 != 0) else { return Ok(()) };
        count += 1;
        for word in [a.start, a.end, a.index] {
            ranges.try_extend_from_slice(&word.to_le_bytes())?;
        }
        file.describe(&mut names).map_err(vfs::pseudo::no_memory)?;
        names.push(b"\0")
    })?;
    let mut out = KBytes::new();
    out.try_extend_from_slice(&count.to_le_bytes())?;
    out.try_extend_from_slice(&(PAGE_SIZE as u64).to_le_bytes())?;
    out.try_extend_from_slice(&ranges)?;
    out.try_extend_from_slice(names.as_bytes())?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_padded_to_words() {
        let mut out = KBytes::new();
        note(&mut out, b"CORE", 7, b"abcde").unwrap();
        assert_eq!(out.len(), 12 + 8 + 8);
        assert_eq!(&out[..12], [5, 0, 0, 0, 5, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(&out[12..], b"CORE\0\0\0\0abcde\0\0\0");
        let mut out = KBytes::new();
        note(&mut out, b"LINUX", 1, b"").unwrap();
        assert_eq!(&out[12..], b"LINUX\0\0\0");
    }
}
