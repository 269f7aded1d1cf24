//! Single steps, hardware breakpoints and watchpoints of programs (Arm ARM D2).
//!
//! MDSCR_EL1 decides: SS makes the CPU stop after one instruction of a program whose SPSR.SS is
//! set, MDE makes breakpoints and watchpoints count. Both are set before a thread that wants them
//! returns to EL0 and cleared when the CPU leaves it for another thread, so other threads never
//! see them and pay nothing. The kernel itself is never debugged: KDE stays clear.
//!
//! A breakpoint names EL0 only, but it names an address and no address space: that is why it must
//! not stay on across a switch.

#[path = "../common/debug_types.rs"]
mod debug_types;

pub use debug_types::*;

use crate::preempt;
use crate::regs::{read_sysreg, write_sysreg};
use crate::thread::{self, DEBUG_LOAD, HW_DEBUG, SINGLE_STEP, ThreadHead};
use core::sync::atomic::Ordering;

const MDSCR_SS: u64 = 1;
const MDSCR_MDE: u64 = 1 << 15;

fn change_mdscr(clear: u64, set: u64) {
    let now = read_sysreg!("mdscr_el1");
    let new = now & !clear | set;
    if new != now {
        // SAFETY: SS and MDE concern EL0 only as long as KDE is clear, and the caller is about to
        // enter or has left a thread that wants them. The ERET or the next exception synchronises.
        unsafe { write_sysreg!("mdscr_el1", new) };
    }
}

/// What this CPU has.
pub fn info() -> DebugInfo {
    let dfr0 = read_sysreg!("id_aa64dfr0_el1");
    let pairs = |shift: u32| (dfr0 >> shift & 0xf) as usize + 1;
    DebugInfo { version: (dfr0 & 0xf) as u8, breakpoints: pairs(12), watchpoints: pairs(20) }
}

macro_rules! write_pairs {
    ($points:expr, $count:expr, $value:literal, $control:literal: $($n:literal)*) => {
        $(if $n < $count {
            let p = $points[$n];
            // SAFETY: the CPU has the pair. The control word names EL0 only (`user_control`), and
            // MDE is clear until all are written.
            unsafe {
                core::arch::asm!(
                    concat!("msr ", $value, $n, "_el1, {}"),
                    concat!("msr ", $control, $n, "_el1, {}"),
                    in(reg) p.value, in(reg) u64::from(p.control),
                    options(nostack, preserves_flags)
                );
            }
        })*
    };
}

/// Privilege field of a control word: EL0 (PAC = 0b10).
const EL0_ONLY: u32 = 0b10 << 1;
const ENABLE: u32 = 1;

/// A control word that counts at EL0 and nowhere else.
const fn user_control(p: Point) -> Point {
    let control = p.control & !(0b11 << 1 | 0b11 << 13) | EL0_ONLY;
    Point { control: if p.control & ENABLE == 0 { 0 } else { control }, ..p }
}

/// Makes these the registers with which the current thread, which has HW_DEBUG set, returns to EL0.
pub fn load(regs: &DebugRegs) {
    let have = info();
    let (b, w) = (regs.breakpoints.map(user_control), regs.watchpoints.map(user_control));
    preempt::disable();
    // Before the registers: a switch from here on sets it again.
    thread::current().clear_flag(DEBUG_LOAD);
    change_mdscr(MDSCR_MDE, 0);
    write_pairs!(b, have.breakpoints, "dbgbvr", "dbgbcr": 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    write_pairs!(w, have.watchpoints, "dbgwvr", "dbgwcr": 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    change_mdscr(0, MDSCR_MDE);
    preempt::enable();
}

/// Before the return to EL0, interrupts off: a thread that single-steps gets its exception.
pub(crate) fn before_return(flags: u32) {
    if flags & SINGLE_STEP != 0 {
        change_mdscr(0, MDSCR_SS);
    }
}

/// A step exception; whether the thread asked for it. Otherwise it had asked before.
pub(crate) fn step_is_wanted(head: &ThreadHead) -> bool {
    let wanted = head.flags.load(Ordering::Relaxed) & SINGLE_STEP != 0;
    if !wanted {
        change_mdscr(MDSCR_SS, 0);
    }
    wanted
}

/// A breakpoint or watchpoint exception; whether the thread has any.
pub(crate) fn points_are_wanted(head: &ThreadHead) -> bool {
    let wanted = head.flags.load(Ordering::Relaxed) & HW_DEBUG != 0;
    if !wanted {
        change_mdscr(MDSCR_MDE, 0);
    }
    wanted
}

/// At the switch away from `prev`, interrupts off.
#[inline]
pub(crate) fn switch_out(prev: &ThreadHead) {
    if prev.flags.load(Ordering::Relaxed) & (SINGLE_STEP | HW_DEBUG) != 0 {
        change_mdscr(MDSCR_SS | MDSCR_MDE, 0);
    }
}

/// At the switch to `next`, interrupts off.
#[inline]
pub(crate) fn switch_in(next: &ThreadHead) {
    if next.flags.load(Ordering::Relaxed) & HW_DEBUG != 0 {
        next.set_flag(DEBUG_LOAD);
    }
}
