#![no_std]
//! kalloc
