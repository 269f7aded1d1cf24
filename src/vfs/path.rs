//! Where a process stands: a dentry in a mount, the text of its path, root and working directory.

use crate::{Credentials, Dentry, Inode, MountRef, class, dcache};
use abi::{Errno, Result};
use kalloc::{AllocError, KArc, KBytes};
use sync::{
    RwSpinLock,
    atomic::{AtomicU32, Ordering::Relaxed},
    rcu,
};

/// A place in the tree: a name within a mount.
#[derive(Clone)]
pub struct Path {
    /// The mount.
    pub mount: MountRef,
    /// The name.
    pub dentry: KArc<Dentry>,
}

impl Path {
    /// The same mount and the same name.
    pub fn same(&self, other: &Self) -> bool {
        MountRef::ptr_eq(&self.mount, &other.mount) && KArc::ptr_eq(&self.dentry, &other.dentry)
    }

    /// The file. ENOENT when there is none of this name.
    pub fn inode(&self) -> Result<&KArc<Inode>> {
        self.dentry.positive()
    }

    /// Whether this is the root of its mount.
    pub fn is_mount_root(&self) -> bool {
        KArc::ptr_eq(&self.dentry, &self.mount.root)
    }
}

impl core::fmt::Debug for Path {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Path({}, {:?})", self.mount.id, self.dentry)
    }
}

/// The absolute path of `path` as seen from `root`: [`PathText`] says how it is to be read.
///
/// The text is of one moment: a rename on the way makes it start over.
pub fn d_path(path: &Path, root: &Path) -> Result<PathText> {
    // Renames are rare and short; a few attempts see one undisturbed.
    for _ in 0..64 {
        let Some(seq) = dcache::rename_seq() else {
            core::hint::spin_loop();
            continue;
        };
        let text = build(path, root)?;
        if dcache::rename_unchanged(seq) {
            return Ok(text);
        }
    }
    build(path, root)
}

/// What [`d_path`] gives.
pub struct PathText {
    /// The path, without a NUL.
    pub text: KBytes,
    /// Whether it starts at the given root; otherwise the path is outside of it (getcwd(2):
    /// "(unreachable)").
    pub reachable: bool,
    /// Whether the file has no name any more.
    pub deleted: bool,
}

impl PathText {
    /// As /proc/PID/fd and maps show it: " (deleted)" behind what has no name any more.
    pub fn decorated(mut self) -> Result<KBytes> {
        if self.deleted {
            self.text.try_extend_from_slice(b" (deleted)")?;
        }
        Ok(self.text)
    }
}

fn build(path: &Path, root: &Path) -> Result<PathText> {
    // Collected from the last name to the first, each reversed; turned round at the end.
    let mut back = KBytes::new();
    let deleted = path.dentry.is_deleted();
    let mut dentry = path.dentry.clone();
    let mut mount = path.mount.clone();
    let mut reachable = true;
    if mount.is_internal() {
        let text = dentry.name()?;
        return Ok(PathText { text, reachable, deleted });
    }
    loop {
        if KArc::ptr_eq(&dentry, &root.dentry) && MountRef::ptr_eq(&mount, &root.mount) {
            break;
        }
        if KArc::ptr_eq(&dentry, &mount.root) {
            match mount.point() {
                Some(p) => {
                    (mount, dentry) = (p.mount, p.dentry);
                    continue;
                }
                None => {
                    reachable = root.mount.same_namespace_root(&mount);
                    break;
                }
            }
        }
        let parent = {
            let g = rcu::read_lock();
            let Some(place) = dentry.place.load(&g) else { break };
            let Some(parent) = place.parent.clone() else {
                reachable = false;
                break;
            };
            for &b in place.name.as_bytes().iter().rev() {
                back.try_push(b)?;
            }
            parent
        };
        back.try_push(b'/')?;
        dentry = parent;
    }
    if back.is_empty() {
        back.try_push(b'/')?;
    }
    back.reverse();
    Ok(PathText { text: back, reachable, deleted })
}

/// Root and working directory.
#[derive(Clone)]
pub struct Roots {
    /// Where absolute paths start, and `..` ends.
    pub root: Path,
    /// Where relative paths start.
    pub cwd: Path,
}

