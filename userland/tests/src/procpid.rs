//! /proc/PID whole, as gdb, procps, psutil and login read it: memory, rights, settings.

use crate::check::*;
use libc::*;

cases![procpid:
    mem_reads_and_writes, mem_of_unmapped_is_eio, mem_writes_to_read_only_text_stay_private, mem_of_a_dead_process_is_empty,
    private_files_ask_for_the_right, other_users_files_are_root_when_not_dumpable, fd_directory_is_the_owners, kept_file_shows_the_old_program,
    smaps_has_every_row, rollup_adds_up, pagemap_tells_what_is_resident, auxv_is_what_the_program_got, io_counts_calls_and_bytes,
    stat_of_a_thread_is_its_own, stat_hides_addresses, children_are_listed, namespaces_are_links, oom_settings, loginuid_is_set_once,
    timer_slack_is_kept, sysctl_rules, hostname_is_writable, random_ids, comm_of_a_thread, faults_are_counted,
];

fn text(path: &str) -> Result<String, Stop> {
    Ok(String::from_utf8_lossy(&content(path)?).into_owned())
}

/// A child that waits until it is killed; `prepare` runs in it first.
struct Idle(i32);

impl Idle {
    fn new(prepare: impl FnOnce()) -> Result<Self, Stop> {
        idle_child(prepare).map(Self)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        unsafe { kill(self.0, SIGKILL) };
        wait_for(self.0);
    }
}

fn become_user(id: u32) {
    unsafe {
        setgroups(0, std::ptr::null());
        setresgid(id, id, id);
        setresuid(id, id, id);
        prctl(PR_SET_DUMPABLE, 1);
    }
}

fn mem_reads_and_writes() -> Outcome {
    let at = ok!(map(2 * PAGE, RW));
    unsafe { at.cast::<u64>().write_volatile(0x1122_3344) };
    let child = Idle::new(|| ())?;
    let fd = ok!(open_file(&format!("/proc/{}/mem", child.0), O_RDWR, 0));
    let mut word = [0u8; 8];
    eq!(unsafe { pread(fd, word.as_mut_ptr().cast(), 8, at as i64) }, 8);
    eq!(u64::from_le_bytes(word), 0x1122_3344);
    // Across a page, into the child only.
    eq!(unsafe { pwrite(fd, b"abcdefgh".as_ptr().cast(), 8, at as i64 + PAGE as i64 - 4) }, 8);
    let mut back = [0u8; 8];
    eq!(unsafe { pread(fd, back.as_mut_ptr().cast(), 8, at as i64 + PAGE as i64 - 4) }, 8);
    eq!(&back, b"abcdefgh");
    eq!(unsafe { at.add(PAGE).read_volatile() }, 0);
    ok!(lseek(fd, at as i64, SEEK_SET));
    eq!(read_fd(fd, &mut word), 8);
    errno!(lseek(fd, 0, SEEK_END), EINVAL);
    Ok(())
}

fn mem_of_unmapped_is_eio() -> Outcome {
    let at = ok!(map(2 * PAGE, RW));
    ok!(unmap(unsafe { at.add(PAGE) }, PAGE));
    let fd = ok!(open_file("/proc/self/mem", O_RDWR, 0));
    let mut buf = [0u8; 16];
    errno!(pread(fd, buf.as_mut_ptr().cast(), 16, 0), EIO);
    errno!(pread(fd, buf.as_mut_ptr().cast(), 16, at as i64 + PAGE as i64), EIO);
    // What is there before the hole counts.
    let mut two = vec![0u8; 2 * PAGE];
    eq!(unsafe { pread(fd, two.as_mut_ptr().cast(), 2 * PAGE, at as i64) }, PAGE as isize);
    errno!(pread(fd, std::ptr::without_provenance_mut(16), 16, at as i64), EFAULT);
    // Where the program itself may not read, a debugger may.
    unsafe { at.write_volatile(7) };
    ok!(mprotect(at.cast(), PAGE, PROT_NONE));
    eq!(unsafe { pread(fd, buf.as_mut_ptr().cast(), 1, at as i64) }, 1);
    eq!(buf[0], 7);
    Ok(())
}

