//! The lock-order checker of debug builds: held locks per CPU, and what is checked against them.
//!
//! Invariants of the unsafe code: a CPU's list is touched only by that CPU with interrupts off,
//! and no reference into it outlives the closure of `with_list`, which calls nothing that could
//! take a lock; a thread's saved list is touched only under its `busy` lock.

use super::{Class, Kind, Place};
use crate::{
    LockClass, PerCpu,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    qlock::QueueLock,
};
use core::{cell::UnsafeCell, fmt, ptr};

/// Locks that one CPU can hold at a time, all contexts together.
const MAX_HELD: usize = 32;
/// Sleeping locks that a thread can hold while it is switched out.
const MAX_SAVED: usize = 12;
/// Pairs of classes that are remembered as reported.
const MAX_REPORTED: usize = 128;

/// In which contexts a class was taken.
pub(crate) struct Usage {
    bits: AtomicU8,
}

/// Taken in a hard interrupt.
const IN_IRQ: u8 = 1;
/// Shared in a hard interrupt.
const IN_IRQ_SHARED: u8 = 2;
/// Held with interrupts on.
const IRQS_ON: u8 = 4;
/// Shared with interrupts on.
const IRQS_ON_SHARED: u8 = 8;

impl Usage {
    pub(crate) const fn new() -> Self {
        Self { bits: AtomicU8::new(0) }
    }
}

/// A held lock.
#[derive(Clone, Copy)]
struct Entry {
    class: &'static LockClass,
    at: Place,
    kind: Kind,
    subclass: u8,
    in_irq: bool,
}

struct List<const N: usize> {
    entries: [Option<Entry>; N],
    len: usize,
    /// Locks that found no room: their release finds nothing.
    overflowed: bool,
}

impl<const N: usize> List<N> {
    const fn new() -> Self {
        Self { entries: [None; N], len: 0, overflowed: false }
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().take(self.len).flatten()
    }

    fn push(&mut self, entry: Entry) {
        match self.entries.get_mut(self.len) {
            Some(room) => {
                *room = Some(entry);
                self.len += 1;
            }
            None => self.overflowed = true,
        }
    }

    /// Removes the newest entry that `which` accepts.
    fn remove(&mut self, which: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let n = (0..self.len).rev().find(|&n| self.entries.get(n).is_some_and(|e| e.as_ref().is_some_and(&which)))?;
        let entry = self.entries.get_mut(n)?.take();
        if let Some(rest) = self.entries.get_mut(n..self.len) {
            rest.rotate_left(1);
        }
        self.len -= 1;
        entry
    }
}

struct CpuLocks {
    held: UnsafeCell<List<MAX_HELD>>,
    /// A report is being printed: what it locks is not checked.
    reporting: AtomicBool,
}

// SAFETY: see the module's invariants: each CPU touches its own, with interrupts off.
unsafe impl Sync for CpuLocks {}

static CPUS: PerCpu<CpuLocks> =
    crate::per_cpu!(CpuLocks { held: UnsafeCell::new(List::new()), reporting: AtomicBool::new(false) });

static VIOLATIONS: AtomicU64 = AtomicU64::new(0);
static REPORTED: [AtomicU64; MAX_REPORTED] = [const { AtomicU64::new(0) }; MAX_REPORTED];
static SLEEP_CHECKS: AtomicBool = AtomicBool::new(cfg!(not(target_os = "none")));

/// How many violations were found since boot (/proc/lockdep_stats).
pub fn violations() -> u64 {
    VIOLATIONS.load(Ordering::Relaxed)
}

/// The sleeping locks that a thread holds while it is switched out; `sched` embeds one in its
/// Thread. Empty in release builds.
pub struct LockdepState {
    busy: QueueLock,
    saved: UnsafeCell<List<MAX_SAVED>>,
}

// SAFETY: `saved` is touched only under `busy`.
unsafe impl Sync for LockdepState {}
// SAFETY: the entries are plain data.
unsafe impl Send for LockdepState {}

