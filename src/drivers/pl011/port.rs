//! One PL011: a FIFO in each direction, interrupts for both, and polled output for the log.
//!
//! The lock guards the transmit queue and the registers that are changed in place. It is the
//! innermost lock there is, because the log is written through it from everywhere; nothing is
//! logged and nobody is called while it is held.

use crate::regs::*;
use abi::{Result, raw::general as g};
use device::{
    irq::{Handled, IrqHandler},
    mmio::Region,
};
use kalloc::{KArc, KVec};
use sync::{LockClass, Once, SpinIrqGuard, SpinLock};
use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tty::{Flag as Arrival, Termios, Tty, TtyDriver, console::ConsoleOutput};

static PORT: LockClass = LockClass::new("pl011", 1960);

/// Bytes that wait to be sent, at most; Linux's serial ports have as many.
const QUEUE: usize = 4096;
/// Writers are woken when so few are left.
const WAKE_BELOW: usize = 256;
/// Bytes that are received at a time, outside of the lock.
const BATCH: usize = 32;
/// Looks at the flags for room to send, before a byte is given up: far longer than a byte takes
/// at 300 baud, and an end if the device is dead.
const PATIENCE: u32 = 10_000_000;
/// Tries to get the lock from a CPU that may be stopped, before the log is written without it.
const LOCK_PATIENCE: u32 = 1_000_000;
/// Bytes of the log that are sent with interrupts off.
const POLLED_BATCH: usize = 16;

/// A PL011.
pub(crate) struct Port {
    regs: Region,
    transmit: SpinLock<Transmit>,
    tty: Once<KArc<Tty>>,
}

struct Transmit {
    ring: KVec<u8>,
    head: usize,
    tail: usize,
    /// Goes before everything else, even when stopped.
    urgent: Option<u8>,
    stopped: bool,
}

impl Transmit {
    fn len(&self) -> usize {
        self.head - self.tail
    }

    fn push(&mut self, c: u8) -> bool {
        if self.len() >= QUEUE {
            return false;
        }
        if let Some(slot) = self.ring.get_mut(self.head & (QUEUE - 1)) {
            *slot = c;
        }
        self.head += 1;
        true
    }

    /// The byte to send next.
    fn pop(&mut self) -> Option<u8> {
        if let Some(c) = self.urgent.take() {
            return Some(c);
        }
        if self.stopped || self.len() == 0 {
            return None;
        }
        let c = self.ring.get(self.tail & (QUEUE - 1)).copied();
        self.tail += 1;
        c
    }

    fn is_idle(&self) -> bool {
        self.urgent.is_none() && (self.stopped || self.len() == 0)
    }
}

impl Port {
    /// Takes a PL011 that the firmware may have been using: its speed stays, interrupts are off.
    pub(crate) fn try_new(regs: Region) -> Result<KArc<Self>> {
        let ring = KVec::try_from_elem(0, QUEUE)?;
        let transmit = Transmit { ring, head: 0, tail: 0, urgent: None, stopped: false };
        let port = Self { regs, transmit: SpinLock::new(transmit, &PORT), tty: Once::new() };
        port.set_up();
        Ok(KArc::try_new(port)?)
    }

    /// Bytes go to that terminal from now on.
    pub(crate) fn connect(&self, tty: KArc<Tty>) {
        self.tty.call_once(|| tty);
    }

    fn set_up(&self) {
        let r = &self.regs;
        r.reg(IMSC).set(0);
        r.reg(ICR).set(ALL_INTERRUPTS);
        let line = r.reg(LCR_H).extract();
        if !line.is_set(LineControl::FIFO) || !line.matches_all(LineControl::WORD::Eight) {
            // LCR_H may only change while the device is off, and it must have finished (3.3.7).
            self.wait_while(|| r.reg(FR).is_set(Flag::BUSY));
            r.reg(CR).modify(Control::ENABLE::CLEAR);
            r.reg(LCR_H).modify(LineControl::FIFO::SET + LineControl::WORD::Eight);
        }
        r.reg(IFLS).write(Level::TRANSMIT::Half + Level::RECEIVE::Half);
        r.reg(CR).modify(Control::ENABLE::SET + Control::TRANSMIT::SET + Control::RECEIVE::SET);
    }

    /// Waits for the device, but not for ever; whether it was worth it.
    fn wait_while(&self, busy: impl Fn() -> bool) -> bool {
        for _ in 0..PATIENCE {
            if !busy() {
                return true;
            }
            core::hint::spin_loop();
        }
        false
    }

