//! Watching files and directories.

use crate::check::*;
use libc::*;

cases![inotify:
    tells_what_happens_in_a_directory, tells_what_happens_to_a_file, both_watchers_hear, renames_have_cookies,
    unlink_and_last_close, rmdir_and_links, attributes_and_truncation, open_and_close_of_directories,
    masks_select_and_change, errors_of_add_watch, errors_of_init_and_rm, once_and_excluded, equal_events_merge,
    overflow_is_told, names_fit_or_einval, ready_and_counted, blocks_until_told, limits_of_a_user, fdinfo_lists_watches,
    unmount_ends_watches, close_ends_watches, exchange_and_replace, programs_and_sendfile, fanotify_is_absent,
    many_threads_and_watches,
];

#[derive(Debug, PartialEq, Eq, Clone)]
struct Ev {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: String,
}

fn init() -> Result<i32, Stop> {
    Ok(ok!(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)))
}

fn add(fd: i32, path: &str, mask: u32) -> i32 {
    let path = c(path);
    // SAFETY: the path is NUL-terminated.
    unsafe { inotify_add_watch(fd, path.as_ptr(), mask) }
}

fn events(fd: i32) -> Vec<Ev> {
    let mut all = Vec::new();
    let mut buf = [0u8; 8192];
    loop {
        let n = read_fd(fd, &mut buf);
        if n <= 0 {
            return all;
        }
        let mut at = 0;
        while at < n as usize {
            let word = |i: usize| u32::from_ne_bytes(buf[at + i..at + i + 4].try_into().unwrap_or_default());
            let len = word(12) as usize;
            let name = &buf[at + 16..at + 16 + len];
            let name = String::from_utf8_lossy(name.split(|b| *b == 0).next().unwrap_or(&[])).into_owned();
            all.push(Ev { wd: word(0) as i32, mask: word(4), cookie: word(8), name });
            at += 16 + len;
        }
    }
}

/// Masks and names, which is what most cases are about.
fn short(fd: i32) -> Vec<(u32, String)> {
    events(fd).into_iter().map(|e| (e.mask, e.name)).collect()
}

fn want(list: &[(u32, &str)]) -> Vec<(u32, String)> {
    list.iter().map(|(m, n)| (*m, n.to_string())).collect()
}

fn touch(path: &str) -> Outcome {
    close_fd(ok!(open_file(path, O_WRONLY | O_CREAT, 0o644)));
    Ok(())
}

fn tells_what_happens_in_a_directory() -> Outcome {
    let i = init()?;
    ok!(mkdir(c"d".as_ptr(), 0o755));
    eq!(ok!(add(i, "d", IN_ALL_EVENTS)), 1);
    let f = ok!(open_file("d/f", O_RDWR | O_CREAT, 0o644));
    eq!(write_fd(f, b"hello"), 5);
    ok!(lseek(f, 0, SEEK_SET));
    eq!(read_fd(f, &mut [0; 8]), 5);
    eq!(read_fd(f, &mut [0; 8]), 0);
    eq!(ok!(pwrite(f, c"x".as_ptr().cast(), 1, 0)), 1);
    close_fd(f);
    let f = ok!(open_file("d/f", O_RDONLY, 0));
    close_fd(f);
    ok!(mkdir(c"d/sub".as_ptr(), 0o755));
    ok!(symlink(c"nowhere".as_ptr(), c"d/link".as_ptr()));
    ok!(mkfifo(c"d/fifo".as_ptr(), 0o600));
    eq!(
        short(i),
        want(&[
            (IN_CREATE, "f"),
            (IN_OPEN, "f"),
            (IN_MODIFY, "f"),
            (IN_ACCESS, "f"),
            (IN_MODIFY, "f"),
            (IN_CLOSE_WRITE, "f"),
            (IN_OPEN, "f"),
            (IN_CLOSE_NOWRITE, "f"),
            (IN_CREATE | IN_ISDIR, "sub"),
            (IN_CREATE, "link"),
            (IN_CREATE, "fifo"),
        ])
    );
    // What is further down is another directory's business.
    touch("d/sub/deep")?;
    ok!(unlink(c"d/link".as_ptr()));
    ok!(unlink(c"d/sub/deep".as_ptr()));
    ok!(rmdir(c"d/sub".as_ptr()));
    eq!(short(i), want(&[(IN_DELETE, "link"), (IN_DELETE | IN_ISDIR, "sub")]));
    Ok(())
}

