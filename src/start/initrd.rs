//! The initial RAM disk as input for the unpacker: page by page, each freed once it is done with.

use abi::{PAGE_SIZE, PhysAddr};
use arch::boot::PhysRange;
use frames::FrameRef;
use kalloc::{AllocError, KBytes};

/// Memory that the boot loader filled and that nobody else uses.
pub(crate) struct Initrd {
    at: PhysAddr,
    end: PhysAddr,
    /// A copy of the page that `at` is in, from `at` on.
    page: KBytes,
    used: usize,
}

impl Initrd {
    pub(crate) fn new(range: PhysRange) -> Result<Self, AllocError> {
        let mut input = Self { at: range.start, end: range.end, page: KBytes::try_with_capacity(PAGE_SIZE)?, used: 0 };
        input.load();
        Ok(input)
    }

    /// Copies what the page at `at` holds of the disk.
    fn load(&mut self) {
        self.page.clear();
        self.used = 0;
        if self.at >= self.end {
            return;
        }
        let offset = self.at.page_offset();
        let len = (PAGE_SIZE - offset).min((self.end.0 - self.at.0) as usize);
        let frame = frames::frame_of(self.at.pfn()).and_then(FrameRef::try_get);
        // Room for a page was taken at the start.
        if self.page.try_resize(len, 0).is_ok()
            && let Some(frame) = frame
        {
            frame.copy_out(offset, &mut self.page);
        }
    }
}

impl initramfs::Input for Initrd {
    fn ahead(&mut self) -> &[u8] {
        self.page.get(self.used..).unwrap_or(&[])
    }

    fn consume(&mut self, n: usize) {
        self.used += n;
        if self.used >= self.page.len() && self.at < self.end {
            let start = self.at.page_down();
            self.at = self.at.add(self.page.len() as u64);
            frames::free_reserved(PhysRange::new(start, start.add(PAGE_SIZE as u64)));
            self.load();
        }
    }
}
