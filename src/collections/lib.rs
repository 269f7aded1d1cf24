#![no_std]
//! collections
