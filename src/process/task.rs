//! Tasks and processes: what a thread of the scheduler is to user space.
//!
//! A [`Process`] is a thread group: one address space, one set of signal actions, one parent. A
//! [`Task`] is one of its threads; it hangs on the scheduler's thread as its payload. Everything a
//! task reaches in the system it reaches from here: mounts, host name and pids through its
//! namespaces, files through its table, rights through its credentials.
//!
//! # Locks, outermost first
//! - [`FAMILY`]: who is whose child, process groups, sessions, and the moves alive → zombie →
//!   reaped. One lock for all processes; held for a few pointer changes, never while allocating.
//! - `Process::signals`: pending signals of the process and of each of its tasks, group stop and
//!   group exit. Interrupts off, because the terminal's interrupt sends signals.
//! - `Pid` internals, `Process::limits`, ... : leaves.
//!
//! What only the task itself replaces (mm, files, fs, namespaces, credentials) is in slots that are
//! read without a lock.

use crate::{
    deadline::Deadline,
    limits::Limits,
    ns::Namespaces,
    pid::Pid,
    session::Session,
    signal::{Action, Actions, SigInfo, SigQueue, SigSet, Signal},
    user::{Counted, User},
};
use abi::{Errno, Nanos, Result, UserAddr};
use arch::UserRegs;
use collections::OrdMap;
use core::any::Any;
use kalloc::{ArcSlot, KArc, KVec, KWeak, RcuArc};
use mm::AddressSpace;
use sched::{Completion, Thread, WaitQueue};
use sync::{
    LockClass, Once, SpinLock,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};
use vfs::{Credentials, FdTable, FsContext};

pub(crate) static FAMILY_CLASS: LockClass = LockClass::new("process.family", 1000);
/// A parent's list is held while its children's places are looked at, never the other way round.
pub(crate) static CHILDREN: LockClass = LockClass::new("process.children", 1001);
/// Changed inside the lock on a tracee's signals.
static TRACEES: LockClass = LockClass::new("process.tracees", 1011);
pub(crate) static LINKS: LockClass = LockClass::new("process.links", 1002);
pub(crate) static SIGNALS: LockClass = LockClass::new("process.signals", 1010);
static TASK_SIGNALS: LockClass = LockClass::new("process.task_signals", 1012);
/// The first of all that exec, attaching and filters for all threads take.
static EXEC_GUARD: LockClass = LockClass::new("process.exec_guard", 100);
static LIMITS: LockClass = LockClass::new("process.limits", 1030);
static TASK_CELL: LockClass = LockClass::new("process.task_cell", 1032);

/// Guards the family tree: see the module's head.
pub(crate) static FAMILY: SpinLock<()> = SpinLock::new((), &FAMILY_CLASS);