fn tells_what_happens_to_a_file() -> Outcome {
    let i = init()?;
    make("f", b"data")?;
    let wd = ok!(add(i, "f", IN_ALL_EVENTS));
    let f = ok!(open_file("f", O_RDWR, 0));
    let mut b = [0u8; 2];
    eq!(ok!(pread(f, b.as_mut_ptr().cast(), 2, 0)), 2);
    eq!(write_fd(f, b"x"), 1);
    eq!(write_fd(f, b""), 0);
    close_fd(f);
    let got = events(i);
    check!(got.iter().all(|e| e.wd == wd && e.name.is_empty() && e.cookie == 0));
    eq!(got.iter().map(|e| e.mask).collect::<Vec<_>>(), vec![IN_OPEN, IN_ACCESS, IN_MODIFY, IN_CLOSE_WRITE]);
    // O_PATH opens nothing.
    close_fd(ok!(open_file("f", O_PATH, 0)));
    check!(events(i).is_empty());
    Ok(())
}

fn both_watchers_hear() -> Outcome {
    let (i, j) = (init()?, init()?);
    make("f", b"")?;
    let here = ok!(add(i, ".", IN_OPEN | IN_ATTRIB));
    let file = ok!(add(i, "f", IN_OPEN));
    ok!(add(j, "f", IN_CLOSE));
    close_fd(ok!(open_file("f", O_RDONLY, 0)));
    let got = events(i);
    eq!(got.iter().map(|e| (e.wd, e.mask, e.name.as_str())).collect::<Vec<_>>(), vec![(here, IN_OPEN, "f"), (file, IN_OPEN, "")]);
    eq!(short(j), want(&[(IN_CLOSE_NOWRITE, "")]));
    Ok(())
}

fn renames_have_cookies() -> Outcome {
    let i = init()?;
    ok!(mkdir(c"a".as_ptr(), 0o755));
    ok!(mkdir(c"b".as_ptr(), 0o755));
    touch("a/f")?;
    let a = ok!(add(i, "a", IN_MOVE));
    let b = ok!(add(i, "b", IN_MOVE));
    let f = ok!(add(i, "a/f", IN_MOVE_SELF));
    ok!(rename(c"a/f".as_ptr(), c"b/g".as_ptr()));
    let got = events(i);
    eq!(got.len(), 3);
    check!(got[0].cookie != 0 && got[0].cookie == got[1].cookie && got[2].cookie == 0);
    let all: Vec<_> = got.iter().map(|e| (e.wd, e.mask, e.name.as_str())).collect();
    eq!(all, vec![(a, IN_MOVED_FROM, "f"), (b, IN_MOVED_TO, "g"), (f, IN_MOVE_SELF, "")]);
    ok!(mkdir(c"a/d".as_ptr(), 0o755));
    let d = ok!(add(i, "a/d", IN_MOVE_SELF));
    ok!(rename(c"a/d".as_ptr(), c"b/d".as_ptr()));
    let next = events(i);
    check!(next[0].cookie != got[0].cookie);
    let all: Vec<_> = next.iter().map(|e| (e.wd, e.mask, e.name.as_str())).collect();
    eq!(all, vec![(a, IN_MOVED_FROM | IN_ISDIR, "d"), (b, IN_MOVED_TO | IN_ISDIR, "d"), (d, IN_MOVE_SELF, "")]);
    Ok(())
}