impl LockdepState {
    /// Of a thread that holds nothing.
    pub const fn new() -> Self {
        Self { busy: QueueLock::new(), saved: UnsafeCell::new(List::new()) }
    }

    fn with<R>(&self, f: impl FnOnce(&mut List<MAX_SAVED>) -> R) -> R {
        self.busy.lock_here();
        // SAFETY: the lock is held, and released only after the closure.
        let result = f(unsafe { &mut *self.saved.get() });
        self.busy.unlock();
        result
    }
}

impl Default for LockdepState {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs `f` on this CPU's list with interrupts off; `f` must not take locks.
fn with_list<R>(f: impl FnOnce(&mut List<MAX_HELD>) -> R) -> R {
    let flags = arch::irq::save_and_disable();
    let held = CPUS.get(arch::cpu::id()).held.get();
    // SAFETY: interrupts are off, so nothing else on this CPU runs until `f` is done, and other
    // CPUs do not touch this list.
    let result = f(unsafe { &mut *held });
    arch::irq::restore(flags);
    result
}

/// A violation, found under `with_list` and reported after it.
struct Finding {
    what: &'static str,
    class: &'static LockClass,
    at: Place,
    other: Option<Entry>,
}

pub(super) fn acquire(class: Class, subclass: u8, kind: Kind, is_try: bool, at: Place) {
    let class = class.class;
    let in_irq = arch::preempt::in_interrupt();
    let irqs_on = arch::irq::enabled();
    let conflict = note_usage(class, kind, is_try, in_irq, irqs_on);
    let order = with_list(|list| {
        let wrong = if is_try {
            None
        } else {
            list.iter().rev().filter(|e| e.in_irq == in_irq).find(|e| !may_follow(e, class, subclass)).copied()
        };
        list.push(Entry { class, at, kind, subclass, in_irq });
        wrong
    });
    if let Some(other) = order {
        let what = if ptr::eq(other.class, class) {
            "lock of the same class taken without a higher subclass"
        } else {
            "lock taken in the wrong order"
        };
        report(Finding { what, class, at, other: Some(other) });
    }
    if conflict {
        report(Finding { what: "class taken in interrupts and with interrupts on", class, at, other: None });
    }
}

/// Whether a lock of `class` may be taken while `held` is.
fn may_follow(held: &Entry, class: &'static LockClass, subclass: u8) -> bool {
    if ptr::eq(held.class, class) { subclass > held.subclass } else { class.rank() > held.class.rank() }
}

/// Notes the context of an acquisition; returns whether it conflicts with what was noted before.
fn note_usage(class: &'static LockClass, kind: Kind, is_try: bool, in_irq: bool, irqs_on: bool) -> bool {
    let shared = kind == Kind::SpinShared;
    let bits = match kind {
        Kind::Sleeping => return false,
        // A try in an interrupt does not wait for the code below it.
        _ if in_irq && is_try => return false,
        _ if in_irq => if shared { IN_IRQ_SHARED } else { IN_IRQ },
        _ if irqs_on => if shared { IRQS_ON_SHARED } else { IRQS_ON },
        _ => return false,
    };
    let before = class.usage.bits.load(Ordering::Relaxed);
    let after = before | bits;
    if after != before {
        class.usage.bits.fetch_or(bits, Ordering::Relaxed);
    }
    // Two readers do not wait for each other; any other pair does.
    let conflicts = |x: u8, y: u8| after & x != 0 && after & y != 0 && bits & (x | y) != 0;
    conflicts(IN_IRQ, IRQS_ON | IRQS_ON_SHARED) || conflicts(IN_IRQ_SHARED, IRQS_ON)
}

pub(super) fn release(class: Class) {
    let class = class.class;
    let found = with_list(|list| list.remove(|e| ptr::eq(e.class, class)).is_some() || list.overflowed);
    if !found {
        report(Finding { what: "lock released that is not held here", class, at: core::panic::Location::caller(), other: None });
    }
}

pub(super) fn switch(prev: &LockdepState, next: &LockdepState) {
    let atomic = with_list(|list| {
        prev.with(|saved| {
            *saved = List::new();
            list.iter().filter(|e| e.kind == Kind::Sleeping).for_each(|e| saved.push(*e));
            while list.remove(|e| e.kind == Kind::Sleeping).is_some() {}
        });
        let spins = list.len;
        next.with(|saved| {
            for entry in saved.iter() {
                list.push(*entry);
            }
            *saved = List::new();
        });
        if spins > 1 { list.iter().next().copied() } else { None }
    });
    if let Some(entry) = atomic {
        report(Finding { what: "thread switched with spin locks held", class: entry.class, at: entry.at, other: None });
    }
}

pub(super) fn assert_none_held(place: &'static str) {
    if let Some(entry) = with_list(|list| list.iter().next().copied()) {
        report(Finding { what: place, class: entry.class, at: entry.at, other: Some(entry) });
    }
}

pub(super) fn start_sleep_checks() {
    SLEEP_CHECKS.store(true, Ordering::Relaxed);
}

static SLEEP: LockClass = LockClass::new("(sleep)", 0);

pub(super) fn check_sleep(at: Place) {
    if !SLEEP_CHECKS.load(Ordering::Relaxed) {
        return;
    }
    let spin = with_list(|list| list.iter().rev().find(|e| e.kind != Kind::Sleeping).copied());
    let what = if spin.is_some() {
        "sleep with a spin lock held"
    } else if arch::preempt::in_interrupt() {
        "sleep in an interrupt"
    } else if arch::preempt::count() != 0 {
        "sleep with preemption off"
    } else if !arch::irq::enabled() {
        "sleep with interrupts off"
    } else {
        return;
    };
    report(Finding { what, class: &SLEEP, at, other: spin });
}

/// Counts a violation, and logs it the first time.
#[cold]
fn report(finding: Finding) {
    let flags = arch::irq::save_and_disable();
    let reporting = &CPUS.get(arch::cpu::id()).reporting;
    if !reporting.swap(true, Ordering::Relaxed) {
        VIOLATIONS.fetch_add(1, Ordering::Relaxed);
        if first_time(&finding) {
            print(&finding);
        }
        reporting.store(false, Ordering::Relaxed);
    }
    arch::irq::restore(flags);
}

/// Whether this kind of violation, between these classes, was not reported before.
fn first_time(finding: &Finding) -> bool {
    let id = |class: &'static LockClass| ptr::from_ref(class) as u64;
    // Any value that differs for different pairs, and is not zero.
    let key = id(finding.class)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(finding.other.map_or(0, |e| id(e.class)).rotate_left(32))
        .wrapping_add(finding.what.as_ptr() as u64)
        .max(1);
    for slot in &REPORTED {
        match slot.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(seen) if seen == key => return false,
            Err(_) => {}
        }
    }
    false
}

