#![cfg_attr(not(test), no_std)]
//! Threads and who runs: run queues and the fair class, the switch's safe side, wait queues and
//! the locks that sleep, kernel threads, time accounting.
//!
//! Who reads this for the first time begins with [`wait`] (why no wake-up is lost: `thread_queue.rs`,
//! `sleeper.rs`), goes on to `cpu.rs` (from one thread to the next), `runqueue.rs`, `rt.rs` and
//! `fair.rs` (who is next), and ends in the crate sched-switch, where the registers change.
//!
//! # Rules
//! - One way to sleep: [`WaitQueue::wait_until`] and what is built on it. Sleeping locks, sleeps
//!   with a deadline and stops are the same sleep.
//! - Waking works in any context. Everything that can sleep says so, and debug builds check.
//! - Nothing is allocated on the way into or out of a sleep.
//! - Lock order: sleeping locks; wait queues (1590 callbacks, 1600 threads); run queues (1700),
//!   never two; cross calls, load; timers (1750).
//!
//! # Calls from below and above
//! arch calls `preempt_schedule` (through `Kernel`) and the first-run hook of new threads; the
//! interrupt controller calls [`smp::run_calls`]; `time` runs the tick. The process layer names
//! what hangs on a thread through [`Payload`] and [`UserSpace`].
//!
//! Semantics: sched(7), sched_yield(2), sched_setaffinity(2), nice(2), proc(5).

mod balance;
mod completion;
mod cpu;
mod fair;
mod idle;
pub mod kthread;
mod load;
mod mutex;
mod park;
mod policy;
mod rcu_threads;
mod rt;
mod runqueue;
mod rwmutex;
mod sleeper;
#[cfg(test)]
mod sleeper_tests;
pub mod smp;
#[cfg(test)]
mod tests;
mod thread;
mod thread_queue;
mod tick;
mod user_space;
pub mod wait;
mod worker;

pub use completion::Completion;
pub use cpu::{need_resched, preempt_schedule, schedule, set_affinity, signal_wake, sum_exec_now, wake, yield_now};
pub use idle::{idle_loop, init_boot_cpu, init_secondary, prepare_secondary};
pub use kthread::set_kthread_register;
pub use load::{CpuUsage, LOAD_SHIFT, cpu_usage, loadavg, nr_running, nr_switches, nr_uninterruptible};
pub use mutex::{Mutex, MutexGuard};
pub use policy::{Attributes, Policy, set_attributes, set_boost, time_slice};
pub use park::{Parked, park_current, prepare_to_park, unpark};
pub use rcu_threads::start_rcu_thread;
pub use rwmutex::{RwMutex, RwReadGuard, RwWriteGuard};
pub use smp::{Ipi, set_ipi};
pub use thread::{
    Core, Payload, State, Thread, ThreadRef, ThreadSpec, UserSpace, create_kernel, create_user, current, current_arc,
    discard, enter_user, exit_current, set_user_space, start, thread_name, total_forks,
};
pub use wait::{Outcome, Registration, Sleep, WaitQueue, Wake, WakeCallback, sleep_until};
pub use worker::{Control, Worker};
