//! Running a program (`execve(2)`): scripts, ELF files, the new address space, and the moment from
//! which there is no way back.
//!
//! 1. Open the file; follow `#!` lines to the interpreter; read and check the ELF headers.
//! 2. Build a whole new address space beside the old one: segments, stack with arguments,
//!    environment and auxiliary vector. Any failure so far leaves the caller as it was.
//! 3. **Point of no return** ([`commit`]): the other threads end, the new space replaces the old,
//!    handlers and close-on-exec files go, ids change for set-id files. What fails from here on ends
//!    the process.

mod args;
mod elf;
mod load;
mod script;
mod trampoline;

pub use args::Arguments;

use crate::{
    signal::{SigInfo, Signal},
    task::{AltStack, Process, Restart, Task},
};
use abi::{Errno, Result, raw::general::MS_NOSUID};
use arch::{UserRegs, thread::FATAL_PENDING};
use kalloc::{KArc, KVec};
use load::Image;
use mm::io::IoSink;
use sched::{Outcome, Sleep};
use sync::atomic::Ordering;
use vfs::{Caps, Credentials, Executable, LookupFlags, OpenFile, Path};

/// Bytes of a file that decide what it is (BINPRM_BUF_SIZE).
const HEAD_SIZE: usize = 256;
/// How many interpreters may name each other.
const MAX_SCRIPTS: usize = 5;

/// What to run: a path from a directory (`AT_FDCWD` or a descriptor's).
pub struct Program {
    pub file: Executable,
    /// The name as it was given: argv[0] of scripts, AT_EXECFN, and the last component is `comm`.
    pub name: KVec<u8>,
}

/// Replaces the program of the current task; on success `regs` start the new one.
pub fn exec(task: &Task, regs: &mut UserRegs, program: Program, mut arguments: Arguments) -> Result {
    if arguments.args.is_empty() {
        // Linux since 5.18: a program never sees an empty argument list.
        arguments.args.push(b"")?;
    }
    let filename = KVec::try_from_slice(&program.name)?;
    let mut file = program.file;
    let mut scripts = 0;
    let (head, len) = loop {
        let mut head = [0u8; HEAD_SIZE];
        let n = read(&file.file, &mut head, 0)?;
        let Some(line) = script::parse(head.get(..n).unwrap_or(&[]))? else { break (head, n) };
        scripts += 1;
        if scripts > MAX_SCRIPTS {
            return Err(Errno::ELOOP);
        }
        // The interpreter, its one argument, the script's name, and the arguments behind argv[0].
        let name = if scripts == 1 { filename.as_slice() } else { arguments.args.first().unwrap_or(b"") };
        let name = KVec::try_from_slice(name)?;
        arguments.args.replace_first(&[Some(line.interpreter), line.argument, Some(name.as_slice())])?;
        file = open_exec(task, line.interpreter)?;
    };
    if !elf::is_elf(head.get(..len).unwrap_or(&[])) {
        return Err(Errno::ENOEXEC);
    }
    let cred = credentials_for(task, &file.file)?;
    let image = load::build(task, &file.file, &head, &arguments, &filename, &cred)?;
    commit(task, regs, file, image, cred, &filename)
}

/// Opens a program by path for running it: EACCES unless it is a regular file that may be executed.
pub fn open_exec(task: &Task, path: &[u8]) -> Result<Executable> {
    let (fs, cred) = (task.fs()?, task.cred()?);
    vfs::open_exec(&vfs::Lookup { fs: &fs, cred: &cred }, None, path, LookupFlags::FOLLOW)
}

/// Reads from a program file into kernel memory.
fn read(file: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
    file.read_at(&mut IoSink::kernel(buf), pos)
}

/// The most memory that a space had resident, in KiB.
pub(crate) fn peak_rss_kib(mm: &mm::AddressSpace) -> u64 {
    mm.stats().rss_peak.saturating_mul(4)
}

/// Credentials after exec (`capabilities(7)`, "Transformation of capabilities during execve").
struct NewCredentials {
    cred: KArc<Credentials>,
    /// AT_SECURE: the program runs with more than its caller's rights.
    secure: bool,
}

fn credentials_for(task: &Task, file: &OpenFile) -> Result<NewCredentials> {
    let old = task.cred()?;
    let (mode, uid, gid) = (file.inode.mode(), file.inode.uid(), file.inode.gid());
    let allowed = !task.process.no_new_privs.load(Ordering::Relaxed) && file.path.mount.flags() & MS_NOSUID == 0;
    let mut new = kalloc::TryClone::try_clone(&*old)?;
    if allowed && mode.0 & abi::raw::general::S_ISUID != 0 {
        new.euid = uid;
    }
    // Set-group-id without group execute permission means mandatory locking, not a change of ids.
    if allowed && mode.0 & (abi::raw::general::S_ISGID | abi::raw::general::S_IXGRP) == abi::raw::general::S_ISGID | abi::raw::general::S_IXGRP {
        new.egid = gid;
    }
    new.suid = new.euid;
    new.fsuid = new.euid;
    new.sgid = new.egid;
    new.fsgid = new.egid;
    let root = new.uid == 0 || new.euid == 0;
    let c = old.caps;
    let gained = new.euid != old.euid || new.egid != old.egid;
    let ambient = if gained { 0 } else { c.ambient };
    let permitted = if root { c.inheritable | c.bounding } else { ambient };
    let effective = if new.euid == 0 { permitted } else { ambient };
    new.caps = Caps { permitted, effective, ambient, ..c };
    let secure = new.euid != new.uid || new.egid != new.gid;
    Ok(NewCredentials { cred: KArc::try_new(new)?, secure })
}

