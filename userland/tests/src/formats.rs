//! The formats of executable files beside ELF: scripts through descriptors, and formats that the
//! administrator registers.

use crate::check::*;
use crate::elf::{Probe, anywhere, fixed, program, refusal, with_interpreter};
use libc::*;

cases![formats:
    script_by_a_descriptor_that_closes_is_enoent, misc_runs_by_magic_and_by_extension, misc_passes_the_file_open,
    misc_keeps_the_first_word, misc_opens_a_fixed_interpreter_once, misc_shows_and_forgets_entries, misc_refuses_other_lines,
    newest_entry_comes_first, interpreters_are_free_again, set_id_of_the_file_with_credentials,
];

const MISC: &str = "/proc/sys/fs/binfmt_misc";

/// Mounts binfmt_misc without entries; skips where the kernel has none.
fn misc() -> Outcome {
    if std::fs::metadata(format!("{MISC}/register")).is_err() {
        let at = c(MISC);
        // SAFETY: the strings are NUL-terminated.
        let mounted = unsafe { mount(c"binfmt_misc".as_ptr(), at.as_ptr(), c"binfmt_misc".as_ptr(), 0, std::ptr::null()) };
        if mounted != 0 {
            let error = std::io::Error::last_os_error();
            if matches!(error.raw_os_error(), Some(ENODEV | ENOENT)) {
                return Err(Stop::Skip("no binfmt_misc".into()));
            }
            fail!("mounting binfmt_misc: {error}");
        }
    }
    put("status", b"-1")?;
    put("status", b"1")
}

fn put(name: &str, data: &[u8]) -> Outcome {
    match std::fs::write(format!("{MISC}/{name}"), data) {
        Ok(()) => Ok(()),
        Err(error) => fail!("writing {:?} to {name}: {error}", String::from_utf8_lossy(data)),
    }
}

fn register(line: &str) -> Outcome {
    put("register", line.as_bytes())
}

/// An absolute path in the case's directory.
fn here(name: &str) -> String {
    format!("{}/{name}", std::env::current_dir().map(|dir| dir.display().to_string()).unwrap_or_default())
}

fn script_by_a_descriptor_that_closes_is_enoent() -> Outcome {
    fixed().install("p")?;
    program("s", b"#!./p\n")?;
    program("bad", b"#!\n")?;
    let by = |name: &str, flags: i32| {
        let name = name.to_string();
        child(move || {
            let fd = open_file(&name, O_RDONLY | flags, 0);
            let words = [c"s".as_ptr(), std::ptr::null()];
            let none = [std::ptr::null::<c_char>()];
            // SAFETY: both lists end in null.
            unsafe { syscall(SYS_execveat, fd, c"".as_ptr(), words.as_ptr(), none.as_ptr(), AT_EMPTY_PATH) };
            std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
        })
    };
    eq!(by("s", O_CLOEXEC), Status::Exited(ENOENT));
    // What is wrong with the script itself comes first.
    eq!(by("bad", O_CLOEXEC), Status::Exited(ENOEXEC));
    // A name below a directory's descriptor goes the same way; a program needs no name.
    let below = child(|| {
        let fd = open_file(".", O_RDONLY | O_CLOEXEC | O_DIRECTORY, 0);
        let words = [c"s".as_ptr(), std::ptr::null()];
        let none = [std::ptr::null::<c_char>()];
        // SAFETY: both lists end in null.
        unsafe { syscall(SYS_execveat, fd, c"s".as_ptr(), words.as_ptr(), none.as_ptr(), 0) };
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    });
    eq!(below, Status::Exited(ENOENT));
    let probe = Probe::start_with(0, || {
        let fd = open_file("p", O_RDONLY | O_CLOEXEC, 0);
        let words = [c"p".as_ptr(), std::ptr::null()];
        let none = [std::ptr::null::<c_char>()];
        // SAFETY: both lists end in null.
        unsafe { syscall(SYS_execveat, fd, c"".as_ptr(), words.as_ptr(), none.as_ptr(), AT_EMPTY_PATH) as i32 }
    })?;
    probe.finish()
}

