//! `ioctl(2)` on terminals (`tty_ioctl(4)`).

use crate::{
    Flag, Tty, job,
    termios::{TERMIOS_SIZE, TERMIOS2_SIZE, Termios},
};
use abi::{
    Errno, Result, UserAddr,
    raw::{general as g, ioctl as n},
};
use arch::user::UserSlice;
use kalloc::KArc;
use vfs::{Cap, OpenFile};

// Not in the generated numbers: asm-generic/ioctls.h and asm-generic/termbits.h.
const TCSETS: u32 = 0x5402;
const TCSETSW: u32 = 0x5403;
const TCSETSF: u32 = 0x5404;
const TIOCEXCL: u32 = 0x540c;
const TIOCNXCL: u32 = 0x540d;
const TIOCNOTTY: u32 = 0x5422;
const TIOCCBRK: u32 = 0x5428;
const TIOCVHANGUP: u32 = 0x5437;
const TCSETS2: u32 = 0x402c_542b;
const TCSETSW2: u32 = 0x402c_542c;
const TCSETSF2: u32 = 0x402c_542d;

fn user(arg: u64, len: usize) -> UserSlice {
    UserSlice::new(UserAddr(arg), len)
}

pub(crate) fn put_int(arg: u64, value: i32) -> Result<u64> {
    user(arg, 4).write_from(&value.to_ne_bytes())?;
    Ok(0)
}

pub(crate) fn get_int(arg: u64) -> Result<i32> {
    let mut bytes = [0; 4];
    user(arg, 4).read_into(&mut bytes)?;
    Ok(i32::from_ne_bytes(bytes))
}

