//! Address spaces and faults against a model, and the single rules one by one.

use std::collections::BTreeMap;

use abi::{Errno, UserAddr};
use kalloc::KArc;
use proptest::prelude::*;

use crate::{rmap::PAGE, sim::*, *};

const BASE: u64 = 0x10_0000_0000;

fn at(page: u64) -> u64 {
    BASE + page * PAGE
}

fn maperr<T>(r: Result<T, FaultOutcome>) -> bool {
    matches!(r, Err(FaultOutcome::Segv { code: SEGV_MAPERR }))
}

fn accerr<T>(r: Result<T, FaultOutcome>) -> bool {
    matches!(r, Err(FaultOutcome::Segv { code: SEGV_ACCERR }))
}

fn areas(p: &Program) -> Vec<(u64, u64)> {
    let mut list = Vec::new();
    p.space
        .for_each_area(|a| {
            list.push((a.start.wrapping_sub(BASE) / PAGE, a.end.wrapping_sub(BASE) / PAGE));
            Ok(())
        })
        .unwrap();
    list
}

/// Runs `f`, and checks that all frames that it used come back.
fn without_leak(f: impl FnOnce()) {
    let _alone = alone();
    machine();
    drop(Program::new());
    settle();
    frames::drain_all();
    let before = frames::stats().free;
    f();
    settle();
    frames::drain_all();
    let after = frames::stats().free;
    assert_eq!(before, after, "frames leaked");
}

/// Frame counts are the process's: tests that look at them take turns with all others.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE.lock().unwrap_or_else(|e| e.into_inner())
}

// ---- anonymous memory ----

#[test]
fn untouched_memory_reads_as_zero_without_a_frame() {
    without_leak(|| {
        let p = Program::new();
        let a = p.anon(8, Prot::RW);
        assert_eq!(p.load(a), Ok(0));
        assert_eq!(p.space.stats().rss.total(), 0);
        assert_eq!(p.store(a, 7), Ok(()));
        assert_eq!(p.load(a), Ok(7));
        assert_eq!(p.load(a + 1), Ok(0));
        assert_eq!(p.space.stats().rss.anon, 1);
    });
}

#[test]
fn accesses_outside_and_against_the_protection_are_told_apart() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 1, Prot::R).unwrap();
        p.anon_at(at(1), 1, Prot::empty()).unwrap();
        assert!(maperr(p.load(at(2))));
        assert!(accerr(p.store(at(0), 1)));
        assert!(accerr(p.load(at(1))));
        assert!(accerr(p.fetch(at(0))));
        assert!(maperr(p.load(0)));
    });
}

#[test]
fn unmap_in_the_middle_splits_and_map_joins_again() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 8, Prot::RW).unwrap();
        for i in 0..8 {
            p.store(at(i), i as u8 + 1).unwrap();
        }
        p.space.unmap(UserAddr(at(3)), 2 * PAGE).unwrap();
        assert_eq!(areas(&p), [(0, 3), (5, 8)]);
        assert!(maperr(p.load(at(3))));
        assert_eq!(p.load(at(5)), Ok(6));
        assert_eq!(p.space.stats().rss.anon, 6);
        p.anon_at(at(3), 2, Prot::RW).unwrap();
        assert_eq!(areas(&p), [(0, 8)]);
        assert_eq!(p.load(at(3)), Ok(0));
        assert_eq!(p.load(at(2)), Ok(3));
    });
}

#[test]
fn mprotect_takes_and_gives_the_right_to_write_and_keeps_contents() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 4, Prot::RW).unwrap();
        p.store(at(1), 5).unwrap();
        p.space.protect(UserAddr(at(1)), PAGE, Prot::R, &p.limits).unwrap();
        assert_eq!(areas(&p), [(0, 1), (1, 2), (2, 4)]);
        assert!(accerr(p.store(at(1), 6)));
        assert_eq!(p.load(at(1)), Ok(5));
        p.space.protect(UserAddr(at(0)), 4 * PAGE, Prot::RW, &p.limits).unwrap();
        assert_eq!(areas(&p), [(0, 4)]);
        p.store(at(1), 6).unwrap();
        assert_eq!(p.load(at(1)), Ok(6));
    });
}

#[test]
fn mprotect_over_a_hole_changes_nothing() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 1, Prot::RW).unwrap();
        p.anon_at(at(2), 1, Prot::RW).unwrap();
        assert_eq!(p.space.protect(UserAddr(at(0)), 3 * PAGE, Prot::R, &p.limits), Err(Errno::ENOMEM));
        p.store(at(0), 1).unwrap();
        assert_eq!(p.space.protect(UserAddr(at(0) + 1), PAGE, Prot::R, &p.limits), Err(Errno::EINVAL));
        assert_eq!(p.space.protect(UserAddr(at(9)), 0, Prot::R, &p.limits), Ok(()));
    });
}

#[test]
fn fork_shares_until_someone_writes() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 4, Prot::RW).unwrap();
        p.store(at(0), 1).unwrap();
        p.store(at(1), 2).unwrap();
        let c = p.fork();
        assert_eq!(c.load(at(0)), Ok(1));
        assert_eq!(c.space.stats().rss.anon, 2);
        p.store(at(0), 10).unwrap();
        assert_eq!(c.load(at(0)), Ok(1));
        c.store(at(1), 20).unwrap();
        assert_eq!(p.load(at(1)), Ok(2));
        assert_eq!(c.load(at(2)), Ok(0));
        drop(p);
        assert_eq!(c.load(at(0)), Ok(1));
        c.store(at(0), 3).unwrap();
        assert_eq!(c.load(at(0)), Ok(3));
    });
}

