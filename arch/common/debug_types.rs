//! Breakpoint and watchpoint registers of a program, in the form that the CPU takes them.

/// Pairs of a kind that the architecture may have.
pub const MAX_POINTS: usize = 16;

/// One breakpoint or watchpoint: DBGBVR and DBGBCR, or DBGWVR and DBGWCR (Arm ARM D2.8, D2.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// The value register: an address.
    pub value: u64,
    /// The control register; 0 is off.
    pub control: u32,
}

/// All of a thread's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugRegs {
    /// Breakpoints.
    pub breakpoints: [Point; MAX_POINTS],
    /// Watchpoints.
    pub watchpoints: [Point; MAX_POINTS],
}

/// What the CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugInfo {
    /// Version of the debug architecture (ID_AA64DFR0_EL1.DebugVer).
    pub version: u8,
    /// Breakpoint pairs.
    pub breakpoints: usize,
    /// Watchpoint pairs.
    pub watchpoints: usize,
}
