//! Who wants to know what happens to files: the layer under `inotify(7)`.
//!
//! A [`Mark`] ties a [`Watcher`] to an inode and says which events it wants. What the VFS does calls
//! one of the `on_*` functions afterwards. On a file system without marks they load one word and
//! return; on one with marks they look at the file's and its directory's interest.
//!
//! A mark keeps its inode, so that the file found by the same name later is the same. It ends when
//! its watcher takes it off, when the file is gone, or when its file system is.
//!
//! Events are handed over under the lock on the inode's marks, so they may not sleep, and arrive in
//! the order in which they were told.
//!
//! Lock order: an inode's marks, its super block's list; both inside the sleeping locks.

use crate::{Dentry, Inode, OpenFile, Path, SuperBlock, class};
use abi::{Errno, Result, raw::general as g};
use collections::OrdMap;
use kalloc::{KArc, KVec};
use sync::{
    Once, SpinLock,
    atomic::{
        AtomicBool, AtomicU32, AtomicU64,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
    rcu,
};

/// Something that happened.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// IN_* bits; IN_ISDIR beside them when it happened to a directory.
    pub mask: u32,
    /// What in the marked directory it happened to; None: the marked file itself.
    pub name: Option<&'a [u8]>,
    /// Ties the two halves of a rename together; else 0.
    pub cookie: u32,
    /// It happened through a name that is gone.
    pub unlinked: bool,
}

/// Wants to know what happens to an inode.
pub trait Watcher: Send + Sync {
    /// Something that the mark asks for. May not sleep. False: this was the last event that the
    /// mark is for, it ends.
    fn event(&self, event: &Event<'_>) -> bool;
    /// The mark ended, and not because its owner removed it. May not sleep.
    fn ended(&self);
    /// Who owns the mark: at most one mark of an owner is on an inode.
    fn owner(&self) -> usize;
    /// What the owner calls it.
    fn id(&self) -> i32;
}

/// A watcher on an inode.
pub struct Mark {
    /// The inode.
    pub inode: KArc<Inode>,
    /// Who is told.
    pub watcher: KArc<dyn Watcher>,
    mask: AtomicU32,
    over: AtomicBool,
}

/// The marks of an inode.
pub(crate) struct Marks {
    /// What any of them asks for.
    mask: AtomicU32,
    list: Once<KArc<List>>,
}

struct List(SpinLock<KVec<KArc<Mark>>>);

/// The marked inodes of a super block.
pub(crate) struct Marked {
    count: AtomicU32,
    /// By address: a generated file may have several inodes of one number at a time.
    inodes: SpinLock<OrdMap<usize, KArc<Inode>>>,
}

fn key(inode: &Inode) -> usize {
    core::ptr::from_ref(inode).addr()
}

impl Marked {
    pub(crate) const fn new() -> Self {
        Self { count: AtomicU32::new(0), inodes: SpinLock::new(OrdMap::new(), &class::MARKED) }
    }
    #[inline]
    fn is_any(&self) -> bool {
        self.count.load(Relaxed) != 0
    }
}

impl Mark {
    /// Puts a mark on an inode. ENOENT: the file is gone; EEXIST: its owner has one there; ENOMEM.
    pub fn add(inode: &KArc<Inode>, watcher: KArc<dyn Watcher>, mask: u32) -> Result<KArc<Self>> {
        let list = inode.marks.list.try_call_once(|| KArc::try_new(List(SpinLock::new(KVec::new(), &class::MARKS))))?;
        let mark = KArc::try_new(Self { inode: inode.clone(), watcher, mask: AtomicU32::new(mask), over: AtomicBool::new(false) })?;
        let node = OrdMap::<usize, KArc<Inode>>::reserve_node()?;
        // The list is there before the file is found to live: `inode_gone` looks the other way round.
        fence(SeqCst);
        let mut marks = list.0.lock();
        if inode.is_gone() {
            return Err(Errno::ENOENT);
        }
        if marks.iter().any(|m| m.watcher.owner() == mark.watcher.owner()) {
            return Err(Errno::EEXIST);
        }
        marks.try_push(mark.clone())?;
        inode.marks.sum_up(&marks);
        inode.sb.marked.count.fetch_add(1, Relaxed);
        if marks.len() == 1 {
            let before = inode.sb.marked.inodes.lock().insert_reserved(node, key(inode), inode.clone());
            debug_assert!(before.is_none());
        }
        Ok(mark)
    }

    /// The mark of `owner` on an inode.
    pub fn find(inode: &Inode, owner: usize) -> Option<KArc<Self>> {
        inode.marks.list.get()?.0.lock().iter().find(|m| m.watcher.owner() == owner).cloned()
    }

    /// What it asks for.
    pub fn mask(&self) -> u32 {
        self.mask.load(Relaxed)
    }

    /// Changes what it asks for.
    pub fn set_mask(&self, mask: u32) {
        let Some(list) = self.inode.marks.list.get() else { return };
        let marks = list.0.lock();
        self.mask.store(mask, Relaxed);
        self.inode.marks.sum_up(&marks);
    }

    /// Takes it off. False: it has ended already.
    pub fn remove(&self) -> bool {
        let Some(list) = self.inode.marks.list.get() else { return false };
        let mut marks = list.0.lock();
        let Some(at) = marks.iter().position(|m| core::ptr::eq(&**m, self)) else { return false };
        let (mark, inode) = self.inode.take_mark(&mut marks, at);
        drop(marks);
        drop((mark, inode));
        true
    }
}

impl Inode {
    /// Takes the mark at a place out; what comes back is dropped without a lock held.
    fn take_mark(&self, marks: &mut KVec<KArc<Mark>>, at: usize) -> (Option<KArc<Mark>>, Option<KArc<Inode>>) {
        let mark = marks.remove(at);
        self.marks.sum_up(marks);
        self.sb.marked.count.fetch_sub(1, Relaxed);
        let inode = if marks.is_empty() { self.sb.marked.inodes.lock().remove(&key(self)) } else { None };
        (mark, inode)
    }
}

impl Marks {
    pub(crate) const fn new() -> Self {
        Self { mask: AtomicU32::new(0), list: Once::new() }
    }

