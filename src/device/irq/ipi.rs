//! Interrupts from CPU to CPU.

use super::{HwIrq, root, stats};
use abi::{CpuId, CpuMask};
use sync::Once;

/// Why a CPU interrupts another. The numbers are those of the controller's software-generated
/// interrupts, which every Arm controller has from 0 to 15.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ipi {
    /// Look whether another thread should run.
    Reschedule = 0,
    /// Call the functions that are queued for you.
    Call = 1,
    /// Stop for good.
    Stop = 2,
}

impl Ipi {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reschedule, Self::Call, Self::Stop];

    /// The controller's number.
    pub const fn hw(self) -> HwIrq {
        HwIrq(self as u32)
    }

    pub(super) fn from_hw(hw: HwIrq) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.hw() == hw)
    }

    pub(super) const fn describe(self) -> &'static str {
        match self {
            Self::Reschedule => "Rescheduling interrupts",
            Self::Call => "Function call interrupts",
            Self::Stop => "CPU stop interrupts",
        }
    }
}

static HANDLERS: [Once<fn()>; Ipi::ALL.len()] = [const { Once::new() }; Ipi::ALL.len()];

/// Sets what an IPI does, once; hard interrupt context. Reschedule needs none: passing the end of
/// an interrupt is enough.
pub fn set_ipi_handler(ipi: Ipi, handler: fn()) {
    if let Some(slot) = HANDLERS.get(ipi as usize) {
        slot.call_once(|| handler);
    }
}

pub(super) fn handle(ipi: Ipi) {
    stats::count_ipi(ipi);
    if let Some(handler) = HANDLERS.get(ipi as usize).and_then(|h| h.get()) {
        handler();
    }
}

/// Interrupts those CPUs. Any context. Nothing happens before the controller is registered.
pub fn send(cpus: CpuMask, ipi: Ipi) {
    if let Some(root) = root()
        && !cpus.is_empty()
    {
        root.chip.send_ipi(cpus, ipi);
    }
}

/// Sends the scheduler's interrupts through the root controller.
pub struct IpiSender;

impl sched::Ipi for IpiSender {
    fn reschedule(&self, cpu: CpuId) {
        send(CpuMask::of(cpu), Ipi::Reschedule);
    }
    fn call(&self, cpu: CpuId) {
        send(CpuMask::of(cpu), Ipi::Call);
    }
}

/// What `sched::set_ipi` wants.
pub fn ipi_sender() -> &'static IpiSender {
    &IpiSender
}