fn mem_writes_to_read_only_text_stay_private() -> Outcome {
    make("f", &[5u8; PAGE])?;
    let file = ok!(open_file("f", O_RDWR, 0));
    let private = ok!(map_with(PAGE, PROT_READ, MAP_PRIVATE, file));
    let shared = ok!(map_with(PAGE, PROT_READ, MAP_SHARED, file));
    let fd = ok!(open_file("/proc/self/mem", O_RDWR, 0));
    eq!(unsafe { pwrite(fd, b"\x09".as_ptr().cast(), 1, private as i64) }, 1);
    eq!(unsafe { (private.read_volatile(), shared.read_volatile()) }, (9, 5));
    eq!(content("f")?[0], 5);
    // A shared mapping that may not be written stays so.
    errno!(pwrite(fd, b"\x09".as_ptr().cast(), 1, shared as i64), EIO);
    // Again, and after a fork: the child's page is its own.
    let child = Idle::new(|| ())?;
    eq!(unsafe { pwrite(fd, b"\x0a".as_ptr().cast(), 1, private as i64) }, 1);
    let theirs = ok!(open_file(&format!("/proc/{}/mem", child.0), O_RDONLY, 0));
    let mut byte = [0u8];
    eq!(unsafe { pread(theirs, byte.as_mut_ptr().cast(), 1, private as i64) }, 1);
    eq!((byte[0], unsafe { private.read_volatile() }), (9, 10));
    // Zeros, and memory that nobody touched.
    let none = ok!(map(PAGE, PROT_NONE));
    eq!(unsafe { pwrite(fd, b"\x0b".as_ptr().cast(), 1, none as i64) }, 1);
    ok!(mprotect(none.cast(), PAGE, PROT_READ));
    eq!(unsafe { none.read_volatile() }, 11);
    Ok(())
}

fn mem_of_a_dead_process_is_empty() -> Outcome {
    let at = ok!(map(PAGE, RW));
    let child = Idle::new(|| ())?;
    let fd = ok!(open_file(&format!("/proc/{}/mem", child.0), O_RDWR, 0));
    let maps = ok!(open_file(&format!("/proc/{}/maps", child.0), O_RDONLY, 0));
    let env = ok!(open_file(&format!("/proc/{}/environ", child.0), O_RDONLY, 0));
    drop(child);
    eq!(unsafe { pread(fd, [0u8; 8].as_mut_ptr().cast(), 8, at as i64) }, 0);
    errno!(read(maps, [0u8; 64].as_mut_ptr().cast(), 64), ESRCH);
    eq!(read_fd(env, &mut [0u8; 64]), 0);
    Ok(())
}

/// Runs `body` as a user without rights.
fn as_user(id: u32, body: impl FnOnce() -> Outcome) -> Outcome {
    in_child(|| {
        become_user(id);
        body()
    })
}

fn private_files_ask_for_the_right() -> Outcome {
    let mine = Idle::new(|| become_user(1000))?;
    let others = Idle::new(|| become_user(1001))?;
    as_user(1000, || {
        for name in ["mem", "maps", "smaps", "environ", "auxv", "io", "fd", "pagemap"] {
            check!(open_file(&format!("/proc/{}/{name}", mine.0), O_RDONLY, 0) >= 0);
        }
        ok!(access(c(&format!("/proc/{}/cwd", mine.0)).as_ptr(), F_OK));
        for name in ["mem", "maps", "smaps", "environ", "auxv", "fd", "fdinfo", "pagemap"] {
            errno!(open_file(&format!("/proc/{}/{name}", others.0), O_RDONLY, 0), EACCES);
        }
        errno!(access(c(&format!("/proc/{}/cwd", others.0)).as_ptr(), F_OK), EACCES);
        errno!(readlink(c(&format!("/proc/{}/exe", others.0)).as_ptr(), [0u8; 64].as_mut_ptr().cast(), 64), EACCES);
        errno!(readlink(c(&format!("/proc/{}/ns/mnt", others.0)).as_ptr(), [0u8; 64].as_mut_ptr().cast(), 64), EACCES);
        // What everyone may know.
        for name in ["stat", "status", "statm", "cmdline", "limits", "wchan", "oom_score"] {
            check!(content(&format!("/proc/{}/{name}", others.0)).is_ok());
        }
        eq!(text(&format!("/proc/{}/wchan", others.0))?, "0");
        Ok(())
    })
}