#[test]
fn the_last_sharer_writes_without_a_copy() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 1, Prot::RW).unwrap();
        p.store(at(0), 1).unwrap();
        let frame = p.space.table.walk(UserAddr(at(0))).phys();
        drop(p.fork());
        p.store(at(0), 2).unwrap();
        assert_eq!(p.space.table.walk(UserAddr(at(0))).phys(), frame);
    });
}

#[test]
fn dontfork_is_missing_and_wipeonfork_is_zero_in_the_child() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 2, Prot::RW).unwrap();
        p.store(at(0), 1).unwrap();
        p.store(at(1), 2).unwrap();
        p.space.advise(UserAddr(at(0)), PAGE, Advice::DontFork).unwrap();
        p.space.advise(UserAddr(at(1)), PAGE, Advice::WipeOnFork).unwrap();
        let c = p.fork();
        assert!(maperr(c.load(at(0))));
        assert_eq!(c.load(at(1)), Ok(0));
        assert_eq!(p.load(at(1)), Ok(2));
    });
}

#[test]
fn madvise_dontneed_drops_contents_and_reports_holes_last() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 1, Prot::RW).unwrap();
        p.anon_at(at(2), 1, Prot::RW).unwrap();
        p.store(at(0), 1).unwrap();
        p.store(at(2), 1).unwrap();
        assert_eq!(p.space.advise(UserAddr(at(0)), 3 * PAGE, Advice::DontNeed), Err(Errno::ENOMEM));
        assert_eq!((p.load(at(0)), p.load(at(2))), (Ok(0), Ok(0)));
        assert_eq!(Advice::from_raw(9999), Err(Errno::EINVAL));
    });
}

#[test]
fn a_stack_grows_to_its_limit_and_keeps_its_gap() {
    without_leak(|| {
        let mut p = Program::new();
        p.limits.stack = 64 * PAGE;
        let request = MapRequest {
            addr: Some(UserAddr(at(1000))),
            fixed: Fixed::Replace,
            len: 4 * PAGE,
            prot: Prot::RW,
            flags: MapFlags::GROWSDOWN | MapFlags::STACK,
            ..Default::default()
        };
        p.space.map(request).unwrap();
        p.store(at(1003), 1).unwrap();
        p.store(at(950), 2).unwrap();
        assert_eq!(areas(&p), [(950, 1004)]);
        assert_eq!(p.load(at(1003)), Ok(1));
        assert!(maperr(p.store(at(939), 1)));
        p.limits.stack = 2000 * PAGE;
        p.anon_at(at(500), 1, Prot::RW).unwrap();
        p.store(at(500 + 257), 1).unwrap();
        assert!(maperr(p.store(at(500 + 256), 1)));
    });
}

#[test]
fn placement_is_top_down_below_the_base_and_honours_hints() {
    without_leak(|| {
        let p = Program::new();
        p.space.set_layout(Layout { mmap_base: UserAddr(at(100)), ..Layout::default() });
        assert_eq!(p.anon(4, Prot::RW), at(96));
        assert_eq!(p.anon(4, Prot::R), at(92));
        p.space.unmap(UserAddr(at(96)), 4 * PAGE).unwrap();
        assert_eq!(p.anon(2, Prot::RW), at(98));
        let hint = MapRequest { addr: Some(UserAddr(at(10))), len: PAGE, prot: Prot::R, ..Default::default() };
        assert_eq!(p.space.map(hint).unwrap().0, at(10));
        let taken = MapRequest {
            addr: Some(UserAddr(at(10))),
            fixed: Fixed::NoReplace,
            len: PAGE,
            prot: Prot::R,
            ..Default::default()
        };
        assert_eq!(p.space.map(taken), Err(Errno::EEXIST));
    });
}

#[test]
fn errors_of_mmap_and_munmap_come_in_linux_order() {
    without_leak(|| {
        let p = Program::new();
        let map = |addr: Option<u64>, fixed, len| {
            p.space.map(MapRequest { addr: addr.map(UserAddr), fixed, len, prot: Prot::R, ..Default::default() })
        };
        assert_eq!(map(None, Fixed::No, 0), Err(Errno::EINVAL));
        assert_eq!(map(None, Fixed::No, u64::MAX), Err(Errno::ENOMEM));
        assert_eq!(map(Some(at(0) + 1), Fixed::Replace, PAGE), Err(Errno::EINVAL));
        assert_eq!(map(Some(abi::USER_END), Fixed::Replace, PAGE), Err(Errno::ENOMEM));
        assert_eq!(p.space.unmap(UserAddr(1), PAGE), Err(Errno::EINVAL));
        assert_eq!(p.space.unmap(UserAddr(at(0)), 0), Err(Errno::EINVAL));
        assert_eq!(p.space.unmap(UserAddr(abi::USER_END), PAGE), Err(Errno::EINVAL));
        assert_eq!(p.space.unmap(UserAddr(at(0)), PAGE), Ok(()));
    });
}

