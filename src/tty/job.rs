//! Job control as the terminal needs it: who the caller is, which groups get signals, and the
//! rule that a background group may not touch its controlling terminal.
//!
//! Everything here runs in thread context: the process layer's methods take its locks.
//!
//! Sources: POSIX.1-2017 11.1 (General Terminal Interface), `tty_ioctl(4)`, `setsid(2)`.

use crate::Tty;
use abi::{Errno, Result, raw::general as g};
use kalloc::KArc;
use sync::Once;

/// A process with its group and session, by number in the initial namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ids {
    /// The process.
    pub pid: u32,
    /// Its process group.
    pub pgrp: u32,
    /// Its session.
    pub session: u32,
}

impl Ids {
    /// Whether it leads its session.
    pub fn leads_session(&self) -> bool {
        self.pid == self.session
    }
}

/// What the process layer does for terminals. Called in thread context, without locks.
pub trait JobControl: Sync {
    /// Sends a signal to a process group, from the kernel.
    fn signal_group(&self, pgrp: u32, signal: u32);
    /// The calling process; None for a kernel thread.
    fn current_ids(&self) -> Option<Ids>;
    /// Whether the caller's process group is orphaned.
    fn current_is_orphaned(&self) -> bool;
    /// Whether the caller ignores or blocks a signal.
    fn current_ignores_or_blocks(&self, signal: u32) -> bool;
    /// The controlling terminal of the caller's session.
    fn controlling_tty(&self) -> Option<KArc<Tty>>;
    /// Sets it.
    fn set_controlling_tty(&self, tty: Option<KArc<Tty>>);
    /// The terminal of a session hung up: its leader gets SIGHUP and SIGCONT, and when the leader
    /// ends, so does what was the foreground group.
    fn session_hung_up(&self, session: u32, foreground: Option<u32>);
    /// The session of a process group; None if there is no such group.
    fn group_session(&self, pgrp: u32) -> Option<u32>;
}

static JOBS: Once<&'static dyn JobControl> = Once::new();

/// Sets the process layer; once, before the first process runs.
pub fn set_job_control(jobs: &'static dyn JobControl) {
    JOBS.call_once(|| jobs);
}

pub(crate) fn jobs() -> Option<&'static dyn JobControl> {
    JOBS.get().copied()
}

/// The controlling terminal of the caller, if its session still holds it.
pub(crate) fn controlling_tty() -> Option<KArc<Tty>> {
    let jobs = jobs()?;
    let ids = jobs.current_ids()?;
    jobs.controlling_tty().filter(|t| t.session() == Some(ids.session))
}

/// Hangs the caller's controlling terminal up, if it has one (`vhangup(2)`).
pub fn hang_up_own() {
    if let Some(tty) = controlling_tty() {
        tty.hang_up();
    }
}

/// Whether `tty` is the caller's controlling terminal.
pub(crate) fn is_controlling(tty: &KArc<Tty>) -> bool {
    controlling_tty().is_some_and(|t| KArc::ptr_eq(&t, tty))
}

/// Lets the foreground group of the caller's controlling terminal pass. A background group gets
/// `signal` (SIGTTIN, SIGTTOU) and the call is restarted after it; if that could not stop it: EIO,
/// but whoever ignores or blocks SIGTTOU may go on.
pub(crate) fn check_foreground(tty: &KArc<Tty>, signal: u32) -> Result {
    let Some(jobs) = jobs() else { return Ok(()) };
    let Some(ids) = jobs.current_ids() else { return Ok(()) };
    if !is_controlling(tty) {
        return Ok(());
    }
    match tty.foreground_group() {
        None => return Ok(()),
        Some(pgrp) if pgrp == ids.pgrp => return Ok(()),
        Some(_) => {}
    }
    if jobs.current_ignores_or_blocks(signal) {
        return if signal == g::SIGTTIN { Err(Errno::EIO) } else { Ok(()) };
    }
    if jobs.current_is_orphaned() {
        return Err(Errno::EIO);
    }
    jobs.signal_group(ids.pgrp, signal);
    Err(Errno::ERESTARTSYS)
}

pub(crate) fn signal_group(pgrp: Option<u32>, signal: u32) {
    if let (Some(jobs), Some(pgrp)) = (jobs(), pgrp) {
        jobs.signal_group(pgrp, signal);
    }
}
