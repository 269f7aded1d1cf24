//! Core dumps (`core(5)`): when there is one, how it is called, and what a debugger reads from it.

use crate::check::*;
use libc::*;

cases![cores:
    abort_leaves_a_core, every_thread_is_in_the_core, memory_is_in_the_core, not_every_death_leaves_a_core, pattern_makes_the_name,
    limit_cuts_the_file, filter_and_advice_leave_memory_out, links_and_the_files_of_others_stay, set_id_programs_leave_none,
];

const PATTERN: &str = "/proc/sys/kernel/core_pattern";
const USES_PID: &str = "/proc/sys/kernel/core_uses_pid";
static MARK: [u64; 4] = [0x4c69_6e6e_6574_0001, 0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00, 0x0102_0304_0506_0708];

fn limit(bytes: u64) {
    let limit = rlimit { rlim_cur: bytes, rlim_max: RLIM_INFINITY };
    // SAFETY: the child's own limit.
    unsafe { setrlimit(RLIMIT_CORE, &limit) };
}

/// Runs a child that is to die; its pid, and the status as wait(2) has it.
fn dies(body: impl FnOnce()) -> (i32, i32) {
    let pid = fork_child(|| {
        limit(RLIM_INFINITY);
        body();
        0
    });
    let mut raw = 0;
    // SAFETY: `raw` is live.
    unsafe { waitpid(pid, &mut raw, 0) };
    (pid, raw)
}

fn die(signal: i32) {
    set_disposition(signal, SIG_DFL);
    // SAFETY: the child's own end.
    unsafe { raise(signal) };
}

/// A core, taken apart.
struct Core {
    data: Vec<u8>,
    /// Owner, type, contents.
    notes: Vec<(String, u32, Vec<u8>)>,
    /// Address, offset in the file, bytes in the file, bytes in memory.
    loads: Vec<(u64, usize, u64, u64)>,
}

fn int(data: &[u8], at: usize) -> u32 {
    data.get(at..at + 4).map_or(0, |b| u32::from_le_bytes(b.try_into().unwrap_or_default()))
}

fn long(data: &[u8], at: usize) -> u64 {
    data.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or_default()))
}

impl Core {
    fn read(path: &str) -> Result<Self, Stop> {
        let data = content(path)?;
        check!(data.starts_with(b"\x7fELF\x02\x01\x01"));
        eq!((data[16], data[18]), (4, 183));
        let (mut notes, mut loads) = (Vec::new(), Vec::new());
        for index in 0..usize::from(data[56]) {
            let at = long(&data, 32) as usize + index * 56;
            let (offset, size) = (long(&data, at + 8) as usize, long(&data, at + 32));
            match int(&data, at) {
                PT_LOAD => loads.push((long(&data, at + 16), offset, size, long(&data, at + 40))),
                PT_NOTE => {
                    let mut at = offset;
                    while at < offset + size as usize {
                        let (owner, len) = (int(&data, at) as usize, int(&data, at + 4) as usize);
                        let name = String::from_utf8_lossy(&data[at + 12..at + 11 + owner]).into_owned();
                        let body = at + 12 + owner.next_multiple_of(4);
                        notes.push((name, int(&data, at + 8), data[body..body + len].to_vec()));
                        at = body + len.next_multiple_of(4);
                    }
                }
                _ => {}
            }
        }
        Ok(Self { data, notes, loads })
    }

    fn notes(&self, kind: u32) -> Vec<&[u8]> {
        self.notes.iter().filter(|note| note.1 == kind).map(|note| note.2.as_slice()).collect()
    }

    fn note(&self, kind: u32) -> Result<&[u8], Stop> {
        match self.notes(kind).first() {
            Some(note) => Ok(note),
            None => fail!("no note of type {kind:#x}"),
        }
    }

    /// Memory at an address, as far as it is in the file.
    fn memory(&self, address: u64, len: usize) -> Option<&[u8]> {
        let load = self.loads.iter().find(|load| (load.0..load.0 + load.3).contains(&address))?;
        let at = (address - load.0) as usize;
        if at as u64 + len as u64 > load.2 { None } else { self.data.get(load.1 + at..load.1 + at + len) }
    }
}

const PRSTATUS: u32 = 1;
const FPREGSET: u32 = 2;
const PRPSINFO: u32 = 3;
const AUXV: u32 = 6;
const SIGINFO: u32 = 0x5349_4749;
const FILES: u32 = 0x4649_4c45;
const TLS: u32 = 0x401;

