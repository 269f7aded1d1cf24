//! execve: arguments, environment, auxiliary vector, scripts, and each way to be refused.

use crate::check::*;
use libc::*;
use std::ffi::CString;

cases![exec:
    arguments_arrive, environment_arrives, many_arguments, auxv_is_complete, empty_argv_gets_one, script_runs_its_interpreter,
    script_with_argument, script_of_script, script_loop_is_eloop, script_without_interpreter_is_enoent, text_is_enoexec,
    empty_file_is_enoexec, no_x_bit_is_eacces, directory_is_eacces, missing_is_enoent, too_much_is_e2big, busy_is_etxtbsy,
    corrupt_elf_is_refused, cloexec_closes, handlers_reset_ignored_stay, mask_and_pid_stay, exec_from_thread, name_is_set,
    setuid_bit_takes_effect, execveat_by_descriptor, interpreter_missing_is_enoent, stack_is_aligned, long_script_line,
    vfork_parent_resumes_at_exec, alternate_stack_is_gone, limits_of_arguments_follow_the_stack, refused_exec_changes_nothing,
    timers_go_and_shared_handlers_stay, no_rights_under_a_tracer_or_without_new_ones,
];

/// What `linnet-tests --helper=WORD` does: it is the program that the cases start.
pub fn helper(word: &str) -> ! {
    let rest: Vec<String> = std::env::args().skip(2).collect();
    let good = match word {
        "args" => rest == ["one", "", "three 3"],
        "count" => rest.first().is_some_and(|first| first.parse() == Ok(rest.len())),
        "env" => std::env::var("LINNET").as_deref() == Ok("yes") && std::env::vars().count() == 1,
        "auxv" => auxv_good(),
        "print" => {
            print!("{}", rest.join("|"));
            true
        }
        "closed" => rest.iter().all(|fd| fd.parse().is_ok_and(|fd: i32| unsafe { fcntl(fd, F_GETFD) } < 0)),
        "signals" => signals_good(),
        "pid" => {
            let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
            let (pid, thread) = unsafe { (getpid(), gettid()) };
            rest.first().and_then(|first| first.parse().ok()) == Some(pid) && thread == pid && threads == 1
        }
        "euid" => unsafe { (geteuid(), getuid()) == (1234, 1000) },
        "aligned" => unsafe { getauxval(AT_RANDOM) != 0 && getauxval(AT_SECURE) == 0 },
        "name" => content("/proc/self/comm").is_ok_and(|name| name == b"a-name-of-sixte\n"),
        "dumpable" => {
            print!("{}", unsafe { prctl(PR_GET_DUMPABLE) });
            true
        }
        "parent-death" => {
            let mut signal = -1;
            unsafe { prctl(PR_GET_PDEATHSIG, &raw mut signal) };
            print!("{signal}");
            true
        }
        "timers" => unsafe {
            // No timer 0, no signal of it in the queue, no list of locks to give up.
            let (mut left, mut pending, mut list, mut length) = (zero::<itimerspec>(), zero::<sigset_t>(), 1usize, 0usize);
            sigpending(&mut pending);
            syscall(SYS_timer_gettime, 0, &mut left) == -1
                && syscall(SYS_get_robust_list, 0, &mut list, &mut length) == 0
                && sigismember(&pending, SIGUSR1) == 1
        },
        "personality" => {
            print!("{:x}", unsafe { personality(0xffff_ffff) });
            true
        }
        "status" => {
            print!("{}", String::from_utf8_lossy(&content("/proc/self/status").unwrap_or_default()));
            true
        }
        "stack" => {
            let mut old = zero::<stack_t>();
            unsafe { syscall(SYS_sigaltstack, 0, &mut old) };
            // std installs one of its own; what the old image had is gone.
            old.ss_sp as usize != 0x4000_0000
        }
        _ => false,
    };
    std::process::exit(if good { 0 } else { 1 })
}

