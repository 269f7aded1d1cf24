//! Signals: handlers and what they are given, masks, flags, stacks, restarts.

use crate::check::*;
use libc::*;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

cases![signals:
    handler_runs_once, kill_siginfo, tgkill_siginfo, sigqueue_siginfo, sigchld_siginfo, mask_blocks_and_releases,
    handler_mask_is_applied, nodefer_nests, without_nodefer_waits, a_signal_that_is_waited_for_does_not_kill, resethand_resets, altstack_is_used, altstack_overflow_is_caught,
    altstack_errors, restart_restarts_read, without_restart_is_eintr, nanosleep_is_interrupted, sigsuspend_swaps_the_mask,
    kill_and_stop_cannot_be_caught, sigaction_errors, sigprocmask_errors, ignored_are_dropped, pending_shows_blocked,
    standard_signals_merge, realtime_signals_queue_in_order, default_actions, stop_and_continue, context_can_be_changed,
    registers_survive_a_handler, sigreturn_of_nonsense_kills, nocldwait_reaps, nocldstop_is_quiet, handler_in_child_after_fork,
    sigaltstack_in_handler_is_eperm, alarm_fires, setitimer_repeats, signal_storm, lowest_signal_first,
    synchronous_before_others, frame_on_bad_stack_kills, fpsimd_survives_a_handler,
];

type Handler = extern "C" fn(i32, *mut siginfo_t, *mut c_void);

static COUNT: AtomicI32 = AtomicI32::new(0);
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static PID: AtomicI32 = AtomicI32::new(0);
static VALUE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(signal: i32, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gave a siginfo.
    unsafe {
        SIGNAL.store(signal, SeqCst);
        CODE.store((*info).si_code, SeqCst);
        PID.store((*info).si_pid(), SeqCst);
        VALUE.store((*info).si_value().sival_ptr as usize, SeqCst);
    }
    COUNT.fetch_add(1, SeqCst);
}

fn set_of(signals: &[i32]) -> sigset_t {
    let mut set = zero::<sigset_t>();
    // SAFETY: the set is live.
    unsafe {
        sigemptyset(&mut set);
        signals.iter().for_each(|signal| {
            sigaddset(&mut set, *signal);
        });
    }
    set
}

fn block(signals: &[i32]) {
    // SAFETY: the set is live.
    unsafe { sigprocmask(SIG_BLOCK, &set_of(signals), std::ptr::null_mut()) };
}

fn unblock(signals: &[i32]) {
    // SAFETY: the set is live.
    unsafe { sigprocmask(SIG_UNBLOCK, &set_of(signals), std::ptr::null_mut()) };
}

fn send_self(signal: i32) {
    // SAFETY: a signal to this process.
    unsafe { kill(getpid(), signal) };
}

fn handler_runs_once() -> Outcome {
    ok!(handle(SIGUSR1, note, 0));
    send_self(SIGUSR1);
    eq!((COUNT.load(SeqCst), SIGNAL.load(SeqCst)), (1, SIGUSR1));
    Ok(())
}

fn kill_siginfo() -> Outcome {
    ok!(handle(SIGUSR1, note, 0));
    send_self(SIGUSR1);
    eq!((CODE.load(SeqCst), PID.load(SeqCst)), (SI_USER, unsafe { getpid() }));
    Ok(())
}

fn tgkill_siginfo() -> Outcome {
    ok!(handle(SIGUSR1, note, 0));
    ok!(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1));
    eq!((CODE.load(SeqCst), PID.load(SeqCst)), (SI_TKILL, unsafe { getpid() }));
    Ok(())
}

fn sigqueue_siginfo() -> Outcome {
    ok!(handle(SIGUSR1, note, 0));
    let value = sigval { sival_ptr: 0x1234_5678 as *mut c_void };
    if unsafe { sigqueue(getpid(), SIGUSR1, value) } != 0 {
        return Err(Stop::Skip("no rt_sigqueueinfo".into()));
    }
    eq!((CODE.load(SeqCst), VALUE.load(SeqCst)), (SI_QUEUE, 0x1234_5678));
    Ok(())
}

