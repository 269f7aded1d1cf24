//! The settings of the process layer under /proc/sys/kernel.

use crate::{
    init,
    ns::{UTS_LEN, UtsName},
    pid,
    ptrace::access::{SCOPE, SCOPE_NOBODY},
    task::with_current,
    user,
};
use abi::{Errno, Result};
use core::fmt::Write;
use kalloc::karc_dyn;
use vfs::{
    Cap, proc_registry,
    pseudo::{Reader, SeqBuf, Show, Store, no_memory},
    sysctl,
};

pub(super) fn register() -> Result {
    sysctl::add_line("sys/kernel/hostname", UTS_LEN, host, |name| set(name, |uts, n| uts.set_host(n)))?;
    sysctl::add_line("sys/kernel/domainname", UTS_LEN, domain, |name| set(name, |uts, n| uts.set_domain(n)))?;
    sysctl::add_number("sys/kernel/pid_max", &pid::PID_MAX)?;
    sysctl::add_number("sys/kernel/threads-max", &user::THREADS_MAX)?;
    // Whoever may write it is checked by the file itself.
    let last = karc_dyn!(LastPidFile => dyn Show)?;
    proc_registry::add_writable("sys/kernel/ns_last_pid", 0o666, Some(last), karc_dyn!(LastPidFile => dyn Store)?)?;
    let scope = karc_dyn!(ScopeFile => dyn Show)?;
    proc_registry::add_writable("sys/kernel/yama/ptrace_scope", 0o644, Some(scope), karc_dyn!(ScopeFile => dyn Store)?)
}

/// `kernel.ns_last_pid`: behind which number the search for a free one starts.
struct LastPidFile;

impl Show for LastPidFile {
    fn show(&self, out: &mut SeqBuf, _: &Reader<'_>) -> Result {
        let last = init::root_pid_namespace().map_or(0, |ns| ns.last());
        writeln!(out, "{last}").map_err(no_memory)
    }
}

impl Store for LastPidFile {
    fn store(&self, data: &[u8], pos: u64, _: &Reader<'_>) -> Result<usize> {
        let allowed = with_current(|me| me.with_cred(|c| c.capable(Cap::CHECKPOINT_RESTORE) || c.capable(Cap::SYS_ADMIN)));
        if !allowed.unwrap_or(Ok(false))? {
            return Err(Errno::EPERM);
        }
        if pos > 0 {
            return Ok(data.len());
        }
        let (value, used) = sysctl::parse(data)?;
        let last = u32::try_from(value).ok().filter(|n| *n <= pid::pid_max()).ok_or(Errno::EINVAL)?;
        init::root_pid_namespace().ok_or(Errno::ESRCH)?.set_last(last);
        Ok(used)
    }
}

/// `kernel.yama.ptrace_scope`: only CAP_SYS_PTRACE may write it, and 3 stays.
struct ScopeFile;

impl Show for ScopeFile {
    fn show(&self, out: &mut SeqBuf, reader: &Reader<'_>) -> Result {
        (&SCOPE).show(out, reader)
    }
}

impl Store for ScopeFile {
    fn store(&self, data: &[u8], pos: u64, writer: &Reader<'_>) -> Result<usize> {
        let capable = with_current(|me| me.with_cred(|c| c.capable(Cap::SYS_PTRACE))).unwrap_or(Ok(false))?;
        if !capable {
            return Err(Errno::EPERM);
        }
        if SCOPE.get() == SCOPE_NOBODY && sysctl::parse(data)?.0 != SCOPE_NOBODY {
            return Err(Errno::EINVAL);
        }
        (&SCOPE).store(data, pos, writer)
    }
}

fn uts() -> Result<kalloc::KArc<crate::UtsNamespace>> {
    Ok(crate::task::current_arc().ok_or(Errno::ESRCH)?.ns()?.uts.clone())
}

fn show(out: &mut SeqBuf, name: UtsName) -> Result {
    out.push(name.as_bytes())?;
    out.push(b"\n")
}

fn host(out: &mut SeqBuf) -> Result {
    show(out, uts()?.names().host)
}

fn domain(out: &mut SeqBuf) -> Result {
    show(out, uts()?.names().domain)
}

fn set(name: &[u8], store: impl FnOnce(&crate::UtsNamespace, UtsName)) -> Result {
    store(&*uts()?, UtsName::new(name)?);
    Ok(())
}
