#![no_std]
//! tmpfs