fn other_users_files_are_root_when_not_dumpable() -> Outcome {
    let child = Idle::new(|| {
        become_user(1000);
        unsafe { prctl(PR_SET_DUMPABLE, 0) };
    })?;
    let dir = format!("/proc/{}", child.0);
    eq!(stat_of(&dir)?.st_uid, 1000);
    eq!(stat_of(&format!("{dir}/task"))?.st_uid, 1000);
    for name in ["stat", "maps", "fd", "ns", "cwd"] {
        eq!(stat_of(&format!("{dir}/{name}"))?.st_uid, 0);
    }
    as_user(1000, || {
        errno!(open_file(&format!("{dir}/maps"), O_RDONLY, 0), EACCES);
        errno!(open_file(&format!("{dir}/fd"), O_RDONLY, 0), EACCES);
        Ok(())
    })
}

fn fd_directory_is_the_owners() -> Outcome {
    // Also a process that is not dumpable may look at its own.
    as_user(1000, || {
        ok!(prctl(PR_SET_DUMPABLE, 0));
        check!(std::fs::read_dir("/proc/self/fd").is_ok());
        check!(std::fs::read_link("/proc/self/fd/0").is_ok());
        Ok(())
    })
}

fn kept_file_shows_the_old_program() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let (go_reader, go_writer) = new_pipe(O_CLOEXEC)?;
    let marker = ok!(map(PAGE, PROT_READ)) as usize;
    let pid = fork_child(|| {
        read_fd(go_reader, &mut [0]);
        let args = [c"sleep".as_ptr(), c"100".as_ptr(), std::ptr::null()];
        unsafe {
            fcntl(writer, F_SETFD, FD_CLOEXEC);
            execv(c"/bin/busybox".as_ptr(), args.as_ptr());
        }
        1
    });
    close_fd(writer);
    let maps = ok!(open_file(&format!("/proc/{pid}/maps"), O_RDONLY, 0));
    let mem = ok!(open_file(&format!("/proc/{pid}/mem"), O_RDONLY, 0));
    eq!(unsafe { pread(mem, [0u8; 1].as_mut_ptr().cast(), 1, marker as i64) }, 1);
    write_fd(go_writer, b"x");
    // The pipe closes at exec.
    eq!(read_fd(reader, &mut [0]), 0);
    // The old program's memory is gone; the new one's does not show.
    eq!(unsafe { pread(mem, [0u8; 1].as_mut_ptr().cast(), 1, marker as i64) }, 0);
    eq!(read_fd(maps, &mut [0; 10]), 0);
    ok!(kill(pid, SIGKILL));
    wait_for(pid);
    Ok(())
}

const SMAPS_ROWS: [&str; 21] = [
    "Size", "KernelPageSize", "MMUPageSize", "Rss", "Pss", "Pss_Dirty", "Shared_Clean", "Shared_Dirty", "Private_Clean",
    "Private_Dirty", "Referenced", "Anonymous", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb",
    "Private_Hugetlb", "Swap", "SwapPss", "Locked",
];

fn smaps_has_every_row() -> Outcome {
    let at = ok!(map_with(3 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1));
    unsafe { at.write_volatile(1) };
    let all = text("/proc/self/smaps")?;
    let start = format!("{:08x}-", at as usize);
    let mut lines = all.lines().skip_while(|l| !l.starts_with(&start)).skip(1);
    for row in SMAPS_ROWS {
        let Some(line) = lines.next() else { fail!("no {row}") };
        let Some((name, value)) = line.split_once(':') else { fail!("{line:?}") };
        eq!(name, row);
        check!(value.ends_with(" kB") && line.len() == 27);
    }
    eq!(lines.next(), Some("THPeligible:    0"));
    let Some(flags) = lines.next() else { fail!("no flags") };
    check!(flags.starts_with("VmFlags: rd wr mr mw me "));
    Ok(())
}

fn rollup_adds_up() -> Outcome {
    let value = |text: &str, key: &str| -> u64 {
        text.lines().filter(|l| l.starts_with(key)).filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
    };
    // Once before it counts, so that the pages of the program that does it are there.
    value(&text("/proc/self/smaps_rollup")?, "Rss:");
    value(&text("/proc/self/smaps")?, "Rss:");
    let rollup = text("/proc/self/smaps_rollup")?;
    check!(rollup.lines().next().is_some_and(|l| l.ends_with("[rollup]") && l.contains(" ---p 00000000 00:00 0 ")));
    let (sum, smaps) = (value(&rollup, "Rss:"), value(&text("/proc/self/smaps")?, "Rss:"));
    // Reading takes memory itself.
    if sum < 100 || sum.abs_diff(smaps) > 256 {
        fail!("{sum} kB, {smaps} kB in the parts");
    }
    Ok(())
}

