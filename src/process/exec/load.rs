//! The new address space of a program: segments, interpreter, stack.

use super::{
    args::Arguments,
    elf,
    formats::{Binary, Format, Loaded},
    layout::{self, PIE_BASE, Places},
    vdso,
};
use crate::task::{Memory, Task};
use abi::{Errno, PAGE_MASK, PAGE_SIZE, Result, USER_END, UserAddr, page_align_up, raw::auxvec as at};
use arch::features::{Feature, has};
use arrayvec::ArrayVec;
use kalloc::{KArc, KVec};
use mm::{AddressSpace, Backing, Fixed, Layout, MapFlags, MapRequest, Prot};
use vfs::{Cap, MAY_READ, OpenFile, permission};

/// A program that is ready to run in an address space of its own.
pub(super) struct Image {
    pub memory: KArc<Memory>,
    pub entry: u64,
    pub stack: u64,
    pub vdso: u64,
    /// Where the stack says which descriptor the interpreter finds its file at (AT_EXECFD).
    pub execfd_at: Option<u64>,
    /// The caller may read the interpreter.
    pub readable: bool,
}

/// ELF programs.
pub(super) struct Elf;

impl Format for Elf {
    fn load(&self, task: &Task, binary: &mut Binary) -> Result<Loaded> {
        // Before anything else, so that files of other formats cost no more than a look.
        elf::header(binary.head())?;
        let cred = super::credentials_for(task, binary)?;
        let image = build(task, binary, &cred)?;
        Ok(Loaded::Ready(image, cred))
    }
}

/// Builds the whole space. Nothing of the caller changes.
fn build(task: &Task, binary: &Binary, new: &super::NewCredentials) -> Result<Image> {
    let file = &binary.file.file;
    let plan = read_plan(file, binary.head())?;
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
    // The interpreter's property, and its code alone: it takes care of what it loads itself.
    let (marked_file, marked_plan) = interpreter.as_ref().map_or((file, &plan), |(f, p)| (&f.file, p));
    let guarded = branch_targets_marked(marked_file, marked_plan)?;

    let limits = crate::limits::for_memory(&task.process);
    let mm = AddressSpace::new()?;
    let memory = KArc::try_new(Memory::new(mm.clone()))?;
    let mut image = Image { memory, entry: 0, stack: 0, vdso: 0, execfd_at: None, readable: true };
    // A program with other rights than its caller's is not placed by its caller's limit alone.
    let stack_limit = if new.secure { limits.stack.min(layout::USUAL_STACK) } else { limits.stack };
    let places = Places::choose(new.personality, stack_limit);
    let mut layout =
        Layout { mmap_base: UserAddr(places.mmap_base), bottom_up: places.bottom_up, ..Layout::default() };
    mm.set_layout(layout);

    let bias = if !plan.header.pie {
        0
    } else if interpreter.is_some() {
        (places.pie_base & !(plan.align - 1)).checked_sub(plan.low).ok_or(Errno::ENOMEM)?
    } else {
        // A program without interpreter is one itself: it is placed like a library.
        place_library(&mm, &plan)?.wrapping_sub(plan.low)
    };
    map_segments(&mm, file, &plan, bias, guarded && interpreter.is_none())?;
    if let Some((f, _)) = &interpreter {
        image.readable = permission::check(&f.file.inode, MAY_READ, &*task.cred()?).is_ok();
    }
    let mut interpreter_bias = 0;
    image.entry = plan.header.entry.wrapping_add(bias);
    if let Some((f, p)) = &interpreter {
        let base = if p.header.pie { place_library(&mm, p)? } else { p.low };
        interpreter_bias = base.wrapping_sub(p.low);
        map_segments(&mm, &f.file, p, interpreter_bias, guarded)?;
        image.entry = p.header.entry.wrapping_add(interpreter_bias);
    }
    if image.entry >= USER_END {
        return Err(Errno::ENOEXEC);
    }

    fill_layout(&mut layout, &plan, bias);
    // A program that was placed like a library would have its heap run into the next mapping.
    let loader = plan.header.pie && interpreter.is_none();
    let after = if loader && places.random_heap { PIE_BASE & !PAGE_MASK } else { plan.high.wrapping_add(bias) };
    let start_brk = places.heap_behind(after).ok_or(Errno::ENOMEM)?;
    layout.start_brk = UserAddr(start_brk);

    let prot = if plan.exec_stack { Prot::RW | Prot::X } else { Prot::RW };
    let used = stack_bytes(&binary.arguments, &binary.filename) as u64;
    let stack_size = layout::first_stack(used, limits.stack).ok_or(Errno::E2BIG)?;
    mm.map(MapRequest {
        addr: Some(UserAddr(places.stack_top - stack_size)),
        fixed: Fixed::NoReplace,
        len: stack_size,
        prot,
        flags: MapFlags::STACK | MapFlags::GROWSDOWN,
        backing: Backing::Anonymous,
        limits,
    })?;
    if places.page_zero && new.cred.capable(Cap::SYS_RAWIO) {
        // For programs of other systems that read through null pointers; no page, no failure.
        let _ = mm.map(MapRequest {
            addr: Some(UserAddr(0)),
            fixed: Fixed::Replace,
            len: PAGE_SIZE as u64,
            prot: Prot::RX,
            ..MapRequest::default()
        });
    }
    image.vdso = vdso::map(&mm)?;
    let aux = Auxiliary { vdso: image.vdso, binary, plan: &plan, bias, interpreter_bias, new, places: &places };
    (image.stack, image.execfd_at) = write_stack(&mm, &mut layout, &aux)?;
    layout.start_stack = UserAddr(image.stack);
    mm.set_layout(layout);
    mm.set_brk(UserAddr(start_brk));
    Ok(image)
}

