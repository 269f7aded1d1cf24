//! The entries of a directory: by name for lookups, by cookie for listings.
//!
//! Every entry gets a cookie when it is made, from a counter that never goes back; a listing that
//! stopped at a cookie goes on behind it whatever came and went meanwhile: no entry that stays is
//! left out or shown twice (`readdir(3)`).
//!
//! The directory's inode lock orders changes; the spin lock here only protects the trees for the
//! moment of a step. Nodes are allocated before it is taken, so nothing fails under it.

use abi::Result;
use collections::{OrdMap, OrdNode};
use kalloc::{KArc, KBytes};
use sync::{LockClass, SpinLock};
use vfs::Inode;

static ENTRIES: LockClass = LockClass::new("tmpfs.entries", 1155);

/// First cookie: 0 and 1 are `.` and `..`.
const FIRST: u64 = 2;

struct Entry {
    name: KBytes,
    inode: KArc<Inode>,
}

struct Trees {
    /// (hash of the name, cookie): names with the same hash stand side by side.
    by_name: OrdMap<(u64, u64), ()>,
    by_cookie: OrdMap<u64, Entry>,
    next: u64,
}

/// The entries of a directory.
pub(crate) struct Entries(SpinLock<Trees>);

/// FNV-1a (RFC 9923).
fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

impl Trees {
    fn find(&self, name: &[u8]) -> Option<u64> {
        let h = hash(name);
        self.by_name
            .iter_from(&(h, 0))
            .take_while(|((k, _), ())| *k == h)
            .map(|((_, cookie), ())| *cookie)
            .find(|c| self.by_cookie.get(c).is_some_and(|e| e.name.as_slice() == name))
    }
}

/// Memory for an entry.
pub(crate) struct Slot {
    name: OrdNode<(u64, u64), ()>,
    entry: OrdNode<u64, Entry>,
}

impl Slot {
    pub(crate) fn new(name: &[u8], inode: &KArc<Inode>) -> Result<Self> {
        let entry = Entry { name: KBytes::try_from_slice(name)?, inode: inode.clone() };
        Ok(Self { name: OrdNode::try_new((hash(name), 0), ())?, entry: OrdNode::try_new(0, entry)? })
    }
}

impl Entries {
    pub(crate) fn new() -> Self {
        Self(SpinLock::new(Trees { by_name: OrdMap::new(), by_cookie: OrdMap::new(), next: FIRST }, &ENTRIES))
    }

    pub(crate) fn lookup(&self, name: &[u8]) -> Option<KArc<Inode>> {
        let t = self.0.lock();
        let cookie = t.find(name)?;
        t.by_cookie.get(&cookie).map(|e| e.inode.clone())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().by_cookie.is_empty()
    }

    /// Adds an entry whose name is known to be free.
    pub(crate) fn insert(&self, mut slot: Slot) {
        let mut t = self.0.lock();
        let cookie = t.next;
        t.next += 1;
        slot.name.key_mut().1 = cookie;
        *slot.entry.key_mut() = cookie;
        let old = (t.by_name.insert_node(slot.name), t.by_cookie.insert_node(slot.entry));
        drop(t);
        drop(old);
    }

    /// Removes the entry called `name`.
    pub(crate) fn remove(&self, name: &[u8]) {
        let mut t = self.0.lock();
        let Some(cookie) = t.find(name) else { return };
        let old = (t.by_name.remove_node(&(hash(name), cookie)), t.by_cookie.remove_node(&cookie));
        drop(t);
        // The inode may go with it: not under the spin lock.
        drop(old);
    }

    /// Puts another file under an existing name.
    pub(crate) fn replace(&self, name: &[u8], inode: &KArc<Inode>) {
        let mut t = self.0.lock();
        let Some(cookie) = t.find(name) else { return };
        let old = t.by_cookie.get_mut(&cookie).map(|e| core::mem::replace(&mut e.inode, inode.clone()));
        drop(t);
        drop(old);
    }

    /// The first entry from `cookie` on: copies its name to `name`; returns cookie, length, inode
    /// number and kind of file.
    pub(crate) fn next(&self, cookie: u64, name: &mut [u8; vfs::NAME_MAX]) -> Option<(u64, usize, u64, u8)> {
        let t = self.0.lock();
        let (at, e) = t.by_cookie.lower_bound(&cookie)?;
        name.get_mut(..e.name.len())?.copy_from_slice(e.name.as_slice());
        Some((*at, e.name.len(), e.inode.ino, e.inode.mode().dirent_type()))
    }

    /// Lets go of everything: the file system ends.
    pub(crate) fn take_all(&self) -> impl Iterator<Item = KArc<Inode>> + use<> {
        let mut t = self.0.lock();
        let names = core::mem::take(&mut t.by_name);
        let mut all = core::mem::take(&mut t.by_cookie);
        drop(t);
        drop(names);
        core::iter::from_fn(move || all.pop_first().map(|(_, e)| e.inode))
    }
}
