//! The new address space of a program: segments, interpreter, stack.

use super::{args::Arguments, elf, trampoline};
use crate::task::{Memory, Task};
use abi::{Errno, PAGE_MASK, PAGE_SIZE, Result, USER_END, UserAddr, page_align_up, raw::auxvec as at};
use arrayvec::ArrayVec;
use kalloc::{KArc, KVec};
use mm::{AddressSpace, Backing, Fixed, Layout, MapFlags, MapRequest, Prot};
use vfs::OpenFile;

/// A program that is ready to run in an address space of its own.
pub(super) struct Image {
    pub memory: KArc<Memory>,
    pub entry: u64,
    pub stack: u64,
    pub sigreturn: u64,
}

/// Where position-independent programs start to be placed: two thirds of the user half.
const PIE_BASE: u64 = USER_END / 3 * 2;
/// Bits of randomness, in pages, of the mmap base and of PIE programs (vm.mmap_rnd_bits).
const RANDOM_PAGES: u64 = 1 << 18;
/// Random part of the stack's top.
const STACK_RANDOM: u64 = 1 << 30;
/// Random part of the heap's start.
const BRK_RANDOM: u64 = 1 << 25;
/// The least room below the stack, whatever its limit.
const MIN_STACK_GAP: u64 = 128 << 20;
/// Stack that is mapped at the start; the rest grows by faults.
const INITIAL_STACK: u64 = 128 << 10;

/// A random number below `n`.
fn random_below(n: u64) -> u64 {
    vfs::random::next_u64() % n
}

/// Builds the whole space. Nothing of the caller changes.
pub(super) fn build(
    task: &Task,
    file: &KArc<OpenFile>,
    head: &[u8],
    arguments: &Arguments,
    filename: &[u8],
    new: &super::NewCredentials,
) -> Result<Image> {
    let plan = read_plan(file, head)?;
    let interpreter = match plan.interp {
        None => None,
        Some(range) => {
            let path = read_interpreter_path(file, range)?;
            let f = super::open_exec(task, &path)?;
            let mut head = [0u8; elf::EHDR_SIZE];
            super::read(&f.file, &mut head, 0)?;
            let p = read_plan(&f.file, &head).map_err(|_| Errno::ELIBBAD)?;
            Some((f, p))
        }
    };

    let limits = crate::limits::for_memory(&task.process);
    let mm = AddressSpace::new()?;
    let memory = KArc::try_new(Memory { space: mm.clone() })?;
    let mut image = Image { memory, entry: 0, stack: 0, sigreturn: 0 };
    let stack_top = (USER_END - PAGE_SIZE as u64 - random_below(STACK_RANDOM)) & !PAGE_MASK;
    let gap = limits.stack.clamp(MIN_STACK_GAP, USER_END / 6 * 5) + (1 << 20);
    let mmap_base = (stack_top - gap.min(stack_top / 2) - random_below(RANDOM_PAGES) * PAGE_SIZE as u64) & !PAGE_MASK;
    let mut layout = Layout { mmap_base: UserAddr(mmap_base), ..Layout::default() };
    mm.set_layout(layout);

    let bias = if plan.header.pie {
        // A program without interpreter is one itself: it is placed like a library.
        let base = if interpreter.is_some() {
            (PIE_BASE & !PAGE_MASK) + random_below(RANDOM_PAGES) * PAGE_SIZE as u64
        } else {
            mmap_base.saturating_sub(plan.high - plan.low)
        };
        (base & !(plan.align - 1)).checked_sub(plan.low).ok_or(Errno::ENOMEM)?
    } else {
        0
    };
    map_segments(&mm, file, &plan, bias)?;
    let mut interpreter_bias = 0;
    image.entry = plan.header.entry.wrapping_add(bias);
    if let Some((f, p)) = &interpreter {
        let base = if p.header.pie {
            let size = p.high - p.low;
            mmap_base.checked_sub(size).ok_or(Errno::ENOMEM)? & !(p.align - 1)
        } else {
            p.low
        };
        interpreter_bias = base.wrapping_sub(p.low);
        map_segments(&mm, &f.file, p, interpreter_bias)?;
        image.entry = p.header.entry.wrapping_add(interpreter_bias);
    }
    if image.entry >= USER_END {
        return Err(Errno::ENOEXEC);
    }

    fill_layout(&mut layout, &plan, bias);
    // A program that was placed like a library would have its heap run into the next mapping.
    let after = if plan.header.pie && interpreter.is_none() { PIE_BASE & !PAGE_MASK } else { plan.high + bias };
    let start_brk = page_align_up(after + random_below(BRK_RANDOM)).ok_or(Errno::ENOMEM)?;
    layout.start_brk = UserAddr(start_brk);

    let prot = if plan.exec_stack { Prot::RW | Prot::X } else { Prot::RW };
    let stack_size = page_align_up(INITIAL_STACK + stack_bytes(arguments, filename) as u64).ok_or(Errno::E2BIG)?;
    mm.map(MapRequest {
        addr: Some(UserAddr(stack_top - stack_size)),
        fixed: Fixed::NoReplace,
        len: stack_size,
        prot,
        flags: MapFlags::STACK | MapFlags::GROWSDOWN,
        backing: Backing::Anonymous,
        limits,
    })?;
    image.sigreturn = trampoline::map(&mm)?;
    let aux = Auxiliary { plan: &plan, bias, interpreter_bias, new };
    image.stack = write_stack(&mm, &mut layout, stack_top, arguments, filename, &aux)?;
    layout.start_stack = UserAddr(image.stack);
    mm.set_layout(layout);
    mm.set_brk(UserAddr(start_brk));
    Ok(image)
}

