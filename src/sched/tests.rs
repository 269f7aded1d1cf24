//! The scheduler as a whole, on four simulated CPUs: real switches between real threads.
//!
//! One machine serves all tests of the process. Its CPUs have no interrupts of their own: an idle
//! CPU looks for what is due on each round, and a thread that runs does so in [`poll`]. Time is
//! the simulated counter, which idle CPUs advance.

use crate::{idle, kthread, thread::ThreadSpec, *};
use abi::{CpuId, CpuMask, Nanos};
use arch::{PageFault, UserException, UserRegs, sim};
use kalloc::KArc;
use std::{
    sync::{
        Arc, Barrier, Mutex as HostMutex, Once, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};
use sync::{LockClass, SpinLock};

const CPUS: usize = 4;
static CLASS: LockClass = LockClass::new("sched_test", 1100);
static SLEEPING: LockClass = LockClass::new("sched_test_mutex", 150);

struct TestKernel;
impl arch::Kernel for TestKernel {
    fn syscall(&self, _: &mut UserRegs) {}
    fn user_fault(&self, _: &mut UserRegs, _: PageFault) {}
    fn kernel_user_copy_fault(&self, _: PageFault) -> bool {
        false
    }
    fn user_exception(&self, _: &mut UserRegs, _: UserException) {}
    fn interrupt(&self) {}
    fn exit_work(&self, _: &mut UserRegs, _: u32) {}
    fn preempt_schedule(&self) {
        crate::preempt_schedule();
    }
}

static CALLS: [AtomicBool; CPUS] = [const { AtomicBool::new(false) }; CPUS];

struct TestIpi;
impl Ipi for TestIpi {
    fn reschedule(&self, _: CpuId) {}
    fn call(&self, cpu: CpuId) {
        CALLS[cpu.index()].store(true, SeqCst);
    }
}

/// What interrupts would do on this CPU now.
fn poll() {
    let cpu = arch::cpu::id();
    let due = sim::deadline().is_some_and(|at| at <= arch::clock::counter());
    if due {
        sim::interrupt(time::interrupt);
    }
    if CALLS[cpu.index()].swap(false, SeqCst) {
        sim::interrupt(smp::run_calls);
    }
    if need_resched() {
        crate::preempt_schedule();
    }
}

/// Works for so long, as an interruptible program would.
fn work(span: u64) {
    let step = 200_000;
    for _ in 0..span / step {
        sim::advance_counter(step);
        poll();
        std::thread::yield_now();
    }
}

fn machine() {
    static START: Once = Once::new();
    START.call_once(|| {
        let (ready, wait) = mpsc::channel();
        std::thread::spawn(move || {
            sim::set_counter(1_000_000_000);
            arch::set_kernel(&TestKernel);
            time::init();
            set_ipi(&TestIpi);
            let started = Barrier::new(CPUS);
            let ready = HostMutex::new(ready);
            sim::run_on_cpus(CPUS, |cpu| {
                started.wait();
                init_boot_cpu().unwrap();
                if started.wait().is_leader() {
                    for cpu in 0..CPUS as u32 {
                        start_rcu_thread(CpuId(cpu)).unwrap();
                    }
                    kthread::start_kthreadd().unwrap();
                    ready.lock().unwrap().send(()).unwrap();
                }
                let _ = cpu;
                arch::preempt::disable();
                loop {
                    idle::idle_once();
                    sim::advance_counter(1_000);
                    poll();
                    std::thread::yield_now();
                }
            });
        });
        wait.recv_timeout(Duration::from_secs(20)).unwrap();
    });
}

/// A kernel thread on the machine, from a host thread that is not part of it.
fn spawn_on(mask: CpuMask, name: &str, f: impl FnOnce() + Send + 'static) -> KArc<Thread> {
    machine();
    let spec = ThreadSpec {
        name: thread_name(name),
        nice: 0,
        affinity: mask,
        payload: None,
        user_space: None,
        stack: stack(),
    };
    create_kernel(spec, f).inspect(|t| start(t)).unwrap()
}

fn stack() -> frames::vmalloc::KernelStack {
    frames::vmalloc::alloc_stack().unwrap()
}

/// Runs `f` in a kernel thread and returns what it returns.
fn run<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (tx, rx) = mpsc::channel();
    spawn_on(CpuMask::ALL, "test", move || tx.send(f()).unwrap());
    rx.recv_timeout(Duration::from_secs(60)).expect("the thread hangs")
}

