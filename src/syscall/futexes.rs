//! `futex(2)`: the operation word and its many meanings of the other arguments.

use abi::{Errno, Nanos, Result, UserAddr, raw::general as g};
use arch::user::UserPtr;
use process::{Task, futex};

/// FUTEX_BITSET_MATCH_ANY.
const ANY: u32 = u32::MAX;

pub fn futex(task: &Task, addr: UserAddr, op: u32, value: u32, timeout: u64, second: UserAddr, value3: u32) -> Result<u32> {
    let shared = op & g::FUTEX_PRIVATE_FLAG == 0;
    let realtime = op & g::FUTEX_CLOCK_REALTIME != 0;
    let command = op & !(g::FUTEX_PRIVATE_FLAG | g::FUTEX_CLOCK_REALTIME);
    if realtime && !matches!(command, g::FUTEX_WAIT | g::FUTEX_WAIT_BITSET) {
        return Err(Errno::ENOSYS);
    }
    match command {
        g::FUTEX_WAIT => {
            let until = deadline(timeout, false, realtime)?;
            futex::wait(task, addr, value, ANY, shared, until).map(|()| 0)
        }
        g::FUTEX_WAIT_BITSET => {
            let until = deadline(timeout, true, realtime)?;
            futex::wait(task, addr, value, value3, shared, until).map(|()| 0)
        }
        g::FUTEX_WAKE => futex::wake(task, addr, value.max(1), ANY, shared),
        g::FUTEX_WAKE_BITSET => futex::wake(task, addr, value.max(1), value3, shared),
        g::FUTEX_REQUEUE => futex::requeue(task, addr, value, second, timeout as u32, None, shared),
        g::FUTEX_CMP_REQUEUE => futex::requeue(task, addr, value, second, timeout as u32, Some(value3), shared),
        g::FUTEX_WAKE_OP => futex::wake_op(task, addr, value, second, timeout as u32, value3, shared),
        _ => Err(Errno::ENOSYS),
    }
}

/// The timeout as a point on the monotonic clock.
fn deadline(timeout: u64, absolute: bool, realtime: bool) -> Result<Option<Nanos>> {
    let ptr = UserPtr::<g::__kernel_timespec>::new(UserAddr(timeout));
    if ptr.is_null() {
        return Ok(None);
    }
    let t = Nanos::from_timespec(&ptr.read()?).ok_or(Errno::EINVAL)?;
    Ok(Some(match (absolute, realtime) {
        (false, _) => time::monotonic().saturating_add(t),
        (true, true) => time::Clock::Realtime.to_monotonic(t),
        (true, false) => t,
    }))
}