/// One thread of a process.
pub struct Task {
    me: KWeak<Task>,
    /// Replaced once at most, when a thread that is not the leader execs.
    pid: RcuArc<Pid>,
    pub(crate) process: KArc<Process>,
    pub(crate) thread: Once<KWeak<Thread>>,
    /// These three are counted slots: what the task gives back goes at once, not after a grace
    /// period, since others notice when memory and files go.
    mm: ArcSlot<Memory>,
    files: ArcSlot<FdTable>,
    fs: ArcSlot<FsContext>,
    ns: RcuArc<Namespaces>,
    cred: RcuArc<Credentials>,
    /// Where to write 0 and wake a futex when the task ends (`set_tid_address(2)`).
    pub(crate) clear_child_tid: AtomicU64,
    /// Head of the robust futex list (`set_robust_list(2)`).
    pub(crate) robust_list: AtomicU64,
    /// The task among the owners of locks with priority inheritance, once it has been one.
    pub(crate) lock_node: Once<KArc<crate::futex::Node>>,
    /// Whoever waits for its locks has inherited them.
    pub(crate) locks_gone: AtomicBool,
    /// What it registered with `rseq(2)`.
    pub(crate) rseq: SpinLock<crate::rseq::Area>,
    /// Filled by a call that returned ERESTART_RESTARTBLOCK, for `restart_syscall(2)`.
    pub(crate) restart: SpinLock<Restart>,
    /// Whom to wake when this task gives up the memory it borrowed (`vfork(2)`).
    pub(crate) vfork_done: SpinLock<Option<KArc<Completion>>>,
    pub(crate) signals: SpinLock<TaskSignals>,
    pub(crate) alt_stack: SpinLock<AltStack>,
    /// The task has left the process: it no longer takes signals.
    pub(crate) exiting: AtomicBool,
    /// See [`crate::personality`].
    pub(crate) personality: AtomicU32,
    /// ESR_EL1 of the last fault, for the ESR record of a signal frame.
    pub(crate) fault_esr: AtomicU64,
    /// Page faults that needed no device (`ru_minflt`); only the task itself adds.
    pub(crate) min_flt: AtomicU64,
    /// With what a thread ended, for its tracer.
    pub(crate) exit_status: AtomicU32,
    /// The thread's name when it was last alive, for zombies.
    pub(crate) last_name: SpinLock<[u8; 16]>,
    /// What the task did, by itself.
    pub figures: Figures,
    /// Whether somebody traces the task. Changed with the lock on the process's signals held.
    pub(crate) traced: AtomicBool,
    pub(crate) trace: crate::ptrace::Slot,
    /// Hardware breakpoints and watchpoints.
    pub(crate) debug: SpinLock<Option<kalloc::KBox<arch::debug::DebugRegs>>>,
    /// Who logged in, and in which login session (`/proc/PID/loginuid`, `sessionid`).
    pub(crate) login: Login,
    /// Signal that the process gets when the thread that made it ends (`PR_SET_PDEATHSIG`); 0 for
    /// none.
    pub(crate) parent_death_signal: AtomicU32,
    /// This thread in its user's count; gone when it is reaped.
    counted: SpinLock<Option<Counted>>,
    /// The real user id changed to one with too many threads: the next exec fails
    /// (`execve(2)`, EAGAIN).
    pub(crate) too_many_threads: AtomicBool,
    /// System calls that the thread may not make, and `no_new_privs`.
    pub(crate) seccomp: crate::seccomp::State,
    /// By how many nanoseconds timeouts may be late (`prctl(2)`, PR_SET_TIMERSLACK), and what it
    /// goes back to.
    timer_slack: AtomicU64,
    default_timer_slack: AtomicU64,
    /// As `ioprio_get(2)` shows it: class and level; 0 for none of its own.
    io_priority: AtomicU32,
}

/// Counts that only the task itself raises, so plain loads and stores suffice.
#[derive(Default)]
pub struct Figures {
    /// Bytes read and written, and how often (`/proc/PID/io`).
    pub rchar: AtomicU64,
    pub wchar: AtomicU64,
    pub syscr: AtomicU64,
    pub syscw: AtomicU64,
}

impl Figures {
    fn raise(of: &AtomicU64, by: u64) {
        of.store(of.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }
    /// One call that read so many bytes.
    pub fn did_read(&self, bytes: usize) {
        Self::raise(&self.rchar, bytes as u64);
        Self::raise(&self.syscr, 1);
    }
    /// One call that wrote so many bytes.
    pub fn did_write(&self, bytes: usize) {
        Self::raise(&self.wchar, bytes as u64);
        Self::raise(&self.syscw, 1);
    }
    /// rchar, wchar, syscr, syscw.
    pub(crate) fn io(&self) -> [u64; 4] {
        [&self.rchar, &self.wchar, &self.syscr, &self.syscw].map(|n| n.load(Ordering::Relaxed))
    }
}

/// "Nobody logged in."
pub(crate) const NO_LOGIN: u32 = u32::MAX;

/// A login, which children inherit.
pub(crate) struct Login {
    pub uid: AtomicU32,
    pub session: AtomicU32,
}

impl Login {
    fn none() -> Self {
        Self { uid: AtomicU32::new(NO_LOGIN), session: AtomicU32::new(NO_LOGIN) }
    }
}

/// 50 microseconds.
const DEFAULT_TIMER_SLACK: u64 = 50_000;

/// The use of an address space by tasks: when the last one lets go, everything in it is unmapped.
/// Others (`/proc`, the scheduler) hold the space itself, which keeps nothing mapped.
pub(crate) struct Memory {
    pub space: KArc<AddressSpace>,
    /// The commands that the program has registered for (`membarrier(2)`).
    pub membarrier: AtomicU32,
}

impl Memory {
    pub(crate) fn new(space: KArc<AddressSpace>) -> Self {
        Self { space, membarrier: AtomicU32::new(0) }
    }
    /// A copy for a child. ENOMEM.
    pub(crate) fn fork_of(other: &Self) -> Result<Self> {
        let membarrier = AtomicU32::new(other.membarrier.load(Ordering::Relaxed));
        Ok(Self { space: other.space.fork()?, membarrier })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.space.release();
    }
}

/// The alternate signal stack (`sigaltstack(2)`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct AltStack {
    pub base: u64,
    pub size: u64,
    pub flags: u32,
}

