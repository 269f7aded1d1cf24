//! The system calls about signals: what each checks, in Linux's order.

use super::{Action, Cause, SIGINFO_SIZE, SigInfo, SigSet, Signal, deliver, may_signal, send_to_group, send_to_process, send_to_task};
use crate::task::{AltStack, FAMILY, Task};
use abi::{Errno, Result, UserAddr, raw::general as g};
use arch::{
    UserRegs,
    user::{UserPtr, UserSlice},
};
use kalloc::KArc;
use sched::{Outcome, Sleep};
use sync::atomic::Ordering;

pub use super::frame::sigreturn;

fn check_set_size(size: usize) -> Result {
    if size == size_of::<u64>() { Ok(()) } else { Err(Errno::EINVAL) }
}

/// The user's form of an action: four words (handler, flags, restorer, mask).
type RawAction = [u64; 4];

/// `rt_sigaction(2)`.
pub fn rt_sigaction(task: &Task, signal: u32, new: UserPtr<RawAction>, old: UserPtr<RawAction>, set_size: usize) -> Result {
    check_set_size(set_size)?;
    let new = if new.is_null() { None } else { Some(new.read()?) };
    let signal = Signal::new(signal).ok_or(Errno::EINVAL)?;
    if new.is_some() && SigSet::UNBLOCKABLE.contains(signal) {
        return Err(Errno::EINVAL);
    }
    let actions = task.process.actions().ok_or(Errno::ESRCH)?;
    let before = match new {
        None => actions.get(signal),
        Some([handler, flags, restorer, mask]) => {
            let action = Action { handler, flags: flags & KNOWN_FLAGS, restorer, mask: SigSet(mask).minus(SigSet::UNBLOCKABLE) };
            let before = actions.set(signal, action);
            // Setting to ignore discards what is pending, blocked or not (POSIX 3.3.1.3).
            if action.ignores(signal) {
                task.process.signals.lock_irq().flush(SigSet::of(signal));
            }
            before
        }
    };
    if !old.is_null() {
        old.write([before.handler, before.flags, before.restorer, before.mask.0])?;
    }
    Ok(())
}

/// Flags that this kernel keeps; programs find out what is supported by reading them back
/// (`sigaction(2)`, SA_UNSUPPORTED).
const KNOWN_FLAGS: u64 = (g::SA_NOCLDSTOP
    | g::SA_NOCLDWAIT
    | g::SA_SIGINFO
    | g::SA_ONSTACK
    | g::SA_RESTART
    | g::SA_NODEFER
    | g::SA_RESETHAND
    | g::SA_RESTORER) as u64;

