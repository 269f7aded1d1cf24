//! User memory of the simulated machine.

use crate::sim::{self, with_cpu};
use crate::{Access, FaultKind, PageFault};
use abi::UserAddr;

#[path = "../common/user_typed.rs"]
mod user_typed;
pub use user_typed::*;

/// Bytes that a copy left undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncopied(pub usize);

/// Calls `f` on pieces of mapped user memory, in order; the number of bytes that were not mapped.
fn for_each_piece(addr: UserAddr, len: usize, write: bool, mut f: impl FnMut(&mut [u8])) -> usize {
    if !addr.range_ok(len as u64) {
        return len;
    }
    let machine = sim::machine();
    let mut done = 0;
    let mut tried = None;
    while done < len {
        let at = addr.0 + done as u64;
        {
            let mut user = machine.user.lock().unwrap_or_else(|e| e.into_inner());
            if let Some(bytes) = user.at(at) {
                let n = bytes.len().min(len - done);
                f(bytes.get_mut(..n).unwrap_or_default());
                done += n;
                continue;
            }
        }
        let fault = PageFault {
            addr: UserAddr(at),
            access: if write { Access::Write } else { Access::Read },
            kind: FaultKind::Translation,
            esr: 0,
            from_user: false,
        };
        if tried == Some(at) || !crate::kernel().kernel_user_copy_fault(fault) {
            return len - done;
        }
        tried = Some(at);
    }
    0
}

fn outcome(left: usize) -> Result<(), Uncopied> {
    if left == 0 { Ok(()) } else { Err(Uncopied(left)) }
}

/// Copies from the program; what was copied before a fault stays.
pub fn copy_from_user(dst: &mut [u8], src: UserAddr) -> Result<(), Uncopied> {
    let mut done = 0;
    let len = dst.len();
    outcome(for_each_piece(src, len, false, |piece| {
        if let Some(part) = dst.get_mut(done..done + piece.len()) {
            part.copy_from_slice(piece);
        }
        done += piece.len();
    }))
}

/// Copies to the program; what was copied before a fault stays.
pub fn copy_to_user(dst: UserAddr, src: &[u8]) -> Result<(), Uncopied> {
    let mut done = 0;
    outcome(for_each_piece(dst, src.len(), true, |piece| {
        if let Some(part) = src.get(done..done + piece.len()) {
            piece.copy_from_slice(part);
        }
        done += piece.len();
    }))
}

/// Zeroes memory of the program.
pub fn clear_user(dst: UserAddr, len: usize) -> Result<(), Uncopied> {
    outcome(for_each_piece(dst, len, true, |piece| piece.fill(0)))
}

/// Copies a NUL-terminated string: its length without the NUL, or `dst.len()` when none was found.
/// A fault before the NUL is an error.
pub fn copy_str_from_user(dst: &mut [u8], src: UserAddr) -> Result<usize, Uncopied> {
    for i in 0..dst.len() {
        let mut byte = [0];
        if copy_from_user(&mut byte, src.add(i as u64)).is_err() {
            return Err(Uncopied(dst.len() - i));
        }
        if let Some(d) = dst.get_mut(i) {
            *d = byte[0];
        }
        if byte[0] == 0 {
            return Ok(i);
        }
    }
    Ok(dst.len())
}

/// # Safety
/// `dst` is valid for writes of `len` bytes.
unsafe fn raw_copy_from_user(dst: *mut u8, src: UserAddr, len: usize) -> usize {
    // SAFETY: the caller's promise; zeroed first, so that a slice may be made of it.
    let dst = unsafe {
        dst.write_bytes(0, len);
        std::slice::from_raw_parts_mut(dst, len)
    };
    copy_from_user(dst, src).err().map_or(0, |e| e.0)
}

/// # Safety
/// `src` is valid for reads of `len` initialised bytes.
unsafe fn raw_copy_to_user(dst: UserAddr, src: *const u8, len: usize) -> usize {
    // SAFETY: the caller's promise.
    let src = unsafe { std::slice::from_raw_parts(src, len) };
    copy_to_user(dst, src).err().map_or(0, |e| e.0)
}

/// Reads an aligned word.
pub fn load_u32(addr: UserAddr) -> Option<u32> {
    let mut bytes = [0; 4];
    if !addr.is_aligned(4) {
        return None;
    }
    copy_from_user(&mut bytes, addr).ok()?;
    Some(u32::from_le_bytes(bytes))
}

