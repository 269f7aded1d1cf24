//! The requests of `ptrace(2)`: what each checks, in Linux's order.

use super::{Stop, Tracee, link, regset};
use crate::{
    signal::{SIGINFO_SIZE, SigInfo, SigSet, Signal},
    task::Task,
};
use abi::{Errno, Result, UserAddr, raw::ptrace as p};
use arch::{
    thread::{SIGNAL_PENDING, SINGLE_STEP, SYSCALL_EMU, SYSCALL_TRACE},
    user::{UserPtr, UserSlice},
};
use kalloc::KArc;
use mm::AddressSpace;

/// PSTATE.SS: the next instruction is the last (Arm ARM D2.11).
pub(crate) const PSTATE_SS: u64 = 1 << 21;
const OLDSETOPTIONS: u32 = 21;

/// `ptrace(2)`.
pub fn ptrace(me: &Task, request: u64, pid: i64, addr: u64, data: u64) -> Result<u64> {
    let known = u32::try_from(request).unwrap_or(u32::MAX);
    if known == p::PTRACE_TRACEME {
        return link::trace_me(me).map(|()| 0);
    }
    let id = u32::try_from(pid as i32).map_err(|_| Errno::ESRCH)?;
    let task = me.ns()?.pid.find(id).ok_or(Errno::ESRCH)?;
    match known {
        p::PTRACE_ATTACH => return link::attach(me, &task, None).map(|()| 0),
        p::PTRACE_SEIZE => {
            if addr != 0 || data & !u64::from(super::OPTIONS) != 0 {
                return Err(Errno::EIO);
            }
            let options = link::check_options(data)?;
            return link::attach(me, &task, Some(options)).map(|()| 0);
        }
        _ => {}
    }
    let any_state = known == p::PTRACE_KILL || known == p::PTRACE_INTERRUPT;
    check_attached(me, &task, any_state)?;
    match known {
        p::PTRACE_PEEKSIGINFO => peek_siginfo(&task, UserAddr(addr), UserAddr(data)),
        p::PTRACE_GET_SYSCALL_INFO => syscall_info(&task, addr, UserAddr(data)),
        _ => without_value(&task, known, addr, data).map(|()| 0),
    }
}

/// The requests on an attached task whose success is 0.
fn without_value(task: &KArc<Task>, request: u32, addr: u64, data: u64) -> Result {
    let signal = || if data <= abi::NSIG as u64 { Ok(data as u32) } else { Err(Errno::EIO) };
    match request {
        p::PTRACE_PEEKTEXT | p::PTRACE_PEEKDATA => peek(task, UserAddr(addr), UserPtr::new(UserAddr(data))),
        p::PTRACE_POKETEXT | p::PTRACE_POKEDATA => poke(task, UserAddr(addr), data),
        p::PTRACE_CONT => resume(task, 0, signal()?),
        p::PTRACE_SYSCALL => resume(task, SYSCALL_TRACE, signal()?),
        p::PTRACE_SYSEMU => resume(task, SYSCALL_EMU, signal()?),
        p::PTRACE_SYSEMU_SINGLESTEP => resume(task, SYSCALL_EMU | SINGLE_STEP, signal()?),
        p::PTRACE_SINGLESTEP => resume(task, SINGLE_STEP, signal()?),
        p::PTRACE_KILL => {
            crate::signal::send_to_task(task, SigInfo::kernel(Signal::KILL));
            Ok(())
        }
        p::PTRACE_DETACH => {
            link::detach(task, signal()?);
            Ok(())
        }
        p::PTRACE_SETOPTIONS | OLDSETOPTIONS => {
            let options = link::check_options(data)?;
            super::with_link(task, |l| l.options = options).ok_or(Errno::ESRCH)
        }
        p::PTRACE_GETEVENTMSG => {
            let message = super::with_link(task, |l| l.message).ok_or(Errno::ESRCH)?;
            UserPtr::new(UserAddr(data)).write(message)
        }
        p::PTRACE_GETSIGINFO => {
            let info = in_stop(task, |_, s| s.info)?.ok_or(Errno::EINVAL)?;
            UserPtr::<[u8; SIGINFO_SIZE]>::new(UserAddr(data)).write(info.encode())
        }
        p::PTRACE_SETSIGINFO => {
            let raw: [u8; SIGINFO_SIZE] = UserPtr::new(UserAddr(data)).read()?;
            in_stop(task, |_, s| {
                let old = s.info.as_mut().ok_or(Errno::EINVAL)?;
                *old = SigInfo::decode(&raw, old.signal);
                Ok(())
            })?
        }
        p::PTRACE_GETSIGMASK => {
            mask_size(addr)?;
            let blocked = task.signals.lock_irq().blocked;
            UserPtr::new(UserAddr(data)).write(blocked.0)
        }
        p::PTRACE_SETSIGMASK => {
            mask_size(addr)?;
            let mask = SigSet(UserPtr::new(UserAddr(data)).read()?).minus(SigSet::UNBLOCKABLE);
            let _s = task.process.signals.lock_irq();
            task.signals.lock().blocked = mask;
            if let Some(thread) = task.thread() {
                thread.head().set_flag(SIGNAL_PENDING);
            }
            Ok(())
        }
        p::PTRACE_INTERRUPT => interrupt(task),
        p::PTRACE_LISTEN => listen(task),
        p::PTRACE_GETREGSET => regset::get(task, addr as u32, UserAddr(data)),
        p::PTRACE_SETREGSET => regset::set(task, addr as u32, UserAddr(data)),
        _ => Err(Errno::EIO),
    }
}

