//! Threads: clone with CLONE_THREAD, their ids, exit, and what they share.

use crate::check::*;
use libc::*;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

cases![threads:
    ids_differ_pid_is_shared, join_gives_the_value, memory_and_descriptors_are_shared, thread_locals_are_apart,
    tgkill_reaches_one_thread, tgkill_errors, mutex_excludes, condition_variable_hands_over, many_threads_come_and_go,
    leader_exit_leaves_threads, thread_exit_clears_tid, floating_point_survives_switches, directory_is_shared,
    process_signal_reaches_some_thread, proc_task_lists_threads, affinity_binds, robust_list_and_tid_address, barrier_of_eight,
];

fn ids_differ_pid_is_shared() -> Outcome {
    let me = unsafe { (getpid(), gettid()) };
    eq!(me.0, me.1);
    let other = std::thread::spawn(|| unsafe { (getpid(), gettid()) }).join().unwrap_or((0, 0));
    eq!(other.0, me.0);
    check!(other.1 != me.1 && other.1 > 0);
    Ok(())
}

fn join_gives_the_value() -> Outcome {
    let threads: Vec<_> = (0..8u64).map(|i| std::thread::spawn(move || (0..10_000).map(|j| j * i).sum::<u64>())).collect();
    for (i, thread) in threads.into_iter().enumerate() {
        eq!(thread.join().unwrap_or(0), 49_995_000 * i as u64);
    }
    Ok(())
}

fn memory_and_descriptors_are_shared() -> Outcome {
    let (reader, _writer) = std::thread::spawn(|| new_pipe(0).map(|ends| { write_fd(ends.1, b"x"); ends }).unwrap_or((-1, -1)))
        .join()
        .unwrap_or((-1, -1));
    eq!(read_fd(reader, &mut [0; 1]), 1);
    let at = ok!(map(PAGE, RW)) as usize;
    let done = std::thread::spawn(move || unsafe { *(at as *mut u8) = 5 }).join();
    check!(done.is_ok());
    eq!(unsafe { *(at as *mut u8) }, 5);
    Ok(())
}

fn thread_locals_are_apart() -> Outcome {
    std::thread_local!(static VALUE: std::cell::Cell<i32> = const { std::cell::Cell::new(0) });
    VALUE.set(1);
    let threads: Vec<_> = (2..6)
        .map(|i| {
            std::thread::spawn(move || {
                VALUE.set(i);
                (0..100).for_each(|_| std::thread::yield_now());
                VALUE.get() == i
            })
        })
        .collect();
    check!(threads.into_iter().all(|thread| thread.join().unwrap_or(false)));
    eq!(VALUE.get(), 1);
    Ok(())
}

static HIT: AtomicI32 = AtomicI32::new(0);

extern "C" fn note_thread(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    HIT.store(unsafe { gettid() }, SeqCst);
}

fn tgkill_reaches_one_thread() -> Outcome {
    ok!(handle(SIGUSR1, note_thread, 0));
    let tid = Arc::new(AtomicI32::new(0));
    let other = tid.clone();
    let thread = std::thread::spawn(move || {
        other.store(unsafe { gettid() }, SeqCst);
        while HIT.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
    });
    while tid.load(SeqCst) == 0 {
        std::thread::yield_now();
    }
    ok!(syscall(SYS_tgkill, getpid(), tid.load(SeqCst), SIGUSR1));
    check!(thread.join().is_ok());
    eq!(HIT.load(SeqCst), tid.load(SeqCst));
    Ok(())
}

fn tgkill_errors() -> Outcome {
    let me = unsafe { getpid() };
    errno!(syscall(SYS_tgkill, me, 99999, 0), ESRCH);
    errno!(syscall(SYS_tgkill, 1, me, 0), ESRCH);
    errno!(syscall(SYS_tgkill, 0, me, 0), EINVAL);
    errno!(syscall(SYS_tgkill, me, -1, 0), EINVAL);
    errno!(syscall(SYS_tgkill, me, me, 99), EINVAL);
    ok!(syscall(SYS_tkill, me, 0));
    Ok(())
}

fn mutex_excludes() -> Outcome {
    let count = Arc::new(Mutex::new(0u64));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let count = count.clone();
            std::thread::spawn(move || (0..5000).for_each(|_| *count.lock().unwrap_or_else(|e| e.into_inner()) += 1))
        })
        .collect();
    check!(threads.into_iter().all(|thread| thread.join().is_ok()));
    eq!(*count.lock().unwrap_or_else(|e| e.into_inner()), 40_000);
    Ok(())
}

fn condition_variable_hands_over() -> Outcome {
    let pair = Arc::new((Mutex::new(0), Condvar::new()));
    let other = pair.clone();
    let thread = std::thread::spawn(move || {
        for i in 0..500 {
            let Ok(turn) = other.0.lock() else { return };
            let Ok(mut turn) = other.1.wait_while(turn, |turn| *turn != 2 * i + 1) else { return };
            *turn += 1;
            other.1.notify_one();
        }
    });
    for i in 0..500 {
        let Ok(turn) = pair.0.lock() else { fail!("poisoned") };
        let Ok(mut turn) = pair.1.wait_while(turn, |turn| *turn != 2 * i) else { fail!("poisoned") };
        *turn += 1;
        pair.1.notify_one();
    }
    check!(thread.join().is_ok());
    Ok(())
}

fn many_threads_come_and_go() -> Outcome {
    for _ in 0..20 {
        let threads: Vec<_> = (0..20).map(|i| std::thread::spawn(move || i)).collect();
        eq!(threads.into_iter().map(|thread| thread.join().unwrap_or(-1000)).sum::<i32>(), 190);
    }
    Ok(())
}

