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
fn memory() {
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
}

impl World {
    fn new() -> Self {
        static ONCE: std::sync::Once = std::sync::Once::new();
        memory();
        ONCE.call_once(|| crate::init().unwrap());
        let sb = new_super("rootfs", 0, Options { mode: Some(0o755), pages: Some(1024), inodes: Some(500), ..Options::default() }).unwrap();
        let (ns, root) = MountNamespace::new(&sb, b"rootfs").unwrap();
        Self { _ns: ns, fs: FsContext::new(root, 0o022).unwrap(), cred: KArc::try_new(Credentials::root()).unwrap() }
    }
    fn as_user(&self, uid: u32) -> Self {
        let cred = KArc::try_new(Credentials::user(uid, uid, Caps::default())).unwrap();
        Self { _ns: self._ns.clone(), fs: self.fs.clone(), cred }
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
