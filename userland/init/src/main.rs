//! Linnet's own `/init`: mounts the pseudo file systems, runs what the boot asks for, and keeps a
//! shell on the console.
//!
//! In this order: `/etc/rc`; then, if there is a `/job.sh`, that script and power off; else, if the
//! kernel's command line has the word `test-userland`, the test programs and power off; else, where
//! there is an agetty and the command line has no word `single`, that on the console's terminal, which
//! asks for a login; else a shell on the console. Either is started again whenever it ends, while orphans are reaped.
//!
//! Called by the name `poweroff` or `reboot` it does that, for systems whose own init would have
//! brought such programs.
//!
//! It uses bare system calls where std would do more than needed: it runs on kernels that are
//! being brought up.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

const SHELL: &CStr = c"/bin/sh";
const TESTS: &CStr = c"/bin/linnet-tests";
const GETTY: &CStr = c"/sbin/agetty";
const CONSOLE: &CStr = c"/dev/console";
const ENVIRONMENT: [&CStr; 4] = [c"PATH=/bin:/sbin:/usr/bin", c"HOME=/root", c"TERM=linux", c"USER=root"];

fn main() {
    match std::env::args_os().next().as_deref().map(|name| Path::new(name).file_name().unwrap_or(name).as_bytes()) {
        Some(b"poweroff") => end_system(libc::RB_POWER_OFF),
        Some(b"reboot") => end_system(libc::RB_AUTOBOOT),
        _ => {}
    }
    // SAFETY: getpid has no preconditions.
    if unsafe { libc::getpid() } != 1 {
        eprintln!("init: not process 1, nothing to do");
        std::process::exit(1);
    }
    // std ignores it, and what init starts would inherit that.
    // SAFETY: SIG_DFL runs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    mount_pseudo_file_systems();
    link_descriptors();
    set_host_name();
    open_console();
    println!("init: Linnet user space is up");
    if exists(c"/etc/rc") {
        run(SHELL, &[c"sh", c"/etc/rc"]);
    }
    if exists(c"/job.sh") {
        let status = run(SHELL, &[c"sh", c"/job.sh"]);
        println!("init: job ended with status {status}");
        end_system(libc::RB_POWER_OFF);
    }
    if asked_for(b"test-userland") {
        let mut words = vec![c"linnet-tests".to_owned()];
        words.extend(test_selection());
        let words: Vec<&CStr> = words.iter().map(|word| word.as_c_str()).collect();
        let status = run(TESTS, &words);
        println!("init: tests ended with status {status}");
        end_system(libc::RB_POWER_OFF);
    }
    let terminal = console_terminal();
    let getty = [c"agetty", c"-o", c"-p -- \\u", c"--noclear", c"--keep-baud", c"115200,38400,9600", &terminal, c"vt220"];
    let has_getty = exists(GETTY) && !asked_for(b"single");
    loop {
        let shell = if has_getty { spawn(GETTY, &getty, false) } else { spawn(SHELL, &[c"-sh"], true) };
        if shell > 0 {
            wait_for(shell);
            if !has_getty {
                println!("init: the shell ended, starting another");
            }
        } else {
            println!("init: cannot start a shell: {}", std::io::Error::last_os_error());
            wait_for(-1);
        }
    }
}

fn mount_pseudo_file_systems() {
    for (kind, target, options) in [
        (c"proc", c"/proc", c""),
        (c"sysfs", c"/sys", c""),
        (c"devtmpfs", c"/dev", c""),
        (c"devpts", c"/dev/pts", c"gid=5,mode=620,ptmxmode=666"),
        (c"tmpfs", c"/dev/shm", c"mode=1777"),
        (c"tmpfs", c"/tmp", c"mode=1777"),
        (c"tmpfs", c"/run", c"mode=755"),
    ] {
        // SAFETY: all pointers are to NUL-terminated constants. What a kernel lacks (sysfs, say)
        // or has mounted itself (devtmpfs) is no reason to stop.
        unsafe {
            libc::mkdir(target.as_ptr(), 0o755);
            libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast());
        }
    }
}

/// The names of open descriptors in /dev, which a kernel does not make (Linux's
/// Documentation/admin-guide/devices.rst, "Compulsory links").
fn link_descriptors() {
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        // Whoever has made it is right.
        let _ = std::os::unix::fs::symlink(target, format!("/dev/{name}"));
    }
}

/// Names the machine as /etc/hostname says, if there is one.
fn set_host_name() {
    let text = std::fs::read("/etc/hostname").unwrap_or_default();
    let name = text.trim_ascii();
    if !name.is_empty() {
        // SAFETY: pointer and length are those of a live slice.
        unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    }
}

