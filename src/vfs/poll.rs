//! Waiting for several files at once (`poll(2)`, `select(2)`).
//!
//! A file's `poll` says what is possible now and, if asked, registers where a change will be
//! announced: register first, then look, so that no change is lost. The first round registers
//! nothing and keeps nothing, since usually something is ready: per descriptor it costs the look-up
//! and the file's own answer.

use crate::{Fd, FdTable, OpenFile};
use abi::{Errno, Nanos, Result, raw::general as g};
use kalloc::{KArc, KVec, karc_as};
use sched::{Outcome, Registration, Sleep, WaitQueue, Wake, WakeCallback};
use sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Release};

pub use g::pollfd as PollFd;

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
    depth: u8,
}

impl<'a> PollTable<'a> {
    /// A table that registers nothing: only the present state is asked for.
    #[inline]
    pub fn look() -> Self {
        Self { register: None, depth: 0 }
    }
    /// As [`look`](Self::look), asked by a file that watches others itself, `depth` of them around
    /// each other.
    pub fn look_inside(depth: u8) -> Self {
        Self { register: None, depth }
    }
    /// A table that calls `register` with each queue.
    pub fn with(register: &'a mut dyn FnMut(&WaitQueue)) -> Self {
        Self { register: Some(register), depth: 0 }
    }
    /// As [`with`](Self::with), inside of `depth` files that watch others.
    pub fn with_inside(depth: u8, register: &'a mut dyn FnMut(&WaitQueue)) -> Self {
        Self { register: Some(register), depth }
    }
    /// Registers a queue. Call it before looking at the state that the queue announces.
    #[inline]
    pub fn register(&mut self, queue: &WaitQueue) {
        if let Some(r) = &mut self.register {
            r(queue);
        }
    }
    /// Whether queues are registered at all.
    pub fn is_registering(&self) -> bool {
        self.register.is_some()
    }
    /// How many watching files (an epoll in an epoll) are around this one.
    pub fn depth(&self) -> u8 {
        self.depth
    }
}

/// A thread that waits in several queues.
struct Poller {
    woken: AtomicBool,
    queue: WaitQueue,
}

impl WakeCallback for Poller {
    fn woken(&self, _: Wake) -> bool {
        // Pairs with the exchange in `wait`.
        self.woken.store(true, Release);
        self.queue.wake_all();
        true
    }
}

fn wanted(e: &PollFd) -> PollEvents {
    PollEvents::from_bits_retain(u32::from(e.events as u16)) | PollEvents::ALWAYS
}

/// Asks every descriptor once; returns how many have something to report.
fn look(files: &FdTable, entries: &mut [PollFd]) -> usize {
    let mut ready = 0;
    for e in entries {
        e.revents = match Fd::from_raw(e.fd) {
            // A negative descriptor is skipped: it reports nothing.
            Err(_) => 0,
            Ok(fd) => match files.get_file(fd) {
                Ok(f) => (f.ops.poll(&f, &mut PollTable::look()) & wanted(e)).bits() as i16,
                Err(_) => g::POLLNVAL as i16,
            },
        };
        ready += usize::from(e.revents != 0);
    }
    ready
}

/// Waits until a descriptor is ready or `deadline` (monotonic; None: for ever) has come; returns
/// how many are ready. One that is not open reports POLLNVAL. EINTR when a signal came first;
/// ENOMEM.
pub fn poll_files(files: &FdTable, entries: &mut [PollFd], deadline: Option<Nanos>) -> Result<usize> {
    let ready = look(files, entries);
    if ready > 0 || deadline == Some(Nanos::ZERO) {
        return Ok(ready);
    }
    wait(files, entries, deadline)
}

fn wait(files: &FdTable, entries: &mut [PollFd], deadline: Option<Nanos>) -> Result<usize> {
    let poller = KArc::try_new(Poller { woken: AtomicBool::new(false), queue: WaitQueue::new() })?;
    let callback = karc_as!(poller.clone() => dyn WakeCallback);
    let mut registrations: KVec<Registration> = KVec::new();
    // The files stay open while their queues are waited in.
    let mut held: KVec<Option<KArc<OpenFile>>> = KVec::try_with_capacity(entries.len())?;
    let mut failed = None;
    let mut ready = 0;
    for e in entries.iter_mut() {
        let fd = Fd::from_raw(e.fd).ok();
        let file = fd.and_then(|fd| files.get_file(fd).ok());
        e.revents = if fd.is_some() && file.is_none() { g::POLLNVAL as i16 } else { 0 };
        if let Some(f) = &file {
            let want = wanted(e);
            let mut register = |q: &WaitQueue| {
                let done = q.add_callback(callback.clone(), want.bits(), false).and_then(|r| Ok(registrations.try_push(r)?));
                if let Err(e) = done {
                    failed = Some(e);
                }
            };
            e.revents = (f.poll(&mut PollTable::with(&mut register)) & want).bits() as i16;
        }
        ready += usize::from(e.revents != 0);
        held.try_push(file)?;
    }
    if let Some(e) = failed {
        return Err(e);
    }
    let mut look = || {
        let mut ready = 0;
        for (e, file) in entries.iter_mut().zip(held.iter()) {
            if let Some(f) = file {
                e.revents = (f.poll(&mut PollTable::look()) & wanted(e)).bits() as i16;
            }
            ready += usize::from(e.revents != 0);
        }
        ready
    };
    while ready == 0 {
        let woken = || poller.woken.swap(false, AcqRel).then_some(());
        match poller.queue.wait_until(Sleep::Interruptible, deadline, woken) {
            Outcome::Ready(()) => ready = look(),
            Outcome::TimedOut => return Ok(look()),
            Outcome::Interrupted => {
                ready = look();
                return if ready > 0 { Ok(ready) } else { Err(Errno::EINTR) };
            }
        }
    }
    Ok(ready)
}
