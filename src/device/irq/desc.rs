//! One interrupt: its handlers, whether it is let through, how often it came.

use super::{Handled, HwIrq, Irq, IrqChip, IrqHandler, Trigger, desc, stats};
use abi::{CpuId, CpuMask, Errno, MAX_CPUS, Result};
use kalloc::{KArc, KVec, RcuArc};
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    rcu,
};

static IRQ: LockClass = LockClass::new("irq_desc", 1450);

/// So many in a row that no handler claims, and the interrupt is switched off.
pub(super) const UNHANDLED_LIMIT: u32 = 10_000;

pub(super) struct Action {
    pub(super) name: &'static str,
    handler: KArc<dyn IrqHandler>,
}

pub(super) struct Desc {
    pub(super) irq: Irq,
    pub(super) hw: HwIrq,
    pub(super) chip: KArc<dyn IrqChip>,
    pub(super) percpu: bool,
    pub(super) actions: RcuArc<KVec<Action>>,
    config: SpinLock<Config>,
    /// How often it came, by CPU; for those that each CPU has, see `stats`.
    counts: [AtomicU64; MAX_CPUS],
    /// In a row, without a handler that claimed it.
    unhandled: AtomicU32,
}

struct Config {
    trigger: Trigger,
    /// Whether the trigger was told to the controller.
    applied: bool,
    /// How often it was disabled; let through at 0, if there is a handler.
    disabled: u32,
}

impl Desc {
    pub(super) fn new(irq: Irq, hw: HwIrq, trigger: Trigger, chip: KArc<dyn IrqChip>) -> Self {
        Self {
            irq,
            hw,
            percpu: chip.is_percpu(hw),
            chip,
            actions: RcuArc::new(None),
            config: SpinLock::new(Config { trigger, applied: false, disabled: 0 }, &IRQ),
            counts: [const { AtomicU64::new(0) }; MAX_CPUS],
            unhandled: AtomicU32::new(0),
        }
    }

    /// EBUSY when another device on the line asked for the other kind.
    pub(super) fn set_trigger(&self, trigger: Trigger) -> Result {
        let mut config = self.config.lock_irq();
        if config.applied {
            return if config.trigger == trigger { Ok(()) } else { Err(Errno::EBUSY) };
        }
        self.chip.set_type(self.hw, trigger)?;
        *config = Config { trigger, applied: true, disabled: config.disabled };
        Ok(())
    }

    pub(super) fn trigger(&self) -> Trigger {
        self.config.lock_irq().trigger
    }

    pub(super) fn count(&self, cpu: CpuId) -> u64 {
        if self.percpu {
            return stats::percpu_count(self.hw, cpu);
        }
        self.counts.get(cpu.index()).map_or(0, |c| c.load(Relaxed))
    }

    /// Calls the handlers. Hard interrupt context.
    pub(super) fn dispatch(&self) {
        let guard = rcu::read_lock();
        if self.percpu {
            stats::count_percpu(self.hw);
        } else if let Some(count) = self.counts.get(arch::cpu::id().index()) {
            count.fetch_add(1, Relaxed);
        }
        let Some(actions) = self.actions.load(&guard) else {
            // Came between being raised and being masked.
            stats::count_spurious();
            self.chip.mask(self.hw);
            return;
        };
        let mut handled = Handled::No;
        for action in actions.iter() {
            if action.handler.handle() == Handled::Yes {
                handled = Handled::Yes;
            }
        }
        match handled {
            Handled::Yes => {
                if self.unhandled.load(Relaxed) != 0 {
                    self.unhandled.store(0, Relaxed);
                }
            }
            Handled::No => self.nobody_cared(),
        }
    }

    fn nobody_cared(&self) {
        stats::count_spurious();
        if self.unhandled.fetch_add(1, Relaxed) + 1 == UNHANDLED_LIMIT {
            log::error!("irq {}: no handler claims it; switched off", self.irq.0);
            self.config.lock_irq().disabled += 1;
            self.chip.mask(self.hw);
        }
    }

    /// A per-CPU interrupt that is in use is let through on a CPU that just came up.
    pub(super) fn unmask_on_new_cpu(&self) {
        if self.percpu && !self.actions.is_none() && self.config.lock_irq().disabled == 0 {
            self.chip.unmask(self.hw);
        }
    }

