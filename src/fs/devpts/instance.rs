//! One mount of devpts: its numbers and names, and the directory that shows them.

use crate::{
    options::Options,
    ptmx::DEVICE,
};
use abi::{DevNum, Errno, Mode, Result, raw::general as g};
use core::{any::Any, fmt::Write};
use kalloc::{KArc, KBox, KVec, karc_dyn, kbox_dyn, kformat};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU32, Ordering::Relaxed},
};
use tty::Tty;
use vfs::{
    Credentials, Emit, FileOps, Inode, InodeOps, NewInode, OpenFile, Statfs, SuperBlock, SuperOps, emit_dots, proc_registry,
    pseudo::{SeqBuf, Show, ShowFn, no_memory},
    sysctl::{self, Number as Setting},
};

static TABLE: LockClass = LockClass::new("devpts.table", 1156);

// Inode numbers: the root, its ptmx, and slave n is n + FIRST_INO.
const ROOT_INO: u64 = 1;
const PTMX_INO: u64 = 2;
const FIRST_INO: u64 = 3;
/// A listing's position of ptmx, behind `.` and `..`; slave n follows at n + 1.
const PTMX_POS: u64 = 2;

/// Pseudo-terminals at most in all (kernel.pty.max), and how many there are (kernel.pty.nr).
static LIMIT: Setting = Setting::new(4096, 0, crate::options::MAX as i64);
static COUNT: AtomicU32 = AtomicU32::new(0);

/// What has a number.
enum Entry {
    /// Nobody.
    Free,
    /// A pseudo-terminal without a name: not yet, or not any more.
    Unnamed,
    Named(KArc<Inode>),
}

/// A mount's part of its super block.
pub(crate) struct Instance {
    options: SpinLock<Options>,
    table: SpinLock<KVec<Entry>>,
    /// Its own ptmx, from the first look at it to the end of the mount.
    ptmx: SpinLock<Option<KArc<Inode>>>,
}

/// A number that is taken; free again when this is dropped.
pub(crate) struct Number {
    sb: KArc<SuperBlock>,
    pub(crate) index: u32,
}

/// The node of a slave.
pub(crate) struct Slave {
    pub(crate) tty: KArc<Tty>,
}

struct Ptmx;
struct Root;

/// The instance of a super block. ENODEV when it is of another file system.
pub(crate) fn of(sb: &SuperBlock) -> Result<&Instance> {
    sb.ops.as_any().downcast_ref().ok_or(Errno::ENODEV)
}

pub(crate) fn new_super(flags: u32, options: Options) -> Result<KArc<SuperBlock>> {
    let instance = Instance {
        options: SpinLock::new(options, &TABLE),
        table: SpinLock::new(KVec::new(), &TABLE),
        ptmx: SpinLock::new(None, &TABLE),
    };
    let sb = SuperBlock::new("devpts", None, flags, kbox_dyn!(instance => dyn SuperOps)?)?;
    let root = new_inode(&sb, ROOT_INO, (Mode(g::S_IFDIR | 0o755), 0, 0), DevNum::default(), karc_dyn!(Root => dyn InodeOps)?)?;
    root.set_nlink(2);
    sb.set_root(root)?;
    Ok(sb)
}

fn new_inode(
    sb: &KArc<SuperBlock>,
    ino: u64,
    (mode, uid, gid): (Mode, u32, u32),
    rdev: DevNum,
    ops: KArc<dyn InodeOps>,
) -> Result<KArc<Inode>> {
    Inode::new(sb, NewInode { ino, mode, uid, gid, rdev, nlink: 1, size: 0, cache: None }, ops)
}

/// Takes the lowest free number of the instance `sb`. ENOSPC.
pub(crate) fn take_number(sb: &KArc<SuperBlock>) -> Result<KArc<Number>> {
    let instance = of(sb)?;
    let max = instance.options.lock().max as usize;
    let within = |n: u32| (u64::from(n) < LIMIT.get_u64()).then_some(n.wrapping_add(1));
    COUNT.fetch_update(Relaxed, Relaxed, within).map_err(|_| Errno::ENOSPC)?;
    let taken = {
        let mut table = instance.table.lock();
        let free = table.iter().position(|e| matches!(e, Entry::Free)).unwrap_or(table.len());
        if free >= max {
            Err(Errno::ENOSPC)
        } else if let Some(entry) = table.get_mut(free) {
            *entry = Entry::Unnamed;
            Ok(free)
        } else {
            table.try_push(Entry::Unnamed).map(|()| free).map_err(Errno::from)
        }
    };
    match taken {
        Ok(index) => match KArc::try_new(Number { sb: sb.clone(), index: index as u32 }) {
            Ok(number) => Ok(number),
            // Memory ran out with the number already moved into nothing: its drop has run.
            Err(e) => Err(e.into()),
        },
        Err(e) => {
            COUNT.fetch_sub(1, Relaxed);
            Err(e)
        }
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Relaxed);
        if let Ok(instance) = of(&self.sb) {
            instance.set(self.index, Entry::Free);
        }
    }
}

impl Instance {
    fn set(&self, index: u32, new: Entry) {
        let old = {
            let mut table = self.table.lock();
            table.get_mut(index as usize).map(|slot| core::mem::replace(slot, new))
        };
        drop(old);
    }

