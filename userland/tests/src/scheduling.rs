//! How threads are scheduled: policies, priorities and their inheritance, restartable sequences,
//! barriers on all CPUs.

use crate::check::*;
use libc::*;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};

cases![scheduling:
    policies_are_kept_and_reported, scheduler_errors, attributes_round_trip, attribute_sizes, priorities_need_a_right,
    limits_give_the_right, reset_on_fork_gives_ordinary_children, policy_is_inherited, proc_shows_policy_and_priority,
    real_time_runs_first, round_robin_shares_and_fifo_does_not, real_time_waiter_is_woken_first, owner_inherits_priority,
    priority_passes_through_a_chain, wake_up_by_priority_of_locks, rr_interval_tells_the_slice, rseq_registration_rules, rseq_names_the_cpu,
    rseq_sequence_is_aborted, rseq_signal_aborts_a_sequence, rseq_with_wrong_signature_kills, membarrier_commands, membarrier_aborts_a_sequence,
];

fn set(pid: i32, policy: i32, priority: i32) -> i64 {
    // SAFETY: a live word.
    unsafe { syscall(SYS_sched_setscheduler, pid, policy, &priority) }
}

fn policy_of(pid: i32) -> i64 {
    unsafe { syscall(SYS_sched_getscheduler, pid) }
}

fn priority_of(pid: i32) -> i32 {
    let mut priority = -1;
    unsafe { syscall(SYS_sched_getparam, pid, &mut priority) };
    priority
}

fn policies_are_kept_and_reported() -> Outcome {
    eq!(policy_of(0), SCHED_OTHER as i64);
    for (policy, priority) in [(SCHED_FIFO, 1), (SCHED_FIFO, 99), (SCHED_RR, 50), (SCHED_BATCH, 0), (SCHED_IDLE, 0), (SCHED_OTHER, 0)] {
        eq!(set(0, policy, priority), 0);
        eq!((policy_of(0), priority_of(0)), (policy as i64, priority));
        eq!(policy_of(unsafe { getpid() }), policy as i64);
    }
    eq!(set(0, SCHED_RR, 5), 0);
    eq!(unsafe { syscall(SYS_sched_setparam, 0, &7) }, 0);
    eq!((policy_of(0), priority_of(0)), (SCHED_RR as i64, 7));
    for (policy, low, high) in [(SCHED_OTHER, 0, 0), (SCHED_FIFO, 1, 99), (SCHED_RR, 1, 99), (SCHED_BATCH, 0, 0), (SCHED_IDLE, 0, 0), (6, 0, 0)] {
        eq!(unsafe { (sched_get_priority_min(policy), sched_get_priority_max(policy)) }, (low, high));
    }
    errno!(sched_get_priority_max(4), EINVAL);
    errno!(sched_get_priority_min(-1), EINVAL);
    Ok(())
}

fn scheduler_errors() -> Outcome {
    errno!(set(0, SCHED_FIFO, 0), EINVAL);
    errno!(set(0, SCHED_FIFO, 100), EINVAL);
    errno!(set(0, SCHED_OTHER, 1), EINVAL);
    errno!(set(0, 4, 0), EINVAL);
    errno!(set(0, 6, 0), EINVAL);
    errno!(set(0, -1, 0), EINVAL);
    errno!(set(-1, SCHED_OTHER, 0), EINVAL);
    errno!(set(0x3fff_fff0, SCHED_OTHER, 0), ESRCH);
    errno!(syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, 0usize), EINVAL);
    errno!(syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, 8usize), EFAULT);
    errno!(syscall(SYS_sched_getparam, 0, 0usize), EINVAL);
    errno!(syscall(SYS_sched_getparam, -1, 8usize), EINVAL);
    errno!(syscall(SYS_sched_getparam, 0, 8usize), EFAULT);
    errno!(policy_of(-1), EINVAL);
    errno!(policy_of(0x3fff_fff0), ESRCH);
    eq!(unsafe { syscall(SYS_sched_setparam, 0, &0) }, 0);
    errno!(syscall(SYS_sched_setparam, 0, &1), EINVAL);
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Attr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    deadline: [u64; 3],
    clamp: [u32; 2],
}

fn set_attr(attr: &Attr) -> i64 {
    unsafe { syscall(SYS_sched_setattr, 0, attr, 0) }
}

