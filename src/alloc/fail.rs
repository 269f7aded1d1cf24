//! Allocation failures on demand, for tests: the n-th allocation of this thread fails.
//!
//! As Linux's fail-nth: arm with [`fail_nth`], run the code under test, ask [`disarm`] whether the
//! failure was reached; repeat with a larger n until it was not. On the host the countdown is
//! per test thread, on the target per CPU-independent kernel thread (debug builds only).

#[cfg(not(target_os = "none"))]
mod imp {
    extern crate std;
    use core::cell::Cell;

    std::thread_local! {
        static COUNTDOWN: Cell<u64> = const { Cell::new(0) };
    }

    pub fn arm(n: u64) {
        COUNTDOWN.with(|c| c.set(n));
    }

    pub fn left() -> u64 {
        COUNTDOWN.with(Cell::get)
    }

    pub fn step() -> bool {
        COUNTDOWN
            .try_with(|c| {
                let n = c.get();
                if n == 0 {
                    return false;
                }
                c.set(n - 1);
                n == 1
            })
            .unwrap_or(false)
    }
}

#[cfg(all(target_os = "none", debug_assertions))]
mod imp {
    use sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    /// The armed thread (address of its `ThreadHead`) and its countdown. One thread at a time:
    /// arming from another thread takes the hook over.
    static THREAD: AtomicUsize = AtomicUsize::new(0);
    static COUNTDOWN: AtomicU64 = AtomicU64::new(0);

    fn me() -> usize {
        core::ptr::from_ref(arch::thread::current()) as usize
    }

    pub fn arm(n: u64) {
        COUNTDOWN.store(n, Ordering::Relaxed);
        THREAD.store(if n == 0 { 0 } else { me() }, Ordering::Relaxed);
    }

    pub fn left() -> u64 {
        if THREAD.load(Ordering::Relaxed) == me() { COUNTDOWN.load(Ordering::Relaxed) } else { 0 }
    }

    pub fn step() -> bool {
        // The common case is one load of a word that nobody writes.
        let armed = THREAD.load(Ordering::Relaxed);
        if armed == 0 || arch::preempt::in_interrupt() || armed != me() {
            return false;
        }
        let n = COUNTDOWN.load(Ordering::Relaxed);
        if n == 0 {
            return false;
        }
        COUNTDOWN.store(n - 1, Ordering::Relaxed);
        n == 1
    }
}

#[cfg(all(target_os = "none", not(debug_assertions)))]
mod imp {
    pub fn arm(_n: u64) {}
    pub fn left() -> u64 {
        0
    }
    #[inline(always)]
    pub fn step() -> bool {
        false
    }
}

/// The `n`-th allocation of this thread from now (1 is the next one) fails; 0 disarms.
pub fn fail_nth(n: u64) {
    imp::arm(n);
}

/// How many allocations of this thread are left until one fails; 0 when none will.
pub fn allocations_left() -> u64 {
    imp::left()
}

/// Disarms; true when the failure had not been reached, so the code under test made fewer
/// allocations than `n`.
pub fn disarm() -> bool {
    let unreached = imp::left() != 0;
    imp::arm(0);
    unreached
}

#[inline]
pub(crate) fn should_fail() -> bool {
    imp::step()
}