fn pagemap_tells_what_is_resident() -> Outcome {
    let at = ok!(map(3 * PAGE, RW));
    unsafe { at.add(PAGE).write_volatile(1) };
    let fd = ok!(open_file("/proc/self/pagemap", O_RDONLY, 0));
    let mut words = [0u64; 3];
    eq!(unsafe { pread(fd, words.as_mut_ptr().cast(), 24, (at as usize / PAGE * 8) as i64) }, 24);
    eq!(words.map(|w| w >> 63), [0, 1, 0]);
    check!(words[1] & ((1 << 55) - 1) != 0);
    errno!(pread(fd, words.as_mut_ptr().cast(), 7, 0), EINVAL);
    as_user(1000, || {
        // Frame numbers are not for everyone.
        unsafe { at.add(PAGE).write_volatile(1) };
        let fd = ok!(open_file("/proc/self/pagemap", O_RDONLY, 0));
        let mut word = [0u64; 1];
        eq!(unsafe { pread(fd, word.as_mut_ptr().cast(), 8, (at as usize / PAGE * 8 + 8) as i64) }, 8);
        eq!((word[0] >> 63, word[0] & ((1 << 55) - 1)), (1, 0));
        Ok(())
    })
}

fn auxv_is_what_the_program_got() -> Outcome {
    let bytes = content("/proc/self/auxv")?;
    check!(bytes.len() % 16 == 0 && bytes.len() >= 16 * 10);
    let words: Vec<u64> = bytes.chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default())).collect();
    for pair in words.chunks(2).filter(|p| p[0] != 0) {
        eq!(pair[1], unsafe { getauxval(pair[0]) });
    }
    eq!(&words[words.len() - 2..], &[0, 0]);
    Ok(())
}

fn io_counts_calls_and_bytes() -> Outcome {
    let read_io = || -> Result<Vec<u64>, Stop> {
        let io = text("/proc/self/io")?;
        let names: Vec<&str> = io.lines().filter_map(|l| l.split(':').next()).collect();
        eq!(names, ["rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes"]);
        Ok(io.lines().filter_map(|l| l.split_whitespace().nth(1)?.parse().ok()).collect())
    };
    let (zero, null) = (ok!(open_file("/dev/zero", O_RDONLY, 0)), ok!(open_file("/dev/null", O_WRONLY, 0)));
    let before = read_io()?;
    let mut buf = [0u8; 1000];
    for _ in 0..5 {
        eq!(read_fd(zero, &mut buf), 1000);
        eq!(write_fd(null, &buf[..100]), 100);
    }
    let after = read_io()?;
    check!((5000..5600).contains(&(after[0] - before[0])));
    eq!(after[1] - before[1], 500);
    check!((5..10).contains(&(after[2] - before[2])));
    eq!(after[3] - before[3], 5);
    Ok(())
}

fn fields(path: &str) -> Result<Vec<String>, Stop> {
    let line = text(path)?;
    let Some((_, tail)) = line.trim_end().rsplit_once(") ") else { fail!("{line:?}") };
    Ok(tail.split(' ').map(str::to_owned).collect())
}

fn stat_of_a_thread_is_its_own() -> Outcome {
    let (tid_reader, tid_writer) = new_pipe(0)?;
    let (go_reader, go_writer) = new_pipe(0)?;
    let thread = std::thread::spawn(move || {
        // Some time on a CPU, none of it the first thread's.
        let end = clock(CLOCK_THREAD_CPUTIME_ID) + 300_000_000;
        while clock(CLOCK_THREAD_CPUTIME_ID) < end {}
        write_fd(tid_writer, &unsafe { gettid() }.to_le_bytes());
        read_fd(go_reader, &mut [0]);
    });
    let mut tid = [0u8; 4];
    eq!(read_fd(tid_reader, &mut tid), 4);
    let (tid, pid) = (i32::from_le_bytes(tid), unsafe { getpid() });
    let time = |f: &[String]| f[11].parse::<u64>().unwrap_or(0) + f[12].parse::<u64>().unwrap_or(0);
    let whole = fields("/proc/self/stat")?;
    let first = fields(&format!("/proc/self/task/{pid}/stat"))?;
    let second = fields(&format!("/proc/self/task/{tid}/stat"))?;
    write_fd(go_writer, b"x");
    let _ = thread.join();
    check!(time(&second) >= 20 && time(&whole) >= time(&second) && time(&first) < time(&whole));
    // Threads, exit signal (a thread has none), and whether it waits.
    eq!((whole[17].as_str(), whole[35].as_str(), second[35].as_str()), ("2", "17", "-1"));
    eq!((whole[0].as_str(), whole[32].as_str()), ("R", "0"));
    eq!((second[0].as_str(), second[32].as_str()), ("S", "1"));
    Ok(())
}

