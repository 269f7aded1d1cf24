//! What programs may be promised: vm.overcommit_*, the reserves, max_map_count, mmap_min_addr.

use crate::check::*;
use libc::*;

cases![overcommit:
    heuristic_refuses_more_than_the_machine_has, always_refuses_nothing, never_keeps_to_the_limit,
    never_counts_what_becomes_writable, never_counts_what_a_fork_copies, reserve_is_for_root,
    ratio_and_kbytes_replace_each_other, account_follows_mappings, map_count_is_a_setting,
    lowest_addresses_are_for_raw_io, settings_have_limits,
];

const MIB: usize = 1 << 20;
const PRIVATE: i32 = MAP_PRIVATE | MAP_ANONYMOUS;

/// A setting of /proc/sys/vm, put back when the case ends.
struct Setting {
    path: String,
    before: Vec<u8>,
}

impl Setting {
    fn set(name: &str, value: usize) -> Result<Self, Stop> {
        let path = format!("/proc/sys/vm/{name}");
        let before = content(&path)?;
        let setting = Self { path, before };
        setting.put(value)?;
        Ok(setting)
    }
    fn put(&self, value: usize) -> Outcome {
        std::fs::write(&self.path, value.to_string()).map_err(|e| Stop::Fail(format!("{}: {e}", self.path)))
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // 0 of one of the two that replace each other means the other: leave that alone.
        if self.before != b"0\n" || !(self.path.ends_with("ratio") || self.path.ends_with("kbytes")) {
            let _ = std::fs::write(&self.path, &self.before);
        }
    }
}

/// A row of /proc/meminfo, in bytes.
fn meminfo(name: &str) -> Result<usize, Stop> {
    let text = String::from_utf8(content("/proc/meminfo")?).unwrap_or_default();
    let row = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next());
    row.and_then(|n| n.parse::<usize>().ok()).map(|n| n * 1024).ok_or(Stop::Fail(format!("no {name}")))
}

/// Mode 2 with this much more to promise than is promised now.
fn never(room: usize) -> Result<[Setting; 4], Stop> {
    let admin = Setting::set("admin_reserve_kbytes", 0)?;
    let user = Setting::set("user_reserve_kbytes", 0)?;
    let swap = meminfo("SwapTotal")?;
    let ratio = Setting::set("overcommit_ratio", 50)?;
    std::fs::write("/proc/sys/vm/overcommit_kbytes", ((meminfo("Committed_AS")? + room - swap.min(room)) / 1024).to_string())
        .map_err(|e| Stop::Fail(format!("overcommit_kbytes: {e}")))?;
    Ok([admin, user, ratio, Setting::set("overcommit_memory", 2)?])
}

fn heuristic_refuses_more_than_the_machine_has() -> Outcome {
    let _mode = Setting::set("overcommit_memory", 0)?;
    let all = meminfo("MemTotal")? + meminfo("SwapTotal")?;
    errno!(map(all + 16 * MIB, RW), ENOMEM);
    // What is not private and writable is no promise.
    ok!(map(all + 16 * MIB, PROT_READ));
    ok!(map_with(all + 16 * MIB, RW, PRIVATE | MAP_NORESERVE, -1));
    // Only each request alone is looked at.
    ok!(map(all / 4 * 3, RW));
    ok!(map(all / 4 * 3, RW));
    Ok(())
}

fn always_refuses_nothing() -> Outcome {
    let _mode = Setting::set("overcommit_memory", 1)?;
    let at = ok!(map(1 << 40, RW));
    // SAFETY: a page of this case.
    unsafe { at.add(1 << 39).write_volatile(1) };
    Ok(())
}

fn never_keeps_to_the_limit() -> Outcome {
    let _settings = never(64 * MIB)?;
    errno!(map(96 * MIB, RW), ENOMEM);
    errno!(map_with(96 * MIB, RW, MAP_SHARED | MAP_ANONYMOUS, -1), ENOMEM);
    // The wish not to be counted does not count.
    errno!(map_with(96 * MIB, RW, PRIVATE | MAP_NORESERVE, -1), ENOMEM);
    ok!(map(96 * MIB, PROT_READ));
    let at = ok!(map(40 * MIB, RW));
    errno!(map(40 * MIB, RW), ENOMEM);
    ok!(unmap(at, 40 * MIB));
    ok!(map(40 * MIB, RW));
    Ok(())
}

fn never_counts_what_becomes_writable() -> Outcome {
    let _settings = never(64 * MIB)?;
    let at = ok!(map(96 * MIB, PROT_READ));
    errno!(mprotect(at.cast(), 96 * MIB, RW), ENOMEM);
    ok!(mprotect(at.cast(), 24 * MIB, RW));
    // Stays counted when it cannot be written any more: its pages may be its own by now.
    ok!(mprotect(at.cast(), 24 * MIB, PROT_READ));
    errno!(map(60 * MIB, RW), ENOMEM);
    // A mapping that grows.
    let grown = ok!(map(4 * MIB, RW));
    // SAFETY: a mapping of this case.
    errno!(unsafe { mremap(grown.cast(), 4 * MIB, 80 * MIB, MREMAP_MAYMOVE) } as isize, ENOMEM);
    Ok(())
}

