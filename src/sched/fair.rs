//! Who runs next: the fair class, as a queue of one CPU.
//!
//! Each entity has a virtual runtime, which advances while it runs, the slower the greater its
//! weight; the one with the least runs next. That gives each runnable entity a share of the CPU
//! in proportion to its weight (the Completely Fair Scheduler of Linux up to 6.5,
//! `Documentation/scheduler/sched-design-CFS.rst`).
//!
//! Pure logic: no lock, no clock, no switch. A queue owns the entities on it, the running one
//! included; `cpu.rs` puts it behind a lock and drives it, the tests below drive it by themselves.
//!
//! Invariants:
//! - `min_vruntime` never falls;
//! - `load` is the sum of the weights of all entities on the queue, the running one included.

use collections::{OrdMap, OrdNode};
use kalloc::{AllocError, KBox};

/// Weight of nice 0.
pub(crate) const NICE_0_WEIGHT: u32 = 1024;
/// The range of nice values (`sched(7)`).
pub(crate) const MIN_NICE: i8 = -20;
/// See [`MIN_NICE`].
pub(crate) const MAX_NICE: i8 = 19;
const NICES: usize = (MAX_NICE as isize - MIN_NICE as isize + 1) as usize;

/// Weights of nice values: a step of one is a factor of 1.25, so that two competitors one step
/// apart get 55 % and 45 %.
static WEIGHTS: [u32; NICES] = weights();

const fn weights() -> [u32; NICES] {
    let mut table = [0; NICES];
    let mut i = 0;
    while i < NICES {
        let nice = i as i32 + MIN_NICE as i32;
        let (mut up, mut down) = (1u128, 1u128);
        let mut step = 0;
        while step < nice.unsigned_abs() {
            up *= 5;
            down *= 4;
            step += 1;
        }
        let (num, den) = if nice < 0 { (up, down) } else { (down, up) };
        #[allow(clippy::indexing_slicing)] // evaluated by the compiler
        {
            table[i] = ((NICE_0_WEIGHT as u128 * num + den / 2) / den) as u32;
        }
        i += 1;
    }
    table
}

/// The weight of a nice value; values out of range count as the nearest.
pub(crate) fn weight_of(nice: i8) -> u32 {
    let i = (i32::from(nice.clamp(MIN_NICE, MAX_NICE)) - i32::from(MIN_NICE)) as usize;
    WEIGHTS.get(i).copied().unwrap_or(NICE_0_WEIGHT)
}

/// The periods of the class, in nanoseconds; the same for all queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tunables {
    /// Within this, everybody runnable runs once (while there are few).
    pub(crate) latency: u64,
    /// The shortest slice.
    pub(crate) min_granularity: u64,
    /// How far behind a woken entity must be to take over at once.
    pub(crate) wakeup_granularity: u64,
}

impl Tunables {
    /// How the periods grow with the CPUs, of which at most 8 count: 1 + log2.
    pub(crate) const fn factor(cpus: usize) -> u64 {
        let cpus = if cpus == 0 { 1 } else if cpus > 8 { 8 } else { cpus };
        1 + cpus.ilog2() as u64
    }

    /// Linux's values for one CPU, 6 ms, 0.75 ms and 1 ms, times `factor`.
    #[inline]
    pub(crate) const fn times(factor: u64) -> Self {
        Self {
            latency: 6_000_000 * factor,
            min_granularity: 750_000 * factor,
            wakeup_granularity: 1_000_000 * factor,
        }
    }
}

/// What an entity stands for.
pub(crate) trait Runner {
    /// It has run for `delta` nanoseconds more, `sum` in all.
    fn ran(&self, delta: u64, sum: u64);
    /// The weight that it should have.
    fn weight(&self) -> u32;
    /// Its real-time priority; 0 for the fair class.
    fn rt_priority(&self) -> u8 {
        0
    }
    /// Whether it shares the CPU with others of its real-time priority.
    fn is_round_robin(&self) -> bool {
        false
    }
    /// How it meets others of the fair class.
    fn manner(&self) -> Manner {
        Manner::Normal
    }
}

