//! Error numbers, the one error type of the kernel (`errno(3)`).

use core::{fmt, num::NonZeroU16};
use linux_raw_sys::errno as raw;

/// What a system call that fails returns: a number from 1 to 4095.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Errno(NonZeroU16);

/// A result whose error is an [`Errno`].
pub type Result<T = ()> = core::result::Result<T, Errno>;

impl Errno {
    /// The number, positive.
    pub const fn code(self) -> u16 {
        self.0.get()
    }
    /// What the system call returns in x0: the negated number.
    pub const fn to_ret(self) -> u64 {
        (self.0.get() as u64).wrapping_neg()
    }
}

macro_rules! errnos {
    ($($name:ident,)*) => {
        #[allow(missing_docs)] // the names are errno(3)'s
        impl Errno {
            $(pub const $name: Self = match NonZeroU16::new(raw::$name as u16) {
                Some(n) => Self(n),
                None => unreachable!(),
            };)*

            /// The symbolic name, or "E?" for a number without one.
            pub fn name(self) -> &'static str {
                $(if self == Self::$name { return stringify!($name); })*
                "E?"
            }
        }
    };
}

errnos! {
    EPERM,
    ENOENT,
    ESRCH,
    EINTR,
    EIO,
    ENXIO,
    E2BIG,
    ENOEXEC,
    EBADF,
    ECHILD,
    EAGAIN,
    ENOMEM,
    EACCES,
    EFAULT,
    ENOTBLK,
    EBUSY,
    EEXIST,
    EXDEV,
    ENODEV,
    ENOTDIR,
    EISDIR,
    EINVAL,
    ENFILE,
    EMFILE,
    ENOTTY,
    ETXTBSY,
    EFBIG,
    ENOSPC,
    ESPIPE,
    EROFS,
    EMLINK,
    EPIPE,
    EDOM,
    ERANGE,
    EDEADLK,
    ENAMETOOLONG,
    ENOLCK,
    ENOSYS,
    ENOTEMPTY,
    ELOOP,
    ENOMSG,
    EIDRM,
    ECHRNG,
    EL2NSYNC,
    EL3HLT,
    EL3RST,
    ELNRNG,
    EUNATCH,
    ENOCSI,
    EL2HLT,
    EBADE,
    EBADR,
    EXFULL,
    ENOANO,
    EBADRQC,
    EBADSLT,
    EBFONT,
    ENOSTR,
    ENODATA,
    ETIME,
    ENOSR,
    ENONET,
    ENOPKG,
    EREMOTE,
    ENOLINK,
    EADV,
    ESRMNT,
    ECOMM,
    EPROTO,
    EMULTIHOP,
    EDOTDOT,
    EBADMSG,
    EOVERFLOW,
    ENOTUNIQ,
    EBADFD,
    EREMCHG,
    ELIBACC,
    ELIBBAD,
    ELIBSCN,
    ELIBMAX,
    ELIBEXEC,
    EILSEQ,
    ERESTART,
    ESTRPIPE,
    EUSERS,
    ENOTSOCK,
    EDESTADDRREQ,
    EMSGSIZE,
    EPROTOTYPE,
    ENOPROTOOPT,
    EPROTONOSUPPORT,
    ESOCKTNOSUPPORT,
    EOPNOTSUPP,
    EPFNOSUPPORT,
    EAFNOSUPPORT,
    EADDRINUSE,
    EADDRNOTAVAIL,
    ENETDOWN,
    ENETUNREACH,
    ENETRESET,
    ECONNABORTED,
    ECONNRESET,
    ENOBUFS,
    EISCONN,
    ENOTCONN,
    ESHUTDOWN,
    ETOOMANYREFS,
    ETIMEDOUT,
    ECONNREFUSED,
    EHOSTDOWN,
    EHOSTUNREACH,
    EALREADY,
    EINPROGRESS,
    ESTALE,
    EUCLEAN,
    ENOTNAM,
    ENAVAIL,
    EISNAM,
    EREMOTEIO,
    EDQUOT,
    ENOMEDIUM,
    EMEDIUMTYPE,
    ECANCELED,
    ENOKEY,
    EKEYEXPIRED,
    EKEYREVOKED,
    EKEYREJECTED,
    EOWNERDEAD,
    ENOTRECOVERABLE,
    ERFKILL,
    EHWPOISON,
}

impl Errno {
    /// The same number as EAGAIN (`errno(3)`).
    pub const EWOULDBLOCK: Self = Self::EAGAIN;
}

/// Internal outcomes of an interrupted system call; the exit path turns them into a restart or
/// into EINTR, so no program ever sees them (Linux's include/linux/errno.h has the same numbers,
/// which a tracer sees).
impl Errno {
    /// Restart unless the handler was installed without SA_RESTART.
    pub const ERESTARTSYS: Self = Self(NonZeroU16::new(512).unwrap());
    /// Restart always.
    pub const ERESTARTNOINTR: Self = Self(NonZeroU16::new(513).unwrap());
    /// Restart if no handler runs.
    pub const ERESTARTNOHAND: Self = Self(NonZeroU16::new(514).unwrap());
    /// Restart through the thread's restart block if no handler runs.
    pub const ERESTART_RESTARTBLOCK: Self = Self(NonZeroU16::new(516).unwrap());
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.code())
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_value_is_in_the_error_window() {
        assert_eq!(Errno::ENOSYS.to_ret() as i64, -38);
        assert_eq!(Errno::EAGAIN, Errno::EWOULDBLOCK);
        assert_eq!(Errno::ENOENT.name(), "ENOENT");
    }
}
