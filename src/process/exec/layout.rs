//! Where exec puts things: stack, heap, programs and the area of `mmap`, at random or not.
//!
//! The rules are Linux's for arm64 (`personality(2)`, ADDR_NO_RANDOMIZE and ADDR_COMPAT_LAYOUT;
//! /proc/sys/kernel/randomize_va_space in `proc(5)`): the stack lies below the end of user space,
//! `mmap` places downwards from a gap below it, position-independent programs start at two thirds,
//! the heap follows the program.

use crate::personality::Personality;
use abi::{PAGE_MASK, PAGE_SIZE, Result, USER_END, page_align_up};
use vfs::sysctl::{self, Number};

/// Where position-independent programs start to be placed.
pub(super) const PIE_BASE: u64 = USER_END / 3 * 2;
/// Where `mmap` starts to place upwards, in the old layout.
const BOTTOM_UP_BASE: u64 = USER_END / 4;
/// Pages of randomness of the mmap base and of programs (vm.mmap_rnd_bits).
const RANDOM_PAGES: u64 = 1 << 18;
/// Random part of the stack's top.
const STACK_RANDOM: u64 = 1 << 30;
/// Random part of the stack pointer below the strings.
pub(super) const STACK_SHIFT: u64 = PAGE_SIZE as u64;
/// Random part of the heap's start.
const HEAP_RANDOM: u64 = 1 << 30;
/// The least room below the stack, whatever its limit.
const MIN_STACK_GAP: u64 = 128 << 20;
/// Pages that stay free below a stack (`stack_guard_gap`).
const GUARD_GAP: u64 = 256 * PAGE_SIZE as u64;
/// Stack that is mapped at the start beside what it holds; the rest grows by faults.
const INITIAL_STACK: u64 = 128 << 10;

/// 0: nothing is random; 1: stack, `mmap` and programs; 2: the heap, too.
static RANDOMIZE: Number = Number::new(2, i32::MIN as i64, i32::MAX as i64);

/// Registers /proc/sys/kernel/randomize_va_space.
pub(super) fn init() -> Result {
    sysctl::add_number("sys/kernel/randomize_va_space", &RANDOMIZE)
}

/// The usual limit of a stack (Linux's _STK_LIM): the most that the place of a set-id program's
/// mappings depends on.
pub(super) const USUAL_STACK: u64 = 8 << 20;

/// A random number below `n`.
fn random_below(n: u64) -> u64 {
    vfs::random::next_u64() % n
}

/// What was decided for one program.
#[derive(Debug)]
pub(super) struct Places {
    pub stack_top: u64,
    /// How far the stack pointer moves below the strings, a multiple of 16.
    pub stack_shift: u64,
    pub mmap_base: u64,
    pub bottom_up: bool,
    pub pie_base: u64,
    pub random_heap: bool,
    /// A page at address 0 is wanted.
    pub page_zero: bool,
}

impl Places {
    /// Decides for a program with this personality and stack limit.
    pub fn choose(personality: Personality, stack_limit: u64) -> Self {
        let level = if personality.contains(Personality::ADDR_NO_RANDOMIZE) { 0 } else { RANDOMIZE.get() as i32 };
        Self::at_level(personality, stack_limit, level)
    }

    fn at_level(personality: Personality, stack_limit: u64, level: i32) -> Self {
        let random = |n: u64| if level != 0 { random_below(n) } else { 0 };
        let stack_top = USER_END - (random(STACK_RANDOM) & !PAGE_MASK);
        let shift = random(RANDOM_PAGES) * PAGE_SIZE as u64;
        let bottom_up = personality.contains(Personality::ADDR_COMPAT_LAYOUT) || stack_limit == u64::MAX;
        let mmap_base = if bottom_up {
            BOTTOM_UP_BASE + shift
        } else {
            // The gap is for the whole stack, wherever in its random range it starts.
            let pad = GUARD_GAP + if level != 0 { STACK_RANDOM } else { 0 };
            let gap = stack_limit.saturating_add(pad).clamp(MIN_STACK_GAP, USER_END / 6 * 5);
            (USER_END - gap - shift) & !PAGE_MASK
        };
        Self {
            stack_top,
            stack_shift: random(STACK_SHIFT) & !15,
            mmap_base,
            bottom_up,
            pie_base: (PIE_BASE & !PAGE_MASK) + random(RANDOM_PAGES) * PAGE_SIZE as u64,
            random_heap: level > 1,
            page_zero: personality.contains(Personality::MMAP_PAGE_ZERO),
        }
    }

    /// Start of the heap of a program that ends at `end`.
    pub fn heap_behind(&self, end: u64) -> Option<u64> {
        let start = page_align_up(end)?;
        Some(if self.random_heap { start + (random_below(HEAP_RANDOM) & !PAGE_MASK) } else { start })
    }
}

/// Size of the stack's first mapping: what it holds at the start and 128 KiB, as far as the limit
/// allows; never less than what it holds.
pub(super) fn first_stack(used: u64, limit: u64) -> Option<u64> {
    let used = page_align_up(used)?;
    Some(used.checked_add(INITIAL_STACK)?.min(limit & !PAGE_MASK).max(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_random_at_level_zero() {
        let p = Places::at_level(Personality::empty(), 8 << 20, 0);
        // What a debugger's user knows of arm64: libraries end at 0xfffff7ff..., programs begin at
        // 0xaaaaaaaa....
        assert_eq!((p.stack_top, p.mmap_base), (1 << 48, 0xffff_f800_0000));
        assert_eq!((p.pie_base, p.stack_shift, p.random_heap), (0xaaaa_aaaa_a000, 0, false));
        assert_eq!(p.heap_behind(0x1234), Some(0x2000));
    }

    #[test]
    fn random_places_leave_the_stack_its_limit() {
        for level in [1, 2] {
            for limit in [0, 8 << 20, 1 << 40] {
                let p = Places::at_level(Personality::empty(), limit, level);
                assert!(p.stack_top - p.mmap_base >= limit.max(64 << 20), "{p:?}");
                assert_eq!((p.stack_top % 4096, p.mmap_base % 4096, p.stack_shift % 16), (0, 0, 0));
                assert_eq!(p.heap_behind(0x1000) == Some(0x1000), level == 1);
            }
        }
    }

    #[test]
    fn an_unlimited_stack_or_the_old_layout_places_upwards() {
        let p = Places::at_level(Personality::empty(), u64::MAX, 0);
        assert_eq!((p.bottom_up, p.mmap_base), (true, 1 << 46));
        assert!(Places::at_level(Personality::ADDR_COMPAT_LAYOUT, 8 << 20, 2).bottom_up);
    }

    #[test]
    fn the_first_stack_is_what_it_holds_and_more_if_the_limit_allows() {
        assert_eq!(first_stack(5000, 8 << 20), Some(0x2000 + (128 << 10)));
        assert_eq!(first_stack(5000, (64 << 10) + 17), Some(64 << 10));
        assert_eq!(first_stack(5000, 0), Some(0x2000));
        assert_eq!(first_stack(u64::MAX, 0), None);
    }
}
