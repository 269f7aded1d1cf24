#![cfg_attr(not(test), no_std)]
//! The Arm PL031 real-time clock: tells the time of day once, at boot.
//!
//! Source: Arm DDI 0224C; binding arm,pl031.yaml.

use abi::{Errno, Nanos, Result};
use device::{
    driver::Driver,
    dt::Node,
    mmio::{At, Region},
};
use tock_registers::interfaces::Readable;

/// Data register: seconds since 1970.
const DR: At<u32> = At::new(0x00);
/// Bytes of the window up to the register that is used.
const WINDOW: u64 = 4;

/// The driver.
pub struct Pl031;

/// The driver, for the composition's list.
pub static DRIVER: Pl031 = Pl031;

impl Driver for Pl031 {
    fn name(&self) -> &'static str {
        "rtc-pl031"
    }

    fn compatible(&self) -> &'static [&'static str] {
        &["arm,pl031"]
    }

    fn probe(&self, node: &Node<'_>) -> Result {
        let (address, size) = node.reg(0).ok_or(Errno::ENODEV)?;
        if size < WINDOW {
            return Err(Errno::EINVAL);
        }
        let now = read(&Region::map(address, size)?);
        time::set_realtime(now)?;
        log::info!("rtc-pl031: setting system clock to {} seconds since 1970", now.secs());
        Ok(())
    }
}

fn read(registers: &Region) -> Nanos {
    Nanos::from_secs(registers.reg(DR).get().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tock_registers::interfaces::Writeable;

    #[test]
    fn the_data_register_counts_seconds() {
        let registers = Region::fake(64).unwrap();
        registers.reg(DR).set(1_700_000_000);
        assert_eq!(read(&registers), Nanos::from_secs(1_700_000_000));
    }
}
