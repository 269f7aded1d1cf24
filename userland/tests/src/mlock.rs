//! Locked memory: mlock, mlock2, mlockall, MAP_LOCKED, RLIMIT_MEMLOCK.

use crate::check::*;
use libc::*;

cases![mlock:
    locking_brings_the_pages_in, locking_on_fault_does_not, locked_pages_are_counted_once, errors_of_mlock,
    limit_counts_what_is_locked_anew, limit_of_mmap_brk_and_mremap, limit_of_zero_is_eperm, mlockall_flags,
    everything_now_and_later, lock_goes_with_fork_and_munlockall, locked_memory_is_not_given_up,
];

const MLOCK_ONFAULT: u32 = 1;
const MCL_ONFAULT: i32 = 4;

/// VmLck of this process, in KiB.
fn locked() -> Result<usize, Stop> {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmLck:"));
    match line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()) {
        Some(n) => Ok(n),
        None => Err(Stop::Skip("no VmLck".into())),
    }
}

fn resident(at: *mut u8, pages: usize) -> Result<usize, Stop> {
    let mut map = vec![0u8; pages];
    ok!(mincore(at.cast(), pages * PAGE, map.as_mut_ptr().cast()));
    Ok(map.iter().filter(|b| **b & 1 != 0).count())
}

fn mlock2(at: *mut u8, length: usize, flags: u32) -> i64 {
    // SAFETY: a range of this process, which the kernel checks.
    unsafe { syscall(SYS_mlock2, at, length, flags) }
}

/// A user without capabilities, who may lock this many pages.
fn ordinary(pages: usize) -> Outcome {
    let limit = rlimit { rlim_cur: (pages * PAGE) as u64, rlim_max: (pages * PAGE) as u64 };
    ok!(setrlimit(RLIMIT_MEMLOCK, &limit));
    ok!(setresuid(1000, 1000, 1000));
    Ok(())
}

fn locking_brings_the_pages_in() -> Outcome {
    let at = ok!(map(8 * PAGE, RW));
    eq!(resident(at, 8)?, 0);
    // Whole pages, wherever the range begins and ends.
    ok!(mlock(at.wrapping_add(2 * PAGE + 17).cast(), 2 * PAGE));
    eq!(resident(at, 8)?, 3);
    eq!(locked()?, 3 * PAGE / 1024);
    ok!(munlock(at.cast(), 8 * PAGE));
    eq!((resident(at, 8)?, locked()?), (3, 0));
    let other = ok!(map_with(4 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1));
    eq!((resident(other, 4)?, locked()?), (4, 4 * PAGE / 1024));
    Ok(())
}

fn locking_on_fault_does_not() -> Outcome {
    let at = ok!(map(4 * PAGE, RW));
    ok!(mlock2(at, 4 * PAGE, MLOCK_ONFAULT));
    eq!((resident(at, 4)?, locked()?), (0, 4 * PAGE / 1024));
    // SAFETY: mapped above.
    unsafe { at.write_volatile(1) };
    eq!(resident(at, 4)?, 1);
    ok!(mlock2(at, 4 * PAGE, 0));
    eq!((resident(at, 4)?, locked()?), (4, 4 * PAGE / 1024));
    errno!(mlock2(at, PAGE, 2), EINVAL);
    Ok(())
}

fn locked_pages_are_counted_once() -> Outcome {
    let at = ok!(map(4 * PAGE, RW));
    ok!(mlock(at.cast(), 3 * PAGE));
    ok!(mlock(at.wrapping_add(PAGE).cast(), 3 * PAGE));
    eq!(locked()?, 4 * PAGE / 1024);
    ok!(unmap(at, PAGE));
    eq!(locked()?, 3 * PAGE / 1024);
    ok!(munlock(at.wrapping_add(PAGE).cast(), PAGE));
    eq!(locked()?, 2 * PAGE / 1024);
    Ok(())
}

fn errors_of_mlock() -> Outcome {
    let at = ok!(map(3 * PAGE, RW));
    ok!(unmap(at.wrapping_add(PAGE), PAGE));
    errno!(mlock(at.cast(), 3 * PAGE), ENOMEM);
    errno!(munlock(at.wrapping_add(PAGE).cast(), PAGE), ENOMEM);
    errno!(mlock(at.cast(), usize::MAX - 2 * PAGE), EINVAL);
    ok!(mlock(at.wrapping_add(PAGE).cast(), 0));
    // Pages that nobody may read cannot be brought in.
    let none = ok!(map(PAGE, PROT_NONE));
    errno!(mlock(none.cast(), PAGE), ENOMEM);
    Ok(())
}

