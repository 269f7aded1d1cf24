//! Interrupts: from the controller's number to the handler.
//!
//! A controller (a driver, through [`IrqChip`]) registers as the domain of its device-tree node;
//! [`map`] turns what a device's node states into an [`Irq`], the kernel's own number; a driver
//! [`request`]s it with a handler. The first controller is the root: it is the one that the CPUs
//! ask ([`handle`]).
//!
//! Handlers run in hard interrupt context: interrupts off, no sleeping, no allocation. The list of
//! an interrupt's handlers is read under RCU, so dispatch takes no lock.
//!
//! Lock order: `IRQ` (one descriptor's configuration) is outside of the controllers' own locks.
//! Neither is taken while an interrupt is dispatched, unless one has to be switched off because
//! nobody handles it.

mod desc;
mod ipi;
mod stats;

pub use desc::{disable, enable, free, request, request_percpu, set_affinity};
pub use ipi::{Ipi, IpiSender, ipi_sender, send, set_ipi_handler};
pub use stats::{count, total, write_table};

use crate::dt::{ControllerId, IrqSpec};
use abi::{CpuId, CpuMask, Errno, Result};
use desc::Desc;
use kalloc::{KArc, KBox, KVec};
use sync::Once;

/// The kernel's number of an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Irq(pub u32);

/// A controller's number of an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HwIrq(pub u32);

/// What makes an interrupt pending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// The line's rise.
    Edge,
    /// The line's level, until the device takes it back.
    Level,
}

/// What the controller says is to be handled. Hand it back to [`IrqChip::eoi`] as it is.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// The interrupt.
    pub hw: HwIrq,
    /// What the controller needs to end it.
    pub token: u32,
}

/// An interrupt controller. Methods may be called from every CPU at the same time.
pub trait IrqChip: Send + Sync {
    /// Its name for /proc/interrupts.
    fn name(&self) -> &'static str;
    /// Interrupts that it has, from 0.
    fn count(&self) -> u32;
    /// Reads a device tree's interrupt specifier. EINVAL for one that makes no sense.
    fn translate(&self, cells: &[u32]) -> Result<(HwIrq, Trigger)>;
    /// Whether each CPU has its own interrupt of that number.
    fn is_percpu(&self, hw: HwIrq) -> bool;
    /// Takes the most urgent pending interrupt of this CPU, or none. Interrupts are off.
    fn ack(&self) -> Option<Acked>;
    /// Ends the handling of what `ack` gave, on the same CPU.
    fn eoi(&self, acked: Acked);
    /// Lets an interrupt through; one that each CPU has, on this CPU.
    fn unmask(&self, hw: HwIrq);
    /// Holds an interrupt back; one that each CPU has, on this CPU.
    fn mask(&self, hw: HwIrq);
    /// Sets how it is triggered. EINVAL if the controller cannot.
    fn set_type(&self, hw: HwIrq, trigger: Trigger) -> Result;
    /// Sends an interrupt to one of those CPUs. EINVAL if it cannot go to any of them.
    fn set_affinity(&self, hw: HwIrq, cpus: CpuMask) -> Result;
    /// Interrupts other CPUs. All that this CPU wrote before is visible to them.
    fn send_ipi(&self, cpus: CpuMask, ipi: Ipi);
    /// Prepares this CPU's side; interrupts are off. Once on each CPU.
    fn init_cpu(&self, cpu: CpuId) -> Result;
}

/// Whether a handler's device had raised the interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Handled {
    /// It had.
    Yes,
    /// It had not: another device on the same line.
    No,
}

/// Handles an interrupt.
pub trait IrqHandler: Send + Sync {
    /// Serves the device. Hard interrupt context.
    fn handle(&self) -> Handled;
}

/// A controller and its interrupts.
struct Domain {
    controller: ControllerId,
    chip: KArc<dyn IrqChip>,
    /// `Irq` of its interrupt 0.
    first: u32,
    /// One slot for each interrupt, filled when it is mapped.
    descs: KBox<[Once<KArc<Desc>>]>,
}