struct Shown<'a>(&'a Entry);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { class, at, kind, subclass, in_irq } = self.0;
        write!(f, "{} (rank {}", class.name(), class.rank())?;
        if *subclass != 0 {
            write!(f, ", subclass {subclass}")?;
        }
        write!(f, ", {kind:?}")?;
        if *in_irq {
            f.write_str(", in interrupt")?;
        }
        write!(f, ") taken at {at}")
    }
}

fn print(finding: &Finding) {
    let Finding { what, class, at, other } = finding;
    let level = klog::Level::Err;
    klog::print(level, format_args!("lockdep: {what}: {} (rank {}) at {at}", class.name(), class.rank()));
    if let Some(other) = other {
        klog::print(level, format_args!("lockdep:   against {}", Shown(other)));
    }
    let held = with_list(|list| {
        let mut copy = [None; MAX_HELD];
        copy.iter_mut().zip(list.iter()).for_each(|(to, from)| *to = Some(*from));
        copy
    });
    for entry in held.iter().flatten() {
        klog::print(level, format_args!("lockdep:   held: {}", Shown(entry)));
    }
    let mut trace = klog::LineBuf::<{ 2 * klog::LINE_MAX }>::new();
    arch::backtrace::print_current(&mut trace);
    for line in trace.as_str().lines() {
        klog::print(level, format_args!("{line}"));
    }
}

