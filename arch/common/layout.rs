//! Where things are in the kernel's half of the address space (48-bit addresses, 4 KiB pages).

/// Linear map: all RAM at `LINEAR_BASE + physical address`; never executable.
pub const LINEAR_BASE: u64 = 0xffff_0000_0000_0000;
/// First address after the linear map: 128 TiB of physical addresses.
pub const LINEAR_END: u64 = VMALLOC_BASE;
/// Area for kernel stacks, `vmalloc` and device registers.
pub const VMALLOC_BASE: u64 = 0xffff_8000_0000_0000;
/// First address after the `vmalloc` area.
pub const VMALLOC_END: u64 = 0xffff_c000_0000_0000;
/// The kernel image starts here plus a 2 MiB-aligned random offset.
pub const IMAGE_BASE: u64 = 0xffff_c000_0000_0000;
/// The random offset of the image is below this.
pub const IMAGE_RANDOM_SPAN: u64 = 1 << 30;
/// Descriptor of the page frame `pfn` at `FRAMES_BASE + pfn * 64`.
pub const FRAMES_BASE: u64 = 0xffff_e000_0000_0000;
/// Mappings at addresses fixed at compile time: early console, early device tree.
pub const FIXMAP_BASE: u64 = 0xffff_ff00_0000_0000;

/// Bytes in a kernel stack.
pub const KERNEL_STACK_SIZE: usize = 16 << 10;
/// Alignment of a kernel stack: twice its size, so that one bit of SP tells an overflow at entry.
pub const KERNEL_STACK_ALIGN: usize = 2 * KERNEL_STACK_SIZE;
