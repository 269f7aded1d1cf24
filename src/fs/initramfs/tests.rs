//! Archives made here, good and bad, unpacked into a tmpfs.

use crate::*;
use abi::{Errno, raw::general as g};
use kalloc::KArc;
use proptest::prelude::*;
use vfs::*;

struct Entry<'a> {
    name: &'a str,
    mode: u32,
    data: &'a [u8],
    ino: u32,
    nlink: u32,
    rdev: (u32, u32),
}

impl<'a> Entry<'a> {
    fn new(name: &'a str, mode: u32, data: &'a [u8]) -> Self {
        Self { name, mode, data, ino: 0, nlink: 1, rdev: (0, 0) }
    }
}

fn pad(v: &mut Vec<u8>) {
    while !v.len().is_multiple_of(4) {
        v.push(0);
    }
}

fn add(v: &mut Vec<u8>, e: &Entry<'_>, crc: bool) {
    let sum = if crc { e.data.iter().map(|&b| u32::from(b)).sum() } else { 0 };
    v.extend_from_slice(if crc { b"070702" } else { b"070701" });
    for n in [e.ino, e.mode, 7, 8, e.nlink, 1_000_000, e.data.len() as u32, 0, 1, e.rdev.0, e.rdev.1, e.name.len() as u32 + 1, sum] {
        v.extend_from_slice(format!("{n:08X}").as_bytes());
    }
    v.extend_from_slice(e.name.as_bytes());
    v.push(0);
    pad(v);
    v.extend_from_slice(e.data);
    pad(v);
}

fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut v = Vec::new();
    for e in entries {
        add(&mut v, e, false);
    }
    add(&mut v, &Entry::new("TRAILER!!!", 0, &[]), false);
    v
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut v = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
    v.extend_from_slice(b"initrd.cpio\0");
    v.extend(miniz_oxide::deflate::compress_to_vec(data, 6));
    let crc = data.iter().fold(u32::MAX, |c, &b| {
        (0..8).fold(c ^ u32::from(b), |c, _| if c & 1 != 0 { 0xedb8_8320 ^ c >> 1 } else { c >> 1 })
    });
    v.extend((!crc).to_le_bytes());
    v.extend((data.len() as u32).to_le_bytes());
    v
}

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
    root: Path,
    fs: KArc<FsContext>,
    cred: KArc<Credentials>,
}

impl World {
    fn new() -> Self {
        memory();
        let sb = tmpfs::new_rootfs().unwrap();
        let (ns, root) = MountNamespace::new(&sb, b"rootfs").unwrap();
        Self { _ns: ns, fs: FsContext::new(root.clone(), 0).unwrap(), root, cred: KArc::try_new(Credentials::root()).unwrap() }
    }
    fn cx(&self) -> Lookup<'_> {
        Lookup { fs: &self.fs, cred: &self.cred }
    }
    fn unpack(&self, data: &[u8]) -> core::result::Result<Summary, Fault> {
        super::unpack(&mut SliceInput::new(data, |_| {}), &self.root).map_err(|e| {
            assert!(!e.to_string().is_empty());
            e.fault
        })
    }
    fn path(&self, p: &str) -> Option<Path> {
        lookup(&self.cx(), None, p.as_bytes(), LookupFlags::empty()).ok()
    }
    fn stat(&self, p: &str) -> Kstat {
        stat(&self.path(p).unwrap_or_else(|| panic!("{p} is missing"))).unwrap()
    }
    fn read(&self, p: &str) -> Vec<u8> {
        let f = open(&self.cx(), None, p.as_bytes(), OpenHow::flags(g::O_RDONLY)).unwrap();
        let mut buf = vec![0; f.inode.size() as usize];
        let n = f.read(&mut IoSink::kernel(&mut buf)).unwrap();
        assert_eq!(n, buf.len());
        buf
    }
}

const DIR: u32 = g::S_IFDIR | 0o755;
const FILE: u32 = g::S_IFREG | 0o644;