fn misc_runs_by_magic_and_by_extension() -> Outcome {
    misc()?;
    fixed().install("p")?;
    let p = here("p");
    register(&format!(":magic:M:2:\\x01AB\\x3a:\\xff\\xff\\x00\\xff:{p}:"))?;
    register(&format!(":ext:E::foo::{p}:"))?;
    program("a", b"xx\x01Az:rest")?;
    program("b.foo", b"whatever")?;
    program("c.bar", b"xx\x02Az:")?;
    for name in ["./a", "./b.foo"] {
        let probe = Probe::start(name, &["ignored", "word"], &["X=1"], 0)?;
        eq!(probe.texts(&probe.words), [p.as_str(), name, "word"]);
        eq!(probe.text(probe.aux(AT_EXECFN)?), name);
        eq!(probe.aux(AT_FLAGS)?, 0);
        check!(probe.aux(AT_EXECFD).is_err());
        eq!(probe.proc_file("comm")?, format!("{}\n", &name[2..]).into_bytes());
        probe.finish()?;
    }
    eq!(refusal("./c.bar"), Some(ENOEXEC));
    // A script can lead to such a file, and such a file to a script.
    program("s", b"#!./b.foo w\n")?;
    let probe = Probe::start("./s", &["s"], &[], 0)?;
    eq!(probe.texts(&probe.words), [p.as_str(), "./b.foo", "w", "./s"]);
    probe.finish()?;
    put("status", b"0")?;
    eq!(refusal("./a"), Some(ENOEXEC));
    put("status", b"1\n")?;
    put("magic", b"0")?;
    eq!(refusal("./a"), Some(ENOEXEC));
    put("magic", b"1")?;
    Probe::start("./a", &["a"], &[], 0)?.finish()
}

fn misc_passes_the_file_open() -> Outcome {
    misc()?;
    fixed().install("p")?;
    register(&format!(":ext:E::foo::{}:O", here("p")))?;
    program("b.foo", b"whatever")?;
    let probe = Probe::start("./b.foo", &["x"], &[], 0)?;
    let fd = probe.aux(AT_EXECFD)?;
    check!(fd > 2);
    let link = std::fs::read_link(format!("/proc/{}/fd/{fd}", probe.pid));
    check!(link.is_ok_and(|path| path.ends_with("b.foo")));
    probe.finish()
}

fn misc_keeps_the_first_word() -> Outcome {
    misc()?;
    fixed().install("p")?;
    let p = here("p");
    register(&format!(":ext:E::foo::{p}:P"))?;
    program("b.foo", b"whatever")?;
    let probe = Probe::start("./b.foo", &["zero", "one"], &[], 0)?;
    eq!(probe.texts(&probe.words), [p.as_str(), "./b.foo", "zero", "one"]);
    eq!(probe.aux(AT_FLAGS)?, 1);
    probe.finish()
}

fn misc_opens_a_fixed_interpreter_once() -> Outcome {
    misc()?;
    fixed().install("p")?;
    register(&format!(":fixed:E::foo::{}:F", here("p")))?;
    register(&format!(":byname:E::bar::{}:", here("p")))?;
    // A missing interpreter is noticed when the entry is made, with F.
    errno!(write_to("register", &format!(":gone:E::gone::{}:F", here("gone"))), ENOENT);
    ok!(unlink(c"p".as_ptr()));
    program("b.foo", b"whatever")?;
    program("b.bar", b"whatever")?;
    Probe::start("./b.foo", &["x"], &[], 0)?.finish()?;
    eq!(refusal("./b.bar"), Some(ENOENT));
    put("status", b"-1")
}

/// Writes to a file of binfmt_misc; as write(2).
fn write_to(name: &str, text: &str) -> isize {
    let fd = open_file(&format!("{MISC}/{name}"), O_WRONLY, 0);
    if fd < 0 {
        return -1;
    }
    let done = write_fd(fd, text.as_bytes());
    let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    close_fd(fd);
    // SAFETY: the thread's own errno.
    unsafe { *__errno_location() = error };
    done
}

fn shown(name: &str) -> Result<String, Stop> {
    Ok(String::from_utf8_lossy(&content(&format!("{MISC}/{name}"))?).into_owned())
}

fn misc_shows_and_forgets_entries() -> Outcome {
    misc()?;
    eq!(content(&format!("{MISC}/status"))?, b"enabled\n");
    register(":one:M:3:\\x7fELF:\\xff\\xff\\xf0\\xff:/bin/some:OC")?;
    register(":two:E::foo::/bin/other:")?;
    eq!(shown("one")?, "enabled\ninterpreter /bin/some\nflags: OC\noffset 3\nmagic 7f454c46\nmask fffff0ff\n");
    put("two", b"0\n")?;
    eq!(shown("two")?, "disabled\ninterpreter /bin/other\nflags: \nextension .foo\n");
    let Ok(list) = std::fs::read_dir(MISC) else { fail!("cannot list") };
    let mut names: Vec<String> = list.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    eq!(names, ["one", "register", "status", "two"]);
    errno!(write_to("register", ":two:E::bar::/bin/other:"), EEXIST);
    put("two", b"-1")?;
    check!(std::fs::metadata(format!("{MISC}/two")).is_err());
    register(":two:E::bar::/bin/other:")?;
    put("status", b"0")?;
    eq!(content(&format!("{MISC}/status"))?, b"disabled\n");
    put("status", b"1")?;
    put("status", b"-1")?;
    check!(std::fs::metadata(format!("{MISC}/one")).is_err());
    let text = String::from_utf8_lossy(&content("/proc/mounts")?).into_owned();
    check!(text.contains("/proc/sys/fs/binfmt_misc binfmt_misc "));
    Ok(())
}

