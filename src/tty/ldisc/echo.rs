//! What goes out: echo, and `write(2)`'s bytes with OPOST.

use super::{ECHO_SIZE, Ldisc, is_continuation, is_control, upper};
use crate::termios::Termios;
use abi::raw::general as g;

/// The most bytes that one byte of output becomes: a tab of eight blanks.
const EXPANSION: usize = 8;
const BLANKS: [u8; EXPANSION] = [b' '; EXPANSION];

/// What one byte of output becomes.
enum Output {
    Nothing,
    Byte(u8),
    Bytes(&'static [u8]),
}

impl Ldisc {
    fn push_echo(&mut self, bytes: &[u8]) {
        if self.echo.len() + bytes.len() <= ECHO_SIZE {
            for &b in bytes {
                // Cannot fail: the capacity was taken at the start.
                let _ = self.echo.push_within_capacity(b);
            }
        }
    }

    /// Follows the cursor and says what `c` becomes on the wire (`termios(3)`, c_oflag).
    fn post(&mut self, t: &Termios, c: u8) -> Output {
        match c {
            b'\n' => {
                if t.o(g::ONLRET) {
                    self.column = 0;
                }
                if t.o(g::ONLCR) {
                    self.column = 0;
                    self.canon_column = 0;
                    return Output::Bytes(b"\r\n");
                }
                self.canon_column = self.column;
            }
            b'\r' => {
                if t.o(g::ONOCR) && self.column == 0 {
                    return Output::Nothing;
                }
                if t.o(g::OCRNL) {
                    if t.o(g::ONLRET) {
                        self.column = 0;
                        self.canon_column = 0;
                    }
                    return Output::Byte(b'\n');
                }
                self.column = 0;
                self.canon_column = 0;
            }
            b'\t' => {
                let blanks = 8 - (self.column & 7);
                self.column += blanks;
                if t.oflag & g::TABDLY == g::XTABS {
                    return Output::Bytes(BLANKS.get(..blanks).unwrap_or(&BLANKS));
                }
            }
            0x08 => self.column = self.column.saturating_sub(1),
            _ if is_control(c) => {}
            _ => {
                if !is_continuation(t, c) {
                    self.column += 1;
                }
                if t.o(g::OLCUC) {
                    return Output::Byte(upper(c));
                }
            }
        }
        Output::Byte(c)
    }

    /// Turns bytes of `write(2)` into bytes for the device. Stops before `out` could overflow.
    /// How many were consumed, and how many bytes of `out` they became.
    pub fn process_output(&mut self, t: &Termios, bytes: &[u8], out: &mut [u8]) -> (usize, usize) {
        if !t.o(g::OPOST) {
            let n = bytes.len().min(out.len());
            if let (Some(from), Some(to)) = (bytes.get(..n), out.get_mut(..n)) {
                to.copy_from_slice(from);
            }
            return (n, n);
        }
        let (mut consumed, mut produced) = (0, 0);
        for &c in bytes {
            let need = match c {
                b'\t' => EXPANSION,
                b'\n' => 2,
                _ => 1,
            };
            if out.len() - produced < need {
                break;
            }
            consumed += 1;
            let byte;
            let post = match self.post(t, c) {
                Output::Nothing => continue,
                Output::Byte(b) => {
                    byte = [b];
                    &byte[..]
                }
                Output::Bytes(b) => b,
            };
            if let Some(slot) = out.get_mut(produced..produced + post.len()) {
                slot.copy_from_slice(post);
                produced += post.len();
            }
        }
        (consumed, produced)
    }

    /// Echoes a byte as it is, through OPOST.
    pub(super) fn echo_raw(&mut self, t: &Termios, c: u8) {
        if !t.o(g::OPOST) {
            return self.push_echo(&[c]);
        }
        match self.post(t, c) {
            Output::Nothing => {}
            Output::Byte(b) => self.push_echo(&[b]),
            Output::Bytes(b) => self.push_echo(b),
        }
    }

    /// Echoes a byte, control characters as ^X with ECHOCTL (not the tab).
    pub(super) fn echo_char(&mut self, t: &Termios, c: u8) {
        if c == 0xff {
            self.column += 1;
            self.push_echo(&[c]);
        } else if t.l(g::ECHOCTL) && is_control(c) && c != b'\t' {
            self.column += 2;
            self.push_echo(&[b'^', c ^ 0x40]);
        } else {
            self.echo_raw(t, c);
        }
    }

    /// A line's input begins where the cursor is: tabs in it are erased back to here.
    pub(super) fn remember_column(&mut self) {
        if self.canon_head == self.head {
            self.canon_column = self.column;
        }
    }

    /// Moves the cursor back over a tab. `columns` were used since the tab before it, or since
    /// the line's input began.
    pub(super) fn echo_erase_tab(&mut self, columns: usize, after_tab: bool) {
        let columns = if after_tab { columns } else { columns + self.canon_column };
        for _ in 0..8 - (columns & 7) {
            self.push_echo(&[0x08]);
            self.column = self.column.saturating_sub(1);
        }
    }

    /// The cursor moved back by one without a byte for it.
    pub(super) fn move_back(&mut self) {
        self.column = self.column.saturating_sub(1);
    }

    /// Ends the text between `\` and `/` that ECHOPRT shows.
    pub(super) fn finish_erasing(&mut self) {
        if core::mem::take(&mut self.erasing) {
            self.push_echo(b"/");
            self.column += 1;
        }
    }
}
