//! Where the first serial port is: a look at the device tree before the real parser has run.
//!
//! Nothing is believed: every read is a checked `get`, a tree that makes no sense gives no console.
//! In this order: `earlycon=pl011,ADDRESS` on the command line, /chosen/stdout-path if it is a PL011,
//! the known place on the boards that this crate knows by the root's `compatible`.

use abi::PhysAddr;

/// Base of QEMU virt's PL011, and of the Raspberry Pi 4's: the compiled-in exceptions.
const KNOWN: [(&[u8], u64); 3] = [
    (b"linux,dummy-virt", 0x0900_0000),
    (b"raspberrypi,4-model-b", 0xfe20_1000),
    (b"brcm,bcm2711", 0xfe20_1000),
];

/// Levels of the tree that are followed.
const MAX_DEPTH: usize = 8;

/// Registers of the PL011 to print to.
pub fn console(tree: &[u8]) -> Option<PhysAddr> {
    let tree = Tree::new(tree)?;
    if let Some(args) = tree.property(b"/chosen", b"bootargs")
        && let Some(addr) = args.split(|c| *c == b' ' || *c == 0).find_map(earlycon)
    {
        return Some(PhysAddr(addr));
    }
    if let Some(path) = tree.property(b"/chosen", b"stdout-path")
        && let Some(addr) = tree.pl011_at(path)
    {
        return Some(PhysAddr(addr));
    }
    let compatible = tree.property(b"/", b"compatible")?;
    KNOWN.iter().find(|(name, _)| has_string(compatible, name)).map(|(_, addr)| PhysAddr(*addr))
}

/// Where in the tree the seed of the kernel's own address is, to be wiped once it was used.
pub fn kaslr_seed(tree: &[u8]) -> Option<core::ops::Range<usize>> {
    let value = Tree::new(tree)?.property(b"/chosen", b"kaslr-seed")?;
    let start = (value.as_ptr() as usize).checked_sub(tree.as_ptr() as usize)?;
    Some(start..start + value.len())
}

/// The address of an `earlycon=pl011,[mmio32,]ADDRESS` word.
fn earlycon(word: &[u8]) -> Option<u64> {
    let rest = word.strip_prefix(b"earlycon=pl011,")?;
    let rest = rest.strip_prefix(b"mmio32,").or(rest.strip_prefix(b"mmio,")).unwrap_or(rest);
    let digits = rest.split(|c| *c == b',').next()?.strip_prefix(b"0x")?;
    let mut value = 0u64;
    for c in digits {
        let digit = (*c as char).to_digit(16)?;
        value = value.checked_mul(16)? | u64::from(digit);
    }
    (value != 0 && value & 3 == 0 && value < 1 << 48).then_some(value)
}

fn has_string(list: &[u8], name: &[u8]) -> bool {
    list.split(|c| *c == 0).any(|s| s == name)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn c_string(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split(|c| *c == 0).next().filter(|s| s.len() < bytes.len())
}

/// A number of one or two cells.
fn number(cells: &[u8], at: usize, n: usize) -> Option<u64> {
    match n {
        1 => be32(cells, at * 4).map(u64::from),
        2 => Some(u64::from(be32(cells, at * 4)?) << 32 | u64::from(be32(cells, at * 4 + 4)?)),
        _ => None,
    }
}

struct Tree<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
}

enum Token<'a> {
    Begin(&'a [u8]),
    Property(&'a [u8], &'a [u8]),
    End,
}

/// What a node says about the addresses of its children.
#[derive(Clone, Copy)]
struct Bus<'a> {
    address_cells: usize,
    size_cells: usize,
    ranges: Option<&'a [u8]>,
}

impl<'a> Tree<'a> {
    fn new(tree: &'a [u8]) -> Option<Self> {
        if be32(tree, 0)? != 0xd00d_feed {
            return None;
        }
        let part = |at: usize| tree.get(be32(tree, at)? as usize..);
        Some(Self { structure: part(8)?, strings: part(12)? })
    }

    /// The next token from `at`, and where the one after it starts.
    fn token(&self, mut at: usize) -> Option<(Token<'a>, usize)> {
        loop {
            let kind = be32(self.structure, at)?;
            at += 4;
            match kind {
                1 => {
                    let name = c_string(self.structure.get(at..)?)?;
                    return Some((Token::Begin(name), (at + name.len() + 4) & !3));
                }
                2 => return Some((Token::End, at)),
                3 => {
                    let len = be32(self.structure, at)? as usize;
                    let name = c_string(self.strings.get(be32(self.structure, at + 4)? as usize..)?)?;
                    let start = at + 8;
                    let value = self.structure.get(start..start.checked_add(len)?)?;
                    return Some((Token::Property(name, value), (start + len).checked_add(3)? & !3));
                }
                4 => {}
                _ => return None,
            }
        }
    }

