//! Mounts as a process sees them: `mounts`, `mountinfo`, `mountstats`, and /proc/mounts.

use super::View;
use abi::{Result, raw::general as g};
use core::fmt::Write;
use kalloc::{KBytes, KVec};
use vfs::{
    d_path, proc_registry,
    pseudo::{LinkTarget, SeqBuf, no_memory},
};

/// /proc/mounts: the reader's own.
pub(super) fn register() -> Result {
    proc_registry::add_link("mounts", kalloc::karc_dyn!(MountsLink => dyn LinkTarget)?)
}

struct MountsLink;

impl LinkTarget for MountsLink {
    fn text(&self, _: &vfs::Inode) -> Result<KBytes> {
        Ok(KVec::try_from_slice(b"self/mounts")?)
    }
}

/// Options that belong to a mount.
fn mount_options(flags: u32, out: &mut SeqBuf) -> Result {
    out.push(if flags & g::MS_RDONLY != 0 { b"ro" } else { b"rw" })?;
    for (flag, name) in [
        (g::MS_NOSUID, ",nosuid"),
        (g::MS_NODEV, ",nodev"),
        (g::MS_NOEXEC, ",noexec"),
        (g::MS_NOATIME, ",noatime"),
        (g::MS_NODIRATIME, ",nodiratime"),
        (g::MS_RELATIME, ",relatime"),
    ] {
        if flags & flag != 0 {
            out.push(name.as_bytes())?;
        }
    }
    Ok(())
}

/// Where a mount is, as the task's root shows it; `None` when it cannot be seen from there.
fn mount_point(m: &vfs::Mount, root: &vfs::Path) -> Result<Option<KBytes>> {
    match m.point() {
        None => Ok(Some(KVec::try_from_slice(b"/")?)),
        Some(p) => {
            let text = d_path(&p, root)?;
            Ok(text.reachable.then_some(text.text))
        }
    }
}

pub(super) fn mounts(task: &View, out: &mut SeqBuf) -> Result {
    let (ns, fs) = (task.ns()?, task.fs()?);
    let root = fs.root();
    for m in ns.mount.mounts()?.iter() {
        let Some(at) = mount_point(m, &root)? else { continue };
        out.push_escaped(m.source.as_slice(), b"#")?;
        out.push(b" ")?;
        out.push_escaped(&at, b"")?;
        write!(out, " {} ", m.sb.fstype).map_err(no_memory)?;
        mount_options(m.flags() | m.sb.flags(), out)?;
        m.sb.ops.show_options(out).map_err(no_memory)?;
        out.push(b" 0 0\n")?;
    }
    Ok(())
}

pub(super) fn mountinfo(task: &View, out: &mut SeqBuf) -> Result {
    let (ns, fs) = (task.ns()?, task.fs()?);
    let root = fs.root();
    for m in ns.mount.mounts()?.iter() {
        let Some(at) = mount_point(m, &root)? else { continue };
        write!(out, "{} {} {}:{} / ", m.id, m.parent_id(), m.sb.dev.major, m.sb.dev.minor).map_err(no_memory)?;
        out.push_escaped(&at, b"")?;
        out.push(b" ")?;
        mount_options(m.flags(), out)?;
        write!(out, " - {} ", m.sb.fstype).map_err(no_memory)?;
        out.push_escaped(m.source.as_slice(), b"#")?;
        out.push(if m.sb.is_read_only() { b" ro" } else { b" rw" })?;
        m.sb.ops.show_options(out).map_err(no_memory)?;
        out.push(b"\n")?;
    }
    Ok(())
}

pub(super) fn mountstats(task: &View, out: &mut SeqBuf) -> Result {
    let (ns, fs) = (task.ns()?, task.fs()?);
    let root = fs.root();
    for m in ns.mount.mounts()?.iter() {
        let Some(at) = mount_point(m, &root)? else { continue };
        out.push(b"device ")?;
        out.push_escaped(m.source.as_slice(), b"#")?;
        out.push(b" mounted on ")?;
        out.push_escaped(&at, b"")?;
        writeln!(out, " with fstype {}", m.sb.fstype).map_err(no_memory)?;
    }
    Ok(())
}