fn auxv_good() -> bool {
    // SAFETY: getauxval reads what the kernel left on the stack.
    unsafe {
        let platform = getauxval(AT_PLATFORM) as *const c_char;
        getauxval(AT_PAGESZ) == 4096
            && getauxval(AT_PHNUM) > 0
            && getauxval(AT_PHDR) != 0
            && getauxval(AT_ENTRY) != 0
            && getauxval(AT_UID) == 0
            && getauxval(AT_CLKTCK) == 100
            && getauxval(AT_HWCAP) & 3 == 3
            && !platform.is_null()
            && std::ffi::CStr::from_ptr(platform) == c"aarch64"
            && std::ffi::CStr::from_ptr(getauxval(AT_EXECFN) as *const c_char) == ME
            && std::slice::from_raw_parts(getauxval(AT_RANDOM) as *const u8, 16) != [0; 16]
    }
}

fn signals_good() -> bool {
    let disposition = |signal| {
        let mut action = zero::<sigaction>();
        unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
        action.sa_sigaction
    };
    let mut mask = zero::<sigset_t>();
    let blocked = unsafe {
        sigprocmask(SIG_BLOCK, std::ptr::null(), &mut mask);
        sigismember(&mask, SIGUSR2) == 1
    };
    disposition(SIGUSR1) == SIG_DFL && disposition(SIGHUP) == SIG_IGN && blocked
}

const ME: &std::ffi::CStr = c"/bin/linnet-tests";

pub fn exec(path: &str, words: &[&str], environment: &[&str]) -> i32 {
    let words: Vec<CString> = words.iter().map(|word| c(word)).collect();
    let environment: Vec<CString> = environment.iter().map(|word| c(word)).collect();
    let list = |from: &[CString]| from.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let path = c(path);
    // SAFETY: both lists end in null, and their words live.
    unsafe { execve(path.as_ptr(), list(&words).as_ptr(), list(&environment).as_ptr()) }
}

fn run_helper(words: &[&str]) -> Status {
    child(|| {
        exec("/bin/linnet-tests", &[&["linnet-tests"], words].concat(), &["LINNET=yes"]);
        99
    })
}

/// Runs a file, and gives what it wrote.
pub fn output(path: &str, words: &[&str]) -> Result<String, Stop> {
    let (reader, writer) = new_pipe(O_CLOEXEC)?;
    let pid = fork_child(|| {
        unsafe { dup2(writer, 1) };
        exec(path, words, &["PATH=/bin"]);
        99
    });
    close_fd(writer);
    let text = String::from_utf8_lossy(&read_to_end(reader)).into_owned();
    eq!(wait_for(pid), Status::Exited(0));
    Ok(text)
}

fn program(path: &str, text: &[u8]) -> Outcome {
    make(path, text)?;
    ok!(chmod(c(path).as_ptr(), 0o755));
    Ok(())
}

fn arguments_arrive() -> Outcome {
    eq!(run_helper(&["--helper=args", "one", "", "three 3"]), Status::Exited(0));
    Ok(())
}

fn environment_arrives() -> Outcome {
    eq!(run_helper(&["--helper=env"]), Status::Exited(0));
    Ok(())
}

fn many_arguments() -> Outcome {
    let mut words = vec!["--helper=count", "10000"];
    words.resize(10001, "argument-text");
    eq!(run_helper(&words), Status::Exited(0));
    Ok(())
}

fn auxv_is_complete() -> Outcome {
    eq!(run_helper(&["--helper=auxv"]), Status::Exited(0));
    Ok(())
}

fn stack_is_aligned() -> Outcome {
    for length in 0..16 {
        let padding = "x".repeat(length);
        eq!(run_helper(&["--helper=aligned", &padding]), Status::Exited(0));
    }
    Ok(())
}

fn empty_argv_gets_one() -> Outcome {
    // Since 5.18 an empty list becomes one empty word; nothing crashes.
    let ended = child(|| {
        exec("/bin/busybox", &[], &[]);
        99
    });
    check!(matches!(ended, Status::Exited(0 | 1 | 127)));
    Ok(())
}

fn script_runs_its_interpreter() -> Outcome {
    program("s", b"#!/bin/sh\necho $0 $1 $#\n")?;
    eq!(output("./s", &["ignored", "a b"])?, "./s a b 1\n");
    Ok(())
}

