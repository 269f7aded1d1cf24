//! The machine as a whole: names, memory, randomness, log, power.

use abi::{Errno, Result, UserAddr, raw::general as g};
use arch::user::{SysInfo, UserPtr, UserSlice};
use arrayvec::ArrayString;
use core::fmt::Write;
use kalloc::KBytes;
use process::{Personality, Task, UtsName};
use vfs::Cap;

/// Bytes of each name in `struct new_utsname`.
const FIELD: usize = 65;

pub fn uname(task: &Task, out: UserAddr) -> Result {
    let names = task.ns()?.uts.names();
    let mut raw = [0u8; FIELD * 6];
    let mut old = ArrayString::new();
    let fields: [&[u8]; 6] =
        [b"Linux", names.host.as_bytes(), release(task, &mut old).as_bytes(), VERSION.as_bytes(), b"aarch64", names.domain.as_bytes()];
    for (slot, text) in raw.chunks_exact_mut(FIELD).zip(fields) {
        for (to, from) in slot.iter_mut().take(FIELD - 1).zip(text) {
            *to = *from;
        }
    }
    UserSlice::new(out, raw.len()).write_from(&raw)
}

/// The release; for programs that cannot read a number from 3 on, 2.6 and 60 more than the minor
/// number (`personality(2)`, UNAME26).
fn release<'a>(task: &Task, old: &'a mut ArrayString<FIELD>) -> &'a str {
    if !task.personality().contains(Personality::UNAME26) {
        return abi::RELEASE;
    }
    let numbers = abi::RELEASE.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(abi::RELEASE.len());
    let (numbers, rest) = abi::RELEASE.split_at(numbers);
    let minor = numbers.split('.').nth(1).and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    // A release that does not fit is cut.
    let _ = write!(old, "2.6.{}{rest}", minor + 60);
    old
}

/// What `uname -v` shows.
pub use abi::VERSION;

fn set_name(task: &Task, name: UserAddr, len: i32, set: impl FnOnce(&process::UtsNamespace, UtsName)) -> Result {
    if !task.with_cred(|c| c.capable(Cap::SYS_ADMIN))? {
        return Err(Errno::EPERM);
    }
    let mut bytes = [0u8; process::UTS_LEN];
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    let part = bytes.get_mut(..len).ok_or(Errno::EINVAL)?;
    UserSlice::new(name, len).read_into(part)?;
    set(&task.ns()?.uts, UtsName::new(part)?);
    Ok(())
}

pub fn sethostname(task: &Task, name: UserAddr, len: i32) -> Result {
    set_name(task, name, len, |uts, n| uts.set_host(n))
}

pub fn setdomainname(task: &Task, name: UserAddr, len: i32) -> Result {
    set_name(task, name, len, |uts, n| uts.set_domain(n))
}

/// `vhangup(2)`: hangs the caller's own terminal up.
pub fn vhangup(task: &Task) -> Result {
    if !task.with_cred(|c| c.capable(Cap::SYS_TTY_CONFIG))? {
        return Err(Errno::EPERM);
    }
    tty::hang_up_own();
    Ok(())
}

pub fn sysinfo(task: &Task, out: UserPtr<SysInfo>) -> Result {
    let m = frames::stats();
    let page = abi::PAGE_SIZE as u64;
    let loads = sched::loadavg();
    let info = SysInfo {
        uptime: time::boottime().secs() as i64,
        // SI_LOAD_SHIFT is 16.
        loads: loads.map(|l| l << (16 - sched::LOAD_SHIFT)),
        totalram: m.total * page,
        freeram: m.free * page,
        sharedram: frames::counter(frames::Counter::Shmem) * page,
        procs: task.ns()?.pid.count().min(u16::MAX as usize) as u16,
        mem_unit: 1,
        ..SysInfo::default()
    };
    out.write(info)
}

pub fn reboot(task: &Task, magic: u32, magic2: u32, cmd: u32, _arg: UserAddr) -> Result {
    const MAGIC1: u32 = 0xfee1_dead;
    const MAGIC2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
    const CAD_OFF: u32 = 0;
    const CAD_ON: u32 = 0x89ab_cdef;
    const HALT: u32 = 0xcdef_0123;
    const POWER_OFF: u32 = 0x4321_fedc;
    const RESTART: u32 = 0x0123_4567;
    const RESTART2: u32 = 0xa1b2_c3d4;
    if !task.with_cred(|c| c.capable(Cap::SYS_BOOT))? {
        return Err(Errno::EPERM);
    }
    if magic != MAGIC1 || !MAGIC2.contains(&magic2) {
        return Err(Errno::EINVAL);
    }
    match cmd {
        // There is no Ctrl-Alt-Del on a serial line.
        CAD_OFF | CAD_ON => Ok(()),
        HALT => {
            log::warn!("reboot: System halted");
            arch::power::halt()
        }
        POWER_OFF => {
            log::warn!("reboot: Power down");
            arch::power::off()
        }
        RESTART | RESTART2 => {
            log::warn!("reboot: Restarting system");
            arch::power::restart()
        }
        _ => Err(Errno::EINVAL),
    }
}

