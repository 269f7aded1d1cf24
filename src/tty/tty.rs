//! A terminal: the line discipline between a device and those who read and write.
//!
//! Input: the device's interrupt handler hands bytes to [`Tty::input`], which puts them into the
//! flip buffer under a lock that is safe in interrupts, and wakes the terminal's own kernel
//! thread. That thread runs the line discipline. So signals and wake-ups come from thread context
//! (the process layer's locks are not for interrupts), and the discipline's lock leaves interrupts
//! on. A pseudo-terminal has no interrupts and no thread: whoever gives it input runs the
//! discipline.
//!
//! Locks, outer to inner: `read`, `write` (sleeping; one reader and one writer at a time), `state`
//! (spin, thread context), `flip` (spin, interrupts off). The device's own locks come below.
//! Signals are sent with none of them held.

use crate::{
    Flag, Ldisc, Termios, TtyDriver,
    flip::Flip,
    job,
    ldisc::Events,
};
use abi::{DevNum, Errno, Nanos, Result, raw::general as g};
use kalloc::{KArc, KString};
use mm::io::{IoSink, IoSource};
use sched::{Mutex, MutexGuard, Outcome, Sleep, WaitQueue};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

static READ: LockClass = LockClass::new("tty_read", 310);
static WRITE: LockClass = LockClass::new("tty_write", 320);
static STATE: LockClass = LockClass::new("tty_state", 1255);
static FLIP: LockClass = LockClass::new("tty_flip", 1260);

/// What is copied at a time between user memory and the terminal.
const CHUNK: usize = 256;
/// Room that a writer waits for, so that it does not run for every single byte.
const WAKE_ROOM: usize = 64;

/// Window size, `struct winsize`: rows, columns, pixels across and down.
pub(crate) type WinSize = [u16; 4];

pub(crate) struct State {
    pub(crate) ldisc: Ldisc,
    pub(crate) termios: Termios,
    pub(crate) winsize: WinSize,
    pub(crate) session: Option<u32>,
    pub(crate) pgrp: Option<u32>,
    pub(crate) exclusive: bool,
    opens: u32,
    /// The discipline takes no more until something is read.
    full: bool,
    /// VSTOP was sent to the other side (IXOFF).
    throttled: bool,
}

/// A terminal.
pub struct Tty {
    name: KString,
    dev: DevNum,
    pub(crate) driver: KArc<dyn TtyDriver>,
    pub(crate) state: SpinLock<State>,
    flip: SpinLock<Flip>,
    /// Something for the terminal's thread.
    work: AtomicBool,
    /// There is no thread: who has work does it.
    inline: bool,
    /// Somebody is at it.
    working: AtomicBool,
    worker: WaitQueue,
    read: Mutex<()>,
    write: Mutex<()>,
    pub(crate) readers: WaitQueue,
    pub(crate) writers: WaitQueue,
    /// Counts hang-ups: a file that was opened before one is dead.
    hangups: AtomicU32,
}

impl Tty {
    /// A terminal over a device, named `name` in messages, with its thread started. May sleep.
    pub fn try_new(name: KString, dev: DevNum, driver: KArc<dyn TtyDriver>, termios: Termios) -> Result<KArc<Self>> {
        let tty = Self::without_thread(name, dev, driver, termios, false)?;
        let mine = tty.clone();
        // The thread lives as long as the machine, and so does the terminal.
        sched::kthread::spawn("ttyin", move || mine.run())?;
        Ok(tty)
    }

    /// A terminal whose input comes from threads that may run the discipline themselves.
    pub(crate) fn for_pty(name: KString, dev: DevNum, driver: KArc<dyn TtyDriver>, termios: Termios) -> Result<KArc<Self>> {
        Self::without_thread(name, dev, driver, termios, true)
    }

    fn without_thread(
        name: KString,
        dev: DevNum,
        driver: KArc<dyn TtyDriver>,
        termios: Termios,
        inline: bool,
    ) -> Result<KArc<Self>> {
        let state = State {
            ldisc: Ldisc::try_new()?,
            termios,
            winsize: [0; 4],
            session: None,
            pgrp: None,
            exclusive: false,
            opens: 0,
            full: false,
            throttled: false,
        };
        Ok(KArc::try_new(Self {
            name,
            dev,
            driver,
            state: SpinLock::new(state, &STATE),
            flip: SpinLock::new(Flip::try_new()?, &FLIP),
            work: AtomicBool::new(false),
            inline,
            working: AtomicBool::new(false),
            worker: WaitQueue::new(),
            read: Mutex::new((), &READ),
            write: Mutex::new((), &WRITE),
            readers: WaitQueue::new(),
            writers: WaitQueue::new(),
            hangups: AtomicU32::new(0),
        })?)
    }

