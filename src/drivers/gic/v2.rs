//! GICv2: a distributor that all CPUs share, and a CPU interface in memory of which each CPU sees
//! its own.

use crate::{PRIORITY, PRIORITY_MASK, SPECIAL, SPI, arm_trigger, int_id, translate, window};
use abi::{CpuId, CpuMask, Errno, MAX_CPUS, Result};
use arm_gic::{
    InterruptGroup,
    gicv2::{SgiTarget, SgiTargetListFilter},
};
use device::{
    dt::Node,
    gic_access::V2,
    irq::{Acked, HwIrq, Ipi, IrqChip, Trigger},
    mmio::{At, barrier},
};
use kalloc::{KArc, KVec, karc_dyn};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU8, Ordering::Relaxed},
};
use tock_registers::interfaces::{Readable, Writeable};

static GIC: LockClass = LockClass::new("gicv2", 1460);

// Registers that arm-gic does not offer in a usable way; see `device::gic_access`.
const GICD_ICENABLER: At<u32> = At::new(0x180);
const GICD_ICACTIVER: At<u32> = At::new(0x380);
const GICD_IPRIORITYR: At<u32> = At::new(0x400);
const GICD_ITARGETSR: At<u32> = At::new(0x800);
const GICD_ITARGETSR_BYTE: At<u8> = At::new(0x800);
const GICD_ICFGR: At<u32> = At::new(0xc00);
const GICC_CTLR: At<u32> = At::new(0x000);
const GICC_EOIR: At<u32> = At::new(0x010);
const GICC_APR: At<u32> = At::new(0x0d0);

/// The interrupt number in what an acknowledgement gives; above it, an SGI's source CPU.
const ID_MASK: u32 = 0x3ff;

struct Gic {
    regs: V2,
    count: u32,
    /// Serialises changes of registers that several interrupts share.
    config: SpinLock<()>,
    /// The bit by which the distributor knows each CPU; 0 until it came up.
    targets: KVec<AtomicU8>,
}

pub(crate) fn probe(node: &Node<'_>) -> Result<KArc<dyn IrqChip>> {
    let gic = Gic::new(V2::new(window(node, 0)?, window(node, 1)?)?)?;
    Ok(karc_dyn!(gic => dyn IrqChip)?)
}

impl Gic {
    /// Sets the distributor up: everything off, level-triggered, of one priority, for this CPU.
    fn new(mut regs: V2) -> Result<Self> {
        let count = regs.shared().typer().num_irqs().min(SPECIAL);
        if count <= SPI {
            return Err(Errno::ENODEV);
        }
        // Group 0 by name: the same bit is "group 1" seen from the non-secure world (4.3.1).
        regs.shared().enable_group0(false);
        let cpu_mask = own_target(&regs);
        let dist = regs.dist_regs();
        for word in SPI as usize / 32..count.div_ceil(32) as usize {
            dist.reg(GICD_ICENABLER.nth(word)).set(u32::MAX);
            dist.reg(GICD_ICACTIVER.nth(word)).set(u32::MAX);
        }
        for word in SPI as usize / 16..count.div_ceil(16) as usize {
            dist.reg(GICD_ICFGR.nth(word)).set(0);
        }
        for word in SPI as usize / 4..count.div_ceil(4) as usize {
            dist.reg(GICD_IPRIORITYR.nth(word)).set(u32::from_ne_bytes([PRIORITY; 4]));
            dist.reg(GICD_ITARGETSR.nth(word)).set(u32::from_ne_bytes([cpu_mask; 4]));
        }
        regs.shared().enable_group0(true);
        Ok(Self { regs, count, config: SpinLock::new((), &GIC), targets: KVec::try_from_iter((0..MAX_CPUS).map(|_| AtomicU8::new(0)))? })
    }

    fn targets(&self, cpus: CpuMask) -> u8 {
        cpus.iter().fold(0, |mask, cpu| mask | self.targets.get(cpu.index()).map_or(0, |t| t.load(Relaxed)))
    }
}

