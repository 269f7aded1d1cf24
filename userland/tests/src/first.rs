//! What the boot left behind: the first processes, the kernel's own threads, the root of all files.

use crate::check::*;
use libc::*;

cases![first:
    processes_1_and_2_have_no_parent, process_1_runs_its_program, process_1_has_the_kernels_environment,
    process_0_is_nobody, kernel_threads_descend_from_kthreadd, kernel_threads_have_no_memory,
    kernel_threads_take_no_signals, idle_time_advances, rootfs_is_the_first_mount, every_cpu_runs_what_is_bound_to_it,
    processes_1_and_2_have_priority_20,
];

/// PF_KTHREAD of field 9 of /proc/PID/stat.
const KERNEL_THREAD: u64 = 0x0020_0000;

fn text(path: &str) -> Result<String, Stop> {
    Ok(String::from_utf8_lossy(&content(path)?).into_owned())
}

/// Field of /proc/PID/stat as proc(5) counts them, from the third on.
fn stat(pid: u32, field: usize) -> Result<String, Stop> {
    let text = text(&format!("/proc/{pid}/stat"))?;
    let behind = text.rsplit(") ").next().unwrap_or("");
    match behind.split_whitespace().nth(field - 3) {
        Some(word) => Ok(word.to_string()),
        None => fail!("no field {field} in {text:?}"),
    }
}

fn flags(pid: u32) -> Result<u64, Stop> {
    Ok(stat(pid, 9)?.parse().unwrap_or(0))
}

fn processes_1_and_2_have_no_parent() -> Outcome {
    eq!(stat(1, 4)?, "0");
    eq!(stat(2, 4)?, "0");
    eq!(text("/proc/2/comm")?, "kthreadd\n");
    check!(text("/proc/1/status")?.contains("PPid:\t0\n"));
    check!(text("/proc/2/status")?.contains("PPid:\t0\n"));
    Ok(())
}

fn process_1_runs_its_program() -> Outcome {
    // It began as a thread of the kernel.
    check!(text("/proc/1/comm")? != "kernel_init\n");
    let Ok(program) = std::fs::read_link("/proc/1/exe") else { fail!("no /proc/1/exe") };
    check!(program.is_absolute());
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &std::path::Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    check!(identity(&program).is_some());
    eq!(identity(&program), identity("/proc/1/exe".as_ref()));
    // Its name and its first word are the program's.
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    eq!(text("/proc/1/comm")?, format!("{name}\n"));
    let words = text("/proc/1/cmdline")?;
    eq!(words.split('\0').next(), program.to_str());
    eq!(flags(1)? & KERNEL_THREAD, 0);
    check!(text("/proc/1/status")?.contains("VmSize:"));
    check!(!content("/proc/1/cmdline")?.is_empty());
    Ok(())
}

fn process_1_has_the_kernels_environment() -> Outcome {
    let environment = text("/proc/1/environ")?;
    check!(environment.split('\0').any(|word| word == "HOME=/"));
    check!(environment.split('\0').any(|word| word == "TERM=linux"));
    Ok(())
}

fn process_0_is_nobody() -> Outcome {
    check!(std::fs::metadata("/proc/0").is_err());
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        check!(entry.file_name() != "0");
    }
    // A signal to 0 goes to the caller's own group, never to the idle thread.
    ok!(kill(0, 0));
    // Nor can it be traced or asked about.
    errno!(ptrace(PTRACE_ATTACH, 0, 0, 0), ESRCH);
    for pid in processes() {
        check!(text(&format!("/proc/{pid}/comm")).is_ok_and(|name| !name.starts_with("swapper") && !name.starts_with("idle")) || flags(pid).is_err());
    }
    Ok(())
}

/// Numbers of the processes in /proc.
fn processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn kernel_threads_descend_from_kthreadd() -> Outcome {
    let mut seen = 0;
    for pid in processes() {
        // Some end meanwhile.
        let (Ok(flags), Ok(parent)) = (flags(pid), stat(pid, 4)) else { continue };
        if pid > 2 && flags & KERNEL_THREAD != 0 {
            eq!((pid, parent.as_str()), (pid, "2"));
            seen += 1;
        } else if pid > 2 {
            check!(parent != "2");
        }
    }
    check!(seen > 0);
    check!(flags(2)? & KERNEL_THREAD != 0);
    Ok(())
}

fn kernel_threads_have_no_memory() -> Outcome {
    let mut all: Vec<u32> = processes();
    all.retain(|pid| flags(*pid).is_ok_and(|flags| flags & KERNEL_THREAD != 0));
    check!(all.contains(&2));
    for pid in all {
        let (Ok(status), Ok(line)) = (text(&format!("/proc/{pid}/status")), content(&format!("/proc/{pid}/cmdline"))) else { continue };
        check!(!status.contains("VmSize") && !status.contains("VmRSS"));
        check!(line.is_empty());
        check!(content(&format!("/proc/{pid}/maps"))?.is_empty());
        let link = std::fs::read_link(format!("/proc/{pid}/exe"));
        eq!(link.err().and_then(|error| error.raw_os_error()), Some(ENOENT));
        check!(!status.contains("\nVm"));
        eq!(text(&format!("/proc/{pid}/statm"))?, "0 0 0 0 0 0 0\n");
        eq!((stat(pid, 23)?, stat(pid, 24)?), ("0".to_string(), "0".to_string()));
        errno!(ptrace(PTRACE_ATTACH, pid, 0, 0), EPERM);
        errno!(ptrace(PTRACE_SEIZE, pid, 0, 0), EPERM);
    }
    // A program has all that.
    check!(text("/proc/self/status")?.contains("VmSize") && flags(std::process::id())? & KERNEL_THREAD == 0);
    Ok(())
}