fn script_with_argument() -> Outcome {
    program("s", b"#! /bin/linnet-tests  --helper=print x y \nrest\n")?;
    errno!(exec("./missing", &["s"], &[]), ENOENT);
    // All behind the interpreter is one word; the helper sees it as such.
    program("t", b"#!/bin/linnet-tests --helper=print\n")?;
    eq!(output("./t", &["t", "arg"])?, "./t|arg");
    Ok(())
}

fn script_of_script() -> Outcome {
    program("inner", b"#!/bin/linnet-tests --helper=print\n")?;
    program("outer", b"#!./inner word\n")?;
    eq!(output("./outer", &["outer", "arg"])?, "./inner|word|./outer|arg");
    Ok(())
}

fn script_loop_is_eloop() -> Outcome {
    program("s", b"#!./s\n")?;
    errno!(exec("./s", &["s"], &[]), ELOOP);
    Ok(())
}

fn script_without_interpreter_is_enoent() -> Outcome {
    program("s", b"#!/missing/program\n")?;
    errno!(exec("./s", &["s"], &[]), ENOENT);
    program("t", b"#!\n")?;
    errno!(exec("./t", &["t"], &[]), ENOEXEC);
    Ok(())
}

fn long_script_line() -> Outcome {
    // Cut at 255 bytes: a truncated interpreter path is refused, a truncated argument is not.
    program("s", format!("#!/{}\n", "x".repeat(300)).as_bytes())?;
    errno!(exec("./s", &["s"], &[]), ENOEXEC);
    // The longest name that fits: 255 bytes with its newline.
    let slashes = |count: usize| "/".repeat(count) + &ME.to_string_lossy();
    let line = |count: usize| format!("#!{} --helper=print\n", slashes(count));
    let fits = 255 - line(0).len();
    program("t", line(fits).as_bytes())?;
    eq!(output("./t", &["t", "arg"])?, "./t|arg");
    let mut longest = b"#!/bin/true\n".to_vec();
    let fill = "/".repeat(256 - longest.len());
    longest.splice(2..2, fill.bytes());
    eq!(longest.len(), 256);
    program("u", &longest)?;
    eq!(child(|| exec("./u", &["u"], &[])), Status::Exited(0));
    // The argument ends with the 255th byte.
    crate::elf::fixed().install("p")?;
    program("v", format!("#!./p {}\n", "y".repeat(300)).as_bytes())?;
    let probe = crate::elf::Probe::start("./v", &["v"], &[], 0)?;
    eq!(probe.texts(&probe.words), ["./p", &"y".repeat(255 - 6), "./v"]);
    probe.finish()
}

fn text_is_enoexec() -> Outcome {
    program("s", b"echo hello\n")?;
    errno!(exec("./s", &["s"], &[]), ENOEXEC);
    Ok(())
}

fn empty_file_is_enoexec() -> Outcome {
    program("s", b"")?;
    errno!(exec("./s", &["s"], &[]), ENOEXEC);
    Ok(())
}

fn no_x_bit_is_eacces() -> Outcome {
    make("s", b"#!/bin/sh\n")?;
    errno!(exec("./s", &["s"], &[]), EACCES);
    Ok(())
}

fn directory_is_eacces() -> Outcome {
    errno!(exec("/tmp", &["s"], &[]), EACCES);
    errno!(exec("/dev/null", &["s"], &[]), EACCES);
    Ok(())
}

fn missing_is_enoent() -> Outcome {
    errno!(exec("./missing", &["s"], &[]), ENOENT);
    errno!(exec("", &["s"], &[]), ENOENT);
    program("f", b"x")?;
    errno!(exec("./f/x", &["s"], &[]), ENOTDIR);
    Ok(())
}

fn too_much_is_e2big() -> Outcome {
    // One word has at most 32 pages (MAX_ARG_STRLEN), all together a quarter of the stack limit.
    let long = "x".repeat(131072);
    errno!(exec("/bin/linnet-tests", &["a", &long], &[]), E2BIG);
    let words = vec![&long[..100_000]; 30];
    errno!(exec("/bin/linnet-tests", &words, &[]), E2BIG);
    eq!(run_helper(&["--helper=count", "2", &long[..131071]]), Status::Exited(0));
    Ok(())
}

