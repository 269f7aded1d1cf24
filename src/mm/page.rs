//! What a frame learns when it is mapped and unmapped: owner, map count, statistics.

use arch::cache;
use frames::{Counter, Frame, FrameFlags, FrameRef};

use crate::{lru, rmap::{self, Family}, rss::Kind};

/// Makes a frame that nobody else knows an anonymous page at `index` of the family.
pub(crate) fn make_anon(frame: &Frame, family: &Family, index: u64) {
    family.adopt(frame, index);
    frame.set(FrameFlags::ANON | FrameFlags::SWAPBACKED | FrameFlags::UPTODATE | FrameFlags::DIRTY);
}

/// One more entry maps the anonymous page.
pub(crate) fn mapped_anon(frame: &FrameRef) {
    if frame.inc_mapcount() == 0 {
        frames::count(Counter::AnonPages, 1);
        lru::add(FrameRef::frame(frame), lru::Which::Anon);
    }
}

/// One more entry maps the page of a cache.
pub(crate) fn mapped_file(frame: &Frame) {
    if frame.inc_mapcount() == 0 {
        frames::count(Counter::Mapped, 1);
    }
}

/// One entry fewer maps the page; its kind.
pub(crate) fn unmapped(frame: &FrameRef) -> Kind {
    let last = frame.dec_mapcount() == 0;
    if frame.test(FrameFlags::ANON) {
        if last {
            frames::count(Counter::AnonPages, -1);
            lru::remove(FrameRef::frame(frame));
        }
        Kind::Anon
    } else {
        if last {
            frames::count(Counter::Mapped, -1);
        }
        file_kind(frame)
    }
}

/// What kind of resident page a page of a cache is.
pub(crate) fn file_kind(frame: &Frame) -> Kind {
    if frame.test(FrameFlags::SWAPBACKED) { Kind::Shmem } else { Kind::File }
}

/// Whether the one entry that the caller has locked is all that refers to the anonymous page.
pub(crate) fn sole_owner(frame: &Frame) -> bool {
    rmap::is_anon(frame) && frame.mapcount() == 1 && frame.refcount() == 1
}

/// Before a page becomes executable: instruction fetch must see what stores put there
/// (Arm ARM B2.4.4: clean to PoU, invalidate I). Once per change of contents.
pub(crate) fn sync_icache(frame: &Frame) {
    if !frame.test(FrameFlags::ICACHE_CLEAN) {
        cache::sync_icache(frame.virt(), abi::PAGE_SIZE);
        frame.set(FrameFlags::ICACHE_CLEAN);
    }
}
