//! What /proc/self tells about an address space: areas that join and split, counters, page tables.

use crate::check::*;
use libc::*;

cases![areas:
    page_tables_follow_what_is_touched, counters_follow_the_kind_of_mapping, neighbours_with_equal_marks_are_one_line,
    mprotect_in_the_middle_makes_three_lines, file_mappings_join_where_offsets_go_on, shared_anonymous_memory_has_a_name,
    places_are_given_from_the_top, heap_is_one_line, break_keeps_a_page_from_what_follows, break_of_a_child_is_its_own,
    touching_counts_a_page_reading_does_not, faults_are_counted, child_has_the_same_areas_without_dontfork,
    truncation_reaches_every_mapping, too_many_areas_are_enomem, tables_of_a_hole_end_in_a_fault,
];

const MAPS: &str = "/proc/self/maps";

/// Lines of maps that overlap the range, as start, end, protection, name.
fn lines(at: *mut u8, length: usize) -> Result<Vec<(usize, usize, String, String)>, Stop> {
    let (low, high) = (at as usize, at as usize + length);
    let text = std::fs::read_to_string(MAPS).map_err(|_| Stop::Skip("no maps".into()))?;
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (range, prot) = (words.next().unwrap_or(""), words.next().unwrap_or("").to_owned());
        let Some((start, end)) = range.split_once('-') else {
            return Err(Stop::Fail(format!("a line of maps is {line}")));
        };
        let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)) else {
            return Err(Stop::Fail(format!("a line of maps is {line}")));
        };
        if start < high && low < end {
            found.push((start, end, prot, words.skip(3).collect::<Vec<_>>().join(" ")));
        }
    }
    Ok(found)
}

/// A field of /proc/self/status, in KiB.
fn status(name: &str) -> Result<usize, Stop> {
    field("/proc/self/status", name)
}

fn field(path: &str, name: &str) -> Result<usize, Stop> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    match line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()) {
        Some(n) => Ok(n),
        None => fail!("no {name} in {path}"),
    }
}

fn touch(at: *mut u8) {
    // SAFETY: the case mapped it for writing.
    unsafe { at.write_volatile(1) };
}

fn look(at: *mut u8) -> u8 {
    // SAFETY: the case mapped it for reading.
    unsafe { at.read_volatile() }
}

/// Room for mappings of which nothing else is a neighbour: page 0 of it stays empty.
fn room(pages: usize) -> Result<*mut u8, Stop> {
    let at = ok!(map((pages + 2) * PAGE, PROT_NONE));
    ok!(unmap(at, (pages + 2) * PAGE));
    Ok(at.wrapping_add(PAGE))
}

fn map_at(at: *mut u8, pages: usize, prot: i32, flags: i32, fd: i32, offset: usize) -> Outcome {
    ok!(mmap(at.cast(), pages * PAGE, prot, flags | MAP_FIXED_NOREPLACE, fd, offset as i64));
    Ok(())
}

const PRIVATE: i32 = MAP_PRIVATE | MAP_ANONYMOUS;

fn page_tables_follow_what_is_touched() -> Outcome {
    let before = status("VmPTE")?;
    let length = 1usize << 40;
    let at = ok!(map_with(length, PROT_NONE, PRIVATE | MAP_NORESERVE, -1));
    check!(status("VmPTE")? <= before + 8);
    ok!(mprotect(at.cast(), length, RW));
    // A table of the last level reaches 2 MiB; small pages, so that each touch needs one.
    // SAFETY: advice about a range of this case.
    unsafe { madvise(at.cast(), length, MADV_NOHUGEPAGE) };
    for i in 0..64 {
        touch(at.wrapping_add(i << 21));
    }
    let with = status("VmPTE")?;
    check!(with >= before + 64 * 4 && with <= before + 72 * 4);
    ok!(unmap(at, length));
    check!(status("VmPTE")? <= before + 8);
    Ok(())
}

