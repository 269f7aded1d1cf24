//! Where log records live: a ring that writers in any context add to without waiting, and that
//! any number of readers follow.
//!
//! The ring is an array of slots of 128 bytes. A record takes one slot or several in a row; its
//! first slot has the header. A writer reserves its slots by one compare-and-swap on `head`, which
//! holds both the number of the next record and the number of the next slot; then it alone writes
//! them. A slot's `state` tells lap, record number and whether it is complete.
//!
//! - A writer that finds a slot of the previous lap incomplete (its writer was interrupted or its
//!   CPU is held up) does not touch it: the message is counted in `lost` and dropped.
//! - Readers hold nothing. They copy a record and then check that its slots still are what they
//!   were; if not, they were overtaken and go on at the oldest record.
//!
//! Numbers wrap after 2^40 records; laps after 2^13, which matters only to a writer that sleeps
//! while a gigabyte is logged.

use crate::{
    atomic::{AtomicU64, Ordering, fence},
    format::LINE_MAX,
    level::{Facility, Level},
};

/// Data words in a slot besides its state.
const WORDS: usize = 15;
/// Words of the header in a record's first slot: time, and level, facility and length.
const HEADER: usize = 2;

const SEQ_BITS: u32 = 40;
const SEQ_MASK: u64 = (1 << SEQ_BITS) - 1;
/// Bits of the slot number in `head`; laps are what exceeds the number of slots.
const SLOT_BITS: u32 = 24;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// All zero until the first use, so that the ring costs nothing in the image.
struct Slot {
    /// See [`State`].
    state: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// The state word: record number (40 bits), lap + 1 (13 bits), first slot, complete.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    seq: u64,
    lap: u64,
    first: bool,
    complete: bool,
}

const LAP_BITS: u32 = 13;
const LAP_MASK: u64 = (1 << LAP_BITS) - 1;

impl State {
    fn pack(self) -> u64 {
        (self.seq & SEQ_MASK) << 24 | (self.lap & LAP_MASK) << 2 | u64::from(self.first) << 1 | u64::from(self.complete)
    }

    fn unpack(word: u64) -> Self {
        Self {
            seq: word >> 24 & SEQ_MASK,
            lap: word >> 2 & LAP_MASK,
            first: word >> 1 & 1 != 0,
            complete: word & 1 != 0,
        }
    }
}

/// A record without its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Number of the record, from 0 at boot, without gaps.
    pub seq: u64,
    /// Nanoseconds since boot.
    pub time: u64,
    /// Level.
    pub level: Level,
    /// Origin.
    pub facility: Facility,
    /// Bytes of text, which may be more than the reader's buffer took.
    pub len: usize,
}

/// Why a read gave no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadError {
    /// There is no newer record yet.
    Empty,
    /// Records that the reader had not read are gone; it now stands at the oldest that is left
    /// (/dev/kmsg: EPIPE).
    Overrun,
}

/// The ring; `SLOTS` is a power of two up to 2^23.
pub struct Ring<const SLOTS: usize> {
    /// Next record number (high 40 bits) and next slot number (low 24 bits).
    head: AtomicU64,
    lost: AtomicU64,
    slots: [Slot; SLOTS],
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    seq: u64,
    slot: u64,
}