impl AltStack {
    pub const DISABLED: Self = Self { base: 0, size: 0, flags: abi::raw::general::SS_DISABLE };
}

/// How an interrupted call goes on after a stop or a signal without handler.
#[derive(Clone, Copy, Debug, Default)]
pub enum Restart {
    /// No call is under way: EINTR.
    #[default]
    None,
    /// A sleep until an absolute time on the monotonic clock; where to store what is left.
    Sleep { until: Nanos, remain: UserAddr },
    /// A futex wait with an absolute deadline.
    Futex { addr: UserAddr, value: u32, mask: u32, shared: bool, until: Deadline },
}

/// A thread group.
pub struct Process {
    pub(crate) pid: KArc<Pid>,
    /// The thread whose id is the process's; kept until the process is reaped.
    pub(crate) leader: SpinLock<Option<KArc<Task>>>,
    pub(crate) actions: RcuArc<Actions>,
    pub(crate) signals: SpinLock<ProcessSignals>,
    pub(crate) links: SpinLock<Links>,
    /// Children that were not waited for. Changed with [`FAMILY`] held.
    pub(crate) children: SpinLock<OrdMap<u32, KArc<Process>>>,
    /// Tasks that threads of this process trace. Changed with [`FAMILY`] held.
    pub(crate) tracees: SpinLock<OrdMap<u32, KArc<Task>>>,
    /// Signalled when a child or tracee of this process changes state.
    pub(crate) child_events: WaitQueue,
    /// Signalled when a signal was queued for the process or one of its threads (`signalfd(2)`).
    pub(crate) signal_arrived: WaitQueue,
    /// Signalled when a member of the thread group is gone, for exec.
    pub(crate) members_gone: WaitQueue,
    limits: SpinLock<Limits>,
    pub(crate) times: SpinLock<Times>,
    /// Signal that the parent gets when the process ends; 0 for none.
    pub(crate) exit_signal: AtomicU32,
    pub(crate) start_time: Nanos,
    pub(crate) has_execed: AtomicBool,
    /// Who may look into the process and whether it leaves a core: see [`Dumpable`].
    pub(crate) dumpable: AtomicU32,
    /// Which mappings go into a core.
    pub(crate) coredump_filter: AtomicU32,
    thp_disabled: AtomicBool,
    /// Orphans of the descendants come to this process (`PR_SET_CHILD_SUBREAPER`).
    pub(crate) child_subreaper: AtomicBool,
    /// Id of the parent's thread that made this process, or has inherited it. Changed with
    /// [`FAMILY`] held.
    pub(crate) parent_thread: AtomicU32,
    /// How many programs the process has run, and how many the parent had when it made this one:
    /// another program's parent is told of the end by SIGCHLD only.
    pub(crate) exec_id: AtomicU32,
    pub(crate) parent_exec_id: AtomicU32,
    /// Held while exec works out what the new program may do until it may, and by whoever begins to
    /// trace or to bind the process: what they saw of its rights is what they get.
    pub(crate) exec_guard: sched::Mutex<()>,
    /// Signals that came to it as one of many. Changed with [`FAMILY`] held, so that a fork notices
    /// one that its child missed.
    pub(crate) heard: AtomicU64,
    /// What runs, and its protection against being written to.
    pub(crate) exe: SpinLock<Option<KArc<vfs::Executable>>>,
    pub(crate) real_timer: Once<crate::itimer::RealTimer>,
    pub(crate) cpu_timers: crate::cpu_timers::CpuTimers,
    pub(crate) posix_timers: crate::posix_timers::PosixTimers,
    /// Where the vDSO is mapped.
    pub(crate) vdso: AtomicU64,
    pub(crate) oom_score_adj: sync::atomic::AtomicI32,
    /// Who beside its ancestors may trace it (`prctl(2)`, PR_SET_PTRACER).
    pub(crate) tracer_allowed: AtomicU64,
}

/// Who may look into a process and who gets its core (`prctl(2)`, PR_SET_DUMPABLE).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Dumpable {
    /// Only who may trace everything; no core.
    No = 0,
    /// Its user.
    User = 1,
    /// As `No`, and a core that root alone can read.
    Root = 2,
}

