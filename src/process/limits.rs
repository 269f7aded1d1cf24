//! Resource limits (`getrlimit(2)`): 16 pairs a process, shared by its threads.

use abi::{Errno, Result, raw::general as g};

/// One soft and one hard limit; `u64::MAX` means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

/// No limit (RLIM64_INFINITY).
pub const INFINITY: u64 = u64::MAX;

/// All limits of a process.
#[derive(Clone, Copy, Debug)]
pub struct Limits([Limit; g::RLIM_NLIMITS as usize]);

const fn both(v: u64) -> Limit {
    Limit { soft: v, hard: v }
}

impl Limits {
    /// What PID 1 starts with; `max_threads` bounds RLIMIT_NPROC and RLIMIT_SIGPENDING as on
    /// Linux (half of threads-max).
    pub fn initial(max_threads: u64) -> Self {
        let mut l = [both(INFINITY); g::RLIM_NLIMITS as usize];
        let mut set = |what: u32, limit: Limit| {
            if let Some(slot) = l.get_mut(what as usize) {
                *slot = limit;
            }
        };
        set(g::RLIMIT_STACK, Limit { soft: 8 << 20, hard: INFINITY });
        set(g::RLIMIT_CORE, Limit { soft: 0, hard: INFINITY });
        set(g::RLIMIT_NPROC, both(max_threads / 2));
        set(g::RLIMIT_SIGPENDING, both(max_threads / 2));
        set(g::RLIMIT_NOFILE, Limit { soft: 1024, hard: 4096 });
        set(g::RLIMIT_MEMLOCK, both(8 << 20));
        set(g::RLIMIT_MSGQUEUE, both(819_200));
        set(g::RLIMIT_NICE, both(0));
        set(g::RLIMIT_RTPRIO, both(0));
        Self(l)
    }
    /// The limit for a resource; EINVAL for a number that names none.
    pub fn get(&self, resource: u32) -> Result<Limit> {
        self.0.get(resource as usize).copied().ok_or(Errno::EINVAL)
    }
    /// The soft limit of a resource that this kernel names itself.
    pub fn soft(&self, resource: u32) -> u64 {
        self.0.get(resource as usize).map_or(INFINITY, |l| l.soft)
    }
    /// Replaces a limit. EINVAL when soft exceeds hard; EPERM when hard rises and the caller may
    /// not (`privileged` says whether it has CAP_SYS_RESOURCE).
    pub fn set(&mut self, resource: u32, new: Limit, privileged: bool) -> Result<Limit> {
        let slot = self.0.get_mut(resource as usize).ok_or(Errno::EINVAL)?;
        if new.soft > new.hard {
            return Err(Errno::EINVAL);
        }
        // Nobody may lift the number of files over what a table can hold (fs.nr_open).
        if resource == g::RLIMIT_NOFILE && new.hard > NR_OPEN {
            return Err(Errno::EPERM);
        }
        if new.hard > slot.hard && !privileged {
            return Err(Errno::EPERM);
        }
        Ok(core::mem::replace(slot, new))
    }
}

/// The limits that address-space calls obey.
pub fn for_memory(process: &crate::task::Process) -> mm::Limits {
    let l = process.limits();
    mm::Limits {
        as_: l.soft(g::RLIMIT_AS),
        data: l.soft(g::RLIMIT_DATA),
        stack: l.soft(g::RLIMIT_STACK),
        memlock: l.soft(g::RLIMIT_MEMLOCK),
        lowest: mm::MIN_ADDR.get_u64(),
    }
}

/// Whether the current thread may be promised the memory that is kept for root.
pub fn may_use_reserve() -> bool {
    crate::task::with_current(|task| task.with_cred(|c| c.capable(vfs::Cap::SYS_ADMIN))).is_some_and(|may| may == Ok(true))
}

/// Linux's default `fs.nr_open`.
pub const NR_OPEN: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_limits_fall_freely_and_rise_only_with_privilege() {
        let mut l = Limits::initial(1000);
        let r = g::RLIMIT_NOFILE;
        assert_eq!(l.set(r, Limit { soft: 10, hard: 100 }, false), Ok(Limit { soft: 1024, hard: 4096 }));
        assert_eq!(l.set(r, Limit { soft: 10, hard: 101 }, false), Err(Errno::EPERM));
        assert!(l.set(r, Limit { soft: 10, hard: 101 }, true).is_ok());
        assert_eq!(l.set(r, Limit { soft: 11, hard: 10 }, true), Err(Errno::EINVAL));
        assert_eq!(l.set(r, Limit { soft: 1, hard: INFINITY }, true), Err(Errno::EPERM));
        assert_eq!(l.get(99), Err(Errno::EINVAL));
    }
}
