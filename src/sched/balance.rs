//! Where a thread runs: the choice at a wake-up, the pull of a CPU that runs dry, and the
//! occasional look at who is busiest.
//!
//! An entity that moves is first taken off one queue, then put on the other, so no code ever
//! holds two queues' locks. All decisions read copies of the queues' figures without locks: a
//! stale one costs a better choice, nothing else.

use crate::{
    Thread,
    cpu::{Job, Task, active, queue},
    smp,
};
use abi::{CpuId, CpuMask};
use kalloc::KBox;
use sync::atomic::{AtomicU64, Ordering};

/// CPUs that idle and were not yet chosen for anything.
static IDLE: AtomicU64 = AtomicU64::new(0);

/// How many waiting entities a search for one to move looks at.
const LOOK_AT: usize = 32;

/// This CPU idles.
pub(crate) fn set_idle(cpu: CpuId) {
    // SeqCst: the idle loop looks at its queue after this; who enqueues looks here afterwards.
    IDLE.fetch_or(CpuMask::of(cpu).0, Ordering::SeqCst);
}

/// This CPU has something to do.
pub(crate) fn clear_idle(cpu: CpuId) {
    IDLE.fetch_and(!CpuMask::of(cpu).0, Ordering::Relaxed);
}

/// Takes one of `idle` for oneself, the first from `near` on.
fn claim_idle(among: CpuMask, near: CpuId) -> Option<CpuId> {
    let mut idle = IDLE.load(Ordering::Relaxed) & among.0;
    while idle != 0 {
        let turn = near.0 & 63;
        let n = (idle.rotate_right(turn).trailing_zeros() + turn) & 63;
        let bit = 1 << n;
        if IDLE.fetch_and(!bit, Ordering::Relaxed) & bit != 0 {
            return Some(CpuId(n));
        }
        idle &= !bit;
    }
    None
}

/// The CPU on which a thread that becomes runnable should run: where it ran if that CPU idles
/// (its cache is warm), else any that idles, else where it ran.
pub(crate) fn choose_cpu(thread: &Thread) -> CpuId {
    let before = CpuId(thread.head().cpu.load(Ordering::Relaxed));
    let mut allowed = thread.affinity().and(active());
    if allowed.is_empty() {
        allowed = active();
    }
    if let Some(idle) = claim_idle(allowed, before) {
        return idle;
    }
    let stay = if allowed.contains(before) { before } else { allowed.iter().next().unwrap_or(CpuId::BOOT) };
    give_way(thread, stay, allowed)
}

/// Where a thread of the real-time class finds less than itself, when `stay` runs something that it
/// would wait for.
fn give_way(thread: &Thread, stay: CpuId, allowed: CpuMask) -> CpuId {
    let priority = u32::from(thread.rt_priority());
    let of = |cpu: CpuId| queue(cpu).rt_priority.load(Ordering::Relaxed);
    if priority == 0 || of(stay) < priority {
        return stay;
    }
    allowed.iter().min_by_key(|c| of(*c)).filter(|c| of(*c) < priority).unwrap_or(stay)
}

/// Where a thread goes on that was preempted on `cpu`.
pub(crate) fn choose_after_preemption(thread: &Thread, cpu: CpuId) -> CpuId {
    if thread.rt_priority() == 0 {
        return cpu;
    }
    let allowed = thread.affinity().and(active());
    claim_idle(allowed, cpu).unwrap_or_else(|| give_way(thread, cpu, allowed))
}

/// The CPU with the greatest load that has at least one thread waiting.
fn busiest_but(cpu: CpuId) -> Option<CpuId> {
    active()
        .without(cpu)
        .iter()
        .filter(|c| queue(*c).nr.load(Ordering::Relaxed) > 1)
        .max_by_key(|c| queue(*c).load.load(Ordering::Relaxed))
}

/// Takes a waiting thread from `from` that may run on `to`, with `from`'s virtual time.
/// Interrupts are off. A queue that somebody else has is left alone: its CPU schedules or is given
/// work right now, and who waits in an interrupt for a CPU that the machine does not run (a virtual
/// one) may wait longer than until the next tick.
fn take_from(from: CpuId, to: CpuId) -> Option<(KBox<Task>, u64)> {
    let source = queue(from);
    let mut rq = source.rq.try_lock()?;
    // One that only just came waits for the CPU that was chosen for it; but it waits.
    let task = rq.steal(LOOK_AT, |job: &Job| job.thread.affinity().contains(to))?;
    source.publish(&rq);
    Some((task, rq.min_vruntime()))
}

/// Work for a CPU that has none. Interrupts are off, no lock is held.
pub(crate) fn pull_for_idle(cpu: CpuId) -> Option<(KBox<Task>, u64)> {
    if active().count() < 2 {
        return None;
    }
    let from = busiest_but(cpu)?;
    take_from(from, cpu)
}

/// At a tick: wakes an idle CPU if threads wait here, or pulls from a CPU that is busier by more
/// than what would move. Returns what was pulled.
pub(crate) fn at_tick(cpu: CpuId) -> Option<(KBox<Task>, u64)> {
    let all = active();
    if all.count() < 2 {
        return None;
    }
    let here = queue(cpu);
    if here.nr.load(Ordering::Relaxed) > 1 {
        if let Some(idle) = claim_idle(all.without(cpu), cpu) {
            smp::send_reschedule_to_idle(idle);
        }
        return None;
    }
    let from = busiest_but(cpu)?;
    // Two more there than here: a move makes both better.
    let there = queue(from).nr.load(Ordering::Relaxed);
    (there >= here.nr.load(Ordering::Relaxed) + 2).then(|| take_from(from, cpu)).flatten()
}
