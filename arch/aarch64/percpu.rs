//! What a CPU finds through TPIDR_EL1: its number, the current thread, its emergency stack.

use crate::thread::ThreadHead;
use abi::{CpuId, MAX_CPUS};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// One per CPU, on cache lines of its own.
#[repr(C, align(128))]
pub(crate) struct CpuBlock {
    pub(crate) id: AtomicU32,
    /// Thread that runs here; SP_EL0 has the same while the kernel runs.
    pub(crate) current: AtomicPtr<ThreadHead>,
    /// Stack for the report of a stack overflow.
    pub(crate) overflow_top: AtomicU64,
    /// Thread whose floating-point state is in the registers.
    pub(crate) fp_owner: AtomicPtr<ThreadHead>,
    pub(crate) mpidr: AtomicU64,
    /// The interrupt in progress came from EL0.
    pub(crate) from_user: AtomicBool,
}

impl CpuBlock {
    const fn new() -> Self {
        Self {
            id: AtomicU32::new(0),
            current: AtomicPtr::new(null_mut()),
            overflow_top: AtomicU64::new(0),
            fp_owner: AtomicPtr::new(null_mut()),
            mpidr: AtomicU64::new(0),
            from_user: AtomicBool::new(false),
        }
    }
}

pub(crate) static CPU_BLOCKS: [CpuBlock; MAX_CPUS] = [const { CpuBlock::new() }; MAX_CPUS];

#[repr(C, align(16))]
struct Stack(core::cell::UnsafeCell<[u8; 8192]>);

// SAFETY: only its address is taken; the overflow entry uses it as a stack, fatally.
unsafe impl Sync for Stack {}

/// The emergency stack of every CPU that was not given one: two CPUs that overflow at the same
/// moment garble each other's report.
static OVERFLOW_STACK: Stack = Stack(core::cell::UnsafeCell::new([0; 8192]));

/// Prepares the blocks, before any other CPU runs.
pub(crate) fn init() {
    let top = OVERFLOW_STACK.0.get() as u64 + 8192;
    for (i, block) in CPU_BLOCKS.iter().enumerate() {
        block.id.store(i as u32, Ordering::Relaxed);
        block.overflow_top.store(top, Ordering::Relaxed);
    }
}

/// The block of a CPU; `None` for a number out of range.
pub(crate) fn block_of(cpu: CpuId) -> Option<&'static CpuBlock> {
    CPU_BLOCKS.get(cpu.index())
}

/// Gives a CPU its own emergency stack (`top` exclusive, 16-aligned, at least 4 KiB below it).
pub fn set_overflow_stack(cpu: CpuId, top: abi::VirtAddr) {
    if let Some(block) = block_of(cpu) {
        block.overflow_top.store(top.0, Ordering::Relaxed);
    }
}

/// This CPU's block.
#[inline]
pub(crate) fn this() -> &'static CpuBlock {
    let p: *const CpuBlock;
    // SAFETY: reads a register that the boot code set to an element of CPU_BLOCKS; not `pure`,
    // because the thread may move to another CPU between two reads.
    unsafe {
        core::arch::asm!("mrs {}, tpidr_el1", out(reg) p, options(nomem, nostack, preserves_flags));
        &*p
    }
}

/// `cpu::id().index()`.
#[inline]
pub fn slot_index() -> usize {
    this().id.load(Ordering::Relaxed) as usize
}
