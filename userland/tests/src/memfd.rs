//! Files in memory without a name, and seals.

use crate::check::*;
use libc::*;

cases![memfd:
    is_a_file_that_was_deleted, names_and_flags_have_limits, reads_writes_and_maps, opens_again_and_lives_on,
    seals_need_permission, get_and_add_seals_check_their_file, shrink_and_grow, write_seal_stops_writes,
    write_seal_waits_for_shared_mappings, sealed_files_map_privately, future_write_keeps_old_mappings,
    runs_by_descriptor, holes_are_found, fallocate_reserves_without_data,
    other_files_have_one_seal_or_none,
];

fn memfd(flags: u32) -> Result<i32, Stop> {
    Ok(ok!(memfd_create(c"name".as_ptr(), flags)))
}

fn sealable() -> Result<i32, Stop> {
    memfd(MFD_ALLOW_SEALING)
}

fn add(fd: i32, seals: i32) -> i32 {
    // SAFETY: no memory is involved.
    unsafe { fcntl(fd, F_ADD_SEALS, seals) }
}

fn get(fd: i32) -> i32 {
    // SAFETY: no memory is involved.
    unsafe { fcntl(fd, F_GET_SEALS) }
}

fn stat_fd(fd: i32) -> Result<stat, Stop> {
    let mut out = zero::<stat>();
    ok!(fstat(fd, &mut out));
    Ok(out)
}

fn is_a_file_that_was_deleted() -> Outcome {
    let fd = memfd(MFD_CLOEXEC)?;
    eq!(ok!(fcntl(fd, F_GETFD)), FD_CLOEXEC);
    eq!(ok!(fcntl(fd, F_GETFL)) & O_ACCMODE, O_RDWR);
    let shown = std::fs::read_link(format!("/proc/self/fd/{fd}")).map_err(|e| Stop::Fail(e.to_string()))?;
    eq!(shown.to_string_lossy().into_owned(), "/memfd:name (deleted)");
    let s = stat_fd(fd)?;
    eq!((s.st_mode, s.st_nlink, s.st_size, s.st_blocks), (S_IFREG | 0o777, 0, 0, 0));
    let mut fs = zero::<statfs>();
    ok!(fstatfs(fd, &mut fs));
    eq!(fs.f_type as i64, 0x0102_1994);
    let plain = memfd(0)?;
    eq!(ok!(fcntl(plain, F_GETFD)), 0);
    check!(stat_fd(plain)?.st_ino != s.st_ino);
    // Its name shows in a map, too.
    ok!(ftruncate(fd, PAGE as i64));
    let at = map_with(PAGE, PROT_READ, MAP_SHARED, fd);
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| Stop::Fail(e.to_string()))?;
    check!(maps.lines().any(|l| l.starts_with(&format!("{:x}-", at as usize)) && l.ends_with("/memfd:name (deleted)")));
    Ok(())
}

fn names_and_flags_have_limits() -> Outcome {
    ok!(memfd_create(c"".as_ptr(), 0));
    ok!(memfd_create(c(&"n".repeat(249)).as_ptr(), 0));
    errno!(memfd_create(c(&"n".repeat(250)).as_ptr(), 0), EINVAL);
    errno!(memfd_create(c"a".as_ptr(), 0x100), EINVAL);
    errno!(memfd_create(std::ptr::null(), 0x100), EINVAL);
    errno!(memfd_create(std::ptr::null(), 0), EFAULT);
    // A huge page's size without MFD_HUGETLB is an unknown flag.
    errno!(memfd_create(c"a".as_ptr(), 16 << 26), EINVAL);
    Ok(())
}

fn reads_writes_and_maps() -> Outcome {
    let fd = memfd(0)?;
    eq!(write_fd(fd, b"hello"), 5);
    ok!(ftruncate(fd, 3 * PAGE as i64));
    let at = map_with(3 * PAGE, RW, MAP_SHARED, fd);
    // SAFETY: the mapping is ours.
    unsafe {
        eq!(*at, b'h');
        *at.add(2 * PAGE) = 7;
    }
    let mut b = [0u8; 1];
    eq!(ok!(pread(fd, b.as_mut_ptr().cast(), 1, 2 * PAGE as i64)), 1);
    eq!(b[0], 7);
    // Through the same file by another mapping, and in a child.
    eq!(child(|| unsafe { *at.add(PAGE) = 9; 0 }), Status::Exited(0));
    eq!(unsafe { *at.add(PAGE) }, 9);
    ok!(lseek(fd, 0, SEEK_SET));
    eq!(stat_fd(fd)?.st_blocks, 24);
    Ok(())
}

