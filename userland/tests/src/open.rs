//! open(2) and openat(2): flags and the errno of each way to fail.

use crate::check::*;
use libc::*;

cases![open:
    missing_file_is_enoent, creates_with_mode_and_umask, excl_on_existing_is_eexist, excl_does_not_follow_a_link,
    directory_flag_on_file_is_enotdir, writing_a_directory_is_eisdir, creat_on_a_directory_is_eisdir,
    nofollow_on_link_is_eloop, link_cycle_is_eloop, forty_links_are_followed, long_component_is_enametoolong,
    long_path_is_enametoolong, empty_path_is_enoent, file_as_directory_is_enotdir, trailing_slash_on_file_is_enotdir,
    trunc_empties, append_writes_at_the_end, append_ignores_lseek, openat_is_relative_to_its_directory,
    openat_absolute_ignores_the_directory, openat_bad_directory_is_ebadf, openat_file_as_directory_is_enotdir,
    read_only_refuses_write, write_only_refuses_read, path_fd_refuses_read, lowest_free_number,
    cloexec_is_set, dangling_link_creates_its_target, no_descriptor_left_is_emfile, mode_of_new_file_does_not_bind_its_opener,
    unlinked_file_stays_usable, fifo_write_nonblock_without_reader_is_enxio, dot_and_dot_dot_resolve, tmpfile_has_no_name,
];

fn missing_file_is_enoent() -> Outcome {
    errno!(open(c"missing".as_ptr(), O_RDONLY), ENOENT);
    errno!(open(c"missing/below".as_ptr(), O_RDWR | O_CREAT, 0o600), ENOENT);
    Ok(())
}

fn creates_with_mode_and_umask() -> Outcome {
    ok!(umask(0o027));
    close_fd(ok!(open_file("a", O_CREAT | O_WRONLY, 0o666)));
    eq!(stat_of("a")?.st_mode, S_IFREG | 0o640);
    ok!(umask(0));
    close_fd(ok!(open_file("b", O_CREAT | O_WRONLY, 0o4751)));
    eq!(stat_of("b")?.st_mode, S_IFREG | 0o4751);
    Ok(())
}

fn excl_on_existing_is_eexist() -> Outcome {
    make("a", b"")?;
    errno!(open(c"a".as_ptr(), O_CREAT | O_EXCL | O_RDWR, 0o600), EEXIST);
    ok!(mkdir(c"d".as_ptr(), 0o700));
    errno!(open(c"d".as_ptr(), O_CREAT | O_EXCL | O_RDWR, 0o600), EEXIST);
    Ok(())
}

fn excl_does_not_follow_a_link() -> Outcome {
    ok!(symlink(c"nowhere".as_ptr(), c"l".as_ptr()));
    errno!(open(c"l".as_ptr(), O_CREAT | O_EXCL | O_RDWR, 0o600), EEXIST);
    errno!(open(c"nowhere".as_ptr(), O_RDONLY), ENOENT);
    Ok(())
}

fn directory_flag_on_file_is_enotdir() -> Outcome {
    make("a", b"")?;
    errno!(open(c"a".as_ptr(), O_RDONLY | O_DIRECTORY), ENOTDIR);
    ok!(open(c".".as_ptr(), O_RDONLY | O_DIRECTORY));
    Ok(())
}

fn writing_a_directory_is_eisdir() -> Outcome {
    errno!(open(c".".as_ptr(), O_WRONLY), EISDIR);
    errno!(open(c".".as_ptr(), O_RDWR), EISDIR);
    let fd = ok!(open(c".".as_ptr(), O_RDONLY));
    let mut byte = [0];
    errno!(read(fd, byte.as_mut_ptr().cast(), 1), EISDIR);
    Ok(())
}

fn creat_on_a_directory_is_eisdir() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    errno!(open(c"d".as_ptr(), O_RDONLY | O_CREAT, 0o600), EISDIR);
    errno!(open(c"new/".as_ptr(), O_RDONLY | O_CREAT, 0o600), EISDIR);
    Ok(())
}

fn nofollow_on_link_is_eloop() -> Outcome {
    make("a", b"x")?;
    ok!(symlink(c"a".as_ptr(), c"l".as_ptr()));
    errno!(open(c"l".as_ptr(), O_RDONLY | O_NOFOLLOW), ELOOP);
    ok!(open(c"l".as_ptr(), O_RDONLY));
    ok!(open(c"l".as_ptr(), O_PATH | O_NOFOLLOW));
    Ok(())
}

fn link_cycle_is_eloop() -> Outcome {
    ok!(symlink(c"b".as_ptr(), c"a".as_ptr()));
    ok!(symlink(c"a".as_ptr(), c"b".as_ptr()));
    errno!(open(c"a".as_ptr(), O_RDONLY), ELOOP);
    errno!(open(c"a/x".as_ptr(), O_RDONLY), ELOOP);
    Ok(())
}