fn unlink_and_last_close() -> Outcome {
    let i = init()?;
    make("f", b"")?;
    let here = ok!(add(i, ".", IN_DELETE));
    let f = ok!(add(i, "f", IN_ALL_EVENTS));
    ok!(unlink(c"f".as_ptr()));
    let got: Vec<_> = events(i).into_iter().map(|e| (e.wd, e.mask, e.name)).collect();
    eq!(got, vec![(f, IN_ATTRIB, String::new()), (f, IN_DELETE_SELF, String::new()), (f, IN_IGNORED, String::new()), (here, IN_DELETE, "f".into())]);
    errno!(inotify_rm_watch(i, f), EINVAL);
    // An open file goes on being one.
    make("g", b"")?;
    let open = ok!(open_file("g", O_WRONLY, 0));
    ok!(add(i, "g", IN_ALL_EVENTS));
    ok!(unlink(c"g".as_ptr()));
    eq!(short(i), want(&[(IN_ATTRIB, ""), (IN_DELETE, "g")]));
    eq!(write_fd(open, b"x"), 1);
    close_fd(open);
    eq!(short(i), want(&[(IN_MODIFY, ""), (IN_CLOSE_WRITE, ""), (IN_DELETE_SELF, ""), (IN_IGNORED, "")]));
    Ok(())
}

fn rmdir_and_links() -> Outcome {
    let i = init()?;
    ok!(mkdir(c"d".as_ptr(), 0o755));
    ok!(add(i, "d", IN_ALL_EVENTS));
    ok!(rmdir(c"d".as_ptr()));
    eq!(short(i), want(&[(IN_DELETE_SELF, ""), (IN_IGNORED, "")]));
    make("f", b"")?;
    ok!(add(i, "f", IN_ALL_EVENTS));
    ok!(link(c"f".as_ptr(), c"g".as_ptr()));
    ok!(unlink(c"f".as_ptr()));
    eq!(short(i), want(&[(IN_ATTRIB, "")]));
    // It is the file that is watched, by whatever name.
    close_fd(ok!(open_file("g", O_RDONLY, 0)));
    eq!(short(i), want(&[(IN_OPEN, ""), (IN_CLOSE_NOWRITE, "")]));
    Ok(())
}

fn attributes_and_truncation() -> Outcome {
    let i = init()?;
    make("f", b"0123456789")?;
    ok!(add(i, "f", IN_ALL_EVENTS));
    ok!(chmod(c"f".as_ptr(), 0o600));
    eq!(short(i), want(&[(IN_ATTRIB, "")]));
    ok!(chown(c"f".as_ptr(), 1, 1));
    eq!(short(i), want(&[(IN_ATTRIB, "")]));
    ok!(truncate(c"f".as_ptr(), 5));
    eq!(short(i), want(&[(IN_MODIFY, "")]));
    let now = timespec(1_000_000_000);
    let times = |a: i64, m: i64| {
        let of = |n: i64| if n == 0 { now } else { libc::timespec { tv_sec: 0, tv_nsec: n } };
        let t = [of(a), of(m)];
        // SAFETY: the times live.
        unsafe { utimensat(AT_FDCWD, c"f".as_ptr(), t.as_ptr(), 0) }
    };
    ok!(times(0, 0));
    eq!(short(i), want(&[(IN_ATTRIB, "")]));
    ok!(times(0, UTIME_OMIT));
    eq!(short(i), want(&[(IN_ACCESS, "")]));
    ok!(times(UTIME_OMIT, 0));
    eq!(short(i), want(&[(IN_MODIFY, "")]));
    let f = ok!(open_file("f", O_RDWR | O_TRUNC, 0));
    eq!(short(i), want(&[(IN_MODIFY, ""), (IN_OPEN, "")]));
    ok!(ftruncate(f, 100));
    eq!(short(i), want(&[(IN_MODIFY, "")]));
    ok!(fallocate(f, 0, 0, 200));
    eq!(short(i), want(&[(IN_MODIFY, "")]));
    ok!(fchmod(f, 0o644));
    eq!(short(i), want(&[(IN_ATTRIB, "")]));
    Ok(())
}

fn open_and_close_of_directories() -> Outcome {
    let i = init()?;
    ok!(mkdir(c"d".as_ptr(), 0o755));
    ok!(add(i, "d", IN_ALL_EVENTS));
    ok!(add(i, ".", IN_OPEN | IN_CLOSE | IN_ACCESS));
    let count = std::fs::read_dir("d").map(|d| d.count()).map_err(|e| Stop::Fail(e.to_string()))?;
    eq!(count, 0);
    let d = IN_ISDIR;
    eq!(
        short(i),
        want(&[
            (IN_OPEN | d, "d"),
            (IN_OPEN | d, ""),
            (IN_ACCESS | d, "d"),
            (IN_ACCESS | d, ""),
            (IN_ACCESS | d, "d"),
            (IN_ACCESS | d, ""),
            (IN_CLOSE_NOWRITE | d, "d"),
            (IN_CLOSE_NOWRITE | d, ""),
        ])
    );
    Ok(())
}

