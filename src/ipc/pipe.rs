//! A pipe: its bytes, its two sides, and who waits (`pipe(7)`).
//!
//! The ring has a sleeping lock that is held while user memory is copied; what sleepers look at is
//! kept beside it in atomics (slots in use, slots there are, readers, writers), because a wait's
//! condition must not sleep. They are written with the lock held, or for the counts of the sides
//! before a wake-up.
//!
//! Wake-ups: readers when the pipe stops being empty, writers when it stops being full, everybody
//! when a side comes or goes. A reader that takes only part of what is there passes nothing on: all
//! waiting readers were woken.
//!
//! A side that is *claimed* belongs to one splice(2), which moves bytes between the pipe and a file
//! without the ring's lock, since that may wait; others who want the side wait until it is free.
//!
//! Cost of a round trip of one byte: per side one lock, one slot, one copy, one wake-up.

use crate::{limits, ring::Ring};
use abi::{Errno, Mode, PAGE_SIZE, Result, UserAddr, raw::general as g, raw::ioctl};
use arch::user::UserPtr;
use core::any::Any;
use kalloc::{KArc, KString, kbox_dyn};
use sched::{Mutex, MutexGuard, Outcome, Sleep, WaitQueue};
use sync::{
    LockClass, SpinLock,
    atomic::{
        AtomicU32, AtomicUsize,
        Ordering::{AcqRel, Acquire, Release, SeqCst},
    },
};
use vfs::{Cap, Credentials, FileOps, IoSink, IoSource, OpenFile, PollEvents, PollTable, anon, quota::Charge};

static PIPE: LockClass = LockClass::new("pipe", 350);
static CHARGE: LockClass = LockClass::new("pipe.charge", 1059);

/// Slots of a new pipe.
const SLOTS: usize = 16;
/// Slots of a new pipe of a user with too many (pipe(7), pipe-user-pages-soft).
const FEW_SLOTS: usize = 2;

/// A pipe.
pub struct Pipe {
    ring: Mutex<Ring>,
    /// Slots in use, and slots there are.
    used: AtomicUsize,
    capacity: AtomicUsize,
    pub(crate) readers: AtomicU32,
    pub(crate) writers: AtomicU32,
    /// How often a side was opened: what the other side of a FIFO waits for.
    pub(crate) reads_opened: AtomicU32,
    pub(crate) writes_opened: AtomicU32,
    pub(crate) read_queue: WaitQueue,
    pub(crate) write_queue: WaitQueue,
    /// Claimed sides.
    claims: AtomicU32,
    claim_queue: WaitQueue,
    /// The slots, as the user who made the pipe has them.
    charge: SpinLock<Charge>,
}

/// A side of a pipe that can be claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Read = 1,
    Write = 2,
}

/// A claimed side.
pub(crate) struct Claim<'a> {
    pipe: &'a Pipe,
    side: Side,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.pipe.claims.fetch_and(!(self.side as u32), AcqRel);
        self.pipe.claim_queue.wake_all();
    }
}

impl Pipe {
    /// An empty pipe of `cred`'s. ENFILE: its user has as many pages in pipes as he may; ENOMEM.
    pub(crate) fn new(cred: &Credentials) -> Result<KArc<Self>> {
        let (slots, charge) = limits::charge_new(cred, SLOTS, FEW_SLOTS)?;
        Ok(KArc::try_new(Self {
            ring: Mutex::new(Ring::new(slots)?, &PIPE),
            claims: AtomicU32::new(0),
            claim_queue: WaitQueue::new(),
            charge: SpinLock::new(charge, &CHARGE),
            used: AtomicUsize::new(0),
            capacity: AtomicUsize::new(slots),
            readers: AtomicU32::new(0),
            writers: AtomicU32::new(0),
            reads_opened: AtomicU32::new(0),
            writes_opened: AtomicU32::new(0),
            read_queue: WaitQueue::new(),
            write_queue: WaitQueue::new(),
        })?)
    }

    pub(crate) fn publish(&self, ring: &Ring) {
        self.used.store(ring.used(), Release);
    }