fn opens_again_and_lives_on() -> Outcome {
    let fd = memfd(0)?;
    eq!(write_fd(fd, b"text"), 4);
    let again = ok!(open_file(&format!("/proc/self/fd/{fd}"), O_RDONLY, 0));
    close_fd(fd);
    let mut b = [0; 8];
    eq!(read_fd(again, &mut b), 4);
    eq!(&b[..4], b"text");
    let mapped = map_with(PAGE, PROT_READ, MAP_SHARED, again);
    close_fd(again);
    eq!(unsafe { *mapped.add(3) }, b't');
    Ok(())
}

fn seals_need_permission() -> Outcome {
    let fd = memfd(0)?;
    eq!(get(fd), F_SEAL_SEAL);
    errno!(add(fd, F_SEAL_GROW), EPERM);
    let fd = sealable()?;
    eq!(get(fd), 0);
    ok!(add(fd, F_SEAL_GROW));
    ok!(add(fd, F_SEAL_SHRINK));
    eq!(get(fd), F_SEAL_GROW | F_SEAL_SHRINK);
    ok!(add(fd, 0));
    ok!(add(fd, F_SEAL_SEAL));
    errno!(add(fd, F_SEAL_WRITE), EPERM);
    eq!(get(fd), F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    // One file, whatever it was opened by.
    let again = ok!(open_file(&format!("/proc/self/fd/{fd}"), O_RDWR, 0));
    eq!(get(again), F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    Ok(())
}

fn get_and_add_seals_check_their_file() -> Outcome {
    let fd = sealable()?;
    let reader = ok!(open_file(&format!("/proc/self/fd/{fd}"), O_RDONLY, 0));
    eq!(get(reader), 0);
    errno!(add(reader, F_SEAL_GROW), EPERM);
    errno!(add(reader, 0x100), EPERM);
    errno!(add(fd, 0x100), EINVAL);
    errno!(add(fd, -1), EINVAL);
    // Bits above 31 are not cut off.
    errno!(syscall(SYS_fcntl, fd, F_ADD_SEALS, 1i64 << 32), EINVAL);
    let (_r, w) = new_pipe(0)?;
    errno!(get(w), EINVAL);
    errno!(add(w, F_SEAL_GROW), EINVAL);
    Ok(())
}

fn shrink_and_grow() -> Outcome {
    let fd = sealable()?;
    eq!(write_fd(fd, &[1; 5000]), 5000);
    ok!(add(fd, F_SEAL_SHRINK));
    errno!(ftruncate(fd, 4999), EPERM);
    errno!(open_file(&format!("/proc/self/fd/{fd}"), O_RDWR | O_TRUNC, 0), EPERM);
    ok!(ftruncate(fd, 6000));
    ok!(add(fd, F_SEAL_GROW));
    errno!(ftruncate(fd, 6001), EPERM);
    ok!(ftruncate(fd, 6000));
    errno!(fallocate(fd, 0, 0, 6001), EPERM);
    errno!(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 6001), EPERM);
    ok!(fallocate(fd, 0, 0, 6000));
    ok!(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    // A write is cut where the file would grow, by pages.
    let data = [2u8; 8192];
    eq!(ok!(pwrite(fd, data.as_ptr().cast(), 6000, 0)), 6000);
    eq!(ok!(pwrite(fd, data.as_ptr().cast(), 6001, 0)), 4096);
    errno!(pwrite(fd, data.as_ptr().cast(), 1, 6000), EPERM);
    errno!(pwrite(fd, data.as_ptr().cast(), 1905, 4096), EPERM);
    eq!(ok!(pwrite(fd, data.as_ptr().cast(), 1904, 4096)), 1904);
    eq!(stat_fd(fd)?.st_size, 6000);
    Ok(())
}

fn write_seal_stops_writes() -> Outcome {
    let fd = sealable()?;
    eq!(write_fd(fd, b"fixed"), 5);
    ok!(add(fd, F_SEAL_WRITE));
    errno!(pwrite(fd, c"x".as_ptr().cast(), 1, 0), EPERM);
    eq!(ok!(write(fd, c"x".as_ptr().cast(), 0)), 0);
    errno!(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), EPERM);
    // The size is another matter.
    ok!(ftruncate(fd, 3));
    ok!(ftruncate(fd, 10));
    errno!(pwrite(fd, c"x".as_ptr().cast(), 1, 0), EPERM);
    let mut b = [0; 3];
    eq!(ok!(pread(fd, b.as_mut_ptr().cast(), 3, 0)), 3);
    eq!(&b, b"fix");
    Ok(())
}

fn write_seal_waits_for_shared_mappings() -> Outcome {
    let fd = sealable()?;
    ok!(ftruncate(fd, 2 * PAGE as i64));
    let at = map_with(2 * PAGE, RW, MAP_SHARED, fd);
    errno!(add(fd, F_SEAL_WRITE), EBUSY);
    eq!(get(fd), 0);
    // Also when the mapping may not be written now: it could be made writable.
    ok!(mprotect(at.cast(), 2 * PAGE, PROT_READ));
    errno!(add(fd, F_SEAL_WRITE), EBUSY);
    eq!(unmap(at, PAGE), 0);
    errno!(add(fd, F_SEAL_WRITE), EBUSY);
    eq!(unmap(at.wrapping_add(PAGE), PAGE), 0);
    // A child's mapping counts, too.
    let at = map_with(PAGE, RW, MAP_SHARED, fd);
    let pid = idle_child(|| ())?;
    eq!(unmap(at, PAGE), 0);
    errno!(add(fd, F_SEAL_WRITE), EBUSY);
    ok!(kill(pid, SIGKILL));
    wait_for(pid);
    // One that can never be written to does not.
    let reader = ok!(open_file(&format!("/proc/self/fd/{fd}"), O_RDONLY, 0));
    check!(map_with(PAGE, PROT_READ, MAP_SHARED, reader) as isize != -1);
    check!(map_with(PAGE, RW, MAP_PRIVATE, fd) as isize != -1);
    ok!(add(fd, F_SEAL_WRITE));
    eq!(get(fd), F_SEAL_WRITE);
    Ok(())
}

fn sealed_files_map_privately() -> Outcome {
    let fd = sealable()?;
    eq!(write_fd(fd, b"fixed"), 5);
    ok!(add(fd, F_SEAL_WRITE));
    errno!(map_with(PAGE, RW, MAP_SHARED, fd) as isize, EPERM);
    let own = map_with(PAGE, RW, MAP_PRIVATE, fd);
    check!(own as isize != -1);
    unsafe { *own = b'X' };
    let mut b = [0; 1];
    eq!(ok!(pread(fd, b.as_mut_ptr().cast(), 1, 0)), 1);
    eq!(&b, b"f");
    let reader = ok!(open_file(&format!("/proc/self/fd/{fd}"), O_RDONLY, 0));
    let seen = map_with(PAGE, PROT_READ, MAP_SHARED, reader);
    eq!(unsafe { *seen }, b'f');
    errno!(mprotect(seen.cast(), PAGE, RW), EACCES);
    Ok(())
}

fn future_write_keeps_old_mappings() -> Outcome {
    let fd = sealable()?;
    ok!(ftruncate(fd, PAGE as i64));
    let old = map_with(PAGE, RW, MAP_SHARED, fd);
    ok!(add(fd, F_SEAL_FUTURE_WRITE));
    unsafe { *old = 5 };
    let mut b = [0u8; 1];
    eq!(ok!(pread(fd, b.as_mut_ptr().cast(), 1, 0)), 1);
    eq!(b[0], 5);
    errno!(pwrite(fd, c"x".as_ptr().cast(), 1, 0), EPERM);
    errno!(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), EPERM);
    errno!(map_with(PAGE, RW, MAP_SHARED, fd) as isize, EPERM);
    let new = map_with(PAGE, PROT_READ, MAP_SHARED, fd);
    eq!(unsafe { *new }, 5);
    errno!(mprotect(new.cast(), PAGE, RW), EACCES);
    check!(map_with(PAGE, RW, MAP_PRIVATE, fd) as isize != -1);
    errno!(add(fd, F_SEAL_WRITE), EBUSY);
    Ok(())
}

