//! How a thread is scheduled, as `sched(7)` says it: policy, nice value, real-time priority.

use crate::{
    Thread, cpu,
    fair::{MAX_NICE, MIN_NICE, Manner, weight_of},
    rt::{MAX_PRIORITY, RR_SLICE},
    thread::Core,
};
use abi::Nanos;
use sync::atomic::Ordering;

/// A policy; the numbers are those of `sched_setscheduler(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Policy {
    Normal = 0,
    Fifo = 1,
    RoundRobin = 2,
    Batch = 3,
    Idle = 5,
}

impl Policy {
    /// The policy with this number, unless there is none.
    pub fn from_number(n: u32) -> Option<Self> {
        [Self::Normal, Self::Fifo, Self::RoundRobin, Self::Batch, Self::Idle].into_iter().find(|p| *p as u32 == n)
    }
    /// Whether it is of the real-time class.
    pub fn is_realtime(self) -> bool {
        matches!(self, Self::Fifo | Self::RoundRobin)
    }
}

/// How a thread is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub policy: Policy,
    /// Counts while the policy is of the fair class.
    pub nice: i8,
    /// 1 to 99 while the policy is of the real-time class, else 0.
    pub priority: u8,
    /// Children start with the policy of nobody in particular.
    pub reset_on_fork: bool,
}

/// The weight of SCHED_IDLE (Linux's WEIGHT_IDLEPRIO).
const IDLE_WEIGHT: u32 = 3;

// The word in which policy, priority and the flag are stored together.
const PRIORITY_SHIFT: u32 = 8;
const RESET: u32 = 1 << 16;

pub(crate) fn pack(a: &Attributes) -> u32 {
    a.policy as u32 | u32::from(a.priority) << PRIORITY_SHIFT | if a.reset_on_fork { RESET } else { 0 }
}

impl Core {
    fn policy_word(&self) -> u32 {
        self.policy.load(Ordering::Relaxed)
    }

    /// How it is scheduled.
    pub fn attributes(&self) -> Attributes {
        let word = self.policy_word();
        Attributes {
            policy: Policy::from_number(word & 0xff).unwrap_or(Policy::Normal),
            nice: self.nice(),
            priority: (word >> PRIORITY_SHIFT) as u8,
            reset_on_fork: word & RESET != 0,
        }
    }

    /// Its own real-time priority, 1 to 99; 0 for a thread of the fair class.
    pub fn own_rt_priority(&self) -> u8 {
        (self.policy_word() >> PRIORITY_SHIFT) as u8
    }

    /// The real-time priority with which it runs: its own, or what it inherits.
    #[inline]
    pub fn rt_priority(&self) -> u8 {
        self.own_rt_priority().max(self.boost.load(Ordering::Relaxed) as u8)
    }

    pub(crate) fn is_round_robin(&self) -> bool {
        self.policy_word() & 0xff == Policy::RoundRobin as u32
    }

    pub(crate) fn manner(&self) -> Manner {
        match self.policy_word() & 0xff {
            n if n == Policy::Batch as u32 => Manner::Batch,
            n if n == Policy::Idle as u32 => Manner::Idle,
            _ => Manner::Normal,
        }
    }

    pub(crate) fn weight(&self) -> u32 {
        if self.manner() == Manner::Idle { IDLE_WEIGHT } else { weight_of(self.nice()) }
    }

    /// A child's policy: its parent's, or with SCHED_RESET_ON_FORK an ordinary one.
    pub(crate) fn inherit_policy(&self, parent: &Core) {
        let mut a = parent.attributes();
        if core::mem::take(&mut a.reset_on_fork) {
            if a.policy.is_realtime() {
                a = Attributes { policy: Policy::Normal, nice: 0, priority: 0, reset_on_fork: false };
            }
            a.nice = a.nice.max(0);
        }
        self.policy.store(pack(&a), Ordering::Relaxed);
        self.set_nice(a.nice);
    }
}

/// Sets how a thread is scheduled, at once: what runs gives way, what waits changes its place.
pub fn set_attributes(thread: &Thread, a: Attributes) {
    thread.set_nice(a.nice.clamp(MIN_NICE, MAX_NICE));
    let priority = if a.policy.is_realtime() { a.priority.clamp(1, MAX_PRIORITY) } else { 0 };
    thread.policy.store(pack(&Attributes { priority, ..a }), Ordering::Relaxed);
    cpu::reclassify(thread);
}

/// Sets the real-time priority that a thread inherits; 0 for none.
pub fn set_boost(thread: &Thread, priority: u8) {
    let before = thread.rt_priority();
    thread.boost.store(priority.into(), Ordering::Relaxed);
    if thread.rt_priority() != before {
        cpu::reclassify(thread);
    }
}

/// How long the thread runs before others of its kind get their turn; zero for no end
/// (`sched_rr_get_interval(2)`). Of the fair class in whole ticks, as Linux counts it.
pub fn time_slice(thread: &Thread) -> Nanos {
    match thread.attributes().policy {
        Policy::Fifo => Nanos::ZERO,
        Policy::RoundRobin => Nanos(RR_SLICE),
        _ => Nanos(cpu::fair_slice(thread)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_the_numbers_of_the_interface() {
        use abi::raw::general as g;
        for (p, n) in [
            (Policy::Normal, g::SCHED_NORMAL),
            (Policy::Fifo, g::SCHED_FIFO),
            (Policy::RoundRobin, g::SCHED_RR),
            (Policy::Batch, g::SCHED_BATCH),
            (Policy::Idle, g::SCHED_IDLE),
        ] {
            assert_eq!((p as u32, Policy::from_number(n)), (n, Some(p)));
        }
        assert_eq!(Policy::from_number(g::SCHED_DEADLINE), None);
        assert_eq!(Policy::from_number(4), None);
    }
}
