#![no_std]
//! frames
