//! futex(2): locks with priority inheritance, condition variables for them, and robust lists.

use crate::check::*;
use libc::*;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::thread::{JoinHandle, spawn, yield_now};

cases![pi:
    free_lock_gets_the_id, held_lock_is_edeadlk_eagain_eperm, word_that_names_nobody_is_esrch, unlock_hands_over_to_the_waiter,
    lock_times_out_on_both_clocks, cycle_of_two_is_edeadlk, dead_owner_leaves_the_lock, lock_is_restarted_after_a_handler,
    plain_and_lock_waiters_do_not_mix, requeue_gives_a_free_lock, requeue_moves_to_a_held_lock, requeue_pi_errors,
    wait_requeue_pi_ends_without_lock, lock_with_many_hands, robust_word_is_marked_and_waiter_woken, robust_list_may_be_anything,
    robust_pending_operation_wakes, robust_list_is_readable, exec_ends_robust_locks,
];

const FUTEX_LOCK_PI2: i32 = 13;
const WAITERS: u32 = 0x8000_0000;
const OWNER_DIED: u32 = 0x4000_0000;

fn id() -> u32 {
    unsafe { gettid() as u32 }
}

fn call(word: &AtomicU32, operation: i32) -> i64 {
    timed(word, operation, None)
}

fn timed(word: &AtomicU32, operation: i32, until: Option<&timespec>) -> i64 {
    let until = until.map_or(std::ptr::null(), |t| t as *const timespec);
    // SAFETY: the kernel checks what it is given.
    unsafe { syscall(SYS_futex, word.as_ptr(), operation | FUTEX_PRIVATE_FLAG, 0, until, 0, 0) }
}

/// The result of a call as errno, 0 for success.
fn error_of(value: i64) -> i32 {
    if value == -1 { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
}

fn until_set(word: &AtomicU32, bits: u32) {
    while word.load(SeqCst) & bits != bits {
        yield_now();
    }
}

/// A thread that takes the lock, says so, and gives it up when told.
fn holder(word: &'static AtomicU32, step: &'static AtomicU32) -> JoinHandle<i64> {
    let thread = spawn(move || {
        let got = call(word, FUTEX_LOCK_PI);
        step.store(1, SeqCst);
        while step.load(SeqCst) != 2 {
            yield_now();
        }
        if got == 0 { call(word, FUTEX_UNLOCK_PI) } else { got }
    });
    while step.load(SeqCst) != 1 {
        yield_now();
    }
    thread
}

fn free_lock_gets_the_id() -> Outcome {
    let word = AtomicU32::new(0);
    for operation in [FUTEX_LOCK_PI, FUTEX_TRYLOCK_PI, FUTEX_LOCK_PI2] {
        eq!(call(&word, operation), 0);
        eq!(word.load(SeqCst), id());
        eq!(call(&word, FUTEX_UNLOCK_PI), 0);
        eq!(word.load(SeqCst), 0);
    }
    // A dead owner's mark stays for the next one to see; unlocking clears it.
    word.store(OWNER_DIED, SeqCst);
    eq!(call(&word, FUTEX_LOCK_PI), 0);
    eq!(word.load(SeqCst), id() | OWNER_DIED);
    eq!(call(&word, FUTEX_UNLOCK_PI), 0);
    eq!(word.load(SeqCst), 0);
    Ok(())
}

fn held_lock_is_edeadlk_eagain_eperm() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    static STEP: AtomicU32 = AtomicU32::new(0);
    let mine = AtomicU32::new(id());
    errno!(call(&mine, FUTEX_LOCK_PI), EDEADLK);
    errno!(call(&mine, FUTEX_TRYLOCK_PI), EDEADLK);
    let thread = holder(&WORD, &STEP);
    errno!(call(&WORD, FUTEX_UNLOCK_PI), EPERM);
    errno!(call(&WORD, FUTEX_TRYLOCK_PI), EAGAIN);
    check!(WORD.load(SeqCst) & WAITERS != 0);
    STEP.store(2, SeqCst);
    eq!(thread.join().unwrap_or(-1), 0);
    eq!(WORD.load(SeqCst), 0);
    let odd = [0u32; 2];
    // SAFETY: inside the array.
    let odd = unsafe { &*odd.as_ptr().cast::<u8>().wrapping_add(2).cast::<[u8; 4]>() };
    errno!(syscall(SYS_futex, odd.as_ptr(), FUTEX_LOCK_PI, 0, 0usize, 0, 0), EINVAL);
    errno!(syscall(SYS_futex, 0usize, FUTEX_LOCK_PI, 0, 0usize, 0, 0), EFAULT);
    errno!(syscall(SYS_futex, 0usize, FUTEX_UNLOCK_PI, 0, 0usize, 0, 0), EFAULT);
    Ok(())
}

