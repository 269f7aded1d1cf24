//! How large pipes may be, and how much of them a user may have (`pipe(7)`, /proc files).

use abi::{Errno, PAGE_SIZE, Result};
use core::fmt::Write;
use kalloc::karc_dyn;
use sync::atomic::{AtomicUsize, Ordering::Relaxed};
use vfs::{
    Cap, Credentials, proc_registry,
    pseudo::{Reader, SeqBuf, Show, Store, no_memory},
    quota::{Charge, Quota},
    sysctl::{self, Number},
};

/// The largest pipe at all.
const LIMIT: u64 = 1 << 31;
/// What F_SETPIPE_SZ gives without CAP_SYS_RESOURCE at most (/proc/sys/fs/pipe-max-size).
static MAX_SIZE: AtomicUsize = AtomicUsize::new(1 << 20);
/// Pages above which an unprivileged user's pipes do not grow, and new ones are small. 0: none.
static SOFT: Number = Number::new(16384, 0, i64::MAX);
/// Pages above which he gets no new ones. 0: none.
static HARD: Number = Number::new(0, 0, i64::MAX);
/// Pages of pipes by user.
static PAGES: Quota = Quota::new();

/// The size that a request for `bytes` gives: a power of two of pages.
pub(crate) fn round_size(bytes: u64) -> Option<usize> {
    let bytes = usize::try_from(bytes).ok().filter(|&b| b as u64 <= LIMIT)?;
    Some(bytes.max(PAGE_SIZE).next_power_of_two())
}

pub(crate) fn max_size() -> usize {
    MAX_SIZE.load(Relaxed)
}

fn is_over(limit: &Number, pages: u64) -> bool {
    let limit = limit.get().unsigned_abs();
    limit != 0 && pages > limit
}

fn is_privileged(cred: &Credentials) -> bool {
    cred.capable(Cap::SYS_RESOURCE) || cred.capable(Cap::SYS_ADMIN)
}

/// Whether a user with so many pages may not have them.
pub(crate) fn is_too_many(pages: u64, cred: &Credentials) -> bool {
    (is_over(&SOFT, pages) || is_over(&HARD, pages)) && !is_privileged(cred)
}

/// The slots of a new pipe, `usual` or for a user with too many `few`. ENFILE, ENOMEM.
pub(crate) fn charge_new(cred: &Credentials, usual: usize, few: usize) -> Result<(usize, Charge)> {
    let capable = cred.capable(Cap::SYS_RESOURCE);
    let mut slots = if capable { usual } else { usual.min(max_size() / PAGE_SIZE) };
    let mut charge = PAGES.charge_many(cred.uid, slots as u64, u64::MAX, Errno::ENFILE)?;
    let mut total = charge.change(slots as u64);
    if is_over(&SOFT, total) && !is_privileged(cred) {
        slots = few;
        total = charge.change(slots as u64);
    }
    if is_over(&HARD, total) && !is_privileged(cred) { Err(Errno::ENFILE) } else { Ok((slots, charge)) }
}

struct MaxSize;

impl Show for MaxSize {
    fn show(&self, out: &mut SeqBuf, _: &Reader<'_>) -> Result {
        writeln!(out, "{}", max_size()).map_err(no_memory)
    }
}

impl Store for MaxSize {
    fn store(&self, data: &[u8], pos: u64, _: &Reader<'_>) -> Result<usize> {
        if pos > 0 {
            return Ok(data.len());
        }
        let (value, used) = sysctl::parse(data)?;
        let value = u64::try_from(value).map_err(|_| Errno::EINVAL)?;
        MAX_SIZE.store(round_size(value).ok_or(Errno::EINVAL)?, Relaxed);
        Ok(used)
    }
}

/// Registers the files of /proc/sys/fs.
pub(crate) fn init() -> Result {
    let (show, store) = (karc_dyn!(MaxSize => dyn Show)?, karc_dyn!(MaxSize => dyn Store)?);
    proc_registry::add_writable("sys/fs/pipe-max-size", 0o644, Some(show), store)?;
    sysctl::add_number("sys/fs/pipe-user-pages-soft", &SOFT)?;
    sysctl::add_number("sys/fs/pipe-user-pages-hard", &HARD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_to_powers_of_two_of_pages() {
        assert_eq!((round_size(0), round_size(4097), round_size(65536)), (Some(4096), Some(8192), Some(65536)));
        assert_eq!((round_size(LIMIT), round_size(LIMIT + 1), round_size(u64::MAX)), (Some(1 << 31), None, None));
    }

    #[test]
    fn users_above_the_soft_limit_get_small_pipes_unless_privileged() {
        let user = Credentials::user(4321, 4321, vfs::Caps::default());
        let first = PAGES.charge_many(4321, 16384, u64::MAX, Errno::ENFILE).unwrap();
        assert_eq!(charge_new(&user, 16, 2).unwrap().0, 2);
        assert!(is_too_many(16385, &user) && !is_too_many(16384, &user));
        let mut root = Credentials::root();
        root.uid = 4321;
        assert_eq!(charge_new(&root, 16, 2).unwrap().0, 16);
        drop(first);
        assert_eq!(charge_new(&user, 16, 2).unwrap().0, 16);
    }
}