fn limits_of_arguments_follow_the_stack() -> Outcome {
    // A quarter of the limit, at least 128 KiB and at most 6 MiB.
    let word = "x".repeat(99_999);
    let run = |limit: u64, count: usize| {
        let word = word.clone();
        child(move || {
            let limit = rlimit { rlim_cur: limit, rlim_max: RLIM_INFINITY };
            unsafe { setrlimit(RLIMIT_STACK, &limit) };
            let all = format!("{}", count + 1);
            let mut words = vec!["t", "--helper=count", &all];
            words.resize(3 + count, &word);
            exec("/bin/linnet-tests", &words, &[]);
            if std::io::Error::last_os_error().raw_os_error() == Some(E2BIG) { 77 } else { 78 }
        })
    };
    let (fits, refused) = (Status::Exited(0), Status::Exited(77));
    for (limit, most) in [(8 << 20, 20), (256 << 10, 1)] {
        eq!((limit, run(limit, most)), (limit, fits));
        eq!((limit, run(limit, most + 1)), (limit, refused));
    }
    eq!(run(64 << 20, 63), refused);
    // What cannot be read.
    let bad = [8 as *const c_char, std::ptr::null()];
    let good = [c"t".as_ptr(), std::ptr::null()];
    errno!(execve(ME.as_ptr(), bad.as_ptr(), good.as_ptr()), EFAULT);
    errno!(execve(ME.as_ptr(), good.as_ptr(), bad.as_ptr()), EFAULT);
    errno!(execve(ME.as_ptr(), 8 as *const *const c_char, good.as_ptr()), EFAULT);
    Ok(())
}

fn refused_exec_changes_nothing() -> Outcome {
    // An interpreter that is no program is found late.
    crate::elf::with_interpreter(b"./text\0", 4096).install("p")?;
    program("text", &[b'x'; 4096])?;
    let closed = ok!(open_file("/", O_RDONLY | O_CLOEXEC, 0));
    ok!(handle(SIGUSR1, nothing, 0));
    ok!(prctl(PR_SET_NAME, c"before".as_ptr()));
    let at = ok!(mmap(std::ptr::null_mut(), 65536, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ok!(sigaltstack(&stack_t { ss_sp: at, ss_flags: 0, ss_size: 65536 }, std::ptr::null_mut()));
    let turns = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let theirs = turns.clone();
    std::thread::spawn(move || loop {
        theirs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        std::thread::yield_now();
    });
    let maps = || content("/proc/self/maps");
    let before = maps()?.len();
    for _ in 0..3 {
        errno!(exec("./p", &["p"], &[]), ELIBBAD);
    }
    check!(maps()?.len() < before + 400);
    ok!(fcntl(closed, F_GETFD));
    let mut action = zero::<sigaction>();
    ok!(sigaction(SIGUSR1, std::ptr::null(), &mut action));
    check!(action.sa_sigaction == nothing as *const () as usize);
    eq!(content("/proc/self/comm")?, b"before\n");
    let mut stack = zero::<stack_t>();
    ok!(syscall(SYS_sigaltstack, 0, &mut stack));
    check!(stack.ss_sp == at);
    let now = turns.load(std::sync::atomic::Ordering::SeqCst);
    while turns.load(std::sync::atomic::Ordering::SeqCst) == now {
        std::thread::yield_now();
    }
    Ok(())
}

fn timers_go_and_shared_handlers_stay() -> Outcome {
    // A timer of POSIX goes with the image; a blocked signal stays pending.
    let ended = child(|| {
        let mut event = zero::<sigevent>();
        event.sigev_notify = SIGEV_NONE;
        let mut timer = 0i32;
        unsafe {
            if syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &mut timer) != 0 || timer != 0 {
                return 98;
            }
            let mut set = zero::<sigset_t>();
            sigaddset(&mut set, SIGUSR1);
            sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut());
            kill(getpid(), SIGUSR1);
        }
        exec("/bin/linnet-tests", &["t", "--helper=timers"], &[]);
        99
    });
    eq!(ended, Status::Exited(0));
    // A process that shares its table of handlers leaves the other's as it is.
    ok!(handle(SIGUSR2, nothing, 0));
    let mut stack = vec![0u64; 8192];
    extern "C" fn run(_: *mut c_void) -> i32 {
        exec("/bin/busybox", &["true"], &[]);
        99
    }
    let top = unsafe { stack.as_mut_ptr().add(8192) };
    let pid = ok!(clone(run, top.cast(), CLONE_VM | CLONE_SIGHAND | CLONE_VFORK | SIGCHLD, std::ptr::null_mut()));
    eq!(wait_for(pid), Status::Exited(0));
    let mut action = zero::<sigaction>();
    ok!(sigaction(SIGUSR2, std::ptr::null(), &mut action));
    check!(action.sa_sigaction == nothing as *const () as usize);
    Ok(())
}

