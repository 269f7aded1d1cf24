//! The master's end of a pseudo-terminal as an open file.
//!
//! Reads give what the slave has written, and EIO once nobody has the slave open any more; in packet
//! mode a byte before it tells what it is. Writes are the slave's keyboard. Settings, window size and
//! foreground group are those of the slave. The close of the last descriptor hangs the slave up.

use super::{
    Place,
    pair::{DATA, Pair, Taken},
};
use crate::{Tty, ioctl, job};
use abi::{Errno, Result, raw::{general as g, ioctl as n}};
use core::any::Any;
use kalloc::{KArc, KBox};
use mm::io::{IoSink, IoSource};
use sched::{Mutex, Outcome, Sleep};
use sync::LockClass;
use vfs::{
    Credentials, FileOps, OpenFile, PollEvents, PollTable,
    splice::{self, Pages},
};

static READ: LockClass = LockClass::new("pty_read", 312);
static WRITE: LockClass = LockClass::new("pty_write", 314);

const CHUNK: usize = 256;
/// What one read gives at most: Linux's line discipline holds no more.
const READ_MAX: usize = 4095;

// asm-generic/ioctls.h.
const TIOCPKT: u32 = 0x5420;
const TIOCNOTTY: u32 = 0x5422;
const TIOCVHANGUP: u32 = 0x5437;
const TIOCGPTLCK: u32 = 0x8004_5439;
const TIOCGPKT: u32 = 0x8004_5438;
const TIOCGPTN: u32 = 0x8004_5430;
const TIOCSPTLCK: u32 = 0x4004_5431;
const TIOCSIG: u32 = 0x4004_5436;

/// An open master.
pub struct Master {
    tty: KArc<Tty>,
    pair: KArc<Pair>,
    index: u32,
    place: KBox<dyn Place>,
    read: Mutex<()>,
    write: Mutex<()>,
}

impl Master {
    pub(super) fn new(tty: KArc<Tty>, pair: KArc<Pair>, index: u32, place: KBox<dyn Place>) -> Self {
        Self { tty, pair, index, place, read: Mutex::new((), &READ), write: Mutex::new((), &WRITE) }
    }

    /// Opens the slave without its name (TIOCGPTPEER).
    pub fn open_slave(&self, flags: u32, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
        self.place.open_slave(flags, cred)
    }

    /// Moves what is there to the reader. None: nothing, and whether that is the end.
    fn take(&self, dst: &mut IoSink<'_>) -> Result<core::result::Result<usize, bool>> {
        let mut buf = [0; CHUNK];
        let mut total = 0;
        let mut headed = false;
        while dst.remaining() > 0 && total < READ_MAX {
            // In packet mode the first byte of the room is the head's.
            let mut room = dst.remaining().min(READ_MAX - total).min(CHUNK);
            if !headed && total == 0 && self.pair.is_packet() {
                room -= 1;
            }
            let (taken, packet) = self.pair.take(buf.get_mut(..room).unwrap_or_default(), headed || total > 0);
            match taken {
                Taken::Status(s) => {
                    dst.write(&[s])?;
                    return Ok(Ok(1));
                }
                // Room for the head alone.
                Taken::Data(0) => {
                    dst.write(&[DATA])?;
                    return Ok(Ok(1));
                }
                Taken::Data(count) => {
                    if packet && !headed && total == 0 {
                        dst.write(&[DATA])?;
                        (headed, total) = (true, 1);
                    }
                    // What cannot be stored is lost, as on Linux.
                    total += dst.write(buf.get(..count).unwrap_or_default())?;
                }
                Taken::Nothing | Taken::Closed if total > 0 => break,
                Taken::Nothing => return Ok(Err(false)),
                Taken::Closed => return Ok(Err(true)),
            }
        }
        Ok(Ok(total))
    }

    /// What the slave has written.
    fn read_output(&self, dst: &mut IoSink<'_>, nonblocking: bool) -> Result<usize> {
        let turn = turn(&self.read, nonblocking)?;
        if dst.remaining() == 0 {
            return Ok(0);
        }
        loop {
            match self.take(dst)? {
                Ok(n) => {
                    drop(turn);
                    self.tty.output_ready();
                    return Ok(n);
                }
                Err(true) => return Err(Errno::EIO),
                Err(false) => {}
            }
            if nonblocking {
                return Err(Errno::EAGAIN);
            }
            let ready = || {
                let (data, _, closed) = self.pair.look();
                (data || closed).then_some(())
            };
            if let Outcome::Interrupted = self.pair.readers.wait_until(Sleep::Interruptible, None, ready) {
                return Err(Errno::ERESTARTSYS);
            }
        }
    }

