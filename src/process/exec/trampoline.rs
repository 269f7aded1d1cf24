//! The page that a signal handler returns to: `mov x8, #__NR_rt_sigreturn; svc #0`.
//!
//! C libraries for arm64 leave SA_RESTORER out and rely on the kernel's code (glibc), so every
//! program gets the page, shared and read-only. It is what will grow into the vDSO.

use abi::{DevNum, Errno, PAGE_SIZE, Result};
use core::fmt;
use kalloc::KArc;
use mm::{AddressSpace, Backing, Get, MapFlags, MapRequest, MappedFile, PageCache, Prot};
use sync::{LockClass, SpinLock};

static PAGE_CLASS: LockClass = LockClass::new("process.trampoline", 1034);
static PAGE: SpinLock<Option<KArc<Trampoline>>> = SpinLock::new(None, &PAGE_CLASS);

/// `mov x8, #139` and `svc #0` (Arm ARM C6.2.227, C6.2.365); 139 is `__NR_rt_sigreturn`.
const CODE: [u32; 2] = code(abi::raw::general::__NR_rt_sigreturn);

const fn code(number: u32) -> [u32; 2] {
    [0xd280_0008 | number << 5, 0xd400_0001]
}

struct Trampoline {
    cache: KArc<PageCache>,
}

impl MappedFile for Trampoline {
    fn cache(&self) -> &KArc<PageCache> {
        &self.cache
    }
    fn may_map(&self, _prot: Prot, _shared: bool) -> Result {
        Ok(())
    }
    fn forced_flags(&self, _shared: bool) -> MapFlags {
        MapFlags::NO_WRITE
    }
    fn describe(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str("[vdso]")
    }
    fn identity(&self) -> (DevNum, u64) {
        (DevNum::default(), 0)
    }
}

/// Makes the page; at boot, before the first program.
pub(crate) fn init() -> Result {
    let cache = PageCache::new(None)?;
    cache.set_size(PAGE_SIZE as u64);
    let frame = cache.page(0, Get::Create)?.ok_or(Errno::ENOMEM)?;
    let [a, b] = CODE;
    let mut bytes = [0u8; 8];
    let (first, second) = bytes.split_at_mut(4);
    first.copy_from_slice(&a.to_le_bytes());
    second.copy_from_slice(&b.to_le_bytes());
    frame.copy_in(0, &bytes);
    *PAGE.lock() = Some(KArc::try_new(Trampoline { cache })?);
    Ok(())
}

/// Maps the page into a new space; returns the code's address.
pub(super) fn map(mm: &KArc<AddressSpace>) -> Result<u64> {
    let page = PAGE.lock().clone().ok_or(Errno::ENOMEM)?;
    let at = mm.map(MapRequest {
        len: PAGE_SIZE as u64,
        prot: Prot::RX,
        backing: Backing::File { file: kalloc::karc_as!(page => dyn MappedFile), offset: 0 },
        ..MapRequest::default()
    })?;
    Ok(at.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_mov_x8_139_and_svc_0() {
        // As an assembler encodes them. (This machine's own number may be another.)
        assert_eq!(code(139), [0xd280_1168, 0xd400_0001]);
    }
}
