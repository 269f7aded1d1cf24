//! How a CPU goes from one thread to the next: the run queues behind their locks, the switch, and
//! how a woken thread comes to a queue.
//!
//! A thread's entity (its [`Task`]) has one owner at any time: the queue that it waits or runs on,
//! or its sleep slot, or the code that moves it. It holds the right to run the thread except
//! while that runs. A thread that is left, runnable or not, goes back to a queue or its slot only
//! in [`finish_switch`], when it is off the CPU: so whoever finds an entity can run its thread at
//! once, and no run-queue lock is held over a switch.
//!
//! Lock order: wait queues before run queues before timers; no two run queues at once. Run-queue
//! locks are taken with interrupts off.

use crate::{
    Core, Thread, balance,
    fair::{Enqueue, Entity, Manner, Runner, Tunables},
    runqueue::RunQueue,
    sleeper::{self, DEAD, LOAD, RUNNING},
    load, smp, tick, user_space,
};
use abi::{CpuId, CpuMask, Nanos};
use arch::thread::{NEED_RESCHED, NOTIFY_RESUME};
use kalloc::{KArc, KBox};
use sched_switch::{Last, Runnable, RunnableSlot};
use sync::{
    LockClass, Once, PerCpu, SpinLock,
    atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
    per_cpu,
};

static RUN_QUEUE: LockClass = LockClass::new("run_queue", 1700);

/// What waits on a run queue: a thread, with the right to run it while it does not run.
pub struct Job {
    pub(crate) thread: KArc<Thread>,
    right: Option<Runnable<Core>>,
    /// It counts as load on this CPU while it sleeps.
    loads: Option<CpuId>,
}

/// A thread's scheduling entity.
pub(crate) type Task = Entity<Job>;

impl Job {
    pub(crate) fn new(right: Runnable<Core>) -> Self {
        Self { thread: right.thread().clone(), right: Some(right), loads: None }
    }
}

impl Runner for Job {
    fn ran(&self, _: u64, sum: u64) {
        self.thread.times.sum_exec.store(sum, Ordering::Relaxed);
    }
    fn weight(&self) -> u32 {
        self.thread.weight()
    }
    #[inline]
    fn rt_priority(&self) -> u8 {
        self.thread.rt_priority()
    }
    fn is_round_robin(&self) -> bool {
        self.thread.is_round_robin()
    }
    fn manner(&self) -> Manner {
        self.thread.manner()
    }
}

/// What a thread that is left sends to the next one, which acts on it.
pub struct Baggage(Left);

enum Left {
    /// It stays runnable.
    Runnable(KBox<Task>),
    /// It sleeps.
    Asleep(KBox<Task>),
    /// It was the CPU's idle thread.
    Idle,
    /// It has ended.
    Dead(KBox<Task>),
}

/// A CPU's queue and what others may read of it without the lock.
pub(crate) struct CpuQueue {
    pub(crate) rq: SpinLock<RunQueue<Job>>,
    /// Copies of the queue's figures, for balancing.
    pub(crate) nr: AtomicU32,
    pub(crate) load: AtomicU64,
    min_vruntime: AtomicU64,
    /// The real-time priority of what runs or is about to.
    pub(crate) rt_priority: AtomicU32,
    pub(crate) idle: Once<KArc<Thread>>,
    idle_right: RunnableSlot<Core>,
    pub(crate) switches: AtomicU64,
    /// Threads that sleep as load; the sum over all CPUs counts.
    pub(crate) uninterruptible: AtomicI64,
    pub(crate) times: load::CpuTimes,
    pub(crate) tick: tick::Tick,
}

static QUEUES: PerCpu<CpuQueue> = per_cpu!(CpuQueue {
    rq: SpinLock::new(RunQueue::new(), &RUN_QUEUE),
    nr: AtomicU32::new(0),
    load: AtomicU64::new(0),
    min_vruntime: AtomicU64::new(0),
    rt_priority: AtomicU32::new(0),
    idle: Once::new(),
    idle_right: RunnableSlot::new(),
    switches: AtomicU64::new(0),
    uninterruptible: AtomicI64::new(0),
    times: load::CpuTimes::new(),
    tick: tick::Tick::new(),
});

/// CPUs that schedule.
static ACTIVE: AtomicU64 = AtomicU64::new(0);

/// The queue of a CPU.
#[inline]
pub(crate) fn queue(cpu: CpuId) -> &'static CpuQueue {
    QUEUES.get(cpu)
}

