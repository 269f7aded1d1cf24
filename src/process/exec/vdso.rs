//! The vDSO in each program's memory (`vdso(7)`): a page of data, and behind it the code of
//! `arch::vdso` that reads the clocks from it without a system call and that signal handlers return
//! to (C libraries for arm64 leave SA_RESTORER out and rely on it).
//!
//! All programs share the pages. The data page is filled by the timekeeper's writer, under its lock,
//! whenever the clocks' parameters change; its count is odd meanwhile, so that a reader who meets it
//! tries again. The layout is known to `arch/aarch64/vdso.S`.

use abi::{DevNum, Errno, Nanos, PAGE_SIZE, Result, UserAddr};
use core::fmt;
use frames::FrameRef;
use kalloc::KArc;
use mm::{AddressSpace, Backing, Fixed, Get, MapFlags, MapRequest, MappedFile, PageCache, Prot};
use sync::{
    Once,
    atomic::{AtomicU32, Ordering, fence},
};
use time::timekeeper::{COARSE_STEP, Timekeeper};

const PAGE: u64 = PAGE_SIZE as u64;
/// Clock ids from 0 to CLOCK_TAI.
const CLOCKS: usize = 12;
/// Words of the data page behind its first one, which holds the count.
const WORDS: usize = 7 + CLOCKS;
/// Divides by a second: a number shifted right by 9, the upper half of its product with this, shifted
/// right by 11.
const PER_SECOND_MAGIC: u64 = 0x0044_b82f_a09b_5a53;

static PAGES: Once<Pages> = Once::new();
static COUNT: AtomicU32 = AtomicU32::new(0);

struct Pages {
    data: KArc<dyn MappedFile>,
    code: KArc<dyn MappedFile>,
    data_frame: FrameRef,
}

/// One of the two mappings.
struct Object {
    cache: KArc<PageCache>,
    name: &'static str,
    flags: MapFlags,
}

impl MappedFile for Object {
    fn cache(&self) -> &KArc<PageCache> {
        &self.cache
    }
    fn may_map(&self, _prot: Prot, _shared: bool) -> Result {
        Ok(())
    }
    fn forced_flags(&self, _shared: bool) -> MapFlags {
        self.flags
    }
    fn describe(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str(self.name)
    }
    fn identity(&self) -> (DevNum, u64) {
        (DevNum::default(), 0)
    }
}

/// Makes the pages; at boot, before the first program.
pub(super) fn init() -> Result {
    let (data, frame) = object("[vvar]", &[], MapFlags::NO_WRITE | MapFlags::NO_EXEC | MapFlags::DONTDUMP)?;
    let (code, _) = object("[vdso]", arch::vdso::image(), MapFlags::empty())?;
    PAGES.call_once(|| Pages { data, code, data_frame: frame });
    time::timekeeper::set_publisher(publish);
    Ok(())
}

/// A mapping of these bytes, and its first page.
fn object(name: &'static str, bytes: &[u8], flags: MapFlags) -> Result<(KArc<dyn MappedFile>, FrameRef)> {
    let cache = PageCache::new(None)?;
    cache.set_size((bytes.len() as u64).max(1).next_multiple_of(PAGE));
    let first = cache.page(0, Get::Create)?.ok_or(Errno::ENOMEM)?;
    for (index, part) in bytes.chunks(PAGE_SIZE).enumerate() {
        cache.page(index as u64, Get::Create)?.ok_or(Errno::ENOMEM)?.copy_in(0, part);
    }
    Ok((kalloc::karc_dyn!(Object { cache, name, flags } => dyn MappedFile)?, first))
}

/// Writes the clocks' parameters where programs read them. The timekeeper's lock is held.
fn publish(tk: &Timekeeper) {
    let Some(pages) = PAGES.get() else { return };
    let mut bytes = [0u8; WORDS * 8];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words(tk)) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    let count = COUNT.load(Ordering::Relaxed);
    let begin = |n: u32| pages.data_frame.copy_in(0, &n.to_le_bytes());
    begin(count.wrapping_add(1));
    // The odd count before the parameters, and these before the even one: both pair with the
    // `dmb ishld` of vdso.S.
    fence(Ordering::Release);
    pages.data_frame.copy_in(8, &bytes);
    fence(Ordering::Release);
    begin(count.wrapping_add(2));
    COUNT.store(count.wrapping_add(2), Ordering::Relaxed);
}