impl<const SLOTS: usize> Ring<SLOTS> {
    /// An empty ring.
    pub const fn new() -> Self {
        const { assert!(SLOTS.is_power_of_two() && SLOTS <= 1 << 23) };
        Self {
            head: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            slots: [const { Slot { state: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS] } }; SLOTS],
        }
    }

    /// Makes the atomics in a model, before its threads share them.
    #[cfg(loom)]
    pub fn touch(&self) {
        self.head.load(Ordering::Relaxed);
        self.lost.load(Ordering::Relaxed);
        for slot in &self.slots {
            slot.state.load(Ordering::Relaxed);
            slot.words.iter().for_each(|word| {
                word.load(Ordering::Relaxed);
            });
        }
    }

    fn slot(&self, number: u64) -> &Slot {
        #[allow(clippy::indexing_slicing)] // masked to the length, so there is no check to fail
        &self.slots[number as usize & (SLOTS - 1)]
    }

    fn lap(number: u64) -> u64 {
        (((number & SLOT_MASK) >> SLOTS.trailing_zeros()) + 1) & LAP_MASK & (SLOT_MASK >> SLOTS.trailing_zeros())
    }

    fn slots_for(len: usize) -> u64 {
        let words = HEADER + len.div_ceil(8);
        words.div_ceil(WORDS) as u64
    }

    /// Adds a record; a trailing newline is dropped, a text that is too long is cut. Returns its
    /// number, or `None` when it was dropped. Any context.
    pub fn push(&self, level: Level, facility: Facility, time: u64, text: &[u8]) -> Option<u64> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.get(..LINE_MAX).unwrap_or(text);
        let count = Self::slots_for(text.len());
        let (seq, slot) = match self.reserve(count) {
            Some(place) => place,
            None => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        };
        let state = |n: u64, complete| State { seq, lap: Self::lap(slot.wrapping_add(n)), first: n == 0, complete };
        for n in 0..count {
            self.slot(slot.wrapping_add(n)).state.store(state(n, false).pack(), Ordering::Relaxed);
        }
        // Pairs with the fence in `copy`: a reader that sees a new word sees the new state.
        fence(Ordering::Release);
        let meta = (text.len() as u64) << 16 | u64::from(facility.number()) << 8 | level as u64;
        let body = text.chunks(8).map(|chunk| {
            let mut bytes = [0; 8];
            if let Some(to) = bytes.get_mut(..chunk.len()) {
                to.copy_from_slice(chunk);
            }
            u64::from_le_bytes(bytes)
        });
        for (n, word) in [time, meta].into_iter().chain(body).enumerate() {
            let target = self.slot(slot.wrapping_add((n / WORDS) as u64));
            if let Some(target) = target.words.get(n % WORDS) {
                target.store(word, Ordering::Relaxed);
            }
        }
        // The first slot last: it is what makes the record visible.
        for n in (0..count).rev() {
            self.slot(slot.wrapping_add(n)).state.store(state(n, true).pack(), Ordering::Release);
        }
        Some(seq)
    }

    /// Takes the next `count` slots: their record's number and the first slot's.
    fn reserve(&self, count: u64) -> Option<(u64, u64)> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let (seq, slot) = (head >> SLOT_BITS, head & SLOT_MASK);
            let mut busy = false;
            for n in 0..count {
                let number = slot.wrapping_add(n) & SLOT_MASK;
                // Acquire: the writer of the previous lap is done before we write.
                let state = State::unpack(self.slot(number).state.load(Ordering::Acquire));
                let previous = Self::lap(number.wrapping_sub(SLOTS as u64));
                let free = state.complete && state.lap == previous || state.lap == 0 && seq < SLOTS as u64;
                if !free {
                    busy = true;
                    break;
                }
            }
            if busy {
                // Busy, or our view of the head is old: a plain load might still show the old one
                // although the slot already shows its new writer. The swap with itself does not.
                match self.head.compare_exchange(head, head, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return None,
                    Err(now) => head = now,
                }
                continue;
            }
            let next = (seq + 1) << SLOT_BITS | slot.wrapping_add(count) & SLOT_MASK;
            match self.head.compare_exchange_weak(head, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some((seq, slot)),
                Err(now) => head = now,
            }
        }
    }

    /// Messages that were dropped because their slots were still being written.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The number that the next record gets.
    pub fn next_seq(&self) -> u64 {
        self.head.load(Ordering::Acquire) >> SLOT_BITS
    }

    /// A reader that stands at the oldest record.
    pub fn reader_at_oldest(&self) -> Reader {
        let head = self.head.load(Ordering::Acquire);
        let end = head & SLOT_MASK;
        let mut reader = Reader { seq: head >> SLOT_BITS, slot: end };
        // From the slot that is overwritten next onwards: the first record start is the oldest.
        for n in 0..SLOTS as u64 {
            let number = end.wrapping_sub(SLOTS as u64).wrapping_add(n) & SLOT_MASK;
            let state = State::unpack(self.slot(number).state.load(Ordering::Acquire));
            if state.first && state.lap == Self::lap(number) {
                reader = Reader { seq: state.seq, slot: number };
                break;
            }
        }
        reader
    }

    /// A reader that stands behind the newest record.
    pub fn reader_at_end(&self) -> Reader {
        let head = self.head.load(Ordering::Acquire);
        Reader { seq: head >> SLOT_BITS, slot: head & SLOT_MASK }
    }

    /// Reads the record at which the reader stands into `text`, as much as fits, and moves on.
    pub fn read(&self, reader: &mut Reader, text: &mut [u8]) -> Result<Record, ReadError> {
        let number = reader.slot & SLOT_MASK;
        let state = State::unpack(self.slot(number).state.load(Ordering::Acquire));
        let mine = State { seq: reader.seq & SEQ_MASK, lap: Self::lap(number), first: true, complete: true };
        if state == mine && let Some((record, count)) = self.copy(number, mine, text) {
            reader.seq += 1;
            reader.slot = (number + count) & SLOT_MASK;
            return Ok(record);
        }
        // Not written yet, being written, or overwritten: the head tells how far we are behind.
        let head = self.head.load(Ordering::Acquire);
        let behind = (head & SLOT_MASK).wrapping_sub(number) & SLOT_MASK;
        if behind as usize <= SLOTS && reader.seq <= head >> SLOT_BITS {
            return Err(ReadError::Empty);
        }
        *reader = self.reader_at_oldest();
        Err(ReadError::Overrun)
    }

    /// Copies a record; `None` when it was overwritten meanwhile.
    fn copy(&self, first: u64, state: State, text: &mut [u8]) -> Option<(Record, u64)> {
        let word = |n: usize| {
            let slot = self.slot(first.wrapping_add((n / WORDS) as u64));
            slot.words.get(n % WORDS).map_or(0, |w| w.load(Ordering::Relaxed))
        };
        let (time, meta) = (word(0), word(1));
        let len = ((meta >> 16) as usize).min(LINE_MAX);
        let count = Self::slots_for(len);
        for (n, chunk) in text.chunks_mut(8).take(len.div_ceil(8)).enumerate() {
            let bytes = word(HEADER + n).to_le_bytes();
            if let Some(from) = bytes.get(..chunk.len()) {
                chunk.copy_from_slice(from);
            }
        }
        // Pairs with the fence in `push`.
        fence(Ordering::Acquire);
        for n in 0..count {
            let number = first.wrapping_add(n);
            let expected = State { lap: Self::lap(number), first: n == 0, ..state };
            if State::unpack(self.slot(number).state.load(Ordering::Relaxed)) != expected {
                return None;
            }
        }
        let record = Record {
            seq: state.seq,
            time,
            level: Level::from_bits(meta as u8),
            facility: Facility::from_number((meta >> 8) as u8),
            len,
        };
        Some((record, count))
    }
}