/// How a thread of the fair class meets others when it wakes up (`sched(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Takes over from who is ahead.
    Normal,
    /// Never takes over (SCHED_BATCH).
    Batch,
    /// Never takes over, and gives way at once to who is not of its kind (SCHED_IDLE).
    Idle,
}

pub(super) type Key = (u64, u64);
pub(super) type Node<R> = OrdNode<Key, Option<KBox<Entity<R>>>>;

/// Something that is scheduled. Exactly one owner has it: a queue, or who moves it between two,
/// or the slot of a sleeping thread.
pub(crate) struct Entity<R> {
    vruntime: u64,
    /// When `sum_exec` was last brought up to date.
    pub(super) exec_start: u64,
    /// Time on a CPU, exact.
    pub(super) sum_exec: u64,
    /// The real-time priority with which it is queued or runs; 0 in the fair class.
    pub(super) rt: u8,
    /// It was of the real-time class: its virtual runtime says nothing.
    pub(super) was_rt: bool,
    /// It goes behind others of its real-time priority.
    pub(super) to_tail: bool,
    /// Time since its round-robin slice began.
    pub(super) rr_used: u64,
    /// `sum_exec` when it was last picked.
    slice_start: u64,
    /// The weight with which it counts in its queue's load.
    weight: u32,
    /// 2^32 / weight.
    inverse: u32,
    pub(super) id: u64,
    /// Memory for its place in the tree, while it is not there.
    pub(super) node: Option<Node<R>>,
    /// What it stands for.
    pub(crate) runner: R,
}

impl<R: Runner> Entity<R> {
    /// An entity on no queue. `id` tells entities of equal virtual runtime apart.
    pub(crate) fn try_new(id: u64, runner: R) -> Result<KBox<Self>, AllocError> {
        let node = OrdNode::try_new((0, id), None)?;
        let mut entity = KBox::try_new(Self {
            vruntime: 0,
            exec_start: 0,
            sum_exec: 0,
            rt: 0,
            was_rt: false,
            to_tail: false,
            rr_used: 0,
            slice_start: 0,
            weight: 0,
            inverse: 0,
            id,
            node: Some(node),
            runner,
        })?;
        entity.reweigh();
        Ok(entity)
    }

    /// The virtual runtime, for tests and reports.
    #[cfg(test)]
    pub(crate) fn vruntime(&self) -> u64 {
        self.vruntime
    }

    fn reweigh(&mut self) {
        let weight = self.runner.weight().max(1);
        if weight != self.weight {
            self.weight = weight;
            self.inverse = (1u64 << 32).div_ceil(u64::from(weight)).min(u64::from(u32::MAX)) as u32;
        }
    }

    /// `delta` of real time as virtual time.
    fn scaled(&self, delta: u64) -> u64 {
        if self.weight == NICE_0_WEIGHT {
            return delta;
        }
        // delta * 1024 / weight without a division; 2^22 = 2^32 / 1024.
        ((u128::from(delta) * u128::from(self.inverse)) >> 22) as u64
    }
}

/// Why an entity comes to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enqueue {
    /// It slept. `from_min` is the `min_vruntime` of the queue that it left, if that is another.
    Wake { from_min: Option<u64> },
    /// It never ran.
    New,
    /// It ran here until now and stays runnable.
    Requeue,
    /// It comes runnable from a queue with this `min_vruntime`.
    Migrate { from_min: u64 },
}

/// The fair queue of one CPU.
pub(crate) struct FairQueue<R> {
    waiting: OrdMap<Key, Option<KBox<Entity<R>>>>,
    /// The one that runs; `None` while the CPU idles or runs something of another class.
    curr: Option<KBox<Entity<R>>>,
    min_vruntime: u64,
    load: u64,
    /// The running entity asked to go behind the others once.
    yielded: bool,
}

