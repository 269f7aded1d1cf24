#![no_std]
//! vfs