fn abort_leaves_a_core() -> Outcome {
    let (pid, raw) = dies(|| die(SIGABRT));
    check!(WIFSIGNALED(raw) && WTERMSIG(raw) == SIGABRT && WCOREDUMP(raw));
    let about = stat_of("core")?;
    eq!((about.st_mode & 0o7777, about.st_uid), (0o600, 0));
    let core = Core::read("core")?;
    let status = core.note(PRSTATUS)?;
    eq!((status.len(), int(status, 0), status[12]), (392, SIGABRT as u32, SIGABRT as u8));
    eq!(int(status, 32), pid as u32);
    // SAFETY: no preconditions.
    eq!(int(status, 36), unsafe { getpid() } as u32);
    // The program counter is in code that can be executed, the stack pointer in memory that is there.
    let (sp, pc) = (long(status, 112 + 31 * 8), long(status, 112 + 32 * 8));
    check!(core.loads.iter().any(|load| (load.0..load.0 + load.3).contains(&pc)));
    check!(core.memory(sp, 16).is_some());
    let info = core.note(PRPSINFO)?;
    eq!((info.len(), int(info, 24)), (136, pid as u32));
    check!(info[40..].starts_with(b"linnet-tests\0"));
    check!(info[56..].starts_with(b"linnet-tests") || info[56..].starts_with(b"/bin/linnet-tests"));
    let cause = core.note(SIGINFO)?;
    eq!((cause.len(), int(cause, 0), int(cause, 8) as i32, int(cause, 16)), (128, SIGABRT as u32, SI_TKILL, pid as u32));
    let auxv = content("/proc/self/auxv")?;
    check!(core.note(AUXV)?.starts_with(&auxv[..auxv.len() - 16]));
    let files = core.note(FILES)?;
    eq!(long(files, 8), 4096);
    check!(long(files, 0) > 0 && files.ends_with(b"/bin/linnet-tests\0"));
    eq!(core.note(FPREGSET)?.len(), 528);
    check!(core.note(TLS)?.len() >= 8);
    Ok(())
}

fn every_thread_is_in_the_core() -> Outcome {
    const THREADS: u64 = 3;
    let (_, raw) = dies(|| {
        let ready = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for number in 0..THREADS {
                let ready = &ready;
                scope.spawn(move || {
                    // SAFETY: marks a register, counts itself, and waits for the end.
                    unsafe {
                        core::arch::asm!(
                            "fmov d9, x20",
                            "2: ldaxr x22, [x21]",
                            "add x22, x22, #1",
                            "stlxr w23, x22, [x21]",
                            "cbnz w23, 2b",
                            "3: yield",
                            "b 3b",
                            in("x20") 0x7468_7265_0000_0000u64 + number,
                            in("x21") ready.as_ptr(),
                            out("x22") _,
                            out("x23") _,
                            out("v9") _,
                            options(nostack)
                        );
                    }
                });
            }
            while ready.load(std::sync::atomic::Ordering::Acquire) < THREADS {
                std::thread::yield_now();
            }
            // SAFETY: ends the process: the address is not mapped.
            unsafe {
                core::arch::asm!("mov x20, #0x1234", "str x20, [x21]", in("x21") 0x5000u64, out("x20") _);
            }
        });
    });
    check!(WTERMSIG(raw) == SIGSEGV && WCOREDUMP(raw));
    let core = Core::read("core")?;
    let threads = core.notes(PRSTATUS);
    eq!(threads.len(), THREADS as usize + 1);
    // Who took the signal comes first, with its registers at that moment.
    let register = |status: &[u8], n: usize| long(status, 112 + n * 8);
    eq!((int(threads[0], 0), register(threads[0], 20), register(threads[0], 21)), (SIGSEGV as u32, 0x1234, 0x5000));
    let cause = core.note(SIGINFO)?;
    eq!((int(cause, 8) as i32, long(cause, 16)), (1, 0x5000));
    let mut marks: Vec<u64> = threads[1..].iter().map(|status| register(status, 20)).collect();
    marks.sort_unstable();
    eq!(marks, (0..THREADS).map(|n| 0x7468_7265_0000_0000 + n).collect::<Vec<_>>());
    // Vector registers and thread pointers stand behind each, in the same order.
    let (vectors, pointers) = (core.notes(FPREGSET), core.notes(TLS));
    eq!((vectors.len(), pointers.len()), (4, 4));
    for (status, vector) in threads[1..].iter().zip(&vectors[1..]) {
        eq!(long(vector, 9 * 16), register(status, 20));
    }
    let mut distinct: Vec<u64> = pointers.iter().map(|note| long(note, 0)).collect();
    distinct.sort_unstable();
    distinct.dedup();
    eq!(distinct.len(), 4);
    let mut ids: Vec<u32> = threads.iter().map(|status| int(status, 32)).collect();
    ids.dedup();
    eq!(ids.len(), 4);
    Ok(())
}

