//! From a path to a place in the tree (`path_resolution(7)`).
//!
//! [`lookup`] first tries `fast`: a walk under RCU that counts and locks nothing until it has
//! arrived, and gives up at anything unusual (a name that the cache does not know, a symlink, a
//! refused permission, a rename on the way). The [`Walk`] then does the whole path again with
//! counted references, asks file systems, follows symlinks and knows the errors.
//!
//! May sleep (directory locks, file systems).

use crate::{
    Credentials, Dentry, FsContext, Inode, Link, Mount, MountRef, Path, dcache,
    dentry::D_MOUNTED,
    inode::{I_DEAD, I_HOOKED},
    mount,
    permission::{self, MAY_EXEC},
};
use abi::{Errno, Result, raw::general as g};
use kalloc::{KArc, KBytes};
use sync::rcu;

/// Symbolic links that one walk follows at most (path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// Longest name of a file.
pub const NAME_MAX: usize = g::NAME_MAX as usize;
/// Longest path with its NUL.
pub const PATH_MAX: usize = g::PATH_MAX as usize;

/// Where and on whose behalf paths are resolved.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    /// Root, working directory and umask.
    pub fs: &'a FsContext,
    /// Who asks.
    pub cred: &'a KArc<Credentials>,
}

bitflags::bitflags! {
    /// How [`lookup`] treats the path.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct LookupFlags: u32 {
        /// Follow a symbolic link that is the last name.
        const FOLLOW = 1;
        /// The result must be a directory (ENOTDIR).
        const DIRECTORY = 2;
        /// An empty path means the starting place itself (AT_EMPTY_PATH).
        const EMPTY = 4;
    }
}

impl LookupFlags {
    /// From AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH, for calls that follow by default.
    pub fn from_at(at: u32) -> Self {
        let mut f = Self::empty();
        f.set(Self::FOLLOW, at & g::AT_SYMLINK_NOFOLLOW == 0);
        f.set(Self::EMPTY, at & g::AT_EMPTY_PATH != 0);
        f
    }
}

/// The place that `name` leads to, starting at `at` (None: the working directory) when it is
/// relative. ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG, ENOMEM.
pub fn lookup(cx: &Lookup<'_>, at: Option<&Path>, name: &[u8], flags: LookupFlags) -> Result<Path> {
    if name.is_empty() {
        return if flags.contains(LookupFlags::EMPTY) {
            Ok(at.cloned().unwrap_or_else(|| cx.fs.cwd()))
        } else {
            Err(Errno::ENOENT)
        };
    }
    if name.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if let Some(answer) = fast(cx, at, name, flags) {
        return answer;
    }
    Walk::new(cx, at, name).whole(flags)
}

/// The walk without counts and locks. None: something is unusual, walk slowly.
fn fast(cx: &Lookup<'_>, at: Option<&Path>, name: &[u8], flags: LookupFlags) -> Option<Result<Path>> {
    let renames = dcache::rename_seq()?;
    let tree = mount::tree_seq();
    let roots = cx.fs.roots.read();
    let guard = rcu::read_lock();
    let start = match (name.first(), at) {
        (Some(b'/'), _) => &roots.root,
        (_, Some(at)) => at,
        _ => &roots.cwd,
    };
    let mut mount: &KArc<Mount> = start.mount.mount();
    let mut dentry: &Dentry = &start.dentry;
    let mut rest = name;
    let mut trailing = false;
    loop {
        let skip = rest.iter().position(|&b| b != b'/').unwrap_or(rest.len());
        trailing |= skip > 0;
        rest = rest.get(skip..)?;
        if rest.is_empty() {
            break;
        }
        trailing = false;
        let end = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
        let (part, after) = rest.split_at_checked(end)?;
        rest = after;
        let dir = dentry.inode()?;
        let mode = dir.mode();
        if !mode.is_dir() || dir.has_flag(I_HOOKED) || part.len() > NAME_MAX {
            return None;
        }
        if !permission::mode_allows(dir, mode.0, MAY_EXEC, cx.cred) && permission::generic(dir, MAY_EXEC, cx.cred).is_err() {
            return None;
        }
        match part {
            b"." => continue,
            b".." => {
                if dentry.id == roots.root.dentry.id || dentry.id == mount.root.id {
                    return None;
                }
                dentry = dentry.place.load(&guard)?.parent.as_deref()?;
            }
            _ => dentry = dcache::lookup_rcu(&guard, dentry, part)?,
        }
        while dentry.has(D_MOUNTED) {
            let Some(m) = mount::find_rcu(&guard, mount.id, dentry.id) else { break };
            mount = m;
            dentry = &m.root;
        }
        let Some(inode) = dentry.inode() else {
            // The name is known to be missing.
            let sure = dcache::rename_unchanged(renames) && mount::tree_seq() == tree;
            return sure.then_some(Err(Errno::ENOENT));
        };
        let last = rest.iter().all(|&b| b == b'/');
        if inode.mode().is_symlink() && (!last || !rest.is_empty() || flags.contains(LookupFlags::FOLLOW)) {
            return None;
        }
    }
    let inode = dentry.inode()?;
    if (trailing || flags.contains(LookupFlags::DIRECTORY)) && !inode.is_dir() {
        return None;
    }
    let found = Path { dentry: dentry.handle()?, mount: MountRef::new(mount) };
    if dcache::rename_unchanged(renames) && mount::tree_seq() == tree {
        found.dentry.mark_used();
        return Some(Ok(found));
    }
    // Counts must not go under the guards: the last of one may free much.
    drop((guard, roots));
    drop(found);
    None
}

