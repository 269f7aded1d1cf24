//! The end of threads and processes (`_exit(2)`, `exit_group(2)`), and the news of it.
//!
//! A thread gives back what it holds, leaves its process, and its stack is freed by the scheduler
//! after the last switch. Its children go to another thread of its process. The last thread turns
//! the process into a zombie: children go to the nearest subreaper or to init, the parent is told,
//! and unless it does not care the status waits for it. The order is what the parent may see:
//! memory and files are gone before the zombie shows.

use crate::{
    futex, ptrace, session,
    signal::{Cause, SIG_IGN, SigInfo, SigSet, Signal, may_signal},
    task::{FAMILY, JobEvent, Life, Process, Task},
};
use abi::{UserAddr, raw::general as g};
use arch::user::UserPtr;
use kalloc::KArc;
use sync::atomic::Ordering;

/// Status of a process that called `exit(code)`, in the encoding of `wait(2)`.
pub const fn exited(code: u32) -> u32 {
    (code & 0xff) << 8
}

/// Tells every thread of the process to end, with this status unless there is one already; it is
/// returned.
pub fn begin_exit_group(task: &Task, status: u32) -> u32 {
    let mut s = task.process.signals.lock_irq();
    s.begin_group_exit(status);
    s.group_exit.unwrap_or(status)
}

/// Ends every thread of the current process with this status, this one first.
pub fn exit_group(task: &Task, status: u32) -> ! {
    let status = begin_exit_group(task, status);
    exit_thread(task, status)
}

/// Ends the current thread.
///
/// Neither this nor [`exit_group`] returns, so no caller on the stack may own anything: they get
/// the task by reference, from the thread that the scheduler keeps.
pub fn exit_thread(task: &Task, status: u32) -> ! {
    ptrace::link::release_all(task);
    release_memory(task);
    drop(task.set_files(None));
    drop(task.set_fs(None));
    let process = task.process.clone();
    let last = leave(task, &process, status);
    // Again: a child may have asked to be traced meanwhile. From now on none can.
    ptrace::link::release_all(task);
    ptrace::waiting::thread_ended(task, status);
    if last {
        end_process(task, &process, status);
    } else {
        hand_children_on(task, &process);
        process.members_gone.wake_all();
    }
    drop(process);
    sched::exit_current()
}

/// Gives up the address space: robust futexes, the word that joiners wait on, the vfork parent.
pub(crate) fn release_memory(task: &Task) {
    let Some(memory) = task.memory() else { return };
    futex::exit_robust_list(task);
    futex::exit_locks(task);
    let tid = UserAddr(task.clear_child_tid.swap(0, Ordering::Relaxed));
    if !tid.is_null() && KArc::strong_count(&memory) > 2 {
        // Nobody is left to see it otherwise. A bad address harms nobody but its owner.
        if UserPtr::<u32>::new(tid).write(0).is_ok() {
            let _ = futex::wake(task, tid, 1, u32::MAX, true);
        }
    }
    {
        let mut t = process_times(task);
        let rss = crate::exec::peak_rss_kib(&memory.space);
        t.max_rss_kib = t.max_rss_kib.max(rss);
    }
    drop(sched::set_user_space(None));
    drop(task.set_mm(None));
    // The last user unmaps everything here.
    drop(memory);
    task.release_vfork_parent();
}

fn process_times(task: &Task) -> impl core::ops::DerefMut<Target = crate::task::Times> + '_ {
    task.process.times.lock()
}

/// Takes the thread out of its process. Returns whether it was the last.
fn leave(task: &Task, process: &Process, status: u32) -> bool {
    let mut s = process.signals.lock_irq();
    if let Some(thread) = task.thread() {
        *task.last_name.lock() = thread.name();
        let mut t = process.times.lock();
        let (utime, stime) = thread.cpu_times();
        t.utime = t.utime.saturating_add(utime);
        t.stime = t.stime.saturating_add(stime);
        t.nvcsw += thread.nvcsw();
        t.nivcsw += thread.nivcsw();
        t.min_flt += task.min_flt.load(Ordering::Relaxed);
        for (sum, n) in t.io.iter_mut().zip(task.figures.io()) {
            *sum += n;
        }
    }
    task.exit_status.store(status, Ordering::Relaxed);
    task.exiting.store(true, Ordering::Release);
    // From here on nobody begins to trace it, and whoever ends it forgets the thread.
    let is_traced = ptrace::is_traced(task);
    s.members.retain(|t| !core::ptr::eq(&**t, task));
    let last = s.members.is_empty();
    if last && s.group_exit.is_none() {
        // The status of a process that nobody ended as a whole is its last thread's (Linux since
        // 6.0).
        s.group_exit = Some(status);
    }
    // Signals that only this thread could take may now be another's.
    if !last && !s.shared.pending().is_empty() {
        for t in s.members.iter() {
            crate::signal::wake_for_signals(t);
        }
    }
    // A stop that waited for this thread alone is complete now.
    let stopped = crate::signal::complete_stop(&mut s);
    drop(s);
    // The leader's number is the process's, and stays until the process is reaped; a tracer waits
    // for each thread. Not under the lock on the signals, which comes after that on the numbers.
    if !task.is_leader() && !is_traced {
        forget_thread(task);
    }
    if let Some(event) = stopped
        && !last
    {
        let _family = FAMILY.lock();
        notify_parent_of_job_event(&task.process, event);
    }
    last
}

