#![no_std]
//! sync
