//! Waiting for events of many files (`epoll(7)`).
//!
//! An epoll is a set of items, each a file with the descriptor by which it was added. An item
//! hangs a callback on the wait queues of its file; the callback puts the item on the ready list
//! and wakes. `epoll_wait` takes items from that list, asks each file what is possible now, and
//! reports; a level-triggered item goes back to the end of the list, where the next wait asks
//! again, an edge-triggered one waits for its next callback, a one-shot one until it is modified.
//!
//! - `mod.rs`: the file, creation, waiting. `item.rs`: an item's life. `nest.rs`: epolls that
//!   watch epolls, and how many of them one change may reach.
//!
//! # Invariants
//! - An item is on the ready list at most once; who takes it off reports it. Taking off happens
//!   before the file is asked, so a change after the answer puts it on again.
//! - Delivery and changes of an epoll's items hold `lock`, so that two waiters never report one
//!   edge twice and a one-shot item once only.
//! - An item ends by EPOLL_CTL_DEL, by the close of its file or by that of the epoll, whichever
//!   takes it out of `items`.

mod item;
mod nest;
#[cfg(test)]
mod tests;

use abi::{Errno, Nanos, Result, UserAddr, raw::general as g};
use arch::user::UserPtr;
use collections::{ArcList, OrdMap};
use core::{any::Any, fmt};
use item::{Item, Key, ReadyLink};
use kalloc::{KArc, KWeak, kbox_dyn};
use sched::{Mutex, Outcome, Sleep, WaitQueue, Wake};
use sync::{
    LockClass, Number, SpinLock,
    atomic::{
        AtomicU32,
        Ordering::{Acquire, Release},
    },
};
use vfs::{Credentials, FileOps, OpenFile, PollEvents, PollTable, anon};

pub use nest::MAX_NESTING;

static LOCK: LockClass = LockClass::new("epoll", 60);
static ITEMS: LockClass = LockClass::new("epoll_items", 1062);
static READY: LockClass = LockClass::new("epoll_ready", 1595);

/// Flags of an item that are no events.
const PRIVATE: u32 = g::EPOLLWAKEUP | g::EPOLLONESHOT | g::EPOLLET | g::EPOLLEXCLUSIVE;
/// What may go with EPOLLEXCLUSIVE (epoll_ctl(2)).
const EXCLUSIVE_OK: u32 =
    g::EPOLLIN | g::EPOLLOUT | g::EPOLLERR | g::EPOLLHUP | g::EPOLLWAKEUP | g::EPOLLET | g::EPOLLEXCLUSIVE;
/// `maxevents` of one wait at most.
const MAX_EVENTS: usize = i32::MAX as usize / size_of::<Event>();

/// `struct epoll_event` as arm64 has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// EPOLL* bits.
    pub events: u32,
    /// The program's.
    pub data: u64,
}

impl Event {
    /// From the two words in memory.
    pub fn from_words(words: [u64; 2]) -> Self {
        let [events, data] = words;
        Self { events: events as u32, data }
    }
    fn to_words(self) -> [u64; 2] {
        [self.events.into(), self.data]
    }
}

struct Items {
    all: OrdMap<Key, KArc<Item>>,
    /// Those that are epolls themselves.
    nested: OrdMap<Key, KWeak<Epoll>>,
}

/// An epoll.
pub(crate) struct Epoll {
    /// One delivery or change at a time.
    lock: Mutex<()>,
    items: SpinLock<Items>,
    ready: SpinLock<ArcList<ReadyLink>>,
    /// Length of `ready`, for who waits.
    ready_count: AtomicU32,
    /// Threads in epoll_wait.
    waiters: WaitQueue,
    /// Who polls the epoll itself.
    pollers: WaitQueue,
    nest: nest::Node,
}

impl Epoll {
    fn try_new() -> Result<KArc<Self>> {
        Ok(KArc::try_new(Self {
            lock: Mutex::new((), &LOCK),
            items: SpinLock::new(Items { all: OrdMap::new(), nested: OrdMap::new() }, &ITEMS),
            ready: SpinLock::new(ArcList::new(), &READY),
            ready_count: AtomicU32::new(0),
            waiters: WaitQueue::new(),
            pollers: WaitQueue::new(),
            nest: nest::Node::new(),
        })?)
    }

    /// Puts an item on the ready list unless it is there. Any context.
    fn push(&self, item: KArc<Item>, front: bool) {
        let mut list = self.ready.lock_irq();
        let refused = if front { list.push_front(item) } else { list.push_back(item) };
        self.ready_count.store(list.len() as u32, Release);
        drop(list);
        // It was there already: never the last handle, since the list has one.
        drop(refused);
    }