#[cfg(test)]
mod tests {
    use crate::{LockClass, LockdepState, RwSpinLock, SpinLock, lockdep, might_sleep};
    use arch::sim;
    use core::panic::Location;

    /// How many violations `f` makes on a CPU of its own.
    fn violations_of(f: impl Fn() + Sync) -> u64 {
        // Counted for the whole process, so the tests of this module take turns.
        static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
        let before = lockdep::violations();
        // On a thread of its own, so that a test that waits for its turn keeps no CPU number.
        std::thread::scope(|s| s.spawn(|| sim::run_on_cpus(1, |_| f())).join()).unwrap();
        lockdep::violations() - before
    }

    #[track_caller]
    fn acquire(class: &'static LockClass, subclass: u8) -> lockdep::Held {
        lockdep::acquire(lockdep::Class::new(class), subclass, Location::caller())
    }

    #[test]
    fn inner_lock_taken_after_outer_is_no_violation_and_the_reverse_is_one() {
        static OUTER: LockClass = LockClass::new("outer", 10);
        static INNER: LockClass = LockClass::new("inner", 20);
        let (outer, inner) = (SpinLock::new((), &OUTER), SpinLock::new((), &INNER));
        assert_eq!(violations_of(|| {
            let _a = outer.lock();
            let _b = inner.lock();
        }), 0);
        assert_eq!(violations_of(|| {
            let _b = inner.lock();
            let _a = outer.lock();
        }), 1);
    }

    #[test]
    fn a_try_in_the_wrong_order_is_no_violation() {
        static OUTER: LockClass = LockClass::new("outer", 10);
        static INNER: LockClass = LockClass::new("inner", 20);
        let (outer, inner) = (SpinLock::new((), &OUTER), SpinLock::new((), &INNER));
        assert_eq!(violations_of(|| {
            let _b = inner.lock();
            assert!(outer.try_lock().is_some());
        }), 0);
    }

    #[test]
    fn locks_of_one_class_nest_only_with_a_higher_subclass() {
        static CLASS: LockClass = LockClass::new("class", 10);
        let (a, b) = (SpinLock::new((), &CLASS), SpinLock::new((), &CLASS));
        assert_eq!(violations_of(|| {
            let _a = a.lock();
            let _b = b.lock_nested(1);
        }), 0);
        assert_eq!(violations_of(|| {
            let _a = a.lock_nested(1);
            let _b = b.lock_nested(1);
        }), 1);
    }

    #[test]
    fn class_taken_in_interrupts_must_not_be_held_with_interrupts_on() {
        static CLASS: LockClass = LockClass::new("irq class", 10);
        let lock = SpinLock::new((), &CLASS);
        assert_eq!(violations_of(|| drop(lock.lock_irq())), 0);
        assert_eq!(violations_of(|| sim::interrupt(|| drop(lock.lock()))), 0);
        assert_eq!(violations_of(|| drop(lock.lock_irq())), 0);
        assert_eq!(violations_of(|| drop(lock.lock())), 1);
    }

    #[test]
    fn class_held_with_interrupts_on_must_not_be_taken_in_interrupts() {
        static CLASS: LockClass = LockClass::new("irq class", 10);
        let lock = SpinLock::new((), &CLASS);
        assert_eq!(violations_of(|| drop(lock.lock())), 0);
        assert_eq!(violations_of(|| sim::interrupt(|| drop(lock.lock()))), 1);
    }

