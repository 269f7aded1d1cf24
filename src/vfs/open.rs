//! `open(2)`: which flags go together, what is created, who may open, what the descriptor does.
//!
//! Device files and FIFOs are opened by rooms above: they register with [`crate::chardev`] and
//! [`set_fifo_opener`].

use crate::{
    Cap, Credentials, Dentry, FileOps, Inode, LookupFlags, OpenFile, Path, chardev,
    dcache,
    file::Counts,
    inode::I_APPEND,
    mount,
    namei::{self, Last, Lookup, PATH_MAX, Walk, child_locked},
    notify,
    permission::{self, MAY_EXEC, MAY_READ, MAY_WRITE, owner_or_capable},
};
use abi::{Errno, Mode, Result, raw::general as g};
use kalloc::{KArc, KBox};
use sync::Once;

/// What the caller of `open(2)` asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenHow {
    /// O_* flags.
    pub flags: u32,
    /// Permission bits of a file that is created, before the umask.
    pub mode: u32,
}

impl OpenHow {
    /// Opens an existing file.
    pub const fn flags(flags: u32) -> Self {
        Self { flags, mode: 0 }
    }
}

/// O_TMPFILE without the O_DIRECTORY that it includes.
const TMPFILE: u32 = g::__O_TMPFILE;
/// Every flag that `open(2)` has (Linux's VALID_OPEN_FLAGS); `openat2(2)` refuses others.
pub const OPEN_FLAGS: u32 = g::O_ACCMODE
    | g::O_CREAT
    | g::O_EXCL
    | g::O_NOCTTY
    | g::O_TRUNC
    | g::O_APPEND
    | g::O_NONBLOCK
    | g::O_SYNC
    | g::FASYNC
    | g::O_DIRECT
    | g::O_LARGEFILE
    | g::O_DIRECTORY
    | g::O_NOFOLLOW
    | g::O_NOATIME
    | g::O_CLOEXEC
    | g::O_PATH
    | TMPFILE;

