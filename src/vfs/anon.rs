//! Inodes of nameless objects: pipes, eventfds and their like, in one internal file system. What
//! is nothing but a descriptor (eventfd, epoll) shares one inode of no type, as on Linux.

use crate::{Credentials, FileOps, Inode, InodeOps, NewInode, OpenFile, Statfs, SuperBlock, SuperOps};
use abi::{DevNum, Mode, Result};
use core::any::Any;
use kalloc::{KArc, KBox, karc_dyn, kbox_dyn};
use sync::Once;

const ANON_INODE_FS_MAGIC: u64 = abi::raw::general::ANON_INODE_FS_MAGIC as u64;

struct AnonSuper;
impl SuperOps for AnonSuper {
    fn statfs(&self, _sb: &SuperBlock) -> Result<Statfs> {
        Ok(Statfs { kind: ANON_INODE_FS_MAGIC, block_size: 4096, name_max: 255, ..Statfs::default() })
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct AnonOps;
impl InodeOps for AnonOps {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Anon {
    sb: KArc<SuperBlock>,
    ops: KArc<dyn InodeOps>,
}

static ANON: Once<Anon> = Once::new();

fn anon() -> Result<&'static Anon> {
    ANON.try_call_once(|| {
        let sb = SuperBlock::new("anon_inodefs", None, 0, kbox_dyn!(AnonSuper => dyn SuperOps)?)?;
        let ops = karc_dyn!(AnonOps => dyn InodeOps)?;
        let root = NewInode {
            ino: sb.alloc_ino(),
            mode: Mode(abi::raw::general::S_IFDIR | 0o600),
            uid: 0,
            gid: 0,
            rdev: DevNum::default(),
            nlink: 2,
            size: 0,
            cache: None,
        };
        let root = Inode::new(&sb, root, ops.clone())?;
        sb.set_root(root)?;
        Ok(Anon { sb, ops })
    })
}

pub(crate) fn super_block() -> Result<KArc<SuperBlock>> {
    Ok(anon()?.sb.clone())
}

/// An inode for an object without a name, of the type and permissions in `mode`.
pub fn inode(mode: Mode, uid: u32, gid: u32) -> Result<KArc<Inode>> {
    let a = anon()?;
    let new = NewInode { ino: a.sb.alloc_ino(), mode, uid, gid, rdev: DevNum::default(), nlink: 1, size: 0, cache: None };
    Inode::new(&a.sb, new, a.ops.clone())
}

/// An open file of what is only a descriptor. `name` is what /proc/PID/fd shows:
/// `anon_inode:[eventfd]`.
pub fn file(name: &str, ops: KBox<dyn FileOps>, flags: u32, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
    static SHARED: Once<KArc<Inode>> = Once::new();
    let shared = SHARED.try_call_once(|| inode(Mode(0o600), 0, 0))?;
    OpenFile::anonymous(name.as_bytes(), shared.clone(), ops, flags, cred)
}
