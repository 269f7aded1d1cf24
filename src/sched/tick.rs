//! What happens every few milliseconds on a CPU that is busy: slices end, time is charged,
//! balance is looked at. A CPU that idles has no tick.
//!
//! # How time is charged
//! The time of a thread on a CPU is exact: it is read at every switch. Its division into user and
//! system time is sampled: each tick charges the time since the last one to where it found the
//! CPU, and the exact sum is divided in that proportion when somebody asks (`Core::cpu_times`).
//! So entries into the kernel cost nothing. Linux without `CONFIG_VIRT_CPU_ACCOUNTING_GEN` does
//! the same.

use crate::{
    Payload, balance, cpu,
    fair::Enqueue,
    load,
};
use abi::{CpuId, Nanos};
use arch::thread::{NEED_RESCHED, NOTIFY_RESUME};
use kalloc::karc_dyn;
use sync::{
    Once,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use time::{Timer, TimerHandler};

/// Nanoseconds between ticks: Debian's arm64 kernel has 250 in a second.
pub(crate) const PERIOD: u64 = 4_000_000;

/// A CPU's tick.
pub(crate) struct Tick {
    timer: Once<Timer>,
    /// The timer is set; only its own CPU looks.
    runs: AtomicBool,
    /// When time was last charged.
    last: AtomicU64,
}

impl Tick {
    pub(crate) const fn new() -> Self {
        Self { timer: Once::new(), runs: AtomicBool::new(false), last: AtomicU64::new(0) }
    }

    /// Memory for the timer; when the CPU comes up.
    pub(crate) fn prepare(&self) -> abi::Result {
        let timer = Timer::new(karc_dyn!(Handler => dyn TimerHandler)?)?;
        self.timer.call_once(|| timer);
        Ok(())
    }

    /// This CPU leaves its idle thread. Interrupts are off.
    pub(crate) fn start(&self, _cpu: CpuId) {
        let now = cpu::clock();
        self.last.store(now, Ordering::Relaxed);
        if !self.runs.swap(true, Ordering::Relaxed)
            && let Some(timer) = self.timer.get()
        {
            timer.arm(Nanos(now + PERIOD));
        }
    }
}

struct Handler;

impl TimerHandler for Handler {
    fn expired(&self) {
        tick(arch::cpu::id());
    }

    fn again(&self, now: Nanos) -> Option<Nanos> {
        let cpu = arch::cpu::id();
        let queue = cpu::queue(cpu);
        let goes_on = queue.nr.load(Ordering::Relaxed) != 0 || sync::rcu::callbacks_pending(cpu);
        queue.tick.runs.store(goes_on, Ordering::Relaxed);
        goes_on.then(|| Nanos(now.0 + PERIOD))
    }
}

/// The tick of this CPU; hard interrupt context.
fn tick(cpu: CpuId) {
    let queue = cpu::queue(cpu);
    let now = cpu::clock();
    let elapsed = now.saturating_sub(queue.tick.last.swap(now, Ordering::Relaxed));
    let current = crate::current();
    if !current.idle {
        let (of_thread, of_cpu) = if arch::irq::interrupted_user() {
            (&current.times.user_ticks, &queue.times.user)
        } else {
            (&current.times.system_ticks, &queue.times.system)
        };
        // Only this CPU writes either.
        of_thread.store(of_thread.load(Ordering::Relaxed) + elapsed, Ordering::Relaxed);
        of_cpu.store(of_cpu.load(Ordering::Relaxed) + elapsed, Ordering::Relaxed);
        if current.payload().is_some_and(Payload::wants_tick) {
            current.head().set_flag(NOTIFY_RESUME);
        }
    }
    {
        let mut rq = queue.rq.lock_irq();
        rq.update_curr(now);
        if rq.slice_is_over(&cpu::tunables()) {
            current.head().set_flag(NEED_RESCHED);
        }
    }
    if let Some((task, from_min)) = balance::at_tick(cpu) {
        cpu::place_here(task, Enqueue::Migrate { from_min });
    }
    load::update(now);
    // Nothing but this interrupt keeps preemption off: what it interrupted is in no read section.
    if arch::preempt::count() == arch::preempt::HARDIRQ_UNIT {
        sync::rcu::quiescent(cpu);
    }
    if sync::rcu::callbacks_pending(cpu) {
        sync::rcu::force_quiescent(now);
    }
}
