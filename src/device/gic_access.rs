//! Makes `arm-gic`'s drivers over mapped windows, so that the GIC driver itself needs no `unsafe`.
//!
//! arm-gic asks for pointers to registers that nothing else uses. Here a [`Region`] is given up
//! for each (invariant 1 of the crate), and the objects it makes are borrowed from what owns the
//! region:
//! - [`V2::shared`] and [`V3::distributor`] need `&mut`: what all CPUs share has one user at a time;
//! - [`V2::banked`] may exist on every CPU at once: what the GIC driver reaches through it are
//!   registers that each CPU has its own of, or that take one write (SGIR). It must not configure
//!   shared interrupts with it, which would lose updates, not memory safety.
//!
//! Registers that arm-gic 0.10 does not offer, or not in a usable way, are reached through
//! [`V2::dist_regs`] and [`V2::cpu_regs`]: GICD_ITARGETSR (no access at all), GICD_IPRIORITYR
//! (its setter clears the three neighbours), GICD_ICACTIVER, GICC_EOIR (an `IntId` with a source
//! CPU cannot be made again), GICC_CTLR without clobbering the bypass bits.

use crate::mmio::Region;
use abi::{Errno, Result};
use arm_gic::{
    UniqueMmioPointer,
    gicv2::{self, GicV2},
    gicv3::{GicDistributor, GicRedistributor, registers as v3},
};
use core::{marker::PhantomData, ptr::NonNull};
use kalloc::KVec;

/// The windows of a GICv2.
pub struct V2 {
    dist: Region,
    cpu: Region,
}

impl V2 {
    /// Takes the distributor's and the CPU interface's window. EINVAL if one is too small.
    pub fn new(dist: Region, cpu: Region) -> Result<Self> {
        if dist.ptr::<gicv2::registers::Gicd>(0).is_none() || cpu.ptr::<gicv2::registers::Gicc>(0).is_none() {
            return Err(Errno::EINVAL);
        }
        Ok(Self { dist, cpu })
    }

    /// The registers that each CPU has its own of.
    pub fn banked(&self) -> GicV2<'_> {
        let dist = self.dist.ptr::<gicv2::registers::Gicd>(0).map_or(NonNull::dangling(), |p| p);
        let cpu = self.cpu.ptr::<gicv2::registers::Gicc>(0).map_or(NonNull::dangling(), |p| p);
        // SAFETY: both windows were found large enough by `new`, so neither is dangling; they are
        // mapped as device memory while `self` is borrowed. Another CPU may have such an object at
        // the same time: all it does are volatile accesses to device registers, to which Rust's
        // aliasing rules do not apply.
        unsafe { GicV2::new(dist.as_ptr(), cpu.as_ptr()) }
    }

    /// All registers.
    pub fn shared(&mut self) -> GicV2<'_> {
        self.banked()
    }

    /// The distributor's window.
    pub fn dist_regs(&self) -> &Region {
        &self.dist
    }

    /// The CPU interface's window.
    pub fn cpu_regs(&self) -> &Region {
        &self.cpu
    }
}

/// Bytes of a redistributor's two frames, and of its four with virtual LPIs (GICv4).
const FRAMES_V3: usize = 0x2_0000;
const FRAMES_V4: usize = 0x4_0000;
/// The affinity fields in MPIDR_EL1.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// The windows of a GICv3 or v4.
pub struct V3 {
    dist: Region,
    redists: KVec<Region>,
    stride: Option<usize>,
}

/// Which redistributor belongs to a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    region: usize,
    offset: usize,
}

impl V3 {
    /// Takes the distributor's window and those of the redistributors. `stride`: bytes from one
    /// redistributor to the next, if the tree states it. EINVAL if a window is too small.
    pub fn new(dist: Region, redists: KVec<Region>, stride: Option<usize>) -> Result<Self> {
        let stride_ok = stride.is_none_or(|s| s >= FRAMES_V3 && s % FRAMES_V3 == 0);
        let redists_ok = !redists.is_empty() && redists.iter().all(|r| r.ptr::<v3::GicrSgi>(0).is_some());
        if dist.ptr::<v3::Gicd>(0).is_none() || !stride_ok || !redists_ok {
            return Err(Errno::EINVAL);
        }
        Ok(Self { dist, redists, stride })
    }

