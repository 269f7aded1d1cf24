//! Who has which name: the abstract names of a namespace, and all its sockets for /proc/net/unix.
//!
//! A name in a file system is an inode of type socket that knows its socket; see `connect.rs`.

use super::Unix;
use crate::socket::Name;
use abi::{Errno, Result};
use collections::OrdMap;
use kalloc::{KArc, KBytes, KWeak};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

static NAMES: LockClass = LockClass::new("unix_names", 1205);
static SOCKETS: LockClass = LockClass::new("unix_sockets", 1204);

/// An abstract name belongs to one type of socket.
pub(super) type Key = (u32, KBytes);

/// The names and sockets of a namespace.
pub(crate) struct Names {
    abstract_names: SpinLock<OrdMap<Key, KWeak<Unix>>>,
    sockets: SpinLock<OrdMap<u64, KWeak<Unix>>>,
    next_id: AtomicU64,
    /// Where the search for a free name starts.
    next_auto: AtomicU32,
}

impl Names {
    pub(crate) fn new() -> Self {
        Self {
            abstract_names: SpinLock::new(OrdMap::new(), &NAMES),
            sockets: SpinLock::new(OrdMap::new(), &SOCKETS),
            next_id: AtomicU64::new(1),
            next_auto: AtomicU32::new(0),
        }
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    /// A new socket. ENOMEM.
    pub(super) fn enter(&self, id: u64, s: &KArc<Unix>) -> Result {
        let node = OrdMap::reserve_node()?;
        self.sockets.lock().insert_reserved(node, id, KArc::downgrade(s));
        Ok(())
    }

    /// A socket less.
    pub(super) fn leave(&self, id: u64) {
        let node = self.sockets.lock().remove_node(&id);
        drop(node);
    }

    /// The first socket behind number `after`.
    pub(super) fn next_socket(&self, mut after: u64) -> Option<(u64, KArc<Unix>)> {
        loop {
            let (id, weak) = {
                let sockets = self.sockets.lock();
                let (id, weak) = sockets.lower_bound(&after.checked_add(1)?)?;
                (*id, weak.clone())
            };
            match weak.upgrade() {
                Some(s) => return Some((id, s)),
                None => after = id,
            }
        }
    }

    /// Gives an abstract name; the result is for [`forget`](Self::forget). EADDRINUSE; ENOMEM.
    pub(super) fn claim(&self, s: &KArc<Unix>, name: &Name) -> Result<Key> {
        let key = (s.common.kind, KBytes::try_from_slice(name.as_bytes())?);
        let for_caller = (s.common.kind, KBytes::try_from_slice(name.as_bytes())?);
        let node = OrdMap::reserve_node()?;
        let mut names = self.abstract_names.lock();
        if names.get(&key).is_some() {
            return Err(Errno::EADDRINUSE);
        }
        names.insert_reserved(node, key, KArc::downgrade(s));
        Ok(for_caller)
    }

    /// Frees an abstract name, which the socket has under the key that it was given by.
    pub(super) fn forget(&self, key: &Key) {
        let node = self.abstract_names.lock().remove_node(key);
        drop(node);
    }

    /// Who has an abstract name. ECONNREFUSED.
    pub(super) fn find(&self, kind: u32, name: &[u8]) -> Result<KArc<Unix>> {
        let key = (kind, KBytes::try_from_slice(name)?);
        let names = self.abstract_names.lock();
        names.get(&key).and_then(KWeak::upgrade).ok_or(Errno::ECONNREFUSED)
    }

    /// The next name to try for a socket that is bound without one.
    pub(super) fn next_auto(&self) -> u32 {
        self.next_auto.fetch_add(1, Relaxed) & 0xf_ffff
    }
}
