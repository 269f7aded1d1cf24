//! Where exec puts a program, and what its personality changes (`personality(2)`).

use crate::check::*;
use crate::elf::{BASE, CODE, Header, Probe, anywhere, exec, fixed, with_interpreter};
use libc::*;

cases![places:
    stack_starts_within_its_limit, without_randomisation_maps_are_equal, level_zero_makes_maps_equal, level_one_keeps_the_heap_in_place,
    level_two_moves_everything, unlimited_stack_places_upwards, set_id_programs_have_a_stack_with_an_end, page_zero_appears_when_asked, personality_is_inherited_and_kept,
    set_id_programs_get_their_own_personality, readable_means_executable_when_asked, old_programs_see_an_old_release,
    timeouts_stick_when_asked, unreadable_program_is_not_dumpable, set_id_program_is_not_dumpable, branch_targets_are_checked,
    unknown_protection_bits,
];

const NO_RANDOM: u64 = 0x0004_0000;
const PAGE_ZERO: u64 = 0x0010_0000;
const READ_EXEC: u64 = 0x0040_0000;
const UNAME26: u64 = 0x0002_0000;
const STICKY: u64 = 0x0400_0000;
const LEVEL: &str = "/proc/sys/kernel/randomize_va_space";

fn set_personality(to: u64) -> i32 {
    // SAFETY: the process's own.
    unsafe { personality(to as c_ulong) }
}

fn stack_starts_within_its_limit() -> Outcome {
    fixed().install("p")?;
    let start = |limit: u64| {
        Probe::start_with(0, || {
            let limit = rlimit { rlim_cur: limit, rlim_max: RLIM_INFINITY };
            // SAFETY: the child's own limit.
            unsafe { setrlimit(RLIMIT_STACK, &limit) };
            exec("./p", &["p"], &[])
        })
    };
    for (limit, least, most) in [(64 << 10, 64 << 10, 64 << 10), (8 << 20, 132 << 10, 140 << 10)] {
        let probe = start(limit)?;
        let (low, high, _) = probe.area("[stack]")?;
        if !(least..=most).contains(&(high - low)) {
            fail!("{} bytes of stack with a limit of {limit}", high - low);
        }
        probe.finish()?;
    }
    Ok(())
}

/// What /proc/PID/maps says of a program that names an interpreter, and its heap.
fn maps() -> Result<(String, u64), Stop> {
    let probe = Probe::start("./q", &["q"], &[], 0)?;
    let text = String::from_utf8_lossy(&probe.proc_file("maps")?).into_owned();
    let heap = probe.stat(47)?;
    probe.finish()?;
    Ok((text, heap))
}

fn install_dynamic() -> Outcome {
    anywhere(4096).install("ld")?;
    with_interpreter(b"./ld\0", 4096).install("q")
}

fn without_randomisation_maps_are_equal() -> Outcome {
    install_dynamic()?;
    in_child(|| {
        ok!(set_personality(NO_RANDOM));
        let first = maps()?;
        eq!(maps()?, first.clone());
        eq!(maps()?, first.clone());
        // Two thirds of user space, as debuggers' users know it.
        check!(first.0.starts_with("aaaaaaaa"));
        // The heap follows the program at once.
        check!(first.1 < 0xaaaa_aaab_0000);
        Ok(())
    })
}

fn level_zero_makes_maps_equal() -> Outcome {
    install_dynamic()?;
    make(LEVEL, b"0\n")?;
    eq!(content(LEVEL)?, b"0\n");
    let run = maps().and_then(|a| Ok((a, maps()?)));
    make(LEVEL, b"2\n")?;
    let (first, second) = run?;
    eq!(first, second);
    check!(std::fs::write(LEVEL, b"x").is_err());
    eq!(content(LEVEL)?, b"2\n");
    Ok(())
}

fn level_one_keeps_the_heap_in_place() -> Outcome {
    fixed().install("p")?;
    make(LEVEL, b"1\n")?;
    let run = || -> Result<Vec<(u64, u64)>, Stop> {
        let mut out = Vec::new();
        for _ in 0..6 {
            let probe = Probe::start("./p", &["p"], &[], 0)?;
            out.push((probe.stat(47)?, probe.sp()));
            probe.finish()?;
        }
        Ok(out)
    };
    let places = run();
    make(LEVEL, b"2\n")?;
    let places = places?;
    // Behind the program's one page.
    check!(places.iter().all(|(heap, _)| *heap == BASE + 4096));
    check!(places.iter().any(|(_, sp)| *sp != places[0].1));
    Ok(())
}

