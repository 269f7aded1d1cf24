//! What `read(2)`, `poll(2)` and FIONREAD see.

use super::{EOF_MARK, Ldisc};
use crate::termios::Termios;
use abi::raw::general as g;

/// What a canonical read gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CanonRead {
    /// Bytes copied.
    pub copied: usize,
    /// The end of a line was reached: the read is complete, even with nothing copied (VEOF).
    pub line_ended: bool,
}

/// Whether lines are edited here and read as lines.
fn by_lines(t: &Termios) -> bool {
    t.l(g::ICANON) && !t.l(g::EXTPROC)
}

impl Ldisc {
    /// Whether a read would find something.
    pub fn readable(&self, t: &Termios) -> bool {
        if by_lines(t) { self.canon_head != self.tail } else { self.head != self.tail }
    }

    /// Whether poll says so: in raw mode without a timeout, VMIN bytes are waited for.
    pub fn pollable(&self, t: &Termios) -> bool {
        let min = t.cc(g::VMIN);
        if by_lines(t) || t.cc(g::VTIME) != 0 || min == 0 {
            return self.readable(t);
        }
        self.len() >= min as usize
    }

    /// What FIONREAD answers: in canonical mode complete lines, without the marks of VEOF.
    pub fn readable_bytes(&self, t: &Termios) -> usize {
        if !by_lines(t) {
            return self.len();
        }
        let marks = (self.tail..self.canon_head).filter(|&p| self.is_marked(p) && self.at(p) == EOF_MARK);
        self.canon_head - self.tail - marks.count()
    }

    /// Takes bytes up to the end of a line or of `out`.
    pub fn read_line(&mut self, out: &mut [u8]) -> CanonRead {
        let mut copied = 0;
        while self.tail != self.canon_head && copied < out.len() {
            let c = self.at(self.tail);
            let line_ended = self.is_marked(self.tail);
            self.unmark(self.tail);
            self.tail += 1;
            if !(line_ended && c == EOF_MARK) {
                if let Some(slot) = out.get_mut(copied) {
                    *slot = c;
                }
                copied += 1;
            }
            if line_ended {
                return CanonRead { copied, line_ended };
            }
        }
        CanonRead { copied, line_ended: false }
    }

    /// Takes a mark of VEOF that is next: a read that was filled by the text before it has
    /// consumed it too.
    pub fn skip_eof(&mut self) {
        if self.tail != self.canon_head && self.is_marked(self.tail) && self.at(self.tail) == EOF_MARK {
            self.unmark(self.tail);
            self.tail += 1;
        }
    }

    /// Takes bytes as they came; how many.
    pub fn read_raw(&mut self, out: &mut [u8]) -> usize {
        let n = out.len().min(self.len());
        for slot in out.iter_mut().take(n) {
            *slot = self.at(self.tail);
            self.tail += 1;
        }
        // Reading raw passes lines that were complete when the mode changed.
        if self.canon_head < self.tail {
            self.canon_head = self.tail;
        }
        n
    }
}
