//! Mounts: which file system shows where, in which namespace, with which restrictions.
//!
//! A mount hangs on a dentry of its parent mount. All attached mounts stand in one table, sorted
//! by (parent, dentry), that is replaced whole on a change; readers search it under RCU. Changes
//! hold [`NAMESPACE`] (may sleep), then the table's spin lock for the moment of the exchange.
//!
//! "Busy" means that a [`MountRef`] other than the caller's exists: every path, so every open file
//! and working directory, has one. `TREE_SEQ` closes the gap between a fast walk that is about to
//! count itself in and an umount that has just counted: both sides use sequentially consistent
//! accesses (walker: count, then read the sequence; umount: advance it, then read the count), so
//! at least one sees the other and gives way.
//!
//! Propagation: every mount is private. Requests to make one shared, slave or unbindable are
//! accepted and change nothing, as they change nothing on Linux while there is one namespace.

use crate::{
    Credentials, Dentry, FsContext, Path, SuperBlock, class,
    dentry::D_MOUNTED,
    superblock::{MountRequest, bytes, find_filesystem},
};
use abi::{Errno, Result, raw::general as g};
use core::ops::Deref;
use kalloc::{KArc, KBytes, KVec, KWeak, RcuArc};
use sched::Mutex;
use sync::{
    Once, SpinLock,
    atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    rcu,
};

/// MS_* flags that belong to a mount rather than to its super block.
pub const MOUNT_FLAGS: u32 = g::MS_RDONLY
    | g::MS_NOSUID
    | g::MS_NODEV
    | g::MS_NOEXEC
    | g::MS_NOATIME
    | g::MS_NODIRATIME
    | g::MS_RELATIME
    | g::MS_STRICTATIME
    | g::MS_NOSYMFOLLOW;
/// MS_* flags that belong to the super block.
const SUPER_FLAGS: u32 = g::MS_RDONLY | g::MS_SYNCHRONOUS | g::MS_MANDLOCK | g::MS_DIRSYNC | g::MS_LAZYTIME;

/// A file system, or a part of one, at a place.
pub struct Mount {
    /// Number in /proc/PID/mountinfo.
    pub id: u32,
    /// The file system.
    pub sb: KArc<SuperBlock>,
    /// Which of its directories (or, for a bind mount, files) shows here.
    pub root: KArc<Dentry>,
    /// What the source argument was.
    pub source: KBytes,
    flags: AtomicU32,
    users: AtomicI32,
    internal: bool,
    point: SpinLock<Option<Point>>,
    namespace: SpinLock<KWeak<MountNamespace>>,
}

struct Point {
    parent: KArc<Mount>,
    dentry: KArc<Dentry>,
}

/// A counted use of a mount: what makes it busy.
pub struct MountRef(KArc<Mount>);

impl MountRef {
    /// Counts a use.
    pub fn new(m: &KArc<Mount>) -> Self {
        m.users.fetch_add(1, SeqCst);
        Self(m.clone())
    }
    /// Whether both are the same mount.
    pub fn ptr_eq(a: &Self, b: &Self) -> bool {
        KArc::ptr_eq(&a.0, &b.0)
    }
    /// The mount itself, not counted as a use.
    pub fn mount(&self) -> &KArc<Mount> {
        &self.0
    }
}
impl Clone for MountRef {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}
impl Drop for MountRef {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, SeqCst);
    }
}
impl Deref for MountRef {
    type Target = Mount;
    fn deref(&self) -> &Mount {
        &self.0
    }
}

impl Mount {
    fn build(sb: &KArc<SuperBlock>, root: KArc<Dentry>, source: &[u8], flags: u32, internal: bool) -> Result<KArc<Self>> {
        static IDS: AtomicU32 = AtomicU32::new(1);
        let source = bytes(source)?;
        let m = KArc::try_new(Self {
            id: IDS.fetch_add(1, Relaxed),
            sb: sb.clone(),
            root,
            source,
            flags: AtomicU32::new(atime_default(flags & MOUNT_FLAGS)),
            users: AtomicI32::new(0),
            internal,
            point: SpinLock::new(None, &class::MOUNT_POINT),
            namespace: SpinLock::new(KWeak::new(), &class::MOUNT_POINT),
        })?;
        sb.mounted();
        Ok(m)
    }