fn read_plan(file: &OpenFile, head: &[u8]) -> Result<elf::Plan> {
    let header = elf::header(head)?;
    let len = usize::from(header.phnum) * elf::PHDR_SIZE;
    let mut table = KVec::try_from_elem(0u8, len)?;
    if super::read(file, &mut table, header.phoff)? != len {
        return Err(Errno::ENOEXEC);
    }
    elf::parse(header, &table)
}

fn read_interpreter_path(file: &OpenFile, (offset, len): (u64, u64)) -> Result<KVec<u8>> {
    let mut path = KVec::try_from_elem(0u8, len as usize)?;
    if super::read(file, &mut path, offset)? != path.len() {
        return Err(Errno::ENOEXEC);
    }
    // The path ends with its NUL, and holds none before.
    match path.pop() {
        Some(0) if !path.contains(&0) => Ok(path),
        _ => Err(Errno::ENOEXEC),
    }
}

fn map_segments(mm: &KArc<AddressSpace>, file: &KArc<OpenFile>, plan: &elf::Plan, bias: u64) -> Result {
    let mapped = file.ops.mmap(file)?;
    for s in &plan.segments {
        let mut prot = Prot::empty();
        prot.set(Prot::R, s.read);
        prot.set(Prot::W, s.write);
        prot.set(Prot::X, s.execute);
        let start = s.start.wrapping_add(bias);
        let file_end = s.file_end.wrapping_add(bias);
        let mem_end = page_align_up(s.mem_end.wrapping_add(bias)).ok_or(Errno::ENOMEM)?;
        let file_pages = page_align_up(file_end).ok_or(Errno::ENOMEM)?;
        if file_pages > start {
            mm.map(MapRequest {
                addr: Some(UserAddr(start)),
                fixed: Fixed::NoReplace,
                len: file_pages - start,
                prot,
                backing: Backing::File { file: mapped.clone(), offset: s.offset },
                ..MapRequest::default()
            })
            .map_err(taken)?;
            // Memory behind the file's part is zero, also in the page that they share.
            if s.write && s.mem_end > s.file_end && file_end < file_pages {
                zero(mm, file_end, file_pages - file_end)?;
            }
        }
        if mem_end > file_pages {
            mm.map(MapRequest {
                addr: Some(UserAddr(file_pages)),
                fixed: Fixed::NoReplace,
                len: mem_end - file_pages,
                prot,
                ..MapRequest::default()
            })
            .map_err(taken)?;
        }
    }
    Ok(())
}

/// Zeroes less than a page of the new space.
fn zero(mm: &AddressSpace, at: u64, len: u64) -> Result {
    const ZEROS: [u8; 512] = [0; 512];
    let mut done = 0;
    while done < len {
        let n = (len - done).min(ZEROS.len() as u64);
        put(mm, at + done, ZEROS.get(..n as usize).unwrap_or(&ZEROS))?;
        done += n;
    }
    Ok(())
}

/// Segments that collide with each other are a bad file.
fn taken(e: Errno) -> Errno {
    if e == Errno::EEXIST { Errno::ENOEXEC } else { e }
}

fn fill_layout(layout: &mut Layout, plan: &elf::Plan, bias: u64) {
    let text = plan.segments.iter().filter(|s| s.execute);
    let start_code = text.clone().map(|s| s.start).min().unwrap_or(plan.low);
    let end_code = text.map(|s| s.file_end).max().unwrap_or(plan.low);
    let data = plan.segments.iter().filter(|s| s.write);
    layout.start_code = UserAddr(start_code.wrapping_add(bias));
    layout.end_code = UserAddr(end_code.wrapping_add(bias));
    layout.start_data = UserAddr(data.clone().map(|s| s.start).min().unwrap_or(plan.low).wrapping_add(bias));
    layout.end_data = UserAddr(data.map(|s| s.file_end).max().unwrap_or(plan.low).wrapping_add(bias));
}

