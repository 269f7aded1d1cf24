//! What the CPU calls: exceptions and interrupts, each handed to the room that it concerns.

use arch::{Kernel, PageFault, UserException, UserRegs};
use syscall::leave::After;

/// The rooms above the CPU.
pub(crate) struct Linnet;

pub(crate) static LINNET: Linnet = Linnet;

impl Kernel for Linnet {
    fn syscall(&self, regs: &mut UserRegs) {
        match sched::current().payload() {
            Some(task) => task.syscall(regs),
            None => regs.x[0] = abi::Errno::ENOSYS.to_ret(),
        }
    }
    fn user_fault(&self, regs: &mut UserRegs, fault: PageFault) {
        process::fault::user_fault(regs, fault);
        if cfg!(debug_assertions) {
            syscall::leave::check(After::Fault);
        }
    }
    fn kernel_user_copy_fault(&self, fault: PageFault) -> bool {
        process::fault::kernel_user_copy_fault(fault)
    }
    fn user_exception(&self, regs: &mut UserRegs, exception: UserException) {
        process::fault::user_exception(regs, exception);
        if cfg!(debug_assertions) {
            syscall::leave::check(After::Exception);
        }
    }
    fn interrupt(&self) {
        device::irq::handle();
    }
    fn exit_work(&self, regs: &mut UserRegs, flags: u32) {
        process::exit_work(regs, flags);
    }
    fn preempt_schedule(&self) {
        sched::preempt_schedule();
    }
}
