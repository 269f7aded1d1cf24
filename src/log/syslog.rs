//! The log as syslog(2) and /dev/kmsg show it: what their callers need besides a [`Reader`].
//!
//! /dev/kmsg: each open file has a [`Reader`] and reads with [`read_kmsg`]. syslog(2): one shared
//! reader for SYSLOG_ACTION_READ (its caller keeps it), [`read_all`] for READ_ALL, the mark of CLEAR.

use crate::{
    RING,
    atomic::{AtomicU64, Ordering},
    format::{self, LINE_MAX, LineBuf},
    level::{Facility, Level},
    ring::{ReadError, Reader, Record},
};

/// Room for a record in the form of /dev/kmsg: each byte of text can become four.
pub const KMSG_MAX: usize = 4 * LINE_MAX + 64;

/// Bytes of the log's buffer (SYSLOG_ACTION_SIZE_BUFFER).
pub const BUFFER_SIZE: usize = crate::SLOTS * 128;

/// Records below this number were cleared.
static CLEARED: AtomicU64 = AtomicU64::new(0);

/// Reads the next record in the form of /dev/kmsg. `Empty`: wait or EAGAIN; `Overrun`: EPIPE.
pub fn read_kmsg(reader: &mut Reader, out: &mut LineBuf<KMSG_MAX>) -> Result<Record, ReadError> {
    let mut text = [0; LINE_MAX];
    let record = reader.read_record(&mut text)?;
    out.clear();
    format::kmsg_line(out, &record, text.get(..record.len).unwrap_or(&[]));
    Ok(record)
}

/// Splits what a program wrote to /dev/kmsg: `<prio>text`; without a prefix it is LOG_USER at the
/// default level. A program cannot speak as the kernel: facility 0 becomes LOG_USER.
pub fn parse_user(line: &[u8]) -> (Level, Facility, &[u8]) {
    const LOG_USER: Facility = Facility::User(1);
    let plain = (Level::Warning, LOG_USER, line);
    let Some(rest) = line.strip_prefix(b"<") else { return plain };
    let Some(end) = rest.iter().position(|&b| b == b'>') else { return plain };
    let (Some(digits), Some(text)) = (rest.get(..end), rest.get(end + 1..)) else { return plain };
    let prio = core::str::from_utf8(digits).ok().and_then(|d| d.parse::<u32>().ok());
    let Some(prio) = prio else { return plain };
    let facility = match Facility::from_number((prio >> 3) as u8) {
        Facility::Kernel => LOG_USER,
        user => user,
    };
    (Level::from_bits(prio as u8), facility, text)
}

/// Where SYSLOG_ACTION_READ_ALL begins: the oldest record that was not cleared.
pub fn uncleared() -> Reader {
    let mut reader = Reader::oldest();
    while reader.seq() < CLEARED.load(Ordering::Relaxed) && reader.read_record(&mut []).is_ok() {}
    reader
}

/// SYSLOG_ACTION_CLEAR: later reads of everything begin here.
pub fn clear() {
    CLEARED.store(RING.next_seq(), Ordering::Relaxed);
}

/// SYSLOG_ACTION_READ_ALL: calls `line` with each line, `<prio>[stamp] text\n`, of the newest
/// records that fit into `room` bytes together, oldest first. Stops when `line` returns false.
pub fn read_all(room: usize, mut line: impl FnMut(&[u8]) -> bool) {
    let end = RING.next_seq();
    let mut out = LineBuf::<{ LINE_MAX + 64 }>::new();
    let mut text = [0; LINE_MAX];
    // First how much there is, then from where on it fits.
    let mut total = 0;
    let mut reader = uncleared();
    let start = reader;
    while reader.seq() < end && next_line(&mut reader, &mut text, &mut out) {
        total += out.as_bytes().len();
    }
    reader = start;
    while reader.seq() < end && next_line(&mut reader, &mut text, &mut out) {
        if total > room {
            total -= out.as_bytes().len();
        } else if !line(out.as_bytes()) {
            return;
        }
    }
}

/// SYSLOG_ACTION_READ: the next record as lines with prefix, into `out`; false when there is none.
pub fn read_next(reader: &mut Reader, out: &mut LineBuf<{ LINE_MAX + 64 }>) -> bool {
    next_line(reader, &mut [0; LINE_MAX], out)
}

fn next_line(reader: &mut Reader, text: &mut [u8; LINE_MAX], out: &mut LineBuf<{ LINE_MAX + 64 }>) -> bool {
    loop {
        match reader.read_record(text) {
            Ok(record) => {
                out.clear();
                format::syslog_lines(out, &record, text.get(..record.len).unwrap_or(&[]));
                return true;
            }
            // syslog(2) does not tell: it goes on at the oldest record.
            Err(ReadError::Overrun) => {}
            Err(ReadError::Empty) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_cannot_log_as_the_kernel() {
        assert_eq!(parse_user(b"<6>x"), (Level::Info, Facility::User(1), &b"x"[..]));
        assert_eq!(parse_user(b"<30>x"), (Level::Info, Facility::User(3), &b"x"[..]));
        assert_eq!(parse_user(b"plain"), (Level::Warning, Facility::User(1), &b"plain"[..]));
        for odd in [&b"<>x"[..], b"<abc>x", b"<6", b"<99999999999>x"] {
            assert_eq!(parse_user(odd), (Level::Warning, Facility::User(1), odd));
        }
    }

    #[test]
    fn kmsg_form_escapes_control_bytes_and_stays_one_line() {
        let record = Record { seq: 7, time: 1_234_567_890, level: Level::Err, facility: Facility::User(1), len: 5 };
        let mut out = LineBuf::<128>::new();
        format::kmsg_line(&mut out, &record, b"a\n\\b\x80");
        assert_eq!(out.as_str(), "11,7,1234567,-;a\\x0a\\x5cb\\x80\n");
    }

    #[test]
    fn each_line_of_a_syslog_record_has_its_prefix() {
        let record = Record { seq: 7, time: 61_000_001_999, level: Level::Info, facility: Facility::Kernel, len: 3 };
        let mut out = LineBuf::<128>::new();
        format::syslog_lines(&mut out, &record, b"a\nb");
        assert_eq!(out.as_str(), "<6>[   61.000001] a\n<6>[   61.000001] b\n");
    }
}