fn misc_refuses_other_lines() -> Outcome {
    misc()?;
    for line in [
        "short", "::E::foo::/bin/x:", ":..:E::foo::/bin/x:", ":a/b:E::foo::/bin/x:", ":abc:Q::foo::/bin/x:", ":abc:E::::/bin/x:",
        ":abc:E::f/o::/bin/x:", ":abc:M:-1:abc::/bin/x:", ":abc:M:254:abc::/bin/x:", ":abc:M::abc:\\xff:/bin/x:", ":abc:M::abc::/bin/x:Q",
        ":abc:E::foo:::",
    ] {
        if write_to("register", line) != -1 {
            fail!("{line} is accepted");
        }
        eq!((line, std::io::Error::last_os_error().raw_os_error()), (line, Some(EINVAL)));
    }
    errno!(write_to("status", "2"), EINVAL);
    errno!(write_to("status", "-11"), EINVAL);
    in_child(|| {
        // SAFETY: the child's own ids.
        unsafe { setresuid(1000, 1000, 1000) };
        errno!(write_to("register", ":abc:E::foo::/bin/x:"), EACCES);
        errno!(write_to("status", "1"), EACCES);
        Ok(())
    })
}

fn newest_entry_comes_first() -> Outcome {
    misc()?;
    fixed().install("p")?;
    fixed().install("q")?;
    register(&format!(":old:E::foo::{}:", here("p")))?;
    register(&format!(":new:E::foo::{}:", here("q")))?;
    program("b.foo", b"whatever")?;
    let probe = Probe::start("./b.foo", &["x"], &[], 0)?;
    eq!(probe.text(probe.words[0]), here("q"));
    probe.finish()?;
    // Registered formats come before ELF and scripts.
    register(&format!(":elf:M::\\x7fELF\\x02\\x01\\x01:\\xff\\xff\\xff\\xff\\xff\\xff\\x00:{}:", here("missing")))?;
    eq!(refusal("./p"), Some(ENOENT));
    put("status", b"-1")?;
    Probe::start("./p", &["x"], &[], 0)?.finish()
}

fn interpreters_are_free_again() -> Outcome {
    // A running program refuses writers; what only helped to load it does not.
    anywhere(4096).install("ld")?;
    with_interpreter(b"./ld\0", 4096).install("p")?;
    program("s", b"#!./p\n")?;
    let probe = Probe::start("./s", &["s"], &[], 0)?;
    errno!(open_file("p", O_WRONLY, 0), ETXTBSY);
    errno!(open_file("p", O_RDONLY | O_TRUNC, 0), ETXTBSY);
    for name in ["ld", "s"] {
        let fd = ok!(open_file(name, O_WRONLY, 0));
        close_fd(fd);
    }
    probe.finish()?;
    let fd = ok!(open_file("p", O_WRONLY, 0));
    eq!(refusal("./s"), Some(ETXTBSY));
    eq!(refusal("./p"), Some(ETXTBSY));
    close_fd(fd);
    // A refused exec takes its protection back, too.
    make("x", b"text")?;
    ok!(chmod(c"x".as_ptr(), 0o755));
    eq!(refusal("./x"), Some(ENOEXEC));
    ok!(open_file("x", O_WRONLY, 0));
    Ok(())
}

fn set_id_of_the_file_with_credentials() -> Outcome {
    misc()?;
    fixed().install("p")?;
    ok!(chmod(c".".as_ptr(), 0o755));
    register(&format!(":with:E::foo::{}:C", here("p")))?;
    register(&format!(":without:E::bar::{}:", here("p")))?;
    for (name, euid) in [("./b.foo", 1234), ("./b.bar", 1000)] {
        program(name, b"whatever")?;
        ok!(chown(c(name).as_ptr(), 1234, 0));
        ok!(chmod(c(name).as_ptr(), 0o4755));
        let probe = Probe::start_with(0, || {
            // SAFETY: the child's own ids.
            unsafe { setresuid(1000, 1000, 1000) };
            crate::elf::exec(name, &["x"], &[])
        })?;
        eq!((name, probe.aux(AT_UID)?, probe.aux(AT_EUID)?), (name, 1000, euid));
        probe.finish()?;
    }
    put("status", b"-1")
}
