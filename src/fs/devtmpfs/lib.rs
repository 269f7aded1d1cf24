#![cfg_attr(not(test), no_std)]
//! devtmpfs: the one /dev that the kernel fills, and the memory devices in it (`null(4)`,
//! `full(4)`, `random(4)`, `kmsg`).
//!
//! It is a tmpfs instance; every mount of the type shows the same one. Drivers announce their
//! nodes through `vfs::devnodes`, whenever they find their device.

mod memory;
mod nodes;

use abi::Result;
use kalloc::{KArc, karc_dyn};
use sync::Once;
use vfs::{FileSystem, MountRequest, SuperBlock, devnodes};

static INSTANCE: Once<KArc<SuperBlock>> = Once::new();

/// The file system; made at the first call.
pub fn instance() -> Result<&'static KArc<SuperBlock>> {
    INSTANCE.try_call_once(|| {
        let options = tmpfs::Options { mode: Some(0o755), ..tmpfs::Options::default() };
        tmpfs::new_super("devtmpfs", 0, options)
    })
}

struct DevTmpFs;

impl FileSystem for DevTmpFs {
    fn name(&self) -> &'static str {
        "devtmpfs"
    }
    fn mount(&self, _req: &MountRequest<'_>) -> Result<KArc<SuperBlock>> {
        instance().cloned()
    }
}

/// Registers the type and the memory devices, and shows all nodes that were announced.
pub fn init() -> Result {
    let sb = instance()?;
    vfs::register_filesystem(karc_dyn!(DevTmpFs => dyn FileSystem)?)?;
    memory::init()?;
    devnodes::set_sink(karc_dyn!(nodes::Nodes::new(sb)? => dyn devnodes::NodeSink)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfs::*;

    #[test]
    fn the_memory_devices_behave_as_null_4_says() {
        tmpfs::init().unwrap();
        init().unwrap();
        devnodes::add(b"input/event0", 0o640, abi::DevNum::new(13, 64), false).unwrap();
        let (_ns, root) = MountNamespace::new(instance().unwrap(), b"devtmpfs").unwrap();
        let fs = FsContext::new(root, 0).unwrap();
        let cred = KArc::try_new(Credentials::root()).unwrap();
        let cx = Lookup { fs: &fs, cred: &cred };
        let open = |n: &str| vfs::open(&cx, None, n.as_bytes(), OpenHow::flags(abi::raw::general::O_RDWR)).unwrap();
        let mut buf = [7u8; 16];
        assert_eq!(open("null").read(&mut IoSink::kernel(&mut buf)), Ok(0));
        assert_eq!(open("null").write(&mut IoSource::kernel(b"abc"), u64::MAX), Ok(3));
        assert_eq!(open("zero").read(&mut IoSink::kernel(&mut buf)), Ok(16));
        assert_eq!(buf, [0; 16]);
        assert_eq!(open("full").write(&mut IoSource::kernel(b"abc"), u64::MAX), Err(abi::Errno::ENOSPC));
        assert_eq!(open("full").seek(10, 0), Ok(10));
        assert_eq!(open("urandom").read(&mut IoSink::kernel(&mut buf)), Ok(16));
        assert_ne!(buf, [0; 16]);
        let st = stat(&lookup(&cx, None, b"input/event0", LookupFlags::FOLLOW).unwrap()).unwrap();
        assert_eq!((st.mode.0, st.rdev), (0o020640, abi::DevNum::new(13, 64)));
        devnodes::remove(b"input/event0");
        assert!(lookup(&cx, None, b"input/event0", LookupFlags::FOLLOW).is_err());
    }

    #[test]
    fn kmsg_gives_one_record_a_read_and_takes_records() {
        let f = memory::kmsg_for_tests();
        let at = klog::log_ring().next_seq();
        assert_eq!(f.write(&mut IoSource::kernel(b"<5>hello kmsg\n"), u64::MAX), Ok(14));
        let mut seen = false;
        for _ in 0..1000 {
            let mut buf = [0u8; 2048];
            match f.read(&mut IoSink::kernel(&mut buf)) {
                Ok(n) => {
                    let line = String::from_utf8_lossy(&buf[..n]).into_owned();
                    if line.starts_with(&format!("13,{at},")) {
                        assert!(line.ends_with("-;hello kmsg\n"), "{line}");
                        seen = true;
                    }
                }
                Err(abi::Errno::EAGAIN) => break,
                Err(abi::Errno::EPIPE) => {}
                Err(e) => panic!("{e}"),
            }
        }
        assert!(seen);
    }
}
