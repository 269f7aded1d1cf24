#![cfg_attr(not(test), no_std)]
//! The Arm PL011 serial port (PrimeCell UART): /dev/ttyAMA0 and further.
//!
//! Speed and character form stay as the firmware set them. Numbers follow the tree's `serial`
//! aliases, as on Linux; a port without one takes the first that is free.
//!
//! Source: Arm DDI 0183G; binding arm,pl011.yaml.

mod port;
mod regs;

use abi::{DevNum, Errno, PhysAddr, Result};
use device::{
    driver::Driver,
    dt::{self, Node, Tree},
    irq::{self, Irq, IrqHandler},
    mmio::Region,
};
use kalloc::{KArc, karc_as, kformat};
use port::Port;
use sync::atomic::{AtomicU32, Ordering};
use tty::{Tty, TtyDriver, console, console::ConsoleOutput, termios};

/// Linux's numbers for ttyAMA.
const MAJOR: u32 = 204;
const FIRST_MINOR: u32 = 64;
const PORTS: u32 = 14;

/// The driver, for the composition's list.
pub struct Pl011 {
    /// Numbers that are taken, a bit each.
    taken: AtomicU32,
}

/// The driver.
pub static DRIVER: Pl011 = Pl011 { taken: AtomicU32::new(0) };

impl Driver for Pl011 {
    fn name(&self) -> &'static str {
        "pl011"
    }

    fn compatible(&self) -> &'static [&'static str] {
        &["arm,pl011"]
    }

    fn probe(&self, node: &Node<'_>) -> Result {
        let (address, size) = node.reg(0).ok_or(Errno::ENODEV)?;
        if size < regs::WINDOW as u64 {
            return Err(Errno::EINVAL);
        }
        let line = irq::map(&node.interrupts(0).ok_or(Errno::ENODEV)?)?;
        let tree = dt::tree();
        let index = self.number(tree.and_then(|t| t.alias_id("serial", node))).ok_or(Errno::ENOSPC)?;
        self.start(node, tree, line, index, (address, size)).inspect_err(|_| {
            self.taken.fetch_and(!(1 << index), Ordering::Relaxed);
        })
    }
}

impl Pl011 {
    fn start(
        &self,
        node: &Node<'_>,
        tree: Option<&Tree<'_>>,
        line: Irq,
        index: u32,
        (address, size): (PhysAddr, u64),
    ) -> Result {
        let port = Port::try_new(Region::map(address, size)?)?;
        let driver = karc_as!(port.clone() => dyn TtyDriver);
        let dev = DevNum::new(MAJOR, FIRST_MINOR + index);
        let tty = Tty::try_new(kformat!("ttyAMA{index}")?, dev, driver, termios::INITIAL)?;
        port.connect(tty.clone());
        irq::request(line, "uart-pl011", karc_as!(port.clone() => dyn IrqHandler))?;
        tty::register(&tty, "ttyAMA")?;
        log::info!("{node}: {} at {address} (irq {}) is a PL011", tty.name(), line.0);
        let is_stdout = tree.and_then(|t| t.chosen().stdout()).is_some_and(|s| s.node == *node);
        let output: KArc<dyn ConsoleOutput> = karc_as!(port => dyn ConsoleOutput);
        console::register(&tty, output, is_stdout)
    }

    /// Takes a number: the alias's if it is free, else the first.
    fn number(&self, alias: Option<u32>) -> Option<u32> {
        let candidates = alias.into_iter().filter(|n| *n < PORTS).chain(0..PORTS);
        candidates.into_iter().find(|n| self.taken.fetch_or(1 << n, Ordering::Relaxed) >> n & 1 == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_aliases_and_fill_up_otherwise() {
        let d = Pl011 { taken: AtomicU32::new(0) };
        assert_eq!(d.number(Some(1)), Some(1));
        assert_eq!(d.number(None), Some(0));
        assert_eq!(d.number(Some(1)), Some(2));
        assert_eq!(d.number(Some(99)), Some(3));
        for _ in 4..PORTS {
            assert!(d.number(None).is_some());
        }
        assert_eq!(d.number(None), None);
    }
}
