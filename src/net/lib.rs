#![cfg_attr(not(test), no_std)]
//! Sockets. Present: the socket file with its generic options, and the family AF_UNIX (`unix(7)`).
//!
//! # What it answers for
//! `socket.rs`: what is the same for every family: the file, messages, how calls wait.
//! `options.rs`: SOL_SOCKET. `unix/`: sockets within the machine. [`NetNamespace`] is where names
//! are looked up: a task reaches it through its namespaces.
//!
//! A family implements [`SocketOps`] and has a line in [`create`]; every other is EAFNOSUPPORT.
//!
//! # Who calls whom
//! System calls hand in messages, addresses and, where names of files are looked up, a
//! [`Lookup`](vfs::Lookup). Who is calling, for `write(2)` on a socket too, says the process layer
//! by [`set_caller`]. EPIPE is what the process layer turns into SIGPIPE.
//!
//! # Lock order
//! Listed in `unix/mod.rs`.

mod options;
mod socket;
mod unix;

pub use options::{get_option, set_option};
pub use socket::{
    Control, Ids, Name, Outgoing, Received, SocketFile, SocketOps, Wait, caller, file, of, set_caller,
};
pub use unix::rights::{Rights, SCM_MAX_FD};

use abi::{Errno, Result, raw::net as n};
use kalloc::KArc;

/// What names and tables of sockets a task sees (`network_namespaces(7)`).
pub struct NetNamespace {
    pub(crate) unix: unix::names::Names,
}

impl NetNamespace {
    /// A namespace without sockets.
    pub fn try_new() -> Result<KArc<Self>> {
        let ns = KArc::try_new(Self { unix: unix::names::Names::new() })?;
        unix::proc::show(&ns);
        Ok(ns)
    }
}

/// Number of address families (AF_MAX).
const FAMILIES: u32 = 46;
/// Number of socket types (SOCK_MAX).
const TYPES: u32 = 11;

/// `socket(2)` without the flags in the type. EAFNOSUPPORT, EINVAL, EPROTONOSUPPORT,
/// ESOCKTNOSUPPORT.
pub fn create(ns: &KArc<NetNamespace>, family: u32, kind: u32, protocol: u32) -> Result<KArc<dyn SocketOps>> {
    if family >= FAMILIES {
        return Err(Errno::EAFNOSUPPORT);
    }
    if kind >= TYPES {
        return Err(Errno::EINVAL);
    }
    match family {
        n::AF_UNIX => unix::create(ns, kind, protocol),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// `socketpair(2)`: makes two sockets of one kind each other's peer. EOPNOTSUPP for families that
/// have no pairs.
pub fn pair(a: &dyn SocketOps, b: &dyn SocketOps) -> Result {
    unix::pair(a, b)
}

/// Registers /proc/net, and starts what works behind the sockets. May sleep.
pub fn init() -> Result {
    unix::start()?;
    unix::proc::init()
}