impl<const SLOTS: usize> Default for Ring<SLOTS> {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// At the oldest record of the kernel's log.
    pub fn oldest() -> Self {
        crate::RING.reader_at_oldest()
    }

    /// Behind the newest record of the kernel's log.
    pub fn newest() -> Self {
        crate::RING.reader_at_end()
    }

    /// Reads the next record's text into `buf`, as much as fits, and moves on.
    pub fn read_record(&mut self, buf: &mut [u8]) -> Result<Record, ReadError> {
        crate::RING.read(self, buf)
    }

    /// Whether a read would return something: a record, or that records were lost.
    pub fn ready(&self) -> bool {
        let mut probe = *self;
        !matches!(probe.read_record(&mut []), Err(ReadError::Empty))
    }

    pub(crate) fn parts(self) -> (u64, u64) {
        (self.seq, self.slot)
    }

    pub(crate) fn from_parts(seq: u64, slot: u64) -> Self {
        Self { seq, slot }
    }

    /// Number of the record at which the reader stands.
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn push<const N: usize>(ring: &Ring<N>, text: &[u8]) -> Option<u64> {
        ring.push(Level::Info, Facility::Kernel, 5, text)
    }

    #[test]
    fn records_come_back_in_order_and_then_the_ring_is_empty() {
        let ring = Ring::<8>::new();
        let mut reader = ring.reader_at_oldest();
        assert_eq!(push(&ring, b"one\n"), Some(0));
        assert_eq!(push(&ring, b"two"), Some(1));
        let mut buf = [0; 16];
        let record = ring.read(&mut reader, &mut buf).unwrap();
        assert_eq!((record.seq, record.time, record.len, &buf[..3]), (0, 5, 3, &b"one"[..]));
        assert_eq!(ring.read(&mut reader, &mut buf).unwrap().seq, 1);
        assert_eq!(ring.read(&mut reader, &mut buf), Err(ReadError::Empty));
    }

