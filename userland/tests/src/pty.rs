//! Pseudo-terminals: their names, their two ends, packet mode, hang-ups, and job control on them.

use crate::check::*;
use libc::*;

cases![pty:
    a_locked_slave_is_eio, the_name_has_owner_mode_and_number, lines_are_echoed_and_read, master_reads_eio_after_the_slave,
    closing_the_master_hangs_the_slave_up, hang_up_signals_the_leader, leaders_exit_hangs_up_the_foreground,
    packet_mode_tells_states, controlling_terminal_is_taken_and_given_up, foreground_group_rules,
    background_access_stops, keys_signal_the_foreground, window_size_signals, instances_have_their_own_numbers,
    instance_options, peer_without_a_name, full_ends_do_not_block_for_ever, exclusive_is_ebusy, vhangup_hangs_up,
    privileged_take_over, closed_numbers_return,
];

const TIOCGPTPEER: c_ulong = 0x5441;
const TIOCSIG: c_ulong = 0x4004_5436;
const TIOCGPKT: c_ulong = 0x8004_5438;
const TIOCGPTLCK: c_ulong = 0x8004_5439;

fn get(fd: i32, request: c_ulong) -> Result<i32, Stop> {
    let mut value = -7;
    ok!(ioctl(fd, request as _, &mut value));
    Ok(value)
}

fn set(fd: i32, request: c_ulong, value: i32) -> Outcome {
    ok!(ioctl(fd, request as _, &value));
    Ok(())
}

/// A master, and its slave's name.
fn new_master(flags: i32) -> Result<(i32, String), Stop> {
    let master = ok!(open_file("/dev/ptmx", O_RDWR | O_NOCTTY | flags, 0));
    let number = get(master, TIOCGPTN as c_ulong)?;
    Ok((master, format!("/dev/pts/{number}")))
}

/// Both ends open, the slave without becoming anyone's terminal.
fn new_pair() -> Result<(i32, i32), Stop> {
    let (master, name) = new_master(0)?;
    set(master, TIOCSPTLCK as c_ulong, 0)?;
    Ok((master, ok!(open_file(&name, O_RDWR | O_NOCTTY, 0))))
}

