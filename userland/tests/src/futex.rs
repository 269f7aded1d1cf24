//! futex(2): wait, wake, requeue, timeouts.

use crate::check::*;
use libc::*;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

cases![futex:
    wait_with_other_value_is_eagain, wait_times_out, absolute_timeout_of_bitset, wake_without_waiter_is_zero,
    wake_wakes_as_many, shared_between_processes, private_thread_hand_over, requeue_moves_waiters, unaligned_is_einval,
    bad_operation_is_enosys, signal_interrupts_wait, bitset_selects, negative_timeout_is_einval, file_mapping_shares,
];

fn futex(word: *const u32, operation: i32, value: u32, timeout: *const timespec) -> i64 {
    // SAFETY: the kernel checks what it is given.
    unsafe { syscall(SYS_futex, word, operation, value, timeout, 0, 0) }
}

const NEVER: *const timespec = std::ptr::null();

fn wait_with_other_value_is_eagain() -> Outcome {
    let word = 5;
    errno!(futex(&word, FUTEX_WAIT, 4, NEVER), EAGAIN);
    errno!(futex(&word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 4, NEVER), EAGAIN);
    Ok(())
}

fn wait_times_out() -> Outcome {
    let word = 5;
    let before = now();
    errno!(futex(&word, FUTEX_WAIT, 5, &timespec(40_000_000)), ETIMEDOUT);
    check!(now() - before >= 40_000_000);
    errno!(futex(&word, FUTEX_WAIT, 5, &timespec(0)), ETIMEDOUT);
    Ok(())
}

fn absolute_timeout_of_bitset() -> Outcome {
    let word = 5u32;
    let until = timespec(now() + 30_000_000);
    errno!(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 5, &until, 0, u32::MAX), ETIMEDOUT);
    check!(now() >= until.tv_sec as u64 * 1_000_000_000 + until.tv_nsec as u64);
    let past = timespec(1);
    errno!(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 5, &past, 0, u32::MAX), ETIMEDOUT);
    errno!(syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 5, &past, 0, 0), EINVAL);
    Ok(())
}

fn wake_without_waiter_is_zero() -> Outcome {
    let word = 5;
    eq!(futex(&word, FUTEX_WAKE, 1, NEVER), 0);
    eq!(futex(&word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, i32::MAX as u32, NEVER), 0);
    Ok(())
}

/// Starts waiters in threads; each returns when woken.
fn waiters(word: &'static AtomicU32, count: usize, operation: i32) -> Vec<std::thread::JoinHandle<i64>> {
    (0..count).map(|_| std::thread::spawn(move || futex(word.as_ptr(), operation, 0, NEVER))).collect()
}

/// Wakes until this many have been woken: waiters arrive when they arrive.
fn wake_all(word: &AtomicU32, mut count: i64) {
    while count > 0 {
        count -= futex(word.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NEVER);
        std::thread::yield_now();
    }
}

fn wake_wakes_as_many() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    let threads = waiters(&WORD, 5, FUTEX_WAIT | FUTEX_PRIVATE_FLAG);
    wake_all(&WORD, 5);
    for thread in threads {
        eq!(thread.join().unwrap_or(-1), 0);
    }
    eq!(futex(WORD.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 100, NEVER), 0);
    Ok(())
}

fn ping_pong(at: *const AtomicU32, rounds: u32) -> Outcome {
    // SAFETY: the case mapped the word, shared.
    let word = unsafe { &*at };
    let pid = fork_child(|| {
        for i in 0..rounds {
            while word.load(SeqCst) != 2 * i + 1 {
                futex(word.as_ptr(), FUTEX_WAIT, 2 * i, NEVER);
            }
            word.store(2 * i + 2, SeqCst);
            futex(word.as_ptr(), FUTEX_WAKE, 1, NEVER);
        }
        0
    });
    for i in 0..rounds {
        word.store(2 * i + 1, SeqCst);
        futex(word.as_ptr(), FUTEX_WAKE, 1, NEVER);
        while word.load(SeqCst) != 2 * i + 2 {
            futex(word.as_ptr(), FUTEX_WAIT, 2 * i + 1, NEVER);
        }
    }
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn shared_between_processes() -> Outcome {
    let at = ok!(map_with(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1));
    ping_pong(at.cast(), 200)
}

fn file_mapping_shares() -> Outcome {
    make("f", &[0; PAGE])?;
    let fd = ok!(open_file("f", O_RDWR, 0));
    ping_pong(ok!(map_with(PAGE, RW, MAP_SHARED, fd)).cast(), 50)
}

fn private_thread_hand_over() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    let thread = std::thread::spawn(|| {
        for i in 0..1000 {
            while WORD.load(SeqCst) != 2 * i + 1 {
                futex(WORD.as_ptr(), FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 2 * i, NEVER);
            }
            WORD.store(2 * i + 2, SeqCst);
            futex(WORD.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NEVER);
        }
    });
    for i in 0..1000 {
        WORD.store(2 * i + 1, SeqCst);
        futex(WORD.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NEVER);
        while WORD.load(SeqCst) != 2 * i + 2 {
            futex(WORD.as_ptr(), FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 2 * i + 1, NEVER);
        }
    }
    check!(thread.join().is_ok());
    Ok(())
}