/// CPUs that schedule.
pub(crate) fn active() -> CpuMask {
    CpuMask(ACTIVE.load(Ordering::Relaxed))
}

impl CpuQueue {
    /// Copies what others read; with the lock held.
    #[inline]
    pub(crate) fn publish(&self, rq: &RunQueue<Job>) {
        self.nr.store(rq.nr() as u32, Ordering::Relaxed);
        self.load.store(rq.load(), Ordering::Relaxed);
        self.min_vruntime.store(rq.min_vruntime(), Ordering::Relaxed);
        self.rt_priority.store(rq.rt_priority().into(), Ordering::Relaxed);
    }
}

/// By what the class's periods are multiplied on this machine.
static PERIOD_FACTOR: AtomicU64 = AtomicU64::new(1);

/// The class's periods on this machine.
#[inline]
pub(crate) fn tunables() -> Tunables {
    Tunables::times(PERIOD_FACTOR.load(Ordering::Relaxed))
}

/// The scheduler's clock.
#[inline]
pub(crate) fn clock() -> u64 {
    time::monotonic().0
}

/// Gives the CPU `cpu` its idle thread: the thread that runs there now (boot CPU), or the one
/// that it is started with. It begins to schedule.
pub(crate) fn bring_up(cpu: CpuId, idle: KArc<Thread>) {
    idle.head().cpu.store(cpu.0, Ordering::Relaxed);
    idle.sleeper.state.cancel();
    queue(cpu).idle.call_once(|| idle);
    ACTIVE.fetch_or(CpuMask::of(cpu).0, Ordering::Relaxed);
    PERIOD_FACTOR.store(Tunables::factor(active().count() as usize), Ordering::Relaxed);
}

/// Lets another thread run if the current one sleeps, or if one comes before it.
pub fn schedule() {
    loop {
        arch::preempt::disable();
        switch_from_current(Why::Called);
        arch::preempt::enable_no_resched();
        if !crate::current().head().test_flag(NEED_RESCHED) {
            return;
        }
    }
}

/// Lets another thread run if one comes before the current one, which stays runnable whatever its
/// state says. For `Kernel::preempt_schedule`: from the end of an interrupt and of
/// `preempt::enable`. Interrupts may be off and are as they were at return.
pub fn preempt_schedule() {
    if arch::preempt::count() != 0 {
        return;
    }
    loop {
        arch::preempt::disable();
        switch_from_current(Why::Preempted);
        arch::preempt::enable_no_resched();
        if !crate::current().head().test_flag(NEED_RESCHED) {
            return;
        }
    }
}

/// Lets all others that wait for this CPU run first (`sched_yield(2)`).
pub fn yield_now() {
    {
        let irq = sync::IrqGuard::new();
        queue(irq.cpu()).rq.lock().yield_curr();
    }
    schedule();
}

/// Whether something that waits for this CPU should run: for long loops in the kernel.
#[inline]
pub fn need_resched() -> bool {
    arch::thread::current().test_flag(NEED_RESCHED)
}

/// Why the scheduler is entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The thread asked: if it announced a sleep, it means it.
    Called,
    /// Something came in between.
    Preempted,
}