    /// Calls `f` with the properties of the nodes on the way to `path`: depth (0 is the root), whether
    /// it is the node itself, name, value. `None` when there is no such node.
    fn walk(&self, path: &[u8], mut f: impl FnMut(usize, bool, &'a [u8], &'a [u8])) -> Option<()> {
        let wanted = || path.split(|c| *c == b'/').filter(|s| !s.is_empty());
        let count = wanted().count();
        let (mut at, mut depth, mut matched) = (0, 0usize, 0);
        loop {
            let (token, next) = self.token(at)?;
            at = next;
            match token {
                Token::Begin(name) => {
                    depth += 1;
                    if depth == matched + 2 && wanted().nth(matched).is_some_and(|w| names(name, w)) {
                        matched += 1;
                    }
                }
                Token::Property(name, value) => {
                    if depth == matched + 1 {
                        f(matched, matched == count, name, value);
                    }
                }
                Token::End => {
                    if depth == matched + 1 {
                        return (matched == count).then_some(());
                    }
                    depth = depth.checked_sub(1)?;
                }
            }
        }
    }

    fn property(&self, path: &[u8], name: &[u8]) -> Option<&'a [u8]> {
        let mut found = None;
        self.walk(path, |_, here, n, value| {
            if here && n == name {
                found = Some(value);
            }
        })?;
        found
    }

    /// Address of the PL011 that a `stdout-path` names (a path or an alias, options after a colon).
    fn pl011_at(&self, path: &[u8]) -> Option<u64> {
        let path = path.split(|c| *c == b':' || *c == 0).next()?;
        let path = if path.first() == Some(&b'/') {
            path
        } else {
            c_string(self.property(b"/aliases", path)?)?
        };
        let none = Bus { address_cells: 2, size_cells: 1, ranges: None };
        let mut buses = [none; MAX_DEPTH];
        let (mut reg, mut compatible, mut depth) = (None, None, 0);
        self.walk(path, |level, here, name, value| {
            if here {
                depth = level;
                match name {
                    b"reg" => reg = Some(value),
                    b"compatible" => compatible = Some(value),
                    _ => {}
                }
            } else if let Some(bus) = buses.get_mut(level) {
                match name {
                    b"#address-cells" => bus.address_cells = be32(value, 0).unwrap_or(0) as usize,
                    b"#size-cells" => bus.size_cells = be32(value, 0).unwrap_or(0) as usize,
                    b"ranges" => bus.ranges = Some(value),
                    _ => {}
                }
            }
        })?;
        if !has_string(compatible?, b"arm,pl011") {
            return None;
        }
        let buses = buses.get(..depth)?;
        let (last, _) = buses.split_last()?;
        let mut addr = number(reg?, 0, last.address_cells)?;
        // From the node's bus up to the root's.
        for pair in buses.windows(2).rev() {
            let [parent, bus] = pair else { return None };
            addr = translate(addr, bus, parent.address_cells)?;
        }
        Some(addr)
    }
}

/// Whether a node's name is the wanted one, with or without its unit address.
fn names(name: &[u8], wanted: &[u8]) -> bool {
    name == wanted || (!wanted.contains(&b'@') && name.split(|c| *c == b'@').next() == Some(wanted))
}

/// An address of a bus as its parent sees it.
fn translate(addr: u64, bus: &Bus<'_>, parent_cells: usize) -> Option<u64> {
    let ranges = bus.ranges?;
    if ranges.is_empty() {
        return Some(addr);
    }
    let entry = bus.address_cells.checked_add(parent_cells)?.checked_add(bus.size_cells)?;
    for range in ranges.chunks_exact(entry.checked_mul(4).filter(|n| *n > 0)?) {
        let child = number(range, 0, bus.address_cells)?;
        let parent = number(range, bus.address_cells, parent_cells)?;
        let size = number(range, bus.address_cells + parent_cells, bus.size_cells)?;
        if let Some(offset) = addr.checked_sub(child).filter(|o| *o < size) {
            return parent.checked_add(offset);
        }
    }
    None
}

/// A tree writer, just enough for tests.
#[cfg(test)]
pub(crate) mod builder {
    #[derive(Default)]
    pub(crate) struct Builder {
        structure: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Builder {
        pub(crate) fn word(&mut self, w: u32) {
            self.structure.extend(w.to_be_bytes());
        }
        pub(crate) fn pad(&mut self) {
            self.structure.resize(self.structure.len().next_multiple_of(4), 0);
        }
        pub(crate) fn begin(&mut self, name: &str) {
            self.word(1);
            self.structure.extend(name.bytes().chain([0]));
            self.pad();
        }
        pub(crate) fn end(&mut self) {
            self.word(2);
        }
        pub(crate) fn property(&mut self, name: &str, value: &[u8]) {
            let at = self.strings.len() as u32;
            self.strings.extend(name.bytes().chain([0]));
            self.word(3);
            self.word(value.len() as u32);
            self.word(at);
            self.structure.extend(value);
            self.pad();
        }
        pub(crate) fn cells(&mut self, name: &str, cells: &[u32]) {
            let bytes: Vec<u8> = cells.iter().flat_map(|c| c.to_be_bytes()).collect();
            self.property(name, &bytes);
        }
        pub(crate) fn finish(mut self) -> Vec<u8> {
            self.word(9);
            let mut tree = Vec::new();
            let strings_at = 40 + self.structure.len() as u32;
            let size = strings_at + self.strings.len() as u32;
            for w in [0xd00d_feed, size, 40, strings_at, 0, 17, 16, 0, 0, 0] {
                tree.extend(w.to_be_bytes());
            }
            tree.extend(self.structure);
            tree.extend(self.strings);
            tree
        }
    }

