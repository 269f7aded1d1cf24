//! brk, mmap, munmap, mprotect, mremap, madvise; sharing and copy-on-write.

use crate::check::*;
use libc::*;

cases![memory:
    anonymous_is_zero_and_writable, mmap_errors, map_fixed_replaces, map_fixed_noreplace_is_eexist, hint_is_honoured_when_free,
    munmap_splits, munmap_errors, munmap_of_a_hole_succeeds, cow_after_fork_both_ways, shared_anonymous_after_fork,
    private_file_mapping_is_private, shared_file_mapping_is_coherent, mapping_outlives_descriptor, mapping_offset,
    write_shared_needs_rdwr_file, file_tail_of_last_page_is_zero, truncated_mapping_reads_new_data,
    mprotect_changes_access, mprotect_errors, mprotect_part_splits, mprotect_write_on_read_only_shared_is_eacces,
    mremap_grows_in_place_or_moves, mremap_shrinks, mremap_fixed, mremap_errors, madvise_dontneed_zeroes,
    madvise_errors, brk_grows_and_shrinks, large_sparse_mapping, many_mappings, fork_of_large_memory, zero_page_then_write,
    nested_fork_cow, mincore_or_maps_shows_mapping, exec_memory_runs_code, code_can_be_rewritten,
    stack_grows_down, rlimit_as_is_enomem, msync_succeeds, address_limit_is_48_bits, map_populate,
];

fn file(data: &[u8]) -> Result<i32, Stop> {
    make("f", data)?;
    Ok(ok!(open_file("f", O_RDWR, 0)))
}

fn get(at: *mut u8, offset: usize) -> u8 {
    // SAFETY: the case mapped what it reads.
    unsafe { at.add(offset).read_volatile() }
}

fn set(at: *mut u8, offset: usize, value: u8) {
    // SAFETY: the case mapped what it writes.
    unsafe { at.add(offset).write_volatile(value) }
}

fn mapped(length: usize) -> Result<*mut u8, Stop> {
    Ok(ok!(map(length, RW)))
}

fn anonymous_is_zero_and_writable() -> Outcome {
    let at = mapped(10 * PAGE)?;
    check!((0..10 * PAGE).all(|i| get(at, i) == 0));
    (0..10).for_each(|i| set(at, i * PAGE + i, i as u8 + 1));
    check!((0..10).all(|i| get(at, i * PAGE + i) == i as u8 + 1));
    ok!(unmap(at, 10 * PAGE));
    Ok(())
}

