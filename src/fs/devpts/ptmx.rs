//! /dev/ptmx, whose open makes a pseudo-terminal, and the slaves' device number.

use crate::instance::{self, Number, Slave};
use abi::{DevNum, Errno, Result};
use core::any::Any;
use kalloc::{KArc, KBox, karc_as, kbox_dyn, kformat};
use tty::pty::{self, Place};
use vfs::{
    Credentials, FileOps, FsContext, Inode, Lookup, LookupFlags, Mount, MountRef, OpenFile, Path, chardev::CharDevice,
};

/// TTYAUX_MAJOR, 2.
pub(crate) const DEVICE: DevNum = DevNum { major: 5, minor: 2 };

pub(crate) struct Ptmx;

/// The root of the instance that the node at `path` stands for: that which it is in, or that which is
/// mounted on `pts` in the node's directory. ENOENT and ENODEV without.
fn root_for(path: &Path) -> Result<Path> {
    if instance::of(&path.mount.sb).is_ok() {
        return Ok(Path { mount: path.mount.clone(), dentry: path.mount.root.clone() });
    }
    let dentry = path.dentry.parent().ok_or(Errno::ENOENT)?;
    let fs = FsContext::new(Path { mount: path.mount.clone(), dentry }, 0)?;
    let cred = KArc::try_new(Credentials::root())?;
    let found = vfs::lookup(&Lookup { fs: &fs, cred: &cred }, None, b"pts", LookupFlags::empty())?;
    instance::of(&found.mount.sb)?;
    if found.is_mount_root() { Ok(found) } else { Err(Errno::ENODEV) }
}

/// A pseudo-terminal's name.
struct Name {
    mount: KArc<Mount>,
    number: KArc<Number>,
}

impl Place for Name {
    fn open_slave(&self, flags: u32, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
        let root = Path { mount: MountRef::new(&self.mount), dentry: self.mount.root.clone() };
        let fs = FsContext::new(root, 0)?;
        let name = kformat!("{}", self.number.index)?;
        let path = vfs::lookup(&Lookup { fs: &fs, cred }, None, name.as_bytes(), LookupFlags::empty())?;
        vfs::open_found(path, flags, cred)
    }

    fn master_closed(&self) {
        if let Ok(instance) = instance::of(&self.mount.sb) {
            instance.unname(self.number.index);
        }
    }
}

impl CharDevice for Ptmx {
    fn open(&self, _: &KArc<Inode>, _flags: u32, _cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        // A node without a place belongs to no instance.
        Err(Errno::ENODEV)
    }

    fn open_at(&self, path: &Path, _flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        let root = root_for(path)?;
        let sb = root.mount.sb.clone();
        let number = instance::take_number(&sb)?;
        let (tty, unplaced) = pty::open(number.index, karc_as!(number.clone() => dyn Any + Send + Sync))?;
        let index = number.index;
        let name = Name { mount: root.mount.mount().clone(), number };
        let place = kbox_dyn!(name => dyn Place)?;
        // From here on the drop of the master takes the name away.
        let master = unplaced.master(place);
        instance::of(&sb)?.name(&sb, &tty, index, cred)?;
        Ok(kbox_dyn!(master => dyn FileOps)?)
    }
}

pub(crate) struct Slaves;

impl CharDevice for Slaves {
    fn open(&self, inode: &KArc<Inode>, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        // A node of this number elsewhere leads to no pseudo-terminal.
        let slave: &Slave = inode.ops.as_any().downcast_ref().ok_or(Errno::EIO)?;
        pty::open_slave(&slave.tty, flags, cred)
    }
}
