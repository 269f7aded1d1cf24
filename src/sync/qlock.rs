//! How CPUs take turns: a queued lock of four bytes.
//!
//! Waiters stand in a queue (MCS) and each spins on a word in its own cache line, so a hand-over
//! moves one line instead of storming all of them. The lock itself is a byte that the holder sets
//! and a tail that names the last waiter; the two are never accessed as one word. Only the front
//! of the queue competes for the byte, with newcomers, who try it a bounded number of times before
//! they queue: strict order would make all wait for a virtual CPU that does not run.
//!
//! Nodes belong to CPUs, not to locks: a CPU waits in at most one lock per context (thread,
//! interrupt, abort), so four per CPU are enough; if they ever are not, the waiter spins on the
//! byte without a queue.
//!
//! Invariants:
//! - whoever changed `locked` from 0 to 1 owns the lock until it stores 0;
//! - a node is in at most one queue, from the swap of `tail` until its owner left the queue;
//! - preemption is off from before the first access until the release.

use crate::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering, spin_loop};
#[cfg(not(loom))]
use abi::MAX_CPUS;

/// Contexts of one CPU that can wait for a lock at the same time.
const LEVELS: usize = 4;

/// How often a newcomer tries the byte before it stands in the queue. A waiter at the front may be
/// a virtual CPU that its host does not run at the moment; then those that run pass it instead of
/// waiting for it. Models choose a smaller number, and run without as well.
#[cfg(not(loom))]
const TRIES: u32 = 64;

/// A waiter's place in a queue.
struct Node {
    /// Ticket of the waiter behind, 0 while there is none.
    next: AtomicU16,
    /// 1 once the waiter in front left: this one is the front.
    front: AtomicU8,
}

/// The nodes of one CPU, in cache lines of their own.
#[repr(align(64))]
struct CpuNodes {
    /// How many nodes are in use; only this CPU writes it, interrupts restore what they found.
    used: AtomicU32,
    nodes: [Node; LEVELS],
}

/// The queue nodes of all CPUs.
pub struct NodePool<const CPUS: usize> {
    cpus: [CpuNodes; CPUS],
}

impl<const CPUS: usize> NodePool<CPUS> {
    pub const fn new() -> Self {
        Self {
            cpus: [const {
                CpuNodes {
                    used: AtomicU32::new(0),
                    nodes: [const { Node { next: AtomicU16::new(0), front: AtomicU8::new(0) } }; LEVELS],
                }
            }; CPUS],
        }
    }

    /// Makes the atomics of these CPUs in a model, before its threads share them.
    #[cfg(loom)]
    pub fn touch(&self) {
        for cpu in &self.cpus {
            cpu.used.load(Ordering::Relaxed);
            for node in &cpu.nodes {
                node.next.load(Ordering::Relaxed);
                node.front.load(Ordering::Relaxed);
            }
        }
    }

    /// The node behind a ticket: `cpu * LEVELS + level + 1`.
    fn node(&self, ticket: u16) -> Option<&Node> {
        let n = usize::from(ticket.checked_sub(1)?);
        self.cpus.get(n / LEVELS)?.nodes.get(n % LEVELS)
    }
}

/// The nodes that the kernel's locks use.
#[cfg(not(loom))]
static NODES: NodePool<MAX_CPUS> = NodePool::new();

/// The lock without data, guards or preemption.
pub struct QueueLock {
    locked: AtomicU8,
    tail: AtomicU16,
}

impl QueueLock {
    pub const fn new() -> Self {
        Self { locked: AtomicU8::new(0), tail: AtomicU16::new(0) }
    }

    /// Takes the lock if it is free and nobody waits.
    #[inline]
    pub fn try_lock(&self) -> bool {
        self.tail.load(Ordering::Relaxed) == 0 && self.try_byte()
    }

    /// Takes the lock as the CPU with this index, after `tries` attempts to pass the queue.
    #[inline]
    pub fn lock<const CPUS: usize>(&self, pool: &NodePool<CPUS>, tries: u32, cpu: impl FnOnce() -> usize) {
        if !self.try_lock() {
            self.lock_slow(pool, tries, cpu());
        }
    }

    /// Takes one of the kernel's locks as this CPU.
    #[cfg(not(loom))]
    #[inline]
    pub fn lock_here(&self) {
        self.lock(&NODES, TRIES, || arch::cpu::id().index());
    }

    /// In a model the threads are no CPUs with nodes of their own: they compete for the byte. The
    /// queue has its own model.
    #[cfg(loom)]
    pub fn lock_here(&self) {
        self.spin_for_byte();
    }

    /// Gives the lock back.
    #[inline]
    pub fn unlock(&self) {
        // Pairs with the Acquire in `try_byte` of the next holder.
        self.locked.store(0, Ordering::Release);
    }

