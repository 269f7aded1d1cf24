//! Running a program (`execve(2)`): scripts, ELF files, the new address space, and the moment from
//! which there is no way back.
//!
//! 1. Open the file; ask the binary formats ([`formats`]), which follow `#!` lines and registered
//!    formats to an interpreter, until one is ELF; read and check its headers.
//! 2. Build a whole new address space beside the old one: segments, stack with arguments,
//!    environment and auxiliary vector. Any failure so far leaves the caller as it was.
//! 3. **Point of no return** ([`commit`]): the other threads end, the new space replaces the old,
//!    handlers and close-on-exec files go, ids change for set-id files. What fails from here on ends
//!    the process.

mod args;
mod elf;
mod formats;
mod layout;
mod load;
mod misc;
mod misc_fs;
mod script;
mod vdso;

pub use args::Arguments;

use crate::{
    capability::{self, SetIds},
    cred, futex,
    signal::{SigInfo, Signal},
    personality::Personality,
    task::{AltStack, Dumpable, Process, Restart, Task},
};
use abi::{
    Errno, Result, UserAddr,
    raw::general::{MS_NOSUID, RLIMIT_NOFILE, RLIMIT_NPROC},
};
use arch::{UserRegs, thread::FATAL_PENDING};
use kalloc::{KArc, KVec};
use formats::Binary;
use load::Image;
use mm::{AddressSpace, io::IoSink};
use sched::{Outcome, Sleep};
use sync::atomic::Ordering;
use vfs::{
    Cap, Credentials, Executable, FdTable, LookupFlags, MAY_READ, OpenFile, Path, permission,
    sysctl::{self, Number},
};

/// Bytes of a file that decide what it is (BINPRM_BUF_SIZE).
const HEAD_SIZE: usize = 256;

/// What to run: a path from a directory (`AT_FDCWD` or a descriptor's).
pub struct Program {
    pub file: Executable,
    /// The name as it was given: argv[0] of scripts, AT_EXECFN, and the last component is `comm`.
    pub name: KVec<u8>,
    /// The name leads through a descriptor that is closed on exec.
    pub inaccessible: bool,
}

/// Replaces the program of the current task; on success `regs` start the new one.
pub fn exec(task: &Task, regs: &mut UserRegs, program: Program, arguments: Arguments) -> Result {
    // Who changed its user into one with too many processes may not go on as another program.
    if task.too_many_threads.swap(false, Ordering::Relaxed) && task.user()?.threads() > task.process.limit(RLIMIT_NPROC) {
        task.too_many_threads.store(true, Ordering::Relaxed);
        return Err(Errno::EAGAIN);
    }
    let guard = task.process.exec_guard.lock_interruptible().map_err(|_| Errno::ERESTARTNOINTR)?;
    let mut binary = Binary::new(program, arguments)?;
    let (image, cred) = formats::load(task, &mut binary)?;
    let former_id = task.id();
    commit(task, regs, binary, image, cred)?;
    drop(guard);
    crate::ptrace::stop::exec_event(task, regs, former_id);
    Ok(())
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
    /// Who may look into the new image.
    dumpable: Dumpable,
    personality: Personality,
}

/// Whether another process has the same root and working directory (CLONE_FS), which it could move
/// under a program that has more rights than it.
fn shares_directories(task: &Task) -> Result<bool> {
    let fs = task.fs()?;
    let nth = |n: usize| task.process.signals.lock_irq().members.get(n).cloned();
    let own = (0..).map_while(nth).filter(|t| t.fs().is_ok_and(|other| KArc::ptr_eq(&other, &fs))).count();
    Ok(fs.users() as usize > own)
}

fn credentials_for(task: &Task, binary: &Binary) -> Result<NewCredentials> {
    let old = task.cred()?;
    let file = binary.rights_file();
    let (mode, uid, gid) = {
        // Not the mode of before and the owner of after a change of owner.
        let _lock = file.inode.lock.read();
        (file.inode.mode(), file.inode.uid(), file.inode.gid())
    };
    let no_new_privs = task.has_no_new_privs();
    let watched = !crate::ptrace::lets_gain(task) || shares_directories(task)? && !old.capable(Cap::SETUID);
    let allowed = !no_new_privs && file.path.mount.flags() & MS_NOSUID == 0 && !watched;
    let mut new = kalloc::TryClone::try_clone(&*old)?;
    // Set-group-id without group execute permission means mandatory locking, not a change of ids.
    const SET_GROUP: u32 = abi::raw::general::S_ISGID | abi::raw::general::S_IXGRP;
    let ids = SetIds {
        uid: (allowed && mode.0 & abi::raw::general::S_ISUID != 0).then_some(uid),
        gid: (allowed && mode.0 & SET_GROUP == SET_GROUP).then_some(gid),
        no_new_privs,
    };
    let secure = capability::transform_at_exec(&mut new, &old, ids);
    let mut personality = task.personality() - Personality::READ_IMPLIES_EXEC;
    if ids.uid.is_some() || ids.gid.is_some() {
        personality -= Personality::UNSAFE;
    }
    let gained = new.euid != old.euid || new.egid != old.egid;
    // A program that its user cannot read does not become readable by being run; one with other
    // rights than its caller's is not for the caller to look into.
    let readable = permission::check(&binary.file.file.inode, MAY_READ, &old).is_ok();
    let dumpable = if readable && !secure && !gained { Dumpable::User } else { suid_dumpable() };
    Ok(NewCredentials { cred: KArc::try_new(new)?, secure, dumpable, personality })
}

