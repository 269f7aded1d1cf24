//! What the loader makes of an ELF file: programs put together here, whose code tells its registers,
//! its stack and a piece of its memory, and then waits until it was looked at from outside.

use crate::check::*;
use libc::*;
use std::collections::HashMap;
use std::ffi::CString;

cases![elf:
    registers_are_zero_at_the_start, stack_has_arguments_then_environment, empty_argument_list_becomes_one_empty_word,
    auxiliary_vector_is_complete, random_bytes_differ, script_is_named_as_it_was_given, five_scripts_work_six_do_not,
    headers_anywhere_are_found, segments_have_their_own_protection, bss_in_the_middle_is_zero, heap_starts_behind_bss, places_differ_from_run_to_run,
    layout_is_told_in_stat, interpreter_gets_the_control, interpreter_errors, pie_is_aligned_as_it_asks,
    loader_runs_by_itself, other_kinds_are_enoexec, impossible_segments_never_run, stack_is_executable_when_asked,
    stack_area_starts_small, megabyte_of_arguments_is_intact, set_id_programs_are_secure, script_by_descriptor,
    program_of_32_bits_runs_or_is_enoexec,
];

/// Bytes of the record that the probe writes first.
pub const RECORD: usize = 1024;
/// Where the probe's code stands in its file.
pub const CODE: usize = 0x400;
pub const BASE: u64 = 0x40_0000;

// The probe: writes x0..x30, sp, TPIDR_EL0, NZCV, FPCR, FPSR, its own address and v0..v31 (1024
// bytes), then the range that its literals name, then its stack up to where memory ends; closes
// its output, waits for the end of its input, and exits with 0. It needs no relocation.
core::arch::global_asm!(
    ".pushsection .rodata.linnet_probe, \"a\"",
    ".balign 8",
    "linnet_probe:",
    "sub sp, sp, #1024",
    "stp x0, x1, [sp, #0]", "stp x2, x3, [sp, #16]", "stp x4, x5, [sp, #32]", "stp x6, x7, [sp, #48]",
    "stp x8, x9, [sp, #64]", "stp x10, x11, [sp, #80]", "stp x12, x13, [sp, #96]", "stp x14, x15, [sp, #112]",
    "stp x16, x17, [sp, #128]", "stp x18, x19, [sp, #144]", "stp x20, x21, [sp, #160]", "stp x22, x23, [sp, #176]",
    "stp x24, x25, [sp, #192]", "stp x26, x27, [sp, #208]", "stp x28, x29, [sp, #224]",
    "add x9, sp, #1024",
    "stp x30, x9, [sp, #240]",
    "mrs x9, tpidr_el0", "mrs x10, nzcv", "stp x9, x10, [sp, #256]",
    "mrs x9, fpcr", "mrs x10, fpsr", "stp x9, x10, [sp, #272]",
    "adr x9, linnet_probe", "stp x9, xzr, [sp, #288]",
    "stp q0, q1, [sp, #304]", "stp q2, q3, [sp, #336]", "stp q4, q5, [sp, #368]", "stp q6, q7, [sp, #400]",
    "stp q8, q9, [sp, #432]", "stp q10, q11, [sp, #464]", "stp q12, q13, [sp, #496]", "stp q14, q15, [sp, #528]",
    "stp q16, q17, [sp, #560]", "stp q18, q19, [sp, #592]", "stp q20, q21, [sp, #624]", "stp q22, q23, [sp, #656]",
    "stp q24, q25, [sp, #688]", "stp q26, q27, [sp, #720]", "stp q28, q29, [sp, #752]", "stp q30, q31, [sp, #784]",
    "mov x0, #1", "mov x1, sp", "mov x2, #1024", "mov x8, #{write}", "svc #0",
    "adr x9, 3f", "ldp x1, x2, [x9]", "mov x0, #1", "svc #0",
    "add x19, sp, #1024",
    "2: mov x1, x19", "add x20, x19, #4096", "and x20, x20, #0xfffffffffffff000", "sub x2, x20, x1",
    "mov x0, #1", "svc #0",
    "mov x19, x20", "tbz x0, #63, 2b",
    "mov x0, #1", "mov x8, #{close}", "svc #0",
    "mov x0, #0", "mov x1, sp", "mov x2, #1", "mov x8, #{read}", "svc #0",
    "mov x0, #0", "mov x8, #{exit_group}", "svc #0",
    ".balign 8",
    "3: .quad 0, 0",
    "linnet_probe_end:",
    ".popsection",
    write = const SYS_write, close = const SYS_close, read = const SYS_read, exit_group = const SYS_exit_group,
);

unsafe extern "C" {
    static linnet_probe: u8;
    static linnet_probe_end: u8;
}

fn probe_code() -> &'static [u8] {
    // SAFETY: both labels stand in one section, the second behind the first.
    unsafe {
        let (start, end) = (&raw const linnet_probe, &raw const linnet_probe_end);
        std::slice::from_raw_parts(start, end.offset_from(start) as usize)
    }
}

/// A program header: type, flags, offset, address, size in the file, size in memory, alignment.
#[derive(Clone, Copy)]
pub struct Header(pub u32, pub u32, pub u64, pub u64, pub u64, pub u64, pub u64);