    fn sum_up(&self, marks: &[KArc<Mark>]) {
        self.mask.store(marks.iter().fold(0, |sum, m| sum | m.mask()), Relaxed);
    }

    #[inline]
    fn wants(&self, mask: u32) -> bool {
        self.mask.load(Relaxed) & mask & g::IN_ALL_EVENTS != 0
    }
}

/// Tells the marks of `inode` that ask for it.
fn send(inode: &Inode, event: &Event<'_>) {
    if inode.marks.wants(event.mask) {
        send_to(inode, event, |m| m.mask() & event.mask & g::IN_ALL_EVENTS != 0);
    }
}

fn send_to(inode: &Inode, event: &Event<'_>, wanted: impl Fn(&Mark) -> bool) {
    let Some(list) = inode.marks.list.get() else { return };
    let mut over = false;
    {
        let marks = list.0.lock();
        for m in marks.iter().filter(|m| wanted(m)) {
            if !m.watcher.event(event) {
                m.over.store(true, Relaxed);
                over = true;
            }
        }
    }
    if over {
        end(inode, list, |m| m.over.load(Relaxed));
    }
}

/// Ends marks.
fn end(inode: &Inode, list: &List, which: impl Fn(&Mark) -> bool) {
    loop {
        let mut marks = list.0.lock();
        let Some(at) = marks.iter().position(|m| which(m)) else { return };
        let (mark, kept) = inode.take_mark(&mut marks, at);
        drop(marks);
        if let Some(m) = &mark {
            m.watcher.ended();
        }
        drop((mark, kept));
    }
}

/// Something happened to the file of an open file.
#[inline]
pub fn on_file(f: &OpenFile, mask: u32) {
    if f.inode.sb.marked.is_any() {
        on_dentry(&f.path.dentry, &f.inode, mask);
    }
}

/// Something happened to the file at a place.
#[inline]
pub fn on_path(path: &Path, mask: u32) {
    if let Some(inode) = path.dentry.inode()
        && inode.sb.marked.is_any()
    {
        on_dentry(&path.dentry, inode, mask);
    }
}

/// Tells first who watches the directory, with the name, then who watches the file.
#[cold]
fn on_dentry(dentry: &Dentry, inode: &Inode, mask: u32) {
    let mask = if inode.is_dir() { mask | g::IN_ISDIR } else { mask };
    let unlinked = dentry.is_deleted();
    {
        let guard = rcu::read_lock();
        if let Some(place) = dentry.place.load(&guard)
            && let Some(dir) = place.parent.as_ref().and_then(|p| p.inode())
        {
            send(dir, &Event { mask, name: Some(place.name.as_bytes()), cookie: 0, unlinked });
        }
    }
    send(inode, &Event { mask, name: None, cookie: 0, unlinked });
}

/// Something happened to the inode, whatever its names are.
#[inline]
pub(crate) fn on_inode(inode: &Inode, mask: u32) {
    if inode.sb.marked.is_any() {
        let mask = if inode.is_dir() { mask | g::IN_ISDIR } else { mask };
        send(inode, &Event { mask, name: None, cookie: 0, unlinked: false });
    }
}

/// An entry of a directory came or went.
#[inline]
pub(crate) fn on_entry(dir: &Inode, mask: u32, name: &[u8], is_dir: bool) {
    if dir.sb.marked.is_any() {
        let mask = if is_dir { mask | g::IN_ISDIR } else { mask };
        send(dir, &Event { mask, name: Some(name), cookie: 0, unlinked: false });
    }
}

/// `inode` was moved. What it replaced has a name less then.
pub(crate) fn on_move(inode: &Inode, from: (&Inode, &[u8]), to: (&Inode, &[u8]), replaced: Option<&Inode>) {
    static COOKIE: AtomicU64 = AtomicU64::new(1);
    if !inode.sb.marked.is_any() {
        return;
    }
    let cookie = COOKIE.fetch_add(1, Relaxed) as u32;
    let kind = if inode.is_dir() { g::IN_ISDIR } else { 0 };
    let half = |dir: &Inode, name, mask| send(dir, &Event { mask: mask | kind, name: Some(name), cookie, unlinked: false });
    half(from.0, from.1, g::IN_MOVED_FROM);
    half(to.0, to.1, g::IN_MOVED_TO);
    if let Some(r) = replaced {
        on_inode(r, g::IN_ATTRIB);
    }
    send(inode, &Event { mask: g::IN_MOVE_SELF | kind, name: None, cookie: 0, unlinked: false });
}

/// The last name and the last open file are gone.
pub(crate) fn inode_gone(inode: &Inode) {
    fence(SeqCst);
    if let Some(list) = inode.marks.list.get() {
        send(inode, &Event { mask: g::IN_DELETE_SELF, name: None, cookie: 0, unlinked: true });
        end(inode, list, |_| true);
    }
}

/// The last mount of the file system is gone.
pub(crate) fn unmounted(sb: &SuperBlock) {
    while sb.marked.is_any() {
        let Some(inode) = sb.marked.inodes.lock().first().map(|(_, i)| i.clone()) else { return };
        let Some(list) = inode.marks.list.get() else { return };
        let event = Event { mask: g::IN_UNMOUNT, name: None, cookie: 0, unlinked: false };
        send_to(&inode, &event, |_| true);
        end(&inode, list, |_| true);
    }
}
