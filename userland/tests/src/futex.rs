//! futex(2): wait, wake, requeue, timeouts.

use crate::check::*;
use libc::*;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

cases![futex:
    wait_with_other_value_is_eagain, wait_times_out, absolute_timeout_of_bitset, wake_without_waiter_is_zero,
    wake_wakes_as_many, shared_between_processes, private_thread_hand_over, requeue_moves_waiters, unaligned_is_einval,
    bad_operation_is_enosys, signal_interrupts_wait, bitset_selects, negative_timeout_is_einval, file_mapping_shares,
    every_operation_and_flag, private_and_shared_are_apart, wake_op_computes_and_compares, setting_the_clock_ends_a_wait,
    stop_does_not_lengthen_a_wait, waitv_wakes_on_any, waitv_errors, waitv_times_out, requeue_wakes_one_and_moves_the_rest,
    broadcast_order_is_first_come, a_moved_waiter_is_not_found_in_another_object, requeues_and_timeouts_meet,
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

/// `op` on `word` with nothing else given.
fn bare(op: i32) -> i32 {
    let word = 1u32;
    // SAFETY: the kernel checks what it is given.
    match unsafe { syscall(SYS_futex, &word, op, 0, 0usize, 0usize, 0) } {
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap_or(-1),
        _ => 0,
    }
}

fn every_operation_and_flag() -> Outcome {
    // The word is 1: WAIT finds another value, WAKE nobody, UNLOCK_PI another owner; the second word
    // is at no address, which only WAKE_OP touches; bitsets and the number to wake are 0.
    let plain = [EAGAIN, 0, ENOSYS, 0, EAGAIN, EFAULT, 0, EPERM, 0, EINVAL, EINVAL, EAGAIN, EINVAL, 0];
    for (op, want) in plain.into_iter().enumerate() {
        let op = op as i32;
        if matches!(op, FUTEX_LOCK_PI | FUTEX_TRYLOCK_PI | 13) {
            // Those would wait for PID 1.
            continue;
        }
        eq!((op, bare(op | FUTEX_PRIVATE_FLAG)), (op, want));
        let timed = matches!(op, FUTEX_WAIT_BITSET | FUTEX_WAIT_REQUEUE_PI);
        eq!((op, bare(op | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)), (op, if timed { want } else { ENOSYS }));
    }
    for op in [14, 99, 127, 200 & !FUTEX_PRIVATE_FLAG, 512] {
        eq!((op, bare(op)), (op, ENOSYS));
    }
    let word = 1;
    // The time is looked at before the operation's flags.
    errno!(futex(&word, FUTEX_WAIT | FUTEX_CLOCK_REALTIME, 0, 8 as *const libc::timespec), EFAULT);
    errno!(futex(&word, FUTEX_WAIT_BITSET, 0, &libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 }), EINVAL);
    Ok(())
}

fn private_and_shared_are_apart() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    let private = waiters(&WORD, 1, FUTEX_WAIT | FUTEX_PRIVATE_FLAG);
    let shared = waiters(&WORD, 1, FUTEX_WAIT);
    // The one that is woken without the flag is the one that waits without it.
    while futex(WORD.as_ptr(), FUTEX_WAKE, 10, NEVER) == 0 {
        std::thread::yield_now();
    }
    check!(shared.into_iter().all(|t| t.join().unwrap_or(-1) == 0));
    eq!(futex(WORD.as_ptr(), FUTEX_WAKE, 10, NEVER), 0);
    check!(private.iter().all(|t| !t.is_finished()));
    wake_all(&WORD, 1);
    check!(private.into_iter().all(|t| t.join().unwrap_or(-1) == 0));
    Ok(())
}

