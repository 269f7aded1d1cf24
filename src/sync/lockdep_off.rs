//! The lock-order checker of release builds and of models: nothing.

use super::{Class, Kind, Place};

/// The sleeping locks that a thread holds while it is switched out. Empty in this build.
#[derive(Default)]
pub struct LockdepState;

impl LockdepState {
    /// Of a thread that holds nothing.
    pub const fn new() -> Self {
        Self
    }
}

/// How many violations were found since boot. This build looks for none.
pub fn violations() -> u64 {
    0
}

#[inline(always)]
pub(super) fn acquire(_: Class, _: u8, _: Kind, _: bool, _: Place) {}
#[inline(always)]
pub(super) fn release(_: Class) {}
#[inline(always)]
pub(super) fn switch(_: &LockdepState, _: &LockdepState) {}
#[inline(always)]
pub(super) fn assert_none_held(_: &'static str) {}
#[inline(always)]
pub(super) fn start_sleep_checks() {}
#[inline(always)]
pub(super) fn check_sleep(_: Place) {}
