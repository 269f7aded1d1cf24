//! The flattened device tree: what the machine is, as its firmware describes it.
//!
//! The bytes come from outside and are not trusted: [`validate`] checks all of them once, with
//! nothing but safe code, before anything reads them; every later access is still bounds-checked
//! and answers `None` for what is not there. Nothing here allocates, so that the memory banks can
//! be read before there is a heap.
//!
//! Nodes are walked here and not by the `fdt` crate: its iterators lose every node that follows
//! an FDT_NOP between two nodes (QEMU leaves such words where it replaced the memory nodes of a
//! tree given by `-dtb`), and they panic on what they do not expect. Walking is less code than
//! working around that. The header and the memory reservation block are the crate's.
//!
//! Sources: Devicetree Specification 0.4 (chapters 2, 3 and 5), Linux's bindings for `cpus`,
//! `psci`, `reserved-memory` and `chosen`.

#[cfg(test)]
pub(crate) mod build;
mod chosen;
mod cpus;
#[cfg(test)]
mod fuzz;
mod interrupts;
mod memory;
mod node;
mod reg;
mod token;
mod tree;
mod validate;

pub use chosen::{Chosen, Stdout};
pub use cpus::{Cpu, Cpus, Enable, PsciMethod};
pub use interrupts::{ControllerId, IrqSpec, MAX_IRQ_CELLS};
pub use memory::{MemRange, MemoryBanks, ReservedMemory};
pub use node::{Children, Node, Nodes, Prop, Props, Strings};
pub use tree::{Tree, set_tree, tree};
pub use validate::{DtError, MAX_SIZE, ValidTree, validate};

/// How deep nodes may nest: the trees of real boards stay below 8.
pub const MAX_DEPTH: usize = 16;
/// The most 32-bit cells that an address or a size may have (PCI addresses have 3).
pub const MAX_CELLS: u32 = 4;