fn wake_op_computes_and_compares() -> Outcome {
    let word = |op: u32, cmp: u32, arg: i32, cmp_arg: i32| op << 28 | cmp << 24 | (arg as u32 & 0xfff) << 12 | cmp_arg as u32 & 0xfff;
    let first = 0u32;
    let run = |second: &AtomicU32, encoded: u32| unsafe {
        syscall(SYS_futex, &first, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1, 1usize, second.as_ptr(), encoded)
    };
    let all: [(u32, i32, u32, u32); 8] = [
        (0, 7, 100, 7),
        (1, 7, 100, 107),
        (2, 7, 0x100, 0x107),
        (3, 7, 0xff, 0xf8),
        (4, 7, 0xff, 0xf8),
        (1, -1, 100, 99),
        (8, 5, 0, 32),
        (10, 31, 1, 0x8000_0001),
    ];
    for (op, arg, old, new) in all {
        let second = AtomicU32::new(old);
        eq!(run(&second, word(op, 0, arg, 0)), 0);
        eq!((op, second.load(SeqCst)), (op, new));
    }
    // Which comparisons wake the second word: with old values 4, 5 and 6 against 5, and signed.
    static SECOND: AtomicU32 = AtomicU32::new(0);
    let holds = [[false, true, false], [true, false, true], [true, false, false], [true, true, false], [false, false, true], [false, true, true]];
    for (cmp, row) in holds.into_iter().enumerate() {
        for (old, want) in [4u32, 5, 6].into_iter().zip(row) {
            SECOND.store(old, SeqCst);
            let thread = std::thread::spawn(move || futex(SECOND.as_ptr(), FUTEX_WAIT | FUTEX_PRIVATE_FLAG, old, &timespec(5_000_000_000)));
            let mut woken = 0;
            // The word is set to what it was; a waiter that is there is woken if the comparison holds.
            for _ in 0..if want { usize::MAX } else { 200 } {
                woken = ok!(run(&SECOND, word(0, cmp as u32, old as i32, 5)));
                if woken != 0 {
                    break;
                }
                std::thread::yield_now();
            }
            eq!((cmp, old, woken != 0), (cmp, old, want));
            if !want {
                wake_all(&SECOND, 1);
            }
            eq!(thread.join().unwrap_or(-1), 0);
        }
    }
    let second = AtomicU32::new(3);
    errno!(run(&second, word(5, 0, 1, 1)), ENOSYS);
    eq!(second.load(SeqCst), 3);
    errno!(run(&second, word(1, 6, 1, 1)), ENOSYS);
    errno!(syscall(SYS_futex, &first, FUTEX_WAKE_OP, 1, 1usize, 0usize, 0), EFAULT);
    Ok(())
}

fn setting_the_clock_ends_a_wait() -> Outcome {
    let word = 0u32;
    let real = clock(CLOCK_REALTIME);
    let far = timespec(real + 3600 * 1_000_000_000);
    let setter = std::thread::spawn(move || unsafe {
        usleep(30_000);
        clock_settime(CLOCK_REALTIME, &timespec(real + 7200 * 1_000_000_000))
    });
    let before = now();
    let operation = FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME;
    let got = unsafe { syscall(SYS_futex, &word, operation, 0, &far, 0usize, u32::MAX) };
    let error = std::io::Error::last_os_error().raw_os_error();
    let took = now() - before;
    eq!(setter.join().unwrap_or(-1), 0);
    ok!(clock_settime(CLOCK_REALTIME, &timespec(real + took)));
    eq!((got, error), (-1, Some(ETIMEDOUT)));
    check!(took < 20_000_000_000);
    Ok(())
}

