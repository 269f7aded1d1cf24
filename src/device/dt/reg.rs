//! Where a device's registers are: `reg`, translated through the `ranges` of every bus above.

use super::node::Node;
use super::token::cells;
use abi::PhysAddr;

impl Node<'_> {
    /// The `index`-th window of `reg` as physical address and size; `None` if there is none or it
    /// lies behind a bus that does not map it (Devicetree Specification 2.3.6, 2.3.8).
    pub fn reg(&self, index: usize) -> Option<(PhysAddr, u64)> {
        let bus = self.parent()?;
        let (address, size) = self.raw_reg(index)?;
        Some((PhysAddr(bus.to_physical(address)?), size))
    }

    /// The `index`-th window of `reg` as the parent bus numbers it.
    pub fn raw_reg(&self, index: usize) -> Option<(u64, u64)> {
        let bus = self.parent()?;
        let (address_cells, size_cells) = (bus.address_cells(), bus.size_cells());
        let stride = (address_cells + size_cells) as usize * 4;
        let start = stride.checked_mul(index)?;
        let entry = self.prop("reg")?.get(start..start.checked_add(stride)?)?;
        // An entry of no cells at all would repeat without end.
        if entry.is_empty() {
            return None;
        }
        let address = cells(entry, 0, address_cells)?;
        let size = cells(entry, address_cells as usize * 4, size_cells)?;
        address.checked_add(size)?;
        Some((address, size))
    }

    /// The number of the window that `reg-names` calls `name`.
    pub fn reg_index(&self, name: &str) -> Option<usize> {
        self.strings("reg-names").position(|n| n == name)
    }

    /// An address on this bus as the CPUs see it.
    fn to_physical(self, mut address: u64) -> Option<u64> {
        let mut bus = self;
        while let Some(parent) = bus.parent() {
            let ranges = bus.prop("ranges")?;
            if !ranges.is_empty() {
                address = through_ranges(ranges, &bus, &parent, address)?;
            }
            bus = parent;
        }
        Some(address)
    }
}

/// `address` on `bus` as `parent` numbers it. Each range is (child address, parent address, size).
fn through_ranges(ranges: &[u8], bus: &Node<'_>, parent: &Node<'_>, address: u64) -> Option<u64> {
    let (child_cells, parent_cells, size_cells) = (bus.address_cells(), parent.address_cells(), bus.size_cells());
    let parent_at = child_cells as usize * 4;
    let size_at = parent_at + parent_cells as usize * 4;
    let stride = size_at + size_cells as usize * 4;
    if stride == 0 {
        return None;
    }
    ranges.chunks_exact(stride).find_map(|range| {
        let offset = address.checked_sub(cells(range, 0, child_cells)?)?;
        if offset >= cells(range, size_at, size_cells)? {
            return None;
        }
        cells(range, parent_at, parent_cells)?.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::super::build::{Builder, board, virt};
    use super::super::{Tree, validate};
    use abi::PhysAddr;

    #[test]
    fn registers_are_translated_through_ranges() {
        let bytes = board();
        let tree = Tree::new(validate(&bytes).unwrap());
        let uart = tree.find("/soc/serial").unwrap();
        assert_eq!(uart.reg(0), Some((PhysAddr(0xfe20_1000), 0x200)));
        assert_eq!(uart.reg(1), None);
        let gic = tree.find("/soc/interrupt-controller").unwrap();
        assert_eq!(gic.reg(0), Some((PhysAddr(0xff84_1000), 0x1000)));
        assert_eq!(gic.reg(3), Some((PhysAddr(0xff84_6000), 0x2000)));
        assert_eq!(gic.reg(usize::MAX), None);
    }

    #[test]
    fn registers_at_the_root_need_no_ranges() {
        let bytes = virt();
        let tree = Tree::new(validate(&bytes).unwrap());
        let gic = tree.find("/intc").unwrap();
        assert_eq!(gic.reg(1), Some((PhysAddr(0x080a_0000), 0xf6_0000)));
    }

    #[test]
    fn a_bus_without_ranges_or_outside_of_them_maps_nothing() {
        let bytes = Builder::new()
            .begin("")
            .u32("#address-cells", 1)
            .u32("#size-cells", 1)
            .begin("closed")
            .u32("#address-cells", 1)
            .u32("#size-cells", 1)
            .begin("a@0")
            .cells("reg", &[0, 4])
            .end()
            .end()
            .begin("open")
            .u32("#address-cells", 1)
            .u32("#size-cells", 1)
            .cells("ranges", &[0x1000, 0xffff_f000, 0x1000])
            .begin("inside@1ff0")
            .cells("reg", &[0x1ff0, 0x10])
            .end()
            .begin("outside@2000")
            .cells("reg", &[0x2000, 4])
            .end()
            .end()
            .begin("wide@0")
            .u32("#address-cells", 3)
            .flag("ranges")
            .begin("pci@0")
            .cells("reg", &[0, 0, 0, 1])
            .end()
            .end()
            .end()
            .finish();
        let tree = Tree::new(validate(&bytes).unwrap());
        assert_eq!(tree.find("/closed/a").unwrap().reg(0), None);
        assert_eq!(tree.find("/open/inside").unwrap().reg(0), Some((PhysAddr(0xffff_fff0), 0x10)));
        assert_eq!(tree.find("/open/outside").unwrap().reg(0), None);
        assert_eq!(tree.find("/wide/pci").unwrap().reg(0), None);
    }
}
