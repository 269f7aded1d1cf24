//! Tests of the system-call interface, as named cases: they run on Linux first and on Linnet then,
//! and both must pass all of them.
//!
//! usage: linnet-tests [-l] [-xNAME...] [NAME...]
//!
//! `-l` lists the cases; a NAME selects the cases that begin with it, `-xNAME` leaves one out. Each case runs in a process
//! and process group of its own, in an empty directory under /tmp, for at most a minute. The
//! output is one line a case: `ok NAME`, `not ok NAME: why`, `skip NAME: why`; and a closing
//! `test-userland: N passed, N failed, N skipped`.

#[macro_use]
mod check;
mod cores;
mod areas;
mod caps;
mod clone;
mod cpu;
mod crowds;
mod dirs;
mod elf;
mod epoll;
mod entry;
mod events;
mod exec;
mod family;
mod faults;
mod fcntl;
mod first;
mod formats;
mod futex;
mod hostile;
mod ids;
mod inotify;
mod io;
mod jobs;
mod links;
mod memfd;
mod memory;
mod mlock;
mod meta;
mod open;
mod overcommit;
mod pi;
mod pipes;
mod places;
mod poll;
mod proc;
mod pty;
mod procpid;
mod ptrace;
mod process;
mod scheduling;
mod scm;
mod signalfd;
mod sigwait;
mod seccomp;
mod signals;
mod splice;
mod system;
mod threads;
mod time;
mod unix;
mod timers;
mod vdso;
mod unshare;
mod zones;

use check::{Case, Stop};

const GROUPS: &[&[Case]] = &[
    open::CASES,
    overcommit::CASES,
    zones::CASES,
    io::CASES,
    dirs::CASES,
    links::CASES,
    meta::CASES,
    fcntl::CASES,
    pipes::CASES,
    splice::CASES,
    poll::CASES,
    events::CASES,
    epoll::CASES,
    inotify::CASES,
    unix::CASES,
    scm::CASES,
    memory::CASES,
    memfd::CASES,
    mlock::CASES,
    faults::CASES,
    process::CASES,
    clone::CASES,
    family::CASES,
    exec::CASES,
    elf::CASES,
    formats::CASES,
    places::CASES,
    vdso::CASES,
    cores::CASES,
    jobs::CASES,
    pty::CASES,
    threads::CASES,
    futex::CASES,
    pi::CASES,
    signalfd::CASES,
    sigwait::CASES,
    signals::CASES,
    scheduling::CASES,
    time::CASES,
    timers::CASES,
    ids::CASES,
    caps::CASES,
    seccomp::CASES,
    unshare::CASES,
    proc::CASES,
    procpid::CASES,
    ptrace::CASES,
    system::CASES,
    areas::CASES,
    cpu::CASES,
    entry::CASES,
    first::CASES,
    hostile::CASES,
    crowds::CASES,
];

/// Guards against a case that hangs; far more than any needs on a busy machine.
const SECONDS_PER_CASE: u32 = 300;
const ROOM: &str = "/tmp/linnet-tests";

enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

fn main() {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    // What the exec cases start: this same binary, with a word that no case has.
    if let Some(word) = names.first()
        && let Some(helper) = word.strip_prefix("--helper=")
    {
        exec::helper(helper);
    }
    let list = names.iter().any(|name| name == "-l");
    names.retain(|name| name != "-l");
    let left_out: Vec<String> = names.extract_if(.., |name| name.starts_with("-x")).map(|name| name[2..].to_owned()).collect();
    let chosen: Vec<&Case> = GROUPS
        .iter()
        .flat_map(|group| group.iter())
        .filter(|case| names.is_empty() || names.iter().any(|name| case.name.starts_with(name.as_str())))
        .filter(|case| !left_out.iter().any(|name| name == case.name))
        .collect();
    if list {
        chosen.iter().for_each(|case| println!("{}", case.name));
        return;
    }
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for case in chosen {
        match run(case) {
            Verdict::Passed => {
                passed += 1;
                println!("ok {}", case.name);
            }
            Verdict::Failed(why) => {
                failed += 1;
                println!("not ok {}: {why}", case.name);
            }
            Verdict::Skipped(why) => {
                skipped += 1;
                println!("skip {}: {why}", case.name);
            }
        }
    }
    println!("test-userland: {passed} passed, {failed} failed, {skipped} skipped");
    std::process::exit(if failed == 0 && passed > 0 { 0 } else { 1 });
}

/// Runs one case in a child; what it has to say comes back through a pipe.
fn run(case: &Case) -> Verdict {
    let _ = std::fs::remove_dir_all(ROOM);
    if let Err(error) = std::fs::create_dir_all(ROOM) {
        return Verdict::Failed(format!("cannot make {ROOM}: {error}"));
    }
    let mut ends = [0; 2];
    // SAFETY: `ends` is two live integers; this process has one thread, so its child may run Rust.
    let pid = unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
            return Verdict::Failed("no pipe".into());
        }
        libc::fork()
    };
    if pid < 0 {
        return Verdict::Failed("no fork".into());
    }
    if pid == 0 {
        check::close_fd(ends[0]);
        // SAFETY: calls on this process alone.
        unsafe {
            libc::setpgid(0, 0);
            libc::alarm(SECONDS_PER_CASE);
        }
        let (status, text) = match std::env::set_current_dir(ROOM).map_err(|e| e.to_string()) {
            Err(error) => (1, error),
            Ok(()) => match (case.run)() {
                Ok(()) => (0, String::new()),
                Err(Stop::Fail(why)) => (1, why),
                Err(Stop::Skip(why)) => (2, why),
            },
        };
        // SAFETY: the buffer lives; _exit never returns.
        unsafe {
            libc::write(ends[1], text.as_ptr().cast(), text.len().min(4000));
            libc::_exit(status)
        }
    }
    check::close_fd(ends[1]);
    let why = check::read_to_end(ends[0]);
    check::close_fd(ends[0]);
    let status = check::wait_for(pid);
    // SAFETY: the group is the case's own.
    unsafe { libc::kill(-pid, libc::SIGKILL) };
    match status {
        check::Status::Exited(0) => Verdict::Passed,
        check::Status::Exited(2) => Verdict::Skipped(String::from_utf8_lossy(&why).into_owned()),
        check::Status::Exited(1) => Verdict::Failed(String::from_utf8_lossy(&why).into_owned()),
        check::Status::Killed(libc::SIGALRM) => Verdict::Failed("took too long".into()),
        other => Verdict::Failed(format!("{other:?}")),
    }
}
