//! Inodes of nameless objects: pipes, eventfds and their like, in one internal file system.

use crate::{Inode, InodeOps, NewInode, Statfs, SuperBlock, SuperOps};
use abi::{DevNum, Mode, Result};
use core::any::Any;
use kalloc::{KArc, kbox_dyn, karc_dyn};
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