/// The bit of this CPU: the registers of its private interrupts show it. A GIC for a single CPU
/// has none of those registers.
fn own_target(regs: &V2) -> u8 {
    let all = (0..SPI as usize / 4).fold(0, |all, i| all | regs.dist_regs().reg(GICD_ITARGETSR.nth(i)).get());
    let [a, b, c, d] = all.to_ne_bytes();
    match a | b | c | d {
        0 => 1,
        mask => mask,
    }
}

impl IrqChip for Gic {
    fn name(&self) -> &'static str {
        "GICv2"
    }

    fn count(&self) -> u32 {
        self.count
    }

    fn translate(&self, cells: &[u32]) -> Result<(HwIrq, Trigger)> {
        translate(cells, self.count)
    }

    fn is_percpu(&self, hw: HwIrq) -> bool {
        hw.0 < SPI
    }

    fn ack(&self) -> Option<Acked> {
        let token = self.regs.banked().get_and_acknowledge_interrupt(InterruptGroup::Group0)?.raw_value();
        // What another CPU wrote before it sent this is read after the acknowledgement (pairs with the
        // barrier in `send_ipi`): several interrupts may be taken in one exception.
        barrier();
        let hw = token & ID_MASK;
        (hw < SPECIAL).then_some(Acked { hw: HwIrq(hw), token })
    }

    fn eoi(&self, acked: Acked) {
        // What the handler wrote to its device is complete before the interrupt may come again.
        barrier();
        self.regs.cpu_regs().reg(GICC_EOIR).set(acked.token);
    }

    fn unmask(&self, hw: HwIrq) {
        if let Some(id) = int_id(hw) {
            // One write to a set-enable register. An interrupt that does not exist stays off.
            let _ = self.regs.banked().enable_interrupt(id, true);
        }
    }

    fn mask(&self, hw: HwIrq) {
        if let Some(id) = int_id(hw) {
            let _ = self.regs.banked().enable_interrupt(id, false);
        }
    }

    fn set_type(&self, hw: HwIrq, trigger: Trigger) -> Result {
        let id = int_id(hw).ok_or(Errno::EINVAL)?;
        if hw.0 < SPI {
            // Private interrupts are wired as they are.
            return Ok(());
        }
        let _config = self.config.lock_irq();
        self.regs.banked().set_trigger(id, arm_trigger(trigger));
        Ok(())
    }

    fn set_affinity(&self, hw: HwIrq, cpus: CpuMask) -> Result {
        let target = cpus.iter().find(|c| self.targets(CpuMask::of(*c)) != 0).ok_or(Errno::EINVAL)?;
        if hw.0 < SPI || hw.0 >= self.count {
            return Err(Errno::EINVAL);
        }
        // One CPU: with several, all of them would be disturbed. Byte access is allowed (4.3.12).
        self.regs.dist_regs().reg(GICD_ITARGETSR_BYTE.nth(hw.0 as usize)).set(self.targets(CpuMask::of(target)));
        Ok(())
    }

    fn send_ipi(&self, cpus: CpuMask, ipi: Ipi) {
        let Some(id) = int_id(ipi.hw()) else { return };
        let target_list = u16::from(self.targets(cpus));
        if target_list != 0 {
            // What was written for the other CPU is visible before the interrupt is.
            barrier();
            let target = SgiTarget::List { target_list_filter: SgiTargetListFilter::CPUTargetList, target_list };
            self.regs.banked().send_sgi(id, target);
        }
    }

    fn init_cpu(&self, cpu: CpuId) -> Result {
        self.targets.get(cpu.index()).ok_or(Errno::EINVAL)?.store(own_target(&self.regs), Relaxed);
        let dist = self.regs.dist_regs();
        dist.reg(GICD_ICACTIVER).set(u32::MAX);
        // Private interrupts off until they are asked for, software-generated ones on.
        dist.reg(GICD_ICENABLER).set(0xffff_0000);
        for word in 0..SPI as usize / 4 {
            dist.reg(GICD_IPRIORITYR.nth(word)).set(u32::from_ne_bytes([PRIORITY; 4]));
        }
        let mut banked = self.regs.banked();
        for id in (0..16).map(arm_gic::IntId::sgi) {
            // Some controllers have them always on.
            let _ = banked.enable_interrupt(id, true);
        }
        banked.set_priority_mask(PRIORITY_MASK);
        let cpu_if = self.regs.cpu_regs();
        for i in 0..4 {
            cpu_if.reg(GICC_APR.nth(i)).set(0);
        }
        // The bypass bits stay as the firmware set them.
        let ctlr = cpu_if.reg(GICC_CTLR);
        ctlr.set(ctlr.get() & 0x1e0 | 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use device::mmio::Region;

    /// TYPER: 96 interrupts, 4 CPUs; this CPU is number 2.
    fn gic() -> Gic {
        let (dist, cpu) = (Region::fake(0x1000).unwrap(), Region::fake(0x2000).unwrap());
        dist.reg(At::<u32>::new(4)).set(3 << 5 | 2);
        for i in 0..8 {
            dist.reg(GICD_ITARGETSR.nth(i)).set(0x0404_0404);
        }
        Gic::new(V2::new(dist, cpu).unwrap()).unwrap()
    }

    #[test]
    fn setup_routes_shared_interrupts_here_at_one_priority() {
        let gic = gic();
        assert_eq!(gic.count(), 96);
        let dist = gic.regs.dist_regs();
        assert_eq!(dist.reg(At::<u32>::new(0)).get(), 1);
        for hw in 32..96 {
            assert_eq!(dist.reg(At::<u8>::new(0x400 + hw)).get(), PRIORITY);
            assert_eq!(dist.reg(At::<u8>::new(0x800 + hw)).get(), 4);
        }
    }

    #[test]
    fn affinity_and_ipis_use_the_distributors_cpu_bits() {
        let gic = gic();
        assert_eq!(gic.set_affinity(HwIrq(40), CpuMask::of(CpuId(1))), Err(Errno::EINVAL));
        gic.init_cpu(CpuId(1)).unwrap();
        gic.set_affinity(HwIrq(40), CpuMask::ALL).unwrap();
        assert_eq!(gic.regs.dist_regs().reg(At::<u8>::new(0x828)).get(), 4);
        assert_eq!(gic.set_affinity(HwIrq(20), CpuMask::ALL), Err(Errno::EINVAL));
        gic.send_ipi(CpuMask::of(CpuId(1)), Ipi::Call);
        let sgir = gic.regs.dist_regs().reg(At::<u32>::new(0xf00)).get();
        assert_eq!(sgir & 0x0fff_000f, 4 << 16 | Ipi::Call.hw().0);
        assert_eq!(gic.regs.cpu_regs().reg(At::<u32>::new(0)).get(), 1);
        assert_eq!(gic.regs.cpu_regs().reg(At::<u32>::new(4)).get(), u32::from(PRIORITY_MASK));
    }

    #[test]
    fn an_acknowledged_sgi_is_ended_with_its_source_cpu() {
        let gic = gic();
        let iar = gic.regs.cpu_regs().reg(At::<u32>::new(0x0c));
        iar.set(3 << 10 | 1);
        let acked = gic.ack().unwrap();
        assert_eq!(acked.hw, HwIrq(1));
        gic.eoi(acked);
        assert_eq!(gic.regs.cpu_regs().reg(GICC_EOIR).get(), 3 << 10 | 1);
        for none in [1023, 1022, 1020] {
            iar.set(none);
            assert!(gic.ack().is_none(), "{none}");
        }
    }

    #[test]
    fn triggers_change_only_their_own_bits() {
        let gic = gic();
        gic.set_type(HwIrq(33), Trigger::Edge).unwrap();
        gic.set_type(HwIrq(35), Trigger::Edge).unwrap();
        gic.set_type(HwIrq(33), Trigger::Level).unwrap();
        assert_eq!(gic.regs.dist_regs().reg(GICD_ICFGR.nth(2)).get(), 1 << 7);
        assert!(gic.set_type(HwIrq(1020), Trigger::Edge).is_err());
    }
}
