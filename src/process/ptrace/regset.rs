//! Register sets of a stopped task (PTRACE_GETREGSET and PTRACE_SETREGSET, `elf.h`'s NT_*).

use super::{debug, request::in_stop};
use crate::task::Task;
use abi::{Errno, Result, UserAddr};
use arch::user::{UserPtr, UserSlice};
use core::mem::size_of;

const NT_PRSTATUS: u32 = 1;
const NT_PRFPREG: u32 = 2;
const NT_ARM_TLS: u32 = 0x401;
const NT_ARM_HW_BREAK: u32 = 0x402;
const NT_ARM_HW_WATCH: u32 = 0x403;
const NT_ARM_SYSTEM_CALL: u32 = 0x404;

/// x0 to x30, sp, pc, pstate.
const GENERAL: usize = 34 * 8;
/// v0 to v31, FPSR, FPCR, padding.
const FLOATING: usize = 32 * 16 + 16;
/// Thread pointer, and the second one, which only CPUs with SME have.
const TLS: usize = 16;
/// The largest of all.
pub(super) const MOST: usize = 640;

/// Size of a set and of the unit by which its length is counted. EINVAL for a set that is not here.
fn shape(kind: u32) -> Result<(usize, usize)> {
    Ok(match kind {
        NT_PRSTATUS => (GENERAL, 8),
        NT_PRFPREG => (FLOATING, 4),
        NT_ARM_TLS => (TLS, 8),
        NT_ARM_HW_BREAK | NT_ARM_HW_WATCH => (debug::SIZE, 4),
        NT_ARM_SYSTEM_CALL => (4, 4),
        _ => return Err(Errno::EINVAL),
    })
}

/// Bytes of a set.
pub(super) struct Bytes {
    raw: [u8; MOST],
}

impl Bytes {
    pub fn new() -> Self {
        Self { raw: [0; MOST] }
    }
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(to) = self.raw.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }
    pub fn u32(&self, at: usize) -> u32 {
        self.raw.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
    }
    pub fn u64(&self, at: usize) -> u64 {
        self.raw.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    }
    fn u128(&self, at: usize) -> u128 {
        self.raw.get(at..at + 16).and_then(|b| b.try_into().ok()).map_or(0, u128::from_le_bytes)
    }
}

/// The set as it is.
fn read(task: &Task, kind: u32) -> Result<Bytes> {
    let mut out = Bytes::new();
    match kind {
        NT_PRSTATUS => in_stop(task, |t, _| {
            for (i, x) in t.regs.x.iter().enumerate() {
                out.put(i * 8, &x.to_le_bytes());
            }
            for (i, w) in [t.regs.sp, t.regs.pc, t.regs.pstate].iter().enumerate() {
                out.put((31 + i) * 8, &w.to_le_bytes());
            }
        })?,
        NT_PRFPREG => in_stop(task, |t, _| {
            for (i, v) in t.fp.v.iter().enumerate() {
                out.put(i * 16, &v.to_le_bytes());
            }
            out.put(512, &t.fp.fpsr.to_le_bytes());
            out.put(516, &t.fp.fpcr.to_le_bytes());
        })?,
        NT_ARM_TLS => in_stop(task, |t, _| out.put(0, &t.tls.to_le_bytes()))?,
        NT_ARM_SYSTEM_CALL => in_stop(task, |t, _| out.put(0, &(t.regs.syscallno as i32).to_le_bytes()))?,
        _ => debug::read(task, kind == NT_ARM_HW_BREAK, &mut out),
    }
    Ok(out)
}

/// Puts the set in place, of which the first `len` bytes are new. EINVAL for a state that no
/// program may have.
fn write(task: &Task, kind: u32, new: &Bytes, len: usize) -> Result {
    match kind {
        NT_PRSTATUS => in_stop(task, |t, _| {
            let pstate = new.u64(33 * 8) & !PSTATE_RES0;
            if pstate & PSTATE_FORBIDDEN != 0 {
                return Err(Errno::EINVAL);
            }
            for (i, x) in t.regs.x.iter_mut().enumerate() {
                *x = new.u64(i * 8);
            }
            t.regs.sp = new.u64(31 * 8);
            t.regs.pc = new.u64(32 * 8);
            t.regs.pstate = pstate;
            Ok(())
        })?,
        NT_PRFPREG => in_stop(task, |t, _| {
            for (i, v) in t.fp.v.iter_mut().enumerate() {
                *v = new.u128(i * 16);
            }
            t.fp.fpsr = new.u32(512);
            t.fp.fpcr = new.u32(516);
            *t.fp_changed = true;
        }),
        NT_ARM_TLS => in_stop(task, |t, _| {
            *t.tls = new.u64(0);
            *t.tls_changed = true;
        }),
        NT_ARM_SYSTEM_CALL => in_stop(task, |t, _| t.regs.syscallno = i64::from(new.u32(0) as i32)),
        _ => debug::write(task, kind == NT_ARM_HW_BREAK, new, len),
    }
}

/// PSTATE bits that a program's state cannot have: another mode than EL0t in AArch64, masks.
const PSTATE_FORBIDDEN: u64 = 0x1f | 0xf << 6;
/// Bits without a meaning in AArch64, and that of an illegal state (SPSR_EL1, Arm ARM C5.2.19): Linux
/// drops the same.
const PSTATE_RES0: u64 = 0xffff_ffff_0000_0000 | 0x0cdf_e020;

/// `struct iovec` of the caller: base and length.
fn iovec(at: UserAddr, kind: u32) -> Result<(UserSlice, usize)> {
    let [base, len] = UserPtr::<[u64; 2]>::new(at).read()?;
    let (size, unit) = shape(kind)?;
    if !len.is_multiple_of(unit as u64) {
        return Err(Errno::EINVAL);
    }
    let n = len.min(size as u64) as usize;
    Ok((UserSlice::new(UserAddr(base), n), n))
}

/// Tells the caller how much of its buffer was used.
fn put_length(at: UserAddr, n: usize) -> Result {
    let field = at.checked_add(size_of::<u64>() as u64).ok_or(Errno::EFAULT)?;
    UserPtr::<u64>::new(field).write(n as u64)
}

/// PTRACE_GETREGSET.
pub(super) fn get(task: &Task, kind: u32, vector: UserAddr) -> Result {
    let (to, n) = iovec(vector, kind)?;
    let set = read(task, kind)?;
    to.write_from(set.raw.get(..n).unwrap_or(&[]))?;
    put_length(vector, n)
}

/// PTRACE_SETREGSET: what the caller's buffer does not reach stays.
pub(super) fn set(task: &Task, kind: u32, vector: UserAddr) -> Result {
    let (from, n) = iovec(vector, kind)?;
    let mut set = read(task, kind)?;
    from.read_into(set.raw.get_mut(..n).unwrap_or(&mut []))?;
    write(task, kind, &set, n)?;
    put_length(vector, n)
}