/// Opens a FIFO: the room that has pipes registers itself.
pub trait FifoOpener: Send + Sync {
    /// Waits for the other side as `fifo(7)` says. ENXIO, EINTR.
    fn open(&self, inode: &KArc<Inode>, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>>;
}

static FIFO: Once<&'static dyn FifoOpener> = Once::new();

/// Registers who opens FIFOs; once.
pub fn set_fifo_opener(o: &'static dyn FifoOpener) {
    FIFO.call_once(|| o);
}

/// Makes a file in memory that no directory knows: its name to show, and whether seals can be added.
pub type MakeMemoryFile = fn(&[u8], bool, &KArc<Credentials>) -> Result<KArc<OpenFile>>;

static MEMORY_FILES: Once<MakeMemoryFile> = Once::new();

/// Registers who makes files in memory; once.
pub fn set_memory_files(make: MakeMemoryFile) {
    MEMORY_FILES.call_once(|| make);
}

/// A new file in memory without a name (`memfd_create(2)`), open for reading and writing.
pub fn memory_file(name: &[u8], sealable: bool, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
    MEMORY_FILES.get().ok_or(Errno::ENOSYS)?(name, sealable, cred)
}

/// Opens `name`, relative to `at` (None: the working directory).
pub fn open(cx: &Lookup<'_>, at: Option<&Path>, name: &[u8], how: OpenHow) -> Result<KArc<OpenFile>> {
    let file = find_and_open(cx, at, name, how)?;
    if !file.is_path_only() {
        notify::on_file(&file, g::IN_OPEN);
    }
    Ok(file)
}

fn find_and_open(cx: &Lookup<'_>, at: Option<&Path>, name: &[u8], how: OpenHow) -> Result<KArc<OpenFile>> {
    let mut flags = how.flags & OPEN_FLAGS;
    if flags & TMPFILE != 0 {
        if flags & g::O_DIRECTORY == 0 || flags & g::O_CREAT != 0 || flags & g::O_ACCMODE == g::O_RDONLY {
            return Err(Errno::EINVAL);
        }
    } else if flags & (g::O_CREAT | g::O_DIRECTORY) == g::O_CREAT | g::O_DIRECTORY {
        return Err(Errno::EINVAL);
    }
    if flags & g::O_PATH != 0 {
        flags &= g::O_PATH | g::O_DIRECTORY | g::O_NOFOLLOW | g::O_CLOEXEC;
    }
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    if name.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let exclusive = flags & (g::O_CREAT | g::O_EXCL) == g::O_CREAT | g::O_EXCL;
    let follow = flags & g::O_NOFOLLOW == 0 && !exclusive;
    let mut lf = LookupFlags::empty();
    lf.set(LookupFlags::FOLLOW, follow);
    lf.set(LookupFlags::DIRECTORY, flags & g::O_DIRECTORY != 0);

    if flags & g::O_CREAT == 0 {
        let path = namei::lookup(cx, at, name, lf)?;
        if flags & g::O_PATH != 0 {
            return OpenFile::path_only(path, flags, cx.cred);
        }
        if flags & TMPFILE != 0 {
            return open_tmpfile(cx, path, flags, how.mode);
        }
        return open_found(path, flags, cx.cred);
    }
    // The file is usually there already: then the fast walk finds it.
    if !exclusive
        && name.last() != Some(&b'/')
        && let Ok(path) = namei::lookup(cx, at, name, lf)
    {
        return open_existing(path, flags, cx.cred);
    }
    let mut walk = Walk::new(cx, at, name);
    loop {
        let kind = walk.parent()?;
        if kind != Last::Name {
            // A directory in any case.
            return Err(if exclusive { Errno::EEXIST } else { Errno::EISDIR });
        }
        if walk.trailing {
            return Err(Errno::EISDIR);
        }
        let child = match create_or_find(cx, &walk, flags, how.mode)? {
            Found::Opened(f) => return Ok(f),
            Found::There(p) => p,
        };
        if child.inode()?.mode().is_symlink() && follow {
            walk.follow(child)?;
            continue;
        }
        return open_existing(child, flags, cx.cred);
    }
}

enum Found {
    Opened(KArc<OpenFile>),
    There(Path),
}

/// Looks the walk's last name up under the directory's lock and makes the file if it is missing.
fn create_or_find(cx: &Lookup<'_>, walk: &Walk<'_>, flags: u32, mode: u32) -> Result<Found> {
    let name = walk.last_name();
    let dir = walk.at.inode()?;
    let dentry = {
        let _lock = dir.lock.write();
        let dentry = child_locked(&walk.at.dentry, dir, name)?;
        if dentry.inode().is_none() {
            permission::want_write(&walk.at.mount)?;
            permission::may_create(dir, cx.cred)?;
            let mode = Mode(g::S_IFREG | mode & Mode::PERMISSIONS & !cx.fs.umask());
            let inode = dir.ops.create(dir, name, mode, cx.cred)?;
            dentry.instantiate(inode.clone());
            notify::on_entry(dir, g::IN_CREATE, name, false);
            let path = Path { mount: walk.at.mount.clone(), dentry };
            // A file of one's own making opens whatever its mode says.
            let counts = Counts::take(&inode, wants_write(flags))?;
            let ops = inode.ops.open(&inode, flags, cx.cred)?;
            return OpenFile::new(path, ops, flags, cx.cred, counts).map(Found::Opened);
        }
        dentry
    };
    if flags & g::O_EXCL != 0 {
        return Err(Errno::EEXIST);
    }
    Ok(Found::There(mount::traverse(Path { mount: walk.at.mount.clone(), dentry })))
}

/// With O_CREAT a directory that is there cannot be opened.
fn open_existing(path: Path, flags: u32, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
    if path.inode()?.is_dir() {
        return Err(Errno::EISDIR);
    }
    open_found(path, flags, cred)
}

fn wants_write(flags: u32) -> bool {
    matches!(flags & g::O_ACCMODE, g::O_WRONLY | g::O_RDWR)
}

/// Opens the file at `path`: permissions by type, mount and mode, then the file's own open, then
/// truncation.
pub fn open_found(path: Path, flags: u32, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
    let inode = path.inode()?.clone();
    let mode = inode.mode();
    // Access mode 3 asks for both permissions and gives neither (open(2), NOTES).
    let mut mask = match flags & g::O_ACCMODE {
        g::O_RDONLY => MAY_READ,
        g::O_WRONLY => MAY_WRITE,
        _ => MAY_READ | MAY_WRITE,
    };
    let mut truncate = flags & g::O_TRUNC != 0;
    if truncate {
        mask |= MAY_WRITE;
    }
    if mode.is_symlink() {
        return Err(Errno::ELOOP);
    }
    if mode.is_dir() && mask & MAY_WRITE != 0 {
        return Err(Errno::EISDIR);
    }
    let device = mode.is_char_device() || mode.is_block_device();
    if device && path.mount.flags() & g::MS_NODEV != 0 {
        return Err(Errno::EACCES);
    }
    let special = device || mode.is_fifo() || mode.is_socket();
    truncate &= !special;
    if truncate {
        permission::want_write(&path.mount)?;
    }
    permission::check(&inode, mask, cred)?;
    if inode.has_flag(I_APPEND) && (mask & MAY_WRITE != 0 && flags & g::O_APPEND == 0 || truncate) {
        return Err(Errno::EPERM);
    }
    if flags & g::O_NOATIME != 0 && !owner_or_capable(&inode, cred) {
        return Err(Errno::EPERM);
    }
    let writer = wants_write(flags) && !special;
    if writer {
        permission::want_write(&path.mount)?;
    }
    let counts = Counts::take(&inode, writer)?;
    let ops = if mode.is_char_device() {
        chardev::open(&path, flags, cred)?
    } else if mode.is_fifo() {
        FIFO.get().ok_or(Errno::ENXIO)?.open(&inode, flags, cred)?
    } else if mode.is_block_device() || mode.is_socket() {
        return Err(Errno::ENXIO);
    } else {
        inode.ops.open(&inode, flags, cred)?
    };
    let file = OpenFile::new(path, ops, flags, cred, counts)?;
    if truncate {
        let only_trunc = (!writer).then(|| inode.get_write_access()).transpose()?;
        let done = crate::attr::truncate_inode(&inode, cred, 0, u64::MAX);
        if only_trunc.is_some() {
            inode.put_write_access();
        }
        done?;
        notify::on_file(&file, g::IN_MODIFY);
    }
    Ok(file)
}

/// Opens a program for execution: readable for the kernel, executable for the caller, denied to
/// writers while the returned file lives in [`Executable`]. EACCES, ETXTBSY.
pub fn open_exec(cx: &Lookup<'_>, at: Option<&Path>, name: &[u8], flags: LookupFlags) -> Result<Executable> {
    let path = namei::lookup(cx, at, name, flags)?;
    let inode = path.inode()?.clone();
    let mode = inode.mode();
    if mode.is_symlink() {
        return Err(Errno::ELOOP);
    }
    if !mode.is_file() || path.mount.flags() & g::MS_NOEXEC != 0 {
        return Err(Errno::EACCES);
    }
    permission::check(&inode, MAY_EXEC, cx.cred)?;
    let counts = Counts::take(&inode, false)?;
    inode.deny_write()?;
    let denied = Denied(inode.clone());
    let ops = inode.ops.open(&inode, g::O_RDONLY, cx.cred)?;
    let file = OpenFile::new(path, ops, g::O_RDONLY | g::O_LARGEFILE, cx.cred, counts)?;
    notify::on_file(&file, g::IN_OPEN);
    Ok(Executable { file, _denied: denied })
}

/// A program that is open for execution; nobody writes to it while this exists.
pub struct Executable {
    /// The open file.
    pub file: KArc<OpenFile>,
    _denied: Denied,
}

struct Denied(KArc<Inode>);
impl Drop for Denied {
    fn drop(&mut self) {
        self.0.allow_write();
    }
}

fn open_tmpfile(cx: &Lookup<'_>, dir: Path, flags: u32, mode: u32) -> Result<KArc<OpenFile>> {
    let inode = dir.inode()?;
    permission::want_write(&dir.mount)?;
    permission::check(inode, MAY_WRITE | MAY_EXEC, cx.cred)?;
    let mode = Mode(g::S_IFREG | mode & Mode::PERMISSIONS & !cx.fs.umask());
    let file = inode.ops.tmpfile(inode, mode, cx.cred)?;
    if flags & g::O_EXCL == 0 {
        file.set_flag(crate::inode::I_LINKABLE);
    }
    let mut name = kalloc::KString::new();
    core::fmt::write(&mut name, format_args!("#{}", file.ino)).map_err(|_| Errno::ENOMEM)?;
    let dentry = Dentry::new_child(&dir.dentry, name.as_bytes(), Some(file.clone()))?;
    dcache::deleted(&dentry);
    let counts = Counts::take(&file, true)?;
    let ops = file.ops.open(&file, flags, cx.cred)?;
    let flags = flags & !(TMPFILE | g::O_DIRECTORY);
    OpenFile::new(Path { mount: dir.mount.clone(), dentry }, ops, flags, cx.cred, counts)
}

/// Whether `cred` may use `Cap::DAC_READ_SEARCH`, which linkat(AT_EMPTY_PATH) asks for.
pub(crate) fn may_link_by_descriptor(cred: &Credentials) -> bool {
    cred.capable(Cap::DAC_READ_SEARCH)
}