/// A file to be written.
#[derive(Clone)]
pub struct Elf {
    pub kind: u16,
    pub machine: u16,
    pub base: u64,
    /// Where the program headers stand in the file.
    pub phoff: u64,
    pub headers: Vec<Header>,
    /// What the probe tells of its memory: address and length.
    pub range: (u64, u64),
    /// The file behind its first page.
    pub rest: Vec<u8>,
}

pub const STACK: Header = Header(PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0, 16);

/// The probe as the simplest program: one segment at a fixed address.
pub fn fixed() -> Elf {
    Elf {
        kind: ET_EXEC,
        machine: EM_AARCH64,
        base: BASE,
        phoff: 64,
        headers: vec![Header(PT_LOAD, PF_R | PF_X, 0, BASE, 4096, 4096, 4096), STACK],
        range: (0, 0),
        rest: Vec::new(),
    }
}

/// The probe as a program that runs anywhere.
pub fn anywhere(align: u64) -> Elf {
    let headers = vec![Header(PT_LOAD, PF_R | PF_X, 0, 0, 4096, 4096, align), STACK];
    Elf { kind: ET_DYN, base: 0, headers, ..fixed() }
}

/// A program that names an interpreter.
pub fn with_interpreter(path: &[u8], align: u64) -> Elf {
    let mut elf = anywhere(align);
    elf.headers.insert(0, Header(PT_INTERP, PF_R, 4096, 4096, path.len() as u64, path.len() as u64, 1));
    elf.rest = path.to_vec();
    elf
}

impl Elf {
    pub fn bytes(&self) -> Vec<u8> {
        let mut page = vec![0u8; 4096];
        let mut put = |at: usize, data: &[u8]| page[at..at + data.len()].copy_from_slice(data);
        put(0, b"\x7fELF\x02\x01\x01");
        put(16, &self.kind.to_le_bytes());
        put(18, &self.machine.to_le_bytes());
        put(20, &1u32.to_le_bytes());
        put(24, &(self.base + CODE as u64).to_le_bytes());
        put(32, &self.phoff.to_le_bytes());
        put(52, &64u16.to_le_bytes());
        put(54, &56u16.to_le_bytes());
        put(56, &(self.headers.len() as u16).to_le_bytes());
        for (index, header) in self.headers.iter().enumerate() {
            let mut text = Vec::new();
            text.extend(header.0.to_le_bytes());
            text.extend(header.1.to_le_bytes());
            for word in [header.2, header.3, header.3, header.4, header.5, header.6] {
                text.extend(word.to_le_bytes());
            }
            put(self.phoff as usize + index * 56, &text);
        }
        put(CODE, probe_code());
        let range = CODE + probe_code().len() - 16;
        put(range, &self.range.0.to_le_bytes());
        put(range + 8, &self.range.1.to_le_bytes());
        page.extend(&self.rest);
        page
    }

    pub fn install(&self, path: &str) -> Outcome {
        program(path, &self.bytes())
    }
}

pub fn program(path: &str, data: &[u8]) -> Outcome {
    make(path, data)?;
    ok!(chmod(c(path).as_ptr(), 0o755));
    Ok(())
}

pub fn exec(path: &str, words: &[&str], environment: &[&str]) -> i32 {
    let strings = |from: &[&str]| from.iter().map(|word| c(word)).collect::<Vec<CString>>();
    let list = |from: &[CString]| from.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let (path, words, environment) = (c(path), strings(words), strings(environment));
    let (words, environment) = (list(&words), list(&environment));
    // SAFETY: both lists end in null, and their words live.
    unsafe { execve(path.as_ptr(), words.as_ptr(), environment.as_ptr()) }
}

/// The errno with which a file is refused; `None` when it runs, or ends the process.
pub fn refusal(path: &str) -> Option<i32> {
    let ended = child(|| {
        exec(path, &["p"], &[]);
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    });
    match ended {
        Status::Exited(errno) if errno > 0 => Some(errno),
        _ => None,
    }
}

/// What a probe told; it waits for its end meanwhile.
pub struct Probe {
    pub pid: i32,
    pub input: i32,
    pub record: Vec<u64>,
    pub range: Vec<u8>,
    pub stack: Vec<u8>,
    pub words: Vec<u64>,
    pub environment: Vec<u64>,
    pub auxv: HashMap<u64, u64>,
}

impl Probe {
    /// Starts a file that ends up in the probe.
    pub fn start(path: &str, words: &[&str], environment: &[&str], range: usize) -> Result<Self, Stop> {
        Self::start_with(range, || exec(path, words, environment))
    }

