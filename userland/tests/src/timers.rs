//! Timers of processes: timer_create, interval timers of CPU time, limits of CPU time, CPU clocks.

use crate::check::*;
use libc::*;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering::SeqCst};

cases![timers:
    timer_sends_its_signal, periodic_timer_repeats, overrun_is_counted, timer_for_a_thread, timer_without_signal_counts_down,
    absolute_timer, timer_errors, timers_end_with_exec_and_are_not_inherited, virtual_timer_counts_user_time, prof_timer_repeats,
    cpu_limit_signals_and_kills, cpu_clocks_of_others, setting_the_clock_ends_a_sleep, altstack_disarms_itself,
    a_timer_rests_until_its_signal_is_taken, an_old_signal_does_not_arm_a_timer, a_timer_goes_on_beside_other_signals,
    an_ignored_timer_goes_on, an_alarm_rests_until_it_is_taken, a_timer_continues_a_stopped_process,
];

static COUNT: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static VALUE: AtomicUsize = AtomicUsize::new(0);
static OVERRUN: AtomicI32 = AtomicI32::new(0);
static THREAD: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(_: i32, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gave a siginfo; a timer's has id, overrun and value from byte 16 on.
    unsafe {
        CODE.store((*info).si_code, SeqCst);
        OVERRUN.store(*info.cast::<i32>().add(5), SeqCst);
        VALUE.store((*info).si_value().sival_ptr as usize, SeqCst);
        THREAD.store(gettid(), SeqCst);
    }
    COUNT.fetch_add(1, SeqCst);
}

/// `struct sigevent`.
#[repr(C)]
struct Event {
    value: u64,
    signal: i32,
    kind: i32,
    thread: i32,
    rest: [i32; 11],
}

fn event(signal: i32, kind: i32) -> Event {
    Event { value: 0x1234_5678_9abc, signal, kind, thread: 0, rest: [0; 11] }
}

fn create(clock: i32, event: *const Event) -> Result<u32, Stop> {
    let mut id = u32::MAX;
    ok!(syscall(SYS_timer_create, clock, event, &mut id));
    Ok(id)
}

fn span(nanoseconds: u64) -> libc::timespec {
    timespec(nanoseconds)
}

fn set(id: u32, value: u64, interval: u64, flags: i32) -> i64 {
    let new = [span(interval), span(value)];
    unsafe { syscall(SYS_timer_settime, id, flags, &new, 0usize) }
}

fn get(id: u32) -> Result<(u64, u64), Stop> {
    let mut at = [zero::<libc::timespec>(); 2];
    ok!(syscall(SYS_timer_gettime, id, &mut at));
    let nanos = |t: libc::timespec| t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64;
    Ok((nanos(at[1]), nanos(at[0])))
}

fn until_counted(count: i32) {
    while COUNT.load(SeqCst) < count {
        unsafe { usleep(1000) };
    }
}

fn timer_sends_its_signal() -> Outcome {
    ok!(handle(SIGRTMIN(), note, 0));
    ok!(handle(SIGALRM, note, 0));
    let id = create(CLOCK_MONOTONIC, &event(SIGRTMIN(), 0))?;
    let before = now();
    eq!(set(id, 20_000_000, 0, 0), 0);
    let (left, interval) = get(id)?;
    check!(left > 0 && left <= 20_000_000 && interval == 0);
    until_counted(1);
    check!(now() - before >= 20_000_000);
    eq!((CODE.load(SeqCst), VALUE.load(SeqCst), OVERRUN.load(SeqCst)), (SI_TIMER, 0x1234_5678_9abc, 0));
    eq!(get(id)?, (0, 0));
    // Without an event: SIGALRM, with the timer's id as value.
    let plain = create(CLOCK_REALTIME, std::ptr::null())?;
    check!(plain != id);
    eq!(set(plain, 1_000_000, 0, 0), 0);
    until_counted(2);
    eq!(VALUE.load(SeqCst) as u32, plain);
    eq!(unsafe { syscall(SYS_timer_delete, id) }, 0);
    errno!(syscall(SYS_timer_delete, id), EINVAL);
    Ok(())
}

