//! GICv3 (and v4 as a v3): a distributor, a redistributor for each CPU, the CPU interface in
//! system registers, routing by affinity.

use crate::{PRIORITY, PRIORITY_MASK, SPECIAL, SPI, arm_trigger, int_id, translate, window};
use abi::{CpuId, CpuMask, Errno, MAX_CPUS, Result};
use arm_gic::{IntId, gicv3::GicError};
use device::{
    dt::Node,
    gic_access::{CpuInterface, Frame, V3},
    irq::{Acked, HwIrq, Ipi, IrqChip, Trigger},
    mmio::barrier,
};
use kalloc::{KArc, KVec, karc_dyn};
use sync::{LockClass, Once, SpinLock};

static GIC: LockClass = LockClass::new("gicv3", 1460);

/// Windows of redistributors, at most.
const MAX_REGIONS: u32 = 32;
/// The affinity fields in MPIDR_EL1.
const AFFINITY: u64 = 0xff_00ff_ffff;

struct Gic {
    count: u32,
    /// What is shared, and the redistributors: configuration is rare, one lock serves.
    regs: SpinLock<V3>,
    /// Which redistributor is whose, once the CPU came up.
    frames: KVec<Once<Frame>>,
}

pub(crate) fn probe(node: &Node<'_>) -> Result<KArc<dyn IrqChip>> {
    let regions = node.prop_u32("#redistributor-regions").unwrap_or(1).clamp(1, MAX_REGIONS);
    let mut redists = KVec::new();
    for i in 0..regions as usize {
        redists.try_push(window(node, 1 + i)?)?;
    }
    let stride = node.prop_u64("redistributor-stride").map(|s| s as usize);
    let gic = Gic::new(V3::new(window(node, 0)?, redists, stride)?)?;
    Ok(karc_dyn!(gic => dyn IrqChip)?)
}

fn einval(_: GicError) -> Errno {
    Errno::EINVAL
}

impl Gic {
    /// Sets the distributor up: everything off, level-triggered, of one priority, for this CPU.
    fn new(mut regs: V3) -> Result<Self> {
        let mut dist = regs.distributor();
        let count = SPI + dist.typer().num_spis().min(SPECIAL - SPI);
        dist.enable_all_interrupts(false);
        dist.wait_for_pending_write();
        // Affinity routing, group 1, level: arm-gic's names are those of the secure view; the bits
        // it sets are ARE and EnableGrp1 in the non-secure one (12.9.4).
        dist.configure_default_settings();
        dist.enable_group0(true);
        let here = arch::cpu::mpidr(arch::cpu::id()) & AFFINITY;
        for hw in SPI..count {
            let id = int_id(HwIrq(hw)).ok_or(Errno::EINVAL)?;
            dist.set_interrupt_priority(id, PRIORITY).map_err(einval)?;
            dist.set_routing(id, Some(here)).map_err(einval)?;
        }
        Ok(Self { count, regs: SpinLock::new(regs, &GIC), frames: KVec::try_from_iter((0..MAX_CPUS).map(|_| Once::new()))? })
    }

    /// The redistributor of a CPU, once it came up.
    fn frame(&self, cpu: CpuId) -> Option<&Frame> {
        self.frames.get(cpu.index())?.get()
    }

    fn enable(&self, hw: HwIrq, on: bool) {
        let Some(id) = int_id(hw) else { return };
        let mut regs = self.regs.lock_irq();
        // Neither can fail: `id` fits the block that it goes to.
        if hw.0 >= SPI {
            let mut dist = regs.distributor();
            let _ = dist.enable_interrupt(id, on);
            if !on {
                dist.wait_for_pending_write();
            }
        } else if let Some(frame) = self.frame(arch::cpu::id())
            && let Ok(mut redist) = regs.redistributor(*frame)
        {
            let _ = redist.enable_interrupt(id, on);
            if !on {
                redist.wait_for_pending_write();
            }
        }
    }
}

