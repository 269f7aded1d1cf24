//! `futex(2)` and `futex_waitv(2)`: the operation word and its many meanings of the other arguments.

use abi::{Errno, Nanos, Result, UserAddr, raw::general as g};
use arch::user::UserPtr;
use kalloc::KVec;
use process::{
    Deadline, Task,
    futex::{self, Want},
};
use time::Clock;

/// FUTEX_BITSET_MATCH_ANY.
const ANY: u32 = u32::MAX;

/// Sleeping on a word of memory, waking, moving sleepers, locks with priority inheritance.
pub fn futex(task: &Task, addr: UserAddr, op: u32, value: u32, timeout: u64, second: UserAddr, value3: u32) -> Result<u32> {
    let shared = op & g::FUTEX_PRIVATE_FLAG == 0;
    let realtime = op & g::FUTEX_CLOCK_REALTIME != 0;
    let command = op & !(g::FUTEX_PRIVATE_FLAG | g::FUTEX_CLOCK_REALTIME);
    let takes_time = matches!(
        command,
        g::FUTEX_WAIT | g::FUTEX_WAIT_BITSET | g::FUTEX_LOCK_PI | g::FUTEX_LOCK_PI2 | g::FUTEX_WAIT_REQUEUE_PI
    );
    let clock = if realtime || command == g::FUTEX_LOCK_PI { Clock::Realtime } else { Clock::Monotonic };
    let until = if takes_time { deadline(timeout, command == g::FUTEX_WAIT, clock)? } else { None };
    if realtime && !matches!(command, g::FUTEX_WAIT_BITSET | g::FUTEX_LOCK_PI2 | g::FUTEX_WAIT_REQUEUE_PI) {
        return Err(Errno::ENOSYS);
    }
    // At least one is woken, whatever the number is.
    let count = |n: u32| (n as i32).max(1) as u32;
    let limit = timeout as u32;
    match command {
        g::FUTEX_WAIT => futex::wait(task, addr, value, ANY, shared, until).map(|()| 0),
        g::FUTEX_WAIT_BITSET => futex::wait(task, addr, value, value3, shared, until).map(|()| 0),
        g::FUTEX_WAKE => futex::wake(task, addr, count(value), ANY, shared),
        g::FUTEX_WAKE_BITSET => futex::wake(task, addr, count(value), value3, shared),
        g::FUTEX_REQUEUE => futex::requeue(task, addr, value, second, limit, None, shared),
        g::FUTEX_CMP_REQUEUE => futex::requeue(task, addr, value, second, limit, Some(value3), shared),
        g::FUTEX_WAKE_OP => futex::wake_op(task, addr, count(value), second, count(limit), value3, shared),
        g::FUTEX_LOCK_PI | g::FUTEX_LOCK_PI2 => futex::lock(task, addr, shared, until, false).map(|()| 0),
        g::FUTEX_TRYLOCK_PI => futex::lock(task, addr, shared, None, true).map(|()| 0),
        g::FUTEX_UNLOCK_PI => futex::unlock(task, addr, shared).map(|()| 0),
        g::FUTEX_WAIT_REQUEUE_PI => futex::wait_requeue_pi(task, addr, value, second, shared, until).map(|()| 0),
        g::FUTEX_CMP_REQUEUE_PI => futex::requeue_pi(task, addr, value, second, limit, value3, shared),
        _ => Err(Errno::ENOSYS),
    }
}

/// The timeout as a point of a clock. EFAULT, EINVAL.
fn deadline(timeout: u64, relative: bool, clock: Clock) -> Result<Option<Deadline>> {
    let ptr = UserPtr::<g::__kernel_timespec>::new(UserAddr(timeout));
    if ptr.is_null() {
        return Ok(None);
    }
    let t = Nanos::from_timespec(&ptr.read()?).ok_or(Errno::EINVAL)?;
    Ok(Some(if relative { Deadline::monotonic(time::monotonic().saturating_add(t)) } else { Deadline { clock, at: t } }))
}

/// `struct futex_waitv`: value (of which 32 bits count), address, flags and a reserved word.
type RawWant = [u64; 3];

/// Sleeping on several words at once.
pub fn futex_waitv(task: &Task, list: UserAddr, count: u32, flags: u32, timeout: u64, clock: u32) -> Result<usize> {
    if flags != 0 || count == 0 || count > g::FUTEX_WAITV_MAX || list.0 == 0 {
        return Err(Errno::EINVAL);
    }
    let until = if timeout == 0 {
        None
    } else {
        let clock = match clock {
            g::CLOCK_REALTIME => Clock::Realtime,
            g::CLOCK_MONOTONIC => Clock::Monotonic,
            _ => return Err(Errno::EINVAL),
        };
        deadline(timeout, false, clock)?
    };
    let mut wants = KVec::new();
    for i in 0..u64::from(count) {
        let [value, addr, rest] = UserPtr::<RawWant>::new(UserAddr(list.0.wrapping_add(i * 24))).read()?;
        let (flags, reserved) = (rest as u32, rest >> 32);
        if flags & !(g::FUTEX_32 | g::FUTEX_PRIVATE_FLAG) != 0 || reserved != 0 || flags & g::FUTEX_32 == 0 {
            return Err(Errno::EINVAL);
        }
        wants.try_push(Want { addr: UserAddr(addr), value: value as u32, shared: flags & g::FUTEX_PRIVATE_FLAG == 0 })?;
    }
    futex::wait_many(task, &wants, until)
}
