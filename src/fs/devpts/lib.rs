#![cfg_attr(not(test), no_std)]
//! devpts: the names of pseudo-terminals (`pts(4)`), and /dev/ptmx, which makes them.
//!
//! Every mount is an instance of its own with numbers from 0 on. A name is there while its master is
//! open; its number is free again when both ends are closed. /dev/ptmx uses the instance that is
//! mounted on `pts` beside it, an instance's own `ptmx` that instance.
//!
//! Lock: the table of an instance, a spin lock under which nothing is freed.

mod instance;
mod options;
mod ptmx;

use abi::{DevNum, Result};
use kalloc::{KArc, karc_dyn};
use vfs::{FileSystem, MountRequest, SuperBlock, chardev::CharDevice};

struct DevPts;

impl FileSystem for DevPts {
    fn name(&self) -> &'static str {
        "devpts"
    }
    fn mount(&self, req: &MountRequest<'_>) -> Result<KArc<SuperBlock>> {
        instance::new_super(req.flags, options::Options::parse(req.data)?)
    }
}

/// Registers the type, /dev/ptmx, the slaves' numbers, and /proc/sys/kernel/pty. Once.
pub fn init() -> Result {
    vfs::register_filesystem(karc_dyn!(DevPts => dyn FileSystem)?)?;
    let dev = ptmx::DEVICE;
    vfs::chardev::register(dev.major, dev.minor..dev.minor + 1, "/dev/ptmx", karc_dyn!(ptmx::Ptmx => dyn CharDevice)?)?;
    vfs::devnodes::add(b"ptmx", 0o666, DevNum::new(dev.major, dev.minor), false)?;
    vfs::chardev::register(tty::pty::SLAVE_MAJOR, 0..options::MAX, "pts", karc_dyn!(ptmx::Slaves => dyn CharDevice)?)?;
    instance::register_limits()
}
