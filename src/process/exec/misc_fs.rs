//! The file system of type binfmt_misc: `register`, `status`, and a file for each entry.
//!
//! There is one instance. Directory entries are looked up anew each time, since entries go when
//! -1 is written to them. (`Documentation/admin-guide/binfmt-misc.rst`)

use super::misc::{self, Entry, Flags, Match};
use abi::{Errno, Result, raw::general as g};
use core::{any::Any, fmt::Write};
use kalloc::{KArc, karc_dyn, kbox_dyn};
use sync::{Once, atomic::Ordering};
use vfs::{
    Emit, FileSystem, Inode, MountRequest, OpenFile, Statfs, SuperBlock, SuperOps, proc_registry,
    pseudo::{self, Attrs, DirContents, Reader, SeqBuf, Show, Store, no_memory},
};

/// BINFMTFS_MAGIC
const MAGIC: u64 = g::BINFMTFS_MAGIC as u64;
/// Inode numbers: the two fixed files, and entries by where they are in memory.
const ROOT: u64 = 1;
const STATUS: u64 = 2;
const REGISTER: u64 = 3;
const ENTRY: u64 = 4;

/// What a word written to `status` or to an entry asks for.
enum Command {
    Nothing,
    Disable,
    Enable,
    Remove,
}

fn command(data: &[u8]) -> Result<Command> {
    Ok(match data.strip_suffix(b"\n").unwrap_or(data) {
        b"" if data.is_empty() => Command::Nothing,
        b"0" => Command::Disable,
        b"1" => Command::Enable,
        b"-1" => Command::Remove,
        _ => return Err(Errno::EINVAL),
    })
}

struct Status;

impl Show for Status {
    fn show(&self, out: &mut SeqBuf, _: &Reader<'_>) -> Result {
        out.push(if misc::is_enabled() { b"enabled\n" } else { b"disabled\n" })
    }
}

impl Store for Status {
    fn store(&self, data: &[u8], _: u64, _: &Reader<'_>) -> Result<usize> {
        match command(data)? {
            Command::Nothing => {}
            Command::Disable => misc::set_enabled(false),
            Command::Enable => misc::set_enabled(true),
            Command::Remove => misc::clear(),
        }
        Ok(data.len())
    }
}

struct Register;

impl Store for Register {
    fn store(&self, data: &[u8], _: u64, _: &Reader<'_>) -> Result<usize> {
        let task = crate::task::current_arc().ok_or(Errno::ESRCH)?;
        misc::register(&task, data)?;
        Ok(data.len())
    }
}

struct EntryFile(KArc<Entry>);

impl Show for EntryFile {
    fn show(&self, out: &mut SeqBuf, _: &Reader<'_>) -> Result {
        let rule = &self.0.rule;
        out.push(if self.0.enabled.load(Ordering::Relaxed) { b"enabled\n" } else { b"disabled\n" })?;
        out.push(b"interpreter ")?;
        out.push(&rule.interpreter)?;
        out.push(b"\nflags: ")?;
        for (flag, letter) in
            [(Flags::PRESERVE_ARGV0, b"P"), (Flags::OPEN_BINARY, b"O"), (Flags::CREDENTIALS, b"C"), (Flags::FIX_BINARY, b"F")]
        {
            if rule.flags.contains(flag) {
                out.push(letter)?;
            }
        }
        match &rule.by {
            Match::Extension(text) => {
                out.push(b"\nextension .")?;
                out.push(text)?;
            }
            Match::Magic { offset, magic, mask } => {
                write!(out, "\noffset {offset}\nmagic ").map_err(no_memory)?;
                hex(out, magic)?;
                if let Some(mask) = mask {
                    out.push(b"\nmask ")?;
                    hex(out, mask)?;
                }
            }
        }
        out.push(b"\n")
    }
}

fn hex(out: &mut SeqBuf, bytes: &[u8]) -> Result {
    for b in bytes {
        write!(out, "{b:02x}").map_err(no_memory)?;
    }
    Ok(())
}

impl Store for EntryFile {
    fn store(&self, data: &[u8], _: u64, _: &Reader<'_>) -> Result<usize> {
        match command(data)? {
            Command::Nothing => {}
            Command::Disable => self.0.enabled.store(false, Ordering::Relaxed),
            Command::Enable => self.0.enabled.store(true, Ordering::Relaxed),
            Command::Remove => misc::remove(&self.0),
        }
        Ok(data.len())
    }
}

struct Directory;

impl DirContents for Directory {
    fn lookup(&self, dir: &KArc<Inode>, name: &[u8]) -> Result<Option<KArc<Inode>>> {
        let attrs = |ino, mode| Attrs { ino, mode, uid: 0, gid: 0, volatile: true };
        Ok(Some(match name {
            b"status" => {
                let (show, store) = (karc_dyn!(Status => dyn Show)?, karc_dyn!(Status => dyn Store)?);
                pseudo::new_file(&dir.sb, attrs(STATUS, 0o644), Some(show), Some(store))?
            }
            b"register" => pseudo::new_file(&dir.sb, attrs(REGISTER, 0o200), None, Some(karc_dyn!(Register => dyn Store)?))?,
            name => {
                let entry = misc::find(name).ok_or(Errno::ENOENT)?;
                let show = karc_dyn!(EntryFile(entry.clone()) => dyn Show)?;
                let store = karc_dyn!(EntryFile(entry) => dyn Store)?;
                pseudo::new_file(&dir.sb, attrs(ENTRY, 0o644), Some(show), Some(store))?
            }
        }))
    }

    fn readdir(&self, _: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> Result {
        loop {
            let entry;
            let (name, ino): (&[u8], u64) = match *pos {
                2 => (b"status", STATUS),
                3 => (b"register", REGISTER),
                n => {
                    let Some(found) = usize::try_from(n.saturating_sub(4)).ok().and_then(misc::nth) else { return Ok(()) };
                    entry = found;
                    (&entry.rule.name, ENTRY)
                }
            };
            if !emit(name, ino, g::DT_REG as u8, *pos + 1) {
                return Ok(());
            }
            *pos += 1;
        }
    }
}

struct Super;

impl SuperOps for Super {
    fn statfs(&self, _: &SuperBlock) -> Result<Statfs> {
        Ok(Statfs { kind: MAGIC, block_size: abi::PAGE_SIZE as u64, name_max: 255, ..Statfs::default() })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct BinfmtMisc;

static INSTANCE: Once<KArc<SuperBlock>> = Once::new();

impl FileSystem for BinfmtMisc {
    fn name(&self) -> &'static str {
        "binfmt_misc"
    }
    fn mount(&self, _: &MountRequest<'_>) -> Result<KArc<SuperBlock>> {
        INSTANCE
            .try_call_once(|| {
                let sb = SuperBlock::new("binfmt_misc", None, 0, kbox_dyn!(Super => dyn SuperOps)?)?;
                let a = Attrs { ino: ROOT, mode: 0o755, uid: 0, gid: 0, volatile: false };
                sb.set_root(pseudo::new_dir(&sb, a, karc_dyn!(Directory => dyn DirContents)?)?)?;
                Ok(sb)
            })
            .cloned()
    }
}

/// Registers the type, and makes the place where it is mounted.
pub(super) fn init() -> Result {
    vfs::register_filesystem(karc_dyn!(BinfmtMisc => dyn FileSystem)?)?;
    proc_registry::add_dir("sys/fs/binfmt_misc")
}