/// The last thread is gone: zombie, or nothing at all when nobody will ask.
fn end_process(task: &Task, process: &KArc<Process>, status: u32) {
    if process.is_init() {
        log::error!("init ended with status {:#x}", status);
        panic_init_gone(status);
    }
    let status = process.signals.lock_irq().group_exit.unwrap_or(status);
    if let Some(timer) = process.real_timer.get() {
        timer.cancel();
    }
    process.posix_timers.clear();
    session::leave_on_exit(process);
    drop(process.exe.lock().take());

    let leader = {
        let _family = FAMILY.lock();
        process.links.lock().life = Life::Zombie(status);
        give_children_away(task, process);
        let parent = process.parent();
        if let Some(parent) = &parent {
            session::hang_up_if_orphaned(process, parent, Some(process));
        }
        process.pid.ended.wake_all();
        // A tracer is told first, and must have asked before the parent hears of it.
        let leader = process.leader.lock().clone();
        let tracer = leader.as_deref().and_then(ptrace::tracer_process);
        let is_traced = tracer.is_some();
        let other = tracer.filter(|t| !parent.as_ref().is_some_and(|p| KArc::ptr_eq(p, t)));
        if let (Some(tracer), Some(leader)) = (&other, &leader) {
            ptrace::waiting::ended(tracer, leader, status);
        }
        let freed = parent.filter(|_| other.is_none()).and_then(|parent| {
            let forgotten = tell_parent(&parent, process, status) && !is_traced;
            let leader = if forgotten { reap(&parent, process) } else { None };
            parent.child_events.wake_all();
            leader
        });
        (leader, freed)
    };
    drop(leader);
}

/// Tells the parent that a child has ended. True when nobody will ask for the status (`wait(2)`,
/// NOTES). Family lock held.
fn tell_parent(parent: &KArc<Process>, child: &Process, status: u32) -> bool {
    let mut number = child.exit_signal.load(Ordering::Relaxed);
    // A signal of one's choice does not reach over the parent's exec: it might run with more
    // rights now.
    if child.parent_exec_id.load(Ordering::Relaxed) != parent.exec_id.load(Ordering::Relaxed) {
        number = g::SIGCHLD;
    }
    let Some(signal) = Signal::new(number) else { return false };
    let action = parent.action(signal);
    let ignored = signal == Signal::CHLD && action.handler == SIG_IGN;
    // With SA_NOCLDWAIT the signal still comes, with SIG_IGN it does not (Linux).
    if !ignored {
        crate::signal::send_with_family(parent, child_info(child, signal, exit_code(status), exit_value(status)));
    }
    ignored || signal == Signal::CHLD && action.has(g::SA_NOCLDWAIT)
}

/// A zombie leaves the family; the caller drops its leader when it holds no lock any more. Family
/// lock held.
#[must_use]
pub(crate) fn reap(parent: &Process, child: &KArc<Process>) -> Option<KArc<Task>> {
    child.links.lock().life = Life::Reaped;
    // Nobody finds it any more, also while its last thread still leaves its stack.
    child.pid.set_task(None);
    child.pid.ended.wake_all();
    let (group, session) = {
        let mut links = child.links.lock();
        (links.pgrp.take(), links.session.take())
    };
    drop(group.and_then(|group| group.leave(child.id())));
    drop(session);
    drop(parent.children.lock().remove(&child.id()));
    let leader = child.leader.lock().take();
    if let Some(leader) = &leader {
        leader.count_for(None);
    }
    leader
}

/// The tracer has let go of a zombie: its parent learns of it now. Family lock held.
pub(crate) fn tell_real_parent(process: &KArc<Process>, status: u32) {
    let Some(parent) = process.parent() else { return };
    if tell_parent(&parent, process, status)
        && let Some(leader) = reap(&parent, process)
    {
        // Not here, where the family waits.
        KArc::drop_after_grace_period(leader);
    }
    parent.child_events.wake_all();
}

/// A thread that has ended and that no tracer waits for any more: its number is free.
pub(crate) fn forget_thread(task: &Task) {
    if let Some(pid) = task.pid_object() {
        pid.set_task(None);
    }
    task.count_for(None);
}

/// The thread of `parent` that made `process`, or has taken it over. Family lock held.
pub(crate) fn parent_thread(process: &Process, parent: &Process) -> Option<KArc<Task>> {
    let id = process.parent_thread.load(Ordering::Relaxed);
    let thread = parent.signals.lock_irq().members.iter().find(|t| t.id() == id).cloned();
    thread.or_else(|| parent.any_task())
}

fn panic_init_gone(status: u32) -> ! {
    // A system without PID 1 cannot go on: the message that Linux gives, and the same stop.
    arch::panic::stop(format_args!("Attempted to kill init! exitcode=0x{status:08x}"))
}