impl IrqChip for Gic {
    fn name(&self) -> &'static str {
        "GICv3"
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
        let id = CpuInterface::ack()?;
        (id < SPECIAL).then_some(Acked { hw: HwIrq(id), token: id })
    }

    fn eoi(&self, acked: Acked) {
        // What the handler wrote to its device is complete before the interrupt may come again.
        barrier();
        CpuInterface::end(acked.token);
    }

    fn unmask(&self, hw: HwIrq) {
        self.enable(hw, true);
    }

    fn mask(&self, hw: HwIrq) {
        self.enable(hw, false);
    }

    fn set_type(&self, hw: HwIrq, trigger: Trigger) -> Result {
        let id = int_id(hw).ok_or(Errno::EINVAL)?;
        if hw.0 < SPI {
            // Private interrupts are wired as they are.
            return Ok(());
        }
        self.regs.lock_irq().distributor().set_trigger(id, arm_trigger(trigger)).map_err(einval)
    }

    fn set_affinity(&self, hw: HwIrq, cpus: CpuMask) -> Result {
        let id = int_id(hw).filter(|_| (SPI..self.count).contains(&hw.0)).ok_or(Errno::EINVAL)?;
        let cpu = cpus.iter().find(|c| self.frame(*c).is_some()).ok_or(Errno::EINVAL)?;
        let route = arch::cpu::mpidr(cpu) & AFFINITY;
        self.regs.lock_irq().distributor().set_routing(id, Some(route)).map_err(einval)
    }

    fn send_ipi(&self, cpus: CpuMask, ipi: Ipi) {
        // What was written for the other CPUs is visible before the interrupt is.
        barrier();
        for_each_cluster(cpus, arch::cpu::mpidr, |affinity, list| {
            // Cannot fail: the number is below 16.
            let _ = CpuInterface::send_sgi(ipi.hw().0, affinity, list);
        });
    }

    fn init_cpu(&self, cpu: CpuId) -> Result {
        let mpidr = arch::cpu::mpidr(cpu);
        let mut regs = self.regs.lock_irq();
        let frame = regs.find(mpidr).ok_or(Errno::ENODEV)?;
        self.frames.get(cpu.index()).ok_or(Errno::EINVAL)?.call_once(|| frame);
        let mut redist = regs.redistributor(frame)?;
        redist.power_on();
        // The error says that it was awake.
        let _ = redist.mark_core_awake();
        redist.configure_default_settings();
        for id in IntId::private() {
            redist.set_interrupt_priority(id, PRIORITY).map_err(einval)?;
        }
        for id in (0..16).map(IntId::sgi) {
            redist.enable_interrupt(id, true).map_err(einval)?;
        }
        redist.wait_for_pending_write();
        drop(regs);
        CpuInterface::enable(PRIORITY_MASK);
        Ok(())
    }
}

/// Splits a set of CPUs into the groups that one SGI can reach: equal Aff3.Aff2.Aff1, Aff0 below
/// 16 (12.11.14; Linnet does not use the range selector).
fn for_each_cluster(cpus: CpuMask, mpidr: impl Fn(CpuId) -> u64, mut send: impl FnMut([u8; 3], u16)) {
    let cluster = |cpu: CpuId| {
        let m = mpidr(cpu);
        [(m >> 32) as u8, (m >> 16) as u8, (m >> 8) as u8]
    };
    let mut left = cpus;
    while let Some(first) = left.iter().next() {
        let affinity = cluster(first);
        let mut list = 0u16;
        for cpu in left.iter().filter(|c| cluster(*c) == affinity) {
            list |= 1u16.checked_shl(mpidr(cpu) as u8 as u32).unwrap_or(0);
            left = left.without(cpu);
        }
        if list != 0 {
            send(affinity, list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use device::mmio::{At, Region};
    use tock_registers::interfaces::{Readable, Writeable};

    #[test]
    fn ipis_are_grouped_by_cluster() {
        let mpidr = |cpu: CpuId| [0, 1, 0x100, 0x103, 0x8000_0002, 0x1_0000_0000][cpu.index()];
        let mut sent = vec![];
        for_each_cluster(CpuMask(0b11_1111), mpidr, |a, l| sent.push((a, l)));
        assert_eq!(sent, [([0, 0, 0], 0b111), ([0, 0, 1], 0b1001), ([1, 0, 0], 1)]);
        sent.clear();
        for_each_cluster(CpuMask::EMPTY, mpidr, |a, l| sent.push((a, l)));
        assert!(sent.is_empty());
    }

    #[test]
    fn setup_configures_distributor_and_redistributor() {
        let dist = Region::fake(0x1_0000).unwrap();
        dist.reg(At::<u32>::new(4)).set(2);
        let redist = Region::fake(0x2_0000).unwrap();
        let here = arch::cpu::mpidr(arch::cpu::id()) & AFFINITY;
        redist.reg(At::<u64>::new(8)).set((here >> 32 << 24 | here & 0xff_ffff) << 32 | 1 << 4);
        redist.reg(At::<u32>::new(0xffe8)).set(3 << 4);
        let mut redists = KVec::new();
        redists.try_push(redist).ok().unwrap();
        let gic = Gic::new(V3::new(dist, redists, None).unwrap()).unwrap();
        assert_eq!(gic.count(), 96);
        let cpu = arch::cpu::id();
        gic.init_cpu(cpu).unwrap();
        gic.unmask(HwIrq(40));
        gic.unmask(HwIrq(27));
        gic.set_type(HwIrq(33), Trigger::Edge).unwrap();
        gic.set_affinity(HwIrq(40), CpuMask::of(cpu)).unwrap();
        assert_eq!(gic.set_affinity(HwIrq(27), CpuMask::of(cpu)), Err(Errno::EINVAL));
        let mut regs = gic.regs.lock_irq();
        assert_eq!(regs.distributor().typer().num_spis(), 64);
        assert!(regs.find(here).is_some() && regs.find(here ^ 1).is_none());
        let _ = Readable::get(&Region::fake(16).unwrap().reg(At::<u32>::new(0)));
    }
}
