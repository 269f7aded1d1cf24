//! How a thread goes from one run queue to another, and from a CPU to the next: the steps of
//! `sched/cpu.rs` and `sched/idle.rs` in their order, over the kernel's own sleep slot. What a
//! thread is to a CPU (registers, stack) is a cell that loom watches: two CPUs that run one thread,
//! or one that runs it before the other has saved it, are reported.

use crate::{
    KBox, Sleeper,
    atomic::{AtomicBool, AtomicU32, Ordering, fence},
    model, new_word,
    sleeper::{INTERRUPTIBLE, SLEEPING, SleepState, Woken},
};
use loom::{
    cell::UnsafeCell,
    sync::{Arc, Mutex, Notify},
    thread as threads,
};

/// One thread and the run queues of two CPUs.
struct Machine {
    state: SleepState<u64>,
    queues: [Mutex<Vec<KBox<u64>>>; 2],
    /// Registers and stack; counts how often the thread was run or left.
    context: UnsafeCell<u32>,
    happened: AtomicBool,
}

// SAFETY: loom reports accesses to the cell that nothing separates: this is what the tests show.
unsafe impl Sync for Machine {}
// SAFETY: as above.
unsafe impl Send for Machine {}

impl Machine {
    fn new() -> Arc<Self> {
        let state = SleepState::new();
        state.cancel();
        let queues = [Mutex::new(Vec::new()), Mutex::new(Vec::new())];
        Arc::new(Self { state, queues, context: UnsafeCell::new(0), happened: AtomicBool::new(false) })
    }

    /// The CPU that has the right to run the thread does so.
    fn run(&self) {
        // SAFETY: checked by loom.
        self.context.with_mut(|n| unsafe { *n += 1 });
    }

    fn put(&self, cpu: usize, task: KBox<u64>) {
        self.queues[cpu].lock().unwrap().push(task);
    }

    /// Runs the thread if it is on this CPU's queue.
    fn pick(&self, cpu: usize) -> u32 {
        let task = self.queues[cpu].lock().unwrap().pop();
        if task.is_some() {
            self.run();
        }
        task.is_some().into()
    }
}

#[test]
fn a_thread_that_is_woken_while_it_leaves_its_cpu_runs_on_one_cpu() {
    model(4, || {
        let machine = Machine::new();
        let other = machine.clone();
        let waker = threads::spawn(move || {
            other.happened.store(true, Ordering::Relaxed);
            if let Woken::Enqueue(task) = other.state.wake(SLEEPING) {
                other.put(1, task);
            }
            other.pick(1)
        });
        let task = KBox::try_new(1).unwrap();
        machine.run();
        machine.state.begin(INTERRUPTIBLE);
        let mut ran = 0;
        if machine.happened.load(Ordering::Relaxed) || machine.state.commit().is_none() {
            machine.state.cancel();
            machine.run();
            ran = 1;
        } else {
            // The switch saves the registers; the next thread settles the one that was left.
            machine.run();
            if let Some(task) = machine.state.settle(task) {
                machine.put(0, task);
            }
        }
        ran += machine.pick(0);
        ran += waker.join().unwrap();
        assert_eq!(ran, 1);
    });
}

#[test]
fn a_preempted_thread_is_pulled_by_another_cpu_only_when_it_is_off_its_own() {
    model(4, || {
        let machine = Machine::new();
        let other = machine.clone();
        let puller = threads::spawn(move || {
            let task = match other.queues[0].try_lock() {
                Ok(mut queue) => queue.pop(),
                Err(_) => None,
            };
            if let Some(task) = task {
                other.put(1, task);
            }
            other.pick(1)
        });
        machine.run();
        machine.run(); // the switch saves it
        machine.put(0, KBox::try_new(1).unwrap());
        let ran = machine.pick(0) + puller.join().unwrap();
        assert_eq!(ran, 1);
    });
}

/// A CPU that idles, as `idle_once`, `switch_from_current` and `place` see it.
struct Idle {
    queue: Mutex<u32>,
    /// NEED_RESCHED of the idle thread.
    asked: AtomicBool,
    interrupt: Notify,
    interrupts: AtomicU32,
}

impl Idle {
    /// `place` on the queue of a CPU that runs its idle thread.
    fn place(&self) {
        let kick = {
            let mut queue = self.queue.lock().unwrap();
            *queue += 1;
            let asked = self.asked.load(Ordering::Acquire);
            if !asked {
                self.asked.store(true, Ordering::Release);
            }
            !asked
        };
        if kick {
            self.interrupts.fetch_add(1, Ordering::Release);
            self.interrupt.notify();
        }
    }

    /// One round of the idle loop; how many threads it found.
    fn once(&self) -> u32 {
        if !self.asked.load(Ordering::Acquire) {
            // WFI: an interrupt that came already ends it at once. One that never comes is a
            // deadlock, which loom reports.
            self.interrupt.wait();
        }
        if !self.asked.load(Ordering::Acquire) {
            return 0;
        }
        self.asked.store(false, Ordering::Release);
        core::mem::take(&mut *self.queue.lock().unwrap())
    }
}

#[test]
fn an_idle_cpu_finds_every_thread_that_is_placed_on_its_queue() {
    model(3, || {
        let idle = Arc::new(Idle {
            queue: Mutex::new(0),
            asked: AtomicBool::new(false),
            interrupt: Notify::new(),
            interrupts: new_word(),
        });
        let placers: Vec<_> = (0..2)
            .map(|_| {
                let idle = idle.clone();
                threads::spawn(move || idle.place())
            })
            .collect();
        let mut found = 0;
        while found < 2 {
            found += idle.once();
        }
        placers.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(found, 2);
    });
}

/// A deadline and a waker end one sleep: the thread is queued once, and the later of the two finds
/// it awake.
#[test]
fn a_deadline_and_a_wake_up_put_a_thread_on_one_queue() {
    model(2, || {
        let (me, happened) = (Sleeper::new(), Arc::new(AtomicBool::new(false)));
        let (timed, woken, theirs) = (me.clone(), me.clone(), happened.clone());
        let timer = threads::spawn(move || timed.wake(SLEEPING));
        let waker = threads::spawn(move || {
            theirs.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            woken.wake(SLEEPING)
        });
        while !happened.load(Ordering::Relaxed) {
            me.state.begin(INTERRUPTIBLE);
            if happened.load(Ordering::Relaxed) {
                break;
            }
            me.schedule();
        }
        me.state.cancel();
        timer.join().unwrap();
        waker.join().unwrap();
    });
}
