//! The terminal over a device that a test drives.

use super::*;
use crate::{console, job::Ids, termios::INITIAL};
use std::sync::Mutex as StdMutex;

/// A device with room for 1000 bytes, of which a test takes what was sent.
struct Wire {
    queue: StdMutex<Vec<u8>>,
    room: usize,
}

impl TtyDriver for Wire {
    fn open(&self) -> Result {
        Ok(())
    }
    fn close(&self) {}
    fn write(&self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.write_room());
        self.queue.lock().unwrap().extend_from_slice(&bytes[..n]);
        n
    }
    fn write_room(&self) -> usize {
        self.room - self.queue.lock().unwrap().len()
    }
    fn unsent(&self) -> usize {
        self.queue.lock().unwrap().len()
    }
    fn flush(&self) {
        self.queue.lock().unwrap().clear();
    }
    fn stop(&self) {}
    fn start(&self) {}
    fn send_now(&self, c: u8) {
        self.queue.lock().unwrap().insert(0, c);
    }
    fn set_termios(&self, _: &mut Termios, _: &Termios) {}
    fn set_break(&self, _: bool) {}
}

fn terminal() -> (KArc<Tty>, KArc<Wire>) {
    named("ttyT0")
}

fn named(name: &str) -> (KArc<Tty>, KArc<Wire>) {
    let wire = KArc::try_new(Wire { queue: StdMutex::new(Vec::new()), room: 1000 }).unwrap();
    let name = KString::try_from_str(name).unwrap();
    let driver = kalloc::karc_as!(wire.clone() => dyn TtyDriver);
    (Tty::without_thread(name, DevNum::new(204, 64), driver, INITIAL, false).unwrap(), wire)
}

fn type_in(tty: &Tty, bytes: &[u8]) {
    tty.input(bytes, Flag::Normal);
    tty.process_input();
}

fn read(tty: &Tty, room: usize) -> Result<Vec<u8>> {
    let mut buf = vec![0; room];
    let n = tty.read(&mut IoSink::kernel(&mut buf), true, || true)?;
    buf.truncate(n);
    Ok(buf)
}

fn write(tty: &Tty, bytes: &[u8]) -> Result<usize> {
    tty.write(&mut IoSource::kernel(bytes), true, || true)
}

fn sent(wire: &Wire) -> String {
    let bytes = std::mem::take(&mut *wire.queue.lock().unwrap());
    bytes.escape_ascii().to_string()
}

#[test]
fn typed_lines_are_echoed_and_read_one_at_a_time() {
    let (tty, wire) = terminal();
    assert_eq!(read(&tty, 64), Err(Errno::EAGAIN));
    type_in(&tty, b"one\rtwo\rthr");
    assert_eq!(sent(&wire), "one\\r\\ntwo\\r\\nthr");
    assert_eq!(read(&tty, 64).unwrap(), b"one\n");
    assert_eq!(read(&tty, 2).unwrap(), b"tw");
    assert_eq!(read(&tty, 64).unwrap(), b"o\n");
    assert_eq!(read(&tty, 64), Err(Errno::EAGAIN));
    type_in(&tty, b"ee\x04");
    assert_eq!(read(&tty, 64).unwrap(), b"three");
    type_in(&tty, b"\x04");
    assert_eq!(read(&tty, 64).unwrap(), b"");
}

#[test]
fn a_long_line_is_read_whole_through_the_chunks() {
    let (tty, wire) = terminal();
    for _ in 0..40 {
        type_in(&tty, &[b'x'; 50]);
        sent(&wire);
    }
    type_in(&tty, b"\rnext\r");
    let line = read(&tty, 4096).unwrap();
    assert_eq!(line.len(), 2001);
    assert_eq!(read(&tty, 5).unwrap(), b"next\n");
}