#[test]
fn a_kernel_thread_runs_and_its_memory_goes_back() {
    let (tx, rx) = mpsc::channel();
    let thread = spawn_on(CpuMask::ALL, "short", move || tx.send(crate::current().id()).unwrap());
    assert_eq!(rx.recv_timeout(Duration::from_secs(20)).unwrap(), thread.id());
    // The switch away, then a grace period.
    while KArc::strong_count(&thread) != 1 {
        std::thread::yield_now();
    }
    assert_eq!(thread.state(), State::Dead);
    assert_eq!(&thread.name()[..6], b"short\0");
}

#[test]
fn a_thread_that_is_not_started_goes_when_it_is_discarded() {
    machine();
    let (name, payload, user_space) = (thread_name("never"), None, None);
    let spec = ThreadSpec { name, nice: 0, affinity: CpuMask::ALL, payload, user_space, stack: stack() };
    let thread = create_kernel(spec, || unreachable!()).unwrap();
    assert_eq!(thread.state(), State::New);
    discard(&thread);
    start(&thread);
    assert_eq!(KArc::strong_count(&thread), 1);
}

#[test]
fn affinity_is_kept_and_can_be_changed_by_the_thread() {
    let (tx, rx) = mpsc::channel();
    spawn_on(CpuMask::of(CpuId(2)), "pinned", move || {
        let first = arch::cpu::id();
        assert!(set_affinity(&crate::current(), CpuMask::of(CpuId(1))));
        tx.send((first, arch::cpu::id())).unwrap();
    });
    assert_eq!(rx.recv_timeout(Duration::from_secs(20)).unwrap(), (CpuId(2), CpuId(1)));
}

#[test]
fn threads_hand_a_token_round_a_ring_without_losing_a_wake_up() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 2_000;
    struct Ring {
        turn: AtomicUsize,
        queues: [WaitQueue; THREADS],
    }
    let ring = Arc::new(Ring { turn: AtomicUsize::new(0), queues: [const { WaitQueue::new() }; THREADS] });
    let (tx, rx) = mpsc::channel();
    for n in 0..THREADS {
        let (ring, tx) = (ring.clone(), tx.clone());
        spawn_on(CpuMask::ALL, "ring", move || {
            for round in 0..ROUNDS {
                let mine = round * THREADS + n;
                let got = ring.queues[n].wait_until(Sleep::Uninterruptible, None, || {
                    (ring.turn.load(SeqCst) == mine).then_some(())
                });
                assert_eq!(got, Outcome::Ready(()));
                ring.turn.store(mine + 1, SeqCst);
                ring.queues[(n + 1) % THREADS].wake_one();
            }
            tx.send(()).unwrap();
        });
    }
    for _ in 0..THREADS {
        rx.recv_timeout(Duration::from_secs(50)).expect("a wake-up was lost");
    }
    assert_eq!(ring.turn.load(SeqCst), THREADS * ROUNDS);
}

#[test]
fn a_deadline_ends_a_sleep_and_not_before() {
    let (before, after, outcome) = run(|| {
        let queue = WaitQueue::new();
        let before = time::monotonic();
        let deadline = before.saturating_add(Nanos::from_millis(5));
        let outcome = queue.wait_until(Sleep::Interruptible, Some(deadline), || None::<()>);
        (before, time::monotonic(), outcome)
    });
    assert_eq!(outcome, Outcome::TimedOut);
    assert!(after.0 >= before.0 + 5_000_000);
}

#[test]
fn signals_end_only_the_sleeps_that_they_may() {
    use arch::thread::{FATAL_PENDING, SIGNAL_PENDING};
    let done = Arc::new(AtomicU32::new(0));
    let (tx, rx) = mpsc::channel();
    let sleeper = |how: Sleep, bit: u32| {
        let (done, tx) = (done.clone(), tx.clone());
        spawn_on(CpuMask::ALL, "sleeper", move || {
            let queue = WaitQueue::new();
            let outcome = queue.wait_until(how, None, || None::<()>);
            done.fetch_or(bit, SeqCst);
            tx.send((bit, outcome)).unwrap();
        })
    };
    let a = sleeper(Sleep::Interruptible, 1);
    let b = sleeper(Sleep::Killable, 2);
    while a.state() != State::Interruptible || b.state() != State::Uninterruptible {
        std::thread::yield_now();
    }
    b.head().set_flag(SIGNAL_PENDING);
    signal_wake(&b, false);
    a.head().set_flag(SIGNAL_PENDING);
    signal_wake(&a, false);
    assert_eq!(rx.recv_timeout(Duration::from_secs(20)).unwrap(), (1, Outcome::Interrupted));
    assert_eq!(done.load(SeqCst), 1);
    b.head().set_flag(FATAL_PENDING);
    signal_wake(&b, true);
    assert_eq!(rx.recv_timeout(Duration::from_secs(20)).unwrap(), (2, Outcome::Interrupted));
}

