//! The steps of the boot, one function each; `main.rs` has their order.

pub(crate) mod console;
mod initrd;
pub(crate) mod stacks;
pub(crate) mod user;

use abi::{CpuId, Errno, MAX_CPUS, Result};
use arch::{boot::PhysRange, smp::EnableMethod};
use boot::{cmdline::Options, memory::Map};
use core::fmt;
use device::{
    dt::{self, Enable, PsciMethod, Tree},
    irq::{Handled, Ipi, IrqHandler},
};
use kalloc::karc_dyn;

/// Ends the boot with a message when a step failed without which there is no system.
pub(crate) fn or_stop<T, E: fmt::Display>(what: &str, result: core::result::Result<T, E>) -> T {
    match result {
        Ok(v) => v,
        Err(e) => arch::panic::stop(format_args!("Linnet cannot start: {what}: {e}")),
    }
}

/// Checks the device tree and keeps it.
pub(crate) fn tree() -> Tree<'static> {
    let tree = Tree::new(or_stop("device tree", dt::validate(arch::boot::early_dtb())));
    dt::set_tree(tree);
    tree
}

/// The first lines of the log.
pub(crate) fn banner(tree: &Tree<'_>) {
    let info = arch::boot::info();
    log::info!("Linux version {} (Linnet) {}", abi::RELEASE, syscall::VERSION);
    log::info!("Machine model: {}", tree.model().unwrap_or("unknown"));
    log::info!("CPU: {} boot at EL{}", arch::cpu::id().0, if info.entered_at_el2 { 2 } else { 1 });
    if info.boot_args.iter().skip(1).any(|x| *x != 0) {
        log::warn!("x1-x3 nonzero in violation of boot protocol");
    }
    if let Some(line) = tree.chosen().bootargs() {
        log::info!("Kernel command line: {}", Text(line));
    }
}

/// Bytes that should be text.
pub(crate) struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("?")?;
            }
        }
        Ok(())
    }
}

/// Sets physical memory up: linear map, descriptors, zones.
pub(crate) fn memory(tree: &Tree<'_>) -> Map {
    let info = arch::boot::info();
    let image = PhysRange::new(info.image_phys, info.image_phys.add(info.image_size as u64));
    let dtb = PhysRange::new(info.dtb, info.dtb.add(info.dtb_size as u64));
    let mut map = Map::of(tree, &[image, dtb]);
    let tables = {
        let mut pages = frames::boot::EarlyPages::new(&map.banks, &map.reserved, image.end);
        let mapped = arch::boot::map_linear(&map.banks, &mut || pages.take());
        or_stop("linear map", mapped.map_err(|e| Debug(e)));
        pages.used()
    };
    // Table pages come from free memory: they are taken now. A full table of reservations has given
    // up the banks it could not describe, so there is room.
    let _ = map.reserved.try_push(tables);
    or_stop("memory", frames::init(&map.banks, &map.reserved).map_err(Debug));
    arch::boot::drop_identity_map();
    log::info!("Memory: {}K in {} banks", map.total() >> 10, map.banks.len());
    if map.dropped > 0 {
        log::warn!("Memory: {} ranges of the device tree left out", map.dropped);
    }
    map
}

/// Shows an error that has no text of its own.
struct Debug<T>(T);

impl<T: fmt::Debug> fmt::Display for Debug<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How the machine is switched off.
pub(crate) fn power(tree: &Tree<'_>) {
    use arch::power::{Method, set_method};
    match tree.psci() {
        Some(PsciMethod::Hvc) => set_method(Method::Hvc),
        Some(PsciMethod::Smc) => set_method(Method::Smc),
        None => log::debug!("psci: not in the device tree"),
    }
}

struct TimerInterrupt;

impl IrqHandler for TimerInterrupt {
    fn handle(&self) -> Handled {
        time::interrupt();
        Handled::Yes
    }
}

/// Which of the timer node's interrupts is the virtual timer's (bindings/timer/arm,arch_timer.yaml).
const VIRTUAL_TIMER: usize = 2;

