#![no_std]
//! sched-switch