fn sigchld_siginfo() -> Outcome {
    ok!(handle(SIGCHLD, note, 0));
    block(&[SIGCHLD]);
    let pid = fork_child(|| 3);
    ok!(sigsuspend(&set_of(&[])) + 1);
    eq!((SIGNAL.load(SeqCst), CODE.load(SeqCst), PID.load(SeqCst)), (SIGCHLD, CLD_EXITED, pid));
    eq!(wait_for(pid), Status::Exited(3));
    Ok(())
}

fn mask_blocks_and_releases() -> Outcome {
    ok!(handle(SIGUSR1, note, 0));
    block(&[SIGUSR1]);
    send_self(SIGUSR1);
    eq!(COUNT.load(SeqCst), 0);
    unblock(&[SIGUSR1]);
    eq!(COUNT.load(SeqCst), 1);
    Ok(())
}

static INSIDE: AtomicI32 = AtomicI32::new(0);
static DEEPEST: AtomicI32 = AtomicI32::new(0);

extern "C" fn nest(signal: i32, _: *mut siginfo_t, _: *mut c_void) {
    let depth = INSIDE.fetch_add(1, SeqCst) + 1;
    DEEPEST.fetch_max(depth, SeqCst);
    if COUNT.fetch_add(1, SeqCst) < 3 {
        send_self(signal);
    }
    INSIDE.fetch_sub(1, SeqCst);
}

fn nodefer_nests() -> Outcome {
    ok!(handle(SIGUSR1, nest, SA_NODEFER));
    send_self(SIGUSR1);
    eq!((COUNT.load(SeqCst), DEEPEST.load(SeqCst)), (4, 4));
    Ok(())
}

fn a_signal_that_is_waited_for_does_not_kill() -> Outcome {
    let (from, to) = new_pipe(0)?;
    let pid = fork_child(|| {
        let mut set = zero::<sigset_t>();
        // SAFETY: a live set.
        unsafe {
            sigemptyset(&mut set);
            sigaddset(&mut set, SIGTERM);
            sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut());
            write_fd(to, b".");
            (sigwaitinfo(&set, std::ptr::null_mut()) != SIGTERM) as i32
        }
    });
    eq!(read_fd(from, &mut [0]), 1);
    // Until it sleeps in the call.
    while !content(&format!("/proc/{pid}/stat"))?.windows(4).any(|w| w == b") S ") {
        // SAFETY: plain call.
        unsafe { sched_yield() };
    }
    ok!(kill(pid, SIGTERM));
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn without_nodefer_waits() -> Outcome {
    ok!(handle(SIGUSR1, nest, 0));
    send_self(SIGUSR1);
    eq!((COUNT.load(SeqCst), DEEPEST.load(SeqCst)), (4, 1));
    Ok(())
}

extern "C" fn send_other(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    send_self(SIGUSR2);
    VALUE.store(COUNT.load(SeqCst) as usize + 100, SeqCst);
}

fn handler_mask_is_applied() -> Outcome {
    ok!(handle(SIGUSR2, count, 0));
    let mut action = zero::<sigaction>();
    action.sa_sigaction = send_other as Handler as usize;
    action.sa_flags = SA_SIGINFO;
    action.sa_mask = set_of(&[SIGUSR2]);
    ok!(libc::sigaction(SIGUSR1, &action, std::ptr::null_mut()));
    send_self(SIGUSR1);
    // Inside, SIGUSR2 was still waiting; after, it came.
    eq!((VALUE.load(SeqCst), COUNT.load(SeqCst)), (100, 1));
    Ok(())
}

extern "C" fn count(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    COUNT.fetch_add(1, SeqCst);
}

fn resethand_resets() -> Outcome {
    ok!(handle(SIGUSR1, count, SA_RESETHAND));
    send_self(SIGUSR1);
    eq!(COUNT.load(SeqCst), 1);
    eq!(child(|| { send_self(SIGUSR1); 0 }), Status::Killed(SIGUSR1));
    Ok(())
}