/// What a process shares by CLONE_FS: root, working directory, umask.
pub struct FsContext {
    pub(crate) roots: RwSpinLock<Roots>,
    umask: AtomicU32,
    /// Threads whose context it is; others may hold it for a look.
    users: AtomicU32,
}

impl FsContext {
    /// How many threads have it as theirs.
    pub fn users(&self) -> u32 {
        self.users.load(Relaxed)
    }
    /// A thread takes it.
    pub fn enter(&self) {
        self.users.fetch_add(1, Relaxed);
    }
    /// A thread gives it up.
    pub fn leave(&self) {
        self.users.fetch_sub(1, Relaxed);
    }
    /// A context that stands at `root`.
    pub fn new(root: Path, umask: u32) -> core::result::Result<KArc<Self>, AllocError> {
        let cwd = root.clone();
        KArc::try_new(Self {
            roots: RwSpinLock::new(Roots { root, cwd }, &class::FS_CONTEXT),
            umask: AtomicU32::new(umask & 0o777),
            users: AtomicU32::new(0),
        })
    }

    /// A context of its own with the same contents (fork without CLONE_FS).
    pub fn copy(&self) -> core::result::Result<KArc<Self>, AllocError> {
        let Roots { root, cwd } = self.roots();
        KArc::try_new(Self {
            roots: RwSpinLock::new(Roots { root, cwd }, &class::FS_CONTEXT),
            umask: AtomicU32::new(self.umask()),
            users: AtomicU32::new(0),
        })
    }

    /// Both directories.
    pub fn roots(&self) -> Roots {
        self.roots.read().clone()
    }
    /// The root directory.
    pub fn root(&self) -> Path {
        self.roots.read().root.clone()
    }
    /// The working directory.
    pub fn cwd(&self) -> Path {
        self.roots.read().cwd.clone()
    }
    /// Changes the working directory.
    pub fn set_cwd(&self, p: Path) {
        let old = core::mem::replace(&mut self.roots.write().cwd, p);
        drop(old);
    }
    /// Changes the root directory.
    pub fn set_root(&self, p: Path) {
        let old = core::mem::replace(&mut self.roots.write().root, p);
        drop(old);
    }
    /// Replaces `old` by `new` where it is root or working directory (pivot_root(2)).
    pub fn replace(&self, old: &Path, new: &Path) {
        let (root, cwd) = {
            let mut r = self.roots.write();
            let root = r.root.same(old).then(|| core::mem::replace(&mut r.root, new.clone()));
            let cwd = r.cwd.same(old).then(|| core::mem::replace(&mut r.cwd, new.clone()));
            (root, cwd)
        };
        drop((root, cwd));
    }
    /// The mask of permission bits that new files do not get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Relaxed)
    }
    /// Sets the mask; returns the former one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Relaxed)
    }
}

/// Checks and makes the working directory (`chdir(2)`).
pub fn chdir(fs: &FsContext, cred: &Credentials, to: Path) -> Result {
    let inode = to.inode()?;
    if !inode.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    crate::permission::check(inode, crate::permission::MAY_EXEC, cred)?;
    fs.set_cwd(to);
    Ok(())
}

/// Checks and makes the root directory (`chroot(2)`).
pub fn chroot(fs: &FsContext, cred: &Credentials, to: Path) -> Result {
    let inode = to.inode()?;
    if !inode.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    crate::permission::check(inode, crate::permission::MAY_EXEC, cred)?;
    if !cred.capable(crate::Cap::SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    fs.set_root(to);
    Ok(())
}

/// The working directory as text with a NUL, as `getcwd(2)` puts it. ENOENT when it was removed.
pub fn getcwd(fs: &FsContext) -> Result<KBytes> {
    let Roots { root, cwd } = fs.roots();
    if cwd.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let p = d_path(&cwd, &root)?;
    let mut text = KBytes::new();
    if !p.reachable {
        text.try_extend_from_slice(b"(unreachable)")?;
    }
    text.try_extend_from_slice(p.text.as_slice())?;
    text.try_push(0)?;
    Ok(text)
}