fn periodic_timer_repeats() -> Outcome {
    ok!(handle(SIGUSR1, note, SA_RESTART));
    let id = create(CLOCK_BOOTTIME, &event(SIGUSR1, 0))?;
    let before = now();
    eq!(set(id, 5_000_000, 5_000_000, 0), 0);
    until_counted(8);
    check!(now() - before >= 40_000_000);
    eq!(get(id)?.1, 5_000_000);
    eq!(set(id, 0, 5_000_000, 0), 0);
    eq!(get(id)?.0, 0);
    let stopped = COUNT.load(SeqCst);
    unsafe { usleep(20_000) };
    check!(COUNT.load(SeqCst) <= stopped + 1);
    Ok(())
}

fn overrun_is_counted() -> Outcome {
    ok!(handle(SIGUSR1, note, 0));
    let mut mask = zero::<sigset_t>();
    // SAFETY: the set is live.
    unsafe {
        sigemptyset(&mut mask);
        sigaddset(&mut mask, SIGUSR1);
        sigprocmask(SIG_BLOCK, &mask, std::ptr::null_mut());
    }
    let id = create(CLOCK_MONOTONIC, &event(SIGUSR1, 0))?;
    eq!(set(id, 1_000_000, 1_000_000, 0), 0);
    unsafe { usleep(50_000) };
    eq!(COUNT.load(SeqCst), 0);
    eq!(unsafe { sigprocmask(SIG_UNBLOCK, &mask, std::ptr::null_mut()) }, 0);
    // One signal came, and says how many it stands for beyond itself.
    check!(COUNT.load(SeqCst) >= 1);
    eq!(unsafe { syscall(SYS_timer_settime, id, 0, &[span(0), span(0)], 0usize) }, 0);
    let blocked_again = {
        COUNT.store(0, SeqCst);
        unsafe { sigprocmask(SIG_BLOCK, &mask, std::ptr::null_mut()) };
        set(id, 1_000_000, 1_000_000, 0);
        unsafe { usleep(30_000) };
        // It is stopped first, so that the count stands.
        set(id, 0, 0, 0);
        unsafe { sigprocmask(SIG_UNBLOCK, &mask, std::ptr::null_mut()) };
        COUNT.load(SeqCst)
    };
    // Linux takes back what a stopped timer had queued, or delivers it once.
    check!(blocked_again <= 1);
    Ok(())
}

fn timer_for_a_thread() -> Outcome {
    ok!(handle(SIGUSR2, note, 0));
    static TID: AtomicI32 = AtomicI32::new(0);
    static DONE: AtomicU32 = AtomicU32::new(0);
    let thread = std::thread::spawn(|| {
        TID.store(unsafe { gettid() }, SeqCst);
        while DONE.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
    });
    while TID.load(SeqCst) == 0 {
        std::thread::yield_now();
    }
    let id = create(CLOCK_MONOTONIC, &Event { thread: TID.load(SeqCst), ..event(SIGUSR2, 4) })?;
    eq!(set(id, 1_000_000, 0, 0), 0);
    until_counted(1);
    eq!(THREAD.load(SeqCst), TID.load(SeqCst));
    DONE.store(1, SeqCst);
    check!(thread.join().is_ok());
    let mut id = 0;
    errno!(syscall(SYS_timer_create, CLOCK_MONOTONIC, &Event { thread: 1, ..event(SIGUSR2, 4) }, &mut id), EINVAL);
    Ok(())
}

