//! What a file is apart from its names: the inode and the operations of its file system.
//!
//! An [`Inode`] carries the attributes that every file system has; its `ops` do what differs.
//! The VFS checks permissions, name rules, read-only mounts and types before it calls an
//! operation, and holds the locks named there; the operation updates the attributes of the inodes
//! it is given (times, link counts) through the helpers here.
//!
//! Locks: `lock` (may sleep) orders changes: of a directory's entries (write: change, read:
//! lookup), of a file's size and data. The attributes are single words that are read without a
//! lock and changed under `lock` or by setattr; the times have a spin lock of their own.

use crate::{Credentials, FileOps, Path, SetAttr, Statfs, SuperBlock, Time, class};
use abi::{DevNum, Errno, Gid, Mode, Result, Uid};
use core::any::Any;
use kalloc::{KArc, KBox, KBytes, KWeak};
use mm::PageCache;
use sched::RwMutex;
use sync::{
    SpinLock,
    atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
};

/// The four times of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// Last read.
    pub atime: Time,
    /// Last change of contents.
    pub mtime: Time,
    /// Last change of contents or attributes.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
}

/// The inode's directory was removed: nothing can be made in it any more.
pub const I_DEAD: u32 = 1;
/// The last access time is not kept (S_NOATIME).
pub const I_NOATIME: u32 = 2;
/// The inode may not be changed, linked or removed (FS_IMMUTABLE_FL).
pub const I_IMMUTABLE: u32 = 4;
/// Writes only append (FS_APPEND_FL).
pub const I_APPEND: u32 = 8;
/// Inode of a pipe, socket or other nameless object: no mount or name rules apply.
pub const I_PRIVATE: u32 = 16;
/// A file without a name that may get one (O_TMPFILE without O_EXCL).
pub(crate) const I_LINKABLE: u32 = 64;
/// The directory's permissions are not its mode bits: the fast walk asks nobody and stops there.
pub(crate) const I_HOOKED: u32 = 32;

/// `opens` of an inode whose contents were given up: far below zero, so that no number of late
/// openers brings it back.
const EVICTED: i32 = i32::MIN / 2;

/// A file.
pub struct Inode {
    /// Number, unique in the super block.
    pub ino: u64,
    /// The file system that it is of.
    pub sb: KArc<SuperBlock>,
    /// Which device a device file stands for.
    pub rdev: DevNum,
    /// Orders changes of entries, size and data; may sleep.
    pub lock: RwMutex<()>,
    /// The pages of a file that has its data in the page cache.
    pub cache: Option<KArc<PageCache>>,
    /// The file system's part.
    pub ops: KArc<dyn InodeOps>,
    mode: AtomicU32,
    uid: AtomicU32,
    gid: AtomicU32,
    nlink: AtomicU32,
    flags: AtomicU32,
    /// Size of what has no page cache: symlinks, directories.
    plain_size: AtomicU64,
    times: SpinLock<Times>,
    /// Writers (> 0) or those who deny writing (< 0): ETXTBSY.
    writers: AtomicI32,
    /// Open files on this inode, or [`EVICTED`].
    opens: AtomicI32,
    /// State that other rooms hang on a special file (a FIFO's pipe, a socket).
    special: SpinLock<Option<KArc<dyn Any + Send + Sync>>>,
    /// Who wants to know what happens to it.
    pub(crate) marks: crate::notify::Marks,
    /// What can no longer be done to it.
    pub seals: crate::seal::Seals,
    /// Record locks and flocks; made on first use.
    pub(crate) locks: crate::locks::LockSlot,
}

/// What a new inode starts with; see [`Inode::new`].
pub struct NewInode {
    /// Number.
    pub ino: u64,
    /// Type and permissions.
    pub mode: Mode,
    /// Owner.
    pub uid: Uid,
    /// Group.
    pub gid: Gid,
    /// Device number of device files.
    pub rdev: DevNum,
    /// Number of names.
    pub nlink: u32,
    /// Size of what has no page cache.
    pub size: u64,
    /// Page cache of what has one.
    pub cache: Option<KArc<PageCache>>,
}