    pub fn start_with(range: usize, run: impl FnOnce() -> i32) -> Result<Self, Stop> {
        let (input, output) = (new_pipe(O_CLOEXEC)?, new_pipe(O_CLOEXEC)?);
        let pid = fork_child(|| {
            // SAFETY: the child's own descriptors.
            unsafe {
                dup2(input.0, 0);
                dup2(output.1, 1);
            }
            run();
            99
        });
        close_fd(input.0);
        close_fd(output.1);
        let all = read_to_end(output.0);
        close_fd(output.0);
        if all.len() < RECORD + range + 64 {
            close_fd(input.1);
            fail!("the probe told {} bytes and ended as {:?}", all.len(), wait_for(pid));
        }
        let word = |data: &[u8], at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap_or_default());
        let record = (0..RECORD / 8).map(|index| word(&all, index * 8)).collect();
        let stack = all[RECORD + range..].to_vec();
        let mut at = 8;
        let mut list = || {
            let mut out = Vec::new();
            while at + 8 <= stack.len() && word(&stack, at) != 0 {
                out.push(word(&stack, at));
                at += 8;
            }
            at += 8;
            out
        };
        let (words, environment) = (list(), list());
        check!(word(&stack, 0) == words.len() as u64);
        let mut auxv = HashMap::new();
        while at + 16 <= stack.len() && word(&stack, at) != 0 {
            auxv.insert(word(&stack, at), word(&stack, at + 8));
            at += 16;
        }
        let range = all[RECORD..RECORD + range].to_vec();
        Ok(Self { pid, input: input.1, record, range, stack, words, environment, auxv })
    }

    pub fn sp(&self) -> u64 {
        self.record[31]
    }

    pub fn pc(&self) -> u64 {
        self.record[36]
    }

    pub fn aux(&self, key: u64) -> Result<u64, Stop> {
        match self.auxv.get(&key) {
            Some(value) => Ok(*value),
            None => fail!("no entry {key} in the auxiliary vector"),
        }
    }

    /// A string on the stack.
    pub fn text(&self, address: u64) -> String {
        let start = (address.wrapping_sub(self.sp()) as usize).min(self.stack.len());
        let text: Vec<u8> = self.stack[start..].iter().copied().take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&text).into_owned()
    }

    pub fn texts(&self, addresses: &[u64]) -> Vec<String> {
        addresses.iter().map(|address| self.text(*address)).collect()
    }

    pub fn proc_file(&self, name: &str) -> Result<Vec<u8>, Stop> {
        content(&format!("/proc/{}/{name}", self.pid))
    }

    /// Field of /proc/PID/stat as proc(5) counts them.
    pub fn stat(&self, field: usize) -> Result<u64, Stop> {
        let text = String::from_utf8_lossy(&self.proc_file("stat")?).into_owned();
        let behind = text.rsplit(") ").next().unwrap_or("");
        match behind.split(' ').nth(field - 3).and_then(|word| word.trim().parse().ok()) {
            Some(value) => Ok(value),
            None => fail!("no field {field} in {text:?}"),
        }
    }

    /// Line of /proc/PID/maps with this name: start, end, permissions.
    pub fn area(&self, name: &str) -> Result<(u64, u64, String), Stop> {
        let text = String::from_utf8_lossy(&self.proc_file("maps")?).into_owned();
        let Some(line) = text.lines().find(|line| line.ends_with(name)) else { fail!("no {name} in {text}") };
        let mut words = line.split([' ', '-']);
        let mut number = || u64::from_str_radix(words.next().unwrap_or(""), 16).unwrap_or(0);
        let (start, end) = (number(), number());
        Ok((start, end, line.split(' ').nth(1).unwrap_or("").to_string()))
    }

    pub fn finish(self) -> Outcome {
        close_fd(self.input);
        eq!(wait_for(self.pid), Status::Exited(0));
        Ok(())
    }
}

fn registers_are_zero_at_the_start() -> Outcome {
    fixed().install("p")?;
    let probe = Probe::start_with(0, || {
        // SAFETY: marks registers that the new image must not see.
        unsafe {
            core::arch::asm!(
                "movi v0.16b, #0xa5", "movi v7.16b, #0xa5", "movi v16.16b, #0xa5", "movi v31.16b, #0xa5",
                "mov x9, #0x400000", "msr fpcr, x9", "cmp sp, #0",
                out("v0") _, out("v7") _, out("v16") _, out("v31") _, out("x9") _,
            )
        };
        exec("./p", &["p"], &[])
    })?;
    for number in 0..31 {
        eq!((number, probe.record[number]), (number, 0));
    }
    for (what, value) in [("tpidr_el0", probe.record[32]), ("nzcv", probe.record[33]), ("fpcr", probe.record[34]), ("fpsr", probe.record[35])] {
        eq!((what, value), (what, 0));
    }
    check!(probe.record[38..102].iter().all(|half| *half == 0));
    eq!(probe.sp() % 16, 0);
    eq!(probe.pc(), BASE + CODE as u64);
    probe.finish()
}

fn stack_has_arguments_then_environment() -> Outcome {
    fixed().install("p")?;
    for count in 0..4 {
        let words = ["first", "", "b c", "last"];
        let probe = Probe::start("./p", &words[..=count], &["X=1", "Y="], 0)?;
        eq!(probe.texts(&probe.words), &words[..=count]);
        eq!(probe.texts(&probe.environment), ["X=1", "Y="]);
        // From low to high: arguments, environment, name of the file.
        let name = probe.aux(AT_EXECFN)?;
        let addresses: Vec<u64> = probe.words.iter().chain(&probe.environment).copied().chain([name]).collect();
        check!(addresses.is_sorted() && addresses[0] > probe.sp());
        eq!(probe.text(name), "./p");
        eq!(probe.proc_file("cmdline")?, words[..=count].join("\0").into_bytes().into_iter().chain([0]).collect::<Vec<u8>>());
        eq!(probe.proc_file("environ")?, b"X=1\0Y=\0");
        eq!(probe.sp() % 16, 0);
        probe.finish()?;
    }
    Ok(())
}

