//! Editing the line that is being typed: erase, word erase, kill, reprint.

use super::{Ldisc, is_continuation, is_control, is_word};
use crate::termios::Termios;
use abi::raw::general as g;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Char,
    Word,
    Line,
}

impl Ldisc {
    /// VERASE, VWERASE or VKILL was typed.
    pub(super) fn erase(&mut self, t: &Termios, key: u8) {
        if self.head == self.canon_head {
            return;
        }
        let kind = if t.is_cc(key, g::VERASE) {
            Kind::Char
        } else if t.is_cc(key, g::VWERASE) && t.l(g::IEXTEN) {
            Kind::Word
        } else {
            if !t.l(g::ECHO) {
                self.head = self.canon_head;
                return;
            }
            if !(t.l(g::ECHOK) && t.l(g::ECHOKE) && t.l(g::ECHOE)) {
                self.head = self.canon_head;
                self.finish_erasing();
                self.echo_char(t, t.cc(g::VKILL));
                if t.l(g::ECHOK) {
                    self.echo_raw(t, b'\n');
                }
                return;
            }
            Kind::Line
        };
        let mut seen_word = false;
        while self.head != self.canon_head {
            // One character, which may be several bytes.
            let mut start = self.head - 1;
            while is_continuation(t, self.at(start)) && start != self.canon_head {
                start -= 1;
            }
            let c = self.at(start);
            if is_continuation(t, c) {
                // The rest of a character whose start is not there.
                break;
            }
            if kind == Kind::Word {
                if is_word(c) {
                    seen_word = true;
                } else if seen_word {
                    break;
                }
            }
            let end = self.head;
            self.head = start;
            if t.l(g::ECHO) {
                self.echo_erased(t, kind, c, start, end);
            }
            if kind == Kind::Char {
                break;
            }
        }
        if self.head == self.canon_head && t.l(g::ECHO) {
            self.finish_erasing();
        }
    }

    /// Shows that the character `c` at `start..end` is gone.
    fn echo_erased(&mut self, t: &Termios, kind: Kind, c: u8, start: usize, end: usize) {
        if t.l(g::ECHOPRT) {
            if !self.erasing {
                self.echo_raw(t, b'\\');
                self.erasing = true;
            }
            self.echo_char(t, c);
            for position in start + 1..end {
                self.echo_raw(t, self.at(position));
                self.move_back();
            }
        } else if kind == Kind::Char && !t.l(g::ECHOE) {
            self.echo_char(t, t.cc(g::VERASE));
        } else if c == b'\t' {
            self.erase_tab(t);
        } else {
            let caret = is_control(c) && t.l(g::ECHOCTL);
            if caret {
                self.rub_out(t);
            }
            if caret || !is_control(c) {
                self.rub_out(t);
            }
        }
    }

    fn rub_out(&mut self, t: &Termios) {
        for b in [0x08, b' ', 0x08] {
            self.echo_raw(t, b);
        }
    }

    /// The width of a tab depends on what stands before it.
    fn erase_tab(&mut self, t: &Termios) {
        let (mut columns, mut after_tab) = (0, false);
        let mut position = self.head;
        while position != self.canon_head {
            position -= 1;
            let c = self.at(position);
            if c == b'\t' {
                after_tab = true;
                break;
            }
            if is_control(c) {
                if t.l(g::ECHOCTL) {
                    columns += 2;
                }
            } else if !is_continuation(t, c) {
                columns += 1;
            }
        }
        self.echo_erase_tab(columns, after_tab);
    }

    /// VREPRINT was typed: the line again, on a line of its own.
    pub(super) fn reprint(&mut self, t: &Termios, key: u8) {
        self.finish_erasing();
        self.echo_char(t, key);
        self.echo_raw(t, b'\n');
        for position in self.canon_head..self.head {
            self.echo_char(t, self.at(position));
        }
    }
}
