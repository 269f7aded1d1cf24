//! One node of the tree: its name, properties, children and parent.

use super::MAX_DEPTH;
use super::token::{Blocks, Token, be32, next};
use core::fmt;

/// A property: its name and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Prop<'a> {
    /// The name.
    pub name: &'a str,
    /// The value, big-endian where it holds numbers.
    pub value: &'a [u8],
}

/// A node. Small enough to copy: two slices and the offsets of its ancestors.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    pub(super) blocks: Blocks<'a>,
    /// Offsets of the begin tokens from the root to this node.
    path: [u32; MAX_DEPTH],
    /// How many of them count; 1 for the root.
    depth: usize,
}

impl<'a> Node<'a> {
    /// The root of a tree, if it has one.
    pub(super) fn root(blocks: Blocks<'a>) -> Option<Self> {
        Nodes::all(blocks).next()
    }

    /// Offset of the node in the structure block: its identity.
    pub(super) fn offset(&self) -> u32 {
        self.path.get(self.depth.wrapping_sub(1)).copied().unwrap_or(0)
    }

    fn begin(&self) -> Option<(&'a str, usize)> {
        match next(self.blocks, self.offset() as usize)? {
            (Token::Begin { name, .. }, after) => Some((name, after)),
            _ => None,
        }
    }

    /// The name with its unit address, as `serial@7e201000`; empty for the root.
    pub fn name(&self) -> &'a str {
        self.begin().map_or("", |(name, _)| name)
    }

    /// The name without its unit address.
    pub fn base_name(&self) -> &'a str {
        let name = self.name();
        name.split_once('@').map_or(name, |(base, _)| base)
    }

    /// The properties, in the order of the tree.
    pub fn props(&self) -> Props<'a> {
        Props { blocks: self.blocks, at: self.begin().map(|(_, after)| after) }
    }

    /// The value of a property.
    pub fn prop(&self, name: &str) -> Option<&'a [u8]> {
        self.props().find(|p| p.name == name).map(|p| p.value)
    }

    /// A property that is one 32-bit number.
    pub fn prop_u32(&self, name: &str) -> Option<u32> {
        let value = self.prop(name)?;
        (value.len() == 4).then(|| be32(value, 0)).flatten()
    }

    /// A property that is one number of 32 or 64 bits.
    pub fn prop_u64(&self, name: &str) -> Option<u64> {
        let value = self.prop(name)?;
        super::token::cells(value, 0, match value.len() {
            4 => 1,
            8 => 2,
            _ => return None,
        })
    }

    /// The first string of a property.
    pub fn prop_str(&self, name: &str) -> Option<&'a str> {
        self.strings(name).next()
    }

    /// The strings of a property.
    pub fn strings(&self, name: &str) -> Strings<'a> {
        Strings { rest: self.prop(name).unwrap_or_default() }
    }

    /// Whether the node says that it is compatible with `what`.
    pub fn is_compatible(&self, what: &str) -> bool {
        self.strings("compatible").any(|s| s == what)
    }

    /// Whether the device is there: no `status`, or `okay` (2.3.4).
    pub fn is_enabled(&self) -> bool {
        match self.prop("status") {
            None => true,
            Some(_) => matches!(self.prop_str("status"), Some("okay" | "ok")),
        }
    }

    /// The number by which other nodes refer to this one.
    pub fn phandle(&self) -> Option<u32> {
        self.prop_u32("phandle").or_else(|| self.prop_u32("linux,phandle"))
    }

    /// The node above; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        (self.depth > 1).then(|| Self { depth: self.depth - 1, ..*self })
    }

    /// The nodes below, one level.
    pub fn children(&self) -> Children<'a> {
        Children { nodes: self.descendants(), depth: self.depth + 1 }
    }

    /// The child of that name. Without a unit address, the first whose base name matches.
    pub fn child(&self, name: &str) -> Option<Node<'a>> {
        self.children().find(|n| n.name() == name || !name.contains('@') && n.base_name() == name)
    }

    /// The nodes below, all levels, in the order of the tree.
    pub fn descendants(&self) -> Nodes<'a> {
        Nodes {
            blocks: self.blocks,
            path: self.path,
            depth: self.depth,
            base: self.depth,
            at: self.begin().map(|(_, after)| after),
        }
    }

    /// `#address-cells` for the children (default 2, 2.3.5).
    pub fn address_cells(&self) -> u32 {
        self.prop_u32("#address-cells").unwrap_or(2)
    }

    /// `#size-cells` for the children (default 1, 2.3.5).
    pub fn size_cells(&self) -> u32 {
        self.prop_u32("#size-cells").unwrap_or(1)
    }

    /// Every node of the tree that this one belongs to.
    pub(super) fn whole_tree(&self) -> Nodes<'a> {
        Nodes::all(self.blocks)
    }

    /// The node with that phandle, anywhere in the tree.
    pub fn by_phandle(&self, phandle: u32) -> Option<Node<'a>> {
        self.whole_tree().find(|n| n.phandle() == Some(phandle))
    }
}