fn limit_counts_what_is_locked_anew() -> Outcome {
    in_child(|| {
        let at = ok!(map(8 * PAGE, RW));
        ordinary(4)?;
        errno!(mlock(at.cast(), 5 * PAGE), ENOMEM);
        ok!(mlock(at.cast(), 4 * PAGE));
        // The same pages again are no more than before.
        ok!(mlock(at.wrapping_add(PAGE).cast(), 3 * PAGE));
        errno!(mlock(at.wrapping_add(3 * PAGE).cast(), 2 * PAGE), ENOMEM);
        ok!(munlock(at.cast(), PAGE));
        ok!(mlock(at.wrapping_add(3 * PAGE).cast(), 2 * PAGE));
        Ok(())
    })
}

fn limit_of_mmap_brk_and_mremap() -> Outcome {
    in_child(|| {
        ordinary(4)?;
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED;
        errno!(map_with(5 * PAGE, RW, flags, -1), EAGAIN);
        let at = ok!(map_with(3 * PAGE, RW, flags, -1));
        errno!(mremap(at.cast(), 3 * PAGE, 5 * PAGE, MREMAP_MAYMOVE), EAGAIN);
        let grown = ok!(mremap(at.cast(), 3 * PAGE, 4 * PAGE, MREMAP_MAYMOVE)).cast::<u8>();
        eq!(resident(grown, 4)?, 4);
        ok!(mlockall(MCL_FUTURE));
        let end = ok!(syscall(SYS_brk, 0)) as usize;
        eq!(ok!(syscall(SYS_brk, end + 2 * PAGE)) as usize, end);
        errno!(map(PAGE, RW), EAGAIN);
        Ok(())
    })
}

fn limit_of_zero_is_eperm() -> Outcome {
    in_child(|| {
        let at = ok!(map(PAGE, RW));
        ordinary(0)?;
        errno!(mlock(at.cast(), PAGE), EPERM);
        errno!(mlock(at.cast(), 0), EPERM);
        errno!(mlockall(MCL_FUTURE), EPERM);
        errno!(map_with(PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1), EPERM);
        ok!(munlock(at.cast(), PAGE));
        ok!(munlockall());
        Ok(())
    })
}

fn mlockall_flags() -> Outcome {
    for flags in [0, 8, MCL_ONFAULT, MCL_CURRENT | 8, -1] {
        errno!(mlockall(flags), EINVAL);
    }
    in_child(|| {
        ordinary(1)?;
        // More is mapped than may be locked.
        errno!(mlockall(MCL_CURRENT), ENOMEM);
        ok!(mlockall(MCL_FUTURE));
        Ok(())
    })
}

fn everything_now_and_later() -> Outcome {
    in_child(|| {
        let at = ok!(map(4 * PAGE, RW));
        let file = {
            make("f", &[7; 3 * PAGE])?;
            ok!(map_with(3 * PAGE, PROT_READ, MAP_SHARED, ok!(open_file("f", O_RDONLY, 0))))
        };
        ok!(mlockall(MCL_CURRENT));
        eq!((resident(at, 4)?, resident(file, 3)?), (4, 3));
        let later = ok!(map(2 * PAGE, RW));
        eq!(resident(later, 2)?, 0);
        ok!(mlockall(MCL_CURRENT | MCL_FUTURE));
        let later = ok!(map(2 * PAGE, RW));
        eq!(resident(later, 2)?, 2);
        let (end, before) = (ok!(syscall(SYS_brk, 0)) as usize, locked()?);
        let page = end.next_multiple_of(PAGE);
        eq!(ok!(syscall(SYS_brk, page + 3 * PAGE)) as usize, page + 3 * PAGE);
        eq!((resident(page as *mut u8, 3)?, locked()?), (3, before + 3 * PAGE / 1024));
        ok!(mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT));
        let before = locked()?;
        let later = ok!(map(2 * PAGE, RW));
        eq!((resident(later, 2)?, locked()?), (0, before + 2 * PAGE / 1024));
        Ok(())
    })
}

fn lock_goes_with_fork_and_munlockall() -> Outcome {
    let at = ok!(map(2 * PAGE, RW));
    ok!(mlock(at.cast(), 2 * PAGE));
    in_child(|| {
        eq!(locked()?, 0);
        Ok(())
    })?;
    eq!(locked()?, 2 * PAGE / 1024);
    ok!(munlockall());
    eq!(locked()?, 0);
    Ok(())
}

fn locked_memory_is_not_given_up() -> Outcome {
    let at = ok!(map(2 * PAGE, RW));
    ok!(mlock(at.cast(), PAGE));
    errno!(madvise(at.cast(), 2 * PAGE, MADV_DONTNEED), EINVAL);
    ok!(madvise(at.wrapping_add(PAGE).cast(), PAGE, MADV_DONTNEED));
    errno!(msync(at.cast(), PAGE, MS_INVALIDATE), EBUSY);
    Ok(())
}
