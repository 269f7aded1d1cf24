//! What the vectors call: sorts exceptions, hands them to the rooms above, reports those of the kernel.
//!
//! Syndromes: Arm ARM D24.2.40 (ESR_EL1).

use crate::thread::{EXIT_WORK, FOREIGN_FP};
use crate::{
    Access, FaultKind, PageFault, UserException, UserRegs, backtrace, cpu, debug, features, fp, irq, panic, percpu,
    preempt, thread,
};
use abi::{USER_END, UserAddr};
use core::fmt::Write;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

core::arch::global_asm!(
    include_str!("vectors.S"),
    CURRENT = const offset_of!(percpu::CpuBlock, current),
    OVERFLOW_TOP = const offset_of!(percpu::CpuBlock, overflow_top),
    IRQ_TOP = const offset_of!(percpu::CpuBlock, irq_top),
    STACK_SEED = const offset_of!(percpu::CpuBlock, stack_seed),
    FLAGS = const offset_of!(thread::ThreadHead, flags),
    EL0_SVC = sym el0_svc,
    EXIT_SLOW = sym exit_slow,
    EL0_EXCEPTION = sym el0_exception,
    EL0_IRQ = sym el0_irq,
    EL0_SERROR = sym el0_serror,
    EL0_AARCH32 = sym el0_aarch32,
    EL1_SYNC = sym el1_sync,
    EL1_IRQ = sym el1_irq,
    EL1_PREEMPT = sym el1_preempt,
    EL1_SERROR = sym el1_serror,
    EL1_SP0 = sym el1_sp0,
    EL1_OVERFLOW = sym el1_overflow,
);

const _: () = {
    assert!(size_of::<UserRegs>() == 288);
    assert!(offset_of!(UserRegs, sp) == 248);
    assert!(offset_of!(UserRegs, pc) == 256);
    assert!(offset_of!(UserRegs, orig_x0) == 272);
};

// Exception classes.
const EC_UNKNOWN: u64 = 0x00;
const EC_BTI: u64 = 0x0d;
const EC_ILLEGAL_STATE: u64 = 0x0e;
const EC_SYSREG: u64 = 0x18;
const EC_IABT_EL0: u64 = 0x20;
const EC_IABT_EL1: u64 = 0x21;
const EC_PC_ALIGN: u64 = 0x22;
const EC_DABT_EL0: u64 = 0x24;
const EC_DABT_EL1: u64 = 0x25;
const EC_SP_ALIGN: u64 = 0x26;
const EC_FP: u64 = 0x2c;
const EC_HW_BREAKPOINT: u64 = 0x30;
const EC_STEP: u64 = 0x32;
const EC_WATCHPOINT: u64 = 0x34;
const EC_BRK: u64 = 0x3c;

const fn class(esr: u64) -> u64 {
    esr >> 26 & 0x3f
}

/// PSTATE.I.
const PSTATE_I: u64 = 1 << 7;

#[inline]
extern "C" fn el0_svc(regs: &mut UserRegs) {
    crate::kernel().syscall(regs);
}

/// Serves the flags of the current thread until none is left; interrupts are off at call and return.
#[cold]
extern "C" fn exit_slow(regs: &mut UserRegs) {
    let head = thread::current();
    loop {
        let flags = head.flags();
        if flags & EXIT_WORK != 0 {
            irq::enable();
            crate::kernel().exit_work(regs, flags & EXIT_WORK);
            irq::disable();
        } else if flags & FOREIGN_FP != 0 {
            fp::load_current(head);
        } else {
            debug::before_return(flags);
            break;
        }
    }
    // D, A, I, F masked, as the assembly left them.
    // SAFETY: masks.
    unsafe { core::arch::asm!("msr daifset, #0xf", options(nostack, preserves_flags)) };
}

/// An address without the tag that TBI allows in the top byte.
const fn untagged(addr: u64) -> u64 {
    if addr & 1 << 55 == 0 { addr & 0x00ff_ffff_ffff_ffff } else { addr | 0xff << 56 }
}

