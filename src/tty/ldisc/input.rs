//! What a received byte does.

use super::{EOF_MARK, Ldisc, SIZE, lower};
use crate::termios::Termios;
use abi::raw::general as g;

/// How a byte arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flag {
    /// Sound.
    Normal,
    /// A break: the line was low for longer than a character.
    Break,
    /// With a parity error.
    Parity,
    /// Without a stop bit.
    Frame,
}

impl Ldisc {
    /// How many received bytes may be handed to [`receive`](Self::receive) now, and whether what
    /// they replace is lost: while a line is being typed there is always room for one, so that it
    /// can be edited and ended.
    fn room(&self, t: &Termios) -> (usize, bool) {
        let mut room = SIZE - self.len().min(SIZE);
        if t.i(g::PARMRK) {
            // Each byte may take three.
            room = room.div_ceil(3);
        }
        match room.checked_sub(1) {
            Some(room) if room > 0 => (room, false),
            _ if t.l(g::ICANON) && self.canon_head == self.tail => (1, true),
            _ => (0, false),
        }
    }

    /// Takes received bytes until the buffer is full; how many it took.
    pub fn receive(&mut self, t: &Termios, bytes: &[u8], flag: Flag) -> usize {
        let mut taken = 0;
        for &c in bytes {
            let (room, overflow) = self.room(t);
            if room == 0 {
                break;
            }
            if overflow && self.len() >= SIZE {
                // The line is as long as it may be: the last byte gives way to this one.
                self.head -= 1;
            }
            taken += 1;
            match flag {
                Flag::Normal => self.receive_one(t, c),
                Flag::Break => self.receive_break(t),
                Flag::Parity | Flag::Frame if overflow => {}
                Flag::Parity | Flag::Frame => self.receive_damaged(t, c),
            }
        }
        taken
    }

    fn receive_break(&mut self, t: &Termios) {
        if t.i(g::IGNBRK) {
            return;
        }
        if t.i(g::BRKINT) {
            return self.raise(t, g::SIGINT);
        }
        if t.i(g::PARMRK) {
            self.put(0xff);
            self.put(0);
        }
        self.put(0);
    }

    fn receive_damaged(&mut self, t: &Termios, c: u8) {
        if !t.i(g::INPCK) {
            return self.receive_one(t, c);
        }
        if t.i(g::IGNPAR) {
            return;
        }
        if t.i(g::PARMRK) {
            self.put(0xff);
            self.put(0);
            self.put(c);
        } else {
            self.put(0);
        }
    }

    fn receive_one(&mut self, t: &Termios, mut c: u8) {
        if t.i(g::ISTRIP) {
            c &= 0x7f;
        }
        if t.i(g::IUCLC) && t.l(g::IEXTEN) {
            c = lower(c);
        }
        if t.l(g::EXTPROC) {
            return self.put(c);
        }
        if core::mem::take(&mut self.literal_next) {
            self.restart_on_any(t);
            return self.store_echoed(t, c);
        }
        if t.i(g::IXON) {
            if t.is_cc(c, g::VSTART) {
                return self.flow(true);
            }
            if t.is_cc(c, g::VSTOP) {
                return self.flow(false);
            }
        }
        if t.l(g::ISIG) {
            for (key, signal) in [(g::VINTR, g::SIGINT), (g::VQUIT, g::SIGQUIT), (g::VSUSP, g::SIGTSTP)] {
                if t.is_cc(c, key) {
                    return self.signal_key(t, c, signal);
                }
            }
        }
        self.restart_on_any(t);
        if c == b'\r' {
            if t.i(g::IGNCR) {
                return;
            }
            if t.i(g::ICRNL) {
                return self.newline_or_store(t, b'\n', true);
            }
        } else if c == b'\n' && t.i(g::INLCR) {
            return self.newline_or_store(t, b'\r', true);
        }
        // Without ICANON a plain newline is echoed like any control character.
        self.newline_or_store(t, c, t.l(g::ICANON));
    }

    /// The rest, after signals, flow control and the mapping of CR and NL.
    fn newline_or_store(&mut self, t: &Termios, c: u8, newline_is_special: bool) {
        if t.l(g::ICANON) && self.canonical(t, c) {
            return;
        }
        if c == b'\n' && newline_is_special && t.l(g::ECHO) {
            self.finish_erasing();
            self.echo_raw(t, b'\n');
            self.put(c);
            return;
        }
        self.store_echoed(t, c);
    }

    /// Stores a byte and echoes it.
    fn store_echoed(&mut self, t: &Termios, c: u8) {
        if t.l(g::ECHO) {
            self.finish_erasing();
            self.remember_column();
            self.echo_char(t, c);
        }
        self.put_marked(t, c);
    }

    /// A byte that PARMRK must tell from its own mark (0xff) is doubled.
    fn put_marked(&mut self, t: &Termios, c: u8) {
        if c == 0xff && t.i(g::PARMRK) {
            self.put(c);
        }
        self.put(c);
    }

    /// The editing and line-ending characters of canonical mode; whether `c` was one.
    fn canonical(&mut self, t: &Termios, c: u8) -> bool {
        let extended = t.l(g::IEXTEN);
        if t.is_cc(c, g::VERASE) || t.is_cc(c, g::VKILL) || extended && t.is_cc(c, g::VWERASE) {
            self.erase(t, c);
        } else if extended && t.is_cc(c, g::VLNEXT) {
            self.literal_next = true;
            if t.l(g::ECHO) {
                self.finish_erasing();
                if t.l(g::ECHOCTL) {
                    self.echo_raw(t, b'^');
                    self.echo_raw(t, 0x08);
                }
            }
        } else if extended && t.l(g::ECHO) && t.is_cc(c, g::VREPRINT) {
            self.reprint(t, c);
        } else if c == b'\n' {
            if t.l(g::ECHO) || t.l(g::ECHONL) {
                self.echo_raw(t, b'\n');
            }
            self.end_line(c);
        } else if t.is_cc(c, g::VEOF) {
            self.end_line(EOF_MARK);
        } else if t.is_cc(c, g::VEOL) || extended && t.is_cc(c, g::VEOL2) {
            if t.l(g::ECHO) {
                self.remember_column();
                self.echo_char(t, c);
            }
            if c == 0xff && t.i(g::PARMRK) {
                self.put(c);
            }
            self.end_line(c);
        } else {
            return false;
        }
        true
    }

    fn end_line(&mut self, c: u8) {
        if self.len() >= SIZE {
            // Only behind a line of the greatest length with PARMRK: its last byte gives way.
            self.head -= 1;
        }
        self.mark(self.head);
        self.put(c);
        self.canon_head = self.head;
    }

    /// VSTART or VSTOP was typed.
    fn flow(&mut self, start: bool) {
        if self.set_stopped(!start) {
            self.events.output = Some(start);
        }
    }

    /// With IXANY every character restarts the output.
    fn restart_on_any(&mut self, t: &Termios) {
        if t.i(g::IXON) && t.i(g::IXANY) && self.stopped {
            self.flow(true);
        }
    }

    /// A signal for the foreground group; unless NOFLSH, what was typed and what is to be written
    /// is discarded.
    fn raise(&mut self, t: &Termios, signal: u32) {
        self.events.signals |= 1 << signal;
        if !t.l(g::NOFLSH) {
            self.flush_input();
            self.echo.clear();
            self.events.flush_output = true;
        }
    }

    fn signal_key(&mut self, t: &Termios, c: u8, signal: u32) {
        self.raise(t, signal);
        if t.i(g::IXON) {
            self.flow(true);
        }
        if t.l(g::ECHO) {
            self.echo_char(t, c);
        }
    }
}
