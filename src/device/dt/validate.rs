//! Is this a device tree that every reader here can walk without a surprise?
//!
//! What is checked, in order: header size, magic, version and total size; that the three blocks
//! lie inside the tree, aligned; that the reservation block ends; that the structure block is one
//! root node, balanced, at most [`MAX_DEPTH`](super::MAX_DEPTH) deep, of known tokens, with
//! properties before child nodes, names that are printable ASCII and end inside their block,
//! property values that end inside theirs, cell counts of one word in range, and an end token.
//!
//! That excludes each way in which `fdt` 0.1.5 panics: slices of the strings, structure and
//! reservation blocks past the end (`strings_block`, `structs_block`, `memory_reservations`),
//! unterminated or non-UTF-8 names, property lengths past the end, `#address-cells` that are too
//! short, and nesting beyond its table of 64.

use super::token::{Blocks, Token, be32, cells, next};
use super::{MAX_CELLS, MAX_DEPTH};
use core::fmt;
use fdt::Fdt;

/// The largest tree that the arm64 boot protocol allows: 2 MiB.
pub const MAX_SIZE: usize = 2 << 20;

const MAGIC: u32 = 0xd00d_feed;
const HEADER_SIZE: usize = 40;
/// The first version with `size_dt_struct`; also the last one that was defined.
const VERSION: u32 = 17;
/// The oldest version that a version-17 reader reads.
const LAST_COMPATIBLE: u32 = 16;

/// Why a device tree was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DtError {
    /// Fewer bytes than a header, or than the header says.
    Truncated,
    /// Does not start with 0xd00dfeed.
    BadMagic,
    /// Larger than the boot protocol allows.
    TooLarge,
    /// A version that is not understood.
    BadVersion,
    /// A block of the header lies outside the tree or is not aligned.
    BadBlock(&'static str),
    /// The memory reservation block does not end inside the tree.
    UnendedReservations,
    /// An unknown token, a name or a value that runs over its block; offset in the structure block.
    BadToken(u32),
    /// A node ends that did not begin, text follows the root, or the end comes too soon.
    Unbalanced(u32),
    /// A property after a child node, or outside of any node.
    MisplacedProperty(u32),
    /// Nodes nest too deeply.
    TooDeep(u32),
    /// `#address-cells`, `#size-cells` or `#interrupt-cells` is not one small number.
    BadCells(u32),
}

impl fmt::Display for DtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("truncated"),
            Self::BadMagic => f.write_str("no device tree magic"),
            Self::TooLarge => f.write_str("larger than 2 MiB"),
            Self::BadVersion => f.write_str("unknown version"),
            Self::BadBlock(name) => write!(f, "{name} block outside the tree"),
            Self::UnendedReservations => f.write_str("memory reservations without end"),
            Self::BadToken(at) => write!(f, "malformed token at {at:#x}"),
            Self::Unbalanced(at) => write!(f, "nodes do not balance at {at:#x}"),
            Self::MisplacedProperty(at) => write!(f, "misplaced property at {at:#x}"),
            Self::TooDeep(at) => write!(f, "nodes nest too deeply at {at:#x}"),
            Self::BadCells(at) => write!(f, "bad cell count at {at:#x}"),
        }
    }
}

/// A device tree that passed [`validate`].
#[derive(Clone, Copy)]
pub struct ValidTree<'a> {
    pub(super) fdt: Fdt<'a>,
    pub(super) bytes: &'a [u8],
    pub(super) blocks: Blocks<'a>,
}

fn block<'a>(tree: &'a [u8], start: u32, len: u32, align: u32, name: &'static str) -> Result<&'a [u8], DtError> {
    let bad = DtError::BadBlock(name);
    let end = start.checked_add(len).ok_or(bad)?;
    if (start as usize) < HEADER_SIZE || !start.is_multiple_of(align) {
        return Err(bad);
    }
    tree.get(start as usize..end as usize).ok_or(bad)
}