fn runs_by_descriptor() -> Outcome {
    let program = std::fs::read("/proc/self/exe").map_err(|e| Stop::Fail(e.to_string()))?;
    let fd = memfd(MFD_ALLOW_SEALING | MFD_CLOEXEC)?;
    let mut done = 0;
    while done < program.len() {
        let n = write_fd(fd, &program[done..]);
        check!(n > 0);
        done += n as usize;
    }
    ok!(add(fd, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| {
        let args = [c"tests".as_ptr(), c"-l".as_ptr(), c"memfd::runs_by".as_ptr(), std::ptr::null()];
        let env = [std::ptr::null::<c_char>()];
        // SAFETY: the vectors end with null.
        unsafe {
            dup2(writer, 1);
            close(reader);
            close(writer);
            syscall(SYS_execveat, fd, c"".as_ptr(), args.as_ptr(), env.as_ptr(), AT_EMPTY_PATH);
        }
        99
    });
    close_fd(writer);
    eq!(String::from_utf8_lossy(&read_to_end(reader)).into_owned(), "memfd::runs_by_descriptor\n");
    eq!(wait_for(pid), Status::Exited(0));
    // While a descriptor that was opened by name can write to it, it does not run.
    let own = memfd(0)?;
    eq!(write_fd(own, &program[..4096]), 4096);
    let _writer = ok!(open_file(&format!("/proc/self/fd/{own}"), O_WRONLY, 0));
    errno!(syscall(SYS_execveat, own, c"".as_ptr(), std::ptr::null::<c_char>(), std::ptr::null::<c_char>(), AT_EMPTY_PATH), ETXTBSY);
    Ok(())
}

fn holes_are_found() -> Outcome {
    let fd = memfd(0)?;
    let page = PAGE as i64;
    ok!(ftruncate(fd, 10 * page));
    errno!(lseek(fd, 0, SEEK_DATA), ENXIO);
    eq!(ok!(lseek(fd, 5, SEEK_HOLE)), 5);
    eq!(ok!(pwrite(fd, c"x".as_ptr().cast(), 1, 3 * page + 100)), 1);
    eq!(ok!(lseek(fd, 0, SEEK_DATA)), 3 * page);
    eq!(ok!(lseek(fd, 3 * page + 7, SEEK_DATA)), 3 * page + 7);
    eq!(ok!(lseek(fd, 3 * page + 7, SEEK_HOLE)), 4 * page);
    eq!(ok!(lseek(fd, 0, SEEK_HOLE)), 0);
    errno!(lseek(fd, 4 * page, SEEK_DATA), ENXIO);
    errno!(lseek(fd, 10 * page, SEEK_HOLE), ENXIO);
    errno!(lseek(fd, -1, SEEK_DATA), ENXIO);
    // The end is a hole.
    eq!(ok!(pwrite(fd, c"x".as_ptr().cast(), 1, 10 * page + 1)), 1);
    eq!(ok!(lseek(fd, 10 * page, SEEK_HOLE)), 10 * page + 2);
    // Reading a hole gives zeros and makes no page.
    let blocks = stat_fd(fd)?.st_blocks;
    let mut b = [1u8; 64];
    eq!(ok!(pread(fd, b.as_mut_ptr().cast(), 64, 0)), 64);
    check!(b == [0; 64]);
    eq!(stat_fd(fd)?.st_blocks, blocks);
    // A hole that is punched gives its blocks back.
    ok!(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * page, page));
    eq!(stat_fd(fd)?.st_blocks, blocks - 8);
    eq!(ok!(lseek(fd, 0, SEEK_DATA)), 10 * page);
    ok!(fsync(fd));
    Ok(())
}

