#![no_std]
//! mm