impl<R: Runner> FairQueue<R> {
    /// An empty queue.
    pub(crate) const fn new() -> Self {
        // Not at zero, so that entities may lie before the minimum.
        Self { waiting: OrdMap::new(), curr: None, min_vruntime: 1 << 40, load: 0, yielded: false }
    }

    /// Entities on the queue, the running one included.
    pub(crate) fn nr(&self) -> usize {
        self.waiting.len() + usize::from(self.curr.is_some())
    }

    /// The sum of weights.
    pub(crate) fn load(&self) -> u64 {
        self.load
    }

    /// Where the queue's virtual time stands.
    pub(crate) fn min_vruntime(&self) -> u64 {
        self.min_vruntime
    }

    /// The entity that runs.
    pub(crate) fn curr(&self) -> Option<&Entity<R>> {
        self.curr.as_deref()
    }

    fn leftmost(&self) -> Option<u64> {
        self.waiting.first().map(|(key, _)| key.0)
    }

    /// Charges the running entity for the time since this was last done.
    pub(crate) fn update_curr(&mut self, now: u64) {
        let left = self.leftmost();
        let Some(curr) = self.curr.as_deref_mut() else { return };
        let delta = now.saturating_sub(curr.exec_start);
        if delta == 0 {
            return;
        }
        curr.exec_start = now;
        curr.sum_exec = curr.sum_exec.wrapping_add(delta);
        curr.vruntime = curr.vruntime.wrapping_add(curr.scaled(delta));
        curr.runner.ran(delta, curr.sum_exec);
        let least = left.map_or(curr.vruntime, |l| l.min(curr.vruntime));
        self.min_vruntime = self.min_vruntime.max(least);
    }

    /// Puts an entity on the queue. The caller has brought the running one up to date.
    pub(crate) fn enqueue(&mut self, mut entity: KBox<Entity<R>>, how: Enqueue, t: &Tunables) {
        entity.reweigh();
        let how = if core::mem::take(&mut entity.was_rt) {
            // Its virtual runtime is of another time, perhaps of another queue.
            entity.rt = 0;
            entity.vruntime = self.min_vruntime;
            Enqueue::Requeue
        } else {
            how
        };
        match how {
            Enqueue::Requeue => {}
            Enqueue::New => {
                // A newcomer starts one slice behind, so that forking gains nothing.
                let slice = self.slice(entity.weight, self.load + u64::from(entity.weight), self.nr() + 1, t);
                entity.vruntime = self.min_vruntime.wrapping_add(entity.scaled(slice));
            }
            Enqueue::Wake { from_min } => {
                entity.rebase(from_min, self.min_vruntime);
                // A sleeper gets ahead by at most half a period, however long it slept.
                entity.vruntime = entity.vruntime.max(self.min_vruntime.saturating_sub(t.latency / 2));
            }
            Enqueue::Migrate { from_min } => entity.rebase(Some(from_min), self.min_vruntime),
        }
        self.load += u64::from(entity.weight);
        self.insert(entity);
    }

    fn insert(&mut self, mut entity: KBox<Entity<R>>) {
        // The node is there whenever the entity is in no tree: `remove_node` put it back.
        let Some(mut node) = entity.node.take() else { return };
        *node.key_mut() = (entity.vruntime, entity.id);
        *node.value_mut() = Some(entity);
        let _replaced = self.waiting.insert_node(node);
        debug_assert!(_replaced.is_none(), "ids are unique");
    }

    pub(super) fn unpack(node: Option<Node<R>>) -> Option<KBox<Entity<R>>> {
        let mut node = node?;
        let mut entity = node.value_mut().take()?;
        entity.node = Some(node);
        Some(entity)
    }

