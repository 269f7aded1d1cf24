//! Many at once: threads, signals, forks, execs and exits that race. Whoever was in the crowd ends as
//! it may, and afterwards everything is back.

use crate::check::*;
use libc::*;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

cases![crowds:
    threads_by_the_thousand, storm_of_signals, fork_bomb_ends_at_the_limit, exec_races_with_exit_and_kill,
    threads_end_while_siblings_fault, robust_lists_that_point_anywhere, leaders_end_before_their_threads,
    forks_end_while_others_signal_everybody,
];

/// MemFree in KiB.
fn free_memory() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemFree:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Runs `body`, after which memory is as free as before, but for what caches keep.
fn nothing_is_lost(body: impl Fn() -> Outcome) -> Outcome {
    const KEPT: usize = 8 << 10;
    // What the first time allocates for good is not counted.
    body()?;
    let before = free_memory();
    body()?;
    // The last stacks and tables are given back by grace periods after their threads have been
    // waited for: this command waits for one.
    for _ in 0..200 {
        if free_memory() + KEPT >= before {
            return Ok(());
        }
        // SAFETY: no pointers.
        ok!(syscall(SYS_membarrier, 1, 0, 0));
    }
    fail!("{before} KiB were free, {} KiB are now", free_memory())
}

fn futex(word: &AtomicU32, operation: i32, value: u32) {
    // SAFETY: the word lives; no timeout.
    unsafe { syscall(SYS_futex, word, operation, value, 0) };
}

static GATE: AtomicU32 = AtomicU32::new(0);
static HERE: AtomicU32 = AtomicU32::new(0);

extern "C" fn wait_at_the_gate(_: *mut c_void) -> *mut c_void {
    HERE.fetch_add(1, SeqCst);
    while GATE.load(SeqCst) == 0 {
        futex(&GATE, FUTEX_WAIT, 0);
    }
    std::ptr::null_mut()
}

fn threads_by_the_thousand() -> Outcome {
    nothing_is_lost(|| {
        in_child(|| {
            let mut small: pthread_attr_t = zero();
            ok!(pthread_attr_init(&mut small));
            ok!(pthread_attr_setstacksize(&mut small, 16384));
            let mut threads: Vec<pthread_t> = Vec::new();
            // More than a process has in peace; few enough for the checking kernel on a busy machine.
            while threads.len() < 2_000 {
                let mut id: pthread_t = zero();
                // SAFETY: the thread touches statics only.
                if unsafe { pthread_create(&mut id, &small, wait_at_the_gate, std::ptr::null_mut()) } != 0 {
                    break;
                }
                threads.push(id);
            }
            check!(threads.len() > 1000);
            while HERE.load(SeqCst) < threads.len() as u32 {
                std::thread::yield_now();
            }
            let count = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
            eq!(count, threads.len() + 1);
            GATE.store(1, SeqCst);
            futex(&GATE, FUTEX_WAKE, i32::MAX as u32);
            for id in threads {
                // SAFETY: each is joined once.
                eq!(unsafe { pthread_join(id, std::ptr::null_mut()) }, 0);
            }
            eq!(std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count), 1);
            Ok(())
        })
    })
}

static SEEN: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    SEEN.fetch_add(1, SeqCst);
}

fn storm_of_signals() -> Outcome {
    nothing_is_lost(|| {
        // One group of its own, whose members signal the whole group, themselves included.
        in_child(|| {
            ok!(setpgid(0, 0));
            for signal in [SIGUSR1, SIGUSR2, SIGRTMIN()] {
                ok!(handle(signal, count, SA_NODEFER | SA_RESTART));
            }
            let group = unsafe { getpid() };
            let crowd: Vec<i32> = (0..8)
                .map(|i| {
                    fork_child(|| {
                        for n in 0..400 {
                            let signal = [SIGUSR1, SIGUSR2, SIGRTMIN()][(n + i) % 3];
                            // SAFETY: every member has handlers.
                            unsafe { kill(-group, signal) };
                        }
                        i32::from(SEEN.load(SeqCst) == 0)
                    })
                })
                .collect();
            for pid in crowd {
                eq!(wait_for(pid), Status::Exited(0));
            }
            check!(SEEN.load(SeqCst) > 0);
            Ok(())
        })
    })
}