impl Inode {
    /// A new inode with all times now.
    pub fn new(sb: &KArc<SuperBlock>, new: NewInode, ops: KArc<dyn InodeOps>) -> Result<KArc<Self>> {
        let now = Time::now();
        let flags = if ops.has_permission_rules() { I_HOOKED } else { 0 };
        Ok(KArc::try_new(Self {
            ino: new.ino,
            sb: sb.clone(),
            rdev: new.rdev,
            lock: RwMutex::new((), &class::INODE),
            cache: new.cache,
            ops,
            mode: AtomicU32::new(new.mode.0),
            uid: AtomicU32::new(new.uid),
            gid: AtomicU32::new(new.gid),
            nlink: AtomicU32::new(new.nlink),
            flags: AtomicU32::new(flags),
            plain_size: AtomicU64::new(new.size),
            times: SpinLock::new(Times { atime: now, mtime: now, ctime: now, btime: now }, &class::ATTR),
            writers: AtomicI32::new(0),
            opens: AtomicI32::new(0),
            special: SpinLock::new(None, &class::ATTR),
            marks: crate::notify::Marks::new(),
            seals: crate::seal::Seals::none(),
            locks: crate::locks::LockSlot::new(),
        })?)
    }

    /// Type and permissions.
    #[inline]
    pub fn mode(&self) -> Mode {
        Mode(self.mode.load(Relaxed))
    }
    /// Owner.
    #[inline]
    pub fn uid(&self) -> Uid {
        self.uid.load(Relaxed)
    }
    /// Group.
    #[inline]
    pub fn gid(&self) -> Gid {
        self.gid.load(Relaxed)
    }
    /// Number of names.
    pub fn nlink(&self) -> u32 {
        self.nlink.load(Relaxed)
    }
    /// Replaces the number of names. The directory's lock is held.
    pub fn set_nlink(&self, n: u32) {
        self.nlink.store(n, Relaxed);
    }
    /// One name more.
    pub fn inc_nlink(&self) {
        self.nlink.fetch_add(1, Relaxed);
    }
    /// One name less.
    pub fn dec_nlink(&self) {
        // The closure never declines, so there is no error to look at.
        let _ = self.nlink.fetch_update(Relaxed, Relaxed, |n| Some(n.saturating_sub(1)));
    }
    /// Replaces the permission bits.
    pub fn set_permissions(&self, bits: u32) {
        self.mode.store(self.mode().with_permissions(bits).0, Relaxed);
    }
    /// Replaces owner and group.
    pub fn set_owner(&self, uid: Uid, gid: Gid) {
        self.uid.store(uid, Relaxed);
        self.gid.store(gid, Relaxed);
    }
    /// Bytes in the file.
    #[inline]
    pub fn size(&self) -> u64 {
        match &self.cache {
            Some(c) => c.size(),
            None => self.plain_size.load(Relaxed),
        }
    }
    /// Sets the size of what has no page cache.
    pub fn set_plain_size(&self, n: u64) {
        self.plain_size.store(n, Relaxed);
    }
    /// Whether any of the `I_*` flags in `f` is set.
    #[inline]
    pub fn has_flag(&self, f: u32) -> bool {
        self.flags.load(Relaxed) & f != 0
    }
    /// Sets `I_*` flags.
    pub fn set_flag(&self, f: u32) {
        self.flags.fetch_or(f, Relaxed);
    }
    /// Clears `I_*` flags.
    pub fn clear_flag(&self, f: u32) {
        self.flags.fetch_and(!f, Relaxed);
    }
    /// Whether this is a directory.
    #[inline]
    pub fn is_dir(&self) -> bool {
        self.mode().is_dir()
    }

