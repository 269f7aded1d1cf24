//! Address spaces (`mmap(2)` and its family).

use abi::{Errno, PAGE_MASK, Result, UserAddr, raw::general as g};
use arch::{
    features::{Feature, has},
    user::UserSlice,
};
use kalloc::KArc;
use mm::{AddressSpace, Advice, Backing, Fixed, Limits, LockMode, MapFlags, MapRequest, Prot, RemapFlags, RemapRequest};
use process::{Personality, Task};
use vfs::Fd;

fn space(task: &Task) -> Result<KArc<AddressSpace>> {
    task.mm().ok_or(Errno::ENOMEM)
}

/// The limits that calls on memory obey; who has CAP_IPC_LOCK may lock any amount, and who has
/// CAP_SYS_RAWIO map the lowest pages.
fn limits(task: &Task) -> Result<Limits> {
    let mut limits = process::memory_limits(task.process());
    let (locks, raw) = task.with_cred(|c| (c.capable(vfs::Cap::IPC_LOCK), c.capable(vfs::Cap::SYS_RAWIO)))?;
    if locks {
        limits.memlock = u64::MAX;
    }
    if raw {
        limits.lowest = 0;
    }
    Ok(limits)
}

/// PROT_* of mprotect to a protection: EINVAL for bits that mean nothing. PROT_BTI is unknown to
/// CPUs without it, and says something about code only.
fn protection(prot: u32) -> Result<Prot> {
    let mut known = Prot::all();
    known.set(Prot::BTI, has(Feature::Bti));
    if prot & !(known.bits() | g::PROT_SEM) != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(known_protection(prot))
}

/// PROT_* of mmap, which ignores bits that mean nothing.
fn known_protection(prot: u32) -> Prot {
    let mut prot = Prot::from_bits_truncate(prot);
    prot.set(Prot::BTI, prot.contains(Prot::X | Prot::BTI) && has(Feature::Bti));
    prot
}

/// What the thread's personality adds to a protection.
fn implied(task: &Task, prot: Prot) -> Prot {
    let executable = prot.contains(Prot::R) && task.personality().contains(Personality::READ_IMPLIES_EXEC);
    if executable { Prot::X } else { Prot::empty() }
}

/// Flags of mmap that mean nothing any more, or nothing here.
const IGNORED: u32 = g::MAP_DENYWRITE | g::MAP_EXECUTABLE | g::MAP_NONBLOCK | g::MAP_STACK | g::MAP_UNINITIALIZED;

pub fn mmap(task: &Task, addr: UserAddr, len: u64, prot_bits: u32, flags: u32, fd: i32, offset: u64) -> Result<UserAddr> {
    if offset & PAGE_MASK != 0 {
        return Err(Errno::EINVAL);
    }
    let file = if flags & g::MAP_ANONYMOUS == 0 {
        let file = task.file(Fd::from_raw(fd)?)?;
        if file.is_path_only() {
            return Err(Errno::EBADF);
        }
        Some(file)
    } else {
        None
    };
    if flags & g::MAP_HUGETLB != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    let kind = flags & g::MAP_TYPE;
    let shared = match kind {
        g::MAP_PRIVATE => false,
        g::MAP_SHARED => true,
        g::MAP_SHARED_VALIDATE if file.is_some() => {
            // Unknown flags are refused in this mode; MAP_SYNC needs persistent memory.
            if flags & !(VALIDATED | IGNORED) != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            true
        }
        _ => return Err(Errno::EINVAL),
    };
    let mut map_flags = MapFlags::empty();
    map_flags.set(MapFlags::SHARED, shared);
    map_flags.set(MapFlags::GROWSDOWN, flags & g::MAP_GROWSDOWN != 0);
    map_flags.set(MapFlags::NORESERVE, flags & g::MAP_NORESERVE != 0);
    map_flags.set(MapFlags::LOCKED, flags & g::MAP_LOCKED != 0);
    map_flags.set(MapFlags::POPULATE, flags & g::MAP_POPULATE != 0 && flags & g::MAP_NONBLOCK == 0);
    let fixed = match () {
        () if flags & g::MAP_FIXED_NOREPLACE != 0 => Fixed::NoReplace,
        () if flags & g::MAP_FIXED != 0 => Fixed::Replace,
        () => Fixed::No,
    };
    let mut prot = known_protection(prot_bits);
    let implied = implied(task, prot);
    if file.as_ref().is_none_or(|f| f.path.mount.flags() & g::MS_NOEXEC == 0) {
        prot |= implied;
    }
    let backing = match file {
        None => Backing::Anonymous,
        Some(file) => {
            if shared && prot.contains(Prot::W) && !file.may_write() || !file.may_read() {
                return Err(Errno::EACCES);
            }
            Backing::File { file: file.ops.mmap(&file)?, offset }
        }
    };
    let hint = (fixed != Fixed::No || !addr.is_null()).then_some(addr);
    space(task)?.map(MapRequest {
        addr: hint,
        fixed,
        len,
        prot,
        flags: map_flags,
        backing,
        limits: limits(task)?,
    })
}