/// How many controllers there may be.
const MAX_DOMAINS: usize = 8;
static DOMAINS: [Once<KBox<Domain>>; MAX_DOMAINS] = [const { Once::new() }; MAX_DOMAINS];

fn domains() -> impl Iterator<Item = &'static Domain> {
    DOMAINS.iter().map_while(|d| d.get()).map(|d| &**d)
}

/// The controller that the CPUs ask.
fn root() -> Option<&'static Domain> {
    DOMAINS.first()?.get().map(|d| &**d)
}

fn desc(irq: Irq) -> Result<&'static KArc<Desc>> {
    let domain = domains().find(|d| irq.0.wrapping_sub(d.first) < d.descs.len() as u32).ok_or(Errno::EINVAL)?;
    domain.descs.get((irq.0 - domain.first) as usize).and_then(|d| d.get()).ok_or(Errno::EINVAL)
}

/// Registers a controller as the domain of its node; the first is the root. Boot CPU, at boot.
/// EEXIST for a second controller of a node, ENOSPC for too many of them, ENOMEM.
pub fn register_controller(controller: ControllerId, chip: KArc<dyn IrqChip>) -> Result {
    if domains().any(|d| d.controller == controller) {
        return Err(Errno::EEXIST);
    }
    let first = domains().map(|d| d.first + d.descs.len() as u32).max().unwrap_or(0);
    let count = chip.count() as usize;
    let mut descs = KVec::try_with_capacity(count)?;
    for _ in 0..count {
        descs.try_push(Once::new())?;
    }
    let name = chip.name();
    let mut domain = Some(KBox::try_new(Domain { controller, chip, first, descs: descs.try_into_boxed_slice()? })?);
    for slot in &DOMAINS {
        // The closure runs in the first slot that is free.
        if domain.is_none() {
            break;
        }
        slot.try_call_once(|| domain.take().ok_or(()))
            // Cannot fail: `domain` is there.
            .map_err(|()| Errno::ENOMEM)?;
    }
    if domain.is_some() {
        return Err(Errno::ENOSPC);
    }
    log::info!("irq: {name}: {count} interrupts");
    Ok(())
}

/// Prepares this CPU's side of the root controller and lets the per-CPU interrupts through that
/// are enabled. Interrupts are off; each CPU once, the boot CPU after the controller registered.
pub fn init_cpu(cpu: CpuId) -> Result {
    let root = root().ok_or(Errno::ENODEV)?;
    root.chip.init_cpu(cpu)?;
    for desc in root.descs.iter().filter_map(|d| d.get()) {
        desc.unmask_on_new_cpu();
    }
    Ok(())
}

/// The kernel's number for an interrupt that a device-tree node states. ENXIO when its controller
/// has no driver, EINVAL when the controller does not understand it, ENOMEM.
pub fn map(spec: &IrqSpec) -> Result<Irq> {
    let domain = domains().find(|d| d.controller == spec.controller).ok_or(Errno::ENXIO)?;
    let (hw, trigger) = domain.chip.translate(spec.cells())?;
    let slot = domain.descs.get(hw.0 as usize).ok_or(Errno::EINVAL)?;
    let irq = Irq(domain.first + hw.0);
    let desc = slot.try_call_once(|| -> Result<_> {
        let desc = Desc::new(irq, hw, trigger, domain.chip.clone());
        Ok(KArc::try_new(desc)?)
    })?;
    desc.set_trigger(trigger)?;
    Ok(irq)
}

