//! Waiting for files (`poll(2)`, `select(2)`).

use abi::{Errno, Nanos, Result, UserAddr, raw::general as g};
use arch::user::{SigsetArg, UserPtr};
use kalloc::KVec;
use process::{Personality, Task, signal::calls};
use vfs::{PollEvents, PollFd, poll_files};

/// A relative timeout as a point on the monotonic clock; zero stays zero ("do not wait").
pub(crate) fn deadline(timeout: UserPtr<g::__kernel_timespec>) -> Result<Option<Nanos>> {
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

/// Entries that a call may have without the heap.
const FEW: usize = 16;

/// Lends `f` an array of `n` entries.
fn with_entries<R>(n: usize, f: impl FnOnce(&mut [PollFd]) -> Result<R>) -> Result<R> {
    let none = PollFd { fd: -1, events: 0, revents: 0 };
    let mut few = [none; FEW];
    match few.get_mut(..n) {
        Some(entries) => f(entries),
        None => f(&mut KVec::try_from_elem(none, n)?),
    }
}

pub fn ppoll(task: &Task, fds: UserPtr<g::pollfd>, count: u32, timeout: UserPtr<g::__kernel_timespec>, mask: UserPtr<u64>, size: usize) -> Result<usize> {
    let until = deadline(timeout)?;
    if u64::from(count) > task.process().limit(g::RLIMIT_NOFILE) {
        return Err(Errno::EINVAL);
    }
    with_entries(count as usize, |entries| {
        fds.read_slice(entries)?;
        let files = task.files()?;
        let result = masked(task, mask, size, || poll_files(&files, entries, until));
        write_rest(task, timeout, until);
        let ready = result?;
        fds.write_slice(entries)?;
        Ok(ready)
    })
}

/// What makes a descriptor count as readable, writable, exceptional (`select(2)`, NOTES).
const READ: PollEvents =
    PollEvents::IN.union(PollEvents::RDNORM).union(PollEvents::RDBAND).union(PollEvents::HUP).union(PollEvents::ERR);
const WRITE: PollEvents = PollEvents::OUT.union(PollEvents::WRNORM).union(PollEvents::WRBAND).union(PollEvents::ERR);
const EXCEPT: PollEvents = PollEvents::PRI;

/// The three sets of select(2), in words of 64 descriptors: read, write, exceptional.
struct Sets {
    at: [UserAddr; 3],
    words: KVec<[u64; 3]>,
}

impl Sets {
    /// Most words that one copy moves.
    const CHUNK: usize = 16;

    fn read(at: [UserAddr; 3], n: usize) -> Result<Self> {
        let mut words = KVec::try_from_elem([0; 3], n.div_ceil(64))?;
        let mut chunk = [0; Self::CHUNK];
        for (set, &at) in at.iter().enumerate().filter(|(_, at)| !at.is_null()) {
            for (i, part) in words.chunks_mut(Self::CHUNK).enumerate() {
                let chunk = chunk.get_mut(..part.len()).ok_or(Errno::EINVAL)?;
                UserPtr::<u64>::new(at.add((i * Self::CHUNK * 8) as u64)).read_slice(chunk)?;
                for (word, bits) in part.iter_mut().zip(chunk) {
                    if let Some(w) = word.get_mut(set) {
                        *w = *bits;
                    }
                }
            }
        }
        // What is at and beyond `n` in the last word is not asked for.
        if let (Some(last), rest @ 1..) = (words.last_mut(), n % 64) {
            for w in last {
                *w &= (1 << rest) - 1;
            }
        }
        Ok(Self { at, words })
    }

    fn write(&self) -> Result {
        let mut chunk = [0; Self::CHUNK];
        for (set, &at) in self.at.iter().enumerate().filter(|(_, at)| !at.is_null()) {
            for (i, part) in self.words.chunks(Self::CHUNK).enumerate() {
                let chunk = chunk.get_mut(..part.len()).ok_or(Errno::EINVAL)?;
                for (word, bits) in part.iter().zip(chunk.iter_mut()) {
                    *bits = word.get(set).copied().unwrap_or(0);
                }
                UserPtr::<u64>::new(at.add((i * Self::CHUNK * 8) as u64)).write_slice(chunk)?;
            }
        }
        Ok(())
    }

    /// Descriptors in any of the sets.
    fn count(&self) -> usize {
        self.words.iter().map(|[r, w, e]| (r | w | e).count_ones() as usize).sum()
    }

    /// The descriptors with what is asked of each.
    fn fill(&self, entries: &mut [PollFd]) {
        let mut entries = entries.iter_mut();
        for (i, &[r, w, e]) in self.words.iter().enumerate() {
            let mut left = r | w | e;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let mut events = 0;
                for (set, want) in [(r, READ), (w, WRITE), (e, EXCEPT)] {
                    events |= if set >> bit & 1 != 0 { want.bits() } else { 0 };
                }
                if let Some(entry) = entries.next() {
                    *entry = PollFd { fd: (i * 64) as i32 + bit as i32, events: events as i16, revents: 0 };
                }
            }
        }
    }

    /// Keeps of what was asked for that which is ready; returns how many answers that makes.
    fn keep(&mut self, entries: &[PollFd]) -> usize {
        let mut entries = entries.iter();
        let mut total = 0;
        for word in self.words.iter_mut() {
            let [r, w, e] = *word;
            let mut left = r | w | e;
            *word = [0; 3];
            while left != 0 {
                let bit = left & left.wrapping_neg();
                left &= left - 1;
                let Some(entry) = entries.next() else { return total };
                let has = PollEvents::from_bits_retain(u32::from(entry.revents as u16));
                if has.is_empty() {
                    continue;
                }
                for ((out, asked), want) in word.iter_mut().zip([r, w, e]).zip([READ, WRITE, EXCEPT]) {
                    if asked & bit != 0 && has.intersects(want) {
                        *out |= bit;
                        total += 1;
                    }
                }
            }
        }
        total
    }
}

pub fn pselect6(task: &Task, n: i32, read: UserAddr, write: UserAddr, except: UserAddr, timeout: UserPtr<g::__kernel_timespec>, mask: UserPtr<SigsetArg>) -> Result<usize> {
    let until = deadline(timeout)?;
    let n = usize::try_from(n).map_err(|_| Errno::EINVAL)?;
    let files = task.files()?;
    let n = n.min(files.size());
    let mut sets = Sets::read([read, write, except], n)?;
    with_entries(sets.count(), |entries| {
        sets.fill(entries);
        let arg = if mask.is_null() { SigsetArg::default() } else { mask.read()? };
        let result = masked(task, UserPtr::new(UserAddr(arg.mask)), arg.size as usize, || {
            let ready = poll_files(&files, entries, until)?;
            if ready > 0 && entries.iter().any(|e| e.revents as u32 & g::POLLNVAL != 0) {
                return Err(Errno::EBADF);
            }
            Ok(ready)
        });
        write_rest(task, timeout, until);
        result?;
        let total = sets.keep(entries);
        sets.write()?;
        Ok(total)
    })
}