const PLATFORM: &[u8] = b"aarch64\0";
/// Most entries that [`write_stack`] makes.
const MAX_AUX: usize = 24;

fn stack_bytes(a: &Arguments, filename: &[u8]) -> usize {
    let pointers = (a.args.len() + a.env.len() + 3) * 8;
    a.args.bytes().len() + a.env.bytes().len() + filename.len() + pointers + MAX_AUX * 16 + 128
}

struct Auxiliary<'a> {
    plan: &'a elf::Plan,
    bias: u64,
    interpreter_bias: u64,
    new: &'a super::NewCredentials,
}

/// Writes all of it, or fails.
fn put(mm: &AddressSpace, at: u64, bytes: &[u8]) -> Result {
    if mm.write_remote(UserAddr(at), bytes)? == bytes.len() { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Lays out the initial stack (AAPCS64 and the System V ABI, "process initialization"): from the
/// top the file's name, environment, arguments, platform and random bytes, then the vectors.
fn write_stack(mm: &KArc<AddressSpace>, layout: &mut Layout, top: u64, a: &Arguments, filename: &[u8], aux: &Auxiliary<'_>) -> Result<u64> {
    let mut sp = top - 8;
    let mut push = |bytes: &[u8]| -> Result<u64> {
        sp -= bytes.len() as u64;
        put(mm, sp, bytes)?;
        Ok(sp)
    };
    push(&[0])?;
    let execfn = push(filename)?;
    let env = push(a.env.bytes())?;
    let args = push(a.args.bytes())?;
    let platform = push(PLATFORM)?;
    let mut random = [0u8; 16];
    vfs::random::fill(&mut random);
    let random = push(&random)?;
    layout.arg_start = UserAddr(args);
    layout.arg_end = UserAddr(args + a.args.bytes().len() as u64);
    layout.env_start = UserAddr(env);
    layout.env_end = UserAddr(env + a.env.bytes().len() as u64);

    let h = &aux.plan.header;
    let c = &aux.new.cred;
    let mut v: ArrayVec<[u64; 2], MAX_AUX> = ArrayVec::new();
    let mut aux_entry = |kind: u32, value: u64| v.try_push([u64::from(kind), value]).map_err(|_| Errno::E2BIG);
    aux_entry(at::AT_HWCAP, arch::features::hwcap())?;
    aux_entry(at::AT_PAGESZ, PAGE_SIZE as u64)?;
    aux_entry(at::AT_CLKTCK, crate::signal::USER_HZ)?;
    aux_entry(at::AT_PHDR, aux.plan.phdr.wrapping_add(aux.bias))?;
    aux_entry(at::AT_PHENT, elf::PHDR_SIZE as u64)?;
    aux_entry(at::AT_PHNUM, u64::from(h.phnum))?;
    aux_entry(at::AT_BASE, aux.interpreter_bias)?;
    aux_entry(at::AT_FLAGS, 0)?;
    aux_entry(at::AT_ENTRY, h.entry.wrapping_add(aux.bias))?;
    aux_entry(at::AT_UID, c.uid.into())?;
    aux_entry(at::AT_EUID, c.euid.into())?;
    aux_entry(at::AT_GID, c.gid.into())?;
    aux_entry(at::AT_EGID, c.egid.into())?;
    aux_entry(at::AT_SECURE, aux.new.secure.into())?;
    aux_entry(at::AT_RANDOM, random)?;
    aux_entry(at::AT_HWCAP2, arch::features::hwcap2())?;
    aux_entry(at::AT_MINSIGSTKSZ, crate::signal::MIN_STACK)?;
    aux_entry(at::AT_EXECFN, execfn)?;
    aux_entry(at::AT_PLATFORM, platform)?;
    aux_entry(at::AT_NULL, 0)?;

    let words = 1 + a.args.len() + 1 + a.env.len() + 1 + v.len() * 2;
    let base = (random & !15).checked_sub(words as u64 * 8).ok_or(Errno::E2BIG)? & !15;
    let mut table = KVec::<u8>::try_with_capacity(words * 8)?;
    let mut word = |w: u64| table.try_extend_from_slice(&w.to_le_bytes());
    word(a.args.len() as u64)?;
    for s in a.args.starts() {
        word(args + s as u64)?;
    }
    word(0)?;
    for s in a.env.starts() {
        word(env + s as u64)?;
    }
    word(0)?;
    for [kind, value] in &v {
        word(*kind)?;
        word(*value)?;
    }
    put(mm, base, &table)?;
    Ok(base)
}
