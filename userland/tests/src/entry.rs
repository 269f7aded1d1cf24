//! The ways into the kernel and out of it: numbers and words of a call, what a return may restore,
//! and the work that is done on the way back to the program.

use crate::check::*;
use libc::*;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

cases![entry:
    errors_are_small_negative_numbers, numbers_without_a_call_are_enosys, number_is_the_low_half_of_its_register,
    descriptor_is_the_low_half_of_its_register, getfl_shows_largefile, forged_mode_is_segv, masked_interrupts_are_segv,
    impossible_counter_is_segv, illegal_state_bit_harms_nobody, spinning_program_shares_its_cpu_and_dies,
    signal_to_oneself_is_handled_before_the_next_instruction, user_time_and_system_time_are_told_apart,
    stopped_sleep_goes_on, wait_for_interrupt_returns, clear_tid_in_the_kernel_is_harmless,
    registers_follow_a_migration, six_arguments_arrive, handlers_of_signals_that_came_together_nest,
    grace_period_ends_while_programs_spin, fork_is_not_interrupted,
];

/// A call by hand, with a number of 64 bits; gives all of x0.
fn call(number: u64, arguments: [u64; 4]) -> u64 {
    let mut result = arguments[0];
    // SAFETY: the cases pass arguments that they may have.
    unsafe {
        core::arch::asm!("svc #0", in("x8") number, inout("x0") result, in("x1") arguments[1], in("x2") arguments[2],
            in("x3") arguments[3], options(nostack))
    };
    result
}

fn errors_are_small_negative_numbers() -> Outcome {
    eq!(call(SYS_close as u64, [u64::MAX, 0, 0, 0]), (-9i64) as u64);
    eq!(call(SYS_mmap as u64, [0, 0, 0, 0]), (-22i64) as u64);
    // What is no error stays out of the last page: addresses, sizes, priorities.
    let at = call(SYS_brk as u64, [u64::MAX, 0, 0, 0]);
    check!(at < 1 << 48);
    let priority = call(SYS_getpriority as u64, [PRIO_PROCESS as u64, 0, 0, 0]);
    check!((1..=40).contains(&priority));
    for hint in [u64::MAX << 12, 1 << 63, (1 << 48) - 4096] {
        let at = map_at(hint);
        check!(at < 1 << 48);
    }
    Ok(())
}

fn map_at(hint: u64) -> u64 {
    // SAFETY: a hint without MAP_FIXED replaces nothing.
    unsafe { mmap(hint as *mut c_void, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) as u64 }
}

fn numbers_without_a_call_are_enosys() -> Outcome {
    // 244 to 259 are the architecture's own, 295 to 402 other architectures' and 32-bit programs'.
    for number in (244..260).chain(295..403).chain([460, 511, 512, 9999, 1 << 31, (1 << 32) - 1]) {
        eq!((number, call(number, [1, 2, 3, 4])), (number, (-38i64) as u64));
    }
    // All 32 bits count: what only ends like a number that exists is none.
    for high in [10, 16, 24, 31] {
        let number = 1 << high | SYS_getpid as u64;
        eq!((number, call(number, [0; 4])), (number, (-38i64) as u64));
    }
    Ok(())
}

fn six_arguments_arrive() -> Outcome {
    make("f", &[vec![b'a'; PAGE], vec![b'b'; PAGE], vec![b'c'; PAGE]].concat())?;
    let fd = ok!(open_file("f", O_RDONLY, 0)) as u64;
    for (page, byte) in [(1u64, b'b'), (2, b'c')] {
        let mut at = 0u64;
        // SAFETY: mmap(0, one page, readable, private, fd, offset) into a hole.
        unsafe {
            core::arch::asm!("svc #0", in("x8") SYS_mmap, inout("x0") at, in("x1") PAGE, in("x2") PROT_READ, in("x3") MAP_PRIVATE,
                in("x4") fd, in("x5") page * PAGE as u64, options(nostack))
        };
        check!((at as i64) > 0);
        // SAFETY: the page was just mapped; the one behind it was not.
        check!(unsafe { std::slice::from_raw_parts(at as *const u8, PAGE) }.iter().all(|have| *have == byte));
        eq!(unmap(at as *mut u8, PAGE), 0);
    }
    Ok(())
}

fn number_is_the_low_half_of_its_register() -> Outcome {
    let pid = u64::from(std::process::id());
    for garbage in [0, 1 << 32, 0xdead_beef << 32, u64::MAX << 32] {
        eq!(call(garbage | SYS_getpid as u64, [0; 4]), pid);
    }
    Ok(())
}

