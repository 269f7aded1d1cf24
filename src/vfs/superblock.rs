//! A file system in use (the super block), and the register of file system types.

use crate::{Dentry, Inode, SuperOps, class, dcache, notify};
use abi::{DevNum, Errno, Result};
use kalloc::{KArc, KBox, KBytes, KVec};
use sync::{
    SpinLock,
    atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
};

/// `statfs(2)`'s answer, before the mount's flags are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statfs {
    /// Magic number of the type.
    pub kind: u64,
    /// Bytes in a block.
    pub block_size: u64,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks for users.
    pub available: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub free_files: u64,
    /// Longest name.
    pub name_max: u64,
    /// ST_* flags; the VFS fills them in.
    pub flags: u64,
    /// Identity of the file system.
    pub fsid: u64,
}

/// A file system in use.
pub struct SuperBlock {
    /// Device number that `st_dev` shows.
    pub dev: DevNum,
    /// Name of the type.
    pub fstype: &'static str,
    /// The file system's part.
    pub ops: KBox<dyn SuperOps>,
    /// Unique serial number: key of the dentry cache.
    pub serial: u64,
    /// Largest file size.
    pub max_bytes: u64,
    flags: AtomicU32,
    next_ino: AtomicU64,
    root: SpinLock<Option<KArc<Dentry>>>,
    pub(crate) marked: notify::Marked,
    mounts: AtomicI64,
}

static SERIAL: SpinLock<u64> = SpinLock::new(1, &class::REGISTRY);
static NEXT_ANON_MINOR: SpinLock<u32> = SpinLock::new(1, &class::REGISTRY);

impl SuperBlock {
    /// A super block without its root; `set_root` follows. `dev` None gives an anonymous device
    /// number (major 0), as file systems without a device have.
    pub fn new(
        fstype: &'static str,
        dev: Option<DevNum>,
        flags: u32,
        ops: KBox<dyn SuperOps>,
    ) -> Result<KArc<Self>> {
        let dev = dev.unwrap_or_else(|| {
            let mut minor = NEXT_ANON_MINOR.lock();
            *minor = minor.wrapping_add(1);
            DevNum::new(0, minor.wrapping_sub(1) & 0xf_ffff)
        });
        let serial = {
            let mut s = SERIAL.lock();
            *s += 1;
            *s
        };
        Ok(KArc::try_new(Self {
            dev,
            fstype,
            ops,
            serial,
            max_bytes: i64::MAX as u64,
            flags: AtomicU32::new(flags),
            next_ino: AtomicU64::new(1),
            root: SpinLock::new(None, &class::DENTRY),
            marked: notify::Marked::new(),
            mounts: AtomicI64::new(0),
        })?)
    }

    /// Sets the root directory.
    pub fn set_root(&self, inode: KArc<Inode>) -> Result {
        let dentry = Dentry::new_root(self.serial, inode)?;
        *self.root.lock() = Some(dentry);
        Ok(())
    }

    /// The root directory. None after shutdown.
    pub fn root(&self) -> Option<KArc<Dentry>> {
        self.root.lock().clone()
    }

    /// MS_* flags of the super block.
    pub fn flags(&self) -> u32 {
        self.flags.load(Relaxed)
    }
    /// Replaces the flags in `mask`.
    pub fn set_flags(&self, mask: u32, flags: u32) {
        let _ = self.flags.fetch_update(Relaxed, Relaxed, |f| Some(f & !mask | flags & mask));
    }
    /// Whether nothing on it may change.
    #[inline]
    pub fn is_read_only(&self) -> bool {
        self.flags() & abi::raw::general::MS_RDONLY != 0
    }

    /// A new inode number.
    pub fn alloc_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Relaxed)
    }

    pub(crate) fn mounted(&self) {
        self.mounts.fetch_add(1, SeqCst);
    }

    /// A mount that nobody uses was taken off: if it is the last one, who watches files is told now and
    /// not when the mount's memory goes.
    pub(crate) fn leaving(&self) {
        if self.mounts.load(SeqCst) == 1 {
            notify::unmounted(self);
        }
    }

    /// A mount less; the last one ends the file system.
    pub(crate) fn unmounted(&self) {
        if self.mounts.fetch_sub(1, SeqCst) == 1 {
            notify::unmounted(self);
            dcache::forget_super(self.serial);
            self.ops.shutdown(self);
            let root = self.root.lock().take();
            drop(root);
        }
    }
}

/// What `mount` hands to a file system type.
pub struct MountRequest<'a> {
    /// The source argument.
    pub source: &'a [u8],
    /// MS_* flags that concern the super block.
    pub flags: u32,
    /// Options: text.
    pub data: &'a [u8],
}

/// A type of file system.
pub trait FileSystem: Send + Sync {
    /// Name, as in `mount -t`.
    fn name(&self) -> &'static str;
    /// Whether it needs no device ("nodev" in /proc/filesystems).
    fn nodev(&self) -> bool {
        true
    }
    /// The super block for this mount: a new one, or the one that exists (proc, devtmpfs).
    fn mount(&self, req: &MountRequest<'_>) -> Result<KArc<SuperBlock>>;
}

static TYPES: SpinLock<KVec<KArc<dyn FileSystem>>> = SpinLock::new(KVec::new(), &class::REGISTRY);

/// Makes a type known. EBUSY when the name is taken.
pub fn register_filesystem(fs: KArc<dyn FileSystem>) -> Result {
    let mut types = TYPES.lock();
    if types.iter().any(|t| t.name() == fs.name()) {
        return Err(Errno::EBUSY);
    }
    Ok(types.try_push(fs)?)
}

/// The type called `name`. ENODEV when there is none.
pub fn find_filesystem(name: &[u8]) -> Result<KArc<dyn FileSystem>> {
    TYPES.lock().iter().find(|t| t.name().as_bytes() == name).cloned().ok_or(Errno::ENODEV)
}

/// Calls `f` with each type's name and whether it is "nodev" (/proc/filesystems).
pub fn for_each_filesystem(mut f: impl FnMut(&'static str, bool)) {
    let mut i = 0;
    while let Some(t) = { TYPES.lock().get(i).cloned() } {
        f(t.name(), t.nodev());
        i += 1;
    }
}

/// Text of mount options, split at commas; empty parts are left out.
pub fn options(data: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    data.split(|&b| b == b',').filter(|p| !p.is_empty()).map(|p| match p.iter().position(|&b| b == b'=') {
        Some(at) => (p.get(..at).unwrap_or(p), p.get(at + 1..)),
        None => (p, None),
    })
}

/// Bytes as a vector.
pub(crate) fn bytes(s: &[u8]) -> Result<KBytes> {
    Ok(KBytes::try_from_slice(s)?)
}