fn memory_is_in_the_core() -> Outcome {
    let page = map(4 * PAGE, RW);
    // SAFETY: the mapping is ours.
    unsafe { std::ptr::copy_nonoverlapping(MARK.as_ptr(), page.add(2 * PAGE).cast(), 4) };
    let vdso = unsafe { getauxval(AT_SYSINFO_EHDR) };
    let (_, raw) = dies(|| die(SIGQUIT));
    check!(WTERMSIG(raw) == SIGQUIT && WCOREDUMP(raw));
    let core = Core::read("core")?;
    let bytes: Vec<u8> = MARK.iter().flat_map(|word| word.to_le_bytes()).collect();
    eq!(core.memory(page as u64 + 2 * PAGE as u64, 32), Some(&bytes[..]));
    // Pages that were never written are zeros, and holes in the file.
    eq!(core.memory(page as u64, 32), Some(&[0u8; 32][..]));
    check!((stat_of("core")?.st_blocks as u64) * 512 <= core.data.len() as u64);
    // Of the program's file the first page is there, of the vDSO all.
    if vdso != 0 {
        check!(core.memory(vdso, 4096).is_some_and(|page| page.starts_with(b"\x7fELF")));
    }
    check!(core.loads.iter().any(|load| load.2 == 4096 && load.3 > 4096 && core.memory(load.0, 4) == Some(b"\x7fELF")));
    Ok(())
}

fn none(what: &str, raw: i32) -> Outcome {
    if WCOREDUMP(raw) || std::fs::metadata("core").is_ok() {
        fail!("{what} leaves a core");
    }
    Ok(())
}

fn not_every_death_leaves_a_core() -> Outcome {
    none("SIGTERM", dies(|| die(SIGTERM)).1)?;
    none("SIGKILL", dies(|| die(SIGKILL)).1)?;
    none("no limit", dies(|| { limit(0); die(SIGABRT) }).1)?;
    none("less than a page", dies(|| { limit(4095); die(SIGABRT) }).1)?;
    // SAFETY: the child's own.
    none("not dumpable", dies(|| { unsafe { prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) }; die(SIGABRT) }).1)?;
    make(PATTERN, b"\n")?;
    let empty = dies(|| die(SIGABRT)).1;
    make(PATTERN, b"core\n")?;
    none("an empty pattern", empty)?;
    // A directory that cannot be written to.
    let (_, raw) = dies(|| {
        // SAFETY: the child's own ids; a change of ids makes it undumpable, which it takes back.
        unsafe {
            setresgid(1000, 1000, 1000);
            setresuid(1000, 1000, 1000);
            prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
        }
        die(SIGABRT)
    });
    none("no permission", raw)
}

fn pattern_makes_the_name() -> Outcome {
    eq!(content(PATTERN)?, b"core\n");
    make(PATTERN, b"c.%e.%p.%s.%u.%g.%d.%%.%i%z")?;
    let first = dies(|| die(SIGABRT));
    let shown = content(PATTERN);
    make(PATTERN, b"core")?;
    eq!(shown?, b"c.%e.%p.%s.%u.%g.%d.%%.%i%z\n");
    check!(WCOREDUMP(first.1));
    Core::read(&format!("c.linnet-tests.{}.6.0.0.1.%.{}", first.0, first.0))?;
    make(USES_PID, b"1")?;
    let second = dies(|| die(SIGABRT));
    make(USES_PID, b"0")?;
    Core::read(&format!("core.{}", second.0))?;
    // An absolute pattern does not look at the working directory.
    let here = std::env::current_dir().map(|dir| dir.display().to_string()).unwrap_or_default();
    make(PATTERN, format!("{here}/abs.%E").as_bytes())?;
    let third = dies(|| {
        // SAFETY: the child's own directory.
        unsafe { chdir(c"/".as_ptr()) };
        die(SIGABRT)
    });
    make(PATTERN, b"core")?;
    check!(WCOREDUMP(third.1));
    Core::read("abs.!bin!linnet-tests")?;
    Ok(())
}