fn descriptor_is_the_low_half_of_its_register() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let garbage = 0xdead_beef << 32;
    eq!(call(SYS_write as u64, [garbage | writer as u64, b"word".as_ptr() as u64, 4, 0]), 4);
    let mut data = [0u8; 4];
    eq!(call(SYS_read as u64, [garbage | reader as u64, data.as_mut_ptr() as u64, 4, 0]), 4);
    eq!(&data, b"word");
    eq!(call(SYS_fcntl as u64, [garbage | reader as u64, garbage | F_GETFD as u64, 0, 0]), 0);
    // Negative ones, too: AT_FDCWD without the upper half, or with another one; flags and modes.
    make("f", b"")?;
    for at in [AT_FDCWD as u32 as u64, garbage | u64::from(AT_FDCWD as u32)] {
        let fd = call(SYS_openat as u64, [at, c"f".as_ptr() as u64, garbage | O_RDONLY as u64, garbage]);
        check!((fd as i64) >= 0);
        close_fd(fd as i32);
    }
    eq!(call(SYS_read as u64, [u64::from(u32::MAX), data.as_mut_ptr() as u64, 4, 0]), (-9i64) as u64);
    eq!(call(SYS_getpriority as u64, [garbage | PRIO_PROCESS as u64, garbage, 0, 0]), 20);
    Ok(())
}

fn getfl_shows_largefile() -> Outcome {
    make("f", b"")?;
    let fd = call(SYS_openat as u64, [AT_FDCWD as u64, c"f".as_ptr() as u64, O_RDWR as u64, 0]);
    check!((fd as i64) >= 0);
    // O_LARGEFILE of arm64; 64-bit programs have it without asking.
    eq!(call(SYS_fcntl as u64, [fd, F_GETFL as u64, 0, 0]), 0o400000 | O_RDWR as u64);
    Ok(())
}

/// What the handler of the forging cases writes: pstate bits to add, and the pc if not 0.
static ADD: AtomicU64 = AtomicU64::new(0);
static PC: AtomicU64 = AtomicU64::new(0);

extern "C" fn forge(_: i32, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gave a context.
    unsafe {
        let machine = &mut (*context.cast::<ucontext_t>()).uc_mcontext;
        machine.pstate |= ADD.load(SeqCst);
        if PC.load(SeqCst) != 0 {
            machine.pc = PC.load(SeqCst);
        }
    }
}

/// A child that returns from a handler through a forged frame, and then ends with 0.
fn return_through(pstate: u64, pc: u64) -> Status {
    child(|| {
        ADD.store(pstate, SeqCst);
        PC.store(pc, SeqCst);
        // std has a handler of its own, which would return.
        set_disposition(SIGSEGV, SIG_DFL);
        handle(SIGUSR1, forge, 0);
        // SAFETY: this process's own signal.
        unsafe { kill(getpid(), SIGUSR1) };
        0
    })
}

fn forged_mode_is_segv() -> Outcome {
    eq!(return_through(0, 0), Status::Exited(0));
    // EL1t, EL1h, EL2h, EL3h, AArch32's user, supervisor and system modes.
    for mode in [0x4, 0x5, 0x9, 0xd, 0x10, 0x13, 0x1f] {
        eq!((mode, return_through(mode, 0)), (mode, Status::Killed(SIGSEGV)));
    }
    Ok(())
}

fn masked_interrupts_are_segv() -> Outcome {
    for mask in [1 << 6, 1 << 7, 1 << 8, 1 << 9] {
        eq!((mask, return_through(mask, 0)), (mask, Status::Killed(SIGSEGV)));
    }
    Ok(())
}

fn impossible_counter_is_segv() -> Outcome {
    for pc in [1 << 52, 0xffff_8000_0000_0000, u64::MAX << 12] {
        eq!((pc, return_through(0, pc)), (pc, Status::Killed(SIGSEGV)));
    }
    Ok(())
}

fn illegal_state_bit_harms_nobody() -> Outcome {
    // PSTATE.IL, and bits that mean nothing, are dropped from the frame.
    for bits in [1 << 20, 1 << 5, 1 << 27, 1 << 40] {
        eq!((bits, return_through(bits, 0)), (bits, Status::Exited(0)));
    }
    Ok(())
}

/// Binds this thread, and the children that it starts, to one CPU.
fn bind(cpu: usize) -> Outcome {
    let mut set = zero::<cpu_set_t>();
    // SAFETY: the set is live.
    unsafe { CPU_SET(cpu, &mut set) };
    ok!(sched_setaffinity(0, size_of::<cpu_set_t>(), &set));
    Ok(())
}

fn online() -> usize {
    let mut set = zero::<cpu_set_t>();
    // SAFETY: the set is live.
    unsafe {
        sched_getaffinity(0, size_of::<cpu_set_t>(), &mut set);
        CPU_COUNT(&set) as usize
    }
}