#[test]
fn limits_refuse_before_anything_changes() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 4, Prot::RW).unwrap();
        let limits = Limits { as_: 6 * PAGE, ..Limits::UNLIMITED };
        let more = |len| MapRequest { len, prot: Prot::RW, limits, ..Default::default() };
        assert_eq!(p.space.map(more(3 * PAGE)), Err(Errno::ENOMEM));
        assert!(p.space.map(more(2 * PAGE)).is_ok());
        let huge = MapRequest { len: 1 << 40, prot: Prot::RW, ..Default::default() };
        assert_eq!(p.space.map(huge), Err(Errno::ENOMEM));
        let promised = MapRequest { len: 1 << 40, prot: Prot::RW, flags: MapFlags::NORESERVE, ..Default::default() };
        assert!(p.space.map(promised).is_ok());
    });
}

#[test]
fn brk_moves_both_ways_and_stops_at_what_is_mapped() {
    without_leak(|| {
        let p = Program::new();
        let start = at(0);
        p.space.set_brk(UserAddr(start));
        let brk = |n: u64| p.space.brk(UserAddr(n), &Limits::UNLIMITED).0;
        assert_eq!(brk(0), start);
        assert_eq!(brk(start + 3 * PAGE + 1), start + 3 * PAGE + 1);
        p.store(start + 3 * PAGE, 9).unwrap();
        assert_eq!(brk(start + 5 * PAGE), start + 5 * PAGE);
        assert_eq!(areas(&p), [(0, 5)]);
        assert_eq!(brk(start + PAGE), start + PAGE);
        assert!(maperr(p.load(start + 3 * PAGE)));
        assert_eq!(brk(start + 5 * PAGE), start + 5 * PAGE);
        assert_eq!(p.load(start + 3 * PAGE), Ok(0));
        p.anon_at(at(8), 1, Prot::R).unwrap();
        assert_eq!(brk(at(8)), start + 5 * PAGE);
        let small = Limits { data: 2 * PAGE, ..Limits::UNLIMITED };
        assert_eq!(p.space.brk(UserAddr(start + 6 * PAGE), &small).0, start + 5 * PAGE);
    });
}

// ---- mremap ----

fn remap(p: &Program, old: u64, old_pages: u64, new_pages: u64, flags: RemapFlags, new: u64) -> abi::Result<u64> {
    let request = RemapRequest {
        old: UserAddr(old),
        old_len: old_pages * PAGE,
        new_len: new_pages * PAGE,
        flags,
        new: UserAddr(new),
        limits: Limits::UNLIMITED,
    };
    p.space.remap(request).map(|a| a.0)
}

#[test]
fn mremap_grows_in_place_shrinks_and_moves_with_contents() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 2, Prot::RW).unwrap();
        p.store(at(1), 5).unwrap();
        assert_eq!(remap(&p, at(0), 2, 4, RemapFlags::empty(), 0), Ok(at(0)));
        p.store(at(3), 6).unwrap();
        assert_eq!(remap(&p, at(0), 4, 2, RemapFlags::empty(), 0), Ok(at(0)));
        assert!(maperr(p.load(at(3))));
        p.anon_at(at(2), 1, Prot::R).unwrap();
        assert_eq!(remap(&p, at(0), 2, 3, RemapFlags::empty(), 0), Err(Errno::ENOMEM));
        let new = remap(&p, at(0), 2, 3, RemapFlags::MAYMOVE, 0).unwrap();
        assert!(maperr(p.load(at(1))));
        assert_eq!(p.load(new + PAGE), Ok(5));
        assert_eq!(p.load(new + 2 * PAGE), Ok(0));
        let fixed = RemapFlags::MAYMOVE | RemapFlags::FIXED;
        assert_eq!(remap(&p, new, 3, 3, fixed, at(2)), Ok(at(2)));
        assert_eq!(p.load(at(3)), Ok(5));
    });
}

#[test]
fn mremap_dontunmap_leaves_an_empty_mapping() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 2, Prot::RW).unwrap();
        p.store(at(1), 5).unwrap();
        let flags = RemapFlags::MAYMOVE | RemapFlags::DONTUNMAP;
        let new = remap(&p, at(0), 2, 2, flags, 0).unwrap();
        assert_eq!(p.load(new + PAGE), Ok(5));
        assert_eq!(p.load(at(1)), Ok(0));
        p.store(at(1), 1).unwrap();
        assert_eq!(p.load(new + PAGE), Ok(5));
    });
}

#[test]
fn mremap_refuses_what_makes_no_sense() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 2, Prot::RW).unwrap();
        assert_eq!(remap(&p, at(0), 2, 2, RemapFlags::FIXED, at(9)), Err(Errno::EINVAL));
        assert_eq!(remap(&p, at(0), 2, 0, RemapFlags::empty(), 0), Err(Errno::EINVAL));
        assert_eq!(remap(&p, at(5), 2, 4, RemapFlags::empty(), 0), Err(Errno::EFAULT));
        let fixed = RemapFlags::MAYMOVE | RemapFlags::FIXED;
        assert_eq!(remap(&p, at(0), 2, 2, fixed, at(1)), Err(Errno::EINVAL));
        let keep = RemapFlags::MAYMOVE | RemapFlags::DONTUNMAP;
        assert_eq!(remap(&p, at(0), 2, 3, keep, 0), Err(Errno::EINVAL));
    });
}