fn get_attr(pid: i32) -> Attr {
    let mut attr = Attr::default();
    unsafe { syscall(SYS_sched_getattr, pid, &mut attr, 48, 0) };
    attr
}

fn attributes_round_trip() -> Outcome {
    let of = |policy, nice, priority, flags| Attr { size: 48, policy, nice, priority, flags, ..Attr::default() };
    for attr in [of(0, 5, 0, 0), of(0, -7, 0, 0), of(1, 0, 30, 0), of(2, 0, 31, 1), of(3, 4, 0, 0), of(5, 4, 0, 0), of(0, 0, 0, 0)] {
        eq!(set_attr(&attr), 0);
        eq!(get_attr(0), attr);
    }
    // SCHED_IDLE has no nice value of its own.
    eq!(set_attr(&of(5, 9, 0, 0)), 0);
    eq!(get_attr(0).nice, 0);
    eq!(set_attr(&of(0, 100, 0, 0)), 0);
    eq!(get_attr(0).nice, 19);
    // Keep the policy, keep the parameters.
    eq!(set_attr(&of(1, 0, 30, 0)), 0);
    eq!(set_attr(&of(0, 0, 40, 8)), 0);
    eq!(get_attr(0), of(1, 0, 40, 0));
    eq!(set_attr(&of(2, 0, 0, 0x10)), 0);
    // With its parameters a thread keeps its policy too.
    eq!(get_attr(0), of(1, 0, 40, 0));
    // The nice value was kept meanwhile.
    eq!(set(0, SCHED_OTHER, 0), 0);
    eq!(get_attr(0).nice, 19);
    Ok(())
}

fn attribute_sizes() -> Outcome {
    let mut big = [0u8; 80];
    big[0] = 80;
    ok!(syscall(SYS_sched_setattr, 0, big.as_ptr(), 0));
    big[70] = 1;
    errno!(syscall(SYS_sched_setattr, 0, big.as_ptr(), 0), E2BIG);
    eq!(big[0], 56);
    eq!(set_attr(&Attr::default()), 0);
    errno!(set_attr(&Attr { size: 47, ..Attr::default() }), E2BIG);
    errno!(set_attr(&Attr { size: 48, policy: u32::MAX, ..Attr::default() }), EINVAL);
    errno!(set_attr(&Attr { size: 48, flags: 1 << 40, ..Attr::default() }), EINVAL);
    errno!(syscall(SYS_sched_setattr, 0, 0usize, 0), EINVAL);
    errno!(syscall(SYS_sched_setattr, 0, &Attr::default(), 1), EINVAL);
    errno!(syscall(SYS_sched_setattr, 0x3fff_fff0, &Attr::default(), 0), ESRCH);
    let mut attr = Attr::default();
    errno!(syscall(SYS_sched_getattr, 0, &mut attr, 47, 0), EINVAL);
    errno!(syscall(SYS_sched_getattr, 0, &mut attr, 4097, 0), EINVAL);
    errno!(syscall(SYS_sched_getattr, 0, &mut attr, 48, 1), EINVAL);
    errno!(syscall(SYS_sched_getattr, 0, 8usize, 48, 0), EFAULT);
    Ok(())
}

/// What `body` gives as somebody without rights.
fn as_nobody(body: impl FnOnce() -> i32) -> Status {
    child(|| {
        unsafe { setuid(1000) };
        body()
    })
}