    /// A mount in no namespace: for pipes, and for file systems that the kernel itself uses.
    pub fn internal(sb: &KArc<SuperBlock>) -> Result<MountRef> {
        let root = sb.root().ok_or(Errno::EINVAL)?;
        Ok(MountRef::new(&Self::build(sb, root, b"none", g::MS_KERNMOUNT, true)?))
    }

    /// MS_* flags of the mount.
    pub fn flags(&self) -> u32 {
        self.flags.load(Relaxed)
    }
    /// Whether nothing may be changed through it: it or its file system is read-only.
    #[inline]
    pub fn is_read_only(&self) -> bool {
        self.flags() & g::MS_RDONLY != 0 || self.sb.is_read_only()
    }
    /// Whether the mount is in no tree (pipes, sockets).
    pub fn is_internal(&self) -> bool {
        self.internal
    }
    /// Where it hangs. None for the root of a namespace and for what was detached.
    pub fn point(&self) -> Option<Path> {
        let p = self.point.lock();
        p.as_ref().map(|p| Path { mount: MountRef::new(&p.parent), dentry: p.dentry.clone() })
    }
    /// The number of the mount that it hangs on; its own at the root.
    pub fn parent_id(&self) -> u32 {
        self.point.lock().as_ref().map_or(self.id, |p| p.parent.id)
    }
    /// The namespace that it is in.
    pub fn namespace(&self) -> Option<KArc<MountNamespace>> {
        self.namespace.lock().upgrade()
    }
    /// Whether it is attached to a tree.
    pub fn is_attached(&self) -> bool {
        self.namespace.lock().strong_count() > 0
    }
    /// Whether `m` is the root mount of the namespace that `self` is in.
    pub(crate) fn same_namespace_root(&self, m: &Self) -> bool {
        self.namespace().is_some_and(|ns| ns.root().is_some_and(|r| r.id == m.id))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.sb.unmounted();
    }
}

/// Without a word about access times the rule is relatime (mount(8)).
fn atime_default(flags: u32) -> u32 {
    if flags & (g::MS_NOATIME | g::MS_STRICTATIME) == 0 { flags | g::MS_RELATIME } else { flags & !g::MS_STRICTATIME }
}

struct Entry {
    parent: u32,
    dentry: u64,
    mount: KArc<Mount>,
}

/// All attached mounts but the roots, sorted by (parent, dentry).
static TABLE: Once<RcuArc<KVec<Entry>>> = Once::new();
/// Advanced by every change of the tree, before the change looks at use counts.
static TREE_SEQ: AtomicU64 = AtomicU64::new(0);
/// One change of any tree at a time.
static NAMESPACE: Mutex<()> = Mutex::new((), &class::NAMESPACE);

fn table() -> &'static RcuArc<KVec<Entry>> {
    TABLE.call_once(|| RcuArc::new(None))
}

/// The sequence that a fast walk compares after it counted itself in.
#[inline]
pub(crate) fn tree_seq() -> u64 {
    TREE_SEQ.load(SeqCst)
}

/// The mount on `dentry` of mount `parent`, uncounted.
#[inline]
pub(crate) fn find_rcu(g: &rcu::ReadGuard, parent: u32, dentry: u64) -> Option<&KArc<Mount>> {
    let t = table().load(g)?;
    let i = t.binary_search_by(|e| (e.parent, e.dentry).cmp(&(parent, dentry))).ok()?;
    t.get(i).map(|e| &e.mount)
}

/// The mount that covers `dentry` of mount `parent`.
pub(crate) fn find(parent: &Mount, dentry: &Dentry) -> Option<MountRef> {
    loop {
        let seq = tree_seq();
        let found = {
            let g = rcu::read_lock();
            find_rcu(&g, parent.id, dentry.id).map(MountRef::new)
        };
        if tree_seq() == seq {
            return found;
        }
    }
}

