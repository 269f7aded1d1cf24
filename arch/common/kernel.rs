//! What the CPU hands to the rooms above, and in which form: registers, faults, exceptions.

use abi::UserAddr;

/// Registers of the interrupted program, at the top of its kernel stack. The entry assembly and
/// `ptrace` know the layout: the first 34 words are Linux's `struct user_pt_regs`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserRegs {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Stack pointer (SP_EL0).
    pub sp: u64,
    /// Where the program continues (ELR_EL1).
    pub pc: u64,
    /// Its PSTATE (SPSR_EL1).
    pub pstate: u64,
    /// x0 at entry of the system call, for a restart.
    pub orig_x0: u64,
    /// Number of the system call in progress, or -1 after any other entry.
    pub syscallno: i64,
}

impl UserRegs {
    /// The registers of a program at its first instruction: all zero but these.
    pub fn for_program(entry: u64, stack: u64) -> Self {
        Self { pc: entry, sp: stack, syscallno: -1, ..Self::default() }
    }
}

/// What an access wanted to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store, or an atomic access that also loads.
    Write,
    /// An instruction fetch.
    Execute,
}

/// Why the MMU or the memory refused an access (Arm ARM D24.2.40, the fault status codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// No valid descriptor.
    Translation,
    /// A valid descriptor whose access flag is clear.
    AccessFlag,
    /// A valid descriptor that forbids the access.
    Permission,
    /// The address is not aligned as the access or the memory type needs.
    Alignment,
    /// The memory system answered with an error.
    External,
    /// Address size, TLB conflict and what else there is; a program cannot cause it by itself.
    Other,
}

/// A data or instruction abort on a user address.
#[derive(Clone, Copy, Debug)]
pub struct PageFault {
    /// The address, without the tag that TBI lets programs keep in the top byte.
    pub addr: UserAddr,
    /// What was tried.
    pub access: Access,
    /// What was wrong.
    pub kind: FaultKind,
    /// The syndrome, for messages and for the signal frame's `esr_context`.
    pub esr: u64,
    /// From EL0; otherwise a user copy in the kernel faulted.
    pub from_user: bool,
}

/// An exception of a program that is neither a system call nor a fault on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserException {
    /// An instruction that does not exist or that EL0 may not execute.
    Undefined { esr: u64 },
    /// The program counter is not a multiple of 4.
    PcAlignment,
    /// A load or store through a stack pointer that is not a multiple of 16.
    SpAlignment,
    /// `BRK #imm`.
    Breakpoint { imm: u16 },
    /// The instruction after which PSTATE.SS asked to stop.
    SingleStep,
    /// A watchpoint register matched.
    Watchpoint { addr: u64 },
    /// A breakpoint register matched.
    HwBreakpoint,
    /// A trapped floating-point exception.
    FpException { esr: u64 },
    /// PSTATE.IL was set.
    IllegalState,
    /// A branch to something other than a landing pad.
    Bti,
    /// MSR, MRS or SYS that EL0 may not execute, after emulation declined.
    SystemRegister { esr: u64 },
    /// An asynchronous error of the memory system.
    SError { esr: u64 },
    /// Anything else.
    Unknown { esr: u64 },
}

/// What the rooms above give to the CPU; registered once, before interrupts are enabled.
pub trait Kernel: Sync {
    /// A system call of the current thread: interrupts on, preemptible.
    fn syscall(&self, regs: &mut UserRegs);
    /// A fault at EL0: interrupts on.
    fn user_fault(&self, regs: &mut UserRegs, fault: PageFault);
    /// A fault of a user copy at EL1, interrupts as they were: `true` means resolved, try again;
    /// `false` makes the copy return what it left undone.
    fn kernel_user_copy_fault(&self, fault: PageFault) -> bool;
    /// Another exception at EL0: interrupts on.
    fn user_exception(&self, regs: &mut UserRegs, exception: UserException);
    /// An interrupt: interrupts off, hard-interrupt count raised. Asks the interrupt controller
    /// and dispatches.
    fn interrupt(&self);
    /// Work before the return to EL0 that `flags` (a part of `EXIT_WORK`) ask for: interrupts on.
    /// The caller reads the flags again afterwards, with interrupts off.
    fn exit_work(&self, regs: &mut UserRegs, flags: u32);
    /// The current thread should be switched away from: from `preempt::enable`, and at the end of
    /// an interrupt that came at EL1 (interrupts are off then, and off again at return).
    fn preempt_schedule(&self);
}
