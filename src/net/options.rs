//! Options of the socket level (`socket(7)`), the same for every family.

use crate::{Ids, SocketOps};
use abi::{Errno, Nanos, Result, UserAddr, raw::net as n};
use arch::user::{UserPtr, UserSlice};
use sched::{WaitQueue, Wake, WakeCallback};
use kalloc::KArc;
use sync::atomic::{
    AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, SeqCst},
};
use vfs::{Cap, Credentials, PollEvents};

/// net.core.wmem_default and rmem_default, and their limits.
const BUFFER: usize = 212_992;
/// SOCK_MIN_SNDBUF and SOCK_MIN_RCVBUF.
const MIN_SEND: usize = 4608;
const MIN_RECEIVE: usize = 2304;

/// Bytes that a socket has sent and nobody has read, and who waits for their number to fall.
/// On its own, since messages outlive their sender.
pub struct Budget {
    used: AtomicUsize,
    limit: AtomicUsize,
    pub(crate) writers: WaitQueue,
}

impl Budget {
    pub(crate) fn used(&self) -> usize {
        self.used.load(Acquire)
    }
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }
    pub(crate) fn has_room(&self) -> bool {
        self.used() < self.limit()
    }
    /// Whether poll says that it can be written: at most a quarter is used.
    pub(crate) fn is_writable(&self) -> bool {
        self.used() * 4 <= self.limit()
    }
    pub(crate) fn charge(&self, n: usize) {
        self.used.fetch_add(n, SeqCst);
    }
    pub(crate) fn uncharge(&self, n: usize) {
        self.used.fetch_sub(n, SeqCst);
        if self.writers.has_waiters() && self.is_writable() {
            self.writers.wake_all_key((PollEvents::WRITABLE | PollEvents::WRBAND).bits());
        }
    }
}

impl WakeCallback for Budget {
    /// A peer to whom the socket sends has room again.
    fn woken(&self, wake: Wake) -> bool {
        self.writers.wake_nested(wake, (PollEvents::WRITABLE | PollEvents::WRBAND).bits());
        true
    }
}

/// The options.
pub struct Options {
    pub(crate) budget: KArc<Budget>,
    receive_buffer: AtomicUsize,
    receive_low: AtomicU32,
    receive_timeout: AtomicU64,
    send_timeout: AtomicU64,
    pub(crate) pass_credentials: AtomicBool,
    pub(crate) peek_offset: AtomicI32,
    pub(crate) error: AtomicU32,
    /// Options that are on or off, a bit each by number.
    switches: AtomicU64,
    priority: AtomicU32,
    mark: AtomicU32,
    linger: AtomicU64,
}

const NEVER: u64 = u64::MAX;

fn timeout(t: &AtomicU64) -> Option<Nanos> {
    match t.load(Relaxed) {
        NEVER => None,
        ns => Some(Nanos(ns)),
    }
}

impl Options {
    pub(crate) fn try_new() -> Result<Self> {
        let budget = Budget { used: AtomicUsize::new(0), limit: AtomicUsize::new(BUFFER), writers: WaitQueue::new() };
        Ok(Self {
            budget: KArc::try_new(budget)?,
            receive_buffer: AtomicUsize::new(BUFFER),
            receive_low: AtomicU32::new(1),
            receive_timeout: AtomicU64::new(NEVER),
            send_timeout: AtomicU64::new(NEVER),
            pass_credentials: AtomicBool::new(false),
            peek_offset: AtomicI32::new(-1),
            error: AtomicU32::new(0),
            switches: AtomicU64::new(0),
            priority: AtomicU32::new(0),
            mark: AtomicU32::new(0),
            linger: AtomicU64::new(0),
        })
    }
    /// SO_RCVTIMEO.
    pub fn receive_timeout(&self) -> Option<Nanos> {
        timeout(&self.receive_timeout)
    }
    /// SO_SNDTIMEO.
    pub fn send_timeout(&self) -> Option<Nanos> {
        timeout(&self.send_timeout)
    }
    pub(crate) fn receive_low(&self) -> usize {
        self.receive_low.load(Relaxed) as usize
    }
    /// Sets the error that is to be reported next.
    pub(crate) fn set_error(&self, e: Errno) {
        self.error.store(e.code().into(), SeqCst);
    }
    /// The error that is to be reported next; reporting clears it. ECONNRESET is the only one that
    /// AF_UNIX has.
    pub(crate) fn take_error(&self) -> Result {
        if self.error.load(Relaxed) == 0 || self.error.swap(0, SeqCst) == 0 { Ok(()) } else { Err(Errno::ECONNRESET) }
    }
}

