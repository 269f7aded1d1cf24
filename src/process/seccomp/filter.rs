//! Classic BPF as seccomp filters use it (`seccomp(2)`, `struct sock_fprog`): the verifier, and the
//! interpreter that runs what the verifier let through.
//!
//! A program is checked once and translated into [`Op`]s whose operands are known to be in range;
//! jumps go forward only, so it ends after at most as many steps as it has instructions.

use abi::{Errno, Result};
use kalloc::KVec;

/// BPF_MAXINSNS.
pub const MAX_LENGTH: usize = 4096;
/// `struct sock_filter`: code, jt, jf, k.
pub const INSTRUCTION_SIZE: usize = 8;

/// `struct seccomp_data`: what a filter sees of a system call, as 16 words.
pub const DATA_SIZE: u32 = 64;
const WORDS: usize = DATA_SIZE as usize / 4;
/// The scratch memory's words (BPF_MEMWORDS).
const SCRATCH: usize = 16;

/// What an instruction works with beside the accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    K(u32),
    X,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Or,
    And,
    Xor,
    Lsh,
    Rsh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    /// A word of the system call's data.
    Data(u8),
    SetA(u32),
    SetX(u32),
    LoadA(u8),
    LoadX(u8),
    StoreA(u8),
    StoreX(u8),
    Alu(Alu, Operand),
    Neg,
    AToX,
    XToA,
    Jump(u16),
    Branch(Test, Operand, u8, u8),
    Return(u32),
    ReturnA,
}

/// A program that passed the verifier.
pub struct Program {
    ops: KVec<Op>,
}

// Instruction classes and fields (linux/bpf_common.h).
const LD: u16 = 0;
const LDX: u16 = 1;
const ST: u16 = 2;
const STX: u16 = 3;
const ALU: u16 = 4;
const JMP: u16 = 5;
const RET: u16 = 6;
const MISC: u16 = 7;
const ABS: u16 = 0x20;
const IMM: u16 = 0x00;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
const X: u16 = 0x08;
const A: u16 = 0x10;
const NEG: u16 = 0x80;
const JA: u16 = 0x00;
const TAX: u16 = 0x00;
const TXA: u16 = 0x80;

impl Program {
    /// Verifies a program of `struct sock_filter`s. EINVAL, ENOMEM.
    pub fn new(raw: &[u8]) -> Result<Self> {
        let length = raw.len() / INSTRUCTION_SIZE;
        if length == 0 || length > MAX_LENGTH {
            return Err(Errno::EINVAL);
        }
        let mut ops = KVec::new();
        ops.try_reserve(length)?;
        for (at, i) in raw.as_chunks::<INSTRUCTION_SIZE>().0.iter().enumerate() {
            let [c0, c1, jt, jf, k0, k1, k2, k3] = *i;
            let left = length - at - 1;
            let op = decode(u16::from_le_bytes([c0, c1]), jt, jf, u32::from_le_bytes([k0, k1, k2, k3]), left);
            ops.try_push(op.ok_or(Errno::EINVAL)?)?;
        }
        match ops.last() {
            Some(Op::Return(_) | Op::ReturnA) => {}
            _ => return Err(Errno::EINVAL),
        }
        check_scratch(&ops)?;
        Ok(Self { ops })
    }

    /// How many instructions it has.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// What it says to a system call.
    pub fn run(&self, data: &[u32; WORDS]) -> u32 {
        let (mut a, mut x, mut scratch) = (0u32, 0u32, [0u32; SCRATCH]);
        let mut at = 0usize;
        // The verifier saw to it that the last instruction returns. What it forbids would end the
        // program with 0, which kills.
        while let Some(op) = self.ops.get(at) {
            at += 1;
            match *op {
                Op::Data(i) => a = data.get(usize::from(i)).copied().unwrap_or(0),
                Op::SetA(k) => a = k,
                Op::SetX(k) => x = k,
                Op::LoadA(i) => a = scratch.get(usize::from(i)).copied().unwrap_or(0),
                Op::LoadX(i) => x = scratch.get(usize::from(i)).copied().unwrap_or(0),
                Op::StoreA(i) => set(&mut scratch, i, a),
                Op::StoreX(i) => set(&mut scratch, i, x),
                Op::Alu(what, by) => match compute(what, a, value(by, x)) {
                    Some(result) => a = result,
                    None => return 0,
                },
                Op::Neg => a = a.wrapping_neg(),
                Op::AToX => x = a,
                Op::XToA => a = x,
                Op::Jump(n) => at += usize::from(n),
                Op::Branch(test, with, yes, no) => {
                    let with = value(with, x);
                    let holds = match test {
                        Test::Equal => a == with,
                        Test::Greater => a > with,
                        Test::GreaterOrEqual => a >= with,
                        Test::AnyBit => a & with != 0,
                    };
                    at += usize::from(if holds { yes } else { no });
                }
                Op::Return(k) => return k,
                Op::ReturnA => return a,
            }
        }
        0
    }
}