/// The interrupts that the kernel itself needs.
pub(crate) fn interrupts(tree: &Tree<'_>) -> Result {
    sched::set_ipi(device::irq::ipi_sender());
    device::irq::set_ipi_handler(Ipi::Call, sched::smp::run_calls);
    device::irq::set_ipi_handler(Ipi::Stop, || {
        arch::panic::stop_this_cpu();
    });
    let node = tree
        .find_compatible("arm,armv8-timer")
        .chain(tree.find_compatible("arm,armv7-timer"))
        .find(|n| n.is_enabled())
        .ok_or(Errno::ENODEV)?;
    let spec = node.interrupts(VIRTUAL_TIMER).ok_or(Errno::ENODEV)?;
    let irq = device::irq::map(&spec)?;
    // Each CPU that comes up later lets it through for itself.
    device::irq::request_percpu(irq, "arch_timer", karc_dyn!(TimerInterrupt => dyn IrqHandler)?)
}

/// Starts the other CPUs. One that does not come up is reported and left out.
pub(crate) fn cpus(tree: &Tree<'_>, options: &Options<'_>) {
    let max = options.max_cpus.unwrap_or(MAX_CPUS).clamp(1, MAX_CPUS);
    let boot_mpidr = arch::cpu::mpidr(CpuId::BOOT) & arch::cpu::AFFINITY;
    let hvc = tree.psci() == Some(PsciMethod::Hvc);
    let mut next = 1;
    for cpu in tree.cpus().filter(|c| c.mpidr != boot_mpidr) {
        if next >= max {
            break;
        }
        let method = match cpu.enable {
            Enable::Psci => EnableMethod::Psci { hvc },
            Enable::SpinTable(release) => EnableMethod::SpinTable { release },
            Enable::Unknown => {
                log::warn!("CPU with MPIDR {:#x}: unknown enable-method, left out", cpu.mpidr);
                continue;
            }
        };
        let id = CpuId(next as u32);
        match start_cpu(id, cpu.mpidr, method) {
            Ok(()) => next += 1,
            Err(e) => log::error!("CPU{next} (MPIDR {:#x}) failed to come up: {e}", cpu.mpidr),
        }
    }
    let patched = arch::features::finalise();
    log::info!("alternatives: {patched} instructions patched for what all CPUs have");
    report_errata();
    log::info!("smp: Brought up 1 node, {} CPUs", arch::cpu::count());
}

/// Says which errors of their designs the CPUs have, and what is done about them.
fn report_errata() {
    let cpus = arch::cpu::online();
    for erratum in arch::features::ERRATA {
        let has = |cpu| arch::features::errata_of(arch::cpu::midr(cpu)).any(|e| e.name == erratum.name);
        let count = cpus.iter().filter(|cpu| has(*cpu)).count();
        if count != 0 {
            log::info!("CPU errata: {} on {count} CPUs: {}", erratum.name, erratum.note);
        }
    }
}

fn start_cpu(id: CpuId, mpidr: u64, method: EnableMethod) -> core::result::Result<(), Debug<StartFailure>> {
    stacks::give(id).map_err(|e| Debug(StartFailure::Memory(e)))?;
    let stack = frames::vmalloc::alloc_stack().map_err(|e| Debug(StartFailure::Memory(e)))?;
    let head = sched::prepare_secondary(id, stack).map_err(|e| Debug(StartFailure::Memory(e)))?;
    let top = abi::VirtAddr(head.stack_top.load(sync::atomic::Ordering::Relaxed));
    arch::smp::start(id, mpidr, method, top, head, crate::secondary_main).map_err(|e| Debug(StartFailure::Cpu(e)))
}

#[derive(Debug)]
#[allow(dead_code)] // read by Debug
enum StartFailure {
    Memory(Errno),
    Cpu(arch::smp::StartError),
}

/// Feeds the random generator with what the boot loader and the machine offer.
pub(crate) fn seed_random(tree: &Tree<'_>) {
    if let Some(seed) = tree.chosen().rng_seed() {
        vfs::random::feed(seed, (seed.len() * 8).min(256) as u32);
    }
    vfs::random::feed_jitter(256);
}