fn forty_links_are_followed() -> Outcome {
    make("l0", b"x")?;
    for i in 1..=41 {
        ok!(symlink(c(&format!("l{}", i - 1)).as_ptr(), c(&format!("l{i}")).as_ptr()));
    }
    ok!(open(c"l40".as_ptr(), O_RDONLY));
    errno!(open(c"l41".as_ptr(), O_RDONLY), ELOOP);
    Ok(())
}

fn long_component_is_enametoolong() -> Outcome {
    close_fd(ok!(open_file(&"n".repeat(255), O_CREAT | O_RDWR, 0o600)));
    errno!(open_file(&"n".repeat(256), O_CREAT | O_RDWR, 0o600), ENAMETOOLONG);
    errno!(open_file(&"n".repeat(256), O_RDONLY, 0), ENAMETOOLONG);
    Ok(())
}

fn long_path_is_enametoolong() -> Outcome {
    make("a", b"")?;
    // PATH_MAX counts the terminating NUL.
    ok!(open_file(&format!("{}a", "./".repeat(2047)), O_RDONLY, 0));
    errno!(open_file(&format!("{}aa", "./".repeat(2047)), O_RDONLY, 0), ENAMETOOLONG);
    Ok(())
}

fn empty_path_is_enoent() -> Outcome {
    errno!(open(c"".as_ptr(), O_RDONLY), ENOENT);
    errno!(open(c"".as_ptr(), O_RDWR | O_CREAT, 0o600), ENOENT);
    Ok(())
}

fn file_as_directory_is_enotdir() -> Outcome {
    make("a", b"")?;
    errno!(open(c"a/b".as_ptr(), O_RDONLY), ENOTDIR);
    errno!(open(c"a/..".as_ptr(), O_RDONLY), ENOTDIR);
    Ok(())
}

fn trailing_slash_on_file_is_enotdir() -> Outcome {
    make("a", b"")?;
    errno!(open(c"a/".as_ptr(), O_RDONLY), ENOTDIR);
    ok!(open(c".//.///".as_ptr(), O_RDONLY));
    Ok(())
}

fn trunc_empties() -> Outcome {
    make("a", b"12345")?;
    close_fd(ok!(open_file("a", O_WRONLY | O_TRUNC, 0)));
    eq!(stat_of("a")?.st_size, 0);
    Ok(())
}

fn append_writes_at_the_end() -> Outcome {
    make("a", b"123")?;
    let one = ok!(open_file("a", O_WRONLY | O_APPEND, 0));
    let two = ok!(open_file("a", O_WRONLY | O_APPEND, 0));
    eq!(write_fd(one, b"4"), 1);
    eq!(write_fd(two, b"5"), 1);
    eq!(write_fd(one, b"6"), 1);
    eq!(content("a")?, b"123456");
    Ok(())
}

fn append_ignores_lseek() -> Outcome {
    make("a", b"123")?;
    let fd = ok!(open_file("a", O_RDWR | O_APPEND, 0));
    ok!(lseek(fd, 0, SEEK_SET));
    eq!(write_fd(fd, b"4"), 1);
    eq!(ok!(lseek(fd, 0, SEEK_CUR)), 4);
    eq!(content("a")?, b"1234");
    Ok(())
}

fn openat_is_relative_to_its_directory() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    make("d/a", b"x")?;
    let directory = ok!(open_file("d", O_RDONLY | O_DIRECTORY, 0));
    ok!(openat(directory, c"a".as_ptr(), O_RDONLY));
    ok!(openat(directory, c"../d/a".as_ptr(), O_RDONLY));
    let handle = ok!(open_file("d", O_PATH, 0));
    ok!(openat(handle, c"a".as_ptr(), O_RDONLY));
    errno!(openat(directory, c"b".as_ptr(), O_RDONLY), ENOENT);
    Ok(())
}

fn openat_absolute_ignores_the_directory() -> Outcome {
    ok!(openat(-5, c"/".as_ptr(), O_RDONLY));
    ok!(openat(9999, c"/proc".as_ptr(), O_RDONLY));
    Ok(())
}

fn openat_bad_directory_is_ebadf() -> Outcome {
    errno!(openat(9999, c"a".as_ptr(), O_RDONLY), EBADF);
    errno!(openat(-5, c"a".as_ptr(), O_RDONLY), EBADF);
    Ok(())
}

fn openat_file_as_directory_is_enotdir() -> Outcome {
    make("a", b"")?;
    let fd = ok!(open_file("a", O_RDONLY, 0));
    errno!(openat(fd, c"b".as_ptr(), O_RDONLY), ENOTDIR);
    Ok(())
}

fn read_only_refuses_write() -> Outcome {
    make("a", b"x")?;
    let fd = ok!(open_file("a", O_RDONLY, 0));
    errno!(write(fd, c"y".as_ptr().cast(), 1), EBADF);
    errno!(ftruncate(fd, 0), EINVAL);
    Ok(())
}

