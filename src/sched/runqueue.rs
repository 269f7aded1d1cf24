//! The queue of one CPU: the real-time class before the fair one.
//!
//! Real-time threads get at most [`RT_RUNTIME`] of each [`RT_PERIOD`] while others wait, so that one
//! that never sleeps does not stop the machine (`sched(7)`, "Limiting the CPU usage of real-time and
//! deadline processes").

use crate::{
    fair::{Enqueue, Entity, FairQueue, NICE_0_WEIGHT, Runner, Tunables},
    rt::RtQueue,
};
use kalloc::KBox;

/// Linux's sched_rt_period_us.
const RT_PERIOD: u64 = 1_000_000_000;
/// Linux's sched_rt_runtime_us.
const RT_RUNTIME: u64 = 950_000_000;

/// The queue of one CPU.
pub(crate) struct RunQueue<R> {
    fair: FairQueue<R>,
    rt: RtQueue<R>,
    /// When the period began, and what of it the real-time class has had.
    period_start: u64,
    rt_used: u64,
}

impl<R: Runner> RunQueue<R> {
    pub(crate) const fn new() -> Self {
        Self { fair: FairQueue::new(), rt: RtQueue::new(), period_start: 0, rt_used: 0 }
    }

    /// Entities on the queue, the running one included.
    pub(crate) fn nr(&self) -> usize {
        self.fair.nr() + self.rt.nr()
    }

    /// The sum of weights; a real-time entity counts as one of nice 0.
    pub(crate) fn load(&self) -> u64 {
        self.fair.load() + self.rt.nr() as u64 * u64::from(NICE_0_WEIGHT)
    }

    /// Where the virtual time of the fair class stands.
    pub(crate) fn min_vruntime(&self) -> u64 {
        self.fair.min_vruntime()
    }

    /// The entity that runs.
    pub(crate) fn curr(&self) -> Option<&Entity<R>> {
        self.rt.curr().or_else(|| self.fair.curr())
    }

    /// The real-time priority of what runs, or is about to.
    pub(crate) fn rt_priority(&self) -> u8 {
        self.rt.curr().map_or(0, |c| c.rt).max(self.rt.top())
    }

    /// The real-time class has had its share of this period, and others wait.
    fn is_throttled(&self) -> bool {
        self.rt_used >= RT_RUNTIME && self.fair.nr() != 0
    }

    /// Charges the running entity for the time since this was last done.
    pub(crate) fn update_curr(&mut self, now: u64) {
        if self.rt.nr() != 0 || self.rt_used != 0 {
            self.rt_used = self.rt_used.saturating_add(self.rt.update_curr(now));
            if now.saturating_sub(self.period_start) >= RT_PERIOD {
                self.period_start = now;
                self.rt_used = 0;
            }
        }
        self.fair.update_curr(now);
    }

    /// Puts an entity on the queue. The caller has brought the running one up to date.
    pub(crate) fn enqueue(&mut self, entity: KBox<Entity<R>>, how: Enqueue, t: &Tunables) {
        match entity.runner.rt_priority() {
            0 => self.fair.enqueue(entity, how, t),
            priority => self.rt.enqueue(entity, priority, how),
        }
    }

    /// Makes the entity that should run next the running one. The former one must have been taken
    /// with [`take_curr`](Self::take_curr).
    pub(crate) fn pick_next(&mut self, now: u64) -> Option<&mut Entity<R>> {
        if self.rt.nr() != 0 && !self.is_throttled() { self.rt.pick_next(now) } else { self.fair.pick_next(now) }
    }

    /// Takes the running entity off the queue: it sleeps, or it is about to come back by `Requeue`.
    pub(crate) fn take_curr(&mut self) -> Option<KBox<Entity<R>>> {
        self.rt.take_curr().or_else(|| self.fair.take_curr())
    }