fn stat_hides_addresses() -> Outcome {
    let child = Idle::new(|| become_user(1001))?;
    let path = format!("/proc/{}/stat", child.0);
    let open_view = fields(&path)?;
    check!(open_view[23].len() > 3 && open_view[25].len() > 8);
    as_user(1000, || {
        let f = fields(&path)?;
        eq!((f[23].as_str(), f[24].as_str(), f[25].as_str(), f[32].as_str()), ("1", "1", "0", "0"));
        check!(f[42..50].iter().all(|f| f == "0"));
        Ok(())
    })
}

fn children_are_listed() -> Outcome {
    let (a, b) = (Idle::new(|| ())?, Idle::new(|| ())?);
    let path = format!("/proc/self/task/{}/children", unsafe { getpid() });
    let mut list: Vec<i32> = text(&path)?.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    list.sort_unstable();
    let mut want = vec![a.0, b.0];
    want.sort_unstable();
    eq!(list, want);
    Ok(())
}

fn namespaces_are_links() -> Outcome {
    for (name, kind) in [("mnt", "mnt"), ("uts", "uts"), ("pid", "pid"), ("pid_for_children", "pid")] {
        let Ok(target) = std::fs::read_link(format!("/proc/self/ns/{name}")) else { fail!("no {name}") };
        let target = target.to_string_lossy().into_owned();
        check!(target.starts_with(&format!("{kind}:[40265318")) && target.ends_with(']'));
    }
    eq!(stat_of("/proc/self/ns")?.st_mode & 0o7777, 0o511);
    Ok(())
}

fn oom_settings() -> Outcome {
    in_child(|| {
        make("/proc/self/oom_score_adj", b"500\n")?;
        eq!(text("/proc/self/oom_score_adj")?, "500\n");
        eq!(text("/proc/self/oom_adj")?, "8\n");
        make("/proc/self/oom_adj", b"15")?;
        eq!(text("/proc/self/oom_score_adj")?, "1000\n");
        make("/proc/self/oom_adj", b"-17")?;
        eq!(text("/proc/self/oom_score_adj")?, "-1000\n");
        let fd = ok!(open_file("/proc/self/oom_score_adj", O_WRONLY, 0));
        for bad in ["1001", "x", "-1001", ""] {
            if !bad.is_empty() {
                errno!(write(fd, bad.as_ptr().cast(), bad.len()), EINVAL);
            }
        }
        make("/proc/self/oom_score_adj", b"0")?;
        become_user(1000);
        let fd = ok!(open_file("/proc/self/oom_score_adj", O_WRONLY, 0));
        errno!(write(fd, c"-1".as_ptr().cast(), 2), EACCES);
        eq!(write_fd(fd, b"10"), 2);
        Ok(())
    })
}

fn loginuid_is_set_once() -> Outcome {
    in_child(|| {
        eq!(text("/proc/self/loginuid")?, "4294967295");
        eq!(text("/proc/self/sessionid")?, "4294967295");
        become_user(1000);
        let fd = ok!(open_file("/proc/self/loginuid", O_WRONLY, 0));
        eq!(write_fd(fd, b"1000"), 4);
        eq!(text("/proc/self/loginuid")?, "1000");
        let session = text("/proc/self/sessionid")?;
        check!(session != "4294967295");
        // A child has it too, and nobody changes it without the right.
        in_child(|| {
            eq!(text("/proc/self/loginuid")?, "1000");
            eq!(text("/proc/self/sessionid")?, session.clone());
            Ok(())
        })?;
        let fd = ok!(open_file("/proc/self/loginuid", O_WRONLY, 0));
        errno!(write(fd, c"1001".as_ptr().cast(), 4), EPERM);
        Ok(())
    })
}

