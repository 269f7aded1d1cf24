#![cfg_attr(not(test), no_std)]
//! Terminals.
//!
//! What stands where: [`ldisc`] is the line discipline N_TTY as pure logic; [`Tty`] puts it between
//! a device ([`TtyDriver`]) and readers and writers; `file` and `ioctl` are the system calls' side,
//! with /dev/tty and /dev/console; [`console`] decides who shows the kernel's messages;
//! [`pty`] makes terminals whose device is a program; `job` holds the rules of controlling terminals, over what the process layer implements
//! ([`JobControl`]).

pub mod console;
mod driver;
mod file;
mod flip;
mod ioctl;
mod job;
pub mod ldisc;
pub mod pty;
pub mod termios;
mod tty;

pub use driver::TtyDriver;
pub use file::{init, register};
pub use job::{Ids, JobControl, hang_up_own, set_job_control};
pub use ldisc::{Flag, Ldisc};
pub use termios::Termios;
pub use tty::Tty;
