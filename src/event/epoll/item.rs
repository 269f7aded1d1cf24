//! A watched file: its callbacks, what is asked of it, and its end.

use super::{Epoll, Event, MAX_WATCHES, PRIVATE, nest::{self, Nesting}};
use abi::{Errno, Result, raw::general as g};
use collections::{Link, OrdMap};
use core::any::Any;
use kalloc::{KArc, KVec, KWeak, karc_as};
use sched::{Registration, WaitQueue, Wake, WakeCallback};
use sync::{
    LockClass, SpinLock,
    atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};
use vfs::{
    Credentials, FileWatch, FileWatcher, OpenFile, PollEvents, PollTable,
    quota::{Charge, Quota},
};

static HOOKS: LockClass = LockClass::new("epoll_hooks", 1064);
static WATCHES: Quota = Quota::new();

/// Bytes of an item with its entries on the file's queues and in the tree.
pub(super) const COST: u64 = 320;

/// What identifies an item: the open file and the descriptor by which it was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) file: u64,
    pub(crate) fd: u32,
}

impl Key {
    /// The next possible key.
    pub(super) fn next(self) -> Option<Self> {
        match self.fd.checked_add(1) {
            Some(fd) => Some(Self { fd, ..self }),
            None => Some(Self { file: self.file.checked_add(1)?, fd: 0 }),
        }
    }
}

/// What ties an item to its file; taken when the item ends, since all of it holds the item.
struct Hooks {
    registrations: KVec<Registration>,
    watch: FileWatch,
    _charge: Charge,
}

/// A watched file.
pub(crate) struct Item {
    link: Link,
    me: KWeak<Item>,
    epoll: KArc<Epoll>,
    key: Key,
    file: KWeak<OpenFile>,
    /// The epoll that the file is, if it is one.
    inner: Option<KWeak<Epoll>>,
    events: AtomicU32,
    data: AtomicU64,
    hooks: SpinLock<Option<Hooks>>,
}

collections::link_field!(pub(crate) ReadyLink: Item => link);

impl WakeCallback for Item {
    fn woken(&self, wake: Wake) -> bool {
        let events = self.events.load(Relaxed);
        // A one-shot item that was reported asks for nothing.
        if events & !PRIVATE == 0 || wake.key != 0 && wake.key & events == 0 {
            return false;
        }
        if !self.link.is_linked()
            && let Some(me) = self.me.upgrade()
        {
            self.epoll.push(me, false);
        }
        let waits = self.epoll.announce(wake);
        if events & g::EPOLLEXCLUSIVE == 0 {
            return true;
        }
        // The wake-up is used up when a thread waits here for what became possible.
        let inout = wake.key & (g::EPOLLIN | g::EPOLLOUT);
        waits && (inout == 0 || inout & events != 0)
    }
}