fn no_rights_under_a_tracer_or_without_new_ones() -> Outcome {
    copy_of_tests("p")?;
    ok!(chmod(c".".as_ptr(), 0o755));
    ok!(chown(c"p".as_ptr(), 1234, 0));
    ok!(chmod(c"p".as_ptr(), 0o4755));
    let run = |before: fn()| {
        child(move || {
            unsafe { setresuid(1000, 1000, 1000) };
            before();
            exec("./p", &["p", "--helper=euid"], &[]);
            99
        })
    };
    eq!(run(|| ()), Status::Exited(0));
    eq!(run(|| unsafe { prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }), Status::Exited(1));
    // Traced by someone who has no such right.
    let ended = child(|| {
        unsafe { setresuid(1000, 1000, 1000) };
        let pid = fork_child(|| {
            unsafe { ptrace(PTRACE_TRACEME, 0, 0, 0) };
            exec("./p", &["p", "--helper=euid"], &[]);
            99
        });
        // The exec itself stops with SIGTRAP.
        match wait_flags(pid, WUNTRACED) {
            Status::Stopped(SIGTRAP) => unsafe { ptrace(PTRACE_CONT, pid, 0, 0) },
            _ => return 98,
        };
        (wait_for(pid) == Status::Exited(1)) as i32
    });
    eq!(ended, Status::Exited(1));
    // One whose directory context another process shares.
    let ended = child(|| {
        unsafe { setresuid(1000, 1000, 1000) };
        let pid = unsafe { syscall(SYS_clone, CLONE_FS | SIGCHLD, 0, 0, 0, 0) };
        if pid == 0 {
            loop {
                unsafe { pause() };
            }
        }
        let runs = unsafe { syscall(SYS_clone, CLONE_FS | SIGCHLD, 0, 0, 0, 0) };
        if runs == 0 {
            exec("./p", &["p", "--helper=euid"], &[]);
            unsafe { _exit(99) };
        }
        let ended = wait_for(runs as i32);
        unsafe { kill(pid as i32, SIGKILL) };
        wait_for(pid as i32);
        (ended == Status::Exited(1)) as i32
    });
    eq!(ended, Status::Exited(1));
    Ok(())
}

pub fn copy_of_tests(path: &str) -> Outcome {
    let data = content("/bin/linnet-tests")?;
    program(path, &data)
}

fn busy_is_etxtbsy() -> Outcome {
    copy_of_tests("p")?;
    let fd = ok!(open_file("p", O_WRONLY, 0));
    errno!(exec("./p", &["p"], &[]), ETXTBSY);
    close_fd(fd);
    // And a running program refuses writers.
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| {
        unsafe {
            dup2(reader, 0);
            close(writer);
        }
        exec("./p", &["p", "-l"], &[]);
        99
    });
    close_fd(reader);
    let ended = wait_for(pid);
    eq!(ended, Status::Exited(0));
    close_fd(writer);
    ok!(open_file("p", O_WRONLY, 0));
    Ok(())
}

