//! Waiting for several files at once (`poll(2)`, `select(2)`).
//!
//! A file's `poll` says what is possible now and, if asked, registers where a change will be
//! announced: register first, then look, so that no change is lost. The first round registers
//! nothing, since usually something is ready.

use crate::OpenFile;
use abi::{Errno, Nanos, Result, raw::general as g};
use kalloc::{KArc, KVec, karc_as};
use sched::{Outcome, Registration, Sleep, WaitQueue, WakeCallback};
use sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Release};

bitflags::bitflags! {
    /// What can be done with a file (`poll(2)`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    #[allow(missing_docs)] // the names are poll(2)'s
    pub struct PollEvents: u32 {
        const IN = g::POLLIN;
        const PRI = g::POLLPRI;
        const OUT = g::POLLOUT;
        const ERR = g::POLLERR;
        const HUP = g::POLLHUP;
        const NVAL = g::POLLNVAL;
        const RDNORM = g::POLLRDNORM;
        const RDBAND = g::POLLRDBAND;
        const WRNORM = g::POLLWRNORM;
        const WRBAND = g::POLLWRBAND;
        const MSG = g::POLLMSG;
        const RDHUP = g::POLLRDHUP;
    }
}

impl PollEvents {
    /// Reported whether or not they were asked for.
    pub const ALWAYS: Self = Self::ERR.union(Self::HUP).union(Self::NVAL);
    /// Something to read.
    pub const READABLE: Self = Self::IN.union(Self::RDNORM);
    /// Room to write.
    pub const WRITABLE: Self = Self::OUT.union(Self::WRNORM);
}

/// Where a file's `poll` registers the queues that will announce a change.
pub struct PollTable<'a> {
    register: Option<&'a mut dyn FnMut(&WaitQueue)>,
}

impl<'a> PollTable<'a> {
    /// A table that registers nothing: only the present state is asked for.
    pub fn look() -> Self {
        Self { register: None }
    }
    /// A table that calls `register` with each queue.
    pub fn with(register: &'a mut dyn FnMut(&WaitQueue)) -> Self {
        Self { register: Some(register) }
    }
    /// Registers a queue. Call it before looking at the state that the queue announces.
    pub fn register(&mut self, queue: &WaitQueue) {
        if let Some(r) = &mut self.register {
            r(queue);
        }
    }
    /// Whether queues are registered at all.
    pub fn is_registering(&self) -> bool {
        self.register.is_some()
    }
}

/// A thread that waits in several queues.
struct Poller {
    woken: AtomicBool,
    queue: WaitQueue,
}

impl WakeCallback for Poller {
    fn woken(&self, _key: u32) {
        // Pairs with the exchange in `poll_files`.
        self.woken.store(true, Release);
        self.queue.wake_all();
    }
}

/// A file that is polled.
pub struct PollEntry {
    /// The file; None is left out, with `revents` as the caller set it.
    pub file: Option<KArc<OpenFile>>,
    /// What is asked for.
    pub events: PollEvents,
    /// The answer.
    pub revents: PollEvents,
}

impl PollEntry {
    fn look(&mut self, table: &mut PollTable<'_>) -> bool {
        if let Some(f) = &self.file {
            self.revents = f.poll(table) & (self.events | PollEvents::ALWAYS);
        }
        !self.revents.is_empty()
    }
}

/// Waits until a file is ready or `deadline` (monotonic; None: for ever) has come; returns how
/// many are ready. EINTR when a signal came first; ENOMEM.
pub fn poll_files(entries: &mut [PollEntry], deadline: Option<Nanos>) -> Result<usize> {
    let count = |entries: &mut [PollEntry]| entries.iter_mut().map(|e| usize::from(e.look(&mut PollTable::look()))).sum();
    let ready: usize = count(entries);
    if ready > 0 || deadline == Some(Nanos::ZERO) {
        return Ok(ready);
    }
    let poller = KArc::try_new(Poller { woken: AtomicBool::new(false), queue: WaitQueue::new() })?;
    let callback = karc_as!(poller.clone() => dyn WakeCallback);
    let mut registrations: KVec<Registration> = KVec::new();
    let mut failed = None;
    let mut register = |q: &WaitQueue| {
        let done = q.add_callback(callback.clone()).and_then(|r| Ok(registrations.try_push(r)?));
        if let Err(e) = done {
            failed = Some(e);
        }
    };
    let mut ready = 0;
    for e in entries.iter_mut() {
        ready += usize::from(e.look(&mut PollTable::with(&mut register)));
    }
    if let Some(e) = failed {
        return Err(e);
    }
    while ready == 0 {
        let woken = || poller.woken.swap(false, AcqRel).then_some(());
        match poller.queue.wait_until(Sleep::Interruptible, deadline, woken) {
            Outcome::Ready(()) => ready = count(entries),
            Outcome::TimedOut => return Ok(count(entries)),
            Outcome::Interrupted => {
                ready = count(entries);
                return if ready > 0 { Ok(ready) } else { Err(Errno::EINTR) };
            }
        }
    }
    Ok(ready)
}