fn leader_exit_leaves_threads() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| {
        std::thread::spawn(move || {
            unsafe { usleep(30_000) };
            write_fd(writer, b"alive");
            unsafe { syscall(SYS_exit_group, 6) };
        });
        unsafe { syscall(SYS_exit, 1) };
        99
    });
    close_fd(writer);
    eq!(read_to_end(reader), b"alive");
    eq!(wait_for(pid), Status::Exited(6));
    Ok(())
}

fn thread_exit_clears_tid() -> Outcome {
    static WORD: AtomicU32 = AtomicU32::new(77);
    let thread = std::thread::spawn(|| unsafe { syscall(SYS_set_tid_address, WORD.as_ptr()); syscall(SYS_exit, 0) });
    // Joining would wait for the word that glibc gave; ours is woken and cleared instead.
    let limit = timespec(20_000_000_000);
    while WORD.load(SeqCst) == 77 {
        let value = unsafe { syscall(SYS_futex, WORD.as_ptr(), FUTEX_WAIT, 77, &limit, 0, 0) };
        check!(value == 0 || std::io::Error::last_os_error().raw_os_error() != Some(ETIMEDOUT));
    }
    eq!(WORD.load(SeqCst), 0);
    std::mem::forget(thread);
    Ok(())
}

fn floating_point_survives_switches() -> Outcome {
    let threads: Vec<_> = (1..9)
        .map(|i| {
            std::thread::spawn(move || {
                let (mut sum, step) = (0f64, f64::from(i) / 7.0);
                for n in 0..200_000u32 {
                    sum += step;
                    if n % 1000 == 0 {
                        std::thread::yield_now();
                    }
                }
                (sum - step * 200_000.0).abs() < 1e-3
            })
        })
        .collect();
    check!(threads.into_iter().all(|thread| thread.join().unwrap_or(false)));
    Ok(())
}

fn directory_is_shared() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    check!(std::thread::spawn(|| unsafe { chdir(c"d".as_ptr()) }).join().unwrap_or(-1) == 0);
    make("inside", b"")?;
    stat_of("/tmp/linnet-tests/d/inside")?;
    Ok(())
}

fn process_signal_reaches_some_thread() -> Outcome {
    ok!(handle(SIGUSR2, note_thread, 0));
    let mut set = zero::<sigset_t>();
    ok!(sigemptyset(&mut set));
    ok!(sigaddset(&mut set, SIGUSR2));
    let thread = std::thread::spawn(|| {
        while HIT.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        unsafe { gettid() }
    });
    ok!(pthread_sigmask(SIG_BLOCK, &set, std::ptr::null_mut()));
    ok!(kill(getpid(), SIGUSR2));
    let tid = thread.join().unwrap_or(0);
    // Blocked here, so the other thread took it.
    eq!(HIT.load(SeqCst), tid);
    Ok(())
}

fn proc_task_lists_threads() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let thread = std::thread::spawn(move || read_fd(reader, &mut [0; 1]));
    let Ok(list) = std::fs::read_dir("/proc/self/task") else { fail!("no /proc/self/task") };
    eq!(list.count(), 2);
    let status = String::from_utf8_lossy(&content("/proc/self/status")?).into_owned();
    check!(status.contains("Threads:\t2"));
    write_fd(writer, b"x");
    check!(thread.join().is_ok());
    Ok(())
}

fn affinity_binds() -> Outcome {
    let mut set = zero::<cpu_set_t>();
    let size = std::mem::size_of::<cpu_set_t>();
    ok!(sched_getaffinity(0, size, &mut set));
    let count = unsafe { CPU_COUNT(&set) };
    check!(count >= 1);
    let mut small = 0u8;
    errno!(syscall(SYS_sched_getaffinity, 0, 1, &mut small), EINVAL);
    errno!(syscall(SYS_sched_getaffinity, 99999, size, &mut set), ESRCH);
    let mut one = zero::<cpu_set_t>();
    let last = (0..1024).rev().find(|cpu| unsafe { CPU_ISSET(*cpu, &set) }).unwrap_or(0);
    unsafe { CPU_SET(last, &mut one) };
    if unsafe { sched_setaffinity(0, size, &one) } != 0 {
        return Err(Stop::Skip("no sched_setaffinity".into()));
    }
    let mut cpu = 99u32;
    for _ in 0..20 {
        ok!(syscall(SYS_getcpu, &mut cpu, 0, 0));
        eq!(cpu as usize, last);
        ok!(sched_yield());
    }
    errno!(sched_setaffinity(0, size, &zero::<cpu_set_t>()), EINVAL);
    Ok(())
}

fn robust_list_and_tid_address() -> Outcome {
    let mut word = 0u32;
    eq!(ok!(syscall(SYS_set_tid_address, &mut word)), i64::from(unsafe { gettid() }));
    ok!(syscall(SYS_set_tid_address, 0));
    let mut head = [0usize; 3];
    ok!(syscall(SYS_set_robust_list, head.as_mut_ptr(), 24));
    errno!(syscall(SYS_set_robust_list, head.as_mut_ptr(), 23), EINVAL);
    Ok(())
}

fn barrier_of_eight() -> Outcome {
    let barrier = Arc::new(std::sync::Barrier::new(8));
    let rounds = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (barrier, rounds) = (barrier.clone(), rounds.clone());
            std::thread::spawn(move || {
                for round in 1..=50 {
                    rounds.fetch_add(1, SeqCst);
                    barrier.wait();
                    if rounds.load(SeqCst) < round * 8 {
                        return false;
                    }
                    barrier.wait();
                }
                true
            })
        })
        .collect();
    check!(threads.into_iter().all(|thread| thread.join().unwrap_or(false)));
    Ok(())
}
