//! Index of this CPU's slot in per-CPU tables.

/// Gives a CPU its own emergency stack: not needed.
pub fn set_overflow_stack(_: abi::CpuId, _top: abi::VirtAddr) {}

/// `cpu::id().index()`.
pub fn slot_index() -> usize {
    crate::cpu::id().index()
}