/// A hole of the size of all segments, where `mmap` would put it.
fn place_library(mm: &AddressSpace, plan: &elf::Plan) -> Result<u64> {
    // Room to align in.
    let size = (plan.high - plan.low).checked_add(plan.align - PAGE_SIZE as u64).ok_or(Errno::ENOMEM)?;
    let at = mm.find_hole(size).ok_or(Errno::ENOMEM)?;
    Ok(if mm.layout().bottom_up {
        at.0.checked_next_multiple_of(plan.align).ok_or(Errno::ENOMEM)?
    } else {
        (at.0 + (plan.align - PAGE_SIZE as u64)) & !(plan.align - 1)
    })
}

/// Whether code is to be guarded: the CPU can, and the file's property note asks for it.
fn branch_targets_marked(file: &OpenFile, plan: &elf::Plan) -> Result<bool> {
    let Some((offset, len)) = plan.property else { return Ok(false) };
    if len > elf::MAX_NOTE {
        return Err(Errno::ENOEXEC);
    }
    let mut note = [0u8; elf::MAX_NOTE as usize];
    let note = note.get_mut(..len as usize).ok_or(Errno::ENOEXEC)?;
    if i64::try_from(offset).is_err() || super::read(file, note, offset)? != note.len() {
        return Err(Errno::EIO);
    }
    Ok(elf::marks_branch_targets(note)? && has(Feature::Bti))
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

fn map_segments(mm: &KArc<AddressSpace>, file: &KArc<OpenFile>, plan: &elf::Plan, bias: u64, guarded: bool) -> Result {
    let mapped = file.ops.mmap(file)?;
    for s in &plan.segments {
        let mut prot = Prot::empty();
        prot.set(Prot::R, s.read);
        prot.set(Prot::W, s.write);
        prot.set(Prot::X, s.execute);
        prot.set(Prot::BTI, s.execute && guarded);
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
    layout.start_code = UserAddr(start_code.wrapping_add(bias));
    layout.end_code = UserAddr(end_code.wrapping_add(bias));
    // Of the data Linux tells the start of the last segment, and the end of what files hold.
    let start_data = plan.segments.iter().map(|s| s.vaddr).max().unwrap_or(plan.low);
    let end_data = plan.segments.iter().map(|s| s.file_end).max().unwrap_or(plan.low);
    layout.start_data = UserAddr(start_data.wrapping_add(bias));
    layout.end_data = UserAddr(end_data.wrapping_add(bias));
}

/// AT_FLAGS: argv[0] is the original one, not the file's name (AT_FLAGS_PRESERVE_ARGV0).
const PRESERVED_ARGV0: u64 = 1;
/// Where the vDSO's ELF header is.
const AT_SYSINFO_EHDR: u32 = 33;
const PLATFORM: &[u8] = b"aarch64\0";
/// Most entries that [`write_stack`] makes.
const MAX_AUX: usize = 24;

fn stack_bytes(a: &Arguments, filename: &[u8]) -> usize {
    let pointers = (a.args.len() + a.env.len() + 3) * 8;
    a.args.bytes().len() + a.env.bytes().len() + filename.len() + pointers + MAX_AUX * 16 + 128 + layout::STACK_SHIFT as usize
}

struct Auxiliary<'a> {
    vdso: u64,
    binary: &'a Binary,
    plan: &'a elf::Plan,
    bias: u64,
    interpreter_bias: u64,
    new: &'a super::NewCredentials,
    places: &'a Places,
}

/// Writes all of it, or fails.
fn put(mm: &AddressSpace, at: u64, bytes: &[u8]) -> Result {
    if mm.write_remote(UserAddr(at), bytes)? == bytes.len() { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Lays out the initial stack (AAPCS64 and the System V ABI, "process initialization"): from the
/// top the file's name, environment, arguments, platform and random bytes, then the vectors.
/// Returns the stack pointer, and where the value of AT_EXECFD stands.
fn write_stack(mm: &KArc<AddressSpace>, layout: &mut Layout, aux: &Auxiliary<'_>) -> Result<(u64, Option<u64>)> {
    let (a, filename) = (&aux.binary.arguments, &aux.binary.filename);
    let mut sp = aux.places.stack_top - 8;
    let mut push = |bytes: &[u8]| -> Result<u64> {
        sp -= bytes.len() as u64;
        put(mm, sp, bytes)?;
        Ok(sp)
    };
    push(&[0])?;
    let execfn = push(filename)?;
    let env = push(a.env.bytes())?;
    let args = push(a.args.bytes())?;
    sp = (sp & !15) - aux.places.stack_shift;
    let mut push = |bytes: &[u8]| -> Result<u64> {
        sp -= bytes.len() as u64;
        put(mm, sp, bytes)?;
        Ok(sp)
    };
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
    aux_entry(AT_SYSINFO_EHDR, aux.vdso)?;
    aux_entry(at::AT_HWCAP, arch::features::hwcap())?;
    aux_entry(at::AT_PAGESZ, PAGE_SIZE as u64)?;
    aux_entry(at::AT_CLKTCK, crate::signal::USER_HZ)?;
    aux_entry(at::AT_PHDR, aux.plan.phdr.wrapping_add(aux.bias))?;
    aux_entry(at::AT_PHENT, elf::PHDR_SIZE as u64)?;
    aux_entry(at::AT_PHNUM, u64::from(h.phnum))?;
    aux_entry(at::AT_BASE, aux.interpreter_bias)?;
    aux_entry(at::AT_FLAGS, if aux.binary.kept_argv0 { PRESERVED_ARGV0 } else { 0 })?;
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
    if aux.binary.passed.is_some() {
        // The number is known when the descriptor is: behind the point of no return.
        aux_entry(at::AT_EXECFD, 0)?;
    }
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
    // The last pair is AT_NULL, before it stands AT_EXECFD.
    let execfd_at = aux.binary.passed.as_ref().map(|_| base + words as u64 * 8 - 24);
    Ok((base, execfd_at))
}