fn error_of(value: i64) -> i32 {
    if value == -1 { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
}

fn priorities_need_a_right() -> Outcome {
    eq!(as_nobody(|| error_of(set(0, SCHED_FIFO, 1))), Status::Exited(EPERM));
    eq!(as_nobody(|| error_of(set(0, SCHED_BATCH, 0))), Status::Exited(0));
    eq!(as_nobody(|| error_of(set(1, SCHED_BATCH, 0))), Status::Exited(EPERM));
    // To SCHED_IDLE always, back only where the nice value would be allowed.
    eq!(as_nobody(|| error_of(set(0, SCHED_IDLE, 0)) + error_of(set(0, SCHED_OTHER, 0))), Status::Exited(EPERM));
    eq!(as_nobody(|| error_of(set_attr(&Attr { nice: -1, ..Attr::default() }))), Status::Exited(EPERM));
    // Who has a priority may lower it.
    ok!(set(0, SCHED_FIFO, 10));
    eq!(as_nobody(|| error_of(set(0, SCHED_FIFO, 9))), Status::Exited(0));
    eq!(as_nobody(|| error_of(set(0, SCHED_FIFO, 11))), Status::Exited(EPERM));
    eq!(as_nobody(|| error_of(set(0, SCHED_RR, 9))), Status::Exited(EPERM));
    eq!(as_nobody(|| error_of(set(0, SCHED_OTHER, 0))), Status::Exited(0));
    Ok(())
}

fn limits_give_the_right() -> Outcome {
    let limit = |what, value| {
        let limit = rlimit { rlim_cur: value, rlim_max: value };
        unsafe { setrlimit(what, &limit) }
    };
    eq!(as_nobody(|| 0), Status::Exited(0));
    let ended = child(|| {
        limit(RLIMIT_RTPRIO, 20);
        limit(RLIMIT_NICE, 25);
        unsafe { setuid(1000) };
        let results = [
            error_of(set(0, SCHED_FIFO, 21)) == EPERM,
            error_of(set(0, SCHED_RR, 20)) == 0,
            error_of(set(0, SCHED_OTHER, 0)) == 0,
            error_of(set_attr(&Attr { nice: -5, ..Attr::default() })) == 0,
            error_of(set_attr(&Attr { nice: -6, ..Attr::default() })) == EPERM,
        ];
        results.iter().position(|r| !r).map_or(0, |i| i as i32 + 1)
    });
    eq!(ended, Status::Exited(0));
    Ok(())
}

fn reset_on_fork_gives_ordinary_children() -> Outcome {
    const RESET: i32 = 0x4000_0000;
    ok!(set(0, SCHED_FIFO | RESET, 3));
    eq!(policy_of(0), (SCHED_FIFO | RESET) as i64);
    eq!(child(|| (policy_of(0) != SCHED_OTHER as i64 || priority_of(0) != 0) as i32), Status::Exited(0));
    ok!(set(0, SCHED_OTHER | RESET, 0));
    ok!(setpriority(PRIO_PROCESS, 0, -5));
    eq!(child(|| unsafe { getpriority(PRIO_PROCESS, 0) }), Status::Exited(0));
    eq!(as_nobody(|| error_of(set(0, SCHED_OTHER, 0))), Status::Exited(0));
    Ok(())
}

fn policy_is_inherited() -> Outcome {
    ok!(set(0, SCHED_RR, 12));
    eq!(child(|| (policy_of(0) != SCHED_RR as i64 || priority_of(0) != 12) as i32), Status::Exited(0));
    let of_thread = std::thread::spawn(|| (policy_of(0), priority_of(0))).join();
    eq!(of_thread.unwrap_or((0, 0)), (SCHED_RR as i64, 12));
    Ok(())
}

fn stat_fields(path: &str) -> Result<Vec<i64>, Stop> {
    let text = String::from_utf8_lossy(&content(path)?).into_owned();
    let rest = text.rsplit(')').next().unwrap_or("");
    // Field 3 is the first of these; it is a letter.
    Ok(rest.split_whitespace().map(|f| f.parse().unwrap_or(0)).collect())
}

fn proc_shows_policy_and_priority() -> Outcome {
    let show = || stat_fields("/proc/self/stat").map(|f| (f[15], f[16], f[37], f[38]));
    ok!(setpriority(PRIO_PROCESS, 0, 4));
    eq!(show()?, (24, 4, 0, 0));
    ok!(set(0, SCHED_FIFO, 60));
    eq!(show()?, (-61, 4, 60, 1));
    ok!(set(0, SCHED_RR, 1));
    eq!(show()?, (-2, 4, 1, 2));
    ok!(set(0, SCHED_BATCH, 0));
    eq!(show()?, (24, 4, 0, 3));
    Ok(())
}

fn bind(cpu: usize) {
    let mut mask = zero::<cpu_set_t>();
    // SAFETY: the set is live.
    unsafe {
        CPU_SET(cpu, &mut mask);
        sched_setaffinity(0, size_of::<cpu_set_t>(), &mask);
    }
}

fn spin_for(nanoseconds: u64) {
    let until = clock(CLOCK_THREAD_CPUTIME_ID) + nanoseconds;
    while clock(CLOCK_THREAD_CPUTIME_ID) < until {}
}

fn real_time_runs_first() -> Outcome {
    // All on CPU 0: whoever becomes runnable with a higher priority runs at once.
    bind(0);
    static LOG: std::sync::Mutex<Vec<u32>> = std::sync::Mutex::new(Vec::new());
    static GATE: AtomicU32 = AtomicU32::new(0);
    ok!(set(0, SCHED_FIFO, 50));
    let threads: Vec<_> = [10, 30, 20]
        .into_iter()
        .map(|priority| {
            std::thread::spawn(move || {
                set(0, SCHED_FIFO, priority);
                while GATE.load(SeqCst) == 0 {
                    unsafe { syscall(SYS_futex, GATE.as_ptr(), FUTEX_WAIT, 0, 0usize, 0, 0) };
                }
                spin_for(2_000_000);
                if let Ok(mut log) = LOG.lock() {
                    log.push(priority as u32);
                }
            })
        })
        .collect();
    // The threads go first while this one sleeps.
    unsafe { usleep(50_000) };
    GATE.store(1, SeqCst);
    ok!(syscall(SYS_futex, GATE.as_ptr(), FUTEX_WAKE, 10, 0usize, 0, 0));
    // Nobody ran yet: this one has the highest priority.
    eq!(LOG.lock().map(|l| l.len()).unwrap_or(9), 0);
    for thread in threads {
        check!(thread.join().is_ok());
    }
    eq!(LOG.lock().map(|l| l.clone()).unwrap_or_default(), [30, 20, 10]);
    Ok(())
}

fn round_robin_shares_and_fifo_does_not() -> Outcome {
    bind(0);
    ok!(set(0, SCHED_FIFO, 50));
    for (policy, shares) in [(SCHED_RR, true), (SCHED_FIFO, false)] {
        let other = std::sync::Arc::new(AtomicU64::new(0));
        let start = std::sync::Arc::new(AtomicU32::new(0));
        let spin = |first: bool| {
            let (other, start) = (other.clone(), start.clone());
            std::thread::spawn(move || {
                set(0, policy, 10);
                // The one that spins long comes first.
                unsafe { usleep(if first { 20_000 } else { 80_000 }) };
                start.fetch_add(1, SeqCst);
                if first {
                    spin_for(300_000_000);
                    other.load(SeqCst)
                } else {
                    spin_for(1_000_000);
                    other.store(1, SeqCst);
                    0
                }
            })
        };
        let (one, two) = (spin(true), spin(false));
        eq!(one.join().unwrap_or(9) != 0, shares);
        check!(two.join().is_ok());
    }
    Ok(())
}

fn real_time_waiter_is_woken_first() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    static ORDER: std::sync::Mutex<Vec<i32>> = std::sync::Mutex::new(Vec::new());
    let mut threads = Vec::new();
    for (i, priority) in [0, 5, 0, 40].into_iter().enumerate() {
        threads.push(std::thread::spawn(move || {
            if priority != 0 {
                set(0, SCHED_FIFO, priority);
            }
            unsafe { syscall(SYS_futex, WORD.as_ptr(), FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, 0usize, 0, 0) };
            if let Ok(mut order) = ORDER.lock() {
                order.push(priority);
            }
        }));
        while unsafe { syscall(SYS_futex, WORD.as_ptr(), FUTEX_REQUEUE | FUTEX_PRIVATE_FLAG, 0, 9usize, WORD.as_ptr(), 0) } != i as i64 + 1 {
            std::thread::yield_now();
        }
    }
    for done in 1..=4usize {
        eq!(unsafe { syscall(SYS_futex, WORD.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, 0usize, 0, 0) }, 1);
        while ORDER.lock().map(|o| o.len()).unwrap_or(9) < done {
            std::thread::yield_now();
        }
    }
    eq!(ORDER.lock().map(|o| o.clone()).unwrap_or_default(), [40, 5, 0, 0]);
    check!(threads.into_iter().all(|t| t.join().is_ok()));
    Ok(())
}

