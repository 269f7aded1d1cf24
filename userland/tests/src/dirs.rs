//! Directories: mkdir, rmdir, getdents64, chdir, getcwd, rename.

use crate::check::*;
use libc::*;

cases![dirs:
    mkdir_mode_and_links, mkdir_errors, rmdir_errors, rmdir_of_open_directory, getdents_lists_all_once, getdents_types,
    getdents_small_buffer_is_einval, getdents_on_file_is_enotdir, getdents_rewinds, getdents_many_in_parts,
    getdents_removed_directory_is_enoent, chdir_and_getcwd, chdir_errors, fchdir_works, getcwd_small_is_erange,
    getcwd_of_removed_is_enoent, rename_replaces_file, rename_noreplace_is_eexist, rename_exchange_swaps,
    rename_directory_over_empty, rename_errors, rename_into_itself_is_einval, rename_same_file_does_nothing,
    rename_updates_dot_dot, unlink_errors, deep_tree_works, negative_lookup_then_create, chroot_confines,
];

fn names(path: &str) -> Result<Vec<(String, u8)>, Stop> {
    names_in_parts(path, 4096)
}

/// Reads a directory with getdents64 itself, a buffer at a time.
fn names_in_parts(path: &str, size: usize) -> Result<Vec<(String, u8)>, Stop> {
    let fd = ok!(open_file(path, O_RDONLY | O_DIRECTORY, 0));
    let mut all = Vec::new();
    let mut data = vec![0u8; size];
    loop {
        let got = ok!(syscall(SYS_getdents64, fd, data.as_mut_ptr(), size)) as usize;
        if got == 0 {
            close_fd(fd);
            return Ok(all);
        }
        let mut at = 0;
        while at < got {
            let length = u16::from_le_bytes([data[at + 16], data[at + 17]]) as usize;
            check!(length >= 24 && length % 8 == 0 && at + length <= got);
            let name: Vec<u8> = data[at + 19..at + length].iter().copied().take_while(|byte| *byte != 0).collect();
            all.push((String::from_utf8_lossy(&name).into_owned(), data[at + 18]));
            at += length;
        }
    }
}

fn mkdir_mode_and_links() -> Outcome {
    ok!(umask(0o022));
    let before = stat_of(".")?.st_nlink;
    ok!(mkdir(c"d".as_ptr(), 0o777));
    eq!(stat_of("d")?.st_mode, S_IFDIR | 0o755);
    eq!(stat_of("d")?.st_nlink, 2);
    eq!(stat_of(".")?.st_nlink, before + 1);
    ok!(rmdir(c"d".as_ptr()));
    eq!(stat_of(".")?.st_nlink, before);
    Ok(())
}

fn mkdir_errors() -> Outcome {
    make("f", b"")?;
    errno!(mkdir(c"f".as_ptr(), 0o700), EEXIST);
    errno!(mkdir(c".".as_ptr(), 0o700), EEXIST);
    errno!(mkdir(c"/".as_ptr(), 0o700), EEXIST);
    errno!(mkdir(c"missing/d".as_ptr(), 0o700), ENOENT);
    errno!(mkdir(c"f/d".as_ptr(), 0o700), ENOTDIR);
    errno!(mkdir(c"".as_ptr(), 0o700), ENOENT);
    ok!(mkdir(c"slash/".as_ptr(), 0o700));
    Ok(())
}

fn rmdir_errors() -> Outcome {
    make("f", b"")?;
    errno!(rmdir(c"f".as_ptr()), ENOTDIR);
    errno!(rmdir(c"missing".as_ptr()), ENOENT);
    ok!(mkdir(c"d".as_ptr(), 0o700));
    make("d/x", b"")?;
    errno!(rmdir(c"d".as_ptr()), ENOTEMPTY);
    errno!(rmdir(c"d/.".as_ptr()), EINVAL);
    errno!(rmdir(c"d/..".as_ptr()), ENOTEMPTY);
    errno!(rmdir(c"/".as_ptr()), EBUSY);
    Ok(())
}