fn alternate(size: usize) -> Result<usize, Stop> {
    let at = ok!(map(size, RW));
    let stack = stack_t { ss_sp: at.cast(), ss_flags: 0, ss_size: size };
    ok!(sigaltstack(&stack, std::ptr::null_mut()));
    Ok(at as usize)
}

extern "C" fn where_am_i(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    let local = 0u8;
    VALUE.store(std::hint::black_box(&raw const local) as usize, SeqCst);
}

fn altstack_is_used() -> Outcome {
    let at = alternate(65536)?;
    ok!(handle(SIGUSR1, where_am_i, SA_ONSTACK));
    ok!(handle(SIGUSR2, where_am_i, 0));
    send_self(SIGUSR1);
    check!((at..at + 65536).contains(&VALUE.load(SeqCst)));
    send_self(SIGUSR2);
    check!(!(at..at + 65536).contains(&VALUE.load(SeqCst)));
    Ok(())
}

extern "C" fn leave(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    unsafe { _exit(44) }
}

#[allow(unconditional_recursion)]
#[inline(never)]
fn endless(depth: usize) -> usize {
    let room = std::hint::black_box([depth; 512]);
    endless(depth + 1) + room[depth % 512]
}

fn altstack_overflow_is_caught() -> Outcome {
    let ended = child(|| {
        if alternate(65536).is_err() {
            return 1;
        }
        handle(SIGSEGV, leave, SA_ONSTACK);
        endless(0) as i32
    });
    eq!(ended, Status::Exited(44));
    Ok(())
}

fn altstack_errors() -> Outcome {
    let small = stack_t { ss_sp: 0x1000 as *mut c_void, ss_flags: 0, ss_size: 1000 };
    errno!(sigaltstack(&small, std::ptr::null_mut()), ENOMEM);
    let odd = stack_t { ss_sp: 0x1000 as *mut c_void, ss_flags: 99, ss_size: 65536 };
    errno!(sigaltstack(&odd, std::ptr::null_mut()), EINVAL);
    let at = alternate(65536)?;
    let mut old = zero::<stack_t>();
    ok!(sigaltstack(std::ptr::null(), &mut old));
    eq!((old.ss_sp as usize, old.ss_flags, old.ss_size), (at, 0, 65536));
    let off = stack_t { ss_sp: std::ptr::null_mut(), ss_flags: SS_DISABLE, ss_size: 0 };
    ok!(sigaltstack(&off, std::ptr::null_mut()));
    ok!(sigaltstack(std::ptr::null(), &mut old));
    eq!(old.ss_flags, SS_DISABLE);
    Ok(())
}

extern "C" fn change_stack(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    let mut old = zero::<stack_t>();
    unsafe {
        sigaltstack(std::ptr::null(), &mut old);
        VALUE.store(old.ss_flags as usize, SeqCst);
        old.ss_flags = SS_DISABLE;
        if sigaltstack(&old, std::ptr::null_mut()) != 0 {
            CODE.store(*__errno_location(), SeqCst);
        }
    }
}

fn sigaltstack_in_handler_is_eperm() -> Outcome {
    alternate(65536)?;
    ok!(handle(SIGUSR1, change_stack, SA_ONSTACK));
    send_self(SIGUSR1);
    eq!((VALUE.load(SeqCst) as i32, CODE.load(SeqCst)), (SS_ONSTACK, EPERM));
    Ok(())
}

/// A child that sends a signal again and again, and then, when the handler has run, the byte.
fn interrupter(signal: i32, counted: *const AtomicI32, writer: i32) -> i32 {
    let parent = unsafe { getpid() };
    fork_child(|| {
        // SAFETY: shared memory of the case.
        while unsafe { (*counted).load(SeqCst) } == 0 {
            unsafe {
                kill(parent, signal);
                usleep(5000);
            }
        }
        write_fd(writer, b"x");
        0
    })
}

static SHARED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_shared(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: shared memory of the case.
    unsafe { (*(SHARED.load(SeqCst) as *const AtomicI32)).fetch_add(1, SeqCst) };
}