fn pi(word: &AtomicU32, operation: i32) -> i64 {
    unsafe { syscall(SYS_futex, word.as_ptr(), operation | FUTEX_PRIVATE_FLAG, 0, 0usize, 0, 0) }
}

/// The effective priority of a thread of this process, as /proc shows it.
fn shown(id: i32) -> i64 {
    stat_fields(&format!("/proc/self/task/{id}/stat")).map_or(0, |f| f[15])
}

fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        unsafe { usleep(1000) };
    }
}

fn owner_inherits_priority() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    let me = unsafe { gettid() };
    eq!(pi(&WORD, FUTEX_LOCK_PI), 0);
    eq!(shown(me), 20);
    let waiter = |priority| {
        std::thread::spawn(move || {
            set(0, SCHED_FIFO, priority);
            pi(&WORD, FUTEX_LOCK_PI) + pi(&WORD, FUTEX_UNLOCK_PI)
        })
    };
    let low = waiter(10);
    until(|| shown(me) == -11);
    let high = waiter(30);
    until(|| shown(me) == -31);
    // Its own policy is what it was.
    eq!((policy_of(0), priority_of(0)), (SCHED_OTHER as i64, 0));
    eq!(pi(&WORD, FUTEX_UNLOCK_PI), 0);
    eq!(shown(me), 20);
    eq!((low.join().unwrap_or(-1), high.join().unwrap_or(-1)), (0, 0));
    Ok(())
}