fn empty_argument_list_becomes_one_empty_word() -> Outcome {
    fixed().install("p")?;
    let probe = Probe::start("./p", &[], &["X=1"], 0)?;
    eq!(probe.texts(&probe.words), [""]);
    eq!(probe.texts(&probe.environment), ["X=1"]);
    probe.finish()?;
    // The kernel has said so, once.
    let mut log = vec![0u8; 1 << 20];
    const READ_ALL: i32 = 3;
    let length = ok!(klogctl(READ_ALL, log.as_mut_ptr().cast(), log.len() as i32));
    let log = String::from_utf8_lossy(&log[..length as usize]).into_owned();
    eq!(log.matches("with NULL argv: empty string added").count(), 1);
    Ok(())
}

fn auxiliary_vector_is_complete() -> Outcome {
    fixed().install("p")?;
    let probe = Probe::start("./p", &["p"], &[], 0)?;
    for (key, value) in [
        (AT_PHDR, BASE + 64), (AT_PHENT, 56), (AT_PHNUM, 2), (AT_PAGESZ, 4096), (AT_BASE, 0), (AT_FLAGS, 0),
        (AT_ENTRY, BASE + CODE as u64), (AT_UID, 0), (AT_EUID, 0), (AT_GID, 0), (AT_EGID, 0), (AT_SECURE, 0), (AT_CLKTCK, 100),
    ] {
        eq!((key, probe.aux(key)?), (key, value));
    }
    // Floating point and ASIMD, which every program relies on.
    eq!(probe.aux(AT_HWCAP)? & 3, 3);
    probe.aux(AT_HWCAP2)?;
    eq!(probe.text(probe.aux(AT_PLATFORM)?), "aarch64");
    // Room for a signal frame: at least siginfo and the context with its 4 KiB of records.
    check!(probe.aux(AT_MINSIGSTKSZ)? > 4096);
    check!(probe.aux(AT_RANDOM)? > probe.sp());
    // The same pairs stand in /proc.
    let file = probe.proc_file("auxv")?;
    for pair in file.chunks_exact(16) {
        let word = |at: usize| u64::from_le_bytes(pair[at..at + 8].try_into().unwrap_or_default());
        if word(0) != 0 {
            eq!((word(0), probe.aux(word(0))?), (word(0), word(8)));
        }
    }
    check!(file.len() >= 16 * probe.auxv.len());
    probe.finish()
}

fn random_bytes_differ() -> Outcome {
    fixed().install("p")?;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let probe = Probe::start("./p", &["p"], &[], 0)?;
        let at = (probe.aux(AT_RANDOM)? - probe.sp()) as usize;
        seen.push(probe.stack[at..at + 16].to_vec());
        probe.finish()?;
    }
    check!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2]);
    Ok(())
}

fn script_is_named_as_it_was_given() -> Outcome {
    fixed().install("p")?;
    program("s", b"#!./p one word\n")?;
    let probe = Probe::start("./s", &["ignored", "x"], &[], 0)?;
    eq!(probe.texts(&probe.words), ["./p", "one word", "./s", "x"]);
    eq!(probe.text(probe.aux(AT_EXECFN)?), "./s");
    let exe = std::fs::read_link(format!("/proc/{}/exe", probe.pid));
    check!(exe.is_ok_and(|path| path.ends_with("p")));
    probe.finish()
}

fn five_scripts_work_six_do_not() -> Outcome {
    fixed().install("s0")?;
    for depth in 1..=6 {
        program(&format!("s{depth}"), format!("#!./s{}\n", depth - 1).as_bytes())?;
    }
    let probe = Probe::start("./s5", &["p"], &[], 0)?;
    eq!(probe.texts(&probe.words), ["./s0", "./s1", "./s2", "./s3", "./s4", "./s5"]);
    probe.finish()?;
    eq!(refusal("./s6"), Some(ELOOP));
    Ok(())
}

fn headers_anywhere_are_found() -> Outcome {
    let mut elf = fixed();
    elf.phoff = 0x208;
    elf.install("p")?;
    let probe = Probe::start("./p", &["p"], &[], 0)?;
    eq!(probe.aux(AT_PHDR)?, BASE + 0x208);
    probe.finish()?;
    // In a segment that stands elsewhere in memory than in the file, of a program that runs anywhere.
    let mut elf = anywhere(4096);
    elf.rest = vec![0; 4096];
    elf.headers.insert(1, Header(PT_LOAD, PF_R, 0x1000, 0x5000, 0x1000, 0x1000, 4096));
    let mut bytes = elf.bytes();
    bytes.copy_within(64..64 + 3 * 56, 0x1008);
    bytes[32..40].copy_from_slice(&0x1008u64.to_le_bytes());
    program("q", &bytes)?;
    let probe = Probe::start("./q", &["q"], &[], 0)?;
    eq!(probe.aux(AT_PHDR)?, probe.pc() - CODE as u64 + 0x5008);
    eq!(probe.aux(AT_PHNUM)?, 3);
    probe.finish()
}