/// The topmost mount at `path`: follows what is mounted on it, and on that.
pub fn traverse(mut path: Path) -> Path {
    while path.dentry.has(D_MOUNTED) {
        let Some(m) = find(&path.mount, &path.dentry) else { break };
        let dentry = m.root.clone();
        path = Path { mount: m, dentry };
    }
    path
}

/// Replaces the table by one without `gone` and with `new`. NAMESPACE is held.
struct TableChange(KArc<KVec<Entry>>);

impl TableChange {
    fn prepare(gone: &[KArc<Mount>], new: &[(&KArc<Mount>, &Path)]) -> Result<Self> {
        let mut v = KVec::new();
        {
            // Only holders of NAMESPACE change the table, so it stands still without the guard's
            // help; the guard is what lets us look.
            let count = { table().get() };
            if let Some(old) = count {
                v.try_reserve(old.len().saturating_add(new.len()))?;
                for e in old.iter().filter(|e| !gone.iter().any(|m| KArc::ptr_eq(m, &e.mount))) {
                    v.try_push(Entry { parent: e.parent, dentry: e.dentry, mount: e.mount.clone() })?;
                }
            }
        }
        for (m, at) in new {
            v.try_push(Entry { parent: at.mount.id, dentry: at.dentry.id, mount: (*m).clone() })?;
        }
        v.sort_unstable_by_key(|e| (e.parent, e.dentry));
        Ok(Self(KArc::try_new(v)?))
    }

    fn commit(self) {
        TREE_SEQ.fetch_add(1, SeqCst);
        table().store(Some(self.0));
    }
}

/// What a process sees mounted.
pub struct MountNamespace {
    /// Number of the namespace.
    pub id: u64,
    root: SpinLock<Option<KArc<Mount>>>,
    /// In the order of mounting: what /proc/mounts shows.
    mounts: SpinLock<KVec<KArc<Mount>>>,
    this: KWeak<Self>,
}