fn priority_passes_through_a_chain() -> Outcome {
    static A: AtomicU32 = AtomicU32::new(0);
    static B: AtomicU32 = AtomicU32::new(0);
    static MIDDLE: AtomicI32 = AtomicI32::new(0);
    let me = unsafe { gettid() };
    eq!(pi(&A, FUTEX_LOCK_PI), 0);
    let middle = std::thread::spawn(|| {
        let first = pi(&B, FUTEX_LOCK_PI);
        MIDDLE.store(unsafe { gettid() }, SeqCst);
        first + pi(&A, FUTEX_LOCK_PI) + pi(&A, FUTEX_UNLOCK_PI) + pi(&B, FUTEX_UNLOCK_PI)
    });
    until(|| A.load(SeqCst) & FUTEX_WAITERS != 0);
    let high = std::thread::spawn(|| {
        set(0, SCHED_FIFO, 70);
        pi(&B, FUTEX_LOCK_PI) + pi(&B, FUTEX_UNLOCK_PI)
    });
    until(|| shown(me) == -71);
    eq!(shown(MIDDLE.load(SeqCst)), -71);
    eq!(pi(&A, FUTEX_UNLOCK_PI), 0);
    eq!(shown(me), 20);
    eq!((middle.join().unwrap_or(-1), high.join().unwrap_or(-1)), (0, 0));
    Ok(())
}

fn wake_up_by_priority_of_locks() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    static ORDER: std::sync::Mutex<Vec<i32>> = std::sync::Mutex::new(Vec::new());
    let me = unsafe { gettid() };
    eq!(pi(&WORD, FUTEX_LOCK_PI), 0);
    let mut threads = Vec::new();
    for priority in [5, 20, 35] {
        threads.push(std::thread::spawn(move || {
            set(0, SCHED_FIFO, priority);
            let got = pi(&WORD, FUTEX_LOCK_PI);
            if let Ok(mut order) = ORDER.lock() {
                order.push(priority);
            }
            got + pi(&WORD, FUTEX_UNLOCK_PI)
        }));
        until(|| shown(me) == -1 - i64::from(priority));
    }
    eq!(pi(&WORD, FUTEX_UNLOCK_PI), 0);
    check!(threads.into_iter().all(|t| t.join().unwrap_or(-1) == 0));
    eq!(ORDER.lock().map(|o| o.clone()).unwrap_or_default(), [35, 20, 5]);
    Ok(())
}

fn rr_interval_tells_the_slice() -> Outcome {
    let interval = || {
        let mut at = zero::<libc::timespec>();
        unsafe { sched_rr_get_interval(0, &mut at) };
        at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
    };
    check!(interval() < 100_000_000);
    ok!(set(0, SCHED_RR, 1));
    eq!(interval(), 100_000_000);
    ok!(set(0, SCHED_FIFO, 1));
    eq!(interval(), 0);
    errno!(syscall(SYS_sched_rr_get_interval, -1, 8usize), EINVAL);
    errno!(syscall(SYS_sched_rr_get_interval, 0x3fff_fff0, 8usize), ESRCH);
    errno!(syscall(SYS_sched_rr_get_interval, 0, 8usize), EFAULT);
    Ok(())
}

/// `struct rseq`.
#[repr(C, align(32))]
struct Rseq {
    cpu_start: AtomicU32,
    cpu: AtomicU32,
    sequence: AtomicU64,
    flags: u32,
}

const SIGNATURE: u32 = 0x1234_5678;

fn rseq(area: *const Rseq, size: u32, flags: i32, signature: u32) -> i64 {
    unsafe { syscall(SYS_rseq, area, size, flags, signature) }
}