/// The point of no return.
fn commit(task: &Task, regs: &mut UserRegs, file: Executable, image: Image, new: NewCredentials, filename: &[u8]) -> Result {
    end_other_threads(task)?;
    let old = task.mm();
    let thread = sched::current();
    let memory = image.memory;
    let exe = match KArc::try_new(file) {
        Ok(exe) => exe,
        Err(_) => return die(task),
    };
    drop(sched::set_user_space(Some(kalloc::karc_as!(memory.space.clone() => dyn sched::UserSpace))));
    drop(task.set_mm(Some(memory)));
    task.process.sigreturn.store(image.sigreturn, Ordering::Relaxed);
    let (entry, stack) = (image.entry, image.stack);
    if let Some(old) = old {
        let mut t = task.process.times.lock();
        t.max_rss_kib = t.max_rss_kib.max(peak_rss_kib(&old));
    }
    task.clear_child_tid.store(0, Ordering::Relaxed);
    task.robust_list.store(0, Ordering::Relaxed);
    *task.restart.lock() = Restart::None;
    *task.alt_stack.lock() = AltStack::DISABLED;
    if let Some(actions) = task.process.actions() {
        // A table that another process shares stays as it is for that one.
        match if KArc::strong_count(&actions) > 2 { actions.try_copy() } else { Ok(actions) } {
            Ok(own) => {
                own.reset_handlers();
                task.process.actions.store(Some(own));
            }
            Err(_) => return die(task),
        }
    }
    // Before close-on-exec, by which the parent may notice the exec (setpgid(2), EACCES).
    task.process.has_execed.store(true, Ordering::Release);
    match task.files() {
        Ok(files) => {
            let files = if KArc::strong_count(&files) > 2 {
                match files.copy() {
                    Ok(own) => {
                        drop(task.set_files(Some(own.clone())));
                        own
                    }
                    Err(_) => return die(task),
                }
            } else {
                files
            };
            files.close_on_exec();
        }
        Err(_) => return die(task),
    }
    task.process.dumpable.store(!new.secure, Ordering::Relaxed);
    task.process.parent_death_signal.store(0, Ordering::Relaxed);
    task.process.exit_signal.store(abi::raw::general::SIGCHLD, Ordering::Relaxed);
    task.set_cred(new.cred);
    let old_exe = task.process.exe.lock().replace(exe);
    drop(old_exe);
    let base = filename.rsplit(|b| *b == b'/').next().unwrap_or(filename);
    let mut name = [0u8; 16];
    for (to, from) in name.iter_mut().take(15).zip(base) {
        *to = *from;
    }
    thread.set_name(name);
    arch::fp::flush(thread.head());
    arch::thread::set_tls(0);
    *regs = UserRegs { pc: entry, sp: stack, syscallno: -1, ..UserRegs::default() };
    task.release_vfork_parent();
    Ok(())
}

fn die(task: &Task) -> Result {
    crate::signal::send_to_task(task, SigInfo::kernel(Signal::KILL));
    Err(Errno::ENOMEM)
}

/// Ends all other threads of the process and waits for that; this thread takes over the id of the
/// process. EAGAIN when the process is ending or another thread is faster.
fn end_other_threads(task: &Task) -> Result {
    let process = &task.process;
    {
        let mut s = process.signals.lock_irq();
        if s.group_exit.is_some() || s.exec_by.is_some() {
            return Err(Errno::EAGAIN);
        }
        if s.members.len() == 1 && task.is_leader() {
            return Ok(());
        }
        s.exec_by = Some(task.id());
        for t in s.members.iter().filter(|t| t.id() != task.id()) {
            if let Some(thread) = t.thread() {
                thread.head().set_flag(arch::thread::SIGNAL_PENDING | FATAL_PENDING);
                sched::signal_wake(&thread, true);
            }
        }
    }
    let alone = process.members_gone.wait_until(Sleep::Killable, None, || {
        (process.signals.lock_irq().members.len() == 1).then_some(())
    });
    process.signals.lock_irq().exec_by = None;
    match alone {
        Outcome::Ready(()) => {
            if !task.is_leader() {
                become_leader(task, process);
            }
            Ok(())
        }
        _ => Err(Errno::EAGAIN),
    }
}

/// The id of the process now finds this task.
fn become_leader(task: &Task, process: &Process) {
    let Some(me) = task.arc() else { return };
    let old = {
        let _family = crate::task::FAMILY.lock();
        task.set_pid(process.pid.clone());
        process.pid.set_task(Some(KArc::downgrade(&me)));
        process.leader.lock().replace(me)
    };
    drop(old);
}

/// Address of the code that a signal handler returns to.
pub(crate) fn sigreturn_trampoline(task: &Task) -> Option<u64> {
    let at = task.process.sigreturn.load(Ordering::Relaxed);
    (at != 0).then_some(at)
}

/// Whether `path` is what a process runs, for /proc.
pub fn executable(process: &Process) -> Option<Path> {
    process.exe.lock().as_ref().map(|e| e.file.path.clone())
}

/// Makes the page that signal handlers return through; once, at boot.
pub(crate) fn init_trampoline() -> Result {
    trampoline::init()
}
