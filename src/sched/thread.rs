//! What a thread is to the kernel above the CPU: names, limits, figures, and what other rooms
//! hang on it.
//!
//! [`Thread`] is the head that the entry code knows, the stack, and a [`Core`]; methods of `Core`
//! are called on `Thread` directly. A thread is always in a `KArc`; the memory of one that ended
//! goes back after a grace period, so RCU readers may hold a `&Thread` that they found somewhere.

use crate::{
    cpu::{self, Job, Task},
    fair::{self, Entity},
    sleeper::SleepState,
    user_space::SpaceSlot,
};
use abi::{CpuId, CpuMask, Nanos, Result};
use arch::UserRegs;
use collections::Link;
use core::any::Any;
use frames::vmalloc::KernelStack;
use kalloc::{AllocError, KArc, KBox, karc_as, kbox_dyn};
use sched_switch::{Current, Kind, Last, ThreadOf};
use sync::{
    LockClass, LockdepState, Once, PerCpuCounter, SpinLock,
    atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering},
};

/// A thread; see the module's text.
pub type Thread = ThreadOf<Core>;
/// The thread that runs this code.
pub type ThreadRef = Current<Core>;

/// What the process layer hangs on a thread.
pub trait Payload: Any + Send + Sync {
    /// For the way back to the process layer's own type.
    fn as_any(&self) -> &dyn Any;
    /// Whether the thread is to have NOTIFY_RESUME after a tick. Interrupts are off.
    fn wants_tick(&self) -> bool {
        false
    }
    /// A system call of the thread, which is the current one: registers as at its entry. Interrupts
    /// are on; may sleep.
    fn syscall(&self, regs: &mut UserRegs);
}

/// What a kernel thread runs.
pub(crate) type Main = KBox<dyn FnMut() + Send>;

static START: LockClass = LockClass::new("thread_start", 1702);
static SHOWN: LockClass = LockClass::new("thread_times", 1730);
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static FORKS: PerCpuCounter = PerCpuCounter::new();

/// Threads created since boot (`processes` in /proc/stat).
pub fn total_forks() -> u64 {
    FORKS.sum_positive()
}

/// The part of a thread that its wakers touch. On its own, so that a wait queue can hold it
/// without holding the thread.
pub(crate) struct Sleeper {
    pub(crate) state: SleepState<Task>,
    /// Its place in the wait queue that it waits in.
    pub(crate) link: Link,
    /// It waits for something that only one can have.
    pub(crate) exclusive: AtomicBool,
}

collections::link_field!(pub(crate) SleeperLink: Sleeper => link);

impl Sleeper {
    /// Wakes the thread if it sleeps in one of `kinds`.
    pub(crate) fn wake(&self, kinds: u32) -> bool {
        match self.state.wake(kinds) {
            crate::sleeper::Woken::No => false,
            crate::sleeper::Woken::Done => true,
            crate::sleeper::Woken::Enqueue(task) => {
                cpu::activate(task);
                true
            }
        }
    }
}

impl time::TimerHandler for Sleeper {
    /// The deadline of a sleep. The sleeper looks at the clock by itself, so a timer that comes
    /// too late wakes it for nothing at worst.
    fn expired(&self) {
        self.wake(crate::sleeper::SLEEPING);
    }
}

/// Divides a thread's time on a CPU into user and system time in the proportion that ticks found,
/// neither of them smaller than what was `shown` before.
fn divide(sum: u64, (user, system): (u64, u64), kernel: bool, shown: (u64, u64)) -> (u64, u64) {
    if sum <= shown.0 + shown.1 {
        return shown;
    }
    let proportion = match u128::from(user) + u128::from(system) {
        0 if kernel => 0,
        // As Linux does when no tick hit: a user thread that ran less than a tick counts as user.
        0 => sum,
        ticks => (u128::from(sum) * u128::from(user) / ticks) as u64,
    };
    let user = proportion.clamp(shown.0, sum - shown.1);
    (user, sum - user)
}

