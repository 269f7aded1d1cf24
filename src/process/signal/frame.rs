//! The signal frame on the user's stack, as arm64 Linux lays it out, and `rt_sigreturn`.
//!
//! From low to high addresses: siginfo (128 bytes), ucontext (flags, link, stack, mask,
//! registers, a 4096-byte area of tagged records: FP state, ESR, terminator), and above them a
//! frame record that unwinders follow. Debuggers and libc's unwinder know these offsets.

use super::{Action, Cause, SIGINFO_SIZE, SigInfo, SigSet, deliver};
use crate::task::{AltStack, Task};
use abi::{Errno, Result, UserAddr, raw::general as g};
use arch::{
    UserRegs,
    fp::FpRegs,
    user::{UserPtr, UserSlice},
};

const UC: usize = SIGINFO_SIZE;
const UC_STACK: usize = UC + 16;
const UC_MASK: usize = UC + 40;
/// `uc_mcontext`: 16-aligned behind the mask and its 120 spare bytes.
const MC: usize = UC + 176;
const MC_REGS: usize = MC + 8;
const MC_SP: usize = MC_REGS + 31 * 8;
const MC_PC: usize = MC_SP + 8;
const MC_PSTATE: usize = MC_PC + 8;
const RECORDS: usize = MC + 288;
const RECORDS_SIZE: usize = 4096;
/// Bytes of the whole frame without the frame record.
const FRAME_SIZE: usize = RECORDS + RECORDS_SIZE;
/// What we fill of it: up to the terminator behind the ESR record.
const USED: usize = RECORDS + FP_SIZE + ESR_SIZE + 16;

/// The stack is disabled when a handler is entered, and set again when it returns.
pub(super) const SS_AUTODISARM: u32 = 1 << 31;

const FP_MAGIC: u32 = 0x4650_8001;
const FP_SIZE: usize = 528;
const ESR_MAGIC: u32 = 0x4553_5201;
const ESR_SIZE: usize = 16;

/// Smallest stack on which a frame fits (AT_MINSIGSTKSZ).
pub(crate) const MIN_STACK: u64 = FRAME_SIZE as u64 + 16;

/// PSTATE bits that user space may set: condition flags, and the SSBS, DIT and BTYPE fields.
const PSTATE_USER: u64 = 0xf << 28 | 1 << 12 | 1 << 24 | 3 << 10;
/// PSTATE bits that name another mode than EL0t in AArch64, or mask exceptions.
const PSTATE_FORBIDDEN: u64 = 0x1f | 0xf << 6;

/// What kind of branch led to the present instruction, and the value for an indirect call.
const BTYPE: u64 = 3 << 10;
const BTYPE_CALL: u64 = 2 << 10;

struct Bytes<'a>(&'a mut [u8; USED]);

impl Bytes<'_> {
    fn u32(&mut self, at: usize, v: u32) {
        if let Some(b) = self.0.get_mut(at..at + 4) {
            b.copy_from_slice(&v.to_le_bytes());
        }
    }
    fn u64(&mut self, at: usize, v: u64) {
        if let Some(b) = self.0.get_mut(at..at + 8) {
            b.copy_from_slice(&v.to_le_bytes());
        }
    }
    fn u128(&mut self, at: usize, v: u128) {
        if let Some(b) = self.0.get_mut(at..at + 16) {
            b.copy_from_slice(&v.to_le_bytes());
        }
    }
    fn get_u32(&self, at: usize) -> u32 {
        self.0.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
    }
    fn get_u64(&self, at: usize) -> u64 {
        self.0.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    }
    fn get_u128(&self, at: usize) -> u128 {
        self.0.get(at..at + 16).and_then(|b| b.try_into().ok()).map_or(0, u128::from_le_bytes)
    }
}

/// Whether `sp` lies on the alternate stack.
pub(crate) fn on_alt_stack(alt: &AltStack, sp: u64) -> bool {
    // One that disarms itself is nobody's while a handler runs on it.
    alt.size != 0 && alt.flags & SS_AUTODISARM == 0 && sp > alt.base && sp - alt.base <= alt.size
}

