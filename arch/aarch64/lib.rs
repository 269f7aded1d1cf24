#![no_std]
//! arch-aarch64
