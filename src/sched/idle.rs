//! What a CPU does without work, and how it begins to schedule.

use crate::{
    Thread,
    balance,
    cpu::{self, Why},
    rcu_threads,
    thread::{Core, Parts, thread_name},
    tick,
};
use abi::{CpuId, CpuMask, Result};
use arch::thread::{NEED_RESCHED, ThreadHead};
use frames::vmalloc::KernelStack;
use kalloc::KArc;

fn parts(cpu: CpuId) -> Parts {
    let mut name = *b"swapper/\0\0\0\0\0\0\0\0";
    let digits = [b'0' + (cpu.0 / 10 % 10) as u8, b'0' + (cpu.0 % 10) as u8];
    let from = usize::from(cpu.0 < 10);
    for (to, digit) in name.iter_mut().skip(8).zip(digits.into_iter().skip(from)) {
        *to = digit;
    }
    Parts {
        name,
        nice: 0,
        affinity: CpuMask::of(cpu),
        payload: None,
        user_space: None,
        main: None,
        kernel: true,
        idle: true,
    }
}

/// Makes the code that calls, on the boot CPU's first stack, this CPU's idle thread, and starts to
/// schedule. After `time::init`. The caller goes on as before, and ends in [`idle_loop`]; it must
/// not sleep, since an idle thread never leaves its CPU without work.
pub fn init_boot_cpu() -> Result {
    let cpu = arch::cpu::id();
    cpu::queue(cpu).tick.prepare()?;
    let idle = sched_switch::adopt(|_| Core::try_new(parts(cpu)))?.to_arc();
    cpu::bring_up(cpu, idle);
    rcu_threads::set_hooks();
    sync::rcu::cpu_online(cpu);
    sync::lockdep::start_sleep_checks();
    Ok(())
}

/// The idle thread for a CPU that is about to be started: its head, for `arch::smp::start`.
/// The stack's top is in the head.
pub fn prepare_secondary(cpu: CpuId, stack: KernelStack) -> Result<&'static ThreadHead> {
    cpu::queue(cpu).tick.prepare()?;
    let right = sched_switch::create_kernel(stack, |_| Core::try_new(parts(cpu)))?;
    let idle: KArc<Thread> = right.thread().clone();
    idle.head().cpu.store(cpu.0, sync::atomic::Ordering::Relaxed);
    cpu::queue(cpu).idle.call_once(|| idle);
    Ok(right.into_first_thread())
}

/// This CPU, which runs on the idle thread that [`prepare_secondary`] made, begins to schedule.
/// It goes on to [`idle_loop`].
pub fn init_secondary(cpu: CpuId) {
    sync::rcu::cpu_online(cpu);
    if let Some(idle) = cpu::queue(cpu).idle.get() {
        cpu::bring_up(cpu, idle.clone());
    }
}

/// Runs what there is to run, and waits for interrupts when there is nothing. Interrupts are on
/// from here on.
pub fn idle_loop() -> ! {
    if arch::preempt::count() == 0 {
        arch::preempt::disable();
    }
    loop {
        idle_once();
    }
}

/// One round: waits for one interrupt unless there is work, then lets the scheduler look.
pub(crate) fn idle_once() {
    arch::irq::disable();
    let cpu = arch::cpu::id();
    let queue = cpu::queue(cpu);
    balance::set_idle(cpu);
    if !crate::current().head().test_flag(NEED_RESCHED) {
        queue.times.idle_begins(cpu::clock());
        sync::rcu::idle_enter(cpu);
        // An interrupt that is pending ends this at once, masked as it is: so a wake-up that came
        // after the look at the flag is not slept through.
        arch::cpu::wait_for_interrupt();
        sync::rcu::idle_exit(cpu);
        queue.times.idle_ends(cpu::clock());
    }
    balance::clear_idle(cpu);
    // The interrupt is taken here.
    arch::irq::enable();
    if crate::current().head().test_flag(NEED_RESCHED) {
        cpu::switch_from_current(Why::Called);
    }
}

/// The name of a thread that belongs to a CPU: `prefix` and the number.
pub(crate) fn cpu_thread_name(prefix: &str, cpu: CpuId) -> [u8; 16] {
    let mut name = thread_name(prefix);
    let at = prefix.len().min(13);
    let (tens, ones) = (b'0' + (cpu.0 / 10 % 10) as u8, b'0' + (cpu.0 % 10) as u8);
    let digits = if cpu.0 < 10 { [ones, 0] } else { [tens, ones] };
    for (to, digit) in name.iter_mut().skip(at).zip(digits) {
        *to = digit;
    }
    name
}

/// Nanoseconds between ticks, for who wants to wait a little.
pub(crate) const fn tick_period() -> u64 {
    tick::PERIOD
}