    #[test]
    fn readers_in_interrupts_conflict_with_writers_that_leave_interrupts_on_only() {
        static CLASS: LockClass = LockClass::new("rw class", 10);
        let lock = RwSpinLock::new((), &CLASS);
        assert_eq!(violations_of(|| sim::interrupt(|| drop(lock.read()))), 0);
        assert_eq!(violations_of(|| drop(lock.read())), 0);
        assert_eq!(violations_of(|| drop(lock.write_irq())), 0);
        assert_eq!(violations_of(|| drop(lock.write())), 1);
    }

    #[test]
    fn an_interrupt_may_take_an_outer_lock_than_the_code_below_it_holds() {
        static OUTER: LockClass = LockClass::new("outer", 10);
        static INNER: LockClass = LockClass::new("inner", 20);
        let (outer, inner) = (SpinLock::new((), &OUTER), SpinLock::new((), &INNER));
        assert_eq!(violations_of(|| {
            let _b = inner.lock();
            sim::interrupt(|| drop(outer.lock()));
        }), 0);
    }

    #[test]
    fn sleeping_is_reported_under_a_spin_lock_without_preemption_and_without_interrupts() {
        static CLASS: LockClass = LockClass::new("class", 10);
        let lock = SpinLock::new((), &CLASS);
        assert_eq!(violations_of(might_sleep), 0);
        assert_eq!(violations_of(|| {
            let _g = lock.lock();
            might_sleep();
        }), 1);
        assert_eq!(violations_of(|| {
            let _g = crate::PreemptGuard::new();
            might_sleep();
        }), 1);
        assert_eq!(violations_of(|| {
            let flags = arch::irq::save_and_disable();
            might_sleep();
            arch::irq::restore(flags);
        }), 1);
        assert_eq!(violations_of(|| sim::interrupt(might_sleep)), 1);
    }

    #[test]
    fn sleeping_lock_under_a_spin_lock_is_reported() {
        static SLEEPING: LockClass = LockClass::new("sleeping", 100);
        static SPIN: LockClass = LockClass::new("spin", 50);
        let lock = SpinLock::new((), &SPIN);
        assert_eq!(violations_of(|| {
            let _g = lock.lock();
            lockdep::release(&acquire(&SLEEPING, 0));
        }), 1);
    }

    #[test]
    fn a_switch_takes_sleeping_locks_along_and_leaves_the_run_queue_lock() {
        static FIRST: LockClass = LockClass::new("first", 10);
        static SECOND: LockClass = LockClass::new("second", 20);
        static QUEUE: LockClass = LockClass::new("queue", 1700);
        let queue = SpinLock::new((), &QUEUE);
        let (one, two) = (LockdepState::new(), LockdepState::new());
        assert_eq!(violations_of(|| {
            let held = (acquire(&FIRST, 0), acquire(&SECOND, 0));
            let guard = queue.lock_irq();
            lockdep::switch(&one, &two);
            drop(guard);
            // The other thread holds nothing, so the same locks come in order.
            lockdep::assert_none_held("test");
            lockdep::release(&acquire(&FIRST, 0));
            let guard = queue.lock_irq();
            lockdep::switch(&two, &one);
            drop(guard);
            lockdep::release(&held.1);
            lockdep::release(&held.0);
            lockdep::assert_none_held("test");
        }), 0);
    }

    #[test]
    fn a_switch_with_another_spin_lock_held_is_reported() {
        static OTHER: LockClass = LockClass::new("other", 10);
        static QUEUE: LockClass = LockClass::new("queue", 1700);
        let (other, queue) = (SpinLock::new((), &OTHER), SpinLock::new((), &QUEUE));
        let (one, two) = (LockdepState::new(), LockdepState::new());
        assert_eq!(violations_of(|| {
            let _other = other.lock();
            let _queue = queue.lock_irq();
            lockdep::switch(&one, &two);
        }), 1);
    }

    #[test]
    fn a_lock_that_is_still_held_at_the_end_is_reported() {
        static CLASS: LockClass = LockClass::new("class", 10);
        assert_eq!(violations_of(|| {
            let held = acquire(&CLASS, 0);
            lockdep::assert_none_held("locks held at return to user space");
            lockdep::release(&held);
        }), 1);
    }
}