/// Checks a device tree. `bytes` may be longer than the tree.
pub fn validate(bytes: &[u8]) -> Result<ValidTree<'_>, DtError> {
    let word = |i: usize| be32(bytes, i * 4).ok_or(DtError::Truncated);
    if word(0)? != MAGIC {
        return Err(DtError::BadMagic);
    }
    let total = word(1)? as usize;
    let (version, compatible) = (word(5)?, word(6)?);
    let (strings_size, structs_size) = (word(8)?, word(9)?);
    if total > MAX_SIZE {
        return Err(DtError::TooLarge);
    }
    if version < VERSION || !(LAST_COMPATIBLE..=VERSION).contains(&compatible) {
        return Err(DtError::BadVersion);
    }
    let bytes = bytes.get(..total).ok_or(DtError::Truncated)?;
    if bytes.len() < HEADER_SIZE {
        return Err(DtError::Truncated);
    }
    let structs = block(bytes, word(2)?, structs_size, 4, "structure")?;
    let strings = block(bytes, word(3)?, strings_size, 1, "strings")?;
    let reservations = block(bytes, word(4)?, 0, 8, "reservation").map(|_| word(4))??;
    check_reservations(bytes, reservations as usize)?;
    let blocks = Blocks { structs, strings };
    check_structure(blocks)?;
    let fdt = Fdt::new(bytes).map_err(|_| DtError::Truncated)?;
    Ok(ValidTree { fdt, bytes, blocks })
}

/// The reservation block has no length: it ends with an entry of two zeroes (5.3.2).
fn check_reservations(bytes: &[u8], mut at: usize) -> Result<(), DtError> {
    loop {
        let (Some(address), Some(size)) = (cells(bytes, at, 2), cells(bytes, at + 8, 2)) else {
            return Err(DtError::UnendedReservations);
        };
        if address == 0 && size == 0 {
            return Ok(());
        }
        at += 16;
    }
}

fn check_structure(blocks: Blocks<'_>) -> Result<(), DtError> {
    let mut at = 0;
    let mut depth = 0;
    let mut seen_root = false;
    // Whether a property may stand here: between a node's begin and its first child.
    let mut in_properties = false;
    loop {
        let here = at as u32;
        let (token, after) = next(blocks, at).ok_or(DtError::BadToken(here))?;
        match token {
            Token::Begin { name, .. } => {
                if depth == 0 {
                    if seen_root || !name.is_empty() {
                        return Err(DtError::Unbalanced(here));
                    }
                    seen_root = true;
                } else if name.is_empty() {
                    return Err(DtError::BadToken(here));
                }
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(DtError::TooDeep(here));
                }
                in_properties = true;
            }
            Token::End => {
                if depth == 0 {
                    return Err(DtError::Unbalanced(here));
                }
                depth -= 1;
                in_properties = false;
            }
            Token::Prop(prop) => {
                if !in_properties {
                    return Err(DtError::MisplacedProperty(here));
                }
                check_cells(prop.name, prop.value).ok_or(DtError::BadCells(here))?;
            }
            Token::Done if depth == 0 && seen_root => return Ok(()),
            Token::Done => return Err(DtError::Unbalanced(here)),
        }
        at = after;
    }
}

/// The properties that say how long others are must be one word and small.
fn check_cells(name: &str, value: &[u8]) -> Option<()> {
    if !matches!(name, "#address-cells" | "#size-cells" | "#interrupt-cells") {
        return Some(());
    }
    let count = u32::from_be_bytes(value.try_into().ok()?);
    (count <= MAX_CELLS).then_some(())
}

#[cfg(test)]
mod tests {
    use super::super::build::Builder;
    use super::*;

    fn small() -> Vec<u8> {
        Builder::new()
            .reserve(0x1000, 0x2000)
            .begin("")
            .u32("#address-cells", 2)
            .u32("#size-cells", 2)
            .begin("memory@40000000")
            .str("device_type", "memory")
            .cells("reg", &[0, 0x4000_0000, 0, 0x1000_0000])
            .end()
            .end()
            .finish()
    }