fn word_that_names_nobody_is_esrch() -> Outcome {
    let word = AtomicU32::new(0x3fff_fff0);
    errno!(call(&word, FUTEX_LOCK_PI), ESRCH);
    // The mark was set before the owner was looked for.
    eq!(word.load(SeqCst), 0x3fff_fff0 | WAITERS);
    // A kernel thread owns no locks.
    word.store(2, SeqCst);
    errno!(call(&word, FUTEX_LOCK_PI), EPERM);
    Ok(())
}

fn unlock_hands_over_to_the_waiter() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    static STEP: AtomicU32 = AtomicU32::new(0);
    static OTHER: AtomicU32 = AtomicU32::new(0);
    eq!(call(&WORD, FUTEX_LOCK_PI), 0);
    let thread = spawn(|| {
        OTHER.store(id(), SeqCst);
        let got = call(&WORD, FUTEX_LOCK_PI);
        while STEP.load(SeqCst) != 1 {
            yield_now();
        }
        got + call(&WORD, FUTEX_UNLOCK_PI)
    });
    until_set(&WORD, WAITERS);
    // With the mark it stands in the queue, or waits for the lock of the queue.
    eq!(call(&WORD, FUTEX_UNLOCK_PI), 0);
    while WORD.load(SeqCst) & !WAITERS != OTHER.load(SeqCst) {
        yield_now();
    }
    errno!(call(&WORD, FUTEX_UNLOCK_PI), EPERM);
    STEP.store(1, SeqCst);
    eq!(thread.join().unwrap_or(-1), 0);
    eq!(WORD.load(SeqCst), 0);
    Ok(())
}

fn lock_times_out_on_both_clocks() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    static STEP: AtomicU32 = AtomicU32::new(0);
    let thread = holder(&WORD, &STEP);
    let before = now();
    errno!(timed(&WORD, FUTEX_LOCK_PI, Some(&timespec(clock(CLOCK_REALTIME) + 20_000_000))), ETIMEDOUT);
    check!(now() - before >= 20_000_000);
    let before = now();
    errno!(timed(&WORD, FUTEX_LOCK_PI2, Some(&timespec(before + 20_000_000))), ETIMEDOUT);
    check!(now() - before >= 20_000_000);
    errno!(timed(&WORD, FUTEX_LOCK_PI2 | FUTEX_CLOCK_REALTIME, Some(&timespec(1))), ETIMEDOUT);
    errno!(timed(&WORD, FUTEX_LOCK_PI, Some(&libc::timespec { tv_sec: 0, tv_nsec: -1 })), EINVAL);
    errno!(call(&WORD, FUTEX_LOCK_PI | FUTEX_CLOCK_REALTIME), ENOSYS);
    STEP.store(2, SeqCst);
    eq!(thread.join().unwrap_or(-1), 0);
    Ok(())
}

fn cycle_of_two_is_edeadlk() -> Outcome {
    static A: AtomicU32 = AtomicU32::new(0);
    static B: AtomicU32 = AtomicU32::new(0);
    eq!(call(&A, FUTEX_LOCK_PI), 0);
    let thread = spawn(|| {
        let first = call(&B, FUTEX_LOCK_PI);
        let second = call(&A, FUTEX_LOCK_PI);
        let ends = (call(&A, FUTEX_UNLOCK_PI), call(&B, FUTEX_UNLOCK_PI));
        (first, second, ends)
    });
    until_set(&A, WAITERS);
    // The other thread waits for A soon, if not yet: then it has the deadlock, or we have.
    while error_of(timed(&B, FUTEX_LOCK_PI2, Some(&timespec(now() + 50_000_000)))) != EDEADLK {}
    eq!(call(&A, FUTEX_UNLOCK_PI), 0);
    eq!(thread.join().unwrap_or((-1, -1, (-1, -1))), (0, 0, (0, 0)));
    eq!((A.load(SeqCst), B.load(SeqCst)), (0, 0));
    Ok(())
}