/// What an abort's syndrome says.
fn page_fault(esr: u64, far: u64, execute: bool, from_user: bool) -> PageFault {
    let kind = match esr & 0x3f {
        0x04..=0x07 => FaultKind::Translation,
        0x08..=0x0b => FaultKind::AccessFlag,
        0x0c..=0x0f => FaultKind::Permission,
        0x10..=0x1f => FaultKind::External,
        0x21 => FaultKind::Alignment,
        _ => FaultKind::Other,
    };
    // WnR is also set for cache maintenance (CM), which is a read to us.
    let write = esr & 1 << 6 != 0 && esr & 1 << 8 == 0;
    let access = if execute {
        Access::Execute
    } else if write {
        Access::Write
    } else {
        Access::Read
    };
    PageFault { addr: UserAddr(untagged(far)), access, kind, esr, from_user }
}

extern "C" fn el0_exception(regs: &mut UserRegs, esr: u64, far: u64) {
    // SAFETY: unmasks A, I, F: ESR and FAR are read, and the frame is complete.
    unsafe { core::arch::asm!("msr daifclr, #7", options(nostack, preserves_flags)) };
    let kernel = crate::kernel();
    let exception = match class(esr) {
        EC_DABT_EL0 => return kernel.user_fault(regs, page_fault(esr, far, false, true)),
        EC_IABT_EL0 => return kernel.user_fault(regs, page_fault(esr, far, true, true)),
        EC_SYSREG => {
            if emulate_mrs(regs, sysreg_of_esr(esr)) {
                return;
            }
            UserException::SystemRegister { esr }
        }
        EC_UNKNOWN => {
            // Reads of ID registers are undefined at EL0 before FEAT_IDST.
            let instruction = crate::user::load_u32(UserAddr(regs.pc)).unwrap_or(0);
            if emulate_mrs(regs, sysreg_of_instruction(instruction)) {
                return;
            }
            UserException::Undefined { esr }
        }
        EC_BTI => UserException::Bti,
        EC_ILLEGAL_STATE => UserException::IllegalState,
        EC_PC_ALIGN => UserException::PcAlignment,
        EC_SP_ALIGN => UserException::SpAlignment,
        EC_FP => UserException::FpException { esr },
        // What another thread left in the registers, or this one before it was let go, is nobody's.
        EC_HW_BREAKPOINT | EC_WATCHPOINT if !debug::points_are_wanted(thread::current()) => return,
        EC_STEP if !debug::step_is_wanted(thread::current()) => return,
        EC_HW_BREAKPOINT => UserException::HwBreakpoint,
        EC_STEP => UserException::SingleStep,
        EC_WATCHPOINT => UserException::Watchpoint { addr: untagged(far) },
        EC_BRK => UserException::Breakpoint { imm: esr as u16 },
        // Traps of what the CPU has and the kernel does not switch on (SVE, SME, pointer
        // authentication) and of what EL0 has not (HVC, SMC).
        0x01..=0x09 | 0x12..=0x17 | 0x19..=0x1d => UserException::Undefined { esr },
        _ => UserException::Unknown { esr },
    };
    kernel.user_exception(regs, exception);
}

/// An `MRS Xt, <system register>`.
struct Mrs {
    rt: u32,
    op0: u32,
    op1: u32,
    crn: u32,
    crm: u32,
    op2: u32,
}

fn sysreg_of_esr(esr: u64) -> Option<Mrs> {
    let bits = |shift: u32, n: u32| (esr >> shift) as u32 & ((1 << n) - 1);
    (bits(0, 1) == 1).then(|| Mrs {
        rt: bits(5, 5),
        op0: bits(20, 2),
        op2: bits(17, 3),
        op1: bits(14, 3),
        crn: bits(10, 4),
        crm: bits(1, 4),
    })
}