fn set(scratch: &mut [u32; SCRATCH], at: u8, value: u32) {
    if let Some(word) = scratch.get_mut(usize::from(at)) {
        *word = value;
    }
}

fn value(operand: Operand, x: u32) -> u32 {
    match operand {
        Operand::K(k) => k,
        Operand::X => x,
    }
}

/// `None`: a division by zero ends the program with 0.
fn compute(what: Alu, a: u32, by: u32) -> Option<u32> {
    Some(match what {
        Alu::Add => a.wrapping_add(by),
        Alu::Sub => a.wrapping_sub(by),
        Alu::Mul => a.wrapping_mul(by),
        Alu::Div => a.checked_div(by)?,
        Alu::Or => a | by,
        Alu::And => a & by,
        Alu::Xor => a ^ by,
        // Only a constant is checked to be below 32.
        Alu::Lsh => a.wrapping_shl(by),
        Alu::Rsh => a.wrapping_shr(by),
    })
}

/// One instruction with `left` behind it; `None` for what seccomp does not allow.
fn decode(code: u16, jt: u8, jf: u8, k: u32, left: usize) -> Option<Op> {
    let slot = || u8::try_from(k).ok().filter(|i| usize::from(*i) < SCRATCH);
    let operand = if code & X != 0 { Operand::X } else { Operand::K(k) };
    Some(match code & 7 {
        LD if code == LD | ABS => Op::Data(u8::try_from(k / 4).ok().filter(|_| k < DATA_SIZE && k.is_multiple_of(4))?),
        LD if code == LD | LEN => Op::SetA(DATA_SIZE),
        LDX if code == LDX | LEN => Op::SetX(DATA_SIZE),
        LD if code == LD | IMM => Op::SetA(k),
        LDX if code == LDX | IMM => Op::SetX(k),
        LD if code == LD | MEM => Op::LoadA(slot()?),
        LDX if code == LDX | MEM => Op::LoadX(slot()?),
        ST if code == ST => Op::StoreA(slot()?),
        STX if code == STX => Op::StoreX(slot()?),
        ALU if code == ALU | NEG => Op::Neg,
        ALU if code & !(0xf7 | X) == 0 => {
            let what = match code & 0xf0 {
                0x00 => Alu::Add,
                0x10 => Alu::Sub,
                0x20 => Alu::Mul,
                0x30 => Alu::Div,
                0x40 => Alu::Or,
                0x50 => Alu::And,
                0x60 => Alu::Lsh,
                0x70 => Alu::Rsh,
                0xa0 => Alu::Xor,
                _ => return None,
            };
            match (what, operand) {
                (Alu::Div, Operand::K(0)) => return None,
                (Alu::Lsh | Alu::Rsh, Operand::K(32..)) => return None,
                _ => Op::Alu(what, operand),
            }
        }
        JMP if code == JMP | JA => Op::Jump(u16::try_from(k).ok().filter(|n| usize::from(*n) < left)?),
        JMP if code & !(0xf7 | X) == 0 => {
            let test = match code & 0xf0 {
                0x10 => Test::Equal,
                0x20 => Test::Greater,
                0x30 => Test::GreaterOrEqual,
                0x40 => Test::AnyBit,
                _ => return None,
            };
            if usize::from(jt) >= left || usize::from(jf) >= left {
                return None;
            }
            Op::Branch(test, operand, jt, jf)
        }
        RET if code == RET => Op::Return(k),
        RET if code == RET | A => Op::ReturnA,
        MISC if code == MISC | TAX => Op::AToX,
        MISC if code == MISC | TXA => Op::XToA,
        _ => return None,
    })
}

