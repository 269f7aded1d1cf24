//! The line discipline N_TTY as pure logic: bytes in, bytes out, signals, lines to read.
//!
//! It answers for what happens between the keyboard and `read(2)`, and between `write(2)` and the
//! wire: editing a line, echoing it, turning control characters into signals and flow control,
//! expanding newlines and tabs. It knows no locks, threads or devices; [`crate::Tty`] calls it
//! under the terminal's lock and carries out what it asks for ([`Ldisc::take_events`]).
//!
//! Invariants: `tail <= canon_head <= head`; `head - tail <= SIZE`; a position is marked only
//! when it ends a line and lies in `tail..canon_head`.
//!
//! Source: `termios(3)`, and Linux 6.1's behaviour where the page is silent: the tables of
//! `tests.rs` were recorded from a Linux pseudo-terminal.

mod echo;
mod edit;
mod input;
mod read;
#[cfg(test)]
mod tests;

pub use input::Flag;
pub use read::CanonRead;

use crate::termios::Termios;
use abi::raw::general as g;
use kalloc::{AllocError, KVec};

/// Bytes of input that wait to be read, at most: Linux's `N_TTY_BUF_SIZE`.
pub const SIZE: usize = 4096;
/// Bytes of echo that wait for the device, at most; more is lost.
const ECHO_SIZE: usize = 4096;
/// What stands in the buffer for an end-of-file character: the value that switches one off.
const EOF_MARK: u8 = 0;

/// What the discipline asks the terminal to do, in this order: flush the output, then send the
/// signals, then start or stop the output, then write the echo.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Events {
    /// Signals for the foreground process group, one bit each: 1 << signal number.
    pub signals: u64,
    /// Discard output that the device has not sent yet.
    pub flush_output: bool,
    /// Start (true) or stop (false) output.
    pub output: Option<bool>,
}

impl Events {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The state of the discipline for one terminal.
pub struct Ldisc {
    /// Ring of `SIZE` bytes: what was typed and not read.
    buf: KVec<u8>,
    /// Which positions of the ring end a line.
    marks: KVec<u64>,
    /// Free-running positions; `& (SIZE - 1)` gives the place in the ring.
    head: usize,
    tail: usize,
    /// Behind the last complete line.
    canon_head: usize,
    /// The next character is taken literally (VLNEXT).
    literal_next: bool,
    /// Inside the `\...\/` of ECHOPRT.
    erasing: bool,
    /// The cursor's column, and that in which the current line's input began.
    column: usize,
    canon_column: usize,
    /// Output is stopped (VSTOP).
    stopped: bool,
    /// Echo that waits for the device.
    echo: KVec<u8>,
    events: Events,
}

impl Ldisc {
    /// A discipline with nothing typed. Takes its buffers now, so that input never needs memory.
    pub fn try_new() -> Result<Self, AllocError> {
        Ok(Self {
            buf: KVec::try_from_elem(0, SIZE)?,
            marks: KVec::try_from_elem(0, SIZE / 64)?,
            head: 0,
            tail: 0,
            canon_head: 0,
            literal_next: false,
            erasing: false,
            column: 0,
            canon_column: 0,
            stopped: false,
            echo: KVec::try_with_capacity(ECHO_SIZE)?,
            events: Events::default(),
        })
    }

    /// What is to be done, once.
    pub fn take_events(&mut self) -> Events {
        core::mem::take(&mut self.events)
    }

    /// Echo to be written.
    pub fn pending_echo(&self) -> &[u8] {
        &self.echo
    }

    /// `n` bytes of the echo were written.
    pub fn echo_written(&mut self, n: usize) {
        drop(self.echo.drain(..n.min(self.echo.len())));
    }

    /// Whether VSTOP (or TCOOFF) stopped the output.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Starts or stops the output; whether that changed anything.
    pub fn set_stopped(&mut self, stopped: bool) -> bool {
        let changed = self.stopped != stopped;
        self.stopped = stopped;
        changed
    }

    /// Discards what was typed and not read.
    pub fn flush_input(&mut self) {
        self.head = 0;
        self.tail = 0;
        self.canon_head = 0;
        self.literal_next = false;
        self.erasing = false;
        self.marks.as_mut_slice().fill(0);
    }

    /// Back to the state of a new terminal.
    pub fn reset(&mut self) {
        self.flush_input();
        self.echo.clear();
        self.column = 0;
        self.canon_column = 0;
        self.stopped = false;
        self.events = Events::default();
    }

    /// Typed and unread bytes, unfinished line included.
    pub fn len(&self) -> usize {
        self.head - self.tail
    }

    /// Whether nothing typed waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Follows a change of the settings: switching between canonical and raw input ends the line
    /// that is being typed, or makes all of it readable; clearing IXON restarts stopped output.
    pub fn settings_changed(&mut self, old: &Termios, new: &Termios) {
        if (old.lflag ^ new.lflag) & (g::ICANON | g::EXTPROC) != 0 {
            self.marks.as_mut_slice().fill(0);
            if !new.l(g::ICANON) || self.is_empty() {
                self.canon_head = self.tail;
            } else {
                self.mark(self.head.wrapping_sub(1));
                self.canon_head = self.head;
            }
            self.erasing = false;
            self.literal_next = false;
        }
        if old.i(g::IXON) && !new.i(g::IXON) && self.set_stopped(false) {
            self.events.output = Some(true);
        }
    }

    fn at(&self, position: usize) -> u8 {
        self.buf.get(position & (SIZE - 1)).copied().unwrap_or(0)
    }

    fn mark(&mut self, position: usize) {
        let place = position & (SIZE - 1);
        if let Some(word) = self.marks.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    fn unmark(&mut self, position: usize) {
        let place = position & (SIZE - 1);
        if let Some(word) = self.marks.get_mut(place / 64) {
            *word &= !(1 << (place % 64));
        }
    }

    fn is_marked(&self, position: usize) -> bool {
        let place = position & (SIZE - 1);
        self.marks.get(place / 64).is_some_and(|w| w >> (place % 64) & 1 != 0)
    }

    /// Appends a byte. With the ring full it is lost: `room` keeps that from happening but for the
    /// extra bytes of PARMRK.
    fn put(&mut self, c: u8) {
        if self.len() >= SIZE {
            return;
        }
        if let Some(slot) = self.buf.get_mut(self.head & (SIZE - 1)) {
            *slot = c;
        }
        self.head += 1;
    }
}

/// A control character in the sense of echoing: below blank, or DEL.
fn is_control(c: u8) -> bool {
    c < 0x20 || c == 0x7f
}

/// A byte inside of a UTF-8 sequence, if the terminal is said to speak UTF-8.
fn is_continuation(t: &Termios, c: u8) -> bool {
    t.i(g::IUTF8) && c & 0xc0 == 0x80
}

/// Part of a word for VWERASE: Latin-1's letters and digits, and the underscore.
fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c >= 0xc0 && c != 0xd7 && c != 0xf7
}

/// Upper case in Latin-1, as Linux's OLCUC has it (0xdf and 0xff included).
fn upper(c: u8) -> u8 {
    if c.is_ascii_lowercase() || c >= 0xdf && c != 0xf7 { c - 0x20 } else { c }
}

/// Lower case in Latin-1, as Linux's IUCLC has it.
fn lower(c: u8) -> u8 {
    if c.is_ascii_uppercase() || (0xc0..0xdf).contains(&c) && c != 0xd7 { c + 0x20 } else { c }
}
