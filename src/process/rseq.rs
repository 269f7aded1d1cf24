//! Restartable sequences (`rseq(2)`): a thread learns its CPU from its own memory, and a sequence of
//! instructions that was interrupted on the way starts again.
//!
//! A registered thread gets NOTIFY_RESUME when it was preempted, when it runs on another CPU than its
//! memory says, and from `membarrier(2)`. A thread that sleeps is in a system call, which has no place
//! in a sequence, so sleeping and waking on one CPU costs nothing here. Before the return to user space
//! the area is brought up to date, and a program counter inside a sequence goes to its abort address;
//! the same happens before a signal handler's frame is built.
//!
//! Layouts: `struct rseq` (32 bytes: cpu_id_start, cpu_id, rseq_cs, flags) and `struct rseq_cs`
//! (version, flags, start_ip, post_commit_offset, abort_ip).

use crate::{
    signal::{SigInfo, Signal, deliver},
    task::Task,
};
use abi::{Errno, Result, UserAddr};
use arch::{UserRegs, thread::NOTIFY_RESUME, user::UserPtr};

/// RSEQ_FLAG_UNREGISTER.
const UNREGISTER: u32 = 1;
/// Size and alignment of `struct rseq`.
const SIZE: u32 = 32;
/// The CPU that an area names while it is not registered (RSEQ_CPU_ID_UNINITIALIZED).
const NO_CPU: u32 = u32::MAX;

/// What a thread has registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Area {
    at: u64,
    signature: u32,
}

fn cpu_fields(at: u64) -> UserPtr<[u32; 2]> {
    UserPtr::new(UserAddr(at))
}

/// `rseq(2)`.
pub fn rseq(task: &Task, at: UserAddr, size: u32, flags: u32, signature: u32) -> Result {
    let mut area = task.rseq.lock();
    let registered = *area;
    let same = registered.at == at.0 && registered.at != 0;
    if flags & UNREGISTER != 0 {
        if flags != UNREGISTER || !same || size != SIZE {
            return Err(Errno::EINVAL);
        }
        if registered.signature != signature {
            return Err(Errno::EPERM);
        }
        drop(area);
        cpu_fields(at.0).write([0, NO_CPU])?;
        *task.rseq.lock() = Area::default();
        sched::current().set_rseq_cpu(None);
        return Ok(());
    }
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    if registered.at != 0 {
        return Err(match () {
            () if !same || size != SIZE => Errno::EINVAL,
            () if registered.signature != signature => Errno::EPERM,
            () => Errno::EBUSY,
        });
    }
    if !at.is_aligned(SIZE.into()) || size != SIZE {
        return Err(Errno::EINVAL);
    }
    if !at.range_ok(SIZE.into()) {
        return Err(Errno::EFAULT);
    }
    *area = Area { at: at.0, signature };
    drop(area);
    begin(&sched::current());
    Ok(())
}

/// The thread's memory is written at its next return to user space.
fn begin(thread: &sched::Thread) {
    thread.set_rseq_cpu(Some(NO_CPU - 1));
    thread.head().set_flag(NOTIFY_RESUME);
}

/// A new process has its parent's area, in its own memory; a thread has none.
pub(crate) fn inherit(child: &Task, parent: &Task, thread: &sched::Thread) {
    let area = *parent.rseq.lock();
    if area.at != 0 {
        *child.rseq.lock() = area;
        begin(thread);
    }
}

/// The program is another: exec, or the end.
pub(crate) fn forget(task: &Task) {
    *task.rseq.lock() = Area::default();
    sched::current().set_rseq_cpu(None);
}

/// Before the return to user space, with NOTIFY_RESUME found set. May sleep.
pub(crate) fn resume(task: &Task, regs: &mut UserRegs) {
    let thread = sched::current();
    thread.head().clear_flag(NOTIFY_RESUME);
    let area = *task.rseq.lock();
    if area.at == 0 {
        return;
    }
    if leave_sequence(&area, regs).and_then(|()| tell_cpu(&area, &thread)).is_err() {
        deliver::force(task, SigInfo::kernel(Signal::SEGV), false);
    }
}

/// A handler is about to run: what it interrupted is no sequence any more. EFAULT, EINVAL.
pub(crate) fn before_handler(task: &Task, regs: &mut UserRegs) -> Result {
    let area = *task.rseq.lock();
    if area.at == 0 { Ok(()) } else { leave_sequence(&area, regs) }
}

fn tell_cpu(area: &Area, thread: &sched::Thread) -> Result {
    let cpu = arch::cpu::id().0;
    // First: should the thread move while it writes, the switch compares with this.
    thread.set_rseq_cpu(Some(cpu));
    cpu_fields(area.at).write([cpu, cpu])
}

/// If the program counter is inside the sequence that the area names, moves it to its abort address.
/// The area then names none.
fn leave_sequence(area: &Area, regs: &mut UserRegs) -> Result {
    let field = UserPtr::<u64>::new(UserAddr(area.at.wrapping_add(8)));
    let at = UserAddr(field.read()?);
    if at.0 == 0 {
        return Ok(());
    }
    let [versions, start, length, abort] = UserPtr::<[u64; 4]>::new(at).read()?;
    let in_user = |a: u64| UserAddr(a).range_ok(1);
    let end = start.checked_add(length).ok_or(Errno::EINVAL)?;
    let inside = |ip: u64| ip.wrapping_sub(start) < length;
    // The version is the low half.
    if !in_user(start) || !in_user(end) || !in_user(abort) || versions as u32 != 0 || inside(abort) {
        return Err(Errno::EINVAL);
    }
    // Nobody jumps anywhere by this that was not meant for it.
    let signature = UserPtr::<u32>::new(UserAddr(abort.wrapping_sub(4))).read()?;
    if signature != area.signature {
        return Err(Errno::EINVAL);
    }
    field.write(0)?;
    if inside(regs.pc) {
        regs.pc = abort;
    }
    Ok(())
}

/// Interrupts the sequence in which the current thread of this CPU may be (`membarrier(2)`).
pub(crate) fn interrupt_current() {
    let thread = sched::current();
    if thread.has_rseq() {
        thread.head().set_flag(NOTIFY_RESUME);
    }
}