// ---- files ----

#[test]
fn private_pages_of_a_file_are_copied_on_write() {
    without_leak(|| {
        let (_, cache, file) = pattern_file(4);
        let p = Program::new();
        p.file_at(at(0), 4, Prot::RW, false, &file, 0).unwrap();
        assert_eq!(p.load(at(2)), Ok(3));
        p.store(at(2), 99).unwrap();
        p.store(at(3) + 1, 98).unwrap();
        assert_eq!((p.load(at(2)), p.load(at(2) + 1)), (Ok(99), Ok(3)));
        assert_eq!((p.load(at(3)), p.load(at(3) + 1)), (Ok(4), Ok(98)));
        let mut byte = [0];
        cache.read_at(2 * PAGE, &mut IoSink::kernel(&mut byte)).unwrap();
        assert_eq!(byte, [3]);
        assert_eq!(p.space.stats().rss.anon, 2);
    });
}

#[test]
fn shared_mappings_and_read_and_write_see_one_another() {
    without_leak(|| {
        let (source, cache, file) = pattern_file(4);
        let (p, q) = (Program::new(), Program::new());
        p.file_at(at(0), 4, Prot::RW, true, &file, 0).unwrap();
        q.file_at(at(8), 2, Prot::R, true, &file, 1).unwrap();
        assert_eq!(q.load(at(8)), Ok(2));
        p.store(at(1), 77).unwrap();
        assert_eq!(q.load(at(8)), Ok(77));
        let mut byte = [0];
        cache.read_at(PAGE, &mut IoSink::kernel(&mut byte)).unwrap();
        assert_eq!(byte, [77]);
        cache.write_at(PAGE, &mut IoSource::kernel(&[78]), u64::MAX).unwrap();
        assert_eq!(p.load(at(1)), Ok(78));
        // Write-back takes the right to write, so that the next store is seen again.
        p.space.msync(UserAddr(at(0)), 4 * PAGE, true, false).unwrap();
        assert_eq!(source.written.lock().unwrap().get(&1), Some(&78));
        p.store(at(1), 79).unwrap();
        cache.write_back().unwrap();
        assert_eq!(source.written.lock().unwrap().get(&1), Some(&79));
    });
}

#[test]
fn an_access_beyond_the_end_of_the_file_is_a_bus_error() {
    without_leak(|| {
        let (source, cache, file) = pattern_file(2);
        let p = Program::new();
        p.file_at(at(0), 4, Prot::RW, true, &file, 0).unwrap();
        assert_eq!(p.load(at(1)), Ok(2));
        assert_eq!(p.load(at(2)), Err(FaultOutcome::BusAdrErr));
        assert_eq!(p.store(at(3), 1), Err(FaultOutcome::BusAdrErr));
        cache.truncate(4 * PAGE).unwrap();
        source.fail.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(p.load(at(2)), Err(FaultOutcome::BusAdrErr));
        source.fail.store(false, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(p.load(at(2)), Ok(3));
    });
}

#[test]
fn truncation_takes_pages_from_mappings_private_copies_too() {
    without_leak(|| {
        let (cache, file) = memory_file(4);
        let (p, q) = (Program::new(), Program::new());
        p.file_at(at(0), 4, Prot::RW, true, &file, 0).unwrap();
        q.file_at(at(0), 4, Prot::RW, false, &file, 0).unwrap();
        for i in 0..4 {
            p.store(at(i), i as u8 + 1).unwrap();
            p.store(at(i) + 100, 50).unwrap();
            q.store(at(i) + 1, 9).unwrap();
        }
        cache.truncate(PAGE + 10).unwrap();
        assert_eq!(p.load(at(1)), Ok(2));
        assert_eq!(p.load(at(1) + 100), Ok(0));
        assert_eq!(p.load(at(2)), Err(FaultOutcome::BusAdrErr));
        assert_eq!(q.load(at(2)), Err(FaultOutcome::BusAdrErr));
        assert_eq!(q.load(at(1) + 1), Ok(9));
        assert_eq!(cache.resident_pages(), 2);
        cache.truncate(4 * PAGE).unwrap();
        assert_eq!(p.load(at(2)), Ok(0));
        assert_eq!(q.load(at(2) + 1), Ok(0));
    });
}

#[test]
fn a_read_fault_brings_the_neighbours_that_are_cached() {
    without_leak(|| {
        let (_, cache, file) = pattern_file(32);
        let mut all = vec![0; 32 * PAGE as usize];
        assert_eq!(cache.read_at(0, &mut IoSink::kernel(&mut all)), Ok(all.len()));
        let p = Program::new();
        p.file_at(at(0), 32, Prot::R, false, &file, 0).unwrap();
        for i in 0..32 {
            assert_eq!(p.load(at(i)), Ok(i as u8 + 1));
        }
        assert_eq!(*p.faults.borrow(), 2);
        assert_eq!(p.space.stats().rss.file, 32);
    });
}

#[test]
fn shared_anonymous_memory_is_shared_with_the_child() {
    without_leak(|| {
        let p = Program::new();
        let request =
            MapRequest { len: 2 * PAGE, prot: Prot::RW, flags: MapFlags::SHARED, ..Default::default() };
        let a = p.space.map(request).unwrap().0;
        p.store(a, 1).unwrap();
        let c = p.fork();
        c.store(a + PAGE, 2).unwrap();
        assert_eq!((p.load(a + PAGE), c.load(a)), (Ok(2), Ok(1)));
        assert_eq!(p.space.stats().rss.shmem, 2);
    });
}

#[test]
fn a_shared_mapping_of_a_read_only_file_never_becomes_writable() {
    without_leak(|| {
        let (cache, _) = memory_file(1);
        let file = kalloc::karc_dyn!(TestFile { cache, writable: false } => dyn MappedFile).unwrap();
        let p = Program::new();
        assert_eq!(p.file_at(at(0), 1, Prot::RW, true, &file, 0), Err(Errno::EACCES));
        p.file_at(at(0), 1, Prot::R, true, &file, 0).unwrap();
        assert_eq!(p.space.protect(UserAddr(at(0)), PAGE, Prot::RW, &p.limits), Err(Errno::EACCES));
        p.file_at(at(1), 1, Prot::R, false, &file, 0).unwrap();
        assert_eq!(p.space.protect(UserAddr(at(1)), PAGE, Prot::RW, &p.limits), Ok(()));
    });
}

// ---- reverse maps, remote access, statistics ----

#[test]
fn the_reverse_map_finds_every_mapping_of_a_page() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 4, Prot::RW).unwrap();
        p.store(at(2), 1).unwrap();
        let c = p.fork();
        let moved = remap(&c, at(2), 1, 1, RemapFlags::MAYMOVE | RemapFlags::FIXED, at(20)).unwrap();
        let frame = frames::frame_of(p.space.table.walk(UserAddr(at(2))).phys().pfn()).unwrap();
        assert_eq!(frame.mapcount(), 2);
        let mut found = Vec::new();
        rmap::for_each_mapping(frame, |space, addr| {
            if space.table.walk(UserAddr(addr)).phys() == frame.phys() {
                found.push((KArc::ptr_eq(space, &p.space), addr));
            }
        });
        found.sort_unstable();
        assert_eq!(found, [(false, moved), (true, at(2))]);
    });
}

