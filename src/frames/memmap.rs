//! Where the descriptors stand: an array over all frame numbers, in which only the parts that
//! describe existing RAM are there.

use crate::{Frame, PhysRange, buddy::BLOCK_PAGES};
use abi::{PAGE_SIZE, PhysAddr, Pfn};
use sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Most banks of RAM that are used; further ones are left out with a message.
pub const MAX_BANKS: usize = 32;

struct Bank {
    start: AtomicU64,
    end: AtomicU64,
}

static BANKS: [Bank; MAX_BANKS] = [const { Bank { start: AtomicU64::new(0), end: AtomicU64::new(0) } }; MAX_BANKS];
/// Banks whose descriptors stand. Release-stored after them.
static COUNT: AtomicUsize = AtomicUsize::new(0);

#[cfg(target_os = "none")]
#[inline]
fn base() -> usize {
    arch::layout::FRAMES_BASE as usize
}

#[cfg(not(target_os = "none"))]
static HOST_BASE: AtomicUsize = AtomicUsize::new(0);

/// On the host the area is an allocation; the base is where frame 0 would be.
#[cfg(not(target_os = "none"))]
#[inline]
fn base() -> usize {
    HOST_BASE.load(Ordering::Relaxed)
}

/// Number of a descriptor.
#[inline]
pub(crate) fn pfn_of(f: &Frame) -> Pfn {
    Pfn((core::ptr::from_ref(f).addr().wrapping_sub(base()) / size_of::<Frame>()) as u64)
}

/// The banks of RAM, as frame numbers.
pub fn banks() -> impl Iterator<Item = (Pfn, Pfn)> {
    BANKS
        .iter()
        .take(COUNT.load(Ordering::Acquire))
        .map(|b| (Pfn(b.start.load(Ordering::Relaxed)), Pfn(b.end.load(Ordering::Relaxed))))
}

/// Whether the frame is RAM that has a descriptor.
#[inline]
pub fn is_ram(pfn: Pfn) -> bool {
    banks().any(|(s, e)| s <= pfn && pfn < e)
}

/// Descriptor of a frame; `None` if it is not RAM.
#[inline]
pub fn frame_of(pfn: Pfn) -> Option<&'static Frame> {
    // SAFETY: a frame of a bank has its descriptor mapped, for ever.
    is_ram(pfn).then(|| unsafe { &*at(pfn) })
}

/// The descriptor of the first frame of the pageblock that `f` is in. It stands even if that frame
/// is no RAM: descriptors are made for whole pageblocks.
#[inline]
pub(crate) fn first_of_pageblock(f: &Frame) -> &'static Frame {
    // SAFETY: the frame is in a bank; `create` made the descriptors from its pageblock's first on.
    unsafe { &*at(Pfn(pfn_of(f).0 & !(BLOCK_PAGES - 1))) }
}

fn at(pfn: Pfn) -> *const Frame {
    let addr = base().wrapping_add((pfn.0 as usize).wrapping_mul(size_of::<Frame>()));
    core::ptr::with_exposed_provenance(addr)
}

/// Registers the banks, whose descriptors have just been made by [`create`].
pub(crate) fn publish(ranges: &[PhysRange]) {
    let mut n = 0;
    for (slot, r) in BANKS.iter().zip(ranges) {
        let (start, end) = frames_in(r);
        slot.start.store(start.0, Ordering::Relaxed);
        slot.end.store(end.0, Ordering::Relaxed);
        n += 1;
    }
    COUNT.store(n, Ordering::Release);
}

/// The whole frames inside a range.
pub(crate) fn frames_in(r: &PhysRange) -> (Pfn, Pfn) {
    let start = r.start.0.div_ceil(PAGE_SIZE as u64);
    (Pfn(start), Pfn((r.end.0 / PAGE_SIZE as u64).max(start)))
}

/// Makes the zeroed descriptors of `ranges` stand. All-zero is a frame without holder or list.
#[cfg(target_os = "none")]
pub(crate) fn create(ranges: &[PhysRange]) -> bool {
    use crate::{boot, pagetable::kernel};
    use abi::VirtAddr;
    const BLOCK: u64 = 2 << 20;
    let mut done = 0u64;
    // Banks ascend, so their parts of the area do: what one bank mapped, the next goes on from.
    for r in ranges {
        let (first, end) = frames_in(r);
        let first = Pfn(first.0 & !(BLOCK_PAGES - 1));
        let end = (at(end).addr() as u64).next_multiple_of(PAGE_SIZE as u64);
        let mut v = (at(first).addr() as u64 & !(PAGE_SIZE as u64 - 1)).max(done);
        while v < end {
            let big = v % BLOCK == 0 && end - v >= BLOCK;
            let large = if big { boot::alloc(BLOCK as usize, BLOCK as usize) } else { None };
            let (phys, len) = match large {
                Some(p) => (p, BLOCK),
                None => match boot::alloc(PAGE_SIZE, PAGE_SIZE) {
                    Some(p) => (p, PAGE_SIZE as u64),
                    None => return false,
                },
            };
            boot::zero(phys, len as usize);
            if kernel::map(VirtAddr(v), phys, len as usize, arch::mmu::pte::KERNEL_RW).is_err() {
                return false;
            }
            v += len;
        }
        done = end;
    }
    true
}

/// As above, on the host: one zeroed allocation over the whole span.
#[cfg(not(target_os = "none"))]
pub(crate) fn create(ranges: &[PhysRange]) -> bool {
    extern crate std;
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return false };
    let (start, _) = frames_in(first);
    let start = Pfn(start.0 & !(BLOCK_PAGES - 1));
    let (_, end) = frames_in(last);
    let size = (end.0 - start.0) as usize * size_of::<Frame>();
    let Ok(layout) = core::alloc::Layout::from_size_align(size.max(64), 64) else { return false };
    // SAFETY: the size is not zero.
    let p = unsafe { std::alloc::alloc_zeroed(layout) };
    if p.is_null() {
        return false;
    }
    let base = p.expose_provenance().wrapping_sub(start.0 as usize * size_of::<Frame>());
    HOST_BASE.store(base, Ordering::Relaxed);
    true
}

/// The descriptor of a physical address.
#[inline]
pub(crate) fn frame_at(phys: PhysAddr) -> Option<&'static Frame> {
    frame_of(phys.pfn())
}
