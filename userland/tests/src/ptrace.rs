//! ptrace(2), as strace and gdb use it.

use crate::check::*;
use libc::*;
use std::ptr::{null_mut, without_provenance_mut as at};

cases![ptrace:
    traceme_stops_at_signals, signal_is_replaced_or_dropped, ignored_signals_are_seen, siginfo_is_read_and_written,
    syscall_stops_come_in_pairs, syscall_number_can_be_changed, skipped_call_keeps_the_tracers_value, syscall_info_tells_entry_and_exit,
    sysemu_skips_the_call, x7_marks_the_stop, registers_are_read_and_written, registers_refuse_other_modes,
    registers_are_those_of_the_program, floating_point_and_tls,
    peek_and_poke, poke_breakpoint_in_text, single_steps, step_over_a_call_and_into_a_handler, watchpoint_hits, hardware_breakpoint_hits,
    fork_event_gives_a_traced_child, vfork_events, clone_event_gives_a_traced_thread, exec_event, exec_without_options_traps, exit_event,
    exec_from_a_thread_keeps_the_tracee, attach_stops_a_running_process, attach_to_a_stopped_process, seize_and_interrupt, listen_hears_sigcont,
    group_stop_of_an_attached_process, detach_delivers_a_signal, detach_leaves_a_stopped_process_stopped, tracer_death_frees_the_tracee,
    exitkill_kills_the_tracee, sigkill_always_works, parent_waits_after_the_tracer, thread_end_is_told, wait_needs_no_wall,
    rights_to_attach, errors_of_requests, signal_mask_and_queue, options_and_messages, traced_child_of_untraced_tracer_runs_free,
    process_vm_moves_bytes, process_vm_errors, no_tracing_oneself, hostile_addresses, exit_races, scope_one_allows_descendants_only,
    more_capable_children_are_not_for_their_parents, hidden_memory_is_not_peeked_at,
];

const NT_PRSTATUS: u64 = 1;
const NT_PRFPREG: u64 = 2;
const NT_TLS: u64 = 0x401;
const NT_BREAK: u64 = 0x402;
const NT_WATCH: u64 = 0x403;
const NT_SYSCALL: u64 = 0x404;
const SETREGSET: u32 = 0x4205;
const GETREGSET: u32 = 0x4204;
const SYSEMU: u32 = 31;
const GET_SYSCALL_INFO: u32 = 0x420e;
const LISTEN: u32 = 0x4208;
const PEEKSIGINFO: u32 = 0x4209;
const GETSIGMASK: u32 = 0x420a;
const SETSIGMASK: u32 = 0x420b;

/// ptrace by number, without glibc's care for the peeks.
fn trace(request: u32, pid: i32, addr: u64, data: u64) -> i64 {
    unsafe { syscall(SYS_ptrace, request as u64, pid as u64, addr, data) }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct Regs {
    x: [u64; 31],
    sp: u64,
    pc: u64,
    pstate: u64,
}

fn get_set(pid: i32, kind: u64, buf: &mut [u8]) -> Result<usize, Stop> {
    let mut iov = iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    ok!(trace(GETREGSET, pid, kind, &raw mut iov as u64));
    Ok(iov.iov_len)
}

fn put_set(pid: i32, kind: u64, buf: &[u8]) -> i64 {
    let mut iov = iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() };
    trace(SETREGSET, pid, kind, &raw mut iov as u64)
}

fn bytes_of<T>(value: &mut T) -> &mut [u8] {
    unsafe { std::slice::from_raw_parts_mut((&raw mut *value).cast(), std::mem::size_of::<T>()) }
}

fn regs(pid: i32) -> Result<Regs, Stop> {
    let mut r = Regs::default();
    eq!(get_set(pid, NT_PRSTATUS, bytes_of(&mut r))?, 272);
    Ok(r)
}

fn set_regs(pid: i32, mut r: Regs) -> Outcome {
    ok!(put_set(pid, NT_PRSTATUS, bytes_of(&mut r)));
    Ok(())
}

/// Raw wait status of this task.
fn wait_raw(pid: i32, flags: i32) -> i32 {
    let mut raw = 0;
    let got = unsafe { waitpid(pid, &mut raw, flags) };
    if got == pid || pid == -1 && got > 0 { raw } else { -1 }
}

fn stopped(signal: i32) -> i32 {
    signal << 8 | 0x7f
}

fn event(number: i32) -> i32 {
    stopped(SIGTRAP | number << 8)
}

/// A tracee that is killed at the end.
struct Tracee(i32);

impl Drop for Tracee {
    fn drop(&mut self) {
        unsafe {
            kill(self.0, SIGKILL);
            // An event at its exit may stop it once more.
            let mut raw = 0;
            while waitpid(self.0, &mut raw, __WALL) == self.0 && WIFSTOPPED(raw) {
                trace(PTRACE_CONT, self.0, 0, 0);
            }
        }
    }
}

/// A child that asks to be traced and stops.
fn traced(body: impl FnOnce() -> i32) -> Result<Tracee, Stop> {
    let pid = fork_child(|| {
        if trace(PTRACE_TRACEME, 0, 0, 0) != 0 {
            return 99;
        }
        unsafe { raise(SIGSTOP) };
        body()
    });
    check!(pid > 0);
    let tracee = Tracee(pid);
    eq!(wait_raw(pid, 0), stopped(SIGSTOP));
    Ok(tracee)
}

/// A child that nobody traces, and that runs.
fn running(body: impl FnOnce()) -> Result<Tracee, Stop> {
    let pid = idle_child(body)?;
    let tracee = Tracee(pid);
    until_state(pid, 'S')?;
    Ok(tracee)
}

fn go(request: u32, pid: i32, signal: i32) -> Result<i32, Stop> {
    ok!(trace(request, pid, 0, signal as u64));
    Ok(wait_raw(pid, __WALL))
}

fn state_of(pid: i32) -> char {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit_once(") ").and_then(|(_, t)| t.chars().next()).unwrap_or('?')
}

pub fn until_state(pid: i32, state: char) -> Outcome {
    for _ in 0..20_000 {
        if state_of(pid) == state {
            return Ok(());
        }
        unsafe { usleep(500) };
    }
    fail!("{pid} is {}, not {state}", state_of(pid))
}

fn traceme_stops_at_signals() -> Outcome {
    let t = traced(|| {
        unsafe { raise(SIGUSR1) };
        7
    })?;
    eq!(state_of(t.0), 't');
    check!(std::fs::read_to_string(format!("/proc/{}/status", t.0)).is_ok_and(|s| s.contains(&format!("TracerPid:\t{}\n", unsafe { getpid() }))));
    // The stop is told once.
    eq!(wait_raw(t.0, WNOHANG), -1);
    eq!(go(PTRACE_CONT, t.0, 0)?, stopped(SIGUSR1));
    eq!(go(PTRACE_CONT, t.0, 0)?, 7 << 8);
    Ok(())
}

extern "C" fn note(signal: i32, _: *mut siginfo_t, _: *mut c_void) {
    NOTED.store(signal, std::sync::atomic::Ordering::Relaxed);
}
static NOTED: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

fn signal_is_replaced_or_dropped() -> Outcome {
    let t = traced(|| {
        handle(SIGUSR1, note, 0);
        handle(SIGUSR2, note, 0);
        unsafe { raise(SIGUSR1) };
        let first = NOTED.load(std::sync::atomic::Ordering::Relaxed);
        NOTED.store(0, std::sync::atomic::Ordering::Relaxed);
        unsafe { raise(SIGUSR1) };
        if first == SIGUSR2 && NOTED.load(std::sync::atomic::Ordering::Relaxed) == 0 { 5 } else { 6 }
    })?;
    eq!(go(PTRACE_CONT, t.0, 0)?, stopped(SIGUSR1));
    eq!(go(PTRACE_CONT, t.0, SIGUSR2)?, stopped(SIGUSR1));
    eq!(go(PTRACE_CONT, t.0, 0)?, 5 << 8);
    Ok(())
}

