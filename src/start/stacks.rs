//! The stacks that belong to CPUs, not to threads: for interrupts, and for the report of a stack that
//! overflowed; and where system calls start on the stacks of threads.

use abi::{CpuId, MAX_CPUS, Result};
use boot::cmdline::Options;
use frames::vmalloc::{KernelStack, alloc_stack};
use sync::Once;

struct Stacks {
    interrupts: KernelStack,
    overflow: KernelStack,
}

static STACKS: [Once<Stacks>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];

/// Gives a CPU its stacks, before it takes interrupts. Each has a guard page below it. ENOMEM.
pub(crate) fn give(cpu: CpuId) -> Result {
    let Some(slot) = STACKS.get(cpu.index()) else { return Ok(()) };
    if slot.get().is_none() {
        let new = Stacks { interrupts: alloc_stack()?, overflow: alloc_stack()? };
        slot.call_once(|| new);
    }
    if let Some(stacks) = slot.get() {
        arch::percpu::set_irq_stack(cpu, stacks.interrupts.top());
        arch::percpu::set_overflow_stack(cpu, stacks.overflow.top());
    }
    Ok(())
}

/// Lets system calls start at random distances from their stacks' tops, unless the command line says
/// otherwise. After the random number generator has its seed.
pub(crate) fn randomize(options: &Options<'_>) {
    if !options.randomize_stacks {
        return;
    }
    for cpu in arch::cpu::online().iter() {
        // Zero would mean "off".
        arch::percpu::set_stack_seed(cpu, vfs::random::next_u64() | 1 << 40);
    }
}
