//! `/proc/sys` of the rooms below the VFS: what they are, and what cannot be changed.

use crate::system::line;
use abi::Result;
use core::fmt::Write;
use vfs::{
    proc_registry::add_fn,
    pseudo::{SeqBuf, no_memory},
    random,
    sysctl::{Number, add_number},
};

/// Settings of memory management, which lies below the VFS.
static MEMORY: [(&str, &Number); 7] = [
    ("sys/vm/overcommit_memory", &mm::commit::MODE),
    ("sys/vm/overcommit_ratio", &mm::commit::RATIO),
    ("sys/vm/overcommit_kbytes", &mm::commit::KBYTES),
    ("sys/vm/admin_reserve_kbytes", &mm::commit::ADMIN_RESERVE),
    ("sys/vm/user_reserve_kbytes", &mm::commit::USER_RESERVE),
    ("sys/vm/max_map_count", &mm::MAX_AREAS),
    ("sys/vm/mmap_min_addr", &mm::MIN_ADDR),
];

pub(crate) fn register() -> Result {
    add_fn("sys/kernel/ostype", 0o444, |out| line(out, "Linux"))?;
    add_fn("sys/kernel/osrelease", 0o444, |out| line(out, abi::RELEASE))?;
    add_fn("sys/kernel/version", 0o444, |out| line(out, abi::VERSION))?;
    add_fn("sys/kernel/arch", 0o444, |out| line(out, "aarch64"))?;
    add_fn("sys/kernel/ngroups_max", 0o444, |out| line(out, "65536"))?;
    add_fn("sys/kernel/cap_last_cap", 0o444, |out| {
        writeln!(out, "{}", abi::raw::general::CAP_LAST_CAP).map_err(no_memory)
    })?;
    for path in ["sys/kernel/overflowuid", "sys/kernel/overflowgid", "sys/fs/overflowuid", "sys/fs/overflowgid"] {
        add_fn(path, 0o444, |out| line(out, "65534"))?;
    }
    add_fn("sys/kernel/random/uuid", 0o444, |out| uuid(out, fresh_uuid()))?;
    add_fn("sys/kernel/random/boot_id", 0o444, |out| uuid(out, *BOOT_ID.call_once(fresh_uuid)))?;
    add_fn("sys/kernel/random/poolsize", 0o444, |out| line(out, "256"))?;
    // Full or not seeded yet: a generator of this kind has nothing between.
    add_fn("sys/kernel/random/entropy_avail", 0o444, |out| line(out, if random::is_seeded() { "256" } else { "0" }))?;
    add_fn("sys/fs/nr_open", 0o444, |out| line(out, "1048576"))?;
    for (path, number) in MEMORY {
        add_number(path, number)?;
    }
    Ok(())
}

static BOOT_ID: sync::Once<[u8; 16]> = sync::Once::new();

/// A random UUID (RFC 9562, version 4).
fn fresh_uuid() -> [u8; 16] {
    let mut id = [0; 16];
    random::fill(&mut id);
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

fn uuid(out: &mut SeqBuf, id: [u8; 16]) -> Result {
    let n = u128::from_be_bytes(id);
    writeln!(
        out,
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        n >> 96,
        n >> 80 & 0xffff,
        n >> 64 & 0xffff,
        n >> 48 & 0xffff,
        n & 0xffff_ffff_ffff
    )
    .map_err(no_memory)
}
