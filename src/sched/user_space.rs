//! Which address space a CPU uses while a thread runs.
//!
//! Only the thread itself and the switch that brings it in or out touch its slot, never two at
//! once. While a thread without address space runs, the CPU has the empty table: so no address
//! space is kept alive by a CPU, and ASIDs make the way back cheap.

use crate::{Core, thread::UserSpace};
use abi::CpuId;
use kalloc::KArc;
use sched_switch::ExclusiveCell;
use sync::atomic::{AtomicUsize, Ordering};

/// A thread's address space.
pub(crate) struct SpaceSlot {
    space: ExclusiveCell<Option<KArc<dyn UserSpace>>>,
    /// Its address, or zero: tells whether two threads share one.
    identity: AtomicUsize,
}

fn identity(space: &Option<KArc<dyn UserSpace>>) -> usize {
    space.as_ref().map_or(0, |s| KArc::as_ptr(s).addr())
}

impl SpaceSlot {
    pub(crate) fn new(space: Option<KArc<dyn UserSpace>>) -> Self {
        Self { identity: AtomicUsize::new(identity(&space)), space: ExclusiveCell::new(space) }
    }

    fn with(&self, f: impl FnOnce(&dyn UserSpace)) {
        if let Some(space) = self.space.try_take()
            && let Some(space) = &*space
        {
            f(&**space);
        }
    }

    /// Sets the slot of the current thread and switches to the new space; interrupts are off.
    pub(crate) fn replace_active(&self, cpu: CpuId, new: Option<KArc<dyn UserSpace>>) -> Option<KArc<dyn UserSpace>> {
        let mut slot = self.space.try_take()?;
        if let Some(old) = &*slot {
            old.deactivate(cpu);
        }
        match &new {
            Some(new) => new.activate(cpu),
            None if slot.is_some() => arch::mmu::set_empty_user_table(),
            None => {}
        }
        self.identity.store(identity(&new), Ordering::Relaxed);
        core::mem::replace(&mut *slot, new)
    }
}

/// The part of a switch between threads that concerns user memory; interrupts are off.
#[inline]
pub(crate) fn switch(cpu: CpuId, prev: &Core, next: &Core) {
    let (from, to) = (prev.space.identity.load(Ordering::Relaxed), next.space.identity.load(Ordering::Relaxed));
    if from == to {
        return;
    }
    if from != 0 {
        prev.space.with(|s| s.deactivate(cpu));
    }
    if to != 0 {
        next.space.with(|s| s.activate(cpu));
    } else {
        arch::mmu::set_empty_user_table();
    }
}
