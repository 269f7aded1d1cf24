#![cfg_attr(not(test), no_std)]
//! Devices: what the machine has (the device tree), how its registers are reached, how its
//! interrupts find their handlers, and which driver belongs to which device.
//!
//! `unsafe` stands only in [`mmio`] and [`gic_access`], the layer that turns mapped device memory
//! into register accesses. Its invariants:
//! 1. A [`mmio::Region`] owns its mapping: no other region or reference covers those addresses,
//!    and the mapping lives as long as the region.
//! 2. Every access is volatile, naturally aligned and inside the region.
//!
//! Everything else, the device tree included, is safe code.

pub mod driver;
pub mod dt;
pub mod gic_access;
pub mod irq;
pub mod mmio;