impl FileWatcher for Item {
    fn file_closed(&self) {
        self.end();
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Item {
    /// Adds a file. The epoll's lock is held, and `nesting` if the file or the epoll's watchers are
    /// epolls: false when it turns out to be needed. EEXIST, ENOSPC, EINVAL, ENOMEM.
    pub(super) fn add(ep: &KArc<Epoll>, key: Key, target: &KArc<OpenFile>, event: Event, inner: Option<&KArc<Epoll>>, nesting: Option<&Nesting>, cred: &Credentials) -> Result<bool> {
        if ep.find(key).is_some() {
            return Err(Errno::EEXIST);
        }
        let charge = WATCHES.charge(cred.uid, MAX_WATCHES.get_u64(), Errno::ENOSPC)?;
        let item = KArc::try_new_cyclic(|me| Self {
            link: Link::new(),
            me: me.clone(),
            epoll: ep.clone(),
            key,
            file: KArc::downgrade(target),
            inner: inner.map(KArc::downgrade),
            events: AtomicU32::new(event.events),
            data: AtomicU64::new(event.data),
            hooks: SpinLock::new(None, &HOOKS),
        })?;
        let watch = target.watch(karc_as!(item.clone() => dyn FileWatcher))?;
        let (node, below) = (OrdMap::reserve_node()?, OrdMap::reserve_node()?);
        if let Some(inner) = inner {
            inner.nest.add_parent(&item.parent_key(), ep)?;
        }
        // From here on a failure ends the item as EPOLL_CTL_DEL would.
        *item.hooks.lock() = Some(Hooks { registrations: KVec::new(), watch, _charge: charge });
        {
            let mut items = ep.items.lock();
            if let Some(inner) = inner {
                items.nested.insert_reserved(below, key, KArc::downgrade(inner));
            }
            items.all.insert_reserved(node, key, item.clone());
        }
        // Whoever makes the epoll watched from here on finds the item.
        let done = match nesting {
            Some(nesting) => nest::check_ways(nesting, target, inner),
            None if ep.nest.is_watched() => {
                item.end();
                return Ok(false);
            }
            None => Ok(()),
        };
        match done.and_then(|()| item.register(target, event.events & g::EPOLLEXCLUSIVE != 0)) {
            Err(e) => {
                item.end();
                Err(e)
            }
            Ok(has) => {
                if !has.is_empty() {
                    item.make_ready();
                }
                Ok(true)
            }
        }
    }

    /// The epoll that watches.
    pub(super) fn epoll(&self) -> &KArc<Epoll> {
        &self.epoll
    }
    /// The epoll that is watched, if it is one.
    pub(super) fn inner(&self) -> Option<KArc<Epoll>> {
        self.inner.as_ref().and_then(KWeak::upgrade)
    }

    /// Hangs the item on the file's queues; what the file says then.
    fn register(&self, target: &KArc<OpenFile>, exclusive: bool) -> Result<PollEvents> {
        let me = self.me.upgrade().ok_or(Errno::ENOENT)?;
        let callback = karc_as!(me => dyn WakeCallback);
        let mut registrations = KVec::new();
        let mut failed = None;
        let mut hang = |queue: &WaitQueue| {
            // What is asked for can change: the callback itself looks at the key.
            let done = queue.add_callback(callback.clone(), !0, exclusive).and_then(|r| Ok(registrations.try_push(r)?));
            if let Err(e) = done {
                failed = Some(e);
            }
        };
        let has = target.poll(&mut PollTable::with_inside(1, &mut hang)) & self.wanted(self.events());
        if let Some(e) = failed {
            return Err(e);
        }
        if let Some(hooks) = &mut *self.hooks.lock() {
            core::mem::swap(&mut hooks.registrations, &mut registrations);
        }
        // An item that has ended meanwhile leaves the queues here.
        Ok(has)
    }

    fn wanted(&self, events: u32) -> PollEvents {
        if events & !PRIVATE == 0 { PollEvents::empty() } else { PollEvents::from_bits_retain(events & !PRIVATE) }
    }

    fn make_ready(&self) {
        if let Some(me) = self.me.upgrade() {
            self.epoll.push(me, false);
            self.epoll.announce(Wake::default());
        }
    }

    /// New events and data; the file is asked at once. The epoll's lock is held.
    pub(super) fn modify(&self, event: Event, target: &KArc<OpenFile>) {
        self.data.store(event.data, Relaxed);
        // Release and the full barrier of a wake-up: a change that comes before this is seen by
        // the look below, one after it calls back with the new events.
        self.events.store(event.events, Release);
        sync::atomic::fence(sync::atomic::Ordering::SeqCst);
        if !self.look(target, event.events, 1).is_empty() {
            self.make_ready();
        }
    }

    /// A one-shot item was reported.
    pub(super) fn disable(&self) {
        self.events.store(self.events() & PRIVATE, Release);
    }

    /// Ends the watch, unless somebody else did. May be called from the file's close.
    pub(super) fn end(&self) {
        let taken = {
            let mut items = self.epoll.items.lock();
            let is_me = items.all.get(&self.key).is_some_and(|i| core::ptr::eq(&**i, self));
            let nested = if is_me { items.nested.remove_node(&self.key) } else { None };
            (if is_me { items.all.remove_node(&self.key) } else { None }, nested)
        };
        let hooks = self.hooks.lock().take();
        if let Some(Hooks { registrations, watch, .. }) = hooks {
            drop(registrations);
            drop(watch);
            self.leave_parent();
        }
        self.epoll.forget_ready(self);
        drop(taken);
    }

    fn leave_parent(&self) {
        if let Some(inner) = self.inner() {
            inner.nest.remove_parent(&self.parent_key());
        }
    }

    /// What identifies the item among those that watch one epoll.
    fn parent_key(&self) -> (usize, u32) {
        (KArc::as_ptr(&self.epoll) as usize, self.key.fd)
    }

    /// What of the events asked for the file has, asked at `depth` watching files around it.
    pub(super) fn look(&self, file: &OpenFile, events: u32, depth: u8) -> PollEvents {
        file.poll(&mut PollTable::look_inside(depth)) & self.wanted(events)
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }
    /// The file, unless it has been closed.
    pub(super) fn file(&self) -> Option<KArc<OpenFile>> {
        if self.hooks.lock().is_none() { None } else { self.file.upgrade() }
    }
    pub(super) fn events(&self) -> u32 {
        self.events.load(Acquire)
    }
    pub(super) fn data(&self) -> u64 {
        self.data.load(Relaxed)
    }
}

impl Epoll {
    pub(super) fn find(&self, key: Key) -> Option<KArc<Item>> {
        self.items.lock().all.get(&key).cloned()
    }
}
