//! How threads are scheduled (`sched(7)`): policies and priorities, and who may change them.

use abi::{Errno, Nanos, PAGE_SIZE, Result, UserAddr, raw::general as g};
use arch::user::{UserPtr, UserSlice};
use kalloc::KArc;
use process::{Task, futex};
use sched::{Attributes, Policy};
use vfs::Cap;

/// SCHED_RESET_ON_FORK as `sched_setscheduler(2)` takes it, in the policy.
const RESET_ON_FORK: u32 = 0x4000_0000;
/// The highest real-time priority.
const MAX_PRIORITY: u32 = 99;

/// What a call wants of a thread; `None` keeps what it has.
struct Wish {
    policy: Option<u32>,
    reset_on_fork: bool,
    nice: i32,
    priority: u32,
}

/// The task with this id; 0 is the caller. EINVAL for a negative number, ESRCH.
fn find(task: &Task, pid: i32) -> Result<KArc<Task>> {
    match u32::try_from(pid).map_err(|_| Errno::EINVAL)? {
        0 => task.arc().ok_or(Errno::ESRCH),
        n => task.ns()?.pid.find(n).ok_or(Errno::ESRCH),
    }
}

/// Whether the limit on nice values lets the target have this one (`getrlimit(2)`, RLIMIT_NICE).
fn nice_is_in_limit(target: &Task, nice: i32) -> bool {
    (20 - nice) as u64 <= target.process().limit(g::RLIMIT_NICE)
}

fn apply(task: &Task, target: &Task, wish: &Wish) -> Result {
    let thread = target.thread().ok_or(Errno::ESRCH)?;
    let now = thread.attributes();
    let (policy, reset_on_fork) = match wish.policy {
        None => (now.policy, now.reset_on_fork),
        Some(n) => (Policy::from_number(n).ok_or(Errno::EINVAL)?, wish.reset_on_fork),
    };
    if wish.priority > MAX_PRIORITY || policy.is_realtime() != (wish.priority != 0) {
        return Err(Errno::EINVAL);
    }
    let new = Attributes { policy, nice: wish.nice.clamp(-20, 19) as i8, priority: wish.priority as u8, reset_on_fork };
    if !may_change(task, target, &now, &new)? && !task.with_cred(|c| c.capable(Cap::SYS_NICE))? {
        return Err(Errno::EPERM);
    }
    // Only SCHED_OTHER and SCHED_BATCH have one; others keep the value for when they are that again.
    let nice = if matches!(policy, Policy::Normal | Policy::Batch) { new.nice } else { now.nice };
    sched::set_attributes(&thread, Attributes { nice, ..new });
    futex::priority_changed(target, new.priority);
    Ok(())
}

/// Whether the change needs no CAP_SYS_NICE (`sched(7)`, "Privileges and resource limits").
fn may_change(task: &Task, target: &Task, now: &Attributes, new: &Attributes) -> Result<bool> {
    let me = task.cred()?;
    let owner = target.with_cred(|c| c.uid == me.euid || c.euid == me.euid)?;
    let allowed = if new.policy.is_realtime() {
        let limit = target.process().limit(g::RLIMIT_RTPRIO);
        (new.policy == now.policy || limit != 0) && (new.priority <= now.priority || u64::from(new.priority) <= limit)
    } else {
        new.policy == Policy::Idle || new.nice >= now.nice || nice_is_in_limit(target, new.nice.into())
    };
    let leaves_idle = now.policy == Policy::Idle && new.policy != Policy::Idle;
    let keeps_reset = !now.reset_on_fork || new.reset_on_fork;
    Ok(allowed && owner && keeps_reset && (!leaves_idle || nice_is_in_limit(target, now.nice.into())))
}

/// Sets policy and priority of a thread.
pub fn sched_setscheduler(task: &Task, pid: i32, policy: i32, param: UserPtr<u32>) -> Result {
    let policy = u32::try_from(policy).map_err(|_| Errno::EINVAL)?;
    set_priority(task, pid, Some(policy), param)
}