fn timer_without_signal_counts_down() -> Outcome {
    let id = create(CLOCK_MONOTONIC, &event(0, 1))?;
    eq!(set(id, 1_000_000_000, 0, 0), 0);
    let first = get(id)?.0;
    check!(first > 0 && first <= 1_000_000_000);
    unsafe { usleep(5000) };
    check!(get(id)?.0 < first);
    let mut old = [zero::<libc::timespec>(); 2];
    ok!(syscall(SYS_timer_settime, id, 0, &[span(0), span(0)], &mut old));
    check!(old[1].tv_nsec > 0);
    Ok(())
}

fn absolute_timer() -> Outcome {
    ok!(handle(SIGUSR1, note, 0));
    for (round, clock_id) in [CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME].into_iter().enumerate() {
        let id = create(clock_id, &event(SIGUSR1, 0))?;
        let at = clock(clock_id) + 10_000_000;
        eq!(set(id, at, 0, TIMER_ABSTIME), 0);
        until_counted(round as i32 + 1);
        check!(clock(clock_id) >= at);
    }
    // A time that is past comes at once.
    let id = create(CLOCK_MONOTONIC, &event(SIGUSR1, 0))?;
    eq!(set(id, 1, 0, TIMER_ABSTIME), 0);
    until_counted(4);
    Ok(())
}

fn timer_errors() -> Outcome {
    let mut id = 0;
    errno!(syscall(SYS_timer_create, 99, 0usize, &mut id), EINVAL);
    errno!(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event(65, 0), &mut id), EINVAL);
    errno!(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event(0, 0), &mut id), EINVAL);
    errno!(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event(SIGUSR1, 3), &mut id), EINVAL);
    errno!(syscall(SYS_timer_create, CLOCK_MONOTONIC, 8usize, &mut id), EFAULT);
    errno!(syscall(SYS_timer_create, CLOCK_MONOTONIC, 0usize, 8usize), EFAULT);
    errno!(syscall(SYS_timer_create, CLOCK_MONOTONIC_COARSE, 0usize, &mut id), EOPNOTSUPP);
    let id = create(CLOCK_MONOTONIC, std::ptr::null())?;
    errno!(syscall(SYS_timer_settime, id, 0, 0usize, 0usize), EINVAL);
    errno!(syscall(SYS_timer_settime, id, 0, 8usize, 0usize), EFAULT);
    let bad = [span(0), libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 }];
    errno!(syscall(SYS_timer_settime, id, 0, &bad, 0usize), EINVAL);
    errno!(syscall(SYS_timer_settime, id + 1000, 0, &[span(0), span(0)], 0usize), EINVAL);
    errno!(syscall(SYS_timer_gettime, id + 1000, 8usize), EINVAL);
    errno!(syscall(SYS_timer_gettime, id, 8usize), EFAULT);
    errno!(syscall(SYS_timer_getoverrun, id + 1000), EINVAL);
    eq!(unsafe { syscall(SYS_timer_getoverrun, id) }, 0);
    Ok(())
}

fn timers_end_with_exec_and_are_not_inherited() -> Outcome {
    let id = create(CLOCK_MONOTONIC, std::ptr::null())?;
    let ended = child(|| {
        let mut at = [zero::<libc::timespec>(); 2];
        unsafe { (syscall(SYS_timer_gettime, id, &mut at) == 0) as i32 }
    });
    eq!(ended, Status::Exited(0));
    let ended = child(|| {
        // Would kill what runs next.
        let Ok(id) = create(CLOCK_MONOTONIC, std::ptr::null()) else { return 9 };
        set(id, 100_000_000, 0, 0);
        let (path, argument) = (c("/bin/sleep"), c("1"));
        let arguments = [path.as_ptr(), argument.as_ptr(), std::ptr::null()];
        unsafe { execv(path.as_ptr(), arguments.as_ptr()) };
        127
    });
    eq!(ended, Status::Exited(0));
    Ok(())
}