fn requeue_moves_waiters() -> Outcome {
    static FROM: AtomicU32 = AtomicU32::new(0);
    static TO: AtomicU32 = AtomicU32::new(0);
    let threads = waiters(&FROM, 4, FUTEX_WAIT | FUTEX_PRIVATE_FLAG);
    let mut done = 0;
    // None is woken; all are moved, as they arrive.
    while done < 4 {
        let operation = FUTEX_REQUEUE | FUTEX_PRIVATE_FLAG;
        done += ok!(syscall(SYS_futex, FROM.as_ptr(), operation, 0, 100usize, TO.as_ptr(), 0));
        std::thread::yield_now();
    }
    eq!(futex(FROM.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 100, NEVER), 0);
    let operation = FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG;
    errno!(syscall(SYS_futex, TO.as_ptr(), operation, 1, 1usize, FROM.as_ptr(), 1), EAGAIN);
    eq!(futex(TO.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 100, NEVER), 4);
    check!(threads.into_iter().all(|thread| thread.join().unwrap_or(-1) == 0));
    Ok(())
}

fn unaligned_is_einval() -> Outcome {
    let words = [0u32; 2];
    let at = words.as_ptr().cast::<u8>().wrapping_add(1).cast();
    errno!(futex(at, FUTEX_WAIT, 0, NEVER), EINVAL);
    errno!(futex(at, FUTEX_WAKE, 1, NEVER), EINVAL);
    errno!(futex(std::ptr::null(), FUTEX_WAIT, 0, NEVER), EFAULT);
    Ok(())
}

fn bad_operation_is_enosys() -> Outcome {
    let word = 0;
    errno!(futex(&word, 99, 0, NEVER), ENOSYS);
    Ok(())
}

fn negative_timeout_is_einval() -> Outcome {
    let word = 0;
    errno!(futex(&word, FUTEX_WAIT, 0, &libc::timespec { tv_sec: -1, tv_nsec: 0 }), EINVAL);
    errno!(futex(&word, FUTEX_WAIT, 0, &libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 }), EINVAL);
    Ok(())
}

extern "C" fn nothing(_: i32, _: *mut siginfo_t, _: *mut c_void) {}

fn signal_interrupts_wait() -> Outcome {
    ok!(handle(SIGUSR1, nothing, 0));
    let me = unsafe { getpid() };
    let pid = fork_child(|| loop {
        unsafe {
            kill(me, SIGUSR1);
            usleep(10_000);
        }
    });
    let word = 0;
    errno!(futex(&word, FUTEX_WAIT, 0, NEVER), EINTR);
    ok!(kill(pid, SIGKILL));
    wait_for(pid);
    Ok(())
}

fn bitset_selects() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    let wait = |bits: u32| {
        let operation = FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG;
        std::thread::spawn(move || unsafe { syscall(SYS_futex, WORD.as_ptr(), operation, 0, 0usize, 0usize, bits) })
    };
    let wake = |bits: u32| {
        let operation = FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG;
        unsafe { syscall(SYS_futex, WORD.as_ptr(), operation, 10, 0usize, 0usize, bits) }
    };
    let (one, two) = (wait(1), wait(2));
    while wake(2) == 0 {
        std::thread::yield_now();
    }
    eq!(two.join().unwrap_or(-1), 0);
    check!(!one.is_finished());
    while wake(3) == 0 {
        std::thread::yield_now();
    }
    eq!(one.join().unwrap_or(-1), 0);
    Ok(())
}