fn limit_cuts_the_file() -> Outcome {
    let (_, raw) = dies(|| {
        limit(3 * 4096);
        die(SIGABRT)
    });
    // What there was room for stays, and counts as a core.
    check!(WCOREDUMP(raw));
    let size = stat_of("core")?.st_size;
    check!(size > 0 && size <= 3 * 4096);
    Ok(())
}

fn filter_and_advice_leave_memory_out() -> Outcome {
    eq!(content("/proc/self/coredump_filter")?, b"00000033\n");
    let kept = map(PAGE, RW);
    let left = map(3 * PAGE, RW);
    let shared = map_with(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1);
    for at in [kept, left, shared] {
        // SAFETY: the mappings are ours.
        unsafe { at.write(1) };
    }
    ok!(madvise(left.cast(), 3 * PAGE, MADV_DONTDUMP));
    let run = |filter: &'static str| -> Result<Core, Stop> {
        let (_, raw) = dies(|| {
            let _ = std::fs::write("/proc/self/coredump_filter", filter);
            die(SIGABRT)
        });
        check!(WCOREDUMP(raw));
        Core::read("core")
    };
    let core = run("0x33")?;
    check!(core.memory(kept as u64, 1).is_some() && core.memory(shared as u64, 1).is_some() && core.memory(left as u64, 1).is_none());
    // The mapping is named all the same.
    check!(core.loads.iter().any(|load| load.0 == left as u64 && load.2 == 0));
    let core = run("0x31")?;
    check!(core.memory(kept as u64, 1).is_some() && core.memory(shared as u64, 1).is_none());
    let core = run("0")?;
    check!(core.memory(kept as u64, 1).is_none());
    check!(!core.notes(PRSTATUS).is_empty());
    // A child inherits it; what is no number is refused.
    in_child(|| {
        make("/proc/self/coredump_filter", b"0x7")?;
        let (_, raw) = dies(|| die(SIGTERM));
        check!(!WCOREDUMP(raw));
        in_child(|| {
            eq!(content("/proc/self/coredump_filter")?, b"00000007\n");
            check!(std::fs::write("/proc/self/coredump_filter", b"x").is_err());
            Ok(())
        })
    })
}

fn links_and_the_files_of_others_stay() -> Outcome {
    // What has the core's name goes; what it led to stays as it was.
    make("precious", b"data")?;
    ok!(symlink(c"precious".as_ptr(), c"core".as_ptr()));
    check!(WCOREDUMP(dies(|| die(SIGABRT)).1));
    eq!(content("precious")?, b"data");
    ok!(unlink(c"core".as_ptr()));
    ok!(link(c"precious".as_ptr(), c"core".as_ptr()));
    check!(WCOREDUMP(dies(|| die(SIGABRT)).1));
    eq!(content("precious")?, b"data");
    eq!(stat_of("core")?.st_mode & 0o7777, 0o600);
    // A directory of this name cannot be replaced.
    ok!(unlink(c"core".as_ptr()));
    ok!(mkdir(c"core".as_ptr(), 0o755));
    check!(!WCOREDUMP(dies(|| die(SIGABRT)).1));
    Ok(())
}

fn set_id_programs_leave_none() -> Outcome {
    let (_, raw) = dies(|| {
        // SAFETY: the child's own ids: whoever changed them does not dump.
        unsafe {
            setresgid(1000, 1000, 1000);
            setresuid(1000, 1000, 1000);
        }
        die(SIGABRT)
    });
    none("a process that changed its ids", raw)?;
    // With 2 the core goes to an absolute name, and is root's.
    let here = std::env::current_dir().map(|dir| dir.display().to_string()).unwrap_or_default();
    make("/proc/sys/fs/suid_dumpable", b"2")?;
    make(PATTERN, format!("{here}/root.core").as_bytes())?;
    let (_, raw) = dies(|| {
        // SAFETY: as above.
        unsafe { setresuid(1000, 1000, 1000) };
        die(SIGABRT)
    });
    make("/proc/sys/fs/suid_dumpable", b"0")?;
    make(PATTERN, b"core")?;
    check!(WCOREDUMP(raw));
    eq!(stat_of("root.core")?.st_uid, 0);
    Core::read("root.core").map(|_| ())
}