fn interval(which: i32, value: i64, repeat: i64) -> i64 {
    let part = |us: i64| timeval { tv_sec: us / 1_000_000, tv_usec: us % 1_000_000 };
    let timer = itimerval { it_interval: part(repeat), it_value: part(value) };
    unsafe { syscall(SYS_setitimer, which, &timer, 0usize) }
}

fn virtual_timer_counts_user_time() -> Outcome {
    ok!(handle(SIGVTALRM, note, 0));
    eq!(interval(ITIMER_VIRTUAL, 30_000, 0), 0);
    // Sleeping does not count.
    unsafe { usleep(80_000) };
    eq!(COUNT.load(SeqCst), 0);
    let mut left = zero::<itimerval>();
    ok!(syscall(SYS_getitimer, ITIMER_VIRTUAL, &mut left));
    check!(left.it_value.tv_usec > 0);
    while COUNT.load(SeqCst) == 0 {
        std::hint::spin_loop();
    }
    eq!(CODE.load(SeqCst), SI_KERNEL);
    ok!(syscall(SYS_getitimer, ITIMER_VIRTUAL, &mut left));
    eq!((left.it_value.tv_sec, left.it_value.tv_usec), (0, 0));
    Ok(())
}

fn prof_timer_repeats() -> Outcome {
    ok!(handle(SIGPROF, note, SA_RESTART));
    let before = clock(CLOCK_PROCESS_CPUTIME_ID);
    eq!(interval(ITIMER_PROF, 10_000, 10_000), 0);
    while COUNT.load(SeqCst) < 5 {
        unsafe { getppid() };
    }
    let used = clock(CLOCK_PROCESS_CPUTIME_ID) - before;
    check!(used >= 40_000_000);
    eq!(interval(ITIMER_PROF, 0, 0), 0);
    errno!(syscall(SYS_setitimer, 3, 0usize, 0usize), EINVAL);
    Ok(())
}

fn cpu_limit_signals_and_kills() -> Outcome {
    let limited = |handled: bool| {
        child(|| {
            let limit = rlimit { rlim_cur: 1, rlim_max: 2 };
            unsafe { setrlimit(RLIMIT_CPU, &limit) };
            set_disposition(SIGXCPU, if handled { SIG_IGN } else { SIG_DFL });
            loop {
                std::hint::spin_loop();
            }
        })
    };
    eq!(limited(false), Status::Killed(SIGXCPU));
    eq!(limited(true), Status::Killed(SIGKILL));
    Ok(())
}

fn cpu_clocks_of_others() -> Outcome {
    let of_process = |pid: i32| !pid << 3 | 2;
    let of_thread = |tid: i32| !tid << 3 | 6;
    let busy = fork_child(|| loop {
        std::hint::spin_loop();
    });
    let read = |id: i32| {
        let mut at = zero::<libc::timespec>();
        match unsafe { syscall(SYS_clock_gettime, id, &mut at) } {
            0 => at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64,
            _ => u64::MAX,
        }
    };
    let first = read(of_process(busy));
    while read(of_process(busy)) <= first + 8_000_000 {
        unsafe { usleep(2000) };
    }
    check!(read(of_process(unsafe { getpid() })) < u64::MAX);
    check!(read(of_thread(unsafe { gettid() })) < u64::MAX);
    // A thread of another process, a process that is not there, a kind that does not exist.
    eq!(read(of_thread(busy)), u64::MAX);
    eq!(read(of_process(0x0fff_fff0)), u64::MAX);
    eq!(read(!busy << 3 | 3), u64::MAX);
    ok!(kill(busy, SIGKILL));
    wait_for(busy);
    Ok(())
}