fn rmdir_of_open_directory() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    let fd = ok!(open_file("d", O_RDONLY, 0));
    ok!(rmdir(c"d".as_ptr()));
    errno!(openat(fd, c"x".as_ptr(), O_CREAT | O_RDWR, 0o600), ENOENT);
    let mut out = zero::<libc::stat>();
    ok!(fstat(fd, &mut out));
    eq!(out.st_nlink, 0);
    Ok(())
}

fn getdents_lists_all_once() -> Outcome {
    for i in 0..20 {
        make(&format!("f{i}"), b"")?;
    }
    let mut have: Vec<String> = names(".")?.into_iter().map(|(name, _)| name).collect();
    have.sort();
    let mut want: Vec<String> = (0..20).map(|i| format!("f{i}")).chain([".".into(), "..".into()]).collect();
    want.sort();
    eq!(have, want);
    Ok(())
}

fn getdents_types() -> Outcome {
    make("f", b"")?;
    ok!(mkdir(c"d".as_ptr(), 0o700));
    ok!(symlink(c"f".as_ptr(), c"l".as_ptr()));
    ok!(mkfifo(c"p".as_ptr(), 0o600));
    let have = names(".")?;
    for (name, kind) in [("f", DT_REG), ("d", DT_DIR), ("l", DT_LNK), ("p", DT_FIFO), (".", DT_DIR), ("..", DT_DIR)] {
        check!(have.contains(&(name.into(), kind)));
    }
    Ok(())
}

fn getdents_small_buffer_is_einval() -> Outcome {
    let fd = ok!(open_file(".", O_RDONLY, 0));
    let mut data = [0u8; 8];
    errno!(syscall(SYS_getdents64, fd, data.as_mut_ptr(), 8), EINVAL);
    Ok(())
}

fn getdents_on_file_is_enotdir() -> Outcome {
    make("f", b"")?;
    let fd = ok!(open_file("f", O_RDONLY, 0));
    let mut data = [0u8; 100];
    errno!(syscall(SYS_getdents64, fd, data.as_mut_ptr(), 100), ENOTDIR);
    Ok(())
}

fn getdents_rewinds() -> Outcome {
    let fd = ok!(open_file(".", O_RDONLY, 0));
    let mut data = [0u8; 4096];
    let first = ok!(syscall(SYS_getdents64, fd, data.as_mut_ptr(), 4096));
    eq!(ok!(syscall(SYS_getdents64, fd, data.as_mut_ptr(), 4096)), 0);
    ok!(lseek(fd, 0, SEEK_SET));
    eq!(ok!(syscall(SYS_getdents64, fd, data.as_mut_ptr(), 4096)), first);
    Ok(())
}

fn getdents_many_in_parts() -> Outcome {
    for i in 0..500 {
        make(&format!("file-number-{i}"), b"")?;
    }
    let mut have: Vec<String> = names_in_parts(".", 200)?.into_iter().map(|(name, _)| name).collect();
    have.sort();
    eq!(have.len(), 502);
    have.dedup();
    eq!(have.len(), 502);
    Ok(())
}

fn getdents_removed_directory_is_enoent() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    let fd = ok!(open_file("d", O_RDONLY, 0));
    ok!(rmdir(c"d".as_ptr()));
    let mut data = [0u8; 100];
    errno!(syscall(SYS_getdents64, fd, data.as_mut_ptr(), 100), ENOENT);
    Ok(())
}

/// The path that the kernel gives, and the length that it returns.
fn cwd() -> Result<(String, i64), Stop> {
    let mut data = [0u8; 4096];
    let length = ok!(syscall(SYS_getcwd, data.as_mut_ptr(), data.len())) as usize;
    Ok((String::from_utf8_lossy(&data[..length - 1]).into_owned(), length as i64))
}

fn chdir_and_getcwd() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    ok!(symlink(c"d".as_ptr(), c"l".as_ptr()));
    ok!(chdir(c"l".as_ptr()));
    eq!(cwd()?, ("/tmp/linnet-tests/d".into(), 20));
    ok!(chdir(c"..".as_ptr()));
    eq!(cwd()?.0, "/tmp/linnet-tests");
    ok!(chdir(c"/".as_ptr()));
    eq!(cwd()?, ("/".into(), 2));
    Ok(())
}