fn masks_select_and_change() -> Outcome {
    let i = init()?;
    make("f", b"")?;
    let wd = ok!(add(i, "f", IN_OPEN));
    let open = || close_fd(open_file("f", O_RDONLY, 0));
    open();
    eq!(short(i), want(&[(IN_OPEN, "")]));
    eq!(ok!(add(i, "f", IN_CLOSE | IN_MASK_ADD)), wd);
    open();
    eq!(short(i), want(&[(IN_OPEN, ""), (IN_CLOSE_NOWRITE, "")]));
    eq!(ok!(add(i, "f", IN_CLOSE)), wd);
    open();
    eq!(short(i), want(&[(IN_CLOSE_NOWRITE, "")]));
    errno!(add(i, "f", IN_OPEN | IN_MASK_CREATE), EEXIST);
    ok!(inotify_rm_watch(i, wd));
    eq!(short(i), want(&[(IN_IGNORED, "")]));
    open();
    check!(events(i).is_empty());
    // Numbers are not used again.
    eq!(ok!(add(i, "f", IN_OPEN | IN_MASK_CREATE)), wd + 1);
    Ok(())
}

fn errors_of_add_watch() -> Outcome {
    let i = init()?;
    make("f", b"")?;
    ok!(symlink(c"f".as_ptr(), c"l".as_ptr()));
    errno!(add(i, "f", 0), EINVAL);
    errno!(add(-1, "f", 0), EINVAL);
    errno!(add(i, "f", 0x0010_0000 | IN_OPEN), EINVAL);
    errno!(add(-1, "f", IN_OPEN), EBADF);
    errno!(add(i, "f", IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE), EINVAL);
    let f = ok!(open_file("f", O_RDONLY, 0));
    errno!(add(f, "missing", IN_OPEN), EINVAL);
    errno!(add(i, "missing", IN_OPEN), ENOENT);
    errno!(add(i, "f/x", IN_OPEN), ENOTDIR);
    errno!(add(i, "f", IN_OPEN | IN_ONLYDIR), ENOTDIR);
    errno!(inotify_add_watch(i, std::ptr::null(), IN_OPEN), EFAULT);
    ok!(add(i, ".", IN_OPEN | IN_ONLYDIR));
    // A link itself, or what it leads to.
    let link = ok!(add(i, "l", IN_ATTRIB | IN_DONT_FOLLOW));
    let file = ok!(add(i, "l", IN_ATTRIB));
    check!(link != file);
    eq!(ok!(add(i, "f", IN_ATTRIB)), file);
    in_child(|| {
        make("secret", b"")?;
        ok!(chmod(c"secret".as_ptr(), 0o200));
        ok!(setresuid(4242, 4242, 4242));
        errno!(add(i, "secret", IN_OPEN), EACCES);
        Ok(())
    })
}

fn errors_of_init_and_rm() -> Outcome {
    errno!(inotify_init1(0x40), EINVAL);
    let i = ok!(inotify_init1(IN_CLOEXEC));
    eq!(ok!(fcntl(i, F_GETFD)), FD_CLOEXEC);
    eq!(ok!(fcntl(i, F_GETFL)) & (O_ACCMODE | O_NONBLOCK), O_RDONLY);
    let shown = std::fs::read_link(format!("/proc/self/fd/{i}")).map_err(|e| Stop::Fail(e.to_string()))?;
    eq!(shown.to_string_lossy().into_owned(), "anon_inode:inotify");
    errno!(inotify_rm_watch(-1, 1), EBADF);
    errno!(inotify_rm_watch(i, 1), EINVAL);
    let f = ok!(open_file(".", O_RDONLY, 0));
    errno!(inotify_rm_watch(f, 1), EINVAL);
    errno!(write(i, c"x".as_ptr().cast(), 1), EBADF);
    Ok(())
}

