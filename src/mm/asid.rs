//! ASIDs: which address-space number a space has on the CPUs, and when numbers are recycled.
//!
//! A space's context is `generation | asid`. A context of the current generation may be used at
//! once; anything older gets a new number under the lock. When the numbers run out a new
//! generation begins: every CPU's running context keeps its number (those CPUs go on using it
//! without a switch), all others are free again, and each CPU drops its TLB before it next runs
//! a space of the new generation. (Arm ARM D8.16.1 on ASIDs; the scheme is the usual one.)
//!
//! Barrier pairs: a switch publishes its context in `active` by compare-exchange; a rollover takes
//! it out by swap with zero. So either the switch happened before the rollover, which then sees
//! and keeps its number, or the switch finds zero and takes the slow path.
//!
//! Whoever changed a page-table entry asks for the number to flush behind a full barrier (`asid`),
//! and a CPU that gives a space a number executes a DSB before it walks the tables under it. So
//! either the flush is for the new number, or the walks see the entry as it was changed.
//!
//! Context: called by the context switch with interrupts off.

use abi::{CpuId, MAX_CPUS};
use arch::mmu;
use sync::{SpinLock, atomic::{AtomicU64, Ordering, fence}};

use crate::locks;

/// Number 0 is for the empty table.
const FIRST: u64 = 1;
const MAX_WORDS: usize = (1 << 16) / 64;

struct State {
    /// Numbers taken in this generation.
    used: [u64; MAX_WORDS],
    next: u64,
    /// What each CPU ran when the last generation ended.
    reserved: [u64; MAX_CPUS],
    /// CPUs that must still drop their TLB.
    flush: u64,
}

/// The allocator of all spaces.
struct Asids {
    generation: AtomicU64,
    active: [AtomicU64; MAX_CPUS],
    state: SpinLock<State>,
}

static ASIDS: Asids = Asids {
    // 0 is "never had a context".
    generation: AtomicU64::new(1 << 16),
    active: [const { AtomicU64::new(0) }; MAX_CPUS],
    state: SpinLock::new(
        State { used: [0; MAX_WORDS], next: FIRST, reserved: [0; MAX_CPUS], flush: 0 },
        &locks::ASID,
    ),
};

/// A space's context word.
pub(crate) struct Context(AtomicU64);

impl Context {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The number under which CPUs may hold translations of the space; `None` if it never ran. To be
    /// asked behind the change of an entry: a CPU that takes another number later sees the change.
    pub(crate) fn asid(&self) -> Option<u16> {
        // Pairs with the DSB in `activate`.
        fence(Ordering::SeqCst);
        let context = self.0.load(Ordering::Acquire);
        (context != 0).then_some(context as u16)
    }

    /// The number to switch to on `cpu` (this CPU; interrupts are off).
    pub(crate) fn activate(&self, cpu: CpuId) -> u16 {
        let Some(active) = ASIDS.active.get(cpu.index()) else { return 0 };
        let context = self.0.load(Ordering::Acquire);
        let before = active.load(Ordering::Relaxed);
        if before != 0
            && current(context)
            && active.compare_exchange(before, context, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            return context as u16;
        }
        let mut state = ASIDS.state.lock_irq();
        let mut context = self.0.load(Ordering::Acquire);
        if !current(context) {
            context = state.assign(context);
            self.0.store(context, Ordering::Release);
            // DSB: the number is seen before this CPU walks the tables under it. Pairs with the
            // fence in `asid`.
            mmu::make_table_visible();
        }
        let bit = 1u64 << (cpu.index() & 63);
        if state.flush & bit != 0 {
            state.flush &= !bit;
            mmu::tlb_flush_all();
        }
        active.store(context, Ordering::Release);
        context as u16
    }
}

fn bits() -> u32 {
    mmu::asid_bits().clamp(8, 16)
}

/// Generations count in units above the widest number.
const GENERATION: u64 = 1 << 16;

fn current(context: u64) -> bool {
    context & !(GENERATION - 1) == ASIDS.generation.load(Ordering::Acquire)
}

impl State {
    fn take(&mut self, asid: u64) -> bool {
        let Some(word) = self.used.get_mut((asid / 64) as usize) else { return false };
        let bit = 1u64 << (asid % 64);
        let free = *word & bit == 0;
        *word |= bit;
        free
    }

    /// A context of the current generation for a space whose old one is `old`.
    fn assign(&mut self, old: u64) -> u64 {
        let mut generation = ASIDS.generation.load(Ordering::Acquire);
        if old != 0 {
            let asid = old & (GENERATION - 1);
            let renewed = generation | asid;
            // Running somewhere when the generation ended: that CPU goes on with the number.
            let mut kept = false;
            for reserved in self.reserved.iter_mut().filter(|r| **r == old) {
                *reserved = renewed;
                kept = true;
            }
            if kept {
                return renewed;
            }
            // Its old number may be free still.
            if self.take(asid) {
                return renewed;
            }
        }
        if let Some(asid) = self.find() {
            return generation | asid;
        }
        generation = self.roll_over();
        // 8 bits are 255 numbers, and at most MAX_CPUS of them are kept.
        generation | self.find().unwrap_or(FIRST)
    }

    fn find(&mut self) -> Option<u64> {
        let end = 1u64 << bits();
        for asid in (self.next..end).chain(FIRST..self.next) {
            if self.take(asid) {
                self.next = if asid + 1 < end { asid + 1 } else { FIRST };
                return Some(asid);
            }
        }
        None
    }

    /// Begins a new generation.
    fn roll_over(&mut self) -> u64 {
        let generation = ASIDS.generation.fetch_add(GENERATION, Ordering::AcqRel).wrapping_add(GENERATION);
        self.used = [0; MAX_WORDS];
        for cpu in 0..MAX_CPUS {
            let Some(active) = ASIDS.active.get(cpu) else { continue };
            let running = active.swap(0, Ordering::AcqRel);
            // A CPU that has not switched since the last rollover still runs what it ran then.
            let Some(kept) = self.reserved.get_mut(cpu) else { continue };
            if running != 0 {
                *kept = running;
            }
            let asid = *kept & (GENERATION - 1);
            if asid != 0 {
                self.take(asid);
            }
        }
        self.flush = u64::MAX;
        generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_that_runs_keeps_its_number_over_a_rollover() {
        let cpu = arch::cpu::id();
        let flags = arch::irq::save_and_disable();
        let running = Context::new();
        let asid = running.activate(cpu);
        assert_ne!(asid, 0);
        let generation = ASIDS.generation.load(Ordering::Acquire);
        // Other spaces take all numbers, on a CPU that no test runs on.
        let other = CpuId(MAX_CPUS as u32 - 1);
        for _ in 0..(1u32 << bits()) + 1 {
            assert_ne!(Context::new().activate(other), 0);
        }
        assert!(ASIDS.generation.load(Ordering::Acquire) > generation);
        assert_eq!(running.activate(cpu), asid);
        // ... and nobody else gets it in the new generation.
        for _ in 0..1000 {
            assert_ne!(Context::new().activate(other), asid);
        }
        arch::irq::restore(flags);
    }

    #[test]
    fn two_spaces_of_one_generation_have_different_numbers() {
        let (a, b) = (Context::new(), Context::new());
        let cpu = arch::cpu::id();
        let flags = arch::irq::save_and_disable();
        assert_ne!(a.activate(cpu), b.activate(cpu));
        assert_eq!(a.asid(), Some(a.activate(cpu)));
        arch::irq::restore(flags);
    }
}
