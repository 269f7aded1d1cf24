#![cfg_attr(not(test), no_std)]
//! procfs: what the kernel tells about itself and its processes as files (`proc(5)`).
//!
//! The static part is `vfs::proc_registry`, to which rooms add files; [`system`] adds those of the
//! rooms that lie below the VFS. Directories of processes come from the process layer through
//! [`Processes`].

mod settings;
mod system;
mod zones;

use abi::{Errno, Result, raw::general as g};
use core::any::Any;
use kalloc::{KArc, KBytes, karc_dyn, kbox_dyn};
use sync::Once;
use vfs::{
    Emit, FileSystem, Inode, MountRequest, OpenFile, Statfs, SuperBlock, SuperOps, proc_registry,
    pseudo::{self, Attrs, DirContents, LinkTarget},
};

/// The process layer's part: a directory for each process, named by its pid.
pub trait Processes: Send + Sync {
    /// The directory of the process or thread with this id.
    fn lookup(&self, sb: &KArc<SuperBlock>, id: u32) -> Result<Option<KArc<Inode>>>;
    /// The first process with an id of at least `from`.
    fn next(&self, from: u32) -> Option<u32>;
    /// How many threads there are, and the id that was given out last (`/proc/loadavg`).
    fn counts(&self) -> (usize, u32);
    /// Ids of the current process and thread; `None` in a kernel thread.
    fn current(&self) -> Option<(u32, u32)>;
}

static PROCESSES: Once<KArc<dyn Processes>> = Once::new();
static INSTANCE: Once<KArc<SuperBlock>> = Once::new();

/// PROC_SUPER_MAGIC
const MAGIC: u64 = g::PROC_SUPER_MAGIC as u64;

/// Says who knows the processes; once.
pub fn set_processes(p: KArc<dyn Processes>) {
    PROCESSES.call_once(|| p);
}

/// A number without leading zeros, as the name of a process directory.
pub fn parse_id(name: &[u8]) -> Option<u32> {
    if name.first() == Some(&b'0') || name.is_empty() || name.iter().any(|b| !b.is_ascii_digit()) {
        return None;
    }
    core::str::from_utf8(name).ok()?.parse().ok()
}

struct Root;

/// Positions from here on are processes: the position of process n is this plus n.
const FIRST_PROCESS: u64 = 0x1000;
/// Positions of the two links, behind the registry's files.
const SELF: u64 = 0x800;

impl DirContents for Root {
    fn lookup(&self, dir: &KArc<Inode>, name: &[u8]) -> Result<Option<KArc<Inode>>> {
        if let Some(found) = proc_registry::root().lookup_node(&dir.sb, name)? {
            return Ok(Some(found));
        }
        let link = |thread: bool| -> Result<Option<KArc<Inode>>> {
            let a = Attrs { ino: SELF + u64::from(thread), mode: 0o777, uid: 0, gid: 0, volatile: false };
            Ok(Some(pseudo::new_link(&dir.sb, a, karc_dyn!(SelfLink { thread } => dyn LinkTarget)?)?))
        };
        match name {
            b"self" => link(false),
            b"thread-self" => link(true),
            // A name that is not there is an error, not a free place: nothing can be made here.
            _ => match (parse_id(name), PROCESSES.get()) {
                (Some(id), Some(p)) => p.lookup(&dir.sb, id)?.map(Some).ok_or(Errno::ENOENT),
                _ => Err(Errno::ENOENT),
            },
        }
    }

    fn readdir(&self, _f: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> Result {
        if *pos < SELF {
            if !proc_registry::root().readdir_nodes(2, pos, emit)? {
                return Ok(());
            }
            *pos = SELF;
        }
        while *pos < FIRST_PROCESS {
            let (name, next) = match *pos {
                SELF => (&b"self"[..], SELF + 1),
                _ => (&b"thread-self"[..], FIRST_PROCESS),
            };
            if !emit(name, *pos, g::DT_LNK as u8, next) {
                return Ok(());
            }
            *pos = next;
        }
        let Some(p) = PROCESSES.get() else { return Ok(()) };
        while let Some(id) = p.next((*pos - FIRST_PROCESS) as u32) {
            let mut text = [0u8; 10];
            let next = FIRST_PROCESS + u64::from(id) + 1;
            if !emit(decimal(id, &mut text), ino_of(id), g::DT_DIR as u8, next) {
                return Ok(());
            }
            *pos = next;
        }
        Ok(())
    }

    fn caches_absence(&self) -> bool {
        false
    }
}

/// Inode number of a process's directory.
pub fn ino_of(id: u32) -> u64 {
    1 << 32 | u64::from(id)
}

/// Writes a number in decimal into the end of `buf`.
pub fn decimal(mut n: u32, buf: &mut [u8; 10]) -> &[u8] {
    let mut at = buf.len();
    for slot in buf.iter_mut().rev() {
        *slot = b'0' + (n % 10) as u8;
        n /= 10;
        at -= 1;
        if n == 0 {
            break;
        }
    }
    buf.get(at..).unwrap_or(&[])
}

struct SelfLink {
    thread: bool,
}

impl LinkTarget for SelfLink {
    fn text(&self, _: &Inode) -> Result<KBytes> {
        let (pid, tid) = PROCESSES.get().and_then(|p| p.current()).ok_or(Errno::ENOENT)?;
        let text = if self.thread { kalloc::kformat!("{pid}/task/{tid}")? } else { kalloc::kformat!("{pid}")? };
        Ok(text.into_bytes())
    }
}

struct ProcSuper;

impl SuperOps for ProcSuper {
    fn statfs(&self, _: &SuperBlock) -> Result<Statfs> {
        Ok(Statfs { kind: MAGIC, block_size: abi::PAGE_SIZE as u64, name_max: 255, ..Statfs::default() })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct ProcFs;

impl FileSystem for ProcFs {
    fn name(&self) -> &'static str {
        "proc"
    }
    fn mount(&self, _: &MountRequest<'_>) -> Result<KArc<SuperBlock>> {
        instance()
    }
}

/// The one instance: there is one pid namespace.
fn instance() -> Result<KArc<SuperBlock>> {
    INSTANCE
        .try_call_once(|| {
            let sb = SuperBlock::new("proc", None, 0, kbox_dyn!(ProcSuper => dyn SuperOps)?)?;
            let a = Attrs { ino: 1, mode: 0o555, uid: 0, gid: 0, volatile: false };
            sb.set_root(pseudo::new_dir(&sb, a, karc_dyn!(Root => dyn DirContents)?)?)?;
            Ok(sb)
        })
        .cloned()
}

/// Registers the type and the files of the rooms below the VFS.
pub fn init() -> Result {
    vfs::register_filesystem(karc_dyn!(ProcFs => dyn FileSystem)?)?;
    system::register()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_numbers_name_processes() {
        assert_eq!(parse_id(b"12"), Some(12));
        for bad in [&b""[..], b"0", b"012", b"1x", b"-1", b"99999999999"] {
            assert_eq!(parse_id(bad), None);
        }
    }

    #[test]
    fn decimal_writes_what_format_would() {
        for n in [0, 7, 10, 32768, u32::MAX] {
            let mut buf = [0; 10];
            assert_eq!(decimal(n, &mut buf), n.to_string().as_bytes());
        }
    }
}
