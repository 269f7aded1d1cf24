//! Signals as a file (`signalfd(2)`): a read takes pending signals out of the reader's queues.
//!
//! The file holds a mask and nothing else. Whose signals a read or a poll is about is decided by who
//! asks: the current task and its process. Senders wake `Process::signal_arrived`, under the lock on
//! the process's signals.

use super::{Cause, SigInfo, SigSet, calls, clock_ticks};
use crate::task::{Task, with_current};
use abi::{Errno, Result, raw::general as g};
use core::{any::Any, fmt};
use kalloc::{KArc, kbox_dyn};
use sched::{Outcome, Sleep};
use sync::atomic::{AtomicU64, Ordering::Relaxed};
use vfs::{FileOps, IoSink, OpenFile, PollEvents, PollTable, anon};

/// Bytes of `struct signalfd_siginfo`.
const SIZE: usize = 128;

struct SignalFd {
    mask: AtomicU64,
}

impl SignalFd {
    fn mask(&self) -> SigSet {
        SigSet(self.mask.load(Relaxed))
    }

    /// Takes one signal of the mask that waits for the task.
    fn take(&self, task: &Task) -> Option<SigInfo> {
        calls::take(task, self.mask())
    }

    fn read_for(&self, task: &Task, f: &OpenFile, dst: &mut IoSink<'_>) -> Result<usize> {
        let mut done = 0;
        while dst.remaining() >= SIZE {
            let info = match self.take(task) {
                Some(info) => info,
                None if done > 0 => break,
                None if f.is_nonblocking() => return Err(Errno::EAGAIN),
                None => match task.process.signal_arrived.wait_until(Sleep::Interruptible, None, || self.take(task)) {
                    Outcome::Ready(info) => info,
                    _ => return Err(Errno::ERESTARTSYS),
                },
            };
            dst.write_all(&encode(&info))?;
            done += SIZE;
        }
        Ok(done)
    }
}

impl FileOps for SignalFd {
    fn read(&self, f: &OpenFile, dst: &mut IoSink<'_>, _pos: &mut u64) -> Result<usize> {
        if dst.remaining() < SIZE {
            return Err(Errno::EINVAL);
        }
        with_current(|task| self.read_for(task, f, dst)).unwrap_or(Err(Errno::EINVAL))
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
        let waiting = with_current(|task| {
            table.register(&task.process.signal_arrived);
            let shared = task.process.signals.lock_irq();
            let own = task.signals.lock();
            (own.queue.pending().0 | shared.shared.pending().0) & self.mask().0 != 0
        });
        if waiting == Some(true) { PollEvents::IN } else { PollEvents::empty() }
    }
    fn fdinfo(&self, _f: &OpenFile, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "sigmask:\t{:016x}", self.mask().0)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `struct signalfd_siginfo`: numbers at fixed places, whatever the cause.
fn encode(info: &SigInfo) -> [u8; SIZE] {
    let mut out = [0; SIZE];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(to) = out.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    };
    put(0, &info.signal.number().to_le_bytes());
    put(8, &info.code().to_le_bytes());
    match info.cause {
        Cause::Kernel => {}
        Cause::User { pid, uid, .. } => {
            put(12, &pid.to_le_bytes());
            put(16, &uid.to_le_bytes());
        }
        Cause::Child { pid, uid, status, utime, stime, .. } => {
            put(12, &pid.to_le_bytes());
            put(16, &uid.to_le_bytes());
            put(40, &status.to_le_bytes());
            put(56, &clock_ticks(utime).to_le_bytes());
            put(64, &clock_ticks(stime).to_le_bytes());
        }
        Cause::Fault { addr, .. } => put(72, &addr.to_le_bytes()),
        Cause::Timer { id, overrun, value, .. } => {
            put(24, &id.to_le_bytes());
            put(32, &(overrun.min(i32::MAX as u64) as u32).to_le_bytes());
            put(44, &(value as u32).to_le_bytes());
            put(48, &value.to_le_bytes());
        }
        Cause::Syscall { addr, number, arch, reason } => {
            put(4, &reason.to_le_bytes());
            put(84, &number.to_le_bytes());
            put(88, &addr.to_le_bytes());
            put(96, &arch.to_le_bytes());
        }
        // pid, uid, value (`sigqueue(3)`).
        Cause::Queued { fields, .. } => {
            let (ids, value) = (fields.get(..8).unwrap_or(&[]), fields.get(8..16).unwrap_or(&[]));
            put(12, ids);
            put(44, value.get(..4).unwrap_or(&[]));
            put(48, value);
        }
    }
    out
}

/// `signalfd4(2)` without a descriptor: a new file. EINVAL for flags beside SFD_CLOEXEC (the
/// descriptor's) and SFD_NONBLOCK, whose values are those of O_CLOEXEC and O_NONBLOCK.
pub fn create(task: &Task, mask: SigSet, flags: u32) -> Result<KArc<OpenFile>> {
    if flags & !(g::O_CLOEXEC | g::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = SignalFd { mask: AtomicU64::new(mask.minus(SigSet::UNBLOCKABLE).0) };
    let flags = g::O_RDWR | flags & g::O_NONBLOCK;
    anon::file("anon_inode:[signalfd]", kbox_dyn!(file => dyn FileOps)?, flags, &task.cred()?)
}

/// `signalfd4(2)` with a descriptor: its file gets another mask. EINVAL for a file of another kind.
pub fn set_mask(task: &Task, file: &OpenFile, mask: SigSet) -> Result {
    let it = file.ops.as_any().downcast_ref::<SignalFd>().ok_or(Errno::EINVAL)?;
    it.mask.store(mask.minus(SigSet::UNBLOCKABLE).0, Relaxed);
    task.process.signal_arrived.wake_all_key(PollEvents::IN.bits());
    Ok(())
}