fn shared_word() -> Result<&'static AtomicU64, Stop> {
    let at = map_with(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1);
    check!(at as isize != -1);
    // SAFETY: shared memory of zeroes that is never unmapped.
    Ok(unsafe { &*at.cast() })
}

fn spinning_program_shares_its_cpu_and_dies() -> Outcome {
    bind(0)?;
    let turns = shared_word()?;
    let pid = fork_child(|| loop {
        turns.fetch_add(1, SeqCst);
    });
    // Both run on one CPU, and the child makes no call: only an interrupt takes the CPU from it.
    for _ in 0..5 {
        let before = turns.load(SeqCst);
        while turns.load(SeqCst) == before {
            // SAFETY: no arguments.
            unsafe { sched_yield() };
        }
    }
    ok!(kill(pid, SIGKILL));
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    Ok(())
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    HANDLED.fetch_add(1, SeqCst);
}

fn signal_to_oneself_is_handled_before_the_next_instruction() -> Outcome {
    ok!(handle(SIGRTMIN(), count, 0));
    let (pid, thread) = (u64::from(std::process::id()), call(SYS_gettid as u64, [0; 4]));
    for sent in 1..=10_000 {
        eq!(call(SYS_tgkill as u64, [pid, thread, SIGRTMIN() as u64, 0]), 0);
        eq!(HANDLED.load(SeqCst), sent);
    }
    Ok(())
}

static ORDER: AtomicU64 = AtomicU64::new(0);

extern "C" fn note_order(signal: i32, _: *mut siginfo_t, _: *mut c_void) {
    let before = ORDER.load(SeqCst);
    ORDER.store(before << 8 | signal as u64, SeqCst);
}

fn handlers_of_signals_that_came_together_nest() -> Outcome {
    // On the way back the kernel looks again until nothing is left to do: each signal gets its
    // frame on top of the one before, so the last one's handler runs first.
    for signal in [SIGUSR1, SIGUSR2, SIGRTMIN()] {
        ok!(handle(signal, note_order, 0));
    }
    let mut set = zero::<sigset_t>();
    ok!(sigfillset(&mut set));
    ok!(sigprocmask(SIG_SETMASK, &set, std::ptr::null_mut()));
    for signal in [SIGUSR1, SIGUSR2, SIGRTMIN()] {
        ok!(kill(getpid(), signal));
    }
    eq!(ORDER.load(SeqCst), 0);
    let none = 0u64;
    eq!(call(SYS_rt_sigprocmask as u64, [SIG_SETMASK as u64, &raw const none as u64, 0, 8]), 0);
    eq!(ORDER.load(SeqCst), (SIGRTMIN() as u64) << 16 | (SIGUSR2 as u64) << 8 | SIGUSR1 as u64);
    Ok(())
}