fn sample() -> Vec<u8> {
    let big = vec![0x5a; 100_000];
    archive(&[
        Entry::new(".", g::S_IFDIR | 0o700, &[]),
        Entry::new("./bin", DIR, &[]),
        Entry::new("bin/sh", g::S_IFREG | 0o4755, b"#!shell"),
        Entry::new("/etc", DIR, &[]),
        Entry::new("etc/big", FILE, &big),
        Entry::new("etc/link", g::S_IFLNK | 0o777, b"../bin/sh"),
        Entry { rdev: (5, 1), ..Entry::new("console", g::S_IFCHR | 0o600, &[]) },
        Entry { ino: 9, nlink: 2, ..Entry::new("one", FILE, &[]) },
        Entry { ino: 9, nlink: 2, ..Entry::new("two", FILE, b"shared") },
        Entry::new("nowhere/file", FILE, b"lost"),
    ])
}

fn check_sample(w: &World) {
    assert_eq!(w.stat("/").mode.0, g::S_IFDIR | 0o700);
    let sh = w.stat("bin/sh");
    assert_eq!((sh.mode.0, sh.uid, sh.gid, sh.mtime.secs), (g::S_IFREG | 0o4755, 7, 8, 1_000_000));
    assert_eq!(w.read("etc/link"), b"#!shell");
    assert!(w.read("etc/big").iter().all(|&b| b == 0x5a));
    assert_eq!(w.stat("console").rdev, abi::DevNum::new(5, 1));
    assert_eq!(w.stat("one").ino, w.stat("two").ino);
    assert_eq!(w.read("one"), b"shared");
    assert!(w.path("nowhere").is_none());
}

#[test]
fn a_plain_archive_is_unpacked_with_all_kinds_of_files() {
    let w = World::new();
    let s = w.unpack(&sample()).unwrap();
    assert_eq!((s.archives, s.entries, s.skipped), (1, 10, 1));
    check_sample(&w);
}

#[test]
fn gzip_and_input_in_single_bytes_give_the_same() {
    struct Drip(Vec<u8>, usize);
    impl Input for Drip {
        fn ahead(&mut self) -> &[u8] {
            self.0.get(self.1..(self.1 + 1).min(self.0.len())).unwrap_or(&[])
        }
        fn consume(&mut self, n: usize) {
            self.1 += n;
        }
    }
    for data in [sample(), gzip(&sample())] {
        let w = World::new();
        w.unpack(&data).unwrap();
        check_sample(&w);
        let w = World::new();
        super::unpack(&mut Drip(data, 0), &w.root).unwrap();
        check_sample(&w);
    }
}

#[test]
fn several_archives_follow_each_other_and_later_ones_win() {
    let first = archive(&[Entry::new("a", FILE, b"old"), Entry::new("d", DIR, &[])]);
    let second = archive(&[Entry::new("a", FILE, b"new"), Entry::new("d", FILE, b"now a file")]);
    let w = World::new();
    let mut all = first.clone();
    all.extend([0; 512]);
    all.extend(gzip(&second));
    all.extend([0; 3]);
    assert_eq!(w.unpack(&all).unwrap().archives, 2);
    assert_eq!((w.read("a"), w.read("d")), (b"new".to_vec(), b"now a file".to_vec()));
    // Two archives within one gzip member.
    let w = World::new();
    let mut both = first;
    both.extend([0; 100]);
    both.extend(second);
    assert_eq!(w.unpack(&gzip(&both)).unwrap().archives, 2);
    assert_eq!(w.read("a"), b"new");
}

#[test]
fn consumed_bytes_are_told_on_the_way() {
    let data = gzip(&sample());
    let mut last = 0;
    let w = World::new();
    super::unpack(&mut SliceInput::new(&data, |n| { assert!(n >= last); last = n; }), &w.root).unwrap();
    assert_eq!(last, data.len());
}

