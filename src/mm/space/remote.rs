//! Reading and writing the memory of a space from outside: `/proc/PID/mem`, ptrace, the kernel's
//! own setting-up of a new program's stack.

use abi::{Errno, PAGE_MASK, Result, UserAddr};
use frames::FrameRef;

use super::AddressSpace;
use crate::{Prot, io::within_page, page, pte};

/// Whether an access may go beyond what the mapping allows the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Force {
    No,
    Yes,
}

impl AddressSpace {
    /// Reads memory; how many bytes could be read. EFAULT when none. May sleep.
    pub fn read_remote(&self, addr: UserAddr, buf: &mut [u8]) -> Result<usize> {
        self.read_as(addr, buf, Force::No)
    }

    /// As [`read_remote`](Self::read_remote), for a debugger: also where the program itself may
    /// not read (`ptrace(2)`, PTRACE_PEEKDATA).
    pub fn peek(&self, addr: UserAddr, buf: &mut [u8]) -> Result<usize> {
        self.read_as(addr, buf, Force::Yes)
    }

    fn read_as(&self, addr: UserAddr, buf: &mut [u8], force: Force) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let at = addr.0.checked_add(done as u64).ok_or(Errno::EFAULT)?;
            let (offset, len) = within_page(at, buf.len() - done);
            match self.page_for(at, false, force) {
                Ok(Some(frame)) => {
                    frame.copy_out(offset, buf.get_mut(done..done + len).unwrap_or_default());
                }
                // The page of zeros.
                Ok(None) => buf.get_mut(done..done + len).unwrap_or_default().fill(0),
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e),
            }
            done += len;
        }
        Ok(done)
    }

    /// Writes memory that the program could write itself; how many bytes went. EFAULT when none.
    /// May sleep.
    pub fn write_remote(&self, addr: UserAddr, data: &[u8]) -> Result<usize> {
        self.write_as(addr, data, Force::No)
    }

    /// As [`write_remote`](Self::write_remote), for a debugger: also where the program may not
    /// write, as long as the mapping is private; the page becomes the program's own copy and stays
    /// read-only to it (breakpoints in program text).
    pub fn poke(&self, addr: UserAddr, data: &[u8]) -> Result<usize> {
        self.write_as(addr, data, Force::Yes)
    }

    fn write_as(&self, addr: UserAddr, data: &[u8], force: Force) -> Result<usize> {
        let mut done = 0;
        while done < data.len() {
            let at = addr.0.checked_add(done as u64).ok_or(Errno::EFAULT)?;
            let (offset, len) = within_page(at, data.len() - done);
            match self.page_for(at, true, force) {
                Ok(Some(frame)) => {
                    frame.copy_in(offset, data.get(done..done + len).unwrap_or_default());
                    frame.clear(frames::FrameFlags::ICACHE_CLEAN);
                    if self.area_at(at).is_some_and(|a| a.prot.contains(Prot::X)) {
                        crate::page::sync_icache(&frame);
                    }
                }
                Ok(None) => return Err(Errno::EFAULT),
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e),
            }
            done += len;
        }
        Ok(done)
    }

    /// The frame behind an address that the program may read, to hold by reference: later stores of
    /// the program show in it (`vmsplice(2)`). EFAULT; ENOMEM. May sleep.
    pub fn pin(&self, addr: UserAddr) -> Result<FrameRef> {
        let device = |a: &crate::Area| a.file().is_some_and(|f| f.device_page(a.index_of(addr.0)).is_some());
        if self.area_at(addr.0).is_none_or(|a| device(&a)) {
            return Err(Errno::EFAULT);
        }
        match self.page_for(addr.0, false, Force::No)? {
            Some(frame) => Ok(frame),
            None => crate::zero_page(),
        }
    }

    /// The frame behind an address, faulted in as needed; `None` for a page of zeros or a device.
    fn page_for(&self, addr: u64, write: bool, force: Force) -> Result<Option<FrameRef>> {
        let page = addr & !PAGE_MASK;
        if page >= abi::USER_END {
            return Err(Errno::EFAULT);
        }
        // Reclaim and other threads may take the page between fault and look; they lose interest.
        for _ in 0..16 {
            let found = self.table.with_existing(UserAddr(page), |slot| {
                let entry = slot.get();
                // After a forced write fault the page is the program's own, and still read-only.
                let own = || force == Force::Yes && slot.frame().is_some_and(page::sole_owner);
                let usable = entry.is_present() && (!write || pte::writable(entry.bits()) || own());
                usable.then(|| slot.clone_frame())
            });
            if let Some(Some(frame)) = found {
                return Ok(frame);
            }
            self.fault_in(page, write, force)?;
        }
        Err(Errno::EFAULT)
    }
}
