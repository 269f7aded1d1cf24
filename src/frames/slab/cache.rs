//! One cache: slabs of equal objects.
//!
//! A slab is a block of pages; its head frame has the flag `SLAB`, in `mapping` the cache, in
//! `private` the first free object (each free object's first word leads to the next), in `small`
//! the objects in use. Slabs that have both free and used objects, or none used, stand on the
//! partial list; full ones on no list.

use super::magazine::{self, CACHES, ROUNDS};
use crate::{AllocFlags, Counter, Frame, FrameFlags, FrameList, PageBlock, alloc_pages, count, memmap};
use abi::{PAGE_SIZE, VirtAddr};
use core::{ptr, ptr::NonNull};
use sync::{
    IrqGuard, LockClass, SpinLock,
    atomic::{AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

static PARTIAL_LOCK: LockClass = LockClass::new("slab_partial", 1830);

/// Empty slabs that a cache keeps.
const KEEP_EMPTY: usize = 2;

struct Partial {
    slabs: FrameList,
    /// Of those, without a used object.
    empty: usize,
    /// Slabs of the cache, full ones included.
    total: usize,
    /// Objects out of slabs: in use or in magazines.
    out: usize,
}

/// A cache of objects of one size.
pub struct Cache {
    name: &'static str,
    size: usize,
    order: u8,
    /// Index of its magazines plus one; 0: not assigned yet, `CACHES` + 1 or more: none.
    id: AtomicU8,
    partial: SpinLock<Partial>,
    allocations: AtomicU64,
    next: AtomicPtr<Cache>,
}

/// What a cache has at one moment.
#[derive(Clone, Copy, Debug)]
pub struct CacheInfo {
    /// Its name.
    pub name: &'static str,
    /// Objects in use.
    pub active: usize,
    /// Objects that its slabs hold.
    pub objects: usize,
    /// Bytes of an object.
    pub object_size: usize,
    /// Objects in a slab.
    pub per_slab: usize,
    /// Pages in a slab.
    pub pages_per_slab: usize,
    /// Slabs.
    pub slabs: usize,
    /// Slabs without an object in use.
    pub empty_slabs: usize,
}

/// Ids that are given to the size classes.
const CLASS_IDS: usize = 17;
static NEXT_ID: AtomicUsize = AtomicUsize::new(CLASS_IDS);
/// Caches with a name of their own, linked by `next`.
static NAMED: AtomicPtr<Cache> = AtomicPtr::new(ptr::null_mut());

pub(super) fn for_each_named(mut f: impl FnMut(&'static Cache)) {
    let mut at = NAMED.load(Ordering::Acquire);
    // SAFETY: caches on this list are statics.
    while let Some(c) = unsafe { at.as_ref() } {
        f(c);
        at = c.next.load(Ordering::Relaxed);
    }
}

impl Cache {
    /// A cache of objects of `size` bytes, aligned to `align` (a power of two up to the page size).
    /// It must be a `static`.
    pub const fn new(name: &'static str, size: usize, align: usize) -> Self {
        let align = if align < 8 { 8 } else { align };
        Self::make(name, size.next_multiple_of(align), 0)
    }

    pub(super) const fn class(name: &'static str, size: usize, id: usize) -> Self {
        Self::make(name, size, id as u8 + 1)
    }

    const fn make(name: &'static str, size: usize, id: u8) -> Self {
        assert!(size >= 8 && size <= 2 * PAGE_SIZE);
        // Eight objects in a slab, or four of the largest.
        let mut order = 0;
        while order < 3 && (PAGE_SIZE << order) / size < 8 {
            order += 1;
        }
        let partial = Partial { slabs: FrameList::new(), empty: 0, total: 0, out: 0 };
        Self {
            name,
            size,
            order,
            id: AtomicU8::new(id),
            partial: SpinLock::new(partial, &PARTIAL_LOCK),
            allocations: AtomicU64::new(0),
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Bytes of an object.
    #[inline]
    pub const fn size(&self) -> usize {
        self.size
    }

    const fn per_slab(&self) -> usize {
        (PAGE_SIZE << self.order) / self.size
    }

    /// Whether it ever had a slab.
    pub(super) fn in_use(&self) -> bool {
        self.allocations.load(Ordering::Relaxed) != 0
    }

    /// Index of its magazines.
    #[inline]
    fn id(&'static self) -> usize {
        match self.id.load(Ordering::Relaxed) {
            0 => self.register(),
            n => n as usize - 1,
        }
    }

    #[cold]
    fn register(&'static self) -> usize {
        // Two CPUs may come here at once: the lock makes one of them register.
        let _once = self.partial.lock_irq();
        let id = self.id.load(Ordering::Relaxed);
        if id != 0 {
            return id as usize - 1;
        }
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed).min(CACHES);
        let me = ptr::from_ref(self).cast_mut();
        let mut first = NAMED.load(Ordering::Relaxed);
        loop {
            self.next.store(first, Ordering::Relaxed);
            match NAMED.compare_exchange(first, me, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => first = now,
            }
        }
        self.id.store(id as u8 + 1, Ordering::Relaxed);
        id
    }

    /// An object, its content undefined; any context.
    #[inline]
    pub fn alloc(&'static self) -> Option<NonNull<u8>> {
        let id = self.id();
        let fast = {
            let irq = IrqGuard::new();
            magazine::with(id, &irq, |m| m.pop()).flatten()
        };
        let p = match fast {
            Some(p) => p,
            None => self.refill(id)?,
        };
        poison::check(p, self.size);
        Some(p)
    }

    /// # Safety
    /// `p` came from [`alloc`](Self::alloc) of this cache, and is not used again.
    #[inline]
    pub unsafe fn free(&'static self, p: NonNull<u8>) {
        let id = self.id();
        #[cfg(debug_assertions)]
        self.check_free(id, p);
        poison::fill(p, self.size);
        let irq = IrqGuard::new();
        if magazine::with(id, &irq, |m| m.push(p)) == Some(true) {
            return;
        }
        self.flush(id, &irq, p);
    }

    /// One object for the caller and half a magazine from the slabs.
    #[cold]
    fn refill(&'static self, id: usize) -> Option<NonNull<u8>> {
        loop {
            let irq = IrqGuard::new();
            let mut partial = self.partial.lock_irq();
            if let Some(first) = self.take(&mut partial) {
                let want = self.batch();
                magazine::with(id, &irq, |m| {
                    while m.len() < want {
                        let Some(p) = self.take(&mut partial) else { break };
                        m.push(p);
                    }
                });
                return Some(first);
            }
            drop(partial);
            drop(irq);
            // Outside of the locks: this may reclaim.
            let slab = self.new_slab()?;
            let mut partial = self.partial.lock_irq();
            partial.slabs.push_front(slab);
            partial.empty += 1;
            partial.total += 1;
        }
    }

    /// How many objects move between magazine and slabs: half a magazine, less of large ones.
    fn batch(&self) -> usize {
        (4 * PAGE_SIZE / self.size).clamp(1, ROUNDS / 2 + 1)
    }

    /// The magazine is full (or missing): gives half of it and `p` back to the slabs.
    #[cold]
    fn flush(&'static self, id: usize, irq: &IrqGuard, p: NonNull<u8>) {
        let mut free_blocks = FrameList::new();
        {
            let mut partial = self.partial.lock_irq();
            self.give(&mut partial, p, &mut free_blocks);
            for _ in 0..self.batch() {
                match magazine::with(id, irq, |m| m.pop()).flatten() {
                    Some(p) => self.give(&mut partial, p, &mut free_blocks),
                    None => break,
                }
            }
        }
        self.release(&mut free_blocks);
    }

    /// A free object out of a slab.
    fn take(&self, partial: &mut Partial) -> Option<NonNull<u8>> {
        let slab = partial.slabs.front()?;
        let p: NonNull<u8> = NonNull::new(ptr::with_exposed_provenance_mut(slab.private() as usize))?;
        // SAFETY: a free object's first word is the slab's own.
        let next = unsafe { p.cast::<usize>().read() };
        slab.set_private(next as u64);
        let used = slab.small.fetch_add(1, Ordering::Relaxed);
        if used == 0 {
            partial.empty -= 1;
        }
        if next == 0 {
            partial.slabs.remove(slab);
        }
        partial.out += 1;
        poison::head(p, self.size);
        Some(p)
    }

    /// A free object into its slab. Slabs that are too many go to `free_blocks`.
    fn give(&'static self, partial: &mut Partial, p: NonNull<u8>, free_blocks: &mut FrameList) {
        let Some(slab) = self.slab_of(p) else { return };
        let first = slab.private();
        // SAFETY: a free object's first word is the slab's own.
        unsafe { p.cast::<usize>().write(first as usize) };
        slab.set_private(p.as_ptr().expose_provenance() as u64);
        let used = slab.small.fetch_sub(1, Ordering::Relaxed) - 1;
        partial.out -= 1;
        if first == 0 {
            // It was full.
            partial.slabs.push_back(slab);
        }
        if used == 0 {
            partial.empty += 1;
            if partial.empty > KEEP_EMPTY {
                partial.empty -= 1;
                partial.total -= 1;
                partial.slabs.remove(slab);
                free_blocks.push_back(slab);
            }
        }
    }

    /// The slab that an object is in. An object of another cache is a bug of the caller.
    fn slab_of(&'static self, p: NonNull<u8>) -> Option<&'static Frame> {
        let phys = arch::mmu::virt_to_phys(VirtAddr(p.as_ptr().expose_provenance() as u64));
        let slab = memmap::frame_at(phys)?.head();
        let mine = ptr::from_ref(self).expose_provenance() as u64;
        assert!(
            slab.test(FrameFlags::SLAB) && slab.mapping() == mine,
            "free of {phys:?} to cache {}, where it is not from",
            self.name
        );
        Some(slab)
    }

    fn new_slab(&'static self) -> Option<&'static Frame> {
        let block = alloc_pages(self.order, AllocFlags::empty()).ok()?;
        self.allocations.fetch_add(1, Ordering::Relaxed);
        count(Counter::SlabUnreclaimable, 1 << self.order);
        let slab = block.into_raw();
        let base = slab.virt().as_usize();
        let mut next = 0usize;
        for n in (0..self.per_slab()).rev() {
            let at = base + n * self.size;
            if let Some(p) = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(at)) {
                poison::fill(p, self.size);
                // SAFETY: inside the block, which is ours.
                unsafe { p.cast::<usize>().write(next) };
            }
            next = at;
        }
        slab.set_mapping(ptr::from_ref(self).expose_provenance() as u64);
        slab.set_private(next as u64);
        slab.small.store(0, Ordering::Relaxed);
        slab.set(FrameFlags::SLAB);
        Some(slab)
    }

    /// Gives slabs without objects in use back to the page allocator; how many pages.
    fn release(&self, slabs: &mut FrameList) -> usize {
        let mut pages = 0;
        while let Some(slab) = slabs.pop_front() {
            slab.clear(FrameFlags::SLAB);
            count(Counter::SlabUnreclaimable, -(1 << self.order));
            pages += 1 << self.order;
            // SAFETY: the block of `new_slab`, which no object and no list has any more.
            drop(unsafe { PageBlock::from_raw(slab) });
        }
        pages
    }

    /// Empties this CPU's magazine and gives all empty slabs back; how many pages.
    pub fn shrink(&'static self) -> usize {
        let id = self.id();
        let mut gone = FrameList::new();
        {
            let irq = IrqGuard::new();
            let mut partial = self.partial.lock_irq();
            while let Some(p) = magazine::with(id, &irq, |m| m.pop()).flatten() {
                self.give(&mut partial, p, &mut gone);
            }
            let mut at = partial.slabs.len();
            while at > 0 {
                at -= 1;
                let Some(slab) = partial.slabs.pop_front() else { break };
                if slab.small.load(Ordering::Relaxed) == 0 {
                    partial.empty -= 1;
                    partial.total -= 1;
                    gone.push_back(slab);
                } else {
                    partial.slabs.push_back(slab);
                }
            }
        }
        self.release(&mut gone)
    }

    /// The cache's state.
    pub fn info(&'static self) -> CacheInfo {
        let stock = magazine::stock(self.id());
        let partial = self.partial.lock_irq();
        CacheInfo {
            name: self.name,
            active: partial.out.saturating_sub(stock),
            objects: partial.total * self.per_slab(),
            object_size: self.size,
            per_slab: self.per_slab(),
            pages_per_slab: 1 << self.order,
            slabs: partial.total,
            empty_slabs: partial.empty,
        }
    }

    /// Whether an object that is being freed is free already, as far as that can be told cheaply.
    #[cfg(debug_assertions)]
    fn check_free(&'static self, id: usize, p: NonNull<u8>) {
        let slab = self.slab_of(p);
        let irq = IrqGuard::new();
        let twice = magazine::with(id, &irq, |m| m.has(p)).unwrap_or(false);
        assert!(!twice, "object {p:?} of cache {} freed twice", self.name);
        if let Some(slab) = slab {
            let offset = p.as_ptr().addr() - slab.virt().as_usize();
            assert!(offset.is_multiple_of(self.size), "free of {p:?}, which is inside an object of cache {}", self.name);
        }
    }
}

/// Free objects are filled with a pattern behind their first word.
#[cfg(debug_assertions)]
mod poison {
    use super::NonNull;

    const BYTE: u8 = 0x6b;
    const WORD: usize = size_of::<usize>();

    pub(super) fn fill(p: NonNull<u8>, size: usize) {
        // SAFETY: a free object of this size.
        unsafe { p.write_bytes(BYTE, size) };
    }

    /// The first word was a link: the pattern again.
    pub(super) fn head(p: NonNull<u8>, size: usize) {
        fill(p, WORD.min(size));
    }

    pub(super) fn check(p: NonNull<u8>, size: usize) {
        // SAFETY: an object of this size that nobody has yet.
        let bytes = unsafe { core::slice::from_raw_parts_mut(p.as_ptr(), size) };
        let wrong = bytes.iter().position(|b| *b != BYTE);
        assert!(wrong.is_none(), "object {p:?} of {size} bytes was written to while free, at byte {wrong:?}");
        bytes.fill(0x5a);
    }
}

#[cfg(not(debug_assertions))]
mod poison {
    use super::NonNull;
    #[inline(always)]
    pub(super) fn fill(_: NonNull<u8>, _: usize) {}
    #[inline(always)]
    pub(super) fn head(_: NonNull<u8>, _: usize) {}
    #[inline(always)]
    pub(super) fn check(_: NonNull<u8>, _: usize) {}
}
