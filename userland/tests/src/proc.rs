//! /proc, as ps, top, free, mount and the C library read it.

use crate::check::*;
use libc::*;

cases![proc:
    stat_has_52_fields, statm_counts_pages, status_names_and_ids, cmdline_and_environ, exe_cwd_root_links, fd_directory,
    meminfo_adds_up, uptime_and_loadavg, version_and_filesystems, mounts_has_root, system_stat_has_cpus, cpuinfo_matches_nproc,
    self_is_a_link, missing_process_is_enoent, readdir_lists_processes, processes_come_and_go, reads_continue,
    writes_are_refused, fdinfo_shows_itself, sys_kernel_values, comm_can_be_written,
];

fn text(path: &str) -> Result<String, Stop> {
    Ok(String::from_utf8_lossy(&content(path)?).into_owned())
}

fn fdinfo_shows_itself() -> Outcome {
    // The file that is read becomes the one that it tells of.
    let held = ok!(dup(0));
    let fd = ok!(open_file(&format!("/proc/self/fdinfo/{held}"), O_RDONLY, 0));
    ok!(dup2(fd, held));
    let mut part = [0; 512];
    let got = ok!(read_fd(fd, &mut part)) as usize;
    let shown = String::from_utf8_lossy(&part[..got]).into_owned();
    check!(shown.starts_with("pos:\t0\nflags:\t0"));
    Ok(())
}

fn stat_has_52_fields() -> Outcome {
    let line = text("/proc/self/stat")?;
    let Some((head, tail)) = line.rsplit_once(") ") else { fail!("no name in {line:?}") };
    check!(head.ends_with("(linnet-tests"));
    let fields: Vec<&str> = tail.split_whitespace().collect();
    eq!(fields.len(), 50);
    eq!(fields[0], "R");
    unsafe {
        eq!(fields[1].parse(), Ok(getppid()));
        eq!(fields[2].parse(), Ok(getpgrp()));
        eq!(fields[3].parse(), Ok(getsid(0)));
    }
    eq!(fields[17], "1");
    check!(fields[20].parse::<u64>().is_ok_and(|size| size > 100_000));
    Ok(())
}

fn statm_counts_pages() -> Outcome {
    let pages = || -> Result<Vec<u64>, Stop> { Ok(text("/proc/self/statm")?.split_whitespace().filter_map(|n| n.parse().ok()).collect()) };
    let before = pages()?;
    eq!(before.len(), 7);
    let at = ok!(map(1000 * PAGE, RW));
    (0..1000).for_each(|i| unsafe { at.add(i * PAGE).write_volatile(1) });
    let after = pages()?;
    check!(after[0] >= before[0] + 1000);
    check!(after[1] >= before[1] + 900);
    Ok(())
}

fn status_names_and_ids() -> Outcome {
    let status = text("/proc/self/status")?;
    for line in ["Name:\tlinnet-tests", "State:\tR (running)", "Uid:\t0\t0\t0\t0", "Gid:\t0\t0\t0\t0", "Threads:\t1"] {
        if !status.lines().any(|have| have == line) {
            fail!("no line {line:?}");
        }
    }
    for key in ["Pid:", "PPid:", "VmSize:", "VmRSS:", "SigPnd:", "SigBlk:", "SigIgn:", "SigCgt:"] {
        if !status.lines().any(|have| have.starts_with(key)) {
            fail!("no {key:?}");
        }
    }
    Ok(())
}

fn cmdline_and_environ() -> Outcome {
    check!(content("/proc/self/cmdline")?.starts_with(b"linnet-tests") || text("/proc/self/cmdline")?.contains("linnet-tests\0"));
    check!(text("/proc/self/environ")?.contains("PATH="));
    eq!(text("/proc/2/cmdline")?, "");
    Ok(())
}

fn link_of(path: &str) -> Result<String, Stop> {
    match std::fs::read_link(path) {
        Ok(target) => Ok(target.to_string_lossy().into_owned()),
        Err(error) => fail!("{path}: {error}"),
    }
}

fn exe_cwd_root_links() -> Outcome {
    eq!(link_of("/proc/self/exe")?, "/bin/linnet-tests");
    eq!(link_of("/proc/self/cwd")?, "/tmp/linnet-tests");
    eq!(link_of("/proc/self/root")?, "/");
    make("f", b"x")?;
    eq!(content("/proc/self/cwd/f")?, b"x");
    Ok(())
}

fn fd_directory() -> Outcome {
    let fd = ok!(open_file("/dev/null", O_RDWR, 0));
    eq!(link_of(&format!("/proc/self/fd/{fd}"))?, "/dev/null");
    let (reader, _writer) = new_pipe(0)?;
    check!(link_of(&format!("/proc/self/fd/{reader}"))?.starts_with("pipe:["));
    close_fd(fd);
    errno!(access(c(&format!("/proc/self/fd/{fd}")).as_ptr(), F_OK), ENOENT);
    Ok(())
}

