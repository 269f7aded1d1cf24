//! Sets of signals.

use abi::raw::general as g;

/// A signal number, 1 to 64 (`signal(7)`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct Signal(u8);

impl Signal {
    pub const HUP: Self = Self(g::SIGHUP as u8);
    pub const INT: Self = Self(g::SIGINT as u8);
    pub const QUIT: Self = Self(g::SIGQUIT as u8);
    pub const ILL: Self = Self(g::SIGILL as u8);
    pub const TRAP: Self = Self(g::SIGTRAP as u8);
    pub const ABRT: Self = Self(g::SIGABRT as u8);
    pub const BUS: Self = Self(g::SIGBUS as u8);
    pub const FPE: Self = Self(g::SIGFPE as u8);
    pub const KILL: Self = Self(g::SIGKILL as u8);
    pub const SEGV: Self = Self(g::SIGSEGV as u8);
    pub const PIPE: Self = Self(g::SIGPIPE as u8);
    pub const ALRM: Self = Self(g::SIGALRM as u8);
    pub const CHLD: Self = Self(g::SIGCHLD as u8);
    pub const CONT: Self = Self(g::SIGCONT as u8);
    pub const STOP: Self = Self(g::SIGSTOP as u8);
    pub const TSTP: Self = Self(g::SIGTSTP as u8);
    pub const TTIN: Self = Self(g::SIGTTIN as u8);
    pub const TTOU: Self = Self(g::SIGTTOU as u8);
    pub const XFSZ: Self = Self(g::SIGXFSZ as u8);
    pub const SYS: Self = Self(g::SIGSYS as u8);

    /// First real-time signal as the kernel counts (glibc keeps two of them for itself).
    pub const RT_MIN: u8 = 32;

    /// The signal with this number, unless it is 0 or above 64.
    pub const fn new(n: u32) -> Option<Self> {
        if n >= 1 && n <= abi::NSIG as u32 { Some(Self(n as u8)) } else { None }
    }
    /// The number.
    pub const fn number(self) -> u32 {
        self.0 as u32
    }
    /// Position in a table of all signals.
    pub const fn index(self) -> usize {
        self.0 as usize - 1
    }
    /// Whether each instance is queued (real-time signals) instead of coalesced.
    pub const fn is_realtime(self) -> bool {
        self.0 >= Self::RT_MIN
    }
    /// What happens to a process that neither handles nor ignores the signal.
    pub fn default_action(self) -> DefaultAction {
        match self {
            Self::CHLD | Self::CONT => DefaultAction::Ignore,
            Self::STOP | Self::TSTP | Self::TTIN | Self::TTOU => DefaultAction::Stop,
            Self::QUIT | Self::ILL | Self::TRAP | Self::ABRT | Self::BUS | Self::FPE | Self::SEGV | Self::XFSZ
            | Self::SYS => DefaultAction::Core,
            s if s.number() == g::SIGURG || s.number() == g::SIGWINCH => DefaultAction::Ignore,
            s if s.number() == g::SIGXCPU => DefaultAction::Core,
            _ => DefaultAction::Terminate,
        }
    }
}

/// The "Action" column of `signal(7)`. SIGCONT's continuing happens when it is sent, so what is
/// left of it at delivery is to be ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefaultAction {
    Terminate,
    /// Terminate, and say in the wait status that a core would be written.
    Core,
    Ignore,
    Stop,
}

/// A set of signals: bit n-1 stands for signal n, as in the ABI's `sigset_t`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(transparent)]
pub struct SigSet(pub u64);

impl SigSet {
    pub const EMPTY: Self = Self(0);
    pub const ALL: Self = Self(u64::MAX);
    /// SIGKILL and SIGSTOP: never blocked, ignored or handled.
    pub const UNBLOCKABLE: Self = Self::of(Signal::KILL).with(Signal::STOP);
    /// Signals that a fault of the thread itself causes; delivered before all others.
    pub const SYNCHRONOUS: Self = Self::of(Signal::SEGV)
        .with(Signal::BUS)
        .with(Signal::ILL)
        .with(Signal::TRAP)
        .with(Signal::FPE)
        .with(Signal::SYS);
    /// The four signals whose default is to stop the process.
    pub const STOPS: Self = Self::of(Signal::STOP).with(Signal::TSTP).with(Signal::TTIN).with(Signal::TTOU);

    pub const fn of(s: Signal) -> Self {
        Self(1 << (s.0 - 1))
    }
    pub const fn with(self, s: Signal) -> Self {
        Self(self.0 | Self::of(s).0)
    }
    pub const fn without(self, s: Signal) -> Self {
        Self(self.0 & !Self::of(s).0)
    }
    pub const fn contains(self, s: Signal) -> bool {
        self.0 & Self::of(s).0 != 0
    }
    pub const fn union(self, o: Self) -> Self {
        Self(self.0 | o.0)
    }
    pub const fn minus(self, o: Self) -> Self {
        Self(self.0 & !o.0)
    }
    pub const fn and(self, o: Self) -> Self {
        Self(self.0 & o.0)
    }
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The member to deliver first: a synchronous one if there is any, else the lowest number.
    pub fn first(self) -> Option<Signal> {
        let urgent = self.and(Self::SYNCHRONOUS);
        let from = if urgent.is_empty() { self } else { urgent };
        if from.is_empty() { None } else { Signal::new(from.0.trailing_zeros() + 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synchronous_signals_come_before_lower_numbers() {
        let set = SigSet::of(Signal::HUP).with(Signal::SEGV).with(Signal::TRAP);
        assert_eq!(set.first(), Some(Signal::TRAP));
        assert_eq!(set.without(Signal::TRAP).first(), Some(Signal::SEGV));
        assert_eq!(SigSet::of(Signal::TSTP).with(Signal::HUP).first(), Some(Signal::HUP));
        assert_eq!(SigSet::EMPTY.first(), None);
    }

    #[test]
    fn numbers_outside_1_to_64_are_no_signal() {
        assert!(Signal::new(0).is_none());
        assert!(Signal::new(65).is_none());
        assert_eq!(Signal::new(64).map(Signal::index), Some(63));
    }
}
