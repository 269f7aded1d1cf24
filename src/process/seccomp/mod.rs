//! Restricting the system calls of a thread (`seccomp(2)`): strict mode and filters.
//!
//! A thread with a mode has SECCOMP in its work flags; no other thread pays anything. Filters form
//! a chain from the newest to the oldest that children and synchronised threads share; all of them
//! are asked, and the strictest answer counts. Modes and filters only ever become stricter, are
//! inherited by children and kept by exec.
//!
//! Changes happen under the signal lock of the process, which is what synchronising all threads
//! (SECCOMP_FILTER_FLAG_TSYNC) and the birth of new ones exclude each other by.

mod filter;

use crate::{
    exit,
    ptrace::stop,
    signal::{Cause, SigInfo, Signal, force_signal, force_to_end},
    task::Task,
};
use abi::{
    Errno, Result, UserAddr,
    raw::{general::SIGKILL, ptrace::PTRACE_EVENT_SECCOMP},
};
use arch::{
    UserRegs,
    thread::{FATAL_PENDING, SECCOMP},
    user::{UserPtr, UserSlice},
};
use filter::{INSTRUCTION_SIZE, MAX_LENGTH, Program};
use kalloc::{KArc, KVec, RcuArc};
use sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use vfs::Cap;

// linux/seccomp.h, which the generated numbers do not have.
const MODE_DISABLED: u32 = 0;
const MODE_STRICT: u32 = 1;
const MODE_FILTER: u32 = 2;
/// What no program sees: the thread is about to end.
const MODE_DEAD: u32 = 3;

const FLAG_TSYNC: u64 = 1;
const FLAG_LOG: u64 = 2;
const FLAG_SPEC_ALLOW: u64 = 4;
const FLAG_TSYNC_ESRCH: u64 = 16;
/// Listeners (flags 8 and 32) are not built: EINVAL, as for any unknown flag.
const KNOWN_FLAGS: u64 = FLAG_TSYNC | FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_TSYNC_ESRCH;

const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
/// The part of a filter's answer that is the action, and the part that goes with it.
const ACTION: u32 = 0xffff_0000;
const DATA: u32 = 0xffff;
const MAX_ERRNO: u32 = 4095;

/// AUDIT_ARCH_AARCH64.
const ARCH: u32 = 0xc000_00b7;

/// Instructions that a thread's filters may have together (MAX_INSNS_PER_PATH), and what each
/// filter counts beside its own.
const MAX_TOTAL: usize = (1 << 18) / INSTRUCTION_SIZE;
const PER_FILTER: usize = 4;

/// One filter and those that were there before it.
pub(crate) struct Filter {
    program: Program,
    log: bool,
    previous: Option<KArc<Filter>>,
    /// Filters in the chain from here on, and their instructions with the penalty for each.
    count: u32,
    total: usize,
}

impl Drop for Filter {
    fn drop(&mut self) {
        // One after the other: a long chain must not become deep recursion.
        let mut next = self.previous.take();
        while let Some(Ok(mut filter)) = next.map(KArc::try_unwrap) {
            next = filter.previous.take();
        }
    }
}

/// A thread's seccomp state.
pub(crate) struct State {
    mode: AtomicU32,
    filter: RcuArc<Filter>,
    /// Beside the filters, because all threads get it with them.
    no_new_privs: AtomicBool,
}

impl State {
    pub fn new() -> Self {
        Self { mode: AtomicU32::new(MODE_DISABLED), filter: RcuArc::new(None), no_new_privs: AtomicBool::new(false) }
    }

    /// Takes over everything. The signal lock of `from`'s process is held.
    pub fn copy(&self, from: &Self) {
        self.mode.store(from.mode.load(Ordering::Relaxed), Ordering::Relaxed);
        self.filter.store(from.filter.get());
        self.no_new_privs.store(from.has_no_new_privs(), Ordering::Relaxed);
    }

    /// 0, or the number of the mode (`prctl(2)`, PR_GET_SECCOMP).
    pub fn mode(&self) -> u32 {
        self.mode.load(Ordering::Relaxed)
    }

    pub fn filters(&self) -> u32 {
        let guard = sync::rcu::read_lock();
        self.filter.load(&guard).map_or(0, |f| f.count)
    }