fn counters_follow_the_kind_of_mapping() -> Outcome {
    let (data, size) = (status("VmData")?, status("VmSize")?);
    let at = ok!(map(10 * PAGE, RW));
    eq!((status("VmData")?, status("VmSize")?), (data + 40, size + 40));
    let shared = ok!(map_with(10 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1));
    eq!((status("VmData")?, status("VmSize")?), (data + 40, size + 80));
    let lock = status("VmLck")?;
    ok!(mlock(at.cast(), 3 * PAGE));
    eq!(status("VmLck")?, lock + 12);
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    eq!(pages * PAGE / 1024, size + 80);
    ok!(mprotect(at.cast(), 4 * PAGE, PROT_READ));
    eq!(status("VmData")?, data + 24);
    ok!(unmap(at, 10 * PAGE));
    ok!(unmap(shared, 10 * PAGE));
    eq!((status("VmData")?, status("VmSize")?, status("VmLck")?), (data, size, lock));
    Ok(())
}

fn neighbours_with_equal_marks_are_one_line() -> Outcome {
    let at = room(8)?;
    map_at(at, 2, RW, PRIVATE, -1, 0)?;
    map_at(at.wrapping_add(4 * PAGE), 2, RW, PRIVATE, -1, 0)?;
    eq!(lines(at, 8 * PAGE)?.len(), 2);
    map_at(at.wrapping_add(2 * PAGE), 2, RW, PRIVATE, -1, 0)?;
    eq!(lines(at, 8 * PAGE)?.iter().map(|l| (l.0, l.1)).collect::<Vec<_>>(), [(at as usize, at as usize + 6 * PAGE)]);
    // Another protection, or another mark, is another line.
    map_at(at.wrapping_add(6 * PAGE), 2, PROT_READ, PRIVATE, -1, 0)?;
    eq!(lines(at, 8 * PAGE)?.len(), 2);
    ok!(madvise(at.cast(), 3 * PAGE, MADV_DONTFORK));
    eq!(lines(at, 8 * PAGE)?.len(), 3);
    ok!(madvise(at.cast(), 3 * PAGE, MADV_DOFORK));
    eq!(lines(at, 8 * PAGE)?.len(), 2);
    Ok(())
}

fn mprotect_in_the_middle_makes_three_lines() -> Outcome {
    let at = room(3)?;
    map_at(at, 3, RW, PRIVATE, -1, 0)?;
    (0..3).for_each(|i| touch(at.wrapping_add(i * PAGE)));
    ok!(mprotect(at.wrapping_add(PAGE).cast(), PAGE, PROT_READ));
    let kinds: Vec<String> = lines(at, 3 * PAGE)?.into_iter().map(|l| l.2).collect();
    eq!(kinds, ["rw-p", "r--p", "rw-p"]);
    ok!(mprotect(at.wrapping_add(PAGE).cast(), PAGE, RW));
    eq!(lines(at, 3 * PAGE)?.len(), 1);
    Ok(())
}

fn file_mappings_join_where_offsets_go_on() -> Outcome {
    make("f", &[1; 8 * PAGE])?;
    let fd = ok!(open_file("f", O_RDONLY, 0));
    let at = room(8)?;
    map_at(at, 2, PROT_READ, MAP_PRIVATE, fd, 0)?;
    map_at(at.wrapping_add(2 * PAGE), 2, PROT_READ, MAP_PRIVATE, fd, 2 * PAGE)?;
    eq!(lines(at, 8 * PAGE)?.len(), 1);
    map_at(at.wrapping_add(4 * PAGE), 2, PROT_READ, MAP_PRIVATE, fd, 5 * PAGE)?;
    eq!(lines(at, 8 * PAGE)?.len(), 2);
    map_at(at.wrapping_add(6 * PAGE), 1, PROT_READ, MAP_SHARED, fd, 7 * PAGE)?;
    eq!(lines(at, 8 * PAGE)?.len(), 3);
    Ok(())
}

fn shared_anonymous_memory_has_a_name() -> Outcome {
    let before = field("/proc/meminfo", "Shmem")?;
    let at = ok!(map_with(512 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1));
    let line = lines(at, PAGE)?;
    eq!(line.first().map(|l| (l.2.as_str(), l.3.as_str())), Some(("rw-s", "/dev/zero (deleted)")));
    eq!(child(|| { touch(at.wrapping_add(PAGE)); 0 }), Status::Exited(0));
    eq!(look(at.wrapping_add(PAGE)), 1);
    (0..512).for_each(|i| touch(at.wrapping_add(i * PAGE)));
    check!(field("/proc/meminfo", "Shmem")? >= before + 1024);
    Ok(())
}