impl Dumpable {
    pub(crate) fn from_raw(n: u32) -> Self {
        match n {
            1 => Self::User,
            2 => Self::Root,
            _ => Self::No,
        }
    }
}

/// Place in the family tree. Changed with [`FAMILY`] and this lock held, so either suffices to read.
pub(crate) struct Links {
    pub parent: Option<KWeak<Process>>,
    /// Set before the process is seen by anyone; `None` only while it is built.
    pub pgrp: Option<KArc<Pid>>,
    pub session: Option<KArc<Session>>,
    pub life: Life,
}

/// How far a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Alive,
    /// Ended, status not yet collected (the encoding of `wait(2)`).
    Zombie(u32),
    Reaped,
}

/// Signal state of a process and, in it, of each of its threads: one lock.
pub(crate) struct ProcessSignals {
    pub shared: SigQueue,
    /// Live threads, the leader first while it lives.
    pub members: KVec<KArc<Task>>,
    /// A stop that is under way or complete.
    pub stop: Option<Stop>,
    /// Number of the last stop.
    pub stops: u64,
    /// State change that `waitid` has not collected: WSTOPPED's or WCONTINUED's.
    pub event: Option<JobEvent>,
    /// An interrupt has ended a stop: the process itself tells its parent.
    pub untold_continue: bool,
    /// Status with which the whole process ends; set once.
    pub group_exit: Option<u32>,
    /// A core that is being written: threads on their way out wait for it.
    pub core: Option<KArc<crate::coredump::Core>>,
    /// The task that is in exec and waits for the others to end.
    pub exec_by: Option<u32>,
}

/// Signal state of one thread. Changed with the process's lock and this one held.
pub(crate) struct TaskSignals {
    pub queue: SigQueue,
    pub blocked: SigSet,
    /// Set while the task waits with a temporary mask: the mask to return to.
    pub saved: Option<SigSet>,
    /// Blocked signals that `sigtimedwait(2)` waits for: not blocked meanwhile, so that they wake the
    /// thread, but neither ignored nor fatal.
    pub awaited: SigSet,
    /// The group stop in which the thread has taken part, by its number; 0 for none.
    pub stopped_for: u64,
}

/// A group stop: all threads park, the last one tells the parent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub signal: Signal,
    /// Every stop of a process has another number.
    pub id: u64,
    /// All threads have stopped, and the parent was told.
    pub complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobEvent {
    Stopped(Signal),
    Continued,
}

/// Times of threads that are gone, and of children that were waited for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Times {
    pub utime: Nanos,
    pub stime: Nanos,
    pub children_utime: Nanos,
    pub children_stime: Nanos,
    pub nvcsw: u64,
    pub nivcsw: u64,
    pub min_flt: u64,
    /// rchar, wchar, syscr, syscw.
    pub io: [u64; 4],
    pub children_min_flt: u64,
    pub children_nvcsw: u64,
    pub children_nivcsw: u64,
    pub max_rss_kib: u64,
    pub children_max_rss_kib: u64,
}

/// What a new process is made of.
pub(crate) struct ProcessSpec {
    pub pid: KArc<Pid>,
    pub actions: KArc<Actions>,
    pub limits: Limits,
    pub exit_signal: u32,
    pub pgrp: KArc<Pid>,
    pub session: KArc<Session>,
}