pub fn getrandom(_: &Task, buf: UserAddr, len: usize, flags: u32) -> Result<usize> {
    if flags & !(g::GRND_NONBLOCK | g::GRND_RANDOM | g::GRND_INSECURE) != 0 || flags & (g::GRND_RANDOM | g::GRND_INSECURE) == g::GRND_RANDOM | g::GRND_INSECURE {
        return Err(Errno::EINVAL);
    }
    if !buf.range_ok(len as u64) {
        return Err(Errno::EFAULT);
    }
    if flags & g::GRND_INSECURE == 0 && !vfs::random::is_seeded() {
        if flags & g::GRND_NONBLOCK != 0 {
            return Err(Errno::EAGAIN);
        }
        let seeded = || vfs::random::is_seeded().then_some(());
        if let sched::Outcome::Interrupted = vfs::random::waiters().wait_until(sched::Sleep::Interruptible, None, seeded) {
            return Err(Errno::ERESTARTSYS);
        }
    }
    let out = UserSlice::new(buf, len.min(i32::MAX as usize));
    let mut done = 0;
    let mut chunk = [0u8; 256];
    while done < out.len() {
        let n = chunk.len().min(out.len() - done);
        let part = chunk.get_mut(..n).ok_or(Errno::EFAULT)?;
        vfs::random::fill(part);
        let copied = out.sub(done, n).write_partial(part);
        done += copied;
        if copied < n {
            return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
        }
    }
    Ok(done)
}

pub fn syslog(task: &Task, action: i32, buf: UserAddr, len: i32) -> Result<u64> {
    const READ_ALL: i32 = 3;
    const READ_CLEAR: i32 = 4;
    const CLEAR: i32 = 5;
    const CONSOLE_OFF: i32 = 6;
    const CONSOLE_ON: i32 = 7;
    const CONSOLE_LEVEL: i32 = 8;
    const SIZE_BUFFER: i32 = 10;
    const DEFAULT_LEVEL: u8 = 7;
    if !(0..=SIZE_BUFFER).contains(&action) {
        return Err(Errno::EINVAL);
    }
    if !matches!(action, READ_ALL | SIZE_BUFFER) && !task.with_cred(|c| c.capable(Cap::SYSLOG) || c.capable(Cap::SYS_ADMIN))? {
        return Err(Errno::EPERM);
    }
    match action {
        READ_ALL | READ_CLEAR => {
            let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
            if buf.is_null() {
                return Err(Errno::EINVAL);
            }
            let mut text = KBytes::new();
            let mut full = Ok(());
            klog::syslog::read_all(len, |line| {
                full = text.try_extend_from_slice(line);
                full.is_ok()
            });
            full?;
            UserSlice::new(buf, text.len()).write_from(&text)?;
            if action == READ_CLEAR {
                klog::syslog::clear();
            }
            Ok(text.len() as u64)
        }
        CLEAR => {
            klog::syslog::clear();
            Ok(0)
        }
        CONSOLE_OFF => {
            klog::set_console_level(1);
            Ok(0)
        }
        CONSOLE_ON => {
            klog::set_console_level(DEFAULT_LEVEL);
            Ok(0)
        }
        CONSOLE_LEVEL => {
            let level = u8::try_from(len).ok().filter(|l| (1..=8).contains(l)).ok_or(Errno::EINVAL)?;
            klog::set_console_level(level);
            Ok(0)
        }
        SIZE_BUFFER => Ok(klog::syslog::BUFFER_SIZE as u64),
        // Opening and closing the log mean nothing; reading it record by record is /dev/kmsg's.
        0 | 1 => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

pub fn getcpu(_: &Task, cpu: UserPtr<u32>, node: UserPtr<u32>) -> Result {
    if !cpu.is_null() {
        cpu.write(arch::cpu::id().0)?;
    }
    if !node.is_null() {
        node.write(0)?;
    }
    Ok(())
}
