#![no_std]
//! ipc
