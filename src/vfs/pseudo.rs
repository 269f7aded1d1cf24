//! Files and directories that are generated: the framework under procfs and its like.
//!
//! A file is something that can [`Show`] its text, perhaps [`Store`] what is written to it; a
//! directory is something that lists its [`DirContents`]; a link has a [`LinkTarget`]. The text is
//! made when a read starts at position 0 and kept for the reads that follow, so that a reader
//! never sees a mixture of two states; a read elsewhere without text makes it too (seq_file's
//! behaviour on Linux).
//!
//! [`Tree`] is a static directory tree that rooms add files to by path.

use crate::{
    Credentials, FileOps, Inode, InodeOps, Link, NewInode, OpenFile, PollEvents, PollTable, SetAttr, SuperBlock, class,
    file::{Emit, emit_dots},
    splice::{self, Pages},
};
use abi::{DevNum, Errno, Mode, Result, raw::general as g};
use core::{any::Any, fmt};
use kalloc::{AllocError, KArc, KBox, KBytes, KVec, KWeak, karc_dyn, kbox_dyn};
use mm::io::{IoSink, IoSource};
use sched::Mutex;
use sync::SpinLock;

/// Most that one write to a generated file may be, as on Linux (PAGE_SIZE for sysctl files; more
/// than a page is refused).
const STORE_MAX: usize = 64 * 1024;

/// Text that is being made: a `fmt::Write` that fails only for want of memory.
#[derive(Default)]
pub struct SeqBuf {
    text: KBytes,
}

impl SeqBuf {
    /// No text.
    pub const fn new() -> Self {
        Self { text: KBytes::new() }
    }
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result {
        Ok(self.text.try_extend_from_slice(bytes)?)
    }
    /// Adds bytes with space, tab, newline, backslash and `also` as octal escapes, as /proc/mounts
    /// shows paths.
    pub fn push_escaped(&mut self, bytes: &[u8], also: &[u8]) -> Result {
        for &b in bytes {
            if matches!(b, b' ' | b'\t' | b'\n' | b'\\') || also.contains(&b) {
                self.push(&[b'\\', b'0' + (b >> 6), b'0' + (b >> 3 & 7), b'0' + (b & 7)])?;
            } else {
                self.push(&[b])?;
            }
        }
        Ok(())
    }
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.text.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_slice()
    }
}

impl fmt::Write for SeqBuf {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.text.try_extend_from_slice(s.as_bytes()).map_err(|_: AllocError| fmt::Error)
    }
}

/// Who reads or writes, and through which open file.
pub struct Reader<'a> {
    /// The open file; its credentials are those of the opener.
    pub file: &'a OpenFile,
}

