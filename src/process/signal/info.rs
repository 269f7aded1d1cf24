//! What a signal says about its cause (`siginfo_t`, `sigaction(2)`), and the queue of those that
//! wait to be delivered.

use super::set::{SigSet, Signal};
use abi::{Nanos, raw::general as g};
use kalloc::KVec;

/// Size of `siginfo_t` in the ABI.
pub const SIGINFO_SIZE: usize = 128;

/// `si_code` of a SIGSYS by a seccomp filter.
const SYS_SECCOMP: i32 = 1;

/// Cause of a signal. `code` is `si_code`.
#[derive(Clone, Copy, Debug)]
pub enum Cause {
    /// The kernel itself, without more to say (SI_KERNEL).
    Kernel,
    /// `kill` (SI_USER), `tgkill` (SI_TKILL): sender's pid and uid.
    User { code: i32, pid: u32, uid: u32 },
    /// A child changed state (CLD_*): times in clock ticks.
    Child { code: i32, pid: u32, uid: u32, status: i32, utime: Nanos, stime: Nanos },
    /// A fault of the thread itself: the address it faulted on.
    Fault { code: i32, addr: u64 },
    /// A timer of `timer_create(2)`: what expired beyond the first while the signal was queued, and
    /// which setting of the timer it belongs to.
    Timer { id: u32, overrun: u64, value: u64, arming: u64 },
    /// A system call that a filter refused (SYS_SECCOMP); `reason` is `si_errno`.
    Syscall { addr: u64, number: u32, arch: u32, reason: u32 },
    /// Bytes behind the three header words, as a program handed them to `rt_sigqueueinfo`.
    Queued { code: i32, fields: [u8; SIGINFO_SIZE - 16] },
}

/// A signal with its cause.
#[derive(Clone, Copy, Debug)]
pub struct SigInfo {
    pub signal: Signal,
    pub cause: Cause,
}

/// Clock ticks a second in the ABI (`USER_HZ`).
pub const USER_HZ: u64 = 100;

/// A time in clock ticks, as `times(2)` and `si_utime` count.
pub fn clock_ticks(t: Nanos) -> u64 {
    t.0 / (Nanos::PER_SEC / USER_HZ)
}

impl SigInfo {
    pub fn kernel(signal: Signal) -> Self {
        Self { signal, cause: Cause::Kernel }
    }
    pub fn fault(signal: Signal, code: u32, addr: u64) -> Self {
        Self { signal, cause: Cause::Fault { code: code as i32, addr } }
    }
    /// `si_code`.
    pub fn code(&self) -> i32 {
        match self.cause {
            Cause::Kernel => g::SI_KERNEL as i32,
            Cause::Timer { .. } => g::SI_TIMER,
            Cause::Syscall { .. } => SYS_SECCOMP,
            Cause::User { code, .. } | Cause::Child { code, .. } | Cause::Fault { code, .. } | Cause::Queued { code, .. } => {
                code
            }
        }
    }
    /// The cause that these bytes of `siginfo_t` tell, for `signal` if they name none.
    pub fn decode(raw: &[u8; SIGINFO_SIZE], signal: Signal) -> Self {
        let word = |at: usize| raw.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_le_bytes);
        let signal = Signal::new(word(0) as u32).unwrap_or(signal);
        let mut fields = [0; SIGINFO_SIZE - 16];
        if let Some(from) = raw.get(16..) {
            fields.copy_from_slice(from);
        }
        Self { signal, cause: Cause::Queued { code: word(8), fields } }
    }
    /// The bytes of `siginfo_t`: three header words, padding, then the union at offset 16.
    pub fn encode(&self) -> [u8; SIGINFO_SIZE] {
        let mut out = Writer { bytes: [0; SIGINFO_SIZE] };
        out.u32(0, self.signal.number());
        out.u32(8, self.code() as u32);
        match self.cause {
            Cause::Kernel => {}
            Cause::User { pid, uid, .. } => {
                out.u32(16, pid);
                out.u32(20, uid);
            }
            Cause::Child { pid, uid, status, utime, stime, .. } => {
                out.u32(16, pid);
                out.u32(20, uid);
                out.u32(24, status as u32);
                out.u64(32, clock_ticks(utime));
                out.u64(40, clock_ticks(stime));
            }
            Cause::Fault { addr, .. } => out.u64(16, addr),
            Cause::Timer { id, overrun, value, .. } => {
                out.u32(16, id);
                out.u32(20, overrun.min(i32::MAX as u64) as u32);
                out.u64(24, value);
            }
            Cause::Syscall { addr, number, arch, reason } => {
                out.u32(4, reason);
                out.u64(16, addr);
                out.u32(24, number);
                out.u32(28, arch);
            }
            Cause::Queued { fields, .. } => {
                if let Some(to) = out.bytes.get_mut(16..) {
                    to.copy_from_slice(&fields);
                }
            }
        }
        out.bytes
    }
}

