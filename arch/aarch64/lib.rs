#![no_std]
//! What knows the CPU: AArch64 at EL1, 4 KiB pages, 48-bit addresses.
//!
//! Answers for the way from the boot loader to `linnet_main`, exceptions, the thread switch, user copies,
//! the memcpy family, translation registers and TLB, cache maintenance, CPU features, starting CPUs and
//! stopping the machine. It allocates nothing and knows no device but the early console.
//!
//! # Invariants that the unsafe code here relies on
//! 1. In the kernel SP_EL0 points to the `ThreadHead` of the current thread, TPIDR_EL1 to the CPU's
//!    `CpuBlock`; both live for ever or as long as the thread runs.
//! 2. SP_EL1 is the top of the current thread's kernel stack whenever EL0 runs.
//! 3. The kernel root table and all tables that the boot built stay where they are.
//! 4. Only `fp.S` touches floating-point registers at EL1 (the target is soft-float).
//! 5. User addresses are dereferenced only by the instructions listed in `__ex_table`.
//! 6. Text and constants are never written after boot but through `fixmap::with_window`.
//!
//! Which rule of the hardware is kept where: docs/hardware-rules.md.

mod alternatives;
pub mod atomic;
pub mod backtrace;
pub mod boot;
pub mod cache;
pub mod clock;
pub mod cpu;
pub mod debug;
pub mod early_console;
#[path = "../common/early_dt.rs"]
mod early_dt;
mod early_map;
mod exception;
pub mod features;
mod fixmap;
pub mod fp;
pub mod irq;
#[path = "../common/kernel.rs"]
mod kernel_trait;
#[path = "../common/layout.rs"]
pub mod layout;
pub mod mem;
pub mod mmu;
pub mod panic;
pub mod percpu;
pub mod power;
#[path = "../common/preempt.rs"]
pub mod preempt;
mod regs;
pub mod smp;
pub mod thread;
pub mod thread_switch;
pub mod user;
pub mod vdso;

pub use kernel_trait::*;

use core::cell::UnsafeCell;

struct KernelCell(UnsafeCell<&'static dyn Kernel>);

// SAFETY: written only by `set_kernel`, before other CPUs run and before interrupts are on.
unsafe impl Sync for KernelCell {}

static KERNEL: KernelCell = KernelCell(UnsafeCell::new(&NoKernel));

/// Registers what the rooms above give to the CPU: once, by the boot CPU, before interrupts are on and
/// before other CPUs are started.
pub fn set_kernel(kernel: &'static dyn Kernel) {
    // SAFETY: see `KernelCell`.
    unsafe { *KERNEL.0.get() = kernel };
}

#[inline]
pub(crate) fn kernel() -> &'static dyn Kernel {
    // SAFETY: see `KernelCell`.
    unsafe { *KERNEL.0.get() }
}

/// Stands in until the rooms above have registered.
struct NoKernel;

impl Kernel for NoKernel {
    fn syscall(&self, _: &mut UserRegs) {}
    fn user_fault(&self, _: &mut UserRegs, _: PageFault) {}
    fn kernel_user_copy_fault(&self, _: PageFault) -> bool {
        false
    }
    fn user_exception(&self, _: &mut UserRegs, _: UserException) {}
    fn interrupt(&self) {}
    fn exit_work(&self, _: &mut UserRegs, _: u32) {}
    fn preempt_schedule(&self) {}
}