fn ignored_signals_are_seen() -> Outcome {
    let t = traced(|| {
        set_disposition(SIGUSR1, SIG_IGN);
        unsafe {
            raise(SIGUSR1);
            raise(SIGWINCH);
        }
        3
    })?;
    eq!(go(PTRACE_CONT, t.0, 0)?, stopped(SIGUSR1));
    eq!(go(PTRACE_CONT, t.0, SIGUSR1)?, stopped(SIGWINCH));
    eq!(go(PTRACE_CONT, t.0, SIGWINCH)?, 3 << 8);
    Ok(())
}

fn siginfo_is_read_and_written() -> Outcome {
    let t = traced(|| {
        handle(SIGUSR1, note_value, SA_SIGINFO);
        unsafe { raise(SIGUSR1) };
        NOTED.load(std::sync::atomic::Ordering::Relaxed)
    })?;
    eq!(go(PTRACE_CONT, t.0, 0)?, stopped(SIGUSR1));
    let mut info = zero::<siginfo_t>();
    ok!(trace(PTRACE_GETSIGINFO, t.0, 0, &raw mut info as u64));
    eq!((info.si_signo, info.si_code, unsafe { info.si_pid() }), (SIGUSR1, SI_TKILL, t.0));
    // A value of the tracer's: si_code SI_QUEUE, si_value 77.
    let raw = bytes_of(&mut info);
    raw[8..12].copy_from_slice(&SI_QUEUE.to_le_bytes());
    raw[24..32].copy_from_slice(&77u64.to_le_bytes());
    ok!(trace(PTRACE_SETSIGINFO, t.0, 0, &raw mut info as u64));
    errno!(trace(PTRACE_GETSIGINFO, t.0, 0, 8), EFAULT);
    eq!(go(PTRACE_CONT, t.0, SIGUSR1)?, 77 << 8);
    Ok(())
}

extern "C" fn note_value(_: i32, info: *mut siginfo_t, _: *mut c_void) {
    let value = unsafe { (*info).si_value().sival_ptr as usize as i32 };
    NOTED.store(value, std::sync::atomic::Ordering::Relaxed);
}

/// Runs to the next stop at this system call, with TRACESYSGOOD set.
fn to_call(t: &Tracee, number: i64) -> Outcome {
    ok!(trace(PTRACE_SETOPTIONS, t.0, 0, PTRACE_O_TRACESYSGOOD as u64));
    for _ in 0..100 {
        eq!(go(PTRACE_SYSCALL, t.0, 0)?, stopped(SIGTRAP | 0x80));
        let r = regs(t.0)?;
        if r.x[7] == 0 && r.x[8] as i32 == number as i32 {
            return Ok(());
        }
    }
    fail!("no call {number}")
}

fn syscall_stops_come_in_pairs() -> Outcome {
    let t = traced(|| unsafe { getppid() - getppid() })?;
    to_call(&t, SYS_getppid)?;
    eq!(go(PTRACE_SYSCALL, t.0, 0)?, stopped(SIGTRAP | 0x80));
    let r = regs(t.0)?;
    eq!((r.x[7], r.x[0]), (1, unsafe { getpid() } as u64));
    // Without the option the stop looks like a SIGTRAP.
    ok!(trace(PTRACE_SETOPTIONS, t.0, 0, 0));
    eq!(go(PTRACE_SYSCALL, t.0, 0)?, stopped(SIGTRAP));
    let mut info = zero::<siginfo_t>();
    ok!(trace(PTRACE_GETSIGINFO, t.0, 0, &raw mut info as u64));
    eq!((info.si_signo, info.si_code), (SIGTRAP, SIGTRAP));
    eq!(go(PTRACE_CONT, t.0, 0)?, 0);
    Ok(())
}

fn set_number(pid: i32, number: i32) -> Outcome {
    ok!(put_set(pid, NT_SYSCALL, &number.to_le_bytes()));
    Ok(())
}

fn syscall_number_can_be_changed() -> Outcome {
    let t = traced(|| unsafe { syscall(SYS_getppid) as i32 & 0x7f })?;
    to_call(&t, SYS_getppid)?;
    let mut number = [0u8; 4];
    eq!(get_set(t.0, NT_SYSCALL, &mut number)?, 4);
    eq!(i32::from_le_bytes(number) as i64, SYS_getppid);
    set_number(t.0, SYS_getpid as i32)?;
    eq!(go(PTRACE_SYSCALL, t.0, 0)?, stopped(SIGTRAP | 0x80));
    eq!(regs(t.0)?.x[0], t.0 as u64);
    eq!(go(PTRACE_CONT, t.0, 0)?, (t.0 & 0x7f) << 8);
    Ok(())
}

fn skipped_call_keeps_the_tracers_value() -> Outcome {
    let t = traced(|| unsafe { (syscall(SYS_getppid) == 41) as i32 })?;
    to_call(&t, SYS_getppid)?;
    set_number(t.0, -1)?;
    let mut r = regs(t.0)?;
    r.x[0] = 41;
    set_regs(t.0, r)?;
    eq!(go(PTRACE_SYSCALL, t.0, 0)?, stopped(SIGTRAP | 0x80));
    eq!(regs(t.0)?.x[0], 41);
    eq!(go(PTRACE_CONT, t.0, 0)?, 1 << 8);
    // A number that does not exist is still a system call.
    let t = traced(|| unsafe { (syscall(SYS_getppid) == -1 && *__errno_location() == ENOSYS) as i32 })?;
    to_call(&t, SYS_getppid)?;
    set_number(t.0, 9999)?;
    eq!(go(PTRACE_CONT, t.0, 0)?, 1 << 8);
    // And -1 by the program itself is ENOSYS.
    let t = traced(|| unsafe { (syscall(-1) == -1 && *__errno_location() == ENOSYS) as i32 })?;
    to_call(&t, -1)?;
    eq!(regs(t.0)?.x[0], -i64::from(ENOSYS) as u64);
    eq!(go(PTRACE_CONT, t.0, 0)?, 1 << 8);
    Ok(())
}

fn syscall_info_tells_entry_and_exit() -> Outcome {
    let t = traced(|| unsafe { (syscall(SYS_close, 1000, 2, 3, 4, 5, 6) == -1) as i32 })?;
    let info = |size: u64| -> Result<(i64, [u8; 88]), Stop> {
        let mut raw = [0xeeu8; 88];
        Ok((ok!(trace(GET_SYSCALL_INFO, t.0, size, raw.as_mut_ptr() as u64)), raw))
    };
    let word = |raw: &[u8; 88], i: usize| u64::from_le_bytes(raw[i..i + 8].try_into().unwrap_or_default());
    let (len, raw) = info(88)?;
    eq!((len, raw[0]), (24, 0));
    to_call(&t, SYS_close)?;
    let (len, raw) = info(88)?;
    let r = regs(t.0)?;
    eq!((len, raw[0], u32::from_le_bytes(raw[4..8].try_into().unwrap_or_default())), (80, 1, 0xc000_00b7));
    eq!((word(&raw, 8), word(&raw, 16), word(&raw, 24) as i64), (r.pc, r.sp, SYS_close));
    for i in 0..6 {
        eq!(word(&raw, 32 + i * 8), if i == 0 { 1000 } else { i as u64 + 1 });
    }
    eq!(raw[80], 0xee);
    eq!(go(PTRACE_SYSCALL, t.0, 0)?, stopped(SIGTRAP | 0x80));
    let (len, raw) = info(88)?;
    eq!((len, raw[0], word(&raw, 24) as i64, raw[32]), (33, 2, -i64::from(EBADF), 1));
    // Less room: what fits.
    let (len, raw) = info(10)?;
    eq!((len, raw[0], raw[10]), (33, 2, 0xee));
    Ok(())
}

fn sysemu_skips_the_call() -> Outcome {
    let t = traced(|| unsafe { (syscall(SYS_getppid) == 55) as i32 })?;
    ok!(trace(PTRACE_SETOPTIONS, t.0, 0, PTRACE_O_TRACESYSGOOD as u64));
    loop {
        eq!(go(SYSEMU, t.0, 0)?, stopped(SIGTRAP | 0x80));
        let mut r = regs(t.0)?;
        if r.x[8] == SYS_getppid as u64 {
            r.x[0] = 55;
            set_regs(t.0, r)?;
            break;
        }
        r.x[0] = 0;
        set_regs(t.0, r)?;
    }
    eq!(go(PTRACE_CONT, t.0, 0)?, 1 << 8);
    Ok(())
}