#[test]
fn output_stops_at_the_devices_room_and_echo_goes_first() {
    let (tty, wire) = terminal();
    assert_eq!(write(&tty, b"a\nb"), Ok(3));
    assert_eq!(sent(&wire), "a\\r\\nb");
    let n = write(&tty, &[b'y'; 2000]).unwrap();
    assert_eq!(n, 1000);
    assert_eq!(write(&tty, b"z"), Err(Errno::EAGAIN));
    type_in(&tty, b"echo");
    assert_eq!(sent(&wire).len(), 1000);
    assert_eq!(write(&tty, b"z"), Ok(1));
    assert_eq!(sent(&wire), "echoz");
}

#[test]
fn raw_reads_follow_vmin_and_vtime_without_waiting() {
    let (tty, _wire) = terminal();
    let mut t = Termios { lflag: 0, iflag: 0, ..INITIAL };
    t.cc[g::VMIN as usize] = 0;
    tty.set_termios(t);
    assert_eq!(read(&tty, 9).unwrap(), b"");
    type_in(&tty, b"ab");
    assert_eq!(read(&tty, 9).unwrap(), b"ab");
    t.cc[g::VMIN as usize] = 3;
    tty.set_termios(t);
    type_in(&tty, b"cd");
    // Nonblocking: what is there, though VMIN wants more.
    assert_eq!(read(&tty, 9).unwrap(), b"cd");
    assert_eq!(read(&tty, 9), Err(Errno::EAGAIN));
}

#[test]
fn input_waits_in_the_flip_buffer_while_lines_are_unread() {
    let (tty, _wire) = terminal();
    let mut t = Termios { lflag: 0, iflag: 0, ..INITIAL };
    t.iflag = g::IXOFF;
    tty.set_termios(t);
    for i in 0..100u8 {
        type_in(&tty, &[i; 50]);
    }
    assert!(tty.state.lock().full && tty.state.lock().throttled);
    let mut got = Vec::new();
    while let Ok(more) = read(&tty, 300) {
        got.extend(more);
        tty.process_input();
    }
    let expected: Vec<u8> = (0..100u8).flat_map(|i| [i; 50]).collect();
    assert_eq!(got, expected);
    assert!(!tty.state.lock().throttled);
    // VSTOP went out when it filled and VSTART when it had drained.
    assert_eq!(sent(&_wire), "\\x11\\x13");
}

#[test]
fn a_hang_up_ends_waits_and_frees_the_session() {
    let (tty, _wire) = terminal();
    {
        let mut s = tty.state.lock();
        (s.session, s.pgrp) = (Some(5), Some(6));
    }
    let before = tty.hangups();
    tty.release_session(4);
    assert_eq!((tty.session(), tty.hangups()), (Some(5), before));
    tty.release_session(5);
    assert_eq!((tty.session(), tty.foreground_group()), (None, None));
    assert_ne!(tty.hangups(), before);
    let mut buf = [0; 8];
    assert_eq!(tty.read(&mut IoSink::kernel(&mut buf), false, || false), Ok(0));
    assert_eq!(tty.write(&mut IoSource::kernel(b"x"), false, || false), Err(Errno::EIO));
}

// What the process layer is asked; one test at a time uses it.
struct Jobs {
    ids: StdMutex<Ids>,
    ctty: StdMutex<Option<KArc<Tty>>>,
    ignores: AtomicBool,
    orphaned: AtomicBool,
    sent: StdMutex<Vec<(u32, u32)>>,
}

static JOBS: Jobs = Jobs {
    ids: StdMutex::new(Ids { pid: 100, pgrp: 100, session: 100 }),
    ctty: StdMutex::new(None),
    ignores: AtomicBool::new(false),
    orphaned: AtomicBool::new(false),
    sent: StdMutex::new(Vec::new()),
};