#[test]
fn remote_access_sees_and_breaks_copy_on_write() {
    without_leak(|| {
        let p = Program::new();
        p.anon_at(at(0), 2, Prot::RW).unwrap();
        p.store(at(0), 1).unwrap();
        let c = p.fork();
        assert_eq!(c.space.write_remote(UserAddr(at(1) - 2), b"abcd"), Ok(4));
        let mut buf = [9; 5];
        assert_eq!(c.space.read_remote(UserAddr(at(1) - 2), &mut buf), Ok(5));
        assert_eq!(&buf, b"abcd\0");
        assert_eq!(p.load(at(1) - 1), Ok(0));
        assert_eq!(c.space.read_remote(UserAddr(at(2) - 1), &mut buf), Ok(1));
        assert_eq!(c.space.read_remote(UserAddr(at(2)), &mut buf), Err(Errno::EFAULT));
    });
}

#[test]
fn statistics_add_up() {
    without_leak(|| {
        let p = Program::new();
        let (_, _, file) = pattern_file(4);
        p.anon_at(at(0), 4, Prot::RW).unwrap();
        p.file_at(at(8), 4, Prot::RX, false, &file, 0).unwrap();
        p.store(at(0), 1).unwrap();
        p.load(at(8)).unwrap();
        let s = p.space.stats();
        assert_eq!((s.total, s.data, s.exec, s.areas, s.rss.anon, s.rss.file), (8, 4, 4, 2, 1, 1));
        let area = p.space.next_area(UserAddr(at(0))).unwrap();
        assert_eq!(p.space.usage(&area).private_dirty, PAGE);
        let mut residency = Vec::new();
        p.space
            .mincore(UserAddr(at(0)), 4 * PAGE, |b| {
                residency.extend_from_slice(b);
                Ok(())
            })
            .unwrap();
        assert_eq!(residency, [1, 0, 0, 0]);
        p.space.release();
        let s = p.space.stats();
        assert_eq!((s.total, s.areas, s.rss.total()), (0, 0, 0));
    });
}

// ---- the page cache alone ----

#[test]
fn reads_stop_at_the_end_and_holes_are_zero() {
    without_leak(|| {
        let (cache, _) = memory_file(0);
        assert_eq!(cache.write_at(2 * PAGE + 5, &mut IoSource::kernel(b"xyz"), u64::MAX), Ok(3));
        let mut buf = vec![7; 3 * PAGE as usize];
        assert_eq!(cache.read_at(10, &mut IoSink::kernel(&mut buf)), Ok(2 * PAGE as usize - 2));
        assert!(buf[..2 * PAGE as usize - 5].iter().all(|b| *b == 0));
        assert_eq!(&buf[2 * PAGE as usize - 5..2 * PAGE as usize - 2], b"xyz");
        assert_eq!(cache.resident_pages(), 1);
        assert_eq!(cache.write_at(100, &mut IoSource::kernel(b"x"), 100), Err(Errno::EFBIG));
        assert_eq!(cache.write_at(98, &mut IoSource::kernel(b"abcd"), 100), Ok(2));
    });
}