/// Times of a thread.
pub(crate) struct Times {
    /// Nanoseconds on a CPU, exact.
    pub(crate) sum_exec: AtomicU64,
    /// Nanoseconds that ticks found in user space.
    pub(crate) user_ticks: AtomicU64,
    /// Nanoseconds that ticks found in the kernel.
    pub(crate) system_ticks: AtomicU64,
    pub(crate) voluntary: AtomicU64,
    pub(crate) involuntary: AtomicU64,
    /// User and system nanoseconds as they were last told: neither ever goes back.
    shown: SpinLock<(u64, u64)>,
}

impl Times {
    fn new() -> Self {
        Self {
            sum_exec: AtomicU64::new(0),
            user_ticks: AtomicU64::new(0),
            system_ticks: AtomicU64::new(0),
            voluntary: AtomicU64::new(0),
            involuntary: AtomicU64::new(0),
            shown: SpinLock::new((0, 0), &SHOWN),
        }
    }
}

/// The thread has no memory that names its CPU.
const NO_RSEQ: u32 = u32::MAX;

/// What the scheduler keeps of a thread.
pub struct Core {
    id: u64,
    name: [AtomicU64; 2],
    pub(crate) sleeper: KArc<Sleeper>,
    /// Wakes the thread at the deadline of its sleep.
    pub(crate) timer: time::Timer,
    nice: AtomicI32,
    /// Policy, real-time priority, reset-on-fork (`policy.rs`).
    pub(crate) policy: AtomicU32,
    /// Real-time priority that it inherits from who waits for it.
    pub(crate) boost: AtomicU32,
    affinity: AtomicU64,
    /// The CPU that its memory names (`rseq(2)`), or [`NO_RSEQ`].
    rseq_cpu: AtomicU32,
    pub(crate) times: Times,
    start_time: Nanos,
    payload: Once<KArc<dyn Payload>>,
    pub(crate) space: SpaceSlot,
    pub(crate) lockdep: LockdepState,
    main: SpinLock<Option<Main>>,
    kernel: bool,
    /// The idle thread of a CPU: never on a queue.
    pub(crate) idle: bool,
    /// Cleared by `unpark`.
    pub(crate) parked: AtomicBool,
    /// It goes on in user space when its closure returns.
    enters_user: AtomicBool,
}

impl Core {
    /// A number that no other thread ever has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name (`comm`), padded with NUL.
    pub fn name(&self) -> [u8; 16] {
        let mut name = [0; 16];
        let (a, b) = name.split_at_mut(8);
        for (half, part) in [a, b].into_iter().zip(&self.name) {
            half.copy_from_slice(&part.load(Ordering::Relaxed).to_ne_bytes());
        }
        name
    }

    /// Sets the name. A reader meanwhile may see half of each.
    pub fn set_name(&self, name: [u8; 16]) {
        let [a, b] = halves(name);
        for (part, half) in self.name.iter().zip([a, b]) {
            part.store(half, Ordering::Relaxed);
        }
    }

    /// The nice value.
    pub fn nice(&self) -> i8 {
        self.nice.load(Ordering::Relaxed) as i8
    }

    /// Sets the nice value (clamped to -20..=19); it counts from the next time the thread is
    /// picked or queued.
    pub fn set_nice(&self, nice: i8) {
        self.nice.store(i32::from(nice.clamp(fair::MIN_NICE, fair::MAX_NICE)), Ordering::Relaxed);
    }

    /// Says which CPU the thread's memory names. From then on the thread gets NOTIFY_RESUME when it
    /// was preempted or comes to another CPU; with `None` no longer.
    pub fn set_rseq_cpu(&self, cpu: Option<u32>) {
        self.rseq_cpu.store(cpu.unwrap_or(NO_RSEQ), Ordering::Relaxed);
    }

    /// Whether the thread's memory names its CPU.
    #[inline]
    pub fn has_rseq(&self) -> bool {
        self.rseq_cpu.load(Ordering::Relaxed) != NO_RSEQ
    }

