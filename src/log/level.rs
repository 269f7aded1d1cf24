//! How urgent a message is, and who it comes from (syslog(3)).

/// A message's level: lower is more urgent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// The system is unusable.
    Emerg = 0,
    /// Action must be taken at once.
    Alert = 1,
    /// Critical conditions.
    Crit = 2,
    /// Errors.
    Err = 3,
    /// Warnings.
    Warning = 4,
    /// Normal but significant.
    Notice = 5,
    /// Informational.
    Info = 6,
    /// For debugging.
    Debug = 7,
}

impl Level {
    /// From the low three bits of a priority.
    pub const fn from_bits(n: u8) -> Self {
        match n & 7 {
            0 => Self::Emerg,
            1 => Self::Alert,
            2 => Self::Crit,
            3 => Self::Err,
            4 => Self::Warning,
            5 => Self::Notice,
            6 => Self::Info,
            _ => Self::Debug,
        }
    }
}

impl From<log::Level> for Level {
    fn from(level: log::Level) -> Self {
        match level {
            log::Level::Error => Self::Err,
            log::Level::Warn => Self::Warning,
            log::Level::Info => Self::Info,
            log::Level::Debug | log::Level::Trace => Self::Debug,
        }
    }
}

/// Who a message comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Facility {
    /// The kernel: 0.
    Kernel,
    /// A program through /dev/kmsg; its number, 1 for LOG_USER.
    User(u8),
}

impl Facility {
    /// The number of syslog(3), from 0 to 31.
    pub const fn number(self) -> u8 {
        match self {
            Self::Kernel => 0,
            Self::User(n) => n & 31,
        }
    }

    /// From syslog(3)'s number.
    pub const fn from_number(n: u8) -> Self {
        match n & 31 {
            0 => Self::Kernel,
            n => Self::User(n),
        }
    }
}
