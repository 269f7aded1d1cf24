//! Both ends in one program, without waiting.

use super::{
    master::tests_support::{read, write},
    *,
};
use abi::Errno;
use mm::io::{IoSink, IoSource};

struct Nowhere;
impl Place for Nowhere {
    fn open_slave(&self, _: u32, _: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
        Err(Errno::ENOENT)
    }
    fn master_closed(&self) {}
}

fn ends() -> (KArc<Tty>, Master) {
    let number = kalloc::karc_as!(KArc::try_new(7u32).unwrap() => dyn Any + Send + Sync);
    let (tty, unplaced) = open(7, number).unwrap();
    let place = kalloc::kbox_dyn!(Nowhere => dyn Place).unwrap();
    (tty, unplaced.master(place))
}

fn slave_read(tty: &Tty) -> Result<Vec<u8>> {
    let mut buf = [0; 8192];
    let n = tty.read(&mut IoSink::kernel(&mut buf), true, || true)?;
    Ok(buf[..n].to_vec())
}

fn slave_write(tty: &Tty, bytes: &[u8]) -> Result<usize> {
    tty.write(&mut IoSource::kernel(bytes), true, || true)
}

#[test]
fn what_the_master_types_is_echoed_and_read_as_a_line() {
    let (tty, master) = ends();
    assert_eq!(write(&master, b"echo hi\r"), Ok(8));
    assert_eq!(slave_read(&tty).unwrap(), b"echo hi\n");
    assert_eq!(read(&master, 100).unwrap(), b"echo hi\r\n");
    assert_eq!(slave_write(&tty, b"hi\n"), Ok(3));
    assert_eq!(read(&master, 2).unwrap(), b"hi");
    assert_eq!(read(&master, 100).unwrap(), b"\r\n");
    assert_eq!(read(&master, 100), Err(Errno::EAGAIN));
}

#[test]
fn a_locked_slave_does_not_open_and_a_closed_one_ends_the_masters_reads() {
    let (tty, master) = ends();
    assert_eq!(tty.opened(true), Err(Errno::EIO));
    master.unlock();
    tty.opened(true).unwrap();
    slave_write(&tty, b"last").unwrap();
    tty.closed();
    assert_eq!(read(&master, 100).unwrap(), b"last");
    assert_eq!(read(&master, 100), Err(Errno::EIO));
    tty.opened(true).unwrap();
    assert_eq!(read(&master, 100), Err(Errno::EAGAIN));
    let before = tty.hangups();
    drop(master);
    assert_ne!(tty.hangups(), before);
    assert_eq!(tty.opened(true), Err(Errno::EIO));
}

#[test]
fn nothing_is_lost_when_both_directions_are_full() {
    let (tty, master) = ends();
    let mut raw = tty.termios();
    (raw.lflag, raw.iflag, raw.oflag) = (0, 0, 0);
    tty.set_termios(raw);
    let mut written = 0;
    while let Ok(n) = write(&master, &[written as u8; 100]) {
        written += n;
    }
    assert!(written >= 8000, "{written}");
    let mut got = 0;
    while let Ok(bytes) = slave_read(&tty) {
        got += bytes.len();
    }
    assert_eq!(got, written);
    let mut sent = 0;
    while let Ok(n) = slave_write(&tty, &[1; 1000]) {
        sent += n;
    }
    assert!(sent >= 8192, "{sent}");
    let mut got = 0;
    while let Ok(bytes) = read(&master, 5000) {
        assert!(bytes.len() <= 4095);
        got += bytes.len();
    }
    assert_eq!(got, sent);
}

#[test]
fn packet_mode_tells_what_happened_to_the_slave() {
    let (tty, master) = ends();
    master.set_packet_mode(true);
    slave_write(&tty, b"ab").unwrap();
    assert_eq!(read(&master, 100).unwrap(), b"\0ab");
    write(&master, b"\x13").unwrap();
    assert_eq!(read(&master, 100).unwrap(), [4]);
    assert_eq!(slave_write(&tty, b"c"), Err(Errno::EAGAIN));
    write(&master, b"\x11").unwrap();
    assert_eq!(read(&master, 100).unwrap(), [8]);
    slave_write(&tty, b"c").unwrap();
    assert_eq!(read(&master, 1).unwrap(), [0]);
    assert_eq!(read(&master, 2).unwrap(), b"\0c");
    let mut t = tty.termios();
    t.iflag &= !g::IXON;
    tty.set_termios(t);
    assert_eq!(read(&master, 100).unwrap(), [16]);
    tty.flush_input();
    assert_eq!(read(&master, 100).unwrap(), [1]);
    assert_eq!(read(&master, 100), Err(Errno::EAGAIN));
}