    /// Whether the thread's memory names another CPU than this.
    #[inline]
    pub(crate) fn rseq_differs(&self, cpu: CpuId) -> bool {
        let named = self.rseq_cpu.load(Ordering::Relaxed);
        named != NO_RSEQ && named != cpu.0
    }

    /// The CPUs that it may run on.
    pub fn affinity(&self) -> CpuMask {
        CpuMask(self.affinity.load(Ordering::Relaxed))
    }

    pub(crate) fn store_affinity(&self, mask: CpuMask) {
        self.affinity.store(mask.0, Ordering::Relaxed);
    }

    /// What it does (`State:` of /proc/PID/status).
    pub fn state(&self) -> State {
        use crate::sleeper::*;
        match self.sleeper.state.get() {
            RUNNING => State::Running,
            INTERRUPTIBLE => State::Interruptible,
            UNINTERRUPTIBLE | KILLABLE => State::Uninterruptible,
            STOPPED => State::Stopped,
            TRACED => State::Traced,
            IDLE => State::Idle,
            NEW => State::New,
            _ => State::Dead,
        }
    }

    /// Time on a CPU up to its last tick or switch.
    pub fn sum_exec(&self) -> Nanos {
        Nanos(self.times.sum_exec.load(Ordering::Relaxed))
    }

    /// User and system time: the exact sum, divided as the ticks found it. As ticks come, the
    /// proportion changes, but neither time is ever told smaller than before. Any context.
    pub fn cpu_times(&self) -> (Nanos, Nanos) {
        let ticks = (self.times.user_ticks.load(Ordering::Relaxed), self.times.system_ticks.load(Ordering::Relaxed));
        let mut shown = self.times.shown.lock_irq();
        *shown = divide(self.sum_exec().0, ticks, self.kernel, *shown);
        (Nanos(shown.0), Nanos(shown.1))
    }

    /// User time.
    pub fn utime(&self) -> Nanos {
        self.cpu_times().0
    }

    /// System time.
    pub fn stime(&self) -> Nanos {
        self.cpu_times().1
    }

    /// Switches away because it had to wait.
    pub fn nvcsw(&self) -> u64 {
        self.times.voluntary.load(Ordering::Relaxed)
    }

    /// Switches away because another one's turn came.
    pub fn nivcsw(&self) -> u64 {
        self.times.involuntary.load(Ordering::Relaxed)
    }

    /// When it was created, on the monotonic clock.
    pub fn start_time(&self) -> Nanos {
        self.start_time
    }

    /// Whether it was created as a kernel thread.
    pub fn is_kernel(&self) -> bool {
        self.kernel
    }

    /// What the process layer hung on it.
    #[inline]
    pub fn payload(&self) -> Option<&dyn Payload> {
        self.payload.get().map(|p| &**p)
    }

    /// A counted handle of the payload.
    pub fn payload_arc(&self) -> Option<KArc<dyn Payload>> {
        self.payload.get().cloned()
    }

    /// Hangs the payload on a thread that was created without. Only the first one stays.
    pub fn set_payload(&self, payload: KArc<dyn Payload>) {
        self.payload.call_once(|| payload);
    }
}

/// What a thread does, as user space sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Runs or waits for a CPU: `R`.
    Running,
    /// Sleeps; a signal ends it: `S`.
    Interruptible,
    /// Sleeps; no signal but perhaps a fatal one ends it: `D`.
    Uninterruptible,
    /// Stopped by job control: `T`.
    Stopped,
    /// Stopped by a tracer: `t`.
    Traced,
    /// A kernel thread without work: `I`.
    Idle,
    /// Not started yet; Linux shows `D`.
    New,
    /// Ended: `X`.
    Dead,
}

impl State {
    /// The letter in /proc.
    pub fn letter(self) -> char {
        match self {
            Self::Running => 'R',
            Self::Interruptible => 'S',
            Self::Uninterruptible | Self::New => 'D',
            Self::Stopped => 'T',
            Self::Traced => 't',
            Self::Idle => 'I',
            Self::Dead => 'X',
        }
    }
}