    /// Its name, as "ttyAMA0".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is the slave of a pseudo-terminal.
    pub fn is_pty(&self) -> bool {
        self.inline
    }

    /// Its device number.
    pub fn dev(&self) -> DevNum {
        self.dev
    }

    /// The settings.
    pub fn termios(&self) -> Termios {
        self.state.lock().termios
    }

    /// The session whose controlling terminal it is.
    pub fn session(&self) -> Option<u32> {
        self.state.lock().session
    }

    /// The foreground process group.
    pub fn foreground_group(&self) -> Option<u32> {
        self.state.lock().pgrp
    }

    /// The session ends: the terminal is free for another. Files that were opened by the terminal's
    /// own name are dead from then on, as after a hang-up; not so those of a pseudo-terminal, whose
    /// master goes on reading what they write.
    pub fn release_session(&self, session: u32) {
        let released = {
            let mut s = self.state.lock();
            let is_its = s.session == Some(session);
            if is_its {
                s.session = None;
                s.pgrp = None;
            }
            is_its
        };
        if released && !self.is_pty() {
            self.kill_files();
        }
    }

    /// The line was lost, or `vhangup(2)`: the session has no terminal any more and its leader gets
    /// SIGHUP and SIGCONT (the foreground group follows when the leader ends), and every file but
    /// /dev/console is dead.
    pub fn hang_up(&self) {
        let (session, pgrp) = {
            let mut s = self.state.lock();
            (s.session.take(), s.pgrp.take())
        };
        self.kill_files();
        if let (Some(jobs), Some(session)) = (job::jobs(), session) {
            jobs.session_hung_up(session, pgrp);
        }
    }

    fn kill_files(&self) {
        self.hangups.fetch_add(1, Ordering::AcqRel);
        self.state.lock().ldisc.flush_input();
        self.readers.wake_all_key(g::POLLIN | g::POLLHUP);
        self.writers.wake_all_key(g::POLLOUT | g::POLLHUP);
    }

    pub(crate) fn hangups(&self) -> u32 {
        self.hangups.load(Ordering::Acquire)
    }

    /// A file was opened. EBUSY after TIOCEXCL, for who may not override it.
    pub(crate) fn opened(&self, may_override: bool) -> Result {
        let mut s = self.state.lock();
        if s.exclusive && !may_override {
            return Err(Errno::EBUSY);
        }
        self.driver.may_open()?;
        // With the lock held, as in `closed`: the device hears of the two in their order.
        if s.opens == 0 {
            self.driver.open()?;
        }
        s.opens += 1;
        Ok(())
    }

    /// A file was closed.
    pub(crate) fn closed(&self) {
        let mut s = self.state.lock();
        s.opens = s.opens.saturating_sub(1);
        if s.opens > 0 {
            return;
        }
        // A pseudo-terminal stays as it is while its master is open.
        if !self.inline {
            s.exclusive = false;
            s.ldisc.flush_input();
        }
        self.driver.close();
    }

    /// Received bytes. Any context.
    pub fn input(&self, bytes: &[u8], flag: Flag) {
        {
            let mut flip = self.flip.lock_irq();
            for &c in bytes {
                flip.push(c, flag);
            }
        }
        self.kick();
    }

    /// The device has room for output again, or has sent everything. Any context.
    pub fn output_ready(&self) {
        // Echo may wait for the room too.
        self.kick();
        self.writers.wake_all_key(g::POLLOUT | g::POLLWRNORM);
    }

    /// As [`input`](Self::input) for a thread that can wait: takes what fits, and says how much.
    pub(crate) fn offer(&self, bytes: &[u8]) -> usize {
        let n = {
            let mut flip = self.flip.lock_irq();
            let n = flip.room().min(bytes.len());
            for &c in bytes.get(..n).unwrap_or_default() {
                flip.push(c, Flag::Normal);
            }
            n
        };
        if n > 0 {
            self.kick();
        }
        n
    }

