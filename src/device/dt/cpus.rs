//! The CPUs and how each of them is started.

use super::Tree;
use super::node::{Children, Node};
use super::token::cells;
use abi::PhysAddr;

/// The affinity fields of MPIDR_EL1, which `reg` holds (Linux's binding arm/cpus.yaml).
const MPIDR_AFFINITY: u64 = 0xff_00ff_ffff;

/// How a CPU is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enable {
    /// By the firmware, through PSCI CPU_ON.
    Psci,
    /// By writing its entry point to this address.
    SpinTable(PhysAddr),
    /// In a way that Linnet does not know, or not at all.
    Unknown,
}

/// One CPU.
#[derive(Clone, Copy)]
pub struct Cpu<'a> {
    /// Its node.
    pub node: Node<'a>,
    /// The affinity fields of its MPIDR_EL1.
    pub mpidr: u64,
    /// How it is started.
    pub enable: Enable,
}

/// Iterator over the enabled CPUs.
#[derive(Clone)]
pub struct Cpus<'a> {
    address_cells: u32,
    children: Option<Children<'a>>,
}

impl<'a> Cpus<'a> {
    pub(super) fn new(cpus: Option<Node<'a>>) -> Self {
        Self {
            address_cells: cpus.and_then(|n| n.prop_u32("#address-cells")).unwrap_or(1),
            children: cpus.map(|n| n.children()),
        }
    }
}

impl<'a> Iterator for Cpus<'a> {
    type Item = Cpu<'a>;

    fn next(&mut self) -> Option<Cpu<'a>> {
        loop {
            let node = self.children.as_mut()?.next()?;
            if node.prop_str("device_type") != Some("cpu") && node.base_name() != "cpu" || !node.is_enabled() {
                continue;
            }
            let Some(reg) = node.prop("reg").and_then(|r| cells(r, 0, self.address_cells)) else { continue };
            if reg & !MPIDR_AFFINITY != 0 {
                continue;
            }
            let enable = match node.prop_str("enable-method") {
                Some("psci") => Enable::Psci,
                Some("spin-table") => match node.prop_u64("cpu-release-addr") {
                    Some(address) => Enable::SpinTable(PhysAddr(address)),
                    None => Enable::Unknown,
                },
                _ => Enable::Unknown,
            };
            return Some(Cpu { node, mpidr: reg, enable });
        }
    }
}

/// Which instruction calls PSCI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PsciMethod {
    /// HVC: the hypervisor answers.
    Hvc,
    /// SMC: the secure firmware answers.
    Smc,
}

impl PsciMethod {
    pub(super) fn of(tree: &Tree<'_>) -> Option<Self> {
        let node = tree
            .nodes()
            .find(|n| ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"].iter().any(|c| n.is_compatible(c)) && n.is_enabled())?;
        match node.prop_str("method")? {
            "hvc" => Some(Self::Hvc),
            "smc" => Some(Self::Smc),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{board, virt};
    use super::super::validate;
    use super::*;

    #[test]
    fn psci_and_spin_table_cpus_are_told_apart() {
        let bytes = virt();
        let tree = Tree::new(validate(&bytes).unwrap());
        assert!(tree.cpus().map(|c| (c.mpidr, c.enable)).eq((0..4).map(|i| (i, Enable::Psci))));
        assert_eq!(tree.psci(), Some(PsciMethod::Hvc));
        let bytes = board();
        let tree = Tree::new(validate(&bytes).unwrap());
        let expected = (0..4).map(|i| (i, Enable::SpinTable(PhysAddr(0xd8 + i * 8))));
        assert!(tree.cpus().map(|c| (c.mpidr, c.enable)).eq(expected));
        assert_eq!(tree.psci(), None);
    }
}