fn level_two_moves_everything() -> Outcome {
    install_dynamic()?;
    eq!(content(LEVEL)?, b"2\n");
    let mut all = vec![Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..6 {
        let probe = Probe::start("./q", &["q"], &[], 0)?;
        let program = probe.aux(AT_ENTRY)? - CODE as u64;
        for (list, place) in all.iter_mut().zip([probe.sp(), probe.stat(47)? - program, program, probe.aux(AT_BASE)?]) {
            list.push(place);
        }
        probe.finish()?;
    }
    for mut list in all {
        list.sort_unstable();
        list.dedup();
        check!(list.len() > 3);
    }
    Ok(())
}

fn unlimited_stack_places_upwards() -> Outcome {
    anywhere(4096).install("q")?;
    let probe = Probe::start_with(0, || {
        let limit = rlimit { rlim_cur: RLIM_INFINITY, rlim_max: RLIM_INFINITY };
        // SAFETY: the child's own limit.
        unsafe { setrlimit(RLIMIT_STACK, &limit) };
        exec("./q", &["q"], &[])
    })?;
    // From a quarter of user space on.
    check!((0x4000_0000_0000..0x4001_0000_0000).contains(&probe.pc()));
    probe.finish()
}

fn set_id_programs_have_a_stack_with_an_end() -> Outcome {
    anywhere(4096).install("q")?;
    ok!(chmod(c".".as_ptr(), 0o755));
    ok!(chown(c"q".as_ptr(), 1234, 0));
    ok!(chmod(c"q".as_ptr(), 0o4755));
    let probe = Probe::start_with(0, || {
        let limit = rlimit { rlim_cur: RLIM_INFINITY, rlim_max: RLIM_INFINITY };
        // SAFETY: the child's own limit and ids.
        unsafe {
            setrlimit(RLIMIT_STACK, &limit);
            setresuid(1000, 1000, 1000);
        }
        exec("./q", &["q"], &[])
    })?;
    // Below the stack, as if its limit were 8 MiB, and not from a quarter of user space on.
    eq!(probe.aux(AT_SECURE)?, 1);
    check!(probe.pc() > 0xf000_0000_0000);
    probe.finish()?;
    // What its parent's end would have sent it is forgotten.
    crate::exec::copy_of_tests("copy")?;
    let signal_of = |mode: u32| -> Result<String, Stop> {
        ok!(chown(c"copy".as_ptr(), 1234, 0));
        ok!(chmod(c"copy".as_ptr(), mode));
        let (reader, writer) = new_pipe(O_CLOEXEC)?;
        let pid = fork_child(|| {
            // SAFETY: the child's own descriptors and ids.
            unsafe {
                dup2(writer, 1);
                setresuid(1000, 1000, 1000);
                prctl(PR_SET_PDEATHSIG, SIGUSR1);
            }
            crate::exec::exec("./copy", &["copy", "--helper=parent-death"], &[]);
            99
        });
        close_fd(writer);
        let text = String::from_utf8_lossy(&read_to_end(reader)).into_owned();
        eq!(wait_for(pid), Status::Exited(0));
        Ok(text)
    };
    eq!(signal_of(0o755)?, SIGUSR1.to_string());
    eq!(signal_of(0o4755)?, "0");
    Ok(())
}

fn page_zero_appears_when_asked() -> Outcome {
    fixed().install("p")?;
    for (flags, want) in [(PAGE_ZERO, true), (0, false)] {
        let probe = Probe::start_with(0, || {
            set_personality(flags);
            exec("./p", &["p"], &[])
        })?;
        let text = String::from_utf8_lossy(&probe.proc_file("maps")?).into_owned();
        eq!(text.starts_with("00000000-00001000 r-xp"), want);
        probe.finish()?;
    }
    Ok(())
}

fn personality_is_inherited_and_kept() -> Outcome {
    fixed().install("p")?;
    eq!(ok!(set_personality(0xffff_ffff)), 0);
    in_child(|| {
        eq!(ok!(set_personality(NO_RANDOM | STICKY | READ_EXEC | 0x0080_0000)), 0);
        // Bits without an effect are kept, too.
        eq!(ok!(set_personality(0xffff_ffff)), 0x0484_0000 | READ_EXEC as i32);
        eq!(content("/proc/self/personality")?, b"04c40000\n");
        in_child(|| {
            eq!(ok!(set_personality(0xffff_ffff)), 0x04c4_0000);
            Ok(())
        })?;
        // exec keeps all but the flag that its own files decide.
        let probe = Probe::start("./p", &["p"], &[], 0)?;
        eq!(probe.proc_file("personality")?, b"04840000\n");
        probe.finish()
    })
}

fn set_id_programs_get_their_own_personality() -> Outcome {
    fixed().install("p")?;
    ok!(chmod(c".".as_ptr(), 0o755));
    ok!(chown(c"p".as_ptr(), 1234, 0));
    ok!(chmod(c"p".as_ptr(), 0o4755));
    let probe = Probe::start_with(0, || {
        set_personality(NO_RANDOM | STICKY | PAGE_ZERO | 0x0020_0000);
        // SAFETY: the child's own ids.
        unsafe { setresuid(1000, 1000, 1000) };
        exec("./p", &["p"], &[])
    })?;
    eq!(probe.proc_file("personality")?, b"04000000\n");
    probe.finish()
}

fn readable_means_executable_when_asked() -> Outcome {
    in_child(|| {
        ok!(set_personality(READ_EXEC));
        let before = map(PAGE, PROT_NONE);
        let at = map(3 * PAGE, RW);
        let text = || -> Result<String, Stop> { Ok(String::from_utf8_lossy(&content("/proc/self/maps")?).into_owned()) };
        let line = |text: &str, at: *mut u8| text.lines().find(|line| line.starts_with(&format!("{:08x}-", at as usize))).map(|line| line.split(' ').nth(1).unwrap_or("").to_string());
        eq!(line(&text()?, at), Some("rwxp".to_string()));
        // A mapping that may not be read does not become executable; mprotect follows the same rule.
        ok!(mprotect(before.cast(), PAGE, PROT_READ));
        eq!(line(&text()?, before), Some("r-xp".to_string()));
        Ok(())
    })
}

fn release() -> Result<String, Stop> {
    let mut names = zero::<utsname>();
    ok!(uname(&mut names));
    // SAFETY: the kernel ends the name with a NUL.
    Ok(unsafe { std::ffi::CStr::from_ptr(names.release.as_ptr()) }.to_string_lossy().into_owned())
}

fn old_programs_see_an_old_release() -> Outcome {
    let new = release()?;
    let minor: u32 = new.split('.').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    in_child(|| {
        ok!(set_personality(UNAME26));
        let old = release()?;
        check!(old.starts_with(&format!("2.6.{}-", minor + 60)));
        check!(old.ends_with(new.split_once('-').map_or("", |(_, rest)| rest)));
        Ok(())
    })
}

fn timeouts_stick_when_asked() -> Outcome {
    in_child(|| {
        let (reader, _writer) = new_pipe(0)?;
        let wait = |timeout: &mut timespec| {
            let mut set = zero::<fd_set>();
            // SAFETY: live arguments; no mask.
            unsafe {
                FD_SET(reader, &mut set);
                syscall(SYS_pselect6, reader + 1, &mut set, 0, 0, timeout as *mut timespec, 0)
            }
        };
        let mut timeout = timespec(20_000_000);
        eq!(ok!(wait(&mut timeout)), 0);
        eq!((timeout.tv_sec, timeout.tv_nsec), (0, 0));
        ok!(set_personality(STICKY));
        let mut timeout = timespec(20_000_000);
        eq!(ok!(wait(&mut timeout)), 0);
        eq!((timeout.tv_sec, timeout.tv_nsec), (0, 20_000_000));
        Ok(())
    })
}

/// PR_GET_DUMPABLE of a copy of this program with these permissions, run by user 1000.
fn dumpable_of(owner: u32, mode: u32) -> Result<String, Stop> {
    crate::exec::copy_of_tests("copy")?;
    ok!(chmod(c".".as_ptr(), 0o755));
    ok!(chown(c"copy".as_ptr(), owner, 0));
    ok!(chmod(c"copy".as_ptr(), mode));
    let (reader, writer) = new_pipe(O_CLOEXEC)?;
    let pid = fork_child(|| {
        // SAFETY: the child's own descriptors and ids.
        unsafe {
            dup2(writer, 1);
            setresgid(1000, 1000, 1000);
            setresuid(1000, 1000, 1000);
        }
        crate::exec::exec("./copy", &["copy", "--helper=dumpable"], &[]);
        99
    });
    close_fd(writer);
    let text = String::from_utf8_lossy(&read_to_end(reader)).into_owned();
    eq!(wait_for(pid), Status::Exited(0));
    Ok(text)
}

fn unreadable_program_is_not_dumpable() -> Outcome {
    eq!(dumpable_of(0, 0o755)?, "1");
    eq!(dumpable_of(0, 0o711)?, "0");
    // Its files in /proc are root's: a process may not look into it.
    fixed().install("p")?;
    ok!(chmod(c"p".as_ptr(), 0o711));
    let probe = Probe::start_with(0, || {
        // SAFETY: the child's own ids.
        unsafe { setresuid(1000, 1000, 1000) };
        exec("./p", &["p"], &[])
    })?;
    let owner = stat_of(&format!("/proc/{}/maps", probe.pid))?.st_uid;
    eq!(owner, 0);
    let pid = probe.pid;
    in_child(|| {
        // SAFETY: the child's own ids.
        unsafe { setresuid(1000, 1000, 1000) };
        errno!(open_file(&format!("/proc/{pid}/maps"), O_RDONLY, 0), EACCES);
        Ok(())
    })?;
    probe.finish()?;
    // So is one whose interpreter cannot be read.
    anywhere(4096).install("ld")?;
    ok!(chmod(c"ld".as_ptr(), 0o711));
    with_interpreter(b"./ld\0", 4096).install("q")?;
    let probe = Probe::start_with(0, || {
        // SAFETY: the child's own ids.
        unsafe { setresuid(1000, 1000, 1000) };
        exec("./q", &["q"], &[])
    })?;
    eq!(stat_of(&format!("/proc/{}/maps", probe.pid))?.st_uid, 0);
    probe.finish()
}

fn set_id_program_is_not_dumpable() -> Outcome {
    eq!(dumpable_of(1234, 0o4755)?, "0");
    const SUID: &str = "/proc/sys/fs/suid_dumpable";
    eq!(content(SUID)?, b"0\n");
    check!(std::fs::write(SUID, b"3").is_err());
    make(SUID, b"2")?;
    let root = dumpable_of(1234, 0o4755);
    make(SUID, b"0")?;
    eq!(root?, "2");
    // Programs choose between the other two values only.
    errno!(prctl(PR_SET_DUMPABLE, 2, 0, 0, 0), EINVAL);
    in_child(|| {
        ok!(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
        eq!(ok!(prctl(PR_GET_DUMPABLE)), 0);
        // A change of ids ends it, too.
        ok!(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
        ok!(setresuid(1000, 1000, 1000));
        eq!(ok!(prctl(PR_GET_DUMPABLE)), 0);
        Ok(())
    })
}

/// The note that marks code for branch target identification.
fn bti_note() -> Vec<u8> {
    let mut out = Vec::new();
    for word in [4u32, 16, 5] {
        out.extend(word.to_le_bytes());
    }
    out.extend(b"GNU\0");
    for word in [0xc000_0000u32, 4, 1, 0] {
        out.extend(word.to_le_bytes());
    }
    out
}

const HWCAP2_BTI: u64 = 1 << 17;
const PROT_BTI: i32 = 0x10;

fn branch_targets_are_checked() -> Outcome {
    // A program that jumps to an instruction that is no landing pad: adr x9, 1f; br x9; 1: ...
    let code = [0x1000_0049u32, 0xd61f_0120, 0xd280_0000, 0xd280_0bc8, 0xd400_0001];
    let marked = |marked: bool| {
        let mut elf = fixed();
        elf.rest = [code.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>(), vec![0; 4076], bti_note()].concat();
        elf.headers[0] = Header(PT_LOAD, PF_R | PF_X, 0, BASE, 0x2000 + 32, 0x2000 + 32, 4096);
        if marked {
            elf.headers.push(Header(0x6474_e553, PF_R, 0x2000, BASE + 0x2000, 32, 32, 8));
        }
        let mut bytes = elf.bytes();
        bytes[24..32].copy_from_slice(&(BASE + 0x1000).to_le_bytes());
        bytes
    };
    // SAFETY: reads what the kernel left on the stack.
    let has = unsafe { getauxval(AT_HWCAP2) } & HWCAP2_BTI != 0;
    crate::elf::program("plain", &marked(false))?;
    crate::elf::program("marked", &marked(true))?;
    let run = |path: &'static str| child(move || exec(path, &["p"], &[]));
    eq!(run("./plain"), Status::Exited(0));
    eq!(run("./marked"), if has { Status::Killed(SIGILL) } else { Status::Exited(0) });
    // A note that is none refuses the program, whatever the CPU.
    let mut bad = marked(true);
    bad[0x2000] = 5;
    crate::elf::program("bad", &bad)?;
    eq!(crate::elf::refusal("./bad"), Some(ENOEXEC));
    // The same by hand.
    let page = map(PAGE, RW);
    // SAFETY: the page is ours and writable.
    unsafe { std::ptr::copy_nonoverlapping([0xd65f_03c0u32].as_ptr(), page.cast(), 1) };
    if has {
        ok!(mprotect(page.cast(), PAGE, PROT_READ | PROT_EXEC | PROT_BTI));
    } else {
        errno!(mprotect(page.cast(), PAGE, PROT_READ | PROT_EXEC | PROT_BTI), EINVAL);
        ok!(mprotect(page.cast(), PAGE, PROT_READ | PROT_EXEC));
    }
    let called = child(|| {
        // SAFETY: the page holds a `ret`.
        unsafe { std::mem::transmute::<*mut u8, extern "C" fn()>(page)() };
        0
    });
    eq!(called, if has { Status::Killed(SIGILL) } else { Status::Exited(0) });
    Ok(())
}

fn unknown_protection_bits() -> Outcome {
    // mmap ignores them, mprotect refuses them.
    let page = map(PAGE, RW | 0x4000);
    check!(page as isize != -1);
    errno!(mprotect(page.cast(), PAGE, RW | 0x4000), EINVAL);
    Ok(())
}