/// Writes the frame and points the registers at the handler. EFAULT when the stack cannot take it;
/// the registers are unchanged then.
pub(super) fn push(task: &Task, regs: &mut UserRegs, info: &SigInfo, action: &Action, mask: SigSet) -> Result {
    let alt = *task.alt_stack.lock();
    let mut sp = regs.sp;
    let nested = on_alt_stack(&alt, sp);
    if action.has(g::SA_ONSTACK) && alt.size != 0 && !nested {
        sp = alt.base.wrapping_add(alt.size);
    }
    let record = sp.wrapping_sub(16) & !15;
    let frame = record.wrapping_sub(FRAME_SIZE as u64) & !15;
    if action.has(g::SA_ONSTACK) && alt.size != 0 && (frame < alt.base) {
        return Err(Errno::EFAULT);
    }

    let mut raw = [0u8; USED];
    let mut b = Bytes(&mut raw);
    b.0.get_mut(..SIGINFO_SIZE).ok_or(Errno::EFAULT)?.copy_from_slice(&info.encode());
    b.u64(UC_STACK, alt.base);
    b.u32(UC_STACK + 8, if nested { g::SS_ONSTACK } else if alt.size == 0 { g::SS_DISABLE } else { alt.flags });
    b.u64(UC_STACK + 16, alt.size);
    b.u64(UC_MASK, mask.0);
    let fault = match info.cause {
        Cause::Fault { addr, .. } => Some(addr),
        _ => None,
    };
    b.u64(MC, fault.unwrap_or(0));
    for (i, x) in regs.x.iter().enumerate() {
        b.u64(MC_REGS + i * 8, *x);
    }
    b.u64(MC_SP, regs.sp);
    b.u64(MC_PC, regs.pc);
    b.u64(MC_PSTATE, regs.pstate);
    let fp = arch::fp::read(arch::thread::current());
    b.u32(RECORDS, FP_MAGIC);
    b.u32(RECORDS + 4, FP_SIZE as u32);
    b.u32(RECORDS + 8, fp.fpsr);
    b.u32(RECORDS + 12, fp.fpcr);
    for (i, v) in fp.v.iter().enumerate() {
        b.u128(RECORDS + 16 + i * 16, *v);
    }
    let esr = task.fault_esr.load(sync::atomic::Ordering::Relaxed);
    if fault.is_some() && esr != 0 {
        b.u32(RECORDS + FP_SIZE, ESR_MAGIC);
        b.u32(RECORDS + FP_SIZE + 4, ESR_SIZE as u32);
        b.u64(RECORDS + FP_SIZE + 8, esr);
    }
    UserSlice::new(UserAddr(frame), USED).write_from(&raw)?;
    UserPtr::<[u64; 2]>::new(UserAddr(record)).write([regs.x[29], regs.x[30]])?;

    let return_to = if action.has(g::SA_RESTORER) {
        action.restorer
    } else {
        crate::exec::sigreturn_trampoline(task).ok_or(Errno::EFAULT)?
    };
    if alt.flags & SS_AUTODISARM != 0 {
        *task.alt_stack.lock() = AltStack::DISABLED;
    }
    regs.x[0] = u64::from(info.signal.number());
    if action.has(g::SA_SIGINFO) {
        regs.x[1] = frame;
        regs.x[2] = frame + UC as u64;
    }
    regs.x[29] = record;
    regs.x[30] = return_to;
    regs.sp = frame;
    regs.pc = action.handler;
    if arch::features::has(arch::features::Feature::Bti) {
        // The handler starts like an indirect call's target (Arm ARM D8.4.6); other flags carry over.
        regs.pstate = regs.pstate & !BTYPE | BTYPE_CALL;
    }
    Ok(())
}

/// Undoes [`push`]: registers, FP state, mask and alternate stack from the frame at the user's SP.
/// A frame that cannot be right ends the thread with SIGSEGV, as Linux does.
pub fn sigreturn(task: &Task, regs: &mut UserRegs) -> u64 {
    *task.restart.lock() = crate::task::Restart::None;
    match pop(task, regs) {
        Ok(()) => regs.x[0],
        Err(_) => {
            deliver::force(task, SigInfo::kernel(super::Signal::SEGV), false);
            regs.x[0]
        }
    }
}

fn pop(task: &Task, regs: &mut UserRegs) -> Result {
    let frame = UserAddr(regs.sp);
    if !frame.is_aligned(16) {
        return Err(Errno::EFAULT);
    }
    let mut raw = [0u8; USED];
    UserSlice::new(frame, USED).read_into(&mut raw)?;
    let b = Bytes(&mut raw);
    let pstate = b.get_u64(MC_PSTATE);
    // EL0t in AArch64 with nothing masked, or the frame is forged. Bits that mean nothing to user
    // space are dropped.
    if pstate & PSTATE_FORBIDDEN != 0 {
        return Err(Errno::EINVAL);
    }
    if b.get_u32(RECORDS) != FP_MAGIC || b.get_u32(RECORDS + 4) as usize != FP_SIZE {
        return Err(Errno::EINVAL);
    }
    let mut fp = FpRegs { v: [0; 32], fpsr: b.get_u32(RECORDS + 8), fpcr: b.get_u32(RECORDS + 12) };
    for (i, v) in fp.v.iter_mut().enumerate() {
        *v = b.get_u128(RECORDS + 16 + i * 16);
    }
    let alt = AltStack { base: b.get_u64(UC_STACK), size: b.get_u64(UC_STACK + 16), flags: b.get_u32(UC_STACK + 8) };
    // All checked: commit.
    for (i, x) in regs.x.iter_mut().enumerate() {
        *x = b.get_u64(MC_REGS + i * 8);
    }
    regs.sp = b.get_u64(MC_SP);
    regs.pc = b.get_u64(MC_PC);
    regs.pstate = pstate & PSTATE_USER;
    regs.syscallno = -1;
    arch::fp::write(arch::thread::current(), &fp);
    deliver::set_blocked(task, SigSet(b.get_u64(UC_MASK)));
    // Errors here are ignored, as on Linux: the stack may be in use by this very frame.
    let _ = super::calls::set_alt_stack(task, alt, regs.sp);
    Ok(())
}