#[test]
fn a_mutex_lets_one_in_at_a_time_and_loses_nobody() {
    static COUNT: Mutex<u64> = Mutex::new(0, &SLEEPING);
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    let (tx, rx) = mpsc::channel();
    for _ in 0..8 {
        let tx = tx.clone();
        spawn_on(CpuMask::ALL, "mutex", move || {
            for n in 0..500 {
                let mut guard = COUNT.lock();
                assert_eq!(INSIDE.fetch_add(1, SeqCst), 0);
                *guard += 1;
                if n % 7 == 0 {
                    yield_now();
                }
                INSIDE.fetch_sub(1, SeqCst);
            }
            tx.send(()).unwrap();
        });
    }
    for _ in 0..8 {
        rx.recv_timeout(Duration::from_secs(50)).expect("a waiter was forgotten");
    }
    assert_eq!(run(|| *COUNT.lock()), 8 * 500);
}

#[test]
fn readers_share_an_rw_mutex_and_writers_are_alone() {
    static DATA: RwMutex<(u64, u64)> = RwMutex::new((0, 0), &SLEEPING);
    let (tx, rx) = mpsc::channel();
    for n in 0..8 {
        let tx = tx.clone();
        spawn_on(CpuMask::ALL, "rw", move || {
            for i in 0..300 {
                if n % 2 == 0 {
                    let mut data = DATA.write();
                    data.0 += 1;
                    if i % 5 == 0 {
                        yield_now();
                    }
                    data.1 += 1;
                    let shared = data.downgrade();
                    assert_eq!(shared.0, shared.1);
                } else {
                    let data = DATA.read();
                    assert_eq!(data.0, data.1);
                    if i % 3 == 0 {
                        yield_now();
                    }
                }
            }
            tx.send(()).unwrap();
        });
    }
    for _ in 0..8 {
        rx.recv_timeout(Duration::from_secs(50)).expect("a waiter was forgotten");
    }
    assert_eq!(run(|| *DATA.read()), (1200, 1200));
}

#[test]
fn an_exclusive_wake_up_that_a_signal_made_useless_goes_to_the_next() {
    use arch::thread::SIGNAL_PENDING;
    static GATE: WaitQueue = WaitQueue::new();
    static TOKENS: AtomicU32 = AtomicU32::new(0);
    let take = || TOKENS.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).ok();
    let (tx, rx) = mpsc::channel();
    let mut threads = Vec::new();
    for _ in 0..6 {
        let tx = tx.clone();
        threads.push(spawn_on(CpuMask::ALL, "gate", move || {
            tx.send(GATE.wait_exclusive(Sleep::Interruptible, None, take).ready().is_some()).unwrap();
        }));
    }
    while threads.iter().any(|t| t.state() != State::Interruptible) {
        std::thread::yield_now();
    }
    for (n, thread) in threads.iter().enumerate() {
        if n % 2 == 0 {
            thread.head().set_flag(SIGNAL_PENDING);
            signal_wake(thread, false);
        }
        TOKENS.fetch_add(1, SeqCst);
        GATE.wake_one();
    }
    let passed = (0..6).filter(|_| rx.recv_timeout(Duration::from_secs(20)).expect("a waiter was forgotten")).count();
    assert!(passed >= 3, "those without a signal pass");
}