/// Three segments: code, data with a piece of bss behind it, constants.
fn three_segments() -> Elf {
    let mut elf = fixed();
    elf.rest = [vec![0xaa; 4096], vec![0x55; 4096]].concat();
    elf.headers.insert(1, Header(PT_LOAD, PF_R | PF_W, 0x1000, BASE + 0x1000, 0x100, 0x3000, 4096));
    elf.headers.insert(2, Header(PT_LOAD, PF_R, 0x2000, BASE + 0x4000, 0x1000, 0x1000, 4096));
    elf
}

fn segments_have_their_own_protection() -> Outcome {
    three_segments().install("p")?;
    let probe = Probe::start("./p", &["p"], &[], 0)?;
    let maps = String::from_utf8_lossy(&probe.proc_file("maps")?).into_owned();
    let line = |page: u64| {
        let start = format!("{:08x}-", BASE + page * 0x1000);
        maps.lines().find(|line| line.starts_with(&start)).map(|line| line.split_whitespace().skip(1).take(2).collect::<Vec<_>>())
    };
    // Code, data, its bss, constants: protection, and the place in the file.
    eq!(line(0), Some(vec!["r-xp", "00000000"]));
    eq!(line(1), Some(vec!["rw-p", "00001000"]));
    eq!(line(2), Some(vec!["rw-p", "00000000"]));
    eq!(line(4), Some(vec!["r--p", "00002000"]));
    probe.finish()?;
    // What the program changes is its own: the file stays as it is.
    let mut elf = fixed();
    elf.headers[0] = Header(PT_LOAD, PF_R | PF_W | PF_X, 0, BASE, 4096, 4096, 4096);
    let mut bytes = elf.bytes();
    // adr x9, .; str w9, [x9, #64]; mov x0, #5; mov x8, #94 (exit_group); svc #0
    for (index, word) in [0x1000_0009u32, 0xb900_4129, 0xd280_00a0, 0xd280_0bc8, 0xd400_0001].into_iter().enumerate() {
        bytes[CODE + index * 4..CODE + index * 4 + 4].copy_from_slice(&word.to_le_bytes());
    }
    program("q", &bytes)?;
    for _ in 0..2 {
        eq!(child(|| exec("./q", &["q"], &[])), Status::Exited(5));
        check!(content("q")? == bytes);
    }
    Ok(())
}

fn bss_in_the_middle_is_zero() -> Outcome {
    let mut elf = three_segments();
    elf.range = (BASE + 0x1000, 0x4000);
    elf.install("p")?;
    let probe = Probe::start("./p", &["p"], &[], 0x4000)?;
    check!(probe.range[..0x100].iter().all(|byte| *byte == 0xaa));
    check!(probe.range[0x100..0x3000].iter().all(|byte| *byte == 0));
    check!(probe.range[0x3000..].iter().all(|byte| *byte == 0x55));
    probe.finish()
}

fn heap_starts_behind_bss() -> Outcome {
    let mut elf = fixed();
    elf.rest = vec![0xaa; 4096];
    elf.headers.insert(1, Header(PT_LOAD, PF_R | PF_W, 0x1000, BASE + 0x1000, 0x100, 0x2345, 4096));
    elf.range = (BASE + 0x1000, 0x3000);
    elf.install("p")?;
    let probe = Probe::start("./p", &["p"], &[], 0x3000)?;
    // The rest of the file's page, and whole pages behind it.
    check!(probe.range[0x100..].iter().all(|byte| *byte == 0));
    let heap = probe.stat(47)?;
    check!(heap >= BASE + 0x4000 && heap % 4096 == 0);
    probe.finish()?;
    // A bss that ends in the file's last page, where no page of its own follows.
    elf.headers[1].5 = 0x800;
    elf.range = (BASE + 0x1000, 0x800);
    elf.install("q")?;
    let probe = Probe::start("./q", &["q"], &[], 0x800)?;
    check!(probe.range[..0x100].iter().all(|byte| *byte == 0xaa));
    check!(probe.range[0x100..].iter().all(|byte| *byte == 0));
    let heap = probe.stat(47)?;
    check!(heap >= BASE + 0x2000 && heap % 4096 == 0);
    probe.finish()
}

fn places_differ_from_run_to_run() -> Outcome {
    fixed().install("p")?;
    anywhere(4096).install("q")?;
    let (mut stacks, mut heaps, mut bases) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..8 {
        let probe = Probe::start("./p", &["p"], &[], 0)?;
        stacks.push(probe.sp());
        heaps.push(probe.stat(47)?);
        probe.finish()?;
        let probe = Probe::start("./q", &["q"], &[], 0)?;
        bases.push(probe.pc());
        probe.finish()?;
    }
    for mut places in [stacks, heaps, bases] {
        places.sort_unstable();
        places.dedup();
        check!(places.len() > 4);
    }
    Ok(())
}

