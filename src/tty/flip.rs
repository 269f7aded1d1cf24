//! What interrupts received and the line discipline has not seen: the border between the two.

use crate::ldisc::Flag;
use kalloc::{AllocError, KVec};

/// Bytes that wait, at most: a third of a second at 115200 baud.
const SIZE: usize = 4096;

/// A ring of received bytes with how each arrived. Positions are free-running.
pub(crate) struct Flip {
    ring: KVec<u16>,
    head: usize,
    tail: usize,
    /// Bytes that came when the ring was full.
    lost: u64,
}

fn encode(c: u8, flag: Flag) -> u16 {
    u16::from(c) | (flag as u16) << 8
}

fn decode(v: u16) -> (u8, Flag) {
    let flag = match v >> 8 {
        0 => Flag::Normal,
        1 => Flag::Break,
        2 => Flag::Parity,
        _ => Flag::Frame,
    };
    (v as u8, flag)
}

impl Flip {
    pub(crate) fn try_new() -> Result<Self, AllocError> {
        Ok(Self { ring: KVec::try_from_elem(0, SIZE)?, head: 0, tail: 0, lost: 0 })
    }

    pub(crate) fn push(&mut self, c: u8, flag: Flag) {
        if self.head - self.tail >= SIZE {
            self.lost += 1;
            return;
        }
        if let Some(slot) = self.ring.get_mut(self.head & (SIZE - 1)) {
            *slot = encode(c, flag);
        }
        self.head += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.head - self.tail
    }

    /// How many bytes fit.
    pub(crate) fn room(&self) -> usize {
        SIZE - self.len()
    }

    pub(crate) fn is_nearly_full(&self) -> bool {
        self.len() > SIZE - SIZE / 4
    }

    pub(crate) fn clear(&mut self) {
        self.tail = self.head;
    }

    /// Copies the next bytes that arrived alike; how many, how, and the position they start at.
    pub(crate) fn peek(&self, out: &mut [u8]) -> (usize, Flag, usize) {
        let mut kind = Flag::Normal;
        let mut n = 0;
        for slot in out.iter_mut() {
            if self.tail + n == self.head {
                break;
            }
            let (c, flag) = decode(self.ring.get((self.tail + n) & (SIZE - 1)).copied().unwrap_or(0));
            if n == 0 {
                kind = flag;
            } else if flag != kind {
                break;
            }
            *slot = c;
            n += 1;
        }
        (n, kind, self.tail)
    }

    /// Everything before `position` was taken; it may have been cleared meanwhile.
    pub(crate) fn taken_to(&mut self, position: usize) {
        self.tail = self.tail.max(position).min(self.head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_runs_of_equal_flags_and_overruns_are_dropped() {
        let mut flip = Flip::try_new().unwrap();
        for c in b"abc" {
            flip.push(*c, Flag::Normal);
        }
        flip.push(0, Flag::Break);
        flip.push(b'd', Flag::Parity);
        let mut out = [0; 8];
        assert_eq!(flip.peek(&mut out), (3, Flag::Normal, 0));
        flip.taken_to(2);
        assert_eq!(flip.peek(&mut out), (1, Flag::Normal, 2));
        flip.taken_to(3);
        assert_eq!(flip.peek(&mut out), (1, Flag::Break, 3));
        flip.taken_to(4);
        assert_eq!(flip.peek(&mut out), (1, Flag::Parity, 4));
        flip.clear();
        flip.taken_to(4);
        assert_eq!(flip.len(), 0);
        for _ in 0..SIZE + 5 {
            flip.push(1, Flag::Normal);
        }
        assert_eq!((flip.len(), flip.lost), (SIZE, 5));
    }
}
