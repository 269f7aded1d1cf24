//! The files about the machine: meminfo, cpuinfo, stat, loadavg and their like, in Linux's formats
//! (`proc(5)`), as procps and busybox read them.

use abi::{CpuId, Nanos, PAGE_SIZE, Result};
use core::fmt::Write;
use frames::Counter;
use vfs::{
    proc_registry::add_fn,
    pseudo::{SeqBuf, no_memory},
};

/// Registers everything.
pub(crate) fn register() -> Result {
    add_fn("meminfo", 0o444, meminfo)?;
    add_fn("cpuinfo", 0o444, cpuinfo)?;
    add_fn("stat", 0o444, stat)?;
    add_fn("loadavg", 0o444, loadavg)?;
    add_fn("uptime", 0o444, uptime)?;
    add_fn("version", 0o444, version)?;
    add_fn("cmdline", 0o444, cmdline)?;
    add_fn("filesystems", 0o444, filesystems)?;
    add_fn("devices", 0o444, devices)?;
    add_fn("interrupts", 0o444, interrupts)?;
    add_fn("vmstat", 0o444, vmstat)?;
    add_fn("slabinfo", 0o400, slabinfo)?;
    add_fn("lockdep_stats", 0o444, lockdep)?;
    add_fn("swaps", 0o444, swaps)?;
    add_fn("partitions", 0o444, |_| Ok(()))?;
    add_fn("diskstats", 0o444, |_| Ok(()))?;
    crate::zones::register()?;
    crate::settings::register()
}

pub(crate) fn line(out: &mut SeqBuf, text: &str) -> Result {
    writeln!(out, "{text}").map_err(no_memory)
}

const KIB_PER_PAGE: u64 = PAGE_SIZE as u64 / 1024;

