//! The bytes in a pipe: a ring of slots, each a page with a range of bytes in it.
//!
//! As on Linux a small write is added to the last page if it fits there whole, otherwise it gets a
//! page of its own; so a write of up to PIPE_BUF (a page) is never torn, and a pipe of 16 slots
//! takes 65536 bytes of large writes but can be full with fewer small ones.
//!
//! A packet (O_DIRECT) is never added to, and what a read leaves of it is lost. Neither is a page added
//! to that others have, too: a file's, by splice(2), or another pipe's, by tee(2).

use abi::{Errno, PAGE_SIZE, Result};
use frames::{AllocFlags, FrameRef, alloc_frame};
use kalloc::KVec;
use mm::io::{IoSink, IoSource};
use vfs::splice::PageRange;

struct Slot {
    range: PageRange,
    packet: bool,
}

/// The slots of a pipe.
pub(crate) struct Ring {
    slots: KVec<Option<Slot>>,
    /// The oldest slot in use.
    first: usize,
    used: usize,
    /// A page that was read empty and is kept for the next write.
    spare: Option<FrameRef>,
}

impl Ring {
    /// An empty ring; `slots` is a power of two.
    pub(crate) fn new(slots: usize) -> Result<Self> {
        Ok(Self { slots: empty(slots)?, first: 0, used: 0, spare: None })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }
    pub(crate) fn used(&self) -> usize {
        self.used
    }
    pub(crate) fn is_full(&self) -> bool {
        self.used >= self.slots.len()
    }

    fn at(&mut self, i: usize) -> Option<&mut Slot> {
        let n = self.slots.len();
        self.slots.get_mut(self.first.wrapping_add(i) & n.wrapping_sub(1))?.as_mut()
    }

    /// Bytes that a reader could get (FIONREAD).
    pub(crate) fn bytes(&self) -> usize {
        self.slots.iter().flatten().map(|s| s.range.len).sum()
    }

    fn drop_first(&mut self) {
        let n = self.slots.len();
        if let Some(slot) = self.slots.get_mut(self.first).and_then(Option::take) {
            self.first = self.first.wrapping_add(1) & n.wrapping_sub(1);
            self.used -= 1;
            if self.spare.is_none() && slot.range.own && slot.range.page.refcount() == 1 {
                self.spare = Some(slot.range.page);
            }
        }
    }