fn shared_counter() -> Result<*const AtomicI32, Stop> {
    let at = ok!(map_with(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1));
    SHARED.store(at as usize, SeqCst);
    Ok(at.cast())
}

fn restart_restarts_read() -> Outcome {
    let counted = shared_counter()?;
    ok!(handle(SIGUSR1, count_shared, SA_RESTART));
    let (reader, writer) = new_pipe(0)?;
    let pid = interrupter(SIGUSR1, counted, writer);
    eq!(ok!(read(reader, [0u8; 1].as_mut_ptr().cast(), 1)), 1);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn without_restart_is_eintr() -> Outcome {
    ok!(handle(SIGUSR1, count, 0));
    let (reader, _writer) = new_pipe(0)?;
    let parent = unsafe { getpid() };
    // Signals keep coming: one of them finds the read asleep.
    let pid = fork_child(|| loop {
        unsafe {
            kill(parent, SIGUSR1);
            usleep(5000);
        }
    });
    let mut byte = [0u8];
    errno!(read(reader, byte.as_mut_ptr().cast(), 1), EINTR);
    ok!(kill(pid, SIGKILL));
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    Ok(())
}

fn nanosleep_is_interrupted() -> Outcome {
    ok!(handle(SIGALRM, count, SA_RESTART));
    let soon = itimerval { it_interval: zero(), it_value: timeval { tv_sec: 0, tv_usec: 30_000 } };
    ok!(syscall(SYS_setitimer, ITIMER_REAL, &soon, 0));
    let mut left = zero::<libc::timespec>();
    errno!(nanosleep(&timespec(50_000_000_000), &mut left), EINTR);
    check!(left.tv_sec >= 40 && left.tv_sec < 50);
    Ok(())
}

fn sigsuspend_swaps_the_mask() -> Outcome {
    ok!(handle(SIGUSR1, count, 0));
    block(&[SIGUSR1]);
    send_self(SIGUSR1);
    errno!(sigsuspend(&set_of(&[])), EINTR);
    eq!(COUNT.load(SeqCst), 1);
    // Blocked again.
    send_self(SIGUSR1);
    eq!(COUNT.load(SeqCst), 1);
    Ok(())
}

fn kill_and_stop_cannot_be_caught() -> Outcome {
    errno!(handle(SIGKILL, count, 0), EINVAL);
    errno!(handle(SIGSTOP, count, 0), EINVAL);
    // Nor blocked: the request is silently trimmed.
    block(&[SIGKILL, SIGSTOP, SIGUSR1]);
    let mut mask = zero::<sigset_t>();
    ok!(sigprocmask(SIG_BLOCK, std::ptr::null(), &mut mask));
    unsafe {
        eq!((sigismember(&mask, SIGKILL), sigismember(&mask, SIGSTOP), sigismember(&mask, SIGUSR1)), (0, 0, 1));
    }
    Ok(())
}

fn sigaction_errors() -> Outcome {
    let mut old = [0u64; 4];
    errno!(syscall(SYS_rt_sigaction, 0, 0, old.as_mut_ptr(), 8), EINVAL);
    errno!(syscall(SYS_rt_sigaction, 65, 0, old.as_mut_ptr(), 8), EINVAL);
    errno!(syscall(SYS_rt_sigaction, SIGUSR1, 0, old.as_mut_ptr(), 4), EINVAL);
    errno!(syscall(SYS_rt_sigaction, SIGUSR1, 8, 0, 8), EFAULT);
    ok!(syscall(SYS_rt_sigaction, 64, 0, old.as_mut_ptr(), 8));
    Ok(())
}

fn sigprocmask_errors() -> Outcome {
    let set = 0u64;
    errno!(syscall(SYS_rt_sigprocmask, 9, &set, 0, 8), EINVAL);
    errno!(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, 0, 4), EINVAL);
    errno!(syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8, 0, 8), EFAULT);
    // The operation does not matter when there is no new set.
    ok!(syscall(SYS_rt_sigprocmask, 9, 0, 0, 8));
    Ok(())
}

fn pending_signals() -> sigset_t {
    let mut set = zero::<sigset_t>();
    unsafe { sigpending(&mut set) };
    set
}