fn grace_period_ends_while_programs_spin() -> Outcome {
    // membarrier(MEMBARRIER_CMD_GLOBAL) waits for a grace period, and nobody but it makes a call.
    let started = shared_word()?;
    let cpus = online();
    let spinning: Vec<i32> = (0..cpus)
        .map(|cpu| {
            fork_child(|| {
                let _ = bind(cpu);
                started.fetch_add(1, SeqCst);
                loop {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    while started.load(SeqCst) < cpus as u64 {
        // SAFETY: no arguments.
        unsafe { sched_yield() };
    }
    let done = shared_word()?;
    let waits = fork_child(|| {
        for _ in 0..3 {
            if call(SYS_membarrier as u64, [1, 0, 0, 0]) != 0 {
                return 1;
            }
        }
        done.store(1, SeqCst);
        0
    });
    let limit = now() + 20_000_000_000;
    while done.load(SeqCst) == 0 && now() < limit {
        // SAFETY: only sleeps.
        unsafe { usleep(1000) };
    }
    let ended = done.load(SeqCst);
    for pid in spinning {
        ok!(kill(pid, SIGKILL));
        eq!(wait_for(pid), Status::Killed(SIGKILL));
    }
    eq!(ended, 1);
    eq!(wait_for(waits), Status::Exited(0));
    Ok(())
}

fn fork_is_not_interrupted() -> Outcome {
    ok!(handle(SIGALRM, count, 0));
    let often = timeval { tv_sec: 0, tv_usec: 300 };
    ok!(setitimer(ITIMER_REAL, &itimerval { it_interval: often, it_value: often }, std::ptr::null_mut()));
    let mut failed = 0;
    for _ in 0..150 {
        // SAFETY: the child only ends.
        match unsafe { syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) } {
            0 => unsafe { _exit(0) },
            pid if pid > 0 => eq!(wait_for(pid as i32), Status::Exited(0)),
            _ => failed += 1,
        }
    }
    let never = timeval { tv_sec: 0, tv_usec: 0 };
    ok!(setitimer(ITIMER_REAL, &itimerval { it_interval: never, it_value: never }, std::ptr::null_mut()));
    eq!(failed, 0);
    check!(HANDLED.load(SeqCst) > 0);
    Ok(())
}

/// Time of this process in user mode and in the kernel, in microseconds.
fn times() -> (u64, u64) {
    let mut usage = zero::<rusage>();
    // SAFETY: the structure is live.
    unsafe { getrusage(RUSAGE_SELF, &mut usage) };
    let micro = |time: timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    (micro(usage.ru_utime), micro(usage.ru_stime))
}

fn user_time_and_system_time_are_told_apart() -> Outcome {
    const AMOUNT: u64 = 400_000;
    // Only arithmetic, with a look at the clock now and then.
    let start = times();
    let mut now = start;
    while now.0 + now.1 < start.0 + start.1 + AMOUNT {
        (0..2_000_000u64).for_each(|word| {
            std::hint::black_box(word);
        });
        now = times();
    }
    let (user, system) = (now.0 - start.0, now.1 - start.1);
    if user < 3 * system {
        fail!("arithmetic took {user} us in user mode, {system} us in the kernel");
    }
    // Only calls that work in the kernel.
    let zero = ok!(open_file("/dev/zero", O_RDONLY, 0));
    let mut data = vec![0u8; 1 << 20];
    let start = times();
    let mut now = start;
    while now.0 + now.1 < start.0 + start.1 + AMOUNT {
        for _ in 0..16 {
            read_fd(zero, &mut data);
        }
        now = times();
    }
    let (user, system) = (now.0 - start.0, now.1 - start.1);
    if system < 3 * user {
        fail!("reading zeroes took {user} us in user mode, {system} us in the kernel");
    }
    Ok(())
}

fn stopped_sleep_goes_on() -> Outcome {
    const LENGTH: u64 = 600_000_000;
    let asleep = shared_word()?;
    let pid = fork_child(|| {
        let start = now();
        asleep.store(1, SeqCst);
        // SAFETY: the time is live. A plain sleep: not started again by the library.
        let result = call(SYS_nanosleep as u64, [&raw const SLEEP as u64, 0, 0, 0]);
        let took = now() - start;
        // With what was left, and not from the start again.
        if result == 0 && took >= LENGTH && took < LENGTH + LATE { 0 } else { 1 }
    });
    const LATE: u64 = 400_000_000;
    static SLEEP: timespec = timespec { tv_sec: 0, tv_nsec: LENGTH as i64 };
    while asleep.load(SeqCst) == 0 {
        std::hint::spin_loop();
    }
    for pause in [1, 1, 500_000] {
        // SAFETY: only sleeps.
        unsafe { usleep(pause) };
        ok!(kill(pid, SIGSTOP));
        eq!(wait_flags(pid, WUNTRACED), Status::Stopped(SIGSTOP));
        ok!(kill(pid, SIGCONT));
    }
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn wait_for_interrupt_returns() -> Outcome {
    for _ in 0..3 {
        // SAFETY: no effect but waiting.
        unsafe { core::arch::asm!("wfi", options(nomem, nostack)) };
    }
    Ok(())
}

fn clear_tid_in_the_kernel_is_harmless() -> Outcome {
    // The kernel writes a 0 there when the thread ends: a kernel address is no place for it.
    let ended = child(|| {
        for at in [0xffff_0000_0000_0000u64, 0xffff_c000_0000_0000, !7] {
            call(SYS_set_tid_address as u64, [at, 0, 0, 0]);
        }
        0
    });
    eq!(ended, Status::Exited(0));
    Ok(())
}

fn registers_follow_a_migration() -> Outcome {
    let cpus = online();
    if cpus < 2 {
        return Err(Stop::Skip("one CPU".into()));
    }
    for turn in 0..200u64 {
        let mut set = zero::<cpu_set_t>();
        // SAFETY: the set is live.
        unsafe { CPU_SET(turn as usize % cpus, &mut set) };
        let (mut low, mut high, mut result) = (turn, !turn, 0u64);
        // SAFETY: sched_setaffinity(0, ..) between a store to vector registers and a load of them.
        unsafe {
            core::arch::asm!(
                "dup v0.2d, {low}", "dup v17.2d, {high}", "svc #0", "mov {low}, v0.d[1]", "mov {high}, v17.d[0]",
                low = inout(reg) low, high = inout(reg) high, in("x8") SYS_sched_setaffinity, inout("x0") result,
                in("x1") size_of::<cpu_set_t>(), in("x2") &set, out("v0") _, out("v17") _,
            )
        };
        check!((result as i64) >= 0);
        eq!((low, high), (turn, !turn));
    }
    Ok(())
}