    /// Whether somebody holds the lock: a hint.
    pub fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed) != 0
    }

    #[inline]
    fn try_byte(&self) -> bool {
        self.locked.load(Ordering::Relaxed) == 0
            && self.locked.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The same where other CPUs want the byte, too: an exchange cannot fail but by finding it taken.
    #[cfg(not(loom))]
    fn try_wanted_byte(&self) -> bool {
        self.locked.load(Ordering::Relaxed) == 0 && arch::atomic::swap_u8(&self.locked, 1) == 0
    }
    #[cfg(loom)]
    fn try_wanted_byte(&self) -> bool {
        self.locked.load(Ordering::Relaxed) == 0 && self.locked.swap(1, Ordering::AcqRel) == 0
    }

    /// Makes the ticket the last of the queue; the one that was.
    fn join(&self, ticket: u16) -> u16 {
        // Release: the reset of the ticket's node is visible to whoever finds it (Acquire here).
        #[cfg(not(loom))]
        return arch::atomic::swap_u16(&self.tail, ticket);
        #[cfg(loom)]
        return self.tail.swap(ticket, Ordering::AcqRel);
    }

    /// Spins on the lock byte: at the front of the queue, or without a queue.
    fn spin_for_byte(&self) {
        while !self.try_wanted_byte() {
            while self.locked.load(Ordering::Relaxed) != 0 {
                spin_loop();
            }
        }
    }

    #[cold]
    fn lock_slow<const CPUS: usize>(&self, pool: &NodePool<CPUS>, tries: u32, cpu: usize) {
        for _ in 0..tries {
            if self.try_wanted_byte() {
                return;
            }
            spin_loop();
        }
        let Some(mine) = pool.cpus.get(cpu) else { return self.spin_for_byte() };
        let level = mine.used.load(Ordering::Relaxed);
        let Some(node) = mine.nodes.get(level as usize) else { return self.spin_for_byte() };
        // MAX_CPUS * LEVELS is far below 2^16.
        let ticket = (cpu * LEVELS + level as usize + 1) as u16;
        mine.used.store(level + 1, Ordering::Relaxed);
        node.next.store(0, Ordering::Relaxed);
        node.front.store(0, Ordering::Relaxed);

        let previous = self.join(ticket);
        if let Some(ahead) = pool.node(previous) {
            // Pairs with the load of `next` by the waiter ahead.
            ahead.next.store(ticket, Ordering::Release);
            while node.front.load(Ordering::Acquire) == 0 {
                spin_loop();
            }
        }

        self.spin_for_byte();

        // Leave the queue: either it becomes empty, or the waiter behind becomes its front.
        if self.tail.compare_exchange(ticket, 0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            let behind = loop {
                let next = node.next.load(Ordering::Acquire);
                if next != 0 {
                    break next;
                }
                spin_loop();
            };
            if let Some(behind) = pool.node(behind) {
                behind.front.store(1, Ordering::Release);
            }
        }
        mine.used.store(level, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_tail_names_the_last_waiters_cpu_and_level_and_each_waiter_gets_its_turn() {
        let lock = QueueLock::new();
        let pool = NodePool::<3>::new();
        let wait_as = |cpu: usize| {
            lock.lock(&pool, 0, || cpu);
            lock.unlock();
        };
        // The tail after it was `before`.
        let tail_after = |before| loop {
            let found = lock.tail.load(Ordering::Relaxed);
            if found != before {
                return usize::from(found);
            }
            std::thread::yield_now();
        };
        let ticket = |cpu, level| cpu * LEVELS + level + 1;
        // Both CPUs wait in outer locks already, as those that were interrupted there.
        pool.cpus[1].used.store(1, Ordering::Relaxed);
        pool.cpus[2].used.store(3, Ordering::Relaxed);
        assert!(lock.try_lock());
        std::thread::scope(|scope| {
            scope.spawn(|| wait_as(1));
            let first = tail_after(0);
            // Nobody waits behind a ticket that is wrong: it would be for ever.
            let second = (first == ticket(1, 1)).then(|| {
                scope.spawn(|| wait_as(2));
                tail_after(first as u16)
            });
            lock.unlock();
            assert_eq!((first, second), (ticket(1, 1), Some(ticket(2, 3))));
        });
        assert!(!lock.is_locked());
        assert_eq!(lock.tail.load(Ordering::Relaxed), 0);
        // The nodes of the outer locks are still in use, and no others.
        assert_eq!(pool.cpus[1].used.load(Ordering::Relaxed), 1);
        assert_eq!(pool.cpus[2].used.load(Ordering::Relaxed), 3);
    }
}
