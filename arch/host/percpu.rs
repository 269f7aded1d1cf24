//! Index of this CPU's slot in per-CPU tables.

/// Gives a CPU its own emergency stack: not needed.
pub fn set_overflow_stack(_: abi::CpuId, _top: abi::VirtAddr) {}

/// Gives a CPU an interrupt stack: not needed.
pub fn set_irq_stack(_: abi::CpuId, _top: abi::VirtAddr) {}

/// Moves the frames of system calls: there are none.
pub fn set_stack_seed(_: abi::CpuId, _seed: u64) {}

/// `cpu::id().index()`.
pub fn slot_index() -> usize {
    crate::cpu::id().index()
}