/// The point of no return.
fn commit(task: &Task, regs: &mut UserRegs, binary: Binary, image: Image, new: NewCredentials) -> Result {
    end_other_threads(task)?;
    // The locks of the old memory end with it.
    futex::exit_robust_list(task);
    futex::exit_locks(task);
    let old = task.mm();
    let thread = sched::current();
    // Before its memory, so that who gets at that is judged by the new rights.
    task.process.set_dumpable(if image.readable { new.dumpable } else { suid_dumpable() });
    if let Ok(old) = task.cred() {
        cred::note_change(task, &new.cred, &old);
    }
    task.set_cred(new.cred);
    let memory = image.memory;
    let space = memory.space.clone();
    let exe = binary.file;
    drop(sched::set_user_space(Some(kalloc::karc_as!(memory.space.clone() => dyn sched::UserSpace))));
    drop(task.set_mm(Some(memory)));
    task.process.vdso.store(image.vdso, Ordering::Relaxed);
    let (entry, stack) = (image.entry, image.stack);
    if let Some(old) = old {
        let mut t = task.process.times.lock();
        t.max_rss_kib = t.max_rss_kib.max(peak_rss_kib(&old));
    }
    task.clear_child_tid.store(0, Ordering::Relaxed);
    futex::exec_begins(task);
    crate::rseq::forget(task);
    task.process.posix_timers.clear();
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
            if let (Some(passed), Some(at)) = (&binary.passed, image.execfd_at)
                && pass_file(task, &files, passed, &space, at).is_err()
            {
                return die(task);
            }
        }
        Err(_) => return die(task),
    }
    if new.secure
        && let Ok(fs) = task.fs()
        && fs.users() > 1
    {
        // Its directory and umask are not for a process with fewer rights to change.
        match fs.copy() {
            Ok(own) => drop(task.set_fs(Some(own))),
            Err(_) => return die(task),
        }
    }
    task.set_personality(new.personality);
    if new.secure {
        task.set_parent_death_signal(0);
    }
    task.process.exec_id.fetch_add(1, Ordering::Relaxed);
    task.process.exit_signal.store(abi::raw::general::SIGCHLD, Ordering::Relaxed);
    let old_exe = task.process.exe.lock().replace(exe);
    drop(old_exe);
    let base = binary.filename.rsplit(|b| *b == b'/').next().unwrap_or(&binary.filename);
    let mut name = [0u8; 16];
    for (to, from) in name.iter_mut().take(15).zip(base) {
        *to = *from;
    }
    thread.set_name(name);
    arch::fp::flush(thread.head());
    crate::ptrace::debug::flush(task);
    arch::thread::set_tls(0);
    *regs = UserRegs { pc: entry, sp: stack, syscallno: regs.syscallno, ..UserRegs::default() };
    task.release_vfork_parent();
    Ok(())
}

/// Opens the file that the interpreter is to run, and tells its number in the auxiliary vector.
fn pass_file(task: &Task, files: &FdTable, file: &Executable, space: &AddressSpace, at: u64) -> Result {
    let fd = files.install(file.file.clone(), false, 0, task.process.limit(RLIMIT_NOFILE))?;
    space.write_remote(UserAddr(at), &u64::from(fd.0).to_le_bytes()).map(|_| ())
}

/// /proc/sys/fs/suid_dumpable: who gets the core of a program that runs with other rights than its
/// caller's, or that its user cannot read.
static SUID_DUMPABLE: Number = Number::new(0, 0, 2);

pub(crate) fn suid_dumpable() -> Dumpable {
    Dumpable::from_raw(SUID_DUMPABLE.get() as u32)
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
        let leader = process.leader.lock().clone();
        crate::ptrace::link::renamed(task, leader.as_deref(), process.id());
        for child in process.children.lock().values() {
            child.parent_thread.store(process.id(), Ordering::Relaxed);
        }
        // The number of the thread that it was is nobody's from here on.
        if let Some(own) = task.pid_object().filter(|own| !KArc::ptr_eq(own, &process.pid)) {
            own.set_task(None);
        }
        task.set_pid(process.pid.clone());
        process.pid.set_task(Some(KArc::downgrade(&me)));
        process.leader.lock().replace(me)
    };
    if let Some(old) = old {
        old.count_for(None);
    }
}

/// Address of the code that a signal handler returns to.
pub(crate) fn sigreturn_trampoline(task: &Task) -> Option<u64> {
    let vdso = task.process.vdso.load(Ordering::Relaxed);
    (vdso != 0).then(|| vdso + arch::vdso::sigreturn_offset())
}

/// Whether `path` is what a process runs, for /proc.
pub fn executable(process: &Process) -> Option<Path> {
    process.exe.lock().as_ref().map(|e| e.file.path.clone())
}

/// Makes the vDSO and the files of exec; once, at boot.
pub(crate) fn init() -> Result {
    vdso::init()?;
    misc_fs::init()?;
    layout::init()?;
    sysctl::add_number("sys/fs/suid_dumpable", &SUID_DUMPABLE)
}
