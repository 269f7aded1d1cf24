//! tmpfs and the VFS together: against the host's own file system, and case by case.

use crate::*;
use proptest::prelude::*;
use std::{
    fs as host,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};
use vfs::{
    Caps, Fd, FdTable, FsContext, Kstat, Lookup, LookupFlags, MountArgs, MountNamespace, OpenHow, Path, SetTime, Time,
};

/// Physical memory for the page cache.
pub(crate) fn memory() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let (start, size) = (abi::PhysAddr(1 << 30), 64 << 20);
        arch::sim::ensure_phys_arena(start, size);
        let bank = frames::PhysRange::new(start, start.add(size as u64));
        frames::init(&[bank], &[]).unwrap();
    });
}

struct World {
    _ns: KArc<MountNamespace>,
    fs: KArc<FsContext>,
    cred: KArc<Credentials>,
    _alone: Option<std::sync::MutexGuard<'static, ()>>,
}

impl World {
    /// One test at a time: they share the kernel's locks of mounting, and a test's thread, which no
    /// scheduler knows, cannot sleep on them.
    fn new() -> Self {
        static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        static ONCE: std::sync::Once = std::sync::Once::new();
        memory();
        ONCE.call_once(|| crate::init().unwrap());
        let sb = new_super("rootfs", 0, Options { mode: Some(0o755), pages: Some(1024), inodes: Some(500), ..Options::default() }).unwrap();
        let (ns, root) = MountNamespace::new(&sb, b"rootfs").unwrap();
        Self { _ns: ns, fs: FsContext::new(root, 0o022).unwrap(), cred: KArc::try_new(Credentials::root()).unwrap(), _alone: Some(alone) }
    }
    fn as_user(&self, uid: u32) -> Self {
        let cred = KArc::try_new(Credentials::user(uid, uid, Caps::default())).unwrap();
        Self { _ns: self._ns.clone(), fs: self.fs.clone(), cred, _alone: None }
    }
    fn cx(&self) -> Lookup<'_> {
        Lookup { fs: &self.fs, cred: &self.cred }
    }
    fn path(&self, p: &str) -> Result<Path> {
        vfs::lookup(&self.cx(), None, p.as_bytes(), LookupFlags::FOLLOW)
    }
    fn lpath(&self, p: &str) -> Result<Path> {
        vfs::lookup(&self.cx(), None, p.as_bytes(), LookupFlags::empty())
    }
    fn stat(&self, p: &str) -> Result<Kstat> {
        vfs::stat(&self.path(p)?)
    }
    fn lstat(&self, p: &str) -> Result<Kstat> {
        vfs::stat(&self.lpath(p)?)
    }
    fn mkdir(&self, p: &str) -> Result {
        vfs::mkdir(&self.cx(), None, p.as_bytes(), 0o777)
    }
    fn rmdir(&self, p: &str) -> Result {
        vfs::rmdir(&self.cx(), None, p.as_bytes())
    }
    fn unlink(&self, p: &str) -> Result {
        vfs::unlink(&self.cx(), None, p.as_bytes())
    }
    fn link(&self, a: &str, b: &str) -> Result {
        vfs::link(&self.cx(), None, a.as_bytes(), None, b.as_bytes(), 0)
    }
    fn symlink(&self, t: &str, p: &str) -> Result {
        vfs::symlink(&self.cx(), t.as_bytes(), None, p.as_bytes())
    }
    fn rename(&self, a: &str, b: &str, flags: u32) -> Result {
        vfs::rename(&self.cx(), None, a.as_bytes(), None, b.as_bytes(), flags)
    }
    fn open(&self, p: &str, flags: u32) -> Result<KArc<OpenFile>> {
        vfs::open(&self.cx(), None, p.as_bytes(), OpenHow { flags, mode: 0o666 })
    }
    fn write(&self, p: &str, data: &[u8]) -> Result<usize> {
        self.open(p, g::O_WRONLY | g::O_CREAT | g::O_TRUNC)?.write(&mut IoSource::kernel(data), u64::MAX)
    }
    fn read(&self, p: &str) -> Result<Vec<u8>> {
        let f = self.open(p, g::O_RDONLY)?;
        read_all(&f)
    }
    fn list(&self, p: &str) -> Result<Vec<String>> {
        let f = self.open(p, g::O_RDONLY | g::O_DIRECTORY)?;
        let mut v = Vec::new();
        f.readdir(&mut |n, _, _, _| {
            v.push(String::from_utf8_lossy(n).into_owned());
            true
        })?;
        v.sort();
        Ok(v)
    }
    fn chmod(&self, p: &str, mode: u32) -> Result {
        vfs::chmod(&self.path(p)?, &self.cred, mode)
    }
    fn mount(&self, p: &str, flags: u32, source: Option<&str>, fstype: Option<&str>, data: &str) -> Result {
        let target = self.path(p)?;
        let from = source.map(|s| self.path(s)).transpose()?;
        let args = MountArgs { source: b"none", fstype: fstype.map(str::as_bytes), flags, data: data.as_bytes() };
        vfs::mount(&self.cred, &args, from, target)
    }
    fn umount(&self, p: &str, flags: u32) -> Result {
        vfs::umount(&self.cred, self.path(p)?, flags)
    }
    fn pwd(&self) -> String {
        let t = vfs::getcwd(&self.fs).unwrap();
        String::from_utf8_lossy(&t[..t.len() - 1]).into_owned()
    }
}