    /// Gives the slave a name.
    pub(crate) fn name(&self, sb: &KArc<SuperBlock>, tty: &KArc<Tty>, index: u32, cred: &Credentials) -> Result {
        let o = *self.options.lock();
        let owner = (Mode(g::S_IFCHR | o.mode), o.uid.unwrap_or(cred.fsuid), o.gid.unwrap_or(cred.fsgid));
        let ops = karc_dyn!(Slave { tty: tty.clone() } => dyn InodeOps)?;
        let inode = new_inode(sb, FIRST_INO + u64::from(index), owner, tty.dev(), ops)?;
        self.set(index, Entry::Named(inode));
        Ok(())
    }

    /// Takes the name away.
    pub(crate) fn unname(&self, index: u32) {
        let inode = self.named(index);
        self.set(index, Entry::Unnamed);
        if let Some(inode) = inode {
            inode.dec_nlink();
        }
    }

    fn named(&self, index: u32) -> Option<KArc<Inode>> {
        match self.table.lock().get(index as usize) {
            Some(Entry::Named(inode)) => Some(inode.clone()),
            _ => None,
        }
    }

    fn ptmx(&self, sb: &KArc<SuperBlock>) -> Result<KArc<Inode>> {
        let mode = Mode(g::S_IFCHR | self.options.lock().ptmx_mode);
        if let Some(known) = self.ptmx.lock().clone() {
            return Ok(known);
        }
        let fresh = new_inode(sb, PTMX_INO, (mode, 0, 0), DEVICE, karc_dyn!(Ptmx => dyn InodeOps)?)?;
        let mut slot = self.ptmx.lock();
        Ok(slot.get_or_insert(fresh).clone())
    }
}

impl SuperOps for Instance {
    fn statfs(&self, _sb: &SuperBlock) -> Result<Statfs> {
        let kind = u64::from(g::DEVPTS_SUPER_MAGIC);
        Ok(Statfs { kind, block_size: abi::PAGE_SIZE as u64, name_max: 255, ..Statfs::default() })
    }
    fn remount(&self, _sb: &SuperBlock, _flags: u32, data: &[u8]) -> Result {
        let new = Options::parse(data)?;
        *self.options.lock() = new;
        let ptmx = self.ptmx.lock().clone();
        if let Some(ptmx) = ptmx {
            ptmx.set_permissions(new.ptmx_mode);
        }
        Ok(())
    }
    fn show_options(&self, out: &mut dyn Write) -> core::fmt::Result {
        let options = *self.options.lock();
        options.show(out)
    }
    fn shutdown(&self, _sb: &SuperBlock) {
        // It holds the super block.
        let ptmx = self.ptmx.lock().take();
        drop(ptmx);
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl InodeOps for Slave {
    fn block_size(&self) -> u32 {
        1024
    }
    fn cacheable(&self) -> bool {
        // It goes when its master closes.
        false
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl InodeOps for Ptmx {
    fn block_size(&self) -> u32 {
        1024
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A slave's name as its number: no leading zeros.
fn parse(name: &[u8]) -> Option<u32> {
    if name.len() > 1 && name.first() == Some(&b'0') || !name.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(name).ok()?.parse().ok()
}

impl InodeOps for Root {
    fn lookup(&self, dir: &KArc<Inode>, name: &[u8]) -> Result<Option<KArc<Inode>>> {
        let instance = of(&dir.sb)?;
        if name == b"ptmx" {
            return instance.ptmx(&dir.sb).map(Some);
        }
        Ok(parse(name).and_then(|index| instance.named(index)))
    }
    fn open(&self, _: &KArc<Inode>, _flags: u32, _: &Credentials) -> Result<KBox<dyn FileOps>> {
        Ok(kbox_dyn!(Listing => dyn FileOps)?)
    }
    fn block_size(&self) -> u32 {
        1024
    }
    fn caches_absence(&self) -> bool {
        false
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Listing;

impl FileOps for Listing {
    fn read(&self, _f: &OpenFile, _dst: &mut vfs::IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }
    fn readdir(&self, f: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> Result {
        if !emit_dots(f, pos, emit) {
            return Ok(());
        }
        let instance = of(&f.inode.sb)?;
        if *pos == PTMX_POS {
            if !emit(b"ptmx", PTMX_INO, g::DT_CHR as u8, PTMX_POS + 1) {
                return Ok(());
            }
            *pos = PTMX_POS + 1;
        }
        loop {
            let from = pos.saturating_sub(PTMX_POS + 1) as usize;
            let next = {
                let table = instance.table.lock();
                let named = |i: &usize| matches!(table.get(*i), Some(Entry::Named(_)));
                (from..table.len()).find(named)
            };
            let Some(index) = next else { return Ok(()) };
            let after = index as u64 + PTMX_POS + 2;
            let name = kformat!("{index}")?;
            if !emit(name.as_bytes(), FIRST_INO + index as u64, g::DT_CHR as u8, after) {
                return Ok(());
            }
            *pos = after;
        }
    }
    fn fsync(&self, _f: &OpenFile, _data_only: bool) -> Result {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// /proc/sys/kernel/pty.
pub(crate) fn register_limits() -> Result {
    let count = |out: &mut SeqBuf| writeln!(out, "{}", COUNT.load(Relaxed)).map_err(no_memory);
    sysctl::add_number("sys/kernel/pty/max", &LIMIT)?;
    proc_registry::add("sys/kernel/pty/nr", 0o444, karc_dyn!(ShowFn(count) => dyn Show)?)
}