/// Carries out a request. ENOTTY for those that a terminal does not know.
pub(crate) fn ioctl(tty: &KArc<Tty>, f: &OpenFile, cmd: u32, arg: u64) -> Result<u64> {
    // These change the terminal: not from the background.
    if matches!(cmd, n::TIOCSETD | n::TIOCSBRK | TIOCCBRK | n::TCSBRK | n::TCSBRKP) {
        job::check_foreground(tty, g::SIGTTOU)?;
        if cmd != TIOCCBRK {
            tty.drain()?;
        }
    }
    match cmd {
        n::TCGETS => {
            let bytes = tty.termios().to_bytes();
            user(arg, TERMIOS_SIZE).write_from(bytes.get(..TERMIOS_SIZE).ok_or(Errno::EINVAL)?)?;
            Ok(0)
        }
        n::TCGETS2 => {
            user(arg, TERMIOS2_SIZE).write_from(&tty.termios().to_bytes())?;
            Ok(0)
        }
        TCSETS | TCSETSW | TCSETSF => set_termios(tty, arg, TERMIOS_SIZE, cmd != TCSETS, cmd == TCSETSF),
        TCSETS2 | TCSETSW2 | TCSETSF2 => set_termios(tty, arg, TERMIOS2_SIZE, cmd != TCSETS2, cmd == TCSETSF2),
        n::TCFLSH => flush(tty, arg),
        n::TCXONC => flow(tty, arg),
        n::TCSBRK if arg != 0 => Ok(0),
        // tcsendbreak: a quarter of a second; TCSBRKP counts tenths.
        n::TCSBRK => send_break(tty, 250),
        n::TCSBRKP => send_break(tty, if arg == 0 { 250 } else { arg.min(100) * 100 }),
        n::TIOCSBRK | TIOCCBRK => {
            tty.driver.set_break(cmd == n::TIOCSBRK);
            Ok(0)
        }
        n::FIONREAD => {
            let count = {
                let s = tty.state.lock();
                s.ldisc.readable_bytes(&s.termios)
            };
            put_int(arg, count as i32)
        }
        n::TIOCOUTQ => put_int(arg, tty.driver.unsent() as i32),
        n::TIOCGWINSZ => {
            let [rows, cols, x, y] = tty.state.lock().winsize;
            let mut bytes = [0; 8];
            for (slot, v) in bytes.chunks_exact_mut(2).zip([rows, cols, x, y]) {
                slot.copy_from_slice(&v.to_ne_bytes());
            }
            user(arg, 8).write_from(&bytes)?;
            Ok(0)
        }
        n::TIOCSWINSZ => set_winsize(tty, arg),
        n::TIOCGPGRP => group(tty, arg),
        n::TIOCSPGRP => set_group(tty, arg),
        n::TIOCGSID => {
            if !job::is_controlling(tty) {
                return Err(Errno::ENOTTY);
            }
            put_int(arg, tty.session().ok_or(Errno::ENOTTY)? as i32)
        }
        n::TIOCSCTTY => set_controlling(tty, f, arg == 1),
        TIOCNOTTY => give_up(tty),
        n::TIOCSTI => simulate_input(tty, f, arg),
        TIOCEXCL | TIOCNXCL => {
            tty.state.lock().exclusive = cmd == TIOCEXCL;
            Ok(0)
        }
        // Only a master has another end.
        n::TIOCGPTPEER => Err(Errno::EIO),
        n::TIOCGEXCL => put_int(arg, i32::from(tty.state.lock().exclusive)),
        n::TIOCGETD => put_int(arg, 0),
        n::TIOCSETD => {
            // N_TTY is the only one.
            if get_int(arg)? == 0 { Ok(0) } else { Err(Errno::EINVAL) }
        }
        n::TIOCGDEV => put_int(arg, tty.dev().encode() as i32),
        n::TIOCGSOFTCAR => put_int(arg, i32::from(tty.termios().cflag & g::CLOCAL != 0)),
        n::TIOCSSOFTCAR => {
            let on = get_int(arg)? != 0;
            let mut t = tty.termios();
            t.cflag = if on { t.cflag | g::CLOCAL } else { t.cflag & !g::CLOCAL };
            tty.set_termios(t);
            Ok(0)
        }
        TIOCVHANGUP => {
            if !f.cred.capable(Cap::SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            tty.hang_up();
            Ok(0)
        }
        _ => Err(Errno::ENOTTY),
    }
}

fn set_termios(tty: &KArc<Tty>, arg: u64, size: usize, drain: bool, flush: bool) -> Result<u64> {
    job::check_foreground(tty, g::SIGTTOU)?;
    let mut bytes = [0; TERMIOS2_SIZE];
    let bytes = bytes.get_mut(..size).ok_or(Errno::EINVAL)?;
    user(arg, size).read_into(bytes)?;
    if flush {
        tty.flush_input();
    }
    if drain {
        tty.drain()?;
    }
    tty.set_termios(Termios::from_bytes(bytes, &tty.termios()).ok_or(Errno::EINVAL)?);
    Ok(0)
}

/// Which queues TCFLSH means: input, output.
pub(crate) fn queues(queue: u64) -> Result<(bool, bool)> {
    match u32::try_from(queue) {
        Ok(g::TCIFLUSH) => Ok((true, false)),
        Ok(g::TCOFLUSH) => Ok((false, true)),
        Ok(g::TCIOFLUSH) => Ok((true, true)),
        _ => Err(Errno::EINVAL),
    }
}

fn flush(tty: &KArc<Tty>, queue: u64) -> Result<u64> {
    job::check_foreground(tty, g::SIGTTOU)?;
    let (input, output) = queues(queue)?;
    if input {
        tty.flush_input();
    }
    if output {
        tty.driver.flush();
        tty.output_ready();
    }
    Ok(0)
}

fn flow(tty: &KArc<Tty>, action: u64) -> Result<u64> {
    job::check_foreground(tty, g::SIGTTOU)?;
    let t = tty.termios();
    let send = |c: u8| {
        if c != 0 {
            tty.driver.send_now(c);
        }
    };
    match u32::try_from(action) {
        Ok(g::TCOOFF) => tty.set_output(false),
        Ok(g::TCOON) => tty.set_output(true),
        Ok(g::TCIOFF) => send(t.cc(g::VSTOP)),
        Ok(g::TCION) => send(t.cc(g::VSTART)),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn send_break(tty: &KArc<Tty>, milliseconds: u64) -> Result<u64> {
    if !tty.driver.has_break() {
        return Ok(0);
    }
    tty.driver.set_break(true);
    let end = time::monotonic().saturating_add(abi::Nanos::from_millis(milliseconds));
    let outcome = sched::sleep_until(sched::Sleep::Interruptible, end);
    tty.driver.set_break(false);
    match outcome {
        sched::Outcome::Interrupted => Err(Errno::EINTR),
        _ => Ok(0),
    }
}

fn set_winsize(tty: &KArc<Tty>, arg: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    user(arg, 8).read_into(&mut bytes)?;
    let mut new = [0; 4];
    for (slot, pair) in new.iter_mut().zip(bytes.chunks_exact(2)) {
        *slot = u16::from_ne_bytes(pair.try_into().map_err(|_| Errno::EINVAL)?);
    }
    let (changed, pgrp) = {
        let mut s = tty.state.lock();
        let changed = s.winsize != new;
        s.winsize = new;
        (changed, s.pgrp)
    };
    if changed {
        job::signal_group(pgrp, g::SIGWINCH);
    }
    Ok(0)
}

fn group(tty: &KArc<Tty>, arg: u64) -> Result<u64> {
    if !job::is_controlling(tty) {
        return Err(Errno::ENOTTY);
    }
    put_int(arg, tty.foreground_group().unwrap_or(0) as i32)
}

fn set_group(tty: &KArc<Tty>, arg: u64) -> Result<u64> {
    job::check_foreground(tty, g::SIGTTOU).map_err(|e| if e == Errno::EIO { Errno::ENOTTY } else { e })?;
    let pgrp = u32::try_from(get_int(arg)?).map_err(|_| Errno::EINVAL)?;
    let jobs = job::jobs().ok_or(Errno::ENOTTY)?;
    let ids = jobs.current_ids().ok_or(Errno::ENOTTY)?;
    if !job::is_controlling(tty) {
        return Err(Errno::ENOTTY);
    }
    if jobs.group_session(pgrp).ok_or(Errno::ESRCH)? != ids.session {
        return Err(Errno::EPERM);
    }
    tty.state.lock().pgrp = Some(pgrp);
    Ok(0)
}

/// TIOCSCTTY. A terminal of another session is taken away from it only by `steal` and a
/// privileged caller.
fn set_controlling(tty: &KArc<Tty>, f: &OpenFile, steal: bool) -> Result<u64> {
    let ids = job::jobs().and_then(|j| j.current_ids()).ok_or(Errno::EPERM)?;
    if ids.leads_session() && tty.session() == Some(ids.session) {
        return Ok(0);
    }
    if !ids.leads_session() || job::controlling_tty().is_some() {
        return Err(Errno::EPERM);
    }
    let privileged = f.cred.capable(Cap::SYS_ADMIN);
    if tty.session().is_some() && !(steal && privileged) || !f.may_read() && !privileged {
        return Err(Errno::EPERM);
    }
    acquire(tty, ids, true)?;
    Ok(0)
}

/// Makes `tty` the controlling terminal of the caller's session. EPERM if it is another's.
pub(crate) fn acquire(tty: &KArc<Tty>, ids: job::Ids, steal: bool) -> Result {
    {
        let mut s = tty.state.lock();
        if s.session.is_some() && !steal {
            return Err(Errno::EPERM);
        }
        s.session = Some(ids.session);
        s.pgrp = Some(ids.pgrp);
    }
    if let Some(jobs) = job::jobs() {
        jobs.set_controlling_tty(Some(tty.clone()));
    }
    Ok(())
}

/// TIOCNOTTY: the session gives its terminal up; its leader's call hangs up the foreground group.
fn give_up(tty: &KArc<Tty>) -> Result<u64> {
    let jobs = job::jobs().ok_or(Errno::ENOTTY)?;
    let ids = jobs.current_ids().ok_or(Errno::ENOTTY)?;
    if !job::is_controlling(tty) {
        return Err(Errno::ENOTTY);
    }
    if ids.leads_session() {
        let pgrp = {
            let mut s = tty.state.lock();
            s.session = None;
            s.pgrp.take()
        };
        jobs.set_controlling_tty(None);
        job::signal_group(pgrp, g::SIGHUP);
        job::signal_group(pgrp, g::SIGCONT);
    }
    Ok(0)
}

fn simulate_input(tty: &KArc<Tty>, f: &OpenFile, arg: u64) -> Result<u64> {
    if !job::is_controlling(tty) && !f.cred.capable(Cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let mut byte = [0];
    user(arg, 1).read_into(&mut byte)?;
    tty.input(&byte, Flag::Normal);
    Ok(0)
}
