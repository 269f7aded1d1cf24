#![no_std]
//! procfs
