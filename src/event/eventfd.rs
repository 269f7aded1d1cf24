//! A counter as a file (`eventfd(2)`): writes add to it, a read takes all of it, or with
//! EFD_SEMAPHORE one.
//!
//! The counter is one atomic word that readers and writers change without a lock.

use abi::{Errno, Result, raw::general as g};
use core::{any::Any, fmt};
use kalloc::{KArc, kbox_dyn};
use sched::{Outcome, Sleep, WaitQueue};
use sync::atomic::{
    AtomicI32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use vfs::{Credentials, FileOps, IoSink, IoSource, OpenFile, PollEvents, PollTable, anon};

/// The largest value that writes can reach.
const MAX: u64 = u64::MAX - 1;
const SIZE: usize = size_of::<u64>();

struct EventFd {
    count: AtomicU64,
    semaphore: bool,
    /// Shown in fdinfo.
    id: i32,
    queue: WaitQueue,
}

impl EventFd {
    /// Takes what a read gives; None when there is nothing.
    fn take(&self) -> Option<u64> {
        let next = |n: u64| (n > 0).then_some(if self.semaphore { n.wrapping_sub(1) } else { 0 });
        let before = self.count.fetch_update(AcqRel, Relaxed, next).ok()?;
        Some(if self.semaphore { 1 } else { before })
    }

    /// Adds; None while it would overflow.
    fn add(&self, n: u64) -> Option<()> {
        let next = |have: u64| have.checked_add(n).filter(|&sum| sum <= MAX);
        self.count.fetch_update(AcqRel, Relaxed, next).is_ok().then_some(())
    }

    /// What `attempt` gives, waiting for it unless the file is not to.
    fn wait<T>(&self, f: &OpenFile, attempt: impl Fn() -> Option<T>) -> Result<T> {
        if let Some(done) = attempt() {
            return Ok(done);
        }
        if f.is_nonblocking() {
            return Err(Errno::EAGAIN);
        }
        match self.queue.wait_until(Sleep::Interruptible, None, attempt) {
            Outcome::Ready(done) => Ok(done),
            _ => Err(Errno::ERESTARTSYS),
        }
    }
}

impl FileOps for EventFd {
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        if dst.remaining() < SIZE {
            return Err(Errno::EINVAL);
        }
        let n = self.wait(f, || self.take())?;
        self.queue.wake_all_key(PollEvents::OUT.bits());
        dst.write_all(&n.to_ne_bytes())?;
        Ok(SIZE)
    }
    fn write(&self, f: &OpenFile, src: &mut IoSource<'_>, _pos: &mut u64) -> Result<usize> {
        if src.remaining() < SIZE {
            return Err(Errno::EINVAL);
        }
        let mut n = [0; SIZE];
        src.read_exact(&mut n)?;
        let n = u64::from_ne_bytes(n);
        if n == u64::MAX {
            return Err(Errno::EINVAL);
        }
        self.wait(f, || self.add(n))?;
        self.queue.wake_all_key(PollEvents::IN.bits());
        Ok(SIZE)
    }
    fn can_seek(&self) -> bool {
        false
    }
    fn ignores_seek(&self) -> bool {
        true
    }
    fn can_poll(&self) -> bool {
        true
    }
    fn poll(&self, _f: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        table.register(&self.queue);
        let n = self.count.load(Acquire);
        let mut events = PollEvents::empty();
        events.set(PollEvents::IN, n > 0);
        events.set(PollEvents::OUT, n < MAX);
        events
    }
    fn fdinfo(&self, _f: &OpenFile, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "eventfd-count: {:16x}\neventfd-id: {}", self.count.load(Relaxed), self.id)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `eventfd2(2)`. `flags`: EFD_SEMAPHORE, EFD_NONBLOCK (EFD_CLOEXEC is the descriptor's). EINVAL
/// for others.
pub fn create(count: u32, flags: u32, cred: &KArc<Credentials>) -> Result<KArc<OpenFile>> {
    static IDS: AtomicI32 = AtomicI32::new(0);
    if flags & !(g::EFD_SEMAPHORE | g::EFD_CLOEXEC | g::EFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let event = EventFd {
        count: AtomicU64::new(count.into()),
        semaphore: flags & g::EFD_SEMAPHORE != 0,
        id: IDS.fetch_add(1, Relaxed),
        queue: WaitQueue::new(),
    };
    anon::file("anon_inode:[eventfd]", kbox_dyn!(event => dyn FileOps)?, g::O_RDWR | flags & g::EFD_NONBLOCK, cred)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(count: u32, flags: u32) -> KArc<OpenFile> {
        create(count, flags | g::EFD_NONBLOCK, &KArc::try_new(Credentials::root()).unwrap()).unwrap()
    }
    fn get(f: &OpenFile) -> Result<u64> {
        let mut n = [0; 8];
        f.read(&mut IoSink::kernel(&mut n))?;
        Ok(u64::from_ne_bytes(n))
    }
    fn put(f: &OpenFile, n: u64) -> Result<usize> {
        f.write(&mut IoSource::kernel(&n.to_ne_bytes()), u64::MAX)
    }

    #[test]
    fn a_read_takes_all_or_with_semaphore_one() {
        let f = event(3, 0);
        assert_eq!(put(&f, 4), Ok(8));
        assert_eq!((get(&f), get(&f)), (Ok(7), Err(Errno::EAGAIN)));
        let f = event(2, g::EFD_SEMAPHORE);
        assert_eq!((get(&f), get(&f), get(&f)), (Ok(1), Ok(1), Err(Errno::EAGAIN)));
    }

    #[test]
    fn a_write_that_would_overflow_is_eagain_and_the_largest_number_einval() {
        let f = event(0, 0);
        assert_eq!(put(&f, MAX), Ok(8));
        assert_eq!(f.poll(&mut PollTable::look()), PollEvents::IN);
        assert_eq!(put(&f, 1), Err(Errno::EAGAIN));
        assert_eq!(put(&f, u64::MAX), Err(Errno::EINVAL));
        assert_eq!(get(&f), Ok(MAX));
        assert_eq!(f.poll(&mut PollTable::look()), PollEvents::OUT);
        assert_eq!(f.read(&mut IoSink::kernel(&mut [0; 7])), Err(Errno::EINVAL));
    }
}
