#![no_std]
//! initramfs
