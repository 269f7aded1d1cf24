//! Clocks and sleeping (`clock_gettime(2)`, `clock_nanosleep(2)`, `times(2)`).

use abi::{Errno, Nanos, Result, UserAddr, raw::general as g};
use arch::user::UserPtr;
use process::{
    Deadline, Process, Restart, Signal, Task, clock_ticks,
    cpu_timers::{self, Counts},
    deadline, itimer,
    posix_timers::{self, Event},
    wait as waiting,
};
use kalloc::KArc;
use sched::{Outcome, Sleep};
use time::{Clock, Setting};
use vfs::Cap;

type Timespec = g::__kernel_timespec;

/// What a clock id means.
enum Source {
    System(Clock),
    /// CPU time of the process or of the thread.
    Process,
    Thread,
    /// The same of others.
    ProcessOf(KArc<Process>),
    ThreadOf(KArc<sched::Thread>),
}

fn source(task: &Task, id: i32) -> Result<Source> {
    Ok(match id as u32 {
        g::CLOCK_REALTIME => Source::System(Clock::Realtime),
        g::CLOCK_MONOTONIC => Source::System(Clock::Monotonic),
        g::CLOCK_MONOTONIC_RAW => Source::System(Clock::MonotonicRaw),
        g::CLOCK_REALTIME_COARSE => Source::System(Clock::RealtimeCoarse),
        g::CLOCK_MONOTONIC_COARSE => Source::System(Clock::MonotonicCoarse),
        g::CLOCK_BOOTTIME => Source::System(Clock::Boottime),
        g::CLOCK_TAI => Source::System(Clock::Tai),
        g::CLOCK_PROCESS_CPUTIME_ID => Source::Process,
        g::CLOCK_THREAD_CPUTIME_ID => Source::Thread,
        _ if id < 0 => return dynamic(task, id),
        _ => return Err(Errno::EINVAL),
    })
}

/// Clock ids that encode a process or thread: ~pid << 3 | kind (`clock_getcpuclockid(3)`). Threads
/// are those of the caller's process. EINVAL.
fn dynamic(task: &Task, id: i32) -> Result<Source> {
    const PER_THREAD: i32 = 4;
    let pid = !(id >> 3);
    if id & 3 == 3 || pid < 0 {
        return Err(Errno::EINVAL);
    }
    let per_thread = id & PER_THREAD != 0;
    match pid as u32 {
        0 if per_thread => return Ok(Source::Thread),
        0 => return Ok(Source::Process),
        _ => {}
    }
    let target = task.ns()?.pid.find(pid as u32).ok_or(Errno::EINVAL)?;
    let here = KArc::ptr_eq(target.process(), task.process());
    match per_thread {
        true if here => Ok(Source::ThreadOf(target.thread().ok_or(Errno::EINVAL)?)),
        false if target.is_leader() || here => Ok(Source::ProcessOf(target.process().clone())),
        _ => Err(Errno::EINVAL),
    }
}

pub fn clock_gettime(task: &Task, id: i32, out: UserPtr<Timespec>) -> Result {
    let now = match source(task, id)? {
        Source::System(c) => c.now(),
        Source::Process => cpu_time(task.process()),
        Source::ProcessOf(process) => cpu_time(&process),
        Source::Thread => sched::sum_exec_now(&sched::current()),
        Source::ThreadOf(thread) => sched::sum_exec_now(&thread),
    };
    out.write(now.to_timespec())
}

fn cpu_time(process: &Process) -> Nanos {
    let (user, system) = process.cpu_times();
    user.saturating_add(system)
}

pub fn clock_settime(task: &Task, id: i32, new: UserPtr<Timespec>) -> Result {
    let t = Nanos::from_timespec(&new.read()?).ok_or(Errno::EINVAL)?;
    match source(task, id)? {
        Source::System(Clock::Realtime) => set(task, t),
        _ => Err(Errno::EINVAL),
    }
}

fn set(task: &Task, now: Nanos) -> Result {
    if !task.with_cred(|c| c.capable(Cap::SYS_TIME))? {
        return Err(Errno::EPERM);
    }
    time::set_realtime(now)?;
    process::deadline::clock_was_set();
    event::timerfd::clock_was_set();
    Ok(())
}

pub fn clock_getres(task: &Task, id: i32, out: UserPtr<Timespec>) -> Result {
    let coarse = matches!(source(task, id)?, Source::System(Clock::RealtimeCoarse | Clock::MonotonicCoarse));
    if out.is_null() {
        return Ok(());
    }
    out.write((if coarse { time::timekeeper::COARSE_STEP } else { Nanos(1) }).to_timespec())
}