    /// Makes the entity that should run next the running one. The former one must have been taken
    /// with [`take_curr`](Self::take_curr).
    pub(crate) fn pick_next(&mut self, now: u64) -> Option<&mut Entity<R>> {
        debug_assert!(self.curr.is_none());
        let mut next = Self::unpack(self.waiting.pop_first_node())?;
        next.exec_start = now;
        next.slice_start = next.sum_exec;
        // A nice value that was set while it waited counts from here on.
        self.load -= u64::from(next.weight);
        next.reweigh();
        self.load += u64::from(next.weight);
        self.min_vruntime = self.min_vruntime.max(next.vruntime);
        self.yielded = false;
        self.curr = Some(next);
        self.curr.as_deref_mut()
    }

    /// Takes the running entity off the queue: it sleeps, or it is about to come back by
    /// `Requeue`.
    pub(crate) fn take_curr(&mut self) -> Option<KBox<Entity<R>>> {
        let curr = self.curr.take()?;
        self.load -= u64::from(curr.weight);
        Some(curr)
    }

    /// Whether the running entity, which stays runnable, should simply go on: nobody is before it.
    /// Ends a yield.
    pub(crate) fn curr_stays(&mut self) -> bool {
        let yielded = core::mem::take(&mut self.yielded);
        match (&self.curr, self.leftmost()) {
            (Some(_), None) => true,
            (Some(curr), Some(left)) => !yielded && curr.vruntime < left,
            (None, _) => false,
        }
    }

    /// The running entity goes on: its slice starts anew.
    pub(crate) fn restart_slice(&mut self) {
        if let Some(curr) = self.curr.as_deref_mut() {
            curr.slice_start = curr.sum_exec;
        }
    }

    /// The running entity lets the next one go first (`sched_yield(2)`).
    pub(crate) fn yield_curr(&mut self) {
        self.yielded = true;
    }

    /// Whether the first of those that wait is so far behind that it should run now. Asked after
    /// a wake-up.
    pub(crate) fn wakeup_preempts(&self, t: &Tunables) -> bool {
        let (Some(curr), Some((key, first))) = (&self.curr, self.waiting.first()) else { return false };
        let manner = first.as_ref().map_or(Manner::Normal, |e| e.runner.manner());
        match (curr.runner.manner(), manner) {
            (Manner::Idle, Manner::Normal | Manner::Batch) => return true,
            (_, Manner::Batch | Manner::Idle) => return false,
            _ => {}
        }
        let granularity = first.as_ref().map_or(t.wakeup_granularity, |e| e.scaled(t.wakeup_granularity));
        curr.vruntime.saturating_sub(key.0) > granularity
    }

    /// Whether the running entity has had its slice. The caller has brought it up to date.
    pub(crate) fn slice_is_over(&self, t: &Tunables) -> bool {
        let (Some(curr), Some(left)) = (&self.curr, self.leftmost()) else { return false };
        let ideal = self.slice(curr.weight, self.load, self.nr(), t);
        let ran = curr.sum_exec.wrapping_sub(curr.slice_start);
        if ran > ideal {
            return true;
        }
        ran >= t.min_granularity && curr.vruntime.saturating_sub(left) > ideal
    }

    /// The time that an entity of this weight runs at a stretch here.
    pub(crate) fn slice_of(&self, weight: u32, t: &Tunables) -> u64 {
        self.slice(weight, self.load.max(u64::from(weight)), self.nr().max(1), t)
    }

    /// The share of a period that `weight` gets among `nr` entities.
    fn slice(&self, weight: u32, load: u64, nr: usize, t: &Tunables) -> u64 {
        let period = t.latency.max(t.min_granularity.saturating_mul(nr as u64));
        (period.saturating_mul(u64::from(weight)) / load.max(1)).max(t.min_granularity)
    }

