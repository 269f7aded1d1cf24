//! What RCU needs from the scheduler: a thread per CPU that runs callbacks, and a place to wait
//! for a grace period.

use crate::{
    cpu, idle, kthread,
    thread::{self, ThreadSpec},
    wait::{Sleep, WaitQueue},
};
use abi::{CpuId, CpuMask, Nanos, Result};
use sync::{PerCpu, per_cpu, rcu};

static READY: PerCpu<WaitQueue> = per_cpu!(WaitQueue::new());
static GRACE: WaitQueue = WaitQueue::new();

struct Hooks;

impl rcu::Hooks for Hooks {
    fn callbacks_ready(&self, cpu: CpuId) {
        READY.get(cpu).wake_all();
    }

    fn grace_period_ended(&self) {
        GRACE.wake_all();
    }

    fn wait(&self, done: &dyn Fn() -> bool) {
        loop {
            let now = time::monotonic();
            rcu::force_quiescent(now.0);
            let deadline = now.saturating_add(Nanos(idle::tick_period()));
            let outcome = GRACE.wait_until(Sleep::Uninterruptible, Some(deadline), || done().then_some(()));
            if outcome.ready().is_some() {
                return;
            }
        }
    }

    fn reschedule(&self, cpu: CpuId) {
        cpu::nudge_cpu(cpu);
    }
}

/// Installs the hooks; when the boot CPU begins to schedule.
pub(crate) fn set_hooks() {
    rcu::set_hooks(&Hooks);
}

/// Starts the thread that runs the callbacks of `cpu`.
pub fn start_rcu_thread(cpu: CpuId) -> Result {
    let spec = ThreadSpec {
        name: idle::cpu_thread_name("rcuc/", cpu),
        nice: 0,
        affinity: CpuMask::of(cpu),
        payload: None,
        user_space: None,
        stack: frames::vmalloc::alloc_stack()?,
    };
    let thread = thread::create_kernel(spec, move || {
        loop {
            // Nothing ends this sleep but callbacks.
            let _ = READY.get(cpu).wait_until(Sleep::Idle, None, || rcu::callbacks_ready(cpu).then_some(()));
            rcu::run_callbacks(cpu);
        }
    })?;
    kthread::register(&thread);
    thread::start(&thread);
    Ok(())
}
