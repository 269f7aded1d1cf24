#![no_std]
//! gic