#[test]
fn competitors_on_one_cpu_share_it_by_weight() {
    static SUMS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    static STOP: AtomicBool = AtomicBool::new(false);
    let (tx, rx) = mpsc::channel();
    for (n, nice) in [0i8, 5].into_iter().enumerate() {
        let tx = tx.clone();
        spawn_on(CpuMask::of(CpuId(3)), "share", move || {
            crate::current().set_nice(nice);
            yield_now();
            while !STOP.load(SeqCst) {
                work(1_000_000);
                let sum = sum_exec_now(&crate::current()).0;
                SUMS[n].store(sum, SeqCst);
                if sum > 3_000_000_000 {
                    STOP.store(true, SeqCst);
                }
            }
            tx.send(()).unwrap();
        });
    }
    for _ in 0..2 {
        rx.recv_timeout(Duration::from_secs(50)).unwrap();
    }
    let [a, b] = [SUMS[0].load(SeqCst), SUMS[1].load(SeqCst)];
    // Five steps of 1.25: 3.05. Other tests advance the same clock, so only roughly.
    assert!(a > 2 * b && a < 5 * b, "{a} to {b}");
}

#[test]
fn poll_style_callbacks_are_called_until_their_registration_goes() {
    struct Note(AtomicU32);
    impl WakeCallback for Note {
        fn woken(&self, wake: Wake) -> bool {
            self.0.fetch_add(wake.key, SeqCst);
            true
        }
    }
    machine();
    let queue = WaitQueue::new();
    let note = KArc::try_new(Note(AtomicU32::new(0))).unwrap();
    let registration = queue.add_callback(kalloc::karc_as!(note.clone() => dyn WakeCallback), !0, false).unwrap();
    queue.wake_key(4);
    assert!(queue.has_waiters());
    drop(registration);
    queue.wake_key(1);
    assert_eq!(note.0.load(SeqCst), 4);
    let survivor = queue.add_callback(kalloc::karc_as!(note.clone() => dyn WakeCallback), !0, false).unwrap();
    drop(queue);
    drop(survivor);
    assert_eq!(KArc::strong_count(&note), 1);
}

#[test]
fn callbacks_are_called_for_their_keys_and_exclusive_ones_one_at_a_time() {
    struct Count(AtomicU32, bool);
    impl WakeCallback for Count {
        fn woken(&self, _: Wake) -> bool {
            self.0.fetch_add(1, SeqCst);
            self.1
        }
    }
    machine();
    let queue = WaitQueue::new();
    let make = |takes| KArc::try_new(Count(AtomicU32::new(0), takes)).unwrap();
    let (idle, first, second, all) = (make(false), make(true), make(true), make(true));
    let add = |c: &KArc<Count>, mask, exclusive| queue.add_callback(kalloc::karc_as!(c.clone() => dyn WakeCallback), mask, exclusive).unwrap();
    let _held = [add(&idle, 1, true), add(&first, 1, true), add(&second, 1, true), add(&all, 2, false)];
    let counts = || [&idle, &first, &second, &all].map(|c| c.0.load(SeqCst));
    queue.wake_key(1);
    assert_eq!(counts(), [1, 1, 0, 0], "who takes nothing does not use the wake-up up");
    queue.wake_key(2);
    assert_eq!(counts(), [1, 1, 0, 1]);
    queue.wake_all();
    assert_eq!(counts(), [2, 2, 1, 2], "an unknown key is for everybody");
}

#[test]
fn a_stopped_thread_goes_on_when_it_is_unparked() {
    let (tx, rx) = mpsc::channel();
    let thread = spawn_on(CpuMask::ALL, "stops", move || {
        prepare_to_park();
        park_current(Parked::Stopped);
        tx.send(()).unwrap();
    });
    while thread.state() != State::Stopped {
        std::thread::yield_now();
    }
    assert!(!wake(&thread), "an ordinary wake-up is not enough");
    assert!(unpark(&thread));
    rx.recv_timeout(Duration::from_secs(20)).unwrap();
}

#[test]
fn a_call_runs_once_on_each_cpu_of_the_mask() {
    let seen = run(|| {
        let seen = Arc::new(AtomicU64::new(0));
        let theirs = seen.clone();
        smp::call_on(CpuMask::first(CPUS).without(CpuId(1)), move |cpu| {
            assert_eq!(theirs.fetch_or(1 << cpu.0, SeqCst) & 1 << cpu.0, 0);
        })
        .unwrap();
        seen.load(SeqCst)
    });
    assert_eq!(seen, 0b1101);
}