fn x7_marks_the_stop() -> Outcome {
    let t = traced(|| {
        let kept: u64;
        // SAFETY: getppid takes nothing; x7 is this program's to keep.
        unsafe { std::arch::asm!("mov x7, #1234", "svc #0", "mov {}, x7", out(reg) kept, in("x8") SYS_getppid, out("x7") _, lateout("x0") _) };
        (kept == 1234) as i32
    })?;
    to_call(&t, SYS_getppid)?;
    eq!(go(PTRACE_SYSCALL, t.0, 0)?, stopped(SIGTRAP | 0x80));
    eq!(regs(t.0)?.x[7], 1);
    eq!(go(PTRACE_CONT, t.0, 0)?, 1 << 8);
    Ok(())
}

/// Spins with 0 in x19 until a tracer changes it; returns x19.
fn wait_for_x19() -> u64 {
    let value: u64;
    // SAFETY: only x19 changes, by the tracer, and it is saved around.
    unsafe { std::arch::asm!("mov {s}, x19", "mov x19, #0", "mov x20, x20", "1: cbz x19, 1b", "mov {v}, x19", "mov x19, {s}", s = out(reg) _, v = out(reg) value) };
    value
}

fn interrupt_spinning(pid: i32) -> Outcome {
    // It spins once it uses time in user space; a signal finds it there.
    unsafe { usleep(20_000) };
    ok!(kill(pid, SIGUSR1));
    eq!(wait_raw(pid, 0), stopped(SIGUSR1));
    Ok(())
}

fn registers_are_read_and_written() -> Outcome {
    let t = traced(|| wait_for_x19() as i32)?;
    ok!(trace(PTRACE_CONT, t.0, 0, 0));
    interrupt_spinning(t.0)?;
    let before = regs(t.0)?;
    eq!(before.x[19], 0);
    let mut r = before;
    r.x[19] = 42;
    set_regs(t.0, r)?;
    eq!(regs(t.0)?, r);
    // A part changes a part; a length that is no multiple of the unit is refused.
    ok!(put_set(t.0, NT_PRSTATUS, &9u64.to_le_bytes()));
    eq!(regs(t.0)?.x[0], 9);
    eq!(regs(t.0)?.x[1], before.x[1]);
    ok!(put_set(t.0, NT_PRSTATUS, &before.x[0].to_le_bytes()));
    let mut short = [0u8; 12];
    let mut iov = iovec { iov_base: short.as_mut_ptr().cast(), iov_len: 12 };
    errno!(trace(GETREGSET, t.0, NT_PRSTATUS, &raw mut iov as u64), EINVAL);
    errno!(trace(GETREGSET, t.0, 0x7777, &raw mut iov as u64), EINVAL);
    errno!(trace(GETREGSET, t.0, NT_PRSTATUS, 8), EFAULT);
    // More room than there is to tell: the length comes back.
    let mut large = [0u8; 400];
    eq!(get_set(t.0, NT_PRSTATUS, &mut large)?, 272);
    eq!(go(PTRACE_CONT, t.0, 0)?, 42 << 8);
    Ok(())
}

fn registers_are_those_of_the_program() -> Outcome {
    // SAFETY: the child ends between the two breakpoints, by its tracer's hand.
    let t = traced(|| unsafe {
        core::arch::asm!(
            "mov x0, #0x50000000", "msr nzcv, x0", "adr x0, 7f", "mov x1, sp",
            "mov x2, #102", "mov x3, #103", "mov x4, #104", "mov x5, #105", "mov x6, #106", "mov x7, #107", "mov x8, #108",
            "mov x9, #109", "mov x10, #110", "mov x11, #111", "mov x12, #112", "mov x13, #113", "mov x14, #114", "mov x15, #115",
            "mov x16, #116", "mov x17, #117", "mov x18, #118", "mov x19, #119", "mov x20, #120", "mov x21, #121", "mov x22, #122",
            "mov x23, #123", "mov x24, #124", "mov x25, #125", "mov x26, #126", "mov x27, #127", "mov x28, #128", "mov x29, #129",
            "mov x30, #130",
            "7: brk #1",
            "brk #2",
            "b .",
            options(noreturn)
        )
    })?;
    eq!(go(PTRACE_CONT, t.0, 0)?, stopped(SIGTRAP));
    let r = regs(t.0)?;
    for i in 2..31 {
        eq!((i, r.x[i]), (i, 100 + i as u64));
    }
    eq!((r.pc, r.sp), (r.x[0], r.x[1]));
    eq!(r.pstate & 0xf000_001f, 0x5000_0000);
    // All of them changed, and back from the program as they were given. What no program may have is
    // dropped.
    let mut new = Regs { x: std::array::from_fn(|i| (i as u64 + 3) * 0x0101_0101_0101_0101), sp: r.sp - 64, pc: r.pc + 4, pstate: r.pstate ^ 0xf000_0000 };
    put_set(t.0, NT_PRSTATUS, bytes_of(&mut Regs { pstate: new.pstate | 1 << 20 | 1 << 5, ..new }));
    eq!(go(PTRACE_CONT, t.0, 0)?, stopped(SIGTRAP));
    let r = regs(t.0)?;
    new.pstate = r.pstate;
    eq!(r, new);
    eq!(r.pstate & 0xf010_003f, 0xa000_0000);
    Ok(())
}

fn registers_refuse_other_modes() -> Outcome {
    let t = traced(|| 0)?;
    let good = regs(t.0)?;
    for bad in [5u64, 0x10, 1 << 6, 1 << 7, 1 << 8, 1 << 9] {
        let mut r = Regs { pstate: good.pstate | bad, ..good };
        errno!(put_set(t.0, NT_PRSTATUS, bytes_of(&mut r)), EINVAL);
    }
    eq!(regs(t.0)?, good);
    set_regs(t.0, Regs { pstate: good.pstate | 0xf << 28, ..good })?;
    eq!(regs(t.0)?.pstate >> 28 & 0xf, 0xf);
    Ok(())
}

fn floating_point_and_tls() -> Outcome {
    let t = traced(|| {
        let (mut v, tls): (f64, u64);
        // SAFETY: reads what the tracer put there.
        unsafe {
            std::arch::asm!("fmov d8, #3.0", "mov x8, #173", "svc #0", "fmov {v:d}, d8", v = out(vreg) v, out("x8") _, out("x0") _, out("d8") _);
            std::arch::asm!("mrs {}, tpidr_el0", out(reg) tls);
        }
        if tls == 0 {
            v = 0.0;
        }
        v as i32
    })?;
    to_call(&t, SYS_getppid)?;
    let mut fp = [0u8; 528];
    eq!(get_set(t.0, NT_PRFPREG, &mut fp)?, 528);
    eq!(f64::from_le_bytes(fp[128..136].try_into().unwrap_or_default()), 3.0);
    fp[128..136].copy_from_slice(&11.0f64.to_le_bytes());
    ok!(put_set(t.0, NT_PRFPREG, &fp));
    let mut back = [0u8; 528];
    get_set(t.0, NT_PRFPREG, &mut back)?;
    check!(back == fp);
    let mut tls = [0u8; 16];
    eq!(get_set(t.0, NT_TLS, &mut tls)?, 16);
    let own: u64;
    unsafe { std::arch::asm!("mrs {}, tpidr_el0", out(reg) own) };
    // A fork has its parent's.
    eq!(u64::from_le_bytes(tls[..8].try_into().unwrap_or_default()), own);
    ok!(put_set(t.0, NT_TLS, &tls[..8]));
    eq!(go(PTRACE_CONT, t.0, 0)?, 11 << 8);
    Ok(())
}

fn peek_and_poke() -> Outcome {
    let page = ok!(map(2 * PAGE, RW));
    unsafe { page.cast::<u64>().write_volatile(0x0102_0304_0506_0708) };
    let word = page as usize;
    let t = traced(move || unsafe { (page.cast::<u64>().read_volatile() == 99) as i32 })?;
    let mut out = 0u64;
    ok!(trace(PTRACE_PEEKDATA, t.0, word as u64, &raw mut out as u64));
    eq!(out, 0x0102_0304_0506_0708);
    // Unaligned, across the page.
    ok!(trace(PTRACE_PEEKTEXT, t.0, word as u64 + PAGE as u64 - 3, &raw mut out as u64));
    eq!(out, 0);
    ok!(trace(PTRACE_POKEDATA, t.0, word as u64, 99));
    eq!(unsafe { page.cast::<u64>().read_volatile() }, 0x0102_0304_0506_0708);
    errno!(trace(PTRACE_PEEKDATA, t.0, 8, &raw mut out as u64), EIO);
    errno!(trace(PTRACE_POKEDATA, t.0, 8, 1), EIO);
    errno!(trace(PTRACE_PEEKDATA, t.0, word as u64, 8), EFAULT);
    eq!(go(PTRACE_CONT, t.0, 0)?, 1 << 8);
    Ok(())
}