fn halves(name: [u8; 16]) -> [u64; 2] {
    let n = u128::from_ne_bytes(name);
    let (low, high) = (n as u64, (n >> 64) as u64);
    if cfg!(target_endian = "little") { [low, high] } else { [high, low] }
}

/// A thread's name from a string, cut to 15 bytes.
pub fn thread_name(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    out
}

/// What a new thread is to be.
pub struct ThreadSpec {
    /// Its name, padded with NUL.
    pub name: [u8; 16],
    /// Its nice value.
    pub nice: i8,
    /// Where it may run.
    pub affinity: CpuMask,
    /// What the process layer hangs on it.
    pub payload: Option<KArc<dyn Payload>>,
    /// Its address space.
    pub user_space: Option<KArc<dyn UserSpace>>,
    /// Its kernel stack.
    pub stack: KernelStack,
}

/// An address space, as the context switch sees it.
///
/// While a kernel thread runs, TTBR0 points to the empty table: nothing is kept alive for it.
pub trait UserSpace: Send + Sync {
    /// Makes it the one of this CPU (TTBR0). Interrupts and preemption are off.
    fn activate(&self, cpu: CpuId);
    /// It is no longer the one of this CPU. Interrupts and preemption are off.
    fn deactivate(&self, _cpu: CpuId) {}
}

/// How `Core`s come to be.
pub(crate) struct Parts {
    pub(crate) name: [u8; 16],
    pub(crate) nice: i8,
    pub(crate) affinity: CpuMask,
    pub(crate) payload: Option<KArc<dyn Payload>>,
    pub(crate) user_space: Option<KArc<dyn UserSpace>>,
    pub(crate) main: Option<Main>,
    pub(crate) kernel: bool,
    pub(crate) idle: bool,
}

impl Core {
    pub(crate) fn try_new(parts: Parts) -> core::result::Result<Self, AllocError> {
        let sleeper = KArc::try_new(Sleeper {
            state: SleepState::new(),
            link: Link::new(),
            exclusive: AtomicBool::new(false),
        })?;
        let handler: KArc<dyn time::TimerHandler> = karc_as!(sleeper.clone() => dyn time::TimerHandler);
        let [a, b] = halves(parts.name);
        let payload = Once::new();
        if let Some(p) = parts.payload {
            payload.call_once(|| p);
        }
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name: [AtomicU64::new(a), AtomicU64::new(b)],
            sleeper,
            timer: time::Timer::new(handler)?,
            nice: AtomicI32::new(i32::from(parts.nice.clamp(fair::MIN_NICE, fair::MAX_NICE))),
            policy: AtomicU32::new(0),
            boost: AtomicU32::new(0),
            affinity: AtomicU64::new(parts.affinity.0),
            rseq_cpu: AtomicU32::new(NO_RSEQ),
            times: Times::new(),
            start_time: time::monotonic(),
            payload,
            space: SpaceSlot::new(parts.user_space),
            lockdep: LockdepState::new(),
            main: SpinLock::new(parts.main, &START),
            kernel: parts.kernel,
            idle: parts.idle,
            parked: AtomicBool::new(false),
            enters_user: AtomicBool::new(false),
        })
    }
}

impl Kind for Core {
    type Baggage = cpu::Baggage;

    fn first_run(last: Last<Self>, baggage: cpu::Baggage) {
        cpu::finish_switch(last, baggage);
    }

    fn main(thread: ThreadRef) {
        let main = thread.main.lock().take();
        if let Some(mut main) = main {
            main();
        }
        if !thread.enters_user.load(Ordering::Relaxed) {
            exit_current();
        }
    }
}

/// Puts the entity of a new thread where `start` finds it.
fn finish_create(right: sched_switch::Runnable<Core>) -> Result<KArc<Thread>> {
    let thread = right.thread().clone();
    let task = Entity::try_new(thread.id, Job::new(right))?;
    // The slot of a new thread is empty, so this cannot come back.
    let _none = thread.sleeper.state.settle(task);
    FORKS.inc();
    Ok(thread)
}