    /// The four times.
    pub fn times(&self) -> Times {
        *self.times.lock()
    }
    /// Changes times.
    pub fn with_times<R>(&self, f: impl FnOnce(&mut Times) -> R) -> R {
        f(&mut self.times.lock())
    }
    /// Marks a change of contents, now: mtime and ctime.
    pub fn touch_modified(&self) {
        let now = Time::now();
        self.with_times(|t| (t.mtime, t.ctime) = (now, now));
    }
    /// Marks a change of attributes, now: ctime.
    pub fn touch_changed(&self) {
        let now = Time::now();
        self.with_times(|t| t.ctime = now);
    }
    /// Marks a read by the `relatime` rule (mount(8)): the access time moves only when it is not
    /// younger than a change, or a day old.
    pub fn touch_accessed(&self, strict: bool) {
        let now = Time::now();
        self.with_times(|t| {
            let stale = t.atime <= t.mtime || t.atime <= t.ctime || now.secs.saturating_sub(t.atime.secs) >= 86_400;
            if (strict || stale) && t.atime != now {
                t.atime = now;
            }
        });
    }

    /// Counts a writer. ETXTBSY while the file is being executed.
    pub fn get_write_access(&self) -> Result {
        self.writers
            .fetch_update(SeqCst, Relaxed, |n| (n >= 0).then_some(n.saturating_add(1)))
            .map(|_| ())
            .map_err(|_| Errno::ETXTBSY)
    }
    /// A writer less.
    pub fn put_write_access(&self) {
        self.writers.fetch_sub(1, SeqCst);
    }
    /// Denies writing while the file is executed. ETXTBSY when somebody has it open for writing.
    pub fn deny_write(&self) -> Result {
        self.writers
            .fetch_update(SeqCst, Relaxed, |n| (n <= 0).then_some(n.saturating_sub(1)))
            .map(|_| ())
            .map_err(|_| Errno::ETXTBSY)
    }
    /// Ends one [`deny_write`](Self::deny_write).
    pub fn allow_write(&self) {
        self.writers.fetch_add(1, SeqCst);
    }

    /// Counts an open file. ENOENT when the contents are gone already: the name was removed
    /// between lookup and open.
    pub(crate) fn get_open(&self) -> Result {
        if self.opens.fetch_add(1, SeqCst) < 0 {
            self.opens.fetch_sub(1, SeqCst);
            return Err(Errno::ENOENT);
        }
        Ok(())
    }

    /// An open file less; the last one of a nameless file gives its contents up.
    pub(crate) fn put_open(&self) {
        if self.opens.fetch_sub(1, SeqCst) == 1 && self.nlink() == 0 {
            self.evict_if_unused();
        }
    }

    /// Gives the contents up if no name and no open file is left. Who removed the last name calls
    /// it; the inode's memory goes with its last reference.
    pub fn evict_if_unused(&self) {
        if self.retire() {
            self.ops.evict(self);
        }
    }

    /// The first half of [`evict_if_unused`](Self::evict_if_unused), which does not sleep: nobody opens the
    /// file any more, and who watches it knows. True: the caller calls `ops.evict`.
    pub(crate) fn retire(&self) -> bool {
        let last = self.nlink() == 0 && self.opens.compare_exchange(0, EVICTED, SeqCst, SeqCst).is_ok();
        if last {
            crate::notify::inode_gone(self);
        }
        last
    }

    /// Whether the contents were given up.
    pub(crate) fn is_gone(&self) -> bool {
        self.opens.load(SeqCst) < 0
    }

    /// What another room hung on this special file, or what `make` makes for it.
    pub fn special_or_try_init(
        &self,
        make: impl FnOnce() -> Result<KArc<dyn Any + Send + Sync>>,
    ) -> Result<KArc<dyn Any + Send + Sync>> {
        if let Some(s) = &*self.special.lock() {
            return Ok(s.clone());
        }
        let fresh = make()?;
        Ok(self.special.lock().get_or_insert(fresh).clone())
    }
    /// What another room hung on this special file.
    pub fn special(&self) -> Option<KArc<dyn Any + Send + Sync>> {
        self.special.lock().clone()
    }
    /// Hangs something on this special file.
    pub fn set_special(&self, s: Option<KArc<dyn Any + Send + Sync>>) {
        let old = core::mem::replace(&mut *self.special.lock(), s);
        drop(old);
    }
}

