//! What is known about one page frame: its descriptor, and lists of frames.

use crate::memmap;
use abi::{PhysAddr, Pfn, VirtAddr};
use core::ptr;
use sync::{
    RawSpinLock,
    atomic::{AtomicI32, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering},
};

bitflags::bitflags! {
    /// State of a frame. The upper rooms' flags are theirs to define; this crate only stores them
    /// and clears them when the frame is freed.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct FrameFlags: u32 {
        /// Head of a free block in a zone's list.
        const BUDDY = 1 << 0;
        /// In a per-CPU list.
        const PER_CPU = 1 << 1;
        /// Holds objects of a slab cache.
        const SLAB = 1 << 2;
        /// Holds a translation table.
        const PAGE_TABLE = 1 << 3;
        /// Never given out: firmware, kernel image, boot data.
        const RESERVED = 1 << 4;
        /// First of a block of several frames.
        const COMPOUND_HEAD = 1 << 5;
        /// Another one of a block; `private` has the head's number.
        const COMPOUND_TAIL = 1 << 6;
        /// The page lock.
        const LOCKED = 1 << 8;
        /// Somebody waits for the page lock.
        const WAITERS = 1 << 9;
        /// The content is what the file has.
        const UPTODATE = 1 << 10;
        /// The content is newer than what the file has.
        const DIRTY = 1 << 11;
        /// Used since reclaim looked last.
        const REFERENCED = 1 << 12;
        /// On an active list.
        const ACTIVE = 1 << 13;
        /// On an LRU list.
        const LRU = 1 << 14;
        /// Can go to swap.
        const SWAPBACKED = 1 << 15;
        /// Anonymous memory: `mapping` is a reverse map.
        const ANON = 1 << 16;
        /// Being written to its file.
        const WRITEBACK = 1 << 17;
        /// Not to be reclaimed.
        const UNEVICTABLE = 1 << 18;
        /// mlocked.
        const MLOCKED = 1 << 19;
        /// Reading or writing it failed.
        const ERROR = 1 << 20;
        /// The content was synchronised to the point of unification since its last write.
        const ICACHE_CLEAN = 1 << 21;
        /// For the owner of the mapping.
        const OWNER = 1 << 22;
        /// Being taken apart by reclaim.
        const RECLAIM = 1 << 23;
        /// Has a swap slot.
        const SWAPCACHE = 1 << 24;
    }
}

/// Descriptor of one page frame.
#[repr(C, align(64))]
pub struct Frame {
    flags: AtomicU32,
    refcount: AtomicU32,
    /// Page-table entries that map it.
    mapcount: AtomicI32,
    order: AtomicU8,
    /// First of a pageblock: the pageblock's type. Changes under the zone's lock.
    block_type: AtomicU8,
    /// Slab: objects in use. Page table: level.
    pub(crate) small: AtomicU16,
    /// What it belongs to: page cache, or reverse map with a tag; slab cache; owner's business.
    mapping: AtomicU64,
    /// Page offset in its file or area; page table: first address that it covers.
    index: AtomicU64,
    next: AtomicPtr<Frame>,
    prev: AtomicPtr<Frame>,
    /// Owner's business; slab: first free object; page table: entries in use.
    private: AtomicU64,
    /// Page table: orders changes of its entries.
    pub(crate) lock: RawSpinLock,
    /// Identity of the `FrameList` that it is on.
    list: AtomicU32,
}

const _: () = assert!(size_of::<Frame>() == 64);

