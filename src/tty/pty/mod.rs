//! Pseudo-terminals (`pty(7)`): a terminal whose device is a program.
//!
//! [`open`] makes the two ends. The slave is a [`Tty`] like any other, over the `Pair` as its device;
//! [`Master`] is the other end as an open file. Where they get names is the file system's affair:
//! it tells the master what its end means there ([`Place`]).
//!
//! No thread runs the slave's line discipline: whoever writes to the master or makes room runs it
//! (`Tty::kick`), so that signals are sent and echo is there before a write to the master returns.

mod master;
mod pair;
#[cfg(test)]
mod tests;

pub use master::Master;

use crate::{Termios, Tty, file::TtyFile, termios};
use abi::{DevNum, Result, raw::general as g};
use core::any::Any;
use kalloc::{KArc, KBox, kformat};
use vfs::{Credentials, FileOps, OpenFile};

/// Major number of the slaves.
pub const SLAVE_MAJOR: u32 = 136;

/// The settings of a new slave: Linux's `tty_std_termios` at 38400 baud.
const INITIAL: Termios =
    Termios { cflag: g::B38400 | g::CS8 | g::CREAD, ispeed: 38_400, ospeed: 38_400, ..termios::INITIAL };

/// What the file system does for a pseudo-terminal that has a name there.
pub trait Place: Send + Sync {
    /// Opens the slave by its name, with O_* flags (TIOCGPTPEER).
    fn open_slave(&self, flags: u32, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>>;
    /// The master is closed: the name goes.
    fn master_closed(&self);
}

/// Makes a pseudo-terminal: its slave, locked, and what its master needs. `number` keeps the number
/// taken while one of the ends exists.
pub fn open(index: u32, number: KArc<dyn Any + Send + Sync>) -> Result<(KArc<Tty>, Unplaced)> {
    let pair = pair::Pair::try_new(number)?;
    let driver = kalloc::karc_as!(pair.clone() => dyn crate::TtyDriver);
    let tty = Tty::for_pty(kformat!("pts/{index}")?, DevNum::new(SLAVE_MAJOR, index), driver, INITIAL)?;
    Ok((tty.clone(), Unplaced { tty, pair, index }))
}

/// A master before the file system has a name for its slave.
pub struct Unplaced {
    tty: KArc<Tty>,
    pair: KArc<pair::Pair>,
    index: u32,
}

impl Unplaced {
    /// The master's end as a file; its drop hangs the slave up.
    pub fn master(self, place: KBox<dyn Place>) -> Master {
        Master::new(self.tty, self.pair, self.index, place)
    }
}

/// Opens a slave: what the open of its node does. EIO when it is locked or its master closed.
pub fn open_slave(tty: &KArc<Tty>, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>> {
    TtyFile::open(tty.clone(), false, flags, cred)
}