impl Process {
    pub(crate) fn try_new(spec: ProcessSpec) -> Result<KArc<Self>> {
        Ok(KArc::try_new(Self {
            pid: spec.pid,
            leader: SpinLock::new(None, &TASK_CELL),
            actions: RcuArc::new(Some(spec.actions)),
            signals: SpinLock::new(
                ProcessSignals {
                    shared: SigQueue::new(),
                    members: KVec::new(),
                    stop: None,
                    stops: 0,
                    event: None,
                    untold_continue: false,
                    group_exit: None,
                    core: None,
                    exec_by: None,
                },
                &SIGNALS,
            ),
            links: SpinLock::new(
                Links {
                    parent: None,
                    pgrp: Some(spec.pgrp),
                    session: Some(spec.session),
                    life: Life::Alive,
                },
                &LINKS,
            ),
            children: SpinLock::new(OrdMap::new(), &CHILDREN),
            tracees: SpinLock::new(OrdMap::new(), &TRACEES),
            child_events: WaitQueue::new(),
            signal_arrived: WaitQueue::new(),
            members_gone: WaitQueue::new(),
            limits: SpinLock::new(spec.limits, &LIMITS),
            times: SpinLock::new(Times::default(), &LIMITS),
            exit_signal: AtomicU32::new(spec.exit_signal),
            start_time: time::boottime(),
            has_execed: AtomicBool::new(false),
            dumpable: AtomicU32::new(Dumpable::User as u32),
            coredump_filter: AtomicU32::new(crate::coredump::DEFAULT_FILTER),
            thp_disabled: AtomicBool::new(false),
            child_subreaper: AtomicBool::new(false),
            parent_thread: AtomicU32::new(0),
            exec_id: AtomicU32::new(0),
            parent_exec_id: AtomicU32::new(0),
            exec_guard: sched::Mutex::new((), &EXEC_GUARD),
            heard: AtomicU64::new(0),
            exe: SpinLock::new(None, &TASK_CELL),
            real_timer: Once::new(),
            cpu_timers: crate::cpu_timers::CpuTimers::new(spec.limits.soft(abi::raw::general::RLIMIT_CPU)),
            posix_timers: crate::posix_timers::PosixTimers::new(),
            vdso: AtomicU64::new(0),
            oom_score_adj: sync::atomic::AtomicI32::new(0),
            tracer_allowed: AtomicU64::new(0),
        })?)
    }

