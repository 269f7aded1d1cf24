//! Hard and symbolic links.

use crate::check::*;
use libc::*;

cases![links:
    link_counts_and_shares, link_errors, link_to_directory_is_eperm, symlink_content_and_size, symlink_exists_is_eexist,
    readlink_truncates, readlink_on_file_is_einval, symlink_to_directory_is_walked, absolute_symlink,
    symlink_empty_is_enoent, link_follows_only_when_asked, unlink_removes_the_link_itself, stat_follows_lstat_does_not,
    trailing_slash_follows_a_link, proc_self_fd_links,
];

fn read_link(path: &str) -> Result<String, Stop> {
    let mut data = [0u8; 4096];
    let length = ok!(readlink(c(path).as_ptr(), data.as_mut_ptr().cast(), data.len()));
    Ok(String::from_utf8_lossy(&data[..length as usize]).into_owned())
}

fn link_counts_and_shares() -> Outcome {
    make("a", b"1")?;
    ok!(link(c"a".as_ptr(), c"b".as_ptr()));
    eq!(stat_of("a")?.st_ino, stat_of("b")?.st_ino);
    eq!(stat_of("a")?.st_nlink, 2);
    make("b", b"22")?;
    eq!(content("a")?, b"22");
    ok!(unlink(c"a".as_ptr()));
    eq!(stat_of("b")?.st_nlink, 1);
    Ok(())
}

fn link_errors() -> Outcome {
    make("a", b"")?;
    make("b", b"")?;
    errno!(link(c"a".as_ptr(), c"b".as_ptr()), EEXIST);
    errno!(link(c"missing".as_ptr(), c"x".as_ptr()), ENOENT);
    errno!(linkat(AT_FDCWD, c"a".as_ptr(), AT_FDCWD, c"x".as_ptr(), 0x1), EINVAL);
    Ok(())
}

fn link_to_directory_is_eperm() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    errno!(link(c"d".as_ptr(), c"e".as_ptr()), EPERM);
    Ok(())
}

fn symlink_content_and_size() -> Outcome {
    ok!(symlink(c"some/where".as_ptr(), c"l".as_ptr()));
    eq!(read_link("l")?, "some/where");
    let out = stat_of("l")?;
    eq!(out.st_size, 10);
    eq!(out.st_mode, S_IFLNK | 0o777);
    Ok(())
}

fn symlink_exists_is_eexist() -> Outcome {
    make("a", b"")?;
    errno!(symlink(c"x".as_ptr(), c"a".as_ptr()), EEXIST);
    Ok(())
}

fn readlink_truncates() -> Outcome {
    ok!(symlink(c"0123456789".as_ptr(), c"l".as_ptr()));
    let mut data = [b'#'; 10];
    eq!(ok!(readlink(c"l".as_ptr(), data.as_mut_ptr().cast(), 4)), 4);
    eq!(&data, b"0123######");
    errno!(readlink(c"l".as_ptr(), data.as_mut_ptr().cast(), 0), EINVAL);
    Ok(())
}

fn readlink_on_file_is_einval() -> Outcome {
    make("a", b"")?;
    let mut data = [0u8; 10];
    errno!(readlink(c"a".as_ptr(), data.as_mut_ptr().cast(), 10), EINVAL);
    errno!(readlink(c"missing".as_ptr(), data.as_mut_ptr().cast(), 10), ENOENT);
    Ok(())
}

fn symlink_to_directory_is_walked() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    make("d/f", b"x")?;
    ok!(symlink(c"d".as_ptr(), c"l".as_ptr()));
    eq!(content("l/f")?, b"x");
    ok!(symlink(c"../d/f".as_ptr(), c"d/back".as_ptr()));
    eq!(content("l/back")?, b"x");
    Ok(())
}

fn absolute_symlink() -> Outcome {
    make("f", b"x")?;
    ok!(symlink(c"/tmp/linnet-tests/f".as_ptr(), c"l".as_ptr()));
    eq!(content("l")?, b"x");
    Ok(())
}

fn symlink_empty_is_enoent() -> Outcome {
    errno!(symlink(c"".as_ptr(), c"l".as_ptr()), ENOENT);
    Ok(())
}

fn link_follows_only_when_asked() -> Outcome {
    make("f", b"x")?;
    ok!(symlink(c"f".as_ptr(), c"l".as_ptr()));
    ok!(linkat(AT_FDCWD, c"l".as_ptr(), AT_FDCWD, c"hard-link".as_ptr(), 0));
    eq!(stat_of("hard-link")?.st_mode & S_IFMT, S_IFLNK);
    ok!(linkat(AT_FDCWD, c"l".as_ptr(), AT_FDCWD, c"hard-file".as_ptr(), AT_SYMLINK_FOLLOW));
    eq!(stat_of("hard-file")?.st_mode & S_IFMT, S_IFREG);
    Ok(())
}

fn unlink_removes_the_link_itself() -> Outcome {
    make("f", b"x")?;
    ok!(symlink(c"f".as_ptr(), c"l".as_ptr()));
    ok!(unlink(c"l".as_ptr()));
    stat_of("f")?;
    Ok(())
}

fn stat_follows_lstat_does_not() -> Outcome {
    make("f", b"123")?;
    ok!(symlink(c"f".as_ptr(), c"l".as_ptr()));
    let mut out = zero::<libc::stat>();
    ok!(libc::stat(c"l".as_ptr(), &mut out));
    eq!(out.st_size, 3);
    ok!(lstat(c"l".as_ptr(), &mut out));
    eq!(out.st_size, 1);
    ok!(fstatat(AT_FDCWD, c"l".as_ptr(), &mut out, AT_SYMLINK_NOFOLLOW));
    eq!(out.st_mode & S_IFMT, S_IFLNK);
    Ok(())
}

fn trailing_slash_follows_a_link() -> Outcome {
    ok!(mkdir(c"d".as_ptr(), 0o700));
    ok!(symlink(c"d".as_ptr(), c"l".as_ptr()));
    eq!(stat_of("l/")?.st_mode & S_IFMT, S_IFDIR);
    errno!(unlink(c"l/".as_ptr()), ENOTDIR);
    errno!(rmdir(c"l".as_ptr()), ENOTDIR);
    Ok(())
}

fn proc_self_fd_links() -> Outcome {
    let fd = ok!(open_file("f", O_CREAT | O_RDWR, 0o600));
    eq!(read_link(&format!("/proc/self/fd/{fd}"))?, "/tmp/linnet-tests/f");
    eq!(write_fd(fd, b"via"), 3);
    eq!(content(&format!("/proc/self/fd/{fd}"))?, b"via");
    Ok(())
}