impl MountNamespace {
    fn empty() -> Result<KArc<Self>> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Ok(KArc::try_new_cyclic(|this| Self {
            id: IDS.fetch_add(1, Relaxed),
            root: SpinLock::new(None, &class::MOUNTS),
            mounts: SpinLock::new(KVec::new(), &class::MOUNTS),
            this: this.clone(),
        })?)
    }

    /// A namespace whose root is the root of `sb`; returns it with that path.
    pub fn new(sb: &KArc<SuperBlock>, source: &[u8]) -> Result<(KArc<Self>, Path)> {
        let ns = Self::empty()?;
        let root = sb.root().ok_or(Errno::EINVAL)?;
        let m = Mount::build(sb, root.clone(), source, 0, false)?;
        ns.adopt(&m)?;
        *ns.root.lock() = Some(m.clone());
        Ok((ns, Path { mount: MountRef::new(&m), dentry: root }))
    }

    fn adopt(&self, m: &KArc<Mount>) -> Result {
        self.mounts.lock().try_push(m.clone())?;
        *m.namespace.lock() = self.this.clone();
        Ok(())
    }

    /// The root mount.
    pub fn root(&self) -> Option<KArc<Mount>> {
        self.root.lock().clone()
    }

    /// The place where a new process tree would stand: the topmost mount on the root.
    pub fn root_path(&self) -> Option<Path> {
        let m = self.root()?;
        let dentry = m.root.clone();
        Some(traverse(Path { mount: MountRef::new(&m), dentry }))
    }

    /// All mounts in the order of mounting.
    pub fn mounts(&self) -> Result<KVec<KArc<Mount>>> {
        loop {
            let n = self.mounts.lock().len();
            let mut v = KVec::try_with_capacity(n)?;
            let list = self.mounts.lock();
            if list.len() <= n {
                for m in list.iter() {
                    v.push_within_capacity(m.clone()).map_err(|_| Errno::ENOMEM)?;
                }
                return Ok(v);
            }
        }
    }

    /// A copy of the whole tree (CLONE_NEWNS); root and working directory in `fs` move over to
    /// it. EPERM without CAP_SYS_ADMIN.
    pub fn copy(&self, cred: &Credentials, fs: &FsContext) -> Result<KArc<Self>> {
        if !cred.capable(crate::Cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let _one = NAMESPACE.lock();
        let ns = Self::empty()?;
        let old = self.mounts()?;
        let mut copies: KVec<KArc<Mount>> = KVec::try_with_capacity(old.len())?;
        for m in &old {
            copies.try_push(Mount::build(&m.sb, m.root.clone(), &m.source, m.flags(), false)?)?;
        }
        let twin = |m: &Mount| old.iter().position(|o| o.id == m.id).and_then(|i| copies.get(i));
        let mut points: KVec<Path> = KVec::new();
        let mut attached: KVec<usize> = KVec::new();
        for (i, m) in old.iter().enumerate() {
            if let Some(p) = m.point() {
                let parent = twin(&p.mount).ok_or(Errno::EINVAL)?;
                points.try_push(Path { mount: MountRef::new(parent), dentry: p.dentry.clone() })?;
                attached.try_push(i)?;
            }
        }
        let mut new: KVec<(&KArc<Mount>, &Path)> = KVec::new();
        for (i, p) in attached.iter().zip(points.iter()) {
            new.try_push((copies.get(*i).ok_or(Errno::EINVAL)?, p))?;
        }
        let change = TableChange::prepare(&[], &new)?;
        for m in &copies {
            ns.adopt(m)?;
        }
        // Nothing fails from here on.
        for (m, p) in new.iter() {
            *m.point.lock() = Some(Point { parent: p.mount.mount().clone(), dentry: p.dentry.clone() });
        }
        *ns.root.lock() = self.root().as_deref().and_then(twin).cloned();
        change.commit();
        let roots = fs.roots();
        let moved = |p: &Path| twin(&p.mount).map(|m| Path { mount: MountRef::new(m), dentry: p.dentry.clone() });
        if let Some(p) = moved(&roots.root) {
            fs.set_root(p);
        }
        if let Some(p) = moved(&roots.cwd) {
            fs.set_cwd(p);
        }
        Ok(ns)
    }
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        // Nobody can be in it: its mounts come off the table and off each other.
        let gone = core::mem::take(self.mounts.get_mut());
        if let Ok(change) = TableChange::prepare(&gone, &[]) {
            change.commit();
        }
        for m in &gone {
            let point = m.point.lock().take();
            drop(point);
        }
    }
}

/// Arguments of `mount(2)` that the path walk has nothing to do with.
pub struct MountArgs<'a> {
    /// Source: free text for file systems without a device.
    pub source: &'a [u8],
    /// Type; ignored for bind, move, remount and propagation changes.
    pub fstype: Option<&'a [u8]>,
    /// MS_* flags.
    pub flags: u32,
    /// Options.
    pub data: &'a [u8],
}

