//! What a CPU finds through TPIDR_EL1: its number, the current thread, its interrupt and emergency
//! stacks, where system calls start on the thread's.

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
    /// Stack of interrupts that come in the kernel; 0 until there is one.
    pub(crate) irq_top: AtomicU64,
    /// State of the generator that moves the frames of system calls; 0 while they are not moved.
    pub(crate) stack_seed: AtomicU64,
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
            irq_top: AtomicU64::new(0),
            stack_seed: AtomicU64::new(0),
            fp_owner: AtomicPtr::new(null_mut()),
            mpidr: AtomicU64::new(0),
            from_user: AtomicBool::new(false),
        }
    }
}

impl CpuBlock {
    /// Mixes the time of an interrupt into the generator of stack offsets. Only the block's own CPU
    /// calls it, with interrupts off; a system call that is at its own step loses one of the two.
    #[inline]
    pub(crate) fn stir(&self) {
        let seed = self.stack_seed.load(Ordering::Relaxed);
        if seed != 0 {
            let next = seed.rotate_left(29) ^ crate::clock::raw_counter();
            self.stack_seed.store(if next == 0 { seed } else { next }, Ordering::Relaxed);
        }
    }
}

pub(crate) static CPU_BLOCKS: [CpuBlock; MAX_CPUS] = [const { CpuBlock::new() }; MAX_CPUS];

/// Bytes of an interrupt stack, which is a kernel stack like those of threads.
pub(crate) const IRQ_STACK_SIZE: u64 = 16 << 10;

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

/// Gives a CPU a stack for interrupts that come while it runs kernel code (as for
/// [`set_overflow_stack`], and aligned so that bit 14 of no address in it is set).
pub fn set_irq_stack(cpu: CpuId, top: abi::VirtAddr) {
    if let Some(block) = block_of(cpu) {
        block.irq_top.store(top.0, Ordering::Relaxed);
    }
}

/// Lets the frames of system calls on this CPU start at a random distance from the stack's top, or
/// (with zero) always at the same. `seed` is from the random number generator.
pub fn set_stack_seed(cpu: CpuId, seed: u64) {
    if let Some(block) = block_of(cpu) {
        block.stack_seed.store(seed, Ordering::Relaxed);
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
