//! Signals: who may send what to whom, where a signal waits, and what happens when its thread
//! returns to user space (`signal(7)`, `kill(2)`, `sigaction(2)`).
//!
//! - [`send`]: from a cause to a queue, and the wake-up.
//! - [`deliver`]: from the queue to a handler's frame, a stop, or the end of the process.
//! - [`frame`]: the frame on the user's stack and the way back.
//! - [`calls`]: the system calls.
//!
//! Invariant: a thread has SIGNAL_PENDING set in its work flags whenever a signal that it does not
//! block waits for it or for its process, or a group stop or exit concerns it. The flag may also be
//! set without cause; [`deliver`] clears it then.
//!
//! Context: sending takes spin locks with interrupts off and never sleeps; group and session
//! targets walk the family tree and so are for thread context only.

mod action;
pub mod calls;
pub mod fd;
pub(crate) mod deliver;
mod frame;
pub(crate) use deliver::{complete_stop, force_signal, force_to_end};
pub(crate) use frame::MIN_STACK;
mod info;
mod send;
mod set;

pub use action::{Action, Actions, SIG_DFL, SIG_IGN};
pub use info::{Cause, SIGINFO_SIZE, SigInfo, SigQueue, USER_HZ, clock_ticks};
pub(crate) use send::{Queued, send_timer_signal, send_to_group_with_family, send_with_family, wake_for_signals};
pub use send::{may_signal, send_to_group, send_to_process, send_to_task};
pub use set::{DefaultAction, SigSet, Signal};
