//! Which driver serves which device of the tree.
//!
//! A device that is described but does not answer must not stop the machine (QEMU models few of
//! a Raspberry Pi's): a probe that fails is reported at debug level and the device is left alone.

use crate::dt::{Node, Tree};
use abi::{Errno, Result};

/// A driver for devices of the device tree.
pub trait Driver: Sync {
    /// Its name in messages.
    fn name(&self) -> &'static str;
    /// What the devices say they are compatible with; the first match wins.
    fn compatible(&self) -> &'static [&'static str];
    /// Takes a device into service. ENODEV: it is not there. May sleep.
    fn probe(&self, node: &Node<'_>) -> Result;
}

/// What [`probe_all`] did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Probed {
    /// Devices in service.
    pub ready: u32,
    /// Devices that were left alone.
    pub failed: u32,
}

/// Offers every enabled device of the tree to the drivers, in the order of the tree. A node says
/// with its most specific name first what it is compatible with, so that decides.
pub fn probe_all(tree: &Tree<'_>, drivers: &[&dyn Driver]) -> Probed {
    let mut probed = Probed::default();
    for node in tree.nodes().filter(|n| n.is_enabled()) {
        let driver = node
            .strings("compatible")
            .find_map(|c| drivers.iter().find(|d| d.compatible().contains(&c)));
        let Some(driver) = driver else { continue };
        match driver.probe(&node) {
            Ok(()) => {
                probed.ready += 1;
                log::debug!("{}: {node} ready", driver.name());
            }
            Err(Errno::ENODEV) => {
                probed.failed += 1;
                log::debug!("{}: {node} not there", driver.name());
            }
            Err(e) => {
                probed.failed += 1;
                log::debug!("{}: {node} left alone: {e}", driver.name());
            }
        }
    }
    probed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dt::{build::board, validate};
    use std::sync::Mutex;

    struct Uart(Mutex<Vec<String>>);

    impl Driver for Uart {
        fn name(&self) -> &'static str {
            "uart"
        }
        fn compatible(&self) -> &'static [&'static str] {
            &["arm,pl011", "brcm,bcm43438-bt"]
        }
        fn probe(&self, node: &Node<'_>) -> Result {
            self.0.lock().unwrap().push(node.to_string());
            if node.name() == "bluetooth" { Err(Errno::ENODEV) } else { Ok(()) }
        }
    }

    #[test]
    fn enabled_devices_are_probed_and_failures_do_not_stop_the_rest() {
        let bytes = board();
        let tree = Tree::new(validate(&bytes).unwrap());
        let uart = Uart(Mutex::new(vec![]));
        let probed = probe_all(&tree, &[&uart]);
        assert_eq!(probed, Probed { ready: 1, failed: 1 });
        assert_eq!(*uart.0.lock().unwrap(), ["/soc/serial@7e201000", "/soc/serial@7e201000/bluetooth"]);
    }
}
