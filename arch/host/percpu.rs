//! Index of this CPU's slot in per-CPU tables.

/// `cpu::id().index()`.
pub fn slot_index() -> usize {
    crate::cpu::id().index()
}
