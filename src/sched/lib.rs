#![no_std]
//! sched
