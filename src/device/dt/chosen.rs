//! What the boot loader passes on in `/chosen`.

use super::Tree;
use super::node::Node;
use abi::PhysAddr;

/// `/chosen`; every question answers `None` when the node or the property is missing.
#[derive(Clone, Copy)]
pub struct Chosen<'a> {
    tree: Tree<'a>,
    node: Option<Node<'a>>,
}

/// The console that the firmware used.
#[derive(Clone, Copy)]
pub struct Stdout<'a> {
    /// The device.
    pub node: Node<'a>,
    /// What follows the colon, as `115200n8`.
    pub options: Option<&'a str>,
}

impl<'a> Chosen<'a> {
    pub(super) fn new(tree: Tree<'a>) -> Self {
        Self { tree, node: tree.find("/chosen") }
    }

    /// The kernel's command line, without its NUL.
    pub fn bootargs(&self) -> Option<&'a [u8]> {
        let value = self.node?.prop("bootargs")?;
        let len = value.iter().position(|&b| b == 0).unwrap_or(value.len());
        value.get(..len)
    }

    /// First byte of the initial RAM disk and first byte behind it; of 32 or 64 bits.
    pub fn initrd(&self) -> Option<(PhysAddr, PhysAddr)> {
        let start = self.node?.prop_u64("linux,initrd-start")?;
        let end = self.node?.prop_u64("linux,initrd-end")?;
        (start < end).then_some((PhysAddr(start), PhysAddr(end)))
    }

    /// The seed for the kernel's own address; zero means that there is none.
    pub fn kaslr_seed(&self) -> Option<u64> {
        self.node?.prop_u64("kaslr-seed").filter(|&s| s != 0)
    }

    /// Seed for the random number generator.
    pub fn rng_seed(&self) -> Option<&'a [u8]> {
        self.node?.prop("rng-seed")
    }

    /// The console's device, by path or alias, and its options.
    pub fn stdout(&self) -> Option<Stdout<'a>> {
        let path = self.node?.prop_str("stdout-path").or_else(|| self.node?.prop_str("linux,stdout-path"))?;
        let (path, options) = match path.split_once(':') {
            Some((path, options)) => (path, Some(options)),
            None => (path, None),
        };
        Some(Stdout { node: self.tree.find_or_alias(path)?, options })
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{Builder, board, virt};
    use super::super::validate;
    use super::*;

    #[test]
    fn initrd_bounds_have_32_or_64_bits() {
        let bytes = virt();
        let chosen = Tree::new(validate(&bytes).unwrap()).chosen();
        assert_eq!(chosen.initrd(), Some((PhysAddr(0x4800_0000), PhysAddr(0x4810_0000))));
        assert_eq!(chosen.bootargs(), Some(&b"console=ttyAMA0 quiet"[..]));
        assert_eq!(chosen.kaslr_seed(), Some(0x0123_4567_89ab_cdef));
        assert_eq!(chosen.rng_seed(), Some(&[7; 32][..]));
        let bytes = board();
        let chosen = Tree::new(validate(&bytes).unwrap()).chosen();
        assert_eq!(chosen.initrd(), Some((PhysAddr(0x0800_0000), PhysAddr(0x0810_0000))));
        assert_eq!(chosen.kaslr_seed(), None);
    }

    #[test]
    fn stdout_is_a_path_or_an_alias_with_options() {
        let bytes = virt();
        let stdout = Tree::new(validate(&bytes).unwrap()).chosen().stdout().unwrap();
        assert_eq!((stdout.node.name(), stdout.options), ("pl011@9000000", None));
        let bytes = board();
        let stdout = Tree::new(validate(&bytes).unwrap()).chosen().stdout().unwrap();
        assert_eq!((stdout.node.name(), stdout.options), ("serial@7e201000", Some("115200n8")));
    }

    #[test]
    fn an_absent_node_or_an_empty_initrd_answers_none() {
        let bytes = Builder::new().begin("").end().finish();
        let chosen = Tree::new(validate(&bytes).unwrap()).chosen();
        assert!(chosen.bootargs().is_none() && chosen.stdout().is_none() && chosen.initrd().is_none());
        let bytes = Builder::new()
            .begin("")
            .begin("chosen")
            .u32("linux,initrd-start", 8)
            .u32("linux,initrd-end", 8)
            .flag("bootargs")
            .end()
            .end()
            .finish();
        let chosen = Tree::new(validate(&bytes).unwrap()).chosen();
        assert!(chosen.initrd().is_none());
        assert_eq!(chosen.bootargs(), Some(&b""[..]));
    }
}
