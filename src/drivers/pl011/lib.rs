#![no_std]
//! pl011