fn never_counts_what_a_fork_copies() -> Outcome {
    let _settings = never(64 * MIB)?;
    ok!(map(48 * MIB, RW));
    // SAFETY: the child ends at once.
    let pid = unsafe { fork() };
    if pid == 0 {
        // SAFETY: nothing of the parent is used.
        unsafe { _exit(0) };
    }
    if pid > 0 {
        wait_for(pid);
    }
    errno!(pid, ENOMEM);
    Ok(())
}

fn reserve_is_for_root() -> Outcome {
    let _settings = never(64 * MIB)?;
    let _admin = Setting::set("admin_reserve_kbytes", 32 << 10)?;
    in_child(|| {
        ok!(map(48 * MIB, RW));
        Ok(())
    })?;
    in_child(|| {
        ok!(setresuid(1000, 1000, 1000));
        errno!(map(48 * MIB, RW), ENOMEM);
        ok!(map(8 * MIB, RW));
        Ok(())
    })
}

fn ratio_and_kbytes_replace_each_other() -> Outcome {
    let ratio = Setting::set("overcommit_ratio", 25)?;
    let (total, swap) = (meminfo("MemTotal")?, meminfo("SwapTotal")?);
    check!(meminfo("CommitLimit")?.abs_diff(total / 4 + swap) < MIB);
    let kbytes = Setting::set("overcommit_kbytes", 12 << 10)?;
    eq!(content(&ratio.path)?, b"0\n");
    eq!(meminfo("CommitLimit")?, 12 * MIB + swap);
    ratio.put(200)?;
    eq!(content(&kbytes.path)?, b"0\n");
    check!(meminfo("CommitLimit")?.abs_diff(total * 2 + swap) < MIB);
    Ok(())
}

fn account_follows_mappings() -> Outcome {
    let near = |a: usize, b: usize| a.abs_diff(b) < 4 * MIB;
    let before = meminfo("Committed_AS")?;
    let at = ok!(map(16 * MIB, RW));
    check!(near(meminfo("Committed_AS")?, before + 16 * MIB));
    ok!(map(16 * MIB, PROT_READ));
    ok!(map_with(16 * MIB, RW, PRIVATE | MAP_NORESERVE, -1));
    check!(near(meminfo("Committed_AS")?, before + 16 * MIB));
    let shared = ok!(map_with(16 * MIB, RW, MAP_SHARED | MAP_ANONYMOUS, -1));
    check!(near(meminfo("Committed_AS")?, before + 32 * MIB));
    ok!(unmap(at, 16 * MIB));
    ok!(unmap(shared, 16 * MIB));
    check!(near(meminfo("Committed_AS")?, before));
    Ok(())
}

fn map_count_is_a_setting() -> Outcome {
    let lines = content("/proc/self/maps")?.split(|b| *b == b'\n').count();
    let setting = Setting::set("max_map_count", lines + 8)?;
    // Mappings that do not join: shared ones of files of their own.
    let mut made = 0;
    while made < 100 {
        if map_with(PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1) == MAP_FAILED.cast() {
            eq!(std::io::Error::last_os_error().raw_os_error(), Some(ENOMEM));
            break;
        }
        made += 1;
    }
    check!((4..16).contains(&made));
    drop(setting);
    ok!(map_with(PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1));
    Ok(())
}

fn lowest_addresses_are_for_raw_io() -> Outcome {
    let setting = Setting::set("mmap_min_addr", 0x10000)?;
    // SAFETY: nothing of this program lies there.
    let low = |at: usize| unsafe { mmap(at as *mut _, PAGE, RW, PRIVATE | MAP_FIXED, -1, 0) }.cast::<u8>();
    let page = ok!(low(0x1000));
    ok!(unmap(page, PAGE));
    let ordinary = || {
        ok!(setresuid(1000, 1000, 1000));
        errno!(low(0x1000), EPERM);
        errno!(low(0), EPERM);
        errno!(low(0xf000), EPERM);
        ok!(low(0x10000));
        // A wish that low is not followed, and no error.
        // SAFETY: as above.
        let elsewhere = ok!(unsafe { mmap(0x2000 as *mut _, PAGE, RW, PRIVATE, -1, 0) }.cast::<u8>());
        check!(elsewhere as usize >= 0x10000);
        Ok(())
    };
    in_child(ordinary)?;
    setting.put(0x1000)?;
    in_child(|| {
        ok!(setresuid(1000, 1000, 1000));
        errno!(low(0), EPERM);
        ok!(low(0x1000));
        Ok(())
    })
}

fn settings_have_limits() -> Outcome {
    for (name, bad) in [("overcommit_memory", "3"), ("overcommit_memory", "-1"), ("max_map_count", "-1")] {
        let path = format!("/proc/sys/vm/{name}");
        let before = content(&path)?;
        let error = std::fs::write(&path, bad).err().and_then(|e| e.raw_os_error());
        eq!((name, error), (name, Some(EINVAL)));
        eq!(content(&path)?, before);
    }
    Ok(())
}
