#![no_std]
//! tty