fn corrupt_elf_is_refused() -> Outcome {
    let good = content("/bin/busybox")?;
    let mut damage: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut with = |name, change: &dyn Fn(&mut Vec<u8>)| {
        let mut data = good[..4096].to_vec();
        change(&mut data);
        damage.push((name, data));
    };
    with("only the magic", &|data| data.truncate(4));
    with("half a header", &|data| data.truncate(40));
    with("32-bit", &|data| data[4] = 1);
    with("another machine", &|data| data[18] = 62);
    with("object file", &|data| data[16] = 1);
    with("no program headers", &|data| data[56] = 0);
    with("wrong size of program header", &|data| data[54] = 1);
    with("program headers beyond the file", &|data| data[32..40].copy_from_slice(&(1u64 << 40).to_le_bytes()));
    for (name, data) in damage {
        program("p", &data)?;
        let ended = child(|| {
            exec("./p", &["p"], &[]);
            match std::io::Error::last_os_error().raw_os_error() {
                Some(ENOEXEC | EINVAL | ENOMEM | EIO | EFAULT | ELIBBAD) => 77,
                _ => 78,
            }
        });
        if !matches!(ended, Status::Exited(77) | Status::Killed(SIGSEGV | SIGKILL | SIGBUS)) {
            fail!("{name}: {ended:?}");
        }
    }
    // Nonsense in every byte of the program headers kills at most the program.
    for at in 64..400 {
        let mut data = good[..4096].to_vec();
        data[at] ^= 0xff;
        program("p", &data)?;
        let ended = child(|| {
            let null = open_file("/dev/null", O_RDWR, 0);
            unsafe { (0..3).for_each(|fd| { dup2(null, fd); }) };
            exec("./p", &["true"], &[]);
            77
        });
        check!(matches!(ended, Status::Exited(_) | Status::Killed(_)));
    }
    Ok(())
}

fn cloexec_closes() -> Outcome {
    let kept = ok!(open_file("/", O_RDONLY, 0));
    let closed = ok!(open_file("/", O_RDONLY | O_CLOEXEC, 0));
    eq!(run_helper(&["--helper=closed", &closed.to_string()]), Status::Exited(0));
    eq!(run_helper(&["--helper=closed", &kept.to_string()]), Status::Exited(1));
    // A failed exec closes nothing.
    errno!(exec("./missing", &["s"], &[]), ENOENT);
    ok!(fcntl(closed, F_GETFD));
    Ok(())
}

extern "C" fn nothing(_: i32, _: *mut siginfo_t, _: *mut c_void) {}

fn handlers_reset_ignored_stay() -> Outcome {
    ok!(handle(SIGUSR1, nothing, 0));
    set_disposition(SIGHUP, SIG_IGN);
    let mut set = zero::<sigset_t>();
    ok!(sigemptyset(&mut set));
    ok!(sigaddset(&mut set, SIGUSR2));
    ok!(sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut()));
    eq!(run_helper(&["--helper=signals"]), Status::Exited(0));
    Ok(())
}

fn mask_and_pid_stay() -> Outcome {
    let ended = child(|| {
        let pid = unsafe { getpid() }.to_string();
        exec("/bin/linnet-tests", &["t", "--helper=pid", &pid], &[]);
        99
    });
    eq!(ended, Status::Exited(0));
    Ok(())
}

fn exec_from_thread() -> Outcome {
    // The other threads end, and the new image has the leader's id.
    let ended = child(|| {
        let pid = unsafe { getpid() }.to_string();
        for _ in 0..3 {
            std::thread::spawn(|| loop {
                std::hint::spin_loop();
            });
        }
        let thread = std::thread::spawn(move || exec("/bin/linnet-tests", &["t", "--helper=pid", &pid], &[]));
        let _ = thread.join();
        99
    });
    eq!(ended, Status::Exited(0));
    Ok(())
}

fn name_is_set() -> Outcome {
    ok!(symlink(ME.as_ptr(), c"a-name-of-sixteen".as_ptr()));
    let ended = child(|| {
        exec("./a-name-of-sixteen", &["t", "--helper=name"], &[]);
        99
    });
    eq!(ended, Status::Exited(0));
    Ok(())
}