    /// Whether the running entity, which stays runnable, should simply go on. Ends a yield.
    pub(crate) fn curr_stays(&mut self) -> bool {
        if self.rt.curr().is_some() {
            return !self.is_throttled() && self.rt.curr_stays();
        }
        let stays = self.fair.curr_stays();
        let same_class = self.fair.curr().is_some_and(|c| c.runner.rt_priority() == 0);
        stays && same_class && (self.rt.nr() == 0 || self.is_throttled())
    }

    /// The running entity goes on: its slice starts anew.
    pub(crate) fn restart_slice(&mut self) {
        self.fair.restart_slice();
    }

    /// The running entity lets the next one go first (`sched_yield(2)`).
    pub(crate) fn yield_curr(&mut self) {
        if self.rt.curr().is_some() { self.rt.yield_curr() } else { self.fair.yield_curr() }
    }

    /// Whether one of those that wait should run now. Asked after a wake-up.
    pub(crate) fn wakeup_preempts(&self, t: &Tunables) -> bool {
        if self.rt.curr().is_some() {
            return self.rt.wakeup_preempts();
        }
        self.rt.nr() != 0 && !self.is_throttled() || self.fair.wakeup_preempts(t)
    }

    /// Whether the running entity has had its slice. The caller has brought it up to date.
    pub(crate) fn slice_is_over(&mut self, t: &Tunables) -> bool {
        if self.rt.curr().is_some() {
            return self.is_throttled() || self.rt.slice_is_over();
        }
        self.rt.nr() != 0 && !self.is_throttled() || self.fair.slice_is_over(t)
    }

    /// Takes one of those that wait and may leave, looking at no more than `look_at` of each class:
    /// the first of the real-time class, or the last of the fair one.
    pub(crate) fn steal(&mut self, look_at: usize, mut may_leave: impl FnMut(&R) -> bool) -> Option<KBox<Entity<R>>> {
        if self.rt.top() != 0
            && let Some(found) = self.rt.steal(look_at, &mut may_leave)
        {
            return Some(found);
        }
        self.fair.steal(look_at, may_leave)
    }

    /// The time that an entity of the fair class and of this weight runs at a stretch here.
    pub(crate) fn fair_slice(&self, weight: u32, t: &Tunables) -> u64 {
        self.fair.slice_of(weight, t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Job(u8);
    impl Runner for Job {
        fn ran(&self, _: u64, _: u64) {}
        fn weight(&self) -> u32 {
            NICE_0_WEIGHT
        }
        fn rt_priority(&self) -> u8 {
            self.0
        }
    }

    const T: Tunables = Tunables::times(1);
    const TICK: u64 = 4_000_000;

    #[test]
    fn real_time_goes_first_and_leaves_a_twentieth_to_others() {
        let mut q = RunQueue::new();
        q.enqueue(Entity::try_new(1, Job(0)).unwrap(), Enqueue::New, &T);
        q.enqueue(Entity::try_new(2, Job(1)).unwrap(), Enqueue::New, &T);
        let (mut now, mut fair) = (0, 0u64);
        q.pick_next(now);
        assert_eq!(q.curr().unwrap().runner.0, 1);
        for _ in 0..1000 {
            now += TICK;
            if q.curr().unwrap().runner.0 == 0 {
                fair += TICK;
            }
            q.update_curr(now);
            if q.slice_is_over(&T) && !q.curr_stays() {
                let prev = q.take_curr().unwrap();
                q.enqueue(prev, Enqueue::Requeue, &T);
                q.pick_next(now);
            }
        }
        let share = fair * 1000 / now;
        assert!((40..=60).contains(&share), "{share} of 1000");
    }

    #[test]
    fn a_waking_real_time_entity_preempts_the_fair_class() {
        let mut q = RunQueue::new();
        q.enqueue(Entity::try_new(1, Job(0)).unwrap(), Enqueue::New, &T);
        q.pick_next(0);
        assert!(!q.wakeup_preempts(&T));
        q.enqueue(Entity::try_new(2, Job(1)).unwrap(), Enqueue::Wake { from_min: None }, &T);
        assert!(q.wakeup_preempts(&T) && !q.curr_stays());
        assert_eq!(q.rt_priority(), 1);
    }
}
