//! Process ids: numbers, the objects behind them, and the lookup from number to task.
//!
//! A number stays taken as long as anything names it: the task itself, a process group or a
//! session (`setpgid(2)`: a group outlives its leader). So the number belongs to a [`Pid`] object,
//! and returns to the namespace when the last reference goes.

use crate::task::Task;
use abi::{Errno, Result};
use collections::OrdMap;
use kalloc::{KArc, KWeak};
use sync::{LockClass, SpinLock};

static PIDS: LockClass = LockClass::new("process.pids", 1040);
static PID_TASK: LockClass = LockClass::new("process.pid_task", 1041);

/// Linux's default `kernel.pid_max`.
pub const PID_MAX: u32 = 32768;
/// Numbers below this are handed out only once, at boot (Linux's RESERVED_PIDS).
const RESERVED: u32 = 300;

/// A set of process ids that see each other. One exists; tasks reach it through their namespaces.
pub struct PidNamespace {
    numbers: SpinLock<Numbers>,
}

struct Numbers {
    map: OrdMap<u32, KWeak<Pid>>,
    last: u32,
}

/// A number in use in a namespace.
pub struct Pid {
    number: u32,
    ns: KArc<PidNamespace>,
    task: SpinLock<Option<KWeak<Task>>>,
}

impl PidNamespace {
    pub fn try_new() -> Result<KArc<Self>> {
        Ok(KArc::try_new(Self { numbers: SpinLock::new(Numbers { map: OrdMap::new(), last: 0 }, &PIDS) })?)
    }

    /// Takes the next free number after the last one given out, wrapping at `PID_MAX`
    /// (EAGAIN when all are taken, as `fork(2)` says).
    pub fn alloc(ns: &KArc<Self>) -> Result<KArc<Pid>> {
        let node = OrdMap::<u32, KWeak<Pid>>::reserve_node()?;
        let mut pid = KArc::try_new(Pid { number: 0, ns: ns.clone(), task: SpinLock::new(None, &PID_TASK) })?;
        let mut n = ns.numbers.lock();
        let number = n.next().ok_or(Errno::EAGAIN)?;
        // Sole owner: nobody else has seen the object.
        if let Some(p) = KArc::get_mut(&mut pid) {
            p.number = number;
        }
        n.map.insert_reserved(node, number, KArc::downgrade(&pid));
        n.last = number;
        Ok(pid)
    }

    /// The task with this id, if it is alive or a zombie.
    pub fn find(&self, number: u32) -> Option<KArc<Task>> {
        self.pid(number)?.task()
    }

    /// The object of a number in use.
    pub fn pid(&self, number: u32) -> Option<KArc<Pid>> {
        self.numbers.lock().map.get(&number)?.upgrade()
    }

    /// The first task at or after `number`, for listing them in order.
    pub fn next_from(&self, mut number: u32) -> Option<(u32, KArc<Task>)> {
        loop {
            let (n, pid) = {
                let guard = self.numbers.lock();
                let (n, weak) = guard.map.lower_bound(&number)?;
                (*n, weak.upgrade())
            };
            if let Some(task) = pid.and_then(|p| p.task()) {
                return Some((n, task));
            }
            number = n.checked_add(1)?;
        }
    }

    /// How many numbers are in use.
    pub fn count(&self) -> usize {
        self.numbers.lock().map.len()
    }

    /// The number that was given out last (`/proc/loadavg`).
    pub fn last(&self) -> u32 {
        self.numbers.lock().last
    }
}

impl Numbers {
    fn next(&self) -> Option<u32> {
        let from = self.last + 1;
        self.free_in(from, PID_MAX).or_else(|| self.free_in(RESERVED.min(from), from))
    }
    fn free_in(&self, from: u32, end: u32) -> Option<u32> {
        (from..end).find(|n| !self.map.contains_key(n))
    }
}

impl Pid {
    /// The number in the initial namespace.
    pub fn number(&self) -> u32 {
        self.number
    }
    /// The task that has this id, unless it is gone and only its group or session is left.
    pub fn task(&self) -> Option<KArc<Task>> {
        self.task.lock().as_ref()?.upgrade()
    }
    pub(crate) fn set_task(&self, task: Option<KWeak<Task>>) {
        let old = core::mem::replace(&mut *self.task.lock(), task);
        drop(old);
    }
}

impl Drop for Pid {
    fn drop(&mut self) {
        let gone = self.ns.numbers.lock().map.remove(&self.number);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_are_reused_only_after_wrapping() {
        let ns = PidNamespace::try_new().unwrap();
        let a = PidNamespace::alloc(&ns).unwrap();
        let b = PidNamespace::alloc(&ns).unwrap();
        assert_eq!((a.number(), b.number()), (1, 2));
        drop(a);
        assert_eq!(PidNamespace::alloc(&ns).unwrap().number(), 3);
        ns.numbers.lock().last = PID_MAX - 1;
        assert_eq!(PidNamespace::alloc(&ns).unwrap().number(), RESERVED);
    }

    #[test]
    fn a_number_stays_taken_while_anything_holds_it() {
        let ns = PidNamespace::try_new().unwrap();
        let a = PidNamespace::alloc(&ns).unwrap();
        let group = a.clone();
        drop(a);
        assert!(ns.pid(1).is_some());
        drop(group);
        assert!(ns.pid(1).is_none());
    }
}
