//! Read-copy-update: readers that take no lock, and writers that wait until no reader can still
//! see what they removed.
//!
//! A reader only turns preemption off. A CPU has passed a quiescent state when it switches
//! threads, idles, or returns to user space ([`quiescent`]); once every CPU that was running did
//! so, all readers from before are gone and a grace period is over.
//!
//! Grace periods are numbered. `waiting` holds the CPUs that have not passed a quiescent state
//! since the current one started; whoever clears the last bit ends it. A clear that arrives late
//! and hits the next grace period is no mistake: the CPU is in a quiescent state during the whole
//! of `quiescent`.
//!
//! Callbacks wait in per-CPU lists and take two steps: `new` → `waiting` (a grace period number
//! is assigned to the whole batch) → `ready`. [`call`] only puts the node into `new`, so it works
//! under any lock and in interrupt handlers; the CPU's next quiescent state does the rest, and
//! the callbacks run in a kernel thread that calls [`run_callbacks`].
//!
//! Lock order: a CPU's callback lists, then the grace-period state. Hooks are called with neither.

use crate::{
    CachePadded, LockClass, Once, PerCpu,
    atomic::{AtomicU32, AtomicU64, Ordering, spin_loop},
    guard::PreemptGuard,
    lockdep,
    spin::SpinLock,
};
use abi::{CpuId, CpuMask};
use core::{cell::UnsafeCell, ptr::NonNull};

static CALLBACKS: LockClass = LockClass::new("rcu_callbacks", 1900);
static STATE: LockClass = LockClass::new("rcu_state", 1901);

/// A read-side critical section: what is loaded under it stays allocated until it ends.
///
/// It must not sleep; preemption is off.
pub struct ReadGuard {
    _preempt: PreemptGuard,
}

/// Begins a read-side critical section.
#[inline]
#[must_use]
pub fn read_lock() -> ReadGuard {
    let guard = ReadGuard { _preempt: PreemptGuard::new() };
    host::enter();
    guard
}

impl Drop for ReadGuard {
    #[inline]
    fn drop(&mut self) {
        host::leave();
    }
}

/// On the developer's machine a test may use RCU on threads that no scheduler ever sees, so there
/// a CPU counts as idle whenever it is in no read section. On the target all of this is empty.
mod host {
    #[cfg(not(any(target_os = "none", loom)))]
    mod real {
        use crate::{PerCpu, atomic::{AtomicU32, Ordering}};

        static NESTING: PerCpu<AtomicU32> = crate::per_cpu!(AtomicU32::new(0));

        pub(in crate::rcu) const TRACKED: bool = true;

        pub(in crate::rcu) fn enter() {
            let cpu = arch::cpu::id();
            if NESTING.get(cpu).fetch_add(1, Ordering::Relaxed) == 0 {
                super::super::RCU.cpus.get(cpu).idle.fetch_add(1, Ordering::AcqRel);
            }
        }

