//! Process ids: numbers, the objects behind them, and the lookup from number to task.
//!
//! A number stays taken as long as it names anything: a task, a process group or a session
//! (`setpgid(2)`: a group outlives its leader). It belongs to a [`Pid`] object, which knows these
//! uses, and the processes of the group, so that nobody walks all processes for the sake of one
//! group. The number returns to the namespace when the last use ends; the object may live on,
//! where a pidfd holds it, and then names nothing.

use crate::task::{Process, Task};
use abi::{Errno, Result};
use collections::{OrdMap, OrdNode};
use kalloc::{KArc, KWeak};
use sched::WaitQueue;
use sync::{
    LockClass, SpinLock,
    atomic::{AtomicBool, AtomicU32, Ordering},
};
use vfs::sysctl::Number;

static PIDS: LockClass = LockClass::new("process.pids", 1040);
static PID_TASK: LockClass = LockClass::new("process.pid_task", 1041);
/// Held while the places of a group's members are looked at, never together with a list of children.
static MEMBERS: LockClass = LockClass::new("process.group_members", 1001);

/// Numbers below this are handed out only once, at boot (Linux's RESERVED_PIDS).
const RESERVED: u32 = 300;
/// `kernel.pid_max`: numbers stay below it, and those in use above it stay. Linux's default, and as
/// its limits above the reserved numbers, and PID_MAX_LIMIT.
pub(crate) static PID_MAX: Number = Number::new(32768, RESERVED as i64 + 1, 4 << 20);

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
    /// Signalled when the process of this id has ended (`pidfd_open(2)`).
    pub(crate) ended: WaitQueue,
    members: SpinLock<OrdMap<u32, KWeak<Process>>>,
    /// Sessions with this id: one at most, but the object of an old one may go later.
    sessions: AtomicU32,
    /// The number was given back. Changed with the namespace's lock held.
    is_free: AtomicBool,
}

/// Memory for the membership in a group; moves with the process from group to group.
pub(crate) type Membership = OrdNode<u32, KWeak<Process>>;

impl PidNamespace {
    pub fn try_new() -> Result<KArc<Self>> {
        Ok(KArc::try_new(Self { numbers: SpinLock::new(Numbers { map: OrdMap::new(), last: 0 }, &PIDS) })?)
    }

    /// Takes the next free number after the last one given out, wrapping at `kernel.pid_max`
    /// (EAGAIN when all are taken, as `fork(2)` says).
    pub fn alloc(ns: &KArc<Self>) -> Result<KArc<Pid>> {
        Self::take(ns, None)
    }

    /// Takes this very number (`clone3(2)`, set_tid). EINVAL for one that no process can have;
    /// EEXIST when it is taken.
    pub fn alloc_number(ns: &KArc<Self>, number: u32) -> Result<KArc<Pid>> {
        Self::take(ns, Some(number))
    }

    /// Whether a process could have this number.
    pub fn is_possible(number: u32) -> bool {
        (1..pid_max()).contains(&number)
    }

    fn take(ns: &KArc<Self>, wanted: Option<u32>) -> Result<KArc<Pid>> {
        let node = OrdMap::<u32, KWeak<Pid>>::reserve_node()?;
        let mut pid = KArc::try_new(Pid {
            number: 0,
            ns: ns.clone(),
            task: SpinLock::new(None, &PID_TASK),
            ended: WaitQueue::new(),
            members: SpinLock::new(OrdMap::new(), &MEMBERS),
            sessions: AtomicU32::new(0),
            is_free: AtomicBool::new(false),
        })?;
        let mut n = ns.numbers.lock();
        let number = match wanted {
            None => {
                let number = n.next().ok_or(Errno::EAGAIN)?;
                n.last = number;
                number
            }
            Some(w) if !Self::is_possible(w) => return Err(Errno::EINVAL),
            Some(w) if n.map.contains_key(&w) => return Err(Errno::EEXIST),
            Some(w) => w,
        };
        // Sole owner: nobody else has seen the object.
        if let Some(p) = KArc::get_mut(&mut pid) {
            p.number = number;
        }
        n.map.insert_reserved(node, number, KArc::downgrade(&pid));
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

    /// Makes the search for a free number start behind this one (`kernel.ns_last_pid`).
    pub fn set_last(&self, number: u32) {
        self.numbers.lock().last = number;
    }
}

/// `kernel.pid_max`.
pub fn pid_max() -> u32 {
    PID_MAX.get() as u32
}

impl Numbers {
    fn next(&self) -> Option<u32> {
        let from = self.last.saturating_add(1);
        let max = pid_max();
        self.free_in(from, max).or_else(|| self.free_in(RESERVED.min(from), from.min(max)))
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
        let gone = task.is_none();
        let old = core::mem::replace(&mut *self.task.lock(), task);
        drop(old);
        if gone {
            self.free_unless_used();
        }
    }