/// Bytes of all areas in /proc/PID/maps.
fn probe_size(probe: &Probe) -> Result<u64, Stop> {
    let text = String::from_utf8_lossy(&probe.proc_file("maps")?).into_owned();
    let number = |word: Option<&str>| u64::from_str_radix(word.unwrap_or(""), 16).unwrap_or(0);
    Ok(text.lines().map(|line| { let mut words = line.split([' ', '-']); let start = number(words.next()); number(words.next()) - start }).sum())
}

fn layout_is_told_in_stat() -> Outcome {
    three_segments().install("p")?;
    let probe = Probe::start("./p", &["word", "other"], &["X=1"], 0)?;
    let (code, end_code, stack) = (probe.stat(26)?, probe.stat(27)?, probe.stat(28)?);
    eq!((code, end_code), (BASE, BASE + 0x1000));
    eq!(stack, probe.sp());
    // From the start of the segment with the highest address to the last byte from the file.
    eq!((probe.stat(45)?, probe.stat(46)?), (BASE + 0x4000, BASE + 0x5000));
    eq!(probe.stat(23)?, probe_size(&probe)?);
    let (words, end_words, environment, end) = (probe.stat(48)?, probe.stat(49)?, probe.stat(50)?, probe.stat(51)?);
    eq!(words, probe.words[0]);
    eq!(end_words, words + 11);
    eq!(environment, end_words);
    eq!(end, environment + 4);
    probe.finish()
}

fn interpreter_gets_the_control() -> Outcome {
    anywhere(4096).install("ld")?;
    with_interpreter(b"./ld\0", 4096).install("p")?;
    let probe = Probe::start("./p", &["p", "word"], &[], 0)?;
    let base = probe.aux(AT_BASE)?;
    eq!(probe.pc(), base + CODE as u64);
    let program = probe.aux(AT_ENTRY)? - CODE as u64;
    check!(program != base);
    eq!(probe.aux(AT_PHDR)?, program + 64);
    eq!(probe.aux(AT_PHNUM)?, 3);
    eq!(probe.texts(&probe.words), ["p", "word"]);
    probe.finish()?;
    // One that was not linked to begin at 0, and one at a fixed address.
    let mut elf = anywhere(4096);
    elf.base = 0x20000;
    elf.headers[0].3 = 0x20000;
    elf.install("ld")?;
    let probe = Probe::start("./p", &["p"], &[], 0)?;
    eq!(probe.pc(), probe.aux(AT_BASE)? + 0x20000 + CODE as u64);
    probe.finish()?;
    fixed().install("ld")?;
    let probe = Probe::start("./p", &["p"], &[], 0)?;
    eq!((probe.pc(), probe.aux(AT_BASE)?), (BASE + CODE as u64, 0));
    probe.finish()?;
    // Without an interpreter the program itself gets it.
    anywhere(4096).install("q")?;
    let probe = Probe::start("./q", &["q"], &[], 0)?;
    eq!((probe.pc(), probe.aux(AT_BASE)?), (probe.aux(AT_ENTRY)?, 0));
    probe.finish()
}

fn interpreter_errors() -> Outcome {
    with_interpreter(b"./missing\0", 4096).install("p")?;
    eq!(refusal("./p"), Some(ENOENT));
    program("text", &[b'x'; 4096])?;
    with_interpreter(b"./text\0", 4096).install("p")?;
    eq!(refusal("./p"), Some(ELIBBAD));
    make("data", &[b'x'; 4096])?;
    with_interpreter(b"./data\0", 4096).install("p")?;
    eq!(refusal("./p"), Some(EACCES));
    for path in [&b"./text"[..], b"\0", &[b'x'; 5000]] {
        with_interpreter(path, 4096).install("p")?;
        eq!((path.len(), refusal("./p")), (path.len(), Some(ENOEXEC)));
    }
    Ok(())
}

fn pie_is_aligned_as_it_asks() -> Outcome {
    anywhere(4096).install("ld")?;
    with_interpreter(b"./ld\0", 0x10000).install("p")?;
    for _ in 0..4 {
        let probe = Probe::start("./p", &["p"], &[], 0)?;
        let base = probe.aux(AT_ENTRY)? - CODE as u64;
        eq!(base % 0x10000, 0);
        // From two thirds of the address space on, plus what is random.
        check!((0xaaaa_aaaa_0000..0xcc00_0000_0000).contains(&base));
        probe.finish()?;
    }
    Ok(())
}

fn loader_runs_by_itself() -> Outcome {
    anywhere(4096).install("ld")?;
    let probe = Probe::start("./ld", &["ld", "./p"], &[], 0)?;
    eq!(probe.aux(AT_BASE)?, 0);
    eq!(probe.aux(AT_ENTRY)?, probe.pc());
    // Its heap does not run into the mappings around it.
    let heap = probe.stat(47)?;
    check!(heap < probe.pc() - (1 << 30) || heap > probe.pc());
    probe.finish()
}