/// Where a symbolic link leads.
pub enum Link {
    /// To this path, relative to the link's directory or to the root.
    Text(KBytes),
    /// Straight to a place (magic links of procfs).
    Jump(Path),
}

/// What a file system does with one of its inodes. `dir` and `inode` are the inode that carries
/// these operations. Every default is the error that Linux gives where the operation is missing.
#[allow(unused_variables)]
pub trait InodeOps: Send + Sync {
    /// The file called `name` in the directory, or None. Directory lock held (read at least).
    fn lookup(&self, dir: &KArc<Inode>, name: &[u8]) -> Result<Option<KArc<Inode>>> {
        Err(Errno::ENOTDIR)
    }
    /// Makes a regular file. Directory lock held, name known to be free; so for all that follow.
    fn create(&self, dir: &KArc<Inode>, name: &[u8], mode: Mode, cred: &Credentials) -> Result<KArc<Inode>> {
        Err(Errno::EACCES)
    }
    /// Makes a directory.
    fn mkdir(&self, dir: &KArc<Inode>, name: &[u8], mode: Mode, cred: &Credentials) -> Result<KArc<Inode>> {
        Err(Errno::EPERM)
    }
    /// Makes a device, FIFO or socket.
    fn mknod(&self, dir: &KArc<Inode>, name: &[u8], mode: Mode, rdev: DevNum, cred: &Credentials) -> Result<KArc<Inode>> {
        Err(Errno::EPERM)
    }
    /// Makes a symbolic link.
    fn symlink(&self, dir: &KArc<Inode>, name: &[u8], target: &[u8], cred: &Credentials) -> Result<KArc<Inode>> {
        Err(Errno::EPERM)
    }
    /// Makes another name for `inode`.
    fn link(&self, dir: &KArc<Inode>, name: &[u8], inode: &KArc<Inode>) -> Result {
        Err(Errno::EPERM)
    }
    /// Removes the name of `victim`, which is not a directory.
    fn unlink(&self, dir: &KArc<Inode>, name: &[u8], victim: &KArc<Inode>) -> Result {
        Err(Errno::EPERM)
    }
    /// Removes the empty directory `victim` (its lock is held); ENOTEMPTY.
    fn rmdir(&self, dir: &KArc<Inode>, name: &[u8], victim: &KArc<Inode>) -> Result {
        Err(Errno::EPERM)
    }
    /// Moves `inode` from here to `new_name` in `new_dir` (same file system), replacing `target`
    /// or, with `exchange`, changing places with it. Both directory locks are held.
    fn rename(&self, r: &Rename<'_>) -> Result {
        Err(Errno::EINVAL)
    }
    /// A regular file without a name (O_TMPFILE), link count 0.
    fn tmpfile(&self, dir: &KArc<Inode>, mode: Mode, cred: &Credentials) -> Result<KArc<Inode>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// The text of the symbolic link.
    fn readlink(&self, inode: &KArc<Inode>) -> Result<KBytes> {
        Err(Errno::EINVAL)
    }
    /// Where the symbolic link leads; only magic links differ from their text.
    fn get_link(&self, inode: &KArc<Inode>, cred: &Credentials) -> Result<Link> {
        self.readlink(inode).map(Link::Text)
    }
    /// Changes attributes. Permissions were checked and the set completed by the VFS; the default
    /// stores it in the inode and truncates. Inode lock held.
    fn setattr(&self, inode: &KArc<Inode>, set: &SetAttr) -> Result {
        crate::attr::apply(inode, set)
    }
    /// Cuts or extends the file. Inode lock held. Default: the page cache's size.
    fn truncate(&self, inode: &Inode, size: u64) -> Result {
        match &inode.cache {
            Some(c) => c.truncate(size),
            None => Err(Errno::EINVAL),
        }
    }
    /// Brings attributes up to date that the inode does not keep itself (size of directories,
    /// owner of /proc/PID), before a stat or a permission check.
    fn refresh(&self, inode: &Inode) {}
    /// 512-byte blocks that the file takes.
    fn blocks(&self, inode: &Inode) -> u64 {
        inode.size().div_ceil(512)
    }
    /// Preferred size of input and output.
    fn block_size(&self) -> u32 {
        abi::PAGE_SIZE as u32
    }
    /// What `open(2)` makes of a regular file or directory. Other kinds are opened by the VFS.
    fn open(&self, inode: &KArc<Inode>, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        Err(Errno::ENXIO)
    }
    /// Permission rules of its own instead of the mode bits: `Some(answer)`. `mask` is MAY_*.
    fn permission(&self, inode: &Inode, mask: u32, cred: &Credentials) -> Option<Result> {
        None
    }
    /// Whether [`permission`](Self::permission) is more than the default.
    fn has_permission_rules(&self) -> bool {
        false
    }
    /// Whether a name that leads to this inode may be kept in the dentry cache. False for what
    /// comes and goes by itself (/proc/PID).
    fn cacheable(&self) -> bool {
        true
    }
    /// Whether the directory's missing names may be remembered.
    fn caches_absence(&self) -> bool {
        true
    }
    /// The last name and the last open file are gone: free the contents. Once, may sleep.
    fn evict(&self, inode: &Inode) {}
    /// Reads an extended attribute.
    fn get_xattr(&self, inode: &Inode, name: &[u8]) -> Result<KBytes> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Sets an extended attribute.
    fn set_xattr(&self, inode: &Inode, name: &[u8], value: &[u8], flags: u32) -> Result {
        Err(Errno::EOPNOTSUPP)
    }
    /// The names of the extended attributes, each with a NUL.
    fn list_xattr(&self, inode: &Inode) -> Result<KBytes> {
        Ok(KBytes::new())
    }
    /// Removes an extended attribute.
    fn remove_xattr(&self, inode: &Inode, name: &[u8]) -> Result {
        Err(Errno::EOPNOTSUPP)
    }
    /// The file system's own type.
    fn as_any(&self) -> &dyn Any;
}