fn kernel_threads_take_no_signals() -> Outcome {
    for signal in [SIGTERM, SIGSTOP, SIGKILL] {
        ok!(kill(2, signal));
    }
    // It sleeps as before: neither stopped nor gone.
    for _ in 0..100 {
        ok!(sched_yield());
        let state = stat(2, 3)?;
        check!(matches!(state.as_str(), "S" | "I" | "R" | "D"));
    }
    eq!(text("/proc/2/comm")?, "kthreadd\n");
    Ok(())
}

/// The idle column of all CPUs together, in ticks.
fn idle() -> Result<u64, Stop> {
    let text = text("/proc/stat")?;
    match text.lines().next().and_then(|line| line.split_whitespace().nth(4)?.parse().ok()) {
        Some(ticks) => Ok(ticks),
        None => fail!("no idle column in {text:?}"),
    }
}

fn idle_time_advances() -> Outcome {
    let before = idle()?;
    while idle()? < before + 5 {
        ok!(usleep(20_000));
    }
    // While nothing runs, that of each CPU as fast as the clock; the same in /proc/uptime, of all.
    let cpus = || -> Result<Vec<u64>, Stop> {
        let text = text("/proc/stat")?;
        let lines = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
        Ok(lines.filter_map(|line| line.split_whitespace().nth(4)?.parse().ok()).collect())
    };
    let uptime = || -> Result<f64, Stop> { Ok(text("/proc/uptime")?.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0.0)) };
    let mut last = String::new();
    for _ in 0..5 {
        let (start, before, in_seconds) = (now(), cpus()?, uptime()?);
        ok!(usleep(300_000));
        let (after, in_seconds) = (cpus()?, uptime()? - in_seconds);
        let passed = (now() - start) as f64 / 1e9;
        let idle: Vec<f64> = after.iter().zip(&before).map(|(after, before)| (after - before) as f64 / 100.0).collect();
        let fits = |have: f64, want: f64| have > want * 0.6 - 0.02 && have < want * 1.15 + 0.03;
        if idle.iter().all(|idle| fits(*idle, passed)) && fits(in_seconds, passed * idle.len() as f64) {
            return Ok(());
        }
        last = format!("{passed} s passed: {idle:?} s idle, {in_seconds} s in /proc/uptime");
    }
    fail!("{last}")
}

fn rootfs_is_the_first_mount() -> Outcome {
    let mounts = text("/proc/self/mounts")?;
    let first: Vec<&str> = mounts.lines().next().unwrap_or("").split(' ').collect();
    eq!(first.get(1..3), Some(&["/", "rootfs"][..]));
    let info = text("/proc/self/mountinfo")?;
    let first: Vec<&str> = info.lines().next().unwrap_or("").split(' ').collect();
    eq!((first.get(3..5), first.iter().position(|word| *word == "-").map(|at| first[at + 1..at + 3].to_vec())), (Some(&["/", "/"][..]), Some(vec!["rootfs", "rootfs"])));
    let kinds = text("/proc/filesystems")?;
    for kind in ["tmpfs", "proc", "devtmpfs"] {
        check!(kinds.lines().any(|line| line == format!("nodev\t{kind}")));
    }
    // What the initial archive held is there without any device.
    check!(stat_of("/init")?.st_mode & S_IFMT == S_IFREG);
    Ok(())
}

fn every_cpu_runs_what_is_bound_to_it() -> Outcome {
    let online = text("/proc/cpuinfo")?.lines().filter(|line| line.starts_with("processor")).count();
    for cpu in 0..online {
        in_child(|| {
            let mut set = zero::<cpu_set_t>();
            // SAFETY: the set is live.
            unsafe { CPU_SET(cpu, &mut set) };
            ok!(sched_setaffinity(0, size_of::<cpu_set_t>(), &set));
            let (mut here, mut node) = (0u32, 0u32);
            ok!(syscall(SYS_getcpu, &mut here, &mut node, 0));
            eq!(here as usize, cpu);
            Ok(())
        })?;
    }
    Ok(())
}

fn processes_1_and_2_have_priority_20() -> Outcome {
    for pid in [1, 2] {
        let (priority, nice) = (stat(pid, 18)?, stat(pid, 19)?);
        eq!((priority.as_str(), nice.as_str()), ("20", "0"));
    }
    eq!(ok!(getpriority(PRIO_PROCESS, 1)), 0);
    Ok(())
}
