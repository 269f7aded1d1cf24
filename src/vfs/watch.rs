//! Who wants to know when an open file is closed for good, without keeping it open: epoll, which
//! forgets a file then (`epoll(7)`, "Will closing a file descriptor cause it to be removed").

use crate::{OpenFile, class};
use abi::Result;
use collections::{ArcList, Link};
use core::any::Any;
use kalloc::{KArc, KVec};
use sync::{Once, SpinLock};

/// Told when the last descriptor of a file is gone.
pub trait FileWatcher: Send + Sync {
    /// The file is being closed; its address is not another's yet. May sleep.
    fn file_closed(&self);
    /// Itself, for who knows what kinds there are.
    fn as_any(&self) -> &dyn Any;
}

struct Entry {
    link: Link,
    watcher: KArc<dyn FileWatcher>,
}

collections::link_field!(EntryLink: Entry => link);

struct List(SpinLock<ArcList<EntryLink>>);

/// The watchers of a file; made with the first one.
pub(crate) struct Watchers(Once<KArc<List>>);

/// A watcher that is told until this is dropped.
pub struct FileWatch {
    list: KArc<List>,
    entry: KArc<Entry>,
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        let removed = self.list.0.lock().remove(&self.entry);
        drop(removed);
    }
}

impl Watchers {
    pub(crate) const fn new() -> Self {
        Self(Once::new())
    }

    /// Tells everybody.
    #[inline]
    pub(crate) fn closed(&self) {
        if let Some(list) = self.0.get() {
            loop {
                let Some(first) = list.0.lock().pop_front() else { break };
                first.watcher.file_closed();
            }
        }
    }
}

impl OpenFile {
    /// Tells `watcher` when this file is closed for good, until the result is dropped. ENOMEM.
    pub fn watch(&self, watcher: KArc<dyn FileWatcher>) -> Result<FileWatch> {
        let entry = KArc::try_new(Entry { link: Link::new(), watcher })?;
        let new = || KArc::try_new(List(SpinLock::new(ArcList::new(), &class::WATCHERS)));
        let list = self.watchers.0.try_call_once(new)?.clone();
        // A new entry is on no list.
        let _ = list.0.lock().push_back(entry.clone());
        Ok(FileWatch { list, entry })
    }

    /// Those who watch the file. ENOMEM.
    pub fn watchers(&self) -> Result<KVec<KArc<dyn FileWatcher>>> {
        let mut all = KVec::new();
        let Some(list) = self.watchers.0.get() else { return Ok(all) };
        loop {
            let len = list.0.lock().len();
            all.try_reserve(len)?;
            let list = list.0.lock();
            if list.len() <= len {
                for entry in &*list {
                    let _ = all.push_within_capacity(entry.watcher.clone());
                }
                return Ok(all);
            }
        }
    }
}