fn read_all(f: &OpenFile) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buf = [0; 1000];
    loop {
        match f.read(&mut IoSink::kernel(&mut buf))? {
            0 => return Ok(all),
            n => all.extend_from_slice(&buf[..n]),
        }
    }
}

fn code<T>(r: Result<T>) -> i32 {
    r.map_or_else(|e| i32::from(e.code()), |_| 0)
}

fn host_code<T>(r: std::io::Result<T>) -> i32 {
    r.map_or_else(|e| e.raw_os_error().unwrap(), |_| 0)
}

#[derive(Clone, Debug)]
enum Op {
    Mkdir(String),
    Rmdir(String),
    Unlink(String),
    Create(String, bool),
    Open(String, bool),
    Rename(String, String),
    Link(String, String),
    Symlink(String, String),
    Stat(String),
    Write(String, usize),
    Truncate(String, u64),
    Readlink(String),
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![6 => "[abc]", 1 => Just(".".to_string()), 1 => Just("..".to_string()), 1 => Just("l".to_string())]
}

/// Relative to the test's root; `..` never leads above it because every path starts with "r/r/r".
fn path() -> impl Strategy<Value = String> {
    (prop::collection::vec(name(), 1..4), prop_oneof![5 => Just(""), 1 => Just("/")], prop_oneof![8 => Just("/"), 1 => Just("//")])
        .prop_map(|(v, end, sep)| format!("r/r/r/{}{end}", v.join(sep)))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => path().prop_map(Op::Mkdir),
        1 => path().prop_map(Op::Rmdir),
        2 => path().prop_map(Op::Unlink),
        3 => (path(), any::<bool>()).prop_map(|(p, x)| Op::Create(p, x)),
        1 => (path(), any::<bool>()).prop_map(|(p, x)| Op::Open(p, x)),
        4 => (path(), path()).prop_map(|(a, b)| Op::Rename(a, b)),
        2 => (path(), path()).prop_map(|(a, b)| Op::Link(a, b)),
        2 => (prop_oneof![name(), Just("a/b".to_string()), Just("../c".to_string()), Just("l".to_string()), Just("b/".to_string())], path()).prop_map(|(a, b)| Op::Symlink(a, b)),
        3 => path().prop_map(Op::Stat),
        1 => (path(), 0usize..9000).prop_map(|(p, n)| Op::Write(p, n)),
        1 => (path(), 0u64..9000).prop_map(|(p, n)| Op::Truncate(p, n)),
        1 => path().prop_map(Op::Readlink),
    ]
}

/// Type, links (of files), size (of files): what must agree after every step.
type Shape = (u32, u64, u64);

