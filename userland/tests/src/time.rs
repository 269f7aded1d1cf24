//! Clocks and sleeps.

use crate::check::*;
use libc::*;

cases![time:
    monotonic_goes_forward, realtime_is_after_2000, clocks_agree, clock_getres_is_fine, clock_errors, nanosleep_sleeps,
    nanosleep_errors, absolute_sleep, past_absolute_sleep_returns, cpu_clock_counts_work, gettimeofday_agrees,
    settime_needs_rights, settimeofday_checks_the_zone, set_and_restore, times_counts_ticks, counter_is_readable, boottime_and_raw, many_sleepers_wake_in_order,
    sleep_zero_yields,
];

fn monotonic_goes_forward() -> Outcome {
    let mut last = now();
    for _ in 0..10_000 {
        let at = now();
        check!(at >= last);
        last = at;
    }
    Ok(())
}

fn realtime_is_after_2000() -> Outcome {
    check!(clock(CLOCK_REALTIME) > 946_684_800_000_000_000);
    Ok(())
}

fn clocks_agree() -> Outcome {
    let between = |id| {
        let before = now();
        let at = clock(id);
        (before, at, now())
    };
    for id in [CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW] {
        let (before, at, after) = between(id);
        // A coarse clock is at most a tick behind; the raw one is not slewed.
        check!(at + 100_000_000 >= before && at <= after + 100_000_000);
    }
    Ok(())
}

fn clock_getres_is_fine() -> Outcome {
    let mut step = zero::<libc::timespec>();
    ok!(clock_getres(CLOCK_MONOTONIC, &mut step));
    eq!((step.tv_sec, step.tv_nsec), (0, 1));
    ok!(syscall(SYS_clock_getres, CLOCK_REALTIME, 0));
    Ok(())
}

fn clock_errors() -> Outcome {
    let mut at = zero::<libc::timespec>();
    errno!(syscall(SYS_clock_gettime, 99, &mut at), EINVAL);
    errno!(syscall(SYS_clock_gettime, CLOCK_REALTIME, 8), EFAULT);
    errno!(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, 0xffff_8000_0000_0000u64), EFAULT);
    Ok(())
}

fn nanosleep_sleeps() -> Outcome {
    for wanted in [1_000_000, 20_000_000, 100_000_000] {
        let before = now();
        ok!(nanosleep(&timespec(wanted), std::ptr::null_mut()));
        check!(now() - before >= wanted);
    }
    Ok(())
}

fn nanosleep_errors() -> Outcome {
    let bad = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    errno!(nanosleep(&bad, std::ptr::null_mut()), EINVAL);
    let bad = libc::timespec { tv_sec: -1, tv_nsec: 0 };
    errno!(nanosleep(&bad, std::ptr::null_mut()), EINVAL);
    errno!(syscall(SYS_nanosleep, 8, 0), EFAULT);
    errno!(syscall(SYS_clock_nanosleep, 99, 0, &timespec(1), 0), EINVAL);
    Ok(())
}

fn absolute_sleep() -> Outcome {
    for id in [CLOCK_MONOTONIC, CLOCK_REALTIME] {
        let until = clock(id) + 30_000_000;
        ok!(syscall(SYS_clock_nanosleep, id, TIMER_ABSTIME, &timespec(until), 0));
        check!(clock(id) >= until);
    }
    Ok(())
}

fn past_absolute_sleep_returns() -> Outcome {
    ok!(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &timespec(1), 0));
    Ok(())
}

fn cpu_clock_counts_work() -> Outcome {
    let before = clock(CLOCK_PROCESS_CPUTIME_ID);
    ok!(nanosleep(&timespec(50_000_000), std::ptr::null_mut()));
    let slept = clock(CLOCK_PROCESS_CPUTIME_ID);
    check!(slept - before < 40_000_000);
    let mut sum = 0u64;
    while clock(CLOCK_THREAD_CPUTIME_ID) < 20_000_000 {
        sum = std::hint::black_box(sum + 1);
    }
    check!(clock(CLOCK_PROCESS_CPUTIME_ID) > before);
    Ok(())
}

