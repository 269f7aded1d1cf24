//! Zones and their free memory: buddyinfo, pagetypeinfo, zoneinfo.

use crate::check::*;
use libc::*;

cases![zones:
    free_blocks_add_up_to_free_memory, types_add_up_to_free_blocks, sizes_of_a_zone_nest,
    memory_of_programs_can_move, per_cpu_lists_keep_to_their_limit,
];

const ORDERS: usize = 11;
const MIB: usize = 1 << 20;

fn text(path: &str) -> Result<String, Stop> {
    String::from_utf8(content(path)?).map_err(|_| Stop::Fail(format!("{path} is no text")))
}

/// The numbers at the end of a line.
fn numbers(line: &str) -> Vec<usize> {
    let mut found: Vec<_> = line.split_whitespace().rev().map_while(|w| w.trim_start_matches('>').parse().ok()).collect();
    found.reverse();
    found
}

fn pages(blocks: &[usize]) -> usize {
    blocks.iter().enumerate().map(|(order, n)| n << order).sum()
}

/// Pages in the free blocks of all zones.
fn free_in_blocks() -> Result<usize, Stop> {
    let mut sum = 0;
    for line in text("/proc/buddyinfo")?.lines() {
        check!(line.starts_with("Node 0, zone "));
        let blocks = numbers(line);
        eq!(blocks.len(), ORDERS);
        sum += pages(&blocks);
    }
    Ok(sum)
}

/// Free pages of a type in the first part of pagetypeinfo; of all types for "".
fn free_of_type(name: &str) -> Result<usize, Stop> {
    let text = text("/proc/pagetypeinfo")?;
    let of_type = |l: &&str| l.split_once(", type ").is_some_and(|(_, rest)| rest.trim_start().starts_with(name));
    let lines: Vec<_> = text.lines().filter(of_type).collect();
    check!(!lines.is_empty());
    let mut sum = 0;
    for line in lines {
        let blocks = numbers(line);
        eq!(blocks.len(), ORDERS);
        sum += pages(&blocks);
    }
    Ok(sum)
}

/// A field of each populated zone of zoneinfo.
fn zone_fields(field: &str) -> Result<Vec<usize>, Stop> {
    let text = text("/proc/zoneinfo")?;
    let mut found = Vec::new();
    for zone in text.split("Node 0, zone").skip(1).filter(|z| z.contains("pagesets")) {
        let line = zone.lines().map(str::trim).find(|l| l.strip_prefix(field).is_some_and(|rest| rest.starts_with([' ', ':'])));
        match line.and_then(|l| numbers(l).pop()) {
            Some(n) => found.push(n),
            None => fail!("no {field} in {zone}"),
        }
    }
    check!(!found.is_empty());
    Ok(found)
}

fn meminfo_pages(name: &str) -> Result<usize, Stop> {
    let text = text("/proc/meminfo")?;
    let row = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next());
    row.and_then(|n| n.parse::<usize>().ok()).map(|n| n * 1024 / PAGE).ok_or(Stop::Fail(format!("no {name}")))
}

fn free_blocks_add_up_to_free_memory() -> Outcome {
    let (blocks, free) = (free_in_blocks()?, meminfo_pages("MemFree")?);
    // MemFree has what lies in the CPUs' lists as well.
    check!(blocks.abs_diff(free) < 2048);
    Ok(())
}

fn types_add_up_to_free_blocks() -> Outcome {
    check!(free_of_type("")?.abs_diff(free_in_blocks()?) < 1024);
    for name in ["Unmovable", "Movable", "Reclaimable"] {
        free_of_type(name)?;
    }
    let text = text("/proc/pagetypeinfo")?;
    check!(text.starts_with("Page block order: 9\nPages per block:  512\n\nFree pages count per migrate type at order "));
    // As many pageblocks as the zones span memory.
    let Some((_, counts)) = text.split_once("\nNumber of blocks type ") else { fail!("no counts") };
    let blocks: usize = counts.lines().filter(|l| l.starts_with("Node")).map(|l| numbers(l).iter().sum::<usize>()).sum();
    let present: usize = zone_fields("present")?.iter().sum();
    check!(blocks * 512 >= present / 8 * 7 && blocks * 512 <= zone_fields("spanned")?.iter().sum::<usize>() + 4096);
    Ok(())
}

fn sizes_of_a_zone_nest() -> Outcome {
    let (spanned, present, managed) = (zone_fields("spanned")?, zone_fields("present")?, zone_fields("managed")?);
    for ((s, p), m) in spanned.iter().zip(&present).zip(&managed) {
        check!(s >= p && p >= m && *m > 0);
    }
    eq!(managed.iter().sum::<usize>(), meminfo_pages("MemTotal")?);
    let marks = (zone_fields("min")?, zone_fields("low")?, zone_fields("high")?);
    for ((min, low), high) in marks.0.iter().zip(&marks.1).zip(&marks.2) {
        check!(min <= low && low <= high);
    }
    Ok(())
}

fn memory_of_programs_can_move() -> Outcome {
    let fixed = free_of_type("Unmovable")?;
    let movable = free_of_type("Movable")?;
    let length = 32 * MIB;
    let at = ok!(map(length, RW));
    // Single pages, where large ones would be used.
    let _ = unsafe { madvise(at.cast(), length, MADV_NOHUGEPAGE) };
    for page in (0..length).step_by(PAGE) {
        // SAFETY: memory of this case.
        unsafe { at.add(page).write_volatile(1) };
    }
    // Page tables and the like are few.
    check!(movable.saturating_sub(free_of_type("Movable")?) > length / PAGE / 8 * 7);
    check!(free_of_type("Unmovable")? + 1024 > fixed);
    Ok(())
}

fn per_cpu_lists_keep_to_their_limit() -> Outcome {
    let at = ok!(map(8 * MIB, RW));
    for page in (0..8 * MIB).step_by(PAGE) {
        // SAFETY: memory of this case.
        unsafe { at.add(page).write_volatile(1) };
    }
    ok!(unmap(at, 8 * MIB));
    let text = text("/proc/zoneinfo")?;
    let fields = |name: &str| -> Vec<usize> {
        text.lines().filter_map(|l| l.trim().strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok()).collect()
    };
    let (count, high, batch) = (fields("count"), fields("high"), fields("batch"));
    check!(!count.is_empty() && count.len() == high.len());
    for ((c, h), b) in count.iter().zip(&high).zip(&batch) {
        check!(*b > 0 && *c <= *h + *b);
    }
    Ok(())
}