#[test]
fn each_fault_has_its_name() {
    let w = World::new();
    assert_eq!(w.unpack(b""), Err(Fault::Empty));
    assert_eq!(w.unpack(&[0; 64]), Err(Fault::Empty));
    assert_eq!(w.unpack(b"hello"), Err(Fault::UnknownFormat));
    assert_eq!(w.unpack(b"\x28\xb5\x2f\xfdxxx"), Err(Fault::Compression("zstd")));
    assert_eq!(w.unpack(b"070707000000"), Err(Fault::OldCpio));
    assert_eq!(w.unpack(b"0x0701"), Err(Fault::BadMagic));
    let good = sample();
    assert_eq!(w.unpack(&good[..500]), Err(Fault::Truncated));
    let packed = gzip(&good);
    assert_eq!(w.unpack(&packed[..packed.len() / 2]), Err(Fault::Truncated));
    assert_eq!(w.unpack(&packed[..packed.len() - 3]), Err(Fault::Truncated));
    let mut bad = packed.clone();
    let n = bad.len();
    bad[n - 8] ^= 1;
    assert_eq!(w.unpack(&bad), Err(Fault::BadTrailer));
    // Damage that makes no sense as cpio is reported as damage, not as a wrong format.
    let mut inner = good.clone();
    inner[0] ^= 0x40;
    let mut bad = gzip(&inner);
    let (n, crc) = (bad.len(), packed.len() - 8);
    bad[n - 8..n - 4].copy_from_slice(&packed[crc..crc + 4]);
    assert_eq!(w.unpack(&bad), Err(Fault::BadTrailer));
    assert_eq!(w.unpack(&gzip(&inner)), Err(Fault::BadMagic), "not damaged, but no archive");
    let mut bad = good.clone();
    bad[20] = b'x';
    assert_eq!(w.unpack(&bad), Err(Fault::BadNumber));
    assert_eq!(w.unpack(&archive(&[Entry::new("../etc/passwd", FILE, b"x")])), Err(Fault::BadName));
    assert_eq!(w.unpack(&archive(&[Entry::new("a/../../b", DIR, &[])])), Err(Fault::BadName));
    assert_eq!(w.unpack(&archive(&[Entry::new("", FILE, b"x")])), Err(Fault::BadName));
    assert_eq!(w.unpack(&archive(&[Entry::new("l", g::S_IFLNK, &[b'x'; 4096])])), Err(Fault::BadLink));
    assert_eq!(w.unpack(&archive(&[Entry::new("odd", 0o170000, &[])])), Err(Fault::BadMode));
}

#[test]
fn the_crc_format_checks_its_sums() {
    let w = World::new();
    let mut v = Vec::new();
    add(&mut v, &Entry::new("f", FILE, b"content"), true);
    add(&mut v, &Entry::new("TRAILER!!!", 0, &[]), true);
    w.unpack(&v).unwrap();
    assert_eq!(w.read("f"), b"content");
    let at = v.windows(7).position(|s| s == b"content").unwrap();
    v[at] ^= 1;
    assert_eq!(w.unpack(&v), Err(Fault::BadChecksum));
}

#[test]
fn a_full_file_system_is_an_error_with_the_files_name() {
    memory();
    let sb = tmpfs::new_super("tmpfs", 0, tmpfs::Options { pages: Some(4), ..Default::default() }).unwrap();
    let (_ns, root) = MountNamespace::new(&sb, b"t").unwrap();
    let data = archive(&[Entry::new("big", FILE, &[1; 50_000])]);
    let e = super::unpack(&mut SliceInput::new(&data, |_| {}), &root).unwrap_err();
    assert_eq!((e.fault, e.name.as_slice()), (Fault::File(Errno::ENOSPC), &b"big"[..]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing panics, whatever is changed, cut or put in.
    #[test]
    fn damaged_archives_never_panic(packed: bool, edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20), cut in any::<prop::sample::Index>(), zeros in 0usize..9) {
        let mut plain = archive(&[
            Entry::new("d", DIR, &[]),
            Entry::new("d/f", FILE, b"some data that is long enough to matter"),
            Entry::new("d/l", g::S_IFLNK | 0o777, b"f"),
            Entry { ino: 3, nlink: 2, ..Entry::new("h1", FILE, b"x") },
            Entry { ino: 3, nlink: 2, ..Entry::new("h2", FILE, b"xy") },
        ]);
        plain.splice(0..0, vec![0; zeros]);
        let mut data = if packed { gzip(&plain) } else { plain };
        for (at, to) in &edits {
            let i = at.index(data.len());
            data[i] = *to;
        }
        data.truncate(cut.index(data.len() * 2).max(1));
        let _ = World::new().unpack(&data);
    }
}