/// A kernel thread that will run `f`; [`start`] starts it.
pub fn create_kernel(spec: ThreadSpec, f: impl FnOnce() + Send + 'static) -> Result<KArc<Thread>> {
    let mut f = Some(f);
    let main = kbox_dyn!(move || {
        if let Some(f) = f.take() {
            f();
        }
    } => dyn FnMut() + Send)?;
    let ThreadSpec { name, nice, affinity, payload, user_space, stack } = spec;
    let parts = Parts { name, nice, affinity, payload, user_space, main: Some(main), kernel: true, idle: false };
    finish_create(sched_switch::create_kernel(stack, |_| Core::try_new(parts))?)
}

/// A user thread that will return to user space with `regs`. With a `parent`, its floating-point
/// state and thread pointer are copied, and it is scheduled like that one.
pub fn create_user(spec: ThreadSpec, regs: &UserRegs, parent: Option<&Thread>) -> Result<KArc<Thread>> {
    let ThreadSpec { name, nice, affinity, payload, user_space, stack } = spec;
    let parts = Parts { name, nice, affinity, payload, user_space, main: None, kernel: false, idle: false };
    let right = sched_switch::create_user(stack, regs, |_| Core::try_new(parts))?;
    if let Some(parent) = parent {
        arch::fp::copy_on_fork(parent.head(), right.thread().head());
        let tls = parent.head().tpidr_el0.load(Ordering::Relaxed);
        right.thread().head().tpidr_el0.store(tls, Ordering::Relaxed);
        right.thread().inherit_policy(parent);
    }
    finish_create(right)
}

/// Starts a thread that was created; once.
pub fn start(thread: &KArc<Thread>) {
    if let crate::sleeper::Woken::Enqueue(task) = thread.sleeper.state.wake(crate::sleeper::NEW) {
        cpu::activate_new(task);
    }
}

/// Gives a thread up that was created and will not be started: until then, or until it has run to
/// its end, it keeps itself.
pub fn discard(thread: &KArc<Thread>) {
    if let crate::sleeper::Woken::Enqueue(task) = thread.sleeper.state.wake(crate::sleeper::NEW) {
        thread.sleeper.state.end();
        drop(task);
    }
}

/// The thread that runs this code.
#[inline]
pub fn current() -> ThreadRef {
    sched_switch::current()
}

/// A counted handle of the thread that runs this code.
pub fn current_arc() -> KArc<Thread> {
    current().to_arc()
}

/// Makes the current kernel thread one that goes on in user space, with `regs`, when its closure
/// returns. `false` if it is a user thread already.
pub fn enter_user(regs: &UserRegs) -> bool {
    let set = sched_switch::enter_user::<Core>(regs);
    if set {
        current().enters_user.store(true, Ordering::Relaxed);
    }
    set
}

/// Ends the current thread. Its stack is freed by the thread that runs next; the caller has
/// dropped everything that it owns.
pub fn exit_current() -> ! {
    sync::lockdep::assert_none_held("thread exit");
    current().timer.cancel();
    set_user_space(None);
    cpu::exit()
}

/// Exchanges the address space of the current thread and makes the new one active.
pub fn set_user_space(space: Option<KArc<dyn UserSpace>>) -> Option<KArc<dyn UserSpace>> {
    let irq = sync::IrqGuard::new();
    current().space.replace_active(irq.cpu(), space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_ticks_and_never_go_back() {
        assert_eq!(divide(100, (0, 0), false, (0, 0)), (100, 0));
        assert_eq!(divide(100, (0, 0), true, (0, 0)), (0, 100));
        assert_eq!(divide(100, (10, 30), false, (0, 0)), (25, 75));
        // The first tick finds the kernel at work: what counted as user time stays.
        assert_eq!(divide(130, (0, 10), false, (100, 0)), (100, 30));
        assert_eq!(divide(130, (10, 0), false, (25, 75)), (55, 75));
        // Nothing new: nothing changes.
        assert_eq!(divide(130, (0, 50), false, (55, 75)), (55, 75));
    }
}