fn stop_does_not_lengthen_a_wait() -> Outcome {
    let pid = fork_child(|| {
        let (word, before) = (0u32, now());
        let got = futex(&word, FUTEX_WAIT, 0, &timespec(400_000_000));
        let took = now() - before;
        // Timed out, and not later than the stop made it: a second is room for a slow machine.
        (got != -1 || std::io::Error::last_os_error().raw_os_error() != Some(ETIMEDOUT) || !(400_000_000..1_400_000_000).contains(&took)) as i32
    });
    for signal in [SIGSTOP, SIGCONT] {
        unsafe { usleep(100_000) };
        ok!(kill(pid, signal));
    }
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

#[repr(C)]
struct Want {
    value: u64,
    addr: u64,
    flags: u32,
    reserved: u32,
}

fn want(word: &AtomicU32, value: u64) -> Want {
    // FUTEX_32, private.
    Want { value, addr: word.as_ptr() as u64, flags: 2 | FUTEX_PRIVATE_FLAG as u32, reserved: 0 }
}

fn waitv(wants: &[Want], timeout: *const libc::timespec, clock: i32) -> i64 {
    // SAFETY: the kernel checks what it is given.
    unsafe { syscall(SYS_futex_waitv, wants.as_ptr(), wants.len() as u32, 0, timeout, clock) }
}

fn waitv_wakes_on_any() -> Outcome {
    static WORDS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
    for index in [0usize, 2, 1] {
        let thread = std::thread::spawn(|| {
            let wants = [want(&WORDS[0], 0), want(&WORDS[1], 0), want(&WORDS[2], 0)];
            waitv(&wants, NEVER, 0)
        });
        while futex(WORDS[index].as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NEVER) == 0 {
            std::thread::yield_now();
        }
        eq!(thread.join().unwrap_or(-1), index as i64);
        // It stands nowhere any more.
        check!(WORDS.iter().all(|w| futex(w.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 9, NEVER) == 0));
    }
    Ok(())
}

fn waitv_errors() -> Outcome {
    let word = AtomicU32::new(5);
    errno!(waitv(&[want(&word, 4)], NEVER, 0), EAGAIN);
    // Only 32 bits of the value count.
    errno!(waitv(&[want(&word, 1 << 32 | 5)], &timespec(1), CLOCK_MONOTONIC), ETIMEDOUT);
    errno!(waitv(&[], NEVER, 0), EINVAL);
    errno!(syscall(SYS_futex_waitv, 0usize, 1, 0, NEVER, 0), EINVAL);
    errno!(syscall(SYS_futex_waitv, &want(&word, 5), 1, 1, NEVER, 0), EINVAL);
    errno!(syscall(SYS_futex_waitv, &want(&word, 5), 129, 0, NEVER, 0), EINVAL);
    errno!(syscall(SYS_futex_waitv, 8usize, 1, 0, NEVER, 0), EFAULT);
    errno!(waitv(&[Want { flags: FUTEX_PRIVATE_FLAG as u32, ..want(&word, 5) }], NEVER, 0), EINVAL);
    errno!(waitv(&[Want { flags: 2 | 4, ..want(&word, 5) }], NEVER, 0), EINVAL);
    errno!(waitv(&[Want { reserved: 1, ..want(&word, 5) }], NEVER, 0), EINVAL);
    errno!(waitv(&[Want { addr: 6, ..want(&word, 5) }], NEVER, 0), EINVAL);
    errno!(waitv(&[Want { addr: 8, ..want(&word, 5) }], NEVER, 0), EFAULT);
    errno!(waitv(&[want(&word, 5)], &timespec(1), CLOCK_BOOTTIME), EINVAL);
    errno!(waitv(&[want(&word, 5)], &libc::timespec { tv_sec: -1, tv_nsec: 0 }, CLOCK_MONOTONIC), EINVAL);
    Ok(())
}

fn waitv_times_out() -> Outcome {
    let words = [AtomicU32::new(1), AtomicU32::new(2)];
    let wants = [want(&words[0], 1), want(&words[1], 2)];
    let before = now();
    errno!(waitv(&wants, &timespec(before + 20_000_000), CLOCK_MONOTONIC), ETIMEDOUT);
    check!(now() >= before + 20_000_000);
    errno!(waitv(&wants, &timespec(clock(CLOCK_REALTIME) + 10_000_000), CLOCK_REALTIME), ETIMEDOUT);
    Ok(())
}

fn requeue_wakes_one_and_moves_the_rest() -> Outcome {
    static FROM: AtomicU32 = AtomicU32::new(0);
    static TO: AtomicU32 = AtomicU32::new(0);
    let threads = waiters(&FROM, 10, FUTEX_WAIT | FUTEX_PRIVATE_FLAG);
    // All are there when so many would be moved to where they are.
    loop {
        let operation = FUTEX_REQUEUE | FUTEX_PRIVATE_FLAG;
        if ok!(syscall(SYS_futex, FROM.as_ptr(), operation, 0, 100usize, FROM.as_ptr(), 0)) == 10 {
            break;
        }
        std::thread::yield_now();
    }
    let operation = FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG;
    eq!(unsafe { syscall(SYS_futex, FROM.as_ptr(), operation, 1, i32::MAX as usize, TO.as_ptr(), 0) }, 10);
    eq!(futex(TO.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 100, NEVER), 9);
    check!(threads.into_iter().all(|t| t.join().unwrap_or(-1) == 0));
    errno!(syscall(SYS_futex, FROM.as_ptr(), operation, -1, 1usize, TO.as_ptr(), 0), EINVAL);
    Ok(())
}

fn broadcast_order_is_first_come() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(0);
    static ORDER: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());
    static GATE: AtomicU32 = AtomicU32::new(0);
    let mut threads = Vec::new();
    for i in 0..4usize {
        threads.push(std::thread::spawn(move || {
            futex(WORD.as_ptr(), FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, NEVER);
            if let Ok(mut order) = ORDER.lock() {
                order.push(i);
            }
            GATE.fetch_add(1, SeqCst);
        }));
        // The next one comes when this one stands in the queue.
        let operation = FUTEX_REQUEUE | FUTEX_PRIVATE_FLAG;
        while ok!(syscall(SYS_futex, WORD.as_ptr(), operation, 0, 100usize, WORD.as_ptr(), 0)) != i as i64 + 1 {
            std::thread::yield_now();
        }
    }
    for done in 1..=4 {
        eq!(futex(WORD.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NEVER), 1);
        while GATE.load(SeqCst) != done {
            std::thread::yield_now();
        }
    }
    check!(threads.into_iter().all(|t| t.join().is_ok()));
    eq!(ORDER.lock().map(|o| o.clone()).unwrap_or_default(), [0, 1, 2, 3]);
    Ok(())
}