fn chdir_errors() -> Outcome {
    make("f", b"")?;
    errno!(chdir(c"missing".as_ptr()), ENOENT);
    errno!(chdir(c"f".as_ptr()), ENOTDIR);
    errno!(fchdir(999), EBADF);
    let fd = ok!(open_file("f", O_RDONLY, 0));
    errno!(fchdir(fd), ENOTDIR);
    eq!(cwd()?.0, "/tmp/linnet-tests");
    Ok(())
}

fn fchdir_works() -> Outcome {
    let fd = ok!(open_file("/proc", O_RDONLY, 0));
    ok!(fchdir(fd));
    eq!(cwd()?.0, "/proc");
    Ok(())
}

fn getcwd_small_is_erange() -> Outcome {
    let mut data = [0u8; 5];
    errno!(syscall(SYS_getcwd, data.as_mut_ptr(), 5), ERANGE);
    Ok(())
}

fn getcwd_of_removed_is_enoent() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    ok!(chdir(c"d".as_ptr()));
    ok!(rmdir(c"../d".as_ptr()));
    let mut data = [0u8; 100];
    errno!(syscall(SYS_getcwd, data.as_mut_ptr(), 100), ENOENT);
    ok!(chdir(c"..".as_ptr()));
    eq!(cwd()?.0, "/tmp/linnet-tests");
    Ok(())
}

fn rename_replaces_file() -> Outcome {
    make("a", b"A")?;
    make("b", b"B")?;
    let old = ok!(open_file("b", O_RDONLY, 0));
    ok!(rename(c"a".as_ptr(), c"b".as_ptr()));
    eq!(content("b")?, b"A");
    eq!(read_to_end(old), b"B");
    errno!(open(c"a".as_ptr(), O_RDONLY), ENOENT);
    Ok(())
}

fn rename_noreplace_is_eexist() -> Outcome {
    make("a", b"A")?;
    make("b", b"B")?;
    errno!(renameat2(AT_FDCWD, c"a".as_ptr(), AT_FDCWD, c"b".as_ptr(), RENAME_NOREPLACE), EEXIST);
    eq!(content("b")?, b"B");
    ok!(renameat2(AT_FDCWD, c"a".as_ptr(), AT_FDCWD, c"c".as_ptr(), RENAME_NOREPLACE));
    errno!(renameat2(AT_FDCWD, c"c".as_ptr(), AT_FDCWD, c"d".as_ptr(), 0x100), EINVAL);
    errno!(renameat2(AT_FDCWD, c"c".as_ptr(), AT_FDCWD, c"b".as_ptr(), RENAME_NOREPLACE | RENAME_EXCHANGE), EINVAL);
    Ok(())
}

fn rename_exchange_swaps() -> Outcome {
    make("a", b"A")?;
    ok!(mkdir(c"d".as_ptr(), 0o700));
    ok!(renameat2(AT_FDCWD, c"a".as_ptr(), AT_FDCWD, c"d".as_ptr(), RENAME_EXCHANGE));
    eq!(content("d")?, b"A");
    eq!(stat_of("a")?.st_mode & S_IFMT, S_IFDIR);
    errno!(renameat2(AT_FDCWD, c"a".as_ptr(), AT_FDCWD, c"missing".as_ptr(), RENAME_EXCHANGE), ENOENT);
    Ok(())
}

fn rename_directory_over_empty() -> Outcome {
    ok!(mkdir(c"a".as_ptr(), 0o700));
    make("a/x", b"")?;
    ok!(mkdir(c"b".as_ptr(), 0o700));
    ok!(rename(c"a".as_ptr(), c"b".as_ptr()));
    stat_of("b/x")?;
    ok!(mkdir(c"c".as_ptr(), 0o700));
    errno!(rename(c"c".as_ptr(), c"b".as_ptr()), ENOTEMPTY);
    Ok(())
}

