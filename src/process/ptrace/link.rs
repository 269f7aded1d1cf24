//! How a tracer gets and loses a tracee: attaching, asking to be traced, birth under a tracer,
//! detaching, and the end of either.

use super::{Link, OPTIONS, Tracee, access, is_traced};
use crate::{
    exit,
    signal::{SigInfo, Signal},
    task::{FAMILY, Life, Process, Task},
};
use abi::{Errno, Result, raw::ptrace as p};
use arch::thread::{SIGNAL_PENDING, SINGLE_STEP, SYSCALL_EMU, SYSCALL_TRACE};
use collections::OrdNode;
use kalloc::{KArc, KBox, KVec};
use sched::{Outcome, Sleep};
use sync::atomic::Ordering;
use vfs::{Cap, Credentials};

/// Memory for a link, taken before the locks.
struct Room {
    record: KBox<Tracee>,
    node: OrdNode<u32, KArc<Task>>,
}

/// What of a [`Room`] a link did not need; dropped without locks.
type Unused = (Option<KBox<Tracee>>, Option<OrdNode<u32, KArc<Task>>>);

impl Room {
    fn new(task: &KArc<Task>) -> Result<Self> {
        Ok(Self { record: KBox::try_new(Tracee::new())?, node: OrdNode::try_new(task.id(), task.clone())? })
    }

    /// Family lock and the lock on the signals of the task's process held. Gives back what it did
    /// not need.
    fn link(self, task: &Task, tracer: &Process, link: Link) -> Unused {
        let mut slot = task.trace.lock();
        let spare = if slot.is_some() {
            Some(self.record)
        } else {
            *slot = Some(self.record);
            None
        };
        if let Some(t) = slot.as_deref_mut() {
            t.link = Some(link);
        }
        drop(slot);
        task.traced.store(true, Ordering::Release);
        (spare, tracer.tracees.lock().insert_node(self.node))
    }
}

fn new_link(tracer: &KArc<Task>, capable: bool, seized: bool, options: u32) -> Link {
    Link {
        tracer: KArc::downgrade(tracer),
        process: KArc::downgrade(&tracer.process),
        capable,
        seized,
        options,
        message: 0,
        trap: false,
        group_changed: false,
    }
}

/// Options as PTRACE_SETOPTIONS and PTRACE_SEIZE take them. EINVAL.
pub(super) fn check_options(options: u64) -> Result<u32> {
    // Filters cannot be suspended: as on a Linux without checkpoints.
    let known = OPTIONS & !p::PTRACE_O_SUSPEND_SECCOMP;
    if options & !u64::from(known) == 0 { Ok(options as u32) } else { Err(Errno::EINVAL) }
}

/// PTRACE_ATTACH, and with `seize` PTRACE_SEIZE.
pub(super) fn attach(me: &Task, task: &KArc<Task>, seize: Option<u32>) -> Result {
    if KArc::ptr_eq(&task.process, &me.process) || task.thread().is_some_and(|t| t.is_kernel() && task.process.thread_count() == 0) {
        return Err(Errno::EPERM);
    }
    let tracer = me.arc().ok_or(Errno::ESRCH)?;
    let room = Room::new(task)?;
    // Not while an exec gives it other rights than those that are looked at here.
    let guard = task.process.exec_guard.lock_interruptible().map_err(|_| Errno::ERESTARTNOINTR)?;
    access::check(me, task, access::Access::Attach, access::Ids::Real)?;
    let capable = me.with_cred(|c| c.capable(Cap::SYS_PTRACE))?;
    let (was_stopped, _spare) = {
        let _family = FAMILY.lock();
        let s = task.process.signals.lock_irq();
        if task.has_exited() || is_traced(task) {
            return Err(Errno::EPERM);
        }
        let spare = room.link(task, &me.process, new_link(&tracer, capable, seize.is_some(), seize.unwrap_or(0)));
        let stopped = s.stop.is_some();
        if stopped {
            // It leaves the stop of its process for one of ours.
            task.signals.lock().stopped_for = 0;
            if let Some(thread) = task.thread() {
                thread.head().set_flag(SIGNAL_PENDING);
                sched::unpark(&thread);
            }
        }
        (stopped, spare)
    };
    drop(guard);
    if seize.is_none() {
        crate::signal::send_to_task(task, SigInfo::kernel(Signal::STOP));
    }
    if was_stopped {
        // What was stopped before is so afterwards: nobody sees it run in between.
        let _: Outcome<()> = me.process.child_events.wait_until(Sleep::Killable, None, || {
            let stopped = task.trace.lock_irq().as_deref_mut().is_none_or(|t| t.stop.is_some());
            (stopped || task.has_exited()).then_some(())
        });
    }
    Ok(())
}

