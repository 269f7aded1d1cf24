//! The discipline against Linux's, and against any input.
//!
//! `linux.rs` holds what a pseudo-terminal of Linux did when the same was typed, read and written.
//! The last cases of it were drawn at random over keys and modes.

#[path = "linux.rs"]
mod linux;

use super::*;
use crate::termios::INITIAL;

/// One action, or what Linux showed after it.
enum Step {
    /// Set c_iflag, c_oflag, c_lflag and control characters that differ from the initial ones.
    Set(u32, u32, u32, &'static [(usize, u8)]),
    /// Type.
    Type(&'static [u8]),
    /// A program writes.
    Write(&'static [u8]),
    /// This came out on the other side.
    Wire(&'static [u8]),
    /// `read(2)` with room for so many bytes gave this.
    Read(usize, &'static [u8]),
    /// `read(2)` would have waited.
    Again,
    /// What FIONREAD answered.
    Avail(usize),
}

struct Case {
    name: &'static str,
    steps: &'static [Step],
}

struct Terminal {
    ldisc: Ldisc,
    termios: Termios,
    wire: Vec<u8>,
    signals: u64,
}

impl Terminal {
    fn new() -> Self {
        Self { ldisc: Ldisc::try_new().unwrap(), termios: INITIAL, wire: Vec::new(), signals: 0 }
    }

    fn set(&mut self, new: Termios) {
        let old = std::mem::replace(&mut self.termios, new);
        self.ldisc.settings_changed(&old, &new);
        self.settle();
    }

    fn settle(&mut self) {
        let events = self.ldisc.take_events();
        self.signals |= events.signals;
        if events.flush_output {
            self.wire.clear();
        }
        self.wire.extend_from_slice(self.ldisc.pending_echo());
        let n = self.ldisc.pending_echo().len();
        self.ldisc.echo_written(n);
    }

    fn type_in(&mut self, bytes: &[u8]) -> usize {
        let n = self.ldisc.receive(&self.termios, bytes, Flag::Normal);
        self.settle();
        n
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut out = [0; 64];
            let (n, len) = self.ldisc.process_output(&self.termios, bytes, &mut out);
            assert!(n > 0);
            self.wire.extend_from_slice(&out[..len]);
            bytes = &bytes[n..];
        }
    }

    /// As `read(2)` without waiting, in chunks as the terminal's read does.
    fn read(&mut self, room: usize) -> Option<Vec<u8>> {
        if !self.ldisc.readable(&self.termios) {
            return None;
        }
        let mut out = vec![0; room];
        if !self.termios.l(g::ICANON) {
            let n = self.ldisc.read_raw(&mut out);
            out.truncate(n);
            return Some(out);
        }
        let r = self.ldisc.read_line(&mut out);
        if r.copied == room && !r.line_ended {
            self.ldisc.skip_eof();
        }
        out.truncate(r.copied);
        Some(out)
    }
}

#[test]
fn every_case_recorded_from_linux_comes_out_the_same() {
    for case in linux::CASES {
        let mut tty = Terminal::new();
        for (i, step) in case.steps.iter().enumerate() {
            let at = format!("{:?}, step {i}", case.name);
            match step {
                Step::Set(iflag, oflag, lflag, cc) => {
                    let mut t = Termios { iflag: *iflag, oflag: *oflag, lflag: *lflag, ..INITIAL };
                    cc.iter().for_each(|&(i, c)| t.cc[i] = c);
                    tty.set(t);
                }
                Step::Type(bytes) => assert_eq!(tty.type_in(bytes), bytes.len(), "{at}"),
                Step::Write(bytes) => tty.write(bytes),
                Step::Wire(bytes) => {
                    assert_eq!(tty.wire.escape_ascii().to_string(), bytes.escape_ascii().to_string(), "{at}");
                    tty.wire.clear();
                }
                Step::Read(room, bytes) => {
                    let got = tty.read(*room).unwrap_or_else(|| panic!("{at}: nothing to read"));
                    assert_eq!(got.escape_ascii().to_string(), bytes.escape_ascii().to_string(), "{at}");
                }
                Step::Again => assert_eq!(tty.read(64), None, "{at}"),
                Step::Avail(n) => assert_eq!(tty.ldisc.readable_bytes(&tty.termios), *n, "{at}"),
            }
        }
    }
}

#[test]
fn signal_keys_raise_their_signals_once() {
    for (key, signal) in [(3, g::SIGINT), (28, g::SIGQUIT), (26, g::SIGTSTP)] {
        let mut tty = Terminal::new();
        tty.type_in(&[b'a', key, b'b']);
        assert_eq!(tty.signals, 1 << signal);
        assert_eq!(tty.ldisc.len(), 1);
        tty.set(Termios { lflag: INITIAL.lflag & !g::ISIG, ..INITIAL });
        tty.signals = 0;
        tty.type_in(&[key]);
        assert_eq!(tty.signals, 0);
    }
}

#[test]
fn flow_control_stops_and_restarts_output() {
    let mut tty = Terminal::new();
    tty.ldisc.receive(&INITIAL, &[19], Flag::Normal);
    assert_eq!(tty.ldisc.take_events().output, Some(false));
    tty.ldisc.receive(&INITIAL, &[19], Flag::Normal);
    assert_eq!(tty.ldisc.take_events().output, None);
    tty.ldisc.receive(&INITIAL, &[17], Flag::Normal);
    assert_eq!(tty.ldisc.take_events().output, Some(true));
    tty.ldisc.receive(&INITIAL, &[19], Flag::Normal);
    tty.ldisc.take_events();
    // Clearing IXON must not leave the terminal stopped for good.
    tty.ldisc.settings_changed(&INITIAL, &Termios { iflag: 0, ..INITIAL });
    assert_eq!(tty.ldisc.take_events().output, Some(true));
    assert!(!tty.ldisc.stopped());
}

#[test]
fn breaks_and_damaged_bytes_follow_the_input_modes() {
    let input = |iflag: u32, flag: Flag| {
        let mut tty = Terminal::new();
        tty.set(Termios { iflag, lflag: 0, ..INITIAL });
        tty.ldisc.receive(&tty.termios, b"x", flag);
        tty.settle();
        (tty.read(9).unwrap_or_default(), tty.signals)
    };
    assert_eq!(input(0, Flag::Break), (vec![0], 0));
    assert_eq!(input(g::IGNBRK, Flag::Break), (vec![], 0));
    assert_eq!(input(g::BRKINT, Flag::Break), (vec![], 1 << g::SIGINT));
    assert_eq!(input(g::PARMRK, Flag::Break), (vec![0xff, 0, 0], 0));
    assert_eq!(input(0, Flag::Parity), (b"x".to_vec(), 0));
    assert_eq!(input(g::INPCK, Flag::Parity), (vec![0], 0));
    assert_eq!(input(g::INPCK | g::IGNPAR, Flag::Frame), (vec![], 0));
    assert_eq!(input(g::INPCK | g::PARMRK, Flag::Frame), (vec![0xff, 0, b'x'], 0));
}

/// Linux keeps 4095 bytes of a line and its newline.
#[test]
fn a_line_longer_than_the_buffer_can_still_be_ended_and_edited() {
    let mut tty = Terminal::new();
    assert_eq!(tty.type_in(&[b'x'; 5000]), 5000);
    assert_eq!(tty.ldisc.readable_bytes(&tty.termios), 0);
    assert_eq!(tty.type_in(b"\n"), 1);
    // The line is complete: nothing more is taken until it is read.
    assert_eq!(tty.type_in(b"y"), 0);
    let line = tty.read(8192).unwrap();
    assert_eq!((line.len(), line[4094], line[4095]), (4096, b'x', b'\n'));
    assert_eq!(tty.type_in(b"y"), 1);
}

#[test]
fn raw_input_is_refused_when_the_buffer_is_full_and_taken_after_a_read() {
    let mut tty = Terminal::new();
    tty.set(Termios { iflag: 0, lflag: 0, ..INITIAL });
    assert_eq!(tty.type_in(&[b'x'; 5000]), SIZE - 1);
    assert_eq!(tty.read(100).unwrap().len(), 100);
    assert_eq!(tty.type_in(&[b'y'; 5000]), 100);
}

#[test]
fn poll_waits_for_vmin_bytes_in_raw_mode_without_a_timeout() {
    let mut tty = Terminal::new();
    let mut t = Termios { iflag: 0, lflag: 0, ..INITIAL };
    t.cc[g::VMIN as usize] = 3;
    tty.set(t);
    tty.type_in(b"ab");
    assert!(tty.ldisc.readable(&t) && !tty.ldisc.pollable(&t));
    tty.type_in(b"c");
    assert!(tty.ldisc.pollable(&t));
    t.cc[g::VTIME as usize] = 1;
    assert_eq!(tty.read(2).unwrap(), b"ab");
    assert!(tty.ldisc.pollable(&t));
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Any bytes in any modes: no panic, and the invariants of the ring hold.
#[test]
fn any_input_in_any_modes_keeps_the_invariants() {
    let mut rng = Rng(0x1234_5678_9abc_def1);
    let keys = [3, 4, 8, 9, 10, 13, 17, 18, 19, 21, 22, 23, 26, 28, 127, 0, 255, b'a', b' ', 0xc3, 0xa9];
    for _ in 0..300 {
        let mut tty = Terminal::new();
        for _ in 0..60 {
            match rng.next() % 8 {
                0 => {
                    let mut t = INITIAL;
                    (t.iflag, t.oflag, t.lflag) = (rng.next() as u32, rng.next() as u32, rng.next() as u32 & 0x1_ffff);
                    for c in &mut t.cc {
                        if rng.next() % 4 == 0 {
                            *c = rng.next() as u8;
                        }
                    }
                    tty.set(t);
                }
                1 => {
                    tty.read(1 + rng.next() as usize % 100);
                }
                2 => {
                    let bytes: Vec<u8> = (0..rng.next() % 40).map(|_| rng.next() as u8).collect();
                    tty.write(&bytes);
                }
                3 => {
                    let flags = [Flag::Break, Flag::Parity, Flag::Frame];
                    tty.ldisc.receive(&tty.termios, &[rng.next() as u8], flags[rng.next() as usize % 3]);
                    tty.settle();
                }
                n => {
                    let len = if n == 4 { rng.next() % 6000 } else { rng.next() % 30 };
                    let bytes: Vec<u8> = (0..len)
                        .map(|_| if rng.next() % 2 == 0 { keys[rng.next() as usize % keys.len()] } else { rng.next() as u8 })
                        .collect();
                    tty.type_in(&bytes);
                }
            }
            let l = &tty.ldisc;
            assert!(l.tail <= l.canon_head && l.canon_head <= l.head && l.len() <= SIZE);
            let marked = l.marks.iter().map(|w| w.count_ones()).sum::<u32>() as usize;
            assert_eq!(marked, (l.tail..l.canon_head).filter(|&p| l.is_marked(p)).count());
            assert!(l.echo.len() <= ECHO_SIZE);
            assert!(l.readable_bytes(&tty.termios) <= l.len());
        }
    }
}

/// Raw input and output lose and change nothing.
#[test]
fn raw_mode_is_transparent_in_both_directions() {
    let mut rng = Rng(42);
    let mut tty = Terminal::new();
    tty.set(Termios { iflag: 0, oflag: 0, lflag: 0, ..INITIAL });
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..rng.next() % 90).map(|_| rng.next() as u8).collect();
        let n = tty.type_in(&bytes);
        sent.extend_from_slice(&bytes[..n]);
        got.extend(tty.read(1 + rng.next() as usize % 100).unwrap_or_default());
        tty.wire.clear();
        tty.write(&bytes);
        assert_eq!(tty.wire, bytes);
    }
    while let Some(more) = tty.read(4096) {
        got.extend(more);
    }
    assert_eq!(sent, got);
}
