//! Bringing up further CPUs, by PSCI or through a spin table.
//!
//! One at a time: the boot CPU fills the slot and calls the CPU by its affinity; a CPU that arrives
//! at any other time waits in assembly until it is called, or for ever. A CPU that does not report
//! in time is left out.

use crate::percpu::{self, CpuBlock};
use crate::power;
use crate::thread::ThreadHead;
use crate::{cache, clock, cpu, features, fixmap, mmu};
use aarch64_cpu::asm::{barrier, sev, wfe};
use abi::{CpuId, PhysAddr, VirtAddr};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use smccc::{Hvc, Smc, psci};

#[path = "../common/smp_types.rs"]
mod smp_types;
pub use smp_types::*;

/// What a secondary finds when it is called. head.S knows the first four fields.
#[repr(C, align(128))]
pub(crate) struct SecondarySlot {
    /// Affinity of the CPU that is called.
    affinity: AtomicU64,
    stack_top: AtomicU64,
    head: AtomicU64,
    block: AtomicU64,
    entry: AtomicU64,
    /// What it answers.
    status: AtomicU32,
}

const NOBODY: u64 = u64::MAX;
const CALLED: u32 = 1;
const ARRIVED: u32 = 2;
const UNFIT: u32 = 3;

/// In .data: initialised before BSS is cleared.
pub(crate) static BOOT_SLOT: SecondarySlot = SecondarySlot {
    affinity: AtomicU64::new(NOBODY),
    stack_top: AtomicU64::new(0),
    head: AtomicU64::new(0),
    block: AtomicU64::new(0),
    entry: AtomicU64::new(0),
    status: AtomicU32::new(0),
};

unsafe extern "C" {
    fn secondary_entry();
}

/// Starts a CPU and waits until it has reported, five seconds at most. It runs on the stack that ends
/// at `idle_stack_top` as the thread `head`, waits until `features::finalise` is done, and calls
/// `entry` with interrupts and preemption off. For the boot CPU; may take long, does not sleep.
pub fn start(
    cpu: CpuId,
    mpidr: u64,
    method: EnableMethod,
    idle_stack_top: VirtAddr,
    head: &'static ThreadHead,
    entry: extern "C" fn(CpuId) -> !,
) -> Result<(), StartError> {
    let block: &'static CpuBlock = percpu::block_of(cpu).ok_or(StartError::Invalid)?;
    let affinity = mpidr & cpu::AFFINITY;
    let slot = &BOOT_SLOT;
    head.preempt_count.store(1, Ordering::Relaxed);
    head.cpu.store(cpu.0, Ordering::Relaxed);
    slot.stack_top.store(idle_stack_top.0, Ordering::Relaxed);
    slot.head.store(core::ptr::from_ref(head) as u64, Ordering::Relaxed);
    slot.block.store(core::ptr::from_ref(block) as u64, Ordering::Relaxed);
    slot.entry.store(entry as usize as u64, Ordering::Relaxed);
    slot.status.store(CALLED, Ordering::Relaxed);
    // Pairs with LDAR in head.S: who sees its affinity sees the rest.
    slot.affinity.store(affinity, Ordering::Release);
    wake();

    let outcome = kick(affinity, method).and_then(|()| wait_for_report());
    slot.affinity.store(NOBODY, Ordering::Release);
    outcome
}

/// Physical address at which a CPU enters the kernel.
fn entry_address() -> PhysAddr {
    mmu::virt_to_phys(VirtAddr(secondary_entry as *const () as u64))
}

fn kick(affinity: u64, method: EnableMethod) -> Result<(), StartError> {
    let entry = entry_address();
    match method {
        EnableMethod::Psci { hvc } => {
            let result = if hvc {
                psci::cpu_on::<Hvc>(affinity, entry.0, 0)
            } else {
                psci::cpu_on::<Smc>(affinity, entry.0, 0)
            };
            result.map_err(|e| StartError::Refused(i64::from(e) as i32))
        }
        EnableMethod::SpinTable { release } => {
            if !release.is_aligned(8) || release.0 >= 1 << 48 {
                return Err(StartError::Invalid);
            }
            // The CPU reads the word with its caches off: clean to PoC (booting.rst).
            fixmap::with_window(release, |window| {
                // SAFETY: an aligned word that the firmware set aside for this.
                unsafe { (*(window.0 as *const AtomicU64)).store(entry.0, Ordering::Release) };
                cache::clean_to_poc(window, 8);
            });
            wake();
            Ok(())
        }
    }
}

/// Wakes CPUs that wait for an event.
fn wake() {
    barrier::dsb(barrier::SY); // what was written is visible first
    sev();
}

fn wait_for_report() -> Result<(), StartError> {
    let limit = clock::counter().saturating_add(clock::frequency().saturating_mul(5));
    loop {
        match BOOT_SLOT.status.load(Ordering::Acquire) {
            ARRIVED => return Ok(()),
            UNFIT => return Err(StartError::Unfit),
            _ if clock::counter() > limit => return Err(StartError::TimedOut),
            _ => cpu::relax(),
        }
    }
}

/// A secondary's first Rust: on its stack, at the final address.
#[unsafe(no_mangle)]
extern "C" fn linnet_secondary_cpu() -> ! {
    let id = cpu::id();
    let entry = BOOT_SLOT.entry.load(Ordering::Relaxed);
    if !features::join_secondary() {
        BOOT_SLOT.status.store(UNFIT, Ordering::Release);
        power::halt();
    }
    cpu::set_online(id);
    BOOT_SLOT.status.store(ARRIVED, Ordering::Release);
    while !features::is_final() {
        wfe(); // for the event that `finalise` sends
    }
    // SAFETY: forgets what was fetched before the alternatives were patched; unmasks SError.
    unsafe { core::arch::asm!("isb", "msr daifclr, #4", options(nostack, preserves_flags)) };
    // SAFETY: `start` stored a function of this type.
    let entry = unsafe { core::mem::transmute::<usize, extern "C" fn(CpuId) -> !>(entry as usize) };
    entry(id)
}

/// What the firmware's method says about starting CPUs.
pub fn psci_method() -> Option<EnableMethod> {
    match power::method() {
        power::Method::Hvc => Some(EnableMethod::Psci { hvc: true }),
        power::Method::Smc => Some(EnableMethod::Psci { hvc: false }),
        power::Method::None => None,
    }
}