/// PTRACE_TRACEME. EPERM when it is traced already, or its parent may not trace what can do more
/// than itself.
pub(super) fn trace_me(me: &Task) -> Result {
    let task = me.arc().ok_or(Errno::ESRCH)?;
    let room = Room::new(&task)?;
    let (capable, mine) = me.with_cred(|c| (c.capable(Cap::SYS_PTRACE), c.caps.permitted))?;
    let _spare = {
        let _family = FAMILY.lock();
        let Some(parent) = me.process.parent() else { return Err(Errno::EPERM) };
        let Some(tracer) = exit::parent_thread(&me.process, &parent) else { return Ok(()) };
        let covers = |c: &Credentials| mine & !c.caps.permitted == 0 || c.capable(Cap::SYS_PTRACE);
        let allowed = scope_lets(&tracer) && tracer.with_cred(covers).unwrap_or(false);
        let s = me.process.signals.lock_irq();
        if is_traced(me) || !allowed {
            return Err(Errno::EPERM);
        }
        // The child's own right decides: it is the one that asks to be traced.
        let spare = room.link(me, &parent, new_link(&tracer, capable, false, 0));
        drop(s);
        if tracer.has_exited() {
            // It has let go of its tracees already, or is about to: then there is none left here.
            unlink(me, Some(0));
        }
        spare
    };
    Ok(())
}

/// Yama's word on a parent as the tracer.
fn scope_lets(tracer: &Task) -> bool {
    match access::SCOPE.get() {
        access::SCOPE_CAPABILITY => tracer.with_cred(|c| c.capable(Cap::SYS_PTRACE)).unwrap_or(false),
        access::SCOPE_NOBODY => false,
        _ => true,
    }
}

/// A child that is to be traced by its maker's tracer. Made before the child is seen.
pub(crate) struct Birth {
    room: Room,
}

impl Birth {
    /// `None` when nobody traces the maker, or the tracer does not care.
    pub(crate) fn prepare(maker: &Task, child: &KArc<Task>, wanted: bool) -> Result<Option<Self>> {
        if !wanted || !is_traced(maker) {
            return Ok(None);
        }
        Ok(Some(Self { room: Room::new(child)? }))
    }

    /// The child exists and has not run: it is traced as its maker is, and stops first of all.
    pub(crate) fn commit(self, maker: &Task, child: &KArc<Task>) {
        let _spare = {
            let _family = FAMILY.lock();
            let Some(mut link) = super::with_link(maker, |l| l.clone()) else { return };
            let Some(tracer) = link.process.upgrade() else { return };
            let _s = child.process.signals.lock_irq();
            if is_traced(child) {
                return;
            }
            link.message = 0;
            link.group_changed = false;
            link.trap = link.seized;
            if !link.seized {
                child.signals.lock().queue.push(SigInfo::kernel(Signal::STOP));
            }
            if let Some(thread) = child.thread() {
                thread.head().set_flag(SIGNAL_PENDING);
            }
            self.room.link(child, &tracer, link)
        };
    }
}

/// The relation ends. With `inject` the tracee goes on with this signal; otherwise with the one
/// that it stopped for if nobody has heard of it. Family lock held.
pub(super) fn unlink(task: &Task, inject: Option<u32>) {
    let s = task.process.signals.lock_irq();
    let mut slot = task.trace.lock();
    let Some(t) = slot.as_deref_mut() else { return };
    let Some(link) = t.link.take() else { return };
    task.traced.store(false, Ordering::Release);
    let head = task.thread();
    if let Some(thread) = &head {
        thread.head().clear_flag(SYSCALL_TRACE | SYSCALL_EMU | SINGLE_STEP);
    }
    t.regs.pstate &= !super::request::PSTATE_SS;
    let mut resume = false;
    if let Some(stop) = t.stopped() {
        stop.inject = inject.unwrap_or(if stop.told { 0 } else { stop.code & 0x7f });
        stop.over = true;
        resume = true;
    }
    drop(slot);
    if s.stop.is_some() {
        // It goes on to stop with its process.
        task.signals.lock().stopped_for = 0;
    }
    if let Some(thread) = head {
        thread.head().set_flag(SIGNAL_PENDING);
        if resume {
            sched::unpark(&thread);
        }
    }
    drop(s);
    if let Some(tracer) = link.process.upgrade() {
        drop(tracer.tracees.lock().remove(&task.id()));
    }
}