    pub fn has_no_new_privs(&self) -> bool {
        self.no_new_privs.load(Ordering::Relaxed)
    }

    /// Irreversible (`prctl(2)`, PR_SET_NO_NEW_PRIVS).
    pub fn set_no_new_privs(&self) {
        self.no_new_privs.store(true, Ordering::Relaxed);
    }
}

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// It is not carried out; the registers are as they shall be.
    Skip,
}

/// Asks the current thread's filters about the system call that the registers ask for. Called when
/// the thread has SECCOMP in its flags. A call that is not allowed may end the thread here.
pub fn check(task: &Task, regs: &mut UserRegs) -> Verdict {
    // Not x8: a tracer may have changed the number.
    let number = regs.syscallno as u32;
    match task.seccomp.mode() {
        MODE_DISABLED => Verdict::Go,
        MODE_STRICT => strict(task, number),
        MODE_FILTER => filtered(task, regs, number, false),
        // Another call of a thread that is ending already.
        _ => exit::exit_thread(task, SIGKILL),
    }
}

fn strict(task: &Task, number: u32) -> Verdict {
    use abi::raw::general as nr;
    const ALLOWED: [u32; 4] = [nr::__NR_read, nr::__NR_write, nr::__NR_exit, nr::__NR_rt_sigreturn];
    if ALLOWED.contains(&number) {
        return Verdict::Go;
    }
    task.seccomp.mode.store(MODE_DEAD, Ordering::Relaxed);
    exit::exit_thread(task, SIGKILL)
}

/// The strictest answer of all filters, and whether the one that gave it wants it logged.
fn ask(task: &Task, data: &[u32; 16]) -> (u32, bool) {
    let guard = sync::rcu::read_lock();
    let (mut answer, mut log) = (ALLOW, false);
    let mut next = task.seccomp.filter.load(&guard);
    while let Some(f) = next {
        let says = f.program.run(data);
        // As signed numbers: KILL_PROCESS comes before KILL_THREAD.
        if ((says & ACTION) as i32) < (answer & ACTION) as i32 {
            (answer, log) = (says, f.log);
        }
        next = f.previous.as_deref();
    }
    (answer, log)
}

/// `traced`: a tracer has seen the call and let it through, so TRACE means no more.
fn filtered(task: &Task, regs: &mut UserRegs, number: u32, traced: bool) -> Verdict {
    let mut data = [0u32; 16];
    let words = [u64::from(ARCH) << 32 | u64::from(number), regs.pc, regs.x[0], regs.x[1], regs.x[2], regs.x[3], regs.x[4], regs.x[5]];
    for (pair, word) in data.as_chunks_mut::<2>().0.iter_mut().zip(words) {
        *pair = [word as u32, (word >> 32) as u32];
    }
    let (answer, log) = ask(task, &data);
    let extra = answer & DATA;
    match answer & ACTION {
        ALLOW => return Verdict::Go,
        LOG => {
            note(task, number, answer);
            return Verdict::Go;
        }
        ERRNO => {
            if log {
                note(task, number, answer);
            }
            regs.x[0] = u64::from(extra.min(MAX_ERRNO)).wrapping_neg();
        }
        TRAP => {
            if log {
                note(task, number, answer);
            }
            // The handler finds the arguments as they were.
            regs.x[0] = regs.orig_x0;
            force_signal(task, sigsys(regs, number, extra));
        }
        TRACE if traced => return Verdict::Go,
        TRACE => match ask_tracer(task, regs, extra) {
            Some(verdict) => return verdict,
            None => regs.x[0] = Errno::ENOSYS.to_ret(),
        },
        // Nobody listens.
        USER_NOTIF => regs.x[0] = Errno::ENOSYS.to_ret(),
        action => {
            note(task, number, answer);
            task.seccomp.mode.store(MODE_DEAD, Ordering::Relaxed);
            if action == KILL_THREAD && task.process.thread_count() > 1 {
                exit::exit_thread(task, Signal::SYS.number());
            }
            force_to_end(task, sigsys(regs, number, extra));
        }
    }
    // What x0 holds is no request to start the call again.
    regs.syscallno = -1;
    Verdict::Skip
}

