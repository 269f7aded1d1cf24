//! References to frames, and access to what is in them.

use crate::{Frame, FrameFlags, alloc, frame_of};
use abi::{PAGE_SIZE, PhysAddr};
use core::{fmt, mem::ManuallyDrop, ops::Deref, ptr};

/// One reference to a frame. The last one to go frees it.
pub struct FrameRef(&'static Frame);

impl FrameRef {
    /// The reference as a bare frame; [`from_raw`](Self::from_raw) takes it back.
    pub fn into_raw(self) -> &'static Frame {
        ManuallyDrop::new(self).0
    }

    /// # Safety
    /// One reference of `frame` is given up to the result.
    pub unsafe fn from_raw(frame: &'static Frame) -> Self {
        Self(frame)
    }

    /// The frame, without its reference: valid for ever, but its content may not be.
    pub fn frame(this: &Self) -> &'static Frame {
        this.0
    }

    /// A reference to a frame that may be going at this moment; then `None`. The caller checks
    /// afterwards that the frame is still what it looked for.
    pub fn try_get(frame: &'static Frame) -> Option<Self> {
        frame.inc_ref_not_zero().then_some(Self(frame))
    }

    /// Whether both are of the same frame.
    pub fn ptr_eq(a: &Self, b: &Self) -> bool {
        ptr::eq(a.0, b.0)
    }

    fn bytes(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.0.virt().as_usize())
    }

    /// Calls `f` with the content. The caller vouches by its own locks (page lock, not yet mapped)
    /// that nobody writes meanwhile; should a program that has the page mapped do so, `f` sees old
    /// or new bytes, in no order.
    pub fn with_bytes<R>(&self, f: impl FnOnce(&[u8; PAGE_SIZE]) -> R) -> R {
        // SAFETY: the reference keeps the frame; bytes have no invalid values. Writers outside the
        // kernel are outside the language's memory model (invariant 3).
        f(unsafe { &*self.bytes().cast() })
    }

    /// Calls `f` with the content, to change it. The conditions of [`with_bytes`](Self::with_bytes).
    pub fn with_bytes_mut<R>(&self, f: impl FnOnce(&mut [u8; PAGE_SIZE]) -> R) -> R {
        // SAFETY: as in `with_bytes`.
        f(unsafe { &mut *self.bytes().cast() })
    }

    /// Copies `src` in at `offset`; what does not fit is left out. How many bytes that was.
    pub fn copy_in(&self, offset: usize, src: &[u8]) -> usize {
        let offset = offset.min(PAGE_SIZE);
        let n = src.len().min(PAGE_SIZE - offset);
        // SAFETY: inside the frame, which the reference keeps; `src` is kernel memory that is
        // borrowed, so not a part of it that anybody writes.
        unsafe { ptr::copy(src.as_ptr(), self.bytes().add(offset), n) };
        n
    }

    /// Copies out from `offset` on; how many bytes there were.
    pub fn copy_out(&self, offset: usize, dst: &mut [u8]) -> usize {
        let offset = offset.min(PAGE_SIZE);
        let n = dst.len().min(PAGE_SIZE - offset);
        // SAFETY: as in `copy_in`.
        unsafe { ptr::copy(self.bytes().add(offset), dst.as_mut_ptr(), n) };
        n
    }

    /// Makes the content zero.
    pub fn zero(&self) {
        self.with_bytes_mut(arch::mem::clear_page);
    }

    /// Makes `len` bytes from `offset` zero; cut at the end of the page.
    pub fn zero_range(&self, offset: usize, len: usize) {
        let start = offset.min(PAGE_SIZE);
        let end = start.saturating_add(len).min(PAGE_SIZE);
        self.with_bytes_mut(|b| {
            if let Some(part) = b.get_mut(start..end) {
                part.fill(0);
            }
        });
    }

    /// Copies the whole content of another frame.
    pub fn copy_from(&self, from: &FrameRef) {
        if ptr::eq(self.0, from.0) {
            return;
        }
        from.with_bytes(|f| self.with_bytes_mut(|t| arch::mem::copy_page(t, f)));
    }
}

impl Clone for FrameRef {
    #[inline]
    fn clone(&self) -> Self {
        self.0.inc_ref();
        Self(self.0)
    }
}

impl Drop for FrameRef {
    #[inline]
    fn drop(&mut self) {
        if self.0.dec_ref() {
            alloc::free(self.0);
        }
    }
}

impl Deref for FrameRef {
    type Target = Frame;
    #[inline]
    fn deref(&self) -> &Frame {
        self.0
    }
}

impl PartialEq for FrameRef {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}
impl Eq for FrameRef {}

impl fmt::Debug for FrameRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A block of 2^order frames with one owner, who frees it by dropping it.
pub struct PageBlock(FrameRef);

impl PageBlock {
    pub(crate) fn new(head: &'static Frame) -> Self {
        Self(FrameRef(head))
    }

    /// Bytes in the block.
    pub fn len(&self) -> usize {
        PAGE_SIZE << self.order()
    }

    /// Never: a block has at least one page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Where it starts.
    pub fn phys(&self) -> PhysAddr {
        self.0.phys()
    }

    /// Its frames in order.
    pub fn frames(&self) -> impl Iterator<Item = &'static Frame> {
        let first = self.0.pfn();
        (0..1u64 << self.order()).filter_map(move |n| frame_of(first.add(n)))
    }

    /// Its bytes; nobody but the owner has access.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the block is contiguous in the linear map and has one owner, borrowed here.
        unsafe { core::slice::from_raw_parts_mut(self.0.bytes(), self.len()) }
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: as above; shared.
        unsafe { core::slice::from_raw_parts(self.0.bytes(), self.len()) }
    }

    /// The block as a bare head; [`from_raw`](Self::from_raw) takes it back.
    pub fn into_raw(self) -> &'static Frame {
        self.0.into_raw()
    }

    /// # Safety
    /// `head` came from [`into_raw`](Self::into_raw), and this is the only use of that ownership.
    pub unsafe fn from_raw(head: &'static Frame) -> Self {
        Self(FrameRef(head))
    }

    /// The block as a reference to its head; the last such reference frees all of it.
    pub fn into_ref(self) -> FrameRef {
        self.0
    }

    /// The block as single frames, each with a reference of its own.
    pub fn into_frames(self) -> impl Iterator<Item = FrameRef> {
        let order = self.order();
        let head = self.into_raw();
        let first = head.pfn();
        for n in 0..1u64 << order {
            if let Some(f) = frame_of(first.add(n)) {
                f.set_order(0);
                f.clear(FrameFlags::COMPOUND_HEAD | FrameFlags::COMPOUND_TAIL);
                f.set_private(0);
                f.set_refcount(1);
            }
        }
        let mut rest = Frames { first: first.0, n: 0, end: 1 << order };
        core::iter::from_fn(move || rest.next())
    }
}

/// What is left of a block that was taken apart; frees it when dropped.
struct Frames {
    first: u64,
    n: u64,
    end: u64,
}

impl Frames {
    fn next(&mut self) -> Option<FrameRef> {
        if self.n == self.end {
            return None;
        }
        let f = frame_of(abi::Pfn(self.first + self.n))?;
        self.n += 1;
        Some(FrameRef(f))
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        while self.next().is_some() {}
    }
}

impl Deref for PageBlock {
    type Target = Frame;
    fn deref(&self) -> &Frame {
        &self.0
    }
}

impl fmt::Debug for PageBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
