//! Who runs next: the real-time class, as a queue of one CPU (`sched(7)`, SCHED_FIFO and SCHED_RR).
//!
//! The entity of the highest priority runs until it sleeps or one of a higher priority comes; those
//! of one priority in the order in which they came. One that was taken over goes on before others of
//! its priority; one that yields, or a round-robin one whose slice is over, goes behind them.
//!
//! Pure logic, as the fair class (`fair.rs`), with which it shares entities; `runqueue.rs` puts the
//! two together.

use crate::fair::{Enqueue, Entity, FairQueue, Key, Runner};
use collections::OrdMap;
use kalloc::KBox;

/// The highest real-time priority (`sched_get_priority_max(2)`).
pub(crate) const MAX_PRIORITY: u8 = 99;
/// How long a round-robin entity runs while others of its priority wait: Linux's default.
pub(crate) const RR_SLICE: u64 = 100_000_000;

/// The real-time queue of one CPU.
pub(crate) struct RtQueue<R> {
    /// By falling priority, then by turn.
    waiting: OrdMap<Key, Option<KBox<Entity<R>>>>,
    curr: Option<KBox<Entity<R>>>,
    /// The next turns in front of all and behind all.
    first_turn: u64,
    last_turn: u64,
}

fn rank(priority: u8) -> u64 {
    (MAX_PRIORITY.saturating_sub(priority)).into()
}

impl<R: Runner> RtQueue<R> {
    pub(crate) const fn new() -> Self {
        Self { waiting: OrdMap::new(), curr: None, first_turn: 1 << 63, last_turn: (1 << 63) + 1 }
    }

    pub(crate) fn nr(&self) -> usize {
        self.waiting.len() + usize::from(self.curr.is_some())
    }

    /// The highest priority that waits; 0 when nobody does.
    pub(crate) fn top(&self) -> u8 {
        self.waiting.first().map_or(0, |(key, _)| MAX_PRIORITY.saturating_sub(key.0 as u8))
    }

    pub(crate) fn curr(&self) -> Option<&Entity<R>> {
        self.curr.as_deref()
    }

    /// Charges the running entity; the time since this was last done.
    pub(crate) fn update_curr(&mut self, now: u64) -> u64 {
        let Some(curr) = self.curr.as_deref_mut() else { return 0 };
        let delta = now.saturating_sub(curr.exec_start);
        if delta != 0 {
            curr.exec_start = now;
            curr.sum_exec = curr.sum_exec.wrapping_add(delta);
            curr.rr_used = curr.rr_used.saturating_add(delta);
            curr.runner.ran(delta, curr.sum_exec);
        }
        delta
    }

    pub(crate) fn enqueue(&mut self, mut entity: KBox<Entity<R>>, priority: u8, how: Enqueue) {
        let in_front = how == Enqueue::Requeue && !entity.to_tail;
        entity.to_tail = false;
        entity.was_rt = true;
        entity.rt = priority;
        if !in_front {
            entity.rr_used = 0;
        }
        let turn = if in_front { &mut self.first_turn } else { &mut self.last_turn };
        let mine = *turn;
        *turn = if in_front { mine - 1 } else { mine + 1 };
        // The node is there whenever the entity is in no tree.
        let Some(mut node) = entity.node.take() else { return };
        *node.key_mut() = (rank(priority), mine);
        *node.value_mut() = Some(entity);
        let _replaced = self.waiting.insert_node(node);
        debug_assert!(_replaced.is_none(), "turns are unique");
    }

    pub(crate) fn pick_next(&mut self, now: u64) -> Option<&mut Entity<R>> {
        debug_assert!(self.curr.is_none());
        let mut next = FairQueue::unpack(self.waiting.pop_first_node())?;
        next.exec_start = now;
        self.curr = Some(next);
        self.curr.as_deref_mut()
    }

    pub(crate) fn take_curr(&mut self) -> Option<KBox<Entity<R>>> {
        self.curr.take()
    }

    /// Whether the running entity, which stays runnable with the priority it has, goes on.
    pub(crate) fn curr_stays(&mut self) -> bool {
        let top = self.top();
        let Some(curr) = self.curr.as_deref_mut() else { return false };
        let stays = curr.runner.rt_priority() == curr.rt && (top < curr.rt || top == curr.rt && !curr.to_tail);
        if stays {
            curr.to_tail = false;
        }
        stays
    }