    /// What a child process takes over beside memory, files and rights.
    pub(crate) fn inherit(&self, parent: &Process) {
        self.dumpable.store(parent.dumpable.load(Ordering::Relaxed), Ordering::Relaxed);
        self.coredump_filter.store(parent.coredump_filter.load(Ordering::Relaxed), Ordering::Relaxed);
        self.set_thp_disabled(parent.has_thp_disabled());
        self.oom_score_adj.store(parent.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
        self.vdso.store(parent.vdso.load(Ordering::Relaxed), Ordering::Relaxed);
        self.exec_id.store(parent.exec_id.load(Ordering::Relaxed), Ordering::Relaxed);
        let exe = parent.exe.lock().clone();
        *self.exe.lock() = exe;
    }

    /// The thread group id, what user space calls the process id.
    pub fn id(&self) -> u32 {
        self.pid.number()
    }
    pub fn parent(&self) -> Option<KArc<Process>> {
        self.links.lock().parent.as_ref()?.upgrade()
    }
    /// The parent's id, 0 if there is none.
    pub fn parent_id(&self) -> u32 {
        self.parent().map_or(0, |p| p.id())
    }
    pub fn pgrp(&self) -> Option<KArc<Pid>> {
        self.links.lock().pgrp.clone()
    }
    pub fn pgrp_id(&self) -> u32 {
        self.pgrp().map_or(0, |p| p.number())
    }
    pub fn session(&self) -> Option<KArc<Session>> {
        self.links.lock().session.clone()
    }
    pub fn session_id(&self) -> u32 {
        self.session().map_or(0, |s| s.id())
    }
    pub fn limits(&self) -> Limits {
        *self.limits.lock()
    }
    pub fn limit(&self, resource: u32) -> u64 {
        self.limits.lock().soft(resource)
    }
    pub fn with_limits<R>(&self, f: impl FnOnce(&mut Limits) -> R) -> R {
        f(&mut self.limits.lock())
    }
    pub(crate) fn actions(&self) -> Option<KArc<Actions>> {
        self.actions.get()
    }
    pub(crate) fn action(&self, s: Signal) -> Action {
        let guard = sync::rcu::read_lock();
        self.actions.load(&guard).map_or(Action::default(), |a| a.get(s))
    }
    /// The live threads; fails for want of memory only.
    pub fn threads(&self) -> Result<KVec<KArc<Task>>> {
        let mut list = KVec::new();
        loop {
            let want = self.signals.lock_irq().members.len();
            list.try_reserve(want)?;
            let signals = self.signals.lock_irq();
            if signals.members.len() <= list.capacity() {
                for m in signals.members.iter() {
                    list.push_within_capacity(m.clone()).map_err(|_| Errno::ENOMEM)?;
                }
                return Ok(list);
            }
        }
    }
    pub fn thread_count(&self) -> usize {
        self.signals.lock_irq().members.len()
    }
    /// Some live thread (the leader while it lives).
    pub fn any_task(&self) -> Option<KArc<Task>> {
        self.signals.lock_irq().members.first().cloned()
    }
    pub fn is_zombie(&self) -> bool {
        self.links.lock().life != Life::Alive
    }
    pub fn dumpable(&self) -> Dumpable {
        Dumpable::from_raw(self.dumpable.load(Ordering::Relaxed))
    }
    /// Whether its user may look into it.
    pub fn is_dumpable(&self) -> bool {
        self.dumpable() == Dumpable::User
    }
    pub fn set_dumpable(&self, d: Dumpable) {
        self.dumpable.store(d as u32, Ordering::Relaxed);
    }
    pub fn is_child_subreaper(&self) -> bool {
        self.child_subreaper.load(Ordering::Relaxed)
    }
    pub fn set_child_subreaper(&self, on: bool) {
        self.child_subreaper.store(on, Ordering::Relaxed);
    }
    /// Whether large pages are off for the process (`prctl(2)`, PR_SET_THP_DISABLE).
    pub fn has_thp_disabled(&self) -> bool {
        self.thp_disabled.load(Ordering::Relaxed)
    }
    pub fn set_thp_disabled(&self, on: bool) {
        self.thp_disabled.store(on, Ordering::Relaxed);
    }
    /// The real user id of the process (its leader's), 0 when it is being torn down.
    pub fn uid(&self) -> u32 {
        let leader = self.leader.lock().clone();
        leader.and_then(|l| l.with_cred(|c| c.uid).ok()).unwrap_or(0)
    }
    pub(crate) fn is_init(&self) -> bool {
        self.id() == 1
    }
    /// User and system time of the process so far.
    pub fn cpu_times(&self) -> (Nanos, Nanos) {
        let signals = self.signals.lock_irq();
        // With the members: a thread that leaves is in one of the two sums.
        let gone = *self.times.lock();
        let (mut u, mut s) = (gone.utime, gone.stime);
        for m in signals.members.iter() {
            if let Some(t) = m.thread() {
                let (user, system) = t.cpu_times();
                u = u.saturating_add(user);
                s = s.saturating_add(system);
            }
        }
        (u, s)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // One that never ran has not given it up itself.
        drop(self.set_fs(None));
    }
}

/// What a new task is made of.
pub(crate) struct TaskSpec {
    pub pid: KArc<Pid>,
    pub process: KArc<Process>,
    pub mm: Option<KArc<Memory>>,
    pub files: KArc<FdTable>,
    pub fs: KArc<FsContext>,
    pub ns: KArc<Namespaces>,
    pub cred: KArc<Credentials>,
    pub blocked: SigSet,
    pub counted: Counted,
}

impl Task {
    pub(crate) fn try_new(spec: TaskSpec) -> Result<KArc<Self>> {
        let fs = spec.fs;
        let task = KArc::try_new_cyclic(|me| Self {
            me: me.clone(),
            pid: RcuArc::new(Some(spec.pid)),
            process: spec.process,
            thread: Once::new(),
            mm: ArcSlot::new(spec.mm),
            files: ArcSlot::new(Some(spec.files)),
            fs: ArcSlot::new(None),
            ns: RcuArc::new(Some(spec.ns)),
            cred: RcuArc::new(Some(spec.cred)),
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            lock_node: Once::new(),
            locks_gone: AtomicBool::new(false),
            rseq: SpinLock::new(Default::default(), &TASK_CELL),
            restart: SpinLock::new(Restart::None, &TASK_CELL),
            vfork_done: SpinLock::new(None, &TASK_CELL),
            signals: SpinLock::new(
                TaskSignals { queue: SigQueue::new(), blocked: spec.blocked, saved: None, awaited: SigSet::EMPTY, stopped_for: 0 },
                &TASK_SIGNALS,
            ),
            alt_stack: SpinLock::new(AltStack::DISABLED, &TASK_CELL),
            exiting: AtomicBool::new(false),
            personality: AtomicU32::new(0),
            fault_esr: AtomicU64::new(0),
            min_flt: AtomicU64::new(0),
            exit_status: AtomicU32::new(0),
            last_name: SpinLock::new([0; 16], &TASK_CELL),
            figures: Figures::default(),
            traced: AtomicBool::new(false),
            trace: crate::ptrace::empty_slot(),
            debug: SpinLock::new(None, &TASK_CELL),
            login: Login::none(),
            parent_death_signal: AtomicU32::new(0),
            counted: SpinLock::new(Some(spec.counted), &TASK_CELL),
            too_many_threads: AtomicBool::new(false),
            seccomp: crate::seccomp::State::new(),
            timer_slack: AtomicU64::new(DEFAULT_TIMER_SLACK),
            default_timer_slack: AtomicU64::new(DEFAULT_TIMER_SLACK),
            io_priority: AtomicU32::new(0),
        })?;
        drop(task.set_fs(Some(fs)));
        Ok(task)
    }

