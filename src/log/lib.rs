#![no_std]
//! klog