/// The full path, as `/soc/serial@7e201000`.
impl fmt::Display for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.depth <= 1 {
            return f.write_str("/");
        }
        for depth in 2..=self.depth {
            let ancestor = Node { depth, ..*self };
            write!(f, "/{}", ancestor.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Node<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.offset() == other.offset() && core::ptr::eq(self.blocks.structs, other.blocks.structs)
    }
}

/// Iterator over a node's properties.
#[derive(Clone)]
pub struct Props<'a> {
    blocks: Blocks<'a>,
    at: Option<usize>,
}

impl<'a> Iterator for Props<'a> {
    type Item = Prop<'a>;

    fn next(&mut self) -> Option<Prop<'a>> {
        let (token, after) = next(self.blocks, self.at.take()?)?;
        let Token::Prop(prop) = token else { return None };
        self.at = Some(after);
        Some(prop)
    }
}

/// Iterator over nodes, depth first, in the order of the tree.
#[derive(Clone)]
pub struct Nodes<'a> {
    blocks: Blocks<'a>,
    path: [u32; MAX_DEPTH],
    depth: usize,
    /// The walk ends when a node of this depth ends.
    base: usize,
    at: Option<usize>,
}

impl<'a> Nodes<'a> {
    pub(super) fn all(blocks: Blocks<'a>) -> Self {
        Self { blocks, path: [0; MAX_DEPTH], depth: 0, base: 0, at: Some(0) }
    }
}

impl<'a> Iterator for Nodes<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        loop {
            let (token, after) = next(self.blocks, self.at.take()?)?;
            match token {
                Token::Begin { at, .. } => {
                    *self.path.get_mut(self.depth)? = at as u32;
                    self.depth += 1;
                    self.at = Some(after);
                    return Some(Node { blocks: self.blocks, path: self.path, depth: self.depth });
                }
                Token::End if self.depth > self.base => {
                    self.depth -= 1;
                    self.at = Some(after);
                }
                Token::Prop(_) => self.at = Some(after),
                Token::End | Token::Done => return None,
            }
        }
    }
}

/// Iterator over a node's children.
#[derive(Clone)]
pub struct Children<'a> {
    nodes: Nodes<'a>,
    depth: usize,
}

impl<'a> Iterator for Children<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        let depth = self.depth;
        self.nodes.find(|n| n.depth == depth)
    }
}

/// Iterator over the strings of a property: NUL-terminated, one after the other. What is not
/// UTF-8 or not terminated is left out.
#[derive(Clone)]
pub struct Strings<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            let len = self.rest.iter().position(|&b| b == 0)?;
            let string = self.rest.get(..len)?;
            self.rest = self.rest.get(len + 1..)?;
            if let Ok(s) = core::str::from_utf8(string) {
                return Some(s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{Builder, board, virt};
    use super::super::{Tree, validate};

    #[test]
    fn nodes_after_nops_are_found() {
        let bytes = board();
        let tree = Tree::new(validate(&bytes).unwrap());
        for path in ["/aliases", "/chosen", "/reserved-memory", "/soc/serial@7e201400", "/cpus/cpu@3", "/memory"] {
            assert!(tree.find(path).is_some(), "{path}");
        }
        assert!(tree.find("/soc/cpus").is_none());
        assert!(tree.find("/soc/serial@7e201000/bluetooth").is_some());
    }

    #[test]
    fn every_node_prints_a_path_that_finds_it() {
        for bytes in [virt(), board()] {
            let tree = Tree::new(validate(&bytes).unwrap());
            let mut count = 0;
            for node in tree.nodes() {
                assert_eq!(tree.find(&node.to_string()), Some(node));
                count += 1;
            }
            assert!(count > 10);
        }
    }

    #[test]
    fn children_are_one_level_and_parents_their_inverse() {
        let bytes = board();
        let tree = Tree::new(validate(&bytes).unwrap());
        let soc = tree.find("/soc").unwrap();
        let names: Vec<_> = soc.children().map(|n| n.name()).collect();
        assert_eq!(names, ["interrupt-controller@40041000", "serial@7e201000", "serial@7e201400"]);
        assert!(soc.children().all(|n| n.parent() == Some(soc)));
        assert_eq!(soc.descendants().count(), 4);
    }

    #[test]
    fn strings_stop_at_the_end_of_the_value() {
        let bytes = Builder::new()
            .begin("")
            .prop("compatible", b"one\0two\0three")
            .prop("status", b"")
            .end()
            .finish();
        let tree = Tree::new(validate(&bytes).unwrap());
        let root = tree.root().unwrap();
        assert!(root.strings("compatible").eq(["one", "two"]));
        assert!(!root.is_enabled());
        assert_eq!(root.prop_u32("compatible"), None);
    }
}