/// SECCOMP_RET_TRACE: a tracer that asked for PTRACE_EVENT_SECCOMP decides. It may change the call,
/// about which the filters are asked once more then. `None`: there is no such tracer.
fn ask_tracer(task: &Task, regs: &mut UserRegs, message: u32) -> Option<Verdict> {
    if !stop::event(task, regs, PTRACE_EVENT_SECCOMP, message.into()) {
        return None;
    }
    if regs.syscallno < 0 || sched::current().head().test_flag(FATAL_PENDING) {
        return Some(Verdict::Skip);
    }
    Some(filtered(task, regs, regs.syscallno as u32, true))
}

fn sigsys(regs: &UserRegs, number: u32, reason: u32) -> SigInfo {
    SigInfo { signal: Signal::SYS, cause: Cause::Syscall { addr: regs.pc, number, arch: ARCH, reason } }
}

/// A line in the log, but not more than ten a second: filters and calls are the programs' own.
fn note(task: &Task, number: u32, answer: u32) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    const PAUSE: u64 = 100_000_000;
    let (now, next) = (time::monotonic().0, NEXT.load(Ordering::Relaxed));
    if now < next || NEXT.compare_exchange(next, now + PAUSE, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return;
    }
    log::info!("seccomp: pid {} system call {number} code {answer:#x}", task.id());
}

/// The current thread's mode (`prctl(2)`, PR_GET_SECCOMP).
pub fn mode(task: &Task) -> u32 {
    task.seccomp.mode()
}

/// `seccomp(2)`.
pub fn seccomp(task: &Task, operation: u32, flags: u64, args: UserAddr) -> Result<u64> {
    const SET_MODE_STRICT: u32 = 0;
    const SET_MODE_FILTER: u32 = 1;
    const GET_ACTION_AVAIL: u32 = 2;
    const GET_NOTIF_SIZES: u32 = 3;
    match operation {
        SET_MODE_STRICT if flags != 0 || !args.is_null() => Err(Errno::EINVAL),
        SET_MODE_STRICT => set_strict(task).map(|()| 0),
        SET_MODE_FILTER => set_filter(task, flags, args),
        GET_ACTION_AVAIL if flags != 0 => Err(Errno::EINVAL),
        GET_ACTION_AVAIL => match UserPtr::<u32>::new(args).read()? {
            KILL_PROCESS | KILL_THREAD | TRAP | ERRNO | TRACE | LOG | ALLOW => Ok(0),
            _ => Err(Errno::EOPNOTSUPP),
        },
        GET_NOTIF_SIZES if flags != 0 => Err(Errno::EINVAL),
        // struct seccomp_notif, seccomp_notif_resp, seccomp_data.
        GET_NOTIF_SIZES => UserPtr::<[u16; 3]>::new(args).write([80, 24, 64]).map(|()| 0),
        _ => Err(Errno::EINVAL),
    }
}

/// `prctl(2)`, PR_SET_SECCOMP.
pub fn set_mode(task: &Task, mode: u64, args: UserAddr) -> Result<u64> {
    match mode {
        1 => set_strict(task).map(|()| 0),
        2 => set_filter(task, 0, args),
        _ => Err(Errno::EINVAL),
    }
}

/// The thread's mode becomes `mode`. EINVAL when it has another one.
fn may_become(state: &State, mode: u32) -> Result {
    let now = state.mode();
    if now == MODE_DISABLED || now == mode { Ok(()) } else { Err(Errno::EINVAL) }
}

fn become_mode(task: &Task, mode: u32) {
    task.seccomp.mode.store(mode, Ordering::Relaxed);
    if let Some(thread) = task.thread() {
        thread.head().set_flag(SECCOMP);
    }
}

fn set_strict(task: &Task) -> Result {
    let _s = task.process.signals.lock_irq();
    may_become(&task.seccomp, MODE_STRICT)?;
    become_mode(task, MODE_STRICT);
    Ok(())
}