fn gettimeofday_agrees() -> Outcome {
    let mut at = zero::<timeval>();
    let before = clock(CLOCK_REALTIME) / 1000;
    ok!(syscall(SYS_gettimeofday, &mut at, 0));
    let micros = at.tv_sec as u64 * 1_000_000 + at.tv_usec as u64;
    check!(before <= micros && micros <= clock(CLOCK_REALTIME) / 1000);
    Ok(())
}

fn settime_needs_rights() -> Outcome {
    let at = timespec(clock(CLOCK_REALTIME));
    errno!(clock_settime(CLOCK_MONOTONIC, &at), EINVAL);
    in_child(|| {
        ok!(setresuid(1000, 1000, 1000));
        errno!(clock_settime(CLOCK_REALTIME, &at), EPERM);
        Ok(())
    })
}

fn settimeofday_checks_the_zone() -> Outcome {
    let zone = |minutes: i32| [minutes, 0];
    for minutes in [i32::MIN, i32::MAX, -901, 901] {
        errno!(syscall(SYS_settimeofday, 0usize, &zone(minutes)), EINVAL);
    }
    errno!(syscall(SYS_settimeofday, &timeval { tv_sec: 0, tv_usec: -1 }, 8usize), EINVAL);
    errno!(syscall(SYS_settimeofday, 0usize, 8usize), EFAULT);
    in_child(|| {
        ok!(setresuid(1000, 1000, 1000));
        errno!(syscall(SYS_settimeofday, &timeval { tv_sec: -1, tv_usec: 0 }, &zone(i32::MIN)), EINVAL);
        errno!(syscall(SYS_settimeofday, 0usize, &zone(i32::MIN)), EPERM);
        Ok(())
    })
}

fn set_and_restore() -> Outcome {
    let (real, steady) = (clock(CLOCK_REALTIME), now());
    let far = 2_000_000_000u64 * 1_000_000_000;
    ok!(clock_settime(CLOCK_REALTIME, &timespec(far)));
    let seen = clock(CLOCK_REALTIME);
    check!(seen >= far && seen < far + 60_000_000_000);
    ok!(clock_settime(CLOCK_REALTIME, &timespec(real + (now() - steady))));
    // The monotonic clock saw nothing of it.
    check!(now() - steady < 60_000_000_000);
    errno!(clock_settime(CLOCK_REALTIME, &libc::timespec { tv_sec: 0, tv_nsec: -1 }), EINVAL);
    Ok(())
}

fn times_counts_ticks() -> Outcome {
    let mut used = zero::<tms>();
    let before = ok!(times(&mut used));
    ok!(nanosleep(&timespec(50_000_000), std::ptr::null_mut()));
    check!(ok!(times(&mut used)) - before >= 5);
    Ok(())
}

fn counter_is_readable() -> Outcome {
    let (one, two, frequency): (u64, u64, u64);
    // SAFETY: reads of registers that EL0 may read.
    unsafe {
        core::arch::asm!("isb", "mrs {}, cntvct_el0", "isb", "mrs {}, cntvct_el0", "mrs {}, cntfrq_el0", out(reg) one, out(reg) two, out(reg) frequency);
    }
    check!(two >= one);
    check!(frequency >= 1_000_000);
    Ok(())
}

fn boottime_and_raw() -> Outcome {
    for id in [CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE] {
        check!(clock(id) > 0);
    }
    Ok(())
}

fn many_sleepers_wake_in_order() -> Outcome {
    let (reader, writer) = new_pipe(0)?;
    let start = now() + 300_000_000;
    let pids: Vec<i32> = (0..10u8)
        .map(|i| {
            let mine = (i * 7) % 10;
            fork_child(|| {
                let until = timespec(start + u64::from(mine) * 100_000_000);
                unsafe { syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0) };
                (write_fd(writer, &[mine]) != 1) as i32
            })
        })
        .collect();
    close_fd(writer);
    eq!(read_to_end(reader), (0..10).collect::<Vec<u8>>());
    for pid in pids {
        eq!(wait_for(pid), Status::Exited(0));
    }
    Ok(())
}

fn sleep_zero_yields() -> Outcome {
    ok!(nanosleep(&timespec(0), std::ptr::null_mut()));
    ok!(sched_yield());
    Ok(())
}