fn fork_bomb_ends_at_the_limit() -> Outcome {
    nothing_is_lost(|| {
        in_child(|| {
            ok!(prctl(PR_SET_CHILD_SUBREAPER, 1));
            let (ready, up) = new_pipe(0)?;
            let bomb = fork_child(|| {
                let limit = rlimit { rlim_cur: 80, rlim_max: 80 };
                // SAFETY: no pointers but to a live structure.
                unsafe {
                    setpgid(0, 0);
                    setrlimit(RLIMIT_NPROC, &limit);
                    setresuid(4323, 4323, 4323);
                }
                let mut depth = 0;
                loop {
                    // SAFETY: one thread.
                    match unsafe { fork() } {
                        -1 => {
                            write_fd(up, b"x");
                            loop {
                                // SAFETY: waits to be killed.
                                unsafe { pause() };
                            }
                        }
                        0 => depth = 0,
                        _ if depth > 4 => loop {
                            // SAFETY: waits to be killed.
                            unsafe { pause() };
                        },
                        _ => depth += 1,
                    }
                }
            });
            check!(bomb > 0);
            // The first who may not fork any more says so.
            eq!(read_fd(ready, &mut [0]), 1);
            // Members may still be forking: as long as there is a child of ours, the group is killed.
            let mut ended = 0;
            loop {
                // SAFETY: the group of the bomb.
                unsafe { kill(-bomb, SIGKILL) };
                let mut raw = 0;
                // SAFETY: `raw` is live.
                match unsafe { waitpid(-1, &mut raw, 0) } {
                    -1 => break,
                    _ => ended += 1,
                }
            }
            eq!(std::io::Error::last_os_error().raw_os_error(), Some(ECHILD));
            check!(ended >= 40 && ended <= 200);
            Ok(())
        })
    })
}

extern "C" fn run_true(_: *mut c_void) -> *mut c_void {
    let words = [c"true".as_ptr(), std::ptr::null()];
    // SAFETY: the strings live.
    unsafe { execve(c"/bin/true".as_ptr(), words.as_ptr(), std::ptr::null()) };
    std::ptr::null_mut()
}

extern "C" fn leave(_: *mut c_void) -> *mut c_void {
    // SAFETY: ends the process.
    unsafe { syscall(SYS_exit_group, 3) };
    std::ptr::null_mut()
}

extern "C" fn kill_all(_: *mut c_void) -> *mut c_void {
    // SAFETY: ends the process.
    unsafe { kill(getpid(), SIGKILL) };
    std::ptr::null_mut()
}

extern "C" fn nothing(_: *mut c_void) -> *mut c_void {
    std::ptr::null_mut()
}

fn start(entry: extern "C" fn(*mut c_void) -> *mut c_void) {
    let mut id: pthread_t = zero();
    // SAFETY: the entries have no argument; nobody joins them.
    unsafe { pthread_create(&mut id, std::ptr::null(), entry, std::ptr::null_mut()) };
}

fn exec_races_with_exit_and_kill() -> Outcome {
    nothing_is_lost(|| {
        for round in 0..60 {
            let kinds: [extern "C" fn(*mut c_void) -> *mut c_void; 6] = [run_true, nothing, run_true, leave, run_true, kill_all];
            let ended = child(|| {
                for i in 0..6 {
                    // The three in which the round is to differ come first in turn.
                    start(kinds[(i + round) % if round % 2 == 0 { 6 } else { 3 }]);
                }
                loop {
                    // SAFETY: waits for the end of the process.
                    unsafe { pause() };
                }
            });
            let expected = [Status::Exited(0), Status::Exited(3), Status::Killed(SIGKILL)];
            check!(expected.contains(&ended));
        }
        Ok(())
    })
}

static REGION: AtomicU32 = AtomicU32::new(0);

extern "C" fn fault_around(at: *mut c_void) -> *mut c_void {
    let at = at.cast::<u8>();
    for i in 0usize.. {
        let page = at.wrapping_add(i * 7 % 64 * PAGE);
        match i % 5 {
            // SAFETY: the region is mapped for as long as the process lives; stores race on purpose.
            0..=2 => unsafe { page.write_volatile(i as u8) },
            // SAFETY: as above.
            3 => unsafe { _ = madvise(page.cast(), 4 * PAGE, MADV_DONTNEED) },
            // SAFETY: readable and writable again at once.
            _ => unsafe { _ = mprotect(page.cast(), PAGE, RW) },
        }
        if REGION.load(SeqCst) != 0 && i % 97 == 0 {
            break;
        }
    }
    std::ptr::null_mut()
}

