//! Which interrupts a device raises, and at which controller.

use super::node::Node;
use super::token::be32;
use super::{MAX_CELLS, MAX_DEPTH};

/// The most cells of one interrupt specifier.
pub const MAX_IRQ_CELLS: usize = MAX_CELLS as usize;

/// Identity of an interrupt controller's node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControllerId(pub u32);

/// One interrupt as the tree states it: the controller and what only that controller understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IrqSpec {
    /// The controller.
    pub controller: ControllerId,
    cells: [u32; MAX_IRQ_CELLS],
    count: usize,
}

impl IrqSpec {
    /// A specifier made by hand.
    pub fn new(controller: ControllerId, cells: &[u32]) -> Option<Self> {
        let mut all = [0; MAX_IRQ_CELLS];
        all.get_mut(..cells.len())?.copy_from_slice(cells);
        Some(Self { controller, cells: all, count: cells.len() })
    }

    /// The specifier's cells.
    pub fn cells(&self) -> &[u32] {
        self.cells.get(..self.count).unwrap_or_default()
    }

    /// Reads `#interrupt-cells` cells of `bytes` at `at`.
    fn read(controller: &Node<'_>, bytes: &[u8], at: usize) -> Option<(Self, usize)> {
        let count = controller.prop_u32("#interrupt-cells")? as usize;
        let mut cells = [0; MAX_IRQ_CELLS];
        for (i, cell) in cells.get_mut(..count)?.iter_mut().enumerate() {
            *cell = be32(bytes, at.checked_add(i * 4)?)?;
        }
        Some((Self { controller: controller.controller_id(), cells, count }, at + count * 4))
    }
}

impl<'a> Node<'a> {
    /// This node as an interrupt controller.
    pub fn controller_id(&self) -> ControllerId {
        ControllerId(self.offset())
    }

    /// The controller that `interrupts` of this node speaks to: that of `interrupt-parent`, else
    /// of the nearest ancestor that has one or is one (2.4.1).
    pub fn interrupt_parent(&self) -> Option<Node<'a>> {
        let mut node = *self;
        // Bounded: phandles may form a ring.
        for _ in 0..2 * MAX_DEPTH {
            let next = match node.prop_u32("interrupt-parent") {
                Some(phandle) => self.by_phandle(phandle)?,
                None => node.parent()?,
            };
            if next.prop("#interrupt-cells").is_some() {
                return Some(next);
            }
            node = next;
        }
        None
    }

    /// The `index`-th interrupt: of `interrupts-extended`, else of `interrupts`.
    pub fn interrupts(&self, index: usize) -> Option<IrqSpec> {
        let Some(list) = self.prop("interrupts-extended") else {
            let controller = self.interrupt_parent()?;
            let stride = controller.prop_u32("#interrupt-cells")? as usize * 4;
            let at = stride.checked_mul(index)?;
            // A controller without cells would have every index.
            return if stride == 0 { None } else { IrqSpec::read(&controller, self.prop("interrupts")?, at).map(|s| s.0) };
        };
        let mut at = 0;
        for skipped in 0..=index {
            let controller = self.by_phandle(be32(list, at)?)?;
            let (spec, after) = IrqSpec::read(&controller, list, at + 4)?;
            if skipped == index {
                return Some(spec);
            }
            at = after;
        }
        None
    }

    /// The number of the interrupt that `interrupt-names` calls `name`.
    pub fn interrupt_index(&self, name: &str) -> Option<usize> {
        self.strings("interrupt-names").position(|n| n == name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{Builder, board, virt};
    use super::super::{Tree, validate};

    #[test]
    fn interrupts_inherit_their_parent_from_the_root() {
        let bytes = virt();
        let tree = Tree::new(validate(&bytes).unwrap());
        let gic = tree.find("/intc").unwrap();
        let timer = tree.find("/timer").unwrap();
        let spec = timer.interrupts(2).unwrap();
        assert_eq!((spec.controller, spec.cells()), (gic.controller_id(), &[1, 11, 4][..]));
        assert_eq!(timer.interrupts(4), None);
        assert_eq!(timer.interrupts(usize::MAX), None);
        assert_eq!(gic.interrupts(0), None);
    }

    #[test]
    fn extended_interrupts_name_their_controllers() {
        let bytes = board();
        let tree = Tree::new(validate(&bytes).unwrap());
        let uart = tree.find("/soc/serial@7e201400").unwrap();
        assert_eq!(uart.interrupts(0).unwrap().cells(), [0, 121, 4]);
        assert_eq!(uart.interrupts(1), None);
        let other = tree.find("/soc/serial@7e201000").unwrap();
        assert_eq!(other.interrupts(0), uart.interrupts(0));
    }

    #[test]
    fn a_ring_of_interrupt_parents_ends() {
        let bytes = Builder::new()
            .begin("")
            .begin("a")
            .u32("phandle", 1)
            .u32("interrupt-parent", 2)
            .u32("interrupts", 1)
            .end()
            .begin("b")
            .u32("phandle", 2)
            .u32("interrupt-parent", 1)
            .end()
            .begin("zero")
            .u32("phandle", 3)
            .u32("#interrupt-cells", 0)
            .end()
            .begin("c")
            .u32("interrupt-parent", 3)
            .u32("interrupts", 1)
            .cells("interrupts-extended", &[3, 3, 3])
            .end()
            .end()
            .finish();
        let tree = Tree::new(validate(&bytes).unwrap());
        assert_eq!(tree.find("/a").unwrap().interrupts(0), None);
        let c = tree.find("/c").unwrap();
        assert_eq!(c.interrupts(2).unwrap().cells(), [0u32; 0]);
        assert_eq!(c.interrupts(3), None);
    }
}