#[inline(never)]
extern "C" fn target(n: u64) -> u64 {
    std::hint::black_box(n) + 1
}

const BRK: u64 = 0xd420_0000;

fn poke_breakpoint_in_text() -> Outcome {
    let t = traced(|| target(4) as i32)?;
    let place = target as *const () as u64;
    let mut old = 0u64;
    ok!(trace(PTRACE_PEEKTEXT, t.0, place, &raw mut old as u64));
    ok!(trace(PTRACE_POKETEXT, t.0, place, old & !0xffff_ffff | BRK));
    eq!(go(PTRACE_CONT, t.0, 0)?, stopped(SIGTRAP));
    let mut info = zero::<siginfo_t>();
    ok!(trace(PTRACE_GETSIGINFO, t.0, 0, &raw mut info as u64));
    eq!((regs(t.0)?.pc, info.si_code, unsafe { info.si_addr() } as u64), (place, TRAP_BRKPT, place));
    ok!(trace(PTRACE_POKETEXT, t.0, place, old));
    // Only the tracee's text changed.
    eq!(target(5), 6);
    eq!(go(PTRACE_CONT, t.0, 0)?, 5 << 8);
    Ok(())
}

fn single_steps() -> Outcome {
    let t = traced(|| wait_for_x19() as i32)?;
    ok!(trace(PTRACE_CONT, t.0, 0, 0));
    interrupt_spinning(t.0)?;
    let spin = regs(t.0)?.pc;
    for _ in 0..5 {
        eq!(go(PTRACE_SINGLESTEP, t.0, 0)?, stopped(SIGTRAP));
        let mut info = zero::<siginfo_t>();
        ok!(trace(PTRACE_GETSIGINFO, t.0, 0, &raw mut info as u64));
        eq!(info.si_code, TRAP_TRACE);
        // `cbz x19, .` branches to itself.
        eq!(regs(t.0)?.pc, spin);
    }
    let mut r = regs(t.0)?;
    r.x[19] = 17;
    set_regs(t.0, r)?;
    for i in 1..3 {
        eq!(go(PTRACE_SINGLESTEP, t.0, 0)?, stopped(SIGTRAP));
        eq!(regs(t.0)?.pc, spin + 4 * i);
    }
    eq!(go(PTRACE_CONT, t.0, 0)?, 17 << 8);
    Ok(())
}

fn step_over_a_call_and_into_a_handler() -> Outcome {
    let t = traced(|| {
        handle(SIGUSR2, note, 0);
        unsafe { syscall(SYS_getppid) };
        1
    })?;
    to_call(&t, SYS_getppid)?;
    let after = regs(t.0)?.pc;
    // The step ends behind the SVC.
    eq!(go(PTRACE_SINGLESTEP, t.0, 0)?, stopped(SIGTRAP));
    eq!(regs(t.0)?.pc, after);
    eq!(go(PTRACE_SINGLESTEP, t.0, 0)?, stopped(SIGTRAP));
    check!(regs(t.0)?.pc != after);
    // A step with a signal stops at the handler's first instruction.
    eq!(go(PTRACE_SINGLESTEP, t.0, SIGUSR2)?, stopped(SIGTRAP));
    let r = regs(t.0)?;
    eq!((r.pc, r.x[0]), (note as *const () as u64, SIGUSR2 as u64));
    eq!(go(PTRACE_CONT, t.0, 0)?, 1 << 8);
    Ok(())
}

/// Sets pair 0 of a kind: (address, control).
fn set_point(pid: i32, kind: u64, addr: u64, control: u32) -> Result<i64, Stop> {
    let mut state = [0u8; 8 + 16 * 16];
    let len = get_set(pid, kind, &mut state)?;
    check!(len == state.len());
    let slots = state[0] as usize;
    check!((2..=16).contains(&slots) && state[1] >= 6);
    state[8..16].copy_from_slice(&addr.to_le_bytes());
    state[16..20].copy_from_slice(&control.to_le_bytes());
    Ok(put_set(pid, kind, &state[..8 + slots * 16]))
}

static mut WATCHED: [u64; 2] = [0; 2];

fn watchpoint_hits() -> Outcome {
    let place = &raw mut WATCHED as u64;
    let t = traced(|| unsafe {
        (&raw mut WATCHED[1]).write_volatile(1);
        let seen = (&raw const WATCHED[0]).read_volatile();
        (&raw mut WATCHED[0]).write_volatile(seen + 5);
        (&raw const WATCHED[0]).read_volatile() as i32
    })?;
    // Stores to 8 bytes.
    ok!(set_point(t.0, NT_WATCH, place, 0xff << 5 | 2 << 3 | 1)?);
    eq!(go(PTRACE_CONT, t.0, 0)?, stopped(SIGTRAP));
    let mut info = zero::<siginfo_t>();
    ok!(trace(PTRACE_GETSIGINFO, t.0, 0, &raw mut info as u64));
    eq!((info.si_code, unsafe { info.si_addr() } as u64), (TRAP_HWBKPT, place));
    // Before the store; it is repeated without the watchpoint.
    let mut word = 9u64;
    ok!(trace(PTRACE_PEEKDATA, t.0, place, &raw mut word as u64));
    eq!(word, 0);
    ok!(set_point(t.0, NT_WATCH, place, 0)?);
    eq!(go(PTRACE_CONT, t.0, 0)?, 5 << 8);
    let t = traced(|| 0)?;
    errno!(set_point(t.0, NT_WATCH, u64::MAX - 7, 0xff << 5 | 2 << 3 | 1)?, EINVAL);
    errno!(set_point(t.0, NT_WATCH, place, 2 << 3 | 1)?, EINVAL);
    Ok(())
}

fn hardware_breakpoint_hits() -> Outcome {
    let place = target as *const () as u64;
    let t = traced(|| {
        // A child does not inherit it.
        let free = child(|| target(1) as i32 - 2);
        if free != Status::Exited(0) {
            return 90;
        }
        target(7) as i32
    })?;
    ok!(set_point(t.0, NT_BREAK, place, 0xf << 5 | 1)?);
    let mut raw = go(PTRACE_CONT, t.0, 0)?;
    while raw == stopped(SIGCHLD) {
        raw = go(PTRACE_CONT, t.0, SIGCHLD)?;
    }
    eq!(raw, stopped(SIGTRAP));
    let mut info = zero::<siginfo_t>();
    ok!(trace(PTRACE_GETSIGINFO, t.0, 0, &raw mut info as u64));
    eq!((info.si_code, regs(t.0)?.pc), (TRAP_HWBKPT, place));
    ok!(set_point(t.0, NT_BREAK, place, 0)?);
    eq!(go(PTRACE_CONT, t.0, 0)?, 8 << 8);
    Ok(())
}

fn message(pid: i32) -> Result<u64, Stop> {
    let mut out = 0u64;
    ok!(trace(PTRACE_GETEVENTMSG, pid, 0, &raw mut out as u64));
    Ok(out)
}

fn set_options(t: &Tracee, options: i32) -> Outcome {
    ok!(trace(PTRACE_SETOPTIONS, t.0, 0, options as u64));
    Ok(())
}

fn fork_event_gives_a_traced_child() -> Outcome {
    let t = traced(|| {
        let status = child(|| 3);
        if status == Status::Exited(3) { 4 } else { 5 }
    })?;
    set_options(&t, PTRACE_O_TRACEFORK)?;
    eq!(go(PTRACE_CONT, t.0, 0)?, event(PTRACE_EVENT_FORK));
    let new = message(t.0)? as i32;
    check!(new > 0 && new != t.0);
    // It stops by itself, and is ours to trace though not our child.
    eq!(wait_raw(new, 0), stopped(SIGSTOP));
    ok!(trace(PTRACE_CONT, t.0, 0, 0));
    eq!(go(PTRACE_CONT, new, 0)?, 3 << 8);
    // Its parent waits for it only now.
    eq!(wait_raw(t.0, 0), stopped(SIGCHLD));
    eq!(go(PTRACE_CONT, t.0, SIGCHLD)?, 4 << 8);
    Ok(())
}

