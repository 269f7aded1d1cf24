//! Device registers: mapped windows and typed registers in them.
//!
//! A driver describes a register as an offset and a tock-registers bit-field type, and reads and
//! writes it through tock's interfaces:
//! ```ignore
//! const FR: At<u32, Flag::Register> = At::new(0x18);
//! while region.reg(FR).is_set(Flag::TXFF) {}
//! ```
//! An access outside of the window (a device tree that states too small a size) reads as zero and
//! writes nothing, so that drivers stay free of `unsafe` and cannot fault; a driver that wants to
//! say so checks [`Region::len`] at probe.
//!
//! Ordering: accesses to one device reach it in program order (mapped Device-nGnRE, Arm ARM
//! B2.7.2). Against normal memory they are ordered by [`barrier`] only.

use abi::{Errno, PhysAddr, Result};
use core::{marker::PhantomData, ptr::NonNull};
use frames::vmalloc::{IoMapping, ioremap};
use tock_registers::{
    RegisterLongName, UIntLike,
    interfaces::{Readable, Writeable},
};

/// A window of device registers, mapped for as long as this lives.
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    _memory: Memory,
}

enum Memory {
    Device {
        _mapping: IoMapping,
    },
    /// Plain memory that stands for a device's registers in tests.
    #[cfg(not(target_os = "none"))]
    Fake,
}

// SAFETY: device memory may be accessed from every CPU (invariant 1 keeps it mapped); what two
// CPUs may do at the same time is the driver's matter, as with any register.
unsafe impl Send for Region {}
// SAFETY: as above; accesses through `&Region` are single volatile loads and stores (invariant 2).
unsafe impl Sync for Region {}

impl Region {
    /// Maps `len` bytes of device registers at `address`. May sleep. EINVAL for no bytes or a
    /// window that wraps around; ENOMEM.
    pub fn map(address: PhysAddr, len: u64) -> Result<Self> {
        let end = address.0.checked_add(len).ok_or(Errno::EINVAL)?;
        if len == 0 || end > 1 << 48 {
            return Err(Errno::EINVAL);
        }
        let mapping = ioremap(address, len as usize)?;
        let base = NonNull::new(mapping.virt().as_usize() as *mut u8).ok_or(Errno::EINVAL)?;
        Ok(Self { base, len: len as usize, _memory: Memory::Device { _mapping: mapping } })
    }

    /// Registers that are plain memory, all zero; for tests. Never freed.
    #[cfg(not(target_os = "none"))]
    pub fn fake(len: usize) -> Result<Self> {
        let words = kalloc::KVec::try_from_elem(0u128, len.div_ceil(16))?.try_into_boxed_slice()?;
        let base = NonNull::new(kalloc::KBox::leak(words).as_mut_ptr().cast::<u8>()).ok_or(Errno::ENOMEM)?;
        Ok(Self { base, len, _memory: Memory::Fake })
    }

    /// Bytes of the window.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the window has no bytes (it never has none).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A register of the window.
    #[inline]
    pub fn reg<T: Width, R: RegisterLongName>(&self, at: At<T, R>) -> Reg<'_, T, R> {
        Reg { ptr: self.ptr(at.offset), _region: PhantomData, _field: PhantomData }
    }

    /// The address of `size_of::<T>()` bytes at `offset`, if they lie in the window, aligned.
    #[inline]
    pub(crate) fn ptr<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.len {
            return None;
        }
        // SAFETY: the offset was just found to be inside the mapping (invariant 1).
        let ptr = unsafe { self.base.add(offset) }.cast::<T>();
        ptr.is_aligned().then_some(ptr)
    }
}

/// Where a register is in its window, and what its bits mean.
pub struct At<T, R: RegisterLongName = ()> {
    offset: usize,
    _type: PhantomData<fn() -> (T, R)>,
}

impl<T, R: RegisterLongName> Clone for At<T, R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T, R: RegisterLongName> Copy for At<T, R> {}

impl<T, R: RegisterLongName> At<T, R> {
    /// The register at that byte offset.
    pub const fn new(offset: usize) -> Self {
        Self { offset, _type: PhantomData }
    }
    /// The `index`-th register of an array of them.
    pub const fn nth(self, index: usize) -> Self {
        Self::new(self.offset + index * size_of::<T>())
    }
}

/// A register of a mapped window.
pub struct Reg<'a, T: Width, R: RegisterLongName> {
    ptr: Option<NonNull<T>>,
    _region: PhantomData<&'a Region>,
    _field: PhantomData<R>,
}

impl<T: Width, R: RegisterLongName> Readable for Reg<'_, T, R> {
    type T = T;
    type R = R;

    #[inline]
    fn get(&self) -> T {
        // SAFETY: `Region::ptr` gave an aligned address in the mapping, which the borrowed region
        // keeps (invariants 1 and 2).
        self.ptr.map_or(T::zero(), |p| unsafe { T::load(p) })
    }
}

