//! The part of a thread that the CPU's entry code knows, and its work flags.

use super::Context;
use crate::fp::FpState;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The scheduler wants this CPU to run another thread.
pub const NEED_RESCHED: u32 = 1;
/// A signal waits for delivery.
pub const SIGNAL_PENDING: u32 = 2;
/// Deferred work before the return to user space.
pub const NOTIFY_RESUME: u32 = 4;
/// A fatal signal is pending: killable sleeps end.
pub const FATAL_PENDING: u32 = 8;
/// A tracer wants single steps.
pub const SINGLE_STEP: u32 = 16;
/// A tracer wants stops at system calls.
pub const SYSCALL_TRACE: u32 = 32;
/// A tracer carries out the system calls itself: they are skipped (PTRACE_SYSEMU).
pub const SYSCALL_EMU: u32 = 64;
/// The thread has hardware breakpoints or watchpoints.
pub const HW_DEBUG: u32 = 256;
/// They are not in this CPU's registers.
pub const DEBUG_LOAD: u32 = 512;
/// The flags with which a system call takes the long way.
pub const SYSCALL_WORK: u32 = SINGLE_STEP | SYSCALL_TRACE | SYSCALL_EMU | SECCOMP;
/// System calls are restricted (seccomp(2)).
pub const SECCOMP: u32 = 128;
/// The flags that the loop before the return to EL0 serves.
pub const EXIT_WORK: u32 = NEED_RESCHED | SIGNAL_PENDING | NOTIFY_RESUME | DEBUG_LOAD;

/// First field of the scheduler's thread; SP_EL0 points to it while the kernel runs. The entry
/// assembly uses the offsets of the first fields.
#[repr(C, align(16))]
pub struct ThreadHead {
    /// Work flags; any CPU may set one.
    pub flags: AtomicU32,
    /// Preemption is off while this is not zero; from `HARDIRQ_UNIT` on it counts interrupts.
    /// Only the CPU that runs the thread changes it, so plain loads and stores suffice.
    pub preempt_count: AtomicU32,
    /// Lowest address of the kernel stack.
    pub stack_base: AtomicU64,
    /// First address after the kernel stack.
    pub stack_top: AtomicU64,
    /// CPU that runs the thread, or ran it last.
    pub cpu: AtomicU32,
    /// The thread has user registers at its stack's top and returns to EL0.
    pub user: AtomicBool,
    /// Thread pointer of the program (TPIDR_EL0), valid while the thread does not run.
    pub tpidr_el0: AtomicU64,
    /// Callee-saved registers, valid while the thread does not run.
    pub ctx: UnsafeCell<Context>,
    /// User floating-point state.
    pub fp: FpState,
}

// SAFETY: `ctx` is touched only by the switch, which hands a thread from one CPU to the next
// under the run queue's lock; all else is atomic or (`fp`) has its own argument.
unsafe impl Sync for ThreadHead {}
// SAFETY: nothing in it belongs to a particular CPU or host thread.
unsafe impl Send for ThreadHead {}

impl ThreadHead {
    /// A head without a stack.
    pub const fn new() -> Self {
        Self {
            flags: AtomicU32::new(0),
            preempt_count: AtomicU32::new(0),
            stack_base: AtomicU64::new(0),
            stack_top: AtomicU64::new(0),
            cpu: AtomicU32::new(0),
            user: AtomicBool::new(false),
            tpidr_el0: AtomicU64::new(0),
            ctx: UnsafeCell::new(Context::new()),
            fp: FpState::new(),
        }
    }

    /// The work flags now.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Acquire)
    }

    /// Sets the flag; what the caller wrote before is visible to who sees the flag.
    pub fn set_flag(&self, flag: u32) {
        self.flags.fetch_or(flag, Ordering::Release);
    }

    /// Clears the flag.
    pub fn clear_flag(&self, flag: u32) {
        self.flags.fetch_and(!flag, Ordering::AcqRel);
    }

    /// Whether the flag is set.
    pub fn test_flag(&self, flag: u32) -> bool {
        self.flags() & flag != 0
    }

    /// Sets the program's thread pointer, of a thread that is current or does not run.
    pub fn set_tls(&self, value: u64) {
        self.tpidr_el0.store(value, Ordering::Relaxed);
        if core::ptr::eq(self, super::current()) {
            super::write_tls_register(value);
        }
    }

    /// The program's thread pointer, of a thread that is current or does not run.
    pub fn tls(&self) -> u64 {
        if core::ptr::eq(self, super::current()) && self.user.load(Ordering::Relaxed) {
            let live = super::read_tls_register();
            self.tpidr_el0.store(live, Ordering::Relaxed);
        }
        self.tpidr_el0.load(Ordering::Relaxed)
    }

    /// Says where the kernel stack is.
    pub fn set_stack(&self, base: u64, top: u64) {
        self.stack_base.store(base, Ordering::Relaxed);
        self.stack_top.store(top, Ordering::Relaxed);
    }
}

impl Default for ThreadHead {
    fn default() -> Self {
        Self::new()
    }
}

/// Sets the current thread's program's thread pointer.
pub fn set_tls(value: u64) {
    super::current().set_tls(value);
}