struct Writer {
    bytes: [u8; SIGINFO_SIZE],
}

impl Writer {
    fn u32(&mut self, at: usize, v: u32) {
        if let Some(b) = self.bytes.get_mut(at..at + 4) {
            b.copy_from_slice(&v.to_le_bytes());
        }
    }
    fn u64(&mut self, at: usize, v: u64) {
        if let Some(b) = self.bytes.get_mut(at..at + 8) {
            b.copy_from_slice(&v.to_le_bytes());
        }
    }
}

/// Signals that wait for one thread or for any thread of a process.
///
/// Standard signals coalesce: one instance each. Real-time signals queue in order of arrival.
#[derive(Default)]
pub struct SigQueue {
    pending: SigSet,
    queue: KVec<SigInfo>,
}

impl SigQueue {
    pub const fn new() -> Self {
        Self { pending: SigSet::EMPTY, queue: KVec::new() }
    }
    pub fn pending(&self) -> SigSet {
        self.pending
    }
    /// How many instances wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
    /// Adds a signal. Without memory for its cause the signal still arrives, with SI_USER and
    /// zeroes as its information (`signal(7)`); returns false then, which matters to
    /// real-time signals only: their sender gets EAGAIN.
    ///
    /// A timer has one instance of its own, whatever its signal: it is told when that is taken.
    pub fn push(&mut self, info: SigInfo) -> bool {
        let is_timer = matches!(info.cause, Cause::Timer { .. });
        if is_timer && self.renew(&info) {
            return true;
        }
        let counts = info.signal.is_realtime() || is_timer;
        if !counts && self.pending.contains(info.signal) {
            return true;
        }
        let stored = self.queue.try_push(info).is_ok();
        if !stored && counts && info.code() != g::SI_USER as i32 {
            return false;
        }
        self.pending = self.pending.with(info.signal);
        stored
    }
    /// The instance at a place in the queue (PTRACE_PEEKSIGINFO).
    pub fn nth(&self, i: usize) -> Option<SigInfo> {
        self.queue.get(i).copied()
    }
    /// Makes the signal that a timer has queued, under an earlier setting, that of its new one, and
    /// counts the expiry; false if there is none.
    fn renew(&mut self, info: &SigInfo) -> bool {
        let Cause::Timer { id: timer, arming: new, .. } = info.cause else { return false };
        let queued = self.queue.iter_mut().find_map(|q| match &mut q.cause {
            Cause::Timer { id, overrun, arming, .. } if *id == timer => Some((overrun, arming)),
            _ => None,
        });
        let Some((overrun, arming)) = queued else { return false };
        *overrun = overrun.saturating_add(1);
        *arming = new;
        true
    }
    /// Takes the signal to deliver next out of those not in `blocked`.
    pub fn pop(&mut self, blocked: SigSet) -> Option<SigInfo> {
        let signal = self.pending.minus(blocked).first()?;
        self.take(signal)
    }
    /// Takes the oldest instance of `signal`.
    pub fn take(&mut self, signal: Signal) -> Option<SigInfo> {
        if !self.pending.contains(signal) {
            return None;
        }
        let mut found = None;
        let mut more = false;
        for (i, q) in self.queue.iter().enumerate() {
            if q.signal == signal {
                if found.is_none() {
                    found = Some(i);
                } else {
                    more = true;
                    break;
                }
            }
        }
        if !more {
            self.pending = self.pending.without(signal);
        }
        Some(match found.and_then(|i| self.queue.remove(i)) {
            Some(info) => info,
            None => SigInfo { signal, cause: Cause::User { code: g::SI_USER as i32, pid: 0, uid: 0 } },
        })
    }
    /// Drops every instance of the signals in `set`.
    pub fn flush(&mut self, set: SigSet) {
        if self.pending.and(set).is_empty() {
            return;
        }
        self.pending = self.pending.minus(set);
        self.queue.retain(|q| !set.contains(q.signal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(signal: Signal, pid: u32) -> SigInfo {
        SigInfo { signal, cause: Cause::User { code: g::SI_USER as i32, pid, uid: 0 } }
    }

    #[test]
    fn standard_signals_coalesce_and_keep_the_first_cause() {
        let mut q = SigQueue::new();
        q.push(user(Signal::HUP, 1));
        q.push(user(Signal::HUP, 2));
        let got = q.pop(SigSet::EMPTY).unwrap();
        assert!(matches!(got.cause, Cause::User { pid: 1, .. }));
        assert!(q.pop(SigSet::EMPTY).is_none());
    }

    #[test]
    fn realtime_signals_queue_in_order_of_arrival() {
        let rt = Signal::new(40).unwrap();
        let mut q = SigQueue::new();
        for pid in 1..4 {
            q.push(user(rt, pid));
        }
        for want in 1..4 {
            assert!(matches!(q.pop(SigSet::EMPTY).unwrap().cause, Cause::User { pid, .. } if pid == want));
        }
        assert!(q.pending().is_empty());
    }

    #[test]
    fn blocked_signals_stay() {
        let mut q = SigQueue::new();
        q.push(user(Signal::INT, 1));
        assert!(q.pop(SigSet::of(Signal::INT)).is_none());
        assert!(q.pop(SigSet::EMPTY).is_some());
    }

    #[test]
    fn flush_removes_every_instance() {
        let rt = Signal::new(34).unwrap();
        let mut q = SigQueue::new();
        q.push(user(rt, 1));
        q.push(user(rt, 2));
        q.push(user(Signal::INT, 2));
        q.flush(SigSet::of(rt));
        assert_eq!(q.pop(SigSet::EMPTY).map(|i| i.signal), Some(Signal::INT));
        assert!(q.pop(SigSet::EMPTY).is_none());
    }

    #[test]
    fn a_timer_has_one_instance_beside_those_of_others() {
        let timer = |id, arming| SigInfo { signal: Signal::ALRM, cause: Cause::Timer { id, overrun: 0, value: 0, arming } };
        let mut q = SigQueue::new();
        q.push(user(Signal::ALRM, 1));
        assert!(q.push(timer(7, 1)) && q.push(timer(8, 2)) && q.push(timer(7, 3)));
        q.push(user(Signal::ALRM, 2));
        assert_eq!(q.len(), 3);
        assert!(matches!(q.pop(SigSet::EMPTY).unwrap().cause, Cause::User { pid: 1, .. }));
        assert!(matches!(q.pop(SigSet::EMPTY).unwrap().cause, Cause::Timer { id: 7, overrun: 1, arming: 3, .. }));
        assert!(matches!(q.pop(SigSet::EMPTY).unwrap().cause, Cause::Timer { id: 8, overrun: 0, .. }));
        assert!(q.pop(SigSet::EMPTY).is_none());
    }

    #[test]
    fn siginfo_fields_stand_where_the_abi_has_them() {
        let bytes = SigInfo::fault(Signal::SEGV, g::SEGV_ACCERR, 0x1234_5678_9abc).encode();
        assert_eq!(bytes[0..4], 11u32.to_le_bytes());
        assert_eq!(bytes[8..12], 2u32.to_le_bytes());
        assert_eq!(bytes[16..24], 0x1234_5678_9abcu64.to_le_bytes());
    }
}