/// A page of a new object in memory, mapped shared; its descriptor is closed.
fn shared_page() -> Result<&'static AtomicU32, Stop> {
    let fd = ok!(memfd_create(c"futex".as_ptr(), 0));
    ok!(ftruncate(fd, 4096));
    let page = ok!(mmap(std::ptr::null_mut(), 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    close_fd(fd);
    // SAFETY: a page of zeros; who unmaps it does not use it any more.
    Ok(unsafe { &*page.cast() })
}

fn a_moved_waiter_is_not_found_in_another_object() -> Outcome {
    static FROM: AtomicU32 = AtomicU32::new(0);
    let to = shared_page()?;
    let thread = std::thread::spawn(|| {
        let rc = futex(FROM.as_ptr(), FUTEX_WAIT, 0, &timespec(400_000_000));
        (rc, std::io::Error::last_os_error().raw_os_error())
    });
    while ok!(syscall(SYS_futex, FROM.as_ptr(), FUTEX_REQUEUE, 0, 1usize, to.as_ptr(), 0)) == 0 {
        std::thread::yield_now();
    }
    ok!(munmap(to.as_ptr().cast(), 4096));
    // The object is gone; what takes its place in memory is another one.
    for _ in 0..200 {
        let other = shared_page()?;
        let woken = futex(other.as_ptr(), FUTEX_WAKE, 100, NEVER);
        ok!(munmap(other.as_ptr().cast(), 4096));
        eq!(woken, 0);
    }
    eq!(thread.join().ok(), Some((-1, Some(ETIMEDOUT))));
    Ok(())
}

fn requeues_and_timeouts_meet() -> Outcome {
    static WORDS: [AtomicU32; 8] = [const { AtomicU32::new(0) }; 8];
    static DONE: AtomicU32 = AtomicU32::new(0);
    let threads: Vec<_> = (0..4)
        .map(|i| {
            std::thread::spawn(move || {
                for round in 0..300 {
                    let word = &WORDS[(i + round) % WORDS.len()];
                    let rc = futex(word.as_ptr(), FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &timespec(50_000 * (round % 4) as u64));
                    let why = std::io::Error::last_os_error().raw_os_error();
                    if rc != 0 && why != Some(ETIMEDOUT) {
                        return why;
                    }
                }
                DONE.fetch_add(1, SeqCst);
                None
            })
        })
        .collect();
    let operation = FUTEX_REQUEUE | FUTEX_PRIVATE_FLAG;
    let mut i = 0;
    while DONE.load(SeqCst) < 4 && !threads.iter().all(|t| t.is_finished()) {
        let (from, to) = (&WORDS[i % 8], &WORDS[(i * 5 + 3) % 8]);
        ok!(syscall(SYS_futex, from.as_ptr(), operation, usize::from(i % 16 == 0), 100usize, to.as_ptr(), 0));
        i += 1;
    }
    check!(threads.into_iter().all(|t| t.join().ok() == Some(None)));
    for word in &WORDS {
        eq!(futex(word.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 100, NEVER), 0);
    }
    Ok(())
}
