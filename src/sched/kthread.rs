//! Kernel threads, which kthreadd makes: so that each starts from the same clean state, whoever
//! asked for it, and from contexts that may not allocate a stack themselves.

use crate::{
    completion::Completion,
    thread::{self, Thread, ThreadSpec, thread_name},
    wait::{Sleep, WaitQueue},
};
use abi::{CpuMask, Errno, Result};
use collections::{ArcList, Link};
use kalloc::{KArc, KBox, kbox_dyn};
use sync::{
    LockClass, Once, SpinLock,
    atomic::{AtomicBool, Ordering},
};

static REQUESTS: LockClass = LockClass::new("kthread_requests", 1701);
static REQUEST: LockClass = LockClass::new("kthread_request", 1703);

/// What a request gives, and what becomes of it.
enum Stage {
    Asked(KBox<dyn FnMut() + Send>),
    Working,
    Answered(Result<KArc<Thread>>),
}

struct Request {
    link: Link,
    name: [u8; 16],
    /// It runs at once; otherwise whoever asked starts it.
    start: bool,
    stage: SpinLock<Stage>,
    done: Completion,
}

collections::link_field!(RequestLink: Request => link);

static QUEUE: SpinLock<ArcList<RequestLink>> = SpinLock::new(ArcList::new(), &REQUESTS);
static WORK: WaitQueue = WaitQueue::new();
static DAEMON_RUNS: AtomicBool = AtomicBool::new(false);
static REGISTER: Once<fn(&KArc<Thread>)> = Once::new();

/// Says who gives kernel threads their pid; called with each before it is started.
pub fn set_kthread_register(register: fn(&KArc<Thread>)) {
    REGISTER.call_once(|| register);
}

pub(crate) fn register(thread: &KArc<Thread>) {
    if let Some(register) = REGISTER.get() {
        register(thread);
    }
}

/// Starts a kernel thread that runs `f` and then ends. May sleep. Fails without memory or pids.
pub fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> Result<KArc<Thread>> {
    ask(name, true, f)
}

/// As [`spawn`], but the thread waits for `thread::start`.
pub(crate) fn create(name: &str, f: impl FnOnce() + Send + 'static) -> Result<KArc<Thread>> {
    ask(name, false, f)
}

fn ask(name: &str, start: bool, f: impl FnOnce() + Send + 'static) -> Result<KArc<Thread>> {
    let mut f = Some(f);
    let main = kbox_dyn!(move || {
        if let Some(f) = f.take() {
            f();
        }
    } => dyn FnMut() + Send)?;
    if !DAEMON_RUNS.load(Ordering::Acquire) {
        return make(thread_name(name), start, main);
    }
    let request = KArc::try_new(Request {
        link: Link::new(),
        name: thread_name(name),
        start,
        stage: SpinLock::new(Stage::Asked(main), &REQUEST),
        done: Completion::new(),
    })?;
    {
        let mut queue = QUEUE.lock();
        // A new request is on no list.
        let _ = queue.push_back(request.clone());
    }
    WORK.wake_one();
    request.done.wait();
    let answer = core::mem::replace(&mut *request.stage.lock(), Stage::Working);
    match answer {
        Stage::Answered(answer) => answer,
        // `done` follows the answer.
        Stage::Asked(_) | Stage::Working => Err(Errno::EAGAIN),
    }
}

fn make(name: [u8; 16], start: bool, mut main: KBox<dyn FnMut() + Send>) -> Result<KArc<Thread>> {
    let spec = ThreadSpec {
        name,
        nice: 0,
        affinity: CpuMask::ALL,
        payload: None,
        user_space: None,
        stack: frames::vmalloc::alloc_stack()?,
    };
    let thread = thread::create_kernel(spec, move || {
        main();
    })?;
    register(&thread);
    if start {
        thread::start(&thread);
    }
    Ok(thread)
}

/// Starts kthreadd itself and returns its thread, which the process layer makes PID 2: it is
/// registered like the others.
pub fn start_kthreadd() -> Result<KArc<Thread>> {
    let main = kbox_dyn!(daemon => dyn FnMut() + Send)?;
    make(thread_name("kthreadd"), true, main)
}

fn daemon() {
    DAEMON_RUNS.store(true, Ordering::Release);
    loop {
        let next = WORK.wait_until(Sleep::Idle, None, || QUEUE.lock().pop_front());
        let Some(request) = next.ready() else { continue };
        let asked = core::mem::replace(&mut *request.stage.lock(), Stage::Working);
        let answer = match asked {
            Stage::Asked(main) => make(request.name, request.start, main),
            // Nobody asks twice.
            Stage::Working | Stage::Answered(_) => Err(Errno::EAGAIN),
        };
        *request.stage.lock() = Stage::Answered(answer);
        request.done.complete();
    }
}