fn rename_errors() -> Outcome {
    make("f", b"")?;
    ok!(mkdir(c"d".as_ptr(), 0o700));
    errno!(rename(c"missing".as_ptr(), c"x".as_ptr()), ENOENT);
    errno!(rename(c"f".as_ptr(), c"d".as_ptr()), EISDIR);
    errno!(rename(c"d".as_ptr(), c"f".as_ptr()), ENOTDIR);
    errno!(rename(c"f".as_ptr(), c"missing/x".as_ptr()), ENOENT);
    errno!(rename(c"f".as_ptr(), c"/proc/x".as_ptr()), EXDEV);
    errno!(rename(c".".as_ptr(), c"x".as_ptr()), EBUSY);
    errno!(rename(c"f/".as_ptr(), c"x".as_ptr()), ENOTDIR);
    Ok(())
}

fn rename_into_itself_is_einval() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    ok!(mkdir(c"d/e".as_ptr(), 0o700));
    errno!(rename(c"d".as_ptr(), c"d/e/f".as_ptr()), EINVAL);
    errno!(rename(c"d/e".as_ptr(), c"d".as_ptr()), ENOTEMPTY);
    Ok(())
}

fn rename_same_file_does_nothing() -> Outcome {
    make("a", b"A")?;
    ok!(link(c"a".as_ptr(), c"b".as_ptr()));
    ok!(rename(c"a".as_ptr(), c"b".as_ptr()));
    eq!(stat_of("a")?.st_nlink, 2);
    ok!(rename(c"a".as_ptr(), c"a".as_ptr()));
    Ok(())
}

fn rename_updates_dot_dot() -> Outcome {
    for name in [c"a", c"b", c"a/sub"] {
        ok!(mkdir(name.as_ptr(), 0o700));
    }
    ok!(rename(c"a/sub".as_ptr(), c"b/sub".as_ptr()));
    eq!(stat_of("b/sub/..")?.st_ino, stat_of("b")?.st_ino);
    eq!(stat_of("a")?.st_nlink, 2);
    eq!(stat_of("b")?.st_nlink, 3);
    Ok(())
}

fn unlink_errors() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    make("f", b"")?;
    errno!(unlink(c"d".as_ptr()), EISDIR);
    errno!(unlink(c"missing".as_ptr()), ENOENT);
    errno!(unlink(c"f/x".as_ptr()), ENOTDIR);
    errno!(unlink(c"f/".as_ptr()), ENOTDIR);
    errno!(unlinkat(AT_FDCWD, c"f".as_ptr(), 0x1), EINVAL);
    errno!(unlinkat(AT_FDCWD, c"f".as_ptr(), AT_REMOVEDIR), ENOTDIR);
    ok!(unlinkat(AT_FDCWD, c"d".as_ptr(), AT_REMOVEDIR));
    Ok(())
}

fn deep_tree_works() -> Outcome {
    for _ in 0..100 {
        ok!(mkdir(c"deeper".as_ptr(), 0o700));
        ok!(chdir(c"deeper".as_ptr()));
    }
    eq!(cwd()?.0.len(), "/tmp/linnet-tests".len() + 700);
    ok!(chdir(c(&"../".repeat(100)).as_ptr()));
    eq!(cwd()?.0, "/tmp/linnet-tests");
    Ok(())
}

fn negative_lookup_then_create() -> Outcome {
    errno!(open(c"x".as_ptr(), O_RDONLY), ENOENT);
    make("x", b"1")?;
    eq!(content("x")?, b"1");
    ok!(unlink(c"x".as_ptr()));
    errno!(open(c"x".as_ptr(), O_RDONLY), ENOENT);
    Ok(())
}

fn chroot_confines() -> Outcome {
    ok!(mkdir(c"jail".as_ptr(), 0o755));
    make("jail/inside", b"x")?;
    make("outside", b"x")?;
    in_child(|| {
        ok!(chroot(c"jail".as_ptr()));
        ok!(chdir(c"/".as_ptr()));
        ok!(open(c"/inside".as_ptr(), O_RDONLY));
        errno!(open(c"/outside".as_ptr(), O_RDONLY), ENOENT);
        errno!(open(c"../outside".as_ptr(), O_RDONLY), ENOENT);
        eq!(cwd()?.0, "/");
        Ok(())
    })
}