pub fn gettimeofday(_: &Task, tv: UserPtr<g::timeval>, tz: UserPtr<[i32; 2]>) -> Result {
    if !tv.is_null() {
        tv.write(time::realtime().to_timeval())?;
    }
    if !tz.is_null() {
        tz.write([0, 0])?;
    }
    Ok(())
}

pub fn settimeofday(task: &Task, tv: UserPtr<g::timeval>, tz: UserPtr<[i32; 2]>) -> Result {
    let new = if tv.is_null() { None } else { Some(tv.read()?) };
    if new.is_some_and(|tv| tv.tv_sec < 0 || !(0..1_000_000).contains(&tv.tv_usec)) {
        return Err(Errno::EINVAL);
    }
    let [west, _] = if tz.is_null() { [0, 0] } else { tz.read()? };
    if !task.with_cred(|c| c.capable(Cap::SYS_TIME))? {
        return Err(Errno::EPERM);
    }
    // The kernel's own time zone is a relic; only its range is checked (settimeofday(2)).
    if west.unsigned_abs() > 15 * 60 {
        return Err(Errno::EINVAL);
    }
    let Some(tv) = new else { return Ok(()) };
    set(task, Nanos::from_secs(tv.tv_sec as u64).saturating_add(Nanos::from_micros(tv.tv_usec as u64)))
}

pub fn nanosleep(task: &Task, request: UserPtr<Timespec>, remain: UserPtr<Timespec>) -> Result<u64> {
    clock_nanosleep(task, g::CLOCK_MONOTONIC as i32, 0, request, remain)
}

pub fn clock_nanosleep(task: &Task, id: i32, flags: u32, request: UserPtr<Timespec>, remain: UserPtr<Timespec>) -> Result<u64> {
    let clock = match source(task, id)? {
        Source::System(c @ (Clock::Realtime | Clock::Monotonic | Clock::Boottime | Clock::Tai)) => c,
        // Sleeping on CPU time needs CPU timers; a thread's own clock never could (EINVAL).
        Source::Thread => return Err(Errno::EINVAL),
        _ => return Err(Errno::EOPNOTSUPP),
    };
    let t = Nanos::from_timespec(&request.read()?).ok_or(Errno::EINVAL)?;
    let absolute = flags & g::TIMER_ABSTIME != 0;
    if absolute {
        return match deadline::sleep_until(Sleep::Interruptible, Deadline { clock, at: t })? {
            Outcome::Interrupted => Err(Errno::ERESTARTNOHAND),
            _ => Ok(0),
        };
    }
    let until = time::monotonic().saturating_add(t);
    match sched::sleep_until(Sleep::Interruptible, until) {
        Outcome::Interrupted => interrupted(task, until, remain),
        _ => Ok(0),
    }
}

/// A relative sleep was cut short: what is left goes to the program, and a restart sleeps on until
/// the same point in time.
fn interrupted(task: &Task, until: Nanos, remain: UserPtr<Timespec>) -> Result<u64> {
    let left = until.saturating_sub(time::monotonic());
    if left == Nanos::ZERO {
        return Ok(0);
    }
    if !remain.is_null() {
        remain.write(left.to_timespec())?;
    }
    task.set_restart(Restart::Sleep { until, remain: remain.addr() });
    Err(Errno::ERESTART_RESTARTBLOCK)
}

/// `restart_syscall(2)`: what the interrupted call left in the restart block.
pub(crate) fn restart(task: &Task) -> Result<u64> {
    match task.take_restart() {
        Restart::None => Err(Errno::EINTR),
        Restart::Sleep { until, remain } => match sched::sleep_until(Sleep::Interruptible, until) {
            Outcome::Interrupted => interrupted(task, until, UserPtr::new(UserAddr(remain.0))),
            _ => Ok(0),
        },
        Restart::Futex { addr, value, mask, shared, until } => {
            process::futex::wait(task, addr, value, mask, shared, Some(until)).map(|()| 0)
        }
    }
}

/// The interval timers (`setitimer(2)`).
enum Which {
    Real,
    Cpu(Counts),
}

fn interval_timer(which: u32) -> Result<Which> {
    match which {
        g::ITIMER_REAL => Ok(Which::Real),
        g::ITIMER_VIRTUAL => Ok(Which::Cpu(Counts::User)),
        g::ITIMER_PROF => Ok(Which::Cpu(Counts::All)),
        _ => Err(Errno::EINVAL),
    }
}