fn vfork_events() -> Outcome {
    let t = traced(|| {
        let pid = unsafe { syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0) };
        if pid == 0 {
            unsafe { _exit(0) };
        }
        unsafe { waitpid(pid as i32, null_mut(), 0) };
        1
    })?;
    set_options(&t, PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE)?;
    eq!(go(PTRACE_CONT, t.0, 0)?, event(PTRACE_EVENT_VFORK));
    let new = message(t.0)? as i32;
    eq!(wait_raw(new, 0), stopped(SIGSTOP));
    ok!(trace(PTRACE_CONT, t.0, 0, 0));
    eq!(go(PTRACE_CONT, new, 0)?, 0);
    eq!(wait_raw(t.0, 0), event(PTRACE_EVENT_VFORK_DONE));
    eq!(message(t.0)? as i32, new);
    Ok(())
}

fn clone_event_gives_a_traced_thread() -> Outcome {
    let t = traced(|| {
        let thread = std::thread::spawn(|| 6);
        thread.join().unwrap_or(9)
    })?;
    set_options(&t, PTRACE_O_TRACECLONE)?;
    eq!(go(PTRACE_CONT, t.0, 0)?, event(PTRACE_EVENT_CLONE));
    let tid = message(t.0)? as i32;
    eq!(wait_raw(tid, __WALL), stopped(SIGSTOP));
    ok!(trace(PTRACE_CONT, t.0, 0, 0));
    // The end of the thread is told, too; the process may be ending by then.
    check!([0, 6 << 8].contains(&go(PTRACE_CONT, tid, 0)?));
    eq!(wait_raw(t.0, 0), 6 << 8);
    Ok(())
}

fn exec_busybox(args: &[&std::ffi::CStr]) {
    let mut list: Vec<*const c_char> = args.iter().map(|a| a.as_ptr()).collect();
    list.push(std::ptr::null());
    unsafe { execv(c"/bin/busybox".as_ptr(), list.as_ptr()) };
}

fn exec_event() -> Outcome {
    let t = traced(|| {
        exec_busybox(&[c"true"]);
        1
    })?;
    set_options(&t, PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD)?;
    eq!(go(PTRACE_CONT, t.0, 0)?, event(PTRACE_EVENT_EXEC));
    eq!(message(t.0)? as i32, t.0);
    // The new program's registers; the call itself ends behind the event.
    let r = regs(t.0)?;
    check!(r.x[1..20].iter().all(|x| *x == 0) && r.sp != 0);
    eq!(go(PTRACE_SYSCALL, t.0, 0)?, stopped(SIGTRAP | 0x80));
    eq!((regs(t.0)?.x[7], regs(t.0)?.x[0]), (1, 0));
    eq!(go(PTRACE_CONT, t.0, 0)?, 0);
    Ok(())
}

fn exec_without_options_traps() -> Outcome {
    let t = traced(|| {
        exec_busybox(&[c"true"]);
        1
    })?;
    eq!(go(PTRACE_CONT, t.0, 0)?, stopped(SIGTRAP));
    eq!(go(PTRACE_CONT, t.0, 0)?, 0);
    Ok(())
}

fn exit_event() -> Outcome {
    let t = traced(|| 9)?;
    set_options(&t, PTRACE_O_TRACEEXIT)?;
    eq!(go(PTRACE_CONT, t.0, 0)?, event(PTRACE_EVENT_EXIT));
    eq!(message(t.0)?, 9 << 8);
    check!(std::fs::read_link(format!("/proc/{}/exe", t.0)).is_ok());
    eq!(go(PTRACE_CONT, t.0, 0)?, 9 << 8);
    // Also when a signal ends it.
    let t = traced(|| unsafe {
        raise(SIGTERM);
        1
    })?;
    set_options(&t, PTRACE_O_TRACEEXIT)?;
    eq!(go(PTRACE_CONT, t.0, 0)?, stopped(SIGTERM));
    eq!(go(PTRACE_CONT, t.0, SIGTERM)?, event(PTRACE_EVENT_EXIT));
    eq!(message(t.0)?, SIGTERM as u64);
    eq!(go(PTRACE_CONT, t.0, 0)?, SIGTERM);
    Ok(())
}

fn exec_from_a_thread_keeps_the_tracee() -> Outcome {
    let t = traced(|| {
        let thread = std::thread::spawn(|| exec_busybox(&[c"true"]));
        let _ = thread.join();
        1
    })?;
    set_options(&t, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC)?;
    eq!(go(PTRACE_CONT, t.0, 0)?, event(PTRACE_EVENT_CLONE));
    let tid = message(t.0)? as i32;
    eq!(wait_raw(tid, __WALL), stopped(SIGSTOP));
    ok!(trace(PTRACE_CONT, t.0, 0, 0));
    ok!(trace(PTRACE_CONT, tid, 0, 0));
    // The thread is the process now; its former id is the message.
    eq!(wait_raw(t.0, __WALL), event(PTRACE_EVENT_EXEC));
    eq!(message(t.0)? as i32, tid);
    errno!(trace(PTRACE_CONT, tid, 0, 0), ESRCH);
    eq!(go(PTRACE_CONT, t.0, 0)?, 0);
    Ok(())
}

fn attach_stops_a_running_process() -> Outcome {
    let t = running(|| ())?;
    ok!(trace(PTRACE_ATTACH, t.0, 0, 0));
    eq!(wait_raw(t.0, 0), stopped(SIGSTOP));
    eq!(state_of(t.0), 't');
    errno!(trace(PTRACE_ATTACH, t.0, 0, 0), EPERM);
    // The call that it was in begins again.
    eq!(regs(t.0)?.x[8], SYS_ppoll as u64);
    ok!(trace(PTRACE_DETACH, t.0, 0, 0));
    until_state(t.0, 'S')
}

fn attach_to_a_stopped_process() -> Outcome {
    let t = running(|| ())?;
    ok!(kill(t.0, SIGSTOP));
    eq!(wait_raw(t.0, WUNTRACED), stopped(SIGSTOP));
    eq!(state_of(t.0), 'T');
    ok!(trace(PTRACE_ATTACH, t.0, 0, 0));
    eq!(state_of(t.0), 't');
    eq!(wait_raw(t.0, 0), stopped(SIGSTOP));
    ok!(trace(PTRACE_DETACH, t.0, 0, 0));
    until_state(t.0, 'T')?;
    ok!(kill(t.0, SIGCONT));
    until_state(t.0, 'S')
}

fn seize_and_interrupt() -> Outcome {
    let t = running(|| ())?;
    errno!(trace(PTRACE_SEIZE, t.0, 1, 0), EIO);
    errno!(trace(PTRACE_SEIZE, t.0, 0, 1 << 30), EIO);
    ok!(trace(PTRACE_SEIZE, t.0, 0, PTRACE_O_TRACESYSGOOD as u64));
    eq!(wait_raw(t.0, WNOHANG), -1);
    eq!(state_of(t.0), 'S');
    errno!(trace(PTRACE_CONT, t.0, 0, 0), ESRCH);
    ok!(trace(PTRACE_INTERRUPT, t.0, 0, 0));
    eq!(wait_raw(t.0, 0), event(PTRACE_EVENT_STOP));
    let mut info = zero::<siginfo_t>();
    ok!(trace(PTRACE_GETSIGINFO, t.0, 0, &raw mut info as u64));
    eq!((info.si_signo, info.si_code), (SIGTRAP, SIGTRAP | PTRACE_EVENT_STOP << 8));
    // In a stop the interruption waits for the end of the stop.
    ok!(trace(PTRACE_INTERRUPT, t.0, 0, 0));
    eq!(wait_raw(t.0, WNOHANG), -1);
    eq!(go(PTRACE_CONT, t.0, 0)?, event(PTRACE_EVENT_STOP));
    ok!(trace(PTRACE_CONT, t.0, 0, 0));
    // One that attached cannot interrupt.
    let other = running(|| ())?;
    ok!(trace(PTRACE_ATTACH, other.0, 0, 0));
    eq!(wait_raw(other.0, 0), stopped(SIGSTOP));
    errno!(trace(PTRACE_INTERRUPT, other.0, 0, 0), EIO);
    errno!(trace(LISTEN, other.0, 0, 0), EIO);
    Ok(())
}