    #[test]
    fn a_reader_that_was_overtaken_is_told_and_goes_on_at_the_oldest() {
        let ring = Ring::<8>::new();
        let mut reader = ring.reader_at_oldest();
        for n in 0..20_u8 {
            push(&ring, &[b'a' + n]);
        }
        let mut buf = [0; 4];
        assert_eq!(ring.read(&mut reader, &mut buf), Err(ReadError::Overrun));
        assert_eq!(ring.read(&mut reader, &mut buf).unwrap().seq, 12);
        assert_eq!(buf[0], b'a' + 12);
    }

    #[test]
    fn a_slot_that_is_being_written_is_never_taken_by_another_writer() {
        let ring = Ring::<4>::new();
        // A writer that stops between reserving and writing: what an interrupted CPU looks like.
        assert_eq!(ring.reserve(1), Some((0, 0)));
        for _ in 0..3 {
            assert!(push(&ring, b"x").is_some());
        }
        assert_eq!(push(&ring, b"dropped"), None);
        assert_eq!(ring.lost(), 1);
    }

    #[test]
    fn a_ring_works_for_more_laps_than_the_state_counts() {
        let ring = Ring::<4>::new();
        let mut reader = ring.reader_at_oldest();
        for n in 0..40_000_u64 {
            assert_eq!(push(&ring, b"x"), Some(n));
            assert_eq!(ring.read(&mut reader, &mut []).map(|r| r.seq), Ok(n));
        }
    }

    #[test]
    fn readers_see_only_whole_records_while_all_cpus_write() {
        static RING: Ring<64> = Ring::new();
        arch::sim::run_on_cpus(4, |cpu| {
            if cpu.0 == 0 {
                let mut reader = RING.reader_at_oldest();
                let (mut buf, mut last) = ([0; LINE_MAX], None);
                for _ in 0..20_000 {
                    if let Ok(record) = RING.read(&mut reader, &mut buf) {
                        let text = &buf[..record.len];
                        assert!(text.iter().all(|b| *b == text[0]), "torn record {record:?}");
                        assert!(last.is_none_or(|last| record.seq > last));
                        last = Some(record.seq);
                    }
                }
            } else {
                for n in 0..3000_usize {
                    push(&RING, &[b'a' + cpu.0 as u8; 400][..1 + n % 400]);
                }
            }
        });
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_newest_records_unchanged(lengths in prop::collection::vec(0_usize..600, 1..60)) {
            let ring = Ring::<16>::new();
            let texts: std::vec::Vec<_> = lengths.iter().enumerate().map(|(n, len)| std::vec![b'a' + (n % 26) as u8; *len]).collect();
            for text in &texts {
                prop_assert!(push(&ring, text).is_some());
            }
            let mut reader = ring.reader_at_oldest();
            let (mut buf, mut next) = ([0; LINE_MAX], reader.seq);
            while let Ok(record) = ring.read(&mut reader, &mut buf) {
                prop_assert_eq!(record.seq, next);
                prop_assert_eq!(&buf[..record.len], &texts[next as usize][..]);
                next += 1;
            }
            prop_assert_eq!(next, texts.len() as u64);
        }
    }
}