    /// A list of strings as a property holds it.
    pub(crate) fn strings(list: &[&str]) -> Vec<u8> {
        list.iter().flat_map(|s| s.bytes().chain([0])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::builder::{Builder, strings};
    use super::*;

    #[test]
    fn the_seed_is_found_where_it_is_to_be_wiped() {
        let mut b = Builder::default();
        b.begin("");
        b.begin("chosen");
        b.property("bootargs", b"quiet\0");
        b.cells("kaslr-seed", &[0x0102_0304, 0x0506_0708]);
        b.end();
        b.end();
        let mut tree = b.finish();
        let range = kaslr_seed(&tree).unwrap();
        assert_eq!(tree[range.clone()], [1, 2, 3, 4, 5, 6, 7, 8]);
        tree[range].fill(0);
        assert!(!tree.windows(4).any(|w| w == [1, 2, 3, 4]));
        assert_eq!(kaslr_seed(b"nothing"), None);
    }

    fn board(compatible: &str, bootargs: &str, stdout: &str) -> Vec<u8> {
        let mut b = Builder::default();
        b.begin("");
        b.cells("#address-cells", &[2]);
        b.cells("#size-cells", &[1]);
        b.property("compatible", &strings(&[compatible, "other"]));
        b.begin("aliases");
        b.property("serial0", b"/soc/serial@7e201000\0");
        b.end();
        b.begin("chosen");
        b.property("bootargs", &strings(&[bootargs]));
        b.property("stdout-path", &strings(&[stdout]));
        b.end();
        b.begin("soc");
        b.cells("#address-cells", &[1]);
        b.cells("#size-cells", &[1]);
        b.cells("ranges", &[0x4000_0000, 0, 0xff80_0000, 0x80_0000, 0x7e00_0000, 0, 0xfe00_0000, 0x180_0000]);
        b.begin("serial@7e201000");
        b.property("compatible", b"arm,pl011\0arm,primecell\0");
        b.cells("reg", &[0x7e20_1000, 0x200]);
        b.end();
        b.begin("serial@7e215040");
        b.property("compatible", b"brcm,bcm2835-aux-uart\0");
        b.cells("reg", &[0x7e21_5040, 0x40]);
        b.end();
        b.end();
        b.end();
        b.finish()
    }

    #[test]
    fn stdout_path_is_followed_through_alias_and_ranges() {
        let t = board("x", "quiet", "serial0:115200n8");
        assert_eq!(console(&t), Some(PhysAddr(0xfe20_1000)));
        let t = board("x", "", "/soc/serial@7e201000");
        assert_eq!(console(&t), Some(PhysAddr(0xfe20_1000)));
    }

    #[test]
    fn earlycon_comes_first() {
        let t = board("x", "a earlycon=pl011,0x9000000,115200 b", "serial0");
        assert_eq!(console(&t), Some(PhysAddr(0x0900_0000)));
        let t = board("x", "earlycon=pl011,mmio32,0x9040000", "serial0");
        assert_eq!(console(&t), Some(PhysAddr(0x0904_0000)));
    }

    #[test]
    fn a_port_of_another_kind_falls_back_to_the_board() {
        let t = board("brcm,bcm2711", "", "/soc/serial@7e215040");
        assert_eq!(console(&t), Some(PhysAddr(0xfe20_1000)));
        let t = board("linux,dummy-virt", "", "nonsense");
        assert_eq!(console(&t), Some(PhysAddr(0x0900_0000)));
        assert_eq!(console(&board("unknown", "", "")), None);
    }

    #[test]
    fn no_truncation_or_changed_byte_does_worse_than_finding_nothing() {
        let t = board("linux,dummy-virt", "earlycon", "serial0");
        for n in 0..t.len() {
            let _ = console(&t[..n]);
            for bit in 0..8 {
                let mut bad = t.clone();
                bad[n] ^= 1 << bit;
                let _ = console(&bad);
            }
            let mut bad = t.clone();
            bad[n] = 0xff;
            let _ = console(&bad);
        }
    }
}