    /// How much [`offer`](Self::offer) would take.
    pub(crate) fn input_room(&self) -> usize {
        self.flip.lock_irq().room()
    }

    /// Discards input that the line discipline has not seen.
    pub(crate) fn drop_unprocessed(&self) {
        self.flip.lock_irq().clear();
        self.driver.input_taken();
    }

    /// Has the line discipline run, by the terminal's thread or, without one, by the caller.
    fn kick(&self) {
        // Before the look at `working`: whoever leaves that looks at `work` after it.
        self.work.store(true, Ordering::SeqCst);
        if !self.inline {
            self.worker.wake_one();
            return;
        }
        // Whoever is at it sees `work` before it leaves, or leaves before the swap here.
        while self.work.load(Ordering::SeqCst) && !self.working.swap(true, Ordering::SeqCst) {
            while self.work.swap(false, Ordering::SeqCst) {
                self.process_input();
            }
            self.working.store(false, Ordering::SeqCst);
        }
    }

    fn run(&self) {
        loop {
            // Interruptible, so that it does not count as load; it gets no signals.
            let _ = self.worker.wait_until(Sleep::Interruptible, None, || {
                self.work.swap(false, Ordering::AcqRel).then_some(())
            });
            self.process_input();
        }
    }

    /// Runs the line discipline over what was received.
    pub(crate) fn process_input(&self) {
        let mut bytes = [0; 64];
        loop {
            let (n, flag, start) = self.flip.lock_irq().peek(&mut bytes);
            let (taken, events, pgrp, readable) = {
                let mut state = self.state.lock();
                let s = &mut *state;
                let taken = s.ldisc.receive(&s.termios, bytes.get(..n).unwrap_or_default(), flag);
                s.full = taken < n;
                let events = self.carry_out(s);
                self.throttle(s, n > 0);
                (taken, events, s.pgrp, s.ldisc.readable(&s.termios))
            };
            self.flip.lock_irq().taken_to(start + taken);
            if taken > 0 {
                self.driver.input_taken();
            }
            self.raise(events, pgrp);
            if taken > 0 && readable {
                self.readers.wake_all_key(g::POLLIN | g::POLLRDNORM);
            }
            if taken == 0 || taken < n {
                return;
            }
        }
    }

    /// Does what the discipline asks of the device, and writes its echo.
    pub(crate) fn carry_out(&self, s: &mut State) -> Events {
        let events = s.ldisc.take_events();
        if events.flush_output {
            self.driver.flush();
        }
        match events.output {
            Some(true) => {
                self.driver.start();
                self.writers.wake_all_key(g::POLLOUT | g::POLLWRNORM);
            }
            Some(false) => self.driver.stop(),
            None => {}
        }
        self.write_echo(s);
        events
    }

    fn write_echo(&self, s: &mut State) {
        let echo = s.ldisc.pending_echo();
        if !echo.is_empty() {
            let n = self.driver.write(echo);
            s.ldisc.echo_written(n);
        }
    }

    /// Sends the signals of `events`; no lock is held.
    pub(crate) fn raise(&self, events: Events, pgrp: Option<u32>) {
        for signal in [g::SIGINT, g::SIGQUIT, g::SIGTSTP] {
            if events.signals >> signal & 1 != 0 {
                job::signal_group(pgrp, signal);
            }
        }
        if events.flush_output {
            self.writers.wake_all_key(g::POLLOUT | g::POLLWRNORM);
        }
    }

    /// With IXOFF the other side is asked to stop while input piles up.
    fn throttle(&self, s: &mut State, arriving: bool) {
        if !s.termios.i(g::IXOFF) {
            s.throttled = false;
            return;
        }
        let flip = self.flip.lock_irq();
        let (high, low) = (s.full || flip.is_nearly_full(), flip.len() == 0 && !s.full);
        drop(flip);
        if arriving && high && !s.throttled {
            s.throttled = true;
            self.driver.send_now(s.termios.cc(g::VSTOP));
        } else if low && s.throttled {
            s.throttled = false;
            self.driver.send_now(s.termios.cc(g::VSTART));
        }
    }

    /// Something was read: what waits may fit now.
    fn made_room(&self) {
        let waiting = {
            let s = self.state.lock();
            s.full || s.throttled
        };
        if waiting {
            self.kick();
        }
    }