/// Scratch words are read only where every path has written them: EINVAL.
fn check_scratch(ops: &[Op]) -> Result {
    // For each instruction, the words that all jumps to it have written.
    let mut masks = KVec::try_from_elem(u16::MAX, ops.len())?;
    let mut written = 0u16;
    for (at, op) in ops.iter().enumerate() {
        written &= masks.get(at).copied().unwrap_or(0);
        let mut jump = |by: usize| {
            if let Some(mask) = masks.get_mut(at + 1 + by) {
                *mask &= written;
            }
        };
        match *op {
            Op::StoreA(i) | Op::StoreX(i) => written |= 1 << i,
            Op::LoadA(i) | Op::LoadX(i) if written >> i & 1 == 0 => return Err(Errno::EINVAL),
            Op::Jump(n) => {
                jump(n.into());
                written = u16::MAX;
            }
            Op::Branch(_, _, yes, no) => {
                jump(yes.into());
                jump(no.into());
                written = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Raw = (u16, u8, u8, u32);

    fn build(code: &[Raw]) -> Result<Program> {
        let mut raw = Vec::new();
        for (c, jt, jf, k) in code {
            raw.extend_from_slice(&c.to_le_bytes());
            raw.extend_from_slice(&[*jt, *jf]);
            raw.extend_from_slice(&k.to_le_bytes());
        }
        Program::new(&raw)
    }

    fn run(code: &[Raw]) -> u32 {
        let mut data = [0; WORDS];
        for (i, w) in data.iter_mut().enumerate() {
            *w = 100 + i as u32;
        }
        build(code).unwrap().run(&data)
    }

    const RET_A: Raw = (RET | A, 0, 0, 0);

    #[test]
    fn data_words_and_arithmetic() {
        assert_eq!(run(&[(LD | ABS, 0, 0, 60), RET_A]), 115);
        assert_eq!(run(&[(LD | LEN, 0, 0, 0), RET_A]), 64);
        assert_eq!(run(&[(LDX | LEN, 0, 0, 0), (MISC | TXA, 0, 0, 0), RET_A]), 64);
        for (op, a, k, want) in [
            (0x00, 7, 3, 10u32),
            (0x10, 3, 7, u32::MAX - 3),
            (0x20, 1 << 31, 2, 0),
            (0x30, 7, 2, 3),
            (0x40, 5, 2, 7),
            (0x50, 7, 5, 5),
            (0x60, 1, 31, 1 << 31),
            (0x70, 1 << 31, 31, 1),
            (0xa0, 7, 5, 2),
        ] {
            assert_eq!(run(&[(LD, 0, 0, a), (ALU | op, 0, 0, k), RET_A]), want, "{op:#x} K");
            assert_eq!(run(&[(LD, 0, 0, a), (LDX, 0, 0, k), (ALU | op | X, 0, 0, 0), RET_A]), want, "{op:#x} X");
        }
        assert_eq!(run(&[(LD, 0, 0, 1), (ALU | NEG, 0, 0, 0), RET_A]), u32::MAX);
    }

    #[test]
    fn division_by_a_zero_register_ends_with_0() {
        assert_eq!(run(&[(LD, 0, 0, 9), (ALU | 0x30 | X, 0, 0, 0), (RET, 0, 0, 5)]), 0);
    }

    #[test]
    fn branches_and_scratch() {
        for (test, a, want) in [(0x10, 5, 1), (0x10, 6, 2), (0x20, 6, 1), (0x20, 5, 2), (0x30, 5, 1), (0x30, 4, 2), (0x40, 4, 1), (0x40, 2, 2)] {
            assert_eq!(run(&[(LD, 0, 0, a), (JMP | test, 0, 1, 5), (RET, 0, 0, 1), (RET, 0, 0, 2)]), want, "{test:#x} {a}");
        }
        assert_eq!(run(&[(LD, 0, 0, 8), (ST, 0, 0, 3), (JMP, 0, 0, 1), (RET, 0, 0, 0), (LDX | MEM, 0, 0, 3), (MISC | TXA, 0, 0, 0), RET_A]), 8);
    }

    #[test]
    fn what_seccomp_does_not_allow_is_einval() {
        let ret: Raw = (RET, 0, 0, 0);
        let bad: &[&[Raw]] = &[
            &[],
            &[(LD, 0, 0, 1)],
            &[(LD | ABS, 0, 0, 64), ret],
            &[(LD | ABS, 0, 0, 2), ret],
            &[(LD | ABS | 0x08, 0, 0, 0), ret],
            &[(LD | 0x40, 0, 0, 0), ret],
            &[(LDX | 0xa0 | 0x10, 0, 0, 0), ret],
            &[(LD | MEM, 0, 0, 0), ret],
            &[(ST, 0, 0, 16), ret],
            &[(ALU | 0x90, 0, 0, 3), ret],
            &[(ALU | 0x30, 0, 0, 0), ret],
            &[(ALU | 0x60, 0, 0, 32), ret],
            &[(JMP, 0, 0, 1), ret],
            &[(JMP, 0, 0, u32::MAX), ret],
            &[(JMP | 0x10, 1, 0, 0), ret],
            &[(JMP | 0x10, 0, 1, 0), ret],
            &[(RET | X, 0, 0, 0)],
            &[(MISC | 0x40, 0, 0, 0), ret],
            &[(0x1000 | RET, 0, 0, 0)],
            // One path does not write the word.
            &[(JMP | 0x10, 0, 1, 0), (ST, 0, 0, 1), (LD | MEM, 0, 0, 1), ret],
        ];
        for (i, code) in bad.iter().enumerate() {
            assert_eq!(build(code).err(), Some(Errno::EINVAL), "program {i}");
        }
        assert!(build(&[(JMP | 0x10, 0, 0, 0), (ST, 0, 0, 1), (LD | MEM, 0, 0, 1), ret]).is_ok());
        assert_eq!(build(&vec![ret; MAX_LENGTH + 1]).err(), Some(Errno::EINVAL));
    }

    #[test]
    fn random_programs_never_run_away() {
        // A simple generator: what passes the verifier must end, whatever it does.
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let mut passed = 0;
        for _ in 0..20_000 {
            let mut code: Vec<Raw> = (0..next() % 6).map(|_| ((next() & 0xff) as u16, (next() & 3) as u8, (next() & 3) as u8, (next() & 31) as u32)).collect();
            code.push(RET_A);
            if let Ok(p) = build(&code) {
                passed += 1;
                p.run(&[7; WORDS]);
            }
        }
        assert!(passed > 1000);
    }
}