fn dead_owner_leaves_the_lock() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    // Without a robust list: only who waits already gets the lock.
    let thread = spawn(|| {
        // glibc has set a list; it does not name this lock.
        let got = call(&WORD, FUTEX_LOCK_PI);
        until_set(&WORD, WAITERS);
        unsafe { usleep(20_000) };
        got
    });
    while WORD.load(SeqCst) == 0 {
        yield_now();
    }
    eq!(call(&WORD, FUTEX_LOCK_PI), 0);
    eq!(WORD.load(SeqCst), id() | WAITERS | OWNER_DIED);
    eq!(thread.join().unwrap_or(-1), 0);
    eq!(call(&WORD, FUTEX_UNLOCK_PI), 0);
    eq!(WORD.load(SeqCst), 0);
    Ok(())
}

static HANDLED: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    HANDLED.fetch_add(1, SeqCst);
}

fn lock_is_restarted_after_a_handler() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    static STEP: AtomicU32 = AtomicU32::new(0);
    static TARGET: AtomicI32 = AtomicI32::new(0);
    ok!(handle(SIGUSR1, note, 0));
    let thread = holder(&WORD, &STEP);
    let waiter = spawn(|| {
        TARGET.store(id() as i32, SeqCst);
        let got = call(&WORD, FUTEX_LOCK_PI);
        got + call(&WORD, FUTEX_UNLOCK_PI)
    });
    until_set(&WORD, WAITERS);
    for round in 1..=3 {
        ok!(syscall(SYS_tgkill, getpid(), TARGET.load(SeqCst), SIGUSR1));
        while HANDLED.load(SeqCst) != round {
            yield_now();
        }
    }
    STEP.store(2, SeqCst);
    eq!(waiter.join().unwrap_or(-1), 0);
    eq!(thread.join().unwrap_or(-1), 0);
    Ok(())
}

fn plain_and_lock_waiters_do_not_mix() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    static STEP: AtomicU32 = AtomicU32::new(0);
    let thread = holder(&WORD, &STEP);
    let waiter = spawn(|| call(&WORD, FUTEX_LOCK_PI) + call(&WORD, FUTEX_UNLOCK_PI));
    until_set(&WORD, WAITERS);
    while error_of(unsafe { syscall(SYS_futex, WORD.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, 0usize, 0, 0) }) != EINVAL {
        yield_now();
    }
    STEP.store(2, SeqCst);
    eq!(waiter.join().unwrap_or(-1), 0);
    eq!(thread.join().unwrap_or(-1), 0);
    // A lock word on which somebody waits plainly.
    static PLAIN: AtomicU32 = AtomicU32::new(0);
    PLAIN.store(0x3fff_ffff, SeqCst);
    let sleeper = spawn(|| unsafe {
        syscall(SYS_futex, PLAIN.as_ptr(), FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0x3fff_ffff, 0usize, 0, 0)
    });
    let mut tries = 0;
    loop {
        match error_of(call(&PLAIN, FUTEX_LOCK_PI)) {
            // Not asleep yet; the call has set the mark.
            ESRCH => PLAIN.store(0x3fff_ffff, SeqCst),
            EINVAL => break,
            other => fail!("{other}"),
        }
        tries += 1;
        if sleeper.is_finished() || tries > 100_000 {
            // It came while the mark was set and left again: that is right too.
            sleeper.join().ok();
            return Ok(());
        }
        yield_now();
    }
    ok!(syscall(SYS_futex, PLAIN.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, 0usize, 0, 0));
    eq!(sleeper.join().unwrap_or(-1), 0);
    Ok(())
}

fn wait_requeue(word: &AtomicU32, value: u32, lock: &AtomicU32, until: Option<&timespec>) -> i64 {
    let until = until.map_or(std::ptr::null(), |t| t as *const timespec);
    let operation = FUTEX_WAIT_REQUEUE_PI | FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel checks what it is given.
    unsafe { syscall(SYS_futex, word.as_ptr(), operation, value, until, lock.as_ptr(), 0) }
}