/// What stands behind the count.
fn words(tk: &Timekeeper) -> [u64; WORDS] {
    use abi::raw::general as g;
    let (mult, shift) = tk.conversion.factors();
    let shift = u64::from(shift);
    let mut out = [0; WORDS];
    let head = [tk.base_ticks, mult, 64u64.saturating_sub(shift), shift.saturating_sub(64), COARSE_STEP.0, PER_SECOND_MAGIC, Nanos::PER_SEC];
    let base = |ahead: u64| tk.base.0.saturating_add(ahead);
    let tai = tk.real_offset.0.saturating_add_signed(i64::from(tk.tai_offset) * Nanos::PER_SEC as i64);
    let (to_head, clocks) = out.split_at_mut(head.len());
    to_head.copy_from_slice(&head);
    for (id, value) in [
        (g::CLOCK_REALTIME, base(tk.real_offset.0)),
        (g::CLOCK_MONOTONIC, base(0)),
        (g::CLOCK_MONOTONIC_RAW, base(0)),
        // The coarse clocks: what they are ahead of the monotonic one's whole steps.
        (g::CLOCK_REALTIME_COARSE, tk.real_offset.0),
        (g::CLOCK_MONOTONIC_COARSE, 0),
        (g::CLOCK_BOOTTIME, base(tk.boot_offset.0)),
        (g::CLOCK_TAI, base(tai)),
    ] {
        if let Some(slot) = clocks.get_mut(id as usize) {
            *slot = value;
        }
    }
    out
}

/// Maps both into a new space where `mmap` would, the data before the code; the code's address.
pub(super) fn map(mm: &AddressSpace) -> Result<u64> {
    let pages = PAGES.get().ok_or(Errno::ENOMEM)?;
    let len = pages.code.cache().size();
    let start = mm.find_hole(PAGE + len).ok_or(Errno::ENOMEM)?;
    for (at, len, file, prot) in [(start.0, PAGE, &pages.data, Prot::R), (start.0 + PAGE, len, &pages.code, Prot::RX)] {
        mm.map(MapRequest {
            addr: Some(UserAddr(at)),
            fixed: Fixed::NoReplace,
            len,
            prot,
            backing: Backing::File { file: file.clone(), offset: 0 },
            ..MapRequest::default()
        })?;
    }
    Ok(start.0 + PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::conversion::Conversion;

    /// What the code of the vDSO computes of the words.
    fn monotonic(w: &[u64; WORDS], ticks: u64) -> u64 {
        let high = |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64;
        (high((ticks - w[0]) << w[2], w[1]) >> w[3]) + w[7 + 1]
    }

    #[test]
    fn the_page_gives_the_timekeepers_time() {
        for frequency in [1, 19_200_000, 54_000_000, 62_500_000, 1_000_000_000, 3_999_999_999] {
            let conversion = Conversion::new(frequency);
            let tk = Timekeeper {
                base_ticks: 77,
                base: Nanos(5),
                conversion,
                real_offset: Nanos(1 << 60),
                boot_offset: Nanos(9),
                tai_offset: 37,
            };
            let w = words(&tk);
            for ticks in [0, 1, 12_345, frequency, frequency * 86_400 * 365] {
                assert_eq!(monotonic(&w, 77 + ticks), 5 + conversion.to_nanos(ticks).0, "{frequency} Hz");
            }
            assert_eq!((w[7], w[7 + 5], w[7 + 6], w[7 + 7]), ((1 << 60) + 5, 1 << 60, 0, 14));
            assert_eq!(w[7 + 11], (1 << 60) + 5 + 37 * Nanos::PER_SEC);
        }
    }

    #[test]
    fn the_magic_number_divides_by_a_second() {
        for n in [0, 1, 999_999_999, 1_000_000_000, 1 << 63, u64::MAX, u64::MAX - 709_551_615] {
            let high = ((u128::from(n >> 9) * u128::from(PER_SECOND_MAGIC)) >> 64) as u64;
            assert_eq!(high >> 11, n / Nanos::PER_SEC);
        }
    }
}