fn timer_slack_is_kept() -> Outcome {
    in_child(|| {
        eq!(text("/proc/self/timerslack_ns")?, "50000\n");
        ok!(prctl(PR_SET_TIMERSLACK, 70000));
        eq!(ok!(prctl(PR_GET_TIMERSLACK)), 70000);
        eq!(text("/proc/self/timerslack_ns")?, "70000\n");
        in_child(|| {
            eq!(ok!(prctl(PR_GET_TIMERSLACK)), 70000);
            Ok(())
        })
    })
}

fn sysctl_rules() -> Outcome {
    let path = "/proc/sys/kernel/yama/ptrace_scope";
    eq!(text(path)?, "0\n");
    eq!(stat_of(path)?.st_mode & 0o777, 0o644);
    let fd = ok!(open_file(path, O_RDWR, 0));
    for bad in ["4", "-1", "x", " ", "1x"] {
        errno!(pwrite(fd, bad.as_ptr().cast(), bad.len(), 0), EINVAL);
    }
    // Behind the first byte nothing counts.
    eq!(unsafe { pwrite(fd, b"1".as_ptr().cast(), 1, 1) }, 1);
    eq!(text(path)?, "0\n");
    eq!(unsafe { pwrite(fd, b" 0x1 \n".as_ptr().cast(), 6, 0) }, 6);
    eq!(text(path)?, "1\n");
    eq!(unsafe { pwrite(fd, b"0 7".as_ptr().cast(), 3, 0) }, 2);
    eq!(text(path)?, "0\n");
    as_user(1000, || {
        errno!(open_file(path, O_WRONLY, 0), EACCES);
        Ok(())
    })
}

fn hostname_is_writable() -> Outcome {
    let before = text("/proc/sys/kernel/hostname")?;
    make("/proc/sys/kernel/hostname", b"finch\nrest")?;
    let name = text("/proc/sys/kernel/hostname")?;
    let mut uts = zero::<utsname>();
    ok!(uname(&mut uts));
    make("/proc/sys/kernel/hostname", before.as_bytes())?;
    eq!(name, "finch\n");
    eq!(uts.nodename[..6].iter().map(|c| *c as u8).collect::<Vec<_>>(), b"finch\0");
    eq!(text("/proc/sys/kernel/hostname")?, before);
    Ok(())
}

fn random_ids() -> Outcome {
    let (a, b) = (text("/proc/sys/kernel/random/uuid")?, text("/proc/sys/kernel/random/uuid")?);
    check!(a != b && a.len() == 37 && a.as_bytes()[14] == b'4' && b"89ab".contains(&a.as_bytes()[19]));
    eq!(text("/proc/sys/kernel/random/boot_id")?, text("/proc/sys/kernel/random/boot_id")?);
    eq!(text("/proc/sys/kernel/random/poolsize")?, "256\n");
    Ok(())
}

fn comm_of_a_thread() -> Outcome {
    let (tid_reader, tid_writer) = new_pipe(0)?;
    let (go_reader, go_writer) = new_pipe(0)?;
    let thread = std::thread::spawn(move || {
        write_fd(tid_writer, &unsafe { gettid() }.to_le_bytes());
        read_fd(go_reader, &mut [0]);
    });
    let mut tid = [0u8; 4];
    eq!(read_fd(tid_reader, &mut tid), 4);
    let path = format!("/proc/self/task/{}/comm", i32::from_le_bytes(tid));
    make(&path, b"worker-with-a-long-name")?;
    let name = text(&path)?;
    let own = text("/proc/self/comm")?;
    write_fd(go_writer, b"x");
    let _ = thread.join();
    check!(own != name);
    eq!(name, "worker-with-a-l\n");
    // Nobody else's.
    let child = Idle::new(|| ())?;
    let fd = ok!(open_file(&format!("/proc/{}/comm", child.0), O_WRONLY, 0));
    errno!(write(fd, c"x".as_ptr().cast(), 1), EINVAL);
    Ok(())
}

fn faults_are_counted() -> Outcome {
    let usage = || {
        let mut out = zero::<rusage>();
        unsafe { getrusage(RUSAGE_SELF, &mut out) };
        out.ru_minflt
    };
    let at = ok!(map(100 * PAGE, RW));
    let before = (usage(), fields("/proc/self/stat")?[7].parse::<i64>().unwrap_or(-1));
    (0..100).for_each(|i| unsafe { at.add(i * PAGE).write_volatile(1) });
    let after = (usage(), fields("/proc/self/stat")?[7].parse::<i64>().unwrap_or(-1));
    check!(after.0 - before.0 >= 100 && after.1 - before.1 >= 100);
    Ok(())
}