/// Makes the console standard input, output and error, if the kernel has not.
fn open_console() {
    // SAFETY: fcntl, open and dup2 take numbers and a constant path.
    unsafe {
        if libc::fcntl(0, libc::F_GETFD) >= 0 && libc::fcntl(2, libc::F_GETFD) >= 0 {
            return;
        }
        let fd = libc::open(CONSOLE.as_ptr(), libc::O_RDWR);
        for target in 0..3 {
            if fd >= 0 && fd != target {
                libc::dup2(fd, target);
            }
        }
        if fd > 2 {
            libc::close(fd);
        }
    }
}

fn exists(path: &CStr) -> bool {
    // SAFETY: `path` is NUL-terminated.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}

fn command_line() -> Vec<u8> {
    std::fs::read("/proc/cmdline").unwrap_or_default()
}

/// Whether the command line, or the arguments the kernel made of it, have this word.
fn asked_for(word: &[u8]) -> bool {
    command_line().split(u8::is_ascii_whitespace).any(|have| have == word)
        || std::env::args_os().any(|have| have.as_encoded_bytes() == word)
}

/// The terminal behind /dev/console: of the last `console=` on the command line.
fn console_terminal() -> CString {
    let line = command_line();
    let last = line.split(u8::is_ascii_whitespace).rev().find_map(|word| word.strip_prefix(b"console="));
    let name = last.and_then(|value| value.split(|byte| *byte == b',').next()).unwrap_or(b"console");
    CString::new(name).unwrap_or_else(|_| c"console".to_owned())
}

/// The names after `tests=` on the command line, separated by commas; none means all.
fn test_selection() -> Vec<CString> {
    let line = command_line();
    let chosen = line.split(u8::is_ascii_whitespace).find_map(|word| word.strip_prefix(b"tests="));
    let names = chosen.unwrap_or_default().split(|byte| *byte == b',').filter(|name| !name.is_empty());
    names.filter_map(|name| CString::new(name).ok()).collect()
}

/// Runs a program to its end; returns its status as a shell would (128 + signal when killed).
fn run(program: &CStr, words: &[&CStr]) -> i32 {
    let pid = spawn(program, words, false);
    if pid < 0 {
        println!("init: cannot start {program:?}: {}", std::io::Error::last_os_error());
        return 127;
    }
    let status = wait_for(pid);
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// Starts a program in a session of its own, with the console as its controlling terminal when
/// `console` is set. Returns its process id, or -1.
fn spawn(program: &CStr, words: &[&CStr], console: bool) -> libc::pid_t {
    let mut arguments: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
    arguments.push(ptr::null());
    let mut environment: Vec<*const libc::c_char> = ENVIRONMENT.iter().map(|word| word.as_ptr()).collect();
    environment.push(ptr::null());
    // SAFETY: this process has one thread, so the child may do anything; both arrays and what
    // they point to live until execve.
    unsafe {
        let pid = libc::fork();
        if pid != 0 {
            return pid;
        }
        libc::setsid();
        if console {
            // A session's terminal is the real one behind /dev/console; taking it away from an
            // earlier shell's session needs the argument 1.
            libc::ioctl(0, libc::TIOCSCTTY, 1);
            libc::tcsetpgrp(0, libc::getpid());
        }
        libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr());
        libc::_exit(127)
    }
}

/// Reaps children until `pid` (or any, for -1) has ended; returns its wait status.
fn wait_for(pid: libc::pid_t) -> i32 {
    loop {
        let mut status = 0;
        // SAFETY: `status` is a live i32.
        let ended = unsafe { libc::waitpid(-1, &mut status, 0) };
        if ended == pid || (ended > 0 && pid == -1) {
            return status;
        }
        let interrupted = std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR);
        if ended < 0 && !interrupted {
            // No child is left: an init must not end, and must not spin either.
            // SAFETY: pause has no preconditions.
            unsafe { libc::pause() };
        }
    }
}

/// Ends the system as `reboot(2)` does with `how`. Only process 1 waits for it: a program that may
/// not end it says so.
fn end_system(how: libc::c_int) -> ! {
    // SAFETY: neither call has preconditions.
    unsafe {
        libc::sync();
        if libc::reboot(how) != 0 && libc::getpid() != 1 {
            eprintln!("cannot end the system: {}", std::io::Error::last_os_error());
            std::process::exit(1);
        }
    }
    loop {
        // SAFETY: pause has no preconditions.
        unsafe { libc::pause() };
    }
}
