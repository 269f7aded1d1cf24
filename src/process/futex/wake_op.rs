//! FUTEX_WAKE_OP: changing one word, and waking on it and on another.

use super::{Access, bucket, key_of, wake_in};
use crate::task::Task;
use abi::{Errno, Result, UserAddr, raw::general as g};
use arch::user::UserPtr;

/// FUTEX_WAKE_OP: changes the second word, wakes on the first, and on the second when its old
/// value compares true.
pub fn wake_op(task: &Task, first: UserAddr, n: u32, second: UserAddr, m: u32, op: u32, shared: bool) -> Result<u32> {
    let (a, b) = (key_of(task, first, shared, Access::Read)?, key_of(task, second, shared, Access::Write)?);
    let op = WakeOp::decode(op)?;
    let old = loop {
        let word = UserPtr::<u32>::new(second).read()?;
        match arch::user::compare_exchange_u32(second, word, op.apply(word)) {
            Some(found) if found == word => break word,
            Some(_) => {}
            None => return Err(Errno::EFAULT),
        }
    };
    let mut woken = {
        let mut list = bucket(a.bucket())?.0.lock();
        wake_in(&mut list, a, n, u32::MAX)?
    };
    if op.compare(old) {
        let mut list = bucket(b.bucket())?.0.lock();
        woken += wake_in(&mut list, b, m, u32::MAX)?;
    }
    Ok(woken)
}

/// The operation word of FUTEX_WAKE_OP: op (4 bits), cmp (4), oparg (12, signed), cmparg (12, signed).
struct WakeOp {
    op: u32,
    cmp: u32,
    arg: u32,
    cmp_arg: i32,
}

impl WakeOp {
    fn decode(word: u32) -> Result<Self> {
        let signed = |v: u32| ((v << 20) as i32) >> 20;
        let mut arg = signed(word >> 12 & 0xfff) as u32;
        let op = word >> 28;
        if op & g::FUTEX_OP_OPARG_SHIFT != 0 {
            arg = 1u32 << (arg & 31);
        }
        let op = op & 7;
        let cmp = word >> 24 & 0xf;
        if op > g::FUTEX_OP_XOR || cmp > g::FUTEX_OP_CMP_GE {
            return Err(Errno::ENOSYS);
        }
        Ok(Self { op, cmp, arg, cmp_arg: signed(word & 0xfff) })
    }
    fn apply(&self, v: u32) -> u32 {
        match self.op {
            g::FUTEX_OP_SET => self.arg,
            g::FUTEX_OP_ADD => v.wrapping_add(self.arg),
            g::FUTEX_OP_OR => v | self.arg,
            g::FUTEX_OP_ANDN => v & !self.arg,
            _ => v ^ self.arg,
        }
    }
    fn compare(&self, old: u32) -> bool {
        let old = old as i32;
        match self.cmp {
            g::FUTEX_OP_CMP_EQ => old == self.cmp_arg,
            g::FUTEX_OP_CMP_NE => old != self.cmp_arg,
            g::FUTEX_OP_CMP_LT => old < self.cmp_arg,
            g::FUTEX_OP_CMP_LE => old <= self.cmp_arg,
            g::FUTEX_OP_CMP_GT => old > self.cmp_arg,
            _ => old >= self.cmp_arg,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_op_words_decode_and_compute_as_the_manual_says() {
        // FUTEX_OP(ADD, 1, CMP_GT, 2)
        let op = WakeOp::decode(g::FUTEX_OP_ADD << 28 | g::FUTEX_OP_CMP_GT << 24 | 1 << 12 | 2).unwrap();
        assert_eq!(op.apply(7), 8);
        assert!(op.compare(3));
        assert!(!op.compare(2));
        // oparg as a shift, negative cmparg
        let op = WakeOp::decode((8 | g::FUTEX_OP_OR) << 28 | g::FUTEX_OP_CMP_EQ << 24 | 5 << 12 | 0xfff).unwrap();
        assert_eq!(op.apply(0), 32);
        assert!(op.compare(u32::MAX));
        assert_eq!(WakeOp::decode(5 << 28).map(|_| ()), Err(Errno::ENOSYS));
    }
}