/// `rt_sigprocmask(2)`.
pub fn rt_sigprocmask(task: &Task, how: u32, set: UserPtr<u64>, old: UserPtr<u64>, set_size: usize) -> Result {
    check_set_size(set_size)?;
    let before = task.signals.lock_irq().blocked;
    if !set.is_null() {
        let set = SigSet(set.read()?);
        let new = match how {
            g::SIG_BLOCK => before.union(set),
            g::SIG_UNBLOCK => before.minus(set),
            g::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        deliver::set_blocked(task, new);
    }
    if !old.is_null() {
        old.write(before.0)?;
    }
    Ok(())
}

/// `rt_sigpending(2)`.
pub fn rt_sigpending(task: &Task, set: UserPtr<u64>, set_size: usize) -> Result {
    if set_size > size_of::<u64>() {
        return Err(Errno::EINVAL);
    }
    let pending = {
        let s = task.process.signals.lock_irq();
        let sig = task.signals.lock();
        sig.queue.pending().union(s.shared.pending()).and(sig.blocked)
    };
    let bytes = pending.0.to_le_bytes();
    UserSlice::new(set.addr(), set_size).write_from(bytes.get(..set_size).unwrap_or(&bytes))
}

/// Replaces the mask for the duration of a call that waits; it returns when the thread returns to
/// user space, after handlers ran with the temporary one.
pub fn set_temporary_mask(task: &Task, set: UserPtr<u64>, set_size: usize) -> Result {
    if set.is_null() {
        return Ok(());
    }
    check_set_size(set_size)?;
    let mask = SigSet(set.read()?);
    let old = deliver::set_blocked(task, mask);
    task.signals.lock_irq().saved = Some(old);
    Ok(())
}

/// Ends the temporary mask of a call that was not interrupted.
pub fn drop_temporary_mask(task: &Task) {
    let saved = task.signals.lock_irq().saved.take();
    if let Some(mask) = saved {
        deliver::set_blocked(task, mask);
    }
}

/// `rt_sigsuspend(2)`.
pub fn rt_sigsuspend(task: &Task, set: UserPtr<u64>, set_size: usize) -> Result {
    check_set_size(set_size)?;
    let mask = SigSet(set.read()?);
    let old = deliver::set_blocked(task, mask);
    task.signals.lock_irq().saved = Some(old);
    let never = sched::WaitQueue::new();
    let _: Outcome<()> = never.wait_until(Sleep::Interruptible, None, || None);
    // The exit path finds the signal and puts the mask back after building its frame.
    mark_pending(task);
    Err(Errno::ERESTARTNOHAND)
}

/// Makes the exit path run even when the signal that ended the wait went to another thread.
fn mark_pending(task: &Task) {
    if let Some(t) = task.thread() {
        t.head().set_flag(arch::thread::SIGNAL_PENDING);
    }
}

/// Takes a signal of the set that waits for the task or its process.
pub(super) fn take(task: &Task, set: SigSet) -> Option<SigInfo> {
    task.process.signals.lock_irq().take(task, SigSet(!set.0))
}

/// `rt_sigtimedwait(2)`.
pub fn rt_sigtimedwait(task: &Task, set: UserPtr<u64>, info: UserPtr<[u8; SIGINFO_SIZE]>, timeout: UserPtr<g::__kernel_timespec>, set_size: usize) -> Result<u32> {
    check_set_size(set_size)?;
    let want = SigSet(set.read()?).minus(SigSet::UNBLOCKABLE);
    let deadline = if timeout.is_null() {
        None
    } else {
        let t = abi::Nanos::from_timespec(&timeout.read()?).ok_or(Errno::EINVAL)?;
        Some(time::monotonic().saturating_add(t))
    };
    let take = || take(task, want);
    let found = match take() {
        Some(found) => found,
        None => {
            // While waiting, the signals are deliverable, so that their sender wakes this thread.
            let blocked = {
                let mut sig = task.signals.lock_irq();
                sig.awaited = SigSet(sig.blocked.0 & want.0);
                sig.blocked
            };
            deliver::set_blocked(task, blocked.minus(want));
            let never = sched::WaitQueue::new();
            let outcome: Outcome<SigInfo> = never.wait_until(Sleep::Interruptible, deadline, take);
            deliver::set_blocked(task, blocked);
            task.signals.lock_irq().awaited = SigSet::EMPTY;
            match outcome {
                Outcome::Ready(found) => found,
                // What came at the last moment is taken, too.
                Outcome::TimedOut => take().ok_or(Errno::EAGAIN)?,
                Outcome::Interrupted => take().ok_or(Errno::EINTR)?,
            }
        }
    };
    if !info.is_null() {
        info.write(found.encode())?;
    }
    Ok(found.signal.number())
}

/// `sigaltstack(2)`.
pub fn sigaltstack(task: &Task, regs: &UserRegs, new: UserPtr<[u64; 3]>, old: UserPtr<[u64; 3]>) -> Result {
    let before = *task.alt_stack.lock();
    if !new.is_null() {
        let [base, flags, size] = new.read()?;
        set_alt_stack(task, AltStack { base, flags: flags as u32, size }, regs.sp)?;
    }
    if !old.is_null() {
        let state = if super::frame::on_alt_stack(&before, regs.sp) { g::SS_ONSTACK } else if before.size == 0 { g::SS_DISABLE } else { 0 };
        old.write([before.base, u64::from(state | before.flags & SS_AUTODISARM), before.size])?;
    }
    Ok(())
}

use super::frame::SS_AUTODISARM;

pub(super) fn set_alt_stack(task: &Task, new: AltStack, sp: u64) -> Result {
    let mut alt = task.alt_stack.lock();
    if super::frame::on_alt_stack(&alt, sp) {
        return Err(Errno::EPERM);
    }
    match new.flags & !SS_AUTODISARM {
        g::SS_DISABLE => *alt = AltStack::DISABLED,
        0 | g::SS_ONSTACK => {
            if new.size < u64::from(g::MINSIGSTKSZ) {
                return Err(Errno::ENOMEM);
            }
            *alt = AltStack { flags: new.flags & SS_AUTODISARM, ..new };
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

fn from_user(task: &Task, signal: Signal, code: i32) -> Result<SigInfo> {
    let uid = task.with_cred(|c| c.uid)?;
    Ok(SigInfo { signal, cause: Cause::User { code, pid: task.process.id(), uid } })
}

/// Signal number of a call: 0 probes permission only.
fn probe(signal: u32) -> Result<Option<Signal>> {
    if signal == 0 { Ok(None) } else { Signal::new(signal).map(Some).ok_or(Errno::EINVAL) }
}

/// `kill(2)`.
pub fn kill(task: &Task, pid: i32, signal: u32) -> Result {
    let signal = probe(signal)?;
    let ns = task.ns()?.pid.clone();
    let info = match signal {
        Some(s) => Some(from_user(task, s, g::SI_USER as i32)?),
        None => None,
    };
    if pid > 0 {
        let target = ns.find(pid as u32).ok_or(Errno::ESRCH)?;
        if !may_signal(task, signal, &target)? {
            return Err(Errno::EPERM);
        }
        return match info {
            Some(info) => send_to_process(&target.process, info),
            None => Ok(()),
        };
    }
    if pid == -1 {
        return kill_all(task, &ns, signal, info);
    }
    let pgrp = if pid == 0 { task.process.pgrp_id() } else { pid.checked_neg().ok_or(Errno::ESRCH)? as u32 };
    kill_group(task, &ns, pgrp, signal, info)
}

fn kill_group(task: &Task, ns: &crate::pid::PidNamespace, pgrp: u32, signal: Option<Signal>, info: Option<SigInfo>) -> Result {
    let allowed = |t: &Task| may_signal(task, signal, t).unwrap_or(false);
    let (members, sent) = match info {
        Some(info) => send_to_group(ns, pgrp, info, allowed),
        None => count_group(ns, pgrp, allowed),
    };
    match (members, sent) {
        (0, _) => Err(Errno::ESRCH),
        (_, 0) => Err(Errno::EPERM),
        _ => Ok(()),
    }
}

fn count_group(ns: &crate::pid::PidNamespace, pgrp: u32, allowed: impl Fn(&Task) -> bool) -> (usize, usize) {
    let Some(group) = ns.pid(pgrp) else { return (0, 0) };
    let (mut members, mut may) = (0, 0);
    for process in group.members() {
        members += 1;
        let leader = process.leader.lock().clone();
        may += usize::from(leader.is_some_and(|l| allowed(&l)));
    }
    (members, may)
}

/// Every process that may be signalled, but init and the caller itself.
fn kill_all(task: &Task, ns: &crate::pid::PidNamespace, signal: Option<Signal>, info: Option<SigInfo>) -> Result {
    let (mut others, mut sent, mut next) = (0, 0, 2);
    let _family = FAMILY.lock();
    while let Some((n, t)) = ns.next_from(next) {
        next = n.saturating_add(1);
        if !t.is_leader() || KArc::ptr_eq(&t.process, &task.process) || t.process.is_zombie() {
            continue;
        }
        others += 1;
        if may_signal(task, signal, &t)? {
            sent += 1;
            if let Some(info) = info {
                super::send::note_as_one_of_many(&t.process, info.signal);
                super::send_with_family(&t.process, info);
            }
        }
    }
    match (others, sent) {
        (0, _) => Err(Errno::ESRCH),
        (_, 0) => Err(Errno::EPERM),
        _ => Ok(()),
    }
}

/// `tkill(2)` (`tgid` is `None`) and `tgkill(2)`.
pub fn tgkill(task: &Task, tgid: Option<i32>, tid: i32, signal: u32) -> Result {
    if tid <= 0 || tgid.is_some_and(|t| t <= 0) {
        return Err(Errno::EINVAL);
    }
    let target = task.ns()?.pid.find(tid as u32).ok_or(Errno::ESRCH)?;
    if tgid.is_some_and(|t| t as u32 != target.process.id()) {
        return Err(Errno::ESRCH);
    }
    let signal = probe(signal)?;
    if !may_signal(task, signal, &target)? {
        return Err(Errno::EPERM);
    }
    if let Some(s) = signal
        && !target.exiting.load(Ordering::Acquire)
    {
        send_to_task(&target, from_user(task, s, g::SI_TKILL)?);
    }
    Ok(())
}

/// `rt_sigqueueinfo(2)` and `rt_tgsigqueueinfo(2)`: `tid` of `None` means the process.
pub fn rt_sigqueueinfo(task: &Task, tgid: i32, tid: Option<i32>, signal: u32, info: UserAddr) -> Result {
    let raw: [u8; SIGINFO_SIZE] = UserPtr::new(info).read()?;
    let word = |at: usize| raw.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_le_bytes);
    let code = word(8);
    let id = tid.unwrap_or(tgid);
    if id <= 0 || tgid <= 0 {
        return Err(Errno::EINVAL);
    }
    // Only one's own process may be told that the kernel or kill() was the sender.
    if (code >= 0 || code == g::SI_TKILL) && task.process.id() != tgid as u32 {
        return Err(Errno::EPERM);
    }
    let target = task.ns()?.pid.find(id as u32).ok_or(Errno::ESRCH)?;
    let signal = probe(signal)?;
    if !may_signal(task, signal, &target)? {
        return Err(Errno::EPERM);
    }
    let Some(signal) = signal else { return Ok(()) };
    let mut fields = [0; SIGINFO_SIZE - 16];
    fields.copy_from_slice(raw.get(16..).ok_or(Errno::EFAULT)?);
    let info = SigInfo { signal, cause: Cause::Queued { code, fields } };
    match tid {
        Some(_) => {
            send_to_task(&target, info);
            Ok(())
        }
        None => send_to_process(&target.process, info),
    }
}
