//! The bytes in a pipe: a ring of slots, each a page with a range of bytes in it.
//!
//! As on Linux a small write is added to the last page if it fits there whole, otherwise it gets a
//! page of its own; so a write of up to PIPE_BUF (a page) is never torn, and a pipe of 16 slots
//! takes 65536 bytes of large writes but can be full with fewer small ones.
//!
//! A packet (O_DIRECT) is never added to, and what a read leaves of it is lost.

use abi::{Errno, PAGE_SIZE, Result};
use frames::{AllocFlags, FrameRef, alloc_frame};
use kalloc::KVec;
use mm::io::{IoSink, IoSource};

struct Slot {
    page: FrameRef,
    start: usize,
    len: usize,
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
        self.slots.iter().flatten().map(|s| s.len).sum()
    }

    fn drop_first(&mut self) {
        let n = self.slots.len();
        if let Some(slot) = self.slots.get_mut(self.first).and_then(Option::take) {
            self.first = self.first.wrapping_add(1) & n.wrapping_sub(1);
            self.used -= 1;
            if self.spare.is_none() && slot.page.refcount() == 1 {
                self.spare = Some(slot.page);
            }
        }
    }

    /// Moves bytes to `dst` until it is full or nothing is left; a packet ends the read. EFAULT
    /// only when nothing was moved.
    pub(crate) fn read(&mut self, dst: &mut IoSink<'_>) -> Result<usize> {
        let mut moved = 0;
        while self.used > 0 && dst.remaining() > 0 {
            let Some(slot) = self.at(0) else { break };
            let range = slot.start..slot.start + slot.len;
            let wanted = slot.len.min(dst.remaining());
            match slot.page.with_bytes(|b| dst.write(b.get(range).unwrap_or(&[]))) {
                Ok(n) => {
                    moved += n;
                    slot.start += n;
                    slot.len -= n;
                    let packet = slot.packet;
                    if slot.len == 0 || packet {
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
        let end = last.start + last.len;
        if last.packet || end + part > PAGE_SIZE {
            return Ok(0);
        }
        let n = last.page.with_bytes_mut(|b| src.read(b.get_mut(end..end + part).unwrap_or(&mut [])))?;
        last.len += n;
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
        let n = self.slots.len();
        let at = self.first.wrapping_add(self.used) & n.wrapping_sub(1);
        if let Some(s) = self.slots.get_mut(at) {
            *s = Some(Slot { page, start: 0, len, packet });
            self.used += 1;
        }
        Ok(len)
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