fn setting_the_clock_ends_a_sleep() -> Outcome {
    let real = clock(CLOCK_REALTIME);
    let setter = std::thread::spawn(move || unsafe {
        usleep(30_000);
        clock_settime(CLOCK_REALTIME, &timespec(real + 7200 * 1_000_000_000))
    });
    let before = now();
    let until = timespec(real + 3600 * 1_000_000_000);
    let slept = unsafe { clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, std::ptr::null_mut()) };
    let took = now() - before;
    eq!(setter.join().unwrap_or(-1), 0);
    ok!(clock_settime(CLOCK_REALTIME, &timespec(real + took)));
    eq!(slept, 0);
    check!(took < 20_000_000_000);
    Ok(())
}

static INSIDE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn look_at_stack(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    let mut now = zero::<stack_t>();
    // Disarmed: it may be set anew even from a handler that runs on it.
    // SAFETY: a live structure.
    unsafe { sigaltstack(std::ptr::null(), &mut now) };
    INSIDE.store(now.ss_flags, SeqCst);
}

fn altstack_disarms_itself() -> Outcome {
    const AUTODISARM: i32 = i32::MIN;
    let at = ok!(map(65536, RW));
    let stack = stack_t { ss_sp: at.cast(), ss_flags: AUTODISARM, ss_size: 65536 };
    ok!(sigaltstack(&stack, std::ptr::null_mut()));
    ok!(handle(SIGUSR1, look_at_stack, SA_ONSTACK));
    ok!(kill(getpid(), SIGUSR1));
    eq!(INSIDE.load(SeqCst), SS_DISABLE);
    // And armed again after it.
    let mut after = zero::<stack_t>();
    ok!(sigaltstack(std::ptr::null(), &mut after));
    eq!((after.ss_sp as usize, after.ss_flags, after.ss_size), (at as usize, AUTODISARM, 65536));
    Ok(())
}

/// Blocks a signal; its set.
fn block(signal: i32) -> sigset_t {
    let mut mask = zero::<sigset_t>();
    // SAFETY: the set is live.
    unsafe {
        sigemptyset(&mut mask);
        sigaddset(&mut mask, signal);
        sigprocmask(SIG_BLOCK, &mask, std::ptr::null_mut());
    }
    mask
}

/// Takes a signal that waits or comes within this time; its overrun.
fn take(mask: &sigset_t, within: u64) -> Option<u64> {
    let mut info = zero::<siginfo_t>();
    // SAFETY: live structures; a timer's siginfo has its overrun at byte 20.
    unsafe { (sigtimedwait(mask, &mut info, &span(within)) > 0).then(|| *(&raw const info).cast::<u32>().add(5) as u64) }
}

fn a_timer_rests_until_its_signal_is_taken() -> Outcome {
    let mask = block(SIGUSR1);
    let id = create(CLOCK_MONOTONIC, &event(SIGUSR1, 0))?;
    let begin = now();
    eq!(set(id, 10_000, 10_000, 0), 0);
    unsafe { usleep(50_000) };
    let (left, period) = get(id)?;
    check!(left > 0 && left <= 10_000 && period == 10_000);
    let least = (now() - begin) / 10_000 - 1;
    let overrun = take(&mask, 1_000_000_000);
    // All periods that went by, however short they are.
    check!(overrun.is_some_and(|n| n >= least && n <= (now() - begin) / 10_000));
    eq!(ok!(syscall(SYS_timer_getoverrun, id)) as u64, overrun.unwrap_or(0));
    // And it goes on.
    check!(take(&mask, 1_000_000_000).is_some());
    // Without a signal there is only the time.
    let silent = create(CLOCK_MONOTONIC, &event(0, 1))?;
    eq!(set(silent, 1_000_000, 2_000_000, 0), 0);
    unsafe { usleep(10_000) };
    let (left, period) = get(silent)?;
    check!(left > 0 && left <= 2_000_000 && period == 2_000_000);
    eq!(set(silent, 1_000_000, 0, 0), 0);
    unsafe { usleep(3000) };
    eq!(get(silent)?, (0, 0));
    Ok(())
}