fn ignored_are_dropped() -> Outcome {
    block(&[SIGUSR1]);
    send_self(SIGUSR1);
    set_disposition(SIGUSR1, SIG_IGN);
    eq!(unsafe { sigismember(&pending_signals(), SIGUSR1) }, 0);
    unblock(&[SIGUSR1]);
    // Ignored by default as well.
    for signal in [SIGCHLD, SIGURG, SIGWINCH, SIGCONT] {
        send_self(signal);
    }
    Ok(())
}

fn pending_shows_blocked() -> Outcome {
    block(&[SIGUSR1, SIGUSR2]);
    send_self(SIGUSR1);
    let set = pending_signals();
    unsafe {
        eq!((sigismember(&set, SIGUSR1), sigismember(&set, SIGUSR2)), (1, 0));
    }
    Ok(())
}

fn standard_signals_merge() -> Outcome {
    ok!(handle(SIGUSR1, count, 0));
    block(&[SIGUSR1]);
    (0..5).for_each(|_| send_self(SIGUSR1));
    unblock(&[SIGUSR1]);
    eq!(COUNT.load(SeqCst), 1);
    Ok(())
}

static ORDER: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());

extern "C" fn record(signal: i32, info: *mut siginfo_t, _: *mut c_void) {
    // The cases raise signals only where no lock is held.
    if let Ok(mut order) = ORDER.lock() {
        order.push(signal as usize * 1000 + unsafe { (*info).si_value().sival_ptr } as usize);
    }
}

fn realtime_signals_queue_in_order() -> Outcome {
    let signal = SIGRTMIN();
    ok!(handle(signal, record, 0));
    block(&[signal]);
    for i in 0..10 {
        if unsafe { sigqueue(getpid(), signal, sigval { sival_ptr: i as *mut c_void }) } != 0 {
            return Err(Stop::Skip("no rt_sigqueueinfo".into()));
        }
    }
    unblock(&[signal]);
    let want: Vec<usize> = (0..10).map(|i| signal as usize * 1000 + i).collect();
    eq!(ORDER.lock().map(|order| order.clone()).unwrap_or_default(), want);
    Ok(())
}

fn lowest_signal_first() -> Outcome {
    // All are delivered at one return to user mode; the frame built last, of the highest number,
    // runs first, so the handlers see them from high to low.
    for signal in [SIGUSR1, SIGUSR2, SIGALRM] {
        ok!(handle(signal, seen, 0));
    }
    block(&[SIGUSR1, SIGUSR2, SIGALRM]);
    [SIGALRM, SIGUSR1, SIGUSR2].into_iter().for_each(send_self);
    unblock(&[SIGUSR1, SIGUSR2, SIGALRM]);
    let order = ORDER.lock().map(|order| order.clone()).unwrap_or_default();
    eq!(order, vec![SIGALRM as usize, SIGUSR2 as usize, SIGUSR1 as usize]);
    Ok(())
}

extern "C" fn seen(signal: i32, _: *mut siginfo_t, _: *mut c_void) {
    if let Ok(mut order) = ORDER.lock() {
        order.push(signal as usize);
    }
}

fn synchronous_before_others() -> Outcome {
    let ended = child(|| {
        handle(SIGSEGV, leave, 0);
        unsafe { (8 as *const u8).read_volatile() };
        1
    });
    eq!(ended, Status::Exited(44));
    Ok(())
}

fn default_actions() -> Outcome {
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGABRT, SIGFPE, SIGSEGV, SIGPIPE, SIGTERM, SIGBUS, SIGXCPU, SIGSYS, SIGVTALRM, 40, 64] {
        let ended = child(|| {
            set_disposition(signal, SIG_DFL);
            send_self(signal);
            0
        });
        eq!(ended, Status::Killed(signal));
    }
    Ok(())
}