fn mmap_errors() -> Outcome {
    let null = std::ptr::null_mut();
    errno!(mmap(null, 0, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EINVAL);
    errno!(mmap(null, PAGE, RW, MAP_ANONYMOUS, -1, 0), EINVAL);
    errno!(mmap(null, PAGE, RW, MAP_PRIVATE, 999, 0), EBADF);
    errno!(mmap(null, PAGE, RW, MAP_PRIVATE, file(b"x")?, 1), EINVAL);
    errno!(mmap(null, usize::MAX - PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    errno!(mmap(null, 1 << 48, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), ENOMEM);
    errno!(mmap(1 as *mut c_void, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EINVAL);
    errno!(mmap((1usize << 52) as *mut c_void, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), ENOMEM);
    let directory = ok!(open_file(".", O_RDONLY, 0));
    errno!(mmap(null, PAGE, PROT_READ, MAP_PRIVATE, directory, 0), ENODEV);
    let write_only = ok!(open_file("f", O_WRONLY, 0));
    errno!(mmap(null, PAGE, PROT_READ, MAP_PRIVATE, write_only, 0), EACCES);
    Ok(())
}

fn map_fixed_replaces() -> Outcome {
    let at = mapped(3 * PAGE)?;
    (0..3).for_each(|i| set(at, i * PAGE, 9));
    let middle = at.wrapping_add(PAGE);
    let got = ok!(mmap(middle.cast(), PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    eq!(got.cast(), middle);
    eq!([get(at, 0), get(at, PAGE), get(at, 2 * PAGE)], [9, 0, 9]);
    Ok(())
}

fn map_fixed_noreplace_is_eexist() -> Outcome {
    let at = mapped(PAGE)?;
    errno!(mmap(at.cast(), PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
    Ok(())
}

fn hint_is_honoured_when_free() -> Outcome {
    let at = mapped(2 * PAGE)?;
    ok!(unmap(at, 2 * PAGE));
    let got = ok!(mmap(at.cast(), PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    eq!(got.cast(), at);
    let other = ok!(mmap(at.cast(), PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    check!(other.cast() != at);
    Ok(())
}

fn munmap_splits() -> Outcome {
    let at = mapped(5 * PAGE)?;
    (0..5).for_each(|i| set(at, i * PAGE, i as u8));
    ok!(unmap(at.wrapping_add(2 * PAGE), PAGE));
    eq!([get(at, PAGE), get(at, 3 * PAGE), get(at, 4 * PAGE)], [1, 3, 4]);
    eq!(child(|| get(at, 2 * PAGE) as i32), Status::Killed(SIGSEGV));
    Ok(())
}

fn munmap_errors() -> Outcome {
    let at = mapped(PAGE)?;
    errno!(munmap(at.wrapping_add(1).cast(), PAGE), EINVAL);
    errno!(munmap(at.cast(), 0), EINVAL);
    errno!(munmap(at.cast(), usize::MAX), EINVAL);
    Ok(())
}

fn munmap_of_a_hole_succeeds() -> Outcome {
    let at = mapped(PAGE)?;
    ok!(unmap(at, PAGE));
    ok!(unmap(at, PAGE));
    Ok(())
}

fn cow_after_fork_both_ways() -> Outcome {
    let at = mapped(4 * PAGE)?;
    (0..4).for_each(|i| set(at, i * PAGE, 1));
    let (reader, writer) = new_pipe(0)?;
    let pid = fork_child(|| {
        set(at, 0, 2);
        let mut byte = [0];
        // The parent's write, made before this arrives, must not show here.
        if read_fd(reader, &mut byte) != 1 || get(at, PAGE) != 1 || get(at, 0) != 2 {
            return 1;
        }
        0
    });
    set(at, PAGE, 3);
    write_fd(writer, b"x");
    eq!(wait_for(pid), Status::Exited(0));
    eq!([get(at, 0), get(at, PAGE)], [1, 3]);
    Ok(())
}

fn nested_fork_cow() -> Outcome {
    let at = mapped(PAGE)?;
    set(at, 0, 1);
    let ended = child(|| {
        let inner = child(|| {
            set(at, 0, 3);
            get(at, 0) as i32
        });
        if inner != Status::Exited(3) || get(at, 0) != 1 {
            return 1;
        }
        set(at, 0, 2);
        get(at, 0) as i32
    });
    eq!(ended, Status::Exited(2));
    eq!(get(at, 0), 1);
    Ok(())
}

fn shared_anonymous_after_fork() -> Outcome {
    let at = ok!(map_with(2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1));
    set(at, 0, 1);
    eq!(child(|| { set(at, 1, get(at, 0) + 1); set(at, PAGE, 7); 0 }), Status::Exited(0));
    eq!([get(at, 1), get(at, PAGE)], [2, 7]);
    Ok(())
}

fn private_file_mapping_is_private() -> Outcome {
    let fd = file(b"hello")?;
    let at = ok!(map_with(PAGE, RW, MAP_PRIVATE, fd));
    eq!(get(at, 1), b'e');
    set(at, 1, b'E');
    eq!(content("f")?, b"hello");
    eq!(get(at, 1), b'E');
    // A page that was not written yet follows the file.
    let other = ok!(map_with(PAGE, PROT_READ, MAP_PRIVATE, fd));
    ok!(pwrite(fd, c"J".as_ptr().cast(), 1, 0));
    eq!([get(other, 0), get(at, 0)], [b'J', b'h']);
    Ok(())
}

fn shared_file_mapping_is_coherent() -> Outcome {
    let fd = file(&[b'a'; 5000])?;
    let at = ok!(map_with(2 * PAGE, RW, MAP_SHARED, fd));
    set(at, 4999, b'Z');
    eq!(content("f")?[4999], b'Z');
    ok!(pwrite(fd, c"Q".as_ptr().cast(), 1, 4500));
    eq!(get(at, 4500), b'Q');
    let other = ok!(map_with(PAGE, PROT_READ, MAP_SHARED, fd));
    set(at, 0, b'1');
    eq!(get(other, 0), b'1');
    eq!(child(|| { set(at, 1, b'2'); 0 }), Status::Exited(0));
    eq!(get(at, 1), b'2');
    eq!(stat_of("f")?.st_size, 5000);
    Ok(())
}

fn mapping_outlives_descriptor() -> Outcome {
    let fd = file(b"kept")?;
    let at = ok!(map_with(PAGE, PROT_READ, MAP_PRIVATE, fd));
    close_fd(fd);
    ok!(unlink(c"f".as_ptr()));
    eq!(get(at, 0), b'k');
    Ok(())
}

fn mapping_offset() -> Outcome {
    let mut data = vec![0; 3 * PAGE];
    data[2 * PAGE] = 42;
    let fd = file(&data)?;
    let at = ok!(mmap(std::ptr::null_mut(), PAGE, PROT_READ, MAP_SHARED, fd, 2 * PAGE as i64)).cast();
    eq!(get(at, 0), 42);
    Ok(())
}

fn write_shared_needs_rdwr_file() -> Outcome {
    make("f", b"x")?;
    let fd = ok!(open_file("f", O_RDONLY, 0));
    errno!(mmap(std::ptr::null_mut(), PAGE, RW, MAP_SHARED, fd, 0), EACCES);
    ok!(map_with(PAGE, RW, MAP_PRIVATE, fd));
    Ok(())
}

fn file_tail_of_last_page_is_zero() -> Outcome {
    let fd = file(b"abc")?;
    let at = ok!(map_with(PAGE, RW, MAP_SHARED, fd));
    check!((3..PAGE).all(|i| get(at, i) == 0));
    set(at, 100, 9);
    eq!(stat_of("f")?.st_size, 3);
    Ok(())
}

fn truncated_mapping_reads_new_data() -> Outcome {
    let fd = file(&[1; 3 * PAGE])?;
    let at = ok!(map_with(3 * PAGE, RW, MAP_SHARED, fd));
    eq!(get(at, 2 * PAGE), 1);
    ok!(ftruncate(fd, PAGE as i64));
    eq!(child(|| get(at, 2 * PAGE) as i32), Status::Killed(SIGBUS));
    ok!(ftruncate(fd, 3 * PAGE as i64));
    eq!(get(at, 2 * PAGE), 0);
    Ok(())
}

fn mprotect_changes_access() -> Outcome {
    let at = mapped(PAGE)?;
    set(at, 0, 5);
    ok!(mprotect(at.cast(), PAGE, PROT_READ));
    eq!(get(at, 0), 5);
    eq!(child(|| { set(at, 0, 1); 0 }), Status::Killed(SIGSEGV));
    ok!(mprotect(at.cast(), PAGE, PROT_NONE));
    eq!(child(|| get(at, 0) as i32), Status::Killed(SIGSEGV));
    ok!(mprotect(at.cast(), PAGE, RW));
    set(at, 0, 6);
    eq!(get(at, 0), 6);
    Ok(())
}

fn mprotect_errors() -> Outcome {
    let at = mapped(2 * PAGE)?;
    errno!(mprotect(at.wrapping_add(1).cast(), PAGE, PROT_READ), EINVAL);
    ok!(unmap(at.wrapping_add(PAGE), PAGE));
    errno!(mprotect(at.cast(), 2 * PAGE, PROT_READ), ENOMEM);
    ok!(mprotect(at.cast(), 0, PROT_READ));
    Ok(())
}

fn mprotect_part_splits() -> Outcome {
    let at = mapped(3 * PAGE)?;
    ok!(mprotect(at.wrapping_add(PAGE).cast(), PAGE, PROT_READ));
    set(at, 0, 1);
    set(at, 2 * PAGE, 1);
    eq!(child(|| { set(at, PAGE, 1); 0 }), Status::Killed(SIGSEGV));
    ok!(mprotect(at.cast(), 3 * PAGE, RW));
    set(at, PAGE, 1);
    Ok(())
}

fn mprotect_write_on_read_only_shared_is_eacces() -> Outcome {
    make("f", b"x")?;
    let fd = ok!(open_file("f", O_RDONLY, 0));
    let at = ok!(map_with(PAGE, PROT_READ, MAP_SHARED, fd));
    errno!(mprotect(at.cast(), PAGE, RW), EACCES);
    Ok(())
}

fn mremap_grows_in_place_or_moves() -> Outcome {
    let at = mapped(2 * PAGE)?;
    set(at, 0, 1);
    set(at, PAGE, 2);
    let new: *mut u8 = ok!(mremap(at.cast(), 2 * PAGE, 100 * PAGE, MREMAP_MAYMOVE)).cast();
    eq!([get(new, 0), get(new, PAGE), get(new, 99 * PAGE)], [1, 2, 0]);
    set(new, 99 * PAGE, 3);
    Ok(())
}

fn mremap_shrinks() -> Outcome {
    let at = mapped(4 * PAGE)?;
    set(at, 0, 1);
    eq!(ok!(mremap(at.cast(), 4 * PAGE, PAGE, 0)).cast(), at);
    eq!(get(at, 0), 1);
    eq!(child(|| get(at, PAGE) as i32), Status::Killed(SIGSEGV));
    Ok(())
}

fn mremap_fixed() -> Outcome {
    let at = mapped(PAGE)?;
    let target = mapped(PAGE)?;
    set(at, 0, 1);
    set(target, 0, 2);
    let new = ok!(mremap(at.cast(), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target));
    eq!(new.cast(), target);
    eq!(get(target, 0), 1);
    eq!(child(|| get(at, 0) as i32), Status::Killed(SIGSEGV));
    Ok(())
}

fn mremap_errors() -> Outcome {
    let at = mapped(3 * PAGE)?;
    errno!(mremap(at.wrapping_add(1).cast(), PAGE, PAGE, 0), EINVAL);
    errno!(mremap(at.cast(), PAGE, 0, 0), EINVAL);
    // The next page is taken, and moving is not allowed.
    errno!(mremap(at.cast(), PAGE, 2 * PAGE, 0), ENOMEM);
    ok!(unmap(at, 3 * PAGE));
    errno!(mremap(at.cast(), PAGE, 2 * PAGE, MREMAP_MAYMOVE), EFAULT);
    Ok(())
}

fn madvise_dontneed_zeroes() -> Outcome {
    let at = mapped(2 * PAGE)?;
    set(at, 0, 1);
    set(at, PAGE, 2);
    ok!(madvise(at.cast(), PAGE, MADV_DONTNEED));
    eq!([get(at, 0), get(at, PAGE)], [0, 2]);
    let fd = file(b"file")?;
    let mapping = ok!(map_with(PAGE, RW, MAP_PRIVATE, fd));
    set(mapping, 0, b'X');
    ok!(madvise(mapping.cast(), PAGE, MADV_DONTNEED));
    eq!(get(mapping, 0), b'f');
    Ok(())
}

fn madvise_errors() -> Outcome {
    let at = mapped(2 * PAGE)?;
    errno!(madvise(at.cast(), PAGE, 9999), EINVAL);
    errno!(madvise(at.wrapping_add(1).cast(), PAGE, MADV_DONTNEED), EINVAL);
    ok!(unmap(at.wrapping_add(PAGE), PAGE));
    errno!(madvise(at.cast(), 2 * PAGE, MADV_DONTNEED), ENOMEM);
    ok!(madvise(at.cast(), PAGE, MADV_NORMAL));
    ok!(madvise(at.cast(), PAGE, MADV_WILLNEED));
    Ok(())
}

fn brk_grows_and_shrinks() -> Outcome {
    let start = ok!(syscall(SYS_brk, 0)) as usize;
    let end = start + 20 * PAGE;
    eq!(ok!(syscall(SYS_brk, end)) as usize, end);
    check!((0..20 * PAGE).all(|i| get(start as *mut u8, i) == 0));
    set(start as *mut u8, 19 * PAGE, 1);
    eq!(ok!(syscall(SYS_brk, start + 100)) as usize, start + 100);
    eq!(child(|| get(start as *mut u8, 19 * PAGE) as i32), Status::Killed(SIGSEGV));
    // What cannot be had leaves the break where it is.
    eq!(ok!(syscall(SYS_brk, 1usize)) as usize, start + 100);
    eq!(ok!(syscall(SYS_brk, 1usize << 50)) as usize, start + 100);
    // Memory given back and taken again is zero.
    eq!(ok!(syscall(SYS_brk, end)) as usize, end);
    eq!(get(start as *mut u8, 19 * PAGE), 0);
    Ok(())
}

fn large_sparse_mapping() -> Outcome {
    let length = 64 << 30;
    let at = ok!(map_with(length, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1));
    for i in 0..64 {
        set(at, i << 30, i as u8);
    }
    check!((0..64).all(|i| get(at, i << 30) == i as u8));
    ok!(unmap(at, length));
    Ok(())
}

fn many_mappings() -> Outcome {
    // Alternating protections keep the areas apart.
    let at = mapped(2000 * PAGE)?;
    for i in (0..2000).step_by(2) {
        ok!(mprotect(at.wrapping_add(i * PAGE).cast(), PAGE, PROT_READ));
    }
    for i in (1..2000).step_by(2) {
        set(at, i * PAGE, i as u8);
    }
    check!((1..2000).step_by(2).all(|i| get(at, i * PAGE) == i as u8));
    ok!(mprotect(at.cast(), 2000 * PAGE, RW));
    (0..2000).for_each(|i| set(at, i * PAGE, 1));
    ok!(unmap(at, 2000 * PAGE));
    Ok(())
}

fn fork_of_large_memory() -> Outcome {
    let pages = 4096;
    let at = mapped(pages * PAGE)?;
    (0..pages).for_each(|i| set(at, i * PAGE, (i % 251) as u8));
    for _ in 0..3 {
        eq!(
            child(|| {
                (0..pages).for_each(|i| set(at, i * PAGE, get(at, i * PAGE) ^ 0xff));
                (0..pages).any(|i| get(at, i * PAGE) != (i % 251) as u8 ^ 0xff) as i32
            }),
            Status::Exited(0)
        );
    }
    check!((0..pages).all(|i| get(at, i * PAGE) == (i % 251) as u8));
    Ok(())
}

fn zero_page_then_write() -> Outcome {
    let at = mapped(2 * PAGE)?;
    eq!(get(at, 5), 0);
    set(at, 5, 1);
    eq!([get(at, 5), get(at, PAGE + 5)], [1, 0]);
    Ok(())
}

fn mincore_or_maps_shows_mapping() -> Outcome {
    let at = mapped(PAGE)? as usize;
    let maps = String::from_utf8_lossy(&content("/proc/self/maps")?).into_owned();
    let found = maps.lines().any(|line| {
        let Some((start, rest)) = line.split_once('-') else { return false };
        let end = rest.split(' ').next().unwrap_or_default();
        let bounds = (usize::from_str_radix(start, 16).unwrap_or(0), usize::from_str_radix(end, 16).unwrap_or(0));
        bounds.0 <= at && at < bounds.1 && rest.contains("rw-p")
    });
    check!(found);
    check!(maps.contains("[stack]"));
    Ok(())
}

/// `mov w0, #value; ret`
fn code(value: u32) -> [u32; 2] {
    [0x5280_0000 | value << 5, 0xd65f_03c0]
}

fn run_code(at: *mut u8, value: u32) -> i32 {
    // SAFETY: `at` is writable and executable, or made so; the cache maintenance is what EL0 may do.
    unsafe {
        std::ptr::copy_nonoverlapping(code(value).as_ptr(), at.cast(), 2);
        core::arch::asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) at);
        std::mem::transmute::<*mut u8, extern "C" fn() -> i32>(at)()
    }
}

fn exec_memory_runs_code() -> Outcome {
    let at = ok!(map(PAGE, RW | PROT_EXEC));
    eq!(run_code(at, 42), 42);
    let not_executable = mapped(PAGE)?;
    eq!(child(|| run_code(not_executable, 1)), Status::Killed(SIGSEGV));
    Ok(())
}

fn code_can_be_rewritten() -> Outcome {
    let at = ok!(map(PAGE, RW | PROT_EXEC));
    for value in 0..200 {
        eq!(run_code(at, value), value as i32);
    }
    Ok(())
}

#[inline(never)]
fn recurse(depth: usize) -> usize {
    let room = [depth as u8; 4096];
    let room = std::hint::black_box(&room);
    if depth == 0 { 0 } else { recurse(depth - 1) + room[depth % 4096] as usize / 256 + 1 }
}

fn stack_grows_down() -> Outcome {
    // 6 MiB of the 8 MiB that RLIMIT_STACK allows.
    eq!(child(|| (recurse(1500) != 1500) as i32), Status::Exited(0));
    Ok(())
}

fn rlimit_as_is_enomem() -> Outcome {
    let limit = rlimit { rlim_cur: 64 << 20, rlim_max: 64 << 20 };
    ok!(setrlimit(RLIMIT_AS, &limit));
    errno!(map(128 << 20, RW), ENOMEM);
    mapped(1 << 20)?;
    Ok(())
}

fn msync_succeeds() -> Outcome {
    let fd = file(b"abc")?;
    let at = ok!(map_with(PAGE, RW, MAP_SHARED, fd));
    set(at, 0, b'X');
    if unsafe { msync(at.cast(), PAGE, MS_SYNC) } != 0 {
        return Err(Stop::Skip("no msync".into()));
    }
    eq!(content("f")?, b"Xbc");
    Ok(())
}

fn address_limit_is_48_bits() -> Outcome {
    let top = (1usize << 48) - PAGE;
    // The last page of user addresses may be mapped; the one after it may not.
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    errno!(mmap((top + PAGE) as *mut c_void, PAGE, RW, flags, -1, 0), ENOMEM);
    errno!(mmap(0xffff_0000_0000_0000usize as *mut c_void, PAGE, RW, flags, -1, 0), ENOMEM);
    Ok(())
}

fn map_populate() -> Outcome {
    let at = ok!(map_with(8 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1));
    check!((0..8 * PAGE).all(|i| get(at, i) == 0));
    Ok(())
}