fn sysreg_of_instruction(instruction: u32) -> Option<Mrs> {
    let bits = |shift: u32, n: u32| instruction >> shift & ((1 << n) - 1);
    // MRS: 1101 0101 0011 o0 op1 CRn CRm op2 Rt (Arm ARM C6.2.228)
    (instruction >> 20 == 0xd53).then(|| Mrs {
        rt: bits(0, 5),
        op0: 2 + bits(19, 1),
        op1: bits(16, 3),
        crn: bits(12, 4),
        crm: bits(8, 4),
        op2: bits(5, 3),
    })
}

/// Carries out the read of an ID register for the program; whether it was one.
fn emulate_mrs(regs: &mut UserRegs, mrs: Option<Mrs>) -> bool {
    let Some(mrs) = mrs.filter(|m| m.op0 == 3 && m.op1 == 0 && m.crn == 0) else {
        return false;
    };
    let Some(value) = features::emulated_id_register(mrs.crm, mrs.op2) else {
        return false;
    };
    if let Some(x) = regs.x.get_mut(mrs.rt as usize) {
        *x = value; // 31 is XZR
    }
    regs.pc = regs.pc.wrapping_add(4);
    true
}

#[inline]
fn interrupt(from_user: bool) {
    preempt::enter_interrupt();
    percpu::this().from_user.store(from_user, Ordering::Relaxed);
    if panic::is_stopping() {
        panic::stop_this_cpu();
    }
    crate::kernel().interrupt();
    percpu::this().stir();
    preempt::leave_interrupt();
}

extern "C" fn el0_irq() {
    interrupt(true);
}

extern "C" fn el1_irq() {
    interrupt(false);
}

extern "C" fn el1_preempt() {
    let head = thread::current();
    if head.preempt_count.load(Ordering::Relaxed) == 0
        && head.flags.load(Ordering::Relaxed) & thread::NEED_RESCHED != 0
    {
        crate::kernel().preempt_schedule();
    }
}

extern "C" fn el0_serror(regs: &mut UserRegs, esr: u64) {
    // SAFETY: unmasks I and F: the frame is complete.
    unsafe { core::arch::asm!("msr daifclr, #3", options(nostack, preserves_flags)) };
    crate::kernel().user_exception(regs, UserException::SError { esr });
}

extern "C" fn el0_aarch32(regs: &mut UserRegs, esr: u64) {
    // SAFETY: unmasks A, I, F: ESR is read, and the frame is complete.
    unsafe { core::arch::asm!("msr daifclr, #7", options(nostack, preserves_flags)) };
    crate::kernel().user_exception(regs, UserException::Unknown { esr });
}

/// Entries of `__ex_table`: both places relative to the field.
#[repr(C)]
struct ExEntry {
    instruction: i32,
    fixup: i32,
}

unsafe extern "C" {
    static __ex_table_start: ExEntry;
    static __ex_table_end: ExEntry;
}

/// Where to continue when the user access at `pc` faults.
fn fixup_of(pc: u64) -> Option<u64> {
    let start = &raw const __ex_table_start;
    let bytes = (&raw const __ex_table_end) as usize - start as usize;
    // SAFETY: the section's bounds, in constants.
    let table = unsafe { core::slice::from_raw_parts(start, bytes / size_of::<ExEntry>()) };
    let at = |field: &i32| (core::ptr::from_ref(field) as u64).wrapping_add_signed(i64::from(*field));
    table.iter().find(|e| at(&e.instruction) == pc).map(|e| at(&e.fixup))
}

extern "C" fn el1_sync(regs: &mut UserRegs, esr: u64, far: u64) {
    if class(esr) == EC_DABT_EL1
        && untagged(far) < USER_END
        && let Some(fixup) = fixup_of(regs.pc)
    {
        if regs.pstate & PSTATE_I == 0 {
            irq::enable();
        }
        if !crate::kernel().kernel_user_copy_fault(page_fault(esr, far, false, false)) {
            regs.pc = fixup;
        }
        return;
    }
    die("exception in the kernel", regs, esr, Some(far));
}

