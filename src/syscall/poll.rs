//! Waiting for files (`poll(2)`, `select(2)`).

use abi::{Errno, Nanos, Result, UserAddr, raw::general as g};
use arch::user::{SigsetArg, UserPtr, UserSlice};
use kalloc::{KBytes, KVec};
use process::{Personality, Task, signal::calls};
use vfs::{Fd, PollEntry, PollEvents, poll_files};

/// A relative timeout as a point on the monotonic clock; zero stays zero ("do not wait").
fn deadline(timeout: UserPtr<g::__kernel_timespec>) -> Result<Option<Nanos>> {
    if timeout.is_null() {
        return Ok(None);
    }
    let t = Nanos::from_timespec(&timeout.read()?).ok_or(Errno::EINVAL)?;
    Ok(Some(if t == Nanos::ZERO { t } else { time::monotonic().saturating_add(t) }))
}

/// Writes the time that is left back (Linux does; POSIX leaves it open). Errors are ignored.
fn write_rest(task: &Task, timeout: UserPtr<g::__kernel_timespec>, until: Option<Nanos>) {
    if let Some(until) = until
        && !task.personality().contains(Personality::STICKY_TIMEOUTS)
    {
        let rest = until.saturating_sub(time::monotonic());
        let _ = timeout.write(rest.to_timespec());
    }
}

/// Runs a wait with the temporary mask in place; a wait that a signal ended keeps the mask until
/// the handler's frame is built.
fn masked<T>(task: &Task, mask: UserPtr<u64>, size: usize, wait: impl FnOnce() -> Result<T>) -> Result<T> {
    calls::set_temporary_mask(task, mask, size)?;
    let result = wait();
    match result {
        Err(Errno::EINTR) => Err(Errno::ERESTARTNOHAND),
        other => {
            calls::drop_temporary_mask(task);
            other
        }
    }
}

fn entry(task: &Task, fd: i32, events: u32) -> PollEntry {
    match Fd::from_raw(fd).and_then(|fd| task.file(fd)) {
        Ok(file) => PollEntry { file: Some(file), events: PollEvents::from_bits_truncate(events), revents: PollEvents::empty() },
        Err(_) => PollEntry { file: None, events: PollEvents::empty(), revents: PollEvents::NVAL },
    }
}

pub fn ppoll(task: &Task, fds: UserPtr<g::pollfd>, count: u32, timeout: UserPtr<g::__kernel_timespec>, mask: UserPtr<u64>, size: usize) -> Result<usize> {
    let until = deadline(timeout)?;
    if u64::from(count) > task.process().limit(g::RLIMIT_NOFILE) {
        return Err(Errno::EINVAL);
    }
    let none = g::pollfd { fd: 0, events: 0, revents: 0 };
    let mut raw = KVec::try_from_elem(none, count as usize)?;
    fds.read_slice(&mut raw)?;
    let mut entries: KVec<PollEntry> = KVec::try_with_capacity(count as usize)?;
    for p in raw.iter() {
        // A negative descriptor is skipped: it reports nothing.
        let skipped = PollEntry { file: None, events: PollEvents::empty(), revents: PollEvents::empty() };
        entries.try_push(if p.fd < 0 { skipped } else { entry(task, p.fd, p.events as u16 as u32) })?;
    }
    let result = masked(task, mask, size, || poll_files(&mut entries, until));
    write_rest(task, timeout, until);
    let ready = result?;
    for (p, e) in raw.iter_mut().zip(entries.iter()) {
        p.revents = e.revents.bits() as i16;
    }
    fds.write_slice(&raw)?;
    Ok(ready)
}

/// What makes a descriptor count as readable, writable, exceptional (`select(2)`, NOTES).
const READ: PollEvents =
    PollEvents::IN.union(PollEvents::RDNORM).union(PollEvents::RDBAND).union(PollEvents::HUP).union(PollEvents::ERR);
const WRITE: PollEvents = PollEvents::OUT.union(PollEvents::WRNORM).union(PollEvents::WRBAND).union(PollEvents::ERR);
const EXCEPT: PollEvents = PollEvents::PRI;

/// A bit set of descriptors in user memory.
struct FdSet {
    at: UserAddr,
    bits: KBytes,
}

impl FdSet {
    fn read(at: UserAddr, bytes: usize) -> Result<Self> {
        let mut bits = KBytes::try_from_elem(0, bytes)?;
        if !at.is_null() {
            UserSlice::new(at, bytes).read_into(&mut bits)?;
        }
        Ok(Self { at, bits })
    }
    fn has(&self, fd: usize) -> bool {
        self.bits.get(fd / 8).is_some_and(|b| b >> (fd % 8) & 1 != 0)
    }
    fn clear(&mut self) {
        self.bits.fill(0);
    }
    fn set(&mut self, fd: usize) {
        if let Some(b) = self.bits.get_mut(fd / 8) {
            *b |= 1 << (fd % 8);
        }
    }
    fn write(&self) -> Result {
        if self.at.is_null() { Ok(()) } else { UserSlice::new(self.at, self.bits.len()).write_from(&self.bits) }
    }
}

pub fn pselect6(task: &Task, n: i32, read: UserAddr, write: UserAddr, except: UserAddr, timeout: UserPtr<g::__kernel_timespec>, mask: UserPtr<SigsetArg>) -> Result<usize> {
    let until = deadline(timeout)?;
    let n = usize::try_from(n).map_err(|_| Errno::EINVAL)?;
    let n = n.min(task.process().limit(g::RLIMIT_NOFILE) as usize);
    // Sets are arrays of 64-bit words.
    let bytes = n.div_ceil(64) * 8;
    let mut sets = [FdSet::read(read, bytes)?, FdSet::read(write, bytes)?, FdSet::read(except, bytes)?];
    let mut entries: KVec<PollEntry> = KVec::new();
    let mut numbers: KVec<usize> = KVec::new();
    let wants = [READ, WRITE, EXCEPT];
    for fd in 0..n {
        let mut events = PollEvents::empty();
        for (set, want) in sets.iter().zip(wants) {
            if set.has(fd) {
                events |= want;
            }
        }
        if !events.is_empty() {
            let file = task.file(Fd::from_raw(fd as i32)?)?;
            entries.try_push(PollEntry { file: Some(file), events, revents: PollEvents::empty() })?;
            numbers.try_push(fd)?;
        }
    }
    let arg = if mask.is_null() { SigsetArg::default() } else { mask.read()? };
    let result = masked(task, UserPtr::new(UserAddr(arg.mask)), arg.size as usize, || poll_files(&mut entries, until));
    write_rest(task, timeout, until);
    result?;
    let mut asked = KVec::new();
    for fd in numbers.iter() {
        asked.try_push([sets[0].has(*fd), sets[1].has(*fd), sets[2].has(*fd)])?;
    }
    for set in &mut sets {
        set.clear();
    }
    let mut total = 0;
    for ((fd, e), asked) in numbers.iter().zip(entries.iter()).zip(asked.iter()) {
        for ((set, want), asked) in sets.iter_mut().zip(wants).zip(asked) {
            if *asked && e.revents.intersects(want) {
                set.set(*fd);
                total += 1;
            }
        }
    }
    for set in &sets {
        set.write()?;
    }
    Ok(total)
}
