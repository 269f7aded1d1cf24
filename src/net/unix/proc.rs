//! /proc/net/unix (`proc(5)`).

use super::{CONNECTED, LISTENING, Unix};
use crate::NetNamespace;
use abi::Result;
use core::fmt::Write;
use kalloc::KArc;
use sync::{Once, atomic::Ordering::Relaxed};
use vfs::{proc_registry, pseudo::{SeqBuf, no_memory}};

/// The namespace whose sockets /proc/net shows: the first, while there is one.
static SHOWN: Once<KArc<NetNamespace>> = Once::new();

/// SO_ACCEPTCON in the column of flags, and the states of sockets (linux/net.h).
const ACCEPTS: u32 = 1 << 16;
const UNCONNECTED: u32 = 1;
const IS_CONNECTED: u32 = 3;

/// Says whose sockets are shown; the first call counts.
pub(crate) fn show(ns: &KArc<NetNamespace>) {
    SHOWN.call_once(|| ns.clone());
}

fn line(out: &mut SeqBuf, s: &KArc<Unix>) -> Result {
    let name = s.state.lock().name.clone();
    let stage = s.stage();
    let flags = if stage == LISTENING { ACCEPTS } else { 0 };
    let state = if stage == CONNECTED { IS_CONNECTED } else { UNCONNECTED };
    write!(
        out,
        "{:016x}: {:08X} {:08X} {flags:08X} {:04X} {state:02X} {:5}",
        s.id,
        KArc::strong_count(s),
        0,
        s.common.kind,
        s.ino.load(Relaxed),
    )
    .map_err(no_memory)?;
    if let Some(name) = name {
        out.push(b" ")?;
        let bytes = name.as_bytes().get(2..).unwrap_or(&[]);
        // A path ends at its NUL; those of an abstract name are shown as @.
        let is_path = bytes.first().is_some_and(|&b| b != 0);
        let shown = if is_path { bytes.split(|&b| b == 0).next().unwrap_or(bytes) } else { bytes };
        for &b in shown {
            out.push(&[if b == 0 { b'@' } else { b }])?;
        }
    }
    out.push(b"\n")
}

pub(crate) fn init() -> Result {
    proc_registry::add_fn("net/unix", 0o444, |out| {
        out.push(b"Num       RefCount Protocol Flags    Type St Inode Path\n")?;
        let Some(ns) = SHOWN.get() else { return Ok(()) };
        let mut after = 0;
        while let Some((id, s)) = ns.unix.next_socket(after) {
            after = id;
            line(out, &s)?;
        }
        Ok(())
    })
}