/// Something that shows itself as text.
pub trait Show: Send + Sync {
    /// Writes the text. `write!(out, ..).map_err(no_memory)?` is the usual line.
    fn show(&self, out: &mut SeqBuf, reader: &Reader<'_>) -> Result;
    /// Checked at open: EACCES and the like.
    fn may_open(&self, inode: &Inode, flags: u32, cred: &Credentials) -> Result {
        let _ = (inode, flags, cred);
        Ok(())
    }
    /// Brings owner and mode up to date before they are looked at.
    fn refresh(&self, inode: &Inode) {
        let _ = inode;
    }
}

/// Something that takes what is written to it.
pub trait Store: Send + Sync {
    /// Takes one write whole; returns how many bytes of it count.
    fn store(&self, data: &[u8], pos: u64, writer: &Reader<'_>) -> Result<usize>;
}

/// A formatting error of a [`SeqBuf`] means that there was no memory.
pub fn no_memory(_: fmt::Error) -> Errno {
    Errno::ENOMEM
}

/// A [`Show`] from a function.
pub struct ShowFn<F>(pub F);
impl<F: Fn(&mut SeqBuf) -> Result + Send + Sync> Show for ShowFn<F> {
    fn show(&self, out: &mut SeqBuf, _reader: &Reader<'_>) -> Result {
        (self.0)(out)
    }
}

/// What a generated directory contains.
pub trait DirContents: Send + Sync {
    /// The file called `name`.
    fn lookup(&self, dir: &KArc<Inode>, name: &[u8]) -> Result<Option<KArc<Inode>>>;
    /// Lists from `pos` on; positions 0 and 1 (`.` and `..`) are done, so `pos` starts at 2.
    fn readdir(&self, f: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> Result;
    /// Whether a missing name stays missing until this kernel says otherwise.
    fn caches_absence(&self) -> bool {
        false
    }
    /// Brings owner and link count up to date before they are looked at.
    fn refresh(&self, inode: &Inode) {
        let _ = inode;
    }
    /// Permission rules instead of the mode bits.
    fn permission(&self, inode: &Inode, mask: u32, cred: &Credentials) -> Option<Result> {
        let _ = (inode, mask, cred);
        None
    }
    /// Whether there are such rules.
    fn has_permission_rules(&self) -> bool {
        false
    }
    /// What is behind the trait, where others ask for it ([`contents_of`]).
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

/// The contents of an open generated directory, if they are a `T`.
pub fn contents_of<T: Any>(f: &OpenFile) -> Option<&T> {
    f.ops_as::<PseudoDir>()?.0.as_any()?.downcast_ref()
}

/// Where a generated link leads.
pub trait LinkTarget: Send + Sync {
    /// Its text.
    fn text(&self, inode: &Inode) -> Result<KBytes>;
    /// The place itself, for magic links.
    fn follow(&self, inode: &Inode, cred: &Credentials) -> Result<Link> {
        let _ = cred;
        self.text(inode).map(Link::Text)
    }
    /// Brings owner and mode up to date before they are looked at.
    fn refresh(&self, inode: &Inode) {
        let _ = inode;
    }
}

/// Attributes of a generated file.
#[derive(Clone, Copy, Debug)]
pub struct Attrs {
    /// Inode number.
    pub ino: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The file may vanish or change by itself: its name is not kept in the dentry cache.
    pub volatile: bool,
}

enum Kind {
    File { show: Option<KArc<dyn Show>>, store: Option<KArc<dyn Store>> },
    Dir(KArc<dyn DirContents>),
    Link(KArc<dyn LinkTarget>),
    /// A file with operations of its own.
    Custom(KArc<dyn OpenWith>),
}

/// Opens a generated file with operations of its own (/proc/kmsg, /proc/PID/mem).
pub trait OpenWith: Send + Sync {
    /// As [`InodeOps::open`].
    fn open(&self, inode: &KArc<Inode>, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>>;
    /// Brings owner and mode up to date before they are looked at.
    fn refresh(&self, inode: &Inode) {
        let _ = inode;
    }
}

struct Pseudo {
    kind: Kind,
    volatile: bool,
}

fn inode(sb: &KArc<SuperBlock>, a: Attrs, file_type: u32, kind: Kind) -> Result<KArc<Inode>> {
    let nlink = if file_type == g::S_IFDIR { 2 } else { 1 };
    let new = NewInode {
        ino: a.ino,
        mode: Mode(file_type | a.mode & Mode::PERMISSIONS),
        uid: a.uid,
        gid: a.gid,
        rdev: DevNum::default(),
        nlink,
        size: 0,
        cache: None,
    };
    Inode::new(sb, new, karc_dyn!(Pseudo { kind, volatile: a.volatile } => dyn InodeOps)?)
}

/// A generated file. Without `show` reads give EINVAL, without `store` writes.
pub fn new_file(
    sb: &KArc<SuperBlock>,
    a: Attrs,
    show: Option<KArc<dyn Show>>,
    store: Option<KArc<dyn Store>>,
) -> Result<KArc<Inode>> {
    inode(sb, a, g::S_IFREG, Kind::File { show, store })
}

/// A generated directory.
pub fn new_dir(sb: &KArc<SuperBlock>, a: Attrs, contents: KArc<dyn DirContents>) -> Result<KArc<Inode>> {
    inode(sb, a, g::S_IFDIR, Kind::Dir(contents))
}

/// A generated link.
pub fn new_link(sb: &KArc<SuperBlock>, a: Attrs, target: KArc<dyn LinkTarget>) -> Result<KArc<Inode>> {
    inode(sb, a, g::S_IFLNK, Kind::Link(target))
}

/// A file with operations of its own.
pub fn new_custom(sb: &KArc<SuperBlock>, a: Attrs, open: KArc<dyn OpenWith>) -> Result<KArc<Inode>> {
    inode(sb, a, g::S_IFREG, Kind::Custom(open))
}

impl InodeOps for Pseudo {
    fn lookup(&self, dir: &KArc<Inode>, name: &[u8]) -> Result<Option<KArc<Inode>>> {
        match &self.kind {
            Kind::Dir(d) => d.lookup(dir, name),
            _ => Err(Errno::ENOTDIR),
        }
    }
    fn create(&self, _: &KArc<Inode>, _: &[u8], _: Mode, _: &Credentials) -> Result<KArc<Inode>> {
        // Nothing can be made in a generated tree: to open(2), the name does not exist.
        Err(Errno::ENOENT)
    }
    fn readlink(&self, inode: &KArc<Inode>) -> Result<KBytes> {
        match &self.kind {
            Kind::Link(l) => l.text(inode),
            _ => Err(Errno::EINVAL),
        }
    }
    fn get_link(&self, inode: &KArc<Inode>, cred: &Credentials) -> Result<Link> {
        match &self.kind {
            Kind::Link(l) => l.follow(inode, cred),
            _ => Err(Errno::EINVAL),
        }
    }
    fn setattr(&self, inode: &KArc<Inode>, set: &SetAttr) -> Result {
        // O_TRUNC on a generated file is accepted and means nothing (`echo 1 > /proc/...`).
        crate::attr::apply(inode, &SetAttr { size: None, ..*set })
    }
    fn refresh(&self, inode: &Inode) {
        match &self.kind {
            Kind::File { show: Some(s), .. } => s.refresh(inode),
            Kind::File { .. } => {}
            Kind::Dir(d) => d.refresh(inode),
            Kind::Link(l) => l.refresh(inode),
            Kind::Custom(c) => c.refresh(inode),
        }
    }
    fn block_size(&self) -> u32 {
        1024
    }
    fn open(&self, inode: &KArc<Inode>, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        match &self.kind {
            Kind::File { show, store } => {
                if let Some(s) = show {
                    s.may_open(inode, flags, cred)?;
                }
                let ops = SeqFile {
                    show: show.clone(),
                    store: store.clone(),
                    text: Mutex::new(None, &class::SEQ_FILE),
                };
                Ok(kbox_dyn!(ops => dyn FileOps)?)
            }
            Kind::Dir(d) => Ok(kbox_dyn!(PseudoDir(d.clone()) => dyn FileOps)?),
            Kind::Link(_) => Err(Errno::ELOOP),
            Kind::Custom(c) => c.open(inode, flags, cred),
        }
    }
    fn permission(&self, inode: &Inode, mask: u32, cred: &Credentials) -> Option<Result> {
        self.refresh(inode);
        match &self.kind {
            Kind::Dir(d) => d.permission(inode, mask, cred),
            _ => None,
        }
    }
    fn has_permission_rules(&self) -> bool {
        self.volatile || matches!(&self.kind, Kind::Dir(d) if d.has_permission_rules())
    }
    fn cacheable(&self) -> bool {
        !self.volatile
    }
    fn caches_absence(&self) -> bool {
        matches!(&self.kind, Kind::Dir(d) if d.caches_absence())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An open file of this text, for [`OpenWith`].
pub fn text_file(show: KArc<dyn Show>) -> Result<KBox<dyn FileOps>> {
    let ops = SeqFile { show: Some(show), store: None, text: Mutex::new(None, &class::SEQ_FILE) };
    Ok(kbox_dyn!(ops => dyn FileOps)?)
}

/// An open generated file.
struct SeqFile {
    show: Option<KArc<dyn Show>>,
    store: Option<KArc<dyn Store>>,
    /// The text of the present reading; None: none was made.
    text: Mutex<Option<SeqBuf>>,
}

impl FileOps for SeqFile {
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, pos: &mut u64) -> Result<usize> {
        let show = self.show.as_ref().ok_or(Errno::EINVAL)?;
        let mut text = self.text.lock();
        if *pos == 0 || text.is_none() {
            *text = None;
            let mut out = SeqBuf::new();
            show.show(&mut out, &Reader { file: f })?;
            *text = Some(out);
        }
        let rest = text.as_ref().and_then(|t| t.as_bytes().get(usize::try_from(*pos).ok()?..)).unwrap_or(&[]);
        if rest.is_empty() {
            return Ok(0);
        }
        let n = dst.write(rest)?;
        *pos = pos.saturating_add(n as u64);
        Ok(n)
    }

    fn write(&self, f: &OpenFile, src: &mut IoSource<'_>, pos: &mut u64) -> Result<usize> {
        let store = self.store.as_ref().ok_or(Errno::EINVAL)?;
        let n = src.remaining();
        if n > STORE_MAX {
            return Err(Errno::EINVAL);
        }
        let mut data = KBytes::new();
        data.try_resize(n, 0)?;
        src.read_exact(&mut data)?;
        let n = store.store(&data, *pos, &Reader { file: f })?;
        *pos = pos.saturating_add(n as u64);
        Ok(n)
    }

    fn splice_read(&self, f: &OpenFile, pos: &mut u64, len: usize, pages: &mut Pages) -> Result<usize> {
        splice::read_copied(f, pos, len, pages)
    }
    fn can_splice_write(&self) -> bool {
        self.store.is_some()
    }
    fn seek(&self, f: &OpenFile, pos: u64, offset: i64, whence: u32) -> Result<u64> {
        // The end of a generated file is nowhere (seq_lseek).
        if whence > g::SEEK_CUR {
            return Err(Errno::EINVAL);
        }
        crate::file::generic_seek(f, pos, offset, whence, 0)
    }

    fn poll(&self, _f: &OpenFile, _table: &mut PollTable<'_>) -> PollEvents {
        PollEvents::IN | PollEvents::OUT | PollEvents::RDNORM | PollEvents::WRNORM
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct PseudoDir(KArc<dyn DirContents>);

impl FileOps for PseudoDir {
    fn read(&self, _f: &OpenFile, _dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }
    fn readdir(&self, f: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> Result {
        if emit_dots(f, pos, emit) { self.0.readdir(f, pos, emit) } else { Ok(()) }
    }
    fn fsync(&self, _f: &OpenFile, _data_only: bool) -> Result {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A directory of a static tree: rooms add to it by path, a file system shows it.
///
/// Nodes are never removed. The inode of each is made at its first lookup and found again while it
/// is in use; the tree belongs to one file system.
pub struct Tree {
    ino: u64,
    children: SpinLock<KVec<Node>>,
}

#[derive(Clone)]
enum NodeKind {
    Dir(KArc<Tree>),
    File { show: Option<KArc<dyn Show>>, store: Option<KArc<dyn Store>> },
    Link(KArc<dyn LinkTarget>),
    Custom(KArc<dyn OpenWith>),
}

struct Node {
    name: &'static str,
    mode: u32,
    ino: u64,
    kind: NodeKind,
    inode: KWeak<Inode>,
}

fn next_ino() -> u64 {
    use sync::atomic::{AtomicU64, Ordering::Relaxed};
    /// Linux gives dynamic /proc entries numbers from 0xf0000000 on.
    static NEXT: AtomicU64 = AtomicU64::new(0xf000_0000);
    NEXT.fetch_add(1, Relaxed)
}

impl Tree {
    /// An empty directory.
    pub const fn with_ino(ino: u64) -> Self {
        Self { ino, children: SpinLock::new(KVec::new(), &class::REGISTRY) }
    }

    /// The inode number of the directory.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    fn insert(&self, name: &'static str, mode: u32, kind: NodeKind) -> Result {
        let ino = match &kind {
            NodeKind::Dir(t) => t.ino,
            _ => next_ino(),
        };
        let mut c = self.children.lock();
        if c.iter().any(|n| n.name == name) {
            return Err(Errno::EEXIST);
        }
        Ok(c.try_push(Node { name, mode, ino, kind, inode: KWeak::new() })?)
    }

    fn subdir(&self, name: &'static str) -> Result<KArc<Tree>> {
        let find = || {
            let c = self.children.lock();
            c.iter().find(|n| n.name == name).map(|n| match &n.kind {
                NodeKind::Dir(t) => Ok(t.clone()),
                _ => Err(Errno::ENOTDIR),
            })
        };
        if let Some(t) = find() {
            return t;
        }
        let t = KArc::try_new(Self::with_ino(next_ino()))?;
        match self.insert(name, 0o555, NodeKind::Dir(t.clone())) {
            Err(Errno::EEXIST) => find().unwrap_or(Err(Errno::ENOENT)),
            other => other.map(|()| t),
        }
    }

    fn put(&self, path: &'static str, mode: u32, kind: NodeKind) -> Result {
        match path.split_once('/') {
            None if path.is_empty() => Ok(()),
            None => self.insert(path, mode, kind),
            Some((first, rest)) => self.subdir(first)?.put(rest, mode, kind),
        }
    }

    /// Adds a file at `path` ("sys/kernel/ostype"); directories on the way are made. EEXIST.
    pub fn add(&self, path: &'static str, mode: u32, show: KArc<dyn Show>) -> Result {
        self.put(path, mode, NodeKind::File { show: Some(show), store: None })
    }
    /// Adds a file that can also be written.
    pub fn add_writable(&self, path: &'static str, mode: u32, show: Option<KArc<dyn Show>>, store: KArc<dyn Store>) -> Result {
        self.put(path, mode, NodeKind::File { show, store: Some(store) })
    }
    /// Adds a link.
    pub fn add_link(&self, path: &'static str, target: KArc<dyn LinkTarget>) -> Result {
        self.put(path, 0o777, NodeKind::Link(target))
    }
    /// Adds a file with operations of its own.
    pub fn add_custom(&self, path: &'static str, mode: u32, open: KArc<dyn OpenWith>) -> Result {
        self.put(path, mode, NodeKind::Custom(open))
    }
    /// Adds an empty directory (a mount point).
    pub fn add_dir(&self, path: &'static str) -> Result {
        match path.rsplit_once('/') {
            Some((above, name)) => {
                let mut at = self.subdir(above.split('/').next().unwrap_or(above))?;
                for part in above.split('/').skip(1) {
                    at = at.subdir(part)?;
                }
                at.subdir(name).map(|_| ())
            }
            None => self.subdir(path).map(|_| ()),
        }
    }

    /// The inode of the child called `name`.
    pub fn lookup_node(&self, sb: &KArc<SuperBlock>, name: &[u8]) -> Result<Option<KArc<Inode>>> {
        let (mode, ino, kind, known) = {
            let c = self.children.lock();
            let Some(n) = c.iter().find(|n| n.name.as_bytes() == name) else { return Ok(None) };
            (n.mode, n.ino, n.kind.clone(), n.inode.upgrade())
        };
        if known.is_some() {
            return Ok(known);
        }
        let a = Attrs { ino, mode, uid: 0, gid: 0, volatile: false };
        let fresh = match kind {
            NodeKind::Dir(t) => new_dir(sb, a, karc_dyn!(TreeDir(t) => dyn DirContents)?)?,
            NodeKind::File { show, store } => new_file(sb, a, show, store)?,
            NodeKind::Link(l) => new_link(sb, a, l)?,
            NodeKind::Custom(o) => new_custom(sb, a, o)?,
        };
        let mut c = self.children.lock();
        let Some(n) = c.iter_mut().find(|n| n.name.as_bytes() == name) else { return Ok(None) };
        if let Some(first) = n.inode.upgrade() {
            return Ok(Some(first));
        }
        n.inode = KArc::downgrade(&fresh);
        Ok(Some(fresh))
    }

    /// Lists the children; the first has position `base`.
    pub fn readdir_nodes(&self, base: u64, pos: &mut u64, emit: &mut Emit<'_>) -> Result<bool> {
        loop {
            let i = usize::try_from(pos.saturating_sub(base)).map_err(|_| Errno::EINVAL)?;
            let entry = {
                let c = self.children.lock();
                c.get(i).map(|n| {
                    let kind = match n.kind {
                        NodeKind::Dir(_) => g::DT_DIR,
                        NodeKind::Link(_) => g::DT_LNK,
                        NodeKind::File { .. } | NodeKind::Custom(_) => g::DT_REG,
                    };
                    (n.name, n.ino, kind)
                })
            };
            let Some((name, ino, kind)) = entry else { return Ok(true) };
            if !emit(name.as_bytes(), ino, kind as u8, *pos + 1) {
                return Ok(false);
            }
            *pos += 1;
        }
    }

    /// How many children there are: where the positions of what follows may start.
    pub fn child_count(&self) -> usize {
        self.children.lock().len()
    }
}

/// A [`Tree`] as the contents of a directory.
pub struct TreeDir(pub KArc<Tree>);

impl DirContents for TreeDir {
    fn lookup(&self, dir: &KArc<Inode>, name: &[u8]) -> Result<Option<KArc<Inode>>> {
        self.0.lookup_node(&dir.sb, name)
    }
    fn readdir(&self, _f: &OpenFile, pos: &mut u64, emit: &mut Emit<'_>) -> Result {
        self.0.readdir_nodes(2, pos, emit).map(|_| ())
    }
}
