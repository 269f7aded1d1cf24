#![no_std]
//! device