/// Sets the priority of a thread.
pub fn sched_setparam(task: &Task, pid: i32, param: UserPtr<u32>) -> Result {
    set_priority(task, pid, None, param)
}

fn set_priority(task: &Task, pid: i32, policy: Option<u32>, param: UserPtr<u32>) -> Result {
    if param.is_null() || pid < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = param.read()?;
    let target = find(task, pid)?;
    let nice = target.thread().map_or(0, |t| t.nice()).into();
    let reset_on_fork = policy.is_some_and(|p| p & RESET_ON_FORK != 0);
    let policy = policy.map(|p| p & !RESET_ON_FORK);
    apply(task, &target, &Wish { policy, reset_on_fork, nice, priority })
}

fn attributes_of(task: &Task, pid: i32) -> Result<Attributes> {
    Ok(find(task, pid)?.thread().ok_or(Errno::ESRCH)?.attributes())
}

/// The policy of a thread.
pub fn sched_getscheduler(task: &Task, pid: i32) -> Result<u32> {
    let a = attributes_of(task, pid)?;
    Ok(a.policy as u32 | if a.reset_on_fork { RESET_ON_FORK } else { 0 })
}

/// The real-time priority of a thread.
pub fn sched_getparam(task: &Task, pid: i32, param: UserPtr<u32>) -> Result {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    param.write(attributes_of(task, pid)?.priority.into())
}

/// Bytes of `struct sched_attr` in its first version and in the present one.
const ATTR_FIRST: usize = 48;
const ATTR_SIZE: usize = 56;

/// The fields of `struct sched_attr` that mean something here.
struct RawAttr {
    bytes: [u8; ATTR_SIZE],
}

impl RawAttr {
    fn u32(&self, at: usize) -> u32 {
        self.bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
    }
    fn flags(&self) -> u64 {
        self.bytes.get(8..16).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    }
    fn set(&mut self, at: usize, value: u32) {
        if let Some(b) = self.bytes.get_mut(at..at + 4) {
            b.copy_from_slice(&value.to_le_bytes());
        }
    }
}

const FLAG_RESET_ON_FORK: u64 = g::SCHED_FLAG_RESET_ON_FORK as u64;
const FLAG_KEEP_POLICY: u64 = g::SCHED_FLAG_KEEP_POLICY as u64;
const FLAG_KEEP_PARAMS: u64 = g::SCHED_FLAG_KEEP_PARAMS as u64;
const FLAG_UTIL: u64 = (g::SCHED_FLAG_UTIL_CLAMP_MIN | g::SCHED_FLAG_UTIL_CLAMP_MAX) as u64;
const FLAGS: u64 = FLAG_RESET_ON_FORK
    | FLAG_KEEP_POLICY
    | FLAG_KEEP_PARAMS
    | FLAG_UTIL
    | (g::SCHED_FLAG_RECLAIM | g::SCHED_FLAG_DL_OVERRUN) as u64;

/// Reads the structure in whatever version the program has. E2BIG, with the size that is known here
/// stored, when it is larger than any.
fn read_attr(at: UserAddr) -> Result<RawAttr> {
    let size = match UserPtr::<u32>::new(at).read()? as usize {
        0 => ATTR_FIRST,
        n => n,
    };
    let refuse = || {
        UserPtr::<u32>::new(at).write(ATTR_SIZE as u32)?;
        Err(Errno::E2BIG)
    };
    if !(ATTR_FIRST..=PAGE_SIZE).contains(&size) {
        return refuse();
    }
    let mut raw = RawAttr { bytes: [0; ATTR_SIZE] };
    let known = size.min(ATTR_SIZE);
    UserSlice::new(at, known).read_into(raw.bytes.get_mut(..known).ok_or(Errno::EINVAL)?)?;
    for i in known..size {
        if UserPtr::<u8>::new(UserAddr(at.0.wrapping_add(i as u64))).read()? != 0 {
            return refuse();
        }
    }
    if raw.flags() & FLAG_UTIL != 0 && size < ATTR_SIZE {
        return Err(Errno::EINVAL);
    }
    Ok(raw)
}