/// Options that this kernel only remembers: nothing of AF_UNIX depends on them.
const SWITCHES: [u32; 10] = [
    n::SO_DEBUG,
    n::SO_REUSEADDR,
    n::SO_DONTROUTE,
    n::SO_BROADCAST,
    n::SO_KEEPALIVE,
    n::SO_OOBINLINE,
    n::SO_REUSEPORT,
    n::SO_TIMESTAMP_OLD,
    n::SO_TIMESTAMPNS_OLD,
    n::SO_RXQ_OVFL,
];

fn read_timeout(at: UserAddr, len: usize) -> Result<u64> {
    if len < size_of::<[i64; 2]>() {
        return Err(Errno::EINVAL);
    }
    let [secs, micros] = UserPtr::<[u64; 2]>::new(at).read()?;
    if micros >= 1_000_000 {
        return Err(Errno::EDOM);
    }
    Ok(match (secs as i64, micros) {
        (s, _) if s < 0 => 0,
        (0, 0) => NEVER,
        (s, us) => Nanos::from_secs(s as u64).saturating_add(Nanos::from_micros(us)).0,
    })
}

/// `setsockopt(2)` at SOL_SOCKET. EINVAL, EFAULT, EPERM, EDOM, ENOPROTOOPT.
pub fn set_option(s: &dyn SocketOps, option: u32, at: UserAddr, len: i32, cred: &Credentials) -> Result {
    let o = &s.common().options;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if len < size_of::<i32>() {
        return Err(Errno::EINVAL);
    }
    let value = UserPtr::<i32>::new(at).read()?;
    let size = (value.max(0) as usize).min(BUFFER) * 2;
    match option {
        n::SO_TYPE | n::SO_PROTOCOL | n::SO_DOMAIN | n::SO_ERROR => return Err(Errno::ENOPROTOOPT),
        n::SO_SNDBUF => o.budget.limit.store(size.max(MIN_SEND), Relaxed),
        n::SO_RCVBUF => o.receive_buffer.store(size.max(MIN_RECEIVE), Relaxed),
        n::SO_SNDBUFFORCE | n::SO_RCVBUFFORCE => {
            if !cred.capable(Cap::NET_ADMIN) {
                return Err(Errno::EPERM);
            }
            let size = (value.max(0) as usize).saturating_mul(2).min(i32::MAX as usize);
            if option == n::SO_SNDBUFFORCE {
                o.budget.limit.store(size.max(MIN_SEND), Relaxed);
            } else {
                o.receive_buffer.store(size.max(MIN_RECEIVE), Relaxed);
            }
        }
        n::SO_RCVLOWAT => o.receive_low.store(if value < 0 { i32::MAX as u32 } else { (value as u32).max(1) }, Relaxed),
        n::SO_RCVTIMEO_OLD | n::SO_RCVTIMEO_NEW => o.receive_timeout.store(read_timeout(at, len)?, Relaxed),
        n::SO_SNDTIMEO_OLD | n::SO_SNDTIMEO_NEW => o.send_timeout.store(read_timeout(at, len)?, Relaxed),
        n::SO_PASSCRED => o.pass_credentials.store(value != 0, Relaxed),
        n::SO_PEEK_OFF => o.peek_offset.store(value, Relaxed),
        n::SO_PRIORITY => {
            if !(0..=6).contains(&value) && !cred.capable(Cap::NET_ADMIN) {
                return Err(Errno::EPERM);
            }
            o.priority.store(value as u32, Relaxed);
        }
        n::SO_MARK => {
            if !cred.capable(Cap::NET_ADMIN) {
                return Err(Errno::EPERM);
            }
            o.mark.store(value as u32, Relaxed);
        }
        n::SO_LINGER => {
            if len < 8 {
                return Err(Errno::EINVAL);
            }
            o.linger.store(UserPtr::<u64>::new(at).read()?, Relaxed);
        }
        _ if SWITCHES.contains(&option) => {
            if value != 0 {
                o.switches.fetch_or(1 << option, Relaxed);
            } else {
                o.switches.fetch_and(!(1 << option), Relaxed);
            }
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

fn ids_bytes(ids: Ids) -> [u32; 4] {
    [ids.pid, ids.uid, ids.gid, 12]
}

/// `getsockopt(2)` at SOL_SOCKET: writes at most what `len` says there is room for, and the
/// length. EINVAL, EFAULT, ENOPROTOOPT.
pub fn get_option(s: &dyn SocketOps, option: u32, at: UserAddr, len: UserPtr<i32>) -> Result {
    let c = s.common();
    let o = &c.options;
    let room = usize::try_from(len.read()?).map_err(|_| Errno::EINVAL)?;
    // The value in words, and how many of their bytes count.
    let one = |v: u32| ([v, 0, 0, 0], 4);
    let time = |t: Option<Nanos>| {
        let t = t.unwrap_or(Nanos::ZERO);
        let (secs, micros) = (t.secs(), (t.subsec() / 1000) as u32);
        ([secs as u32, (secs >> 32) as u32, micros, 0], 16)
    };
    let (words, size) = match option {
        n::SO_TYPE => one(c.kind),
        n::SO_PROTOCOL => one(c.protocol),
        n::SO_DOMAIN => one(c.family),
        n::SO_ERROR => one(o.error.swap(0, SeqCst)),
        n::SO_ACCEPTCONN => one(s.is_listening().into()),
        n::SO_SNDBUF => one(o.budget.limit() as u32),
        n::SO_RCVBUF => one(o.receive_buffer.load(Relaxed) as u32),
        n::SO_RCVLOWAT => one(o.receive_low.load(Relaxed)),
        n::SO_SNDLOWAT => one(1),
        n::SO_RCVTIMEO_OLD | n::SO_RCVTIMEO_NEW => time(o.receive_timeout()),
        n::SO_SNDTIMEO_OLD | n::SO_SNDTIMEO_NEW => time(o.send_timeout()),
        n::SO_PASSCRED => one(o.pass_credentials.load(Relaxed).into()),
        n::SO_PEEK_OFF => one(o.peek_offset.load(Relaxed) as u32),
        n::SO_PRIORITY => one(o.priority.load(Relaxed)),
        n::SO_MARK => one(o.mark.load(Relaxed)),
        n::SO_LINGER => {
            let v = o.linger.load(Relaxed);
            ([v as u32, (v >> 32) as u32, 0, 0], 8)
        }
        n::SO_PEERCRED => {
            let none = Ids { pid: 0, uid: u32::MAX, gid: u32::MAX };
            (ids_bytes(s.peer_ids().unwrap_or(none)), 12)
        }
        _ if SWITCHES.contains(&option) => one((o.switches.load(Relaxed) >> option & 1) as u32),
        _ => return Err(Errno::ENOPROTOOPT),
    };
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    let size = room.min(size);
    UserSlice::new(at, size).write_from(bytes.get(..size).unwrap_or(&[]))?;
    len.write(size as i32)
}
