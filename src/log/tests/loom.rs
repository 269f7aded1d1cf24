//! A model of the log's ring: writers and a reader in every order that the memory model allows.
//! `RUSTFLAGS="--cfg loom" cargo test -p klog --release --test loom`
#![cfg(loom)]

use klog::{Facility, Level, ReadError, model, ring::Ring};
use loom::thread;
use std::sync::Arc;

fn push(ring: &Ring<2>, byte: u8) -> Option<u64> {
    ring.push(Level::Info, Facility::Kernel, u64::from(byte), &[byte; 12])
}

fn new_ring() -> Arc<Ring<2>> {
    let ring = Arc::new(Ring::new());
    ring.touch();
    ring
}

/// Reads once; a record must be whole: its time and all of its text are of one message.
fn check_read(ring: &Ring<2>, reader: &mut klog::Reader) -> Result<u64, ReadError> {
    let mut text = [0; 12];
    let record = ring.read(reader, &mut text)?;
    assert!(text.iter().all(|&b| u64::from(b) == record.time), "torn: {record:?} {text:?}");
    Ok(record.seq)
}

#[test]
fn a_reader_sees_whole_records_while_a_writer_laps_it() {
    model(2, || {
        let ring = new_ring();
        let mut reader = ring.reader_at_oldest();
        push(&ring, 1);
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || {
                push(&ring, 2);
                push(&ring, 3);
            })
        };
        let _ = check_read(&ring, &mut reader);
        writer.join().unwrap();
        while check_read(&ring, &mut reader) != Err(ReadError::Empty) {}
        assert_eq!(reader.seq(), 3);
    });
}

#[test]
fn two_writers_never_share_a_slot() {
    model(2, || {
        let ring = new_ring();
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || push(&ring, 1))
        };
        let mine = push(&ring, 2);
        let theirs = writer.join().unwrap();
        assert!(mine.is_some() && theirs.is_some() && mine != theirs);
        let mut reader = ring.reader_at_oldest();
        assert_eq!(check_read(&ring, &mut reader), Ok(0));
        assert_eq!(check_read(&ring, &mut reader), Ok(1));
    });
}