fn stop_and_continue() -> Outcome {
    let pid = fork_child(|| {
        unsafe { setpgid(0, 0) };
        send_self(SIGSTOP);
        7
    });
    eq!(wait_flags(pid, WUNTRACED), Status::Stopped(SIGSTOP));
    ok!(kill(pid, SIGCONT));
    eq!(wait_for(pid), Status::Exited(7));
    // SIGCONT takes back a pending stop, and the other way round.
    block(&[SIGTSTP, SIGCONT]);
    send_self(SIGTSTP);
    send_self(SIGCONT);
    eq!(unsafe { sigismember(&pending_signals(), SIGTSTP) }, 0);
    Ok(())
}

extern "C" fn skip_instruction(_: i32, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gave a ucontext; the case faults on one 4-byte instruction.
    unsafe {
        let context = context.cast::<ucontext_t>();
        (*context).uc_mcontext.pc += 4;
        (*context).uc_mcontext.regs[9] = 0x1234;
    }
}

fn context_can_be_changed() -> Outcome {
    ok!(handle(SIGILL, skip_instruction, 0));
    let mut value: u64 = 1;
    // SAFETY: the handler goes on behind the undefined instruction.
    unsafe { core::arch::asm!("mov x9, {0}", "udf #0", "mov {0}, x9", inout(reg) value, out("x9") _) };
    eq!(value, 0x1234);
    Ok(())
}

extern "C" fn clobber(_: i32, _: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: registers that the kernel restores.
    unsafe {
        core::arch::asm!(
            "mov x9, #0", "mov x10, #0", "mov x11, #0", "mov x12, #0", "mov x13, #0", "mov x14, #0", "mov x15, #0", "mov x16, #0", "mov x17, #0",
            "movi v0.2d, #0", "movi v15.2d, #0", "movi v31.2d, #0", "cmp xzr, xzr",
            out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
            out("v0") _, out("v15") _, out("v31") _,
        );
    }
    COUNT.fetch_add(1, SeqCst);
}

fn registers_survive_a_handler() -> Outcome {
    ok!(handle(SIGUSR1, clobber, 0));
    let (pid, mut bad): (u64, u64) = (unsafe { getpid() } as u64, 1);
    // SAFETY: kill(pid, SIGUSR1) by hand, then a look at registers that the call must keep.
    unsafe {
        core::arch::asm!(
            "mov x9, #9", "mov x12, #12", "mov x17, #17", "mov x15, #15",
            "svc #0",
            "cmp x9, #9", "ccmp x12, #12, #0, eq", "ccmp x17, #17, #0, eq", "ccmp x15, #15, #0, eq",
            "cset {bad}, ne",
            bad = out(reg) bad, inout("x0") pid => _, in("x1") SIGUSR1 as u64, in("x8") SYS_kill as u64,
            out("x9") _, out("x12") _, out("x15") _, out("x17") _,
        );
    }
    eq!((bad, COUNT.load(SeqCst)), (0, 1));
    Ok(())
}

fn fpsimd_survives_a_handler() -> Outcome {
    ok!(handle(SIGUSR1, clobber, 0));
    let (pid, v0, v15, v31): (u64, u64, u64, u64);
    // SAFETY: as above, with vector registers.
    unsafe {
        pid = getpid() as u64;
        core::arch::asm!(
            "fmov d0, {a}", "fmov d15, {b}", "fmov d31, {c}",
            "svc #0",
            "fmov {d}, d0", "fmov {e}, d15", "fmov {f}, d31",
            a = in(reg) 1u64, b = in(reg) 2u64, c = in(reg) 3u64, d = out(reg) v0, e = out(reg) v15, f = out(reg) v31,
            inout("x0") pid => _, in("x1") SIGUSR1 as u64, in("x8") SYS_kill as u64,
            out("v0") _, out("v15") _, out("v31") _,
        );
    }
    eq!((v0, v15, v31, COUNT.load(SeqCst)), (1, 2, 3, 1));
    Ok(())
}

fn sigreturn_of_nonsense_kills() -> Outcome {
    // With the stack pointer where no frame is, and where there is nothing at all.
    for stack in [0usize, 0xffff_8000_0000_0000, 0x1001] {
        let ended = child(|| {
            // std has a handler for overflows of its own.
            set_disposition(SIGSEGV, SIG_DFL);
            unsafe {
                core::arch::asm!("mov sp, {}", "svc #0", in(reg) stack, in("x8") SYS_rt_sigreturn as u64, options(noreturn))
            }
        });
        eq!(ended, Status::Killed(SIGSEGV));
    }
    Ok(())
}

