//! Which physical memory there is, and which parts of it are taken.

use super::node::{Children, Node, Nodes};
use abi::PhysAddr;

/// A range of physical memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemRange {
    /// First byte.
    pub start: PhysAddr,
    /// Bytes, more than none.
    pub size: u64,
    /// Must not be mapped at all, not even by a speculating CPU (`no-map`).
    pub no_map: bool,
}

impl MemRange {
    /// First byte behind the range; saturates.
    pub fn end(&self) -> PhysAddr {
        PhysAddr(self.start.0.saturating_add(self.size))
    }
}

/// The windows of `reg` of one node after the other.
fn windows<'a>(node: &Node<'a>, next: &mut usize) -> Option<MemRange> {
    loop {
        let (start, size) = node.reg(*next)?;
        *next += 1;
        if size != 0 {
            return Some(MemRange { start, size, no_map: node.prop("no-map").is_some() });
        }
    }
}

/// Iterator over the banks of memory: the enabled nodes at the root with `device_type = "memory"`
/// (3.4).
#[derive(Clone)]
pub struct MemoryBanks<'a> {
    nodes: Nodes<'a>,
    current: Option<(Node<'a>, usize)>,
}

impl<'a> MemoryBanks<'a> {
    pub(super) fn new(nodes: Nodes<'a>) -> Self {
        Self { nodes, current: None }
    }
}

impl Iterator for MemoryBanks<'_> {
    type Item = MemRange;

    fn next(&mut self) -> Option<MemRange> {
        loop {
            if let Some((node, index)) = &mut self.current {
                if let Some(range) = windows(node, index) {
                    return Some(MemRange { no_map: false, ..range });
                }
                self.current = None;
            }
            let node = self.nodes.next()?;
            let at_root = node.parent().is_some_and(|p| p.parent().is_none());
            if at_root && node.prop_str("device_type") == Some("memory") && node.is_enabled() {
                self.current = Some((node, 0));
            }
        }
    }
}

/// Iterator over the enabled static areas of `/reserved-memory` (3.5.3). Areas that only state a
/// size ask for memory anywhere; the DMA layer is to give it to them.
#[derive(Clone)]
pub struct ReservedMemory<'a> {
    children: Option<Children<'a>>,
    current: Option<(Node<'a>, usize)>,
}

impl<'a> ReservedMemory<'a> {
    pub(super) fn new(node: Option<Node<'a>>) -> Self {
        Self { children: node.map(|n| n.children()), current: None }
    }
}

impl Iterator for ReservedMemory<'_> {
    type Item = MemRange;

    fn next(&mut self) -> Option<MemRange> {
        loop {
            if let Some((node, index)) = &mut self.current {
                if let Some(range) = windows(node, index) {
                    return Some(range);
                }
                self.current = None;
            }
            let node = self.children.as_mut()?.next()?;
            if node.is_enabled() {
                self.current = Some((node, 0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{board, virt};
    use super::super::{Tree, validate};
    use super::*;

    fn range(start: u64, size: u64) -> MemRange {
        MemRange { start: PhysAddr(start), size, no_map: false }
    }

    #[test]
    fn banks_of_several_windows_are_listed() {
        let bytes = board();
        let tree = Tree::new(validate(&bytes).unwrap());
        assert!(tree.memory().eq([range(0, 0x3c00_0000), range(0x4000_0000, 0x4000_0000)]));
        let bytes = virt();
        let tree = Tree::new(validate(&bytes).unwrap());
        assert!(tree.memory().eq([range(0x4000_0000, 0x2000_0000)]));
    }

    #[test]
    fn reserved_areas_carry_no_map_and_skip_disabled_and_dynamic_ones() {
        let bytes = board();
        let tree = Tree::new(validate(&bytes).unwrap());
        assert!(tree.reserved_memory().eq([MemRange { no_map: true, ..range(0x3b40_0000, 0x1000) }]));
        assert!(tree.memory_reservations().eq([range(0, 0x1000)]));
        let bytes = virt();
        let tree = Tree::new(validate(&bytes).unwrap());
        assert_eq!(tree.reserved_memory().count(), 0);
    }
}