    fn pop(&self) -> Option<KArc<Item>> {
        let mut list = self.ready.lock_irq();
        let item = list.pop_front();
        self.ready_count.store(list.len() as u32, Release);
        item
    }

    fn forget_ready(&self, item: &Item) {
        let mut list = self.ready.lock_irq();
        let removed = list.remove(item);
        self.ready_count.store(list.len() as u32, Release);
        drop(list);
        drop(removed);
    }

    fn has_ready(&self) -> bool {
        self.ready_count.load(Acquire) != 0
    }

    /// Tells who waits here that the ready list is not empty; whether a thread waited.
    fn announce(&self, wake: Wake) -> bool {
        let waits = self.waiters.has_waiters();
        self.waiters.wake_one();
        self.pollers.wake_nested(wake, PollEvents::READABLE.bits());
        waits
    }

    /// Reports ready items to `out`, at most `max`. 0 when none of them had anything after all.
    fn deliver(&self, max: usize, mut out: impl FnMut(usize, Event) -> Result) -> Result<usize> {
        let lock = self.lock.lock();
        let mut done = 0;
        let mut failed = None;
        // What comes back to the list meanwhile waits for the next round.
        for _ in 0..self.ready_count.load(Acquire) {
            if done == max {
                break;
            }
            let Some(item) = self.pop() else { break };
            let Some(file) = item.file() else { continue };
            let events = item.events();
            let has = item.look(&file, events, 1);
            if has.is_empty() {
                continue;
            }
            if let Err(e) = out(done, Event { events: has.bits(), data: item.data() }) {
                self.push(item, true);
                failed = Some(e);
                break;
            }
            done += 1;
            if events & g::EPOLLONESHOT != 0 {
                item.disable();
            } else if events & g::EPOLLET == 0 {
                self.push(item, false);
            }
        }
        drop(lock);
        // Others who wait may have what we left.
        if self.has_ready() {
            self.waiters.wake_one();
        }
        match failed {
            Some(e) if done == 0 => Err(e),
            _ => Ok(done),
        }
    }

    /// Whether an item of the ready list has something; those that have not leave the list.
    fn poll_ready(&self, depth: u8) -> bool {
        let _lock = self.lock.lock_nested(depth);
        for _ in 0..self.ready_count.load(Acquire) {
            let Some(item) = self.pop() else { break };
            let Some(file) = item.file() else { continue };
            if !item.look(&file, item.events(), depth.saturating_add(1)).is_empty() {
                self.push(item, true);
                return true;
            }
        }
        false
    }
}

/// The open file of an epoll.
struct EpollFile(KArc<Epoll>);