fn listen_hears_sigcont() -> Outcome {
    let t = running(|| ())?;
    ok!(trace(PTRACE_SEIZE, t.0, 0, 0));
    ok!(kill(t.0, SIGSTOP));
    // First the signal, then the stop of the process.
    eq!(wait_raw(t.0, 0), stopped(SIGSTOP));
    eq!(go(PTRACE_CONT, t.0, SIGSTOP)?, stopped(SIGSTOP | PTRACE_EVENT_STOP << 8));
    ok!(trace(LISTEN, t.0, 0, 0));
    eq!(wait_raw(t.0, WNOHANG), -1);
    errno!(trace(PTRACE_CONT, t.0, 0, 0), ESRCH);
    ok!(kill(t.0, SIGCONT));
    eq!(wait_raw(t.0, 0), event(PTRACE_EVENT_STOP));
    eq!(go(PTRACE_CONT, t.0, 0)?, stopped(SIGCONT));
    ok!(trace(PTRACE_CONT, t.0, 0, SIGCONT as u64));
    until_state(t.0, 'S')?;
    // Interrupted while listening.
    ok!(kill(t.0, SIGSTOP));
    eq!(wait_raw(t.0, 0), stopped(SIGSTOP));
    eq!(go(PTRACE_CONT, t.0, SIGSTOP)?, stopped(SIGSTOP | PTRACE_EVENT_STOP << 8));
    ok!(trace(LISTEN, t.0, 0, 0));
    ok!(trace(PTRACE_INTERRUPT, t.0, 0, 0));
    eq!(wait_raw(t.0, 0), stopped(SIGSTOP | PTRACE_EVENT_STOP << 8));
    Ok(())
}

fn group_stop_of_an_attached_process() -> Outcome {
    let t = running(|| ())?;
    ok!(trace(PTRACE_ATTACH, t.0, 0, 0));
    eq!(wait_raw(t.0, 0), stopped(SIGSTOP));
    // The signal that attaching sent, let through: the process stops, which looks the same but
    // has no siginfo.
    eq!(go(PTRACE_CONT, t.0, SIGSTOP)?, stopped(SIGSTOP));
    let mut info = zero::<siginfo_t>();
    errno!(trace(PTRACE_GETSIGINFO, t.0, 0, &raw mut info as u64), EINVAL);
    // CONT lets it run all the same.
    ok!(trace(PTRACE_CONT, t.0, 0, 0));
    until_state(t.0, 'S')
}

fn detach_delivers_a_signal() -> Outcome {
    let t = traced(|| loop {
        unsafe { pause() };
    })?;
    errno!(trace(PTRACE_DETACH, t.0, 0, 65), EIO);
    ok!(trace(PTRACE_DETACH, t.0, 0, SIGTERM as u64));
    eq!(wait_raw(t.0, 0), SIGTERM);
    errno!(trace(PTRACE_CONT, t.0, 0, 0), ESRCH);
    Ok(())
}

fn detach_leaves_a_stopped_process_stopped() -> Outcome {
    let t = running(|| ())?;
    ok!(trace(PTRACE_SEIZE, t.0, 0, 0));
    ok!(kill(t.0, SIGSTOP));
    eq!(wait_raw(t.0, 0), stopped(SIGSTOP));
    eq!(go(PTRACE_CONT, t.0, SIGSTOP)?, stopped(SIGSTOP | PTRACE_EVENT_STOP << 8));
    ok!(trace(PTRACE_DETACH, t.0, 0, 0));
    until_state(t.0, 'T')?;
    ok!(kill(t.0, SIGCONT));
    until_state(t.0, 'S')
}

/// A tracer of `pid` in a child of its own, which dies when told.
fn other_tracer(pid: i32, options: i32, attach: bool) -> Result<(i32, i32), Stop> {
    let (ready_reader, ready_writer) = new_pipe(O_CLOEXEC)?;
    let (end_reader, end_writer) = new_pipe(O_CLOEXEC)?;
    let tracer = fork_child(|| {
        close_fd(end_writer);
        let request = if attach { PTRACE_ATTACH } else { PTRACE_SEIZE };
        if trace(request, pid, 0, if attach { 0 } else { options as u64 }) != 0 {
            return 1;
        }
        if attach && wait_raw(pid, 0) != stopped(SIGSTOP) {
            return 2;
        }
        write_fd(ready_writer, b"x");
        read_fd(end_reader, &mut [0]);
        0
    });
    close_fd(ready_writer);
    close_fd(end_reader);
    if read_fd(ready_reader, &mut [0]) != 1 {
        fail!("the tracer: {:?}", wait_for(tracer));
    }
    close_fd(ready_reader);
    Ok((tracer, end_writer))
}

fn tracer_death_frees_the_tracee() -> Outcome {
    let t = running(|| ())?;
    let (tracer, end) = other_tracer(t.0, 0, true)?;
    eq!(state_of(t.0), 't');
    close_fd(end);
    eq!(wait_for(tracer), Status::Exited(0));
    until_state(t.0, 'S')?;
    check!(std::fs::read_to_string(format!("/proc/{}/status", t.0)).is_ok_and(|s| s.contains("TracerPid:\t0\n")));
    Ok(())
}

fn exitkill_kills_the_tracee() -> Outcome {
    let t = running(|| ())?;
    let (tracer, end) = other_tracer(t.0, PTRACE_O_EXITKILL, false)?;
    close_fd(end);
    eq!(wait_for(tracer), Status::Exited(0));
    eq!(wait_raw(t.0, 0), SIGKILL);
    Ok(())
}

fn sigkill_always_works() -> Outcome {
    let t = traced(|| 0)?;
    ok!(kill(t.0, SIGKILL));
    eq!(wait_raw(t.0, 0), SIGKILL);
    // At a system call, and while seized.
    let t = traced(|| unsafe { getppid() })?;
    to_call(&t, SYS_getppid)?;
    ok!(trace(PTRACE_KILL, t.0, 0, 0));
    eq!(wait_raw(t.0, 0), SIGKILL);
    let t = running(|| ())?;
    ok!(trace(PTRACE_SEIZE, t.0, 0, 0));
    ok!(kill(t.0, SIGKILL));
    eq!(wait_raw(t.0, 0), SIGKILL);
    Ok(())
}

fn parent_waits_after_the_tracer() -> Outcome {
    let t = running(|| ())?;
    let (tracer, end) = other_tracer(t.0, 0, false)?;
    ok!(kill(t.0, SIGTERM));
    // The signal stops it for its tracer, who does not look; death does not need him to.
    ok!(kill(t.0, SIGKILL));
    until_state(t.0, 'Z')?;
    let mut info = zero::<siginfo_t>();
    ok!(waitid(P_PID, t.0 as u32, &mut info, WEXITED | WNOHANG));
    eq!(info.si_signo, 0);
    close_fd(end);
    eq!(wait_for(tracer), Status::Exited(0));
    eq!(wait_raw(t.0, 0), SIGKILL);
    Ok(())
}

fn thread_end_is_told() -> Outcome {
    let t = traced(|| {
        std::mem::forget(std::thread::spawn(|| unsafe { syscall(SYS_exit, 33) }));
        loop {
            unsafe { pause() };
        }
    })?;
    set_options(&t, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXIT)?;
    eq!(go(PTRACE_CONT, t.0, 0)?, event(PTRACE_EVENT_CLONE));
    let tid = message(t.0)? as i32;
    eq!(wait_raw(tid, __WALL), stopped(SIGSTOP));
    ok!(trace(PTRACE_CONT, t.0, 0, 0));
    eq!(go(PTRACE_CONT, tid, 0)?, event(PTRACE_EVENT_EXIT));
    eq!(message(tid)?, 33 << 8);
    eq!(go(PTRACE_CONT, tid, 0)?, 33 << 8);
    eq!(wait_raw(tid, __WALL | WNOHANG), -1);
    Ok(())
}

