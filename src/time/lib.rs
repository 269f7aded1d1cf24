#![no_std]
//! time
