//! On whose behalf a file is reached: ids, groups and capabilities (`credentials(7)`,
//! `capabilities(7)`).
//!
//! A `Credentials` never changes after it was made; the process layer replaces it whole.

use abi::{Gid, Uid};
use kalloc::{AllocError, KVec, TryClone};

/// A capability, by Linux's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Cap(pub u32);

macro_rules! caps {
    ($($name:ident = $raw:ident,)*) => {
        #[allow(missing_docs)] // the names are capabilities(7)'s
        impl Cap { $(pub const $name: Self = Self(abi::raw::general::$raw);)* }
    };
}
caps! {
    CHOWN = CAP_CHOWN,
    DAC_OVERRIDE = CAP_DAC_OVERRIDE,
    DAC_READ_SEARCH = CAP_DAC_READ_SEARCH,
    FOWNER = CAP_FOWNER,
    FSETID = CAP_FSETID,
    KILL = CAP_KILL,
    SETGID = CAP_SETGID,
    SETUID = CAP_SETUID,
    SETPCAP = CAP_SETPCAP,
    IPC_LOCK = CAP_IPC_LOCK,
    SYS_RAWIO = CAP_SYS_RAWIO,
    SYS_CHROOT = CAP_SYS_CHROOT,
    SYS_PTRACE = CAP_SYS_PTRACE,
    SYS_ADMIN = CAP_SYS_ADMIN,
    SYS_BOOT = CAP_SYS_BOOT,
    SYS_NICE = CAP_SYS_NICE,
    SYS_RESOURCE = CAP_SYS_RESOURCE,
    SYS_TIME = CAP_SYS_TIME,
    SYS_TTY_CONFIG = CAP_SYS_TTY_CONFIG,
    MKNOD = CAP_MKNOD,
    LEASE = CAP_LEASE,
    AUDIT_CONTROL = CAP_AUDIT_CONTROL,
    SYSLOG = CAP_SYSLOG,
    WAKE_ALARM = CAP_WAKE_ALARM,
    NET_ADMIN = CAP_NET_ADMIN,
    CHECKPOINT_RESTORE = CAP_CHECKPOINT_RESTORE,
}

/// The five capability sets of a thread, a bit per capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caps {
    /// What checks look at.
    pub effective: u64,
    /// What may become effective.
    pub permitted: u64,
    /// What exec may keep.
    pub inheritable: u64,
    /// The limit of what exec may gain.
    pub bounding: u64,
    /// What exec of an unprivileged file keeps.
    pub ambient: u64,
}

impl Caps {
    /// Every capability that exists.
    pub const ALL: u64 = (1 << (abi::raw::general::CAP_LAST_CAP + 1)) - 1;

    /// The capabilities of the first process.
    pub const fn full() -> Self {
        Self { effective: Self::ALL, permitted: Self::ALL, inheritable: 0, bounding: Self::ALL, ambient: 0 }
    }
}

/// SECBIT_NO_SETUID_FIXUP: ids and capabilities have nothing to do with each other.
const NO_SETUID_FIXUP: u32 = 1 << 2;

/// Who acts.
#[derive(PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the ids are credentials(7)'s
pub struct Credentials {
    pub uid: Uid,
    pub euid: Uid,
    pub suid: Uid,
    pub fsuid: Uid,
    pub gid: Gid,
    pub egid: Gid,
    pub sgid: Gid,
    pub fsgid: Gid,
    /// Supplementary groups, sorted.
    pub groups: KVec<Gid>,
    pub caps: Caps,
    pub securebits: u32,
}

impl Credentials {
    /// The first process's: root with every capability.
    pub const fn root() -> Self {
        Self::user(0, 0, Caps::full())
    }

    /// One user and one group in all places.
    pub const fn user(uid: Uid, gid: Gid, caps: Caps) -> Self {
        Self {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups: KVec::new(),
            caps,
            securebits: 0,
        }
    }

    /// Whether the effective set has `cap`.
    #[inline]
    pub fn capable(&self, cap: Cap) -> bool {
        self.caps.effective >> cap.0 & 1 != 0
    }

    /// Whether `gid` is the file-system group or a supplementary one.
    pub fn in_group(&self, gid: Gid) -> bool {
        self.fsgid == gid || self.groups.binary_search(&gid).is_ok()
    }

    /// A copy that uses the real ids for files, as `access(2)` does: capabilities count only for
    /// a real root.
    pub fn with_real_ids(&self) -> Result<Self, AllocError> {
        let mut c = self.try_clone()?;
        c.fsuid = self.uid;
        c.fsgid = self.gid;
        if self.securebits & NO_SETUID_FIXUP == 0 {
            c.caps.effective = if self.uid == 0 { self.caps.permitted } else { 0 };
        }
        Ok(c)
    }
}

impl TryClone for Credentials {
    fn try_clone(&self) -> Result<Self, AllocError> {
        Ok(Self {
            groups: KVec::try_from_slice(self.groups.as_slice())?,
            caps: self.caps,
            ..Self::ids(self)
        })
    }
}

impl Credentials {
    fn ids(c: &Self) -> Self {
        Self {
            uid: c.uid,
            euid: c.euid,
            suid: c.suid,
            fsuid: c.fsuid,
            gid: c.gid,
            egid: c.egid,
            sgid: c.sgid,
            fsgid: c.fsgid,
            groups: KVec::new(),
            caps: c.caps,
            securebits: c.securebits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_count_besides_the_fs_group() {
        let mut c = Credentials::user(1000, 1000, Caps::default());
        c.groups = KVec::try_from_slice(&[4, 27, 100]).unwrap();
        assert!(c.in_group(1000) && c.in_group(27));
        assert!(!c.in_group(0));
        assert!(!c.capable(Cap::DAC_OVERRIDE));
    }

    #[test]
    fn real_ids_drop_capabilities_unless_root_is_real() {
        let mut c = Credentials::root();
        c.uid = 1000;
        assert_eq!(c.with_real_ids().unwrap().caps.effective, 0);
        assert_eq!(c.with_real_ids().unwrap().fsuid, 1000);
        assert_eq!(Credentials::root().with_real_ids().unwrap().caps.effective, Caps::ALL);
    }
}