fn requeue(word: &AtomicU32, wake: u32, limit: usize, lock: &AtomicU32, value: u32) -> i64 {
    let operation = FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG;
    // SAFETY: as above.
    unsafe { syscall(SYS_futex, word.as_ptr(), operation, wake, limit, lock.as_ptr(), value) }
}

fn requeue_gives_a_free_lock() -> Outcome {
    static COND: AtomicU32 = AtomicU32::new(0);
    static LOCK: AtomicU32 = AtomicU32::new(0);
    let thread = spawn(|| {
        let got = wait_requeue(&COND, 0, &LOCK, None);
        let owner = LOCK.load(SeqCst) & !WAITERS;
        (got, owner == id(), call(&LOCK, FUTEX_UNLOCK_PI))
    });
    while ok!(requeue(&COND, 1, 0, &LOCK, 0)) == 0 {
        yield_now();
    }
    eq!(thread.join().unwrap_or((-1, false, -1)), (0, true, 0));
    eq!(LOCK.load(SeqCst), 0);
    Ok(())
}

fn requeue_moves_to_a_held_lock() -> Outcome {
    static COND: AtomicU32 = AtomicU32::new(0);
    static LOCK: AtomicU32 = AtomicU32::new(0);
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    eq!(call(&LOCK, FUTEX_LOCK_PI), 0);
    let threads: Vec<_> = (0..3)
        .map(|_| {
            spawn(|| {
                let got = wait_requeue(&COND, 0, &LOCK, None);
                let alone = INSIDE.fetch_add(1, SeqCst) == 0;
                yield_now();
                INSIDE.fetch_sub(1, SeqCst);
                (got, alone, call(&LOCK, FUTEX_UNLOCK_PI))
            })
        })
        .collect();
    let mut moved = 0;
    while moved < 3 {
        moved += ok!(requeue(&COND, 1, 100, &LOCK, 0));
        yield_now();
    }
    check!(threads.iter().all(|t| !t.is_finished()));
    eq!(LOCK.load(SeqCst), id() | WAITERS);
    eq!(call(&LOCK, FUTEX_UNLOCK_PI), 0);
    for thread in threads {
        eq!(thread.join().unwrap_or((-1, false, -1)), (0, true, 0));
    }
    eq!(LOCK.load(SeqCst), 0);
    Ok(())
}

fn requeue_pi_errors() -> Outcome {
    static COND: AtomicU32 = AtomicU32::new(0);
    static LOCK: AtomicU32 = AtomicU32::new(0);
    static OTHER: AtomicU32 = AtomicU32::new(0);
    errno!(requeue(&COND, 2, 0, &LOCK, 0), EINVAL);
    errno!(requeue(&COND, 1, usize::MAX, &LOCK, 0), EINVAL);
    errno!(requeue(&COND, 1, 0, &COND, 0), EINVAL);
    errno!(requeue(&COND, 1, 0, &LOCK, 1), EAGAIN);
    eq!(requeue(&COND, 1, 0, &LOCK, 0), 0);
    errno!(wait_requeue(&COND, 0, &COND, None), EINVAL);
    errno!(wait_requeue(&COND, 1, &LOCK, None), EAGAIN);
    // One who waits to be moved elsewhere, and one who waits to be woken.
    let thread = spawn(|| (wait_requeue(&COND, 0, &LOCK, None), call(&LOCK, FUTEX_UNLOCK_PI)));
    while error_of(requeue(&COND, 1, 0, &OTHER, 0)) != EINVAL {
        yield_now();
    }
    errno!(syscall(SYS_futex, COND.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, 0usize, 0, 0), EINVAL);
    errno!(syscall(SYS_futex, COND.as_ptr(), FUTEX_REQUEUE | FUTEX_PRIVATE_FLAG, 0, 1usize, OTHER.as_ptr(), 0), EINVAL);
    eq!(requeue(&COND, 1, 0, &LOCK, 0), 1);
    eq!(thread.join().unwrap_or((-1, -1)), (0, 0));
    let plain = spawn(|| unsafe { syscall(SYS_futex, COND.as_ptr(), FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, 0usize, 0, 0) });
    while error_of(requeue(&COND, 1, 0, &LOCK, 0)) != EINVAL {
        yield_now();
    }
    eq!(unsafe { syscall(SYS_futex, COND.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, 0usize, 0, 0) }, 1);
    eq!(plain.join().unwrap_or(-1), 0);
    Ok(())
}