/// One decision and at most one switch. Preemption is off, by the caller and once.
pub(crate) fn switch_from_current(why: Why) {
    let flags = arch::irq::save_and_disable();
    let prev = crate::current();
    let cpu = arch::cpu::id();
    let queue = queue(cpu);
    if prev.head().test_flag(NEED_RESCHED) {
        prev.head().clear_flag(NEED_RESCHED);
    }
    sync::rcu::quiescent(cpu);

    let asleep = if why == Why::Called && !prev.idle { prev.sleeper.state.commit() } else { None };
    let now = clock();
    let mut rq = queue.rq.lock();
    rq.update_curr(now);
    let left = if prev.idle {
        Left::Idle
    } else if let Some(kind) = asleep {
        let Some(mut task) = rq.take_curr() else { return arch::irq::restore(flags) };
        if kind & LOAD != 0 {
            task.runner.loads = Some(cpu);
            queue.uninterruptible.fetch_add(1, Ordering::Relaxed);
        }
        prev.times.voluntary.fetch_add(1, Ordering::Relaxed);
        Left::Asleep(task)
    } else {
        if rq.curr_stays() && prev.affinity().contains(cpu) {
            rq.restart_slice();
            drop(rq);
            return arch::irq::restore(flags);
        }
        let Some(task) = rq.take_curr() else { return arch::irq::restore(flags) };
        prev.times.involuntary.fetch_add(1, Ordering::Relaxed);
        if prev.has_rseq() {
            prev.head().set_flag(NOTIFY_RESUME);
        }
        Left::Runnable(task)
    };

    if rq.nr() == 0 {
        queue.publish(&rq);
        drop(rq);
        let pulled = balance::pull_for_idle(cpu);
        rq = queue.rq.lock();
        if let Some((task, from_min)) = pulled {
            task.runner.thread.head().cpu.store(cpu.0, Ordering::Relaxed);
            rq.enqueue(task, Enqueue::Migrate { from_min }, &tunables());
        }
    }
    let next = rq.pick_next(now).and_then(|task| task.runner.right.take());
    queue.publish(&rq);
    drop(rq);

    let next = match next {
        Some(next) => next,
        // The idle thread goes on: it looks again by itself.
        None if prev.idle => return arch::irq::restore(flags),
        None => match queue.idle_right.take() {
            Some(idle) => idle,
            // Cannot be: the idle thread's right is here whenever it does not run.
            None => return arch::irq::restore(flags),
        },
    };
    if prev.idle {
        queue.tick.start(cpu);
    }
    switch_to(cpu, &prev, next, Baggage(left));
    arch::irq::restore(flags);
}

fn switch_to(cpu: CpuId, prev: &Core, next: Runnable<Core>, baggage: Baggage) {
    prepare_switch(cpu, prev, &next);
    let (last, baggage) = sched_switch::switch_to(next, baggage);
    finish_switch(last, baggage);
}