    /// Types into the slave.
    fn write_input(&self, src: &mut IoSource<'_>, nonblocking: bool) -> Result<usize> {
        let _turn = turn(&self.write, nonblocking)?;
        let mut total = 0;
        let mut buf = [0; CHUNK];
        while src.remaining() > 0 {
            let n = match src.read(&mut buf) {
                Ok(n) if n > 0 => n,
                Ok(_) => break,
                Err(e) => return if total > 0 { Ok(total) } else { Err(e) },
            };
            let mut rest = buf.get(..n).unwrap_or_default();
            while !rest.is_empty() {
                let taken = self.tty.offer(rest);
                total += taken;
                rest = rest.get(taken..).unwrap_or_default();
                if taken > 0 {
                    continue;
                }
                let outcome = if nonblocking {
                    Err(Errno::EAGAIN)
                } else {
                    let room = || (self.tty.input_room() > 0).then_some(());
                    match self.pair.writers.wait_until(Sleep::Interruptible, None, room) {
                        Outcome::Ready(()) => Ok(()),
                        _ => Err(Errno::ERESTARTSYS),
                    }
                };
                if let Err(e) = outcome {
                    src.revert(rest.len());
                    return if total > 0 { Ok(total) } else { Err(e) };
                }
            }
        }
        Ok(total)
    }

    fn discard(&self, queue: u64) -> Result<u64> {
        let (input, output) = ioctl::queues(queue)?;
        if input {
            self.pair.discard_output();
            self.tty.output_ready();
        }
        if output {
            self.tty.drop_unprocessed();
        }
        Ok(0)
    }
}

fn turn(lock: &Mutex<()>, nonblocking: bool) -> Result<sched::MutexGuard<'_, ()>> {
    if nonblocking {
        return lock.try_lock().ok_or(Errno::EAGAIN);
    }
    lock.lock_interruptible().map_err(|_| Errno::ERESTARTSYS)
}

impl Drop for Master {
    fn drop(&mut self) {
        self.pair.close_master();
        self.place.master_closed();
        self.tty.hang_up();
    }
}

impl FileOps for Master {
    fn splice_read(&self, f: &OpenFile, pos: &mut u64, len: usize, pages: &mut Pages) -> Result<usize> {
        splice::read_copied(f, pos, len, pages)
    }
    fn can_splice_write(&self) -> bool {
        true
    }
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        self.read_output(dst, f.is_nonblocking())
    }

    fn write(&self, f: &OpenFile, src: &mut IoSource<'_>, _pos: &mut u64) -> Result<usize> {
        self.write_input(src, f.is_nonblocking())
    }

    fn can_seek(&self) -> bool {
        false
    }

    fn ioctl(&self, f: &OpenFile, cmd: u32, arg: u64) -> Result<u64> {
        match cmd {
            TIOCGPTN => ioctl::put_int(arg, self.index as i32),
            TIOCSPTLCK => {
                let on = ioctl::get_int(arg)? != 0;
                self.pair.ends.lock().locked = on;
                Ok(0)
            }
            TIOCGPTLCK => ioctl::put_int(arg, i32::from(self.pair.ends.lock().locked)),
            TIOCPKT => {
                let on = ioctl::get_int(arg)? != 0;
                if on != self.pair.is_packet() {
                    self.pair.set_packet(on);
                }
                Ok(0)
            }
            TIOCGPKT => ioctl::put_int(arg, i32::from(self.pair.is_packet())),
            TIOCSIG => {
                let signal = u32::try_from(arg).map_err(|_| Errno::EINVAL)?;
                if !matches!(signal, g::SIGINT | g::SIGQUIT | g::SIGTSTP) {
                    return Err(Errno::EINVAL);
                }
                job::signal_group(self.tty.foreground_group(), signal);
                Ok(0)
            }
            n::FIONREAD => ioctl::put_int(arg, self.pair.readable() as i32),
            n::TCFLSH => self.discard(arg),
            // The master's own output is never stopped: keys reach the slave at any time.
            n::TCXONC | TIOCVHANGUP => Err(Errno::EINVAL),
            TIOCNOTTY => Err(Errno::ENOTTY),
            // Asked through the master, these need no controlling terminal.
            n::TIOCGPGRP => ioctl::put_int(arg, self.tty.foreground_group().unwrap_or(0) as i32),
            n::TIOCGSID => ioctl::put_int(arg, self.tty.session().ok_or(Errno::ENOTTY)? as i32),
            _ => ioctl::ioctl(&self.tty, f, cmd, arg),
        }
    }

    fn poll(&self, _f: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.register(&self.pair.readers);
        table.register(&self.pair.writers);
        let (readable, status, closed) = self.pair.look();
        let mut events = PollEvents::empty();
        if readable {
            events |= PollEvents::READABLE;
        }
        if status {
            events |= PollEvents::PRI;
        }
        if closed {
            events |= PollEvents::HUP;
        }
        if self.tty.input_room() > 0 {
            events |= PollEvents::OUT | PollEvents::WRNORM;
        }
        events
    }

    fn can_poll(&self) -> bool {
        true
    }

    fn fdinfo(&self, _f: &OpenFile, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        writeln!(out, "tty-index:\t{}", self.index)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
impl Master {
    pub(super) fn unlock(&self) {
        self.pair.ends.lock().locked = false;
    }
    pub(super) fn set_packet_mode(&self, on: bool) {
        self.pair.set_packet(on);
    }
}

#[cfg(test)]
pub(super) mod tests_support {
    use super::*;

    pub(crate) fn read(master: &Master, room: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0; room];
        let n = master.read_output(&mut IoSink::kernel(&mut buf), true)?;
        buf.truncate(n);
        Ok(buf)
    }

    pub(crate) fn write(master: &Master, bytes: &[u8]) -> Result<usize> {
        master.write_input(&mut IoSource::kernel(bytes), true)
    }
}