    /// The distributor.
    pub fn distributor(&mut self) -> GicDistributor<'_> {
        let regs = self.dist.ptr::<v3::Gicd>(0).map_or(NonNull::dangling(), |p| p);
        // SAFETY: the window was found large enough by `new`; it is mapped, and used by nobody
        // else, while `self` is borrowed mutably.
        GicDistributor::new(unsafe { UniqueMmioPointer::new(regs) })
    }

    /// A CPU's redistributor. EINVAL for a frame of another GIC.
    pub fn redistributor(&mut self, frame: Frame) -> Result<GicRedistributor<'_>> {
        let region = self.redists.get(frame.region).ok_or(Errno::EINVAL)?;
        let regs = region.ptr::<v3::GicrSgi>(frame.offset).ok_or(Errno::EINVAL)?;
        // SAFETY: `ptr` found both frames inside the window; exclusive as in `distributor`.
        Ok(GicRedistributor::new(unsafe { UniqueMmioPointer::new(regs) }))
    }

    /// Looks for the redistributor of the CPU with those affinity fields, in every window. None:
    /// the tree describes none for it.
    pub fn find(&mut self, mpidr: u64) -> Option<Frame> {
        for region in 0..self.redists.len() {
            let mut offset = 0;
            while let Ok(redistributor) = self.redistributor(Frame { region, offset }) {
                // What does not say that it is a GIC ends the window: reading on could fault.
                if !matches!(redistributor.pidr2().arch_rev(), 3 | 4) {
                    break;
                }
                let typer = redistributor.typer();
                if typer.core_mpidr() == mpidr & AFFINITY {
                    return Some(Frame { region, offset });
                }
                if typer.last_redistributor() {
                    break;
                }
                let own = if typer.virtual_lpis_supported() { FRAMES_V4 } else { FRAMES_V3 };
                offset += self.stride.unwrap_or(own);
            }
        }
        None
    }
}

/// The GICv3 CPU interface of the CPU that calls: system registers. On the developer's machine
/// there is none.
pub struct CpuInterface(PhantomData<()>);

#[cfg(target_arch = "aarch64")]
mod sysregs {
    use super::{CpuInterface, Errno, Result};
    use arm_gic::{
        IntId, InterruptGroup,
        gicv3::{GicCpuInterface, SgiTarget, SgiTargetGroup},
    };
    use core::arch::asm;

    impl CpuInterface {
        /// Switches the CPU's interface on: system registers, all priorities above `mask`, EOI
        /// that drops priority and deactivates at once, group 1.
        pub fn enable(mask: u8) {
            GicCpuInterface::enable_system_register_el1();
            // SAFETY: makes the change take effect before the next access (GICv3 12.2.22).
            unsafe { asm!("isb", options(nostack, preserves_flags)) };
            GicCpuInterface::set_priority_mask(mask);
            // arm-gic writes ICC_CTLR_EL1 only together with a redistributor that it found
            // itself, and has no ICC_BPR1_EL1.
            // SAFETY: ICC_CTLR_EL1 = 0 (EOImode 0), ICC_BPR1_EL1 = 0: no memory is involved.
            unsafe {
                asm!("msr S3_0_C12_C12_4, xzr", "msr S3_0_C12_C12_3, xzr", "isb", options(nostack, preserves_flags))
            };
            GicCpuInterface::enable_group1(true);
            // SAFETY: as above.
            unsafe { asm!("isb", options(nostack, preserves_flags)) };
        }

        /// Takes the most urgent pending interrupt.
        #[inline]
        pub fn ack() -> Option<u32> {
            let id = GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1).map(u32::from);
            // The acknowledgement is complete before the device is touched (GICv3 4.1.1).
            crate::mmio::barrier();
            id
        }

