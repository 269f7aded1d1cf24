//! The state words of sleeping locks: who has the lock, and whether somebody waits for it.
//!
//! Only tries, no waiting; apart from the data that they guard, so that the model checker can
//! drive them (tests/model.rs).

use sync::atomic::{AtomicU32, Ordering};

/// Nobody has it.
const FREE: u32 = 0;
/// Somebody has it, and nobody waits.
const HELD: u32 = 1;
/// Somebody has it, and somebody may wait for it.
const CONTENDED: u32 = 2;

/// The word of a lock with one owner. Starts at zero.
pub struct ExclusiveWord(pub AtomicU32);

impl ExclusiveWord {
    /// Takes it if it is free.
    #[inline]
    pub fn try_take(&self) -> bool {
        // Acquire pairs with the release in `give_back`.
        self.0.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes it if it is free; otherwise the owner learns, when it gives it back, that somebody
    /// waits.
    #[inline]
    pub fn take_or_contend(&self) -> bool {
        // The word stays CONTENDED for the new owner too: others may still wait.
        self.0.swap(CONTENDED, Ordering::Acquire) == FREE
    }

    /// Gives it back; whether somebody waits. Only by the owner.
    #[inline]
    pub fn give_back(&self) -> bool {
        self.0.swap(FREE, Ordering::Release) == CONTENDED
    }

    /// Whether somebody has it at this moment.
    pub fn is_held(&self) -> bool {
        self.0.load(Ordering::Relaxed) != FREE
    }
}

/// A writer has it.
const WRITER: u32 = 1;
/// A writer waits: new readers stay out.
const WRITER_WAITS: u32 = 2;
/// Somebody waits, reader or writer.
const WAITERS: u32 = 4;
/// One reader.
const READER: u32 = 8;
/// Readers beyond this are refused, far from overflow.
const MOST_READERS: u32 = u32::MAX / 2;

/// The word of a lock with many readers or one writer. Starts at zero.
pub struct SharedWord(pub AtomicU32);

impl SharedWord {
    /// Changes the word by `step` until it holds or declines.
    #[inline]
    fn update(&self, mut step: impl FnMut(u32) -> Option<u32>) -> bool {
        let mut now = self.0.load(Ordering::Relaxed);
        while let Some(new) = step(now) {
            // Acquire pairs with the releases below.
            match self.0.compare_exchange(now, new, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => now = found,
            }
        }
        false
    }

    /// Takes a share, if no writer has it or waits for it.
    #[inline]
    pub fn try_read(&self) -> bool {
        self.update(|s| (s & (WRITER | WRITER_WAITS) == 0 && s < MOST_READERS).then(|| s + READER))
    }

    /// Takes the whole, if nobody has any of it.
    #[inline]
    pub fn try_write(&self) -> bool {
        self.update(|s| (s & WRITER == 0 && s < READER).then_some(s | WRITER))
    }

    /// As `try_read` for one who waits: a failure is noted, so that the next release tells. A
    /// reader that was `woken` enters although writers wait, so that neither side starves.
    pub fn read_or_contend(&self, woken: bool) -> bool {
        let stop = if woken { WRITER } else { WRITER | WRITER_WAITS };
        let mut got = false;
        self.update(|s| {
            got = s & stop == 0 && s < MOST_READERS;
            if got { Some(s + READER) } else { (s & WAITERS == 0).then_some(s | WAITERS) }
        });
        got
    }

    /// As `try_write` for one who waits: a failure is noted, and keeps new readers out.
    pub fn write_or_contend(&self) -> bool {
        let mut got = false;
        self.update(|s| {
            got = s & WRITER == 0 && s < READER;
            let noted = s | WAITERS | WRITER_WAITS;
            if got { Some(s | WRITER) } else { (noted != s).then_some(noted) }
        });
        got
    }

    /// Gives a share back; `true` if it was the last and somebody waits. Only by a reader.
    #[inline]
    pub fn end_read(&self) -> bool {
        let left = self.0.fetch_sub(READER, Ordering::Release) - READER;
        left < READER && left & WAITERS != 0
    }

    /// Gives the whole back; `true` if somebody waits. Only by the writer.
    #[inline]
    pub fn end_write(&self) -> bool {
        self.0.fetch_and(!WRITER, Ordering::Release) & WAITERS != 0
    }

    /// Turns the whole into a share; `true` if somebody waits. Only by the writer.
    pub fn downgrade(&self) -> bool {
        // WRITER goes and one READER comes, in one step; Release publishes what the writer wrote.
        self.0.fetch_add(READER - WRITER, Ordering::Release) & WAITERS != 0
    }

    /// Forgets the notes of waiters: by whoever is about to wake all of them, before it does.
    pub fn forget_waiters(&self) {
        self.0.fetch_and(!(WAITERS | WRITER_WAITS), Ordering::AcqRel);
    }

    /// Whether a writer has it at this moment.
    pub fn is_written(&self) -> bool {
        self.0.load(Ordering::Relaxed) & WRITER != 0
    }

    /// Whether anybody has it at this moment.
    pub fn is_held(&self) -> bool {
        let s = self.0.load(Ordering::Relaxed);
        s & WRITER != 0 || s >= READER
    }
}
