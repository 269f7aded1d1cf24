//! Threads that job control or a tracer has stopped.

use crate::{
    Thread, cpu,
    sleeper::{STOPPED, TRACED},
};
use arch::thread::FATAL_PENDING;
use sync::atomic::{Ordering, fence};

/// Why a thread is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// By job control (T).
    Stopped,
    /// By a tracer (t).
    Traced,
}

/// Declares that the current thread will stop, so that an `unpark` between this and
/// [`park_current`] is not lost. With the lock held that orders stops and continues.
pub fn prepare_to_park() {
    crate::current().parked.store(true, Ordering::Relaxed);
}

/// Stops the current thread, after [`prepare_to_park`], until it is unparked or a fatal signal
/// arrives.
pub fn park_current(why: Parked) {
    sync::might_sleep();
    let me = crate::current();
    let state = match why {
        Parked::Stopped => STOPPED,
        Parked::Traced => TRACED,
    };
    loop {
        me.sleeper.state.begin(state);
        if !me.parked.load(Ordering::Acquire) || me.head().test_flag(FATAL_PENDING) {
            break;
        }
        cpu::schedule();
    }
    me.sleeper.state.cancel();
    me.parked.store(false, Ordering::Relaxed);
}

/// Lets a stopped thread go on, or one that is about to stop; `false` if it was neither.
pub fn unpark(thread: &Thread) -> bool {
    let was_parked = thread.parked.swap(false, Ordering::AcqRel);
    fence(Ordering::SeqCst);
    thread.sleeper.wake(STOPPED | TRACED);
    was_parked
}