fn once_and_excluded() -> Outcome {
    let i = init()?;
    make("f", b"")?;
    ok!(add(i, "f", IN_OPEN | IN_CLOSE | IN_ONESHOT));
    close_fd(ok!(open_file("f", O_RDONLY, 0)));
    close_fd(ok!(open_file("f", O_RDONLY, 0)));
    eq!(short(i), want(&[(IN_OPEN, ""), (IN_IGNORED, "")]));
    // Children that have lost their names are left out, if asked.
    let wd = ok!(add(i, ".", IN_MODIFY | IN_EXCL_UNLINK));
    let f = ok!(open_file("f", O_WRONLY, 0));
    eq!(write_fd(f, b"x"), 1);
    ok!(unlink(c"f".as_ptr()));
    eq!(write_fd(f, b"x"), 1);
    eq!(short(i), want(&[(IN_MODIFY, "f")]));
    eq!(ok!(add(i, ".", IN_MODIFY)), wd);
    eq!(write_fd(f, b"x"), 1);
    eq!(short(i), want(&[(IN_MODIFY, "f")]));
    Ok(())
}

fn equal_events_merge() -> Outcome {
    let i = init()?;
    let f = ok!(open_file("f", O_WRONLY | O_CREAT, 0o600));
    ok!(add(i, "f", IN_MODIFY | IN_ATTRIB));
    for _ in 0..5 {
        write_fd(f, b"x");
    }
    ok!(fchmod(f, 0o644));
    write_fd(f, b"x");
    write_fd(f, b"x");
    eq!(short(i), want(&[(IN_MODIFY, ""), (IN_ATTRIB, ""), (IN_MODIFY, "")]));
    Ok(())
}

fn overflow_is_told() -> Outcome {
    let before = content("/proc/sys/fs/inotify/max_queued_events")?;
    make("/proc/sys/fs/inotify/max_queued_events", b"4")?;
    let i = init();
    make("/proc/sys/fs/inotify/max_queued_events", &before)?;
    let i = i?;
    ok!(add(i, ".", IN_CREATE));
    for n in 0..8 {
        touch(&format!("f{n}"))?;
    }
    let got = events(i);
    eq!(got.len(), 5);
    eq!(got[4].clone(), Ev { wd: -1, mask: IN_Q_OVERFLOW, cookie: 0, name: String::new() });
    touch("more")?;
    eq!(short(i), want(&[(IN_CREATE, "more")]));
    Ok(())
}

fn names_fit_or_einval() -> Outcome {
    let i = init()?;
    ok!(add(i, ".", IN_CREATE));
    touch("name")?;
    let long = "n".repeat(255);
    touch(&long)?;
    let mut buf = [0u8; 512];
    errno!(read(i, buf.as_mut_ptr().cast(), 31), EINVAL);
    eq!(ok!(read(i, buf.as_mut_ptr().cast(), 40)), 32);
    eq!(&buf[12..22], b"\x10\0\0\0name\0\0");
    errno!(read(i, buf.as_mut_ptr().cast(), 271), EINVAL);
    eq!(ok!(read(i, buf.as_mut_ptr().cast(), 512)), 272);
    check!(buf[16..271] == *long.as_bytes() && buf[271] == 0);
    errno!(read(i, buf.as_mut_ptr().cast(), 512), EAGAIN);
    Ok(())
}

fn ready_and_counted() -> Outcome {
    let i = init()?;
    ok!(add(i, ".", IN_CREATE | IN_DELETE));
    let mut p = pollfd { fd: i, events: POLLIN | POLLOUT, revents: 0 };
    eq!(ok!(poll(&mut p, 1, 0)), 0);
    let e = ok!(epoll_create1(0));
    let mut ev = epoll_event { events: EPOLLIN as u32, u64: 7 };
    ok!(epoll_ctl(e, EPOLL_CTL_ADD, i, &mut ev));
    let mut n = -1;
    ok!(ioctl(i, FIONREAD, &mut n));
    eq!(n, 0);
    touch("f")?;
    ok!(unlink(c"f".as_ptr()));
    eq!(ok!(poll(&mut p, 1, 0)), 1);
    eq!(p.revents, POLLIN);
    eq!(ok!(epoll_wait(e, &mut ev, 1, 0)), 1);
    ok!(ioctl(i, FIONREAD, &mut n));
    eq!(n, 64);
    eq!(events(i).len(), 2);
    eq!(ok!(poll(&mut p, 1, 0)), 0);
    Ok(())
}

