//! The settings of the process layer under /proc/sys/kernel.

use crate::{
    ns::{UTS_LEN, UtsName},
    ptrace::access::{SCOPE, SCOPE_NOBODY},
    task::with_current,
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
    proc_registry::add_fn("sys/kernel/threads-max", 0o444, |out| {
        writeln!(out, "{}", frames::stats().total / 16).map_err(no_memory)
    })?;
    proc_registry::add_fn("sys/kernel/ns_last_pid", 0o444, |out| {
        let last = crate::init::root_pid_namespace().map_or(0, |ns| ns.last());
        writeln!(out, "{last}").map_err(no_memory)
    })?;
    let scope = karc_dyn!(ScopeFile => dyn Show)?;
    proc_registry::add_writable("sys/kernel/yama/ptrace_scope", 0o644, Some(scope), karc_dyn!(ScopeFile => dyn Store)?)
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
