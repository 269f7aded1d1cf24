//! What must hold before a thread returns to its program, whatever it did in the kernel: interrupts
//! on, preemption on, no lock held. Debug builds look after each system call, fault and other
//! exception; a violation is a bug of the kernel, reported with what led to it.

use core::fmt;

/// What a thread comes from.
#[derive(Clone, Copy)]
pub enum After {
    /// The system call of this number.
    Call(i64),
    /// A fault on an address.
    Fault,
    /// Another exception.
    Exception,
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(number) => write!(f, "system call {number}"),
            Self::Fault => f.write_str("a fault"),
            Self::Exception => f.write_str("an exception"),
        }
    }
}

/// Looks, reports and puts right what can be: interrupts are on afterwards. Whether all was well.
pub fn check(after: After) -> bool {
    let interrupts = arch::irq::enabled();
    if !interrupts {
        log::error!("BUG: {after} left interrupts off");
        arch::irq::enable();
    }
    let preemption = arch::preempt::count();
    if preemption != 0 {
        log::error!("BUG: {after} left preemption off (count {preemption:#x})");
    }
    sync::lockdep::assert_none_held("lock held at the return to user space");
    interrupts && preemption == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::ManuallyDrop;
    use sync::{LockClass, SpinLock, lockdep};

    static CLASS: LockClass = LockClass::new("leave_test", 1000);

    #[test]
    fn a_call_that_leaves_interrupts_off_is_noticed_and_repaired() {
        arch::irq::enable();
        assert!(check(After::Call(172)));
        arch::irq::disable();
        assert!(!check(After::Call(172)));
        assert!(arch::irq::enabled());
        assert!(check(After::Call(172)));
    }

    #[test]
    fn a_call_that_keeps_a_lock_is_noticed() {
        static LOCK: SpinLock<u32> = SpinLock::new(0, &CLASS);
        let before = lockdep::violations();
        let kept = ManuallyDrop::new(LOCK.lock());
        assert!(!check(After::Call(63)));
        assert!(lockdep::violations() > before);
        drop(ManuallyDrop::into_inner(kept));
        assert!(check(After::Call(63)));
    }
}