/// `mount(2)`: `target` is the place, already resolved; `source` the path of a bind or move.
pub fn mount(cred: &Credentials, args: &MountArgs<'_>, source: Option<Path>, target: Path) -> Result {
    if !cred.capable(crate::Cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    // The old magic number in the upper half (mount(2), NOTES).
    let flags = if args.flags & g::MS_MGC_MSK == g::MS_MGC_VAL { args.flags & !g::MS_MGC_MSK } else { args.flags };
    const PROPAGATION: u32 = g::MS_SHARED | g::MS_PRIVATE | g::MS_SLAVE | g::MS_UNBINDABLE;
    if flags & g::MS_REMOUNT != 0 {
        remount(flags, args.data, &target)
    } else if flags & g::MS_BIND != 0 {
        bind(source.ok_or(Errno::EINVAL)?, target, flags & g::MS_REC != 0)
    } else if flags & PROPAGATION != 0 {
        // Exactly one, with nothing but MS_REC and MS_SILENT beside it.
        if (flags & PROPAGATION).count_ones() != 1 || flags & !(PROPAGATION | g::MS_REC | g::MS_SILENT) != 0 {
            return Err(Errno::EINVAL);
        }
        if target.is_mount_root() { Ok(()) } else { Err(Errno::EINVAL) }
    } else if flags & g::MS_MOVE != 0 {
        move_mount(source.ok_or(Errno::EINVAL)?, target)
    } else {
        let fs = find_filesystem(args.fstype.ok_or(Errno::EINVAL)?)?;
        let sb = fs.mount(&MountRequest { source: args.source, flags: flags & SUPER_FLAGS, data: args.data })?;
        let root = sb.root().ok_or(Errno::EINVAL)?;
        let m = Mount::build(&sb, root, args.source, flags, false)?;
        attach(&[(m, None)], target)
    }
}

/// Mounts `sb` at `target`, for the kernel's own use at boot.
pub fn mount_kernel(sb: &KArc<SuperBlock>, source: &[u8], flags: u32, target: Path) -> Result {
    let root = sb.root().ok_or(Errno::EINVAL)?;
    let m = Mount::build(sb, root, source, flags, false)?;
    attach(&[(m, None)], target)
}

fn remount(flags: u32, data: &[u8], target: &Path) -> Result {
    if !target.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let _one = NAMESPACE.lock();
    if flags & g::MS_BIND == 0 {
        let sb = &target.mount.sb;
        sb.ops.remount(sb, flags & SUPER_FLAGS, data)?;
        sb.set_flags(SUPER_FLAGS, flags);
    }
    let kept = if flags & (g::MS_NOATIME | g::MS_RELATIME | g::MS_STRICTATIME | g::MS_NODIRATIME) == 0 {
        target.mount.flags() & (g::MS_NOATIME | g::MS_RELATIME | g::MS_NODIRATIME)
    } else {
        0
    };
    target.mount.flags.store(atime_default(flags & MOUNT_FLAGS | kept), Relaxed);
    Ok(())
}

/// Attaches mounts: the first at `target`, each other at the place given with it. A directory
/// goes on a directory, a file on a file (ENOTDIR).
fn attach(tree: &[(KArc<Mount>, Option<Path>)], target: Path) -> Result {
    let _one = NAMESPACE.lock();
    let target = traverse(target);
    attach_locked(tree, &target)
}

fn attach_locked(tree: &[(KArc<Mount>, Option<Path>)], target: &Path) -> Result {
    let Some((first, _)) = tree.first() else { return Err(Errno::EINVAL) };
    let ns = target.mount.namespace().ok_or(Errno::EINVAL)?;
    let (over, under) = (first.root.positive()?, target.inode()?);
    if over.is_dir() != under.is_dir() || over.mode().is_symlink() {
        return Err(Errno::ENOTDIR);
    }
    if target.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    // The same file system twice in the same place (mount(2), EBUSY).
    if target.is_mount_root() && KArc::ptr_eq(&target.mount.sb, &first.sb) && KArc::ptr_eq(&target.mount.root, &first.root)
    {
        return Err(Errno::EBUSY);
    }
    let mut new: KVec<(&KArc<Mount>, &Path)> = KVec::new();
    for (m, at) in tree {
        new.try_push((m, at.as_ref().unwrap_or(target)))?;
    }
    let change = TableChange::prepare(&[], &new)?;
    let mut list = KVec::try_with_capacity(tree.len())?;
    for (m, _) in tree {
        list.try_push(m.clone())?;
    }
    loop {
        // Room in the list is made outside its spin lock.
        let n = ns.mounts.lock().len();
        let mut grown = KVec::try_with_capacity(n.saturating_add(tree.len()))?;
        let mut now = ns.mounts.lock();
        if now.len() != n {
            continue;
        }
        for m in now.drain(..).chain(list) {
            let _ = grown.push_within_capacity(m);
        }
        let old = core::mem::replace(&mut *now, grown);
        drop(now);
        drop(old);
        break;
    }
    // Nothing fails from here on.
    for (m, at) in &new {
        *m.namespace.lock() = ns.this.clone();
        *m.point.lock() = Some(Point { parent: at.mount.mount().clone(), dentry: at.dentry.clone() });
        at.dentry.set(D_MOUNTED);
    }
    change.commit();
    Ok(())
}

/// `m` and all mounts below it, parents before children.
fn subtree(m: &KArc<Mount>) -> Result<KVec<KArc<Mount>>> {
    let mut v = KVec::new();
    v.try_push(m.clone())?;
    let Some(ns) = m.namespace() else { return Ok(v) };
    let all = ns.mounts()?;
    let mut i = 0;
    while let Some(id) = v.get(i).map(|m: &KArc<Mount>| m.id) {
        for c in all.iter().filter(|c| c.id != id && c.parent_id() == id) {
            v.try_push(c.clone())?;
        }
        i += 1;
    }
    Ok(v)
}

fn bind(source: Path, target: Path, recursive: bool) -> Result {
    if source.mount.is_internal() || source.mount.namespace().is_none() {
        return Err(Errno::EINVAL);
    }
    let _one = NAMESPACE.lock();
    let target = traverse(target);
    let top = Mount::build(&source.mount.sb, source.dentry.clone(), &source.mount.source, source.mount.flags(), false)?;
    let mut tree: KVec<(KArc<Mount>, Option<Path>)> = KVec::new();
    tree.try_push((top.clone(), None))?;
    if recursive {
        // Old mount → its copy, while the tree is walked from the top.
        let mut twins: KVec<(u32, KArc<Mount>)> = KVec::new();
        twins.try_push((source.mount.id, top))?;
        for m in subtree(source.mount.mount())?.iter().skip(1) {
            let Some(p) = m.point() else { continue };
            if p.mount.id == source.mount.id && !source.dentry.is_ancestor_of(&p.dentry) {
                continue;
            }
            let Some(parent) = twins.iter().find(|(id, _)| *id == p.mount.id).map(|(_, t)| t.clone()) else { continue };
            let copy = Mount::build(&m.sb, m.root.clone(), &m.source, m.flags(), false)?;
            twins.try_push((m.id, copy.clone()))?;
            tree.try_push((copy, Some(Path { mount: MountRef::new(&parent), dentry: p.dentry })))?;
        }
    }
    attach_locked(&tree, &target)
}

fn move_mount(source: Path, target: Path) -> Result {
    let _one = NAMESPACE.lock();
    let target = traverse(target);
    let m = source.mount.mount();
    if !source.is_mount_root() || m.point().is_none() || target.mount.namespace().is_none() {
        return Err(Errno::EINVAL);
    }
    if m.root.positive()?.is_dir() != target.inode()?.is_dir() {
        return Err(Errno::EINVAL);
    }
    // Not into itself.
    if subtree(m)?.iter().any(|c| c.id == target.mount.id) {
        return Err(Errno::ELOOP);
    }
    relocate(&[(m, &target)])
}

/// Hangs attached mounts on other places, all at once. NAMESPACE is held.
fn relocate(moves: &[(&KArc<Mount>, &Path)]) -> Result {
    let mut gone = KVec::new();
    for (m, _) in moves {
        gone.try_push((*m).clone())?;
    }
    let change = TableChange::prepare(&gone, moves)?;
    for (m, at) in moves {
        let new = Point { parent: at.mount.mount().clone(), dentry: at.dentry.clone() };
        let old = m.point.lock().replace(new);
        at.dentry.set(D_MOUNTED);
        drop(old);
    }
    change.commit();
    Ok(())
}

/// Whether something is mounted on `dentry` in any namespace. `D_MOUNTED` alone does not say it:
/// it stays once set, and costs its walkers one search of the table.
pub(crate) fn is_mount_point(dentry: &Dentry) -> bool {
    let guard = rcu::read_lock();
    dentry.has(D_MOUNTED) && table().load(&guard).is_some_and(|t| t.iter().any(|e| e.dentry == dentry.id))
}

/// `umount2(2)`: `target` is the path that was given, resolved to the topmost mount on it.
pub fn umount(cred: &Credentials, target: Path, flags: u32) -> Result {
    if flags & !(g::MNT_FORCE | g::MNT_DETACH | g::MNT_EXPIRE | g::UMOUNT_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    if !cred.capable(crate::Cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if flags & g::MNT_EXPIRE != 0 && flags & (g::MNT_FORCE | g::MNT_DETACH) != 0 {
        return Err(Errno::EINVAL);
    }
    if !target.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let m = target.mount.mount().clone();
    // From here on the caller's path must not count as a use.
    drop(target);
    let _one = NAMESPACE.lock();
    let ns = m.namespace().ok_or(Errno::EINVAL)?;
    if m.point.lock().is_none() {
        // The root of a namespace is never taken off; asking for it is "busy" (umount(2)).
        return Err(if flags & g::MNT_DETACH != 0 { Errno::EINVAL } else { Errno::EBUSY });
    }
    let tree = subtree(&m)?;
    if flags & g::MNT_DETACH == 0 {
        TREE_SEQ.fetch_add(1, SeqCst);
        if tree.len() > 1 || m.users.load(SeqCst) > 0 {
            return Err(Errno::EBUSY);
        }
    }
    detach(&ns, &tree)?;
    if flags & g::MNT_DETACH == 0 {
        m.sb.leaving();
    }
    Ok(())
}

fn detach(ns: &MountNamespace, tree: &[KArc<Mount>]) -> Result {
    let change = TableChange::prepare(tree, &[])?;
    change.commit();
    for m in tree {
        let mut list = ns.mounts.lock();
        let at = list.iter().position(|x| KArc::ptr_eq(x, m));
        let own = at.and_then(|i| list.remove(i));
        drop(list);
        let point = m.point.lock().take();
        *m.namespace.lock() = KWeak::new();
        drop((own, point));
    }
    Ok(())
}

/// `pivot_root(2)`: the mount at `new_root` becomes the root, the old root goes to `put_old`.
/// `each` gets (old root, new root) to move every process that stands on the old one.
pub fn pivot_root(
    cred: &Credentials,
    fs: &FsContext,
    new_root: Path,
    put_old: Path,
    each: impl FnOnce(&Path, &Path),
) -> Result {
    if !cred.capable(crate::Cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let root = fs.root();
    if !new_root.inode()?.is_dir() || !put_old.inode()?.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let _one = NAMESPACE.lock();
    let ns = root.mount.namespace().ok_or(Errno::EINVAL)?;
    let same_ns = |p: &Path| p.mount.namespace().is_some_and(|n| n.id == ns.id);
    if !same_ns(&new_root) || !same_ns(&put_old) {
        return Err(Errno::EINVAL);
    }
    if new_root.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    if MountRef::ptr_eq(&new_root.mount, &root.mount) || MountRef::ptr_eq(&put_old.mount, &root.mount) {
        return Err(Errno::EBUSY);
    }
    if !root.is_mount_root() || !new_root.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    // The root of the initial file system cannot be moved (pivot_root(2), EINVAL): it hangs on
    // nothing.
    let root_point = root.mount.point().ok_or(Errno::EINVAL)?;
    if new_root.mount.point().is_none() || !is_below(&put_old, &new_root) {
        return Err(Errno::EINVAL);
    }
    relocate(&[(root.mount.mount(), &put_old), (new_root.mount.mount(), &root_point)])?;
    drop(_one);
    each(&root, &new_root);
    fs.replace(&root, &new_root);
    Ok(())
}

/// Whether `p` is reachable from `top` by going down.
pub(crate) fn is_below(p: &Path, top: &Path) -> bool {
    let mut at = p.clone();
    loop {
        if MountRef::ptr_eq(&at.mount, &top.mount) {
            return top.dentry.is_ancestor_of(&at.dentry);
        }
        match at.mount.point() {
            Some(up) => at = up,
            None => return false,
        }
    }
}