    fn turn<'a>(lock: &'a Mutex<()>, nonblocking: bool) -> Result<MutexGuard<'a, ()>> {
        if nonblocking {
            return lock.try_lock().ok_or(Errno::EAGAIN);
        }
        lock.lock_interruptible().map_err(|_| Errno::ERESTARTSYS)
    }

    /// `read(2)`: a line in canonical mode, else by VMIN and VTIME (`termios(3)`). `alive`: no
    /// hang-up since the file was opened.
    pub(crate) fn read(&self, dst: &mut IoSink<'_>, nonblocking: bool, alive: impl Fn() -> bool) -> Result<usize> {
        let _turn = Self::turn(&self.read, nonblocking)?;
        let t = self.termios();
        let tenths = |n: u8| Nanos::from_millis(u64::from(n) * 100);
        let (mut minimum, mut between, mut timeout) = (0, None, None);
        if !t.l(g::ICANON) {
            minimum = usize::from(t.cc(g::VMIN));
            let time = tenths(t.cc(g::VTIME));
            if minimum == 0 {
                minimum = 1;
                timeout = Some(time);
            } else if time != Nanos::ZERO {
                between = Some(time);
            }
        }
        let mut total = 0;
        let outcome = loop {
            if dst.remaining() == 0 {
                break Ok(());
            }
            match self.take_input(dst) {
                Err(e) => break Err(e),
                Ok(Some((copied, complete))) => {
                    total += copied;
                    if complete || total >= minimum {
                        break Ok(());
                    }
                    if between.is_some() {
                        timeout = between;
                    }
                    continue;
                }
                Ok(None) => {}
            }
            if self.driver.is_gone() {
                break Err(Errno::EIO);
            }
            if !alive() || timeout == Some(Nanos::ZERO) {
                break Ok(());
            }
            if nonblocking {
                break Err(Errno::EAGAIN);
            }
            let deadline = timeout.map(|t| time::monotonic().saturating_add(t));
            let ready = || (!alive() || self.is_readable()).then_some(());
            match self.readers.wait_until(Sleep::Interruptible, deadline, ready) {
                Outcome::Ready(()) => {}
                Outcome::TimedOut => timeout = Some(Nanos::ZERO),
                Outcome::Interrupted => break Err(Errno::ERESTARTSYS),
            }
        };
        self.made_room();
        match outcome {
            Err(e) if total == 0 => Err(e),
            _ => Ok(total),
        }
    }

    fn is_readable(&self) -> bool {
        let s = self.state.lock();
        s.ldisc.readable(&s.termios)
    }

    /// Moves what is there to the reader: the bytes, and whether the read is complete. None: there
    /// is nothing.
    fn take_input(&self, dst: &mut IoSink<'_>) -> Result<Option<(usize, bool)>> {
        let mut total = 0;
        let mut buf = [0; CHUNK];
        loop {
            let room = dst.remaining().min(CHUNK);
            let out = buf.get_mut(..room).unwrap_or_default();
            let (n, line_ended, by_lines) = {
                let mut s = self.state.lock();
                let t = s.termios;
                if !s.ldisc.readable(&t) {
                    return Ok(if total > 0 { Some((total, t.l(g::ICANON))) } else { None });
                }
                if t.l(g::ICANON) && !t.l(g::EXTPROC) {
                    let r = s.ldisc.read_line(out);
                    if !r.line_ended && r.copied == dst.remaining() {
                        s.ldisc.skip_eof();
                    }
                    (r.copied, r.line_ended, true)
                } else {
                    (s.ldisc.read_raw(out), false, false)
                }
            };
            // What cannot be stored is lost, as on Linux.
            let stored = if n > 0 { dst.write(out.get(..n).unwrap_or_default())? } else { 0 };
            total += stored;
            if stored < n || line_ended || dst.remaining() == 0 {
                return Ok(Some((total, by_lines || dst.remaining() == 0)));
            }
        }
    }

    /// `write(2)`: waits for room as long as it takes, unless the file does not block.
    pub(crate) fn write(&self, src: &mut IoSource<'_>, nonblocking: bool, alive: impl Fn() -> bool) -> Result<usize> {
        let _turn = Self::turn(&self.write, nonblocking)?;
        let mut total = 0;
        let mut buf = [0; CHUNK];
        while src.remaining() > 0 {
            let n = match src.read(&mut buf) {
                Ok(n) if n > 0 => n,
                Ok(_) => break,
                Err(e) => return if total > 0 { Ok(total) } else { Err(e) },
            };
            let chunk = buf.get(..n).unwrap_or_default();
            let (sent, outcome) = self.write_chunk(chunk, nonblocking, &alive);
            total += sent;
            if let Err(e) = outcome {
                src.revert(n - sent);
                return if total > 0 { Ok(total) } else { Err(e) };
            }
        }
        Ok(total)
    }

    fn write_chunk(&self, mut chunk: &[u8], nonblocking: bool, alive: &impl Fn() -> bool) -> (usize, Result) {
        let mut sent = 0;
        while !chunk.is_empty() {
            if !alive() {
                return (sent, Err(Errno::EIO));
            }
            let n = self.write_some(chunk);
            sent += n;
            chunk = chunk.get(n..).unwrap_or_default();
            if n > 0 {
                continue;
            }
            if nonblocking {
                return (sent, Err(Errno::EAGAIN));
            }
            let room = || (!alive() || self.driver.write_room() >= WAKE_ROOM).then_some(());
            match self.writers.wait_until(Sleep::Interruptible, None, room) {
                Outcome::Ready(()) => {}
                Outcome::Interrupted | Outcome::TimedOut => return (sent, Err(Errno::ERESTARTSYS)),
            }
        }
        (sent, Ok(()))
    }

    /// Gives the device what it has room for; how much of `bytes` that was.
    fn write_some(&self, bytes: &[u8]) -> usize {
        let mut out = [0; 2 * CHUNK];
        let mut state = self.state.lock();
        let s = &mut *state;
        // What was typed before is echoed before.
        self.write_echo(s);
        if !s.ldisc.pending_echo().is_empty() {
            return 0;
        }
        let room = self.driver.write_room().min(out.len());
        let out = out.get_mut(..room).unwrap_or_default();
        let (consumed, produced) = s.ldisc.process_output(&s.termios, bytes, out);
        // All of it fits: only holders of `state` write.
        self.driver.write(out.get(..produced).unwrap_or_default());
        consumed
    }

    /// Waits until everything is sent (`tcdrain(3)`). ERESTARTSYS.
    pub(crate) fn drain(&self) -> Result {
        loop {
            // The last byte leaves the device without an interrupt: look again soon.
            let deadline = time::monotonic().saturating_add(Nanos::from_millis(10));
            let sent = || (self.driver.unsent() == 0).then_some(());
            match self.writers.wait_until(Sleep::Interruptible, Some(deadline), sent) {
                Outcome::Ready(()) => return Ok(()),
                Outcome::TimedOut => {}
                Outcome::Interrupted => return Err(Errno::ERESTARTSYS),
            }
        }
    }

    /// Discards what was received and not read.
    pub(crate) fn flush_input(&self) {
        self.flip.lock_irq().clear();
        let mut s = self.state.lock();
        s.ldisc.flush_input();
        s.full = false;
        self.throttle(&mut s, false);
        drop(s);
        self.driver.input_flushed();
    }

    /// Changes the settings.
    pub(crate) fn set_termios(&self, mut new: Termios) {
        let (events, pgrp) = {
            let mut state = self.state.lock();
            let s = &mut *state;
            let old = s.termios;
            // Linnet has this discipline only.
            new.line = 0;
            self.driver.set_termios(&mut new, &old);
            s.termios = new;
            s.ldisc.settings_changed(&old, &new);
            s.full = false;
            (self.carry_out(s), s.pgrp)
        };
        self.raise(events, pgrp);
        // What may be read and written may have changed.
        self.kick();
        self.readers.wake_all_key(g::POLLIN | g::POLLRDNORM);
        self.writers.wake_all_key(g::POLLOUT | g::POLLWRNORM);
    }

    /// Stops or starts the output by a program's order (`tcflow(3)`).
    pub(crate) fn set_output(&self, on: bool) {
        let mut s = self.state.lock();
        if s.ldisc.set_stopped(!on) {
            if on {
                self.driver.start();
                self.writers.wake_all_key(g::POLLOUT | g::POLLWRNORM);
            } else {
                self.driver.stop();
            }
        }
    }
}

#[cfg(test)]
#[path = "tty_tests.rs"]
mod tests;