/// The children that the ending thread made, or inherited, are another thread's now. They notice
/// as if their parent had ended: that is what PR_SET_PDEATHSIG promises.
fn hand_children_on(task: &Task, process: &Process) {
    if process.children.lock().is_empty() {
        return;
    }
    let _family = FAMILY.lock();
    let Some(heir) = process.any_task().map(|t| t.id()) else { return };
    if heir == task.id() {
        // A thread in exec has taken over the id, and the children with it.
        return;
    }
    for child in process.children.lock().values() {
        if child.parent_thread.load(Ordering::Relaxed) == task.id() {
            child.parent_thread.store(heir, Ordering::Relaxed);
            send_death_signals(task, child);
        }
    }
}

/// Moves the children to the nearest living subreaper among the ancestors, or to init.
fn give_children_away(task: &Task, process: &KArc<Process>) {
    let Some(heir) = heir_of(process) else { return };
    let thread = heir.any_task().map_or(heir.id(), |t| t.id());
    loop {
        let moved = process.children.lock().pop_first_node();
        let Some(node) = moved else { break };
        let child = node.value().clone();
        child.links.lock().parent = Some(KArc::downgrade(&heir));
        child.parent_thread.store(thread, Ordering::Relaxed);
        // The new parent waits for SIGCHLD children only.
        child.exit_signal.store(g::SIGCHLD, Ordering::Relaxed);
        heir.children.lock().insert_node(node);
        send_death_signals(task, &child);
        let life = child.links.lock().life;
        // Of one that is traced the heir hears when the tracer has let go of it.
        let is_traced = child.leader.lock().as_deref().is_some_and(ptrace::is_traced);
        if let Life::Zombie(status) = life
            && !is_traced
        {
            if tell_parent(&heir, &child, status)
                && let Some(leader) = reap(&heir, &child)
            {
                // Not here, where the family waits.
                KArc::drop_after_grace_period(leader);
            }
            heir.child_events.wake_all();
        }
        session::hang_up_if_orphaned(&child, process, None);
    }
}

/// Sends what the threads of `child` asked for with PR_SET_PDEATHSIG, on behalf of the ending
/// `task`: it must be allowed to. Family lock held.
fn send_death_signals(task: &Task, child: &KArc<Process>) {
    let mut wanted = SigSet::EMPTY;
    for t in child.signals.lock_irq().members.iter() {
        if let Some(s) = Signal::new(t.parent_death_signal()) {
            wanted = wanted.with(s);
        }
    }
    while let Some(signal) = wanted.first() {
        wanted = wanted.without(signal);
        let Some(target) = child.any_task() else { return };
        let uid = task.with_cred(|c| c.uid).unwrap_or(0);
        if may_signal(task, Some(signal), &target).unwrap_or(false) {
            let cause = Cause::User { code: g::SI_USER as i32, pid: task.process.id(), uid };
            crate::signal::send_with_family(child, SigInfo { signal, cause });
        }
    }
}

fn heir_of(process: &KArc<Process>) -> Option<KArc<Process>> {
    let mut at = process.parent();
    while let Some(p) = at {
        let alive = !p.is_zombie();
        if alive && (p.is_init() || p.child_subreaper.load(Ordering::Relaxed)) {
            return Some(p);
        }
        at = p.parent();
    }
    crate::init::init_process()
}

/// `si_code` of a child that ended with this status.
pub(crate) fn exit_code(status: u32) -> i32 {
    (match status {
        s if s & 0x7f == 0 => g::CLD_EXITED,
        s if s & CORE_DUMPED != 0 => g::CLD_DUMPED,
        _ => g::CLD_KILLED,
    }) as i32
}

/// The bit of a wait status that says that a core was written.
pub(crate) const CORE_DUMPED: u32 = 0x80;

/// `si_status` of a child that ended with this status.
pub(crate) fn exit_value(status: u32) -> i32 {
    (if status & 0x7f == 0 { status >> 8 & 0xff } else { status & 0x7f }) as i32
}

pub(crate) fn child_info(child: &Process, signal: Signal, code: i32, status: i32) -> SigInfo {
    let (utime, stime) = child.cpu_times();
    SigInfo { signal, cause: Cause::Child { code, pid: child.id(), uid: child.uid(), status, utime, stime } }
}

/// Tells the parent that a child stopped or went on. The family lock is held.
pub(crate) fn notify_parent_of_job_event(process: &KArc<Process>, event: JobEvent) {
    let Some(parent) = process.parent() else { return };
    let (code, status) = match event {
        JobEvent::Stopped(s) => (g::CLD_STOPPED, s),
        JobEvent::Continued => (g::CLD_CONTINUED, Signal::CONT),
    };
    if !parent.action(Signal::CHLD).has(g::SA_NOCLDSTOP) {
        let _ = crate::signal::send_with_family(&parent, child_info(process, Signal::CHLD, code as i32, status.number() as i32));
    }
    parent.child_events.wake_all();
}
