//! A number that root may change while the kernel runs, read without a lock.
//!
//! The room that obeys a setting owns it as a static; `vfs::sysctl` shows it in `/proc/sys`.

use crate::atomic::{AtomicI64, Ordering};
use abi::{Errno, Result};

/// A setting that is a number.
pub struct Number {
    value: AtomicI64,
    min: i64,
    max: i64,
    then: Option<fn()>,
}

impl Number {
    /// A number that can be set to `min..=max`.
    pub const fn new(value: i64, min: i64, max: i64) -> Self {
        Self { value: AtomicI64::new(value), min, max, then: None }
    }
    /// A switch: 0 or 1.
    pub const fn switch(on: bool) -> Self {
        Self::new(on as i64, 0, 1)
    }
    /// `f` is called after each change by [`set`](Self::set).
    pub const fn then(mut self, f: fn()) -> Self {
        self.then = Some(f);
        self
    }
    /// The value now.
    #[inline]
    pub fn get(&self) -> i64 {
        self.value.load(Ordering::Relaxed)
    }
    /// The value now, 0 for a negative one.
    #[inline]
    pub fn get_u64(&self) -> u64 {
        self.get().max(0) as u64
    }
    /// Sets it. EINVAL beyond the limits.
    pub fn set(&self, value: i64) -> Result {
        if !(self.min..=self.max).contains(&value) {
            return Err(Errno::EINVAL);
        }
        self.put(value);
        if let Some(f) = self.then {
            f();
        }
        Ok(())
    }
    /// The kernel's own change: within the limits, and nothing follows from it.
    pub fn put(&self, value: i64) {
        self.value.store(value.clamp(self.min, self.max), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_leave_the_value() {
        static N: Number = Number::new(1, 0, 3);
        assert_eq!(N.set(4), Err(Errno::EINVAL));
        assert_eq!(N.set(-1), Err(Errno::EINVAL));
        assert_eq!(N.get(), 1);
        assert_eq!(N.set(3), Ok(()));
        assert_eq!(N.get(), 3);
        N.put(9);
        assert_eq!(N.get_u64(), 3);
    }

    #[test]
    fn one_setting_can_follow_another() {
        static RATIO: Number = Number::new(50, 0, 100).then(|| KBYTES.put(0));
        static KBYTES: Number = Number::new(0, 0, i64::MAX).then(|| RATIO.put(0));
        KBYTES.set(7).unwrap();
        assert_eq!((RATIO.get(), KBYTES.get()), (0, 7));
        RATIO.set(20).unwrap();
        assert_eq!((RATIO.get(), KBYTES.get()), (20, 0));
    }
}