/// The tracer has heard of the task's end. Family lock held.
pub(super) fn forget(task: &Task) {
    unlink(task, Some(0));
}

/// PTRACE_DETACH.
pub(super) fn detach(task: &KArc<Task>, signal: u32) {
    let _family = FAMILY.lock();
    unlink(task, Some(signal));
    // It may have been killed a moment ago.
    ended_unseen(task);
}

/// A tracer ends: its tracees are free, or die with it (PTRACE_O_EXITKILL).
pub(crate) fn release_all(me: &Task) {
    let count = me.process.tracees.lock().len();
    if count == 0 {
        return;
    }
    let mut gone: KVec<KArc<Task>> = KVec::new();
    let _ = gone.try_reserve(count);
    let mut next = 0;
    let _family = FAMILY.lock();
    loop {
        let found = me.process.tracees.lock().lower_bound(&next).map(|(id, t)| (*id, t.clone()));
        let Some((id, task)) = found else { break };
        next = id.saturating_add(1);
        let link = super::with_link(&task, |l| (l.tracer.upgrade(), l.options));
        let Some((Some(tracer), options)) = link else { continue };
        if !core::ptr::eq(&*tracer, me) {
            continue;
        }
        if options & p::PTRACE_O_EXITKILL != 0 {
            let _ = crate::signal::send_with_family(&task.process, SigInfo::kernel(Signal::KILL));
        }
        unlink(&task, None);
        ended_unseen(&task);
        // Kept until the lock is open: it may be the last reference. Without memory it goes here,
        // which takes longer and no more.
        let _ = gone.push_within_capacity(task);
    }
    drop(_family);
    drop(gone);
}

/// What a tracee that is freed leaves when it has ended already. Family lock held.
fn ended_unseen(task: &KArc<Task>) {
    let life = task.process.links.lock().life;
    match life {
        Life::Zombie(status) if task.is_leader() => exit::tell_real_parent(&task.process, status),
        _ if task.has_exited() && !task.is_leader() => exit::forget_thread(task),
        _ => {}
    }
}

/// A thread that is not the leader took over the process in exec: the tracer knows it by its new
/// id from here on, and the old leader no more. Family lock held, the task's id still the old one.
/// The old leader's place in the list is dropped by the caller.
pub(crate) fn renamed(task: &Task, old_leader: Option<&Task>, new_id: u32) {
    if let Some(old) = old_leader {
        unlink(old, Some(0));
    }
    let Some(tracer) = super::tracer_process(task) else { return };
    let mut list = tracer.tracees.lock();
    if let Some(mut node) = list.remove_node(&task.id()) {
        *node.key_mut() = new_id;
        let other = list.insert_node(node);
        drop(list);
        drop(other);
    }
}

/// The signals of a task that is traced: none is dropped for being ignored, none but SIGKILL acts
/// before the tracer has seen it.
pub(crate) fn sees(task: &Task, signal: Signal) -> bool {
    signal != Signal::KILL && is_traced(task)
}

/// SIGCONT for a thread: whether its trace stop goes on. A seized task announces the change.
/// The lock on the process's signals is held.
pub(crate) fn group_stop_changed(task: &Task) -> bool {
    if !is_traced(task) {
        return false;
    }
    let mut slot = task.trace.lock();
    let Some(t) = slot.as_deref_mut() else { return false };
    let Some(link) = t.link.as_mut() else { return false };
    if link.seized {
        link.group_changed = true;
    }
    let Some(stop) = t.stopped() else { return false };
    if stop.listening {
        stop.over = true;
        return false;
    }
    true
}