fn wait_needs_no_wall() -> Outcome {
    let t = traced(|| {
        let thread = std::thread::spawn(|| ());
        let _ = thread.join();
        0
    })?;
    set_options(&t, PTRACE_O_TRACECLONE)?;
    eq!(go(PTRACE_CONT, t.0, 0)?, event(PTRACE_EVENT_CLONE));
    let tid = message(t.0)? as i32;
    eq!(wait_raw(tid, 0), stopped(SIGSTOP));
    let mut info = zero::<siginfo_t>();
    ok!(trace(PTRACE_CONT, tid, 0, 0));
    ok!(waitid(P_PID, tid as u32, &mut info, WEXITED | WNOWAIT));
    eq!((info.si_code, unsafe { info.si_pid() }), (CLD_EXITED, tid));
    eq!(wait_raw(-1, 0), 0);
    Ok(())
}

fn become_user(id: u32) {
    unsafe {
        setgroups(0, std::ptr::null());
        setresgid(id, id, id);
        setresuid(id, id, id);
        prctl(PR_SET_DUMPABLE, 1);
    }
}

fn rights_to_attach() -> Outcome {
    let root = running(|| ())?;
    let mine = running(|| become_user(1000))?;
    let others = running(|| become_user(1001))?;
    let hidden = running(|| {
        become_user(1000);
        unsafe { prctl(PR_SET_DUMPABLE, 0) };
    })?;
    in_child(|| {
        become_user(1000);
        for pid in [root.0, others.0, hidden.0, 1] {
            errno!(trace(PTRACE_ATTACH, pid, 0, 0), EPERM);
            errno!(trace(PTRACE_SEIZE, pid, 0, 0), EPERM);
        }
        ok!(trace(PTRACE_ATTACH, mine.0, 0, 0));
        eq!(wait_raw(mine.0, 0), stopped(SIGSTOP));
        Ok(())
    })?;
    // Kernel threads are nobody's.
    errno!(trace(PTRACE_ATTACH, 2, 0, 0), EPERM);
    errno!(trace(PTRACE_ATTACH, 999_999, 0, 0), ESRCH);
    errno!(trace(PTRACE_ATTACH, -1, 0, 0), ESRCH);
    errno!(trace(PTRACE_ATTACH, 0, 0, 0), ESRCH);
    Ok(())
}

fn errors_of_requests() -> Outcome {
    let t = traced(|| 0)?;
    errno!(trace(PTRACE_CONT, t.0, 0, 65), EIO);
    errno!(trace(12345, t.0, 0, 0), EIO);
    errno!(trace(3, t.0, 0, 0), EIO); // PEEKUSR
    errno!(trace(PTRACE_SETOPTIONS, t.0, 0, 1 << 30), EINVAL);
    errno!(trace(PTRACE_GETEVENTMSG, t.0, 0, 8), EFAULT);
    errno!(trace(PTRACE_SETSIGINFO, t.0, 0, 8), EFAULT);
    let stranger = running(|| ())?;
    errno!(trace(PTRACE_CONT, stranger.0, 0, 0), ESRCH);
    errno!(trace(PTRACE_KILL, stranger.0, 0, 0), ESRCH);
    errno!(trace(12345, stranger.0, 0, 0), ESRCH);
    // Nobody but the thread that traces may ask.
    let pid = t.0;
    let other = std::thread::spawn(move || (trace(PTRACE_CONT, pid, 0, 0), std::io::Error::last_os_error().raw_os_error()));
    eq!(other.join().ok(), Some((-1, Some(ESRCH))));
    Ok(())
}

fn signal_mask_and_queue() -> Outcome {
    let t = traced(|| unsafe {
        let mut set = zero::<sigset_t>();
        sigprocmask(SIG_BLOCK, std::ptr::null(), &mut set);
        let blocked = sigismember(&set, SIGUSR2);
        raise(SIGUSR2);
        raise(SIGUSR1);
        blocked
    })?;
    let mut mask = 0u64;
    errno!(trace(GETSIGMASK, t.0, 4, &raw mut mask as u64), EINVAL);
    ok!(trace(GETSIGMASK, t.0, 8, &raw mut mask as u64));
    eq!(mask, 0);
    mask = 1 << (SIGUSR2 - 1) | 1 << (SIGKILL - 1) | 1 << (SIGSTOP - 1);
    ok!(trace(SETSIGMASK, t.0, 8, &raw mut mask as u64));
    ok!(trace(GETSIGMASK, t.0, 8, &raw mut mask as u64));
    eq!(mask, 1 << (SIGUSR2 - 1));
    eq!(go(PTRACE_CONT, t.0, 0)?, stopped(SIGUSR1));
    // SIGUSR2 waits in the thread's queue.
    let mut infos = [[0u8; 128]; 4];
    let mut args = [0u64, 4 << 32];
    eq!(ok!(trace(PEEKSIGINFO, t.0, &raw mut args as u64, infos.as_mut_ptr() as u64)), 1);
    eq!(&infos[0][..4], &(SIGUSR2 as u32).to_le_bytes());
    args = [0, 4 << 32 | 1];
    eq!(ok!(trace(PEEKSIGINFO, t.0, &raw mut args as u64, infos.as_mut_ptr() as u64)), 0);
    args = [0, 4 << 32 | 2];
    errno!(trace(PEEKSIGINFO, t.0, &raw mut args as u64, infos.as_mut_ptr() as u64), EINVAL);
    eq!(go(PTRACE_CONT, t.0, 0)?, 1 << 8);
    Ok(())
}

fn options_and_messages() -> Outcome {
    let t = traced(|| 0)?;
    eq!(message(t.0)?, 0);
    set_options(&t, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD)?;
    Ok(())
}

fn traced_child_of_untraced_tracer_runs_free() -> Outcome {
    // A traced parent's child is not traced unless the tracer asked.
    let t = traced(|| {
        let status = child(|| {
            let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            own.contains("TracerPid:\t0\n") as i32
        });
        (status == Status::Exited(1)) as i32
    })?;
    ok!(trace(PTRACE_SETOPTIONS, t.0, 0, PTRACE_O_TRACESYSGOOD as u64));
    loop {
        let raw = go(PTRACE_SYSCALL, t.0, 0)?;
        if raw == stopped(SIGTRAP | 0x80) || raw == stopped(SIGCHLD) {
            continue;
        }
        eq!(raw, 1 << 8);
        return Ok(());
    }
}

fn process_vm_moves_bytes() -> Outcome {
    let page = ok!(map(3 * PAGE, RW));
    (0..3 * PAGE).for_each(|i| unsafe { page.add(i).write_volatile(i as u8) });
    let t = running(|| ())?;
    let mut got = vec![0u8; 6000];
    let (a, b) = got.split_at_mut(1000);
    let local = [iovec { iov_base: a.as_mut_ptr().cast(), iov_len: 1000 }, iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 5000 }];
    let remote = [iovec { iov_base: unsafe { page.add(10) }.cast(), iov_len: 3000 }, iovec { iov_base: unsafe { page.add(5000) }.cast(), iov_len: 3000 }];
    eq!(ok!(process_vm_readv(t.0, local.as_ptr(), 2, remote.as_ptr(), 2, 0)), 6000);
    check!((0..3000).all(|i| got[i] == (10 + i) as u8) && (0..3000).all(|i| got[3000 + i] == (5000 + i) as u8));
    got.fill(0xaa);
    eq!(ok!(process_vm_writev(t.0, local.as_ptr(), 2, remote.as_ptr(), 2, 0)), 6000);
    eq!(unsafe { page.add(10).read_volatile() }, 10);
    got.fill(0);
    eq!(ok!(process_vm_readv(t.0, local.as_ptr(), 2, remote.as_ptr(), 2, 0)), 6000);
    check!(got.iter().all(|b| *b == 0xaa));
    Ok(())
}

