#![cfg_attr(not(test), no_std)]
//! tmpfs: files in memory (`tmpfs(5)`). The root file system, /tmp and /dev are of this kind.
//!
//! The data of a file is its page cache and nothing else; a directory is two trees of entries
//! (`dir.rs`); what an instance may hold is counted in `account.rs`. A file without a name lives
//! until its last open file is gone, then gives its pages up at once.
//!
//! `memfd.rs` makes files that no directory knows (`memfd_create(2)`). As on Linux, FALLOC_FL_ZERO_RANGE
//! and its relatives are EOPNOTSUPP.
//!
//! Not there: huge pages, quotas, extended attributes.
//!
//! Locks: the VFS's inode locks order everything; a spin lock per directory protects its trees.

mod account;
mod dir;
mod memfd;
mod options;
#[cfg(test)]
mod tests;

use abi::{DevNum, Errno, Mode, PAGE_SIZE, Result, raw::general as g};
use account::Account;
use core::any::Any;
use dir::{Entries, Slot};
use kalloc::{KArc, KBox, KBytes, TryClone, karc_as, karc_dyn, kbox_dyn};
use mm::{MappedFile, PageCache, PageSource};
pub use options::Options;
use sync::atomic::{AtomicBool, Ordering::Relaxed};
use vfs::{
    Credentials, Emit, FileOps, FileSystem, Inode, InodeOps, IoSink, IoSource, MountRequest, NewInode, OpenFile,
    Rename, Statfs, SuperBlock, SuperOps, emit_dots, generic, init_owner, seal,
    splice::{self, Pages},
};

const TMPFS_MAGIC: u64 = g::TMPFS_MAGIC as u64;
/// What an entry adds to the size of its directory (shmem's BOGO_DIRENT_SIZE).
const ENTRY_SIZE: u64 = 20;

struct TmpSuper {
    account: KArc<Account>,
    options: Options,
}

/// Half of the machine's memory.
fn default_pages() -> u64 {
    frames::stats().total / 2
}

/// A new instance that shows as `fstype` in /proc/mounts.
pub fn new_super(fstype: &'static str, flags: u32, options: Options) -> Result<KArc<SuperBlock>> {
    let pages = options.pages.unwrap_or_else(default_pages);
    let inodes = options.inodes.unwrap_or_else(default_pages);
    let account = KArc::try_new(Account::new(pages, inodes))?;
    let ops = kbox_dyn!(TmpSuper { account: account.clone(), options } => dyn SuperOps)?;
    let sb = SuperBlock::new(fstype, None, flags, ops)?;
    let attributes = Attributes {
        mode: Mode(g::S_IFDIR | options.mode.unwrap_or(0o1777)),
        uid: options.uid.unwrap_or(0),
        gid: options.gid.unwrap_or(0),
        rdev: DevNum::default(),
        nlink: 2,
    };
    let root = new_inode(&sb, &account, attributes, Content::Dir(Entries::new()))?;
    sb.set_root(root)?;
    Ok(sb)
}

/// The root file system of the boot: an instance with permissions 0755.
pub fn new_rootfs() -> Result<KArc<SuperBlock>> {
    new_super("rootfs", 0, Options { mode: Some(0o755), ..Options::default() })
}

/// The types "tmpfs" and "ramfs" (the same without limits).
struct TmpFs {
    name: &'static str,
    unlimited: bool,
}

impl FileSystem for TmpFs {
    fn name(&self) -> &'static str {
        self.name
    }
    fn mount(&self, req: &MountRequest<'_>) -> Result<KArc<SuperBlock>> {
        let mut o = Options::parse(req.data, frames::stats().total)?;
        if self.unlimited {
            (o.pages, o.inodes) = (Some(0), Some(0));
            o.mode = o.mode.or(Some(0o755));
        }
        new_super(self.name, req.flags, o)
    }
}

