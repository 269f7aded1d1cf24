#![no_std]
//! process