fn threads_end_while_siblings_fault() -> Outcome {
    nothing_is_lost(|| {
        for round in 0..30 {
            let ended = child(|| {
                let at = map(80 * PAGE, RW);
                let threads: Vec<pthread_t> = (0..5)
                    .map(|_| {
                        let mut id: pthread_t = zero();
                        // SAFETY: the region outlives the threads.
                        unsafe { pthread_create(&mut id, std::ptr::null(), fault_around, at.cast()) };
                        id
                    })
                    .collect();
                for i in 0..round * 40 {
                    // SAFETY: as in the threads.
                    unsafe { at.wrapping_add(i % 80 * PAGE).write_volatile(1) };
                }
                if round % 3 == 0 {
                    // In the middle of everything.
                    return 0;
                }
                REGION.store(1, SeqCst);
                for id in threads {
                    // SAFETY: each is joined once.
                    unsafe { pthread_join(id, std::ptr::null_mut()) };
                }
                0
            });
            eq!(ended, Status::Exited(0));
        }
        Ok(())
    })
}

fn robust_lists_that_point_anywhere() -> Outcome {
    let page = ok!(map(2 * PAGE, RW));
    ok!(unmap(page.wrapping_add(PAGE), PAGE));
    let words = page.cast::<usize>();
    let at = |i: usize| words.wrapping_add(i) as usize;
    let lists: [[usize; 3]; 10] = [
        [0, 0, 0],
        [1, 0, 0],
        [at(0), 0, 0],
        [at(8), 0, 0],
        [at(8), usize::MAX, at(8)],
        [at(8), 1 << 62, 0],
        [page as usize + PAGE, 0, page as usize + PAGE],
        [0xffff_0000_0000_0000, 0, 0xffff_0000_0000_0000],
        [1 << 48, 0, 1 << 48],
        [at(8) | 1, 4, at(8) | 1],
    ];
    for list in lists {
        let ended = child(|| {
            for (i, word) in list.into_iter().enumerate() {
                // SAFETY: inside the page.
                unsafe { words.wrapping_add(i).write_volatile(word) };
            }
            // A ring that never comes back to the head.
            // SAFETY: inside the page.
            unsafe {
                words.wrapping_add(8).write_volatile(at(9));
                words.wrapping_add(9).write_volatile(at(8));
                i32::from(syscall(SYS_set_robust_list, words, 24) != 0)
            }
        });
        eq!(ended, Status::Exited(0));
    }
    for head in [1usize, page as usize + PAGE, 0xffff_0000_0000_0000, usize::MAX] {
        // SAFETY: the kernel reads it at the end of the child only.
        eq!(child(|| unsafe { syscall(SYS_set_robust_list, head, 24) as i32 }), Status::Exited(0));
    }
    Ok(())
}

extern "C" fn last_word(_: *mut c_void) -> *mut c_void {
    for _ in 0..50 {
        std::thread::yield_now();
    }
    // SAFETY: ends the process.
    unsafe { syscall(SYS_exit_group, 5) };
    std::ptr::null_mut()
}

fn leaders_end_before_their_threads() -> Outcome {
    nothing_is_lost(|| {
        let crowd: Vec<i32> = (0..40)
            .map(|_| {
                fork_child(|| {
                    (0..3).for_each(|_| start(nothing));
                    start(last_word);
                    // SAFETY: ends this thread alone.
                    unsafe { syscall(SYS_exit, 1) };
                    1
                })
            })
            .collect();
        for pid in crowd {
            eq!(wait_for(pid), Status::Exited(5));
        }
        Ok(())
    })
}

fn forks_end_while_others_signal_everybody() -> Outcome {
    in_child(|| {
        // As nobody, who may signal no one here: all that is left is the noise.
        let noise: Vec<i32> = (0..2)
            .map(|_| {
                fork_child(|| {
                    // SAFETY: plain calls.
                    unsafe {
                        setresuid(65534, 65534, 65534);
                        loop {
                            kill(-1, SIGCONT);
                            kill(-getppid(), SIGCONT);
                        }
                    }
                })
            })
            .collect();
        for _ in 0..200 {
            eq!(child(|| 3), Status::Exited(3));
        }
        for pid in noise {
            ok!(kill(pid, SIGKILL));
            eq!(wait_for(pid), Status::Killed(SIGKILL));
        }
        Ok(())
    })
}