fn fallocate_reserves_without_data() -> Outcome {
    let fd = memfd(0)?;
    ok!(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 2 * PAGE as i64));
    let s = stat_fd(fd)?;
    eq!((s.st_size, s.st_blocks), (0, 16));
    ok!(fallocate(fd, 0, 0, 4 * PAGE as i64));
    let s = stat_fd(fd)?;
    eq!((s.st_size, s.st_blocks), (4 * PAGE as i64, 32));
    // Only what was reserved twice counts as data.
    eq!(ok!(lseek(fd, 0, SEEK_HOLE)), 2 * PAGE as i64);
    errno!(lseek(fd, 2 * PAGE as i64, SEEK_DATA), ENXIO);
    let mut b = [1u8; 64];
    eq!(ok!(pread(fd, b.as_mut_ptr().cast(), 64, 3 * PAGE as i64)), 64);
    check!(b == [0; 64]);
    eq!(ok!(pwrite(fd, c"x".as_ptr().cast(), 1, PAGE as i64 + 5)), 1);
    eq!(ok!(pread(fd, b.as_mut_ptr().cast(), 64, PAGE as i64)), 64);
    check!(b[5] == b'x' && b.iter().filter(|b| **b != 0).count() == 1);
    let at = map_with(4 * PAGE, RW, MAP_SHARED, fd);
    eq!(unsafe { *at.add(3 * PAGE) }, 0);
    for mode in [FALLOC_FL_ZERO_RANGE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_UNSHARE_RANGE] {
        errno!(fallocate(fd, mode, 0, PAGE as i64), EOPNOTSUPP);
    }
    errno!(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, PAGE as i64), EOPNOTSUPP);
    errno!(fallocate(fd, 0, -1, 1), EINVAL);
    errno!(fallocate(fd, 0, 0, 0), EINVAL);
    errno!(fallocate(fd, 0, i64::MAX, 1), EFBIG);
    Ok(())
}

fn other_files_have_one_seal_or_none() -> Outcome {
    // A file of a tmpfs is sealed against seals.
    let fd = ok!(open_file("/dev/shm/x", O_RDWR | O_CREAT, 0o600)).max(0);
    let seals = get(fd);
    ok!(unlink(c"/dev/shm/x".as_ptr()));
    eq!(seals, F_SEAL_SEAL);
    errno!(add(fd, F_SEAL_WRITE), EPERM);
    let dir = ok!(open_file("/", O_RDONLY, 0));
    errno!(get(dir), EINVAL);
    Ok(())
}
