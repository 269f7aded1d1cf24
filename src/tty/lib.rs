#![cfg_attr(not(test), no_std)]
//! Terminals: the line discipline, the terminal with its sessions and job control, consoles.

pub mod ldisc;
pub mod termios;