    fn lock(&self) -> SpinIrqGuard<'_, Transmit> {
        self.transmit.lock_irq()
    }

    /// Fills the FIFO, and has an interrupt tell when there is room for more.
    fn pump(&self, t: &mut Transmit) {
        while !self.regs.reg(FR).is_set(Flag::TXFF) {
            let Some(c) = t.pop() else { break };
            self.regs.reg(DR).set(u32::from(c));
        }
        let wanted = if t.is_idle() { Interrupt::TRANSMIT::CLEAR } else { Interrupt::TRANSMIT::SET };
        self.regs.reg(IMSC).modify(wanted);
    }

    /// Takes what was received to the terminal. Without the lock: only the interrupt reads.
    fn receive(&self) {
        let mut bytes = [0; BATCH];
        let mut n = 0;
        let mut kind = Arrival::Normal;
        let deliver = |bytes: &[u8], kind| {
            if let (Some(tty), false) = (self.tty.get(), bytes.is_empty()) {
                tty.input(bytes, kind);
            }
        };
        // A device that never runs dry must not hold the CPU here: the interrupt comes again.
        for _ in 0..8 * BATCH {
            if self.regs.reg(FR).is_set(Flag::RXFE) {
                break;
            }
            let data = self.regs.reg(DR).extract();
            let arrival = if data.is_set(Data::BREAK) {
                Arrival::Break
            } else if data.is_set(Data::PARITY) {
                Arrival::Parity
            } else if data.is_set(Data::FRAMING) {
                Arrival::Frame
            } else {
                Arrival::Normal
            };
            if arrival != kind || n == BATCH {
                deliver(bytes.get(..n).unwrap_or_default(), kind);
                n = 0;
                kind = arrival;
            }
            if let Some(slot) = bytes.get_mut(n) {
                *slot = data.read(Data::BYTE) as u8;
                n += 1;
            }
        }
        deliver(bytes.get(..n).unwrap_or_default(), kind);
    }

    fn send_polled(&self, bytes: &[u8]) {
        for &c in bytes {
            if !self.wait_while(|| self.regs.reg(FR).is_set(Flag::TXFF)) {
                return;
            }
            self.regs.reg(DR).set(u32::from(c));
        }
    }
}

impl IrqHandler for Port {
    fn handle(&self) -> Handled {
        let pending = self.regs.reg(MIS).extract();
        if pending.get() == 0 {
            return Handled::No;
        }
        // Receive, timeout and transmit end by themselves when they are served.
        self.regs.reg(ICR).write(Interrupt::OTHER.val(0xf) + Interrupt::ERRORS.val(0xf));
        if pending.is_set(Interrupt::RECEIVE) || pending.is_set(Interrupt::TIMEOUT) {
            self.receive();
        }
        if pending.is_set(Interrupt::TRANSMIT) {
            let left = {
                let mut t = self.lock();
                self.pump(&mut t);
                t.len()
            };
            if let (Some(tty), true) = (self.tty.get(), left < WAKE_BELOW) {
                tty.output_ready();
            }
        }
        Handled::Yes
    }
}

impl TtyDriver for Port {
    fn open(&self) -> Result {
        let _lock = self.lock();
        self.regs.reg(ICR).set(ALL_INTERRUPTS);
        self.regs.reg(IMSC).modify(Interrupt::RECEIVE::SET + Interrupt::TIMEOUT::SET);
        Ok(())
    }

    fn close(&self) {
        let _lock = self.lock();
        // What is queued goes on being sent.
        self.regs.reg(IMSC).modify(Interrupt::RECEIVE::CLEAR + Interrupt::TIMEOUT::CLEAR);
    }

    fn write(&self, bytes: &[u8]) -> usize {
        let mut t = self.lock();
        let n = bytes.iter().take_while(|&&c| t.push(c)).count();
        self.pump(&mut t);
        n
    }

    fn write_room(&self) -> usize {
        QUEUE - self.lock().len()
    }

    fn unsent(&self) -> usize {
        let waiting = self.lock().len();
        waiting + usize::from(self.regs.reg(FR).is_set(Flag::BUSY))
    }

    fn flush(&self) {
        let mut t = self.lock();
        t.tail = t.head;
        self.pump(&mut t);
    }

    fn stop(&self) {
        let mut t = self.lock();
        t.stopped = true;
        self.pump(&mut t);
    }

    fn start(&self) {
        let mut t = self.lock();
        t.stopped = false;
        self.pump(&mut t);
    }

    fn send_now(&self, c: u8) {
        let mut t = self.lock();
        t.urgent = Some(c);
        self.pump(&mut t);
    }

