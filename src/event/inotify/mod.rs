//! Watching files and directories (`inotify(7)`).
//!
//! An instance is a file with a queue of events; a watch is a mark on an inode (`vfs::notify`) that
//! puts what it is told into the queue. `queue.rs` has the events.
//!
//! # Invariants
//! - A watch is in `watches` from its first event to its IN_IGNORED; its number is not given to
//!   another before all others were.
//! - Who takes the mark off its inode, or is told that it ended, queues IN_IGNORED: exactly one does.
//! - Changes of the set of watches by calls hold `lock`; the end of a file does not.

mod queue;

use abi::{Errno, Result, UserAddr, raw::general as g, raw::ioctl};
use arch::user::UserPtr;
use collections::OrdMap;
use core::{any::Any, fmt};
use kalloc::{KArc, KWeak, kbox_dyn};
use queue::Queue;
use sched::{Mutex, Outcome, Sleep, WaitQueue};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU32, Ordering::Relaxed},
};
use vfs::{
    Credentials, FileOps, Inode, IoSink, OpenFile, PollEvents, PollTable, anon,
    notify::{Event, Mark, Watcher},
    quota::{Charge, Quota},
    sysctl::{self, Number},
};

static LOCK: LockClass = LockClass::new("inotify", 61);
static WATCHES: LockClass = LockClass::new("inotify.watches", 1147);
static QUEUE: LockClass = LockClass::new("inotify.queue", 1242);

static MAX_QUEUED: Number = Number::new(16384, 0, i32::MAX as i64);
static MAX_INSTANCES: Number = Number::new(128, 0, i32::MAX as i64);
static MAX_WATCHES: Number = Number::new(8192, 0, i32::MAX as i64);
static INSTANCES: Quota = Quota::new();
static WATCH_COUNT: Quota = Quota::new();

/// Bytes that a watch is taken to cost, its inode included.
const WATCH_COST: u64 = 1280;
/// What a program may ask for beside events.
const OPTIONS: u32 =
    g::IN_ONLYDIR | g::IN_DONT_FOLLOW | g::IN_EXCL_UNLINK | g::IN_MASK_CREATE | g::IN_MASK_ADD | g::IN_ISDIR | g::IN_ONESHOT;
/// What the kernel tells without being asked.
const TOLD: u32 = g::IN_UNMOUNT | g::IN_Q_OVERFLOW | g::IN_IGNORED;
/// Options of a watch that stay with it.
const KEPT: u32 = g::IN_EXCL_UNLINK | g::IN_ONESHOT;

/// An instance.
struct Instance {
    me: KWeak<Instance>,
    lock: Mutex<()>,
    watches: SpinLock<Watches>,
    queue: SpinLock<Queue>,
    readers: WaitQueue,
    _charge: Charge,
}

struct Watches {
    map: OrdMap<i32, Entry>,
    next: i32,
}

#[derive(Clone)]
struct Entry {
    watch: KArc<Watch>,
    mark: KArc<Mark>,
}

/// A watch.
struct Watch {
    instance: KWeak<Instance>,
    owner: usize,
    wd: i32,
    options: AtomicU32,
    _charge: Charge,
}

impl Watcher for Watch {
    fn event(&self, event: &Event<'_>) -> bool {
        let options = self.options.load(Relaxed);
        if options & g::IN_EXCL_UNLINK != 0 && event.unlinked {
            return true;
        }
        let Some(instance) = self.instance.upgrade() else { return true };
        // inotify never said that it was a directory that went or was moved.
        let hidden = if event.mask & (g::IN_MOVE_SELF | g::IN_DELETE_SELF) != 0 { g::IN_ISDIR } else { 0 };
        instance.tell(self.wd, event.mask & !hidden, event.cookie, event.name.unwrap_or(&[]));
        options & g::IN_ONESHOT == 0
    }
    fn ended(&self) {
        if let Some(instance) = self.instance.upgrade() {
            instance.forget(self.wd);
        }
    }
    fn owner(&self) -> usize {
        self.owner
    }
    fn id(&self) -> i32 {
        self.wd
    }
}

impl Instance {
    /// Queues an event and wakes readers.
    fn tell(&self, wd: i32, mask: u32, cookie: u32, name: &[u8]) {
        if self.queue.lock().push(wd, mask, cookie, name) {
            self.readers.wake_all_key(PollEvents::READABLE.bits());
        }
    }