impl Frame {
    /// Its number.
    #[inline]
    pub fn pfn(&self) -> Pfn {
        memmap::pfn_of(self)
    }
    /// Its physical address.
    #[inline]
    pub fn phys(&self) -> PhysAddr {
        self.pfn().addr()
    }
    /// Its address in the linear map.
    #[inline]
    pub fn virt(&self) -> VirtAddr {
        arch::mmu::linear(self.phys())
    }
    /// Frames in the block that it heads: 2^order.
    pub fn order(&self) -> u8 {
        self.order.load(Ordering::Relaxed)
    }
    pub(crate) fn set_order(&self, order: usize) {
        self.order.store(order as u8, Ordering::Relaxed);
    }
    pub(crate) fn block_type(&self) -> u8 {
        self.block_type.load(Ordering::Relaxed)
    }
    pub(crate) fn set_block_type(&self, kind: u8) {
        self.block_type.store(kind, Ordering::Relaxed);
    }
    /// The head of the block that it is in.
    pub fn head(&'static self) -> &'static Frame {
        if self.test(FrameFlags::COMPOUND_TAIL) {
            crate::frame_of(Pfn(self.private.load(Ordering::Relaxed))).unwrap_or(self)
        } else {
            self
        }
    }

    // ---- flags ----

    /// All flags at this moment.
    pub fn flags(&self) -> FrameFlags {
        FrameFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }
    /// Whether all of `f` are set.
    #[inline]
    pub fn test(&self, f: FrameFlags) -> bool {
        self.flags.load(Ordering::Acquire) & f.bits() == f.bits()
    }
    /// Sets `f`.
    #[inline]
    pub fn set(&self, f: FrameFlags) {
        self.flags.fetch_or(f.bits(), Ordering::AcqRel);
    }
    /// Clears `f`.
    #[inline]
    pub fn clear(&self, f: FrameFlags) {
        self.flags.fetch_and(!f.bits(), Ordering::AcqRel);
    }
    /// Sets `f`; whether any of it was set before.
    #[inline]
    pub fn test_and_set(&self, f: FrameFlags) -> bool {
        self.flags.fetch_or(f.bits(), Ordering::AcqRel) & f.bits() != 0
    }
    /// Clears `f`; whether any of it was set before.
    #[inline]
    pub fn test_and_clear(&self, f: FrameFlags) -> bool {
        self.flags.fetch_and(!f.bits(), Ordering::AcqRel) & f.bits() != 0
    }
    pub(crate) fn set_all_flags(&self, f: FrameFlags) {
        self.flags.store(f.bits(), Ordering::Release);
    }

    // ---- counts ----

    /// References at this moment.
    #[inline]
    pub fn refcount(&self) -> u32 {
        self.refcount.load(Ordering::Relaxed)
    }
    pub(crate) fn set_refcount(&self, n: u32) {
        self.refcount.store(n, Ordering::Release);
    }
    /// One more reference, by somebody who has one.
    #[inline]
    pub(crate) fn inc_ref(&self) {
        let old = self.refcount.fetch_add(1, Ordering::Relaxed);
        debug_assert!(old != 0 && old < u32::MAX / 2, "reference of a free frame");
    }
    /// One reference less; whether it was the last.
    #[inline]
    pub(crate) fn dec_ref(&self) -> bool {
        let old = self.refcount.fetch_sub(1, Ordering::Release);
        debug_assert!(old != 0, "reference of a free frame dropped");
        if old == 1 {
            // Pairs with the release decrements of the other holders.
            sync::atomic::fence(Ordering::Acquire);
            return true;
        }
        false
    }
    #[inline]
    pub(crate) fn inc_ref_not_zero(&self) -> bool {
        let mut n = self.refcount.load(Ordering::Relaxed);
        loop {
            if n == 0 {
                return false;
            }
            match self.refcount.compare_exchange_weak(n, n + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => n = now,
            }
        }
    }
    /// Takes the count from `expected` to zero, so that no speculative reference succeeds, if no
    /// other reference exists. The caller's own references are among `expected`.
    pub fn freeze(&self, expected: u32) -> bool {
        self.refcount.compare_exchange(expected, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
    /// Undoes [`freeze`](Self::freeze).
    pub fn unfreeze(&self, count: u32) {
        debug_assert_eq!(self.refcount(), 0);
        self.refcount.store(count, Ordering::Release);
    }

    /// Page-table entries that map it.
    pub fn mapcount(&self) -> i32 {
        self.mapcount.load(Ordering::Relaxed)
    }
    /// One more mapping; the count before.
    pub fn inc_mapcount(&self) -> i32 {
        self.mapcount.fetch_add(1, Ordering::AcqRel)
    }
    /// One mapping less; the count after.
    pub fn dec_mapcount(&self) -> i32 {
        let left = self.mapcount.fetch_sub(1, Ordering::AcqRel) - 1;
        debug_assert!(left >= 0, "more unmaps than maps");
        left
    }

    // ---- owner's words ----

    /// What it belongs to; 0: nothing.
    pub fn mapping(&self) -> u64 {
        self.mapping.load(Ordering::Acquire)
    }
    /// Sets what it belongs to.
    pub fn set_mapping(&self, v: u64) {
        self.mapping.store(v, Ordering::Release);
    }
    /// Page offset in what it belongs to.
    pub fn index(&self) -> u64 {
        self.index.load(Ordering::Relaxed)
    }
    /// Sets the page offset.
    pub fn set_index(&self, v: u64) {
        self.index.store(v, Ordering::Relaxed);
    }
    /// The owner's word.
    pub fn private(&self) -> u64 {
        self.private.load(Ordering::Acquire)
    }
    /// Sets the owner's word.
    pub fn set_private(&self, v: u64) {
        self.private.store(v, Ordering::Release);
    }
    /// The owner's word as an atomic.
    pub fn private_atomic(&self) -> &AtomicU64 {
        &self.private
    }

    /// The two link words, reused for the RCU node of a frame that is on no list.
    ///
    /// # Safety
    /// The frame is on no list and will be on none until the callback has run.
    pub(crate) unsafe fn rcu_head(&'static self) -> ptr::NonNull<sync::rcu::Head> {
        const {
            assert!(size_of::<sync::rcu::Head>() <= 2 * size_of::<AtomicPtr<Frame>>());
            assert!(align_of::<sync::rcu::Head>() <= align_of::<AtomicPtr<Frame>>());
            assert!(core::mem::offset_of!(Frame, prev) == core::mem::offset_of!(Frame, next) + 8);
        };
        let head = ptr::from_ref(self).wrapping_byte_add(core::mem::offset_of!(Frame, next));
        let head = head.cast::<sync::rcu::Head>().cast_mut();
        // SAFETY: the two words are inside an atomic's cell, so they may be written; by the
        // caller's condition nobody else uses them.
        unsafe {
            head.write(sync::rcu::Head::new());
            ptr::NonNull::new_unchecked(head)
        }
    }

    /// The frame whose two link words `head` is.
    ///
    /// # Safety
    /// `head` came from [`rcu_head`](Self::rcu_head).
    pub(crate) unsafe fn of_rcu_head(head: ptr::NonNull<sync::rcu::Head>) -> &'static Frame {
        // SAFETY: the caller's condition; descriptors are never freed.
        unsafe {
            let frame = &*head.as_ptr().cast::<u8>().sub(core::mem::offset_of!(Frame, next)).cast::<Frame>();
            frame.next.store(ptr::null_mut(), Ordering::Relaxed);
            frame.prev.store(ptr::null_mut(), Ordering::Relaxed);
            frame
        }
    }
}

impl core::fmt::Debug for Frame {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Frame({:#x} refs {} maps {} {:?})", self.pfn().0, self.refcount(), self.mapcount(), self.flags())
    }
}

static NEXT_LIST: AtomicU32 = AtomicU32::new(1);

/// A list of frames through their link words: zones' free lists, LRU lists.
///
/// Plain data: it stands inside the lock that orders its users. A frame is on at most one list; it
/// knows which, so taking it out of a list that it is not on does nothing. The list holds no
/// reference of its own.
pub struct FrameList {
    id: u32,
    first: Option<&'static Frame>,
    last: Option<&'static Frame>,
    len: usize,
}

impl FrameList {
    /// Empty.
    pub const fn new() -> Self {
        Self { id: 0, first: None, last: None, len: 0 }
    }
    /// Frames on it.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Whether this frame is on it.
    pub fn contains(&self, f: &Frame) -> bool {
        self.id != 0 && f.list.load(Ordering::Relaxed) == self.id
    }
    /// The first.
    pub fn front(&self) -> Option<&'static Frame> {
        self.first
    }
    /// The last.
    pub fn back(&self) -> Option<&'static Frame> {
        self.last
    }

    fn follow(p: &AtomicPtr<Frame>) -> Option<&'static Frame> {
        // SAFETY: link words hold null or frames, which live for ever.
        unsafe { p.load(Ordering::Relaxed).as_ref() }
    }