extern "C" fn el1_serror(regs: &mut UserRegs, esr: u64) -> ! {
    die("SError in the kernel", regs, esr, None)
}

extern "C" fn el1_sp0(regs: &mut UserRegs, esr: u64, far: u64) -> ! {
    die("exception with SP_EL0 as the stack", regs, esr, Some(far))
}

extern "C" fn el1_overflow(regs: &mut UserRegs, esr: u64, far: u64) -> ! {
    die("kernel stack overflow", regs, esr, Some(far))
}

/// Words for an exception class.
const fn class_name(esr: u64) -> &'static str {
    match class(esr) {
        EC_UNKNOWN => "undefined instruction",
        0x07 => "floating point access",
        EC_BTI => "branch target",
        EC_ILLEGAL_STATE => "illegal execution state",
        0x15 => "SVC",
        0x16 => "HVC",
        0x17 => "SMC",
        EC_SYSREG => "system register access",
        EC_IABT_EL1 => "instruction abort",
        EC_IABT_EL0 => "instruction abort from EL0",
        EC_PC_ALIGN => "misaligned PC",
        EC_DABT_EL1 => "data abort",
        EC_DABT_EL0 => "data abort from EL0",
        EC_SP_ALIGN => "misaligned SP",
        EC_FP => "floating point exception",
        0x2f => "SError",
        0x31 => "breakpoint",
        0x33 => "single step",
        0x35 => "watchpoint",
        EC_BRK => "BRK",
        _ => "unknown class",
    }
}

/// Words for an abort's fault status.
const fn status_name(esr: u64) -> &'static str {
    match esr & 0x3f {
        0x00..=0x03 => "address size fault",
        0x04..=0x07 => "translation fault",
        0x08..=0x0b => "access flag fault",
        0x0c..=0x0f => "permission fault",
        0x10 => "external abort",
        0x13..=0x17 => "external abort on a table walk",
        0x18..=0x1f => "parity or ECC error",
        0x21 => "alignment fault",
        0x30 => "TLB conflict",
        0x35 => "unsupported exclusive or atomic access",
        _ => "other fault",
    }
}

/// Reports an exception of the kernel and stops the machine.
#[cold]
fn die(what: &str, regs: &UserRegs, esr: u64, far: Option<u64>) -> ! {
    panic::fatal(|out| {
        let _ = writeln!(out, "{what} on CPU {}: {}", cpu::id().0, class_name(esr));
        let abort = matches!(class(esr), EC_IABT_EL0 | EC_IABT_EL1 | EC_DABT_EL0 | EC_DABT_EL1);
        if let Some(far) = far.filter(|_| abort) {
            let data = matches!(class(esr), EC_DABT_EL0 | EC_DABT_EL1);
            let how = if data && esr & 1 << 6 != 0 { "write" } else if data { "read" } else { "fetch" };
            let level = match esr & 0x3f {
                s @ 0x00..=0x0f => Some(s & 3),
                _ => None,
            };
            let _ = write!(out, "{} at {far:#018x} ({how}", status_name(esr));
            let _ = match level {
                Some(level) => writeln!(out, ", level {level})"),
                None => writeln!(out, ")"),
            };
        }
        let _ = writeln!(out, "esr {esr:#010x}  far {:#018x}  thread {:p}", far.unwrap_or(0), thread::current());
        let _ = write!(out, "pc");
        backtrace::print_address(out, regs.pc);
        let _ = write!(out, "lr");
        backtrace::print_address(out, regs.x[30]);
        let _ = writeln!(out, "sp {:#018x}  pstate {:#x}", regs.sp, regs.pstate);
        for (i, pair) in regs.x.chunks(3).enumerate() {
            for (j, x) in pair.iter().enumerate() {
                let _ = write!(out, "x{:<2} {x:016x}  ", i * 3 + j);
            }
            let _ = writeln!(out);
        }
        let _ = writeln!(out, "Call trace:");
        backtrace::print_address(out, regs.pc);
        backtrace::print(out, regs.x[29]);
    })
}