fn meminfo(out: &mut SeqBuf) -> Result {
    let m = frames::stats();
    let count = |c| frames::counter(c);
    let pages = |c| count(c) * KIB_PER_PAGE;
    let shmem = pages(Counter::Shmem);
    let cached = pages(Counter::FilePages) + shmem;
    let reclaimable = pages(Counter::SlabReclaimable);
    let free = m.free * KIB_PER_PAGE;
    let available = free + (cached - shmem) / 2 + reclaimable / 2;
    let rows: [(&str, u64); 22] = [
        ("MemTotal", m.total * KIB_PER_PAGE),
        ("MemFree", free),
        ("MemAvailable", available),
        ("Buffers", 0),
        ("Cached", cached),
        ("SwapCached", 0),
        ("Active", 0),
        ("Inactive", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", pages(Counter::AnonPages)),
        ("Mapped", pages(Counter::Mapped)),
        ("Shmem", shmem),
        ("Slab", reclaimable + pages(Counter::SlabUnreclaimable)),
        ("SReclaimable", reclaimable),
        ("SUnreclaim", pages(Counter::SlabUnreclaimable)),
        ("KernelStack", pages(Counter::KernelStack)),
        ("PageTables", pages(Counter::PageTables)),
    ];
    for (name, kib) in rows {
        row(out, name, kib)?;
    }
    row(out, "CommitLimit", mm::commit::commit_limit_pages() * KIB_PER_PAGE)?;
    row(out, "Committed_AS", mm::commit::committed_pages() * KIB_PER_PAGE)
}

/// `Name:` and a number of KiB, right-aligned as Linux does.
fn row(out: &mut SeqBuf, name: &str, kib: u64) -> Result {
    // The number ends in column 24.
    let pad = 23usize.saturating_sub(name.len());
    writeln!(out, "{name}:{kib:>pad$} kB").map_err(no_memory)
}

fn cpuinfo(out: &mut SeqBuf) -> Result {
    // BogoMIPS as Linux computes it from the timer: twice its frequency per 10^6, in loops.
    let hz = arch::clock::frequency();
    for cpu in arch::cpu::online().iter() {
        let midr = arch::cpu::midr(cpu);
        writeln!(out, "processor\t: {}", cpu.0).map_err(no_memory)?;
        writeln!(out, "BogoMIPS\t: {}.{:02}", hz * 2 / 1_000_000, hz * 2 / 10_000 % 100).map_err(no_memory)?;
        out.push(b"Features\t:")?;
        for name in arch::features::hwcap_names() {
            write!(out, " {name}").map_err(no_memory)?;
        }
        // Fields of MIDR_EL1 (Arm ARM D17.2.100).
        write!(
            out,
            "\nCPU implementer\t: 0x{:02x}\nCPU architecture: 8\nCPU variant\t: 0x{:x}\nCPU part\t: 0x{:03x}\nCPU revision\t: {}\n\n",
            midr >> 24 & 0xff,
            midr >> 20 & 0xf,
            midr >> 4 & 0xfff,
            midr & 0xf
        )
        .map_err(no_memory)?;
    }
    Ok(())
}

/// Clock ticks of 10 ms, as all times in /proc/stat.
fn ticks(t: Nanos) -> u64 {
    t.0 / 10_000_000
}

fn stat(out: &mut SeqBuf) -> Result {
    let cpus = arch::cpu::online();
    let mut sum = [0u64; 5];
    let of = |cpu: CpuId| {
        let u = sched::cpu_usage(cpu);
        [ticks(u.user), ticks(u.system), ticks(u.idle), ticks(u.iowait), ticks(u.irq)]
    };
    for cpu in cpus.iter() {
        for (s, v) in sum.iter_mut().zip(of(cpu)) {
            *s += v;
        }
    }
    let [u, s, i, w, q] = sum;
    writeln!(out, "cpu  {u} 0 {s} {i} {w} {q} 0 0 0 0").map_err(no_memory)?;
    for cpu in cpus.iter() {
        let [u, s, i, w, q] = of(cpu);
        writeln!(out, "cpu{} {u} 0 {s} {i} {w} {q} 0 0 0 0", cpu.0).map_err(no_memory)?;
    }
    let interrupts: u64 = cpus.iter().map(device::irq::total).sum();
    let booted = time::realtime().saturating_sub(time::boottime()).secs();
    write!(
        out,
        "intr {interrupts}\nctxt {}\nbtime {booted}\nprocesses {}\nprocs_running {}\nprocs_blocked {}\n",
        sched::nr_switches(),
        sched::total_forks(),
        sched::nr_running(),
        sched::nr_uninterruptible(),
    )
    .map_err(no_memory)
}

fn loadavg(out: &mut SeqBuf) -> Result {
    for load in sched::loadavg() {
        // Rounded to two digits.
        let scaled = (load * 100) + (1 << (sched::LOAD_SHIFT - 1));
        let hundredths = scaled >> sched::LOAD_SHIFT;
        write!(out, "{}.{:02} ", hundredths / 100, hundredths % 100).map_err(no_memory)?;
    }
    let (threads, last) = crate::PROCESSES.get().map_or((0, 0), |p| p.counts());
    writeln!(out, "{}/{} {}", sched::nr_running(), threads, last).map_err(no_memory)
}

fn uptime(out: &mut SeqBuf) -> Result {
    let up = time::boottime();
    let idle = arch::cpu::online().iter().fold(Nanos::ZERO, |n, c| n.saturating_add(sched::cpu_usage(c).idle));
    let hundredths = |t: Nanos| (t.secs(), t.subsec() / 10_000_000);
    let ((a, b), (c, d)) = (hundredths(up), hundredths(idle));
    writeln!(out, "{a}.{b:02} {c}.{d:02}").map_err(no_memory)
}

fn version(out: &mut SeqBuf) -> Result {
    writeln!(out, "Linux version {} (Linnet) #1 SMP PREEMPT Linnet", abi::RELEASE).map_err(no_memory)
}

fn cmdline(out: &mut SeqBuf) -> Result {
    out.push(device::dt::tree().and_then(|t| t.chosen().bootargs()).unwrap_or(b""))?;
    out.push(b"\n")
}

fn filesystems(out: &mut SeqBuf) -> Result {
    let mut result = Ok(());
    vfs::superblock::for_each_filesystem(|name, nodev| {
        if result.is_ok() {
            result = writeln!(out, "{}\t{name}", if nodev { "nodev" } else { "" }).map_err(no_memory);
        }
    });
    result
}

fn devices(out: &mut SeqBuf) -> Result {
    out.push(b"Character devices:\n")?;
    let mut result = Ok(());
    vfs::chardev::for_each(|major, name| {
        if result.is_ok() {
            result = writeln!(out, "{major:>3} {name}").map_err(no_memory);
        }
    });
    result?;
    out.push(b"\nBlock devices:\n")
}

fn interrupts(out: &mut SeqBuf) -> Result {
    device::irq::write_table(out, arch::cpu::online()).map_err(no_memory)
}

fn vmstat(out: &mut SeqBuf) -> Result {
    writeln!(out, "nr_free_pages {}", frames::stats().free).map_err(no_memory)?;
    for c in Counter::ALL {
        writeln!(out, "{} {}", c.name(), frames::counter(*c)).map_err(no_memory)?;
    }
    Ok(())
}

fn slabinfo(out: &mut SeqBuf) -> Result {
    out.push(b"slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>\n")?;
    let mut result = Ok(());
    frames::slab::for_each_cache(|s| {
        if result.is_ok() {
            result = writeln!(
                out,
                "{:<17} {:>6} {:>6} {:>6} {:>4} {:>4} : tunables 0 0 0 : slabdata {} {} 0",
                s.name, s.active, s.objects, s.object_size, s.per_slab, s.pages_per_slab, s.slabs, s.slabs
            )
            .map_err(no_memory);
        }
    });
    result
}

fn lockdep(out: &mut SeqBuf) -> Result {
    writeln!(out, "violations: {}", sync::lockdep::violations()).map_err(no_memory)
}

fn swaps(out: &mut SeqBuf) -> Result {
    line(out, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority")
}