    /// Takes the last of those that wait and may leave (the one that would wait longest), looking
    /// at no more than `look_at`.
    pub(crate) fn steal(&mut self, look_at: usize, mut may_leave: impl FnMut(&R) -> bool) -> Option<KBox<Entity<R>>> {
        let mut found = None;
        for (key, entity) in self.waiting.iter().take(look_at) {
            if entity.as_ref().is_some_and(|e| may_leave(&e.runner)) {
                found = Some(*key);
            }
        }
        let entity = Self::unpack(self.waiting.remove_node(&found?))?;
        self.load -= u64::from(entity.weight);
        Some(entity)
    }
}

impl<R> Entity<R> {
    /// Keeps the distance to the queue's virtual time over a move.
    fn rebase(&mut self, from_min: Option<u64>, to_min: u64) {
        if let Some(from) = from_min {
            self.vruntime = if self.vruntime >= from {
                to_min.wrapping_add(self.vruntime - from)
            } else {
                to_min.saturating_sub(from - self.vruntime)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use proptest::prelude::*;
    use std::rc::Rc;

    struct Job {
        n: usize,
        nice: Rc<Cell<i8>>,
        sum: Rc<Cell<u64>>,
    }

    impl Runner for Job {
        fn ran(&self, _: u64, sum: u64) {
            self.sum.set(sum);
        }
        fn weight(&self) -> u32 {
            weight_of(self.nice.get())
        }
    }

    fn job(n: usize, nice: i8) -> (KBox<Entity<Job>>, Rc<Cell<u64>>) {
        let sum = Rc::new(Cell::new(0));
        let runner = Job { n, nice: Rc::new(Cell::new(nice)), sum: sum.clone() };
        (Entity::try_new(n as u64, runner).unwrap(), sum)
    }

    const T: Tunables = Tunables::times(1);
    const TICK: u64 = 1_000_000;

    /// Runs the queue as a CPU would, a tick at a time.
    fn run(rq: &mut FairQueue<Job>, now: &mut u64, ticks: u64) {
        for _ in 0..ticks {
            if rq.curr().is_none() {
                rq.pick_next(*now);
            }
            *now += TICK;
            rq.update_curr(*now);
            if rq.slice_is_over(&T) && !rq.curr_stays() {
                let prev = rq.take_curr().unwrap();
                rq.enqueue(prev, Enqueue::Requeue, &T);
                rq.pick_next(*now);
            }
        }
    }

    #[test]
    fn a_step_of_nice_is_a_factor_of_one_and_a_quarter() {
        assert_eq!(weight_of(0), 1024);
        assert_eq!(weight_of(1), 819);
        assert_eq!(weight_of(-1), 1280);
        assert_eq!(weight_of(19), 15);
        assert_eq!(weight_of(-128), weight_of(-20));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn everybody_gets_a_share_in_proportion_to_the_weight(nices in prop::collection::vec(-5i8..=5, 2..9)) {
            let mut rq = FairQueue::new();
            let mut sums = Vec::new();
            for (n, nice) in nices.iter().enumerate() {
                let (entity, sum) = job(n, *nice);
                rq.enqueue(entity, Enqueue::New, &T);
                sums.push(sum);
            }
            let mut now = 0;
            let ticks = 20_000;
            run(&mut rq, &mut now, ticks);
            let total: u64 = nices.iter().map(|n| u64::from(weight_of(*n))).sum();
            for (nice, sum) in nices.iter().zip(&sums) {
                let fair = ticks * TICK * u64::from(weight_of(*nice)) / total;
                let off = fair.abs_diff(sum.get());
                prop_assert!(off < fair / 20 + 30 * TICK, "nice {nice}: {} of {fair}", sum.get());
            }
        }

        #[test]
        fn load_and_count_follow_every_operation(ops in prop::collection::vec((0u8..6, -20i8..=19), 1..200)) {
            let mut rq = FairQueue::new();
            let (mut outside, mut now, mut made, mut least) = (Vec::new(), 0u64, 0usize, 0u64);
            for (op, nice) in ops {
                now += 500_000;
                rq.update_curr(now);
                match op {
                    0 => { made += 1; rq.enqueue(job(made, nice).0, Enqueue::New, &T) }
                    1 => if let Some(e) = outside.pop() { rq.enqueue(e, Enqueue::Wake { from_min: None }, &T) },
                    2 => if rq.curr().is_none() { rq.pick_next(now); },
                    3 => outside.extend(rq.take_curr()),
                    4 => outside.extend(rq.steal(8, |_| true)),
                    _ => if let Some(e) = rq.take_curr() { rq.enqueue(e, Enqueue::Requeue, &T) },
                }
                prop_assert_eq!(rq.nr() + outside.len(), made);
                let sum: u64 = rq.waiting.values().flatten().map(|e| u64::from(e.weight)).sum::<u64>()
                    + rq.curr().map_or(0, |e| u64::from(e.weight));
                prop_assert_eq!(rq.load(), sum);
                prop_assert!(rq.min_vruntime() >= least);
                least = rq.min_vruntime();
            }
        }
    }

    #[test]
    fn a_long_sleeper_preempts_but_gains_no_more_than_half_a_period() {
        let mut rq = FairQueue::new();
        rq.enqueue(job(1, 0).0, Enqueue::New, &T);
        let mut now = 0;
        run(&mut rq, &mut now, 1000);
        rq.enqueue(job(2, 0).0, Enqueue::Wake { from_min: None }, &T);
        assert!(rq.wakeup_preempts(&T));
        let ahead = rq.curr().unwrap().vruntime() - rq.leftmost().unwrap();
        assert_eq!(ahead, T.latency / 2);
    }

    #[test]
    fn a_newcomer_does_not_preempt() {
        let mut rq = FairQueue::new();
        rq.enqueue(job(1, 0).0, Enqueue::New, &T);
        let mut now = 0;
        run(&mut rq, &mut now, 10);
        rq.enqueue(job(2, 0).0, Enqueue::New, &T);
        assert!(!rq.wakeup_preempts(&T));
    }

    #[test]
    fn yield_lets_the_next_one_run_even_if_it_is_behind() {
        let mut rq = FairQueue::new();
        rq.enqueue(job(1, 0).0, Enqueue::New, &T);
        rq.enqueue(job(2, 0).0, Enqueue::New, &T);
        rq.pick_next(0);
        assert!(rq.curr_stays() || rq.curr().unwrap().vruntime() >= rq.leftmost().unwrap());
        rq.yield_curr();
        assert!(!rq.curr_stays());
    }

    #[test]
    fn a_move_keeps_the_distance_to_the_virtual_time() {
        let (mut a, mut b) = (FairQueue::new(), FairQueue::new());
        b.min_vruntime = 9 << 40;
        a.enqueue(job(1, 0).0, Enqueue::New, &T);
        let (from, e) = (a.min_vruntime(), a.steal(1, |_| true).unwrap());
        let distance = e.vruntime() - from;
        b.enqueue(e, Enqueue::Migrate { from_min: from }, &T);
        assert_eq!(b.leftmost().unwrap() - b.min_vruntime(), distance);
    }

    #[test]
    fn a_new_nice_value_counts_from_the_next_pick() {
        let mut rq = FairQueue::new();
        let (e, _) = job(1, 0);
        let nice = e.runner.nice.clone();
        rq.enqueue(e, Enqueue::New, &T);
        nice.set(5);
        let picked = rq.pick_next(0).unwrap();
        assert_eq!((picked.runner.n, picked.weight), (1, weight_of(5)));
        assert_eq!(rq.load(), u64::from(weight_of(5)));
    }

    #[test]
    fn steal_takes_only_what_may_leave() {
        let mut rq = FairQueue::new();
        for n in 0..4 {
            rq.enqueue(job(n, 0).0, Enqueue::New, &T);
        }
        assert!(rq.steal(32, |_| false).is_none());
        assert_eq!(rq.steal(32, |j| j.n == 2).unwrap().runner.n, 2);
        assert_eq!(rq.nr(), 3);
    }
}
