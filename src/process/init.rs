//! The first process: from a kernel thread to `/init` (`bootparam(7)`: init=, rdinit=).

use crate::{
    exec::{self, Arguments, Program},
    limits::Limits,
    ns::{Namespaces, UtsNamespace},
    pid::{Membership, PidNamespace},
    session::Session,
    signal::{Actions, SigSet},
    task::{FAMILY, Process, ProcessSpec, Task, TaskSpec},
    user::{self, Counted, User},
};
use abi::{Errno, Result, raw::general as g};
use arch::UserRegs;
use kalloc::{KArc, KVec};
use sync::{LockClass, SpinLock};
use vfs::{Credentials, FdTable, FsContext, MountNamespace, OpenFile};

static ROOT: LockClass = LockClass::new("process.root", 1038);

struct Root {
    ns: KArc<Namespaces>,
    init: Option<KArc<Process>>,
}

static STATE: SpinLock<Option<Root>> = SpinLock::new(None, &ROOT);

/// PID 1, once it exists.
pub fn init_process() -> Option<KArc<Process>> {
    STATE.lock().as_ref()?.init.clone()
}

/// The initial namespaces.
pub fn root_namespaces() -> Option<KArc<Namespaces>> {
    Some(STATE.lock().as_ref()?.ns.clone())
}

/// The initial pid namespace.
pub fn root_pid_namespace() -> Option<KArc<PidNamespace>> {
    Some(STATE.lock().as_ref()?.ns.pid.clone())
}

/// How PID 1 finds its program.
pub struct InitOptions<'a> {
    /// `rdinit=`, tried first when an initial RAM file system is the root.
    pub rdinit: Option<&'a [u8]>,
    /// `init=`.
    pub init: Option<&'a [u8]>,
    /// Words behind `--`, and words of the command line that nobody knows.
    pub args: &'a [&'a [u8]],
    /// Unknown `NAME=value` words.
    pub env: &'a [&'a [u8]],
}

/// Makes the namespaces and PID 1, a process that still runs in the kernel. `main` is what its
/// thread runs; it ends in [`start_user`].
pub fn create(mounts: KArc<MountNamespace>, fs: KArc<FsContext>, max_threads: u64, main: impl FnOnce() + Send + 'static) -> Result<KArc<sched::Thread>> {
    let ns = KArc::try_new(Namespaces { pid: PidNamespace::try_new()?, uts: UtsNamespace::try_new()?, mount: mounts, net: net::NetNamespace::try_new()? })?;
    *STATE.lock() = Some(Root { ns: ns.clone(), init: None });
    user::set_threads_max(max_threads)?;
    let pid = PidNamespace::alloc(&ns.pid)?;
    let session = Session::try_new(pid.clone())?;
    let process = Process::try_new(ProcessSpec {
        pid: pid.clone(),
        actions: Actions::try_new()?,
        limits: Limits::initial(max_threads),
        exit_signal: g::SIGCHLD,
        // PID 1 starts in session and group 0, which no process can join: it may call setsid.
        pgrp: pid.clone(),
        session,
    })?;
    let task = Task::try_new(TaskSpec {
        pid: pid.clone(),
        process: process.clone(),
        mm: None,
        files: FdTable::new()?,
        fs,
        ns,
        cred: KArc::try_new(Credentials::root())?,
        blocked: SigSet::EMPTY,
        counted: Counted::new(User::find(0)?),
    })?;
    let thread = sched::create_kernel(
        sched::ThreadSpec {
            name: sched::thread_name("kernel_init"),
            nice: 0,
            affinity: abi::CpuMask::ALL,
            payload: Some(kalloc::karc_as!(task.clone() => dyn sched::Payload)),
            user_space: None,
            stack: frames::vmalloc::alloc_stack()?,
        },
        main,
    )?;
    let _ = task.thread.call_once(|| KArc::downgrade(&thread));
    let membership = Membership::try_new(process.id(), KArc::downgrade(&process))?;
    {
        let _family = FAMILY.lock();
        process.signals.lock_irq().members.try_push(task.clone())?;
        *process.leader.lock() = Some(task.clone());
        pid.set_task(Some(KArc::downgrade(&task)));
        pid.join(membership);
    }
    if let Some(root) = STATE.lock().as_mut() {
        root.init = Some(process);
    }
    Ok(thread)
}

/// Gives PID 1 its standard files and the first program that can be run, in Linux's order. On
/// success the registers are the program's.
pub fn start_user(console: Option<KArc<OpenFile>>, options: &InitOptions<'_>) -> Result<UserRegs> {
    crate::task::with_current(|task| {
        if let Some(console) = console {
            let files = task.files()?;
            for _ in 0..3 {
                files.install(console.clone(), false, 0, u64::MAX)?;
            }
        } else {
            log::warn!("Warning: unable to open an initial console.");
        }
        let mut tried = false;
        let mut attempt = |path: &[u8], asked_for: bool| match run(task, path, options) {
            Ok(regs) => Some(regs),
            Err(e) => {
                if asked_for || e != Errno::ENOENT {
                    log::error!("Failed to execute {} (error -{}).", Printable(path), e.code());
                }
                tried = true;
                None
            }
        };
        let rdinit = options.rdinit.unwrap_or(b"/init");
        if let Some(regs) = attempt(rdinit, options.rdinit.is_some()) {
            return Ok(regs);
        }
        if let Some(path) = options.init {
            // Who asks for a program does not get another one instead.
            return attempt(path, true).ok_or(Errno::ENOENT);
        }
        for path in [&b"/sbin/init"[..], b"/etc/init", b"/bin/init", b"/bin/sh"] {
            if let Some(regs) = attempt(path, false) {
                return Ok(regs);
            }
        }
        Err(Errno::ENOENT)
    })
    .unwrap_or(Err(Errno::ESRCH))
}

fn run(task: &Task, path: &[u8], options: &InitOptions<'_>) -> Result<UserRegs> {
    let file = exec::open_exec(task, path)?;
    let mut arguments = Arguments::default();
    arguments.args.push(path)?;
    for a in options.args {
        arguments.args.push(a)?;
    }
    arguments.env.push(b"HOME=/")?;
    arguments.env.push(b"TERM=linux")?;
    for e in options.env {
        arguments.env.push(e)?;
    }
    let mut regs = UserRegs::default();
    log::info!("Run {} as init process", Printable(path));
    exec::exec(task, &mut regs, Program { file, name: KVec::try_from_slice(path)?, inaccessible: false }, arguments)?;
    Ok(regs)
}

/// Bytes that should be text.
struct Printable<'a>(&'a [u8]);

impl core::fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("?")?;
            }
        }
        Ok(())
    }
}
