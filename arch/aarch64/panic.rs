//! The end: reports of panics and fatal exceptions, and stopping the other CPUs.

use crate::{backtrace, cpu, early_console, irq, power};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// What the rooms above add to a report.
pub struct Hooks {
    /// Where the text goes (until then: to the early console). Usable in any context.
    pub write: fn(&str),
    /// Says which thread ran: a line of its own.
    pub who: fn(&mut dyn Write),
    /// Interrupts the other CPUs, so that they notice and stop.
    pub interrupt_others: fn(),
    /// More to show, after the backtrace: the last log lines.
    pub more: fn(),
    /// What happens at the end: a restart after `panic=`, or nothing but stopping.
    pub finish: fn(),
}

static HOOKS: AtomicPtr<Hooks> = AtomicPtr::new(core::ptr::null_mut());

/// Registers what the rooms above add. Later calls replace earlier ones.
pub fn set_hooks(hooks: &'static Hooks) {
    HOOKS.store(core::ptr::from_ref(hooks).cast_mut(), Ordering::Release);
}

fn hooks() -> Option<&'static Hooks> {
    let p = HOOKS.load(Ordering::Acquire);
    // SAFETY: null, or what `set_hooks` got.
    unsafe { p.as_ref() }
}

const NOBODY: u32 = u32::MAX;

/// CPU that reports.
static OWNER: AtomicU32 = AtomicU32::new(NOBODY);
static STOPPING: AtomicBool = AtomicBool::new(false);
static STOPPED: AtomicU32 = AtomicU32::new(0);

/// Where a report goes.
pub struct Out;

impl Write for Out {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        match hooks() {
            Some(hooks) => (hooks.write)(s),
            None => early_console::write_bytes(s.as_bytes()),
        }
        Ok(())
    }
}

/// Whether a report is being made: the CPUs are to stop.
#[inline]
pub fn is_stopping() -> bool {
    STOPPING.load(Ordering::Relaxed)
}

/// Stops this CPU because another reports.
#[cold]
pub fn stop_this_cpu() -> ! {
    STOPPED.fetch_add(1, Ordering::Release);
    power::halt()
}

/// Makes this CPU the one that reports; another that comes later stops here, a second report of the
/// same CPU ends at once.
fn claim() {
    irq::disable();
    let me = cpu::id().0;
    match OWNER.compare_exchange(NOBODY, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(owner) if owner == me => {
            early_console::write_bytes(b"\nfault in the report itself: stopped\n");
            power::halt()
        }
        Err(_) => stop_this_cpu(),
    }
}

/// Stops the other CPUs: they notice at their next interrupt.
pub fn stop_others() {
    STOPPING.store(true, Ordering::SeqCst);
    let others = cpu::online().without(cpu::id()).count();
    if others == 0 {
        return;
    }
    if let Some(hooks) = hooks() {
        (hooks.interrupt_others)();
    }
    let limit = crate::clock::counter().saturating_add(crate::clock::frequency());
    while STOPPED.load(Ordering::Acquire) < others && crate::clock::counter() < limit {
        cpu::relax();
    }
    let stopped = STOPPED.load(Ordering::Acquire);
    if stopped < others {
        let _ = writeln!(Out, "{} of {others} other CPUs did not stop", others - stopped);
    }
}

/// Writes a report's head, runs `body`, and ends the machine's work.
pub(crate) fn fatal(body: impl FnOnce(&mut Out)) -> ! {
    claim();
    let _ = writeln!(Out, "\n---[ Linnet cannot go on ]---");
    if let Some(hooks) = hooks() {
        (hooks.who)(&mut Out);
    }
    body(&mut Out);
    stop_others();
    if let Some(hooks) = hooks() {
        (hooks.more)();
    }
    let _ = writeln!(Out, "---[ stopped ]---");
    if let Some(hooks) = hooks() {
        (hooks.finish)();
    }
    power::halt()
}

/// Ends the machine's work for a reason that is not a bug of the kernel: init has ended, no init was
/// found, the device tree makes no sense.
pub fn stop(why: fmt::Arguments<'_>) -> ! {
    fatal(|out| {
        let _ = writeln!(out, "{why}");
    })
}

/// For the panic handler: message, place, backtrace; stops all CPUs.
pub fn report(info: &core::panic::PanicInfo<'_>) -> ! {
    fatal(|out| {
        let _ = writeln!(out, "panic on CPU {}: {}", cpu::id().0, info.message());
        if let Some(place) = info.location() {
            let _ = writeln!(out, "at {place}");
        }
        let _ = writeln!(out, "Call trace:");
        backtrace::print_current(out);
    })
}