fn process_vm_errors() -> Outcome {
    let page = ok!(map(2 * PAGE, RW));
    ok!(unmap(unsafe { page.add(PAGE) }, PAGE));
    let t = running(|| ())?;
    let mut buf = [0u8; 200];
    let local = iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: 200 };
    let good = iovec { iov_base: unsafe { page.add(PAGE - 100) }.cast(), iov_len: 200 };
    // Up to the hole.
    eq!(ok!(process_vm_readv(t.0, &local, 1, &good, 1, 0)), 100);
    let bad = iovec { iov_base: unsafe { page.add(PAGE) }.cast(), iov_len: 200 };
    errno!(process_vm_readv(t.0, &local, 1, &bad, 1, 0), EFAULT);
    errno!(process_vm_readv(t.0, &local, 1, &good, 1, 1), EINVAL);
    errno!(process_vm_readv(t.0, at(8), 1, &good, 1, 0), EFAULT);
    errno!(process_vm_readv(t.0, &local, 1025, &good, 1, 0), EINVAL);
    errno!(process_vm_readv(999_999, &local, 1, &good, 1, 0), ESRCH);
    eq!(ok!(process_vm_readv(999_999, &local, 0, &good, 1, 0)), 0);
    eq!(ok!(process_vm_readv(t.0, &local, 1, &good, 0, 0)), 0);
    // Read-only memory is not written.
    let fixed = ok!(map(PAGE, PROT_READ));
    let own = unsafe { getpid() };
    let target = iovec { iov_base: fixed.cast(), iov_len: 8 };
    errno!(process_vm_writev(own, &local, 1, &target, 1, 0), EFAULT);
    in_child(|| {
        become_user(1000);
        let mut buf = [0u8; 8];
        let local = iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: 8 };
        errno!(process_vm_readv(t.0, &local, 1, &good, 1, 0), EPERM);
        Ok(())
    })
}

fn no_tracing_oneself() -> Outcome {
    errno!(trace(PTRACE_ATTACH, unsafe { getpid() }, 0, 0), EPERM);
    errno!(trace(PTRACE_SEIZE, unsafe { getpid() }, 0, 0), EPERM);
    in_child(|| {
        ok!(trace(PTRACE_TRACEME, 0, 0, 0));
        errno!(trace(PTRACE_TRACEME, 0, 0, 0), EPERM);
        Ok(())
    })?;
    // Nor a thread of one's own process.
    let (reader, writer) = new_pipe(0)?;
    let (go_reader, go_writer) = new_pipe(0)?;
    let thread = std::thread::spawn(move || {
        write_fd(writer, &unsafe { gettid() }.to_le_bytes());
        read_fd(go_reader, &mut [0]);
    });
    let mut tid = [0u8; 4];
    eq!(read_fd(reader, &mut tid), 4);
    errno!(trace(PTRACE_ATTACH, i32::from_le_bytes(tid), 0, 0), EPERM);
    write_fd(go_writer, b"x");
    let _ = thread.join();
    Ok(())
}

fn hostile_addresses() -> Outcome {
    let t = traced(|| 0)?;
    let wild = [0u64, 1, 8, 0x7fff_ffff_ffff, 1 << 48, 0xffff_0000_0000_0000, u64::MAX - 7, u64::MAX];
    for request in (0..40).chain(0x4200..0x4212) {
        // Those that let the tracee go on are not for this.
        if matches!(request, 0 | 7 | 8 | 9 | 16 | 17 | 24 | 31 | 32 | 0x4206 | 0x4207 | 0x4208) {
            continue;
        }
        for addr in wild {
            for data in wild {
                trace(request, t.0, addr, data);
            }
        }
    }
    // It is still there and stopped.
    regs(t.0)?;
    Ok(())
}

fn exit_races() -> Outcome {
    for round in 0..60 {
        let t = traced(|| {
            let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(|| unsafe { getppid() })).collect();
            threads.into_iter().for_each(|t| drop(t.join()));
            exec_busybox(&[c"true"]);
            0
        })?;
        let options = PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT | PTRACE_O_TRACESYSGOOD;
        set_options(&t, options)?;
        ok!(trace(PTRACE_SYSCALL, t.0, 0, 0));
        let mut stops = 0;
        loop {
            let mut raw = 0;
            let pid = unsafe { waitpid(-1, &mut raw, __WALL) };
            if pid < 0 || pid == t.0 && !WIFSTOPPED(raw) {
                break;
            }
            stops += 1;
            if stops == round {
                ok!(kill(t.0, SIGKILL));
            }
            if WIFSTOPPED(raw) {
                let signal = WSTOPSIG(raw);
                let pass = if signal & 0x80 != 0 || signal == SIGTRAP || signal == SIGSTOP { 0 } else { signal };
                trace(PTRACE_SYSCALL, pid, 0, pass as u64);
            }
        }
    }
    // Tracer and tracee end at once.
    for _ in 0..30 {
        let t = running(|| ())?;
        let (tracer, end) = other_tracer(t.0, 0, true)?;
        ok!(kill(tracer, SIGKILL));
        ok!(kill(t.0, SIGKILL));
        close_fd(end);
        eq!(wait_for(tracer), Status::Killed(SIGKILL));
        eq!(wait_raw(t.0, 0), SIGKILL);
    }
    Ok(())
}

fn scope_one_allows_descendants_only() -> Outcome {
    let scope = "/proc/sys/kernel/yama/ptrace_scope";
    let sibling = running(|| become_user(1000))?;
    let named = running(|| {
        become_user(1000);
        unsafe { prctl(PR_SET_PTRACER, -1i64) };
    })?;
    make(scope, b"1")?;
    let outcome = in_child(|| {
        become_user(1000);
        errno!(trace(PTRACE_ATTACH, sibling.0, 0, 0), EPERM);
        let own = running(|| ())?;
        ok!(trace(PTRACE_ATTACH, own.0, 0, 0));
        eq!(wait_raw(own.0, 0), stopped(SIGSTOP));
        ok!(trace(PTRACE_SEIZE, named.0, 0, 0));
        errno!(prctl(PR_SET_PTRACER, 999_999), EINVAL);
        Ok(())
    });
    make(scope, b"2")?;
    let second = in_child(|| {
        become_user(1000);
        let own = running(|| ())?;
        errno!(trace(PTRACE_ATTACH, own.0, 0, 0), EPERM);
        eq!(child(|| (trace(PTRACE_TRACEME, 0, 0, 0) == -1) as i32), Status::Exited(1));
        Ok(())
    });
    make(scope, b"0")?;
    outcome?;
    second
}

fn more_capable_children_are_not_for_their_parents() -> Outcome {
    in_child(|| {
        let (from, to) = new_pipe(O_CLOEXEC)?;
        let pid = fork_child(|| {
            // The parent has given its rights up when the pipe ends.
            close_fd(to);
            let _ = read_to_end(from);
            let refused = trace(PTRACE_TRACEME, 0, 0, 0) == -1;
            (std::io::Error::last_os_error().raw_os_error() != Some(EPERM) || !refused) as i32
        });
        ok!(setresuid(1000, 1000, 1000));
        close_fd(to);
        eq!(wait_for(pid), Status::Exited(0));
        Ok(())
    })
}

fn hidden_memory_is_not_peeked_at() -> Outcome {
    static WORD: u64 = 0x1122_3344_5566_7788;
    let peek = |pid: i32| {
        let mut word = 0u64;
        let got = trace(PTRACE_PEEKDATA as u32, pid, &raw const WORD as u64, &raw mut word as u64);
        if got == 0 { Ok(word) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
    };
    let hidden = || {
        traced(|| {
            unsafe { prctl(PR_SET_DUMPABLE, 0) };
            unsafe { raise(SIGUSR2) };
            0
        })
    };
    // Who may trace everything sees it.
    let mine = hidden()?;
    trace(PTRACE_CONT as u32, mine.0, 0, 0);
    eq!(wait_raw(mine.0, 0), stopped(SIGUSR2));
    eq!(peek(mine.0), Ok(WORD));
    drop(mine);
    in_child(|| {
        ok!(setresuid(1000, 1000, 1000));
        // Its own memory is hidden from the change of ids on.
        ok!(prctl(PR_SET_DUMPABLE, 1));
        let theirs = hidden()?;
        eq!(peek(theirs.0), Ok(WORD));
        trace(PTRACE_CONT as u32, theirs.0, 0, 0);
        eq!(wait_raw(theirs.0, 0), stopped(SIGUSR2));
        eq!(peek(theirs.0), Err(EIO));
        errno!(trace(PTRACE_POKEDATA as u32, theirs.0, &raw const WORD as u64, 1), EIO);
        Ok(())
    })
}
