//! Open terminals as files, and the device nodes by which they are opened.

use crate::{Tty, console, ioctl, job};
use abi::{DevNum, Errno, Result, raw::general as g};
use core::any::Any;
use kalloc::{KArc, KBox, karc_dyn, kbox_dyn};
use mm::io::{IoSink, IoSource};
use vfs::{
    Cap, Credentials, FileOps, Inode, OpenFile, PollEvents, PollTable,
    chardev::CharDevice,
    splice::{self, Pages},
};

/// Linux's numbers: /dev/tty and /dev/console, and the PL011's.
const TTYAUX_MAJOR: u32 = 5;

/// An open terminal.
pub(crate) struct TtyFile {
    tty: KArc<Tty>,
    /// `Tty::hangups` at the open.
    hangups: u32,
    /// Opened as /dev/console: outlives hang-ups, and its readers are not stopped by job control.
    is_console: bool,
}

impl TtyFile {
    pub(crate) fn open(tty: KArc<Tty>, is_console: bool, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        tty.opened(cred.capable(Cap::SYS_ADMIN))?;
        // From here on the drop closes it.
        let file = Self { hangups: tty.hangups(), tty, is_console };
        if !is_console && flags & g::O_NOCTTY == 0 && flags & g::O_ACCMODE != g::O_WRONLY {
            become_controlling(&file.tty);
        }
        Ok(kbox_dyn!(file => dyn FileOps)?)
    }

    fn alive(&self) -> bool {
        self.is_console || self.tty.hangups() == self.hangups
    }
}

impl Drop for TtyFile {
    fn drop(&mut self) {
        self.tty.closed();
    }
}

/// A session leader without a controlling terminal gets the one it opens, if that is free.
fn become_controlling(tty: &KArc<Tty>) {
    let Some(ids) = job::jobs().and_then(|j| j.current_ids()) else { return };
    if ids.leads_session() && job::controlling_tty().is_none() {
        // Another session may hold it: then it stays so.
        let _ = ioctl::acquire(tty, ids, false);
    }
}

impl FileOps for TtyFile {
    fn splice_read(&self, f: &OpenFile, pos: &mut u64, len: usize, pages: &mut Pages) -> Result<usize> {
        splice::read_copied(f, pos, len, pages)
    }
    fn can_splice_write(&self) -> bool {
        true
    }
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        if !self.alive() {
            return Ok(0);
        }
        if !self.is_console {
            job::check_foreground(&self.tty, g::SIGTTIN)?;
        }
        self.tty.read(dst, f.is_nonblocking(), || self.alive())
    }

    fn write(&self, f: &OpenFile, src: &mut IoSource<'_>, _pos: &mut u64) -> Result<usize> {
        if !self.alive() {
            return Err(Errno::EIO);
        }
        if self.tty.termios().l(g::TOSTOP) {
            job::check_foreground(&self.tty, g::SIGTTOU)?;
        }
        self.tty.write(src, f.is_nonblocking(), || self.alive())
    }

    fn can_seek(&self) -> bool {
        false
    }

    fn ioctl(&self, f: &OpenFile, cmd: u32, arg: u64) -> Result<u64> {
        if !self.alive() {
            return Err(if cmd == abi::raw::ioctl::TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO });
        }
        ioctl::ioctl(&self.tty, f, cmd, arg)
    }

    fn poll(&self, _f: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.register(&self.tty.readers);
        table.register(&self.tty.writers);
        if !self.alive() {
            return PollEvents::READABLE | PollEvents::OUT | PollEvents::WRNORM | PollEvents::ERR | PollEvents::HUP;
        }
        let mut events = PollEvents::empty();
        let readable = {
            let s = self.tty.state.lock();
            s.ldisc.pollable(&s.termios)
        };
        if readable {
            events |= PollEvents::READABLE;
        }
        if self.tty.driver.write_room() > 0 {
            events |= PollEvents::OUT | PollEvents::WRNORM;
        }
        events
    }

    fn can_poll(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// One terminal's own node.
struct Node(KArc<Tty>);

impl CharDevice for Node {
    fn open(&self, _: &KArc<Inode>, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        TtyFile::open(self.0.clone(), false, flags, cred)
    }
}

/// /dev/tty: the caller's controlling terminal.
struct Controlling;

impl CharDevice for Controlling {
    fn open(&self, _: &KArc<Inode>, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        TtyFile::open(job::controlling_tty().ok_or(Errno::ENXIO)?, false, flags | g::O_NOCTTY, cred)
    }
}

/// /dev/console: the terminal of the last `console=`.
struct Console;

impl CharDevice for Console {
    fn open(&self, _: &KArc<Inode>, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        TtyFile::open(console::tty().ok_or(Errno::ENODEV)?, true, flags, cred)
    }
}

/// Registers /dev/tty and /dev/console. Once, after the VFS is up.
pub fn init() -> Result {
    let node = |minor: u32, name: &'static str, mode: u32, device: KArc<dyn CharDevice>| -> Result {
        vfs::chardev::register(TTYAUX_MAJOR, minor..minor + 1, name, device)?;
        let dev = DevNum::new(TTYAUX_MAJOR, minor);
        vfs::devnodes::add(name.trim_start_matches("/dev/").as_bytes(), mode, dev, false)
    };
    node(0, "/dev/tty", 0o666, karc_dyn!(Controlling => dyn CharDevice)?)?;
    node(1, "/dev/console", 0o600, karc_dyn!(Console => dyn CharDevice)?)
}

/// Registers a terminal's own node (`driver`: its name in /proc/devices). EBUSY if the number is
/// taken.
pub fn register(tty: &KArc<Tty>, driver: &'static str) -> Result {
    let dev = tty.dev();
    vfs::chardev::register(dev.major, dev.minor..dev.minor + 1, driver, karc_dyn!(Node(tty.clone()) => dyn CharDevice)?)?;
    vfs::devnodes::add(tty.name().as_bytes(), 0o600, dev, false)
}
