//! Cache maintenance: the host's caches need none.

use abi::VirtAddr;

/// Makes new instructions visible to instruction fetch.
pub fn sync_icache(_: VirtAddr, _: usize) {}

/// Writes dirty lines back to memory.
pub fn clean_to_poc(_: VirtAddr, _: usize) {}

/// Drops lines.
pub fn invalidate_to_poc(_: VirtAddr, _: usize) {}

/// Writes dirty lines back and drops them.
pub fn clean_invalidate_to_poc(_: VirtAddr, _: usize) {}