#[test]
fn discard_makes_a_hole_of_exactly_the_range() {
    without_leak(|| {
        let (cache, _) = memory_file(0);
        cache.write_at(0, &mut IoSource::kernel(&vec![1; 4 * PAGE as usize]), u64::MAX).unwrap();
        cache.discard(PAGE - 1, 3 * PAGE + 1).unwrap();
        let mut buf = vec![9; 4 * PAGE as usize];
        cache.read_at(0, &mut IoSink::kernel(&mut buf)).unwrap();
        for (i, b) in buf.iter().enumerate() {
            let inside = (PAGE - 1..3 * PAGE + 1).contains(&(i as u64));
            assert_eq!(*b, u8::from(!inside), "at {i}");
        }
        assert_eq!((cache.resident_pages(), cache.size()), (2, 4 * PAGE));
    });
}

#[test]
fn growing_again_does_not_show_what_was_cut() {
    without_leak(|| {
        let (cache, file) = memory_file(0);
        cache.write_at(0, &mut IoSource::kernel(b"abcdef"), u64::MAX).unwrap();
        let p = Program::new();
        p.file_at(at(0), 1, Prot::RW, true, &file, 0).unwrap();
        p.store(at(0) + 50, 1).unwrap();
        cache.truncate(3).unwrap();
        cache.truncate(100).unwrap();
        let mut buf = [9; 100];
        assert_eq!(cache.read_at(0, &mut IoSink::kernel(&mut buf)), Ok(100));
        assert_eq!(&buf[..4], b"abc\0");
        assert!(buf[3..].iter().all(|b| *b == 0));
    });
}

#[test]
fn user_memory_that_faults_ends_a_copy_with_what_went_over() {
    let _alone = alone();
    use arch::user::UserSlice;
    let (cache, _) = memory_file(0);
    arch::sim::map_user(UserAddr(0x1000), 10);
    arch::sim::write_user(UserAddr(0x1000), b"0123456789");
    let mut src = IoSource::user(UserSlice::new(UserAddr(0x1005), 20));
    assert_eq!(cache.write_at(0, &mut src, u64::MAX), Ok(5));
    assert_eq!((cache.size(), src.consumed()), (5, 5));
    assert_eq!(cache.write_at(5, &mut src, u64::MAX), Err(Errno::EFAULT));
    let pieces = [UserSlice::new(UserAddr(0x1000), 2), UserSlice::new(UserAddr(0x1008), 9)];
    let mut sink = IoSink::user_vec(&pieces);
    assert_eq!(sink.remaining(), 11);
    assert_eq!(cache.read_at(0, &mut sink), Ok(4));
    assert_eq!(arch::sim::read_user(UserAddr(0x1000), 10), b"5623456778");
    sink.revert(3);
    assert_eq!(sink.written(), 1);
    assert_eq!(sink.write(b"Z"), Ok(1));
    assert_eq!(arch::sim::read_user(UserAddr(0x1000), 2), b"5Z");
}

// ---- failures of allocation ----

/// Runs `f` with the n-th allocation failing, for every n that it reaches, and checks after each
/// failure that the map is as it was.
fn sweep(setup: impl Fn() -> Program, f: impl Fn(&Program) -> abi::Result) {
    for n in 1.. {
        let p = setup();
        let before = (areas(&p), p.space.stats());
        let contents: Vec<_> = (0..8).map(|i| p.load(at(i))).collect();
        kalloc::fail_nth(n);
        let outcome = f(&p);
        let unreached = kalloc::disarm();
        if unreached {
            assert_eq!(outcome, Ok(()));
            assert!(n > 1, "nothing was allocated");
            return;
        }
        if outcome.is_err() {
            assert_eq!(outcome, Err(Errno::ENOMEM));
            let after = (areas(&p), p.space.stats());
            assert_eq!(before.0, after.0, "allocation {n}");
            assert_eq!((before.1.total, before.1.data, before.1.areas), (after.1.total, after.1.data, after.1.areas));
        }
        for (i, was) in contents.iter().enumerate() {
            if outcome.is_err() {
                assert_eq!(p.load(at(i as u64)), *was, "allocation {n}");
            }
        }
    }
}

fn populated() -> Program {
    let p = Program::new();
    p.anon_at(at(0), 8, Prot::RW).unwrap();
    for i in 0..8 {
        p.store(at(i), i as u8 + 1).unwrap();
    }
    p
}

#[test]
fn a_call_that_runs_out_of_memory_changes_nothing() {
    without_leak(|| {
        sweep(populated, |p| p.space.unmap(UserAddr(at(2)), 2 * PAGE));
        sweep(populated, |p| p.space.protect(UserAddr(at(2)), 2 * PAGE, Prot::R, &p.limits));
        sweep(populated, |p| p.anon_at(at(3), 2, Prot::R).map(drop));
        sweep(populated, |p| p.anon_at(at(30), 2, Prot::R).map(drop));
        sweep(populated, |p| p.space.fork().map(drop));
        sweep(populated, |p| remap(p, at(2), 2, 2, RemapFlags::MAYMOVE | RemapFlags::FIXED, at(40)).map(drop));
        sweep(populated, |p| p.space.advise(UserAddr(at(2)), PAGE, Advice::DontFork));
        let (_, file) = memory_file(4);
        sweep(populated, |p| p.file_at(at(20), 4, Prot::RW, true, &file, 0).map(drop));
    });
}

