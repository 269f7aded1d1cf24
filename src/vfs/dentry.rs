//! A name in the tree: the dentry, where it hangs, and the text of its path.
//!
//! A dentry knows its parent and name (its *place*, replaced whole by a rename) and its inode,
//! which is set once: a dentry without one is *negative* and remembers that the name is missing.
//! Removing a file takes its dentry out of the cache for good; who still uses it keeps the inode
//! and shows as "(deleted)". A later file of the same name gets another dentry.
//!
//! Readers follow places and inodes under RCU, without a lock or a count.

use crate::{Inode, dcache};
use abi::{Errno, Result};
use kalloc::{KArc, KBytes, KWeak, RcuArc};
use sync::{
    Once,
    atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release},
    rcu,
};

/// Something is mounted here in some namespace.
pub(crate) const D_MOUNTED: u32 = 1;
/// The dentry is not (any more) reachable through the cache.
pub(crate) const D_UNHASHED: u32 = 2;
/// The shrinker is about to drop it: a fast reader must leave it alone.
pub(crate) const D_DYING: u32 = 4;
/// Used since the shrinker last came by.
pub(crate) const D_REFERENCED: u32 = 8;
/// The file was removed.
pub(crate) const D_DELETED: u32 = 16;

/// A file's name.
pub(crate) enum Name {
    Short { len: u8, bytes: [u8; Self::SHORT] },
    Long(KBytes),
}

impl Name {
    const SHORT: usize = 39;

    pub(crate) fn new(name: &[u8]) -> Result<Self> {
        let mut bytes = [0; Self::SHORT];
        match bytes.get_mut(..name.len()) {
            Some(to) => {
                to.copy_from_slice(name);
                Ok(Self::Short { len: name.len() as u8, bytes })
            }
            None => Ok(Self::Long(KBytes::try_from_slice(name)?)),
        }
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or(&[]),
            Self::Long(v) => v.as_slice(),
        }
    }
}

/// Where a dentry hangs.
pub(crate) struct Place {
    /// None: the root of a file system, or a nameless file.
    pub(crate) parent: Option<KArc<Dentry>>,
    pub(crate) name: Name,
}

/// A name in the tree.
pub struct Dentry {
    /// Unique serial number: what the cache and the mount table compare.
    pub(crate) id: u64,
    /// The super block's serial number.
    pub(crate) sb: u64,
    this: KWeak<Self>,
    /// Hash of parent and name.
    pub(crate) tag: AtomicU64,
    pub(crate) place: RcuArc<Place>,
    inode: Once<KArc<Inode>>,
    flags: AtomicU32,
    /// Next in the cache's bucket.
    pub(crate) next: RcuArc<Dentry>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Dentry {
    fn build(sb: u64, place: Place, tag: u64, inode: Option<KArc<Inode>>) -> Result<KArc<Self>> {
        let place = KArc::try_new(place)?;
        Ok(KArc::try_new_cyclic(|this| Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            sb,
            this: this.clone(),
            tag: AtomicU64::new(tag),
            place: RcuArc::new(Some(place)),
            inode: match inode {
                Some(i) => Once::initialized(i),
                None => Once::new(),
            },
            flags: AtomicU32::new(D_UNHASHED),
            next: RcuArc::new(None),
        })?)
    }

    /// The root of a file system.
    pub(crate) fn new_root(sb: u64, inode: KArc<Inode>) -> Result<KArc<Self>> {
        Self::build(sb, Place { parent: None, name: Name::new(b"/")? }, 0, Some(inode))
    }

    /// A dentry outside every tree, for pipes and the like: `name` is what readlink of
    /// /proc/PID/fd shows.
    pub(crate) fn new_detached(name: &[u8], inode: KArc<Inode>) -> Result<KArc<Self>> {
        Self::build(0, Place { parent: None, name: Name::new(name)? }, 0, Some(inode))
    }

    /// A child of `parent`, not in the cache yet.
    pub(crate) fn new_child(parent: &KArc<Self>, name: &[u8], inode: Option<KArc<Inode>>) -> Result<KArc<Self>> {
        let tag = dcache::hash(parent.id, name);
        Self::build(parent.sb, Place { parent: Some(parent.clone()), name: Name::new(name)? }, tag, inode)
    }

    /// The inode; None for a negative dentry.
    #[inline]
    pub fn inode(&self) -> Option<&KArc<Inode>> {
        self.inode.get()
    }

    /// The inode. ENOENT for a negative dentry.
    #[inline]
    pub fn positive(&self) -> Result<&KArc<Inode>> {
        self.inode.get().ok_or(Errno::ENOENT)
    }

    /// Gives a negative dentry its file. The directory's lock is held for writing.
    pub(crate) fn instantiate(&self, inode: KArc<Inode>) {
        self.inode.call_once(|| inode);
    }

    #[inline]
    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags.load(Acquire) & flag != 0
    }
    pub(crate) fn set(&self, flag: u32) {
        self.flags.fetch_or(flag, Release);
    }
    pub(crate) fn clear(&self, flag: u32) {
        self.flags.fetch_and(!flag, Release);
    }
    /// Notes a use; writes the shared word only when the note is not there.
    #[inline]
    pub(crate) fn mark_used(&self) {
        if !self.has(D_REFERENCED) {
            self.set(D_REFERENCED);
        }
    }

    /// Whether the file was removed (its path ends in " (deleted)").
    pub fn is_deleted(&self) -> bool {
        self.has(D_DELETED)
    }

    /// A counted handle, unless the dentry is going away.
    pub(crate) fn handle(&self) -> Option<KArc<Self>> {
        self.this.upgrade()
    }

    /// The dentry above; None at the root of the file system.
    pub fn parent(&self) -> Option<KArc<Self>> {
        let g = rcu::read_lock();
        self.place.load(&g)?.parent.clone()
    }

    /// A copy of the name.
    pub fn name(&self) -> Result<KBytes> {
        let g = rcu::read_lock();
        let name = self.place.load(&g).map_or(&[][..], |p| p.name.as_bytes());
        Ok(KBytes::try_from_slice(name)?)
    }

    /// Whether `self` is `other` or stands above it. Renames are excluded by the caller.
    pub(crate) fn is_ancestor_of(&self, other: &KArc<Self>) -> bool {
        let g = rcu::read_lock();
        let mut at: &Self = other;
        loop {
            if at.id == self.id {
                return true;
            }
            match at.place.load(&g).and_then(|p| p.parent.as_deref()) {
                Some(p) => at = p,
                None => return false,
            }
        }
    }
}

impl core::fmt::Debug for Dentry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Dentry({})", self.id)
    }
}