fn frame_on_bad_stack_kills() -> Outcome {
    let ended = child(|| {
        set_disposition(SIGSEGV, SIG_DFL);
        handle(SIGUSR1, count, 0);
        unsafe {
            core::arch::asm!("mov sp, {}", "svc #0", in(reg) 0usize, in("x0") getpid() as u64, in("x1") SIGUSR1 as u64, in("x8") SYS_kill as u64, options(noreturn))
        }
    });
    eq!(ended, Status::Killed(SIGSEGV));
    Ok(())
}

fn nocldwait_reaps() -> Outcome {
    ok!(handle(SIGCHLD, count, SA_NOCLDWAIT));
    let pid = fork_child(|| 0);
    let mut raw = 0;
    loop {
        let ended = unsafe { waitpid(pid, &mut raw, 0) };
        let error = std::io::Error::last_os_error().raw_os_error();
        if ended == -1 && error == Some(ECHILD) {
            return Ok(());
        }
        check!(error == Some(EINTR));
    }
}

fn nocldstop_is_quiet() -> Outcome {
    ok!(handle(SIGCHLD, count, SA_NOCLDSTOP));
    let pid = fork_child(|| loop {
        unsafe { pause() };
    });
    ok!(kill(pid, SIGSTOP));
    eq!(wait_flags(pid, WUNTRACED), Status::Stopped(SIGSTOP));
    eq!(COUNT.load(SeqCst), 0);
    ok!(kill(pid, SIGKILL));
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    eq!(COUNT.load(SeqCst), 1);
    Ok(())
}

fn handler_in_child_after_fork() -> Outcome {
    ok!(handle(SIGUSR1, count, 0));
    eq!(child(|| { send_self(SIGUSR1); COUNT.load(SeqCst) }), Status::Exited(1));
    eq!(COUNT.load(SeqCst), 0);
    Ok(())
}

fn alarm_fires() -> Outcome {
    ok!(handle(SIGALRM, count, 0));
    let soon = itimerval { it_interval: zero(), it_value: timeval { tv_sec: 0, tv_usec: 20_000 } };
    ok!(syscall(SYS_setitimer, ITIMER_REAL, &soon, 0));
    while COUNT.load(SeqCst) == 0 {
        unsafe { pause() };
    }
    Ok(())
}

fn setitimer_repeats() -> Outcome {
    ok!(handle(SIGALRM, count, SA_RESTART));
    let step = timeval { tv_sec: 0, tv_usec: 5000 };
    let timer = itimerval { it_interval: step, it_value: step };
    ok!(syscall(SYS_setitimer, ITIMER_REAL, &timer, 0));
    let before = now();
    while COUNT.load(SeqCst) < 10 {}
    check!(now() - before >= 50_000_000 - 5_000_000);
    ok!(syscall(SYS_setitimer, ITIMER_REAL, &zero::<itimerval>(), 0));
    let mut left = zero::<itimerval>();
    ok!(syscall(SYS_getitimer, ITIMER_REAL, &mut left));
    eq!((left.it_value.tv_sec, left.it_value.tv_usec), (0, 0));
    Ok(())
}

fn signal_storm() -> Outcome {
    // Two children shoot at this process while it works; nothing is lost but merged signals.
    ok!(handle(SIGUSR1, count, SA_RESTART));
    ok!(handle(SIGUSR2, count, SA_RESTART));
    let me = unsafe { getpid() };
    let shooters = [SIGUSR1, SIGUSR2].map(|signal| {
        fork_child(|| {
            (0..2000).for_each(|_| unsafe {
                kill(me, signal);
            });
            0
        })
    });
    for pid in shooters {
        eq!(wait_for(pid), Status::Exited(0));
    }
    check!(COUNT.load(SeqCst) >= 2);
    Ok(())
}