#[inline]
fn prepare_switch(cpu: CpuId, prev: &Core, next: &Runnable<Core>) {
    let queue = queue(cpu);
    // Only this CPU writes it, interrupts are off.
    queue.switches.store(queue.switches.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    next.set_cpu(cpu);
    if next.thread().rseq_differs(cpu) {
        next.thread().head().set_flag(NOTIFY_RESUME);
    }
    sync::lockdep::switch(&prev.lockdep, &next.thread().lockdep);
    user_space::switch(cpu, prev, next.thread());
}

/// First act of a thread after it was switched to: takes care of the one that ran before.
/// Interrupts are off.
pub(crate) fn finish_switch(last: Last<Core>, baggage: Baggage) {
    match (last, baggage.0) {
        (Last::Runnable(right), Left::Runnable(mut task)) => {
            task.runner.right = Some(right);
            requeue(task);
        }
        (Last::Runnable(right), Left::Asleep(mut task)) => {
            let thread = right.thread().clone();
            task.runner.right = Some(right);
            if let Some(task) = thread.sleeper.state.settle(task) {
                activate(task);
            }
        }
        (Last::Runnable(right), Left::Idle) => queue(arch::cpu::id()).idle_right.put(right),
        (Last::Finished(finished), Left::Dead(task)) => {
            let (thread, stack) = finished.reap();
            drop(stack);
            drop(task);
            // Wakers that found the thread before it ended may still look at it.
            KArc::drop_after_grace_period(thread);
        }
        // `exit` sends Dead with a Finished, `switch_from_current` the others: no other pair.
        (Last::Runnable(right), Left::Dead(_)) => drop(right),
        (Last::Finished(finished), _) => drop(finished.reap()),
    }
}

/// Puts a thread that was preempted back: here, unless it may not run here any more, or is of the
/// real-time class and need not wait elsewhere.
fn requeue(task: KBox<Task>) {
    let cpu = arch::cpu::id();
    let queue = queue(cpu);
    let thread = &task.runner.thread;
    let to = if thread.affinity().contains(cpu) { balance::choose_after_preemption(thread, cpu) } else { balance::choose_cpu(thread) };
    if to == cpu {
        let t = tunables();
        let realtime = thread.rt_priority() != 0;
        let mut rq = queue.rq.lock();
        rq.enqueue(task, Enqueue::Requeue, &t);
        queue.publish(&rq);
        // What was picked was picked without this one. That only matters when its class or priority
        // has just changed: else it left because the other comes first.
        match rq.curr() {
            None => queue.idle.get().is_some_and(|idle| ask_to_reschedule(idle)),
            Some(curr) => realtime && rq.wakeup_preempts(&t) && ask_to_reschedule(&curr.runner.thread),
        };
    } else {
        place(task, to, Enqueue::Migrate { from_min: queue.min_vruntime.load(Ordering::Relaxed) });
    }
}

/// Brings a woken thread to a queue. Any context.
pub(crate) fn activate(mut task: KBox<Task>) {
    if let Some(cpu) = task.runner.loads.take() {
        queue(cpu).uninterruptible.fetch_sub(1, Ordering::Relaxed);
    }
    let thread = &task.runner.thread;
    let from = CpuId(thread.head().cpu.load(Ordering::Relaxed));
    let to = balance::choose_cpu(thread);
    let from_min = (from != to).then(|| queue(from).min_vruntime.load(Ordering::Relaxed));
    place(task, to, Enqueue::Wake { from_min });
}

/// Brings a thread to a queue for the first time.
pub(crate) fn activate_new(task: KBox<Task>) {
    let thread = &task.runner.thread;
    thread.head().cpu.store(arch::cpu::id().0, Ordering::Relaxed);
    let to = balance::choose_cpu(thread);
    place(task, to, Enqueue::New);
}

/// Puts a task on the queue of `to`, and makes that CPU look at it if it comes before what runs
/// there.
fn place(task: KBox<Task>, to: CpuId, how: Enqueue) {
    let queue = queue(to);
    let t = tunables();
    let kick = {
        task.runner.thread.head().cpu.store(to.0, Ordering::Relaxed);
        let mut rq = queue.rq.lock_irq();
        rq.update_curr(clock());
        rq.enqueue(task, how, &t);
        queue.publish(&rq);
        match rq.curr() {
            None => queue.idle.get().is_some_and(|idle| ask_to_reschedule(idle)),
            Some(curr) => rq.wakeup_preempts(&t) && ask_to_reschedule(&curr.runner.thread),
        }
    };
    if kick && to != arch::cpu::id() {
        smp::send_reschedule(to);
    }
}

/// Puts a task that was pulled on this CPU's queue.
pub(crate) fn place_here(task: KBox<Task>, how: Enqueue) {
    let here = sync::PreemptGuard::new();
    place(task, here.cpu(), how);
}

/// Asks a thread that runs to let others run; `false` if it was asked before. With its queue's
/// lock held, so that it is still the one that runs.
fn ask_to_reschedule(thread: &Thread) -> bool {
    let head = thread.head();
    if head.test_flag(NEED_RESCHED) {
        return false;
    }
    head.set_flag(NEED_RESCHED);
    true
}

/// A thread's class or priority has changed: puts it where it belongs now. Any context.
pub(crate) fn reclassify(thread: &Thread) {
    let cpu = CpuId(thread.head().cpu.load(Ordering::Relaxed));
    let queue = queue(cpu);
    let id = thread.id();
    let t = tunables();
    let kick = {
        let mut rq = queue.rq.lock_irq();
        rq.update_curr(clock());
        if let Some(mut task) = rq.steal(usize::MAX, |job| job.thread.id() == id) {
            task.to_tail = true;
            rq.enqueue(task, Enqueue::Requeue, &t);
            queue.publish(&rq);
            match rq.curr() {
                Some(curr) => rq.wakeup_preempts(&t) && ask_to_reschedule(&curr.runner.thread),
                None => false,
            }
        } else {
            // Where it runs, the scheduler looks at it; where it sleeps, its wake-up will.
            rq.curr().is_some_and(|curr| curr.runner.thread.id() == id && ask_to_reschedule(&curr.runner.thread))
        }
    };
    if kick && cpu != arch::cpu::id() {
        smp::send_reschedule(cpu);
    }
}

/// How long a thread of the fair class runs at a stretch, in whole ticks.
pub(crate) fn fair_slice(thread: &Thread) -> u64 {
    let cpu = CpuId(thread.head().cpu.load(Ordering::Relaxed));
    let slice = queue(cpu).rq.lock_irq().fair_slice(thread.weight(), &tunables());
    slice / tick::PERIOD * tick::PERIOD
}

/// Makes a CPU pass through its scheduler.
pub(crate) fn reschedule_cpu(cpu: CpuId) {
    let queue = queue(cpu);
    {
        let rq = queue.rq.lock_irq();
        match rq.curr() {
            Some(curr) => ask_to_reschedule(&curr.runner.thread),
            None => queue.idle.get().is_some_and(|idle| ask_to_reschedule(idle)),
        };
    }
    if cpu != arch::cpu::id() {
        smp::send_reschedule(cpu);
    }
}

/// As [`reschedule_cpu`], for a tick that repeats itself: does not wait for a queue that somebody has,
/// and interrupts no CPU that was asked before.
pub(crate) fn nudge_cpu(cpu: CpuId) {
    let queue = queue(cpu);
    let asked = {
        let Some(rq) = queue.rq.try_lock_irq() else { return };
        match rq.curr() {
            Some(curr) => ask_to_reschedule(&curr.runner.thread),
            None => queue.idle.get().is_some_and(|idle| ask_to_reschedule(idle)),
        }
    };
    if asked && cpu != arch::cpu::id() {
        smp::send_reschedule(cpu);
    }
}

/// The end of the current thread.
pub(crate) fn exit() -> ! {
    arch::preempt::disable();
    let _flags = arch::irq::save_and_disable();
    let prev = crate::current();
    let cpu = arch::cpu::id();
    let queue = queue(cpu);
    sync::rcu::quiescent(cpu);
    prev.sleeper.state.end();
    debug_assert_eq!(prev.sleeper.state.get(), DEAD);
    let now = clock();
    let (task, next) = {
        let mut rq = queue.rq.lock();
        rq.update_curr(now);
        let task = rq.take_curr();
        let next = rq.pick_next(now).and_then(|task| task.runner.right.take());
        queue.publish(&rq);
        (task, next)
    };
    // A thread that runs is its queue's current one, and an idle thread that does not run is
    // here: with one of them missing nothing could run on this CPU any more.
    let (Some(task), Some(next)) = (task, next.or_else(|| queue.idle_right.take())) else {
        log::error!("scheduler: a thread that was on no queue ended");
        loop {
            arch::cpu::relax();
        }
    };
    prepare_switch(cpu, &prev, &next);
    sched_switch::switch_away(next, Baggage(Left::Dead(task)))
}

/// Wakes a thread that sleeps; `false` if it did not.
pub fn wake(thread: &Thread) -> bool {
    thread.sleeper.wake(sleeper::SLEEPING)
}

/// A signal was posted (its flag in the thread's head is set): ends a sleep that it may end, and
/// makes a thread that runs on another CPU look at its flags.
pub fn signal_wake(thread: &Thread, fatal: bool) {
    use sleeper::{INTERRUPTIBLE, KILLABLE, STOPPED, TRACED};
    let kinds = if fatal { INTERRUPTIBLE | KILLABLE | STOPPED | TRACED } else { INTERRUPTIBLE };
    if thread.sleeper.wake(kinds) || thread.sleeper.state.get() != RUNNING {
        return;
    }
    let cpu = CpuId(thread.head().cpu.load(Ordering::Relaxed));
    if cpu != arch::cpu::id() {
        smp::send_reschedule(cpu);
    }
}

/// Sets where a thread may run, and moves it if it is elsewhere. `false` if no CPU is left.
pub fn set_affinity(thread: &Thread, mask: CpuMask) -> bool {
    if mask.and(active()).is_empty() {
        return false;
    }
    thread.store_affinity(mask);
    let cpu = CpuId(thread.head().cpu.load(Ordering::Relaxed));
    if mask.contains(cpu) {
        return true;
    }
    let queue = queue(cpu);
    let waiting = {
        let mut rq = queue.rq.lock_irq();
        let id = thread.id();
        let found = rq.steal(usize::MAX, |job| job.thread.id() == id);
        queue.publish(&rq);
        found.map(|task| (task, rq.min_vruntime()))
    };
    match waiting {
        Some((task, from_min)) => {
            let to = balance::choose_cpu(&task.runner.thread);
            place(task, to, Enqueue::Migrate { from_min });
        }
        // It runs there, or sleeps: the next switch or wake-up sees the mask.
        None if thread.sleeper.state.get() == RUNNING => reschedule_cpu(cpu),
        None => {}
    }
    if thread.id() == crate::current().id() {
        schedule();
    }
    true
}

/// The time that a thread spent on a CPU, up to this moment if it runs.
pub fn sum_exec_now(thread: &Thread) -> Nanos {
    let cpu = CpuId(thread.head().cpu.load(Ordering::Relaxed));
    let mut rq = queue(cpu).rq.lock_irq();
    if rq.curr().is_some_and(|task| task.runner.thread.id() == thread.id()) {
        rq.update_curr(clock());
    }
    drop(rq);
    thread.sum_exec()
}
