//! What lies between the two ends of a pseudo-terminal: the bytes that the slave has written and the
//! master has not read, the lock of the slave, packet mode (`pty(7)`, `tioccons(2)`: TIOCPKT).
//!
//! To the slave's [`Tty`](crate::Tty) it is the device below. The other direction needs no buffer
//! here: what the master writes goes into the slave's own input.
//!
//! Invariants: `tail <= head <= tail + SIZE` of the ring; `status` is 0 outside of packet mode.
//! Locks: one spin lock, inside the terminal's state. Signals are never sent from here.

use crate::{Termios, TtyDriver};
use abi::{Errno, Result, raw::general as g};
use core::any::Any;
use kalloc::{KArc, KVec};
use sched::WaitQueue;
use sync::{LockClass, SpinLock};

static ENDS: LockClass = LockClass::new("pty_ends", 1257);

/// What the slave may write ahead of the master's reads: as much as Linux lets wait before the
/// master's line discipline and in it.
const SIZE: usize = 16384;
const ROOM: usize = 8192 + KEPT;
/// What of it a flush of the slave's output leaves: the part that on Linux the master has already.
const KEPT: usize = 4095;

// The states that a read in packet mode tells: asm-generic/ioctls.h.
pub(super) const DATA: u8 = 0;
const FLUSHREAD: u8 = 1;
const FLUSHWRITE: u8 = 2;
const STOP: u8 = 4;
const START: u8 = 8;
const NOSTOP: u8 = 16;
const DOSTOP: u8 = 32;
const IOCTL: u8 = 64;

pub(super) struct Ends {
    ring: KVec<u8>,
    head: usize,
    tail: usize,
    /// The slave's output is stopped (^S).
    stopped: bool,
    /// The slave was open and is not any more.
    slave_closed: bool,
    master_closed: bool,
    /// The slave may not be opened (TIOCSPTLCK).
    pub(super) locked: bool,
    packet: bool,
    /// What happened to the slave and was not told yet (TIOCPKT_*).
    status: u8,
}

/// A pseudo-terminal between its ends.
pub(crate) struct Pair {
    pub(super) ends: SpinLock<Ends>,
    /// Of the master.
    pub(super) readers: WaitQueue,
    pub(super) writers: WaitQueue,
    /// The number: free again when both ends are gone.
    _number: KArc<dyn Any + Send + Sync>,
}

/// What a look at the slave's output gave.
pub(super) enum Taken {
    /// So many bytes.
    Data(usize),
    /// Packet mode: this happened.
    Status(u8),
    /// Nothing is there.
    Nothing,
    /// Nothing is there and the slave is closed.
    Closed,
}

impl Ends {
    fn len(&self) -> usize {
        self.head - self.tail
    }
    fn room(&self) -> usize {
        if self.stopped { 0 } else { ROOM.saturating_sub(self.len()) }
    }
    fn push(&mut self, bytes: &[u8]) {
        for &b in bytes {
            if let Some(slot) = self.ring.get_mut(self.head % SIZE) {
                *slot = b;
                self.head += 1;
            }
        }
    }
    fn tell(&mut self, gone: u8, come: u8) -> bool {
        if self.packet {
            self.status = self.status & !gone | come;
        }
        self.packet
    }
}

impl Pair {
    pub(super) fn try_new(number: KArc<dyn Any + Send + Sync>) -> Result<KArc<Self>> {
        let ends = Ends {
            ring: KVec::try_from_elem(0, SIZE)?,
            head: 0,
            tail: 0,
            stopped: false,
            slave_closed: false,
            master_closed: false,
            locked: true,
            packet: false,
            status: 0,
        };
        Ok(KArc::try_new(Self {
            ends: SpinLock::new(ends, &ENDS),
            readers: WaitQueue::new(),
            writers: WaitQueue::new(),
            _number: number,
        })?)
    }

    /// Bytes for the master.
    pub(super) fn readable(&self) -> usize {
        self.ends.lock().len()
    }

    /// Takes what the slave has written, or what happened to it. With `packet_head` a byte before
    /// the data was written already: only data may follow.
    pub(super) fn take(&self, out: &mut [u8], packet_head: bool) -> (Taken, bool) {
        let mut s = self.ends.lock();
        let packet = s.packet;
        if packet && s.status != 0 && !packet_head {
            return (Taken::Status(core::mem::take(&mut s.status)), packet);
        }
        let mut n = 0;
        for slot in out.iter_mut() {
            if s.tail == s.head {
                break;
            }
            *slot = s.ring.get(s.tail % SIZE).copied().unwrap_or(0);
            s.tail += 1;
            n += 1;
        }
        let taken = match n {
            0 if s.len() > 0 => Taken::Data(0),
            0 if s.slave_closed => Taken::Closed,
            0 => Taken::Nothing,
            n => Taken::Data(n),
        };
        (taken, packet)
    }