// ---- the model ----

#[derive(Clone, Debug)]
enum Op {
    Map { page: u64, len: u64, prot: u8, kind: u8, first: u64 },
    Unmap { page: u64, len: u64 },
    Protect { page: u64, len: u64, prot: u8 },
    Write { page: u64, value: u8 },
    Read { page: u64 },
    DontNeed { page: u64, len: u64 },
    Move { page: u64, len: u64, to: u64 },
    Fork,
    Switch { n: usize },
    Exit,
    FileWrite { file: usize, page: u64, value: u8 },
    Truncate { file: usize, pages: u64 },
}

const PAGES: u64 = 24;
const FILE_PAGES: u64 = 8;

fn op() -> impl Strategy<Value = Op> {
    let page = 0..PAGES;
    let len = 1..6u64;
    prop_oneof![
        4 => (page.clone(), len.clone(), 0..4u8, 0..5u8, 0..FILE_PAGES)
            .prop_map(|(page, len, prot, kind, first)| Op::Map { page, len, prot, kind, first }),
        2 => (page.clone(), len.clone()).prop_map(|(page, len)| Op::Unmap { page, len }),
        2 => (page.clone(), len.clone(), 0..4u8).prop_map(|(page, len, prot)| Op::Protect { page, len, prot }),
        10 => (page.clone(), 1..255u8).prop_map(|(page, value)| Op::Write { page, value }),
        8 => page.clone().prop_map(|page| Op::Read { page }),
        1 => (page.clone(), len.clone()).prop_map(|(page, len)| Op::DontNeed { page, len }),
        1 => (page.clone(), 1..4u64, page.clone()).prop_map(|(page, len, to)| Op::Move { page, len, to }),
        2 => Just(Op::Fork),
        2 => (0..4usize).prop_map(|n| Op::Switch { n }),
        1 => Just(Op::Exit),
        2 => (0..2usize, 0..FILE_PAGES, 1..255u8).prop_map(|(file, page, value)| Op::FileWrite { file, page, value }),
        1 => (0..2usize, 0..=FILE_PAGES).prop_map(|(file, pages)| Op::Truncate { file, pages }),
    ]
}

