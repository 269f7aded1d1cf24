//! The tree as a whole: looking nodes up by path, phandle, compatibility and alias.

use super::node::{Node, Nodes};
use super::{Chosen, Cpus, MemRange, MemoryBanks, PsciMethod, ReservedMemory, ValidTree};
use abi::PhysAddr;
use sync::Once;

/// A validated device tree.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    valid: ValidTree<'a>,
}

static MACHINE: Once<Tree<'static>> = Once::new();

/// Makes `tree` the machine's tree; the first call counts.
pub fn set_tree(tree: Tree<'static>) {
    MACHINE.call_once(|| tree);
}

/// The machine's tree, once boot has set it.
pub fn tree() -> Option<&'static Tree<'static>> {
    MACHINE.get()
}

impl<'a> Tree<'a> {
    /// The tree over validated bytes.
    pub fn new(valid: ValidTree<'a>) -> Self {
        Self { valid }
    }

    /// The bytes of the whole tree.
    pub fn bytes(&self) -> &'a [u8] {
        self.valid.bytes
    }

    /// Bytes of the whole tree, as its header says.
    pub fn size(&self) -> usize {
        self.valid.fdt.total_size()
    }

    /// The root node.
    pub fn root(&self) -> Option<Node<'a>> {
        Node::root(self.valid.blocks)
    }

    /// Every node, depth first, starting with the root.
    pub fn nodes(&self) -> Nodes<'a> {
        Nodes::all(self.valid.blocks)
    }

    /// The node with that path (`/soc/serial@7e201000`; a unit address may be left out).
    pub fn find(&self, path: &str) -> Option<Node<'a>> {
        let mut node = self.root()?;
        for part in path.strip_prefix('/')?.split('/').filter(|p| !p.is_empty()) {
            node = node.child(part)?;
        }
        Some(node)
    }

    /// The node with that path, or with that name in `/aliases` (then more path may follow).
    pub fn find_or_alias(&self, path: &str) -> Option<Node<'a>> {
        if path.starts_with('/') {
            return self.find(path);
        }
        let (alias, rest) = path.split_once('/').unwrap_or((path, ""));
        let mut node = self.find(self.find("/aliases")?.prop_str(alias)?)?;
        for part in rest.split('/').filter(|p| !p.is_empty()) {
            node = node.child(part)?;
        }
        Some(node)
    }

    /// The number of the alias `stem<n>` that names `node`, as `serial1` gives 1.
    pub fn alias_id(&self, stem: &str, node: &Node<'_>) -> Option<u32> {
        self.find("/aliases")?.props().find_map(|p| {
            let id = p.name.strip_prefix(stem)?.parse().ok()?;
            let path = core::str::from_utf8(p.value.strip_suffix(&[0])?).ok()?;
            (self.find(path)?.offset() == node.offset()).then_some(id)
        })
    }

    /// The nodes that are compatible with `what`, in the order of the tree.
    pub fn find_compatible<'n>(&self, what: &'n str) -> impl Iterator<Item = Node<'a>> + use<'a, 'n> {
        self.nodes().filter(move |n| n.is_compatible(what))
    }

    /// The node with that phandle.
    pub fn by_phandle(&self, phandle: u32) -> Option<Node<'a>> {
        self.nodes().find(|n| n.phandle() == Some(phandle))
    }

    /// `model` of the root: the machine's name.
    pub fn model(&self) -> Option<&'a str> {
        self.root()?.prop_str("model")
    }

    /// What the boot loader passes on.
    pub fn chosen(&self) -> Chosen<'a> {
        Chosen::new(*self)
    }

    /// The banks of memory.
    pub fn memory(&self) -> MemoryBanks<'a> {
        MemoryBanks::new(self.nodes())
    }

    /// The static areas of `/reserved-memory`.
    pub fn reserved_memory(&self) -> ReservedMemory<'a> {
        ReservedMemory::new(self.find("/reserved-memory"))
    }

    /// The memory reservation block.
    pub fn memory_reservations(&self) -> impl Iterator<Item = MemRange> + use<'a> {
        self.valid.fdt.memory_reservations().map(|r| MemRange {
            start: PhysAddr(r.address() as u64),
            size: r.size() as u64,
            no_map: false,
        })
    }

    /// The CPUs, in the order of the tree.
    pub fn cpus(&self) -> Cpus<'a> {
        Cpus::new(self.find("/cpus"))
    }

    /// How PSCI is called, if the machine has it.
    pub fn psci(&self) -> Option<PsciMethod> {
        PsciMethod::of(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{board, virt};
    use super::super::validate;
    use super::*;

    #[test]
    fn lookups_by_alias_phandle_and_compatible_agree() {
        let bytes = board();
        let tree = Tree::new(validate(&bytes).unwrap());
        let uart = tree.find("/soc/serial@7e201000").unwrap();
        assert_eq!(tree.find_or_alias("serial1"), Some(uart));
        assert_eq!(tree.alias_id("serial", &uart), Some(1));
        assert_eq!(tree.find_compatible("arm,pl011").count(), 2);
        assert_eq!(tree.by_phandle(1).unwrap().name(), "interrupt-controller@40041000");
        assert_eq!(tree.find_or_alias("serial9"), None);
        assert_eq!(tree.model(), Some("Raspberry Pi 4 Model B"));
    }

    #[test]
    fn walk_agrees_with_the_fdt_crate_on_a_tree_without_nops() {
        let bytes = virt();
        let tree = Tree::new(validate(&bytes).unwrap());
        let fdt = fdt::Fdt::new(&bytes).unwrap();
        let ours: Vec<_> = tree.nodes().skip(1).map(|n| (n.name(), n.props().count())).collect();
        let theirs: Vec<_> = fdt.all_nodes().skip(1).map(|n| (n.name, n.properties().count())).collect();
        assert_eq!(ours, theirs);
        assert_eq!(tree.memory_reservations().count(), 0);
    }
}
