//! Reads one token of the structure block (Devicetree Specification 5.4).

use super::node::Prop;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// The two blocks that a tree's tokens refer to.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    pub(super) structs: &'a [u8],
    pub(super) strings: &'a [u8],
}

pub(super) enum Token<'a> {
    /// A node begins; `at` is the offset of this token.
    Begin { at: usize, name: &'a str },
    End,
    Prop(Prop<'a>),
    /// The end of the tree.
    Done,
}

/// The big-endian word at `at`.
pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*word))
}

/// The big-endian number of `cells` cells at `at`; `None` beyond 64 bits.
pub(super) fn cells(bytes: &[u8], at: usize, cells: u32) -> Option<u64> {
    match cells {
        0 => Some(0),
        1 => be32(bytes, at).map(u64::from),
        2 => {
            let word = bytes.get(at..)?.first_chunk::<8>()?;
            Some(u64::from_be_bytes(*word))
        }
        _ => None,
    }
}

/// The NUL-terminated name at `at`, if it is printable ASCII without blanks.
fn name(bytes: &[u8], at: usize) -> Option<&str> {
    let rest = bytes.get(at..)?;
    let len = rest.iter().position(|&b| b == 0)?;
    let name = rest.get(..len)?;
    if !name.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    core::str::from_utf8(name).ok()
}

fn aligned(at: usize) -> Option<usize> {
    Some(at.checked_add(3)? & !3)
}

/// The token at `at`, NOPs skipped, and where the next one starts. `None` if it is malformed.
pub(super) fn next<'a>(blocks: Blocks<'a>, mut at: usize) -> Option<(Token<'a>, usize)> {
    loop {
        let here = at;
        let tag = be32(blocks.structs, at)?;
        at = at.checked_add(4)?;
        match tag {
            NOP => continue,
            BEGIN_NODE => {
                let name = name(blocks.structs, at)?;
                let end = aligned(at.checked_add(name.len())?.checked_add(1)?)?;
                return Some((Token::Begin { at: here, name }, end));
            }
            END_NODE => return Some((Token::End, at)),
            PROP => {
                let len = be32(blocks.structs, at)? as usize;
                let name_at = be32(blocks.structs, at.checked_add(4)?)? as usize;
                let start = at.checked_add(8)?;
                let end = start.checked_add(len)?;
                let value = blocks.structs.get(start..end)?;
                let name = name(blocks.strings, name_at)?;
                return Some((Token::Prop(Prop { name, value }), aligned(end)?));
            }
            END => return Some((Token::Done, at)),
            _ => return None,
        }
    }
}