fn meminfo_adds_up() -> Outcome {
    let info = text("/proc/meminfo")?;
    let value = |key: &str| -> u64 {
        let line = info.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    check!(value("MemTotal:") > 8000);
    check!(value("MemFree:") > 0 && value("MemFree:") < value("MemTotal:"));
    check!(value("MemAvailable:") <= value("MemTotal:"));
    check!(info.contains("Buffers:") && info.contains("Cached:") && info.contains("SwapTotal:"));
    let mut out = zero::<sysinfo>();
    ok!(libc::sysinfo(&mut out));
    eq!(out.totalram * u64::from(out.mem_unit) / 1024, value("MemTotal:"));
    Ok(())
}

fn uptime_and_loadavg() -> Outcome {
    let uptime = text("/proc/uptime")?;
    let seconds: f64 = uptime.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(-1.0);
    check!((seconds - clock(CLOCK_BOOTTIME) as f64 / 1e9).abs() < 5.0);
    eq!(text("/proc/loadavg")?.split_whitespace().count(), 5);
    Ok(())
}

fn version_and_filesystems() -> Outcome {
    check!(text("/proc/version")?.starts_with("Linux version 6.1."));
    let kinds = text("/proc/filesystems")?;
    for kind in ["nodev\tproc", "nodev\ttmpfs", "nodev\tdevtmpfs"] {
        check!(kinds.lines().any(|line| line == kind));
    }
    Ok(())
}

fn mounts_has_root() -> Outcome {
    let mounts = text("/proc/mounts")?;
    for (place, kind) in [("/", "rootfs"), ("/proc", "proc"), ("/tmp", "tmpfs"), ("/dev", "devtmpfs")] {
        if !mounts.lines().any(|line| line.split(' ').nth(1) == Some(place) && line.split(' ').nth(2) == Some(kind)) {
            fail!("no {kind} on {place} in {mounts:?}");
        }
    }
    eq!(link_of("/proc/mounts")?, "self/mounts");
    Ok(())
}

fn cpus() -> usize {
    let mut set = zero::<cpu_set_t>();
    unsafe {
        sched_getaffinity(0, std::mem::size_of::<cpu_set_t>(), &mut set);
        CPU_COUNT(&set) as usize
    }
}

fn system_stat_has_cpus() -> Outcome {
    let stat = text("/proc/stat")?;
    let lines: Vec<&str> = stat.lines().filter(|line| line.starts_with("cpu")).collect();
    eq!(lines.len(), cpus() + 1);
    check!(lines[0].split_whitespace().count() >= 9);
    for key in ["ctxt ", "btime ", "processes ", "procs_running "] {
        check!(stat.lines().any(|line| line.starts_with(key)));
    }
    Ok(())
}

fn cpuinfo_matches_nproc() -> Outcome {
    let info = text("/proc/cpuinfo")?;
    eq!(info.lines().filter(|line| line.starts_with("processor\t: ")).count(), cpus());
    for key in ["BogoMIPS\t: ", "Features\t: fp asimd", "CPU implementer\t: 0x", "CPU architecture: 8", "CPU part\t: 0x"] {
        check!(info.lines().any(|line| line.starts_with(key)));
    }
    Ok(())
}

fn self_is_a_link() -> Outcome {
    eq!(link_of("/proc/self")?, unsafe { getpid() }.to_string());
    Ok(())
}

fn missing_process_is_enoent() -> Outcome {
    for path in [c"/proc/999999", c"/proc/999999/stat", c"/proc/self/missing", c"/proc/01", c"/proc/-1"] {
        errno!(access(path.as_ptr(), F_OK), ENOENT);
    }
    Ok(())
}

fn readdir_lists_processes() -> Outcome {
    let Ok(list) = std::fs::read_dir("/proc") else { fail!("cannot read /proc") };
    let names: Vec<String> = list.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    for name in ["1", "2", "self", "meminfo", "stat", "uptime", &unsafe { getpid() }.to_string()] {
        if !names.iter().any(|have| have == name) {
            fail!("/proc lacks {name}");
        }
    }
    Ok(())
}

fn processes_come_and_go() -> Outcome {
    let pid = fork_child(|| loop {
        unsafe { pause() };
    });
    let kept = ok!(open_file(&format!("/proc/{pid}/stat"), O_RDONLY, 0));
    ok!(kill(pid, SIGKILL));
    wait_for(pid);
    // A file of a process that is gone says so.
    errno!(read(kept, [0u8; 10].as_mut_ptr().cast(), 10), ESRCH);
    errno!(access(c(&format!("/proc/{pid}")).as_ptr(), F_OK), ENOENT);
    Ok(())
}

fn reads_continue() -> Outcome {
    // Byte by byte gives the same as at once.
    let fd = ok!(open_file("/proc/cpuinfo", O_RDONLY, 0));
    let mut slow = Vec::new();
    let mut byte = [0];
    while read_fd(fd, &mut byte) == 1 {
        slow.push(byte[0]);
    }
    eq!(String::from_utf8_lossy(&slow).into_owned(), text("/proc/cpuinfo")?);
    ok!(lseek(fd, 5, SEEK_SET));
    eq!(read_fd(fd, &mut byte), 1);
    eq!(byte[0], slow[5]);
    Ok(())
}

fn writes_are_refused() -> Outcome {
    errno!(open(c"/proc/new".as_ptr(), O_CREAT | O_RDWR, 0o600), ENOENT);
    errno!(mkdir(c"/proc/new".as_ptr(), 0o700), ENOENT);
    errno!(unlink(c"/proc/meminfo".as_ptr()), EPERM);
    Ok(())
}

fn sys_kernel_values() -> Outcome {
    eq!(text("/proc/sys/kernel/ostype")?, "Linux\n");
    check!(text("/proc/sys/kernel/osrelease")?.starts_with("6.1."));
    check!(text("/proc/sys/kernel/pid_max")?.trim().parse::<u32>().is_ok_and(|max| max >= 32768));
    Ok(())
}

fn comm_can_be_written() -> Outcome {
    in_child(|| {
        ok!(prctl(PR_SET_NAME, c"a-very-long-name-for-it".as_ptr()));
        eq!(text("/proc/self/comm")?, "a-very-long-nam\n");
        let mut name = [0u8; 16];
        ok!(prctl(PR_GET_NAME, name.as_mut_ptr()));
        eq!(&name, b"a-very-long-nam\0");
        Ok(())
    })
}