fn run_ours(w: &World, op: &Op) -> (i32, Option<Shape>) {
    let shape = |s: Kstat| {
        let kind = s.mode.file_type();
        let sized = kind != g::S_IFDIR;
        (kind, if sized { u64::from(s.nlink) } else { 0 }, if sized { s.size } else { 0 })
    };
    match op {
        Op::Mkdir(p) => (code(w.mkdir(p)), None),
        Op::Rmdir(p) => (code(w.rmdir(p)), None),
        Op::Unlink(p) => (code(w.unlink(p)), None),
        Op::Create(p, excl) => {
            let f = g::O_WRONLY | g::O_CREAT | if *excl { g::O_EXCL } else { 0 };
            (code(w.open(p, f)), None)
        }
        Op::Open(p, dir) => (code(w.open(p, g::O_RDONLY | if *dir { g::O_DIRECTORY } else { g::O_NOFOLLOW })), None),
        Op::Rename(a, b) => (code(w.rename(a, b, 0)), None),
        Op::Link(a, b) => (code(w.link(a, b)), None),
        Op::Symlink(a, b) => (code(w.symlink(a, b)), None),
        Op::Stat(p) => {
            let follow = w.stat(p);
            let _ = w.lstat(p);
            (code(follow), follow.ok().map(shape))
        }
        Op::Write(p, n) => (code(w.write(p, &vec![7; *n])), None),
        Op::Truncate(p, n) => {
            let r = w.path(p).and_then(|p| vfs::truncate(&p, &w.cred, *n, u64::MAX));
            (code(r), None)
        }
        Op::Readlink(p) => (code(w.lpath(p).and_then(|p| vfs::readlink(&p))), None),
    }
}

fn run_host(base: &std::path::Path, op: &Op) -> (i32, Option<Shape>) {
    let at = |p: &str| -> PathBuf { PathBuf::from(format!("{}/{p}", base.display())) };
    let shape = |m: host::Metadata| {
        let kind = m.mode() & g::S_IFMT;
        let sized = kind != g::S_IFDIR;
        (kind, if sized { m.nlink() } else { 0 }, if sized { m.size() } else { 0 })
    };
    match op {
        Op::Mkdir(p) => (host_code(host::create_dir(at(p))), None),
        Op::Rmdir(p) => (host_code(host::remove_dir(at(p))), None),
        Op::Unlink(p) => (host_code(host::remove_file(at(p))), None),
        Op::Create(p, excl) => {
            let mut o = host::OpenOptions::new();
            o.write(true);
            if *excl { o.create_new(true) } else { o.create(true) };
            (host_code(o.open(at(p))), None)
        }
        Op::Open(p, dir) => {
            let f = if *dir { g::O_DIRECTORY } else { g::O_NOFOLLOW };
            (host_code(host::OpenOptions::new().read(true).custom_flags(f as i32).open(at(p))), None)
        }
        Op::Rename(a, b) => (host_code(host::rename(at(a), at(b))), None),
        Op::Link(a, b) => (host_code(host::hard_link(at(a), at(b))), None),
        Op::Symlink(a, b) => (host_code(std::os::unix::fs::symlink(a, at(b))), None),
        Op::Stat(p) => {
            let m = host::metadata(at(p));
            (host_code(m.as_ref().map_err(|e| std::io::Error::from_raw_os_error(e.raw_os_error().unwrap()))), m.ok().map(shape))
        }
        Op::Write(p, n) => (host_code(host::write(at(p), vec![7; *n])), None),
        Op::Truncate(p, n) => {
            // truncate(2) itself: open and set_len differ for directories and read-only files.
            let o = host::OpenOptions::new().write(true).open(at(p));
            (host_code(o.and_then(|f| f.set_len(*n))), None)
        }
        Op::Readlink(p) => (host_code(host::read_link(at(p))), None),
    }
}