    /// The ring, for who uses `side`. ERESTARTSYS: it is claimed, and a signal came first.
    pub(crate) fn lock_side(&self, side: Side) -> Result<MutexGuard<'_, Ring>> {
        loop {
            let ring = self.ring.lock();
            if self.claims.load(Acquire) & side as u32 == 0 {
                return Ok(ring);
            }
            drop(ring);
            self.wait_unclaimed(side)?;
        }
    }

    fn wait_unclaimed(&self, side: Side) -> Result {
        let free = || (self.claims.load(Acquire) & side as u32 == 0).then_some(());
        match self.claim_queue.wait_until(Sleep::Interruptible, None, free) {
            Outcome::Ready(()) => Ok(()),
            _ => Err(Errno::ERESTARTSYS),
        }
    }

    /// Claims a side. Who used it before has left when the claimer has once had the ring's lock.
    pub(crate) fn claim(&self, side: Side) -> Result<Claim<'_>> {
        while self.claims.fetch_or(side as u32, AcqRel) & side as u32 != 0 {
            self.wait_unclaimed(side)?;
        }
        Ok(Claim { pipe: self, side })
    }

    /// The ring whatever is claimed: for the claimer, and for two pipes at once.
    pub(crate) fn lock(&self, subclass: u8) -> MutexGuard<'_, Ring> {
        self.ring.lock_nested(subclass)
    }
    pub(crate) fn is_claimed(&self, side: Side) -> bool {
        self.claims.load(Acquire) & side as u32 != 0
    }

    /// Waits until there is something to read, or no writer. EAGAIN, ERESTARTSYS.
    pub(crate) fn wait_readable(&self, nonblocking: bool) -> Result {
        let ready = || (self.used.load(Acquire) > 0 || self.writers.load(Acquire) == 0).then_some(());
        match ready() {
            Some(()) => Ok(()),
            None if nonblocking => Err(Errno::EAGAIN),
            None => match self.read_queue.wait_until(Sleep::Interruptible, None, ready) {
                Outcome::Ready(()) => Ok(()),
                _ => Err(Errno::ERESTARTSYS),
            },
        }
    }

    /// Waits until a slot is free. EPIPE without readers, EAGAIN, ERESTARTSYS.
    pub(crate) fn wait_writable(&self, nonblocking: bool) -> Result {
        let ready = || {
            if self.readers.load(Acquire) == 0 {
                return Some(Err(Errno::EPIPE));
            }
            (self.used.load(Acquire) < self.capacity.load(Acquire)).then_some(Ok(()))
        };
        match ready() {
            Some(result) => result,
            None if nonblocking => Err(Errno::EAGAIN),
            None => match self.write_queue.wait_until(Sleep::Interruptible, None, ready) {
                Outcome::Ready(result) => result,
                _ => Err(Errno::ERESTARTSYS),
            },
        }
    }

    /// Whether something is there or may come.
    pub(crate) fn has_writers(&self) -> bool {
        self.writers.load(Acquire) > 0
    }
    pub(crate) fn has_readers(&self) -> bool {
        self.readers.load(Acquire) > 0
    }
    /// Tells who waits for bytes.
    pub(crate) fn wake_readers(&self) {
        self.read_queue.wake_all_key(PollEvents::READABLE.bits());
    }
    /// Tells who waits for room.
    pub(crate) fn wake_writers(&self) {
        self.write_queue.wake_all_key(PollEvents::WRITABLE.bits());
    }

    pub(crate) fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, nonblocking: bool) -> Result<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        loop {
            let (result, was_full) = {
                let mut ring = self.lock_side(Side::Read)?;
                let was_full = ring.is_full();
                let result = ring.read(dst);
                self.publish(&ring);
                (result, was_full && !ring.is_full())
            };
            if was_full {
                self.write_queue.wake_all_key(PollEvents::WRITABLE.bits());
            }
            match result {
                Ok(0) => {}
                Ok(n) => {
                    f.inode.touch_accessed(false);
                    return Ok(n);
                }
                Err(e) => return Err(e),
            }
            if self.writers.load(Acquire) == 0 {
                // What the last writer wrote before it left is there to be seen now.
                if self.used.load(Acquire) == 0 {
                    return Ok(0);
                }
                continue;
            }
            self.wait_readable(nonblocking)?;
        }
    }

    fn write(&self, f: &OpenFile, src: &mut IoSource<'_>) -> Result<usize> {
        if src.remaining() == 0 {
            return Ok(0);
        }
        let packet = f.flags() & g::O_DIRECT != 0;
        let mut done = 0;
        let mut first = true;
        loop {
            let mut was_empty = false;
            let step = {
                match self.lock_side(Side::Write) {
                    Ok(mut ring) => {
                        let step = self.fill(&mut ring, src, packet, first, &mut done, &mut was_empty);
                        self.publish(&ring);
                        step
                    }
                    Err(e) => Err(e),
                }
            };
            first = false;
            // Who watches for edges is told of every write.
            if done > 0 && (was_empty || self.read_queue.has_waiters()) {
                self.read_queue.wake_all_key(PollEvents::READABLE.bits());
            }
            let outcome = match step {
                // Everything went in.
                Ok(()) if src.remaining() == 0 => Ok(()),
                Ok(()) if f.is_nonblocking() => Err(Errno::EAGAIN),
                Ok(()) => {
                    let ready = || {
                        let room = self.used.load(Acquire) < self.capacity.load(Acquire);
                        (room || self.readers.load(Acquire) == 0).then_some(())
                    };
                    match self.write_queue.wait_until(Sleep::Interruptible, None, ready) {
                        Outcome::Ready(()) => continue,
                        _ => Err(Errno::ERESTARTSYS),
                    }
                }
                Err(e) => Err(e),
            };
            if done > 0 {
                f.inode.touch_modified();
                return Ok(done);
            }
            return outcome.map(|()| done);
        }
    }

    /// Puts in what fits. EPIPE without readers.
    fn fill(
        &self,
        ring: &mut Ring,
        src: &mut IoSource<'_>,
        packet: bool,
        first: bool,
        done: &mut usize,
        was_empty: &mut bool,
    ) -> Result {
        if self.readers.load(Acquire) == 0 {
            return Err(Errno::EPIPE);
        }
        *was_empty = ring.used() == 0;
        if first && !packet {
            *done += ring.merge(src)?;
        }
        while src.remaining() > 0 && !ring.is_full() {
            let want = src.remaining().min(PAGE_SIZE);
            let n = ring.push(src, packet)?;
            *done += n;
            if n < want {
                return Err(Errno::EFAULT);
            }
        }
        Ok(())
    }

    /// A side goes.
    fn leave(&self, reading: bool, writing: bool) {
        if reading {
            self.readers.fetch_sub(1, SeqCst);
        }
        if writing {
            self.writers.fetch_sub(1, SeqCst);
        }
        if self.readers.load(SeqCst) == 0 && self.writers.load(SeqCst) == 0 {
            // A FIFO that nobody has open forgets its contents (fifo(7)).
            let mut ring = self.ring.lock();
            if self.readers.load(SeqCst) == 0 && self.writers.load(SeqCst) == 0 {
                ring.clear();
                self.publish(&ring);
            }
        }
        self.read_queue.wake_all_key((PollEvents::READABLE | PollEvents::HUP).bits());
        self.write_queue.wake_all_key((PollEvents::WRITABLE | PollEvents::ERR).bits());
    }

    /// Changes the size to at least `bytes`; returns the new one. EINVAL, EPERM, EBUSY.
    fn set_size(&self, bytes: u64, cred: &Credentials) -> Result<u64> {
        let slots = limits::round_size(bytes).ok_or(Errno::EINVAL)? / PAGE_SIZE;
        let mut ring = self.lock_side(Side::Write)?;
        let grows = slots > ring.capacity();
        if grows && slots * PAGE_SIZE > limits::max_size() && !cred.capable(Cap::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
        // Counted before it is there, so that many at a time do not get past the limit together.
        let before = {
            let mut charge = self.charge.lock();
            let before = charge.amount();
            let total = charge.change(slots as u64);
            if grows && limits::is_too_many(total, cred) {
                charge.change(before);
                return Err(Errno::EPERM);
            }
            before
        };
        if let Err(e) = ring.resize(slots) {
            self.charge.lock().change(before);
            return Err(e);
        }
        self.capacity.store(slots, Release);
        self.publish(&ring);
        drop(ring);
        if grows {
            self.write_queue.wake_all_key(PollEvents::WRITABLE.bits());
        }
        Ok((slots * PAGE_SIZE) as u64)
    }
}