    fn add(&self, action: Action) -> Result {
        let old = self.actions.get();
        let mut new = KVec::try_with_capacity(1 + old.as_ref().map_or(0, |o| o.len()))?;
        if let Some(old) = &old {
            for a in old.iter() {
                new.try_push(Action { name: a.name, handler: a.handler.clone() })?;
            }
        }
        new.try_push(action)?;
        let new = KArc::try_new(new)?;
        let config = self.config.lock_irq();
        self.actions.store(Some(new));
        if old.is_none() && config.disabled == 0 {
            self.chip.unmask(self.hw);
        }
        Ok(())
    }
}

/// Serialises changes of handler lists; taken before any descriptor's lock. May be held while
/// allocating, which does not sleep here.
static CHANGES: SpinLock<()> = SpinLock::new((), &CHANGES_CLASS);
static CHANGES_CLASS: LockClass = LockClass::new("irq_actions", 1440);

/// Adds a handler to an interrupt and lets it through. Several devices may share a line.
/// EINVAL for an interrupt that was not mapped or that each CPU has its own of, ENOMEM.
pub fn request(irq: Irq, name: &'static str, handler: KArc<dyn IrqHandler>) -> Result {
    let desc = desc(irq)?;
    if desc.percpu {
        return Err(Errno::EINVAL);
    }
    let _changes = CHANGES.lock();
    desc.add(Action { name, handler })
}

/// Sets the handler of an interrupt that each CPU has its own of, and lets it through on this CPU
/// and on every CPU that comes up later. EINVAL if it is not of that kind, EBUSY if it has one.
pub fn request_percpu(irq: Irq, name: &'static str, handler: KArc<dyn IrqHandler>) -> Result {
    let desc = desc(irq)?;
    if !desc.percpu {
        return Err(Errno::EINVAL);
    }
    let _changes = CHANGES.lock();
    if !desc.actions.is_none() {
        return Err(Errno::EBUSY);
    }
    desc.add(Action { name, handler })
}

/// Takes a handler away; without one left the interrupt is held back. The handler may still be
/// running until a grace period of RCU has passed. EINVAL if it is not there.
pub fn free(irq: Irq, handler: &KArc<dyn IrqHandler>) -> Result {
    let desc = desc(irq)?;
    let _changes = CHANGES.lock();
    let old = desc.actions.get().ok_or(Errno::EINVAL)?;
    let at = old.iter().position(|a| KArc::ptr_eq(&a.handler, handler)).ok_or(Errno::EINVAL)?;
    let mut new = KVec::try_with_capacity(old.len())?;
    for (_, a) in old.iter().enumerate().filter(|(i, _)| *i != at) {
        new.try_push(Action { name: a.name, handler: a.handler.clone() })?;
    }
    if new.is_empty() {
        let _config = desc.config.lock_irq();
        desc.chip.mask(desc.hw);
        desc.actions.store(None);
    } else {
        desc.actions.store(Some(KArc::try_new(new)?));
    }
    Ok(())
}

/// Holds an interrupt back until [`enable`] was called as often. A handler may still be running.
pub fn disable(irq: Irq) -> Result {
    let desc = desc(irq)?;
    let mut config = desc.config.lock_irq();
    config.disabled = config.disabled.checked_add(1).ok_or(Errno::EINVAL)?;
    if config.disabled == 1 {
        desc.chip.mask(desc.hw);
    }
    Ok(())
}

/// Undoes one [`disable`]. EINVAL without one.
pub fn enable(irq: Irq) -> Result {
    let desc = desc(irq)?;
    let mut config = desc.config.lock_irq();
    config.disabled = config.disabled.checked_sub(1).ok_or(Errno::EINVAL)?;
    if config.disabled == 0 && !desc.actions.is_none() {
        desc.unhandled.store(0, Relaxed);
        desc.chip.unmask(desc.hw);
    }
    Ok(())
}

/// Sends an interrupt to one of those CPUs from now on.
pub fn set_affinity(irq: Irq, cpus: CpuMask) -> Result {
    let desc = desc(irq)?;
    if desc.percpu {
        return Err(Errno::EINVAL);
    }
    let _config = desc.config.lock_irq();
    desc.chip.set_affinity(desc.hw, cpus)
}