fn wait_requeue_pi_ends_without_lock() -> Outcome {
    static COND: AtomicU32 = AtomicU32::new(0);
    static LOCK: AtomicU32 = AtomicU32::new(0);
    static STEP: AtomicU32 = AtomicU32::new(0);
    errno!(wait_requeue(&COND, 0, &LOCK, Some(&timespec(now() + 10_000_000))), ETIMEDOUT);
    eq!(LOCK.load(SeqCst), 0);
    // Moved to a lock that nobody gives up.
    let owner = holder(&LOCK, &STEP);
    let thread = spawn(|| error_of(wait_requeue(&COND, 0, &LOCK, Some(&timespec(now() + 300_000_000)))));
    while ok!(requeue(&COND, 1, 1, &LOCK, 0)) == 0 && !thread.is_finished() {
        yield_now();
    }
    eq!(thread.join().unwrap_or(-1), ETIMEDOUT);
    STEP.store(2, SeqCst);
    eq!(owner.join().unwrap_or(-1), 0);
    eq!(LOCK.load(SeqCst), 0);
    Ok(())
}

fn lock_with_many_hands() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    static SUM: AtomicU64 = AtomicU64::new(0);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            spawn(|| {
                (0..50).all(|_| {
                    // As a libc does it: the kernel is asked only when the word is not free.
                    if WORD.compare_exchange(0, id(), SeqCst, SeqCst).is_err() && call(&WORD, FUTEX_LOCK_PI) != 0 {
                        return false;
                    }
                    let sum = SUM.load(SeqCst);
                    yield_now();
                    SUM.store(sum + 1, SeqCst);
                    WORD.compare_exchange(id(), 0, SeqCst, SeqCst).is_ok() || call(&WORD, FUTEX_UNLOCK_PI) == 0
                })
            })
        })
        .collect();
    check!(threads.into_iter().all(|t| t.join().unwrap_or(false)));
    eq!((SUM.load(SeqCst), WORD.load(SeqCst)), (200, 0));
    Ok(())
}

/// `struct robust_list_head` with one entry, whose futex word is behind its link.
#[repr(C)]
struct Robust {
    head: [u64; 3],
    link: u64,
    word: AtomicU32,
    second_link: u64,
    second: AtomicU32,
}

const WORD_OFFSET: u64 = 8;

fn shared_robust() -> Result<&'static Robust, Stop> {
    let at = ok!(map_with(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1));
    // SAFETY: a page of zeroes, shared with children; only atomics and set-up touch it.
    let robust = unsafe { &mut *at.cast::<Robust>() };
    let head = &raw const robust.head as u64;
    let link = &raw const robust.link as u64;
    robust.head = [link, WORD_OFFSET, 0];
    robust.link = head;
    Ok(robust)
}

fn set_list(head: u64) -> i64 {
    // SAFETY: the kernel checks the list when it walks it.
    unsafe { syscall(SYS_set_robust_list, head, 24usize) }
}

fn wait_shared(word: &AtomicU32, value: u32) -> i64 {
    // SAFETY: as above.
    unsafe { syscall(SYS_futex, word.as_ptr(), FUTEX_WAIT, value, 0usize, 0, 0) }
}

fn robust_word_is_marked_and_waiter_woken() -> Outcome {
    let robust = shared_robust()?;
    let pid = fork_child(|| {
        set_list(&raw const robust.head as u64);
        robust.word.store(id() | WAITERS, SeqCst);
        loop {
            unsafe { pause() };
        }
    });
    while robust.word.load(SeqCst) == 0 {
        yield_now();
    }
    let waiter = fork_child(|| {
        let value = pid as u32 | WAITERS;
        let got = wait_shared(&robust.word, value);
        (error_of(got) != 0 && error_of(got) != EAGAIN) as i32
    });
    unsafe { usleep(20_000) };
    ok!(kill(pid, SIGKILL));
    eq!(wait_for(waiter), Status::Exited(0));
    eq!(robust.word.load(SeqCst), WAITERS | OWNER_DIED);
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    // A word that names another is left alone.
    robust.word.store(1, SeqCst);
    eq!(child(|| { set_list(&raw const robust.head as u64); 0 }), Status::Exited(0));
    eq!(robust.word.load(SeqCst), 1);
    Ok(())
}