/// One rename, as [`InodeOps::rename`] gets it.
pub struct Rename<'a> {
    /// Where it is.
    pub old_dir: &'a KArc<Inode>,
    /// What it is called.
    pub old_name: &'a [u8],
    /// What it is.
    pub inode: &'a KArc<Inode>,
    /// Where it goes.
    pub new_dir: &'a KArc<Inode>,
    /// What it will be called.
    pub new_name: &'a [u8],
    /// What is there now: replaced, or exchanged.
    pub target: Option<&'a KArc<Inode>>,
    /// RENAME_EXCHANGE.
    pub exchange: bool,
}

/// What a file system does as a whole.
#[allow(unused_variables)]
pub trait SuperOps: Send + Sync {
    /// `statfs(2)`.
    fn statfs(&self, sb: &SuperBlock) -> Result<Statfs>;
    /// Writes everything out.
    fn sync(&self, sb: &SuperBlock) -> Result {
        Ok(())
    }
    /// New options (`mount -o remount`).
    fn remount(&self, sb: &SuperBlock, flags: u32, data: &[u8]) -> Result {
        Ok(())
    }
    /// Options for /proc/mounts, each with a leading comma.
    fn show_options(&self, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        Ok(())
    }
    /// The last mount is gone: let go of the tree.
    fn shutdown(&self, sb: &SuperBlock) {}
    /// The file system's own type.
    fn as_any(&self) -> &dyn Any;
}

/// A weak reference to an inode.
pub type WeakInode = KWeak<Inode>;