/// What kind of name a path ends in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Last {
    /// A name.
    Name,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// None at all: "/".
    Root,
}

/// Text that is being walked: the caller's, or one that a symlink led to.
enum Text<'a> {
    Given(&'a [u8]),
    Linked(KBytes),
}

/// A walk with counted references.
pub(crate) struct Walk<'a> {
    cx: &'a Lookup<'a>,
    root: Path,
    /// Where the walk stands.
    pub(crate) at: Path,
    text: Text<'a>,
    /// How far the text is done.
    pos: usize,
    links: u32,
    /// The last name, as found by `parent`: its range in the text.
    last: (usize, usize),
    /// Whether slashes follow the last name.
    pub(crate) trailing: bool,
}

impl<'a> Walk<'a> {
    /// A walk of `name`, not empty and shorter than PATH_MAX.
    pub(crate) fn new(cx: &'a Lookup<'a>, at: Option<&Path>, name: &'a [u8]) -> Self {
        let root = cx.fs.root();
        let at = match (name.first(), at) {
            (Some(b'/'), _) => root.clone(),
            (_, Some(at)) => at.clone(),
            _ => cx.fs.cwd(),
        };
        Self { cx, root, at, text: Text::Given(name), pos: 0, links: 0, last: (0, 0), trailing: false }
    }

    fn text(&self) -> &[u8] {
        match &self.text {
            Text::Given(t) => t,
            Text::Linked(t) => t.as_slice(),
        }
    }

    /// The name that `parent` stopped before.
    pub(crate) fn last_name(&self) -> &[u8] {
        self.text().get(self.last.0..self.last.1).unwrap_or(&[])
    }

    /// Walks to the end.
    pub(crate) fn whole(mut self, flags: LookupFlags) -> Result<Path> {
        loop {
            match self.parent()? {
                Last::Root => {}
                Last::Dot => {}
                Last::DotDot => self.up(),
                Last::Name => {
                    let child = self.child()?;
                    let inode = child.inode()?;
                    if inode.mode().is_symlink() && (self.trailing || flags.contains(LookupFlags::FOLLOW)) {
                        self.follow(child)?;
                        continue;
                    }
                    self.at = child;
                }
            }
            if (self.trailing || flags.contains(LookupFlags::DIRECTORY)) && !self.at.inode()?.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            return Ok(self.at);
        }
    }