    /// Moves bytes to `dst` until it is full or nothing is left; a packet ends the read. EFAULT
    /// only when nothing was moved.
    pub(crate) fn read(&mut self, dst: &mut IoSink<'_>) -> Result<usize> {
        let mut moved = 0;
        while self.used > 0 && dst.remaining() > 0 {
            let Some(slot) = self.at(0) else { break };
            let wanted = slot.range.len.min(dst.remaining());
            match slot.range.with_bytes(|b| dst.write(b)) {
                Ok(n) => {
                    moved += n;
                    slot.range.start += n;
                    slot.range.len -= n;
                    let packet = slot.packet;
                    if slot.range.len == 0 || packet {
                        self.drop_first();
                    }
                    if packet || n < wanted {
                        break;
                    }
                }
                Err(e) if moved == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(moved)
    }

    /// Adds the part of `src` beyond whole pages to the last page, if it fits there.
    pub(crate) fn merge(&mut self, src: &mut IoSource<'_>) -> Result<usize> {
        let part = src.remaining() % PAGE_SIZE;
        if part == 0 || self.used == 0 {
            return Ok(0);
        }
        let Some(last) = self.at(self.used - 1) else { return Ok(0) };
        let end = last.range.start + last.range.len;
        if last.packet || !last.range.own || end + part > PAGE_SIZE {
            return Ok(0);
        }
        let n = last.range.page.with_bytes_mut(|b| src.read(b.get_mut(end..end + part).unwrap_or(&mut [])))?;
        last.range.len += n;
        if n < part { Err(Errno::EFAULT) } else { Ok(n) }
    }

    /// Fills one free slot with up to a page of `src`. The ring is not full.
    pub(crate) fn push(&mut self, src: &mut IoSource<'_>, packet: bool) -> Result<usize> {
        let page = match self.spare.take() {
            Some(p) => p,
            None => alloc_frame(AllocFlags::empty())?,
        };
        let want = src.remaining().min(PAGE_SIZE);
        let moved = page.with_bytes_mut(|b| src.read(b.get_mut(..want).unwrap_or(&mut [])));
        let len = match moved {
            Ok(n) if n > 0 => n,
            other => {
                self.spare = Some(page);
                return other;
            }
        };
        self.put(Slot { range: PageRange { page, start: 0, len, own: true }, packet });
        Ok(len)
    }

    /// Fills a free slot. False: there is none.
    fn put(&mut self, slot: Slot) -> bool {
        if self.is_full() {
            return false;
        }
        let n = self.slots.len();
        let at = self.first.wrapping_add(self.used) & n.wrapping_sub(1);
        if let Some(s) = self.slots.get_mut(at) {
            *s = Some(slot);
            self.used += 1;
        }
        true
    }

    /// Adds bytes by reference. False: no slot is free.
    pub(crate) fn push_range(&mut self, range: PageRange) -> bool {
        self.put(Slot { range, packet: false })
    }

    /// The oldest bytes, at most `len`, without taking them out.
    pub(crate) fn front(&mut self, len: usize) -> Option<PageRange> {
        let slot = self.at(0)?;
        let mut range = slot.range.clone();
        range.own = false;
        range.len = range.len.min(len);
        Some(range)
    }

    /// Takes `n` bytes out of the oldest slot, which has as many. A packet goes whole with its last.
    pub(crate) fn consume(&mut self, n: usize) {
        let Some(slot) = self.at(0) else { return };
        let n = n.min(slot.range.len);
        slot.range.start += n;
        slot.range.len -= n;
        if slot.range.len == 0 {
            self.drop_first();
        }
    }

    /// Moves up to `len` bytes to another pipe: whole slots as they are, of the last one perhaps a part.
    pub(crate) fn transfer(&mut self, to: &mut Self, len: usize) -> usize {
        let mut left = len;
        while left > 0 && self.used > 0 && !to.is_full() {
            let whole = self.at(0).is_some_and(|s| s.range.len <= left);
            if whole {
                let n = self.slots.len();
                let Some(slot) = self.slots.get_mut(self.first).and_then(Option::take) else { break };
                self.first = self.first.wrapping_add(1) & n.wrapping_sub(1);
                self.used -= 1;
                left -= slot.range.len;
                to.put(slot);
            } else {
                let Some(slot) = self.at(0) else { break };
                let mut range = slot.range.clone();
                (range.own, range.len) = (false, left);
                let packet = slot.packet;
                self.consume(left);
                to.put(Slot { range, packet });
                left = 0;
            }
        }
        len - left
    }

    /// Puts up to `len` bytes into another pipe, too; nothing is taken out of this one.
    pub(crate) fn copy_to(&mut self, to: &mut Self, len: usize) -> usize {
        let mut left = len;
        for i in 0..self.used {
            if left == 0 || to.is_full() {
                break;
            }
            let Some(slot) = self.at(i) else { break };
            let mut range = slot.range.clone();
            range.own = false;
            range.len = range.len.min(left);
            left -= range.len;
            let packet = slot.packet;
            to.put(Slot { range, packet });
        }
        len - left
    }

    /// Changes the number of slots (a power of two). EBUSY when more are in use.
    pub(crate) fn resize(&mut self, slots: usize) -> Result {
        if slots < self.used {
            return Err(Errno::EBUSY);
        }
        let mut new = empty(slots)?;
        let (n, first) = (self.slots.len(), self.first);
        for (i, to) in new.iter_mut().take(self.used).enumerate() {
            *to = self.slots.get_mut(first.wrapping_add(i) & n.wrapping_sub(1)).and_then(Option::take);
        }
        self.slots = new;
        self.first = 0;
        Ok(())
    }

    /// Throws everything away.
    pub(crate) fn clear(&mut self) {
        while self.used > 0 {
            self.drop_first();
        }
        self.spare = None;
    }
}

fn empty(n: usize) -> Result<KVec<Option<Slot>>> {
    let mut v = KVec::try_with_capacity(n)?;
    for _ in 0..n {
        let _ = v.push_within_capacity(None);
    }
    Ok(v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(r: &mut Ring, data: &[u8], packet: bool) -> usize {
        crate::memory_for_tests();
        let mut src = IoSource::kernel(data);
        let mut n = if packet { 0 } else { r.merge(&mut src).unwrap() };
        while src.remaining() > 0 && !r.is_full() {
            n += r.push(&mut src, packet).unwrap();
        }
        n
    }
    fn read(r: &mut Ring, n: usize) -> Vec<u8> {
        let mut buf = vec![0; n];
        let got = r.read(&mut IoSink::kernel(&mut buf)).unwrap();
        buf.truncate(got);
        buf
    }

    #[test]
    fn small_writes_share_a_page_and_come_out_in_order() {
        let mut r = Ring::new(16).unwrap();
        for i in 0..100u8 {
            assert_eq!(write(&mut r, &[i; 7], false), 7);
        }
        assert_eq!(r.used(), 1);
        assert_eq!(r.bytes(), 700);
        let all = read(&mut r, 1000);
        assert!(all.chunks(7).enumerate().all(|(i, c)| c == [i as u8; 7]));
        assert_eq!(r.used(), 0);
    }

    #[test]
    fn a_write_that_does_not_fit_whole_gets_its_own_page() {
        let mut r = Ring::new(2).unwrap();
        write(&mut r, &[1; 4000], false);
        write(&mut r, &[2; 200], false);
        assert_eq!((r.used(), r.bytes()), (2, 4200));
        assert!(r.is_full());
        assert_eq!(write(&mut r, &[3; 4096], false), 0);
    }

    #[test]
    fn a_packet_is_read_alone_and_its_rest_is_lost() {
        let mut r = Ring::new(4).unwrap();
        write(&mut r, b"first", true);
        write(&mut r, b"second", true);
        assert_eq!(read(&mut r, 3), b"fir");
        assert_eq!(read(&mut r, 100), b"second");
        assert_eq!(r.used(), 0);
    }

    #[test]
    fn slots_move_whole_or_in_part_and_copies_are_not_added_to() {
        let (mut a, mut b) = (Ring::new(4).unwrap(), Ring::new(2).unwrap());
        write(&mut a, &[1; 4096], false);
        write(&mut a, &[2; 100], false);
        assert_eq!(a.transfer(&mut b, 4100), 4100);
        assert_eq!((a.bytes(), b.bytes(), b.used()), (96, 4100, 2));
        assert_eq!(a.transfer(&mut b, 1), 0, "the other is full");
        // What is left of the page that both have goes on growing here, not there.
        assert_eq!(write(&mut a, &[3; 5], false), 5);
        assert_eq!(a.used(), 1);
        assert_eq!(read(&mut b, 5000)[4095..], [1, 2, 2, 2, 2]);
        assert_eq!(a.copy_to(&mut b, 50), 50);
        assert_eq!(write(&mut b, &[4; 5], false), 5);
        assert_eq!(b.used(), 2, "a page of another pipe is not added to");
        assert_eq!(read(&mut a, 200), [[2; 96].as_slice(), &[3; 5]].concat());
        assert_eq!(read(&mut b, 200), [[2; 50].as_slice(), &[4; 5]].concat());
    }

    #[test]
    fn resizing_keeps_the_bytes_and_refuses_to_lose_any() {
        let mut r = Ring::new(4).unwrap();
        write(&mut r, &[9; 4096], false);
        read(&mut r, 4096);
        for i in 0..3u8 {
            write(&mut r, &[i; 4096], false);
        }
        assert_eq!(r.resize(2), Err(Errno::EBUSY));
        r.resize(8).unwrap();
        let all = read(&mut r, 3 * 4096);
        assert!(all.chunks(4096).enumerate().all(|(i, c)| c[0] == i as u8 && c[4095] == i as u8));
    }
}