    /// What a new thread takes over beside what it is made of. Nobody's death matters to it unless
    /// it says so.
    pub(crate) fn inherit(&self, parent: &Task) {
        self.login.uid.store(parent.login.uid.load(Ordering::Relaxed), Ordering::Relaxed);
        self.login.session.store(parent.login.session.load(Ordering::Relaxed), Ordering::Relaxed);
        let slack = parent.timer_slack.load(Ordering::Relaxed);
        self.timer_slack.store(slack, Ordering::Relaxed);
        self.default_timer_slack.store(slack, Ordering::Relaxed);
        self.io_priority.store(parent.io_priority(), Ordering::Relaxed);
    }

    /// A reference that may be kept. Not to be held by code that may end the thread.
    pub fn arc(&self) -> Option<KArc<Task>> {
        self.me.upgrade()
    }
    /// The thread id.
    pub fn id(&self) -> u32 {
        let guard = sync::rcu::read_lock();
        self.pid.load(&guard).map_or(0, Pid::number)
    }
    pub(crate) fn pid_object(&self) -> Option<KArc<Pid>> {
        self.pid.get()
    }
    pub(crate) fn set_pid(&self, pid: KArc<Pid>) {
        self.pid.store(Some(pid));
    }
    pub fn process(&self) -> &KArc<Process> {
        &self.process
    }
    /// The scheduler's thread; `None` when the task is gone.
    pub fn thread(&self) -> Option<KArc<Thread>> {
        self.thread.get()?.upgrade()
    }
    /// A page fault of the current task was served.
    pub(crate) fn count_fault(&self) {
        self.min_flt.store(self.min_flt.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
    pub fn is_leader(&self) -> bool {
        self.id() == self.process.id()
    }
    /// The address space; kernel threads and tasks that have exited have none.
    pub fn mm(&self) -> Option<KArc<AddressSpace>> {
        self.mm.get().map(|m| m.space.clone())
    }
    /// The address space as something to share.
    pub(crate) fn memory(&self) -> Option<KArc<Memory>> {
        self.mm.get()
    }
    /// The open files. A task that is exiting has given them back: EBADF.
    pub fn files(&self) -> Result<KArc<FdTable>> {
        self.files.get().ok_or(Errno::EBADF)
    }
    /// The file behind a descriptor.
    pub fn file(&self, fd: vfs::Fd) -> Result<KArc<vfs::OpenFile>> {
        self.files()?.get(fd)
    }
    pub fn fs(&self) -> Result<KArc<FsContext>> {
        self.fs.get().ok_or(Errno::ESRCH)
    }
    pub fn ns(&self) -> Result<KArc<Namespaces>> {
        self.ns.get().ok_or(Errno::ESRCH)
    }
    /// The credentials; always present.
    pub fn cred(&self) -> Result<KArc<Credentials>> {
        self.cred.get().ok_or(Errno::ESRCH)
    }
    pub fn with_cred<R>(&self, f: impl FnOnce(&Credentials) -> R) -> Result<R> {
        let guard = sync::rcu::read_lock();
        Ok(f(self.cred.load(&guard).ok_or(Errno::ESRCH)?))
    }
    pub(crate) fn set_mm(&self, mm: Option<KArc<Memory>>) -> Option<KArc<Memory>> {
        self.mm.swap(mm)
    }
    pub(crate) fn set_files(&self, files: Option<KArc<FdTable>>) -> Option<KArc<FdTable>> {
        self.files.swap(files)
    }
    pub(crate) fn set_fs(&self, fs: Option<KArc<FsContext>>) -> Option<KArc<FsContext>> {
        if let Some(new) = &fs {
            new.enter();
        }
        let old = self.fs.swap(fs);
        if let Some(old) = &old {
            old.leave();
        }
        old
    }
    pub fn set_cred(&self, cred: KArc<Credentials>) {
        self.cred.store(Some(cred));
    }
    /// The user for whom this thread counts. ESRCH when it is reaped.
    pub(crate) fn user(&self) -> Result<KArc<User>> {
        self.counted.lock().as_ref().map(|c| c.user().clone()).ok_or(Errno::ESRCH)
    }
    /// Counts the thread for another user, or for none any more.
    pub(crate) fn count_for(&self, user: Option<KArc<User>>) {
        let new = user.map(Counted::new);
        let old = core::mem::replace(&mut *self.counted.lock(), new);
        drop(old);
    }
    pub fn parent_death_signal(&self) -> u32 {
        self.parent_death_signal.load(Ordering::Relaxed)
    }
    pub fn set_parent_death_signal(&self, n: u32) {
        self.parent_death_signal.store(n, Ordering::Relaxed);
    }
    /// Whether exec must not give the thread more rights (`prctl(2)`, PR_SET_NO_NEW_PRIVS).
    pub fn has_no_new_privs(&self) -> bool {
        self.seccomp.has_no_new_privs()
    }
    pub fn set_no_new_privs(&self) {
        self.seccomp.set_no_new_privs();
    }
    pub fn timer_slack(&self) -> u64 {
        self.timer_slack.load(Ordering::Relaxed)
    }
    /// `None` goes back to what the thread began with.
    pub fn set_timer_slack(&self, slack: Option<u64>) {
        let slack = slack.unwrap_or_else(|| self.default_timer_slack.load(Ordering::Relaxed));
        self.timer_slack.store(slack, Ordering::Relaxed);
    }
    pub fn io_priority(&self) -> u32 {
        self.io_priority.load(Ordering::Relaxed)
    }
    pub fn set_io_priority(&self, priority: u32) {
        self.io_priority.store(priority, Ordering::Relaxed);
    }
    /// Where the word is that is cleared when the task ends (`prctl(2)`, PR_GET_TID_ADDRESS).
    pub fn clear_child_tid(&self) -> u64 {
        self.clear_child_tid.load(Ordering::Relaxed)
    }
    /// As [`with_cred`](Self::with_cred), for calls that may sleep.
    pub fn with_cred_arc<R>(&self, f: impl FnOnce(&Credentials) -> Result<R>) -> Result<R> {
        f(&*self.cred()?)
    }
    pub fn set_restart(&self, r: Restart) {
        *self.restart.lock() = r;
    }
    pub fn take_restart(&self) -> Restart {
        core::mem::take(&mut *self.restart.lock())
    }
    pub fn set_clear_child_tid(&self, addr: UserAddr) {
        self.clear_child_tid.store(addr.0, Ordering::Relaxed);
    }
    pub fn robust_list(&self) -> UserAddr {
        UserAddr(self.robust_list.load(Ordering::Relaxed))
    }
    pub fn set_robust_list(&self, head: UserAddr) {
        self.robust_list.store(head.0, Ordering::Relaxed);
    }
    /// Gives the task a descriptor table of its own (CLOSE_RANGE_UNSHARE).
    pub fn unshare_files(&self) -> Result {
        let own = self.files()?.copy()?;
        drop(self.set_files(Some(own)));
        Ok(())
    }
    /// Tells the parent of a `vfork` that its memory is its own again.
    pub(crate) fn release_vfork_parent(&self) {
        if let Some(done) = self.vfork_done.lock().take() {
            done.complete_all();
        }
    }
    pub(crate) fn has_exited(&self) -> bool {
        self.exiting.load(Ordering::Acquire)
    }
    /// Sends a signal whose cause is the task's own fault or call.
    pub fn raise(&self, info: SigInfo) {
        crate::signal::send_to_task(self, info);
    }
}

static SYSCALLS: Once<fn(&Task, &mut UserRegs)> = Once::new();

/// Says what carries out the system calls of tasks: the room above. Until then there are none.
pub fn set_syscalls(dispatch: fn(&Task, &mut UserRegs)) {
    SYSCALLS.call_once(|| dispatch);
}

impl sched::Payload for Task {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn wants_tick(&self) -> bool {
        self.process.cpu_timers.are_armed()
    }

    #[inline]
    fn syscall(&self, regs: &mut UserRegs) {
        if let Some(dispatch) = SYSCALLS.get() {
            dispatch(self, regs);
        }
    }
}

/// The task behind a thread of the scheduler; kernel threads have none.
pub fn of(thread: &Thread) -> Option<&Task> {
    thread.payload()?.as_any().downcast_ref::<Task>()
}

/// Runs `f` with the current task; `None` in a kernel thread.
pub fn with_current<R>(f: impl FnOnce(&Task) -> R) -> Option<R> {
    let thread = sched::current();
    of(&thread).map(f)
}

/// The current task, to keep; `None` in a kernel thread.
pub fn current_arc() -> Option<KArc<Task>> {
    with_current(Task::arc)?
}