/// Flags that MAP_SHARED_VALIDATE knows (LEGACY_MAP_MASK).
const VALIDATED: u32 = g::MAP_TYPE
    | g::MAP_FIXED
    | g::MAP_FIXED_NOREPLACE
    | g::MAP_ANONYMOUS
    | g::MAP_GROWSDOWN
    | g::MAP_LOCKED
    | g::MAP_NORESERVE
    | g::MAP_POPULATE;

pub fn munmap(task: &Task, addr: UserAddr, len: u64) -> Result {
    space(task)?.unmap(addr, len)
}

pub fn mprotect(task: &Task, addr: UserAddr, len: u64, prot: u32) -> Result {
    let grows = prot & (g::PROT_GROWSDOWN | g::PROT_GROWSUP);
    if grows == g::PROT_GROWSDOWN | g::PROT_GROWSUP {
        return Err(Errno::EINVAL);
    }
    let prot = protection(prot & !(g::PROT_GROWSDOWN | g::PROT_GROWSUP))?;
    let (space, implied) = (space(task)?, implied(task, prot));
    let limits = limits(task)?;
    match space.protect(addr, len, prot | implied, &limits) {
        // Something there may never be executed: it is not, then.
        Err(Errno::EACCES) if !implied.is_empty() => space.protect(addr, len, prot, &limits),
        done => done,
    }
}

pub fn mremap(task: &Task, old: UserAddr, old_len: u64, new_len: u64, flags: u32, new: UserAddr) -> Result<UserAddr> {
    let flags = RemapFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let limits = limits(task)?;
    space(task)?.remap(RemapRequest { old, old_len, new_len, flags, new, limits })
}

pub fn madvise(task: &Task, addr: UserAddr, len: u64, advice: u32) -> Result {
    space(task)?.advise(addr, len, Advice::from_raw(advice)?)
}

pub fn mincore(task: &Task, addr: UserAddr, len: u64, out: UserAddr) -> Result {
    let mut at = out;
    space(task)?.mincore(addr, len, |pages| {
        UserSlice::new(at, pages.len()).write_from(pages)?;
        at = at.add(pages.len() as u64);
        Ok(())
    })
}

pub fn msync(task: &Task, addr: UserAddr, len: u64, flags: u32) -> Result {
    let known = g::MS_ASYNC | g::MS_INVALIDATE | g::MS_SYNC;
    if flags & !known != 0 || flags & g::MS_ASYNC != 0 && flags & g::MS_SYNC != 0 {
        return Err(Errno::EINVAL);
    }
    space(task)?.msync(addr, len, flags & g::MS_SYNC != 0, flags & g::MS_INVALIDATE != 0)
}

pub fn mlock(task: &Task, addr: UserAddr, len: u64) -> Result {
    space(task)?.lock_range(addr, len, LockMode::Now, &limits(task)?)
}

pub fn mlock2(task: &Task, addr: UserAddr, len: u64, flags: u32) -> Result {
    let mode = match flags {
        0 => LockMode::Now,
        g::MLOCK_ONFAULT => LockMode::OnFault,
        _ => return Err(Errno::EINVAL),
    };
    space(task)?.lock_range(addr, len, mode, &limits(task)?)
}

pub fn munlock(task: &Task, addr: UserAddr, len: u64) -> Result {
    space(task)?.lock_range(addr, len, LockMode::Off, &limits(task)?)
}

pub fn mlockall(task: &Task, flags: u32) -> Result {
    let known = g::MCL_CURRENT | g::MCL_FUTURE | g::MCL_ONFAULT;
    if flags == 0 || flags & !known != 0 || flags == g::MCL_ONFAULT {
        return Err(Errno::EINVAL);
    }
    let mode = if flags & g::MCL_ONFAULT != 0 { LockMode::OnFault } else { LockMode::Now };
    let current = (flags & g::MCL_CURRENT != 0).then_some(mode);
    let future = if flags & g::MCL_FUTURE != 0 { mode } else { LockMode::Off };
    space(task)?.lock_all(current, future, &limits(task)?)
}

pub fn munlockall(task: &Task) -> Result {
    space(task)?.lock_all(Some(LockMode::Off), LockMode::Off, &limits(task)?)
}

/// Never fails: it returns the break, changed or not (`brk(2)`, "C library/kernel differences").
pub fn brk(task: &Task, new: UserAddr) -> Result<UserAddr> {
    Ok(space(task)?.brk(new, &limits(task)?))
}
