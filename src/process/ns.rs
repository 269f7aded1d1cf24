//! Namespaces: what a task sees of the system. One of each exists so far; every access already
//! goes through here.

use crate::pid::PidNamespace;
use abi::{Errno, Result, raw::general as g};
use kalloc::KArc;
use sync::{LockClass, SpinLock};
use vfs::MountNamespace;

/// The clone flags that ask for a new namespace other than of users.
pub(crate) const NEW: u64 =
    (g::CLONE_NEWNS | g::CLONE_NEWUTS | g::CLONE_NEWIPC | g::CLONE_NEWPID | g::CLONE_NEWNET | g::CLONE_NEWCGROUP | g::CLONE_NEWTIME)
        as u64;

/// Whether a task may have the new namespaces that `flags` ask for. None can be made yet: EINVAL, as
/// from a Linux that was built without them, after the check of the right (EPERM).
pub(crate) fn check_new(task: &crate::task::Task, flags: u64) -> Result {
    if flags & NEW == 0 {
        return Ok(());
    }
    let allowed = task.with_cred(|c| c.capable(vfs::Cap::SYS_ADMIN))?;
    Err(if allowed { Errno::EINVAL } else { Errno::EPERM })
}

static UTS: LockClass = LockClass::new("process.uts", 1045);

/// Longest host or domain name (`__NEW_UTS_LEN`).
pub const UTS_LEN: usize = 64;

/// Host and domain name (`uts_namespaces(7)`).
pub struct UtsNamespace {
    names: SpinLock<UtsNames>,
}

/// A name of at most [`UTS_LEN`] bytes.
#[derive(Clone, Copy)]
pub struct UtsName {
    bytes: [u8; UTS_LEN],
    len: usize,
}

impl UtsName {
    /// EINVAL when longer than the limit.
    pub fn new(name: &[u8]) -> Result<Self> {
        let mut bytes = [0; UTS_LEN];
        bytes.get_mut(..name.len()).ok_or(Errno::EINVAL)?.copy_from_slice(name);
        Ok(Self { bytes, len: name.len() })
    }
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

/// Both names.
#[derive(Clone, Copy)]
pub struct UtsNames {
    pub host: UtsName,
    pub domain: UtsName,
}

impl UtsNamespace {
    pub fn try_new() -> Result<KArc<Self>> {
        let none = UtsName::new(b"(none)")?;
        Ok(KArc::try_new(Self { names: SpinLock::new(UtsNames { host: none, domain: none }, &UTS) })?)
    }
    pub fn names(&self) -> UtsNames {
        *self.names.lock()
    }
    pub fn set_host(&self, name: UtsName) {
        self.names.lock().host = name;
    }
    pub fn set_domain(&self, name: UtsName) {
        self.names.lock().domain = name;
    }
}

/// The namespaces of a task.
pub struct Namespaces {
    pub pid: KArc<PidNamespace>,
    pub uts: KArc<UtsNamespace>,
    pub mount: KArc<MountNamespace>,
    pub net: KArc<net::NetNamespace>,
}