fn other_kinds_are_enoexec() -> Outcome {
    let good = fixed().bytes();
    let mut damage: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut with = |name, at: usize, value: &[u8]| {
        let mut data = good.clone();
        data[at..at + value.len()].copy_from_slice(value);
        damage.push((name, data));
    };
    with("bad magic", 3, b"G");
    with("no type", 16, &[0]);
    with("object file", 16, &[1]);
    with("core", 16, &[4]);
    with("type beyond", 16, &[0xff, 0xff]);
    with("x86-64", 18, &[62]);
    with("riscv", 18, &[243]);
    with("small program headers", 54, &[55]);
    with("no program headers", 56, &[0]);
    with("more than 64 KiB of program headers", 56, &[0xff, 0xff]);
    with("program headers behind the end", 32, &(1u64 << 20).to_le_bytes());
    damage.push(("cut in the header", good[..50].to_vec()));
    damage.push(("cut in the program headers", good[..100].to_vec()));
    for (name, data) in damage {
        program("p", &data)?;
        eq!((name, refusal("./p")), (name, Some(ENOEXEC)));
    }
    // As many program headers as fit into a page, which every kernel takes, and one more than fit
    // into 64 KiB, all of them there in the file.
    let many = |count: u16| {
        let mut data = [good.clone(), vec![0; 20 * 4096]].concat();
        data.copy_within(64..64 + 2 * 56, 4096);
        data[32..40].copy_from_slice(&4096u64.to_le_bytes());
        data[56..58].copy_from_slice(&count.to_le_bytes());
        data
    };
    program("many", &many(4096 / 56))?;
    Probe::start("./many", &["many"], &[], 0)?.finish()?;
    program("p", &many((65536 / 56 + 1) as u16))?;
    eq!(refusal("./p"), Some(ENOEXEC));
    Ok(())
}

fn impossible_segments_never_run() -> Outcome {
    // Linux notices these behind its point of no return and kills; an errno with the old image
    // intact is as good. What may not happen is that the program runs.
    let with = |header: Header| {
        let mut elf = fixed();
        elf.rest = vec![0; 4096];
        elf.headers.insert(1, header);
        elf
    };
    for (name, elf) in [
        ("more in the file than in memory", with(Header(PT_LOAD, PF_R, 0x1000, BASE + 0x1000, 0x1000, 0x10, 4096))),
        ("beyond the address space", with(Header(PT_LOAD, PF_R, 0x1000, 1 << 48, 0x1000, 0x1000, 4096))),
        ("wraps", with(Header(PT_LOAD, PF_R | PF_W, 0x1000, !0xfff, 0x1000, 0x2000, 4096))),
        ("larger than the address space", with(Header(PT_LOAD, PF_R | PF_W, 0x1000, BASE + 0x1000, 0x1000, 1 << 50, 4096))),
    ] {
        elf.install("p")?;
        let ended = child(|| {
            let null = open_file("/dev/null", O_RDWR, 0);
            // SAFETY: the child's own descriptors.
            unsafe {
                dup2(null, 0);
                dup2(null, 1);
            }
            exec("./p", &["p"], &[]);
            77
        });
        if !matches!(ended, Status::Exited(77) | Status::Killed(SIGSEGV | SIGKILL)) {
            fail!("{name}: {ended:?}");
        }
    }
    Ok(())
}

fn stack_is_executable_when_asked() -> Outcome {
    // A program that does not say.
    let mut elf = fixed();
    elf.headers.truncate(1);
    elf.install("p")?;
    let probe = Probe::start("./p", &["p"], &[], 0)?;
    eq!(probe.area("[stack]")?.2, "rw-p");
    probe.finish()?;
    for (flags, want) in [(PF_R | PF_W, "rw-p"), (PF_R | PF_W | PF_X, "rwxp")] {
        let mut elf = fixed();
        elf.headers[1] = Header(PT_GNU_STACK, flags, 0, 0, 0, 0, 16);
        elf.install("p")?;
        let probe = Probe::start("./p", &["p"], &[], 0)?;
        eq!(probe.area("[stack]")?.2, want);
        probe.finish()?;
    }
    Ok(())
}

fn stack_area_starts_small() -> Outcome {
    fixed().install("p")?;
    let probe = Probe::start("./p", &["p"], &[], 0)?;
    let (start, end, _) = probe.area("[stack]")?;
    check!(start < probe.sp() && probe.sp() < end);
    check!((128 << 10..=140 << 10).contains(&(end - start)));
    probe.finish()
}

fn megabyte_of_arguments_is_intact() -> Outcome {
    fixed().install("p")?;
    let long: Vec<String> = ('a'..'k').map(|letter| letter.to_string().repeat(100_000)).collect();
    let words: Vec<&str> = long.iter().map(String::as_str).collect();
    let probe = Probe::start("./p", &words, &["X=1"], 0)?;
    check!(probe.texts(&probe.words) == long);
    eq!(probe.texts(&probe.environment), ["X=1"]);
    probe.finish()
}

