//! Models of the locks and of RCU: loom runs them in every order that the memory model allows.
//! `RUSTFLAGS="--cfg loom" cargo test -p sync --release --test loom`
#![cfg(loom)]

use abi::CpuId;
use core::ptr::NonNull;
use loom::{cell::UnsafeCell, thread};
use std::sync::Arc;
use sync::{
    LockClass, RwSpinLock, SeqCount, SpinLock,
    atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering, model},
    internals::{NodePool, QueueLock, Rcu},
    rcu::Head,
};

/// A queued lock with nodes of its own around data that loom watches.
struct Locked<const CPUS: usize> {
    lock: QueueLock,
    pool: NodePool<CPUS>,
    data: UnsafeCell<u32>,
    /// How often a newcomer tries to pass the queue.
    tries: u32,
}

// Loom reports accesses to the cell that the lock does not separate.
unsafe impl<const CPUS: usize> Sync for Locked<CPUS> {}
unsafe impl<const CPUS: usize> Send for Locked<CPUS> {}

impl<const CPUS: usize> Locked<CPUS> {
    fn new(tries: u32) -> Arc<Self> {
        let new = Self { lock: QueueLock::new(), pool: NodePool::new(), data: UnsafeCell::new(0), tries };
        new.pool.touch();
        assert!(new.lock.try_lock());
        new.lock.unlock();
        Arc::new(new)
    }

    fn add(&self, cpu: usize) {
        self.lock.lock(&self.pool, self.tries, || cpu);
        self.data.with_mut(|n| unsafe { *n += 1 });
        self.lock.unlock();
    }

    fn get(&self) -> u32 {
        self.data.with(|n| unsafe { *n })
    }
}

fn contend<const CPUS: usize>(preemptions: usize, rounds: usize, tries: u32) {
    model(preemptions, move || {
        let locked = Locked::<CPUS>::new(tries);
        let threads: Vec<_> = (1..CPUS)
            .map(|cpu| {
                let locked = locked.clone();
                thread::spawn(move || (0..rounds).for_each(|_| locked.add(cpu)))
            })
            .collect();
        (0..rounds).for_each(|_| locked.add(0));
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(locked.get(), (CPUS * rounds) as u32);
    });
}

#[test]
fn queue_lock_excludes_two_cpus_that_take_it_twice() {
    contend::<2>(3, 2, 0);
}

#[test]
fn queue_lock_hands_over_between_three_cpus() {
    contend::<3>(2, 1, 0);
}

#[test]
fn queue_lock_excludes_when_newcomers_pass_the_queue() {
    contend::<2>(3, 2, 2);
}

#[test]
fn queue_lock_hands_over_when_newcomers_pass_the_queue() {
    contend::<3>(2, 1, 1);
}

#[test]
fn queue_lock_try_lock_excludes() {
    model(3, || {
        let locked = Locked::<2>::new(0);
        let other = {
            let locked = locked.clone();
            thread::spawn(move || locked.add(1))
        };
        let got = locked.lock.try_lock();
        if got {
            locked.data.with_mut(|n| unsafe { *n += 1 });
            locked.lock.unlock();
        }
        other.join().unwrap();
        assert_eq!(locked.get(), 1 + u32::from(got));
    });
}

#[test]
fn an_interrupted_waiter_has_a_second_node() {
    // The CPU waits in one lock while its "interrupt" takes another, as nested levels do: here
    // one thread holds B and takes A, the other only A; both locks share the nodes.
    model(2, || {
        let a = Locked::<2>::new(0);
        let b = Arc::new(QueueLock::new());
        assert!(b.try_lock());
        b.unlock();
        let other = {
            let (a, b) = (a.clone(), b.clone());
            thread::spawn(move || {
                b.lock(&a.pool, 0, || 1);
                a.add(1);
                b.unlock();
            })
        };
        b.lock(&a.pool, 0, || 0);
        a.add(0);
        b.unlock();
        other.join().unwrap();
        assert_eq!(a.get(), 2);
    });
}

static CLASS: LockClass = LockClass::new("model", 1);

#[test]
fn spin_lock_guards_its_data() {
    model(3, || {
        let lock = Arc::new(SpinLock::new(0, &CLASS));
        drop(lock.lock());
        let other = {
            let lock = lock.clone();
            thread::spawn(move || *lock.lock() += 1)
        };
        *lock.lock() += 1;
        other.join().unwrap();
        assert_eq!(*lock.lock(), 2);
    });
}

#[test]
fn rw_lock_separates_a_writer_from_readers() {
    model(2, || {
        let lock = Arc::new(RwSpinLock::new((0, 0), &CLASS));
        lock.touch();
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let lock = lock.clone();
                thread::spawn(move || {
                    let mut both = lock.write();
                    both.0 += 1;
                    both.1 += 1;
                })
            })
            .collect();
        {
            let both = lock.read();
            assert_eq!(both.0, both.1);
        }
        writers.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(*lock.read(), (2, 2));
    });
}

