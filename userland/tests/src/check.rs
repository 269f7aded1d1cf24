//! What the cases are made of: checks that return instead of panicking, and small helpers around
//! system calls.

use std::ffi::CString;

pub struct Case {
    pub name: &'static str,
    pub run: fn() -> Outcome,
}

pub type Outcome = Result<(), Stop>;

/// Why a case ended early.
pub enum Stop {
    Fail(String),
    Skip(String),
}

/// The cases of a file: `cases![group: function, ...]`.
macro_rules! cases {
    ($group:ident: $($name:ident),* $(,)?) => {
        pub const CASES: &[$crate::check::Case] = &[
            $($crate::check::Case { name: concat!(stringify!($group), "::", stringify!($name)), run: $name }),*
        ];
    };
}

macro_rules! fail {
    ($($text:tt)*) => {
        return Err($crate::check::Stop::Fail(format!("line {}: {}", line!(), format_args!($($text)*))))
    };
}

/// Fails the case unless the condition holds.
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            fail!("not {}", stringify!($condition));
        }
    };
}

/// Fails the case unless both are equal.
macro_rules! eq {
    ($have:expr, $want:expr) => {{
        let (have, want) = ($have, $want);
        if have != want {
            fail!("{} is {have:?}, not {want:?}", stringify!($have));
        }
    }};
}

/// Fails the case if the call does; its value otherwise.
macro_rules! ok {
    ($call:expr) => {{
        #[allow(unused_unsafe)]
        // SAFETY: the case that wrote this call gave it arguments it may have.
        let value = unsafe { $call };
        if value as i64 == -1 {
            let error = std::io::Error::last_os_error();
            fail!("{}: {error}", stringify!($call));
        }
        value
    }};
}

/// Fails the case unless the call fails with this errno.
macro_rules! errno {
    ($call:expr, $errno:ident) => {{
        #[allow(unused_unsafe)]
        // SAFETY: the call is meant to fail, and the case gave it arguments it may have.
        let value = unsafe { $call } as i64;
        let have = std::io::Error::last_os_error();
        if value != -1 {
            fail!("{} gives {value}, not {}", stringify!($call), stringify!($errno));
        }
        if have.raw_os_error() != Some(libc::$errno) {
            fail!("{}: {have}, not {}", stringify!($call), stringify!($errno));
        }
    }};
}

/// How a child ended.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Status {
    Exited(i32),
    Killed(i32),
    Stopped(i32),
    Continued,
    None,
}

pub fn status(raw: i32) -> Status {
    if libc::WIFEXITED(raw) {
        Status::Exited(libc::WEXITSTATUS(raw))
    } else if libc::WIFSIGNALED(raw) {
        Status::Killed(libc::WTERMSIG(raw))
    } else if libc::WIFSTOPPED(raw) {
        Status::Stopped(libc::WSTOPSIG(raw))
    } else {
        Status::Continued
    }
}

/// Waits for a child of this process.
pub fn wait_for(pid: i32) -> Status {
    wait_flags(pid, 0)
}

pub fn wait_flags(pid: i32, flags: i32) -> Status {
    let mut raw = 0;
    loop {
        // SAFETY: `raw` is a live integer.
        let ended = unsafe { libc::waitpid(pid, &mut raw, flags) };
        if ended > 0 {
            return status(raw);
        }
        if ended == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return Status::None;
        }
    }
}

/// Starts a child that ends with what `body` returns.
pub fn fork_child(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: a case has one thread when it forks, so its child may run Rust.
    match unsafe { libc::fork() } {
        // SAFETY: _exit has no preconditions.
        0 => unsafe { libc::_exit(body()) },
        pid => pid,
    }
}

/// Runs `body` in a child and waits for it.
pub fn child(body: impl FnOnce() -> i32) -> Status {
    let pid = fork_child(body);
    if pid < 0 { Status::None } else { wait_for(pid) }
}

/// A child that has run `body` and waits until it is killed.
pub fn idle_child(body: impl FnOnce()) -> Result<i32, Stop> {
    let (reader, writer) = new_pipe(libc::O_CLOEXEC)?;
    let pid = fork_child(|| {
        body();
        write_fd(writer, b"x");
        loop {
            // SAFETY: waits to be killed.
            unsafe { libc::pause() };
        }
    });
    close_fd(writer);
    check!(pid > 0 && read_fd(reader, &mut [0]) == 1);
    close_fd(reader);
    Ok(pid)
}