pub fn getitimer(task: &Task, which: u32, out: UserPtr<g::itimerval>) -> Result {
    let setting = match interval_timer(which)? {
        Which::Real => itimer::get(task),
        Which::Cpu(counts) => cpu_timers::get(task, counts),
    };
    out.write(raw_setting(setting))
}

pub fn setitimer(task: &Task, which: u32, new: UserPtr<g::itimerval>, old: UserPtr<g::itimerval>) -> Result {
    // Without a new setting the timer is cleared, as on Linux.
    let new = if new.is_null() { Setting::default() } else { setting(&new.read()?)? };
    let before = match interval_timer(which)? {
        Which::Real => itimer::set(task, new)?,
        Which::Cpu(counts) => cpu_timers::set(task, counts, new),
    };
    if old.is_null() { Ok(()) } else { old.write(raw_setting(before)) }
}

/// `struct sigevent`, as words: value; signal and kind; thread.
type RawEvent = [u64; 8];

/// Makes a timer.
pub fn timer_create(task: &Task, id: i32, event: UserPtr<RawEvent>, out: UserPtr<u32>) -> Result {
    let event = if event.is_null() { None } else { Some(event.read()?) };
    let clock = match source(task, id)? {
        Source::System(c @ (Clock::Realtime | Clock::Monotonic | Clock::Boottime | Clock::Tai)) => c,
        _ => return Err(Errno::EOPNOTSUPP),
    };
    let event = match event {
        None => Event { signal: Some(Signal::ALRM), thread: None, value: None },
        Some([value, kind, thread, ..]) => {
            let signal = Signal::new(kind as u32).ok_or(Errno::EINVAL);
            match (kind >> 32) as u32 {
                g::SIGEV_NONE => Event { signal: None, thread: None, value: Some(value) },
                g::SIGEV_SIGNAL | g::SIGEV_THREAD => Event { signal: Some(signal?), thread: None, value: Some(value) },
                SIGEV_SIGNAL_THREAD => Event { signal: Some(signal?), thread: Some(thread as u32), value: Some(value) },
                _ => return Err(Errno::EINVAL),
            }
        }
    };
    let id = posix_timers::create(task, clock, event)?;
    let told = out.write(id);
    if told.is_err() {
        posix_timers::delete(task, id)?;
    }
    told
}

/// SIGEV_SIGNAL | SIGEV_THREAD_ID.
const SIGEV_SIGNAL_THREAD: u32 = g::SIGEV_SIGNAL | g::SIGEV_THREAD_ID;

/// Sets a timer.
pub fn timer_settime(task: &Task, id: u32, flags: u32, new: UserPtr<[Timespec; 2]>, old: UserPtr<[Timespec; 2]>) -> Result {
    if new.is_null() {
        return Err(Errno::EINVAL);
    }
    let new = Setting::from_words(new.read()?).ok_or(Errno::EINVAL)?;
    let before = posix_timers::set(task, id, new, flags & g::TIMER_ABSTIME != 0)?;
    if old.is_null() { Ok(()) } else { old.write(before.to_words()) }
}

/// The time that a timer has left.
pub fn timer_gettime(task: &Task, id: u32, out: UserPtr<[Timespec; 2]>) -> Result {
    out.write(posix_timers::get(task, id)?.to_words())
}

/// How often a timer expired while its last signal was queued.
pub fn timer_getoverrun(task: &Task, id: u32) -> Result<u32> {
    posix_timers::overrun(task, id)
}

/// Deletes a timer.
pub fn timer_delete(task: &Task, id: u32) -> Result {
    posix_timers::delete(task, id)
}

fn raw_setting(s: Setting) -> g::itimerval {
    g::itimerval { it_interval: s.interval.to_timeval(), it_value: s.value.to_timeval() }
}

fn setting(raw: &g::itimerval) -> Result<Setting> {
    let nanos = |t: &g::timeval| {
        let valid = t.tv_sec >= 0 && (0..1_000_000).contains(&t.tv_usec);
        let whole = Nanos((t.tv_sec as u64).saturating_mul(Nanos::PER_SEC));
        if valid { Ok(whole.saturating_add(Nanos::from_micros(t.tv_usec as u64))) } else { Err(Errno::EINVAL) }
    };
    Ok(Setting { value: nanos(&raw.it_value)?, interval: nanos(&raw.it_interval)? })
}

pub fn times(task: &Task, out: UserPtr<[u64; 4]>) -> Result<u64> {
    if !out.is_null() {
        let own = waiting::own_usage(task.process());
        let gone = waiting::children_usage(task.process());
        out.write([own.utime, own.stime, gone.utime, gone.stime].map(clock_ticks))?;
    }
    Ok(clock_ticks(time::boottime()))
}
