#![allow(clippy::disallowed_types)] // a host crate: std's types are fine
//! The CPU's interface, simulated on the developer's machine: each host thread that asks is a CPU
//! of its own, with its own interrupt and preemption state, so that N CPUs run in one test process.
//!
//! Memory that the interface calls physical is an arena that the test provides
//! ([`sim::set_phys_arena`]); user memory is a registry of ranges per machine
//! ([`sim::map_user`]). A machine belongs to the thread that first asks, and to the CPUs and kernel
//! threads started from it.
//!
//! # Invariants that the unsafe code here relies on
//! 1. A `CpuId` below `MAX_CPUS` belongs to at most one running host thread at a time.
//! 2. Thread heads are leaked: a `&'static ThreadHead` never dangles.
//! 3. The arena that a test hands in stays allocated and is accessed by the rules of `frames`.

pub mod atomic;
pub mod backtrace;
pub mod boot;
pub mod cache;
pub mod clock;
pub mod cpu;
pub mod debug;
pub mod early_console;
#[path = "../common/early_dt.rs"]
pub mod early_dt;
#[cfg(test)]
#[allow(dead_code)] // tested here, used on the target
#[path = "../aarch64/early_map.rs"]
mod early_map;
pub mod features;
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
pub mod sim;
pub mod smp;
pub mod thread;
pub mod thread_switch;
pub mod user;
pub mod vdso;

pub use kernel_trait::*;

use std::sync::RwLock;

static KERNEL: RwLock<Option<&'static dyn Kernel>> = RwLock::new(None);

/// Registers what the rooms above give to the CPU. On the host the last one wins.
pub fn set_kernel(kernel: &'static dyn Kernel) {
    *KERNEL.write().unwrap_or_else(|e| e.into_inner()) = Some(kernel);
}

/// What was registered, or a stand-in that does nothing.
pub(crate) fn kernel() -> &'static dyn Kernel {
    KERNEL.read().unwrap_or_else(|e| e.into_inner()).unwrap_or(&NoKernel)
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