/// One open side of a pipe.
pub(crate) struct End {
    pub(crate) pipe: KArc<Pipe>,
    pub(crate) reading: bool,
    pub(crate) writing: bool,
    /// How often the write side had been opened: no hang-up is shown to a reader that came before
    /// the first writer (fifo(7), O_NONBLOCK).
    pub(crate) writes_seen: u32,
}

impl FileOps for End {
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        self.pipe.read(f, dst, f.is_nonblocking())
    }
    fn write(&self, f: &OpenFile, src: &mut IoSource<'_>, _pos: &mut u64) -> Result<usize> {
        self.pipe.write(f, src)
    }
    fn can_seek(&self) -> bool {
        false
    }
    fn can_poll(&self) -> bool {
        true
    }
    fn poll(&self, _f: &OpenFile, table: &mut PollTable<'_>) -> PollEvents {
        let p = &self.pipe;
        let mut events = PollEvents::empty();
        if self.reading {
            table.register(&p.read_queue);
            if p.used.load(Acquire) > 0 {
                events |= PollEvents::READABLE;
            }
            if p.writers.load(Acquire) == 0 && p.writes_opened.load(Acquire) != self.writes_seen {
                events |= PollEvents::HUP;
            }
        }
        if self.writing {
            table.register(&p.write_queue);
            if p.used.load(Acquire) < p.capacity.load(Acquire) {
                events |= PollEvents::WRITABLE;
            }
            if p.readers.load(Acquire) == 0 {
                events |= PollEvents::ERR;
            }
        }
        events
    }
    fn ioctl(&self, _f: &OpenFile, cmd: u32, arg: u64) -> Result<u64> {
        if cmd != ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let n = self.pipe.ring.lock().bytes();
        UserPtr::<i32>::new(UserAddr(arg)).write(i32::try_from(n).unwrap_or(i32::MAX))?;
        Ok(0)
    }
    fn fcntl(&self, _f: &OpenFile, cmd: u32, _arg: u64) -> Result<u64> {
        match cmd {
            g::F_GETPIPE_SZ => Ok((self.pipe.capacity.load(Acquire) * PAGE_SIZE) as u64),
            _ => Err(Errno::EINVAL),
        }
    }
    fn release(&self, _f: &OpenFile) {
        self.pipe.leave(self.reading, self.writing);
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `fcntl(F_SETPIPE_SZ)` for `cred`: the new size. EBADF: no pipe; EINVAL, EPERM, EBUSY, ENOMEM.
pub fn set_pipe_size(f: &OpenFile, bytes: u64, cred: &Credentials) -> Result<u64> {
    pipe_of(f).ok_or(Errno::EBADF)?.set_size(bytes, cred)
}

/// The pipe behind an open file.
pub(crate) fn pipe_of(f: &OpenFile) -> Option<&KArc<Pipe>> {
    f.ops_as::<End>().map(|end| &end.pipe)
}

/// `pipe2(2)`: a pipe's read and write side. `flags`: O_NONBLOCK, O_DIRECT (O_CLOEXEC is the
/// descriptor's). EINVAL for others.
pub fn pipe_pair(flags: u32, cred: &KArc<Credentials>) -> Result<(KArc<OpenFile>, KArc<OpenFile>)> {
    if flags & !(g::O_NONBLOCK | g::O_DIRECT | g::O_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let pipe = Pipe::new(cred)?;
    let inode = anon::inode(Mode(g::S_IFIFO | 0o600), cred.fsuid, cred.fsgid)?;
    // An open by way of /proc/PID/fd finds the same pipe.
    inode.set_special(Some(pipe.clone().into_any()));
    let mut name = KString::new();
    core::fmt::write(&mut name, format_args!("pipe:[{}]", inode.ino)).map_err(|_| Errno::ENOMEM)?;
    let end = |reading| {
        // The counts are taken here and given back by `release`, which runs with every End that an
        // OpenFile got, whether or not the call succeeds.
        kbox_dyn!(End { pipe: pipe.clone(), reading, writing: !reading, writes_seen: 0 } => dyn FileOps)
    };
    let (read_end, write_end) = (end(true)?, end(false)?);
    pipe.readers.store(1, SeqCst);
    pipe.writers.store(1, SeqCst);
    pipe.writes_opened.store(1, SeqCst);
    let status = flags & (g::O_NONBLOCK | g::O_DIRECT);
    let reader = OpenFile::anonymous(name.as_bytes(), inode, read_end, g::O_RDONLY | flags & g::O_NONBLOCK, cred)?;
    let writer = reader.another(write_end, g::O_WRONLY | status)?;
    Ok((reader, writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(flags: u32) -> (KArc<OpenFile>, KArc<OpenFile>) {
        crate::memory_for_tests();
        pipe_pair(flags, &KArc::try_new(Credentials::root()).unwrap()).unwrap()
    }
    fn put(f: &OpenFile, data: &[u8]) -> Result<usize> {
        f.write(&mut IoSource::kernel(data), u64::MAX)
    }
    fn get(f: &OpenFile, n: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0; n];
        let got = f.read(&mut IoSink::kernel(&mut buf))?;
        buf.truncate(got);
        Ok(buf)
    }
    fn look(f: &OpenFile) -> PollEvents {
        f.poll(&mut PollTable::look())
    }

    #[test]
    fn bytes_arrive_and_the_writers_end_is_the_end() {
        let (r, w) = pair(g::O_NONBLOCK);
        assert_eq!(get(&r, 10), Err(Errno::EAGAIN));
        assert_eq!(put(&w, b"hello"), Ok(5));
        assert_eq!(look(&r), PollEvents::READABLE);
        drop(w);
        assert_eq!(look(&r), PollEvents::READABLE | PollEvents::HUP);
        assert_eq!(get(&r, 3), Ok(b"hel".to_vec()));
        assert_eq!(get(&r, 10), Ok(b"lo".to_vec()));
        assert_eq!(get(&r, 10), Ok(vec![]));
        assert_eq!(put(&r, b"x"), Err(Errno::EBADF));
    }

    #[test]
    fn without_readers_a_write_is_epipe() {
        let (r, w) = pair(0);
        drop(r);
        assert_eq!(put(&w, b"x"), Err(Errno::EPIPE));
        assert_eq!(look(&w), PollEvents::WRITABLE | PollEvents::ERR);
        assert_eq!(put(&w, b""), Ok(0));
    }

    #[test]
    fn a_full_pipe_takes_65536_bytes_and_then_eagain() {
        let (r, w) = pair(g::O_NONBLOCK);
        assert_eq!(put(&w, &vec![1; 100_000]), Ok(65536));
        assert_eq!(put(&w, b"x"), Err(Errno::EAGAIN));
        assert_eq!(look(&w), PollEvents::empty());
        assert_eq!(get(&r, 4095).unwrap().len(), 4095);
        // The page is not empty yet: no slot is free.
        assert_eq!(put(&w, b"x"), Err(Errno::EAGAIN));
        assert_eq!(get(&r, 1).unwrap().len(), 1);
        assert_eq!(put(&w, b"x"), Ok(1));
    }

    #[test]
    fn sizes_are_powers_of_two_of_pages_and_need_privilege_beyond_a_megabyte() {
        let (r, w) = pair(0);
        let cmd = |c, a| r.ops.fcntl(&r, c, a);
        assert_eq!(cmd(g::F_GETPIPE_SZ, 0), Ok(65536));
        let root = Credentials::root();
        assert_eq!(set_pipe_size(&r, 5000, &root), Ok(8192));
        assert_eq!(put(&w, &[0; 8192]), Ok(8192));
        assert_eq!(set_pipe_size(&r, 4096, &root), Err(Errno::EBUSY));
        assert_eq!(set_pipe_size(&r, 1 << 21, &root), Ok(1 << 21));
        let user = Credentials::user(1000, 1000, vfs::Caps::default());
        let end = r.ops_as::<End>().unwrap();
        assert_eq!(end.pipe.set_size(1 << 22, &user), Err(Errno::EPERM));
        assert_eq!(end.pipe.set_size(u64::MAX, &user), Err(Errno::EINVAL));
    }

    #[test]
    fn packets_keep_their_borders() {
        let (r, w) = pair(g::O_DIRECT | g::O_NONBLOCK);
        put(&w, b"one").unwrap();
        put(&w, b"two").unwrap();
        assert_eq!(get(&r, 100), Ok(b"one".to_vec()));
        assert_eq!(get(&r, 100), Ok(b"two".to_vec()));
    }
}
