#![cfg_attr(not(test), no_std)]
//! The Arm Generic Interrupt Controller, versions 2 and 3, behind [`device::irq::IrqChip`].
//!
//! Which one the machine has, and where, comes from the device tree. Linnet runs in the non-secure
//! world (or in a machine without a secure one); everything is one priority, level or edge as the
//! device's node says.
//!
//! Sources: GIC architecture specification IHI 0048B (v2) and IHI 0069H (v3); bindings
//! arm,gic.yaml and arm,gic-v3.yaml.

mod v2;
mod v3;

use abi::{CpuId, Errno, Result};
use device::{
    dt::{Node, Tree},
    irq::{self, HwIrq, Trigger},
    mmio::Region,
};

/// First interrupt of the kind that each CPU has its own of, and first of the shared kind.
const PPI: u32 = 16;
const SPI: u32 = 32;
/// First number that is no interrupt but an answer ("none pending").
const SPECIAL: u32 = 1020;
/// The priority of every interrupt, and the mask that lets it through: the middle of what the
/// non-secure world can use, as Linux has it.
const PRIORITY: u8 = 0xa0;
const PRIORITY_MASK: u8 = 0xf0;

const COMPATIBLE_V2: [&str; 6] =
    ["arm,gic-400", "arm,cortex-a15-gic", "arm,cortex-a9-gic", "arm,cortex-a7-gic", "arm,eb11mp-gic", "arm,pl390"];
const COMPATIBLE_V3: [&str; 1] = ["arm,gic-v3"];

/// Finds the machine's GIC in the tree, sets it up, registers it as the root controller and
/// prepares the boot CPU. Interrupts are off. ENODEV: the tree describes none.
pub fn init(tree: &Tree<'_>) -> Result {
    for node in tree.nodes().filter(|n| n.is_enabled()) {
        let is = |list: &[&str]| node.strings("compatible").any(|c| list.contains(&c));
        let chip = if is(&COMPATIBLE_V3) {
            v3::probe(&node)?
        } else if is(&COMPATIBLE_V2) {
            v2::probe(&node)?
        } else {
            continue;
        };
        irq::register_controller(node.controller_id(), chip)?;
        return irq::init_cpu(CpuId::BOOT);
    }
    Err(Errno::ENODEV)
}

/// Maps the `index`-th window of a node.
fn window(node: &Node<'_>, index: usize) -> Result<Region> {
    let (address, size) = node.reg(index).ok_or(Errno::ENODEV)?;
    Region::map(address, size)
}

/// Reads the three cells of a specifier: kind (0 shared, 1 per CPU), number, flags (IRQ_TYPE_*).
/// GICv3 may have a fourth, which restricts a per-CPU interrupt to some CPUs.
fn translate(cells: &[u32], count: u32) -> Result<(HwIrq, Trigger)> {
    let (Some(&kind), Some(&number), Some(&flags)) = (cells.first(), cells.get(1), cells.get(2)) else {
        return Err(Errno::EINVAL);
    };
    let hw = match kind {
        0 => number.checked_add(SPI).ok_or(Errno::EINVAL)?,
        1 if number < SPI - PPI => number + PPI,
        _ => return Err(Errno::EINVAL),
    };
    if hw >= count {
        return Err(Errno::EINVAL);
    }
    let trigger = match flags & 0xf {
        1..=3 => Trigger::Edge,
        _ => Trigger::Level,
    };
    Ok((HwIrq(hw), trigger))
}

/// For arm-gic.
fn int_id(hw: HwIrq) -> Option<arm_gic::IntId> {
    (hw.0 < SPECIAL).then(|| arm_gic::IntId::try_from(hw.0).ok()).flatten()
}

fn arm_trigger(trigger: Trigger) -> arm_gic::Trigger {
    match trigger {
        Trigger::Edge => arm_gic::Trigger::Edge,
        Trigger::Level => arm_gic::Trigger::Level,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifiers_give_shared_and_private_interrupts() {
        assert_eq!(translate(&[0, 121, 4], 256), Ok((HwIrq(153), Trigger::Level)));
        assert_eq!(translate(&[1, 11, 0xf08], 256), Ok((HwIrq(27), Trigger::Level)));
        assert_eq!(translate(&[0, 1, 1, 0], 256), Ok((HwIrq(33), Trigger::Edge)));
        for bad in [&[0, 224, 4][..], &[1, 16, 4], &[2, 1, 4], &[0, u32::MAX, 4], &[0, 1], &[]] {
            assert_eq!(translate(bad, 256), Err(Errno::EINVAL), "{bad:?}");
        }
    }
}