fn new_area() -> &'static Rseq {
    Box::leak(Box::new(Rseq { cpu_start: AtomicU32::new(0), cpu: AtomicU32::new(u32::MAX), sequence: AtomicU64::new(0), flags: 0 }))
}

/// Runs the body in a thread without libc's own area.
fn with_rseq(body: impl FnOnce(&'static Rseq) -> Outcome + Send + 'static) -> Outcome {
    let run = std::thread::spawn(|| {
        // libc registers one for each thread, behind the thread pointer; this test takes its place.
        // SAFETY: glibc's symbols for it; the area is the thread's own.
        unsafe extern "C" {
            static __rseq_offset: isize;
            static __rseq_size: u32;
        }
        let own: *const u8;
        // SAFETY: reads the thread pointer.
        unsafe { core::arch::asm!("mrs {}, tpidr_el0", out(reg) own) };
        let (offset, size) = unsafe { (__rseq_offset, __rseq_size) };
        if size != 0 {
            let at = own.wrapping_offset(offset).cast();
            eq!(rseq(at, 32, 1, 0xd428_bc00), 0);
        }
        let area = new_area();
        eq!(rseq(area, 32, 0, SIGNATURE), 0);
        let result = body(area);
        rseq(area, 32, 1, SIGNATURE);
        result
    });
    match run.join() {
        Ok(result) => result,
        Err(_) => fail!("panic"),
    }
}

fn rseq_registration_rules() -> Outcome {
    with_rseq(|area| {
        let other = new_area();
        errno!(rseq(area, 32, 0, SIGNATURE), EBUSY);
        errno!(rseq(area, 32, 0, SIGNATURE + 1), EPERM);
        errno!(rseq(other, 32, 0, SIGNATURE), EINVAL);
        errno!(rseq(area, 31, 0, SIGNATURE), EINVAL);
        errno!(rseq(area, 32, 2, SIGNATURE), EINVAL);
        errno!(rseq(area, 32, 3, SIGNATURE), EINVAL);
        errno!(rseq(other, 32, 1, SIGNATURE), EINVAL);
        errno!(rseq(area, 32, 1, SIGNATURE + 1), EPERM);
        eq!(rseq(area, 32, 1, SIGNATURE), 0);
        eq!((area.cpu_start.load(SeqCst), area.cpu.load(SeqCst)), (0, u32::MAX));
        errno!(rseq(area, 32, 1, SIGNATURE), EINVAL);
        errno!(rseq((area as *const Rseq).cast::<u8>().wrapping_add(8).cast(), 32, 0, SIGNATURE), EINVAL);
        errno!(rseq(0xffff_8000_0000_0000usize as *const Rseq, 32, 0, SIGNATURE), EFAULT);
        eq!(rseq(area, 32, 0, SIGNATURE), 0);
        Ok(())
    })
}

fn rseq_names_the_cpu() -> Outcome {
    with_rseq(|area| {
        let count = unsafe { sysconf(_SC_NPROCESSORS_ONLN) } as usize;
        for round in 0..20 {
            let cpu = round % count;
            bind(cpu);
            eq!((area.cpu_start.load(SeqCst), area.cpu.load(SeqCst)), (cpu as u32, cpu as u32));
        }
        // A child process has it too, a thread has its own or none.
        let ended = child(|| {
            bind(0);
            (area.cpu.load(SeqCst) != 0) as i32
        });
        eq!(ended, Status::Exited(0));
        Ok(())
    })
}

/// Spins inside a sequence until it is aborted, at most `limit` rounds; whether it was.
#[inline(never)]
fn spin_in_sequence(area: &Rseq, limit: u64) -> bool {
    let aborted: u64;
    // SAFETY: a sequence by the book: descriptor, start, end, and a signature before the abort.
    unsafe {
        core::arch::asm!(
            "adr {t}, 10f",
            "str {t}, [{field}]",
            "11:",
            "subs {n}, {n}, #1",
            "b.ne 11b",
            "12:",
            "mov {out}, #0",
            "b 14f",
            ".balign 32",
            "10: .word 0, 0",
            ".quad 11b, 12b - 11b, 13f",
            ".word 0x12345678",
            "13:",
            "mov {out}, #1",
            "14:",
            "str xzr, [{field}]",
            t = out(reg) _, n = inout(reg) limit => _, out = out(reg) aborted, field = in(reg) area.sequence.as_ptr(),
        );
    }
    aborted == 1
}

fn rseq_sequence_is_aborted() -> Outcome {
    with_rseq(|area| {
        // Two on one CPU: whoever is preempted finds itself at the abort address.
        bind(0);
        static STOP: AtomicU32 = AtomicU32::new(0);
        let other = std::thread::spawn(|| {
            bind(0);
            while STOP.load(SeqCst) == 0 {}
        });
        let aborted = spin_in_sequence(area, u64::MAX >> 8);
        STOP.store(1, SeqCst);
        check!(other.join().is_ok());
        check!(aborted);
        eq!(area.sequence.load(SeqCst), 0);
        Ok(())
    })
}

static HANDLED_IN: AtomicU64 = AtomicU64::new(0);

extern "C" fn note_pc(_: i32, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gave a ucontext.
    HANDLED_IN.store(unsafe { (*context.cast::<ucontext_t>()).uc_mcontext.pc }, SeqCst);
}

fn rseq_signal_aborts_a_sequence() -> Outcome {
    ok!(handle(SIGALRM, note_pc, 0));
    with_rseq(|area| {
        static TARGET: AtomicI32 = AtomicI32::new(0);
        TARGET.store(unsafe { gettid() }, SeqCst);
        let sender = std::thread::spawn(|| unsafe {
            usleep(30_000);
            syscall(SYS_tgkill, getpid(), TARGET.load(SeqCst), SIGALRM)
        });
        check!(spin_in_sequence(area, u64::MAX >> 8));
        check!(sender.join().is_ok());
        Ok(())
    })
}

fn rseq_with_wrong_signature_kills() -> Outcome {
    let ended = child(|| {
        set_disposition(SIGSEGV, SIG_DFL);
        let result = with_rseq(|area| {
            rseq(area, 32, 1, SIGNATURE);
            rseq(area, 32, 0, SIGNATURE + 1);
            bind(0);
            let other = fork_child(|| {
                // It goes with this thread, which does not live to end it.
                unsafe { prctl(PR_SET_PDEATHSIG, SIGKILL) };
                loop {}
            });
            spin_in_sequence(area, u64::MAX >> 8);
            unsafe { kill(other, SIGKILL) };
            Ok(())
        });
        result.is_err() as i32
    });
    eq!(ended, Status::Killed(SIGSEGV));
    Ok(())
}

fn membarrier(command: i32, flags: u32, cpu: i32) -> i64 {
    unsafe { syscall(SYS_membarrier, command, flags, cpu) }
}

fn membarrier_commands() -> Outcome {
    let all = ok!(membarrier(0, 0, 0));
    eq!(all & 0x1ff, 0x1ff);
    errno!(membarrier(0, 1, 0), EINVAL);
    errno!(membarrier(3, 0, 0), EINVAL);
    errno!(membarrier(1 << 20, 0, 0), EINVAL);
    // A process of its own: libc may have registered this one.
    in_child(|| {
        for (command, register) in [(8, 16), (32, 64), (128, 256)] {
            errno!(membarrier(command, 0, 0), EPERM);
            eq!(membarrier(register, 0, 0), 0);
            eq!(membarrier(register, 0, 0), 0);
            eq!(membarrier(command, 0, 0), 0);
            errno!(membarrier(command, 2, 0), EINVAL);
        }
        errno!(membarrier(8, 1, 0), EINVAL);
        eq!(membarrier(128, 1, 0), 0);
        eq!(membarrier(128, 1, 1 << 20), 0);
        eq!(membarrier(1, 0, 0), 0);
        eq!(membarrier(2, 0, 0), 0);
        eq!(membarrier(4, 0, 0), 0);
        Ok(())
    })
}

fn membarrier_aborts_a_sequence() -> Outcome {
    if unsafe { sysconf(_SC_NPROCESSORS_ONLN) } < 2 {
        return Ok(());
    }
    ok!(membarrier(256, 0, 0));
    with_rseq(|area| {
        static STOP: AtomicU32 = AtomicU32::new(0);
        bind(1);
        let other = std::thread::spawn(|| {
            bind(0);
            while STOP.load(SeqCst) == 0 {
                membarrier(128, 0, 0);
            }
        });
        let aborted = spin_in_sequence(area, u64::MAX >> 8);
        STOP.store(1, SeqCst);
        check!(other.join().is_ok());
        check!(aborted);
        Ok(())
    })
}