fn robust_list_may_be_anything() -> Outcome {
    errno!(syscall(SYS_set_robust_list, 0usize, 23usize), EINVAL);
    for head in [1u64, 0xffff_8000_0000_0000, u64::MAX, 0x1000, (&raw const HANDLED) as u64] {
        eq!(child(|| (set_list(head) != 0) as i32), Status::Exited(0));
    }
    // A cycle that never comes back to the head, and an offset that points nowhere.
    let robust = shared_robust()?;
    let link = &raw const robust.link as u64;
    let ended = child(|| {
        // SAFETY: this process's copy of the reference; the page is shared and nobody else uses it.
        unsafe { (&raw const robust.link as *mut u64).write_volatile(link) };
        robust.word.store(id(), SeqCst);
        set_list(&raw const robust.head as u64);
        0
    });
    eq!(ended, Status::Exited(0));
    eq!(robust.word.load(SeqCst), OWNER_DIED);
    let ended = child(|| {
        unsafe { (&raw const robust.head as *mut u64).add(1).write_volatile(u64::MAX - 64) };
        set_list(&raw const robust.head as u64);
        0
    });
    eq!(ended, Status::Exited(0));
    Ok(())
}

fn robust_pending_operation_wakes() -> Outcome {
    // The lock was given up (its word is 0) by one who died before it could wake anybody.
    let robust = shared_robust()?;
    let pending = &raw const robust.second_link as u64;
    let waiter = fork_child(|| {
        robust.word.store(1, SeqCst);
        // EAGAIN if the other one is already through, which the next word tells.
        let got = wait_shared(&robust.second, 0);
        (got != 0) as i32
    });
    while robust.word.load(SeqCst) != 1 {
        yield_now();
    }
    unsafe { usleep(30_000) };
    robust.word.store(0, SeqCst);
    let ended = child(|| {
        unsafe {
            (&raw const robust.head as *mut u64).write_volatile(&raw const robust.head as u64);
            (&raw const robust.head as *mut u64).add(2).write_volatile(pending);
        }
        set_list(&raw const robust.head as u64);
        0
    });
    eq!(ended, Status::Exited(0));
    eq!(wait_for(waiter), Status::Exited(0));
    // One who held it while it was pending.
    let ended = child(|| {
        robust.second.store(id(), SeqCst);
        set_list(&raw const robust.head as u64);
        0
    });
    eq!(ended, Status::Exited(0));
    eq!(robust.second.load(SeqCst), OWNER_DIED);
    Ok(())
}

fn robust_list_is_readable() -> Outcome {
    let (mut head, mut size) = (0u64, 0u64);
    eq!(set_list(0x1234_5670), 0);
    eq!(unsafe { syscall(SYS_get_robust_list, 0, &mut head, &mut size) }, 0);
    eq!((head, size), (0x1234_5670, 24));
    set_list(0);
    errno!(syscall(SYS_get_robust_list, 0x7fff_fff0, &mut head, &mut size), ESRCH);
    let me = unsafe { getpid() };
    eq!(unsafe { syscall(SYS_get_robust_list, me, &mut head, &mut size) }, 0);
    let ended = child(|| {
        unsafe { setuid(1000) };
        let (mut head, mut size) = (0u64, 0u64);
        error_of(unsafe { syscall(SYS_get_robust_list, 1, &mut head, &mut size) })
    });
    eq!(ended, Status::Exited(EPERM));
    Ok(())
}

fn exec_ends_robust_locks() -> Outcome {
    let robust = shared_robust()?;
    let ended = child(|| {
        robust.word.store(id(), SeqCst);
        set_list(&raw const robust.head as u64);
        let path = c("/bin/true");
        let arguments = [path.as_ptr(), std::ptr::null()];
        unsafe { execv(path.as_ptr(), arguments.as_ptr()) };
        127
    });
    eq!(ended, Status::Exited(0));
    eq!(robust.word.load(SeqCst), OWNER_DIED);
    Ok(())
}
