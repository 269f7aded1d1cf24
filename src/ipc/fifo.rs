//! Named pipes: how the two sides meet at open (`fifo(7)`).
//!
//! An open for reading waits until somebody opens for writing, and the other way round; "until
//! somebody opened", not "until somebody is there", so that a side that comes and goes at once has
//! been there all the same. With O_NONBLOCK a reader does not wait and a writer gets ENXIO.

use crate::pipe::{End, Pipe};
use abi::{Errno, Result, raw::general as g};
use kalloc::{KArc, KBox, kbox_dyn};
use sched::{Outcome, Sleep, WaitQueue};
use sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, SeqCst},
};
use vfs::{Credentials, FifoOpener, FileOps, Inode};

struct Opener;

/// Registers who opens FIFOs.
pub(crate) fn init() {
    static OPENER: Opener = Opener;
    vfs::set_fifo_opener(&OPENER);
}

/// The counts of a side; given back when the open fails.
struct Side {
    pipe: KArc<Pipe>,
    reading: bool,
    writing: bool,
    kept: bool,
}

impl Drop for Side {
    fn drop(&mut self) {
        if !self.kept {
            if self.reading {
                self.pipe.readers.fetch_sub(1, SeqCst);
            }
            if self.writing {
                self.pipe.writers.fetch_sub(1, SeqCst);
            }
            self.pipe.read_queue.wake_all();
            self.pipe.write_queue.wake_all();
        }
    }
}

fn meet(queue: &WaitQueue, opened: &AtomicU32, before: u32) -> Result {
    match queue.wait_until(Sleep::Interruptible, None, || (opened.load(Acquire) != before).then_some(())) {
        Outcome::Ready(()) => Ok(()),
        _ => Err(Errno::ERESTARTSYS),
    }
}

impl FifoOpener for Opener {
    fn open(&self, inode: &KArc<Inode>, flags: u32, cred: &Credentials) -> Result<KBox<dyn FileOps>> {
        let pipe = inode
            .special_or_try_init(|| Ok(Pipe::new(cred)?.into_any()))?
            .downcast::<Pipe>()
            .map_err(|_| Errno::ENXIO)?;
        let (reading, writing) = match flags & g::O_ACCMODE {
            g::O_RDONLY => (true, false),
            g::O_WRONLY => (false, true),
            g::O_RDWR => (true, true),
            _ => return Err(Errno::EINVAL),
        };
        let nonblocking = flags & g::O_NONBLOCK != 0;
        // A pipe without a name, opened by way of /proc/PID/fd: nobody is waited for.
        let is_pipe = inode.has_flag(vfs::I_PRIVATE);
        if writing && !reading && nonblocking && !is_pipe && pipe.readers.load(SeqCst) == 0 {
            return Err(Errno::ENXIO);
        }
        // What was opened before is looked at before our own side shows, or the other side could
        // come, see us, and be missed.
        let reads_before = pipe.reads_opened.load(SeqCst);
        let writes_before = pipe.writes_opened.load(SeqCst);
        if reading {
            pipe.readers.fetch_add(1, SeqCst);
            pipe.reads_opened.fetch_add(1, SeqCst);
        }
        if writing {
            pipe.writers.fetch_add(1, SeqCst);
            pipe.writes_opened.fetch_add(1, SeqCst);
        }
        let mut side = Side { pipe: pipe.clone(), reading, writing, kept: false };
        pipe.read_queue.wake_all();
        pipe.write_queue.wake_all();
        let mut writes_seen = writes_before;
        if reading && !writing {
            if is_pipe || pipe.writers.load(SeqCst) > 0 {
                writes_seen = writes_before.wrapping_sub(1);
            } else if !nonblocking {
                meet(&pipe.read_queue, &pipe.writes_opened, writes_before)?;
            }
        } else if writing && !reading && !is_pipe && pipe.readers.load(SeqCst) == 0 {
            meet(&pipe.write_queue, &pipe.reads_opened, reads_before)?;
        }
        let end = kbox_dyn!(End { pipe, reading, writing, writes_seen } => dyn FileOps)?;
        side.kept = true;
        Ok(end)
    }
}