static SERIAL: AtomicU32 = AtomicU32::new(0);

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The errno of every call, and what stat sees, equal those of the host's Linux.
    #[test]
    fn random_operations_give_what_linux_gives(ops in prop::collection::vec(op(), 1..60)) {
        let w = World::new();
        let base = std::env::temp_dir().join(format!("linnet-tmpfs-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed)));
        for d in ["", "r", "r/r", "r/r/r"] {
            host::create_dir(base.join(d)).unwrap();
            if !d.is_empty() {
                w.mkdir(d).unwrap();
            }
        }
        let mut failed = None;
        for (i, op) in ops.iter().enumerate() {
            let (ours, theirs) = (run_ours(&w, op), run_host(&base, op));
            if ours != theirs {
                failed = Some((i, op.clone(), ours, theirs));
                break;
            }
        }
        let _ = host::remove_dir_all(&base);
        prop_assert!(failed.is_none(), "{failed:?}\nafter {ops:?}");
    }
}

#[test]
fn append_truncate_and_sparse_files_keep_their_bytes() {
    let w = World::new();
    assert_eq!(w.write("f", b"hello"), Ok(5));
    let a = w.open("f", g::O_WRONLY | g::O_APPEND).unwrap();
    a.seek(0, g::SEEK_SET).unwrap();
    a.write(&mut IoSource::kernel(b" world"), u64::MAX).unwrap();
    assert_eq!(w.read("f").unwrap(), b"hello world");
    let f = w.open("f", g::O_RDWR).unwrap();
    assert_eq!(f.write_at(&mut IoSource::kernel(b"X"), 10_000, u64::MAX), Ok(1));
    let all = w.read("f").unwrap();
    assert_eq!(all.len(), 10_001);
    assert!(all[11..10_000].iter().all(|&b| b == 0));
    vfs::ftruncate(&f, &w.cred, 3, u64::MAX).unwrap();
    vfs::ftruncate(&f, &w.cred, 6, u64::MAX).unwrap();
    assert_eq!(w.read("f").unwrap(), b"hel\0\0\0");
    assert_eq!(f.seek(0, g::SEEK_END), Ok(6));
    assert_eq!(f.seek(2, g::SEEK_HOLE), Ok(6));
    assert_eq!(f.seek(6, g::SEEK_DATA), Err(Errno::ENXIO));
}

#[test]
fn pages_and_inodes_run_out_and_come_back_at_once() {
    let w = World::new();
    w.mkdir("m").unwrap();
    w.mount("m", 0, None, Some("tmpfs"), "size=64k,nr_inodes=4").unwrap();
    let free = |w: &World| vfs::statfs(&w.path("m").unwrap()).unwrap();
    assert_eq!((free(&w).blocks, free(&w).free, free(&w).files, free(&w).free_files), (16, 16, 4, 3));
    assert_eq!(w.write("m/big", &vec![1; 100_000]), Ok(65536));
    assert_eq!(w.write("m/more", b"x"), Err(Errno::ENOSPC));
    let open = w.open("m/big", g::O_RDONLY).unwrap();
    w.unlink("m/big").unwrap();
    // Open without a name: still there.
    assert_eq!(free(&w).free, 0);
    assert_eq!(read_all(&open).unwrap().len(), 65536);
    drop(open);
    assert_eq!(free(&w).free, 16);
}

#[test]
fn permissions_follow_owner_group_others_and_capabilities() {
    let w = World::new();
    w.mkdir("d").unwrap();
    w.write("d/f", b"secret").unwrap();
    w.chmod("d/f", 0o640).unwrap();
    let u = w.as_user(1000);
    assert_eq!(u.read("d/f"), Err(Errno::EACCES));
    assert_eq!(u.write("d/new", b"x"), Err(Errno::EACCES));
    assert_eq!(u.chmod("d/f", 0o777), Err(Errno::EPERM));
    vfs::chown(&w.path("d/f").unwrap(), &w.cred, Some(1000), Some(1000)).unwrap();
    assert_eq!(u.read("d/f").unwrap(), b"secret");
    w.chmod("d", 0o700).unwrap();
    assert_eq!(u.stat("d/f").map(|_| ()), Err(Errno::EACCES));
    w.chmod("d", 0o1777).unwrap();
    w.write("d/root", b"").unwrap();
    // Sticky: only owners remove.
    assert_eq!(u.unlink("d/root"), Err(Errno::EPERM));
    assert_eq!(u.rename("d/root", "d/mine", 0), Err(Errno::EPERM));
    assert_eq!(u.unlink("d/f"), Ok(()));
    // Root executes only what somebody may execute.
    assert_eq!(vfs::access(&w.path("d/root").unwrap(), &w.cred, g::X_OK), Err(Errno::EACCES));
}

#[test]
fn times_and_set_id_bits_follow_their_rules() {
    let w = World::new();
    w.write("f", b"x").unwrap();
    w.chmod("f", 0o6755).unwrap();
    let p = w.path("f").unwrap();
    vfs::chown(&p, &w.cred, Some(1), Some(1)).unwrap();
    assert_eq!(w.stat("f").unwrap().mode.permissions(), 0o755);
    w.chmod("f", 0o666).unwrap();
    let u = w.as_user(1000);
    let t = |s| SetTime::To(Time { secs: s, nanos: 5 });
    assert_eq!(vfs::utimens(&p, &u.cred, t(1), t(2)), Err(Errno::EPERM));
    assert_eq!(vfs::utimens(&p, &u.cred, SetTime::Now, SetTime::Now), Ok(()));
    vfs::utimens(&p, &w.cred, t(-100), SetTime::Omit).unwrap();
    assert_eq!(w.stat("f").unwrap().atime, Time { secs: -100, nanos: 5 });
    w.chmod("f", 0o644).unwrap();
    assert_eq!(vfs::utimens(&p, &u.cred, SetTime::Now, SetTime::Now), Err(Errno::EACCES));
}

#[test]
fn rename_flags_do_what_they_say() {
    let w = World::new();
    w.write("a", b"A").unwrap();
    for d in ["d", "d/sub", "e"] {
        w.mkdir(d).unwrap();
    }
    assert_eq!(w.rename("a", "d", g::RENAME_NOREPLACE), Err(Errno::EEXIST));
    assert_eq!(w.rename("a", "x", g::RENAME_EXCHANGE), Err(Errno::ENOENT));
    assert_eq!(w.rename("a", "x", g::RENAME_WHITEOUT), Err(Errno::EINVAL));
    w.rename("a", "e/a", 0).unwrap();
    w.rename("e/a", "d", g::RENAME_EXCHANGE).unwrap();
    assert_eq!(w.read("d").unwrap(), b"A");
    assert!(w.stat("e/a/sub").unwrap().mode.is_dir());
    assert_eq!(w.rename("e", "e/a/in", 0), Err(Errno::EINVAL));
    assert_eq!(w.rename("e/a", "e", 0), Err(Errno::ENOTEMPTY));
}

#[test]
fn mounts_hide_bind_move_and_are_busy() {
    let w = World::new();
    for d in ["a", "b", "c", "a/in"] {
        w.mkdir(d).unwrap();
    }
    w.mount("a", 0, None, Some("tmpfs"), "mode=755").unwrap();
    assert_eq!(w.stat("a/in").map(|_| ()), Err(Errno::ENOENT));
    w.mkdir("a/x").unwrap();
    w.write("a/x/f", b"1").unwrap();
    // `..` leaves a mount.
    assert_eq!(w.stat("a/x/../..").unwrap().ino, w.stat("/").unwrap().ino);
    assert_eq!(w.rmdir("a"), Err(Errno::EBUSY));
    w.mount("b", g::MS_BIND, Some("a/x"), None, "").unwrap();
    assert_eq!(w.link("b/f", "a/hard"), Err(Errno::EXDEV));
    w.mount("b", g::MS_REMOUNT | g::MS_BIND | g::MS_RDONLY, None, None, "").unwrap();
    assert_eq!(w.write("b/f", b"2"), Err(Errno::EROFS));
    assert_eq!(w.mkdir("b/f"), Err(Errno::EEXIST));
    assert_eq!(w.write("a/x/f", b"2"), Ok(1));
    w.mount("c", g::MS_MOVE, Some("a"), None, "").unwrap();
    assert!(w.stat("a/in").is_ok());
    vfs::chdir(&w.fs, &w.cred, w.path("c/x").unwrap()).unwrap();
    assert_eq!(w.pwd(), "/c/x");
    assert_eq!(w.umount("/c", 0), Err(Errno::EBUSY));
    vfs::chdir(&w.fs, &w.cred, w.path("/").unwrap()).unwrap();
    assert_eq!(w.umount("/c", 0), Ok(()));
    let open = w.open("b/f", g::O_RDONLY).unwrap();
    assert_eq!(w.umount("b", g::MNT_DETACH), Ok(()));
    assert_eq!(read_all(&open).unwrap(), b"2");
    assert_eq!(w.umount("/", 0), Err(Errno::EBUSY));
}

#[test]
fn a_running_program_denies_writers_and_names_can_be_listed() {
    let w = World::new();
    w.write("prog", b"elf").unwrap();
    w.chmod("prog", 0o755).unwrap();
    let running = vfs::open_exec(&w.cx(), None, b"prog", LookupFlags::FOLLOW).unwrap();
    assert_eq!(w.write("prog", b"x"), Err(Errno::ETXTBSY));
    drop(running);
    assert_eq!(w.write("prog", b"x"), Ok(1));
    assert_eq!(w.list(".").unwrap(), [".", "..", "prog"]);
    let t = FdTable::new().unwrap();
    assert_eq!(t.install(w.open("prog", g::O_RDONLY).unwrap(), false, 0, 4), Ok(Fd(0)));
}
