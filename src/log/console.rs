//! Which messages the consoles show, and who prints them.
//!
//! Each console has its own place in the log. Whoever logs tries for the one printing turn; if
//! another CPU (or the code that was interrupted) has it, that one prints the new message too.
//! So nobody waits, and a console never prints two messages at a time.

use crate::{
    RING,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    format::{self, LINE_MAX, LineBuf},
    level::Level,
    ring::{ReadError, Reader},
};
use core::fmt;
use spin::Once;

/// Prints one line, level first; the text ends with a newline. Any context, must not log.
pub type Sink = fn(u8, &str);

/// Consoles at the same time, the early one included.
const MAX_CONSOLES: usize = 4;
/// The early console's place.
const EARLY: usize = 0;

struct Console {
    sink: Once<Sink>,
    active: AtomicBool,
    /// The reader's two numbers; only the holder of the turn uses them.
    seq: AtomicU64,
    slot: AtomicU64,
}

static CONSOLES: [Console; MAX_CONSOLES] = [const {
    Console { sink: Once::new(), active: AtomicBool::new(false), seq: AtomicU64::new(0), slot: AtomicU64::new(0) }
}; MAX_CONSOLES];

/// Somebody prints.
static TURN: AtomicBool = AtomicBool::new(false);
/// Messages below this level are shown (Linux's default: 7, all but debug).
static CONSOLE_LEVEL: AtomicU8 = AtomicU8::new(7);
static EMERGENCY: Once<fn(&str)> = Once::new();

/// The current console level: messages with a lower number are shown.
pub fn console_level() -> u8 {
    CONSOLE_LEVEL.load(Ordering::Relaxed)
}

/// Sets the console level (`loglevel=`, `quiet` = 4, `ignore_loglevel` = 8 or more).
pub fn set_console_level(level: u8) {
    CONSOLE_LEVEL.store(level, Ordering::Relaxed);
}

/// Sets the console of early boot, and shows it what was logged so far.
pub fn set_early_console(sink: Sink) {
    add(EARLY, sink, true);
}

/// Ends the early console.
pub fn unregister_early_console() {
    if let Some(early) = CONSOLES.get(EARLY) {
        early.active.store(false, Ordering::Release);
    }
}

/// Registers the main console. It takes over where the early console stopped, or shows the log
/// from its beginning when there was none.
pub fn set_console_sink(sink: Sink) {
    register_console(sink, !CONSOLES.get(EARLY).is_some_and(|early| early.active.load(Ordering::Acquire)));
    unregister_early_console();
}

/// Registers one more console; `replay` shows it the log from its beginning. Returns whether
/// there was room.
pub fn register_console(sink: Sink, replay: bool) -> bool {
    (EARLY + 1..MAX_CONSOLES).any(|n| add(n, sink, replay))
}

fn add(n: usize, sink: Sink, replay: bool) -> bool {
    let Some(console) = CONSOLES.get(n) else { return false };
    let mut fresh = false;
    console.sink.call_once(|| {
        fresh = true;
        sink
    });
    if fresh {
        let start = if replay { RING.reader_at_oldest() } else { RING.reader_at_end() };
        console.set_place(start);
        console.active.store(true, Ordering::Release);
        flush();
    }
    fresh
}

impl Console {
    fn place(&self) -> Reader {
        Reader::from_parts(self.seq.load(Ordering::Relaxed), self.slot.load(Ordering::Relaxed))
    }

    fn set_place(&self, place: Reader) {
        let (seq, slot) = place.parts();
        self.seq.store(seq, Ordering::Relaxed);
        self.slot.store(slot, Ordering::Relaxed);
    }

    /// Prints one record if there is one.
    fn print_next(&self, text: &mut [u8; LINE_MAX]) -> bool {
        let Some(sink) = self.sink.get().filter(|_| self.active.load(Ordering::Acquire)) else { return false };
        let mut place = self.place();
        let outcome = RING.read(&mut place, text);
        self.set_place(place);
        match outcome {
            Ok(record) => {
                if (record.level as u8) < console_level() {
                    let text = format::text(text.get(..record.len).unwrap_or(&[]));
                    print_lines(*sink, record.level, record.time, text);
                }
                true
            }
            Err(ReadError::Overrun) => true,
            Err(ReadError::Empty) => false,
        }
    }
}

/// Prints each line of a message with its stamp.
fn print_lines(sink: Sink, level: Level, time: u64, text: &str) {
    let mut stamp = LineBuf::<32>::new();
    format::stamp(&mut stamp, time);
    for line in text.split('\n') {
        sink(level as u8, stamp.as_str());
        sink(level as u8, line);
        sink(level as u8, "\n");
    }
}

/// Shows the consoles what they have not shown, unless somebody else is at it (who then does).
pub fn flush() {
    let mut text = [0; LINE_MAX];
    while pending() {
        // Acquire and Release on the turn hand the consoles' places over.
        if TURN.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return;
        }
        // A holder that is switched out would keep everybody's messages back.
        arch::preempt::disable();
        #[allow(clippy::unnecessary_fold)] // `any` would stop at the first console
        while CONSOLES.iter().fold(false, |any, console| console.print_next(&mut text) || any) {}
        TURN.store(false, Ordering::Release);
        arch::preempt::enable();
        // Around again: a message may have come between the last look and the release.
    }
}

/// Whether some console has something to show.
fn pending() -> bool {
    CONSOLES.iter().any(|console| console.active.load(Ordering::Acquire) && console.place().ready())
}

/// Sets the output of last resort: prints text as it is, from any context, without locks.
pub fn set_emergency_sink(sink: fn(&str)) {
    EMERGENCY.call_once(|| sink);
}

/// Prints past the log, at once and without locks, for a kernel that is about to stop.
pub fn emergency_print(message: fmt::Arguments<'_>) {
    struct Out(fn(&str));
    impl fmt::Write for Out {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            (self.0)(s);
            Ok(())
        }
    }
    if let Some(sink) = EMERGENCY.get() {
        // A Display implementation that fails has printed what it could.
        let _ = fmt::write(&mut Out(*sink), message);
    }
}