    /// Data, a state to tell, or the end: the master's read would not wait. Then whether there is a
    /// state, and whether it is the end.
    pub(super) fn look(&self) -> (bool, bool, bool) {
        let s = self.ends.lock();
        let status = s.packet && s.status != 0;
        (s.len() > 0 || status, status, s.slave_closed)
    }

    pub(super) fn set_packet(&self, on: bool) {
        let mut s = self.ends.lock();
        s.packet = on;
        s.status = 0;
    }

    pub(super) fn is_packet(&self) -> bool {
        self.ends.lock().packet
    }

    /// Discards what the slave has written.
    pub(super) fn discard_output(&self) {
        let mut s = self.ends.lock();
        s.tail = s.head;
    }

    pub(super) fn close_master(&self) {
        self.ends.lock().master_closed = true;
    }

    fn announce(&self, told: bool) {
        if told {
            self.readers.wake_all_key(g::POLLIN | g::POLLRDNORM | g::POLLPRI);
        }
    }
}

impl TtyDriver for Pair {
    fn may_open(&self) -> Result {
        let s = self.ends.lock();
        if s.master_closed || s.locked { Err(Errno::EIO) } else { Ok(()) }
    }

    fn open(&self) -> Result {
        self.ends.lock().slave_closed = false;
        Ok(())
    }

    fn close(&self) {
        self.ends.lock().slave_closed = true;
        self.readers.wake_all_key(g::POLLIN | g::POLLHUP);
        self.writers.wake_all_key(g::POLLOUT | g::POLLHUP);
    }

    fn write(&self, bytes: &[u8]) -> usize {
        let n = {
            let mut s = self.ends.lock();
            let n = bytes.len().min(s.room());
            s.push(bytes.get(..n).unwrap_or_default());
            n
        };
        if n > 0 {
            self.readers.wake_all_key(g::POLLIN | g::POLLRDNORM);
        }
        n
    }

    fn write_room(&self) -> usize {
        self.ends.lock().room()
    }

    fn unsent(&self) -> usize {
        0
    }

    fn flush(&self) {
        let told = {
            let mut s = self.ends.lock();
            let keep = s.len().min(KEPT);
            s.head = s.tail + keep;
            s.tell(0, FLUSHWRITE)
        };
        self.announce(told);
    }

    fn stop(&self) {
        let told = {
            let mut s = self.ends.lock();
            s.stopped = true;
            s.tell(START, STOP)
        };
        self.announce(told);
    }

    fn start(&self) {
        let told = {
            let mut s = self.ends.lock();
            s.stopped = false;
            s.tell(STOP, START)
        };
        self.announce(told);
    }

    fn send_now(&self, c: u8) {
        {
            let mut s = self.ends.lock();
            if s.len() < SIZE {
                s.push(&[c]);
            }
        }
        self.readers.wake_all_key(g::POLLIN | g::POLLRDNORM);
    }

    fn set_termios(&self, new: &mut Termios, old: &Termios) {
        new.cflag = new.cflag & !(g::CSIZE | g::PARENB) | g::CS8 | g::CREAD;
        let by_keys = |t: &Termios| t.i(g::IXON) && t.cc(g::VSTOP) == 0o23 && t.cc(g::VSTART) == 0o21;
        let (was, is) = (by_keys(old), by_keys(new));
        let external = old.l(g::EXTPROC) || new.l(g::EXTPROC);
        let told = {
            let mut s = self.ends.lock();
            let flow = if was == is { 0 } else if is { DOSTOP } else { NOSTOP };
            let come = flow | if external { IOCTL } else { 0 };
            come != 0 && s.tell(if flow == 0 { 0 } else { DOSTOP | NOSTOP }, come)
        };
        self.announce(told);
    }

    fn set_break(&self, _on: bool) {}

    fn has_break(&self) -> bool {
        false
    }

    fn is_gone(&self) -> bool {
        self.ends.lock().master_closed
    }

    fn input_taken(&self) {
        self.writers.wake_all_key(g::POLLOUT | g::POLLWRNORM);
    }

    fn input_flushed(&self) {
        let told = self.ends.lock().tell(0, FLUSHREAD);
        self.announce(told);
        self.input_taken();
    }
}