fn an_old_signal_does_not_arm_a_timer() -> Outcome {
    let mask = block(SIGUSR1);
    let id = create(CLOCK_MONOTONIC, &event(SIGUSR1, 0))?;
    eq!(set(id, 1_000_000, 1_000_000, 0), 0);
    unsafe { usleep(5000) };
    eq!(set(id, 0, 0, 0), 0);
    eq!(get(id)?, (0, 0));
    check!(take(&mask, 0).is_some());
    eq!(take(&mask, 20_000_000), None);
    // One that waits when the timer expires under its new setting becomes that one's.
    eq!(set(id, 1_000_000, 1_000_000, 0), 0);
    unsafe { usleep(5000) };
    eq!(set(id, 2_000_000, 2_000_000, 0), 0);
    unsafe { usleep(10_000) };
    check!(take(&mask, 0).is_some());
    for _ in 0..3 {
        check!(take(&mask, 1_000_000_000).is_some());
    }
    Ok(())
}

fn a_timer_goes_on_beside_other_signals() -> Outcome {
    ok!(handle(SIGUSR1, note, 0));
    let mask = block(SIGUSR1);
    ok!(kill(getpid(), SIGUSR1));
    let id = create(CLOCK_MONOTONIC, &event(SIGUSR1, 0))?;
    eq!(set(id, 1_000_000, 1_000_000, 0), 0);
    unsafe { usleep(5000) };
    ok!(sigprocmask(SIG_UNBLOCK, &mask, std::ptr::null_mut()));
    until_counted(6);
    eq!(set(id, 0, 0, 0), 0);
    Ok(())
}

fn an_ignored_timer_goes_on() -> Outcome {
    set_disposition(SIGUSR1, SIG_IGN);
    let id = create(CLOCK_MONOTONIC, &event(SIGUSR1, 0))?;
    eq!(set(id, 1_000_000, 1_000_000, 0), 0);
    unsafe { usleep(20_000) };
    ok!(handle(SIGUSR1, note, 0));
    until_counted(3);
    eq!(set(id, 0, 0, 0), 0);
    Ok(())
}

fn an_alarm_rests_until_it_is_taken() -> Outcome {
    let alarm = || -> Result<(i64, i64), Stop> {
        let mut at = zero::<itimerval>();
        ok!(syscall(SYS_getitimer, ITIMER_REAL, &mut at));
        Ok((at.it_value.tv_usec, at.it_interval.tv_usec))
    };
    let mask = block(SIGALRM);
    ok!(handle(SIGALRM, note, 0));
    eq!(interval(ITIMER_REAL, 1000, 2000), 0);
    unsafe { usleep(20_000) };
    eq!(alarm()?, (0, 2000));
    check!(take(&mask, 0).is_some());
    let (left, period) = alarm()?;
    check!(left > 0 && left <= 2000 && period == 2000);
    ok!(sigprocmask(SIG_UNBLOCK, &mask, std::ptr::null_mut()));
    until_counted(3);
    // Ignored, it is not taken.
    set_disposition(SIGALRM, SIG_IGN);
    eq!(interval(ITIMER_REAL, 1000, 2000), 0);
    unsafe { usleep(10_000) };
    eq!(alarm()?, (0, 2000));
    Ok(())
}

fn a_timer_continues_a_stopped_process() -> Outcome {
    let pid = fork_child(|| {
        let Ok(id) = create(CLOCK_MONOTONIC, &event(SIGCONT, 0)) else { return 9 };
        set(id, 20_000_000, 20_000_000, 0);
        unsafe { raise(SIGSTOP) };
        5
    });
    eq!(wait_flags(pid, WUNTRACED), Status::Stopped(SIGSTOP));
    // It may have ended by now; then that is what is told.
    check!([Status::Continued, Status::Exited(5)].contains(&wait_flags(pid, WCONTINUED)));
    if unsafe { kill(pid, 0) } == 0 {
        eq!(wait_for(pid), Status::Exited(5));
    }
    Ok(())
}