/// Registers the file system types, and who makes files without a name.
pub fn init() -> Result {
    vfs::set_memory_files(memfd::create);
    vfs::register_filesystem(karc_dyn!(TmpFs { name: "tmpfs", unlimited: false } => dyn FileSystem)?)?;
    vfs::register_filesystem(karc_dyn!(TmpFs { name: "ramfs", unlimited: true } => dyn FileSystem)?)
}

impl SuperOps for TmpSuper {
    fn statfs(&self, _sb: &SuperBlock) -> Result<Statfs> {
        let a = &self.account;
        let (max, used) = (a.max_pages.load(Relaxed), u64::try_from(a.pages.load(Relaxed)).unwrap_or(0));
        let (max_inodes, inodes) = (a.max_inodes.load(Relaxed), u64::try_from(a.inodes.load(Relaxed)).unwrap_or(0));
        Ok(Statfs {
            kind: TMPFS_MAGIC,
            block_size: PAGE_SIZE as u64,
            blocks: max,
            free: max.saturating_sub(used),
            available: max.saturating_sub(used),
            files: max_inodes,
            free_files: max_inodes.saturating_sub(inodes),
            name_max: vfs::NAME_MAX as u64,
            ..Statfs::default()
        })
    }
    fn remount(&self, _sb: &SuperBlock, _flags: u32, data: &[u8]) -> Result {
        let o = Options::parse(data, frames::stats().total)?;
        let a = &self.account;
        let too_small = |new: Option<u64>, used: i64| new.is_some_and(|n| n != 0 && n < u64::try_from(used).unwrap_or(0));
        if too_small(o.pages, a.pages.load(Relaxed)) || too_small(o.inodes, a.inodes.load(Relaxed)) {
            return Err(Errno::EINVAL);
        }
        if let Some(n) = o.pages {
            a.max_pages.store(n, Relaxed);
        }
        if let Some(n) = o.inodes {
            a.max_inodes.store(n, Relaxed);
        }
        Ok(())
    }
    fn show_options(&self, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        if self.options.pages != Some(0) {
            write!(out, ",size={}k", self.account.max_pages.load(Relaxed).saturating_mul(4))?;
        }
        if self.options.inodes != Some(0) {
            write!(out, ",nr_inodes={}", self.account.max_inodes.load(Relaxed))?;
        }
        if let Some(m) = self.options.mode.filter(|&m| m != 0o1777) {
            write!(out, ",mode={m:o}")?;
        }
        for (key, value) in [("uid", self.options.uid), ("gid", self.options.gid)] {
            if let Some(v) = value.filter(|&v| v != 0) {
                write!(out, ",{key}={v}")?;
            }
        }
        Ok(())
    }
    fn shutdown(&self, sb: &SuperBlock) {
        // Directories hold their files and these their directories' trees: taken apart level by
        // level, since a deep tree must not recurse.
        let Some(root) = sb.root().and_then(|r| r.inode().cloned()) else { return };
        take_apart(root);
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Empties a tree without recursion: each directory's children are moved to a chain of work.
fn take_apart(root: KArc<Inode>) {
    let mut work = kalloc::KVec::new();
    if work.try_push(root).is_err() {
        return;
    }
    while let Some(inode) = work.pop() {
        if let Some(Content::Dir(entries)) = inode.ops.as_any().downcast_ref::<Node>().map(|n| &n.content) {
            for child in entries.take_all() {
                // Without memory for the list the child is dropped here, which recurses; by then
                // memory comes back.
                let _ = work.try_push(child);
            }
        }
    }
}

enum Content {
    File,
    Dir(Entries),
    Symlink(KBytes),
    Special,
}

struct Node {
    account: KArc<Account>,
    content: Content,
    /// Counted in the account.
    counted: AtomicBool,
}

impl Node {
    fn uncount(&self) {
        if self.counted.swap(false, Relaxed) {
            let _ = self.account.take_inodes(-1);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.uncount();
    }
}

struct Attributes {
    mode: Mode,
    uid: u32,
    gid: u32,
    rdev: DevNum,
    nlink: u32,
}

fn new_inode(sb: &KArc<SuperBlock>, account: &KArc<Account>, a: Attributes, content: Content) -> Result<KArc<Inode>> {
    account.take_inodes(1)?;
    let size = match &content {
        Content::Symlink(t) => t.len() as u64,
        Content::Dir(_) => 2 * ENTRY_SIZE,
        _ => 0,
    };
    let is_file = matches!(content, Content::File);
    let node = Node { account: account.clone(), content, counted: AtomicBool::new(true) };
    let ops = karc_dyn!(node => dyn InodeOps)?;
    let cache = if is_file {
        Some(PageCache::new(Some(karc_as!(account.clone() => dyn PageSource)))?)
    } else {
        None
    };
    let new = NewInode {
        ino: sb.alloc_ino(),
        mode: a.mode,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev,
        nlink: a.nlink,
        size,
        cache,
    };
    let inode = Inode::new(sb, new, ops)?;
    if is_file {
        // Only memfd_create makes files to which seals can be added.
        inode.seals.begin(seal::SEAL_SEAL);
    }
    Ok(inode)
}

impl Node {
    fn entries(&self) -> Result<&Entries> {
        match &self.content {
            Content::Dir(e) => Ok(e),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn node_of(inode: &Inode) -> Result<&Self> {
        inode.ops.as_any().downcast_ref().ok_or(Errno::EXDEV)
    }

    fn make(
        &self,
        dir: &KArc<Inode>,
        name: &[u8],
        mode: Mode,
        rdev: DevNum,
        content: Content,
        cred: &Credentials,
    ) -> Result<KArc<Inode>> {
        let entries = self.entries()?;
        let is_dir = mode.is_dir();
        let (mode, uid, gid) = init_owner(dir, mode, cred);
        let nlink = if is_dir { 2 } else { 1 };
        let inode = new_inode(&dir.sb, &self.account, Attributes { mode, uid, gid, rdev, nlink }, content)?;
        entries.insert(Slot::new(name, &inode)?);
        if is_dir {
            dir.inc_nlink();
        }
        grow(dir, 1);
        Ok(inode)
    }
}

/// A directory got `n` entries more.
fn grow(dir: &Inode, n: i64) {
    dir.set_plain_size(dir.size().saturating_add_signed(n * ENTRY_SIZE as i64));
    dir.touch_modified();
}

impl InodeOps for Node {
    fn lookup(&self, _dir: &KArc<Inode>, name: &[u8]) -> Result<Option<KArc<Inode>>> {
        Ok(self.entries()?.lookup(name))
    }
    fn create(&self, dir: &KArc<Inode>, name: &[u8], mode: Mode, cred: &Credentials) -> Result<KArc<Inode>> {
        self.make(dir, name, mode, DevNum::default(), Content::File, cred)
    }
    fn mkdir(&self, dir: &KArc<Inode>, name: &[u8], mode: Mode, cred: &Credentials) -> Result<KArc<Inode>> {
        self.make(dir, name, mode, DevNum::default(), Content::Dir(Entries::new()), cred)
    }
    fn mknod(&self, dir: &KArc<Inode>, name: &[u8], mode: Mode, rdev: DevNum, cred: &Credentials) -> Result<KArc<Inode>> {
        self.make(dir, name, mode, rdev, Content::Special, cred)
    }
    fn symlink(&self, dir: &KArc<Inode>, name: &[u8], target: &[u8], cred: &Credentials) -> Result<KArc<Inode>> {
        let text = Content::Symlink(KBytes::try_from_slice(target)?);
        self.make(dir, name, Mode(g::S_IFLNK | 0o777), DevNum::default(), text, cred)
    }
    fn link(&self, dir: &KArc<Inode>, name: &[u8], inode: &KArc<Inode>) -> Result {
        self.entries()?.insert(Slot::new(name, inode)?);
        inode.inc_nlink();
        inode.touch_changed();
        grow(dir, 1);
        Ok(())
    }
    fn unlink(&self, dir: &KArc<Inode>, name: &[u8], victim: &KArc<Inode>) -> Result {
        self.entries()?.remove(name);
        victim.dec_nlink();
        victim.touch_changed();
        grow(dir, -1);
        Ok(())
    }
    fn rmdir(&self, dir: &KArc<Inode>, name: &[u8], victim: &KArc<Inode>) -> Result {
        if !Self::node_of(victim)?.entries()?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.entries()?.remove(name);
        victim.set_nlink(0);
        victim.touch_changed();
        dir.dec_nlink();
        grow(dir, -1);
        Ok(())
    }
    fn rename(&self, r: &Rename<'_>) -> Result {
        let from = self.entries()?;
        let to = Self::node_of(r.new_dir)?.entries()?;
        let is_dir = r.inode.is_dir();
        if let Some(t) = r.target.filter(|_| r.exchange) {
            from.replace(r.old_name, t);
            to.replace(r.new_name, r.inode);
            // A directory takes its `..` along.
            match (is_dir, t.is_dir()) {
                (true, false) => {
                    r.old_dir.dec_nlink();
                    r.new_dir.inc_nlink();
                }
                (false, true) => {
                    r.new_dir.dec_nlink();
                    r.old_dir.inc_nlink();
                }
                _ => {}
            }
            t.touch_changed();
        } else {
            if let Some(t) = r.target {
                if t.is_dir() {
                    if !Self::node_of(t)?.entries()?.is_empty() {
                        return Err(Errno::ENOTEMPTY);
                    }
                    t.set_nlink(0);
                    r.new_dir.dec_nlink();
                } else {
                    t.dec_nlink();
                }
                t.touch_changed();
                to.replace(r.new_name, r.inode);
            } else {
                to.insert(Slot::new(r.new_name, r.inode)?);
                grow(r.new_dir, 1);
            }
            from.remove(r.old_name);
            grow(r.old_dir, -1);
            if is_dir {
                r.old_dir.dec_nlink();
                r.new_dir.inc_nlink();
            }
        }
        r.old_dir.touch_modified();
        r.new_dir.touch_modified();
        r.inode.touch_changed();
        Ok(())
    }
    fn tmpfile(&self, dir: &KArc<Inode>, mode: Mode, cred: &Credentials) -> Result<KArc<Inode>> {
        let (mode, uid, gid) = init_owner(dir, mode, cred);
        let a = Attributes { mode, uid, gid, rdev: DevNum::default(), nlink: 0 };
        new_inode(&dir.sb, &self.account, a, Content::File)
    }
    fn readlink(&self, _inode: &KArc<Inode>) -> Result<KBytes> {
        match &self.content {
            Content::Symlink(t) => Ok(t.try_clone()?),
            _ => Err(Errno::EINVAL),
        }
    }
    fn blocks(&self, inode: &Inode) -> u64 {
        inode.cache.as_ref().map_or(0, |c| c.resident_pages().saturating_mul(PAGE_SIZE as u64 / 512))
    }
    fn open(&self, _inode: &KArc<Inode>, _flags: u32, _cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        match &self.content {
            Content::File => Ok(kbox_dyn!(TmpFile => dyn FileOps)?),
            Content::Dir(_) => Ok(kbox_dyn!(TmpDir => dyn FileOps)?),
            _ => Err(Errno::ENXIO),
        }
    }
    fn evict(&self, inode: &Inode) {
        if let Some(c) = &inode.cache {
            // Memory is never read in, so cutting it to nothing cannot fail.
            let _ = c.truncate(0);
        }
        self.uncount();
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct TmpFile;

impl FileOps for TmpFile {
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, pos: &mut u64) -> Result<usize> {
        generic::read(f, dst, pos)
    }
    fn write(&self, f: &OpenFile, src: &mut IoSource<'_>, pos: &mut u64) -> Result<usize> {
        generic::write(f, src, pos)
    }
    fn append(&self, f: &OpenFile, src: &mut IoSource<'_>, pos: &mut u64) -> Result<usize> {
        generic::append(f, src, pos)
    }
    fn splice_read(&self, f: &OpenFile, pos: &mut u64, len: usize, pages: &mut Pages) -> Result<usize> {
        splice::read_cached(f, pos, len, pages)
    }
    fn can_splice_write(&self) -> bool {
        true
    }
    fn mmap(&self, f: &KArc<OpenFile>) -> Result<KArc<dyn MappedFile>> {
        generic::mapping(f)
    }
    fn fsync(&self, _f: &OpenFile, _data_only: bool) -> Result {
        Ok(())
    }
    fn fallocate(&self, f: &OpenFile, mode: u32, offset: u64, len: u64) -> Result {
        let cache = f.inode.cache.as_ref().ok_or(Errno::EINVAL)?;
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        let page = PAGE_SIZE as u64;
        if mode & !(g::FALLOC_FL_PUNCH_HOLE | g::FALLOC_FL_KEEP_SIZE) != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let _lock = f.inode.lock.write();
        if mode & g::FALLOC_FL_PUNCH_HOLE != 0 {
            f.inode.seals.check_discard()?;
            cache.discard(offset, end)?;
        } else {
            f.inode.seals.check_size(cache.size(), end.max(cache.size()))?;
            let (first, last) = (offset / page, end.div_ceil(page));
            let most = Node::node_of(&f.inode)?.account.max_pages.load(Relaxed);
            if most != 0 && last - first > most {
                return Err(Errno::ENOSPC);
            }
            cache.reserve(first, last)?;
            if mode == 0 && end > cache.size() {
                cache.truncate(end)?;
            }
        }
        f.inode.touch_modified();
        Ok(())
    }
    fn seek(&self, f: &OpenFile, pos: u64, offset: i64, whence: u32) -> Result<u64> {
        let size = f.inode.size();
        if whence != g::SEEK_DATA && whence != g::SEEK_HOLE {
            return vfs::generic_seek(f, pos, offset, whence, size);
        }
        let cache = f.inode.cache.as_ref().ok_or(Errno::EINVAL)?;
        let at = u64::try_from(offset).ok().filter(|&at| at < size).ok_or(Errno::ENXIO)?;
        let _lock = f.inode.lock.read();
        if whence == g::SEEK_DATA {
            cache.next_data(at).filter(|&p| p < size).ok_or(Errno::ENXIO)
        } else {
            Ok(cache.next_hole(at).min(size))
        }
    }
    fn fcntl(&self, f: &OpenFile, cmd: u32, arg: u64) -> Result<u64> {
        match cmd {
            g::F_GET_SEALS => f.inode.seals.get().map(u64::from),
            g::F_ADD_SEALS => memfd::add_seals(f, arg),
            _ => Err(Errno::EINVAL),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct TmpDir;

impl FileOps for TmpDir {
    fn read(&self, _f: &OpenFile, _dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }
    fn seek(&self, f: &OpenFile, pos: u64, offset: i64, whence: u32) -> Result<u64> {
        // Positions are cookies, not sizes: the end means nothing (dcache_dir_lseek).
        if whence > g::SEEK_CUR {
            return Err(Errno::EINVAL);
        }
        vfs::generic_seek(f, pos, offset, whence, 0)
    }
    fn readdir(&self, f: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> Result {
        if !emit_dots(f, pos, emit) {
            return Ok(());
        }
        let entries = Node::node_of(&f.inode)?.entries()?;
        let mut name = [0; vfs::NAME_MAX];
        while let Some((cookie, len, ino, kind)) = entries.next(*pos, &mut name) {
            let text = name.get(..len).unwrap_or(&[]);
            if !emit(text, ino, kind, cookie + 1) {
                *pos = cookie;
                return Ok(());
            }
            *pos = cookie + 1;
        }
        Ok(())
    }
    fn fsync(&self, _f: &OpenFile, _data_only: bool) -> Result {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