        pub(in crate::rcu) fn leave() {
            let cpu = arch::cpu::id();
            if NESTING.get(cpu).fetch_sub(1, Ordering::Relaxed) == 1 {
                super::super::RCU.cpus.get(cpu).idle.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    #[cfg(not(any(target_os = "none", loom)))]
    pub(super) use real::{TRACKED, enter, leave};

    #[cfg(any(target_os = "none", loom))]
    pub(super) const TRACKED: bool = false;

    #[cfg(any(target_os = "none", loom))]
    #[inline]
    pub(super) fn enter() {}

    #[cfg(any(target_os = "none", loom))]
    #[inline]
    pub(super) fn leave() {}
}

type Callback = unsafe fn(NonNull<Head>);

/// The node of a callback; embedded in the object that is to be freed, so queuing allocates nothing.
pub struct Head {
    next: UnsafeCell<Option<NonNull<Head>>>,
    run: UnsafeCell<Option<Callback>>,
}

// SAFETY: the fields are touched only between `call` and the callback, by whoever holds the list.
unsafe impl Sync for Head {}
// SAFETY: as above.
unsafe impl Send for Head {}

impl Head {
    /// A node in no list.
    pub const fn new() -> Self {
        Self { next: UnsafeCell::new(None), run: UnsafeCell::new(None) }
    }
}

impl Default for Head {
    fn default() -> Self {
        Self::new()
    }
}

/// What RCU needs from the scheduler; set once by [`set_hooks`].
pub trait Hooks: Sync {
    /// Callbacks of this CPU are ready: wake the thread that calls [`run_callbacks`] for it.
    fn callbacks_ready(&self, cpu: CpuId);
    /// A grace period ended: wake the threads in [`wait`](Self::wait).
    fn grace_period_ended(&self);
    /// Sleeps until `done`; called without locks. Calls [`force_quiescent`] now and then.
    fn wait(&self, done: &dyn Fn() -> bool);
    /// Makes the CPU pass through its scheduler soon.
    fn reschedule(&self, cpu: CpuId);
}

static HOOKS: Once<&'static dyn Hooks> = Once::new();

/// Sets the scheduler's hooks; only the first call counts.
pub fn set_hooks(hooks: &'static dyn Hooks) {
    HOOKS.call_once(|| hooks);
}

/// Runs `run(head)` after a grace period, in a kernel thread. Any context.
///
/// # Safety
/// `head` stays valid and is not used otherwise until `run` is called with it; `run` may be
/// called from any thread on any CPU.
pub unsafe fn call(head: NonNull<Head>, run: unsafe fn(NonNull<Head>)) {
    let preempt = PreemptGuard::new();
    // SAFETY: the caller's promise is the method's.
    unsafe { RCU.call(preempt.cpu(), head, run) };
}

/// Waits until all readers that were active are gone. May sleep.
#[track_caller]
pub fn synchronize() {
    lockdep::might_sleep();
    let target = RCU.request(None);
    let done = || RCU.completed() >= target;
    match HOOKS.get() {
        Some(hooks) => hooks.wait(&done),
        None => {
            while !done() {
                // The caller is in no read section, so its CPU is in a quiescent state.
                let preempt = PreemptGuard::new();
                RCU.quiescent(preempt.cpu());
                drop(preempt);
                RCU.force(0);
                spin_loop();
            }
        }
    }
}

/// Reports that this CPU is in a quiescent state: it holds no [`ReadGuard`] and no spin lock.
/// Called by the context switch, before idling, and on return to user space.
#[inline]
pub fn quiescent(cpu: CpuId) {
    RCU.quiescent(cpu);
}

/// This CPU goes idle (interrupts off): grace periods do not wait for it from here on.
pub fn idle_enter(cpu: CpuId) {
    if host::TRACKED {
        RCU.quiescent(cpu);
    } else {
        RCU.idle_enter(cpu);
    }
}

/// This CPU is back from idle (interrupts still off).
pub fn idle_exit(cpu: CpuId) {
    if !host::TRACKED {
        RCU.idle_exit(cpu);
    }
}

/// This CPU has come up; called by it before its first read section.
pub fn cpu_online(cpu: CpuId) {
    RCU.cpu_online(cpu);
}

/// This CPU goes down; it reads nothing any more. Its callbacks are run by whoever calls
/// [`run_callbacks`] with its number.
pub fn cpu_offline(cpu: CpuId) {
    RCU.cpu_offline(cpu);
}

/// Runs the callbacks of `cpu` whose grace period is over; returns how many ran.
/// From a kernel thread; the callbacks must not sleep.
pub fn run_callbacks(cpu: CpuId) -> usize {
    RCU.run_callbacks(cpu)
}

/// Whether callbacks of `cpu` could run now.
pub fn callbacks_ready(cpu: CpuId) -> bool {
    RCU.callbacks_ready(cpu)
}

/// Whether callbacks of `cpu` wait for a grace period or to be run.
pub fn callbacks_pending(cpu: CpuId) -> bool {
    RCU.queued(cpu) != 0
}

/// Helps the grace period along: counts CPUs that idle, makes the others pass their scheduler.
/// Called every few milliseconds while somebody waits; `now` is the monotonic time in nanoseconds.
/// One CPU helps at a time: the others would take the same lock for the same look.
pub fn force_quiescent(now: u64) {
    let next = NEXT_FORCE.load(Ordering::Relaxed);
    // A clock of another machine (tests) may be far ahead: its mark does not count.
    let due = now >= next || next > now + FORCE_PERIOD;
    if due && NEXT_FORCE.compare_exchange(next, now + FORCE_PERIOD, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        RCU.force(now);
    }
}

/// Nanoseconds between two looks at the CPUs that a grace period waits for.
const FORCE_PERIOD: u64 = 10_000_000;
static NEXT_FORCE: AtomicU64 = AtomicU64::new(0);

/// Waits until all callbacks queued before this call on any CPU have run. May sleep.
#[track_caller]
pub fn barrier() {
    synchronize();
    for cpu in CpuMask::ALL.iter() {
        while RCU.queued(cpu) != 0 {
            RCU.advance(cpu);
            RCU.run_callbacks(cpu);
            if RCU.queued(cpu) != 0 {
                synchronize();
            }
        }
    }
}

/// How late a grace period must be before the CPUs that hold it up are reported (Linux: 21 s).
const LATE: u64 = 21_000_000_000;

/// A singly linked list of nodes with its last element at hand.
struct List {
    first: Option<NonNull<Head>>,
    last: Option<NonNull<Head>>,
}

// SAFETY: a list owns its nodes (see `call`), which may run on any CPU.
unsafe impl Send for List {}

impl List {
    const fn new() -> Self {
        Self { first: None, last: None }
    }

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn take(&mut self) -> Self {
        core::mem::replace(self, Self::new())
    }

    /// # Safety
    /// The node is valid and in no list, and belongs to this list from now on.
    unsafe fn push(&mut self, node: NonNull<Head>) {
        // SAFETY: the list owns the node.
        unsafe { *node.as_ref().next.get() = None };
        self.append(Self { first: Some(node), last: Some(node) });
    }

    fn append(&mut self, other: Self) {
        match self.last {
            // SAFETY: the list owns its nodes.
            Some(last) => unsafe { *last.as_ref().next.get() = other.first },
            None => self.first = other.first,
        }
        if other.last.is_some() {
            self.last = other.last;
        }
    }

    fn pop(&mut self) -> Option<NonNull<Head>> {
        let node = self.first?;
        // SAFETY: the list owns its nodes.
        self.first = unsafe { *node.as_ref().next.get() };
        if self.first.is_none() {
            self.last = None;
        }
        Some(node)
    }
}

struct Callbacks {
    new: List,
    waiting: List,
    /// The grace period after which `waiting` is ready.
    waiting_for: u64,
    ready: List,
}

struct PerCpuState {
    /// The grace period for which this CPU last reported; `ATTENTION` after `call`.
    seen: AtomicU64,
    /// Odd while the CPU idles.
    idle: AtomicU64,
    /// Callbacks in all three lists.
    queued: AtomicU32,
    callbacks: SpinLock<Callbacks>,
}

/// No grace period has this number: the next quiescent state takes the slow path.
const ATTENTION: u64 = u64::MAX;

/// What the lock of the grace period protects.
struct GracePeriod {
    /// The highest number that somebody waits for.
    requested: u64,
    /// CPUs that came up by `cpu_online` and did not go down.
    online: CpuMask,
    /// CPUs whose `waiting` batch waits for a grace period.
    waiters: CpuMask,
    /// When `force` first saw the current grace period; 0: not yet.
    first_seen: u64,
    reported: bool,
}

pub struct Rcu {
    /// Grace periods look at all CPUs, not at those that are online.
    tracked: bool,
    /// Number of the newest grace period that started. Read in each quiescent state, written
    /// once per grace period.
    started: CachePadded<AtomicU64>,
    /// Number of the newest that is over.
    completed: AtomicU64,
    /// CPUs that the current one waits for.
    waiting: CachePadded<AtomicU64>,
    state: SpinLock<GracePeriod>,
    cpus: PerCpu<PerCpuState>,
}

static RCU: Rcu = Rcu::new(host::TRACKED);

/// CPUs that run: also those that forgot `cpu_online`. A model has only those that called it.
fn running() -> CpuMask {
    if cfg!(loom) { CpuMask::EMPTY } else { arch::cpu::online() }
}

/// Hook calls that became due under a lock.
#[derive(Default)]
struct Due {
    ended: bool,
    ready: CpuMask,
}

impl Due {
    fn run(self) {
        if !self.ended {
            return;
        }
        if let Some(hooks) = HOOKS.get() {
            hooks.grace_period_ended();
            for cpu in self.ready.iter() {
                hooks.callbacks_ready(cpu);
            }
        }
    }
}

impl Rcu {
    /// With `tracked`, every CPU idles until it says otherwise.
    pub const fn new(tracked: bool) -> Self {
        Self {
            tracked,
            started: CachePadded::new(AtomicU64::new(0)),
            completed: AtomicU64::new(0),
            waiting: CachePadded::new(AtomicU64::new(0)),
            state: SpinLock::new(
                GracePeriod {
                    requested: 0,
                    online: CpuMask::EMPTY,
                    waiters: CpuMask::EMPTY,
                    first_seen: 0,
                    reported: false,
                },
                &STATE,
            ),
            cpus: crate::per_cpu!(PerCpuState {
                seen: AtomicU64::new(0),
                idle: AtomicU64::new(host::TRACKED as u64),
                queued: AtomicU32::new(0),
                callbacks: SpinLock::new(
                    Callbacks { new: List::new(), waiting: List::new(), waiting_for: 0, ready: List::new() },
                    &CALLBACKS,
                ),
            }),
        }
    }

    /// Makes the atomics of the first CPUs in a model, before its threads share them.
    #[cfg(loom)]
    pub fn touch(&self, cpus: u32) {
        self.started.load(Ordering::Relaxed);
        self.completed.load(Ordering::Relaxed);
        self.waiting.load(Ordering::Relaxed);
        for cpu in (0..cpus).map(CpuId) {
            let state = self.cpus.get(cpu);
            state.seen.load(Ordering::Relaxed);
            state.idle.load(Ordering::Relaxed);
            state.queued.load(Ordering::Relaxed);
            drop(state.callbacks.lock_irq());
            self.cpu_online(cpu);
        }
    }

    pub fn completed(&self) -> u64 {
        // Pairs with the Release in `end`: the readers that are gone happened before.
        self.completed.load(Ordering::Acquire)
    }

    /// # Safety
    /// As for the function [`call`]; `cpu` is this CPU.
    pub unsafe fn call(&self, cpu: CpuId, head: NonNull<Head>, run: unsafe fn(NonNull<Head>)) {
        // SAFETY: the node is ours until it is in the list.
        unsafe { *head.as_ref().run.get() = Some(run) };
        let state = self.cpus.get(cpu);
        let mut callbacks = state.callbacks.lock_irq();
        // SAFETY: the caller gives the node away.
        unsafe { callbacks.new.push(head) };
        state.queued.fetch_add(1, Ordering::Relaxed);
        state.seen.store(ATTENTION, Ordering::Relaxed);
    }

    #[inline]
    pub fn quiescent(&self, cpu: CpuId) {
        // A stale `started` only delays the report to the next quiescent state.
        if self.cpus.get(cpu).seen.load(Ordering::Relaxed) != self.started.load(Ordering::Relaxed) {
            self.quiescent_slow(cpu);
        }
    }

    #[cold]
    pub fn quiescent_slow(&self, cpu: CpuId) {
        let state = self.cpus.get(cpu);
        // Acquire: the CPUs of that grace period are in `waiting`.
        state.seen.store(self.started.load(Ordering::Acquire), Ordering::Relaxed);
        self.report(CpuMask::of(cpu));
        if state.queued.load(Ordering::Relaxed) != 0 && self.advance(cpu)
            && let Some(hooks) = HOOKS.get()
        {
            hooks.callbacks_ready(cpu);
        }
    }

    /// Takes CPUs off the current grace period, and ends it with the last.
    pub fn report(&self, cpus: CpuMask) {
        // Release: what the CPU read happened before the end of the grace period. Acquire: what
        // was removed before its start is not seen by later readers.
        let before = self.waiting.fetch_and(!cpus.0, Ordering::AcqRel);
        if before & cpus.0 != 0 && before & !cpus.0 == 0 {
            let mut due = Due::default();
            {
                let mut gp = self.state.lock_irq();
                self.end(&mut gp, &mut due);
            }
            due.run();
        }
    }

    /// Ends the current grace period if nothing holds it up, and starts the next if it is wanted.
    fn end(&self, gp: &mut GracePeriod, due: &mut Due) {
        while self.waiting.load(Ordering::Acquire) == 0 {
            let started = self.started.load(Ordering::Relaxed);
            if self.completed.load(Ordering::Relaxed) != started {
                self.completed.store(started, Ordering::Release);
                due.ended = true;
                due.ready = CpuMask(due.ready.0 | gp.waiters.0);
                gp.waiters = CpuMask::EMPTY;
            }
            if gp.requested <= started {
                return;
            }
            self.start(gp, started + 1);
        }
    }

    /// Starts grace period `number`; nothing is in `waiting`.
    fn start(&self, gp: &mut GracePeriod, number: u64) {
        gp.first_seen = 0;
        gp.reported = false;
        let cpus = if self.tracked { CpuMask::ALL } else { CpuMask(gp.online.0 | running().0) };
        self.waiting.store(cpus.0, Ordering::Release);
        self.started.store(number, Ordering::Release);
        self.waiting.fetch_and(!self.idle_among(cpus).0, Ordering::AcqRel);
    }

    pub fn idle_among(&self, cpus: CpuMask) -> CpuMask {
        let mut idle = CpuMask::EMPTY;
        for cpu in cpus.iter() {
            // A read-modify-write, so that it is ordered against those of `idle_enter` and
            // `idle_exit`: either we see that the CPU idles, or it sees the new grace period when
            // it enters; and if we see it idle, it sees on leaving what was removed before.
            if self.cpus.get(cpu).idle.fetch_add(0, Ordering::AcqRel) & 1 != 0 {
                idle = idle.with(cpu);
            }
        }
        idle
    }

    pub fn idle_enter(&self, cpu: CpuId) {
        self.cpus.get(cpu).idle.fetch_add(1, Ordering::AcqRel);
        self.quiescent(cpu);
    }

    pub fn idle_exit(&self, cpu: CpuId) {
        self.cpus.get(cpu).idle.fetch_add(1, Ordering::AcqRel);
    }

    pub fn cpu_online(&self, cpu: CpuId) {
        let mut gp = self.state.lock_irq();
        gp.online = gp.online.with(cpu);
    }

    pub fn cpu_offline(&self, cpu: CpuId) {
        {
            let mut gp = self.state.lock_irq();
            gp.online = gp.online.without(cpu);
        }
        self.report(CpuMask::of(cpu));
    }

    /// Asks for a grace period that starts after now; returns its number.
    pub fn request(&self, waiter: Option<CpuId>) -> u64 {
        let mut due = Due::default();
        let target;
        {
            let mut gp = self.state.lock_irq();
            // Under the lock `started` is the newest: the next number starts after this.
            target = self.started.load(Ordering::Relaxed) + 1;
            gp.requested = gp.requested.max(target);
            if let Some(cpu) = waiter {
                gp.waiters = gp.waiters.with(cpu);
            }
            self.end(&mut gp, &mut due);
        }
        due.run();
        target
    }

    /// Moves batches on; returns whether callbacks are ready.
    pub fn advance(&self, cpu: CpuId) -> bool {
        let state = self.cpus.get(cpu);
        loop {
            let mut callbacks = state.callbacks.lock_irq();
            if !callbacks.waiting.is_empty() && self.completed() >= callbacks.waiting_for {
                let batch = callbacks.waiting.take();
                callbacks.ready.append(batch);
            }
            let ready = !callbacks.ready.is_empty();
            if !callbacks.waiting.is_empty() || callbacks.new.is_empty() {
                return ready;
            }
            callbacks.waiting = callbacks.new.take();
            // Not ready before the number is known.
            callbacks.waiting_for = u64::MAX;
            drop(callbacks);
            let target = self.request(Some(cpu));
            state.callbacks.lock_irq().waiting_for = target;
        }
    }

    pub fn callbacks_ready(&self, cpu: CpuId) -> bool {
        let callbacks = self.cpus.get(cpu).callbacks.lock_irq();
        !callbacks.ready.is_empty() || (!callbacks.waiting.is_empty() && self.completed() >= callbacks.waiting_for)
    }

    pub fn queued(&self, cpu: CpuId) -> u32 {
        self.cpus.get(cpu).queued.load(Ordering::Acquire)
    }

    pub fn run_callbacks(&self, cpu: CpuId) -> usize {
        let state = self.cpus.get(cpu);
        let mut ran = 0;
        while self.advance(cpu) {
            let mut batch = state.callbacks.lock_irq().ready.take();
            while let Some(node) = batch.pop() {
                // SAFETY: `call` set it, and the node is out of all lists.
                let run = unsafe { *node.as_ref().run.get() };
                if let Some(run) = run {
                    // SAFETY: the promise of `call`'s caller; the grace period is over.
                    unsafe { run(node) };
                }
                // Release: who sees the count sink sees what the callback did.
                state.queued.fetch_sub(1, Ordering::Release);
                ran += 1;
            }
        }
        ran
    }

    pub fn force(&self, now: u64) {
        let mut due = Due::default();
        let (late, report);
        {
            // Under the lock no grace period starts, so what we see of a CPU holds for this one.
            let mut gp = self.state.lock_irq();
            let waiting = CpuMask(self.waiting.load(Ordering::Relaxed));
            self.waiting.fetch_and(!self.idle_among(waiting).0, Ordering::AcqRel);
            self.end(&mut gp, &mut due);
            late = CpuMask(self.waiting.load(Ordering::Relaxed));
            if gp.first_seen == 0 {
                gp.first_seen = now.max(1);
            }
            report = !late.is_empty() && !gp.reported && now.saturating_sub(gp.first_seen) > LATE;
            gp.reported |= report;
        }
        due.run();
        if report {
            klog::print(klog::Level::Err, format_args!("rcu: CPUs {:#x} passed no quiescent state for 21 s", late.0));
        }
        if let Some(hooks) = HOOKS.get() {
            for cpu in late.iter() {
                hooks.reschedule(cpu);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::atomic::{AtomicBool, AtomicPtr};
    use std::boxed::Box;

    #[repr(C)]
    struct Object {
        head: Head,
        value: AtomicU64,
    }

    static FREED: AtomicU32 = AtomicU32::new(0);

    unsafe fn free(head: NonNull<Head>) {
        // SAFETY: the node is the first field of a leaked Object.
        let object = unsafe { Box::from_raw(head.cast::<Object>().as_ptr()) };
        object.value.store(0, Ordering::Relaxed);
        FREED.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn readers_never_meet_a_freed_object_and_all_are_freed() {
        let new = |n| Box::into_raw(Box::new(Object { head: Head::new(), value: AtomicU64::new(n) }));
        let current = AtomicPtr::new(new(1));
        let done = AtomicBool::new(false);
        arch::sim::run_on_cpus(3, |cpu| {
            if cpu.0 == 0 {
                for n in 2..300 {
                    let old = current.swap(new(n), Ordering::AcqRel);
                    // SAFETY: unlinked, and given away.
                    unsafe { call(NonNull::new(old).unwrap().cast(), free) };
                    if n % 50 == 0 {
                        synchronize();
                        run_callbacks(cpu);
                    }
                }
                barrier();
                done.store(true, Ordering::Relaxed);
            } else {
                while !done.load(Ordering::Relaxed) {
                    let _guard = read_lock();
                    // SAFETY: RCU keeps the object while the guard lives.
                    let object = unsafe { &*current.load(Ordering::Acquire) };
                    assert_ne!(object.value.load(Ordering::Relaxed), 0);
                    arch::cpu::relax();
                }
            }
        });
        assert_eq!(FREED.load(Ordering::Relaxed), 298);
        // SAFETY: the last one was never given away.
        drop(unsafe { Box::from_raw(current.load(Ordering::Relaxed)) });
    }

    #[test]
    fn a_grace_period_waits_for_each_running_cpu_and_not_for_idle_ones() {
        let rcu = Box::leak(Box::new(Rcu::new(false)));
        arch::sim::run_on_cpus(3, |cpu| {
            if cpu.0 != 0 {
                return;
            }
            // CPUs begin idle on this machine: 0 and 1 run.
            (0..2).for_each(|n| rcu.idle_exit(CpuId(n)));
            let target = rcu.request(None);
            rcu.quiescent(CpuId(0));
            assert!(rcu.completed() < target);
            rcu.quiescent(CpuId(1));
            assert_eq!(rcu.completed(), target);
            let target = rcu.request(None);
            rcu.quiescent(CpuId(0));
            rcu.idle_enter(CpuId(1));
            assert_eq!(rcu.completed(), target);
        });
    }

    #[test]
    fn a_request_during_a_grace_period_waits_for_the_next_one() {
        let rcu = Box::leak(Box::new(Rcu::new(false)));
        arch::sim::run_on_cpus(3, |cpu| {
            if cpu.0 != 0 {
                return;
            }
            (0..2).for_each(|n| rcu.idle_exit(CpuId(n)));
            let current = rcu.request(None);
            rcu.quiescent(CpuId(0));
            // CPU 0 may read again: what is removed now is in its hands beyond the current one.
            let next = rcu.request(None);
            assert!(next > current);
            rcu.quiescent(CpuId(1));
            assert_eq!(rcu.completed(), current);
            rcu.quiescent(CpuId(1));
            assert!(rcu.completed() < next);
            rcu.quiescent(CpuId(0));
            assert_eq!(rcu.completed(), next);
        });
    }
}
