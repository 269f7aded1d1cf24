//! Reading and writing the memory of a space from outside: `/proc/PID/mem`, ptrace, the kernel's
//! own setting-up of a new program's stack.

use abi::{Errno, PAGE_MASK, Result, UserAddr};
use frames::FrameRef;

use super::AddressSpace;
use crate::{Prot, io::within_page, pte};

impl AddressSpace {
    /// Reads memory; how many bytes could be read. EFAULT when none. May sleep.
    pub fn read_remote(&self, addr: UserAddr, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let at = addr.0.checked_add(done as u64).ok_or(Errno::EFAULT)?;
            let (offset, len) = within_page(at, buf.len() - done);
            match self.page_for(at, false) {
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
        let mut done = 0;
        while done < data.len() {
            let at = addr.0.checked_add(done as u64).ok_or(Errno::EFAULT)?;
            let (offset, len) = within_page(at, data.len() - done);
            match self.page_for(at, true) {
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

    /// The frame behind an address, faulted in as needed; `None` for a page of zeros or a device.
    fn page_for(&self, addr: u64, write: bool) -> Result<Option<FrameRef>> {
        let page = addr & !PAGE_MASK;
        if page >= abi::USER_END {
            return Err(Errno::EFAULT);
        }
        // Reclaim and other threads may take the page between fault and look; they lose interest.
        for _ in 0..16 {
            let found = self.table.with_existing(UserAddr(page), |slot| {
                let entry = slot.get();
                let usable = entry.is_present() && (!write || pte::writable(entry.bits()));
                usable.then(|| slot.clone_frame())
            });
            if let Some(Some(frame)) = found {
                return Ok(frame);
            }
            self.fault_in(page, write)?;
        }
        Err(Errno::EFAULT)
    }
}