    /// The running entity lets others of its priority go first.
    pub(crate) fn yield_curr(&mut self) {
        if let Some(curr) = self.curr.as_deref_mut() {
            curr.to_tail = true;
        }
    }

    /// Whether one of a higher priority than the running one waits.
    pub(crate) fn wakeup_preempts(&self) -> bool {
        self.curr.as_ref().is_some_and(|c| self.top() > c.rt)
    }

    /// Whether the running entity has had its slice and another one of its priority waits.
    pub(crate) fn slice_is_over(&mut self) -> bool {
        let top = self.top();
        let Some(curr) = self.curr.as_deref_mut() else { return false };
        if !curr.runner.is_round_robin() || curr.rr_used < RR_SLICE {
            return false;
        }
        curr.rr_used = 0;
        curr.to_tail = top == curr.rt;
        curr.to_tail
    }

    /// Takes the first of those that wait and may leave.
    pub(crate) fn steal(&mut self, look_at: usize, mut may_leave: impl FnMut(&R) -> bool) -> Option<KBox<Entity<R>>> {
        let key = {
            let mut all = self.waiting.iter().take(look_at);
            *all.find(|(_, entity)| entity.as_ref().is_some_and(|e| may_leave(&e.runner)))?.0
        };
        FairQueue::unpack(self.waiting.remove_node(&key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    struct Job {
        n: usize,
        priority: Cell<u8>,
        round_robin: bool,
    }

    impl Runner for Job {
        fn ran(&self, _: u64, _: u64) {}
        fn weight(&self) -> u32 {
            1024
        }
        fn rt_priority(&self) -> u8 {
            self.priority.get()
        }
        fn is_round_robin(&self) -> bool {
            self.round_robin
        }
    }

    fn put(q: &mut RtQueue<Job>, n: usize, priority: u8, round_robin: bool) {
        let job = Job { n, priority: Cell::new(priority), round_robin };
        q.enqueue(Entity::try_new(n as u64, job).unwrap(), priority, Enqueue::Wake { from_min: None });
    }

    fn back(q: &mut RtQueue<Job>) {
        let e = q.take_curr().unwrap();
        let p = e.runner.rt_priority();
        q.enqueue(e, p, Enqueue::Requeue);
    }

    fn next(q: &mut RtQueue<Job>, now: u64) -> usize {
        q.pick_next(now).unwrap().runner.n
    }

    #[test]
    fn the_highest_priority_runs_and_equals_in_order_of_arrival() {
        let mut q = RtQueue::new();
        for (n, p) in [(1, 10), (2, 50), (3, 50), (4, 99)] {
            put(&mut q, n, p, false);
        }
        let mut order = Vec::new();
        while q.nr() != 0 {
            order.push(next(&mut q, 0));
            q.take_curr();
        }
        assert_eq!(order, [4, 2, 3, 1]);
    }

    #[test]
    fn one_that_was_taken_over_goes_on_before_its_equals() {
        let mut q = RtQueue::new();
        put(&mut q, 1, 10, false);
        put(&mut q, 2, 10, false);
        assert_eq!(next(&mut q, 0), 1);
        assert!(q.curr_stays());
        put(&mut q, 3, 20, false);
        assert!(q.wakeup_preempts() && !q.curr_stays());
        back(&mut q);
        assert_eq!(next(&mut q, 0), 3);
        q.take_curr();
        assert_eq!(next(&mut q, 0), 1);
        // A yield, on the other hand, lets the equal go first.
        q.yield_curr();
        assert!(!q.curr_stays());
        back(&mut q);
        assert_eq!(next(&mut q, 0), 2);
    }

    #[test]
    fn only_round_robin_slices_end() {
        for round_robin in [false, true] {
            let mut q = RtQueue::new();
            put(&mut q, 1, 10, round_robin);
            put(&mut q, 2, 10, round_robin);
            assert_eq!(next(&mut q, 0), 1);
            q.update_curr(RR_SLICE - 1);
            assert!(!q.slice_is_over());
            q.update_curr(RR_SLICE);
            assert_eq!(q.slice_is_over(), round_robin);
            if round_robin {
                back(&mut q);
                assert_eq!(next(&mut q, 0), 2);
            }
        }
    }

    #[test]
    fn a_new_priority_ends_the_stay() {
        let mut q = RtQueue::new();
        put(&mut q, 1, 10, false);
        next(&mut q, 0);
        assert!(q.curr_stays());
        q.curr().unwrap().runner.priority.set(5);
        assert!(!q.curr_stays());
    }
}
