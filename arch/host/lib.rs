//! arch-host
