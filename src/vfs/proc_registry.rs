//! The files that rooms contribute to /proc; procfs shows them beside its process directories.

use crate::pseudo::{LinkTarget, OpenWith, Show, ShowFn, SeqBuf, Store, Tree};
use abi::Result;
use kalloc::{KArc, karc_dyn};

/// PROC_ROOT_INO of Linux.
const ROOT_INO: u64 = 1;

static ROOT: Tree = Tree::with_ino(ROOT_INO);

/// The root directory's static part.
pub fn root() -> &'static Tree {
    &ROOT
}

/// Adds /proc/`path` ("meminfo", "sys/kernel/ostype"). EEXIST.
pub fn add(path: &'static str, mode: u32, show: KArc<dyn Show>) -> Result {
    ROOT.add(path, mode, show)
}

/// Adds /proc/`path` with a function that writes its text.
pub fn add_fn(path: &'static str, mode: u32, show: fn(&mut SeqBuf) -> Result) -> Result {
    ROOT.add(path, mode, karc_dyn!(ShowFn(show) => dyn Show)?)
}

/// Adds /proc/`path` that can also be written.
pub fn add_writable(path: &'static str, mode: u32, show: Option<KArc<dyn Show>>, store: KArc<dyn Store>) -> Result {
    ROOT.add_writable(path, mode, show, store)
}

/// Adds a link.
pub fn add_link(path: &'static str, target: KArc<dyn LinkTarget>) -> Result {
    ROOT.add_link(path, target)
}

/// Adds a file with operations of its own.
pub fn add_custom(path: &'static str, mode: u32, open: KArc<dyn OpenWith>) -> Result {
    ROOT.add_custom(path, mode, open)
}

/// Adds a directory.
pub fn add_dir(path: &'static str) -> Result {
    ROOT.add_dir(path)
}