    fn ptr_of(f: Option<&'static Frame>) -> *mut Frame {
        f.map_or(ptr::null_mut(), |f| ptr::from_ref(f).cast_mut())
    }

    fn claim(&mut self, f: &'static Frame) -> bool {
        if self.id == 0 {
            self.id = NEXT_LIST.fetch_add(1, Ordering::Relaxed);
        }
        // Acquire pairs with the release in `remove`.
        f.list.compare_exchange(0, self.id, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Puts in front; false if the frame is on a list.
    pub fn push_front(&mut self, f: &'static Frame) -> bool {
        if !self.claim(f) {
            return false;
        }
        f.prev.store(ptr::null_mut(), Ordering::Relaxed);
        f.next.store(Self::ptr_of(self.first), Ordering::Relaxed);
        match self.first {
            Some(n) => n.prev.store(Self::ptr_of(Some(f)), Ordering::Relaxed),
            None => self.last = Some(f),
        }
        self.first = Some(f);
        self.len += 1;
        true
    }

    /// Appends; false if the frame is on a list.
    pub fn push_back(&mut self, f: &'static Frame) -> bool {
        if !self.claim(f) {
            return false;
        }
        f.next.store(ptr::null_mut(), Ordering::Relaxed);
        f.prev.store(Self::ptr_of(self.last), Ordering::Relaxed);
        match self.last {
            Some(p) => p.next.store(Self::ptr_of(Some(f)), Ordering::Relaxed),
            None => self.first = Some(f),
        }
        self.last = Some(f);
        self.len += 1;
        true
    }

    /// Takes a frame out; false if it is not on this list.
    pub fn remove(&mut self, f: &'static Frame) -> bool {
        if !self.contains(f) {
            return false;
        }
        let (prev, next) = (Self::follow(&f.prev), Self::follow(&f.next));
        match prev {
            Some(p) => p.next.store(Self::ptr_of(next), Ordering::Relaxed),
            None => self.first = next,
        }
        match next {
            Some(n) => n.prev.store(Self::ptr_of(prev), Ordering::Relaxed),
            None => self.last = prev,
        }
        self.len -= 1;
        f.next.store(ptr::null_mut(), Ordering::Relaxed);
        f.prev.store(ptr::null_mut(), Ordering::Relaxed);
        f.list.store(0, Ordering::Release);
        true
    }

    /// Takes the first.
    pub fn pop_front(&mut self) -> Option<&'static Frame> {
        let f = self.first?;
        self.remove(f);
        Some(f)
    }

    /// Takes the last.
    pub fn pop_back(&mut self) -> Option<&'static Frame> {
        let f = self.last?;
        self.remove(f);
        Some(f)
    }
}

impl Default for FrameList {
    fn default() -> Self {
        Self::new()
    }
}