fn read_text(fd: i32) -> String {
    let mut part = [0; 4096];
    let got = read_fd(fd, &mut part);
    if got < 0 { format!("errno {}", std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { String::from_utf8_lossy(&part[..got as usize]).into_owned() }
}

/// Reads until the text has this end: what is echoed may come in pieces.
fn read_until(fd: i32, end: &str) -> String {
    let mut all = String::new();
    while !all.ends_with(end) {
        let more = read_text(fd);
        if more.is_empty() || more.starts_with("errno") {
            return all + &more;
        }
        all += &more;
    }
    all
}

fn settings(fd: i32) -> Result<termios, Stop> {
    let mut t = zero::<termios>();
    ok!(tcgetattr(fd, &mut t));
    Ok(t)
}

fn change(fd: i32, edit: impl FnOnce(&mut termios)) -> Outcome {
    let mut t = settings(fd)?;
    edit(&mut t);
    ok!(tcsetattr(fd, TCSANOW, &t));
    Ok(())
}

fn events_of(fd: i32) -> i16 {
    let mut entry = pollfd { fd, events: POLLIN | POLLOUT | POLLPRI, revents: 0 };
    unsafe { poll(&mut entry, 1, 0) };
    entry.revents
}

/// A new session whose terminal is the slave, in a child that runs `body` as the leader.
fn leader(slave: i32, master: i32, body: impl FnOnce() -> i32) -> i32 {
    fork_child(|| unsafe {
        close(master);
        if setsid() < 0 || ioctl(slave, TIOCSCTTY as _, 0) < 0 {
            return 90;
        }
        body()
    })
}

fn a_locked_slave_is_eio() -> Outcome {
    let (master, name) = new_master(0)?;
    eq!(get(master, TIOCGPTLCK)?, 1);
    errno!(open_file(&name, O_RDWR | O_NOCTTY, 0), EIO);
    set(master, TIOCSPTLCK as c_ulong, 0)?;
    eq!(get(master, TIOCGPTLCK)?, 0);
    let slave = ok!(open_file(&name, O_RDWR | O_NOCTTY, 0));
    // Only a master has these.
    let mut value = 0;
    errno!(ioctl(slave, TIOCGPTN as _, &mut value), ENOTTY);
    errno!(ioctl(slave, TIOCSPTLCK as _, &value), ENOTTY);
    errno!(ioctl(slave, TIOCGPTPEER as _, 0), EIO);
    errno!(ioctl(master, TIOCSPTLCK as _, std::ptr::null::<i32>()), EFAULT);
    Ok(())
}

fn the_name_has_owner_mode_and_number() -> Outcome {
    let (master, name) = new_master(0)?;
    let number = get(master, TIOCGPTN as c_ulong)?;
    let at = stat_of(&name)?;
    eq!(at.st_mode, S_IFCHR | 0o620);
    eq!((at.st_uid, at.st_gid), (0, 5));
    eq!((major(at.st_rdev), minor(at.st_rdev)), (136, number as u32));
    check!(std::fs::read_dir("/dev/pts").is_ok_and(|mut d| d.any(|e| e.is_ok_and(|e| e.path().to_string_lossy() == name))));
    eq!(get(master, TIOCGDEV as c_ulong)?, (136 << 8) | number);
    close_fd(master);
    errno!(open_file(&name, O_RDWR | O_NOCTTY, 0), ENOENT);
    errno!(open_file("/dev/pts/new", O_RDWR | O_CREAT, 0o600), EACCES);
    errno!(mkdir(c"/dev/pts/new".as_ptr(), 0o700), EPERM);
    errno!(unlink(c"/dev/pts/ptmx".as_ptr()), EPERM);
    Ok(())
}

fn lines_are_echoed_and_read() -> Outcome {
    let (master, slave) = new_pair()?;
    let t = settings(slave)?;
    eq!(t.c_iflag, ICRNL | IXON);
    eq!(t.c_oflag, OPOST | ONLCR);
    eq!(t.c_lflag, ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN);
    eq!(t.c_cflag, B38400 | CS8 | CREAD);
    eq!(write_fd(master, b"hello\r"), 6);
    eq!(read_text(slave), "hello\n");
    eq!(read_until(master, "\n"), "hello\r\n");
    eq!(write_fd(slave, b"a\nb"), 3);
    eq!(read_until(master, "b"), "a\r\nb");
    // Through the master the slave's settings are seen and changed.
    change(master, |t| t.c_lflag &= !(ECHO | ICANON))?;
    eq!(settings(slave)?.c_lflag & (ECHO | ICANON), 0);
    eq!(write_fd(master, b"xy"), 2);
    eq!(read_text(slave), "xy");
    ok!(write_fd(slave, b"12345"));
    eq!(get(master, FIONREAD as c_ulong)?, 5);
    eq!(get(slave, TIOCOUTQ as c_ulong)?, 0);
    eq!(get(slave, FIONREAD as c_ulong)?, 0);
    errno!(lseek(master, 0, SEEK_SET), ESPIPE);
    check!(unsafe { isatty(master) } == 1);
    Ok(())
}

fn master_reads_eio_after_the_slave() -> Outcome {
    let (master, slave) = new_pair()?;
    eq!(events_of(master), POLLOUT);
    ok!(write_fd(slave, b"bye"));
    close_fd(slave);
    eq!(events_of(master), POLLIN | POLLOUT | POLLHUP);
    eq!(read_text(master), "bye");
    eq!(read_text(master), format!("errno {EIO}"));
    eq!(events_of(master), POLLOUT | POLLHUP);
    // What is typed now waits for the next opener.
    eq!(write_fd(master, b"later\n"), 6);
    let name = format!("/dev/pts/{}", get(master, TIOCGPTN as c_ulong)?);
    let slave = ok!(open_file(&name, O_RDWR | O_NOCTTY, 0));
    eq!(read_text(slave), "later\n");
    Ok(())
}

fn closing_the_master_hangs_the_slave_up() -> Outcome {
    let (master, slave) = new_pair()?;
    close_fd(master);
    eq!(read_text(slave), "");
    errno!(write_fd(slave, b"x"), EIO);
    eq!(events_of(slave), POLLIN | POLLOUT | POLLHUP | POLLERR);
    let mut t = zero::<termios>();
    errno!(tcgetattr(slave, &mut t), EIO);
    // A read that waits ends with an error.
    let (master, slave) = new_pair()?;
    let pid = fork_child(|| {
        close_fd(master);
        let got = read_fd(slave, &mut [0; 8]);
        (got != -1 || std::io::Error::last_os_error().raw_os_error() != Some(EIO)) as i32
    });
    ok!(usleep(20_000));
    close_fd(master);
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn hang_up_signals_the_leader() -> Outcome {
    let (master, slave) = new_pair()?;
    let (ready, tell) = new_pipe(0)?;
    let pid = leader(slave, master, || {
        write_fd(tell, b"r");
        loop {
            unsafe { pause() };
        }
    });
    eq!(read_fd(ready, &mut [0; 1]), 1);
    close_fd(slave);
    close_fd(master);
    eq!(wait_for(pid), Status::Killed(SIGHUP));
    Ok(())
}

fn leaders_exit_hangs_up_the_foreground() -> Outcome {
    let (master, slave) = new_pair()?;
    let (ended, end) = new_pipe(0)?;
    let pid = leader(slave, master, || {
        let member = fork_child(|| {
            close_fd(ended);
            loop {
                unsafe { pause() };
            }
        });
        unsafe { setpgid(member, member) };
        set_disposition(SIGTTOU, SIG_IGN);
        unsafe { tcsetpgrp(slave, member) }
    });
    close_fd(end);
    eq!(wait_for(pid), Status::Exited(0));
    // The member's copy of the writing end closes when SIGHUP has killed it.
    eq!(read_fd(ended, &mut [0; 1]), 0);
    // A leader that ends does not hang a pseudo-terminal up: the slave lives.
    eq!(write_fd(slave, b"alive"), 5);
    eq!(read_until(master, "alive"), "alive");
    Ok(())
}

fn packet_mode_tells_states() -> Outcome {
    let (master, slave) = new_pair()?;
    set(master, TIOCPKT as c_ulong, 1)?;
    eq!(get(master, TIOCGPKT)?, 1);
    ok!(write_fd(slave, b"ab"));
    eq!(read_text(master), "\0ab");
    ok!(tcflow(slave, TCOOFF));
    eq!(events_of(master) & (POLLPRI | POLLIN), POLLPRI | POLLIN);
    eq!(read_text(master), "\x04");
    ok!(tcflow(slave, TCOON));
    eq!(read_text(master), "\x08");
    change(slave, |t| t.c_iflag &= !IXON)?;
    eq!(read_text(master), "\x10");
    change(slave, |t| t.c_iflag |= IXON)?;
    eq!(read_text(master), "\x20");
    ok!(tcflush(slave, TCIFLUSH));
    eq!(read_text(master), "\x01");
    ok!(tcflush(slave, TCOFLUSH));
    eq!(read_text(master), "\x02");
    set(master, TIOCPKT as c_ulong, 0)?;
    ok!(write_fd(slave, b"c"));
    eq!(read_text(master), "c");
    Ok(())
}

fn controlling_terminal_is_taken_and_given_up() -> Outcome {
    let (master, slave) = new_pair()?;
    let name = format!("/dev/pts/{}", get(master, TIOCGPTN as c_ulong)?);
    errno!(ioctl(slave, TIOCNOTTY as _, 0), ENOTTY);
    let mut group = 0;
    errno!(ioctl(slave, TIOCGPGRP as _, &mut group), ENOTTY);
    errno!(ioctl(slave, TIOCGSID as _, &mut group), ENOTTY);
    // The master tells what the slave has: nothing yet.
    eq!(get(master, TIOCGPGRP as c_ulong)?, 0);
    errno!(ioctl(master, TIOCGSID as _, &mut group), ENOTTY);
    in_child(|| {
        let me = ok!(setsid());
        errno!(open_file("/dev/tty", O_RDWR, 0), ENXIO);
        // The open of a terminal without O_NOCTTY takes it.
        let again = ok!(open_file(&name, O_RDWR, 0));
        eq!(get(again, TIOCGSID as c_ulong)?, me);
        eq!(get(master, TIOCGSID as c_ulong)?, me);
        eq!(get(master, TIOCGPGRP as c_ulong)?, me);
        let tty = ok!(open_file("/dev/tty", O_RDWR, 0));
        eq!(write_fd(tty, b"via tty"), 7);
        eq!(read_until(master, "tty"), "via tty");
        // Another terminal cannot be taken as well.
        let (_, other) = new_pair()?;
        errno!(ioctl(other, TIOCSCTTY as _, 0), EPERM);
        set_disposition(SIGHUP, SIG_IGN);
        ok!(ioctl(again, TIOCNOTTY as _, 0));
        errno!(open_file("/dev/tty", O_RDWR, 0), ENXIO);
        errno!(ioctl(again, TIOCGSID as _, &mut group), ENOTTY);
        ok!(ioctl(other, TIOCSCTTY as _, 0));
        // Nobody but a leader takes one.
        in_child(|| {
            errno!(ioctl(again, TIOCSCTTY as _, 0), EPERM);
            Ok(())
        })
    })
}

fn foreground_group_rules() -> Outcome {
    let (master, slave) = new_pair()?;
    in_child(|| {
        let me = ok!(setsid());
        ok!(ioctl(slave, TIOCSCTTY as _, 0));
        let member = fork_child(|| loop {
            unsafe { pause() };
        });
        ok!(setpgid(member, member));
        ok!(tcsetpgrp(slave, member));
        eq!(ok!(tcgetpgrp(slave)), member);
        eq!(get(master, TIOCGPGRP as c_ulong)?, member);
        // Now in the background: SIGTTOU would stop this process, unless it is ignored.
        set_disposition(SIGTTOU, SIG_IGN);
        errno!(tcsetpgrp(slave, 99999), ESRCH);
        let mut group = -1;
        errno!(ioctl(slave, TIOCSPGRP as _, &mut group), EINVAL);
        errno!(tcsetpgrp(slave, getppid()), EPERM);
        ok!(tcsetpgrp(slave, me));
        eq!(ok!(tcgetpgrp(slave)), me);
        ok!(kill(member, SIGKILL));
        wait_for(member);
        Ok(())
    })
}

fn background_access_stops() -> Outcome {
    let (master, slave) = new_pair()?;
    in_child(|| {
        let me = ok!(setsid());
        ok!(ioctl(slave, TIOCSCTTY as _, 0));
        ok!(write_fd(master, b"line\n"));
        let start = |body: &dyn Fn() -> i32| {
            let pid = fork_child(|| {
                unsafe { setpgid(0, 0) };
                body()
            });
            unsafe { setpgid(pid, pid) };
            pid
        };
        let reader = start(&|| (read_fd(slave, &mut [0; 8]) != 5) as i32);
        eq!(wait_flags(reader, WUNTRACED), Status::Stopped(SIGTTIN));
        set_disposition(SIGTTOU, SIG_IGN);
        ok!(tcsetpgrp(slave, reader));
        ok!(kill(-reader, SIGCONT));
        eq!(wait_flags(reader, WUNTRACED), Status::Exited(0));
        ok!(tcsetpgrp(slave, me));
        set_disposition(SIGTTOU, SIG_DFL);
        // Writes are free without TOSTOP.
        let writer = start(&|| (write_fd(slave, b"w") != 1) as i32);
        eq!(wait_flags(writer, WUNTRACED), Status::Exited(0));
        change(slave, |t| t.c_lflag |= TOSTOP)?;
        let writer = start(&|| (write_fd(slave, b"w") != 1) as i32);
        eq!(wait_flags(writer, WUNTRACED), Status::Stopped(SIGTTOU));
        ok!(kill(writer, SIGKILL));
        eq!(wait_flags(writer, 0), Status::Killed(SIGKILL));
        let setter = start(&|| unsafe { tcsetpgrp(slave, getpgrp()) });
        eq!(wait_flags(setter, WUNTRACED), Status::Stopped(SIGTTOU));
        ok!(kill(setter, SIGKILL));
        eq!(wait_flags(setter, 0), Status::Killed(SIGKILL));
        // Who ignores SIGTTIN cannot be stopped: EIO.
        let ignorer = start(&|| {
            set_disposition(SIGTTIN, SIG_IGN);
            let got = read_fd(slave, &mut [0; 8]);
            (got != -1 || std::io::Error::last_os_error().raw_os_error() != Some(EIO)) as i32
        });
        eq!(wait_flags(ignorer, WUNTRACED), Status::Exited(0));
        Ok(())
    })
}

fn keys_signal_the_foreground() -> Outcome {
    let (master, slave) = new_pair()?;
    in_child(|| {
        ok!(setsid());
        ok!(ioctl(slave, TIOCSCTTY as _, 0));
        set_disposition(SIGTTOU, SIG_IGN);
        for (key, end) in [(b"\x03", Status::Killed(SIGINT)), (b"\x1a", Status::Stopped(SIGTSTP))] {
            let pid = fork_child(|| {
                set_disposition(SIGTTOU, SIG_DFL);
                loop {
                    unsafe { pause() };
                }
            });
            ok!(setpgid(pid, pid));
            ok!(tcsetpgrp(slave, pid));
            eq!(write_fd(master, key), 1);
            eq!(wait_flags(pid, WUNTRACED), end);
            unsafe { kill(pid, SIGKILL) };
            wait_for(pid);
        }
        let pid = fork_child(|| loop {
            unsafe { pause() };
        });
        ok!(setpgid(pid, pid));
        ok!(tcsetpgrp(slave, pid));
        errno!(ioctl(master, TIOCSIG as _, SIGTERM), EINVAL);
        ok!(ioctl(master, TIOCSIG as _, SIGQUIT));
        eq!(wait_for(pid), Status::Killed(SIGQUIT));
        Ok(())
    })
}

fn window_size_signals() -> Outcome {
    let (master, slave) = new_pair()?;
    let mut size = zero::<winsize>();
    ok!(ioctl(slave, TIOCGWINSZ as _, &mut size));
    eq!((size.ws_row, size.ws_col), (0, 0));
    in_child(|| {
        ok!(setsid());
        ok!(ioctl(slave, TIOCSCTTY as _, 0));
        let mut set = zero::<sigset_t>();
        ok!(sigemptyset(&mut set));
        ok!(sigaddset(&mut set, SIGWINCH));
        ok!(sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut()));
        // A signal that is ignored by default is kept only while it is blocked.
        let mut size = zero::<winsize>();
        (size.ws_row, size.ws_col) = (25, 80);
        ok!(ioctl(master, TIOCSWINSZ as _, &size));
        let mut pending = zero::<sigset_t>();
        ok!(sigpending(&mut pending));
        eq!(ok!(sigismember(&pending, SIGWINCH)), 1);
        let mut now = zero::<winsize>();
        ok!(ioctl(slave, TIOCGWINSZ as _, &mut now));
        eq!((now.ws_row, now.ws_col), (25, 80));
        Ok(())
    })
}

fn mount_devpts(at: &str, options: &str) -> i32 {
    let (at, options) = (c(at), c(options));
    unsafe { mount(c"devpts".as_ptr(), at.as_ptr(), c"devpts".as_ptr(), 0, options.as_ptr().cast()) }
}

fn instances_have_their_own_numbers() -> Outcome {
    std::fs::create_dir_all("one").ok();
    ok!(mount_devpts("one", "ptmxmode=600"));
    let done = in_child(|| {
        let first = ok!(open_file("one/ptmx", O_RDWR | O_NOCTTY, 0));
        let second = ok!(open_file("one/ptmx", O_RDWR | O_NOCTTY, 0));
        eq!((get(first, TIOCGPTN as c_ulong)?, get(second, TIOCGPTN as c_ulong)?), (0, 1));
        eq!(stat_of("one/0")?.st_mode, S_IFCHR | 0o600);
        close_fd(first);
        errno!(open_file("one/0", O_RDWR | O_NOCTTY, 0), ENOENT);
        let third = ok!(open_file("one/ptmx", O_RDWR | O_NOCTTY, 0));
        eq!(get(third, TIOCGPTN as c_ulong)?, 0);
        // A ptmx outside uses what is mounted on pts beside it; a slave's node elsewhere leads nowhere.
        std::fs::create_dir_all("dev/pts").ok();
        ok!(mknod(c"dev/ptmx".as_ptr(), S_IFCHR | 0o666, makedev(5, 2)));
        errno!(open_file("dev/ptmx", O_RDWR | O_NOCTTY, 0), ENODEV);
        ok!(mknod(c"dev/slave".as_ptr(), S_IFCHR | 0o666, makedev(136, 0)));
        errno!(open_file("dev/slave", O_RDWR | O_NOCTTY, 0), EIO);
        ok!(rmdir(c"dev/pts".as_ptr()));
        errno!(open_file("dev/ptmx", O_RDWR | O_NOCTTY, 0), ENOENT);
        Ok(())
    });
    ok!(umount(c"one".as_ptr()));
    done
}

fn instance_options() -> Outcome {
    std::fs::create_dir_all("two").ok();
    errno!(mount_devpts("two", "max=-1"), EINVAL);
    errno!(mount_devpts("two", "nonsense"), EINVAL);
    ok!(mount_devpts("two", "newinstance,uid=7,gid=8,mode=640,ptmxmode=666,max=1"));
    let done = in_child(|| {
        let mounts = String::from_utf8_lossy(&content("/proc/self/mounts")?).into_owned();
        check!(mounts.contains("/two devpts rw,relatime,uid=7,gid=8,mode=640,ptmxmode=666,max=1 0 0"));
        let master = ok!(open_file("two/ptmx", O_RDWR | O_NOCTTY, 0));
        let at = stat_of("two/0")?;
        eq!((at.st_uid, at.st_gid, at.st_mode & 0o777), (7, 8, 0o640));
        errno!(open_file("two/ptmx", O_RDWR | O_NOCTTY, 0), ENOSPC);
        close_fd(master);
        ok!(mount(std::ptr::null(), c"two".as_ptr(), std::ptr::null(), MS_REMOUNT, c"ptmxmode=600".as_ptr().cast()));
        eq!(stat_of("two/ptmx")?.st_mode, S_IFCHR | 0o600);
        let master = ok!(open_file("two/ptmx", O_RDWR | O_NOCTTY, 0));
        let at = stat_of("two/0")?;
        eq!((at.st_uid, at.st_gid, at.st_mode & 0o777), (0, 0, 0o600));
        close_fd(master);
        Ok(())
    });
    ok!(umount(c"two".as_ptr()));
    done
}

fn peer_without_a_name() -> Outcome {
    let (master, _) = new_master(0)?;
    errno!(ioctl(master, TIOCGPTPEER as _, O_RDWR | O_NOCTTY), EIO);
    set(master, TIOCSPTLCK as c_ulong, 0)?;
    let slave = ok!(ioctl(master, TIOCGPTPEER as _, O_RDWR | O_NOCTTY | O_CLOEXEC));
    eq!(ok!(fcntl(slave, F_GETFD)), FD_CLOEXEC);
    ok!(write_fd(slave, b"peer"));
    eq!(read_until(master, "peer"), "peer");
    let name = format!("/dev/pts/{}", get(master, TIOCGPTN as c_ulong)?);
    check!(std::fs::read_link(format!("/proc/self/fd/{slave}")).is_ok_and(|at| at.to_string_lossy() == name));
    Ok(())
}

fn full_ends_do_not_block_for_ever() -> Outcome {
    let (master, slave) = new_pair()?;
    change(slave, |t| unsafe { cfmakeraw(t) })?;
    for fd in [master, slave] {
        ok!(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK));
    }
    errno!(read_fd(master, &mut [0; 8]), EAGAIN);
    errno!(read_fd(slave, &mut [0; 8]), EAGAIN);
    for (from, to) in [(master, slave), (slave, master)] {
        let mut written = 0;
        // What is passed on in the background may make room once more.
        let mut refusals = 0;
        while refusals < 20 {
            let n = write_fd(from, &[b'x'; 1000]);
            if n > 0 {
                written += n as usize;
            } else {
                eq!(std::io::Error::last_os_error().raw_os_error(), Some(EAGAIN));
                refusals += 1;
                ok!(usleep(1000));
            }
        }
        check!(written >= 4096);
        eq!(events_of(from) & POLLOUT, 0);
        let mut got = 0;
        let mut refusals = 0;
        while got < written && refusals < 1000 {
            let n = read_fd(to, &mut [0; 700]);
            if n > 0 {
                got += n as usize;
            } else {
                refusals += 1;
                ok!(usleep(1000));
            }
        }
        eq!(got, written);
    }
    ok!(write_fd(master, b"typed"));
    ok!(write_fd(slave, b"shown"));
    ok!(usleep(10_000));
    ok!(tcflush(slave, TCIFLUSH));
    errno!(read_fd(slave, &mut [0; 8]), EAGAIN);
    ok!(tcflush(master, TCIFLUSH));
    errno!(read_fd(master, &mut [0; 8]), EAGAIN);
    errno!(ioctl(slave, TCFLSH as _, 9), EINVAL);
    Ok(())
}

fn exclusive_is_ebusy() -> Outcome {
    let (master, slave) = new_pair()?;
    let name = format!("/dev/pts/{}", get(master, TIOCGPTN as c_ulong)?);
    let path = c(&name);
    ok!(chmod(path.as_ptr(), 0o666));
    ok!(ioctl(slave, TIOCEXCL as _, 0));
    close_fd(ok!(open_file(&name, O_RDWR | O_NOCTTY, 0)));
    in_child(|| {
        ok!(setresuid(1000, 1000, 1000));
        errno!(open_file(&name, O_RDWR | O_NOCTTY, 0), EBUSY);
        ok!(ioctl(slave, TIOCNXCL as _, 0));
        ok!(open_file(&name, O_RDWR | O_NOCTTY, 0));
        Ok(())
    })
}

fn vhangup_hangs_up() -> Outcome {
    let (master, slave) = new_pair()?;
    in_child(|| {
        ok!(setsid());
        ok!(ioctl(slave, TIOCSCTTY as _, 0));
        set_disposition(SIGHUP, SIG_IGN);
        ok!(syscall(SYS_vhangup));
        eq!(read_text(slave), "");
        errno!(write_fd(slave, b"x"), EIO);
        errno!(open_file("/dev/tty", O_RDWR, 0), ENXIO);
        ok!(setresuid(1000, 1000, 1000));
        errno!(syscall(SYS_vhangup), EPERM);
        Ok(())
    })?;
    // The slave can be opened again.
    let name = format!("/dev/pts/{}", get(master, TIOCGPTN as c_ulong)?);
    let again = ok!(open_file(&name, O_RDWR | O_NOCTTY, 0));
    eq!(write_fd(again, b"new"), 3);
    Ok(())
}

fn privileged_take_over() -> Outcome {
    let (master, slave) = new_pair()?;
    let (ready, tell) = new_pipe(0)?;
    let (gate, open_gate) = new_pipe(0)?;
    let pid = leader(slave, master, || {
        write_fd(tell, b"r");
        let mut byte = [0; 1];
        read_fd(gate, &mut byte);
        // It was taken away.
        let fd = open_file("/dev/tty", O_RDWR, 0);
        (fd >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(ENXIO)) as i32
    });
    eq!(read_fd(ready, &mut [0; 1]), 1);
    in_child(|| {
        let me = ok!(setsid());
        errno!(ioctl(slave, TIOCSCTTY as _, 0), EPERM);
        ok!(ioctl(slave, TIOCSCTTY as _, 1));
        eq!(get(slave, TIOCGSID as c_ulong)?, me);
        write_fd(open_gate, b"g");
        eq!(read_fd(ready, &mut [0; 0]), 0);
        Ok(())
    })?;
    eq!(wait_for(pid), Status::Exited(0));
    Ok(())
}

fn closed_numbers_return() -> Outcome {
    // A number is not given out again while the slave is open.
    let (master, slave) = new_pair()?;
    let number = get(master, TIOCGPTN as c_ulong)?;
    close_fd(master);
    let (other, _) = new_master(0)?;
    check!(get(other, TIOCGPTN as c_ulong)? != number);
    close_fd(slave);
    let used: i32 = String::from_utf8_lossy(&content("/proc/sys/kernel/pty/nr")?).trim().parse().unwrap_or(-1);
    check!(used >= 1);
    Ok(())
}