impl<T: Width, R: RegisterLongName> Writeable for Reg<'_, T, R> {
    type T = T;
    type R = R;

    #[inline]
    fn set(&self, value: T) {
        if let Some(p) = self.ptr {
            // SAFETY: as in `get`.
            unsafe { T::store(p, value) }
        }
    }
}

/// Integers that a device register can be.
///
/// # Safety
/// `load` and `store` make one access of the type's size, no more and no other.
pub unsafe trait Width: UIntLike {
    /// Reads a register.
    ///
    /// # Safety
    /// `from` is aligned and in a mapped window.
    unsafe fn load(from: NonNull<Self>) -> Self;
    /// Writes a register.
    ///
    /// # Safety
    /// `to` is aligned and in a mapped window.
    unsafe fn store(to: NonNull<Self>, value: Self);
}

macro_rules! width {
    ($type:ty, $ldr:literal, $str:literal, $form:literal) => {
        // SAFETY: one instruction of that size each; on the host one volatile access.
        unsafe impl Width for $type {
            #[cfg(target_arch = "aarch64")]
            #[inline(always)]
            unsafe fn load(from: NonNull<Self>) -> Self {
                let value: $type;
                // Not read_volatile: the compiler may pick an addressing mode with write-back,
                // which a hypervisor cannot emulate (no syndrome, Arm ARM D24.2.40, ISV).
                // SAFETY: the caller's promise; the load has no effect on other memory that the
                // compiler knows of.
                unsafe {
                    core::arch::asm!(concat!($ldr, " {0", $form, "}, [{1}]"), out(reg) value, in(reg) from.as_ptr(),
                        options(nostack, preserves_flags))
                };
                value
            }
            #[cfg(target_arch = "aarch64")]
            #[inline(always)]
            unsafe fn store(to: NonNull<Self>, value: Self) {
                // SAFETY: the caller's promise.
                unsafe {
                    core::arch::asm!(concat!($str, " {0", $form, "}, [{1}]"), in(reg) value, in(reg) to.as_ptr(),
                        options(nostack, preserves_flags))
                };
            }
            #[cfg(not(target_arch = "aarch64"))]
            unsafe fn load(from: NonNull<Self>) -> Self {
                // SAFETY: the caller's promise.
                unsafe { from.as_ptr().read_volatile() }
            }
            #[cfg(not(target_arch = "aarch64"))]
            unsafe fn store(to: NonNull<Self>, value: Self) {
                // SAFETY: the caller's promise.
                unsafe { to.as_ptr().write_volatile(value) }
            }
        }
    };
}

width!(u8, "ldrb", "strb", ":w");
width!(u16, "ldrh", "strh", ":w");
width!(u32, "ldr", "str", ":w");
width!(u64, "ldr", "str", ":x");

/// Orders every access before it, of device and normal memory, before every access after it, and
/// waits until they are complete (Arm ARM B2.3.12, DSB SY).
#[inline]
pub fn barrier() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier changes nothing.
    unsafe {
        core::arch::asm!("dsb sy", options(nostack, preserves_flags))
    };
    #[cfg(not(target_arch = "aarch64"))]
    sync::atomic::fence(sync::atomic::Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tock_registers::interfaces::ReadWriteable;

    tock_registers::register_bitfields![u32,
        Control [ENABLE OFFSET(0) NUMBITS(1) [], LEVEL OFFSET(4) NUMBITS(3) []]
    ];

    #[test]
    fn registers_are_read_and_written_by_field() {
        const CONTROL: At<u32, Control::Register> = At::new(8);
        let region = Region::fake(16).unwrap();
        region.reg(CONTROL).write(Control::LEVEL.val(5));
        region.reg(CONTROL).modify(Control::ENABLE::SET);
        assert_eq!(region.reg(CONTROL).get(), 0x51);
        assert_eq!(region.reg(At::<u8>::new(8)).get(), 0x51);
        assert_eq!(region.reg(At::<u32>::new(0).nth(2)).get(), 0x51);
    }

    #[test]
    fn accesses_outside_or_unaligned_do_nothing() {
        let region = Region::fake(16).unwrap();
        for offset in [13, 14, 16, 1 << 40, usize::MAX] {
            let reg = region.reg(At::<u32>::new(offset));
            reg.set(1);
            assert_eq!(reg.get(), 0);
        }
        region.reg(At::<u32>::new(2)).set(1);
        assert_eq!(region.reg(At::<u64>::new(0)).get(), 0);
    }

    #[test]
    fn windows_that_wrap_are_refused() {
        assert!(Region::map(PhysAddr(u64::MAX), 2).is_err());
        assert!(Region::map(PhysAddr(0x1000), 0).is_err());
    }
}