    /// Walks to the directory of the last name (`at`), checks that it may be searched, and says
    /// what the last name is. After [`follow`](Self::follow) it goes on from there.
    pub(crate) fn parent(&mut self) -> Result<Last> {
        loop {
            let text = self.text();
            let skipped = text.get(self.pos..).map_or(0, |t| t.iter().take_while(|&&b| b == b'/').count());
            let start = self.pos + skipped;
            let tail = text.get(start..).unwrap_or(&[]);
            if tail.is_empty() {
                self.last = (start, start);
                // A path of nothing but slashes, or a magic link at the end.
                return Ok(Last::Root);
            }
            let len = tail.iter().position(|&b| b == b'/').unwrap_or(tail.len());
            let end = start + len;
            let slashes = tail.get(len..).map_or(0, |t| t.iter().take_while(|&&b| b == b'/').count());
            let is_last = tail.len() == len + slashes;
            let kind = match tail.get(..len) {
                Some(b".") => Last::Dot,
                Some(b"..") => Last::DotDot,
                _ => Last::Name,
            };
            let dir = self.at.inode()?;
            if !dir.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            permission::check(dir, MAY_EXEC, self.cx.cred)?;
            if len > NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            self.last = (start, end);
            self.pos = end + slashes;
            self.trailing = is_last && slashes > 0;
            if is_last {
                return Ok(kind);
            }
            match kind {
                Last::Dot | Last::Root => {}
                Last::DotDot => self.up(),
                Last::Name => {
                    let child = self.child()?;
                    if child.inode()?.mode().is_symlink() {
                        self.follow(child)?;
                    } else {
                        self.at = child;
                    }
                }
            }
        }
    }

    /// What the last name stands for: across mounts, symlinks not followed; its dentry may be
    /// negative.
    pub(crate) fn child(&self) -> Result<Path> {
        let name = self.last_name();
        let dentry = child_of(&self.at, name)?;
        Ok(mount::traverse(Path { mount: self.at.mount.clone(), dentry }))
    }

    /// Goes on with where the symbolic link leads. ELOOP.
    pub(crate) fn follow(&mut self, link: Path) -> Result {
        self.links += 1;
        if self.links > MAX_LINKS || link.mount.flags() & g::MS_NOSYMFOLLOW != 0 {
            return Err(Errno::ELOOP);
        }
        let inode = link.inode()?;
        if !link.mount.is_read_only() && link.mount.flags() & g::MS_NOATIME == 0 {
            inode.touch_accessed(link.mount.flags() & g::MS_RELATIME == 0);
        }
        match inode.ops.get_link(inode, self.cx.cred)? {
            Link::Jump(to) => self.at = to,
            Link::Text(mut text) => {
                match text.first() {
                    None => return Err(Errno::ENOENT),
                    Some(b'/') => self.at = self.root.clone(),
                    Some(_) => {}
                }
                let rest = self.text().get(self.pos..).unwrap_or(&[]);
                if self.trailing || !rest.is_empty() {
                    text.try_push(b'/')?;
                    text.try_extend_from_slice(rest)?;
                }
                self.text = Text::Linked(text);
                self.pos = 0;
                self.trailing = false;
            }
        }
        Ok(())
    }

    /// `..`: stays at the root, leaves a mount through its mount point.
    pub(crate) fn up(&mut self) {
        let mut at = self.at.clone();
        loop {
            if at.same(&self.root) {
                break;
            }
            if !KArc::ptr_eq(&at.dentry, &at.mount.root) {
                if let Some(parent) = at.dentry.parent() {
                    at.dentry = parent;
                }
                break;
            }
            match at.mount.point() {
                Some(p) => at = p,
                None => break,
            }
        }
        self.at = mount::traverse(at);
    }
}

/// The dentry of `name` in the directory at `dir`, negative if there is no such file.
fn child_of(dir: &Path, name: &[u8]) -> Result<KArc<Dentry>> {
    if let Some(d) = dcache::lookup(&dir.dentry, name) {
        return Ok(d);
    }
    let inode = dir.inode()?;
    let _lock = inode.lock.read();
    child_locked(&dir.dentry, inode, name)
}

/// The same with the directory's lock held.
pub(crate) fn child_locked(dir: &KArc<Dentry>, inode: &KArc<Inode>, name: &[u8]) -> Result<KArc<Dentry>> {
    if let Some(d) = dcache::lookup(dir, name) {
        return Ok(d);
    }
    if inode.has_flag(I_DEAD) {
        return Err(Errno::ENOENT);
    }
    let found = inode.ops.lookup(inode, name)?;
    let keep = match &found {
        Some(i) => i.ops.cacheable(),
        None => inode.ops.caches_absence(),
    };
    let d = Dentry::new_child(dir, name, found)?;
    Ok(if keep { dcache::add(d, dir, name) } else { d })
}