    pub(crate) fn begin_session(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn end_session(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
        self.free_unless_used();
    }

    /// Gives the number back when it names nothing any more.
    fn free_unless_used(&self) {
        let is_used = || self.task.lock().is_some() || self.sessions.load(Ordering::Relaxed) != 0;
        if !is_used() && self.members.lock().is_empty() {
            self.free();
        }
    }

    fn free(&self) {
        let gone = {
            let mut numbers = self.ns.numbers.lock();
            if self.is_free.swap(true, Ordering::Relaxed) { None } else { numbers.map.remove(&self.number) }
        };
        drop(gone);
    }

    /// Puts a process into the group of this id. Family lock held.
    pub(crate) fn join(&self, membership: Membership) {
        let replaced = self.members.lock().insert_node(membership);
        debug_assert!(replaced.is_none(), "a process joined its group twice");
    }

    /// Takes a process out of the group. Family lock held.
    pub(crate) fn leave(&self, process: u32) -> Option<Membership> {
        let membership = self.members.lock().remove_node(&process);
        self.free_unless_used();
        membership
    }

    /// The member with the lowest id from `from` on. Zombies are members until they are reaped.
    pub(crate) fn member_from(&self, mut from: u32) -> Option<(u32, KArc<Process>)> {
        loop {
            let (id, process) = {
                let members = self.members.lock();
                let (id, weak) = members.lower_bound(&from)?;
                (*id, weak.upgrade())
            };
            if let Some(process) = process {
                return Some((id, process));
            }
            from = id.checked_add(1)?;
        }
    }

    /// The members, in the order of their ids.
    pub(crate) fn members(&self) -> impl Iterator<Item = KArc<Process>> + '_ {
        let mut next = Some(0);
        core::iter::from_fn(move || {
            let (id, process) = self.member_from(next?)?;
            next = id.checked_add(1);
            Some(process)
        })
    }
}

impl Drop for Pid {
    fn drop(&mut self) {
        // One that was made for a child that did not come to be.
        self.free();
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
        ns.set_last(pid_max() - 1);
        assert_eq!(PidNamespace::alloc(&ns).unwrap().number(), RESERVED);
    }

    #[test]
    fn a_wanted_number_is_given_unless_it_is_taken_or_impossible() {
        let ns = PidNamespace::try_new().unwrap();
        let a = PidNamespace::alloc_number(&ns, 77).unwrap();
        assert_eq!(a.number(), 77);
        assert_eq!(PidNamespace::alloc_number(&ns, 77).err(), Some(Errno::EEXIST));
        assert_eq!(PidNamespace::alloc_number(&ns, 0).err(), Some(Errno::EINVAL));
        assert_eq!(PidNamespace::alloc_number(&ns, pid_max()).err(), Some(Errno::EINVAL));
        // The search goes on where it was.
        assert_eq!(PidNamespace::alloc(&ns).unwrap().number(), 1);
    }

    #[test]
    fn without_memory_no_number_is_lost() {
        let ns = PidNamespace::try_new().unwrap();
        for n in 1.. {
            kalloc::fail_nth(n);
            let pid = PidNamespace::alloc(&ns);
            if kalloc::disarm() {
                assert_eq!(pid.unwrap().number(), 1);
                break;
            }
            assert_eq!(pid.err(), Some(Errno::ENOMEM));
            assert_eq!(ns.count(), 0);
        }
    }

    #[test]
    fn a_number_stays_taken_while_it_names_anything() {
        let ns = PidNamespace::try_new().unwrap();
        let a = PidNamespace::alloc(&ns).unwrap();
        a.begin_session();
        a.join(Membership::try_new(1, KWeak::new()).unwrap());
        a.set_task(None);
        assert!(ns.pid(1).is_some());
        a.end_session();
        assert!(ns.pid(1).is_some());
        drop(a.leave(1));
        // The object is still there, its number is free.
        assert!(ns.pid(1).is_none());
        let other = PidNamespace::alloc_number(&ns, 1).unwrap();
        drop(a);
        assert!(KArc::ptr_eq(&ns.pid(1).unwrap(), &other));
        drop(other);
        assert!(ns.pid(1).is_none());
    }
}
