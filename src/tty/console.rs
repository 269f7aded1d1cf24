//! Consoles: which devices show the kernel's messages, and which one is /dev/console.
//!
//! `console=NAME[,OPTIONS]` may be given several times: each that exists shows messages, and the
//! last is /dev/console. Without one, it is the device that the firmware used (`stdout-path`), or
//! the first there is. When none of those that were asked for exists, a message says so and the
//! same rule applies, so that the machine stays usable.
//!
//! Messages are written by polling the device, without sleeping and in any context, so that a
//! panic shows too. The early console ends when the first real one starts (klog sees to it).

use crate::Tty;
use abi::{Errno, Result};
use kalloc::KArc;
use sync::{LockClass, Once, SpinLock};

/// A device that can show messages.
pub trait ConsoleOutput: Send + Sync {
    /// Sends bytes by polling. Any context, a panic included: waits for a lock only so long.
    fn write_polled(&self, bytes: &[u8]);
}

/// Consoles at the same time.
const MAX: usize = 4;
/// Longest name, as "ttyAMA0".
const NAME: usize = 16;

static CONSOLES: LockClass = LockClass::new("consoles", 1250);

#[derive(Clone, Copy)]
struct Asked {
    name: [u8; NAME],
    len: usize,
}

impl Asked {
    fn name(&self) -> &str {
        core::str::from_utf8(self.name.get(..self.len).unwrap_or_default()).unwrap_or("?")
    }
}

struct Known {
    tty: KArc<Tty>,
    output: KArc<dyn ConsoleOutput>,
    is_stdout: bool,
    enabled: bool,
}

struct State {
    /// What `console=` asked for, in order.
    asked: [Option<Asked>; MAX],
    known: [Option<Known>; MAX],
}

static STATE: SpinLock<State> =
    SpinLock::new(State { asked: [const { None }; MAX], known: [const { None }; MAX] }, &CONSOLES);

/// The enabled ones, for the log: read without a lock.
static OUTPUTS: [Once<KArc<dyn ConsoleOutput>>; MAX] = [const { Once::new() }; MAX];

/// Notes the `console=` parameters of a command line. Once, before the consoles register.
pub fn parse(cmdline: &[u8]) {
    let mut state = STATE.lock();
    for word in cmdline.split(|b| b.is_ascii_whitespace()) {
        let Some(value) = word.strip_prefix(b"console=") else { continue };
        let name = value.split(|&b| b == b',').next().unwrap_or_default();
        let mut asked = Asked { name: [0; NAME], len: name.len().min(NAME) };
        for (slot, b) in asked.name.iter_mut().zip(name) {
            *slot = *b;
        }
        // The same name again counts at its last place.
        let same = |a: &Option<Asked>| a.as_ref().is_some_and(|a| a.name() == asked.name());
        if let Some(at) = state.asked.iter().position(same) {
            if let Some(rest) = state.asked.get_mut(at..) {
                rest.rotate_left(1);
            }
            if let Some(free) = state.asked.iter_mut().rev().find(|a| same(a)) {
                *free = None;
            }
        }
        match state.asked.iter_mut().find(|a| a.is_none()) {
            Some(free) => *free = Some(asked),
            None => state.asked.rotate_left(1),
        }
    }
}

/// A terminal's device offers itself as a console. `is_stdout`: the firmware used it. It starts
/// showing messages at once if `console=` asked for it, or, when nothing was asked for, if it is
/// the firmware's. ENOSPC for too many.
pub fn register(tty: &KArc<Tty>, output: KArc<dyn ConsoleOutput>, is_stdout: bool) -> Result {
    let enable = {
        let mut state = STATE.lock();
        let mut asked = state.asked.iter().flatten();
        let wanted = asked.clone().any(|a| a.name() == tty.name());
        let enable = wanted || asked.next().is_none() && is_stdout;
        let free = state.known.iter_mut().find(|k| k.is_none()).ok_or(Errno::ENOSPC)?;
        *free = Some(Known { tty: tty.clone(), output: output.clone(), is_stdout, enabled: enable });
        enable
    };
    if enable {
        start(output, tty.name());
    }
    Ok(())
}

/// Sends the log to one more console.
fn start(output: KArc<dyn ConsoleOutput>, name: &str) {
    log::info!("console: {name} enabled");
    let mut output = Some(output);
    for (i, slot) in OUTPUTS.iter().enumerate() {
        let Some(o) = output.take() else { break };
        let mut o = Some(o);
        let _ = slot.try_call_once(|| o.take().ok_or(()));
        if o.is_none() && i == 0 {
            klog::set_console_sink(print);
        }
        output = o;
    }
}

/// All consoles are there: reports those that were asked for and do not exist, and sees to it that
/// there is one at all.
pub fn finish() {
    let (missing, fallback) = {
        let mut guard = STATE.lock();
        let state = &mut *guard;
        let mut missing = state.asked;
        for slot in &mut missing {
            let exists = |a: &Asked| state.known.iter().flatten().any(|k| k.tty.name() == a.name());
            if slot.as_ref().is_some_and(exists) {
                *slot = None;
            }
        }
        let none = !state.known.iter().flatten().any(|k| k.enabled);
        let mut candidates = state.known.iter_mut().flatten();
        let pick = if none { candidates.by_ref().max_by_key(|k| k.is_stdout) } else { None };
        (missing, pick.map(|k| {
            k.enabled = true;
            (k.tty.clone(), k.output.clone())
        }))
    };
    if let Some((tty, output)) = fallback {
        start(output, tty.name());
    }
    for asked in missing.iter().flatten() {
        match tty() {
            Some(t) => log::error!("console={}: there is no such console; /dev/console is {}", asked.name(), t.name()),
            None => log::error!("console={}: there is no such console", asked.name()),
        }
    }
}

/// The terminal that /dev/console stands for: of the last `console=` that exists, else of the one
/// that is in use.
pub fn tty() -> Option<KArc<Tty>> {
    let state = STATE.lock();
    let known = |name: &str| state.known.iter().flatten().find(|k| k.tty.name() == name);
    let last = state.asked.iter().flatten().rev().find_map(|a| known(a.name()));
    last.or_else(|| state.known.iter().flatten().find(|k| k.enabled)).map(|k| k.tty.clone())
}

/// Calls `f` with each console in use: its name, device, and whether it is /dev/console
/// (/proc/consoles, /sys/class/tty/console/active).
pub fn for_each(mut f: impl FnMut(&Tty, bool)) {
    let first = tty();
    for i in 0..MAX {
        let known = STATE.lock().known.get(i).and_then(|k| k.as_ref()).filter(|k| k.enabled).map(|k| k.tty.clone());
        if let Some(t) = known {
            let is_first = first.as_ref().is_some_and(|f| KArc::ptr_eq(f, &t));
            f(&t, is_first);
        }
    }
}

/// The log's sink: a line's parts, newline included. A terminal needs CR before NL.
fn print(_level: u8, text: &str) {
    for output in OUTPUTS.iter().filter_map(|o| o.get()) {
        for line in text.as_bytes().split_inclusive(|&b| b == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(body) => {
                    output.write_polled(body);
                    output.write_polled(b"\r\n");
                }
                None => output.write_polled(line),
            }
        }
    }
}
