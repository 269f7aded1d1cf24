//! Hardware breakpoints and watchpoints of a task (NT_ARM_HW_BREAK, NT_ARM_HW_WATCH).
//!
//! They belong to the thread: exec drops them, children do not inherit them.

use super::regset::Bytes;
use crate::task::Task;
use abi::{Errno, Result};
use arch::{
    debug::{DebugInfo, DebugRegs, MAX_POINTS, Point},
    thread::{DEBUG_LOAD, HW_DEBUG},
};
use kalloc::KBox;

/// `struct user_hwdebug_state`: a word about the CPU, padding, then 16 pairs of 16 bytes.
pub(super) const SIZE: usize = HEAD + MAX_POINTS * PAIR;
const HEAD: usize = 8;
const PAIR: usize = 16;

// The control word of the interface: enable, privilege, type, byte select (as DBGBCR and DBGWCR).
const ENABLE: u32 = 1;
const EL0: u32 = 0b10 << 1;
const KIND: u32 = 0b11 << 3;
const BYTES_SHIFT: u32 = 5;

fn points(regs: &DebugRegs, breaks: bool) -> &[Point; MAX_POINTS] {
    if breaks { &regs.breakpoints } else { &regs.watchpoints }
}

fn have(info: &DebugInfo, breaks: bool) -> usize {
    (if breaks { info.breakpoints } else { info.watchpoints }).min(MAX_POINTS)
}

pub(super) fn read(task: &Task, breaks: bool, out: &mut Bytes) {
    let info = arch::debug::info();
    out.put(0, &(u32::from(info.version) << 8 | have(&info, breaks) as u32).to_le_bytes());
    let slot = task.debug.lock();
    let Some(regs) = slot.as_deref() else { return };
    for (i, p) in points(regs, breaks).iter().enumerate() {
        out.put(HEAD + i * PAIR, &p.value.to_le_bytes());
        out.put(HEAD + i * PAIR + 8, &p.control.to_le_bytes());
    }
}

/// A point as the CPU takes it. EINVAL for what it cannot watch.
fn point(breaks: bool, addr: u64, control: u32) -> Result<Point> {
    if addr >= abi::USER_END {
        return Err(Errno::EINVAL);
    }
    if control & ENABLE == 0 {
        return Ok(Point { value: addr, control: 0 });
    }
    let kind = control & KIND;
    let bytes = control >> BYTES_SHIFT & 0xff;
    // Adjacent bytes, at least one; a breakpoint is for instructions, a watchpoint for loads or
    // stores.
    let low = bytes.trailing_zeros();
    if bytes == 0 || !((bytes >> low) + 1).is_power_of_two() || breaks != (kind == 0) {
        return Err(Errno::EINVAL);
    }
    let (mask, bytes) = if breaks { (3, 0xf) } else { (7, bytes) };
    let offset = addr & mask;
    if breaks && offset != 0 || bytes << offset > 0xff {
        return Err(Errno::EINVAL);
    }
    Ok(Point { value: addr & !mask, control: bytes << offset << BYTES_SHIFT | kind | EL0 | ENABLE })
}

/// Sets the pairs that lie in the first `len` bytes. ENOSPC for one that the CPU does not have.
pub(super) fn write(task: &Task, breaks: bool, new: &Bytes, len: usize) -> Result {
    let thread = task.thread().ok_or(Errno::ESRCH)?;
    let most = have(&arch::debug::info(), breaks);
    let mut regs = task.debug.lock().as_deref().copied().unwrap_or_default();
    for i in 0..MAX_POINTS {
        let at = HEAD + i * PAIR;
        if at >= len {
            break;
        }
        if at + 8 > len {
            return Err(Errno::EINVAL);
        }
        if i >= most {
            return Err(Errno::ENOSPC);
        }
        let old = points(&regs, breaks).get(i).map_or(0, |p| p.control);
        let control = if at + 12 <= len { new.u32(at + 8) } else { old };
        let p = point(breaks, new.u64(at), control)?;
        let list = if breaks { &mut regs.breakpoints } else { &mut regs.watchpoints };
        if let Some(slot) = list.get_mut(i) {
            *slot = p;
        }
    }
    let used = regs.breakpoints.iter().chain(&regs.watchpoints).any(|p| p.control != 0);
    let fresh = KBox::try_new(regs)?;
    let old = task.debug.lock().replace(fresh);
    drop(old);
    // The thread is stopped: it finds the flags when it goes on.
    if used {
        thread.head().set_flag(HW_DEBUG | DEBUG_LOAD);
    } else {
        thread.head().clear_flag(HW_DEBUG);
    }
    Ok(())
}

/// Before the return to user space of a thread whose points are not in this CPU's registers.
pub(crate) fn load(task: &Task) {
    let regs = task.debug.lock().as_deref().copied().unwrap_or_default();
    arch::debug::load(&regs);
}

/// Exec: nothing of the old program's is left.
pub(crate) fn flush(task: &Task) {
    sched::current().head().clear_flag(HW_DEBUG | DEBUG_LOAD);
    let old = task.debug.lock().take();
    drop(old);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN4: u32 = 0xf << BYTES_SHIFT;
    const STORES: u32 = 0b10 << 3;

    #[test]
    fn breakpoints_are_for_aligned_instructions() {
        let p = point(true, 0x1000, LEN4 | ENABLE).unwrap();
        assert_eq!(p, Point { value: 0x1000, control: LEN4 | EL0 | ENABLE });
        assert_eq!(point(true, 0x1002, LEN4 | ENABLE), Err(Errno::EINVAL));
        assert_eq!(point(true, 0x1000, LEN4 | STORES | ENABLE), Err(Errno::EINVAL));
    }

    #[test]
    fn watchpoints_select_bytes_of_a_double_word() {
        let p = point(false, 0x1004, LEN4 | STORES | ENABLE).unwrap();
        assert_eq!(p, Point { value: 0x1000, control: 0xf0 << BYTES_SHIFT | STORES | EL0 | ENABLE });
        assert_eq!(point(false, 0x1006, LEN4 | STORES | ENABLE), Err(Errno::EINVAL));
        assert_eq!(point(false, 0x1000, 0b101 << BYTES_SHIFT | STORES | ENABLE), Err(Errno::EINVAL));
        assert_eq!(point(false, 0x1000, LEN4 | ENABLE), Err(Errno::EINVAL));
    }

    #[test]
    fn what_is_off_needs_no_sense_but_a_user_address() {
        assert_eq!(point(true, 0x1003, 0), Ok(Point { value: 0x1003, control: 0 }));
        assert_eq!(point(true, abi::USER_END, 0), Err(Errno::EINVAL));
    }
}