        /// Ends an interrupt.
        #[inline]
        pub fn end(id: u32) {
            if let Ok(id) = IntId::try_from(id) {
                GicCpuInterface::end_interrupt(id, InterruptGroup::Group1);
                // The priority is dropped before interrupts can come again.
                // SAFETY: a barrier.
                unsafe { asm!("isb", options(nostack, preserves_flags)) };
            }
        }

        /// Raises software-generated interrupt `id` on the CPUs `list` (by Aff0, relative to the
        /// range selector 0) of one cluster. EINVAL for an id above 15.
        pub fn send_sgi(id: u32, affinity: [u8; 3], list: u16) -> Result {
            if id > 15 {
                return Err(Errno::EINVAL);
            }
            let [affinity3, affinity2, affinity1] = affinity;
            let target = SgiTarget::List { affinity3, affinity2, affinity1, target_list: list };
            GicCpuInterface::send_sgi(IntId::sgi(id), target, SgiTargetGroup::CurrentGroup1)
                .map_err(|_| Errno::EINVAL)?;
            // SAFETY: a barrier: the interrupt is on its way before anything that follows.
            unsafe { asm!("isb", options(nostack, preserves_flags)) };
            Ok(())
        }
    }
}

#[cfg(not(target_arch = "aarch64"))]
mod sysregs {
    use super::{CpuInterface, Errno, Result};

    impl CpuInterface {
        /// Does nothing here.
        pub fn enable(_mask: u8) {}
        /// Nothing is ever pending here.
        pub fn ack() -> Option<u32> {
            None
        }
        /// Does nothing here.
        pub fn end(_id: u32) {}
        /// Does nothing here.
        pub fn send_sgi(id: u32, _affinity: [u8; 3], _list: u16) -> Result {
            if id > 15 { Err(Errno::EINVAL) } else { Ok(()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::At;
    use tock_registers::interfaces::Writeable;

    /// Redistributors of those CPUs, one after the other.
    fn redists(cpus: &[u64], stride: usize) -> Region {
        let region = Region::fake(cpus.len() * stride).unwrap();
        for (i, mpidr) in cpus.iter().enumerate() {
            let affinity = mpidr >> 32 << 24 | mpidr & 0xff_ffff;
            let last = if i + 1 == cpus.len() { 1 << 4 } else { 0 };
            region.reg(At::<u64>::new(i * stride + 8)).set(affinity << 32 | last);
            region.reg(At::<u32>::new(i * stride + 0xffe8)).set(3 << 4);
        }
        region
    }

    #[test]
    fn redistributors_are_found_by_affinity_in_several_windows() {
        let mut windows = KVec::new();
        windows.try_push(redists(&[0, 1, 0x100], FRAMES_V3)).ok().unwrap();
        windows.try_push(redists(&[0x1_0000_0203], FRAMES_V3)).ok().unwrap();
        let mut gic = V3::new(Region::fake(0x1_0000).unwrap(), windows, None).unwrap();
        assert_eq!(gic.find(0x8000_0100), Some(Frame { region: 0, offset: 2 * FRAMES_V3 }));
        assert_eq!(gic.find(0x1_0000_0203), Some(Frame { region: 1, offset: 0 }));
        assert_eq!(gic.find(7), None);
    }

    #[test]
    fn a_window_without_a_gic_is_not_walked() {
        let mut windows = KVec::new();
        windows.try_push(Region::fake(FRAMES_V3 * 4).unwrap()).ok().unwrap();
        let mut gic = V3::new(Region::fake(0x1_0000).unwrap(), windows, Some(FRAMES_V3)).unwrap();
        assert_eq!(gic.find(0), None);
    }

    #[test]
    fn windows_that_are_too_small_are_refused() {
        let fake = |n| Region::fake(n).unwrap();
        assert!(V2::new(fake(0x100), fake(0x2000)).is_err());
        assert!(V2::new(fake(0x1000), fake(0x100)).is_err());
        assert!(V2::new(fake(0x1000), fake(0x2000)).is_ok());
        assert!(V3::new(fake(0x1_0000), KVec::new(), None).is_err());
    }
}