/// Handles what is pending on this CPU: asks the root controller until it has no more. For
/// `Kernel::interrupt`: interrupts off, in hard interrupt context.
pub fn handle() {
    let Some(root) = root() else { return };
    while let Some(acked) = root.chip.ack() {
        let hw = acked.hw;
        if let Some(ipi) = Ipi::from_hw(hw) {
            // Ended first: the handler of Stop does not come back.
            root.chip.eoi(acked);
            ipi::handle(ipi);
            continue;
        }
        match root.descs.get(hw.0 as usize).and_then(|d| d.get()) {
            Some(desc) => desc.dispatch(),
            None => {
                stats::count_spurious();
                root.chip.mask(hw);
            }
        }
        root.chip.eoi(acked);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Mutex;
    use sync::atomic::{AtomicU32, Ordering::SeqCst};

    /// A controller whose pending interrupts a test sets.
    pub(crate) struct FakeChip {
        pub(crate) pending: Mutex<Vec<u32>>,
        pub(crate) log: Mutex<Vec<String>>,
    }

    impl FakeChip {
        fn note(&self, text: String) {
            self.log.lock().unwrap().push(text);
        }
        pub(crate) fn raise(&self, hw: u32) {
            self.pending.lock().unwrap().push(hw);
            arch::irq::disable();
            handle();
            arch::irq::enable();
        }
        fn take_log(&self) -> Vec<String> {
            std::mem::take(&mut self.log.lock().unwrap())
        }
    }

    impl IrqChip for FakeChip {
        fn name(&self) -> &'static str {
            "fake"
        }
        fn count(&self) -> u32 {
            64
        }
        fn translate(&self, cells: &[u32]) -> Result<(HwIrq, Trigger)> {
            match cells {
                [n, t] if *n < 100 => Ok((HwIrq(*n), if *t == 1 { Trigger::Edge } else { Trigger::Level })),
                _ => Err(Errno::EINVAL),
            }
        }
        fn is_percpu(&self, hw: HwIrq) -> bool {
            hw.0 < 32
        }
        fn ack(&self) -> Option<Acked> {
            self.pending.lock().unwrap().pop().map(|n| Acked { hw: HwIrq(n), token: n + 1000 })
        }
        fn eoi(&self, acked: Acked) {
            self.note(format!("eoi {}", acked.token));
        }
        fn unmask(&self, hw: HwIrq) {
            self.note(format!("unmask {}", hw.0));
        }
        fn mask(&self, hw: HwIrq) {
            self.note(format!("mask {}", hw.0));
        }
        fn set_type(&self, hw: HwIrq, trigger: Trigger) -> Result {
            self.note(format!("type {} {trigger:?}", hw.0));
            Ok(())
        }
        fn set_affinity(&self, _: HwIrq, cpus: CpuMask) -> Result {
            if cpus.is_empty() { Err(Errno::EINVAL) } else { Ok(()) }
        }
        fn send_ipi(&self, cpus: CpuMask, ipi: Ipi) {
            self.note(format!("ipi {:#x} {ipi:?}", cpus.0));
        }
        fn init_cpu(&self, cpu: CpuId) -> Result {
            self.note(format!("init {}", cpu.0));
            Ok(())
        }
    }

    pub(crate) struct Counter {
        pub(crate) calls: AtomicU32,
        pub(crate) answer: Handled,
    }

    impl IrqHandler for Counter {
        fn handle(&self) -> Handled {
            self.calls.fetch_add(1, SeqCst);
            self.answer
        }
    }

    fn counter(answer: Handled) -> KArc<Counter> {
        KArc::try_new(Counter { calls: AtomicU32::new(0), answer }).unwrap()
    }

    // The domains are global: one test goes through all of it.
    #[test]
    fn an_interrupt_travels_from_specifier_to_handler() {
        let chip = KArc::try_new(FakeChip { pending: Mutex::new(vec![]), log: Mutex::new(vec![]) }).unwrap();
        let controller = ControllerId(7);
        register_controller(controller, kalloc::karc_as!(chip.clone() => dyn IrqChip)).unwrap();
        assert_eq!(register_controller(controller, kalloc::karc_as!(chip.clone() => dyn IrqChip)), Err(Errno::EEXIST));
        let spec = |cells: &[u32]| IrqSpec::new(controller, cells).unwrap();
        assert_eq!(map(&IrqSpec::new(ControllerId(8), &[1, 1]).unwrap()), Err(Errno::ENXIO));
        assert_eq!(map(&spec(&[1])), Err(Errno::EINVAL));
        assert_eq!(map(&spec(&[70, 1])), Err(Errno::EINVAL));

        // A shared line: both handlers are asked, one of them answers.
        let irq = map(&spec(&[40, 1])).unwrap();
        assert_eq!(map(&spec(&[40, 1])), Ok(irq));
        assert_eq!(chip.take_log(), ["type 40 Edge"]);
        let (mine, other) = (counter(Handled::Yes), counter(Handled::No));
        request(irq, "mine", kalloc::karc_as!(mine.clone() => dyn IrqHandler)).unwrap();
        request(irq, "other", kalloc::karc_as!(other.clone() => dyn IrqHandler)).unwrap();
        assert_eq!(chip.take_log(), ["unmask 40"]);
        chip.raise(40);
        assert_eq!((mine.calls.load(SeqCst), other.calls.load(SeqCst)), (1, 1));
        assert_eq!(chip.take_log(), ["eoi 1040"]);

        // Disabling nests.
        disable(irq).unwrap();
        disable(irq).unwrap();
        enable(irq).unwrap();
        assert_eq!(chip.take_log(), ["mask 40"]);
        enable(irq).unwrap();
        assert_eq!(chip.take_log(), ["unmask 40"]);
        assert_eq!(enable(irq), Err(Errno::EINVAL));

        // Without handlers the line is held back.
        let erased = kalloc::karc_as!(other.clone() => dyn IrqHandler);
        free(irq, &erased).unwrap();
        free(irq, &kalloc::karc_as!(mine.clone() => dyn IrqHandler)).unwrap();
        assert_eq!(free(irq, &erased), Err(Errno::EINVAL));
        assert_eq!(chip.take_log(), ["mask 40"]);
        chip.raise(40);
        assert_eq!(chip.take_log(), ["mask 40", "eoi 1040"]);
        assert_eq!(mine.calls.load(SeqCst), 1);

        // One that nobody mapped.
        chip.raise(50);
        assert_eq!(chip.take_log(), ["mask 50", "eoi 1050"]);

        // Of each CPU its own; a CPU that comes later gets it.
        let tick = map(&spec(&[27, 4])).unwrap();
        let ticks = counter(Handled::Yes);
        request_percpu(tick, "timer", kalloc::karc_as!(ticks.clone() => dyn IrqHandler)).unwrap();
        assert_eq!(request_percpu(irq, "x", kalloc::karc_as!(ticks.clone() => dyn IrqHandler)), Err(Errno::EINVAL));
        chip.take_log();
        init_cpu(CpuId(1)).unwrap();
        assert_eq!(chip.take_log(), ["init 1", "unmask 27"]);
        chip.raise(27);
        assert_eq!(ticks.calls.load(SeqCst), 1);

        // Between CPUs.
        static CALLS: AtomicU32 = AtomicU32::new(0);
        set_ipi_handler(Ipi::Call, || {
            CALLS.fetch_add(1, SeqCst);
        });
        chip.take_log();
        send(CpuMask(0b110), Ipi::Call);
        assert_eq!(chip.take_log(), ["ipi 0x6 Call"]);
        chip.raise(Ipi::Call.hw().0);
        assert_eq!(CALLS.load(SeqCst), 1);
        assert_eq!(chip.take_log(), [format!("eoi {}", 1000 + Ipi::Call.hw().0)]);

        // An interrupt that no handler claims is switched off in the end.
        let lost = map(&spec(&[41, 4])).unwrap();
        request(lost, "lost", kalloc::karc_as!(other => dyn IrqHandler)).unwrap();
        chip.take_log();
        for _ in 0..desc::UNHANDLED_LIMIT {
            chip.raise(41);
        }
        assert_eq!(chip.take_log().iter().filter(|l| *l == "mask 41").count(), 1);

        let mut table = String::new();
        write_table(&mut table, CpuMask(1)).unwrap();
        assert!(table.contains("timer") && table.contains("fake") && table.contains("IPI"), "{table}");
    }
}