    /// A watch has ended: the last that is heard of its number.
    fn forget(&self, wd: i32) {
        self.tell(wd, g::IN_IGNORED, 0, &[]);
        let gone = self.watches.lock().map.remove(&wd);
        drop(gone);
    }

    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>) -> Result<usize> {
        let mut done = 0;
        loop {
            let next = self.queue.lock().pop(dst.remaining());
            match next {
                Ok(Some(event)) => match event.write(dst) {
                    Ok(n) => done += n,
                    Err(e) => return Err(e),
                },
                Ok(None) if done > 0 => return Ok(done),
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e),
                Ok(None) if f.is_nonblocking() => return Err(Errno::EAGAIN),
                Ok(None) => {
                    let ready = || (!self.queue.lock().is_empty()).then_some(());
                    match self.readers.wait_until(Sleep::Interruptible, None, ready) {
                        Outcome::Ready(()) => {}
                        _ => return Err(Errno::ERESTARTSYS),
                    }
                }
            }
        }
    }

    /// A watch on `inode`, new or changed; its number.
    fn add(&self, inode: &KArc<Inode>, mask: u32, cred: &Credentials) -> Result<i32> {
        let events = mask & g::IN_ALL_EVENTS;
        let _lock = self.lock.lock();
        let owner = core::ptr::from_ref(self).addr();
        let known = Mark::find(inode, owner);
        let entry = known.and_then(|mark| self.watches.lock().map.get(&mark.watcher.id()).cloned());
        if let Some(Entry { watch, mark }) = entry {
            if mask & g::IN_MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            let adds = mask & g::IN_MASK_ADD != 0;
            let kept = if adds { watch.options.load(Relaxed) } else { 0 };
            watch.options.store(kept | mask & KEPT, Relaxed);
            mark.set_mask(if adds { mark.mask() | events } else { events });
            return Ok(watch.wd);
        }
        let charge = WATCH_COUNT.charge(cred.euid, MAX_WATCHES.get().unsigned_abs(), Errno::ENOSPC)?;
        let node = OrdMap::<i32, Entry>::reserve_node()?;
        let wd = self.watches.lock().number().ok_or(Errno::ENOSPC)?;
        let watch = KArc::try_new(Watch {
            instance: self.me.clone(),
            owner,
            wd,
            options: AtomicU32::new(mask & KEPT),
            _charge: charge,
        })?;
        let watcher = kalloc::karc_as!(watch.clone() => dyn Watcher);
        let mark = Mark::add(inode, watcher, events)?;
        let mut watches = self.watches.lock();
        watches.map.insert_reserved(node, wd, Entry { watch, mark: mark.clone() });
        drop(watches);
        if Mark::find(inode, owner).is_none() {
            // It ended before it was in the table.
            let gone = self.watches.lock().map.remove(&wd);
            drop(gone);
        }
        Ok(wd)
    }

    fn remove(&self, wd: i32) -> Result {
        let _lock = self.lock.lock();
        let entry = self.watches.lock().map.get(&wd).cloned().ok_or(Errno::EINVAL)?;
        if entry.mark.remove() {
            self.forget(wd);
        }
        Ok(())
    }
}

impl Watches {
    /// The next number that no watch has.
    fn number(&mut self) -> Option<i32> {
        for _ in 0..=self.map.len() {
            let wd = self.next;
            self.next = wd.checked_add(1).unwrap_or(1);
            if !self.map.contains_key(&wd) {
                return Some(wd);
            }
        }
        None
    }
}

struct InotifyFile(KArc<Instance>);