fn places_are_given_from_the_top() -> Outcome {
    // Larger than any hole that earlier mappings have left near the top.
    let length = 64 << 20;
    let first = ok!(map(length, PROT_NONE)) as usize;
    let second = ok!(map(length, PROT_NONE)) as usize;
    check!(second < first);
    let taken = second as *mut c_void;
    errno!(mmap(taken, PAGE, RW, PRIVATE | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
    errno!(mmap((second - PAGE) as *mut c_void, 2 * PAGE, RW, PRIVATE | MAP_FIXED_NOREPLACE, -1, 0), EEXIST);
    Ok(())
}

fn grow(to: usize) -> Result<usize, Stop> {
    Ok(ok!(syscall(SYS_brk, to)) as usize)
}

fn heap_is_one_line() -> Outcome {
    let start = grow(0)?;
    for i in 1..=20 {
        eq!(grow(start + i * 3000)?, start + i * 3000);
    }
    // The break need not end a page, the area does.
    let end = (start + 20 * 3000).next_multiple_of(PAGE);
    let heap: Vec<_> = lines(start as *mut u8, 20 * 3000)?.into_iter().filter(|l| l.1 == end).collect();
    eq!(heap.len(), 1);
    eq!(heap[0].3.as_str(), "[heap]");
    Ok(())
}

fn break_keeps_a_page_from_what_follows() -> Outcome {
    let start = grow(0)?;
    eq!(grow(start + 5)?, start + 5);
    let base = (start + 5).next_multiple_of(PAGE);
    map_at((base + 4 * PAGE) as *mut u8, 1, PROT_READ, PRIVATE, -1, 0)?;
    // Up to the page in front of the mapping, which stays free.
    eq!(grow(base + 4 * PAGE)?, start + 5);
    eq!(grow(base + 3 * PAGE)?, base + 3 * PAGE);
    eq!(grow(base + 3 * PAGE + 1)?, base + 3 * PAGE);
    eq!(grow(base)?, base);
    eq!(child(|| look(base as *mut u8) as i32), Status::Killed(SIGSEGV));
    Ok(())
}

fn break_of_a_child_is_its_own() -> Outcome {
    let start = grow(0)?;
    in_child(|| {
        eq!(grow(start + 3 * PAGE)?, start + 3 * PAGE);
        Ok(())
    })?;
    eq!(grow(0)?, start);
    Ok(())
}

/// Resident anonymous pages of a range, in KiB (smaps).
fn rss(at: *mut u8) -> Result<usize, Stop> {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let head = format!("{:x}-", at as usize);
    let mut inside = false;
    for line in text.lines() {
        let word = line.split_whitespace().next().unwrap_or("");
        if !word.ends_with(':') {
            inside = line.starts_with(&head);
        } else if inside && word == "Rss:" {
            return Ok(line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0));
        }
    }
    Err(Stop::Skip("no smaps".into()))
}

fn touching_counts_a_page_reading_does_not() -> Outcome {
    let at = room(4)?;
    map_at(at, 4, RW, PRIVATE, -1, 0)?;
    eq!(rss(at)?, 0);
    eq!(look(at), 0);
    eq!(rss(at)?, 0);
    touch(at);
    eq!(rss(at)?, 4);
    eq!((look(at), look(at.wrapping_add(1))), (1, 0));
    Ok(())
}

fn minor_faults() -> Result<i64, Stop> {
    // SAFETY: plain numbers, all zero is a value.
    let mut usage: rusage = unsafe { std::mem::zeroed() };
    ok!(getrusage(RUSAGE_SELF, &mut usage));
    Ok(usage.ru_minflt)
}

fn faults_are_counted() -> Outcome {
    let at = ok!(map(16 * PAGE, RW));
    // SAFETY: advice about a range of this case.
    unsafe { madvise(at.cast(), 16 * PAGE, MADV_NOHUGEPAGE) };
    let before = minor_faults()?;
    (0..16).for_each(|i| touch(at.wrapping_add(i * PAGE)));
    let first = minor_faults()?;
    check!(first - before >= 16 && first - before <= 20);
    (0..16).for_each(|i| touch(at.wrapping_add(i * PAGE)));
    check!(minor_faults()? - first <= 4);
    // A child's store copies; the parent's page stays as it is.
    in_child(|| {
        let before = minor_faults()?;
        // SAFETY: mapped above.
        unsafe { at.write_volatile(9) };
        check!(minor_faults()? > before);
        Ok(())
    })?;
    eq!(look(at), 1);
    Ok(())
}

fn child_has_the_same_areas_without_dontfork() -> Outcome {
    let at = room(6)?;
    map_at(at, 6, RW, PRIVATE, -1, 0)?;
    ok!(mprotect(at.cast(), PAGE, PROT_READ));
    ok!(madvise(at.wrapping_add(2 * PAGE).cast(), PAGE, MADV_DONTFORK));
    let all = lines(at, 6 * PAGE)?;
    let expected: Vec<_> = all.iter().filter(|l| l.0 != at as usize + 2 * PAGE).cloned().collect();
    eq!(expected.len() + 1, all.len());
    let size = status("VmSize")?;
    in_child(|| {
        eq!(lines(at, 6 * PAGE)?, expected);
        eq!(status("VmSize")?, size - 4);
        Ok(())
    })
}

fn truncation_reaches_every_mapping() -> Outcome {
    make("f", &[7; 4 * PAGE])?;
    let fd = ok!(open_file("f", O_RDWR, 0));
    let all = [
        ok!(map_with(4 * PAGE, PROT_READ, MAP_SHARED, fd)),
        ok!(map_with(4 * PAGE, RW, MAP_PRIVATE, fd)),
        ok!(map_with(4 * PAGE, RW, MAP_SHARED, fd)),
    ];
    // A private copy goes, too.
    touch(all[1].wrapping_add(3 * PAGE));
    let gone = |at: *mut u8| child(|| look(at.wrapping_add(3 * PAGE)) as i32) == Status::Killed(SIGBUS);
    let (mut ends, mut ready) = ([0; 2], [0; 2]);
    ok!(pipe2(ends.as_mut_ptr(), 0));
    ok!(pipe2(ready.as_mut_ptr(), 0));
    let other = fork_child(|| {
        let present = all.iter().all(|at| look(at.wrapping_add(3 * PAGE)) != 0);
        write_fd(ready[1], b"x");
        read_fd(ends[0], &mut [0]);
        i32::from(!present || !all.iter().all(|at| gone(*at)))
    });
    check!(all.iter().all(|at| look(at.wrapping_add(3 * PAGE)) != 0));
    eq!(read_fd(ready[0], &mut [0]), 1);
    ok!(ftruncate(fd, 2 * PAGE as i64));
    check!(all.iter().all(|at| gone(*at)));
    eq!(all.map(look), [7, 7, 7]);
    write_fd(ends[1], b"x");
    eq!(wait_for(other), Status::Exited(0));
    Ok(())
}

fn too_many_areas_are_enomem() -> Outcome {
    in_child(|| {
        // Every second page another protection: two areas for each step, up to 65530 in all.
        let pages = 70_000;
        let at = ok!(map(pages * PAGE, PROT_NONE));
        let mut done = 0;
        for i in (0..pages).step_by(2) {
            // SAFETY: pages of this case.
            if unsafe { mprotect(at.wrapping_add(i * PAGE).cast(), PAGE, PROT_READ) } != 0 {
                eq!(std::io::Error::last_os_error().raw_os_error(), Some(ENOMEM));
                break;
            }
            done += 1;
        }
        check!(done > 32_000 && done <= 32_765);
        // A split makes two, so that one more may fit; then none does.
        let more = || map_with(PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1);
        let _ = (more(), more());
        errno!(more(), ENOMEM);
        ok!(unmap(at, pages * PAGE));
        ok!(map(PAGE, RW));
        Ok(())
    })
}

fn tables_of_a_hole_end_in_a_fault() -> Outcome {
    // Between user space and the kernel there is nothing, and the kernel is not ours to read.
    for address in [1usize << 48, 0x8000_0000_0000_0000, 0xffff_0000_0000_0000, 0xffff_c000_0000_0000] {
        eq!(child(|| look(address as *mut u8) as i32), Status::Killed(SIGSEGV));
    }
    Ok(())
}