/// Sets policy, nice value or priority, and flags of a thread.
pub fn sched_setattr(task: &Task, pid: i32, attr: UserAddr, flags: u32) -> Result {
    if attr.0 == 0 || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let raw = read_attr(attr)?;
    let (policy, flags) = (raw.u32(4), raw.flags());
    if (policy as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let target = find(task, pid)?;
    let now = target.thread().ok_or(Errno::ESRCH)?.attributes();
    let (nice, priority) = if flags & FLAG_KEEP_PARAMS != 0 {
        (now.nice.into(), now.priority.into())
    } else {
        (raw.u32(16) as i32, raw.u32(20))
    };
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let policy = match (flags & FLAG_KEEP_POLICY, flags & FLAG_KEEP_PARAMS) {
        (0, 0) => Some(policy),
        // The policy goes with the parameters, though it must be one.
        (0, _) => Policy::from_number(policy).map(|_| Some(now.policy as u32)).ok_or(Errno::EINVAL)?,
        _ => None,
    };
    let wish = Wish { policy, reset_on_fork: flags & FLAG_RESET_ON_FORK != 0, nice, priority };
    if flags & FLAG_UTIL != 0 {
        // Without utilisation clamping.
        return Err(Errno::EOPNOTSUPP);
    }
    apply(task, &target, &wish)
}

/// How a thread is scheduled.
pub fn sched_getattr(task: &Task, pid: i32, attr: UserAddr, size: u32, flags: u32) -> Result {
    let size = size as usize;
    if attr.0 == 0 || pid < 0 || !(ATTR_FIRST..=PAGE_SIZE).contains(&size) || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let a = attributes_of(task, pid)?;
    let mut raw = RawAttr { bytes: [0; ATTR_SIZE] };
    let size = size.min(ATTR_SIZE);
    raw.set(0, size as u32);
    raw.set(4, a.policy as u32);
    raw.set(8, if a.reset_on_fork { FLAG_RESET_ON_FORK as u32 } else { 0 });
    if a.policy.is_realtime() {
        raw.set(20, a.priority.into());
    } else {
        raw.set(16, i32::from(a.nice) as u32);
    }
    UserSlice::new(attr, size).write_from(raw.bytes.get(..size).ok_or(Errno::EINVAL)?)
}

/// The highest priority of a policy.
pub fn sched_get_priority_max(_: &Task, policy: u32) -> Result<u32> {
    priority_of(policy, MAX_PRIORITY)
}

/// The lowest priority of a policy.
pub fn sched_get_priority_min(_: &Task, policy: u32) -> Result<u32> {
    priority_of(policy, 1)
}

fn priority_of(policy: u32, realtime: u32) -> Result<u32> {
    match Policy::from_number(policy) {
        Some(p) if p.is_realtime() => Ok(realtime),
        Some(_) => Ok(0),
        None if policy == g::SCHED_DEADLINE => Ok(0),
        None => Err(Errno::EINVAL),
    }
}

/// How long a thread runs before others of its kind get their turn.
pub fn sched_rr_get_interval(task: &Task, pid: i32, out: UserPtr<g::__kernel_timespec>) -> Result {
    let thread = find(task, pid)?.thread().ok_or(Errno::ESRCH)?;
    let slice: Nanos = sched::time_slice(&thread);
    out.write(slice.to_timespec())
}

/// Barriers on all CPUs that run the program.
pub fn membarrier(task: &Task, command: u32, flags: u32, cpu: i32) -> Result<u32> {
    process::membarrier::membarrier(task, command, flags, cpu)
}

/// Registers memory that names the thread's CPU and its restartable sequence.
pub fn rseq(task: &Task, at: UserAddr, size: u32, flags: u32, signature: u32) -> Result {
    process::rseq::rseq(task, at, size, flags, signature)
}