impl FileOps for InotifyFile {
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        self.0.read(f, dst)
    }
    fn can_seek(&self) -> bool {
        false
    }
    fn ignores_seek(&self) -> bool {
        true
    }
    fn can_poll(&self) -> bool {
        true
    }
    fn poll(&self, _f: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.register(&self.0.readers);
        if self.0.queue.lock().is_empty() { PollEvents::empty() } else { PollEvents::READABLE }
    }
    fn ioctl(&self, _f: &OpenFile, cmd: u32, arg: u64) -> Result<u64> {
        if cmd != ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let n = self.0.queue.lock().bytes();
        UserPtr::<i32>::new(UserAddr(arg)).write(i32::try_from(n).unwrap_or(i32::MAX))?;
        Ok(0)
    }
    fn fdinfo(&self, _f: &OpenFile, out: &mut dyn fmt::Write) -> fmt::Result {
        let mut next = Some(0);
        while let Some(from) = next {
            let entry = self.0.watches.lock().map.lower_bound(&from).map(|(_, e)| e.clone());
            let Some(Entry { watch, mark }) = entry else { break };
            let (inode, dev) = (&mark.inode, mark.inode.sb.dev);
            let mask = mark.mask() | watch.options.load(Relaxed);
            let dev = dev.major << 20 | dev.minor;
            writeln!(out, "inotify wd:{:x} ino:{:x} sdev:{dev:x} mask:{mask:x} ignored_mask:0 ", watch.wd, inode.ino)?;
            next = watch.wd.checked_add(1);
        }
        Ok(())
    }
    fn release(&self, _f: &OpenFile) {
        loop {
            let first = self.0.watches.lock().map.pop_first();
            let Some((_, entry)) = first else { break };
            entry.mark.remove();
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `inotify_init1(2)`. EINVAL: unknown flags; EMFILE: the user has too many; ENOMEM.
pub fn create(flags: u32, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
    if flags & !(g::IN_CLOEXEC | g::IN_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let charge = INSTANCES.charge(cred.euid, MAX_INSTANCES.get().unsigned_abs(), Errno::EMFILE)?;
    let queue = Queue::new(MAX_QUEUED.get().unsigned_abs())?;
    let instance = KArc::try_new_cyclic(|me| Instance {
        me: me.clone(),
        lock: Mutex::new((), &LOCK),
        watches: SpinLock::new(Watches { map: OrdMap::new(), next: 1 }, &WATCHES),
        queue: SpinLock::new(queue, &QUEUE),
        readers: WaitQueue::new(),
        _charge: charge,
    })?;
    let ops = kbox_dyn!(InotifyFile(instance) => dyn FileOps)?;
    anon::file("anon_inode:inotify", ops, g::O_RDONLY | flags & g::IN_NONBLOCK, cred)
}

fn instance(f: &OpenFile) -> Result<&Instance> {
    f.ops_as::<InotifyFile>().map(|i| &*i.0).ok_or(Errno::EINVAL)
}

/// The part of `inotify_add_watch(2)` that needs no file: EINVAL for a mask without a known bit or with
/// an unknown one.
pub fn check_mask(mask: u32) -> Result {
    let known = g::IN_ALL_EVENTS | OPTIONS | TOLD;
    if mask & !known != 0 || mask & known == 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

/// Whether `f` is an instance and the mask's options go together. EINVAL.
pub fn check_instance(f: &OpenFile, mask: u32) -> Result {
    if mask & g::IN_MASK_ADD != 0 && mask & g::IN_MASK_CREATE != 0 {
        return Err(Errno::EINVAL);
    }
    instance(f).map(|_| ())
}

/// `inotify_add_watch(2)` on what was found; the watch's number. EEXIST (IN_MASK_CREATE), ENOSPC, ENOMEM.
pub fn add_watch(f: &OpenFile, inode: &KArc<Inode>, mask: u32, cred: &Credentials) -> Result<i32> {
    instance(f)?.add(inode, mask, cred)
}

/// `inotify_rm_watch(2)`. EINVAL: no instance, or no such watch.
pub fn remove_watch(f: &OpenFile, wd: i32) -> Result {
    instance(f)?.remove(wd)
}

/// Registers the files of /proc/sys/fs/inotify.
pub(crate) fn init() -> Result {
    // A hundredth of memory for watches, within limits.
    let memory = frames::stats().total as u64 / 100 * abi::PAGE_SIZE as u64;
    MAX_WATCHES.set((memory / WATCH_COST).clamp(8192, 1 << 20) as i64)?;
    sysctl::add_number("sys/fs/inotify/max_queued_events", &MAX_QUEUED)?;
    sysctl::add_number("sys/fs/inotify/max_user_instances", &MAX_INSTANCES)?;
    sysctl::add_number("sys/fs/inotify/max_user_watches", &MAX_WATCHES)
}