/// Atomically replaces an aligned word that is `old`; the value found.
pub fn compare_exchange_u32(addr: UserAddr, old: u32, new: u32) -> Option<u32> {
    fetch_update_u32(addr, |v| if v == old { new } else { v })
}

/// Atomically replaces an aligned word by `f` of it; the value found.
pub fn fetch_update_u32(addr: UserAddr, mut f: impl FnMut(u32) -> u32) -> Option<u32> {
    load_u32(addr)?; // faults are served without the lock
    let machine = with_cpu(|cpu| cpu.machine.clone());
    let mut user = machine.user.lock().unwrap_or_else(|e| e.into_inner());
    let word: &mut [u8; 4] = user.at(addr.0)?.first_chunk_mut()?;
    let old = u32::from_le_bytes(*word);
    *word = f(old).to_le_bytes();
    Some(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::Errno;
    use abi::raw::general::__kernel_timespec;

    #[test]
    fn copies_stop_at_the_end_of_mapped_memory_and_say_what_is_left() {
        sim::map_user(UserAddr(0x1000), 16);
        let mut buf = [0xff; 20];
        sim::write_user(UserAddr(0x1000), &[7; 16]);
        assert_eq!(copy_from_user(&mut buf, UserAddr(0x1000)), Err(Uncopied(4)));
        assert_eq!(buf[..16], [7; 16]);
        assert_eq!(copy_to_user(UserAddr(0x1008), &[1; 9]), Err(Uncopied(1)));
    }

    #[test]
    fn kernel_addresses_and_wrapping_ranges_are_refused_whole() {
        for addr in [u64::MAX - 3, abi::USER_END, abi::USER_END - 4, 0xffff_0000_0000_0000] {
            assert_eq!(copy_from_user(&mut [0; 8], UserAddr(addr)), Err(Uncopied(8)));
        }
    }

    #[test]
    fn a_typed_read_returns_what_was_written_and_efault_outside() {
        sim::map_user(UserAddr(0x2000), 64);
        let p = UserPtr::<__kernel_timespec>::new(UserAddr(0x2000));
        p.write(__kernel_timespec { tv_sec: 3, tv_nsec: 4 }).expect("mapped");
        assert_eq!(p.read().expect("mapped").tv_nsec, 4);
        assert_eq!(p.add(4).read().err(), Some(Errno::EFAULT));
        assert_eq!(UserPtr::<u64>::new(UserAddr(0)).read(), Err(Errno::EFAULT));
    }

    #[test]
    fn a_string_without_nul_fills_the_buffer() {
        sim::map_user(UserAddr(0x3000), 8);
        sim::write_user(UserAddr(0x3000), b"abc\0defg");
        let mut buf = [0; 4];
        assert_eq!(copy_str_from_user(&mut buf, UserAddr(0x3000)), Ok(3));
        assert_eq!(copy_str_from_user(&mut buf, UserAddr(0x3004)), Ok(4));
        assert_eq!(copy_str_from_user(&mut buf, UserAddr(0x3006)), Err(Uncopied(2)));
    }

    #[test]
    fn compare_exchange_changes_the_word_only_when_it_matches() {
        sim::map_user(UserAddr(0x4000), 4);
        assert_eq!(compare_exchange_u32(UserAddr(0x4000), 1, 2), Some(0));
        assert_eq!(compare_exchange_u32(UserAddr(0x4000), 0, 2), Some(0));
        assert_eq!(load_u32(UserAddr(0x4000)), Some(2));
        assert_eq!(load_u32(UserAddr(0x4002)), None);
    }

    #[test]
    fn a_slice_is_cut_at_its_end() {
        sim::map_user(UserAddr(0x5000), 8);
        let s = UserSlice::new(UserAddr(0x5000), 8);
        assert_eq!(s.sub(4, 100).len(), 4);
        assert!(s.sub(9, 1).is_empty());
        assert_eq!(s.write_partial(&[1; 10]), 8);
        assert_eq!(s.write_from(&[1; 10]), Err(Errno::EFAULT));
        let far = UserSlice::new(UserAddr(0x5004), 8);
        assert_eq!(far.read_partial(&mut [0; 8]), 4);
    }
}