    fn patched(offset: usize, word: u32) -> Vec<u8> {
        let mut tree = small();
        tree[offset..offset + 4].copy_from_slice(&word.to_be_bytes());
        tree
    }

    #[test]
    fn a_small_tree_is_valid() {
        assert!(validate(&small()).is_ok());
    }

    #[test]
    fn every_truncation_is_refused() {
        let tree = small();
        for len in 0..tree.len() {
            assert!(validate(&tree[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn header_fields_are_checked() {
        assert_eq!(validate(&patched(0, 0)).err(), Some(DtError::BadMagic));
        assert_eq!(validate(&patched(4, u32::MAX)).err(), Some(DtError::TooLarge));
        assert_eq!(validate(&patched(4, 8)).err(), Some(DtError::Truncated));
        assert_eq!(validate(&patched(20, 16)).err(), Some(DtError::BadVersion));
        assert_eq!(validate(&patched(24, 18)).err(), Some(DtError::BadVersion));
        for offset in [8, 12, 16] {
            for bad in [0, 4, 0x10_0000, u32::MAX] {
                assert!(
                    matches!(validate(&patched(offset, bad)).err(), Some(DtError::BadBlock(_))),
                    "field {offset} = {bad:#x}"
                );
            }
        }
        assert!(matches!(validate(&patched(32, u32::MAX)).err(), Some(DtError::BadBlock("strings"))));
        assert!(matches!(validate(&patched(36, u32::MAX)).err(), Some(DtError::BadBlock("structure"))));
    }

    #[test]
    fn reservations_must_end() {
        let tree = small();
        // The block as the last thing of a tree, without its zero entry.
        let mut bytes = tree.clone();
        while bytes.len() % 8 != 0 {
            bytes.push(0xff);
        }
        let start = bytes.len() as u32;
        bytes.extend_from_slice(&[1; 16]);
        let total = bytes.len() as u32;
        bytes[4..8].copy_from_slice(&total.to_be_bytes());
        bytes[16..20].copy_from_slice(&start.to_be_bytes());
        assert_eq!(validate(&bytes).err(), Some(DtError::UnendedReservations));
    }

    #[test]
    fn cell_counts_must_be_one_small_word() {
        let with = |value: &[u8]| validate(&Builder::new().begin("").prop("#size-cells", value).end().finish()).err();
        assert_eq!(with(&[0, 0, 0, 1]), None);
        assert!(matches!(with(&[0, 0, 0, 5]), Some(DtError::BadCells(_))));
        assert!(matches!(with(&[0, 0]), Some(DtError::BadCells(_))));
        assert!(matches!(with(&[]), Some(DtError::BadCells(_))));
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth: usize| {
            let mut b = Builder::new().begin("");
            for _ in 1..depth {
                b = b.begin("n");
            }
            for _ in 0..depth {
                b = b.end();
            }
            validate(&b.finish()).err()
        };
        assert_eq!(nested(MAX_DEPTH), None);
        assert!(matches!(nested(MAX_DEPTH + 1), Some(DtError::TooDeep(_))));
    }

    #[test]
    fn misplaced_tokens_are_refused() {
        let late = Builder::new().begin("").begin("a").end().u32("p", 1).end().finish();
        assert!(matches!(validate(&late).err(), Some(DtError::MisplacedProperty(_))));
        let unnamed = Builder::new().begin("").begin("").end().end().finish();
        assert!(matches!(validate(&unnamed).err(), Some(DtError::BadToken(_))));
        let two_roots = Builder::new().begin("").end().begin("").end().finish();
        assert!(matches!(validate(&two_roots).err(), Some(DtError::Unbalanced(_))));
        let open = Builder::new().begin("").begin("a").end().finish();
        assert!(matches!(validate(&open).err(), Some(DtError::Unbalanced(_))));
        let none = Builder::new().finish();
        assert!(matches!(validate(&none).err(), Some(DtError::Unbalanced(_))));
        let name = Builder::new().begin("").begin("a b").end().end().finish();
        assert!(matches!(validate(&name).err(), Some(DtError::BadToken(_))));
    }
}