/// ESRCH unless the caller traces the task, and it is stopped for the caller to work on.
fn check_attached(me: &Task, task: &KArc<Task>, any_state: bool) -> Result {
    let tracer = super::with_link(task, |l| l.tracer.upgrade()).flatten().ok_or(Errno::ESRCH)?;
    if !core::ptr::eq(&*tracer, me) {
        return Err(Errno::ESRCH);
    }
    if any_state {
        return Ok(());
    }
    in_stop(task, |_, s| if s.listening { Err(Errno::ESRCH) } else { Ok(()) })?
}

/// Works on the record of a stopped task. ESRCH when it is not stopped, or dying.
pub(super) fn in_stop<R>(task: &Task, f: impl FnOnce(&mut StoppedRegs<'_>, &mut Stop) -> R) -> Result<R> {
    let _s = task.process.signals.lock_irq();
    if task.thread().is_none_or(|t| t.head().test_flag(arch::thread::FATAL_PENDING)) {
        return Err(Errno::ESRCH);
    }
    let mut slot = task.trace.lock();
    let Tracee { stop, regs, fp, tls, fp_changed, tls_changed, .. } = slot.as_deref_mut().ok_or(Errno::ESRCH)?;
    let stop = stop.as_mut().filter(|s| !s.over).ok_or(Errno::ESRCH)?;
    Ok(f(&mut StoppedRegs { regs, fp, tls, fp_changed, tls_changed }, stop))
}

/// The registers of a stopped task.
pub(super) struct StoppedRegs<'a> {
    pub regs: &'a mut arch::UserRegs,
    pub fp: &'a mut arch::fp::FpRegs,
    pub tls: &'a mut u64,
    pub fp_changed: &'a mut bool,
    pub tls_changed: &'a mut bool,
}

fn mask_size(size: u64) -> Result {
    if size == size_of::<u64>() as u64 { Ok(()) } else { Err(Errno::EINVAL) }
}

/// What a tracer may not read otherwise it does not read this way (`ptrace_access_vm` of Linux).
fn memory_of(task: &Task) -> Result<KArc<AddressSpace>> {
    let allowed = task.process.is_dumpable() || super::lets_gain(task);
    task.mm().filter(|_| allowed).ok_or(Errno::EIO)
}

fn peek(task: &Task, addr: UserAddr, out: UserPtr<u64>) -> Result {
    let mm = memory_of(task)?;
    let mut word = [0; 8];
    if mm.peek(addr, &mut word) != Ok(word.len()) {
        return Err(Errno::EIO);
    }
    out.write(u64::from_le_bytes(word))
}

fn poke(task: &Task, addr: UserAddr, data: u64) -> Result {
    let mm = memory_of(task)?;
    let word = data.to_le_bytes();
    if mm.poke(addr, &word) == Ok(word.len()) { Ok(()) } else { Err(Errno::EIO) }
}

/// Lets a stopped task go on, with these of the work flags, and this signal.
fn resume(task: &Task, flags: u32, signal: u32) -> Result {
    let thread = task.thread().ok_or(Errno::ESRCH)?;
    in_stop(task, |t, stop| {
        thread.head().clear_flag((SYSCALL_TRACE | SYSCALL_EMU | SINGLE_STEP) & !flags);
        if flags != 0 {
            thread.head().set_flag(flags);
        }
        if flags & SINGLE_STEP != 0 {
            t.regs.pstate |= PSTATE_SS;
        } else {
            t.regs.pstate &= !PSTATE_SS;
        }
        stop.told = true;
        stop.inject = signal;
        stop.over = true;
        sched::unpark(&thread);
    })
}

fn interrupt(task: &Task) -> Result {
    let s = task.process.signals.lock_irq();
    let mut slot = task.trace.lock();
    let t = slot.as_deref_mut().ok_or(Errno::ESRCH)?;
    let link = t.link.as_mut().filter(|l| l.seized).ok_or(Errno::EIO)?;
    link.trap = true;
    let thread = task.thread();
    // One that listens stops anew, for the tracer this time.
    let mut listened = false;
    if let Some(stop) = t.stopped().filter(|s| s.listening) {
        stop.over = true;
        listened = true;
    }
    let stopped = t.stop.is_some();
    drop(slot);
    if let Some(thread) = thread {
        thread.head().set_flag(SIGNAL_PENDING);
        if listened {
            sched::unpark(&thread);
        } else if !stopped {
            sched::signal_wake(&thread, false);
        }
    }
    drop(s);
    Ok(())
}

