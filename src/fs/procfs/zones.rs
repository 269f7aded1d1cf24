//! The files about zones and their free memory: buddyinfo, pagetypeinfo, zoneinfo (proc(5), and
//! Documentation/filesystems/proc.rst), in Linux's formats.

use abi::Result;
use core::fmt::Write;
use frames::{Counter, MAX_ORDER, MigrateType, zone::{Zone, zones}};
use vfs::{proc_registry::add_fn, pseudo::{SeqBuf, no_memory}};

pub(crate) fn register() -> Result {
    add_fn("buddyinfo", 0o444, |out| buddyinfo(out).map_err(no_memory))?;
    add_fn("pagetypeinfo", 0o400, |out| pagetypeinfo(out).map_err(no_memory))?;
    add_fn("zoneinfo", 0o444, |out| zoneinfo(out).map_err(no_memory))
}

/// Zones that have memory.
fn populated() -> impl Iterator<Item = &'static Zone> {
    zones().iter().filter(|z| z.info().managed > 0)
}

fn buddyinfo(out: &mut SeqBuf) -> core::fmt::Result {
    for z in populated() {
        let z = z.info();
        write!(out, "Node 0, zone {:>8} ", z.name)?;
        for n in z.free_blocks {
            write!(out, "{n:>6} ")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn pagetypeinfo(out: &mut SeqBuf) -> core::fmt::Result {
    writeln!(out, "Page block order: {}", frames::PAGEBLOCK_ORDER)?;
    writeln!(out, "Pages per block:  {}", 1 << frames::PAGEBLOCK_ORDER)?;
    write!(out, "\n{:<43} ", "Free pages count per migrate type at order")?;
    for order in 0..=MAX_ORDER {
        write!(out, "{order:>6} ")?;
    }
    writeln!(out)?;
    for z in populated() {
        let z = z.info();
        for (kind, blocks) in MigrateType::ALL.iter().zip(z.by_type) {
            write!(out, "Node {:>4}, zone {:>8}, type {:>12} ", 0, z.name, kind.name())?;
            for n in blocks {
                write!(out, "{n:>6} ")?;
            }
            writeln!(out)?;
        }
    }
    write!(out, "\n{:<23}", "Number of blocks type ")?;
    for kind in MigrateType::ALL {
        write!(out, "{:>12} ", kind.name())?;
    }
    writeln!(out)?;
    for z in populated() {
        write!(out, "Node 0, zone {:>8} ", z.info().name)?;
        for n in z.pageblocks() {
            write!(out, "{n:>12} ")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn zoneinfo(out: &mut SeqBuf) -> core::fmt::Result {
    let mut first = true;
    for (index, zone) in zones().iter().enumerate() {
        let z = zone.info();
        write!(out, "Node 0, zone {:>8}", z.name)?;
        if first && z.managed > 0 {
            first = false;
            write!(out, "\n  per-node stats")?;
            for c in Counter::ALL.iter().filter(|c| c.name().starts_with("nr_")) {
                write!(out, "\n      {:<12} {}", c.name(), frames::counter(*c))?;
            }
        }
        write!(out, "\n  pages free     {}\n        boost    0\n        min      {}", z.free, z.min)?;
        write!(out, "\n        low      {}\n        high     {}\n        spanned  {}", z.low, z.high, z.spanned)?;
        write!(out, "\n        present  {}\n        managed  {}\n        cma      0", z.present, z.managed)?;
        // No zone keeps memory back from allocations that could have gone to a higher one.
        writeln!(out, "\n        protection: (0, 0, 0)")?;
        if z.managed == 0 {
            continue;
        }
        writeln!(out, "      nr_free_pages {}\n  pagesets", z.free)?;
        for cpu in arch::cpu::online().iter() {
            let (count, high, batch) = frames::per_cpu_lists(cpu, index);
            writeln!(out, "    cpu: {}\n              count: {count}\n              high:  {high}\n              batch: {batch}", cpu.0)?;
        }
        writeln!(out, "  node_unreclaimable:  0\n  start_pfn:           {}", z.start)?;
    }
    Ok(())
}
