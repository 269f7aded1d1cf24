#![no_std]
//! devtmpfs