fn setuid_bit_takes_effect() -> Outcome {
    copy_of_tests("p")?;
    ok!(chown(c"p".as_ptr(), 1234, 0));
    ok!(chmod(c"p".as_ptr(), 0o4755));
    let ended = child(|| {
        unsafe { setresuid(1000, 1000, 1000) };
        exec("./p", &["p", "--helper=euid"], &[]);
        99
    });
    eq!(ended, Status::Exited(0));
    Ok(())
}

fn execveat_by_descriptor() -> Outcome {
    let ended = child(|| {
        let fd = open_file("/bin/linnet-tests", O_PATH | O_CLOEXEC, 0);
        let words = [c"t".as_ptr(), c"--helper=args".as_ptr(), c"one".as_ptr(), c"".as_ptr(), c"three 3".as_ptr(), std::ptr::null()];
        let none = [std::ptr::null::<c_char>()];
        unsafe { syscall(SYS_execveat, fd, c"".as_ptr(), words.as_ptr(), none.as_ptr(), AT_EMPTY_PATH) };
        if std::io::Error::last_os_error().raw_os_error() == Some(ENOSYS) { 88 } else { 99 }
    });
    if ended == Status::Exited(88) {
        return Err(Stop::Skip("no execveat".into()));
    }
    eq!(ended, Status::Exited(0));
    Ok(())
}

fn interpreter_missing_is_enoent() -> Outcome {
    // A dynamic program whose PT_INTERP names no file: header, one PT_INTERP, one PT_LOAD.
    let mut elf = vec![0u8; 4096];
    elf[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0");
    elf[20] = 1;
    elf[24..32].copy_from_slice(&0x400200u64.to_le_bytes());
    elf[32..40].copy_from_slice(&64u64.to_le_bytes());
    elf[52..58].copy_from_slice(&[64, 0, 56, 0, 2, 0]);
    let header = |kind: u32, flags: u32, offset: u64, address: u64, size: u64| {
        let mut out = Vec::new();
        out.extend(kind.to_le_bytes());
        out.extend(flags.to_le_bytes());
        [offset, address, address, size, size, 4096].iter().for_each(|word| out.extend(word.to_le_bytes()));
        out
    };
    elf[64..120].copy_from_slice(&header(3, 4, 0x180, 0x400180, 9));
    elf[120..176].copy_from_slice(&header(1, 5, 0, 0x400000, 4096));
    elf[0x180..0x189].copy_from_slice(b"/missing\0");
    program("p", &elf)?;
    errno!(exec("./p", &["p"], &[]), ENOENT);
    Ok(())
}

fn vfork_parent_resumes_at_exec() -> Outcome {
    // posix_spawn of glibc is clone(CLONE_VM | CLONE_VFORK) and exec; std uses it.
    for _ in 0..20 {
        let done = std::process::Command::new("/bin/linnet-tests").args(["--helper=args", "one", "", "three 3"]).status();
        check!(done.is_ok_and(|status| status.success()));
    }
    // The parent goes on at the exec, neither before it nor at the end of the program.
    let mut stack = vec![0u64; 8192];
    extern "C" fn run(_: *mut c_void) -> i32 {
        unsafe { usleep(40_000) };
        exec("/bin/busybox", &["sleep", "4"], &[]);
        99
    }
    let top = unsafe { stack.as_mut_ptr().add(8192) };
    let pid = ok!(clone(run, top.cast(), CLONE_VM | CLONE_VFORK | SIGCHLD, std::ptr::null_mut()));
    eq!(content(&format!("/proc/{pid}/comm"))?, b"busybox\n");
    ok!(kill(pid, SIGKILL));
    eq!(wait_for(pid), Status::Killed(SIGKILL));
    Ok(())
}

fn alternate_stack_is_gone() -> Outcome {
    let at = ok!(mmap(0x4000_0000 as *mut c_void, 65536, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    let stack = stack_t { ss_sp: at, ss_flags: 0, ss_size: 65536 };
    ok!(sigaltstack(&stack, std::ptr::null_mut()));
    eq!(run_helper(&["--helper=stack"]), Status::Exited(0));
    Ok(())
}