    /// Speed and character form stay as the firmware set them: the tree does not tell the clock.
    fn set_termios(&self, new: &mut Termios, old: &Termios) {
        const FORM: u32 = g::CSIZE | g::CSTOPB | g::PARENB | g::PARODD | g::CBAUD;
        new.cflag = new.cflag & !FORM | old.cflag & FORM;
        (new.ispeed, new.ospeed) = (old.ispeed, old.ospeed);
    }

    fn set_break(&self, on: bool) {
        let _lock = self.lock();
        self.regs.reg(LCR_H).modify(if on { LineControl::BREAK::SET } else { LineControl::BREAK::CLEAR });
    }
}

impl ConsoleOutput for Port {
    fn write_polled(&self, bytes: &[u8]) {
        for batch in bytes.chunks(POLLED_BATCH) {
            // In a panic the holder may be this very CPU, or one that is stopped.
            let mut lock = self.transmit.try_lock_irq();
            for _ in 0..LOCK_PATIENCE {
                if lock.is_some() {
                    break;
                }
                core::hint::spin_loop();
                lock = self.transmit.try_lock_irq();
            }
            self.send_polled(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use device::mmio::At;

    /// Registers that are memory: the flags are what a test sets.
    fn port() -> KArc<Port> {
        Port::try_new(Region::fake(0x1000).unwrap()).unwrap()
    }

    #[test]
    fn setup_keeps_the_speed_and_switches_on() {
        let regs = Region::fake(0x1000).unwrap();
        regs.reg(At::<u32>::new(0x24)).set(26);
        regs.reg(At::<u32>::new(0x28)).set(3);
        let port = Port::try_new(regs).unwrap();
        assert_eq!(port.regs.reg(At::<u32>::new(0x24)).get(), 26);
        assert_eq!(port.regs.reg(At::<u32>::new(0x28)).get(), 3);
        assert_eq!(port.regs.reg(CR).get(), 0x301);
        assert_eq!(port.regs.reg(LCR_H).get(), 0x70);
        assert_eq!(port.regs.reg(IMSC).get(), 0);
    }

    #[test]
    fn output_waits_for_room_and_an_interrupt_carries_it_on() {
        let port = port();
        port.regs.reg(FR).write(Flag::TXFF::SET);
        assert_eq!(port.write(b"abc"), 3);
        assert_eq!(port.unsent(), 3);
        assert!(port.regs.reg(IMSC).is_set(Interrupt::TRANSMIT));
        assert_eq!(port.handle(), Handled::No);
        port.regs.reg(FR).set(0);
        port.regs.reg(MIS).write(Interrupt::TRANSMIT::SET);
        assert_eq!(port.handle(), Handled::Yes);
        assert_eq!(port.unsent(), 0);
        assert_eq!(port.regs.reg(DR).get(), u32::from(b'c'));
        assert!(!port.regs.reg(IMSC).is_set(Interrupt::TRANSMIT));
    }

    #[test]
    fn a_stopped_port_still_sends_flow_control() {
        let port = port();
        port.stop();
        port.write(b"x");
        assert_eq!(port.unsent(), 1);
        assert!(!port.regs.reg(IMSC).is_set(Interrupt::TRANSMIT));
        port.send_now(17);
        assert_eq!(port.regs.reg(DR).get(), 17);
        port.start();
        assert_eq!(port.regs.reg(DR).get(), u32::from(b'x'));
    }

    #[test]
    fn the_queue_takes_what_fits() {
        let port = port();
        port.regs.reg(FR).write(Flag::TXFF::SET);
        assert_eq!(port.write(&[b'x'; QUEUE + 10]), QUEUE);
        assert_eq!((port.write(b"y"), port.write_room()), (0, 0));
        port.flush();
        assert_eq!(port.write_room(), QUEUE);
    }

    #[test]
    fn the_log_is_written_though_the_lock_is_held() {
        let port = port();
        let _held = port.lock();
        port.write_polled(b"oops");
        assert_eq!(port.regs.reg(DR).get(), u32::from(b's'));
    }

    #[test]
    fn settings_that_the_device_does_not_follow_stay_as_they_were() {
        let port = port();
        let old = tty::termios::INITIAL;
        let mut new = Termios { cflag: g::CS7 | g::B9600 | g::CREAD, ospeed: 9600, ..old };
        port.set_termios(&mut new, &old);
        assert_eq!((new.ospeed, new.cflag), (115_200, g::CS8 | g::B115200 | g::CREAD));
    }
}