fn set_id_programs_are_secure() -> Outcome {
    fixed().install("p")?;
    ok!(chmod(c".".as_ptr(), 0o755));
    let as_user = |groups: u32, users: u32| {
        Probe::start_with(0, || {
            // SAFETY: the child's own ids.
            unsafe {
                setresgid(groups, groups, groups);
                setresuid(users, users, users);
            }
            exec("./p", &["p"], &[])
        })
    };
    for (mode, secure, euid, egid) in [(0o755, 0, 1000, 1001), (0o4755, 1, 1234, 1001), (0o2755, 1, 1000, 5678), (0o6755, 1, 1234, 5678)] {
        ok!(chown(c"p".as_ptr(), 1234, 5678));
        ok!(chmod(c"p".as_ptr(), mode));
        let probe = as_user(1001, 1000)?;
        eq!((mode, probe.aux(AT_SECURE)?), (mode, secure));
        eq!((mode, probe.aux(AT_UID)?, probe.aux(AT_EUID)?), (mode, 1000, euid));
        eq!((mode, probe.aux(AT_GID)?, probe.aux(AT_EGID)?), (mode, 1001, egid));
        probe.finish()?;
    }
    Ok(())
}

fn script_by_descriptor() -> Outcome {
    fixed().install("p")?;
    program("s", b"#!./p\n")?;
    let fd = ok!(open_file("s", O_RDONLY, 0));
    let name = format!("/dev/fd/{fd}");
    let probe = Probe::start_with(0, || {
        let words = [c"s".as_ptr(), c"word".as_ptr(), std::ptr::null()];
        let none = [std::ptr::null::<c_char>()];
        // SAFETY: both lists end in null.
        unsafe { syscall(SYS_execveat, fd, c"".as_ptr(), words.as_ptr(), none.as_ptr(), AT_EMPTY_PATH) as i32 }
    })?;
    eq!(probe.texts(&probe.words), ["./p", name.as_str(), "word"]);
    eq!(probe.text(probe.aux(AT_EXECFN)?), name);
    probe.finish()?;
    // By a name below a directory's descriptor.
    ok!(mkdir(c"dir".as_ptr(), 0o755));
    program("dir/s", b"#!./p\n")?;
    let below = ok!(open_file("dir", O_RDONLY | O_DIRECTORY, 0));
    let run = |fd: i32, path: &'static std::ffi::CStr, flags: i32| {
        let words = [c"s".as_ptr(), c"word".as_ptr(), std::ptr::null()];
        let none = [std::ptr::null::<c_char>()];
        // SAFETY: both lists end in null.
        unsafe { syscall(SYS_execveat, fd, path.as_ptr(), words.as_ptr(), none.as_ptr(), flags) as i32 }
    };
    let probe = Probe::start_with(0, || run(below, c"s", 0))?;
    let name = format!("/dev/fd/{below}/s");
    eq!(probe.texts(&probe.words), ["./p", name.as_str(), "word"]);
    probe.finish()?;
    // A program in memory, which has no name at all.
    let memory = ok!(memfd_create(c"m".as_ptr(), MFD_CLOEXEC));
    let bytes = fixed().bytes();
    eq!(write_fd(memory, &bytes), bytes.len() as isize);
    let probe = Probe::start_with(0, || run(memory, c"", AT_EMPTY_PATH))?;
    eq!(probe.texts(&probe.words), ["s", "word"]);
    probe.finish()?;
    errno!(run(memory, c"", 0), ENOENT);
    errno!(run(memory, c"", AT_EMPTY_PATH | 1), EINVAL);
    errno!(run(-7, c"", AT_EMPTY_PATH), EBADF);
    ok!(symlink(c"p".as_ptr(), c"link".as_ptr()));
    errno!(run(AT_FDCWD, c"link", AT_SYMLINK_NOFOLLOW), ELOOP);
    Ok(())
}

fn program_of_32_bits_runs_or_is_enoexec() -> Outcome {
    // mov r7, #1 (exit); mov r0, #7; svc #0. A kernel for AArch32 programs runs it.
    let code = [0xe3a0_7001u32, 0xe3a0_0007, 0xef00_0000];
    let mut elf = vec![0u8; 4096];
    elf[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    elf[16..20].copy_from_slice(&[2, 0, 40, 0]);
    let words = |elf: &mut Vec<u8>, at: usize, words: &[u32]| {
        for (index, word) in words.iter().enumerate() {
            elf[at + index * 4..at + index * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
    };
    words(&mut elf, 20, &[1, 0x10080, 52, 0, 0x0500_0000]);
    elf[40..46].copy_from_slice(&[52, 0, 32, 0, 1, 0]);
    words(&mut elf, 52, &[PT_LOAD, 0, 0x10000, 0x10000, 4096, 4096, PF_R | PF_X, 4096]);
    words(&mut elf, 0x80, &code);
    program("p", &elf)?;
    let ended = child(|| {
        exec("./p", &["p"], &[]);
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    });
    check!(ended == Status::Exited(7) || ended == Status::Exited(ENOEXEC));
    // Half of each: a header of the 32-bit machine in the 64-bit form, whose code is A64's.
    let mut elf = fixed();
    elf.machine = 40;
    elf.install("q")?;
    eq!(refusal("./q"), Some(ENOEXEC));
    Ok(())
}