#[test]
fn sequence_count_readers_never_keep_half_a_change() {
    model(3, || {
        let shared = Arc::new((SeqCount::new(), AtomicU32::new(0), AtomicU32::new(0)));
        shared.0.write_begin();
        shared.1.store(0, Ordering::Relaxed);
        shared.2.store(0, Ordering::Relaxed);
        shared.0.write_end();
        let writer = {
            let shared = shared.clone();
            thread::spawn(move || {
                for n in 1..3 {
                    shared.0.write_begin();
                    shared.1.store(n, Ordering::Relaxed);
                    shared.2.store(n, Ordering::Relaxed);
                    shared.0.write_end();
                }
            })
        };
        if let Some(seen) = shared.0.try_read_begin() {
            let (a, b) = (shared.1.load(Ordering::Relaxed), shared.2.load(Ordering::Relaxed));
            if !shared.0.read_retry(seen) {
                assert_eq!(a, b);
            }
        }
        writer.join().unwrap();
    });
}

/// RCU's state for one run, for two CPUs. It is too large for the stacks of loom's threads, so it
/// is copied from a static, of which nothing was ever used.
fn new_rcu() -> Box<Rcu> {
    static UNUSED: Rcu = Rcu::new(false);
    let mut new = Box::<Rcu>::new_uninit();
    // SAFETY: a bitwise copy of a value that owns nothing and was never used is such a value.
    let new = unsafe {
        std::ptr::copy_nonoverlapping(&UNUSED, new.as_mut_ptr(), 1);
        new.assume_init()
    };
    new.touch(2);
    new
}

/// Two objects of which one is current; the old one is overwritten with 0 when it is freed.
struct Published {
    rcu: Box<Rcu>,
    current: AtomicUsize,
    objects: [UnsafeCell<u32>; 2],
}

// Loom reports accesses that RCU does not separate.
unsafe impl Sync for Published {}
unsafe impl Send for Published {}

const READER: CpuId = CpuId(0);
const UPDATER: CpuId = CpuId(1);

impl Published {
    fn new() -> Arc<Self> {
        let new = Self {
            rcu: new_rcu(),
            current: AtomicUsize::new(0),
            objects: [UnsafeCell::new(1), UnsafeCell::new(2)],
        };
        new.current.load(Ordering::Relaxed);
        Arc::new(new)
    }

    /// A read section: what it finds is not freed.
    fn read(&self) {
        let n = self.current.load(Ordering::Acquire);
        self.objects[n].with(|object| assert_ne!(unsafe { *object }, 0));
    }

    /// Replaces the current object, waits for a grace period, and frees the old one.
    fn replace(&self, help: impl Fn(&Rcu)) {
        self.current.store(1, Ordering::Release);
        let target = self.rcu.request(None);
        while self.rcu.completed() < target {
            self.rcu.quiescent(UPDATER);
            help(&self.rcu);
            thread::yield_now();
        }
        self.objects[0].with_mut(|object| unsafe { *object = 0 });
    }
}

#[test]
fn rcu_reader_never_sees_what_was_freed() {
    model(2, || {
        let shared = Published::new();
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.read();
                shared.rcu.quiescent(READER);
                shared.read();
                shared.rcu.idle_enter(READER);
            })
        };
        shared.replace(|_| ());
        reader.join().unwrap();
    });
}

#[test]
fn rcu_counts_an_idle_cpu_as_quiescent_and_waits_for_it_after_idle() {
    model(2, || {
        let shared = Published::new();
        shared.rcu.idle_enter(READER);
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.rcu.idle_exit(READER);
                shared.read();
                shared.rcu.idle_enter(READER);
            })
        };
        shared.replace(|_| ());
        reader.join().unwrap();
    });
}

#[test]
fn rcu_helper_that_forces_ends_no_grace_period_early() {
    model(2, || {
        let shared = Published::new();
        shared.rcu.idle_enter(READER);
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.rcu.idle_exit(READER);
                shared.read();
                shared.rcu.idle_enter(READER);
            })
        };
        shared.replace(|rcu| rcu.force(0));
        reader.join().unwrap();
    });
}

/// An object with its callback's node first, so that the node's address is the object's.
#[repr(C)]
struct Object {
    head: Head,
    alive: UnsafeCell<bool>,
}

unsafe fn free(head: NonNull<Head>) {
    let object = unsafe { head.cast::<Object>().as_ref() };
    object.alive.with_mut(|alive| unsafe { *alive = false });
}

#[test]
fn rcu_callback_runs_after_the_readers_that_could_see_its_object() {
    model(2, || {
        let object: &'static Object =
            Box::leak(Box::new(Object { head: Head::new(), alive: UnsafeCell::new(true) }));
        // The cell itself belongs to this run and is dropped by hand at its end.
        let shared = Arc::new((new_rcu(), AtomicPtr::new(std::ptr::from_ref(object).cast_mut())));
        shared.1.load(Ordering::Relaxed);
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || {
                let seen = shared.1.load(Ordering::Acquire);
                if let Some(seen) = unsafe { seen.as_ref() } {
                    seen.alive.with(|alive| assert!(unsafe { *alive }));
                }
                shared.0.idle_enter(READER);
            })
        };
        shared.1.store(std::ptr::null_mut(), Ordering::Release);
        unsafe { shared.0.call(UPDATER, NonNull::from(&object.head), free) };
        let mut ran = 0;
        while ran == 0 {
            shared.0.quiescent(UPDATER);
            ran += shared.0.run_callbacks(UPDATER);
            thread::yield_now();
        }
        assert_eq!(ran, 1);
        reader.join().unwrap();
    });
}
