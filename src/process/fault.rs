//! Faults of user programs: to the memory manager, or into signals (`sigaction(2)`, `si_code`).

use crate::{
    signal::{SigInfo, Signal, deliver::force},
    task::{Task, with_current},
};
use abi::raw::general as g;
use arch::{PageFault, UserException, UserRegs};
use mm::FaultOutcome;
use sync::atomic::Ordering;

/// A page fault at EL0. Interrupts on, may sleep.
pub fn user_fault(regs: &UserRegs, fault: PageFault) {
    with_current(|task| {
        let Some(mm) = task.mm() else { return };
        let limits = crate::limits::for_memory(&task.process);
        let esr = fault.esr;
        let addr = fault.addr.0;
        match mm.fault(fault, &limits) {
            FaultOutcome::Resolved => task.count_fault(),
            FaultOutcome::Retry | FaultOutcome::Killed => {}
            FaultOutcome::Segv { code } => signal(task, Signal::SEGV, code as u32, addr, esr),
            FaultOutcome::BusAdrErr => signal(task, Signal::BUS, g::BUS_ADRERR, addr, esr),
            FaultOutcome::OutOfMemory => {
                log::warn!("out of memory: killed process {} ({})", task.process.id(), Name(&sched::current().name()));
                crate::signal::send_to_task(task, SigInfo::kernel(Signal::KILL));
            }
        }
    });
    let _ = regs;
}

/// A fault of a user copy in the kernel: true when the access can be repeated. Where sleeping is
/// not allowed (a spin lock is held), the copy fails instead, and its caller faults the page in.
pub fn kernel_user_copy_fault(fault: PageFault) -> bool {
    if arch::preempt::count() != 0 || !arch::irq::enabled() {
        return false;
    }
    with_current(|task| {
        let Some(mm) = task.mm() else { return false };
        let limits = crate::limits::for_memory(&task.process);
        loop {
            match mm.fault(fault, &limits) {
                FaultOutcome::Resolved => {
                    task.count_fault();
                    return true;
                }
                FaultOutcome::Retry if !sched::current().head().test_flag(arch::thread::FATAL_PENDING) => {}
                _ => return false,
            }
        }
    })
    .unwrap_or(false)
}

/// Any other exception of a user program.
pub fn user_exception(regs: &UserRegs, e: UserException) {
    let (s, code, addr, esr) = match e {
        UserException::Undefined { esr } | UserException::SystemRegister { esr } => {
            (Signal::ILL, g::ILL_ILLOPC, regs.pc, esr)
        }
        UserException::IllegalState | UserException::Bti => (Signal::ILL, g::ILL_ILLOPC, regs.pc, 0),
        UserException::PcAlignment => (Signal::BUS, g::BUS_ADRALN, regs.pc, 0),
        UserException::SpAlignment => (Signal::BUS, g::BUS_ADRALN, regs.sp, 0),
        UserException::Breakpoint { .. } => (Signal::TRAP, g::TRAP_BRKPT, regs.pc, 0),
        UserException::SingleStep => (Signal::TRAP, g::TRAP_TRACE, regs.pc, 0),
        UserException::HwBreakpoint => (Signal::TRAP, g::TRAP_HWBKPT, regs.pc, 0),
        UserException::Watchpoint { addr } => (Signal::TRAP, g::TRAP_HWBKPT, addr, 0),
        UserException::FpException { esr } => (Signal::FPE, fp_code(esr), regs.pc, esr),
        UserException::SError { esr } => (Signal::BUS, g::BUS_OBJERR, 0, esr),
        UserException::Unknown { esr } => (Signal::ILL, g::ILL_ILLOPC, regs.pc, esr),
    };
    with_current(|task| signal(task, s, code, addr, esr));
}

/// `si_code` of a trapped floating-point exception (Arm ARM D17.2.37, ISS encoding).
fn fp_code(esr: u64) -> u32 {
    const TFV: u64 = 1 << 23;
    match esr {
        e if e & TFV == 0 => g::FPE_FLTUNK,
        e if e & 1 != 0 => g::FPE_FLTINV,
        e if e & 2 != 0 => g::FPE_FLTDIV,
        e if e & 4 != 0 => g::FPE_FLTOVF,
        e if e & 8 != 0 => g::FPE_FLTUND,
        _ => g::FPE_FLTRES,
    }
}

fn signal(task: &Task, s: Signal, code: u32, addr: u64, esr: u64) {
    task.fault_esr.store(esr, Ordering::Relaxed);
    force(task, SigInfo::fault(s, code, addr), false);
}

struct Name<'a>(&'a [u8]);

impl core::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        for b in self.0.iter().take(end) {
            core::fmt::Write::write_char(f, if b.is_ascii_graphic() { char::from(*b) } else { '?' })?;
        }
        Ok(())
    }
}
