//! The PL011's registers (Arm DDI 0183G, chapter 3).

use device::mmio::At;
use tock_registers::register_bitfields;

register_bitfields![u32,
    pub Data [
        BYTE OFFSET(0) NUMBITS(8) [],
        /// No stop bit.
        FRAMING OFFSET(8) NUMBITS(1) [],
        PARITY OFFSET(9) NUMBITS(1) [],
        BREAK OFFSET(10) NUMBITS(1) [],
        OVERRUN OFFSET(11) NUMBITS(1) []
    ],
    pub Flag [
        /// A byte is on the wire, or waits in the FIFO.
        BUSY OFFSET(3) NUMBITS(1) [],
        /// Nothing received.
        RXFE OFFSET(4) NUMBITS(1) [],
        /// No room to transmit.
        TXFF OFFSET(5) NUMBITS(1) []
    ],
    pub LineControl [
        BREAK OFFSET(0) NUMBITS(1) [],
        FIFO OFFSET(4) NUMBITS(1) [],
        WORD OFFSET(5) NUMBITS(2) [Eight = 3]
    ],
    pub Control [
        ENABLE OFFSET(0) NUMBITS(1) [],
        TRANSMIT OFFSET(8) NUMBITS(1) [],
        RECEIVE OFFSET(9) NUMBITS(1) []
    ],
    pub Level [
        /// The FIFO fill at which an interrupt comes: 0 is an eighth, 2 is half.
        TRANSMIT OFFSET(0) NUMBITS(3) [Eighth = 0, Half = 2],
        RECEIVE OFFSET(3) NUMBITS(3) [Half = 2]
    ],
    /// Shared by the mask, status and clear registers.
    pub Interrupt [
        RECEIVE OFFSET(4) NUMBITS(1) [],
        TRANSMIT OFFSET(5) NUMBITS(1) [],
        /// Something was received and nothing came after it for 32 bit times.
        TIMEOUT OFFSET(6) NUMBITS(1) [],
        /// The other sources: modem lines and receive errors.
        OTHER OFFSET(0) NUMBITS(4) [],
        ERRORS OFFSET(7) NUMBITS(4) []
    ]
];

pub(crate) const DR: At<u32, Data::Register> = At::new(0x00);
pub(crate) const FR: At<u32, Flag::Register> = At::new(0x18);
pub(crate) const LCR_H: At<u32, LineControl::Register> = At::new(0x2c);
pub(crate) const CR: At<u32, Control::Register> = At::new(0x30);
pub(crate) const IFLS: At<u32, Level::Register> = At::new(0x34);
pub(crate) const IMSC: At<u32, Interrupt::Register> = At::new(0x38);
pub(crate) const MIS: At<u32, Interrupt::Register> = At::new(0x40);
pub(crate) const ICR: At<u32, Interrupt::Register> = At::new(0x44);
/// Every interrupt, for the clear register.
pub(crate) const ALL_INTERRUPTS: u32 = 0x7ff;
/// Bytes that the registers take.
pub(crate) const WINDOW: usize = 0x48;
