//! How often which interrupt came on which CPU (/proc/interrupts).

use super::{HwIrq, Ipi, Irq, Trigger, desc, domains};
use abi::{CpuId, CpuMask};
use core::fmt::{self, Write};
use sync::{
    PerCpu, per_cpu,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Interrupts that each CPU has its own of, at most: Arm's 16 software-generated and 16 private.
const PRIVATE: usize = 32;

struct Counts {
    ipi: [AtomicU64; Ipi::ALL.len()],
    private: [AtomicU64; PRIVATE],
    spurious: AtomicU64,
}

impl Counts {
    const fn new() -> Self {
        Self {
            ipi: [const { AtomicU64::new(0) }; Ipi::ALL.len()],
            private: [const { AtomicU64::new(0) }; PRIVATE],
            spurious: AtomicU64::new(0),
        }
    }
}

static COUNTS: PerCpu<Counts> = per_cpu!(Counts::new());

fn bump(count: Option<&AtomicU64>) {
    if let Some(count) = count {
        // Only this CPU writes, in hard interrupt context.
        count.store(count.load(Relaxed) + 1, Relaxed);
    }
}

pub(super) fn count_ipi(ipi: Ipi) {
    bump(COUNTS.this_unpinned().ipi.get(ipi as usize));
}

pub(super) fn count_percpu(hw: HwIrq) {
    bump(COUNTS.this_unpinned().private.get(hw.0 as usize));
}

pub(super) fn count_spurious() {
    bump(Some(&COUNTS.this_unpinned().spurious));
}

pub(super) fn percpu_count(hw: HwIrq, cpu: CpuId) -> u64 {
    COUNTS.get(cpu).private.get(hw.0 as usize).map_or(0, |c| c.load(Relaxed))
}

/// All interrupts of all kinds on a CPU (the `intr` line of /proc/stat is their sum).
pub fn total(cpu: CpuId) -> u64 {
    let counts = COUNTS.get(cpu);
    let private = counts.ipi.iter().chain(&counts.private).map(|c| c.load(Relaxed)).sum::<u64>();
    let shared = domains().flat_map(|d| d.descs.iter()).filter_map(|d| d.get()).filter(|d| !d.percpu);
    private + shared.map(|d| d.count(cpu)).sum::<u64>()
}

/// Writes /proc/interrupts for those CPUs.
pub fn write_table(out: &mut dyn Write, cpus: CpuMask) -> fmt::Result {
    write!(out, "     ")?;
    for cpu in cpus.iter() {
        write!(out, "       CPU{:<4}", cpu.0)?;
    }
    writeln!(out)?;
    for domain in domains() {
        for d in domain.descs.iter().filter_map(|d| d.get()) {
            let guard = sync::rcu::read_lock();
            let Some(actions) = d.actions.load(&guard) else { continue };
            write!(out, "{:4}:", d.irq.0)?;
            for cpu in cpus.iter() {
                write!(out, " {:10}", d.count(cpu))?;
            }
            let trigger = match d.trigger() {
                Trigger::Edge => "Edge",
                Trigger::Level => "Level",
            };
            write!(out, "     {} {:3} {trigger:<5}    ", d.chip.name(), d.hw.0)?;
            for (i, action) in actions.iter().enumerate() {
                write!(out, "{}{}", if i == 0 { "" } else { ", " }, action.name)?;
            }
            writeln!(out)?;
        }
    }
    for ipi in Ipi::ALL {
        write!(out, "IPI{}:", ipi as u32)?;
        for cpu in cpus.iter() {
            let count = COUNTS.get(cpu).ipi.get(ipi as usize).map_or(0, |c| c.load(Relaxed));
            write!(out, " {count:10}")?;
        }
        writeln!(out, "       {}", ipi.describe())?;
    }
    write!(out, " Err:")?;
    let spurious: u64 = COUNTS.iter().map(|(_, c)| c.spurious.load(Relaxed)).sum();
    writeln!(out, " {spurious:10}")
}

/// How often one interrupt came on a CPU.
pub fn count(irq: Irq, cpu: CpuId) -> u64 {
    desc(irq).map_or(0, |d| d.count(cpu))
}