impl FileOps for EpollFile {
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
        table.register(&self.0.pollers);
        if self.0.has_ready() && self.0.poll_ready(table.depth()) { PollEvents::READABLE } else { PollEvents::empty() }
    }
    fn fdinfo(&self, _f: &OpenFile, out: &mut dyn fmt::Write) -> fmt::Result {
        let mut after = None;
        while let Some(item) = self.0.next_item(after) {
            after = Some(item.key());
            let Some(file) = item.file() else { continue };
            let (events, data, dev) = (item.events(), item.data(), file.inode.sb.dev);
            writeln!(
                out,
                "tfd: {:8} events: {events:8x} data: {data:16x}  pos:{} ino:{:x} sdev:{:x}",
                item.key().fd,
                file.position(),
                file.inode.ino,
                dev.major << 20 | dev.minor,
            )?;
        }
        Ok(())
    }
    fn release(&self, _f: &OpenFile) {
        while let Some(item) = self.0.next_item(None) {
            item.end();
        }
        // An item whose file was closed while it was being reported came back to the list.
        while self.0.pop().is_some() {}
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Epoll {
    /// The first item behind `after`.
    fn next_item(&self, after: Option<Key>) -> Option<KArc<Item>> {
        let items = self.items.lock();
        let from = match after {
            None => items.all.first(),
            Some(key) => items.all.lower_bound(&key.next()?),
        };
        from.map(|(_, item)| item.clone())
    }
}

fn epoll(f: &OpenFile) -> Result<&KArc<Epoll>> {
    Ok(&f.ops_as::<EpollFile>().ok_or(Errno::EINVAL)?.0)
}

/// `epoll_create1(2)`. EINVAL for flags but EPOLL_CLOEXEC, which is the descriptor's.
pub fn create(flags: u32, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
    if flags & !g::EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let file = EpollFile(Epoll::try_new()?);
    anon::file("anon_inode:[eventpoll]", kbox_dyn!(file => dyn FileOps)?, g::O_RDWR, cred)
}

/// `epoll_ctl(2)`: `fd` is the descriptor by which `target` is known. Errors as there, in Linux's
/// order.
pub fn control(f: &OpenFile, op: u32, fd: u32, target: &KArc<OpenFile>, event: Event) -> Result {
    if !target.ops.can_poll() {
        return Err(Errno::EPERM);
    }
    let ep = epoll(f)?;
    if f.serial() == target.serial() {
        return Err(Errno::EINVAL);
    }
    let mut event = event;
    let exclusive = event.events & g::EPOLLEXCLUSIVE != 0;
    if op != g::EPOLL_CTL_DEL && exclusive {
        let bad = op == g::EPOLL_CTL_ADD && (epoll(target).is_ok() || event.events & !EXCLUSIVE_OK != 0);
        if op == g::EPOLL_CTL_MOD || bad {
            return Err(Errno::EINVAL);
        }
    }
    // Both are reported whether or not they were asked for.
    event.events |= g::EPOLLERR | g::EPOLLHUP;
    // Linnet does not suspend: nothing has to be kept awake.
    event.events &= !g::EPOLLWAKEUP;
    let key = Key { file: target.serial(), fd };
    match op {
        g::EPOLL_CTL_ADD => {
            let inner = epoll(target).ok();
            let mut nests = inner.is_some() || ep.nest.is_watched();
            loop {
                let nesting = nests.then(nest::lock);
                if let (Some(nesting), Some(inner)) = (&nesting, inner) {
                    nest::check_rows(nesting, ep, inner)?;
                }
                let _lock = ep.lock.lock();
                if Item::add(ep, key, target, event, inner, nesting.as_ref(), &f.cred)? {
                    return Ok(());
                }
                nests = true;
            }
        }
        g::EPOLL_CTL_DEL => {
            let _lock = ep.lock.lock();
            ep.find(key).ok_or(Errno::ENOENT)?.end();
            Ok(())
        }
        g::EPOLL_CTL_MOD => {
            let _lock = ep.lock.lock();
            let item = ep.find(key).ok_or(Errno::ENOENT)?;
            if item.events() & g::EPOLLEXCLUSIVE != 0 {
                return Err(Errno::EINVAL);
            }
            item.modify(event, target);
            Ok(())
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `epoll_wait(2)`: up to `max` events to `out`, waiting until `deadline` (monotonic; zero: not at
/// all; None: for ever). EINVAL for other files or a `max` out of range; EFAULT; EINTR.
pub fn wait(f: &OpenFile, out: UserAddr, max: i32, deadline: Option<Nanos>) -> Result<usize> {
    let ep = epoll(f)?;
    let max = usize::try_from(max).map_err(|_| Errno::EINVAL)?;
    let write = |i: usize, event: Event| {
        UserPtr::<[u64; 2]>::new(out.add((i * size_of::<Event>()) as u64)).write(event.to_words())
    };
    loop {
        if ep.has_ready() {
            let n = ep.deliver(max, write)?;
            if n > 0 {
                return Ok(n);
            }
        }
        if deadline == Some(Nanos::ZERO) {
            return Ok(0);
        }
        match ep.waiters.wait_exclusive(Sleep::Interruptible, deadline, || ep.has_ready().then_some(())) {
            Outcome::Ready(()) => {}
            Outcome::Interrupted => return Err(Errno::EINTR),
            Outcome::TimedOut => return Ok(0),
        }
    }
}

/// What epoll_wait looks at before its descriptor. EINVAL for a `max` out of range; EFAULT when
/// the array is outside of user space.
pub fn check_wait(out: UserAddr, max: i32) -> Result {
    let max = usize::try_from(max).ok().filter(|n| (1..=MAX_EVENTS).contains(n)).ok_or(Errno::EINVAL)?;
    if out.range_ok((max * size_of::<Event>()) as u64) { Ok(()) } else { Err(Errno::EFAULT) }
}

/// How many watches each user may have (/proc/sys/fs/epoll/max_user_watches).
static MAX_WATCHES: Number = Number::new(0, 0, i64::MAX);

pub(crate) fn init() -> Result {
    // A 25th of memory (Linux: 4% of low memory), at the size of an item with its entries.
    let bytes = frames::stats().total as u64 * abi::PAGE_SIZE as u64;
    MAX_WATCHES.set((bytes / 25 / item::COST) as i64)?;
    vfs::sysctl::add_number("sys/fs/epoll/max_user_watches", &MAX_WATCHES)
}
