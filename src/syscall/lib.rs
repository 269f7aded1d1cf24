#![no_std]
//! syscall