fn prot_of(n: u8) -> Prot {
    [Prot::empty(), Prot::R, Prot::RW, Prot::RX][n as usize % 4]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Content {
    /// A private page, or one that nobody wrote yet.
    Private(u8),
    /// The file's page.
    File { file: usize, page: u64, shared: bool },
    /// A private copy of a file's page: gone with a truncation below it.
    Copy { file: usize, page: u64, value: u8 },
}

type View = BTreeMap<u64, (Prot, Content)>;

struct Model {
    /// Pages of each file, and how many of them exist.
    files: [[u8; FILE_PAGES as usize]; 2],
    sizes: [u64; 2],
}

impl Model {
    fn read(&self, view: &View, page: u64) -> Result<u8, FaultOutcome> {
        let Some((prot, content)) = view.get(&page) else { return Err(FaultOutcome::MAPERR) };
        if prot.is_empty() {
            return Err(FaultOutcome::ACCERR);
        }
        match *content {
            Content::Private(v) | Content::Copy { value: v, .. } => Ok(v),
            Content::File { file, page, .. } if page < self.sizes[file] => Ok(self.files[file][page as usize]),
            Content::File { .. } => Err(FaultOutcome::BusAdrErr),
        }
    }

    fn write(&mut self, view: &mut View, page: u64, value: u8) -> Result<(), FaultOutcome> {
        let Some((prot, content)) = view.get_mut(&page) else { return Err(FaultOutcome::MAPERR) };
        if !prot.contains(Prot::W) {
            return Err(FaultOutcome::ACCERR);
        }
        match content {
            Content::Private(v) | Content::Copy { value: v, .. } => *v = value,
            Content::File { file, page, .. } if *page >= self.sizes[*file] => return Err(FaultOutcome::BusAdrErr),
            Content::File { file, page, shared: true } => self.files[*file][*page as usize] = value,
            Content::File { file, page, shared: false } => *content = Content::Copy { file: *file, page: *page, value },
        }
        Ok(())
    }
}

fn run(ops: &[Op]) {
    let files: Vec<_> = (0..2)
        .map(|_| {
            let (cache, file) = memory_file(FILE_PAGES);
            (cache, file)
        })
        .collect();
    let mut model = Model { files: [[0; FILE_PAGES as usize]; 2], sizes: [FILE_PAGES; 2] };
    let mut programs: Vec<(Program, View)> = vec![(Program::new(), View::new())];
    let mut current = 0;
    for op in ops {
        let n = programs.len();
        let (p, view) = &mut programs[current];
        match *op {
            Op::Map { page, len, prot, kind, first } => {
                let prot = prot_of(prot);
                if kind == 0 {
                    p.anon_at(at(page), len, prot).unwrap();
                    for i in page..page + len {
                        view.insert(i, (prot, Content::Private(0)));
                    }
                } else {
                    let (file, shared) = ((kind as usize - 1) / 2, kind % 2 == 0);
                    p.file_at(at(page), len, prot, shared, &files[file].1, first).unwrap();
                    for i in 0..len {
                        // Pages beyond what the model's file can have are never resident.
                        let content = Content::File { file, page: first + i, shared };
                        view.insert(page + i, (prot, content));
                    }
                }
            }
            Op::Unmap { page, len } => {
                p.space.unmap(UserAddr(at(page)), len * PAGE).unwrap();
                view.retain(|i, _| *i < page || *i >= page + len);
            }
            Op::Protect { page, len, prot } => {
                let prot = prot_of(prot);
                let whole = (page..page + len).all(|i| view.contains_key(&i));
                let outcome = p.space.protect(UserAddr(at(page)), len * PAGE, prot, &p.limits);
                assert_eq!(outcome, if whole { Ok(()) } else { Err(Errno::ENOMEM) });
                if whole {
                    for i in page..page + len {
                        view.get_mut(&i).unwrap().0 = prot;
                    }
                }
            }
            Op::Write { page, value } => {
                let expected = model.write(view, page, value);
                assert_eq!(p.store(at(page), value), expected, "store to page {page}");
            }
            Op::Read { page } => assert_eq!(p.load(at(page)), model.read(view, page), "load of page {page}"),
            Op::DontNeed { page, len } => {
                let whole = (page..page + len).all(|i| view.contains_key(&i));
                let outcome = p.space.advise(UserAddr(at(page)), len * PAGE, Advice::DontNeed);
                assert_eq!(outcome, if whole { Ok(()) } else { Err(Errno::ENOMEM) });
                for i in page..page + len {
                    match view.get_mut(&i).map(|(_, c)| c) {
                        Some(Content::Private(v)) => *v = 0,
                        Some(c @ Content::Copy { .. }) => {
                            if let Content::Copy { file, page, .. } = *c {
                                *c = Content::File { file, page, shared: false };
                            }
                        }
                        _ => {}
                    }
                }
            }
            Op::Move { page, len, to } => {
                let area = p.space.next_area(UserAddr(at(page)));
                let inside = area.is_some_and(|a| a.start <= at(page) && a.end >= at(page + len));
                let overlap = page < to + len && to < page + len;
                let flags = RemapFlags::MAYMOVE | RemapFlags::FIXED;
                let outcome = remap(p, at(page), len, len, flags, at(to));
                match (inside, overlap) {
                    (_, true) => assert!(outcome.is_err()),
                    (true, false) => {
                        assert_eq!(outcome, Ok(at(to)));
                        for i in 0..len {
                            let gone = view.remove(&(page + i)).unwrap();
                            view.insert(to + i, gone);
                        }
                    }
                    (false, false) => assert_eq!(outcome, Err(Errno::EFAULT)),
                }
            }
            Op::Fork if n < 4 => {
                let child = (p.fork(), view.clone());
                programs.push(child);
            }
            Op::Fork => {}
            Op::Switch { n: to } => current = to % n,
            Op::Exit if n > 1 => {
                programs.swap_remove(current);
                current = 0;
            }
            Op::Exit => {}
            Op::FileWrite { file, page, value } => {
                if page < model.sizes[file] {
                    let (cache, _) = &files[file];
                    assert_eq!(cache.write_at(page * PAGE, &mut IoSource::kernel(&[value]), u64::MAX), Ok(1));
                    model.files[file][page as usize] = value;
                }
            }
            Op::Truncate { file, pages } => {
                files[file].0.truncate(pages * PAGE).unwrap();
                for i in pages..FILE_PAGES {
                    model.files[file][i as usize] = 0;
                }
                if pages < model.sizes[file] {
                    for (_, view) in &mut programs {
                        for (_, content) in view.values_mut() {
                            if let Content::Copy { file: f, page, .. } = *content
                                && f == file
                                && page >= pages
                            {
                                *content = Content::File { file, page, shared: false };
                            }
                        }
                    }
                }
                model.sizes[file] = pages;
            }
        }
    }
    for (p, view) in &programs {
        for page in 0..PAGES + 8 {
            assert_eq!(p.load(at(page)), model.read(view, page), "final load of page {page}");
        }
        let rss = p.space.stats().rss;
        let (mut anon, mut other) = (0, 0);
        p.space.table.visit(0, abi::USER_END, |_, slot| {
            if let Some(frame) = slot.frame() {
                if crate::rmap::is_anon(frame) { anon += 1 } else { other += 1 }
            }
        });
        assert_eq!((rss.anon, rss.file + rss.shmem), (anon, other), "resident counts");
        // Every mapped page is found through its reverse map.
        let mut mapped = Vec::new();
        p.space.table.visit(0, abi::USER_END, |addr, slot| {
            if let Some(frame) = slot.frame() {
                mapped.push((addr, frame.pfn()));
            }
        });
        for (addr, pfn) in mapped {
            let frame = frames::frame_of(pfn).unwrap();
            let mut found = false;
            rmap::for_each_mapping(frame, |space, a| found |= KArc::ptr_eq(space, &p.space) && a == addr);
            assert!(found, "page at {addr:#x} is not in its reverse map");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 4000, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_calls_and_accesses_agrees_with_the_model(ops in proptest::collection::vec(op(), 1..80)) {
        without_leak(|| run(&ops));
    }
}