/// Reads `struct sock_fprog` and its instructions, and verifies them.
fn read_program(task: &Task, args: UserAddr) -> Result<Program> {
    let [length, at] = UserPtr::<[u64; 2]>::new(args).read()?;
    let length = usize::from(length as u16);
    if length == 0 || length > MAX_LENGTH {
        return Err(Errno::EINVAL);
    }
    if !task.seccomp.has_no_new_privs() && !task.with_cred(|c| c.capable(Cap::SYS_ADMIN))? {
        return Err(Errno::EACCES);
    }
    if at == 0 {
        return Err(Errno::EINVAL);
    }
    let mut raw = KVec::try_from_elem(0u8, length * INSTRUCTION_SIZE)?;
    UserSlice::new(UserAddr(at), raw.len()).read_into(&mut raw)?;
    Program::new(&raw)
}

fn set_filter(task: &Task, flags: u64, args: UserAddr) -> Result<u64> {
    if flags & !KNOWN_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let program = read_program(task, args)?;
    let length = program.len();
    // Only this thread, or one that the lock keeps away, changes the chain.
    let mut filter = KArc::try_new(Filter { program, log: flags & FLAG_LOG != 0, previous: None, count: 1, total: 0 })?;
    // A thread in exec has looked at its filters already, and goes on by what it saw.
    let _guard = match flags & FLAG_TSYNC {
        0 => None,
        _ => Some(task.process.exec_guard.lock_killable()?),
    };
    let s = task.process.signals.lock_irq();
    may_become(&task.seccomp, MODE_FILTER)?;
    let previous = task.seccomp.filter.get();
    let before = previous.as_ref().map_or(0, |p| p.total);
    if length + before > MAX_TOTAL {
        return Err(Errno::ENOMEM);
    }
    if flags & FLAG_TSYNC != 0 {
        let differs = s.members.iter().find(|t| !core::ptr::eq(&***t, task) && !can_follow(&t.seccomp, previous.as_ref()));
        if let Some(other) = differs {
            return if flags & FLAG_TSYNC_ESRCH != 0 { Err(Errno::ESRCH) } else { Ok(other.id().into()) };
        }
    }
    if let Some(f) = KArc::get_mut(&mut filter) {
        f.count = previous.as_ref().map_or(0, |p| p.count) + 1;
        f.total = before + length + PER_FILTER;
        f.previous = previous;
    }
    task.seccomp.filter.store(Some(filter.clone()));
    become_mode(task, MODE_FILTER);
    if flags & FLAG_TSYNC != 0 {
        for t in s.members.iter().filter(|t| !core::ptr::eq(&***t, task)) {
            t.seccomp.filter.store(Some(filter.clone()));
            if task.seccomp.has_no_new_privs() {
                t.seccomp.set_no_new_privs();
            }
            become_mode(t, MODE_FILTER);
        }
    }
    Ok(0)
}

/// Whether a thread has no filters, or only such as `chain` has too: it may get the whole chain.
fn can_follow(state: &State, chain: Option<&KArc<Filter>>) -> bool {
    match state.mode() {
        MODE_DISABLED => true,
        MODE_FILTER => {
            let Some(own) = state.filter.get() else { return true };
            let mut at = chain;
            while let Some(f) = at {
                if KArc::ptr_eq(f, &own) {
                    return true;
                }
                at = f.previous.as_ref();
            }
            false
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: usize) -> KArc<Filter> {
        let ret = [6, 0, 0, 0, 0, 0, 0xff, 0x7f];
        let mut newest = None;
        for _ in 0..length {
            let program = Program::new(&ret).unwrap();
            newest = Some(KArc::try_new(Filter { program, log: false, previous: newest, count: 1, total: 1 }).unwrap());
        }
        newest.unwrap()
    }

    #[test]
    fn a_long_chain_is_dropped_without_recursion() {
        let kept = chain(200_000);
        let tail = kept.previous.clone();
        drop(kept);
        drop(tail);
    }

    #[test]
    fn a_thread_follows_a_chain_that_contains_its_own() {
        let newest = chain(3);
        let state = State::new();
        assert!(can_follow(&state, Some(&newest)));
        state.mode.store(MODE_FILTER, Ordering::Relaxed);
        state.filter.store(newest.previous.clone());
        assert!(can_follow(&state, Some(&newest)));
        state.filter.store(Some(chain(1)));
        assert!(!can_follow(&state, Some(&newest)));
        state.mode.store(MODE_STRICT, Ordering::Relaxed);
        assert!(!can_follow(&state, Some(&newest)));
    }
}