#[test]
fn kthreadd_makes_threads_for_others() {
    static REGISTERED: SpinLock<Option<u64>> = SpinLock::new(None, &CLASS);
    static RAN: Completion = Completion::new();
    machine();
    set_kthread_register(|thread| {
        *REGISTERED.lock() = Some(thread.id());
        if thread.name() == thread_name("armed") {
            // In kthreadd's context: its next allocation fails.
            kalloc::fail_nth(1);
        }
    });
    let id = run(|| {
        let thread = kthread::spawn("worker", || RAN.complete()).unwrap();
        RAN.wait();
        thread.id()
    });
    assert!(REGISTERED.lock().is_some_and(|last| last >= id));
    a_thread_that_kthreadd_cannot_make_is_reported();
}

/// Part of the test above, whose hook it needs.
fn a_thread_that_kthreadd_cannot_make_is_reported() {
    run(|| {
        kthread::spawn("armed", || ()).unwrap();
        let kept = Arc::new(());
        let theirs = kept.clone();
        let refused = kthread::spawn("refused", move || drop(theirs));
        assert_eq!(refused.map(|thread| thread.id()), Err(abi::Errno::ENOMEM));
        assert_eq!(Arc::strong_count(&kept), 1, "what it was to run is dropped");
        let done = Arc::new(Completion::new());
        let theirs = done.clone();
        kthread::spawn("after", move || theirs.complete()).unwrap();
        done.wait();
    });
}

#[test]
fn a_worker_is_stopped_and_says_how_it_ended() {
    machine();
    run(|| {
        let rounds = Arc::new(AtomicU32::new(0));
        let theirs = rounds.clone();
        let worker = Worker::create("stops", move |control| {
            control.idle_until(|| theirs.load(SeqCst) != 0);
            theirs.store(2, SeqCst);
            control.idle_until(|| false);
            assert!(control.should_stop());
            Err(abi::Errno::EIO)
        })
        .unwrap();
        worker.start();
        rounds.store(1, SeqCst);
        worker.wake();
        while rounds.load(SeqCst) != 2 {
            yield_now();
        }
        assert_eq!(worker.stop(), Err(abi::Errno::EIO));
    });
}

#[test]
fn a_worker_that_is_stopped_before_it_starts_never_runs() {
    machine();
    run(|| {
        let ran = Arc::new(AtomicBool::new(false));
        let theirs = ran.clone();
        let worker = Worker::create("never", move |_| {
            theirs.store(true, SeqCst);
            Ok(())
        })
        .unwrap();
        assert_eq!(worker.stop(), Err(abi::Errno::EINTR));
        assert!(!ran.load(SeqCst));
    });
}

#[test]
fn a_parked_worker_does_nothing_until_it_is_unparked() {
    machine();
    run(|| {
        let rounds = Arc::new(AtomicU32::new(0));
        let theirs = rounds.clone();
        let worker = Worker::create("parks", move |control| {
            while !control.should_stop() {
                control.park_if_asked();
                theirs.fetch_add(1, SeqCst);
                yield_now();
            }
            Ok(())
        })
        .unwrap();
        worker.park().unwrap();
        assert_eq!(rounds.load(SeqCst), 0, "parked before its first round");
        worker.unpark();
        while rounds.load(SeqCst) == 0 {
            yield_now();
        }
        worker.park().unwrap();
        let before = rounds.load(SeqCst);
        for _ in 0..100 {
            yield_now();
        }
        assert_eq!(rounds.load(SeqCst), before);
        assert_eq!(worker.stop(), Ok(()), "a stop ends parking too");
    });
}

#[test]
fn a_grace_period_ends_while_all_cpus_idle_or_work() {
    run(sync::rcu::synchronize);
}

#[test]
fn work_spreads_over_the_cpus() {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let all: Arc<OnceLock<()>> = Arc::default();
    let (tx, rx) = mpsc::channel();
    for _ in 0..CPUS {
        let (all, tx) = (all.clone(), tx.clone());
        spawn_on(CpuMask::ALL, "spread", move || {
            while all.get().is_none() {
                if SEEN.fetch_or(1 << arch::cpu::id().0, SeqCst).count_ones() as usize == CPUS {
                    let _ = all.set(());
                }
                work(1_000_000);
            }
            tx.send(()).unwrap();
        });
    }
    for _ in 0..CPUS {
        rx.recv_timeout(Duration::from_secs(50)).expect("the work stays on too few CPUs");
    }
}

#[test]
fn no_lock_rule_was_broken() {
    a_kernel_thread_runs_and_its_memory_goes_back();
    assert_eq!(sync::lockdep::violations(), 0);
}
