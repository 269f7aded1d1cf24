//! The commit account: how much memory programs have been promised (`Committed_AS`), and how much
//! they may be (Linux's Documentation/mm/overcommit-accounting, proc(5)).
//!
//! `vm.overcommit_memory`: 0 refuses only a single request that is larger than all memory and
//! swap; 1 refuses nothing; 2 refuses what goes beyond the limit, which is a part of the memory
//! and all of the swap, less a reserve for root to log in with (`vm.admin_reserve_kbytes`) and one
//! that keeps a single process from taking all (`vm.user_reserve_kbytes`).

use abi::{Errno, PAGE_SHIFT, Result};
use sync::{Number, Once, PerCpuCounter, atomic::{AtomicU64, Ordering}};

/// `vm.overcommit_memory`.
pub static MODE: Number = Number::new(HEURISTIC, 0, NEVER);
const HEURISTIC: i64 = 0;
const ALWAYS: i64 = 1;
const NEVER: i64 = 2;

/// `vm.overcommit_ratio`: percent of the memory that mode 2 promises.
pub static RATIO: Number = Number::new(50, 0, i32::MAX as i64).then(|| KBYTES.put(0));
/// `vm.overcommit_kbytes`: the same as an amount in KiB. Of the two the one set last counts.
pub static KBYTES: Number = Number::new(0, 0, i64::MAX).then(|| RATIO.put(0));
/// `vm.admin_reserve_kbytes`.
pub static ADMIN_RESERVE: Number = Number::new(8 << 10, 0, i64::MAX);
/// `vm.user_reserve_kbytes`.
pub static USER_RESERVE: Number = Number::new(128 << 10, 0, i64::MAX);

static COMMITTED: PerCpuCounter = PerCpuCounter::new();
/// Pages of all swap areas.
static SWAP: AtomicU64 = AtomicU64::new(0);
static PRIVILEGED: Once<fn() -> bool> = Once::new();

/// Says how to find out whether the current thread may use root's reserve (CAP_SYS_ADMIN), and
/// sets the reserves by what memory is free now. Once, at boot.
pub fn init(privileged: fn() -> bool) {
    PRIVILEGED.call_once(|| privileged);
    let part = pages_to_kib(frames::stats().free / 32) as i64;
    ADMIN_RESERVE.put(part.min(8 << 10));
    USER_RESERVE.put(part.min(128 << 10));
}

/// Swap came (or went, if negative).
pub fn add_swap(pages: i64) {
    SWAP.fetch_add(pages as u64, Ordering::Relaxed);
}

/// Pages promised at the moment, for `/proc/meminfo`.
pub fn committed_pages() -> u64 {
    COMMITTED.sum_positive()
}

/// Pages that mode 2 could promise (`CommitLimit`).
pub fn commit_limit_pages() -> u64 {
    let memory = match KBYTES.get_u64() {
        0 => (u128::from(frames::total_pages()) * u128::from(RATIO.get_u64()) / 100) as u64,
        kib => kib_to_pages(kib),
    };
    memory.saturating_add(swap_pages())
}

fn swap_pages() -> u64 {
    SWAP.load(Ordering::Relaxed)
}

/// Whether the mode lets a program promise itself memory off the account (MAP_NORESERVE).
pub(crate) fn off_account_allowed() -> bool {
    MODE.get() != NEVER
}

/// Promises pages to a process that has `mapped` pages; ENOMEM when they are more than the mode
/// allows.
pub(crate) fn charge(pages: u64, mapped: u64) -> Result {
    let signed = i64::try_from(pages).map_err(|_| Errno::ENOMEM)?;
    COMMITTED.add(signed);
    let fits = match MODE.get() {
        ALWAYS => true,
        HEURISTIC => pages <= frames::total_pages().saturating_add(swap_pages()),
        // With what others promise themselves at the same moment.
        _ => committed_pages() < allowed(mapped),
    };
    if !fits {
        COMMITTED.add(-signed);
        return Err(Errno::ENOMEM);
    }
    Ok(())
}

fn allowed(mapped: u64) -> u64 {
    let privileged = PRIVILEGED.get().is_some_and(|f| f());
    let admin = if privileged { 0 } else { kib_to_pages(ADMIN_RESERVE.get_u64()) };
    let user = kib_to_pages(USER_RESERVE.get_u64()).min(mapped / 32);
    commit_limit_pages().saturating_sub(admin).saturating_sub(user)
}

/// Takes a promise back.
pub(crate) fn uncharge(pages: u64) {
    if pages > 0 {
        COMMITTED.add(-(pages as i64));
    }
}

fn kib_to_pages(kib: u64) -> u64 {
    kib >> (PAGE_SHIFT - 10)
}

fn pages_to_kib(pages: u64) -> u64 {
    pages << (PAGE_SHIFT - 10)
}