impl job::JobControl for Jobs {
    fn signal_group(&self, pgrp: u32, signal: u32) {
        self.sent.lock().unwrap().push((pgrp, signal));
    }
    fn current_ids(&self) -> Option<Ids> {
        Some(*self.ids.lock().unwrap())
    }
    fn current_is_orphaned(&self) -> bool {
        self.orphaned.load(Ordering::SeqCst)
    }
    fn current_ignores_or_blocks(&self, _: u32) -> bool {
        self.ignores.load(Ordering::SeqCst)
    }
    fn controlling_tty(&self) -> Option<KArc<Tty>> {
        self.ctty.lock().unwrap().clone()
    }
    fn set_controlling_tty(&self, tty: Option<KArc<Tty>>) {
        *self.ctty.lock().unwrap() = tty;
    }
    fn session_hung_up(&self, session: u32, foreground: Option<u32>) {
        self.sent.lock().unwrap().push((session, foreground.unwrap_or(0)));
        *self.ctty.lock().unwrap() = None;
    }
    fn group_session(&self, pgrp: u32) -> Option<u32> {
        (pgrp < 1000).then_some(100)
    }
}

#[test]
fn background_groups_are_stopped_unless_they_ignore_it_or_nobody_could_continue_them() {
    job::set_job_control(&JOBS);
    let take = || std::mem::take(&mut *JOBS.sent.lock().unwrap());
    let (tty, _wire) = terminal();
    let leader = Ids { pid: 100, pgrp: 100, session: 100 };
    crate::ioctl::acquire(&tty, leader, false).unwrap();
    assert_eq!(crate::ioctl::acquire(&tty, leader, false), Err(Errno::EPERM));
    assert!(job::is_controlling(&tty));
    assert_eq!(job::check_foreground(&tty, g::SIGTTIN), Ok(()));
    *JOBS.ids.lock().unwrap() = Ids { pid: 200, pgrp: 200, session: 100 };
    assert_eq!(job::check_foreground(&tty, g::SIGTTIN), Err(Errno::ERESTARTSYS));
    assert_eq!(take(), [(200, g::SIGTTIN)]);
    JOBS.ignores.store(true, Ordering::SeqCst);
    assert_eq!(job::check_foreground(&tty, g::SIGTTIN), Err(Errno::EIO));
    assert_eq!(job::check_foreground(&tty, g::SIGTTOU), Ok(()));
    JOBS.ignores.store(false, Ordering::SeqCst);
    JOBS.orphaned.store(true, Ordering::SeqCst);
    assert_eq!(job::check_foreground(&tty, g::SIGTTOU), Err(Errno::EIO));
    assert_eq!(take(), []);
    // A terminal that is not the caller's own has no background.
    *JOBS.ids.lock().unwrap() = Ids { pid: 300, pgrp: 300, session: 300 };
    assert_eq!(job::check_foreground(&tty, g::SIGTTIN), Ok(()));

    // Keys signal the foreground group.
    type_in(&tty, b"\x03");
    assert_eq!(take(), [(100, g::SIGINT)]);
    tty.state.lock().pgrp = Some(250);
    type_in(&tty, b"\x1a\x1c");
    assert_eq!(take(), [(250, g::SIGQUIT), (250, g::SIGTSTP)]);
    tty.hang_up();
    assert_eq!(take(), [(100, 250)]);
    assert!(!job::is_controlling(&tty));
}

/// Shows the kernel's messages nowhere.
struct Silent;

impl console::ConsoleOutput for Silent {
    fn write_polled(&self, _: &[u8]) {}
}

#[test]
fn every_console_that_was_asked_for_is_used_and_the_last_that_exists_is_dev_console() {
    console::parse(b"quiet console=ttyT1,115200 console=ttyT2 init=/x console=nosuch");
    // The devices come up in an order of their own, with one that nobody asked for.
    for name in ["ttyT3", "ttyT2", "ttyT1"] {
        let output = kalloc::karc_dyn!(Silent => dyn console::ConsoleOutput).unwrap();
        console::register(&named(name).0, output, name == "ttyT3").unwrap();
    }
    console::finish();
    assert_eq!(console::tty().unwrap().name(), "ttyT2");
    let mut used = Vec::new();
    console::for_each(|tty, is_dev_console| used.push((tty.name().to_string(), is_dev_console)));
    used.sort();
    assert_eq!(used, [("ttyT1".to_string(), false), ("ttyT2".to_string(), true)]);
}