fn listen(task: &Task) -> Result {
    let seized = super::with_link(task, |l| l.seized).ok_or(Errno::ESRCH)?;
    if !seized {
        return Err(Errno::EIO);
    }
    let again = in_stop(task, |_, stop| {
        if stop.code >> 8 != p::PTRACE_EVENT_STOP {
            return Err(Errno::EIO);
        }
        stop.listening = true;
        stop.told = true;
        Ok(())
    })?;
    again?;
    // A change since the stop began is news at once.
    let _s = task.process.signals.lock_irq();
    let mut slot = task.trace.lock();
    let Some(t) = slot.as_deref_mut() else { return Ok(()) };
    if t.link.as_ref().is_some_and(|l| l.group_changed)
        && let Some(stop) = t.stopped()
    {
        stop.over = true;
        drop(slot);
        if let Some(thread) = task.thread() {
            sched::unpark(&thread);
        }
    }
    Ok(())
}

/// `struct __ptrace_peeksiginfo_args`
const PEEK_ARGS: usize = 16;

/// PTRACE_PEEKSIGINFO: copies what is queued, without taking it; how many.
fn peek_siginfo(task: &Task, args: UserAddr, out: UserAddr) -> Result<u64> {
    let mut raw = [0; PEEK_ARGS];
    UserSlice::new(args, PEEK_ARGS).read_into(&mut raw)?;
    let word = |at: usize| raw.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let offset = u64::from(word(0)) | u64::from(word(4)) << 32;
    let (flags, count) = (word(8), word(12) as i32);
    if flags & !p::PTRACE_PEEKSIGINFO_SHARED != 0 || count < 0 {
        return Err(Errno::EINVAL);
    }
    let mut done = 0u64;
    while done < count as u64 {
        let Some(at) = offset.checked_add(done).and_then(|at| usize::try_from(at).ok()) else { break };
        let info = {
            let s = task.process.signals.lock_irq();
            if flags & p::PTRACE_PEEKSIGINFO_SHARED != 0 { s.shared.nth(at) } else { task.signals.lock().queue.nth(at) }
        };
        let Some(info) = info else { break };
        let to = out.checked_add(done * SIGINFO_SIZE as u64).ok_or(Errno::EFAULT)?;
        match UserPtr::<[u8; SIGINFO_SIZE]>::new(to).write(info.encode()) {
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
            Ok(()) => done += 1,
        }
    }
    Ok(done)
}

/// AUDIT_ARCH_AARCH64
const ARCH: u32 = 0xc000_00b7;

/// PTRACE_GET_SYSCALL_INFO: how much there is to tell; at most `size` bytes of it are written.
fn syscall_info(task: &Task, size: u64, out: UserAddr) -> Result<u64> {
    let message = super::with_link(task, |l| l.message).unwrap_or(0);
    let (regs, code) = in_stop(task, |t, s| (*t.regs, s.info.map_or(0, |i| i.code() as u32)))?;
    let mut raw = [0u8; 88];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(to) = raw.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    };
    put(4, &ARCH.to_le_bytes());
    put(8, &regs.pc.to_le_bytes());
    put(16, &regs.sp.to_le_bytes());
    let syscall_stop = Signal::TRAP.number() | 0x80;
    let seccomp_stop = super::event_code(p::PTRACE_EVENT_SECCOMP, Signal::TRAP.number());
    let entry = code == syscall_stop && message == u64::from(p::PTRACE_EVENTMSG_SYSCALL_ENTRY);
    let (op, len) = if entry || code == seccomp_stop {
        put(24, &(regs.syscallno as u64).to_le_bytes());
        put(32, &regs.orig_x0.to_le_bytes());
        for i in 1..6 {
            put(32 + i * 8, &regs.x.get(i).copied().unwrap_or(0).to_le_bytes());
        }
        if entry {
            (p::PTRACE_SYSCALL_INFO_ENTRY, 80)
        } else {
            put(80, &(message as u32).to_le_bytes());
            (p::PTRACE_SYSCALL_INFO_SECCOMP, 84)
        }
    } else if code == syscall_stop && message == u64::from(p::PTRACE_EVENTMSG_SYSCALL_EXIT) {
        let failed = regs.x[0] > -4096i64 as u64;
        put(24, &regs.x[0].to_le_bytes());
        put(32, &[u8::from(failed)]);
        (p::PTRACE_SYSCALL_INFO_EXIT, 33)
    } else {
        (p::PTRACE_SYSCALL_INFO_NONE, 24)
    };
    put(0, &[op as u8]);
    let n = size.min(len as u64) as usize;
    UserSlice::new(out, n).write_from(raw.get(..n).unwrap_or(&[]))?;
    Ok(len as u64)
}