/// Runs checks in a child; its first failure becomes ours.
pub fn in_child(body: impl FnOnce() -> Outcome) -> Outcome {
    let mut ends = [0; 2];
    ok!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC));
    let pid = fork_child(|| {
        close_fd(ends[0]);
        let (status, text) = match body() {
            Ok(()) => (0, String::new()),
            Err(Stop::Fail(text)) => (1, text),
            Err(Stop::Skip(text)) => (2, text),
        };
        write_fd(ends[1], text.as_bytes());
        status
    });
    close_fd(ends[1]);
    let text = String::from_utf8_lossy(&read_to_end(ends[0])).into_owned();
    close_fd(ends[0]);
    match wait_for(pid) {
        Status::Exited(0) => Ok(()),
        Status::Exited(1) => Err(Stop::Fail(format!("in the child: {text}"))),
        Status::Exited(2) => Err(Stop::Skip(text)),
        other => fail!("the child: {other:?}"),
    }
}

pub fn c(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

pub fn open_file(path: &str, flags: i32, mode: u32) -> i32 {
    let path = c(path);
    // SAFETY: the path is NUL-terminated.
    unsafe { libc::open(path.as_ptr(), flags, mode) }
}

pub fn close_fd(fd: i32) {
    // SAFETY: closing a number harms nobody but its user.
    unsafe { libc::close(fd) };
}

pub fn write_fd(fd: i32, data: &[u8]) -> isize {
    // SAFETY: the slice is readable.
    unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) }
}

pub fn read_fd(fd: i32, data: &mut [u8]) -> isize {
    // SAFETY: the slice is writable.
    unsafe { libc::read(fd, data.as_mut_ptr().cast(), data.len()) }
}

pub fn read_to_end(fd: i32) -> Vec<u8> {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        let got = read_fd(fd, &mut part);
        if got > 0 {
            all.extend_from_slice(&part[..got as usize]);
        } else if got == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return all;
        }
    }
}

pub fn make(path: &str, data: &[u8]) -> Outcome {
    match std::fs::write(path, data) {
        Ok(()) => Ok(()),
        Err(error) => fail!("writing {path}: {error}"),
    }
}

pub fn content(path: &str) -> Result<Vec<u8>, Stop> {
    match std::fs::read(path) {
        Ok(data) => Ok(data),
        Err(error) => fail!("reading {path}: {error}"),
    }
}

pub fn stat_of(path: &str) -> Result<libc::stat, Stop> {
    let path = c(path);
    let mut out = zero::<libc::stat>();
    ok!(libc::lstat(path.as_ptr(), &mut out));
    Ok(out)
}

/// A pipe: read end, write end.
pub fn new_pipe(flags: i32) -> Result<(i32, i32), Stop> {
    let mut ends = [0; 2];
    ok!(libc::pipe2(ends.as_mut_ptr(), flags));
    Ok((ends[0], ends[1]))
}

/// A zeroed C structure.
pub fn zero<T: Copy>() -> T {
    // SAFETY: used for structures of libc only, for which all zeroes is a value.
    unsafe { std::mem::zeroed() }
}

/// Installs a handler of three arguments.
pub fn handle(signal: i32, handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void), flags: i32) -> i32 {
    let mut action = zero::<libc::sigaction>();
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = flags | libc::SA_SIGINFO;
    // SAFETY: the handlers of the cases do what handlers may.
    unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) }
}

pub fn set_disposition(signal: i32, disposition: libc::sighandler_t) {
    // SAFETY: SIG_DFL and SIG_IGN run no code.
    unsafe { libc::signal(signal, disposition) };
}

/// Anonymous private memory.
pub fn map(length: usize, protection: i32) -> *mut u8 {
    map_with(length, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
}

pub fn map_with(length: usize, protection: i32, flags: i32, fd: i32) -> *mut u8 {
    // SAFETY: without MAP_FIXED the kernel finds a free place.
    unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, 0).cast() }
}

pub fn unmap(at: *mut u8, length: usize) -> i32 {
    // SAFETY: the case owns what it unmaps.
    unsafe { libc::munmap(at.cast(), length) }
}

/// Monotonic time in nanoseconds.
pub fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

pub fn clock(id: i32) -> u64 {
    let mut at = zero::<libc::timespec>();
    // SAFETY: `at` is a live timespec.
    unsafe { libc::clock_gettime(id, &mut at) };
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

pub fn timespec(nanoseconds: u64) -> libc::timespec {
    libc::timespec { tv_sec: (nanoseconds / 1_000_000_000) as i64, tv_nsec: (nanoseconds % 1_000_000_000) as i64 }
}

pub const PAGE: usize = 4096;
pub const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