fn write_only_refuses_read() -> Outcome {
    let fd = ok!(open_file("a", O_WRONLY | O_CREAT, 0o600));
    let mut byte = [0u8];
    errno!(read(fd, byte.as_mut_ptr().cast(), 1), EBADF);
    Ok(())
}

fn path_fd_refuses_read() -> Outcome {
    make("a", b"x")?;
    let fd = ok!(open_file("a", O_PATH, 0));
    let mut byte = [0u8];
    errno!(read(fd, byte.as_mut_ptr().cast(), 1), EBADF);
    let mut out = zero::<libc::stat>();
    ok!(fstat(fd, &mut out));
    eq!(out.st_size, 1);
    Ok(())
}

fn lowest_free_number() -> Outcome {
    let one = ok!(open_file(".", O_RDONLY, 0));
    let two = ok!(open_file(".", O_RDONLY, 0));
    check!(two > one);
    close_fd(one);
    eq!(ok!(open_file(".", O_RDONLY, 0)), one);
    Ok(())
}

fn cloexec_is_set() -> Outcome {
    let with = ok!(open_file(".", O_RDONLY | O_CLOEXEC, 0));
    let without = ok!(open_file(".", O_RDONLY, 0));
    eq!(ok!(fcntl(with, F_GETFD)), FD_CLOEXEC);
    eq!(ok!(fcntl(without, F_GETFD)), 0);
    Ok(())
}

fn dangling_link_creates_its_target() -> Outcome {
    ok!(symlink(c"target".as_ptr(), c"l".as_ptr()));
    errno!(open(c"l".as_ptr(), O_RDONLY), ENOENT);
    close_fd(ok!(open_file("l", O_CREAT | O_WRONLY, 0o600)));
    eq!(stat_of("target")?.st_mode & S_IFMT, S_IFREG);
    Ok(())
}

fn no_descriptor_left_is_emfile() -> Outcome {
    let limit = rlimit { rlim_cur: 16, rlim_max: 16 };
    ok!(setrlimit(RLIMIT_NOFILE, &limit));
    let mut last = 0;
    for _ in 0..16 {
        let fd = open_file(".", O_RDONLY, 0);
        if fd < 0 {
            break;
        }
        last = fd;
    }
    eq!(last, 15);
    errno!(open(c".".as_ptr(), O_RDONLY), EMFILE);
    errno!(dup(0), EMFILE);
    let mut ends = [0; 2];
    errno!(pipe2(ends.as_mut_ptr(), 0), EMFILE);
    errno!(fcntl(0, F_DUPFD, 16), EINVAL);
    Ok(())
}

fn mode_of_new_file_does_not_bind_its_opener() -> Outcome {
    let fd = ok!(open_file("a", O_CREAT | O_RDWR, 0));
    eq!(write_fd(fd, b"x"), 1);
    Ok(())
}

fn unlinked_file_stays_usable() -> Outcome {
    let fd = ok!(open_file("a", O_CREAT | O_RDWR, 0o600));
    ok!(unlink(c"a".as_ptr()));
    eq!(write_fd(fd, b"abc"), 3);
    ok!(lseek(fd, 0, SEEK_SET));
    eq!(read_to_end(fd), b"abc");
    let mut out = zero::<libc::stat>();
    ok!(fstat(fd, &mut out));
    eq!(out.st_nlink, 0);
    Ok(())
}

fn fifo_write_nonblock_without_reader_is_enxio() -> Outcome {
    ok!(mkfifo(c"f".as_ptr(), 0o600));
    errno!(open(c"f".as_ptr(), O_WRONLY | O_NONBLOCK), ENXIO);
    let reader = ok!(open(c"f".as_ptr(), O_RDONLY | O_NONBLOCK));
    let writer = ok!(open(c"f".as_ptr(), O_WRONLY | O_NONBLOCK));
    eq!(write_fd(writer, b"hi"), 2);
    close_fd(writer);
    eq!(read_to_end(reader), b"hi");
    Ok(())
}

fn dot_and_dot_dot_resolve() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    make("a", b"x")?;
    ok!(open(c"d/../a".as_ptr(), O_RDONLY));
    ok!(open(c"./d/./../d/..//a".as_ptr(), O_RDONLY));
    ok!(open(c"/../../proc/..".as_ptr(), O_RDONLY));
    Ok(())
}

fn tmpfile_has_no_name() -> Outcome {
    let fd = ok!(open_file(".", O_TMPFILE | O_RDWR, 0o600));
    eq!(write_fd(fd, b"x"), 1);
    let mut out = zero::<libc::stat>();
    ok!(fstat(fd, &mut out));
    eq!(out.st_nlink, 0);
    eq!(std::fs::read_dir(".").map(Iterator::count).unwrap_or(99), 0);
    Ok(())
}
