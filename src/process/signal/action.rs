//! What a process does with each signal (`sigaction(2)`): a table that threads share, and that
//! processes share which were cloned with CLONE_SIGHAND.

use super::set::{DefaultAction, SigSet, Signal};
use abi::{NSIG, Result, raw::general as g};
use kalloc::KArc;
use sync::{LockClass, SpinLock};

static ACTIONS: LockClass = LockClass::new("process.actions", 1020);

/// The action for one signal, as the program states it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Action {
    /// SIG_DFL (0), SIG_IGN (1), or the handler's address.
    pub handler: u64,
    pub flags: u64,
    pub restorer: u64,
    pub mask: SigSet,
}

pub const SIG_DFL: u64 = 0;
pub const SIG_IGN: u64 = 1;

impl Action {
    pub fn has(&self, flag: u32) -> bool {
        self.flags & u64::from(flag) != 0
    }
    /// Whether the signal would have no effect: ignored by wish or by default.
    pub fn ignores(&self, signal: Signal) -> bool {
        match self.handler {
            SIG_IGN => true,
            SIG_DFL => signal.default_action() == DefaultAction::Ignore,
            _ => false,
        }
    }
}

/// The table of all 64. Interrupts off: who sends a signal looks here, and interrupts send some.
pub struct Actions {
    table: SpinLock<[Action; NSIG]>,
}

impl Actions {
    pub fn try_new() -> Result<KArc<Self>> {
        Ok(KArc::try_new(Self { table: SpinLock::new([Action::default(); NSIG], &ACTIONS) })?)
    }
    /// A table of its own with the same content.
    pub fn try_copy(&self) -> Result<KArc<Self>> {
        let table = *self.table.lock_irq();
        Ok(KArc::try_new(Self { table: SpinLock::new(table, &ACTIONS) })?)
    }
    pub fn get(&self, s: Signal) -> Action {
        self.table.lock_irq().get(s.index()).copied().unwrap_or_default()
    }
    /// Sets the action; returns the one before.
    pub fn set(&self, s: Signal, action: Action) -> Action {
        match self.table.lock_irq().get_mut(s.index()) {
            Some(slot) => core::mem::replace(slot, action),
            None => Action::default(),
        }
    }
    /// What exec does: handlers become the default, ignored signals stay ignored (`execve(2)`).
    pub fn reset_handlers(&self) {
        for a in self.table.lock_irq().iter_mut() {
            *a = Action { handler: if a.handler == SIG_IGN { SIG_IGN } else { SIG_DFL }, ..Action::default() };
        }
    }
    /// The signals that are ignored by wish, and those with a handler (`/proc/PID/status`).
    pub fn summary(&self) -> (SigSet, SigSet) {
        let (mut ignored, mut caught) = (SigSet::EMPTY, SigSet::EMPTY);
        for (i, a) in self.table.lock_irq().iter().enumerate() {
            match (a.handler, Signal::new(i as u32 + 1)) {
                (SIG_DFL, _) | (_, None) => {}
                (SIG_IGN, Some(s)) => ignored = ignored.with(s),
                (_, Some(s)) => caught = caught.with(s),
            }
        }
        (ignored, caught)
    }
    /// Whether a child that ends leaves no zombie: SIGCHLD ignored, or SA_NOCLDWAIT (`wait(2)`).
    pub fn reaps_children_itself(&self) -> bool {
        let a = self.get(Signal::CHLD);
        a.handler == SIG_IGN || a.has(g::SA_NOCLDWAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_keeps_ignored_signals_and_drops_handlers() {
        let a = Actions::try_new().unwrap();
        a.set(Signal::INT, Action { handler: 0x4000, ..Action::default() });
        a.set(Signal::HUP, Action { handler: SIG_IGN, ..Action::default() });
        a.reset_handlers();
        assert_eq!(a.get(Signal::INT).handler, SIG_DFL);
        assert_eq!(a.get(Signal::HUP).handler, SIG_IGN);
    }

    #[test]
    fn default_ignored_signals_have_no_effect_unless_handled() {
        let dfl = Action::default();
        assert!(dfl.ignores(Signal::CHLD));
        assert!(!dfl.ignores(Signal::HUP));
        assert!(!Action { handler: 0x1000, ..dfl }.ignores(Signal::CHLD));
    }
}