fn blocks_until_told() -> Outcome {
    let i = ok!(inotify_init1(0));
    ok!(add(i, ".", IN_CREATE));
    let pid = fork_child(|| {
        std::thread::sleep(std::time::Duration::from_millis(30));
        touch("late").is_err() as i32
    });
    let mut buf = [0u8; 64];
    eq!(ok!(read(i, buf.as_mut_ptr().cast(), 64)), 32);
    eq!(&buf[16..21], b"late\0");
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn limits_of_a_user() -> Outcome {
    eq!(String::from_utf8_lossy(&content("/proc/sys/fs/inotify/max_user_instances")?).trim().to_owned(), "128");
    eq!(String::from_utf8_lossy(&content("/proc/sys/fs/inotify/max_queued_events")?).trim().to_owned(), "16384");
    let before = content("/proc/sys/fs/inotify/max_user_watches")?;
    make("/proc/sys/fs/inotify/max_user_watches", b"2")?;
    let done = in_child(|| {
        ok!(setresuid(4242, 4242, 4242));
        let i = init()?;
        let a = ok!(add(i, "/", IN_CREATE));
        ok!(add(i, "/tmp", IN_CREATE));
        errno!(add(i, "/dev", IN_CREATE), ENOSPC);
        ok!(inotify_rm_watch(i, a));
        ok!(add(i, "/dev", IN_CREATE));
        close_fd(i);
        // A close gives all of them back.
        let i = init()?;
        ok!(add(i, "/", IN_CREATE));
        ok!(add(i, "/tmp", IN_CREATE));
        Ok(())
    });
    make("/proc/sys/fs/inotify/max_user_watches", &before)?;
    done?;
    in_child(|| {
        ok!(setresuid(4243, 4243, 4243));
        for _ in 0..128 {
            init()?;
        }
        errno!(inotify_init1(0), EMFILE);
        Ok(())
    })
}

fn fdinfo_lists_watches() -> Outcome {
    let i = init()?;
    make("f", b"")?;
    ok!(add(i, "f", IN_OPEN));
    ok!(add(i, ".", IN_CREATE));
    let text = content(&format!("/proc/self/fdinfo/{i}"))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let ino = format!("ino:{:x} ", stat_of("f")?.st_ino);
    check!(text.lines().any(|l| l.starts_with("inotify wd:1 ") && l.contains(&ino) && l.contains(" mask:20 ignored_mask:0 ")));
    check!(text.lines().any(|l| l.starts_with("inotify wd:2 ") && l.contains(" mask:100 ")));
    Ok(())
}

fn unmount_ends_watches() -> Outcome {
    let i = init()?;
    ok!(mkdir(c"m".as_ptr(), 0o755));
    ok!(mount(c"none".as_ptr(), c"m".as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null()));
    make("m/f", b"")?;
    ok!(add(i, "m/f", IN_OPEN));
    // Watches do not keep it busy.
    ok!(umount(c"m".as_ptr()));
    eq!(short(i), want(&[(IN_UNMOUNT, ""), (IN_IGNORED, "")]));
    Ok(())
}

fn close_ends_watches() -> Outcome {
    make("f", b"")?;
    for _ in 0..300 {
        let i = init()?;
        ok!(add(i, "f", IN_ALL_EVENTS));
        ok!(add(i, ".", IN_ALL_EVENTS));
        close_fd(ok!(open_file("f", O_RDONLY, 0)));
        close_fd(i);
    }
    ok!(unlink(c"f".as_ptr()));
    Ok(())
}

fn exchange_and_replace() -> Outcome {
    let i = init()?;
    touch("a")?;
    touch("b")?;
    ok!(add(i, ".", IN_MOVE | IN_DELETE | IN_CREATE));
    ok!(add(i, "b", IN_ALL_EVENTS));
    ok!(rename(c"a".as_ptr(), c"b".as_ptr()));
    eq!(
        short(i),
        want(&[(IN_MOVED_FROM, "a"), (IN_MOVED_TO, "b"), (IN_ATTRIB, ""), (IN_DELETE_SELF, ""), (IN_IGNORED, "")])
    );
    touch("c")?;
    events(i);
    ok!(syscall(SYS_renameat2, AT_FDCWD, c"b".as_ptr(), AT_FDCWD, c"c".as_ptr(), RENAME_EXCHANGE));
    let got = events(i);
    eq!(
        got.iter().map(|e| (e.mask, e.name.as_str())).collect::<Vec<_>>(),
        vec![(IN_MOVED_FROM, "b"), (IN_MOVED_TO, "c"), (IN_MOVED_FROM, "c"), (IN_MOVED_TO, "b")]
    );
    check!(got[0].cookie == got[1].cookie && got[2].cookie == got[3].cookie && got[0].cookie != got[2].cookie);
    // A rename to itself is none.
    ok!(rename(c"b".as_ptr(), c"b".as_ptr()));
    check!(events(i).is_empty());
    Ok(())
}

fn programs_and_sendfile() -> Outcome {
    let i = init()?;
    make("from", b"data")?;
    make("to", b"")?;
    let (from, to) = (ok!(open_file("from", O_RDONLY, 0)), ok!(open_file("to", O_WRONLY, 0)));
    let a = ok!(add(i, "from", IN_ALL_EVENTS));
    let b = ok!(add(i, "to", IN_ALL_EVENTS));
    eq!(ok!(sendfile(to, from, std::ptr::null_mut(), 4)), 4);
    let got: Vec<_> = events(i).into_iter().map(|e| (e.wd, e.mask)).collect();
    check!(got.contains(&(a, IN_ACCESS)) && got.contains(&(b, IN_MODIFY)));
    // A program that is run is opened and closed.
    ok!(std::fs::copy("/proc/self/exe", "prog").map_or(-1, |_| 0));
    ok!(chmod(c"prog".as_ptr(), 0o755));
    ok!(add(i, "prog", IN_OPEN | IN_CLOSE));
    let ended = child(|| {
        let args = [c"prog".as_ptr(), c"-l".as_ptr(), c"no-such-case".as_ptr(), std::ptr::null()];
        // SAFETY: the vector ends with null.
        unsafe { execv(c"prog".as_ptr(), args.as_ptr()) };
        99
    });
    eq!(ended, Status::Exited(0));
    let got = short(i);
    check!(got.contains(&(IN_OPEN, String::new())) && got.contains(&(IN_CLOSE_NOWRITE, String::new())));
    Ok(())
}

fn fanotify_is_absent() -> Outcome {
    // Either it is there or it says that it is not.
    // SAFETY: no memory is involved.
    let fd = unsafe { syscall(SYS_fanotify_init, 0x4000_0000u32, 0) };
    check!(fd == -1);
    let why = std::io::Error::last_os_error().raw_os_error();
    check!(why == Some(ENOSYS) || why == Some(EINVAL));
    Ok(())
}

fn many_threads_and_watches() -> Outcome {
    // Watches come and go while their files do: no event of a wrong number, no crash.
    ok!(mkdir(c"d".as_ptr(), 0o755));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let failed = std::thread::scope(|s| {
        for n in 0..2 {
            let stop = &stop;
            s.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let name = format!("d/f{n}");
                    let _ = std::fs::write(&name, b"x");
                    let _ = std::fs::rename(&name, format!("d/g{n}"));
                    let _ = std::fs::remove_file(format!("d/g{n}"));
                }
            });
        }
        let work = || -> Outcome {
            let i = init()?;
            let mut known = std::collections::HashSet::new();
            for _ in 0..400 {
                for path in ["d", "d/f0", "d/f1", "d/g0"] {
                    let wd = add(i, path, IN_ALL_EVENTS);
                    if wd > 0 {
                        known.insert(wd);
                    }
                }
                for e in events(i) {
                    check!(e.wd == -1 || known.contains(&e.wd));
                    if e.mask & IN_IGNORED != 0 {
                        known.remove(&e.wd);
                    }
                }
            }
            Ok(())
        };
        let outcome = work();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome
    });
    failed
}
